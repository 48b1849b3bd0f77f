"""Checkpoints: one safetensors file that is enough to predict, and the weights of others.

The header of our files holds the network, the codec, the skeleton and the input size as JSON, so nothing has to be known
beside the file. Nothing here ever unpickles code.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lib.codecs import CODECS, Codec
from lib.codecs.paf import COARSE, LIGHTWEIGHT_OPENPOSE_TARGETS, PafCodec
from lib.files import beside
from lib.models import NETWORKS, lightweight_openpose_public, trt_pose_public
from lib.models.foreign import identify, read_foreign
from lib.models.lightweight_openpose import LightweightOpenPose
from lib.models.trt_pose import TrtPose
from lib.skeleton import COCO18_NECK, OPENPOSE18, Skeleton
from lib.weights import LoadReport, fill

FORMAT = "pose-workbook-1"
_HEADER = "pose_workbook"


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
        self.input_size = tuple(int(side) for side in self.input_size)
        multiple = self.network.input_multiple
        if len(self.input_size) != 2 or any(side <= 0 or side % multiple for side in self.input_size):
            raise ValueError(f"input_size is (height, width) in multiples of {multiple}, got {self.input_size}")
        if self.codec.stride != self.network.stride:
            raise ValueError(f"the network's maps have stride {self.network.stride}, the codec's {self.codec.stride}: "
                             f"set the codec's stride to {self.network.stride}")  # fmt: skip
        _require_same_skeleton("the network", self.network.skeleton, "the codec", self.codec.skeleton)

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


def save_model(path: str | Path, model: Model, half: bool = False) -> Path:
    """Write a checkpoint (.safetensors); the file is replaced in one step, so a reader never sees half of it.

    Args:
        path: its folder is made if need be.
        model: weights may be on any device.
        half: store the convolutions in float16, half the size; statistics of batch norms stay as they are.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: a checkpoint's name ends in .safetensors")
    state = {}
    for key, value in model.network.state_dict().items():
        value = value.detach().cpu().contiguous()
        state[key] = value.half() if half and value.is_floating_point() and value.ndim > 1 else value
    with beside(path) as writing:
        save_file(state, writing, metadata={_HEADER: json.dumps(model.metadata())})
    return path


def load_model(path: str | Path, skeleton: Skeleton | None = None) -> Model:
    """Read a checkpoint written by `save_model`; float32, on the CPU, ready to predict.

    Args:
        path: .safetensors.
        skeleton: what the caller's data have, if known; the checkpoint must have the same keypoints.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of this project, damaged, or with other keypoints than `skeleton`.
    """
    metadata, state = _read_own(Path(path))
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


def load_weights(network: nn.Module, path: str | Path, trained_on: Skeleton | None = None) -> LoadReport:
    """Start a network from another's weights; outputs are carried over by name where the skeletons differ.

    Keypoints and limbs which only the network has keep their random weights, and a warning names them. A limb that points
    the other way gets its field negated. Refinement stages may be more (the others keep their random weights) or fewer
    (the others are left out) than the file's; a MobileNet fills the trunk alone. A warning says so each time.

    Args:
        network: changed in place.
        path: a checkpoint of ours (.safetensors), a public trt_pose `.pth`, or for a LightweightOpenPose a public
            `checkpoint_iter_N.pth` or MobileNet `.pth.tar`.
        trained_on: skeleton of a public file; by default the one such files have, or the network's own if only that fits.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds another kind of network; nothing was changed then.
    """
    path, kind = Path(path), type(network).__name__
    options = None
    if path.suffix == ".safetensors":
        metadata, state = _read_own(path)
        if metadata["network"]["name"] != kind:
            raise ValueError(f"{path} holds the weights of a {metadata['network']['name']}, the network is a {kind}")
        options, source = metadata["network"]["options"], trained_on or Skeleton(**metadata["skeleton"])
    elif not isinstance(network, LightweightOpenPose):
        state = trt_pose_public.read_public(path)
        options = trt_pose_public.options_from_state(state, path)
        source = trained_on or _public_skeleton(COCO18_NECK, network.skeleton, *_trt_pose_channels(state), path)
    elif identify(read_foreign(path))[0] == "mobilenet":
        loaded = network.load_trunk(path)
        report = LoadReport(loaded, missing=tuple(key for key in network.state_dict() if not key.startswith("model.")))
        warnings.warn(f"{path}: a classifier fills the trunk, all behind it keeps its random weights: {report}", stacklevel=2)
        return report
    else:
        state = lightweight_openpose_public.read_public(path)
        source = trained_on or _public_skeleton(OPENPOSE18, network.skeleton, *_openpose_channels(state), path)
    return fill(network, state, path, source, options)


def load_trt_pose(path: str | Path, skeleton: Skeleton = COCO18_NECK, trunk: str | None = None, *,
                  trained_on: Skeleton | None = None, input_size: tuple[int, int] | None = None,
                  keep_aspect_ratio: bool = False) -> Model:  # fmt: skip
    """Read one of NVIDIA's public trt_pose files, or one made with that code.

    Args:
        path: the `.pth` (a bare state dict).
        skeleton: wanted outputs. Where it differs from the file's, shared keypoints and limbs are copied by name, the
            others start from random weights and a warning names them.
        trunk: found from the tensors; if given, the file must have this one.
        trained_on: the file's skeleton; see `load_weights`.
        input_size: (height, width); by default what the file's name says (`…_256x256_…`), else 224 × 224.
        keep_aspect_ratio: the public "A" files were trained on stretched images.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or another trunk.
    """
    state = trt_pose_public.read_public(path)
    options = trt_pose_public.options_from_state(state, path)
    if trunk not in (None, options["trunk"]):
        raise ValueError(f"{path} has the trunk {options['trunk']}, not {trunk}; leave `trunk` out to take the file's")
    network = TrtPose(skeleton, **options)
    fill(network, state, path, trained_on or _public_skeleton(COCO18_NECK, skeleton, *_trt_pose_channels(state), path))
    named = re.search(r"_(\d+)x(\d+)", Path(path).name)
    size = input_size or ((int(named[1]), int(named[2])) if named else (224, 224))
    info = {"source": Path(path).name, "sha256": file_sha256(path)}
    return Model(network.eval(), PafCodec(skeleton, stride=network.stride), size, keep_aspect_ratio, info)


def load_lightweight_openpose(path: str | Path, skeleton: Skeleton = OPENPOSE18, num_refinement_stages: int | None = 1, *,
                              trained_on: Skeleton | None = None, input_size: tuple[int, int] = (256, 456),
                              keep_aspect_ratio: bool = True) -> Model:  # fmt: skip
    """Read a public checkpoint of Lightweight OpenPose, or one made with that code.

    The codec looks for the fields where that code's training drew them, not quite on the heatmaps (`paf_offset`), and decodes
    in our way; `replace(model.codec, **lightweight_openpose_options(skeleton), upsample=4)` decodes in the original's.

    Args:
        path: `checkpoint_iter_N.pth`.
        skeleton: wanted outputs. Where it differs from the file's, shared keypoints and limbs are copied by name, the
            others start from random weights and a warning names them.
        num_refinement_stages: how many of the file's stages to use; None for all. The published file has three, its
            published AP was measured with one.
        trained_on: the file's skeleton; see `load_weights`.
        input_size: (height, width) of the network's input.
        keep_aspect_ratio: pad images instead of stretching them, as the original does.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, an incomplete one, or one with fewer stages.
    """
    state = lightweight_openpose_public.read_public(path)
    stages = lightweight_openpose_public.num_refinement_stages(state)
    wanted = stages if num_refinement_stages is None else num_refinement_stages
    if wanted > stages:
        raise ValueError(f"{path} has {stages} refinement stages, not {wanted}; ask for at most {stages}, or start a training "
                         "from it (initial_weights), where further stages begin with random weights")  # fmt: skip
    network = LightweightOpenPose(skeleton, wanted)
    fill(network, state, path, trained_on or _public_skeleton(OPENPOSE18, skeleton, *_openpose_channels(state), path))
    codec = PafCodec(skeleton, **LIGHTWEIGHT_OPENPOSE_TARGETS, **COARSE)
    info = {"source": Path(path).name, "sha256": file_sha256(path)}
    return Model(network.eval(), codec, input_size, keep_aspect_ratio, info)


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_own(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors (float32 where floating) of a checkpoint of ours."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        public = path.suffix in (".pth", ".pt", ".tar")
        hint = "; public .pth files are read by load_trt_pose and load_lightweight_openpose" if public else ""
        raise ValueError(f"{path} is not a safetensors checkpoint, or it is cut short{hint}") from error
    if header is None:
        raise ValueError(f"{path} holds tensors but no description of a model: it was not written by this project")
    return json.loads(header), {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _trt_pose_channels(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Keypoints and limbs of a public trt_pose file."""
    heatmaps, pafs = (len(state.get(key, ())) for key in ("heatmaps.output.bias", "pafs.output.bias"))
    return heatmaps, pafs // 2


def _openpose_channels(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Keypoints, without the background, and limbs of a public file of Lightweight OpenPose."""
    heatmaps, pafs = (len(state[f"initial_stage.{kind}.1.0.bias"]) for kind in ("heatmaps", "pafs"))
    return heatmaps - 1, pafs // 2


def _public_skeleton(public: Skeleton, own: Skeleton, keypoints: int, limbs: int, path: str | Path) -> Skeleton:
    """The skeleton of a public file, which carries none: the number of channels decides."""
    for candidate in (public, own):
        if (keypoints, limbs) == (candidate.num_keypoints, candidate.num_limbs):
            return candidate
    raise ValueError(f"{path} has {keypoints} keypoints and {limbs} limbs, skeleton {own.name!r} has "
                     f"{own.num_keypoints} and {own.num_limbs}: pass trained_on=, its own skeleton")  # fmt: skip


def _require_same_skeleton(what: str, a: Skeleton, other: str, b: Skeleton) -> None:
    if a.keypoints != b.keypoints:
        differ = sorted(set(a.keypoints) ^ set(b.keypoints)) or ["the order"]
        raise ValueError(f"{what} has {a.num_keypoints} keypoints, {other} {b.num_keypoints} (skeleton {b.name!r}); "
                         f"differing: {', '.join(differ[:6])}. To carry weights over to another skeleton, train with "
                         "model.initial_weights")  # fmt: skip
