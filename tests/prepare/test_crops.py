"""`crops` from COCO files with head boxes: the same crops as `prepare mpii`, at any size, resumed, and named faults."""

import json
from pathlib import Path

import jsonargparse
import numpy as np
import pytest

from lib.data.coco import find_split, read_coco, skeleton_of
from lib.data.dataset import CocoKeypoints
from lib.data.deepercut_crops import read_dataset_mat
from lib.data.mpii import head_size
from lib.data.stage import Scene
from lib.data.synthetic import write_dataset
from lib.people import apply_affine
from lib.prepare.crops import crops
from lib.prepare.mpii import MAT, prepare_mpii
from lib.skeleton import MPII14, MPII16, Skeleton
from tests.data.mpii_release import person, write_picture, write_release


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    scene = Scene(size=(96, 128), max_people=2, crowd=0.5, truncation=0.3)
    return write_dataset(tmp_path_factory.mktemp("painted") / "set", 8, 3, scene, "mpii", workers=1)


def changed(painted: Path, to: Path, change) -> Path:
    """A copy of the painted set, its training file changed."""
    to.mkdir()
    for split in ("train", "val"):
        (to / split).symlink_to(painted / split)
    (to / "annotations").mkdir()
    for path in (painted / "annotations").iterdir():
        content = json.loads(path.read_text())
        if "train" in path.name:
            change(content)
        (to / "annotations" / path.name).write_text(json.dumps(content))
    return to


def test_synthetic_people_become_crops_that_train(painted, tmp_path, capsys):
    jsonargparse.auto_cli(crops, args=[str(painted), "--out", str(tmp_path / "c"), "--head", "16", "--threads", "2"])
    assert "person_keypoints_train.json: " in capsys.readouterr().out
    for split in ("train", "val"):
        whole = json.loads((painted / f"annotations/person_keypoints_{split}.json").read_text())
        originals = {a["id"]: a for a in whole["annotations"] if not a["iscrowd"] and a["num_keypoints"]}
        path, images = find_split(tmp_path / "c", split)
        content = json.loads(path.read_text())
        assert Skeleton.from_coco(content["categories"][0]) == MPII14 and len(originals) == len(content["images"]) > 2
        singles = [a["single_person"] for a in content["annotations"]]
        assert singles == sorted(singles, reverse=True)  # those who stand apart come first
        for image, a in zip(content["images"], content["annotations"], strict=True):
            original = originals[a["image_id"]]
            assert head_size(a["head_box"]) == pytest.approx(16) and a["scale"] == 16 / 25
            theirs = np.reshape(original["keypoints"], (-1, 3))[[MPII16.index(name) for name in MPII14.keypoints]]
            ours = np.reshape(a["keypoints"], (-1, 3))
            moved = apply_affine(np.array(image["affine"]), theirs[:, :2]) * (theirs[:, 2:] > 0)
            np.testing.assert_allclose(ours[:, :2], moved, atol=1e-6)
            np.testing.assert_array_equal(ours[:, 2], theirs[:, 2])
        samples = CocoKeypoints(path, images, input_size=(64, 64))
        assert all(len(sample["keypoints"]) == 1 for sample in samples)
        entries = read_dataset_mat(tmp_path / f"c/dataset_{split}.mat")
        assert [Path(e.image).name for e in entries] == [image["file_name"] for image in content["images"]]
        assert all(Path(e.image).is_file() for e in entries)


def test_crops_are_those_of_prepare_mpii(tmp_path):
    pictures = [{"name": f"{i}.jpg", "people": [person(70, 20, 18 + i), person(200 - 9 * i, 30, 22)][: 1 + i % 2],
                 "single": np.uint8(1), "video": i} for i in range(6)]  # fmt: skip
    write_release(tmp_path / MAT, pictures)
    for picture in pictures:
        write_picture(tmp_path / "images" / picture["name"], (160, 240))
    prepare_mpii(tmp_path, unpacked=True, crops=True, val_fraction=0.4)
    crops(tmp_path, tmp_path / "again")
    ours, theirs = tree(tmp_path / "again"), tree(tmp_path / "crops")
    assert ours.keys() == theirs.keys() and len(ours) == 9 + 5  # nine people, four files of labels, the record
    for name in ours:
        if name.endswith((".png", ".json")):
            assert ours[name] == theirs[name], name


def test_an_interrupted_cut_goes_on_and_another_head_cuts_anew(painted, tmp_path):
    crops(painted, tmp_path / "c", head=16)
    before = tree(tmp_path / "c")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "c/images").iterdir()}
    gone, *kept = sorted(times)
    gone.unlink()
    crops(painted, tmp_path / "c", head=16)
    assert tree(tmp_path / "c") == before and all(path.stat().st_mtime_ns == times[path] for path in kept)
    crops(painted, tmp_path / "c", head=20, split="val")
    after = tree(tmp_path / "c")
    val = {
        f"images/{image.file_name}" for image in read_coco(tmp_path / "c/annotations/person_keypoints_val.json").images
    }
    assert all((before[name] != after[name]) == (name in val) for name in before if name.endswith(".png"))


def test_all_joints_and_one_split(painted, tmp_path):
    only = changed(painted, tmp_path / "set", lambda content: None)
    (only / "annotations/person_keypoints_val.json").unlink()
    crops(only, split="train", head=16, skeleton="mpii16")
    assert skeleton_of(read_coco(only / "crops/annotations/person_keypoints_train.json")) == MPII16
    assert not (only / "crops/dataset_val.mat").exists()
    with pytest.raises(FileNotFoundError, match="no 'val' split"):
        crops(only, head=16)


def each(**values):
    return lambda content: [a.update(values) for a in content["annotations"]]


def without_heads(content):
    content["annotations"] = [{k: v for k, v in a.items() if k != "head_box"} for a in content["annotations"]]


def same_ids(content):
    first = content["images"][0]
    for a in content["annotations"]:
        a["image_id"] = 9 if a["image_id"] == first["id"] else a["image_id"]
    first["id"] = 9


def other_joint(content):
    content["categories"][0]["keypoints"][0] = "right_toe"


def other_size(content):
    content["images"][0]["width"] += 1


@pytest.mark.parametrize(
    "change, message",
    [
        (without_heads, "none of its .* people has a head_box"),
        (same_ids, "the id 9 of 000000.jpg is another picture's"),
        (other_joint, "has no right_ankle"),
        (other_size, "000000.jpg has 128×96 pixels, its annotations say 129×96"),
        (each(rect=1), "two people with the rect 1"),
        (each(head_box="wide"), "Expected `array"),
    ],
)
def test_faults_are_named(painted, tmp_path, change, message):
    wrong = changed(painted, tmp_path / "set", change)
    with pytest.raises(ValueError, match=message) as error:
        crops(wrong, head=16)
    assert str(error.value).startswith(str(wrong))


def test_rects_are_names_not_places(painted, tmp_path):
    """A file from which somebody was taken out, or without rects at all, gives the same crops."""
    without = changed(painted, tmp_path / "a", lambda content: [a.pop("rect", 0) for a in content["annotations"]])
    shifted = changed(painted, tmp_path / "b", lambda content: [a.update(rect=a["rect"] + 6) for a in content["annotations"]
                                                                if "rect" in a])  # fmt: skip
    for folder in (painted, without, shifted):
        crops(folder, tmp_path / f"{folder.name}_crops", head=16, split="train")
    a, b, c = (sorted((tmp_path / f"{name}_crops/images").iterdir()) for name in ("set", "a", "b"))
    assert [p.read_bytes() for p in a] == [p.read_bytes() for p in b] == [p.read_bytes() for p in c]
    assert [p.name for p in a] == [p.name for p in b] and c[0].name.endswith("_7.png")


@pytest.mark.parametrize("head", [0, 3, -16, 501])
def test_impossible_heads(painted, tmp_path, head):
    with pytest.raises(ValueError, match=f"--head {head}: a head in a crop has 4 to 500 pixels"):
        crops(painted, tmp_path / "c", head=head)
    assert not (tmp_path / "c").exists()
