"""COCO keypoint files: read with types, checked once, rewired for the neck, written beside and moved into place.

Format: https://cocodataset.org/#format-data. A keypoint is x, y, v with v = 0 not labelled, 1 labelled but hidden,
2 visible; v is what is tested, never x == 0.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from lib import files
from lib.skeleton import Skeleton

Number = int | float

# A figure of keypoints alone gets a box around them with a margin (a share of the longer side, at least so many pixels), and
# as its area, by which OKS divides, the share of a box that people fill: CrowdPose's and MMPose's figure.
MARGIN, MIN_MARGIN, AREA_OF_BOX = 0.1, 5, 0.53


class Image(Struct):
    """One picture: size in pixels, file_name relative to the image folder."""

    id: int
    file_name: str
    width: int
    height: int
    license: Any = UNSET
    coco_url: Any = UNSET
    flickr_url: Any = UNSET
    date_captured: Any = UNSET


class Rle(Struct):
    """Run-length mask of `size` (height, width); counts as numbers (uncompressed) or as COCO's string (compressed)."""

    size: tuple[int, int]
    counts: list[int] | str


class Annotation(Struct):
    """One figure: keypoints [x, y, v] × K in pixels, bbox [x, y, width, height], area in pixels², region.

    `segmentation` is a list of polygons [x, y, x, y, …] or a run-length mask. `keypoints` may be absent (no figure).
    """

    id: int
    image_id: int
    category_id: int
    keypoints: list[Number] | UnsetType = UNSET
    num_keypoints: int | UnsetType = UNSET
    bbox: list[Number] | UnsetType = UNSET
    area: Number | UnsetType = UNSET
    iscrowd: int = 0
    segmentation: list[list[Number]] | Rle | None | UnsetType = UNSET


class Category(Struct):
    """A kind of figure; `skeleton` holds 1-based pairs, `sigmas` is our optional addition for OKS."""

    id: int
    name: str
    supercategory: Any = UNSET
    keypoints: list[str] | UnsetType = UNSET
    skeleton: list[tuple[int, int]] | UnsetType = UNSET
    sigmas: list[float] | UnsetType = UNSET


class CocoFile(Struct, dict=True):
    """A whole annotation file. Keys that are not declared here are dropped on reading.

    `source` is what errors call it: the path it was read from.
    """

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]
    info: Any = UNSET
    licenses: Any = UNSET

    def __post_init__(self):
        self.source = "annotations"


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Building millions of lists, Python's collector would walk them again and again: five times the time of the work."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@no_garbage_collection()
def read_coco(path: str | Path, category: str | None = None) -> CocoFile:
    """Read and check a COCO keypoint file.

    Args:
        path: the JSON file.
        category: a category that must be in the file; nothing is filtered.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, not COCO (naming the place in the file), keypoints not 3 per name, a repeated id, an unknown
            image or category, a number that is not finite, a file_name that leaves the image folder.
        KeyError: `category` is not in the file.
    """
    path = Path(path)
    coco = _decode(path, CocoFile)
    coco.source = str(path)
    check_coco(coco)
    if category is not None:
        category_named(coco, category)
    return coco


def write_coco(path: str | Path, coco: CocoFile) -> Path:
    """Check and write a COCO file: first beside, then moved into place, so that no half-written file is ever seen."""
    check_coco(coco, path)
    return files.write(path, msgspec.json.encode(coco))


def check_coco(coco: CocoFile, path: str | Path | None = None) -> None:
    """Raise ValueError, in one sentence that starts with the file, for the first thing that does not fit together."""
    path = path or coco.source
    _check_unique(path, "images", (image.id for image in coco.images))
    _check_unique(path, "annotations", (a.id for a in coco.annotations))
    _check_unique(path, "categories", (c.id for c in coco.categories))
    for image in coco.images:
        _check_image(path, image)
    image_ids = {image.id for image in coco.images}
    names = {c.id: c for c in coco.categories}
    for a in coco.annotations:
        if a.image_id not in image_ids:
            raise ValueError(f"{path}: annotation {a.id} is for image_id {a.image_id}, which `images` does not list")
        if a.category_id not in names:
            raise ValueError(f"{path}: annotation {a.id} has category_id {a.category_id}; known are {sorted(names)}")
        _check_annotation(path, a, names[a.category_id])


def category_named(coco: CocoFile, name: str | None = None, path: str | Path | None = None) -> Category:
    """The category of that name, or for None the only one that lists keypoints; KeyError otherwise."""
    path = path or coco.source
    with_keypoints = [c for c in coco.categories if c.keypoints]
    if name is None:
        if len(with_keypoints) == 1:
            return with_keypoints[0]
        found = ", ".join(repr(c.name) for c in with_keypoints) or "none"
        raise KeyError(f"{path}: exactly one category with keypoints is needed, found {found}: say category=NAME")
    for category in coco.categories:
        if category.name == name:
            return category
    known = ", ".join(repr(c.name) for c in coco.categories) or "none"
    raise KeyError(f"{path}: no category {name!r}; the file has {known}")


def skeleton_of(coco: CocoFile, category: str | None = None) -> Skeleton:
    """The skeleton of a category, with its own `sigmas` where the file brings them."""
    return Skeleton.from_coco(_as_dict(category_named(coco, category)))


@no_garbage_collection()
def insert_neck(coco: CocoFile, category: str = "person", rounded: bool = True) -> CocoFile:
    """Append a neck between the shoulders to every figure, and rewire the category's links through it.

    With `rounded` this is what trt_pose's preparation script does: the mean of the shoulders rounded half to even, also
    where a shoulder is not labelled. Without, the exact midpoint, and 0, 0 where a shoulder is not labelled. In both
    v = 0 if a shoulder has v = 0, else 1 if one is hidden, else 2. `num_keypoints` stays what it was, as in trt_pose:
    COCO's evaluation only asks whether it is 0, and a neck never changes that.

    Args:
        coco: stays as it is.
        category: the one to change; the others pass through.
        rounded: see above.

    Returns:
        A new CocoFile that shares the untouched parts.

    Raises:
        KeyError: no such category, or it lacks a nose, shoulders or hips.
        ValueError: it has a neck already.
    """
    old = category_named(coco, category)
    skeleton = skeleton_of(coco, category)
    ends = skeleton.index("left_shoulder"), skeleton.index("right_shoulder")
    changed = skeleton.with_neck().to_coco()
    new = msgspec.structs.replace(old, keypoints=changed["keypoints"], skeleton=changed["skeleton"])
    if old.sigmas is not UNSET:
        new.sigmas = changed["sigmas"]

    def with_neck(a: Annotation) -> Annotation:
        if a.category_id != old.id or not a.keypoints:
            return a
        return msgspec.structs.replace(a, keypoints=[*a.keypoints, *_neck(a.keypoints, *ends, rounded)])

    return _changed(coco, old, new, with_neck)


@no_garbage_collection()
def with_skeleton(coco: CocoFile, skeleton: Skeleton, category: str | None = None) -> CocoFile:
    """Give the figures of a category the keypoints of another skeleton, selected and put in order by name, and its limbs.

    A neck that only the skeleton has is computed first: the exact middle of the shoulders, see `insert_neck`. Figures that
    lose keypoints are counted anew. Mirror twins are found by name when the result is read.

    Args:
        coco: stays as it is.
        skeleton: what the figures are to have.
        category: the one to change, which keeps its name; None: the only one with keypoints.

    Returns:
        A new CocoFile that shares the untouched parts.

    Raises:
        KeyError: no such category.
        ValueError: the skeleton has keypoints that the category has not.
    """
    old = category_named(coco, category)
    if lacks_neck(old, skeleton):
        coco = insert_neck(coco, old.name, rounded=False)
        old = category_named(coco, old.name)
    order = order_of(old, skeleton, coco.source)
    places = [i for k in order for i in (3 * k, 3 * k + 1, 3 * k + 2)]
    fewer = len(order) < len(old.keypoints)

    def chosen(a: Annotation) -> Annotation:
        if a.category_id != old.id or not a.keypoints:
            return a
        keypoints = [a.keypoints[i] for i in places]
        count = sum(v > 0 for v in keypoints[2::3]) if fewer else a.num_keypoints
        return msgspec.structs.replace(a, keypoints=keypoints, num_keypoints=count)

    new = skeleton.to_coco()
    new = msgspec.structs.replace(old, **{key: new[key] for key in ("keypoints", "skeleton", "sigmas")})
    return _changed(coco, old, new, chosen)


def lacks_neck(category: Category, skeleton: Skeleton) -> bool:
    """Whether the skeleton has a neck that must be computed, because the category has none."""
    return "neck" in skeleton.keypoints and "neck" not in (category.keypoints or ())


def order_of(category: Category, skeleton: Skeleton, source: str | Path) -> list[int]:
    """Where a skeleton's keypoints stand among those of a category; ValueError names the ones that do not."""
    missing = [name for name in skeleton.keypoints if name not in (category.keypoints or ())]
    if missing:
        raise ValueError(f"{source}: category {category.name!r} has no {', '.join(missing)}, which the skeleton "
                         f"{skeleton.name!r} asks for; it has {', '.join(category.keypoints or ()) or 'no keypoints'}")  # fmt: skip
    return [category.keypoints.index(name) for name in skeleton.keypoints]


@no_garbage_collection()
def insert_neck_file(source: str | Path, target: str | Path, category: str = "person", rounded: bool = True) -> Path:
    """Write a copy of a COCO file whose figures have a neck (see `insert_neck`).

    Everything else in the file, also keys that COCO does not define, is written back as it was.

    Args:
        source: COCO keypoint file to read; it is never changed.
        target: file to write.
        category: the category to change.
        rounded: trt_pose's rule; off: the exact midpoint.
    """
    source, target = Path(source), Path(target)
    if target.resolve() == source.resolve():
        raise ValueError(f"{source}: the neck is written to a new file, choose another target than the source")
    coco = insert_neck(read_coco(source, category), category, rounded)
    content = _decode(source, dict)
    for old, new in zip(content["annotations"], coco.annotations, strict=True):
        if new.keypoints:
            old["keypoints"] = new.keypoints
    for old, new in zip(content["categories"], coco.categories, strict=True):
        old.update(_as_dict(new))
    changed = category_named(coco, category).id
    figures = sum(bool(a.keypoints) and a.keypoints[-1] > 0 for a in coco.annotations if a.category_id == changed)
    print(f"{target}: {figures:,} figures of {category!r} have a labelled neck")
    return files.write(target, msgspec.json.encode(content))


def box_around(points: Sequence[Sequence[Number]], size: tuple[int, int], margin: bool = True) -> list[float]:
    """[x, y, width, height] around points (x, y) with `MARGIN`, cut at a picture of (H, W); [] around none.

    Points that all lie outside keep their box uncut.
    """
    if not len(points):
        return []
    (left, right), (top, bottom) = ((min(values), max(values)) for values in zip(*points))
    around = max(MARGIN * max(right - left, bottom - top), MIN_MARGIN) if margin else 0
    left, top, right, bottom = left - around, top - around, right + around, bottom + around
    if left < size[1] and top < size[0] and right > 0 and bottom > 0:
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, size[1]), min(bottom, size[0])
    return [round(float(v), 2) for v in (left, top, right - left, bottom - top)]


def polygons_area(polygons: Iterable[Sequence[Number]]) -> float:
    """Pixels² within polygons [x, y, x, y, …], each for itself (shoelace formula)."""
    total = 0.0
    for polygon in polygons:
        x, y = polygon[0::2], polygon[1::2]
        turned = zip(x, y, [*x[1:], *x[:1]], [*y[1:], *y[:1]])
        total += abs(sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in turned)) / 2
    return total


def find_split(data_dir: str | Path, split: str) -> tuple[Path, Path]:
    """Where the annotations and the images of a split ("train", "val") lie.

    Four layouts are understood: ours (annotations/*_keypoints_train.json + train/), the same with the pictures of all
    splits in images/ (MPII), COCO's (annotations/person_keypoints_train2017.json + train2017/), and a flat folder (one
    *.json + images/), which serves every split with the same files.

    Returns:
        (annotation file, image folder)

    Raises:
        FileNotFoundError: none of them, saying what was looked for.
        ValueError: several files fit.
    """
    data_dir = Path(data_dir)
    ours, official = f"*_keypoints_{split}.json", f"*_keypoints_{split}2017.json"
    for images, pattern in ((split, ours), ("images", ours), (f"{split}2017", official)):
        found = sorted(data_dir.glob(f"annotations/{pattern}"))
        if found and (data_dir / images).is_dir():
            return _only(found), data_dir / images
    found = sorted(data_dir.glob("*.json"))
    if found and (data_dir / "images").is_dir():
        return _only(found), data_dir / "images"
    raise FileNotFoundError(
        f"{data_dir}: no {split!r} split found; expected annotations/*_keypoints_{split}.json with {split}/ or images/, or "
        f"annotations/person_keypoints_{split}2017.json with {split}2017/, or one *.json with images/"
    )


def _neck(keypoints: list[Number], left: int, right: int, rounded: bool) -> list[Number]:
    (xl, yl, vl), (xr, yr, vr) = keypoints[3 * left : 3 * left + 3], keypoints[3 * right : 3 * right + 3]
    v = 0 if vl == 0 or vr == 0 else 1 if vl == 1 or vr == 1 else 2
    x, y = (xl + xr) / 2, (yl + yr) / 2
    if rounded:
        return [round(x), round(y), v]
    return [x, y, v] if v else [0, 0, 0]


def _changed(coco: CocoFile, old: Category, new: Category, change: Callable[[Annotation], Annotation]) -> CocoFile:
    """The same file with another category in the place of `old`, and with every annotation changed."""
    categories = [new if c is old else c for c in coco.categories]
    result = msgspec.structs.replace(coco, annotations=[change(a) for a in coco.annotations], categories=categories)
    result.source = coco.source
    return result


def _check_unique(path, what: str, ids: Iterable[int]) -> None:
    seen = set()
    for i in ids:
        if i in seen:
            raise ValueError(f"{path}: {what} use the id {i} twice")
        seen.add(i)


def _check_image(path, image: Image) -> None:
    if image.width <= 0 or image.height <= 0:
        raise ValueError(f"{path}: image {image.id} has the size {image.width}×{image.height}")
    try:
        files.relative(image.file_name)
    except ValueError:
        raise ValueError(
            f"{path}: file_name {image.file_name!r} of image {image.id} leaves the image folder: "
            "write it relative to that folder, without '..'"
        ) from None


def _check_annotation(path, a: Annotation, category: Category) -> None:
    if a.keypoints and category.keypoints:
        given, needed = len(a.keypoints), 3 * len(category.keypoints)
        if given != needed:
            raise ValueError(
                f"{path}: annotation {a.id} has {given} keypoint numbers, category {category.name!r} with "
                f"{len(category.keypoints)} keypoints needs {needed} (x, y, v each)"
            )
        unknown = set(a.keypoints[2::3]) - {0, 1, 2}
        if unknown:
            raise ValueError(f"{path}: annotation {a.id} has the visibility {unknown.pop()}; COCO knows 0, 1 and 2")
    for what in ("keypoints", "bbox"):
        values = getattr(a, what)
        if values and not _is_finite(values):
            raise ValueError(f"{path}: annotation {a.id} has a number in {what} that is not finite: {values}")
    if a.bbox and len(a.bbox) != 4:
        raise ValueError(f"{path}: annotation {a.id} has a bbox of {len(a.bbox)} numbers, not x, y, width, height")
    if isinstance(a.segmentation, list) and any(len(polygon) % 2 for polygon in a.segmentation):
        raise ValueError(f"{path}: annotation {a.id} has a polygon with an odd number of coordinates")


def _is_finite(values: list[Number]) -> bool:
    try:
        return math.isfinite(sum(values))
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _decode(path: Path, kind: type):
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: not a COCO keypoint file: {error}; `python -m lib convert` reads what annotation tools "
                         "export") from None  # fmt: skip
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file: {error} (NaN and Infinity are no JSON either; `python -m lib doctor {path} --fix "
                         "COPY` mends what can be read)") from None  # fmt: skip


def _as_dict(struct: Struct) -> dict:
    return {k: v for k, v in msgspec.structs.asdict(struct).items() if v is not UNSET}


def _only(found: list[Path]) -> Path:
    if len(found) > 1:
        raise ValueError(f"{found[0].parent}: several files fit, keep one: {', '.join(p.name for p in found)}")
    return found[0]
