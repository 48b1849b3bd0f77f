"""What losses of maps have in common."""

from __future__ import annotations

from torch import Tensor


def check_targets(name: str, maps: Tensor, targets: Tensor, codec: str = "the network's stride") -> None:
    """Raise ValueError, with what to give the codec, where a network's maps and their targets differ in shape."""
    if maps.shape != targets.shape:
        raise ValueError(f"{name}: the network's maps are {tuple(maps.shape)}, the targets {tuple(targets.shape)}; "
                         f"give the codec {codec} and this skeleton")  # fmt: skip


def masked_squares(name: str, maps: Tensor, targets: Tensor, mask: Tensor, stride: int) -> Tensor:
    """Mean squared error of maps (N, C, h, w) where the mask (N, 1, h, w) says 1, a float32 scalar.

    As published by trt_pose and HigherHRNet, the mean runs over all cells, so a masked cell counts as a perfect one.

    Raises:
        ValueError: shapes differ; the sentence has `name`, and the `stride` that the codec should have.
    """
    check_targets(name, maps, targets, f"stride={stride}")
    # squares of small numbers vanish in half precision
    return (mask * (maps.float() - targets.float()).square()).mean()
