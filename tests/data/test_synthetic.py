"""Synthetic figures: the same bytes from (seed, index), and labels that agree with the picture."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from lib.data.canvas import Canvas, polygons, run_lengths
from lib.data.casting import POSES, sample_pose
from lib.data.dog import DOG
from lib.data.figures import Joint, Shape, forward_kinematics, rotation
from lib.data.mpii import head_size
from lib.data.person import JOINTS, mpii_person, person
from lib.data.synthetic import FIGURES, Scene, render, write_dataset
from lib.skeleton import COCO17, MPII16, Skeleton

SMALL = Scene(size=(96, 128), max_people=3)


def files_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("figure", FIGURES)
def test_same_bytes_from_seed_and_index(figure):
    (a, la), (b, lb) = render(SMALL, 3, 7, figure), render(SMALL, 3, 7, figure)
    assert a.tobytes() == b.tobytes() and a.shape == (96, 128, 3) and a.dtype == np.uint8
    np.testing.assert_array_equal(la.keypoints, lb.keypoints)
    assert a.tobytes() != render(SMALL, 3, 8, figure)[0].tobytes()
    assert a.tobytes() != render(SMALL, 4, 7, figure)[0].tobytes()


@pytest.mark.parametrize("figure", FIGURES)
def test_labels_agree_with_the_picture(figure):
    skeleton = FIGURES[figure][0]
    seen = np.zeros(3, int)
    for index in range(40):
        _, labels = render(replace(SMALL, crowd=0.5, truncation=0.4, max_people=4), 0, index, figure)
        assert labels.keypoints.shape == (len(labels.boxes), skeleton.num_keypoints, 3)
        for p, points in enumerate(labels.keypoints):
            if labels.iscrowd[p]:
                assert not points.any()
                continue
            x, y, v = points.T
            assert set(v) <= {0, 1, 2}
            assert not points[v == 0].any()
            assert ((x[v > 0] >= -0.5) & (x[v > 0] < 127.5) & (y[v > 0] >= -0.5) & (y[v > 0] < 95.5)).all()
            # Every visible keypoint lies on a pixel of its own person (or beside it, by less than a pixel).
            mask = cv2.dilate((labels.ids == p + 1).astype(np.uint8), np.ones((3, 3)))
            at = np.rint(points[v == 2, :2]).astype(int).clip(0, (127, 95))
            assert mask[at[:, 1], at[:, 0]].all()
            seen += np.bincount(v.astype(int), minlength=3)
    assert (seen > 30).all()  # inside, hidden and outside keypoints all occur


def test_segmentation_box_and_area_describe_the_same_pixels():
    crowds = 0
    for index in range(15):
        _, labels = render(Scene(size=(128, 128), crowd=1.0), 1, index)
        assert not labels.iscrowd[:-1].any()
        crowds += int(labels.iscrowd[-1])
        for p, segmentation in enumerate(labels.segmentations):
            rle = coco_mask.frPyObjects(segmentation, 128, 128)
            filled = coco_mask.decode(rle if isinstance(rle, dict) else coco_mask.merge(rle)).astype(bool)
            truth = labels.ids == p + 1
            if labels.iscrowd[p]:
                np.testing.assert_array_equal(filled, truth)
            elif truth.sum() > 400:
                overlap = (filled & truth).sum() / (filled | truth).sum()
                assert overlap > 0.9, f"picture {index}, person {p}: IoU {overlap:.2f}"
            ys, xs = np.nonzero(truth)
            if len(xs):
                x, y, w, h = labels.boxes[p]
                assert x - 1 <= xs.min() and xs.max() <= x + w + 1 and y - 1 <= ys.min() and ys.max() <= y + h + 1
                assert labels.areas[p] == pytest.approx(len(xs), abs=0.15 * len(xs) + 12)
    assert crowds > 10  # all but those that somebody stands before


def test_drawing_is_exact_to_a_fraction_of_a_pixel():
    """A disc's centre of mass is where it was asked for, in the convention that integers are pixel centres."""
    for supersample in (1, 2, 3, 4):
        for x, y in ((20.0, 30.0), (20.37, 29.81), (24.5, 31.5)):
            canvas = Canvas((64, 48), supersample)
            canvas.paint([Shape([(0, 0, 0.5)], (255, 255, 255), "disc")], scale=20, at=(x, y))
            weight = canvas.over(np.zeros((64, 48, 3), np.uint8))[..., 0].astype(float)
            rows, columns = np.mgrid[:64, :48]
            centre = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
            assert centre == pytest.approx((x, y), abs=0.35 / supersample)


def test_left_is_on_the_left():
    """Seen from the front a person's left is on the right of the picture, seen from behind on the left."""
    for heading, sign in ((0, 1), (180, -1)):
        frames = forward_kinematics(JOINTS, {}, rotation(0, heading, 0))
        for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
            assert sign * (frames[f"left_{joint}"].origin - frames[f"right_{joint}"].origin)[0] > 0.1
    chest, toe = frames["spine"].point(0, 0, -1), frames["left_ankle"].point(0, 0, -1)
    assert chest[2] > 0.9 and toe[2] > 0.9  # from behind, chest and toes point away


def test_the_band_is_on_the_left_wrist():
    """The orange cuff, where it can be seen, is nearer to the left wrist than to the right one."""
    left, right = COCO17.index("left_wrist"), COCO17.index("right_wrist")
    for seed in range(20):
        figure = person(np.random.default_rng(seed))
        (cuff,) = [s for s in figure.shapes if s.colour == (255, 92, 48)]
        middle = np.mean([circle[:2] for circle in cuff.circles], axis=0)
        assert cuff.part == "left_arm" and np.hypot(*(figure.keypoints[left] - middle)) < 0.04
        plain = person(np.random.default_rng(seed), side_cue=False)
        assert not [s for s in plain.shapes if s.colour == (255, 92, 48)]
        np.testing.assert_array_equal(plain.keypoints[right], figure.keypoints[right])


def test_mpii_people_are_cocos_annotated_otherwise():
    shared = [name for name in MPII16.keypoints if name in COCO17.keypoints]
    ours, theirs = ([s.index(name) for name in shared] for s in (MPII16, COCO17))
    for index in range(12):
        (a, la), (b, lb) = (render(replace(SMALL, crowd=0.5, truncation=0.4), 5, index, f) for f in ("mpii", "person"))
        assert a.tobytes() == b.tobytes() and len(shared) == 12
        np.testing.assert_array_equal(la.keypoints[:, ours], lb.keypoints[:, theirs])
        np.testing.assert_array_equal(la.heads, lb.heads)


def test_trunk_and_head_of_mpii_are_where_annotators_put_them():
    at = {name: MPII16.index(name) for name in MPII16.keypoints}
    for seed in range(30):
        points = (figure := mpii_person(np.random.default_rng(seed))).keypoints
        middle = lambda part, points=points: (points[at[f"left_{part}"]] + points[at[f"right_{part}"]]) / 2
        assert np.hypot(*(points[at["pelvis"]] - middle("hip"))) < 0.01
        assert np.hypot(*(points[at["thorax"]] - middle("shoulder"))) < 0.01
        x0, y0, x1, y1 = figure.head
        neck, top = points[at["upper_neck"]], points[at["head_top"]]
        assert ((neck >= (x0, y0)) & (neck <= (x1, y1)) & (top >= (x0, y0)) & (top <= (x1, y1))).all()
        # a head is an eighth of a body, and about as long as from neck to top where it is not seen from above
        assert 1 / 9 < head_size((x0, y0, x1 - x0, y1 - y0)) < 1 / 6
        assert np.hypot(*(neck - top)) < y1 - y0 + x1 - x0
        # the head is drawn in its box: hair, brim and bun may stick out
        face = [c for s in figure.shapes if s.part == "face" for c in s.circles]
        assert all(x0 - 0.03 < x < x1 + 0.03 and y0 - 0.03 < y < y1 + 0.03 for x, y, _ in face)


def test_joint_limits_hold_and_mirror():
    joints = [Joint("hip", "", (0, 0, 0), (-30, 90), (0, 0), (-10, 10)), Joint("knee", "hip", (0, 1, 0), (-140, 0))]
    bent = forward_kinematics(joints, {"hip": (300, 50, 0), "knee": (45, 0, 0)}, np.eye(3))
    np.testing.assert_allclose(bent["knee"].origin, (0, 0, -1), atol=1e-9)  # 90 degrees forward at most
    np.testing.assert_allclose(bent["knee"].axes, bent["hip"].axes, atol=1e-9)  # a knee does not bend forward
    pose = {
        "left_shoulder": (30, 20, 50),
        "right_shoulder": (30, 20, 50),
        "left_elbow": (60, 0, 0),
        "right_elbow": (60, 0, 0),
    }
    frames = forward_kinematics(JOINTS, pose, np.eye(3))
    np.testing.assert_allclose(frames["left_wrist"].origin * (-1, 1, 1), frames["right_wrist"].origin, atol=1e-9)


def test_every_pose_occurs_and_no_variety_means_the_same_angles():
    rng = np.random.default_rng(0)
    assert {sample_pose(rng)[0] for _ in range(600)} == set(POSES)
    calm = [sample_pose(rng, variety=0) for _ in range(40)]
    stand = [angles["spine"] for name, angles in calm if name == "stand"]
    assert len(stand) > 1 and len(set(stand)) == 1


def test_dials():
    lone = replace(SMALL, max_people=1, objects=0, truncation=0, crowd=0)
    for index in range(10):
        _, labels = render(lone, 0, index)
        assert len(labels.boxes) == 1 and not labels.iscrowd[0]
    crowded = [len(render(replace(SMALL, min_people=4, max_people=4, crowd=0), 0, i)[1].boxes) for i in range(5)]
    assert np.mean(crowded) > 3
    flat = render(replace(lone, noise=0, clutter=0), 0, 1)[0]
    noisy = render(replace(lone, noise=20, clutter=0), 0, 1)[0]
    assert np.abs(noisy[:20].astype(int) - flat[:20]).mean() > 8


@pytest.mark.parametrize(
    "wrong",
    [{"min_people": 3, "max_people": 2}, {"height": (0.9, 0.5)}, {"size": (8, 256)}, {"overlap": 1.5}, {"noise": -1}],
)
def test_impossible_scene_is_refused(wrong):
    with pytest.raises(ValueError, match="scene"):
        Scene(**wrong)


def test_unknown_figure_names_the_known_ones():
    with pytest.raises(ValueError, match="person, dog"):
        render(SMALL, 0, 0, "cat")


def test_dataset_is_standard_coco(tmp_path):
    out = write_dataset(tmp_path / "set", 10, 4, replace(SMALL, crowd=0.5), workers=1)
    assert sorted(p.name for p in out.iterdir()) == ["annotations", "synthetic.json", "train", "val"]
    assert len(list((out / "train").glob("*.jpg"))) == 10 and len(list((out / "val").glob("*.jpg"))) == 4
    coco = json.loads((out / "annotations/person_keypoints_train.json").read_text())
    assert Skeleton.from_coco(coco["categories"][0]) == COCO17
    assert [image["file_name"] for image in coco["images"]] == [f"{i:06d}.jpg" for i in range(10)]
    ids = [a["id"] for a in coco["annotations"]]
    assert len(set(ids)) == len(ids) > 0
    for a in coco["annotations"]:
        assert len(a["keypoints"]) == 51 and a["num_keypoints"] == sum(v > 0 for v in a["keypoints"][2::3])
        assert a["area"] > 0 and a["bbox"][2] > 0 and a["bbox"][3] > 0 and a["category_id"] == 1
        assert isinstance(a["segmentation"], dict if a["iscrowd"] else list)
    image = cv2.imread(str(out / "train/000003.jpg"))[..., ::-1]
    assert np.abs(image.astype(int) - render(replace(SMALL, crowd=0.5), 0, 3)[0]).mean() < 6
    # Training and validation show different pictures.
    assert (out / "train/000000.jpg").read_bytes() != (out / "val/000000.jpg").read_bytes()


def test_dataset_does_not_depend_on_the_number_of_workers(tmp_path):
    one = write_dataset(tmp_path / "a" / "set", 9, 8, SMALL, figure="dog", workers=1)
    two = write_dataset(tmp_path / "b" / "set", 9, 8, SMALL, figure="dog", workers=2)
    assert files_of(one) == files_of(two)
    assert json.loads((one / "annotations/dog_keypoints_val.json").read_text())["categories"][0] == DOG.to_coco()


def test_mpii_dataset_has_what_mpii_annotates(tmp_path):
    out = write_dataset(tmp_path / "set", 14, 6, replace(SMALL, crowd=0.5), "mpii", workers=1)
    same = write_dataset(tmp_path / "coco", 14, 6, replace(SMALL, crowd=0.5), workers=1)
    ids, single = [], []
    for split, count in (("train", 14), ("val", 6)):
        coco, people = (json.loads((d / f"annotations/person_keypoints_{split}.json").read_text()) for d in (out, same))
        assert Skeleton.from_coco(coco["categories"][0]) == MPII16
        ids += [image["id"] for image in coco["images"]]
        for image in coco["images"]:
            assert (out / split / image["file_name"]).is_file()
        for a, theirs in zip(coco["annotations"], people["annotations"], strict=True):
            assert a["id"] // 1000 == a["image_id"] == theirs["image_id"] + ids[-count]
            assert [a[k] for k in ("bbox", "area", "segmentation", "iscrowd")] == [
                theirs[k] for k in ("bbox", "area", "segmentation", "iscrowd")
            ]
            assert len(a["keypoints"]) == 48 and ("rect" in a) == (not a["iscrowd"])
            if a["iscrowd"]:
                continue
            x, y, w, h = a["bbox"]
            assert a["rect"] == a["id"] % 1000 and x <= a["objpos"][0] <= x + w and y <= a["objpos"][1] <= y + h
            assert 5.5 < 200 * a["scale"] / head_size(a["head_box"]) < 9
            apart = [b for b in coco["annotations"] if b["image_id"] == a["image_id"] and b is not a]
            touching = lambda b, x=x, y=y, w=w, h=h: (
                b["bbox"][0] < x + w and x < sum(b["bbox"][::2]) and b["bbox"][1] < y + h and y < sum(b["bbox"][1::2])
            )
            single.append(a["single_person"])
            assert not (a["single_person"] and any(touching(b) for b in apart))
            assert a["single_person"] or apart
    assert ids == list(range(1, 21)) and 0 < sum(single) < len(single)


def test_finished_dataset_stays_and_another_one_is_refused(tmp_path):
    out = write_dataset(tmp_path / "set", 2, 1, SMALL, workers=1)
    (out / "train/000000.jpg").write_bytes(b"touched")
    assert write_dataset(out, 2, 1, SMALL, workers=1) == out
    assert (out / "train/000000.jpg").read_bytes() == b"touched"
    with pytest.raises(FileExistsError, match="num_train is 2, you ask for 3"):
        write_dataset(out, 3, 1, SMALL, workers=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.jpg").write_bytes(b"holiday")
    with pytest.raises(FileExistsError, match="choose another out_dir"):
        write_dataset(tmp_path / "mine", 2, 1, SMALL, workers=1)
    assert (tmp_path / "mine/photo.jpg").read_bytes() == b"holiday"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "set"]  # nothing half-made is left


def test_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def broken(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("lib.draw.cv2.imencode", broken)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "set", 2, 1, SMALL, workers=1)
    assert not list(tmp_path.iterdir())


def test_run_lengths_and_polygons_round_trip():
    rng = np.random.default_rng(0)
    for mask in (rng.random((13, 7)) < 0.5, np.ones((5, 4), bool), np.zeros((5, 4), bool), np.eye(6, dtype=bool)):
        counts = run_lengths(mask)
        np.testing.assert_array_equal(coco_mask.decode(coco_mask.frPyObjects(counts, *mask.shape)), mask)
    square = np.zeros((120, 120), bool)
    square[30:90, 45:75] = True  # at supersample 3: x 15..25, y 10..30
    (outline,) = polygons(square, (45, 30, 30, 60), 3)
    np.testing.assert_allclose(sorted(set(outline[0::2])), (15.17, 24.83), atol=0.01)
    np.testing.assert_allclose(sorted(set(outline[1::2])), (10.17, 29.83), atol=0.01)
