"""Training: recipes are checked, a resumed run equals an uninterrupted one, the best weights and the history are kept."""

import csv
import json
import random

import cv2
import numpy as np
import pytest
import torch
import yaml

from lib import ROOT
from lib.checkpoints import load_classifier, load_model
from lib.data.coco import find_split, insert_neck_file
from lib.data.synthetic import write_dataset
from lib.learner import PoseModule
from lib.learning import at, fastest_precision
from lib.models import CLASSIFIERS
from lib.preflight import preflight
from lib.training import load_recipe, of_step, override_arguments, parse, read_recipe, train

MINI = ROOT / "lib/recipes/trt_pose_mini.yaml"


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict:
    """Overrides that make the mini recipe a matter of seconds."""
    data_dir = write_dataset(tmp_path_factory.mktemp("data") / "people", 12, 4)
    return {
        "data.data_dir": str(data_dir), "data.batch_size": 4, "data.num_workers": 1, "data.input_size": [64, 64],
        "trainer.max_epochs": 3, "trainer.precision": "32-true", "trainer.enable_progress_bar": False,
        "model.network.upsample_channels": 16, "model.warmup_steps": 2,
    }  # fmt: skip


def test_a_run_leaves_the_best_weights_and_its_history(small, tmp_path):
    run = train(MINI, tmp_path / "run", small | {"data.augment": "null", "trainer.max_epochs": 5})
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4, 5]
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]
    rows = list(csv.DictReader((tmp_path / "run/history.csv").open()))
    assert [float(r["train_loss"]) for r in rows] == [r["train_loss"] for r in run.history]
    model = load_model(run.best)
    best = max(row["AP"] for row in run.history)
    assert model.info["AP"] == pytest.approx(best, abs=1e-6)
    assert model.input_size == (64, 64) and model.skeleton.keypoints[-1] == "neck"
    folder = tmp_path / "run"
    assert (folder / "recipe.yaml").exists()
    # and what people look at
    metrics = yaml.safe_load((folder / "metrics.yaml").read_text())
    assert metrics["loss"]["train"] == [{"epoch": row["epoch"], "value": row["train_loss"]} for row in run.history]
    assert [point["value"] for point in metrics["AP"]["val"]] == [row["AP"] for row in run.history]
    page = (folder / "metrics.html").read_text()
    assert page.count("<svg") == len(metrics) and "<script" not in page and "http" not in page.replace("</html>", "")
    assert "epoch 5:" in page and "best AP" in page
    assert [p.name for p in sorted((folder / "eval_examples").iterdir())] == [f"epoch_{n:04}.jpg" for n in range(1, 6)]
    for name in ("data_examples/train.jpg", "data_examples/val.jpg", "metrics.png", "eval_examples/epoch_0005.jpg"):
        assert cv2.imread(str(folder / name)).std() > 10, name
    log = (folder / "train.log").read_text()
    assert "begun" in log and "finished" in log and log.count("train_loss") == 5
    assert f"{sum(p.numel() for p in model.network.parameters()):,} parameters" in (folder / "model_summary.txt").read_text()


def test_interrupted_and_resumed_equals_uninterrupted(small, tmp_path, monkeypatch):
    small = small | {"model.stdev": {"0": 0.06, "2": 0.03}}
    whole = train(MINI, tmp_path / "whole", small)
    assert whole.learner.codec.stdev == 0.03
    step = PoseModule.training_step

    def fail_in_the_third_epoch(self, batch, index):
        if self.global_step == 7:
            raise RuntimeError("the power went out")
        return step(self, batch, index)

    monkeypatch.setattr(PoseModule, "training_step", fail_in_the_third_epoch)
    with pytest.raises(RuntimeError, match="the power went out"):
        train(MINI, tmp_path / "cut", small)
    monkeypatch.undo()
    with pytest.raises(FileExistsError, match="resume"):
        train(MINI, tmp_path / "cut", small)
    resumed = train(MINI, tmp_path / "cut", small, resume=True)
    for (name, a), b in zip(whole.learner.state_dict().items(), resumed.learner.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}


def test_resuming_needs_the_same_network_and_keeps_what_was_there(small, tmp_path):
    small = small | {"trainer.max_epochs": 1}
    train(MINI, tmp_path / "run", small)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match="resnet34"):
        train(MINI, tmp_path / "run", small | {"model.network.trunk": "resnet34"}, resume=True)
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    train(MINI, tmp_path / "run", small | {"trainer.max_epochs": 2}, resume=True)
    logs = [p for p in before if "logs" in p.parts]
    assert logs and all(p.read_bytes() == before[p] for p in logs)


def test_the_result_does_not_depend_on_the_number_of_workers(small, tmp_path):
    runs = [train(MINI, tmp_path / str(n), small | {"data.num_workers": n, "trainer.max_epochs": 2}) for n in (0, 2)]
    assert runs[0].history[-1]["train_loss"] == runs[1].history[-1]["train_loss"]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("data.batchsize", "batch_size"),
        ("model.learning_rat", "learning_rate"),
        ("trainer.max_epoch", "max_epochs"),
        ("model.network.trnk", "trunk"),
        ("model.codec.stdv", "stdev"),
        ("model.network.name", "TrtPose"),
    ],
)
def test_a_misspelt_key_names_the_nearest_one(small, tmp_path, key, hint):
    value = "TrtPos" if key.endswith("name") else 1
    with pytest.raises(ValueError, match=hint):
        train(MINI, tmp_path / "run", small | {key: value})
    assert not (tmp_path / "run").exists()


def test_a_misspelt_key_in_the_file_names_the_nearest_one(small, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(MINI.read_text().replace("batch_size:", "batchsize:"))
    with pytest.raises(ValueError, match=r"data\.batch_size"):
        train(recipe, tmp_path / "run", small)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.input_size": [100, 128]}, "multiples of 32"),
        ({"data.mask_stride": 8}, "mask_stride"),
        ({"model.codec.stride": 8, "data.mask_stride": 8}, "stride 4"),
        ({"data.category": "cat"}, "cat"),
        ({"data.data_dir": "nowhere"}, "nowhere"),
        ({"model.initial_weights": "nothing.safetensors"}, "nothing.safetensors"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(small, tmp_path, overrides, message):
    with pytest.raises((ValueError, KeyError, FileNotFoundError), match=message):
        train(MINI, tmp_path / "run", small | overrides)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_the_run(small, tmp_path):
    with pytest.raises(FloatingPointError, match="learning_rate"):
        train(MINI, tmp_path / "run", small | {"model.learning_rate": 1e12, "model.warmup_steps": 0})


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Two classes of a few grey pictures, in ImageNet's layout."""
    folder = tmp_path_factory.mktemp("classes")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name, grey in (("dark", 60), ("light", 190)):
            for i in range(count):
                path = folder / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), rng.normal(grey, 20, (40, 48, 3)).clip(0, 255).astype(np.uint8))
    return folder


@pytest.mark.parametrize("recipe", sorted(p.stem for p in (ROOT / "lib/recipes").glob("*.yaml")))
def test_every_recipe_builds(recipe, small, classes):
    path = ROOT / f"lib/recipes/{recipe}.yaml"
    content = read_recipe(path)
    for step in range(1, len(content["steps"]) + 1) if "steps" in content else [None]:
        plain = of_step(content, step, path)
        classifier = plain["model"]["network"]["name"] in CLASSIFIERS
        overrides = {"data.data_dir": str(classes) if classifier else small["data.data_dir"],
                     "trainer.precision": "32-true"}  # fmt: skip
        overrides |= {"model.network.pretrained": False} if "pretrained" in plain["model"]["network"] else {}
        overrides |= {"data.val_annotations": "null"} if "val_annotations" in plain["data"] else {}
        learner, data = load_recipe(path, overrides, step)
        if not classifier:
            assert learner.network.stride == learner.codec.stride == data.train_set.mask_stride
        h, w = data.input_size
        assert h % learner.network.input_multiple == w % learner.network.input_multiple == 0


def test_a_classifier_trains_and_resumes_as_a_pose_network_does(classes, tmp_path):
    recipe = ROOT / "lib/recipes/hrnet_mini.yaml"
    overrides = {"data.data_dir": str(classes), "data.input_size": [32, 32], "data.batch_size": 4, "data.num_workers": 0,
                 "model.network.width": 8, "model.network.stem": 8, "model.network.features": 16, "model.network.head": 8,
                 "trainer.precision": "32-true", "trainer.enable_progress_bar": False}  # fmt: skip
    whole = train(recipe, tmp_path / "whole", overrides | {"trainer.max_epochs": 2, "model.schedule": "steps"})
    train(recipe, tmp_path / "cut", overrides | {"trainer.max_epochs": 1, "model.schedule": "steps"})
    overrides |= {"trainer.max_epochs": 2, "model.schedule": "steps"}
    resumed = train(recipe, tmp_path / "cut", overrides, resume=True)
    for a, b in zip(whole.learner.state_dict().values(), resumed.learner.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    best = max(row["top1"] for row in resumed.history)
    assert load_classifier(resumed.best).info["top1"] == pytest.approx(best, abs=1e-6)
    assert {"data_examples", "eval_examples", "metrics.html", "model_summary.txt"} <= {p.name for p in resumed.out_dir.iterdir()}


def test_callbacks_of_the_recipe_are_called_and_impossible_trainers_are_one_sentence(small, tmp_path):
    watching = [{"class_path": "LearningRateMonitor", "init_args": {"log_momentum": True}}]
    cli = parse(["--config", str(MINI), "--out_dir", str(tmp_path), *override_arguments(small), "--trainer.callbacks",
                 json.dumps(watching)])  # fmt: skip
    assert {"LearningRateMonitor", "ModelCheckpoint"} <= {type(callback).__name__ for callback in cli.trainer.callbacks}
    for key, value, message in (("model.warmup_steps", -3, "not negative, got -3"), ("limit_batches", 0, "leave it out"),
                                ("model.codec.stdev", "x", "PafCodec cannot be made of"),
                                ("data.augment.flip", 3, "^Augment: flip is a probability in 0..1, got 3.0$"),
                                ("model.learning_rate", "x", "Expected a float, or: Expected a dict")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            load_recipe(MINI, small | {key: value})
    with pytest.raises(ValueError, match="options of the trainer: .*enable_checkpointing"):
        load_recipe(MINI, small | {"trainer.enable_checkpointing": False})


def test_a_few_batches_run_through_everything(small, tmp_path):
    run = train(MINI, tmp_path / "run", small | {"limit_batches": 1, "trainer.max_epochs": 1})
    assert run.history[0]["step"] == 1 and run.best.exists()


def test_what_draws_random_numbers_draws_the_same_after_a_resume(small, tmp_path, monkeypatch):
    """Dropout, say: the generators are not kept, but begin anew with every epoch."""
    losses, drawn = PoseModule.losses, []

    def noisy(self, images, batch):
        drawn.append((torch.rand(()).item(), np.random.rand(), random.random()))
        return losses(self, images, batch)

    monkeypatch.setattr(PoseModule, "losses", noisy)
    train(MINI, tmp_path / "whole", small | {"trainer.max_epochs": 2})
    whole, drawn[:] = list(drawn), []
    train(MINI, tmp_path / "cut", small | {"trainer.max_epochs": 1})
    torch.rand(7), np.random.rand(7), random.random()
    train(MINI, tmp_path / "cut", small | {"trainer.max_epochs": 2}, resume=True)
    assert drawn == whole and len(set(whole)) == len(whole) == 6


def test_an_upstream_configuration_trains(small, tmp_path):
    annotations, images = find_split(small["data.data_dir"], "train")
    neck = insert_neck_file(annotations, tmp_path / "neck.json")
    dataset = {"images_dir": str(images), "annotations_file": str(neck), "category_name": "person",
               "image_shape": [64, 64], "target_shape": [16, 16], "random_angle": [-0.2, 0.2],
               "random_scale": [0.5, 2.0], "random_translate": [-0.2, 0.2]}  # fmt: skip
    loader = {"batch_size": 4, "shuffle": True, "num_workers": 0}
    config = {"train_dataset": dataset, "test_dataset": dataset, "train_loader": loader, "test_loader": loader,
              "stdev_schedule": {"0": 0.05, "1": 0.025}, "lr_schedule": {"0": 1e-3, "1": 1e-4},
              "color_jitter": {"brightness": 0.05, "contrast": 0.05, "saturation": 0.05, "hue": 0.01}, "epochs": 2,
              "model": {"name": "resnet18_baseline_att", "kwargs": {"cmap_channels": 18, "paf_channels": 42,
                        "upsample_channels": 16, "num_upsample": 3, "pretrained": False}},
              "optimizer": {"name": "Adam", "kwargs": {"lr": 1e-3}}, "mask_unlabeled": True}  # fmt: skip
    recipe = tmp_path / "upstream.json"
    recipe.write_text(json.dumps(config))
    run = train(recipe, tmp_path / "run", {"trainer.precision": "32-true", "trainer.enable_progress_bar": False})
    assert len(run.history) == 2 and run.history[-1]["learning_rate"] == pytest.approx(1e-4)
    assert run.learner.codec.stdev == 0.025
    assert load_model(run.best).network.options["upsample_channels"] == 16


def test_preflight_passes_on_learnable_data_and_leaves_the_module_alone(small):
    learner, data = load_recipe(MINI, small | {"data.input_size": [96, 96], "model.network.upsample_channels": 32})
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    report = preflight(learner, data, images=2, steps=150, max_people=4, min_area=0.0)
    assert report.passed, str(report)
    assert report.metrics["AP50"] >= 0.9
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())


def test_preflight_names_zero_targets_and_a_broken_loss(small):
    learner, data = load_recipe(MINI, small)
    labels = data.train_set._labels
    labels.keypoint_values = (labels.keypoint_values.reshape(-1, 3) + np.float32([10_000, 0, 0])).ravel()
    report = preflight(learner, data, images=2, steps=3, max_people=4, min_area=0.0)
    assert not report.passed and "every target map is zero" in str(report)
    learner, data = load_recipe(MINI, small)
    torch.nn.init.constant_(next(learner.network.parameters()), float("nan"))
    report = preflight(learner, data, images=2, steps=3, max_people=4, min_area=0.0)
    assert "loss became nan" in str(report)


def test_values_by_epoch():
    assert [at({0: 1.0, 75: 0.1, 150: 0.01}, e) for e in (0, 74, 75, 200)] == [1.0, 1.0, 0.1, 0.01]


def test_the_learning_rate_can_follow_steps_of_the_optimiser(small, tmp_path):
    rates = {"model.schedule": "iterations", "model.learning_rate": {0: 1e-3, 1: 1e-4}, "model.warmup_steps": 0}
    run = train(MINI, tmp_path / "run", small | rates | {"trainer.max_epochs": 1})
    assert run.learner.trainer.global_step > 1 and run.history[-1]["learning_rate"] == pytest.approx(1e-4)


def test_precision_is_one_the_machine_has():
    assert fastest_precision("cpu") in ("bf16-mixed", "32-true")
