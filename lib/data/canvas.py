"""The id-buffer into which synthetic figures are painted, and the COCO segmentations read from it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lib.data.figures import Shape

_CIRCLE = np.stack([np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)], -1)  # (24, 2)


class Canvas:
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

    def topmost(self, points: np.ndarray) -> list[tuple[int, str]]:
        """Owner and part on top at pixel positions (K, 2) inside the picture."""
        columns, rows = np.rint(self.fine(points)).astype(int).T
        height, width = self.ids.shape
        numbers = self.ids[rows.clip(0, height - 1), columns.clip(0, width - 1)].tolist()
        return [(self.owners[number], self.parts[number]) for number in numbers]


def polygons(mask: np.ndarray, box: Sequence[int], supersample: int) -> list[list[float]]:
    """Outlines of a buffer mask in COCO's corner coordinates; specks below one pixel are left out."""
    x, y, w, h = box
    contours, _ = cv2.findContours(mask[y : y + h, x : x + w].view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for contour in contours:
        contour = cv2.approxPolyDP(contour, supersample * 0.3, True)[:, 0] + (x + 0.5, y + 0.5)
        if len(contour) >= 3 and cv2.contourArea(contour.astype(np.float32)) >= supersample**2:
            polygons.append((contour / supersample).round(2).ravel().tolist())
    return polygons


def run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed RLE: runs of zeros and ones in turn, down the columns."""
    flat = np.concatenate([[0], mask.ravel(order="F").astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    if edges.size and edges[-1] == mask.size:
        counts = counts[:-1]
    return {"size": [int(n) for n in mask.shape], "counts": counts.tolist()}
