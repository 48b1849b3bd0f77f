"""Training a classifier: it learns, a killed and resumed run ends in the same weights, and top-1 and top-5 are exact."""

import json
import shutil
import warnings
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from lib.checkpoints import load_classifier
from lib.classify import ClassifierModule, ImageNetData, hits
from lib.classify.predictor import PictureClassifier
from lib.data.imagenet import RandomCrop
from lib.draw import plot_history
from lib.training import load_recipe, train

COLOURS = {"n00000001": ("red", (220, 40, 40)), "n00000002": ("green", (40, 190, 60)), "n00000003": ("blue", (40, 60, 220))}
TINY = {"name": "HRNetClassifier", "width": 4, "blocks": 1, "modules": [1, 1], "stem": 4, "bottlenecks": 1, "head": 4,
        "features": 16}  # fmt: skip
RECIPE = """
model:
  network: {name: HRNetClassifier, width: 4, blocks: 1, modules: [1, 1], stem: 4, bottlenecks: 1, head: 4, features: 16}
  optimizer: adamw
  learning_rate: 0.01
  color_jitter: [0.05, 0.05, 0.05, 0.0]
data: {input_size: [32, 32], crop: {area: [0.5, 1.0]}, batch_size: 6, num_workers: 0, seed: 3}
trainer: {max_epochs: 8, enable_progress_bar: false, enable_model_summary: false, precision: 32-true, accelerator: cpu}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noisy pictures of one of three colours."""
    folder, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    index = {i: [wnid, name] for i, (wnid, (name, _)) in enumerate(COLOURS.items())}
    (folder / "imagenet_class_index.json").write_text(json.dumps(index))
    for split, count in (("train", 8), ("val", 5)):
        for wnid, (_, colour) in COLOURS.items():
            (folder / split / wnid).mkdir(parents=True)
            for i in range(count):
                image = (np.array(colour) + rng.normal(0, 25, (40, 48, 3))).clip(0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / split / wnid / f"{i}.png"), image[..., ::-1])
    return folder


@pytest.fixture(scope="module")
def recipe(folder):
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def run(folder, recipe, tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return train(recipe, tmp_path_factory.mktemp("runs") / "whole", {"data.data_dir": str(folder)})


def test_it_learns_and_keeps_the_best_by_top1(run):
    assert [row["epoch"] for row in run.history] == list(range(1, 9))
    assert {"train_loss", "val_loss", "top1", "top5"} <= run.history[-1].keys()
    best = max(row["top1"] for row in run.history)
    assert best >= 0.8 and all(row["top5"] == 1 for row in run.history)
    model = load_classifier(run.best)
    assert tuple(model.network.classes) == tuple(f"{wnid} {name}" for wnid, (name, _) in COLOURS.items())
    assert model.input_size == (32, 32) and model.info["top1"] == pytest.approx(best, abs=1e-6)


def test_its_curves_are_drawn(run):
    labels = [line.get_label() for line in plot_history(run.history).axes[1].lines]
    assert labels == ["top1", "top5"]


def test_the_checkpoint_is_as_good_as_its_row(run):
    network, data = PictureClassifier(run.best), run.data.val_set
    answers = network(np.stack([network.fit(data.path(i)) for i in range(len(data))]))
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    found = hits(torch.from_numpy(answers), torch.from_numpy(data.labels)).float().mean(dim=0)
    assert found[0] == pytest.approx(max(row["top1"] for row in run.history), abs=1e-6) and found[1] == 1


def test_stopped_and_resumed_it_ends_in_the_same_weights(run, folder, recipe, tmp_path):
    options = {"data.data_dir": str(folder)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(recipe, tmp_path, options | {"trainer.max_epochs": 3})
        again = train(recipe, tmp_path, options, resume=True)
    for (name, ours), theirs in zip(run.learner.state_dict().items(), again.learner.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert [row["top1"] for row in again.history] == [row["top1"] for row in run.history]


def test_a_batch_gives_the_loss_by_hand(folder):
    data = ImageNetData(str(folder), input_size=(32, 32), crop=None, num_workers=0)
    learner = ClassifierModule(data.classes, TINY)
    images = torch.stack([data.val_set[i]["image"] for i in (0, 7, 14)]).float()
    labels = torch.tensor([0, 1, 2])
    logits = learner.eval()(images)
    by_hand = -(logits - logits.exp().sum(dim=1, keepdim=True).log())[range(3), labels].mean()
    torch.testing.assert_close(learner.losses(images, {"labels": labels})["cross_entropy"], by_hand)
    optimizer = learner.configure_optimizers()
    assert optimizer.defaults["nesterov"] and optimizer.param_groups[0]["weight_decay"] == 1e-4


def test_hits_by_hand():
    logits = torch.tensor([[9.0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0]])
    assert hits(logits, torch.tensor([0, 2, 5])).tolist() == [[True, True], [False, True], [False, False]]
    assert hits(logits[:, :3], torch.tensor([1, 1, 1]))[:, 1].all()


def test_sheets_show_every_picture(run):
    batch = next(iter(run.data.val_dataloader()))
    for sheet in (run.learner.draw_targets(batch), run.learner.draw_answers(batch)):
        assert sheet.dtype == np.uint8 and sheet.ndim == 3 and sheet.std() > 10


def test_the_published_recipes_say_what_was_published(folder):
    for width in (32, 48):
        learner, data = load_recipe(f"lib/recipes/hrnet_w{width}.yaml", {"data.data_dir": str(folder), "data.limit_train": 3})
        assert learner.network.options["width"] == width and data.batch_size == 32 and data.centre == 0.875
        assert learner.learning_rate == {0: 0.05, 30: 0.005, 60: 5e-4, 90: 5e-5}
        assert all(a > b for a, b in pairwise(learner.learning_rate.values()))
        assert data.train_set.crop == RandomCrop() or np.allclose(data.train_set.crop.ratio, RandomCrop().ratio)


def test_different_classes_for_training_and_validation_are_refused(folder, tmp_path):
    for split in ("train", "val"):
        for wnid in COLOURS:
            (tmp_path / split / wnid).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / wnid / "0.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "val/n00000003").rename(tmp_path / "val/n00000004")
    with pytest.raises(ValueError, match="2 are only in one of them, the first is 'n00000003', only in "):
        ImageNetData(str(tmp_path))
    with pytest.raises(ValueError, match="holds a single class, 'n0000000.': there is nothing to tell it from"):
        for path in [p for split in ("train", "val") for p in sorted((tmp_path / split).iterdir())[1:]]:
            shutil.rmtree(path)
        ImageNetData(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        ImageNetData(str(tmp_path / "nothing"))
