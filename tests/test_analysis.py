"""An evaluation taken apart: figures that must agree with each other, files, and what cannot be analysed."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from lib.__main__ import main as command
from lib.analysis import CROWDING, SIDES, analyse, crowd_index, write_analysis
from lib.checkpoints import save_model
from lib.data.coco import Annotation, Category, CocoFile, Image, read_coco, write_coco
from lib.metrics import CocoScorer, people_to_results
from lib.metrics.precision import scenes_of
from lib.models import NETWORKS
from lib.people import People
from lib.skeleton import COCO17, Skeleton
from tests.dots import DotNet, dot_model, write_poles


def report_of(folder, skeleton, people, found, measure="coco"):
    """An evaluation of {image id: people}, annotated and predicted, on grey pictures."""
    annotations = []
    for image_id, persons in people.items():
        for keypoints in persons:
            keypoints = np.array(keypoints, float)
            box = [*keypoints[:, :2].min(0), *np.maximum(np.ptp(keypoints[:, :2], axis=0), 1)]
            annotations.append(Annotation(len(annotations) + 1, image_id, 1, keypoints.ravel().tolist(),
                                          int((keypoints[:, 2] > 0).sum()), [float(v) for v in box], 70.0**2))  # fmt: skip
    fields = skeleton.to_coco()
    category = Category(1, "person", keypoints=fields["keypoints"], skeleton=fields["skeleton"], sigmas=fields["sigmas"])
    images = [Image(i, f"{i}.png", 200, 160) for i in people]
    path = write_coco(folder / "labels.json", CocoFile(images, annotations, [category]))
    for image in images:
        cv2.imwrite(str(folder / image.file_name), np.full((160, 200, 3), 120, np.uint8))
    results = [r for image_id, persons in found.items() for r in people_to_results(persons, image_id)]
    return SimpleNamespace(
        results=results, per_image=[{"image_id": i.id, "file_name": i.file_name} for i in images],
        run_card={"measure": measure, "model": {"skeleton": skeleton.to_dict()}},
        config={"annotations": str(path), "images": str(folder), "category": None}, rules=lambda: "by hand",
    )  # fmt: skip


@pytest.fixture
def report(tmp_path):
    rng = np.random.default_rng(0)
    body = lambda x: np.concatenate([rng.uniform(0, 70, (17, 2)) + [x, 30], np.full((17, 1), 2)], axis=1)
    people = {1: [body(20), body(110)], 2: [body(60), body(70)], 3: [body(0)], 4: []}
    found = {}
    for image_id, persons in people.items():
        keypoints = np.array(persons).reshape(-1, 17, 3) + rng.normal(0, 4, (len(persons), 17, 3)) * [1, 1, 0]
        keypoints[..., 2] = 0.8
        found[image_id] = People(keypoints, rng.uniform(0.5, 1, len(persons)))
    found[3] = People.empty(17)
    found[4] = People(rng.uniform(0, 100, (1, 17, 3)), [0.4])
    return report_of(tmp_path, COCO17, people, found)


def test_figures_agree(report):
    analysis = analyse(report)
    people = analysis.errors.people
    assert people == {"people": 5, "missed": 1, "predictions": 5, "false positives": 1, "duplicates": 0}
    assert len(analysis.oks) == 5 and (analysis.oks == 0).sum() == 1
    assert analysis.errors.counts.sum() == 4 * 17
    assert sum(g.people for g in analysis.by_crowding) == sum(g.people for g in analysis.by_size) == 5
    sizes = {g.name: g.people for g in analysis.by_size}
    assert sizes["64–96 px"] == 5 and len(sizes) == len(SIDES) - 1 and [g.name for g in analysis.by_crowding] == [*CROWDING]
    assert next(analysis.files[p.scene.image_id] for p in analysis.errors.worst()) == "3.png"
    assert analysis.pck["Total"][-1] == pytest.approx(4 / 5, abs=0.02)


def test_files_are_written(report, tmp_path):
    analysis = analyse(report)
    write_analysis(analysis, tmp_path / "out")
    content = json.loads((tmp_path / "out/analysis.json").read_text())
    assert content["AP"] == pytest.approx(analysis.average_precision) and content["rules"] == "by hand"
    assert content["by_size"][0] == {"name": "< 32 px", "people": 0, "ap": None}
    assert sum(content["oks"]["people"]) == 5 and content["worst_images"][0]["missed"] == 1
    assert content["keypoints"]["good"].keys() == set(COCO17.keypoints)
    assert cv2.imread(str(tmp_path / "out/analysis.png")).shape[1] > 1000
    sheet = cv2.imread(str(tmp_path / "out/worst.jpg"))
    assert sheet.shape[0] >= 2 * 340 and (tmp_path / "out/analysis.txt").read_text().startswith("by hand\n")


def test_one_keypoint_and_nobody(tmp_path):
    dot = Skeleton("dot", ["spot"], [], [], [0.1])
    report = report_of(tmp_path, dot, {1: [[[50, 60, 2]]], 2: []}, {1: People([[[51, 60, 1]]], [0.9])})
    analysis = analyse(report)
    assert analysis.errors.counts.ravel().tolist() == [1, 0, 0, 0, 0] and analysis.average_precision == 1
    assert len(analysis.figure().axes) == 6 and "spot" in json.dumps(analysis.as_dict())
    nothing = analyse(report_of(tmp_path, dot, {1: [], 2: []}, {}))
    assert np.isnan(nothing.average_precision) and nothing.worst().shape[2] == 3
    assert json.loads(json.dumps(nothing.as_dict()))["AP"] is None and len(nothing.figure().axes) == 6
    assert "nothing" in nothing.table()


def test_crowding_by_hand(tmp_path):
    pair = Skeleton("pair", ["a", "b"], [], [], [0.1, 0.1])
    alone, inside = [[0, 0, 2], [100, 100, 2]], [[50, 50, 2], [60, 200, 2]]
    report = report_of(tmp_path, pair, {1: [alone, inside], 2: [alone], 3: []}, {})
    scorer = CocoScorer(read_coco(report.config["annotations"]), pair)
    # one of the other's keypoints in the first's box beside its own two, none in the second's
    assert [crowd_index(scene) for scene in scenes_of(scorer, [])] == pytest.approx([(1 / 2 + 0 / 2) / 2, 0, 0])


def test_the_command_analyses(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(NETWORKS, "DotNet", DotNet)
    poles = write_poles(tmp_path / "data", 4)
    model = str(save_model(tmp_path / "dots.safetensors", dot_model(min_parts=2)))
    assert command(["evaluate", model, f"--data_dir={poles}", f"--analysis={tmp_path / 'why'}"]) == 0
    assert "after those above" in capsys.readouterr().out
    assert json.loads((tmp_path / "why/analysis.json").read_text())["people"]["missed"] == 0
    assert command(["evaluate", model, f"--data_dir={poles}", "--measure=pckh", "--analysis=why"]) == 1
    assert "leave it out, or --measure=pckh" in capsys.readouterr().err


def test_only_cocos_measure(report):
    report.run_card["measure"] = "pckh"
    with pytest.raises(ValueError, match="leave out --measure=pckh"):
        analyse(report)
