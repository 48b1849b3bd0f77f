"""A file as large as COCO's person_keypoints_train2017.json, for whoever measures on one: `python -m benchmarks.big_coco OUT.json`.

Drawn, not recorded, but made like the original: half of the pictures show people, six people in ten have keypoints, outlines
of a few dozen corners, some in two parts, crowds as runs, annotations in no order, ids with gaps.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np

from lib import files
from lib.data.coco import no_garbage_collection
from lib.skeleton import COCO17

# where COCO's seventeen lie in the box of somebody standing in front of the camera
FIGURE = [(.5, .08), (.55, .06), (.45, .06), (.62, .08), (.38, .08), (.74, .22), (.26, .22), (.84, .38), (.16, .38), (.9, .53),
          (.1, .53), (.65, .53), (.35, .53), (.66, .74), (.34, .74), (.67, .95), (.33, .95)]  # fmt: skip
SIZES = np.array([(480, 640), (640, 480), (427, 640), (640, 427), (640, 640), (375, 500)])


@no_garbage_collection()
def write_big_coco(path: str | Path, images: int = 118_000, people: int = 262_000, with_keypoints: int = 150_000,
                   seed: int = 0) -> Path:  # fmt: skip
    """Write a generated person_keypoints file; the same numbers and seed give the same bytes.

    Args:
        path: JSON file to write, about 250 MB.
        images: pictures listed (the pictures themselves are not drawn).
        people: annotations; one in fifty of those without keypoints is a crowd.
        with_keypoints: annotations with at least one labelled keypoint.
        seed: of everything.
    """
    if not 0 <= with_keypoints <= people:
        raise ValueError(f"with_keypoints is {with_keypoints}, it must lie between 0 and the {people} people")
    rng = np.random.default_rng(seed)
    sizes = SIZES[rng.choice(len(SIZES), images, p=[0.4, 0.15, 0.2, 0.1, 0.05, 0.1])]
    ids = rng.choice(5 * images, images, replace=False) + 1
    popular = rng.lognormal(0, 1, images) * (rng.random(images) < 0.54)
    popular[0] += 1e-9  # a single picture may have drawn the zero
    shown = rng.choice(images, people, p=popular / popular.sum())
    keypointed = rng.permutation(people) < with_keypoints
    crowd = ~keypointed & (rng.random(people) < 0.02)
    boxes = _boxes(rng, sizes[shown], keypointed, crowd)
    content = {
        "info": {"description": "generated, as large as COCO 2017", "year": 2017, "version": "1.0"},
        "licenses": [{"id": 1, "name": "none", "url": ""}],
        "images": [_image(*row) for row in zip(ids.tolist(), *sizes.T.tolist())],
        "annotations": _annotations(rng, ids[shown], sizes[shown], boxes, keypointed, crowd),
        "categories": [COCO17.to_coco()],
    }
    return files.write(path, msgspec.json.encode(content))


def _image(image_id: int, height: int, width: int) -> dict:
    name = f"{image_id:012d}.jpg"
    return {"license": 1, "file_name": name, "coco_url": f"http://images.example.org/train2017/{name}", "height": height,
            "width": width, "date_captured": "2013-11-14 17:02:52", "flickr_url": f"http://photos.example.org/{name}",
            "id": image_id}  # fmt: skip


def _boxes(rng: np.random.Generator, sizes: np.ndarray, keypointed: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """(P, 4) inside the pictures, to hundredths of a pixel: people without keypoints are small, crowds are wide."""
    share = np.where(keypointed, rng.lognormal(-0.8, 0.6, len(sizes)), rng.lognormal(-2.3, 0.6, len(sizes)))
    height = np.clip(share, 0.03, 0.95) * sizes[:, 0]
    width = np.minimum(height * np.where(crowd, 3, rng.uniform(0.3, 0.7, len(sizes))), 0.95 * sizes[:, 1])
    corner = rng.random((len(sizes), 2)) * (sizes[:, ::-1] - np.stack([width, height], 1))
    return np.column_stack([corner, width, height]).round(2)


def _annotations(rng, image_ids, sizes, boxes, keypointed, crowd) -> list[dict]:
    keypoints = _keypoints(rng, boxes, keypointed)
    labelled = (keypoints[..., 2] > 0).sum(axis=1)
    outlines, first, areas = _outlines(rng, boxes)
    two_parts = (rng.random(len(boxes)) < 0.1).tolist()
    ids = rng.choice(5 * len(boxes), len(boxes), replace=False) + 1
    rows = zip(ids.tolist(), image_ids.tolist(), boxes.tolist(), areas.round(4).tolist(), labelled.tolist(),
               keypoints.reshape(len(boxes), -1).tolist(), crowd.tolist())  # fmt: skip
    annotations = []
    for i, (annotation_id, image_id, box, area, count, points, is_crowd) in enumerate(rows):
        outline = outlines[2 * first[i] : 2 * first[i + 1]].tolist()
        middle = len(outline) // 4 * 2
        parts = [outline[: middle + 2], outline[middle:] + outline[:2]] if two_parts[i] else [outline]
        annotations.append({
            "segmentation": _runs(rng, sizes[i], boxes[i]) if is_crowd else parts, "num_keypoints": count, "area": area,
            "iscrowd": int(is_crowd), "keypoints": points, "image_id": image_id, "bbox": box, "category_id": 1,
            "id": annotation_id,
        })  # fmt: skip
    return annotations


def _keypoints(rng: np.random.Generator, boxes: np.ndarray, keypointed: np.ndarray) -> np.ndarray:
    """(P, 17, 3) whole pixels inside the boxes, like COCO's."""
    share = np.clip(np.array(FIGURE) + rng.normal(0, 0.02, (len(boxes), 17, 2)), 0.02, 0.98)
    away = rng.random(len(boxes)) < 0.2  # seen from behind, left and right change places
    share[away, :, 0] = 1 - share[away, :, 0]
    xy = np.floor(boxes[:, None, :2] + share * boxes[:, None, 2:])
    v = rng.choice([0, 1, 2], (len(boxes), 17), p=[0.3, 0.1, 0.6])
    v[:, 0] = np.where(v.any(axis=1), v[:, 0], 2)
    return (np.concatenate([xy, v[..., None]], axis=2) * ((v > 0) & keypointed[:, None])[..., None]).astype(int)


def _outlines(rng: np.random.Generator, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Polygons that fill their boxes, one after the other: their numbers x, y, …, where each begins, their areas."""
    corners = np.clip(rng.lognormal(3.45, 0.5, len(boxes)), 6, 200).astype(int)
    first = np.concatenate([[0], corners.cumsum()])
    owner = np.repeat(np.arange(len(boxes)), corners)
    angle = 2 * np.pi * (np.arange(first[-1]) - first[owner]) / corners[owner]
    radius = rng.uniform(0.7, 1, first[-1])
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    low, high = (f.reduceat(points, first[:-1]) for f in (np.minimum, np.maximum))
    points = boxes[owner, :2] + (points - low[owner]) / (high - low)[owner] * boxes[owner, 2:]
    following = np.arange(first[-1]) + 1
    following[first[1:] - 1] = first[:-1]
    (x, y), (x2, y2) = points.T, points[following].T
    return points.round(2).ravel(), first, np.add.reduceat(x * y2 - x2 * y, first[:-1]) / 2


def _runs(rng: np.random.Generator, size: np.ndarray, box: np.ndarray) -> dict:
    """The columns of a crowd's box as runs of 0, 1, 0, …, with a ragged upper edge."""
    (height, width), (x, y, w, h) = size.tolist(), box.astype(int).tolist()
    top = rng.integers(0, max(1, h // 2), max(1, w))
    begin = (x + np.arange(len(top))) * height + y + top
    end = begin + max(1, h) - top
    edges = np.stack([begin, end], axis=1).ravel()
    return {"counts": np.diff(edges, prepend=0, append=height * width).tolist(), "size": [height, width]}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.big_coco OUT.json")
    print(write_big_coco(sys.argv[1]))
