"""Models with all that is needed to use them, and their checkpoints: one safetensors file each.

The header of our files holds the network, the codec, the skeleton and the input size as JSON, so nothing has to be known
beside the file. Nothing here ever unpickles code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib.codecs import CODECS, Codec
from lib.models import CLASSIFIERS, NETWORKS
from lib.models.own import FORMAT, read_own, write_own
from lib.skeleton import Skeleton
from lib.weights import fill


@dataclass
class Model:
    """A network with all that is needed to predict with it.

    Attributes:
        network: one of `lib.models.NETWORKS`.
        codec: turns its maps into people; has the same skeleton and stride.
        input_size: (height, width) of the network's input in pixels, multiples of `network.input_multiple`.
        keep_aspect_ratio: pad images to the input's shape instead of stretching them.
        info: anything worth keeping that JSON can hold, such as the AP or the source.

    Raises:
        ValueError: network, codec and input size do not belong together.
    """

    network: nn.Module
    codec: Codec
    input_size: tuple[int, int]
    keep_aspect_ratio: bool = True
    info: dict = field(default_factory=dict)

    def __post_init__(self):
        self.input_size = _checked_size(self.input_size, self.network.input_multiple)
        if self.codec.stride != self.network.stride:
            raise ValueError(f"the network's maps have stride {self.network.stride}, the codec's {self.codec.stride}: "
                             f"set the codec's stride to {self.network.stride}")  # fmt: skip
        _require_same_skeleton("the network", self.network.skeleton, "the codec", self.codec.skeleton)
        _require_same_maps(self.network, self.codec)

    @property
    def skeleton(self) -> Skeleton:
        return self.network.skeleton

    def metadata(self) -> dict[str, Any]:
        """Everything but the weights, as plain JSON values; `model_from_metadata` reads it back."""
        metadata = {
            "format": FORMAT,
            "network": {"name": type(self.network).__name__, "options": dict(self.network.options)},
            "codec": {"name": type(self.codec).__name__, "options": dict(self.codec.options)},
            "skeleton": self.skeleton.to_dict(),
            "input_size": list(self.input_size),
            "keep_aspect_ratio": self.keep_aspect_ratio,
            "stride": self.network.stride,
            "info": self.info,
        }
        return json.loads(json.dumps(metadata))  # tuples become lists


@dataclass
class Classifier:
    """A network that says what an image shows, with all that is needed to use it.

    Attributes:
        network: one of `lib.models.CLASSIFIERS`.
        input_size: (height, width) of the network's input in pixels, multiples of `network.input_multiple`.
        info: anything worth keeping that JSON can hold.

    Raises:
        ValueError: the network cannot take this input size.
    """

    network: nn.Module
    input_size: tuple[int, int]
    info: dict = field(default_factory=dict)

    def __post_init__(self):
        self.input_size = _checked_size(self.input_size, self.network.input_multiple)

    def metadata(self) -> dict[str, Any]:
        """Everything but the weights, as plain JSON values."""
        metadata = {
            "format": FORMAT,
            "network": {"name": type(self.network).__name__, "options": dict(self.network.options)},
            "classes": list(self.network.classes),
            "input_size": list(self.input_size),
            "info": self.info,
        }
        return json.loads(json.dumps(metadata))


def save_model(path: str | Path, model: Model, half: bool = False) -> Path:
    """Write a checkpoint (.safetensors); the file is replaced in one step, so a reader never sees half of it.

    Args:
        path: its folder is made if need be.
        model: weights may be on any device.
        half: store the convolutions in float16, half the size; statistics of batch norms stay as they are.
    """
    return write_own(path, model.network.state_dict(), model.metadata(), half)


def load_model(path: str | Path, skeleton: Skeleton | None = None) -> Model:
    """Read a checkpoint written by `save_model`; float32, on the CPU, ready to predict.

    Args:
        path: .safetensors.
        skeleton: what the caller's data have, if known; the checkpoint must have the same keypoints.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of this project, damaged, or with other keypoints than `skeleton`.
    """
    metadata, state = read_own(path)
    if "classes" in metadata:
        raise ValueError(f"{path} holds a classifier, which finds no people; use it with `python -m lib classify`, or "
                         "as `pretrained` of a network with its trunk")  # fmt: skip
    try:
        # the random weights are overwritten, so drawing them must not move the caller's generator
        with torch.random.fork_rng(devices=[]):
            model = model_from_metadata(metadata)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: its header describes no model of this version: {error}") from error
    if skeleton is not None:
        _require_same_skeleton(str(path), model.skeleton, "your data", skeleton)
    fill(model.network, state, path)
    model.network.eval()
    return model


def model_from_metadata(metadata: Mapping[str, Any]) -> Model:
    """Build the model that `Model.metadata()` describes, with random weights.

    Raises:
        ValueError: another format, or a network or codec that is unknown here.
    """
    if metadata.get("format") != FORMAT:
        raise ValueError(f"the format is {metadata.get('format')!r}, this version reads {FORMAT!r}")
    skeleton = Skeleton(**metadata["skeleton"])
    built = []
    for what, table in (("network", NETWORKS), ("codec", CODECS)):
        name = metadata[what]["name"]
        if name not in table:
            raise ValueError(f"the {what} {name!r} is unknown, there are {', '.join(table)}")
        built.append(table[name](skeleton, **metadata[what]["options"]))
    return Model(*built, metadata["input_size"], metadata["keep_aspect_ratio"], dict(metadata["info"]))


def save_classifier(path: str | Path, model: Classifier, half: bool = False) -> Path:
    """Write a classifier's checkpoint (.safetensors), as `save_model` does a pose model's."""
    return write_own(path, model.network.state_dict(), model.metadata(), half)


def load_classifier(path: str | Path) -> Classifier:
    """Read a checkpoint written by `save_classifier`; float32, on the CPU, ready to use.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a classifier of this project, or damaged.
    """
    metadata, state = read_own(path)
    name = metadata.get("network", {}).get("name")
    if metadata.get("format") != FORMAT or "classes" not in metadata or name not in CLASSIFIERS:
        raise ValueError(f"{path} holds no classifier but a {name}; load_model reads pose models")
    try:
        with torch.random.fork_rng(devices=[]):
            network = CLASSIFIERS[name](metadata["classes"], **metadata["network"]["options"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: its header describes no classifier of this version: {error}") from error
    fill(network, state, path)
    return Classifier(network.eval(), metadata["input_size"], dict(metadata["info"]))


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked_size(size: Sequence[int], multiple: int) -> tuple[int, int]:
    size = tuple(int(side) for side in size)
    if len(size) != 2 or any(side <= 0 or side % multiple for side in size):
        raise ValueError(f"input_size is (height, width) in multiples of {multiple}, got {size}")
    return size


def _require_same_maps(network: nn.Module, codec: Codec) -> None:
    """A network with maps of several resolutions, and its codec, mean the same maps."""
    strides = getattr(network, "strides", None)
    if strides is None:
        return
    if dict(strides) != dict(codec.strides):
        raise ValueError(f"the network's maps and pixels per cell are {strides}, the codec's {codec.strides}: use a TagsCodec "
                         "with the same tags_at_half")  # fmt: skip
    shared = [part.options.get("tag_per_keypoint") for part in (network, codec)]
    if shared[0] != shared[1]:
        raise ValueError(
            f"tag_per_keypoint is {shared[0]} for the network and {shared[1]} for the codec: make them equal"
        )


def _require_same_skeleton(what: str, a: Skeleton, other: str, b: Skeleton) -> None:
    if a.keypoints != b.keypoints:
        differ = sorted(set(a.keypoints) ^ set(b.keypoints)) or ["the order"]
        raise ValueError(f"{what} has {a.num_keypoints} keypoints, {other} {b.num_keypoints} (skeleton {b.name!r}); "
                         f"differing: {', '.join(differ[:6])}. To carry weights over to another skeleton, train with "
                         "model.initial_weights")  # fmt: skip
