"""Top-down prediction: crops of boxes, people in pixels of the picture, detectors by name, and videos."""

import json

import cv2
import numpy as np
import pytest

from lib.checkpoints import save_model
from lib.codecs.heatmap import HeatmapCodec
from lib.data.augment import read_image, warp
from lib.data.boxes import box_affine
from lib.detect import TruthBoxes, WholeImage
from lib.evaluate import evaluate
from lib.evaluate import main as evaluate_command
from lib.models import NETWORKS
from lib.people import People, oks
from lib.predict import Painter, Predictor, main, watch
from lib.predict.detecting import PoseDetector, detector_named
from lib.predict.fitting import fit_box
from lib.predict.live import LiveView
from lib.predict.topdown import boxes_of_people, suppressed
from lib.skeleton import COCO17, Skeleton
from tests.crop_poles import Given, PoleNet, boxes_of, pole_model
from tests.dots import POLE, DotNet, dot_model, draw_poles, write_poles

RNG = np.random.default_rng(1)
POLES = [(40.0, 30.0, 80.0), (120.25, 60.5, 130.0)]
SIZE = (160, 200)


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    monkeypatch.setitem(NETWORKS, "PoleNet", PoleNet)
    monkeypatch.setitem(NETWORKS, "DotNet", DotNet)


def places(people) -> list[list[float]]:
    """[x, top, bottom] of everybody, from left to right."""
    return sorted([x, top, bottom] for (x, top, _), (_, bottom, _) in people.keypoints.tolist())


def drawn(poles) -> np.ndarray:
    return draw_poles(SIZE, poles, margin=16)  # the stripe must not push the ends outwards


@pytest.mark.parametrize("flip_test", [False, True])
def test_people_are_in_pixels_of_the_picture(flip_test):
    boxes = boxes_of(POLES, 0.5)
    predictor = Predictor(pole_model(), detector=Given(boxes), flip_test=flip_test)
    (people,) = predictor([drawn(POLES)])
    assert np.allclose(places(people), POLES, atol=0.1)
    assert {tuple(box) for box in people.boxes} == {tuple(box) for box in boxes[:, :4]}
    assert np.allclose(people.scores, 0.5 * people.keypoints[..., 2].mean(axis=1))
    fitted = predictor.fit(drawn(POLES), boxes)
    assert [pixels.shape for pixels in fitted.inputs] == [(128, 96, 3)] * 2 and fitted.size == SIZE


@pytest.mark.parametrize("cells", ["centres", "first", "ends"])
def test_crops_lie_as_the_codec_says(cells):
    fitted = Predictor(pole_model(cells=cells), detector=Given(boxes_of(POLES))).fit(drawn(POLES))
    assert np.allclose(fitted.affines[1], box_affine(boxes_of(POLES)[1], (128, 96), 1.25, cells=cells))


def test_the_padding_of_the_training_is_that_of_the_prediction():
    predictor = Predictor(pole_model(info={"box_padding": 1.5}), detector="whole")
    assert np.allclose(predictor.fit(drawn([])).affines[0], box_affine((0, 0, 200, 160), (128, 96), 1.5))


def test_crops_of_several_pictures_go_together_and_nobody_is_mixed_up(monkeypatch):
    pictures, boxes = [], []
    for count in (2, 0, 1, 40, 3):
        poles = [(x, *y) for x, y in zip(RNG.uniform(20, 180, count), RNG.uniform((20, 80), (60, 140), (count, 2)))]
        pictures.append(drawn(poles))
        boxes.append(boxes_of(poles))
    predictor = Predictor(pole_model(), detector="whole")
    batch = [predictor.fit(picture, where) for picture, where in zip(pictures, boxes)]
    sizes, run = [], predictor._network
    monkeypatch.setattr(predictor, "_network", lambda images: sizes.append(len(images)) or run(images))
    together = predictor.answers(batch)
    assert sizes == [32, 14] and [len(answer) for answer in together] == [2, 0, 1, 40, 3]
    for fitted, answer in zip(batch, together):
        (alone,) = predictor.answers([fitted])
        a, b = predictor.people(answer, fitted), predictor.people(alone, fitted)
        assert np.allclose(a.keypoints, b.keypoints, atol=1e-3) and len(a) <= len(fitted.boxes)
    nobody = predictor.people(together[1], batch[1])
    assert nobody.keypoints.shape == (0, 2, 3) and nobody.boxes.shape == (0, 4)


def test_pictures_are_given_to_the_detector_with_their_files(tmp_path):
    image = drawn(POLES)
    cv2.imwrite(str(tmp_path / "a.png"), image[..., ::-1])
    detector = Given({"a.png": boxes_of(POLES[:1])})
    predictor = Predictor(pole_model(), detector=detector)
    (people,) = predictor([tmp_path / "a.png"])
    assert len(people) == 1 and np.array_equal(predictor.detect(image, tmp_path / "a.png"), boxes_of(POLES[:1]))
    assert len(predictor.fit(str(tmp_path / "a.png")).inputs) == 1 and detector.calls == 3


def test_a_crop_is_the_part_of_the_picture_and_black_beyond():
    image = RNG.integers(0, 256, (90, 120, 3)).astype(np.uint8)
    for box in ((20, 20, 30, 50), (-30, 60, 60, 60), (-100, -100, 400, 400), (100, 10, 80, 10)):
        pixels, affine = fit_box(image, np.array(box), (64, 48), 1.25, "centres")
        assert np.array_equal(affine, box_affine(box, (64, 48)))
        if affine[0, 0] > 0.5:  # smaller ones are averaged first
            assert np.abs(pixels.astype(int) - warp(image, affine, (64, 48))).max() <= 3
    assert not fit_box(image, np.array([500, 500, 9, 9]), (64, 48), 1.25, "centres")[0].any()
    large = RNG.integers(0, 256, (1200, 1200, 3)).astype(np.uint8)
    noise = fit_box(large, np.array([0, 0, 1200, 1200]), (64, 64), 1, "centres")[0]
    assert abs(noise.mean() - 127) < 2 and noise.std() < 15, "a large picture is averaged, not picked apart"


def test_the_same_person_found_twice_stays_once():
    boxes = np.concatenate([boxes_of(POLES, 0.6), boxes_of(POLES[:1], 0.9) + np.float32([2, 1, 0, 3, 0])])
    (people,) = Predictor(pole_model(), detector=Given(boxes))([drawn(POLES)])
    assert np.allclose(places(people), POLES, atol=0.3)
    assert np.array_equal(people.boxes[0], boxes[2, :4]) and (np.diff(people.scores) <= 0).all()


def test_suppression_is_greedy_by_oks():
    keypoints = RNG.uniform(0, 100, (4, 1, 17, 2)) + RNG.normal(0, 0.8, (4, 5, 17, 2))
    keypoints, scores = keypoints.reshape(20, 17, 2), RNG.uniform(size=20)
    areas, sigmas = RNG.uniform(2000, 4000, 20), np.array(COCO17.sigmas)
    visible = np.concatenate([keypoints, np.ones((20, 17, 1))], axis=2)
    expected, left = [], np.argsort(-scores).tolist()
    while left:
        best = left.pop(0)
        expected.append(best)
        left = [i for i in left if oks(visible[[i]], visible[[best]], [(areas[i] + areas[best]) / 2], sigmas)[0, 0] <= 0.9]
    kept = suppressed(keypoints, scores, areas, sigmas)
    assert kept.tolist() == expected and 4 <= len(kept) < 20
    assert suppressed(keypoints[:0], scores[:0], areas[:0], sigmas).tolist() == []


def test_boxes_around_people():
    keypoints = np.array([[[10, 20, 0.9], [30, 60, 0.8]], [[5, 5, 0.9], [9, 9, 0.01]], [[0, 0, 0], [0, 0, 0]]])
    boxes = boxes_of_people(People(keypoints, np.array([0.7, 0.6, 0])), 0.1)
    assert np.allclose(boxes, [[10.5 - 2.5, 20.5 - 5, 25, 50, 0.7]])


def test_senseless_combinations_are_refused():
    with pytest.raises(ValueError, match="needs a detector that says where people are; give the .onnx file of a YOLO, .*truth=FILE.json"):
        Predictor(pole_model())
    with pytest.raises(ValueError, match="finds all people of a picture by itself: leave the detector out"):
        Predictor(dot_model(), detector="whole")
    for options in ({"scales": (1, 2)}, {"fit": "short"}, {"maps_at": "pixels"}):
        with pytest.raises(ValueError, match="top-down model.*leave out scales"):
            Predictor(pole_model(), detector="whole", **options)
    with pytest.raises(ValueError, match="boxes are for a top-down model"):
        Predictor(dot_model()).fit(drawn([]), boxes_of(POLES))
    for wrong in (boxes_of(POLES)[:, :4], boxes_of(POLES) * np.nan, np.zeros(5)):
        with pytest.raises(ValueError, match=r"boxes are finite numbers \(P, 5\)"):
            Predictor(pole_model(), detector="whole").fit(drawn([]), wrong)


def test_detectors_by_name(tmp_path):
    assert isinstance(detector_named("whole"), WholeImage)
    with pytest.raises(ValueError, match="'hole' is no detector"):
        detector_named("hole")
    with pytest.raises(ValueError, match=r"say which one, truth=FILE\.json"):
        detector_named("truth")
    with pytest.raises(FileNotFoundError, match=r"no model .*none.safetensors"):
        detector_named(tmp_path / "none.safetensors")
    save_model(tmp_path / "dots.safetensors", dot_model((160, 224)))
    save_model(tmp_path / "poles.safetensors", pole_model())
    detector = detector_named(tmp_path / "dots.safetensors", threshold=0.2)
    assert isinstance(detector, PoseDetector) and detector.name == "dots"
    boxes = detector(drawn(POLES))
    assert boxes.shape == (2, 5) and (np.diff(boxes[:, 4]) <= 0).all()
    with pytest.raises(ValueError, match="poles.safetensors reads one person at a time and needs a detector"):
        detector_named(tmp_path / "poles.safetensors")
    # a bottom-up model finds where people are, a top-down one who they are
    (people,) = Predictor(tmp_path / "poles.safetensors", detector=tmp_path / "dots.safetensors")([drawn(POLES)])
    assert np.allclose(places(people), POLES, atol=0.5)
    assert len(detector_named(tmp_path / "dots.safetensors", threshold=1)(drawn(POLES))) == 0


def test_boxes_that_another_program_found(tmp_path):
    poles = write_poles(tmp_path / "set", 4)
    truth = json.loads((poles / "poles.json").read_text())["annotations"]
    rows = [{"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 0.1 + 0.01 * a["id"]} for a in truth]
    rows += [{**rows[0], "category_id": 3}, {**rows[0], "image_id": 99}]
    (tmp_path / "found.json").write_text(json.dumps(rows))
    detector = detector_named(tmp_path / "found.json", annotations=poles / "poles.json")
    for i in range(4):
        boxes = detector(read_image(poles / f"images/{i}.png"), poles / f"images/{i}.png")
        expected = sorted(([*a["bbox"], 0.1 + 0.01 * a["id"]] for a in truth if a["image_id"] == i), key=lambda b: -b[4])
        assert np.allclose(boxes, expected)
    report = evaluate(Predictor(pole_model(), detector=detector), poles / "poles.json", poles / "images")
    assert "boxes of found (AP 1.000)" in report.rules() and report.metrics["AP"] > 0.9
    for content, error in (("[{}]", "no COCO results of boxes: .*image_id"), (json.dumps(rows[-2:]), "none of its 2 boxes")):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ValueError, match=error):
            detector_named(tmp_path / "bad.json", annotations=poles / "poles.json")
    with pytest.raises(ValueError, match=r"found\.json: .* those of a data set, to be evaluated"):
        detector_named(tmp_path / "found.json")


class Walk:
    """A source of a pole that walks to the right."""

    name, kind, length, rate, damage = "walk", "video", 12, 25.0, None

    def frames(self, start=0, stop=None):
        for i in range(start, stop or self.length):
            yield type("Frame", (), {"index": i, "time": i / 25, "image": drawn([(30 + 3 * i, 30, 120)])})


@pytest.mark.parametrize("overlap", [False, True])
def test_a_detector_need_not_look_at_every_frame(overlap):
    for every, calls in ((1, 12), (4, 3), (100, 1)):
        detector = Given(boxes_of([(30, 30, 120)], 0.8))  # right in the first frame only
        if every == 1:
            detector.boxes = boxes_of([(45, 30, 120)], 0.8) + np.float32([-30, 0, 60, 0, 0])
        predictor = Predictor(pole_model(), detector=detector)
        for seen in watch(predictor, Walk(), overlap=overlap, detect_every=every):
            assert np.allclose(places(seen.people), [[30 + 3 * seen.index, 30, 120]], atol=0.6) or seen.index % every == 0
            assert seen.people.scores[0] == pytest.approx(0.8 * seen.people.keypoints[0, :, 2].mean())
            assert ("detect" in seen.seconds) == (seen.index % every == 0)
        assert detector.calls == calls


def test_who_is_lost_is_looked_for_at_once():
    detector = Given(boxes_of([(150, 30, 120)]))
    predictor = Predictor(pole_model(), detector=detector)
    assert len(list(watch(predictor, Walk(), stop=5, detect_every=50))) == 5 and detector.calls == 5
    with pytest.raises(ValueError, match="detect_every is 0; it counts frames"):
        next(watch(predictor, Walk(), detect_every=0))
    with pytest.raises(ValueError, match="only a top-down model has a detector"):
        next(watch(Predictor(dot_model()), Walk(), detect_every=2))


def test_heatmaps_of_crops_are_drawn_where_they_were_found():
    predictor = Predictor(pole_model(), detector=Given(boxes_of(POLES)))
    fitted = predictor.fit(drawn(POLES))
    answers = predictor.answers([fitted])[0]
    maps = predictor.on_picture("heatmaps", answers, fitted)
    assert maps.shape == (2, 40, 50)
    for x, top, _ in POLES:
        assert maps[0, round((top - 1.5) / 4), round((x - 1.5) / 4)] > 0.6
    assert maps[0, 20, 45] == 0, "outside the crops"
    seen = next(watch(predictor, Walk(), stop=1))
    assert set(Painter(predictor, ("connections", "heatmaps"))(seen)) == {"connections", "heatmaps"}
    nobody = Predictor(pole_model(), detector=Given(boxes_of([])))
    assert Painter(nobody, ("heatmaps",))(next(watch(nobody, Walk(), stop=1)))["heatmaps"].any()


def test_the_live_view_shows_crops():
    pictures = [drawn(POLES), drawn(POLES[:1])]
    view = LiveView(Predictor(pole_model(), detector=Given(boxes_of(POLES))), pictures)
    assert view.step() and len(view.people) == 2 and "detect" in view.times.median
    plain = view.frame.copy()
    view.layer.value = "heatmaps"
    assert (view.frame != plain).any()
    assert view.step() and len(view.people) == 2 and not view.step()
    view.stop()


def test_a_skeleton_of_one_keypoint():
    one = Skeleton("dot", ("top",), (), (), (0.05,))
    codec = HeatmapCodec(one)
    maps = np.zeros((1, 32, 24), np.float32)
    maps[0, 10, 8] = 1
    predictor = Predictor(pole_model(), detector="whole")
    predictor.codec, predictor.skeleton = codec, one
    fitted = predictor.fit(drawn([]))
    people = predictor.people([{"heatmaps": maps}], fitted)
    assert people.keypoints.shape == (1, 1, 3) and len(boxes_of_people(people, 0.1)) == 0


def test_evaluation_says_whose_boxes(tmp_path):
    poles = write_poles(tmp_path / "set", 6)
    annotations, images = poles / "poles.json", poles / "images"
    report = evaluate(Predictor(pole_model(), detector=TruthBoxes(annotations)), annotations, images)
    assert report.metrics["AP"] > 0.95 and "ground-truth boxes" in report.rules()
    assert report.run_card["detector"] == {"name": "truth", "licence": None, "threshold": None}
    assert report.config["detector"] == "truth"
    report = evaluate(Predictor(pole_model(), detector=Given(boxes_of(POLES, 0.1))), annotations, images, limit=3)
    assert "boxes of given (AP 0.000)" in report.rules() and report.run_card["detector"]["boxes"]["AP50"] < 0.5
    assert report.run_card["detector"]["licence"] == "ours"
    save_model(tmp_path / "poles.safetensors", pole_model())
    evaluate_command(tmp_path / "poles.safetensors", annotations=annotations, images=images, detector="truth",
                     out_dir=str(tmp_path / "out"))  # fmt: skip
    assert json.loads((tmp_path / "out" / "run_card.json").read_text())["detector"]["name"] == "truth"
    assert "detector: truth" in (tmp_path / "out" / "config.yaml").read_text()
    with pytest.raises(ValueError, match="needs a detector"):
        evaluate_command(tmp_path / "poles.safetensors", annotations=annotations, images=images)


def test_the_predict_command(tmp_path, capsys):
    poles = write_poles(tmp_path / "set", 3)
    save_model(tmp_path / "poles.safetensors", pole_model())
    model, out = str(tmp_path / "poles.safetensors"), str(tmp_path / "out")
    main([str(poles / "images"), "--model", model, "--out", out, f"--detector=truth={poles / 'poles.json'}"])
    truth = json.loads((poles / "poles.json").read_text())["annotations"]
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(found) == len(truth)
    assert "detect" in capsys.readouterr().out
    assert POLE.name == "pole"
