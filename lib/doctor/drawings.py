"""One example of a finding as a picture: cut out around the person, box and skeleton drawn, keypoints concerned ringed."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from lib.doctor.findings import Example
from lib.doctor.reading import Labels
from lib.draw import OUTLINE, draw_people
from lib.people import People, apply_affine

SIDE = 300  # pixels of a tile
MARGIN, SMALLEST = 0.25, 40  # around a person, as a share of it; the smallest region cut out, in pixels
FARTHEST = 1e6  # places beyond are not worth a picture
PAPER, OUTSIDE = (240, 240, 240), (165, 165, 165)
BOX, OTHER_BOX, RING = (255, 255, 255), (240, 228, 66), (215, 30, 150)
TITLE_WIDTH, TITLE_LINES = 38, 3


class Tile(NamedTuple):
    """A drawn example: what is wrong, and the (H, W, 3) uint8 RGB picture."""

    title: str
    picture: np.ndarray


def tile(labels: Labels, code: str, example: Example) -> Tile | None:
    """Draw an example, on paper where its picture was not looked at; None where there is nothing to draw."""
    if example.image is None:
        return None
    lines = textwrap.wrap(f"{code}: {example.text}", TITLE_WIDTH, max_lines=TITLE_LINES, placeholder=" …")
    picture = _person(labels, example) if example.annotation is not None else _pictures(labels, code, example)
    return None if picture is None else Tile("\n".join(lines), picture)


def _person(labels: Labels, example: Example) -> np.ndarray | None:
    rows = [example.annotation] if example.other is None else [example.other, example.annotation]
    region = _region(labels, rows)
    if region is None:
        return None
    affine = _fit(region)
    canvas = _background(labels, example.image, affine)
    for row, colour in zip(rows[::-1], (BOX, OTHER_BOX)):
        _draw_box(canvas, labels.boxes[row], affine, colour)
    for row in rows:
        canvas = _draw_figure(canvas, labels, row, affine, example.marks if row == example.annotation else ())
    return canvas


def _pictures(labels: Labels, code: str, example: Example) -> np.ndarray | None:
    """The whole picture with its people, and beside it the one that it is compared with."""
    rows = [example.image] if example.other is None or code.startswith("leak") else [example.image, example.other]
    seen = [labels.picture(row) for row in rows]
    if any(picture is None or picture.fault for picture in seen):
        return None
    halves = []
    for row, picture in zip(rows, seen):
        affine = _fit(np.array([0, 0, *picture.size], float))
        canvas = _background(labels, row, affine)
        for annotation in np.flatnonzero(labels.image_of == row)[:20]:
            canvas = _draw_figure(canvas, labels, annotation, affine)
        halves.append(canvas)
    if code.startswith("leak"):
        other = labels.against[example.other]
        halves.append(_warp(other.path, _fit(np.array([0, 0, *other.size], float)), _paper()))
    return np.hstack(halves)


def _region(labels: Labels, rows: list[int]) -> np.ndarray | None:
    """x0, y0, x1, y1 around the keypoints and boxes of annotations, square, with a margin; None without any."""
    boxes = labels.boxes[rows] + np.pad(labels.boxes[rows, :2], ((0, 0), (2, 0)))
    corners = np.clip(np.concatenate([labels.extents[rows], boxes]), -FARTHEST, FARTHEST)
    corners = corners[np.isfinite(corners).all(axis=1)]
    if not len(corners):
        return None
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    side = max((1 + 2 * MARGIN) * (high - low).max(), SMALLEST)
    corner = (low + high - side) / 2
    # shifted into the image where that loses nothing
    size = labels.image_sizes[rows[0]]
    fits = (side < size) & (low >= 0) & (high <= size)
    corner = np.where(fits, np.clip(corner, 0, np.maximum(size - side, 0)), corner)
    return np.concatenate([corner, corner + side])


def _fit(region: np.ndarray) -> np.ndarray:
    """(2, 3) affine of a region into the middle of a tile."""
    size = region[2:] - region[:2]
    scale = SIDE / max(size.max(), 1)
    shift = (SIDE - 1) / 2 - scale * (region[:2] + region[2:] - 1) / 2
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])


def _paper() -> np.ndarray:
    return np.full((SIDE, SIDE, 3), OUTSIDE, np.uint8)


def _background(labels: Labels, image: int, affine: np.ndarray) -> np.ndarray:
    picture = labels.picture(image)
    if picture is not None and not picture.fault:
        return _warp(picture.path, affine, _paper())
    canvas, (width, height) = _paper(), np.nan_to_num(labels.sizes[image], nan=FARTHEST)
    corners = _pixels(np.array([[-0.5, -0.5], [width - 0.5, height - 0.5]]), affine)
    cv2.rectangle(canvas, corners[0], corners[1], PAPER, -1)
    return canvas


def _warp(path: Path, affine: np.ndarray, canvas: np.ndarray) -> np.ndarray:
    from lib.data.augment import read_reduced, reduced_affine, reduction_for  # brings torch

    picture, reduction = read_reduced(path, reduction_for(affine))
    return cv2.warpAffine(picture, reduced_affine(affine, reduction), (SIDE, SIDE), dst=canvas,
                          flags=cv2.INTER_AREA, borderMode=cv2.BORDER_TRANSPARENT)  # fmt: skip


def _draw_box(canvas: np.ndarray, box: np.ndarray, affine: np.ndarray, colour: tuple[int, int, int]) -> None:
    if not np.isnan(box).any():
        low, high = _pixels(np.array([box[:2] - 0.5, box[:2] + box[2:] - 0.5]), affine)
        cv2.rectangle(canvas, low, high, OUTLINE, 4)
        cv2.rectangle(canvas, low, high, colour, 2)


def _draw_figure(canvas: np.ndarray, labels: Labels, row: int, affine: np.ndarray, marks=()) -> np.ndarray:
    group, place = labels.figure(row)
    if group is None:
        return canvas
    keypoints = group.keypoints[place][None].copy()
    keypoints[..., :2] = apply_affine(affine, keypoints[..., :2].clip(-FARTHEST, FARTHEST))
    keypoints[..., 2] = np.where(group.labelled[place], np.where(keypoints[0, :, 2] == 1, 1, 2), 0)
    canvas = draw_people(canvas, People(keypoints, np.ones(1)), group.skeleton)
    for k in marks:
        if np.isfinite(keypoints[0, k, :2]).all():
            centre = tuple(np.rint(keypoints[0, k, :2]).astype(int).clip(-SIDE, 2 * SIDE).tolist())
            cv2.circle(canvas, centre, 11, (255, 255, 255), 5, cv2.LINE_AA)
            cv2.circle(canvas, centre, 11, RING, 3, cv2.LINE_AA)
    return canvas


def _pixels(points: np.ndarray, affine: np.ndarray) -> list[tuple[int, int]]:
    return [tuple(p) for p in np.rint(apply_affine(affine, points)).clip(-4 * SIDE, 4 * SIDE).astype(int).tolist()]
