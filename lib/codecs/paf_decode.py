"""From heatmaps and part affinity fields to people: peaks, links, and here the joining.

Compiled functions stand in one file with all that they call: numba's cache notices changes in that file only.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from lib.codecs.paf_links import choose_links
from lib.codecs.paf_peaks import locate_parts
from lib.people import cells_to_pixels

CONFLICT_FREE, FLOOD, SEQUENTIAL, SEQUENTIAL_LONE = 0, 1, 2, 3
CONFIDENCE, COUNT, BALANCED, OPENPOSE = 0, 1, 2, 3


def decode_maps(
    heatmaps, pafs, limbs, *, peak_threshold, radius, peak_distance, max_peaks, peaks, refine, paf_offset, link_threshold,
    hit_threshold, samples, bilinear, min_hit_ratio, hits_only, length_penalty, assignment, grouping, limb_order,
    fill_only, min_parts, min_evidence, score,
):  # fmt: skip
    """Find peaks, score and choose the links between them, and join linked peaks to people.

    Sorting is left to numpy here, between the compiled steps: numba would compile its own for seconds.

    Args:
        heatmaps: (K, h, w) float32, or (K, n·h, n·w), enlarged n times for `peak_upsample`.
        pafs: (2L, h, w) float32, y component first.
        limbs: (L, 2) int64.
        limb_order: (L,) int64, the order in which a sequential grouping goes through the limbs.
        fill_only: (L,) bool, limbs that give it nothing but keypoints still missing.
        The others are the decode options of `PafCodec`, enumerations as this module's constants.

    Returns:
        (P, K, 3) float32 x, y in cells and score, (P,) float32 scores of the people; best first.
    """
    counts, found = locate_parts(
        heatmaps, np.float32(peak_threshold), radius, float(peak_distance), max_peaks, peaks, refine
    )
    finer = heatmaps.shape[1] // pafs.shape[1]
    if finer > 1:
        found[..., :2] = cells_to_pixels(found[..., :2], 1 / finer)
    in_fields = found if paf_offset == 0 else found + np.float32([paf_offset, paf_offset, 0])
    links, link_scores = choose_links(
        pafs, limbs, counts, in_fields, np.float32(link_threshold), np.float32(hit_threshold), samples, bilinear,
        float(min_hit_ratio), hits_only, length_penalty, assignment,
    )  # fmt: skip
    if grouping in (SEQUENTIAL, SEQUENTIAL_LONE):
        lone = grouping == SEQUENTIAL_LONE
        members, totals, sizes = follow_limbs(counts, found, limbs, limb_order, fill_only, links, link_scores, lone)
    else:
        if grouping == CONFLICT_FREE:
            surest = np.argsort(-link_scores, kind="stable")
            members, evidence = join_links(counts, max_peaks, limbs, links[surest], link_scores[surest], min_parts)
        else:
            members, evidence = flood_links(counts, max_peaks, limbs, links)
        totals, sizes = sum_up(members, evidence, found)
    keypoints, scores = score_people(
        members, totals, sizes, found, len(limbs), min_parts, np.float32(min_evidence), score
    )
    best = np.argsort(-scores, kind="stable")
    return keypoints[best], scores[best]


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
def follow_limbs(counts, peaks, limbs, order, fill_only, links, link_scores, lone):
    """Join peaks to people limb by limb (OpenPose): whoever holds the first end gets the second, in place of another.

    Where nobody holds the first end, a new person begins; two that are begun never become one. `lone`: where one end of a
    limb has no peak in the whole image, every peak of the other end that is still nobody's begins a person, too.

    Returns:
        members (P, K) int64 peak index or −1; totals (P,) float32, all peaks and links ever given to a person; sizes (P,)
        int64, how many peaks that were. What a limb of `fill_only` gave is in neither.
    """
    most = links.shape[0] + counts.sum()
    members = np.full((most, counts.shape[0]), -1, np.int64)
    totals, sizes = np.zeros(most, np.float32), np.zeros(most, np.int64)
    num_people = 0
    for limb in order:
        a, b = limbs[limb]
        if lone and (counts[a] == 0 or counts[b] == 0):
            for part in (a, b):
                for m in range(counts[part]):
                    if not np.any(members[:num_people, part] == m):
                        members[num_people, part] = m
                        totals[num_people], sizes[num_people] = peaks[part, m, 2], 1
                        num_people += 1
        for at in range(links.shape[0]):
            if links[at, 0] != limb:
                continue
            m, n = links[at, 1], links[at, 2]
            held = False
            for p in range(num_people):
                if fill_only[limb]:
                    if members[p, a] == m and members[p, b] < 0:
                        members[p, b] = n
                    elif members[p, b] == n and members[p, a] < 0:
                        members[p, a] = m
                elif members[p, a] == m:
                    held = True
                    members[p, b] = n
                    totals[p] += peaks[b, n, 2] + link_scores[at]
                    sizes[p] += 1
            if not held and not fill_only[limb]:
                members[num_people, a], members[num_people, b] = m, n
                totals[num_people] = peaks[a, m, 2] + peaks[b, n, 2] + link_scores[at]
                sizes[num_people] = 2
                num_people += 1
    return members[:num_people], totals[:num_people], sizes[:num_people]


@numba.njit(cache=True)
def sum_up(members, evidence, peaks):
    """Evidence with the peaks' values (at most 1 each) added (P,) float32, and the number of peaks (P,) int64."""
    totals, sizes = evidence.copy(), np.zeros(members.shape[0], np.int64)
    for p in range(members.shape[0]):
        for k in range(members.shape[1]):
            if members[p, k] >= 0:
                totals[p] += min(peaks[k, members[p, k], 2], np.float32(1))
                sizes[p] += 1
    return totals, sizes


@numba.njit(cache=True)
def score_people(members, totals, sizes, peaks, num_limbs, min_parts, min_evidence, method):
    """Keypoints and scores of the people with enough parts and enough evidence for each.

    CONFIDENCE: what was found (peaks and links, at most 1 each) over all that could be found. COUNT: the share of parts
    found, trt_pose's score. BALANCED: the geometric mean of both. OPENPOSE: what was found times the number of parts but one.
    """
    num_people, num_parts = members.shape
    keypoints = np.zeros((num_people, num_parts, 3), np.float32)
    scores = np.zeros(num_people, np.float32)
    kept = 0
    for p in range(num_people):
        if sizes[p] == 0 or sizes[p] < min_parts or totals[p] / sizes[p] < min_evidence:
            continue
        for k in range(num_parts):
            if members[p, k] >= 0:
                keypoints[kept, k] = peaks[k, members[p, k]]
                keypoints[kept, k, 2] = min(keypoints[kept, k, 2], np.float32(1))
        confidence = min(totals[p] / (num_parts + num_limbs), np.float32(1))
        count = min(sizes[p], num_parts) / num_parts
        if method == CONFIDENCE:
            scores[kept] = confidence
        elif method == COUNT:
            scores[kept] = count
        elif method == BALANCED:
            scores[kept] = math.sqrt(confidence * count)
        else:
            scores[kept] = totals[p] * (sizes[p] - 1)
        kept += 1
    return keypoints[:kept], scores[:kept]
