"""The checkpoints in the repository: small, described, and as good as they are said to be."""

import re

import pytest

from lib import ROOT
from lib.data.synthetic import write_dataset
from lib.evaluate import evaluate
from lib.predict import Predictor

FILES = sorted((ROOT / "pretrained").glob("*_mini.safetensors"))


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """The first pictures of the mini validation set."""
    return write_dataset(tmp_path_factory.mktemp("people"), num_train=1, num_val=40, workers=1)


def test_there_is_one_for_every_trained_system():
    assert {path.stem for path in FILES} == {path.stem for path in (ROOT / "lib/recipes").glob("*_mini.yaml")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_model_is_as_good_as_its_row_says(path, people):
    row = next(line for line in (ROOT / "pretrained/README.md").read_text().splitlines() if line.startswith(f"| `{path.name}`"))
    quoted = float(re.search(r"\b0\.\d{3}\b", row)[0])
    assert quoted >= 0.8
    report = evaluate(Predictor(path), people / "annotations/person_keypoints_val.json", people / "val")
    # another few people, another figure: but not by much
    assert report.metrics["AP"] > quoted - 0.08, row
