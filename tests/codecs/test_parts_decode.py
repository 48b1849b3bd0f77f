"""People out of the maps of part detectors: detections, one person, many, and what must not break it."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lib.codecs import parts_decode
from lib.codecs.parts import PartsCodec
from lib.codecs.parts_decode import cut_graph, detections
from lib.codecs.parts_detect import spaced_maxima
from lib.data.pair_statistics import NEVER_SEEN
from lib.skeleton import Skeleton

TRIO = Skeleton("trio", ("a", "b", "c"), ((0, 1), (1, 2)), (), (0.05,) * 3)
WAYS = {(0, 1): (16, 0), (1, 2): (16, 0), (0, 2): (32, 0)}
STATS = tuple((*np.multiply(WAYS[min(p, p[::-1])], 1 if p[0] < p[1] else -1), 8.0, 8.0)
              for p in ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)))  # fmt: skip
CODEC = PartsCodec(TRIO, pair_stats=STATS)


def maps_with(*cells, size=(12, 30), offset=(0.0, 0.0)):
    """Heatmaps with single cells (keypoint, row, column, value); the maps of pairs say the mean ways everywhere."""
    heatmaps = np.zeros((3, *size), np.float32)
    for k, i, j, value in cells:
        heatmaps[k, i, j] = value
    offsets = np.tile(np.array(offset, np.float32)[:, None, None] / 7.2801, (3, *size))
    return {"heatmaps": heatmaps, "offsets": offsets, "pairwise": np.zeros((12, *size), np.float32)}


def person(row, column, *values):
    """Keypoints two cells apart, as `WAYS` say."""
    return [(k, row, column + 2 * k, value) for k, value in enumerate(values)]


def plain_maxima(heatmap, threshold, radius):
    """The rule as it is told: sort, take, strike out."""
    cells = [(-heatmap[i, j], i, j) for i, j in np.ndindex(heatmap.shape)]
    struck, kept = set(), []
    for value, i, j in sorted(cells):
        if -value < threshold:
            break
        if (i, j) not in struck:
            kept.append((i, j))
            struck |= {(r, c) for r, c in np.ndindex(heatmap.shape) if (r - i) ** 2 + (c - j) ** 2 <= radius**2}
    return kept


@pytest.mark.parametrize("radius", [0, 1, 3, 5])
def test_detections_are_those_of_the_published_rule(radius):
    rng = np.random.default_rng(radius)
    heatmaps = rng.random((3, 14, 19), dtype=np.float32)
    heatmaps[2] = np.round(heatmaps[2], 1)  # plateaus: the first cell counts
    found = spaced_maxima(heatmaps, 0.2, radius, 10**3)
    for k in range(3):
        assert [tuple(row) for row in found[found[:, 0] == k, 1:]] == plain_maxima(
            heatmaps[k].astype(float), 0.2, radius
        )


def test_detections_lie_where_their_cells_offsets_say():
    maps = maps_with((1, 3, 7, 0.9), offset=(2.0, -3.0))
    for origin, centre in ((None, (59.5, 27.5)), (4.0, (60, 28))):
        found = detections(maps, replace(CODEC, origin=origin))
        np.testing.assert_array_equal(found.cells, [[7, 3]])
        np.testing.assert_allclose(found.centres, [centre])
        np.testing.assert_allclose(found.places, [np.add(centre, (2, -3))], atol=1e-5)
    assert found.parts.tolist() == [1] and found.scores == pytest.approx([0.9])


def test_a_threshold_is_reached_by_equality():
    maps = maps_with((0, 3, 7, 0.5), (0, 3, 20, np.nextafter(np.float32(0.5), np.float32(0))))
    assert len(detections(maps, replace(CODEC, detection_threshold=0.5)).parts) == 1


def test_people_are_told_apart():
    people = CODEC.decode(maps_with(*person(2, 3, 0.9, 0.8, 0.4), *person(8, 12, 0.6, 0.9, 0.9)))
    assert len(people) == 2
    np.testing.assert_allclose(people.keypoints[0, :, :2], [(8 * (12 + 2 * k) + 3.5, 67.5) for k in range(3)])
    np.testing.assert_allclose(people.keypoints[1, :, 2], [0.9, 0.8, 0.4])
    np.testing.assert_allclose(people.scores, [0.8, 0.7], rtol=1e-6)


def test_what_is_missing_counts_in_the_score_or_not():
    maps = maps_with(*person(2, 3, 0.9, 0.6)[:2])
    two = replace(CODEC, min_parts=2)
    assert two.decode(maps).scores == pytest.approx([0.5])
    assert replace(two, score="found").decode(maps).scores == pytest.approx([0.75])
    assert two.decode(maps).keypoints[0, 2].tolist() == [0, 0, 0]
    assert len(CODEC.decode(maps)) == 0  # three keypoints are wanted by default


def test_a_weak_detection_stays_where_others_pay_for_it():
    beside, alone = maps_with(*person(2, 3, 0.9, 0.3, 0.9)), maps_with((1, 9, 20, 0.3))
    assert CODEC.decode(beside).keypoints[0, 1, 2] == pytest.approx(0.3)
    anyone = replace(CODEC, min_parts=1)
    assert len(anyone.decode(alone)) == 0
    assert cut_graph(alone, anyone).labels.tolist() == [-1]
    assert len(anyone.decode(maps_with((1, 9, 20, 0.6)))) == 1


def test_two_detections_of_one_keypoint_become_their_mean():
    maps = maps_with(*person(2, 3, 0.9, 0.9, 0.9), (0, 4, 3, 0.3))
    one = replace(CODEC, nms_radius=1, pair_rule=(1.0, 4.0)).decode(maps)
    assert len(one) == 1
    row = (0.9 * 2 + 0.3 * 4) / 1.2
    np.testing.assert_allclose(one.keypoints[0, 0], (27.5, 8 * row + 3.5, 0.9), rtol=1e-6)
    # by default the stronger one suppresses the other
    np.testing.assert_allclose(CODEC.decode(maps).keypoints[0, 0], (27.5, 19.5, 0.9), rtol=1e-6)


def test_only_pairs_of_the_graph_are_asked():
    maps = maps_with(*person(2, 3, 0.9, 0.9, 0.9))
    assert len(cut_graph(maps, CODEC).edges) == 3
    chain = replace(CODEC, graph=[[0, 1], [1, 2]])
    assert cut_graph(maps, chain).edges.tolist() == [[0, 1], [1, 2]] and len(chain.decode(maps)) == 1
    assert len(replace(CODEC, graph=()).decode(maps)) == 0
    assert len(replace(CODEC, graph=(), min_parts=1).decode(maps)) == 3


def test_pairs_never_seen_together_are_left_out():
    never = [NEVER_SEEN if {0, 2} == set(p) else row
             for p, row in zip(((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)), STATS)]  # fmt: skip
    maps = maps_with(*person(2, 3, 0.9, 0.9, 0.9))
    codec = replace(CODEC, pair_stats=never)
    assert len(cut_graph(maps, codec).edges) == 2 and len(codec.decode(maps)) == 1


def test_regressions_replace_the_rule_pair_by_pair():
    maps = maps_with(*person(2, 3, 0.9, 0.9, 0.9))
    certain = [0] * 8 + [1] * 8 + [0] * 8 + [3]
    fitted = replace(CODEC, pair_model=(certain, None, [*certain[:-1], -3]))
    ruled, learnt = cut_graph(maps, CODEC).probabilities, cut_graph(maps, fitted).probabilities
    np.testing.assert_allclose(learnt, [1 / (1 + np.exp(-3)), ruled[1], 1 / (1 + np.exp(3))])


def test_the_exact_solver_finds_the_same():
    maps = maps_with(*person(2, 3, 0.9, 0.8, 0.4), *person(4, 9, 0.6, 0.9, 0.9))
    local, exact = CODEC.decode(maps), replace(CODEC, solver="exact").decode(maps)
    np.testing.assert_array_equal(local.keypoints, exact.keypoints)


def test_one_person_is_where_the_heatmaps_are_highest():
    codec = replace(CODEC, single=True)
    maps = maps_with((0, 1, 2, 0.9), (1, 5, 6, 0.05), offset=(1.0, 2.0))
    people = codec.decode(maps)
    assert len(people) == 1
    np.testing.assert_allclose(people.keypoints[0, :2], [(20.5, 13.5, 0.9), (52.5, 45.5, 0.05)], rtol=1e-5)
    # a flat map has its highest value at its first cell
    np.testing.assert_allclose(people.keypoints[0, 2, :2], (4.5, 5.5), rtol=1e-5)
    del maps["pairwise"]
    assert len(replace(codec, pairwise=False, pair_stats=None).decode(maps)) == 1


def test_one_person_without_offsets():
    codec = replace(CODEC, single=True)
    maps = maps_with((0, 1, 2, 0.9))
    assert codec.decode({"heatmaps": maps["heatmaps"]}).keypoints[0, 0, :2].tolist() == [19.5, 11.5]


def test_what_is_not_finite_is_nobodys():
    maps = maps_with(*person(2, 3, 0.9, 0.9, 0.9))
    one = replace(CODEC, single=True)
    for bad in (np.nan, np.inf, -np.inf):
        spoilt = maps | {"heatmaps": np.full_like(maps["heatmaps"], bad)}
        assert len(CODEC.decode(spoilt)) == 0 and len(one.decode(spoilt)) == 0
    spoilt = {name: values.copy() for name, values in maps.items()}
    spoilt["offsets"][:2] = np.nan
    two = replace(CODEC, min_parts=2).decode(spoilt)
    assert two.keypoints[0, :, 2].tolist() == pytest.approx([0, 0.9, 0.9])
    assert one.decode(spoilt).keypoints[0, 0].tolist() == [0, 0, 0]
    spoilt = maps | {"pairwise": maps["pairwise"] * np.nan}
    assert len(replace(CODEC, min_parts=1).decode(spoilt)) == 3


def test_noise_does_not_explode():
    rng = np.random.default_rng(0)
    maps = {name: rng.random(values.shape, dtype=np.float32) for name, values in maps_with(size=(90, 120)).items()}
    codec = replace(CODEC, max_detections=20)
    assert np.bincount(detections(maps, codec).parts).tolist() == [20, 20, 20]
    assert len(codec.decode(maps)) <= 60
    many = detections(maps, replace(codec, max_detections=None))
    np.testing.assert_array_equal(detections(maps, codec).scores[:20], many.scores[:20])
    assert len(many.parts) > 200


def test_one_keypoint_needs_no_pairs():
    spot = Skeleton("spot", ("it",), (), (), (0.05,))
    heatmaps = np.zeros((1, 6, 20), np.float32)
    heatmaps[0, 2, [3, 12]] = 0.9, 0.7
    people = PartsCodec(spot).decode({"heatmaps": heatmaps})
    np.testing.assert_allclose(people.keypoints[:, 0], [(27.5, 19.5, 0.9), (99.5, 19.5, 0.7)], rtol=1e-6)
    assert len(PartsCodec(spot).decode({"heatmaps": heatmaps * 0})) == 0


def test_nobody_is_no_people():
    people = CODEC.decode(maps_with())
    assert people.keypoints.shape == (0, 3, 3) and people.scores.shape == (0,)


@pytest.mark.parametrize("lacking, hint", [("pairwise", "single=True"), ("heatmaps", "needs heatmaps")])
def test_a_missing_map_is_named(lacking, hint):
    maps = maps_with()
    del maps[lacking]
    with pytest.raises(ValueError, match=hint):
        CODEC.decode(maps)


def test_maps_of_another_skeleton_are_refused():
    maps = maps_with()
    with pytest.raises(ValueError, match="skeleton 'trio' needs"):
        CODEC.decode(maps | {"offsets": maps["offsets"][:4]})
    with pytest.raises(ValueError, match="skeleton 'trio' needs"):
        CODEC.decode(maps | {"pairwise": maps["pairwise"][:, :-1]})
    with pytest.raises(ValueError, match="pairwise-stats"):
        replace(CODEC, pair_stats=None).decode(maps)


@pytest.mark.parametrize("options", [
    {"solver": "gurobi"}, {"score": "best"}, {"detection_threshold": -0.1}, {"nms_radius": -1}, {"max_detections": 0},
    {"graph": ((1, 0),)}, {"graph": ((0, 3),)}, {"graph": ((0, 1, 2),)}, {"same_part": (0.2,)}, {"pair_rule": (np.nan, 1)},
    {"pair_model": ((1.0,) * 25,)}, {"pair_model": ((1.0,) * 24, None, None)}, {"min_parts": 0},
])  # fmt: skip
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        replace(CODEC, **options)


def test_options_survive_json():
    codec = replace(CODEC, graph=((0, 1),), pair_model=((0.5,) * 25, None, None), max_detections=None)
    again = PartsCodec(TRIO, **json.loads(json.dumps(codec.options)))
    assert again == codec and hash(again) == hash(codec)
    assert parts_decode.SOLVERS[0] == codec.solver
