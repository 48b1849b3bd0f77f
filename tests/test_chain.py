"""Training in steps: each begins with the best weights before it, is resumed to the same weights, and is not done twice."""

import csv
import itertools
import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
import yaml

from lib import ROOT
from lib.__main__ import main
from lib.chain import score_stages, train_steps
from lib.checkpoints import load_classifier, load_model
from lib.codecs.paf import COARSE, LIGHTWEIGHT_OPENPOSE_TARGETS
from lib.data.augment import ColorJitter
from lib.data.person_crops import CropAugment
from lib.data.synthetic import write_dataset
from lib.learner import PoseModule
from lib.learning import at
from lib.preflight import preflight
from lib.training import load_recipe, of_step, read_recipe

COMMON = """
model:
  network: {name: LightweightOpenPose, num_refinement_stages: 0, num_channels: 8, width: 0.125}
  codec: {name: PafCodec, stride: 8, sigma: 5, gaussian_factor: 2, background: true, paf_half_width: 1}
  learning_rate: 0.003
  group_rates: true
data:
  skeleton: openpose18
  samples: people
  crops: {person_height: 0.7, rotation: 10}
  input_size: [64, 64]
  mask_stride: 8
  batch_size: 4
  num_workers: 0
trainer:
  max_epochs: 2
  accumulate_grad_batches: 2
  precision: 32-true
  enable_progress_bar: false
  enable_model_summary: false
"""
STEPS = """
steps:
  - trainer.max_epochs: 1
  - data.seed: 1
  - data.seed: 2
    model.network.num_refinement_stages: 2
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "people", 12, 4)


@pytest.fixture
def recipe(data_dir, tmp_path):
    content = yaml.safe_load(COMMON + STEPS)
    content["data"]["data_dir"] = str(data_dir)
    path = tmp_path / "three.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def weights(path):
    return load_model(path).network.state_dict()


def test_three_steps_follow_each_other(recipe, tmp_path, capsys):
    runs = train_steps(recipe, tmp_path / "run")
    assert [len(r.history) for r in runs] == [1, 2, 2]
    assert [r.learner.network.options["num_refinement_stages"] for r in runs] == [0, 0, 2]
    for earlier, later in pairwise(runs):
        content = yaml.safe_load((later.out_dir / "recipe.yaml").read_text())
        assert content["model"]["initial_weights"] == str(earlier.best)
    rows = list(csv.DictReader((tmp_path / "run/history.csv").open()))
    assert [r["chain_step"] for r in rows] == ["1", "2", "2", "3", "3"]
    assert [r["epoch"] for r in rows] == ["1", "2", "3", "4", "5"]
    assert [int(r["step"]) for r in rows] == sorted({int(r["step"]) for r in rows})
    capsys.readouterr()
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    again = train_steps(recipe, tmp_path / "run", resume=True)
    assert capsys.readouterr().out.count("is finished") == 3
    assert {p: p.read_bytes() for p in before} == before
    assert [r.history for r in again] == [r.history for r in runs]
    assert all(torch.equal(v, weights(runs[2].best)[k]) for k, v in again[2].learner.network.state_dict().items())
    scores = score_stages(again[2].learner, again[2].data)
    assert len(scores) == 3 and scores[-1]["AP"] == pytest.approx(load_model(runs[2].best).info["AP"], abs=1e-6)


def test_a_step_begins_with_the_best_weights_of_the_one_before(recipe, tmp_path):
    first, *_ = train_steps(recipe, tmp_path / "run", 1)
    still = {"model.learning_rate": 0.0, "trainer.max_epochs": 1}
    second, *_ = train_steps(recipe, tmp_path / "run", 2, still)
    moved = ("running_mean", "running_var", "num_batches_tracked")
    for name, value in weights(first.best).items():
        assert name.endswith(moved) or torch.equal(value, second.learner.network.state_dict()[name]), name
    third, *_ = train_steps(recipe, tmp_path / "run", "3", still)
    state = third.learner.network.state_dict()
    assert torch.equal(state["initial_stage.pafs.1.0.weight"], weights(first.best)["initial_stage.pafs.1.0.weight"])
    assert any(name.startswith("refinement_stages.1") for name in state)


def test_interrupted_chain_goes_on_to_the_same_weights(recipe, tmp_path, monkeypatch, capsys):
    whole = train_steps(recipe, tmp_path / "whole")
    step, seen = PoseModule.training_step, []

    def fail(self, batch, index):
        seen.append(index)
        if self.network.options["num_refinement_stages"] == 2 and self.current_epoch == 1 and index == 1:
            raise RuntimeError("the power went out")
        return step(self, batch, index)

    monkeypatch.setattr(PoseModule, "training_step", fail)
    with pytest.raises(RuntimeError, match="the power went out"):
        train_steps(recipe, tmp_path / "cut")
    monkeypatch.undo()
    with pytest.raises(FileExistsError, match="resume"):
        train_steps(recipe, tmp_path / "cut")
    capsys.readouterr()
    resumed = train_steps(recipe, tmp_path / "cut", resume=True)
    assert capsys.readouterr().out.count("is finished") == 2
    for (name, a), b in zip(
        whole[2].learner.state_dict().items(), resumed[2].learner.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    for a, b in zip(whole[2].history, resumed[2].history, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}


def test_a_longer_finished_step_goes_on(recipe, tmp_path):
    train_steps(recipe, tmp_path / "run", 1)
    (run,) = train_steps(recipe, tmp_path / "run", 1, {"trainer.max_epochs": 2}, resume=True)
    assert [row["epoch"] for row in run.history] == [1, 2]


def test_missing_weights_are_named_with_the_command_that_makes_them(recipe, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"step1/best\.safetensors.*--step 1 --out_dir"):
        train_steps(recipe, tmp_path / "run", 2)
    assert not (tmp_path / "run").exists()


def test_a_slip_in_the_last_step_is_said_before_the_first_is_trained(recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace("model.network.num_refinement_stages: 2", "model.network.num_stages: 2"))
    with pytest.raises(ValueError, match="step 3 of 3: .*num_refinement_stages"):
        train_steps(recipe, tmp_path / "run")
    with pytest.raises(ValueError, match=r"step 2 of 3: .*did you mean 'data\.batch_size'"):
        train_steps(recipe, tmp_path / "run", overrides={"step2.data.batch_sise": 3})
    assert not (tmp_path / "run").exists()


def test_command_line(recipe, tmp_path, capsys):
    arguments = ["train", "--config", str(recipe), "--out_dir", str(tmp_path / "run"), "--model.network.num_channels=16"]
    assert main([*arguments, "--step", "1"]) == 0
    assert "best AP" in capsys.readouterr().out
    assert main([*arguments, "--step=2"]) == 0
    assert load_model(tmp_path / "run/step2/best.safetensors").network.options["num_channels"] == 16
    assert main([*arguments, "--step", "4"]) == 1 and "choose 1 to 3, or all" in capsys.readouterr().err
    recipe.write_text(COMMON)
    assert main([*arguments, "--step", "1"]) == 1 and "leave --step out" in capsys.readouterr().err


def test_a_step_without_its_number_is_not_all_of_them(capsys, tmp_path):
    chain = ROOT / "lib/recipes/higherhrnet_mini_chain.yaml"
    assert main(["train", "--config", str(chain), "--out_dir", str(tmp_path / "run"), "--step=", "--data.seed=x"]) == 1
    assert "has no step '': choose 1 to 2, or all" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_recipes_with_steps_are_read_as_such(recipe, tmp_path):
    content = read_recipe(recipe)
    assert of_step(content, 3, recipe)["model"]["network"]["num_refinement_stages"] == 2
    assert of_step(content, None, recipe)["trainer"]["max_epochs"] == 1
    assert content == read_recipe(recipe)
    for steps, message in (("steps: {a: 1}", "list"), ("steps: [{max_epochs: 1}]", "dotted")):
        recipe.write_text(COMMON + steps)
        with pytest.raises(ValueError, match=message):
            load_recipe(recipe, step=1)
    with pytest.raises(FileNotFoundError, match="no such recipe"):
        train_steps(tmp_path / "nothing.yaml", tmp_path / "run")


def test_validation_every_second_epoch_leaves_no_stale_rows(recipe, tmp_path):
    overrides = {"trainer.max_epochs": 5, "trainer.check_val_every_n_epoch": 2}
    (run,) = train_steps(recipe, tmp_path / "run", 1, overrides)
    assert [row["epoch"] for row in run.history] == [2, 4]
    with pytest.raises(ValueError, match="no best weights"):
        train_steps(recipe, tmp_path / "other", 1, {"trainer.check_val_every_n_epoch": 2})


def test_the_published_recipe_is_the_published_one(data_dir):
    overrides = {"data.data_dir": str(data_dir), "data.val_annotations": "null", "model.network.pretrained": False}
    learner, data = load_recipe(ROOT / "lib/recipes/lightweight_openpose.yaml", overrides, step=3)
    options = learner.codec.options
    for name, value in (LIGHTWEIGHT_OPENPOSE_TARGETS | COARSE).items():
        assert options[name] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value), name
    drops = [at(learner.learning_rate, e) / 4e-5 for e in (0, 98, 99, 198, 199, 258, 259, 279)]
    assert drops == pytest.approx([1, 1, 0.333, 0.333, 0.333**2, 0.333**2, 0.333**3, 0.333**3])
    assert data.train_set.augment == CropAugment() and not data.train_set.mask_unlabelled
    assert sum(p.numel() for p in learner.network.parameters()) == 7_308_964


def test_groups_have_their_own_rates(recipe):
    learner, _ = load_recipe(recipe, {"model.weight_decay": 0.5}, step=3)
    groups = learner.configure_optimizers().param_groups
    assert sum(len(g["params"]) for g in groups) == len(list(learner.parameters()))
    assert {g["lr_factor"] for g in groups} == {1, 2, 4, 8} and {g["weight_decay"] for g in groups} == {0, 0.5}
    trt_pose = {"model.group_rates": True, "data.data_dir": read_recipe(recipe)["data"]["data_dir"]}
    with pytest.raises(ValueError, match="group_rates"):
        load_recipe(ROOT / "lib/recipes/trt_pose_mini.yaml", trt_pose)


def test_colours_differ_within_a_step_of_the_optimiser(recipe, tmp_path, monkeypatch):
    seeds, jitter = [], ColorJitter.__call__
    monkeypatch.setattr(ColorJitter, "__call__",
                        lambda self, i, g: seeds.append(g.initial_seed()) or jitter(self, i, g))  # fmt: skip
    (run,) = train_steps(recipe, tmp_path / "run", 1, {"trainer.max_epochs": 2})
    batches = len(run.data.train_dataloader())
    assert len(seeds) == len(set(seeds)) == 2 * batches
    # where an epoch ends within a group of two, the rest of it is used
    assert [row["step"] for row in run.history] == [math.ceil(batches / 2), 2 * math.ceil(batches / 2)]


def test_preflight_sees_whole_pictures_where_samples_are_people(recipe):
    learner, data = load_recipe(recipe)
    report = preflight(learner, data, images=2, steps=3, max_people=4, min_area=0.0)
    assert len(set(report.image_ids)) == 2 and report.inputs.shape == (2, 64, 64, 3)


CHAIN = ROOT / "lib/recipes/higherhrnet_mini_chain.yaml"


def test_complete_chain_from_classes_to_people(data_dir, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split, name, i in itertools.product(("train", "val"), ("dark", "light"), range(4)):
        path = tmp_path / "classes" / split / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = 60 if name == "dark" else 190
        cv2.imwrite(str(path), rng.normal(grey, 20, (40, 48, 3)).clip(0, 255).astype(np.uint8))
    tiny = {"model.network.width": 8, "model.network.stem": 8, "data.input_size": [64, 64], "data.batch_size": 4,
            "data.num_workers": 0, "trainer.precision": "32-true", "trainer.enable_progress_bar": False,
            "trainer.max_epochs": 1, "step1.data.data_dir": str(tmp_path / "classes"), "step2.data.data_dir": str(data_dir),
            "step2.model.learning_rate": 0.0}  # fmt: skip
    first, second = train_steps(CHAIN, tmp_path / "run", overrides=tiny)
    assert (first.learner.best_by, second.learner.best_by) == ("top1", "AP")
    trunk = load_classifier(first.best).network.trunk.state_dict()
    moved, shared = ("running_mean", "running_var", "num_batches_tracked"), second.learner.network.trunk.state_dict()
    compared = [name for name in shared if not name.endswith(moved)]
    assert len(compared) > 20 and all(torch.equal(shared[name], trunk[name]) for name in compared)
    assert read_recipe(tmp_path / "run/step2/recipe.yaml")["model"]["initial_weights"] == str(first.best)
    capsys.readouterr()
    train_steps(CHAIN, tmp_path / "run", overrides=tiny, resume=True)
    assert capsys.readouterr().out.count("is finished") == 2
    with pytest.raises(ValueError, match="only the steps 1 to 2"):
        train_steps(CHAIN, tmp_path / "other", overrides={"step3.data.seed": 1})


def test_a_step_may_be_another_recipe(recipe, tmp_path):
    (tmp_path / "base.yaml").write_text(COMMON)
    (tmp_path / "chain.yaml").write_text("""
trainer: {max_epochs: 7}
steps:
  - recipe: base.yaml
  - recipe: base.yaml
    data.batch_size: 2
  - recipe: three.yaml
""")
    content = read_recipe(tmp_path / "chain.yaml")
    first, second = (of_step(content, n, tmp_path / "chain.yaml") for n in (1, 2))
    assert first["trainer"]["max_epochs"] == second["trainer"]["max_epochs"] == 7
    assert (first["data"]["batch_size"], second["data"]["batch_size"]) == (4, 2)
    assert first["model"] == yaml.safe_load(COMMON)["model"]
    with pytest.raises(ValueError, match=r"three\.yaml has steps itself"):
        of_step(content, 3, tmp_path / "chain.yaml")
