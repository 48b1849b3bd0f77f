"""Crops around boxes: geometry, augmentation, and one sample for every person."""

import cv2
import msgspec
import numpy as np
import pytest
import torch

from lib.data.boxes import BoxAugment, PersonBoxes, box_affine
from lib.people import apply_affine, invert_affine
from lib.skeleton import COCO17, Skeleton
from tests.data.batches import everything

HEIGHT, WIDTH = 240, 320
RNG = np.random.default_rng(0)
LOWER = BoxAugment().lower(COCO17)


@pytest.mark.parametrize("size", [(256, 192), (192, 192), (96, 128)])
@pytest.mark.parametrize("box", [(10, 20, 30, 90), (0, 0, WIDTH, HEIGHT), (100.5, 60.25, 80, 20)])
def test_the_padded_box_fills_the_input(box, size):
    x, y, w, h = box
    affine = box_affine(box, size, 1.25)
    edges = apply_affine(affine, np.array([[x, y], [x + w, y + h]]) - 0.5) + 0.5  # counted from the edges of pixels
    middle, sides = edges.mean(axis=0), edges[1] - edges[0]
    assert np.allclose(middle, (size[1] / 2, size[0] / 2))
    assert np.isclose((sides / (size[1], size[0])).max(), 1 / 1.25)
    assert np.isclose(sides[0] / w, sides[1] / h), "nobody is stretched"


def test_the_box_of_a_whole_picture_without_padding_is_the_picture():
    assert np.allclose(box_affine((0, 0, 192, 256), (256, 192), 1.0), [[1, 0, 0], [0, 1, 0]])


def test_published_crops_lie_elsewhere():
    box, size = (40, 30, 60, 80), (256, 192)  # of the input's shape
    middle = np.array([70.0, 70.0])
    first, ends = (box_affine(box, size, 1.25, cells=cells) for cells in ("first", "ends"))
    assert np.allclose(apply_affine(first, middle), (96, 128)) and np.isclose(first[0, 0], 192 / 75)
    corners = apply_affine(ends, middle + [[-37.5, -50], [37.5, 50]])
    assert np.allclose(corners, [[0, 0], [191, 255]])


def test_turning_and_mirroring_leave_the_middle_where_it_is():
    box, size = (40, 30, 60, 90), (128, 96)
    middle = np.array([69.5, 74.5])
    for angle, flip in ((0, False), (90, False), (30, True)):
        assert np.allclose(apply_affine(box_affine(box, size, angle=angle, flip=flip), middle), (47.5, 63.5))
    turned = box_affine(box, size, angle=90)
    right = apply_affine(turned, middle + [1, 0]) - (47.5, 63.5)
    assert np.isclose(right[0], 0) and right[1] > 0, "what was right is below: clockwise"
    plain, mirrored = box_affine(box, size, angle=20), box_affine(box, size, angle=20, flip=True)
    points = RNG.uniform(0, 100, (5, 2))
    assert np.allclose(apply_affine(mirrored, points), apply_affine(plain, points) * [-1, 1] + [95, 0])


def test_boxes_of_no_size_are_a_pixel():
    assert np.allclose(box_affine((5, 5, 0, 0), (64, 64), 1.0), box_affine((4.5, 4.5, 1, 1), (64, 64), 1.0))


class Draws:
    """In place of a random generator."""

    def __init__(self, *values):
        self.values = values

    def random(self, count):
        assert count == len(self.values)
        return np.array(self.values)


def drawn(augment, *uniform, keypoints=np.zeros((17, 3)), box=(40.0, 30.0, 60.0, 80.0), size=(128, 96)):
    """Scale relative to the box's own, angle in degrees, shift of the middle in padded boxes, whether it mirrors."""
    affine, flipped = augment.sample(Draws(*uniform), box, keypoints, LOWER, size)
    linear = affine[:, :2] * [[-1], [1]] if flipped else affine[:, :2]
    scale = np.sqrt(np.linalg.det(linear))
    middle = apply_affine(invert_affine(affine), np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])) + 0.5
    shift = (middle - (box[0] + box[2] / 2, box[1] + box[3] / 2)) / (box[2] * augment.padding, box[3] * augment.padding)
    return scale / box_affine(box, size, augment.padding)[0, 0], np.degrees(np.arctan2(linear[1, 0], linear[0, 0])), shift, flipped


def test_microsofts_ranges():
    one = 0.8413447460685429  # a normal number is below 1 with this probability
    assert np.allclose(drawn(BoxAugment(), 0.5, 0.5, 0, 0, 0, 0, 1, 1, 1)[:2], (1, 0))
    zoom, turn, shift, flipped = drawn(BoxAugment(), 0.9999999, 0.0, 0, 0, 0, 0, 0, 1, 1)
    assert np.isclose(zoom, 1 / 1.3) and np.isclose(turn, -80) and np.allclose(shift, 0) and flipped
    assert np.isclose(drawn(BoxAugment(), 0.0, one, 0, 0, 0.59, 0, 1, 1, 1)[1], 40)
    assert np.isclose(drawn(BoxAugment(), 0.0, one, 0, 0, 0.61, 0, 1, 1, 1)[1], 0)


def test_mmposes_ranges():
    augment = BoxAugment(scale=0.5, rotation=80, shift=0.16, normal="truncated")
    zoom, turn, shift, _ = drawn(augment, 1, 0, 1, 0, 0, 0, 1, 1, 1)
    assert np.isclose(zoom, 1 / 1.5) and np.isclose(turn, -80) and np.allclose(shift, (0.16, -0.16))
    assert np.allclose(drawn(augment, 1, 0, 1, 0, 1, 1, 1, 1, 1)[1:3][1], 0)
    angles = [drawn(augment, *RNG.random(9))[1] for _ in range(2000)]
    turned = np.array(angles)[np.abs(angles) > 1e-9]
    assert 0.56 < len(turned) / 2000 < 0.64
    # a normal distribution cut at one standard deviation spreads by 0.5396 of it
    assert np.isclose(turned.std(), 80 * 0.5396, rtol=0.05)


def test_half_bodies():
    augment = BoxAugment(scale=0, rotation=0, flip=0, half_body=1)
    keypoints = np.column_stack([RNG.uniform(50, 90, (17, 2)), np.full(17, 2)])
    keypoints[LOWER, 1] += 100

    def seen(upper, labelled=slice(None)):
        given = keypoints * 0
        given[labelled] = keypoints[labelled]
        affine, _ = augment.sample(Draws(*[0.5] * 7, 0.5, upper), (40, 40, 60, 160), given, LOWER, (128, 96))
        inside = apply_affine(affine, keypoints[:, :2])
        return ((inside > 0) & (inside < (96, 128))).all(axis=1), affine

    up, down = seen(0.69)[0], seen(0.71)[0]
    assert up[~LOWER].all() and not up[LOWER].any() and down[LOWER].all() and not down[~LOWER].any()
    whole = box_affine((40, 40, 60, 160), (128, 96))
    assert np.allclose(seen(0.69, slice(8))[1], whole), "half of the keypoints are too few"
    few = np.flatnonzero(LOWER)[:2].tolist() + np.flatnonzero(~LOWER)[:8].tolist()
    assert seen(0.71, few)[0][~LOWER][:8].all(), "two of the lower body are too few"
    only = BoxAugment(half_body=1, lower_names=("hip", "knee", "ankle", "wrist"))
    assert only.lower(COCO17).sum() == 8
    with pytest.raises(ValueError, match="of 'pole' 0 of 2 keypoints are named like hip"):
        augment.lower(Skeleton("pole", ("top", "bottom"), [(0, 1)], [], [0.1, 0.1]))


@pytest.mark.parametrize("bad", [{"scale": 1}, {"padding": 0}, {"flip": 2}, {"normal": "gauss"}, {"half_body": -1}])
def test_senseless_options_are_refused(bad):
    with pytest.raises(ValueError, match=f"BoxAugment: {next(iter(bad))}"):
        BoxAugment(**bad)


def person(i, box, image=1, **more):
    x, y, w, h = box
    points = RNG.uniform((x, y), (x + w, y + h), (17, 2))
    keypoints = np.column_stack([points, np.full(17, 2)])
    keypoints[3, 2] = 0
    return {"id": i, "image_id": image, "category_id": 1, "keypoints": keypoints.ravel().tolist(), "num_keypoints": 16,
            "area": float(w * h) / 2, "bbox": list(box), **more}  # fmt: skip


@pytest.fixture
def file(tmp_path):
    """Pictures in which the colours say where a pixel came from, and figures of every kind."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    (tmp_path / "images").mkdir()
    image = np.stack([x * 255 / WIDTH, y * 255 / HEIGHT, np.full_like(x, 90)], -1).round().astype(np.uint8)
    for i in (1, 2, 3):
        cv2.imwrite(str(tmp_path / f"images/{i}.png"), image)
    nobody = {"id": 9, "image_id": 1, "category_id": 1, "keypoints": [0] * 51, "num_keypoints": 0, "bbox": [1, 1, 9, 9]}
    people = [person(1, (50, 40, 60, 120)), person(2, (90, 40, 50, 100)), nobody, person(4, (10, 10, 90, 90), iscrowd=1),
              person(5, (120, 80, 100, 50), image=3), {**person(6, (100, 100, 40, 60), image=3), "bbox": [0, 0, 0, 0]}]  # fmt: skip
    images = [{"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in (1, 2, 3)]
    content = {"images": images, "annotations": people, "categories": [COCO17.to_coco()]}
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(content))
    return tmp_path / "a.json"


def boxes(file, **options):
    return PersonBoxes(file, file.parent / "images", **{"input_size": (128, 96)} | options)


def test_one_sample_for_every_person_with_keypoints(file):
    samples = boxes(file)
    assert samples.annotation_ids.tolist() == [1, 2, 5, 6] and samples.image_ids.tolist() == [1, 1, 3, 3]
    keypoints = samples._labels.keypoints(np.arange(4, 6))[1]
    points = keypoints[keypoints[:, 2] > 0, :2]
    x, y, w, h = samples.boxes[3]
    assert (points > (x, y)).all() and (points < (x + w, y + h)).all(), "a box without area is one around the keypoints"
    for index, item in enumerate(samples):
        assert item["sample"] == index and item["box_score"] == 1 and item["image_id"] == samples.image_ids[index]
        assert item["image"].shape == (3, 128, 96) and item["keypoints"].shape == (1, 17, 3)
        assert item["mask"].shape == (32, 24) and item["mask"].min() == 1
        assert np.allclose(item["affine"], box_affine(samples.boxes[index], (128, 96)), atol=1e-5)
    assert samples[-1]["sample"] == 3 and len(list(boxes(file, limit=2))) == 2


def test_keypoints_and_picture_go_through_the_same_affine(file):
    samples = boxes(file, augment=BoxAugment(scale=0.5, shift=0.1, half_body=0.5))
    for index, item in enumerate(samples):
        x, y, v = item["keypoints"][0].T
        back = apply_affine(invert_affine(item["affine"].double().numpy()), item["keypoints"][0, :, :2].numpy())
        flipped = np.linalg.det(item["affine"][:, :2]) < 0
        truth = samples._labels.keypoints(samples._people[index : index + 1])[0]
        truth = truth[COCO17.flip_index] if flipped else truth
        labelled = v.numpy() > 0
        assert np.array_equal(labelled, truth[:, 2] > 0) and np.allclose(back[labelled], truth[labelled, :2], atol=1e-3)
        inside = labelled & (x > 1).numpy() & (x < 94).numpy() & (y > 1).numpy() & (y < 126).numpy()
        assert inside.any()
        for point, place in zip(item["keypoints"][0, inside, :2], truth[inside, :2]):
            colour = item["image"][:, round(float(point[1])), round(float(point[0]))].numpy()
            assert np.allclose(colour, (90, place[1] * 255 / HEIGHT, place[0] * 255 / WIDTH), atol=4)


def test_batches_depend_on_seed_and_epoch_only(file):
    samples = boxes(file, augment=BoxAugment(half_body=0.3), seed=3)
    alone, workers = everything(samples), everything(samples, 2)
    for a, b in zip(alone, workers, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert alone[0]["samples"].tolist() == [0, 1] and alone[0]["image_ids"].tolist() == [1, 1]
    assert not torch.equal(alone[0]["images"], alone[2]["images"])
    still = samples.still()
    assert torch.equal(still[0]["image"], boxes(file)[0]["image"]) and not torch.equal(samples[0]["image"], still[0]["image"])


def test_bad_input_is_one_clear_error(file):
    with pytest.raises(ValueError, match="no 'person' with keypoints among 6 annotations"):
        boxes(file, limit=0)
    with pytest.raises(ValueError, match="half_body=1.*named like paw"):
        boxes(file, augment=BoxAugment(half_body=1, lower_names=["paw"]))
    with pytest.raises(ValueError, match="multiple of the mask_stride"):
        boxes(file, input_size=(130, 96))
