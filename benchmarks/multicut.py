"""The cut into people: the local search's time on one core, and how far from the exact optimum it ends."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np

from benchmarks.paf import FIGURE, crowd, first_call_s, median_ms
from lib.codecs.multicut import cost, multicut, objective
from lib.codecs.multicut_exact import solve_exact
from lib.skeleton import COCO17, COCO18_NECK

SIZE = (480, 640)
PARTS = COCO17.num_keypoints
NUM_INSTANCES = 50
LIMIT_S = 60.0


def main() -> None:
    print("17 keypoints, about 20 detections a person; edges between all pairs of keypoints, or the 40 nearest")
    for people, bound in ((2, ""), (4, ""), (8, "  (bound: 50)"), (16, "  (bound: 300)")):
        for name, pairs in GRAPHS.items():
            graphs = [people_graph(people, np.random.default_rng([people, i]), pairs) for i in range(10)]
            taken = [median_ms(lambda graph=graph: multicut(*graph), 9) for graph in graphs]
            n, m = (np.mean([len(graph[i]) for graph in graphs]) for i in (0, 1))
            print(
                f"{people:2d} people, {name:9}  {n:4.0f} detections {m:6.0f} edges  {np.median(taken):6.1f} ms{bound}"
            )
    for level, options, graphs in (("good", {}, GRAPHS), ("bad", BAD, {"40 pairs": GRAPHS["40 pairs"]})):
        gaps, seconds, unproven = gaps_to_optimum(options, graphs)
        print(f"{len(gaps)} crowds of 1 to 8, {level} network: worst {gaps.max():.2f} %, mean {gaps.mean():.3f} % above the optimum, "
              f"{(gaps < 1e-6).sum()} optimal  (bound: 1 %); exact: median {np.median(seconds):.2f} s, longest "
              f"{seconds.max():.1f} s, {unproven} more not within {LIMIT_S:g} s")  # fmt: skip
    first = first_call_s("lib.codecs.multicut", "", "multicut(np.zeros(0), [], [])")
    print(f"first call after installation, compiling: {first:.1f} s; cached on disk from then on")


def gaps_to_optimum(options: dict, graphs: dict) -> tuple[np.ndarray, np.ndarray, int]:
    """Of random crowds, graph after graph: how much dearer the local search's cut is, percent; seconds of the exact one; and how
    many were left out because that took too long."""
    gaps, seconds, number = [], [], 0
    while len(gaps) < NUM_INSTANCES:
        pairs = list(graphs.values())[number // 8 % len(graphs)]
        graph = people_graph(1 + number % 8, np.random.default_rng([99, number]), pairs, **options)
        number += 1
        start = time.perf_counter()
        try:
            optimum = objective(*graph, solve_exact(*graph, time_limit=LIMIT_S))
        except TimeoutError:
            continue
        seconds.append(time.perf_counter() - start)
        gaps.append(100 * (objective(*graph, multicut(*graph)) - optimum) / abs(optimum))
    return np.array(gaps), np.array(seconds), number - len(gaps)


def nearest_pairs(count: int) -> list[tuple[int, int]]:
    """So many of the 136 pairs of keypoints, those nearest to each other on a standing figure, as published models ask for."""
    figure = np.array(FIGURE)[[COCO18_NECK.index(name) for name in COCO17.keypoints]]
    pairs = list(combinations(range(PARTS), 2))
    apart = [round(float(np.linalg.norm(figure[a] - figure[b])), 6) for a, b in pairs]
    return sorted(pairs[i] for i in np.argsort(apart, kind="stable")[:count])


def people_graph(
    people: int,
    rng: np.random.Generator,
    pairs: list[tuple[int, int]] | None = None,
    confused: float = 0.03,
    noise: float = 10.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unaries, edges and weights of a crowd in a picture of 640×480, as a network sees it: about 20 detections a person.

    One keypoint in twenty is missed, some are seen twice, others where nothing is. Each detection says where the other keypoints
    of its person are; how far off that is, on average over both directions, makes the probability of a pair.

    Args:
        people: how many.
        rng: the source of all that is random.
        pairs: of different keypoints a < b that have edges; None for all.
        confused: share of what is said that is of somebody else.
        noise: standard deviation of where it says the other keypoints are, pixels.
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
    whose = np.where(
        rng.random((len(part), PARTS)) < confused, rng.integers(0, people, (len(part), PARTS)), owner[:, None]
    )
    told = bodies[whose, np.arange(PARTS)] + rng.normal(0, noise, (len(part), PARTS, 2))

    asked = np.eye(PARTS, dtype=bool)
    for a, b in combinations(range(PARTS), 2) if pairs is None else pairs:
        asked[a, b] = True
    u, v = np.triu_indices(len(part), 1)
    u, v = u[asked[part[u], part[v]]], v[asked[part[u], part[v]]]
    error = np.linalg.norm(told[u, part[v]] - place[v], axis=1) + np.linalg.norm(told[v, part[u]] - place[u], axis=1)
    apart = np.linalg.norm(place[u] - place[v], axis=1)
    exponent = np.where(part[u] == part[v], 0.2 * apart - 7.5, 4 * error / 2 / 25 - 4)
    return cost(score), np.stack([u, v], axis=1), cost(1 / (1 + np.exp(exponent)))


GRAPHS = {"all pairs": None, "40 pairs": nearest_pairs(40)}
BAD = {"confused": 0.1, "noise": 15.0}


if __name__ == "__main__":
    main()
