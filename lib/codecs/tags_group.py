"""Which peaks make one person: grouping by mean tag, keypoint after keypoint, with the cheapest assignment.

Compiled functions stand in one file with all that they call: numba's cache notices changes in that file only.
"""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np

from lib.skeleton import Skeleton


@lru_cache(maxsize=32)
def joint_order(skeleton: Skeleton) -> tuple[int, ...]:
    """The order in which keypoints look for their people: the trunk first, then limb after limb, both sides together.

    The trunk is what lies on circles of the skeleton's graph, in a tree its middle. For COCO's seventeen this is the
    published order: head, shoulders and hips, then arms, then legs.
    """
    neighbours = [set() for _ in skeleton.keypoints]
    for a, b in skeleton.limbs:
        neighbours[a].add(b)
        neighbours[b].add(a)
    trunk = left = set(range(skeleton.num_keypoints))
    while left:
        trunk, left = left, {k for k in left if len(neighbours[k] & left) > 1}
        if left == trunk:
            break
    order = sorted(trunk)
    for root in sorted(trunk):
        ring = {root, int(skeleton.flip_index[root])} & trunk
        while ring:
            ring = set().union(*(neighbours[k] for k in ring)) - set(order)
            order += sorted(ring)
    return (*order, *sorted(set(range(skeleton.num_keypoints)) - set(order)))


@numba.njit(cache=True)
def group_peaks(counts, scores, tags, order, max_people, tag_threshold, published):
    """People as indices of peaks, in the order in which they were begun.

    The assignment of one keypoint's peaks to the people so far is the one with the largest sum of gains: how much nearer a
    peak's tag is to the mean of a person's tags than the threshold, as a share of it, times the root of the peak's score. With
    `published` it is the one with the smallest sum of costs: 100 times the rounded distance, less the score.

    Args:
        counts: (K,) int64 number of peaks.
        scores: (K, M) float32, the best first.
        tags: (K, M, E) float32, finite.
        order: (K,) int64 order of the keypoints.
        max_people: only so many people, those begun first, are asked.
        tag_threshold: a peak that is no nearer begins a person of its own.
        published: also, make one person of two whose first tag begins with the same number.

    Returns:
        (P, K) int64 index of the peak, −1 where there is none.
    """
    num_parts, _, dims = tags.shape
    most = counts.sum()
    members = np.full((most, num_parts), -1, np.int64)
    own = np.empty((most, num_parts, dims), np.float32)  # tags of a person's peaks, in the order of their coming
    sizes = np.zeros(most, np.int64)
    keys = np.empty(most, np.float32)
    num_people = 0
    for k in order:
        asked = min(num_people, max_people)
        partners = np.full(counts[k], -1, np.int64)
        if asked > 0 and counts[k] > 0:
            partners = _partners(scores[k, : counts[k]], tags[k], own[:asked], sizes, tag_threshold, published)
        for m in range(counts[k]):
            person = partners[m]
            if person < 0:
                person = num_people
                if published:
                    for other in range(num_people):
                        if keys[other] == tags[k, m, 0]:
                            person = other
                            break
                if person == num_people:
                    keys[person] = tags[k, m, 0]
                    num_people += 1
                sizes[person] = 0
            members[person, k] = m
            own[person, sizes[person]] = tags[k, m]
            sizes[person] += 1
    return members[:num_people]


@numba.njit(cache=True)
def _partners(scores, tags, own, sizes, tag_threshold, published):
    """The person of every peak of one keypoint, −1 where none is near enough."""
    num_peaks, num_people, dims = scores.shape[0], own.shape[0], tags.shape[1]
    distances = np.empty((num_peaks, num_people))
    costs = np.full((num_peaks, max(num_peaks, num_people)), 1e10 if published else 0.0)
    for p in range(num_people):
        mean = mean_tag(own[p], sizes[p])
        for m in range(num_peaks):
            total = 0.0
            for e in range(dims):
                difference = np.float64(tags[m, e]) - np.float64(mean[e])
                total += difference * difference
            distances[m, p] = np.sqrt(total)
            if published:
                costs[m, p] = np.rint(distances[m, p]) * 100 - np.float64(scores[m])
            else:
                costs[m, p] = min(distances[m, p] / tag_threshold - 1, 0.0) * np.sqrt(scores[m])
    partners = cheapest(costs)
    for m in range(num_peaks):
        if partners[m] >= num_people or not distances[m, partners[m]] < tag_threshold:
            partners[m] = -1
    return partners


@numba.njit(cache=True)
def mean_tag(tags, count):
    """Mean of the first `count` rows, (E,) float32, added up as numpy does, so that rounding falls alike."""
    dims = tags.shape[1]
    mean = np.zeros(dims, np.float32)
    start = 0
    if dims == 1 and count >= 8:
        start = count - count % 8
        lanes = np.zeros(8, np.float32)
        for n in range(start):
            lanes[n % 8] += tags[n, 0]
        mean[0] = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))
    for n in range(start, count):
        for e in range(dims):
            mean[e] += tags[n, e]
    return mean / np.float32(count)


@numba.njit(cache=True)
def cheapest(costs):
    """Column of every row, (A,) int64, so that the sum of the costs (A, B), A ≤ B, is least.

    Munkres' algorithm (1957) on the matrix made square with zeros. Where several assignments cost the same, the one found
    depends on the order of the search; it is that of the Python package `munkres` (1.1), which the published programs use.
    """
    num_rows, n = costs.shape
    cost = np.zeros((n, n))
    star_of_row, star_of_column = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    for i in range(num_rows):
        cost[i] = costs[i] - costs[i].min()
    for i in range(n):
        for j in range(n):
            if cost[i, j] == 0 and star_of_column[j] < 0:
                star_of_row[i], star_of_column[j] = j, i
                break
    prime_of_row = np.empty(n, np.int64)
    row_covered = np.empty(n, np.bool_)
    for _ in range(n - (star_of_row >= 0).sum()):
        prime_of_row[:] = -1
        row_covered[:] = False
        column_covered = star_of_column >= 0
        i = j = 0
        while True:
            i, j = _last_zero_of_first_row(cost, row_covered, column_covered, i, j)
            if i < 0:
                _make_zero(cost, row_covered, column_covered)
                i = j = 0
                continue
            prime_of_row[i] = j
            if star_of_row[i] < 0:
                break
            j = star_of_row[i]
            row_covered[i], column_covered[j] = True, False
        while i >= 0:  # the star of a row moves to its prime, the star it displaces to its own row's prime, and so on
            j = prime_of_row[i]
            displaced = star_of_column[j]
            star_of_row[i], star_of_column[j] = j, i
            i = displaced
    return star_of_row[:num_rows]


@numba.njit(cache=True)
def _last_zero_of_first_row(cost, row_covered, column_covered, first, start):
    """Of the first row from `first` on, going round, that has an uncovered zero: the last one, going round from `start`."""
    n = cost.shape[0]
    for step in range(n):
        i = (first + step) % n
        if row_covered[i]:
            continue
        for back in range(1, n + 1):
            j = (start - back) % n
            if cost[i, j] == 0 and not column_covered[j]:
                return i, j
    return -1, -1


@numba.njit(cache=True)
def _make_zero(cost, row_covered, column_covered):
    """Take the least uncovered cost from all uncovered columns and add it to all covered rows."""
    n = cost.shape[0]
    least = np.inf
    for i in range(n):
        if not row_covered[i]:
            for j in range(n):
                if not column_covered[j] and cost[i, j] < least:
                    least = cost[i, j]
    for i in range(n):
        for j in range(n):
            if row_covered[i]:
                cost[i, j] += least
            if not column_covered[j]:
                cost[i, j] -= least
