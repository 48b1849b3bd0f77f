"""What every network asks of its input, and what those that start from ImageNet's weights do with it first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in 0..1


def check_images(images: Tensor, multiple: int, only: Sequence[int] | None = None) -> None:
    """Refuse a tensor that is no batch of colour images (N, 3, H, W), or whose H and W do not fit; a graph that is written asks nothing.

    Args:
        images: what `forward` got.
        multiple: H and W must be multiples of it …
        only: … or are these, of a network built for one size.

    Raises:
        ValueError: with a size that fits.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be a batch (N, 3, H, W), got {tuple(images.shape)}")
    height, width = images.shape[2:]
    if only and list(only) != [height, width]:
        raise ValueError(f"the input is {height} × {width} pixels, and the backbone was built for {only[0]} × {only[1]} only: make "
                         "input_size and img_size equal")  # fmt: skip
    if height % multiple or width % multiple:
        fits = " × ".join(str(max(multiple, round(side / multiple) * multiple)) for side in (height, width))
        raise ValueError(f"the input is {height} × {width} pixels, but height and width must be multiples of {multiple}; "
                         f"the nearest size is {fits}")  # fmt: skip


class ImageNetNormalise(nn.Module):
    """RGB 0..255 → mean 0 and standard deviation 1 over ImageNet (or by another `mean` and `std`); the shape stays (N, 3, H, W)."""

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD):
        super().__init__()
        # constants, not weights: they never stand in a checkpoint
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std
