"""Whatever a tool calls COCO becomes a file that `check_coco` accepts, and every change is counted.

A box that is missing or empty is laid around the mask, or else around the labelled keypoints with a margin of a tenth of
the longer side (at least 5 pixels). An area that is missing or 0 is the mask's, or else 0.53 times the box: OKS divides
by it, and trainers leave out what has none. 0.53 is MMPose's figure for COCO people.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from pycocotools import mask as coco_mask

from lib.data.coco import Annotation, Category, CocoFile, Image, Rle, check_coco, no_garbage_collection
from lib.exchange.changes import Changes
from lib.exchange.names import unique
from lib.exchange.pictures import file_names, picture_size

MARGIN, MIN_MARGIN, AREA_OF_BOX = 0.1, 5, 0.53
LARGEST_ID = 2**53  # beyond, JavaScript tools round

Row = dict[str, Any]


@no_garbage_collection()
def normalise(raw: Row, source: str, changes: Changes, images: Path | None = None) -> CocoFile:
    """Turn decoded COCO-like JSON into a CocoFile.

    Args:
        raw: `images`, `annotations` and `categories`, as lists of objects.
        source: what errors call the file.
        changes: every rule that was applied is added.
        images: folder of the pictures, to find them under their names and to fill in sizes.

    Raises:
        ValueError: no COCO lists; an id that stands for two images or two categories; an image without a size.
    """
    for what in ("images", "annotations", "categories"):
        rows = raw.get(what)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"{source}: not a COCO file, it has no list of objects {what!r}")
    used, used_categories = (
        {_plain(row.get(key)) for row in raw["annotations"]} for key in ("image_id", "category_id")
    )
    pictures = _images(raw["images"], used, source, changes, images)
    categories = _categories(raw["categories"], used_categories, source, changes)
    annotations = []
    for number, row in zip(_numbers(raw["annotations"], "annotation", source, changes), raw["annotations"]):
        where = f"annotation {row.get('id')}"
        image, category = pictures.get(_plain(row.get("image_id"))), categories.get(_plain(row.get("category_id")))
        if image is None or category is None:
            which = "image_id" if image is None else "category_id"
            changes.add(f"annotation with an unknown {which} left out", f"{where}, {row.get(which)}", "severe")
            continue
        annotation = _annotation(row, number, image, category, changes, where)
        if annotation is not None:
            annotations.append(annotation)
    for what, kind in (("images", Image), ("annotations", Annotation), ("categories", Category)):
        _say_what_is_left_out(raw[what], kind, changes)
    info, licenses = (raw.get(what, UNSET) for what in ("info", "licenses"))
    coco = CocoFile(list(pictures.values()), annotations, list(categories.values()), info, licenses)
    coco.source = source
    check_coco(coco)
    return coco


def _plain(value) -> Any:
    """An id as a key: 7, 7.0 and "7" are the same."""
    try:
        return int(value) if float(value).is_integer() else str(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)


def _numbers(rows: list[Row], what: str, source: str, changes: Changes) -> list[int]:
    """Ids from 1, unique and whole: the file's own where they are, else all are numbered anew."""
    ids = [row.get("id") for row in rows]
    plain = [_plain(i) for i in ids]
    if len(set(plain)) < len(plain) and what != "annotation":
        twice = next(i for k, i in enumerate(plain) if i in plain[:k])
        raise ValueError(f"{source}: two {what} entries have the id {twice}: nobody can tell which one is meant")
    if any(not isinstance(i, int) or isinstance(i, bool) for i in ids):
        changes.add(f"{what} id that is not a whole number", next(i for i in ids if type(i) is not int))
    if len(set(plain)) == len(plain) and all(isinstance(i, int) and 1 <= i < LARGEST_ID for i in plain):
        return plain
    new = list(range(1, len(rows) + 1))
    first = next((k for k in new if plain[k - 1] != k), 1)
    changes.add(f"{what} ids numbered anew from 1", f"{ids[first - 1]} → {first}", count=len(rows))
    return new


def _images(rows: list[Row], used: set, source: str, changes: Changes, folder: Path | None) -> dict[Any, Image]:
    rows = _without_copies(rows, "image", changes)
    pictures = {}
    names = file_names(rows, changes, folder)
    for number, row, name in zip(_numbers(rows, "image", source, changes), rows, names):
        size = [_whole(row.get(side)) for side in ("width", "height")]
        if not all(side and side > 0 for side in size):
            size = picture_size(folder, name) if folder else None
            if not size and _plain(row.get("id")) not in used:
                changes.add(
                    "image without annotations and without a size left out: --images FOLDER keeps it", name, "warning"
                )
                continue
            if not size:
                raise ValueError(f"{source}: image {row.get('id')} ({name}) is given as {row.get('width')}×"
                                 f"{row.get('height')} pixels: say --images FOLDER, so that its size can be read")  # fmt: skip
            changes.add("size of an image read from the picture", f"{name}: {size[0]}×{size[1]}")
        date = row.get("date_captured", UNSET)
        if isinstance(date, dict):
            date = _date(date)
            changes.add("date_captured in MongoDB's writing", f"{row['date_captured']} → {date}")
        more = {key: row[key] for key in ("license", "coco_url", "flickr_url") if key in row}
        pictures[_plain(row.get("id"))] = Image(number, name, *size, date_captured=date, **more)
    return pictures


def _without_copies(rows: list[Row], what: str, changes: Changes) -> list[Row]:
    kept: list[Row] = []
    by_id: dict[Any, Row] = {}
    for row in rows:
        if by_id.setdefault(_plain(row.get("id")), row) is row:
            kept.append(row)
        elif by_id[_plain(row.get("id"))] != row:
            kept.append(row)  # two things under one id: `_numbers` says so
        else:
            changes.add(f"{what} entry that stands there twice", f"id {row.get('id')}")
    return kept


def _date(date: dict) -> str:
    """MongoDB's {"$date": milliseconds, {"$numberLong": …} or text} as ISO 8601."""
    value = date.get("$date")
    value = value.get("$numberLong") if isinstance(value, dict) else value
    try:
        return str(np.datetime64(int(value), "ms")) + "Z"
    except (TypeError, ValueError):
        return str(value)


def _categories(rows: list[Row], used: set, source: str, changes: Changes) -> dict[Any, Category]:
    rows = _without_copies(rows, "category", changes)
    kept = []
    for row in rows:
        if row.get("keypoints") or _plain(row.get("id")) in used:
            kept.append(row)
        else:
            changes.add(
                "category without keypoints and annotations left out", f"{row.get('name')!r}, id {row.get('id')}"
            )
    names = [str(row.get("name") or f"category_{row.get('id')}").strip() for row in kept]
    for name, new in zip(names, unique(names)):
        if name != new:
            changes.add("two categories of one name", f"{name!r}, the second is now {new!r}", "severe")
    categories = {}
    for number, row, name in zip(_numbers(kept, "category", source, changes), kept, unique(names)):
        categories[_plain(row.get("id"))] = _category(row, number, name, changes)
    return categories


def _category(row: Row, number: int, name: str, changes: Changes) -> Category:
    category = Category(number, name, row.get("supercategory", UNSET))
    if not row.get("keypoints"):
        changes.add("category without keypoints", repr(name), "note")
        return category
    given = [str(keypoint).strip() or f"keypoint_{k}" for k, keypoint in enumerate(row["keypoints"], 1)]
    category.keypoints = unique(given)
    if category.keypoints != row["keypoints"]:
        pair = next((a, b) for a, b in zip(row["keypoints"], category.keypoints) if a != b)
        changes.add("keypoint names trimmed or made unique", f"{pair[0]!r} → {pair[1]!r} in {name!r}", "warning")
    category.skeleton = _links(row.get("skeleton"), len(given), name, changes)
    sigmas = row.get("sigmas")
    if sigmas:
        if len(sigmas) == len(given) and all((_number(s) or 0) > 0 for s in sigmas):
            category.sigmas = sigmas
        else:
            changes.add("sigmas that do not fit the keypoints left out", f"{len(sigmas)} in {name!r}", "warning")
    return category


def _links(skeleton: Any, k: int, name: str, changes: Changes) -> list[tuple[int, int]]:
    given = [tuple(map(_whole, link)) if isinstance(link, list | tuple) else () for link in skeleton or ()]
    shift = int(any(0 in link for link in given))
    if skeleton is None:
        changes.add("category without a skeleton: no links", repr(name), "warning")
    elif shift:
        changes.add("links counted from 0: counted from 1 now", f"{list(given[0])} in {name!r}", "warning")
    links: dict[frozenset, tuple[int, int]] = {}
    for link in given:
        ends = frozenset(end + shift for end in link if end is not None)
        if len(link) == len(ends) == 2 and all(1 <= end <= k for end in ends) and ends not in links:
            links[ends] = link[0] + shift, link[1] + shift
        else:
            changes.add("link left out: repeated, or not between two keypoints", f"{list(link)} in {name!r}", "warning")
    return list(links.values())


def _annotation(
    row: Row, number: int, image: Image, category: Category, changes: Changes, where: str
) -> Annotation | None:
    a = Annotation(number, image.id, category.id)
    crowd = row.get("iscrowd", 0)
    a.iscrowd = int(bool(_number(crowd)))
    if type(crowd) is not int or crowd not in (0, 1):
        changes.add("iscrowd that is not 0 or 1", f"{where}, {crowd} → {a.iscrowd}")
    positions = _keypoints(row, a, category, changes, where)
    a.segmentation = _segmentation(row.get("segmentation"), changes, where)
    mask = _as_rle(a.segmentation, image)
    box = row.get("bbox")
    if isinstance(box, list) and len(box) == 4 and all(_number(v) is not None for v in box) and min(box[2:]) > 0:
        a.bbox = box
    elif mask is not None or len(positions):
        a.bbox = [float(v) for v in coco_mask.toBbox(mask)] if mask is not None else _box_around(positions, image)
        how = "mask" if mask is not None else "labelled keypoints, with a margin"
        changes.add(f"box missing or empty: laid around the {how}", f"{where}, {box} → {a.bbox}")
    else:
        changes.add("annotation without keypoints, box and mask left out", where, "warning")
        return None
    area = _number(row.get("area"))
    if area is not None and area > 0:
        a.area = area
    else:
        a.area = float(coco_mask.area(mask)) if mask is not None else round(AREA_OF_BOX * a.bbox[2] * a.bbox[3], 2)
        how = "the mask's" if mask is not None else f"{AREA_OF_BOX} of the box"
        changes.add(f"area missing or 0: {how}", f"{where}, {row.get('area')} → {a.area}")
    return a


def _keypoints(row: Row, a: Annotation, category: Category, changes: Changes, where: str) -> np.ndarray:
    """Set `keypoints` and `num_keypoints`; returns the positions (n, 2) that a box may be laid around."""
    values = row.get("keypoints") or []
    if values and isinstance(values[0], list):
        values = [v for point in values for v in point]
        changes.add("keypoints as a list of lists", where)
    if not category.keypoints:
        if values:
            changes.add("keypoints of a category that names none left out", f"{where}, {category.name!r}", "severe")
        return np.zeros((0, 2))
    a.keypoints = values = _points(_fitted(values, 3 * len(category.keypoints), changes, where), changes, where)
    a.num_keypoints = sum(v > 0 for v in values[2::3])
    if row.get("num_keypoints") != a.num_keypoints:
        changes.add("num_keypoints counted anew", f"{where}, {row.get('num_keypoints')} → {a.num_keypoints}")
    points = np.array(values, float).reshape(-1, 3)
    labelled = points[:, 2] > 0
    return points[labelled if labelled.any() else points[:, :2].any(axis=1), :2]


def _fitted(values: list, needed: int, changes: Changes, where: str) -> list:
    """As many numbers as the category's names ask for."""
    given = len(values)
    if not given:
        changes.add("no keypoints: v = 0 for every name", where)
    elif given % 3:
        changes.add("keypoints that do not come in threes: the incomplete end left out", f"{where}, {given}", "severe")
        values = values[: given - given % 3]
    if len(values) > needed:
        changes.add("points without a name at the end of the keypoints left out",
                    f"{where}, {given} numbers for {needed // 3} names", "severe" if any(values[needed + 2 :: 3]) else "warning")  # fmt: skip
    elif given and len(values) < needed:
        changes.add("fewer keypoints than names: v = 0 for the last ones", f"{where}, {given} of {needed}", "warning")
    return values[:needed] + [0] * (needed - len(values))


def _points(values: list, changes: Changes, where: str) -> list:
    """Finite coordinates and a visibility of 0, 1 or 2; x and y of v = 0 stay."""
    seen = values[2::3]
    clean = set(map(type, values)) <= {int, float} and set(map(type, seen)) <= {int} and set(seen) <= {0, 1, 2}
    if not clean or not math.isfinite(sum(values)):
        triples = zip(values[0::3], values[1::3], seen)
        values = [n for triple in triples for n in _point(*triple, changes, where)]
    if any(not v and (x or y) for x, y, v in zip(values[0::3], values[1::3], values[2::3])):
        changes.add("a position with v = 0: kept, not labelled", where)
    return values


def _point(x, y, v, changes: Changes, where: str) -> tuple:
    number = _number(v)
    seen = 0 if number is None else min(2, max(0, math.ceil(number)))
    if type(v) is not int or v != seen:
        doubtful = number is None or number != seen
        changes.add("visibility that is not 0, 1 or 2", f"{where}, {v} → {seen}", "warning" if doubtful else "note")
    x, y = _number(x), _number(y)
    if x is None or y is None:
        changes.add("coordinates that are not numbers: v = 0", where, "severe" if seen else "note")
        return 0, 0, 0
    return x, y, seen


def _box_around(points: np.ndarray, image: Image) -> list[float]:
    """[x, y, width, height] around points (n, 2), with the margin, cut at the image where that leaves something."""
    low, high = points.min(axis=0), points.max(axis=0)
    margin = max(MARGIN * (high - low).max(), MIN_MARGIN)
    low, high = low - margin, high + margin
    cut_low, cut_high = np.maximum(low, 0), np.minimum(high, (image.width, image.height))
    if (cut_high > cut_low).all():
        low, high = cut_low, cut_high
    return [round(float(v), 2) for v in (*low, *(high - low))]


def _segmentation(given: Any, changes: Changes, where: str) -> list | Rle:
    if isinstance(given, dict):
        try:
            return msgspec.convert(given, Rle)
        except msgspec.ValidationError as error:
            changes.add("mask that cannot be read left out", f"{where}, {error}", "severe")
            return []
    polygons = given if isinstance(given, list) else []
    if polygons and not isinstance(polygons[0], list):
        polygons = [polygons]
        changes.add("polygon that is not in a list", where)
    kept = [p for p in polygons if len(p) >= 6 and len(p) % 2 == 0 and all(_number(v) is not None for v in p)]
    if len(kept) < len(polygons) and polygons != [[]]:
        changes.add("polygon of fewer than three points left out", where, "warning", len(polygons) - len(kept))
    return kept


def _as_rle(segmentation: list | Rle, image: Image) -> dict | None:
    """The whole mask as pycocotools wants it; None for none."""
    size = [image.height, image.width]
    if isinstance(segmentation, Rle):
        counts = segmentation.counts
        if isinstance(counts, str):
            return {"size": list(segmentation.size), "counts": counts.encode()}
        return coco_mask.frPyObjects({"size": list(segmentation.size), "counts": counts}, *segmentation.size)
    return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size)) if segmentation else None


def _number(value: Any) -> int | float | None:
    """A finite number (also one in quotes), or None."""
    try:
        value = value if type(value) in (int, float) else float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None


def _say_what_is_left_out(rows: list[Row], kind: type, changes: Changes) -> None:
    """Keys that our files have no place for, with an example."""
    known = {*kind.__struct_fields__, "path"} if kind is Image else set(kind.__struct_fields__)
    for row in rows:
        for key in row.keys() - known:
            changes.add(f"{kind.__name__.lower()}.{key}: our files have no place for it", f"{row[key]!r:.60}")
