"""Boxes that nobody has to find: those of an annotation file, and the whole picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lib.data.coco import Annotation, CocoFile, Image, box_around, read_coco


class WholeImage:
    """One box, the whole picture: for pictures that were cut out around one person."""

    name, licence = "whole", None

    def __call__(self, image: np.ndarray, path: Path | None = None) -> np.ndarray:
        """See `lib.detect.Detector`."""
        return np.array([[0, 0, image.shape[1], image.shape[0], 1]], np.float32)


class TruthBoxes:
    """The annotated boxes of a picture, score 1; around the keypoints where a person has no box. No crowds.

    Args:
        annotations: COCO file. Where a category has keypoints, only those with keypoints count.

    Raises:
        FileNotFoundError, ValueError: of `read_coco`.
    """

    name, licence = "truth", None

    def __init__(self, annotations: str | Path | CocoFile):
        coco = annotations if isinstance(annotations, CocoFile) else read_coco(annotations)
        self.source = coco.source
        figures = {c.id for c in coco.categories if c.keypoints} or {c.id for c in coco.categories}
        self._images = {image.file_name: image for image in coco.images}
        self._plain: dict[str, list[Image]] = {}
        for image in coco.images:
            self._plain.setdefault(Path(image.file_name).name, []).append(image)
        boxes: dict[int, list] = {image.id: [] for image in coco.images}
        sizes = {image.id: (image.height, image.width) for image in coco.images}
        for a in coco.annotations:
            box = _box(a, sizes[a.image_id])
            if a.category_id in figures and not a.iscrowd and box:
                boxes[a.image_id].append([*box, 1])
        self._boxes = {i: np.array(rows, np.float32).reshape(-1, 5) for i, rows in boxes.items()}

    def __call__(self, image: np.ndarray, path: Path | None = None) -> np.ndarray:
        """See `lib.detect.Detector`.

        Raises:
            ValueError: no path; the file does not list that picture, or several of that name, or with another size.
        """
        if path is None:
            raise ValueError(f"the boxes of {self.source} are found by a picture's file name: pictures must be files")
        known = self._find(Path(path))
        if (known.height, known.width) != image.shape[:2]:
            raise ValueError(f"{path} is {image.shape[1]}×{image.shape[0]} pixels here, {self.source} says {known.width}×{known.height}: "
                             "its boxes belong to another version of the picture, or to the one before EXIF turns it")  # fmt: skip
        return self._boxes[known.id].copy()

    def _find(self, path: Path) -> Image:
        """The record whose file_name is the longest end of the path, or the only one that has its name."""
        parts = path.absolute().parts
        for k in range(len(parts)):
            if (name := "/".join(parts[k:])) in self._images:
                return self._images[name]
        alike = self._plain.get(path.name, [])
        if len(alike) != 1:
            raise ValueError(f"{self.source} lists {f'{len(alike)} pictures' if alike else 'no picture'} of the name "
                             f"{path.name}, so the people of {path} are not known: give the pictures it was made for")  # fmt: skip
        return alike[0]


def _box(a: Annotation, size: tuple[int, int]) -> list[float]:
    if a.bbox and min(a.bbox[2:]) > 0:
        return list(a.bbox)
    keypoints = a.keypoints or []
    return box_around([(x, y) for x, y, v in zip(keypoints[::3], keypoints[1::3], keypoints[2::3]) if v > 0], size)
