"""DeeperCut's crops and its dataset.mat: the original's numbers, and joints where the picture really shows them."""

import json
import math

import msgspec
import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from lib import files
from lib.data.coco import read_coco, skeleton_of
from lib.data.dataset import CocoKeypoints
from lib.data.deepercut_crops import (
    Sample,
    crops_to_coco,
    cut,
    plan_crops,
    read_dataset_mat,
    write_dataset_mat,
)
from lib.data.mpii import head_size, read_mpii
from lib.skeleton import MPII14, MPII16
from tests.data.mpii_release import NOTHING, cell, figure, person, points, struct, write_release

SIZE = 700, 900


def crops_of(tmp_path, people, single=NOTHING, size=SIZE, **options):
    path = write_release(tmp_path / "r.mat", [{"name": "a.jpg", "people": people, "single": np.array([single])}])
    return plan_crops(read_mpii(path), {"a.jpg": size}, **options)


def matlab_crop(people, r, size, single):
    """Box of a crop, from people as {id: (x, y)} and heads: the original's rule in its own 1-based terms."""
    joints, head = people[r]
    sc = (head / 25) * 200 / 400
    half_up = lambda v: math.floor(abs(v) + 0.5) * (1 if v >= 0 else -1)
    xs, ys = zip(*joints.values())
    pos_x1, pos_x2 = half_up(min(xs) / sc), half_up(max(xs) / sc)
    pos_y1, pos_y2 = half_up(min(ys) / sc), half_up(max(ys) / sc)
    delta = 130 if single else 65
    x1, x2 = max(1, pos_x1 - delta), min(math.ceil(size[1] / sc), pos_x2 + delta)
    y1, y2 = max(1, pos_y1 - delta), min(math.ceil(size[0] / sc), pos_y2 + delta)
    others = [x / sc for i, (joints, _) in enumerate(people) if i != r for x, _ in joints.values()]
    if single and others:
        left, right = [x for x in others if x < pos_x1], [x for x in others if x > pos_x2]
        if left:
            x1 = half_up(max(x1, max(left) + 20))
        if right:
            x2 = half_up(min(x2, min(right) - 20))
    return x1, y1, x2, y2


def everybody(rng, count=3):
    return [(figure(*rng.uniform((150, 20), (750, 150)), head), head) for head in rng.uniform(30, 90, count)]


def as_people(figures):
    return [person(0, 0, head, annopoints=points(joints)) for joints, head in figures]


@pytest.mark.parametrize("seed", range(8))
def test_boxes_and_joints_are_the_originals(tmp_path, seed):
    rng = np.random.default_rng(seed)
    figures = everybody(rng)
    crops, left_out = crops_of(tmp_path, as_people(figures), single=2)
    assert [crop.name for crop in crops] == ["im00001_2.png", "im00001_1.png", "im00001_3.png"] and not left_out
    order = [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9]
    for crop in crops:
        r = crop.person.rect - 1
        box = matlab_crop(figures, r, SIZE, single=r == 1)
        assert crop.box == pytest.approx(box) and crop.factor == pytest.approx(figures[r][1] / 50)
        joints = [figures[r][0][k] for k in order]
        for j, (x, y) in enumerate(joints):
            expected = [j, x / crop.factor - box[0] + 1, y / crop.factor - box[1] + 1]
            assert np.abs(crop.joints[j] - expected).max() <= 0.5 + 1e-6
        assert crop.size == (box[3] - box[1] + 1, box[2] - box[0] + 1)


def test_isolation_keeps_others_out_sideways_only(tmp_path):
    people = [person(450, 100, 50), person(250, 100, 50), person(640, 100, 50)]
    alone, _ = crops_of(tmp_path, people[:1], single=1)
    free, _ = crops_of(tmp_path, people, single=NOTHING)
    crops, _ = crops_of(tmp_path, people, single=1)
    (isolated,) = [crop for crop in crops if crop.person.rect == 1]
    assert alone[0].box == (190, 1, 710, 605)
    # our wrists are at 320 and 580, the nearest joints beyond them the others' shoulders at 295 and 595
    assert isolated.box == (295 + 20, 1, 595 - 20, 605)
    assert free[0].box == (255, 35, 645, 540)
    # narrow people: nobody's wrists interleave
    narrow = lambda x: person(x, 100, 50, annopoints=points({9: (x, 100), 0: (x + 40, 475)}))
    (crop, *_), _ = crops_of(tmp_path, [narrow(450), narrow(300), narrow(560)], single=1)
    assert crop.box == (340 + 20, 1, 560 - 20, 605)
    (crop, *_), _ = crops_of(tmp_path, [narrow(450), {**narrow(300), "annopoints": NOTHING}], single=1)
    assert crop.box == (320, 1, 620, 605)


def test_heads_become_fifty_pixels_and_own_margins_are_taken(tmp_path):
    crops, _ = crops_of(tmp_path, [person(450, 100, 31)])
    content = crops_to_coco(crops)
    assert head_size(content["annotations"][0]["head_box"]) == pytest.approx(50)
    wide, _ = crops_of(tmp_path, [person(450, 100, 31)], margins={True: 130, False: 90})
    assert wide[0].box[0] == crops[0].box[0] - 25


def test_another_head_scales_everything(tmp_path):
    people = [person(450, 100, 50), person(250, 100, 50), person(640, 100, 50)]
    for single in (1, NOTHING):
        published, small = (crops_of(tmp_path, people, single=single, head=head)[0] for head in (50, 16))
        for a, b in zip(published, small, strict=True):
            assert b.factor == pytest.approx(50 / 16) and b.picture.people[0].scale == 16 / 25
            assert np.abs(np.array(a.box) * 16 / 50 - b.box).max() <= 1.5
            assert head_size(b.picture.people[0].head_box) == pytest.approx(16)


def test_people_who_cannot_have_a_crop_are_named(tmp_path):
    headless = {**person(300, 50), "x1": NOTHING}
    flat = {**person(300, 50), "x2": 285.0, "x1": 285.0, "y2": 50.0}
    outside = {**person(300, 50), "annopoints": points({3: (300, 5000)})}
    giant = {**person(300, 50, 0.5), "annopoints": points({3: (1, 1), 4: (880, 690)})}
    unlabelled = {**person(300, 50), "annopoints": NOTHING}
    crops, left_out = crops_of(tmp_path, [headless, flat, outside, giant, unlabelled, person(300, 50)])
    assert [crop.person.rect for crop in crops] == [6] and len(left_out) == 4
    assert "image 1 (a.jpg), rectangle 1: no head box" in left_out[0] and "a head of 0 pixels" in left_out[1]
    assert "rectangle 3: its crop would have" in left_out[2] and "rectangle 4: its crop would have" in left_out[3]


@pytest.mark.parametrize("head", [20, 47.3, 50, 110])
def test_joints_are_where_a_painted_dot_is(tmp_path, head):
    joints = figure(450, 60, head) if head < 60 else figure(450, -40, head)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    (crop,), _ = crops_of(tmp_path, [person(450, 60, head, annopoints=points(joints))], single=1)
    image = np.zeros(SIZE)
    for x, y in joints.values():  # 1-based pixels
        image += 255 * np.exp(-((columns - x + 1) ** 2 + (rows - y + 1) ** 2) / (2 * (2.5 * crop.factor) ** 2))
    pixels = cut(np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), crop)
    assert pixels.shape == (*crop.size, 3) and pixels.dtype == np.uint8
    stored = crop.joints[:, 1:] - 1
    checked = 0
    for k, (x, y, _) in enumerate(crop.picture.people[0].keypoints):
        if not (10 <= x < crop.size[1] - 10 and 10 <= y < crop.size[0] - 10):
            continue
        x0, y0 = round(x) - 9, round(y) - 9
        window = pixels[y0 : y0 + 19, x0 : x0 + 19, 0].astype(float)
        centre = (window * np.mgrid[:19, :19][::-1]).sum(axis=(1, 2)) / window.sum() + (x0, y0)
        assert np.abs(centre - (x, y)).max() < 0.1
        name = MPII16.keypoints[k]
        if name in MPII14.keypoints:
            # rounding, and the half pixels which the original's division leaves out
            bound = 0.6 + abs(1 - 1 / crop.factor) / 2
            assert np.abs(stored[MPII14.index(name)] - centre).max() <= bound
            checked += 1
    assert checked > 8


def matlab_resize(image, scale):
    """imresize(image, scale, 'bicubic') as MATLAB documents it: rows, then columns, mirrored at the borders."""
    for axis in (0, 1):
        image = np.moveaxis(image, axis, 0).astype(float)
        length = len(image)
        size = math.ceil(length * scale)
        squeeze = min(scale, 1)
        u = np.arange(1, size + 1) / scale + 0.5 * (1 - 1 / scale)
        taps = math.ceil(4 / squeeze) + 2
        index = np.floor(u - 2 / squeeze)[:, None] + np.arange(taps)
        t = np.abs(squeeze * (u[:, None] - index))
        weights = np.where(
            t <= 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t <= 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0)
        )
        weights /= weights.sum(axis=1, keepdims=True)
        mirror = np.concatenate([np.arange(length), np.arange(length)[::-1]])
        image = np.einsum("st,stac->sac", weights, image[mirror[(index.astype(int) - 1) % (2 * length)]])
        image = np.moveaxis(np.clip(np.floor(image + 0.5), 0, 255), 0, axis)
    return image


@pytest.mark.parametrize("head", [23, 50, 64.7, 190])
def test_pixels_are_matlabs(tmp_path, head):
    size = 157, 203
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    place = {9: (20.0, 30.0), 0: (190.0, 150.0)}
    (crop,), _ = crops_of(tmp_path, [person(90, 30, head, annopoints=points(place))], single=1, size=size)
    x1, y1, x2, y2 = crop.box
    whole = matlab_resize(image, 1 / crop.factor)
    assert whole.shape[:2] == tuple(math.ceil(side / crop.factor) for side in size)
    difference = np.abs(whole[y1 - 1 : y2, x1 - 1 : x2] - cut(image, crop))
    assert difference.max() <= 1 and difference.mean() < 0.1


def test_crops_are_a_coco_file_that_trains(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*SIZE, 3), np.uint8)
    crops, _ = crops_of(tmp_path, as_people(everybody(rng)), single=2)
    path = files.write(tmp_path / "crops.json", msgspec.json.encode(crops_to_coco(crops)))
    for crop in crops:
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(cut(image, crop)).save(tmp_path / "images" / crop.name)
    coco = read_coco(path)
    assert skeleton_of(coco) == MPII14 and [image.id for image in coco.images] == [1002, 1001, 1003]
    assert [(image.height, image.width) for image in coco.images] == [crop.size for crop in crops]
    samples = CocoKeypoints(path, tmp_path / "images", input_size=(256, 256))
    assert len(samples) == 3 and all(len(sample["keypoints"]) == 1 for sample in samples)
    raw = json.loads(path.read_text())["images"][0]
    assert raw["source"] == "a.jpg" and raw["source_id"] == 1 and np.shape(raw["affine"]) == (2, 3)


def reads_like_the_original(path):
    """What the original's loader sees, field by position and only the first person."""
    dataset = loadmat(path)["dataset"]
    for i in range(dataset.shape[1]):
        entry = dataset[0, i]
        yield entry[0][0], entry[1][0], entry[2][0][0], entry[3][0] if len(entry) > 3 else None


def test_dataset_mat_is_read_back_and_by_position(tmp_path):
    joints = np.array([[0, 175, 261], [13, 226, 72]])
    samples = [Sample("/data/im00005_1.png", (391, 295), (joints,)), Sample("b.png", (252, 170), (joints[:1], joints))]
    path = write_dataset_mat(tmp_path / "dataset.mat", samples)
    for sample, (name, size, first, _) in zip(samples, reads_like_the_original(path), strict=True):
        assert name == sample.image and size.tolist() == [3, *sample.size] and first.dtype == np.int32
        assert first.tolist() == sample.joints[0].tolist()
    for sample, back in zip(samples, read_dataset_mat(path), strict=True):
        assert (back.image, back.size, back.crop) == (sample.image, sample.size, None)
        assert [j.tolist() for j in back.joints] == [j.tolist() for j in sample.joints]
    assert write_dataset_mat(tmp_path / "again.mat", samples).read_bytes() == path.read_bytes()


def test_dataset_mat_with_crops_and_without_people(tmp_path):
    samples = [
        Sample("a.png", (200, 300), (), (1, 2, 300, 200)),
        Sample("b.png", (9, 9), (np.zeros((0, 3)),), (1, 1, 9, 9)),
    ]
    path = write_dataset_mat(tmp_path / "dataset.mat", samples)
    back = read_dataset_mat(path)
    assert [s.crop for s in back] == [(1, 2, 300, 200), (1, 1, 9, 9)] and [len(s.joints) for s in back] == [0, 1]
    assert back[1].joints[0].shape == (0, 3)
    assert loadmat(path)["dataset"][0, 0][3][0].tolist() == [1, 2, 300, 200]
    for wrong in ([], [samples[0], Sample("c.png", (1, 1), ())]):
        with pytest.raises(ValueError, match="all or none"):
            write_dataset_mat(tmp_path / "no.mat", wrong)


def test_files_of_matlab_and_of_others(tmp_path):
    joints = np.array([[2, -0.5, 186.5]])
    rows = [{"image": "a.png", "size": np.array([[3, 200, 255]], np.uint8), "joints": cell([joints])},
            {"image": "b.png", "size": np.array([[3, 800, 600]], np.uint16), "joints": joints.astype(np.int32)}]  # fmt: skip
    savemat(tmp_path / "names.mat", {"dataset": struct(rows, "joints", "size", "image")})  # another order
    first, second = read_dataset_mat(tmp_path / "names.mat")
    assert first.size[0] * first.size[1] == 51000 and first.joints[0].tolist() == [[2, -1, 187]]  # as MATLAB rounds
    assert second.size == (800, 600) and second.joints[0].tolist() == [[2, 0, 186]]
    renamed = [
        {"file": row["image"], "dims": row["size"], "points": row["joints"], "seq": 4, "frame": 5} for row in rows
    ]
    savemat(tmp_path / "position.mat", {"dataset": struct(renamed)})
    assert [s.image for s in read_dataset_mat(tmp_path / "position.mat")] == ["a.png", "b.png"]
    assert [s.crop for s in read_dataset_mat(tmp_path / "position.mat")] == [None, None]
    savemat(tmp_path / "test.mat", {"dataset": struct([{k: row[k] for k in ("image", "size")} for row in rows])})
    assert [s.joints for s in read_dataset_mat(tmp_path / "test.mat")] == [(), ()]


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"annolist": 1}, "no struct `dataset`"),
        ({"dataset": np.ones((2, 2))}, "no struct `dataset`"),
        ({"dataset": struct([{"image": "a.png", "size": np.array([[3, 9]]), "joints": NOTHING}])}, "entry 1 of"),
        ({"dataset": struct([{"image": NOTHING, "size": np.array([[3, 9, 9]]), "joints": NOTHING}])}, "entry 1 of"),
        ({"dataset": struct([{"image": "a", "size": np.array([[3, 9, 9]]), "joints": np.ones((1, 4))}])}, "entry 1 of"),
    ],
)
def test_other_mat_files_are_one_clear_error(tmp_path, variables, message):
    savemat(tmp_path / "wrong.mat", variables)
    with pytest.raises(ValueError, match=message) as error:
        read_dataset_mat(tmp_path / "wrong.mat")
    assert str(error.value).startswith(str(tmp_path / "wrong.mat"))
    (tmp_path / "text.mat").write_text("hello" * 99)
    with pytest.raises(ValueError, match="not a MATLAB file"):
        read_dataset_mat(tmp_path / "text.mat")
