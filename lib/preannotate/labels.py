"""Predicted people as labels to correct: confidence becomes visibility, and a person may become a picture of his own."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from lib.data.coco import box_around
from lib.people import People
from lib.preannotate.journal import Labelled, Person


def visibility(people: People, low: float, high: float) -> np.ndarray:
    """(P, K) 0, 1 or 2: keypoints are visible from the score `high` on, hidden from `low` on, below not labelled."""
    scores = np.nan_to_num(people.keypoints[..., 2])
    return (scores >= low).astype(int) + (scores >= high)


def labelled(name: str, image: np.ndarray, people: People, low: float, high: float) -> tuple[Labelled, int]:
    """A picture with its people as labels, and the number of those who have no keypoint from `low` on and are left out.

    A keypoint below keeps its place, with v = 0, so that an annotator switches it on instead of drawing it; one that was
    not found at all has none. Places end at the border of the picture. The box is the detector's, or else laid around
    the labelled keypoints with a margin.
    """
    height, width = image.shape[:2]
    v = visibility(people, low, high)
    found = np.isfinite(people.keypoints).all(axis=-1) & (people.keypoints[..., 2] > 0)
    xy = np.where(found[..., None], people.keypoints[..., :2], 0).astype(float).clip(0, (width - 1, height - 1)).round(2)
    figures = []
    for i in np.flatnonzero((v > 0).any(axis=1)):
        points, given = xy[i][v[i] > 0].tolist(), people.boxes is not None
        if given:
            x, y, w, h = people.boxes[i].astype(float)
            points = [(x, y), (x + w, y + h)]
        box = box_around(points, (height, width), margin=not given)
        figures.append(Person(np.column_stack([xy[i], v[i]]).ravel().tolist(), box))
    return Labelled(name, width, height, figures), len(people) - len(figures)


def cut(picture: Labelled, image: np.ndarray) -> list[tuple[Labelled, np.ndarray]]:
    """Every person of a picture as a picture of his own, `walk.jpg` → `walk_person1.jpg`.

    What is cut out holds the box and the labelled keypoints, and a margin of a tenth of the longer side.
    """
    path, cuts = PurePosixPath(picture.file_name), []
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
        cuts.append((Labelled(name, width, height, [Person(keypoints.ravel().tolist(), box)], (left, top)), pixels))
    return cuts
