"""What is wrong with predicted people, and how much AP each kind of error costs.

Source: Ronchi and Perona, Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation, ICCV 2017, arXiv:1707.05388,
and its program coco-analyze (github.com/matteorr/coco-analyze), whose rules these are. A prediction is judged by the person
it is matched with at an OKS of 0.1. Each of that person's labelled keypoints is compared with where all keypoints of its
kind, and of its mirror twin's, really are in the picture; s is the largest of the similarities, the terms of OKS:

    good       s > 0.85, at its own place
    jitter     0.5 ≤ s ≤ 0.85, at its own place: near, but not there
    inversion  s ≥ 0.5, at the twin's place: left and right exchanged
    swap       s ≥ 0.5, at the place of somebody else's keypoint
    miss       s < 0.5 everywhere, or not found at all

To fix a keypoint means to move it to where it would be barely right, not onto the truth: jitter to 0.85, miss to 0.5, the
others to their s, at the distance σ·√(−2·A·ln s). (OKS allows 2σ, so the similarity there is the fourth root of s. The program
does it so, and the published figures are its.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lib.metrics.coco import CocoScorer
from lib.metrics.precision import THRESHOLDS, Scene, Tally, match, precision_at_recall, scenes_of, tally
from lib.people import oks_terms
from lib.skeleton import Skeleton

KINDS = ("good", "jitter", "inversion", "swap", "miss")
FIXES = ("miss", "swap", "inversion", "jitter", "score", "false positive", "missed person")
"""In the order in which coco-analyze fixes one after the other."""
SAME, NEAR, GOOD = 0.1, 0.5, 0.85
SOFT = 0.5  # of the soft suppression of scores (Bodla et al. 2017, arXiv:1704.04503)


@dataclass(frozen=True)
class Judged:
    """A picture with its errors.

    Attributes:
        scene: who is there.
        partners: (D,) number of the annotated person whom a prediction is matched with at an OKS of 0.1; −1 for none: a false
            positive, if there is no crowd.
        kinds: (D, K) number in `KINDS` of every keypoint, −1 where nothing is labelled or nobody is matched.
        right: (D, K, 2) where the keypoints would be if they were fixed, pixels.
        similarity: (D, G) OKS.
    """

    scene: Scene
    partners: np.ndarray
    kinds: np.ndarray
    right: np.ndarray
    similarity: np.ndarray

    @property
    def false_positives(self) -> np.ndarray:
        """(D,) predictions whom nobody is matched with."""
        return self.partners < 0

    @property
    def missed(self) -> np.ndarray:
        """(G,) people who count and are matched with no prediction."""
        return ~self.scene.ignored & ~np.isin(np.arange(len(self.scene.ignored)), self.partners)

    @property
    def cost(self) -> float:
        """1 − OKS of everybody who counts, and the scores of false positives, added: what is worst in a set of pictures."""
        oks = np.zeros(len(self.scene.ignored))
        there = np.flatnonzero(self.partners >= 0)
        oks[self.partners[there]] = self.similarity[there, self.partners[there]]
        return float((1 - oks[~self.scene.ignored]).sum() + self.scene.scores[self.false_positives].sum())


@dataclass(frozen=True)
class Errors:
    """The errors of a set of pictures.

    Attributes:
        skeleton: the keypoints that are scored.
        pictures: everything in detail.
        tally: right and wrong predictions at `THRESHOLDS`.
        alone: {fix of `FIXES`: AP if this alone were fixed}. False positives and missed people are here those of `Judged`.
        in_turn: {fix: AP if this and all before it were fixed}. False positives and missed people are here what is left
            without a partner at each threshold, so that the last figure is 1.
    """

    skeleton: Skeleton
    pictures: list[Judged]
    tally: Tally
    alone: dict[str, float]
    in_turn: dict[str, float]

    @property
    def counts(self) -> np.ndarray:
        """(5, K) keypoints of each kind; their sum is the labelled keypoints of people who were matched."""
        kinds = np.concatenate([p.kinds for p in self.pictures])
        return np.stack([(kinds == number).sum(axis=0) for number in range(len(KINDS))])

    def shares(self) -> dict[str, float]:
        """{kind: share of the labelled keypoints of matched people}; NaN where nobody was matched."""
        counts = self.counts.sum(axis=1)
        return dict(zip(KINDS, (counts / counts.sum()).tolist() if counts.sum() else [float("nan")] * len(KINDS)))

    @property
    def people(self) -> dict[str, int]:
        """Counted: people to find, missed ones, predictions, false positives, and duplicates among these: similar to
        somebody (an OKS of 0.5) with whom a surer prediction is matched."""
        alike = [int((p.similarity[p.false_positives] >= NEAR).any(axis=1).sum()) for p in self.pictures]
        return {
            "people": sum(int((~p.scene.ignored).sum()) for p in self.pictures),
            "missed": sum(int(p.missed.sum()) for p in self.pictures),
            "predictions": sum(len(p.partners) for p in self.pictures),
            "false positives": sum(int(p.false_positives.sum()) for p in self.pictures),
            "duplicates": sum(alike),
        }

    def worst(self, count: int | None = None) -> list[Judged]:
        """Pictures by what their errors cost, the most expensive first; those without any error are left out."""
        return sorted((p for p in self.pictures if p.cost > 0), key=lambda p: -p.cost)[:count]


def find_errors(scorer: CocoScorer, results: Sequence[Mapping]) -> Errors:
    """Judge COCO results (keypoints of the predicting skeleton)."""
    pictures = [judge(scene, scorer.sigmas, scorer.skeleton.flip_index) for scene in scenes_of(scorer, results)]
    whole = tally([p.scene for p in pictures], [p.similarity for p in pictures])
    alone = {fix: ap for fix, ap in _alone(pictures, whole, scorer.sigmas)}
    return Errors(scorer.skeleton, pictures, whole, alone, dict(_in_turn(pictures, scorer.sigmas)))


def judge(scene: Scene, sigmas: np.ndarray, twins: np.ndarray) -> Judged:
    """Name the error of every keypoint in a picture; (K,) sigmas and `flip_index` of a skeleton."""
    similarity = scene.similarity(sigmas)
    partners = match(similarity, scene.ignored, scene.crowd, np.array([SAME]))[0]
    kinds = np.full(scene.keypoints.shape[:2], -1)
    right = scene.keypoints[..., :2].copy()
    for d in np.flatnonzero(partners >= 0):
        if (scene.truth[partners[d], :, 2] > 0).any():
            kinds[d], near = _kinds(scene, d, partners[d], sigmas, twins)
            right[d] = _righted(scene, d, partners[d], kinds[d], near, sigmas)
    return Judged(scene, partners, kinds, right, similarity)


def best_scores(scene: Scene, keypoints: np.ndarray, similarity: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """(D,) scores in the best order: the OKS with the most similar person, less for who resembles a better prediction."""
    scores = similarity[:, ~scene.ignored].max(axis=1, initial=0.0)
    alike = _alike(keypoints, scene.keypoints[..., 2] > 0, sigmas)
    left = list(np.argsort(-scores, kind="stable"))
    while left:
        first = left.pop(0)
        scores[left] *= np.exp(-(alike[first, left] ** 2) / SOFT)
        left.sort(key=lambda d: -scores[d])
    return scores


def _kinds(scene: Scene, d: int, g: int, sigmas: np.ndarray, twins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) number of the kind of prediction d's keypoints when it is person g, and (K,) the largest similarity."""
    order = [g, *(other for other in range(len(scene.truth)) if other != g)]
    places = np.concatenate([scene.truth[order], scene.truth[order][:, twins]])
    distance2 = ((places[..., :2] - scene.keypoints[d, :, :2]) ** 2).sum(axis=-1)
    terms = np.where(places[..., 2] > 0, oks_terms(distance2, np.tile(scene.areas[order], 2), sigmas), -1.0)
    near, at = terms.max(axis=0).clip(0), terms.argmax(axis=0)
    near[scene.keypoints[d, :, 2] <= 0] = 0
    kinds = np.where(at == 0, np.where(near > GOOD, 0, 1), np.where(at == len(order), 2, 3))
    kinds[near < NEAR] = 4
    kinds[scene.truth[g, :, 2] <= 0] = -1
    return kinds, near


def _righted(scene: Scene, d: int, g: int, kinds: np.ndarray, near: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    to = np.select([kinds == KINDS.index("jitter"), kinds == KINDS.index("miss")], [GOOD, NEAR], near.clip(np.spacing(1), 1))
    places = scene.truth[g, :, :2].copy()
    places[:, 0] += sigmas * np.sqrt(-2 * scene.areas[g] * np.log(to))
    return np.where((kinds > 0)[:, None], places, scene.keypoints[d, :, :2])


def _fixed(picture: Judged, kinds: Sequence[str]) -> np.ndarray:
    """(D, K, 2) with the keypoints of these kinds of error at the right places."""
    wrong = np.isin(picture.kinds, [KINDS.index(kind) for kind in kinds])
    return np.where(wrong[..., None], picture.right, picture.scene.keypoints[..., :2])


def _tallied(pictures: Sequence[Judged], sigmas: np.ndarray, kinds: Sequence[str], best: bool = False) -> Tally:
    """With the keypoints of these kinds fixed, and if wished the scores."""
    scenes = [p.scene for p in pictures]
    places = [_fixed(p, kinds) for p in pictures]
    alike = [scene.similarity(sigmas, xy) for scene, xy in zip(scenes, places)]
    scores = [best_scores(*each, sigmas) for each in zip(scenes, places, alike)] if best else None
    return tally(scenes, alike, THRESHOLDS, scores)


def _alone(pictures: Sequence[Judged], whole: Tally, sigmas: np.ndarray) -> Iterator[tuple[str, float]]:
    for fix in FIXES[:4]:
        yield fix, _tallied(pictures, sigmas, [fix]).average_precision()
    yield "score", _tallied(pictures, sigmas, [], best=True).average_precision()
    false = np.concatenate([np.zeros(0, bool), *(p.false_positives for p in pictures)])
    yield "false positive", _mean(whole, whole.ignored | (false & ~whole.hits))
    found = np.concatenate([np.zeros(0, bool), *(~p.missed[~p.scene.ignored] for p in pictures)])
    yield "missed person", _mean(whole, whole.ignored, (found | whole.found).sum(axis=1))


def _in_turn(pictures: Sequence[Judged], sigmas: np.ndarray) -> Iterator[tuple[str, float]]:
    for count, fix in enumerate(FIXES[:4], 1):
        yield fix, _tallied(pictures, sigmas, FIXES[:count]).average_precision()
    best = _tallied(pictures, sigmas, FIXES[:4], best=True)
    yield "score", best.average_precision()
    yield "false positive", _mean(best, best.ignored | ~best.hits)
    yield "missed person", _mean(best, best.ignored | ~best.hits, best.found.sum(axis=1))


def _mean(of: Tally, ignored: np.ndarray, people: np.ndarray | None = None) -> float:
    """AP with other predictions ignored and other numbers of people to find; thresholds without anybody do not count."""
    people = [of.found.shape[1]] * len(of.hits) if people is None else people
    rows = precision_at_recall(of.scores, of.hits, ignored, people)[np.asarray(people) > 0]
    return float(rows.mean()) if len(rows) else float("nan")


def _alike(points: np.ndarray, found: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """(D, D) similarity of predicted people with each other, by the keypoints that both have; their area is what these span."""
    low = np.where(found[..., None], points, np.inf).min(axis=1)
    spans = np.where(found.any(axis=1), (np.where(found[..., None], points, -np.inf).max(axis=1) - low).prod(axis=-1), 0.0)
    distance2 = ((points[:, None] - points) ** 2).sum(axis=-1)
    both = found[:, None] & found
    terms = oks_terms(distance2, (spans[:, None] + spans) / 2, sigmas) * both
    return terms.sum(axis=-1) / np.maximum(both.sum(axis=-1), 1)
