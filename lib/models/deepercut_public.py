"""Public weights for a `DeeperCut`: torchvision's ResNets, and dumps of the original's TensorFlow variables.

A dump is an `.npz` or `.safetensors` file with one array for every variable of a TensorFlow checkpoint, under the variable's
name (`resnet_v1_101/block1/unit_1/bottleneck_v1/conv1/weights`, `pose/part_pred/block4/weights` and so on); pretrained/README.md
has the few lines that write one, which need TensorFlow as nothing here does.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lib.models.foreign import fill_trunk, published_classifier, read_tensors
from lib.models.own import holds_own
from lib.models.resnet import RESNETS

_HEADS = {"part_pred": "heatmaps", "locref_pred": "offsets", "pairwise_pred": "pairwise",
          "intermediate_supervision": "intermediate"}  # fmt: skip
_KINDS = {"weights": "weight", "biases": "bias", "BatchNorm/gamma": "weight", "BatchNorm/beta": "bias",
          "BatchNorm/moving_mean": "running_mean", "BatchNorm/moving_variance": "running_var"}  # fmt: skip
_KIND = "(?P<kind>weights|biases|BatchNorm/(?:gamma|beta|moving_mean|moving_variance))$"
_STEM = re.compile(rf"resnet_v1_\d+/conv1/{_KIND}")
_UNIT = re.compile(rf"resnet_v1_\d+/block([1-4])/unit_(\d+)/bottleneck_v1/(conv[123]|shortcut)/{_KIND}")
_HEAD = re.compile(rf"(?:\w+/)?({'|'.join(_HEADS)})/block4/{_KIND}")
# what a checkpoint holds beside the network: the classifier it came from, and the state of its optimiser
_BESIDE = re.compile(
    r"/logits/|/(Momentum|Adam|Adam_1|ExponentialMovingAverage)$|(^|/)(global_step|beta[12]_power|save_counter)$"
)
_OURS = re.compile(r"trunk\.layer([1-4])\.(\d+)\.")
_ENDINGS = (".npz", ".safetensors")


def read_dump(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a dump under the names of `DeeperCut`, float32; what has no place there keeps its name.

    Args:
        path: `.npz` or `.safetensors`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, damaged, or holding anything but numbers; the sentence says what to do.
    """
    path = Path(path)
    arrays = {name.removesuffix(":0"): values for name, values in _arrays(path).items()}
    arrays = {name: values for name, values in arrays.items() if not _BESIDE.search(name)}
    if not any(_STEM.match(name) or _UNIT.match(name) for name in arrays):
        found = ", ".join(repr(name) for name in list(arrays)[:3]) or "nothing else"
        raise ValueError(
            f"{path} is no dump of a slim ResNet's variables (resnet_v1_101/conv1/weights, …): it holds {found}"
        )
    return {_our_name(name): _our_tensor(name, values, path) for name, values in arrays.items()}


def is_dump(path: str | Path) -> bool:
    """Whether a path's name says that it is a dump, or the TensorFlow checkpoint that a dump can be made of."""
    return Path(path).suffix in _ENDINGS or _is_checkpoint(Path(path))


def units_and_width(state: Mapping[str, Any], path: str | Path) -> tuple[list[int], int]:
    """Options of `lib.models.resnet.ResNet` that give the trunk these tensors.

    Raises:
        ValueError: the first layer, or a whole stage, is missing.
    """
    found = [match for name in state if (match := _OURS.match(name))]
    stages = [[int(match[2]) for match in found if int(match[1]) == stage] for stage in range(1, 5)]
    lacking = [f"layer{number}" for number, stage in enumerate(stages, start=1) if not stage]
    lacking += ["conv1"] if "trunk.conv1.weight" not in state else []
    if lacking:
        raise ValueError(f"{path}: of the ResNet {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing")
    return [max(stage) + 1 for stage in stages], len(state["trunk.conv1.weight"])


def load_trunk(network: nn.Module, path: str | Path | None) -> None:
    """Fill the ResNet of a `DeeperCut` with an ImageNet classifier's weights; the heads keep their random ones.

    Args:
        network: changed in place, or not at all.
        path: a classifier's `.pth` of torchvision's layout, or a dump of slim's; None downloads torchvision's.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, another layout than the network's, or a ResNet of another depth or width.
    """
    ours, theirs = network.options, "torchvision"
    if path is None:
        state, path = _download(ours)
    elif is_dump(path):
        state, theirs = read_dump(path), "caffe"
    else:
        state = _torchvision(path)
    require_same_layout(path, theirs, ours["layout"])
    units, width = units_and_width(state, path)
    if (units, width) != (list(ours["units"]), ours["width"]):
        raise ValueError(f"{path} is a ResNet with units={units} and width={width}, the network has units={list(ours['units'])} "
                         f"and width={ours['width']}: make them equal")  # fmt: skip
    fill_trunk(network.trunk, {name.removeprefix("trunk."): values for name, values in state.items()}, path, "the ResNet")


def require_same_layout(path: str | Path, theirs: str, ours: str) -> None:
    """Raise ValueError where weights are of another layout than the network."""
    if theirs != ours:
        raise ValueError(f"{path} holds weights of the {theirs} layout, the network has layout={ours!r}: they would load, and see "
                         f"something else than they learnt. Give the network layout={theirs!r}, or weights of its own")  # fmt: skip


def _download(options: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    depth = next((depth for depth, units in RESNETS.items() if list(units) == list(options["units"])), None)
    if options["layout"] != "torchvision":
        raise ValueError("pretrained=true downloads torchvision's weights, which need layout='torchvision'; for layout='caffe' give "
                         "the path of a dump, see pretrained/README.md")  # fmt: skip
    if depth is None or options["width"] != 64:
        raise ValueError(f"torchvision has no ResNet with units={options['units']} and width={options['width']}: leave pretrained "
                         f"out, or take width=64 and units={' or '.join(str(list(units)) for units in RESNETS.values())}")  # fmt: skip
    state, source = published_classifier(f"resnet{depth}")
    return _of_trunk(state), source


def _torchvision(path: str | Path) -> dict[str, Tensor]:
    state = read_tensors(path)
    if "conv1.weight" not in state or "layer1.0.conv3.weight" not in state:
        raise ValueError(
            f"{path} is no ResNet of bottleneck units with torchvision's names (conv1.weight, layer1.0.conv3.weight, …)"
        )
    return _of_trunk(state)


def _of_trunk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision classifier's tensors as those of our trunk, without the last layer."""
    return {f"trunk.{name}": values.float() if values.is_floating_point() else values
            for name, values in state.items() if not name.startswith("fc.")}  # fmt: skip


def _is_checkpoint(path: Path) -> bool:
    """Whether a path names a TensorFlow checkpoint, or one of its files: `NAME.index`, `NAME.meta`, `NAME.data-…`."""
    return (
        bool(re.search(r"\.(ckpt|index|meta|data-\d+-of-\d+)$", path.name))
        or path.with_name(f"{path.name}.index").exists()
    )


def _arrays(path: Path) -> dict[str, np.ndarray | Tensor]:
    """What stands in a dump, by name."""
    if _is_checkpoint(path):
        raise ValueError(f"{path} is a TensorFlow checkpoint, which only TensorFlow reads: turn it into an .npz first, "
                         "pretrained/README.md says how")  # fmt: skip
    if path.suffix not in _ENDINGS:
        raise ValueError(f"{path}: the name of a dump ends in {' or '.join(_ENDINGS)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such dump")
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        raise ValueError(f"{path} is a web page, so the download got the site's answer instead of the file")
    if path.suffix == ".npz":
        return _npz(path)
    if holds_own(path):
        raise ValueError(
            f"{path} is a checkpoint of this project, not a dump: load_model reads it, and initial_weights of a training"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a safetensors file, or it is cut short") from error


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        # pickled arrays could run foreign code
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except ValueError as error:
        raise ValueError(f"{path} is no .npz file of plain arrays: it may hold Python objects, which are not opened because they could "
                         "run foreign code; write numbers alone with numpy.savez")  from error  # fmt: skip
    except (BadZipFile, zlib.error, OSError, EOFError, AttributeError) as error:
        raise ValueError(f"{path} is not an .npz file, or it is cut short") from error


def _our_name(name: str) -> str:
    if found := _HEAD.match(name):
        return f"{_HEADS[found[1]]}.{_KINDS[found['kind']]}"
    if found := _STEM.match(name):
        return f"trunk.{_layer('conv1', found['kind'])}"
    if found := _UNIT.match(name):
        return f"trunk.layer{found[1]}.{int(found[2]) - 1}.{_layer(found[3], found['kind'])}"
    return name


def _layer(name: str, kind: str) -> str:
    """A convolution, or the batch norm behind it, as torchvision calls them."""
    norm = kind.startswith("BatchNorm")
    layer = f"downsample.{int(norm)}" if name == "shortcut" else name.replace("conv", "bn") if norm else name
    return f"{layer}.{_KINDS[kind]}"


def _our_tensor(name: str, values: np.ndarray | Tensor, path: Path) -> Tensor:
    if not isinstance(values, Tensor):
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{path}: {name} holds no numbers but {values.dtype}")
        values = torch.from_numpy(values)
    values = values.float()
    # TensorFlow: rows, columns, then channels in and out, and out and in for a transposed convolution; here the other way round
    return values.permute(3, 2, 0, 1).contiguous() if values.ndim == 4 else values
