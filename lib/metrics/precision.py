"""COCO's AP with its steps open: who is matched with whom at each strictness, and precision over recall.

`CocoScorer` gives the same figures without the steps. Rules: https://cocodataset.org/#keypoints-eval and its evaluation
program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numba
import numpy as np

from lib.metrics.coco import CocoScorer
from lib.people import oks, oks_terms

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
SUREST = 20  # of an image count
EVERY_AREA = (0.0, 1e10)


@dataclass(frozen=True)
class Scene:
    """Everybody in one picture, annotated and predicted, with the keypoints that are scored.

    Attributes:
        image_id: COCO's number.
        keypoints: (D, K, 3) predicted people, surest first; pixels and score, 0 = not found.
        scores: (D,) theirs.
        truth: (G, K, 3) annotated people; pixels and visibility, 0 = not labelled.
        areas: (G,) pixels². boxes: (G, 4) [x, y, width, height].
        crowd: (G,) a region of people: it may be matched by several predictions.
        ignored: (G,) neither found nor missed, and what matches them is neither right nor wrong: crowds, and people without
            a labelled keypoint.
    """

    image_id: int
    keypoints: np.ndarray
    scores: np.ndarray
    truth: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray

    def similarity(self, sigmas: np.ndarray, keypoints: np.ndarray | None = None) -> np.ndarray:
        """(D, G) OKS of the predicted people, or of others in their place, with the annotated ones.

        Where nothing is labelled, what counts is how far keypoints lie outside of the doubled box.
        """
        points = (self.keypoints if keypoints is None else keypoints)[..., :2]
        similarity = oks(points, self.truth, self.areas, sigmas)
        for g in np.flatnonzero(~(self.truth[..., 2] > 0).any(axis=1)):
            low, high = self.boxes[g, :2] - self.boxes[g, 2:], self.boxes[g, :2] + 2 * self.boxes[g, 2:]
            outside = np.maximum(low - points, 0) + np.maximum(points - high, 0)
            similarity[:, g] = oks_terms((outside**2).sum(-1), self.areas[g], sigmas).mean(axis=1)
        return similarity


def scenes_of(scorer: CocoScorer, results: Sequence[Mapping]) -> list[Scene]:
    """The pictures of a scorer with the people of COCO results (keypoints of the predicting skeleton)."""
    found: dict[int, list] = {image_id: [] for image_id in scorer.image_ids}
    for r in results:
        found.get(r["image_id"], []).append(r)
    return [_scene(scorer, image_id, rows) for image_id, rows in found.items()]


@dataclass(frozen=True)
class Tally:
    """Every prediction of all pictures as right, wrong or neither, at T thresholds.

    Attributes:
        scores: (N,) of the predictions. hits: (T, N) matched. ignored: (T, N) neither right nor wrong.
        found: (T, P) of the P people that count, who is matched.
    """

    scores: np.ndarray
    hits: np.ndarray
    ignored: np.ndarray
    found: np.ndarray

    def precision(self) -> np.ndarray:
        """(T, 101) best precision at `RECALLS` or beyond; NaN where nobody is to be found."""
        return precision_at_recall(self.scores, self.hits, self.ignored, [self.found.shape[1]] * len(self.hits))

    def average_precision(self) -> float:
        """AP in 0..1; NaN where nobody is to be found."""
        return float(self.precision().mean())

    def curve(self, threshold: int) -> tuple[np.ndarray, np.ndarray]:
        """Recall and precision after each prediction that counts, surest first, at threshold number `threshold`."""
        order = np.argsort(-self.scores, kind="stable")
        right = self.hits[threshold, order][~self.ignored[threshold, order]].cumsum()
        return right / max(1, self.found.shape[1]), right / np.arange(1, len(right) + 1)


def precision_at_recall(scores: np.ndarray, hits: np.ndarray, ignored: np.ndarray, people: Sequence[int]) -> np.ndarray:
    """(T, 101) of predictions (T, N) when `people` (T,) are to be found at each threshold; NaN where there are none."""
    order = np.argsort(-scores, kind="stable")
    rows = np.full((len(hits), len(RECALLS)), np.nan)
    for t, count in enumerate(people):
        if count:
            counts = ~ignored[t, order]
            right = hits[t, order][counts].cumsum()
            best = np.maximum.accumulate((right / (np.arange(1, len(right) + 1)))[::-1])[::-1]
            rows[t] = np.append(best, 0.0)[np.searchsorted(right / count, RECALLS)]
    return rows


def tally(scenes: Sequence[Scene], similarities: Sequence[np.ndarray], thresholds: np.ndarray = THRESHOLDS,
          scores: Sequence[np.ndarray] | None = None, area: tuple[float, float] = EVERY_AREA) -> Tally:  # fmt: skip
    """Match everybody in every picture.

    Args:
        scenes: the pictures. similarities: (D, G) of each, see `Scene.similarity`.
        thresholds: (T,) OKS from which on two are matched.
        scores: of the predictions, in the place of their own.
        area: people outside of this range (pixels²) are ignored, and predictions without a partner whose keypoints span
            another area, too.
    """
    sure, hits, ignored, found = [], [], [], []
    for i, (scene, similarity) in enumerate(zip(scenes, similarities)):
        order = np.argsort(-(scene.scores if scores is None else scores[i]), kind="stable")[:SUREST]
        aside = scene.ignored | (scene.areas < area[0]) | (scene.areas > area[1])
        partners = match(similarity[order], aside, scene.crowd, thresholds)
        spans = np.ptp(scene.keypoints[order, :, :2], axis=1).prod(axis=-1)
        hit = partners >= 0
        neither = np.where(hit, np.append(aside, False)[partners], (spans < area[0]) | (spans > area[1]))
        sure.append((scene.scores if scores is None else scores[i])[order])
        hits.append(hit & ~neither)
        ignored.append(neither)
        found.append((partners[:, :, None] == np.flatnonzero(~aside)).any(axis=1))
    empty = np.zeros((len(thresholds), 0), bool)
    joined = [np.concatenate([empty, *rows], axis=1) for rows in (hits, ignored, found)]
    return Tally(np.concatenate([np.zeros(0), *sure]), *joined)


@numba.njit(cache=True)
def match(similarity, ignored, crowd, thresholds):
    """The number of everybody's partner at each threshold, (T, D), −1 for none.

    Predictions choose in the order in which they stand (surest first) the most similar person who is still free and similar
    enough; those to be ignored only if there is no other.
    """
    partners = np.full((len(thresholds), len(similarity)), -1)
    for t in range(len(thresholds)):
        taken = np.zeros(len(ignored), np.bool_)
        for d in range(len(similarity)):
            best = min(thresholds[t], 1 - 1e-10)
            for last in (False, True):
                for g in range(len(ignored)):
                    free = crowd[g] or not taken[g]
                    if ignored[g] == last and free and similarity[d, g] >= best:
                        best, partners[t, d] = similarity[d, g], g
                if partners[t, d] >= 0:
                    taken[partners[t, d]] = True
                    break
    return partners


def _scene(scorer: CocoScorer, image_id: int, results: list[Mapping]) -> Scene:
    rows, k = scorer.figures.get(image_id, ()), len(scorer.keypoints)
    results = sorted(results, key=lambda r: -r["score"])[:SUREST]
    found = np.array([np.reshape(r["keypoints"], (-1, 3)) for r in results], float)
    return Scene(image_id, scorer.select(found) if results else np.zeros((0, k, 3)), np.array([r["score"] for r in results], float),
                 np.array([a["keypoints"] for a in rows], float).reshape(-1, k, 3), np.array([a["area"] for a in rows], float),
                 np.array([a["bbox"] for a in rows], float).reshape(-1, 4), np.array([a["iscrowd"] for a in rows], bool),
                 np.array([a["ignore"] for a in rows], bool))  # fmt: skip
