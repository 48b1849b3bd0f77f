"""ONNX files that answer as YOLOs do, each with the same two people, for tests."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = (96, 64)  # of the input, (H, W): 126 cells of strides 8, 16 and 32
CELLS = [(s, i, j) for s in (8, 16, 32) for i in range(SIZE[0] // s) for j in range(SIZE[1] // s)]
PEOPLE = np.array([[4, 2, 10, 20], [20, 4, 8, 16]], np.float32)  # in a picture of 24×32, which fits twice as large
SCORES = (0.9, 0.6)
PICTURE = (24, 32)


def write(path: Path, outputs: dict, lit=None, focus=False, metadata=None, kind=TensorProto.FLOAT, free=False) -> Path:
    """A network whose outputs are constant but for one number of the first, to which the mean of the first channel is added.

    Args:
        outputs: name → array.
        lit: index of that number.
        focus: the network takes every second pixel first.
        free: its input may have any size.
    """
    constants, nodes = [], []
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    constant = lambda name, value: constants.append(numpy_helper.from_array(np.asarray(value), name)) or name
    source = "images"
    if focus:
        steps = [constant(name, np.array([value])) for name, value in (("from", 0), ("to", 10**6), ("axis", 3), ("step", 2))]
        nodes.append(helper.make_node("Slice", ["images", *steps], ["focused"]))
        source = "focused"
    nodes.append(helper.make_node("ReduceMean", [source], ["means"], axes=[0, 2, 3], keepdims=0))
    nodes.append(helper.make_node("Gather", ["means", constant("first", np.array(0))], ["light"]))
    for number, (name, values) in enumerate(outputs.items()):
        if number:
            nodes.append(helper.make_node("Identity", [constant(f"{name}_values", values)], [name]))
            continue
        mask = np.zeros(values.shape, dtype)
        if lit is not None:
            mask[lit] = 1
        nodes.append(helper.make_node("Mul", ["light", constant("mask", mask)], ["glow"]))
        nodes.append(helper.make_node("Add", ["glow", constant("values", values.astype(dtype))], [name]))
    given = helper.make_tensor_value_info("images", kind, ["batch", 3, "height", "width"] if free else [1, 3, *SIZE])
    types = [kind] + [TensorProto.INT64] * (len(outputs) - 1)
    said = [helper.make_tensor_value_info(name, t, None) for name, t in zip(outputs, types)]
    model = helper.make_model(helper.make_graph(nodes, "yolo", [given], said, constants), ir_version=9,
                              opset_imports=[helper.make_opsetid("", 17)])  # fmt: skip
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def in_input(centred: bool) -> np.ndarray:
    """(2, 4) centre and sides of `PEOPLE` in the input."""
    boxes = PEOPLE * 2
    boxes[:, :2] += boxes[:, 2:] / 2
    boxes[:, 1] += 24 * centred
    return boxes


def corners(centred: bool) -> np.ndarray:
    """(2, 4) left, top, right, bottom of `PEOPLE` in the input."""
    boxes = in_input(centred)
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def yolox(classes=80, decoded=False, person=0) -> tuple[np.ndarray, tuple]:
    """(1, 126, 5 + classes): the people, one of them twice, and a dog; and where the first person's objectness is."""
    values = np.zeros((1, len(CELLS), 5 + classes), np.float32)
    if decoded:
        values[0, :, :4] = [(8 * j + 4, 8 * i + 4, 8, 8) for _, i, j in CELLS]
        values[0, -1, :2] = 60, 90
    for cell, number, score in ((20, 0, 0.9), (21, 0, 0.5), (100, 1, 0.6)):
        stride, i, j = CELLS[cell]
        box = in_input(centred=False)[number]
        raw = [*(box[:2] / stride - (j, i)), *np.log(box[2:] / stride)]
        values[0, cell, :5] = [*(box if decoded else raw), score]
        values[0, cell, 5 + person] = 1
    if classes > 1:
        values[0, 50, 4], values[0, 50, 5 + (person + 1) % classes] = 0.95, 1
    return values, (0, 20, 4)


def anchors() -> tuple[np.ndarray, tuple]:
    """(1, 3·126, 85) as YOLOv5 has it."""
    values = np.zeros((1, 3 * len(CELLS), 85), np.float32)
    for row, number, score in ((200, 0, 0.9), (300, 1, 0.6)):
        values[0, row, :6] = [*in_input(centred=True)[number], score, 1]
    return values, (0, 200, 4)


def columns(rows=84, person=0) -> tuple[np.ndarray, tuple]:
    """(1, rows, 126) as YOLOv8 has it; rows behind the first class hold keypoints where there are 56."""
    values = np.zeros((1, rows, len(CELLS)), np.float32)
    for cell, number, score in ((20, 0, 0.9), (21, 0, 0.5), (100, 1, 0.6)):
        values[0, :4, cell], values[0, 4 + person, cell] = in_input(centred=True)[number], score
    if rows == 56:
        values[0, 5:] = 40
    elif rows > 5:
        values[0, 4 + (person + 1) % (rows - 4), 50] = 0.95
    return values, (0, 4 + person, 20)


def final(width=6) -> tuple[np.ndarray, tuple]:
    """(1, 300, width) corners, score, class, keypoints."""
    values = np.zeros((1, 300, width), np.float32)
    dog = [[10, 10, 50, 50, 0.95, 16]] if width == 6 else []
    rows = [*dog, *([*box, score, 0] for box, score in zip(corners(centred=True), SCORES))]
    values[0, : len(rows), :6] = rows
    values[0, :, 6:] = 40
    return values, (0, len(dog), 4)


def kept() -> tuple[dict, tuple]:
    """(1, 3, 5) corners and score, and (1, 3) classes, the last a dog."""
    boxes = [[*box, score] for box, score in zip(corners(centred=False), SCORES)] + [[1, 1, 9, 9, 0.4]]
    return {"dets": np.array([boxes], np.float32), "labels": np.array([[0, 0, 16]])}, (0, 0, 4)
