"""Whatever a tool calls COCO becomes a file that `check_coco` accepts, and every change is counted.

A box that is missing or empty is laid around the mask, or else around the labelled keypoints with a margin of a tenth of
the longer side (at least 5 pixels). An area that is missing or 0 is the mask's, or else 0.53 times the box: OKS divides
by it, and trainers leave out what has none. 0.53 is MMPose's figure for COCO people.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET
from pycocotools import mask as coco_mask
from tqdm.auto import tqdm

from lib.data.coco import AREA_OF_BOX, Annotation, Category, CocoFile, Image, Rle, box_around, check_coco, polygons_area
from lib.exchange.changes import Changes
from lib.exchange.names import unique
from lib.exchange.pictures import file_names, picture_size

LARGEST_ID = 2**53  # beyond, JavaScript tools round
LARGEST_SIDE = 10**6  # pixels
SLOW = 50_000  # from so many figures on, a bar says how far it is

Row = dict[str, Any]
Say = Callable[..., None]  # rule, detail, severity


def normalise(raw: Row, source: str, changes: Changes, images: Path | None = None) -> CocoFile:
    """Turn decoded COCO-like JSON into a CocoFile.

    Args:
        raw: `images`, `annotations` and `categories`, each a list of objects.
        source: what errors call the file.
        changes: every rule that was applied is added.
        images: folder of the pictures, to find them under their names and to fill in sizes.

    Raises:
        ValueError: an id that stands for two images or two categories; an annotated image without a size.
    """
    used = {key: {_plain(row.get(key)) for row in raw["annotations"]} for key in ("image_id", "category_id")}
    pictures = _images(raw["images"], used["image_id"], source, changes, images)
    categories = _categories(raw["categories"], used["category_id"], source, changes)
    annotations, rows = [], raw["annotations"]
    numbered = zip(_numbers(rows, "annotation", source, changes), rows)
    for number, row in tqdm(numbered, "figures", len(rows), unit=" figures", disable=len(rows) < SLOW, leave=False):
        image, category = pictures.get(_plain(row.get("image_id"))), categories.get(_plain(row.get("category_id")))
        if image and category:
            annotations.append(_annotation(row, number, image, category, changes))
        else:
            key = "category_id" if image else "image_id"
            example = f"annotation {row.get('id')}, {row.get(key)}"
            changes.add(f"annotation with an unknown {key} left out", example, "severe")
    for what, kind in (("images", Image), ("annotations", Annotation), ("categories", Category)):
        _say_what_is_left_out(raw[what], kind, changes)
    info, licenses = (raw.get(what, UNSET) for what in ("info", "licenses"))
    annotations = [a for a in annotations if a is not None]
    coco = CocoFile(list(pictures.values()), annotations, list(categories.values()), info, licenses)
    coco.source = source
    check_coco(coco)
    return coco


def _plain(value: Any) -> int | str:
    """An id as a key: 7, 7.0 and "7" are the same."""
    number = _whole(value)
    return str(value) if number is None else number


def _numbers(rows: list[Row], what: str, source: str, changes: Changes) -> list[int]:
    """Ids from 1, unique and whole: the file's own where they are, else all are numbered anew."""
    ids = [row.get("id") for row in rows]
    plain = [_plain(i) for i in ids]
    repeated = len(set(plain)) < len(plain)
    if repeated and what != "annotation":
        twice = Counter(plain).most_common(1)[0][0]
        raise ValueError(f"{source}: two {what} entries have the id {twice}: nobody can tell which one is meant")
    if not repeated and all(type(i) is int and 1 <= i < LARGEST_ID for i in plain):
        if plain != ids or not set(map(type, ids)) <= {int}:
            changes.add(f"{what} id not written as a whole number", next(i for i in ids if type(i) is not int))
        return plain
    first = next((k for k, i in enumerate(plain) if i != k + 1), 0)
    changes.add(f"{what} ids numbered anew from 1", f"{ids[first]} → {first + 1}", count=len(ids))
    return list(range(1, len(ids) + 1))


def _images(rows: list[Row], used: set, source: str, changes: Changes, folder: Path | None) -> dict[Any, Image]:
    pictures = {}
    names = file_names(rows, changes, folder)
    for number, row, name in zip(_numbers(rows, "image", source, changes), rows, names):
        key, size = _plain(row.get("id")), (_whole(row.get("width")), _whole(row.get("height")))
        if not all(0 < (side or 0) < LARGEST_SIDE for side in size):
            size = picture_size(folder, name) if folder else None
            if not size and key in used:
                raise ValueError(f"{source}: image {row.get('id')} ({name}) is given as {row.get('width')!s:.20}×"
                                 f"{row.get('height')!s:.20} pixels: say --images FOLDER, so that its size can be read")  # fmt: skip
            if not size:
                changes.add("image without annotations and size left out (--images keeps it)", name, "warning")
                continue
            changes.add("size of an image read from the picture", f"{name}: {size[0]}×{size[1]}")
        date = row.get("date_captured", UNSET)
        if isinstance(date, dict):
            date = _date(date)
            changes.add("date_captured in MongoDB's writing", f"{row['date_captured']} → {date}")
        more = {what: row[what] for what in ("license", "coco_url", "flickr_url") if what in row}
        pictures[key] = Image(number, name, *size, date_captured=date, **more)
    return pictures


def _date(date: dict) -> str:
    """MongoDB's {"$date": milliseconds, {"$numberLong": …} or text} as ISO 8601."""
    value = date.get("$date")
    value = value.get("$numberLong") if isinstance(value, dict) else value
    milliseconds = _whole(value)
    return str(value) if milliseconds is None else f"{np.datetime64(milliseconds, 'ms')}Z"


def _categories(rows: list[Row], used: set, source: str, changes: Changes) -> dict[Any, Category]:
    kept = [row for row in rows if row.get("keypoints") or _plain(row.get("id")) in used]
    for row in rows:
        if row not in kept:
            example = f"{row.get('name')!r}, id {row.get('id')}"
            changes.add("category without keypoints and annotations left out", example)
    names = [str(row.get("name") or f"category_{row.get('id')}").strip() for row in kept]
    categories = {}
    for number, row, name, new in zip(_numbers(kept, "category", source, changes), kept, names, unique(names)):
        if name != new:
            changes.add("two categories of one name", f"{name!r}, the second is now {new!r}", "severe")
        categories[_plain(row.get("id"))] = _category(row, number, new, changes)
    return categories


def _category(row: Row, number: int, name: str, changes: Changes) -> Category:
    def say(rule: str, detail: Any, severity: str = "warning") -> None:
        changes.add(rule, f"{detail} in {name!r}", severity)

    category = Category(number, name, row.get("supercategory", UNSET))
    given, sigmas = row.get("keypoints"), row.get("sigmas")
    if not given or not isinstance(given, list):
        changes.add("category without keypoints", repr(name))
        return category
    category.keypoints = unique([str(keypoint).strip() for keypoint in given])
    for old, new in zip(given, category.keypoints):
        if old != new:
            say("keypoint names trimmed or made unique", f"{old!r} → {new!r}")
    category.skeleton = _links(row.get("skeleton"), len(given), say)
    if sigmas and len(sigmas) == len(given) and all((_number(s) or 0) > 0 for s in sigmas):
        category.sigmas = sigmas
    elif sigmas:
        say("sigmas that do not fit the keypoints left out", f"{len(sigmas)} for {len(given)} names")
    return category


def _links(skeleton: Any, k: int, say: Say) -> list[tuple[int, int]]:
    given = [tuple(map(_whole, link)) if isinstance(link, list | tuple) else () for link in skeleton or ()]
    shift = int(any(0 in link for link in given))
    if skeleton is None or shift:
        say("links counted from 0: counted from 1 now" if shift else "category without a skeleton", skeleton)
    links: dict[frozenset, tuple[int, int]] = {}
    for link in given:
        ends = frozenset(end + shift for end in link if end is not None)
        if len(link) == len(ends) == 2 and all(1 <= end <= k for end in ends) and ends not in links:
            links[ends] = link[0] + shift, link[1] + shift
        else:
            say("link left out: repeated, or not between two keypoints", list(link))
    return list(links.values())


def _annotation(row: Row, number: int, image: Image, category: Category, changes: Changes) -> Annotation | None:
    def say(rule: str, detail: Any = None, severity: str = "note") -> None:
        changes.add(rule, f"annotation {row.get('id')}" + ("" if detail is None else f", {detail}"), severity)

    a = Annotation(number, image.id, category.id)
    crowd = row.get("iscrowd", 0)
    a.iscrowd = int(bool(_number(crowd)))
    if type(crowd) is not int or crowd != a.iscrowd:
        say("iscrowd that is not 0 or 1", f"{crowd} → {a.iscrowd}")
    values = row.get("keypoints") or []
    if not isinstance(values, list):
        say("keypoints that are no list left out", f"{values!r:.40}", "severe")
        values = []
    if category.keypoints:
        a.keypoints = _points(_fitted(values, 3 * len(category.keypoints), say), say)
        a.num_keypoints = sum(v > 0 for v in a.keypoints[2::3])
        if row.get("num_keypoints") != a.num_keypoints:
            say("num_keypoints counted anew", f"{row.get('num_keypoints')} → {a.num_keypoints}")
    elif values:
        say("keypoints of a category that names none left out", repr(category.name), "severe")
    a.segmentation = _segmentation(row.get("segmentation"), image, say)
    box, area = row.get("bbox"), _number(row.get("area"))
    a.bbox = [_number(v) for v in box] if isinstance(box, list) and len(box) == 4 else []
    if None in a.bbox or min(a.bbox[2:], default=0) <= 0:
        a.bbox, how = _box_around(a, image)
        if not a.bbox:
            say("annotation without keypoints, box and mask left out", severity="warning")
            return None
        say(f"box missing or empty: laid around the {how}", f"{box} → {a.bbox}")
    a.area = area or 0
    if a.area <= 0:
        is_rle = isinstance(a.segmentation, Rle)
        of_mask = float(coco_mask.area(_compressed(a.segmentation))) if is_rle else polygons_area(a.segmentation)
        a.area = of_mask or round(AREA_OF_BOX * a.bbox[2] * a.bbox[3], 2)
        say(f"area missing or 0: {'the mask' if of_mask else f'{AREA_OF_BOX} of the box'}", f"{area} → {a.area}")
    return a


def _fitted(values: list, needed: int, say: Say) -> list:
    """As many numbers as the category's names ask for."""
    if values and isinstance(values[0], list):
        values = [v for point in values for v in point]
        say("keypoints as a list of lists")
    given, beyond = len(values), values[needed + 2 :: 3]
    if not given:
        say("no keypoints: v = 0 for every name")
    elif given % 3:
        say("keypoints that do not come in threes: the incomplete end left out", f"{given} numbers", "severe")
        values = values[: given - given % 3]
    elif given > needed:
        severity = "severe" if any(beyond) else "warning"
        say("points without a name, at the end, left out", f"{given} numbers for {needed // 3} names", severity)
    elif given < needed:
        say("fewer keypoints than names: v = 0 for the last ones", f"{given} numbers of {needed}", "warning")
    return values[:needed] + [0] * (needed - len(values))


def _points(values: list, say: Say) -> list:
    """Finite coordinates and a visibility of 0, 1 or 2; x and y of v = 0 stay."""
    seen = values[2::3]
    clean = set(map(type, values)) <= {int, float} and set(map(type, seen)) <= {int} and set(seen) <= {0, 1, 2}
    if not clean or not _finite(values):
        values = [n for x, y, v in zip(values[0::3], values[1::3], seen) for n in _point(x, y, v, say)]
    if any(not v and (x or y) for x, y, v in zip(values[0::3], values[1::3], values[2::3])):
        say("a position with v = 0: kept, not labelled")
    return values


def _point(x: Any, y: Any, v: Any, say: Say) -> tuple:
    number = _number(v)
    seen = 0 if number is None else min(2, max(0, math.ceil(number)))
    if type(v) is not int or v != seen:
        say("visibility that is not 0, 1 or 2", f"{v} → {seen}", "note" if number == seen else "warning")
    x, y = _number(x), _number(y)
    if x is None or y is None:
        say("coordinates that are not numbers: v = 0", severity="severe" if seen else "note")
        return 0, 0, 0
    return x, y, seen


def _segmentation(given: Any, image: Image, say: Say) -> list | Rle:
    if isinstance(given, dict) and given:
        try:
            mask = msgspec.convert(given, Rle)
            if mask.size == (image.height, image.width):
                return mask
            problem = f"size {list(mask.size)} in an image of {[image.height, image.width]}"
        except msgspec.ValidationError as error:
            problem = error
        say("mask that cannot be read, or of another size, left out", problem, "severe")
    polygons = given if isinstance(given, list) and given != [[]] else []
    if polygons and not isinstance(polygons[0], list):
        polygons = [polygons]
        say("polygon that is not in a list")
    kept = [p for p in polygons if len(p) >= 6 and len(p) % 2 == 0
            and set(map(type, p)) <= {int, float} and _finite(p)]  # fmt: skip
    if len(kept) < len(polygons):
        say("polygon of fewer than three points left out", severity="warning")
    return kept


def _box_around(a: Annotation, image: Image) -> tuple[list[float], str]:
    """[x, y, width, height] and what it is laid around; [] where there is nothing."""
    if isinstance(a.segmentation, Rle):
        return [float(v) for v in coco_mask.toBbox(_compressed(a.segmentation))], "mask"
    points, how, margin = np.array([*chain(*a.segmentation)], float).reshape(-1, 2), "mask", False
    if not len(points):
        keypoints = np.array(a.keypoints or (), float).reshape(-1, 3)
        labelled = keypoints[:, 2] > 0
        points = keypoints[labelled if labelled.any() else keypoints[:, :2].any(axis=1), :2]
        how, margin = "labelled keypoints, with a margin", True
    return box_around(points.tolist(), (image.height, image.width), margin), how


def _compressed(mask: Rle) -> dict:
    if isinstance(mask.counts, str):
        return {"size": mask.size, "counts": mask.counts.encode()}
    return coco_mask.frPyObjects({"size": list(mask.size), "counts": mask.counts}, *mask.size)


def _finite(values: list) -> bool:
    try:
        return math.isfinite(sum(values))
    except OverflowError:  # a whole number of more than 308 digits
        return False


def _number(value: Any) -> int | float | None:
    """A finite number (also one in quotes), or None."""
    try:
        value = value if type(value) in (int, float) else float(value)
        return value if math.isfinite(value) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _whole(value: Any) -> int | None:
    if type(value) is int:
        return value
    number = _number(value)
    return int(number) if number is not None and number == int(number) else None


def _say_what_is_left_out(rows: list[Row], kind: type, changes: Changes) -> None:
    """Keys that our files have no place for; `path` is where file names come from."""
    known = {*kind.__struct_fields__, "path"}
    keys = sorted({key for row in rows for key in row} - known)
    if keys:
        rule = f"keys of {kind.__name__.lower()} entries that our files have no place for"
        changes.add(rule, ", ".join(keys), count=sum(not row.keys() <= known for row in rows))
