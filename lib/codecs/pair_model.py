"""Regressions that say how probably two detections are of one person, learnt from a network's own maps (DeeperCut, Insafutdinov
et al. 2016, arXiv:1605.03170), and those of the published models.

Of every picture pairs of cells are drawn: both at keypoints of one person, or one of them or both somewhere else. The features are
those that decoding computes, `lib.codecs.parts_pairs.features`, so that a regression sees in training what it will see then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from tqdm.auto import tqdm

from lib.codecs import parts_detect, parts_pairs
from lib.data.mpii import read_mat
from lib.skeleton import Skeleton

if TYPE_CHECKING:
    from lib.codecs.parts import PartsCodec

EVERYWHERE = 1e-3  # a cell is drawn in proportion to its heatmap and this, so that one without any can be drawn, too


class Samples(NamedTuple):
    """Pairs of cells with their features.

    Attributes:
        pairs: (m,) int16 number of the pair of keypoints a < b in the order of `itertools.combinations`.
        features: (m, 8) float32, see `lib.codecs.parts_pairs.features`.
        same: (m,) bool, whether both are of one person.
        ruled: (m,) float32 probability of that by the codec's rule for pairs without a regression.
    """

    pairs: np.ndarray
    features: np.ndarray
    same: np.ndarray
    ruled: np.ndarray

    @classmethod
    def joined(cls, samples: Iterable[Samples]) -> Samples:
        """Those of several pictures."""
        parts = [*samples] or [draw_none()]
        return cls(*(np.concatenate(values) for values in zip(*parts)))


class Fit(NamedTuple):
    """Regressions of all pairs.

    Attributes:
        rows: `pair_model` of a codec; None for pairs with too few samples.
        positives: (pairs,) int64 samples of one person that each was learnt from, and as many of different ones.
        right: (pairs,) share of these samples that it tells correctly; NaN where there is none.
        ruled: (pairs,) the same for the rule without regression.
    """

    rows: tuple[tuple[float, ...] | None, ...]
    positives: np.ndarray
    right: np.ndarray
    ruled: np.ndarray


def draw_none() -> Samples:
    """No samples."""
    n = parts_pairs.NUM_FEATURES
    return Samples(np.zeros(0, np.int16), np.zeros((0, n), np.float32), np.zeros(0, bool), np.zeros(0, np.float32))


def draw_samples(maps: Mapping[str, np.ndarray], keypoints: np.ndarray, codec: PartsCodec, rng: np.random.Generator, *,
                 radius: float, mask: np.ndarray | None = None, most: int = 20) -> Samples:  # fmt: skip
    """Pairs of cells of one picture.

    For every person and pair of labelled keypoints as many pairs of cells right at both are drawn as others, in which the first
    or the second cell or both are wrong: more than twice the radius away from that person's, and their offsets do not lead there.
    Cells are drawn in proportion to their heatmap, as detections would be found. Two wrong cells that are both right for somebody
    else are left out.

    Args:
        maps: "heatmaps" (K, h, w), "offsets" (2K, h, w) and "pairwise" (2K(K−1), h, w).
        keypoints: (P, K, 3) x, y in pixels of the network's input and visibility.
        codec: of the maps, with its statistics.
        rng: of all that is random.
        radius: pixels from a keypoint within which a cell is right.
        mask: (h, w), 0 where people are not labelled: nothing is drawn there.
        most: pairs of right cells of each pair of keypoints.
    """
    k, (height, width) = codec.skeleton.num_keypoints, maps["heatmaps"].shape[1:]
    apart = _distances(keypoints, codec, (height, width))
    near = apart <= radius
    known, people = near.any(axis=2), len(keypoints)
    pairs = np.array([*combinations(range(k), 2)], np.int64).reshape(-1, 2)
    person, pair = np.nonzero(known[:, pairs].all(axis=2))
    if not len(person):
        return draw_none()
    heat = np.nan_to_num(maps["heatmaps"].reshape(k, -1), nan=0.0, posinf=0.0, neginf=0.0).clip(0) + EVERYWHERE
    if mask is not None:
        heat = heat * (mask.reshape(-1) > 0)
    draws = max(1, most // people)
    cells = np.stack(
        [_draw(heat * near, draws, rng), _draw(heat * (apart > 2 * radius), draws, rng)]
    )  # right and wrong ones
    parts = np.broadcast_to(np.arange(k)[:, None], cells.shape)
    found = _at(cells, parts, maps, codec)
    usable = cells >= 0
    # an offset may still lead from far away to the right place
    away = found.places.reshape(*cells.shape, 2) - keypoints[..., None, :2]
    usable[1] &= np.hypot(away[1, ..., 0], away[1, ..., 1]) > radius
    # number of the right cell of each person, keypoint and draw; that of the wrong one is so many further on
    number = np.arange(cells[0].size).reshape(cells[0].shape)
    first, second = number[person, pairs[pair, 0]], number[person, pairs[pair, 1]]  # (rows, draws)
    kinds = rng.integers(3, size=first.shape)
    edges = np.stack([
        np.concatenate([first, first + (kinds != 1) * number.size]),
        np.concatenate([second, second + (kinds != 0) * number.size]),
    ], axis=2).reshape(-1, 2)  # fmt: skip
    same = np.arange(len(edges)) < len(edges) // 2
    valid = usable.reshape(-1)[edges].all(axis=1)
    ends = [near[:, parts.reshape(-1)[end], cells.reshape(-1)[end]] for end in edges.T]
    valid &= same | ~(ends[0] & ends[1]).any(axis=0)
    rows = np.repeat(np.tile(pair, 2), draws)
    return _measured(maps, codec, found, edges[valid], rows[valid], same[valid])


def fit_pair_model(samples: Samples, skeleton: Skeleton, rng: np.random.Generator, *, penalty_c: float = 1.0,
                   least: int = 50) -> Fit:  # fmt: skip
    """A regression for every pair of keypoints, from as many samples of one person as of different ones.

    Args:
        samples: of many pictures.
        skeleton: its keypoints.
        rng: chooses which of too many are left out.
        penalty_c: C of the logistic regression, the larger the less its weights are held back; also the weight of the constant,
            as liblinear does it. DeeperCut has 1e-3, of some 100,000 samples; with few samples that is so little that nothing is
            learnt, with enough of them the gentler probabilities may find a few more people.
        least: a pair with fewer samples of either kind gets no regression.
    """
    num_pairs = skeleton.num_keypoints * (skeleton.num_keypoints - 1) // 2
    order = np.argsort(samples.pairs, kind="stable")
    bounds = np.searchsorted(samples.pairs[order], np.arange(num_pairs + 1))
    rows, positives, right, ruled = [], np.zeros(num_pairs, np.int64), *np.full((2, num_pairs), np.nan)
    for p in tqdm(range(num_pairs), desc="regressions", unit="pair", delay=1):
        mine = order[bounds[p] : bounds[p + 1]]
        mine = mine[np.isfinite(samples.features[mine]).all(axis=1)]
        kinds = mine[samples.same[mine]], mine[~samples.same[mine]]
        count = min(map(len, kinds))
        if count < least:
            rows.append(None)
            continue
        used = np.concatenate([rng.permutation(kind)[:count] for kind in kinds])
        row, probabilities = fit_row(samples.features[used], samples.same[used], penalty_c)
        rows.append(tuple(row.tolist()))
        positives[p] = count
        right[p] = ((probabilities > 0.5) == samples.same[used]).mean()
        ruled[p] = ((samples.ruled[used] > 0.5) == samples.same[used]).mean()
    return Fit(tuple(rows), positives, right, ruled)


def fit_row(features: np.ndarray, same: np.ndarray, penalty_c: float) -> tuple[np.ndarray, np.ndarray]:
    """Of one pair: the (25,) row of its regression, and the probabilities (m,) it gives its samples."""
    features = features.astype(np.float64)
    low, high = features.min(axis=0), features.max(axis=0)
    scaled = (features - low) / np.where(high > low, high - low, 1)
    scaled = np.column_stack([scaled, np.ones(len(scaled))])
    model = LogisticRegression(C=penalty_c, fit_intercept=False, max_iter=1000).fit(scaled, same)
    return np.concatenate([low, high, model.coef_[0]]), model.predict_proba(scaled)[:, 1]


def read_published(folder: str | Path, skeleton: Skeleton) -> tuple[tuple[float, ...] | None, ...]:
    """`pair_model` from the files `spatial_model_cidx_A_B.mat` of a published model, A < B keypoints counted from 1.

    They must be of the TensorFlow program: those of the Caffe one look the same, but turn the way back round before its angle is
    taken. Pairs without a file have None.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file is something else, or of a keypoint this skeleton does not have.
    """
    folder, k = Path(folder), skeleton.num_keypoints
    files = {path.stem: path for path in sorted(folder.glob("spatial_model_cidx_*_*.mat"))}
    if not files:
        raise FileNotFoundError(f"{folder}: there are no spatial_model_cidx_A_B.mat")
    names = [f"spatial_model_cidx_{a + 1}_{b + 1}" for a, b in combinations(range(k), 2)]
    foreign = sorted(files.keys() - set(names))
    if foreign:
        raise ValueError(f"{files[foreign[0]]} is of no pair A < B of the {k} keypoints of skeleton {skeleton.name!r}")
    return tuple(_published_row(files[name]) if name in files else None for name in names)


def _published_row(path: Path) -> tuple[float, ...]:
    n = parts_pairs.NUM_FEATURES
    content = read_mat(path, struct_as_record=False, squeeze_me=True)
    try:
        options, weights = content["spatial_model"].training_opts, content["spatial_model"].log_reg.w
        row = np.concatenate([np.ravel(v).astype(np.float64) for v in (options.X_min, options.X_max, weights)])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: no spatial_model with training_opts.X_min, X_max and log_reg.w ({error})") from None
    if len(row) != 3 * n + 1 or not np.isfinite(row).all():
        raise ValueError(f"{path}: X_min, X_max and w must be {n}, {n} and {n + 1} finite numbers, "
                         f"got {np.size(options.X_min)}, {np.size(options.X_max)} and {np.size(weights)}")  # fmt: skip
    return tuple(row.tolist())


def _distances(keypoints: np.ndarray, codec: PartsCodec, size: tuple[int, int]) -> np.ndarray:
    """(P, K, h·w) pixels from the centre of every cell; infinite for keypoints that are not labelled."""
    y, x = (np.arange(length) * codec.step + codec.start for length in size)
    apart = np.hypot(x - keypoints[..., 0, None, None], y[:, None] - keypoints[..., 1, None, None])
    return np.where(keypoints[..., 2, None, None] > 0, apart, np.inf).reshape(*keypoints.shape[:2], size[0] * size[1])


def _draw(weights: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Cells (…, draws) in proportion to weights (…, cells), −1 where all are 0."""
    rows = weights.reshape(-1, weights.shape[-1])
    sums = rows.cumsum(axis=1, dtype=np.float64)
    ends = sums[:, -1].cumsum()
    starts = ends - sums[:, -1]
    wanted = starts[:, None] + rng.random((len(rows), draws)) * sums[:, -1:]
    cells = np.searchsorted((starts[:, None] + sums).reshape(-1), wanted, side="right")
    cells = cells.clip(max=rows.size - 1) - np.arange(len(rows))[:, None] * rows.shape[1]
    cells = cells.clip(0, rows.shape[1] - 1)
    empty = np.take_along_axis(rows, cells, axis=1) <= 0
    return np.where(empty, -1, cells).reshape(*weights.shape[:-1], draws)


def _at(
    cells: np.ndarray, parts: np.ndarray, maps: Mapping[str, np.ndarray], codec: PartsCodec
) -> parts_detect.Detections:
    """Keypoints at cells, both of any shape, as if they had been detected there; −1 counts as the first cell."""
    y, x = np.divmod(np.maximum(cells.reshape(-1), 0), maps["heatmaps"].shape[2])
    found = np.stack([parts.reshape(-1), y, x], axis=1)
    return parts_detect.located(
        found, maps["heatmaps"], maps.get("offsets"), codec.step, codec.start, codec.offset_stdev
    )


def _measured(maps: Mapping[str, np.ndarray], codec: PartsCodec, found: parts_detect.Detections, edges: np.ndarray,
              rows: np.ndarray, same: np.ndarray) -> Samples:  # fmt: skip
    """Samples of edges between detections; rows (m,) say of which pair of keypoints each is."""
    pairwise, tables = np.ascontiguousarray(maps["pairwise"], np.float32), codec.pair_tables
    places = found.parts, found.cells, found.centres, found.places, pairwise, tables.stats
    features = parts_pairs.features(edges, *places)
    none = np.zeros_like(tables.fitted), np.zeros_like(tables.weights)
    ruled = parts_pairs.probabilities(edges, *places, (*codec.pair_rule, codec.offset_stdev), codec.same_part, *none)
    return Samples(rows.astype(np.int16), features.astype(np.float32), same, ruled.astype(np.float32))
