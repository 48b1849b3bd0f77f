"""Backgrounds and objects around the synthetic figures."""

from __future__ import annotations

import cv2
import numpy as np

from lib.data.figures import Colour, Shape, lit, outlined, shade

_SKIES = [((150, 200, 235), (226, 238, 244)), ((246, 190, 150), (252, 232, 204)), ((92, 122, 170), (190, 200, 216)),
          ((206, 214, 220), (236, 236, 234)), ((170, 214, 206), (238, 242, 226))]  # fmt: skip
_WALLS = [(222, 206, 188), (190, 204, 210), (214, 196, 206), (200, 212, 190), (232, 222, 196), (160, 172, 186)]
_GROUNDS = [(136, 168, 104), (196, 182, 150), (150, 150, 154), (176, 138, 104), (110, 138, 116), (206, 198, 190)]
_THINGS = [(208, 96, 78), (238, 178, 86), (96, 152, 138), (86, 122, 176), (150, 104, 146), (120, 96, 78), (94, 98, 108)]


def background(rng: np.random.Generator, size: tuple[int, int], clutter: float) -> tuple[np.ndarray, int]:
    """Sky or wall above a ground, things in the distance, soft texture.

    Args:
        rng: source of everything.
        size: (H, W) pixels.
        clutter: amount of things and texture, 0..1.

    Returns:
        (H, W, 3) uint8 RGB, and the row of the horizon.
    """
    height, width = size
    horizon = int(height * rng.uniform(0.45, 0.66))
    indoor = rng.random() < 0.4
    top, bottom = (_WALLS[rng.integers(len(_WALLS))],) * 2 if indoor else _SKIES[rng.integers(len(_SKIES))]
    ground = np.array(_GROUNDS[rng.integers(len(_GROUNDS))]) + rng.normal(0, 8, 3)
    ramp = np.linspace(0, 1, height)[:, None]
    above = np.asarray(top) * (1 - ramp * height / horizon).clip(0) + np.asarray(bottom) * (
        ramp * height / horizon
    ).clip(0, 1)
    below = ground * (0.86 + 0.22 * ramp)
    column = np.where(np.arange(height)[:, None] < horizon, above, below)
    image = np.ascontiguousarray(np.broadcast_to(column[:, None], (height, width, 3)).clip(0, 255).astype(np.uint8))
    (_room if indoor else _landscape)(image, rng, horizon, clutter)
    return _textured(image, rng, 15 * clutter), horizon


def _room(image: np.ndarray, rng: np.random.Generator, horizon: int, clutter: float) -> None:
    height, width = image.shape[:2]
    wall = image[0, 0].astype(float)
    if rng.random() < 0.5:  # wallpaper
        step = int(rng.uniform(0.05, 0.12) * width)
        for x in range(int(rng.integers(step)), width, 2 * step):
            cv2.rectangle(image, (x, 0), (x + step // 2, horizon), shade(wall, 0.95), -1)
    for _ in range(rng.poisson(2.2 * clutter)):  # pictures and windows
        w, h = rng.uniform(0.08, 0.22, 2) * width
        x, y = rng.uniform(0, width), rng.uniform(0, max(horizon - h, 1))
        colour = _THINGS[rng.integers(len(_THINGS))]
        _box(image, (x, y, w, h), shade(wall, 0.55))
        _box(image, (x + 3, y + 3, w - 6, h - 6), colour)
        _box(image, (x + 3, y + h / 2, w - 6, h / 2 - 3), shade(colour, rng.uniform(0.6, 1.4)))
    cv2.line(image, (0, horizon), (width, horizon), shade(wall, 0.7), max(2, height // 64))
    if rng.random() < 0.5:  # floor boards towards a vanishing point
        centre, tone = rng.uniform(0.2, 0.8) * width, shade(image[-1, 0].astype(float), 0.88)
        for x in np.linspace(-1.5 * width, 2.5 * width, 18):
            start = (int(centre + (x - centre) * 0.35), horizon + height // 64)
            cv2.line(image, start, (int(x), height), tone, 1, cv2.LINE_AA)


def _landscape(image: np.ndarray, rng: np.random.Generator, horizon: int, clutter: float) -> None:
    height, width = image.shape[:2]
    far = image[horizon - 1, 0].astype(float)
    if rng.random() < 0.4:
        centre = (int(rng.uniform(0, width)), int(rng.uniform(0.05, 0.6) * horizon))
        cv2.circle(image, centre, int(width * rng.uniform(0.03, 0.07)), (255, 244, 214), -1, cv2.LINE_AA)
    for _ in range(rng.poisson(2 * clutter)):  # clouds
        x, y, r = rng.uniform(0, width), rng.uniform(0, 0.6) * horizon, rng.uniform(0.03, 0.06) * width
        for dx, k in ((-1.1, 0.7), (0, 1.0), (1.1, 0.75)):
            cv2.ellipse(
                image, (int(x + dx * r), int(y)), (int(r), int(r * k * 0.6)), 0, 0, 360, shade(far, 1.5), -1, 16
            )
    for _ in range(rng.poisson(1.5)):  # hills
        tone = np.array((110, 140, 130)) * 0.5 + far * 0.5 + rng.normal(0, 8, 3)
        axes = (int(width * rng.uniform(0.3, 0.7)), int(height * rng.uniform(0.06, 0.2)))
        cv2.ellipse(image, (int(rng.uniform(0, width)), horizon), axes, 0, 180, 360, tone.clip(0, 255).tolist(), -1, 16)
    for _ in range(rng.poisson(5 * clutter)):  # houses and trees
        x, w, h = rng.uniform(0, width), rng.uniform(0.05, 0.15) * width, rng.uniform(0.08, 0.34) * height
        colour = np.array(_THINGS[rng.integers(len(_THINGS))]) * 0.55 + far * 0.45
        if rng.random() < 0.6:
            _box(image, (x, horizon - h, w, h), colour)
            for row in np.arange(horizon - h + 5, horizon - 6, 12):
                for column in np.arange(x + 4, x + w - 5, 9):
                    _box(image, (column, row, 4, 6), shade(colour, 1.45))
        else:
            _box(image, (x, horizon - h * 0.5, w * 0.12, h * 0.5), shade((110, 84, 66), 1.2))
            green = np.array((96, 148, 104)) * 0.75 + far * 0.25
            cv2.circle(
                image, (int(x + w * 0.06), int(horizon - h * 0.6)), int(w * 0.45), green.tolist(), -1, cv2.LINE_AA
            )


def _box(image: np.ndarray, box: tuple[float, float, float, float], colour) -> None:
    x, y, w, h = box
    if w > 0 and h > 0:
        cv2.rectangle(image, (int(x), int(y)), (int(x + w), int(y + h)), tuple(float(c) for c in colour), -1)


def _textured(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Light and dark blotches of three sizes."""
    height, width = image.shape[:2]
    texture = np.zeros((height, width), np.float32)
    for cells, weight in ((4, 0.5), (14, 0.3), (48, 0.2)):
        grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32) * (weight * strength)
        texture += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.add(image, cv2.merge([texture] * 3), dtype=cv2.CV_8U)


def thing(rng: np.random.Generator, kind: str | None = None) -> list[Shape]:
    """An object that stands on the ground at y = 0, about 1 high: one of `KINDS`, by default a random one."""
    colour = tuple(np.clip(np.array(_THINGS[rng.integers(len(_THINGS))]) + rng.normal(0, 10, 3), 0, 255))
    kind = kind or list(KINDS)[int(rng.integers(len(KINDS)))]
    return KINDS[kind](rng, colour)


def stool(corners, colour: Colour) -> list[Shape]:
    """A box seat with the given corner circles."""
    return outlined(lit(Shape(corners, colour, "thing")))


def _block(x0: float, y0: float, x1: float, y1: float, colour: Colour, r: float = 0.015) -> Shape:
    return Shape([(x, y, r) for x in (x0 + r, x1 - r) for y in (y0 + r, y1 - r)], colour, "thing")


def _crate(rng: np.random.Generator, colour: Colour) -> list[Shape]:
    w, h = rng.uniform(0.3, 0.6), rng.uniform(0.5, 1.0)
    bars = [_block(-w, y, w, y + 0.07, shade(colour, 0.82)) for y in (-h, -0.07)]
    cross = Shape([(-w + 0.05, -0.1, 0.03), (w - 0.05, -h + 0.1, 0.03)], shade(colour, 0.82), "thing")
    return outlined([_block(-w, -h, w, 0, colour)], 0.012) + [cross, *bars]


def _ball(rng: np.random.Generator, colour: Colour) -> list[Shape]:
    r = rng.uniform(0.2, 0.4)
    disc = Shape([(0, -r, r)], colour, "thing")
    stripe = Shape([(-0.75 * r, -1.2 * r, 0.1 * r), (0.8 * r, -0.9 * r, 0.1 * r)], shade(colour, 1.7), "thing")
    return outlined(lit(disc, factor=0.8), 0.012) + [stripe]


def _bush(rng: np.random.Generator, colour: Colour) -> list[Shape]:
    green = tuple(np.array((84, 138, 92)) + rng.normal(0, 12, 3))
    leaves = []
    for _ in range(9):
        x, y, r = rng.uniform(-0.3, 0.3), rng.uniform(-0.8, -0.3), rng.uniform(0.12, 0.22)
        leaves.append(Shape([(x, y, r)], shade(green, rng.uniform(0.8, 1.2)), "thing"))
    pot = Shape([(-0.14, -0.2, 0.04), (0.14, -0.2, 0.04), (-0.1, -0.04, 0.04), (0.1, -0.04, 0.04)], colour, "thing")
    return outlined([pot, *leaves], 0.012)


def _post(rng: np.random.Generator, colour: Colour) -> list[Shape]:
    pole = Shape([(0, -1.6, 0.035), (0, -0.03, 0.035)], (120, 124, 130), "thing")
    sign = Shape([(0, -1.6, 0.22)], colour, "thing") if rng.random() < 0.5 else _block(-0.3, -1.8, 0.3, -1.4, colour)
    bar = Shape([(-0.12, -1.6, 0.03), (0.12, -1.6, 0.03)], (245, 245, 240), "thing")
    return outlined([pole, sign], 0.012) + [bar]


def _cone(rng: np.random.Generator, colour: Colour) -> list[Shape]:
    body = Shape([(0, -0.7, 0.03), (-0.2, -0.06, 0.03), (0.2, -0.06, 0.03)], (236, 120, 60), "thing")
    band = Shape([(-0.09, -0.36, 0.04), (0.09, -0.36, 0.04)], (245, 240, 230), "thing")
    return outlined([body, _block(-0.3, -0.08, 0.3, 0, (200, 96, 50))], 0.012) + [band]


def _barrel(rng: np.random.Generator, colour: Colour) -> list[Shape]:
    body = Shape([(-0.2, -0.8, 0.05), (0.2, -0.8, 0.05), (0.27, -0.42, 0.05), (-0.27, -0.42, 0.05), (-0.2, -0.05, 0.05),
                  (0.2, -0.05, 0.05)], colour, "thing")  # fmt: skip
    rings = [Shape([(-0.24, y, 0.025), (0.24, y, 0.025)], shade(colour, 0.7), "thing") for y in (-0.65, -0.2)]
    return outlined(lit(body, factor=0.85), 0.012) + rings


KINDS = {"crate": _crate, "ball": _ball, "bush": _bush, "post": _post, "cone": _cone, "barrel": _barrel}
