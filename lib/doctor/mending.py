"""A repaired copy: every fixable finding has one small function here that mends a row.

A fix works on the entries as they stand in the file, so that keys which COCO does not know survive. What nobody can know
(whose labels they are, which pixels they mean) is left out instead of guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from lib import files
from lib.data.coco import AREA_OF_BOX, box_around, no_garbage_collection, polygons_area
from lib.doctor.checks import STAGES
from lib.doctor.figures import FRACTION
from lib.doctor.findings import KINDS, Hit
from lib.doctor.reading import TABLES, Labels, as_key, as_number, keypoint_names, usable_links, usable_skeleton
from lib.doctor.structure import WHOLE

REFERENCES = {"images": "image_id", "categories": "category_id"}


class Case(NamedTuple):
    """A row to mend: its table, its entry in the file, the row it is compared with, the keypoints concerned."""

    labels: Labels
    code: str
    table: str
    row: int
    entry: dict
    other: int
    marks: Sequence[int]

    def drop(self, *rows: int) -> None:
        """Leave out these rows of the table, or this one; annotations go with their image."""
        self.labels.dropped[self.table].update(rows or [self.row])

    def set(self, *corners: np.ndarray) -> None:
        """A box from its corners."""
        low, high = corners
        self.entry["bbox"] = _plain([*low, *(high - low)])


def check_target(file: str | Path, out: str | Path) -> None:
    """ValueError if the copy would take the place of the file itself, or of a folder."""
    if Path(out).is_dir():
        raise ValueError(f"{out} is a folder: choose another name for the repaired copy")
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
            if done := sum(FIXES[hit.code](case) is not False for case in _cases(labels, hit)):
                mended[hit.code] = mended.get(hit.code, 0) + done
        if hits:
            labels = _without_dropped(labels)
    if there and not labels.images:
        raise ValueError(f"{labels.path}: no image would be left ({', '.join(mended)}): mend the export instead")
    return labels, mended


def write_copy(labels: Labels, out: str | Path) -> Path:
    """Write the file as it is now; beside, then moved into place."""
    labels.path = files.write(out, msgspec.json.encode(labels.content))
    return labels.path


def _cases(labels: Labels, hit: Hit) -> Iterable[Case]:
    table = KINDS[hit.code].table
    for i, row in enumerate(hit.rows):
        entry = getattr(labels, table)[row] if table else labels.content
        yield Case(labels, hit.code, table, int(row), entry, -1 if hit.others is None else hit.others[i], hit.marks(i))


def _without_dropped(labels: Labels) -> Labels:
    gone = labels.dropped
    gone["annotations"] |= set(np.flatnonzero(np.isin(labels.image_of, list(gone["images"]))).tolist())
    for table in TABLES:
        labels.content[table] = [e for row, e in enumerate(getattr(labels, table)) if row not in gone[table]]
    new = Labels(labels.path, labels.content)
    new.pictures, new.against = labels.pictures, labels.against
    return new


# the file, images, categories


def _types(case: Case) -> None:
    entry = case.entry
    for name in WHOLE[case.table]:
        key = as_key(entry.get(name, 0))
        if isinstance(key, int):
            entry.update({name: key} if name in entry else {})
        elif not name.endswith("id"):  # ids are numbered by their own fix
            entry.pop(name)
    if case.table == "annotations":
        area = as_number(entry.pop("area", None))
        entry.update({"area": area} if np.isfinite(area) else {})
        for name in ("keypoints", "bbox"):
            values = entry.get(name)
            if isinstance(values, list):
                nested = values and all(isinstance(value, list) for value in values)
                entry[name] = _plain(as_number(value) for value in (chain(*values) if nested else values))
        values = entry.get("keypoints")
        for k in range(0, len(values) if isinstance(values, list) else 0, 3):
            if np.isnan(values[k : k + 3]).any():  # not a number: nobody knows the place
                values[k : k + 3] = [0] * len(values[k : k + 3])


def _number(case: Case) -> None:
    """A new id; references by a text that was the id follow."""
    known = case.labels.ids[case.table]
    largest = max((k for k in known if isinstance(k, int)), default=0)
    fresh = case.labels.fresh.setdefault(case.table, count(largest + 1))
    case.entry["id"] = next(fresh)
    if case.code.endswith("_missing") and known[case.row] is not None and case.table in REFERENCES:
        _refer(case, case.entry["id"])


def _refer(case: Case, new: int) -> None:
    found = case.labels.image_of if case.table == "images" else case.labels.category_of
    for annotation in np.flatnonzero(found == case.row):
        case.labels.annotations[annotation][REFERENCES[case.table]] = new


def _image_id_twice(case: Case) -> None:
    same = case.entry.get("file_name") == case.labels.images[case.other].get("file_name")
    case.drop(*([case.row] if same else [case.row, case.other]))


def _image_twice(case: Case) -> None:
    _refer(case, case.labels.images[case.other].get("id"))
    # its annotations have moved: they must not leave with it
    case.labels.image_of[case.labels.image_of == case.row] = case.other
    case.drop()


def _recategorise(case: Case) -> bool | None:
    """To the only category with as many keypoints; of an unknown category without one nothing can be known."""
    length = case.labels.lengths[case.row]
    fitting = np.flatnonzero((3 * case.labels.num_keypoints == length) & (length > 0))
    if len(fitting) == 1:
        case.entry["category_id"] = case.labels.categories[fitting[0]]["id"]
    elif case.code == "unknown_category":
        case.drop()
    else:
        return False


def _image_size(case: Case) -> bool | None:
    picture = case.labels.picture(case.row)
    if picture is None or picture.fault:
        return False
    case.entry["width"], case.entry["height"] = picture.size


def _category(case: Case) -> None:
    if not isinstance(case.entry.get("name"), str):
        case.entry["name"] = f"category {case.row + 1}"
    case.entry.pop("sigmas", None)
    names = keypoint_names(case.entry) and list(usable_skeleton(case.entry).keypoints)
    case.entry.pop("keypoints", None)
    case.entry.update({"keypoints": names} if names else {})


def _from_zero(case: Case) -> None:
    links = [link for link in case.entry["skeleton"] if isinstance(link, list) and set(map(type, link)) == {int}]
    case.entry["skeleton"] = [[end + 1 for end in link] for link in links]


def _turn(case: Case) -> None:
    """Labels of the turned picture → the stored pixels."""
    labels, picture = case.labels, case.labels.picture(case.row)
    case.entry["width"], case.entry["height"] = picture.size
    for a in np.flatnonzero(labels.image_of == case.row).tolist():
        other = case._replace(table="annotations", row=a, entry=labels.annotations[a])
        if labels.lengths[a] > 0 and labels.lengths[a] % 3 == 0:
            points = _points(other)
            placed = points[:, 2] > 0
            points[placed, :2] = _turned(points[placed, :2], picture, 1)
            other.entry["keypoints"] = _plain(points.ravel())
        if not np.isnan(labels.boxes[a]).any():
            corners = _turned(np.array(_corners(labels.boxes[a])), picture, 0)
            other.set(corners.min(axis=0), corners.max(axis=0))
        polygons = other.entry.get("segmentation") or []
        if isinstance(polygons, dict):
            polygons = []  # a mask of another size; the box and the keypoints remain
        turned = [_turned(np.array(polygon, float).reshape(-1, 2), picture, 0) for polygon in polygons]
        other.entry["segmentation"] = [_plain(polygon.ravel()) for polygon in turned]


def _turned(points: np.ndarray, picture, last: int) -> np.ndarray:
    """Places in the picture as EXIF shows it → as it is stored; `last` is 1 for pixels, 0 for corners."""
    x, y = points[:, 1], points[:, 0]
    if picture.orientation in (7, 8):
        x = picture.size[0] - last - x
    if picture.orientation in (6, 7):
        y = picture.size[1] - last - y
    return np.stack([x, y], axis=1)


# keypoints


def _keypoint_count(case: Case) -> None:
    length = 3 * int(case.labels.num_keypoints[case.labels.category_of[case.row]])
    values = case.entry.pop("keypoints")
    values = values if isinstance(values, list) else []
    if 3 * len(values) == 2 * length and not (len(values) % 3 == 0 and set(values[2::3]) <= {0, 1, 2}):
        pairs = zip(values[::2], values[1::2])
        case.entry["keypoints"] = [n for x, y in pairs for n in ((x, y, 2) if x or y else (0, 0, 0))]
    elif values and len(values) % 3 == 0:
        case.entry["keypoints"] = [*values[:length], *[0] * (length - len(values))]


def _unlabel(case: Case) -> None:
    for k in case.marks:
        case.entry["keypoints"][3 * k : 3 * k + 3] = [0, 0, 0]


def _visibility(case: Case) -> None:
    for k in case.marks:
        case.entry["keypoints"][3 * k + 2] = 2 if case.entry["keypoints"][3 * k + 2] > 0 else 0


def _fractions(case: Case) -> None:
    size = case.labels.image_sizes[case.row]
    case.entry["keypoints"] = _plain((_points(case) * [*size, 1]).ravel())
    if (case.labels.boxes[case.row] <= FRACTION).all():
        case.entry["bbox"] = _plain(case.labels.boxes[case.row] * [*size, *size])
        case.entry.pop("area", None)


def _exchange(case: Case) -> None:
    """Everything changes sides, or these pairs."""
    group, _ = case.labels.figure(case.row)
    index = group.skeleton.flip_index
    if case.code == "pair_exchanged":
        index = np.where(np.isin(index, case.marks), index, np.arange(len(index)))
    values = case.entry["keypoints"]
    case.entry["keypoints"] = [number for k in index.tolist() for number in values[3 * k : 3 * k + 3]]


# boxes and areas


def _box(case: Case) -> None:
    """Around the labelled keypoints with a margin, inside the image; none where nothing is labelled."""
    case.entry.pop("bbox", None)
    corners = case.labels.extents[case.row].reshape(2, 2)
    if not np.isnan(corners).any():
        case.entry["bbox"] = _plain(box_around(corners, case.labels.image_sizes[case.row, ::-1]))


def _cut_box(case: Case) -> None:
    low, high = _corners(case.labels.boxes[case.row])
    low, high = np.maximum(low, 0), np.minimum(high, case.labels.image_sizes[case.row])
    if (high > low).all():
        case.set(low, high)
    else:
        _box(case)


def _grow_box(case: Case) -> None:
    if "bbox" in case.entry:  # cut before, so it is read again
        low, high = _corners(np.array(case.entry["bbox"], float))
        points = _points(case)[list(case.marks), :2]
        case.set(np.minimum(low, points.min(axis=0)), np.maximum(high, points.max(axis=0) + 1))


def _area(case: Case) -> None:
    """The polygons' area, or as much of the box as people fill on average."""
    polygons = case.entry.get("segmentation")
    area = polygons_area(polygons) if isinstance(polygons, list) else 0
    if not area and "bbox" in case.entry:
        area = AREA_OF_BOX * case.entry["bbox"][2] * case.entry["bbox"][3]
    case.entry["area"] = round(area, 2)


def _points(case: Case) -> np.ndarray:
    return np.array([as_number(value) for value in case.entry["keypoints"]]).reshape(-1, 3)


def _corners(box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return box[:2], box[:2] + box[2:]


def _plain(values: Iterable[float]) -> list[float]:
    """Python numbers, whole ones as int."""
    values = [round(float(value), 6) for value in values]
    return [int(value) if value.is_integer() else value for value in values]


FIXES: dict[str, Callable[[Case], bool | None]] = {
    **dict.fromkeys(("not_strict_json", "not_an_object"), lambda case: None),  # writing the copy is the fix
    **dict.fromkeys(("image_types", "annotation_types", "category_types"), _types),
    **dict.fromkeys(("image_id_missing", "annotation_id_missing", "category_id_missing", "annotation_id_twice"), _number),
    **dict.fromkeys(("category_id_twice", "unknown_image", "image_name", "picture_missing", "picture_unreadable",
                     "picture_size", "leak", "person_twice"), Case.drop),
    **dict.fromkeys(("unknown_category", "keypoints_without_names"), _recategorise),
    **dict.fromkeys(("not_finite", "labelled_at_origin", "keypoints_outside"), _unlabel),
    **dict.fromkeys(("sides_exchanged", "pair_exchanged"), _exchange),
    "image_id_twice": _image_id_twice, "image_twice": _image_twice, "image_size": _image_size, "picture_turned": _turn,
    "category_malformed": _category, "skeleton_from_zero": _from_zero,
    "skeleton_links": lambda c: c.entry.update(skeleton=[[a + 1, b + 1] for a, b in usable_links(c.entry)]),
    "keypoint_count": _keypoint_count, "visibility": _visibility, "fractions": _fractions,
    "num_keypoints": lambda c: c.entry.update(num_keypoints=int(c.labels.labelled_counts[c.row])),
    "segmentation": lambda c: c.entry.update(segmentation=[]),
    "crowd_flag": lambda c: c.entry.update(iscrowd=int(as_number(c.entry["iscrowd"]) > 0)),
    "boxes_as_corners": lambda c: c.set(*np.split(c.labels.boxes[c.row], 2)),
    "box_missing": _box, "box_outside": _cut_box, "box_misses_keypoints": _grow_box, "area_missing": _area,
}  # fmt: skip
