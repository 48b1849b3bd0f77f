import dataclasses
import os
import pickle
import subprocess
import sys
import time

import cv2
import msgspec
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from safetensors.numpy import load_file, save_file

from benchmarks.big_coco import write_big_coco
from lib import ROOT
from lib.__main__ import main
from lib.data import index as module
from lib.data.augment import Augment
from lib.data.coco import CocoFile, Image, insert_neck, read_coco, skeleton_of, with_skeleton
from lib.data.dataset import CocoKeypoints
from lib.data.index import LabelIndex, build_index, index_path
from lib.learner import PoseData
from lib.skeleton import COCO17, COCO18_NECK, OPENPOSE18, Skeleton
from tests.data.batches import everything

SQUARE = [10.5, 20, 40, 20, 40, 60, 10.5, 60]


def mask_of(seed, height=48, width=64):
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 2, (5, 7), np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)


def compressed(mask):
    return {"size": list(mask.shape), "counts": coco_mask.encode(np.asfortranarray(mask))["counts"].decode()}


def annotations():
    """In no order, with everything that may stand there or be missing."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(0, 60, (4, 17, 2)).round(2), rng.integers(0, 3, (4, 17, 1))], 2)
    points = points.reshape(4, 51).tolist()
    return [
        {"id": 9, "image_id": 3, "category_id": 1, "keypoints": points[0], "num_keypoints": 5, "bbox": [1.1, 2, 30, 40.7],
         "area": 700.3, "segmentation": [SQUARE, SQUARE[::-1]]},
        {"id": 4, "image_id": 1, "category_id": 2, "segmentation": {"size": [48, 64], "counts": [100, 5, 48 * 64 - 105]},
         "iscrowd": 1, "bbox": []},
        {"id": 7, "image_id": 3, "category_id": 1, "keypoints": points[1], "segmentation": []},
        {"id": 5, "image_id": 1, "category_id": 1, "keypoints": points[2], "segmentation": compressed(mask_of(1)),
         "iscrowd": 1, "area": 20},
        {"id": 8, "image_id": 3, "category_id": 1, "bbox": [3, 4, 5, 6], "segmentation": None, "keypoints": []},
    ]  # fmt: skip


@pytest.fixture
def file(tmp_path):
    images = [
        {"id": i, "file_name": name, "height": 48, "width": 64}
        for i, name in ((3, "ä/3.jpg"), (2, "2.jpg"), (1, "1.jpg"))
    ]
    categories = [COCO17.to_coco(), {"id": 2, "name": "crowd"}]
    content = {"images": images, "annotations": annotations(), "categories": categories}
    (tmp_path / "labels.json").write_bytes(msgspec.json.encode(content))
    return tmp_path / "labels.json"


@pytest.fixture
def pictures(tmp_path):
    """Twelve generated pictures with thirty people, crowds among them, as small as they can be."""
    write_big_coco(tmp_path / "big.json", 12, 60, 20, seed=3)
    rng = np.random.default_rng(0)
    for image in read_coco(tmp_path / "big.json").images:
        small = rng.integers(0, 255, (image.height // 40, image.width // 40, 3), np.uint8)
        cv2.imwrite(str(tmp_path / image.file_name), cv2.resize(small, (image.width, image.height)))
    return tmp_path / "big.json"


def same(a, b):
    arrays = [name for name in module._ARRAYS if not np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)]
    return arrays == [] and a.categories == b.categories and len(a) == len(b)


@pytest.mark.parametrize("saved", [False, True])
def test_every_label_is_there(file, saved):
    labels = LabelIndex.build(file) if saved else LabelIndex.of(file)
    assert len(labels) == 3 and labels.image_ids.tolist() == [3, 2, 1] and labels.source == str(file)
    assert labels.image(0) == Image(3, "ä/3.jpg", 64, 48) and labels.sizes.tolist() == [[48, 64]] * 3
    assert (
        labels.ids.tolist() == [9, 7, 8, 4, 5] and labels.rows(1).tolist() == [] and labels.rows(2).tolist() == [3, 4]
    )
    given = {a["id"]: a for a in annotations()}
    for row, i in enumerate(labels.ids.tolist()):
        a = given[i]
        assert labels.category_ids[row] == a["category_id"] and labels.iscrowd[row] == a.get("iscrowd", 0)
        np.testing.assert_array_equal(labels.boxes[row], a.get("bbox") or [np.nan] * 4)
        assert labels.areas[row] == a.get("area", 0)
        points = np.array(a.get("keypoints") or [0] * 51, np.float32).reshape(1, 17, 3)
        if a["category_id"] == 1:
            np.testing.assert_array_equal(labels.keypoints(np.array([row])), points)
        assert labels.labelled[row] == (points[..., 2] > 0).sum()
        assert labels.num_keypoints[row] == a.get("num_keypoints", labels.labelled[row])
    assert [polygon.ravel().tolist() for polygon in labels.polygons(0)] == [SQUARE, SQUARE[::-1]]
    assert [labels.polygons(row) for row in (1, 2, 3, 4)] == [[]] * 4 and labels.runs(0) is None
    assert labels.runs(3).tolist() == [100, 5, 48 * 64 - 105] and labels.region_sizes[:, 1].tolist() == [
        -1,
        -1,
        -1,
        64,
        64,
    ]
    assert labels.keypoints(labels.rows(0)).shape == (3, 17, 3) and labels.keypoints(labels.rows(1)).shape == (0, 0, 3)


def test_compressed_runs_are_pycocotools_masks(file):
    content = msgspec.json.decode(file.read_bytes())
    masks = [mask_of(seed, 40 + seed, 300) for seed in range(20)] + [
        np.zeros((9, 4), np.uint8),
        np.ones((9, 4), np.uint8),
    ]
    row = {"image_id": 3, "category_id": 1}
    content["annotations"] = [{**row, "id": i, "segmentation": compressed(m)} for i, m in enumerate(masks)]
    file.write_bytes(msgspec.json.encode(content))
    labels = LabelIndex.of(file)
    for i, mask in enumerate(masks):
        runs = labels.runs(i)
        assert labels.region_sizes[i].tolist() == list(mask.shape) and runs.sum() == mask.size
        np.testing.assert_array_equal(np.repeat(np.arange(len(runs)) % 2, runs), mask.ravel(order="F"))


@pytest.mark.parametrize(
    "counts", ["", "o", "~~~~~~~~~~~~~~~~~~", "ooooooooooooooooooooooooooooooooooooo0", "äöü", "1" * 5, [2**40]]
)
def test_broken_runs_are_found_when_they_are_needed(pictures, counts):
    content = msgspec.json.decode(pictures.read_bytes())
    shown = {a["image_id"] for a in content["annotations"] if a["num_keypoints"]}
    image = next(i for i in content["images"] if i["id"] in shown)
    content["annotations"].append({"id": 0, "image_id": image["id"], "category_id": 1, "iscrowd": 1,
                                   "segmentation": {"size": [image["height"], image["width"]], "counts": counts}})  # fmt: skip
    pictures.write_bytes(msgspec.json.encode(content))
    with pytest.raises(ValueError, match="runs of annotation 0 do not add up"):
        CocoKeypoints(pictures, pictures.parent)


def test_the_index_is_the_same_in_memory_and_on_disk_and_every_time(pictures):
    labels = LabelIndex.build(pictures)
    path = index_path(pictures)
    assert (
        path.name == "big.index.safetensors"
        and labels.path == path
        and same(labels, LabelIndex.from_coco(read_coco(pictures)))
    )
    first = path.read_bytes()
    assert LabelIndex.build(pictures, path).path == path and path.read_bytes() == first
    assert path.stat().st_mode == pictures.stat().st_mode
    assert set(load_file(path)) == set(module._ARRAYS)  # any reader of safetensors can open it
    assert labels.keypoint_values.dtype == np.float32 and not labels.keypoint_values.flags.writeable


def test_opening_reads_no_json(pictures, monkeypatch):
    expected = CocoKeypoints(pictures, pictures.parent)[0]
    build_index(pictures)
    monkeypatch.setattr(module, "read_coco", lambda *_: pytest.fail("the JSON was read"))
    for source in (pictures, index_path(pictures), LabelIndex.open(index_path(pictures))):
        item = CocoKeypoints(source, pictures.parent)[0]
        assert torch.equal(item["keypoints"], expected["keypoints"]) and torch.equal(item["mask"], expected["mask"])


def test_samples_equal_those_of_the_json_in_every_worker(pictures):
    options = dict(input_size=(64, 64), augment=Augment(), only_with_people=False)
    expected = everything(CocoKeypoints(insert_neck(read_coco(pictures)), pictures.parent, **options))
    assert expected[0]["keypoints"].shape[2] == 18 and min(b["mask"].min() for b in expected) == 0
    data = CocoKeypoints(LabelIndex.build(pictures).with_neck(), pictures.parent, **options)
    for workers, context in ((0, None), (2, "fork"), (2, "spawn")):
        for a, b in zip(expected, everything(data, workers, context), strict=True):
            assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("rounded", [True, False])
def test_the_neck_is_the_one_of_insert_neck(file, rounded):
    coco = insert_neck(read_coco(file), rounded=rounded)
    labels = LabelIndex.of(file).with_neck("person", rounded)
    expected = LabelIndex.from_coco(coco)
    assert labels.categories == coco.categories
    for image in range(2):
        np.testing.assert_array_equal(labels.keypoints(labels.rows(image)), expected.keypoints(expected.rows(image)))
    with pytest.raises(ValueError, match="has a neck already"):
        labels.with_neck("person")
    with pytest.raises(KeyError, match="no category 'cat'"):
        labels.with_neck("cat")


HEADS = Skeleton("head", ("right_eye", "nose", "left_eye"), ((1, 0), (1, 2)), ((0, 2),), (0.1, 0.2, 0.3))


@pytest.mark.parametrize("skeleton", [OPENPOSE18, COCO18_NECK, HEADS])
@pytest.mark.parametrize("saved", [False, True])
def test_another_skeleton_is_the_keypoints_of_the_same_name(file, skeleton, saved):
    plain = (LabelIndex.build(file) if saved else LabelIndex.of(file)).with_neck("person", rounded=False)
    labels = pickle.loads(pickle.dumps(LabelIndex.of(file).with_skeleton(skeleton, "person")))
    rows = labels.rows(0)
    expected = plain.keypoints(rows)[:, [COCO18_NECK.index(name) for name in skeleton.keypoints]]
    np.testing.assert_array_equal(labels.keypoints(rows), expected)
    assert labels.skeleton("person") == skeleton and labels.keypoints(rows).any()
    # the same for a whole file, which keeps the category's name
    coco = with_skeleton(read_coco(file), skeleton, "person")
    found = skeleton_of(coco, "person")
    assert (found.keypoints, found.limbs, found.sigmas) == (skeleton.keypoints, skeleton.limbs, skeleton.sigmas)
    whole = LabelIndex.from_coco(coco)
    assert coco.source == str(file) and whole.labelled[rows].tolist() == (expected[..., 2] > 0).sum(axis=1).tolist()
    np.testing.assert_array_equal(whole.keypoints(rows), expected)


def test_keypoints_that_are_left_out_do_not_count(file):
    labels = LabelIndex.of(file).with_skeleton(HEADS, "person")
    rows = np.flatnonzero(labels.category_ids == 1)
    count = (labels.keypoints(rows)[..., 2] > 0).sum(axis=1)
    assert labels.labelled[rows].tolist() == labels.num_keypoints[rows].tolist() == count.tolist()
    whole = LabelIndex.of(file)
    all_of_them = whole.with_skeleton(OPENPOSE18, "person")
    assert all_of_them.labelled.tolist() == whole.labelled.tolist() != labels.labelled.tolist()
    assert all_of_them.num_keypoints.tolist() == whole.num_keypoints.tolist()


def test_views_follow_each_other(file):
    rows = np.array([0, 1])
    expected = LabelIndex.of(file).with_skeleton(OPENPOSE18, "person").keypoints(rows)
    reordered = dataclasses.replace(COCO17, keypoints=COCO17.keypoints[::-1], flip_pairs=())
    labels = LabelIndex.of(file).with_skeleton(reordered, "person")
    assert labels.with_neck("person").skeleton("person").keypoints == (*reordered.keypoints, "neck")
    twice = labels.with_neck("person", rounded=False).with_skeleton(OPENPOSE18, "person")
    np.testing.assert_array_equal(twice.keypoints(rows), expected)
    np.testing.assert_array_equal(labels.with_skeleton(OPENPOSE18, "person").keypoints(rows), expected)


def test_a_skeleton_with_other_keypoints_is_refused(file):
    toes = Skeleton("foot", ("nose", "left_toe", "right_toe"), ((0, 1),), (), (0.1,) * 3)
    for call in (lambda: LabelIndex.of(file).with_skeleton(toes, "person"),
                 lambda: with_skeleton(read_coco(file), toes, "person")):  # fmt: skip
        with pytest.raises(
            ValueError, match=r"labels\.json: category 'person' has no left_toe, right_toe, .* 'foot' asks"
        ):
            call()
    with pytest.raises(ValueError, match=r"category 'crowd' has no right_eye, nose, left_eye, .*; it has no keypoints"):
        with_skeleton(read_coco(file), HEADS, "crowd")


def test_keypoints_inside_their_picture(file):
    content = msgspec.json.decode(file.read_bytes())
    first = content["annotations"][0]
    places = [(0, 0), (0, 5), (5, 0), (64, 5), (63.9, 5), (5, 48), (5, 47.9), (-0.1, 5), (5, -1)]
    first["keypoints"][: 3 * len(places)] = [n for x, y in places for n in (x, y, 2)]
    file.write_bytes(msgspec.json.encode(content))
    labels = LabelIndex.of(file)
    kept = labels.keypoints(np.array([0]), inside=True)[0, : len(places), 2] > 0
    assert kept.tolist() == [False, True, True, False, True, False, True, False, False]
    # both shoulders are labelled, one beyond the border: no neck between them
    left, right = (COCO17.index(name) for name in ("left_shoulder", "right_shoulder"))
    assert not kept[left] and kept[right]
    labels = labels.with_skeleton(OPENPOSE18, "person")
    necks = [labels.keypoints(np.array([0]), inside)[0, 1] for inside in (False, True)]
    np.testing.assert_allclose(necks, [[5, 47.95, 2], [0, 0, 0]], atol=1e-4)


def test_a_pickle_is_the_path(pictures):
    labels = LabelIndex.build(pictures).with_neck()
    content = pickle.dumps(labels)
    assert len(content) < 3000 < index_path(pictures).stat().st_size
    again = pickle.loads(content)
    assert same(again, labels) and again.source == labels.source
    assert again.keypoints(np.arange(3)).tolist() == labels.keypoints(np.arange(3)).tolist()
    assert again.keypoints(np.arange(3)).shape == (3, 18, 3)
    in_memory = LabelIndex.of(write_big_coco(pictures.parent / "other.json", 5, 9, 4))
    assert same(pickle.loads(pickle.dumps(in_memory)), in_memory)
    write_big_coco(pictures, 12, 60, 20, seed=4)
    LabelIndex.build(pictures)
    with pytest.raises(ValueError, match="was made again from another file while it was in use"):
        pickle.loads(content)


def test_an_index_of_another_content_is_not_used(pictures):
    build_index(pictures)
    path = index_path(pictures)
    os.utime(pictures, ns=(1, time.time_ns() + 10**9))  # a copy: another time, the same content
    assert LabelIndex.of(pictures).path == path and LabelIndex.open(path).path == path
    write_big_coco(pictures, 12, 59, 20, seed=3)
    with pytest.warns(
        UserWarning, match=r"big\.index\.safetensors was made from another version of .*big\.json.*makes it again"
    ):
        assert len(LabelIndex.of(pictures).ids) == 59
    with pytest.raises(
        ValueError, match=r"another version of .*big\.json: make it again with `python -m lib index .*big\.json`"
    ):
        LabelIndex.open(path)
    content = pictures.read_bytes()
    build_index(pictures)
    pictures.write_bytes(content.replace(b'"iscrowd":1', b'"iscrowd":0'))  # of the same size
    with pytest.warns(UserWarning, match="another version"):
        assert not LabelIndex.of(pictures).iscrowd.any()
    pictures.unlink()
    assert len(LabelIndex.open(path).ids) == 59  # an index can travel alone
    with pytest.raises(FileNotFoundError, match=r"big\.json"):
        LabelIndex.of(pictures)


def test_an_index_may_lie_elsewhere(pictures, tmp_path, monkeypatch, capsys):
    out = tmp_path / "scratch/mine.safetensors"
    assert main(["index", str(pictures), "--out", str(out)]) == 0
    assert "mine.safetensors: 12 images, 60 annotations, 20 with keypoints" in capsys.readouterr().out
    assert not index_path(pictures).exists() and len(CocoKeypoints(out, tmp_path)) > 0
    assert LabelIndex.of(out).source == str(pictures)
    write_big_coco(pictures, 12, 60, 19)
    with pytest.raises(ValueError, match=r"lib index .*big\.json --out .*mine\.safetensors`"):
        CocoKeypoints(out, tmp_path)
    assert main(["index", str(pictures), "--out", str(tmp_path / "wrong.npy")]) == 1
    assert "wrong.npy: the name of an index ends in .safetensors" in capsys.readouterr().err
    monkeypatch.setattr(module, "LARGE_FILE", 1000)
    with pytest.warns(UserWarning, match=r"MB, which every start reads again: `python -m lib index .*big\.json` once"):
        LabelIndex.of(pictures)


def test_damage_is_one_clear_error(pictures):
    build_index(pictures)
    path = index_path(pictures)
    whole = path.read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    damaged = [whole[:n] for n in (0, 3, 8, begin // 2, begin, begin + 100, len(whole) // 2, len(whole) - 1)]
    damaged += [
        whole + b"x",
        b"\0" * len(whole),
        whole[:begin] + b"\0" * (len(whole) - begin),
        b"{}" * 50,
        b"\xff" * 900,
    ]
    damaged.append(whole.replace(b"F32", b"F99"))
    damaged.append(whole.replace(rb"\"version\":1", rb"\"version\":9"))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"big\.index\.safetensors is not a whole index of labels \(.*python -m lib index"
        ):
            CocoKeypoints(pictures, pictures.parent)
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="it holds other things"):
        LabelIndex.open(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        LabelIndex.open(path.with_name("nowhere.safetensors"))


def test_a_bad_file_becomes_no_index(file, monkeypatch):
    content = msgspec.json.decode(file.read_bytes())
    for change, message in (
        ({"image_id": 77}, r"labels\.json: annotation 9 is for image_id 77"),
        ({"keypoints": [1, 2, 3]}, "annotation 9 has 3 keypoint numbers"),
        ({"id": 2**70}, r"labels\.json: .*(integer|too large)"),
    ):
        broken = [{**content["annotations"][0], **change}, *content["annotations"][1:]]
        bad = file.with_name("bad.json")
        bad.write_bytes(msgspec.json.encode({**content, "annotations": broken}) if change.get("id", 0) < 2**63 else
                        msgspec.json.encode({**content, "annotations": broken[1:]}).replace(b'"id":7', b'"id":%d' % 2**70))  # fmt: skip
        with pytest.raises(ValueError, match=message.replace("labels", "bad")):
            build_index(bad)
    monkeypatch.setattr(module, "read_coco", lambda path: (read_coco(path), os.utime(path, ns=(1, 1)))[0])
    with pytest.raises(ValueError, match="was changed while it was read"):
        build_index(file)
    assert sorted(p.name for p in file.parent.iterdir()) == ["bad.json", "labels.json"]


def test_an_index_with_a_hostile_name_is_refused(pictures):
    build_index(pictures)
    path = index_path(pictures)
    path.write_bytes(path.read_bytes().replace(b".jpg", b"/../"))
    with pytest.raises(ValueError, match="leaves the image folder"):
        CocoKeypoints(path, pictures.parent)[0]


def test_a_killed_build_leaves_nothing_that_counts(pictures):
    """The file is written, but never moved into place: as if the power had gone."""
    build = "import sys; from lib.data.index import build_index; build_index(sys.argv[1])"
    die = "import os; os.replace = lambda *_: os._exit(9); "
    result = subprocess.run([sys.executable, "-c", die + build, pictures], cwd=ROOT, check=False)
    assert result.returncode == 9 and not index_path(pictures).exists()
    assert len(list(pictures.parent.glob("*.part.safetensors"))) == 1
    assert len(LabelIndex.of(pictures)) == 12
    subprocess.run([sys.executable, "-c", build, pictures], cwd=ROOT, check=True, capture_output=True)
    assert [p.name for p in pictures.parent.glob("*safetensors")] == ["big.index.safetensors"]
    assert list(pictures.parent.glob(".*")) == []


def test_training_takes_the_index(pictures, monkeypatch):
    folders = dict(val_annotations=str(pictures), val_images=str(pictures.parent), train_images=str(pictures.parent))
    plain = PoseData(train_annotations=str(pictures), neck=True, **folders)
    other = pictures.with_name("train.json")
    other.write_bytes(pictures.read_bytes())
    build_index(other)
    monkeypatch.setattr(module, "read_coco", lambda *_: pytest.fail("the JSON was read"))
    data = PoseData(train_annotations=str(other), neck=True, **folders)
    assert data.skeleton == COCO18_NECK and data.train_set._labels.path is not None
    assert torch.equal(data.train_set[0]["keypoints"], plain.train_set[0]["keypoints"])
    assert data.read_train() == plain.read_train()


def test_an_empty_file(tmp_path):
    labels = LabelIndex.from_coco(CocoFile([], [], []))
    assert len(labels) == 0 and labels.boxes.shape == (0, 4) and labels.sizes.shape == (0, 2)
    (tmp_path / "empty.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert same(LabelIndex.build(tmp_path / "empty.json"), labels)
