"""Training configurations of the original trt_pose (JSON) as recipes of this project.

The keys are those that `trt_pose.train` reads. Whatever has no counterpart here is said in one warning; whatever would train
something else than the author meant is an error.
"""

from __future__ import annotations

import difflib
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.models.trt_pose_public import options_from_name

_DATASET = {"images_dir", "annotations_file", "category_name", "image_shape", "target_shape", "is_bmp", "stdev",
            "use_crowd", "min_area", "max_area", "max_part_count", "random_angle", "random_scale", "random_translate",
            "keep_aspect_ratio"}  # fmt: skip
_LOADER = {"batch_size", "shuffle", "num_workers", "pin_memory"}
# section → its keys; None: a value, or a schedule {epoch: value}
_KEYS = {
    "train_dataset": _DATASET,
    "test_dataset": _DATASET,
    "train_loader": _LOADER,
    "test_loader": _LOADER,
    "color_jitter": {"brightness", "contrast", "saturation", "hue"},
    "model": {"name", "kwargs", "initial_state_dict"},
    "model.kwargs": {"cmap_channels", "paf_channels", "upsample_channels", "num_upsample", "num_flat", "pretrained"},
    "optimizer": {"name", "kwargs"},
    "optimizer.kwargs": {"lr", "momentum", "weight_decay"},
    "checkpoints": {"interval"},
    "evaluation": {"images_dir", "annotation_file", "image_shape", "keep_aspect_ratio"},
    "stdev_schedule": None,
    "lr_schedule": None,
    "epochs": None,
    "mask_unlabeled": None,
}
_REQUIRED = ("train_dataset.images_dir", "train_dataset.annotations_file", "train_dataset.category_name",
             "train_dataset.image_shape", "train_dataset.target_shape", "test_dataset.images_dir",
             "test_dataset.annotations_file", "stdev_schedule", "lr_schedule", "color_jitter", "train_loader",
             "model.name", "model.kwargs.cmap_channels", "model.kwargs.paf_channels", "optimizer.name", "epochs")  # fmt: skip
# keys without a counterpart, and what happens instead
_DEAD = {
    "is_bmp": "the extension of the file names counts",
    "pin_memory": "chosen by the device",
    "max_part_count": "there is no limit",
    "checkpoints.interval": "the last and the best checkpoint are kept",
    "evaluation": "AP on test_dataset is measured after every epoch",
    "apex": "mixed precision is trainer.precision",
}


def recipe_from_upstream(config: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Convert an original trt_pose training configuration into a recipe.

    Args:
        config: its JSON file, or its content.

    Returns:
        The recipe's `model`, `data` and `trainer` as plain values, ready for YAML. Paths are left as they are.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a configuration, an unknown key (the nearest one is named), or one that cannot train.
    """
    source = "the configuration"
    if not isinstance(config, Mapping):
        source, config = str(config), _read(Path(config))
    try:
        return _convert(config, source)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _read(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such configuration")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if type(config) is not dict:
        raise ValueError(f"{path} holds a {type(config).__name__}, not a trt_pose training configuration")
    return config


def _convert(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    _check_keys(config)
    train, test, model = config["train_dataset"], config["test_dataset"], config["model"]
    kwargs, optimizer = model["kwargs"], config["optimizer"]
    options = options_from_name(model["name"])
    initial = model.get("initial_state_dict")
    num_upsample = kwargs.get("num_upsample", 3)
    stride = _stride(train, num_upsample)
    if test.get("image_shape", train["image_shape"]) != train["image_shape"]:
        raise ValueError(f"test_dataset.image_shape {test['image_shape']} differs from train_dataset's "
                         f"{train['image_shape']}; a recipe has one input size")  # fmt: skip
    stdev = _schedule(config, "stdev_schedule", train.get("stdev", 0.02))
    _warn(config, source)
    recipe = {
        "model": {
            "network": {"name": "TrtPose", **options, "upsample_channels": kwargs.get("upsample_channels", 256),
                        "num_upsample": num_upsample, "num_flat": kwargs.get("num_flat", 0),
                        "pretrained": kwargs.get("pretrained", True) and not initial},
            "codec": {"name": "PafCodec", "stride": stride, "stdev": stdev[0]},
            "optimizer": _optimizer(optimizer["name"]),
            "learning_rate": _schedule(config, "lr_schedule", optimizer.get("kwargs", {}).get("lr", 1e-3)),
            "weight_decay": optimizer.get("kwargs", {}).get("weight_decay", 0.0),
            "stdev": stdev,
            "color_jitter": [config["color_jitter"].get(k, 0.0) for k in ("brightness", "contrast", "saturation", "hue")],
        },
        "data": {**_data(config, stride), "neck": _has_neck(kwargs, train)},
        "trainer": {"max_epochs": config["epochs"]},
    }  # fmt: skip
    if initial:
        recipe["model"]["initial_weights"] = initial
    return recipe


def _data(config: Mapping[str, Any], stride: int) -> dict[str, Any]:
    train, test = config["train_dataset"], config["test_dataset"]
    return {
        "train_annotations": train["annotations_file"],
        "train_images": train["images_dir"],
        "val_annotations": test["annotations_file"],
        "val_images": test["images_dir"],
        "category": train["category_name"],
        "input_size": list(train["image_shape"]),
        "keep_aspect_ratio": train.get("keep_aspect_ratio", False),
        "augment": {
            "scale": list(train.get("random_scale", [1.0, 1.0])),
            "rotation": round(math.degrees(_symmetric(train, "random_angle")), 3),
            "translation": _symmetric(train, "random_translate"),
            "flip": 0.0,
        },
        "mask_unlabelled": config.get("mask_unlabeled", False),
        "mask_stride": stride,
        "min_area": train.get("min_area", 0.0),
        "max_area": train.get("max_area", 1.0),
        "batch_size": config["train_loader"].get("batch_size", 1),
        "num_workers": config["train_loader"].get("num_workers", 0),
    }


def _check_keys(config: Mapping[str, Any]) -> None:
    def check(section: Mapping[str, Any], known, prefix: str) -> None:
        for key, value in section.items():
            if key not in known and key not in _DEAD:
                near = difflib.get_close_matches(key, known, 1, cutoff=0.5)
                hint = f", did you mean {prefix + near[0]!r}?" if near else f"; known here: {', '.join(sorted(known))}"
                raise ValueError(f"unknown key {prefix + key!r}{hint}")
            if inner := _KEYS.get(prefix + key):
                if not isinstance(value, Mapping):
                    raise ValueError(f"{prefix + key} must be an object with keys such as {min(inner)!r}")
                check(value, inner, f"{prefix}{key}.")

    check(config, [key for key in _KEYS if "." not in key], "")
    for path in _REQUIRED:
        value = config
        for part in path.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise ValueError(f"{path} is missing; a trt_pose training configuration needs it")
            value = value[part]


def _stride(train: Mapping[str, Any], num_upsample: int) -> int:
    """Input pixels per map cell; an error if the network's maps would not have the size of the targets."""
    shape, target = list(train["image_shape"]), list(train["target_shape"])
    stride = 2 ** (5 - num_upsample)
    if any(side % 32 for side in shape):
        fits = [max(32, round(side / 32) * 32) for side in shape]
        raise ValueError(
            f"image_shape {shape} cannot train, not in the original either: trunks halve the image five times and round, so "
            f"maps do not have target_shape {target} unless the sides are multiples of 32; the nearest is image_shape "
            f"{fits} with target_shape {[side // stride for side in fits]}"
        )
    if target != [side // stride for side in shape]:
        raise ValueError(f"target_shape {target} does not fit: with image_shape {shape} and num_upsample {num_upsample} the "
                         f"maps are {[side // stride for side in shape]}")  # fmt: skip
    return stride


def _schedule(config: Mapping[str, Any], name: str, initial: float) -> dict[int, float]:
    """{epoch: value from that epoch on}, beginning at epoch 0."""
    try:
        schedule = {0: float(initial), **{int(epoch): float(value) for epoch, value in config[name].items()}}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f'{name} must be an object {{"epoch": value}}, got {config[name]!r}') from None
    return dict(sorted(schedule.items()))


def _symmetric(train: Mapping[str, Any], name: str) -> float:
    low, high = train.get(name, (0.0, 0.0))
    if low != -high:
        raise ValueError(f"train_dataset.{name} [{low}, {high}] is not symmetric; a recipe's range is, write [-x, x]")
    return float(high)


def _optimizer(name: str) -> str:
    if name not in ("Adam", "SGD"):
        raise ValueError(f"optimizer.name {name!r} is unknown, it is Adam or SGD")
    return name.lower()


def _has_neck(kwargs: Mapping[str, Any], train: Mapping[str, Any]) -> bool:
    """Whether the skeleton is COCO's with a neck, which the original wants inserted into the file beforehand."""
    return train["category_name"] == "person" and (kwargs["cmap_channels"], kwargs["paf_channels"]) == (18, 42)


def _warn(config: Mapping[str, Any], source: str) -> None:
    """Name what the file says and the recipe does not follow."""
    notes = []
    for key, instead in _DEAD.items():
        section, _, inner = key.partition(".")
        nested = any(isinstance(part, Mapping) and key in part for part in config.values())
        if nested or section in config and (not inner or inner in config[section]):
            notes.append(f"{key} ({instead})")
    if config["train_dataset"].get("use_crowd"):
        notes.append("use_crowd (crowd regions are masked)")
    if config["train_loader"].get("shuffle") is False:
        notes.append("train_loader.shuffle (training is always shuffled)")
    if config["optimizer"]["name"] == "SGD" and config["optimizer"].get("kwargs", {}).get("momentum", 0) != 0.9:
        notes.append("optimizer momentum (it is 0.9 for sgd)")
    if any(any(config["test_dataset"].get(key, ())) for key in ("random_angle", "random_translate")):
        notes.append("test_dataset.random_* (validation images are not augmented)")
    if notes:
        warnings.warn(f"{source}: not taken over: {'; '.join(notes)}", stacklevel=4)
