"""The benchmark: every stage, every setting, and a machine that is described; how fast anything is, is not tested."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lib import benchmark as module
from lib.benchmark import STAGES, Latency, benchmark, drawn_crowd, machine, measure, table
from lib.checkpoints import save_model
from lib.data.coco import read_coco
from lib.models import NETWORKS
from lib.predict import Predictor
from tests.crop_poles import Given, PoleNet, boxes_of, pole_model
from tests.dots import DotNet, dot_model, draw_poles, write_poles

POLES = [(30, 20, 80), (110, 30, 90)]
IMAGE = draw_poles((110, 150), POLES)


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    for network in (DotNet, PoleNet):
        monkeypatch.setitem(NETWORKS, network.__name__, network)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_poles(tmp_path_factory.mktemp("benchmark") / "poles", 3) / "images"


def test_percentiles_are_times_that_were_measured():
    seconds = np.random.default_rng(0).permutation(np.arange(1, 101)) / 1000
    assert Latency.of(seconds) == Latency(50.0, 90.0, 99.0, 100)
    assert Latency.of([0.002]) == Latency(2.0, 2.0, 2.0, 1)


def test_every_stage_is_timed_and_only_what_counts(pictures):
    paths = sorted(pictures.iterdir())
    stages = measure(Predictor(dot_model()), paths, batch_size=2, warmup=1, repeats=3)
    assert list(stages) == ["load", "preprocess", "network", "decode", "total"]
    assert all(0 < stage.p50 <= stage.p90 <= stage.p99 and stage.n == 3 for stage in stages.values())
    assert stages["total"].p50 >= stages["network"].p50
    assert list(measure(Predictor(dot_model()), [IMAGE], repeats=1)) == ["preprocess", "network", "decode", "total"]


def test_boxes_are_a_stage_of_their_own():
    detector = Given(boxes_of(POLES))
    stages = measure(Predictor(pole_model(), detector=detector), [IMAGE], batch_size=3, warmup=2, repeats=4)
    assert list(stages) == [*STAGES[1:], "total"] and detector.calls == 3 * (2 + 4)


def test_batches_go_through_the_pictures_in_turn(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "_find", lambda predictor, batch, seconds: seen.append(batch) or seconds.update(network=1))
    measure(None, ["a", "b", "c"], batch_size=2, warmup=1, repeats=2)
    assert seen == [["a", "b"], ["c", "a"], ["b", "c"]]


@pytest.mark.parametrize(("images", "options"), [([], {}), ([IMAGE], {"batch_size": 0}), ([IMAGE], {"repeats": 0})])
def test_nothing_to_measure_is_an_error(images, options):
    with pytest.raises(ValueError, match="there must be pictures, batches and repeats"):
        measure(Predictor(dot_model()), images, **options)


@pytest.mark.parametrize("options", [{"people": ()}, {"batch_sizes": ()}, {"batch_sizes": (0,)}, {"repeats": 0}, {"warmup": -1}])
def test_settings_that_measure_nothing_are_refused_before_anything_is_drawn(options, tmp_path):
    with pytest.raises(ValueError, match="a benchmark needs people or pictures"):
        benchmark(tmp_path / "never_opened.onnx", **options)


def test_the_machine_is_described():
    facts = machine()
    assert facts["cpu"] and facts["cores"] >= 1 and facts["torch_threads"] == torch.get_num_threads()
    assert torch.__version__.startswith(facts["torch"]) and {"python", "numpy", "system"} <= set(facts)
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("people", [1, 7])
def test_crowds_have_as_many_people_as_asked_for(tmp_path, people):
    annotations, paths = drawn_crowd(people, tmp_path / "crowd", pictures=2, size=(120, 160))
    coco = read_coco(annotations)
    assert [path.is_file() for path in paths] == [True, True]
    assert [sum(a.image_id == image.id for a in coco.annotations) for image in coco.images] == [people, people]


def test_the_command_measures_every_setting(tmp_path, capsys, pictures):
    save_model(tmp_path / "dots.safetensors", dot_model())
    options = {"batch_sizes": (1, 2), "warmup": 1, "repeats": 2, "threads": 1}
    before = torch.get_num_threads()
    result = benchmark(tmp_path / "dots.safetensors", people=(1, 2), size=(96, 128), out=tmp_path / "out/b.json", **options)
    assert torch.get_num_threads() == before
    assert [(row["people"], row["batch_size"]) for row in result["rows"]] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert result["provider"] == "torch cpu" and result["precision"] == "fp32" and result["machine"]["torch_threads"] == 1
    assert json.loads((tmp_path / "out/b.json").read_text()) == result
    printed = capsys.readouterr().out
    assert table(result) in printed and "dots.safetensors, fp32, on torch cpu, input 96×128, threads: 1" in printed
    own = benchmark(tmp_path / "dots.safetensors", pictures=pictures, **options)
    assert [row["people"] for row in own["rows"]] == ["own", "own"] and own["rows"][0]["found"] > 0


def test_a_top_down_model_takes_the_drawn_boxes_or_a_detector(tmp_path, pictures):
    save_model(tmp_path / "poles.safetensors", pole_model())
    save_model(tmp_path / "dots.safetensors", dot_model())
    options = {"batch_sizes": (1,), "warmup": 0, "repeats": 1, "people": (2,), "size": (96, 128)}
    result = benchmark(tmp_path / "poles.safetensors", **options)
    assert result["detector"] == "truth" and "detect" in result["rows"][0]["milliseconds"]
    assert "boxes: truth" in table(result)
    result = benchmark(tmp_path / "poles.safetensors", detector=str(tmp_path / "dots.safetensors"), **options)
    assert result["detector"] == "dots"
    with pytest.raises(ValueError, match="dots.safetensors finds all people of a picture by itself"):
        benchmark(tmp_path / "dots.safetensors", detector="whole", **options)
    with pytest.raises(ValueError, match="say with --detector what finds people in your own pictures"):
        benchmark(tmp_path / "poles.safetensors", pictures=pictures)
    with pytest.raises(ValueError, match="threads is 0"):
        benchmark(tmp_path / "dots.safetensors", threads=0)
