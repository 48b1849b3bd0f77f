"""Pre-annotation: what annotators get, what happens to a stopped run, and that nothing of anybody's is lost."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from lib.__main__ import main as command
from lib.annotate import Session
from lib.checkpoints import save_model
from lib.data.coco import find_split, read_coco
from lib.data.video import write_video
from lib.exchange import convert, read_any
from lib.models import NETWORKS
from lib.people import People
from lib.preannotate import main, preannotate
from lib.preannotate.labels import cut, labelled
from lib.preannotate.work import Work
from tests.crop_poles import PoleNet, boxes_of, pole_model
from tests.dots import POLE, DotNet, dot_model, draw_poles

SIZE = (96, 128)
POLES = {"a.png": [(30, 20, 70)], "deep/b.png": [(40, 25, 60), (90, 30, 80)], "nobody.png": []}


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    monkeypatch.setitem(NETWORKS, "PoleNet", PoleNet)
    monkeypatch.setitem(NETWORKS, "DotNet", DotNet)


@pytest.fixture
def photos(tmp_path) -> Path:
    for name, poles in POLES.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), draw_poles(SIZE, poles)[..., ::-1].copy())
    return tmp_path / "photos"


@pytest.fixture
def model(tmp_path) -> Path:
    return save_model(tmp_path / "dots.safetensors", dot_model(SIZE))


def truth_of(photos: Path) -> Path:
    """A COCO file with the poles' boxes."""
    images = [{"id": i, "file_name": name, "width": SIZE[1], "height": SIZE[0]} for i, name in enumerate(POLES, 1)]
    boxes = [(i, box[:4].tolist()) for i, poles in enumerate(POLES.values(), 1) for box in boxes_of(poles)]
    rows = [{"id": k, "image_id": i, "category_id": 1, "bbox": box, "area": 9} for k, (i, box) in enumerate(boxes, 1)]
    path = photos.parent / "boxes.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": [POLE.to_coco()]}))
    return path


def places(coco, name) -> list[list[float]]:
    image = next(i for i in coco.images if i.file_name == name)
    return sorted(a.keypoints for a in coco.annotations if a.image_id == image.id)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_zip_for_cvat_and_start_for_our_annotator(photos, model, tmp_path):
    done = preannotate(photos, model, tmp_path / "out")
    assert (done.pictures, done.people, done.keypoints[2], done.faults) == (3, 3, 6, {})
    coco, changes = read_any(tmp_path / "out/cvat.zip", "cvat")
    assert not changes.severe and all("CVAT" not in rule for rule in changes.lines)
    assert [i.file_name for i in coco.images] == list(POLES) and [c.name for c in coco.categories] == ["pole"]
    for name, poles in POLES.items():
        wanted = [[x, top, 2, x, bottom, 2] for x, top, bottom in poles]
        assert np.allclose(np.reshape(places(coco, name), (-1, 6)), np.reshape(wanted, (-1, 6)), atol=0.3)
    assert min(a.id for a in coco.annotations) == min(i.id for i in coco.images) == 1
    for a in coco.annotations:
        assert a.num_keypoints == 2 and a.area == pytest.approx(0.53 * a.bbox[2] * a.bbox[3], abs=0.01)
        x, y, w, h = a.bbox
        assert all(x <= px <= x + w and y <= py <= y + h for px, py in zip(a.keypoints[::3], a.keypoints[1::3]))
    with zipfile.ZipFile(tmp_path / "out/cvat.zip") as archive:
        raw = json.loads(archive.read("annotations/person_keypoints_default.json"))
        assert archive.read("images/default/a.png") == (photos / "a.png").read_bytes()
    assert all(set(a) >= {"id", "image_id", "category_id", "keypoints", "num_keypoints", "bbox", "area", "iscrowd", "segmentation"}
               and a["segmentation"] == [] and a["iscrowd"] == 0 for a in raw["annotations"])  # fmt: skip
    assert {s["name"] for s in json.loads((tmp_path / "out/cvat_labels.json").read_text())[0]["sublabels"]} == set(POLE.keypoints)


def test_our_annotator_goes_on_from_the_start_file(photos, model, tmp_path):
    preannotate(photos, model, tmp_path / "out")
    images, labels = tmp_path / "out/images", tmp_path / "out/labels.json"
    session = Session(images, labels, labels)
    assert [session.progress(i) for i in range(3)] == [(0, 1, False), (0, 2, False), (0, 0, False)]
    session.go_to(1)
    session.accept(everyone=True)
    session.select(0, 1)
    session.move(3, 0)
    again = Session(images, labels, labels)
    assert again.name == "deep/b.png" and again.progress(1) == (2, 0, False) and again.progress(0) == (0, 1, False)
    rows = read_coco(labels).annotations
    assert len(rows) == 2 and all(type(v) is int for a in rows for v in a.keypoints[2::3])
    assert [i.file_name for i in read_coco(labels).images] == ["deep/b.png"], "who waits is not a picture without people"
    before = files_of(tmp_path / "out")
    assert preannotate(photos, model, tmp_path / "out").people == 3  # once more: nothing is done, nothing is touched
    assert files_of(tmp_path / "out") == before


def test_confidence_becomes_visibility():
    scores = [0.9, 0.6, 0.59, 0.3, 0.29, 0.0]
    keypoints = np.array([[[10 * k, 500, s] for k, s in enumerate(scores)], [[5, 5, 0.1]] * 6], float)
    keypoints[0, 5] = 0
    image = np.zeros((40, 60, 3), np.uint8)
    label, unsure = labelled("a.jpg", image, People(keypoints, [1, 1]), 0.3, 0.6)
    assert unsure == 1 and len(label.people) == 1
    assert np.reshape(label.people[0].keypoints, (-1, 3)).tolist() == [
        [0, 39, 2], [10, 39, 2], [20, 39, 1], [30, 39, 1], [40, 39, 0], [0, 0, 0]]  # fmt: skip
    assert label.people[0].box == [0, 34, 35, 6]  # around the labelled, with a margin, cut at the picture
    boxes = np.array([[1, 2, 3, 4]] * 2, np.float32)
    assert labelled("a.jpg", image, People(keypoints, [1, 1], boxes), 0.3, 0.6)[0].people[0].box == [1, 2, 3, 4]
    boxes[0] = [-5, 10.5, 100, 90]
    assert labelled("a.jpg", image, People(keypoints, [1, 1], boxes), 0.3, 0.6)[0].people[0].box == [0, 10.5, 60, 29.5]
    broken = keypoints.copy()
    broken[0, 0] = np.nan
    assert labelled("a.jpg", image, People(broken, [1, 1]), 0.3, 0.6)[0].people[0].keypoints[:3] == [0, 0, 0]


def test_a_crop_holds_its_person():
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    keypoints = np.array([[[70, 20, 0.9], [20, 95, 0.9]], [[3, 3, 0.1], [90, 60, 0.9]]])
    boxes = np.array([[10, 10, 50, 80], [80, 40, 30, 30]], np.float32)
    label, _ = labelled("deep/a.jpg", image, People(keypoints, [1, 1], boxes), 0.3, 0.6)
    (first, pixels), (second, _) = cut(label, image)
    assert (first.file_name, second.file_name) == ("deep/a_person1.jpg", "deep/a_person2.jpg")
    assert (first.origin.source, first.origin.width, first.origin.height) == ("deep/a.jpg", 120, 100)
    left, top, *size = first.origin.box
    assert size == [first.width, first.height]
    assert (pixels == image[top : top + first.height, left : left + first.width]).all()
    assert left <= 10 and top <= 10 and left + first.width >= 70 and top + first.height >= 96
    assert first.people[0].keypoints == [70 - left, 20 - top, 2, 20 - left, 95 - top, 2]
    assert first.people[0].box == [10 - left, 10 - top, 50, 80]
    assert second.people[0].keypoints == [0, 0, 0, 90 - second.origin.box[0], 60 - second.origin.box[1], 2]  # ends at the crop's border


def test_top_down_with_boxes_whole_and_in_crops(photos, tmp_path, capfd):
    model, boxes = save_model(tmp_path / "pole.safetensors", pole_model()), truth_of(photos)
    with pytest.raises(ValueError, match="needs a detector"):
        preannotate(photos, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    whole = preannotate(photos, model, tmp_path / "out", detector=f"truth={boxes}")
    crops = preannotate(photos, model, tmp_path / "crops", detector=f"truth={boxes}", crops=True)
    assert (whole.pictures, whole.people, crops.pictures, crops.people) == (3, 3, 3, 3)
    assert "WARN" not in capfd.readouterr().err  # OpenCV has something to say about everything but JPEG
    coco, _ = read_any(tmp_path / "out/cvat.zip")
    assert sorted(a.bbox for a in coco.annotations) == sorted(a.bbox for a in read_coco(boxes).annotations)
    assert sorted(files_of(tmp_path / "crops/whole/images")) == ["a.png", "deep/b.png"]
    origins = json.loads((tmp_path / "crops/crops.json").read_text())
    assert origins.keys() == files_of(tmp_path / "crops/images").keys()
    for name, origin in origins.items():
        cut_out, whole = (cv2.imread(str(tmp_path / "crops" / p)) for p in (f"images/{name}", f"whole/images/{origin['source']}"))
        x, y, width, height = origin["box"]
        assert cut_out.shape[:2] == (height, width) and (origin["height"], origin["width"]) == whole.shape[:2] == SIZE
        assert (whole[y : y + height, x : x + width] == cut_out).all()
    labels, images = tmp_path / "crops/whole/labels.json", tmp_path / "crops/whole/images"
    assert command(["convert", str(tmp_path / "crops/cvat.zip"), str(labels), "--crops", str(tmp_path / "crops/crops.json")]) == 0
    back = read_coco(labels)
    assert [i.file_name for i in back.images] == ["a.png", "deep/b.png"]
    for name in ("a.png", "deep/b.png"):
        assert places(back, name) == places(coco, name)
    assert sorted(a.bbox for a in back.annotations) == sorted(a.bbox for a in coco.annotations)
    assert find_split(tmp_path / "crops/whole", "train") == (labels, images)


def test_corrected_crops_are_labels_of_the_whole_pictures(photos, tmp_path):
    model, boxes = save_model(tmp_path / "pole.safetensors", pole_model()), truth_of(photos)
    crops = preannotate(photos, model, tmp_path / "out", detector=f"truth={boxes}", crops=True).folder
    session = Session(crops / "images", crops / "labels.json", crops / "labels.json")
    session.go_to(session.names.index("deep/b_person2.png"))
    session.accept()
    session.select(0, 0)
    x, y, _ = session.people().keypoints[0, 0].tolist()
    session.place(x + 3, y + 2)
    convert(crops / "labels.json", tmp_path / "back.json", crops=crops / "crops.json")
    back, corner = read_coco(tmp_path / "back.json"), json.loads((crops / "crops.json").read_text())["deep/b_person2.png"]["box"]
    assert [i.file_name for i in back.images] == ["deep/b.png"], "who waits for correction is no label yet"
    assert back.annotations[0].keypoints[:3] == [round(x + 3 + corner[0], 2), round(y + 2 + corner[1], 2), 2]


def test_detector_for_a_model_that_needs_none(photos, model, tmp_path):
    with pytest.raises(ValueError, match="leave the detector out"):
        preannotate(photos, model, tmp_path / "out", detector="whole")


def test_broken_pictures_are_told_and_tried_again(photos, model, tmp_path, capsys):
    whole = (photos / "a.png").read_bytes()
    (photos / "a.png").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("no picture")
    assert main([str(photos), "--pose", str(model), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "a.png" in said.err and "text.jpg" in said.err and "left out" in said.out
    coco, _ = read_any(tmp_path / "out/cvat.zip")
    assert {i.file_name for i in coco.images} == set(POLES) - {"a.png"}
    (tmp_path / "out/cvat.zip").unlink()  # as if it had been stopped
    (tmp_path / "out/labels.json").unlink()
    (photos / "a.png").write_bytes(whole)
    assert preannotate(photos, model, tmp_path / "out").faults.keys() == {"text.jpg"}
    assert len(read_any(tmp_path / "out/cvat.zip")[0].images) == 3


def test_nobody_to_cut_out(photos, model, tmp_path):
    for name in ("a.png", "deep/b.png"):
        (photos / name).unlink()
    with pytest.raises(ValueError, match="nobody was found of whom a keypoint reaches 0.3"):
        preannotate(photos, model, tmp_path / "out", crops=True)
    assert preannotate(photos, model, tmp_path / "whole").people == 0  # a picture without people is one to look at


def test_only_broken_pictures(model, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"a\.jpg"):
        preannotate(tmp_path / "photos", model, tmp_path / "out")


def test_a_stopped_run_goes_on_without_doing_anything_twice(photos, model, tmp_path, monkeypatch):
    seen, lines = [], Work._lines

    def stop_at_the_second(self, batch):
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.extend(picture.name for picture, _ in batch)
        return lines(self, batch)

    monkeypatch.setattr(Work, "_lines", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt, match="pictures done: 1"):
        preannotate(photos, model, tmp_path / "out", batch_size=1)
    assert not (tmp_path / "out/cvat.zip").exists()
    journal = tmp_path / "out/.preannotate.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"source":"deep/b.png","pict')  # killed while writing a line
    monkeypatch.setattr(Work, "_lines", lambda self, batch: seen.extend(p.name for p, _ in batch) or lines(self, batch))
    for other in ({"low": 0.2}, {"crops": True}, {"flip_test": True}):
        with pytest.raises(ValueError, match=f"other settings .*{next(iter(other))} was"):
            preannotate(photos, model, tmp_path / "out", **other)
    save_model(tmp_path / "other.safetensors", dot_model(SIZE, gain=2.0))
    with pytest.raises(ValueError, match=r"pose was dots.* now other"):
        preannotate(photos, tmp_path / "other.safetensors", tmp_path / "out")
    preannotate(photos, model, tmp_path / "out")
    assert seen == list(POLES)
    preannotate(photos, model, tmp_path / "at_once")
    assert read_any(tmp_path / "out/cvat.zip")[0] == read_any(tmp_path / "at_once/cvat.zip")[0]
    cv2.imwrite(str(photos / "late.png"), np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(ValueError, match="1 pictures came later, such as late.png"):
        preannotate(photos, model, tmp_path / "out")


def test_what_belongs_to_others_stays(photos, model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="something else"):
        preannotate(photos, model, tmp_path / "out")
    assert files_of(tmp_path / "out") == {"thesis.txt": b"mine"}
    before = files_of(photos)
    preannotate(photos, model, photos / "pre")  # inside the source
    assert {name: data for name, data in files_of(photos).items() if not name.startswith("pre/")} == before
    assert preannotate(photos, model, photos / "pre").pictures == 3  # and its pictures are not taken for new ones


def test_a_photo_that_exif_turns_is_upright_for_everybody(photos, model, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    lying = np.rot90(draw_poles(SIZE, POLES["a.png"])).copy()
    for name in POLES:
        (photos / name).unlink()
    PIL.Image.fromarray(lying).save(photos / "phone.jpg", exif=exif, quality=95)
    preannotate(photos, model, tmp_path / "out")
    coco, _ = read_any(tmp_path / "out/cvat.zip")
    assert (coco.images[0].width, coco.images[0].height) == (128, 96)
    assert np.allclose(places(coco, "phone.jpg"), [[30, 20, 2, 30, 70, 2]], atol=1)
    with PIL.Image.open(tmp_path / "out/images/phone.jpg") as picture:
        assert picture.size == (128, 96) and not picture.getexif().get(0x0112)


def test_video_every_second_frame(model, tmp_path):
    walk = [draw_poles(SIZE, [(30 + 8 * t, 20, 70)]) for t in range(5)]
    video = write_video(tmp_path / "walk.mp4", walk, 10)
    done = preannotate(video, model, tmp_path / "out", step=2)
    coco, _ = read_any(tmp_path / "out/cvat.zip")
    assert [i.file_name for i in coco.images] == [f"walk_{t:06d}_{t / 10:09.3f}s.jpg" for t in (0, 2, 4)]
    assert done.people == 3
    assert np.allclose([a.keypoints[0] for a in coco.annotations], [30, 46, 62], atol=1)


def test_keypoints_by_name(photos, model, tmp_path):
    (tmp_path / "one.yaml").write_text("name: tip\nkeypoints: [bottom]\nlimbs: []\nsigmas: {bottom: 0.1}\n")
    preannotate(photos, model, tmp_path / "out", skeleton=str(tmp_path / "one.yaml"))
    coco, _ = read_any(tmp_path / "out/cvat.zip")
    assert np.allclose(places(coco, "a.png"), [[30, 70, 2]], atol=0.3)
    with pytest.raises(ValueError, match="nose"):
        preannotate(photos, model, tmp_path / "other", skeleton="coco17")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"low": 0.7}, "low"),
        ({"low": 0}, "low"),
        ({"step": 2}, "step 2"),
        ({"batch_size": 0}, "batch_size"),
        ({"source": "camera:0"}, "video"),
        ({"source": "nowhere"}, "nowhere"),
        ({"pose": "none.safetensors"}, "none.safetensors"),
    ],
)
def test_options_that_cannot_be(photos, model, tmp_path, more, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        preannotate(**{"source": photos, "pose": model, "out": tmp_path / "out", **more})
    assert not (tmp_path / "out").exists()


def test_pictures_that_cvat_cannot_tell_apart(photos, model, tmp_path):
    (photos / "a.jpg").write_bytes((photos / "a.png").read_bytes())
    with pytest.raises(ValueError, match="suffix"):
        preannotate(photos, model, tmp_path / "out")
