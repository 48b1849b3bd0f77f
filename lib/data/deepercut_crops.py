"""DeeperCut's training crops of MPII, one person each, all heads the same size, and its `dataset.mat`.

Source: Insafutdinov et al., DeeperCut, ECCV 2016, and the MATLAB preparation of its public TensorFlow version, which is
reproduced to the pixel: bicubic resizing with a = −0.5 and antialiasing, output size rounded up. Pillow's filter is the
same; OpenCV's has a = −0.75 and none, and Pillow alone would stretch a picture to its rounded size and renormalise at
the border where MATLAB mirrors, so the picture is mirrored and placed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from lib.data.mpii import RECTS, REFERENCE, MpiiImage, MpiiPerson, head_size, read_mat, to_coco, write_mat
from lib.people import apply_affine
from lib.skeleton import MPII14, MPII16, Skeleton

HEAD = 50  # pixels of a head in a published crop: a standing person is about 400 tall
MARGINS = {True: 130, False: 65}  # of published crops around the joints, of people who stand apart and of the others
_KEEP_OFF = 20  # pixels between a published crop of somebody who stands apart and the next person's joint
_PLAUSIBLE = 0.25, 2500.0  # head sizes in pixels
_MOST_PIXELS = 64_000_000


@dataclass(frozen=True)
class Crop:
    """One person's crop.

    Attributes:
        image: where it is cut from.
        person: the one it is about; others in it are not annotated.
        factor: pixels of the image per pixel of the crop, head size / `head`.
        box: (x1, y1, x2, y2) in the resized image, from 1 and inclusive as in MATLAB.
        head: pixels of the head in the crop.
    """

    image: MpiiImage
    person: MpiiPerson
    factor: float
    box: tuple[int, int, int, int]
    head: float = HEAD

    @property
    def id(self) -> int:
        """Of the person's annotation in the file of whole pictures."""
        return self.image.id * RECTS + self.person.rect

    @property
    def name(self) -> str:
        return f"im{self.image.id:05d}_{self.person.rect}.png"

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        x1, y1, x2, y2 = self.box
        return y2 - y1 + 1, x2 - x1 + 1

    @property
    def affine(self) -> np.ndarray:
        """(2, 3) pixels of the image → pixels of the crop, exact.

        The original keeps another matrix the other way round, T = factor · [1 0 x1; 0 1 y1; 0 0 1] in MATLAB's pixels.
        """
        # resizing maps the edges of the picture on each other, half a pixel outside its first and last centre
        shift = 0.5 / self.factor - 0.5 - (np.array(self.box[:2]) - 1)
        return np.column_stack([np.eye(2) / self.factor, shift])

    @property
    def picture(self) -> MpiiImage:
        """The crop as a picture of its own with one person, everything in its pixels."""
        person = self.person
        keypoints = person.keypoints.copy()
        keypoints[:, :2] = apply_affine(self.affine, keypoints[:, :2])
        x, y, *sides = person.head_box
        head_box = (*apply_affine(self.affine, np.array([x, y])).tolist(), *(side / self.factor for side in sides))
        objpos = person.objpos and tuple(apply_affine(self.affine, np.array(person.objpos)).tolist())
        person = replace(person, keypoints=keypoints, head_box=head_box, objpos=objpos, scale=self.head * 8 / REFERENCE)
        return replace(self.image, id=self.id, name=self.name, people=(person,))

    @property
    def joints(self) -> np.ndarray:
        """(n, 3) int32 [id, x, y] as the original writes them: ids of `MPII14` from 0, pixels from 1, rounded.

        It divides where a resized picture also shifts: before rounding they are those of `picture` + 1 + (1 − 1/factor)/2.
        """
        points = self.person.keypoints[[MPII16.index(name) for name in MPII14.keypoints]]
        places = rounded((points[:, :2] + 1) / self.factor - self.box[:2] + 1)
        return np.column_stack([np.arange(len(points)), places])[points[:, 2] > 0].astype(np.int32)


def plan_crops(
    images: Sequence[MpiiImage],
    sizes: dict[str, tuple[int, int]],
    margins: dict[bool, int] = MARGINS,
    head: float = HEAD,
) -> tuple[list[Crop], list[str]]:
    """The crops of images in the original's order: first everybody who stands apart, then all others.

    A crop holds all joints (also pelvis and thorax) and a margin. Of somebody who stands apart in a picture with more
    people it ends 20 pixels before the nearest joint of another person to the left and to the right.

    Args:
        images: annotated ones.
        sizes: (height, width) of every image by name.
        margins: pixels around the joints of a crop whose head has the published 50 pixels, by `single`.
        head: pixels of the head in the crops; margins shrink and grow with it.

    Returns:
        The crops, and a sentence for every annotated person who cannot have one.
    """
    crops, left_out = [], []
    for single in (True, False):
        for image in images:
            for person in image.people:
                if person.single == single and person.labelled.any():
                    try:
                        crops.append(_plan(image, person, sizes[image.name], margins[single], head))
                    except ValueError as reason:
                        left_out.append(f"image {image.id} ({image.name}), rectangle {person.rect}: {reason}")
    return crops, left_out


def cut(image: np.ndarray, crop: Crop) -> np.ndarray:
    """Resize and cut at once: (H, W, 3) uint8 → (*crop.size, 3) uint8, equal to MATLAB's up to rounding."""
    x1, y1, x2, y2 = crop.box
    border = math.ceil(2 * max(crop.factor, 1) + crop.factor) + 1
    # turned over, because MATLAB resizes down the columns first and clips in between, Pillow along the rows
    mirrored = cv2.copyMakeBorder(cv2.transpose(image), *[border] * 4, cv2.BORDER_REFLECT)
    place = [edge * crop.factor + border for edge in (y1 - 1, x1 - 1, y2, x2)]
    resized = Image.fromarray(mirrored).resize(crop.size, Image.Resampling.BICUBIC, place)
    return cv2.transpose(np.asarray(resized))


def crops_to_coco(crops: Sequence[Crop], skeleton: Skeleton = MPII14) -> dict[str, list]:
    """COCO keypoint file of crops as `lib.data.mpii.to_coco` has it, in exact coordinates (not those of `Crop.joints`).

    Its images also have `source` and `source_id`, the picture they are cut from, and `affine`, the way from there.
    """
    content = to_coco([crop.picture for crop in crops], {crop.name: crop.size for crop in crops}, skeleton)
    for image, crop in zip(content["images"], crops, strict=True):
        image |= {"source": crop.image.name, "source_id": crop.image.id, "affine": crop.affine.tolist()}
    return content


@dataclass(frozen=True)
class Sample:
    """One entry of `dataset.mat`.

    Attributes:
        image: path of the picture, as it stands in the file.
        size: (height, width).
        joints: one (n, 3) int32 [id from 0, x, y] for each person; absent joints are left out. The original's loader
            reads the first person only.
        crop: (x1, y1, x2, y2) counted from 1, the part of the picture to use, or None.
    """

    image: str
    size: tuple[int, int]
    joints: tuple[np.ndarray, ...]
    crop: tuple[int, int, int, int] | None = None


def write_dataset_mat(path: str | Path, samples: Iterable[Sample]) -> Path:
    """Write the `dataset` struct which DeeperCut's TensorFlow version and early DeepLabCut train from.

    Raises:
        ValueError: no samples, or only some of them have a crop.
    """
    samples = list(samples)
    cropped = {sample.crop is not None for sample in samples}
    if len(cropped) != 1:
        raise ValueError(f"{path}: {len(samples)} samples, {'some' if samples else 'none'} with a crop: all or none")
    fields = ["image", "size", "joints", *(["crop"] if cropped == {True} else [])]
    dataset = np.empty((1, len(samples)), [(field, object) for field in fields])
    for row, sample in zip(dataset[0], samples):
        people = np.empty((1, len(sample.joints)), object)
        for i, joints in enumerate(sample.joints):
            people[0, i] = np.asarray(joints, np.int32).reshape(-1, 3)
        row["image"], row["joints"] = sample.image, people
        row["size"] = np.array([[3, *sample.size]], np.int32)
        if sample.crop is not None:
            row["crop"] = np.array([sample.crop], np.int32)
    return write_mat(path, {"dataset": dataset})


def read_dataset_mat(path: str | Path) -> list[Sample]:
    """Read a `dataset.mat` of DeeperCut or DeepLabCut; fields by name, or by position as the original's loader does.

    MATLAB stores `size` in the smallest integer that holds it (uint8, uint16); here they are plain ints, which do not
    overflow. Without joints (a test set) nobody is in the sample.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a MATLAB file, no `dataset` in it, or an entry that is not image, size and joints.
    """
    dataset = read_mat(path).get("dataset")
    fields = getattr(getattr(dataset, "dtype", None), "names", None) or ()
    if len(fields) < 2:
        raise ValueError(f"{path}: no struct `dataset` with image, size and joints in it")
    samples = []
    for i, row in enumerate(dataset.ravel(order="F")):
        try:
            samples.append(_sample(row, fields))
        except (ValueError, IndexError, TypeError):
            raise ValueError(f"{path}: entry {i + 1} of `dataset` is not an image path, a size [3 H W] and joints "
                             "[id x y]") from None  # fmt: skip
    return samples


def rounded(values):
    """MATLAB's rounding: halves away from zero."""
    return np.copysign(np.floor(np.abs(values) + 0.5), values)


def _plan(image: MpiiImage, person: MpiiPerson, size: tuple[int, int], margin: int, head: float) -> Crop:
    found = head_size(person.head_box) if person.head_box else 0
    if not _PLAUSIBLE[0] < found < _PLAUSIBLE[1]:
        raise ValueError("no head box" if person.head_box is None else f"a head of {found:g} pixels")
    factor = found / head
    margin, keep_off = rounded(margin * head / HEAD), _KEEP_OFF * head / HEAD
    height, width = (math.ceil(side * (1 / factor)) for side in size)
    joints = {p.rect: (p.keypoints[p.labelled, :2] + 1) / factor for p in image.people}
    own = joints.pop(person.rect)
    (left, top), (right, bottom) = rounded(own.min(axis=0)), rounded(own.max(axis=0))
    x1, y1 = max(1, left - margin), max(1, top - margin)
    x2, y2 = min(width, right + margin), min(height, bottom + margin)
    if person.single:
        others = np.concatenate([[], *(points[:, 0] for points in joints.values())])
        x1 = rounded(max(x1, others[others < left].max(initial=-np.inf) + keep_off))
        x2 = rounded(min(x2, others[others > right].min(initial=np.inf) - keep_off))
    if x1 > x2 or y1 > y2 or (x2 - x1) * (y2 - y1) > _MOST_PIXELS:
        raise ValueError(f"its crop would have {int(x2 - x1 + 1)}×{int(y2 - y1 + 1)} pixels")
    return Crop(image, person, factor, tuple(int(edge) for edge in (x1, y1, x2, y2)), head)


def _sample(row, fields: Sequence[str]) -> Sample:
    def field(position: int, name: str) -> np.ndarray | None:
        if name not in fields and position >= len(fields):
            return None
        return row[name if name in fields else fields[position]]

    people, crop = field(2, "joints"), field(3, "crop")
    people = () if people is None else people.ravel(order="F") if people.dtype == object else [people]
    _, height, width = (int(n) for n in field(1, "size").ravel())
    joints = tuple(rounded(p.reshape(-1, 3).astype(float)).astype(np.int32) for p in people if p is not None)
    # penn_action has other fields in this place, with one number each
    crop = None if crop is None or crop.size != 4 else tuple(int(n) for n in crop.ravel())
    return Sample(str(field(0, "image").ravel()[0]), (height, width), joints, crop)
