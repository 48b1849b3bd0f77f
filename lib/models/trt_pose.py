"""trt_pose: a classifier's trunk, learned upsampling, one heatmap per keypoint and one vector field per limb.

Re-implemented from the description of NVIDIA-AI-IOT/trt_pose (v0.0.1, MIT), whose public weights fit. The ideas: part
affinity fields (Cao et al. 2017) on a deconvolution head (Xiao et al. 2018), plus a gate over the head's features.
"""

from __future__ import annotations

import difflib
import re
from collections import OrderedDict
from typing import ClassVar

import torch
from torch import Tensor, nn

from lib import ROOT
from lib.models.foreign import fill_trunk, published_classifier, read_tensors
from lib.models.images import ImageNetNormalise, check_images
from lib.models.maps_loss import masked_squares
from lib.skeleton import Skeleton

# trunk → channels of its stride-32 features
TRUNKS = {
    "resnet18": 512, "resnet34": 512, "resnet50": 2048, "resnet101": 2048, "resnet152": 2048,
    "densenet121": 1024, "densenet161": 2208, "densenet169": 1664, "densenet201": 1920,
    "mnasnet0_5": 1280, "mnasnet0_75": 1280, "mnasnet1_0": 1280, "mnasnet1_3": 1280,
}  # fmt: skip

# the classifier's trunk inside torchvision's state dict; ResNet's lies at the top level
_TRUNK_PREFIX = {"resnet": "", "densenet": "features.", "mnasnet": "layers."}


class TrtPose(nn.Module):
    """Heatmaps and part affinity fields of all people in an image.

    Args:
        skeleton: K keypoints and L limbs decide the number of output channels.
        trunk: one of `TRUNKS`.
        attention: multiply the head's features by a learned gate (sigmoid for heatmaps, tanh for fields).
        upsample_channels: width of the head.
        num_upsample: how many times the head doubles the map.
        num_flat: 3×3 convolutions after each doubling.
        stages: 4 is the whole trunk (stride 32); 3 or 2 drop the last stages of a ResNet (stride 16 or 8), for small models.
        pretrained: True downloads torchvision's ImageNet weights for the trunk; a path (relative to the
            repository) reads them from a file.

    Attributes:
        stride: input pixels per map cell, 4 by default.
        input_multiple: H and W of the input must be multiples of it, else maps and targets disagree in size.

    Raises:
        ValueError: unknown trunk, or options that do not fit together.
    """

    input_multiple = 32
    outputs: ClassVar[dict[str, str]] = {"heatmaps.output": "keypoints", "pafs.output": "limbs"}

    def __init__(self, skeleton: Skeleton, trunk: str = "resnet18", attention: bool = True, upsample_channels: int = 256,
                 num_upsample: int = 3, num_flat: int = 0, stages: int = 4, pretrained: bool | str = False):  # fmt: skip
        super().__init__()
        _check_options(skeleton, trunk, attention, num_upsample, stages)
        self.skeleton = skeleton
        self.options = {"trunk": trunk, "attention": attention, "upsample_channels": upsample_channels,
                        "num_upsample": num_upsample, "num_flat": num_flat, "stages": stages, "pretrained": False}  # fmt: skip
        self.stride = 2 ** (stages + 1 - num_upsample)
        self.normalise = ImageNetNormalise()
        self.trunk, width = build_trunk(trunk, stages)
        head = {"width": upsample_channels, "num_upsample": num_upsample, "num_flat": num_flat}
        self.heatmaps = Tower(width, skeleton.num_keypoints, gate=torch.sigmoid if attention else None, **head)
        self.pafs = Tower(width, 2 * skeleton.num_limbs, gate=torch.tanh if attention else None, **head)
        if pretrained:
            _load_imagenet(self, trunk, None if pretrained is True else pretrained)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images → maps.

        Args:
            images: (N, 3, H, W) float, RGB in 0..255; H and W multiples of 32.

        Returns:
            heatmaps (N, K, H/stride, W/stride), about 0..1 and not clipped; pafs (N, 2L, H/stride, W/stride), where channel
            2k is the y and 2k+1 the x component of limb k.
        """
        check_images(images, self.input_multiple)
        features = self.trunk(self.normalise(images))
        return {"heatmaps": self.heatmaps(features), "pafs": self.pafs(features)}

    def loss(self, maps: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error of each kind of map, where the mask says 1.

        As published, the mean runs over all cells, so a masked cell counts as a perfect one.

        Args:
            maps: what `forward` returned.
            targets: heatmaps (N, K, h, w), pafs (N, 2L, h, w) and mask (N, 1, h, w).
        """
        return {name: masked_squares(name, maps[name], targets[name], targets["mask"], self.stride) for name in ("heatmaps", "pafs")}


class Tower(nn.Module):
    """Upsampling blocks, an optional gate, and a 1×1 convolution to the output's channels (linear).

    Args:
        channels: of the trunk's features.
        num_outputs: channels of the maps.
        gate: activation of the gate, or None for no gate.
        width: channels of the blocks.
        num_upsample: deconvolutions of stride 2; with 0 only the 1×1 convolution remains.
        num_flat: 3×3 convolutions after each deconvolution.
    """

    def __init__(self, channels: int, num_outputs: int, gate, width: int, num_upsample: int, num_flat: int):
        super().__init__()
        layers, source = [], channels
        for _ in range(num_upsample):
            # the public weights have biases even here, in front of a batch norm
            layers += [nn.ConvTranspose2d(source, width, 4, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            for _ in range(num_flat):
                layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            source = width
        self.up = nn.Sequential(*layers)
        self.gate = nn.Conv2d(width, width, 3, padding=1) if gate else None
        self.activation = gate
        self.output = nn.Conv2d(source, num_outputs, 1)
        # Begin with empty maps (Xiao et al. 2018): most cells are empty, and from PyTorch's own initial values a network
        # spends its first hundreds of steps on unlearning noise.
        nn.init.normal_(self.output.weight, std=0.001)
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, h, w) → (N, num_outputs, h·2^num_upsample, w·2^num_upsample)."""
        features = self.up(features)
        if self.gate is not None:
            features = features * self.activation(self.gate(features))
        return self.output(features)


def build_trunk(name: str, stages: int = 4) -> tuple[nn.Module, int]:
    """The classifier without its classifier, and the number of channels that leave it."""
    import torchvision  # it takes a second, which no other network shall wait for

    net = getattr(torchvision.models, name)(weights=None)
    if name.startswith("densenet"):
        return net.features, TRUNKS[name]  # ends with a batch norm: the classifier's last ReLU is not part of it
    if name.startswith("mnasnet"):
        return net.layers, TRUNKS[name]
    layers = ["conv1", "bn1", "relu", "maxpool", *(f"layer{i}" for i in range(1, stages + 1))]
    trunk = nn.Sequential(OrderedDict((layer, getattr(net, layer)) for layer in layers))
    return trunk, TRUNKS[name] >> (4 - stages)


def _check_options(skeleton: Skeleton, trunk: str, attention: bool, num_upsample: int, stages: int) -> None:
    if trunk not in TRUNKS:
        near = difflib.get_close_matches(trunk, TRUNKS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(TRUNKS)}"
        raise ValueError(f"trunk {trunk!r} is unknown, {hint}")
    if not skeleton.limbs:
        raise ValueError(f"skeleton {skeleton.name!r} has no limbs, but trt_pose groups keypoints along them; add some")
    if stages not in (2, 3, 4) or stages < 4 and not trunk.startswith("resnet"):
        raise ValueError(f"stages={stages}: it is 4, or 2 or 3 for a ResNet; the trunk is {trunk}")
    low = 1 if attention else 0
    if not low <= num_upsample <= stages + 1:
        raise ValueError(f"num_upsample={num_upsample} must be {low} to {stages + 1} with attention={attention} "
                         f"on a trunk of stride {2 ** (stages + 1)}")  # fmt: skip


def _load_imagenet(network: TrtPose, trunk: str, path: str | None) -> None:
    """Fill the trunk with an ImageNet classifier's weights, from torchvision's server or from a file of the same layout."""
    if path is None:
        state, source = published_classifier(trunk)
    else:
        state, source = read_tensors(ROOT / path), path
    prefix = _TRUNK_PREFIX[re.match("[a-z]+", trunk)[0]]
    # DenseNet files of 2017 write norm.1 for norm1
    state = {re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", k).removeprefix(prefix): v for k, v in state.items()}
    fill_trunk(network.trunk, state, source, f"the trunk {trunk}")
