"""The codec of associative embedding: the contract of every codec, what the mirror does to tags, and the options."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.codecs.tags import TagsCodec
from lib.skeleton import COCO17
from tests.codecs.codec_contract import STICK, CodecContract, figure

SIZE = (96, 128)


def tags_of(cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Perfect tags (K, *size): in every cell three times the number of the person whose keypoint, of `cells` (P, K), is nearest."""
    tags = np.zeros((cells.shape[1], *size), np.float32)
    y, x = np.mgrid[: size[0], : size[1]]
    for k, own in enumerate(cells.T):
        there = np.flatnonzero(own >= 0)
        if len(there):
            at = np.stack(np.divmod(own[there], size[1]))[:, :, None, None]
            tags[k] = 3.0 * there[((at[0] - y) ** 2 + (at[1] - x) ** 2).argmin(axis=0)]
    return tags


def perfect_maps(targets, image):
    maps = {name: targets[name][image].numpy() for name in ("heatmaps", "heatmaps_fine")}
    for name in targets.keys() & {"cells", "cells_fine"}:
        kind = name.removeprefix("cells")
        maps[f"tags{kind}"] = tags_of(targets[name][image].numpy(), maps[f"heatmaps{kind}"].shape[1:])
    return maps


class TestContract(CodecContract):
    def codec(self, skeleton):
        return TagsCodec(skeleton)

    def maps(self, targets, image):
        return perfect_maps(targets, image)


class TestContractWithTagsAtHalf(TestContract):
    def codec(self, skeleton):
        return TagsCodec(skeleton, tags_at_half=True)


def two_people():
    rng = np.random.default_rng(3)
    return np.stack([figure(COCO17, (x, 50), 80, rng) for x in (40, 90)])


def encoded(people, size=SIZE, skeleton=COCO17, **options):
    return TagsCodec(skeleton, **options).encode(torch.tensor(people)[None], None, size)


def test_tags_of_the_mirror_are_second_numbers():
    codec, rng = TagsCodec(COCO17), np.random.default_rng(0)
    maps, back = ({"heatmaps": rng.random((2, 17, 4, 5)), "tags": rng.random((2, 17, 4, 5))} for _ in range(2))
    both = codec.with_mirrored(maps, back)
    np.testing.assert_array_equal(both["heatmaps"], (maps["heatmaps"] + back["heatmaps"]) / 2)
    np.testing.assert_array_equal(both["tags"], np.concatenate([maps["tags"], back["tags"]], axis=1))
    assert codec.own_scale == ("tags",) and replace(codec, tags_at_half=True).own_scale == ("tags", "tags_fine")


def test_flip_swaps_left_and_right_of_every_number():
    codec, tags = TagsCodec(COCO17), np.random.default_rng(0).random((34, 4, 5))
    back = codec.flip({"tags": tags})["tags"]
    for number in (0, 17):
        for k, twin in enumerate(COCO17.flip_index):
            np.testing.assert_array_equal(back[number + k], tags[number + twin, :, ::-1])
    shared = TagsCodec(COCO17, tag_per_keypoint=False).flip({"tags": tags[:2]})["tags"]
    np.testing.assert_array_equal(shared, tags[:2, :, ::-1])
    with pytest.raises(ValueError, match="tags of skeleton 'person' have 17 channels or a multiple, not 3"):
        codec.flip({"tags": tags[:3]})


def test_people_come_back_from_a_shared_tag_map():
    people = two_people()
    codec = TagsCodec(COCO17, tag_per_keypoint=False)
    maps = perfect_maps(encoded(people), 0)
    x = np.arange(maps["tags"].shape[2]) * 4 + 1.5
    maps["tags"] = np.broadcast_to(np.where(x < 65, 0.0, 5.0), (1, *maps["tags"].shape[1:])).astype(np.float32)
    back = codec.decode(maps)
    assert len(back) == 2
    for person in people:
        assert np.linalg.norm(back.keypoints[..., :2] - person[:, :2], axis=-1).max(axis=1).min() < 0.5


def test_targets_of_whole_cells_are_read_without_bias():
    """Truncated targets are right on average, whatever the place between the cells: half a pixel is given back."""
    rng, errors = np.random.default_rng(0), []
    codec = TagsCodec(COCO17, truncate=True)
    for _ in range(30):
        person = figure(COCO17, rng.uniform((60, 45), (70, 52)), 80, rng)
        back = codec.decode(perfect_maps(codec.encode(torch.tensor(person)[None, None], None, SIZE), 0))
        assert len(back) == 1
        errors.append(back.keypoints[0, :, :2] - person[:, :2])
    assert np.abs(np.mean(errors, axis=(0, 1))).max() < 0.1
    assert np.abs(errors).max() < 2.1  # half a cell of the coarse map


def test_maps_of_one_cell_per_pixel():
    codec = TagsCodec(COCO17, truncate=True)
    large = codec.at_pixels(8.0)  # a picture twice as large as the network's input
    assert large.strides == {"heatmaps": 1, "heatmaps_fine": 1, "tags": 1}
    assert (large.shift, replace(codec, truncate=False).at_pixels(8.0).shift) == (1.0, 0.0)


@pytest.mark.parametrize(
    "bad",
    [{"sigma": 0}, {"stride": 0}, {"fine_factor": 3}, {"base_size": 0}, {"sigma_range": (3, 2)}, {"shift": np.nan},
     {"tag_threshold": 0}],
)  # fmt: skip
def test_senseless_options_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        TagsCodec(STICK, **bad)


def test_a_list_of_options_is_the_same_codec():
    assert TagsCodec(STICK, sigma_range=[1, 4]) == TagsCodec(STICK)
