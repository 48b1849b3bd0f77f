"""The PAF codec's targets: by their definition, with every option, and alike on the CPU and elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lib.codecs import PafCodec, paf_encode
from lib.codecs.paf import LIGHTWEIGHT_OPENPOSE_TARGETS, MERGES
from lib.skeleton import COCO18_NECK, OPENPOSE18
from tests.codecs.codec_contract import STICK

SIZE = (96, 128)
CELLS = (24, 32)


def test_heatmap_and_field_by_their_definition():
    people = torch.tensor([[[30.0, 20, 2], [60, 50, 1], [20, 80, 2], [90, 80, 0]]])[None]
    codec = PafCodec(STICK, stdev=0.06)
    sigma, targets = 0.06 * CELLS[0], codec.encode(people, None, SIZE)
    i, j = np.mgrid[: CELLS[0], : CELLS[1]]
    x, y = (people[0, 0, 0, :2].numpy() - 1.5) / 4
    window = (abs(j - np.floor(x + 0.5)) <= 3) & (abs(i - np.floor(y + 0.5)) <= 3)
    expected = np.where(window, np.exp(-((j - x) ** 2 + (i - y) ** 2) / sigma**2), 0)
    np.testing.assert_allclose(targets["heatmaps"][0, 0], expected, atol=1e-6)
    a, b = ((people[0, 0, k, :2].numpy() - 1.5) / 4 for k in (0, 1))
    unit = (b - a) / np.linalg.norm(b - a)
    offset = np.stack([j, i], -1) - a
    along = (offset @ unit).clip(0, np.linalg.norm(b - a))
    distance = np.linalg.norm(offset - along[..., None] * unit, axis=-1)
    expected = np.exp(-(distance**2) / sigma**2) * unit[::-1, None, None]
    np.testing.assert_allclose(targets["pafs"][0, 0:2], expected, atol=2e-5)
    assert (targets["pafs"][0, 4:6] == 0).all(), "no field to an unlabelled keypoint"


def test_keypoint_in_a_cells_centre_peaks_at_one():
    people = torch.tensor([[[4 * 5 + 1.5, 4 * 7 + 1.5, 2]] * 4])[None]
    heatmap = PafCodec(STICK).encode(people, None, SIZE)["heatmaps"][0, 0]
    assert heatmap[7, 5] == 1
    assert heatmap.argmax() == 7 * CELLS[1] + 5


def test_gaussian_factor_two_is_the_normal_distribution():
    people = torch.tensor([[[21.5, 29.5, 2]] * 4])[None]
    one, two = (PafCodec(STICK, stdev=0.06, gaussian_factor=f).encode(people, None, SIZE) for f in (1.0, 2.0))
    torch.testing.assert_close(two["heatmaps"] ** 2, one["heatmaps"])


def crossing_people() -> torch.Tensor:
    people = torch.tensor([[[20.0, 20, 2], [100, 70, 2], [0, 0, 0], [0, 0, 0]],
                           [[20.0, 70, 2], [100, 20, 2], [0, 0, 0], [0, 0, 0]]])[None]  # fmt: skip
    return people


def test_hard_fields_where_people_cross():
    fields = {merge: PafCodec(STICK, paf_half_width=1.0, paf_merge=merge).encode(crossing_people(), None, SIZE)["pafs"][0]
              for merge in MERGES}  # fmt: skip
    alone = PafCodec(STICK, paf_half_width=1.0).encode(crossing_people()[:, 1:], None, SIZE)["pafs"][0]
    lengths = alone[:2].norm(dim=0)
    assert set(lengths.round(decimals=4).unique().tolist()) == {0.0, 1.0}
    middle = (slice(0, 2), 11, 15)
    a, b = (crossing_people()[0, p, 1, :2] - crossing_people()[0, p, 0, :2] for p in (0, 1))
    a, b = (a / a.norm()).flip(0), (b / b.norm()).flip(0)
    torch.testing.assert_close(fields["sum"][middle], a + b, atol=1e-4, rtol=0)
    torch.testing.assert_close(fields["average"][middle], (a + b) / 2, atol=1e-4, rtol=0)
    torch.testing.assert_close(fields["overwrite"][middle], b, atol=1e-4, rtol=0)


def test_soft_average_is_no_longer_than_its_strongest_field():
    summed, average = (PafCodec(STICK, stdev=0.1, paf_merge=merge).encode(crossing_people(), None, SIZE)["pafs"][0, :2]
                       for merge in ("sum", "average"))  # fmt: skip
    assert average.norm(dim=0).max() <= 1 + 1e-5 < summed.norm(dim=0).max()


OPTIONS = {
    "trt_pose": {},
    "sum": {"heatmap_merge": "sum", "gaussian_factor": 2.0},
    "cut": {"min_value": 0.2, "sigma": 9.0},
    "hard": {"paf_half_width": 1.5, "paf_offset": 0.3},
    "box": {"paf_half_width": 1.5, "paf_shape": "box", "background": True},
}


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("chunk", [1, paf_encode.CHUNK])
def test_both_encoders_are_equal(merge, options, chunk, monkeypatch):
    monkeypatch.setattr(paf_encode, "CHUNK", chunk)
    rng = np.random.default_rng(1)
    people = rng.uniform(-10, 40, (3, 6, 18, 3)).astype(np.float32)
    people[..., 2] = rng.integers(0, 3, (3, 6, 18))
    people[0, 0, 0] = (np.nan, 3, 2)
    people[0, 1, 1, :2] = people[0, 1, 0, :2] = 12
    codec = PafCodec(COCO18_NECK, **{"stdev": 0.06, "paf_merge": merge} | options)
    compiled, tensors = (codec._drawn(torch.tensor(people), CELLS, c) for c in (True, False))
    torch.testing.assert_close(compiled[0], tensors[0], atol=1e-5, rtol=0)
    # a cell on the very edge of a hard field, or between two people, may fall to either side by rounding
    assert ((compiled[1] - tensors[1]).abs() > 1e-4).float().mean() < 1e-5
    assert compiled[0].max() > 0.9 and compiled[1].abs().max() > 0.9


@pytest.mark.parametrize("compiled", [True, False])
def test_nobody_is_all_background(compiled):
    codec = PafCodec(STICK, background=True)
    heatmaps, pafs = codec._drawn(torch.zeros(2, 0, 4, 3), CELLS, compiled)
    assert heatmaps.shape == (2, 5, *CELLS) and pafs.shape == (2, 6, *CELLS)
    assert (heatmaps[:, :4] == 0).all() and (heatmaps[:, 4] == 1).all() and (pafs == 0).all()


def scene(rng, people=4):
    """People with keypoints on whole, half and any pixels, some of them outside, (1, P, 18, 3)."""
    keypoints = np.round(rng.uniform(-20, 150, (1, people, 18, 3)) * 2) / 2
    keypoints[0, 0, :, :2] = rng.uniform(0, 120, (18, 2))
    keypoints[..., 2] = rng.integers(0, 3, (1, people, 18))
    keypoints[0, 1:, 3, :2] = keypoints[0, 0, 3, :2] + rng.uniform(-8, 8, 2)
    keypoints[0, 1, 1, :2] = keypoints[0, 1, 8, :2]  # no length
    return torch.tensor(keypoints, dtype=torch.float32)


def expected_heatmap(points):
    """Lightweight OpenPose: σ 7 pixels, cells at their middle 8·m + 3.5, exponents above 4.6052 are nothing."""
    i, j = np.mgrid[: SIZE[0] // 8, : SIZE[1] // 8] * 8 + 3.5
    total = np.zeros(i.shape)
    for x, y in points:
        exponent = ((j - x) ** 2 + (i - y) ** 2) / (2 * 7**2)
        total = np.minimum(total + np.where(exponent > 4.6052, 0, np.exp(-exponent)), 1)
    return total


def expected_field(limbs):
    """Lightweight OpenPose: cells within 1 of the line and in the enlarged box, places divided by 8; y, x."""
    field = np.zeros((2, SIZE[0] // 8, SIZE[1] // 8))
    for a, b in limbs:
        a, b = a / 8, b / 8
        length = np.linalg.norm(b - a)
        if length < 1e-7:
            continue
        unit = (b - a) / length
        left, top = (int(max(v, 0)) for v in np.minimum(a, b) - 1)
        right, bottom = (int(min(v, n)) for v, n in zip(np.maximum(a, b) + 1, (SIZE[1] // 8, SIZE[0] // 8)))
        for i in range(top, bottom):
            for j in range(left, right):
                if abs((j - a[0]) * unit[1] - (i - a[1]) * unit[0]) <= 1:
                    field[:, i, j] = unit[::-1]
    return field


def test_targets_of_lightweight_openpose():
    codec, rng = PafCodec(OPENPOSE18, **LIGHTWEIGHT_OPENPOSE_TARGETS), np.random.default_rng(0)
    overwritten = False
    for _ in range(20):
        people = scene(rng)
        targets, (points,) = codec.encode(people, None, SIZE), people.numpy()
        assert targets["heatmaps"].shape == (1, 19, 12, 16) and targets["pafs"].shape == (1, 38, 12, 16)
        heatmaps = np.stack([expected_heatmap(points[points[:, k, 2] > 0, k, :2]) for k in range(18)])
        heatmaps = np.concatenate([heatmaps, 1 - heatmaps.max(axis=0, keepdims=True)])
        np.testing.assert_allclose(targets["heatmaps"][0], heatmaps, atol=2e-5)
        for k, limb in enumerate(OPENPOSE18.limbs):
            pairs = points[:, limb][(points[:, limb, 2] > 0).all(axis=1), :, :2]
            field = expected_field(pairs.astype(np.float64))
            np.testing.assert_allclose(targets["pafs"][0, 2 * k : 2 * k + 2], field, atol=2e-5)
            overwritten |= bool(
                len(pairs) > 1 and np.abs(expected_field(pairs[::-1].astype(float)) - field).max() > 0.1
            )
    assert overwritten, "no scene in which limbs cross"


def test_sigma_in_pixels_does_not_depend_on_the_size():
    people = torch.tensor([[[31.5, 31.5, 2]] * 4])[None]
    codec = PafCodec(STICK, sigma=7.0, min_value=0.01)
    small, large = (codec.encode(people, None, size)["heatmaps"][0, 0] for size in ((64, 64), (96, 128)))
    torch.testing.assert_close(large[:16, :16], small)
    relative = replace(codec, sigma=None).encode(people, None, (96, 128))["heatmaps"][0, 0]
    assert (relative > 0).sum() < (small > 0).sum()


def test_values_below_the_smallest_are_not_drawn():
    people = torch.tensor([[[31.5, 31.5, 2]] * 4])[None]
    cut, whole = (PafCodec(STICK, sigma=8.0, min_value=v).encode(people, None, SIZE)["heatmaps"] for v in (0.3, 1e-6))
    torch.testing.assert_close(cut, torch.where(whole < 0.3, 0, whole))
    assert 0 < (cut > 0).sum() < (whole > 0).sum() and cut[cut > 0].min() >= 0.3


def test_where_people_meet_heatmaps_add_up_to_one_at_most():
    people = torch.tensor([[[[30.0, 30, 2]] * 4, [[38.0, 30, 2]] * 4]])
    most, total = (
        PafCodec(STICK, sigma=8.0, heatmap_merge=m).encode(people, None, SIZE)["heatmaps"] for m in ("max", "sum")
    )
    alone = sum(PafCodec(STICK, sigma=8.0).encode(people[:, p : p + 1], None, SIZE)["heatmaps"] for p in (0, 1))
    assert alone.max() > 1 and (total >= most).all()
    torch.testing.assert_close(total, alone.clamp(max=1))


def test_the_offset_moves_fields_alone():
    people = torch.tensor([[[20.0, 20, 2], [60, 50, 2], [0, 0, 0], [0, 0, 0]]])[None]
    moved = people + torch.tensor([8.0, 8, 0])
    codec = PafCodec(STICK)
    offset, plain = replace(codec, paf_offset=2.0).encode(people, None, SIZE), codec.encode(moved, None, SIZE)
    torch.testing.assert_close(offset["pafs"], plain["pafs"])
    assert torch.equal(offset["heatmaps"], codec.encode(people, None, SIZE)["heatmaps"])


def test_people_come_back_from_the_targets_of_lightweight_openpose():
    codec = PafCodec(OPENPOSE18, **LIGHTWEIGHT_OPENPOSE_TARGETS)
    rng = np.random.default_rng(0)
    person = np.column_stack([rng.uniform(40, 210, (18, 2)), np.full(18, 2)]).astype(np.float32)
    targets = codec.encode(torch.tensor(person[None, None]), None, (256, 256))
    (found,) = codec.decode({name: targets[name][0].numpy() for name in ("heatmaps", "pafs")}).keypoints
    np.testing.assert_allclose(found[:, :2], person[:, :2], atol=0.2)


@pytest.mark.parametrize("change", [{"sigma": 0.0}, {"min_value": 1.0}, {"min_value": 0.0}, {"heatmap_merge": "add"},
                                    {"paf_shape": "box"}, {"paf_offset": math.nan}, {"paf_shape": "line"}])  # fmt: skip
def test_impossible_targets_are_named(change):
    word = "paf_half_width" if change == {"paf_shape": "box"} else next(iter(change))
    with pytest.raises(ValueError, match=word):
        PafCodec(STICK, **change)
