"""Whole pictures at their own size times a scale: geometry, which pictures fit, and batches of several sizes."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
import pytest
import torch

from lib.codecs.parts import PartsCodec
from lib.data.dataset import collate
from lib.data.scaled import ScaledPictures, ScaleJitter
from lib.models.parts_loss import masked_huber, parts_loss
from lib.people import apply_affine, invert_affine
from lib.skeleton import COCO17
from tests.data.batches import everything

SIZES = {1: (240, 320), 2: (330, 200), 3: (120, 130)}
STILL = ScaleJitter(jitter=(1, 1), flip=0)


def person(i, image, low=30, high=110, **more):
    rng = np.random.default_rng(i)
    keypoints = np.column_stack([rng.uniform(low, high, (17, 2)), np.full(17, 2)])
    return {"id": i, "image_id": image, "category_id": 1, "keypoints": keypoints.ravel().tolist(), "num_keypoints": 17,
            "iscrowd": 0, "area": 5000.0, "bbox": [low, low, high - low, high - low], **more}  # fmt: skip


def save(folder, people, sizes=SIZES):
    """Pictures in which the colours say where a pixel came from: blue is x, green is y (in OpenCV's order)."""
    (folder / "images").mkdir(exist_ok=True)
    images = []
    for i, (height, width) in sizes.items():
        y, x = np.mgrid[:height, :width]
        picture = np.stack([x * 255 / width, y * 255 / height, np.full_like(x, 60 * i)], -1).round().astype(np.uint8)
        cv2.imwrite(str(folder / f"images/{i}.png"), picture)
        images.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
    content = {"images": images, "annotations": people, "categories": [COCO17.to_coco()]}
    (folder / "a.json").write_bytes(msgspec.json.encode(content))
    return folder / "a.json"


@pytest.fixture
def file(tmp_path):
    return save(tmp_path, [person(1, 1), person(2, 1), person(3, 2), person(4, 3)])


def pictures(file, augment=STILL, **options):
    return ScaledPictures(file, file.parent / "images", augment=augment, **options)


def test_at_scale_one_a_sample_is_the_picture(file):
    item = pictures(file)[1]
    assert item["image"].shape == (3, 336, 208) and item["mask"].shape == (42, 26)
    stored = cv2.cvtColor(cv2.imread(str(file.parent / "images/2.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(item["image"][:, :330, :200], stored.transpose(2, 0, 1))
    assert not item["image"][:, 330:].any() and not item["image"][..., 200:].any()
    np.testing.assert_array_equal(item["affine"], [[1, 0, 0], [0, 1, 0]])
    expected = np.array(person(3, 2)["keypoints"], np.float32).reshape(1, 17, 3)
    np.testing.assert_allclose(item["keypoints"], expected)
    # the centres of the last cells, at 331.5 and 203.5, lie beyond 329.5 and 199.5
    assert item["mask"][:41, :25].all() and not item["mask"][41].any() and not item["mask"][:, 25].any()


def test_picture_and_people_are_scaled_and_mirrored_together(file):
    data = pictures(file, ScaleJitter(global_scale=1.5, jitter=(0.4, 0.8), flip=0.5))
    seen = set()
    for epoch in range(4):
        data.set_epoch(epoch)
        for index, item in enumerate(data):
            (a, b, x), (c, d, y) = item["affine"].tolist()
            assert b == c == 0 and 0.6 <= d <= 1.2 and abs(a) == pytest.approx(d)
            seen.add(a > 0)
            height, width = SIZES[index + 1]
            assert item["image"].shape[1:] == tuple(-(-int(d * side + 1e-4) // 16) * 16 for side in (height, width))
            # the outer edges of the picture come to lie on the input's upper and left edge
            assert y - d / 2 == pytest.approx(-0.5) and min(x - a / 2, x + a * (width - 0.5)) == pytest.approx(-0.5, abs=1e-4)
            truth = np.array(person(3 if index == 1 else index or 1, index + 1)["keypoints"]).reshape(17, 3)
            if index == 1:
                back = apply_affine(invert_affine(item["affine"].numpy()), item["keypoints"][0, :, :2].numpy())
                np.testing.assert_allclose(back, truth[COCO17.flip_index if a < 0 else slice(None), :2], atol=1e-2)
            # the colours in the middle say where the pixel was
            h, w = int(d * height) // 2, int(d * width) // 2
            at = apply_affine(invert_affine(item["affine"].numpy()), np.array([w, h], float))
            blue, green = item["image"][2, h, w].item(), item["image"][1, h, w].item()
            np.testing.assert_allclose([blue * width / 255, green * height / 255], at, atol=2)
    assert seen == {True, False}


def test_the_scale_is_drawn_from_those_that_fit():
    augment, picture = ScaleJitter(jitter=(0.5, 2), max_input_size=300, flip=0), (200, 450)
    drawn = [augment.sample(np.random.default_rng(i), picture)[0][1, 1] for i in range(300)]
    assert 0.5 <= min(drawn) < 0.52 and 0.98 < max(drawn) <= 1.0
    drawn = [ScaleJitter().sample(np.random.default_rng(i), picture)[0][1, 1] for i in range(300)]
    assert 0.85 <= min(drawn) < 0.86 and 1.14 < max(drawn) <= 1.15
    assert ScaleJitter(jitter=(0.5, 2)).still.sample(np.random.default_rng(0), picture)[0][1, 1] == 1.25


def test_pictures_that_never_fit_are_counted_aloud(tmp_path):
    sizes = SIZES | {4: (99, 400), 5: (60, 60), 6: (500, 640), 7: (50, 50)}
    file = save(tmp_path, [person(i, i) for i in (1, 2, 3, 4, 5, 6)], sizes)
    augment = ScaleJitter(jitter=(0.5, 2), max_input_size=270)
    with pytest.warns(UserWarning, match="3 of 6 pictures are left out: 2 with a side shorter than 100 pixels .min_side. and "
                                         "1 that even at the smallest scale, 0.5, are larger than 270² pixels"):  # fmt: skip
        data = pictures(file, augment)
    assert data.image_ids.tolist() == [1, 2, 3]
    with pytest.warns(UserWarning):
        assert pictures(file, augment, limit=2).image_ids.tolist() == [1, 2]
    with pytest.raises(ValueError, match="none of 6 pictures can be trained on: 5 with a side shorter than 400 pixels.* and 1"):
        pictures(file, ScaleJitter(max_input_size=270, min_side=400))


def test_a_batch_is_padded_to_its_largest(file):
    data = pictures(file)
    items = [data[i] for i in range(3)]
    batch = collate(items)
    assert batch["images"].shape == (3, 3, 336, 320) and batch["mask"].shape == (3, 42, 40)
    assert batch["images"].is_contiguous(memory_format=torch.channels_last)
    for i, item in enumerate(items):
        (h, w), (rows, columns) = item["image"].shape[1:], item["mask"].shape
        assert torch.equal(batch["images"][i, :, :h, :w], item["image"])
        assert not batch["images"][i, :, h:].any() and not batch["images"][i, :, :, w:].any()
        assert torch.equal(batch["mask"][i, :rows, :columns], item["mask"])
        assert not batch["mask"][i, rows:].any() and not batch["mask"][i, :, columns:].any()


def test_padding_changes_no_target_that_counts(file):
    """The loss of a batch is the mean of the losses of its pictures by themselves, whatever stands in the padding."""
    torch.manual_seed(0)
    data, codec = pictures(file), PartsCodec(COCO17, pair_stats=((0, 0, 30, 30),) * 272)
    items = [data[0], data[1]]

    def losses(batch, maps):
        targets = codec.encode(batch["keypoints"], batch["mask"], tuple(batch["images"].shape[2:]))
        return torch.stack([parts_loss(maps[:, :17], targets), masked_huber(maps[:, :34], targets["offsets"], targets["offsets_mask"]),
                            masked_huber(maps, targets["pairwise"], targets["pairwise_mask"])])  # fmt: skip

    maps = torch.randn(2, 544, 42, 40)
    together = losses(collate(items), maps)
    alone = [losses(collate([item]), maps[i : i + 1, :, : item["mask"].shape[0], : item["mask"].shape[1]])
             for i, item in enumerate(items)]  # fmt: skip
    torch.testing.assert_close(together, sum(alone) / 2)


def test_unlabelled_people_are_masked_if_wanted(tmp_path):
    nobody = person(5, 3, 40, 80, keypoints=[0] * 51, num_keypoints=0)
    file = save(tmp_path, [person(1, 1), person(2, 2), nobody])
    assert pictures(file).image_ids.tolist() == [1, 2]
    item = pictures(file, unlabelled_pictures=True)[2]
    assert item["keypoints"].shape == (0, 17, 3) and not item["mask"][5:10, 5:10].any() and item["mask"][:4, :16].all()
    assert pictures(file, unlabelled_pictures=True, mask_unlabelled=False)[2]["mask"][:15, :16].all()


def test_the_same_whatever_the_workers(file):
    alone, workers = (everything(pictures(file, ScaleJitter(), seed=3), n) for n in (0, 1))
    for a, b in zip(alone, workers, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_still_is_the_mean_scale(file):
    data = pictures(file, ScaleJitter(global_scale=0.5, jitter=(0.8, 1.4), flip=1))
    still = data.still()
    assert data.augment.flip == 1 and still[0]["affine"][0, 0] == pytest.approx(0.55)
    np.testing.assert_allclose(still.keypoints(0), still[0]["keypoints"])


def test_options_are_checked(file):
    for wrong, said in (({"jitter": (2, 1)}, "jitter"), ({"flip": 2}, "flip"), ({"global_scale": 0}, "global_scale"),
                        ({"max_input_size": -1}, "max_input_size")):  # fmt: skip
        with pytest.raises(ValueError, match=f"ScaleJitter: {said}"):
            ScaleJitter(**wrong)
    with pytest.raises(ValueError, match="mask_stride divides that: not 5"):
        pictures(file, mask_stride=5)
