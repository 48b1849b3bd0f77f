import numpy as np
import pytest

from benchmarks.multicut import people_graph
from lib.codecs.multicut import cost, objective
from lib.codecs.multicut_exact import solve_exact
from tests.codecs.test_multicut import cheapest_of_all, hangs_together, random_graph


def test_the_cheapest_of_all_cuts():
    rng = np.random.default_rng(3)
    for _ in range(60):
        graph = random_graph(rng)
        labels = solve_exact(*graph)
        assert objective(*graph, labels) == pytest.approx(cheapest_of_all(*graph), abs=1e-6)
        assert hangs_together(labels, graph[1])
        _, first = np.unique(labels[labels >= 0], return_index=True)
        assert list(first) == sorted(first)


def test_halves_are_no_answer():
    """Around a star whose leaves repel each other fractions are cheapest: each leaf half joined, for which nobody pays."""
    leaves = 3
    edges = [[0, leaf] for leaf in range(1, leaves + 1)] + [[1, 2], [1, 3], [2, 3]]
    weights = np.array([-1.0] * leaves + [5.0] * 3)
    labels = solve_exact(np.full(leaves + 1, -1.0), edges, weights)
    assert objective(np.full(leaves + 1, -1.0), edges, weights, labels) == -5.0


def test_too_many_and_too_long():
    with pytest.raises(ValueError, match="11 detections are too many .* local search"):
        solve_exact(np.zeros(11), [], [], most=10)
    graph = people_graph(3, np.random.default_rng(0))
    with pytest.raises(TimeoutError, match="in 1e-06 seconds"):
        solve_exact(*graph, time_limit=1e-6)


def test_certainty_is_no_trouble():
    """Probabilities of 0 and 1, whose costs are as large as any."""
    unaries, edges = cost([1.0, 1.0, 0.3, 0.0]), [[0, 1], [1, 2], [2, 3], [0, 2]]
    assert solve_exact(unaries, edges, cost([0.0, 1.0, 0.9, 0.0])).tolist() == [0, 1, 1, -1]
