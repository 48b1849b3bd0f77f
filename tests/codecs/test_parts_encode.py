"""Targets of part detectors against a plain loop over people, keypoints and cells, and against cases counted by hand."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from lib.codecs.parts import PartsCodec
from lib.skeleton import COCO17, Skeleton

PAIR = Skeleton("pair", ("a", "b"), ((0, 1),), (), (0.05,) * 2)
UNIT = ((0, 0, 1, 1),) * 2


def by_loops(people, size, radius, origin, stats, stride=8, stdev=7.2801):
    """heatmaps, offsets, pairwise and the masks of the last two, as the paper's method describes them, in float64."""
    (h, w), k = (side // stride for side in size), people.shape[1]
    pairs = list(permutations(range(k), 2))
    heatmaps, offsets, pairwise = np.zeros((k, h, w)), np.zeros((2 * k, h, w)), np.zeros((2 * len(pairs), h, w))
    known = np.zeros((len(pairs), h, w))
    for i in range(h):
        for j in range(w):
            cell = np.array([j, i]) * stride + origin
            for a in range(k):
                ways = people[:, a, :2].astype(float) - cell
                far = np.where(people[:, a, 2] > 0, np.hypot(*ways.T), np.inf)
                if not len(far) or far.min() > radius:
                    continue
                person = people[far.argmin()]
                heatmaps[a, i, j] = 1
                offsets[2 * a : 2 * a + 2, i, j] = ways[far.argmin()] / stdev
                for p, (first, b) in enumerate(pairs):
                    if first == a and person[b, 2] > 0:
                        known[p, i, j] = 1
                        pairwise[2 * p : 2 * p + 2, i, j] = (person[b, :2] - cell - stats[p, :2]) / stats[p, 2:]
    return {"heatmaps": heatmaps, "offsets": offsets, "offsets_mask": heatmaps, "pairwise": pairwise, "pairwise_mask": known}


@pytest.mark.parametrize("origin", [None, 4.0])
@pytest.mark.parametrize("people", [0, 1, 7])
def test_the_targets_are_those_of_a_plain_loop(people, origin):
    rng, size = np.random.default_rng(people), (64, 96)
    stats = np.concatenate([rng.normal(0, 20, (272, 2)), rng.uniform(5, 30, (272, 2))], axis=1)
    scene = np.zeros((people, 17, 3), np.float32)
    # crowded, some beyond the picture, a third unlabelled and with any coordinates
    scene[..., :2] = rng.uniform(-20, 110, (people, 17, 2))
    scene[..., 2] = rng.random((people, 17)) < 0.7
    scene[..., :2][scene[..., 2] == 0] = np.nan
    codec = PartsCodec(COCO17, origin=origin, pair_stats=stats)
    targets = codec.encode(torch.tensor(scene)[None], None, size)
    expected = by_loops(scene, size, codec.radius, 3.5 if origin is None else origin, stats)
    assert targets.keys() == expected.keys() | {"mask"}
    for name, values in expected.items():
        np.testing.assert_allclose(targets[name][0], values, atol=1e-4, err_msg=name)
    assert expected["pairwise_mask"].any() == (people > 0)


def test_a_disc_counted_by_hand():
    """A keypoint on the centre of a cell: of the cells of 8 pixels 13 lie within 17, those two steps away or one and one."""
    codec = PartsCodec(PAIR, pairwise=False)
    people = torch.tensor([[[[43.5, 27.5, 2], [0, 0, 0]]]])
    targets = codec.encode(people, None, (64, 96))
    disc = targets["heatmaps"][0, 0, 1:6, 3:8]
    assert disc.tolist() == [[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
    assert targets["heatmaps"].sum() == 13
    assert targets["offsets"][0, 0, 3, 5] == 0 and targets["offsets"][0, 1, 3, 5] == 0
    assert targets["offsets"][0, 0, 3, 4] == pytest.approx(8 / 7.2801) and targets["offsets"][0, 1, 3, 4] == 0


def test_a_pair_counted_by_hand():
    """In standard deviations from the mean, from the cell's centre and not from the keypoint."""
    stats = ((10, -5, 4, 2), (0, 0, 1, 1))
    people = torch.tensor([[[[13.0, 12, 2], [29, 4, 1]]]])
    targets = PartsCodec(PAIR, pair_stats=stats).encode(people, None, (32, 48))
    # cell (1, 1) lies on 11.5, 11.5: b is (17.5, −7.5) away
    assert targets["pairwise"][0, :2, 1, 1].tolist() == [(17.5 - 10) / 4, (-7.5 + 5) / 2]
    # cell (0, 3) lies on 27.5, 3.5, near b: a is (−14.5, 8.5) away
    assert targets["pairwise"][0, 2:, 0, 3].tolist() == [-14.5, 8.5]
    assert torch.equal(targets["pairwise_mask"], targets["heatmaps"])


def test_a_nearer_person_takes_the_whole_cell():
    """Also what only the further one has: nothing of theirs is left (the original keeps it)."""
    complete, half = [[11.5, 11.5, 2], [40, 11.5, 2]], [[19.5, 11.5, 2], [0, 0, 0]]
    for people in ([complete, half], [half, complete]):
        targets = PartsCodec(PAIR, pair_stats=UNIT).encode(torch.tensor([people]), None, (32, 48))
        assert targets["heatmaps"][0, 0, 1, 1:3].tolist() == [1, 1]
        assert targets["offsets"][0, 0, 1, 1:3].tolist() == [0, 0]
        assert targets["pairwise_mask"][0, 0, 1, :4].tolist() == [1, 1, 0, 0]
        assert targets["pairwise"][0, 0, 1, 2] == 0


def test_of_equally_near_people_the_first_counts():
    left, right = [[7.5, 11.5, 2], [7.5, 27.5, 2]], [[15.5, 11.5, 2], [40, 11.5, 2]]
    for people, away in (([left, right], -4), ([right, left], 4)):
        targets = PartsCodec(PAIR, pair_stats=UNIT).encode(torch.tensor([people]), None, (32, 48))
        assert targets["offsets"][0, 0, 1, 1] == pytest.approx(away / 7.2801)


def test_what_the_mask_leaves_out_counts_nowhere():
    rng = np.random.default_rng(0)
    people = torch.tensor(np.concatenate([rng.uniform(0, 60, (2, 3, 17, 2)), np.ones((2, 3, 17, 1))], axis=-1))
    codec, mask = PartsCodec(COCO17, pair_stats=((0, 0, 1, 1),) * 272), torch.ones(2, 8, 8)
    mask[1, :, 4:] = 0
    whole, masked = (codec.encode(people, some, (64, 64)) for some in (None, mask))
    for name in ("heatmaps", "offsets", "pairwise"):
        assert torch.equal(whole[name], masked[name])
    for name in ("mask", "offsets_mask", "pairwise_mask"):
        assert torch.equal(masked[name], whole[name] * mask[:, None]) and not masked[name][1, ..., 4:].any()
