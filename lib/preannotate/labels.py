"""Predicted people as labels to correct: confidence becomes visibility, and a person may become a picture of his own."""

from __future__ import annotations

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
    labels, figures, given = as_labels(people, (height, width), low, high), [], people.boxes is not None
    for i in np.flatnonzero(labels[..., 2].any(axis=1)):
        points = labels[i][labels[i][:, 2] > 0, :2].tolist()
        if given:
            x, y, w, h = people.boxes[i].astype(float)
            points = [(x, y), (x + w, y + h)]
        figures.append(Person(labels[i].ravel().tolist(), box_around(points, (height, width), margin=not given)))
    return Labelled(name, width, height, figures), len(people) - len(figures)


def cut(picture: Labelled, image: np.ndarray) -> list[tuple[Labelled, np.ndarray]]:
    """Every person of a picture as a picture of his own, `walk.jpg` → `walk_person1.jpg`.

    What is cut out holds the box and the labelled keypoints, and a margin of a tenth of the longer side.
    """
    path, cuts = PurePosixPath(writable(picture.file_name)), []
    for number, person in enumerate(picture.people, 1):
        x, y, width, height = person.box
        keypoints = np.reshape(person.keypoints, (-1, 3))
        points = [(x, y), (x + width, y + height), *keypoints[keypoints[:, 2] > 0, :2].tolist()]
        left, top, width, height = box_around(points, image.shape[:2])
        right, bottom = int(np.ceil(left + width)), int(np.ceil(top + height))
        left, top = int(left), int(top)
        pixels = image[top:bottom, left:right]
        height, width = pixels.shape[:2]
        placed = keypoints[:, :2].any(axis=1)
        keypoints[placed, :2] = (keypoints[placed, :2] - (left, top)).clip(0, (width - 1, height - 1)).round(2)
        box = [round(person.box[0] - left, 2), round(person.box[1] - top, 2), *person.box[2:]]
        name = str(path.with_stem(f"{path.stem}_person{number}"))
        origin = Origin(picture.file_name, picture.width, picture.height, (left, top, width, height))
        cuts.append((Labelled(name, width, height, [Person(keypoints.ravel().tolist(), box)], origin), pixels))
    return cuts


def writable(name: str) -> str:
    """The name of a picture that is written anew: `.png` where we do not write what it was."""
    path = PurePosixPath(name)
    return str(path if path.suffix.lower() in WRITTEN else path.with_suffix(".png"))
