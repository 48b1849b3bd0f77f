"""Training configurations of the original DeeperCut (`pose_cfg.yaml`) as recipes of this project.

The keys are those that eldar/pose-tensorflow reads. Whatever has no counterpart here, and what nothing ever read, is said in one
warning; whatever would train something else than the author meant is an error.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lib.models.resnet import RESNETS

# keys with a counterpart, and what the original takes where they are left out; None: nothing
_DEFAULTS: dict[str, Any] = {
    "dataset": None, "dataset_type": "default", "dataset_phase": None, "dataset_ann": "person_keypoints",
    "coco_only_images_with_people": True, "num_joints": None, "all_joints": None, "net_type": None, "init_weights": None,
    "stride": 8.0, "mean_pixel": [123.68, 116.779, 103.939], "global_scale": 1.0, "scale_jitter_lo": 1.0,
    "scale_jitter_up": 1.0, "pos_dist_thresh": 17.0, "max_input_size": math.inf, "mirror": False, "shuffle": True, "crop": False,
    "location_refinement": False, "locref_stdev": 7.2801, "locref_loss_weight": 1.0, "locref_huber_loss": True,
    "intermediate_supervision": False, "intermediate_supervision_layer": 12, "pairwise_predict": False,
    "pairwise_loss_weight": 1.0, "pairwise_huber_loss": True, "pairwise_stats_collect": False,
    "tensorflow_pairwise_order": True, "weigh_part_predictions": False, "weigh_only_present_joints": False,
    "optimizer": "sgd", "adam_lr": None, "multi_step": None, "batch_size": 1, "use_gt_segm": False, "video": False,
    "video_batch": False, "sparse_graph": [], "nms_radius": 5.0, "det_min_score": 0.2,
}  # fmt: skip
# what values look like where that does not show the default
_EXAMPLES = {"dataset": "/path/to/dataset.mat", "dataset_phase": "train2014", "num_joints": 14, "all_joints": [[0, 5], [1, 4], [2]],
             "net_type": "resnet_101", "init_weights": "resnet_v1_101.ckpt", "adam_lr": 1e-4,
             "multi_step": [[0.005, 10000], [0.02, 430000]], "sparse_graph": [[0, 1], [0, 2]], "max_input_size": 850}  # fmt: skip
# keys without a counterpart, and what happens instead
_DEAD = {
    "all_joints_names": "the annotations name the keypoints",
    "crop_pad": "of crop alone",
    "weigh_negatives": "the original does not read it, either",
    "fg_fraction": "the original does not read it, either",
    "regularize": "the original does not read it, either",
    "weight_decay": "the original does not add it to the loss, either",
    "scmap_threshold": "the original does not read it, either",
    "display_iters": "figures are kept of every epoch",
    "save_iters": "the last and the best checkpoint are kept",
    "snapshot_prefix": "results lie in out_dir",
    "log_dir": "results lie in out_dir",
    "scoremap_dir": "nothing is kept of a test",
    "cached_scoremaps": "nothing is kept of a test",
    "pck_threshold": "evaluate has the official measures",
    "pairwise_stats_fn": "the statistics are measured when training begins; `python -m lib pairwise-stats --published` takes a file's",
    "pairwise_model_dir": "the regressions are learnt by `python -m lib pairwise-fit` after the training",
}
# values that would mean another training, and what to do instead
_REFUSED = {
    ("crop", True): "pictures are not cut while training; cut them before",
    ("dataset_ann", "image_info"): "a training needs person_keypoints",
    ("pairwise_stats_collect", True): "`python -m lib pairwise-stats` measures them, leave the key out",
    ("tensorflow_pairwise_order", False): "channels of pairs have the TensorFlow version's order, leave the key out",
    ("weigh_only_present_joints", True): "a mask is the same for all keypoints here, leave the key out",
    ("use_gt_segm", True): "people are not cut out by the true segmentation, leave the key out",
    ("video", True): "the original lacks the network for videos, too",
    ("video_batch", True): "the original lacks the network for videos, too",
}
_MARKS = ("net_type", "multi_step", "dataset_type", "init_weights", "pos_dist_thresh", "location_refinement")


def is_pose_cfg(content: Any) -> bool:
    """Whether the content of a YAML file is a training configuration of the original, and no recipe."""
    return isinstance(content, Mapping) and "model" not in content and any(key in content for key in _MARKS)


def recipe_from_pose_cfg(config: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Convert a `pose_cfg.yaml` into a recipe.

    Args:
        config: the file, or its content. Paths in a file are meant from its folder, where the original is started.

    Returns:
        The recipe's `model`, `data` and `trainer` as plain values, ready for YAML.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a configuration, an unknown key (the nearest one is named), or one that cannot train here.
    """
    source, folder = "the configuration", Path()
    if not isinstance(config, Mapping):
        source, folder = str(config), Path(config).absolute().parent
        config = _read(Path(config))
    try:
        _check_keys(config)
        recipe = _convert({**_DEFAULTS, **config}, folder)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    _warn(config, source)
    return recipe


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such configuration")
    text = path.read_text()
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        wrong = re.search(r"^\w+ *=", text, re.MULTILINE)
        hint = f"; write {wrong[0].rstrip(' =')}: with a colon" if wrong else ""
        raise ValueError(f"{path} is not YAML{hint}: {' '.join(str(error).split())}") from error
    if not isinstance(config, Mapping):
        raise ValueError(f"{path} holds a {type(config).__name__}, not a training configuration")
    return config


def _convert(c: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    rates = _rates(c)
    # of pictures that are validated; MPII's crops: people of 400 pixels and 130 around them, times the published scale
    size = [640, 640] if c["dataset_type"] == "coco" else [560, 560]
    data = {
        **_where(c, folder), "samples": "scaled",
        "scaled": {"global_scale": c["global_scale"], "jitter": [c["scale_jitter_lo"], c["scale_jitter_up"]],
                   "flip": 0.5 if c["mirror"] else 0.0,
                   "max_input_size": c["max_input_size"] if math.isfinite(c["max_input_size"]) else None, "min_side": 100},
        "input_size": size, "mask_stride": 8, "mask_unlabelled": c["weigh_part_predictions"],
        "batch_size": c["batch_size"],
    }  # fmt: skip
    model = {
        **_network(c, folder), "codec": _codec(c),
        "optimizer": c["optimizer"], "learning_rate": c["adam_lr"] if c["optimizer"] == "adam" else rates,
        "schedule": "iterations", "freeze_norm": True, "color_jitter": [0.0] * 4,
    }  # fmt: skip
    # the last iteration counts, and the first is 0
    return {"model": model, "data": data, "trainer": {"max_epochs": -1, "max_steps": int(c["multi_step"][-1][1]) + 1}}


def _network(c: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    depth = re.fullmatch(r"resnet_(\d+)", str(c["net_type"]))
    if not depth or int(depth[1]) not in RESNETS:
        raise ValueError(f"net_type is {' or '.join(f'resnet_{number}' for number in RESNETS)}, got {c['net_type']!r}")
    units, unit = RESNETS[int(depth[1])], c["intermediate_supervision_layer"]
    if c["intermediate_supervision"] and not 1 <= unit <= units[2]:
        raise ValueError(f"intermediate_supervision_layer is {unit}, but the third stage of {c['net_type']} has {units[2]} units: the "
                         "author used no such layer with it, leave intermediate_supervision out")  # fmt: skip
    pairs, refine = c["pairwise_predict"], c["location_refinement"]
    kinds = {c[key] for key, used in (("locref_huber_loss", refine), ("pairwise_huber_loss", pairs)) if used}
    if len(kinds) > 1:
        raise ValueError(
            "locref_huber_loss and pairwise_huber_loss differ, here both are Huber or both squares: make them equal"
        )
    weights = _weights(c["init_weights"], folder)
    network = {
        "name": "DeeperCut", "units": list(units), "layout": "torchvision" if "pth" in weights else "caffe", "pairwise": pairs,
        "intermediate": unit if c["intermediate_supervision"] else None,
        # offsets that are not trained stay about 0
        "offset_weight": c["locref_loss_weight"] if refine else 0.0, "pairwise_weight": c["pairwise_loss_weight"],
        "huber": kinds != {False}, "pretrained": weights.get("pretrained", False),
    }  # fmt: skip
    initial = {"initial_weights": weights["initial"]} if "initial" in weights else {}
    return {"network": network, **initial}


def _weights(path: str | None, folder: Path) -> dict[str, str]:
    """What a training starts from: "pretrained", a ResNet, or "initial", a whole network; "pth" if it is of torchvision."""
    if path is None:
        return {}
    found = _beside(folder, path)
    # a checkpoint of TensorFlow has no ending of its own (snapshot-1030000): this is the dump to be made of it
    if found.suffix not in (".npz", ".safetensors", ".pth"):
        found = found.with_name(found.name.removesuffix(".ckpt") + ".npz")
    whole = not found.name.startswith("resnet")
    return {"initial" if whole else "pretrained": str(found)} | ({"pth": "true"} if found.suffix == ".pth" else {})


def _beside(folder: Path, path: str) -> Path:
    return Path(os.path.normpath(folder / path))


def _codec(c: Mapping[str, Any]) -> dict[str, Any]:
    codec = {
        "name": "PartsCodec", "stride": 8, "radius": c["pos_dist_thresh"], "radius_scales": True,
        "offset_stdev": c["locref_stdev"],
        # the middle of a cell is at pixel 4 of the original, which counts from 1 in MPII's crops
        "origin": 3.0 if c["dataset_type"] == "mpii" else 4.0, "pairwise": c["pairwise_predict"],
        "single": not c["pairwise_predict"], "nms_radius": c["nms_radius"], "detection_threshold": c["det_min_score"],
    }  # fmt: skip
    # pairs with the larger keypoint first have no effect in the original
    graph = [list(pair) for pair in c["sparse_graph"] if pair[0] < pair[1]]
    return codec | ({"graph": graph} if graph else {})


def _where(c: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    kind, dataset = c["dataset_type"], _beside(folder, c["dataset"])
    joints = sum(len(group) for group in c["all_joints"] or ()) or c["num_joints"]
    known = {"mpii": ("mpii14", 14), "coco": ("coco17", 17), "default": (None, joints)}
    if kind not in known:
        raise ValueError(f"dataset_type is {', '.join(known)}, got {kind!r}")
    skeleton, wanted = known[kind]
    if {joints, c["num_joints"]} - {wanted, None}:
        raise ValueError(
            f"num_joints is {c['num_joints']} and all_joints has {joints}, dataset_type {kind} has {wanted}"
        )
    if kind == "coco":
        phase = c["dataset_phase"] or "train2014"
        data = {"data_dir": str(dataset), "category": "person", "skeleton": skeleton, "unlabelled_pictures": True}
        # the original does not validate; what there is to validate with lies beside what it trains on
        for part, name in {"train": phase, "val": phase.replace("train", "val")}.items():
            data[f"{part}_annotations"] = str(dataset / "annotations" / f"person_keypoints_{name}.json")
            data[f"{part}_images"] = str(dataset / "images" / name)
        return data
    # what stands beside dataset.mat in crops of `prepare mpii`, and in what `convert` makes of one
    return {"data_dir": str(dataset.parent)} | ({"skeleton": skeleton} if skeleton else {})


def _rates(c: Mapping[str, Any]) -> dict[int, float]:
    """{first iteration: rate}; an entry of multi_step counts up to and with its iteration."""
    rates, start = {}, 0
    if not c["multi_step"] or any(len(entry) != 2 for entry in c["multi_step"]):
        raise ValueError(f"multi_step is a list of [learning rate, last iteration], got {c['multi_step']}")
    for rate, last in c["multi_step"]:
        if last < start:
            raise ValueError(f"multi_step: iterations must rise, got {c['multi_step']}")
        rates[start] = float(rate)
        start = int(last) + 1
    return rates


def _check_keys(config: Mapping[str, Any]) -> None:
    known = {*_DEFAULTS, *_DEAD}
    for key, value in config.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), sorted(known), 1, cutoff=0.5)
            raise ValueError(f"unknown key {key!r}{f', did you mean {near[0]!r}?' if near else ''}")
        if key in _DEFAULTS and not _fits(value, _EXAMPLES.get(key, _DEFAULTS[key])):
            raise ValueError(f"{key} cannot be {value!r}; it is like {_EXAMPLES.get(key, _DEFAULTS[key])!r}")
        for (refused, bad), instead in _REFUSED.items():
            if key == refused and value == bad:
                raise ValueError(f"{key}: {str(value).lower()} cannot be had here: {instead}")
    for key in ("dataset", "net_type", "multi_step"):
        if config.get(key) is None:
            raise ValueError(f"{key} is missing; a training needs it (a configuration for tests alone has none)")
    if config.get("optimizer") == "adam" and config.get("adam_lr") is None:
        raise ValueError("adam_lr is missing; optimizer adam needs it")
    for key in ("stride", "mean_pixel"):
        if config.get(key, _DEFAULTS[key]) != _DEFAULTS[key]:
            raise ValueError(
                f"{key} is {_DEFAULTS[key]} in the published network and here, not {config[key]}: leave it out"
            )


def _fits(value: Any, example: Any) -> bool:
    """Whether a value is like an example: numbers in lists of the same depth, words, or yes and no."""
    if isinstance(example, list):
        return isinstance(value, list) and all(_fits(item, example[0]) for item in value)
    number = isinstance(example, (int, float)) and not isinstance(example, bool)
    return _is_number(value) if number else type(value) is type(example)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _warn(config: Mapping[str, Any], source: str) -> None:
    """Name what the file says and the recipe does not follow."""
    notes = [f"{key} ({_DEAD[key]})" for key in config if key in _DEAD]
    weights = str(config.get("init_weights") or "")
    if config.get("shuffle") is False:
        notes.append("shuffle (training is always shuffled)")
    if config.get("coco_only_images_with_people") is False:
        notes.append("coco_only_images_with_people (pictures of nobody are left out)")
    if not config.get("location_refinement"):
        notes.append(
            "nothing of location_refinement: there are offsets, which stay about 0 as their loss does not count"
        )
    if backwards := [pair for pair in config.get("sparse_graph", ()) if pair[0] >= pair[1]]:
        notes.append(f"of sparse_graph {backwards} (the smaller keypoint comes first, the original ignores these, too)")
    if weights and not weights.endswith((".npz", ".safetensors", ".pth")):
        notes.append(
            "init_weights as they are (its dump, an .npz beside it, is read instead; pretrained/README.md says how to make one)"
        )
    if config.get("dataset_type", "default") != "coco":
        notes.append("dataset as it is (annotations and images are read from its folder, as `python -m lib prepare mpii --crops true` and "
                     "`python -m lib convert` make them)")  # fmt: skip
    if notes:
        warnings.warn(f"{source}: not taken over: {'; '.join(notes)}", stacklevel=3)
