"""What is drawn of every frame: the people, their tags, and the maps they were read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from lib.draw import (
    OUTLINE,
    SHIFT,
    draw_people,
    grid,
    heatmap_overlay,
    paf_overlay,
    scaled,
    tag_limits,
    tag_overlay,
    track_colour,
)
from lib.people import apply_affine, invert_affine, pixels_to_cells
from lib.predict.painting_parts import graph_picture, offset_panels, pair_panels
from lib.predict.predictor import Predictor
from lib.predict.stream import Seen
from lib.skeleton import Skeleton

KINDS = {"connections": (), "tags": ("tags",), "heatmaps": ("heatmaps",), "fields": ("pafs",), "offsets": ("offsets",),
         "pairs": ("pairwise",), "graph": ("pairwise",)}  # fmt: skip
"""Kinds of pictures, and the maps each needs."""
COLUMNS, PART_COLUMNS, SHEET_WIDTH = 6, 4, 1680  # of the pictures that show every map
LEAST_HEIGHT, MOST_HEIGHT = 480, 1080  # of the people beside their tags: names of keypoints are to be read


class Painter:
    """Draws the pictures of a frame: `Painter(predictor, ("connections", "tags"))(seen)`.

    "connections" are the people over the picture. "tags" shows beside them each keypoint's tag over the keypoints, one panel
    for each number of a tag (a flip test adds one), every person in a colour of his own. "heatmaps" has a panel for every
    keypoint's heatmap, the finest there is, and where there are tags one for each of them, too; "fields" one for every limb's.

    Args:
        predictor: of the frames; its codec says which maps there are.
        kinds: some of `KINDS`.
        min_score: keypoints below are not drawn.
        show_ids: people with ids show them in "connections".

    Raises:
        ValueError: an unknown kind, or one that needs maps this model does not have.
    """

    def __init__(self, predictor: Predictor, kinds: Sequence[str] = ("connections",), min_score: float = 0.2,
                 show_ids: bool = True):  # fmt: skip
        maps = predictor.codec.strides.keys()
        possible = [kind for kind, needed in KINDS.items() if set(needed) <= maps]
        wrong = [kind for kind in kinds if kind not in possible]
        if wrong or not kinds:
            what = (f"there are no pictures {', '.join(map(repr, wrong))} of a model with the maps {', '.join(maps)}" if wrong
                    else "no pictures are asked for")  # fmt: skip
            raise ValueError(f"{what}; choose from {', '.join(possible)}")
        self.kinds = tuple(dict.fromkeys(kinds))
        self._predictor, self._min_score, self._show_ids = predictor, min_score, show_ids

    def __call__(self, seen: Seen) -> dict[str, np.ndarray]:
        """RGB uint8 pictures by kind. "connections" are drawn on the frame itself, last of all."""
        draw = {"connections": self.connections, "tags": self.tags, "heatmaps": self.heatmaps, "fields": self.fields,
                "offsets": self.offsets, "pairs": self.pairs, "graph": self.graph}  # fmt: skip
        drawn = {kind: draw[kind](seen) for kind in sorted(self.kinds, key=lambda kind: kind == "connections")}
        return {kind: drawn[kind] for kind in self.kinds}

    def connections(self, seen: Seen) -> np.ndarray:
        """The people over their frame."""
        return draw_people(
            seen.image, seen.people, self._predictor.skeleton, self._min_score, by_track=self._show_ids, in_place=True
        )

    def tags(self, seen: Seen) -> np.ndarray:
        """The people, numbered, and beside them their tags in the same colours."""
        skeleton, tags = self._predictor.skeleton, self._tags_of(seen)
        people, shown = seen.people, seen.people.keypoints[..., 2] > self._min_score
        if people.ids is None:
            # numbered by their tags: the same person mostly has the same number in the next frame
            means = np.where(shown, tags[..., 0], 0).sum(axis=1) / np.maximum(shown.sum(axis=1), 1)
            people = replace(people, ids=1 + np.argsort(np.argsort(means, kind="stable"), kind="stable"))
        height = int(np.clip(seen.image.shape[0], LEAST_HEIGHT, MOST_HEIGHT))
        picture, to_picture = scaled(seen.image, height / seen.image.shape[0])
        left = draw_people(picture, people.warped(to_picture), skeleton, self._min_score, by_track=True)
        right = tag_scatter(tags, shown, skeleton, [track_colour(int(i)) for i in people.ids], len(left))
        return np.hstack([left, right])

    def heatmaps(self, seen: Seen) -> np.ndarray:
        """A panel for each keypoint's heatmap, with its highest value; with tags one for each of them below."""
        skeleton, maps = self._predictor.skeleton, self._predictor.codec.strides
        k = skeleton.num_keypoints
        fine = "heatmaps_fine" if "heatmaps_fine" in maps else "heatmaps"
        heatmaps, picture = self._on_picture(seen, fine)[:k], self._panel(seen)
        panels = [heatmap_overlay(picture, heatmap[None]) for heatmap in heatmaps]
        names = [f"{name} {heatmap.max():.2f}" for name, heatmap in zip(skeleton.keypoints, heatmaps)]
        sheets = [part_grid(panels, names, COLUMNS)]
        if "tags" in maps:
            tags = self._on_picture(seen, "tags")[:k]
            sure = np.stack([cv2.resize(heatmap, tags.shape[:0:-1]) for heatmap in heatmaps]) > 0.1
            # one range for all: a person has the same colour in every panel
            limits = tag_limits(tags, sure[: len(tags)] if len(tags) == k else sure.any(axis=0, keepdims=True))
            panels = [tag_overlay(picture, tag[None], limits=limits) for tag in tags]
            names = [f"tag of {name}" for name in skeleton.keypoints] if len(tags) == k else ["tags"]
            sheets.append(part_grid(panels, names, COLUMNS))
        return grid(sheets, 1)

    def fields(self, seen: Seen) -> np.ndarray:
        """A panel for each limb's field, its direction as hue."""
        skeleton, pafs = self._predictor.skeleton, self._on_picture(seen, "pafs")
        picture = self._panel(seen)
        panels = [paf_overlay(picture, pafs[2 * limb : 2 * limb + 2]) for limb in range(skeleton.num_limbs)]
        names = [" - ".join(skeleton.keypoints[end] for end in limb) for limb in skeleton.limbs]
        return part_grid(panels, names, COLUMNS)

    def offsets(self, seen: Seen) -> np.ndarray:
        """A panel for each keypoint: its heatmap, and arrows from sure cells to where their offsets say it is."""
        picture, to_picture = self._from_input(seen, SHEET_WIDTH / PART_COLUMNS / seen.image.shape[1])
        panels = offset_panels(picture, self._on_picture(seen, "heatmaps"), seen.answers[self._predictor.base],
                               self._predictor.codec, to_picture)  # fmt: skip
        return part_grid(panels, self._predictor.skeleton.keypoints, PART_COLUMNS)

    def pairs(self, seen: Seen) -> np.ndarray:
        """A panel for each keypoint: its detections, and arrows to where the person's other keypoints are said to be."""
        picture, to_picture = self._from_input(seen, SHEET_WIDTH / PART_COLUMNS / seen.image.shape[1])
        panels = pair_panels(picture, seen.answers[self._predictor.base], self._predictor.codec, to_picture)
        return part_grid(panels, self._predictor.skeleton.keypoints, PART_COLUMNS)

    def graph(self, seen: Seen) -> np.ndarray:
        """All detections over their frame, joined into people or suppressed."""
        height = int(np.clip(seen.image.shape[0], LEAST_HEIGHT, MOST_HEIGHT))
        picture, to_picture = self._from_input(seen, height / seen.image.shape[0])
        return graph_picture(picture, seen.answers[self._predictor.base], self._predictor.codec, to_picture)

    def _panel(self, seen: Seen) -> np.ndarray:
        width = SHEET_WIDTH // COLUMNS
        return scaled(seen.image, width / seen.image.shape[1])[0]

    def _from_input(self, seen: Seen, factor: float) -> tuple[np.ndarray, np.ndarray]:
        """The picture at another size, and the (2, 3) affine from the network's input to it."""
        picture, to_picture = scaled(seen.image, factor)
        back = invert_affine(seen.fitted.affines[self._predictor.base])
        linear = to_picture[:, :2] @ back[:, :2]
        return picture, np.column_stack([linear, to_picture[:, :2] @ back[:, 2] + to_picture[:, 2]])

    def _on_picture(self, seen: Seen, name: str) -> np.ndarray:
        return self._predictor.on_picture(name, seen.answers, seen.fitted)

    def _tags_of(self, seen: Seen) -> np.ndarray:
        """(P, K, E): tags at the people's keypoints, those of the nearest cell."""
        base, keypoints = self._predictor.base, seen.people.keypoints
        tags, k = seen.answers[base]["tags"], keypoints.shape[1]
        per = k if getattr(self._predictor.codec, "tag_per_keypoint", True) else 1
        tags = tags.reshape(-1, per, *tags.shape[1:])
        places = apply_affine(seen.fitted.affines[base], keypoints[..., :2])
        cells = np.rint(pixels_to_cells(places, self._predictor.codec.strides["tags"]))
        x, y = (cells[..., axis].clip(0, tags.shape[3 - axis] - 1).astype(int) for axis in (0, 1))
        channel = np.arange(k) if per > 1 else np.zeros(k, int)
        return np.moveaxis(tags[:, channel[None], y, x], 0, -1)


def tag_scatter(tags: np.ndarray, found: np.ndarray, skeleton: Skeleton, colours: Sequence[tuple[int, int, int]],
                height: int = 480) -> np.ndarray:  # fmt: skip
    """Each person's tags, keypoint by keypoint: where grouping is sure the dots of a person stand below each other.

    Args:
        tags: (P, K, E), a panel for each of the E ≥ 1 numbers of a tag.
        found: (P, K) bool; the others are not drawn.
        skeleton: whose keypoints.
        colours: RGB of each person; a thin line at his mean has it, too.
        height: of the picture in pixels; the text grows with it.

    Returns:
        (height, W, 3) RGB uint8, on white; W depends on height, E and skeleton alone.
    """
    axes, boxes = _empty_axes(skeleton, tags.shape[2], height)
    canvas = axes.copy()
    for e, (left, top, right, bottom) in enumerate(boxes):
        values = tags[..., e][found]
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        low, high, ticks = _ticks(low, high)
        place = lambda tag: (left + (tag - low) / (high - low) * (right - left)) * 2**SHIFT  # noqa: B023
        for tick in ticks:
            _text(canvas, f"{tick:g}", (place(tick) / 2**SHIFT, bottom + height / 30), height, 0.5)
        rows = (top + (np.arange(tags.shape[1]) + 0.5) * (bottom - top) / tags.shape[1]) * 2**SHIFT
        for person, seen, colour in zip(tags[..., e], found, colours):
            if seen.any():
                x = round(place(float(person[seen].mean())))
                cv2.line(canvas, (x, top << SHIFT), (x, bottom << SHIFT), colour, 1, cv2.LINE_AA, SHIFT)
            for k in np.flatnonzero(seen):
                centre = round(place(float(person[k]))), round(float(rows[k]))
                for radius, paint in ((height / 80, OUTLINE), (height / 80 - 1.2, colour)):
                    cv2.circle(canvas, centre, round(radius * 2**SHIFT), paint, -1, cv2.LINE_AA, SHIFT)
    return canvas


def part_grid(images: Sequence[np.ndarray], names: Sequence[str], columns: int = 6) -> np.ndarray:
    """A contact sheet of pictures of one size, each with its name above."""
    panels = []
    for image, name in zip(images, names):
        bar = max(14, round(image.shape[1] / 14))
        panels.append(cv2.copyMakeBorder(image, bar, 0, 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255)))
        _text(panels[-1], name, (0, 0.72 * bar), 21 * bar, 0.0)
    return grid(panels, columns)


@lru_cache(maxsize=8)
def _empty_axes(skeleton: Skeleton, panels: int, height: int) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """A white picture with the keypoints' names and frames, and the frames: left, top, right, bottom."""
    scale = height / 900
    names = max(cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0] for name in skeleton.keypoints)
    left, width, gap = names + height // 20, round(0.75 * height), height // 20
    canvas = np.full((height, left + panels * (width + gap), 3), 255, np.uint8)
    top, bottom, boxes = height // 12, height - height // 14, []
    for panel in range(panels):
        box = left + panel * (width + gap), top, left + panel * (width + gap) + width, bottom
        title = "tags" if panels == 1 else f"tags, number {panel + 1}"
        _text(canvas, title, ((box[0] + box[2]) / 2, 0.7 * top), height, 0.5)
        for k, name in enumerate(skeleton.keypoints):
            y = top + (k + 0.5) * (bottom - top) / skeleton.num_keypoints
            cv2.line(canvas, (box[0], round(y)), (box[2], round(y)), (225, 225, 225), 1)
            if not panel:
                _text(canvas, name, (left - gap / 3, y + height / 90), height, 1.0)
        cv2.rectangle(canvas, box[:2], box[2:], (120, 120, 120), 1)
        boxes.append(box)
    return canvas, boxes


def _ticks(low: float, high: float) -> tuple[float, float, np.ndarray]:
    """Round ends around a range, so that they seldom change from frame to frame, and round numbers between."""
    step = 10.0 ** np.ceil(np.log10(max(high - low, 0.1) / 5))
    step = next(step * part for part in (0.2, 0.5, 1.0) if step * part >= max(high - low, 0.1) / 5)
    low, high = np.floor(low / step - 0.2) * step, np.ceil(high / step + 0.2) * step
    return float(low), float(high), np.arange(round(low / step), round(high / step) + 1) * step


def _text(canvas: np.ndarray, text: str, at: tuple[float, float], size: float, align: float) -> None:
    """Write on a picture; `at` is on the base line, at the left (align 0), in the middle (0.5) or at the right end (1)."""
    width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size / 900, 1)[0][0]
    corner = round(at[0] - align * width), round(at[1])
    cv2.putText(canvas, text, corner, cv2.FONT_HERSHEY_SIMPLEX, size / 900, OUTLINE, 1, cv2.LINE_AA)
