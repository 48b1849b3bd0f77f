"""Lightweight OpenPose (Osokin 2018, arXiv:1811.12004): OpenPose on a dilated MobileNet, made for two CPU cores.

A first stage guesses heatmaps and part affinity fields; each refinement stage sees the features and the guess of the stage
before it. Re-implemented from the paper and from the description of its public code (Apache-2.0), whose weights fit: the
layers have the names under which those files know them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from lib import ROOT
from lib.models.foreign import fill_trunk
from lib.models.images import check_images
from lib.models.lightweight_openpose_public import read_mobilenet
from lib.models.maps_loss import check_targets
from lib.skeleton import Skeleton

# MobileNet v1 up to its twelfth block: channels, stride and dilation of each. The stride of the seventh moved into the
# eighth's dilation, which keeps the maps at an eighth of the image.
_TRUNK = [(32, 2, 1), (64, 1, 1), (128, 2, 1), (128, 1, 1), (256, 2, 1), (256, 1, 1),
          (512, 1, 1), (512, 1, 2), (512, 1, 1), (512, 1, 1), (512, 1, 1), (512, 1, 1)]  # fmt: skip


class LightweightOpenPose(nn.Module):
    """Heatmaps, with a background channel, and part affinity fields of all people in an image.

    Args:
        skeleton: K keypoints and L limbs decide the number of output channels.
        num_refinement_stages: R; 0 leaves the first guess as it is.
        num_channels: width of everything behind the trunk.
        width: multiplies the trunk's channels (rounded to eights), for small models.
        pretrained: path, relative to the repository, of the MobileNet `mobilenet_sgd_68.848.pth.tar`; False for a trunk
            with random weights.

    Attributes:
        stride: input pixels per map cell.
        input_multiple: H and W of the input must be multiples of it.

    Raises:
        ValueError: options out of range, a skeleton without limbs, or a file that does not fit.
    """

    stride, input_multiple = 8, 8
    repeated = ("refinement_stages",)

    def __init__(self, skeleton: Skeleton, num_refinement_stages: int = 1, num_channels: int = 128, width: float = 1.0,
                 pretrained: bool | str = False):  # fmt: skip
        super().__init__()
        _check_options(skeleton, num_refinement_stages, num_channels, width, pretrained)
        self.skeleton = skeleton
        self.options = {"num_refinement_stages": num_refinement_stages, "num_channels": num_channels, "width": width,
                        "pretrained": False}  # fmt: skip
        channels = [max(8, 8 * round(width * wide / 8)) for wide, _, _ in _TRUNK]
        blocks = [
            _separable(before, after, stride, dilation)
            for before, after, (_, stride, dilation) in zip(channels, channels[1:], _TRUNK[1:])
        ]
        self.model = nn.Sequential(_conv(3, channels[0], 3, stride=2, bias=False, norm=True), *blocks)
        self.cpm = Cpm(channels[-1], num_channels)
        outputs = (skeleton.num_keypoints + 1, 2 * skeleton.num_limbs)
        first = [_conv(num_channels, num_channels, 3) for _ in range(3)]
        self.initial_stage = Stage(first, num_channels, 4 * num_channels, *outputs)
        self.refinement_stages = nn.ModuleList()
        for _ in range(num_refinement_stages):
            seen = num_channels + sum(outputs)
            blocks = [Residual(seen if i == 0 else num_channels, num_channels) for i in range(5)]
            self.refinement_stages.append(Stage(blocks, num_channels, num_channels, *outputs))
        if pretrained:
            self.load_trunk(ROOT / pretrained)

    @property
    def outputs(self) -> dict[str, str]:
        """State-dict prefix of every stage's last layers → what their channels stand for."""
        return {f"{stage}.{part}.1.0": kind for stage in self._stage_names()
                for part, kind in (("heatmaps", "keypoints+background"), ("pafs", "limbs"))}  # fmt: skip

    @property
    def inputs(self) -> dict[str, tuple[tuple[str | None, int], ...]]:
        """State-dict prefix of each layer that reads maps → what its input channels stand for, and how many each has."""
        read = ((None, self.options["num_channels"]), ("keypoints+background", 1), ("limbs", 2))
        return {f"{stage}.trunk.0.initial.0": read for stage in self._stage_names()[1:]}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images → maps.

        Args:
            images: (N, 3, H, W) float, RGB in 0..255; H and W multiples of 8.

        Returns:
            heatmaps (N, K + 1, H/8, W/8), about 0..1 and not clipped, the background last, and pafs (N, 2L, H/8, W/8), where
            channel 2k is the y and 2k+1 the x component of limb k: those of the last stage. In training also heatmaps_0,
            pafs_0 and so on, those of the stages before it.
        """
        *earlier, last = self.stages(images)
        maps = dict(last)
        if self.training:
            maps |= {f"{name}_{i}": values for i, stage in enumerate(earlier) for name, values in stage.items()}
        return maps

    def stages(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Maps of every stage, the first guess first; images and maps as for `forward`."""
        check_images(images, self.input_multiple)
        features = self.cpm(self.model((images - 128) / 256))
        stages = [self.initial_stage(features)]
        for stage in self.refinement_stages:
            stages.append(stage(torch.cat([features, stages[-1]["heatmaps"], stages[-1]["pafs"]], dim=1)))
        return stages

    def loss(self, maps: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Half the squared error of each stage's maps, summed over channels and cells where the mask says 1, per image.

        As published: these are sums (a network without training begins at hundreds or thousands), so the published
        learning rates fit only this scale. Their plain sum is what is minimised.

        Args:
            maps: what `forward` returned.
            targets: heatmaps (N, K + 1, h, w), pafs (N, 2L, h, w) and mask (N, 1, h, w).
        """
        losses = {}
        for name, values in maps.items():
            target = targets[name.partition("_")[0]]
            check_targets(name, values, target, "stride=8, background=True")
            # sums this large do not fit into half precision
            error = (values.float() - target.float()) * targets["mask"]
            losses[name] = error.square().sum() / 2 / len(values)
        return losses

    def parameter_groups(self) -> list[dict]:
        """All parameters by how they learn, as published: {"params", "name", "lr_factor", "decay"}.

        Biases learn twice as fast as weights and refinement stages four times as fast as the rest; only the weights of
        ordinary convolutions decay. Groups without parameters (refinement, for R = 0) are left out.
        """
        groups = [
            (self.model, "conv", "weight", 1, True), (self.model, "depthwise", "weight", 1, False),
            (self.model, "norm", "weight", 1, False), (self.model, "norm", "bias", 2, False),
            (self.cpm, "conv", "weight", 1, True), (self.cpm, "conv", "bias", 2, False),
            (self.cpm, "depthwise", "weight", 1, False),
            (self.initial_stage, "conv", "weight", 1, True), (self.initial_stage, "conv", "bias", 2, False),
            (self.refinement_stages, "conv", "weight", 4, True), (self.refinement_stages, "conv", "bias", 8, False),
            (self.refinement_stages, "norm", "weight", 1, False), (self.refinement_stages, "norm", "bias", 2, False),
        ]  # fmt: skip
        names = {id(module): name for name, module in self.named_children()}
        return [
            {"params": params, "name": f"{names[id(part)]} {kind} {which}", "lr_factor": factor, "decay": decay}
            for part, kind, which, factor, decay in groups
            if (params := list(_parameters(part, kind, which)))
        ]

    def load_trunk(self, path: str | Path) -> tuple[str, ...]:
        """Fill the trunk with the MobileNet that training starts from (`read_mobilenet`); names of the tensors loaded.

        Raises:
            ValueError: the file is of another kind or does not fit; nothing was changed then.
        """
        state = {key.removeprefix("model."): value for key, value in read_mobilenet(path).items()}
        fill_trunk(self.model, state, path, f"the trunk with width={self.options['width']}")
        return tuple(f"model.{key}" for key in self.model.state_dict() if key in state)

    def _stage_names(self) -> list[str]:
        return ["initial_stage", *(f"refinement_stages.{r}" for r in range(len(self.refinement_stages)))]


class Cpm(nn.Module):
    """The trunk's features, narrowed and seen three times wider by depthwise convolutions."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.align = _conv(channels, width, 1)
        self.trunk = nn.Sequential(*(_plain_separable(width) for _ in range(3)))
        self.conv = _conv(width, width, 3)

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, h, w) → (N, width, h, w)."""
        features = self.align(features)
        return self.conv(features + self.trunk(features))


class Stage(nn.Module):
    """One guess: shared layers, then two 1×1 convolutions for each kind of map, the last of them linear."""

    def __init__(self, trunk: list[nn.Module], channels: int, head: int, num_heatmaps: int, num_pafs: int):
        super().__init__()
        self.trunk = nn.Sequential(*trunk)
        self.heatmaps = nn.Sequential(_conv(channels, head, 1), _output(head, num_heatmaps))
        self.pafs = nn.Sequential(_conv(channels, head, 1), _output(head, num_pafs))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """(N, channels, h, w) → heatmaps and pafs of the same h, w."""
        features = self.trunk(features)
        return {"heatmaps": self.heatmaps(features), "pafs": self.pafs(features)}


class Residual(nn.Module):
    """A 1×1 convolution plus two 3×3 convolutions of it, the second dilated; nothing after the sum."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.initial = _conv(channels, width, 1)
        self.trunk = nn.Sequential(_conv(width, width, 3, norm=True), _conv(width, width, 3, dilation=2, norm=True))

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, h, w) → (N, width, h, w)."""
        features = self.initial(features)
        return features + self.trunk(features)


def _conv(channels: int, width: int, size: int, stride: int = 1, dilation: int = 1, bias: bool = True,
          norm: bool = False) -> nn.Sequential:  # fmt: skip
    layer = nn.Conv2d(channels, width, size, stride, dilation * (size // 2), dilation, bias=bias)
    # He et al. 2015: with PyTorch's own initial values, which the original has, signals fade where no batch norm holds them up
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if bias:
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layer, *([nn.BatchNorm2d(width)] if norm else []), nn.ReLU(inplace=True))


class DilatedDepthwise(nn.Conv2d):
    """Trains in float32 on a CPU, whatever the precision around it.

    There the gradient of such weights is wrong in bfloat16 (torch 2.15 with oneDNN): up to not finite, on maps of 29 × 29
    cells and more. The layer holds one weight in a thousand, so nothing is lost.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) → the same shape."""
        if not (self.training and features.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
            return super().forward(features)
        with torch.autocast("cpu", enabled=False):
            return super().forward(features.float())


def _depthwise(channels: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d if dilation == 1 else DilatedDepthwise
    return layer(channels, channels, 3, stride, dilation, dilation, groups=channels, bias=False)


def _separable(channels: int, width: int, stride: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        _depthwise(channels, stride, dilation), nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
        nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
    )  # fmt: skip


def _plain_separable(channels: int) -> nn.Sequential:
    """Without batch norms, and with ELU."""
    pointwise = nn.Conv2d(channels, channels, 1, bias=False)
    return nn.Sequential(_depthwise(channels), nn.ELU(inplace=True), pointwise, nn.ELU(inplace=True))


def _output(channels: int, num_maps: int) -> nn.Sequential:
    layer = nn.Conv2d(channels, num_maps, 1)
    # begin with empty maps, which is what most cells are
    nn.init.normal_(layer.weight, std=0.001)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(layer)


def _parameters(part: nn.Module, kind: str, which: str) -> Iterator[nn.Parameter]:
    for module in part.modules():
        found = "norm" if isinstance(module, nn.BatchNorm2d) else ""
        if isinstance(module, nn.Conv2d):
            found = "conv" if module.groups == 1 else "depthwise"
        if found == kind and getattr(module, which) is not None:
            yield getattr(module, which)


def _check_options(skeleton: Skeleton, num_refinement_stages: int, num_channels: int, width: float,
                   pretrained: bool | str) -> None:  # fmt: skip
    if not skeleton.limbs:
        raise ValueError(f"skeleton {skeleton.name!r} has no limbs, but Lightweight OpenPose groups keypoints along them; "
                         "add some")  # fmt: skip
    for name, value, least in (("num_refinement_stages", num_refinement_stages, 0), ("num_channels", num_channels, 1)):
        if type(value) is not int or value < least:
            raise ValueError(f"{name} is a whole number from {least} up, got {value!r}")
    if not isinstance(width, (int, float)) or not 0 < width <= 4:
        raise ValueError(f"width={width!r} must be a number above 0 and at most 4; 1 is the published trunk")
    if pretrained is True:
        raise ValueError("pretrained is False, or the path of mobilenet_sgd_68.848.pth.tar: nobody offers that file to "
                         "programs, so download it by hand")  # fmt: skip
