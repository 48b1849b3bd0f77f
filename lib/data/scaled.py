"""Training samples of DeeperCut: whole pictures at (nearly) the size they have, each of a size of its own.

Facts: https://github.com/eldar/pose-tensorflow (Insafutdinov et al. 2016, arXiv:1605.03170), which shows one picture at a time.
It draws a scale and passes a picture over where that is too large for it; here the scale is drawn from those that fit.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lib.data.augment import check_random, in_picture
from lib.data.coco import CocoFile
from lib.data.dataset import KeypointSamples
from lib.data.index import LabelIndex


@dataclass(frozen=True)
class ScaleJitter:
    """Random geometry of whole pictures (the original's ranges by default).

    Attributes:
        global_scale: pixels of the input per pixel of the picture.
        jitter: range of a uniform factor on that.
        flip: probability of mirroring.
        max_input_size: no input has more pixels than a square of this side; None for no limit.
        min_side: pictures with a shorter side, in their own pixels, are left out.
    """

    global_scale: float = 1.0
    jitter: tuple[float, float] = (0.85, 1.15)
    flip: float = 0.5
    max_input_size: float | None = 850
    min_side: int = 100

    def __post_init__(self):
        check_random(self, "jitter")
        for name in ("global_scale", "max_input_size"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"ScaleJitter: {name} must be above 0, got {getattr(self, name)}")

    @property
    def still(self) -> ScaleJitter:
        """Nothing random: the mean scale, not mirrored."""
        mean = sum(self.jitter) / 2
        return replace(self, jitter=(mean, mean), flip=0)

    def largest(self, picture: tuple[int, int]) -> float:
        """The largest scale that a picture (H, W) may be drawn at."""
        limit = self.max_input_size / math.sqrt(picture[0] * picture[1]) if self.max_input_size else math.inf
        return min(self.global_scale * self.jitter[1], limit)

    def sample(self, rng: np.random.Generator, picture: tuple[int, int]) -> tuple[np.ndarray, bool]:
        """Draw one affine.

        Args:
            rng: the only source of randomness; two numbers are drawn.
            picture: (H, W) of the original.

        Returns:
            (2, 3) float64 original → input, and whether it mirrors (then left and right keypoints change places). The picture's
            upper left corner is the input's.
        """
        where, mirror = rng.random(2).tolist()
        flipped, high = mirror < self.flip, self.largest(picture)
        low = min(self.global_scale * self.jitter[0], high)
        scale = low + (high - low) * where
        # the edges of the picture lie half a pixel outside its first and last centre
        shift = (scale - 1) / 2
        x = [-scale, 0, scale * (picture[1] - 1) + shift] if flipped else [scale, 0, shift]
        return np.array([x, [0, scale, shift]]), flipped


class ScaledPictures(KeypointSamples):
    """Samples of one category of a COCO keypoint file, one for each picture, at its own size times a scale.

    A sample is that of `lib.data.dataset.CocoKeypoints`; its input is as large as the scaled picture, rounded up to a `multiple`,
    with black and mask 0 beyond it. `lib.data.dataset.collate` pads a batch to its largest; `sizes`, (n, 2) height and width of
    the pictures, let `lib.learning.TrainOrder` put pictures of one size together.

    Args:
        annotations, images, category, mask_stride, mask_unlabelled, only_with_people, unlabelled_pictures, seed, limit: see
            `CocoKeypoints`. The original trains its COCO networks with mask_unlabelled=False, which teaches that nobody stands
            where people are not annotated.
        augment: sizes, and their random geometry.
        multiple: pixels; sides of the input are multiples of it.

    Raises:
        FileNotFoundError, ValueError, KeyError: of `CocoKeypoints`; or no picture has a size that `augment` allows. Where some
            have not, they are left out and a warning counts them.
    """

    def __init__(
        self,
        annotations: str | Path | CocoFile | LabelIndex,
        images: str | Path,
        *,
        category: str | None = None,
        augment: ScaleJitter = ScaleJitter(),
        mask_stride: int = 8,
        mask_unlabelled: bool = True,
        only_with_people: bool = True,
        unlabelled_pictures: bool = False,
        multiple: int = 16,
        seed: int = 0,
        limit: int | None = None,
    ):
        super().__init__(annotations, images, category, None, mask_stride, seed)
        if multiple % mask_stride:
            raise ValueError(f"sides of the input are multiples of {multiple}, so the mask_stride divides that: not {mask_stride}")
        self.augment, self.multiple = augment, multiple
        self._choose((0.0, math.inf), only_with_people, unlabelled_pictures, None, mask_unlabelled)
        self._take(self._fitting()[:limit])
        self.sizes = self._labels.sizes[self._pictures]

    def still(self) -> ScaledPictures:
        """The same samples at their mean scale, none mirrored."""
        samples = super().still()
        samples.augment = self.augment.still
        return samples

    def _plan(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, bool, np.ndarray, np.ndarray]:
        return *self.augment.sample(rng, self._size(index)), *self._figures(index)

    def _input(self, index: int, affine: np.ndarray) -> tuple[int, int]:
        # rounded down like the original's, but not to a pixel less because of the last digit
        sides = (math.floor(side * affine[1, 1] + 1e-6) for side in self._size(index))
        return tuple(-(-side // self.multiple) * self.multiple for side in sides)

    def _mask(self, ignored: np.ndarray, picture: tuple[int, int], affine: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
        mask = super()._mask(ignored, picture, affine, input_size)
        return mask * in_picture(affine, picture, mask.shape, self.mask_stride)

    def _fitting(self) -> np.ndarray:
        """Those of the pictures whose sizes `augment` allows."""
        sizes, augment = self._labels.sizes[self._pictures].astype(np.int64), self.augment
        small = sizes.min(axis=1) < augment.min_side
        smallest, most = augment.global_scale * augment.jitter[0], augment.max_input_size or math.inf
        large = ~small & (np.sqrt(sizes.prod(axis=1)) * smallest > most)
        reasons = []
        if small.any():
            reasons.append(f"{small.sum()} with a side shorter than {augment.min_side} pixels (min_side)")
        if large.any():
            reasons.append(f"{large.sum()} that even at the smallest scale, {smallest:g}, are larger than {most:g}² pixels "
                           "(max_input_size)")  # fmt: skip
        kept = self._pictures[~(small | large)]
        if not len(kept):
            raise ValueError(f"{self._source}: none of {len(sizes)} pictures can be trained on: {' and '.join(reasons)}")
        if reasons:
            warnings.warn(f"{self._source}: {len(sizes) - len(kept)} of {len(sizes)} pictures are left out: "
                          f"{' and '.join(reasons)}", stacklevel=3)  # fmt: skip
        return kept
