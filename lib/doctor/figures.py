"""Checks of the figures: keypoints, visibilities, boxes, areas, crowds, people annotated twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from lib.data.coco import Rle
from lib.doctor.findings import Hit
from lib.doctor.reading import Figures, Labels, as_number, numbers
from lib.skeleton import UNKNOWN_SIGMA

PIXEL = 1.0  # places and boxes may reach this far over the border: tools disagree about where a pixel begins
BOX_SLACK = (
    0.15  # a visible keypoint may lie outside its box by this share of the box's longer side; hidden ones anyway
)
FRACTION = 1.5  # a figure that is smaller than this many pixels, with three keypoints, is in fractions of the image
SAME_OKS = 0.95
CHUNK = 10_000


def keypoint_counts(labels: Labels) -> Iterator[Hit]:
    """Lengths other than 3 K; keypoints where the category names none."""
    known = labels.category_of >= 0
    needed = 3 * np.where(known, np.append(labels.num_keypoints, 0)[labels.category_of], 0)
    wrong = np.flatnonzero((labels.lengths != needed) & (labels.lengths != 0) & (needed > 0) | (labels.lengths < 0))
    if len(wrong):
        tell = lambda i: (f"{labels.lengths[wrong[i]]} numbers, {needed[wrong[i]]} needed"
                          if labels.lengths[wrong[i]] >= 0 else "keypoints is not a list")  # fmt: skip
        yield Hit("keypoint_count", wrong, tell)
    nameless = np.flatnonzero((labels.lengths > 0) & (needed == 0) & known)
    if len(nameless):
        yield Hit("keypoints_without_names", nameless, lambda i: f"{labels.lengths[nameless[i]]} numbers")


def finite(labels: Labels) -> Iterator[Hit]:
    """NaN and infinite numbers."""
    yield from _keypoints(labels, "not_finite", lambda f: np.isnan(f.keypoints).any(axis=-1))


def visibilities(labels: Labels) -> Iterator[Hit]:
    """v other than 0, 1, 2; coordinates where v = 0."""
    v = lambda f: f.keypoints[..., 2]
    yield from _keypoints(labels, "visibility", lambda f: ~np.isin(v(f), (0, 1, 2)) & ~np.isnan(v(f)),
                          lambda f, p, k: f" v = {f.keypoints[p, k, 2]:g}")  # fmt: skip
    yield from _keypoints(labels, "unlabelled_with_place", lambda f: (v(f) == 0) & f.keypoints[..., :2].any(axis=-1))


def counted(labels: Labels) -> Iterator[Hit]:
    """num_keypoints against the number with v > 0; a neck may be left out of the count, as trt_pose does."""
    given, necks = numbers(labels.column("num_keypoints")), np.zeros(len(labels.annotations), int)
    there = np.zeros(len(labels.annotations), bool)
    for group in labels.figures:
        there[group.rows] = True
        if "neck" in group.skeleton.keypoints:
            necks[group.rows] = group.labelled[:, group.skeleton.index("neck")]
    count = labels.labelled_counts
    claimed = there | ((given > 0) & (labels.lengths == 0))
    wrong = np.flatnonzero(claimed & (given != count) & (given != count - necks))
    if len(wrong):
        said = lambda row: labels.annotations[row].get("num_keypoints", "nothing")
        yield Hit("num_keypoints", wrong, lambda i: f"says {said(wrong[i])}, {count[wrong[i]]} are labelled")


def places(labels: Labels) -> Iterator[Hit]:
    """Fractions instead of pixels, 0, 0, and places outside the image."""
    tiny = (labels.extents < FRACTION).all(axis=1) & (labels.extents >= 0).all(axis=1) & (labels.labelled_counts >= 3)
    tiny &= (labels.extents[:, 2:] > labels.extents[:, :2]).any(axis=1) & (labels.image_sizes > 16).all(axis=1)
    rows = np.flatnonzero(tiny)
    if len(rows):
        yield Hit("fractions", rows, lambda i: "keypoints reach to {2:.2g}, {3:.2g}".format(*labels.extents[rows[i]]))
    yield from _keypoints(labels, "labelled_at_origin", _at_origin)
    yield from _keypoints(labels, "keypoints_outside", lambda f: _outside(f, labels.image_sizes[f.rows]),
                          lambda f, p, k: " at {:.0f}, {:.0f}".format(*f.keypoints[p, k, :2]))  # fmt: skip


def boxes_present(labels: Labels) -> Iterator[Hit]:
    """Boxes missing, malformed, without area, or given as two corners."""
    unusable, people = np.isnan(labels.boxes).any(axis=1), labels.labelled_counts > 0
    malformed = np.array([b is not None and (not isinstance(b, list) or len(b) not in (0, 4) or not _all_finite(b))
                          for b in labels.column("bbox")], bool)  # fmt: skip
    rows = np.flatnonzero(unusable & (people | malformed))
    if len(rows):
        yield Hit("box_missing", rows, lambda i: f"bbox {str(labels.annotations[rows[i]].get('bbox'))[:40]}")
    rows = _corner_boxes(labels)
    if len(rows):
        yield Hit("boxes_as_corners", rows, lambda i: f"bbox {labels.annotations[rows[i]]['bbox']}")


def boxes_fit(labels: Labels) -> Iterator[Hit]:
    """Boxes that leave the image or their keypoints."""
    corners = labels.boxes + np.pad(labels.boxes[:, :2], ((0, 0), (2, 0)))  # x0, y0, x1, y1
    over = np.maximum(-corners[:, :2], corners[:, 2:] - labels.image_sizes).max(axis=1)
    rows = np.flatnonzero(over > PIXEL)
    if len(rows):
        yield Hit("box_outside", rows, lambda i: f"reaches {over[rows[i]]:.0f} pixels out of the image")
    slack = PIXEL + BOX_SLACK * labels.boxes[:, 2:].max(axis=1)
    told = lambda f: _outside(f, labels.image_sizes[f.rows]) | _at_origin(f)
    yield from _keypoints(
        labels, "box_misses_keypoints", lambda f: _beyond(f, corners[f.rows], slack[f.rows]) & ~told(f)
    )


def areas(labels: Labels) -> Iterator[Hit]:
    """People without an area."""
    rows = np.flatnonzero(np.isnan(labels.areas) & (labels.labelled_counts > 0))
    if len(rows):
        yield Hit("area_missing", rows, lambda i: f"area {labels.annotations[rows[i]].get('area')!r}")


def crowds(labels: Labels) -> Iterator[Hit]:
    """iscrowd as true or false, and crowds whose keypoints nobody uses."""
    flags = [a.get("iscrowd", 0) for a in labels.annotations]
    odd = [row for row, flag in enumerate(flags) if type(flag) is not int or flag not in (0, 1)]
    if odd:
        yield Hit("crowd_flag", odd, lambda i: f"iscrowd is {str(flags[odd[i]])[:30]!r}")
    rows = np.flatnonzero(labels.crowds & (labels.labelled_counts > 0))
    if len(rows):
        yield Hit("crowd_with_keypoints", rows, lambda i: f"{labels.labelled_counts[rows[i]]} labelled keypoints")


def segmentations(labels: Labels) -> Iterator[Hit]:
    """Polygons and masks that cannot be read or have another size than the image."""
    column, wrong = labels.column("segmentation"), {}
    for start in range(0, len(column), CHUNK):
        if not _readable(column[start : start + CHUNK]):
            wrong |= {row: "is no list of polygons and no mask" for row in range(start, min(start + CHUNK, len(column)))
                      if not _readable(column[row : row + 1])}  # fmt: skip
    for row, value in enumerate(column):
        if isinstance(value, dict) and row not in wrong:
            (height, width), counts = value["size"], value["counts"]
            if not np.isnan(labels.image_sizes[row]).any() and [width, height] != labels.image_sizes[row].tolist():
                wrong[row] = f"its mask is {width}×{height}, its image {{:.0f}}×{{:.0f}}".format(
                    *labels.image_sizes[row]
                )
            elif isinstance(counts, list) and (min(counts, default=0) < 0 or sum(counts) != width * height):
                wrong[row] = f"its runs do not add up to {width}×{height}"
    if wrong:
        rows = sorted(wrong)
        yield Hit("segmentation", rows, lambda i: wrong[rows[i]])


def twice(labels: Labels) -> Iterator[Hit]:
    """The same person annotated again: equal keypoints, or nearly equal ones."""
    same, near = [], []
    for group in labels.figures:
        rows = np.flatnonzero((group.labelled.sum(axis=1) >= 3) & ~labels.crowds[group.rows])
        rows = rows[np.argsort(labels.image_of[group.rows[rows]], kind="stable")]
        images = labels.image_of[group.rows[rows]]
        step = 1
        while (pairs := np.flatnonzero((images[step:] == images[:-step]) & (images[step:] >= 0))).size:
            first, second = rows[pairs], rows[pairs + step]
            equal = (np.nan_to_num(group.keypoints[first]) == np.nan_to_num(group.keypoints[second])).all(axis=(1, 2))
            close = _closeness(group, first, second) > SAME_OKS
            same += zip(group.rows[second[equal]], group.rows[first[equal]])
            near += zip(group.rows[second[close & ~equal]], group.rows[first[close & ~equal]])
            step += 1
    for code, pairs in (("person_twice", same), ("person_nearly_twice", near)):
        told = {row: other for row, other in sorted(pairs)}
        if told:
            rows, others = list(told), list(told.values())
            ids = [labels.annotations[other].get("id") for other in others]
            yield Hit(code, rows, lambda i, ids=ids: f"as annotation {ids[i]}", others=others)


def _keypoints(labels: Labels, code: str, wrong: Callable[[Figures], np.ndarray],
               detail: Callable[[Figures, int, int], str] = lambda f, p, k: "") -> Iterator[Hit]:  # fmt: skip
    """One hit for the annotations in which `wrong` (P, K) is true of a keypoint; the first of them is described."""
    found = []
    for group in labels.figures:
        mask = wrong(group)
        found += [(group, int(p), mask[p]) for p in np.flatnonzero(mask.any(axis=1))]
    if not found:
        return
    marks = lambda i: np.flatnonzero(found[i][2]).tolist()

    def tell(i: int) -> str:
        group, p, _ = found[i]
        names = [group.skeleton.keypoints[k] for k in marks(i)]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return f"{names[0]}{detail(group, p, marks(i)[0])}{more}"

    yield Hit(code, [group.rows[p] for group, p, _ in found], tell, marks)


def _at_origin(group: Figures) -> np.ndarray:
    return group.labelled & ~group.keypoints[..., :2].any(axis=-1)


def _outside(group: Figures, sizes: np.ndarray) -> np.ndarray:
    points = group.keypoints[..., :2]
    with np.errstate(invalid="ignore"):
        return group.labelled & ((points < -PIXEL) | (points > sizes[:, None] - 1 + PIXEL)).any(axis=-1)


def _beyond(group: Figures, corners: np.ndarray, slack: np.ndarray) -> np.ndarray:
    points, slack = group.keypoints[..., :2], slack[:, None, None]
    low, high = corners[:, None, :2] - slack, corners[:, None, 2:] + slack
    return (group.keypoints[..., 2] == 2) & ((points < low) | (points > high)).any(axis=-1)


def _closeness(group: Figures, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """OKS of pairs over the keypoints that both have, with one sigma for all; 0 where they share less than half."""
    common = group.labelled[first] & group.labelled[second]
    most = np.maximum(group.labelled[first].sum(axis=1), group.labelled[second].sum(axis=1))
    size2 = ((group.extents[first, 2:] - group.extents[first, :2]) ** 2).sum(axis=1)
    distance2 = ((group.keypoints[first, :, :2] - group.keypoints[second, :, :2]) ** 2).sum(axis=-1)
    terms = np.exp(-distance2 / (2 * (2 * UNKNOWN_SIGMA) ** 2 * np.maximum(size2, 1)[:, None]))
    count = common.sum(axis=1)
    return np.where(2 * count > most, np.where(common, terms, 0).sum(axis=1) / np.maximum(count, 1), 0)


def _corner_boxes(labels: Labels) -> np.ndarray:
    """Rows of boxes which make sense as corners only: x1 > x0 and y1 > y0 always, and as sizes they leave the image."""
    boxes, sizes = labels.boxes, labels.image_sizes
    rows = np.flatnonzero(~np.isnan(boxes).any(axis=1) & ~np.isnan(sizes).any(axis=1))
    low, high = boxes[rows, :2], boxes[rows, 2:]
    leave = (low + high > sizes[rows] + PIXEL).any(axis=1)
    corners = (high > low).all() and (high <= sizes[rows] + PIXEL).all()
    return rows if len(rows) >= 5 and corners and leave.mean() > 0.2 else rows[:0]


def _readable(values: list) -> bool:
    try:
        values = msgspec.convert(values, list[list[list[float]] | Rle | None])
    except msgspec.ValidationError:
        return False
    return not any(len(polygon) % 2 for value in values if isinstance(value, list) for polygon in value)


def _all_finite(values: list) -> bool:
    return all(np.isfinite(as_number(value)) for value in values)
