"""Any detector by name: those of `lib.detect`, this workbook's own models, and what another program found."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np

from lib.data.coco import category_named, read_coco
from lib.detect import THRESHOLD, Detector, TruthBoxes, open_detector
from lib.predict.topdown import boxes_of_people
from lib.runtime import EXPORTED_SUFFIXES, METADATA_KEY, PUBLIC_SUFFIXES, onnx_session

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
        threads: of the CPU; None leaves it to the runtime.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: of `Predictor`; ValueError for a model that needs a detector itself.
    """

    licence = None

    def __init__(self, model: str | Path, device: str = "cpu", threshold: float = THRESHOLD, threads: int | None = None):
        from lib.predict.predictor import Predictor  # which may itself ask for a detector by name

        self.path, self.name, self.threshold = Path(model), Path(model).stem, threshold
        try:
            self.predictor = Predictor(model, device, threads=threads)
        except ValueError as error:
            raise ValueError(f"{model} cannot be the detector: {error}") from error

    def __call__(self, image: np.ndarray, path: Path | None = None) -> np.ndarray:
        """See `lib.detect.Detector`."""
        (people,) = self.predictor([image])
        people = people[np.argsort(-people.scores, kind="stable")]
        return boxes_of_people(people[people.scores >= self.threshold], SURE)


class Found(msgspec.Struct):
    """A row of a COCO results file of boxes."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


class FoundBoxes(TruthBoxes):
    """The boxes that another program found, from a COCO results file; all of them, whatever they score.

    Published top-down figures are made with such files, so that everybody crops the same.

    Args:
        results: the file, a list of image_id, category_id, bbox and score.
        annotations: COCO file that says which pictures the ids are, and which category people are.

    Raises:
        FileNotFoundError, ValueError, KeyError: of `read_coco`; ValueError for a file that is no such list, or one of other pictures.
    """

    def __init__(self, results: str | Path, annotations: str | Path):
        coco = read_coco(annotations)
        people = category_named(coco).id
        super().__init__(msgspec.structs.replace(coco, annotations=[]))
        self.name, self.source = Path(results).stem, str(results)
        try:
            rows = msgspec.json.decode(Path(results).read_bytes(), type=list[Found])
        except msgspec.DecodeError as error:
            raise ValueError(f"{results}: no COCO results of boxes: {error}") from None
        boxes: dict[int, list] = {image.id: [] for image in coco.images}
        for row in rows:
            if row.category_id == people and row.image_id in boxes:
                boxes[row.image_id].append([*row.bbox, row.score])
        if rows and not any(boxes.values()):
            raise ValueError(f"{results}: none of its {len(rows)} boxes is of category {people} in a picture of {annotations}")
        for image_id, found in boxes.items():
            self._boxes[image_id] = np.array(sorted(found, key=lambda box: -box[4]), np.float32).reshape(-1, 5)


def detector_named(spec: str | Path, device: str = "cpu", *, threshold: float = THRESHOLD,
                   annotations: str | Path | None = None, threads: int | None = None) -> Detector:  # fmt: skip
    """Open a detector by what a command line calls it. The licence of its weights is printed, where it is known.

    Args:
        spec: what `lib.detect.open_detector` takes, the file of a model of this workbook that finds several people, the .json of
            COCO results of boxes, or "truth=FILE.json", which brings its `annotations` along.
        device: cpu, cuda or cuda:1.
        threshold: boxes with a lower score are left out, 0..1; given boxes all stay.
        annotations: COCO file, for "truth" and for COCO results.
        threads: of the CPU, for what ONNX Runtime runs; None for one for each core.

    Raises:
        ValueError, FileNotFoundError, RuntimeError, OSError: of `open_detector`, `PoseDetector` and `FoundBoxes`.
    """
    if str(spec).startswith("truth="):
        spec, annotations = "truth", str(spec).removeprefix("truth=")
    path = Path(spec)
    ours = path.suffix in (".safetensors", *EXPORTED_SUFFIXES, *PUBLIC_SUFFIXES) and not str(spec).startswith("torchvision:")
    if path.suffix == ".onnx":
        ours = path.is_file() and METADATA_KEY in _metadata(path)
    if ours:
        detector = PoseDetector(path, device, threshold, threads)
    elif path.suffix == ".json":
        if annotations is None:
            raise ValueError(f"{path}: the boxes of a results file are those of a data set, to be evaluated; here give a detector")
        detector = FoundBoxes(path, annotations)
    else:
        detector = open_detector(spec, device, threshold=threshold, annotations=annotations, threads=threads)
    if detector.licence:
        print(f"weights of the detector {detector.name}: licence {detector.licence}", file=sys.stderr)
    detector.spec = str(path.resolve()) if path.is_file() else str(spec)  # for who wants to do the same again
    return detector


def _metadata(path: Path) -> dict[str, str]:
    return onnx_session(path, "cpu", 1).get_modelmeta().custom_metadata_map
