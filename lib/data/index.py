"""Labels as arrays: a COCO file of any size in one memory-mapped file that opens at once and that all processes share.

The arrays are those of a safetensors file (https://github.com/huggingface/safetensors#format): a JSON header that says where
each lies, then the numbers. Nothing is read until it is used, and what is read stays in the page cache, once for all workers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
import os
import warnings
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import save

from lib import files
from lib.data.coco import (
    Category,
    CocoFile,
    Image,
    category_named,
    check_coco,
    insert_neck,
    lacks_neck,
    order_of,
    read_coco,
    skeleton_of,
    with_skeleton,
)
from lib.data.label_arrays import arrays_of
from lib.skeleton import Skeleton

VERSION = 1
LARGE_FILE = 50_000_000
_TYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


class Origin(msgspec.Struct, forbid_unknown_fields=True):
    """What an index was made from: the JSON file (relative to the index), its size in bytes, its time and its content."""

    source: str
    size: int
    mtime_ns: int
    sha256: str
    categories: list[Category]
    version: int = VERSION


@dataclass(frozen=True)
class View:
    """How the keypoints of a category are made from those in the file.

    Attributes:
        number: of keypoints in the file.
        neck: the shoulders between which one more is computed, and whether it is rounded.
        order: which of them are wanted; None: all.
        skeleton: with what they make, if it was given.
    """

    number: int
    neck: tuple[int, int, bool] | None = None
    order: tuple[int, ...] | None = None
    skeleton: Skeleton | None = None

    @property
    def leaves_out(self) -> bool:
        return self.order is not None and len(self.order) < self.number + (self.neck is not None)

    def __call__(self, found: np.ndarray) -> np.ndarray:
        """(P, number, 3) of the file → (P, K, 3)."""
        if self.neck is not None:
            found = np.concatenate([found, _neck(found.astype(np.float64), *self.neck)[:, None]], axis=1)
        return found if self.order is None else found[:, self.order]


@dataclass(eq=False)
class LabelIndex:
    """All labels of N pictures with A annotations; those of a picture stand together, in the order of the file.

    Attributes:
        source: what errors call it, the path of the JSON file.
        categories: as in the file, with their keypoints.
        image_ids: (N,) int64.
        sizes: (N, 2) int32 height and width in pixels.
        first: (N + 1,) int64; picture i has the annotations `first[i]:first[i + 1]`, which are called rows.
        ids, category_ids: (A,) int64.
        boxes: (A, 4) float64 x, y, width, height in pixels; NaN where there is none.
        areas: (A,) float64 in pixels²; 0 where the file gives none.
        iscrowd: (A,) bool.
        num_keypoints: (A,) int32 as the file says; counted where it does not.
        labelled: (A,) int32, keypoints with v > 0.
        region_sizes: (A, 2) int32 height and width of a run-length mask; −1 where there is none.
        path: of the index; None for one that lives in memory.

    Keypoints, regions and file names are ragged: see `keypoints`, `polygons`, `runs` and `image`. In another process (as a
    pickle of a DataLoader's) an index is its path, and opened anew.
    """

    source: str
    categories: list[Category]
    image_ids: np.ndarray
    sizes: np.ndarray
    first: np.ndarray
    names: np.ndarray
    name_first: np.ndarray
    ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    iscrowd: np.ndarray
    num_keypoints: np.ndarray
    labelled: np.ndarray
    keypoint_values: np.ndarray
    keypoint_first: np.ndarray
    polygon_values: np.ndarray
    polygon_first: np.ndarray
    part_first: np.ndarray
    run_values: np.ndarray
    run_first: np.ndarray
    region_sizes: np.ndarray
    path: Path | None = None
    origin: Origin | None = None
    views: dict[int, View] = field(default_factory=dict)

    @classmethod
    def of(cls, annotations: str | Path) -> LabelIndex:
        """The labels of a COCO file: from the index beside it if there is a fresh one, else read from the JSON.

        Args:
            annotations: COCO keypoint file, or an index.

        Raises:
            FileNotFoundError, ValueError: of `read_coco` and `open`. An index of another version of the file is not used,
                and a warning says so.
        """
        path = Path(annotations)
        if path.suffix == ".safetensors":
            return cls.open(path)
        beside = index_path(path)
        if beside.is_file():
            labels = _opened(beside)
            if not labels.is_stale(path):
                return dataclasses.replace(labels, source=str(path))
            warnings.warn(f"{beside} was made from another version of {path} and is not used: "
                          f"`python -m lib index {path}` makes it again", stacklevel=2)  # fmt: skip
        elif path.is_file() and path.stat().st_size > LARGE_FILE:
            warnings.warn(f"{path} has {path.stat().st_size / 1e6:.0f} MB, which every start reads again: "
                          f"`python -m lib index {path}` once makes it open at once", stacklevel=2)  # fmt: skip
        return cls._of(read_coco(path))

    @classmethod
    def open(cls, path: str | Path) -> LabelIndex:
        """Open an index that `build` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not an index, cut off or damaged, or its JSON file is there and has changed since.
        """
        labels = _opened(Path(path))
        if Path(labels.source).is_file() and labels.is_stale(labels.source):
            raise ValueError(f"{path} was made from another version of {labels.source}: make it again with "
                             f"`{labels._command()}`")  # fmt: skip
        return labels

    @classmethod
    def build(cls, source: str | Path, path: str | Path | None = None) -> LabelIndex:
        """Read and check a COCO keypoint file, write its index, and open it.

        Args:
            source: the JSON file; it is not changed.
            path: of the index, ending in .safetensors; by default beside the source (see `index_path`), where training
                finds it.

        Raises:
            FileNotFoundError, ValueError: of `read_coco`; or the source was changed meanwhile.
        """
        source = Path(source)
        path = Path(path or index_path(source))
        if path.suffix != ".safetensors":
            raise ValueError(f"{path}: the name of an index ends in .safetensors")
        before, digest = os.stat(source), _digest(source)
        labels = cls._of(read_coco(source))
        after = os.stat(source)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise ValueError(f"{source} was changed while it was read: try again")
        relative = Path(os.path.relpath(source.resolve(), path.resolve().parent)).as_posix()
        origin = Origin(relative, after.st_size, after.st_mtime_ns, digest, labels.categories)
        arrays = {name: getattr(labels, name) for name in _ARRAYS}
        files.write(path, save(arrays, {"labels": msgspec.json.encode(origin).decode()}))
        return cls.open(path)

    @classmethod
    def from_coco(cls, coco: CocoFile) -> LabelIndex:
        """The same arrays in memory; ValueError of `check_coco`."""
        check_coco(coco)
        return cls._of(coco)

    @classmethod
    def _of(cls, coco: CocoFile) -> LabelIndex:
        return cls(source=coco.source, categories=coco.categories, **arrays_of(coco))

    def __len__(self) -> int:
        return len(self.image_ids)

    def image(self, index: int) -> Image:
        """Id, file name and size of a picture; ValueError for a name that leaves the image folder."""
        name = self.names[self.name_first[index] : self.name_first[index + 1]].tobytes().decode()
        image = Image(int(self.image_ids[index]), name, *self.sizes[index, ::-1].tolist())
        check_coco(CocoFile([image], [], []), self.source)
        return image

    def rows(self, index: int) -> np.ndarray:
        """(P,) int64: the annotations of a picture."""
        return np.arange(self.first[index], self.first[index + 1])

    def keypoints(self, rows: np.ndarray, inside: bool = False) -> np.ndarray:
        """(P, K, 3) float32 x, y in pixels and v, of annotations of one category; zeros for those without keypoints.

        With `inside`, v = 0 for keypoints outside their picture or exactly at 0, 0, and so for a neck between them.
        """
        if not len(rows):
            return np.zeros((0, 0, 3), np.float32)
        view = self._view(int(self.category_ids[rows[0]]))
        begin = self.keypoint_first[rows]
        given = self.keypoint_first[rows + 1] - begin == 3 * view.number
        found = np.zeros((len(rows), 3 * view.number), self.keypoint_values.dtype)
        found[given] = self.keypoint_values[begin[given, None] + np.arange(3 * view.number)]
        found = found.reshape(len(rows), -1, 3)
        if inside:
            limits = self.sizes[np.searchsorted(self.first, rows, side="right") - 1, ::-1]
            xy = found[..., :2]
            found[..., 2] *= ((xy >= 0) & (xy < limits[:, None])).all(axis=2) & (xy != 0).any(axis=2)
        return view(found).astype(np.float32)

    def polygons(self, row: int) -> list[np.ndarray]:
        """Outlines (M, 2) float32 of an annotation, as in the file; none for a run-length mask."""
        parts = self.polygon_first[self.part_first[row] : self.part_first[row + 1] + 1]
        return [self.polygon_values[begin:end].reshape(-1, 2) for begin, end in pairwise(parts.tolist())]

    def runs(self, row: int) -> np.ndarray | None:
        """(R,) int32 lengths of the runs of 0, 1, 0, … down the columns of a mask of `region_sizes[row]`, or None."""
        return None if self.region_sizes[row, 0] < 0 else self.run_values[self.run_first[row] : self.run_first[row + 1]]

    def skeleton(self, category: str | None = None) -> Skeleton:
        """Of a category; what `with_skeleton` was given keeps all that a COCO file cannot hold."""
        named = category_named(self, category)
        return self._view(named.id).skeleton or skeleton_of(self, named.name)

    def with_neck(self, category: str | None = None, rounded: bool = True) -> LabelIndex:
        """The same labels with a neck, computed when keypoints are read; see `lib.data.coco.insert_neck` for the rest."""
        old = category_named(self, category)
        skeleton, view = skeleton_of(self, category), self._view(old.id)
        changed = insert_neck(CocoFile([], [], self.categories), old.name, rounded)
        order = view.order or range(view.number)
        ends = (order[skeleton.index(name)] for name in ("left_shoulder", "right_shoulder"))
        view = dataclasses.replace(view, neck=(*ends, rounded), order=(*order, view.number), skeleton=None)
        return dataclasses.replace(self, categories=changed.categories, views={**self.views, old.id: view})

    def with_skeleton(self, skeleton: Skeleton, category: str | None = None) -> LabelIndex:
        """The same labels with the keypoints of a skeleton, found by name when they are read.

        A neck that the file lacks is the exact middle of the shoulders; see `lib.data.coco.with_skeleton` for the rest.
        """
        old = category_named(self, category)
        labels = self.with_neck(old.name, rounded=False) if lacks_neck(old, skeleton) else self
        view = labels._view(old.id)
        places = view.order or range(view.number)
        order = order_of(category_named(labels, old.name), skeleton, self.source)
        view = dataclasses.replace(view, order=tuple(places[k] for k in order), skeleton=skeleton)
        changed = with_skeleton(CocoFile([], [], labels.categories), skeleton, old.name)
        labels = dataclasses.replace(labels, categories=changed.categories, views={**labels.views, old.id: view})
        labels._count_again()
        return labels

    def is_stale(self, source: str | Path) -> bool:
        """Whether the index is of another content than `source` has now; a copy with another time is still the same."""
        now = os.stat(source)
        if now.st_size != self.origin.size:
            return True
        return now.st_mtime_ns != self.origin.mtime_ns and _digest(Path(source)) != self.origin.sha256

    def __getstate__(self) -> dict:
        if self.path is None:
            return self.__dict__
        return {name: getattr(self, name) for name in ("path", "origin", "source", "categories", "views")}

    def __setstate__(self, state: dict) -> None:
        if state["path"] is not None:
            opened = _opened(state["path"])
            if opened.origin.sha256 != state["origin"].sha256:
                raise ValueError(f"{opened.path} was made again from another file while it was in use: start again")
            state = {**opened.__dict__, **state}
        self.__dict__.update(state)
        if self.path is not None:
            self._count_again()

    def _view(self, category_id: int) -> View:
        category = next(c for c in self.categories if c.id == category_id)
        return self.views.get(category_id) or View(len(category.keypoints or ()))

    def _count_again(self) -> None:
        """Figures of which keypoints are left out have fewer than the file says."""
        for category_id in (i for i, view in self.views.items() if view.leaves_out):
            rows = np.flatnonzero(self.category_ids == category_id)
            count = (self.keypoints(rows)[..., 2] > 0).sum(axis=1)
            self.labelled, self.num_keypoints = self.labelled.copy(), self.num_keypoints.copy()
            self.labelled[rows] = self.num_keypoints[rows] = count

    def _command(self) -> str:
        standard = index_path(self.source).resolve() == self.path.resolve()
        return f"python -m lib index {self.source}" + ("" if standard else f" --out {self.path}")


_ARRAYS = tuple(f.name for f in dataclasses.fields(LabelIndex) if f.type == "np.ndarray")
# an array of offsets, and the one that it divides
_OFFSETS = {"first": "ids", "name_first": "names", "keypoint_first": "keypoint_values", "part_first": "polygon_first",
            "polygon_first": "polygon_values", "run_first": "run_values"}  # fmt: skip


def index_path(source: str | Path) -> Path:
    """Where the index of a JSON file lies: `x.json` → `x.index.safetensors` beside it."""
    return Path(source).with_suffix(".index.safetensors")


def build_index(file: str | Path, out: str | Path | None = None) -> None:
    """Write the labels of a COCO keypoint file as arrays that open at once; training then uses them by itself.

    Args:
        file: COCO keypoint file to read; it is never changed.
        out: index to write, by default beside the file; one that lies elsewhere is given in place of the annotations.
    """
    labels = LabelIndex.build(file, out)
    print(f"{labels.path}: {len(labels)} images, {len(labels.ids)} annotations, {(labels.labelled > 0).sum()} with "
          f"keypoints, {labels.path.stat().st_size / 1e6:.1f} MB")  # fmt: skip


def _neck(keypoints: np.ndarray, left: int, right: int, rounded: bool) -> np.ndarray:
    """(P, 3) of (P, K, 3) float64, by the rule of `insert_neck`."""
    shoulders = keypoints[:, [left, right]]
    xy, v = shoulders[..., :2].sum(axis=1) / 2, shoulders[..., 2].min(axis=1, keepdims=True)
    return np.concatenate([np.rint(xy) if rounded else xy * (v > 0), v], axis=1)


def _opened(path: Path) -> LabelIndex:
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        begin = 8 + int.from_bytes(content[:8], "little")
        header = msgspec.json.decode(content[8:begin])
        metadata = header.pop("__metadata__", {})
        if "labels" not in metadata:
            raise ValueError("it holds other things")
        origin = msgspec.json.decode(metadata["labels"], type=Origin)
        if origin.version != VERSION or set(header) != set(_ARRAYS):
            raise ValueError(f"it has the version {origin.version}, this program reads {VERSION}")
        if len(content) != begin + max(a["data_offsets"][1] for a in header.values()):
            raise ValueError("it is cut off")
        arrays = {name: _array(content, begin, **header[name]) for name in _ARRAYS}
        for name, divided in _OFFSETS.items():
            offsets, extra = arrays[name], name == "part_first"
            if offsets[0] != 0 or offsets[-1] != len(arrays[divided]) - extra or (np.diff(offsets) < 0).any():
                raise ValueError(f"its {name} are damaged")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path} is not a whole index of labels ({error}): make it again from its COCO file with "
                         "`python -m lib index FILE`") from None  # fmt: skip
    source = os.path.normpath(path.parent / origin.source)
    return LabelIndex(source=source, categories=origin.categories, path=path, origin=origin, **arrays)


def _array(content: mmap.mmap, begin: int, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    count = (data_offsets[1] - data_offsets[0]) // np.dtype(_TYPES[dtype]).itemsize
    return np.frombuffer(content, _TYPES[dtype], count, begin + data_offsets[0]).reshape(shape)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
