"""Pictures of detections, of what holds them together, and of the people they are cut into (see `lib.codecs.multicut`)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lib.draw import OUTLINE, SHIFT, copy_of, fixed_point, track_colour

ATTRACTS, REPELS = (0, 120, 90), (213, 94, 0)
STRONG = 6.0  # weights beyond are drawn no thicker; −6 is a probability of 0.998
FEW = 30  # edges; more are drawn thinner
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_graph(
    image: np.ndarray, places: np.ndarray, edges: np.ndarray, weights: np.ndarray, labels: np.ndarray | None = None, *,
    names: Sequence[str] = (), numbers: bool = False, repelling: bool = True,
) -> np.ndarray:  # fmt: skip
    """A graph over a faded copy of an image, before or after it was cut.

    Edges that attract are green, those that repel orange and dashed; the thicker, the stronger. After the cut each cluster has a
    colour, its edges that attract lie on a band of this colour, and edges that were cut are thin and pale. A detection is a disc,
    a suppressed one a ring. Places that are not finite are not drawn.

    Args:
        image: (H, W, 3) RGB uint8.
        places: (n, 2) x, y of the detections in pixels.
        edges: (m, 2) pairs of detections.
        weights: (m,) cost of having both ends in one cluster.
        labels: (n,) cluster of every detection, −1 for a suppressed one; None before the cut.
        names: of the detections, written beside them.
        numbers: write every weight on its edge.
        repelling: draw edges that repel; in a crowd they hide all else.

    Returns:
        (H, W, 3) RGB uint8.

    Raises:
        ValueError: shapes do not fit each other.
    """
    places, edges, weights = np.asarray(places, float).reshape(-1, 2), np.asarray(edges).reshape(-1, 2), np.asarray(weights)
    labels = None if labels is None else np.asarray(labels)
    _check(places, edges, weights, labels, names)
    grey = cv2.cvtColor(copy_of(image), cv2.COLOR_RGB2GRAY)
    canvas = cv2.cvtColor(255 - ((255 - grey) * 0.4).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    unit = max(1.0, np.sqrt(canvas.shape[0] * canvas.shape[1]) / 350)
    drawn = [e for e in np.argsort(np.abs(weights), kind="stable")
             if np.isfinite(places[edges[e]]).all() and (repelling or weights[e] <= 0)]  # fmt: skip
    thin = unit * min(1.0, (FEW / max(len(drawn), 1)) ** 0.5)
    together = {e for e in drawn if labels is not None and labels[edges[e, 0]] == labels[edges[e, 1]] >= 0}
    for e in drawn:
        if e in together and weights[e] < 0:
            colour = _paler(track_colour(labels[edges[e, 0]] + 1), 0.35)
            _line(canvas, *places[edges[e]], colour, 6 * thin)
    for e in sorted(drawn, key=lambda e: e in together):
        cut = labels is not None and e not in together
        colour = ATTRACTS if weights[e] < 0 else REPELS
        width = thin * (0.5 if cut else 0.7 + 1.8 * min(abs(weights[e]), STRONG) / STRONG)
        _line(canvas, *places[edges[e]], _paler(colour, 0.55) if cut else colour, width, 5 * unit * (weights[e] >= 0))
    if numbers:
        for e in drawn:
            # not in the middle, where edges cross
            place = np.array([0.62, 0.38]) @ places[edges[e]]
            _write(canvas, f"{weights[e]:+.3g}", place, ATTRACTS if weights[e] < 0 else REPELS, unit)
    for i in np.flatnonzero(np.isfinite(places).all(axis=1)):
        _disc(canvas, places[i], None if labels is None else int(labels[i]), unit)
    for name, place in zip(names, places):
        if np.isfinite(place).all():
            _write(canvas, name, place - (0, 12 * unit), OUTLINE, unit)
    return canvas


def _disc(canvas: np.ndarray, place: np.ndarray, label: int | None, unit: float) -> None:
    colour = (90, 90, 90) if label is None else track_colour(label + 1)
    rings = [(5.0, (130, 130, 130)), (3.4, (255, 255, 255))] if label == -1 else [(5.0, OUTLINE), (4.0, colour)]
    for radius, filling in rings:
        cv2.circle(canvas, fixed_point(place[None])[0], round(radius * unit * 2**SHIFT), filling, -1, cv2.LINE_AA, SHIFT)


def _line(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, colour: tuple, width: float, dash: float = 0.0) -> None:
    """From start to end, in dashes of about this length and as wide gaps; 0 for none."""
    pieces = max(1, round(np.linalg.norm(end - start) / dash)) // 2 * 2 + 1 if dash else 1
    steps = fixed_point(start + np.linspace(0, 1, min(pieces, 999) + 1)[:, None] * (end - start))
    for a, b in zip(steps[::2], steps[1::2]):
        cv2.line(canvas, a, b, colour, max(1, round(width)), cv2.LINE_AA, SHIFT)


def _write(canvas: np.ndarray, text: str, place: np.ndarray, colour: tuple, unit: float) -> None:
    """Text around a place, pulled into the picture, on a white plate."""
    size, thickness = 0.4 * unit, max(1, round(0.8 * unit))
    (w, h), _ = cv2.getTextSize(text, _FONT, size, thickness)
    height, width = canvas.shape[:2]
    pad = round(1.5 * unit)
    x = round(float(np.clip(place[0] - w / 2, pad, max(pad, width - w - pad))))
    y = round(float(np.clip(place[1] + h / 2, h + pad, max(h + pad, height - pad))))
    cv2.rectangle(canvas, (x - pad, y - h - pad), (x + w + pad, y + pad), (255, 255, 255), -1)
    cv2.putText(canvas, text, (x, y), _FONT, size, colour, thickness, cv2.LINE_AA)


def _paler(colour: tuple, share: float) -> tuple[int, int, int]:
    return tuple(round(c + share * (255 - c)) for c in colour)


def _check(places, edges, weights, labels, names) -> None:
    if weights.shape != (len(edges),) or (len(edges) and not 0 <= edges.min() <= edges.max() < len(places)):
        raise ValueError(f"a graph of {len(places)} places has edges (m, 2) between them and weights (m,), got edges "
                         f"{edges.shape} and weights {weights.shape}")  # fmt: skip
    for what, values in (("labels", labels), ("names", names or None)):
        if values is not None and len(values) != len(places):
            raise ValueError(f"{len(places)} places need as many {what}, got {len(values)}")
