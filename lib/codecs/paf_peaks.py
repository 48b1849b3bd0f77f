"""Hilltops of heatmaps, and their place between the cells. Coordinates are cells, the integer is a cell's centre.

Compiled functions stand in one file with all that they call: numba's cache notices changes in that file only.
"""

from __future__ import annotations

import math

import numba
import numpy as np

NONE, CENTROID, PARABOLA = 0, 1, 2
FIRST, RANKED, SPACED = 0, 1, 2


@numba.njit(cache=True)
def locate_parts(heatmaps, threshold, radius, distance, max_peaks, choice, refine):
    """Peaks of every part: their numbers (K,) int64, and x, y in cells and value (K, max_peaks, 3) float32."""
    num_parts = heatmaps.shape[0]
    counts = np.zeros(num_parts, np.int64)
    cells = np.empty((max_peaks, 2), np.int64)
    peaks = np.zeros((num_parts, max_peaks, 3), np.float32)
    for k in range(num_parts):
        if choice == SPACED:
            counts[k] = find_spaced_peaks(heatmaps[k], threshold, distance, cells)
        else:
            counts[k] = find_peaks(heatmaps[k], threshold, radius, choice == RANKED, cells)
        for m in range(counts[k]):
            i, j = cells[m, 0], cells[m, 1]
            y, x = refine_peak(heatmaps[k], i, j, radius, refine)
            peaks[k, m, 0], peaks[k, m, 1], peaks[k, m, 2] = x, y, heatmaps[k, i, j]
    return counts, peaks


@numba.njit(cache=True)
def find_peaks(heatmap, threshold, radius, ranked, cells):
    """Cells ≥ threshold with nothing larger around them; returns their number, writes (i, j) into `cells` (M, 2).

    With `ranked` a plateau gives one peak, its first cell, and when there are more than M peaks the best M stay.
    Otherwise every cell of a plateau counts and the first M of the map stay. NaN is no peak.
    """
    height, width = heatmap.shape
    most = cells.shape[0]
    count = 0
    lowest = 0  # of the peaks kept, once all places are taken
    for i in range(height):
        above = 0
        for j in range(width):
            above += heatmap[i, j] >= threshold
        if above == 0:
            continue
        for j in range(width):
            value = heatmap[i, j]
            if not value >= threshold:
                continue
            if radius > 0 and (heatmap[i, max(j - 1, 0)] > value or heatmap[i, min(j + 1, width - 1)] > value):
                continue  # saves most of the looks at the whole window
            if not _is_peak(heatmap, i, j, radius, ranked):
                continue
            if count < most:
                cells[count] = i, j
                count += 1
            elif not ranked:
                return count
            elif heatmap[i, j] > heatmap[cells[lowest, 0], cells[lowest, 1]]:
                cells[lowest] = i, j
            if ranked and count == most:
                for m in range(most):
                    if heatmap[cells[m, 0], cells[m, 1]] < heatmap[cells[lowest, 0], cells[lowest, 1]]:
                        lowest = m
    return count


@numba.njit(cache=True)
def _is_peak(heatmap, i, j, radius, ranked):
    value = heatmap[i, j]
    for r in range(max(i - radius, 0), min(i + radius + 1, heatmap.shape[0])):
        for c in range(max(j - radius, 0), min(j + radius + 1, heatmap.shape[1])):
            if heatmap[r, c] > value:
                return False
            if ranked and heatmap[r, c] == value and (r < i or (r == i and c < j)):
                return False
    return True


@numba.njit(cache=True)
def find_spaced_peaks(heatmap, threshold, distance, cells):
    """Cells ≥ threshold, above their four neighbours (0 beyond the border), and not too near to each other (OpenPose).

    From left to right, and from the top: one nearer than `distance` to one kept before is dropped, be it larger or not.
    Returns and writes as `find_peaks`; when there are more than M, the first M stay.
    """
    height, width = heatmap.shape
    found = np.empty(((height * width + 1) // 2, 2), np.int64)
    num_found = 0
    for i in range(height):
        for j in range(width):
            value = heatmap[i, j]
            if (
                threshold <= value < 1e30
                and (i == 0 or value > heatmap[i - 1, j])
                and (i == height - 1 or value > heatmap[i + 1, j])
                and (j == 0 or value > heatmap[i, j - 1])
                and (j == width - 1 or value > heatmap[i, j + 1])
            ):
                found[num_found] = i, j
                num_found += 1
    # what stands in one column is chained from the top down: sorting without a sort to compile
    top, below = np.full(width, -1, np.int64), np.full(num_found, -1, np.int64)
    for m in range(num_found - 1, -1, -1):
        below[m] = top[found[m, 1]]
        top[found[m, 1]] = m
    count = 0
    for j in range(width):
        m = top[j]
        while m >= 0 and count < cells.shape[0]:
            near = False
            for n in range(count - 1, -1, -1):
                if j - cells[n, 1] >= distance or near:
                    break
                near = (cells[n, 0] - found[m, 0]) ** 2 + (cells[n, 1] - j) ** 2 < distance**2
            if not near:
                cells[count] = found[m]
                count += 1
            m = below[m]
    return count


@numba.njit(cache=True)
def refine_peak(heatmap, i, j, radius, method):
    """Sub-pixel place (y, x) of the peak at cell (i, j); the cell itself where the map allows nothing better."""
    y, x = np.float32(i), np.float32(j)
    if method == CENTROID:
        y, x = _centroid(heatmap, i, j, radius)
    elif method == PARABOLA:
        y, x = _gaussian_top(heatmap, i, j)
    if not (abs(y - i) <= radius + 1 and abs(x - j) <= radius + 1):
        return np.float32(i), np.float32(j)
    return np.float32(y), np.float32(x)


@numba.njit(cache=True)
def _centroid(heatmap, i, j, radius):
    """Weighted mean of the window; cells beyond the border take the value mirrored at it (trt_pose)."""
    height, width = heatmap.shape
    y = x = total = np.float32(0)
    for r in range(i - radius, i + radius + 1):
        for c in range(j - radius, j + radius + 1):
            row = -r if r < 0 else (2 * height - r - 2 if r >= height else r)
            col = -c if c < 0 else (2 * width - c - 2 if c >= width else c)
            weight = heatmap[min(max(row, 0), height - 1), min(max(col, 0), width - 1)]
            y += weight * np.float32(r)
            x += weight * np.float32(c)
            total += weight
    if total == 0:
        return np.float32(i), np.float32(j)
    return y / total, x / total


@numba.njit(cache=True)
def _gaussian_top(heatmap, i, j):
    """Top of the Gaussian around cell (i, j): on each axis the top of a parabola through three logarithms.

    Exact for a Gaussian, even one that the border cuts off. At a border the parabola stands on one side only and its bend
    is unsure, so the other axis lends its own. The result is at most one cell away.
    """
    at_y, slope_y, bend_y, border_y = _parabola(heatmap, i, j, 0)
    at_x, slope_x, bend_x, border_x = _parabola(heatmap, i, j, 1)
    if border_y and not border_x:
        bend_y = bend_x
    elif border_x and not border_y:
        bend_x = bend_y
    y = at_y - slope_y / bend_y if bend_y < 0 else np.float32(i)
    x = at_x - slope_x / bend_x if bend_x < 0 else np.float32(j)
    one = np.float32(1)
    return min(max(y, i - one), i + one), min(max(x, j - one), j + one)


@numba.njit(cache=True)
def _parabola(heatmap, i, j, axis):
    """Parabola of the logarithms along one axis near cell (i, j): place, slope there, bend, whether it is at a border.

    Each logarithm is of a sum over three cells across the axis, weighted 1 2 1: less noise, and still a Gaussian.
    """
    at, size = (i, heatmap.shape[0]) if axis == 0 else (j, heatmap.shape[1])
    middle = min(max(at, 1), size - 2)
    if size < 3:
        return np.float32(at), np.float32(0), np.float32(-1), False
    low = _log_across(heatmap, i, j, axis, middle - 1)
    top = _log_across(heatmap, i, j, axis, middle)
    high = _log_across(heatmap, i, j, axis, middle + 1)
    bend, half = low - 2 * top + high, np.float32(0.5)
    if at < middle:
        return middle - half, top - low, bend, True
    if at > middle:
        return middle + half, high - top, bend, True
    return np.float32(middle), half * (high - low), bend, False


@numba.njit(cache=True)
def _log_across(heatmap, i, j, axis, at):
    total = np.float32(0)
    for side in range(-1, 2):
        r, c = (at, j + side) if axis == 0 else (i + side, at)
        if 0 <= r < heatmap.shape[0] and 0 <= c < heatmap.shape[1]:
            total += heatmap[r, c] * np.float32(2 - abs(side))
    return np.float32(math.log(max(total, np.float32(1e-6))))
