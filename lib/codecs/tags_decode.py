"""From heatmaps and tags to people (associative embedding, Newell et al. 2017, arXiv:1611.05424; HigherHRNet, arXiv:1908.10357).

Peaks of the heatmaps are grouped by their tags, `lib.codecs.tags_group`; a person's missing keypoints are looked for where
the tags are its own. By default everything happens on the maps as the network gives them: heatmaps are averaged at the finest
resolution among them, peaks found between the cells, tags read at the peaks alone. The published procedure enlarges all
maps to the size of the network's input instead, which takes some fifty times longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate, max_pool2d

from lib.codecs import paf_peaks, tags_group, tags_refine
from lib.codecs.codec import Codec
from lib.people import People, cells_to_pixels

if TYPE_CHECKING:
    from lib.codecs.tags import TagsCodec

ADJUSTMENTS = ("parabola", "quarter", "none")
GROUPINGS = ("gain", "published")
CAPS = ("best", "first", "none")

PUBLISHED_TAGS = {
    "detection_threshold": 0.1,
    "tag_threshold": 1.0,
    "nms_window": 5,
    "plateaus": True,
    "upsample": 2,
    "grouping": "published",
    "adjust": "quarter",
    "refine": True,
    "refine_threshold": 0.0,
    "refine_tag_cutoff": None,
    "min_parts": 1,
    "cap": "none",
}
"""Decode options with which the same maps give the people of HigherHRNet's own evaluation: `replace(codec, **PUBLISHED_TAGS)`."""

THAWRO_TAGS = PUBLISHED_TAGS | {
    "detection_threshold": 0.05, "tag_threshold": 0.5, "tags_in_one_step": True, "cap": "first", "never_nobody": True,
}  # fmt: skip
"""The same for thawro/pytorch-human-pose, where it differs."""


@dataclass(frozen=True, kw_only=True)
class TagsOptions(Codec):
    """Decode options of `TagsCodec`. "Cells" are those of the finest heatmaps.

    Attributes:
        max_people: people drawn into targets; peaks kept for each keypoint; people among whom a peak looks for its own.
        tag_per_keypoint: each keypoint has tag maps of its own; without, all share one.
        detection_threshold: a keypoint's heatmap exceeds it, 0 or more.
        tag_threshold: a keypoint joins a person whose mean tag is nearer than this, by Euclidean distance.
        nms_window: odd size of the neighbourhood in which a peak is the largest, cells.
        plateaus: each cell of several with the same value is a peak (published), not the first alone.
        upsample: enlarge heatmaps, and tags to the same grid, so many times by linear interpolation first.
        tags_in_one_step: enlarge tags straight to that grid, without a halt at the finest heatmaps' resolution.
        grouping: of one keypoint's peaks as many as possible, as strong and as near by their tags as possible, go to the people
            begun so far ("gain"); or those with the smallest rounded distances, then the strongest, ties falling as in the
            "published" program, which also makes one person of two whose first tags are exactly equal.
        adjust: place of a keypoint: the top of a "parabola" (of logarithms) between the cells; "quarter" of a cell towards the
            larger neighbour and half a cell right and down, as published for targets that are cut off to whole cells; or "none".
        refine: look for a person's missing keypoints where the heatmap less the rounded distance to its mean tag is largest.
        refine_threshold: what is found there must exceed this, 0 or more.
        refine_tag_cutoff: and be no further than this from the person's mean tag, by the root of the mean square over the
            embedding's dimensions; None for no limit (published), which gives nearly everybody all keypoints.
        min_parts: people with fewer keypoints before refinement are dropped (with a smaller skeleton: with fewer than all).
        cap: which people are kept when there are more than `max_people`: the "best", the "first" found, or all ("none").
        never_nobody: where nobody is found give one person, all keypoints at their best peak, with score 0.01.
    """

    max_people: int = 30
    tag_per_keypoint: bool = True
    detection_threshold: float = 0.1
    tag_threshold: float = 1.0
    nms_window: int = 5
    plateaus: bool = False
    upsample: int = 1
    tags_in_one_step: bool = False
    grouping: str = "gain"
    adjust: str = "parabola"
    refine: bool = True
    refine_threshold: float = 0.02
    refine_tag_cutoff: float | None = 0.4
    min_parts: int = 3
    cap: str = "best"
    never_nobody: bool = False

    def __post_init__(self):
        ranges = {
            "max_people": self.max_people >= 1,
            "detection_threshold": self.detection_threshold >= 0,
            "tag_threshold": self.tag_threshold > 0,
            "nms_window": self.nms_window >= 1 and self.nms_window % 2 == 1,
            "upsample": self.upsample >= 1,
            "refine_threshold": self.refine_threshold >= 0,
            "refine_tag_cutoff": self.refine_tag_cutoff is None or self.refine_tag_cutoff > 0,
            "min_parts": self.min_parts >= 1,
        }
        self.check(ranges, grouping=GROUPINGS, adjust=ADJUSTMENTS, cap=CAPS)


def decode_tags(maps: Mapping[str, np.ndarray], codec: TagsCodec) -> People:
    """People of one image, best first, in pixels of the network's input; scores in 0..1.

    A person's score is the mean over all keypoints, those not found, or only by refinement, counting 0.

    Args:
        maps: "heatmaps" (K, h, w); optionally "heatmaps_fine" (K, H, W), of which the mean is taken; "tags" (E·K, h, w), or with
            shared tags (E, h, w), of E ≥ 1 embedding dimensions one after the other; optionally "tags_fine", further
            dimensions. Values that are not finite are never part of a person.
        codec: skeleton, stride (of "heatmaps") and options.

    Raises:
        ValueError: the maps' shapes do not fit the skeleton.
    """
    maps = {name: np.ascontiguousarray(values, np.float32) for name, values in maps.items()}
    _check_shapes(maps, codec)
    heatmaps, tags = _together(maps, codec)
    peaks, peak_tags, counts = _peaks(heatmaps, tags, codec)
    members = tags_group.group_peaks(
        counts, peaks[..., 2], peak_tags, np.array(tags_group.joint_order(codec.skeleton)), codec.max_people,
        float(codec.tag_threshold), codec.grouping == "published",
    )  # fmt: skip
    members = members[(members >= 0).sum(axis=1) >= min(codec.min_parts, len(heatmaps))]
    keypoints, own_tags = _of_people(members, peaks), _of_people(members, peak_tags)
    if len(keypoints) == 0 and codec.never_nobody:
        keypoints, own_tags = _one_of_the_highest(heatmaps), np.zeros((1, len(heatmaps), peak_tags.shape[2]), np.float32)
    if codec.adjust == "quarter":
        _move_a_quarter(heatmaps, keypoints, keypoints[..., 2] > 0)
    scores = keypoints[..., 2].mean(axis=1).clip(0, 1)
    keep = np.arange(len(scores)) if codec.cap == "first" else np.argsort(-scores, kind="stable")
    keep = keep if codec.cap == "none" else keep[: codec.max_people]
    keep = keep[np.argsort(-scores[keep], kind="stable")]
    keypoints, own_tags, scores = keypoints[keep], own_tags[keep], scores[keep]
    if codec.refine:
        _refine(heatmaps, tags, keypoints, own_tags, codec)
    stride = codec.stride * maps["heatmaps"].shape[1] / heatmaps.shape[1]
    found = keypoints[..., 2:] > 0
    keypoints[..., :2] = np.where(found, cells_to_pixels(keypoints[..., :2], stride), 0)
    keypoints[..., 2] = keypoints[..., 2].clip(0, 1)
    return People(keypoints, scores)


def _check_shapes(maps: Mapping[str, np.ndarray], codec: TagsCodec) -> None:
    k = codec.skeleton.num_keypoints
    shapes = {name: values.shape for name, values in maps.items()}
    per = k if codec.tag_per_keypoint else 1
    fits = {"heatmaps", "tags"} <= maps.keys() <= {"heatmaps", "heatmaps_fine", "tags", "tags_fine"}
    fits = fits and all(len(shape) == 3 and min(shape) > 0 for shape in shapes.values())
    fits = fits and all(shape[0] == k if name.startswith("heatmaps") else shape[0] % per == 0
                        for name, shape in shapes.items())  # fmt: skip
    if not fits:
        raise ValueError(f"skeleton {codec.skeleton.name!r} needs heatmaps ({k}, h, w), tags ({per} or a multiple, h, w) and, "
                         f"if there are, heatmaps_fine and tags_fine alike, got {shapes}")  # fmt: skip


def _together(maps: Mapping[str, np.ndarray], codec: TagsCodec) -> tuple[np.ndarray, np.ndarray]:
    """The heatmaps on one grid, the finest, (K, H, W), and all tags on one, (E, K or 1, h, w)."""
    heatmaps = maps["heatmaps"]
    if "heatmaps_fine" in maps:
        fine = maps["heatmaps_fine"]
        heatmaps = _mean(heatmaps, fine) if codec.upsample == 1 else (_enlarged(heatmaps, fine.shape[1:]) + fine) / 2
    size = heatmaps.shape[1:]
    tags = [maps[name] for name in ("tags", "tags_fine") if name in maps]
    if codec.upsample > 1 and not codec.tags_in_one_step:
        tags = [_enlarged(values, size) for values in tags]
    if codec.upsample > 1:
        size = (size[0] * codec.upsample, size[1] * codec.upsample)
        heatmaps = _enlarged(heatmaps, size)
    finest = tags[-1].shape[1:]
    blocks = all(length % cells == 0 for length, cells in zip(size, finest)) and size[0] // finest[0] == size[1] // finest[1]
    if codec.upsample > 1 or codec.refine_tag_cutoff is None or not blocks:
        finest = size
    per = len(heatmaps) if codec.tag_per_keypoint else 1
    tags = np.concatenate([_enlarged(values, finest).reshape(-1, per, *finest) for values in tags])
    return heatmaps, tags


def _mean(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Of both at the resolution of the second, but for rounding what `_enlarged` gives, in a third of the time."""
    mean, size = np.empty_like(fine), fine.shape[:0:-1]
    for channel, enlarged, own in zip(mean, coarse, fine):
        cv2.addWeighted(cv2.resize(enlarged, size, interpolation=cv2.INTER_LINEAR), 0.5, own, 0.5, 0, dst=channel)
    return mean


def _enlarged(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if maps.shape[1:] == tuple(size):
        return maps
    return interpolate(torch.from_numpy(maps)[None], size=tuple(size), mode="bilinear", align_corners=False)[0].numpy()


def _peaks(heatmaps: np.ndarray, tags: np.ndarray, codec: TagsCodec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each keypoint, the best first: x, y in cells and value (K, M, 3), tags (K, M, E), and how many there are (K,)."""
    if codec.plateaus:
        peaks = _all_peaks(heatmaps, codec.nms_window, codec.max_people)
    else:
        adjust = paf_peaks.PARABOLA if codec.adjust == "parabola" else paf_peaks.NONE
        least = max(np.float32(codec.detection_threshold), np.finfo(np.float32).tiny)
        _, peaks = paf_peaks.locate_parts(
            heatmaps, least, codec.nms_window // 2, 0.0, codec.max_people, paf_peaks.RANKED, adjust
        )
    peak_tags = _read(tags, peaks[..., :2], heatmaps.shape[1:])
    valid = np.isfinite(peaks).all(axis=2) & np.isfinite(peak_tags).all(axis=2)
    valid &= peaks[..., 2].astype(np.float64) > codec.detection_threshold
    best = np.argsort(np.where(valid, -peaks[..., 2], np.inf), axis=1, kind="stable")[..., None]
    return np.take_along_axis(peaks, best, 1), np.take_along_axis(peak_tags, best, 1), valid.sum(axis=1)


def _all_peaks(heatmaps: np.ndarray, window: int, most: int) -> np.ndarray:
    """The published choice of peaks: every cell that equals the largest of its neighbourhood."""
    values = torch.from_numpy(heatmaps)
    values = values * (max_pool2d(values[None], window, 1, window // 2)[0] == values)
    values, cells = values.flatten(1).topk(min(most, heatmaps[0].size), dim=1)
    y, x = np.divmod(cells.numpy(), heatmaps.shape[2])
    return np.stack([x, y, values.numpy()], axis=2).astype(np.float32)


def _read(tags: np.ndarray, places: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Tags between the cells at places (K, M, 2) x, y in cells of a grid of the given size: (K, M, E)."""
    height, width = tags.shape[2:]
    x, y = ((places[..., axis] + 0.5) * np.float32(cells / length) - 0.5
            for axis, cells, length in ((0, width, size[1]), (1, height, size[0])))  # fmt: skip
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, below = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    fx, fy = x - left, y - top
    part = np.arange(len(places))[:, None] if tags.shape[1] > 1 else np.zeros((1, 1), np.int64)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is left out later
        upper = tags[:, part, top, left] * (1 - fx) + tags[:, part, top, right] * fx
        lower = tags[:, part, below, left] * (1 - fx) + tags[:, part, below, right] * fx
        return np.moveaxis(upper * (1 - fy) + lower * fy, 0, 2).astype(np.float32)


def _of_people(members: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (K, M, …) of the people's peaks, (P, K, …), zeros where a keypoint is missing."""
    taken = values[np.arange(members.shape[1]), members]
    taken[members < 0] = 0
    return taken


def _one_of_the_highest(heatmaps: np.ndarray) -> np.ndarray:
    """One person, (1, K, 3), of the highest cell of every heatmap."""
    cells = np.where(np.isfinite(heatmaps), heatmaps, -np.inf).reshape(len(heatmaps), -1).argmax(axis=1)
    y, x = np.divmod(cells, heatmaps.shape[2])
    return np.stack([x, y, np.full(len(cells), 0.01)], axis=1).astype(np.float32)[None]


def _move_a_quarter(heatmaps: np.ndarray, keypoints: np.ndarray, which: np.ndarray) -> None:
    """Those of the keypoints (P, K, 3) that `which` (P, K) says: from their cell to the published place in it."""
    height, width = heatmaps.shape[1:]
    k = np.nonzero(which)[1]
    x, y = keypoints[which][:, :2].astype(np.int64).T
    right = heatmaps[k, y, np.minimum(x + 1, width - 1)] > heatmaps[k, y, np.maximum(x - 1, 0)]
    below = heatmaps[k, np.minimum(y + 1, height - 1), x] > heatmaps[k, np.maximum(y - 1, 0), x]
    keypoints[which, :2] += 0.25 + 0.5 * np.stack([right, below], axis=1).astype(np.float32)


def _refine(heatmaps: np.ndarray, tags: np.ndarray, keypoints: np.ndarray, own_tags: np.ndarray, codec: TagsCodec) -> None:
    """Fill in what the people (P, K, 3) miss; `own_tags` (P, K, E) are those of their keypoints found so far."""
    missing = keypoints[..., 2] == 0
    means = np.array([np.mean(own[~without], axis=0) for own, without in zip(own_tags, missing)], np.float32)
    if not missing.any():
        return
    if codec.refine_tag_cutoff is None:
        cells = tags_refine.best_by_tag(heatmaps, tags, means, missing)
    else:
        cells = tags_refine.best_within(
            heatmaps, tags, means, missing, codec.refine_tag_cutoff, codec.refine_threshold
        )
    k = np.nonzero(cells >= 0)[1]
    y, x = np.divmod(cells[cells >= 0], heatmaps.shape[2])
    values = heatmaps[k, y, x]
    keypoints[cells >= 0] = np.stack([x, y, values], axis=1)
    filled = (cells >= 0) & (keypoints[..., 2] > codec.refine_threshold) & np.isfinite(keypoints[..., 2])
    keypoints[(cells >= 0) & ~filled] = 0
    if codec.adjust == "parabola":
        for p, k in zip(*np.nonzero(filled)):
            x, y = keypoints[p, k, :2].astype(np.int64)
            keypoints[p, k, 1::-1] = paf_peaks.refine_peak(heatmaps[k], y, x, 1, paf_peaks.PARABOLA)
    elif codec.refine_tag_cutoff is None or codec.adjust == "quarter":
        _move_a_quarter(heatmaps, keypoints, filled)
