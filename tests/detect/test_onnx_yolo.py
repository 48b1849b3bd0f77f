"""Every layout of a YOLO's output is recognised, gets the picture it wants, and gives the same two people."""

import numpy as np
import pytest
from onnx import TensorProto

from lib.detect import OnnxYolo, open_detector
from lib.predict.detecting import detector_named
from tests.detect.yolo_files import PEOPLE, PICTURE, SCORES, SIZE, anchors, columns, final, kept, write, yolox

NAMES = "{0: 'dog', 1: 'cat', 2: 'person'}"
# name: (outputs and the number that shines, what else the file has, kind, how bright red (255, 0, 0) makes the first channel)
UNIT, RAW, NORMALISED = 1.0, 0.0, -103.53 / 57.375
LAYOUTS = {
    "yolox": (yolox(), {}, "YOLOX", RAW),
    "yolox, one class": (yolox(1), {}, "YOLOX", RAW),
    "yolox, decoded": (yolox(decoded=True), {}, "YOLOX", RAW),
    "yolov5": (anchors(), {}, "YOLOv5", UNIT),
    "yolov8": (columns(), {}, "YOLOv8", UNIT),
    "yolov8, one class": (columns(5), {}, "YOLOv8", UNIT),
    "yolov8 pose": (columns(56), {}, "YOLOv8", UNIT),
    "yolov8 with names": (columns(7, 2), {"metadata": {"names": NAMES, "task": "detect"}}, "YOLOv8", UNIT),
    "yolox with names": (yolox(3, person=2), {"metadata": {"names": NAMES}}, "YOLOX", RAW),
    "end to end": (final(), {}, "end to end", UNIT),
    "end to end pose": (final(57), {}, "end to end", UNIT),
    "end to end, own keypoints": (final(12), {"metadata": {"kpt_shape": "[2, 3]", "task": "pose"}}, "end to end", UNIT),
    "yolox with nms": (kept(), {"focus": True}, "YOLOX with NMS", RAW),
    "rtmdet with nms": (kept(), {}, "RTMDet with NMS", NORMALISED),
    "half precision": (yolox(), {"kind": TensorProto.FLOAT16}, "YOLOX", RAW),
}


def made(tmp_path, name, lit=False):
    (outputs, shining), more, kind, _ = LAYOUTS[name]
    outputs = outputs if isinstance(outputs, dict) else {"output0": outputs}
    return write(tmp_path / "yolo.onnx", outputs, shining if lit else None, **more), kind


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_people_whatever_the_layout(name, tmp_path):
    path, kind = made(tmp_path, name)
    detector = open_detector(path, threshold=0.45)
    assert (detector.kind, detector.size, detector.name) == (kind, SIZE, "yolo")
    boxes = detector(np.zeros((*PICTURE, 3), np.uint8))
    assert boxes.dtype == np.float32
    assert np.allclose(boxes, np.column_stack([PEOPLE, SCORES]), atol=0.05 if "half" in name else 1e-4)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_picture_as_each_wants_it(name, tmp_path):
    path, _ = made(tmp_path, name, lit=True)
    red = np.zeros((*SIZE, 3), np.uint8)
    red[..., 0] = 255
    scores = OnnxYolo(path, threshold=0.001)(red)[:, 4]
    shining = SCORES[0] + LAYOUTS[name][3]
    near = lambda score: bool(np.isclose(scores, score, atol=2e-3).any())
    assert (shining < 0 or near(shining)) and near(SCORES[0]) == (shining == SCORES[0])


def test_licence_and_free_size(tmp_path, capsys):
    wide = np.zeros((1, 5, 8 * 16 + 4 * 8 + 2 * 4), np.float32)  # of 64×128
    metadata = {"license": "AGPL-3.0", "imgsz": "[64, 128]", "names": "{0: 'hand'}"}
    detector = OnnxYolo(write(tmp_path / "free.onnx", {"output0": wide}, free=True, metadata=metadata))
    assert (detector.licence, detector.size, detector.kind) == ("AGPL-3.0", (64, 128), "YOLOv8")
    assert detector_named(detector.path).name == detector.name
    assert f"weights of the detector {detector.name}: licence AGPL-3.0" in capsys.readouterr().err
    assert detector(np.zeros((10, 10, 3), np.uint8)).shape == (0, 5)


def test_boxes_end_at_the_picture(tmp_path):
    values, _ = final()
    values[0, :2, :5] = [[-40, 30, 20, 500, 0.9], [70, 0, 90, 10, 0.8]]
    values[0, :2, 5] = 0
    boxes = OnnxYolo(write(tmp_path / "y.onnx", {"o": values}))(np.zeros((*PICTURE, 3), np.uint8))
    assert np.allclose(boxes[0], [0, 3, 10, 21, 0.9])
    assert len(boxes) == 2  # the box beside the picture is none


@pytest.mark.parametrize(
    ("outputs", "more", "said"),
    [
        (np.zeros((1, 10, 10), np.float32), {}, r"\(1, 10, 10\)"),
        (np.zeros((1, 1000), np.float32), {}, "none of the layouts"),
        (np.zeros((1, 300, 7), np.float32), {}, "none of the layouts"),
        (columns(7)[0], {"metadata": {"names": "{0: 'dog', 1: 'cat', 2: 'cow'}"}}, "dog, cat, cow"),
    ],
)
def test_what_is_no_detector_of_people(outputs, more, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        OnnxYolo(write(tmp_path / "other.onnx", {"output": outputs}, **more))


def test_no_onnx_file(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match="broken.onnx"):
        open_detector(tmp_path / "broken.onnx")
    with pytest.raises(FileNotFoundError, match="none.onnx"):
        open_detector(tmp_path / "none.onnx")
