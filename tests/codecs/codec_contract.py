"""What every codec must do. A test class inherits `CodecContract` and says how to build its codec."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.codecs import CODECS, Codec
from lib.people import People
from lib.skeleton import COCO17, Skeleton

# standing figures of height 1 around (0, 0)
FIGURES = {
    COCO17.keypoints: np.array([(0, -.44), (.04, -.48), (-.04, -.48), (.1, -.45), (-.1, -.45), (.17, -.3), (-.17, -.3),
                                (.24, -.12), (-.24, -.12), (.28, .06), (-.28, .06), (.11, .05), (-.11, .05), (.14, .28),
                                (-.14, .28), (.15, .5), (-.15, .5)]),
    ("head", "hip", "left_foot", "right_foot"): np.array([(0, -.5), (0, 0), (.3, .5), (-.3, .5)]),
}  # fmt: skip
STICK = Skeleton("stick", ("head", "hip", "left_foot", "right_foot"), ((0, 1), (1, 2), (1, 3)), ((2, 3),), (0.05,) * 4)


class CodecContract:
    """Inherit, and implement `codec`."""

    tolerance = 0.5
    """Pixels between a person and what comes back from its maps; 0.1 for codecs with offset maps."""
    border_tolerance: float | None = None
    """The same for keypoints at the border of the picture, where it is another."""
    reach = 2
    """Cells from the border up to which a part outside the picture may be found at the border."""
    alone = False
    """Whether the codec draws one person per picture, and always finds one, be it without any keypoint."""
    size = (224, 288)

    def codec(self, skeleton: Skeleton) -> Codec:
        """The codec with its default options."""
        raise NotImplementedError

    def maps(self, targets: dict[str, Tensor], image: int) -> dict[str, np.ndarray]:
        """What a perfect network would predict for one image of the batch; override where targets are not maps alone."""
        return {name: values[image].numpy() for name, values in targets.items() if name != "mask"}

    @pytest.fixture
    def rng(self):
        return np.random.default_rng(0)

    @pytest.mark.parametrize("skeleton", [COCO17, STICK], ids=lambda s: s.name)
    def test_one_person_comes_back(self, skeleton, rng):
        person = figure(skeleton, (150, 110), 150, rng)
        self.assert_same_people(self.round_trip(skeleton, [person]), [person])

    def test_thirty_people_come_back(self, rng):
        people = [figure(COCO17, (50 + 84 * c, 50 + 78 * r), 70, rng) for r in range(5) for c in range(6)]
        self.assert_same_people(self.round_trip(COCO17, people, (416, 512)), people)

    def test_people_come_back_at_every_place_between_cells(self, rng):
        for shift in np.linspace(0, 4, 9):
            person = figure(COCO17, (120 + shift, 100 + shift / 2), 130, rng)
            self.assert_same_people(self.round_trip(COCO17, [person]), [person])

    def test_keypoints_on_the_border_come_back(self, rng):
        height, width = self.size
        person = figure(COCO17, (150, 110), 150, rng)
        places = {"left_wrist": (width - 1, 100), "right_wrist": (0, 100), "nose": (150, 0)}
        places |= {"left_ankle": (width - 1, height - 1), "right_ankle": (0, height - 1)}
        for name, (x, y) in places.items():
            person[COCO17.index(name), :2] = x, y
        self.assert_same_people(self.round_trip(COCO17, [person]), [person], self.border_tolerance)

    @pytest.mark.parametrize("centre", [(0, 110), (287, 110), (150, 55), (150, 190)])
    def test_parts_outside_do_not_disturb_those_inside(self, centre, rng):
        height, width = self.size
        person = figure(COCO17, centre, 150, rng)
        inside = ((person[:, :2] >= 0) & (person[:, :2] <= (width - 1, height - 1))).all(axis=1)
        assert 0 < inside.sum() < 17
        back = self.round_trip(COCO17, [person])
        assert len(back) == 1
        self.assert_same_people(People(back.keypoints[:, inside], back.scores), [person[inside]], self.border_tolerance)
        found = back.keypoints[0, :, 2] > 0
        distances = np.linalg.norm(back.keypoints[0, found, :2] - person[found, :2], axis=1)
        assert distances.max() < self.reach * self.codec(COCO17).stride

    def test_person_far_outside_is_not_seen(self, rng):
        self.assert_nobody(self.round_trip(COCO17, [figure(COCO17, (-900, 100), 150, rng)]))

    def test_unlabelled_keypoints_are_not_drawn(self, rng):
        person = figure(COCO17, (150, 110), 150, rng)
        person[:, 2] = 1
        person[[COCO17.index(name) for name in ("left_eye", "right_wrist", "left_ankle")], 2] = 0
        back = self.round_trip(COCO17, [person])
        assert len(back) == 1
        assert (back.keypoints[0, person[:, 2] == 0, 2] == 0).all()
        labelled = person[:, 2] > 0
        self.assert_same_people(People(back.keypoints[:, labelled], back.scores), [person[labelled]])

    def test_nobody(self):
        codec = self.codec(COCO17)
        for keypoints in (torch.zeros(2, 0, 17, 3), torch.zeros(2, 1 if self.alone else 3, 17, 3)):
            targets = codec.encode(keypoints, None, self.size)
            self.assert_nobody(codec.decode(self.maps(targets, 1)))

    def test_a_batch_is_its_images_and_the_input_stays(self, rng):
        codec = self.codec(COCO17)
        batch = torch.cat([self.people([(x, 100), (x + 90, 120)], rng) for x in (60, 90, 120)])
        batch[1, -1] = 0
        before = batch.clone()
        mask = torch.randint(0, 2, (3, self.size[0] // codec.stride, self.size[1] // codec.stride), dtype=torch.uint8)
        together = codec.encode(batch, mask, self.size)
        assert torch.equal(batch, before)
        for i in range(3):
            alone = codec.encode(batch[i : i + 1], mask[i : i + 1], self.size)
            for name, values in together.items():
                torch.testing.assert_close(values[i], alone[name][0])
        assert torch.equal(together["mask"][:, 0], mask.float())

    def test_mask_is_all_ones_without_one(self):
        assert (self.codec(STICK).encode(torch.zeros(1, 0, 4, 3), None, (64, 96))["mask"] == 1).all()

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 1.0])
    def test_constant_maps_are_survived(self, value, rng):
        maps = {name: np.full_like(values, value) for name, values in self.some_maps(rng).items()}
        self.assert_valid(self.codec(COCO17).decode(maps))

    def test_nan_in_some_cells_is_survived(self, rng):
        maps = self.some_maps(rng)
        for values in maps.values():
            values[rng.random(values.shape) < 0.02] = np.nan
        self.assert_valid(self.codec(COCO17).decode(maps))

    def test_five_hundred_peaks_are_survived(self, rng):
        maps = self.some_maps(rng)
        for values in maps.values():
            values[...] = rng.normal(0, 1, values.shape)
        for first in maps.values():  # and a regular grid of them in the first channel: 500 peaks of one part
            first[0] = 0
            first[0, ::2, ::2] = rng.uniform(0.5, 1, first[0, ::2, ::2].shape)
        self.assert_valid(self.codec(COCO17).decode(maps))

    def test_maps_of_the_mirror_image_turned_back_are_the_maps(self, rng):
        codec, width = self.codec(COCO17), self.size[1]
        people = self.people([(80, 110), (200, 110)], rng)
        mirrored = people[:, :, COCO17.flip_index].clone()
        mirrored[..., 0] = width - 1 - mirrored[..., 0]
        maps, turned = (self.maps(codec.encode(p, None, self.size), 0) for p in (people, mirrored))
        turned = codec.flip(turned)
        for name, values in maps.items():
            assert turned[name].dtype == values.dtype
            known = ~np.isnan(turned[name])
            assert known.any()
            np.testing.assert_allclose(turned[name][known], values[known], atol=1e-4)
        with pytest.raises(ValueError, match="'flow'"):
            codec.flip({"flow": np.zeros((1, 2, 4, 4))})

    def test_a_mirror_image_that_agrees_changes_nobody(self, rng):
        codec = self.codec(COCO17)
        maps = self.some_maps(rng)
        joined = codec.with_mirrored(maps, {name: values.copy() for name, values in maps.items()})
        alone, both = codec.decode(maps), codec.decode(joined)
        assert len(alone) == (1 if self.alone else 2)
        np.testing.assert_allclose(both.keypoints, alone.keypoints, atol=1e-4)
        np.testing.assert_allclose(both.scores, alone.scores, atol=1e-6)

    def test_maps_have_their_strides(self, rng):
        codec = self.codec(COCO17)
        maps = self.some_maps(rng)
        assert codec.strides == {name: self.size[0] / values.shape[1] for name, values in maps.items()}
        assert min(codec.strides.values()) >= 1 and codec.stride in codec.strides.values()
        assert set(codec.own_scale) <= set(maps)

    def test_wrong_shapes_are_named(self, rng):
        codec = self.codec(COCO17)
        with pytest.raises(ValueError, match=r"17.*got \(1, 2, 4, 3\)"):
            codec.encode(torch.zeros(1, 2, 4, 3), None, self.size)
        with pytest.raises(ValueError, match="multiple"):
            codec.encode(torch.zeros(1, 2, 17, 3), None, (222, 288))
        with pytest.raises(ValueError, match="mask"):
            codec.encode(torch.zeros(1, 2, 17, 3), torch.ones(1, 5, 5), self.size)
        with pytest.raises(ValueError, match="17"):
            codec.decode({name: values[:3] for name, values in self.some_maps(rng).items()})

    def test_options_make_the_same_codec(self):
        codec = self.codec(COCO17)
        assert CODECS[type(codec).__name__] is type(codec)
        assert type(codec)(codec.skeleton, **codec.options) == codec

    def round_trip(self, skeleton: Skeleton, people: list[np.ndarray], size: tuple[int, int] | None = None) -> People:
        codec = self.codec(skeleton)
        targets = codec.encode(torch.tensor(np.stack(people)[None]), None, size or self.size)
        assert all(values.dtype == torch.float32 for name, values in targets.items() if name in ("heatmaps", "mask"))
        back = codec.decode(self.maps(targets, 0))
        self.assert_valid(back)
        return back

    def some_maps(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        people = self.people([(80, 110), (200, 110)], rng)
        maps = self.maps(self.codec(COCO17).encode(people, None, self.size), 0)
        return {name: values.copy() for name, values in maps.items()}

    def people(self, centres: list[tuple[float, float]], rng: np.random.Generator) -> Tensor:
        """(1, P, 17, 3) people of one picture, of whom only the first is there where the codec draws no more."""
        people = np.stack([figure(COCO17, centre, 120, rng) for centre in centres])
        return torch.tensor(people[: 1 if self.alone else None][None])

    def assert_nobody(self, people: People) -> None:
        """Nobody, or one person of whom nothing was found."""
        assert people.keypoints.shape == (int(self.alone), 17, 3) and people.scores.shape == (int(self.alone),)
        assert not people.keypoints.any() and not people.scores.any()

    def assert_valid(self, people: People) -> None:
        assert np.isfinite(people.keypoints).all()
        assert ((people.keypoints[..., 2] >= 0) & (people.keypoints[..., 2] <= 1)).all()
        assert (((people.scores > 0) | self.alone & (people.scores == 0)) & (people.scores <= 1)).all()
        assert (np.diff(people.scores) <= 0).all(), "best first"
        assert (people.keypoints[people.keypoints[..., 2] == 0] == 0).all(), "what is not found has no place"

    def assert_same_people(self, back: People, people: list[np.ndarray], tolerance: float | None = None) -> None:
        """Everybody comes back once, complete and in place, whatever the order."""
        assert len(back) == len(people)
        distance = np.linalg.norm(np.stack(people)[:, None, :, :2] - back.keypoints[None, ..., :2], axis=-1).max(-1)
        assert sorted(distance.argmin(axis=1)) == list(range(len(people)))
        assert distance.min(axis=1).max() <= (tolerance or self.tolerance)
        assert (back.keypoints[..., 2] > 0).all()


def figure(skeleton: Skeleton, centre: tuple[float, float], height: float, rng: np.random.Generator) -> np.ndarray:
    """One standing person, (K, 3) pixels and visibility 2, every keypoint moved a little."""
    shape = FIGURES[skeleton.keypoints]
    xy = shape * height + rng.normal(0, 0.01 * height, shape.shape) + centre
    return np.concatenate([xy, np.full((len(shape), 1), 2)], axis=1).astype(np.float32)
