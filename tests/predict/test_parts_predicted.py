"""DeeperCut's codec in a predictor: several people, one person at the best of several scales, pictures at their own size."""

import cv2
import numpy as np
import pytest

from lib.checkpoints import save_model
from lib.models import NETWORKS
from lib.predict import Painter, Predictor, main, watch
from lib.predict.fitting import fit_native
from lib.predict.sources import open_source
from tests.dots import draw_poles
from tests.part_dots import PartDots, part_model

POLES = [(40, 20, 60), (90, 30, 70)]


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    monkeypatch.setitem(NETWORKS, "PartDots", PartDots)


def places(people):
    return people.keypoints[np.argsort(people.keypoints[:, 0, 0]), :, :2]


TRUTH = [[(x, top), (x, bottom)] for x, top, bottom in POLES]


@pytest.mark.parametrize("flip_test", [False, True])
def test_poles_are_found(flip_test):
    people = Predictor(part_model(), flip_test=flip_test)([draw_poles((96, 128), POLES)])[0]
    assert len(people) == 2
    np.testing.assert_allclose(places(people), TRUTH, atol=2)


@pytest.mark.parametrize("maps_at", ["pixels", "image"])
def test_poles_are_found_in_enlarged_maps(maps_at):
    people = Predictor(part_model(), maps_at=maps_at)([draw_poles((96, 128), POLES)])[0]
    np.testing.assert_allclose(places(people), TRUTH, atol=5)


def test_pictures_keep_their_size():
    picture = draw_poles((150, 201), [(100, 60, 100)])
    pixels, affine = fit_native(picture, 1.0, 16)
    assert pixels.shape == (160, 208, 3)
    np.testing.assert_array_equal(pixels[:150, :201], picture)
    assert not pixels[150:].any() and not pixels[:, 201:].any()
    pixels, affine = fit_native(picture, 0.5, 16)
    assert pixels.shape == (80, 112, 3)
    np.testing.assert_allclose(affine @ (-0.5, -0.5, 1), (-0.5, -0.5))
    found = Predictor(part_model(), fit="native")([picture])[0]
    np.testing.assert_allclose(places(found), [[(100, 60), (100, 100)]], atol=2)


def test_the_scale_whose_worst_keypoint_is_best_is_taken():
    picture = draw_poles((96, 128), POLES[:1])
    predictor = Predictor(part_model(single=True), scale_search=(0.5, 1, 2))
    fitted = predictor.fit(picture)
    answers = predictor.answers([fitted])[0]
    # dots are smaller than a cell: the larger the picture, the higher the heatmap
    least = [maps["heatmaps"].max(axis=(1, 2)).min() for maps in answers]
    assert np.argmax(least) == 2
    people = predictor.people(answers, fitted)
    np.testing.assert_allclose(people.keypoints[0, :, 2].min(), least[2], rtol=1e-5)
    np.testing.assert_allclose(places(people), TRUTH[:1], atol=2)
    # another one is taken where that one is spoilt
    answers[2] = {name: values * np.nan for name, values in answers[2].items()}
    np.testing.assert_allclose(predictor.people(answers, fitted).keypoints[0, :, 2].min(), least[1], rtol=1e-5)
    spoilt = [{name: values * np.nan for name, values in maps.items()} for maps in answers]
    assert len(predictor.people(spoilt, fitted)) == 0


def test_a_scale_search_is_for_one_person():
    with pytest.raises(ValueError, match="single=True"):
        Predictor(part_model(), scale_search=(0.5, 1))
    with pytest.raises(ValueError, match="give one of them"):
        Predictor(part_model(single=True), scale_search=(0.5, 1), scales=(1, 2))
    with pytest.raises(ValueError, match="factors above 0"):
        Predictor(part_model(single=True), scale_search=(0.5, 0))


def test_offsets_and_pairs_are_drawn(tmp_path):
    cv2.imwrite(str(tmp_path / "poles.png"), draw_poles((96, 128), POLES)[..., ::-1])
    predictor = Predictor(part_model())
    seen = next(watch(predictor, open_source(tmp_path / "poles.png"), overlap=False))
    frame = seen.image.copy()
    drawn = Painter(predictor, ("offsets", "pairs", "graph", "heatmaps", "connections"))(seen)
    # a panel for each of the two keypoints
    assert drawn["offsets"].shape == drawn["pairs"].shape and drawn["offsets"].shape[1] == 2 * 420 + 4
    assert (drawn["connections"] != frame).any()
    blank = next(watch(predictor, open_source(tmp_path / "poles.png"), overlap=False))
    for maps in blank.answers:
        for values in maps.values():
            values[:] = np.nan
    assert drawn["graph"].shape == (480, 640, 3)
    without = Painter(predictor, ("offsets", "pairs"))(blank)
    # an arrow leads from the top of a pole to its bottom, right in the middle between them
    y, x = (int((value + 0.5) * 420 / 128) for value in (40, 40))
    place = slice(-315 + y - 4, -315 + y + 5), slice(x - 20, x + 21)
    assert np.abs(drawn["pairs"][place].astype(int) - without["pairs"][place]).max() > 30
    assert (drawn["offsets"] != without["offsets"]).any()


def test_the_command_searches_scales(tmp_path):
    cv2.imwrite(str(tmp_path / "poles.png"), draw_poles((96, 128), POLES[:1])[..., ::-1])
    model = save_model(tmp_path / "dots.safetensors", part_model())
    arguments = ["poles.png", "--model", str(model), "--out", str(tmp_path / "out"), "--codec.single=true"]
    arguments[0] = str(tmp_path / "poles.png")
    assert main([*arguments, "--scale_search", "0.5", "1", "--pictures=connections,offsets"]) == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) + len(list((tmp_path / "out").rglob("*.jpg"))) == 2
