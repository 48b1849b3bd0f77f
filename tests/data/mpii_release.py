"""MPII's MATLAB file in small, with every shape that MATLAB gives its fields, and pictures to go with it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy.io import savemat

from lib.skeleton import MPII16

NOTHING = np.zeros((0, 0))  # MATLAB's []


def struct(rows: list[dict], *fields: str):
    """1×N struct array; a field that a row lacks is []. Without fields: those of the rows."""
    fields = fields or tuple(dict.fromkeys(key for row in rows for key in row))
    array = np.empty((1, len(rows)), [(field, object) for field in fields])
    for i, row in enumerate(rows):
        for field in fields:
            array[0, i][field] = row.get(field, NOTHING)
    return array


def cell(values: list):
    array = np.empty((len(values), 1), object)
    for i, value in enumerate(values):
        array[i, 0] = value
    return array


def points(joints: dict[int, tuple], visible=None) -> np.ndarray:
    """annopoints of joints {MPII id: (x, y)}, 1-based; `visible` {id: whatever is_visible holds}."""
    visible = visible or {}
    rows = [dict(x=float(x), y=float(y), id=k, is_visible=visible.get(k, NOTHING)) for k, (x, y) in joints.items()]
    return struct([{"point": struct(rows, "x", "y", "id", "is_visible")}])


def figure(x: float, y: float, head: float = 50.0) -> dict[int, tuple[float, float]]:
    """16 joints, 1-based pixels: somebody who stands with arms spread, head top at (x, y), `head` pixels a head."""
    sides = {"ankle": (0.7, 7.5), "knee": (0.6, 5.5), "hip": (0.5, 3.8), "shoulder": (0.9, 1.4), "elbow": (1.8, 1.8),
             "wrist": (2.6, 1.2)}  # fmt: skip
    middle = {"pelvis": (0, 3.8), "thorax": (0, 1.4), "upper_neck": (0, 1.0), "head_top": (0, 0)}
    places = middle | {f"right_{part}": (-dx, dy) for part, (dx, dy) in sides.items()}
    places |= {f"left_{part}": place for part, place in sides.items()}
    return {k: (x + head * places[name][0], y + head * places[name][1]) for k, name in enumerate(MPII16.keypoints)}


def person(x: float, y: float, head: float = 50.0, visible=None, **more) -> dict:
    """annorect of a whole figure; its head box is as high as the head unit `head` asks for."""
    diagonal = head / 0.6
    w, h = 0.6 * diagonal, 0.8 * diagonal
    return {
        "x1": x - w / 2, "y1": y, "x2": x + w / 2, "y2": y + h, "annopoints": points(figure(x, y, head), visible),
        "scale": head / 25, "objpos": struct([{"x": x, "y": y + 4 * head}]),
    } | more  # fmt: skip


def write_release(path: Path, images: list[dict], **changes) -> Path:
    """`images`: dicts with name, and optionally people (list of annorect), train, single, video, annorect."""
    annolist = []
    for image in images:
        people = image.get("people", [])
        annolist.append({
            "image": struct([{"name": image["name"]}]),
            "annorect": image.get("annorect", struct(people) if people else NOTHING),
            "frame_sec": NOTHING,
            "vididx": image.get("video", NOTHING),
        })  # fmt: skip
    release = {
        "annolist": struct(annolist, "image", "annorect", "frame_sec", "vididx"),
        "img_train": np.array([[image.get("train", 1) for image in images]], np.uint8),
        "version": "12",
        "single_person": cell([image.get("single", NOTHING) for image in images]),
        "video_list": cell(["abc"]),
    } | changes
    savemat(path, {"RELEASE": {key: value for key, value in release.items() if value is not None}}, do_compression=True)
    return path


def write_picture(path: Path, size: tuple[int, int] = (480, 640), seed: int = 0) -> Path:
    """A JPEG of coarse noise, (height, width)."""
    noise = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC))
    return path
