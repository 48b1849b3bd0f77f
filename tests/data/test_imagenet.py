"""Pictures in class folders: the right classes, the right part of every picture, and errors that name the file."""

import json

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from lib.data.augment import read_image
from lib.data.imagenet import (
    ImageFolders,
    RandomCrop,
    box_affine,
    centre_affine,
    collate,
    cut,
    draw,
    folder_of,
    name_of,
    read_class_index,
    read_classes,
)
from lib.data.scenery import background

INDEX = {"0": ["n00000001", "tench"], "1": ["n00000007", "great_white_shark"], "2": ["n00000009", "tench"]}


def picture(size=(60, 80), seed=0):
    return background(np.random.default_rng(seed), size, 1.0)[0]


@pytest.fixture
def folder(tmp_path):
    """Three classes, two of the same name, with two pictures each for training and one for validation."""
    (tmp_path / "imagenet_class_index.json").write_text(json.dumps(INDEX))
    for split, count in (("train", 2), ("val", 1)):
        for number, (wnid, _) in INDEX.items():
            (tmp_path / split / wnid).mkdir(parents=True)
            for i in range(count):
                image = picture(seed=10 * int(number) + i)
                cv2.imwrite(str(tmp_path / split / wnid / f"{wnid}_{i}.JPEG"), image[..., ::-1])
    return tmp_path


def coordinates(height, width):
    """A picture whose red says x and whose green says y, in pixels."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)


def test_samples_have_the_labels_of_their_folders(folder):
    data = ImageFolders(folder, "train", input_size=(32, 32))
    assert data.classes == ("n00000001 tench", "n00000007 great_white_shark", "n00000009 tench")
    assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [data.path(i).name for i in (0, 3, -1)] == ["n00000001_0.JPEG", "n00000007_1.JPEG", "n00000009_1.JPEG"]
    batch = collate([data[i] for i in (1, 2)])
    assert batch["images"].shape == (2, 3, 32, 32) and batch["images"].dtype == torch.uint8
    assert batch["images"].is_contiguous(memory_format=torch.channels_last)
    assert batch["labels"].tolist() == [0, 1] and batch["indices"].tolist() == [1, 2]
    assert [folder_of(data.classes[1]), name_of(data.classes[1])] == ["n00000007", "great white shark"]


def test_the_names_may_be_yaml_or_missing(folder):
    (folder / "imagenet_class_index.json").rename(folder / "wordnet_labels.yaml")
    assert read_classes(folder)[1] == "n00000007 great_white_shark"
    (folder / "wordnet_labels.yaml").write_text(json.dumps(INDEX), "utf-8-sig")
    assert read_classes(folder)[1] == "n00000007 great_white_shark", "some editors put a mark in front of UTF-8"
    (folder / "wordnet_labels.yaml").unlink()
    assert read_classes(folder) == ("n00000001", "n00000007", "n00000009")
    assert name_of("golden retriever") == folder_of("golden retriever") == "golden retriever"


def test_a_sample_depends_on_seed_epoch_and_index_alone(folder):
    make = lambda **options: ImageFolders(folder, "train", input_size=(32, 32), crop=RandomCrop(), **options)
    one, two = make(), make()
    loader = DataLoader(two, 2, num_workers=2, collate_fn=collate, persistent_workers=True)
    for epoch in range(2):
        for data in (one, two):
            data.set_epoch(epoch)
        alone = torch.stack([one[i]["image"] for i in range(len(one))])
        assert torch.equal(alone, torch.cat([batch["images"] for batch in loader]))
        assert epoch or (first := alone).any()
    assert not torch.equal(alone, first)
    assert not torch.equal(first[0], make(seed=1)[0]["image"])


def test_a_limit_is_spread_over_the_classes(folder):
    assert ImageFolders(folder, "train", limit=3).labels.tolist() == [0, 1, 2]
    assert len(ImageFolders(folder, "train", limit=99)) == 6
    with pytest.raises(ValueError, match="limit 0 leaves no picture"):
        ImageFolders(folder, "train", limit=0)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_box_is_stretched_from_corner_to_corner(mirrored):
    image = coordinates(100, 200)
    box = 40.0, 20.0, 64.0, 32.0
    drawn = draw(image, box_affine(box, (64, 64), mirrored), (64, 64)).astype(float)
    # pixel j shows what lies around (j + ½)/64 of the box
    x, y = 40 + np.arange(64) + 0.5 - 0.5, 20 + (np.arange(64) + 0.5) / 2 - 0.5
    np.testing.assert_allclose(drawn[5, :, 0], x[::-1] if mirrored else x, atol=0.6)
    np.testing.assert_allclose(drawn[:, 7, 1], y, atol=0.6)


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (256, 256), (230, 229), (100, 140)])
def test_the_middle_is_the_one_published_networks_are_measured_on(size):
    image = picture(size)
    expected = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224)])(torch.from_numpy(image).permute(2, 0, 1))
    ours = draw(image, centre_affine(size, (224, 224)), (224, 224))
    difference = np.abs(ours.astype(float) - expected.permute(1, 2, 0).numpy())
    # torchvision rounds the enlarged size and the corner to whole pixels
    assert difference.mean() < 2.5 and np.median(difference) <= 2


def test_shrinking_does_not_flicker():
    stripes = np.repeat(np.repeat((np.arange(400) % 2 * 255).astype(np.uint8)[None, :, None], 400, 0), 3, 2)
    drawn = draw(stripes, centre_affine((400, 400), (150, 150), 1.0), (150, 150))
    assert np.abs(drawn[2:-2, 2:-2].astype(float) - 127.5).max() < 70  # plain bilinear goes from 0 to 255


def test_a_large_jpeg_decoded_reduced_shows_the_same(tmp_path):
    image = cv2.GaussianBlur(picture((800, 1200)), (0, 0), 3)
    for suffix in ("jpg", "png"):
        cv2.imwrite(str(tmp_path / f"large.{suffix}"), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    affine_of = lambda size: centre_affine(size, (96, 96))
    jpeg, png = (cut(tmp_path / f"large.{suffix}", affine_of, (96, 96)).astype(float) for suffix in ("jpg", "png"))
    assert np.abs(jpeg - png).mean() < 2


def test_random_parts_have_the_asked_area_and_shape():
    rng, crop = np.random.default_rng(0), RandomCrop(area=(0.2, 0.8), ratio=(0.5, 2), flip=0.25)
    affines = np.array([crop.sample(rng, (300, 400), (100, 100)) for _ in range(2000)])
    width, height = 100 / np.abs(affines[:, 0, 0]), 100 / affines[:, 1, 1]
    area, ratio = width * height / (300 * 400), width / height
    assert 0.2 <= area.min() and area.max() <= 0.8 and abs(area.mean() - 0.48) < 0.04
    assert 0.5 <= ratio.min() and ratio.max() <= 2 and abs(np.log(ratio).mean()) < 0.15
    assert abs((affines[:, 0, 0] < 0).mean() - 0.25) < 0.04
    corners = np.array([[-0.5, -0.5], [99.5, 99.5]])
    for (a, _, x), (_, d, y) in affines[:200]:
        at = (corners - (x, y)) / (a, d) + 0.5
        assert at.min() > -1e-6 and (at.max(axis=0) < (400 + 1e-6, 300 + 1e-6)).all()


def test_a_picture_too_long_for_any_part_gives_its_middle():
    affine = RandomCrop(area=(0.9, 1.0), flip=0).sample(np.random.default_rng(0), (40, 400), (64, 64))
    width = 64 / affine[0, 0]
    assert np.isclose(64 / affine[1, 1], 40) and np.isclose(width, 40 * 4 / 3)
    assert np.isclose((31.5 - affine[0, 2]) / affine[0, 0], 199.5)


def spoil_index(folder, content):
    (folder / "imagenet_class_index.json").write_text(content if isinstance(content, str) else json.dumps(content))


def shorten(folder):
    path = next((folder / "train/n00000007").iterdir())
    path.write_bytes(path.read_bytes()[:-400])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: [p.unlink() for p in (f / "train/n00000007").iterdir()], "1 of 3 classes have no picture.*n00000007"),
        (lambda f: (f / "train/n00000008").mkdir(), "3 classes, but 1 more have a folder in .*n00000008"),
        (lambda f: spoil_index(f, INDEX | {"3": ["n00000010", "ray"]}), "4 classes, but 1 have no folder.*n00000010"),
        (lambda f: spoil_index(f, {"0": INDEX["1"], "1": INDEX["0"]}), "n00000001 comes behind n00000007"),
        (lambda f: spoil_index(f, {"0": INDEX["0"], "1": INDEX["0"]}), "sorted, different WNIDs"),
        (lambda f: spoil_index(f, '{"0": ["n0'), "is no class index"),
        (lambda f: spoil_index(f, {"1": INDEX["0"]}), "counted from 0"),
        (lambda f: spoil_index(f, {"0": ["fish", "tench"]}), "is no class index"),
        (lambda f: spoil_index(f, "[]"), "is no class index"),
        (lambda f: (f / "train").rename(f / "training"), "train: there is no such folder"),
        (lambda f: [(f / "train" / p.name).rename(f / "train" / f"{p.name} fish") for p in (f / "train").iterdir()]
         and (f / "imagenet_class_index.json").unlink(), "n0000000. fish: the folder of a class is called n0000000. alone"),
        (shorten, "n00000007_.*cut off"),
        (lambda f: (f / "train/n00000007/n00000007_0.JPEG").write_text("hello"), "n00000007_0.JPEG: not a readable image"),
        (lambda f: (f / "train/n00000007/n00000007_0.JPEG").write_bytes(b""), "n00000007_0.JPEG: the image is cut off"),
    ],
)
def test_errors_name_the_place_and_the_way_out(folder, spoil, words):
    spoil(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        data = ImageFolders(folder, "train", input_size=(32, 32))
        [data[i] for i in range(len(data))]


def test_a_picture_that_vanishes_is_named(folder):
    data = ImageFolders(folder, "train", input_size=(32, 32))
    data.path(3).unlink()
    with pytest.raises(FileNotFoundError, match=r"n00000007_1\.JPEG"):
        data[3]


def test_what_is_no_picture_is_passed_over(folder):
    (folder / "train/n00000001/.hidden.jpg").write_text("")
    (folder / "train/n00000001/readme.txt").write_text("")
    (folder / "train/notes.txt").write_text("")
    (folder / "train/n00000001/folder.jpg").mkdir()
    assert len(ImageFolders(folder, "train")) == 6


def test_wrong_settings_are_refused(folder):
    with pytest.raises(ValueError, match="area (must be a range|is a part of the picture)"):
        RandomCrop(area=(0.5, 1.5))
    with pytest.raises(ValueError, match="ratio must be a range"):
        RandomCrop(ratio=(2, 1))
    with pytest.raises(ValueError, match=r"flip is a probability in 0..1, got 2"):
        RandomCrop(flip=2)
    with pytest.raises(ValueError, match="centre is a part of the picture"):
        ImageFolders(folder, "train", centre=1.2)
    with pytest.raises(FileNotFoundError, match="no such class index"):
        read_class_index(folder / "names.json")


def test_small_pictures_are_enlarged_without_a_dark_border(folder):
    white = np.full((20, 20, 3), 255, np.uint8)
    assert draw(white, centre_affine((20, 20), (64, 64), 1.0), (64, 64)).min() == 255
    assert read_image(folder / "val/n00000001/n00000001_0.JPEG").shape == (60, 80, 3)
