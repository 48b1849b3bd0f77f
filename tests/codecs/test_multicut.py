from functools import lru_cache
from itertools import combinations

import numpy as np
import pytest

from benchmarks.multicut import GRAPHS, people_graph
from lib.codecs.multicut import cost, multicut, objective
from lib.codecs.multicut_exact import solve_exact

NO_EDGES = np.zeros((0, 2), np.int64), np.zeros(0)


def random_graph(rng: np.random.Generator, largest: int = 7):
    """Up to so many detections, any share of the pairs as edges; unaries lean to keeping or to suppressing."""
    n = int(rng.integers(1, largest + 1))
    edges = np.array([pair for pair in combinations(range(n), 2) if rng.random() < rng.choice([0.3, 0.7, 1])])
    edges = edges.reshape(-1, 2).astype(np.int64)
    return rng.normal(rng.choice([-1, 0, 1, 2]), 1.5, n), edges, rng.normal(0, 2, len(edges))


@lru_cache
def all_cuts(n: int) -> np.ndarray:
    """Every way to suppress some of n detections and to divide the others, (C, n): a cluster's number is new or was there."""
    cuts = [()]
    for _ in range(n):
        cuts = [(*cut, label) for cut in cuts for label in range(-1, max(cut, default=-1) + 2)]
    return np.array(cuts)


def cheapest_of_all(unaries, edges, weights) -> float:
    cuts = all_cuts(len(unaries))
    costs = (cuts >= 0) @ unaries
    for (a, b), weight in zip(edges, weights):
        costs += weight * ((cuts[:, a] == cuts[:, b]) & (cuts[:, a] >= 0))
    return costs.min()


def hangs_together(labels, edges) -> bool:
    """Whether every cluster is connected by edges inside it."""
    reached = np.arange(len(labels))
    inside = [(a, b) for a, b in edges if labels[a] == labels[b] >= 0]
    for _ in labels:
        for a, b in inside:
            reached[[a, b]] = min(reached[a], reached[b])
    return all(len(set(reached[labels == cluster])) == 1 for cluster in range(labels.max(initial=-1) + 1))


def test_cost():
    np.testing.assert_allclose(cost([0.5, 0.9, 0.1]), [0, -np.log(9), np.log(9)], atol=1e-12)
    np.testing.assert_allclose(cost([0.0, 1e-9, 1.0]), [16.118, 16.118, -16.118], atol=1e-3)
    assert cost(np.float32(0.25)).dtype == np.float64


def test_number_of_cuts():
    assert [len(all_cuts(n)) for n in range(1, 6)] == [2, 5, 15, 52, 203]  # Bell numbers of n + 1


def test_two_people_by_hand():
    # head, neck and hand of one; neck and hand of the other, whose hand the first one's neck also claims
    unaries = cost([0.9, 0.8, 0.7, 0.9, 0.3])
    edges = np.array([[0, 1], [1, 2], [3, 4], [1, 4], [1, 3], [2, 4]])
    labels = multicut(unaries, edges, cost([0.9, 0.9, 0.9, 0.6, 0.05, 0.05]))
    assert labels.tolist() == [0, 0, 0, 1, 1]
    assert labels.dtype == np.int64
    expected = cost([0.9, 0.8, 0.7, 0.9, 0.3, 0.9, 0.9, 0.9]).sum()
    assert objective(unaries, edges, cost([0.9, 0.9, 0.9, 0.6, 0.05, 0.05]), labels) == pytest.approx(expected)


def test_a_doubtful_detection_stays_where_edges_pay_for_it():
    assert multicut([0.5, -1.0], [[0, 1]], [-0.6]).tolist() == [0, 0]
    assert multicut([0.5, -1.0], [[0, 1]], [-0.4]).tolist() == [-1, 0]


def test_a_cluster_of_doubtful_detections_needs_a_negative_sum():
    assert multicut([1.0, 1.0, 1.0], [[0, 1], [1, 2], [0, 2]], [-1.1] * 3).tolist() == [0, 0, 0]
    assert multicut([1.0, 1.0, 1.0], [[0, 1], [1, 2], [0, 2]], [-0.9] * 3).tolist() == [-1, -1, -1]


def test_what_no_edge_connects_is_two_clusters():
    assert multicut([-1.0, -1.0, -1.0], [[0, 2]], [-1.0]).tolist() == [0, 1, 0]
    # two who repel each other are in one cluster only through the one between them
    assert multicut([-1.0, -1.0, -1.0], [[0, 1], [1, 2], [0, 2]], [-3.0, -3.0, 2.0]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("solve", [multicut, solve_exact])
def test_nothing_and_one(solve):
    assert solve(np.zeros(0), *NO_EDGES).tolist() == []
    assert solve([-1.0], *NO_EDGES).tolist() == [0]
    assert solve([1.0], [], []).tolist() == [-1]


@pytest.mark.parametrize("solve", [multicut, solve_exact])
def test_edges_named_twice_add_up(solve):
    unaries = [-1.0, -1.0]
    assert solve(unaries, [[0, 1], [1, 0]], [-1.0, 1.5]).tolist() == [0, 1]
    assert solve(unaries, [[0, 1], [1, 0]], [-1.0, 0.5]).tolist() == [0, 0]


def test_nearly_always_the_cheapest_of_all_cuts():
    rng, missed = np.random.default_rng(0), 0
    for _ in range(300):
        graph = random_graph(rng)
        labels = multicut(*graph)
        least = cheapest_of_all(*graph)
        found = objective(*graph, labels)
        assert found >= least - 1e-9
        missed += found > least + 1e-9
    assert missed <= 3


def test_every_answer_is_a_cut():
    rng = np.random.default_rng(1)
    for _ in range(200):
        unaries, edges, weights = random_graph(rng, 12)
        labels = multicut(unaries, edges, weights)
        assert hangs_together(labels, edges)
        # numbered by first detection, none missing
        _, first = np.unique(labels[labels >= 0], return_index=True)
        assert list(first) == sorted(first) and set(labels[labels >= 0]) == set(range(labels.max() + 1))
        for cluster in range(labels.max() + 1):
            alone = np.where(labels == cluster, 0, -1)
            assert objective(unaries, edges, weights, alone) <= 1e-9


def test_the_same_graph_has_the_same_answer():
    unaries, edges, weights = people_graph(4, np.random.default_rng(2))
    labels = multicut(unaries, edges, weights)
    before = np.random.get_state()[1].copy()
    assert (multicut(unaries, edges, weights) == labels).all()
    backwards = np.arange(len(edges))[::-1]
    assert (multicut(unaries, edges[backwards][:, ::-1], weights[backwards]) == labels).all()
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("options", [{}, {"confused": 0.1, "noise": 15.0}])
def test_crowds_are_cut_within_one_percent_of_the_optimum(options):
    for i in range(6):
        pairs = GRAPHS["all pairs" if i < 2 else "40 pairs"]
        graph = people_graph(1 + i, np.random.default_rng([5, i]), pairs, **options)
        labels = multicut(*graph)
        optimum = objective(*graph, solve_exact(*graph))
        assert optimum - 1e-6 <= objective(*graph, labels) <= optimum + 0.01 * abs(optimum)
        assert (labels < 0).any() or i == 0


@pytest.mark.parametrize("solve", [multicut, solve_exact])
@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (([[0.0]], [], []), r"unaries \(n,\)"),
        (([0.0, 1.0], [[0, 1]], [1.0, 2.0]), r"weights \(m,\)"),
        (([0.0, 1.0], [0, 1], [1.0]), r"edges \(m, 2\)"),
        (([0.0, 1.0], [[0, 2]], [1.0]), r"edge 0 is \[0, 2\]"),
        (([0.0, 1.0], [[0, -1]], [1.0]), r"edge 0 is \[0, -1\]"),
        (([0.0, 1.0], [[0, 1], [1, 1]], [1.0, 1.0]), r"edge 1 is \[1, 1\]"),
        (([0.0, 1.0], [[0.0, 1.0]], [1.0]), "pairs of indices"),
        (([0.0, np.nan], [], []), "unary 1 is nan"),
        (([0.0, 1.0], [[0, 1]], [np.inf]), "weight 0 is inf"),
    ],
)
def test_what_is_no_graph(solve, graph, said):
    with pytest.raises(ValueError, match=said):
        solve(*graph)


def test_labels_for_another_graph():
    with pytest.raises(ValueError, match="2 detections needs as many labels"):
        objective([0.0, 1.0], [], [], [0])
