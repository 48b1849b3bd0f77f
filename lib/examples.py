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
        rows.append([_masked(drawn, batch["mask"][n].cpu().numpy()), *_layers(image, targets, n, skeleton)])
    return grid([picture for row in rows for picture in row], columns=len(rows[0]))


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
        [draw_people(image, found, skeleton), *_layers(image, maps, n, skeleton)]
        for n, (image, found) in enumerate(zip(_pictures(batch), people, strict=True))
    ]
    return grid([picture for row in rows for picture in row], columns=len(rows[0]))


def _pictures(batch: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
    return list(batch["images"].cpu().permute(0, 2, 3, 1).contiguous().numpy())


def _masked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Red where the mask (h, w) is 0."""
    left_out = cv2.resize((mask == 0).astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)[..., None]
    return np.rint(image * (1 - 0.5 * left_out) + np.array([200, 30, 30]) * 0.5 * left_out).astype(np.uint8)


def _layers(image: np.ndarray, maps: Mapping[str, np.ndarray], n: int, skeleton: Skeleton) -> list[np.ndarray]:
    """A picture for every kind of map of sample n that can be drawn."""
    layers = []
    for name, values in maps.items():
        if name.startswith("heatmaps"):
            layers.append(heatmap_overlay(image, values[n][: skeleton.num_keypoints], skeleton))
        elif name.startswith("pafs"):
            layers.append(paf_overlay(image, values[n]))
        elif name.startswith("tags"):
            layers.append(tag_overlay(image, values[n], maps[name.replace("tags", "heatmaps")][n]))
    return layers
