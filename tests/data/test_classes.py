"""Synthetic classes: ImageNet's layout, the same bytes from the same seed, and parts that are really in the middle."""

import cv2
import numpy as np
import pytest

from lib.data.classes import KINDS, PARTS, SIDES, WNIDS, figure_sheet, things_sheet, without_side, write_classes
from lib.data.imagenet import ImageFolders, name_of
from lib.data.synthetic import FIGURES


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("data") / "classes", train_per_class=2, val_per_class=1)


def test_it_is_an_imagenet_like_set(written):
    data = {split: ImageFolders(written, split, input_size=(64, 64)) for split in ("train", "val")}
    assert data["train"].classes == data["val"].classes and len(data["train"].classes) == 16
    assert [name_of(label).replace(" ", "_") for label in data["train"].classes] == list(WNIDS) == sorted(WNIDS)
    assert np.bincount(data["train"].labels).tolist() == [2] * 16 and len(data["val"]) == 16
    for i in range(len(data["train"])):
        height, width = cv2.imread(str(data["train"].path(i))).shape[:2]
        assert height == width and SIDES[0] <= width <= SIDES[1]


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(written, tmp_path):
    again = write_classes(tmp_path / "again", train_per_class=2, val_per_class=1)
    assert files_of(again) == files_of(written)
    other = files_of(write_classes(tmp_path / "other", train_per_class=1, val_per_class=1, seed=5))
    pictures = {content for name, content in files_of(written).items() if name.endswith(".jpg")}
    assert not pictures & set(other.values())
    assert len(pictures) == 48, "training and validation share a picture"


def test_done_already_is_left_as_it_is_and_something_else_refused(written, tmp_path):
    stamp = (written / "synthetic.json").stat().st_mtime_ns
    assert write_classes(written, train_per_class=2, val_per_class=1) == written
    assert (written / "synthetic.json").stat().st_mtime_ns == stamp
    with pytest.raises(FileExistsError, match="other settings"):
        write_classes(written, train_per_class=3, val_per_class=1)
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="not a synthetic dataset"):
        write_classes(tmp_path, train_per_class=1, val_per_class=1)
    with pytest.raises(ValueError, match="every class needs a picture"):
        write_classes(tmp_path / "none", train_per_class=0)


def test_nothing_is_left_when_it_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.draw.cv2.imencode", lambda *_: (False, None))
    with pytest.raises(ValueError, match="cannot be written as"):
        write_classes(tmp_path / "set", train_per_class=1, val_per_class=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("figure", FIGURES)
def test_every_part_is_a_keypoint_and_its_middle_lies_in_the_picture(figure):
    keypoints = {without_side(k) for k in FIGURES[figure][0].keypoints}
    own = {name for name, (whose, _) in PARTS.items() if whose == figure}
    assert all(PARTS[name][1] <= keypoints for name in own)
    seen = set()
    for index in range(4):
        image, middles = figure_sheet(figure, 1, index)
        seen |= set(middles)
        assert all(0 <= x <= image.shape[1] and 0 <= y <= image.shape[0] for x, y in middles.values())
    assert seen == own


def test_things_stand_where_the_sheet_says():
    image, middles = things_sheet(1, 3)
    assert set(middles) == {*KINDS, "scenery"}
    x, y = (round(v) for v in middles["cone"])
    red, _, blue = image[y - 4 : y + 5, x - 4 : x + 5].reshape(-1, 3).mean(axis=0)
    assert red > blue + 40, "a cone is orange (or its band white), whatever stands beside it"
