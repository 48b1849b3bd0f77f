"""Scenes of people with head boxes, and MPII's two measures once more: written from their description, plainly, in loops."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from lib.skeleton import MPII14, Skeleton

HEAD_BOX = [0, 0, 30, 40]
"""0.6 × its diagonal is 30: half a head are 15 pixels."""


def person(places: dict[str, tuple], skeleton: Skeleton, **extras) -> dict:
    """An annotation with these joints {name: (x, y)}; its head is 30 pixels long unless `head_box` says otherwise."""
    keypoints = [number for name in skeleton.keypoints for number in (*places.get(name, (0, 0)), 2 * (name in places))]
    return {"keypoints": keypoints, "num_keypoints": len(places), "head_box": HEAD_BOX, "area": 1000} | extras


def write_file(path: Path, images: list[list[dict]], skeleton: Skeleton = MPII14, ids: list[int] | None = None) -> Path:
    """A COCO file with one image for each list of people; images count from 1 unless `ids` says otherwise."""
    ids = ids or list(range(1, len(images) + 1))
    annotations = [
        {"id": 100 * image_id + p, "image_id": image_id, "category_id": 1, "iscrowd": 0, **a}
        for image_id, people in zip(ids, images)
        for p, a in enumerate(people)
    ]
    listed = [{"id": i, "file_name": f"{i}.jpg", "width": 800, "height": 600} for i in ids]
    path.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": [skeleton.to_coco()]}))
    return path


def found(image_id: int, places: dict[str, tuple], skeleton: Skeleton = MPII14, score: float = 1.0) -> dict:
    """A COCO result with these joints {name: (x, y) or (x, y, score)}."""
    keypoints = []
    for name in skeleton.keypoints:
        place = places.get(name, (0, 0, 0))
        keypoints += [*place[:2], place[2] if len(place) == 3 else 1.0]
    return {"image_id": image_id, "category_id": 1, "keypoints": keypoints, "score": score}


def random_scene(rng: np.random.Generator, joints: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Up to four true people in a crowd, and who was found of them: joints missing, places off, people doubled or invented.

    Places are whole pixels and heads 10, so that distances of just half a head occur.

    Returns:
        predicted (D, K, 3), truth (G, K, 3), heads (G,).
    """
    truth = np.concatenate([rng.integers(0, 30, (rng.integers(0, 5), joints, 2)), np.zeros((0, joints, 2))]).astype(float)
    labelled = rng.random(truth.shape[:2]) < 0.8
    labelled[:, 0] |= ~labelled.any(axis=1)
    truth = np.concatenate([truth, 2.0 * labelled[..., None]], axis=2)
    predicted = []
    for g in rng.integers(0, max(len(truth), 1), rng.integers(0, 6)):
        near = truth[g, :, :2] if len(truth) and rng.random() < 0.8 else rng.integers(0, 30, (joints, 2))
        places = near + rng.integers(-5, 6, (joints, 2)) * (rng.random((joints, 1)) < 0.7)
        # few different scores, so that many are equal
        scores = rng.integers(1, 5, joints) / 4 * (rng.random(joints) < 0.8)
        predicted.append(np.column_stack([places, scores]))
    return np.array(predicted).reshape(-1, joints, 3), truth, np.full(len(truth), 10.0)


def plain_ap(scenes: list[tuple], threshold: float = 0.5) -> list[float]:
    """AP of each joint of groups [(predicted, truth, heads), …], as the benchmark describes it."""
    joints = scenes[0][0].shape[1]
    detections: list[list[tuple[float, bool]]] = [[] for _ in range(joints)]
    to_find = [0] * joints
    for predicted, truth, heads in scenes:
        for person in truth:
            for k in range(joints):
                to_find[k] += person[k][2] > 0
        partner_of = _plain_partners(predicted, truth, heads, threshold)
        for d, p in enumerate(predicted):
            for k in range(joints):
                if p[k][2] > 0:
                    g = partner_of.get(d)
                    detections[k].append((p[k][2], g is not None and _right(p[k], truth[g][k], heads[g], threshold)))
    return [_plain_interpolated(detections[k], to_find[k]) for k in range(joints)]


def plain_pckh(predicted: np.ndarray, truth: np.ndarray, heads: np.ndarray, threshold: float) -> tuple[list[float], float]:
    """Share of each joint and of all, of people who were predicted one by one."""
    right, of = [0] * truth.shape[1], [0] * truth.shape[1]
    for p, t, head in zip(predicted, truth, heads):
        for k in range(len(t)):
            if t[k][2] > 0:
                of[k] += 1
                right[k] += p[k][2] > 0 and _right(p[k], t[k], head, threshold)
    shares = [a / b if b else math.nan for a, b in zip(right, of)]
    return shares, sum(right) / sum(of) if sum(of) else math.nan


def _right(joint, true_joint, head: float, threshold: float) -> bool:
    return true_joint[2] > 0 and math.dist(joint[:2], true_joint[:2]) / head <= threshold


def _plain_partners(predicted, truth, heads, threshold: float) -> dict[int, int]:
    """{prediction: its true person}."""
    liked: dict[int, list[tuple[float, int]]] = {}
    for d, p in enumerate(predicted):
        best, best_share = None, -1.0
        for g, t in enumerate(truth):
            annotated = [k for k in range(len(t)) if t[k][2] > 0]
            share = sum(p[k][2] > 0 and _right(p[k], t[k], heads[g], threshold) for k in annotated) / len(annotated)
            if share > best_share:
                best, best_share = g, share
        if best_share > 0:
            liked.setdefault(best, []).append((best_share, d))
    return {max(candidates, key=lambda c: (c[0], -c[1]))[1]: g for g, candidates in liked.items()}


def _plain_interpolated(detections: list[tuple[float, bool]], to_find: int) -> float:
    """Every right one raises the recall by one step; each step counts with the best precision at or behind it."""
    if not to_find:
        return math.nan
    ranked = sorted(detections, key=lambda detection: -detection[0])
    precision_at_step = []
    for n, (_, right) in enumerate(ranked, 1):
        if right:
            precision_at_step.append((len(precision_at_step) + 1) / n)
    return sum(max(precision_at_step[step:]) for step in range(len(precision_at_step))) / to_find
