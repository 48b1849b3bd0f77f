"""Pictures of frames: what is drawn of each kind, what is refused, and the files of the command."""

import json

import cv2
import numpy as np
import pytest

from lib.checkpoints import save_model
from lib.data.video import Video, write_video
from lib.models import NETWORKS
from lib.people import People
from lib.predict import Painter, Predictor, main, watch
from lib.predict.painting import tag_scatter
from lib.predict.sources import open_source
from tests.dots import POLE, DotNet, dot_model, draw_poles
from tests.tag_dots import TagDots, tag_model

POLES = [(40, 20, 80), (90, 30, 70)]


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    monkeypatch.setitem(NETWORKS, "TagDots", TagDots)
    monkeypatch.setitem(NETWORKS, "DotNet", DotNet)


@pytest.fixture
def picture(tmp_path):
    cv2.imwrite(str(tmp_path / "poles.png"), draw_poles((96, 128), POLES)[..., ::-1])
    return tmp_path / "poles.png"


def seen_by(predictor, picture):
    return next(watch(predictor, open_source(picture), overlap=False))


@pytest.mark.parametrize("flip", [False, True])
def test_pictures_of_tags_and_heatmaps(picture, flip):
    predictor = Predictor(tag_model(), flip_test=flip)
    seen = seen_by(predictor, picture)
    frame = seen.image.copy()
    drawn = Painter(predictor, ("connections", "tags", "heatmaps"))(seen)
    assert list(drawn) == ["connections", "tags", "heatmaps"] and (drawn["connections"] != frame).any()
    assert drawn["connections"].shape == frame.shape
    # two heatmaps, and below them the tags of each
    assert drawn["heatmaps"].shape == (2 * 230 + 4, 2 * 280 + 4, 3)
    plain = Painter(Predictor(tag_model()), ("tags",))(seen_by(Predictor(tag_model()), picture))["tags"]
    assert drawn["tags"].shape[0] == 480 and (drawn["tags"].shape[1] > plain.shape[1] + 300) == flip


def test_a_persons_dots_stand_at_his_tag(picture):
    predictor = Predictor(tag_model())
    seen = seen_by(predictor, picture)
    tags = Painter(predictor, ("tags",))._tags_of(seen)
    assert tags.shape == (2, 2, 1)
    x = seen.people.keypoints[..., 0]
    np.testing.assert_allclose(tags[..., 0], 20 * (x / 4 + 0.6) / 32, atol=0.4)


def test_nobody_and_shared_tags(picture):
    predictor = Predictor(tag_model())
    seen = seen_by(predictor, picture)
    seen.people = People.empty(2)
    empty = Painter(predictor, ("tags", "heatmaps", "connections"))(seen)
    assert empty["tags"].dtype == np.uint8
    shared = Predictor(tag_model(tag_per_keypoint=False))
    seen = seen_by(predictor, picture)
    seen.answers = [{**maps, "tags": maps["tags"][:1]} for maps in seen.answers]
    seen.people = shared.people(seen.answers, seen.fitted)
    assert len(seen.people) == 2
    drawn = Painter(shared, ("tags", "heatmaps"))(seen)
    assert drawn["heatmaps"].shape == (2 * 230 + 4, 2 * 280 + 4, 3)


def test_fields_and_heatmaps_of_part_affinity_fields(picture):
    predictor = Predictor(dot_model())
    drawn = Painter(predictor, ("heatmaps", "fields"))(seen_by(predictor, picture))
    assert drawn["heatmaps"].shape == (230, 2 * 280 + 4, 3) and drawn["fields"].shape == (230, 280, 3)
    # the stripes' fields point down, all in one hue
    assert (drawn["fields"].max(axis=(0, 1)) > 150).any()


def test_pictures_that_cannot_be(picture, tmp_path):
    for model, kind, message in ((dot_model(), "tags", "no pictures 'tags' of a model with the maps heatmaps, pafs; choose"),
                                 (tag_model(), "fields", "no pictures 'fields'.*choose from connections, tags, heatmaps"),
                                 (tag_model(), "conections", "'conections'")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Painter(Predictor(model), ("connections", kind))
    with pytest.raises(ValueError, match="no pictures are asked for; choose from connections, tags, heatmaps"):
        Painter(Predictor(tag_model()), ())
    file = save_model(tmp_path / "dots.safetensors", dot_model())
    with pytest.raises(ValueError, match="'tags'"):
        main([str(picture), "--model", str(file), "--out", str(tmp_path / "out"), "--pictures", "connections,tags"])
    assert not (tmp_path / "out").exists()


def test_the_command_writes_a_file_of_every_kind(picture, tmp_path):
    file, out = save_model(tmp_path / "tags.safetensors", tag_model()), tmp_path / "out"
    arguments = ["--model", str(file), "--pictures", "connections, tags,heatmaps", "--flip_test", "true"]
    options = ["--input_size", "128", "--fit", "short", "--codec.detection_threshold=0.2", "--codec.tag_threshold=0.5"]
    assert main([str(picture), "--out", str(out), *arguments, *options]) == 0
    names = {f"000000_poles{suffix}.jpg" for suffix in ("", "_tags", "_heatmaps")}
    assert {path.name for path in out.glob("*.jpg")} == names
    results = json.loads((out / "results.json").read_text())
    assert len(results) == 2 and results[0]["file_name"] == "000000_poles.jpg"
    clip = write_video(tmp_path / "walk.mp4", [draw_poles((96, 128), [(30 + i, 20, 80)]) for i in range(4)])
    assert main([str(clip), "--out", str(out / "video"), *arguments, "--track", "true"]) == 0
    for suffix in ("", "_tags", "_heatmaps"):
        assert len(list(Video(out / f"video/walk{suffix}.mp4", progress=False).frames())) == 4
    with pytest.raises(FileExistsError, match="walk_tags.mp4"):
        main([str(clip), "--out", str(out / "video"), "--model", str(file), "--pictures", "tags"])
    with pytest.raises(ValueError, match="one number for both, got 1 2 3"):
        main([str(clip), "--out", str(out / "x"), "--model", str(file), "--input_size", "1", "2", "3"])


def test_a_dot_for_every_tag_in_its_row_and_at_its_value():
    tags = np.array([[[-1.0], [-1.0]], [[2.0], [9.0]]])
    found = np.array([[True, True], [True, False]])
    red, blue = (220, 30, 30), (30, 30, 220)
    picture = tag_scatter(tags, found, POLE, [red, blue], 400)
    rows = {}
    for name, colour in (("red", red), ("blue", blue)):
        y, x = np.nonzero((picture == colour).all(axis=2))
        dots = [row for row in np.unique(y) if (y == row).sum() > 5]  # the line at the mean is one pixel wide
        rows[name] = (min(dots), max(dots), float(np.median(x)))
    assert rows["red"][1] - rows["red"][0] > 120 and rows["blue"][1] - rows["blue"][0] < 15
    assert rows["blue"][0] - rows["red"][0] < 5 and rows["blue"][2] - rows["red"][2] > 150
    assert tag_scatter(np.zeros((0, 2, 1)), np.zeros((0, 2), bool), POLE, [], 400).shape == picture.shape
