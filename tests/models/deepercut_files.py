"""Dumps as the original DeeperCut's TensorFlow variables would give them, and what TensorFlow computes with such variables.

The second is an independent statement of that program's rules (strides at the end of a stage, SAME padding, the last stage
dilated): tests hold our network against it. It was itself held against TensorFlow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

HEADS = {"heatmaps": "part_pred", "offsets": "locref_pred", "pairwise": "pairwise_pred",
         "logits_intermediate": "intermediate_supervision"}  # fmt: skip


def random_variables(units: Sequence[int] = (1, 2, 3, 2), width: int = 4, keypoints: int = 4, offsets: bool = True,
                     pairwise: bool = True, intermediate: bool = True, heads: bool = True) -> dict[str, np.ndarray]:  # fmt: skip
    """Variables by TensorFlow's names, in its layouts, with values that keep features of ordinary size."""
    rng, k = np.random.default_rng(0), keypoints
    layers = [("conv1", (7, 7, 3, width))]
    source = width
    for stage, count in enumerate(units, start=1):
        middle = width << (stage - 1)
        for unit in range(1, count + 1):
            shapes = {"conv1": (1, 1, source, middle), "conv2": (3, 3, middle, middle), "conv3": (1, 1, middle, 4 * middle)}
            shapes |= {"shortcut": (1, 1, source, 4 * middle)} if unit == 1 else {}
            layers += [(f"block{stage}/unit_{unit}/bottleneck_v1/{name}", shape) for name, shape in shapes.items()]
            source = 4 * middle
    variables = {}
    for name, shape in layers:
        scale = np.sqrt(2 / np.prod(shape[:3])) * (0.02 if name == "conv1" else 1)
        variables[f"resnet_v1_101/{name}/weights"] = rng.normal(0, scale, shape)
        for kind, low, high in (("gamma", 0.5, 1), ("beta", -0.3, 0.3), ("moving_mean", -0.3, 0.3), ("moving_variance", 0.5, 1.5)):
            variables[f"resnet_v1_101/{name}/BatchNorm/{kind}"] = rng.uniform(low, high, shape[-1])
    wanted = {"part_pred": (k, source), "locref_pred": (2 * k * offsets, source), "pairwise_pred": (2 * k * (k - 1) * pairwise, source),
              "intermediate_supervision": (k * intermediate, source // 2)}  # fmt: skip
    for name, (outputs, channels) in wanted.items():
        if outputs and heads:
            variables[f"pose/{name}/block4/weights"] = rng.normal(0, 0.05, (3, 3, outputs, channels))
            variables[f"pose/{name}/block4/biases"] = rng.normal(0, 0.1, outputs)
    # what stands beside them: the classifier, and an optimiser's state
    variables["resnet_v1_101/logits/weights"] = rng.normal(size=(1, 1, source, 5))
    variables["resnet_v1_101/conv1/weights/Momentum"] = rng.normal(size=(7, 7, 3, width))
    variables["global_step"] = np.array(7, np.int64)
    return {name: values if name == "global_step" else values.astype(np.float32) for name, values in variables.items()}


def write_dump(path: Path, variables: Mapping[str, np.ndarray]) -> Path:
    """An `.npz` as pretrained/README.md makes it."""
    np.savez(path, **variables)
    return path


def tensorflow_maps(variables: Mapping[str, np.ndarray], images: Tensor, unit: int) -> dict[str, Tensor]:
    """Maps of images (N, 3, H, W), RGB in 0..255, before any sigmoid; `unit` is the intermediate detector's, from 1."""
    tensors = {name.removeprefix("resnet_v1_101/"): torch.from_numpy(values) for name, values in variables.items()}
    x = _normed(tensors, "conv1", F.pad(images - torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1), (3, 3, 3, 3)), 2).relu()
    x = middle = F.max_pool2d(_same(x, 3, 2, -torch.inf), 3, 2)
    for stage, number, last in _units(tensors):
        stride, rate = (2, 1) if last and stage < 3 else (1, 2 if stage == 4 else 1)
        x = _unit(tensors, f"block{stage}/unit_{number}/bottleneck_v1", x, stride, rate)
        middle = x if (stage, number) == (3, unit) else middle
    maps = {}
    for ours, name in HEADS.items():
        if f"pose/{name}/block4/weights" in tensors:
            kernel = tensors[f"pose/{name}/block4/weights"].permute(3, 2, 0, 1)
            features = middle if ours == "logits_intermediate" else x
            # the gradient of a convolution with SAME padding, which on an even size pads behind alone
            height, width = (2 * side for side in features.shape[2:])
            spread = torch.zeros(len(x), kernel.shape[1], height + 1, width + 1)
            for row in range(3):
                for column in range(3):
                    part = torch.einsum("nchw,co->nohw", features, kernel[..., row, column])
                    spread[:, :, row : row + height : 2, column : column + width : 2] += part
            maps[ours] = spread[..., :height, :width] + tensors[f"pose/{name}/block4/biases"].view(1, -1, 1, 1)
    return maps


def _units(tensors: Mapping[str, Tensor]) -> Iterator[tuple[int, int, bool]]:
    for stage in range(1, 5):
        count = sum(name.startswith(f"block{stage}/") and name.endswith("conv1/weights") for name in tensors)
        yield from ((stage, number, number == count) for number in range(1, count + 1))


def _unit(tensors: Mapping[str, Tensor], name: str, x: Tensor, stride: int, rate: int) -> Tensor:
    shortcut = _normed(tensors, f"{name}/shortcut", x) if f"{name}/shortcut/weights" in tensors else x
    y = _normed(tensors, f"{name}/conv1", x).relu()
    y = _normed(tensors, f"{name}/conv2", F.pad(y, (rate,) * 4), stride, rate).relu()
    return (shortcut[..., ::stride, ::stride] + _normed(tensors, f"{name}/conv3", y)).relu()


def _normed(tensors: Mapping[str, Tensor], name: str, x: Tensor, stride: int = 1, rate: int = 1) -> Tensor:
    x = F.conv2d(x, tensors[f"{name}/weights"].permute(3, 2, 0, 1), stride=stride, dilation=rate)
    mean, variance, gamma, beta = (tensors[f"{name}/BatchNorm/{kind}"].view(1, -1, 1, 1)
                                   for kind in ("moving_mean", "moving_variance", "gamma", "beta"))  # fmt: skip
    return (x - mean) / (variance + 1e-5).sqrt() * gamma + beta


def _same(x: Tensor, kernel: int, stride: int, value: float) -> Tensor:
    before_after = []
    for side in reversed(x.shape[2:]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        before_after += [total // 2, total - total // 2]
    return F.pad(x, before_after, value=value)
