"""The codec of part detectors: the contract of every codec, the mirror, scales and the options."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from lib.codecs.parts import PartsCodec
from lib.data.pair_statistics import pair_statistics
from lib.skeleton import COCO17, Skeleton
from tests.codecs.codec_contract import STICK, CodecContract, figure

SIZE = (96, 128)


def stats_of(skeleton):
    """Of the contract's figures at all their heights, and of their mirror images."""
    rng = np.random.default_rng(0)
    return pair_statistics([figure(skeleton, (0, 0), height, rng) for height in (70, 120, 150)], skeleton, flip=True)


def codec_of(skeleton, **options):
    return PartsCodec(skeleton, **{"pair_stats": stats_of(skeleton)} | options)


def perfect_maps(targets, image):
    return {name: targets[name][image].numpy() for name in ("heatmaps", "offsets", "pairwise") if name in targets}


class TestContract(CodecContract):
    tolerance = 0.1

    def codec(self, skeleton):
        return codec_of(skeleton)

    def maps(self, targets, image):
        return perfect_maps(targets, image)


def two_people():
    rng = np.random.default_rng(3)
    return np.stack([figure(COCO17, (x, 50), 80, rng) for x in (40, 90)])


def encoded(codec, people, size=SIZE, **more):
    return codec.encode(torch.tensor(np.asarray(people))[None], None, size, **more)


def test_the_mirror_turns_ways_in_their_own_units():
    """Statistics which are not those of mirrored people: a way is the same number of pixels afterwards."""
    rng = np.random.default_rng(1)
    stats = np.concatenate([rng.normal(0, 20, (272, 2)), rng.uniform(5, 20, (272, 2))], axis=1)
    codec, people = codec_of(COCO17, pair_stats=stats, radius=30), two_people()[:1]
    mirrored = people[:, COCO17.flip_index].copy()
    mirrored[..., 0] = SIZE[1] - 1 - mirrored[..., 0]
    targets, turned = encoded(codec, people), codec.flip(perfect_maps(encoded(codec, mirrored), 0))
    for name, channels in (("offsets", 2), ("pairwise", 2)):
        known = targets[f"{name}_mask"][0].numpy().repeat(channels, axis=0) > 0
        assert known.sum() > 1000
        np.testing.assert_allclose(turned[name][known], targets[name][0].numpy()[known], atol=1e-4)


def test_the_mirror_of_cells_off_their_middle():
    codec, people = codec_of(COCO17, origin=4.0), two_people()
    mirrored = people[:, COCO17.flip_index].copy()
    mirrored[..., 0] = SIZE[1] - 1 - mirrored[..., 0]
    targets, turned = encoded(codec, people), codec.flip(perfect_maps(encoded(codec, mirrored), 0))
    both = (targets["heatmaps"][0].numpy() * turned["heatmaps"]).repeat(2, axis=0) > 0
    assert both.sum() > 100
    np.testing.assert_allclose(turned["offsets"][both], targets["offsets"][0].numpy()[both], atol=1e-4)
    with pytest.raises(ValueError, match="offsets of skeleton 'person' have 34 channels, not 3"):
        codec.flip({"offsets": np.zeros((3, 4, 5))})


@pytest.mark.parametrize("origin", [None, 4.0])
def test_enlarged_maps_give_the_same_people(origin):
    """Maps enlarged so that cells of 8 become 4 by 4: the same keypoints, in cells."""
    codec, people = codec_of(COCO17, origin=origin, detection_threshold=0.5), two_people()[:1]
    maps = perfect_maps(encoded(codec, people), 0)
    # what each cell says of places is moved to the middles of its quarters, as interpolation would
    large = {name: values.repeat(4, axis=1).repeat(4, axis=2) for name, values in maps.items()}
    middle = (np.arange(4) - 1.5) * 2
    near = large["heatmaps"] > 0
    for axis, away in ((0, np.tile(middle, 16)[None]), (1, np.tile(middle, 12)[:, None])):
        large["offsets"][axis::2] -= np.where(near, away / codec.offset_stdev, 0)
        away = np.where(near.repeat(16, axis=0), away / codec.stats()[:, 2 + axis, None, None], 0)
        large["pairwise"][axis::2] -= away
    found = codec.at_pixels(4).decode(large)
    assert len(found) == 1
    # the outer edges of a cell and of its quarters are the same
    expected = (people[0, :, :2] + 0.5) / 2 - 0.5
    np.testing.assert_allclose(found.keypoints[0, :, :2], expected, atol=0.05)


def test_the_radius_may_grow_with_the_picture():
    people = two_people()[:1]
    plain, growing = codec_of(COCO17, pairwise=False), codec_of(COCO17, pairwise=False, radius_scales=True)
    half = encoded(growing, people, scales=torch.tensor([0.5]))["heatmaps"]
    assert torch.equal(half, encoded(replace(plain, radius=8.5), people)["heatmaps"])
    assert 0 < half.sum() < encoded(plain, people)["heatmaps"].sum() / 2
    assert torch.equal(encoded(plain, people, scales=torch.tensor([0.5]))["heatmaps"], encoded(plain, people)["heatmaps"])
    with pytest.raises(ValueError, match="needs the scale of each of the 1 images, got None"):
        encoded(growing, people)


def test_pairwise_maps_need_statistics():
    codec = PartsCodec(COCO17)
    with pytest.raises(ValueError, match="python -m lib pairwise-stats"):
        encoded(codec, two_people())
    with pytest.raises(ValueError, match="python -m lib pairwise-stats"):
        codec.decode({"heatmaps": np.ones((17, 4, 4)), "offsets": np.zeros((34, 4, 4)), "pairwise": np.zeros((544, 4, 4))})
    assert set(encoded(replace(codec, pairwise=False), two_people())) == {"heatmaps", "mask", "offsets", "offsets_mask"}
    assert set(codec.strides) - set(replace(codec, pairwise=False).strides) == {"pairwise"}


def test_one_keypoint_has_no_pairs():
    dot = Skeleton("dot", ("dot",), (), (), (0.05,))
    codec = PartsCodec(dot, pair_stats=())
    people = np.array([[[20.0, 30, 2]], [[100, 60, 1]]], np.float32)
    targets = encoded(codec, people)
    assert targets["pairwise"].shape == (1, 0, 12, 16) and targets["pairwise_mask"].shape == (1, 0, 12, 16)
    maps = perfect_maps(targets, 0)
    np.testing.assert_array_equal(codec.flip(maps)["offsets"][1], maps["offsets"][1, :, ::-1])
    found = codec.decode(maps).keypoints[:, 0, :2]
    np.testing.assert_allclose(found[found[:, 0].argsort()], people[:, 0, :2], atol=0.01)


def test_options_are_checked():
    for wrong in ({"radius": 0}, {"offset_stdev": 0}, {"origin": np.nan}, {"stride": 0}, {"zoom": -1}):
        with pytest.raises(ValueError, match=f"PartsCodec cannot work with {next(iter(wrong))}="):
            PartsCodec(COCO17, **wrong)
    with pytest.raises(ValueError, match="are 12 rows .* got 272"):
        PartsCodec(STICK, pair_stats=stats_of(COCO17))
    stats = stats_of(STICK)
    stats[list(permutations(STICK.keypoints, 2)).index(("hip", "head")), 2] = 0
    with pytest.raises(ValueError, match="from hip to head"):
        PartsCodec(STICK, pair_stats=stats)
