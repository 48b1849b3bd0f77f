"""Evaluation: perfect people score 1, what was run is written down, both protocols, a skeleton with own sigmas."""

import json

import numpy as np
import pytest

from lib import evaluate as module
from lib.checkpoints import save_model
from lib.data.coco import Image, read_coco, write_coco
from lib.evaluate import evaluate
from lib.predict import Predictor
from tests.dots import dot_model, write_poles


@pytest.fixture(scope="module")
def poles(tmp_path_factory):
    return write_poles(tmp_path_factory.mktemp("poles") / "data")


@pytest.fixture
def dots_can_be_loaded(monkeypatch):
    from lib.models import NETWORKS
    from tests.dots import DotNet

    monkeypatch.setitem(NETWORKS, "DotNet", DotNet)


def test_people_that_are_found_score_and_the_report_says_how_it_was_run(poles, tmp_path, dots_can_be_loaded):
    checkpoint = save_model(tmp_path / "dots.safetensors", dot_model(min_parts=2))
    report = evaluate(Predictor(checkpoint), poles / "poles.json", poles / "images", tmp_path / "out")
    assert report.metrics["AP"] > 0.95
    assert [row["keypoint"] for row in report.per_keypoint] == ["top", "bottom"]
    assert all(row["found"] == 1 and row["error"] < 1.5 for row in report.per_keypoint)
    assert len(report.people) == 12 and report.worst_images(3)[0]["oks"] <= report.worst_images(3)[1]["oks"]
    card = json.loads((tmp_path / "out/run_card.json").read_text())
    assert card["model_file"]["name"] == "dots.safetensors" and len(card["model_file"]["sha256"]) == 64
    assert card["images"] == 12 and card["codec_options"]["min_parts"] == 2 and card["protocol"] == "all"
    results = json.loads((tmp_path / "out/coco_results.json").read_text())
    assert results == report.results and set(results[0]) == {"image_id", "category_id", "keypoints", "score"}
    assert "AP50" in report.table() and "bottom" in report.keypoint_table()


def test_images_without_detections_are_no_error(poles, tmp_path):
    blind = Predictor(dot_model(peak_threshold=5.0))
    report = evaluate(blind, poles / "poles.json", poles / "images", tmp_path)
    assert report.metrics["AP"] == 0 and report.results == []
    assert json.loads((tmp_path / "coco_results.json").read_text()) == []
    assert all(row["oks"] == 0 for row in report.per_image)


def test_the_protocols_differ_by_the_images_without_people(poles, tmp_path):
    coco = read_coco(poles / "poles.json")
    lonely = coco.images[0].id
    coco.annotations = [a for a in coco.annotations if a.image_id != lonely]
    file = write_coco(tmp_path / "poles.json", coco)
    predictor = Predictor(dot_model(min_parts=2))
    everything = evaluate(predictor, file, poles / "images")
    occupied = evaluate(predictor, file, poles / "images", protocol="with_people")
    assert (everything.run_card["images"], occupied.run_card["images"]) == (12, 11)
    # the pole that nobody annotated is a false positive only where its image counts
    assert everything.metrics["AP"] < occupied.metrics["AP"]
    assert np.isnan(next(r["oks"] for r in everything.per_image if r["image_id"] == lonely))


def test_bad_input_is_named(poles, tmp_path):
    predictor = Predictor(dot_model())
    with pytest.raises(ValueError, match="with_people"):
        evaluate(predictor, poles / "poles.json", poles / "images", protocol="people")
    coco = read_coco(poles / "poles.json")
    coco.annotations.clear()
    empty = write_coco(tmp_path / "empty.json", coco)
    with pytest.raises(ValueError, match="no image to score among 12"):
        evaluate(predictor, empty, poles / "images", protocol="with_people")
    coco.images.append(Image(99, "gone.png", 64, 64))
    with pytest.raises(FileNotFoundError, match="gone.png"):
        evaluate(predictor, write_coco(tmp_path / "gone.json", coco), poles / "images")


def test_the_command_prints_the_tables(poles, tmp_path, capsys, dots_can_be_loaded):
    checkpoint = save_model(tmp_path / "dots.safetensors", dot_model(min_parts=2))
    module.main(checkpoint, str(poles), limit=3)
    printed = capsys.readouterr().out
    assert "AP50" in printed and "bottom" in printed
