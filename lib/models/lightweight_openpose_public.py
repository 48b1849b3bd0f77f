"""The layout of Lightweight OpenPose's public files: `checkpoint_iter_N.pth`, and the MobileNet that training starts from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lib.models.foreign import read_kind


def read_public(path: str | Path) -> dict[str, Tensor]:
    """Read a `checkpoint_iter_N.pth` into the conventions of `LightweightOpenPose`, whose names of tensors it has.

    A public file is a training state; its weights alone do as well. Three things are turned: the original was fed BGR (the
    first convolution's input channels are reversed), and its fields have x before y, in the output layers and where a
    refinement stage reads them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file; the sentence says what it is instead, where that shows.
    """
    state = read_kind(path, "a checkpoint of Lightweight OpenPose", "lightweight_openpose")[0]
    essential = ("model.0.0.weight", "initial_stage.heatmaps.1.0.bias", "initial_stage.pafs.1.0.bias")
    if lacking := [key for key in essential if key not in state]:
        raise ValueError(f"{path} lacks {', '.join(lacking)}: it is not a complete checkpoint of Lightweight OpenPose")
    state["model.0.0.weight"] = state["model.0.0.weight"].flip(1)
    fields = len(state["initial_stage.pafs.1.0.bias"])
    for key, value in state.items():
        if re.search(r"\.pafs\.1\.0\.(weight|bias)$", key):
            state[key] = _swap_pairs(value)
        elif re.search(r"^refinement_stages\.\d+\.trunk\.0\.initial\.0\.weight$", key):
            features, pafs = value.tensor_split([-fields], dim=1)
            state[key] = torch.cat([features, _swap_pairs(pafs, dim=1)], dim=1)
    return state


def read_mobilenet(path: str | Path) -> dict[str, Tensor]:
    """Read the trunk out of `mobilenet_sgd_68.848.pth.tar`, an ImageNet classifier, under the names of `LightweightOpenPose`.

    Its last two blocks and its classifier are dropped. The file is older than the counters of batch norms (they begin at
    zero). It was trained on RGB, as ImageNet classifiers of PyTorch are, and so it stays here. The original shows it BGR
    instead and lets training repair that: a wrong turn which is not repeated. That its input had another scale does not
    matter in training, since the first batch norm removes it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file; the sentence says what it is instead, where that shows.
    """
    state = read_kind(path, "a MobileNet classifier", "mobilenet")[0]
    return {key: value for key, value in state.items() if re.match(r"model\.(\d|10|11)\.", key)}


def num_refinement_stages(state: Mapping[str, Any]) -> int:
    """How many refinement stages a state dict has, counted from their names."""
    found = [re.match(r"refinement_stages\.(\d+)\.", key) for key in state]
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _swap_pairs(values: Tensor, dim: int = 0) -> Tensor:
    """Exchange channels 2k and 2k + 1 of one dimension."""
    return values.unflatten(dim, (-1, 2)).flip(dim + 1).flatten(dim, dim + 1)
