"""Where to put a skeleton's keypoints on paper when there is no figure to take them from."""

from __future__ import annotations

import numpy as np
from scipy.sparse.csgraph import shortest_path

from lib.skeleton import Skeleton

# A person seen from the front, so the person's left is at the right of the picture; y runs down, 1 = standing height.
# The head is drawn large, because five names have to fit beside it.
_MIDDLE = {"nose": (0, 0.13), "neck": (0, 0.25), "head_top": (0, 0.0), "head": (0, 0.05), "upper_neck": (0, 0.2),
           "thorax": (0, 0.25), "pelvis": (0, 0.52)}  # fmt: skip
_LEFT = {"eye": (0.08, 0.06), "ear": (0.16, 0.1), "shoulder": (0.2, 0.27), "elbow": (0.28, 0.4), "wrist": (0.33, 0.54),
         "hip": (0.12, 0.54), "knee": (0.14, 0.76), "ankle": (0.15, 0.97)}  # fmt: skip
HUMAN = (_MIDDLE | {f"left_{part}": xy for part, xy in _LEFT.items()}
         | {f"right_{part}": (-x, y) for part, (x, y) in _LEFT.items()})  # fmt: skip


def layout(skeleton: Skeleton) -> np.ndarray:
    """(K, 2) positions [x, y], y down: a standing person where every name is known, else from the limbs.

    The second kind places keypoints so that distances on paper resemble the number of limbs between them (stress
    majorisation, Gansner et al. 2004), starting with mirrored twins at opposite sides of the vertical axis.
    """
    if all(name in HUMAN for name in skeleton.keypoints):
        return np.array([HUMAN[name] for name in skeleton.keypoints], float)
    k, flip = skeleton.num_keypoints, skeleton.flip_index
    if k == 1:
        return np.zeros((1, 2))
    steps = _steps_between(skeleton)
    centring = np.eye(k) - 1 / k
    similar = -0.5 * centring @ steps**2 @ centring
    mirror = np.eye(k)[flip]
    even, odd = (np.eye(k) + mirror) / 2, (np.eye(k) - mirror) / 2
    middle_first = np.linalg.eigh(even @ similar @ even)[1][:, ::-1]  # eigenvectors, largest eigenvalue first
    sideways = np.linalg.eigh(odd @ similar @ odd)[1][:, -1] if skeleton.flip_pairs else middle_first[:, 1]
    points = _relax(np.stack([sideways, middle_first[:, 0]], axis=1) * np.sqrt(k), steps, skeleton.flip_pairs)
    if points[0, 1] > 0:
        points[:, 1] *= -1  # the first keypoint stands in the upper half
    return points


def _steps_between(skeleton: Skeleton) -> np.ndarray:
    """(K, K) number of limbs between keypoints; parts which no limb connects are two steps further than the longest way."""
    k = skeleton.num_keypoints
    linked = np.zeros((k, k))
    for a, b in skeleton.limbs:
        linked[a, b] = 1
    steps = shortest_path(linked, directed=False, unweighted=True)
    far = steps[np.isfinite(steps)].max() + 2
    return np.where(np.isfinite(steps), steps, far)


def _relax(points: np.ndarray, steps: np.ndarray, pairs: tuple, rounds: int = 200) -> np.ndarray:
    """Pull and push until distances resemble `steps`, with twins [left, right] as mirror images: left at the right."""
    nudge = 1e-3 * np.arange(len(points))  # points which start at one place must be able to part
    points = points + np.stack([nudge, nudge], axis=1)
    weights = 1 / np.maximum(steps, 1) ** 2
    np.fill_diagonal(weights, 0)
    laplacian = np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights)
    left, right = np.array(pairs, int).reshape(-1, 2).T
    for _ in range(rounds):
        distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
        pull = -weights * steps / np.maximum(distances, 1e-6)
        np.fill_diagonal(pull, 0)
        np.fill_diagonal(pull, -pull.sum(axis=1))
        points = laplacian @ pull @ points
        half = (points[left] - points[right]) / 2 * (1, 0)
        middle = (points[left] + points[right]) / 2 * (0, 1)
        points[left], points[right] = middle + half, middle - half
    turned = (points[left] - points[right])[:, 0].sum() < 0
    return points * (-1, 1) if turned else points
