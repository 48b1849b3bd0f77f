"""Lightweight OpenPose's decoder as options of the PAF codec, against its rules written down in plain Python."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from lib.codecs import PafCodec, paf_decode, paf_peaks
from lib.codecs.paf import LIGHTWEIGHT_OPENPOSE_TARGETS, lightweight_openpose_options
from lib.skeleton import COCO17, COCO18_NECK, OPENPOSE18, Skeleton
from tests.codecs.codec_contract import FIGURES, STICK

CODEC = PafCodec(OPENPOSE18, **LIGHTWEIGHT_OPENPOSE_TARGETS)


def published(codec: PafCodec, old: bool = False, **others) -> PafCodec:
    return replace(codec, **lightweight_openpose_options(codec.skeleton, old) | {"score": "openpose"} | others)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(("noise", "size"), [(0.0, (160, 240)), (0.2, (160, 240)), (3.0, (64, 80))])
def test_people_of_the_rules_written_down(noise, size, old):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        maps = some_maps(rng, size, noise)
        if seed % 2:
            maps["heatmaps"][rng.integers(18, size=3)] = 0  # parts that nobody shows
        decoder = published(CODEC, old, upsample=2)
        expected = by_the_rules({name: cubic(values, 2) for name, values in maps.items()}, decoder, old)
        people = decoder.decode(maps)
        found = [(*people.keypoints[p].ravel(), people.scores[p]) for p in range(len(people))]
        assert len(found) == len(expected) > 0
        np.testing.assert_allclose(sorted(found), sorted(expected), rtol=1e-4, atol=1e-4)


def some_maps(rng, size, noise):
    shape = np.insert(FIGURES[COCO17.keypoints], 17, (0, -0.3), axis=0)
    shape = shape[[[*COCO17.keypoints, "neck"].index(name) for name in OPENPOSE18.keypoints]]
    count = 3
    centres = rng.uniform(0.2, 0.8, (count, 1, 2)) * size[::-1]
    people = rng.uniform(0.6, 1.2, (count, 1, 1)) * size[0] * shape + centres + rng.normal(0, 3, (count, 18, 2))
    people = np.concatenate([people, rng.random((count, 18, 1)) < 0.9], axis=2)
    targets = CODEC.encode(torch.tensor(people[None], dtype=torch.float32), None, size)
    maps = {name: targets[name][0].numpy() for name in ("heatmaps", "pafs")}
    scale = {"heatmaps": 0.3, "pafs": 0.6}
    return {
        name: (values + noise * scale[name] * rng.normal(0, 1, values.shape)).astype(np.float32)
        for name, values in maps.items()
    }


def cubic(maps, factor):
    return np.stack([cv2.resize(m, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) for m in maps])


def by_the_rules(maps, codec, old) -> list[tuple]:
    """One row per person: keypoints x, y (pixels) and value, zeros where missing, and the score."""
    height = maps["pafs"].shape[1]
    peaks = [peaks_by_the_rules(heatmap) for heatmap in maps["heatmaps"][:18]]
    people: list[dict] = []
    for limb in codec.limb_order:
        a, b = codec.skeleton.limbs[limb]
        if old and not (peaks[a] and peaks[b]):
            for part in (a, b):
                taken = [person["parts"].get(part) for person in people]
                alone = [(m, peak[2]) for m, peak in enumerate(peaks[part]) if m not in taken]
                people += [{"parts": {part: m}, "sum": value, "count": 1} for m, value in alone]
        field = maps["pafs"][2 * limb : 2 * limb + 2]
        pairs = [(link_by_the_rules(field, p, q, height if old else None), m, n)
                 for m, p in enumerate(peaks[a]) for n, q in enumerate(peaks[b])]  # fmt: skip
        free_a, free_b = set(range(len(peaks[a]))), set(range(len(peaks[b])))
        for score, m, n in sorted(pairs, reverse=True):
            if score <= 0 or m not in free_a or n not in free_b:
                continue
            free_a.discard(m)
            free_b.discard(n)
            if limb in codec.fill_limbs:
                for parts in (person["parts"] for person in people):
                    if parts.get(a) == m:
                        parts.setdefault(b, n)
                    elif parts.get(b) == n:
                        parts.setdefault(a, m)
                continue
            holders = [person for person in people if person["parts"].get(a) == m]
            if not holders:
                people.append({"parts": {a: m, b: n}, "sum": peaks[a][m][2] + peaks[b][n][2] + score, "count": 2})
            for person in holders:
                person["parts"][b] = n
                person["sum"] += peaks[b][n][2] + score
                person["count"] += 1
    rows = []
    for person in people:
        if person["count"] >= 3 and person["sum"] / person["count"] >= 0.2:
            keypoints = np.zeros((18, 3))
            for part, m in person["parts"].items():
                x, y, value = peaks[part][m]
                pixels_per_cell = codec.stride / codec.upsample
                keypoints[part] = *((c + 0.5) * pixels_per_cell - 0.5 for c in (x, y)), min(value, 1)
            rows.append((*keypoints.ravel(), person["sum"] * (person["count"] - 1)))
    return rows


def peaks_by_the_rules(heatmap) -> list[tuple]:
    framed = np.pad(np.where(heatmap < 0.1, 0, heatmap), 1)
    middle = framed[1:-1, 1:-1]
    neighbours = [framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:]]
    kept: list[tuple] = []
    for x, y in np.argwhere((middle > neighbours).all(axis=0).T).tolist():
        if all(math.hypot(x - q[0], y - q[1]) >= 6 for q in kept):
            kept.append((x, y, middle[y, x]))
    return kept


def link_by_the_rules(field, start, end, height) -> float:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    if length == 0:
        return 0.0
    places = [(round(start[1] + t * dy / 9), round(start[0] + t * dx / 9)) for t in range(10)]
    values = [field[:, y, x] @ (dy, dx) / length for y, x in places]
    hits = [value for value in values if value > 0.05]
    if len(hits) < 9:
        return 0.0
    return np.mean(hits) + (min((height // 2) / length - 1, 0) if height else 0)


def spaced(heatmap, threshold=0.1, distance=6.0, most=10):
    cells = np.empty((most, 2), np.int64)
    return cells[: paf_peaks.find_spaced_peaks(np.float32(heatmap), threshold, distance, cells)].tolist()


def test_spaced_peaks():
    heatmap = np.zeros((12, 20))
    heatmap[0, 3], heatmap[5, 5], heatmap[6, 11], heatmap[0, 19], heatmap[11, 19] = 0.2, 0.9, 0.5, 0.3, 0.3
    assert spaced(heatmap) == [[0, 3], [6, 11], [0, 19], [11, 19]], "the first from the left stays, though smaller"
    assert spaced(heatmap, distance=0.0) == [[0, 3], [5, 5], [6, 11], [0, 19], [11, 19]]
    assert spaced(heatmap, most=2) == [[0, 3], [6, 11]]
    assert spaced(heatmap, threshold=0.6) == [[5, 5]]
    assert spaced(heatmap[5:6]) == [[0, 5]]
    heatmap[5, 6] = 0.9
    assert [5, 5] not in spaced(heatmap, distance=0.0), "a plateau has no peak"


LINE = Skeleton("line", ("a", "b", "c"), ((0, 1), (1, 2)), (), (0.05,) * 3)


def line_maps(places=((2, 5), (20, 5), (38, 5)), gap=0):
    """Three peaks in a row, joined by fields of 0.5; the first field misses `gap` of its cells."""
    maps = {"heatmaps": np.zeros((3, 12, 40), np.float32), "pafs": np.zeros((4, 12, 40), np.float32)}
    for k, (x, y) in enumerate(places):
        maps["heatmaps"][k, y, x] = 0.8
    maps["pafs"][1::2, 5] = 0.5
    maps["pafs"][1, 5, 20 - gap : 21] = 0
    return maps


def test_two_of_ten_samples_without_field_break_a_link():
    decoder = published(PafCodec(LINE, stride=8), min_parts=2)
    whole, one, two = (decoder.decode(line_maps(gap=gap)) for gap in (-1, 1, 2))
    assert whole.scores.tolist() == one.scores.tolist() == pytest.approx([(3 * 0.8 + 2 * 0.5) * 2])
    assert (two.keypoints[..., 2] > 0).tolist() == [[False, True, True]]
    assert replace(decoder, link_score="mean").decode(line_maps(gap=1)).scores[0] == pytest.approx((2.4 + 0.95) * 2)


def test_long_links_are_penalised_and_peaks_on_each_other_have_no_link():
    decoder = published(PafCodec(LINE, stride=8), min_parts=2)
    assert len(published(PafCodec(LINE, stride=8), old=True, min_parts=2).decode(line_maps())) == 0
    near = line_maps(((2, 5), (12, 5), (38, 5)))
    old = published(PafCodec(LINE, stride=8), old=True, min_parts=2).decode(near)
    assert old.scores.tolist() == pytest.approx([0.8 * 2 + 0.5 + 6 / 10 - 1])
    together = decoder.decode(line_maps(((20, 5), (20, 5), (38, 5))))
    assert (together.keypoints[..., 2] > 0).tolist() == [[False, True, True]]


def follow(counts, links, fill=(), order=None, lone=False, skeleton=LINE):
    """Members with totals and sizes; every peak is worth 1 and every link 0.5."""
    peaks, links = np.ones((len(counts), 5, 3), np.float32), np.array(links).reshape(-1, 3)
    limbs = np.array(skeleton.limbs)
    order = np.arange(len(limbs)) if order is None else np.array(order)
    members, totals, sizes = paf_decode.follow_limbs(
        np.array(counts), peaks, limbs, order, np.isin(np.arange(len(limbs)), fill), links,
        np.full(len(links), 0.5, np.float32), lone,
    )  # fmt: skip
    return [(tuple(m), float(t), int(s)) for m, t, s in zip(members, totals, sizes)]


def test_people_grow_limb_by_limb_and_are_never_joined():
    assert follow([1, 1, 1], [(0, 0, 0), (1, 0, 0)]) == [((0, 0, 0), 4.0, 3)]
    assert follow([1, 1, 1], [(0, 0, 0), (1, 0, 0)], order=[1, 0]) == [((-1, 0, 0), 2.5, 2), ((0, 0, -1), 2.5, 2)]
    triangle = Skeleton("triangle", ("a", "b", "c"), ((0, 1), (0, 2), (1, 2)), (), (0.05,) * 3)
    replaced = follow([1, 1, 2], [(0, 0, 0), (1, 0, 0), (2, 0, 1)], skeleton=triangle)
    assert replaced == [((0, 0, 1), 5.5, 4)], "the later c takes the place, and both count"
    filled = follow([1, 1, 2], [(0, 0, 0), (1, 0, 0), (2, 0, 1)], fill=[2], skeleton=triangle)
    assert filled == [((0, 0, 0), 4.0, 3)]
    assert follow([1, 1, 2], [(0, 0, 0), (2, 0, 1)], fill=[2], skeleton=triangle) == [((0, 0, 1), 2.5, 2)]
    assert follow([1, 1, 2], [(2, 0, 1)], fill=[2], skeleton=triangle) == []


def test_the_older_rule_begins_people_of_one_peak():
    assert follow([0, 2, 1], [(1, 1, 0)]) == [((-1, 1, 0), 2.5, 2)]
    assert follow([0, 2, 1], [(1, 1, 0)], lone=True) == [((-1, 0, -1), 1.0, 1), ((-1, 1, 0), 2.5, 2)]


def test_people_with_little_evidence_for_each_keypoint_are_dropped():
    maps = line_maps()
    maps["heatmaps"] *= 0.2
    maps["pafs"] *= 0.15
    decoder = published(PafCodec(LINE, stride=8))
    assert len(replace(decoder, min_evidence=0.0).decode(maps)) == 1
    assert replace(decoder, min_evidence=0.20).decode(maps).scores == pytest.approx((3 * 0.16 + 2 * 0.075) * 2)
    assert len(replace(decoder, min_evidence=0.22).decode(maps)) == 0


@pytest.mark.parametrize("skeleton", [OPENPOSE18, COCO18_NECK], ids=["openpose18", "coco18_neck"])
def test_limbs_are_followed_from_the_neck_and_ears_only_fill_shoulders(skeleton):
    options = lightweight_openpose_options(skeleton)
    names = [{skeleton.keypoints[end] for end in skeleton.limbs[limb]} for limb in options["limb_order"]]
    assert names[0] == {"neck", "right_shoulder"}
    assert names.index({"neck", "right_hip"}) < names.index({"right_hip", "right_knee"}) < names.index({"neck", "nose"})
    assert names[-2:] == [{"right_shoulder", "right_ear"}, {"left_shoulder", "left_ear"}] or names[-2:] == [
        {"left_shoulder", "left_ear"}, {"right_shoulder", "right_ear"}
    ]  # fmt: skip
    assert set(options["fill_limbs"]) == set(options["limb_order"][-2:])
    if skeleton is OPENPOSE18:  # training order's numbers in the order of the published decoder
        assert options["limb_order"] == (6, 10, 7, 8, 11, 12, 0, 1, 2, 3, 4, 5, 14, 15, 17, 16, 18, 9, 13)


def test_other_figures_are_followed_in_their_own_order():
    options = lightweight_openpose_options(STICK)
    assert (options["limb_order"], options["fill_limbs"]) == ((0, 1, 2), ())


def test_upsampled_maps_are_maps_of_a_smaller_stride():
    maps = some_maps(np.random.default_rng(0), (160, 240), 0.1)
    whole = replace(published(CODEC), stride=2).decode({name: cubic(values, 4) for name, values in maps.items()})
    inside = published(CODEC, upsample=4).decode(maps)
    np.testing.assert_array_equal(inside.keypoints, whole.keypoints)
    np.testing.assert_array_equal(inside.scores, whole.scores)


def test_options_survive_a_file_and_impossible_ones_are_named():
    codec = published(CODEC, upsample=4)
    assert PafCodec(OPENPOSE18, **json.loads(json.dumps(codec.options))) == codec
    for change, word in (({"limb_order": [0, 1, 1]}, "limb_order"), ({"fill_limbs": [3]}, "fill_limbs"),
                         ({"upsample": 0}, "upsample"), ({"grouping": "sequentiel"}, "sequential")):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            PafCodec(STICK, **change)
