"""What every codec asks of its options and of the people it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lib.skeleton import Skeleton


def check_options(codec: Any, name: str, ranges: Mapping[str, bool]) -> None:
    """Raise ValueError for the first option of `codec` that is out of its range; ranges: option → whether it fits."""
    for option, fits in ranges.items():
        if not fits:
            raise ValueError(f"{name} cannot work with {option}={getattr(codec, option)!r}; see its description")


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
