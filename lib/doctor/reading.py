"""An annotation file as it is, faults and all: a tolerant reader.

`lib.data.coco.read_coco` stops at the first fault. Here nothing stops but what is no COCO file at all; the rest becomes
columns of numbers, NaN where there is none, for checks that look at all rows at once.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from lib.data.coco import no_garbage_collection
from lib.skeleton import UNKNOWN_SIGMA, Skeleton, flip_pairs_by_name

MEMORY_PER_BYTE = 8  # of the file, measured 6 with the columns
FARTHEST = 1e7  # pixels: larger numbers are no places
TABLES = ("images", "annotations", "categories")


@dataclass
class Figures:
    """All annotations of one category whose keypoints have the length the category asks for.

    Attributes:
        category: row of the category.
        skeleton: names, usable limbs and mirror pairs; for drawing and for left and right.
        rows: (P,) rows of the annotations.
        keypoints: (P, K, 3) float64 as in the file; NaN where the file has no number for a place.
        labelled: (P, K) bool: v > 0 and a place.
    """

    category: int
    skeleton: Skeleton
    rows: np.ndarray
    keypoints: np.ndarray

    @cached_property
    def labelled(self) -> np.ndarray:
        return (self.keypoints[..., 2] > 0) & np.isfinite(self.keypoints[..., :2]).all(axis=-1)

    @cached_property
    def extents(self) -> np.ndarray:
        """(P, 4) x0, y0, x1, y1 of the labelled keypoints, NaN for a figure without any."""
        points = self.keypoints[..., :2]
        low = np.where(self.labelled[..., None], points, np.inf).min(axis=1)
        high = np.where(self.labelled[..., None], points, -np.inf).max(axis=1)
        extents = np.concatenate([low, high], axis=1)
        extents[~self.labelled.any(axis=1)] = np.nan
        return extents


class Labels:
    """Columns of an annotation file.

    Attributes:
        path: the file.
        strict: False where it is not strict JSON (NaN, Infinity, a byte order mark).
        content: the whole file as Python objects.
        images, annotations, categories: the entries of its lists that are objects.
        not_objects: how many entries are none.
        pictures: file name → what a look at the picture told; empty before anybody looked.
        against: the pictures of another set.
        dropped, fresh: table → rows that a repair leaves out, and ids that it may give.
    """

    def __init__(self, path: Path, content: dict, strict: bool = True):
        self.path, self.content, self.strict = path, content, strict
        self.pictures, self.against = {}, []
        self.dropped: dict[str, set[int]] = {table: set() for table in TABLES}
        self.fresh: dict[str, Iterator[int]] = {}
        for table in TABLES:
            setattr(self, table, [entry for entry in content[table] if isinstance(entry, dict)])
        self.not_objects = sum(len(content[table]) - len(getattr(self, table)) for table in TABLES)

    @cached_property
    def ids(self) -> dict[str, list]:
        """The ids of every table as keys that can be compared: int, text, or None where there is none."""
        return {table: [as_key(entry.get("id")) for entry in getattr(self, table)] for table in TABLES}

    @cached_property
    def image_of(self) -> np.ndarray:
        """(A,) row of every annotation's image, −1 where it is not listed."""
        return self._rows("images", "image_id")

    @cached_property
    def category_of(self) -> np.ndarray:
        """(A,) row of every annotation's category, −1 where it is not listed."""
        return self._rows("categories", "category_id")

    @cached_property
    def sizes(self) -> np.ndarray:
        """(I, 2) width and height, NaN where missing or not positive."""
        sizes = np.stack([numbers(e.get(side) for e in self.images) for side in ("width", "height")], axis=1)
        return np.where((sizes > 0) & (sizes < FARTHEST), sizes, np.nan)

    @cached_property
    def boxes(self) -> np.ndarray:
        """(A, 4) x, y, width, height; NaN where it is missing, incomplete or without area."""
        boxes = [b if isinstance(b, list) and len(b) == 4 else (None,) * 4 for b in self.column("bbox")]
        boxes = numbers(chain.from_iterable(boxes)).reshape(-1, 4)
        boxes[~((np.abs(boxes) < FARTHEST).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1))] = np.nan
        return boxes

    @cached_property
    def areas(self) -> np.ndarray:
        """(A,) pixels², NaN where missing or not positive."""
        areas = numbers(self.column("area"))
        return np.where((areas > 0) & (areas < FARTHEST**2), areas, np.nan)

    @cached_property
    def crowds(self) -> np.ndarray:
        """(A,) bool: regions of many."""
        return numbers(self.column("iscrowd")) == 1

    @cached_property
    def image_sizes(self) -> np.ndarray:
        """(A, 2) width and height of every annotation's image, NaN where unknown."""
        return np.concatenate([self.sizes, [[np.nan, np.nan]]])[self.image_of]

    @cached_property
    def lengths(self) -> np.ndarray:
        """(A,) how many numbers `keypoints` holds; 0 where it is absent, −1 where it is no list."""
        lists = [annotation.get("keypoints", ()) for annotation in self.annotations]
        return np.array([len(value) if isinstance(value, (list, tuple)) else -1 for value in lists], int)

    @cached_property
    def num_keypoints(self) -> np.ndarray:
        """(C,) how many keypoints every category names."""
        return np.array([len(keypoint_names(category)) for category in self.categories], int)

    @cached_property
    def figures(self) -> list[Figures]:
        """The usable keypoints, category by category."""
        groups = []
        for c in np.flatnonzero(self.num_keypoints):
            k = int(self.num_keypoints[c])
            rows = np.flatnonzero((self.category_of == c) & (self.lengths == 3 * k))
            values = numbers(chain.from_iterable(self.annotations[row]["keypoints"] for row in rows))
            values[~(np.abs(values) < FARTHEST)] = np.nan
            groups.append(Figures(int(c), usable_skeleton(self.categories[c]), rows, values.reshape(-1, k, 3)))
        return groups

    @cached_property
    def labelled_counts(self) -> np.ndarray:
        """(A,) labelled keypoints of every annotation, 0 where there is none."""
        counts = np.zeros(len(self.annotations), int)
        for group in self.figures:
            counts[group.rows] = group.labelled.sum(axis=1)
        return counts

    @cached_property
    def extents(self) -> np.ndarray:
        """(A, 4) x0, y0, x1, y1 of the labelled keypoints of every annotation, NaN without any."""
        extents = np.full((len(self.annotations), 4), np.nan)
        for group in self.figures:
            extents[group.rows] = group.extents
        return extents

    @cached_property
    def apart(self) -> np.ndarray:
        """(A,) bool: boxes that lie beside their figure, if that is so in most of the file; else nowhere.

        Then boxes and keypoints are not measured alike, and neither may be mended by the other.
        """
        x0, y0, x1, y1 = self.extents.T
        middle = np.stack([x0 + x1, y0 + y1], axis=1) / 2
        # figures in fractions are not meant
        both = (self.boxes[:, 2] > 0) & (self.labelled_counts >= 3) & (np.maximum(x1, y1) > 2)
        apart = both & (np.abs(middle - self.boxes[:, :2] - self.boxes[:, 2:] / 2) > self.boxes[:, 2:] / 2).any(axis=1)
        return apart & (apart.sum() > max(10, both.sum() / 3))

    def picture(self, row: int) -> Any:
        """What a look at an image's picture told, None if nobody looked."""
        name = self.images[row].get("file_name")
        return self.pictures.get(name) if isinstance(name, str) else None

    def figure(self, row: int) -> tuple[Figures | None, int]:
        """The group that an annotation's keypoints are in, and its place there; None where they are unusable."""
        for group in self.figures:
            place = int(np.searchsorted(group.rows, row))
            if place < len(group.rows) and group.rows[place] == row:
                return group, place
        return None, -1

    def column(self, name: str) -> list:
        """A field of every annotation, None where it is missing."""
        return [annotation.get(name) for annotation in self.annotations]

    def _rows(self, table: str, reference: str) -> np.ndarray:
        # backwards, so that of two with one id the first is found
        rows = {key: row for row, key in reversed(list(enumerate(self.ids[table]))) if key is not None}
        return np.array([rows.get(as_key(value), -1) for value in self.column(reference)], int)


@no_garbage_collection()
def read(path: str | Path) -> Labels:
    """Read whatever can be read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, empty, not JSON, not COCO's three lists, or larger than the memory; one sentence each.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the annotation file in it")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such annotation file")
    size, memory = path.stat().st_size, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if not size:
        raise ValueError(f"{path} is empty: export or copy it again")
    if size * MEMORY_PER_BYTE > memory:
        raise ValueError(f"{path} has {size / 1e9:.1f} GB and would need about {size * MEMORY_PER_BYTE / 1e9:.0f} GB of "
                         f"memory, this computer has {memory / 1e9:.0f}: split the file")  # fmt: skip
    content, strict = _decode(path)
    _check_lists(path, content)
    return Labels(path, content, strict)


def as_number(value: Any) -> float:
    """The number that a value is or spells, NaN if none."""
    if isinstance(value, (int, float, str)):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return math.nan
    return math.nan


def as_key(value: Any) -> int | str | None:
    """An id as int where it is or spells a whole number, as text where it is another text, else None."""
    if type(value) is int:
        return value
    number = math.nan if isinstance(value, bool) else as_number(value)
    if number.is_integer() and abs(number) < 2**53:
        return int(number)
    return value if isinstance(value, str) and value else None


def numbers(values: Iterable) -> np.ndarray:
    """A float64 column, NaN where a value is no number."""
    values = list(values)
    if set(map(type, values)) <= {int, float}:
        try:
            return np.array(values, float)
        except OverflowError:  # an int with more than 308 digits
            return np.array([as_number(value) for value in values], float)
    return np.array([as_number(value) for value in values], float)


def keypoint_names(category: dict) -> list[str]:
    """The names of a category's keypoints as text, [] where it has no list."""
    names = category.get("keypoints")
    return [str(name) for name in names] if isinstance(names, list) else []


def usable_links(category: dict) -> list[tuple[int, int]]:
    """The 0-based links of a category that join two of its keypoints, each once."""
    count, links = len(keypoint_names(category)), {}
    for link in category["skeleton"] if isinstance(category.get("skeleton"), list) else ():
        if isinstance(link, list) and len(link) == 2 and all(type(end) is int and 1 <= end <= count for end in link):
            links.setdefault(frozenset(link), (link[0] - 1, link[1] - 1))
    return [pair for ends, pair in links.items() if len(ends) == 2]


def usable_skeleton(category: dict) -> Skeleton:
    """A skeleton to draw with, whatever the category looks like."""
    names = keypoint_names(category)
    if len(set(names)) < len(names):
        names = [f"{name} ({k})" for k, name in enumerate(names)]
    pairs, ends = [], set()
    for pair in flip_pairs_by_name(names):
        if not ends & set(pair):
            pairs.append(pair)
            ends |= set(pair)
    return Skeleton(str(category.get("name")), names, usable_links(category), pairs, [UNKNOWN_SIGMA] * len(names))


def _decode(path: Path) -> tuple[Any, bool]:
    data = path.read_bytes()
    if data.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path} is a zip: `python -m lib convert {path} labels.json` makes a file to examine")
    try:
        return msgspec.json.decode(data), True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Python's reader knows NaN, Infinity and byte order marks, and says where a fault is
        try:
            return json.loads(data), False
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a JSON file: {error}") from None


def _check_lists(path: Path, content: Any) -> None:
    if isinstance(content, list):
        results = content and isinstance(content[0], dict) and "score" in content[0]
        what = "results of a model" if results else "a bare list"
        hint = "" if results else f"; if a tool exported it, `python -m lib convert {path} labels.json` makes one of it"
        raise ValueError(f"{path} holds {what}, not a COCO file with {', '.join(TABLES)}{hint}")
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds {type(content).__name__} {str(content)[:40]!r}, not a COCO file")
    for table in TABLES:
        if not isinstance(content.get(table), list):
            got = f"is {json.dumps(content[table])[:40]}" if table in content else "is missing"
            raise ValueError(f"{path} is not a COCO file: {table!r} {got}, not a list; its keys are "
                             f"{', '.join(map(repr, list(content)[:8])) or 'none'}")  # fmt: skip
