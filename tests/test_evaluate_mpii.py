"""evaluate --measure: MPII's measures from the command to the files, and what is said of how they were made."""

import json

import cv2
import numpy as np
import pytest

from lib.__main__ import main as command
from lib.checkpoints import save_model
from lib.evaluate import evaluate
from lib.metrics.pckh import THRESHOLDS
from lib.models import NETWORKS
from lib.predict import Predictor
from tests.dots import POLE, DotNet, dot_model, draw_poles, write_poles
from tests.metrics.head_scenes import person, write_file
from tests.part_dots import PartDots, part_model


@pytest.fixture(scope="module")
def poles(tmp_path_factory):
    """Twelve pictures of poles whose heads are 6 pixels long; the left pole is group 0, the other 1."""
    folder = write_poles(tmp_path_factory.mktemp("heads") / "data")
    content = json.loads((folder / "poles.json").read_text())
    seen = set()
    for a in content["annotations"]:
        x, y, *_ = a["bbox"]
        a |= {"head_box": [x, y, 6, 8], "group": int(a["image_id"] in seen), "single_person": a["image_id"] in seen}
        seen.add(a["image_id"])
    (folder / "poles.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "DotNet", DotNet)
    return save_model(tmp_path / "dots.safetensors", dot_model(min_parts=2))


def strictly(path):
    """JSON as everybody reads it, without NaN."""

    def no(word):
        raise ValueError(word)

    return json.loads(path.read_text(), parse_constant=no)


def test_pckh_from_the_command(poles, model, tmp_path, capsys):
    run = ["evaluate", str(model), f"--data_dir={poles}", "--measure=pckh", f"--out_dir={tmp_path / 'a'}"]
    assert command(run) == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert printed.startswith("PCKh@0.5 in %, ") and "people, our rules, 12 of 12 images" in lines_of(printed)[0]
    assert lines[2] == ["top", "bottom", "Total", "AUC"] and float(lines[3][2]) > 90, "percent"
    assert lines[5] == ["keypoint", "labelled", "PCKh", "AUC", "error", "px"]
    card, metrics = strictly(tmp_path / "a/run_card.json"), strictly(tmp_path / "a/metrics.json")
    assert card["measure"] == "pckh" and card["details"]["head_size"].startswith("0.6 x diagonal of head_box")
    assert "surest prediction" in card["details"]["pairing"] and card["people_per_image"] is None
    assert 0.9 < metrics["metrics"]["Total"] <= 1 and metrics["rules"] == lines_of(printed)[0]
    curves = metrics["curves"]
    assert len(curves["threshold"]) == len(curves["Total"]) == 51 and curves["Total"][-1] == metrics["metrics"]["Total"]
    assert not (tmp_path / "a/coco_output.txt").exists() and len(strictly(tmp_path / "a/coco_results.json")) >= 12
    assert command(["evaluate", f"--config={tmp_path / 'a/config.yaml'}", f"--out_dir={tmp_path / 'b'}"]) == 0
    assert capsys.readouterr().out == printed
    for name in ("metrics.json", "run_card.json", "config.yaml"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text(), name


def test_only_single_people_from_the_command(poles, model, capsys):
    assert command(["evaluate", str(model), f"--data_dir={poles}", "--measure=pckh", "--people=single"]) == 0
    assert "people who stand apart, our rules" in capsys.readouterr().out


def test_several_people_from_the_command(poles, model, tmp_path, capsys):
    run = ["evaluate", str(model), f"--data_dir={poles}", "--measure=mpii", f"--out_dir={tmp_path}", "--limit=6"]
    assert command(run) == 0
    rules = lines_of(capsys.readouterr().out)[0]
    card, metrics = strictly(tmp_path / "run_card.json"), strictly(tmp_path / "metrics.json")
    groups = card["details"]["groups"]
    assert rules == f"MPII's AP in %, mAP of 2 keypoints, {groups} groups (groups by the key `group`), our rules, 6 of 12 images"
    assert groups > 6 and card["details"]["people_scored"] == groups and card["details"]["mAP"] == "mean of 2 keypoints: top, bottom"
    assert metrics["metrics"].keys() == {"top", "bottom", "mAP"} and metrics["metrics"]["mAP"] > 0.9
    assert card["details"]["predictions_outside_groups"] == 0 and card["groups"] is None
    assert [row.keys() for row in metrics["per_keypoint"]] == [{"keypoint", "labelled", "predicted", "recall", "ap"}] * 2


def test_a_picture_without_a_group_has_its_row(poles, tmp_path):
    content = json.loads((poles / "poles.json").read_text())
    for a in content["annotations"]:
        a.pop("group", None) if a["image_id"] == 3 else None
    file = tmp_path / "poles.json"
    file.write_text(json.dumps(content))
    report = evaluate(Predictor(dot_model(min_parts=2)), file, poles / "images", measure="mpii")
    row = next(row for row in report.per_image if row["image_id"] == 3)
    assert (row["people"], row["predictions"]) == (0, 0) and np.isnan(row["pckh"])
    outside = report.run_card["details"]["predictions_outside_groups"]
    assert outside == len(report.people[3]) > 0 and len(report.per_image) == 12
    assert report.worst_images(2)[0]["pckh"] <= report.worst_images(2)[1]["pckh"]


def test_the_report_has_the_curve(poles):
    report = evaluate(Predictor(dot_model(min_parts=2)), poles / "poles.json", poles / "images", limit=2, measure="pckh")
    assert report.curves["Total"].shape == THRESHOLDS.shape and (np.diff(report.curves["Total"]) >= 0).all()
    assert report.curves.keys() == {"top", "bottom", "Total"} and "pckh" in report.per_image[0]


def test_one_person_with_a_scale_search(tmp_path, monkeypatch, capsys):
    """DeeperCut's way with a crop: the place of the best score of each joint, at the size where the worst joint is best."""
    monkeypatch.setitem(NETWORKS, "PartDots", PartDots)
    (tmp_path / "images").mkdir()
    poles = [(40, 20, 60), (70, 30, 70), (100, 15, 55)]
    for i, pole in enumerate(poles, 1):
        cv2.imwrite(str(tmp_path / f"images/{i}.jpg"), draw_poles((96, 128), [pole])[..., ::-1])
    people = [[person({"top": (x, y0), "bottom": (x, y1)}, POLE, head_box=[x, y0, 6, 8])] for x, y0, y1 in poles]
    write_file(tmp_path / "poles.json", people, POLE)
    model = save_model(tmp_path / "parts.safetensors", part_model(single=True))
    run = ["evaluate", str(model), f"--data_dir={tmp_path}", "--measure=pckh", f"--out_dir={tmp_path / 'a'}"]
    assert command([*run, "--scale_search=[0.5,1]"]) == 0
    printed = capsys.readouterr().out
    assert lines_of(printed)[0] == "PCKh@0.5 in %, 3 people, our rules, 3 of 3 images, scale search 0.5 1"
    assert strictly(tmp_path / "a/metrics.json")["metrics"]["Total"] == 1
    assert strictly(tmp_path / "a/run_card.json")["scale_search"] is True
    assert command(["evaluate", f"--config={tmp_path / 'a/config.yaml'}", "--out_dir=null"]) == 0
    assert capsys.readouterr().out == printed
    assert command([*run, "--rules=published", "--measure=coco", "--scale_search=[0.5,1]"]) == 1
    assert "leave out --scale_search" in capsys.readouterr().err


def test_nobody_found_is_a_table_too(poles, tmp_path):
    blind = Predictor(dot_model(peak_threshold=5.0))
    for measure, figure in (("pckh", "Total"), ("mpii", "mAP")):
        report = evaluate(blind, poles / "poles.json", poles / "images", tmp_path, measure=measure)
        assert report.metrics[figure] == 0 and " 0.0" in report.table()
        strictly(tmp_path / "metrics.json")  # the median error of nothing is null


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--measure=pck"], "measure 'pck' is unknown; choose coco or pckh or mpii"),
        (["--measure=pckh", "--rules=published"], "leave out --rules=published or --measure=pckh"),
        (["--people=single"], "--people=single belongs to --measure=pckh, not to coco"),
        (["--measure=pckh", "--groups=groups_v12.mat"], "--groups belongs to --measure=mpii, not to pckh"),
        (["--measure=pckh", "--people=alone"], "people 'alone' is unknown; choose all or single"),
        (["--measure=mpii", "--groups=gone.mat"], "gone.mat"),
    ],
)
def test_what_does_not_belong_together_is_named(poles, model, capsys, options, sentence):
    assert command(["evaluate", str(model), f"--data_dir={poles}", *options]) == 1
    assert sentence in capsys.readouterr().err


def test_a_file_without_head_boxes_says_where_they_come_from(model, tmp_path, capsys):
    data = write_poles(tmp_path / "data", count=2)
    assert command(["evaluate", str(model), f"--data_dir={data}", "--measure=mpii"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "poles.json: none of the" in error and "`python -m lib prepare mpii`" in error


def lines_of(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if line]
