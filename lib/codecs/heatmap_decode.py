"""Where between the cells the peak of a heatmap lies: four ways, three of them published.

"none": in the middle of the highest cell. "quarter" (SimpleBaseline): a quarter of a cell towards the higher neighbour, along
both axes. "dark" (Zhang et al. 2020, arXiv:1910.06278): the maps are smoothed, and their logarithm is taken for a parabola, which
it is for a Gaussian; one step of Newton leads to its top. "udp" (Huang et al. 2020, arXiv:1911.07524): the same with derivatives
of the nearest cells, and also at the border.
"""

from __future__ import annotations

import cv2
import numpy as np

REFINE = ("none", "quarter", "dark", "udp")


def highest(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Highest cell of every map: (K, 2) int64 x, y and (K,) float32 its value; the first one of equals."""
    flat = heatmaps.reshape(len(heatmaps), -1)
    at = flat.argmax(axis=1)
    y, x = np.divmod(at, heatmaps.shape[2])
    return np.stack([x, y], axis=1), flat[np.arange(len(flat)), at]


def refined(heatmaps: np.ndarray, cells: np.ndarray, how: str, blur: int) -> np.ndarray:
    """Places of the peaks between the cells.

    Args:
        heatmaps: (K, h, w) float32, finite.
        cells: (K, 2) x, y of the highest cell of each.
        how: one of `REFINE`.
        blur: side of the smoothing kernel, cells, odd.

    Returns:
        (K, 2) float32 x, y in cells. At most a cell beyond the map: noise may lead anywhere.
    """
    if how == "none":
        return cells.astype(np.float32)
    if how == "quarter":
        steps = 0.25 * np.sign(_slopes(heatmaps, cells)) * _inside(heatmaps, cells, 2, 1).all(axis=1, keepdims=True)
    else:
        least, most = (1e-3, 50.0) if how == "udp" else (1e-10, np.inf)
        # second differences of almost flat maps leave nothing of single precision
        logs = np.log(np.clip(_smoothed(heatmaps, blur).astype(np.float64), least, most))
        steps = _newton_udp(logs, cells) if how == "udp" else _newton_dark(logs, cells)
    return np.clip(cells + np.where(np.isfinite(steps), steps, 0), -1, heatmaps.shape[:0:-1]).astype(np.float32)


def _newton_dark(logs: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Second derivatives over two cells to each side; a peak within two cells of the border stays where it is."""
    around = lambda x, y: _at(logs, cells + (x, y))
    here = 2 * around(0, 0)
    xx, yy = 0.25 * (around(2, 0) - here + around(-2, 0)), 0.25 * (around(0, 2) - here + around(0, -2))
    xy = 0.25 * (around(1, 1) - around(1, -1) - around(-1, 1) + around(-1, -1))
    steps = _newton(0.5 * _slopes(logs, cells), xx, xy, yy, 0.0)
    return np.where(_inside(logs, cells, 2, 2).all(axis=1, keepdims=True), steps, 0.0)


def _newton_udp(logs: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Second derivatives of the nearest cells; beyond the border the map goes on as its last cell."""
    around = lambda x, y: _at(logs, cells + (x, y))
    here, right, left, below, above = around(0, 0), around(1, 0), around(-1, 0), around(0, 1), around(0, -1)
    xx, yy = right - 2 * here + left, below - 2 * here + above
    xy = 0.5 * (around(1, 1) - right - below + 2 * here - left - above + around(-1, -1))
    return _newton(0.5 * _slopes(logs, cells), xx, xy, yy, np.finfo(np.float32).eps)


def _newton(slopes: np.ndarray, xx: np.ndarray, xy: np.ndarray, yy: np.ndarray, epsilon: float) -> np.ndarray:
    """−H⁻¹·g of every map; not finite where the curvature has no inverse."""
    (x, y), xx, yy = slopes.T, xx + epsilon, yy + epsilon
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([xy * y - yy * x, xy * x - xx * y], axis=1) / (xx * yy - xy**2)[:, None]


def _smoothed(heatmaps: np.ndarray, kernel: int) -> np.ndarray:
    """The maps blurred (σ ≈ 2 cells for a kernel of 11), with 0 beyond the border, each as high as it was."""
    layers = np.ascontiguousarray(heatmaps.transpose(1, 2, 0))
    blurred = cv2.GaussianBlur(layers, (kernel, kernel), 0, borderType=cv2.BORDER_CONSTANT)
    blurred = blurred.reshape(layers.shape).transpose(2, 0, 1)
    before, after = (values.max(axis=(1, 2), keepdims=True) for values in (heatmaps, blurred))
    return blurred * np.divide(before, after, out=np.ones_like(before), where=after != 0)


def _slopes(maps: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """(K, 2) right less left and lower less upper neighbour."""
    pairs = ((1, 0), (0, 1))
    return np.stack([_at(maps, cells + step) - _at(maps, cells - step) for step in np.array(pairs)], axis=1)


def _at(maps: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """(K,) values; beyond the border those of the last cell."""
    height, width = maps.shape[1:]
    return maps[np.arange(len(maps)), cells[:, 1].clip(0, height - 1), cells[:, 0].clip(0, width - 1)]


def _inside(maps: np.ndarray, cells: np.ndarray, before: int, behind: int) -> np.ndarray:
    """(K, 2) whether there are so many cells on both sides (the published conditions differ for the two)."""
    return (cells >= before) & (cells < np.array(maps.shape[:0:-1]) - behind)
