"""Any detector by name: those of `lib.detect`, and this workbook's own models, which find people by their keypoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lib.detect import THRESHOLD, Detector, open_detector
from lib.predict.topdown import boxes_of_people
from lib.runtime import METADATA_KEY, PUBLIC_SUFFIXES, onnx_session

SURE = 0.1  # keypoints with a lower score do not stretch a box


class PoseDetector:
    """The people whom a model of this workbook finds in a picture, as boxes around their keypoints.

    Attributes:
        name: the model file's, without suffix.
        licence: nothing is known of it.
        predictor: that finds them.

    Args:
        model: a file that finds several people, see `Predictor`.
        device: cpu, cuda or cuda:1.
        threshold: people with a lower score are left out, 0..1.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: of `Predictor`; ValueError for a model that needs a detector itself.
    """

    licence = None

    def __init__(self, model: str | Path, device: str = "cpu", threshold: float = THRESHOLD):
        from lib.predict.predictor import Predictor  # which may itself ask for a detector by name

        self.path, self.name, self.threshold = Path(model), Path(model).stem, threshold
        self.predictor = Predictor(model, device)

    def __call__(self, image: np.ndarray, path: Path | None = None) -> np.ndarray:
        """See `lib.detect.Detector`."""
        fitted = self.predictor.fit(image)
        people = self.predictor.people(self.predictor.answers([fitted])[0], fitted)
        people = people[np.argsort(-people.scores, kind="stable")]
        return boxes_of_people(people[people.scores >= self.threshold], SURE)


def detector_named(spec: str | Path, device: str = "cpu", *, threshold: float = THRESHOLD,
                   annotations: str | Path | None = None) -> Detector:  # fmt: skip
    """Open a detector by what a command line calls it.

    Args:
        spec: what `lib.detect.open_detector` takes, or the file of a model of this workbook that finds several people, or
            "truth=FILE.json", which brings its `annotations` along.
        device: cpu, cuda or cuda:1.
        threshold: boxes with a lower score are left out, 0..1; given boxes all stay.
        annotations: COCO file, for "truth".

    Raises:
        ValueError, FileNotFoundError, RuntimeError, OSError: of `open_detector` and `PoseDetector`.
    """
    if str(spec).startswith("truth="):
        spec, annotations = "truth", str(spec).removeprefix("truth=")
    path = Path(spec)
    ours = path.suffix in (".safetensors", ".plan", *PUBLIC_SUFFIXES) and not str(spec).startswith("torchvision:")
    if ours or (path.suffix == ".onnx" and path.is_file() and METADATA_KEY in _metadata(path)):
        detector = PoseDetector(path, device, threshold)
    else:
        detector = open_detector(spec, device, threshold=threshold, annotations=annotations)
    detector.spec = str(path.resolve()) if path.is_file() else str(spec)  # for who wants to do the same again
    return detector


def _metadata(path: Path) -> dict[str, str]:
    return onnx_session(path, "cpu", 1).get_modelmeta().custom_metadata_map
