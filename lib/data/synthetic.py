"""Synthetic people: pictures of articulated figures with exact COCO annotations, all from (seed, index).

The figures and the objects around them are painted, back to front, as numbers into an id-buffer. Image, masks, boxes,
areas and the visibility of every keypoint all come from that one buffer, so they cannot disagree.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import cv2
import numpy as np
from tqdm.auto import tqdm

from lib.data.canvas import Canvas, polygons, run_lengths
from lib.data.dog import DOG, dog
from lib.data.mpii import RECTS, REFERENCE, head_size
from lib.data.person import mpii_person, person
from lib.data.scenery import background
from lib.data.stage import CROWD, Placed, Scene, compose, paint_crowd
from lib.draw import encoded
from lib.skeleton import COCO17, MPII16, Skeleton

# name → (skeleton, function that draws a random figure); MPII's people are the same as COCO's, annotated otherwise
FIGURES = {"person": (COCO17, person), "dog": (DOG, dog), "mpii": (MPII16, mpii_person)}
FORMAT = 1  # goes up whenever the same (scene, seed, index) gives another picture
JPEG_QUALITY = 92
DEFAULT_SCENE = Scene()
_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])


@dataclass
class Labels:
    """Annotations of one picture, one row per COCO annotation; crowd regions come last.

    Attributes:
        keypoints: (P, K, 3) float32 [x, y, v], v = 2 visible, 1 hidden, 0 outside the picture (then x = y = 0).
        boxes: (P, 4) float32 [x, y, width, height] around the visible pixels, in COCO's corner coordinates.
        areas: (P,) float32 visible area, pixels².
        iscrowd: (P,) bool.
        segmentations: polygons [[x, y, ...], ...], or uncompressed RLE {"size", "counts"} for a crowd.
        ids: (H, W) uint8, 0 background and objects, p + 1 the pixels of row p.
        heads: (P, 4) float32 [x, y, width, height] of the whole head, also where it is hidden or outside the picture; 0 for
            crowds and for figures without an annotated head.
        heights: (P,) float32 pixels of the figure standing upright, 0 for crowds.
    """

    keypoints: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    iscrowd: np.ndarray
    segmentations: list = field(default_factory=list)
    ids: np.ndarray | None = None
    heads: np.ndarray | None = None
    heights: np.ndarray | None = None


def render(scene: Scene, seed: int, index: int, figure: str = "person") -> tuple[np.ndarray, Labels]:
    """Paint picture `index` of the series `seed`.

    Returns:
        (H, W, 3) uint8 RGB, and its labels. The same arguments give the same bytes.
    """
    skeleton, draw_figure = _figure(figure)
    rng = np.random.default_rng([seed, index])
    image, horizon = background(rng, scene.size, scene.clutter)
    canvas = Canvas(scene.size, scene.supersample)
    crowd = paint_crowd(canvas, scene, rng, horizon, draw_figure)
    figures = compose(canvas, image, scene, rng, horizon, draw_figure)
    image = sensed(canvas.over(image), rng, scene.noise, rng.uniform(0.92, 1.08), rng.uniform(-6, 6))
    labels = _labels(canvas, figures, crowd, skeleton.num_keypoints)
    return image, labels


def write_dataset(
    out_dir: str | Path,
    num_train: int = 4000,
    num_val: int = 200,
    scene: Scene = DEFAULT_SCENE,
    figure: Literal["person", "dog", "mpii"] = "person",
    seed: int = 0,
    workers: int = 2,
) -> Path:
    """Write a COCO keypoints dataset: annotations/FIGURE_keypoints_{train,val}.json and {train,val}/000000.jpg ...

    A folder that holds exactly this dataset already is left as it is. The files are made in a folder beside and moved
    into place when complete.

    The figure "mpii" is the person with MPII's 16 joints, annotated as `lib.data.mpii.to_coco` has it: `head_box`, `rect`,
    `single_person`, `objpos` and `scale`, and ids that no other picture of the set has, also of the other split. Its files
    are called person_keypoints, as MPII's are, and `python -m lib crops` cuts DeeperCut's crops out of it.

    Args:
        out_dir: folder to make.
        num_train: pictures for training.
        num_val: pictures for validation.
        scene: what is in the pictures.
        figure: which figure to draw.
        seed: series of pictures.
        workers: processes; the files are the same for any number. A script that asks for more than one must make the
            call under `if __name__ == "__main__":`.

    Returns:
        out_dir.

    Raises:
        FileExistsError: if out_dir holds anything else.
    """
    out_dir = Path(out_dir)
    skeleton, _ = _figure(figure)
    if min(num_train, num_val) < 0 or seed < 0 or not num_train + num_val:
        raise ValueError(f"a dataset needs pictures and a seed that is not negative, got num_train {num_train}, num_val "
                         f"{num_val}, seed {seed}")  # fmt: skip
    config = {"format": FORMAT, "num_train": num_train, "num_val": num_val, "scene": asdict(scene), "figure": figure,
              "seed": seed}  # fmt: skip
    config = json.loads(json.dumps(config))
    if is_complete(out_dir, config):
        return out_dir
    with made_beside(out_dir, config) as making:
        (making / "annotations").mkdir()
        # Training and validation pictures come from disjoint halves of the series.
        for split, count, first in (("train", num_train, 0), ("val", num_val, 1 << 31)):
            (making / split).mkdir()
            job = partial(_write_one, making / split, scene, seed, first, figure)
            rows = list(tqdm(_mapped(job, count, workers), total=count, desc=f"{out_dir.name}/{split}", unit="img", delay=1))
            content = _coco(rows, skeleton, scene, f"{out_dir.name} {split}, seed {seed}")
            if skeleton == MPII16:
                _add_mpii(content, rows, first_id=1 if split == "train" else num_train + 1)
            target = making / "annotations" / f"{skeleton.name}_keypoints_{split}.json"
            target.write_text(json.dumps(content))
    return out_dir


def _figure(name: str):
    if name not in FIGURES:
        raise ValueError(f"no figure {name!r}; choose one of {', '.join(FIGURES)}")
    return FIGURES[name]


def is_complete(out_dir: Path, config: dict) -> bool:
    """True where out_dir holds the dataset of this config, False for nothing there yet, FileExistsError for anything else."""
    if not out_dir.exists() or (out_dir.is_dir() and not any(out_dir.iterdir())):
        return False
    try:
        found = json.loads((out_dir / "synthetic.json").read_text())
    except (OSError, ValueError):
        raise FileExistsError(
            f"{out_dir} holds something that is not a synthetic dataset: choose another out_dir"
        ) from None
    if found != config:
        keys = [k for k in config if found.get(k) != config[k]]
        differences = "; ".join(f"{k} is {found.get(k)}, you ask for {config[k]}" for k in keys)
        raise FileExistsError(
            f"{out_dir} holds a dataset with other settings ({differences}): choose another out_dir or remove that folder"
        )
    return True


@contextmanager
def made_beside(out_dir: Path, config: dict) -> Iterator[Path]:
    """A folder to make a dataset in; it becomes `out_dir` when the block ends, with its config, and is removed when it fails.

    Raises:
        OSError: out_dir holds something by now.
    """
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", dir=out_dir.parent))
    try:
        making.chmod(0o755)
        yield making
        (making / "synthetic.json").write_text(json.dumps(config, indent=2))
        if out_dir.exists():
            out_dir.rmdir()  # it is empty, or this fails
        os.replace(making, out_dir)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _mapped(job, count: int, workers: int) -> Iterator[dict]:
    if workers <= 1 or count < 8:
        yield from map(job, range(count))
        return
    # spawn, not fork: the caller may hold threads (Torch, Jupyter)
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(job, range(count), chunksize=8)


def _write_one(folder: Path, scene: Scene, seed: int, first: int, figure: str, i: int) -> Labels:
    image, labels = render(scene, seed, first + i, figure)
    (folder / f"{i:06d}.jpg").write_bytes(encoded(".jpg", image, JPEG_QUALITY))
    labels.ids = None
    return labels


def _coco(rows: Sequence[Labels], skeleton: Skeleton, scene: Scene, description: str) -> dict:
    height, width = scene.size
    annotations = []
    for image_id, labels in enumerate(rows):
        for p in range(len(labels.boxes)):
            keypoints = labels.keypoints[p].astype(float).round(2)
            annotations.append({
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": 1,
                "iscrowd": int(labels.iscrowd[p]),
                "bbox": labels.boxes[p].astype(float).round(2).tolist(),
                "area": round(float(labels.areas[p]), 2),
                "segmentation": labels.segmentations[p],
                "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                "keypoints": [v if k % 3 < 2 else int(v) for k, v in enumerate(keypoints.ravel().tolist())],
            })  # fmt: skip
    images = [{"id": i, "file_name": f"{i:06d}.jpg", "width": width, "height": height} for i in range(len(rows))]
    return {"info": {"description": description, "version": str(FORMAT)}, "licenses": [], "images": images,
            "annotations": annotations, "categories": [skeleton.to_coco()]}  # fmt: skip


def _add_mpii(content: dict, rows: Sequence[Labels], first_id: int) -> None:
    """Give a COCO file MPII's ids and what only MPII annotates, in place."""
    for image in content["images"]:
        image["id"] += first_id
    annotations = iter(content["annotations"])
    for image_id, labels in enumerate(rows, first_id):
        apart = _apart(labels)
        for p in range(len(labels.boxes)):
            a = next(annotations)
            a |= {"id": RECTS * image_id + p + 1, "image_id": image_id}
            if not labels.iscrowd[p]:
                x, y, w, h = labels.boxes[p].astype(float)
                a |= {"rect": p + 1, "single_person": bool(apart[p]),
                      "head_box": labels.heads[p].astype(float).round(2).tolist(),
                      "objpos": [round(x + (w - 1) / 2, 2), round(y + (h - 1) / 2, 2)],
                      "scale": round(float(labels.heights[p]) / REFERENCE, 4)}  # fmt: skip


def _apart(labels: Labels) -> np.ndarray:
    """(P,) bool: whose box, grown by half a head, touches nobody else's, grown likewise."""
    margins = np.array([head_size(head) / 2 for head in labels.heads])[:, None]
    low, high = labels.boxes[:, :2] - margins, labels.boxes[:, :2] + labels.boxes[:, 2:] + margins
    touching = ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(axis=2)
    return touching.sum(axis=1) == 1  # themselves


def sensed(image: np.ndarray, rng: np.random.Generator, noise: float, gain: float, offset: float) -> np.ndarray:
    """Exposure and sensor noise, by tables: each random byte stands for one quantile of the normal distribution."""
    exposed = cv2.LUT(image, np.clip(np.rint(np.arange(256) * gain + offset), 0, 255).astype(np.uint8))
    bytes_ = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    return cv2.add(exposed, cv2.LUT(bytes_, np.rint(_QUANTILES * noise).astype(np.int16)), dtype=cv2.CV_8U)


def _labels(canvas: Canvas, figures: Sequence[Placed], crowd: bool, num_keypoints: int) -> Labels:
    owned, s = canvas.owned(), canvas.supersample
    small = owned[s // 2 :: s, s // 2 :: s]
    rows, ids = [], np.zeros_like(small)
    for owner in [*range(1, len(figures) + 1), *([CROWD] if crowd else [])]:
        mask = owned == owner
        box = cv2.boundingRect(mask.view(np.uint8))
        if owner == CROWD:
            points, segmentation = np.zeros((num_keypoints, 3)), run_lengths(small == owner)
            head, height = np.zeros(4), 0.0
        else:
            points, segmentation = visible_keypoints(canvas, figures[owner - 1], owner), polygons(mask, box, s)
            head, height = _head(figures[owner - 1]), figures[owner - 1].scale
        area = cv2.countNonZero(mask.view(np.uint8)) / s**2
        if area < 1 or not segmentation:
            continue  # not a pixel of it can be seen
        rows.append((points, np.array(box) / s, area, owner == CROWD, segmentation, head, height))
        ids[small == owner] = len(rows)
    keypoints, boxes, areas, iscrowd, segmentations, heads, heights = zip(*rows) if rows else [[]] * 7
    return Labels(np.reshape(keypoints, (-1, num_keypoints, 3)).astype(np.float32),
                  np.reshape(boxes, (-1, 4)).astype(np.float32), np.array(areas, np.float32), np.array(iscrowd, bool),
                  list(segmentations), ids, np.reshape(heads, (-1, 4)).astype(np.float32),
                  np.array(heights, np.float32))  # fmt: skip


def _head(placed: Placed) -> np.ndarray:
    """(4,) [x, y, width, height] in pixels, 0 where no head is annotated."""
    if placed.figure.head is None:
        return np.zeros(4)
    x0, y0, x1, y1 = placed.figure.head * placed.scale + np.tile(placed.at, 2)
    return np.array([x0, y0, x1 - x0, y1 - y0])


def visible_keypoints(canvas: Canvas, placed: Placed, owner: int) -> np.ndarray:
    """(K, 3): positions in pixels, and the visibility read from the buffer."""
    height, width = canvas.size
    points = placed.figure.keypoints * placed.scale + placed.at
    inside = ((points >= -0.5) & (points < (width - 0.5, height - 0.5))).all(axis=1)
    visible = [seen == owner and part in surfaces
               for (seen, part), surfaces in zip(canvas.topmost(points), placed.figure.surfaces)]  # fmt: skip
    return np.column_stack([points, np.where(visible, 2, 1)]) * inside[:, None]
