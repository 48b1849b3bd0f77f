"""Files that were made elsewhere: opened without running their code, and called by their name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

READ_WITH = {
    "trt_pose": "a trt_pose state dict; load_trt_pose reads it, and load_weights for a TrtPose",
    "lightweight_openpose": "a checkpoint of Lightweight OpenPose; load_lightweight_openpose reads it, and load_weights for "
    "a LightweightOpenPose",
    "mobilenet": "a MobileNet classifier; give it to LightweightOpenPose as `pretrained=`",
    "hrnet": "an HRNet classifier, or its trunk; load_hrnet reads a classifier, load_weights for an HRNetClassifier or a "
    "HigherHRNet the trunk, and both take it as `pretrained=`",
    "topdown": "a top-down network; load_topdown reads it, and load_weights for a TopDown",
    "higherhrnet": "a HigherHRNet; load_higherhrnet reads it, and load_weights for a HigherHRNet",
    "imagenet": "an ImageNet classifier, give it to the network as `pretrained=` instead",
}
"""Kinds of files this project reads, and how."""

_CLASSIFIERS = ("fc.weight", "classifier.weight", "classifier.1.weight")
_TRT_POSE = ("0.resnet.", "0.densenet.features.", "0.backbone.layers.")
_HRNET = ("stage2.0.branches.0.0.", "backbone.stage2.0.branches.0.0.", "backbone.stages.1.blocks.0.scales_blocks.0.0.")
_HIGHERHRNET = ("final_layers.0.weight", "keypoint_head.final_layers.0.weight", "init_heatmaps_head.weight")
_TOPDOWN = ("final_layer.weight", "head.final_layer.weight", "keypoint_head.final_layer.weight")
_PREFIXES = ("module.", "_orig_mod.", "net.", "1.")

# Training states hold the state of NumPy's random numbers. What rebuilds a plain array or number from bytes runs no other code;
# arrays of objects stay locked out, their dtype's class is not among these.
_RECONSTRUCT, _SCALAR = (np.ndarray(0).__reduce__()[0], np.float64(0).__reduce__()[0])
_PLAIN_ARRAYS: list[Any] = [np.ndarray, np.dtype, *(type(np.dtype(code)) for code in "?bhilqBHILQefd")]
_PLAIN_ARRAYS += [(function, f"numpy.{package}.multiarray.{function.__name__}") for function in (_RECONSTRUCT, _SCALAR)
                  for package in ("core", "_core")]  # fmt: skip


def read_foreign(path: str | Path) -> Any:
    """What stands in a file that `torch.save` wrote, old format or new, on the CPU.

    Only tensors, plain values and NumPy's arrays of numbers are opened.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, cut short, or with Python objects besides tensors; the sentence says which.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    with path.open("rb") as file:
        start = file.read(512).lstrip()
        file.seek(0)
        try:
            with torch.serialization.safe_globals(_PLAIN_ARRAYS):
                return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a file of another kind can fail in any way
            why = "it is cut short or of another kind"
            if start[:9].lower() == b"<!doctype" or start[:5].lower() == b"<html":
                why = "it is a web page, so the download got the site's answer instead of the file"
            elif start[8:10] == b'{"':
                why = "it is a safetensors file; load_model and load_weights read ours, if the name ends in .safetensors"
            elif found := re.search(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)|but got <class '(\S+)'>", str(error)):
                why = (f"it holds Python objects besides tensors ({found[1] or found[2]}), and opening those could run foreign code; "
                       "save `model.state_dict()` instead of the model")  # fmt: skip
            raise ValueError(f"{path} is not a checkpoint that can be opened: {why}") from error


def identify(content: Any) -> tuple[str | None, str]:
    """Whose file this is.

    Returns:
        One of `READ_WITH` or None, and a sentence that says what it is.
    """
    if not isinstance(content, Mapping) or not content:
        return None, f"it holds a {type(content).__name__}"
    if "engine" in content:
        return None, ("it is a TensorRT engine made by torch2trt, which holds no weights and runs only on the device that "
                      "made it; take the .pth it was made from")  # fmt: skip
    if any(isinstance(key, str) and key.startswith("backbone.base.") for key in content):
        return None, "it has a DLA trunk, whose module the public repository lacks"
    state = bare_state(content)
    kind = _kind(state)
    # trt_pose's own files are bare; elsewhere a wrapper is the training state of somebody
    if kind in ("lightweight_openpose", "mobilenet", "hrnet", "higherhrnet", "topdown") or state is content and kind:
        return kind, f"it is {READ_WITH[kind]}"
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(content.get(wrapper), Mapping):
            return None, (f"it is a training state with the weights under {wrapper!r}; take best.safetensors if it is from "
                          "this project, else save only that entry")  # fmt: skip
    return None, f"its tensors are named {', '.join(repr(key) for key in list(content)[:3])}"


def read_kind(path: str | Path, what: str, *kinds: str) -> tuple[dict[str, Tensor], str, Mapping[str, Any]]:
    """The tensors of a public file of certain kinds, under their own names; its kind; and all that stands in it.

    Args:
        path: the file.
        what: it should be, for the sentence: "an HRNet checkpoint".
        kinds: of `READ_WITH`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file; the sentence says what it is instead, where that shows.
    """
    content = read_foreign(path)
    kind, found = identify(content)
    if kind not in kinds:
        raise ValueError(f"{path} is not {what}: {found}")
    return only_tensors(bare_state(content), path), kind, content


def bare_state(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict inside a training checkpoint, without what wrappers of the network put in front of every name.

    Those are `module.` (DataParallel), `_orig_mod.` (compiled), `net.` and `1.` (a cast to half precision in front).
    """
    state, module = content, content.get("module")
    if isinstance(module, Mapping) and isinstance(module.get("model"), Mapping):
        state = module["model"]
    else:
        # under "model" stands the network's name as often as its weights
        inner = [content[key] for key in ("state_dict", "best_state_dict", "model") if isinstance(content.get(key), Mapping)]
        state = inner[0] if inner else content
    while state and (prefix := _common_prefix(state)):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file that `torch.save` wrote, bare or inside a training checkpoint, whoever's it is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file.
    """
    content = read_foreign(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds no tensors by name: {identify(content)[1]}")
    return only_tensors(bare_state(content), path)


def only_tensors(state: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """The same as a dict; a ValueError names an entry that is no tensor."""
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{path}: {key!r} is not a tensor but a {type(value).__name__}")
    return dict(state)


def published_classifier(name: str) -> tuple[dict[str, Tensor], str]:
    """The first weights that torchvision published of a classifier, downloaded once, and what they are called.

    Raises:
        OSError: they cannot be downloaded.
    """
    import torchvision  # it takes a second, which no other network shall wait for

    weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]  # DEFAULT changes with torchvision
    try:
        return weights.get_state_dict(progress=True, check_hash=True), f"torchvision's {weights}"
    except OSError as error:
        raise OSError(f"{weights.url} cannot be downloaded ({error}): get the file by other means and give its path as "
                      "`pretrained`") from None  # fmt: skip


def fill_trunk(trunk: nn.Module, state: Mapping[str, Tensor], source: str | Path, what: str) -> None:
    """Load a classifier's tensors into a trunk, or nothing; files may be older than the counters of batch norms.

    Args:
        trunk: changed in place.
        state: tensors under the trunk's own names; others are left out.
        source, what: the file and the trunk in the sentence.

    Raises:
        ValueError: a tensor is missing or has another shape.
    """
    wanted = trunk.state_dict()
    bad = [key for key, value in wanted.items() if not key.endswith("num_batches_tracked") and
           (key not in state or state[key].shape != value.shape)]  # fmt: skip
    if bad:
        raise ValueError(f"{source} does not fit {what}: {len(bad)} of its {len(wanted)} tensors are missing or have another shape, "
                         f"the first is {bad[0]}")  # fmt: skip
    trunk.load_state_dict({key: state.get(key, value) for key, value in wanted.items()})


def _common_prefix(state: Mapping[str, Any]) -> str | None:
    if not all(isinstance(key, str) for key in state):
        return None
    return next((prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in state)), None)


def _kind(state: Mapping[str, Any]) -> str | None:
    if "cpm.align.0.weight" in state or "initial_stage.trunk.0.0.weight" in state:
        return "lightweight_openpose"
    if "model.0.0.weight" in state and "model.11.3.weight" in state:
        return "mobilenet"
    names = [key for key in state if isinstance(key, str)]
    if any(isinstance(state.get(key), Tensor) and state[key].ndim == 4 for key in _TOPDOWN):
        return "topdown"
    if any(key.startswith(_HRNET) for key in names):
        return "higherhrnet" if any(key in state for key in _HIGHERHRNET) else "hrnet"
    if any(key.startswith(_TRT_POSE) for key in names) and any(key.startswith("1.cmap_conv") for key in names):
        return "trt_pose"
    return "imagenet" if any(key in state for key in _CLASSIFIERS) else None
