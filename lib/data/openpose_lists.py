"""What Lightweight OpenPose trains and validates on: one entry for each main person, and 250 of COCO's validation images.

Both select as the scripts of https://github.com/Daniil-Osokin/lightweight-human-pose-estimation.pytorch do (Osokin 2018,
arXiv 1811.12004); instead of a pickle there are two arrays into a `LabelIndex`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np

from lib import files
from lib.data.coco import Image, category_named, no_garbage_collection, read_coco
from lib.data.index import LabelIndex

INPUT_SIZE = 368
MIN_KEYPOINTS, MIN_AREA, MIN_DISTANCE = 5, 32**2, 0.3
COCO_VAL_IMAGES = 5000


@dataclass(frozen=True)
class MainPerson:
    """One training sample: a crop around a main person, in which everybody else is drawn as well.

    Attributes:
        image: its picture.
        annotation_id: of the main person.
        centre: (2,) float64 x, y of the middle of the box, in pixels.
        scale: height of the box as a fraction of the network's input.
        keypoints: (K, 3) float32 x, y, v of the main person; v is COCO's, not the original's code, and 0 where the original
            drops a keypoint: outside the picture, or exactly at 0, 0.
        others: (P, K, 3) of everybody else in the picture with a keypoint, in the order of the file.
        crowds: rows of the labels whose regions are to be ignored.
    """

    image: Image
    annotation_id: int
    centre: np.ndarray
    scale: float
    keypoints: np.ndarray
    others: np.ndarray
    crowds: np.ndarray


class PersonList(Sequence):
    """Every main person of a data set.

    Candidates are people with keypoints who are no crowd. A main person also has at least 5 keypoints and 32² pixels, and
    its box's middle lies at least 0.3 of the box width away from that of every main person before it in the file.

    Args:
        labels: of the training images; for the original's eighteen keypoints `labels.with_skeleton(OPENPOSE18)`.
        category: its name; None: the only one with keypoints.
        input_size: what `scale` is measured by.

    Attributes:
        images, people: (M,) int64 picture and row of every main person.
        candidates, crowds: (A,) bool, who is drawn and who is ignored.

    Raises:
        KeyError: no such category.
        ValueError: nobody is a main person, or one has no box or a flat one.
    """

    def __init__(self, labels: LabelIndex, category: str | None = None, input_size: int = INPUT_SIZE):
        self.labels, self.input_size = labels, input_size
        named = category_named(labels, category)
        mine = labels.category_ids == named.id
        self.candidates = mine & (labels.num_keypoints != 0) & ~labels.iscrowd
        self.crowds = mine & labels.iscrowd
        areas = np.where(labels.areas != 0, labels.areas, labels.boxes[:, 2] * labels.boxes[:, 3])
        large = self.candidates & (labels.num_keypoints >= MIN_KEYPOINTS) & ~(areas < MIN_AREA)
        rows = np.flatnonzero(large)
        without_box = rows[~(labels.boxes[rows, 2:] > 0).all(axis=1)]
        if len(without_box):
            row = without_box[0]
            what = "no bbox" if np.isnan(labels.boxes[row, 0]) else f"the flat bbox {labels.boxes[row].tolist()}"
            raise ValueError(f"{labels.source}: annotation {labels.ids[row]} has keypoints but {what}; the box says where to "
                             "crop and how far to zoom: give it x, y, width, height")  # fmt: skip
        images = np.searchsorted(labels.first, rows, side="right") - 1
        apart = _apart(images, _centres(labels.boxes[rows]), labels.boxes[rows, 2])
        self.images, self.people = images[apart], rows[apart]
        if not len(self.people):
            raise ValueError(f"{labels.source}: nobody among {int(self.candidates.sum())} {named.name!r} annotations has "
                             f"{MIN_KEYPOINTS} keypoints and {MIN_AREA} square pixels, as a crop's main person must: train on "
                             "whole pictures, or check the category and the annotations")  # fmt: skip

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, index: int) -> MainPerson:
        labels, person, image = self.labels, self.people[index], int(self.images[index])
        rows = labels.rows(image)
        everybody = np.concatenate([[person], rows[self.candidates[rows] & (rows != person)]])
        keypoints, box = labels.keypoints(everybody, inside=True), labels.boxes[person]
        return MainPerson(labels.image(image), int(labels.ids[person]), _centres(box), float(box[3] / self.input_size),
                          keypoints[0], keypoints[1:], rows[self.crowds[rows]])  # fmt: skip


def val_subset(total: int, count: int = 250) -> list[int]:
    """Which images of a validation set of `total` the original takes, in its order.

    It shuffles the numbers 0 … 4999 with seed 0; a smaller set, where it fails, is shuffled as a whole.
    """
    order = list(range(min(total, COCO_VAL_IMAGES)))
    random.Random(0).shuffle(order)
    return order[:count]


@no_garbage_collection()
def write_val_subset(source: str | Path, target: str | Path = "val_subset.json", num_images: int = 250) -> Path:
    """Write the images that `val_subset` takes of a COCO file, with their annotations and all that stands in them.

    Args:
        source: COCO keypoint file; it is never changed.
        target: file to write.
        num_images: how many; all of a smaller set.
    """
    source, target = Path(source), Path(target)
    if num_images < 1:
        raise ValueError(f"num_images is {num_images}: a subset has at least one picture")
    if target.resolve() == source.resolve():
        raise ValueError(f"{source}: the subset is written to a new file, choose another target than the source")
    read_coco(source)
    content = msgspec.json.decode(source.read_bytes())
    images = [content["images"][i] for i in val_subset(len(content["images"]), num_images)]
    people: dict[int, list] = {image["id"]: [] for image in images}
    for annotation in content["annotations"]:
        people.get(annotation["image_id"], []).append(annotation)
    content |= {"images": images, "annotations": list(chain.from_iterable(people.values()))}
    # some readers of results ask for both
    content = {"info": {}, "licenses": [], **content}
    print(f"{target}: {len(images):,} pictures, {len(content['annotations']):,} annotations")
    return files.write(target, msgspec.json.encode(content))


def _centres(boxes: np.ndarray) -> np.ndarray:
    return boxes[..., :2] + boxes[..., 2:] / 2


def _apart(images: np.ndarray, centres: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """(M,) bool: who is far enough from those who were taken before in the same picture."""
    taken, last, before = np.zeros(len(images), bool), None, []
    for i, (image, (x, y), width) in enumerate(zip(images.tolist(), centres.tolist(), widths.tolist())):
        if image != last:
            last, before = image, []
        if all(((x - x0) ** 2 + (y - y0) ** 2) ** 0.5 >= MIN_DISTANCE * w0 for x0, y0, w0 in before):
            taken[i] = True
            before.append((x, y, width))
    return taken
