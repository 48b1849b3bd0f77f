"""HigherHRNet's decoding written down plainly, step by step as published: what `lib.codecs.tags_decode` is measured against.

All maps are enlarged to the size of the network's input; then one keypoint, one person, one missing joint after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from lib.people import People


def decode(maps: Mapping[str, np.ndarray], order: Sequence[int], *, one_step: bool = False, **options) -> People:
    """People of maps at strides 4 ("heatmaps", "tags") and 2 ("heatmaps_fine"), in pixels of the network's input.

    Args:
        maps: float32 (K, h, w); tags (E·K, h, w).
        order: in which keypoints are grouped.
        one_step: enlarge the tags from stride 4 to 1 at once.
        options: of `people_of`.
    """
    coarse, fine, tags = (torch.from_numpy(maps[name])[None] for name in ("heatmaps", "heatmaps_fine", "tags"))
    middle, size = fine.shape[2:], [2 * side for side in fine.shape[2:]]
    heatmaps = bilinear((bilinear(coarse, middle) + fine) / 2, size)[0]
    tags = bilinear(tags if one_step else bilinear(tags, middle), size)[0]
    tags = tags.reshape(-1, len(heatmaps), *size).permute(1, 2, 3, 0).contiguous()
    return people_of(heatmaps, tags, order, **options)


def bilinear(maps: Tensor, size: Sequence[int]) -> Tensor:
    return interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def people_of(
    heatmaps: Tensor, tags: Tensor, order: Sequence[int], *, detection_threshold: float = 0.1, tag_threshold: float = 1.0,
    max_people: int = 30, window: int = 5, assign: Callable[[np.ndarray], np.ndarray] | None = None,
) -> People:  # fmt: skip
    """People of heatmaps (K, h, w) and tags (K, h, w, E), in cells, in the order in which they were begun.

    Args:
        assign: costs (A, B), A ≤ B → column of every row; None for scipy's.
    """
    highest = heatmaps * (max_pool2d(heatmaps[None], window, 1, window // 2)[0] == heatmaps)
    values, cells = highest.flatten(1).topk(max_people, dim=1)
    heatmaps, tags = heatmaps.numpy(), tags.numpy()
    people: list[dict] = []
    for k in order:
        peaks = [(int(cell) % heatmaps.shape[2], int(cell) // heatmaps.shape[2], value)
                 for cell, value in zip(cells[k], values[k].numpy()) if float(value) > detection_threshold]  # fmt: skip
        peak_tags = [tags[k, y, x] for x, y, _ in peaks]
        asked = people[:max_people]
        if peaks:
            partners = choose(peaks, peak_tags, asked, tag_threshold, assign) if asked else [None] * len(peaks)
            for peak, tag, person in zip(peaks, peak_tags, partners):
                if person is None:
                    person = next((other for other in people if other["first"] == tag[0]), None)
                    if person is None:
                        people.append(person := {"first": tag[0], "parts": {}})
                    person["tags"] = []
                person["parts"][k] = peak
                person["tags"].append(tag)
    keypoints = np.zeros((len(people), len(heatmaps), 3), np.float32)
    for row, person in zip(keypoints, people):
        for k, (x, y, value) in person["parts"].items():
            row[k] = (*quarter(heatmaps[k], x, y), value)
    scores = np.array([row[:, 2].mean() for row in keypoints])
    for row in keypoints:
        fill_in(row, heatmaps, tags)
    return People(keypoints, scores)


def choose(peaks: list, peak_tags: list, people: list[dict], tag_threshold: float, assign: Callable | None) -> list:
    """The person of every peak, or None: rounded distances to mean tags times 100 less the peak's value, as little as can be."""
    means = np.array([np.mean(person["tags"], axis=0) for person in people])
    distances = np.sqrt(((np.array(peak_tags, np.float64)[:, None] - means[None]) ** 2).sum(axis=2))
    costs = np.round(distances) * 100 - np.array([value for *_, value in peaks], np.float64)[:, None]
    surplus = max(0, len(peaks) - len(people))
    costs = np.concatenate([costs, np.full((len(peaks), surplus), 1e10)], axis=1)
    columns = linear_sum_assignment(costs)[1] if assign is None else assign(costs)
    return [people[c] if c < len(people) and distances[m, c] < tag_threshold else None for m, c in enumerate(columns)]


def quarter(heatmap: np.ndarray, x: int, y: int) -> tuple[float, float]:
    """Half a cell on from the cell's corner, and a quarter towards the larger neighbour."""
    height, width = heatmap.shape
    right = heatmap[y, min(x + 1, width - 1)] > heatmap[y, max(x - 1, 0)]
    below = heatmap[min(y + 1, height - 1), x] > heatmap[max(y - 1, 0), x]
    return x + (0.75 if right else 0.25), y + (0.75 if below else 0.25)


def fill_in(person: np.ndarray, heatmaps: np.ndarray, tags: np.ndarray) -> None:
    """Missing keypoints of a person (K, 3): where the heatmap less the rounded distance to the person's mean tag is largest."""
    found = np.flatnonzero(person[:, 2] > 0)
    mean = np.mean([tags[k, int(person[k, 1]), int(person[k, 0])] for k in found], axis=0)
    for k in np.flatnonzero(person[:, 2] == 0):
        rated = heatmaps[k] - np.round(np.sqrt(((tags[k] - mean) ** 2).sum(axis=2)))
        y, x = np.unravel_index(rated.argmax(), rated.shape)
        if heatmaps[k, y, x] > 0:
            person[k] = (*quarter(heatmaps[k], x, y), heatmaps[k, y, x])
