"""PCK: the share of annotated keypoints that were found within a share of the person's size.

Source: Yang and Ramanan, Articulated Human Detection with Flexible Mixtures of Parts, TPAMI 2013. There the size is the longer
side of the person's box. With the head as the size it is PCKh (`lib.metrics.pckh`), whose rules hold here, too: what was not
found is wrong, and the total counts the keypoints of all people together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lib.metrics.coco import CocoScorer
from lib.metrics.heads import head_errors
from lib.metrics.pckh import Pckh, area, shares

THRESHOLD = 0.2
THRESHOLDS = np.linspace(0, THRESHOLD, 41)  # of the curve, in sizes


def pck(predicted: np.ndarray, truth: np.ndarray, sizes: np.ndarray, threshold: float = THRESHOLD) -> Pckh:
    """PCK of people who were predicted one by one.

    Args:
        predicted: (P, K, 3) pixels and score; 0 = not found.
        truth: (P, K, 3) pixels and visibility; 0 = not labelled.
        sizes: (P,) pixels, for example `box_sizes`.
        threshold: in sizes; a keypoint exactly there is still correct.

    Raises:
        ValueError: a size is not above 0.
    """
    if not (np.asarray(sizes) > 0).all():
        raise ValueError(f"sizes are pixels above 0, got {np.asarray(sizes)[~(np.asarray(sizes) > 0)].ravel()[0]}")
    return shares(head_errors(np.asarray(predicted), np.asarray(truth), np.asarray(sizes)), threshold)


def box_sizes(boxes: np.ndarray) -> np.ndarray:
    """(P,) longer sides of boxes (P, 4) [x, y, width, height]."""
    return np.asarray(boxes, float).reshape(-1, 4)[:, 2:].max(axis=1)


def pck_curves(scorer: CocoScorer, matches: Sequence[Mapping]) -> dict[str, np.ndarray]:
    """PCK (T,) at `THRESHOLDS` of every keypoint, and "Total", in 0..1; NaN where nothing is labelled.

    Args:
        scorer: whose people count; those without a box have no size and are left out.
        matches: what `scorer.match` says: pairs as many and as similar as possible.
    """
    errors = [np.zeros((0, len(scorer.keypoints)))]
    for found in matches:
        rows = [a for a in scorer.figures.get(found["image_id"], ()) if not a["ignore"]]
        sizes = box_sizes([a["bbox"] for a in rows])
        errors.append(found["error"][sizes > 0] / sizes[sizes > 0, None])
    at = [shares(np.concatenate(errors), threshold) for threshold in THRESHOLDS]
    curves = {name: np.array([found.keypoints[k] for found in at]) for k, name in enumerate(scorer.keypoints)}
    return curves | {"Total": np.array([found.total for found in at])}


def pck_table(curves: Mapping[str, np.ndarray]) -> dict[str, float]:
    """PCK@0.05, @0.1 and @0.2 of all keypoints, and the area under that curve."""
    total = curves["Total"]
    at = {f"PCK@{t:g}": float(np.interp(t, THRESHOLDS, total)) for t in (0.05, 0.1, THRESHOLD)}
    return at | {"AUC": area(total, THRESHOLDS)}
