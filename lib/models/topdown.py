"""Top-down networks (SimpleBaseline, Xiao et al. 2018, arXiv:1804.06208): any backbone of timm, deconvolutions up to a quarter of
the crop, and one heatmap for every keypoint of the person in its middle.

HRNet (Sun et al. 2019, arXiv:1902.09212) needs no deconvolution: its finest branch has that resolution from end to end. A ViT
with two deconvolutions is ViTPose (Xu et al. 2022, arXiv:2204.12484).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lib.models.images import ImageNetNormalise, check_images
from lib.models.maps_loss import check_targets
from lib.models.topdown_backbone import STRIDE, build_backbone, find_level
from lib.skeleton import Skeleton


class TopDown(nn.Module):
    """One heatmap for every keypoint of one person, at a quarter of the crop.

    Args:
        skeleton: K keypoints decide the number of output channels; limbs are not needed.
        backbone: a model of timm that has `features_only`, such as resnet50, mobilenetv4_conv_medium, hrnet_w32 or
            vit_small_patch16_224.
        deconvs: how many deconvolutions double the backbone's map up to stride 4, and so which of its maps that is: 3 takes the
            one with stride 32, 0 that with stride 4, and what comes behind it is cut off. None takes the last map (of an HRNet
            the finest).
        deconv_width: channels of every deconvolution.
        img_size: (H, W) of the input, for a backbone with learnt positions or windows (ViT, Swin); None for all others.
        backbone_options: more arguments of timm's model, for example {"drop_path_rate": 0.1}.
        mean, std: of RGB in 0..1; None for what timm's weights of this backbone were trained with.
        bgr: the network sees the colours in the other order, normalised by the numbers of the first (Microsoft's weights).
        joint_weights: keypoint, or the last part of its name ("left_elbow" or "elbow") → how much it counts in the loss; others
            count 1.
        ohkm: how many keypoints of a person, the worst, count in the loss (online hard keypoint mining); None for all.
        pretrained: True downloads timm's weights of the backbone, a path (relative to the repository) is a file of such weights.
            Their name and licence are printed.

    Attributes:
        stride: input pixels per cell.
        input_multiple: H and W of the input must be multiples of it.
        info: name and licence of the weights that the backbone started from, if any: to be kept in a checkpoint's `info`.

    Raises:
        ValueError: options out of range, a backbone that timm does not have or that has no such map, or weights that do not fit.
        FileNotFoundError, OSError: `pretrained` is not there, or cannot be downloaded.
    """

    stride = STRIDE
    inseparable = ("mean", "std", "bgr")

    def __init__(self, skeleton: Skeleton, backbone: str = "resnet50", deconvs: int | None = None, deconv_width: int = 256,
                 img_size: Sequence[int] | None = None, backbone_options: Mapping[str, Any] | None = None,
                 mean: Sequence[float] | None = None, std: Sequence[float] | None = None, bgr: bool = False,
                 joint_weights: Mapping[str, float] | None = None, ohkm: int | None = None,
                 pretrained: bool | str = False):  # fmt: skip
        super().__init__()
        if deconv_width < 1 or not (ohkm is None or 1 <= ohkm <= skeleton.num_keypoints):
            raise ValueError(f"deconv_width is 1 or more, got {deconv_width}; ohkm is null or from 1 to the skeleton's "
                             f"{skeleton.num_keypoints} keypoints, got {ohkm}")  # fmt: skip
        timm_options = {**(backbone_options or {})} | ({"img_size": tuple(img_size)} if img_size else {})
        level = find_level(backbone, deconvs, timm_options)
        mean, std = list(mean or level.config["mean"]), list(std or level.config["std"])
        self.skeleton, self._level = skeleton, level
        self.options: dict[str, Any] = {
            "backbone": backbone, "deconvs": level.deconvs, "deconv_width": deconv_width, "img_size": img_size and list(img_size),
            "backbone_options": dict(backbone_options or {}), "mean": mean, "std": std, "bgr": bgr,
            "joint_weights": dict(joint_weights or {}), "ohkm": ohkm, "pretrained": False,
        }  # fmt: skip
        self.input_multiple, self.info = level.multiple, {}
        self.normalise = ImageNetNormalise(mean, std)
        self.backbone = build_backbone(backbone, level, timm_options, pretrained)
        layers, width = [], level.channels
        for _ in range(level.deconvs):
            layers += [nn.ConvTranspose2d(width, deconv_width, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(deconv_width),
                       nn.ReLU(inplace=True)]  # fmt: skip
            width = deconv_width
        self.deconvs = nn.Sequential(*layers)
        self.heatmaps = nn.Conv2d(width, skeleton.num_keypoints, 1)
        for module in (*self.deconvs, self.heatmaps):
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, std=0.001)
        nn.init.zeros_(self.heatmaps.bias)
        weights = torch.tensor(weights_of_keypoints(skeleton, joint_weights or {}))
        self.register_buffer("joint_weights", weights, persistent=False)
        if pretrained:
            source = pretrained if isinstance(pretrained, str) else f"timm's {backbone}, {level.config.get('tag') or 'without a tag'}"
            self.info = {"backbone_weights": source, "licence": level.config.get("license") or "not stated"}
            print(f"the backbone starts from {source}; licence of {backbone}'s weights, by timm: {self.info['licence']}")

    @property
    def outputs(self) -> dict[str, str]:
        """State-dict prefix of the last layer → what its channels stand for."""
        return {"heatmaps": "keypoints"}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Crops → maps without activation.

        Args:
            images: (N, 3, H, W) float, RGB in 0..255; H and W multiples of `input_multiple`, and `img_size` if that is set.

        Returns:
            heatmaps (N, K, H/4, W/4), about 0..1 and not clipped.
        """
        check_images(images, self.input_multiple, self.options["img_size"])
        features = self.backbone(self.normalise(images.flip(1) if self.options["bgr"] else images))[0]
        if self._level.channels_last:
            features = features.permute(0, 3, 1, 2).contiguous()
        return {"heatmaps": self.heatmaps(self.deconvs(features))}

    def loss(self, maps: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error of the heatmaps of labelled keypoints where the mask says 1.

        As published, the mean runs over all cells of all keypoints, so one that is not labelled counts as a perfect one; with
        `ohkm` it runs over each person's worst keypoints. (Microsoft's code halves it, MMPose's does not.)

        Args:
            maps: what `forward` returned.
            targets: heatmaps (N, K, H/4, W/4), weights (N, K), mask (N, 1, H/4, W/4).

        Returns:
            heatmaps, a scalar.
        """
        answers, wanted = maps["heatmaps"], targets["heatmaps"]
        check_targets("heatmaps", answers, wanted, f"stride={self.stride}")
        # squares of small numbers vanish in half precision
        errors = (targets["mask"] * (answers.float() - wanted.float()).square()).mean(dim=(2, 3))
        errors = errors * targets["weights"] * self.joint_weights
        if self.options["ohkm"]:
            errors = errors.topk(self.options["ohkm"], dim=1).values
        return {"heatmaps": errors.mean()}


def weights_of_keypoints(skeleton: Skeleton, joint_weights: Mapping[str, float]) -> list[float]:
    """Weight of every keypoint in the loss: that of its name, else that of the last part of its name, else 1.

    Raises:
        ValueError: a name that no keypoint has, or a weight below 0.
    """
    part = lambda name: name.rpartition("_")[2]
    known = {*skeleton.keypoints, *map(part, skeleton.keypoints)}
    for name, weight in joint_weights.items():
        if name not in known or not weight >= 0:
            raise ValueError(f"joint_weights: {name!r} with the weight {weight} is no keypoint of skeleton {skeleton.name!r} (nor the "
                             f"last part of one) with a weight of 0 or more; it has {', '.join(skeleton.keypoints)}")  # fmt: skip
    return [float(joint_weights.get(name, joint_weights.get(part(name), 1.0))) for name in skeleton.keypoints]
