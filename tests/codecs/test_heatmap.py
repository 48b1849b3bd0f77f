"""The codec of one person's heatmaps: the contract of every codec, the three ways of placing cells, drawing and reading."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.codecs.heatmap import CELLS, HeatmapCodec
from lib.codecs.heatmap_decode import REFINE, highest, refined
from lib.skeleton import COCO17, Skeleton
from tests.codecs.codec_contract import CodecContract, figure

SIZE = (128, 96)
POINT = Skeleton("fly", ("body",), (), (), (0.05,))


class TestContract(CodecContract):
    alone = True
    border_tolerance = 2.2  # cells at the border are read as they are: half of one
    reach = 8  # 3σ, and half a cell to each side

    def codec(self, skeleton):
        return HeatmapCodec(skeleton)

    def maps(self, targets, image):
        return {"heatmaps": targets["heatmaps"][image].numpy()}

    def test_thirty_people_come_back(self, rng):
        with pytest.raises(ValueError, match="one person per picture, not 2.*boxes"):
            self.codec(COCO17).encode(torch.zeros(1, 2, 17, 3), None, self.size)


class TestContractOfUdp(TestContract):
    border_tolerance = 3  # the blur takes what lies beyond the border for empty

    def codec(self, skeleton):
        return HeatmapCodec(skeleton, cells="ends", refine="udp")

    def test_maps_have_their_strides(self, rng):
        assert self.codec(COCO17).strides == {"heatmaps": 4}


def at(x: float, y: float, v: float = 2) -> torch.Tensor:
    return torch.tensor([[[[x, y, v]]]], dtype=torch.float32)


def places(codec: HeatmapCodec, x: float, y: float, size=SIZE) -> np.ndarray:
    maps = codec.encode(at(x, y), None, size)["heatmaps"][0].numpy()
    return codec.decode({"heatmaps": maps}).keypoints[0, 0, :2]


@pytest.mark.parametrize(("cells", "zero", "last"), [("centres", 1.5, 93.5), ("first", 0, 92), ("ends", 0, 95)])
def test_where_cells_lie(cells, zero, last):
    codec = HeatmapCodec(POINT, cells=cells, refine="none")
    for cell, x in ((0, zero), (23, last)):
        heatmaps = np.zeros((1, 32, 24), np.float32)
        heatmaps[0, 3, cell] = 1
        assert codec.decode({"heatmaps": heatmaps}).keypoints[0, 0, 0] == pytest.approx(x, abs=1e-4)
        drawn = codec.encode(at(x, 50), None, SIZE)["heatmaps"][0, 0]
        assert int(drawn.amax(0).argmax()) == cell and drawn.amax() > 0.9


@pytest.mark.parametrize("cells", CELLS)
@pytest.mark.parametrize(("refine", "worst"), [("none", 2.3), ("quarter", 1.3), ("dark", 0.02), ("udp", 0.02)])
def test_how_exactly_places_come_back(cells, refine, worst):
    codec = HeatmapCodec(POINT, cells=cells, refine=refine, blur=1 if refine in ("dark", "udp") else 11)
    found = np.array([places(codec, 40 + x, 60 + y) - (40 + x, 60 + y) for x in np.arange(0, 4, 0.5) for y in (0, 1.7)])
    assert np.abs(found).max() < worst
    # blurring a Gaussian that the map holds whole gives another one in the same place
    if refine in ("dark", "udp"):
        assert np.abs(places(replace(codec, blur=11), 41.3, 60.8) - (41.3, 60.8)).max() < 0.03


def test_quarter_of_a_cell_towards_the_higher_neighbour():
    heatmaps = np.zeros((3, 6, 7), np.float32)
    heatmaps[:, 3, 3], heatmaps[:, 3, 4], heatmaps[:, 2, 3] = 1, 0.5, 0.2
    heatmaps[1] = np.roll(heatmaps[0], -2, axis=1)  # one cell from the border: published code leaves it
    heatmaps[2] = 0
    cells, values = highest(heatmaps)
    assert values.tolist() == [1, 1, 0] and cells.tolist() == [[3, 3], [1, 3], [0, 0]]
    assert refined(heatmaps, cells, "quarter", 11).tolist() == [[3.25, 2.75], [1, 3], [0, 0]]


def test_published_targets_are_rounded_and_cut():
    codec = HeatmapCodec(POINT, cells="first", unbiased=False, sigma=2)
    drawn = codec.encode(at(41, 61), None, SIZE)["heatmaps"][0, 0].numpy()
    y, x = np.mgrid[:32, :24]
    wanted = np.exp(-((x - 10) ** 2 + (y - 15) ** 2) / 8) * (abs(x - 10) <= 6) * (abs(y - 15) <= 6)
    np.testing.assert_allclose(drawn, wanted, atol=1e-6)
    assert drawn.max() == 1 and drawn[15, 17] == 0


@pytest.mark.parametrize(("x", "weight"), [(50, 1), (-20, 1), (-31, 0), (95, 1), (118, 1), (121, 0)])
def test_weight_of_a_keypoint_outside(x, weight):
    targets = HeatmapCodec(POINT, cells="first").encode(at(x, 60), None, SIZE)
    assert targets["weights"].tolist() == [[weight]]
    assert bool(targets["heatmaps"].any()) == bool(weight)


def test_visibility_one_counts_like_two_and_zero_not_at_all():
    codec = HeatmapCodec(POINT)
    hidden, seen, absent = (codec.encode(at(40, 60, v), None, SIZE) for v in (1, 2, 0))
    assert torch.equal(hidden["heatmaps"], seen["heatmaps"]) and hidden["weights"].item() == 1
    assert not absent["heatmaps"].any() and absent["weights"].item() == 0


def test_score_is_the_mean_of_keypoints_above_the_threshold():
    heatmaps = np.zeros((17, 32, 24), np.float32)
    for k, value in enumerate((0.9, 0.5, 0.2, 0.1, 1.7)):
        heatmaps[k, 10, 5 + k] = value
    people = HeatmapCodec(COCO17).decode({"heatmaps": heatmaps})
    assert people.scores.tolist() == [pytest.approx((0.9 + 0.5 + 1) / 3)]
    np.testing.assert_allclose(people.keypoints[0, :6, 2], [0.9, 0.5, 0.2, 0.1, 1, 0])


def test_published_mirror_is_moved_a_cell_to_the_right():
    maps = {"heatmaps": np.arange(2 * 17 * 3 * 5, dtype=np.float32).reshape(2, 17, 3, 5)}
    plain, moved = (HeatmapCodec(COCO17, cells=cells).flip(maps)["heatmaps"] for cells in ("ends", "first"))
    np.testing.assert_array_equal(plain, maps["heatmaps"][:, COCO17.flip_index, :, ::-1])
    np.testing.assert_array_equal(moved[..., 1:], plain[..., :-1])
    np.testing.assert_array_equal(moved[..., 0], plain[..., 0])


@pytest.mark.parametrize("refine", REFINE)
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (1, 5), (3, 3)])
def test_maps_of_a_few_cells(refine, shape):
    people = HeatmapCodec(POINT, refine=refine, cells="ends").decode({"heatmaps": np.random.default_rng(0).random((1, *shape))})
    assert np.isfinite(people.keypoints).all() and people.keypoints[0, 0, 2] > 0


def test_noise_leads_nobody_far_away():
    rng = np.random.default_rng(0)
    for refine in ("dark", "udp"):
        heatmaps = rng.random((17, 32, 24), np.float32)
        keypoints = HeatmapCodec(COCO17, refine=refine).decode({"heatmaps": heatmaps}).keypoints[0]
        assert (keypoints[:, :2] >= -4).all() and (keypoints[:, :2] <= (100, 132)).all()


@pytest.mark.parametrize("options", [{"cells": "middle"}, {"refine": "half"}, {"blur": 10}, {"sigma": 0}, {"score_threshold": 1},
                                     {"stride": 0}])  # fmt: skip
def test_wrong_options_are_named(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}( must be one of|=)"):
        HeatmapCodec(COCO17, **options)


def test_there_is_no_codec_of_pixels():
    with pytest.raises(ValueError, match="leave out maps_at"):
        HeatmapCodec(COCO17).at_pixels(4)


def test_trained_at_the_border_it_is_read_there():
    """A wrist on the last pixel of the crop is found within half a cell of it."""
    person = figure(COCO17, (150, 110), 150, np.random.default_rng(0))
    person[COCO17.index("left_wrist"), :2] = 287, 223
    codec = HeatmapCodec(COCO17)
    targets = codec.encode(torch.tensor(person)[None, None], None, (224, 288))
    back = codec.decode({"heatmaps": targets["heatmaps"][0].numpy()}).keypoints[0, COCO17.index("left_wrist")]
    assert np.abs(back[:2] - (287, 223)).max() < 2
