"""A COCO keypoint file as training samples: image, keypoints and mask through one affine, in the network's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch.utils.data import Dataset

from lib.data.augment import Augment, fit_affine, read_image, read_reduced, reduced_affine, reduction_for, warp
from lib.data.coco import (
    Annotation,
    CocoFile,
    Image,
    Rle,
    category_named,
    check_coco,
    no_garbage_collection,
    read_coco,
    skeleton_of,
)
from lib.people import apply_affine

_SUBPIXEL_BITS = 4


class CocoKeypoints(Dataset):
    """Samples of one category of a COCO keypoint file.

    Args:
        annotations: COCO keypoint file, or one already read.
        images: folder of the pictures.
        category: its name; None: the only one with keypoints.
        input_size: (H, W) of the network input.
        augment: random geometry; None: the whole picture, fitted.
        keep_aspect_ratio: letterbox instead of stretching.
        mask_stride: pixels per cell of the mask, the network's stride.
        mask_unlabelled: ignore crowds, people without keypoints and people outside min_area..max_area, instead of
            teaching that nobody is there. The bars around the picture stay supervised: nobody is there.
        min_area: smallest person kept, as a fraction of the picture's area.
        max_area: largest.
        only_with_people: leave out the pictures without a kept person.
        seed: of the augmentation.
        limit: use the first so many pictures.

    Attributes:
        skeleton: of the category.
        image_ids: (n,) int64 COCO image ids, in the order of the samples.

    Keypoints that augmentation pushes out of the input keep their coordinates and visibility: the limbs between them and
    the visible ones still cross it. Codecs cut at the border.

    Raises:
        FileNotFoundError, ValueError, KeyError: of `read_coco`; or no picture is left. Reading a sample raises the errors
            of `read_image`, and ValueError where the picture's size differs from the file's.
    """

    def __init__(
        self,
        annotations: str | Path | CocoFile,
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
        seed: int = 0,
        limit: int | None = None,
    ):
        coco = annotations
        if isinstance(coco, CocoFile):
            check_coco(coco)
        else:
            coco = read_coco(annotations)
        self._source = coco.source
        if any(side % mask_stride for side in input_size):
            raise ValueError(f"input_size {tuple(input_size)} must be a multiple of the mask_stride {mask_stride}")
        self.images = Path(images)
        if not self.images.is_dir():
            raise FileNotFoundError(f"{self.images}: the folder of the pictures of {self._source} does not exist")
        self.input_size = tuple(input_size)
        self.augment = augment
        self.keep_aspect_ratio = keep_aspect_ratio
        self.mask_stride = mask_stride
        self.mask_unlabelled = mask_unlabelled
        self.seed = seed
        self.category_id = category_named(coco, category).id
        self.skeleton = skeleton_of(coco, category)
        # in shared memory, so that workers which outlive an epoch see the next one
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._index(coco, (min_area, max_area), only_with_people, limit)

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
        size = tuple(self._sizes[index].tolist())
        affine, flipped = self._affine(index, size)
        image = self._warped(index, size, affine)
        return {
            "image": torch.from_numpy(image).permute(2, 0, 1),
            "keypoints": torch.from_numpy(self._keypoints(index, affine, flipped)),
            "mask": torch.from_numpy(self._mask(index, affine)),
            "image_id": int(self.image_ids[index]),
            "affine": torch.from_numpy(affine.astype(np.float32)),
        }

    def path(self, index: int) -> Path:
        """The picture of a sample."""
        return self.images / self._names[index]

    def _affine(self, index: int, size: tuple[int, int]) -> tuple[np.ndarray, bool]:
        if self.augment is None:
            return fit_affine(size, self.input_size, self.keep_aspect_ratio), False
        rng = np.random.default_rng((self.seed, int(self._epoch), index))
        return self.augment.sample(rng, size, self.input_size, self.keep_aspect_ratio)

    def _warped(self, index: int, size: tuple[int, int], affine: np.ndarray) -> np.ndarray:
        path = self.path(index)
        image, reduction = read_reduced(path, reduction_for(affine))
        if image.shape[:2] != tuple(-(-side // reduction) for side in size):
            raise ValueError(self._wrong_size(path, size))
        return warp(image, reduced_affine(affine, reduction), self.input_size)

    def _wrong_size(self, path: Path, size: tuple[int, int]) -> str:
        h, w = read_image(path).shape[:2]
        turned = "; an EXIF rotation is ignored, annotate the stored pixels" if (w, h) == size else ""
        return f"{path} is {w}×{h} pixels, {self._source} says {size[1]}×{size[0]}{turned}"

    def _keypoints(self, index: int, affine: np.ndarray, flipped: bool) -> np.ndarray:
        keypoints = self._all_keypoints[self._first[index] : self._first[index + 1]]
        keypoints = keypoints[:, self.skeleton.flip_index] if flipped else keypoints.copy()
        keypoints[..., :2] = apply_affine(affine, keypoints[..., :2])
        keypoints *= keypoints[..., 2:] > 0
        return keypoints

    def _mask(self, index: int, affine: np.ndarray) -> np.ndarray:
        size = self.input_size[0] // self.mask_stride, self.input_size[1] // self.mask_stride
        mask = np.ones(size, np.uint8)
        ignored = self._ignored.get(index)
        if ignored is None:
            return mask
        # the centre of cell j lies at pixel s·j + (s − 1)/2: the inverse of a reduced decode
        s = self.mask_stride
        to_cells = affine / s
        to_cells[:, 2] -= (s - 1) / (2 * s)
        polygons, runs = ignored
        for polygon in polygons:
            points = apply_affine(to_cells, polygon) * (1 << _SUBPIXEL_BITS)
            cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 0, shift=_SUBPIXEL_BITS)
        # runs go down the columns: laid out in a row they are the transposed mask, so x and y change places
        width, height = self._sizes[index, ::-1]
        for counts in runs:
            values = np.arange(len(counts), dtype=np.uint8) & 1
            columns = np.repeat(values, counts).reshape(width, height)
            mask[cv2.warpAffine(columns, to_cells[:, [1, 0, 2]], size[::-1], flags=cv2.INTER_NEAREST) > 0] = 0
        return mask

    @no_garbage_collection()
    def _index(self, coco: CocoFile, areas: tuple[float, float], only_with_people: bool, limit: int | None) -> None:
        """Flat arrays instead of objects per person: forked workers share them, and a sample is a slice."""
        by_image: dict[int, list[Annotation]] = {image.id: [] for image in coco.images}
        for a in coco.annotations:
            if a.category_id == self.category_id:
                by_image[a.image_id].append(a)
        images, people, counts, self._ignored = [], [], [], {}
        for image in coco.images:
            kept, ignored = _sort_out(by_image[image.id], image, areas)
            if only_with_people and not kept:
                continue
            if limit is not None and len(images) == limit:
                break
            if self.mask_unlabelled and ignored:
                self._ignored[len(images)] = _regions(ignored, image, self._source)
            images.append(image)
            people += kept
            counts.append(len(kept))
        if not images:
            raise ValueError(
                f"{self._source}: no picture with a usable {self.skeleton.name!r} among {len(coco.images)} images and "
                f"{len(coco.annotations)} annotations: check the category, min_area, max_area and limit"
            )
        self.image_ids = np.array([image.id for image in images], np.int64)
        self._names = np.array([image.file_name for image in images])
        self._sizes = np.array([(image.height, image.width) for image in images], np.int32)
        self._first = np.concatenate([[0], np.cumsum(counts)])
        self._all_keypoints = np.array([a.keypoints for a in people], np.float32)
        self._all_keypoints = self._all_keypoints.reshape(-1, self.skeleton.num_keypoints, 3)


def collate(items: Sequence[dict]) -> dict[str, torch.Tensor]:
    """Stack samples into a batch; people are padded with zeros (v = 0) to the largest number of the batch.

    Returns:
        images: (N, 3, H, W) uint8, channels_last in memory; keypoints: (N, P, K, 3); mask: (N, h, w);
        image_ids: (N,) int64; affines: (N, 2, 3).
    """
    most = max(len(item["keypoints"]) for item in items)
    keypoints = torch.zeros(len(items), most, *items[0]["keypoints"].shape[1:])
    for row, item in zip(keypoints, items):
        row[: len(item["keypoints"])] = item["keypoints"]
    return {
        "images": torch.stack([item["image"].permute(1, 2, 0) for item in items]).permute(0, 3, 1, 2),
        "keypoints": keypoints,
        "mask": torch.stack([item["mask"] for item in items]),
        "image_ids": torch.tensor([item["image_id"] for item in items]),
        "affines": torch.stack([item["affine"] for item in items]),
    }


def worker_init(worker: int) -> None:
    """For DataLoader: one thread per worker; OpenCV's own threads would only fight over the cores."""
    cv2.setNumThreads(0)


def _sort_out(annotations: list[Annotation], image: Image, areas: tuple[float, float]):
    """Split the figures of a picture into those to learn and those to ignore."""
    kept, ignored = [], []
    for a in annotations:
        area = (a.area or (a.bbox[2] * a.bbox[3] if a.bbox else 0)) / (image.width * image.height)
        labelled = any(a.keypoints[2::3]) if a.keypoints else False
        usable = labelled and not a.iscrowd and areas[0] <= area <= areas[1]
        (kept if usable else ignored).append(a)
    return kept, ignored


def _regions(annotations: list[Annotation], image: Image, source: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Polygons (M, 2) and the lengths of runs of 0, 1, 0, …; a figure without a segmentation is its box."""
    polygons, runs = [], []
    for a in annotations:
        if isinstance(a.segmentation, Rle):
            if tuple(a.segmentation.size) != (image.height, image.width):
                raise ValueError(
                    f"{source}: the mask of annotation {a.id} has size {list(a.segmentation.size)}, its image "
                    f"{image.id} is [{image.height}, {image.width}] (height, width)"
                )
            runs.append(_run_lengths(a.segmentation))
            if runs[-1].min(initial=0) < 0 or runs[-1].sum() != image.width * image.height:
                raise ValueError(
                    f"{source}: the runs of annotation {a.id} do not add up to {image.width}×{image.height}"
                )
        elif a.segmentation:
            polygons += [np.array(p, np.float32).reshape(-1, 2) - 0.5 for p in a.segmentation]
        elif a.bbox:
            x, y, w, h = a.bbox
            polygons.append(np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], np.float32) - 0.5)
    return polygons, runs


def _run_lengths(rle: Rle) -> np.ndarray:
    if not isinstance(rle.counts, str):
        return np.array(rle.counts, np.int32)
    mask = coco_mask.decode({"size": list(rle.size), "counts": rle.counts.encode()}).ravel(order="F")
    return np.diff(np.flatnonzero(np.diff(mask, prepend=0)), prepend=0, append=mask.size).astype(np.int32)
