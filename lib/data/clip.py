"""Moving synthetic people: they walk to and fro in front of one background, and it is known who is who.

The figures, clothes and scenery are those of `lib.data.synthetic`, so a network trained on its pictures finds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np

from lib.data.canvas import Canvas
from lib.data.casting import Look, sample_look
from lib.data.person import posed_person
from lib.data.scenery import background
from lib.data.stage import Placed, ground_row, shadow
from lib.data.synthetic import sensed, visible_keypoints
from lib.people import People
from lib.skeleton import COCO17

RATE = 25.0
SPEED = 0.65  # body heights per second
STRIDE = 0.7  # body heights on the ground in one cycle of both legs
TURN_SECONDS = 0.4
MARGIN = 0.2  # body heights between the middle of a walker and the edge of the picture
DEFAULT_SIZE = (270, 480)


def render_clip(
    frames: int = 75,
    people: int = 2,
    size: tuple[int, int] = DEFAULT_SIZE,
    seed: int = 0,
    crossing: bool = True,
    *,
    rate: float = RATE,
    height: tuple[float, float] = (0.68, 0.86),
    noise: float = 3.0,
    supersample: int = 2,
) -> Iterator[tuple[np.ndarray, People]]:
    """Paint a clip, frame by frame.

    Args:
        frames: how many.
        people: walkers; 0 shows the empty stage.
        size: (H, W) pixels; even, for video.
        seed: who, where and how; frame i depends on the other arguments and on (seed, i) alone.
        crossing: everybody walks across the whole picture, from left and from right in turn, the first two meeting in the
            middle of the clip; else each keeps to a strip of his own.
        rate: frames per second.
        height: (low, high) of standing figures as fractions of H; each walker has a depth, and so a size, of his own.
        noise: standard deviation of the sensor noise, grey levels.
        supersample: drawing resolution per pixel side; 2 is fast.

    Yields:
        (H, W, 3) uint8 RGB and everybody (COCO's 17 keypoints, v = 2 visible, 1 hidden, 0 outside the picture; boxes around
        the whole figures; ids from 1), in the same order in every frame.
    """
    if people < 0 or people > 250 or min(size) < 32 or rate <= 0 or not 0 < height[0] <= height[1]:
        raise ValueError(f"a clip needs 0..250 people, 32x32 pixels, a positive rate and 0 < low <= high in height, got "
                         f"{people}, {size}, {rate}, {height}")  # fmt: skip
    rng = np.random.default_rng([seed, people])
    scenery, horizon = background(rng, size, clutter=0.6)
    exposure = rng.uniform(0.92, 1.08), rng.uniform(-6, 6)
    walkers = _cast(rng, people, size, horizon, crossing, height, frames / rate)
    far_to_near = sorted(range(people), key=lambda p: walkers[p].row)
    for i in range(frames):
        image, canvas = scenery.copy(), Canvas(size, supersample)
        placed = [walker.at(i / rate) for walker in walkers]
        for p in placed:
            middle, half = p.figure.footprint()
            shadow(image, (p.at[0] + middle * p.scale, p.at[1]), (half + 0.08) * p.scale, 0.035 * p.scale)
        for p in far_to_near:
            canvas.paint(placed[p].figure.shapes, placed[p].scale, placed[p].at, p + 1)
        image = sensed(canvas.over(image), np.random.default_rng([seed, people, i]), noise, *exposure)
        yield image, _labels(canvas, placed)


@dataclass
class _Walker:
    """Somebody who walks to and fro between the columns `left` and `right` on one row of the picture."""

    look: Look
    scale: float  # pixels
    row: float
    left: float
    right: float
    start: float  # pixels walked before the clip begins; 0 is at the left end, setting out
    speed: float  # pixels per second
    profile: float  # degrees away from the viewer's direction while walking
    gait: dict[str, float]
    tilt: float

    def at(self, second: float) -> Placed:
        """Pose and place at a moment of the clip."""
        length = max(self.right - self.left, 1.0)
        walked = self.start + self.speed * second
        lap, along = divmod(walked / length, 1)
        along, side = (along, 1) if int(lap) % 2 == 0 else (1 - along, -1)
        column = self.left + along * length
        # he turns round facing the viewer
        to_end = min(along, 1 - along) * length / self.speed
        heading = side * self.profile * min(1.0, to_end / (TURN_SECONDS / 2))
        phase = 2 * pi * walked / (STRIDE * self.scale)
        figure = posed_person(_step(phase, self.gait), self.look, heading, self.tilt).standing()
        return Placed(figure, self.scale, (column, self.row))


def _cast(rng: np.random.Generator, people: int, size: tuple[int, int], horizon: int, crossing: bool,
          height: tuple[float, float], seconds: float) -> list[_Walker]:  # fmt: skip
    """Who walks where; depths are spread evenly, so that nobody walks through anybody."""
    depths = rng.permutation(np.linspace(*height, people)) if people > 1 else [np.mean(height)] * people
    walkers = []
    for p, depth in enumerate(depths):
        scale = depth * size[0]
        row = ground_row(scale, size[0], horizon)
        speed = SPEED * scale * rng.uniform(0.9, 1.1)
        left, right = MARGIN * scale, size[1] - MARGIN * scale
        if not crossing:
            strip = (right - left) / people
            left, right = left + (p + 0.1) * strip, left + (p + 0.9) * strip
        # pairs meet in the middle of the clip, later pairs a little beside it
        start = (right - left) * (0.5 + (p // 2) / max(people, 1) + p % 2) - speed * seconds / 2
        if not crossing:
            start = rng.uniform(0, 2) * (right - left)
        start %= max(2 * (right - left), 1.0)
        gait = {name: rng.uniform(low, high) for name, (low, high) in _GAIT.items()}
        walkers.append(_Walker(sample_look(rng), scale, row, left, right, start, speed, rng.uniform(45, 70), gait,
                               rng.uniform(0, 10)))  # fmt: skip
    return walkers


_GAIT = {"hip": (21, 26), "knee": (38, 50), "arm": (18, 32), "elbow": (15, 40), "bend": (-3, 5), "spread": (1, 4),
         "sway": (3, 6), "look": (-15, 15), "nod": (-6, 6)}  # fmt: skip


def _step(phase: float, gait: dict[str, float]) -> dict[str, tuple[float, float, float]]:
    """Angles of the joints at a phase (radians) of the cycle in which each leg makes one step."""
    angles = {"spine": (-gait["bend"], gait["sway"] * sin(phase), 0.0), "head": (gait["nod"], gait["look"], 0.0)}
    for side, turn in (("left", phase), ("right", phase + pi)):
        hip = 4 + gait["hip"] * sin(turn)
        knee = 6 + gait["knee"] * max(0.0, cos(turn - 0.3)) ** 2  # the leg that swings forward is bent
        arm = 2 - gait["arm"] * sin(turn)
        angles |= {f"{side}_hip": (hip, 4.0, gait["spread"]), f"{side}_knee": (-knee, 0, 0),
                   f"{side}_ankle": (0.7 * (knee - hip), 0, 0), f"{side}_shoulder": (arm, -5.0, 8.0),
                   f"{side}_elbow": (gait["elbow"] + 0.4 * max(arm, 0), 0, 0)}  # fmt: skip
    return angles


def _labels(canvas: Canvas, placed: list[Placed]) -> People:
    if not placed:
        return People.empty(COCO17.num_keypoints)
    keypoints = [visible_keypoints(canvas, p, owner) for owner, p in enumerate(placed, 1)]
    corners = np.array([p.box() for p in placed])
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).astype(np.float32)
    return People(np.array(keypoints), np.ones(len(placed)), boxes, np.arange(1, len(placed) + 1))
