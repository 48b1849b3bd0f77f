"""People from the crops of their boxes: what a top-down model adds to a predictor.

Rules of Xiao et al., ECCV 2018 (arXiv:1804.06208): a person scores what its box scored times the mean of its keypoints, and of
people who are nearly the same, found in two boxes, the surer one stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lib.codecs import Codec
from lib.people import People, invert_affine, oks_terms
from lib.predict.fitting import Fitted, fit_box

SAME_PERSON = 0.9
"""People whose similarity (OKS) exceeds this are the same."""
BEYOND_KEYPOINTS = 1.25
"""Sides of a person's box per side of the one around the keypoints."""


def fit_boxes(image: np.ndarray, boxes: np.ndarray, input_size: tuple[int, int], padding: float, cells: str) -> Fitted:
    """A crop for each box.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (P, 5) [x, y, width, height, score], P may be 0.
        input_size, padding, cells: see `lib.data.boxes.box_affine`.

    Raises:
        ValueError: these are no boxes.
    """
    boxes = np.asarray(boxes, np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 5 or not np.isfinite(boxes).all():
        raise ValueError(f"boxes are finite numbers (P, 5), x, y, width, height and score, got {boxes.shape} {boxes.tolist()[:3]}")
    fits = [fit_box(image, box, input_size, padding, cells) for box in boxes]
    return Fitted(tuple(pixels for pixels, _ in fits), tuple(affine for _, affine in fits), image.shape[:2], boxes)


def people_of_crops(codec: Codec, answers: Sequence[Mapping[str, np.ndarray]], fitted: Fitted) -> People:
    """The people of one picture, with their boxes, the surest first.

    Args:
        codec: reads one person from the maps of one crop.
        answers: maps of each crop.
        fitted: the crops.
    """
    found = [codec.decode(maps).warped(invert_affine(affine)) for maps, affine in zip(answers, fitted.affines)]
    if not found:
        return People(np.zeros((0, codec.skeleton.num_keypoints, 3)), np.zeros(0), np.zeros((0, 4), np.float32))
    keypoints = np.concatenate([person.keypoints for person in found])
    scores = fitted.boxes[:, 4] * np.concatenate([person.scores for person in found])
    # as published, a person is as large as the crop
    areas = np.array([pixels.shape[0] * pixels.shape[1] / np.linalg.det(affine[:, :2])
                      for pixels, affine in zip(fitted.inputs, fitted.affines)])  # fmt: skip
    kept = suppressed(keypoints, scores, areas, np.array(codec.skeleton.sigmas))
    return People(keypoints, scores, fitted.boxes[:, :4])[kept]


def suppressed(keypoints: np.ndarray, scores: np.ndarray, areas: np.ndarray, sigmas: np.ndarray,
               threshold: float = SAME_PERSON) -> np.ndarray:  # fmt: skip
    """Who stays when everybody who is too similar to a surer person goes (OKS-NMS).

    Args:
        keypoints: (P, K, 2 or 3) pixels; all count, found or not, as published.
        scores: (P,).
        areas: (P,) pixels²; of two people the mean of theirs counts.
        sigmas: (K,) of the skeleton.
        threshold: similarity 0..1 that is too much.

    Returns:
        (P',) int64 indices, the surest first.
    """
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(first)
        distance2 = ((keypoints[order, :, :2] - keypoints[first, :, :2]) ** 2).sum(axis=2)
        similarity = oks_terms(distance2, (areas[order] + areas[first]) / 2, sigmas).mean(axis=1)
        order = order[similarity <= threshold]
    return np.array(kept, np.int64)


def boxes_of_people(people: People, threshold: float, scores: np.ndarray | None = None) -> np.ndarray:
    """Boxes (P', 5) around people's keypoints, with a margin; none of those whose keypoints do not lie apart.

    Args:
        people: as predicted.
        threshold: keypoints with a lower score do not count.
        scores: (P,) of the boxes, in place of the people's.
    """
    sure = people.keypoints[..., 2:] > threshold
    x, y, w, h = People(people.keypoints * sure, people.scores).boxes_around_keypoints().T
    grow = (BEYOND_KEYPOINTS - 1) / 2
    scores = people.scores if scores is None else scores
    boxes = np.stack([x + 0.5 - grow * w, y + 0.5 - grow * h, BEYOND_KEYPOINTS * w, BEYOND_KEYPOINTS * h, scores], axis=1)
    return boxes[w + h > 0].astype(np.float32)


def carried_boxes(people: People, fitted: Fitted, threshold: float) -> np.ndarray:
    """Boxes (P', 5) to look in for the same people in the next frame, scoring what the boxes they were found in did.

    Args:
        people: what `people_of_crops` found.
        fitted: where.
        threshold: keypoints with a lower score do not count; who has none above it is lost.
    """
    from_box = (fitted.boxes[:, None, :4] == people.boxes).all(axis=2)
    scores = (from_box * fitted.boxes[:, 4:]).max(axis=0, initial=0)
    return boxes_of_people(people, threshold, scores)
