"""Checks of the figures: keypoints, visibilities, boxes, areas, crowds, people annotated twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from lib.data.coco import Rle
from lib.doctor.findings import Hit, told, where
from lib.doctor.reading import Figures, Labels, as_number, numbers
from lib.skeleton import UNKNOWN_SIGMA

PIXEL = 1.0  # places and boxes may reach this far over the border: tools disagree about where a pixel begins
BOX_SLACK = 0.15  # a visible keypoint may lie so far outside its box, of the box's longer side; hidden ones anyway
FRACTION = 1.5  # a figure that is smaller than this many pixels, with three keypoints, is in fractions of the image
SAME_OKS = 0.95
CHUNK = 10_000


def keypoint_counts(labels: Labels) -> Iterator[Hit]:
    """Lengths other than 3 K; keypoints where the category names none."""
    known = labels.category_of >= 0
    needed = 3 * np.where(known, np.append(labels.num_keypoints, 0)[labels.category_of], 0)
    wrong = (labels.lengths != needed) & (labels.lengths != 0) & (needed > 0) | (labels.lengths < 0)
    said = lambda row: f"{labels.lengths[row]} numbers, {needed[row]} needed" if labels.lengths[row] >= 0 else "no list"
    yield from where("keypoint_count", wrong, said)
    nameless = (labels.lengths > 0) & (needed == 0) & known
    yield from where("keypoints_without_names", nameless, lambda row: f"{labels.lengths[row]} numbers")


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
    said = lambda row: f"says {labels.annotations[row].get('num_keypoints', 'nothing')}, {count[row]} are labelled"
    yield from where("num_keypoints", claimed & (given != count) & (given != count - necks), said)


def places(labels: Labels) -> Iterator[Hit]:
    """Fractions instead of pixels, 0, 0, and places outside the image."""
    tiny = (labels.extents < FRACTION).all(axis=1) & (labels.extents >= 0).all(axis=1) & (labels.labelled_counts >= 3)
    tiny &= (labels.extents[:, 2:] > labels.extents[:, :2]).any(axis=1) & (labels.image_sizes > 16).all(axis=1)
    yield from where("fractions", tiny, lambda row: "keypoints reach to {2:.2g}, {3:.2g}".format(*labels.extents[row]))
    yield from _keypoints(labels, "labelled_at_origin", _at_origin)
    if not labels.apart.any():
        yield from _keypoints(labels, "keypoints_outside", lambda f: _outside(f, labels.image_sizes[f.rows]),
                              lambda f, p, k: " at {:.0f}, {:.0f}".format(*f.keypoints[p, k, :2]))  # fmt: skip


def boxes_present(labels: Labels) -> Iterator[Hit]:
    """Boxes missing, malformed, without area, or given as two corners."""
    unusable, people = np.isnan(labels.boxes).any(axis=1), labels.labelled_counts > 0
    boxes = [annotation.get("bbox", []) for annotation in labels.annotations]
    malformed = np.array([not isinstance(b, list) or len(b) not in (0, 4) or not _all_finite(b) for b in boxes], bool)
    said = lambda row: f"bbox {str(labels.annotations[row].get('bbox'))[:40]}"
    yield from where("box_missing", unusable & (people | malformed), said)
    yield from where("boxes_as_corners", _corner_boxes(labels), said)


def boxes_fit(labels: Labels) -> Iterator[Hit]:
    """Boxes that leave the image or their keypoints."""
    corners = labels.boxes + np.pad(labels.boxes[:, :2], ((0, 0), (2, 0)))  # x0, y0, x1, y1
    over = np.maximum(-corners[:, :2], corners[:, 2:] - labels.image_sizes).max(axis=1)
    yield from where("box_outside", over > PIXEL, lambda row: f"reaches {over[row]:.0f} pixels out of the image")
    yield from where("boxes_apart", labels.apart, lambda row: _beside(labels.boxes[row], labels.extents[row]))
    if labels.apart.any():
        return
    slack = PIXEL + BOX_SLACK * labels.boxes[:, 2:].max(axis=1)
    told = lambda f: _outside(f, labels.image_sizes[f.rows]) | _at_origin(f)
    missed = lambda f: _beyond(f, corners[f.rows], slack[f.rows]) & ~told(f)
    yield from _keypoints(labels, "box_misses_keypoints", missed)


def _beside(box: np.ndarray, extent: np.ndarray) -> str:
    (x, y), (u, v) = box[:2] + box[2:] / 2, (extent[:2] + extent[2:]) / 2
    turned = 2 * abs(v - x) < box[2] and 2 * abs(u - y) < box[3]
    return f"box at {x:.3g}, {y:.3g}, keypoints at {u:.3g}, {v:.3g}" + "; x, y exchanged?" * bool(turned)


def areas(labels: Labels) -> Iterator[Hit]:
    """People without an area."""
    values = [annotation.get("area", 0) for annotation in labels.annotations]
    missing = np.isnan(labels.areas) & (labels.labelled_counts > 0) | ~np.isfinite(numbers(values))
    yield from where("area_missing", missing, lambda row: f"area {labels.annotations[row].get('area')!r}")


def crowds(labels: Labels) -> Iterator[Hit]:
    """iscrowd as true or false, and crowds whose keypoints nobody uses."""
    flags = [a.get("iscrowd", 0) for a in labels.annotations]
    odd = np.array([type(flag) is not int or flag not in (0, 1) for flag in flags], bool)
    yield from where("crowd_flag", odd, lambda row: f"iscrowd is {str(flags[row])[:30]!r}")
    people = labels.crowds & (labels.labelled_counts > 0)
    yield from where("crowd_with_keypoints", people, lambda row: f"{labels.labelled_counts[row]} labelled keypoints")


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
    yield from told("segmentation", wrong)


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
        of = dict(sorted(pairs))
        said = {row: f"as annotation {labels.annotations[other].get('id')}" for row, other in of.items()}
        yield from told(code, said, list(of.values()))


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
    """(A,) bool: boxes that make sense as corners only: x1 > x0 and y1 > y0 always, and as sizes they leave the image."""
    known = ~np.isnan(labels.boxes).any(axis=1) & ~np.isnan(labels.image_sizes).any(axis=1)
    low, high, sizes = labels.boxes[known, :2], labels.boxes[known, 2:], labels.image_sizes[known] + PIXEL
    corners = known.sum() >= 5 and (high > low).all() and (high <= sizes).all()
    return known & bool(corners and (low + high > sizes).any(axis=1).mean() > 0.2)


def _readable(values: list) -> bool:
    try:
        values = msgspec.convert(values, list[list[list[float]] | Rle | None])
    except msgspec.ValidationError:
        return False
    return not any(len(polygon) % 2 for value in values if isinstance(value, list) for polygon in value)


def _all_finite(values: list) -> bool:
    return all(np.isfinite(as_number(value)) for value in values)
