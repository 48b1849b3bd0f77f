"""Public top-down networks under the names of `TopDown`: SimpleBaseline and HRNet, by their authors or by MMPose.

Names of ResNets and HRNets in these files are those of timm, which took them from the same sources.

| written by | holds |
| --- | --- |
| microsoft/human-pose-estimation.pytorch | SimpleBaseline (`pose_resnet_50_256x192.pth.tar`), of blue, green, red |
| leoxiaobin/deep-high-resolution-net.pytorch | HRNet (`pose_hrnet_w32_256x192.pth`), and SimpleBaseline like Microsoft's |
| mmpose 0.x and 1.x | either, also with DARK or UDP (`td-hm_hrnet-w32_udp-…256x192-….pth`) |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lib.models.foreign import read_kind
from lib.models.images import IMAGENET_MEAN, IMAGENET_STD

RESNETS = {"2 2 2 2": "resnet18", "3 4 6 3": "resnet50", "3 4 23 3": "resnet101", "3 8 36 3": "resnet152"}
_NAMES = ((r"(?:keypoint_)?head\.", ""), (r"backbone\.", ""), (r"(?!deconv_layers|final_layer)", "backbone."),
          (r"deconv_layers\.", "deconvs."), (r"final_layer\.", "heatmaps."))  # fmt: skip


def read_public(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any], tuple[int, int]]:
    """Read a public file of any of the layouts above.

    Returns:
        Tensors under the names of `TopDown`; its options; those of a `HeatmapCodec` that reads its maps as published; and
        (height, width) of the input, as the file's name says it, else 256 × 192.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or a network that no backbone here is like.
    """
    path = Path(path)
    theirs, _, content = read_kind(path, "a top-down checkpoint", "topdown")
    mmpose = any(key.startswith("backbone.") for key in theirs)
    state = {_renamed(key): value.float() if value.is_floating_point() else value for key, value in theirs.items()}
    backbone = _backbone(state, path)
    deconvs = [value for key, value in state.items() if key.startswith("deconvs.") and value.ndim == 4]
    if any(value.shape[2:] != (4, 4) for value in deconvs) or state["heatmaps.weight"].shape[2:] != (1, 1):
        raise ValueError(f"{path}: deconvolutions here are 4×4 and the last convolution is 1×1; those of the file are others")
    options = {"backbone": backbone, "deconvs": len(deconvs), "mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD),
               "bgr": not mmpose and backbone.startswith("resnet")}  # fmt: skip
    if deconvs:
        options["deconv_width"] = deconvs[0].shape[1]
    sides = [(int(height), int(width)) for height, width in re.findall(r"(?<!\d)(\d{3})x(\d{3})(?!\d)", path.name)]
    size = next((size for size in sides if not (size[0] % 32 or size[1] % 32)), (256, 192))
    return state, options, _codec_options(content, path.name, size), size


def _codec_options(content: Mapping[str, Any], name: str, size: tuple[int, int]) -> dict[str, Any]:
    """How its maps were drawn and are read: as the name of the file says, or the configuration that MMPose stores in it."""
    meta = content.get("meta")
    said = f"{name} {meta.get('cfg', '') if isinstance(meta, Mapping) else ''}".lower()
    options = {"sigma": 3.0 if min(size) >= 288 else 2.0, "cells": "first", "refine": "quarter", "unbiased": False}
    if "udp" in said:
        return options | {"cells": "ends", "refine": "udp", "unbiased": True}
    if "dark" in said or "unbiased=true" in said.replace(" ", ""):
        return options | {"refine": "dark", "unbiased": True}
    return options


def _backbone(state: Mapping[str, Tensor], path: Path) -> str:
    """timm's name of it."""
    if "backbone.transition1.0.0.weight" in state:
        return f"hrnet_w{len(state['backbone.transition1.0.0.weight'])}"
    blocks = [1 + max((int(key.split(".")[2]) for key in state if key.startswith(f"backbone.layer{n}.")), default=-1)
              for n in (1, 2, 3, 4)]  # fmt: skip
    name = RESNETS.get(" ".join(map(str, blocks)))
    if name == "resnet50" and "backbone.layer1.0.conv3.weight" not in state:
        name = "resnet34"
    if name is None or "caffe" in path.name.lower():
        raise ValueError(f"{path} has a backbone that timm lacks: "
                         + (f"stages of {blocks} blocks" if name is None else "a ResNet of Caffe's kind, which strides elsewhere"))  # fmt: skip
    return name


def _renamed(key: str) -> str:
    for pattern, replacement in _NAMES:
        key = re.sub(rf"\A{pattern}", replacement, key, count=1)
    return key
