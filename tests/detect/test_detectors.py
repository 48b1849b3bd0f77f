"""Detectors that need no YOLO, boxes, and their score."""

import urllib.error

import msgspec
import numpy as np
import pytest
import torch
import torchvision

from lib.data.coco import CocoFile, write_coco
from lib.detect import box_ap, open_detector
from lib.detect.boxes import letterbox, to_boxes
from lib.skeleton import COCO17

BLANK = np.zeros((40, 60, 3), np.uint8)


def coco_of(boxes, names=("a.jpg", "deep/b.jpg", "other/b.jpg"), **more):
    raw = {
        "images": [{"id": i, "file_name": name, "width": 60, "height": 40} for i, name in enumerate(names, 1)],
        "annotations": [{"id": k, "image_id": i, "category_id": 1, "bbox": box, "area": box[2] * box[3], **more}
                        for k, (i, box) in enumerate(boxes, 1)],
        "categories": [COCO17.to_coco(), {"id": 2, "name": "ball"}],
    }  # fmt: skip
    return msgspec.convert(raw, CocoFile)


def test_whole_picture():
    assert open_detector("whole")(BLANK).tolist() == [[0, 0, 60, 40, 1]]


def test_annotated_boxes_by_file_name(tmp_path):
    coco = coco_of([(1, [1, 2, 3, 4]), (2, [5, 6, 7, 8]), (3, [9, 9, 9, 9])])
    path = write_coco(tmp_path / "labels.json", coco)
    detector = open_detector("truth", annotations=path)
    assert detector(BLANK, tmp_path / "images" / "a.jpg").tolist() == [[1, 2, 3, 4, 1]]
    assert detector(BLANK, tmp_path / "deep" / "b.jpg").tolist() == [[5, 6, 7, 8, 1]]
    with pytest.raises(ValueError, match="2 pictures of the name b.jpg"):
        detector(BLANK, tmp_path / "b.jpg")
    with pytest.raises(ValueError, match="no picture of the name c.jpg"):
        detector(BLANK, tmp_path / "c.jpg")
    with pytest.raises(ValueError, match="file name"):
        detector(BLANK)
    with pytest.raises(ValueError, match=r"a\.jpg is 40×60 pixels here, .*labels.json says 60×40: .* EXIF"):
        detector(BLANK.swapaxes(0, 1), tmp_path / "images" / "a.jpg")


def test_annotated_people_without_a_box_and_crowds(tmp_path):
    keypoints = [0] * 51
    keypoints[:6] = [20, 10, 2, 30, 20, 1]
    coco = coco_of([(1, [0, 0, 0, 0])], keypoints=keypoints, num_keypoints=2)
    coco.annotations += [msgspec.structs.replace(coco.annotations[0], id=2, bbox=[1, 1, 50, 30], iscrowd=1),
                         msgspec.structs.replace(coco.annotations[0], id=3, category_id=2, bbox=[1, 1, 5, 5], keypoints=msgspec.UNSET)]  # fmt: skip
    detector = open_detector("truth", annotations=write_coco(tmp_path / "labels.json", coco))
    assert detector(BLANK, tmp_path / "a.jpg").tolist() == [[15, 5, 20, 20, 1]]


@pytest.mark.parametrize(
    ("spec", "more", "said"),
    [
        ("yolo.pt", {}, "choose the .onnx file of a YOLO"),
        ("truth", {}, "annotation"),
        ("whole", {"threshold": 30}, "0..1"),
        ("torchvision:yolo", {}, "no detector 'yolo'"),
        ("torchvision:ssdlite320_mobilenet_v3_large=none.pth", {}, "none.pth"),
    ],
)
def test_what_is_no_detector(spec, more, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        open_detector(spec, **more)


def test_torchvision_finds_what_its_network_calls_a_person(tmp_path):
    name = "ssdlite320_mobilenet_v3_large"
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=91).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    detector, seen = open_detector(f"torchvision:{name}={tmp_path / 'w.pth'}", threshold=0.3), []
    assert len(detector(np.full((50, 80, 3), 128, np.uint8))) < 300  # it runs

    def answer(images):
        seen.extend(images)
        boxes = torch.tensor([[1, 2, 30, 40], [0, 0, 9, 9], [5, 5, 200, 200], [1, 1, 2, 2.0]])
        return [{"boxes": boxes, "labels": torch.tensor([1, 2, 1, 1]), "scores": torch.tensor([0.6, 0.9, 0.8, 0.1])}]

    detector._network = answer
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    assert np.allclose(detector(image), [[5, 5, 75, 45, 0.8], [1, 2, 29, 38, 0.6]])
    assert np.allclose(seen[0].permute(1, 2, 0) * 255, image, atol=1e-4)
    torch.save({"w": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="not weights of ssdlite"):
        open_detector(f"torchvision:{name}={tmp_path / 'other.pth'}")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="text.pth: not a file of weights"):
        open_detector(f"torchvision:{name}={tmp_path / 'text.pth'}")


def test_published_weights_without_a_network(monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(OSError, match=r"cannot be downloaded .*torchvision:NAME=PATH/ssdlite"):
        open_detector("torchvision:ssdlite320_mobilenet_v3_large")


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("picture", [(40, 60), (60, 40), (7, 300), (300, 7), (1, 1)])
def test_letterbox_and_back(picture, centred):
    image = np.random.default_rng(1).integers(0, 255, (*picture, 3), np.uint8)
    fitted = letterbox(image, (64, 96), centred)
    assert fitted.pixels.shape == (64, 96, 3)
    inner = fitted.scale * picture[::-1]
    whole = np.array([[*fitted.offset, *(fitted.offset + inner)]])
    assert np.allclose(fitted.back(whole), [[0, 0, picture[1], picture[0]]])
    assert not centred or np.allclose(fitted.offset, (np.array([96, 64]) - inner) // 2)
    border = np.ones((64, 96), bool)
    x, y, right, bottom = whole[0].round().astype(int)
    border[y:bottom, x:right] = False
    assert (fitted.pixels[border] == 114).all()


def test_of_two_that_overlap_the_surer_stays():
    corners = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [0, 0, 10, 4], [30, 30, 99, 99]], float)
    scores = np.array([0.5, 0.9, 0.4, 0.1])
    assert to_boxes(corners, scores, (40, 40), 0.3, 0.65)[:, 4] == pytest.approx([0.9, 0.4])
    assert to_boxes(corners, scores, (40, 40), 0.0).tolist()[-1] == pytest.approx([30, 30, 10, 10, 0.1])
    assert to_boxes(corners[:0], scores[:0], (40, 40), 0.0, 0.5).shape == (0, 5)


def test_box_ap():
    coco = coco_of([(1, [0, 0, 10, 10]), (1, [20, 20, 20, 20]), (2, [5, 5, 10, 10])], iscrowd=0)
    perfect = {1: np.array([[0, 0, 10, 10, 0.9], [20, 20, 20, 20, 0.8]]), 2: np.array([[5, 5, 10, 10, 0.7]]), 3: np.zeros((0, 5))}
    assert box_ap(perfect, coco) == {"AP": 1, "AP50": 1, "AP75": 1}
    half = {**perfect, 1: np.array([[0, 0, 10, 6, 0.9]])}  # overlap 0.6: counts for 0.50, 0.55 and 0.60; one is missed
    assert box_ap(half, coco)["AP50"] == pytest.approx(0.66, abs=0.01)
    assert box_ap(half, coco)["AP75"] < 0.4
    assert box_ap({1: np.zeros((0, 5))}, coco)["AP"] == 0
    assert box_ap({3: np.array([[0, 0, 10, 10, 0.9]])}, coco)["AP"] == -1
    crowd = coco_of([(1, [0, 0, 60, 40])], iscrowd=1)
    crowd.annotations.append(msgspec.structs.replace(crowd.annotations[0], id=2, bbox=[0, 0, 10, 10], area=100, iscrowd=0))
    assert box_ap({1: np.array([[30, 30, 10, 10, 0.9], [0, 0, 10, 10, 0.5]])}, crowd)["AP"] == 1
