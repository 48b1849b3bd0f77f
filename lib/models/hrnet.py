"""HRNet (Wang et al. 2019, arXiv:1908.07919): branches at four resolutions, side by side, that keep exchanging what they see.

The finest branch never shrinks, so positions are not lost; the others give it context. Re-implemented from the paper and from
the description of its public code (MIT), whose weights fit (`lib.models.hrnet_public`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import ROOT
from lib.models.hrnet_public import load_trunk
from lib.models.images import ImageNetNormalise, check_images

relu = partial(F.relu, inplace=True)  # of what nobody reads again: sums, and the output of batch norms

EXPANSION = 4  # a bottleneck's output is four times as wide as its middle


class HRNetClassifier(nn.Module):
    """Which of C classes an image shows; made to train the trunk that `HigherHRNet` starts from.

    Args:
        classes: C names, or only their number.
        width, blocks, modules, stem, bottlenecks: of the trunk, see `HRNet`.
        head: channels in the middle of the finest branch's last bottleneck; coarser branches have twice, four times … as many.
        features: width of the vector that the classes are read from.
        pretrained: a checkpoint (path relative to the repository) whose trunk to start from: one of ours, or any public
            layout of `lib.models.hrnet_public`. False is a trunk with random weights.

    Attributes:
        classes: C names; a number gives "0", "1" and so on.
        options: all arguments but the classes, as plain values.
        input_multiple: H and W of the input must be multiples of it.

    Raises:
        ValueError: options out of range, or a file that does not fit.
    """

    input_multiple = 32
    repeated = ("classify",)

    def __init__(self, classes: int | Sequence[str], width: int = 32, blocks: int = 4, modules: Sequence[int] = (1, 4, 3),
                 stem: int = 64, bottlenecks: int = 4, head: int = 32, features: int = 2048,
                 pretrained: bool | str = False):  # fmt: skip
        super().__init__()
        self.classes = _class_names(classes)
        check_counts(head=head, features=features)
        self.trunk = HRNet(width, blocks, modules, stem, bottlenecks)
        self.options: dict[str, Any] = {
            "width": width, "blocks": blocks, "modules": list(modules), "stem": stem, "bottlenecks": bottlenecks,
            "head": head, "features": features, "pretrained": False,
        }  # fmt: skip
        self.normalise = ImageNetNormalise()
        middles = [head << i for i in range(len(self.trunk.channels))]
        self.widen = nn.ModuleList(Bottleneck(c, middle) for c, middle in zip(self.trunk.channels, middles))
        wide = [EXPANSION * middle for middle in middles]
        self.down = nn.ModuleList(conv(a, b, 3, stride=2, bias=True) for a, b in pairwise(wide))
        self.last = conv(wide[-1], features, 1, bias=True)
        self.classify = nn.Linear(features, len(self.classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if pretrained:
            load_trunk(self, pretrained_path(pretrained))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) float, RGB in 0..255, H and W multiples of 32 → logits (N, C)."""
        check_images(images, self.input_multiple)
        finest, *others = self.trunk(self.normalise(images))
        features = self.widen[0](finest)
        for widen, down, branch in zip(self.widen[1:], self.down, others):
            features = widen(branch) + down(features)
        return {"logits": self.classify(self.last(features).mean(dim=(2, 3)))}

    def loss(self, maps: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross entropy of logits (N, C) and labels (N,), class indices int64."""
        return {"cross_entropy": F.cross_entropy(maps["logits"].float(), targets["labels"])}


class HRNet(nn.Module):
    """The trunk: RGB, normalised → one feature map per resolution.

    Args:
        width: C, channels of the finest branch; the others have 2C, 4C and 8C. Published are 18, 30, 32, 40, 44, 48 and 64.
        blocks: residual blocks of a branch between two exchanges.
        modules: how often each stage exchanges; stage s has s + 2 branches, so (1, 4, 3) ends with four.
        stem: channels of the first two convolutions.
        bottlenecks: blocks of the first, single-branch stage.
        all_scales: return every resolution; else only the finest is put together, as HigherHRNet needs it.

    Attributes:
        channels: of each resolution, at strides 4, 8, 16, …
    """

    def __init__(self, width: int = 32, blocks: int = 4, modules: Sequence[int] = (1, 4, 3), stem: int = 64,
                 bottlenecks: int = 4, all_scales: bool = True):  # fmt: skip
        super().__init__()
        check_counts(width=width, blocks=blocks, stem=stem, bottlenecks=bottlenecks)
        _check_modules(modules)
        self.channels = tuple(width << i for i in range(len(modules) + 1))
        self.stem = nn.Sequential(conv(3, stem, 3, stride=2), conv(stem, stem, 3, stride=2))
        single = EXPANSION * stem
        self.first = nn.Sequential(*(Bottleneck(stem if i == 0 else single, stem) for i in range(bottlenecks)))
        self.entry = conv(single, width, 3)
        # a new branch begins at the coarsest one there is, and the first of them at the wide features of the first stage
        sources = (single, *self.channels[1:])
        self.down = nn.ModuleList(conv(a, b, 3, stride=2) for a, b in zip(sources, self.channels[1:]))
        self.stages = nn.ModuleList()
        for stage, count in enumerate(modules, start=2):
            channels, last = self.channels[:stage], stage == len(self.channels)
            outputs = [1 if last and not all_scales and i == count - 1 else stage for i in range(count)]
            self.stages.append(nn.Sequential(*(Exchange(channels, blocks, n) for n in outputs)))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) → [(N, C, H/4, W/4), (N, 2C, H/8, W/8), …], or only the first of them."""
        coarsest = self.first(self.stem(images))
        features = [self.entry(coarsest)]
        for down, stage in zip(self.down, self.stages):
            features = stage([*features, down(coarsest)])
            coarsest = features[-1]
        return features


class Exchange(nn.Module):
    """Residual blocks in every branch; then each output is the sum of all branches, brought to its resolution.

    Args:
        channels: of the branches, finest first; each has half the resolution of the one before.
        blocks: residual blocks of a branch.
        num_outputs: how many resolutions are put together, finest first.
    """

    def __init__(self, channels: Sequence[int], blocks: int, num_outputs: int):
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(Basic(c) for _ in range(blocks))) for c in channels)
        self.fuse = nn.ModuleList(
            nn.ModuleList(_bridge(channels, source, target) for source in range(len(channels)))
            for target in range(num_outputs)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """One feature map per branch → one per output, of the same shapes."""
        features = [branch(x) for branch, x in zip(self.branches, features)]
        return [relu(reduce(torch.add, (bridge(x) for bridge, x in zip(bridges, features)))) for bridges in self.fuse]


class Basic(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al. 2015); channels stay."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.bn1 = conv(channels, channels, 3, activate=False)
        self.conv2, self.bn2 = conv(channels, channels, 3, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) → the same shape."""
        y = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(y)) + x)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolution and a shortcut, which is a 1×1 convolution where the width changes."""

    def __init__(self, channels: int, middle: int):
        super().__init__()
        wide = EXPANSION * middle
        self.conv1, self.bn1 = conv(channels, middle, 1, activate=False)
        self.conv2, self.bn2 = conv(middle, middle, 3, activate=False)
        self.conv3, self.bn3 = conv(middle, wide, 1, activate=False)
        self.downsample = conv(channels, wide, 1, activate=False) if channels != wide else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) → (N, 4 · middle, h, w)."""
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        return relu(self.bn3(self.conv3(y)) + self.downsample(x))


def conv(
    channels: int, width: int, size: int, stride: int = 1, bias: bool = False, activate: bool = True
) -> nn.Sequential:
    """Convolution that keeps the size (but for the stride), batch norm and, unless told otherwise, ReLU."""
    layers = [nn.Conv2d(channels, width, size, stride, size // 2, bias=bias), nn.BatchNorm2d(width)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if activate else []))


def check_counts(**counts: int) -> None:
    """Refuse options that are no whole numbers from 1 up.

    Raises:
        ValueError: with the option's name.
    """
    for name, value in counts.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is a whole number from 1 up, got {value!r}")


def pretrained_path(pretrained: bool | str):
    """The file that `pretrained` names, relative to the repository.

    Raises:
        ValueError: it is True, which names none.
    """
    if pretrained is True:
        raise ValueError("pretrained is False or the path of a checkpoint: a classifier of yours, or a public file, which "
                         "pretrained/README.md tells where to find")  # fmt: skip
    return ROOT / pretrained


def _bridge(channels: Sequence[int], source: int, target: int) -> nn.Module:
    """From one branch to the resolution and width of another: enlarged by repetition, or halved step by step."""
    if source == target:
        return nn.Identity()
    if source > target:
        steps = conv(channels[source], channels[target], 1, activate=False)
        return steps.append(nn.Upsample(scale_factor=2 ** (source - target), mode="nearest"))
    halvings = [conv(channels[source], channels[source], 3, stride=2) for _ in range(target - source - 1)]
    return nn.Sequential(*halvings, conv(channels[source], channels[target], 3, stride=2, activate=False))


def _check_modules(modules: Sequence[int]) -> None:
    """Refuse a trunk of another depth than two to four stages."""
    fits = isinstance(modules, (list, tuple)) and 1 <= len(modules) <= 3
    if not fits or any(type(count) is not int or count < 1 for count in modules):
        raise ValueError(f"modules are one to three whole numbers from 1 up, one for each stage behind the first, got {modules!r}; "
                         "published is [1, 4, 3]")  # fmt: skip


def _class_names(classes: int | Sequence[str]) -> tuple[str, ...]:
    if type(classes) is int and classes > 0:
        return tuple(str(i) for i in range(classes))
    names = () if isinstance(classes, (str, int)) else tuple(classes)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"classes are different names, or how many there are, got {str(classes)[:80]!r}")
    return names
