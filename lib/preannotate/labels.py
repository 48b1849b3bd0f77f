"""Predicted people as labels to correct: confidence becomes visibility, and a person may become a picture of his own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np

from lib.annotate.sources import as_labels
from lib.data.coco import box_around
from lib.exchange.crops import Origin
from lib.people import People
from lib.preannotate.journal import Labelled, Person

WRITTEN = (".jpg", ".jpeg", ".png")  # suffixes that pictures written anew keep


def labelled(name: str, image: np.ndarray, people: People, low: float, high: float) -> tuple[Labelled, int]:
    """A picture with its people as labels, and the number of those who have no keypoint from `low` on and are left out.

    The box is the detector's, or else laid around the labelled keypoints with a margin.
    """
    height, width = image.shape[:2]
    figures = []
    for i, keypoints in enumerate(as_labels(people, (height, width), low, high)):
        points = [(x, y) for x, y, v in _points(keypoints) if v]
        if not points:
            continue
        if given := people.boxes is not None:
            x, y, w, h = people.boxes[i].astype(float)
            points = [(x, y), (x + w, y + h)]
        figures.append(Person(keypoints, box_around(points, (height, width), margin=not given)))
    return Labelled(name, width, height, figures), len(people) - len(figures)


def cut(picture: Labelled, image: np.ndarray) -> list[tuple[Labelled, np.ndarray]]:
    """Every person of a picture as a picture of his own, `walk.jpg` → `walk_person1.jpg`.

    What is cut out holds the box and the labelled keypoints, and a margin of a tenth of the longer side.
    """
    path, cuts = PurePosixPath(writable(picture.file_name)), []
    for number, person in enumerate(picture.people, 1):
        x, y, width, height = person.box
        points = [(x, y), (x + width, y + height), *((x, y) for x, y, v in _points(person.keypoints) if v)]
        left, top, width, height = box_around(points, image.shape[:2])
        right, bottom = int(np.ceil(left + width)), int(np.ceil(top + height))
        left, top = int(left), int(top)
        pixels = image[top:bottom, left:right]
        height, width = pixels.shape[:2]
        keypoints = [n for x, y, v in _points(person.keypoints) for n in (
            (_within(x - left, width), _within(y - top, height), v) if x or y else (x, y, v))]  # fmt: skip
        box = [round(person.box[0] - left, 2), round(person.box[1] - top, 2), *person.box[2:]]
        name = str(path.with_stem(f"{path.stem}_person{number}"))
        origin = Origin(picture.file_name, picture.width, picture.height, (left, top, width, height))
        cuts.append((Labelled(name, width, height, [Person(keypoints, box)], origin), pixels))
    return cuts


def writable(name: str) -> str:
    """The name of a picture that is written anew: `.png` where we do not write what it was."""
    path = PurePosixPath(name)
    return str(path if path.suffix.lower() in WRITTEN else path.with_suffix(".png"))


def _points(keypoints: list[float]) -> Iterator[tuple[float, float, int]]:
    return zip(keypoints[::3], keypoints[1::3], keypoints[2::3])


def _within(n: float, length: int) -> float:
    return round(min(max(n, 0), length - 1), 2)
