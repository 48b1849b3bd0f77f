"""Pictures: people, skeletons, heatmaps, part affinity fields, contact sheets, GIFs and training curves.

Colours are safe for colour-blind readers (after Okabe and Ito): the figure's left is warm, its right is cool, the middle
is grey, and each side runs from light at the head to dark at the feet. Images are RGB uint8 (H, W, 3) everywhere.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lib import files
from lib.people import People
from lib.skeleton import Skeleton
from lib.skeleton_layout import layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HOLLOW_BELOW = 0.3  # predicted keypoints with a lower score are drawn as rings, like hidden ones of annotations
TAG_RANGE = 4.0  # least width of the colours of tags: people are pushed about two apart, and one may spread over half of that

LEFT, RIGHT = ((255, 214, 90), (213, 84, 0)), ((140, 212, 255), (0, 92, 180))
MIDDLE = (245, 245, 245), (185, 185, 185)
CURVES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#555555")
OUTLINE = (25, 25, 25)
# Okabe and Ito's, and paler or darker sisters of them when there are more than seven people
TRACKS = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0), (0, 114, 178),
          (170, 215, 245), (130, 220, 190), (235, 190, 215), (150, 75, 20), (120, 90, 200))  # fmt: skip
SHIFT = 4  # OpenCV draws at 1/16 pixel; like ours, its integer coordinate is the pixel's centre


def palette(skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Colours of the keypoints (K, 3) and of the limbs (L, 3), RGB uint8: left warm, right cool, middle grey."""
    keypoints, limbs = _palette(skeleton)
    return keypoints.copy(), limbs.copy()


def draw_people(
    image: np.ndarray,
    people: People,
    skeleton: Skeleton,
    min_score: float = 0.0,
    *,
    by_track: bool = False,
    in_place: bool = False,
) -> np.ndarray:
    """Draw people over a copy of an image.

    Lines grow with the image and shrink for small people. A keypoint which is annotated as hidden (v = 1), or predicted
    with a score below 0.3, is a ring, and its limbs are thin. Values above 1 anywhere mean that these are annotations.

    Args:
        image: (H, W, 3) RGB uint8; stays as it is, unless `in_place`.
        people: P people in pixels of the image; P may be 0.
        skeleton: theirs.
        min_score: keypoints need a score (or visibility) above this.
        by_track: everybody whom a tracker knows has one colour for his id (see `track_colour`), and the id over his head;
            the others stay grey. People without `ids` are drawn as ever.
        in_place: draw on the image itself, which must be writeable and in C order; saves the copy.

    Returns:
        (H, W, 3) RGB uint8.
    """
    canvas = _canvas(image, in_place)
    if people.keypoints.shape[1] != skeleton.num_keypoints:
        raise ValueError(f"people have {people.keypoints.shape[1]} keypoints, skeleton {skeleton.name!r} has "
                         f"{skeleton.num_keypoints}: pass the skeleton which they were made with")  # fmt: skip
    finite = np.isfinite(people.keypoints).all(axis=2, keepdims=True)
    people = replace(people, keypoints=np.where(finite, people.keypoints, 0))
    scores = people.keypoints[..., 2]
    hollow = scores == 1 if (scores > 1).any() else scores < HOLLOW_BELOW
    extent = np.linalg.norm(people.boxes_around_keypoints()[:, 2:], axis=1)
    widths = np.minimum(np.sqrt(canvas.shape[0] * canvas.shape[1]) / 110, np.maximum(extent / 35, 1))
    ids = people.ids if by_track and people.ids is not None else [None] * len(people)
    for keypoints, rings, width, track in zip(people.keypoints, hollow, widths, ids):
        colours = _palette_lists(skeleton) if track is None else _track_palette(skeleton, int(track))
        _draw_person(canvas, keypoints, rings, skeleton, min_score, max(1, round(float(width))), colours)
    for keypoints, track in zip(people.keypoints, ids):  # labels lie over everybody
        if track and (keypoints[:, 2] > min_score).any():
            _draw_label(canvas, keypoints[keypoints[:, 2] > min_score, :2], int(track))
    return canvas


def track_colour(track: int) -> tuple[int, int, int]:
    """RGB of a track, the same for the same id everywhere; those of consecutive ids are far apart. 0, nobody, is grey."""
    if not track:
        return 150, 150, 150
    return TRACKS[(track - 1) % len(TRACKS)]


def heatmap_overlay(image: np.ndarray, heatmaps: np.ndarray, skeleton: Skeleton | None = None) -> np.ndarray:
    """Lay the strongest part of every cell over a greyed image.

    Args:
        image: (H, W, 3) RGB uint8.
        heatmaps: (K, h, w), 0..1; values outside are clipped.
        skeleton: tints every part in its own colour; without it all parts share one.

    Returns:
        (H, W, 3) RGB uint8.
    """
    heatmaps = _numpy(heatmaps, 3)
    strength = heatmaps.max(axis=0).clip(0, 1)
    if skeleton is not None and skeleton.num_keypoints != len(heatmaps):
        raise ValueError(f"{len(heatmaps)} heatmaps, but {skeleton.name!r} has {skeleton.num_keypoints} keypoints")
    colours = _palette(skeleton)[0][heatmaps.argmax(axis=0)] if skeleton else np.array((255, 160, 20))
    return _overlay(image, colours, strength)


def paf_overlay(image: np.ndarray, pafs: np.ndarray) -> np.ndarray:
    """Lay the strongest vector of every cell over a greyed image, its direction as hue (see `colour_wheel`).

    Args:
        image: (H, W, 3) RGB uint8.
        pafs: (2L, h, w); channel 2k is limb k's y component and 2k + 1 its x component, length up to 1.

    Returns:
        (H, W, 3) RGB uint8.
    """
    pafs = _numpy(pafs, 3)
    if len(pafs) % 2:
        raise ValueError(f"part affinity fields come in pairs (y, x), got {len(pafs)} channels")
    y, x = pafs[0::2], pafs[1::2]
    length = np.hypot(y, x)
    best = length.argmax(axis=0)[None]
    y, x, length = (np.take_along_axis(a, best, axis=0)[0] for a in (y, x, length))
    return _overlay(image, _hues(y, x), length.clip(0, 1))


def tag_overlay(image: np.ndarray, tags: np.ndarray, heatmaps: np.ndarray | None = None,
                limits: tuple[float, float] | None = None) -> np.ndarray:  # fmt: skip
    """Lay the tags over a greyed image: places of one colour belong to one person.

    Args:
        image: (H, W, 3) RGB uint8.
        tags: (K, h, w), or (1, h, w) where all keypoints share them.
        heatmaps: (K, h', w'), 0..1: each cell shows the tag of its strongest keypoint, as strongly as that is there. Without
            them the first tags show everywhere.
        limits: tags of the colours at the ends; without, the range of those that show, see `tag_limits`.

    Returns:
        (H, W, 3) RGB uint8.
    """
    tags = _numpy(tags, 3)
    if heatmaps is None:
        strength, shown = np.full(tags.shape[1:], 0.7, np.float32), tags[0]
    else:
        heatmaps = _numpy(heatmaps, 3)
        tags = np.stack([cv2.resize(channel, heatmaps.shape[:0:-1]) for channel in tags])
        strength = heatmaps.max(axis=0).clip(0, 1)
        shown = np.take_along_axis(tags, heatmaps.argmax(axis=0)[None] % len(tags), axis=0)[0]
    low, high = tag_limits(shown, strength > 0.1) if limits is None else limits
    level = ((shown - low) / max(high - low, 1e-6)).clip(0, 1) * 255
    colours = cv2.applyColorMap(np.rint(level).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return _overlay(image, colours, strength)


def tag_limits(tags: np.ndarray, where: np.ndarray) -> tuple[float, float]:
    """The range of tags, without the outermost hundredths, where `where` says; everywhere, if it says nowhere.

    It is never narrower than `TAG_RANGE`, so that somebody who is alone has one colour and not all of them.
    """
    values = tags[where & np.isfinite(tags)] if where.any() else tags[np.isfinite(tags)]
    low, high = np.percentile(values, (1, 99)).tolist() if len(values) else (0.0, 0.0)
    missing = max(0.0, TAG_RANGE - (high - low)) / 2
    return low - missing, high + missing


def colour_wheel(size: int = 96) -> np.ndarray:
    """The legend of `paf_overlay`: a (size, size, 3) disc on white, every direction from its centre in its hue."""
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) / (size / 2)
    radius = np.hypot(y, x)
    inside = np.clip((1 - radius) * size / 2, 0, 1) * np.clip((radius - 0.25) * size / 2, 0, 1)
    return np.rint(_hues(y, x) * inside[..., None] + 255 * (1 - inside[..., None])).astype(np.uint8)


def grid(images: Sequence[np.ndarray], columns: int = 4, gap: int = 4) -> np.ndarray:
    """Contact sheet: images row by row on white, each centred in a cell as large as the largest of them."""
    images = [copy_of(image) for image in images]
    if not images or columns < 1:
        raise ValueError(f"a grid needs at least one image and one column, got {len(images)} and {columns}")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top = i // columns * (height + gap) + (height - image.shape[0]) // 2
        left = i % columns * (width + gap) + (width - image.shape[1]) // 2
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def show(*images: np.ndarray, titles: Sequence[str] = (), columns: int = 4, width: float = 12.0) -> Figure:
    """Images side by side as one figure, for notebooks; make it the last line of a cell.

    Args:
        images: RGB uint8, or single maps (h, w) which get a colour scale of their own.
        titles: one for each image, or none.
        columns: at most so many in a row.
        width: of the figure, in inches.
    """
    columns = min(columns, max(1, len(images)))
    rows = -(-len(images) // columns)
    tallest = max((image.shape[0] / image.shape[1] for image in images), default=1)
    figure, axes = _subplots(rows, columns, (width, width / columns * tallest * rows + 0.3 * rows * bool(titles)))
    for axis, image in zip(axes.flat, images):
        axis.imshow(image, cmap="cividis")
    for axis, title in zip(axes.flat, titles):
        axis.set_title(title, fontsize=10)
    for axis in axes.flat:
        axis.axis("off")
    return figure


def draw_skeleton(skeleton: Skeleton) -> Figure:
    """Picture to check a skeleton with: names, numbered limbs with their direction, mirrored twins joined by dashes.

    People stand in a fixed pose, seen from the front, so their left is at the right; any other skeleton is laid out from
    its limbs, symmetric about the vertical axis where its twins are.
    """
    points = layout(skeleton)
    colours, limb_colours = (c / 255 for c in _palette(skeleton))
    figure, axes = _subplots(1, 1, (8, 8))
    axis = axes[0, 0]
    for a, b in skeleton.flip_pairs:
        axis.plot(*points[[a, b]].T, "--", color="0.75", linewidth=1, zorder=1)
    for k, (a, b) in enumerate(skeleton.limbs):
        arrow = {"arrowstyle": "-|>", "color": limb_colours[k] * 0.85, "linewidth": 2.5, "shrinkA": 5, "shrinkB": 7,
                 "mutation_scale": 16}  # fmt: skip
        axis.annotate("", points[b], points[a], zorder=2, arrowprops=arrow)
        axis.text(*(0.55 * points[a] + 0.45 * points[b]), str(k), fontsize=8, ha="center", va="center", zorder=3,
                  bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85})  # fmt: skip
    axis.scatter(*points.T, s=90, color=colours * 0.95, edgecolors="0.1", zorder=4)
    centre = points.mean(axis=0)
    for k, (name, point) in enumerate(zip(skeleton.keypoints, points)):
        outwards = 1 if point[0] >= centre[0] - 1e-6 else -1
        axis.annotate(f"{k} {name}", point, (9 * outwards, 7), textcoords="offset points", fontsize=9, zorder=5,
                      ha="left" if outwards > 0 else "right", va="center")  # fmt: skip
    axis.set_title(f"{skeleton.name}: {skeleton.num_keypoints} keypoints, {skeleton.num_limbs} limbs, "
                   f"{len(skeleton.flip_pairs)} mirrored pairs")  # fmt: skip
    axis.invert_yaxis()
    axis.margins(0.25, 0.06)
    axis.set_aspect("equal")
    axis.axis("off")
    return figure


def plot_history(history: str | Path | Sequence[Mapping]) -> Figure:
    """Curves of a training run: losses on the left (logarithmic), AP, AP50, AP75 and AR, or top-1 and top-5, on the right.

    Args:
        history: the CSV file which the trainer writes, or its rows as dicts. Every column with `loss` in its name, and
            every score which is there, becomes a curve over `step` (or `epoch`, or the row's number).
    """
    rows = _read_rows(history)
    keys = dict.fromkeys(key for row in rows for key in row)
    losses = [key for key in keys if "loss" in key.lower()]
    scores = [key for key in ("AP", "AP50", "AP75", "AR", "top1", "top5") if key in keys]
    x_key = next((key for key in ("step", "epoch") if key in keys), None)
    figure, axes = _subplots(1, 2, (11, 3.6))
    for axis, group, label in zip(axes.flat, (losses, scores), ("loss", "top-1, top-5" if "top1" in keys else "AP, AR")):
        for key, colour in zip(group, CURVES * len(group)):
            x, y = _curve(rows, x_key, key)
            axis.plot(x, y, marker="o" if len(x) < 40 else "", markersize=3, color=colour, label=key)
        axis.set(xlabel=x_key or "row", ylabel=label)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if group:
            axis.legend(frameon=False, fontsize=8)
    if any((_curve(rows, x_key, key)[1] > 0).any() for key in losses):
        axes[0, 0].set_yscale("log")
    axes[0, 1].set_ylim(0, 1)
    return figure


def scaled(image: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) at another size, and the (2, 3) affine to it."""
    height, width = image.shape[:2]
    size = max(1, round(factor * width)), max(1, round(factor * height))
    x, y = size[0] / width, size[1] / height
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    return resized, np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])


def encoded(suffix: str, image: np.ndarray, quality: int = 90) -> bytes:
    """An RGB uint8 image as the bytes of a ".jpg" of this quality (1 to 100), or of a ".png", which loses nothing.

    Raises:
        ValueError: the image is too large or the suffix unknown.
    """
    # told a quality of JPEG, OpenCV warns while it writes anything else
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix.lower() in (".jpg", ".jpeg") else []
    try:
        good, data = cv2.imencode(suffix, image[..., ::-1], options)
    except cv2.error:
        good = False
    if not good:
        raise ValueError(f"{image.shape[1]}×{image.shape[0]} pixels cannot be written as {suffix!r}")
    return data.tobytes()


def save_picture(path: str | Path, image: np.ndarray, quality: int = 90) -> Path:
    """Write an RGB uint8 image whole or not at all, as its suffix says; makes the folder."""
    return files.write(path, encoded(Path(path).suffix, image, quality))


def _draw_person(canvas: np.ndarray, keypoints: np.ndarray, hollow: np.ndarray, skeleton: Skeleton, min_score: float,
                 width: int, colours: tuple[list, list]) -> None:  # fmt: skip
    found = keypoints[:, 2] > min_score
    points = fixed_point(keypoints)
    keypoint_colours, limb_colours = colours
    limbs = [(k, a, b) for k, (a, b) in enumerate(skeleton.limbs) if found[a] and found[b]]
    edge, thin = max(1, round(width * 0.35)), max(1, width // 2)
    for extra in (2 * edge, 0):  # the outlines of all limbs lie below the limbs
        for k, a, b in limbs:
            thickness = (thin if hollow[a] or hollow[b] else width) + extra
            colour = OUTLINE if extra else limb_colours[k]
            cv2.line(canvas, points[a], points[b], colour, thickness, cv2.LINE_AA, SHIFT)
    radius = width * 0.75 + 1
    for k in np.flatnonzero(found):
        discs = [(radius + edge, OUTLINE), (radius, keypoint_colours[k]), (radius * 0.55, OUTLINE)]
        for r, colour in discs if hollow[k] else discs[:2]:
            cv2.circle(canvas, points[k], round(r * 2**SHIFT), colour, -1, cv2.LINE_AA, SHIFT)


def _draw_label(canvas: np.ndarray, points: np.ndarray, track: int) -> None:
    """The id on a plate of its colour above the highest of these points, inside the picture."""
    height, width = canvas.shape[:2]
    size = max(0.45, np.sqrt(height * width) / 1100)
    thickness = max(1, round(2 * size))
    (w, h), _ = cv2.getTextSize(str(track), cv2.FONT_HERSHEY_SIMPLEX, size, thickness)
    pad = max(2, h // 3)
    highest = points[points[:, 1].argmin()]
    left = int(np.clip(highest[0] - w / 2 - pad, 0, max(0, width - w - 2 * pad)))
    top = int(np.clip(highest[1] - 2.8 * h - 2 * pad, 0, max(0, height - h - 2 * pad)))
    colour = track_colour(track)
    cv2.rectangle(canvas, (left, top), (left + w + 2 * pad, top + h + 2 * pad), colour, -1)
    ink = OUTLINE if np.dot(colour, (0.299, 0.587, 0.114)) > 110 else (255, 255, 255)
    cv2.putText(canvas, str(track), (left + pad, top + h + pad), cv2.FONT_HERSHEY_SIMPLEX, size, ink, thickness,
                cv2.LINE_AA)  # fmt: skip


def fixed_point(points: np.ndarray) -> np.ndarray:
    """(N, 2) int32 in 1/16 pixel for OpenCV, whose coordinates are 32-bit integers: points far outside are pulled in."""
    return np.rint(points[:, :2].clip(-1e5, 1e5) * 2**SHIFT).astype(np.int32)


@lru_cache(maxsize=32)
def _palette(skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    side = np.zeros(skeleton.num_keypoints, int)  # −1 left, 1 right, 0 middle
    for a, b in skeleton.flip_pairs:
        swapped = "right" in skeleton.keypoints[a].lower()
        side[[a, b]] = (1, -1) if swapped else (-1, 1)
    keypoints = np.zeros((skeleton.num_keypoints, 3))
    for value, (light, dark) in {-1: LEFT, 1: RIGHT, 0: MIDDLE}.items():
        members = np.flatnonzero(side == value)
        keypoints[members] = np.linspace(light, dark, len(members))
    limbs = np.zeros((skeleton.num_limbs, 3))
    for k, (a, b) in enumerate(skeleton.limbs):
        sided = [end for end in (a, b) if side[end] == np.sign(side[a] + side[b])]
        limbs[k] = keypoints[sided].mean(axis=0) if sided else np.mean(MIDDLE, axis=0)
    return np.rint(keypoints).astype(np.uint8), np.rint(limbs).astype(np.uint8)


@lru_cache(maxsize=32)
def _palette_lists(skeleton: Skeleton) -> tuple[list, list]:
    keypoints, limbs = _palette(skeleton)
    return keypoints.tolist(), limbs.tolist()


@lru_cache(maxsize=512)
def _track_palette(skeleton: Skeleton, track: int) -> tuple[list, list]:
    """One colour for all limbs, and a paler one for the keypoints."""
    colour = np.array(track_colour(track))
    pale = np.rint(colour + 0.45 * (255 - colour)).astype(int).tolist()
    return [pale] * skeleton.num_keypoints, [colour.tolist()] * skeleton.num_limbs


def _overlay(image: np.ndarray, colours: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Blend (h, w, 3) or (3,) colours over the greyed image by (h, w) strengths, both scaled up from cells to pixels."""
    height, width = copy_of(image).shape[:2]
    strength = strength.astype(np.float32)
    # scaling colour × strength instead of colour keeps the rims of neighbouring parts clean
    layers = (colours * strength[..., None], strength)
    colour, cover = (cv2.resize(m.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) for m in layers)
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) * (np.float32(0.55) * (1 - cover))
    return cv2.add(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), colour, dtype=cv2.CV_8U)


def _hues(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    hsv = np.ones((*np.shape(y), 3), np.float32)
    hsv[..., 0] = np.degrees(np.arctan2(y, x)) % 360
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255


def copy_of(image: np.ndarray) -> np.ndarray:
    """To draw on; ValueError unless it is (H, W, 3) uint8."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"an image is a NumPy array (H, W, 3), uint8, RGB; got {got}")
    return np.array(image, order="C")


def _canvas(image: np.ndarray, in_place: bool) -> np.ndarray:
    """The image itself, if it can be drawn on, or a copy."""
    if not in_place:
        return copy_of(image)
    if not (isinstance(image, np.ndarray) and image.flags.writeable and image.flags.c_contiguous
            and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):  # fmt: skip
        raise ValueError("drawing in place needs a writeable NumPy array (H, W, 3), uint8, RGB, in C order; "
                         "leave in_place off to draw on a copy")  # fmt: skip
    return image


def _numpy(maps, ndim: int) -> np.ndarray:
    maps = np.asarray(maps, np.float32)
    if maps.ndim != ndim:
        raise ValueError(f"maps of one image have {ndim} axes (channels, height, width), got shape {maps.shape}")
    return maps


def _subplots(rows: int, columns: int, size: tuple[float, float]):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    plt.close(figure)  # pyplot forgets it: a notebook shows it once, as the cell's value, and scripts leak nothing
    return figure, axes


def _read_rows(history: str | Path | Sequence[Mapping]) -> list[Mapping]:
    if not isinstance(history, (str, Path)):
        return list(history)
    with open(history, newline="") as file:
        return list(csv.DictReader(file))


def _curve(rows: list[Mapping], x_key: str | None, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Points where `key` has a value; a CSV leaves the cells of other kinds of rows empty."""
    points = [(float(row[x_key]) if x_key else i, float(row[key])) for i, row in enumerate(rows)
              if row.get(key) not in (None, "") and (x_key is None or row.get(x_key) not in (None, ""))]  # fmt: skip
    x, y = np.array(points, float).reshape(-1, 2).T
    return x, y
