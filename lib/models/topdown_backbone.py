"""Backbones of timm (Apache-2.0), each cut off behind the one map that a top-down network reads."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lib import ROOT
from lib.models.foreign import read_foreign

STRIDE = 4
"""Pixels per cell of the map that deconvolutions lead to."""


@dataclass(frozen=True)
class Level:
    """One map of a backbone.

    Attributes:
        index: its number among those that timm knows.
        channels: of the map.
        deconvs: doublings up to `STRIDE`.
        multiple: H and W of the input must be multiples of it.
        channels_last: whether the map is (N, h, w, C), as Swin's is.
        transformer: whether all maps are those of one stack of blocks, which ends in a norm.
        config: what timm says of the backbone's weights: "mean", "std" (of RGB in 0..1), "license", "tag" and more.
    """

    index: int
    channels: int
    deconvs: int
    multiple: int
    channels_last: bool
    transformer: bool
    config: Mapping[str, Any]


def find_level(name: str, deconvs: int | None, options: Mapping[str, Any]) -> Level:
    """The map of a backbone that so many deconvolutions start from, without building it.

    Args:
        name: of the model in timm.
        deconvs: or None for the last map (of an HRNet the finest).
        options: more arguments of timm's model.

    Raises:
        ValueError: timm has no such backbone, or it has no such map; the sentence says what there is.
    """
    from timm.models._features import FeatureGetterNet  # timm takes a second, which no other network shall wait for

    with torch.device("meta"):
        net = _create(name, options)
    info = net.feature_info
    if net.pretrained_cfg.get("fixed_input_size") and "img_size" not in options:
        raise ValueError(f"{name} has learnt positions or windows for one size of picture: set img_size to that of the input, for "
                         "example [256, 192]")  # fmt: skip
    strides = info.reduction()
    fits = {n: strides.index(STRIDE << n) for n in range(8) if STRIDE << n in strides}
    if name.startswith("hrnet"):
        fits = {0: fits[0]}
    if deconvs not in (None, *fits) or not fits:
        raise ValueError(f"{name} has maps at strides {', '.join(map(str, sorted(set(strides))))}: deconvs is "
                         f"{', '.join(map(str, fits)) or 'none of these'}, got {deconvs}")  # fmt: skip
    deconvs = max(fits) if deconvs is None else deconvs
    transformer = isinstance(net, FeatureGetterNet) and len(set(strides)) == 1
    number = len(strides) - 1 if transformer else fits[deconvs]
    # coarser branches of an HRNet come back to the finest
    multiple = max(strides) if name.startswith("hrnet") else strides[number]
    last = str(getattr(net, "output_fmt", "")).endswith("NHWC")
    return Level(info.out_indices[number], info.channels()[number], deconvs, multiple, last, transformer, net.pretrained_cfg)


def build_backbone(name: str, level: Level, options: Mapping[str, Any], pretrained: bool | str) -> nn.Module:
    """A backbone, images normalised → [map], without what comes behind this map.

    Args:
        name, level, options: see `find_level`.
        pretrained: True downloads timm's weights; a path (relative to the repository) is a file of such weights.

    Raises:
        FileNotFoundError, ValueError: no such file, or it does not fit.
        OSError: the download failed.
    """
    from timm.models._features import FeatureGetterNet

    class Normed(FeatureGetterNet):
        """With the norm behind the last block, which timm leaves out by default."""

        def __init__(self, model: nn.Module, **arguments: Any):
            super().__init__(model, norm=True, **arguments)

    options = {**options, "out_indices": (level.index,)} | ({"feature_cls": Normed} if level.transformer else {})
    if not pretrained:
        return _create(name, options)
    given = {"pretrained": True}
    if pretrained is not True:
        path = ROOT / pretrained
        if not path.is_file():
            raise FileNotFoundError(f"pretrained: there is no file {path}")
        if path.suffix != ".safetensors":
            read_foreign(path)  # says what is wrong with it
        given["pretrained_cfg_overlay"] = {"file": str(path)}
    # timm leaves out what does not fit and goes on: what still is as it was born was not in the file
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = _create(name, options).state_dict()
        torch.manual_seed(0)
        loaded = _create(name, {**options, **given})
    missing = [key for key, value in loaded.state_dict().items() if value.ndim > 1 and torch.equal(value, before[key])]
    if missing:
        raise ValueError(f"{pretrained} lacks {len(missing)} of the backbone's tensors, the first is "
                         f"{missing[0]}: is it a file of timm's {name}?")  # fmt: skip
    return loaded


def _create(name: str, options: Mapping[str, Any]) -> nn.Module:
    """timm's backbone, without what timm itself leaves behind the map: coarser outputs of an HRNet, blocks of an EfficientNet."""
    import timm

    if name.partition(".")[0] not in timm.list_models():
        near = difflib.get_close_matches(name, timm.list_models(), 1)
        raise ValueError(f"timm has no backbone {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    # an HRNet's branches, not the wider maps that its classifier makes of them
    hrnet = {"feature_location": ""} if name.startswith("hrnet") else {}
    try:
        net = timm.create_model(name, features_only=True, **hrnet, **options)
    except Exception as error:  # of timm, or of what it downloads with
        if "pretrained" in options:
            raise OSError(f"timm could not load the weights of {name}: {error}. Give pretrained a file, or false for random "
                          "weights") from error  # fmt: skip
        raise ValueError(f"timm's {name} cannot be a backbone with {dict(options) or 'its defaults'}: {error}") from error
    if hrnet:
        last = net.stage4[-1]
        last.fuse_layers = last.fuse_layers[:1]
    elif hasattr(net, "_stage_out_idx"):
        net.blocks = net.blocks[: max(net._stage_out_idx)]
    return net
