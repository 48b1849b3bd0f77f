"""Public files of Lightweight OpenPose, made from a table of their tensors, and the maps that such a file means."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512)
STRIDED, DILATED = (2, 4), 7


def original_state(stages: int = 1, keypoints: int = 18, limbs: int = 19, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors, statistics of batch norms too, under the public names."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def conv(name: str, out: int, channels: int, size: int = 1, bias: bool = True):
        values = torch.randn(out, channels, size, size, generator=generator)
        state[f"{name}.weight"] = values * (1.6 / (channels * size**2)) ** 0.5
        if bias:
            state[f"{name}.bias"] = 0.1 * torch.randn(out, generator=generator)

    def norm(name: str, width: int):
        for key, least, most in (("weight", 0.6, 1.4), ("bias", -0.2, 0.2), ("running_mean", -0.2, 0.2), ("running_var", 0.5, 2)):
            state[f"{name}.{key}"] = least + (most - least) * torch.rand(width, generator=generator)
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def heads(name: str, width: int):
        for kind, channels in (("heatmaps", keypoints + 1), ("pafs", 2 * limbs)):
            conv(f"{name}.{kind}.0.0", width, 128)
            conv(f"{name}.{kind}.1.0", channels, width)

    conv("model.0.0", 32, 3, 3, bias=False)
    norm("model.0.1", 32)
    for i in range(1, 12):
        conv(f"model.{i}.0", WIDTHS[i - 1], 1, 3, bias=False)
        norm(f"model.{i}.1", WIDTHS[i - 1])
        conv(f"model.{i}.3", WIDTHS[i], WIDTHS[i - 1], bias=False)
        norm(f"model.{i}.4", WIDTHS[i])
    conv("cpm.align.0", 128, 512)
    for i in range(3):
        conv(f"cpm.trunk.{i}.0", 128, 1, 3, bias=False)
        conv(f"cpm.trunk.{i}.2", 128, 128, bias=False)
    conv("cpm.conv.0", 128, 128, 3)
    for i in range(3):
        conv(f"initial_stage.trunk.{i}.0", 128, 128, 3)
    heads("initial_stage", 512)
    for stage in range(stages):
        for i in range(5):
            block = f"refinement_stages.{stage}.trunk.{i}"
            conv(f"{block}.initial.0", 128, 128 if i else 128 + keypoints + 1 + 2 * limbs)
            for half in range(2):
                conv(f"{block}.trunk.{half}.0", 128, 128, 3)
                norm(f"{block}.trunk.{half}.1", 128)
        heads(f"refinement_stages.{stage}", 128)
    return state


def original_maps(state: dict[str, Tensor], images: Tensor, stages: int) -> list[tuple[Tensor, Tensor]]:
    """Heatmaps and fields (x before y) of every stage, computed straight from a file's tensors.

    Args:
        state: as `original_state` makes it.
        images: (N, 3, H, W) BGR, (value − 128) / 256.
        stages: how many refinement stages to run.
    """

    def conv(name: str, x: Tensor, dilation: int = 1, stride: int = 1, norm: str = "") -> Tensor:
        weight = state[f"{name}.weight"]
        groups = x.shape[1] // weight.shape[1]
        padding = dilation * (weight.shape[-1] // 2)
        x = functional.conv2d(x, weight, state.get(f"{name}.bias"), stride, padding, dilation, groups)
        if norm:
            mean, var, gain, bias = (state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
            x = functional.batch_norm(x, mean, var, gain, bias)
        return x

    x = conv("model.0.0", images, stride=2, norm="model.0.1").relu()
    for i in range(1, 12):
        name, stride, dilation = f"model.{i}", 2 if i in STRIDED else 1, 2 if i == DILATED else 1
        x = conv(f"{name}.0", x, dilation, stride, norm=f"{name}.1").relu()
        x = conv(f"{name}.3", x, norm=f"{name}.4").relu()
    y = x = conv("cpm.align.0", x).relu()
    for i in range(3):
        y = functional.elu(conv(f"cpm.trunk.{i}.2", functional.elu(conv(f"cpm.trunk.{i}.0", y))))
    features = y = conv("cpm.conv.0", x + y).relu()

    def heads(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(conv(f"{name}.{kind}.1.0", conv(f"{name}.{kind}.0.0", x).relu()) for kind in ("heatmaps", "pafs"))

    for i in range(3):
        y = conv(f"initial_stage.trunk.{i}.0", y).relu()
    maps = [heads("initial_stage", y)]
    for stage in range(stages):
        y = torch.cat([features, *maps[-1]], dim=1)
        for i in range(5):
            block = f"refinement_stages.{stage}.trunk.{i}"
            x = conv(f"{block}.initial.0", y).relu()
            y = conv(f"{block}.trunk.0.0", x, norm=f"{block}.trunk.0.1").relu()
            y = x + conv(f"{block}.trunk.1.0", y, dilation=2, norm=f"{block}.trunk.1.1").relu()
        maps.append(heads(f"refinement_stages.{stage}", y))
    return maps


def training_state(state: dict[str, Tensor]) -> dict:
    """What stands in a `checkpoint_iter_N.pth` around the weights."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([{"params": [parameter], "lr": 8e-5, "weight_decay": 0}])
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [100, 200, 260], gamma=0.333)
    parameter.sum().backward()
    optimizer.step()
    return {"state_dict": state, "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(),
            "iter": 370_000, "current_epoch": 246}  # fmt: skip


def mobilenet_content(state: dict[str, Tensor]) -> dict:
    """What stands in `mobilenet_sgd_68.848.pth.tar`, with the trunk of `state`."""
    counters = "num_batches_tracked"  # did not exist yet
    trunk = {key: value for key, value in state.items() if key.startswith("model.") and not key.endswith(counters)}
    for i, width in ((12, 512), (13, 1024)):
        trunk |= {f"model.{i}.0.weight": torch.zeros(width, 1, 3, 3), f"model.{i}.3.weight": torch.zeros(1024, width, 1, 1)}
    trunk |= {"fc.weight": torch.zeros(1000, 1024), "fc.bias": torch.zeros(1000)}
    return {"epoch": 90, "arch": "mobilenet", "best_prec1": 68.848, "optimizer": {"state": {}, "param_groups": []},
            "state_dict": {f"module.{key}": value for key, value in trunk.items()}}  # fmt: skip


def save_legacy(content: dict, path: Path, monkeypatch) -> Path:
    """Save as PyTorch 0.4 did on a GPU: no zip file, and tensors that say "cuda:0"."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(content, path, _use_new_zipfile_serialization=False)
    return path
