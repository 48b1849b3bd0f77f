"""`prepare imagenet` against a small zip of the same shape as Kaggle's."""

import json
import os
import zipfile

import cv2
import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from lib.__main__ import main
from lib.prepare import imagenet
from lib.prepare.imagenet import prepare_imagenet, read_classes, read_solution
from tests.prepare.killing import kill_everywhere, tree

CLASSES = {"n01484850": "great white shark, white shark", "n01440764": "tench, Tinca tinca", "n02119789": "kit fox, Vulpes",
           "n03000000": "chain saw"}  # fmt: skip
REAL_COUNTS = dict(imagenet.COUNTS)
TOP = "ILSVRC/Data/CLS-LOC"


def picture(seed):
    return cv2.imencode(".jpg", np.full((8, 8, 3), seed * 20 % 256, np.uint8))[1].tobytes()


def kaggle():
    """Members of the zip: 3 training pictures for each class, 2 for validation, 2 for the test, and what else there is."""
    wnids = list(CLASSES)
    members = {
        f"{TOP}/train/{wnid}/{wnid}_{i}.JPEG": picture(10 * c + i) for c, wnid in enumerate(wnids) for i in (7, 10, 2)
    }
    for i in range(8):
        members[f"{TOP}/val/ILSVRC2012_val_{i:08}.JPEG"] = picture(50 + i)
        members[f"{TOP}/test/ILSVRC2012_test_{i:08}.JPEG"] = picture(70 + i)
        members[f"ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_{i:08}.xml"] = b"<annotation/>"
    rows = [
        f"ILSVRC2012_val_{i:08},{wnids[i % 4]} 85 1 499 272 {wnids[i % 4]} 1 1 2 2 " for i in (5, 1, 0, 2, 3, 7, 6, 4)
    ]
    members["LOC_val_solution.csv"] = "\n".join(["ImageId,PredictionString", *rows, ""])
    members["LOC_synset_mapping.txt"] = "".join(f"{wnid} {names}\n" for wnid, names in CLASSES.items())
    members["LOC_train_solution.csv"] = members["LOC_sample_submission.csv"] = "ImageId,PredictionString\n"
    return members


def write(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for folder in ("ILSVRC", TOP, f"{TOP}/train"):
            file.mkdir(folder)
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content)
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(imagenet, "COUNTS", {"train": 12, "val": 8, "test": 8})


@pytest.fixture
def archive(tmp_path):
    return write(tmp_path / "kaggle.zip", kaggle())


def test_the_real_numbers():
    assert REAL_COUNTS == {"train": 1_281_167, "val": 50_000, "test": 100_000}


def test_sorted_as_image_folder_reads_it(archive, tmp_path, capsys):
    before = archive.read_bytes()
    assert main(["prepare", "imagenet", str(archive), "--data_dir", str(tmp_path / "imagenet")]) == 0
    assert "train: 12 pictures" in capsys.readouterr().out and archive.read_bytes() == before
    index = json.loads((tmp_path / "imagenet/imagenet_class_index.json").read_text())
    assert index == {"0": ["n01440764", "tench"], "1": ["n01484850", "great_white_shark"], "2": ["n02119789", "kit_fox"],
                     "3": ["n03000000", "chain_saw"]}  # fmt: skip
    for split, count in (("train", 12), ("val", 8)):
        folder = ImageFolder(tmp_path / "imagenet" / split)
        assert folder.classes == [index[str(i)][0] for i in range(4)] and len(folder) == count
        assert all(image.size == (8, 8) for image, _ in folder)
    # by the solution, not by the order in the zip: picture 5 belongs to the second class of the mapping
    assert (tmp_path / "imagenet/val/n01440764/ILSVRC2012_val_00000005.JPEG").read_bytes() == picture(55)
    assert sorted(os.listdir(tmp_path / "imagenet")) == ["imagenet_class_index.json", "prepared.yaml", "train", "val"]


def test_again_nothing_is_read(archive, tmp_path):
    prepare_imagenet(archive, tmp_path / "imagenet")
    before = tree(tmp_path / "imagenet")
    archive.write_bytes(bytes(archive.stat().st_size))
    prepare_imagenet(archive, tmp_path / "imagenet")
    (tmp_path / "imagenet/train/.DS_Store").touch()
    (tmp_path / "imagenet/train/n01440764/.DS_Store").touch()
    prepare_imagenet(archive, tmp_path / "imagenet")
    write(archive, kaggle())
    (tmp_path / "imagenet/train/n01440764/n01440764_7.JPEG").unlink()
    prepare_imagenet(archive, tmp_path / "imagenet")
    assert {name: c for name, c in tree(tmp_path / "imagenet").items() if "DS_Store" not in name} == before


def test_killed_before_each_step(archive, tmp_path):
    def work(folder=tmp_path / "imagenet"):
        prepare_imagenet(archive, folder, test=True)

    work(tmp_path / "undisturbed")
    kill_everywhere(work, tmp_path / "imagenet", tree(tmp_path / "undisturbed"), step=4)


def test_some_classes_some_pictures_for_a_workshop(archive, tmp_path):
    prepare_imagenet(archive, tmp_path / "imagenet", classes=2, images=1)
    names = sorted(name for name in tree(tmp_path / "imagenet") if name.endswith(".JPEG"))
    assert names == ["train/n01440764/n01440764_7.JPEG", "train/n02119789/n02119789_7.JPEG",
                     "val/n01440764/ILSVRC2012_val_00000001.JPEG", "val/n01440764/ILSVRC2012_val_00000005.JPEG",
                     "val/n02119789/ILSVRC2012_val_00000002.JPEG", "val/n02119789/ILSVRC2012_val_00000006.JPEG"]  # fmt: skip
    index = json.loads((tmp_path / "imagenet/imagenet_class_index.json").read_text())
    assert index == {"0": ["n01440764", "tench"], "1": ["n02119789", "kit_fox"]}


def test_the_test_set_on_request(archive, tmp_path):
    prepare_imagenet(archive, tmp_path / "imagenet", test=True)
    assert len(os.listdir(tmp_path / "imagenet/test")) == 8


def test_another_selection_wants_another_folder(archive, tmp_path):
    prepare_imagenet(archive, tmp_path / "imagenet", classes=2)
    prepare_imagenet(archive, tmp_path / "imagenet")  # more is no trouble
    before = tree(tmp_path / "imagenet")
    with pytest.raises(
        ValueError, match="holds 2 classes that are not wanted, one is n01484850: choose an empty folder"
    ):
        prepare_imagenet(archive, tmp_path / "imagenet", classes=2)
    with pytest.raises(ValueError, match="holds 20 pictures, 12 of them from .*: choose an empty folder"):
        prepare_imagenet(archive, tmp_path / "imagenet", images=1)
    assert tree(tmp_path / "imagenet").items() >= {k: v for k, v in before.items() if k.endswith(".JPEG")}.items()


@pytest.mark.parametrize("options, message", [({"classes": 0}, "--classes 0: there are 4"), ({"classes": 5}, "there are 4"),
                                              ({"images": 0}, "--images 0: at least 1")])  # fmt: skip
def test_impossible_selections(archive, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepare_imagenet(archive, tmp_path / "imagenet", **options)


def without(name):
    return lambda members: members.pop(name)


def put(name, content):
    return lambda members: members.update({name: content})


def replace(name, old, new):
    return lambda members: members.update({name: members[name].replace(old, new)})


SOLUTION, MAPPING = "LOC_val_solution.csv", "LOC_synset_mapping.txt"


@pytest.mark.parametrize("change, message", [
    (without(SOLUTION), "holds no LOC_val_solution.csv: it is not Kaggle's"),
    (without(MAPPING), "holds no LOC_synset_mapping.txt"),
    (put(MAPPING, b"\xff\xfe"), "damaged"),
    (replace(MAPPING, "n02119789 kit", "kit"), "line 3: 'kit fox, Vulpes' is not a new class"),
    (replace(MAPPING, "n02119789", "n01440764"), "line 3: .* is not a new class"),
    (replace(MAPPING, "n02119789", "n02119780"), r"line 5: LOC_synset_mapping.txt does not list the class 'n02119789'"),
    (replace(SOLUTION, "ImageId", "Id"), "the first line is not ImageId,PredictionString"),
    (replace(SOLUTION, "val_00000005,n01440764", "val_00000005,n09999999"), "boxes of one class"),
    (replace(SOLUTION, "85 1 499 272", "85 1 499"), "line 2: .* is not a picture and boxes of one class"),
    (put(SOLUTION, "ImageId,PredictionString\nx,\n"), "line 2: 'x,' is not a picture"),
    (replace(SOLUTION, "val_00000005", "val_00000001"), "line 3: ILSVRC2012_val_00000001 is there twice"),
    (put(SOLUTION, "ImageId,PredictionString\n"), "gives no class for 8 validation pictures, one is ILSVRC2012_val_00000000"),
    (without(f"{TOP}/val/ILSVRC2012_val_00000003.JPEG"), "is alone with 1 validation pictures, one is .*00003"),
    (without(f"{TOP}/train/n01440764/n01440764_2.JPEG"), "11 train pictures .* expected are 12: download all"),
    (put(f"{TOP}/train/n01440764/n01440764_2.JPEG", b""), "n01440764_2.JPEG is empty"),
    (put(f"{TOP}/train/n09999999/n09999999_2.JPEG", b"x"), "does not list the class of .*n09999999_2.JPEG"),
    (put("../x", b"x"), "leaves its folder"),
])  # fmt: skip
def test_a_zip_that_is_not_as_it_should_be(tmp_path, change, message):
    members = kaggle()
    change(members)
    with pytest.raises(ValueError, match=message) as error:
        prepare_imagenet(write(tmp_path / "kaggle.zip", members), tmp_path / "imagenet")
    assert str(tmp_path / "kaggle.zip") in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "imagenet").exists() or not os.listdir(tmp_path / "imagenet")


def test_a_damaged_picture(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    content[content.index(picture(55)) + 100] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match="val_00000005.JPEG' .Bad CRC"):
        prepare_imagenet(archive, tmp_path / "imagenet")
    os.truncate(archive, len(content) // 2)
    with pytest.raises(ValueError, match="not a complete zip or damaged .* download it again"):
        prepare_imagenet(archive, tmp_path / "imagenet")
    with pytest.raises(FileNotFoundError, match="nothing.zip is not there: get it from Kaggle"):
        prepare_imagenet(tmp_path / "nothing.zip", tmp_path / "imagenet")


def test_classes_and_solution_by_themselves():
    names = read_classes("n00000002 b b, c\r\nn00000001 crane\n")
    assert list(names.items()) == [("n00000001", "crane"), ("n00000002", "b_b")]
    where = read_solution("ImageId,PredictionString\na,n00000002 1 2 3 4\n", names)
    assert where == {"a": "n00000002"}
