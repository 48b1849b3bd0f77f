"""Public checkpoints as models, and the weights of any file as the beginning of a training."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lib.checkpoints.model import Classifier, Model, file_sha256
from lib.codecs.heatmap import HeatmapCodec
from lib.codecs.paf import COARSE, LIGHTWEIGHT_OPENPOSE_TARGETS, PafCodec
from lib.codecs.parts import PartsCodec
from lib.codecs.tags import TagsCodec
from lib.models import deepercut_public, hrnet_public, lightweight_openpose_public, topdown_public, trt_pose_public
from lib.models.deepercut import DeeperCut
from lib.models.foreign import identify, read_foreign
from lib.models.higherhrnet import HigherHRNet
from lib.models.hrnet import HRNetClassifier
from lib.models.lightweight_openpose import LightweightOpenPose
from lib.models.own import holds_own, read_own
from lib.models.topdown import TopDown
from lib.models.trt_pose import TrtPose
from lib.skeleton import COCO17, COCO18_NECK, MPII14, MPII16, OPENPOSE18, Skeleton
from lib.weights import LoadReport, fill


def load_weights(network: nn.Module, path: str | Path, trained_on: Skeleton | None = None) -> LoadReport:
    """Start a network from another's weights; outputs are carried over by name where the skeletons differ.

    Keypoints and limbs which only the network has keep their random weights, and a warning names them. A limb that points
    the other way gets its field negated. Refinement stages may be more (the others keep their random weights) or fewer
    (the others are left out) than the file's; a MobileNet fills the trunk alone. A warning says so each time. A file of HRNet's
    with another head, such as a classifier for a HigherHRNet, fills the trunk alone, and one with other classes all but the last
    layer; for these networks what was taken over is printed. An ImageNet classifier fills a DeeperCut's trunk alone.

    Args:
        network: changed in place.
        path: a checkpoint of ours (.safetensors), a public trt_pose `.pth`, for a LightweightOpenPose a public
            `checkpoint_iter_N.pth` or MobileNet `.pth.tar`, for HRNet's networks any layout of `lib.models.hrnet_public`, for
            a DeeperCut or a TopDown what `lib.models.deepercut_public` and `topdown_public` read.
        trained_on: skeleton of a public file; by default the one such files have, or the network's own if only that fits.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds another kind of network; nothing was changed then.
    """
    path, kind = Path(path), type(network).__name__
    options = None
    if isinstance(network, HRNetClassifier | HigherHRNet):
        return _load_hrnet_weights(network, path, trained_on)
    if isinstance(network, DeeperCut) and not holds_own(path):
        return _load_deepercut_weights(network, path, trained_on)
    if path.suffix == ".safetensors":
        metadata, state = read_own(path)
        if metadata["network"]["name"] != kind:
            raise ValueError(f"{path} holds the weights of a {metadata['network']['name']}, the network is a {kind}")
        options, source = metadata["network"]["options"], trained_on or Skeleton(**metadata["skeleton"])
    elif isinstance(network, TopDown):
        state, options, *_ = topdown_public.read_public(path)
        options, source = {**network.options, **options}, trained_on or _topdown_skeleton(state, network.skeleton, path)
    elif not isinstance(network, LightweightOpenPose):
        state = trt_pose_public.read_public(path)
        options = trt_pose_public.options_from_state(state, path)
        source = trained_on or _public_skeleton(COCO18_NECK, network.skeleton, *_trt_pose_channels(state), path)
    elif identify(read_foreign(path))[0] == "mobilenet":
        loaded = network.load_trunk(path)
        report = LoadReport(loaded, missing=tuple(key for key in network.state_dict() if not key.startswith("model.")))
        warnings.warn(
            f"{path}: a classifier fills the trunk, all behind it keeps its random weights: {report}", stacklevel=2
        )
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
    return Model(network.eval(), PafCodec(skeleton, stride=network.stride), size, keep_aspect_ratio, _origin(path))


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
    return Model(network.eval(), codec, input_size, keep_aspect_ratio, _origin(path))


def load_hrnet(
    path: str | Path, classes: Sequence[str] | None = None, *, input_size: tuple[int, int] = (224, 224)
) -> Classifier:
    """Read a public HRNet classifier; what was found in the file is printed.

    Args:
        path: a file of HRNet-Image-Classification (`hrnetv2_w32_imagenet_pretrained.pth`, or a training state) or of
            thawro/pytorch-human-pose (`hrnet_32.pt`, `best.pt`). The ImageNet weights that pose networks start from
            (`hrnet_w32-36af842e.pth`) have another head: they fit a network as `pretrained`.
        classes: their names; by default "0", "1" and so on.
        input_size: (height, width) of the network's input.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, an incomplete one, or another number of classes.
    """
    public = hrnet_public.read_public(path)
    if public.kind != "classifier":
        raise ValueError(f"{path} holds a {public.kind}, not a classifier; give it to a network as `pretrained`"
                         + (", or read it with load_higherhrnet" if public.kind == "pose" else ""))  # fmt: skip
    count, options = hrnet_public.classifier_options(public.state, path)
    if classes is not None and len(classes) != count:
        raise ValueError(f"{path} knows {count} classes, but {len(classes)} names were given")
    network = _random(HRNetClassifier, count if classes is None else classes, **options)
    report = fill(network, public.state, path)
    print(f"{path} ({public.layout} classifier, width {options['width']}, {count} classes): {report}")
    return Classifier(network.eval(), input_size, _origin(path))


def load_higherhrnet(path: str | Path, skeleton: Skeleton = COCO17, *, trained_on: Skeleton | None = None,
                     input_size: tuple[int, int] | None = None, keep_aspect_ratio: bool = True) -> Model:  # fmt: skip
    """Read a public HigherHRNet; what was found in the file is printed.

    The codec reads the maps in our way, drawn where the published code draws them (`truncate`);
    `replace(model.codec, **PUBLISHED_TAGS)` decodes in that code's way, too.

    Args:
        path: `pose_higher_hrnet_w32_512.pth` and its like, those in half precision and training states included, thawro's
            `higher_hrnet_32.pt`, or mmpose 0.x's.
        skeleton: wanted outputs. Where it differs from the file's, shared keypoints are copied by name, the others start from
            random weights and a warning names them.
        trained_on: the file's skeleton; by default COCO's 17 keypoints, or `skeleton` if only that fits.
        input_size: (height, width); by default what the file's name says (`…_640.pth`, `…_512x512…`), else 512 × 512.
        keep_aspect_ratio: pad images instead of stretching them, as the original does.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or an incomplete one.
    """
    public = hrnet_public.read_public(path, (trained_on or skeleton).num_keypoints)
    if public.kind != "pose":
        raise ValueError(f"{path} holds a {public.kind}, not a HigherHRNet; give it to the network as `pretrained`")
    keypoints, options = hrnet_public.pose_options(public.state, path)
    source = trained_on or _public_skeleton(COCO17, skeleton, keypoints, None, path)
    network = _random(HigherHRNet, skeleton, **options)
    report = fill(network, public.state, path, source)
    print(f"{path} ({public.layout} HigherHRNet, width {options['width']}, {keypoints} keypoints): {report}")
    sides = re.findall(r"[_-](\d{3,4})(?:x(\d{3,4}))?(?=[_.-])", Path(path).name)
    named = [(int(a), int(b or a)) for a, b in sides if int(a) % 32 == int(b or a) % 32 == 0]
    size = input_size or next(iter(named), (512, 512))
    codec = TagsCodec(
        skeleton, truncate=True, tag_per_keypoint=options["tag_per_keypoint"], tags_at_half=options["tags_at_half"]
    )
    return Model(network.eval(), codec, size, keep_aspect_ratio, _origin(path))


def load_topdown(path: str | Path, skeleton: Skeleton | None = None, *, trained_on: Skeleton | None = None,
                 input_size: tuple[int, int] | None = None) -> Model:  # fmt: skip
    """Read a public top-down network: SimpleBaseline or HRNet, see `lib.models.topdown_public` for whose.

    The codec reads the maps as published, DARK's and UDP's too. What a file cannot say, its name must: keep "udp", "dark" and
    the size of the input in it.

    Args:
        path: `pose_resnet_50_256x192.pth.tar`, `pose_hrnet_w32_256x192.pth`, `td-hm_res50_8xb64-210e_coco-256x192-….pth` …
        skeleton: wanted outputs, by default the file's. Where it differs, shared keypoints are copied by name, the others start
            from random weights and a warning names them.
        trained_on: the file's skeleton; by default COCO's 17 keypoints or MPII's 16, or `skeleton` if only that fits.
        input_size: (height, width); by default what the file's name says (`…256x192…`), else 256 × 192.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, an incomplete one, or a network that is not like any here.
    """
    state, options, codec, named = topdown_public.read_public(path)
    source = trained_on or _topdown_skeleton(state, skeleton, path)
    network = _random(TopDown, skeleton or source, **options)
    fill(network, state, path, source)
    return Model(network.eval(), HeatmapCodec(network.skeleton, **codec), input_size or named, info=_origin(path))


def load_deepercut(path: str | Path, skeleton: Skeleton | None = None, *, trained_on: Skeleton | None = None,
                   intermediate: int | None = None, input_size: tuple[int, int] | None = None,
                   keep_aspect_ratio: bool = True) -> Model:  # fmt: skip
    """Read a dump of the variables of DeeperCut's TensorFlow version (pretrained/README.md says how to make one).

    Cells lie where that code has them (`origin`), which counts pixels from 0 in COCO and from 1 in its MPII crops. A file with
    pairwise predictions finds many people as soon as its codec knows the units of those, which the file does not have:
    `replace(model.codec, pair_stats=…)`, see `lib.data.pair_statistics`. One without finds one person in a picture.

    Args:
        path: `.npz` or `.safetensors`.
        skeleton: wanted outputs, by default the file's. Where it differs, keypoints and pairs are copied by name, the others
            start from random weights and a warning names them.
        trained_on: the file's skeleton; by default the 14 joints of DeeperCut's MPII, or COCO's 17, or `skeleton` if only that
            fits.
        intermediate: unit of the third stage that the file's intermediate detector reads, if it has one; no tensor says which.
            By default 12, as published. In a ResNet without such a unit the detector, of use in training only, is left out.
        input_size: (height, width); by default 560 × 560 for one person, about what the MPII crops have, else 640 × 640. People
            should be some 340 pixels tall, as in training.
        keep_aspect_ratio: pad images instead of stretching them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, or an incomplete one.
    """
    state = deepercut_public.read_dump(path)
    source, options = _deepercut_source(state, trained_on, skeleton, path)
    if "intermediate.bias" in state:
        has = options["units"][2]
        options["intermediate"] = intermediate or (12 if has >= 12 else None)
    network = _random(DeeperCut, skeleton or source, **options)
    if "offsets.bias" not in state:
        state |= {key: torch.zeros_like(value) for key, value in network.offsets.state_dict(prefix="offsets.").items()}
    fill(network, state, path, source)
    pairwise, stride = options["pairwise"], network.stride
    codec = PartsCodec(network.skeleton, stride, radius_scales=True, origin=stride / 2 - (source == MPII14),
                       pairwise=pairwise, single=not pairwise)  # fmt: skip
    return Model(network.eval(), codec, input_size or ((640, 640) if pairwise else (560, 560)), keep_aspect_ratio, _origin(path))


def _deepercut_source(state: Mapping[str, Tensor], trained_on: Skeleton | None, skeleton: Skeleton | None,
                      path: str | Path) -> tuple[Skeleton, dict[str, Any]]:  # fmt: skip
    """Skeleton and options of the network that a dump comes from."""
    if "heatmaps.bias" not in state:
        raise ValueError(f"{path} holds a ResNet without part detectors; give it to a DeeperCut as `pretrained`")
    units, width = deepercut_public.units_and_width(state, path)
    count = len(state["heatmaps.bias"])
    public = MPII14 if count == MPII14.num_keypoints else COCO17
    source = trained_on or _public_skeleton(public, skeleton or public, count, None, path)
    return source, {"units": units, "width": width, "layout": "caffe", "pairwise": "pairwise.bias" in state}


def _topdown_skeleton(state: Mapping[str, Tensor], own: Skeleton | None, path: str | Path) -> Skeleton:
    """The skeleton of a public top-down network."""
    count = len(state["heatmaps.weight"])
    public = MPII16 if count == MPII16.num_keypoints else COCO17
    return _public_skeleton(public, own or public, count, None, path)


def _load_deepercut_weights(network: DeeperCut, path: Path, trained_on: Skeleton | None) -> LoadReport:
    """`load_weights` for a DeeperCut, of a file that is not ours."""
    state = deepercut_public.read_dump(path) if deepercut_public.is_dump(path) else {}
    if "heatmaps.bias" in state:
        source, options = _deepercut_source(state, trained_on, network.skeleton, path)
        return fill(network, state, path, source, options)
    deepercut_public.load_trunk(network, path)
    ours = tuple(network.state_dict())
    report = LoadReport(tuple(key for key in ours if key.startswith("trunk.")),
                        missing=tuple(key for key in ours if not key.startswith("trunk.")))  # fmt: skip
    warnings.warn(f"{path}: a classifier fills the trunk, all behind it keeps its random weights: {report}", stacklevel=3)
    return report


def _load_hrnet_weights(network: nn.Module, path: Path, trained_on: Skeleton | None) -> LoadReport:
    """`load_weights` for a HigherHRNet or an HRNetClassifier."""
    pose, classes, source = isinstance(network, HigherHRNet), None, None
    if path.suffix == ".safetensors":
        metadata, state = read_own(path)
        same = metadata["network"]["name"] == type(network).__name__
        options, classes = metadata["network"]["options"], tuple(metadata.get("classes", ()))
        source = trained_on or Skeleton(**metadata["skeleton"]) if pose and same else None
    else:
        public = hrnet_public.read_public(path, (trained_on or network.skeleton).num_keypoints if pose else 0)
        state, same, options = public.state, public.kind == ("pose" if pose else "classifier"), None
        if same and pose:
            keypoints, options = hrnet_public.pose_options(state, path)
            source = trained_on or _public_skeleton(COCO17, network.skeleton, keypoints, None, path)
        elif same:
            count, options = hrnet_public.classifier_options(state, path)
            # a public file does not name its classes: as many are taken for the same
            classes = network.classes if count == len(network.classes) else ()
    if not same:
        return hrnet_public.load_trunk(network, path)
    if not pose and classes != network.classes:
        state = {key: value for key, value in state.items() if not key.startswith("classify.")}
    report = fill(network, state, path, source, options)
    print(f"{path}: {report}")
    return report


def _origin(path: str | Path) -> dict[str, str]:
    """What a model's `info` says of the file it was read from."""
    return {"source": Path(path).name, "sha256": file_sha256(path)}


def _random(kind: type[nn.Module], *arguments: Any, **options: Any) -> nn.Module:
    """A network whose random weights are about to be overwritten: drawing them must not move the caller's generator."""
    with torch.random.fork_rng(devices=[]):
        return kind(*arguments, **options)


def _trt_pose_channels(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Keypoints and limbs of a public trt_pose file."""
    heatmaps, pafs = (len(state.get(key, ())) for key in ("heatmaps.output.bias", "pafs.output.bias"))
    return heatmaps, pafs // 2


def _openpose_channels(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Keypoints, without the background, and limbs of a public file of Lightweight OpenPose."""
    heatmaps, pafs = (len(state[f"initial_stage.{kind}.1.0.bias"]) for kind in ("heatmaps", "pafs"))
    return heatmaps - 1, pafs // 2


def _public_skeleton(public: Skeleton, own: Skeleton, keypoints: int, limbs: int | None, path: str | Path) -> Skeleton:
    """The skeleton of a public file, which carries none: the number of channels decides (`limbs` is None where it has none)."""
    for candidate in (public, own):
        if keypoints == candidate.num_keypoints and limbs in (None, candidate.num_limbs):
            return candidate
    has, theirs = f"{keypoints} keypoints", f"{own.num_keypoints}"
    if limbs is not None:
        has, theirs = f"{has} and {limbs} limbs", f"{theirs} and {own.num_limbs}"
    raise ValueError(f"{path} has {has}, skeleton {own.name!r} has {theirs}: pass trained_on=, its own skeleton")
