"""Every quirk of the tools' exports, one case each: what comes out, and that the report says so."""

import copy
import json

import cv2
import numpy as np
import pytest

from lib.data.coco import check_coco, read_coco, write_coco
from lib.exchange import read_any
from lib.exchange.sources import recognise
from tests.exchange.fixtures_of_tools import (
    DROP,
    NAMES,
    coco_annotator,
    cvat,
    label_studio_coco,
    label_studio_tasks,
    point,
    rectangle,
    roboflow,
    save,
    task,
    zipped,
)


def read(tmp_path, data, **how):
    coco, changes = read_any(save(tmp_path / "export.json", data), **how)
    check_coco(coco)
    write_coco(tmp_path / "written.json", coco)
    assert read_coco(tmp_path / "written.json") == coco
    return coco, changes


def line(changes, start):
    """The one line whose rule starts so."""
    found = [(rule, line) for rule, line in changes.lines.items() if rule.startswith(start)]
    assert len(found) == 1, str(changes)
    return found[0][1]


def severities(changes):
    return {rule: line.severity for rule, line in changes.lines.items()}


@pytest.mark.parametrize(
    "data, tool, sign",
    [
        (coco_annotator(), "coco_annotator", "dataset_id"),
        (coco_annotator(images=[{"id": 41, "file_name": "a.jpg"}]), "coco_annotator", "keypoint_colors"),
        (cvat(), "cvat", "Datumaro"),
        (label_studio_coco(), "label_studio", "contributor"),
        (label_studio_tasks(), "label_studio", "tasks"),
        ([{"id": 1, "data": {}, "completions": []}], "label_studio", "tasks"),
        (roboflow(), "roboflow", "info"),
        (roboflow(info={}), "roboflow", "grouping category"),
        (roboflow(info={}, categories=[]), "roboflow", "NAME.rf.HASH"),
        ({"images": [], "annotations": [], "categories": []}, "coco", "no sign"),
        ({"info": None, "images": [], "annotations": [], "categories": []}, "coco", "no sign"),
    ],
)
def test_the_tool_is_recognised_from_the_content(data, tool, sign):
    found, why = recognise(data)
    assert found == tool and sign in why


def test_signs_of_two_tools_are_a_question(tmp_path):
    both = roboflow(licenses=[{"name": "", "id": 0, "url": ""}], images__0__date_captured=0)
    path = save(tmp_path / "both.json", both)
    with pytest.raises(ValueError, match=r"both.json: this could be of cvat \(.*\) and roboflow \(.*--kind"):
        read_any(path)
    assert "as you said" in read_any(path, "roboflow")[1].title


@pytest.mark.parametrize(
    "data, message",
    [
        ({"shapes": []}, "no list of tasks, and no COCO file"),
        ([], "no list of tasks, and no COCO file"),
        ([{"image": "a.jpg", "kp": []}], "not JSON-MIN"),
        ("{", "not a JSON file"),
        ({"images": {}, "annotations": [], "categories": []}, "no list of objects 'images'"),
        ({"images": [3], "annotations": [], "categories": []}, "do not hold what COCO"),
        ({"images": [], "annotations": [3], "categories": []}, "no list of objects 'annotations'"),
        (coco_annotator(images__1__id=41), "two image entries have the id 41"),
        (coco_annotator(categories__1__id=17), "two category entries have the id 17"),
        (coco_annotator(images__0__file_name=None, images__0__path=None), "image 41 has the file_name None"),
        (coco_annotator(images__0__width=None), "image 41 .* None×80 pixels: say --images"),
        ([task(point("nose", 1, 1)) | {"data": {}}], "task 1 has no picture"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, data, message):
    path = save(tmp_path / "bad.json", data)
    with pytest.raises(ValueError, match=message) as error:
        read_any(path)
    assert str(path) in str(error.value)


def test_unknown_kind_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match="kind 'yolo' is none of auto, coco"):
        read_any(tmp_path / "a.json", "yolo")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_any(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match="folder of the pictures does not exist"):
        read(tmp_path, coco_annotator(), images=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no list of objects 'images'"):
        read(tmp_path, label_studio_tasks(), kind="coco_annotator")


# coco-annotator, section by section of its quirks


def test_coco_annotator_as_it_exports(tmp_path):
    coco, changes = read(tmp_path, coco_annotator())
    masked, points, bowl = coco.annotations
    assert [c.name for c in coco.categories] == ["cat", "bowl"] and coco.categories[0].skeleton == [(1, 2), (1, 3)]
    assert (masked.iscrowd, masked.bbox, masked.area) == (0, [10.0, 10.0, 40.0, 30.0], 1200)
    assert masked.keypoints == [30, 20, 2, 25, 15, 1, 0, 0, 0] and bowl.bbox == [1, 1, 8, 8]
    # a tenth of 50 px around (20, 30)–(70, 40), and 0.53 of it
    assert points.bbox == [15, 25, 60, 20] and points.area == pytest.approx(0.53 * 60 * 20)
    assert line(changes, "iscrowd").count == 3 and "900, False → 0" in line(changes, "iscrowd").example
    assert line(changes, "box missing or empty: laid around the labelled").count == 1
    assert line(changes, "area missing").example == "annotation 901, 0 → 636.0"
    assert line(changes, "keys of annotation").count == 3 and "color" in line(changes, "keys of annotation").example
    assert line(changes, "keys of category").example == "color, keypoint_colors, metadata"
    assert not changes.severe
    assert [i.id for i in coco.images] == [41, 42] and points.id == 901 and points.category_id == 17


def test_the_box_is_cut_at_the_image_and_has_a_margin_of_at_least_five_pixels(tmp_path):
    for keypoints, box in [([2, 3, 2, 0, 0, 0, 0, 0, 0], [0, 0, 7, 8]), ([95, 50, 1, 0, 0, 0, 90, 50, 2], [85, 45, 15, 10]),
                           ([300, 50, 2, 0, 0, 0, 0, 0, 0], [295, 45, 10, 10])]:  # fmt: skip
        coco, _ = read(tmp_path, coco_annotator(annotations__1__keypoints=keypoints))
        assert coco.annotations[1].bbox == box


def test_points_outside_the_image_stay_where_they_are(tmp_path):
    keypoints = [-7, 90, 2, 20, 30, 2, 120, -1, 1]
    assert read(tmp_path, coco_annotator(annotations__1__keypoints=keypoints))[0].annotations[1].keypoints == keypoints


@pytest.mark.parametrize("extra, severity", [([50, 60, 0], "warning"), ([50, 60, 2, 1, 1, 0], "severe")])
def test_more_points_than_names(tmp_path, extra, severity):
    keypoints = [30, 40, 2, 20, 30, 2, 70, 30, 2]
    coco, changes = read(tmp_path, coco_annotator(annotations__1__keypoints=keypoints + extra))
    assert coco.annotations[1].keypoints == keypoints
    assert line(changes, "points without a name").severity == severity


def test_fewer_points_than_names(tmp_path):
    coco, changes = read(tmp_path, coco_annotator(annotations__1__keypoints=[30, 40, 2]))
    assert coco.annotations[1].keypoints == [30, 40, 2, 0, 0, 0, 0, 0, 0] and coco.annotations[1].num_keypoints == 1
    assert "901, 3 numbers of 9" in line(changes, "fewer keypoints than names").example


def test_not_in_threes(tmp_path):
    coco, changes = read(tmp_path, coco_annotator(annotations__1__keypoints=[30, 40, 2, 20, 30]))
    assert coco.annotations[1].keypoints == [30, 40, 2, 0, 0, 0, 0, 0, 0]
    assert line(changes, "keypoints that do not come in threes").severity == "severe"


@pytest.mark.parametrize("none", [None, [], DROP])
def test_no_keypoints_but_a_box(tmp_path, none):
    coco, changes = read(tmp_path, coco_annotator(annotations__0__keypoints=none, annotations__0__num_keypoints=DROP))
    assert coco.annotations[0].keypoints == [0] * 9 and coco.annotations[0].num_keypoints == 0
    assert line(changes, "no keypoints: v = 0")


def test_v_0_keeps_its_place_and_is_not_labelled(tmp_path):
    coco, changes = read(tmp_path, coco_annotator(annotations__1__keypoints=[30, 40, 2, 20, 30, 0, 70, 30, 2]))
    assert coco.annotations[1].keypoints[3:6] == [20, 30, 0] and coco.annotations[1].num_keypoints == 2
    assert coco.annotations[1].bbox[0] == 25  # not laid around the unlabelled point
    assert line(changes, "a position with v = 0").count == 1 and "num_keypoints" in str(changes)


@pytest.mark.parametrize(
    "given, kept, severity",
    [
        ([30, 40, True, 20, 30, False, 70, 30, 2.0], [30, 40, 1, 20, 30, 0, 70, 30, 2], "note"),
        ([30, 40, 3, 20, 30, -1, 70, 30, 0.87], [30, 40, 2, 20, 30, 0, 70, 30, 1], "warning"),
        ([30, 40, None, 20, 30, "2", 70, 30, "x"], [30, 40, 0, 20, 30, 2, 70, 30, 0], "warning"),
        ([[30, 40, 2], [20, 30, 1], [70, 30.5, 2]], [30, 40, 2, 20, 30, 1, 70, 30.5, 2], None),
    ],
)
def test_visibility_in_other_writings(tmp_path, given, kept, severity):
    coco, changes = read(tmp_path, coco_annotator(annotations__1__keypoints=given))
    assert coco.annotations[1].keypoints == kept
    assert all(type(v) is int for v in coco.annotations[1].keypoints[2::3])
    assert severity is None or line(changes, "visibility").severity == severity


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf"), "left"])
def test_coordinates_that_are_not_numbers(tmp_path, bad):
    coco, changes = read(tmp_path, coco_annotator(annotations__1__keypoints=[bad, 40, 2, 20, 30, 2, 70, 30, 2]))
    assert coco.annotations[1].keypoints == [0, 0, 0, 20, 30, 2, 70, 30, 2]
    assert line(changes, "coordinates that are not numbers").severity == "severe"


@pytest.mark.parametrize("ids", [[0, 1], ["a", "b"], [2.0, "3"], [-4, 5], [2**60, 5], [None, 3], [7, 7]])
def test_annotation_ids_of_all_kinds(tmp_path, ids):
    coco, changes = read(tmp_path, coco_annotator(annotations__0__id=ids[0], annotations__1__id=ids[1]))
    found = [a.id for a in coco.annotations]
    assert found == ([2, 3, 902] if ids == [2.0, "3"] else [1, 2, 3])
    assert any("annotation id" in rule for rule in changes.lines)


def test_image_and_category_ids_from_0_or_in_other_writings(tmp_path):
    edits = dict(images__0__id=0, annotations__0__image_id="0", categories__0__id=0, annotations__0__category_id=0.0,
                 annotations__1__category_id=0)  # fmt: skip
    coco, changes = read(tmp_path, coco_annotator(**edits))
    assert [i.id for i in coco.images] == [1, 2] and [c.id for c in coco.categories] == [1, 2]
    assert [(a.image_id, a.category_id) for a in coco.annotations] == [(1, 1), (2, 1), (2, 2)]
    assert line(changes, "image ids numbered anew").example == "0 → 1"


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_annotations_of_nothing_are_reported_as_severe(tmp_path, key):
    coco, changes = read(tmp_path, coco_annotator(**{f"annotations__0__{key}": 555}))
    assert len(coco.annotations) == 2
    assert line(changes, f"annotation with an unknown {key}").severity == "severe"


def test_objects_without_anything_are_left_out(tmp_path):
    coco, changes = read(tmp_path, coco_annotator(annotations__1__keypoints=[0] * 9))
    assert [a.id for a in coco.annotations] == [900, 902] and len(coco.images) == 2
    assert line(changes, "annotation without keypoints, box and mask").example == "annotation 901"


def test_names_of_sub_folders_come_back_and_collisions_are_solved(tmp_path):
    edits = dict(
        images__0__path="/datasets/cats/x/a.jpg", images__1__file_name="a.jpg", images__1__path="/datasets/cats/y/a.jpg"
    )
    coco, changes = read(tmp_path, coco_annotator(**edits))
    assert [i.file_name for i in coco.images] == ["x/a.jpg", "y/a.jpg"]
    assert line(changes, "file name completed").count == 2 and not changes.severe


def test_collisions_that_stay_are_severe(tmp_path):
    _, changes = read(tmp_path, coco_annotator(images__1__file_name="a.jpg", images__1__path="a.jpg"))
    assert line(changes, "file name that several images share").severity == "severe"


def test_pictures_are_found_by_the_longest_end_of_their_name(tmp_path):
    (tmp_path / "flat").mkdir()
    cv2.imwrite(str(tmp_path / "flat/a.jpg"), np.zeros((80, 100, 3), np.uint8))
    edits = dict(images__0__path="/datasets/cats/x/a.jpg", images__0__width=None)
    coco, changes = read(tmp_path, coco_annotator(**edits), images=tmp_path / "flat")
    assert coco.images[0].file_name == "a.jpg" and coco.images[0].width == 100
    assert line(changes, "picture is not in the folder").example.startswith("b.jpg")


def test_an_image_without_annotations_and_size_is_left_out(tmp_path):
    data = coco_annotator()
    data["images"].append({"id": 50, "file_name": "empty.jpg", "width": None, "height": None})
    coco, changes = read(tmp_path, data)
    assert len(coco.images) == 2 and line(changes, "image without annotations and size").severity == "warning"
    data["images"][-1] |= {"width": 10.0, "height": "20"}
    assert (read(tmp_path, data)[0].images[2].width, read(tmp_path, data)[0].images[2].height) == (10, 20)


@pytest.mark.parametrize("date", [{"$date": 1700000000000}, {"$date": {"$numberLong": "1700000000000"}},
                                  {"$date": "2023-11-14T22:13:20.000Z"}])  # fmt: skip
def test_dates_of_mongodb(tmp_path, date):
    coco, changes = read(tmp_path, coco_annotator(images__0__date_captured=date))
    assert coco.images[0].date_captured == "2023-11-14T22:13:20.000Z" and line(changes, "date_captured")


def test_the_fatter_variant_by_get(tmp_path):
    fat = {"creator": "me", "width": 100, "height": 80, "dataset_id": 3, "events": [], "milliseconds": 5}
    data = coco_annotator()
    data["annotations"] = [a | fat for a in data["annotations"]]
    data["images"] = [i | {"category_ids": [17], "annotated": True, "events": []} for i in data["images"]]
    coco, changes = read(tmp_path, data)
    assert coco == read(tmp_path, coco_annotator())[0]
    assert "milliseconds" in line(changes, "keys of annotation").example and line(changes, "keys of image").count == 2


def test_categories_without_keypoints(tmp_path):
    data = coco_annotator(annotations__2__keypoints=[1, 2, 2])
    coco, changes = read(tmp_path, data)
    assert not coco.annotations[2].keypoints
    assert line(changes, "keypoints of a category that names none").severity == "severe"
    del data["annotations"][2]
    coco, changes = read(tmp_path, data)
    assert [c.name for c in coco.categories] == ["cat"] and line(changes, "category without keypoints and annotations")


def test_two_categories_of_one_name_stay_two(tmp_path):
    coco, changes = read(tmp_path, coco_annotator(categories__1__name="cat"))
    assert [c.name for c in coco.categories] == ["cat", "cat_2"]
    assert line(changes, "two categories of one name").severity == "severe"


@pytest.mark.parametrize(
    "skeleton, links, rule",
    [
        ([[0, 1], [0, 2]], [(1, 2), (1, 3)], "links counted from 0"),
        ([[1, 2], [2, 1], [3, 3], [1, 9], [1]], [(1, 2)], "link left out"),
        ([[1.0, "3"]], [(1, 3)], None),
        (DROP, [], "category without a skeleton"),
        ([], [], None),
    ],
)
def test_skeletons_of_all_kinds(tmp_path, skeleton, links, rule):
    coco, changes = read(tmp_path, coco_annotator(categories__0__skeleton=skeleton))
    assert coco.categories[0].skeleton == links
    assert rule is None or line(changes, rule)


def test_names_and_sigmas_that_need_care(tmp_path):
    edits = dict(categories__0__keypoints=["nose", " ear ", "ear"], categories__0__sigmas=[0.1, 0.2])
    coco, changes = read(tmp_path, coco_annotator(**edits))
    assert coco.categories[0].keypoints == ["nose", "ear", "ear_2"] and not coco.categories[0].sigmas
    assert line(changes, "keypoint names").severity == line(changes, "sigmas").severity == "warning"
    coco, _ = read(tmp_path, coco_annotator(categories__0__sigmas=[0.1, 0.2, 0.3]))
    assert coco.categories[0].sigmas == [0.1, 0.2, 0.3]


def test_masks_of_all_kinds(tmp_path):
    runs = {"size": [80, 100], "counts": [80 * 10, 80 * 20, 80 * 70]}  # columns 10 to 29
    for segmentation, box, area in [
        ([10, 10, 50, 10, 50, 40, 10, 40], [10, 10, 40, 30], 1200),
        ([[10, 10, 50, 10, 50, 40, 10, 40], [1, 2]], [10, 10, 40, 30], 1200),
        (runs, [10, 0, 20, 80], 1600),
    ]:
        edits = dict(annotations__1__segmentation=segmentation)
        a = read(tmp_path, coco_annotator(**edits))[0].annotations[1]
        assert (a.bbox, a.area) == (box, area)
    for segmentation in ([[]], None, {}, {"size": [1]}):
        a = read(tmp_path, coco_annotator(annotations__1__segmentation=segmentation))[0].annotations[1]
        assert a.segmentation == [] and a.bbox == [15, 25, 60, 20]
    _, changes = read(tmp_path, coco_annotator(annotations__1__segmentation={"size": [1]}))
    assert line(changes, "mask that cannot be read").severity == "severe"


@pytest.mark.parametrize("box", [None, [], [1, 2, 3], [1, 2, -3, 4], [None, 1, 2, 3], "box"])
def test_boxes_that_are_none(tmp_path, box):
    assert read(tmp_path, coco_annotator(annotations__1__bbox=box))[0].annotations[1].bbox == [15, 25, 60, 20]


def test_byte_order_marks(tmp_path):
    path = tmp_path / "bom.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(coco_annotator()).encode())
    assert len(read_any(path)[0].images) == 2


def test_hostile_file_names_stay_inside(tmp_path):
    for name, kept in [("../../etc/passwd", "etc/passwd"), ("/etc/passwd", "passwd"), ("C:\\pictures\\a.jpg", "a.jpg"),
                       ("https://host/x/a%20b.jpg?size=1", "a b.jpg"), ("x\\a.jpg", "x/a.jpg")]:  # fmt: skip
        coco, _ = read(tmp_path, coco_annotator(images__0__file_name=name))
        assert coco.images[0].file_name == kept


# CVAT


def test_cvat_as_it_exports(tmp_path):
    coco, changes = read(tmp_path, cvat())
    a = coco.annotations[0]
    assert a.keypoints == [20.5, 30.25, 2, 55.0, 45.0, 1, 33.5, 12.0, 0] and a.num_keypoints == 2
    assert (a.bbox, a.area, coco.images[0].file_name) == ([20.0, 30.0, 35.0, 15.0], 525.0, "sub/a.jpg")
    assert line(changes, "a position with v = 0") and line(changes, "keys of annotation").example == "attributes"
    assert set(severities(changes).values()) == {"note"}


# Label Studio


def test_label_studio_coco_is_read_and_its_loss_is_told(tmp_path):
    coco, changes = read(tmp_path, label_studio_coco())
    assert [i.id for i in coco.images] == [1] and coco.images[0].file_name == "media/upload/1/ab12cd34-a.jpg"
    assert [a.id for a in coco.annotations] == [1, 2, 3]
    points = coco.annotations[2]
    assert points.segmentation == [] and points.area == pytest.approx(0.53 * 95 * 5, abs=0.01)
    assert coco.categories[1].name == "default" and coco.categories[1].skeleton == []
    assert line(changes, "all points of an image in one figure").severity == "severe"
    assert "2 boxes" in line(changes, "image with several boxes").example


def test_label_studio_coco_with_category_0_and_several_annotators(tmp_path):
    data = label_studio_coco()
    data["categories"] = [data["categories"][1] | {"id": 0}]
    data["annotations"] = [data["annotations"][2] | {"category_id": 0}]
    data["images"].append(data["images"][0] | {"id": 1})
    coco, changes = read(tmp_path, data)
    assert coco.categories[0].id == coco.annotations[0].category_id == 1
    assert line(changes, "image that several people annotated").severity == "severe"


def test_label_studio_tasks_keep_people_apart(tmp_path):
    coco, changes = read(tmp_path, label_studio_tasks())
    assert [i.file_name for i in coco.images] == ["ab12cd34-a.jpg", "b.jpg"]
    assert [(i.width, i.height) for i in coco.images] == [(200, 100), (64, 48)]
    assert coco.categories[0].keypoints == NAMES and [c.name for c in coco.categories] == ["cat"]
    first, second, alone = coco.annotations
    assert first.keypoints == [40, 30, 2, 45.5, 25, 2, 0, 0, 0] and first.bbox == [10, 10, 60, 80]
    assert second.keypoints == [140, 30, 2, 0, 0, 0, 135, 25.25, 1] and second.bbox == [110, 10, 60, 80]
    assert alone.keypoints[:3] == [12, 10, 2] and alone.image_id == 2
    assert not changes.severe and line(changes, "point marked as hidden") and line(changes, "keypoints in order")


def people(tmp_path, *result, **annotation):
    coco, changes = read(tmp_path, [task(*result, **annotation)])
    names = coco.categories[0].keypoints if coco.categories else []
    found = [{n: a.keypoints[3 * k] for k, n in enumerate(names) if a.keypoints[3 * k + 2]} for a in coco.annotations]
    return found, changes


def test_label_studio_points_find_their_person(tmp_path):
    inside = [rectangle("r1", 0, 0, 100, 90), rectangle("r2", 20, 20, 30, 30), point("nose", 30, 30), point("nose", 90, 80),
              point("left_eye", 31, 31)]  # fmt: skip
    found, changes = people(tmp_path, *inside)
    assert found == [{"nose": 90}, {"nose": 30, "left_eye": 31}] and not changes.severe
    related = [rectangle("r1", 0, 0, 9, 9), point("nose", 50, 50, region="p1"),
               {"type": "relation", "from_id": "r1", "to_id": "p1", "direction": "right"}]  # fmt: skip
    assert people(tmp_path, *related)[0] == [{"nose": 50}]
    grouped = [point("nose", 50, 50, parentID="g1"), point("nose", 70, 50, parentID="g2"),
               point("left_eye", 71, 50, parentID="g2")]  # fmt: skip
    assert people(tmp_path, *grouped)[0] == [{"nose": 50}, {"nose": 70, "left_eye": 71}]
    chain = [{"type": "relation", "from_id": a, "to_id": b} for a, b in (("a", "b"), ("c", "b"), ("d", "e"))]
    chained = [point("nose", 1, 1, region="a"), point("nose", 70, 50, region="d"), point("left_eye", 2, 1, region="b"),
               point("right_eye", 3, 1, region="c"), point("left_eye", 71, 50, region="e")]  # fmt: skip
    found, changes = people(tmp_path, *chained, *chain)
    assert found == [{"nose": 1, "left_eye": 2, "right_eye": 3}, {"nose": 70, "left_eye": 71}] and not changes.severe


def test_label_studio_guesses_are_severe(tmp_path):
    found, changes = people(tmp_path, point("nose", 10, 10), point("nose", 80, 10), point("left_eye", 11, 9))
    assert found == [{"nose": 10, "left_eye": 11}, {"nose": 80}]
    assert line(changes, "points of one name").severity == "severe"
    twice = [rectangle("r1", 0, 0, 99, 99), point("nose", 1, 1, parentID="r1"), point("nose", 2, 2, parentID="r1")]
    found, changes = people(tmp_path, *twice)
    assert found == [{"nose": 1}] and line(changes, "second point of one name").severity == "severe"
    _, changes = people(tmp_path, point("nose", 10, 10) | {"image_rotation": 90})
    assert line(changes, "image was turned").severity == "severe"
    _, changes = people(tmp_path, point("nose", 1, 1), {"id": "b", "type": "brushlabels", "value": {"rle": []}})
    assert line(changes, "region of type brushlabels").severity == "warning"


def test_label_studio_takes_one_annotation_of_each_task(tmp_path):
    made = task(point("nose", 1, 1), created_at="2026-01-02")
    for result, more in [((point("nose", 5, 5),), {"created_at": "2026-01-03"}),
                         ((point("nose", 9, 9),), {"created_at": "2026-01-04", "was_cancelled": True})]:  # fmt: skip
        made["annotations"] += task(*result, **more)["annotations"]
    coco, changes = read(tmp_path, [made])
    assert coco.annotations[0].keypoints == [5, 5, 2]
    assert line(changes, "several annotations").severity == "severe" and line(changes, "skipped annotation").count == 1
    made["annotations"][0]["ground_truth"] = True
    assert read(tmp_path, [made])[0].annotations[0].keypoints == [1, 1, 2]
    empty = {"id": 2, "data": {"image": "x.jpg"}, "annotations": [], "predictions": [{"result": [point("nose", 1, 1)]}]}
    _, changes = read(tmp_path, [made, empty])
    assert line(changes, "predictions that nobody has accepted").severity == "warning"


@pytest.mark.parametrize(
    "link, name",
    [
        ("/data/local-files/?d=sub/a.jpg", "sub/a.jpg"),
        ("/data/upload/3/ab12cd34-a%20b.jpg", "ab12cd34-a b.jpg"),
        ("https://host/p/a.jpg?token=1", "a.jpg"),
        ("sub/a.jpg", "sub/a.jpg"),
    ],
)
def test_label_studio_links_to_pictures(tmp_path, link, name):
    assert read(tmp_path, [task(point("nose", 1, 1), image=link)])[0].images[0].file_name == name


def test_label_studio_turned_rectangles(tmp_path):
    turned = [rectangle("r1", 100, 10, 40, 20, rotation=90), point("nose", 90, 30, parentID="r1")]
    coco, _ = read(tmp_path, [task(*turned)])
    assert coco.annotations[0].bbox == pytest.approx([80, 10, 20, 40])


# Roboflow


def test_roboflow_as_it_exports(tmp_path):
    coco, changes = read(tmp_path, roboflow())
    assert [(c.id, c.name) for c in coco.categories] == [(1, "cat")] and coco.categories[0].skeleton == [(1, 2), (1, 3)]
    assert coco.annotations[0].category_id == 1 and coco.annotations[0].num_keypoints == 2 and coco.images[0].id == 1
    assert coco.images[0].file_name.startswith("IMG_1_JPG_jpg.rf.")
    assert line(changes, "grouping category").example == "id 0, 'cats-Qx7'"
    assert "was IMG_1.JPG" in line(changes, "picture renamed by Roboflow").example and not changes.severe


def test_roboflow_grouping_category_in_use_is_kept(tmp_path):
    coco, changes = read(tmp_path, roboflow(annotations__0__category_id=0, annotations__0__keypoints=[]))
    assert {c.name: c.id for c in coco.categories} == {"cats-Qx7": 1, "cat": 2} and not changes.severe


def test_roboflow_versions_of_one_picture_are_named(tmp_path):
    data = roboflow(images__0__extra=DROP)
    other = "IMG_1_JPG_jpg.rf.ffff456789abcdef0123456789abcdef.jpg"
    data["images"].append(data["images"][0] | {"id": 1, "file_name": other})
    _, changes = read(tmp_path, data)
    assert line(changes, "picture in several augmented versions").example == "IMG_1_JPG.jpg, 2 times"


def test_roboflow_folder_of_splits_is_one_set(tmp_path):
    for split in ("train", "valid"):
        save(tmp_path / f"export/{split}/_annotations.coco.json", roboflow())
        cv2.imwrite(
            str(tmp_path / "export" / split / roboflow()["images"][0]["file_name"]), np.zeros((640, 640), np.uint8)
        )
    coco, changes = read_any(tmp_path / "export", images=tmp_path / "export")
    assert [i.file_name.split("/")[0] for i in coco.images] == ["train", "valid"] and len(coco.annotations) == 2
    assert coco.categories[0].name == "cat" and len(coco.categories) == 1
    assert all((tmp_path / "export" / i.file_name).is_file() for i in coco.images) and "not in the folder" not in str(
        changes
    )
    one = save(tmp_path / "one/train/_annotations.coco.json", roboflow())
    assert read_any(one.parents[1])[0].images[0].file_name.startswith("train/IMG")
    assert read_any(one.parent)[0].images[0].file_name.startswith("IMG")


# packed


def test_zips_and_folders_of_the_tools(tmp_path):
    packed = zipped(tmp_path / "r.zip", train___annotations_dot_coco_dot_json=roboflow(), README_dot_txt="hello")
    assert read_any(packed)[0].images[0].file_name.startswith("train/IMG")
    packed = zipped(tmp_path / "l.zip", result_dot_json=label_studio_coco(), images__a_dot_jpg=b"x")
    assert "label_studio" in read_any(packed)[1].title
    packed = zipped(tmp_path / "c.zip", annotations__person_keypoints_default_dot_json=cvat())
    assert read_any(packed)[0].images[0].file_name == "sub/a.jpg"
    two = {f"annotations__person_keypoints_{s}_dot_json": cvat() for s in ("train", "val")}
    assert [i.file_name for i in read_any(zipped(tmp_path / "t.zip", **two))[0].images] == [
        "train/sub/a.jpg",
        "val/sub/a.jpg",
    ]
    save(tmp_path / "data/.exports/coco-1.json", coco_annotator())
    assert "coco_annotator" in read_any(tmp_path / "data")[1].title
    save(tmp_path / "data/.exports/coco-2.json", coco_annotator())
    with pytest.raises(
        ValueError, match="several annotation files, name one: .exports/coco-1.json, .exports/coco-2.json"
    ):
        read_any(tmp_path / "data")
    with pytest.raises(ValueError, match="no annotations in it"):
        read_any(zipped(tmp_path / "none.zip", a_dot_txt="x"))


JUNK = [None, True, -1, 0, 2.5, 10**30, float("nan"), "", "x", "7", [], [[]], [1, 2], ["a"], {}, {"a": 1}]


@pytest.mark.parametrize("make", [coco_annotator, cvat, label_studio_coco, label_studio_tasks, roboflow])
def test_whatever_stands_in_a_file_it_is_read_or_refused_in_one_sentence(tmp_path, make):
    rng = np.random.default_rng(len(make.__name__))
    outcomes = set()
    for _ in range(120):
        data = make()
        for _ in range(rng.integers(1, 4)):
            place = data
            while True:  # walk to a random place and put something else there
                keys = list(place) if isinstance(place, dict) else range(len(place))
                key = keys[rng.integers(len(keys))]
                if isinstance(place[key], dict | list) and len(place[key]) and rng.random() < 0.8:
                    place = place[key]
                    continue
                place[key] = copy.deepcopy(JUNK[rng.integers(len(JUNK))])
                break
            if not data:
                break
        try:
            read(tmp_path, data)
            outcomes.add("read")
        except ValueError as error:
            assert str(tmp_path / "export.json") in str(error) and "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
