"""HigherHRNet (Cheng et al. 2020, arXiv:1908.10357): heatmaps at a quarter and at half of the image, and tags that say who is who.

A tag is one number per keypoint and cell (associative embedding, Newell et al. 2017): keypoints of one person learn to have
equal tags, those of different people different ones. Re-implemented from the papers and from the description of the public code
(MIT), whose weights fit (`lib.checkpoints.load_higherhrnet`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lib.models.grouping_loss import KINDS, grouping_loss
from lib.models.hrnet import Basic, HRNet, check_counts, pretrained_path
from lib.models.hrnet_public import load_trunk
from lib.models.images import ImageNetNormalise, check_images
from lib.models.maps_loss import masked_squares
from lib.skeleton import Skeleton


class HigherHRNet(nn.Module):
    """Heatmaps at two resolutions and tags of all people in an image.

    Args:
        skeleton: K keypoints decide the number of output channels; limbs are not needed.
        width, blocks, modules, stem, bottlenecks: of the trunk, see `lib.models.hrnet.HRNet`.
        refine_blocks: residual blocks behind the enlarged features.
        tags_at_half: tags at half of the image, too (published nets have them at a quarter alone).
        tag_per_keypoint: K tag maps, else a single one that all keypoints share.
        push, pull: weights of the two grouping losses.
        kind: "exp" or "max", how people push each other's tags away, see `grouping_loss`.
        pretrained: a checkpoint (path relative to the repository) whose trunk to start from: an HRNet classifier of ours, or
            any public layout of `lib.models.hrnet_public`. False is a trunk with random weights.

    Attributes:
        stride: input pixels per cell of the coarser maps …
        strides: … and of each map by its name.
        input_multiple: H and W of the input must be multiples of it.

    Raises:
        ValueError: options out of range, or a file that does not fit.
    """

    stride, input_multiple = 4, 32
    repeated = ("tags_fine",)

    def __init__(self, skeleton: Skeleton, width: int = 32, tags_at_half: bool = False, tag_per_keypoint: bool = True,
                 push: float = 1e-3, pull: float = 1e-3, kind: str = "exp", blocks: int = 4,
                 modules: Sequence[int] = (1, 4, 3), stem: int = 64, bottlenecks: int = 4, refine_blocks: int = 4,
                 pretrained: bool | str = False):  # fmt: skip
        super().__init__()
        check_counts(refine_blocks=refine_blocks)
        if kind not in KINDS:
            raise ValueError(f"kind of the grouping loss is one of {', '.join(KINDS)}, got {kind!r}")
        for name, weight in (("push", push), ("pull", pull)):
            if not isinstance(weight, (int, float)) or not weight >= 0:
                raise ValueError(f"{name} is the weight of a loss, 0 or more, got {weight!r}")
        self.skeleton = skeleton
        self.trunk = HRNet(width, blocks, modules, stem, bottlenecks, all_scales=False)
        self.options: dict[str, Any] = {
            "width": width, "tags_at_half": tags_at_half, "tag_per_keypoint": tag_per_keypoint, "push": push, "pull": pull,
            "kind": kind, "blocks": blocks, "modules": list(modules), "stem": stem, "bottlenecks": bottlenecks,
            "refine_blocks": refine_blocks, "pretrained": False,
        }  # fmt: skip
        keypoints = skeleton.num_keypoints
        tags = keypoints if tag_per_keypoint else 1
        self.normalise = ImageNetNormalise()
        self.heatmaps, self.tags = nn.Conv2d(width, keypoints, 1), nn.Conv2d(width, tags, 1)
        self.enlarge = nn.Sequential(
            nn.ConvTranspose2d(width + keypoints + tags, width, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.refine = nn.Sequential(*(Basic(width) for _ in range(refine_blocks)))
        self.heatmaps_fine = nn.Conv2d(width, keypoints, 1)
        self.tags_fine = nn.Conv2d(width, tags, 1) if tags_at_half else None
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, std=0.001)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if pretrained:
            load_trunk(self, pretrained_path(pretrained))

    @property
    def strides(self) -> dict[str, int]:
        """Input pixels per cell of each map."""
        strides = {"heatmaps": 4, "tags": 4, "heatmaps_fine": 2, "tags_fine": 2}
        return {name: strides[name] for name in strides if name != "tags_fine" or self.tags_fine is not None}

    @property
    def outputs(self) -> dict[str, str]:
        """State-dict prefix of each last layer → what its channels stand for."""
        names = ["heatmaps", "heatmaps_fine"]
        if self.options["tag_per_keypoint"]:
            names += ["tags", "tags_fine"] if self.options["tags_at_half"] else ["tags"]
        return dict.fromkeys(names, "keypoints")

    @property
    def inputs(self) -> dict[str, tuple[tuple[str | None, int], ...]]:
        """State-dict prefix of the layer that reads maps → what its input channels stand for, and how many each has."""
        tags = "keypoints" if self.options["tag_per_keypoint"] else None
        return {"enlarge.0": ((None, self.options["width"]), ("keypoints", 1), (tags, 1))}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images → maps, all of them without activation.

        Args:
            images: (N, 3, H, W) float, RGB in 0..255; H and W multiples of 32.

        Returns:
            heatmaps (N, K, H/4, W/4) and heatmaps_fine (N, K, H/2, W/2), about 0..1 and not clipped; tags (N, K, H/4, W/4),
            any numbers, and with `tags_at_half` also tags_fine (N, K, H/2, W/2); one channel where all keypoints share a map.
        """
        check_images(images, self.input_multiple)
        features = self.trunk(self.normalise(images))[0]
        heatmaps, tags = self.heatmaps(features), self.tags(features)
        fine = self.refine(self.enlarge(torch.cat([features, heatmaps, tags], dim=1)))
        maps = {"heatmaps": heatmaps, "tags": tags, "heatmaps_fine": self.heatmaps_fine(fine)}
        if self.tags_fine is not None:
            maps["tags_fine"] = self.tags_fine(fine)
        return maps

    def loss(self, maps: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error of the heatmaps where the mask says 1, and what groups the tags (`grouping_loss`).

        As published, the mean runs over all cells, so a masked cell counts as a perfect one.

        Args:
            maps: what `forward` returned.
            targets: heatmaps (N, K, H/4, W/4), mask (N, 1, H/4, W/4), both also with `_fine` at half of the image, and cells
                (N, P, K) int64: flat cell of every labelled keypoint, else −1; with `tags_at_half` also cells_fine.

        Returns:
            heatmaps, heatmaps_fine, push and pull, the last two with their weights; tags of two resolutions count alike.
        """
        losses = {}
        for name, mask in (("heatmaps", "mask"), ("heatmaps_fine", "mask_fine")):
            losses[name] = masked_squares(name, maps[name], targets[name], targets[mask], self.stride)
        losses["push"], losses["pull"] = self._grouping(maps["tags"], targets["cells"])
        if self.tags_fine is not None:
            push, pull = self._grouping(maps["tags_fine"], targets["cells_fine"])
            losses["push"], losses["pull"] = losses["push"] + push, losses["pull"] + pull
        return losses

    def _grouping(self, tags: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        push, pull = grouping_loss(tags.float(), cells, kind=self.options["kind"])
        return self.options["push"] * push, self.options["pull"] * pull
