"""DeeperCut (Insafutdinov et al. 2016, arXiv:1605.03170): a detector for every keypoint, and where all others lie from it.

For every eighth pixel, a ResNet with a dilated last stage says how probably a keypoint lies near, how far away it is exactly
(`offsets`), and where the other keypoints of the same person are (`pairwise`, as in ArtTrack, arXiv:1612.01465), from which
`lib.codecs.parts` puts people together. Re-implemented from the papers and from a description of the authors' TensorFlow code,
whose weights fit (`lib.checkpoints.load_deepercut`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lib import ROOT
from lib.models.deepercut_public import load_trunk
from lib.models.images import check_images
from lib.models.parts_loss import masked_huber, parts_loss
from lib.models.resnet import RESNETS, ResNet
from lib.skeleton import Skeleton

_RARE = 0.02  # about the share of cells near a keypoint; detectors begin with it


class DeeperCut(nn.Module):
    """Heatmaps of all people in an image, offsets from cell to keypoint, and from cell to every other keypoint.

    Args:
        skeleton: K keypoints decide the number of output channels; limbs are not needed.
        units: of the four stages of the ResNet; `lib.models.resnet.RESNETS` has those of ResNet-50, -101 and -152.
        width: channels of its stem, 64 as published.
        layout: "torchvision" or "caffe", see `lib.models.resnet`. The weights of one do not fit the other, though their
            tensors do.
        pairwise: say where the other keypoints are.
        intermediate: unit of the third stage, from 1, whose features get a detector of their own in training. Published is
            12 with ResNet-101, and none with ResNet-50, whose third stage has six.
        skip: add what a 1×1 convolution makes of the second stage (stride 8) to every map, as the paper's Caffe network does
            and its TensorFlow version does not.
        pairwise_width: narrow the features for `pairwise` to so many channels first; published is not to (None). It makes
            small networks smaller: the head of 17 keypoints has 10 of a ResNet-101's 54 million parameters.
        offset_weight, pairwise_weight: of these losses.
        huber: errors of both count by the Huber loss, else by their square.
        pretrained: weights of an ImageNet classifier for the ResNet. True downloads torchvision's; a path (relative to the
            repository) reads them from a file: of torchvision for its layout, a dump of slim's TensorFlow variables
            (pretrained/README.md) for "caffe".

    Attributes:
        stride: input pixels per cell of every map …
        strides: … and the same by name.
        input_multiple: H and W of the input must be multiples of it.

    Raises:
        ValueError: options out of range, or a file that does not fit.
    """

    stride, input_multiple = 8, 16
    repeated = ("pairwise", "narrow", "intermediate", "skips", "skips.pairwise")
    # options that no tensor shows, though the weights are of no use with another value
    inseparable = ("layout",)

    def __init__(self, skeleton: Skeleton, units: Sequence[int] = RESNETS[101], width: int = 64, layout: str = "torchvision",
                 pairwise: bool = True, intermediate: int | None = None, skip: bool = False,
                 pairwise_width: int | None = None, offset_weight: float = 0.05, pairwise_weight: float = 0.05,
                 huber: bool = True, pretrained: bool | str = False):  # fmt: skip
        super().__init__()
        self.skeleton = skeleton
        self.trunk = ResNet(units, width, layout)
        self.options: dict[str, Any] = {
            "units": list(units), "width": width, "layout": layout, "pairwise": pairwise, "intermediate": intermediate,
            "skip": skip, "pairwise_width": pairwise_width, "offset_weight": offset_weight, "pairwise_weight": pairwise_weight,
            "huber": huber, "pretrained": False,
        }  # fmt: skip
        _check(self.options)
        k, deep = skeleton.num_keypoints, self.trunk.channels[3]
        counts = {"heatmaps": k, "offsets": 2 * k}
        # with one keypoint there are no pairs, and their map has no channels
        counts |= {"pairwise": 2 * k * (k - 1)} if pairwise and k > 1 else {}
        narrowed = pairwise_width if "pairwise" in counts else None
        self.narrow = nn.Sequential(nn.Conv2d(deep, narrowed, 1), nn.ReLU(inplace=True)) if narrowed else None
        self.heatmaps, self.offsets = (Doubling(deep, counts[name], layout) for name in ("heatmaps", "offsets"))
        self.pairwise = Doubling(narrowed or deep, counts["pairwise"], layout) if "pairwise" in counts else None
        self.intermediate = Doubling(self.trunk.channels[2], k, layout) if intermediate else None
        fine = self.trunk.channels[1]
        self.skips = nn.ModuleDict({name: nn.Conv2d(fine, count, 1) for name, count in counts.items()} if skip else {})
        self._begin()
        if pretrained:
            load_trunk(self, None if pretrained is True else ROOT / pretrained)

    def _begin(self) -> None:
        """Nearly empty maps, as most cells are empty: detectors need not unlearn that half of all cells are keypoints first."""
        for name, layer in self.named_modules():
            if isinstance(layer, Doubling) or name.startswith("skips."):
                nn.init.normal_(layer.weight, std=0.001)
                nn.init.zeros_(layer.bias)
        for layer in (self.heatmaps, self.intermediate):
            if layer is not None:
                nn.init.constant_(layer.bias, math.log(_RARE / (1 - _RARE)))

    @property
    def strides(self) -> dict[str, int]:
        """Input pixels per cell of each map."""
        return dict.fromkeys(("heatmaps", "offsets", "pairwise")[: 3 if self.options["pairwise"] else 2], self.stride)

    @property
    def outputs(self) -> dict[str, str]:
        """State-dict prefix of each last layer → what its channels stand for."""
        outputs = {"heatmaps": "keypoints", "offsets": "keypoints"}
        outputs |= {"pairwise": "pairs"} if self.pairwise is not None else {}
        outputs |= {f"skips.{name}": outputs[name] for name in self.skips}
        return outputs | ({"intermediate": "keypoints"} if self.intermediate is not None else {})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images → maps; p is the pair of keypoints (a, b) at (K−1)·a + b − [a<b].

        Args:
            images: (N, 3, H, W) float, RGB in 0..255; H and W multiples of 16.

        Returns:
            heatmaps (N, K, H/8, W/8), probabilities; offsets (N, 2K, H/8, W/8), channels 2k and 2k+1 being x and y of keypoint k
            seen from the cell, in `offset_stdev` of the codec; and pairwise (N, 2K(K−1), H/8, W/8), channels 2p and 2p+1 being
            x and y of keypoint b seen from a cell of keypoint a, in standard deviations from their mean (`pair_stats`). In
            training, `logits` instead of heatmaps, and where there is an intermediate head also `logits_intermediate`.
        """
        check_images(images, self.input_multiple)
        fine, middle, deep = self.trunk(images, self.options["intermediate"] if self.training else None)
        maps = {"heatmaps": self.heatmaps(deep), "offsets": self.offsets(deep)}
        if self.pairwise is not None:
            maps["pairwise"] = self.pairwise(deep if self.narrow is None else self.narrow(deep))
        for name, layer in self.skips.items():
            maps[name] = maps[name] + layer(fine)
        if self.options["pairwise"] and self.pairwise is None:
            maps["pairwise"] = maps["offsets"][:, :0]
        logits = maps.pop("heatmaps")
        if not self.training:
            return {"heatmaps": logits.sigmoid(), **maps}
        maps = {"logits": logits, **maps}
        return maps if middle is None else maps | {"logits_intermediate": self.intermediate(middle)}

    def loss(self, maps: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy of the detectors, and what offsets and pairs miss their keypoints by, see `lib.models.parts_loss`.

        Args:
            maps: what `forward` returned, in training or not.
            targets: of a `PartsCodec`: heatmaps (N, K, h, w) and mask (N, 1, h, w); offsets (N, 2K, h, w) and offsets_mask
                (N, K, h, w); pairwise (N, 2K(K−1), h, w) and pairwise_mask (N, K(K−1), h, w).

        Returns:
            heatmaps, offsets and pairwise, the last two with their weights, and in training heatmaps_intermediate, as far as there
            are such maps.
        """
        options = self.options
        logits = maps["logits"] if "logits" in maps else torch.logit(maps["heatmaps"], eps=1e-6)
        losses = {"heatmaps": parts_loss(logits, targets)}
        if "logits_intermediate" in maps:
            losses["heatmaps_intermediate"] = parts_loss(maps["logits_intermediate"], targets)
        for name, weight in (("offsets", options["offset_weight"]), ("pairwise", options["pairwise_weight"])):
            if name in maps:
                error = masked_huber(maps[name], targets[name], targets[f"{name}_mask"], options["huber"])
                losses[name] = weight * error
        return losses


class Doubling(nn.ConvTranspose2d):
    """A transposed 3×3 convolution to maps of twice the size.

    Where its cells lie decides what the network must learn to shift. In the caffe layout they are as published: 2n + 1 cells of
    which the last row and column are left out, the middle of the kernel falls on odd cells, some ten pixels off the features it
    came from. In torchvision's, whose weights for this head are always new, it falls on even cells, 3.5 pixels off: nearer is
    impossible with a kernel of three.

    Args:
        channels, outputs: channels in and out.
        layout: one of `lib.models.resnet.LAYOUTS`.
    """

    def __init__(self, channels: int, outputs: int, layout: str):
        inner = int(layout == "torchvision")
        super().__init__(channels, outputs, 3, stride=2, padding=inner, output_padding=inner)

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, h, w) → (N, outputs, 2h, 2w)."""
        maps = super().forward(features)
        return maps if self.padding[0] else maps[..., :-1, :-1]


def _check(options: dict[str, Any]) -> None:
    units, unit = options["units"][2], options["intermediate"]
    if unit is not None and not (type(unit) is int and 1 <= unit <= units):
        raise ValueError(f"intermediate is a unit of the third stage, which has {units} (units={options['units']}): 1 to {units}, or "
                         f"null for no such head, got {unit!r}; unit 12, as published, is of a ResNet-101")  # fmt: skip
    narrow = options["pairwise_width"]
    if narrow is not None and not (type(narrow) is int and narrow > 0):
        raise ValueError(
            f"pairwise_width is a number of channels, 1 or more, or null to leave the features, got {narrow!r}"
        )
    for name in ("offset_weight", "pairwise_weight"):
        weight = options[name]
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise ValueError(f"{name} is the weight of a loss, 0 or more, got {weight!r}")
