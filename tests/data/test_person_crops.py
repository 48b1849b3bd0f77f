import pickle

import cv2
import msgspec
import numpy as np
import pytest
import torch

from lib.data.coco import read_coco
from lib.data.index import LabelIndex, build_index
from lib.data.person_crops import CropAugment, PersonCrops
from lib.people import apply_affine, invert_affine
from lib.skeleton import COCO17, OPENPOSE18
from tests.data.batches import everything

HEIGHT, WIDTH = 240, 320
FIGURE = np.array([(0, -.44), (.04, -.48), (-.04, -.48), (.1, -.45), (-.1, -.45), (.17, -.3), (-.17, -.3), (.24, -.12),
                   (-.24, -.12), (.28, .06), (-.28, .06), (.11, .05), (-.11, .05), (.14, .28), (-.14, .28), (.15, .5),
                   (-.15, .5)])  # fmt: skip


def person(i, centre, height=100, image=1, **more):
    """Standing, everything visible; the box ends half a pixel outside the outermost keypoints' pixels."""
    points = FIGURE * height + centre
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    keypoints = np.column_stack([points, np.full(17, 2)]).ravel().tolist()
    return {"id": i, "image_id": image, "category_id": 1, "keypoints": keypoints, "num_keypoints": 17, "area": 5000.0,
            "bbox": [x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0], **more}  # fmt: skip


def nobody(i, box, **more):
    return {"id": i, "image_id": 1, "category_id": 1, "keypoints": [0] * 51, "num_keypoints": 0, "bbox": box, **more}


@pytest.fixture
def folder(tmp_path):
    """Three pictures in which the colours say where a pixel came from: blue is x, green is y (in OpenCV's order)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    (tmp_path / "images").mkdir()
    for i in (1, 2, 3):
        image = np.stack([x * 255 / WIDTH, y * 255 / HEIGHT, np.full_like(x, 60 * i)], -1).round().astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"images/{i}.png"), image)
    return tmp_path


def save(folder, people):
    images = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in (1, 2, 3)]
    content = {"images": images, "annotations": people, "categories": [COCO17.to_coco()]}
    (folder / "a.json").write_bytes(msgspec.json.encode(content))
    return folder / "a.json"


@pytest.fixture
def file(folder):
    people = [person(1, (100, 120)), person(2, (220, 130), height=80), person(3, (160, 120), height=120, image=2)]
    return save(folder, people)


def crops(file, **options):
    labels = LabelIndex.of(file).with_skeleton(OPENPOSE18)
    return PersonCrops(labels, file.parent / "images", **{"input_size": (184, 184)} | options)


class Draws:
    """In place of a random generator."""

    def __init__(self, *values):
        self.values = values

    def random(self, count):
        assert count == len(self.values)
        return np.array(self.values)


def test_a_crop_is_scaled_to_the_person_turned_shifted_and_mirrored():
    centre, height, size = np.array([100.0, 80.0]), 50.0, (368, 368)
    for seed in range(20):
        draws = np.random.default_rng(seed).random(5)
        affine, flipped = CropAugment().sample(np.random.default_rng(seed), centre, height, size)
        assert flipped == (draws[4] < 0.5)
        zoom = (0.5 + 0.6 * draws[0]) * 0.6 * 368 / 50
        angle = np.radians(40 * (2 * draws[1] - 1))
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(affine[:, :2], np.diag([-1 if flipped else 1, 1]) @ turn, atol=1e-9)
        place = apply_affine(affine, centre - 0.5)
        np.testing.assert_allclose(place, 183.5 + 40 * (2 * draws[2:4] - 1), atol=1e-9)


def test_extreme_draws():
    augment, centre = CropAugment(), np.array([50.0, 60.0])
    affine, flipped = augment.sample(Draws(1, 1, 1, 0, 0), centre, 100, (368, 368))
    assert flipped and np.sqrt(-np.linalg.det(affine[:, :2])) == pytest.approx(1.1 * 0.6 * 3.68)
    np.testing.assert_allclose(apply_affine(affine, centre - 0.5), [223.5, 143.5])
    # of another size everything is the same fraction, and the height says how tall people are
    affine, _ = augment.sample(Draws(0, 0.5, 1, 1, 1), centre, 100, (256, 456))
    np.testing.assert_allclose(affine[:, :2], np.eye(2) * 0.5 * 0.6 * 2.56)
    np.testing.assert_allclose(apply_affine(affine, centre - 0.5), [227.5 + 40 * 456 / 368, 127.5 + 40 * 256 / 368])
    affine, flipped = augment.still.sample(Draws(0.9, 0.9, 0.9, 0.9, 0), centre, 100, (368, 368))
    np.testing.assert_allclose(affine[:, :2], np.eye(2) * 0.8 * 0.6 * 3.68)
    assert not flipped


@pytest.mark.parametrize("bad", [{"scale": (0, 1)}, {"scale": (2, 1)}, {"flip": 1.5}, {"person_height": 0}])
def test_senseless_ranges_are_refused(bad):
    with pytest.raises(ValueError, match=f"CropAugment: {next(iter(bad))}"):
        CropAugment(**bad)


def test_an_item_has_the_main_person_first(file):
    data = crops(file)
    assert len(data) == 3 and data.image_ids.tolist() == [1, 1, 2] and data.annotation_ids.tolist() == [1, 2, 3]
    assert data.skeleton == OPENPOSE18
    first, second, alone = (data[i] for i in range(3))
    assert first["image"].shape == (3, 184, 184) and first["mask"].shape == (23, 23) and first["mask"].min() == 1
    assert first["keypoints"].shape == second["keypoints"].shape == (2, 18, 3) and alone["keypoints"].shape == (
        1,
        18,
        3,
    )
    for item, centre, height in ((first, (100, 120), 98), (second, (220, 130), 78.4), (alone, (160, 120), 117.6)):
        points = item["keypoints"][0].numpy()
        assert np.ptp(points[:, 1]) == pytest.approx(0.8 * 0.6 * 184)
        middle = (points[:, :2].min(axis=0) + points[:, :2].max(axis=0)) / 2
        np.testing.assert_allclose(middle, [91.5, 91.5], atol=1e-3)
        back = apply_affine(invert_affine(item["affine"].numpy()), points[:, :2])
        nose = OPENPOSE18.index("nose")
        np.testing.assert_allclose(back[nose], np.add(centre, FIGURE[0] * height / 0.98), atol=1e-3)
    other = apply_affine(invert_affine(first["affine"].numpy()), first["keypoints"][1, :, :2].numpy())
    np.testing.assert_allclose(other[0], np.add((220, 130), FIGURE[0] * 80), atol=1e-3)


def test_the_picture_lies_where_its_affine_says(file):
    """A level of colour is more than a pixel of the picture, so what counts is the mean, in pixels of the crop."""
    data, off = crops(file, augment=CropAugment()), []
    places = np.stack(np.meshgrid(np.arange(184), np.arange(184)), -1).reshape(-1, 2)
    for epoch in range(4):
        data.set_epoch(epoch)
        for i in range(len(data)):
            item = data[i]
            affine = item["affine"].numpy()
            sources = apply_affine(invert_affine(affine), places)
            shown = ((sources > 1) & (sources < (WIDTH - 2, HEIGHT - 2))).all(axis=1)
            found = item["image"].numpy().reshape(3, -1)[:0:-1, shown].T * np.array([WIDTH, HEIGHT]) / 255
            off.append((found - sources[shown]) @ affine[:, :2].T)
            assert len(off[-1]) > 500 and np.abs(off[-1]).max() < 2.5 and np.abs(off[-1].mean(axis=0)).max() < 0.06


def test_around_the_picture_is_grey_and_supervised(file):
    data = crops(file, augment=CropAugment(scale=(0.3, 0.3), rotation=0, shift=0, flip=0))
    item = data[0]
    inside = apply_affine(item["affine"].numpy(), np.array([[-0.5, -0.5], [WIDTH - 0.5, HEIGHT - 0.5]]))
    assert (inside[0] > 3).all() and (inside[1] < 180).all()
    assert (item["image"][:, : int(inside[0, 1])] == 128).all() and (
        item["image"][:, :, int(inside[1, 0]) + 2 :] == 128
    ).all()
    assert item["mask"].min() == 1


def test_mirroring_swaps_left_and_right(file):
    plain = crops(file)[0]
    mirrored = crops(file, augment=CropAugment((0.8, 0.8), 0, 0, flip=1))[0]
    expected = plain["keypoints"][:, OPENPOSE18.flip_index.tolist()].clone()
    expected[..., 0] = 183 - expected[..., 0]
    torch.testing.assert_close(mirrored["keypoints"], expected, atol=1e-3, rtol=0)
    assert (mirrored["image"].flip(2).float() - plain["image"].float()).abs().max() <= 2


def test_keypoints_that_are_not_drawn(folder):
    main, other = person(1, (100, 120)), person(2, (220, 120))
    index = {name: COCO17.index(name) for name in ("nose", "left_wrist", "left_shoulder", "right_ankle", "left_ear")}
    changes = {
        "nose": (0, 0, 2),
        "left_wrist": (WIDTH, 100, 2),
        "left_shoulder": (120, 90, 1),
        "right_ankle": (80, -1, 2),
    }
    for name, values in changes.items():
        main["keypoints"][3 * index[name] : 3 * index[name] + 3] = values
    other["keypoints"][3 * index["left_shoulder"] + 2] = 0
    data = crops(save(folder, [main, other]))
    first, second = data[0]["keypoints"]
    gone = {OPENPOSE18.index(name) for name in ("nose", "left_wrist", "right_ankle")}
    assert set(torch.nonzero(first[:, 2] == 0).ravel().tolist()) == gone
    assert (first[sorted(gone)] == 0).all()
    neck, left, right = (OPENPOSE18.index(name) for name in ("neck", "left_shoulder", "right_shoulder"))
    assert first[neck, 2] == 1 == first[left, 2] and first[right, 2] == 2
    torch.testing.assert_close(first[neck, :2], (first[left, :2] + first[right, :2]) / 2)
    assert second[neck, 2] == second[left, 2] == 0 and second[right, 2] == 2
    # what the crop cuts off stays where it is
    near = crops(save(folder, [person(1, (100, 120))]), augment=CropAugment((2, 2), 0, 0, 0))[0]["keypoints"]
    assert near[..., 1].min() < 0 and near[..., 1].max() > 183 and (near[..., 2] == 2).all()


def test_crowds_are_ignored_and_people_without_keypoints_if_wanted(folder):
    crowd = nobody(2, [20, 10, 40, 30], iscrowd=1, segmentation={"size": [HEIGHT, WIDTH], "counts": [0, 9600, 67200]})
    other = nobody(3, [200, 100, 60, 60])
    file = save(folder, [person(1, (160, 120)), crowd, other])
    published, mended = crops(file)[0], crops(file, mask_unlabelled=True)[0]
    column = lambda item, x, y: item["mask"][
        tuple(int(v) // 8 for v in apply_affine(item["affine"].numpy(), (x, y))[::-1])
    ]
    for item, expected in ((published, 1), (mended, 0)):
        assert len(item["keypoints"]) == 1 and column(item, 230, 130) == expected
        # the crowd fills the first 40 columns: none of the crop at this zoom, some of it further away
        assert column(item, 160, 120) == 1
    far = CropAugment((0.4, 0.4), 0, 0, 0)
    for mask_unlabelled in (False, True):
        item = crops(file, augment=far, mask_unlabelled=mask_unlabelled)[0]
        assert (
            column(item, 20, 120) == 0 and column(item, 60, 120) == 1 and column(item, 230, 130) == 1 - mask_unlabelled
        )


def test_depends_on_seed_epoch_and_index_only(file):
    build_index(file)
    data = crops(file, augment=CropAugment())
    assert data.skeleton == OPENPOSE18 and len(pickle.dumps(data._people)) < 6000
    alone = everything(data)
    for workers, context in ((2, "fork"), (1, "spawn")):
        for a, b in zip(alone, everything(crops(file, augment=CropAugment()), workers, context), strict=True):
            assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(alone[0]["affines"], alone[2]["affines"])
    assert not torch.equal(alone[0]["affines"][0, :, :2], alone[0]["affines"][1, :, :2])
    assert not torch.equal(alone[0]["affines"], everything(crops(file, augment=CropAugment(), seed=1))[0]["affines"])
    batch = alone[0]
    assert batch["images"].shape == (2, 3, 184, 184) and batch["keypoints"].shape == (2, 2, 18, 3)


def test_takes_a_file_already_read_another_skeleton_and_a_limit(file):
    data = PersonCrops(read_coco(file), file.parent / "images", limit=2)
    assert len(data) == 2 and data.input_size == (368, 368) and data.skeleton == COCO17
    assert data[-1]["keypoints"].shape == (2, 17, 3) and data[1]["image_id"] == 1
    with pytest.raises(IndexError):
        data[2]
    with pytest.raises(ValueError, match=r"^\S*a\.json: limit 0 leaves none of 3 main persons"):
        crops(file, limit=0)


def test_bad_input_is_one_clear_error(folder, file):
    with pytest.raises(FileNotFoundError, match="nowhere: the folder of the pictures"):
        PersonCrops(file, folder / "nowhere")
    with pytest.raises(ValueError, match="multiple of the mask_stride 8"):
        crops(file, input_size=(184, 180))
    with pytest.raises(ValueError, match=r"a\.json: nobody among 0 'person' annotations has 5 keypoints and 1024"):
        crops(save(folder, []))
    with pytest.raises(ValueError, match=r"a\.json: nobody among 1 'person'"):
        crops(save(folder, [person(1, (100, 120), num_keypoints=4)]))
    with pytest.raises(
        ValueError, match=r"annotation 1 has keypoints but the flat bbox \[10.0, 20.0, 30.0, 0.0\]; the box"
    ):
        crops(save(folder, [person(1, (100, 120), bbox=[10, 20, 30, 0])]))
    wrong = nobody(2, [1, 2, 3, 4], iscrowd=1, segmentation={"size": [5, 5], "counts": [25]})
    with pytest.raises(ValueError, match=r"mask of annotation 2 has size \[5, 5\].*\[240, 320\]"):
        crops(save(folder, [person(1, (100, 120)), wrong]))


def test_bad_pictures_are_one_clear_error(folder, file):
    data, picture = crops(file), folder / "images/1.png"
    cv2.imwrite(str(picture), np.zeros((WIDTH, HEIGHT, 3), np.uint8))
    with pytest.raises(ValueError, match=r"1\.png is 240×320 pixels, .*a\.json says 320×240; an EXIF"):
        data[0]
    picture.unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.png: image not found"):
        data[1]
    assert data[2]["image_id"] == 2
