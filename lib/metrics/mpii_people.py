"""MPII's AP for several people: groups of people, each prediction with at most one of them, and AP joint by joint.

Source: Pishchulin et al., DeepCut, CVPR 2016, and the benchmark's evaluation toolkit (`evaluateAP`). Of every predicted and
every true person of a group, the share of the true one's annotated joints that the prediction has within half a head is
taken. Each prediction keeps only its best true person, and each true person then the best of the predictions that kept it,
if any joint agrees. Every joint of a prediction is right or wrong by its distance to that person's joint; all joints of
predictions left alone are wrong, and so is a joint of which the true person has no annotation. AP ranks each joint by its
own score over all groups, with VOC's interpolation at all points.

The toolkit leaves the people of a group in which nobody was predicted out of the recall, and the scripts of DeepCut leave
out such pictures altogether; here these people were missed. Published means are over the 14 joints (59.5 for DeeperCut is
that of its table); DeepCut's scripts average these and their mean over the upper body, 15 numbers. Both are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.data.mpii import read_mat
from lib.metrics.heads import HeadScorer, Labelled, head_errors, mean
from lib.metrics.pckh import THRESHOLD
from lib.skeleton import Skeleton

UPPER_BODY = ("Head", "Shoulder", "Elbow", "Wrist")


def assign(predicted: np.ndarray, truth: np.ndarray, heads: np.ndarray, threshold: float = THRESHOLD) -> tuple:
    """Who of a group is who, by the published rule; of equals the first.

    Args:
        predicted: (D, K, 3) pixels and score; 0 = not found.
        truth: (G, K, 3) pixels and visibility; 0 = not labelled.
        heads: (G,) lengths of heads in pixels.
        threshold: in heads; a joint exactly there is still correct.

    Returns:
        partners (D,) int64, the true person of each prediction or −1, and hits (D, K) bool, joints within the threshold
        of their partner's.
    """
    partners, hits = np.full(len(predicted), -1), np.zeros(predicted.shape[:2], bool)
    if not len(predicted) or not len(truth):
        return partners, hits
    within = head_errors(predicted[:, None], truth, heads) <= threshold
    share = within.sum(axis=-1) / np.maximum((truth[..., 2] > 0).sum(axis=-1), 1)
    best = share.argmax(axis=1)
    share[np.arange(share.shape[1]) != best[:, None]] = 0
    for g in np.flatnonzero(share.max(axis=0) > 0):
        d = share[:, g].argmax()
        partners[d], hits[d] = g, within[d, g]
    return partners, hits


def average_precision(scores: np.ndarray, hits: np.ndarray, positives: int) -> float:
    """VOC's AP with interpolation at all points.

    Args:
        scores: (N,) of detections; equal ones stay in their order.
        hits: (N,) bool, which are right.
        positives: how many there are to be found.

    Returns:
        0..1, NaN where there is nothing to be found.
    """
    if not positives:
        return float("nan")
    right = np.asarray(hits, bool)[np.argsort(-np.asarray(scores, float), kind="stable")].cumsum()
    precision = right / np.arange(1, len(right) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(right, prepend=0) * best_from_here).sum() / positives)


@dataclass(frozen=True)
class Group:
    """People of one picture who are scored together.

    Attributes:
        image_id: the picture.
        people: those with a head box.
        region: [x0, y0, x1, y1] around them, or None for the whole picture.
    """

    image_id: int
    people: tuple[Labelled, ...]
    region: np.ndarray | None = None


class MpiiPeopleScorer(HeadScorer):
    """AP of joints against a file with head boxes, group by group.

    One picture may hold several groups: those of the benchmark's file of groups, or people whose key `group` is equal. A
    prediction belongs to the group in whose region the middle of its joints lies (the joints and head boxes of the group, and
    one head more on each side), to the one whose middle is nearer where two overlap, and does not count outside of all. The
    benchmark shows every group to the network as a picture of its own instead. Without either, every picture is one group, in
    which also people who are not annotated are wrong.

    Attributes:
        groups: what is scored.
        grouping: where the groups come from, in few words.

    Args:
        annotations, predicted, category, image_ids: see `HeadScorer`.
        groups: `groups_v12.mat` of the benchmark's evaluation toolkit, for a file of `python -m lib prepare mpii`.

    Raises:
        ValueError: of `HeadScorer`, or the groups do not belong to the file, or none does to the images.
    """

    similarity = "pckh"

    def __init__(self, annotations: str | Path, predicted: Skeleton, category: str | None = None,
                 image_ids: Iterable[int] | None = None, groups: str | Path | None = None):  # fmt: skip
        super().__init__(annotations, predicted, category, image_ids)
        if groups is not None:
            self.grouping, self.groups = f"groups of {Path(groups).name}", _from_file(self.people, annotations, groups)
        elif self.grouped:
            self.grouping, self.groups = "groups by the key `group`", _from_key(self.people)
        else:
            self.grouping = "every picture a group"
            self.groups = [Group(image_id, _with_head(people)) for image_id, people in self.people.items()]
        if not self.groups:
            raise ValueError(f"{annotations}: no group to score in its {len(self.people):,} pictures ({self.grouping})")

        self._averaged = [name for k, name in enumerate(self.keypoints)
                          if any(person.keypoints[k, 2] > 0 for group in self.groups for person in group.people)]  # fmt: skip
        self._upper = [name for row in UPPER_BODY for name in self.rows.get(row, ())]

    @property
    def card(self) -> dict:
        names = f"{len(self._averaged)} keypoints: {', '.join(self._averaged)}"
        means = {"UBody": f"mean of {', '.join(self._upper)}", "mAP+UBody": "mean of the same keypoints and UBody"}
        return super().card | {"threshold": THRESHOLD, "grouping": self.grouping, "groups": len(self.groups),
                               "people_scored": sum(len(group.people) for group in self.groups),
                               "mAP": f"mean of {names}"} | (means if self._upper else {})  # fmt: skip

    def rules(self) -> list[str]:
        """What decides the figures, in few words each."""
        means = f"mAP of {len(self._averaged)} keypoints" + " (mAP+UBody: of these and UBody)" * bool(self._upper)
        return ["MPII's AP in %", means, f"{len(self.groups)} groups ({self.grouping})", *self.remarks()]

    def __call__(self, results: Sequence[Mapping]) -> dict[str, float]:
        """The table of COCO results (keypoints of the predicting skeleton), in 0..1; NaN where nothing is labelled."""
        return self.figures(self.match(results))

    def figures(self, matches: Sequence[Mapping]) -> dict[str, float]:
        """The same of what `match` gave: every row and mAP, and where there is an upper body UBody and mAP+UBody."""
        ap = {row["keypoint"]: row["ap"] for row in self.per_keypoint(matches)}
        figures = self.by_row(list(ap.values())) | {"mAP": mean(ap.values())}
        if not self._upper:
            return figures
        upper = mean(ap[name] for name in self._upper)
        return figures | {"UBody": upper, "mAP+UBody": mean([*ap.values(), upper])}

    def match(self, results: Sequence[Mapping]) -> list[dict]:
        """Find out who is who, group by group.

        Returns:
            One dict per group: image_id, people (G), predictions (D), pckh (G,) of each true person with its partner (0 without
            one), labelled (G, K), scores (D, K) with 0 = not found, and hits (D, K).
        """
        found = self.predictions(results)
        regions: dict[int, list] = {}
        for group in self.groups:
            regions.setdefault(group.image_id, []).append(group.region)
        homes = {image_id: _homes(found[image_id][0], of_image) for image_id, of_image in regions.items()}
        mine = [found[group.image_id][0][homes[group.image_id].pop(0)] for group in self.groups]
        return [self._match_group(group, predicted) for group, predicted in zip(self.groups, mine)]

    def per_keypoint(self, matches: Sequence[Mapping]) -> list[dict]:
        """Table: keypoint, labelled and predicted (counts), recall and ap in 0..1 (NaN where not labelled)."""
        none = np.zeros((0, len(self.keypoints)))
        joined = (np.concatenate([m[key] for m in matches] + [none]) for key in ("labelled", "scores", "hits"))
        labelled, scores, hits = joined
        rows = []
        for k, name in enumerate(self.keypoints):
            there, positives = scores[:, k] > 0, int(labelled[:, k].sum())
            right = hits[there, k]
            rows.append({"keypoint": name, "labelled": positives, "predicted": int(there.sum()),
                         "recall": float(right.sum() / positives) if positives else float("nan"),
                         "ap": average_precision(scores[there, k], right, positives)})  # fmt: skip
        return rows

    def _match_group(self, group: Group, predicted: np.ndarray) -> dict:
        truth = np.array([person.keypoints for person in group.people]).reshape(-1, len(self.keypoints), 3)
        partners, hits = assign(predicted, truth, np.array([person.head for person in group.people]))
        labelled, share = truth[..., 2] > 0, np.zeros(len(truth))
        for d in np.flatnonzero(partners >= 0):
            share[partners[d]] = hits[d].sum() / labelled[partners[d]].sum()
        scores = np.where(np.isfinite(predicted).all(axis=-1), predicted[..., 2], 0)
        return {"image_id": group.image_id, "people": len(truth), "predictions": len(predicted), "pckh": share,
                "labelled": labelled, "scores": scores, "hits": hits}  # fmt: skip


def read_groups(path: str | Path) -> list[list[tuple[int, ...]]]:
    """`groups_v12.mat`: for every entry of MPII's annolist its groups, each the rectangles of its people, both from 1.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a MATLAB file, or no `groups` in it.
    """
    cells = read_mat(path).get("groups")
    if cells is None or cells.dtype != object:
        raise ValueError(f"{path}: no list `groups` in it; the file is groups_v12.mat of MPII's evaluation toolkit")
    entries = np.ravel(cells, order="F")
    return [[tuple(int(rect) for rect in np.ravel(group)) for group in np.ravel(entry)] for entry in entries]


def _with_head(people: Iterable[Labelled]) -> tuple[Labelled, ...]:
    return tuple(person for person in people if not np.isnan(person.head))


def _around(image_id: int, people: Sequence[Labelled]) -> Group:
    points = np.concatenate([person.keypoints[person.keypoints[:, 2] > 0, :2] for person in people])
    boxes = np.array([person.extras.head_box for person in people])
    points = np.concatenate([points, boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    margin = np.mean([person.head for person in people])
    return Group(image_id, tuple(people), np.concatenate([points.min(axis=0) - margin, points.max(axis=0) + margin]))


def _from_key(people: Mapping[int, Sequence[Labelled]]) -> list[Group]:
    groups: dict[tuple, list[Labelled]] = {}
    for image_id, everybody in people.items():
        for person in _with_head(everybody):
            if person.extras.group is not None:
                groups.setdefault((image_id, person.extras.group), []).append(person)
    return [_around(image_id, members) for (image_id, _), members in groups.items()]


def _from_file(people: Mapping[int, Sequence[Labelled]], annotations: str | Path, path: str | Path) -> list[Group]:
    """As the toolkit chooses them: without groups in which somebody stands apart, who belongs to the other measure."""
    listed, groups = read_groups(path), []
    for image_id, everybody in people.items():
        by_rect = {person.extras.rect: person for person in everybody}
        if None in by_rect or not 1 <= image_id <= len(listed):
            raise ValueError(f"{path} counts MPII's {len(listed):,} pictures and their rectangles, and image {image_id} of "
                             f"{annotations} is none of them; groups of your own go into the people's key `group`")  # fmt: skip
        for rects in listed[image_id - 1]:
            members = [by_rect[rect] for rect in rects if rect in by_rect]
            if _with_head(members) and not any(person.extras.single_person for person in members):
                groups.append(_around(image_id, _with_head(members)))
    return groups


def _homes(predicted: np.ndarray, regions: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """Indices of the predictions (D, K, 3) in each region; nobody is in two."""
    if any(region is None for region in regions):
        return [np.arange(len(predicted))]
    found = predicted[..., 2] > 0
    middles = (predicted[..., :2] * found[..., None]).sum(axis=1) / np.maximum(found.sum(axis=1), 1)[:, None]
    low, high = np.array(regions)[:, :2], np.array(regions)[:, 2:]
    inside = ((middles[:, None] >= low) & (middles[:, None] <= high)).all(axis=-1) & found.any(axis=1)[:, None]
    away = np.where(inside, np.linalg.norm(middles[:, None] - (low + high) / 2, axis=-1), np.inf)
    home = np.where(inside.any(axis=1), away.argmin(axis=1), -1)
    return [np.flatnonzero(home == region) for region in range(len(regions))]
