"""Training samples of Lightweight OpenPose: one crop around each main person, in which everybody else is drawn as well.

Facts: https://github.com/Daniil-Osokin/lightweight-human-pose-estimation.pytorch (Osokin 2018, arXiv 1811.12004). It
resizes, rotates, cuts and mirrors one after the other; here the four are one affine, so the picture is resampled once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.data.augment import check_random
from lib.data.coco import CocoFile
from lib.data.dataset import KeypointSamples
from lib.data.index import LabelIndex
from lib.data.openpose_lists import INPUT_SIZE, PersonList

GREY = 128


@dataclass(frozen=True)
class CropAugment:
    """Random geometry of a crop around a person, all uniform (the original's ranges by default).

    Attributes:
        scale: range of a factor on the person's height in the crop.
        rotation: largest angle in degrees, both ways, around the person.
        shift: how far the person may lie off the middle, each axis on its own, in pixels of a crop of 368; in a crop of
            another size it is the same fraction of its sides.
        flip: probability of mirroring.
        person_height: of the person's box in the crop, as a fraction of the crop's height, before `scale`.
    """

    scale: tuple[float, float] = (0.5, 1.1)
    rotation: float = 40.0
    shift: float = 40.0
    flip: float = 0.5
    person_height: float = 0.6

    def __post_init__(self):
        check_random(self, "scale")
        if self.person_height <= 0:
            raise ValueError(f"CropAugment: person_height is a fraction of the crop above 0, got {self.person_height}")

    @property
    def still(self) -> CropAugment:
        """Nothing random: the mean scale, upright and in the middle."""
        mean = sum(self.scale) / 2
        return CropAugment((mean, mean), 0, 0, 0, self.person_height)

    def sample(
        self, rng: np.random.Generator, centre: np.ndarray, height: float, input_size: tuple[int, int]
    ) -> tuple[np.ndarray, bool]:
        """Draw one affine.

        Args:
            rng: the only source of randomness; five numbers are drawn.
            centre: x, y of the middle of the person's box, in pixels of the picture.
            height: of the box, in pixels of the picture.
            input_size: (H, W) of the crop.

        Returns:
            (2, 3) float64 original → crop, and whether it mirrors (then left and right keypoints change places).
        """
        zoom, turn, shift_x, shift_y, mirror = rng.random(5).tolist()
        flipped = mirror < self.flip
        zoom = (self.scale[0] + (self.scale[1] - self.scale[0]) * zoom) * self.person_height * input_size[0] / height
        angle = math.radians(self.rotation) * (2 * turn - 1)
        sides = np.array(input_size[::-1])
        to = (sides - 1) / 2 + self.shift / INPUT_SIZE * sides * (2 * np.array([shift_x, shift_y]) - 1)
        cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
        linear = np.array([[-cos, sin] if flipped else [cos, -sin], [sin, cos]])
        # a box is measured from the edges of pixels, half a pixel before their centres
        return np.column_stack([linear, to - linear @ (np.asarray(centre) - 0.5)]), flipped


class PersonCrops(KeypointSamples):
    """Samples of one category of a COCO keypoint file, one for each main person (see `PersonList`).

    Args:
        annotations: COCO keypoint file, its index, or either one already read; for the original's eighteen keypoints
            `LabelIndex.of(file).with_skeleton(OPENPOSE18)`.
        images: folder of the pictures.
        category: its name; None: the only one with keypoints.
        input_size: (H, W) of the network input.
        augment: random geometry; None: the person at the mean scale of the standard ranges, upright and in the middle.
        mask_stride: pixels per cell of the mask, the network's stride.
        mask_unlabelled: also ignore people without keypoints. The original ignores crowds only and so teaches that nobody
            stands where such people do: a wrong turn, kept as the default because it is what was published.
        seed: of the augmentation.
        limit: use the first so many main persons.

    Attributes:
        skeleton: of the category.
        image_ids: (n,) int64 COCO image ids, in the order of the samples; several samples may be of one picture.
        annotation_ids: (n,) int64 of the main persons.

    A sample is that of `CocoKeypoints`: keypoints of the main person first, then of everybody else in the order of the file.
    As in the original v = 0 for keypoints outside the picture or exactly at 0, 0, and for a computed neck unless both
    shoulders have v > 0; those that the crop cuts off keep coordinates and visibility. Around the picture is grey of 128,
    and supervised: nobody is there.

    Raises:
        FileNotFoundError, ValueError, KeyError: of `LabelIndex.of` and `PersonList`. Reading a sample raises the errors of
            `read_image`, and ValueError where the picture's size differs from the file's.
    """

    def __init__(
        self,
        annotations: str | Path | CocoFile | LabelIndex,
        images: str | Path,
        *,
        category: str | None = None,
        input_size: tuple[int, int] = (INPUT_SIZE, INPUT_SIZE),
        augment: CropAugment | None = None,
        mask_stride: int = 8,
        mask_unlabelled: bool = False,
        seed: int = 0,
        limit: int | None = None,
    ):
        super().__init__(annotations, images, category, input_size, mask_stride, seed, GREY)
        self.augment, self.mask_unlabelled = augment, mask_unlabelled
        self._people = PersonList(self._labels, category, self.input_size[0])
        self._take(self._people.images[:limit])
        if not len(self):
            raise ValueError(f"{self._source}: limit {limit} leaves none of {len(self._people)} main persons")
        self.annotation_ids = self._labels.ids[self._people.people[: len(self)]]
        unlabelled = (self._labels.category_ids == self.category_id) & ~self._people.candidates
        self._ignored = unlabelled if mask_unlabelled else self._people.crowds
        self._check_masks(self._ignored)

    def _plan(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, bool, np.ndarray, np.ndarray]:
        person, rows = self._people[index], self._labels.rows(self._pictures[index])
        augment = self.augment or CropAugment().still
        affine, flipped = augment.sample(rng, person.centre, person.scale * self.input_size[0], self.input_size)
        keypoints = np.concatenate([person.keypoints[None], person.others])
        return affine, flipped, keypoints, rows[self._ignored[rows]]
