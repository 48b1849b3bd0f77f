"""The stage: who and what stands where in a synthetic picture, painted from far to near."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lib.data.canvas import Canvas
from lib.data.figures import Figure
from lib.data.scenery import stool, thing

DrawFigure = Callable[[np.random.Generator, float, bool], Figure]  # (rng, variety, side_cue) → random figure
CROWD = 255  # owner number of the far-away crowd


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
    max_people: int = 3
    height: tuple[float, float] = (0.55, 0.95)
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
        if not 1 <= self.min_people <= self.max_people < CROWD:
            raise ValueError(
                f"a scene needs 1 <= min_people <= max_people <= 254, got {self.min_people} and {self.max_people}"
            )
        if not 0 < self.height[0] <= self.height[1]:
            raise ValueError(f"a scene needs 0 < low <= high in height, got {self.height}")
        for dial in ("overlap", "truncation", "crowd", "clutter", "pose_variety"):
            if not 0 <= getattr(self, dial) <= 1:
                raise ValueError(f"{dial} of a scene goes from 0 to 1, got {getattr(self, dial)}")
        if min(self.objects, self.noise) < 0:
            raise ValueError(f"objects and noise of a scene cannot be negative, got {self.objects} and {self.noise}")
        if min(self.size) < 32 or not 1 <= self.supersample <= 8:
            raise ValueError(
                f"a scene needs at least 32x32 pixels and supersample 1..8, got {self.size}, {self.supersample}"
            )


@dataclass
class Placed:
    """A figure with its size and place in the picture."""

    figure: Figure
    scale: float
    at: tuple[float, float]  # pixel of the figure's origin: the ground under its middle

    def box(self) -> np.ndarray:
        """[x0, y0, x1, y1] pixels around all shapes."""
        return self.figure.bounds * self.scale + np.tile(self.at, 2)


def compose(
    canvas: Canvas,
    image: np.ndarray,
    scene: Scene,
    rng: np.random.Generator,
    horizon: int,
    draw_figure: DrawFigure,
) -> list[Placed]:
    """Place figures and objects, and paint them far to near; figure p becomes owner p + 1 of the canvas.

    Their shadows darken `image`, (H, W, 3) uint8, in place.
    """
    height, width = scene.size
    count = int(rng.integers(scene.min_people, scene.max_people + 1))
    low, high = np.log(scene.height)
    people: list[Placed] = []
    for scale in np.sort(np.exp(rng.uniform(low, high, count))) * height:
        figure = draw_figure(rng, scene.pose_variety, scene.side_cue)
        people.append(_place(figure, scale, scene, rng, horizon, people))
    things = []
    for _ in range(rng.poisson(scene.objects)):
        scale = rng.uniform(*scene.height) * height
        things.append((scale, (rng.uniform(0, width), ground_row(scale, height, horizon))))
    for scale, at in things:
        shadow(image, at, 0.19 * scale, 0.035 * scale)
    for p in people:
        middle, half = p.figure.footprint()
        shadow(image, (p.at[0] + middle * p.scale, p.at[1]), (half + 0.08) * p.scale, 0.035 * p.scale)
    order = [(p.at[1], owner, p) for owner, p in enumerate(people, 1)]
    order += [(at[1], 0, (scale, at)) for scale, at in things]
    for _, owner, what in sorted(order, key=lambda entry: entry[0]):
        if owner == 0:
            canvas.paint(thing(rng), what[0] * rng.uniform(0.28, 0.5), what[1])
            continue
        if len(what.figure.seat):
            canvas.paint(stool(what.figure.seat, tuple(rng.uniform(70, 200, 3))), what.scale, what.at)
        canvas.paint(what.figure.shapes, what.scale, what.at, owner)
    return people


def paint_crowd(canvas: Canvas, scene: Scene, rng: np.random.Generator, horizon: int, draw_figure: DrawFigure) -> bool:
    """Paint a far-away group as owner CROWD, or nobody; true if there is one."""
    if rng.random() >= scene.crowd:
        return False
    height, width = scene.size
    centre, spread = rng.uniform(0.15, 0.85) * width, rng.uniform(0.05, 0.12) * width
    for _ in range(int(rng.integers(5, 10))):
        scale = height * rng.uniform(0.1, 0.14)
        at = (centre + rng.uniform(-1, 1) * spread, horizon + 0.25 * scale)
        canvas.paint(draw_figure(rng, scene.pose_variety, scene.side_cue).shapes, scale, at, CROWD)
    return True


def ground_row(scale: float, height: int, horizon: int) -> float:
    """Row on which something of this size stands: the bigger, the nearer, the lower."""
    nearness = scale / (0.9 * height)
    return horizon + (0.97 * height - horizon) * min(nearness, 1.1) ** 0.8


def _place(
    figure: Figure, scale: float, scene: Scene, rng: np.random.Generator, horizon: int, others: list[Placed]
) -> Placed:
    """The first of a few random places that overlaps the others little enough, or else the best of them."""
    truncated = rng.random() < scene.truncation
    best, best_overlap = None, np.inf
    for _ in range(8):
        row = ground_row(scale, scene.size[0], horizon) + rng.normal(0, 0.02) * scene.size[0]
        box = Placed(figure, scale, (0.0, row)).box()
        x, down = (_cut_off if truncated else _inside)(box, scene.size[1], rng)
        candidate = Placed(figure, scale, (float(x), float(row + down)))
        overlap = max((_cover(candidate.box(), other.box()) for other in others), default=0.0)
        if overlap < best_overlap:
            best, best_overlap = candidate, overlap
        if overlap <= scene.overlap:
            break
    return best


def _inside(box: np.ndarray, width: int, rng: np.random.Generator) -> tuple[float, float]:
    """Column, and the way down, for a box [x0, y0, x1, y1] that shall lie inside, raised hands included."""
    left, right = 2 - box[0], width - 2 - box[2]
    return rng.uniform(left, right) if right > left else (left + right) / 2, max(0.0, 2 - box[1])


def _cut_off(box: np.ndarray, width: int, rng: np.random.Generator) -> tuple[float, float]:
    """Column, and the way down, for a box that shall lie partly outside."""
    if rng.random() < 0.4:
        return rng.uniform(0, width), rng.uniform(0.15, 0.45) * (box[3] - box[1])
    shown = rng.uniform(0.45, 0.8) * (box[2] - box[0])
    return (shown - box[2] if rng.random() < 0.5 else width - shown - box[0]), 0.0


def _cover(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection of two boxes [x0, y0, x1, y1] over the smaller one."""
    w, h = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    return float(w * h / min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2])))


def shadow(image: np.ndarray, at: tuple[float, float], rx: float, ry: float) -> None:
    """Darken the ground in an ellipse, in place."""
    x0, x1 = max(int(at[0] - rx), 0), min(int(at[0] + rx) + 1, image.shape[1])
    y0, y1 = max(int(at[1] - ry), 0), min(int(at[1] + ry) + 1, image.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    y, x = np.ogrid[y0:y1, x0:x1]
    inside = (1 - ((x - at[0]) / rx) ** 2 - ((y - at[1]) / ry) ** 2).clip(0, 1) ** 0.5
    image[y0:y1, x0:x1] = image[y0:y1, x0:x1] * (1 - 0.4 * inside[..., None])
