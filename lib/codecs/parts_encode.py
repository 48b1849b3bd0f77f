"""Drawing people into the targets of part detectors (DeeperCut, arXiv:1605.03170), on the device of the batch, without a loop.

A keypoint is a disc of a few cells, so only the cells near keypoints are computed: first who is the nearest person in each,
then what that person says there.
"""

from __future__ import annotations

from itertools import permutations

import torch
from torch import Tensor


def nearest_people(people: Tensor, radii: Tensor, size: tuple[int, int], step: float, start: float) -> Tensor:
    """Whose keypoint is the nearest to each cell's centre and not further than the radius; of equally near ones the first's.

    Args:
        people: (N, P, K, 3) float32 x, y in pixels and visibility; zeros where it is not labelled.
        radii: (N,) of the images, pixels.
        size: height and width of the maps, cells.
        step, start: pixels per cell, and of the centre of the first one.

    Returns:
        (N, K, h·w) int64 index of the person, −1 where nobody's is near.
    """
    n, p, k = people.shape[:3]
    none = torch.full((n, k, size[0] * size[1]), -1, device=people.device)
    if not p or not n:
        return none
    reach = int(float(radii.max()) / step + 0.5)
    steps = torch.arange(-reach, reach + 1, device=people.device)
    labelled = people[..., 2] > 0
    away, places = [], []
    for axis, length in ((1, size[0]), (0, size[1])):
        at = people[..., axis, None]
        place = ((at - start) / step + 0.5).floor() + steps
        # a cell that is not there is infinitely far
        away.append(torch.where((place >= 0) & (place < length), at - (place * step + start), torch.inf).square())
        places.append(place.clamp(0, length - 1).long())
    distances = away[0][..., :, None] + away[1][..., None, :]
    near = (distances <= radii.square()[:, None, None, None, None]) & labelled[..., None, None]
    cells = places[0][..., :, None] * size[1] + places[1][..., None, :]
    who = torch.arange(p, device=people.device)[:, None, None, None].expand(p, *cells.shape[2:])[None].expand_as(cells)
    # (N, P, K, rows, columns) → one row of cells for each map
    distances, near, cells, who = (patch.transpose(1, 2).flatten(2) for patch in (distances, near, cells, who))
    distances = torch.where(near, distances, torch.inf)
    least = distances.new_full(none.shape, torch.inf).scatter_reduce_(2, cells, distances, "amin")
    first = near & (distances == least.gather(2, cells))
    winner = torch.full_like(none, p).scatter_reduce_(2, cells, torch.where(first, who, p), "amin")
    return torch.where(winner < p, winner, none)


def draw_offsets(people: Tensor, nearest: Tensor, centres: Tensor) -> Tensor:
    """Way from each cell's centre to the keypoint of the nearest person.

    Args:
        people: (N, P, K, 3) x, y in pixels and visibility.
        nearest: of `nearest_people`.
        centres: (2, h·w) x, y of the cells' centres, pixels.

    Returns:
        (N, K, 2, h·w) x, y in pixels, 0 where nobody is near.
    """
    if not people.shape[1]:
        return people.new_zeros(*nearest.shape[:2], 2, nearest.shape[2])
    places = people[..., :2].permute(0, 2, 3, 1)
    who = nearest.clamp(min=0)[:, :, None].expand(-1, -1, 2, -1)
    return torch.where(nearest[:, :, None] >= 0, places.gather(3, who) - centres, 0.0)


def draw_pairs(people: Tensor, nearest: Tensor, centres: Tensor, stats: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Ways from each cell near a keypoint to the same person's other keypoints, in standard deviations from their means.

    Args:
        people, nearest, centres: as for `draw_offsets`.
        stats: (K(K − 1), 4) mean x, mean y, standard deviation x, y of every pair in pixels.
        mask: (N, h·w), 1 where the loss counts.

    Returns:
        (N, 2·K(K − 1), h·w) x, y of every pair and (N, K(K − 1), h·w) the mask where they are known, 0 elsewhere: the cell is near
        the first keypoint of the pair, and that person's second one is labelled. Both are channels last in memory.
    """
    (n, k, cells), others = nearest.shape, max(nearest.shape[1] - 1, 0)
    targets, known = people.new_zeros(n, cells, k, 2 * others), people.new_zeros(n, cells, k, others)
    image, part, cell = (nearest >= 0).nonzero(as_tuple=True)
    if others and len(image):
        ends = torch.tensor([b for _, b in permutations(range(k), 2)], device=people.device)
        mean, deviation = stats.split(2, dim=1)
        # for every person and pair, as seen from pixel 0, 0: what remains for each cell is one row of this, moved
        ways = ((people[:, :, ends, :2] - mean) / deviation).view(-1, others, 2)
        labelled = (people[:, :, ends, 2] > 0).to(people.dtype).view(-1, others)
        row = (image * people.shape[1] + nearest[image, part, cell]) * k + part
        seen, far = labelled[row], deviation.reciprocal().view(k, others, 2)[part]
        here = torch.addcmul(ways[row], centres.T[cell][:, None], far, value=-1) * seen[..., None]
        place = (image * cells + cell) * k + part
        targets.view(-1, 2 * others).index_copy_(0, place, here.flatten(1))
        known.view(-1, others).index_copy_(0, place, seen * mask[image, cell][:, None])
    return targets.flatten(2).transpose(1, 2), known.flatten(2).transpose(1, 2)
