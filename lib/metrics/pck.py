"""PCK: the share of annotated keypoints that were found within a share of the person's size.

Source: Yang and Ramanan, Articulated Human Detection with Flexible Mixtures of Parts, TPAMI 2013. There the size is the longer
side of the person's box. With the head as the size it is PCKh (`lib.metrics.pckh`), whose rules hold here, too: what was not
found is wrong, and the total counts the keypoints of all people together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lib.metrics.coco import CocoScorer
from lib.metrics.pckh import area, shares

THRESHOLD = 0.2
THRESHOLDS = np.linspace(0, THRESHOLD, 41)  # of the curve, in sizes


def pck_curves(scorer: CocoScorer, matches: Sequence[Mapping]) -> dict[str, np.ndarray]:
    """PCK (T,) at `THRESHOLDS` of every keypoint, and "Total", in 0..1; NaN where nothing is labelled.

    Args:
        scorer: whose people count; those without a box have no size and are left out.
        matches: what `scorer.match` says: pairs as many and as similar as possible.
    """
    errors = [np.zeros((0, len(scorer.keypoints)))]
    for found in matches:
        rows = [a for a in scorer.figures.get(found["image_id"], ()) if not a["ignore"]]
        sizes = np.array([max(a["bbox"][2:]) for a in rows], float)
        errors.append(found["error"][sizes > 0] / sizes[sizes > 0, None])
    at = [shares(np.concatenate(errors), threshold) for threshold in THRESHOLDS]
    curves = {name: np.array([found.keypoints[k] for found in at]) for k, name in enumerate(scorer.keypoints)}
    return curves | {"Total": np.array([found.total for found in at])}


def pck_table(curves: Mapping[str, np.ndarray]) -> dict[str, float]:
    """PCK@0.05, @0.1 and @0.2 of all keypoints, and the area under that curve."""
    total = curves["Total"]
    at = {f"PCK@{t:g}": float(np.interp(t, THRESHOLDS, total)) for t in (0.05, 0.1, THRESHOLD)}
    return at | {"AUC": area(total, THRESHOLDS)}
