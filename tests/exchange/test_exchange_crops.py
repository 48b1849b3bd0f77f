"""Labels of cut-out pictures on the whole ones."""

import json

import pytest

from lib.data.coco import Annotation, Category, CocoFile, Image, Rle, check_coco
from lib.exchange.crops import uncropped


def crops_and_labels(folder, **changed):
    origin = {"source": "deep/walk.jpg", "width": 640, "height": 480, "box": [100, 50, 30, 40]} | changed
    path = folder / "crops.json"
    path.write_text(json.dumps({"a.jpg": origin, "b.jpg": origin | {"box": [0, 0, 20, 20]}}))
    points = [0, 0, 2, 0, 0, 0, 3.25, 4, 0]
    people = [Annotation(7, 1, 1, points, 1, [1, 2, 3, 4], 5, 0, [[1, 2, 3, 4, 5, 6]]),
              Annotation(8, 2, 1, points, 1, [1, 2, 3, 4], 5, 0, Rle((20, 20), [400]))]  # fmt: skip
    images = [Image(1, "a.jpg", 30, 40), Image(2, "b.jpg", 20, 20)]
    return path, CocoFile(images, people, [Category(1, "arm", keypoints=["a", "b", "c"])])


def test_everything_moves_with_the_corner_and_what_has_no_place_stays_without(tmp_path):
    path, coco = crops_and_labels(tmp_path)
    back, changes = uncropped(coco, path)
    check_coco(back)
    assert [(i.id, i.file_name, i.width, i.height) for i in back.images] == [(1, "deep/walk.jpg", 640, 480)]
    first, second = back.annotations
    assert first.keypoints == [100, 50, 2, 0, 0, 0, 103.25, 54, 0] and first.bbox == [101, 52, 3, 4]
    assert first.segmentation == [[101, 52, 103, 54, 105, 56]] and first.image_id == second.image_id == 1
    assert second.keypoints == coco.annotations[1].keypoints and second.segmentation == []
    assert any("mask" in rule for rule in changes.lines) and coco.annotations[0].bbox == [1, 2, 3, 4]


def test_who_is_still_missing_on_a_whole_picture_is_said(tmp_path):
    path, coco = crops_and_labels(tmp_path)
    coco.images, coco.annotations = coco.images[:1], coco.annotations[:1]
    back, changes = uncropped(coco, path)
    (rule,) = (rule for rule in changes.lines if "without labels" in rule)
    assert len(back.annotations) == 1 and changes.lines[rule].example == "b.jpg of deep/walk.jpg"


def test_other_pictures_are_refused(tmp_path):
    path, coco = crops_and_labels(tmp_path, box=[100, 50, 60, 80])
    with pytest.raises(ValueError, match=r"a\.jpg has 30×40 pixels, 60×80 were cut out: .* without resizing"):
        uncropped(coco, path)
    coco.images[0].file_name = "c.jpg"
    with pytest.raises(ValueError, match=r"c\.jpg is none of the 2 pictures of .*crops\.json"):
        uncropped(coco, path)
    path.write_text('{"a.jpg": {"left": 3}}')
    with pytest.raises(ValueError, match=r"crops\.json: does not say where"):
        uncropped(coco, path)
