"""The layouts of HRNet's public files, classifiers and HigherHRNet, and the trunk that one network takes over from another.

Four code bases name the same tensors in three ways and put them into half a dozen containers. All are brought to the names that
HRNet/HRNet-Image-Classification and HRNet/HigherHRNet-Human-Pose-Estimation use, and from there to ours:

| written by | holds |
| --- | --- |
| HRNet-Image-Classification | an ImageNet classifier (`hrnetv2_w32_imagenet_pretrained.pth`), or a training state (`.pth.tar`) |
| HigherHRNet | a pose network (`pose_higher_hrnet_w32_512.pth`), in half precision behind `1.` where it was trained so |
| deep-high-resolution-net | the ImageNet weights that pose networks start from (`hrnet_w32-36af842e.pth`): a trunk, and a head of its own |
| thawro/pytorch-human-pose | either (`hrnet_32.pt`, `higher_hrnet_32.pt`), or a training state (`best.pt`, `last.pt`) |
| mmpose 0.x | a pose network with a `backbone` and a `keypoint_head` |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from lib.models.foreign import read_kind
from lib.models.own import read_own
from lib.weights import LoadReport

Rules = list[tuple[str, str | Callable[[re.Match], str]]]

# the first rule whose pattern begins a name counts, and replaces what it matches
_THAWRO: Rules = [
    (r"backbone\.((conv|bn)\d\.)", r"\1"),
    (r"backbone\.stages\.0\.blocks\.0\.scales_blocks\.0\.", "layer1."),
    (r"backbone\.stages\.0\.transition_layer\.transition_blocks\.0\.", "transition1.0."),
    (r"backbone\.stages\.\d\.transition_layer\.transition_blocks\.(\d)\.", r"transition\1.\1.0."),
    (r"backbone\.stages\.(\d)\.blocks\.(\d+)\.scales_(blocks|fusion_layers)\.", lambda found: _thawro_block(found)),
    (r"classification_head\.chann_incr_blocks\.(\d)\.", r"incre_modules.\1.0."),
    (r"classification_head\.downsample_blocks\.", "downsamp_modules."),
    (r"classification_head\.final_conv\.", "final_layer."),
    (r"classification_head\.classifier\.", "classifier."),
    (r"init_heatmaps_head\.", "final_layers.0."),
    (r"deconv_layers\.0\.final_layer\.", "final_layers.1."),
    (r"deconv_layers\.0\.deconv\.", "deconv_layers.0.0."),
    (r"deconv_layers\.0\.resid_blocks\.(\d)\.", lambda found: f"deconv_layers.0.{int(found[1]) + 1}.0."),
]
_MMPOSE: Rules = [(r"backbone\.", ""), (r"keypoint_head\.(?=final_layers\.|deconv_layers\.)", "")]
_OURS: Rules = [
    (r"(conv|bn)([12])\.", lambda found: f"trunk.stem.{int(found[2]) - 1}.{0 if found[1] == 'conv' else 1}."),
    (r"layer1\.", "trunk.first."),
    (r"transition1\.0\.", "trunk.entry."),
    (r"transition(\d)\.\1\.0\.", lambda found: f"trunk.down.{int(found[1]) - 1}."),
    (r"stage(\d)\.(\d+)\.branches\.", lambda found: f"trunk.stages.{int(found[1]) - 2}.{found[2]}.branches."),
    (r"stage(\d)\.(\d+)\.fuse_layers\.", lambda found: f"trunk.stages.{int(found[1]) - 2}.{found[2]}.fuse."),
    (r"incre_modules\.(\d)\.0\.", r"widen.\1."),
    (r"downsamp_modules\.", "down."),
    (r"final_layer\.(?=[01]\.)", "last."),
    (r"classifier\.", "classify."),
    (r"deconv_layers\.0\.0\.", "enlarge."),
    (r"deconv_layers\.0\.(\d)\.0\.", lambda found: f"refine.{int(found[1]) - 1}."),
]


@dataclass(frozen=True)
class PublicFile:
    """What stands in a public file.

    Attributes:
        state: tensors under the names of `HRNetClassifier` or `HigherHRNet`, float32; what has no place there keeps its name.
        kind: "classifier", "pose", or "trunk" where the head is neither's.
        layout: whose names the file uses.
    """

    state: dict[str, Tensor]
    kind: Literal["classifier", "pose", "trunk"]
    layout: str


def read_public(path: str | Path, num_keypoints: int = 17) -> PublicFile:
    """Read a public file of any of the layouts above.

    Args:
        path: `.pth`, `.pth.tar` or `.pt`.
        num_keypoints: decides how the outputs are divided into heatmaps and tags, where the file allows for two ways.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file; the sentence says what it is instead, where that shows.
    """
    state, kind, _ = read_kind(path, "an HRNet checkpoint", "hrnet", "higherhrnet", "topdown")  # of the last the trunk
    layout = "official"
    for name, mark, rules in (("thawro", "backbone.stages.", _THAWRO), ("mmpose", "backbone.stage2.", _MMPOSE)):
        if any(key.startswith(mark) for key in state):
            state, layout = _renamed(state, rules), name
    state = {
        key: value.float() if value.is_floating_point() else value for key, value in _renamed(state, _OURS).items()
    }
    if kind == "higherhrnet":
        return PublicFile(_divided(state, num_keypoints, path), "pose", layout)
    return PublicFile(
        state, "classifier" if "classify.weight" in state and "widen.0.conv1.weight" in state else "trunk", layout
    )


def trunk_options(state: Mapping[str, Tensor], path: str | Path) -> dict[str, Any]:
    """Options of `lib.models.hrnet.HRNet` that give the trunk these tensors.

    Raises:
        ValueError: the first layers are missing.
    """
    keys = ("trunk.entry.0.weight", "trunk.stem.0.0.weight", "trunk.stages.0.0.branches.0.0.conv1.weight")
    if lacking := [key for key in keys if key not in state]:
        raise ValueError(f"{path} lacks {', '.join(lacking)}: its trunk is incomplete")
    return {
        "width": len(state[keys[0]]),
        "stem": len(state[keys[1]]),
        "bottlenecks": _count(state, "trunk.first."),
        "blocks": _count(state, "trunk.stages.0.0.branches.0."),
        "modules": [_count(state, f"trunk.stages.{stage}.") for stage in range(_count(state, "trunk.stages."))],
    }


def classifier_options(state: Mapping[str, Tensor], path: str | Path) -> tuple[int, dict[str, Any]]:
    """Number of classes and options of the `HRNetClassifier` with these tensors."""
    classes, features = state["classify.weight"].shape
    return classes, trunk_options(state, path) | {"head": len(state["widen.0.conv1.weight"]), "features": features}


def pose_options(state: Mapping[str, Tensor], path: str | Path) -> tuple[int, dict[str, Any]]:
    """Number of keypoints and options of the `HigherHRNet` with these tensors."""
    keypoints = len(state["heatmaps.weight"])
    return keypoints, trunk_options(state, path) | {
        "refine_blocks": _count(state, "refine."),
        "tag_per_keypoint": len(state["tags.weight"]) == keypoints,
        "tags_at_half": "tags_fine.weight" in state,
    }


def load_trunk(network: nn.Module, path: str | Path) -> LoadReport:
    """Fill the trunk of an `HRNetClassifier` or a `HigherHRNet` from another's file, and print what was taken over.

    All behind the trunk keeps its random weights. A pose network puts only the finest resolution together, so it needs less of
    the trunk than a classifier has, and its trunk is not enough for one.

    Args:
        network: changed in place, or not at all.
        path: a checkpoint of ours (.safetensors) or a public file of any layout.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or a trunk of which a tensor is missing or has another shape.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        metadata, state = read_own(path)
        whose = f"{metadata['network']['name']} of ours"
        if not any(key.startswith("trunk.stages.") for key in state):
            raise ValueError(f"{path} is a {whose}, which has another trunk than HRNet's")
    else:
        public = read_public(path)
        state, whose = public.state, f"{public.layout} {public.kind}"
    everything = network.state_dict()
    wanted = {key: value for key, value in everything.items() if key.startswith("trunk.")}
    fits = {key for key in wanted.keys() & state.keys() if wanted[key].shape == state[key].shape}
    # files that were made before batch norms counted their batches are complete, too
    bad = [key for key in wanted if key not in fits and not (key.endswith("num_batches_tracked") and key not in state)]
    if bad:
        raise ValueError(_misfit(network, state, path, whose, bad, len(wanted)))
    network.load_state_dict({key: state[key] if key in fits else value for key, value in everything.items()})
    report = LoadReport(
        loaded=tuple(key for key in wanted if key in fits),
        fresh_parts=_parts(everything.keys() - wanted.keys()),
        dropped_parts=_parts(state.keys() - fits),
    )
    print(f"{path} ({whose}): {report}")
    return report


def _misfit(network: nn.Module, state: Mapping[str, Tensor], path: Path, whose: str, bad: list[str], total: int) -> str:
    theirs, ours = trunk_options(state, path), network.options
    differ = [f"{name}={theirs[name]!r}" for name in theirs if theirs[name] != ours[name]]
    why = f"the file was made with {', '.join(differ)}; give the network the same. " if differ else ""
    if not differ and all(".fuse." in key for key in bad):
        why = "a pose network puts only the finest resolution together; start from a classifier instead. "
    return (f"{path} ({whose}) does not fit the trunk of this {type(network).__name__}: {why}{len(bad)} of {total} tensors are "
            f"missing or have another shape, the first is {bad[0]}")  # fmt: skip


def _divided(state: dict[str, Tensor], num_keypoints: int, path: str | Path) -> dict[str, Tensor]:
    """The two output layers taken apart into heatmaps and tags."""
    if "final_layers.1.weight" not in state or any(key.startswith("final_layers.2.") for key in state):
        raise ValueError(
            f"{path}: HigherHRNet with two resolutions is read, a file has another number of output layers"
        )
    first, second = (len(state[f"final_layers.{i}.weight"]) for i in (0, 1))
    # K heatmaps and K tags, or one tag map for all; at half of the image the same or heatmaps alone
    ways = [k for k in (first // 2, first - 1) if first - k in (1, k) and second in (k, first)]
    if not ways:
        raise ValueError(f"{path}: output layers with {first} and {second} channels are no heatmaps and tags of the same "
                         "keypoints")  # fmt: skip
    keypoints = num_keypoints if num_keypoints in ways else ways[0]
    divided = {}
    for key, value in state.items():
        if not key.startswith("final_layers."):
            divided[key] = value
            continue
        suffix, kind = ("_fine" if key.startswith("final_layers.1.") else ""), key.rpartition(".")[2]
        divided[f"heatmaps{suffix}.{kind}"] = value[:keypoints]
        if len(value) > keypoints:
            divided[f"tags{suffix}.{kind}"] = value[keypoints:]
    return divided


def _renamed(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            name, found = re.subn(rf"\A{pattern}", replacement, key, count=1)
            if found:
                break
        renamed[name] = value
    return renamed


def _thawro_block(found: re.Match) -> str:
    """Residual blocks and exchanges take turns in one list there."""
    stage, index, kind = found.groups()
    return f"stage{int(stage) + 1}.{int(index) // 2}.{'branches' if kind == 'blocks' else 'fuse_layers'}."


def _count(state: Iterable[str], prefix: str) -> int:
    """How many numbered parts there are behind a prefix."""
    numbers = [key.removeprefix(prefix).partition(".")[0] for key in state if key.startswith(prefix)]
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)


def _parts(keys: Iterable[str]) -> tuple[str, ...]:
    """Modules that tensors belong to: "widen", or "trunk.stages.2.2.fuse.1"."""
    return tuple(sorted({".".join(key.split(".")[: 6 if key.startswith("trunk.") else 1]) for key in keys}))
