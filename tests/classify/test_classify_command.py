"""`python -m lib classify`: pictures drawn, a list, top-1 and top-5 where folders are classes, and clear errors."""

import csv
import json

import cv2
import numpy as np
import pytest
import torch

from lib.__main__ import main
from lib.checkpoints import Classifier, save_classifier
from lib.classify import draw_top, top
from lib.classify.command import classify
from lib.classify.predictor import PictureClassifier
from lib.models import CLASSIFIERS

CLASSES = ("n00000001 red", "n00000002 dark_green", "n00000003 blue", "n00000004 crane", "n00000005 crane", "n00000006 grey")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A classifier with random weights."""
    torch.manual_seed(0)
    network = CLASSIFIERS["HRNetClassifier"](CLASSES, width=4, blocks=1, modules=[1], stem=4, bottlenecks=1, head=4, features=8)
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    return save_classifier(path, Classifier(network, (32, 32), {"centre": 1.0}))


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("n00000001", "dark_green", "others"):
        (tmp_path / "pictures" / folder).mkdir(parents=True)
        for i in range(2):
            cv2.imwrite(str(tmp_path / "pictures" / folder / f"{i}.jpg"), rng.integers(0, 255, (30, 50, 3), np.uint8))
    return tmp_path / "pictures"


def rows_of(out):
    with (out / "classes.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_drawn_listed_and_scored(model, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["classify", str(pictures), "--model", str(model), "--out", str(out), "--batch_size", "4"]) == 0
    rows = rows_of(out)
    assert [row["file"] for row in rows] == [f"{f}/{i}.jpg" for f in ("dark_green", "n00000001", "others") for i in (0, 1)]
    assert [row["truth"] for row in rows] == [CLASSES[1]] * 2 + [CLASSES[0]] * 2 + [""] * 2
    network = PictureClassifier(model)
    for row in rows:
        answer = network(network.fit(pictures / row["file"])[None])[0]
        best = top(answer, network.classes)
        assert [row[f"class_{i}"] for i in range(1, 6)] == [CLASSES[label] for label in best.labels]
        np.testing.assert_allclose([float(row[f"probability_{i}"]) for i in range(1, 6)], best.probabilities, atol=1e-4)
    results = json.loads((out / "results.json").read_text())
    known = [row for row in rows if row["truth"]]
    right = [row["truth"] == row["class_1"] for row in known]
    among = [row["truth"] in [row[f"class_{i}"] for i in range(1, 6)] for row in known]
    assert (results["pictures"], results["labelled"]) == (6, 4)
    assert (results["top1"], results["top5"]) == (np.mean(right), np.mean(among))
    drawn = sorted(out.glob("*.jpg"))
    assert len(drawn) == 6 and cv2.imread(str(drawn[0])).shape[0] >= 240
    assert "of 4 in folders named after a class: top-1" in capsys.readouterr().out


def test_one_picture_has_no_truth_and_draws_as_asked(model, pictures, tmp_path, capsys):
    results = classify(pictures / "n00000001/0.jpg", model, tmp_path / "one", draw=0)
    assert results == {"pictures": 1, "labelled": 0}
    assert [row["file"] for row in rows_of(tmp_path / "one")] == ["0.jpg"] and not list((tmp_path / "one").glob("*.jpg"))
    assert "top-1" not in capsys.readouterr().out


def test_an_earlier_result_is_kept_unless_told(model, pictures, tmp_path):
    out = tmp_path / "out"
    classify(pictures, model, out)
    before = (out / "classes.csv").read_bytes()
    with pytest.raises(FileExistsError, match=r"classes.csv and results.json already.*--overwrite true"):
        classify(pictures, model, out)
    classify(pictures, model, out, overwrite=True)
    assert (out / "classes.csv").read_bytes() == before
    # neither what was drawn nor what was counted then is mixed with what is there now, and what is not ours stays
    (pictures / "n00000001/1.jpg").rename(pictures / "n00000001/2.jpg")
    for path in ("000000_mine.jpg", "1.jpg"):
        (out / path).write_text("not ours")
    drawn = classify(pictures, model, out, overwrite=True, draw=1)
    assert sorted(p.name for p in out.glob("*.jpg")) == ["000000_0.jpg", "000000_mine.jpg", "1.jpg"] and drawn["pictures"] == 6
    # what was drawn is not looked at again
    classify(pictures, model, pictures / "drawn")
    assert classify(pictures, model, pictures / "drawn", overwrite=True)["pictures"] == 6


def test_what_cannot_be_read_is_left_out_and_named(model, pictures, tmp_path, capsys):
    (pictures / "n00000001/0.jpg").write_bytes((pictures / "n00000001/0.jpg").read_bytes()[:300])
    assert main(["classify", str(pictures), "--model", str(model), "--out", str(tmp_path / "out")]) == 1
    assert "1 of 6 pictures could not be read; the first: " in (error := capsys.readouterr().err) and "cut off" in error
    assert len(rows_of(tmp_path / "out")) == 5
    assert json.loads((tmp_path / "out/results.json").read_text())["labelled"] == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a | {"source": "nowhere"}, "nowhere: there is no such picture or folder"),
        (lambda a: a | {"model": "nothing.safetensors"}, "nothing.safetensors: there is no such checkpoint"),
        (lambda a: a | {"device": "cuda:7"}, "cuda:7|CUDA"),
        (lambda a: a | {"device": "gpu"}, "device 'gpu' is unknown; choose cpu, cuda"),
        (lambda a: a | {"classes": a["index"]}, "names 1 classes, the network knows 6"),
    ],
)
def test_errors_are_clear(model, pictures, tmp_path, change, words):
    index = tmp_path / "index.json"
    index.write_text('{"0": ["n00000001", "tench"]}')
    options = change({"source": pictures, "model": model, "out": tmp_path / "out", "index": index})
    options.pop("index")
    with pytest.raises((ValueError, OSError, RuntimeError), match=words):
        classify(**options)
    assert not (tmp_path / "out").exists()


def test_names_that_two_classes_share_are_no_names(model):
    network = PictureClassifier(model)
    assert network.label_of("crane") is None and network.label_of("n00000005") == 4
    assert network.label_of("dark_green") == network.label_of("dark green") == 1


def test_names_can_be_given(model, tmp_path):
    index = {str(i): [f"n0000010{i}", f"thing_{i}"] for i in range(6)}
    (tmp_path / "index.json").write_text(json.dumps(index))
    assert PictureClassifier(model, classes=tmp_path / "index.json").classes[2] == "n00000102 thing_2"


@pytest.mark.parametrize("size", [(20, 20), (2000, 900), (300, 5), (64, 400), (1, 5000)])
def test_bars_have_the_right_length_and_colour(size):
    answer = np.array([0.5, 0.3, 0.1, 0.06, 0.04, 0.0], np.float32)
    best = top(answer, CLASSES)
    assert best.names[1] == "dark green"
    drawn = draw_top(np.full((*size, 3), 128, np.uint8), best, "dark green")
    panel = drawn[:, -300:]
    assert 240 <= len(drawn) <= 480 and drawn.shape[1] <= 1900
    lengths = [int((panel == colour).all(axis=2).sum(axis=1).max()) for colour in ((0, 114, 178), (0, 158, 115))]
    assert abs(lengths[0] - 138) <= 2 and abs(lengths[1] - 83) <= 2


def test_a_truth_that_was_missed_is_named():
    best = top(np.array([0.5, 0.3, 0.1, 0.06, 0.04, 0.0], np.float32), CLASSES)
    image = np.zeros((100, 100, 3), np.uint8)
    assert (draw_top(image, best, "grey") != draw_top(image, best)).any()
    assert (draw_top(image, top(np.ones(1), ("x" * 200,)), None)[:, -8:] == (250, 250, 248)).all(), "names stay in the panel"
