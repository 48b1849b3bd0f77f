"""MPII Human Pose: the MATLAB annotation file, read whatever shape MATLAB gave it, and turned into a COCO keypoint file.

Source: Andriluka et al., 2D Human Pose Estimation: New Benchmark and State of the Art Analysis, CVPR 2014. MATLAB counts
pixels from 1; everything here is in the project's pixels, so 1 is subtracted once, in `read_mpii`.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from scipy.io import loadmat, savemat
from scipy.io.matlab import MatReadError

from lib import files
from lib.data.coco import AREA_OF_BOX
from lib.data.split import held_out
from lib.skeleton import MPII16, Skeleton

HEAD_RATIO = 0.6  # of the head box's diagonal: the length that PCKh measures with
REFERENCE = 200  # `scale` is the person's height in this many pixels
RECTS = 1000  # a person's id is the image's · this + the rectangle's
_MAT_HEADER = b"MATLAB 5.0 MAT-file".ljust(116)  # without SciPy's date: equal content, equal bytes

# broken bytes lead SciPy to any of these
_MAT_ERRORS = (ArithmeticError, AttributeError, EOFError, LookupError, MatReadError, MemoryError, OSError, RuntimeError,
               TypeError, ValueError, struct.error, zlib.error)  # fmt: skip


@dataclass(frozen=True)
class MpiiPerson:
    """One `annorect`, in 0-based pixels.

    Attributes:
        rect: its 1-based index within the image, as `single_person` and the evaluation server count.
        keypoints: (16, 3) float64 [x, y, v] in the order of `MPII16`; joints may lie outside the image.
        head_box: (x, y, width, height), or None (test images have none).
        objpos: rough centre (x, y) of the person, or None.
        scale: height of the person / 200 px, or None.
        single: stands apart from everybody else (`single_person`).
    """

    rect: int
    keypoints: np.ndarray
    head_box: tuple[float, float, float, float] | None
    objpos: tuple[float, float] | None
    scale: float | None
    single: bool

    @property
    def labelled(self) -> np.ndarray:
        """(16,) bool: which joints are annotated."""
        return self.keypoints[:, 2] > 0


@dataclass(frozen=True)
class MpiiImage:
    """One entry of `annolist`.

    Attributes:
        id: its 1-based index there.
        name: file name, as it stands in the file and not yet to be trusted.
        train: `img_train`; the joints of test images are withheld.
        video: `vididx`, the YouTube video it was taken from, or None.
        people: every rectangle, also those without joints.
    """

    id: int
    name: str
    train: bool
    video: int | None
    people: tuple[MpiiPerson, ...]

    @property
    def labelled(self) -> bool:
        return any(person.labelled.any() for person in self.people)


def head_size(box: Sequence[float]) -> float:
    """The unit of PCKh: 0.6 × the diagonal of a head box (x, y, width, height), in its pixels.

    A keypoint is correct at PCKh@0.5 if it lies within half of this of the truth.
    """
    return HEAD_RATIO * math.hypot(box[2], box[3])


def read_mpii(path: str | Path) -> list[MpiiImage]:
    """Read `mpii_human_pose_v1_u12_1.mat` (variable RELEASE).

    An annotated joint is v = 2 (visible) unless `is_visible` says 0, then v = 1; head and neck carry no flag and the
    flag may be empty: 2. A joint without coordinates, or listed a second time, does not count.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a MATLAB file, no RELEASE in it, its lists do not belong together, or a joint's id is not 0–15.
    """
    release = _release(Path(path))
    images = _items(release, "annolist")
    train, single = _items(release, "img_train"), _items(release, "single_person")
    if not images or len(train) != len(images) or len(single) not in (0, len(images)):
        raise ValueError(
            f"{path}: RELEASE has {len(images)} images in annolist, {len(train)} in img_train and {len(single)} in "
            "single_person; use mpii_human_pose_v1_u12_1.mat as it was downloaded"
        )
    result = []
    for i, image in enumerate(images):
        name = next((str(name) for part in _items(image, "image") for name in _items(part, "name")), "")
        alone = {int(rect) for rect in np.ravel(single[i])} if single else set()
        people = tuple(
            _person(rect, r, r in alone, f"{path}: image {i + 1} ({name}), rectangle {r}")
            for r, rect in enumerate(_items(image, "annorect"), 1)
        )
        video = _number(image, "vididx")
        result.append(MpiiImage(i + 1, name, bool(train[i]), None if video is None else int(video), people))
    return result


def split_by_video(images: Sequence[MpiiImage], fraction: float) -> set[int]:
    """Ids of the images to validate with: whole videos, so that no scene is on both sides.

    An image without a video stands for itself; see `held_out`.

    Raises:
        ValueError: the fraction is not within 0..1.
    """
    keys = [f"image {image.id}" if image.video is None else f"video {image.video}" for image in images]
    return {image.id for image, held in zip(images, held_out(keys, fraction)) if held}


def read_names(path: str | Path) -> set[str]:
    """Image names from a list: a text file with one name a line, a COCO file, or JSON entries with `image`.

    The last is the form of the well-known `valid.json`; a plain JSON list of names will do as well.

    Raises:
        FileNotFoundError: no such file.
        ValueError: none of these, or empty.
    """
    content = Path(path).read_bytes()
    if not content.lstrip().startswith((b"[", b"{")):
        names = {line.strip() for line in content.decode(errors="replace").splitlines() if line.strip()}
    else:
        try:
            entries = msgspec.json.decode(content)
            entries = entries["images"] if isinstance(entries, dict) else entries
            names = {e if isinstance(e, str) else e["image"] if "image" in e else e["file_name"] for e in entries}
        except (msgspec.DecodeError, KeyError, TypeError):
            names = set()
    if not names:
        raise ValueError(f"{path}: no image names found; expected one name a line, or JSON entries with 'image'")
    return names


def to_coco(
    images: Sequence[MpiiImage], sizes: Mapping[str, tuple[int, int]], skeleton: Skeleton = MPII16
) -> dict[str, list]:
    """COCO keypoint file as plain lists and dicts, with what COCO has no place for under keys of its own.

    MPII annotates no boxes and no regions. `bbox` is the box around a person's joints and head box, grown by half a head
    size (joints lie within the limbs) and cut at the image; without joints it is the square of the person's height
    around `objpos`. `area`, which OKS scales with, is 0.53 of the box, as CrowdPose has it.

    Args:
        images: those to write; the annolist index becomes the image id.
        sizes: (height, width) of every image by name.
        skeleton: `MPII16`, or any whose keypoints have names of `MPII16`, such as `MPII14`.

    Returns:
        images (COCO's keys and `video`), annotations (COCO's keys, `rect`, `single_person`, and where annotated
        `head_box` [x, y, width, height], `objpos` [x, y] and `scale`; id = 1000 · image id + rect), categories.

    Raises:
        KeyError: the skeleton has a keypoint that MPII does not annotate.
    """
    order = [MPII16.index(name) for name in skeleton.keypoints]
    category = skeleton.to_coco()
    annotations = []
    for image in images:
        for person in image.people:
            a = {"id": image.id * RECTS + person.rect, "image_id": image.id, "category_id": category["id"]}
            annotations.append(a | labels(person.keypoints[order], _box(person), sizes[image.name]) | _extras(person))
    listed = [
        {"id": image.id, "file_name": image.name, "height": sizes[image.name][0], "width": sizes[image.name][1]}
        | ({} if image.video is None else {"video": image.video})
        for image in images
    ]
    return {"images": listed, "annotations": annotations, "categories": [category]}


def labels(keypoints: np.ndarray, box: Sequence[float] | None, size: tuple[int, int]) -> dict:
    """COCO's keys of one person: keypoints (K, 3), the box [x0, y0, x1, y1] cut at an image of (height, width)."""
    keypoints = np.where(keypoints[:, 2:] > 0, keypoints, 0)
    found = {
        "keypoints": [int(n) if n == int(n) else n for n in keypoints.ravel().tolist()],
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "iscrowd": 0,
    }
    if box is None:
        return found | {"area": 0}
    x0, y0, x1, y1 = np.clip(box, 0, np.array(size)[[1, 0, 1, 0]]).tolist()
    w, h = x1 - x0, y1 - y0
    return found | {"bbox": [round(n, 2) for n in (x0, y0, w, h)], "area": round(AREA_OF_BOX * w * h, 2)}


def read_mat(path: str | Path, **options) -> dict:
    """SciPy's `loadmat` with one error, ValueError, for whatever the bytes lead it to; FileNotFoundError stays."""
    content = Path(path).read_bytes()
    try:
        return loadmat(io.BytesIO(content), **options)
    except _MAT_ERRORS as error:
        raise ValueError(f"{path}: not a MATLAB file that can be read ({error}); get it again") from None


def write_mat(path: str | Path, variables: Mapping) -> Path:
    """SciPy's `savemat`, compressed; what is equal has equal bytes."""
    content = io.BytesIO()
    savemat(content, variables, do_compression=True)
    return files.write(path, _MAT_HEADER + content.getvalue()[len(_MAT_HEADER) :])


def around(keypoints: np.ndarray, margin: float, head_box: Sequence[float] | None = None) -> list[float] | None:
    """[x0, y0, x1, y1] around the labelled keypoints (K, 3) and the head box, grown by a margin; None without any."""
    points = keypoints[keypoints[:, 2] > 0, :2]
    if not len(points):
        return None
    if head_box is not None:
        x, y, w, h = head_box
        points = np.concatenate([points, [[x, y], [x + w, y + h]]])
    return [*(points.min(axis=0) - margin).tolist(), *(points.max(axis=0) + margin).tolist()]


def _box(person: MpiiPerson) -> list[float] | None:
    head = head_size(person.head_box) if person.head_box else REFERENCE / 8 * (person.scale or 0)
    box = around(person.keypoints, head / 2, person.head_box)
    if box is None and person.objpos and person.scale:
        (x, y), half = person.objpos, person.scale * REFERENCE / 2
        box = [x - half, y - half, x + half, y + half]
    return box


def _extras(person: MpiiPerson) -> dict:
    extras = {"head_box": person.head_box, "objpos": person.objpos, "scale": person.scale}
    found = {key: value for key, value in extras.items() if value is not None}
    return {"rect": person.rect, "single_person": person.single} | found


def _release(path: Path):
    # unsqueezed, absent, single and several entries look alike: arrays of 0, 1 and n
    variables = read_mat(path, struct_as_record=False)
    release = next(iter(np.ravel(variables.get("RELEASE"))), None)
    if not hasattr(release, "annolist"):
        names = ", ".join(name for name in variables if not name.startswith("__")) or "nothing"
        raise ValueError(
            f"{path}: no MPII annotations: it holds {names}, not RELEASE with annolist; "
            "the file is mpii_human_pose_v1_u12_1.mat"
        )
    return release


def _items(entry, field: str) -> list:
    """Entries of a field; none where it is absent, empty, or its owner is not a struct."""
    return list(np.ravel(getattr(entry, field, ()), order="F"))


def _number(entry, field: str) -> float | None:
    """The first entry of a field if it is a finite number."""
    value = next(iter(_items(entry, field)), None)
    return float(value) if isinstance(value, (int, float, np.number)) and math.isfinite(value) else None


def _person(rect, index: int, single: bool, where: str) -> MpiiPerson:
    keypoints = np.zeros((MPII16.num_keypoints, 3))
    for points in _items(rect, "annopoints"):
        for point in _items(points, "point"):
            joint, x, y = (_number(point, field) for field in ("id", "x", "y"))
            if joint is None or x is None or y is None:
                continue
            if joint not in range(len(keypoints)):
                raise ValueError(f"{where}: a joint has the id {joint:g}; MPII's joints are 0 to 15")
            if not keypoints[int(joint), 2]:
                keypoints[int(joint)] = x - 1, y - 1, _visibility(point)
    corners = [_number(rect, field) for field in ("x1", "y1", "x2", "y2")]
    head_box = None
    if None not in corners:
        x1, y1, x2, y2 = corners
        head_box = min(x1, x2) - 1, min(y1, y2) - 1, abs(x2 - x1), abs(y2 - y1)
    position = [_number(objpos, axis) for objpos in _items(rect, "objpos")[:1] for axis in ("x", "y")]
    objpos = (position[0] - 1, position[1] - 1) if position and None not in position else None
    return MpiiPerson(index, keypoints, head_box, objpos, _number(rect, "scale"), single)


def _visibility(point) -> int:
    flag = next(iter(_items(point, "is_visible")), "")
    return 1 if str(flag).strip() in ("0", "0.0", "False") else 2
