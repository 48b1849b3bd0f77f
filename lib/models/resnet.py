"""ResNet of bottleneck units (He et al. 2015, arXiv:1512.03385) with a dilated last stage: features at a sixteenth of the image.

There are two layouts. They have the same tensors and differ in what happens between them, so the weights of one load into the
other without an error and see something else; whoever uses this keeps them apart.

| | `torchvision` | `caffe` |
| --- | --- | --- |
| published with it | torchvision's classifiers | He et al.'s own, and their TensorFlow (slim) conversions |
| where a stage strides | in the 3×3 of its first unit | in that unit's first 1×1 |
| units of the last stage with dilation 2 | all but the first | all |
| 3×3 max-pooling reaches | a pixel beyond every edge | beyond the right and the lower edge |
| the centre of cell i of the features | pixel 16i | pixel 16i + 2 |
| input | RGB / 255, less ImageNet's mean, by its deviation | RGB less ImageNet's mean |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.models.images import ImageNetNormalise

LAYOUTS = ("torchvision", "caffe")
RESNETS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Units of the published depths."""

EXPANSION = 4  # a unit's output is four times as wide as its middle
_CAFFE_MEAN = (123.68, 116.779, 103.939)  # of RGB in 0..255


class Features(NamedTuple):
    """What leaves the trunk: of the second stage at stride 8, of one unit of the third (or None) and of the last at stride 16."""

    fine: Tensor
    middle: Tensor | None
    deep: Tensor


class ResNet(nn.Module):
    """The trunk; its tensors have torchvision's names.

    Args:
        units: in each of the four stages; `RESNETS` has the published ones.
        width: channels of the stem; the stages have 4, 8, 16 and 32 times as many.
        layout: one of `LAYOUTS`.

    Attributes:
        channels: of the four stages.

    Raises:
        ValueError: options out of range.
    """

    def __init__(self, units: Sequence[int] = RESNETS[101], width: int = 64, layout: str = "torchvision"):
        super().__init__()
        _check(units, width, layout)
        caffe = layout == "caffe"
        self.channels = tuple(EXPANSION * width << stage for stage in range(4))
        self.normalise = MeanNormalise() if caffe else ImageNetNormalise()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        # on an even number of pixels a window that may leave the picture on one side is TensorFlow's SAME
        self.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True) if caffe else nn.MaxPool2d(3, 2, padding=1)
        source = width
        for stage, (count, channels) in enumerate(zip(units, self.channels), start=1):
            dilation = 2 if stage == 4 else 1
            first = Bottleneck(source, channels, 2 if stage in (2, 3) else 1, dilation if caffe else 1, caffe)
            rest = (Bottleneck(channels, channels, 1, dilation) for _ in range(count - 1))
            setattr(self, f"layer{stage}", nn.Sequential(first, *rest))
            source = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor, unit: int | None = None) -> Features:
        """Images (N, 3, H, W) float, RGB in 0..255, H and W multiples of 16 → features.

        Args:
            images: batch.
            unit: of the third stage, counted from 1, whose output is `Features.middle`.

        Returns:
            fine (N, 8·width, H/8, W/8), middle (N, 16·width, H/16, W/16) and deep (N, 32·width, H/16, W/16).
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.normalise(images)))))
        x = fine = self.layer2(self.layer1(x))
        middle = None
        for number, layer in enumerate(self.layer3, start=1):
            x = layer(x)
            middle = x if number == unit else middle
        return Features(fine, middle, self.layer4(x))


class Bottleneck(nn.Module):
    """1×1 to a quarter of the channels, 3×3, 1×1 back, added to what came in.

    Args:
        source, channels: channels in and out.
        stride, dilation: of the unit.
        stride_first: stride in the first 1×1 instead of in the 3×3.
    """

    def __init__(self, source: int, channels: int, stride: int = 1, dilation: int = 1, stride_first: bool = False):
        super().__init__()
        middle, (one, three) = channels // EXPANSION, (stride, 1) if stride_first else (1, stride)
        self.conv1, self.bn1 = nn.Conv2d(source, middle, 1, stride=one, bias=False), nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride=three, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = nn.Conv2d(middle, channels, 1, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if source != channels or stride > 1:
            projection = nn.Conv2d(source, channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, source, h, w) → (N, channels, h/stride, w/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class MeanNormalise(nn.Module):
    """RGB 0..255 less the mean of ImageNet, as He et al.'s networks want it; the shape stays (N, 3, H, W)."""

    def __init__(self):
        super().__init__()
        # a constant, not a weight: it never stands in a checkpoint
        self.register_buffer("mean", torch.tensor(_CAFFE_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images - self.mean


def _check(units: Sequence[int], width: int, layout: str) -> None:
    if not isinstance(units, Sequence) or len(units) != 4 or not all(type(count) is int and count > 0 for count in units):
        raise ValueError(f"units are four numbers of 1 or more, one for each stage of the ResNet, got {units}; ResNet-101 has "
                         f"{list(RESNETS[101])}")  # fmt: skip
    if type(width) is not int or width < 1:
        raise ValueError(
            f"width is the number of channels of the ResNet's stem, 1 or more (published: 64), got {width!r}"
        )
    if layout not in LAYOUTS:
        raise ValueError(f"layout is one of {', '.join(LAYOUTS)}, got {layout!r}")
