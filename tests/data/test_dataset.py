import cv2
import msgspec
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader

from lib.data.augment import Augment
from lib.data.coco import insert_neck, read_coco
from lib.data.dataset import CocoKeypoints, collate, worker_init
from lib.people import apply_affine, cells_to_pixels, invert_affine
from lib.skeleton import COCO17, COCO18_NECK

HEIGHT, WIDTH = 120, 160


def person(i, image_id, keypoints, **more):
    labelled = sum(v > 0 for v in keypoints[2::3])
    base = {"id": i, "image_id": image_id, "category_id": 1, "num_keypoints": labelled, "iscrowd": 0}
    return {**base, "bbox": [20, 30, 60, 50], "area": 1500.0, "keypoints": keypoints, **more}


def keypoints_of(seed, unlabelled=()):
    rng = np.random.default_rng(seed)
    out = np.column_stack([rng.integers(5, 150, 17), rng.integers(5, 110, 17), rng.integers(1, 3, 17)])
    out[list(unlabelled)] = 0
    return out.ravel().tolist()


@pytest.fixture
def folder(tmp_path):
    """Images 1: two people, 2: one, 3: nobody; the picture is a smooth gradient plus noise."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    (tmp_path / "images").mkdir()
    for i in (1, 2, 3):
        image = np.stack([x * 255 // WIDTH, y * 255 // HEIGHT, np.full_like(x, 60 * i)], -1).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"images/{i}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return tmp_path


def save(folder, annotations, images=(1, 2, 3), **changes):
    listed = [{"id": 10 * i, "file_name": f"{i}.jpg", "width": WIDTH, "height": HEIGHT} for i in images]
    data = {"images": listed, "annotations": annotations, "categories": [COCO17.to_coco()], **changes}
    (folder / "a.json").write_bytes(msgspec.json.encode(data))
    return folder / "a.json"


@pytest.fixture
def file(folder):
    people = [person(1, 10, keypoints_of(1, [3, 9])), person(2, 10, keypoints_of(2)), person(3, 20, keypoints_of(3))]
    return save(folder, people)


def dataset(file, **options):
    return CocoKeypoints(file, file.parent / "images", **{"input_size": (64, 96), **options})


def test_an_item_is_the_fitted_picture(file):
    data = dataset(file)
    assert len(data) == 2 and data.image_ids.tolist() == [10, 20] and data.skeleton == COCO17
    item = data[0]
    assert item["image"].shape == (3, 64, 96) and item["image"].dtype == torch.uint8
    assert item["keypoints"].shape == (2, 17, 3) and item["keypoints"].dtype == torch.float32
    assert item["mask"].shape == (16, 24) and item["mask"].min() == 1 and item["image_id"] == 10
    original = np.array(keypoints_of(1, [3, 9]), np.float32).reshape(17, 3)
    found = item["keypoints"][0].numpy()
    assert (found[[3, 9]] == 0).all() and (found[:, 2] == original[:, 2]).all()
    back = apply_affine(invert_affine(item["affine"].numpy()), found[:, :2])
    labelled = original[:, 2] > 0
    np.testing.assert_allclose(back[labelled], original[labelled, :2], atol=1e-3)


def test_keypoint_at_zero_is_a_place(folder):
    corner = [0, 0, 2] + [0, 0, 0] * 16
    item = dataset(save(folder, [person(1, 10, corner)]), input_size=(HEIGHT, WIDTH), augment=None)[0]
    assert item["keypoints"][0, 0].tolist() == [0, 0, 2]
    moved = dataset(save(folder, [person(1, 10, corner)]), input_size=(160, 160))[0]
    assert moved["keypoints"][0, 0, 2] == 2 and moved["keypoints"][0, 0, 1] > 19


def test_picture_and_keypoints_agree_after_augmentation(file):
    """The gradient says where every pixel came from: blue is x, green is y (OpenCV wrote BGR)."""
    data = dataset(file, augment=Augment(scale=(0.7, 1.5), rotation=20, translation=0.1), input_size=(128, 128))
    checked = 0
    for epoch in range(8):
        data.set_epoch(epoch)
        item = data[1]
        image, inverse = item["image"].numpy().astype(float), invert_affine(item["affine"].numpy())
        for x, y, v in item["keypoints"].reshape(-1, 3).numpy():
            if v and 2 < x < 125 and 2 < y < 125:
                source = apply_affine(inverse, np.array([round(float(x)), round(float(y))]))
                b, g = image[2, round(float(y)), round(float(x))], image[1, round(float(y)), round(float(x))]
                assert abs(b * WIDTH / 255 - source[0]) < 3 and abs(g * HEIGHT / 255 - source[1]) < 3
                checked += 1
    assert checked > 50


def test_flip_swaps_left_and_right(file):
    still = Augment(scale=(1, 1), rotation=0, translation=0, flip=1)
    plain, mirrored = dataset(file, augment=None)[0], dataset(file, augment=still)[0]
    expected = plain["keypoints"].clone()
    expected[..., 0] = torch.where(expected[..., 2] > 0, 95 - expected[..., 0], 0)
    torch.testing.assert_close(mirrored["keypoints"], expected[:, COCO17.flip_index.tolist()], atol=1e-4, rtol=0)
    difference = mirrored["image"].flip(2).float() - plain["image"].float()
    assert difference.abs().mean() < 2


def test_depends_on_seed_epoch_and_index_only(file):
    def everything(data, workers=0):
        loader = DataLoader(data, 2, num_workers=workers, collate_fn=collate, worker_init_fn=worker_init,
                            persistent_workers=workers > 0)  # fmt: skip
        batches = []
        for epoch in range(2):
            data.set_epoch(epoch)
            batches += list(loader)
        return batches

    def build(seed=0):
        return dataset(file, augment=Augment(), only_with_people=False, seed=seed)

    alone, by_workers = everything(build()), everything(build(), workers=2)
    for a, b in zip(alone, by_workers, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(alone[0]["affines"], alone[2]["affines"])
    assert not torch.equal(alone[0]["affines"][0], alone[0]["affines"][1])
    assert not torch.equal(alone[0]["affines"], everything(build(seed=1))[0]["affines"])


def test_collate_pads_people(file):
    data = dataset(file, only_with_people=False)
    batch = collate([data[i] for i in range(3)])
    assert {k: tuple(v.shape) for k, v in batch.items()} == {
        "images": (3, 3, 64, 96),
        "keypoints": (3, 2, 17, 3),
        "mask": (3, 16, 24),
        "image_ids": (3,),
        "affines": (3, 2, 3),
    }
    assert batch["images"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch["images"][1], data[1]["image"])
    assert batch["keypoints"][1, 1].abs().sum() == 0 and batch["keypoints"][2].abs().sum() == 0
    assert collate([data[2]])["keypoints"].shape == (1, 0, 17, 3)


REGION = np.zeros((HEIGHT, WIDTH), np.uint8)
REGION[30:90, 40:100] = 1
SQUARE = [40, 30, 100, 30, 100, 90, 40, 90]


def runs(compressed):
    if compressed:
        rle = coco_mask.encode(np.asfortranarray(REGION))
        return {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}
    changes = np.flatnonzero(np.diff(REGION.ravel(order="F"), prepend=0, append=0))
    counts = np.diff(changes, prepend=0, append=REGION.size)
    return {"size": [HEIGHT, WIDTH], "counts": counts.tolist()}


REGIONS = {
    "polygon": {"segmentation": [SQUARE]},
    "box": {"bbox": [40, 30, 60, 60]},
    "empty": {"segmentation": [], "bbox": [40, 30, 60, 60]},
    "compressed": {"segmentation": runs(True), "iscrowd": 1},
    "uncompressed": {"segmentation": runs(False), "iscrowd": 1},
}


@pytest.mark.parametrize("kind", REGIONS)
@pytest.mark.parametrize("augment", [None, Augment(scale=(0.8, 1.5), rotation=30)])
def test_ignored_regions_land_where_the_picture_does(folder, kind, augment):
    crowd = person(2, 10, [0] * 51, **REGIONS[kind])
    file = save(folder, [person(1, 10, keypoints_of(1)), crowd])
    item = dataset(file, augment=augment, input_size=(128, 128))[0]
    i, j = np.mgrid[:32, :32]
    cells = np.stack([cells_to_pixels(j, 4), cells_to_pixels(i, 4)], -1)
    x, y = np.moveaxis(apply_affine(invert_affine(item["affine"].numpy().astype(float)), cells), -1, 0)
    # distance into the region in cells: along the border either answer is right
    scale = np.sqrt(abs(np.linalg.det(item["affine"][:, :2].numpy()))) / 4
    depth = scale * np.minimum.reduce([x - 39.5, 99.5 - x, y - 29.5, 89.5 - y])
    mask = item["mask"].numpy()
    assert (mask[depth > 0.05] == 0).all() and (mask[depth < -1.05] == 1).all()
    assert 20 < (mask == 0).sum() < 900
    assert dataset(file, mask_unlabelled=False)[0]["mask"].min() == 1


def test_the_padding_is_supervised_or_not(folder):
    crowd = person(2, 10, [0] * 51, **REGIONS["polygon"])
    file = save(folder, [person(1, 10, keypoints_of(1)), crowd])
    both, region = (
        dataset(file, augment=Augment((1, 1), 0, 0, 0, mask_padding=masked), input_size=(128, 128))[0]["mask"]
        for masked in (True, False)
    )
    assert (both[4:28] == region[4:28]).all() and region[4:28].min() == 0
    assert both[:4].max() == both[28:].max() == 0 and region[:4].min() == region[28:].min() == 1


def test_pictures_of_people_without_keypoints_teach_the_rest_of_themselves(folder):
    unlabelled = person(2, 20, [0] * 51, **REGIONS["polygon"])
    file = save(folder, [person(1, 10, keypoints_of(1)), unlabelled])
    assert dataset(file).image_ids.tolist() == [10]
    data = dataset(file, unlabelled_pictures=True)
    assert data.image_ids.tolist() == [10, 20]
    assert len(data[1]["keypoints"]) == 0 and 0 == data[1]["mask"].min() < data[1]["mask"].max()


def test_people_too_small_to_learn_are_ignored_not_denied(folder):
    file = save(folder, [person(1, 10, keypoints_of(1)), person(2, 10, keypoints_of(2), area=20.0)])
    item = dataset(file, min_area=0.01)[0]
    assert len(item["keypoints"]) == 1 and item["mask"].min() == 0
    assert len(dataset(file)[0]["keypoints"]) == 2
    assert len(dataset(file, max_area=0.01)[0]["keypoints"]) == 1


def test_crowds_with_keypoints_are_not_learnt(folder):
    file = save(folder, [person(1, 10, keypoints_of(1), iscrowd=1), person(2, 20, keypoints_of(1))])
    assert dataset(file).image_ids.tolist() == [20]
    assert dataset(file, only_with_people=False).image_ids.tolist() == [10, 20, 30]


def test_takes_a_file_already_read_and_a_limit(file):
    coco = insert_neck(read_coco(file))
    data = CocoKeypoints(coco, file.parent / "images", limit=1)
    with pytest.raises(ValueError, match=r"a\.json: no picture with a usable"):
        CocoKeypoints(coco, file.parent / "images", limit=0)
    assert data.skeleton == COCO18_NECK and len(data) == 1 and data[0]["keypoints"].shape == (2, 18, 3)
    bad = msgspec.structs.replace(coco.annotations[0], keypoints=[float("nan")] * 54)
    with pytest.raises(ValueError, match="^annotations: annotation 1 has the visibility nan"):
        CocoKeypoints(msgspec.structs.replace(coco, annotations=[bad]), file.parent / "images")


def test_pictures_of_other_formats(folder, file):
    """A PNG comes whole where a JPEG would be decoded at a reduced size."""
    from_jpeg = dataset(file, input_size=(32, 32))[0]
    image = cv2.imread(str(folder / "images/1.jpg"))
    coco = read_coco(file)
    coco.images[0].file_name = "sub/1.png"
    (folder / "images/sub").mkdir()
    cv2.imwrite(str(folder / "images/sub/1.png"), image)
    from_png = CocoKeypoints(coco, folder / "images", input_size=(32, 32))[0]
    difference = from_png["image"].float() - from_jpeg["image"].float()
    assert difference[:, 6:-6, 2:-2].abs().max() < 6
    assert torch.equal(from_png["keypoints"], from_jpeg["keypoints"])


def test_bad_input_is_one_clear_error(folder, file):
    with pytest.raises(
        ValueError, match=r"a\.json: no picture with a usable 'person' among 3 images and 0 annotations"
    ):
        dataset(save(folder, []))
    with pytest.raises(FileNotFoundError, match="nowhere: the folder of the pictures"):
        CocoKeypoints(file, folder / "nowhere")
    file = save(folder, [person(1, 10, keypoints_of(1))])
    with pytest.raises(KeyError, match="no category 'cat'"):
        dataset(file, category="cat")
    with pytest.raises(ValueError, match="multiple of the mask_stride 4"):
        dataset(file, input_size=(64, 98))
    wrong = person(2, 10, [0] * 51, iscrowd=1, segmentation={"size": [5, 5], "counts": [25]})
    with pytest.raises(ValueError, match=r"mask of annotation 2 has size \[5, 5\].*\[120, 160\]"):
        dataset(save(folder, [person(1, 10, keypoints_of(1)), wrong]))
    wrong["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [25]}
    with pytest.raises(ValueError, match="runs of annotation 2 do not add up to 160×120"):
        dataset(save(folder, [person(1, 10, keypoints_of(1)), wrong]))


@pytest.mark.parametrize("input_size", [(32, 32), (128, 128)])
def test_bad_pictures_are_one_clear_error(folder, file, input_size):
    picture = folder / "images/1.jpg"
    whole = picture.read_bytes()
    image = cv2.imread(str(picture))
    data = dataset(file, input_size=input_size)
    cv2.imwrite(str(picture), cv2.resize(image, (80, 60)))
    with pytest.raises(ValueError, match=r"1\.jpg is 80×60 pixels, .*a\.json says 160×120$"):
        data[0]
    cv2.imwrite(str(picture), image.transpose(1, 0, 2))
    with pytest.raises(ValueError, match="120×160 pixels, .*EXIF"):
        data[0]
    picture.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"1\.jpg: the image is cut off"):
        data[0]
    picture.unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.jpg: image not found"):
        data[0]
