"""Where annotating starts: a list of images, and what a model suggests for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lib.annotate.labels import LabelFile
from lib.data.augment import image_files
from lib.people import People
from lib.skeleton import Skeleton


def images_of(images: str | Path | Sequence[str | Path]) -> tuple[Path, list[str]]:
    """The folder and the names in it, in the order in which people count (2 before 10)."""
    if isinstance(images, str | Path):
        folder, paths = Path(images), image_files(images)
    else:
        paths = [Path(p).absolute() for p in images]
        if not paths:
            raise FileNotFoundError("the list of images is empty")
        folder = Path(os.path.commonpath([p.parent for p in paths]))
    names = list(dict.fromkeys(p.relative_to(folder).as_posix() for p in paths))
    return folder, names


def check_folder(labels: LabelFile, folder: Path) -> None:
    """A COCO file of other images would come out with names from two folders."""
    if labels.images and not any((folder / name).is_file() for name in labels.images):
        first = next(iter(labels.images))
        raise ValueError(
            f"{labels.path} lists {len(labels.images)} images such as {first!r}, none of them is in {folder}: pass the "
            "folder to which these names belong, or another save_to"
        )


def by_names(predict: Callable, skeleton: Skeleton) -> Callable[[np.ndarray], People]:
    """Image → People with the skeleton's keypoints. Of a `Predictor`, which knows its own, they are taken by their names;
    those that it does not know are not found."""
    theirs = getattr(predict, "skeleton", None)
    if theirs is None:
        return lambda image: _checked(predict(image), skeleton)
    places = [theirs.keypoints.index(name) if name in theirs.keypoints else -1 for name in skeleton.keypoints]
    if max(places) < 0:
        raise ValueError(f"the model's keypoints are {', '.join(theirs.keypoints)}; none of them is in the skeleton "
                         f"{skeleton.name!r}: {', '.join(skeleton.keypoints)}")  # fmt: skip

    def predicted(image: np.ndarray) -> People:
        people = predict([image])[0]
        with_none = np.pad(people.keypoints, ((0, 0), (0, 1), (0, 0)))  # zeros at the end, for those it does not know
        return People(with_none[:, places], people.scores)

    return predicted


def as_labels(people: People, size: tuple[int, int], low: float, high: float) -> list[list[float]]:
    """Predicted people as labels to correct: their confidence becomes visibility.

    Args:
        people: as predicted.
        size: (H, W) of the picture; places end at its border.
        low: keypoints are hidden (v = 1) from this score on. Those below keep their place with v = 0, so that an annotator
            switches them on instead of drawing them; what was not found at all has none.
        high: keypoints are visible (v = 2) from this score on.

    Returns:
        For each of them x, y, v × K, v an integer.
    """
    scores = people.keypoints[..., 2]
    found = np.isfinite(people.keypoints).all(axis=-1) & (scores > 0)
    xy = people.keypoints[..., :2].astype(float).clip(0, (size[1] - 1, size[0] - 1)).round(2)
    v = (found & (scores >= low)).astype(int) + (found & (scores >= high))
    figures = zip(np.where(found[..., None], xy, 0).tolist(), v.tolist())
    return [[n for place, seen in zip(*figure) for n in (*place, seen)] for figure in figures]


def _checked(people: People, skeleton: Skeleton) -> People:
    if not isinstance(people, People):
        raise ValueError(f"predict gives a {type(people).__name__} for an image, not People: pass a Predictor itself")
    if people.keypoints.shape[1] != skeleton.num_keypoints:
        raise ValueError(
            f"predict gives {people.keypoints.shape[1]} keypoints, the skeleton {skeleton.name!r} has "
            f"{skeleton.num_keypoints}: pass the Predictor itself, whose keypoints are matched by name"
        )
    return people
