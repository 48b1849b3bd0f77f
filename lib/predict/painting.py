"""What is drawn of every frame: the people, their tags, and the maps they were read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from lib.draw import (
    draw_people,
    grid,
    heatmap_overlay,
    paf_overlay,
    part_grid,
    tag_limits,
    tag_overlay,
    tag_scatter,
    track_colour,
)
from lib.people import apply_affine, pixels_to_cells
from lib.predict.fitting import on_picture
from lib.predict.predictor import Predictor
from lib.predict.stream import Seen

KINDS = {"connections": (), "tags": ("tags",), "heatmaps": ("heatmaps",), "fields": ("pafs",)}
"""Kinds of pictures, and the maps each needs."""
COLUMNS, SHEET_WIDTH = 6, 1680  # of the pictures that show every map
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
            raise ValueError(f"there are no pictures {', '.join(map(repr, wrong))} of a model with the maps {', '.join(maps)}; "
                             f"choose from {', '.join(possible)}")  # fmt: skip
        self.kinds = tuple(dict.fromkeys(kinds))
        self._predictor, self._min_score, self._show_ids = predictor, min_score, show_ids

    def __call__(self, seen: Seen) -> dict[str, np.ndarray]:
        """RGB uint8 pictures by kind. "connections" are drawn on the frame itself, last of all."""
        draw = {"connections": self.connections, "tags": self.tags, "heatmaps": self.heatmaps, "fields": self.fields}
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
        picture, to_picture = _scaled(seen.image, height / seen.image.shape[0])
        left = draw_people(picture, people.warped(to_picture), skeleton, self._min_score, by_track=True)
        right = tag_scatter(tags, shown, skeleton, [track_colour(int(i)) for i in people.ids], len(left))
        return np.hstack([left, right])

    def heatmaps(self, seen: Seen) -> np.ndarray:
        """A panel for each keypoint's heatmap, with its highest value; with tags one for each of them below."""
        skeleton, maps = self._predictor.skeleton, seen.answers[self._predictor.base]
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

    def _panel(self, seen: Seen) -> np.ndarray:
        width = SHEET_WIDTH // COLUMNS
        return _scaled(seen.image, width / seen.image.shape[1])[0]

    def _on_picture(self, seen: Seen, name: str) -> np.ndarray:
        base, stride = self._predictor.base, self._predictor.codec.strides[name]
        return on_picture(seen.answers[base][name], seen.fitted.affines[base], seen.fitted.size, stride)

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


def _scaled(image: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """The picture at another size, and the (2, 3) affine to it."""
    height, width = image.shape[:2]
    size = max(1, round(factor * width)), max(1, round(factor * height))
    x, y = size[0] / width, size[1] / height
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, size, interpolation=interpolation)
    return resized, np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])
