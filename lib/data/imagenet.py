"""Pictures in class folders, as ImageNet's: found, cut to the network's input by one affine, and labelled.

The index of a class is its place among the sorted folder names (WNIDs), as in torchvision's ImageFolder and in published
checkpoints. A class is written as its folder and its name, "n01440764 tench": names alone are not unique in ImageNet.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from PIL import Image
from torch.utils.data import Dataset

from lib.data.augment import IMAGE_SUFFIXES, check_random, read_image, read_reduced, reduced_affine, reduction_for

INDEX_FILES = ("imagenet_class_index.json", "wordnet_labels.yaml")
_WNID = re.compile(r"n\d{8} ")
_TRIES = 10  # as torchvision's RandomResizedCrop has


@dataclass(frozen=True)
class RandomCrop:
    """A random part of the picture, stretched to the input, and perhaps mirrored (Szegedy et al. 2015).

    Attributes:
        area: range of the part's area, of the picture's; uniform.
        ratio: range of width over height; uniform in its logarithm.
        flip: probability of mirroring.
    """

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __post_init__(self):
        check_random(self, "area", "ratio")
        if self.area[1] > 1:
            raise ValueError(f"RandomCrop: area is a part of the picture, at most 1, got {self.area}")

    def sample(self, rng: np.random.Generator, image_size: tuple[int, int], input_size: tuple[int, int]) -> np.ndarray:
        """Draw the affine (2, 3), original → input; both sizes are (H, W).

        A part that does not fit into the picture is drawn anew; after ten of them the largest middle part that keeps to
        `ratio` is taken.
        """
        mirrored, height, width = rng.random() < self.flip, *image_size
        for _ in range(_TRIES):
            area = height * width * rng.uniform(*self.area)
            ratio = math.exp(rng.uniform(*map(math.log, self.ratio)))
            w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if w <= width and h <= height:
                x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
                return box_affine((x, y, w, h), input_size, mirrored)
        low, high = self.ratio
        w, h = min(width, height * high), min(height, width / low)
        return box_affine(((width - w) / 2, (height - h) / 2, w, h), input_size, mirrored)


def centre_affine(image_size: tuple[int, int], input_size: tuple[int, int], centre: float = 0.875) -> np.ndarray:
    """The middle of a picture, as published networks are measured.

    The picture is scaled until its shorter side is the input's over `centre` (224 / 0.875 = 256), and the middle is cut out.

    Args:
        image_size, input_size: (H, W).
        centre: above 0 and at most 1; 1 takes as much as there is.

    Returns:
        (2, 3) affine, original → input.
    """
    zoom = max(i / (centre * o) for i, o in zip(input_size, image_size))
    (h, w), (height, width) = (side / zoom for side in input_size), image_size
    return box_affine(((width - w) / 2, (height - h) / 2, w, h), input_size)


def box_affine(box: tuple[float, float, float, float], input_size: tuple[int, int], mirrored: bool = False) -> np.ndarray:
    """The affine (2, 3) that stretches a box (x, y, width, height), from corner to corner, over the input (H, W)."""
    (x, y, w, h), (height, width) = box, input_size
    a, d = width / w, height / h
    # a pixel's centre lies half a pixel from its corner
    shift_x, shift_y = (0.5 - x) * a - 0.5, (0.5 - y) * d - 0.5
    return np.array([[-a, 0, width - 1 - shift_x], [0, d, shift_y]] if mirrored else [[a, 0, shift_x], [0, d, shift_y]])


def cut(path: str | Path, affine_of: Callable[[tuple[int, int]], np.ndarray], input_size: tuple[int, int]) -> np.ndarray:
    """Read a picture and bring a part of it to the network's input.

    A JPEG is decoded at a reduced size as far as that costs no detail. What is still to shrink is drawn larger and averaged,
    which comes within a grey level or so of torchvision's antialiased resize.

    Args:
        path: any picture.
        affine_of: gives the affine (2, 3) without rotation, original → input, of a picture of the size (H, W).
        input_size: (H, W).

    Returns:
        (*input_size, 3) uint8 RGB.

    Raises:
        FileNotFoundError, ValueError: of `lib.data.augment.read_image`.
    """
    affine = affine_of(_picture_size(path))
    image, reduction = read_reduced(path, reduction_for(affine))
    return draw(image, reduced_affine(affine, reduction), input_size)


def draw(image: np.ndarray, affine: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """Resample an image (H, W, 3) uint8 to (*input_size, 3) without aliasing; the affine (2, 3) has no rotation."""
    times = math.ceil(1 / min(1, abs(affine[0, 0]), affine[1, 1]) - 1e-6)
    # pixel x becomes `times` pixels, of which the middle lies at times·x + (times − 1)/2
    larger = times * affine + np.array([[0, 0, (times - 1) / 2]])
    height, width = input_size
    # OpenCV resamples four channels faster than three
    padded = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    drawn = cv2.warpAffine(padded, larger, (times * width, times * height), borderMode=cv2.BORDER_REPLICATE)
    drawn = drawn if times == 1 else cv2.resize(drawn, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(drawn, cv2.COLOR_RGBA2RGB)


class ImageFolders(Dataset):
    """The labelled pictures of one split: `data_dir/SPLIT/CLASS/*.JPEG`.

    Args:
        data_dir: folder with the splits and, if there is one, the file with the names (see `read_classes`).
        split: "train" or "val".
        input_size: (H, W) of the network's input.
        crop: random geometry; None: the middle of the picture.
        centre: how much of the middle, see `centre_affine`.
        seed: of the random geometry.
        limit: only so many pictures, spread evenly over the sorted ones, and so over the classes.

    Attributes:
        classes: C classes, "FOLDER NAME".
        labels: (n,) int64 class of every sample.

    Sample i depends on the seed, the epoch and i alone. Files that are no pictures by their suffix are passed over.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: the names and the folders are not of the same classes; or a class without a picture.
    """

    def __init__(self, data_dir: str | Path, split: str = "train", *, input_size: tuple[int, int] = (224, 224),
                 crop: RandomCrop | None = None, centre: float = 0.875, seed: int = 0, limit: int | None = None):  # fmt: skip
        if not 0 < centre <= 1:
            raise ValueError(f"centre is a part of the picture, above 0 and at most 1, got {centre}")
        self.folder, self.classes = Path(data_dir) / split, read_classes(data_dir, split)
        self.input_size, self.crop, self.centre, self.seed = tuple(input_size), crop, centre, seed
        names = [_pictures_in(self.folder / folder_of(label)) for label in self.classes]
        counts = np.array([len(each) for each in names])
        if empty := [folder_of(label) for label, count in zip(self.classes, counts) if not count]:
            raise ValueError(f"{self.folder}: {len(empty)} of {len(counts)} classes have no picture, the first is {empty[0]}; "
                             "fill or remove their folders")  # fmt: skip
        labels = np.repeat(np.arange(len(counts)), counts)
        # two arrays instead of a million objects, which every worker would copy as soon as it looks at them
        files = np.array([os.fsencode(name) for each in names for name in each])
        total = len(files)
        taken = np.arange(total) if limit is None else np.arange(min(limit, total)) * total // min(limit, total)
        if not len(taken):
            raise ValueError(f"{self.folder}: limit {limit} leaves no picture")
        self.labels, self._files = labels[taken], files[taken]
        # in shared memory, so that workers which outlive an epoch see the next one
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Draw other crops from now on; also reaches workers that are running."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        """One sample: image (3, H, W) uint8 RGB, label int, index int."""
        index = range(len(self))[index]
        rng = np.random.default_rng((self.seed, int(self._epoch), index))
        affine_of = lambda size: (
            self.crop.sample(rng, size, self.input_size) if self.crop else centre_affine(size, self.input_size, self.centre)
        )
        image = cut(self.path(index), affine_of, self.input_size)
        return {"image": torch.from_numpy(image).permute(2, 0, 1), "label": int(self.labels[index]), "index": index}

    def path(self, index: int) -> Path:
        """The picture of a sample."""
        return self.folder / folder_of(self.classes[self.labels[index]]) / os.fsdecode(bytes(self._files[index]))


def collate(items: Sequence[Mapping]) -> dict[str, torch.Tensor]:
    """Stack samples: images (N, 3, H, W) uint8, channels_last in memory; labels and indices (N,) int64."""
    return {
        "images": torch.stack([item["image"].permute(1, 2, 0) for item in items]).permute(0, 3, 1, 2),
        "labels": torch.tensor([item["label"] for item in items]),
        "indices": torch.tensor([item["index"] for item in items]),
    }


def read_classes(data_dir: str | Path, split: str = "train") -> tuple[str, ...]:
    """The classes of a folder, as "FOLDER NAME", in the order of the class index: sorted by folder.

    Names come from `imagenet_class_index.json` or `wordnet_labels.yaml`, both {"0": ["n01440764", "tench"], …}; without such
    a file a class is called what its folder is called.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: the file is damaged or in another order, or the folders of the split are not the file's classes.
    """
    data_dir, folder = Path(data_dir), Path(data_dir) / split
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder; it should hold a folder of pictures for every class "
                                "(data/README.md shows the layout)")  # fmt: skip
    folders = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    index = next((path for name in INDEX_FILES if (path := data_dir / name).is_file()), None)
    if index is None and (both := [name for name in folders if folder_of(name) != name]):
        raise ValueError(f"{folder / both[0]}: the folder of a class is called {folder_of(both[0])} alone, and what that means "
                         f"stands in {INDEX_FILES[0]}: rename it")  # fmt: skip
    classes = read_class_index(index) if index else tuple(folders)
    wanted = {folder_of(label) for label in classes}
    for which, fault in ((wanted - {*folders}, f"have no folder in {folder}"),
                         ({*folders} - wanted, f"more have a folder in {folder}")):  # fmt: skip
        if which:
            raise ValueError(f"{index} lists {len(wanted)} classes, but {len(which)} {fault}, the first is {min(which)}: "
                             "make them the same")  # fmt: skip
    if not classes:
        raise ValueError(f"{folder} holds no folders: every class needs one, with its pictures; those of ImageNet are laid "
                         "out by `python -m lib prepare imagenet`")  # fmt: skip
    return classes


def read_class_index(path: str | Path) -> tuple[str, ...]:
    """Classes of a file {"0": ["n01440764", "tench"], …} (JSON or YAML), as "n01440764 tench".

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or the WNIDs are not sorted: published networks count classes in that order.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such class index")
    try:
        text = path.read_text("utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
        rows = {int(number): (wnid, name) for number, (wnid, name) in content.items()}
        good = sorted(rows) == list(range(len(rows))) and all(_WNID.fullmatch(f"{wnid} ") for wnid, _ in rows.values())
    except (ValueError, TypeError, AttributeError, yaml.YAMLError):
        good = False
    if not good or not rows:
        raise ValueError(f'{path} is no class index: it must be {{"0": ["n01440764", "tench"], "1": …}}, counted from 0')
    for before, after in pairwise(rows[number][0] for number in range(len(rows))):
        if before >= after:
            raise ValueError(f"{path}: {after} comes behind {before}, but classes are counted in the order of their sorted, "
                             "different WNIDs")  # fmt: skip
    return tuple(" ".join(rows[number]) for number in range(len(rows)))


def folder_of(label: str) -> str:
    """The folder of a class: n01440764 of "n01440764 tench"; one without a WNID is its folder."""
    return label[:9] if _WNID.match(label) else label


def name_of(label: str) -> str:
    """The name of a class, for people: "great white shark" of "n01484850 great_white_shark"."""
    return (label[10:] if _WNID.match(label) else label).replace("_", " ")


def _pictures_in(folder: Path) -> list[str]:
    found = (entry for entry in os.scandir(folder) if entry.name.lower().endswith(IMAGE_SUFFIXES))
    return sorted(entry.name for entry in found if not entry.name.startswith(".") and not entry.is_dir())


def _picture_size(path: str | Path) -> tuple[int, int]:
    """(H, W) from the header of a file."""
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        # the same reader as for its pixels says what is wrong, unless only Pillow does not know the format
        return read_image(path).shape[:2]
