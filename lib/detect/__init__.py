"""Person detectors: where people are, as boxes, for models that look at one person at a time.

Boxes are [x, y, width, height, score] in COCO's meaning (see `lib.detect.boxes`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from lib.detect.boxes import box_ap
from lib.detect.given import TruthBoxes, WholeImage
from lib.detect.onnx_yolo import OnnxYolo
from lib.detect.torchvision_models import TorchvisionDetector

__all__ = ["SPECS", "THRESHOLD", "Detector", "OnnxYolo", "TorchvisionDetector", "TruthBoxes", "WholeImage", "box_ap",
           "open_detector"]  # fmt: skip

THRESHOLD = 0.3
"""Boxes with a lower score are left out, unless something else is asked for."""
SPECS = ("the .onnx file of a YOLO, a model of this workbook that finds several people, torchvision:NAME or "
         "torchvision:NAME=WEIGHTS.pth, truth=FILE.json (annotated boxes), or whole (one person fills the picture)")  # fmt: skip


class Detector(Protocol):
    """Something that finds people.

    Attributes:
        name: for tables and reports.
        licence: of its weights, as far as the file says; to be shown to the user.
    """

    name: str
    licence: str | None

    def __call__(self, image: np.ndarray, path: Path | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB → (P, 5) float32 [x, y, width, height, score], the surest first.

        `path` is the picture's file, for detectors that look it up.
        """


def open_detector(spec: str | Path, device: str = "cpu", *, threshold: float = THRESHOLD,
                  annotations: str | Path | None = None, threads: int | None = None) -> Detector:  # fmt: skip
    """Open a detector by what a command line calls it.

    Args:
        spec: "truth" (the boxes of `annotations`), "whole" (one box, the whole picture), "torchvision:NAME" (its published
            COCO weights, downloaded once), "torchvision:NAME=WEIGHTS.pth", or the `.onnx` file of a YOLO, whose layout is
            recognised. A model of this workbook that finds several people is opened by `lib.predict.detecting`.
        device: cpu, cuda or cuda:1.
        threshold: boxes with a lower score are left out (0..1); given boxes all stay.
        annotations: COCO file, for "truth".
        threads: of the CPU, for a YOLO; None for one for each core. (Torchvision's take torch's.)

    Raises:
        ValueError: an unknown spec, or a file that is not what it should be.
        FileNotFoundError: no such file.
        RuntimeError: the device is missing on this machine.
    """
    text = str(spec)
    if not 0 <= threshold <= 1:
        raise ValueError(f"the detector's threshold is {threshold}; scores are in 0..1")
    if text == "whole":
        return WholeImage()
    if text == "truth":
        if annotations is None:
            raise ValueError("the detector 'truth' takes the boxes of an annotation file: say which one, truth=FILE.json")
        return TruthBoxes(annotations)
    if text.startswith("torchvision:"):
        name, _, weights = text.removeprefix("torchvision:").partition("=")
        return TorchvisionDetector(name, weights or None, device, threshold)
    if Path(text).suffix == ".onnx":
        return OnnxYolo(text, device, threshold, threads)
    raise ValueError(f"{text!r} is no detector; choose {SPECS}")
