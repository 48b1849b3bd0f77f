"""What every codec can do, and what it asks of its options and of the people it is given."""

from __future__ import annotations

import difflib
import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from typing import ClassVar

import numpy as np
from torch import Tensor

from lib.people import People
from lib.skeleton import Skeleton


class Codec(ABC):
    """What training, prediction and export need to know of a codec, which is a frozen dataclass of its options.

    Attributes:
        skeleton: keypoints and limbs.
        stride: pixels of the network's input per cell of the coarsest maps.
        kinds: names of its maps.
        per_person: whether it reads one person from the crop of a box.
        wants_scales: whether `encode` takes them.
        own_scale: names of the maps that cannot be averaged over several scales of a picture: those of the base scale count.
    """

    skeleton: Skeleton
    stride: int
    kinds: ClassVar[tuple[str, ...]]
    per_person: ClassVar[bool] = False
    wants_scales: ClassVar[bool] = False
    own_scale: ClassVar[tuple[str, ...]] = ()

    @property
    def options(self) -> dict:
        """All fields but the skeleton: `type(codec)(skeleton, **options)` makes the same codec."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "skeleton"}

    @property
    @abstractmethod
    def strides(self) -> dict[str, int]:
        """Pixels of the network's input per cell of every map that `decode` needs."""

    @abstractmethod
    def encode(self, keypoints: Tensor, mask: Tensor | None, size: tuple[int, int]) -> dict[str, Tensor]:
        """People of a batch, (N, P, K, 3) pixels of the network's input → target maps on the same device.

        Where the codec `wants_scales`, also `scales` (N,), pixels of the network's input per pixel of the original pictures.
        """

    @abstractmethod
    def decode(self, maps: dict[str, np.ndarray]) -> People:
        """Maps of one image → people in pixels of the network's input."""

    @abstractmethod
    def at_pixels(self, pixels_per_cell: float) -> Codec:
        """The codec for the same maps enlarged to one cell per pixel."""

    def flip(self, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Maps (…, C, h, w) of mirrored images turned back: columns from right to left, left and right change places.

        Raises:
            ValueError: a kind of map that this codec does not have, or a number of channels that does not fit.
        """
        for name in maps:
            if name not in self.kinds:
                raise ValueError(f"{type(self).__name__} has {', '.join(self.kinds)}, not {name!r}, to turn back from the mirror")
        return {name: self._turned(name, np.asarray(values)[..., ::-1]) for name, values in maps.items()}

    def with_mirrored(self, maps: Mapping[str, np.ndarray], back: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Maps of images averaged with those of their mirror images that `flip` turned back; where these are NaN, alone."""
        return {k: np.where(np.isnan(back[k]), values, (values + back[k]) / 2) for k, values in maps.items()}

    def check(self, ranges: Mapping[str, bool], **choices: Collection[str]) -> None:
        """Raise ValueError for the first option that is out of its range, with its description.

        Args:
            ranges: option → whether its value fits.
            choices: option → what it may be.
        """
        for option, allowed in choices.items():
            if getattr(self, option) not in allowed:
                raise ValueError(f"{option} must be one of {', '.join(allowed)}, got {getattr(self, option)!r}")
        for option, fits in ranges.items():
            if not fits:
                raise ValueError(f"{type(self).__name__} cannot work with {option}={getattr(self, option)!r}: "
                                 f"{_description(type(self), option)}")  # fmt: skip

    @abstractmethod
    def _turned(self, name: str, back: np.ndarray) -> np.ndarray:
        """Channels of maps (…, C, h, w) whose columns are turned already put where they belong."""


def nearest(word: str, known: Iterable[str]) -> str:
    """What to add to a sentence about an unknown word: the known one that resembles it, or all."""
    near = difflib.get_close_matches(word, known := list(known), 1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def map_size(keypoints: Tensor, mask: Tensor | None, size: tuple[int, int], skeleton: Skeleton, stride: int) -> tuple[int, int]:
    """Height and width of the maps of an input of `size`.

    Raises:
        ValueError: keypoints, mask or size do not fit the skeleton, the stride or each other.
    """
    k = skeleton.num_keypoints
    if keypoints.ndim != 4 or keypoints.shape[2:] != (k, 3):
        raise ValueError(f"keypoints must have shape (N, P, {k}, 3) for skeleton {skeleton.name!r}, "
                         f"got {tuple(keypoints.shape)}")  # fmt: skip
    if size[0] % stride or size[1] % stride:
        raise ValueError(f"input size {tuple(size)} is not a multiple of the maps' stride {stride}")
    cells = (size[0] // stride, size[1] // stride)
    if mask is not None and mask.shape != (len(keypoints), *cells):
        raise ValueError(f"mask must have shape {(len(keypoints), *cells)}, got {tuple(mask.shape)}")
    return cells


def _description(codec: type, option: str) -> str:
    """What the docstring of a codec, or of the class with its decode options, says of an option."""
    found = (re.search(rf"^    {option}: (.+(?:\n {{8}}.+)*)", inspect.getdoc(kind) or "", re.MULTILINE) for kind in codec.__mro__)
    return next((" ".join(match[1].split()) for match in found if match), "see its description")
