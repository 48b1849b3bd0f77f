"""Who is where in one image, and the convention of pixels that every module shares.

Pixels: x right, y down, the integer coordinate is the pixel's centre. Cell (i, j) of a map with stride s lies at image
point (s·j + (s−1)/2, s·i + (s−1)/2). `cells_to_pixels` and `pixels_to_cells` are the only places where this is written.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def cells_to_pixels(cells, stride: float):
    """Map coordinates (any shape, cells) → image coordinates (pixels)."""
    return cells * stride + (stride - 1) / 2


def pixels_to_cells(pixels, stride: float):
    """Image coordinates (any shape, pixels) → map coordinates (cells, fractional)."""
    return (pixels - (stride - 1) / 2) / stride


def apply_affine(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (…, 2) with a (2, 3) affine."""
    return points @ affine[:, :2].T + affine[:, 2]


def invert_affine(affine: np.ndarray) -> np.ndarray:
    """Inverse of a (2, 3) affine, as (2, 3)."""
    linear = np.linalg.inv(affine[:, :2])
    return np.concatenate([linear, -linear @ affine[:, 2:]], axis=1)


@dataclass
class People:
    """All people of one image, in pixels of that image.

    Attributes:
        keypoints: (P, K, 3) float32 [x, y, s]; s is a score in 0..1 for predictions (0 = not found) and COCO's visibility
            0/1/2 for annotations (0 = not labelled).
        scores: (P,) float32 confidence of the person, 1 for annotations.
        boxes: (P, 4) float32 [x, y, width, height], or None.
        ids: (P,) int64 annotation or track ids, or None.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray | None = None
    ids: np.ndarray | None = None

    def __post_init__(self):
        self.keypoints = np.asarray(self.keypoints, np.float32)
        self.scores = np.asarray(self.scores, np.float32)
        if self.keypoints.ndim != 3 or self.keypoints.shape[2] != 3:
            raise ValueError(f"keypoints must have shape (P, K, 3), got {self.keypoints.shape}")
        for what in ("scores", "boxes", "ids"):
            value = getattr(self, what)
            if value is not None and len(value) != len(self.keypoints):
                raise ValueError(f"{len(self.keypoints)} people but {len(value)} {what}")

    def __len__(self) -> int:
        return len(self.keypoints)

    def __getitem__(self, which) -> People:
        """A subset of the people, by slice, mask or index array."""
        pick = lambda values: None if values is None else values[which]
        return People(self.keypoints[which], self.scores[which], pick(self.boxes), pick(self.ids))

    @classmethod
    def empty(cls, num_keypoints: int) -> People:
        """Nobody."""
        return cls(np.zeros((0, num_keypoints, 3)), np.zeros(0))

    def warped(self, affine: np.ndarray) -> People:
        """The same people in another image; boxes become the boxes around their warped corners.

        Keypoints with s = 0 stay where they are, at whatever coordinates they carry.
        """
        keypoints = self.keypoints.copy()
        found = keypoints[..., 2] > 0
        keypoints[found, :2] = apply_affine(affine, keypoints[found, :2])
        boxes = self.boxes
        if boxes is not None:
            x, y, w, h = np.asarray(boxes, np.float32).T
            corners = np.stack([np.stack([x, y], -1), np.stack([x + w, y], -1), np.stack([x, y + h], -1),
                                np.stack([x + w, y + h], -1)], axis=1)  # fmt: skip
            corners = apply_affine(affine, corners)
            low, high = corners.min(axis=1), corners.max(axis=1)
            boxes = np.concatenate([low, high - low], axis=1).astype(np.float32)
        return People(keypoints, self.scores, boxes, self.ids)

    def boxes_around_keypoints(self) -> np.ndarray:
        """(P, 4) [x, y, width, height] around keypoints with s > 0; zeros for a person without any."""
        found = self.keypoints[..., 2:] > 0
        points = self.keypoints[..., :2]
        low = np.where(found, points, np.inf).min(axis=1)
        high = np.where(found, points, -np.inf).max(axis=1)
        boxes = np.concatenate([low, high - low], axis=1)
        boxes[~found.any(axis=(1, 2))] = 0
        return boxes.astype(np.float32)


def oks(predicted: np.ndarray, truth: np.ndarray, areas: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Object keypoint similarity of every prediction with every true person (COCO's definition).

    Args:
        predicted: (D, K, 2 or 3) pixels.
        truth: (G, K, 3) pixels and visibility; only v > 0 counts.
        areas: (G,) object areas in pixels².
        sigmas: (K,) `Skeleton.sigmas`.

    Returns:
        (D, G) in 0..1; 0 for a true person without a labelled keypoint.
    """
    distance2 = ((predicted[:, None, :, :2] - truth[None, :, :, :2]) ** 2).sum(-1)
    labelled = truth[None, :, :, 2] > 0
    return (oks_terms(distance2, areas, sigmas) * labelled).sum(-1) / np.maximum(labelled.sum(-1), 1)


def oks_terms(distance2: np.ndarray, areas: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """How similar single keypoints are, whose mean OKS is: (…, K) of squared distances (…, K) and areas (…), pixels²."""
    variance = (2 * np.asarray(sigmas)) ** 2
    return np.exp(-distance2 / (2 * variance * (np.asarray(areas)[..., None] + np.spacing(1))))
