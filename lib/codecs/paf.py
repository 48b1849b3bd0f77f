"""Part affinity fields (Cao et al. 2017, arXiv:1611.08050): one heatmap per keypoint, one vector field per limb.

The defaults are trt_pose's targets. The common variants of the method are options. One thing of the original is left out:
its training places a keypoint at (y + 0.5)/(H + 1) of the image and its decoder reads it at /H, up to a pixel apart at the
far border. Here both directions use the pixel convention of `lib.people`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor

from lib.codecs import paf_decode, paf_encode, paf_links, paf_peaks
from lib.codecs.codec import Codec, map_size
from lib.people import People, cells_to_pixels, pixels_to_cells
from lib.skeleton import Skeleton

HEATMAP_MERGES = ("max", "sum")
SHAPES = {"segment": paf_encode.SEGMENT, "box": paf_encode.BOX}
MERGES = {"sum": paf_encode.SUM, "average": paf_encode.AVERAGE, "overwrite": paf_encode.OVERWRITE}
REFINEMENTS = {"none": paf_peaks.NONE, "centroid": paf_peaks.CENTROID, "parabola": paf_peaks.PARABOLA}
ASSIGNMENTS = {"optimal": paf_links.OPTIMAL, "greedy": paf_links.GREEDY, "unpruned": paf_links.OPTIMAL_UNPRUNED}
PEAKS = {"ranked": paf_peaks.RANKED, "first": paf_peaks.FIRST, "spaced": paf_peaks.SPACED}
GROUPINGS = {"conflict_free": paf_decode.CONFLICT_FREE, "flood": paf_decode.FLOOD,
             "sequential": paf_decode.SEQUENTIAL, "sequential_lone": paf_decode.SEQUENTIAL_LONE}  # fmt: skip
LINK_SCORES = ("mean", "hits")
SCORES = {"confidence": paf_decode.CONFIDENCE, "count": paf_decode.COUNT, "balanced": paf_decode.BALANCED,
          "openpose": paf_decode.OPENPOSE}  # fmt: skip

PUBLISHED = {
    "peaks": "first",
    "peak_upsample": 1,
    "refine": "centroid",
    "line_samples": 7,
    "bilinear": False,
    "min_hit_ratio": 0.0,
    "assignment": "unpruned",
    "grouping": "flood",
    "min_parts": 1,
    "score": "count",
}
"""Decode options with which the same maps give the people of trt_pose's own decoder: `replace(codec, **PUBLISHED)`."""

LIGHTWEIGHT_OPENPOSE_TARGETS = {
    "stride": 8, "sigma": 7.0, "gaussian_factor": 2.0, "min_value": math.exp(-4.6052), "heatmap_merge": "sum",
    "background": True, "paf_half_width": 1.0, "paf_shape": "box", "paf_merge": "overwrite", "paf_offset": 0.4375,
}  # fmt: skip
"""Encode options with which the same people give Lightweight OpenPose's own targets (its fields have x first). Its fields
lie 0.4375 cells off its heatmaps, (8 − 1)/2 pixels; with `paf_offset=0` they agree."""

COARSE = {"peak_upsample": 2, "peak_window": 3, "bilinear": True, "link_threshold": 0.03, "min_hit_ratio": 0.65,
          "score": "balanced"}  # fmt: skip
"""Decode options for maps of stride 8: people are small there, neighbours a cell or two apart, fields as thin as a cell."""


def lightweight_openpose_options(skeleton: Skeleton, old: bool = False) -> dict:
    """Decode options of Lightweight OpenPose's own decoder: `replace(codec, upsample=4, **lightweight_openpose_options(…))`.

    Its people on its own maps, upsampled by 8 for its evaluation and by 4 for its demo. The links of the known figure
    are followed from the neck outwards, shoulders to ears last and only to fill in; limbs that figure does not have
    follow before those two, in the skeleton's order. Take the evaluation's score with `score="openpose"`.

    Args:
        skeleton: of the codec; its keypoints' names tell which limb is which.
        old: the decoder of the published figures (until December 2020), with a penalty for links longer than half the map.
    """
    known = {frozenset(pair): at for at, pair in enumerate(_OPENPOSE_ORDER)}
    names = [frozenset(skeleton.keypoints[end] for end in limb) for limb in skeleton.limbs]
    fill = [k for k, name in enumerate(names) if name in _OPENPOSE_FILL]
    order = sorted(set(range(len(names))) - set(fill), key=lambda k: (known.get(names[k], len(known)), k))
    return {
        "peak_threshold": 0.1, "peaks": "spaced", "peak_distance": 6.0, "max_peaks": 1000,
        "peak_upsample": 1, "refine": "none", "paf_offset": 0.0,
        "link_threshold": 0.0, "hit_threshold": 0.05, "line_samples": 10, "bilinear": False,
        "min_hit_ratio": 0.85,  # of ten samples more than 0.8
        "link_score": "hits", "length_penalty": old, "assignment": "greedy",
        "grouping": "sequential_lone" if old else "sequential", "limb_order": (*order, *fill), "fill_limbs": tuple(fill),
        "min_parts": 3, "min_evidence": 0.2,
    }  # fmt: skip


_OPENPOSE_ORDER = [
    ("neck", "right_shoulder"), ("neck", "left_shoulder"),
    *((f"{side}_{a}", f"{side}_{b}") for side in ("right", "left") for a, b in (("shoulder", "elbow"), ("elbow", "wrist"))),
    *((a.format(side), b.format(side)) for side in ("right", "left")
      for a, b in (("neck", "{}_hip"), ("{}_hip", "{}_knee"), ("{}_knee", "{}_ankle"))),
    ("neck", "nose"),
    *((a.format(side), b.format(side)) for side in ("right", "left") for a, b in (("nose", "{}_eye"), ("{}_eye", "{}_ear"))),
]  # fmt: skip
_OPENPOSE_FILL = [frozenset((f"{side}_shoulder", f"{side}_ear")) for side in ("right", "left")]


@dataclass(frozen=True)
class PafCodec(Codec):
    """Turns people into heatmaps and part affinity fields, and maps back into people.

    Channel 2k of the fields is the y component of limb k, channel 2k+1 its x component.

    Attributes:
        skeleton: keypoints and limbs.
        stride: pixels of the network's input per cell of the maps.
        stdev: σ as a fraction of the map's height; a heatmap is exp(−d²/(gaussian_factor·σ²)).
        gaussian_factor: 1 as trt_pose draws it, 2 for the normal distribution.
        sigma: σ in pixels of the network's input instead, whatever its size; `stdev` then counts for nothing.
        min_value: smallest value of a heatmap that is drawn; None to draw as far as trt_pose, 2.5 σ along each axis.
        heatmap_merge: where people meet: "max", or "sum" (at most 1).
        background: one more heatmap, 1 minus the largest of the others.
        paf_half_width: None for trt_pose's soft field, which falls off with the distance to the limb like the heatmap with
            the distance to the keypoint; a number for a hard field of length 1 up to so many cells beside the limb.
        paf_shape: of a hard field: "segment", cells beside the limb; or "box", cells of the box around it enlarged by the half
            width (its borders truncated to whole cells, the far ones left out), also those beyond its ends.
        paf_offset: fields are drawn, and read, so many cells further right and down than heatmaps.
        paf_merge: where limbs of several people meet: "sum"; "average", the mean direction (by weight) with the
            largest length (for hard fields the mean of Cao et al.); or "overwrite", the nearest, last person's vector alone.
        peak_threshold: least heatmap value of a keypoint, above 0.
        peak_window: odd size of the neighbourhood in which a peak is the largest, cells.
        max_peaks: peaks kept for each keypoint.
        peaks: "ranked" keeps the best and one per plateau, "first" the first of the map with all cells of a plateau;
            "spaced" takes what exceeds its four neighbours, from left to right, and drops what is near to one it took.
        peak_upsample: look for peaks in heatmaps enlarged so many times by cubic interpolation, and measure window and distance
            there; the fields stay as they are.
        peak_distance: what "spaced" calls near, cells; `peak_window` has no part in it.
        refine: sub-pixel place of a peak by "parabola" (of logarithms), "centroid" (of the window) or "none".
        link_threshold: least score of a link.
        hit_threshold: a sample of the field above it is a hit; None for the link threshold.
        line_samples: points at which the field is read along a link, both ends included; at least 2.
        bilinear: read the field between cells instead of at the nearest one.
        min_hit_ratio: least share of these points that are hits, 0..1.
        link_score: "mean" of the field at all these points, or at the "hits" alone.
        length_penalty: lower the score of links longer than half the map's height.
        assignment: "optimal" for the largest sum of link scores, "greedy" for the best link first, "unpruned" for the
            largest sum when links below the threshold count, too.
        grouping: "conflict_free" joins the surest links first and drops those that would give a person two of one
            part; "flood" follows all links and lets a later peak of a part replace an earlier one; "sequential" goes limb by
            limb, the next one's end replaces an earlier one, and people once begun are never joined; "sequential_lone"
            also begins people of one peak where the other end of a limb was found nowhere.
        limb_order: all limbs' indices, in the order in which "sequential" takes them; None for the skeleton's.
        fill_limbs: indices of limbs that "sequential" uses for keypoints still missing only, not as evidence.
        min_parts: people with fewer keypoints are dropped (with a smaller skeleton: with fewer than all).
        min_evidence: people with less evidence (the sum over their peaks and links) per keypoint are dropped.
        score: of a person: "confidence", the mean evidence of all its keypoints and limbs, 0 for those not found;
            "count", the share of keypoints found; "balanced", the geometric mean of these two; or "openpose", the evidence
            times the number of keypoints but one, which ranks people as Lightweight OpenPose's evaluation does, has no upper
            bound and is 0 for a single keypoint.
        upsample: enlarge the maps so many times by cubic interpolation first; "cells" of decoding are then the smaller ones.

    Raises:
        ValueError: an option is out of its range or not one of its names.
    """

    skeleton: Skeleton
    stride: int = 4
    stdev: float = 0.025
    gaussian_factor: float = 1.0
    sigma: float | None = None
    min_value: float | None = None
    heatmap_merge: str = "max"
    background: bool = False
    paf_half_width: float | None = None
    paf_shape: str = "segment"
    paf_offset: float = 0.0
    paf_merge: str = "sum"
    peak_threshold: float = 0.1
    peak_window: int = 5
    max_peaks: int = 100
    peaks: str = "ranked"
    peak_upsample: int = 1
    peak_distance: float = 6.0
    refine: str = "parabola"
    link_threshold: float = 0.1
    hit_threshold: float | None = None
    line_samples: int = 10
    bilinear: bool = False
    min_hit_ratio: float = 0.0
    link_score: str = "mean"
    length_penalty: bool = False
    assignment: str = "optimal"
    grouping: str = "conflict_free"
    limb_order: tuple[int, ...] | None = None
    fill_limbs: tuple[int, ...] = ()
    min_parts: int = 3
    min_evidence: float = 0.0
    score: str = "confidence"
    upsample: int = 1
    kinds: ClassVar[tuple[str, ...]] = ("heatmaps", "pafs")

    def __post_init__(self):
        # lists from JSON and YAML become tuples, so that equal codecs compare equal
        for option in ("limb_order", "fill_limbs"):
            if getattr(self, option) is not None:
                object.__setattr__(self, option, tuple(int(limb) for limb in getattr(self, option)))
        ranges = {
            "stride": self.stride >= 1,
            "stdev": self.stdev > 0,
            "gaussian_factor": self.gaussian_factor > 0,
            "sigma": self.sigma is None or self.sigma > 0,
            "min_value": self.min_value is None or 0 < self.min_value < 1,
            "paf_half_width": self.paf_shape == "segment" if self.paf_half_width is None else self.paf_half_width >= 0,
            "paf_offset": math.isfinite(self.paf_offset),
            "peak_threshold": self.peak_threshold > 0,
            "peak_window": self.peak_window >= 1 and self.peak_window % 2 == 1,
            "peak_upsample": self.peak_upsample >= 1,
            "peak_distance": self.peak_distance >= 0,
            "max_peaks": self.max_peaks >= 1,
            "link_threshold": self.link_threshold >= 0,
            "hit_threshold": self.hit_threshold is None or self.hit_threshold >= 0,
            "line_samples": self.line_samples >= 2,
            "min_hit_ratio": 0 <= self.min_hit_ratio <= 1,
            "limb_order": self.limb_order is None or sorted(self.limb_order) == list(range(self.skeleton.num_limbs)),
            "fill_limbs": set(self.fill_limbs) <= set(range(self.skeleton.num_limbs)),
            "min_parts": self.min_parts >= 1,
            "min_evidence": self.min_evidence >= 0,
            "upsample": self.upsample >= 1,
        }
        self.check(ranges, heatmap_merge=HEATMAP_MERGES, paf_shape=SHAPES, paf_merge=MERGES, peaks=PEAKS, refine=REFINEMENTS,
                   link_score=LINK_SCORES, assignment=ASSIGNMENTS, grouping=GROUPINGS, score=SCORES)  # fmt: skip

    @property
    def strides(self) -> dict[str, int]:
        """Pixels of the network's input per cell of every map."""
        return {"heatmaps": self.stride, "pafs": self.stride}

    def encode(
        self, keypoints: Tensor, mask: Tensor | None = None, size: tuple[int, int] = (256, 256)
    ) -> dict[str, Tensor]:
        """Target maps of a batch, on its device.

        Args:
            keypoints: (N, P, K, 3) x, y in pixels of the network's input and visibility; drawn where visibility > 0,
                and those outside the image where their maps reach into it.
            mask: (N, h, w), 1 where the loss counts, 0 where not; None for everywhere.
            size: height and width of the network's input in pixels.

        Returns:
            "heatmaps" (N, K, h, w), or with a background (N, K + 1, h, w), in 0..1, "pafs" (N, 2L, h, w), "mask" (N, 1, h, w),
            float32; h, w = size / stride.

        Raises:
            ValueError: shapes do not fit the skeleton, the stride or each other.
        """
        cells = map_size(keypoints, mask, size, self.skeleton, self.stride)
        people = keypoints.detach().to(torch.float32, copy=True)
        people[..., :2] = pixels_to_cells(people[..., :2], self.stride)
        heatmaps, pafs = self._drawn(people, cells, people.device.type == "cpu")
        if mask is None:
            mask = people.new_ones(len(people), *cells)
        return {"heatmaps": heatmaps, "pafs": pafs, "mask": mask[:, None].to(people.device, torch.float32)}

    def decode(self, maps: dict[str, np.ndarray]) -> People:
        """People of one image, best first, in pixels of the network's input; scores in 0..1, but for `score="openpose"`.

        Args:
            maps: "heatmaps" (K, h, w), or (K + 1, h, w) with a background, which is not used, and "pafs" (2L, h, w); values
                that are not finite are never part of a person.

        Raises:
            ValueError: the maps' shapes do not fit the skeleton.
        """
        heatmaps, pafs = (np.ascontiguousarray(maps[name], np.float32) for name in ("heatmaps", "pafs"))
        k, limbs = self.skeleton.num_keypoints, self._limbs()
        if heatmaps.ndim != 3 or len(heatmaps) not in (k, k + 1) or pafs.shape != (2 * len(limbs), *heatmaps.shape[1:]):
            raise ValueError(f"skeleton {self.skeleton.name!r} needs heatmaps ({k} or {k + 1}, h, w) and pafs "
                             f"({2 * len(limbs)}, h, w), got {heatmaps.shape} and {pafs.shape}")  # fmt: skip
        heatmaps = heatmaps[:k]
        if self.upsample > 1:
            heatmaps, pafs = (_upsampled(values, self.upsample) for values in (heatmaps, pafs))
        if self.peak_upsample > 1:
            heatmaps = _upsampled(heatmaps, self.peak_upsample)
        order = range(len(limbs)) if self.limb_order is None else self.limb_order
        keypoints, scores = paf_decode.decode_maps(
            heatmaps, pafs, limbs,
            peak_threshold=self.peak_threshold, radius=self.peak_window // 2, peak_distance=self.peak_distance,
            max_peaks=self.max_peaks, peaks=PEAKS[self.peaks], refine=REFINEMENTS[self.refine],
            paf_offset=self.paf_offset * self.upsample, link_threshold=self.link_threshold,
            hit_threshold=self.link_threshold if self.hit_threshold is None else self.hit_threshold,
            samples=self.line_samples, bilinear=self.bilinear, min_hit_ratio=self.min_hit_ratio,
            hits_only=self.link_score == "hits", length_penalty=self.length_penalty,
            assignment=ASSIGNMENTS[self.assignment], grouping=GROUPINGS[self.grouping],
            limb_order=np.array(order, np.int64), fill_only=np.isin(np.arange(len(limbs)), self.fill_limbs),
            min_parts=min(self.min_parts, k), min_evidence=self.min_evidence, score=SCORES[self.score],
        )  # fmt: skip
        found = keypoints[..., 2] > 0
        pixels = cells_to_pixels(keypoints[..., :2], self.stride / self.upsample)
        keypoints[..., :2] = np.where(found[..., None], pixels, 0)
        return People(keypoints, scores)

    def at_pixels(self, pixels_per_cell: float) -> PafCodec:
        """The same codec for maps that were enlarged to one cell per pixel, of which each old cell now fills so many."""
        offset = self.paf_offset * pixels_per_cell
        return replace(self, stride=1, upsample=1, peak_upsample=1, paf_offset=offset)

    def _drawn(self, people: Tensor, cells: tuple[int, int], compiled: bool) -> tuple[Tensor, Tensor]:
        """Heatmaps and fields of people (N, P, K, 3) in cells, who are moved by the fields' offset on the way."""
        sigma = self.stdev * cells[0] if self.sigma is None else self.sigma / self.stride
        variance = self.gaussian_factor * sigma**2
        radius, least = int(5 * sigma) // 2, 0.0
        if self.min_value is not None:
            radius, least = int(math.sqrt(-math.log(self.min_value) * variance)) + 1, self.min_value
        spots = variance, radius, least, self.heatmap_merge == "sum"
        half_width = -1.0 if self.paf_half_width is None else float(self.paf_half_width)
        strokes = variance, half_width, SHAPES[self.paf_shape], MERGES[self.paf_merge]
        limbs, k = self._limbs(), self.skeleton.num_keypoints
        heatmaps = people.new_zeros(len(people), k + self.background, *cells)
        if compiled:
            drawn = people.contiguous().numpy()
            paf_encode.draw_heatmaps(drawn, *spots, heatmaps.numpy())
            drawn[..., :2] += self.paf_offset
            pafs = np.zeros((len(people), 2 * len(limbs), *cells), np.float32)
            paf_encode.draw_pafs(drawn, limbs, *strokes, pafs)
            pafs = torch.from_numpy(pafs)
        else:
            heatmaps[:, :k] = paf_encode.heatmaps_as_tensors(people, *spots, cells)
            people[..., :2] += self.paf_offset
            pafs = paf_encode.pafs_as_tensors(people, torch.from_numpy(limbs).to(people.device), *strokes, cells)
        if self.background:
            heatmaps[:, k] = 1 - heatmaps[:, :k].amax(dim=1)
        return heatmaps, pafs

    def _turned(self, name: str, back: np.ndarray) -> np.ndarray:
        """Channels behind the keypoints' (a background) stay; a field's x component changes its sign.

        A limb whose mirror twin is not in the skeleton was not seen in the mirror: its field becomes NaN, and whoever averages
        keeps what he has there.
        """
        if name == "heatmaps":
            return back[..., [*self.skeleton.flip_index, *range(self.skeleton.num_keypoints, back.shape[-3])], :, :]
        twins, signs = self.skeleton.limb_flip
        back = _moved_right(back, 2 * self.paf_offset)
        vectors = back.reshape(*back.shape[:-3], len(twins), 2, *back.shape[-2:])[..., twins, :, :, :]
        factors = np.where(twins < 0, np.nan, signs)[:, None] * np.array([1, -1])
        return (vectors * factors[..., None, None].astype(back.dtype)).reshape(back.shape)

    def _limbs(self) -> np.ndarray:
        return np.array(self.skeleton.limbs, np.int64).reshape(-1, 2)


def _upsampled(maps: np.ndarray, factor: int) -> np.ndarray:
    size = (maps.shape[2] * factor, maps.shape[1] * factor)
    return np.stack([cv2.resize(channel, size, interpolation=cv2.INTER_CUBIC) for channel in maps])


def _moved_right(fields: np.ndarray, cells: float) -> np.ndarray:
    """Fields (…, w) read so many cells further left, by linear interpolation; the border's values go on beyond it."""
    if cells == 0:
        return fields
    width = fields.shape[-1]
    low, share = np.divmod(np.arange(width) - cells, 1)
    left, right = (fields[..., (low + step).astype(int).clip(0, width - 1)] for step in (0, 1))
    return ((1 - share) * left + share * right).astype(fields.dtype)
