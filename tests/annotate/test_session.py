"""The rules of annotating, without a notebook."""

import json
import os
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from lib import files
from lib.annotate import Annotator, Session
from lib.annotate.labels import box_around, place_path
from lib.annotate.widget import picture
from lib.data.coco import find_split, read_coco
from lib.data.dataset import CocoKeypoints
from lib.people import People
from lib.skeleton import COCO17, Skeleton

BIRD = Skeleton("bird", ("beak", "left_wing", "right_wing"), ((0, 1), (0, 2)), ((1, 2),), (0.05,) * 3)
H, W = 60, 80


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("frame_10.png", "frame_2.png", "frame_1.png"):
        cv2.imwrite(str(folder / name), np.full((H, W, 3), 90, np.uint8))
    return folder


@pytest.fixture
def labels(tmp_path):
    return tmp_path / "birds.json"


@pytest.fixture
def session(images, labels):
    return Session(images, BIRD, labels)


def read(labels):
    return json.loads(labels.read_text())


def write(labels, annotations, images=({"id": 7, "file_name": "frame_1.png", "width": W, "height": H},), **rest):
    content = {"images": list(images), "annotations": annotations, "categories": [BIRD.to_coco(3)]} | rest
    labels.write_text(json.dumps(content, indent=1))
    return content


def three(session, x=10.0, y=20.0):
    for k in range(3):
        session.place(x + 10 * k, y)


# -- placing and moving --------------------------------------------------------------------------------------------------


def test_images_are_listed_as_people_count_and_nothing_is_written_before_the_first_label(session, labels):
    assert session.names == ["frame_1.png", "frame_2.png", "frame_10.png"]
    assert (session.image_index, session.person, session.keypoint) == (0, None, 0)
    assert not labels.exists()


def test_placing_goes_through_the_keypoints_and_every_one_is_saved(session, labels):
    session.place(10, 20)
    assert session.keypoint == 1 and read(labels)["annotations"][0]["keypoints"] == [10, 20, 2, 0, 0, 0, 0, 0, 0]
    assert "beak of person 1 placed at 10, 20" in session.message and "Next: left_wing, 2 of 3" in session.message
    session.place(30.456, 25, 1)
    session.place(20, 40)
    assert session.message.endswith("All keypoints are labelled") and session.keypoint == 2
    (annotation,) = read(labels)["annotations"]
    assert annotation["keypoints"] == [10, 20, 2, 30.46, 25, 1, 20, 40, 2]
    assert annotation["bbox"] == [5, 15, 30.46, 30] and annotation["area"] == pytest.approx(0.53 * 30.46 * 30, abs=0.01)
    assert (annotation["num_keypoints"], annotation["iscrowd"], annotation["category_id"]) == (3, 0, 1)
    assert annotation["id"] >= 1 and annotation["image_id"] >= 1


def test_coordinates_end_at_the_border_and_boxes_too(session, labels):
    session.place(-5, 1000)
    assert read(labels)["annotations"][0]["keypoints"][:2] == [0, H - 1]
    assert read(labels)["annotations"][0]["bbox"] == [0, H - 6, 5, 6]
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            session.place(bad, 3)
    assert session.person == 0 and len(session.annotations()) == 1


def test_moving_keeps_visibility_and_stays_inside(session):
    session.place(10, 20, 1)
    session.previous_keypoint()
    session.move(1.5, -2)
    session.move(-100, 0)
    assert session.people().keypoints[0, 0].tolist() == [0, 18, 1]
    session.next_keypoint()
    with pytest.raises(ValueError, match="left_wing of person 1 has no place yet"):
        session.move(1, 1)


def test_visibility_toggles_through_all_and_keeps_the_place(session, labels):
    session.place(10, 20)
    session.select(0, 0)
    seen = []
    for _ in range(3):
        session.toggle_visibility()
        seen.append(session.people().keypoints[0, 0].tolist())
    assert seen == [[10, 20, 1], [10, 20, 0], [10, 20, 2]]
    session.set_visibility(0)
    assert read(labels)["annotations"] == []  # nobody without a keypoint
    with pytest.raises(ValueError, match="0, 1 or 2"):
        session.set_visibility(3)
    session.next_keypoint()
    with pytest.raises(ValueError, match="place it first"):
        session.toggle_visibility()


def test_several_people(session, labels):
    with pytest.raises(ValueError, match="nobody"):
        session.next_person()
    three(session)
    session.add_person()
    session.add_person()  # the one that is still empty is used
    assert (session.person, session.keypoint, len(session.annotations())) == (1, 0, 2)
    assert len(read(labels)["annotations"]) == 1
    three(session, 40)
    session.next_person()
    assert session.person == 0
    session.previous_person()
    assert session.person == 1
    assert [a["id"] for a in read(labels)["annotations"]] == [1, 2]
    session.select(0, 1)
    session.delete_person()
    assert [a["id"] for a in read(labels)["annotations"]] == [2] and session.person == 0
    session.add_person()
    session.place(1, 1)
    assert [a["id"] for a in read(labels)["annotations"]] == [2, 3]  # an id is never given twice
    for wrong in ((5, 0), (None, 0), (0, 9)):
        with pytest.raises(ValueError, match="does not exist"):
            session.select(*wrong)


def test_images_end_at_both_ends(session):
    with pytest.raises(ValueError, match="no image 0"):
        session.previous_image()
    session.next_image()
    session.next_image()
    with pytest.raises(ValueError, match="no image 4"):
        session.next_image()
    with pytest.raises(ValueError, match="there is no image 4"):
        session.go_to(3)
    assert session.name == "frame_10.png" and session.message.startswith("Image 3 of 3, frame_10.png: no people")


def test_open_images_are_found_round_the_end(session):
    session.next_image()
    three(session)
    session.next_open_image()
    session.mark_done()
    session.next_open_image()
    assert session.name == "frame_1.png"
    session.mark_done()
    with pytest.raises(ValueError, match="every image"):
        session.next_open_image()


# -- undo ----------------------------------------------------------------------------------------------------------------


def test_everything_can_be_undone_and_done_again_across_images(session, labels):
    states = [read(labels)["annotations"] if labels.exists() else []]
    edits = [
        lambda: session.place(10, 20), lambda: session.place(20, 30, 1), lambda: session.move_back(),
        lambda: session.add_person() or session.place(40, 40), lambda: session.next_image() or session.place(5, 5),
        lambda: session.select(0, 0) or session.toggle_visibility(), lambda: session.delete_keypoint(),
        lambda: session.go_to(0) or session.select(0, 0) or session.delete_person(),
    ]  # fmt: skip
    session.move_back = lambda: (session.select(0, 0), session.move(1, 1))
    for edit in edits:
        edit()
        states.append(read(labels)["annotations"])
    sort = lambda annotations: sorted(annotations, key=lambda a: a["id"])
    seen, texts = [sort(states[-1])], []
    while session.history.done:
        session.undo()
        texts.append(session.message)
        seen.append(sort(read(labels)["annotations"]))
    assert seen[-1] == [] and all(sort(state) in seen for state in states)
    assert any("(on frame_2.png)" in text for text in texts) and session.name == "frame_1.png"
    with pytest.raises(ValueError, match="nothing to undo"):
        session.undo()
    while session.history.undone:
        session.redo()
    assert sort(read(labels)["annotations"]) == sort(states[-1])
    with pytest.raises(ValueError, match="nothing to redo"):
        session.redo()


def test_a_new_edit_ends_redo(session):
    session.place(1, 1)
    session.undo()
    session.place(2, 2)
    assert not session.history.undone and session.people().keypoints[0, 0].tolist() == [2, 2, 2]


def test_arrows_in_a_row_are_one_step(session):
    session.place(10, 10)
    session.select(0, 0)
    session.move(1, 0)
    for _ in range(5):
        session.move(1, 0, again=True)
    session.undo()
    assert session.people().keypoints[0, 0, 0] == 10
    session.redo()
    assert session.people().keypoints[0, 0, 0] == 16
    session.move(1, 0)  # not `again`: a step of its own
    session.undo()
    assert session.people().keypoints[0, 0, 0] == 16


def test_a_refused_edit_leaves_no_step(session):
    session.place(10, 10)
    with pytest.raises(ValueError):
        session.place(3, 3, v=0)
    with pytest.raises(ValueError):
        session.place(float("nan"), 3)
    session.undo()
    assert not session.history.done and len(session.people()) == 0


# -- the file ------------------------------------------------------------------------------------------------------------


def test_pycocotools_and_the_dataset_read_it(session, images, labels):
    three(session)
    session.next_image()
    three(session)
    coco = COCO(labels)
    assert len(coco.getAnnIds(catIds=coco.getCatIds(catNms=["bird"]))) == 2
    dataset = CocoKeypoints(labels, images, input_size=(64, 64))
    assert len(dataset) == 2 and (dataset[0]["keypoints"][..., 2] == 2).all()
    assert session.coco() == read_coco(labels) and "2 × 'bird' on 2 of 3 images" in repr(session)


def test_opening_again_goes_on_where_it_stopped(session, images, labels):
    three(session)
    session.next_image()
    session.place(4, 5)
    session.next_image()
    session.mark_done()
    session.previous_image()
    again = Session(images, BIRD, labels)
    assert (again.name, again.person, again.keypoint) == ("frame_2.png", 0, 1)
    assert [again.progress(i) for i in range(3)] == [(1, 0, False), (1, 0, False), (0, 0, True)]
    again.place(7, 8)
    assert read(labels)["annotations"][1]["keypoints"][:6] == [4, 5, 2, 7, 8, 2]


def test_a_done_image_without_people_is_listed_others_are_not(session, labels):
    three(session)
    session.next_image()
    session.mark_done()
    assert [i["file_name"] for i in read(labels)["images"]] == ["frame_1.png", "frame_2.png"]
    session.mark_done()
    assert [i["file_name"] for i in read(labels)["images"]] == ["frame_1.png"]


def test_the_hidden_file_is_not_taken_for_labels(session, images, labels, tmp_path):
    session.next_image()
    three(session)
    assert place_path(labels).exists() and find_split(tmp_path, "train") == (labels, images)
    place_path(labels).write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        Session(images, BIRD, labels)


def test_what_is_not_edited_stays(images, labels):
    other = {"id": 40, "image_id": 7, "category_id": 9, "bbox": [1, 2, 3, 4], "custom": {"a": [1.50]}}
    crowd = {"id": 41, "image_id": 7, "category_id": 3, "iscrowd": 1, "bbox": [0, 0, 9, 9]}
    bird = {
        "id": 42,
        "image_id": 7,
        "category_id": 3,
        "keypoints": [5, 6, 2, 9, 9, 1, 0, 0, 0],
        "track": "x",
        "iscrowd": 0,
    }
    far = {"id": 43, "image_id": 8, "category_id": 3, "keypoints": [1, 1, 2] * 3, "bbox": [0, 0, 5, 5], "area": 12.250}
    pictures = [{"id": 7, "file_name": "frame_1.png", "width": W, "height": H, "camera": "left"},
                {"id": 8, "file_name": "elsewhere/far.png", "width": 50, "height": 50}]  # fmt: skip
    categories = [BIRD.to_coco(3), {"id": 9, "name": "nest", "colour": "brown"}]
    before = write(labels, [other, crowd, bird, far], pictures, categories=categories, info={"year": 2026}, my_key=[1])
    text = labels.read_text()
    session = Session(images, BIRD, labels)
    assert labels.read_text() == text and len(session.people()) == 1
    session.select(0, 2)
    session.place(20, 20)
    after = read(labels)
    assert after["annotations"][2].pop("keypoints") == [5, 6, 2, 9, 9, 1, 20, 20, 2]
    assert after["annotations"][2]["track"] == "x" and after["annotations"][2]["id"] == 42
    for key in ("images", "categories", "info", "my_key"):
        assert after[key] == before[key], key
    assert [after["annotations"][i] for i in (0, 1, 3)] == [other, crowd, far]
    assert '"area": 12.25' in labels.read_text() and '"custom": {\n    "a": [\n' in labels.read_text()
    session.delete_person()
    assert [a["id"] for a in read(labels)["annotations"]] == [40, 41, 43]
    session.add_person()
    session.place(1, 1)
    assert read(labels)["annotations"][-1]["id"] == 44


def test_a_drawn_box_only_grows_and_a_mask_keeps_its_area(images, labels):
    drawn = {"id": 1, "image_id": 7, "category_id": 3, "keypoints": [20, 20, 2, 30, 30, 2, 0, 0, 0], "bbox": [10, 10, 40, 40],
             "segmentation": [[10, 10, 50, 10, 50, 50]], "area": 800}  # fmt: skip
    write(labels, [drawn])
    session = Session(images, BIRD, labels)
    session.select(0, 0)
    session.move(2, 2)
    annotation = read(labels)["annotations"][0]
    assert (annotation["bbox"], annotation["area"], annotation["segmentation"]) == (
        [10, 10, 40, 40],
        800,
        drawn["segmentation"],
    )
    session.move(-17, 0)
    annotation = read(labels)["annotations"][0]
    assert (annotation["bbox"], annotation["area"]) == ([5, 10, 45, 40], 800)
    for keypoint in (0, 1):
        session.select(0, keypoint)
        session.delete_keypoint()
    annotation = read(labels)["annotations"][0]
    assert (annotation["num_keypoints"], annotation["bbox"]) == (0, [5, 10, 45, 40])


def test_our_own_box_follows_the_keypoints_also_after_opening_again(session, images, labels):
    three(session)
    again = Session(images, BIRD, labels)
    again.select(0, 2)
    again.move(-8, 0)
    annotation = read(labels)["annotations"][0]
    assert annotation["bbox"] == [5, 15, 22, 10] and annotation["area"] == 116.6
    assert box_around(np.reshape(annotation["keypoints"], (-1, 3))[:, :2], (H, W)) == annotation["bbox"]


def test_boxes_without_keypoints_get_keypoints(images, labels):
    category = {"id": 3, "name": "bird"}
    write(
        labels,
        [{"id": 5, "image_id": 7, "category_id": 3, "bbox": [10, 10, 30, 30], "area": 900}],
        categories=[category],
    )
    session = Session(images, BIRD, labels)
    three(session, 12)
    annotation = read(labels)["annotations"][0]
    assert annotation["id"] == 5 and annotation["bbox"] == [10, 10, 30, 30] and annotation["num_keypoints"] == 3
    assert read(labels)["categories"][0]["keypoints"] == list(BIRD.keypoints)
    read_coco(labels, "bird")


def test_a_second_category_is_added_on_request(images, labels):
    write(labels, [])
    session = Session(images, COCO17, labels, category="person")
    session.place(3, 3)
    assert [c["name"] for c in read(labels)["categories"]] == ["bird", "person"]
    assert read(labels)["annotations"][0]["category_id"] == 4
    with pytest.raises(ValueError, match="has the 3 keypoints beak, left_wing, right_wing, the skeleton has 17"):
        Session(images, COCO17, labels, category="bird")


def test_the_skeleton_can_be_the_file_itself(session, images, labels):
    three(session)
    assert Session(images, labels, labels).skeleton.keypoints == BIRD.keypoints


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [], "annotations": [{"id": 1}], "categories": []}', ""])
def test_a_broken_file_is_refused_and_left(images, labels, text):
    labels.write_text(text)
    with pytest.raises(ValueError, match="birds.json"):
        Session(images, BIRD, labels)
    assert labels.read_text() == text


def test_labels_of_other_images_are_refused(images, labels):
    write(labels, [], [{"id": 7, "file_name": "other.png", "width": W, "height": H}])
    with pytest.raises(ValueError, match="none of them is in"):
        Session(images, BIRD, labels)


def test_another_writer_is_noticed_and_nothing_is_lost(session, images, labels, tmp_path):
    three(session)
    other = Session(images, BIRD, labels)
    other.select(0, 0)
    other.move(5, 5)
    theirs = labels.read_text()
    with pytest.raises(ValueError, match="changed or removed"):
        session.add_person()
    with pytest.raises(ValueError, match=r"changed or removed by somebody else.*session.save\('another.json'\)"):
        session.place(1, 1)
    assert labels.read_text() == theirs and not session.saved and len(session.people()) == 2
    with pytest.raises(FileExistsError):
        session.save(labels)
    session.save(tmp_path / "mine.json")
    session.place(2, 2)
    assert session.saved and len(read(tmp_path / "mine.json")["annotations"]) == 2 and labels.read_text() == theirs


def test_a_folder_that_cannot_be_written_is_said_and_the_labels_are_rescued(session, labels, tmp_path, monkeypatch):
    session.place(5, 6)
    write = files.write

    def refuse(path, content):
        if path.parent == labels.parent:
            raise PermissionError(13, "Permission denied", str(path))
        return write(path, content)

    monkeypatch.setattr(files, "write", refuse)
    with pytest.raises(OSError, match=r"birds.json cannot be written \(Permission denied\).*session.save\('"):
        session.place(7, 8)
    assert not session.saved and session.people().keypoints[0, :2].tolist() == [[5, 6, 2], [7, 8, 2]]
    with pytest.raises(OSError, match=r"birds.annotator cannot be written"):
        session.next_image()
    with pytest.raises(OSError):
        session.previous_image()
    with pytest.raises(OSError, match="Permission denied"):
        session.save(tmp_path / "copy.json")
    session.save(tmp_path / "elsewhere/birds.json")
    session.place(9, 10)
    assert session.saved and read(tmp_path / "elsewhere/birds.json")["annotations"][0]["num_keypoints"] == 3
    monkeypatch.undo()
    labels.write_text("of somebody else")
    with pytest.raises(FileExistsError):
        session.save(labels)
    assert session.saved, "a refused copy does not make the file older"


def test_a_removed_file_is_noticed(session, labels):
    session.place(1, 1)
    labels.unlink()
    with pytest.raises(ValueError, match="removed"):
        session.place(2, 2)
    assert not labels.exists()


def test_a_file_behind_a_link_stays_behind_it(images, labels, tmp_path):
    write(labels, [])
    link = tmp_path / "link.json"
    os.symlink(labels, link)
    Session(images, BIRD, link).place(3, 3)
    assert link.is_symlink() and len(read(labels)["annotations"]) == 1


def test_nothing_else_is_left_in_the_folder(session, tmp_path):
    session.next_image()
    three(session)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".birds.annotator", "birds.json", "images"]


# -- images --------------------------------------------------------------------------------------------------------------


def test_images_come_from_a_list_or_sub_folders(images, labels, tmp_path):
    (images / "more").mkdir()
    cv2.imwrite(str(images / "more/frame_3.JPG"), np.zeros((H, W, 3), np.uint8))
    (images / ".hidden").mkdir()
    cv2.imwrite(str(images / ".hidden/x.png"), np.zeros((H, W, 3), np.uint8))
    assert Session(images, BIRD, labels).names[-1] == "more/frame_3.JPG"
    listed = Session([images / "more/frame_3.JPG", images / "frame_1.png"], BIRD, labels)
    assert listed.names == ["more/frame_3.JPG", "frame_1.png"] and listed.folder == images
    (images / "frame_1²3.png").write_bytes((images / "frame_1.png").read_bytes())  # a digit to some, no number
    assert len(Session(images, BIRD, labels).names) == 5
    for nothing in (tmp_path / "missing", images / ".hidden/empty", []):
        with pytest.raises(FileNotFoundError):
            Session(nothing, BIRD, labels)


def test_an_image_that_cannot_be_shown_is_said_and_the_others_work(images, labels):
    (images / "frame_2.png").write_bytes((images / "frame_2.png").read_bytes()[:60])
    write(labels, [], [{"id": 7, "file_name": "frame_10.png", "width": 500, "height": H}])
    session = Session(images, BIRD, labels)
    view = Annotator(session)
    session.next_image()
    view.refresh()
    assert view.picture == b"" and view.state["error"] and "frame_2.png" in view.state["message"]
    with pytest.raises(ValueError, match="frame_2.png"):
        session.place(1, 1)
    session.next_image()
    with pytest.raises(ValueError, match="80×60 pixels, .* says 500×60"):
        session.place(1, 1)
    (images / "frame_1.png").unlink()
    session = Session([images / name for name in session.names], BIRD, labels)
    session.go_to(0)
    with pytest.raises(FileNotFoundError, match="frame_1.png"):
        session.place(1, 1)
    session.next_image()
    cv2.imwrite(str(images / "frame_2.png"), np.zeros((H, W, 3), np.uint8))
    session.place(1, 1)
    assert len(read(labels)["annotations"]) == 1


# -- suggestions ---------------------------------------------------------------------------------------------------------


def predict(image):
    assert image.shape == (H, W, 3) and image.dtype == np.uint8
    keypoints = [[[10, 10, 0.9], [20, 10, 0.1], [0, 0, 0]], [[30, 30, 0.2], [40, 40, 0.1], [50, 50, 0.05]],
                 [[50, 20, 0.8], [60, 20, 0.7], [200, 30, 0.6]]]  # fmt: skip
    return People(np.array(keypoints), np.ones(3))


def test_suggestions_wait_until_accepted_or_edited(session, images, labels):
    three(session)
    assert session.start_from(predict, min_score=0.3) == 4  # two on each of the two open images
    assert len(read(labels)["annotations"]) == 1 and session.progress(1) == (0, 2, False)
    session.next_image()
    assert "no people, 2 suggested" in session.message and len(session.people()) == 0
    assert session.people(suggested=True).keypoints[0].tolist() == [[10, 10, 2], [20, 10, 0], [0, 0, 0]]
    again = Session(images, BIRD, labels)  # they survive
    assert again.name == "frame_2.png" and again.progress(1) == (0, 2, False)
    again.select(0, 1)
    again.toggle_visibility()  # a low score keeps its place: one key shows it
    assert read(labels)["annotations"][1]["keypoints"] == [10, 10, 2, 20, 10, 2, 0, 0, 0]
    again.next_person()
    again.accept()
    assert read(labels)["annotations"][2]["keypoints"] == [50, 20, 2, 60, 20, 2, 79, 30, 2]
    assert again.progress(1) == (2, 0, False)
    with pytest.raises(ValueError, match="no suggestion"):
        again.accept()
    again.undo()
    assert again.progress(1) == (1, 1, False) and len(read(labels)["annotations"]) == 2
    again.next_image()
    again.delete_person()
    again.accept(everyone=True)
    assert again.progress(2) == (1, 0, False) and again.history.done
    with pytest.raises(ValueError, match="no suggestions"):
        again.accept(everyone=True)
    ids = [a["id"] for a in read(labels)["annotations"]]
    assert len(set(ids)) == len(ids) == 3 and min(ids) >= 1


def test_suggestions_leave_work_alone(session, images):
    session.mark_done()
    session.next_image()
    session.place(3, 3)
    (images / "frame_10.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="1 images were left out: .*frame_10.png"):
        assert session.start_from(predict) == 0
    assert session.people().keypoints[0, 0].tolist() == [3, 3, 2]


def test_suggestions_of_another_skeleton_are_refused(session, images, labels):
    session.start_from(predict)
    with pytest.raises(ValueError, match=r"\.birds\.annotator: its suggestions are not of 17 keypoints"):
        Session(images, COCO17, labels)


def test_suggestions_survive_an_interruption(session, images, labels):
    calls = []

    def slow(image):
        calls.append(image)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(image)

    with pytest.raises(KeyboardInterrupt):
        session.start_from(slow)
    assert Session(images, BIRD, labels).progress(0) == (0, 2, False)


def test_who_annotates_while_the_model_looks_is_not_disturbed(session):
    """JupyterLab runs the widget beside a cell that takes long."""

    def slow(image):
        if not session.progress(0)[0]:
            session.place(5, 6)  # on the very image that the model is looking at
            session.go_to(2)
            session.place(7, 8)
        return predict(image)

    assert session.start_from(slow) == 2 and session.image_index == 2
    assert [session.progress(i) for i in range(3)] == [(1, 0, False), (0, 2, False), (1, 0, False)]


def test_a_model_that_finds_nobody_suggests_nobody(session):
    assert session.start_from(lambda image: People.empty(3)) == 0
    assert [session.progress(i) for i in range(3)] == [(0, 0, False)] * 3


def test_a_model_of_another_skeleton_is_refused(session):
    with pytest.raises(ValueError, match="predict gives 17 keypoints.*pass the Predictor"):
        session.start_from(lambda image: People.empty(17))
    with pytest.raises(ValueError, match="predict gives a list.*pass a Predictor"):
        session.start_from(lambda image: [People.empty(3)])


class Ostrich:
    """A predictor, which knows its keypoints: other names, in another order."""

    def __init__(self, *keypoints):
        self.skeleton = Skeleton("ostrich", keypoints, (), (), (0.05,) * len(keypoints))

    def __call__(self, images):
        points = [[10 * k, 20, 0.9] for k in range(self.skeleton.num_keypoints)]
        return [People(np.array([points]), np.ones(1)) for _ in images]


def test_keypoints_of_a_predictor_are_taken_by_name(session):
    assert session.start_from(Ostrich("neck", "right_wing", "beak", "tail")) == 3
    assert session.people(suggested=True).keypoints[0].tolist() == [[20, 20, 2], [0, 0, 0], [10, 20, 2]]


def test_a_predictor_without_any_of_the_keypoints_is_refused(session):
    with pytest.raises(ValueError, match="model's keypoints are neck, tail; none of them is in the skeleton 'bird'"):
        session.start_from(Ostrich("neck", "tail"))


# -- the widget's Python side --------------------------------------------------------------------------------------------


def send(view, action, *arguments):
    view._on_message(None, {"do": action, "with": list(arguments), "from": ["view", 1]}, [])
    return view.state


def test_messages_do_what_the_session_does_and_errors_are_said(session, labels):
    view = Annotator(session)
    picture_before = view.picture
    assert send(view, "click", 10, 20, 2)["people"] == [
        {"points": [10, 20, 2, 0, 0, 0, 0, 0, 0], "suggested": False, "box": [5, 15, 10, 10]}
    ]
    assert view.progress == [(1, 0, False), (0, 0, False), (0, 0, False)] and view.picture is picture_before
    send(view, "select", 0, 0)
    assert send(view, "click", 1, 1, 2)["error"] and "has its place" in view.state["message"]
    assert send(view, "save_to")["error"] and send(view, "start_from")["error"]
    assert send(view, "next_image")["index"] == 1 and view.state["from"] == ["view", 1]
    session.go_to(2)
    assert send(view, "look")["index"] == 2
    labels.write_text("changed")
    assert send(view, "click", 5, 5, 1)["saved"] is False and "somebody else" in view.state["message"]


def test_what_was_meant_for_a_picture_that_is_gone_is_not_done(session):
    """Two annotators of one session, or an annotator and a cell that uses the session."""
    first, second = Annotator(session), Annotator(session)
    seen = second.state["revision"]

    def click(action, *arguments):
        second._on_message(None, {"do": action, "with": arguments, "from": ["view", 1], "seen": seen}, [])
        return second.state

    send(first, "next_image")
    send(second, "look")  # the focus comes with the click, and its answer after it
    assert click("click", 10, 20, 2)["error"] and "changed elsewhere" in second.state["message"]
    assert second.state["index"] == 1 and len(session.people()) == 0
    assert not click("go_to", 2)["error"] and session.image_index == 2, "an image chosen by its number"
    seen = second.state["revision"]
    assert len(click("click", 10, 20, 2)["people"]) == 1 and not second.state["error"]
    session.move(1, 1) if session.placed else session.delete_person()
    assert click("place", 10, 20, 2)["error"] and len(session.people()) == 0, "without a look before"


def test_browsers_get_files_as_they_are_and_never_turned(tmp_path):
    stored = np.zeros((40, 64, 3), np.uint8)
    stored[:20, :32] = (255, 0, 0)
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, options in {"plain.jpg": {}, "plain.png": {}, "plain.webp": {}, "plain.gif": {}, "turned.jpg": {"exif": turned},
                          "turned.png": {"exif": turned}, "film.tif": {}}.items():  # fmt: skip
        path = tmp_path / name
        Image.fromarray(stored).save(path, **options)
        sent = picture(path)
        assert (sent == path.read_bytes()) == name.startswith("plain"), name
        # an ordinary decode, which does turn by EXIF, must give the stored pixels
        shown = cv2.imdecode(np.frombuffer(sent, np.uint8), cv2.IMREAD_COLOR_RGB)
        assert shown.shape == stored.shape and abs(shown[10, 10].astype(int) - (255, 0, 0)).max() < 12, name


def test_transparent_pictures_are_shown_as_models_see_them(tmp_path):
    stored = np.full((40, 64, 4), 200, np.uint8)
    stored[:20, :, 3] = 0
    Image.fromarray(stored).save(tmp_path / "hole.png")
    shown = cv2.imdecode(np.frombuffer(picture(tmp_path / "hole.png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert shown.shape == (40, 64, 3) and abs(shown.astype(int) - 200).max() < 3


def test_skeletons_of_any_kind_can_be_drawn(images, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for skeleton in (BIRD, COCO17, Skeleton("dot", ("dot",), (), (), (0.05,))):
            figure = Annotator(Session(images, skeleton, labels.with_name(f"{skeleton.num_keypoints}.json"))).figure
            assert np.isfinite(figure["layout"]).all() and len(figure["layout"]) == skeleton.num_keypoints
            assert 0 <= np.min(figure["layout"]) and np.max(figure["layout"]) <= 1


def test_a_page_without_a_kernel_shows_the_people(images, labels, session):
    three(session)
    view = Annotator(session)
    shown = view._repr_mimebundle_()[0]
    drawn = cv2.imdecode(np.frombuffer(shown["image/jpeg"], np.uint8), cv2.IMREAD_COLOR)
    plain = cv2.imread(str(session.path()))
    assert drawn.shape == plain.shape and (np.abs(drawn.astype(int) - plain) > 60).any()
    assert session.message in shown["text/plain"]
    cv2.imwrite(str(session.path(1)), np.full((1500, 3000, 3), 90, np.uint8))
    session.go_to(1)
    session.place(1500, 750)
    drawn = cv2.imdecode(np.frombuffer(view._repr_mimebundle_()[0]["image/jpeg"], np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == (500, 1000, 3), "every picture shown would make the notebook megabytes larger"
    assert abs(drawn[250, 500].astype(int) - 90).max() > 60 and abs(drawn[20, 20].astype(int) - 90).max() < 5
    session.go_to(0)
    session.path().write_bytes(b"no picture")
    assert "image/jpeg" not in Annotator(Session(images, BIRD, labels))._repr_mimebundle_()[0]
