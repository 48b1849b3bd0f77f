"""A repaired copy: every fixable finding has one small function here that mends the rows it concerns.

A fix works on the entries as they stand in the file, so that keys which COCO does not know survive. What nobody can know
(whose labels they are, which pixels they mean) is left out instead of guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, count
from pathlib import Path

import msgspec
import numpy as np

from lib import files
from lib.data.coco import no_garbage_collection
from lib.doctor.checks import STAGES
from lib.doctor.findings import KINDS, Hit
from lib.doctor.reading import TABLES, Labels, as_key, as_number, keypoint_names, usable_links, usable_skeleton
from lib.doctor.structure import WHOLE
from lib.exchange.normalise import AREA_OF_BOX, MARGIN, MIN_MARGIN

REFERENCES = {"images": "image_id", "categories": "category_id"}


def check_target(file: str | Path, out: str | Path) -> None:
    """ValueError if the copy would take the place of the file itself."""
    if Path(out).resolve() == Path(file).resolve() or (Path(out).exists() and Path(out).samefile(file)):
        raise ValueError(f"{out}: the repaired copy must not replace the file itself, choose another name")


@no_garbage_collection()
def mend(labels: Labels) -> tuple[Labels, dict[str, int]]:
    """Mend stage by stage, each on the result of the one before.

    Args:
        labels: used up: its entries are changed in place.

    Returns:
        The mended labels, and code → how many rows were mended.

    Raises:
        ValueError: no image would be left.
    """
    mended: dict[str, int] = {}
    there = len(labels.images)
    for stage in STAGES:
        hits = [hit for check in stage for hit in check(labels) if hit.code in FIXES]
        for hit in hits:
            done = FIXES[hit.code](labels, hit)
            if number := len(hit.rows) if done is None else done:
                mended[hit.code] = mended.get(hit.code, 0) + number
        if hits:
            labels = _without_dropped(labels)
    if there and not labels.images:
        raise ValueError(f"{labels.path}: no image would be left ({', '.join(mended)}): mend the export instead")
    return labels, mended


def write_copy(labels: Labels, out: str | Path) -> Path:
    """Write the file as it is now; beside, then moved into place."""
    return files.write(out, msgspec.json.encode(labels.content))


def _without_dropped(labels: Labels) -> Labels:
    gone = labels.dropped
    gone["annotations"] |= set(np.flatnonzero(np.isin(labels.image_of, list(gone["images"]))).tolist())
    for table in TABLES:
        labels.content[table] = [e for row, e in enumerate(getattr(labels, table)) if row not in gone[table]]
    new = Labels(labels.path, labels.content)
    new.pictures, new.against = labels.pictures, labels.against
    return new


def _leave_out(labels: Labels, hit: Hit) -> None:
    labels.dropped[KINDS[hit.code].table].update(int(row) for row in hit.rows)


def _nothing(labels: Labels, hit: Hit) -> None:
    """Writing the copy is the fix."""


# the file, images, categories


def _types(labels: Labels, hit: Hit) -> None:
    table = KINDS[hit.code].table
    for _, entry in _rows(labels, hit):
        for name in WHOLE[table]:
            key = as_key(entry.get(name, 0))
            if isinstance(key, int):
                entry.update({name: key} if name in entry else {})
            elif not name.endswith("id"):  # ids are numbered by their own fix
                entry.pop(name)
        if table == "annotations":
            if "area" in entry and not np.isfinite(as_number(entry["area"])):
                entry.pop("area")
            elif "area" in entry:
                entry["area"] = as_number(entry["area"])
            for name in ("keypoints", "bbox"):
                values = entry.get(name)
                if isinstance(values, list):
                    nested = values and all(isinstance(value, list) for value in values)
                    entry[name] = _plain(as_number(value) for value in (chain(*values) if nested else values))


def _number(labels: Labels, hit: Hit) -> None:
    """New ids; references by a text that was the id follow."""
    table = KINDS[hit.code].table
    fresh = count(max((key for key in labels.ids[table] if isinstance(key, int)), default=0) + 1)
    for row in hit.rows:
        new = getattr(labels, table)[row]["id"] = next(fresh)
        if hit.code.endswith("_missing") and labels.ids[table][row] is not None and table in REFERENCES:
            _refer(labels, table, row, new)


def _refer(labels: Labels, table: str, row: int, new: int) -> None:
    found = labels.image_of if table == "images" else labels.category_of
    for annotation in np.flatnonzero(found == row):
        labels.annotations[annotation][REFERENCES[table]] = new


def _image_id_twice(labels: Labels, hit: Hit) -> None:
    for row, other in zip(hit.rows, hit.others):
        same = labels.images[row].get("file_name") == labels.images[other].get("file_name")
        labels.dropped["images"] |= {row} if same else {row, other}


def _image_twice(labels: Labels, hit: Hit) -> None:
    for row, other in zip(hit.rows, hit.others):
        _refer(labels, "images", row, labels.images[other].get("id"))
        # its annotations have moved: they must not leave with it
        labels.image_of[labels.image_of == row] = other
    _leave_out(labels, hit)


def _recategorise(labels: Labels, hit: Hit) -> int:
    """To the only category with as many keypoints; of an unknown category without one nothing can be known."""
    moved = 0
    for row, entry in _rows(labels, hit):
        fitting = np.flatnonzero((3 * labels.num_keypoints == labels.lengths[row]) & (labels.lengths[row] > 0))
        if len(fitting) == 1:
            entry["category_id"] = labels.categories[fitting[0]]["id"]
            moved += 1
        elif hit.code == "unknown_category":
            labels.dropped["annotations"].add(row)
            moved += 1
    return moved


def _image_size(labels: Labels, hit: Hit) -> int:
    seen = {row: labels.picture(row) for row in hit.rows}
    sizes = {row: picture.size for row, picture in seen.items() if picture is not None and not picture.fault}
    for row, size in sizes.items():
        labels.images[row]["width"], labels.images[row]["height"] = size
    return len(sizes)


def _category(labels: Labels, hit: Hit) -> None:
    for row, category in _rows(labels, hit):
        if not isinstance(category.get("name"), str):
            category["name"] = f"category {row + 1}"
        names = keypoint_names(category)
        category.pop("sigmas", None)
        if names:
            category["keypoints"] = list(usable_skeleton(category).keypoints)
        else:
            category.pop("keypoints", None)


def _from_zero(labels: Labels, hit: Hit) -> None:
    for _, category in _rows(labels, hit):
        category["skeleton"] = [[end + 1 for end in link] for link in category["skeleton"] if _is_link(link)]


def _links(labels: Labels, hit: Hit) -> None:
    for _, category in _rows(labels, hit):
        category["skeleton"] = [[a + 1, b + 1] for a, b in usable_links(category)]


def _turn(labels: Labels, hit: Hit) -> None:
    """Labels of the turned picture → the stored pixels."""
    for row, image in _rows(labels, hit):
        picture = labels.picture(row)
        image["width"], image["height"] = picture.size
        for a in np.flatnonzero(labels.image_of == row):
            entry = labels.annotations[a]
            if labels.lengths[a] > 0 and labels.lengths[a] % 3 == 0:
                points = _floats(entry["keypoints"]).reshape(-1, 3)
                placed = points[:, 2] > 0
                points[placed, :2] = _turned(points[placed, :2], picture, 1)
                entry["keypoints"] = _plain(points.ravel())
            if not np.isnan(labels.boxes[a]).any():
                x, y, w, h = labels.boxes[a]
                corners = _turned(np.array([[x, y], [x + w, y + h]]), picture, 0)
                low, high = corners.min(axis=0), corners.max(axis=0)
                entry["bbox"] = _plain([*low, *(high - low)])
            polygons = entry.get("segmentation")
            if isinstance(polygons, dict):
                entry["segmentation"] = []  # a mask of another size; the box and the keypoints remain
            elif polygons:
                turned = [_turned(_floats(p).reshape(-1, 2), picture, 0) for p in polygons]
                entry["segmentation"] = [_plain(p.ravel()) for p in turned]


def _turned(points: np.ndarray, picture, last: int) -> np.ndarray:
    """Places in the picture as EXIF shows it → as it is stored; `last` is 1 for pixels, 0 for corners."""
    x, y = points[:, 1], points[:, 0]
    if picture.orientation in (7, 8):
        x = picture.size[0] - last - x
    if picture.orientation in (6, 7):
        y = picture.size[1] - last - y
    return np.stack([x, y], axis=1)


# keypoints


def _keypoint_count(labels: Labels, hit: Hit) -> None:
    for row in hit.rows:
        entry, length = labels.annotations[row], 3 * labels.num_keypoints[labels.category_of[row]]
        values = entry["keypoints"] if isinstance(entry["keypoints"], list) else []
        if 3 * len(values) == 2 * length and not (len(values) % 3 == 0 and set(values[2::3]) <= {0, 1, 2}):
            pairs = zip(values[::2], values[1::2])
            entry["keypoints"] = [n for x, y in pairs for n in ((x, y, 2) if x or y else (0, 0, 0))]
        elif values and len(values) % 3 == 0:
            entry["keypoints"] = [*values[:length], *[0] * (length - len(values))]
        else:
            entry.pop("keypoints")


def _unlabel(labels: Labels, hit: Hit) -> None:
    for i, (_, entry) in enumerate(_rows(labels, hit)):
        for k in hit.marks(i):
            entry["keypoints"][3 * k : 3 * k + 3] = [0, 0, 0]


def _visibility(labels: Labels, hit: Hit) -> None:
    for i, (_, entry) in enumerate(_rows(labels, hit)):
        for k in hit.marks(i):
            entry["keypoints"][3 * k + 2] = 2 if entry["keypoints"][3 * k + 2] > 0 else 0


def _fractions(labels: Labels, hit: Hit) -> None:
    for row, entry in _rows(labels, hit):
        size = labels.image_sizes[row]
        entry["keypoints"] = _plain((_floats(entry["keypoints"]).reshape(-1, 3) * [*size, 1]).ravel())
        if (labels.boxes[row] <= 1.5).all():
            entry["bbox"] = _plain(labels.boxes[row] * [*size, *size])
            entry.pop("area", None)


def _count(labels: Labels, hit: Hit) -> None:
    for row, entry in _rows(labels, hit):
        entry["num_keypoints"] = int(labels.labelled_counts[row])


def _exchange(labels: Labels, hit: Hit) -> None:
    """Everything changes sides, or, where keypoints are marked, these."""
    for group in labels.figures:
        places = {row: place for place, row in enumerate(group.rows.tolist())}
        index = group.skeleton.flip_index.copy()
        if hit.code == "pair_exchanged":
            index = np.where(np.isin(index, hit.marks(0)), index, np.arange(len(index)))
        for row in hit.rows:
            if int(row) in places:
                _reorder(labels.annotations[row], index)


def _reorder(entry: dict, index: np.ndarray) -> None:
    values = entry["keypoints"]
    entry["keypoints"] = [number for k in index.tolist() for number in values[3 * k : 3 * k + 3]]


# boxes and areas


def _segmentation(labels: Labels, hit: Hit) -> None:
    for _, entry in _rows(labels, hit):
        entry["segmentation"] = []


def _corners(labels: Labels, hit: Hit) -> None:
    for row, entry in _rows(labels, hit):
        box = labels.boxes[row]
        entry["bbox"] = _plain([*box[:2], *(box[2:] - box[:2])])


def _box(labels: Labels, hit: Hit) -> None:
    for row, entry in _rows(labels, hit):
        _box_around(labels, row, entry)


def _box_around(labels: Labels, row: int, entry: dict) -> None:
    """A box around the labelled keypoints with a margin, inside the image; none where nothing is labelled."""
    entry.pop("bbox", None)
    low, high = labels.extents[row, :2], labels.extents[row, 2:]
    if not np.isnan(low).any():
        margin = max(MIN_MARGIN, MARGIN * (high - low).max())
        low, high = np.maximum(low - margin, 0), np.fmin(high + margin, labels.image_sizes[row])
        entry["bbox"] = _plain([*low, *(high - low)])


def _cut_box(labels: Labels, hit: Hit) -> None:
    for row, entry in _rows(labels, hit):
        box = _floats(entry["bbox"])
        low, high = np.maximum(box[:2], 0), np.minimum(box[:2] + box[2:], labels.image_sizes[row])
        if (high > low).all():
            entry["bbox"] = _plain([*low, *(high - low)])
        else:
            _box_around(labels, row, entry)


def _grow_box(labels: Labels, hit: Hit) -> None:
    for i, (_, entry) in enumerate(_rows(labels, hit)):
        if "bbox" in entry:
            box, points = _floats(entry["bbox"]), _floats(entry["keypoints"]).reshape(-1, 3)[list(hit.marks(i)), :2]
            low, high = np.minimum(box[:2], points.min(axis=0)), np.maximum(box[:2] + box[2:], points.max(axis=0) + 1)
            entry["bbox"] = _plain([*low, *(high - low)])


def _area(labels: Labels, hit: Hit) -> None:
    """The polygons' area, or as much of the box as people fill on average."""
    for _, entry in _rows(labels, hit):
        polygons = entry.get("segmentation")
        area = sum(map(_polygon_area, polygons)) if isinstance(polygons, list) else 0
        if not area and "bbox" in entry:
            area = AREA_OF_BOX * entry["bbox"][2] * entry["bbox"][3]
        entry["area"] = round(area, 2)


def _crowd(labels: Labels, hit: Hit) -> None:
    for _, entry in _rows(labels, hit):
        entry["iscrowd"] = int(as_number(entry["iscrowd"]) > 0)


def _rows(labels: Labels, hit: Hit) -> list[tuple[int, dict]]:
    """The rows concerned, with their entries."""
    table = getattr(labels, KINDS[hit.code].table)
    return [(int(row), table[row]) for row in hit.rows]


def _polygon_area(polygon: list) -> float:
    x, y = _floats(polygon).reshape(-1, 2).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _is_link(link) -> bool:
    return isinstance(link, list) and len(link) == 2 and all(type(end) is int for end in link)


def _floats(values: Iterable) -> np.ndarray:
    return np.array([as_number(value) for value in values], float)


def _plain(values: Iterable[float]) -> list[float]:
    """Python numbers to a thousandth of a pixel, whole ones as int."""
    values = [round(float(value), 3) for value in values]
    return [int(value) if value.is_integer() else value for value in values]


FIXES: dict[str, Callable[[Labels, Hit], int | None]] = {
    "not_strict_json": _nothing,
    "not_an_object": _nothing,
    **dict.fromkeys(("image_types", "annotation_types", "category_types"), _types),
    **dict.fromkeys(("image_id_missing", "annotation_id_missing", "category_id_missing"), _number),
    "annotation_id_twice": _number,
    "image_id_twice": _image_id_twice,
    "image_twice": _image_twice,
    "image_size": _image_size,
    **dict.fromkeys(("unknown_category", "keypoints_without_names"), _recategorise),
    **dict.fromkeys(("category_id_twice", "unknown_image", "image_name", "picture_missing", "picture_unreadable",
                     "picture_size", "leak", "person_twice"), _leave_out),
    "category_malformed": _category,
    "skeleton_from_zero": _from_zero,
    "skeleton_links": _links,
    "picture_turned": _turn,
    "keypoint_count": _keypoint_count,
    **dict.fromkeys(("not_finite", "labelled_at_origin", "keypoints_outside"), _unlabel),
    "visibility": _visibility,
    "num_keypoints": _count,
    "fractions": _fractions,
    "segmentation": _segmentation,
    "boxes_as_corners": _corners,
    "box_missing": _box,
    "box_outside": _cut_box,
    "box_misses_keypoints": _grow_box,
    "area_missing": _area,
    "crowd_flag": _crowd,
    **dict.fromkeys(("sides_exchanged", "pair_exchanged"), _exchange),
}  # fmt: skip
