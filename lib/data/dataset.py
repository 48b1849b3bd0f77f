"""A COCO keypoint file as training samples: image, keypoints and mask through one affine, in the network's pixels."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from lib.data.augment import (
    Augment,
    fit_affine,
    in_picture,
    read_image,
    read_reduced,
    reduced_affine,
    reduction_for,
    warp,
)
from lib.data.coco import CocoFile, category_named
from lib.data.index import LabelIndex
from lib.people import apply_affine

_SUBPIXEL_BITS = 4
_OTHER, _LEARN, _IGNORE = 0, 1, 2


class KeypointSamples(Dataset, ABC):
    """What `CocoKeypoints` and `lib.data.person_crops.PersonCrops` share: how a planned sample is made.

    Args:
        annotations, images, category, input_size, mask_stride, seed: see `CocoKeypoints`.
        background: grey value of what lies outside the picture.

    A subclass plans: it calls `_take` with the picture of every sample and implements `_plan`. Where every sample has a size
    of its own, `input_size` is None and it implements `_input`, too.
    """

    def __init__(self, annotations: str | Path | CocoFile | LabelIndex, images: str | Path, category: str | None,
                 input_size: tuple[int, int] | None, mask_stride: int, seed: int, background: int = 0):  # fmt: skip
        if isinstance(annotations, CocoFile):
            labels = LabelIndex.from_coco(annotations)
        else:
            labels = annotations if isinstance(annotations, LabelIndex) else LabelIndex.of(annotations)
        self._labels, self._source = labels, labels.source
        if input_size and any(side % mask_stride for side in input_size):
            raise ValueError(f"input_size {tuple(input_size)} must be a multiple of the mask_stride {mask_stride}")
        self.images = Path(images)
        if not self.images.is_dir():
            raise FileNotFoundError(f"{self.images}: the folder of the pictures of {self._source} does not exist")
        self.input_size = input_size and tuple(input_size)
        self.mask_stride, self.background, self.seed = mask_stride, background, seed
        self.category_id = category_named(labels, category).id
        self.skeleton = labels.skeleton(category)
        # in shared memory, so that workers which outlive an epoch see the next one
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Draw other augmentations from now on; also reaches workers that are running."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> dict:
        """One sample.

        Returns:
            image: (3, H, W) uint8 RGB; keypoints: (P, K, 3) float32 [x, y, v] in input pixels, zeros where v = 0;
            mask: (H/mask_stride, W/mask_stride) uint8, 1 = supervised, 0 = ignored; image_id: int;
            affine: (2, 3) float32, original → input pixels.
        """
        index = range(len(self))[index]
        affine, flipped, keypoints, ignored = self._planned(index)
        size = self._input(index, affine)
        image = self._warped(index, affine, size)
        return {
            "image": torch.from_numpy(image).permute(2, 0, 1),
            "keypoints": torch.from_numpy(self._moved(keypoints, affine, flipped)),
            "mask": torch.from_numpy(self._mask(ignored, self._size(index), affine, size)),
            "image_id": int(self.image_ids[index]),
            "affine": torch.from_numpy(affine.astype(np.float32)),
        }

    def still(self) -> KeypointSamples:
        """The same samples without anything random."""
        samples = copy.copy(self)
        samples.augment = None
        return samples

    def keypoints(self, index: int) -> np.ndarray:
        """(P, K, 3) keypoints of a sample, without its picture."""
        affine, flipped, keypoints, _ = self._planned(range(len(self))[index])
        return self._moved(keypoints, affine, flipped)

    def path(self, index: int) -> Path:
        """The picture of a sample."""
        return self.images / self._labels.image(self._pictures[index]).file_name

    def _planned(self, index: int) -> tuple[np.ndarray, bool, np.ndarray, np.ndarray]:
        return self._plan(index, np.random.default_rng((self.seed, int(self._epoch), index)))

    @abstractmethod
    def _plan(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, bool, np.ndarray, np.ndarray]:
        """Affine (2, 3), whether it mirrors, keypoints (P, K, 3) of the picture, rows of the labels to be ignored."""

    def _take(self, pictures: np.ndarray) -> None:
        self._pictures, self.image_ids = pictures, self._labels.image_ids[pictures]

    def _size(self, index: int) -> tuple[int, int]:
        return tuple(self._labels.sizes[self._pictures[index]].tolist())

    def _input(self, index: int, affine: np.ndarray) -> tuple[int, int]:
        """(H, W) of a sample."""
        return self.input_size

    def _warped(self, index: int, affine: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
        path, size = self.path(index), self._size(index)
        image, reduction = read_reduced(path, reduction_for(affine))
        if image.shape[:2] != tuple(-(-side // reduction) for side in size):
            raise ValueError(self._wrong_size(path, size))
        return warp(image, reduced_affine(affine, reduction), input_size, self.background)

    def _wrong_size(self, path: Path, size: tuple[int, int]) -> str:
        h, w = read_image(path).shape[:2]
        turned = "; an EXIF rotation is ignored, annotate the stored pixels" if (w, h) == size else ""
        return f"{path} is {w}×{h} pixels, {self._source} says {size[1]}×{size[0]}{turned}"

    def _moved(self, keypoints: np.ndarray, affine: np.ndarray, flipped: bool) -> np.ndarray:
        if not len(keypoints):
            return np.zeros((0, self.skeleton.num_keypoints, 3), np.float32)
        if flipped:
            keypoints = keypoints[:, self.skeleton.flip_index]
        keypoints[..., :2] = apply_affine(affine, keypoints[..., :2])
        keypoints *= keypoints[..., 2:] > 0
        return keypoints

    def _mask(self, ignored: np.ndarray, picture: tuple[int, int], affine: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
        size = input_size[0] // self.mask_stride, input_size[1] // self.mask_stride
        mask = np.ones(size, np.uint8)
        if not len(ignored):
            return mask
        # the centre of cell j lies at pixel s·j + (s − 1)/2: the inverse of a reduced decode
        s = self.mask_stride
        to_cells = affine / s
        to_cells[:, 2] -= (s - 1) / (2 * s)
        for polygon in (polygon for row in ignored for polygon in self._outlines(row)):
            points = apply_affine(to_cells, polygon) * (1 << _SUBPIXEL_BITS)
            cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 0, shift=_SUBPIXEL_BITS)
        # runs go down the columns: laid out in a row they are the transposed mask, so x and y change places
        for counts in filter(lambda runs: runs is not None, map(self._labels.runs, ignored)):
            values = np.arange(len(counts), dtype=np.uint8) & 1
            columns = np.repeat(values, counts).reshape(picture[::-1])
            mask[cv2.warpAffine(columns, to_cells[:, [1, 0, 2]], size[::-1], flags=cv2.INTER_NEAREST) > 0] = 0
        return mask

    def _outlines(self, row: int) -> list[np.ndarray]:
        """Polygons (M, 2) of a figure in our pixels; one without a segmentation is its box, one with a mask has none."""
        polygons = self._labels.polygons(row)
        if not polygons and self._labels.region_sizes[row, 0] < 0:
            x, y, w, h = self._labels.boxes[row].tolist()
            polygons = [] if np.isnan(x) else [np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float32)]
        return [polygon - 0.5 for polygon in polygons]

    def _choose(self, areas: tuple[float, float], only_with_people: bool, unlabelled: bool, limit: int | None,
                mask_unlabelled: bool) -> None:  # fmt: skip
        """Which pictures are samples, and what becomes of every figure: one byte each, the rest stays in the labels.

        The arguments are those of `CocoKeypoints`.
        """
        labels = self._labels
        owner = np.repeat(np.arange(len(labels)), np.diff(labels.first))
        box_areas = np.nan_to_num(labels.boxes[:, 2] * labels.boxes[:, 3])
        share = np.where(labels.areas != 0, labels.areas, box_areas) / labels.sizes.prod(axis=1, dtype=np.int64)[owner]
        kept = (labels.labelled > 0) & ~labels.iscrowd & (areas[0] <= share) & (share <= areas[1])
        self._use = np.where(kept, _LEARN, _IGNORE).astype(np.uint8)
        self._use[labels.category_ids != self.category_id] = _OTHER
        people = np.bincount(owner[self._use != _OTHER if unlabelled else self._use == _LEARN], minlength=len(labels))
        self._take(np.flatnonzero(people if only_with_people else np.ones(len(labels)))[:limit])
        if not len(self):
            raise ValueError(
                f"{self._source}: no picture with a usable {self.skeleton.name!r} among {len(labels)} images and "
                f"{len(labels.ids)} annotations: check the category, min_area, max_area and limit"
            )
        self.mask_unlabelled = mask_unlabelled
        if mask_unlabelled:
            self._check_masks(self._use == _IGNORE)

    def _figures(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (P, K, 3) of the picture of a sample, as `_choose` chose them, and rows of the labels to be ignored."""
        rows = self._labels.rows(self._pictures[index])
        use = self._use[rows]
        ignored = rows[use == _IGNORE] if self.mask_unlabelled else rows[:0]
        return self._labels.keypoints(rows[use == _LEARN]), ignored

    def _check_masks(self, ignored: np.ndarray) -> None:
        """Of the figures (A,) bool that are ignored in the pictures that were taken."""
        labels = self._labels
        rows = np.flatnonzero(ignored & (labels.region_sizes[:, 0] >= 0))
        owners = np.searchsorted(labels.first, rows, side="right") - 1
        taken = np.isin(owners, self._pictures)
        for row, owner in zip(rows[taken].tolist(), owners[taken].tolist()):
            self._check_mask(row, owner)

    def _check_mask(self, row: int, image: int) -> None:
        (height, width), given = self._labels.sizes[image].tolist(), self._labels.region_sizes[row].tolist()
        name = f"annotation {self._labels.ids[row]}"
        if given != [height, width]:
            raise ValueError(f"{self._source}: the mask of {name} has size {given}, its image "
                             f"{self._labels.image_ids[image]} is [{height}, {width}] (height, width)")  # fmt: skip
        runs = self._labels.runs(row)
        if runs.min(initial=0) < 0 or runs.sum(dtype=np.int64) != width * height:
            raise ValueError(f"{self._source}: the runs of {name} do not add up to {width}×{height}")


class CocoKeypoints(KeypointSamples):
    """Samples of one category of a COCO keypoint file, one for each picture.

    Args:
        annotations: COCO keypoint file, its index (see `lib.data.index`), or either one already read. The index of a file
            is used by itself where it lies beside it and is fresh.
        images: folder of the pictures.
        category: its name; None: the only one with keypoints.
        input_size: (H, W) of the network input.
        augment: random geometry; None: the whole picture, fitted.
        keep_aspect_ratio: letterbox instead of stretching.
        mask_stride: pixels per cell of the mask, the network's stride.
        mask_unlabelled: ignore crowds, people without keypoints and people outside min_area..max_area, instead of
            teaching that nobody is there. The bars around the picture stay supervised, unless `augment` masks them: nobody
            is there.
        min_area: smallest person kept, as a fraction of the picture's area.
        max_area: largest.
        only_with_people: leave out the pictures without a kept person.
        unlabelled_pictures: do not leave out those whose people are all ignored (crowds, or without keypoints): their people are
            masked, if `mask_unlabelled`, and the rest of them is background.
        seed: of the augmentation.
        limit: use the first so many pictures.

    Attributes:
        skeleton: of the category.
        image_ids: (n,) int64 COCO image ids, in the order of the samples.

    Keypoints that augmentation pushes out of the input keep their coordinates and visibility: the limbs between them and
    the visible ones still cross it. Codecs cut at the border.

    Raises:
        FileNotFoundError, ValueError, KeyError: of `LabelIndex.of`; or no picture is left. Reading a sample raises the errors
            of `read_image`, and ValueError where the picture's size differs from the file's.
    """

    def __init__(
        self,
        annotations: str | Path | CocoFile | LabelIndex,
        images: str | Path,
        *,
        category: str | None = None,
        input_size: tuple[int, int] = (256, 256),
        augment: Augment | None = None,
        keep_aspect_ratio: bool = True,
        mask_stride: int = 4,
        mask_unlabelled: bool = True,
        min_area: float = 0.0,
        max_area: float = float("inf"),
        only_with_people: bool = True,
        unlabelled_pictures: bool = False,
        seed: int = 0,
        limit: int | None = None,
    ):
        super().__init__(annotations, images, category, input_size, mask_stride, seed)
        self.augment = augment
        self.keep_aspect_ratio = keep_aspect_ratio
        self._choose((min_area, max_area), only_with_people, unlabelled_pictures, limit, mask_unlabelled)

    def _plan(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, bool, np.ndarray, np.ndarray]:
        fitting = self._size(index), self.input_size, self.keep_aspect_ratio
        affine, flipped = self.augment.sample(rng, *fitting) if self.augment else (fit_affine(*fitting), False)
        return affine, flipped, *self._figures(index)

    def _mask(self, ignored: np.ndarray, picture: tuple[int, int], affine: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
        mask = super()._mask(ignored, picture, affine, input_size)
        if self.augment and self.augment.mask_padding:
            mask *= in_picture(affine, picture, mask.shape, self.mask_stride)
        return mask


def collate(items: Sequence[dict]) -> dict[str, torch.Tensor]:
    """Stack samples into a batch; people are padded with zeros (v = 0) to the largest number of the batch.

    Samples of several sizes are padded at the right and at the bottom to the largest height and width, with black and with
    mask 0: nothing counts there.

    Returns:
        images: (N, 3, H, W) uint8, channels_last in memory; keypoints: (N, P, K, 3); mask: (N, h, w);
        image_ids: (N,) int64; affines: (N, 2, 3); and where samples are numbered, since several may be of one picture,
        samples: (N,) int64.
    """
    numbered = {"samples": torch.tensor([item["sample"] for item in items])} if "sample" in items[0] else {}
    return numbered | {
        "images": _padded([item["image"].permute(1, 2, 0) for item in items]).permute(0, 3, 1, 2),
        "keypoints": _padded([item["keypoints"] for item in items]),
        "mask": _padded([item["mask"] for item in items]),
        "image_ids": torch.tensor([item["image_id"] for item in items]),
        "affines": torch.stack([item["affine"] for item in items]),
    }


def _padded(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack tensors, with zeros behind those that are smaller along an axis."""
    shapes = {value.shape for value in values}
    if len(shapes) == 1:
        return torch.stack(list(values))
    stacked = values[0].new_zeros(len(values), *map(max, zip(*shapes)))
    for row, value in zip(stacked, values):
        row[tuple(map(slice, value.shape))] = value
    return stacked


def worker_init(worker: int) -> None:
    """For DataLoader: one thread per worker; OpenCV's own threads would only fight over the cores."""
    cv2.setNumThreads(0)
