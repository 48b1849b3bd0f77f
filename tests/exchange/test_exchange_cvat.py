"""The CVAT zip: nothing is lost in it, CVAT's rules are kept, and a hostile one is refused."""

import json
import stat
import zipfile
from xml.etree import ElementTree

import cv2
import msgspec
import numpy as np
import pytest

from lib.data.coco import CocoFile, read_coco
from lib.exchange import cvat_labels, read_any, sources, write_cvat_zip
from lib.skeleton import BUILT_IN, Skeleton
from tests.exchange.fixtures_of_tools import (
    coco_annotator,
    cvat,
    label_studio_coco,
    label_studio_tasks,
    roboflow,
    save,
    zipped,
)


def facts(coco: CocoFile):
    """What must survive, by names instead of ids."""
    images = {i.id: (i.file_name, i.width, i.height) for i in coco.images}
    categories = {c.id: c for c in coco.categories if c.keypoints}
    people = [
        (images[a.image_id], categories[a.category_id].name, a.keypoints, a.num_keypoints, a.bbox, a.area, a.iscrowd)
        for a in coco.annotations
        if a.category_id in categories
    ]
    return sorted(images.values()), [(c.name, c.keypoints, c.skeleton, c.sigmas) for c in categories.values()], people


@pytest.mark.parametrize(
    "export",
    [
        coco_annotator(),
        coco_annotator(annotations__1__keypoints=[30, 40, 2, 20, 30, 0, 70.25, 30, 1], annotations__0__iscrowd=True),
        cvat(),
        label_studio_coco(),
        label_studio_tasks(),
        roboflow(),
    ],
    ids=["coco_annotator", "coco_annotator v=0", "cvat", "label_studio coco", "label_studio", "roboflow"],
)
def test_every_reader_to_zip_and_back_loses_nothing(tmp_path, export):
    ours, _ = read_any(save(tmp_path / "export.json", export))
    write_cvat_zip(tmp_path / "cvat.zip", ours)
    back, changes = read_any(tmp_path / "cvat.zip", "cvat")
    assert facts(back) == facts(ours) and facts(ours)[2]
    assert set(changes.lines) <= {"a position with v = 0: kept, not labelled"}
    write_cvat_zip(tmp_path / "again.zip", back)
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "cvat.zip").read_bytes()


def test_the_zip_is_what_cvat_asks_for(tmp_path):
    ours, _ = read_any(
        save(tmp_path / "a.json", coco_annotator(annotations__1__keypoints=[30, 40, 2, 20, 30, 0, 7, 3, 1]))
    )
    before = msgspec.json.encode(ours)
    changes = write_cvat_zip(tmp_path / "cvat.zip", ours)
    assert msgspec.json.encode(ours) == before
    with zipfile.ZipFile(tmp_path / "cvat.zip") as archive:
        assert archive.namelist() == ["annotations/person_keypoints_default.json", "images/default/"]
        content = json.loads(archive.read("annotations/person_keypoints_default.json"))
    for rows in ("images", "annotations", "categories"):
        assert all(type(row["id"]) is int and row["id"] >= 1 for row in content[rows])
    assert all(
        c["keypoints"] and isinstance(c["skeleton"], list) and not c["supercategory"] for c in content["categories"]
    )
    for a in content["annotations"]:
        assert a["segmentation"] == [] and len(a["bbox"]) == 4 and a["iscrowd"] in (0, 1) and type(a["iscrowd"]) is int
        assert len(a["keypoints"]) == 9 and set(a["keypoints"][2::3]) <= {0, 1, 2}
    assert content["annotations"][1]["keypoints"] == [30, 40, 2, 20, 30, 0, 7, 3, 1]  # v = 0 keeps its place
    text = str(changes)
    assert "skeletons only" in text and "polygons of masks" in text and "annotation 902" in text


def test_a_hand_made_file_without_boxes_is_completed(tmp_path):
    data = {"images": [{"id": 0, "file_name": "a.jpg", "width": 50, "height": 50}],
            "annotations": [{"id": 0, "image_id": 0, "category_id": 0, "keypoints": [10, 20, 2, 30, 40, 1]}],
            "categories": [{"id": 0, "name": "stick", "keypoints": ["a", "b"]}]}  # fmt: skip
    write_cvat_zip(tmp_path / "cvat.zip", read_coco(save(tmp_path / "a.json", data)))
    a = read_any(tmp_path / "cvat.zip", "cvat")[0].annotations[0]
    assert (a.id, a.category_id, a.bbox, a.num_keypoints) == (1, 1, [5, 15, 30, 30], 2)


def test_pictures_go_in_under_their_paths(tmp_path):
    ours, _ = read_any(save(tmp_path / "a.json", cvat()))
    (tmp_path / "pictures/sub").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="sub/a.jpg: this picture is in the annotations"):
        write_cvat_zip(tmp_path / "cvat.zip", ours, "train", tmp_path / "pictures")
    assert not (tmp_path / "cvat.zip").exists()
    cv2.imwrite(str(tmp_path / "pictures/sub/a.jpg"), np.zeros((80, 100, 3), np.uint8))
    write_cvat_zip(tmp_path / "cvat.zip", ours, "train", tmp_path / "pictures")
    with zipfile.ZipFile(tmp_path / "cvat.zip") as archive:
        assert archive.read("images/train/sub/a.jpg") == (tmp_path / "pictures/sub/a.jpg").read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert facts(read_any(tmp_path / "cvat.zip")[0]) == facts(ours)


def test_what_cvat_cannot_take_is_said(tmp_path):
    ours, _ = read_any(save(tmp_path / "a.json", coco_annotator(images__1__file_name="a.png")))
    assert any("by their extension" in rule for rule in write_cvat_zip(tmp_path / "c.zip", ours).severe)
    with pytest.raises(ValueError, match="subset 'a/b'"):
        write_cvat_zip(tmp_path / "c.zip", ours, "a/b")
    ours.categories = [c for c in ours.categories if not c.keypoints]
    with pytest.raises(ValueError, match="no category has keypoints"):
        write_cvat_zip(tmp_path / "c.zip", ours)


@pytest.mark.parametrize(
    "name", ["../evil.json", "/evil.json", "annotations/../../evil.json", "C:\\evil.json", "x\\..\\..\\y"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("annotations/person_keypoints_default.json", json.dumps(cvat()))
        archive.writestr(name, "{}")
    with pytest.raises(ValueError, match="leaves its folder"):
        read_any(tmp_path / "evil.zip", "cvat")


def test_links_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        entry = zipfile.ZipInfo("annotations/person_keypoints_default.json")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(ValueError, match="is a link"):
        read_any(tmp_path / "evil.zip", "cvat")


def test_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    bomb = zipped(tmp_path / "bomb.zip", annotations__person_keypoints_default_dot_json=b" " * (65 * 2**20))
    assert bomb.stat().st_size < 2**20
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(ValueError, match="would unpack from .* to 68157440 bytes: refused"):
        read_any(bomb, "cvat")
    monkeypatch.setattr(sources, "MAX_ENTRIES", 3)
    with pytest.raises(ValueError, match="4 entries are more than the 3"):
        read_any(zipped(tmp_path / "many.zip", a="", b="", c="", d=""), "cvat")


def test_damaged_zips_are_one_sentence(tmp_path):
    whole = zipped(tmp_path / "a.zip", annotations__person_keypoints_default_dot_json=cvat()).read_bytes()
    (tmp_path / "b.zip").write_bytes(whole[:50] + b"\0" * 40 + whole[90:])
    (tmp_path / "c.zip").write_bytes(whole[:200])
    (tmp_path / "d.zip").write_bytes(whole[:150] + bytes(255 - b for b in whole[150:170]) + whole[170:])
    for name in ("b.zip", "c.zip", "d.zip"):
        with pytest.raises(ValueError, match=f"{name}.*(damaged|not a JSON|without its end)"):
            read_any(tmp_path / name, "cvat")


@pytest.mark.parametrize("name", BUILT_IN)
def test_labels_have_a_point_per_keypoint_and_a_line_per_limb(name):
    skeleton = BUILT_IN[name]
    (label,) = cvat_labels(skeleton)
    assert label["name"] == skeleton.name and label["type"] == "skeleton" and label["attributes"] == []
    assert [s["name"] for s in label["sublabels"]] == list(skeleton.keypoints)
    assert {s["type"] for s in label["sublabels"]} == {"points"} and "id" not in label
    drawing = ElementTree.fromstring(f"<svg>{label['svg']}</svg>")
    circles = drawing.findall("circle")
    assert [c.get("data-label-name") for c in circles] == list(skeleton.keypoints)
    assert [c.get("data-node-id") for c in circles] == [c.get("data-element-id") for c in circles]
    assert [int(c.get("data-node-id")) for c in circles] == list(range(1, skeleton.num_keypoints + 1))
    assert {c.get("data-type") for c in circles} == {"element node"}
    places = np.array([[float(c.get("cx")), float(c.get("cy"))] for c in circles])
    assert places.min() >= 5 and places.max() <= 95 and len(np.unique(places, axis=0)) == len(places)
    ends = [(int(e.get("data-node-from")) - 1, int(e.get("data-node-to")) - 1) for e in drawing.findall("line")]
    assert ends == list(skeleton.limbs) and {e.get("data-type") for e in drawing.findall("line")} == {"edge"}


def test_labels_of_an_animal_and_of_names_cvat_cannot_have():
    one = Skeleton("dot", ["only"], [], [], [0.1])
    assert 'cx="50.00"' in cvat_labels(one)[0]["svg"]
    with pytest.raises(ValueError, match="cannot have a label called"):
        cvat_labels(Skeleton("dot", ['a"b'], [], [], [0.1]))


def test_a_hostile_name_is_refused_with_the_zip_it_is_in(tmp_path):
    path = zipped(tmp_path / "a.zip", annotations__person_keypoints_default_dot_json=cvat())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../x.jpg", b"x")
    with pytest.raises(ValueError, match=r"a\.zip: '../../x.jpg' leaves its folder"):
        read_any(path, "cvat")
