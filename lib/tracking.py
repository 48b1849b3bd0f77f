"""Who is who from frame to frame: `Tracker` gives the people of a video lasting ids, `OneEuro` calms their keypoints.

A track is carried to the moment of the new frame with the velocity of its body; people go to the tracks they resemble
most (OKS), all at once, so that two who cross keep their ids. Lost tracks wait for a while. Nothing is learnt and no
picture is needed, so it works for any skeleton and any network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from lib.people import People
from lib.skeleton import Skeleton

# Chosen on clips of two and three synthetic people who cross, found by the small trained network, at 25 down to 3 frames
# per second: fewest changes of ids
VELOCITY_SECONDS = 0.2  # how long a velocity is remembered
DRIFT = 1.2  # person sizes (roots of box areas) per second by which a prediction may go wrong, once the velocity is known
FRESH = 2.0  # and before
FEW = 1 / 6  # of all keypoints count as unlike, so that a scrap of three keypoints is never a good match


@dataclass(frozen=True)
class OneEuro:
    """One-Euro filter (Casiez, Roussel and Vogel, CHI 2012): still keypoints are calmed, fast ones are followed.

    Every coordinate runs through a low-pass whose cutoff is `min_cutoff` + `beta` · |speed|, all of them at once.

    Attributes:
        min_cutoff: Hz, of a keypoint at rest; lower is calmer and slower.
        beta: Hz per unit of speed. Speeds count in person sizes (root of the box area) per second if `relative`, so that
            near and far people are treated alike, and else in pixels per second.
        d_cutoff: Hz, of the low-pass on the speed.
        rate: frames per second to reckon with; None takes the true time between frames.
        relative: see `beta`.
    """

    min_cutoff: float = 1.0
    beta: float = 20.0
    d_cutoff: float = 1.0
    rate: float | None = None
    relative: bool = True

    def __post_init__(self):
        if min(self.min_cutoff, self.d_cutoff) <= 0 or self.beta < 0 or (self.rate is not None and self.rate <= 0):
            raise ValueError(f"One-Euro needs positive cutoffs and rate, and a beta of 0 or more, got {self}")

    def __call__(self, filtered: Filtered, points: np.ndarray, found: np.ndarray, seconds: np.ndarray,
                 sizes: np.ndarray) -> Filtered:  # fmt: skip
        """One step of T × K × 2 filters.

        Args:
            filtered: what the step before gave, `Filtered.start(T, K)` at first.
            points: (T, K, 2) pixels, as measured.
            found: (T, K) bool; a keypoint that was absent one step before begins anew at its measured place.
            seconds: (T,) since that step.
            sizes: (T,) pixels.

        Returns:
            The new state, whose `points` are the smoothed keypoints where `found`.
        """
        going = (filtered.active & found)[..., None]
        step = np.full(len(points), 1 / self.rate) if self.rate else seconds
        frequency = (1 / np.maximum(step, 1e-9))[:, None, None]  # the same moment once more: nothing moves
        speed = np.where(going, (points - filtered.raw) * frequency, 0)
        speed = np.where(going, _low_pass(filtered.speed, speed, self.d_cutoff, frequency), 0)
        unit = np.maximum(sizes, 1)[:, None, None] if self.relative else 1
        cutoff = self.min_cutoff + self.beta * np.abs(speed) / unit
        smooth = np.where(going, _low_pass(filtered.points, points, cutoff, frequency), points)
        return Filtered(points, smooth, speed, found)


PUBLISHED_SMOOTHING = OneEuro(beta=0.05, rate=15, relative=False)  # of Lightweight OpenPose's demo


@dataclass
class Filtered:
    """State of `OneEuro`: measured points, smoothed points and speeds (T, K, 2), and (T, K) bool where it runs."""

    raw: np.ndarray
    points: np.ndarray
    speed: np.ndarray
    active: np.ndarray

    @classmethod
    def start(cls, tracks: int, num_keypoints: int) -> Filtered:
        """Filters that have seen nothing yet."""
        zeros = np.zeros((tracks, num_keypoints, 2))
        return cls(zeros, zeros, zeros, np.zeros((tracks, num_keypoints), bool))


class Tracker:
    """Ids for the people of a video, frame by frame; the same frames give the same ids.

    Ids count from 1 in order of appearance and are never used again. Who does not qualify for a track of his own yet
    (`min_score`, `min_keypoints`) and resembles nobody is passed on with id 0.

    Args:
        skeleton: of the people; its sigmas say how far a keypoint may be off.
        max_gap: seconds for which somebody may be out of sight and still be known again.
        min_similarity: 0..1, least likeness of a person and a track.
        min_score: least score of a person who starts a track.
        min_keypoints: fewest keypoints of a person who starts a track; None: a third of the skeleton's.
        smoothing: filter on the keypoints of every track, or None. Matching always uses what was measured.
        rule: "ours", or "published": the greedy one of Lightweight OpenPose's demo, which knows the previous frame only,
            with at least three keypoints alike; max_gap, min_similarity, min_score and min_keypoints are then unused. (The
            demo compares with what it had smoothed and cut to whole pixels, here it is always what was measured.)

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        *,
        max_gap: float = 1.0,
        min_similarity: float = 0.05,
        min_score: float = 0.0,
        min_keypoints: int | None = None,
        smoothing: OneEuro | None = OneEuro(),
        rule: Literal["ours", "published"] = "ours",
    ):
        if rule not in ("ours", "published"):
            raise ValueError(f"rule is 'ours' or 'published', not {rule!r}")
        least = -(-skeleton.num_keypoints // 3) if min_keypoints is None else min_keypoints
        if not max_gap >= 0 or not 0 < min_similarity < 1 or not 1 <= least <= skeleton.num_keypoints:
            raise ValueError(f"a tracker needs max_gap >= 0 s, 0 < min_similarity < 1 and min_keypoints of 1 to "
                             f"{skeleton.num_keypoints}, got {max_gap}, {min_similarity} and {min_keypoints}")  # fmt: skip
        self.skeleton, self.rule, self.smoothing = skeleton, rule, smoothing
        self.max_gap, self.min_similarity, self.min_score = max_gap, min_similarity, min_score
        self.min_keypoints = least
        self.reset()

    def reset(self) -> None:
        """Forget everybody; the next person gets id 1, and time may start again."""
        self._tracks = _Tracks.none(self.skeleton.num_keypoints)
        self._time, self._next_id = -np.inf, 1

    def __call__(self, people: People, time: float) -> People:
        """Follow everybody into the next frame.

        Args:
            people: of one frame, in pixels; a keypoint that is not finite counts as not found.
            time: seconds since any moment; steps may differ, and the same time may come again.

        Returns:
            The same people in the same order with `ids` (P,) int64 and smoothed keypoints.

        Raises:
            ValueError: time went backwards, or the people are of another skeleton.
        """
        time = self._checked(people, time)
        keypoints = np.where(np.isfinite(people.keypoints).all(2, keepdims=True), people.keypoints, 0).astype(float)
        points, found = keypoints[..., :2], keypoints[..., 2] > 0
        areas = _areas(points, found, self.rule == "published")
        if self.rule == "published":
            rows = _match_published(self._tracks, points, found, areas, people.scores, self.skeleton.sigmas)
            new = np.argsort(-people.scores, kind="stable")
        else:
            rows = _match(self._tracks, points, found, areas, time, self.skeleton.sigmas, self.min_similarity)
            new = np.flatnonzero((found.sum(1) >= self.min_keypoints) & (people.scores >= self.min_score))
        new = new[rows[new] < 0]
        rows[new] = len(self._tracks.ids) + np.arange(len(new))
        self._tracks = self._tracks.grown(self._next_id + np.arange(len(new)))
        self._next_id += len(new)
        known = rows >= 0
        smooth = self._tracks.update(rows[known], points[known], found[known], areas[known], time, self.smoothing)
        ids = np.zeros(len(people), np.int64)
        ids[known] = self._tracks.ids[rows[known]]
        keypoints[known, :, :2] = np.where(found[known][..., None], smooth, points[known])
        # by the published rule the order of the last frame decides between equals
        self._tracks = self._tracks[rows[known] if self.rule == "published" else self._tracks.last >= time - self.max_gap]
        self._time = time
        return People(keypoints, people.scores, people.boxes, ids)

    def _checked(self, people: People, time: float) -> float:
        if people.keypoints.shape[1] != self.skeleton.num_keypoints:
            raise ValueError(f"people have {people.keypoints.shape[1]} keypoints, the tracker's skeleton "
                             f"{self.skeleton.name!r} has {self.skeleton.num_keypoints}")  # fmt: skip
        if not np.isfinite(time):
            raise ValueError(f"the time of a frame is a number of seconds, got {time}")
        if time < self._time:
            raise ValueError(f"time went back from {self._time:g} s to {time:g} s: call reset() before another video")
        return float(time)


@dataclass
class _Tracks:
    """T tracks as arrays; a keypoint that was never seen has `seen` = −inf."""

    ids: np.ndarray  # (T,) int64
    points: np.ndarray  # (T, K, 2) where each keypoint was seen last
    seen: np.ndarray  # (T, K) and when
    last: np.ndarray  # (T,) when the person was seen last
    areas: np.ndarray  # (T,) pixels²
    velocity: np.ndarray  # (T, 2) of the body, pixels per second
    trust: np.ndarray  # (T,) weight of the velocity so far, 0..1
    raw: np.ndarray  # (T, K, 2) and the other fields of Filtered
    smooth: np.ndarray
    speed: np.ndarray
    active: np.ndarray

    @classmethod
    def none(cls, k: int) -> _Tracks:
        point, each, one = np.zeros((0, k, 2)), np.zeros((0, k)), np.zeros(0)
        return cls(one.astype(np.int64), point, each, one, one, np.zeros((0, 2)), one, point, point, point, each.astype(bool))

    def __getitem__(self, which) -> _Tracks:
        return _Tracks(*(getattr(self, field.name)[which] for field in fields(self)))

    def grown(self, ids: Sequence[int]) -> _Tracks:
        """With empty tracks of these ids at the end."""
        if not len(ids):
            return self
        grown = _Tracks(*(np.concatenate([v, np.zeros((len(ids), *v.shape[1:]), v.dtype)])
                          for v in (getattr(self, field.name) for field in fields(self))))  # fmt: skip
        grown.ids[-len(ids) :], grown.seen[-len(ids) :] = ids, -np.inf
        grown.last[-len(ids) :] = -np.inf
        return grown

    def update(self, rows: np.ndarray, points: np.ndarray, found: np.ndarray, areas: np.ndarray, time: float,
               smoothing: OneEuro | None) -> np.ndarray:  # fmt: skip
        """Put what was measured into the tracks `rows`; returns their smoothed points."""
        absent = np.ones(len(self.ids), bool)
        absent[rows] = False
        seconds = np.where(np.isfinite(self.last[rows]), time - self.last[rows], 0)
        self._learn_velocity(rows, points, found, time, seconds)
        if smoothing is not None:
            state = Filtered(self.raw[rows], self.smooth[rows], self.speed[rows], self.active[rows])
            state = smoothing(state, points, found, seconds, np.sqrt(areas))
            self.raw[rows], self.smooth[rows], self.speed[rows] = state.raw, state.points, state.speed
            self.active[rows] = state.active
        self.active[absent] = False
        self.points[rows] = np.where(found[..., None], points, self.points[rows])
        self.seen[rows] = np.where(found, time, self.seen[rows])
        self.last[rows], self.areas[rows] = time, areas
        return points if smoothing is None else state.points

    def _learn_velocity(self, rows: np.ndarray, points: np.ndarray, found: np.ndarray, time: float,
                        seconds: np.ndarray) -> None:  # fmt: skip
        """Median motion of the keypoints, averaged over the last moments; at the first time it counts in full."""
        passed = time - self.seen[rows]
        both = found & (passed > 0) & np.isfinite(passed)
        moving = both.any(axis=1)
        if not moving.any():
            return
        rows, both, passed, seconds = rows[moving], both[moving], passed[moving], seconds[moving]
        motion = (points[moving] - self.points[rows]) / np.where(both, passed, 1)[..., None]
        motion = np.sort(np.where(both[..., None], motion, np.inf), axis=1)  # the median, without NumPy's slow nanmedian
        each, last = np.arange(len(motion)), both.sum(axis=1) - 1
        motion = (motion[each, last // 2] + motion[each, (last + 1) // 2]) / 2
        gain = 1 - np.exp(-seconds / VELOCITY_SECONDS)
        self.trust[rows] += gain * (1 - self.trust[rows])
        share = gain / np.maximum(self.trust[rows], 1e-9)
        self.velocity[rows] += share[:, None] * (motion - self.velocity[rows])


def _match(tracks: _Tracks, points: np.ndarray, found: np.ndarray, areas: np.ndarray, time: float,
           sigmas: Sequence[float], least: float) -> np.ndarray:  # fmt: skip
    """Row of the track of every person, −1 for none: the assignment with the largest sum of likenesses."""
    rows = np.full(len(points), -1)
    if not len(points) or not len(tracks.ids):
        return rows
    passed = np.where(np.isfinite(tracks.seen), time - tracks.seen, 0)
    predicted = tracks.points + tracks.velocity[:, None] * passed[..., None]
    area = np.maximum(tracks.areas, areas[:, None])[..., None]  # (P, T, 1)
    drift = (FRESH + (DRIFT - FRESH) * tracks.trust)[:, None] * passed
    variance = 4 * np.square(sigmas) + drift**2  # (T, K) in units of the area
    both = found[:, None] & np.isfinite(tracks.seen)
    distance2 = ((points[:, None] - predicted) ** 2).sum(-1)
    alike = (np.exp(-distance2 / (2 * area * variance)) * both).sum(-1) / (both.sum(-1) + FEW * both.shape[-1])
    # who was seen just now has the better claim than who may be anywhere by now
    claim = alike / (1 + (time - tracks.last))
    claim[alike < least] = 0
    person, track = linear_sum_assignment(-claim)
    taken = claim[person, track] > 0
    rows[person[taken]] = track[taken]
    return rows


def _match_published(tracks: _Tracks, points: np.ndarray, found: np.ndarray, areas: np.ndarray, scores: np.ndarray,
                     sigmas: Sequence[float]) -> np.ndarray:  # fmt: skip
    """The same by the rule of the demo: the most confident first, whoever shares most keypoints, at least three."""
    rows = np.full(len(points), -1)
    area = np.maximum(tracks.areas, areas[:, None])[..., None]
    distance2 = ((points[:, None] - tracks.points) ** 2).sum(-1)
    both = found[:, None] & (tracks.seen == tracks.last[:, None])
    alike = (both & (np.exp(-distance2 / (8 * (area + np.spacing(1)) * np.square(sigmas))) > 0.5)).sum(-1)
    for person in np.argsort(-scores, kind="stable") if len(tracks.ids) else ():
        best = int(alike[person].argmax())
        if alike[person, best] >= 3:
            rows[person] = best
            alike[:, best] = 0
    return rows


def _areas(points: np.ndarray, found: np.ndarray, published: bool) -> np.ndarray:
    """(P,) pixels² of the boxes around the pixels of the found keypoints.

    Ours takes a narrow figure for a quarter as wide as it is high at least, and a point for 16 × 16 pixels.
    """
    low = np.where(found[..., None], points, np.inf).min(axis=1)
    high = np.where(found[..., None], points, -np.inf).max(axis=1)
    sides = np.where(found.any(axis=1)[:, None], high - low, 0) + 1
    if not published:
        sides = np.maximum(sides, np.maximum(sides.max(axis=1) / 4, 16)[:, None])
    return sides.prod(axis=1)


def _low_pass(before: np.ndarray, now: np.ndarray, cutoff, frequency) -> np.ndarray:
    alpha = 1 / (1 + frequency / (2 * np.pi * cutoff))
    return alpha * now + (1 - alpha) * before
