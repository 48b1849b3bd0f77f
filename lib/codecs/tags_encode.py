"""Drawing people into heatmaps for associative embedding, on the device of the batch, without a loop over people.

A keypoint is a patch of a few cells, so only these are computed: patches of everybody are scattered into the maps at once,
and the largest value of a cell stays.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def draw_heatmaps(people: Tensor, sigmas: Tensor, largest: float, size: tuple[int, int]) -> Tensor:
    """exp(−d²/2σ²) around every keypoint whose own cell is in the map, as far as 3σ + 1 cells along each axis.

    Args:
        people: (N, P, K, 3) float32 x, y in cells and visibility.
        sigmas: (N, P) σ of each person in cells.
        largest: no σ is larger.
        size: height and width of the maps, cells.

    Returns:
        (N, K, *size) float32 in 0..1, the maximum over people.
    """
    n, p, k = people.shape[:3]
    heatmaps = people.new_zeros(n, k, size[0] * size[1])
    if not p:
        return heatmaps.view(n, k, *size)
    reach = _reach(largest)
    steps = torch.arange(-reach, reach + 1, device=people.device)
    drawn = inside(people, size)
    near = steps.abs() <= _reach(sigmas)[:, :, None, None]
    falls, places = [], []
    for axis, length in ((1, size[0]), (0, size[1])):
        at = torch.where(drawn, people[..., axis], 0.0)[..., None]
        place = nearest_cell(at) + steps
        fall = torch.exp(-((place - at) ** 2) / (2 * sigmas**2)[:, :, None, None])
        falls.append(torch.where(drawn[..., None] & near & (place >= 0) & (place < length), fall, 0.0))
        places.append(place.clamp(0, length - 1))
    values = falls[0][..., :, None] * falls[1][..., None, :]
    cells = places[0][..., :, None] * size[1] + places[1][..., None, :]
    # (N, P, K, rows, columns) → one row of cells for each map; those outside repeat a cell of the border with value 0
    values, cells = (patch.transpose(1, 2).flatten(2) for patch in (values, cells))
    return heatmaps.scatter_reduce_(2, cells, values, "amax").view(n, k, *size)


def flat_cells(people: Tensor, size: tuple[int, int], most: int) -> Tensor:
    """Where each person's tags are read.

    Args:
        people: (N, P, K, 3) x, y in cells and visibility.
        size: height and width of the maps, cells.
        most: people are kept, the first of those with a keypoint in the map.

    Returns:
        (N, min(P, most), K) int64: y·w + x of the cell of every labelled keypoint in the map, −1 elsewhere. People without one
        stand at the end.
    """
    drawn = inside(people, size)
    x, y = nearest_cell(torch.where(drawn[..., None], people[..., :2], 0.0)).unbind(-1)
    cells = torch.where(drawn, y * size[1] + x, -1)
    order = (~drawn.any(dim=2)).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return cells.gather(1, order[..., None].expand(-1, -1, cells.shape[2]))


def inside(people: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, P, K) bool: labelled, and its own cell is one of the map's."""
    x, y, visible = people.unbind(-1)
    return (visible > 0) & (x >= -0.5) & (y >= -0.5) & (x < size[1] - 0.5) & (y < size[0] - 0.5)


def nearest_cell(places: Tensor) -> Tensor:
    """Cells, any shape → int64."""
    return (places + 0.5).floor().long()


def _reach(sigma):
    """Cells drawn on each side of a keypoint's own."""
    return 3 * sigma.ceil() + 1 if isinstance(sigma, Tensor) else 3 * math.ceil(sigma) + 1
