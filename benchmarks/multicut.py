"""The cut into people: the local search's time on one core, and what it misses of the exact optimum."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from benchmarks.paf import FIGURE, crowd, first_call_s, median_ms
from lib.codecs.multicut import cost, multicut, objective
from lib.codecs.multicut_exact import solve_exact
from lib.skeleton import COCO17, COCO18_NECK

SIZE = (480, 640)
PARTS = COCO17.num_keypoints
NUM_INSTANCES = 50


def nearest_pairs(count: int) -> list[tuple[int, int]]:
    """So many of the 136 pairs of keypoints, those nearest to each other on a standing figure, as published models ask for."""
    figure = np.array(FIGURE)[[COCO18_NECK.index(name) for name in COCO17.keypoints]]
    pairs = list(combinations(range(PARTS), 2))
    apart = [round(float(np.linalg.norm(figure[a] - figure[b])), 6) for a, b in pairs]
    return sorted(pairs[i] for i in np.argsort(apart, kind="stable")[:count])


def people_graph(
    people: int, rng: np.random.Generator, pairs: list[tuple[int, int]] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unaries, edges and weights of a crowd, about 20 detections a person, as a network sees it that is often wrong.

    One keypoint in twenty is missed, some are seen twice, others where nothing is. Each detection says where the other keypoints
    of its person are, a tenth of the time those of somebody else's; how far off that is, on average over both directions, makes
    the probability of a pair.

    Args:
        people: how many.
        rng: the source of all that is random.
        pairs: of different keypoints a < b that have edges; None for all.
    """
    bodies = crowd(people, rng, SIZE, COCO17.keypoints)[..., :2].astype(float)
    owners, parts = np.indices((people, PARTS)).reshape(2, -1)
    seen = rng.random(len(parts)) < 0.95
    twice, false = rng.random(len(parts)) < 0.1, rng.random(len(parts)) < 0.15
    part = np.concatenate([parts[seen], parts[twice], parts[false]])
    owner = np.concatenate([owners[seen], owners[twice], owners[false]])
    spread = np.repeat([3.0, 20.0, 80.0], [seen.sum(), twice.sum(), false.sum()])
    place = bodies[owner, part] + rng.normal(0, 1, (len(part), 2)) * spread[:, None]
    score = np.where(spread > 3, rng.uniform(0.2, 0.7, len(part)), rng.beta(4, 1.5, len(part)).clip(0.2, 1))
    order = np.argsort(part, kind="stable")
    part, owner, place, score = part[order], owner[order], place[order], score[order]
    whose = np.where(rng.random((len(part), PARTS)) < 0.1, rng.integers(0, people, (len(part), PARTS)), owner[:, None])
    told = bodies[whose, np.arange(PARTS)] + rng.normal(0, 15, (len(part), PARTS, 2))

    asked = np.eye(PARTS, dtype=bool)
    for a, b in combinations(range(PARTS), 2) if pairs is None else pairs:
        asked[a, b] = True
    u, v = np.triu_indices(len(part), 1)
    u, v = u[asked[part[u], part[v]]], v[asked[part[u], part[v]]]
    off = np.linalg.norm(told[u, part[v]] - place[v], axis=1) + np.linalg.norm(told[v, part[u]] - place[u], axis=1)
    apart = np.linalg.norm(place[u] - place[v], axis=1)
    exponent = np.where(part[u] == part[v], 0.2 * apart - 7.5, 4 * off / 2 / 25 - 4)
    return cost(score), np.stack([u, v], axis=1), cost(1 / (1 + np.exp(exponent)))
