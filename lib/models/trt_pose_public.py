"""The layout of NVIDIA's public trt_pose files: their names, their keys, and the options they were built with."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib.models.foreign import read_kind
from lib.models.trt_pose import TRUNKS, build_trunk

# public prefix → ours; only the first match of a key counts. With a gate, or without upsampling, X_conv is one layer, else two.
_TRUNK_KEYS = {"0.resnet.": "trunk.", "0.densenet.features.": "trunk.", "0.backbone.layers.": "trunk."}
_CLASSIFIER_KEYS = ("0.resnet.fc.", "0.densenet.classifier.", "0.backbone.classifier.")
_HEAD_KEYS = {"up.": "up.", "att.": "gate.", "conv.0.": "up.", "conv.1.": "output.", "conv.": "output."}


def options_from_name(name: str) -> dict[str, Any]:
    """A public builder's name → options of `TrtPose`: "resnet18_baseline_att" → trunk "resnet18" with attention.

    Raises:
        ValueError: no such builder; the nearest one is named.
    """
    match = re.fullmatch(r"(\w+?)_baseline(_att)?", name)
    if match and match[1] in TRUNKS:
        return {"trunk": match[1], "attention": match[2] is not None}
    if "dla" in name:
        raise ValueError(f"model {name!r} needs a module that the public repository lacks; choose another trunk")
    near = difflib.get_close_matches(name, [f"{trunk}_baseline{att}" for trunk in TRUNKS for att in ("", "_att")], 1)
    raise ValueError(f"model {name!r} is unknown" + (f", did you mean {near[0]!r}?" if near else ""))


def read_public(path: str | Path) -> dict[str, Tensor]:
    """Read a public `.pth` and rename its tensors to those of `TrtPose`; the unused classifier is dropped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not a state dict of a trt_pose network; the sentence says what it is instead, where that shows.
    """
    state = read_kind(path, "a trt_pose state dict", "trt_pose")[0]
    return {_rename(key): value for key, value in state.items() if not key.startswith(_CLASSIFIER_KEYS)}


def options_from_state(state: Mapping[str, Tensor], source: str | Path) -> dict[str, Any]:
    """Find from the shapes of `read_public`'s tensors with which options of `TrtPose` they were made.

    Raises:
        ValueError: no trunk of `TRUNKS` has exactly these tensors.
    """
    ups = [v for k, v in state.items() if re.fullmatch(r"heatmaps\.up\.\d+\.weight", k) and v.ndim == 4]
    doublings = [v for v in ups if v.shape[-1] == 4]
    return {
        "trunk": _find_trunk(state, source),
        "attention": "heatmaps.gate.weight" in state,
        "upsample_channels": doublings[0].shape[1] if doublings else 256,
        "num_upsample": len(doublings),
        "num_flat": len(ups) // len(doublings) - 1 if doublings else 0,
    }


def _find_trunk(state: Mapping[str, Tensor], source: str | Path) -> str:
    found = {k.removeprefix("trunk."): v.shape for k, v in state.items() if k.startswith("trunk.")}
    nearest, most = None, -1
    for name in TRUNKS:
        with torch.device("meta"):
            shapes = {k: v.shape for k, v in build_trunk(name)[0].state_dict().items()}
        if shapes == found:
            return name
        common = len(shapes.items() & found.items())
        nearest, most = (name, common) if common > most else (nearest, most)
    raise ValueError(f"{source}: its {len(found)} trunk tensors fit none of {', '.join(TRUNKS)}; the nearest is {nearest}, "
                     f"which shares {most} of them: is the file complete?")  # fmt: skip


def _rename(key: str) -> str:
    for theirs, ours in _TRUNK_KEYS.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    for theirs, ours in _HEAD_KEYS.items():
        for tower, name in (("1.cmap_", "heatmaps."), ("1.paf_", "pafs.")):
            if key.startswith(tower + theirs):
                return name + ours + key.removeprefix(tower + theirs)
    return key  # unknown: loading reports it under its own name
