from __future__ import annotations

import inspect
import json
import warnings
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from lib.learner import PoseData, PoseModule
from lib.models.trt_pose import TrtPose
from lib.models.trt_pose_recipe import recipe_from_upstream
from lib.skeleton import COCO18_NECK


def dataset(split: str, angle: float, scale: tuple[float, float], shift: float) -> dict:
    return {
        "images_dir": f"{split}2017", "annotations_file": f"annotations/{split}.json", "category_name": "person",
        "image_shape": [256, 192], "target_shape": [64, 48], "is_bmp": False, "stdev": 0.025,
        "random_angle": [-angle, angle], "random_scale": list(scale), "random_translate": [-shift, shift],
    }  # fmt: skip


# the keys of the published configurations, with values of our own
CONFIG = {
    "train_dataset": dataset("train", 0.2, (0.5, 2.0), 0.1),
    "test_dataset": dataset("val", 0.0, (1.0, 1.0), 0.0),
    "stdev_schedule": {"0": 0.03, "20": 0.02},
    "color_jitter": {"brightness": 0.05, "contrast": 0.06, "saturation": 0.07, "hue": 0.01},
    "train_loader": {"batch_size": 24, "shuffle": True, "num_workers": 3, "pin_memory": True},
    "test_loader": {"batch_size": 24, "shuffle": True, "num_workers": 3, "pin_memory": True},
    "model": {
        "name": "densenet121_baseline_att",
        "kwargs": {"cmap_channels": 18, "paf_channels": 42, "upsample_channels": 128, "num_upsample": 3},
    },
    "optimizer": {"name": "Adam", "kwargs": {"lr": 0.001}},
    "epochs": 40,
    "lr_schedule": {"0": 0.001, "75": 0.0001, "150": 0.00001},
    "checkpoints": {"interval": 5},
    "mask_unlabeled": True,
}


def changed(path: str, value) -> dict:
    config = deepcopy(CONFIG)
    *sections, key = path.split(".")
    section = config
    for name in sections:
        section = section[name]
    section[key] = value
    return config


def convert(config) -> dict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return recipe_from_upstream(config)


def test_every_value_arrives():
    recipe = convert(CONFIG)
    assert recipe["model"] == {
        "network": {"name": "TrtPose", "trunk": "densenet121", "attention": True, "upsample_channels": 128,
                    "num_upsample": 3, "num_flat": 0, "pretrained": True},
        "codec": {"name": "PafCodec", "stride": 4, "stdev": 0.03},
        "optimizer": "adam",
        "learning_rate": {0: 1e-3, 75: 1e-4, 150: 1e-5},
        "weight_decay": 0.0,
        "stdev": {0: 0.03, 20: 0.02},
        "color_jitter": [0.05, 0.06, 0.07, 0.01],
    }  # fmt: skip
    assert recipe["data"] == {
        "train_annotations": "annotations/train.json", "train_images": "train2017",
        "val_annotations": "annotations/val.json", "val_images": "val2017", "category": "person", "neck": True,
        "input_size": [256, 192], "keep_aspect_ratio": False,
        "augment": {"scale": [0.5, 2.0], "rotation": 11.459, "translation": 0.1, "flip": 0.0},
        "mask_unlabelled": True, "mask_stride": 4, "min_area": 0.0, "max_area": 1.0, "batch_size": 24, "num_workers": 3,
    }  # fmt: skip
    assert recipe["trainer"] == {"max_epochs": 40}


def test_the_recipe_is_one_that_training_knows():
    recipe = convert(changed("model.initial_state_dict", "weights.pth"))
    assert yaml.safe_load(yaml.safe_dump(recipe)) == recipe
    for part, owner in (("model", PoseModule), ("data", PoseData)):
        # what a learner does not name itself it passes on to its base
        known = {name for c in owner.__mro__ if c.__module__.startswith("lib.") for name in inspect.signature(c).parameters}
        assert recipe[part].keys() <= known
    options = recipe["model"]["network"]
    assert TrtPose(COCO18_NECK, **{k: v for k, v in options.items() if k != "name"}).stride == 4


def test_from_a_file(tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    assert convert(path) == convert(CONFIG)


def test_initial_weights_make_a_download_needless():
    recipe = convert(changed("model.initial_state_dict", "weights.pth"))
    assert recipe["model"]["initial_weights"] == "weights.pth"
    assert recipe["model"]["network"]["pretrained"] is False


def test_schedules_that_begin_later_start_from_the_first_values():
    config = changed("lr_schedule", {"10": 1e-5})
    config["optimizer"]["kwargs"]["lr"] = 0.02
    config["stdev_schedule"] = {}
    recipe = convert(config)
    assert recipe["model"]["learning_rate"] == {0: 0.02, 10: 1e-5}
    assert recipe["model"]["stdev"] == {0: 0.025}


def test_stride_follows_the_number_of_upsamplings():
    config = changed("model.kwargs.num_upsample", 2)
    config["train_dataset"]["target_shape"] = [32, 24]
    recipe = convert(config)
    assert recipe["model"]["codec"]["stride"] == recipe["data"]["mask_stride"] == 8


def test_what_is_not_taken_over_is_said_once():
    config = changed("checkpoints.interval", 3)
    config["train_dataset"]["use_crowd"] = True
    config["optimizer"]["name"] = "SGD"
    with pytest.warns(UserWarning) as said:
        recipe_from_upstream(config)
    assert len(said) == 1
    for part in ("is_bmp", "pin_memory", "checkpoints.interval", "use_crowd", "momentum"):
        assert part in str(said[0].message)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("epoch", 3, "unknown key 'epoch', did you mean 'epochs'"),
        ("train_dataset.image_dir", "x", "'train_dataset.image_dir', did you mean 'train_dataset.images_dir'"),
        ("model.kwargs.upsample_chanels", 1, "did you mean 'model.kwargs.upsample_channels'"),
        ("train_loader", 64, "train_loader must be an object with keys such as 'batch_size'"),
        ("model", {"name": "resnet18_baseline"}, "model.kwargs.cmap_channels is missing"),
        ("model.name", "resnet18_baseline_at", "did you mean 'resnet18_baseline_att'"),
        ("optimizer.name", "Lion", "'Lion' is unknown, it is Adam or SGD"),
        ("lr_schedule", 0.1, "lr_schedule must be an object"),
        ("train_dataset.random_angle", [-0.1, 0.3], "not symmetric"),
        ("test_dataset.image_shape", [224, 224], "a recipe has one input size"),
        ("train_dataset.target_shape", [32, 24], r"num_upsample 3 the maps are \[64, 48\]"),
    ],
)
def test_mistakes_are_named(path: str, value, message: str):
    with pytest.raises(ValueError, match=message):
        convert(changed(path, value))


def test_the_368_configurations_cannot_train():
    config = changed("train_dataset.image_shape", [368, 368])
    config["train_dataset"]["target_shape"] = [92, 92]
    with pytest.raises(ValueError, match=r"\[368, 368\] cannot train, not in the original either.*multiples of 32.*"
                                         r"\[384, 384\] with target_shape \[96, 96\]"):  # fmt: skip
        convert(config)


def test_files_that_are_no_configuration(tmp_path: Path):
    path = tmp_path / "config.json"
    with pytest.raises(FileNotFoundError, match=r"config\.json: there is no such configuration"):
        recipe_from_upstream(path)
    for content, message in (("{", "is not JSON"), ("[]", "holds a list"), ('{"images": []}', "unknown key 'images'")):
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"config\.json.*{message}"):
            recipe_from_upstream(path)
