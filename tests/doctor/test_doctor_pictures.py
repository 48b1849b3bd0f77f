import json

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from lib.__main__ import main
from lib.data.coco import read_coco
from lib.doctor import examine, repair
from lib.doctor.pictures import EXIF_ORIENTATION, look, similar
from lib.skeleton import COCO17


def scene(seed, height=96, width=128):
    """A picture with large and small structure, like photographs and unlike noise."""
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.integers(0, 256, (n, n, 3), dtype=np.uint8), (width, height)) for n in (3, 6, 12)]
    return np.mean(layers, axis=0).astype(np.uint8)


def save_set(folder, count=6, first=0, split="train"):
    """A set in our layout, one person per picture; returns the annotation file and the folder of the pictures."""
    pictures = folder / split
    pictures.mkdir(parents=True)
    keypoints = [n for k in range(17) for n in (20 + 4 * k, 30 + 2 * k, 2)]
    images, annotations = [], []
    for i in range(count):
        Image.fromarray(scene(first + i)).save(pictures / f"{i}.jpg", quality=95)
        images.append({"id": i, "file_name": f"{i}.jpg", "width": 128, "height": 96})
        annotations.append({"id": i + 1, "image_id": i, "category_id": 1, "keypoints": [*keypoints], "num_keypoints": 17,
                            "bbox": [15, 20, 80, 60], "area": 2000, "iscrowd": 0,
                            "segmentation": [[20, 30, 90, 30, 90, 70]]})  # fmt: skip
    file = folder / "annotations" / f"person_keypoints_{split}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [COCO17.to_coco()]}))
    return file, pictures


def edited(file, **changes):
    content = json.loads(file.read_text())
    for image, values in changes.items():
        content["images"][int(image[1:])].update(values)
    file.write_text(json.dumps(content))


def codes(*arguments):
    return {code: n for code, n in examine(*arguments).codes().items() if code != "order_doubtful"}


def test_missing_damaged_and_cut_off(tmp_path):
    file, pictures = save_set(tmp_path)
    assert codes(file, pictures) == {}
    (pictures / "0.jpg").unlink()
    (pictures / "1.jpg").write_bytes((pictures / "1.jpg").read_bytes()[:-400])
    (pictures / "2.jpg").write_bytes(b"")
    (pictures / "3.jpg").unlink()
    (pictures / "3.jpg").mkdir()
    assert codes(file, pictures) == {"picture_missing": 1, "picture_unreadable": 3}
    repair(file, tmp_path / "mended.json", pictures)
    assert codes(tmp_path / "mended.json", pictures) == {}
    assert [image.id for image in read_coco(tmp_path / "mended.json").images] == [4, 5]


def test_sizes(tmp_path):
    file, pictures = save_set(tmp_path)
    edited(file, i0={"width": 256, "height": 192}, i1={"width": 96, "height": 128}, i2={"width": 0})
    assert codes(file, pictures)["picture_size"] == 2  # exchanged without EXIF is a wrong size like any other
    mended = repair(file, tmp_path / "mended.json", pictures)
    assert mended == {"image_size": 1, "picture_size": 2} and codes(tmp_path / "mended.json", pictures) == {}
    assert {i.id: i.width for i in read_coco(tmp_path / "mended.json").images} == {2: 128, 3: 128, 4: 128, 5: 128}


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_labels_of_a_turned_picture_are_turned_back(tmp_path, orientation):
    file, pictures = save_set(tmp_path)
    stored = scene(0)
    stored[30:33, 40:44] = 255, 0, 0  # a red mark of 4 × 3 pixels
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(stored).save(pictures / "0.png", exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(pictures / "0.png")))
    ys, xs = np.nonzero((shown == (255, 0, 0)).all(axis=-1))
    content = json.loads(file.read_text())
    content["images"][0].update(file_name="0.png", width=shown.shape[1], height=shown.shape[0])
    x0, y0, x1, y1 = (int(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
    content["annotations"][0].update(
        keypoints=[x0, y0, 2, x1 - 1, y0, 1] + [0, 0, 0] * 15, num_keypoints=2, bbox=[x0, y0, x1 - x0, y1 - y0],
        segmentation=[[x0, y0, x1, y0, x1, y1]])  # fmt: skip
    file.write_text(json.dumps(content))
    assert codes(file, pictures)["picture_turned"] == 1
    repair(file, tmp_path / "mended.json", pictures)
    assert "picture_turned" not in codes(tmp_path / "mended.json", pictures)
    a, image = read_coco(tmp_path / "mended.json").annotations[0], read_coco(tmp_path / "mended.json").images[0]
    assert (image.width, image.height) == (128, 96) and a.bbox == [40, 30, 4, 3]
    assert all((stored[a.keypoints[i + 1], a.keypoints[i]] == (255, 0, 0)).all() for i in (0, 3))
    assert {*a.segmentation[0][::2]} == {40, 44} and {*a.segmentation[0][1::2]} == {30, 33}


def test_rotation_that_changes_nothing_is_a_note(tmp_path):
    file, pictures = save_set(tmp_path)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.fromarray(scene(0)).save(pictures / "0.jpg", exif=exif)
    assert codes(file, pictures) == {"picture_exif": 1} and not examine(file, pictures).severe


def test_names_do_not_lead_out_of_the_folder(tmp_path):
    file, pictures = save_set(tmp_path)
    (tmp_path / "secret.jpg").write_bytes((pictures / "0.jpg").read_bytes())
    (pictures / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    edited(file, i0={"file_name": "../secret.jpg"}, i1={"file_name": "link.jpg"})
    found = examine(file, pictures)
    assert found["image_name"].count == 1 and found["picture_unreadable"].count == 1
    assert "link" in found["picture_unreadable"].examples[0].text


def test_copies_in_the_set(tmp_path):
    file, pictures = save_set(tmp_path)
    (pictures / "5.jpg").write_bytes((pictures / "0.jpg").read_bytes())
    assert codes(file, pictures) == {"picture_twice": 1}


def test_leaks_between_training_and_validation(tmp_path, capsys):
    file, pictures = save_set(tmp_path, 12)
    val, val_pictures = save_set(tmp_path, 8, first=100, split="val")
    assert codes(file, pictures, val) == {}
    (val_pictures / "0.jpg").write_bytes((pictures / "3.jpg").read_bytes())
    Image.fromarray(scene(4)).resize((64, 48)).save(val_pictures / "1.jpg", quality=40)
    Image.fromarray(scene(5)).save(val_pictures / "2.png")
    edited(val, i2={"file_name": "2.png"})
    found = examine(file, pictures, val)
    assert {c: f.count for c in ("leak", "leak_similar") for f in [found[c]]} == {"leak": 1, "leak_similar": 2}
    assert "3.jpg" in found["leak"].examples[0].text and "0.jpg" in found["leak"].examples[0].text
    assert found.examples("leak")[0].picture.shape[1] == 2 * found.examples("leak")[0].picture.shape[0]
    assert main(["doctor", str(file), "--images", str(pictures), "--against", str(val)]) == 1
    repair(file, tmp_path / "mended.json", pictures, val, val_pictures)
    assert "leak" not in codes(tmp_path / "mended.json", pictures, val)


def test_copies_are_recognised_and_others_are_not(tmp_path):
    for i in range(60):
        Image.fromarray(scene(i, 240, 320)).save(tmp_path / f"a{i}.jpg", quality=95)
        image = Image.fromarray(scene(i, 240, 320)).resize([(320, 240), (200, 150), (97, 71)][i % 3])
        image.save(tmp_path / f"b{i}.jpg", quality=(30, 60, 90)[i // 3 % 3])
    originals, copies = ([look(tmp_path / f"{name}{i}.jpg") for i in range(60)] for name in "ab")
    assert list(similar(copies, originals)) == [(i, i) for i in range(60)]
    assert list(similar(originals[:30], originals[30:])) == []
    Image.new("RGB", (64, 64), (90, 90, 90)).save(tmp_path / "flat.png")
    flat = look(tmp_path / "flat.png")
    assert list(similar([flat], [flat])) == []  # the exact comparison is for those


def test_more_pixels_than_any_camera_has(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.doctor.pictures.MAX_PIXELS", 1000)
    Image.new("RGB", (64, 64)).save(tmp_path / "large.png")
    assert "too many pixels" in look(tmp_path / "large.png").fault
