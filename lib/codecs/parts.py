"""Part detectors with offsets and pairwise predictions (DeeperCut, Insafutdinov et al. 2016, arXiv:1605.03170; ArtTrack,
Insafutdinov et al. 2017, arXiv:1612.01465).

A heatmap is 1 in a disc around each keypoint. There the offsets say where the keypoint lies exactly, and the pairwise maps where
the same person's other keypoints lie; people are then found by cutting the graph of all detections into pieces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import permutations
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lib.codecs import parts_decode, parts_encode
from lib.codecs.codec import map_size
from lib.people import People
from lib.skeleton import Skeleton

MAPS = ("heatmaps", "offsets", "pairwise")


@dataclass(frozen=True)
class PartsCodec(parts_decode.PartsOptions):
    """Turns people into discs, offsets and pairwise displacements, and such maps back into people.

    The defaults of decoding, and all they mean, are in `lib.codecs.parts_decode.PartsOptions`. Channels 2k and 2k + 1 of the
    offsets are x and y of the way from a cell's centre to keypoint k. Pairs (a, b) of keypoints stand in the order of
    `itertools.permutations`: pair p = (K − 1)·a + b − [a < b]; its channels 2p and 2p + 1 are x and y of the way to keypoint b from
    a cell near keypoint a.

    Attributes:
        skeleton: keypoints and their mirror twins.
        stride: pixels of the network's input per cell of the maps.
        radius: of a keypoint's disc, pixels.
        radius_scales: the radius is meant in pixels of the original picture and grows with it (published; its pictures have
            one size), instead of pixels of the network's input.
        offset_stdev: pixels per unit of the offsets.
        origin: pixel of the network's input, on both axes, that the centre of the first cell lies on; None for the project's
            (stride − 1) / 2. The published networks have stride / 2 where pixels are counted from 0, as in COCO; their MPII
            crops are counted from 1, so there it is stride / 2 − 1 for ours.
        pairwise: the maps have pairwise displacements.
        pair_stats: a row of mean x, mean y, standard deviation x and y, in pixels of the network's input, for every pair; they
            are the units of the pairwise maps. None as long as they are not measured (`lib.data.pair_statistics`).
        zoom: pixels of the result per pixel of the network's input; other than 1 for maps that were enlarged to one cell per
            pixel, see `at_pixels`.

    Raises:
        ValueError: an option is out of its range or not one of its names.
    """

    skeleton: Skeleton
    stride: int = 8
    radius: float = 17.0
    radius_scales: bool = False
    offset_stdev: float = 7.2801
    origin: float | None = None
    pairwise: bool = True
    pair_stats: tuple[tuple[float, float, float, float], ...] | None = None
    zoom: float = 1.0
    kinds: ClassVar[tuple[str, ...]] = MAPS
    wants_scales: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        k = self.skeleton.num_keypoints
        if self.pair_stats is not None:
            rows = tuple(tuple(float(number) for number in row) for row in self.pair_stats)
            object.__setattr__(self, "pair_stats", rows)
            if len(rows) != k * (k - 1) or any(len(row) != 4 for row in rows):
                raise ValueError(f"PartsCodec: pair_stats of skeleton {self.skeleton.name!r} are {k * (k - 1)} rows of mean x, "
                                 f"mean y, standard deviation x, y, got {len(rows)}: measure them for these keypoints")  # fmt: skip
            for (a, b), row in zip(permutations(self.skeleton.keypoints, 2), rows):
                if not all(map(math.isfinite, row)) or min(row[2:]) <= 0:
                    raise ValueError(f"PartsCodec: pair_stats from {a} to {b} are {row}; means must be finite and standard "
                                     "deviations above 0")  # fmt: skip
        ranges = {
            "stride": self.stride >= 1,
            "radius": 0 < self.radius < math.inf,
            "offset_stdev": 0 < self.offset_stdev < math.inf,
            "origin": self.origin is None or math.isfinite(self.origin),
            "zoom": 0 < self.zoom < math.inf,
        }
        self.check(ranges)

    @property
    def strides(self) -> dict[str, int]:
        """Pixels of the network's input per cell of every map."""
        return dict.fromkeys(MAPS if self.pairwise else MAPS[:2], self.stride)

    @property
    def own_scale(self) -> tuple[str, ...]:
        """Maps that are not averaged over several scales of a picture: they are measured in pixels of their own scale."""
        return MAPS[1:] if self.pairwise else MAPS[1:2]

    @property
    def step(self) -> float:
        """Pixels of the network's input per cell of the maps that are decoded."""
        return self.stride / self.zoom

    @property
    def start(self) -> float:
        """Pixel of the network's input, on both axes, that the centre of their first cell lies on."""
        return (self.step - 1) / 2 if self.origin is None else self.origin

    def stats(self) -> np.ndarray:
        """(K(K − 1), 4) float64 `pair_stats`.

        Raises:
            ValueError: they have not been measured.
        """
        if self.pair_stats is None:
            raise ValueError("pairwise maps need the codec's pair_stats, which are measured from the training labels: "
                             "`python -m lib pairwise-stats` does that (or switch pairwise off)")  # fmt: skip
        return np.array(self.pair_stats).reshape(-1, 4)

    def encode(self, keypoints: Tensor, mask: Tensor | None, size: tuple[int, int],
               scales: Tensor | None = None) -> dict[str, Tensor]:  # fmt: skip
        """Targets of a batch of images, on the device of `keypoints`.

        Where discs of several people meet, each cell belongs to the nearest keypoint, all of it: what the original leaves of a
        further person's pairs there is not kept. Keypoints outside the picture are drawn as far as their disc reaches into it.

        Args:
            keypoints: (N, P, K, 3) x, y in pixels of the network's input and visibility; padding people have visibility 0.
            mask: (N, h, w), 1 where the loss counts, 0 where not; None for everywhere.
            size: height and width of the network's input in pixels.
            scales: (N,) pixels of the network's input per pixel of the original picture; needed where `radius_scales`.

        Returns:
            float32, h and w = size / stride: "heatmaps" (N, K, h, w), 1 in the discs, else 0; "mask" (N, 1, h, w); "offsets"
            (N, 2K, h, w) in units of `offset_stdev` and "offsets_mask" (N, K, h, w), 1 where they are known and the loss counts;
            with `pairwise` also "pairwise" (N, 2K(K − 1), h, w) in standard deviations from the pair's mean and "pairwise_mask"
            (N, K(K − 1), h, w). What is not known is 0.

        Raises:
            ValueError: shapes do not fit the skeleton, the stride or each other; or scales or pair_stats are needed.
        """
        cells = map_size(keypoints, mask, size, self.skeleton, self.stride)
        people = keypoints.detach().to(torch.float32)
        # what is not labelled has no place, and whatever stands there must not be reckoned with
        people = torch.where(people[..., 2:] > 0, people, 0.0)
        mask = people.new_ones(len(people), 1, *cells) if mask is None else mask[:, None].to(people.device, torch.float32)
        nearest = parts_encode.nearest_people(people, self._radii(people, scales), cells, self.step, self.start)
        y, x = (torch.arange(length, device=people.device) * self.step + self.start for length in cells)
        centres = torch.cartesian_prod(y, x).flip(1).T
        near = (nearest >= 0).to(torch.float32).unflatten(2, cells)
        offsets = parts_encode.draw_offsets(people, nearest, centres).flatten(1, 2) / self.offset_stdev
        targets = {"heatmaps": near, "mask": mask, "offsets": offsets.unflatten(2, cells), "offsets_mask": near * mask}
        if self.pairwise:
            stats = torch.tensor(self.stats(), dtype=torch.float32, device=people.device)
            pairs, known = parts_encode.draw_pairs(people, nearest, centres, stats, mask.flatten(1))
            targets |= {"pairwise": pairs.unflatten(2, cells), "pairwise_mask": known.unflatten(2, cells)}
        return targets

    def decode(self, maps: dict[str, np.ndarray]) -> People:
        """People of one image, best first, in pixels of the network's input; see `lib.codecs.parts_decode.decode_parts`."""
        people = parts_decode.decode_parts(maps, self)
        if self.zoom != 1:
            # pixels of both sizes share their outer edges
            found = people.keypoints[..., 2:] > 0
            people.keypoints[..., :2] = ((people.keypoints[..., :2] + 0.5) * self.zoom - 0.5) * found
        return people

    def at_pixels(self, pixels_per_cell: float) -> PartsCodec:
        """The same codec for maps that were all enlarged to one cell per pixel, of which each old cell now fills so many.

        Offsets and pairwise maps keep their units, pixels of the network's input.
        """
        step = self.step / pixels_per_cell
        # the outer edge of the first cell stays where it was
        origin = None if self.origin is None else self.origin + (step - self.step) / 2
        return replace(self, stride=1, zoom=1 / step, origin=origin, nms_radius=self.nms_radius * pixels_per_cell)

    def _radii(self, people: Tensor, scales: Tensor | None) -> Tensor:
        if not self.radius_scales:
            return people.new_full((len(people),), self.radius)
        if scales is None or scales.shape != (len(people),):
            raise ValueError(f"radius_scales needs the scale of each of the {len(people)} images, "
                             f"got {None if scales is None else tuple(scales.shape)}")  # fmt: skip
        return self.radius * scales.to(people.device, torch.float32)

    def _turned(self, name: str, back: np.ndarray) -> np.ndarray:
        """Ways to the left become ways to the right, too."""
        twins, k = self.skeleton.flip_index, self.skeleton.num_keypoints
        channels = {"heatmaps": k, "offsets": 2 * k, "pairwise": 2 * k * (k - 1)}[name]
        if back.shape[-3] != channels:
            raise ValueError(f"{name} of skeleton {self.skeleton.name!r} have {channels} channels, not {back.shape[-3]}")
        if name == "heatmaps":
            return back[..., twins, :, :]
        # what a cell's centre is off its mirror image: nothing but for an unusual origin
        beside = self.step - 1 - 2 * self.start
        ways = np.stack([back[..., 0::2, :, :], back[..., 1::2, :, :]], axis=-4)
        if name == "offsets":
            unit, mean, order = np.full((len(twins), 2), self.offset_stdev), np.zeros((len(twins), 2)), twins
        else:
            pairs = list(permutations(range(len(twins)), 2))
            order = np.array([pairs.index((twins[a], twins[b])) for a, b in pairs], int)
            mean, unit = np.split(self.stats(), 2, axis=1)
        # from the twin's units to pixels, mirrored, and to our own units
        gain = unit[order] / unit * (-1, 1)
        shift = (mean[order] * (-1, 1) + (beside, 0) - mean) / unit
        gain, shift = (numbers.T[:, :, None, None].astype(back.dtype) for numbers in (gain, shift))
        ways = ways[..., order, :, :] * gain + shift
        return np.moveaxis(ways, -4, -3).reshape(back.shape).astype(back.dtype, copy=False)
