"""MPII's MATLAB file: every shape of every field, the pixels, the split, and a COCO file that trains."""

import json
from collections import Counter

import msgspec
import numpy as np
import pytest
from scipy.io import savemat

from lib import files
from lib.data.coco import read_coco, skeleton_of
from lib.data.dataset import CocoKeypoints
from lib.data.mpii import head_size, read_mpii, read_names, split_by_video, to_coco
from lib.skeleton import COCO17, MPII14, MPII16
from tests.data.mpii_release import NOTHING, figure, person, points, struct, write_picture, write_release

FLAGS = {0: "0", 1: "1", 2: np.uint8(0), 3: np.uint8(1), 4: NOTHING, 5: "", 6: 0.0, 7: 1.0, 10: True, 11: False}


def release(tmp_path):
    lone_joint = {**person(300, 50), "annopoints": points({13: (310.5, 99)})}
    not_annotated = {**person(500, 50), "annopoints": NOTHING}
    images = [
        {"name": "array.jpg", "people": [person(100, 50, visible=FLAGS), lone_joint, not_annotated], "video": 7,
         "single": np.array([[1, 3]], np.uint8)},
        {"name": "one.jpg", "people": [person(200, 60)], "single": np.uint8(1), "video": 8},
        {"name": "absent.jpg", "video": 8},
        {"name": "test.jpg", "train": 0, "people": [{"scale": 2.0, "objpos": struct([{"x": 11.0, "y": 21.0}])}] * 2,
         "single": np.array([[2]], np.uint8)},
        {"name": "empty.jpg", "people": [{"annopoints": struct([{"point": NOTHING}]), "objpos": NOTHING}]},
        {"name": "bare.jpg", "people": [{"annopoints": struct([{"other": 1.0}]), "scale": NOTHING}]},
    ]  # fmt: skip
    return write_release(tmp_path / "release.mat", images)


def test_every_shape_of_the_fields_is_read(tmp_path):
    images = read_mpii(release(tmp_path))
    assert [image.id for image in images] == [1, 2, 3, 4, 5, 6]
    assert [image.name for image in images][:2] == ["array.jpg", "one.jpg"]
    assert [image.train for image in images] == [True, True, True, False, True, True]
    assert [image.video for image in images] == [7, 8, 8, None, None, None]
    assert [len(image.people) for image in images] == [3, 1, 0, 2, 1, 1]
    assert [image.labelled for image in images] == [True, True, False, False, False, False]
    assert [[p.single for p in image.people] for image in images[:4]] == [
        [True, False, True],
        [True],
        [],
        [False, True],
    ]
    assert [p.rect for p in images[0].people] == [1, 2, 3]
    assert [p.labelled.sum() for p in images[0].people] == [16, 1, 0]
    tested = images[3].people[0]
    assert tested.head_box is None and tested.scale == 2 and tested.objpos == (10, 20) and not tested.labelled.any()
    assert images[4].people[0].objpos is None and images[5].people[0].scale is None


def test_pixels_count_from_zero_and_joints_keep_their_places(tmp_path):
    one = read_mpii(release(tmp_path))[1].people[0]
    for k, (x, y) in figure(200, 60).items():
        np.testing.assert_allclose(one.keypoints[k], [x - 1, y - 1, 2], atol=1e-9)
    x, y, w, _ = one.head_box
    assert (x + w / 2, y) == (199, 59) and head_size(one.head_box) == pytest.approx(50) and one.objpos == (199, 259)


def test_visibility(tmp_path):
    flagged = read_mpii(release(tmp_path))[0].people[0]
    assert [k for k in range(16) if flagged.keypoints[k, 2] == 1] == [0, 2, 6, 11]
    assert (flagged.keypoints[[1, 3, 4, 5, 7, 8, 9, 10], 2] == 2).all()


def test_one_image_is_a_file_too(tmp_path):
    path = write_release(tmp_path / "a.mat", [{"name": "a.jpg", "people": [person(9, 9)], "single": np.uint8(1)}])
    (image,) = read_mpii(path)
    assert image.people[0].single and image.name == "a.jpg"


def test_joints_without_a_place_and_repeated_ones_do_not_count(tmp_path):
    rows = [{"x": 5.0, "y": 6.0, "id": 3}, {"x": 50.0, "y": 60.0, "id": 3}, {"x": NOTHING, "y": 1.0, "id": 4},
            {"x": np.nan, "y": 1.0, "id": 5}, {"x": 1.0, "y": 1.0, "id": NOTHING}]  # fmt: skip
    people = [{"annopoints": struct([{"point": struct(rows)}])}]
    (image,) = read_mpii(write_release(tmp_path / "a.mat", [{"name": "a.jpg", "people": people}]))
    assert np.flatnonzero(image.people[0].labelled).tolist() == [3]
    assert image.people[0].keypoints[3].tolist() == [4, 5, 2]


def sizes_of(images, size=(480, 640)):
    return {image.name: size for image in images}


@pytest.mark.parametrize("skeleton", [MPII16, MPII14])
def test_coco_file_trains_and_keeps_what_coco_has_no_place_for(tmp_path, skeleton):
    images = [image for image in read_mpii(release(tmp_path)) if image.labelled]
    content = to_coco(images, sizes_of(images), skeleton)
    path = files.write(tmp_path / "people.json", msgspec.json.encode(content))
    coco = read_coco(path)
    assert skeleton_of(coco) == skeleton and [a.id for a in coco.annotations] == [1001, 1002, 1003, 2001]
    assert [a.num_keypoints for a in coco.annotations] == [skeleton.num_keypoints, 1, 0, skeleton.num_keypoints]
    for k, name in enumerate(skeleton.keypoints):
        x, y = figure(200, 60)[MPII16.index(name)]
        assert coco.annotations[-1].keypoints[3 * k : 3 * k + 3] == pytest.approx([x - 1, y - 1, 2])

    raw = json.loads(path.read_text())["annotations"]
    assert [a["single_person"] for a in raw] == [True, False, True, True] and [a["rect"] for a in raw] == [1, 2, 3, 1]
    assert head_size(raw[-1]["head_box"]) == pytest.approx(50) and raw[-1]["objpos"] == [199, 259]
    assert raw[-1]["scale"] == 2

    for name in ("array.jpg", "one.jpg"):
        write_picture(tmp_path / "images" / name)
    samples = CocoKeypoints(path, tmp_path / "images", input_size=(128, 128))
    assert len(samples) == 2 and len(samples[0]["keypoints"]) == 2
    assert samples[0]["mask"].min() == 0 and samples[1]["mask"].min() == 1  # the person without joints is ignored


def test_boxes_hold_the_body_and_end_at_the_image(tmp_path):
    images = read_mpii(release(tmp_path))
    first, lone, square, whole = to_coco(images[:2], sizes_of(images))["annotations"]
    joints = np.array(whole["keypoints"]).reshape(-1, 3)
    x, y, w, h = whole["bbox"]
    assert x == pytest.approx(joints[:, 0].min() - 25) and x + w == pytest.approx(joints[:, 0].max() + 25)
    assert y == pytest.approx(joints[:, 1].min() - 25) and y + h == pytest.approx(joints[:, 1].max() + 25)
    assert whole["area"] == pytest.approx(0.53 * w * h, rel=1e-3)
    assert first["bbox"][0] == 0  # a wrist lies outside
    assert lone["bbox"][2] > 50  # the head box counts where joints are few
    assert square["bbox"] == [299, 49, 341, 400]  # 400 pixels around objpos (499, 249), cut at 640
    tested = to_coco([images[3]], sizes_of(images))["annotations"]
    assert [a["num_keypoints"] for a in tested] == [0, 0] and "head_box" not in tested[0]
    nowhere = to_coco([images[5]], sizes_of(images))["annotations"][0]
    assert "bbox" not in nowhere and nowhere["area"] == 0


def test_a_skeleton_with_other_keypoints_is_refused(tmp_path):
    images = read_mpii(release(tmp_path))
    with pytest.raises(KeyError, match="no keypoint 'nose'"):
        to_coco(images, sizes_of(images), COCO17)


def videos(tmp_path, count=60):
    images = [{"name": f"{i}.jpg", "video": i // 3 + 1} for i in range(count)]
    return read_mpii(write_release(tmp_path / "v.mat", images))


def test_no_video_is_on_both_sides(tmp_path):
    images = videos(tmp_path)
    chosen = split_by_video(images, 0.2)
    assert len(chosen) == 12 and chosen == split_by_video(images[::-1], 0.2)
    assert Counter(image.video for image in images if image.id in chosen) == Counter(
        {video: 3 for video in {image.video for image in images if image.id in chosen}}
    )
    assert chosen < split_by_video(images, 0.5)
    assert split_by_video(images, 0) == set() and len(split_by_video(images, 1)) == 60
    assert len(split_by_video(images, 0.01)) == 3
    with pytest.raises(ValueError, match="0..1, got 10"):
        split_by_video(images, 10)


def test_the_split_is_the_same_everywhere(tmp_path):
    assert sorted(split_by_video(videos(tmp_path), 0.1)) == [22, 23, 24, 25, 26, 27]


@pytest.mark.parametrize(
    "content",
    [
        "a.jpg\nb.jpg\n\n",
        json.dumps(["a.jpg", "b.jpg"]),
        json.dumps([{"image": "a.jpg", "center": [1, 2]}, {"image": "b.jpg"}, {"image": "a.jpg"}]),
        json.dumps({"images": [{"file_name": "a.jpg", "id": 1}, {"file_name": "b.jpg", "id": 2}]}),
    ],
)
def test_lists_of_names(tmp_path, content):
    (tmp_path / "list").write_text(content)
    assert read_names(tmp_path / "list") == {"a.jpg", "b.jpg"}


@pytest.mark.parametrize("content", ["", "[]", "[1, 2]", '{"a": 1}', '[{"x": 1}]', "[oops"])
def test_lists_without_names_are_refused(tmp_path, content):
    (tmp_path / "list").write_text(content)
    with pytest.raises(ValueError, match="no image names found"):
        read_names(tmp_path / "list")


def no_release(path):
    savemat(path, {"dataset": struct([{"image": "a"}])})


def half(path):
    write_release(path, [{"name": f"{i}.jpg", "people": [person(9, 9)]} for i in range(9)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: path.write_text("not a mat file at all " * 20), "not a MATLAB file"),
        (lambda path: path.write_bytes(b""), "not a MATLAB file"),
        (lambda path: path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(999)), "not a MATLAB file"),
        (half, "not a MATLAB file"),
        (no_release, "it holds dataset, not RELEASE"),
        (lambda path: savemat(path, {"RELEASE": 3.0}), "not RELEASE with annolist"),
        (lambda path: savemat(path, {"RELEASE": NOTHING}), "not RELEASE with annolist"),
        (lambda path: savemat(path, {"RELEASE": {"annolist": NOTHING}}), "has 0 images"),
        (lambda path: write_release(path, [{"name": "a.jpg"}], img_train=np.ones((1, 5))), "1 images in annolist, 5 in"),
        (lambda path: write_release(path, [{"name": "a.jpg", "people": [{"annopoints": points({16: (1, 2)})}]}]),
         r"image 1 \(a.jpg\), rectangle 1: a joint has the id 16"),
    ],
)  # fmt: skip
def test_wrong_files_are_one_clear_error(tmp_path, make, message):
    make(tmp_path / "wrong.mat")
    with pytest.raises(ValueError, match=message) as error:
        read_mpii(tmp_path / "wrong.mat")
    assert str(error.value).startswith(str(tmp_path / "wrong.mat"))


def test_a_file_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        read_mpii("nowhere.mat")


def test_a_release_without_single_person_is_read(tmp_path):
    path = write_release(tmp_path / "a.mat", [{"name": "a.jpg", "people": [person(9, 9)]}], single_person=None)
    assert not read_mpii(path)[0].people[0].single
