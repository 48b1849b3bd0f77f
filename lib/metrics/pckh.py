"""PCKh: the share of annotated keypoints that were found within half a head.

Source: Andriluka et al., 2D Human Pose Estimation, CVPR 2014, and the benchmark's evaluation toolkit. Only annotated
keypoints count; one that was not found is wrong. A row of the table is the mean of its keypoints' shares, the total
counts the keypoints of all rows and people together, so it is not the mean of the rows. AUC is the area under the
total's curve over thresholds from 0 to half a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from lib.metrics.heads import HeadScorer, head_errors
from lib.skeleton import Skeleton

THRESHOLD = 0.5
THRESHOLDS = np.linspace(0, THRESHOLD, 51)  # of the curve, in heads
PEOPLE = ("all", "single")


class Pckh(NamedTuple):
    """Shares in 0..1, NaN where nothing is labelled: of each keypoint (K,), and of all together."""

    keypoints: np.ndarray
    total: float


def pckh(predicted: np.ndarray, truth: np.ndarray, head_sizes: np.ndarray, threshold: float = THRESHOLD) -> Pckh:
    """PCKh of people who were predicted one by one.

    Args:
        predicted: (P, K, 3) pixels and score; 0 = not found.
        truth: (P, K, 3) pixels and visibility; 0 = not labelled.
        head_sizes: (P,) in the same pixels, see `lib.data.mpii.head_size`.
        threshold: in heads; a keypoint exactly there is still correct.
    """
    return shares(head_errors(np.asarray(predicted), np.asarray(truth), np.asarray(head_sizes)), threshold)


def shares(errors: np.ndarray, threshold: float = THRESHOLD) -> Pckh:
    """The same of errors (P, K) as `head_errors` gives them."""
    labelled, hits = (~np.isnan(errors)).sum(axis=0), (errors <= threshold).sum(axis=0)
    of_each = np.where(labelled > 0, hits / np.maximum(labelled, 1), np.nan)
    return Pckh(of_each, float(hits.sum() / labelled.sum()) if labelled.any() else float("nan"))


def area(values: Sequence[float], thresholds: Sequence[float] = THRESHOLDS) -> float:
    """Area under a curve in 0..1: that of a curve which is 1 everywhere is 1."""
    return float(np.trapezoid(values, thresholds) / (thresholds[-1] - thresholds[0]))


class PckhScorer(HeadScorer):
    """PCKh@0.5 and AUC against a file with head boxes; each annotated person gets one of the people predicted in its picture.

    Where somebody is the only one annotated, that is the surest. Of several predicted and several annotated people, pairs are
    made one to one so that the area under the curve is largest. The benchmark gives every person's place and scale to the
    network instead, and scores only people who stand apart.

    Attributes:
        pairing: the above in few words.

    Args:
        annotations, predicted, category, image_ids: see `HeadScorer`.
        people: "all" who are labelled, or only those whose key `single_person` says that they stand apart.

    Raises:
        ValueError: of `HeadScorer`, or people is neither, or nobody is said to stand apart.
    """

    similarity = "pckh"
    pairing = "the surest prediction where one person is annotated, else one to one for the largest AUC"

    def __init__(self, annotations: str | Path, predicted: Skeleton, category: str | None = None,
                 image_ids: Iterable[int] | None = None, people: str = "all"):  # fmt: skip
        if people not in PEOPLE:
            raise ValueError(f"people {people!r} is unknown; choose {' or '.join(PEOPLE)}")
        super().__init__(annotations, predicted, category, image_ids)
        self.chosen = people
        self._scored = sum(self._counts(person) for group in self.people.values() for person in group)
        if not self._scored:
            raise ValueError(f"{annotations}: nobody to score with --people=single: no one with a head box has "
                             "`single_person`: true")  # fmt: skip

    @property
    def card(self) -> dict:
        return super().card | {"threshold": THRESHOLD, "people": self.chosen, "people_scored": self._scored,
                               "pairing": self.pairing}  # fmt: skip

    def rules(self) -> list[str]:
        """What decides the figures, in few words each."""
        people = f"{self._scored} people" + " who stand apart" * (self.chosen == "single")
        return [f"PCKh@{THRESHOLD:g} in %", people, *self.remarks()]

    def __call__(self, results: Sequence[Mapping]) -> dict[str, float]:
        """The table of COCO results (keypoints of the predicting skeleton), in 0..1; NaN where nothing is labelled."""
        return self.figures(self.match(results))

    def figures(self, matches: Sequence[Mapping]) -> dict[str, float]:
        """The same of what `match` gave: every row, Total and AUC."""
        curves = self.curves(matches)
        return {name: float(values[-1]) for name, values in curves.items()} | {"AUC": area(curves["Total"])}

    def curves(self, matches: Sequence[Mapping]) -> dict[str, np.ndarray]:
        """PCKh (T,) at all `THRESHOLDS`, of every row and Total."""
        errors = self.errors(matches)
        at = [shares(errors, threshold) for threshold in THRESHOLDS]
        rows = [self.by_row(found.keypoints) for found in at]
        curves = {row: np.array([values[row] for values in rows]) for row in self.rows}
        return curves | {"Total": np.array([found.total for found in at])}

    def match(self, results: Sequence[Mapping]) -> list[dict]:
        """Give every annotated person a prediction, image by image.

        Returns:
            One dict per image: image_id, people (G who are scored), predictions (D), pckh (G,) of each, errors (G, K) in heads
            and pixels (G, K), both infinite where not found and NaN where not labelled.
        """
        found = self.predictions(results)
        return [self._match_image(image_id, *found[image_id]) for image_id in self.image_ids]

    def errors(self, matches: Sequence[Mapping]) -> np.ndarray:
        """(P, K) of all people, in heads."""
        return np.concatenate([match["errors"] for match in matches])

    def per_keypoint(self, matches: Sequence[Mapping]) -> list[dict]:
        """Table: keypoint, labelled (count), pckh and auc in 0..1, error (median px of those found)."""
        errors = self.errors(matches)
        pixels = np.concatenate([match["pixels"] for match in matches])
        rows = []
        for k, name in enumerate(self.keypoints):
            found = pixels[np.isfinite(pixels[:, k]), k]
            rows.append({
                "keypoint": name,
                "labelled": int((~np.isnan(errors[:, k])).sum()),
                "pckh": shares(errors[:, [k]]).total,
                "auc": area([shares(errors[:, [k]], threshold).total for threshold in THRESHOLDS]),
                "error": float(np.median(found)) if len(found) else float("nan"),
            })  # fmt: skip
        return rows

    def _counts(self, person) -> bool:
        return not np.isnan(person.head) and (self.chosen == "all" or bool(person.extras.single_person))

    def _match_image(self, image_id: int, predicted: np.ndarray, scores: np.ndarray) -> dict:
        people = [person for person in self.people[image_id] if not np.isnan(person.head)]
        truth = np.array([person.keypoints for person in people]).reshape(-1, len(self.keypoints), 3)
        heads = np.array([person.head for person in people])
        partners = np.zeros_like(truth)  # nobody, whose keypoints were not found
        if len(predicted) and len(self.people[image_id]) == len(people) == 1:
            partners[0] = predicted[np.argmax(scores)]
        elif len(predicted) and people:
            errors = head_errors(predicted[:, None], truth, heads)
            closeness = np.nansum(np.maximum(0, THRESHOLD - errors), axis=-1)
            for d, g in zip(*linear_sum_assignment(closeness, maximize=True)):
                partners[g] = predicted[d]
        counts = [g for g, person in enumerate(people) if self._counts(person)]
        errors = head_errors(partners, truth, heads)[counts]
        hits = (errors <= THRESHOLD).sum(axis=-1) / np.maximum((~np.isnan(errors)).sum(axis=-1), 1)
        return {"image_id": image_id, "people": len(counts), "predictions": len(predicted), "pckh": hits, "errors": errors,
                "pixels": errors * heads[counts, None]}  # fmt: skip
