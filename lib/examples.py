"""What a network is to learn, and what it says, as sheets of pictures: one row for each picture of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch

from lib.draw import draw_people, grid, heatmap_overlay, paf_overlay, tag_overlay
from lib.people import People
from lib.skeleton import Skeleton


def targets_sheet(batch: Mapping[str, torch.Tensor], targets: Mapping[str, np.ndarray], skeleton: Skeleton) -> np.ndarray:
    """Pictures with their people, what is left out of the loss in red, and the target maps.

    Args:
        batch: as `lib.data.dataset.collate` makes it.
        targets: maps of all pictures by name, (N, C, h, w) each.
        skeleton: of people and maps.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    rows = []
    for n, image in enumerate(_pictures(batch)):
        keypoints = batch["keypoints"][n].cpu().numpy()
        drawn = draw_people(image, People(keypoints, np.ones(len(keypoints), np.float32)), skeleton)
        rows.append({"annotated": _masked(drawn, batch["mask"][n].cpu().numpy()), **_layers(image, targets, n, skeleton)})
    return _sheet(rows)


def answers_sheet(batch: Mapping[str, torch.Tensor], maps: Mapping[str, np.ndarray], people: Sequence[People],
                  skeleton: Skeleton) -> np.ndarray:  # fmt: skip
    """Pictures with the people who were found in them, and the maps they were found in.

    Args:
        batch: as `lib.data.dataset.collate` makes it.
        maps: of the network by name, (N, C, h, w) each.
        people: of every picture, in pixels of the network's input.
        skeleton: of people and maps.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    rows = [
        {"found": draw_people(image, found, skeleton), **_layers(image, maps, n, skeleton)}
        for n, (image, found) in enumerate(zip(_pictures(batch), people, strict=True))
    ]
    return _sheet(rows)


def _pictures(batch: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
    return list(batch["images"].cpu().permute(0, 2, 3, 1).contiguous().numpy())


def _masked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Red where the mask (h, w) is 0."""
    left_out = cv2.resize((mask == 0).astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)[..., None]
    return np.rint(image * (1 - 0.5 * left_out) + np.array([200, 30, 30]) * 0.5 * left_out).astype(np.uint8)


def _layers(image: np.ndarray, maps: Mapping[str, np.ndarray], n: int, skeleton: Skeleton) -> dict[str, np.ndarray]:
    """A picture for every kind of map of sample n that can be drawn."""
    layers = {}
    for name, values in maps.items():
        if name.startswith("heatmaps"):
            layers[name] = heatmap_overlay(image, values[n][: skeleton.num_keypoints], skeleton)
        elif name.startswith("pafs"):
            layers[name] = paf_overlay(image, values[n])
        elif name.startswith("tags"):
            layers[name] = tag_overlay(image, values[n], maps[name.replace("tags", "heatmaps")][n])
    return layers


def _sheet(rows: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Rows of pictures below the names of their columns."""
    names, font = list(rows[0]), cv2.FONT_HERSHEY_SIMPLEX
    width = rows[0][names[0]].shape[1]
    bar = max(12, width // 12)
    size = min(bar / 36, 0.95 * width / max(cv2.getTextSize(name, font, 1, 1)[0][0] for name in names))
    heads = [cv2.putText(np.full((bar, width, 3), 255, np.uint8), name, (0, bar - bar // 4), font, size, (34, 34, 34), 1, cv2.LINE_AA)
             for name in names]  # fmt: skip
    return np.vstack([grid(heads, columns=len(names)), grid([row[name] for row in rows for name in names], columns=len(names))])
