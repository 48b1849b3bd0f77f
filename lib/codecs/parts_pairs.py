"""How probably two detections are of one person: what the maps of pairs predict at each, beside where the other one is.

Compiled functions stand in one file with all that they call: numba's cache notices changes in that file only.
"""

from __future__ import annotations

import math

import numba
import numpy as np

NUM_FEATURES = 8


@numba.njit(cache=True)
def edges_between(parts, wanted):
    """Pairs of detections that can be asked whether they belong together.

    Args:
        parts: (n,) int64, ascending.
        wanted: (K, K) bool for keypoints a ≤ b.

    Returns:
        (m, 2) int64, the smaller one first.
    """
    n, total = parts.shape[0], 0
    for u in range(n):
        for v in range(u + 1, n):
            total += wanted[parts[u], parts[v]]
    edges, m = np.empty((total, 2), np.int64), 0
    for u in range(n):
        for v in range(u + 1, n):
            if wanted[parts[u], parts[v]]:
                edges[m, 0], edges[m, 1] = u, v
                m += 1
    return edges


@numba.njit(cache=True)
def probabilities(edges, parts, cells, centres, places, pairwise, stats, rule, same_part, fitted, weights):
    """Probability of each pair of detections to be of one person.

    Args:
        edges: (m, 2) int64 detections u, v, the keypoint of u before that of v, or the same.
        parts, cells, centres, places: of the detections, see `lib.codecs.parts_detect.Detections`.
        pairwise: (2K(K−1), h, w) float32.
        stats: (K, K, 4) float64 mean x, mean y, std x, std y of every ordered pair, pixels.
        rule: slope, offset and width for pairs without a regression: 1 / (1 + exp(slope · e − offset)), e the mean of both
            directions' errors, each in units of √(std² + width²).
        same_part: slope (per pixel) and offset for two detections of one keypoint: 1 / (1 + exp(slope · distance − offset)).
        fitted: (K, K) bool, which pairs a < b have a regression.
        weights: (K, K, 9) float64 their weights for the features and 1.

    Returns:
        (m,) float64 in 0..1; 0 where what the maps predict is not finite.
    """
    out, f = np.empty(edges.shape[0]), np.empty(NUM_FEATURES)
    for m in range(edges.shape[0]):
        u, v = edges[m, 0], edges[m, 1]
        a, b = parts[u], parts[v]
        if a == b:
            apart = math.hypot(places[v, 0] - places[u, 0], places[v, 1] - places[u, 1])
            exponent = same_part[0] * apart - same_part[1]
        elif fitted[a, b]:
            _features(u, v, parts, cells, centres, places, pairwise, stats, f)
            exponent = -weights[a, b, NUM_FEATURES] if f[0] + f[2] < np.inf else np.inf
            for n in range(NUM_FEATURES):
                exponent -= weights[a, b, n] * f[n]
        else:
            error = _error(u, v, parts, cells, centres, places, pairwise, stats, rule[2])
            error += _error(v, u, parts, cells, centres, places, pairwise, stats, rule[2])
            exponent = rule[0] * error / 2 - rule[1]
        # exp of more would overflow
        out[m] = 1 / (1 + math.exp(exponent)) if exponent < 700 else 0.0
    return out


@numba.njit(cache=True)
def features(edges, parts, cells, centres, places, pairwise, stats):
    """(m, 8) float64 for edges between different keypoints: what the regressions see; arguments as for `probabilities`.

    How far the prediction at the first detection is from the second one's place, pixels; the angle between what was predicted
    and what is, 0..π; the same from the second to the first; and exp(−·) of these four.
    """
    out = np.empty((edges.shape[0], NUM_FEATURES))
    for m in range(edges.shape[0]):
        _features(edges[m, 0], edges[m, 1], parts, cells, centres, places, pairwise, stats, out[m])
    return out


@numba.njit(cache=True)
def _features(u, v, parts, cells, centres, places, pairwise, stats, out):
    for direction in range(2):
        start, end = (u, v) if direction == 0 else (v, u)
        x, y, told_x, told_y = _towards(start, end, parts, cells, centres, places, pairwise, stats)
        turn = abs(math.atan2(y, x) - math.atan2(told_y, told_x))
        out[2 * direction] = math.hypot(x - told_x, y - told_y)
        out[2 * direction + 1] = 2 * math.pi - turn if turn > math.pi else turn
    for n in range(NUM_FEATURES // 2):
        out[n + NUM_FEATURES // 2] = math.exp(-out[n])


@numba.njit(cache=True)
def _error(start, end, parts, cells, centres, places, pairwise, stats, width):
    x, y, told_x, told_y = _towards(start, end, parts, cells, centres, places, pairwise, stats)
    std = stats[parts[start], parts[end], 2:]
    return math.hypot((x - told_x) / math.hypot(std[0], width), (y - told_y) / math.hypot(std[1], width))


@numba.njit(cache=True)
def pair_index(start, end, num_keypoints):
    """Number p of the ordered pair start → end among the K(K−1): its x is channel 2p of "pairwise", its y channel 2p + 1."""
    return (num_keypoints - 1) * start + end - (1 if start < end else 0)


@numba.njit(cache=True)
def _towards(start, end, parts, cells, centres, places, pairwise, stats):
    """From the start's cell to the end's place, as it is and as the map says there: x, y, x, y in pixels."""
    a, b = parts[start], parts[end]
    pair = pair_index(a, b, stats.shape[0])
    j, i = cells[start, 0], cells[start, 1]
    told_x = np.float64(pairwise[2 * pair, i, j]) * stats[a, b, 2] + stats[a, b, 0]
    told_y = np.float64(pairwise[2 * pair + 1, i, j]) * stats[a, b, 3] + stats[a, b, 1]
    return places[end, 0] - centres[start, 0], places[end, 1] - centres[start, 1], told_x, told_y
