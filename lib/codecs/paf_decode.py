"""From heatmaps and part affinity fields to people, compiled by numba.

Everything compiled stands in this one file: numba's cache notices a change in the file of the function that is called,
not in files of the functions it calls. Coordinates are cells, the integer is a cell's centre.
"""

from __future__ import annotations

import math

import numba
import numpy as np

NONE, CENTROID, PARABOLA = 0, 1, 2
GREEDY, OPTIMAL, OPTIMAL_UNPRUNED = 0, 1, 2


def decode_maps(
    heatmaps, pafs, limbs, peak_threshold, radius, max_peaks, ranked, refine, link_threshold, samples, bilinear,
    min_hit_ratio, assignment, conflict_free, min_parts, confidence,
):  # fmt: skip
    """Find peaks, score and choose the links between them, and join linked peaks to people.

    Sorting is left to numpy here, between the compiled steps: numba would compile its own for seconds.

    Args:
        heatmaps: (K, h, w) float32.
        pafs: (2L, h, w) float32, y component first.
        limbs: (L, 2) int64.
        The others are the decode options of `PafCodec`, enumerations as this module's constants.

    Returns:
        (P, K, 3) float32 x, y in cells and score, (P,) float32 scores of the people; best first.
    """
    counts, peaks = locate_parts(heatmaps, np.float32(peak_threshold), radius, max_peaks, ranked, refine)
    links, link_scores = choose_links(
        pafs, limbs, counts, peaks, np.float32(link_threshold), samples, bilinear, min_hit_ratio, assignment
    )
    if conflict_free:
        surest = np.argsort(-link_scores, kind="stable")
        members, evidence = join_links(counts, max_peaks, limbs, links[surest], link_scores[surest], min_parts)
    else:
        members, evidence = flood_links(counts, max_peaks, limbs, links)
    keypoints, scores = score_people(members, evidence, peaks, len(limbs), min_parts, confidence)
    best = np.argsort(-scores, kind="stable")
    return keypoints[best], scores[best]


@numba.njit(cache=True)
def locate_parts(heatmaps, threshold, radius, max_peaks, ranked, refine):
    """Peaks of every part: their numbers (K,) int64, and x, y in cells and value (K, max_peaks, 3) float32."""
    num_parts = heatmaps.shape[0]
    counts = np.zeros(num_parts, np.int64)
    cells = np.empty((max_peaks, 2), np.int64)
    peaks = np.zeros((num_parts, max_peaks, 3), np.float32)
    for k in range(num_parts):
        counts[k] = find_peaks(heatmaps[k], threshold, radius, ranked, cells)
        for m in range(counts[k]):
            i, j = cells[m, 0], cells[m, 1]
            y, x = refine_peak(heatmaps[k], i, j, radius, refine)
            peaks[k, m, 0], peaks[k, m, 1], peaks[k, m, 2] = x, y, heatmaps[k, i, j]
    return counts, peaks


@numba.njit(cache=True)
def choose_links(pafs, limbs, counts, peaks, threshold, samples, bilinear, min_hit_ratio, assignment):
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
                             threshold, samples, bilinear, min_hit_ratio)  # fmt: skip
        partners = assign(scores, threshold, assignment)
        for m in range(counts[a]):
            if partners[m] >= 0 and scores[m, partners[m]] > threshold:
                links[num_links, 0], links[num_links, 1], links[num_links, 2] = limb, m, partners[m]
                link_scores[num_links] = scores[m, partners[m]]
                num_links += 1
    return links[:num_links], link_scores[:num_links]


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


@numba.njit(cache=True)
def score_links(paf_y, paf_x, starts, ends, threshold, samples, bilinear, min_hit_ratio):
    """Mean of the field along the way from every start to every end, (A, B) float32.

    A sample outside the map counts as 0. With fewer than `min_hit_ratio` of the samples above `threshold`, or with a
    field that is not finite, the score is 0.
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
            if inside and not bilinear:
                total, hits = _read_cells(
                    flat_y, flat_x, np.int32(width), ax, ay, bx - ax, by - ay, ux, uy, progress, threshold
                )
            else:
                total, hits = _read_checked(
                    paf_y, paf_x, ax, ay, bx - ax, by - ay, ux, uy, progress, threshold, bilinear
                )
            score = total / np.float32(samples)
            if hits >= needed and abs(score) < np.float32(1e30):
                scores[a, b] = score
    return scores


@numba.njit(cache=True)
def _read_cells(flat_y, flat_x, width, ax, ay, dx, dy, ux, uy, progress, threshold):
    """Sum of the field along a line inside the map and the number of samples above the threshold; the hottest loop.

    Counting from the map's corner makes cutting off the fraction find the nearest cell, and the flat, unsigned index
    spares the test for negative ones: together they let the compiler take several samples at once.
    """
    x0, y0 = ax + np.float32(0.5), ay + np.float32(0.5)
    total, hits = np.float32(0), np.int32(0)
    for t in range(progress.shape[0]):
        x, y = x0 + progress[t] * dx, y0 + progress[t] * dy
        at = np.uintp(np.int32(y) * width + np.int32(x))
        value = flat_y[at] * uy + flat_x[at] * ux
        total += value
        hits += np.int32(value > threshold)
    return total, hits


@numba.njit(cache=True)
def _read_checked(paf_y, paf_x, ax, ay, dx, dy, ux, uy, progress, threshold, bilinear):
    """`_read_cells` for lines that leave the map, where the field is 0, and with bilinear reading."""
    height, width = paf_y.shape
    total, hits = np.float32(0), np.int32(0)
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
        hits += np.int32(value > threshold)
    return total, hits


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


@numba.njit(cache=True)
def join_links(counts, max_peaks, limbs, links, link_scores, min_parts):
    """Join peaks to people along the links, surest first; a link that would give a person two of one part is dropped.

    So every peak belongs to one person at most, whatever cycles the limbs form.

    Returns:
        members (P, K) int64 peak index or −1, evidence (P,) float32 sum of link scores inside the person.
    """
    num_parts = counts.shape[0]
    most = links.shape[0] + (counts.sum() if min_parts <= 1 else 0)
    members = np.full((most, num_parts), -1, np.int64)
    owner = np.full((num_parts, max_peaks), -1, np.int64)
    num_people = 0
    for at in range(links.shape[0]):
        limb, m, n = links[at]
        a, b = limbs[limb]
        first, second = owner[a, m], owner[b, n]
        if first < 0 and second < 0:
            members[num_people, a], members[num_people, b] = m, n
            owner[a, m] = owner[b, n] = num_people
            num_people += 1
        elif first < 0 and members[second, a] < 0:
            members[second, a] = m
            owner[a, m] = second
        elif second < 0 and first >= 0 and members[first, b] < 0:
            members[first, b] = n
            owner[b, n] = first
        elif first >= 0 and second >= 0 and first != second:
            if np.any((members[first] >= 0) & (members[second] >= 0)):
                continue
            for k in range(num_parts):
                if members[second, k] >= 0:
                    members[first, k] = members[second, k]
                    owner[k, members[second, k]] = first
                    members[second, k] = -1
    evidence = np.zeros(most, np.float32)
    for at in range(links.shape[0]):
        limb, m, n = links[at]
        a, b = limbs[limb]
        if owner[a, m] >= 0 and owner[a, m] == owner[b, n]:
            evidence[owner[a, m]] += min(link_scores[at], np.float32(1))
    if min_parts <= 1:
        for k in range(num_parts):
            for m in range(counts[k]):
                if owner[k, m] < 0:
                    members[num_people, k] = m
                    num_people += 1
    return members[:num_people], evidence[:num_people]


@numba.njit(cache=True)
def flood_links(counts, max_peaks, limbs, links):
    """Join peaks to people as trt_pose does: breadth first along all links, from every peak not visited yet.

    A second peak of a part, reached around a cycle, replaces the first. Returns as `join_links`, without evidence.
    """
    num_parts, num_limbs = counts.shape[0], limbs.shape[0]
    neighbours = np.full((num_limbs, 2, max_peaks), -1, np.int64)
    for at in range(links.shape[0]):
        limb, m, n = links[at]
        neighbours[limb, 0, m], neighbours[limb, 1, n] = n, m
    visited = np.zeros((num_parts, max_peaks), np.bool_)
    members = np.full((counts.sum(), num_parts), -1, np.int64)
    queue = np.empty((1 + 2 * links.shape[0] + counts.sum(), 2), np.int64)
    num_people = 0
    for k in range(num_parts):
        for m in range(counts[k]):
            if visited[k, m]:
                continue
            head, tail = 0, 1
            queue[0] = k, m
            while head < tail:
                part, peak = queue[head]
                head += 1
                if visited[part, peak]:
                    continue
                visited[part, peak] = True
                members[num_people, part] = peak
                for limb in range(num_limbs):
                    for side in range(2):
                        if limbs[limb, side] == part and neighbours[limb, side, peak] >= 0:
                            queue[tail] = limbs[limb, 1 - side], neighbours[limb, side, peak]
                            tail += 1
            num_people += 1
    return members[:num_people], np.zeros(num_people, np.float32)


@numba.njit(cache=True)
def score_people(members, evidence, peaks, num_limbs, min_parts, confidence):
    """Keypoints and scores of the people with enough parts.

    `confidence`: the mean of what was found (peaks and links, at most 1 each) over all that could be found. Otherwise the
    share of parts found, trt_pose's score.
    """
    num_people, num_parts = members.shape
    keypoints = np.zeros((num_people, num_parts, 3), np.float32)
    scores = np.zeros(num_people, np.float32)
    kept = 0
    for p in range(num_people):
        found = 0
        total = evidence[p]
        for k in range(num_parts):
            if members[p, k] >= 0:
                found += 1
                keypoints[kept, k] = peaks[k, members[p, k]]
                keypoints[kept, k, 2] = min(keypoints[kept, k, 2], np.float32(1))
                total += keypoints[kept, k, 2]
        if found == 0 or found < min_parts:
            keypoints[kept] = 0
            continue
        scores[kept] = total / (num_parts + num_limbs) if confidence else found / num_parts
        kept += 1
    return keypoints[:kept], scores[:kept]
