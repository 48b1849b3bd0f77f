"""The cheapest cut of a small graph into people, found exactly: an integer program by scipy's HiGHS.

For every detection v there is a number y_v, 1 if it is kept, and for every edge e a number z_e, 1 if its ends are in one cluster;
the sum of unary · y + weight · z is minimised. Edges that attract, those of a negative weight, are held down by z ≤ y of both
ends. Edges that repel are pushed up by the paths of attracting edges between their ends: along a path from u to v

    z_uv ≥ Σ z of the path's edges − Σ y of the detections between,

which is 1 where all of the path is in one cluster and else at most 0. There are too many paths to write them all down. So the
program is solved without, at first for fractions, the worst path of every edge that violates it is added, and so on until none
does. Then numbers that are still fractions are made whole by branching.
"""

from __future__ import annotations

import time

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from lib.codecs.multicut import SUPPRESSED, dense_graph

_TOLERANCE = 1e-6


def solve_exact(
    unaries: np.ndarray, edges: np.ndarray, weights: np.ndarray, *, most: int = 300, time_limit: float = 120.0
) -> np.ndarray:
    """The cheapest cut; arguments, labels and their order are those of `lib.codecs.multicut.multicut`.

    Args:
        unaries: (n,) cost of keeping each detection.
        edges: (m, 2) indices of two different detections.
        weights: (m,) cost of having both ends in one cluster.
        most: detections that are taken on; the time may double with each one.
        time_limit: seconds after which the search is given up.

    Raises:
        ValueError: more detections than `most`, or as for `multicut`.
        TimeoutError: it takes longer than `time_limit`.
    """
    unaries, matrix = dense_graph(unaries, edges, weights)
    if len(unaries) > most:
        raise ValueError(f"{len(unaries)} detections are too many to be cut exactly (at most {most}): choose the local search")
    deadline = time.monotonic() + time_limit
    # without the edges that repel a cluster still hangs together, or it would be cheaper apart
    labels, clusters = np.full(len(unaries), SUPPRESSED), 0
    for part in _components(matrix < 0):
        own = _cheapest(unaries[part], matrix[np.ix_(part, part)], deadline, time_limit)
        labels[part] = np.where(own >= 0, own + clusters, SUPPRESSED)
        clusters = max(clusters, labels.max() + 1)
    _, first, order = np.unique(labels[labels >= 0], return_index=True, return_inverse=True)
    labels[labels >= 0] = np.argsort(np.argsort(first))[order]
    return labels


def _components(joined: np.ndarray) -> list[np.ndarray]:
    count, part = connected_components(csr_array(joined), directed=False)
    return [np.flatnonzero(part == i) for i in range(count)]


def _cheapest(unaries: np.ndarray, matrix: np.ndarray, deadline: float, time_limit: float) -> np.ndarray:
    """(n,) labels of a graph whose attracting edges (n, n) make it connected."""
    n = len(unaries)
    if n == 1:
        return np.where(unaries > 0, SUPPRESSED, 0)
    u, v = np.nonzero(np.triu(matrix))
    weights = matrix[u, v]
    column = np.zeros((n, n), np.int64)
    column[u, v] = column[v, u] = n + np.arange(len(u))
    attracts = np.flatnonzero(weights < 0)
    rows = [[(n + e, 1.0), (end, -1.0)] for e in attracts for end in (u[e], v[e])]
    whole = np.zeros(n + len(u))
    while True:
        left = deadline - time.monotonic()
        x = _minimum(np.concatenate([unaries, weights]), rows, whole, left) if left > 0 else None
        if x is None:
            raise TimeoutError(f"no exact cut of {n} detections in {time_limit:g} seconds: choose the local search, or allow more")
        if violated := _violated(x, u, v, weights, column):
            rows += violated
            continue
        attracted = x[n + attracts]
        if whole.any() or np.abs(attracted - attracted.round()).max() < _TOLERANCE:
            break
        # the others follow: a detection is kept if it gains or an edge needs it, an edge that repels if a path needs it
        whole[n + attracts] = 1
    joined = np.zeros((n, n), bool)
    joined[u[attracts], v[attracts]] = attracted > 0.5
    labels = np.full(n, SUPPRESSED)
    for cluster, members in enumerate(_components(joined)):
        if x[members].max() > 0.5:
            labels[members] = cluster
    return labels


def _minimum(costs: np.ndarray, rows: list, whole: np.ndarray, seconds: float) -> np.ndarray | None:
    """Numbers in 0..1 with the least sum of costs, each row's sum at most 0, whole where `whole` is 1; None after `seconds`."""
    index = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    columns, values = np.array([term for row in rows for term in row]).T
    constraint = LinearConstraint(coo_array((values, (index, columns.astype(int))), (len(rows), len(costs))).tocsr(), ub=0)
    options = {"time_limit": seconds, "mip_rel_gap": 0.0}
    found = milp(costs, integrality=whole, bounds=Bounds(0, 1), constraints=constraint, options=options)
    if found.status == 1:
        return None
    if found.status != 0:
        raise RuntimeError(f"scipy's solver did not find a cut: {found.message}")
    return found.x


def _violated(x: np.ndarray, u: np.ndarray, v: np.ndarray, weights: np.ndarray, column: np.ndarray) -> list:
    """The worst path of each edge that repels, if it violates the inequality, as a row.

    With (y_a + y_b) / 2 − z_ab ≥ 0 for its length, a path's length is (y_u + y_v) / 2 less the right side of the inequality.
    """
    n = len(column)
    y, z = x[:n], x[n:]
    used = np.flatnonzero((weights < 0) & (z > _TOLERANCE))
    # a little more for each edge: of equal paths the one with the fewest, and no length is 0, which would be no edge
    lengths = np.maximum((y[u] + y[v]) / 2 - z, 0) + 1e-7
    graph = coo_array((lengths[used], (u[used], v[used])), (n, n)).tocsr()
    distances, before = dijkstra(graph, directed=False, return_predecessors=True)
    bound = (y[u] + y[v]) / 2 - distances[u, v]
    rows = []
    for e in np.flatnonzero((weights > 0) & (bound > z + 10 * _TOLERANCE)):
        row, at = [(n + e, -1.0)], v[e]
        while at != u[e]:
            previous = before[u[e], at]
            row.append((column[previous, at], 1.0))
            if previous != u[e]:
                row.append((previous, -1.0))
            at = previous
        rows.append(row)
    return rows
