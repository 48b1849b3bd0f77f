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
TIMM_ERRORS = (RuntimeError, AssertionError, TypeError, AttributeError, KeyError, ValueError, NotImplementedError)


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
        mean, std: what its weights were trained with, of RGB in 0..1.
        licence, weights: of these weights, and their name.
    """

    index: int
    channels: int
    deconvs: int
    multiple: int
    channels_last: bool
    transformer: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    weights: str


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
    config, info = net.pretrained_cfg, net.feature_info
    if config.get("fixed_input_size") and "img_size" not in options:
        raise ValueError(f"{name} has learnt positions or windows for one size of picture: set img_size to that of the input, for "
                         "example [256, 192]")  # fmt: skip
    strides = info.reduction()
    fits = {(stride // STRIDE).bit_length() - 1: number for number, stride in enumerate(strides)
            if stride in (STRIDE << n for n in range(8))}  # fmt: skip
    if _is_hrnet(name):
        fits = {0: fits[0]}
    if not fits or deconvs not in (None, *fits):
        raise ValueError(f"{name} has maps at strides {', '.join(map(str, sorted(set(strides))))}: deconvs is "
                         f"{', '.join(map(str, sorted(fits))) or 'none of these'}, got {deconvs}")  # fmt: skip
    deconvs = max(fits) if deconvs is None else deconvs
    number = fits[deconvs]
    return Level(
        index=info.out_indices[number],
        channels=info.channels()[number],
        deconvs=deconvs,
        # coarser branches of an HRNet come back to the finest
        multiple=max(strides) if _is_hrnet(name) else strides[number],
        channels_last=str(getattr(net, "output_fmt", "")).endswith("NHWC"),
        transformer=isinstance(net, FeatureGetterNet),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        licence=config.get("license") or "not stated",
        weights=f"{config['architecture']}.{config['tag']}" if config.get("tag") else name,
    )


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
        return _trimmed(name, _create(name, options))
    given = {}
    if pretrained is not True:
        path = ROOT / pretrained
        if not path.is_file():
            raise FileNotFoundError(f"pretrained: there is no file {path}")
        if path.suffix != ".safetensors":
            read_foreign(path)  # says what is wrong with it
        given = {"pretrained_cfg_overlay": {"file": str(path)}}
    # timm leaves out what does not fit and goes on: what still is as it was born was not in the file
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = _trimmed(name, _create(name, options)).state_dict()
        torch.manual_seed(0)
        try:
            loaded = _trimmed(name, _create(name, options, pretrained=True, **given))
        except OSError:
            raise
        except Exception as error:  # of whatever library it is downloaded with
            raise OSError(f"{name}: timm could not load {pretrained if given else 'its weights from the network'}: {error}. Give "
                          "pretrained a file, or false for random weights") from error  # fmt: skip
    missing = [key for key, value in loaded.state_dict().items() if value.ndim > 1 and torch.equal(value, before[key])]
    if missing:
        raise ValueError(f"{pretrained if given else name} lacks {len(missing)} of the backbone's tensors, the first is "
                         f"{missing[0]}: is it a file of timm's {name}?")  # fmt: skip
    return loaded


def _create(name: str, options: Mapping[str, Any], **more: Any) -> nn.Module:
    import timm

    if name.partition(".")[0] not in timm.list_models():
        near = difflib.get_close_matches(name, timm.list_models(), 1)
        raise ValueError(f"timm has no backbone {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    # its classifier's pyramid otherwise, which pose networks do not read
    hrnet = {"feature_location": ""} if _is_hrnet(name) else {}
    if more:
        return timm.create_model(name, features_only=True, **hrnet, **options, **more)
    try:
        return timm.create_model(name, features_only=True, **hrnet, **options)
    except TIMM_ERRORS as error:
        raise ValueError(f"timm's {name} cannot be a backbone with {dict(options) or 'its defaults'}: {error}") from error


def _trimmed(name: str, net: nn.Module) -> nn.Module:
    """An HRNet's last exchange without the coarser outputs."""
    if _is_hrnet(name):
        last = net.stage4[-1]
        last.fuse_layers = last.fuse_layers[:1]
    return net


def _is_hrnet(name: str) -> bool:
    return name.startswith("hrnet")
