"""DeeperCut's dataset.mat through `convert`, in and out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.io import loadmat, savemat

from lib.data.coco import read_coco, skeleton_of
from lib.data.deepercut_crops import Sample, read_dataset_mat, write_dataset_mat
from lib.data.scaled import ScaledPictures, ScaleJitter
from lib.exchange import read_any
from lib.skeleton import COCO17, MPII14
from tests.exchange.fixtures_of_tools import coco_annotator, save
from tests.exchange.test_exchange_commands import run

JOINTS = np.array([[0, 175, 261], [13, 226, 72]])


def test_it_becomes_a_coco_file_that_trains(tmp_path, capsys):
    """Sizes in the smallest integers, as MATLAB stores them, relative paths, and two entries of one picture."""
    (tmp_path / "images/a").mkdir(parents=True)
    for name in ("a/im1.png", "im2.png"):
        cv2.imwrite(str(tmp_path / "images" / name), np.full((200, 255, 3), 90, np.uint8))
    rows = np.empty((1, 3), [("image", object), ("size", object), ("joints", object)])
    for row, name, joints in zip(rows[0], ("images\\a\\im1.png", "images/im2.png", "images/im2.png"), (JOINTS, JOINTS, JOINTS - 9)):
        joints = np.where(joints < 0, 13, joints)
        row["image"], row["size"] = name, np.array([[3, 200, 255]], np.uint8)
        row["joints"] = np.array([[None]], object)
        row["joints"][0, 0] = joints.astype(np.int32)
    savemat(tmp_path / "dataset.mat", {"dataset": rows})
    assert run("convert", tmp_path / "dataset.mat", tmp_path / "a.json", "--images", tmp_path / "images") == 0
    out = capsys.readouterr().out
    assert "2 images, 3 annotations, 3 of them with" in out and "pixels counted from 1, now from 0" in out
    coco = read_coco(tmp_path / "a.json")
    assert skeleton_of(coco) == MPII14
    assert [(image.file_name, image.height, image.width) for image in coco.images] == [("a/im1.png", 200, 255), ("im2.png", 200, 255)]
    assert coco.annotations[0].keypoints[:3] == [174, 260, 2] and coco.annotations[0].keypoints[-3:] == [225, 71, 2]
    samples = ScaledPictures(tmp_path / "a.json", tmp_path / "images", augment=ScaleJitter(jitter=(1, 1), flip=0))
    assert [len(sample["keypoints"]) for sample in samples] == [1, 2]
    np.testing.assert_array_equal(samples[0]["keypoints"][0, [0, 13]], [[174, 260, 2], [225, 71, 2]])


def test_absolute_paths_become_names_and_crops_are_said(tmp_path):
    samples = [Sample("/somewhere/im1.png", (391, 295), (JOINTS,), (1, 1, 9, 9)), Sample("C:\\x\\im2.png", (200, 300), (), (1, 1, 9, 9))]
    coco, changes = read_any(write_dataset_mat(tmp_path / "d.mat", samples), first_pixel=0)
    assert [image.file_name for image in coco.images] == ["im1.png", "im2.png"] and len(coco.annotations) == 1
    assert coco.annotations[0].keypoints[:3] == [175, 261, 2]
    assert "2 × part of a picture to be used (crop)" in str(changes) and "counted from" not in str(changes)


def test_a_coco_file_becomes_one_as_the_original_reads_it(tmp_path, capsys):
    source = save(tmp_path / "export.json", coco_annotator())
    assert run("convert", source, tmp_path / "ours.json") == 0
    assert run("convert", tmp_path / "ours.json", tmp_path / "dataset.mat") == 0
    coco, out = read_coco(tmp_path / "ours.json"), capsys.readouterr().out
    samples = read_dataset_mat(tmp_path / "dataset.mat")
    names = {image.id: image.file_name for image in coco.images}
    labelled = [a for a in coco.annotations if any((a.keypoints or [])[2::3])]
    assert [sample.image for sample in samples] == list(dict.fromkeys(names[a.image_id] for a in labelled))
    assert sum(len(sample.joints) for sample in samples) == len(labelled)
    keypoints = np.array(labelled[0].keypoints).reshape(-1, 3)
    first = loadmat(tmp_path / "dataset.mat")["dataset"][0, 0]
    joints = first[2][0][0]
    np.testing.assert_array_equal(joints[:, 0], np.flatnonzero(keypoints[:, 2]))
    np.testing.assert_allclose(joints[:, 1:], keypoints[keypoints[:, 2] > 0, :2] + 1, atol=0.5)
    assert "figure without labelled keypoints, or of another category: left out" in out and "rounded to whole pixels" in out


def test_there_and_back_again(tmp_path):
    samples = [Sample("im1.png", (391, 295), (JOINTS, JOINTS[:1])), Sample("im2.png", (200, 300), (JOINTS[1:],))]
    path = write_dataset_mat(tmp_path / "dataset.mat", samples)
    assert run("convert", path, tmp_path / "a.json") == 0
    assert run("convert", tmp_path / "a.json", tmp_path / "back.mat") == 0
    assert (tmp_path / "back.mat").read_bytes() == path.read_bytes()
    (tmp_path / "pictures").mkdir()
    for name in ("im1.png", "im2.png"):
        cv2.imwrite(str(tmp_path / "pictures" / name), np.zeros((2, 2, 3), np.uint8))
    assert run("convert", tmp_path / "a.json", tmp_path / "back.mat", "--images", tmp_path / "pictures", "--first_pixel", "0") == 0
    first = read_dataset_mat(tmp_path / "back.mat")[0]
    assert first.image == str(tmp_path / "pictures/im1.png") and first.joints[0].tolist() == (JOINTS - [0, 1, 1]).tolist()


def test_the_skeleton_says_whose_the_ids_are(tmp_path, capsys):
    path = write_dataset_mat(tmp_path / "d.mat", [Sample("a.png", (300, 300), (np.array([[16, 20, 30], [0, 20, 20]]),))])
    assert run("convert", path, tmp_path / "a.json") == 1
    assert "a.png has the joint ids [16, 0], but the 14 keypoints of the skeleton are 0 to 13" in capsys.readouterr().err
    assert run("convert", path, tmp_path / "a.json", "--skeleton", "coco17") == 0
    assert skeleton_of(read_coco(tmp_path / "a.json")) == COCO17


@pytest.mark.parametrize(
    "samples, message",
    [
        ([Sample("a.png", (9, 9), ()), Sample("a.png", (9, 8), ())], "a.png has two sizes, [9 9] and [9 8]"),
        ([Sample("a.png", (9, 9), ())], "nobody has a labelled keypoint"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, capsys, samples, message):
    path = write_dataset_mat(tmp_path / "d.mat", samples)
    assert run("convert", path, tmp_path / "back.mat") == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "back.mat").exists()
    assert run("convert", path, tmp_path / "a.json", "--first_pixel", "7") == 1
    assert "first_pixel 7" in capsys.readouterr().err
