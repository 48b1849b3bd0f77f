"""Models compared on the same pictures: rows, tables, charts, the README, and memory of a fresh process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.checkpoints import save_model
from lib.compare import _different_names, compare, main, write_comparison
from lib.compare import memory as memory_module
from lib.compare.table import BEGIN, END, write_readme
from lib.models import NETWORKS
from lib.runtime import onnx_session
from tests.crop_poles import PoleNet, pole_model
from tests.detect.yolo_files import write, yolox
from tests.dots import DotNet, dot_model, write_poles

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def poles(tmp_path_factory):
    return write_poles(tmp_path_factory.mktemp("poles") / "data", 6)


@pytest.fixture
def models(monkeypatch, tmp_path):
    for network in (DotNet, PoleNet):
        monkeypatch.setitem(NETWORKS, network.__name__, network)
    model = dot_model(min_parts=2)
    return [save_model(tmp_path / "dots.safetensors", model), save_model(tmp_path / "cut.safetensors", pole_model())]


def compared(models, poles, tmp_path, **options):
    options = {"runtime": "torch", "memory": False, "people": (1, 3), "rounds": 2, "repeats": 1, "detector": str(models[0])} | options
    return compare(models, poles, folder=tmp_path / "compare", **options)


def test_a_top_down_model_stands_there_with_both_kinds_of_boxes(models, poles, tmp_path):
    found = compared(models, poles, tmp_path)
    titles = ["dots", "cut, ground-truth boxes", "cut, boxes of dots"]
    assert [row.title for row in found.rows] == titles and [row.network for row in found.rows] == ["DotNet", "PoleNet", "PoleNet"]
    dots, truth, cut = found.rows
    assert all(row.metrics["AP"] > 0.9 and row.errors["good"] > 0.9 and row.parameters == 12 for row in found.rows)
    assert cut.of_detector == (12, dots.multiply_adds)
    assert dots.multiply_adds == 9 * 96 * 128 and truth.multiply_adds == 9 * 128 * 96 and truth.of_detector == (0, 0)
    for row in found.rows:
        assert set(row.latency) == {1, 3} and all(low <= row.latency[n]["total"] <= high for n, (low, high) in row.spread.items())
    assert "detect" in cut.latency[1] and "detect" not in dots.latency[1]
    assert "6 images" in found.rules and "torch cpu" in found.rules and "medians of 2 rounds" in found.rules
    table = found.table().splitlines()
    assert len(table) == 4 and "0.0 + 0.0 M" in table[3] and "per person" in table[2] and "per person" not in table[1]
    write_comparison(found, tmp_path / "out")
    content = json.loads((tmp_path / "out/comparison.json").read_text())
    assert [row["name"] for row in content["rows"]] == ["dots", "cut", "cut"] and content["rows"][0]["memory"] is None
    assert cv2.imread(str(tmp_path / "out/comparison.png")).shape[1] > 800
    assert (tmp_path / "out/cut_boxes_of_dots/analysis.json").is_file()
    assert (tmp_path / "out/comparison.md").read_text().startswith("| model |")


def test_the_command_writes_into_a_readme(models, poles, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n\n{BEGIN}\nold\n{END}\nbelow\n")
    main((str(models[0]),), str(poles), runtime="torch", memory=False, people=(), limit=4, out=str(tmp_path / "out"), readme=readme,
         picture=tmp_path / "docs/chart.png")  # fmt: skip
    text = readme.read_text()
    assert text.startswith(f"above\n\n{BEGIN}\n| model |") and text.endswith(f"{END}\nbelow\n") and "old" not in text
    assert "](docs/chart.png)" in text and "4 images" in text and "rounds" not in text
    assert (tmp_path / "docs/chart.png").is_file() and "4 images" in capsys.readouterr().out
    readme.write_text("nothing to find here")
    with pytest.raises(ValueError, match="add them where it is to be"):
        write_readme(readme, "table", tmp_path / "chart.png")
    assert readme.read_text() == "nothing to find here"


def test_files_of_one_name_are_told_apart_by_their_folders(models, poles, tmp_path):
    for run, source in (("a", models[0]), ("b", models[1]), ("c", models[0])):
        (tmp_path / run).mkdir()
        (tmp_path / run / "best.safetensors").write_bytes(source.read_bytes())
    first, second, third = (str(tmp_path / run / "best.safetensors") for run in "abc")
    found = compared((first, second), poles, tmp_path, detector=third, people=(), limit=2)
    assert [row.title for row in found.rows] == ["a_best", "b_best, ground-truth boxes", "b_best, boxes of c_best"]
    assert _different_names([Path("a/m.onnx"), Path("a/m.pt2"), Path("b/n.onnx")]) == ["m.onnx", "m.pt2", "n.onnx"]
    with pytest.raises(ValueError, match="one model stands twice"):
        compared((first, first), poles, tmp_path)


def test_a_changed_checkpoint_is_exported_again(models, poles, tmp_path, monkeypatch):
    import lib.compare as module

    exports = []

    def export(model, path, **options):
        exports.append(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    monkeypatch.setattr(module, "export_onnx", export)
    monkeypatch.setattr(module, "_source", lambda path: "another")
    names = {models[0]: "dots", tmp_path / "compare/models/dots.onnx": "dots_exported"}
    opening = module._Opening("onnx", 1, tmp_path / "compare", poles, "val", poles / "poles.json", names)
    assert opening.exported(models[0]) == opening.exported(models[0]) == tmp_path / "compare/models/dots.onnx"
    assert len(exports) == 2
    monkeypatch.setattr(module, "_source", lambda path: module.file_sha256(models[0]))
    assert opening.exported(models[0]) == exports[0] and len(exports) == 2
    assert opening.exported(tmp_path / "compare/models/dots.onnx") == exports[0]


def test_somebody_elses_detector_has_the_same_threads(models, poles, tmp_path, monkeypatch):
    sessions = []
    monkeypatch.setattr("lib.detect.onnx_yolo.onnx_session", lambda *given: sessions.append(given) or onnx_session(*given))
    values, lit = yolox()
    path = write(tmp_path / "theirs.onnx", {"output": values}, lit)
    found = compared(models[1:], poles, tmp_path, detector=str(path), people=())
    assert [row.title for row in found.rows] == ["cut, ground-truth boxes", "cut, boxes of theirs"]
    assert [given[2] for given in sessions] == [1] and np.isnan(found.rows[1].of_detector[0]) and "?" in found.table()


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"models": ()}, ValueError, "needs models"), ({"runtime": "tensorrt"}, ValueError, "onnx or torch"),
        ({"rounds": 0}, ValueError, "from 1 on"), ({"models": ("missing.safetensors",)}, FileNotFoundError, "no model"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change, error, sentence, poles, tmp_path):
    models = change.pop("models", ("pretrained/trt_pose_mini.safetensors",))
    with pytest.raises(error, match=sentence):
        compare(models, poles, folder=tmp_path, **change)


HUNGRY = """
import numpy as np
import lib.runtime
from lib.compare.memory import growth

kept = []


class Hungry:
    def __init__(self):
        self.metadata = {"input_size": [8, 8]}

    def __call__(self, images):
        assert images.shape == (1, 8, 8, 3)
        kept.append(np.ones(5 * 2**20))  # 40 MiB


lib.runtime.open_network = lambda path, threads: Hungry()
print(growth(["a"], 1))
"""


def test_memory_grows_by_what_a_model_takes():
    """In a process of its own, as it is measured: one that has done other things gives back memory meanwhile."""
    ended = subprocess.run([sys.executable, "-c", HUNGRY], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 80 <= float(ended.stdout) < 100


def test_memory_is_measured_elsewhere(tmp_path, monkeypatch):
    """The program gets the files and its last line counts; a failure is a sentence."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho noise; echo "$#"\n')
    os.chmod(program, 0o755)
    monkeypatch.setattr(memory_module.sys, "executable", str(program))
    assert list(memory_module.memory_of([["a", "b"], ["c"]])) == [4.0, 3.0]
    monkeypatch.chdir(tmp_path)
    program.write_text("#!/bin/sh\necho nothing to open >&2; exit 1\n")
    with pytest.raises(RuntimeError, match="memory of c: nothing to open"):
        list(memory_module.memory_of([["c"]]))
