"""The PAF codec: trt_pose's targets by their definition, both encoders alike, and decoding step by step."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from lib.codecs import PafCodec, paf_decode, paf_links, paf_peaks
from lib.codecs.paf import COARSE, PUBLISHED
from lib.skeleton import COCO17, Skeleton
from tests.codecs.codec_contract import STICK, CodecContract, figure

SIZE = (96, 128)
CELLS = (24, 32)


class TestContract(CodecContract):
    tolerance = 0.1  # the parabola through logarithms is exact, only neighbours of the same part disturb it

    def codec(self, skeleton):
        return PafCodec(skeleton)


def test_coarse_maps_give_their_people_back():
    """Stride 8: people of 25 cells, eyes less than one apart."""
    rng = np.random.default_rng(0)
    codec = PafCodec(COCO17, stride=8, sigma=7.0, gaussian_factor=2.0, paf_half_width=1.0, **COARSE)
    for shift in np.linspace(0, 8, 9):
        people = np.stack([figure(COCO17, (x + shift, 120 + shift / 2), 200, rng) for x in (80, 200, 340)])
        targets = codec.encode(torch.tensor(people[None]), None, (256, 456))
        back = codec.decode({name: targets[name][0].numpy() for name in ("heatmaps", "pafs")})
        assert len(back) == 3
        distance = np.linalg.norm(people[:, None, :, :2] - back.keypoints[None, ..., :2], axis=-1).max(-1)
        assert sorted(distance.argmin(axis=1)) == [0, 1, 2]
        assert distance.min(axis=1).max() < 0.8
        assert ((back.scores > 0.5) & (back.scores <= 1)).all()


def test_peaks_of_the_enlarged_map_are_where_they_are_in_the_map():
    i, j = np.mgrid[:12, :16]
    heatmap = np.exp(-((i - 5.25) ** 2 + (j - 7.5) ** 2) / 1.5)
    maps = {"heatmaps": np.float32([heatmap]), "pafs": np.zeros((0, 12, 16), np.float32)}
    codec = PafCodec(Skeleton("dots", ("dot",), (), (), (0.05,)), stride=8, refine="none")
    place = 8 * np.array([7.5, 5.25]) + 3.5
    near, far = (replace(codec, peak_upsample=n).decode(maps).keypoints[0, 0, :2] - place for n in (4, 1))
    assert np.abs(near).max() <= 1.01 < np.abs(far).max()


def test_balanced_is_the_mean_of_confidence_and_count():
    person = torch.tensor(figure(STICK, (60, 50), 80, np.random.default_rng(0))[None, None])
    person[0, 0, 3, 2] = 0
    maps = {name: values[0].numpy() for name, values in PafCodec(STICK).encode(person, None, SIZE).items()}
    scores = ("confidence", "count", "balanced")
    confidence, count, balanced = (PafCodec(STICK, score=score).decode(maps).scores[0] for score in scores)
    assert count == 0.75
    assert balanced == pytest.approx(np.sqrt(confidence * count))


def test_published_options_find_the_same_people():
    rng = np.random.default_rng(0)
    people = torch.tensor(np.stack([figure(COCO17, (x, 110), 120, rng) for x in (60, 150, 230)])[None])
    codec = PafCodec(COCO17)
    targets = codec.encode(people, None, (224, 288))
    maps = {name: targets[name][0].numpy() for name in ("heatmaps", "pafs")}
    ours, published = codec.decode(maps), replace(codec, **PUBLISHED).decode(maps)
    assert len(ours) == len(published) == 3
    order = published.keypoints[:, 0, 0].argsort()
    np.testing.assert_allclose(published.keypoints[order, :, :2], people[0, :, :, :2], atol=1.0)
    assert published.scores.tolist() == [1, 1, 1]


@pytest.mark.parametrize(("change", "word"), [
    ({"refine": "parabol"}, "parabola"), ({"paf_merge": "mean"}, "average"), ({"peak_threshold": 0.0}, "peak_threshold"),
    ({"peak_window": 4}, "peak_window"), ({"line_samples": 1}, "line_samples"), ({"min_hit_ratio": 1.5}, "min_hit_ratio"),
    ({"stdev": float("nan")}, "stdev"),
])  # fmt: skip
def test_impossible_options_are_named(change, word):
    with pytest.raises(ValueError, match=word):
        PafCodec(STICK, **change)


def find(heatmap, threshold=0.1, radius=2, most=10, ranked=True):
    cells = np.empty((most, 2), np.int64)
    return cells[: paf_peaks.find_peaks(np.asarray(heatmap, np.float32), threshold, radius, ranked, cells)].tolist()


def test_peaks_of_a_small_map():
    heatmap = np.zeros((4, 4))
    heatmap[1, 2], heatmap[1, 1], heatmap[3, 3] = 3, 2.5, 1
    assert find(heatmap, threshold=2, radius=1) == [[1, 2]]
    assert find(heatmap, threshold=0.5, radius=1) == [[1, 2], [3, 3]]


def test_plateau_is_one_peak_or_as_published_many():
    heatmap = np.zeros((6, 6))
    heatmap[2:4, 2:4] = 1
    assert find(heatmap) == [[2, 2]]
    assert find(heatmap, ranked=False) == [[2, 2], [2, 3], [3, 2], [3, 3]]


def test_of_too_many_peaks_the_best_stay_or_as_published_the_first():
    heatmap = np.zeros((3, 30))
    heatmap[1, ::3] = np.linspace(0.2, 1, 10)
    assert sorted(find(heatmap, radius=1, most=3)) == [[1, 21], [1, 24], [1, 27]]
    assert find(heatmap, radius=1, most=3, ranked=False) == [[1, 0], [1, 3], [1, 6]]


@pytest.mark.parametrize(("y", "x"), [(7.3, 8.8), (0.2, 6.4), (-0.4, 6.4), (14.4, 6.0), (6.6, 15.3), (-0.3, 15.4)])
@pytest.mark.parametrize("amplitude", [1.0, 0.4])
def test_parabola_is_exact_for_a_gaussian_even_at_the_border(y, x, amplitude):
    i, j = np.mgrid[:15, :16]
    heatmap = (amplitude * np.exp(-((i - y) ** 2 + (j - x) ** 2) / 1.4**2)).astype(np.float32)
    cell = np.unravel_index(heatmap.argmax(), heatmap.shape)
    assert paf_peaks.refine_peak(heatmap, *cell, 2, paf_peaks.PARABOLA) == pytest.approx((y, x), abs=1e-3)


def test_parabola_beats_the_centroid_on_noisy_peaks():
    rng = np.random.default_rng(0)
    i, j = np.mgrid[:15, :15]
    errors = {paf_peaks.PARABOLA: [], paf_peaks.CENTROID: [], paf_peaks.NONE: []}
    for _ in range(300):
        y, x = rng.uniform(6.5, 7.5, 2)
        heatmap = 0.7 * np.exp(-((i - y) ** 2 + (j - x) ** 2) / 1.4**2) + rng.normal(0, 0.02, i.shape)
        cell = np.unravel_index(heatmap.argmax(), heatmap.shape)
        for method, found in errors.items():
            found.append(
                np.hypot(*np.subtract(paf_peaks.refine_peak(heatmap.astype(np.float32), *cell, 2, method), (y, x)))
            )
    parabola, centroid, none = (np.mean(found) for found in errors.values())
    assert parabola < 0.8 * centroid < 0.4 * none


def test_centroid_of_a_small_map():
    heatmap = np.zeros((5, 5), np.float32)
    heatmap[2, 2], heatmap[2, 3], heatmap[1, 2] = 2, 1, 1
    assert paf_peaks.refine_peak(heatmap, 2, 2, 1, paf_peaks.CENTROID) == pytest.approx((1.75, 2.25))
    # at the border the window continues with the mirrored map
    heatmap[:] = 0
    heatmap[0, 0], heatmap[0, 1] = 1, 0.5
    assert paf_peaks.refine_peak(heatmap, 0, 0, 1, paf_peaks.CENTROID) == pytest.approx((0, 0))


def score(paf, a, b, **options):
    settings = {"hit_threshold": 0.1, "samples": 9, "bilinear": False, "min_hit_ratio": 0.0, "hits_only": False,
                "length_penalty": False} | options  # fmt: skip
    ends = (np.array([[*end, 1]], np.float32) for end in (a, b))
    return paf_links.score_links(paf[0], paf[1], *ends, *settings.values())[0, 0]


def test_line_integral():
    paf = np.zeros((2, 10, 20), np.float32)
    paf[1, 5, 4:12] = 1
    assert score(paf, (4, 5), (11, 5)) == pytest.approx(1, abs=1e-5)
    assert score(paf, (11, 5), (4, 5)) == pytest.approx(-1, abs=1e-5)
    assert score(paf, (4, 5), (19, 5)) == pytest.approx(4 / 9, abs=1e-5)
    assert score(paf, (4, 5), (19, 5), min_hit_ratio=0.5) == 0
    assert score(paf, (4, 5), (12, 9)) == pytest.approx(2 / 9 * 8 / np.hypot(8, 4), abs=0.15)
    assert score(paf, (4, 5.4), (11, 5.4), bilinear=True) == pytest.approx(0.6, abs=1e-5)
    assert score(paf, (4, 5), (4, 5)) == 0, "no length, no direction"


def test_bilinear_reading_by_its_definition():
    rng = np.random.default_rng(0)
    paf = rng.normal(0, 1, (2, 9, 12)).astype(np.float32)
    wide = np.pad(paf, ((0, 0), (4, 4), (4, 4)), mode="edge")
    for a, b in rng.uniform(0, 8, (50, 2, 2)):
        ux, uy = (b - a) / np.linalg.norm(b - a)
        x, y = (np.linspace(a[axis], b[axis], 9) for axis in (0, 1))
        read = [sum(wide[c, int(v) + 4 + i, int(u) + 4 + j] * (v % 1 if i else 1 - v % 1) * (u % 1 if j else 1 - u % 1) * (uy, ux)[c]
                    for c in (0, 1) for i in (0, 1) for j in (0, 1)) for u, v in zip(x, y)]  # fmt: skip
        assert score(paf, a, b, bilinear=True) == pytest.approx(np.mean(read), abs=1e-4)


def test_samples_outside_the_map_count_as_nothing():
    paf = np.zeros((2, 4, 8), np.float32)
    paf[1] = 1
    assert score(paf, (0, 2), (9, 2), samples=10) == pytest.approx(0.8, abs=1e-5)
    assert score(paf, (0, 2), (9, 2), samples=10, bilinear=True) == pytest.approx(0.8, abs=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 6), (6, 4), (1, 5), (5, 1)])
def test_assignment_finds_the_best_of_all(shape):
    rng = np.random.default_rng(sum(shape))
    for _ in range(20):
        scores = rng.normal(0.2, 0.5, shape).astype(np.float32)
        flip = shape[0] > shape[1]
        tall = scores.T if flip else scores
        ways = [sum(tall[r, c] for r, c in enumerate(p)) for p in permutations(range(tall.shape[1]), tall.shape[0])]
        partners = paf_links.assign(scores, np.float32(0.1), paf_links.OPTIMAL_UNPRUNED)
        assert total(scores, partners) == pytest.approx(max(ways), abs=1e-5)
        above = np.where(tall > 0.1, tall, 0)
        ways = [sum(above[r, c] for r, c in enumerate(p)) for p in permutations(range(tall.shape[1]), tall.shape[0])]
        partners = paf_links.assign(scores, np.float32(0.1), paf_links.OPTIMAL)
        assert total(np.where(scores > 0.1, scores, 0), partners) == pytest.approx(max(ways), abs=1e-5)


def total(scores, partners):
    chosen = [(a, b) for a, b in enumerate(partners) if b >= 0]
    assert len({b for _, b in chosen}) == len(chosen), "an end was given away twice"
    return sum(scores[pair] for pair in chosen)


def test_greedy_takes_the_best_pair_first():
    scores = np.array([[0.9, 0.8], [0.8, 0.15]], np.float32)
    assert paf_links.assign(scores, np.float32(0.1), paf_links.GREEDY).tolist() == [0, 1]
    assert paf_links.assign(scores, np.float32(0.1), paf_links.OPTIMAL).tolist() == [1, 0]


def test_published_assignment_of_three():
    scores = np.array([[1, 3, 0], [1, 2, 1], [4, 3, 4]], np.float32)
    assert paf_links.assign(scores, np.float32(0.3), paf_links.OPTIMAL_UNPRUNED).tolist() == [1, 0, 2]


def test_turned_back_without_a_twin_is_not_known_and_a_background_stays():
    arm = Skeleton("arm", ("left_a", "right_a", "b"), ((0, 2), (0, 1)), ((0, 1),), (0.05,) * 3)
    maps = {"heatmaps": np.arange(8.0).reshape(4, 1, 2), "pafs": np.arange(8.0, dtype=np.float32).reshape(4, 1, 2)}
    back = PafCodec(arm).flip(maps)
    assert back["heatmaps"][:, 0].tolist() == [[3, 2], [1, 0], [5, 4], [7, 6]]
    assert np.isnan(back["pafs"][:2]).all(), "left_a–b has no right_a–b"
    assert back["pafs"][2:, 0].tolist() == [[-5, -4], [7, 6]], "left_a–right_a points the other way"


def test_fields_drawn_off_the_heatmaps_are_turned_back_and_read_there():
    rng, width = np.random.default_rng(0), 288
    person = torch.tensor(figure(COCO17, (150, 110), 150, rng)[None, None])
    mirrored = person[:, :, COCO17.flip_index].clone()
    mirrored[..., 0] = width - 1 - mirrored[..., 0]
    codec = PafCodec(COCO17, stdev=0.06, paf_offset=0.4375)
    fields, turned = (codec.encode(p, None, (224, width))["pafs"][0].numpy() for p in (person, mirrored))
    turned = codec.flip({"pafs": turned})["pafs"]
    naive = codec.encode(mirrored, None, (224, width))["pafs"][0].numpy()
    naive = replace(codec, paf_offset=0.0).flip({"pafs": naive})["pafs"]
    assert np.abs(turned - fields).max() < 0.1 < np.abs(naive - fields).max()
    thin = torch.tensor([[[61.5, 21.5, 2], [61.5, 61.5, 2], [0, 0, 0], [0, 0, 0]]])[None]
    codec = PafCodec(STICK, paf_half_width=0.3, paf_offset=0.9, min_parts=2)
    maps = {name: values[0].numpy() for name, values in codec.encode(thin, None, SIZE).items()}
    assert len(codec.decode(maps)) == 1
    assert len(replace(codec, paf_offset=0.0).decode(maps)) == 0


def test_a_background_channel_is_no_keypoint():
    person = torch.tensor(figure(STICK, (60, 50), 80, np.random.default_rng(0))[None, None])
    maps = {name: values[0].numpy() for name, values in PafCodec(STICK).encode(person, None, SIZE).items()}
    people = PafCodec(STICK).decode(maps)
    maps["heatmaps"] = np.concatenate([maps["heatmaps"], 1 - maps["heatmaps"].max(axis=0, keepdims=True)])
    assert np.array_equal(PafCodec(STICK).decode(maps).keypoints, people.keypoints)


TRIANGLE = Skeleton("triangle", ("a", "b", "c"), ((0, 1), (1, 2), (2, 0)), (), (0.05,) * 3)


def test_cycle_cannot_give_a_person_two_of_one_part():
    # a0–b0, b0–c0 and c0–a1 are all accepted: a0 and a1 would meet in one person
    counts, limbs = np.array([2, 1, 1]), np.array(TRIANGLE.limbs)
    links, scores = np.array([(0, 0, 0), (2, 0, 1), (1, 0, 0)]), np.array([0.9, 0.8, 0.4], np.float32)
    members, evidence = paf_decode.join_links(counts, 10, limbs, links, scores, 2)
    people = {tuple(row): round(float(e), 3) for row, e in zip(members, evidence) if (row >= 0).any()}
    assert people == {(0, 0, -1): 0.9, (1, -1, 0): 0.8}
    members, _ = paf_decode.flood_links(counts, 10, limbs, links)
    assert members.tolist() == [[1, 0, 0]], "as published: the later peak replaces the earlier"


def test_everybody_owns_each_peak_once_in_random_maps():
    rng = np.random.default_rng(3)
    for assignment in ("optimal", "greedy", "unpruned"):
        maps = {
            "heatmaps": rng.random((17, 40, 40), np.float32),
            "pafs": rng.normal(0, 1, (38, 40, 40)).astype(np.float32),
        }
        people = PafCodec(COCO17, assignment=assignment, min_parts=1).decode(maps)
        for k in range(17):
            places = people.keypoints[people.keypoints[:, k, 2] > 0, k, :2]
            assert len(np.unique(places, axis=0)) == len(places) > 10


def test_min_parts_and_a_skeleton_without_limbs():
    dots = Skeleton("dots", ("dot",), (), (), (0.05,))
    people = torch.tensor([[[[30.0, 20, 2]], [[60, 50, 2]]]])
    codec = PafCodec(dots)
    targets = codec.encode(people, None, SIZE)
    assert len(codec.decode({name: targets[name][0].numpy() for name in ("heatmaps", "pafs")})) == 2
    person = figure(COCO17, (60, 50), 80, np.random.default_rng(0))
    person[2:, 2] = 0
    for least, number in ((1, 1), (2, 1), (3, 0)):
        codec = PafCodec(COCO17, min_parts=least)
        targets = codec.encode(torch.tensor(person[None, None]), None, SIZE)
        assert len(codec.decode({name: targets[name][0].numpy() for name in ("heatmaps", "pafs")})) == number


def test_confidence_ranks_clear_people_above_faint_and_partial_ones():
    rng = np.random.default_rng(0)
    codec = PafCodec(COCO17)
    clear, faint, partial = (figure(COCO17, (x, 60), 80, rng) for x in (40, 110, 180))
    partial[10:, 2] = 0
    maps = [{k: v[0].numpy() for k, v in codec.encode(torch.tensor(p[None, None]), None, (128, 224)).items()}
            for p in (clear, faint, partial)]  # fmt: skip
    summed = {name: maps[0][name] + 0.5 * maps[1][name] + maps[2][name] for name in ("heatmaps", "pafs")}
    back = codec.decode(summed)
    assert np.allclose(back.keypoints[:, 0, 0], [40, 180, 110], atol=5) or np.allclose(
        back.keypoints[:, 0, 0], [40, 110, 180], atol=5
    )
    assert back.scores[0] > 0.8 > back.scores[1]
    counted = replace(codec, **PUBLISHED).decode(summed)
    assert counted.scores.tolist() == pytest.approx([1, 1, 10 / 17])
