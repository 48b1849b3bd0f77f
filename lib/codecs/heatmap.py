"""One heatmap for every keypoint of one person, read from the crop of this person (SimpleBaseline, Xiao et al. 2018,
arXiv:1804.06208), with the finer ways of drawing and reading that came later: DARK (Zhang et al. 2020, arXiv:1910.06278) and
UDP (Huang et al. 2020, arXiv:1911.07524).

Who is who is settled before: a detector says where the people are, and every crop shows one of them in its middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lib.codecs.codec import Codec, map_size
from lib.codecs.heatmap_decode import REFINE, highest, refined
from lib.people import People, cells_to_pixels, pixels_to_cells
from lib.skeleton import Skeleton

CELLS = ("centres", "first", "ends")
RADIUS = 3  # of a keypoint's patch, in σ


@dataclass(frozen=True)
class HeatmapCodec(Codec):
    """Turns the person of a crop into heatmaps, and heatmaps back into this person.

    Attributes:
        skeleton: keypoints and their mirror twins.
        stride: pixels of the network's input per cell.
        sigma: σ of a keypoint's heatmap exp(−d²/2σ²), cells.
        unbiased: draw a keypoint where it lies between the cells; False draws it at the nearest cell and cuts it off at 3σ, as
            published first.
        cells: where cell j lies in the network's input of W pixels, whose map has w cells. "centres": at s·j + (s−1)/2, the
            middle of the pixels it stands for, as everywhere in this project. "first": at s·j, as published first; a mirrored map
            then is a cell off, and `flip` moves it right. "ends": at j·(W−1)/(w−1), first and last cell on first and last pixel,
            as in UDP.
        refine: how the highest cell becomes a place between the cells, see `lib.codecs.heatmap_decode`.
        blur: side of the kernel that "dark" and "udp" smooth the maps with, cells, odd; 11 belongs to σ = 2, 17 to σ = 3.
        score_threshold: a keypoint's score must exceed it to count in the person's.

    Raises:
        ValueError: an option is out of its range or not one of its names.
    """

    skeleton: Skeleton
    stride: int = 4
    sigma: float = 2.0
    unbiased: bool = True
    cells: str = "centres"
    refine: str = "dark"
    blur: int = 11
    score_threshold: float = 0.2
    kinds: ClassVar[tuple[str, ...]] = ("heatmaps",)
    per_person: ClassVar[bool] = True

    def __post_init__(self):
        ranges = {
            "stride": self.stride >= 1,
            "sigma": self.sigma > 0,
            "blur": self.blur >= 1 and self.blur % 2 == 1,
            "score_threshold": 0 <= self.score_threshold < 1,
        }
        self.check(ranges, cells=CELLS, refine=REFINE)

    @property
    def strides(self) -> dict[str, int]:
        """Pixels of the network's input per cell of every map."""
        return {"heatmaps": self.stride}

    def encode(self, keypoints: Tensor, mask: Tensor | None, size: tuple[int, int]) -> dict[str, Tensor]:
        """Targets of a batch of crops, on the device of `keypoints`.

        A keypoint outside the crop is drawn as far as its heatmap reaches into it.

        Args:
            keypoints: (N, P, K, 3) x, y in pixels of the network's input and visibility, P at most 1.
            mask: (N, h, w), 1 where the loss counts, 0 where not; None for everywhere.
            size: height and width of the network's input in pixels.

        Returns:
            float32 "heatmaps" (N, K, h, w) in 0..1, "mask" (N, 1, h, w), and "weights" (N, K): 0 where a keypoint is not
            labelled or no cell lies within 3σ of it, else 1.

        Raises:
            ValueError: more than one person per crop; or shapes do not fit the skeleton, the stride or each other.
        """
        cells = map_size(keypoints, mask, size, self.skeleton, self.stride)
        if keypoints.shape[1] > 1:
            raise ValueError(f"a HeatmapCodec draws one person per picture, not {keypoints.shape[1]}: train it with crops of single "
                             "people (data.samples: boxes)")  # fmt: skip
        people = keypoints.detach().to(torch.float32)
        if not people.shape[1]:
            people = people.new_zeros(len(people), 1, *people.shape[2:])
        weights, drawn = (people[:, 0, :, 2] > 0).float(), []
        for axis, length in ((1, cells[0]), (0, cells[1])):
            at = self._to_cells(people[:, 0, :, axis], length)
            reach = RADIUS * self.sigma
            if not self.unbiased:
                at = (at + 0.5).trunc()
            # as published, one cell beyond the border still counts
            weights = weights * (at - reach < length) * (at + reach + 1 >= 0)
            distance = torch.arange(length, device=at.device) - at[..., None]
            values = torch.exp(-distance.square() / (2 * self.sigma**2))
            drawn.append(values if self.unbiased else values * (distance.abs() <= reach))
        heatmaps = drawn[0][..., :, None] * drawn[1][..., None, :] * weights[..., None, None]
        if mask is None:
            mask = people.new_ones(len(people), *cells)
        return {"heatmaps": heatmaps, "weights": weights, "mask": mask[:, None].to(people.device, torch.float32)}

    def at_pixels(self, pixels_per_cell: float) -> HeatmapCodec:
        """There is no such codec: the crop of a person is read at the resolution of its maps.

        Raises:
            ValueError: always.
        """
        raise ValueError("a top-down model reads the maps of a crop as they are; leave out maps_at")

    def decode(self, maps: dict[str, np.ndarray]) -> People:
        """The person of one crop: always exactly one, though perhaps without any keypoint.

        Args:
            maps: "heatmaps" (K, h, w), about 0..1; what is not finite counts as nothing.

        Returns:
            One person in pixels of the network's input. A keypoint's score is the highest value of its map, at most 1; one
            whose map nowhere exceeds 0 is not found. The person's score is the mean of those above `score_threshold`, or 0.

        Raises:
            ValueError: a number of maps that does not fit the skeleton.
        """
        heatmaps = np.asarray(maps["heatmaps"], np.float32)
        self._check_channels(heatmaps)
        heatmaps = np.nan_to_num(heatmaps, nan=0.0, posinf=0.0, neginf=0.0)
        cells, values = highest(heatmaps)
        found = values > 0
        places = refined(heatmaps, cells, self.refine, self.blur)
        height, width = heatmaps.shape[1:]
        pixels = np.stack([self._to_pixels(places[:, 0], width), self._to_pixels(places[:, 1], height)], axis=1)
        scores = np.clip(values, 0, 1)
        counted = scores[scores > self.score_threshold]
        keypoints = np.concatenate([pixels, scores[:, None]], axis=1) * found[:, None]
        return People(keypoints[None], np.array([counted.mean() if len(counted) else 0.0]))

    def _turned(self, name: str, back: np.ndarray) -> np.ndarray:
        """With `cells="first"` everything then moves a cell right, and the first column stays as well, as published."""
        self._check_channels(back)
        back = back[..., self.skeleton.flip_index, :, :]
        return np.concatenate([back[..., :1], back[..., :-1]], axis=-1) if self.cells == "first" else back

    def _to_cells(self, pixels: Tensor, length: int) -> Tensor:
        """Pixels of the network's input → cells of a map that is `length` cells long."""
        if self.cells == "centres":
            return pixels_to_cells(pixels, self.stride)
        return pixels / self._spacing(length)

    def _to_pixels(self, cells: np.ndarray, length: int) -> np.ndarray:
        """The way back."""
        if self.cells == "centres":
            return cells_to_pixels(cells, self.stride)
        return cells * self._spacing(length)

    def _spacing(self, length: int) -> float:
        """Pixels from one cell to the next where the first cell is the first pixel."""
        return (self.stride * length - 1) / (length - 1) if self.cells == "ends" and length > 1 else self.stride

    def _check_channels(self, heatmaps: np.ndarray) -> None:
        k = self.skeleton.num_keypoints
        if heatmaps.ndim < 3 or heatmaps.shape[-3] != k:
            raise ValueError(f"heatmaps of skeleton {self.skeleton.name!r} have the shape (…, {k}, h, w), not {heatmaps.shape}")
