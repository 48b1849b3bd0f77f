"""`dataset.mat`, from which DeeperCut's TensorFlow version and early DeepLabCut train: read and written.

Such a file has no names: the ids of its joints are the indices of a skeleton. A sample is a path, a size and the joints of
the people in it, in whole pixels that the MATLAB preparation counts from 1.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from lib.data.coco import CocoFile, category_named
from lib.data.deepercut_crops import HEAD, Sample, read_dataset_mat, rounded, write_dataset_mat
from lib.data.mpii import around, labels
from lib.exchange.changes import Changes
from lib.skeleton import Skeleton


def read_samples(path: str | Path, changes: Changes, skeleton: Skeleton, first_pixel: int = 1) -> dict[str, list]:
    """A `dataset.mat` as images, annotations and categories; the pictures keep the paths that stand in it.

    Args:
        path: of the file.
        changes: what is left out is added.
        skeleton: joint ids are its indices.
        first_pixel: what the file calls the first pixel of a row, 1 or 0.

    Raises:
        FileNotFoundError, ValueError: of `read_dataset_mat`; a joint's id that the skeleton does not have, or one picture of
            two sizes.
    """
    category, images, annotations = skeleton.to_coco(), {}, []
    for sample in read_dataset_mat(path):
        if sample.crop is not None:
            changes.add("part of a picture to be used (crop): left out, the whole picture counts", sample.image, "warning")
        image = images.setdefault(sample.image, {"id": len(images) + 1, "file_name": sample.image,
                                                 "height": sample.size[0], "width": sample.size[1]})  # fmt: skip
        if (image["height"], image["width"]) != sample.size:
            raise ValueError(f"{path}: {sample.image} has two sizes, [{image['height']} {image['width']}] and "
                             f"[{sample.size[0]} {sample.size[1]}]")  # fmt: skip
        for joints in sample.joints:
            keypoints = _keypoints(path, sample.image, joints, skeleton, first_pixel)
            a = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category["id"]}
            annotations.append(a | labels(keypoints, around(keypoints, HEAD / 2), sample.size))
    if first_pixel:
        changes.add(f"pixels counted from {first_pixel}, now from 0", path)
    return {"images": list(images.values()), "annotations": annotations, "categories": [category]}


def write_samples(path: str | Path, coco: CocoFile, images: str | Path | None = None, category: str | None = None,
                  first_pixel: int = 1) -> Changes:  # fmt: skip
    """Write a `dataset.mat` with one entry for each picture in which somebody has a labelled keypoint.

    Args:
        path: written beside and moved into place.
        coco: stays as it is.
        images: folder of the pictures; their names then become absolute paths, which the original finds from anywhere.
        category: whose people are written, where several have keypoints; a joint's id is its index there.
        first_pixel: what the file calls the first pixel of a row, 1 or 0.

    Returns:
        What the file does not have.

    Raises:
        ValueError: nobody has a labelled keypoint.
    """
    changes, named = Changes(str(path)), category_named(coco, category)
    people: dict[int, list[np.ndarray]] = {}
    for a in coco.annotations:
        keypoints = np.array(a.keypoints or [], float).reshape(-1, 3)
        if a.category_id != named.id or a.iscrowd or not (keypoints[:, 2:] > 0).any():
            changes.add("figure without labelled keypoints, or of another category: left out", f"annotation {a.id}", "warning")
            continue
        joints = np.column_stack([np.arange(len(keypoints)), rounded(keypoints[:, :2] + first_pixel)])
        people.setdefault(a.image_id, []).append(joints[keypoints[:, 2] > 0].astype(np.int32))
        if len(people[a.image_id]) == 2:
            changes.add("picture with several people, of whom DeeperCut's own loader sees the first only", a.image_id, "warning")
    root, samples = Path(images).resolve() if images else PurePosixPath(), []
    for image in coco.images:
        if image.id in people:
            name = (root / image.file_name).as_posix()
            samples.append(Sample(name, (image.height, image.width), tuple(people[image.id])))
        else:
            changes.add("picture without labelled people, at which DeeperCut's own loader stops: left out", image.file_name)
    if not samples:
        raise ValueError(f"{coco.source}: nobody has a labelled keypoint, so there is nothing to write to {path}")
    write_dataset_mat(path, samples)
    changes.add("coordinates rounded to whole pixels, visibility left out", path)
    return changes


def _keypoints(path: str | Path, image: str, joints: np.ndarray, skeleton: Skeleton, first_pixel: int) -> np.ndarray:
    ids = joints[:, 0].tolist()
    if not set(ids) <= set(range(skeleton.num_keypoints)):
        raise ValueError(f"{path}: {image} has the joint ids {ids}, but the {skeleton.num_keypoints} keypoints of the skeleton "
                         f"are 0 to {skeleton.num_keypoints - 1}: give the one it was made for (--skeleton)")  # fmt: skip
    keypoints = np.zeros((skeleton.num_keypoints, 3))
    keypoints[ids, :2], keypoints[ids, 2] = joints[:, 1:] - first_pixel, 2
    return keypoints
