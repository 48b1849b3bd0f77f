"""Training samples of top-down networks: one upright crop around the box of every annotated person, and nobody else.

Source: Xiao et al., Simple Baselines for Human Pose Estimation and Tracking, ECCV 2018 (arXiv:1804.06208); shifts and half
bodies as in MMPose. A box is COCO's [x, y, width, height], counted from the edges of pixels: that of a whole picture is
[0, 0, W, H], and its middle lies half a pixel before x + width/2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri

from lib.data.coco import CocoFile, box_around
from lib.data.dataset import KeypointSamples
from lib.data.index import LabelIndex
from lib.skeleton import Skeleton

PADDING = 1.25
"""Sides of a crop per side of its box, everywhere in the literature."""
_FEWEST_UPPER, _FEWEST_LOWER = 2, 3  # keypoints that make half a body


def box_affine(box: Sequence[float], input_size: tuple[int, int], padding: float = PADDING, *, angle: float = 0.0,
               flip: bool = False, cells: str = "centres") -> np.ndarray:  # fmt: skip
    """The affine that brings a box into the middle of the input: one scale, the box padded, its shorter side grown to fit.

    Args:
        box: [x, y, width, height, …] in pixels from the picture's edge; sides below a pixel count as one.
        input_size: (H, W) of the network's input.
        padding: factor on the sides of the box.
        angle: the picture turns by so many degrees about the middle of the box, clockwise as seen.
        flip: mirror the crop.
        cells: what lies on what. "centres": the edges of the crop are those of the input, as everywhere in this workbook.
            "first" (Microsoft, MMPose): x + width/2 comes to W/2, counted from the middle of the first pixel. "ends"
            (unbiased data processing): the edges of the crop come to the middles of the first and of the last pixel.

    Returns:
        (2, 3) float64 picture → input.
    """
    x, y, width, height = (float(v) for v in box[:4])
    to = np.array(input_size[::-1], float)
    crop = padding * max(width, 1.0, max(height, 1.0) * to[0] / to[1])
    middle = np.array([x + width / 2, y + height / 2])
    scale = to / (crop, crop * to[1] / to[0])
    if cells == "ends":
        scale *= (to - 1) / to
    if cells == "centres":
        middle -= 0.5
    place = to / 2 if cells == "first" else (to - 1) / 2
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    linear = scale[:, None] * np.array([[cos, -sin], [sin, cos]])
    affine = np.column_stack([linear, place - linear @ middle])
    if flip:
        affine[0] = -affine[0]
        affine[0, 2] += to[0] - 1
    return affine


@dataclass(frozen=True)
class BoxAugment:
    """Random geometry of a crop around a person's box (the original's ranges by default).

    MMPose's are `BoxAugment(scale=0.5, rotation=80, shift=0.16, half_body=0.3, normal="truncated")`, RTMPose's the same with
    scale=0.4, and in its last epochs scale=0.25, rotation=60, shift=0.

    Attributes:
        padding: factor on the sides of the box; the same when predicting.
        scale: how much larger or smaller than that a crop may be, as a fraction.
        rotation: in degrees, both ways.
        rotation_probability: of turning at all.
        shift: of the crop's middle, as a fraction of the padded box, each axis on its own.
        shift_probability: of shifting at all.
        flip: probability of mirroring.
        half_body: probability that the crop is around the upper or the lower body only, if more than half of the keypoints are
            labelled. Keypoints of the other half stay labelled.
        half_body_padding: factor on the box around the keypoints of that half.
        upper_body: probability of the upper one, where both have enough keypoints.
        lower_names: a keypoint belongs to the lower body if its name contains one of these.
        normal: how scale, rotation and shift are drawn, all three from a normal distribution. "clipped" (Microsoft): their
            ranges are its standard deviations, at which it is cut; only rotations go up to twice theirs. "truncated" (MMPose):
            likewise, but those beyond are drawn again, rotations too, so that the ends are not more frequent.
    """

    padding: float = PADDING
    scale: float = 0.3
    rotation: float = 40.0
    rotation_probability: float = 0.6
    shift: float = 0.0
    shift_probability: float = 0.3
    flip: float = 0.5
    half_body: float = 0.0
    half_body_padding: float = 1.5
    upper_body: float = 0.7
    lower_names: tuple[str, ...] = ("hip", "knee", "ankle", "heel", "foot", "toe")
    normal: Literal["clipped", "truncated"] = "clipped"

    def __post_init__(self):
        object.__setattr__(self, "lower_names", tuple(self.lower_names))
        if self.normal not in ("clipped", "truncated"):
            raise ValueError(f"BoxAugment: normal is clipped or truncated, got {self.normal!r}")
        if not 0 <= self.scale < 1:
            raise ValueError(f"BoxAugment: scale is a fraction, 0 ≤ scale < 1, got {self.scale}")
        for name in ("padding", "half_body_padding"):
            if not getattr(self, name) > 0:
                raise ValueError(f"BoxAugment: {name} is a factor above 0, got {getattr(self, name)}")
        for name in ("rotation_probability", "shift_probability", "flip", "half_body", "upper_body"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"BoxAugment: {name} is a probability in 0..1, got {getattr(self, name)}")

    @property
    def still(self) -> BoxAugment:
        """Nothing random, the same padding."""
        return replace(self, scale=0, rotation=0, shift=0, flip=0, half_body=0)

    def lower(self, skeleton: Skeleton) -> np.ndarray:
        """(K,) bool: keypoints of the lower body.

        Raises:
            ValueError: half bodies are wanted, and the skeleton has none.
        """
        lower = np.array([any(part in name for part in self.lower_names) for name in skeleton.keypoints])
        if self.half_body and (lower.sum() < _FEWEST_LOWER or (~lower).sum() < _FEWEST_UPPER):
            raise ValueError(f"BoxAugment: half_body={self.half_body} needs a skeleton of two halves, and of {skeleton.name!r} "
                             f"{lower.sum()} of {len(lower)} keypoints are named like {', '.join(self.lower_names)}: name "
                             "those of the lower half in lower_names, or leave half_body out")  # fmt: skip
        return lower

    def sample(self, rng: np.random.Generator, box: Sequence[float], keypoints: np.ndarray, lower: np.ndarray,
               input_size: tuple[int, int]) -> tuple[np.ndarray, bool]:  # fmt: skip
        """Draw one affine.

        Args:
            rng: the only source of randomness; nine numbers are drawn.
            box: [x, y, width, height].
            keypoints: (K, 3) x, y and v of the person, in pixels of the picture.
            lower: of the skeleton.
            input_size: (H, W) of the crop.

        Returns:
            (2, 3) float64 original → crop, and whether it mirrors (then left and right keypoints change places).
        """
        drawn = rng.random(9)
        turns, shifts, mirrors, halves, upper = drawn[4:] < (
            self.rotation_probability, self.shift_probability, self.flip, self.half_body, self.upper_body)  # fmt: skip
        zoom, turn, *shift = self._normal(drawn[:4])
        half = _half_body(keypoints, lower, bool(upper)) if halves else None
        (x, y, w, h), padding = (box[:4], self.padding) if half is None else (half, self.half_body_padding)
        by = shifts * self.shift * padding * np.array(shift) * (w, h)
        affine = box_affine((x + by[0], y + by[1], w, h), input_size, padding * (1 + self.scale * zoom),
                            angle=turns * self.rotation * turn, flip=bool(mirrors))  # fmt: skip
        return affine, bool(mirrors)

    def _normal(self, uniform: np.ndarray) -> list[float]:
        """Normally distributed zoom, turn and shifts from numbers in 0..1."""
        if self.normal == "truncated":
            return ndtri(ndtr(-1) + uniform * (ndtr(1) - ndtr(-1))).tolist()
        return np.clip(ndtri(uniform), (-1, -2, -1, -1), (1, 2, 1, 1)).tolist()


class PersonBoxes(KeypointSamples):
    """Samples of one category of a COCO keypoint file, one for each person with keypoints who is no crowd.

    Args:
        annotations: COCO keypoint file, its index, or either one already read.
        images: folder of the pictures.
        category: its name; None: the only one with keypoints.
        input_size: (H, W) of the network input.
        augment: random geometry; None: the box in the middle, upright, with the padding of the literature.
        mask_stride: pixels per cell of the mask, the network's stride.
        seed: of the augmentation.
        limit: use the first so many people.

    Attributes:
        skeleton: of the category.
        image_ids: (n,) int64 COCO image ids, in the order of the samples; several samples may be of one picture.
        annotation_ids: (n,) int64.
        boxes: (n, 4) float64 x, y, width, height; where the file's has no area, that around the keypoints with a margin.

    A sample is that of `CocoKeypoints` with keypoints (1, K, 3) of this person alone, whoever else stands in the crop: that is
    what the network has to learn. Everything is supervised. Two entries more say which sample it is: `sample`, its number, and
    `box_score`, 1 for an annotated box.

    Raises:
        FileNotFoundError, ValueError, KeyError: of `LabelIndex.of`; nobody is left; `augment` cuts bodies in halves that the
            skeleton has not. Reading a sample raises the errors of `read_image`, and ValueError where the picture's size
            differs from the file's.
    """

    def __init__(
        self,
        annotations: str | Path | CocoFile | LabelIndex,
        images: str | Path,
        *,
        category: str | None = None,
        input_size: tuple[int, int] = (256, 192),
        augment: BoxAugment | None = None,
        mask_stride: int = 4,
        seed: int = 0,
        limit: int | None = None,
    ):
        super().__init__(annotations, images, category, input_size, mask_stride, seed)
        self.augment = augment or BoxAugment().still
        self._lower = self.augment.lower(self.skeleton)
        labels = self._labels
        people = (labels.category_ids == self.category_id) & (labels.labelled > 0) & (labels.num_keypoints > 0)
        self._people = np.flatnonzero(people & ~labels.iscrowd)[:limit]
        if not len(self._people):
            raise ValueError(f"{self._source}: no {self.skeleton.name!r} with keypoints among {len(labels.ids)} annotations: "
                             "check the category and limit")  # fmt: skip
        self._take(np.searchsorted(labels.first, self._people, side="right") - 1)
        self.annotation_ids = labels.ids[self._people]
        self.boxes = labels.boxes[self._people]
        for index in np.flatnonzero(~(self.boxes[:, 2:] > 0).all(axis=1)):
            keypoints = labels.keypoints(self._people[index : index + 1])[0]
            self.boxes[index] = box_around(keypoints[keypoints[:, 2] > 0, :2].tolist(), self._size(index))

    def __getitem__(self, index: int) -> dict:
        return super().__getitem__(index) | {"sample": range(len(self))[index], "box_score": 1.0}

    def still(self) -> PersonBoxes:
        """The same people upright in the middle of their crops, none mirrored."""
        samples = super().still()
        samples.augment = self.augment.still
        return samples

    def _plan(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, bool, np.ndarray, np.ndarray]:
        keypoints = self._labels.keypoints(self._people[index : index + 1])
        affine, flipped = self.augment.sample(rng, self.boxes[index], keypoints[0], self._lower, self.input_size)
        return affine, flipped, keypoints, self._people[:0]


def _half_body(keypoints: np.ndarray, lower: np.ndarray, upper: bool) -> tuple[float, ...] | None:
    """Box around the labelled keypoints of one half about their mean, or None where there are too few.

    Args:
        keypoints: (K, 3) pixels and v.
        lower: (K,) bool.
        upper: which half is wanted; it is the other one if this has too few keypoints.
    """
    labelled = keypoints[:, 2] > 0
    if labelled.sum() <= len(labelled) / 2:
        return None
    few_lower = (labelled & lower).sum() < _FEWEST_LOWER
    few_upper = (labelled & ~lower).sum() < _FEWEST_UPPER
    if few_lower and few_upper:
        return None
    points = keypoints[labelled & (~lower if few_lower or (upper and not few_upper) else lower), :2].astype(float)
    sides = np.ptp(points, axis=0)
    if not sides.any():
        return None
    return *(points.mean(axis=0) + 0.5 - sides / 2), *sides
