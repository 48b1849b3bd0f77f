"""Synthetic people: pictures of articulated figures with exact COCO annotations, all from (seed, index).

The figures and the objects around them are painted, back to front, as numbers into an id-buffer. Image, masks, boxes,
areas and the visibility of every keypoint all come from that one buffer, so they cannot disagree.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from tqdm.auto import tqdm

from lib.data.figures import Figure, Shape
from lib.data.person import person
from lib.data.scenery import background, stool, thing, walker
from lib.skeleton import COCO17, Skeleton

FIGURES = {"person": (COCO17, person)}  # name → (skeleton, function that draws a random figure)
FORMAT = 1  # goes up whenever the same (scene, seed, index) gives another picture
JPEG_QUALITY = 92


@dataclass(frozen=True)
class Scene:
    """What to expect in a picture. The defaults are easy enough to learn in minutes on a CPU.

    Attributes:
        size: (H, W) pixels.
        min_people: fewest figures per picture.
        max_people: most figures per picture; the number is drawn uniformly.
        height: (low, high) height of a standing figure as a fraction of the picture's height, drawn log-uniformly.
        overlap: largest part of a figure's box that another one's box may cover when a free place can be found; 1 allows
            everything.
        objects: mean number of objects standing among the figures, in front of them or behind.
        truncation: probability that a figure is pushed partly out of the picture.
        crowd: probability of a group of far-away people, annotated as one iscrowd region without keypoints.
        clutter: amount of things and texture in the background, 0..1.
        pose_variety: width of the pose ranges, 0 (always the same few poses) .. 1.
        side_cue: everybody wears a bright band on the left wrist and a lighter left shoe.
        noise: standard deviation of the sensor noise, grey levels of 0..255.
        supersample: drawing resolution per pixel side; 3 for training, 6 for pictures to look at.
    """

    size: tuple[int, int] = (256, 256)
    min_people: int = 1
    max_people: int = 4
    height: tuple[float, float] = (0.36, 0.86)
    overlap: float = 0.35
    objects: float = 0.8
    truncation: float = 0.12
    crowd: float = 0.12
    clutter: float = 0.6
    pose_variety: float = 1.0
    side_cue: bool = True
    noise: float = 3.0
    supersample: int = 3

    def __post_init__(self):
        if not 1 <= self.min_people <= self.max_people:
            raise ValueError(
                f"a scene needs 1 <= min_people <= max_people, got {self.min_people} and {self.max_people}"
            )
        if not 0 < self.height[0] <= self.height[1]:
            raise ValueError(f"a scene needs 0 < low <= high in height, got {self.height}")
        if min(self.size) < 32 or not 1 <= self.supersample <= 8:
            raise ValueError(
                f"a scene needs at least 32x32 pixels and supersample 1..8, got {self.size}, {self.supersample}"
            )


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
    """

    keypoints: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    iscrowd: np.ndarray
    segmentations: list = field(default_factory=list)
    ids: np.ndarray | None = None


def render(scene: Scene, seed: int, index: int, figure: str = "person") -> tuple[np.ndarray, Labels]:
    """Paint picture `index` of the series `seed`.

    Returns:
        (H, W, 3) uint8 RGB, and its labels. The same arguments give the same bytes.
    """
    skeleton, draw_figure = _figure(figure)
    rng = np.random.default_rng([seed, index])
    image, horizon = background(rng, scene.size, scene.clutter)
    canvas = _Canvas(scene.size, scene.supersample)
    crowd = _paint_crowd(canvas, scene, rng, horizon)
    figures = _compose(canvas, scene, rng, horizon, draw_figure, image)
    image = _finish(canvas.over(image), rng, scene.noise)
    labels = _labels(canvas, figures, crowd, skeleton.num_keypoints)
    return image, labels


def write_dataset(
    out_dir: str | Path,
    num_train: int = 2000,
    num_val: int = 200,
    scene: Scene = Scene(),
    figure: Literal["person"] = "person",
    seed: int = 0,
    workers: int = 2,
) -> Path:
    """Write a COCO keypoints dataset: annotations/FIGURE_keypoints_{train,val}.json and {train,val}/000000.jpg ...

    A folder that holds exactly this dataset already is left as it is. The files are made in a folder beside and moved
    into place when complete.

    Args:
        out_dir: folder to make.
        num_train: pictures for training.
        num_val: pictures for validation.
        scene: what is in the pictures.
        figure: which figure to draw.
        seed: series of pictures.
        workers: processes; the files are the same for any number.

    Returns:
        out_dir.

    Raises:
        FileExistsError: if out_dir holds anything else.
    """
    out_dir = Path(out_dir)
    skeleton, _ = _figure(figure)
    config = {"format": FORMAT, "num_train": num_train, "num_val": num_val, "scene": asdict(scene), "figure": figure,
              "seed": seed}  # fmt: skip
    config = json.loads(json.dumps(config))
    if _is_complete(out_dir, config):
        return out_dir
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    making = out_dir.with_name(f".{out_dir.name}.making-{os.getpid()}")
    try:
        (making / "annotations").mkdir(parents=True)
        # Training and validation pictures come from disjoint halves of the series.
        for split, count, first in (("train", num_train, 0), ("val", num_val, 1 << 31)):
            (making / split).mkdir()
            job = partial(_write_one, making / split, scene, seed, first, figure)
            rows = list(tqdm(_mapped(job, count, workers), total=count, desc=f"{out_dir.name}/{split}", unit="img"))
            target = making / "annotations" / f"{figure}_keypoints_{split}.json"
            target.write_text(json.dumps(_coco(rows, skeleton, scene, f"{out_dir.name} {split}, seed {seed}")))
        (making / "synthetic.json").write_text(json.dumps(config, indent=2))
        if out_dir.exists():
            out_dir.rmdir()  # it is empty, or this fails
        os.replace(making, out_dir)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return out_dir


def _figure(name: str):
    if name not in FIGURES:
        raise ValueError(f"no figure {name!r}; choose one of {', '.join(FIGURES)}")
    return FIGURES[name]


def _is_complete(out_dir: Path, config: dict) -> bool:
    """True for the same dataset, False for nothing there yet, an error for anything else."""
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
        raise FileExistsError(
            f"{out_dir} holds a dataset with other settings ({', '.join(f'{k}: {found.get(k)} there, {config[k]} wanted' for k in keys)}): "
            "choose another out_dir or remove that folder"
        )
    return True


def _mapped(job, count: int, workers: int) -> Iterator[dict]:
    if workers <= 1 or count < 8:
        yield from map(job, range(count))
        return
    # spawn, not fork: the caller may hold threads (Torch, Jupyter)
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from pool.map(job, range(count), chunksize=8)


def _write_one(folder: Path, scene: Scene, seed: int, first: int, figure: str, i: int) -> Labels:
    image, labels = render(scene, seed, first + i, figure)
    ok, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise OSError(f"{folder / f'{i:06d}.jpg'}: OpenCV could not encode the picture")
    (folder / f"{i:06d}.jpg").write_bytes(data)
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


_CIRCLE = np.stack([np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)], -1)  # (24, 2)


class _Canvas:
    """The id-buffer: every painted shape has a number; tables say its colour, its owner and its part."""

    def __init__(self, size: tuple[int, int], supersample: int):
        self.size, self.supersample = size, supersample
        self.ids = np.zeros((size[0] * supersample, size[1] * supersample), np.uint16)
        self.colours: list[tuple] = [(0, 0, 0, 0)]
        self.owners, self.parts = [0], [""]

    def fine(self, pixels):
        """Pixel coordinates → coordinates of the buffer."""
        return (np.asarray(pixels) + 0.5) * self.supersample - 0.5

    def paint(self, shapes: Sequence[Shape], scale: float, at: tuple[float, float], owner: int = 0) -> None:
        """Fill shapes, given in units of `scale` pixels, with their origin at pixel `at`; owner 0 is nobody."""
        circles = np.array([circle for shape in shapes for circle in shape.circles]) * scale  # (C, 3)
        rims = self.fine(circles[:, None, :2] + np.asarray(at) + circles[:, None, 2:] * _CIRCLE)
        rims = np.rint(rims * 16).astype(np.int32)  # 4 fractional bits
        start = 0
        for shape in shapes:
            end = start + len(shape.circles)
            outline = rims[start] if end == start + 1 else cv2.convexHull(rims[start:end].reshape(-1, 2))
            cv2.fillConvexPoly(self.ids, outline, len(self.colours), cv2.LINE_8, 4)
            self.colours.append((*shape.colour, 255))
            self.owners.append(owner)
            self.parts.append(shape.part)
            start = end

    def over(self, image: np.ndarray) -> np.ndarray:
        """Composite on an RGB picture of the final size."""
        table = np.clip(np.rint(self.colours), 0, 255).astype(np.uint8).view(np.uint32).ravel()
        fine = table[self.ids].view(np.uint8).reshape(*self.ids.shape, 4)
        small = cv2.resize(fine, self.size[::-1], interpolation=cv2.INTER_AREA)
        clear = cv2.merge([255 - small[..., 3]] * 3)
        return cv2.add(cv2.cvtColor(small, cv2.COLOR_RGBA2RGB), cv2.multiply(image, clear, scale=1 / 255))

    def owned(self) -> np.ndarray:
        """Owner of every buffer pixel, uint8."""
        return np.array(self.owners, np.uint8)[self.ids]

    def part_at(self, x: float, y: float) -> tuple[int, str]:
        """Owner and part at a pixel position inside the picture."""
        column, row = np.rint(self.fine((x, y))).astype(int)
        number = self.ids[np.clip(row, 0, self.ids.shape[0] - 1), np.clip(column, 0, self.ids.shape[1] - 1)]
        return self.owners[number], self.parts[number]


@dataclass
class _Placed:
    figure: Figure
    scale: float
    at: tuple[float, float]  # pixel of the figure's origin: the ground under its middle

    def box(self) -> np.ndarray:
        """[x0, y0, x1, y1] pixels around all shapes."""
        circles = np.array([c for s in self.figure.shapes for c in s.circles])
        low = (circles[:, :2] - circles[:, 2:]).min(0) * self.scale + self.at
        high = (circles[:, :2] + circles[:, 2:]).max(0) * self.scale + self.at
        return np.concatenate([low, high])


def _paint_crowd(canvas: _Canvas, scene: Scene, rng: np.random.Generator, horizon: int) -> int:
    """Paint a far-away group, or nobody; returns its owner number (0 = none)."""
    if rng.random() >= scene.crowd:
        return 0
    height, width = scene.size
    centre, spread = rng.uniform(0.15, 0.85) * width, rng.uniform(0.05, 0.12) * width
    for _ in range(int(rng.integers(5, 11))):
        scale = height * rng.uniform(0.09, 0.13)
        at = (centre + rng.uniform(-1, 1) * spread, horizon + height * 0.01 + scale * 0.3)
        canvas.paint(walker(rng), scale, at, owner=255)
    return 255


def _compose(canvas: _Canvas, scene: Scene, rng, horizon: int, draw_figure, image: np.ndarray) -> list[_Placed]:
    """Place figures and objects, and paint them far to near. Figure p is painted as owner p + 1."""
    height, width = scene.size
    count = int(rng.integers(scene.min_people, scene.max_people + 1))
    low, high = np.log(scene.height)
    scales = np.sort(np.exp(rng.uniform(low, high, count))) * height
    placed: list[_Placed] = []
    for scale in scales:
        placed.append(_place(draw_figure(rng, scene.pose_variety, scene.side_cue), scale, scene, rng, horizon, placed))
    things = []
    for _ in range(rng.poisson(scene.objects)):
        near = rng.uniform(*scene.height)
        things.append((near * height, (rng.uniform(0, width), _ground(near * height, height, horizon))))
    for scale, at in [(p.scale, p.at) for p in placed] + things:
        _shadow(image, at, scale)
    order = [(p.at[1], p.scale, number) for number, p in enumerate(placed, 1)]
    order += [(at[1], scale, -k) for k, (scale, at) in enumerate(things, 1)]
    for _, scale, number in sorted(order):
        if number < 0:
            canvas.paint(thing(rng), scale * rng.uniform(0.28, 0.5), things[-number - 1][1])
            continue
        figure, at = placed[number - 1].figure, placed[number - 1].at
        if len(figure.seat):
            canvas.paint(stool(figure.seat, tuple(rng.uniform(70, 200, 3))), scale, at)
        canvas.paint(figure.shapes, scale, at, owner=number)
    return placed


def _ground(scale: float, height: int, horizon: int) -> float:
    """Row on which something of this size stands: the bigger, the nearer, the lower."""
    nearness = scale / (0.9 * height)
    return horizon + (0.97 * height - horizon) * min(nearness, 1.1) ** 0.8


def _place(figure: Figure, scale: float, scene: Scene, rng, horizon: int, others: list[_Placed]) -> _Placed:
    """Best of a few places: the first whose overlap with the others is small enough, else the one with the smallest."""
    height, width = scene.size
    truncated = rng.random() < scene.truncation
    best, best_overlap = None, np.inf
    for _ in range(8):
        row = _ground(scale, height, horizon) + rng.normal(0, 0.02) * height
        candidate = _Placed(figure, scale, (0.0, row))
        x0, _, x1, _ = candidate.box()
        if truncated:
            cut = rng.uniform(0.2, 0.55) * (x1 - x0)
            x = (cut - x1) if rng.random() < 0.5 else (width - cut - x0)
            x, row = (rng.uniform(0, width), row + rng.uniform(0.15, 0.45) * scale) if rng.random() < 0.4 else (x, row)
        else:
            left, right = 2 - x0, width - 2 - x1
            x = rng.uniform(left, right) if right > left else (left + right) / 2
            top = candidate.box()[1]
            row += max(0.0, 2 - top)  # raised hands stay in the picture
        candidate = _Placed(figure, scale, (float(x), float(row)))
        overlap = max((_cover(candidate.box(), other.box()) for other in others), default=0.0)
        if overlap < best_overlap:
            best, best_overlap = candidate, overlap
        if overlap <= scene.overlap:
            break
    return best


def _cover(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection of two boxes [x0, y0, x1, y1] over the smaller one."""
    w, h = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    return float(w * h / min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2])))


def _shadow(image: np.ndarray, at: tuple[float, float], scale: float) -> None:
    """Darken the ground under a figure, in place."""
    rx, ry = 0.19 * scale, 0.035 * scale
    x0, x1 = max(int(at[0] - rx), 0), min(int(at[0] + rx) + 1, image.shape[1])
    y0, y1 = max(int(at[1] - ry), 0), min(int(at[1] + ry) + 1, image.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    y, x = np.ogrid[y0:y1, x0:x1]
    inside = (1 - ((x - at[0]) / rx) ** 2 - ((y - at[1]) / ry) ** 2).clip(0, 1) ** 0.5
    image[y0:y1, x0:x1] = image[y0:y1, x0:x1] * (1 - 0.4 * inside[..., None])


def _finish(image: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    """Exposure and sensor noise."""
    gain, offset = rng.uniform(0.85, 1.1), rng.uniform(-8, 8)
    values = image.astype(np.float32) * np.float32(gain) + np.float32(offset)
    if noise > 0:
        values += rng.standard_normal(image.shape, np.float32) * np.float32(noise)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _labels(canvas: _Canvas, figures: Sequence[_Placed], crowd: int, num_keypoints: int) -> Labels:
    owned, s = canvas.owned(), canvas.supersample
    small = owned[s // 2 :: s, s // 2 :: s]
    rows, ids = [], np.zeros_like(small)
    for owner in [*range(1, len(figures) + 1), *([crowd] if crowd else [])]:
        mask = owned == owner
        box = cv2.boundingRect(mask.view(np.uint8))
        if owner == crowd:
            points, segmentation = np.zeros((num_keypoints, 3)), _run_lengths(small == owner)
        else:
            points, segmentation = _keypoints(canvas, figures[owner - 1], owner), _polygons(mask, box, s)
        area = cv2.countNonZero(mask.view(np.uint8)) / s**2
        if area < 1 or not segmentation:
            continue  # not a pixel of it can be seen
        rows.append((points, np.array(box) / s, area, owner == crowd, segmentation))
        ids[small == owner] = len(rows)
    keypoints, boxes, areas, iscrowd, segmentations = zip(*rows) if rows else ([], [], [], [], [])
    return Labels(np.reshape(keypoints, (-1, num_keypoints, 3)).astype(np.float32),
                  np.reshape(boxes, (-1, 4)).astype(np.float32), np.array(areas, np.float32), np.array(iscrowd, bool),
                  list(segmentations), ids)  # fmt: skip


def _keypoints(canvas: _Canvas, placed: _Placed, owner: int) -> np.ndarray:
    """(K, 3): positions in pixels, and the visibility read from the buffer."""
    height, width = canvas.size
    points = np.zeros((len(placed.figure.keypoints), 3))
    for k, (x, y) in enumerate(placed.figure.keypoints * placed.scale + placed.at):
        if -0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5:
            seen, part = canvas.part_at(x, y)
            points[k] = x, y, 2 if seen == owner and part in placed.figure.surfaces[k] else 1
    return points


def _polygons(mask: np.ndarray, box: Sequence[int], supersample: int) -> list[list[float]]:
    """Outlines of a buffer mask in COCO's corner coordinates; specks below one pixel are left out."""
    x, y, w, h = box
    contours, _ = cv2.findContours(mask[y : y + h, x : x + w].view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for contour in contours:
        contour = cv2.approxPolyDP(contour, supersample * 0.3, True)[:, 0] + (x + 0.5, y + 0.5)
        if len(contour) >= 3 and cv2.contourArea(contour.astype(np.float32)) >= supersample**2:
            polygons.append((contour / supersample).round(2).ravel().tolist())
    return polygons


def _run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed RLE: runs of zeros and ones in turn, down the columns."""
    flat = np.concatenate([[0], mask.ravel(order="F").astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    if edges.size and edges[-1] == mask.size:
        counts = counts[:-1]
    return {"size": [int(n) for n in mask.shape], "counts": counts.tolist()}
