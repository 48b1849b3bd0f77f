"""Top-down networks (SimpleBaseline, Xiao et al. 2018, arXiv:1804.06208): any backbone of timm, deconvolutions up to a quarter of
the image, and one heatmap for every keypoint of the person in the middle.

HRNet (Sun et al. 2019, arXiv:1902.09212) needs no deconvolution, its first branch has that resolution from end to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lib.models.images import ImageNetNormalise, check_images
from lib.skeleton import Skeleton

STRIDE = 4


class TopDown(nn.Module):
    """One heatmap for every keypoint of one person, at a quarter of the crop.

    Args:
        skeleton: K keypoints decide the number of output channels; limbs are not needed.
        backbone: a model of timm that has `features_only`, such as resnet50, mobilenetv4_conv_medium, hrnet_w32, vit_small_patch16_224.
        deconvs: how many deconvolutions double the backbone's map up to stride 4, and so which of its maps it is: 3 takes the
            one with stride 32, 0 that with stride 4, and what lies behind is cut off. None takes the last map (of an HRNet
            the finest).
        deconv_width: channels of every deconvolution.
        img_size: (H, W) of the input for a backbone with learnt positions or windows for one size, ViT and Swin; None for others.
        joint_weights: keypoint or part of one ("left_elbow", "elbow") → how much more it counts in the loss; others count 1.
        ohkm: how many of a person's keypoints, the worst, count in the loss (online hard keypoint mining); None for all.
        pretrained: True downloads timm's weights of the backbone.

    Attributes:
        stride: input pixels per cell.
        input_multiple: H and W of the input must be multiples of it.

    Raises:
        ValueError: options out of range, or a backbone that timm does not have or that has no such map.
    """

    stride = STRIDE

    def __init__(self, skeleton: Skeleton, backbone: str = "resnet50", deconvs: int | None = None, deconv_width: int = 256,
                 img_size: Sequence[int] | None = None, joint_weights: Mapping[str, float] | None = None,
                 ohkm: int | None = None, pretrained: bool | str = False):  # fmt: skip
        super().__init__()
        self.skeleton = skeleton
        self.options: dict[str, Any] = {
            "backbone": backbone, "deconvs": deconvs, "deconv_width": deconv_width, "img_size": img_size,
            "joint_weights": joint_weights, "ohkm": ohkm, "pretrained": False,
        }  # fmt: skip
        self.normalise = ImageNetNormalise()
        self.backbone, level = create_backbone(backbone, deconvs, img_size, pretrained)
        self.channels_last = level["nhwc"]
        self.input_multiple = level["multiple"]
        layers, width = [], level["channels"]
        for _ in range(level["deconvs"]):
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

    @property
    def outputs(self) -> dict[str, str]:
        """State-dict prefix of the last layer → what its channels stand for."""
        return {"heatmaps": "keypoints"}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Crops → maps without activation.

        Args:
            images: (N, 3, H, W) float, RGB in 0..255; H and W multiples of `input_multiple`.

        Returns:
            heatmaps (N, K, H/4, W/4), about 0..1 and not clipped.
        """
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            check_images(images, self.input_multiple)
        features = self.backbone(self.normalise(images))[0]
        if self.channels_last:
            features = features.permute(0, 3, 1, 2).contiguous()
        return {"heatmaps": self.heatmaps(self.deconvs(features))}

    def loss(self, maps: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean squared error of the heatmaps of labelled keypoints where the mask says 1.

        As published, the mean runs over all cells of all keypoints, so one that is not labelled counts as a perfect one; with
        `ohkm` it runs over each person's worst keypoints. (Microsoft's code halves the first of the two, which Adam undoes.)

        Args:
            maps: what `forward` returned.
            targets: heatmaps (N, K, H/4, W/4), weights (N, K), mask (N, 1, H/4, W/4).

        Returns:
            heatmaps, a scalar.
        """
        answers, wanted = maps["heatmaps"], targets["heatmaps"]
        if answers.shape != wanted.shape:
            raise ValueError(f"heatmaps: the network's maps are {tuple(answers.shape)}, the targets {tuple(wanted.shape)}; give the "
                             f"codec stride={self.stride} and this skeleton")  # fmt: skip
        # squares of small numbers vanish in half precision
        errors = (targets["mask"] * (answers.float() - wanted.float()).square()).mean(dim=(2, 3))
        errors = errors * targets["weights"] * self.joint_weights
        if self.options["ohkm"]:
            errors = errors.topk(self.options["ohkm"], dim=1).values
        return {"heatmaps": errors.mean()}


def create_backbone(name: str, deconvs: int | None, img_size: Sequence[int] | None, pretrained: bool) -> tuple[nn.Module, dict]:
    """A backbone that returns one map, and what is to be known of this map."""
    import timm  # takes a second, which no other network shall wait for

    options: dict[str, Any] = {"img_size": tuple(img_size)} if img_size else {}
    if name.startswith("hrnet"):
        options["feature_location"] = ""
    with torch.device("meta"):
        probe = timm.create_model(name, features_only=True, **options)
    info = list(zip(probe.feature_info.out_indices, probe.feature_info.channels(), probe.feature_info.reduction()))
    if deconvs is None and name.startswith("hrnet"):
        deconvs = 0
    level = info[-1] if deconvs is None else [entry for entry in info if entry[2] == STRIDE * 2**deconvs][-1]
    index, channels, reduction = level
    backbone = timm.create_model(name, pretrained=pretrained, features_only=True, out_indices=(index,), **options)
    if name.startswith("hrnet"):
        last = backbone.stage4[-1]
        last.fuse_layers = last.fuse_layers[:1]
        reduction_multiple = 32
    else:
        reduction_multiple = max(reduction, STRIDE)
    nhwc = str(getattr(probe, "output_fmt", "NCHW")).endswith("NHWC")
    return backbone, {"nhwc": nhwc, "multiple": reduction_multiple, "channels": channels,
                      "deconvs": (reduction // STRIDE).bit_length() - 1}  # fmt: skip


def weights_of_keypoints(skeleton: Skeleton, joint_weights: Mapping[str, float]) -> list[float]:
    """Weight of every keypoint in the loss: that of its name, else that of its last part, else 1."""
    return [float(joint_weights.get(name, joint_weights.get(name.split("_")[-1], 1.0))) for name in skeleton.keypoints]
