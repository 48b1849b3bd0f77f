"""HRNet's tensors under the names and in the containers of public files, made from networks of ours."""

from __future__ import annotations

import random
import re

import numpy as np
import torch
from torch import Tensor, nn

MINI = {"width": 8, "blocks": 1, "modules": [1, 1, 2], "stem": 8, "bottlenecks": 2}
"""A trunk whose numbers all differ from each other where they can, for tests."""


def official(network: nn.Module) -> dict[str, Tensor]:
    """As HRNet-Image-Classification and HigherHRNet write it: one output layer for heatmaps and tags."""
    state, joined = {}, {}
    for key, value in network.state_dict().items():
        part, _, rest = key.partition(".")
        if part.removesuffix("_fine") in ("heatmaps", "tags"):
            joined.setdefault(f"final_layers.{1 if part.endswith('_fine') else 0}.{rest}", {})[part[:4]] = value
        else:
            state[_official_name(key)] = value
    return state | {
        key: torch.cat([values[part] for part in ("heat", "tags") if part in values]) for key, values in joined.items()
    }


def thawro(network: nn.Module) -> dict[str, Tensor]:
    """As thawro/pytorch-human-pose writes it."""
    return {_thawro_name(key): value for key, value in official(network).items()}


def mmpose(network: nn.Module) -> dict:
    """As mmpose 0.x writes a pose network."""
    head = ("final_layers.", "deconv_layers.")
    state = {
        ("keypoint_head." if key.startswith(head) else "backbone.") + key: v for key, v in official(network).items()
    }
    return {"meta": {"epoch": 3, "config": "model = dict()"}, "state_dict": state, "optimizer": {}}


def imagenet_of_pose(network: nn.Module) -> dict[str, Tensor]:
    """As the ImageNet weights look that pose networks start from: a trunk and a head with names of its own."""
    state = {}
    for key, value in official(network).items():
        if key.startswith("incre_modules."):
            key = key.replace("incre_modules.", "head.0.")
        elif key.startswith(("downsamp_modules.", "final_layer.", "classifier.")):
            key = f"head.1.{key}"
        state[key] = value
    return state


def half_behind_a_cast(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As a network in half precision is saved: everything but batch norms in float16, names behind `1.`."""
    return {f"1.{key}": value.half() if value.ndim > 1 else value for key, value in state.items()}


def training_state(state: dict[str, Tensor]) -> dict:
    """As `checkpoint.pth.tar` looks: the network's name under "model", its weights under "state_dict"."""
    state = {f"module.{key}": value for key, value in state.items()}
    return {"epoch": 3, "model": "pose_higher_hrnet", "state_dict": state, "perf": 3, "optimizer": {"state": {}}}


def thawro_training_state(state: dict[str, Tensor]) -> dict:
    """As `best.pt` looks, with the random numbers of Python, NumPy and torch."""
    random_states = {"random_state": random.getstate(), "torch_random_state": torch.get_rng_state(),
                     "numpy_random_state": np.random.RandomState(1).get_state()}  # fmt: skip
    return {
        "module": {"model": state, "optimizers": {"optim": {"state": {}, "param_groups": [{"lr": 1e-3}]}}},
        "datamodule": random_states, "metrics": {"steps": {"metrics": {"loss": {"train": [{"step": 1, "value": np.float64(2)}]}}}},
        "callbacks": {"SaveModelCheckpoint": {"best": np.float32(0.5)}}, "logger": {"mlflow": "0123"}, "epoch": 3, "step": 9,
    }  # fmt: skip


def _official_name(key: str) -> str:
    part, *rest = key.split(".")
    if part == "trunk":
        part, *rest = rest
        if part == "stem":
            layer, kind, *rest = rest
            return ".".join([f"{'bn' if kind == '1' else 'conv'}{int(layer) + 1}", *rest])
        if part == "stages":
            stage, module, kind, *rest = rest
            return ".".join([f"stage{int(stage) + 2}", module, {"fuse": "fuse_layers"}.get(kind, kind), *rest])
        if part == "down":
            n = int(rest.pop(0)) + 1
            return ".".join([f"transition{n}", str(n), "0", *rest])
        return ".".join([{"first": "layer1", "entry": "transition1.0"}[part], *rest])
    if part == "widen":
        return ".".join(["incre_modules", rest[0], "0", *rest[1:]])
    if part == "refine":
        return ".".join(["deconv_layers.0", str(int(rest[0]) + 1), "0", *rest[1:]])
    names = {
        "down": "downsamp_modules",
        "last": "final_layer",
        "classify": "classifier",
        "enlarge": "deconv_layers.0.0",
    }
    return ".".join([names[part], *rest])


def _thawro_name(key: str) -> str:
    part, *rest = key.split(".")
    if re.fullmatch(r"(conv|bn)[12]", part):
        return f"backbone.{key}"
    if part == "layer1":
        return ".".join(["backbone.stages.0.blocks.0.scales_blocks.0", *rest])
    if part.startswith("transition"):
        stage = int(part[-1]) - 1
        rest = rest if rest[0] == "0" else [rest[0], *rest[2:]]
        return ".".join([f"backbone.stages.{stage}.transition_layer.transition_blocks", *rest])
    if part.startswith("stage"):
        block = 2 * int(rest[0]) + (rest[1] == "fuse_layers")
        kind = {"branches": "scales_blocks", "fuse_layers": "scales_fusion_layers"}[rest[1]]
        return ".".join([f"backbone.stages.{int(part[-1]) - 1}.blocks.{block}.{kind}", *rest[2:]])
    if part == "final_layers":
        return ".".join(["init_heatmaps_head" if rest[0] == "0" else "deconv_layers.0.final_layer", *rest[1:]])
    if part == "deconv_layers":
        block, inside = int(rest[1]), rest[2:]
        return ".".join(["deconv_layers.0.deconv", *inside] if block == 0 else
                        [f"deconv_layers.0.resid_blocks.{block - 1}", *inside[1:]])  # fmt: skip
    if part == "incre_modules":
        return ".".join(["classification_head.chann_incr_blocks", rest[0], *rest[2:]])
    names = {"downsamp_modules": "downsample_blocks", "final_layer": "final_conv", "classifier": "classifier"}
    return ".".join(["classification_head", names[part], *rest])
