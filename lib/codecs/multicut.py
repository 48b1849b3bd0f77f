"""Which detections are real, and which of these make one person: the cheapest cut of a graph into people (minimum-cost multicut
with suppression; DeeperCut, Insafutdinov et al. 2016, arXiv:1605.03170).

Some detections are kept, the others are suppressed; those kept are divided into clusters. Every detection that is kept costs its
unary, every edge inside a cluster its weight. Both are log((1 − p) / p) of a probability: what is more likely true than not has a
negative cost, so a detection of p < 0.5 stays only where the edges to its cluster pay for it. The cheapest cut is NP-hard to find;
here is a local search, in `lib.codecs.multicut_exact` the exact answer for small graphs.

The search begins with greedy additive edge contraction, then moves detections, joins, splits and drops clusters as long as that
gains. What it finds is a valley, not always the deepest. So each detection's surroundings are cut anew, on their own and with
weights that are a little wrong, and the new cut is kept where by the true weights it is cheaper.

Compiled functions stand in one file with all that they call: numba's cache notices changes in that file only.
"""

from __future__ import annotations

import numba
import numpy as np

SUPPRESSED = -1
_NULL = 0  # in the search the suppressed are one more group, in which nobody pays
_ROUNDS = 2  # in which every detection's surroundings are cut anew
_AROUND = 32  # detections from which on surroundings take in no more clusters
_WRONG = 0.8  # largest share by which a weight is then too large or too small


def cost(probability: np.ndarray | float) -> np.ndarray:
    """log((1 − p) / p), natural, float64; p is first pulled into 1e-7..1 − 1e-7, so that no cost exceeds 16.2."""
    clipped = np.clip(np.asarray(probability, np.float64), 1e-7, 1 - 1e-7)
    return np.log((1 - clipped) / clipped)


def multicut(unaries: np.ndarray, edges: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A cheap cut of a graph, nearly always the cheapest. The same graph always gives the same answer.

    The search holds a few matrices (n, n) of float64.

    Args:
        unaries: (n,) cost of keeping each detection.
        edges: (m, 2) indices of two different detections; of edges named several times the weights are added.
        weights: (m,) cost of having both ends in one cluster.

    Returns:
        (n,) int64 cluster of every detection, `SUPPRESSED` (−1) of those that are not kept. Clusters are numbered from 0 in the
        order of their first detections; each is connected by its edges, and none costs more than nothing.

    Raises:
        ValueError: shapes do not fit each other, a number is not finite, an edge names a detection that is not there or twice
            the same.
    """
    return _search(*dense_graph(unaries, edges, weights), np.random.default_rng(0))


def objective(unaries: np.ndarray, edges: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> float:
    """What a cut costs: `labels` (n,) as `multicut` gives them, the rest as it takes them."""
    unaries, edges, weights = checked_graph(unaries, edges, weights)
    labels = np.asarray(labels)
    if labels.shape != unaries.shape:
        raise ValueError(f"a graph of {len(unaries)} detections needs as many labels, got shape {labels.shape}")
    first, second = labels[edges].T
    return float(unaries[labels >= 0].sum() + weights[(first == second) & (first >= 0)].sum())


def checked_graph(unaries, edges, weights) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The graph as float64, int64 and float64 arrays; see `multicut` for shapes and errors."""
    unaries, weights = np.asarray(unaries, np.float64), np.asarray(weights, np.float64)
    edges = np.asarray(edges)
    edges = edges.reshape(-1, 2).astype(np.int64) if edges.size == 0 else edges
    if unaries.ndim != 1 or edges.ndim != 2 or edges.shape[1] != 2 or weights.shape != edges.shape[:1]:
        raise ValueError(
            f"a graph is unaries (n,), edges (m, 2) and weights (m,), got {unaries.shape}, {edges.shape}, {weights.shape}"
        )
    if not np.issubdtype(edges.dtype, np.integer):
        raise ValueError(f"edges are pairs of indices, got {edges.dtype}")
    for name, values in (("unary", unaries), ("weight", weights)):
        if len(bad := np.flatnonzero(~np.isfinite(values))):
            raise ValueError(f"{name} {bad[0]} is {values[bad[0]]}: costs are finite, see lib.codecs.multicut.cost")
    wrong = ((edges < 0) | (edges >= len(unaries))).any(axis=1) | (edges[:, 0] == edges[:, 1])
    if wrong.any():
        e = int(wrong.argmax())
        raise ValueError(f"edge {e} is {edges[e].tolist()}: it joins two different ones of {len(unaries)} detections")
    return unaries, edges.astype(np.int64), weights


def dense_graph(unaries, edges, weights) -> tuple[np.ndarray, np.ndarray]:
    """Unaries (n,) and the symmetric matrix of weights (n, n), 0 where no edge is; see `multicut` for shapes and errors."""
    unaries, edges, weights = checked_graph(unaries, edges, weights)
    matrix = np.zeros((len(unaries), len(unaries)))
    np.add.at(matrix, (edges[:, 0], edges[:, 1]), weights)
    return unaries, matrix + matrix.T


@numba.njit(cache=True)
def _search(unaries, matrix, rng):
    eps = 1e-9 * (1.0 + max(_largest(unaries.reshape(1, -1)), _largest(matrix)))
    group = _contract(matrix)
    _descend(unaries, matrix, group, eps)
    for _ in range(_ROUNDS):
        for seed in range(len(unaries)):
            _cut_around(unaries, matrix, group, seed, rng, eps)
        _descend(unaries, matrix, group, eps)
    return group - 1


@numba.njit(cache=True)
def _largest(values):
    largest = 0.0
    for row in values:
        for value in row:
            largest = max(largest, abs(value))
    return largest


@numba.njit(cache=True)
def _descend(unaries, matrix, group, eps):
    """Change groups in place as long as that gains; returns what the cut then costs. Groups are numbered 1, 2, … without gaps."""
    best = np.inf
    while True:
        total, size, sums = _components(unaries, matrix, group)
        if total > best - eps:
            return best
        best = total
        _move_each(matrix, group, size, sums, eps)
        _exchange_pairs(matrix, group, size, sums, eps)


@numba.njit(cache=True)
def _cut_around(unaries, matrix, group, seed, rng, eps):
    """Cut a detection's surroundings anew, with wrong weights at first, and keep the new cut if it is cheaper."""
    inside = _surroundings(matrix, group, seed)
    n = len(inside)
    own_unaries, own, wrong = unaries[inside], np.zeros((n, n)), np.zeros((n, n))
    before = 0.0
    for i in range(n):
        mine = group[inside[i]]
        before += own_unaries[i] if mine != _NULL else 0.0
        for j in range(i):
            weight = matrix[inside[i], inside[j]]
            own[i, j] = own[j, i] = weight
            wrong[i, j] = wrong[j, i] = weight * (1.0 + _WRONG * (2.0 * rng.random() - 1.0))
            before += weight if mine != _NULL and mine == group[inside[j]] else 0.0
    again = _contract(wrong)
    if _descend(own_unaries, own, again, eps) < before - eps:
        highest = group.max()
        for i in range(n):
            group[inside[i]] = highest + again[i] if again[i] != _NULL else _NULL


@numba.njit(cache=True)
def _surroundings(matrix, group, seed):
    """Its whole cluster, and the clusters of those that it attracts, the most attracted first, until they are enough."""
    inside, wish = np.zeros(len(group), np.bool_), matrix[seed].copy()
    wish[seed] = -np.inf
    while inside.sum() < _AROUND:
        v = wish.argmin()
        if wish[v] >= 0:
            break
        for u in range(len(group)):
            if u == v or (group[u] == group[v] and group[v] != _NULL):
                inside[u], wish[u] = True, 0.0
    return np.flatnonzero(inside)


@numba.njit(cache=True)
def _contract(matrix):
    """Join the two clusters with the most negative sum of weights between them, again and again; group (n,) from 1 on."""
    n = len(matrix)
    between = matrix.copy()
    group, alive = np.arange(n), np.ones(n, np.bool_)
    nearest = np.empty(n, np.int64)  # a cluster that nothing attracts is its own nearest, at 0
    for i in range(n):
        nearest[i] = _nearest(between, alive, i)
    while True:
        a = -1
        least = 0.0
        for i in range(n):
            if alive[i] and between[i, nearest[i]] < least:
                a, least = i, between[i, nearest[i]]
        if a < 0:
            return group + 1
        b = nearest[a]
        alive[b] = False
        for j in range(n):
            if group[j] == b:
                group[j] = a
            if alive[j] and j != a:
                between[a, j] += between[b, j]
                between[j, a] = between[a, j]
        for j in range(n):
            if alive[j]:
                if j == a or nearest[j] == a or nearest[j] == b:
                    nearest[j] = _nearest(between, alive, j)
                elif between[j, a] < between[j, nearest[j]]:
                    nearest[j] = a


@numba.njit(cache=True)
def _nearest(between, alive, i):
    best = i
    for j in range(len(alive)):
        if alive[j] and j != i and between[i, j] < between[i, best]:
            best = j
    return best


@numba.njit(cache=True)
def _components(unaries, matrix, group):
    """Number the connected parts of all clusters 1, 2, … in place; parts that cost more than nothing become suppressed.

    Parts share no edge, so taking a cluster apart changes no cost.

    Returns:
        What the cut costs; (n + 2,) size of every group, and (n, n + 2) `sums`: what a detection pays in a group beyond its
        unary, minus the unary in the group of the suppressed, so that differences within a row are what a move costs.
    """
    n = len(unaries)
    part, stack = np.zeros(n, np.int64), np.empty(n, np.int64)
    size, sums = np.zeros(n + 2, np.int64), np.zeros((n, n + 2))
    total, parts = 0.0, 0
    for seed in range(n):
        if group[seed] == _NULL or part[seed] > 0:
            continue
        parts += 1
        part[seed], stack[0] = parts, seed
        seen, done = 1, 0
        while done < seen:
            v = stack[done]
            done += 1
            for u in range(n):
                if part[u] == 0 and group[u] == group[seed] and matrix[v, u] != 0:
                    part[u], stack[seen] = parts, u
                    seen += 1
        price = 0.0
        for i in range(seen):
            price += unaries[stack[i]]
            for j in range(i):
                price += matrix[stack[i], stack[j]]
        if price > 0:
            for i in range(seen):
                group[stack[i]], part[stack[i]] = _NULL, 0
            parts -= 1
        else:
            total += price
    for v in range(n):
        group[v] = part[v]
        size[part[v]] += 1
        sums[v, _NULL] = -unaries[v]
        for u in range(n):
            if part[u] != _NULL:
                sums[v, part[u]] += matrix[v, u]
    return total, size, sums


@numba.njit(cache=True)
def _move_each(matrix, group, size, sums, eps):
    """Every detection goes to the group in which it pays least, be it the suppressed or a cluster of its own."""
    for v in range(len(group)):
        best = group[v]
        empty_seen = size[best] == 1 and best != _NULL
        for g in range(len(size)):
            if g != _NULL and size[g] == 0:
                if empty_seen:
                    continue
                empty_seen = True
            if sums[v, g] < sums[v, best] - eps:
                best = g
        if best != group[v]:
            _move(matrix, group, size, sums, v, best)


@numba.njit(cache=True)
def _move(matrix, group, size, sums, v, to):
    old = group[v]
    group[v] = to
    size[old] -= 1
    size[to] += 1
    for u in range(len(group)):
        if old != _NULL:
            sums[u, old] -= matrix[u, v]
        if to != _NULL:
            sums[u, to] += matrix[u, v]
    if old != _NULL and size[old] == 0:
        sums[:, old] = 0.0  # exactly: nothing is left of rounding


@numba.njit(cache=True)
def _exchange_pairs(matrix, group, size, sums, eps):
    """For every two groups, the suppressed and an empty one among them: exchange or join them if that gains."""
    members = np.empty(len(group), np.int64)
    for g in range(len(size)):
        if g != _NULL and size[g] == 0:
            continue
        empty_seen = False
        for h in range(g + 1, len(size)):
            if g != _NULL and size[g] == 0:
                break
            if size[h] == 0:
                if empty_seen:
                    continue
                empty_seen = True
            count = 0
            for v in range(len(group)):
                if group[v] == g or group[v] == h:
                    members[count] = v
                    count += 1
            moves = _exchange(matrix, group, sums, members[:count], g, h, eps)
            for v in moves:
                _move(matrix, group, size, sums, v, h if group[v] == g else g)


@numba.njit(cache=True)
def _exchange(matrix, group, sums, members, g, h, eps):
    """Which members of the groups g and h change sides.

    As Kernighan and Lin did (1970): the move that costs least is made, even if it costs something, then the next, each detection
    once; of this sequence the part up to the lowest cost counts. Beside it stands the join of the two groups.
    """
    count = len(members)
    change, side = np.empty(count), np.empty(count, np.bool_)
    sides = 1.0 if g == _NULL else 2.0
    joined = 0.0
    for i in range(count):
        v = members[i]
        if group[v] == g:
            joined += sums[v, h]
        side[i] = group[v] == h
        change[i] = sums[v, g] - sums[v, h] if side[i] else sums[v, h] - sums[v, g]
    order, moved = np.empty(count, np.int64), np.zeros(count, np.bool_)
    total, least, length = 0.0, 0.0, 0
    for step in range(count):
        best = -1
        for i in range(count):
            if not moved[i] and (best < 0 or change[i] < change[best]):
                best = i
        moved[best] = True
        order[step] = members[best]
        total += change[best]
        if total < least - eps:
            least, length = total, step + 1
        for i in range(count):
            weight = sides * matrix[members[i], members[best]]
            change[i] += weight if side[i] == side[best] else -weight
    if g != _NULL and joined < least - eps:
        return members[~side]
    return order[:length]
