"""Fitting: where a pixel goes, and that maps of several scales and of the picture's size lie where the picture is."""

import math

import cv2
import numpy as np
import pytest
import torch

from lib.codecs.paf import PafCodec
from lib.data.augment import fit_affine, reduced_affine, warp
from lib.models import NETWORKS
from lib.people import apply_affine, cells_to_pixels, invert_affine
from lib.predict import Predictor
from lib.predict.fitting import GREY, fit_height, fit_model, maps_at_image, maps_at_input
from lib.runtime import TorchNetwork
from lib.skeleton import Skeleton
from tests.dots import DotNet, dot_model, draw_poles

PUBLISHED_SCALES = (0.5, 1.0, 1.5, 2.0)


@pytest.fixture(autouse=True)
def dot_net(monkeypatch):
    monkeypatch.setitem(NETWORKS, "DotNet", DotNet)


def places(people) -> list[list[float]]:
    return sorted([x, top, bottom] for (x, top, _), (_, bottom, _) in people.keypoints.tolist())


def ramps(affine: np.ndarray, shape: tuple[int, int], stride: int) -> np.ndarray:
    """(2, h, w) maps whose values are the x and y of the original at each cell."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    pixels = cells_to_pixels(np.stack([x, y], -1).astype(float), stride)
    return apply_affine(invert_affine(affine), pixels).transpose(2, 0, 1).astype(np.float32)


def test_a_large_picture_is_averaged_and_not_skipped():
    image = np.random.default_rng(0).integers(0, 255, (540, 959, 3), np.uint8)
    pixels, affine = fit_model(image, (64, 116), True)
    assert np.array_equal(affine, fit_affine(image.shape[:2], (64, 116)))
    padded = cv2.copyMakeBorder(image, 0, 4, 0, 1, cv2.BORDER_REPLICATE)
    small = cv2.resize(padded, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    assert np.abs(pixels.astype(int) - warp(small, reduced_affine(affine, 8), (64, 116))).max() <= 2  # rounded thrice
    assert pixels[:, 10:-10].std() < 20 < image.std()


@pytest.mark.parametrize("size", [(100, 220), (220, 100), (37, 500), (400, 301)])
@pytest.mark.parametrize("scale", PUBLISHED_SCALES)
def test_fitted_by_its_height(size, scale):
    image = np.full((*size, 3), 200, np.uint8)
    pixels, affine = fit_height(image, (96, 128), scale, 32)
    pixels = pixels.round()  # floats, which the weights of the cubic kernel do not quite bring to 200
    height, width = round(96 * scale), round(96 * scale / size[0] * size[1])
    expected = [-(-max(side, least) // 32) * 32 for side, least in ((height, 96), (width, 128))]
    assert list(pixels.shape[:2]) == expected
    top, left = (expected[0] - height) // 2, (expected[1] - width) // 2
    assert (pixels[top : top + height, left : left + width] == 200).all()
    assert (pixels == 200).all(-1).sum() == height * width and (pixels[(pixels != 200).any(-1)] == GREY).all()
    corners = apply_affine(affine, np.array([[-0.5, -0.5], [size[1] - 0.5, size[0] - 0.5]]))
    assert np.allclose(corners, [[left - 0.5, top - 0.5], [left + width - 0.5, top + height - 0.5]], atol=0.51)


@pytest.mark.parametrize("keep", [True, False])
def test_maps_are_brought_to_the_picture_exactly(keep):
    size, stride = (90, 130), 4
    affines = [fit_affine(size, input_size, keep) for input_size in ((96, 128), (64, 64))]
    answers = [{"ramps": ramps(a, (h, w), stride)} for a, (h, w) in zip(affines, ((24, 32), (16, 16)))]
    x, y = maps_at_image(answers, affines, size, {"ramps": stride})["ramps"]
    at_y, at_x = np.mgrid[: size[0], : size[1]]
    inside = (slice(14, -14), slice(14, -14))  # the outermost cells' centres lie inside the picture
    # OpenCV's cubic kernel bends a slope by a twentieth of a cell
    assert np.abs(x - at_x)[inside].max() < 0.3 and np.abs(y - at_y)[inside].max() < 0.3
    assert abs((x - at_x)[inside].mean()) < 0.01 and abs((y - at_y)[inside].mean()) < 0.01


def test_the_published_way_to_the_picture():
    """Enlarged by the stride, cut out, and stretched, written once more without its helpers."""
    image = np.zeros((75, 140, 3), np.uint8)
    pixels, affine = fit_height(image, (96, 128), 1.0, 8)
    maps = np.random.default_rng(0).random((3, pixels.shape[0] // 8, pixels.shape[1] // 8), np.float32)
    ours = maps_at_image([{"maps": maps}], [affine], (75, 140), {"maps": 8}, published=True)["maps"]
    width = round(140 * 96 / 75)
    left = (pixels.shape[1] - width) // 2
    large = cv2.resize(maps.transpose(1, 2, 0), None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    theirs = cv2.resize(large[:, left : left + width], (140, 75), interpolation=cv2.INTER_CUBIC)
    assert np.allclose(ours, theirs.transpose(2, 0, 1), atol=1e-5)


def test_maps_of_several_scales_lie_on_those_of_the_first():
    size, stride = (90, 130), 4
    sizes = ((96, 128), (48, 64), (192, 256))
    affines = [fit_affine(size, input_size) for input_size in sizes]
    answers = [{"ramps": ramps(a, (h // stride, w // stride), stride)} for a, (h, w) in zip(affines, sizes)]
    mean = maps_at_input(answers, affines, 0, {"ramps": stride})["ramps"]
    assert np.abs(mean - answers[0]["ramps"])[:, 2:-2, 2:-2].max() < 0.3
    assert maps_at_input(answers[:1], affines[:1], 0, {"ramps": stride}) is answers[0]


@pytest.mark.parametrize("options", [
    {}, {"fit": "height"}, {"scales": PUBLISHED_SCALES}, {"scales": (0.5, 2)}, {"maps_at": "image"},
    {"fit": "height", "scales": PUBLISHED_SCALES, "maps_at": "image", "flip_test": True},
])  # fmt: skip
@pytest.mark.parametrize("size", [(96, 128), (150, 160), (130, 260)])
def test_people_are_found_where_they_are(options, size):
    poles = [(0.3 * size[1], 0.2 * size[0], 0.8 * size[0]), (0.7 * size[1], 0.3 * size[0], 0.7 * size[0])]
    (people,) = Predictor(dot_model((96, 128)), **options)([draw_poles(size, poles)])
    assert len(people) == 2
    assert np.allclose(places(people), poles, atol=1.5)


def test_pictures_of_many_shapes_go_through_in_one_call():
    predictor = Predictor(dot_model(), fit="height")
    images = [draw_poles(size, [(40, 20, 70)]) for size in ((96, 128), (96, 300), (90, 100), (96, 300))]
    shapes = {predictor.fit(image).inputs[0].shape for image in images}
    assert len(shapes) == 2
    for people, image in zip(predictor(images, batch_size=4), images):
        assert np.array_equal(people.keypoints, predictor([image])[0].keypoints) and len(people) == 1


def test_options_that_cannot_be(monkeypatch):
    for options, message in (({"fit": "width"}, "fit is 'width'"), ({"maps_at": "output"}, "maps_at is 'output'"),
                             ({"scales": ()}, "at least one"), ({"scales": (1, 0)}, "above 0"),
                             ({"scales": (50, 100)}, "at most 8"), ({"scales": (math.nan,)}, "above 0")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Predictor(dot_model(), **options)

    class Fixed(TorchNetwork):
        """Like an exported file, it says nothing about other sizes."""

        input_multiple = property(lambda self: None, lambda self, value: None)

    monkeypatch.setattr("lib.runtime.TorchNetwork", Fixed)
    Predictor(dot_model(), maps_at="image")
    for options in ({"fit": "height"}, {"scales": (1, 2)}):
        with pytest.raises(ValueError, match="has the size 96×128 fixed"):
            Predictor(dot_model(), **options)


def test_fields_beside_the_heatmaps_are_read_where_they_lie_at_any_resolution():
    people = torch.tensor([[[40.0, 30, 2], [40, 90, 2]]])[None]
    stick = Skeleton("stick", ("a", "b"), ((0, 1),), (), (0.05, 0.05))
    codec = PafCodec(stick, stride=8, sigma=7, gaussian_factor=2, paf_half_width=1, paf_offset=0.4375, min_parts=2)
    maps = {name: m[0].numpy() for name, m in codec.encode(people, None, (128, 128)).items() if name != "mask"}
    for factor in (1.0, 0.5):  # the picture as large as the input, and twice as large
        affine = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2]])
        size = (round(128 / factor),) * 2
        enlarged = codec.at_pixels(8 / factor)
        assert enlarged.paf_offset == pytest.approx(3.5 / factor) and enlarged.stride == 1
        (found,) = enlarged.decode(maps_at_image([maps], [affine], size, codec.strides)).warped(affine).keypoints
        assert np.abs(found[:, :2] - people[0, 0, :, :2].numpy()).max() < 1
