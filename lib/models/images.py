"""What every network asks of its input."""

from __future__ import annotations

from torch import Tensor


def check_images(images: Tensor, multiple: int) -> None:
    """Refuse a tensor that is no batch of colour images (N, 3, H, W), or whose H and W are no multiples of `multiple`.

    Raises:
        ValueError: with the nearest size that fits.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be a batch (N, 3, H, W), got {tuple(images.shape)}")
    height, width = images.shape[2:]
    if height % multiple or width % multiple:
        fits = " × ".join(str(max(multiple, round(side / multiple) * multiple)) for side in (height, width))
        raise ValueError(f"the input is {height} × {width} pixels, but height and width must be multiples of {multiple}; "
                         f"the nearest size is {fits}")  # fmt: skip
