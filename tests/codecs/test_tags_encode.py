"""Targets of associative embedding: by their definition, one cell after the other, and at every border."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.codecs.tags import TagsCodec
from lib.skeleton import COCO17, Skeleton
from tests.codecs.codec_contract import STICK

SIZE = (96, 128)
DOTS = Skeleton("dots", ("a", "b"), ((0, 1),), (), (0.05, 0.05))


def some_people(seed, n=3, p=4, k=4, size=SIZE):
    """(N, P, K, 3): most inside, some beyond a border, some not labelled, some people not at all."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(-12, 12 + np.array(size[::-1]), (n, p, k, 2))
    people = np.concatenate([places, rng.integers(0, 3, (n, p, k, 1))], axis=3)
    people[rng.random((n, p)) < 0.2] = 0
    return torch.tensor(people.astype(np.float32))


def by_definition(people, sigmas, size, place):
    """Heatmaps (K, *size) of one picture's people (P, K, 3), in float64; `place` says where in the map x or y lies."""
    heatmaps = np.zeros((people.shape[1], *size))
    for person, sigma in zip(people, sigmas):
        for k, (x, y, v) in enumerate(person.tolist()):
            x, y = place(x), place(y)
            column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
            if v > 0 and 0 <= column < size[1] and 0 <= row < size[0]:
                reach = 3 * int(np.ceil(sigma)) + 1
                for i in range(max(0, row - reach), min(size[0], row + reach + 1)):
                    for j in range(max(0, column - reach), min(size[1], column + reach + 1)):
                        value = np.exp(-((i - y) ** 2 + (j - x) ** 2) / (2 * sigma**2))
                        heatmaps[k, i, j] = max(heatmaps[k, i, j], value)
    return heatmaps


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("scale_aware", [False, True])
def test_heatmaps_by_definition(truncate, scale_aware):
    people = some_people(0)
    codec = TagsCodec(STICK, truncate=truncate, scale_aware=scale_aware, base_size=60, sigma_range=(0.8, 3.1))
    targets = codec.encode(people, None, SIZE)
    for name, stride in (("heatmaps", 4), ("heatmaps_fine", 2)):
        place = (lambda x, s=stride: int(x / s)) if truncate else lambda x, s=stride: (x - (s - 1) / 2) / s
        for n, picture in enumerate(people.numpy()):
            sigmas = [2.0] * len(picture)
            if scale_aware:
                labelled = [person[person[:, 2] > 0, :2] for person in picture]
                sides = [np.ptp(xy, axis=0).max() if len(xy) else 0 for xy in labelled]
                sigmas = [min(max(2 * side / 60, 0.8), 3.1) for side in sides]
            expected = by_definition(picture, sigmas, (SIZE[0] // stride, SIZE[1] // stride), place)
            np.testing.assert_allclose(targets[name][n].numpy(), expected, atol=1e-6)


def test_a_patch_is_fifteen_cells_wide_and_its_peak_one():
    person = torch.tensor([[[[4 * 12 + 1.5, 4 * 10 + 1.5, 2], [0, 0, 0]]]])
    heatmap = TagsCodec(DOTS).encode(person, None, SIZE)["heatmaps"][0, 0]
    assert heatmap[10, 12] == 1
    rows, columns = heatmap.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 17, 5, 19)


def test_cells_are_where_the_heatmap_is_highest():
    codec = TagsCodec(COCO17, tags_at_half=True)
    people = some_people(1, k=17, p=1)
    targets = codec.encode(people, None, SIZE)
    for kind in ("", "_fine"):
        cells, heatmaps = targets[f"cells{kind}"], targets[f"heatmaps{kind}"].flatten(2)
        assert cells.dtype == torch.int64 and cells.shape == (3, 1, 17)
        found = cells[:, 0] >= 0
        assert 0 < found.sum() < found.numel()
        assert torch.equal(found, heatmaps.amax(dim=2) > 0)
        assert torch.equal(cells[:, 0][found], heatmaps.argmax(dim=2)[found])
    assert "cells_fine" not in TagsCodec(COCO17).encode(people, None, SIZE)


def test_people_beyond_the_most_are_drawn_but_have_no_tags():
    people = torch.zeros(1, 40, 2, 3)
    people[0, 5:40, 0] = torch.tensor([[4 * j + 1.5, 41.5, 1] for j in range(35)])[:, :3]
    people[0, 7, 0, 0] = -50  # beyond the border: not one of them
    targets = TagsCodec(DOTS, max_people=30).encode(people, None, (96, 160))
    there = [j for j in range(35) if j != 2]
    assert targets["cells"].shape == (1, 30, 2)
    assert targets["cells"][0, :, 0].tolist() == [10 * 40 + j for j in there[:30]]
    assert (targets["cells"][0, :, 1] == -1).all()
    assert (targets["heatmaps"][0, 0, 10, there] == 1).all()
    few = TagsCodec(DOTS).encode(people[:, :8], None, (96, 160))["cells"]
    assert few.shape == (1, 8, 2) and few[0, :, 0].tolist() == [400, 401] + [-1] * 6


def test_borders_belong_to_the_picture_and_nothing_beyond():
    places = [
        (-0.5, 0, True),
        (-0.51, 0, False),
        (127.49, 0, True),
        (127.5, 0, False),
        (5, 95.4, True),
        (5, 95.6, False),
    ]
    people = torch.tensor([[[x, y, 1], [0, 0, 0]] for x, y, _ in places])[:, None]
    targets = TagsCodec(DOTS, tags_at_half=True).encode(people, None, SIZE)
    for name in ("cells", "cells_fine"):
        assert (targets[name][:, 0, 0] >= 0).tolist() == [inside for *_, inside in places]
    published = TagsCodec(DOTS, truncate=True).encode(people, None, SIZE)["cells"][:, 0, 0]
    assert (published >= 0).tolist() == [True, True, True, True, True, True]


def test_places_that_are_no_numbers_draw_nothing():
    people = torch.full((1, 3, 2, 3), 1.0)
    people[0, :, 0, 0] = torch.tensor([torch.nan, torch.inf, -1e30])
    people[0, :, 1, 2] = 0
    targets = TagsCodec(DOTS, scale_aware=True).encode(people, None, SIZE)
    assert (targets["heatmaps"] == 0).all() and (targets["heatmaps_fine"] == 0).all() and (targets["cells"] == -1).all()


def test_the_mask_is_repeated():
    mask = torch.randint(0, 2, (2, 24, 32), dtype=torch.uint8)
    targets = TagsCodec(DOTS).encode(torch.zeros(2, 0, 2, 3), mask, SIZE)
    assert targets["mask_fine"].shape == (2, 1, 48, 64) and targets["cells"].shape == (2, 0, 2)
    for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert torch.equal(targets["mask_fine"][:, 0, shift[0] :: 2, shift[1] :: 2], mask.float())
