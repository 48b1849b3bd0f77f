import copy
import json
import math

import pytest

from lib.__main__ import main
from lib.data.coco import find_split, read_coco
from lib.data.synthetic import write_dataset
from lib.doctor import examine, repair
from lib.doctor.mending import FIXES
from lib.skeleton import COCO17


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """A healthy set of 16 pictures: its content and the folder of the pictures."""
    file, images = find_split(write_dataset(tmp_path_factory.mktemp("set"), 16, 2, workers=1), "train")
    content = json.loads(file.read_text())
    content["info"]["camera"] = "mine"
    for k, annotation in enumerate(content["annotations"]):
        annotation["mood"] = k
    return content, images


@pytest.fixture
def broken(healthy, tmp_path):
    """Break a copy of the set: function that changes the content → path of the file."""

    def save(change=lambda c: c, name="broken.json"):
        content = copy.deepcopy(healthy[0])
        content = change(content) or content
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return save


def people(content, at_least=12):
    """Annotations with many labelled keypoints, not crowds."""
    return [a for a in content["annotations"] if a.get("num_keypoints", 0) >= at_least]


def keypoint(annotation, name, value=None):
    k = COCO17.index(name)
    if value is not None:
        annotation["keypoints"][3 * k : 3 * k + 3] = value
    return annotation["keypoints"][3 * k : 3 * k + 3]


def exchange(annotation, *parts):
    for part in parts or {name.split("_")[1] for name in COCO17.keypoints if "_" in name}:
        left, right = keypoint(annotation, f"left_{part}"), keypoint(annotation, f"right_{part}")
        keypoint(annotation, f"left_{part}", right), keypoint(annotation, f"right_{part}", left)


def each(entries, **values):
    for entry in entries:
        entry.update(values)


def doubled(content, change=lambda a: a, people_=2):
    for a in people(content)[:people_]:
        twin = copy.deepcopy(a)
        change(twin)
        content["annotations"].append(twin)


def new_id(annotation):
    annotation["id"] += 10**6


def shifted(annotation):
    new_id(annotation)
    annotation["keypoints"] = [n + 0.5 if i % 3 < 2 and n else n for i, n in enumerate(annotation["keypoints"])]


def as_fractions(content):
    sizes = {image["id"]: (image["width"], image["height"], 1) for image in content["images"]}
    for a in people(content):
        a["keypoints"] = [n / sizes[a["image_id"]][i % 3] for i, n in enumerate(a["keypoints"])]
        a["bbox"] = [n / sizes[a["image_id"]][i % 2] for i, n in enumerate(a["bbox"])]


def as_corners(content):
    for a in content["annotations"]:
        x, y, w, h = a["bbox"]
        a["bbox"] = [x, y, x + w, y + h]


def of_category(content, row=0, **values):
    content["categories"][row].update(values)


def drop_keys(entries, *keys):
    for entry in entries:
        for key in keys:
            del entry[key]


def reordered(annotation, order):
    annotation["keypoints"] = [n for k in order for n in annotation["keypoints"][3 * k : 3 * k + 3]]


# what is done to the file → what must be found, how often (None: everybody)
FAULTS = {
    "NaN in the file": ("not_strict_json", 1, lambda c: of_category(c, score=math.nan)),
    "entries that are no objects": ("not_an_object", 2, lambda c: c["annotations"].extend([None, "x"])),
    "ids as text": ("image_types", 3, lambda c: [i.update(id=str(i["id"])) for i in c["images"][:3]]),
    "numbers as text": ("annotation_types", 2, lambda c: [a.update(bbox=[str(n) for n in a["bbox"]]) for a in people(c)[:2]]),
    "v as true": ("annotation_types", 1, lambda c: keypoint(people(c)[0], "nose", [50, 50, True])),
    "points in lists": ("annotation_types", 1, lambda c: people(c)[0].update(
        keypoints=[list(p) for p in zip(*[iter(people(c)[0]["keypoints"])] * 3)])),
    "image ids missing": ("image_id_missing", 1, lambda c: c["images"].append({**c["images"][0], "id": None, "file_name": "n"})),
    "annotation ids missing": ("annotation_id_missing", 2, lambda c: drop_keys(people(c)[:2], "id")),
    "image ids twice": ("image_id_twice", 1, lambda c: c["images"].append({**c["images"][0], "file_name": "other.jpg"})),
    "annotation ids twice": ("annotation_id_twice", 2, lambda c: doubled(c, lambda a: keypoint(a, "nose", [90, 90, 2]))),
    "category ids twice": ("category_id_twice", 1, lambda c: c["categories"].append({**c["categories"][0], "name": "b"})),
    "annotations of no image": ("unknown_image", 2, lambda c: each(people(c)[:2], image_id=987654)),
    "annotations of no category": ("unknown_category", 2, lambda c: each(people(c)[:2], category_id=0)),
    "hostile names": ("image_name", 4, lambda c: [i.update(file_name=n) for i, n in
                                                zip(c["images"], ("../x.jpg", "/etc/passwd", "C:\\x.jpg", None))]),
    "one file, two images": ("image_twice", 1, lambda c: c["images"].append({**c["images"][0], "id": 555})),
    "sizes missing": ("image_size", 2, lambda c: each(c["images"][:2], width=0)),
    "sigmas of another skeleton": ("category_malformed", 1, lambda c: of_category(c, sigmas=[0.1])),
    "names twice": ("category_malformed", 1, lambda c: of_category(c, keypoints=["nose"] * 17)),
    "links from 0": ("skeleton_from_zero", 1, lambda c: of_category(c, skeleton=list(map(list, COCO17.limbs)))),
    "links out of range": ("skeleton_links", 1, lambda c: c["categories"][0]["skeleton"].append([3, 18])),
    "another length": ("keypoint_count", 3, lambda c: [a.update(keypoints=a["keypoints"][:45]) for a in people(c)[:3]]),
    "surplus keypoints": ("keypoint_count", 1, lambda c: people(c)[0]["keypoints"].extend([1, 2, 2])),
    "pairs without v": ("keypoint_count", 2, lambda c: [a.update(keypoints=[n for i, n in enumerate(a["keypoints"])
                                                                         if i % 3 < 2]) for a in people(c)[:2]]),
    "keypoints as text": ("keypoint_count", 1, lambda c: each(people(c)[:1], keypoints="nose")),
    "a category without names": ("keypoints_without_names", 2, lambda c: (
        c["categories"].append({"id": 7, "name": "box"}), each(people(c)[:2], category_id=7))),
    "infinite": ("not_finite", 1, lambda c: keypoint(people(c)[0], "nose", [math.inf, 20, 2])),
    "other visibilities": ("visibility", 2, lambda c: [keypoint(a, "nose", [60, 60, v])
                                                       for a, v in zip(people(c), (3, 0.7))]),
    "num_keypoints lies": ("num_keypoints", 3, lambda c: each(people(c)[:3], num_keypoints=0)),
    "fractions": ("fractions", None, as_fractions),
    "labelled at 0, 0": ("labelled_at_origin", 2, lambda c: [keypoint(a, "nose", [0, 0, 2]) for a in people(c)[:2]]),
    "outside": ("keypoints_outside", 2, lambda c: [keypoint(a, "nose", [-40, 20, 2]) for a in people(c)[:2]]),
    "an odd polygon": ("segmentation", 2, lambda c: [a["segmentation"].append([1, 2, 3]) for a in people(c)[:2]]),
    "a mask of another size": ("segmentation", 1, lambda c: each(people(c)[:1], segmentation={"size": [3, 3], "counts": [9]})),
    "corner boxes": ("boxes_as_corners", None, as_corners),
    "no boxes": ("box_missing", 3, lambda c: drop_keys(people(c)[:3], "bbox")),
    "empty boxes": ("box_missing", 2, lambda c: each(people(c)[:2], bbox=[0, 0, 0, 0])),
    "boxes out of the image": ("box_outside", 1, lambda c: people(c)[0]["bbox"].__setitem__(2, 900)),
    "boxes too small": ("box_misses_keypoints", 1, lambda c: each(people(c, 17)[:1], bbox=[1, 1, 3, 3])),
    "no areas": ("area_missing", 2, lambda c: each(people(c)[:2], area=0)),
    "crowd flags": ("crowd_flag", None, lambda c: [a.update(iscrowd=bool(a["iscrowd"])) for a in c["annotations"]]),
    "people twice": ("person_twice", 2, lambda c: doubled(c, new_id)),
    "people nearly twice": ("person_nearly_twice", 2, lambda c: doubled(c, shifted)),
    "everybody's sides": ("sides_exchanged", None, lambda c: [exchange(a) for a in people(c, 1)]),
    "everybody's hips": ("pair_exchanged", None, lambda c: [exchange(a, "hip") for a in people(c, 1)]),
    "everybody's legs": ("pair_exchanged", None, lambda c: [exchange(a, "hip", "knee", "ankle") for a in people(c, 1)]),
    "a crowd with keypoints": ("crowd_with_keypoints", 1, lambda c: each(people(c)[:1], iscrowd=1)),
    "names without a twin": ("names_without_twin", 1, lambda c: of_category(
        c, keypoints=[n.replace("left_ear", "left_year") for n in COCO17.keypoints])),
    "numbers for names": ("names_say_nothing", 1, lambda c: of_category(c, keypoints=[f"kp_{k}" for k in range(17)])),
    "a keypoint never labelled": ("keypoint_never_labelled", 1, lambda c: [keypoint(a, "nose", [0, 0, 0])
                                                                         for a in people(c, 1)]),
    "another order": ("names_in_other_order", 1, lambda c: of_category(c, keypoints=[*COCO17.keypoints[::-1]])),
    "keypoints of another order": ("order_doubtful", 1, lambda c: [reordered(a, (*range(7, 17), *range(7)))
                                                                 for a in people(c, 1)]),
    "category 0": ("category_id_zero", 1, lambda c: (of_category(c, id=0), each(c["annotations"], category_id=0))),
    "no category": ("no_keypoint_names", 1, lambda c: of_category(c, keypoints=[], skeleton=[])),
    "no image": ("no_images", 1, lambda c: c.update(images=[], annotations=[])),
    "no annotation": ("nothing_labelled", 1, lambda c: c.update(annotations=[])),
    "an unused category": ("class_balance", 1, lambda c: c["categories"].append({"id": 2, "name": "dog"})),
}  # fmt: skip


def test_healthy_is_healthy(healthy, broken):
    found = examine(broken(), healthy[1])
    assert not found.severe and set(found.codes()) <= {"image_empty", "limbs_crossed"}, str(found)


def test_a_few_keypoints_far_apart_are_no_fault(tmp_path):
    """A beetle of six, whose links are right and yet not the shortest."""
    shape = [(0, -50), (-30, 0), (30, 0), (-25, 50), (25, 50), (0, 70)]
    names = ["head", "left_wing", "right_wing", "left_tail", "right_tail", "sting"]
    category = {"id": 1, "name": "beetle", "keypoints": names, "skeleton": [[1, 2], [1, 3], [2, 4], [3, 5], [1, 6]]}
    annotations = [{"id": i + 1, "image_id": i + 1, "category_id": 1, "num_keypoints": 6, "area": 5000, "iscrowd": 0,
                    "bbox": [60 + i, 40, 80, 140],
                    "keypoints": [n for x, y in shape for n in (100 + i + x, 100 + y, 2)]} for i in range(20)]  # fmt: skip
    images = [{"id": i + 1, "file_name": f"{i}.jpg", "width": 300, "height": 300} for i in range(20)]
    file = tmp_path / "beetles.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    assert not examine(file).codes(), str(examine(file))


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_and_mended(fault, broken, healthy, tmp_path):
    code, count, change = FAULTS[fault]
    file, images = broken(lambda c: change(c) and None), healthy[1]
    before = file.read_bytes()
    # sizes can only be mended from the pictures
    found = examine(file, images if code == "image_size" else None)
    assert code in found.codes(), str(found)
    assert count is None or found[code].count == count, str(found)
    assert found[code].examples and str(found) and found[code].fixable == (code in FIXES)
    out = tmp_path / "mended.json"
    if found[code].fixable:
        mended = repair(file, out, images if code == "image_size" else None)
        after = examine(out)
        assert mended[code] == found[code].count and code not in after.codes() and not after.severe, str(after)
        assert len(read_coco(out).annotations) > 15
        content = json.loads(out.read_text())
        assert content["info"]["camera"] == "mine" and all("mood" in a for a in content["annotations"])
    assert file.read_bytes() == before


def ten_faults(content):
    """Ten of the faults in one file, on people of their own."""
    c, a = content, people(content)
    a[0]["id"] = a[1]["id"]
    a[2]["image_id"] = 987654
    a[3]["num_keypoints"] = 0
    keypoint(a[4], "nose", [0, 0, 2])
    keypoint(a[5], "nose", [-40, 20, 2])
    a[6]["bbox"] = [1, 1, 3, 3]
    a[7]["area"] = 0
    c["annotations"].append({**copy.deepcopy(a[8]), "id": 555})
    c["images"][0]["file_name"] = "../escape.jpg"
    keypoint(a[9], "left_eye", [60, 60, 7])
    c["categories"][0]["skeleton"].append([1, 40])
    exchange(front_facing(content, a[10:]))


def front_facing(content, candidates):
    clear = ("left_eye", "right_eye", "nose")
    return next(a for a in candidates if all(keypoint(a, n)[2] == 2 for n in clear)
                and keypoint(a, "left_eye")[0] - keypoint(a, "right_eye")[0] > 6)  # fmt: skip


def width(annotation, part):
    """How far the left one lies to the right of the right one, in pixels."""
    return keypoint(annotation, f"left_{part}")[0] - keypoint(annotation, f"right_{part}")[0]


def test_single_crossed_limbs_are_told(broken):
    chosen = []

    def cross_three(content):
        wide = [a for a in people(content, 17) if min(width(a, "shoulder"), width(a, "hip")) > 0.25 * a["bbox"][2]]
        chosen.extend(a["id"] for a in wide[:3])
        for a in wide[:3]:
            exchange(a, "hip", "knee", "ankle")

    found = examine(broken(cross_three))["limbs_crossed"]
    texts = " ".join(example.text for example in found.examples)
    assert len(chosen) == 3 and all(f"annotation {i} " in texts for i in chosen), str(found)
    assert not found.fixable  # one person is no statistic: somebody has to look


def test_the_viewers_left_is_told_from_a_whole_exchange(tmp_path):
    file, _ = find_split(write_dataset(tmp_path / "set", 60, 1, workers=1), "train")
    content = json.loads(file.read_text())
    from_behind = [a for a in people(content) if width(a, "shoulder") < 0]
    for a in people(content, 1):
        if width(a, "shoulder") > 0:
            exchange(a)  # now every left lies at the image's left
    file.write_text(json.dumps(content))
    mended = repair(file, tmp_path / "mended.json")
    assert mended["sides_exchanged"] < len(people(content, 1))
    after = {a.id: a.keypoints for a in read_coco(tmp_path / "mended.json").annotations}
    assert len(from_behind) > 10 and all(after[a["id"]] == a["keypoints"] for a in from_behind)


@pytest.mark.parametrize(
    "change",
    [
        lambda k, w, h: [k[1], k[0]],
        lambda k, w, h: [k[0] * 0.4, k[1] * 0.4],
    ],
    ids=["x and y exchanged", "of smaller pictures"],
)
def test_keypoints_that_are_measured_otherwise_are_not_mended_by_their_boxes(broken, healthy, tmp_path, change):
    def all_of_them(content):
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        for a in content["annotations"]:
            k = a["keypoints"]
            for i in range(0, len(k), 3):
                k[i : i + 2] = change(k[i : i + 2], *sizes[a["image_id"]])

    file, out = broken(all_of_them), tmp_path / "mended.json"
    found = examine(file)
    assert found.severe and found["boxes_apart"].count > 10, str(found)
    assert not {"keypoints_outside", "box_misses_keypoints", "sides_exchanged", "pair_exchanged"} & found.codes().keys()
    repair(file, out)
    before, after = (json.loads(path.read_text())["annotations"] for path in (file, out))
    assert [(a["keypoints"], a["bbox"]) for a in before] == [(a["keypoints"], a["bbox"]) for a in after]


TEN = {"annotation_id_twice": 1, "unknown_image": 1, "num_keypoints": 1, "labelled_at_origin": 1, "keypoints_outside": 1,
       "box_misses_keypoints": 1, "area_missing": 1, "person_twice": 1, "image_name": 1, "visibility": 1,
       "skeleton_links": 1, "face_mirrored": 1}  # fmt: skip


def test_ten_faults_in_one_file(broken, healthy, tmp_path, capsys):
    file, out = broken(ten_faults), tmp_path / "mended.json"
    found = examine(file)
    assert {code: n for code, n in found.codes().items() if code in TEN} == TEN, str(found)
    assert main(["doctor", str(file), "--fix", str(out)]) == 0  # the copy's status
    assert "annotation_id_twice (1)" in capsys.readouterr().out
    read_coco(out)
    left = examine(out)
    assert not left.severe and set(left.codes()) & TEN.keys() == {"face_mirrored"}, str(left)
