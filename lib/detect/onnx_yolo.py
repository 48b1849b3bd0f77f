"""Any ONNX file of a YOLO that finds people: what it wants and what its numbers mean is read from the file.

A file is run once on a grey picture when it is opened. For an input with c cells (of strides 8, 16 and 32, sometimes 64) the
shape of its first output says which of these it is; `(x, y)` is a box's centre:

| output | kind | box | score of a person |
| --- | --- | --- | --- |
| (1, c, 5 + classes) | YOLOX; decoded where x reaches across the input, else ((x, y) + cell)·stride, exp(w, h)·stride | centre | objectness × class |
| (1, 3c, 5 + classes) | YOLOv5, YOLOv7 | centre | objectness × class |
| (1, 4 + classes, c) | YOLOv8, YOLO11 and their kin; rows of keypoints or masks may follow | centre | class |
| (1, n, 5), and classes (1, n) | YOLOX and RTMDet of OpenMMLab, overlaps removed | corners | fifth column |
| (1, n, 6), with keypoints (1, n, 6 + 3K) | YOLO26, YOLOv10 or an export with NMS | corners | fifth column, class in the sixth |

OpenMMLab's and YOLOX's take BGR 0..255 with the picture top left (RTMDet minus a mean, by a deviation), the others RGB 0..1 with
the picture in the middle. Sources: Megvii-BaseDetection/YOLOX, Tau-J/rtmlib, and the metadata that exporters write.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from lib.detect.boxes import GREY, letterbox, to_boxes
from lib.runtime import onnx_session

OVERLAP = 0.65  # YOLOX's evaluation
SIDE = 640  # of an input of free size that does not say more
RELEASED_POSE = 57  # columns of final boxes with 17 keypoints, where no metadata says so
KINDS = "YOLOX, RTMDet, YOLOv5 to YOLO26 (detection or pose)"

Read = Callable[[list[np.ndarray]], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Input:
    """What a network wants: RGB or BGR, the picture in the middle or top left, (value − mean) / deviation."""

    rgb: bool
    centred: bool
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    deviation: tuple[float, ...] = (1.0, 1.0, 1.0)


YOLOX = Input(rgb=False, centred=False)
RTMDET = Input(False, False, (103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
UNIT = Input(True, True, deviation=(255.0, 255.0, 255.0))


class OnnxYolo:
    """People found by a YOLO in ONNX Runtime.

    Attributes:
        name: the file's, without suffix.
        licence: what the file says about its licence.
        kind: which of the layouts above it is.
        size: (H, W) of the input.

    Args:
        path: of the file.
        device: cpu, cuda or cuda:1.
        threshold: boxes with a lower score are left out, 0..1.
        threads: of the CPU; None for one for each core.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an ONNX file, an output of another layout, or no class "person" among several.
    """

    def __init__(self, path: str | Path, device: str = "cpu", threshold: float = 0.3, threads: int | None = None):
        self.path, self.threshold = Path(path), threshold
        self._session = onnx_session(self.path, device, threads)
        self._metadata = self._session.get_modelmeta().custom_metadata_map
        self.name, self.licence = self.path.stem, self._metadata.get("license")
        self.size = self._input_size()
        self._person = self._class_of_people()
        grey = self._run(np.full((1, 3, *self.size), GREY, np.float32))
        self.kind, self._input, self._overlap, self._read = self._recognised(grey)

    def __call__(self, image: np.ndarray, path: Path | None = None) -> np.ndarray:
        """See `lib.detect.Detector`."""
        fitted = letterbox(image, self.size, self._input.centred)
        pixels = fitted.pixels if self._input.rgb else fitted.pixels[..., ::-1]
        values = (pixels - np.float32(self._input.mean)) / np.float32(self._input.deviation)
        corners, scores = self._read(self._run(values.transpose(2, 0, 1)[None]))
        return to_boxes(fitted.back(corners), scores, image.shape[:2], self.threshold, self._overlap)

    def _run(self, values: np.ndarray) -> list[np.ndarray]:
        """The outputs of one picture, without the batch."""
        try:
            outputs = self._session.run(None, {self._input_name: np.ascontiguousarray(values, self._type)})
        except Exception as error:  # ONNX Runtime raises its own classes, none of which is public
            raise ValueError(f"{self.path}: does not run as a detector: {' '.join(str(error).split())[:200]}") from error
        return [np.asarray(output)[0] if np.ndim(output) else np.asarray(output) for output in outputs]

    def _input_size(self) -> tuple[int, int]:
        inputs = self._session.get_inputs()
        types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        first = inputs[0]
        if len(inputs) > 1 or len(first.shape) != 4 or first.shape[1] != 3 or first.type not in types:
            shapes = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
            raise ValueError(f"{self.path}: takes {shapes}; a detector takes one picture as floats (1, 3, H, W)")
        self._input_name, self._type = first.name, types[first.type]
        said = _literal(self._metadata.get("imgsz"))
        free = tuple(said) if isinstance(said, list) and len(said) == 2 else (SIDE, SIDE)
        return tuple(side if isinstance(side, int) else other for side, other in zip(first.shape[2:], free))

    def _class_of_people(self) -> int:
        names = _literal(self._metadata.get("names"))
        names = dict(enumerate(names)) if isinstance(names, list) else names
        if not isinstance(names, dict) or len(names) < 2:
            return 0
        for number, name in names.items():
            if str(name).lower() == "person":
                return int(number)
        listed = ", ".join(map(str, list(names.values())[:10]))
        raise ValueError(f"{self.path}: none of its {len(names)} classes is 'person': {listed}")

    def _recognised(self, outputs: list[np.ndarray]) -> tuple[str, Input, float | None, Read]:
        shape, cells = outputs[0].shape, _cells(self.size)
        keypoints = _literal(self._metadata.get("kpt_shape"))
        final = {6, 6 + int(np.prod(keypoints)) if isinstance(keypoints, list) else RELEASED_POSE}
        if len(shape) == 2 and shape[1] > 5 and shape[0] in cells:
            decoded = outputs[0][:, :2].max() > max(self.size) / 2
            return "YOLOX", YOLOX, OVERLAP, self._with_objectness if decoded else self._with_cells
        if len(shape) == 2 and shape[1] > 5 and shape[0] in [3 * count for count in cells]:
            return "YOLOv5", UNIT, OVERLAP, self._with_objectness
        if len(shape) == 2 and shape[0] > 4 + self._person and shape[1] in cells:
            return "YOLOv8", UNIT, OVERLAP, self._columns
        if len(shape) == 2 and shape[1] == 5:
            return ("YOLOX with NMS", YOLOX, None, self._kept) if self._slices() else ("RTMDet with NMS", RTMDET, None, self._kept)
        if len(shape) == 2 and shape[1] in final:
            return "end to end", UNIT, None, self._final
        shapes = ", ".join(f"(1, {', '.join(map(str, output.shape))})" for output in outputs)
        raise ValueError(f"{self.path}: its outputs are {shapes} for an input of {self.size[0]}×{self.size[1]}: none of the "
                         f"layouts of {KINDS}; export it as one of these")  # fmt: skip

    def _with_cells(self, outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        values = outputs[0].astype(np.float32)
        where, strides = _grid(self.size, len(values))
        values[:, :2] = (values[:, :2] + where) * strides
        values[:, 2:4] = np.exp(values[:, 2:4]) * strides
        return self._with_objectness([values])

    def _with_objectness(self, outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        values = outputs[0].astype(np.float32)
        return _corners(values), values[:, 4] * values[:, 5 + self._person]

    def _columns(self, outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        values = outputs[0].T.astype(np.float32)
        return _corners(values), values[:, 4 + self._person]

    def _kept(self, outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        values = outputs[0].astype(np.float32)
        people = outputs[1].reshape(-1) == self._person if len(outputs) > 1 else np.ones(len(values), bool)
        return values[people, :4], values[people, 4]

    def _final(self, outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        values = outputs[0].astype(np.float32)
        values = values[values[:, 5].round() == self._person]
        return values[:, :4], values[:, 4]

    def _slices(self) -> bool:
        """Whether the network begins by taking every second pixel: YOLOX does, RTMDet convolves."""
        graph = onnx.load(self.path, load_external_data=False).graph
        return any(node.op_type in ("Slice", "SpaceToDepth") and self._input_name in node.input for node in graph.node)


def _cells(size: tuple[int, int]) -> list[int]:
    """How many cells an input has on three and on four levels."""
    return [sum((size[0] // stride) * (size[1] // stride) for stride in strides) for strides in _LEVELS]


_LEVELS = (8, 16, 32), (8, 16, 32, 64)


def _grid(size: tuple[int, int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """(c, 2) x and y of every cell, and (c, 1) its stride; level by level, row by row."""
    levels = _LEVELS[_cells(size).index(count)]
    cells = [np.mgrid[: size[0] // s, : size[1] // s][::-1].reshape(2, -1).T for s in levels]
    strides = np.repeat(levels, [len(level) for level in cells])
    return np.concatenate(cells).astype(np.float32), strides[:, None].astype(np.float32)


def _corners(values: np.ndarray) -> np.ndarray:
    """(…, 4+) centre, width, height → left, top, right, bottom."""
    half = values[:, 2:4] / 2
    return np.concatenate([values[:, :2] - half, values[:, :2] + half], axis=1)


def _literal(text: str | None):
    """A list or dict that an exporter wrote as text; None where it is something else."""
    try:
        return ast.literal_eval(text) if text else None
    except (ValueError, SyntaxError):
        return None
