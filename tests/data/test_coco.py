import json

import msgspec
import pytest

from lib.data.coco import (
    category_named,
    find_split,
    insert_neck,
    insert_neck_file,
    read_coco,
    skeleton_of,
    write_coco,
)
from lib.skeleton import COCO17, COCO18_NECK


def person(i=1, image_id=1, keypoints=None, **more):
    keypoints = [10 + i, 20, 2] * 17 if keypoints is None else keypoints
    base = {"id": i, "image_id": image_id, "category_id": 1, "num_keypoints": 17, "iscrowd": 0, "area": 400.0}
    return {**base, "bbox": [5, 5, 20, 20], "keypoints": keypoints, **more}


def content(**changes):
    data = {
        "info": {"year": 2026},
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48, "camera": "mine"}],
        "annotations": [person(1, mood="happy"), person(2)],
        "categories": [COCO17.to_coco()],
    }
    return {**data, **changes}


def save(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


@pytest.fixture
def file(tmp_path):
    return save(tmp_path / "people.json", content())


def test_reads_typed_and_writes_back(file, tmp_path):
    coco = read_coco(file)
    assert coco.images[0].width == 64 and coco.annotations[1].id == 2
    assert skeleton_of(coco) == COCO17
    write_coco(tmp_path / "new" / "copy.json", coco)
    assert read_coco(tmp_path / "new" / "copy.json") == coco
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["copy.json"]


def shoulders(left, right):
    keypoints = [0] * 51
    i, j = COCO17.index("left_shoulder"), COCO17.index("right_shoulder")
    keypoints[3 * i : 3 * i + 3], keypoints[3 * j : 3 * j + 3] = left, right
    return keypoints


@pytest.mark.parametrize(
    "left, right, rounded, exact",
    [
        ([10, 20, 2], [13, 25, 2], [12, 22, 2], [11.5, 22.5, 2]),  # 11.5 → 12, 22.5 → 22: half to even
        ([10, 20, 1], [14, 24, 2], [12, 22, 1], [12, 22, 1]),
        ([10, 20, 1], [14, 24, 1], [12, 22, 1], [12, 22, 1]),
        ([10, 20, 2], [0, 0, 0], [5, 10, 0], [0, 0, 0]),
        ([0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]),
        ([0, 20, 2], [4, 20, 2], [2, 20, 2], [2, 20, 2]),  # x == 0 is a place like any other
    ],
)
def test_neck_rule(tmp_path, left, right, rounded, exact):
    path = save(tmp_path / "a.json", content(annotations=[person(keypoints=shoulders(left, right))]))
    coco = read_coco(path)
    for how, expected in ((True, rounded), (False, exact)):
        with_neck = insert_neck(coco, rounded=how).annotations[0]
        assert with_neck.keypoints == [*coco.annotations[0].keypoints, *expected]
        assert with_neck.num_keypoints == 17
    assert len(coco.annotations[0].keypoints) == 51


def test_neck_rewires_the_category_and_keeps_the_others(tmp_path):
    dog = {"id": 7, "name": "dog", "keypoints": ["head", "tail"], "skeleton": [[1, 2]]}
    kept = person(5, category_id=7, keypoints=[1, 2, 2, 3, 4, 2])
    crowd = person(6, keypoints=[])
    coco = read_coco(
        save(tmp_path / "a.json", content(annotations=[person(), kept, crowd], categories=[COCO17.to_coco(), dog]))
    )
    changed = insert_neck(coco)
    assert skeleton_of(changed, "person") == COCO18_NECK
    assert changed.annotations[1:] == coco.annotations[1:] and changed.categories[1] == coco.categories[1]
    with pytest.raises(ValueError, match="has a neck already"):
        insert_neck(changed)


def test_neck_file_keeps_every_other_key_and_the_input(file, tmp_path):
    before = file.read_bytes()
    insert_neck_file(file, tmp_path / "neck.json")
    old, new = json.loads(before), json.loads((tmp_path / "neck.json").read_text())
    assert file.read_bytes() == before
    assert new["annotations"][0]["mood"] == "happy" and new["images"][0]["camera"] == "mine"
    for a, b in zip(old["annotations"], new["annotations"]):
        assert b["keypoints"] == a["keypoints"] + [10 + a["id"], 20, 2]
        assert {k: v for k, v in a.items() if k != "keypoints"} == {k: v for k, v in b.items() if k != "keypoints"}
    assert read_coco(tmp_path / "neck.json").categories[0].keypoints[-1] == "neck"
    with pytest.raises(ValueError, match="another target"):
        insert_neck_file(file, tmp_path / "." / "people.json")


def broken(**of_annotation):
    return content(annotations=[person(1), person(9, **of_annotation)])


@pytest.mark.parametrize(
    "data, message",
    [
        ("{not json", "not a JSON file"),
        ("[1, 2]", "not a COCO keypoint file"),
        ({"shapes": [], "version": "5"}, "not a COCO keypoint file.*images"),
        (json.dumps(broken(keypoints=[float("nan")] * 51)), "not a JSON file: .*NaN and Infinity are no JSON either.*doctor"),
        (broken(keypoints=["1"] * 51), r"annotations\[1\].keypoints"),
        (broken(keypoints=[1, 2, 2] * 8), "annotation 9 has 24 keypoint numbers.*17 keypoints needs 51"),
        (broken(keypoints=[1, 2, 3] * 17), "annotation 9 has the visibility 3"),
        (broken(bbox=[1, 2, 3]), "annotation 9 has a bbox of 3 numbers"),
        (broken(segmentation=[[1, 2, 3]]), "annotation 9 has a polygon with an odd"),
        (broken(image_id=4), "annotation 9 is for image_id 4"),
        (broken(category_id=4), "annotation 9 has category_id 4"),
        (content(annotations=[person(3), person(3)]), "annotations use the id 3 twice"),
        (content(images=[{"id": 1, "file_name": "a.jpg", "width": 0, "height": 5}]), "image 1 has the size 0×5"),
        *[
            (content(images=[{"id": 1, "file_name": name, "width": 5, "height": 5}]), "leaves the image folder")
            for name in ("../a.jpg", "/etc/passwd", "x/../../a.jpg", "..\\a.jpg", "C:\\a.jpg", "")
        ],
    ],
)
def test_bad_files_are_one_clear_error(tmp_path, data, message):
    path = save(tmp_path / "bad.json", data)
    with pytest.raises(ValueError, match=message) as error:
        read_coco(path)
    assert str(path) in str(error.value)


def test_numbers_that_are_not_finite_are_not_written(file, tmp_path):
    coco = read_coco(file)
    bad = msgspec.structs.replace(coco.annotations[0], keypoints=[float("nan"), 0, 2] * 17)
    with pytest.raises(ValueError, match="annotation 1 .*not finite"):
        write_coco(tmp_path / "out.json", msgspec.structs.replace(coco, annotations=[bad]))
    assert not (tmp_path / "out.json").exists()


def test_category_is_named_or_unique(file, tmp_path):
    with pytest.raises(KeyError, match="no category 'cat'; the file has 'person'"):
        read_coco(file, "cat")
    both = content(annotations=[], categories=[COCO17.to_coco(), {**COCO17.to_coco(2), "name": "robot"}])
    coco = read_coco(save(tmp_path / "two.json", both))
    assert category_named(coco, "robot").id == 2
    with pytest.raises(KeyError, match="'person', 'robot'"):
        category_named(coco)
    without = read_coco(save(tmp_path / "none.json", content(annotations=[], categories=[{"id": 1, "name": "car"}])))
    with pytest.raises(KeyError, match="found none"):
        category_named(without)


def make(folder, *names):
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir() if target.suffix == "" else target.write_text("{}")


def test_find_split_understands_four_layouts(tmp_path):
    ours, official, flat, mpii = tmp_path / "ours", tmp_path / "coco", tmp_path / "flat", tmp_path / "mpii"
    make(ours, "annotations/robot_keypoints_val.json", "val")
    make(official, "annotations/person_keypoints_val2017.json", "annotations/captions_val2017.json", "val2017")
    make(flat, "mine.json", "images")
    assert find_split(ours, "val") == (ours / "annotations/robot_keypoints_val.json", ours / "val")
    assert find_split(official, "val") == (official / "annotations/person_keypoints_val2017.json", official / "val2017")
    make(mpii, "annotations/mpii_keypoints_train.json", "annotations/mpii_keypoints_val.json", "images")
    assert find_split(mpii, "val") == (mpii / "annotations/mpii_keypoints_val.json", mpii / "images")
    assert find_split(flat, "train") == find_split(flat, "val") == (flat / "mine.json", flat / "images")
    with pytest.raises(FileNotFoundError, match="no 'train' split"):
        find_split(ours, "train")
    make(flat, "second.json")
    with pytest.raises(ValueError, match="mine.json, second.json"):
        find_split(flat, "val")


def test_odd_bytes_and_endless_numbers_are_one_sentence(tmp_path):
    path = tmp_path / "labels.json"
    path.write_bytes('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "Käfer"}]}'.encode("latin-1"))
    with pytest.raises(ValueError, match="labels.json: not a JSON file"):
        read_coco(path)
    path.write_text('{"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}], "categories": [{"id": 1, '
                    '"name": "dot", "keypoints": ["dot"]}], "annotations": [{"id": 5, "image_id": 1, "category_id": 1, '
                    f'"keypoints": [1{"0" * 400}, 1.5, 2]}}]}}')  # fmt: skip
    with pytest.raises(ValueError, match=r"labels.json: (annotation 5 .* not finite|not a)"):
        read_coco(path)
