"""Where a person's missing keypoints are: the best place of the heatmap among those whose tags are the person's own.

Compiled functions stand in one file with all that they call: numba's cache notices changes in that file only.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def best_by_tag(heatmaps, tags, means, missing):
    """Cell with the largest heatmap less the rounded distance of its tag, searched everywhere (published).

    Args:
        heatmaps: (K, h, w) float32.
        tags: (E, K or 1, h, w) float32.
        means: (P, E) float32, mean tags of the people.
        missing: (P, K) bool, who looks for what.

    Returns:
        (P, K) int64 flat cell index, −1 where nothing was missing, or nothing but NaN found.
    """
    num_parts, height, width = heatmaps.shape
    cells = np.full(missing.shape, -1, np.int64)
    for k in range(num_parts):
        of = min(k, tags.shape[1] - 1)
        for p in range(missing.shape[0]):
            if not missing[p, k]:
                continue
            best = np.float32(-np.inf)
            for i in range(height):
                for j in range(width):
                    total = np.float32(0)
                    for e in range(tags.shape[0]):
                        difference = tags[e, of, i, j] - means[p, e]
                        total += difference * difference
                    value = heatmaps[k, i, j] - np.rint(np.sqrt(total))
                    if value > best:
                        best, cells[p, k] = value, i * width + j
    return cells


@numba.njit(cache=True)
def best_within(heatmaps, tags, means, missing, cutoff, threshold):
    """Cell with the largest heatmap above the threshold among those whose tag lies within the cut-off.

    Args:
        heatmaps: (K, n·h, n·w) float32; the n² cells of a tag share it.
        tags: (E, K or 1, h, w) float32.
        means: (P, E) float32, mean tags of the people.
        missing: (P, K) bool, who looks for what.
        cutoff: largest distance of tags, as the root of the mean square over their E numbers.
        threshold: what the heatmap must exceed.

    Returns:
        (P, K) int64 flat cell index in the heatmaps, −1 where nothing was missing or found.
    """
    height, width = tags.shape[2:]
    finer = heatmaps.shape[1] // height
    cells = np.full(missing.shape, -1, np.int64)
    highest = np.empty((height, width), np.float32)
    row_highest = np.empty(height, np.float32)
    near = np.float32(cutoff) * np.float32(cutoff) * np.float32(tags.shape[0])
    for k in range(missing.shape[1]):
        if not missing[:, k].any():
            continue
        _pool(heatmaps[k], finer, highest, row_highest)
        own = tags[:, min(k, tags.shape[1] - 1)]
        for p in range(missing.shape[0]):
            if missing[p, k]:
                i, j = _best_cell(highest, row_highest, own, means[p], near, np.float32(threshold))
                if i >= 0:
                    cells[p, k] = _highest_of_block(heatmaps[k], i * finer, j * finer, finer)
    return cells


@numba.njit(cache=True)
def _pool(heatmap, finer, highest, row_highest):
    """Largest value of each block of finer × finer cells, and of each row of blocks; NaN counts as nothing."""
    height, width = highest.shape
    highest[:] = -np.inf
    for i in range(height):
        for r in range(i * finer, (i + 1) * finer):
            for c in range(finer):
                for j in range(width):
                    value = heatmap[r, j * finer + c]
                    highest[i, j] = max(highest[i, j], value)
        row_highest[i] = highest[i].max()


@numba.njit(cache=True)
def _best_cell(highest, row_highest, tags, mean, near, threshold):
    height, width = highest.shape
    best, row, column = threshold, -1, -1
    for i in range(height):
        if row_highest[i] <= best:
            continue
        for j in range(width):
            if highest[i, j] > best:
                total = np.float32(0)
                for e in range(tags.shape[0]):
                    difference = tags[e, i, j] - mean[e]
                    total += difference * difference
                if total <= near:
                    best, row, column = highest[i, j], i, j
    return row, column


@numba.njit(cache=True)
def _highest_of_block(heatmap, top, left, size):
    at, width = top * heatmap.shape[1] + left, heatmap.shape[1]
    for i in range(top, top + size):
        for j in range(left, left + size):
            if not heatmap[at // width, at % width] >= heatmap[i, j]:
                at = i * width + j
    return at
