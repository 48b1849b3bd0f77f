"""From heatmaps, offsets and pairs to people (DeeperCut, Insafutdinov et al. 2016, arXiv:1605.03170).

Of one person each keypoint is where its heatmap is highest. Of several people the heatmaps' maxima are detections; each pair of
them gets a probability to be of one person, and the cheapest cut of that graph, `lib.codecs.multicut`, says which detections are
real and whose they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lib.codecs import multicut, parts_detect, parts_pairs
from lib.codecs.codec import Codec
from lib.codecs.parts_detect import Detections
from lib.data.pair_statistics import NEVER_SEEN
from lib.people import People
from lib.skeleton import Skeleton

if TYPE_CHECKING:
    from lib.codecs.parts import PartsCodec

SOLVERS = ("local", "exact")
SCORES = ("all", "found")


@dataclass(frozen=True, kw_only=True)
class PartsOptions(Codec):
    """Decode options of `PartsCodec`.

    Attributes:
        single: there is one person in the picture, whose keypoints are where the heatmaps are highest, whatever their value.
        detection_threshold: a detection's heatmap is at least this.
        nms_radius: of the disc, in cells and rounded up, in which a detection suppresses lower ones of the same keypoint.
        max_detections: of each keypoint, the best ones; None for all. It bounds the time a network takes that has not learnt.
        graph: pairs of keypoints a < b whose detections are asked whether they are of one person; None for all pairs. Pairs
            never seen together in training are left out; detections of the same keypoint are always asked.
        same_part: s, o of these: their probability is 1 / (1 + exp(s · distance in pixels − o)).
        pair_rule: s, o of different keypoints whose pair has no regression: 1 / (1 + exp(s · e − o)), where e is how far off
            both predictions are on average, in standard deviations of the pair (widened by `offset_stdev`).
        pair_model: for every pair a < b, in the order of `itertools.combinations`, 8 minima and 8 maxima of the features and 9
            weights, the last for a feature of 1 (`python -m lib pairwise-fit`); or None, for a pair or for all of them.
        solver: of the cut, "local" search or "exact", which takes its time and only small pictures.
        min_parts: people with fewer keypoints are dropped (with a smaller skeleton: with fewer than all).
        score: of a person, the mean score of its keypoints, "all", those not found counting 0, or only those "found".
    """

    single: bool = False
    detection_threshold: float = 0.2
    nms_radius: float = 5.0
    max_detections: int | None = 30
    graph: tuple[tuple[int, int], ...] | None = None
    same_part: tuple[float, float] = (0.2, 7.5)
    pair_rule: tuple[float, float] = (4.0, 4.0)
    pair_model: tuple[tuple[float, ...] | None, ...] | None = None
    solver: str = "local"
    min_parts: int = 3
    score: str = "all"

    def __post_init__(self):
        # lists from JSON and YAML become tuples, so that equal codecs compare equal
        for option in ("same_part", "pair_rule"):
            object.__setattr__(self, option, tuple(float(v) for v in getattr(self, option)))
        if self.graph is not None:
            object.__setattr__(self, "graph", tuple(tuple(int(end) for end in pair) for pair in self.graph))
        if self.pair_model is not None:
            rows = tuple(None if row is None else tuple(float(v) for v in row) for row in self.pair_model)
            object.__setattr__(self, "pair_model", rows)
        _check(self)

    @cached_property
    def pair_tables(self) -> PairTables:
        """What the options and statistics say of each pair, as arrays; made once for a codec."""
        return _pair_tables(self)


class PairTables(NamedTuple):
    """For keypoints a and b.

    Attributes:
        wanted: (K, K) bool for a ≤ b: detections of both are asked whether they are of one person.
        stats: (K, K, 4) float64 mean x, mean y, std x, std y of b seen from a, pixels.
        fitted: (K, K) bool for a < b: there is a regression.
        weights: (K, K, 9) float64 its weights for the features as they are, and for 1.
    """

    wanted: np.ndarray
    stats: np.ndarray
    fitted: np.ndarray
    weights: np.ndarray


class Graph(NamedTuple):
    """Detections and the question which of them are of one person.

    Attributes:
        detections: n of them.
        edges: (m, 2) int64 pairs of detections that were asked.
        probabilities: (m,) float64 that they are of one person.
        labels: (n,) int64 person of each detection from 0, −1 for those that were suppressed.
    """

    detections: Detections
    edges: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray


def decode_parts(maps: Mapping[str, np.ndarray], codec: PartsCodec) -> People:
    """People of one image, best first, in pixels of the network's input; scores in 0..1.

    A keypoint is the mean of its detections, weighted by their scores, and has the score of the best.

    Args:
        maps: "heatmaps" (K, h, w) in 0..1, "offsets" (2K, h, w), and for several people "pairwise" (2K(K−1), h, w). What is not
            finite is never part of a person.
        codec: skeleton, stride, statistics and options.

    Raises:
        ValueError: the maps' shapes do not fit the skeleton, or there is nothing by which to tell several people apart.
    """
    if codec.single:
        return _one_person(maps, codec)
    graph, k = cut_graph(maps, codec), codec.skeleton.num_keypoints
    people = people_of(graph.detections, graph.labels, k)
    people = people[(people.keypoints[..., 2] > 0).sum(axis=1) >= min(codec.min_parts, k)]
    return _ranked(people.keypoints, codec)


def cut_graph(maps: Mapping[str, np.ndarray], codec: PartsCodec) -> Graph:
    """The graph of all detections and how it was cut; see `decode_parts` for arguments and errors."""
    if codec.skeleton.num_keypoints == 1:  # there are no pairs, and no maps of them
        maps = {"pairwise": np.zeros((0, *maps["heatmaps"].shape[1:]), np.float32), **maps}
    _check_maps(maps, codec.skeleton, ("heatmaps", "pairwise"))
    found, tables = detections(maps, codec), codec.pair_tables
    edges = parts_pairs.edges_between(found.parts, tables.wanted)
    rule = (*codec.pair_rule, codec.offset_stdev)
    probabilities = parts_pairs.probabilities(
        edges, found.parts, found.cells, found.centres, found.places, np.ascontiguousarray(maps["pairwise"], np.float32),
        tables.stats, rule, codec.same_part, tables.fitted, tables.weights,
    )  # fmt: skip
    if codec.solver == "exact":
        from lib.codecs.multicut_exact import solve_exact as solve  # scipy's solver takes a while to import
    else:
        solve = multicut.multicut
    labels = solve(multicut.cost(found.scores), edges, multicut.cost(probabilities))
    return Graph(found, edges, probabilities, labels)


def detections(maps: Mapping[str, np.ndarray], codec: PartsCodec) -> Detections:
    """Detections of all keypoints of one image, with the codec's threshold and radius."""
    return parts_detect.detect(
        maps["heatmaps"], maps.get("offsets"), threshold=codec.detection_threshold, radius=codec.nms_radius,
        most=codec.max_detections, **_geometry(codec),
    )  # fmt: skip


def people_of(found: Detections, labels: np.ndarray, num_keypoints: int) -> People:
    """Detections with their person 0..P−1 (−1: nobody's) as P people, in that order; a person's score is 1."""
    num_people, kept = int(labels.max(initial=-1)) + 1, labels >= 0
    keypoints = np.zeros((num_people, num_keypoints, 3))
    whose = labels[kept], found.parts[kept]
    # the mean of detections of score 0, which have no weight, is the mean all the same
    weights = np.maximum(found.scores[kept], np.finfo(np.float32).tiny)
    total = np.zeros((num_people, num_keypoints))
    np.add.at(total, whose, weights)
    np.add.at(keypoints[..., :2], whose, found.places[kept] * weights[:, None])
    np.maximum.at(keypoints[..., 2], whose, weights)
    keypoints[..., :2] /= np.where(total > 0, total, 1)[..., None]
    return People(keypoints, np.ones(num_people))


def _one_person(maps: Mapping[str, np.ndarray], codec: PartsCodec) -> People:
    _check_maps(maps, codec.skeleton, ("heatmaps",))
    found = parts_detect.highest(maps["heatmaps"], maps.get("offsets"), **_geometry(codec))
    person = people_of(found, np.zeros(len(found.parts), np.int64), codec.skeleton.num_keypoints)
    return _ranked(person.keypoints, codec)


def _ranked(keypoints: np.ndarray, codec: PartsCodec) -> People:
    keypoints[..., 2] = keypoints[..., 2].clip(0, 1)
    scores = keypoints[..., 2].sum(axis=1)
    found = (keypoints[..., 2] > 0).sum(axis=1)
    scores = scores / (np.maximum(found, 1) if codec.score == "found" else keypoints.shape[1])
    order = np.argsort(-scores, kind="stable")
    return People(keypoints[order], scores[order])


def _geometry(codec: PartsCodec) -> dict[str, float]:
    return {"stride": codec.step, "origin": codec.start, "offset_stdev": codec.offset_stdev}


def _check_maps(maps: Mapping[str, np.ndarray], skeleton: Skeleton, needed: tuple[str, ...]) -> None:
    k = skeleton.num_keypoints
    channels = {"heatmaps": k, "offsets": 2 * k, "pairwise": 2 * k * (k - 1)}
    shapes = {name: maps[name].shape for name in channels if name in maps}
    cells = {shape[1:] for shape in shapes.values()}
    fits = set(needed) <= shapes.keys() and len(cells) == 1 and all(len(c) == 2 and min(c) > 0 for c in cells)
    if not fits or any(shape[0] != channels[name] for name, shape in shapes.items()):
        wanted = ", ".join(f"{name} ({channels[name]}, h, w)" for name in needed)
        hint = "" if "pairwise" in shapes or "pairwise" not in needed else (
            "; nothing else tells several people apart: train with pairwise terms, or set single=True for one person")  # fmt: skip
        raise ValueError(f"skeleton {skeleton.name!r} needs {wanted} and offsets ({channels['offsets']}, h, w), "
                         f"got {shapes}{hint}")  # fmt: skip


def _pair_tables(codec: PartsCodec) -> PairTables:
    k = codec.skeleton.num_keypoints
    pairs = list(combinations(range(k), 2))
    stats, weights = np.ones((k, k, 4)), np.zeros((k, k, parts_pairs.NUM_FEATURES + 1))
    fitted, wanted = np.zeros((k, k), bool), np.eye(k, dtype=bool)
    if pairs:
        stats[~np.eye(k, dtype=bool)] = codec.stats()
    for a, b in pairs:
        wanted[a, b] = tuple(stats[a, b]) != NEVER_SEEN or tuple(stats[b, a]) != NEVER_SEEN
    if codec.graph is not None:
        asked = np.eye(k, dtype=bool)
        for a, b in codec.graph:
            asked[a, b] = True
        wanted &= asked
    for (a, b), row in zip(pairs, codec.pair_model or ()):
        if row is not None:
            fitted[a, b], weights[a, b] = True, unscaled(np.array(row))
    return PairTables(wanted, stats, fitted, weights)


def unscaled(row: np.ndarray) -> np.ndarray:
    """Of 8 minima, 8 maxima and 9 weights of scaled features: the (9,) weights for the features as they are, and for 1.

    A feature whose minimum and maximum are equal says nothing.
    """
    n = parts_pairs.NUM_FEATURES
    low, width = row[:n], row[n : 2 * n] - row[:n]
    weights = np.where(width > 0, row[2 * n : 3 * n] / np.where(width > 0, width, 1), 0)
    return np.append(weights, row[3 * n] - (weights * low).sum())


def _check(codec: PartsOptions) -> None:
    k = codec.skeleton.num_keypoints
    numbers = 3 * parts_pairs.NUM_FEATURES + 1
    rows = codec.pair_model
    ranges = {
        "detection_threshold": codec.detection_threshold >= 0,
        "nms_radius": codec.nms_radius >= 0 and math.isfinite(codec.nms_radius),
        "max_detections": codec.max_detections is None or codec.max_detections >= 1,
        "same_part": len(codec.same_part) == 2 and codec.same_part[0] >= 0 and all(map(math.isfinite, codec.same_part)),
        "pair_rule": len(codec.pair_rule) == 2 and codec.pair_rule[0] >= 0 and all(map(math.isfinite, codec.pair_rule)),
        "graph": codec.graph is None or all(len(pair) == 2 and 0 <= pair[0] < pair[1] < k for pair in codec.graph),
        "min_parts": codec.min_parts >= 1,
    }
    codec.check(ranges, solver=SOLVERS, score=SCORES)
    if rows is not None and (
        len(rows) != k * (k - 1) // 2
        or any(row is not None and (len(row) != numbers or not all(map(math.isfinite, row))) for row in rows)
    ):
        raise ValueError(f"pair_model needs a row of {numbers} numbers, or none, for each of the {k * (k - 1) // 2} pairs of the "
                         f"{k} keypoints of skeleton {codec.skeleton.name!r}, got {len(rows)} rows")  # fmt: skip
