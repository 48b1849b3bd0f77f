"""Where the keypoints of a person lie from each other: the units in which pairwise maps are predicted (`PartsCodec.pair_stats`).

Measured once from the training labels, as the network sees them. The published files (`pairwise_stats.mat` of
DeeperCut's TensorFlow version, and those of its Caffe version) are read and written, too.
"""

from __future__ import annotations

import warnings
from itertools import permutations
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from lib.data.dataset import KeypointSamples
from lib.data.mpii import read_mat, write_mat
from lib.skeleton import Skeleton

NEVER_SEEN = (0.0, 0.0, 1.0, 1.0)
"""Row of two keypoints that nobody has both of: what maps say of them means nothing, and the codec does not ask."""
LEAST = 1.0
"""No standard deviation is smaller, pixels: of a pair seen once it would be 0, and nothing can be measured in that."""


def pair_statistics(keypoints: np.ndarray, skeleton: Skeleton, flip: bool = False) -> np.ndarray:
    """Mean and spread of the way from each keypoint of a person to each other one.

    Args:
        keypoints: (P, K, 3) of people, x, y in pixels and visibility; what is not labelled does not count.
        skeleton: names the keypoints and their mirror twins.
        flip: also count everybody's mirror image.

    Returns:
        (K(K − 1), 4) float64 mean x, mean y, standard deviation x, y (of the population, at least `LEAST`) in pixels, pairs in
        the order of `itertools.permutations`. A pair that nobody has is `NEVER_SEEN`; one warning names them all.
    """
    people = np.asarray(keypoints, np.float64)
    if flip:
        people = np.concatenate([people, people[:, skeleton.flip_index] * (-1, 1, 1)])
    rows, missing = [], []
    for a, b in permutations(range(skeleton.num_keypoints), 2):
        both = (people[:, a, 2] > 0) & (people[:, b, 2] > 0)
        ways = people[both, b, :2] - people[both, a, :2]
        if not len(ways):
            missing += [(a, b)] * (a < b)
            rows.append(NEVER_SEEN)
        else:
            rows.append((*ways.mean(axis=0), *np.maximum(ways.std(axis=0), LEAST)))
    _warn(missing, skeleton, "nobody in the labels has")
    return np.array(rows, np.float64).reshape(-1, 4)


def of_training_set(train_set: KeypointSamples, flip: bool | None = None) -> np.ndarray:
    """`pair_statistics` of a training set's people, in pixels of the network's input without random geometry.

    Args:
        train_set: only its labels are read, not its pictures.
        flip: also count everybody's mirror image; None: where training mirrors.

    Raises:
        ValueError: nobody has two labelled keypoints.
    """
    still = train_set.still()
    if flip is None:
        flip = train_set.augment is not None and train_set.augment.flip > 0
    people = [still.keypoints(index) for index in tqdm(range(len(still)), "pairs of keypoints", unit="samples", leave=False)]
    keypoints = np.concatenate(people)
    if train_set.skeleton.num_keypoints > 1 and not ((keypoints[..., 2] > 0).sum(axis=1) > 1).any():
        raise ValueError(f"none of the {len(keypoints)} people in {len(still)} training samples has two labelled keypoints: there "
                         "are no pairs to measure; switch the pairwise maps off (pairwise: false)")  # fmt: skip
    return pair_statistics(keypoints, train_set.skeleton, flip)


def read_pair_stats(path: str | Path, skeleton: Skeleton, scale: float = 1.0) -> np.ndarray:
    """Read a published file of pair statistics.

    Files of the TensorFlow version count keypoints from 0, those of the Caffe version from 1; which it is can be seen from
    the graph. Where only one direction of a pair is there, the other has the opposite mean.

    Args:
        path: `.mat` with graph (M, 2), means (M, 2) and std_devs (M, 2).
        skeleton: whose keypoints the graph numbers.
        scale: pixels of the network's input per pixel of the file (the original's `global_scale`).

    Returns:
        Rows as those of `pair_statistics`; one warning names the pairs that the file does not have.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, or its graph does not fit the skeleton.
    """
    content, k = read_mat(path), skeleton.num_keypoints
    try:
        graph, means, deviations = (np.asarray(content[name], float).reshape(-1, 2) for name in ("graph", "means", "std_devs"))
        numbers = np.concatenate([graph, means, deviations], axis=1)
    except (KeyError, ValueError, TypeError):
        found = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise ValueError(f"{path}: no statistics of pairs: graph, means and std_devs of two columns each are needed, "
                         f"it has {found}") from None  # fmt: skip
    first = 1 if graph.size and graph.min() == 1 and graph.max() == k else 0
    pairs = [(int(a) - first, int(b) - first) for a, b in graph]
    if not np.isfinite(numbers).all() or any(a == b or not (0 <= a < k and 0 <= b < k) for a, b in pairs):
        raise ValueError(f"{path}: the graph is not of pairs of the {k} keypoints of skeleton {skeleton.name!r}, or a number is "
                         "missing: it was made for another skeleton")  # fmt: skip
    measured = {pair: row for pair, row in zip(pairs, numbers[:, 2:] * scale)}
    rows, missing = [], []
    for a, b in permutations(range(k), 2):
        row = measured.get((a, b))
        if row is None and (b, a) in measured:
            row = measured[b, a] * (-1, -1, 1, 1)
        if row is None:
            missing += [(a, b)] * (a < b)
            row = NEVER_SEEN
        rows.append(row)
    _warn(missing, skeleton, f"{path} lacks")
    return np.array(rows, np.float64).reshape(-1, 4)


def write_pair_stats(path: str | Path, rows: np.ndarray, skeleton: Skeleton) -> Path:
    """Write statistics as DeeperCut's TensorFlow version reads them.

    Args:
        path: `.mat`.
        rows: (K(K − 1), 4) of `pair_statistics`.
        skeleton: with K keypoints.
    """
    graph = np.array(list(permutations(range(skeleton.num_keypoints), 2)), np.int64).reshape(-1, 2)
    rows = np.asarray(rows, np.float64).reshape(len(graph), 4)
    return write_mat(path, {"graph": graph, "means": rows[:, :2], "std_devs": rows[:, 2:]})


def _warn(missing: list[tuple[int, int]], skeleton: Skeleton, who: str) -> None:
    if missing:
        names = ", ".join(f"{skeleton.keypoints[a]}–{skeleton.keypoints[b]}" for a, b in missing)
        warnings.warn(f"{who} the pairs {names}: they have mean 0 and spread 1, and say nothing", stacklevel=3)
