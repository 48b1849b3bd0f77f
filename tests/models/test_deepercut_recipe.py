from __future__ import annotations

import inspect
import warnings
from pathlib import Path

import pytest
import yaml

from lib.codecs.parts import PartsCodec
from lib.data.scaled import ScaleJitter
from lib.learner import PoseData, PoseModule
from lib.learning import Learner
from lib.models.deepercut import DeeperCut
from lib.models.deepercut_recipe import is_pose_cfg, recipe_from_pose_cfg
from lib.skeleton import COCO17
from lib.training import read_recipe

# keys of the original's files, with values of our own
SINGLE = {
    "dataset": "crops/dataset.mat", "dataset_type": "mpii", "net_type": "resnet_101", "init_weights": "../nets/resnet_v1_101.ckpt",
    "pos_dist_thresh": 15, "global_scale": 0.8, "scale_jitter_lo": 0.9, "scale_jitter_up": 1.2, "mirror": True,
    "max_input_size": 700, "location_refinement": True, "locref_huber_loss": True, "locref_loss_weight": 0.07,
    "locref_stdev": 6.5, "intermediate_supervision": True, "intermediate_supervision_layer": 9,
    "multi_step": [[0.01, 100], [0.001, 300]],
}  # fmt: skip
MANY = {
    **SINGLE, "dataset": "/data/coco", "dataset_type": "coco", "dataset_phase": "train2017", "net_type": "resnet_50",
    "intermediate_supervision": False, "pairwise_predict": True, "pairwise_loss_weight": 0.03, "weigh_part_predictions": True,
    "sparse_graph": [[0, 1], [3, 2], [5, 16]], "nms_radius": 4.0, "det_min_score": 0.3,
}  # fmt: skip


def convert(config) -> dict:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return recipe_from_pose_cfg(config)


def write(path: Path, config: dict) -> Path:
    path.write_text(yaml.safe_dump(config))
    return path


def test_one_person(tmp_path):
    recipe = convert(write(tmp_path / "pose_cfg.yaml", SINGLE))
    network = recipe["model"]["network"]
    assert network == {"name": "DeeperCut", "units": [3, 4, 23, 3], "layout": "caffe", "pairwise": False, "intermediate": 9,
                       "offset_weight": 0.07, "pairwise_weight": 1.0, "huber": True,
                       "pretrained": str(tmp_path.parent / "nets/resnet_v1_101.npz")}  # fmt: skip
    codec = recipe["model"]["codec"]
    assert (codec["radius"], codec["offset_stdev"], codec["origin"], codec["single"]) == (15, 6.5, 3.0, True)
    # an entry counts up to and with its iteration, and iterations are counted from 0
    assert recipe["model"]["learning_rate"] == {0: 0.01, 101: 0.001}
    assert recipe["trainer"] == {"max_epochs": -1, "max_steps": 301}
    assert recipe["data"]["scaled"] == {"global_scale": 0.8, "jitter": [0.9, 1.2], "flip": 0.5, "max_input_size": 700, "min_side": 100}
    assert (recipe["data"]["data_dir"], recipe["data"]["skeleton"]) == (str(tmp_path / "crops"), "mpii14")
    assert recipe["model"]["freeze_norm"] is True
    assert recipe["data"]["mask_unlabelled"] is False


def test_many_people():
    recipe = convert(MANY)
    network, codec, data = recipe["model"]["network"], recipe["model"]["codec"], recipe["data"]
    assert (network["units"], network["intermediate"], network["pairwise_weight"]) == ([3, 4, 6, 3], None, 0.03)
    assert (codec["origin"], codec["single"], codec["graph"]) == (4.0, False, [[0, 1], [5, 16]])
    assert (codec["nms_radius"], codec["detection_threshold"]) == (4.0, 0.3)
    assert data["train_annotations"] == "/data/coco/annotations/person_keypoints_train2017.json"
    assert data["val_annotations"] == "/data/coco/annotations/person_keypoints_val2017.json"
    assert data["val_images"] == "/data/coco/images/val2017"
    assert (data["train_images"], data["skeleton"], data["mask_unlabelled"]) == ("/data/coco/images/train2017", "coco17", True)


@pytest.mark.parametrize("config", [SINGLE, MANY])
def test_all_it_says_exists(config):
    recipe = convert(config)
    classes = {"network": DeeperCut, "codec": PartsCodec}
    for what, kind in classes.items():
        options = {key: value for key, value in recipe["model"][what].items() if key != "name"}
        assert options.keys() <= inspect.signature(kind).parameters.keys()
        assert recipe["model"][what]["name"] == kind.__name__
    PartsCodec(COCO17, **{key: value for key, value in convert(MANY)["model"]["codec"].items() if key != "name"})
    known = inspect.signature(PoseModule).parameters.keys() | inspect.signature(Learner).parameters.keys()
    assert recipe["model"].keys() <= known
    assert recipe["data"].keys() <= inspect.signature(PoseData).parameters.keys()
    ScaleJitter(**recipe["data"]["scaled"])
    assert yaml.safe_load(yaml.safe_dump(recipe)) == recipe


@pytest.mark.parametrize(("weights", "wanted"), [
    ({"init_weights": "a/snapshot-1030000"}, ("caffe", False, "a/snapshot-1030000.npz")),
    ({"init_weights": "a/mine.safetensors"}, ("caffe", False, "a/mine.safetensors")),
    ({"init_weights": "a/resnet50-0676ba61.pth"}, ("torchvision", "a/resnet50-0676ba61.pth", None)),
    ({"init_weights": None}, ("caffe", False, None)),
])  # fmt: skip
def test_what_it_starts_from(weights, wanted):
    model = convert({**SINGLE, **weights})["model"] if weights["init_weights"] else convert(without("init_weights"))["model"]
    found = model["network"]["layout"], model["network"]["pretrained"], model.get("initial_weights")
    assert found == wanted


def test_left_out_keys_mean_what_the_original_takes_for_them():
    recipe = convert({key: SINGLE[key] for key in ("dataset", "net_type", "multi_step")})
    assert recipe["data"]["scaled"] == {"global_scale": 1.0, "jitter": [1.0, 1.0], "flip": 0.0, "max_input_size": None, "min_side": 100}
    assert recipe["model"]["network"]["offset_weight"] == 0
    assert "skeleton" not in recipe["data"]


def test_adam_has_its_own_rate_and_ends_with_the_schedule():
    recipe = convert({**SINGLE, "optimizer": "adam", "adam_lr": 0.0001})
    assert (recipe["model"]["optimizer"], recipe["model"]["learning_rate"]) == ("adam", 0.0001)
    assert recipe["trainer"]["max_steps"] == 301


def test_what_is_not_taken_over_is_said_in_one_warning(tmp_path):
    dead = {"weight_decay": 1e-4, "fg_fraction": 0.25, "save_iters": 60000, "shuffle": False, "scmap_threshold": 0.0}
    path = write(tmp_path / "pose_cfg.yaml", {**MANY, **dead, "pairwise_stats_fn": "a.mat"})
    with pytest.warns(UserWarning, match="pose_cfg.yaml: not taken over: ") as said:
        recipe_from_pose_cfg(path)
    assert len(said) == 1
    text = str(said[0].message)
    assert all(f"{key} (" in text for key in [*dead, "pairwise_stats_fn"])
    assert "[[3, 2]]" in text
    assert "init_weights as they are" in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe_from_pose_cfg({**MANY, "init_weights": "a.npz", "sparse_graph": [[0, 1]]})


@pytest.mark.parametrize(("changes", "message"), [
    ({"pos_dist_tresh": 17}, "unknown key 'pos_dist_tresh', did you mean 'pos_dist_thresh'"),
    ({"net_type": "resnet_34"}, "net_type is resnet_50 or resnet_101 or resnet_152, got 'resnet_34'"),
    ({"net_type": "resnet_50", "intermediate_supervision_layer": 12}, "is 12, but the third stage of resnet_50 has 6 units"),
    ({"multi_step": []}, "multi_step is a list of"),
    ({"multi_step": [[0.01, 100], [0.02, 50]]}, "iterations must rise"),
    ({"multi_step": 0.1}, "multi_step cannot be 0.1; it is like"),
    ({"mirror": "yes please"}, "mirror cannot be 'yes please'"),
    ({"global_scale": "1e-1"}, "global_scale cannot be '1e-1'"),
    ({"optimizer": "adam"}, "adam_lr is missing"),
    ({"stride": 16.0}, "stride is 8.0 in the published network"),
    ({"mean_pixel": [0, 0, 0]}, "mean_pixel is"),
    ({"crop": True}, "crop: true cannot be had here"),
    ({"tensorflow_pairwise_order": False}, "tensorflow_pairwise_order: false cannot be had here"),
    ({"dataset_type": "penn_action"}, "dataset_type is mpii, coco, default"),
    ({"num_joints": 16}, "num_joints is 16 and all_joints has 16, dataset_type mpii has 14"),
    ({"dataset_type": "default", "num_joints": 3, "all_joints": [[0, 1]]}, "num_joints is 3 and all_joints has 2"),
    ({"pairwise_predict": True, "pairwise_huber_loss": False}, "locref_huber_loss and pairwise_huber_loss differ"),
])  # fmt: skip
def test_configurations_that_cannot_train(tmp_path, changes, message):
    path = write(tmp_path / "pose_cfg.yaml", {**SINGLE, **changes})
    with pytest.raises(ValueError, match=message) as caught:
        recipe_from_pose_cfg(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("key", ["dataset", "net_type", "multi_step"])
def test_configurations_for_tests_alone(key):
    with pytest.raises(ValueError, match=f"{key} is missing; a training needs it"):
        recipe_from_pose_cfg(without(key))


def test_files_that_are_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such configuration"):
        recipe_from_pose_cfg(tmp_path / "none.yaml")
    path = tmp_path / "pose_cfg.yaml"
    path.write_text("num_joints: 2\nall_joints = [[0], [1]]\nmirror: true\n")
    with pytest.raises(ValueError, match="is not YAML; write all_joints: with a colon"):
        recipe_from_pose_cfg(path)
    path.write_text("- 1\n")
    with pytest.raises(ValueError, match="holds a list, not a training configuration"):
        recipe_from_pose_cfg(path)


def test_the_original_s_file_is_told_from_a_recipe(tmp_path):
    assert is_pose_cfg(SINGLE)
    assert not is_pose_cfg(convert(SINGLE))
    assert not is_pose_cfg([SINGLE])
    path = write(tmp_path / "pose_cfg.yaml", MANY)
    with pytest.warns(UserWarning, match="not taken over"):
        assert read_recipe(path) == convert(path)


def without(key: str) -> dict:
    return {name: value for name, value in SINGLE.items() if name != key}
