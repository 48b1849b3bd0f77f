"""Which peaks are joined by a limb: line integrals through the fields, and the assignment.

Compiled functions stand in one file with all that they call: numba's cache notices changes in that file only.
"""

from __future__ import annotations

import math

import numba
import numpy as np

GREEDY, OPTIMAL, OPTIMAL_UNPRUNED = 0, 1, 2


@numba.njit(cache=True)
def choose_links(
    pafs, limbs, counts, peaks, threshold, hit_threshold, samples, bilinear, min_hit_ratio, hits_only, length_penalty,
    assignment,
):  # fmt: skip
    """Accepted links: limb and the two peaks' indices (N, 3) int64, their scores (N,) float32."""
    most = 0
    for limb in range(limbs.shape[0]):
        most += min(counts[limbs[limb, 0]], counts[limbs[limb, 1]])
    links = np.empty((most, 3), np.int64)
    link_scores = np.empty(most, np.float32)
    num_links = 0
    for limb in range(limbs.shape[0]):
        a, b = limbs[limb, 0], limbs[limb, 1]
        if counts[a] == 0 or counts[b] == 0:
            continue
        scores = score_links(pafs[2 * limb], pafs[2 * limb + 1], peaks[a, : counts[a]], peaks[b, : counts[b]],
                             hit_threshold, samples, bilinear, min_hit_ratio, hits_only, length_penalty)  # fmt: skip
        partners = assign(scores, threshold, assignment)
        for m in range(counts[a]):
            if partners[m] >= 0 and scores[m, partners[m]] > threshold:
                links[num_links, 0], links[num_links, 1], links[num_links, 2] = limb, m, partners[m]
                link_scores[num_links] = scores[m, partners[m]]
                num_links += 1
    return links[:num_links], link_scores[:num_links]


@numba.njit(cache=True)
def score_links(paf_y, paf_x, starts, ends, hit_threshold, samples, bilinear, min_hit_ratio, hits_only, length_penalty):
    """Mean of the field along the way from every start to every end, (A, B) float32.

    A sample outside the map counts as 0. With fewer than `min_hit_ratio` of the samples above `hit_threshold`, or with a
    field that is not finite, the score is 0. `hits_only` takes the mean of the samples above; `length_penalty` subtracts
    from links longer than half the map's height what that half is short of their length, as a share of it.
    """
    height, width = paf_y.shape
    scores = np.zeros((starts.shape[0], ends.shape[0]), np.float32)
    progress = np.arange(samples).astype(np.float32) / np.float32(samples - 1)
    flat_y, flat_x = paf_y.ravel(), paf_x.ravel()
    needed = min_hit_ratio * samples
    for a in range(starts.shape[0]):
        ax, ay = starts[a, 0], starts[a, 1]
        for b in range(ends.shape[0]):
            bx, by = ends[b, 0], ends[b, 1]
            length = np.sqrt((bx - ax) ** 2 + (by - ay) ** 2) + np.float32(1e-5)
            ux, uy = (bx - ax) / length, (by - ay) / length
            # a hair less than the map, so that rounding cannot lead out of it
            inside = min(ax, ay, bx, by) > -0.49 and max(ax, bx) < width - 0.51 and max(ay, by) < height - 0.51
            if inside and bilinear:
                total, above, hits = _read_between(
                    flat_y, flat_x, height, width, ax, ay, bx - ax, by - ay, ux, uy, progress, hit_threshold
                )
            elif inside:
                total, above, hits = _read_cells(
                    flat_y, flat_x, np.int32(width), ax, ay, bx - ax, by - ay, ux, uy, progress, hit_threshold
                )
            else:
                total, above, hits = _read_checked(
                    paf_y, paf_x, ax, ay, bx - ax, by - ay, ux, uy, progress, hit_threshold, bilinear
                )
            score = above / np.float32(max(hits, 1)) if hits_only else total / np.float32(samples)
            if length_penalty:
                score += min(np.float32(height // 2) / length - np.float32(1), np.float32(0))
            if hits >= needed and abs(score) < np.float32(1e30):
                scores[a, b] = score
    return scores


@numba.njit(cache=True)
def _read_cells(flat_y, flat_x, width, ax, ay, dx, dy, ux, uy, progress, threshold):
    """Along a line inside the map: the field's sum, the sum and number of samples above the threshold; the hottest loop.

    Counting from the map's corner makes cutting off the fraction find the nearest cell, and the flat, unsigned index
    spares the test for negative ones: together they let the compiler take several samples at once.
    """
    x0, y0 = ax + np.float32(0.5), ay + np.float32(0.5)
    total, above, hits = np.float32(0), np.float32(0), np.int32(0)
    for t in range(progress.shape[0]):
        x, y = x0 + progress[t] * dx, y0 + progress[t] * dy
        at = np.uintp(np.int32(y) * width + np.int32(x))
        value = flat_y[at] * uy + flat_x[at] * ux
        total += value
        above += value if value > threshold else np.float32(0)
        hits += np.int32(value > threshold)
    return total, above, hits


@numba.njit(cache=True)
def _read_between(flat_y, flat_x, height, width, ax, ay, dx, dy, ux, uy, progress, threshold):
    """`_read_cells` with bilinear reading: all lines of coarse maps come through here."""
    total, above, hits, one = np.float32(0), np.float32(0), np.int32(0), np.float32(1)
    bottom, last = np.float32(height - 1), np.float32(width - 1)
    right, below = np.uintp(min(width - 1, 1)), np.uintp(width if height > 1 else 0)
    for t in range(progress.shape[0]):
        x, y = ax + progress[t] * dx, ay + progress[t] * dy
        x, y = min(max(x, np.float32(0)), last), min(max(y, np.float32(0)), bottom)
        i, j = min(np.int32(y), max(height - 2, 0)), min(np.int32(x), max(width - 2, 0))
        fx, fy = x - np.float32(j), y - np.float32(i)
        at = np.uintp(i * width + j)
        top = flat_y[at] * uy + flat_x[at] * ux
        top_right = flat_y[at + right] * uy + flat_x[at + right] * ux
        low = flat_y[at + below] * uy + flat_x[at + below] * ux
        low_right = flat_y[at + below + right] * uy + flat_x[at + below + right] * ux
        value = (top * (one - fx) + top_right * fx) * (one - fy) + (low * (one - fx) + low_right * fx) * fy
        total += value
        above += value if value > threshold else np.float32(0)
        hits += np.int32(value > threshold)
    return total, above, hits


@numba.njit(cache=True)
def _read_checked(paf_y, paf_x, ax, ay, dx, dy, ux, uy, progress, threshold, bilinear):
    """`_read_cells` for lines that leave the map, where the field is 0, and with bilinear reading."""
    height, width = paf_y.shape
    total, above, hits = np.float32(0), np.float32(0), np.int32(0)
    for t in range(progress.shape[0]):
        x, y = ax + progress[t] * dx, ay + progress[t] * dy
        i, j = math.floor(y + np.float32(0.5)), math.floor(x + np.float32(0.5))
        if not (0 <= i < height and 0 <= j < width):
            continue
        if bilinear:
            value = _between_cells(paf_y, y, x) * uy + _between_cells(paf_x, y, x) * ux
        else:
            value = paf_y[i, j] * uy + paf_x[i, j] * ux
        total += value
        above += value if value > threshold else np.float32(0)
        hits += np.int32(value > threshold)
    return total, above, hits


@numba.njit(cache=True)
def _between_cells(field, y, x):
    """Bilinear value at (y, x), which lies at most half a cell beyond the border."""
    height, width = field.shape
    y, x = min(max(y, np.float32(0)), np.float32(height - 1)), min(max(x, np.float32(0)), np.float32(width - 1))
    i, j = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
    below, right = min(i + 1, height - 1), min(j + 1, width - 1)
    fy, fx = y - np.float32(i), x - np.float32(j)
    top = field[i, j] * (1 - fx) + field[i, right] * fx
    bottom = field[below, j] * (1 - fx) + field[below, right] * fx
    return top * (1 - fy) + bottom * fy


@numba.njit(cache=True)
def assign(scores, threshold, method):
    """One end at most for every start and the other way round; returns (A,) int64 chosen ends, −1 for none.

    OPTIMAL maximises the sum of the scores above the threshold, OPTIMAL_UNPRUNED the sum of all of them (trt_pose, which
    drops the low ones afterwards), GREEDY takes the best pair left, again and again.
    """
    num_a, num_b = scores.shape
    partners = np.full(num_a, -1, np.int64)
    if method == OPTIMAL_UNPRUNED:
        return _hungarian(scores)
    taken = np.zeros(num_b, np.bool_)
    disjoint = True
    for a in range(num_a):
        best = np.argmax(scores[a])
        if scores[a, best] > threshold:
            disjoint = disjoint and not taken[best]
            taken[best] = True
            partners[a] = best
    if disjoint:  # nobody's first choice stands against another's: no assignment can be better
        return partners
    gains = np.where(scores > threshold, scores, np.float32(0))
    if method == OPTIMAL:
        return _hungarian(gains)
    partners[:] = -1
    for _ in range(min(num_a, num_b)):
        a, b = divmod(np.argmax(gains), num_b)
        if gains[a, b] <= 0:
            break
        partners[a] = b
        gains[a, :] = 0
        gains[:, b] = 0
    return partners


@numba.njit(cache=True)
def _hungarian(scores):
    """Assignment of min(A, B) pairs with the largest sum, by shortest augmenting paths (Jonker and Volgenant 1987)."""
    if scores.shape[0] > scores.shape[1]:
        partners = np.full(scores.shape[0], -1, np.int64)
        for b, a in enumerate(_hungarian_rows(np.ascontiguousarray(scores.T))):
            partners[a] = b
        return partners
    return _hungarian_rows(scores)


@numba.njit(cache=True)
def _hungarian_rows(scores):
    """`_hungarian` where A ≤ B; every row gets a column."""
    num_a, num_b = scores.shape
    price_a, price_b = np.zeros(num_a), np.zeros(num_b)
    row_of = np.full(num_b, -1, np.int64)
    slack, came_from = np.empty(num_b), np.empty(num_b, np.int64)
    done = np.empty(num_b, np.bool_)
    for root in range(num_a):
        slack[:] = np.inf
        came_from[:] = -1
        done[:] = False
        a, last = root, -1
        while True:
            nearest = -1
            for b in range(num_b):
                if done[b]:
                    continue
                reduced = -scores[a, b] - price_a[a] - price_b[b]
                if reduced < slack[b]:
                    slack[b] = reduced
                    came_from[b] = last
                if nearest < 0 or slack[b] < slack[nearest]:
                    nearest = b
            delta = slack[nearest]
            price_a[root] += delta
            for b in range(num_b):
                if done[b]:
                    price_a[row_of[b]] += delta
                    price_b[b] -= delta
                else:
                    slack[b] -= delta
            done[nearest] = True
            last = nearest
            if row_of[nearest] < 0:
                break
            a = row_of[nearest]
        while last >= 0:
            previous = came_from[last]
            row_of[last] = root if previous < 0 else row_of[previous]
            last = previous
    partners = np.full(num_a, -1, np.int64)
    for b in range(num_b):
        if row_of[b] >= 0:
            partners[row_of[b]] = b
    return partners
