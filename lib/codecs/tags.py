"""Heatmaps at two resolutions and a tag for every person (associative embedding, Newell et al. 2017, arXiv:1611.05424;
HigherHRNet, Cheng et al. 2020, arXiv:1908.10357).

A keypoint's tag is one more map; keypoints of one person are to have equal tags there, those of others different ones. What
the tags are is left to the network: its targets are only the cells at which each person's are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lib.codecs import tags_decode, tags_encode
from lib.codecs.codec import map_size
from lib.people import People, pixels_to_cells
from lib.skeleton import Skeleton

HEATMAPS, TAGS = ("heatmaps", "heatmaps_fine"), ("tags", "tags_fine")


@dataclass(frozen=True)
class TagsCodec(tags_decode.TagsOptions):
    """Turns people into heatmaps and the cells of their tags, and heatmaps and tags back into people.

    The defaults of encoding are HigherHRNet's, but for `truncate`; those of decoding, and all they mean, are in
    `lib.codecs.tags_decode.TagsOptions`.

    Attributes:
        skeleton: keypoints and their mirror twins.
        stride: pixels of the network's input per cell of "heatmaps" and "tags".
        fine_factor: cells of "heatmaps_fine" and "tags_fine" along a side of such a cell.
        sigma: σ of a keypoint's heatmap exp(−d²/2σ²) in cells, the same number at both resolutions, so that the fine one is
            narrower in the picture.
        scale_aware: σ grows with the person instead: `sigma` for one of `base_size`.
        base_size: larger side of the box around such a person's labelled keypoints, in pixels of the network's input.
        sigma_range: least and largest σ of a person, cells. (The original has the switch, but fails when it is on.)
        truncate: draw a keypoint at the middle of the cell ⌊coordinate / stride⌋, as published, instead of where it lies
            between the cells. What is read from such maps lies half a pixel too far left and up on average, see `shift`.
        shift: pixels of the network's input by which decoding moves what it read right and down; None for half a pixel after
            `truncate`, but not with `adjust="quarter"`, which has it already, and else for none.
        tags_at_half: the network has "tags_fine", too.

    Raises:
        ValueError: an option is out of its range or not one of its names.
    """

    skeleton: Skeleton
    stride: int = 4
    fine_factor: int = 2
    sigma: float = 2.0
    scale_aware: bool = False
    base_size: float = 256.0
    sigma_range: tuple[float, float] = (1.0, 4.0)
    truncate: bool = False
    shift: float | None = None
    tags_at_half: bool = False
    kinds: ClassVar[tuple[str, ...]] = HEATMAPS + TAGS

    def __post_init__(self):
        super().__post_init__()
        # a list from JSON or YAML becomes a tuple, so that equal codecs compare equal
        low, high = (float(sigma) for sigma in self.sigma_range)
        object.__setattr__(self, "sigma_range", (low, high))
        ranges = {
            "stride": self.stride >= 1,
            "fine_factor": self.fine_factor >= 1 and self.stride % self.fine_factor == 0,
            "sigma": self.sigma > 0,
            "base_size": self.base_size > 0,
            "sigma_range": 0 < low <= high,
            "shift": self.shift is None or math.isfinite(self.shift),
        }
        self.check(ranges)

    @property
    def strides(self) -> dict[str, int]:
        """Pixels of the network's input per cell of every map."""
        fine = self.stride // self.fine_factor
        strides = {"heatmaps": self.stride, "tags": self.stride, "heatmaps_fine": fine}
        return strides | {"tags_fine": fine} if self.tags_at_half else strides

    @property
    def own_scale(self) -> tuple[str, ...]:
        """Maps that are not averaged over several scales of a picture: each scale's tags are a language of its own."""
        return TAGS if self.tags_at_half else TAGS[:1]

    def encode(self, keypoints: Tensor, mask: Tensor | None, size: tuple[int, int]) -> dict[str, Tensor]:
        """Targets of a batch of images, on the device of `keypoints`.

        Keypoints outside the picture are not drawn. (The original truncates towards 0 and so draws what is less than a cell
        beyond the left and upper border; so does `truncate`.)

        Args:
            keypoints: (N, P, K, 3) x, y in pixels of the network's input and visibility; padding people have visibility 0.
            mask: (N, h, w), 1 where the loss counts, 0 where not; None for everywhere.
            size: height and width of the network's input in pixels.

        Returns:
            "heatmaps" (N, K, h, w) and "heatmaps_fine" (N, K, f·h, f·w) in 0..1, "mask" (N, 1, h, w) and "mask_fine"
            (N, 1, f·h, f·w), float32; "cells" (N, min(P, max_people), K) int64, y·w + x of every keypoint whose tag is read,
            −1 for the others (people beyond `max_people` are left out), and with `tags_at_half` "cells_fine"; h, w = size /
            stride, f = fine_factor.

        Raises:
            ValueError: shapes do not fit the skeleton, the stride or each other.
        """
        cells = map_size(keypoints, mask, size, self.skeleton, self.stride)
        people = keypoints.detach().to(torch.float32)
        sigmas, largest = self._sigmas(people)
        if mask is None:
            mask = people.new_ones(len(people), *cells)
        targets = {"mask": mask[:, None].to(people.device, torch.float32)}
        targets["mask_fine"] = targets["mask"].repeat_interleave(factor := self.fine_factor, 2).repeat_interleave(factor, 3)
        for suffix, factor in (("", 1), ("_fine", self.fine_factor)):
            placed, fine = self._placed(people, self.stride // factor), (cells[0] * factor, cells[1] * factor)
            targets[f"heatmaps{suffix}"] = tags_encode.draw_heatmaps(placed, sigmas, largest, fine)
            if not suffix or self.tags_at_half:
                targets[f"cells{suffix}"] = tags_encode.flat_cells(placed, fine, self.max_people)
        return targets

    def with_mirrored(self, maps: Mapping[str, np.ndarray], back: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Maps (…, C, h, w) of images joined with those of their mirror images, which `flip` has turned back.

        Heatmaps are averaged. Tags of the mirror image need not resemble the image's own: they become second numbers, channels
        behind the first.
        """
        return {
            name: np.concatenate([values, back[name]], axis=-3) if name in TAGS else (values + back[name]) / 2
            for name, values in maps.items()
        }

    def decode(self, maps: dict[str, np.ndarray]) -> People:
        """People of one image, best first, in pixels of the network's input; see `lib.codecs.tags_decode.decode_tags`."""
        people = tags_decode.decode_tags(maps, self)
        people.keypoints[..., :2] += self._shift * (people.keypoints[..., 2:] > 0)
        return people

    def at_pixels(self, pixels_per_cell: float) -> TagsCodec:
        """The same codec for maps that were all enlarged to one cell per pixel, of which each old cell now fills so many."""
        shift = self._shift * pixels_per_cell / self.stride
        return replace(self, stride=1, fine_factor=1, upsample=1, sigma=self.sigma * pixels_per_cell, shift=shift)

    def _turned(self, name: str, back: np.ndarray) -> np.ndarray:
        """Of tags with several numbers there are a multiple of K channels, or any number where all keypoints share a map."""
        if name in TAGS and not self.tag_per_keypoint:
            return back
        k, channels = self.skeleton.num_keypoints, back.shape[-3]
        if channels % k:
            raise ValueError(f"{name} of skeleton {self.skeleton.name!r} have {k} channels or a multiple, not {channels}")
        return back[..., [start + twin for start in range(0, channels, k) for twin in self.skeleton.flip_index], :, :]

    @property
    def _shift(self) -> float:
        if self.shift is not None:
            return self.shift
        return 0.5 if self.truncate and self.adjust != "quarter" else 0.0

    def _placed(self, people: Tensor, stride: int) -> Tensor:
        """People in cells, where the integer is a cell's centre."""
        xy = (people[..., :2] / stride).trunc() if self.truncate else pixels_to_cells(people[..., :2], stride)
        return torch.cat([xy, people[..., 2:]], dim=-1)

    def _sigmas(self, people: Tensor) -> tuple[Tensor, float]:
        """(N, P) σ of every person in cells, and a number that none exceeds."""
        if not self.scale_aware:
            return people.new_full(people.shape[:2], self.sigma), self.sigma
        low, high = self.sigma_range
        if not people.shape[1]:
            return people.new_zeros(people.shape[:2]), high
        labelled = people[..., 2:] > 0
        least, most = (torch.where(labelled, people[..., :2], end) for end in (torch.inf, -torch.inf))
        sides = (most.amax(dim=2) - least.amin(dim=2)).amax(dim=-1)
        return (self.sigma / self.base_size * sides).clamp(low, high), high
