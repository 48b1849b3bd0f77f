"""The checkpoints in the repository: small, described, and as good as they are said to be."""

import re

import pytest

from lib import ROOT
from lib.classify.command import classify
from lib.data.classes import write_classes
from lib.data.synthetic import write_dataset
from lib.detect import TruthBoxes
from lib.evaluate import evaluate
from lib.predict import Predictor
from lib.prepare.crops import crops

FILES = sorted((ROOT / "pretrained").glob("*_mini.safetensors"))
CLASSIFIERS = [path for path in FILES if path.stem == "hrnet_mini"]
SINGLE = [path for path in FILES if path.stem == "deepercut_single_mini"]
TOP_DOWN = [path for path in FILES if path.stem == "topdown_mini"]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """The first pictures of the mini validation set."""
    return write_dataset(tmp_path_factory.mktemp("people"), num_train=1, num_val=40, workers=1)


def quoted(path):
    """The figure in the file's row of pretrained/README.md."""
    rows = (ROOT / "pretrained/README.md").read_text().splitlines()
    row = next(line for line in rows if line.startswith(f"| `{path.name}`"))
    return float(re.search(r"\b0\.\d{3}\b", row)[0])


def test_there_is_one_for_every_trained_system():
    assert {path.stem for path in FILES} == {path.stem for path in (ROOT / "lib/recipes").glob("*_mini.yaml")}


@pytest.mark.parametrize("path", [path for path in FILES if path not in CLASSIFIERS + SINGLE], ids=lambda path: path.stem)
def test_shipped_model_is_as_good_as_its_row_says(path, people):
    assert quoted(path) >= (0.85 if path in TOP_DOWN else 0.8)
    annotations = people / "annotations/person_keypoints_val.json"
    predictor = Predictor(path, detector=TruthBoxes(annotations) if path in TOP_DOWN else None)
    report = evaluate(predictor, annotations, people / "val")
    # another few people, another figure: but not by much
    assert report.metrics["AP"] > quoted(path) - 0.08


@pytest.mark.parametrize("path", SINGLE, ids=lambda path: path.stem)
def test_shipped_model_of_one_person_is_as_good_as_its_row_says(path, tmp_path):
    folder = write_dataset(tmp_path / "mpii", num_train=1, num_val=40, figure="mpii", workers=1)
    crops(folder, split="val", head=16)
    found = folder / "crops"
    report = evaluate(Predictor(path), found / "annotations/person_keypoints_val.json", found / "images", measure="pckh")
    assert quoted(path) >= 0.85
    assert report.metrics["Total"] > quoted(path) - 0.06


@pytest.mark.parametrize("path", CLASSIFIERS, ids=lambda path: path.stem)
def test_shipped_classifier_is_as_good_as_its_row_says(path, tmp_path):
    pictures = write_classes(tmp_path / "classes", train_per_class=1, val_per_class=10)
    figures = classify(pictures / "val", path, tmp_path / "out", draw=0)
    assert figures["labelled"] == 160
    assert figures["top1"] > quoted(path) - 0.08
