"""Where each keypoint may be: the highest cells of its heatmap, each with a disc to itself, moved by their offsets.

Compiled functions stand in one file with all that they call: numba's cache notices changes in that file only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np


class Detections(NamedTuple):
    """Places where a keypoint may be, part after part, of each part the best first.

    Attributes:
        parts: (n,) int64 index of the keypoint.
        cells: (n, 2) int64 x, y of the cell.
        centres: (n, 2) float64 x, y of that cell's centre, pixels of the network's input.
        places: (n, 2) float64 the same moved by the cell's offset.
        scores: (n,) float64 the heatmap there.
    """

    parts: np.ndarray
    cells: np.ndarray
    centres: np.ndarray
    places: np.ndarray
    scores: np.ndarray


def detect(heatmaps: np.ndarray, offsets: np.ndarray | None, *, threshold: float, radius: float, most: int | None,
           stride: float, origin: float, offset_stdev: float) -> Detections:  # fmt: skip
    """Detections of all keypoints by DeeperCut's rule: the highest cell suppresses all in a disc around it, and so on.

    Args:
        heatmaps: (K, h, w) float32. Values that are not finite are no detections.
        offsets: (2K, h, w) float32, x and y of each keypoint in units of `offset_stdev`; None leaves places at cell centres.
            Where they are not finite the detection is left out.
        threshold: the heatmap is at least this.
        radius: of the disc in cells, rounded up.
        most: detections of each keypoint, or None for all.
        stride: pixels of the network's input per cell.
        origin: pixel of the centre of cell 0, on both axes.
        offset_stdev: pixels.
    """
    height, width = heatmaps.shape[1:]
    most = height * width if most is None else min(most, height * width)
    found = spaced_maxima(np.ascontiguousarray(heatmaps, np.float32), float(threshold), math.ceil(radius), most)
    return _finite(located(found, heatmaps, offsets, stride, origin, offset_stdev))


def highest(heatmaps: np.ndarray, offsets: np.ndarray | None, *, stride: float, origin: float,
            offset_stdev: float) -> Detections:  # fmt: skip
    """The highest cell of every heatmap, whatever its value; arguments as for `detect`.

    A keypoint without a finite value, or with offsets there that are not finite, is missing.
    """
    finite = np.where(np.isfinite(heatmaps), heatmaps, -np.inf).reshape(len(heatmaps), -1)
    cells = finite.argmax(axis=1)
    parts = np.flatnonzero(np.isfinite(finite[np.arange(len(finite)), cells]))
    y, x = np.divmod(cells[parts], heatmaps.shape[2])
    found = np.stack([parts, y, x], axis=1)
    return _finite(located(found, heatmaps, offsets, stride, origin, offset_stdev))


def located(found: np.ndarray, heatmaps: np.ndarray, offsets: np.ndarray | None, stride: float, origin: float,
            offset_stdev: float) -> Detections:  # fmt: skip
    """Detections at given cells, (n, 3) int64 keypoint, row and column, in that order; arguments as for `detect`."""
    parts, y, x = found.T
    cells = np.stack([x, y], axis=1)
    centres = cells * float(stride) + origin
    places = centres
    if offsets is not None:
        moved = np.stack([offsets[2 * parts, y, x], offsets[2 * parts + 1, y, x]], axis=1).astype(np.float64)
        places = centres + moved * offset_stdev
    return Detections(parts, cells, centres, places, heatmaps[parts, y, x].astype(np.float64))


def _finite(found: Detections) -> Detections:
    valid = np.isfinite(found.places).all(axis=1)
    return Detections(*(values[valid] for values in found))


@numba.njit(cache=True)
def spaced_maxima(heatmaps, threshold, radius, most):
    """Highest cells of each map (K, h, w), none within `radius` of a higher one that was kept.

    Of equal cells the first of the map counts as higher. There are few above the threshold, so they are not sorted: each
    round looks for the highest of those left.

    Returns:
        (n, 3) int64 map, row, column; map after map, the highest first, at most `most` of each.
    """
    num_parts, height, width = heatmaps.shape
    found = np.empty((num_parts * most, 3), np.int64)
    num_found = 0
    rows, columns = np.empty(height * width, np.int64), np.empty(height * width, np.int64)
    values = np.empty(height * width, np.float32)
    for k in range(num_parts):
        left = 0
        for i in range(height):
            for j in range(width):
                value = heatmaps[k, i, j]
                if np.float64(value) >= threshold and value < np.inf:
                    rows[left], columns[left], values[left] = i, j, value
                    left += 1
        end = num_found + most
        while left > 0 and num_found < end:
            best = values[:left].argmax()
            row, column = rows[best], columns[best]
            found[num_found, 0], found[num_found, 1], found[num_found, 2] = k, row, column
            num_found += 1
            kept = 0
            for c in range(left):
                if (rows[c] - row) ** 2 + (columns[c] - column) ** 2 > radius * radius:
                    rows[kept], columns[kept], values[kept] = rows[c], columns[c], values[c]
                    kept += 1
            left = kept
    return found[:num_found]
