"""Ways of turning people into maps and maps into people, one file per method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from torch import Tensor

from lib.codecs.heatmap import HeatmapCodec
from lib.codecs.paf import PafCodec
from lib.codecs.parts import PartsCodec
from lib.codecs.tags import TagsCodec
from lib.people import People
from lib.skeleton import Skeleton


class Codec(Protocol):
    """What training, prediction and export need to know of a codec."""

    skeleton: Skeleton
    stride: int
    own_scale: tuple[str, ...]
    """Names of the maps that cannot be averaged over several scales of a picture: those of the base scale count."""
    wants_scales: bool
    """Whether `encode` takes them."""
    # a codec that reads one person from the crop of a box also has `per_person = True`

    @property
    def options(self) -> dict:
        """Every field but the skeleton, as plain values: `type(codec)(codec.skeleton, **codec.options)` rebuilds it."""

    @property
    def strides(self) -> dict[str, int]:
        """Pixels of the network's input per cell of every map that `decode` needs."""

    def encode(self, keypoints: Tensor, mask: Tensor | None, size: tuple[int, int]) -> dict[str, Tensor]:
        """People of a batch, (N, P, K, 3) pixels of the network's input → target maps on the same device.

        Where the codec `wants_scales`, also `scales` (N,), pixels of the network's input per pixel of the original pictures.
        """

    def flip(self, maps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Maps (…, C, h, w) of mirrored images turned back; NaN where the mirror says nothing."""

    def with_mirrored(self, maps: Mapping[str, np.ndarray], back: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Maps (…, C, h, w) of images joined with those of their mirror images, turned back by `flip`."""

    def at_pixels(self, pixels_per_cell: float) -> Codec:
        """The codec for the same maps enlarged to one cell per pixel."""

    def decode(self, maps: dict[str, np.ndarray]) -> People:
        """Maps of one image → people in pixels of the network's input."""


CODECS: dict[str, type] = {"PafCodec": PafCodec, "PartsCodec": PartsCodec, "TagsCodec": TagsCodec,
                           "HeatmapCodec": HeatmapCodec}  # fmt: skip
