"""The labels of a COCO file as plain arrays, which `lib.data.index` keeps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import msgspec
import numpy as np

from lib.data.coco import Annotation, CocoFile, Rle, no_garbage_collection


@no_garbage_collection()
def arrays_of(coco: CocoFile) -> dict[str, np.ndarray]:
    """Of a file that has been checked, the arrays of `LabelIndex` by name; ValueError for a number too large for them."""
    places = {image.id: i for i, image in enumerate(coco.images)}
    try:
        owner = np.fromiter((places[a.image_id] for a in coco.annotations), np.int64, len(coco.annotations))
        order = np.argsort(owner, kind="stable").tolist()
        people = [coco.annotations[i] for i in order]
        counts = np.bincount(owner, minlength=len(coco.images))
        names, name_first = _ragged([image.file_name.encode() for image in coco.images], np.uint8)
        return {
            "image_ids": np.array([image.id for image in coco.images], np.int64),
            "sizes": np.array([(image.height, image.width) for image in coco.images], np.int32).reshape(-1, 2),
            "first": np.concatenate([[0], counts.cumsum()]).astype(np.int64),
            "names": names,
            "name_first": name_first,
            **_columns(people),
            **_keypoints(people),
            **_regions(people),
        }
    except OverflowError as error:
        raise ValueError(f"{coco.source}: a number in it is too large: {error}") from None


def _columns(people: Sequence[Annotation]) -> dict[str, np.ndarray]:
    nothing = [np.nan] * 4
    return {
        "ids": np.array([a.id for a in people], np.int64),
        "category_ids": np.array([a.category_id for a in people], np.int64),
        "boxes": np.array([a.bbox or nothing for a in people], np.float64).reshape(-1, 4),
        "areas": np.array([a.area or 0 for a in people], np.float64),
        "iscrowd": np.array([bool(a.iscrowd) for a in people], bool),
    }


def _keypoints(people: Sequence[Annotation]) -> dict[str, np.ndarray]:
    values, first = _ragged([a.keypoints or () for a in people], np.float64)
    owner = np.repeat(np.arange(len(people)), np.diff(first) // 3)
    labelled = np.bincount(owner[values[2::3] > 0], minlength=len(people)).astype(np.int32)
    given = np.array([-1 if a.num_keypoints is msgspec.UNSET else a.num_keypoints for a in people], np.int32)
    with np.errstate(over="ignore"):
        short = values.astype(np.float32)
    return {
        # whole and half pixels fit into half the space
        "keypoint_values": short if np.array_equal(short, values) else values,
        "keypoint_first": first,
        "labelled": labelled,
        "num_keypoints": np.where(given < 0, labelled, given),
    }


def _regions(people: Sequence[Annotation]) -> dict[str, np.ndarray]:
    """Polygons in two steps, an annotation's parts and a part's numbers; masks as runs, however they were written."""
    masks = [a.segmentation if isinstance(a.segmentation, Rle) else None for a in people]
    parts = [[p for p in a.segmentation or () if p] if mask is None else () for a, mask in zip(people, masks)]
    polygons, part_first = list(chain.from_iterable(parts)), _offsets(parts)
    polygon_values, polygon_first = _ragged(polygons, np.float32)
    runs, run_first = _ragged([() if mask is None else _run_lengths(mask) for mask in masks], np.int64)
    return {
        "polygon_values": polygon_values,
        "polygon_first": polygon_first,
        "part_first": part_first,
        # no picture has runs as long as that: whoever adds them up will notice
        "run_values": runs.clip(-1, 2**31 - 1).astype(np.int32),
        "run_first": run_first,
        "region_sizes": np.array([(-1, -1) if mask is None else mask.size for mask in masks], np.int32).reshape(-1, 2),
    }


def _run_lengths(rle: Rle) -> list[int]:
    """COCO's string holds five bits a character, low ones first, of the difference to the run before the last."""
    if not isinstance(rle.counts, str):
        return rle.counts
    code = np.frombuffer(rle.counts.encode(), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(code & 32 == 0)
    if not len(last):
        return []
    first = np.concatenate([[0], last[:-1] + 1])
    length = np.minimum(last - first + 1, 12)
    place = np.arange(last[-1] + 1) - np.repeat(first, last - first + 1)
    runs = np.add.reduceat((code[: last[-1] + 1] & 31) << 5 * np.minimum(place, 12), first)
    runs -= np.where(code[last] & 16, 1 << 5 * length, 0)
    for start in (1, 2):
        runs[start::2] = runs[start::2].cumsum()
    return runs.tolist()


def _offsets(lists: Sequence[Sequence]) -> np.ndarray:
    return np.concatenate([[0], np.fromiter(map(len, lists), np.int64, len(lists)).cumsum()]).astype(np.int64)


def _ragged(lists: Sequence[Sequence], dtype) -> tuple[np.ndarray, np.ndarray]:
    first = _offsets(lists)
    return np.fromiter(chain.from_iterable(lists), dtype, int(first[-1])), first
