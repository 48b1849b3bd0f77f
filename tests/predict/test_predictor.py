"""Prediction: people arrive in pixels of the original image, from a checkpoint and from memory, and bad input is named."""

import cv2
import numpy as np
import pytest
import torch

from lib.checkpoints import save_model
from lib.codecs.paf import PafCodec
from lib.models import NETWORKS
from lib.predict import Predictor
from lib.skeleton import COCO18_NECK, Skeleton
from tests.dots import POLE, DotNet, dot_model, draw_poles


@pytest.fixture(autouse=True)
def dot_net(monkeypatch):
    monkeypatch.setitem(NETWORKS, "DotNet", DotNet)


def places(people) -> list[list[float]]:
    """[x, top, bottom] of everybody, from left to right."""
    return sorted([x, top, bottom] for (x, top, _), (_, bottom, _) in people.keypoints.tolist())


@pytest.mark.parametrize("size", [(96, 128), (80, 200), (200, 90), (300, 400)])
def test_people_are_in_pixels_of_the_original_image(size):
    height, width = size
    poles = [(0.2 * width, 0.2 * height, 0.8 * height), (0.7 * width, 0.3 * height, 0.7 * height)]
    # the drawn dots grow with the picture, as they would in a photograph
    image = cv2.resize(draw_poles((200, 280), [(0.2 * 280, 40, 160), (0.7 * 280, 60, 140)]), (width, height))
    (people,) = Predictor(dot_model((192, 256)))([image])
    assert len(people) == 2 and people.scores.min() > 0.3
    assert np.allclose(places(people), poles, atol=0.011 * max(size))


def test_a_stretching_model_maps_back_too():
    model = dot_model((192, 256))
    model.keep_aspect_ratio = False
    (people,) = Predictor(model)([draw_poles((120, 240), [(60, 30, 90)])])
    assert np.allclose(places(people), [[60, 30, 90]], atol=1)


def test_a_checkpoint_predicts_like_the_model_it_was_saved_from(tmp_path):
    save_model(tmp_path / "dots.safetensors", dot_model(peak_threshold=0.3))
    images = [draw_poles((96, 128), [(30 + i, 20, 80)]) for i in range(5)]
    file, memory = Predictor(tmp_path / "dots.safetensors"), Predictor(dot_model(peak_threshold=0.3))
    for a, b in zip(file(images, batch_size=2), memory(images, batch_size=5)):
        assert np.array_equal(a.keypoints, b.keypoints) and len(a) == 1
    assert file.codec.peak_threshold == 0.3 and file.skeleton == POLE and file.input_size == (96, 128)
    assert file.provider == "torch cpu" and file.source == tmp_path / "dots.safetensors"


def test_paths_arrays_and_nobody(tmp_path):
    image = draw_poles((96, 128), [(64, 20, 80)])
    cv2.imwrite(str(tmp_path / "pole.png"), image[..., ::-1])
    found = Predictor(dot_model())([tmp_path / "pole.png", str(tmp_path / "pole.png"), image, np.zeros_like(image)])
    assert [len(people) for people in found] == [1, 1, 1, 0]
    assert np.array_equal(found[0].keypoints, found[2].keypoints)
    assert Predictor(dot_model())([]) == []


def test_codec_options_can_be_changed_and_misspelt():
    image = draw_poles((96, 128), [(64, 20, 80)])
    assert len(Predictor(dot_model(), codec_options={"peak_threshold": 0.999})([image])[0]) == 0
    with pytest.raises(ValueError, match="no option 'peak_treshold'; did you mean 'peak_threshold'"):
        Predictor(dot_model(), codec_options={"peak_treshold": 0.5})
    with pytest.raises(ValueError, match="have the stride 4; people read with the stride 8"):
        Predictor(dot_model(), codec_options={"stride": 8})


def test_bf16_and_another_input_size():
    image = draw_poles((96, 128), [(64, 20, 80)])
    half = Predictor(dot_model(), precision="bf16")
    assert half.provider == "torch cpu bf16"
    assert np.allclose(places(half([image])[0]), [[64, 20, 80]], atol=1)
    large = Predictor(dot_model(), input_size=(192, 256))
    assert large.input_size == (192, 256) and large.metadata["input_size"] == [192, 256]
    assert np.allclose(places(large([image])[0]), [[64, 20, 80]], atol=0.5)
    with pytest.raises(ValueError, match="multiples of 32.*100"):
        Predictor(dot_model(), input_size=(100, 128))


def test_the_model_in_memory_stays_as_it_was():
    model = dot_model()
    model.network.train()
    Predictor(model)([draw_poles((96, 128), [])])
    assert model.network.training


def test_flip_test_finds_the_same_people():
    image = draw_poles((96, 128), [(40, 20, 80), (100, 30, 70)])
    once, twice = (Predictor(dot_model(), flip_test=flip)([image])[0] for flip in (False, True))
    assert np.allclose(places(once), places(twice), atol=0.05)


@pytest.mark.parametrize("skeleton", [COCO18_NECK, Skeleton("bent", ("left_a", "right_a", "b"), ((0, 2), (1, 0)),
                                                            ((0, 1),), (0.05,) * 3)])  # fmt: skip
def test_mirrored_maps_fit_those_of_the_image(skeleton):
    codec, k = PafCodec(skeleton), skeleton.num_keypoints
    rng = torch.Generator().manual_seed(0)
    people = torch.cat([torch.rand(2, 3, k, 2, generator=rng) * 120, torch.full((2, 3, k, 1), 2.0)], -1)
    mirrored = people[:, :, skeleton.flip_index].clone()
    mirrored[..., 0] = 127 - mirrored[..., 0]
    maps, others = ({name: codec.encode(p, None, (96, 128))[name].numpy() for name in ("heatmaps", "pafs")}
                    for p in (people, mirrored))  # fmt: skip
    predictor = Predictor(dot_model(), flip_test=True)
    predictor.codec = codec
    # the network sees a white column at the left of the image, and at the right of its mirror image
    predictor._network = lambda images: maps if images[0, 0, 0, 0] else others
    images = np.zeros((2, 96, 128, 3), np.uint8)
    images[:, :, 0] = 255
    for i, averaged in enumerate(predictor.maps(images)):
        for name, values in averaged.items():
            assert np.allclose(values, maps[name][i], atol=1e-5), name


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8), np.uint8), r"uint8 \(8, 8\)"),
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\)"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_image_is_named(image, message):
    with pytest.raises(ValueError, match=message):
        Predictor(dot_model())([image])


def test_one_image_instead_of_a_list_is_an_error():
    for single in (np.zeros((8, 8, 3), np.uint8), "picture.jpg"):
        with pytest.raises(ValueError, match="list of images"):
            Predictor(dot_model())(single)
    with pytest.raises(ValueError, match=r"\(N, 96, 128, 3\)"):
        Predictor(dot_model()).maps(np.zeros((1, 64, 64, 3), np.uint8))


def test_missing_and_cut_off_images_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nobody.jpg"):
        Predictor(dot_model())([tmp_path / "nobody.jpg"])
    cv2.imwrite(str(tmp_path / "cut.jpg"), draw_poles((96, 128), [(64, 20, 80)]))
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:900])
    with pytest.raises(ValueError, match="cut.jpg"):
        Predictor(dot_model())([tmp_path / "cut.jpg"])


def test_wrong_model_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no model"):
        Predictor(tmp_path / "gone.onnx")
    for name, message in (("weights.txt", "weights.txt.*safetensors"), ("weights.pth", "not a checkpoint"), ("empty.onnx", "empty.onnx.*cannot open"),
                          ("bad.safetensors", "bad.safetensors")):  # fmt: skip
        (tmp_path / name).write_bytes(b"no model")
        with pytest.raises(ValueError, match=message):
            Predictor(tmp_path / name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_an_error():
    with pytest.raises(RuntimeError, match="'cuda' was asked for"):
        Predictor(dot_model(), device="cuda")
