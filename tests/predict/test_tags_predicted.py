"""Predicting with heatmaps and tags at several resolutions: fits, scales, mirror, files, and the published settings."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from lib.checkpoints import save_model
from lib.codecs.tags_decode import PUBLISHED_TAGS
from lib.export import export_onnx
from lib.models import NETWORKS
from lib.people import apply_affine
from lib.predict import Predictor
from lib.predict.fitting import fit_short, maps_at_pixels
from lib.predict.live import LiveView, stop_all
from lib.predict.published import check_published, published_predictor, published_rules
from tests.dots import dot_model, draw_poles, write_poles
from tests.tag_dots import TagDots, tag_model

SCALES = (0.5, 1.0, 2.0)


@pytest.fixture(autouse=True)
def tag_dots(monkeypatch):
    monkeypatch.setitem(NETWORKS, "TagDots", TagDots)


def places(people) -> list[list[float]]:
    return sorted([x, top, bottom] for (x, top, _), (_, bottom, _) in people.keypoints.tolist())


@pytest.mark.parametrize("options", [
    {}, {"flip_test": True}, {"scales": SCALES}, {"scales": (0.5, 2)}, {"maps_at": "image"}, {"maps_at": "pixels"},
    {"fit": "short"}, {"fit": "short", "scales": (0.7, 1.0), "flip_test": True}, {"maps_at": "image", "scales": SCALES},
    {"fit": "short", "scales": SCALES, "maps_at": "pixels", "flip_test": True},
])  # fmt: skip
@pytest.mark.parametrize("size", [(96, 128), (130, 260), (150, 120)])
def test_people_are_found_where_they_are(options, size):
    poles = [(0.3 * size[1], 0.2 * size[0], 0.8 * size[0]), (0.7 * size[1], 0.3 * size[0], 0.7 * size[0])]
    (people,) = Predictor(tag_model(), **options)([draw_poles(size, poles)])
    assert len(people) == 2
    assert np.allclose(places(people), poles, atol=1.5)


def test_the_mirror_gives_tags_a_second_number_and_a_scale_keeps_its_own():
    image = draw_poles((96, 128), [(40, 20, 80)])
    predictor = Predictor(tag_model(), flip_test=True, scales=SCALES)
    fitted = predictor.fit(image)
    (answers,) = predictor.answers([fitted])
    plain, mirrored = (Predictor(tag_model(), scales=SCALES).answers([predictor.fit(x)])[0][1]
                       for x in (image, np.ascontiguousarray(image[:, ::-1])))  # fmt: skip
    for maps in answers:
        assert len(maps["tags"]) == 4 and len(maps["heatmaps"]) == len(maps["heatmaps_fine"]) == 2
    back = predictor.codec.flip(mirrored)
    np.testing.assert_array_equal(answers[1]["tags"], np.concatenate([plain["tags"], back["tags"]]))
    np.testing.assert_allclose(answers[1]["heatmaps_fine"], (plain["heatmaps_fine"] + back["heatmaps_fine"]) / 2, atol=1e-6)
    seen = {}
    predictor.codec = Spy(seen)
    predictor.people(answers, fitted)
    assert seen["tags"] is answers[1]["tags"]
    for name in ("heatmaps", "heatmaps_fine"):  # the mean of three, and not one of them
        assert seen[name].shape == answers[1][name].shape
        assert 0.02 < np.abs(seen[name] - answers[1][name]).max() < 0.6


class Spy:
    """A codec that keeps the maps."""

    stride, strides, own_scale = 4, {"heatmaps": 4, "heatmaps_fine": 2, "tags": 4}, ("tags",)

    def __init__(self, seen):
        self.seen = seen

    def decode(self, maps):
        self.seen.update(maps)
        return tag_model().codec.decode(maps)


@pytest.mark.parametrize(("size", "side", "expected"), [
    ((480, 640), 512, {0.5: (256, 384), 1.0: (512, 768), 2.0: (1024, 1536)}),
    ((480, 640), 512, {1.0: (512, 704)}), ((640, 427), 512, {1.0: (768, 512)}), ((500, 500), 640, {1.0: (640, 640)}),
    ((333, 334), 100, {1.0: (128, 128)}), ((600, 427), 512, {0.5: (384, 256), 1.0: (768, 512)}),
    ((480, 640), 512, {0.7: (384, 512), 1.0: (576, 736)}),
])  # fmt: skip
def test_fitted_by_its_shorter_side(size, side, expected):
    """The sizes are those of the original; 548×731 for scale 1 beside 0.7, which a network cannot take, is rounded up."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for scale, shape in expected.items():
        pixels, affine = fit_short(image, side, scale, min(expected), 32, averaged=False)
        assert pixels.shape == (*shape, 3) and pixels.dtype == np.uint8
        assert affine[0, 0] == affine[1, 1] == pytest.approx(min(shape) / min(size))
        middle = [(size[1] + 1) // 2, (size[0] + 1) // 2]
        assert apply_affine(affine, np.array([middle], float))[0] == pytest.approx([shape[1] / 2, shape[0] / 2])
        # three pairs of points, as the original makes its affine
        corners = np.float32([middle, [middle[0], middle[1] - size[1] / 2], [middle[0] - size[1] / 2, middle[1]]])
        targets = apply_affine(affine, corners.astype(float)).astype(np.float32)
        theirs = cv2.warpAffine(image, cv2.getAffineTransform(corners, targets), shape[::-1], flags=cv2.INTER_LINEAR)
        assert np.abs(pixels.astype(int) - theirs).mean() < 0.1


def test_a_picture_far_too_large_is_averaged_unless_published():
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    ours, published = (Predictor(tag_model((128, 128)), fit="short", maps_at=at).fit(image).inputs[0]
                       for at in ("input", "pixels"))  # fmt: skip
    assert ours.shape == published.shape == (128, 128, 3) and ours.std() < 0.5 * published.std()


def test_maps_at_the_inputs_pixels_are_the_published_sum():
    rng = np.random.default_rng(1)
    shapes = [(12, 16), (24, 32), (48, 64)]
    answers = [{"heatmaps": rng.random((2, h, w), np.float32), "tags": rng.random((4, h, w), np.float32),
                "heatmaps_fine": rng.random((2, 2 * h, 2 * w), np.float32)} for h, w in shapes]  # fmt: skip
    ours = maps_at_pixels(answers, 1, (96, 128), ("tags",))

    def large(values, size):
        return interpolate(torch.from_numpy(values)[None], size=size, mode="bilinear", align_corners=False)[0].numpy()

    total = 0
    for maps in answers[::-1]:
        fine = maps["heatmaps_fine"]
        total = total + large((large(maps["heatmaps"], fine.shape[1:]) + fine) / 2, (96, 128))
    np.testing.assert_allclose((ours["heatmaps"] + ours["heatmaps_fine"]) / 2, total / 3, atol=1e-5)
    np.testing.assert_allclose(ours["tags"], large(large(answers[1]["tags"], (48, 64)), (96, 128)), atol=1e-5)
    with pytest.raises(ValueError, match="same proportions.*12×16, 20×32 cells"):
        maps_at_pixels([answers[0], {"heatmaps": np.zeros((2, 20, 32), np.float32)}], 0, (48, 64))


def test_with_one_scale_the_decoder_alone_does_what_is_published():
    poles = [(40, 20, 80), (90, 30, 70)]
    image = draw_poles((96, 128), poles)
    whole = published_predictor(tag_model())
    alone = Predictor(tag_model(), fit="short", codec_options=PUBLISHED_TAGS)
    (a,), (b,) = whole([image]), alone([image])
    assert len(a) == 2 and np.allclose(places(a), poles, atol=1.5)
    np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-4)


def test_published_rules_are_two_for_tags():
    higher = published_predictor(tag_model(), scales=SCALES, flip_test=True, input_size=(160, 160))
    assert (higher.fit_to, higher.maps_at, higher.input_size, higher.codec.tag_threshold) == ("short", "pixels", (160, 160), 1.0)
    assert check_published(higher, "all").of == "HigherHRNet"
    thawro = published_predictor(tag_model(), protocol="with_people")
    assert (thawro.maps_at, thawro.codec.detection_threshold, thawro.codec.tag_threshold) == ("input", 0.05, 0.5)
    assert check_published(thawro, "with_people").of == "pytorch-human-pose"
    for predictor, protocol in ((higher, "with_people"), (thawro, "all"), (Predictor(tag_model()), "all")):
        with pytest.raises(ValueError, match="one scale|does not follow"):
            check_published(predictor, protocol)
    with pytest.raises(ValueError, match="have one scale, not 0.5 1 2"):
        published_predictor(tag_model(), protocol="with_people", scales=SCALES)
    with pytest.raises(ValueError, match="old_decoder is Lightweight OpenPose's"):
        published_predictor(tag_model(), old_decoder=True)
    with pytest.raises(ValueError, match="368×368 only"):
        published_predictor(dot_model(), input_size=(512, 512))
    assert not dataclasses.asdict(published_rules(tag_model().codec))["half_pixel"], "the decoder adds it"


def test_a_file_and_an_exported_file_find_the_same(tmp_path):
    file = save_model(tmp_path / "tags.safetensors", tag_model(detection_threshold=0.2))
    export_onnx(file, tmp_path / "tags.onnx", data_dir=write_poles(tmp_path / "poles", 4))
    image = draw_poles((96, 128), [(40, 20, 80), (90, 30, 70)])
    for options in ({}, {"flip_test": True}):
        own, exported = (Predictor(tmp_path / name, **options) for name in ("tags.safetensors", "tags.onnx"))
        assert own.codec == exported.codec and own.codec.detection_threshold == 0.2
        (a,), (b,) = own([image]), exported([image])
        assert len(a) == 2
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-3)
    with pytest.raises(ValueError, match="fit='short' and other scales than 1 need a network of free size"):
        Predictor(tmp_path / "tags.onnx", fit="short")


def test_the_live_view_has_sliders_and_a_layer_for_tags():
    view = LiveView(Predictor(tag_model()), [draw_poles((96, 128), [(40, 20, 80), (90, 30, 70)])])
    try:
        assert view.layer.options == ("picture", "heatmaps", "tags") and view.step() and len(view.people) == 2
        before = view.frame
        view.layer.value = "tags"
        assert (view.frame != before).any()
        view.detection_threshold.value = 1.0
        assert len(view.people) == 0 and view.error is None
        assert view.tag_threshold.max == 2
    finally:
        stop_all()
