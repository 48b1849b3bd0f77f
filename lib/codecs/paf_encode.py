"""Drawing people into heatmaps and part affinity fields: a compiled loop for the CPU, tensor algebra for other devices.

Both do the same sums and the tests hold them equal. Keypoints arrive here in cells, where the integer is a cell's centre.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from torch import Tensor

# exp(-16) = 1e-7 is nothing beside float32's own rounding: farther away than this many widths a limb draws nothing
REACH = 4.0
MIN_LENGTH, MIN_BOX_LENGTH = 1e-4, 1e-7  # cells; a shorter limb has no direction
SUM, AVERAGE, OVERWRITE = 0, 1, 2
SEGMENT, BOX = 0, 1
# the tensors of one step of the vectorised path hold at most this many numbers
CHUNK = 1 << 25


@numba.njit(cache=True)
def draw_heatmaps(people, variance, radius, min_value, add, heatmaps):
    """Draw exp(−d²/variance) around every keypoint; where people meet, the larger value stays.

    Args:
        people: (N, P, K, 3) float32 x, y in cells and visibility.
        variance: σ² times the Gaussian factor, cells².
        radius: cells drawn on each side of the keypoint's own cell.
        min_value: smaller values are not drawn.
        add: where people meet, draw the sum, at most 1.
        heatmaps: (N, K or more, h, w) float32, the first K are changed in place.
    """
    height, width = heatmaps.shape[2:]
    column = np.empty(2 * radius + 1, np.float32)
    for n in range(people.shape[0]):
        for p in range(people.shape[1]):
            for k in range(people.shape[2]):
                x, y, visible = people[n, p, k]
                if not (visible > 0 and abs(x) < 1e6 and abs(y) < 1e6):
                    continue
                left, top = math.floor(x + 0.5) - radius, math.floor(y + 0.5) - radius
                for c in range(2 * radius + 1):
                    column[c] = math.exp(-((left + c - x) ** 2) / variance)
                for i in range(max(top, 0), min(top + 2 * radius + 1, height)):
                    row = np.float32(math.exp(-((i - y) ** 2) / variance))
                    for j in range(max(left, 0), min(left + 2 * radius + 1, width)):
                        value = row * column[j - left]
                        if value < min_value:
                            continue
                        before = heatmaps[n, k, i, j]
                        heatmaps[n, k, i, j] = min(before + value, np.float32(1)) if add else max(before, value)


@numba.njit(cache=True)
def draw_pafs(people, limbs, variance, half_width, shape, merge, pafs):
    """Draw the unit vector from a to b along every limb with two labelled ends.

    Args:
        people: (N, P, K, 3) float32 x, y in cells and visibility.
        limbs: (L, 2) int64 keypoint indices.
        variance: σ² times the Gaussian factor, cells²; the weight falls as exp(−d²/variance) with the distance to the limb.
        half_width: draw weight 1 up to this distance beside the limb instead, cells; negative for the soft weight.
        shape: SEGMENT for cells beside the limb; with a half width also BOX, for those in the box around it.
        merge: SUM, AVERAGE or OVERWRITE where limbs of several people meet.
        pafs: (N, 2L, h, w) float32 zeros, y component first, changed in place.
    """
    total = np.zeros(pafs.shape[2:], np.float32)
    largest = np.zeros(pafs.shape[2:], np.float32)
    for n in range(people.shape[0]):
        for limb in range(limbs.shape[0]):
            field_y, field_x = pafs[n, 2 * limb], pafs[n, 2 * limb + 1]
            if merge != SUM:
                total[:] = 0
                largest[:] = 0
            for p in range(people.shape[1]):
                ax, ay, seen_a = people[n, p, limbs[limb, 0]]
                bx, by, seen_b = people[n, p, limbs[limb, 1]]
                if seen_a > 0 and seen_b > 0 and max(abs(ax), abs(ay), abs(bx), abs(by)) < 1e6:
                    _draw_limb(ax, ay, bx, by, variance, half_width, shape, merge, field_y, field_x, total, largest)
            if merge == AVERAGE:
                for i in range(total.shape[0]):
                    for j in range(total.shape[1]):
                        if total[i, j] > 0:
                            field_y[i, j] *= largest[i, j] / total[i, j]
                            field_x[i, j] *= largest[i, j] / total[i, j]


@numba.njit(cache=True)
def _draw_limb(ax, ay, bx, by, variance, half_width, shape, merge, field_y, field_x, total, largest):
    """Draw one limb of one person; `total` and `largest` are the sum and the maximum of the weights in every cell."""
    reach = half_width if half_width >= 0 else REACH * math.sqrt(variance)
    length = math.sqrt((bx - ax) ** 2 + (by - ay) ** 2) + np.float32(1e-5 if shape == SEGMENT else 0)
    if length < (MIN_LENGTH if shape == SEGMENT else MIN_BOX_LENGTH):
        return
    ux, uy = (bx - ax) / length, (by - ay) / length
    top, bottom = _covered(min(ay, by) - reach, max(ay, by) + reach, field_y.shape[0], shape)
    left, right = _covered(min(ax, bx) - reach, max(ax, bx) + reach, field_y.shape[1], shape)
    for i in range(top, bottom):
        first, last = left, right
        if abs(uy) > 1e-3:  # only the stretch of this row that lies beside the limb, and a hair more
            middle, side = ax + (i - ay) * ux / uy, reach / abs(uy) + 1e-3
            first, last = max(left, math.ceil(middle - side)), min(right, math.floor(middle + side) + 1)
        for j in range(first, last):
            along = (j - ax) * ux + (i - ay) * uy
            across = (i - ay) * ux - (j - ax) * uy
            beyond = along - length if along > length else min(along, np.float32(0))
            distance2 = across * across + beyond * beyond
            if half_width >= 0:
                weight = np.float32(1 if (shape == BOX or beyond == 0) and abs(across) <= half_width else 0)
            else:
                weight = np.float32(math.exp(-distance2 / variance) if distance2 <= reach * reach else 0)
            if weight == 0:
                continue
            if merge != OVERWRITE:
                total[i, j] += weight
                largest[i, j] = max(largest[i, j], weight)
                field_y[i, j] += weight * uy
                field_x[i, j] += weight * ux
            elif weight >= largest[i, j]:
                largest[i, j] = weight
                field_y[i, j], field_x[i, j] = weight * uy, weight * ux


@numba.njit(cache=True)
def _covered(low, high, cells, shape):
    """The cells between two places on one axis, as a range; those of a box are counted as the original truncates them."""
    if shape == BOX:
        return int(max(low, 0)), int(min(high, cells))
    return max(math.ceil(low), 0), min(math.floor(high) + 1, cells)


def heatmaps_as_tensors(
    people: Tensor, variance: float, radius: int, min_value: float, add: bool, size: tuple[int, int]
) -> Tensor:
    """`draw_heatmaps` in tensor algebra, on the device of `people`; returns (N, K, h, w)."""
    n, p, k, _ = people.shape
    heatmaps = people.new_zeros(n, k, *size)
    visible = (people[..., 2] > 0) & (people[..., :2].abs() < 1e6).all(-1)
    profiles = []
    for axis, cells in ((1, size[0]), (0, size[1])):
        at = torch.where(visible, people[..., axis], 0.0)[..., None]
        cell = torch.arange(cells, device=people.device, dtype=people.dtype)
        inside = (cell - (at + 0.5).floor()).abs() <= radius
        profiles.append(torch.where(inside & visible[..., None], torch.exp(-((cell - at) ** 2) / variance), 0.0))
    rows, columns = profiles
    step = max(1, CHUNK // max(1, n * p * size[0] * size[1]))
    for start in range(0, k if p else 0, step):
        part = slice(start, start + step)
        values = rows[:, :, part, :, None] * columns[:, :, part, None, :]
        if min_value > 0:
            values = torch.where(values < min_value, 0.0, values)
        heatmaps[:, part] = values.sum(dim=1).clamp(max=1) if add else values.amax(dim=1)
    return heatmaps


def pafs_as_tensors(
    people: Tensor, limbs: Tensor, variance: float, half_width: float, shape: int, merge: int, size: tuple[int, int]
) -> Tensor:
    """`draw_pafs` in tensor algebra, on the device of `people`; returns (N, 2L, h, w)."""
    n, p, _, _ = people.shape
    pafs = people.new_zeros(n, limbs.shape[0], 2, *size)
    step = max(1, CHUNK // max(1, n * p * size[0] * size[1]))
    for start in range(0, limbs.shape[0] if p else 0, step):
        part = slice(start, start + step)
        a, b = people[:, :, limbs[part, 0]], people[:, :, limbs[part, 1]]
        weight, unit = _weights(a, b, variance, half_width, shape, size)
        pafs[:, part] = _merged(weight, unit, merge)
    return pafs.flatten(1, 2)


def _weights(a: Tensor, b: Tensor, variance: float, half_width: float, shape: int, size: tuple[int, int]):
    """Of limbs from a to b, both (N, P, L, 3): weights (N, P, L, h, w), and unit vectors (N, P, L, 2, 1, 1), x first."""
    drawn = (a[..., 2] > 0) & (b[..., 2] > 0) & (a[..., :2].abs() < 1e6).all(-1) & (b[..., :2].abs() < 1e6).all(-1)
    a, b = (torch.where(drawn[..., None], end[..., :2], 0.0) for end in (a, b))
    length = (b - a).norm(dim=-1, keepdim=True)
    if shape == BOX:
        drawn &= length[..., 0] >= MIN_BOX_LENGTH
        length = length.clamp(min=MIN_BOX_LENGTH)
    else:
        length = length + 1e-5
        drawn &= length[..., 0] >= MIN_LENGTH
    unit = ((b - a) / length)[..., None, None]
    ux, uy = unit.unbind(-3)
    j, i = torch.arange(size[1], device=a.device), torch.arange(size[0], device=a.device)[:, None]
    dx, dy = j - a[..., 0, None, None], i - a[..., 1, None, None]
    along, across = dx * ux + dy * uy, dy * ux - dx * uy
    beyond = along.clamp(max=0) + (along - length[..., None]).clamp(min=0)
    if shape == BOX:
        low, high = torch.minimum(a, b) - half_width, torch.maximum(a, b) + half_width
        (left, top), (right, bottom) = (ends.trunc()[..., None, None].unbind(-3) for ends in (low.clamp(min=0), high))
        inside = (j >= left) & (j < right) & (i >= top) & (i < bottom)
        weight = (inside & (across.abs() <= half_width)).to(a.dtype)
    elif half_width >= 0:
        weight = ((beyond == 0) & (across.abs() <= half_width)).to(a.dtype)
    else:
        distance2 = across**2 + beyond**2
        weight = torch.where(distance2 <= REACH**2 * variance, torch.exp(-distance2 / variance), 0.0)
    return weight * drawn[..., None, None], unit


def _merged(weight: Tensor, unit: Tensor, merge: int) -> Tensor:
    """The fields of `_weights`, merged over people: (N, L, 2, h, w), y first."""
    if merge == OVERWRITE:
        # of equal weights the last person's counts, as if people were drawn one after the other
        strongest = weight.shape[1] - 1 - weight.flip(1).argmax(dim=1, keepdim=True)
        winner = torch.zeros_like(weight).scatter_(1, strongest, 1.0)
        weight = weight * winner
    ux, uy = unit.unbind(-3)
    fields = torch.stack([(weight * uy).sum(1), (weight * ux).sum(1)], dim=2)
    if merge == AVERAGE:
        total = weight.sum(1)
        fields = fields * torch.where(total > 0, weight.amax(1) / total, 0.0)[:, :, None]
    return fields
