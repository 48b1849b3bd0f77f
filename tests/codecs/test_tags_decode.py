"""Decoding of heatmaps and tags: the published procedure as options, and what is ours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from benchmarks import tags_published
from lib.codecs import tags_group, tags_refine
from lib.codecs.tags import TagsCodec
from lib.codecs.tags_decode import PUBLISHED_TAGS, THAWRO_TAGS
from lib.codecs.tags_group import joint_order
from lib.skeleton import BUILT_IN, COCO17
from tests.codecs.codec_contract import STICK, figure

CODEC = TagsCodec(COCO17)
PUBLISHED = replace(CODEC, **PUBLISHED_TAGS)

TIES = [
    (["220", "211", "102"], [2, 1, 0]),
    (["0011", "1000", "0020", "1200"], [0, 1, 3, 2]),
    (["10202", "22011", "11210"], [1, 2, 4]),
    (["21201", "20012", "02101", "22200", "22200"], [1, 2, 0, 4, 3]),
    (["1112010", "0200000", "2110220", "0002110"], [4, 0, 3, 1]),
    (["120200", "220221", "122210", "201200", "202221", "120111"], [0, 2, 5, 4, 1, 3]),
    (["002212102", "000102210", "201022212", "120012122", "111111220", "110021111"], [7, 0, 1, 2, 8, 3]),
]  # fmt: skip
"""Costs, and the columns that the package munkres 1.1.4 chose."""

FIRST_SETS = [(157, 215984.699, 22.488866), (21, 19475.05, 2.921503), (325, 397377.034, 21.842624), (9, 8345.009, 2.530843),
              (183, 276661.632, 22.843265), (44, 47672.268, 4.693206), (38, 41527.988, 21.69298), (27, 33365.252, 4.55652)]  # fmt: skip
"""People of the first random sets, as HigherHRNet's own program (at aa23881) finds them: their number, and the sums of all
keypoints' x + 2·y + 3·value and of all scores."""


def random_maps(seed: int) -> dict[str, np.ndarray]:
    """Small maps full of peaks: pure noise, or bumps; every third set with tags of two numbers."""
    rng = np.random.default_rng(seed)
    h, w = (int(side) for side in rng.integers(6, 16, 2))
    coarse, fine = rng.random((17, h, w)), rng.random((17, 2 * h, 2 * w))
    if seed % 2:
        coarse *= rng.random((17, h, w)) < 0.1
        coarse[rng.integers(17, size=3)] = -0.05
        fine = np.kron(coarse, np.ones((2, 2))) + 0.03 * fine
        fine[rng.integers(17, size=3)] *= 0.01
    people = rng.normal(0, rng.uniform(0.3, 6), int(rng.integers(1, 25)))
    numbers = 2 if seed % 3 == 2 else 1
    tags = people[rng.integers(len(people), size=(numbers * 17, h, w))] + rng.normal(0, 0.3, (numbers * 17, h, w))
    return {name: values.astype(np.float32) for name, values in
            (("heatmaps", coarse), ("heatmaps_fine", fine), ("tags", tags))}  # fmt: skip


def assert_same(found, expected):
    """The same people; `expected` in any order, with places for what is missing and values of any size."""
    best = np.argsort(-expected.scores.clip(0, 1), kind="stable")
    keypoints = expected.keypoints[best]
    keypoints[keypoints[..., 2] == 0] = 0
    keypoints[..., 2] = keypoints[..., 2].clip(0, 1)
    assert len(found) == len(keypoints)
    np.testing.assert_allclose(found.keypoints, keypoints, atol=1e-4)
    np.testing.assert_allclose(found.scores, expected.scores[best].clip(0, 1), atol=1e-5)


@pytest.mark.parametrize("seed", range(24))
def test_published_options_are_the_rules_written_down(seed):
    maps = random_maps(seed)
    expected = tags_published.decode(maps, joint_order(COCO17), assign=tags_group.cheapest)
    assert len(expected) > 3
    assert_same(PUBLISHED.decode(maps), expected)


@pytest.mark.parametrize("seed", range(6))
def test_thawro_differs_in_thresholds_tags_and_number(seed):
    maps = random_maps(seed)
    expected = tags_published.decode(maps, joint_order(COCO17), one_step=True, detection_threshold=0.05, tag_threshold=0.5,
                                     assign=tags_group.cheapest)  # fmt: skip
    assert len(expected) > 30 or seed % 2
    assert_same(replace(CODEC, **THAWRO_TAGS).decode(maps), type(expected)(expected.keypoints[:30], expected.scores[:30]))


@pytest.mark.parametrize("seed", range(len(FIRST_SETS)))
def test_people_of_the_original_program(seed):
    people = PUBLISHED.decode(random_maps(seed))
    number, places, scores = FIRST_SETS[seed]
    assert len(people) == number
    assert (people.keypoints * (1, 2, 3)).sum(dtype=np.float64) == pytest.approx(places, abs=0.1)
    assert people.scores.sum(dtype=np.float64) == pytest.approx(scores, rel=1e-5)


def test_thawro_always_finds_somebody():
    maps = random_maps(0)
    maps["heatmaps"], maps["heatmaps_fine"] = 0.01 * maps["heatmaps"], 0.01 * maps["heatmaps_fine"]
    assert len(PUBLISHED.decode(maps)) == len(CODEC.decode(maps)) == 0
    people = replace(CODEC, **THAWRO_TAGS).decode(maps)
    assert len(people) == 1 and people.scores[0] == pytest.approx(0.01)
    assert (people.keypoints[..., 2] == np.float32(0.01)).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (6, 6), (9, 12)])
def test_the_assignment_costs_least(shape):
    rng = np.random.default_rng(0)
    for levels in (2, 5, 1000):
        for _ in range(20):
            costs = rng.integers(0, levels, shape) - rng.random((shape[0], 1))
            columns = tags_group.cheapest(costs)
            assert len(set(columns)) == shape[0]
            best = costs[linear_sum_assignment(costs)].sum()
            assert costs[range(shape[0]), columns].sum() == pytest.approx(best)


@pytest.mark.parametrize(("costs", "columns"), TIES)
def test_ties_fall_as_in_the_published_program(costs, columns):
    costs = np.array([[float(digit) for digit in row] for row in costs])
    assert tags_group.cheapest(costs).tolist() == columns


def test_order_of_keypoints():
    names = [COCO17.keypoints[k] for k in joint_order(COCO17)]
    sides = lambda *parts: [f"{side}_{part}" for part in parts for side in ("left", "right")]
    assert names == ["nose", *sides("eye", "ear", "shoulder", "hip", "elbow", "wrist", "knee", "ankle")]
    assert [STICK.keypoints[k] for k in joint_order(STICK)] == ["hip", "head", "left_foot", "right_foot"]
    for skeleton in (*BUILT_IN.values(), replace(COCO17, limbs=()), replace(COCO17, limbs=COCO17.limbs[:3])):
        assert sorted(joint_order(skeleton)) == list(range(skeleton.num_keypoints))


def scene(people, size=(128, 192), tags=None):
    """Perfect maps of people (P, K, 3): every cell has the tag of the nearest keypoint's person, by default 2 apart."""
    targets = CODEC.encode(torch.tensor(np.stack(people))[None], None, size)
    maps = {name: targets[name][0].numpy() for name in ("heatmaps", "heatmaps_fine")}
    y, x = np.mgrid[: size[0] // 4, : size[1] // 4] * 4 + 1.5
    apart = np.array([[(x - x_) ** 2 + (y - y_) ** 2 for x_, y_, _ in person] for person in people])
    own = 2.0 * np.arange(len(people)) if tags is None else np.array(tags)
    return maps | {"tags": own[apart.argmin(axis=0)].astype(np.float32)}


def two_people(rng):
    return [figure(COCO17, (x, 64), 100, rng) for x in (50, 140)]


def test_faint_keypoints_are_filled_in_where_tags_are_their_own():
    rng = np.random.default_rng(0)
    people, wrist = two_people(rng), COCO17.index("left_wrist")
    maps = scene(people)
    weak = {name: values.copy() for name, values in maps.items()}
    for name in ("heatmaps", "heatmaps_fine"):
        weak[name][wrist] *= 0.08
    refined, plain = CODEC.decode(weak), replace(CODEC, refine=False).decode(weak)
    assert (plain.keypoints[:, wrist] == 0).all() and (refined.keypoints[:, wrist, 2] > 0).all()
    np.testing.assert_allclose(refined.keypoints, CODEC.decode(maps).keypoints * np.where(
        (np.arange(17) == wrist)[:, None], (1, 1, 0.08), 1), atol=0.05)  # fmt: skip
    np.testing.assert_array_equal(refined.scores, plain.scores)


def test_nobody_gets_the_keypoint_of_another():
    people, wrist = two_people(np.random.default_rng(0)), COCO17.index("left_wrist")
    people[0][wrist, 2] = 0
    codec = replace(CODEC, tag_threshold=0.3)
    maps = scene(people, tags=(0, 0.45))
    back = codec.decode(maps)
    assert (back.keypoints[..., wrist, 2] == 0).sum() == 1
    published = replace(codec, refine_tag_cutoff=None).decode(maps)
    assert len(back) == len(published) == 2
    np.testing.assert_allclose(*published.keypoints[:, wrist, :2], atol=1)  # both have the same left wrist


def test_the_cut_off_search_finds_what_a_look_at_every_cell_finds():
    rng = np.random.default_rng(0)
    heatmaps, tags = rng.random((5, 12, 16), np.float32), rng.normal(0, 1, (2, 5, 6, 8)).astype(np.float32)
    means, missing = rng.normal(0, 1, (4, 2)).astype(np.float32), rng.random((4, 5)) < 0.7
    cells = tags_refine.best_within(heatmaps, tags, means, missing, 0.15, 0.2)
    assert (cells >= 0).any() and (cells[missing] < 0).any()
    each = np.repeat(np.repeat(tags, 2, axis=2), 2, axis=3)
    for p, k in np.ndindex(cells.shape):
        near = np.linalg.norm(each[:, k] - means[p][:, None, None], axis=0) <= 0.15 * np.sqrt(2)
        rated = np.where(near & (heatmaps[k] > 0.2), heatmaps[k], 0)
        assert cells[p, k] == (rated.argmax() if missing[p, k] and rated.any() else -1)


def test_all_keypoints_may_share_a_tag_map():
    people = two_people(np.random.default_rng(0))
    maps = scene(people)
    shared = replace(CODEC, tag_per_keypoint=False)
    halves = np.where(np.arange(48) < 24, 0.0, 2.0) * np.ones((32, 1))
    alone = shared.decode(maps | {"tags": halves[None].astype(np.float32)})
    np.testing.assert_allclose(alone.keypoints, CODEC.decode(maps).keypoints, atol=1e-4)
    published = replace(shared, **PUBLISHED_TAGS).decode(maps | {"tags": halves[None].astype(np.float32)})
    np.testing.assert_allclose(published.keypoints[..., :2], alone.keypoints[..., :2], atol=1.5)


def test_the_best_are_kept_when_there_are_too_many():
    people = [figure(COCO17, (40 + 70 * i, 64), 100, np.random.default_rng(i)) for i in range(4)]
    maps = scene(people, (128, 320))
    everybody = CODEC.decode(maps)
    assert len(everybody) == 4
    two = replace(CODEC, max_people=2).decode(maps)
    assert len(two) == 2


def test_the_input_is_left_alone_and_one_resolution_is_enough():
    maps = scene(two_people(np.random.default_rng(0)))
    before = {name: values.copy() for name, values in maps.items()}
    together = CODEC.decode(maps)
    for name, values in before.items():
        np.testing.assert_array_equal(maps[name], values)
    coarse = CODEC.decode({name: maps[name] for name in ("heatmaps", "tags")})
    assert len(coarse) == 2
    np.testing.assert_allclose(coarse.keypoints[..., :2], together.keypoints[..., :2], atol=0.5)
    everywhere = {name: np.repeat(np.repeat(maps[name], 2, 1), 2, 2) for name in ("heatmaps", "tags")}
    enlarged = replace(CODEC, stride=2).decode(everywhere | {"heatmaps_fine": maps["heatmaps_fine"]})
    np.testing.assert_allclose(enlarged.keypoints[..., :2], together.keypoints[..., :2], atol=1)


@pytest.mark.parametrize("options", [
    {"adjust": "half"}, {"grouping": "greedy"}, {"cap": "some"}, {"max_people": 0}, {"detection_threshold": -0.1},
    {"tag_threshold": 0}, {"nms_window": 4}, {"upsample": 0}, {"refine_threshold": -1}, {"refine_tag_cutoff": 0}, {"min_parts": 0},
])  # fmt: skip
def test_bad_options_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        replace(CODEC, **options)


def test_maps_that_do_not_fit_are_named():
    maps = random_maps(0)
    for wrong in ({"tags": maps["tags"][:3]}, {"heatmaps_fine": maps["heatmaps_fine"][:16]}, {"flow": maps["tags"]}):
        with pytest.raises(ValueError, match=r"needs heatmaps \(17, h, w\)"):
            CODEC.decode(maps | wrong)
