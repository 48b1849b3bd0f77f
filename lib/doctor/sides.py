"""Left and right, and the order of the keypoints, told from geometry.

Three statistics, each quiet on correct annotations:

- A visible face has a handedness: its own left eye lies at the image's right, and turning the picture changes nothing.
  Only exchanged names mirror it. Faces from behind are not visible (v = 2), so they do not count.
- Limbs of both sides run beside each other. Where left and right of one end are exchanged they cross, and exchanging
  them back makes both far shorter.
- Limbs join neighbours: a random order of the keypoints makes them longer than the right one, in any skeleton.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lib.doctor.findings import Hit
from lib.doctor.reading import Figures, Labels

EYES, NOSE, SHOULDERS = ("left_eye", "right_eye"), "nose", ("left_shoulder", "right_shoulder")
CLEAR = 0.5  # sine of the angle between the line of the eyes and the axis of the face
FACE_PIXELS = 3  # smaller faces have no direction in whole pixels
ENOUGH = 10  # figures, before a word is said about a whole file
LONGER, BY = 1.5, 0.2  # a crossed pair of limbs is so many times longer, and by this share of the figure
LONGER_IN_ALL = 1.25
ORDERS, SHORTER_ORDERS, PEOPLE = 5000, 3, 4000


def faces(labels: Labels) -> Iterator[Hit]:
    """People whose visible face is mirrored; the whole file, where most are."""
    for group in labels.figures:
        turn = handedness(group)
        mirrored, fine = turn > CLEAR, turn < -CLEAR
        marks = [k for k, name in enumerate(group.skeleton.keypoints) if name in (*EYES, NOSE)]
        if mirrored.sum() > max(fine.sum(), ENOUGH // 2):
            told = f"{mirrored.sum()} of {(mirrored | fine).sum()} visible faces are mirrored"
            rows = group.rows[mirrored if _by_viewer(group, turn) else ~fine & group.labelled.any(axis=1)]
            yield Hit("sides_exchanged", rows, lambda i, told=told: told, lambda i, marks=marks: marks)
        elif mirrored.any():
            tell = lambda i: "its left eye lies where the right one belongs"
            yield Hit("face_mirrored", group.rows[mirrored], tell, lambda i, marks=marks: marks)


def limbs(labels: Labels) -> Iterator[Hit]:
    """Mirror pairs exchanged in the whole file, else people with crossed limbs."""
    for group in labels.figures:
        pairs = exchanged_pairs(group)
        if pairs:
            names = ", ".join(f"{group.skeleton.keypoints[a]} with {group.skeleton.keypoints[b]}" for a, b in pairs)
            yield Hit("pair_exchanged", [group.category], lambda i, names=names: names)
            continue
        twins, straight, crossed = _twin_limbs(group)
        size = np.hypot(*(group.extents[:, 2:] - group.extents[:, :2]).T)
        with np.errstate(invalid="ignore"):
            wrong = (straight > LONGER * crossed) & (straight - crossed > BY * size)
        people = np.flatnonzero(wrong.any(axis=0))
        if len(people):
            ends = [twins[int(wrong[:, p].argmax())] for p in people]
            names = group.skeleton.keypoints
            yield Hit("limbs_crossed", group.rows[people],
                      lambda i, e=ends, n=names: f"{n[e[i][0]]}–{n[e[i][1]]} and its twin cross",
                      lambda i, e=ends, f=group.skeleton.flip_index: [*e[i], *f[list(e[i])].tolist()])  # fmt: skip


def order(labels: Labels) -> Iterator[Hit]:
    """Skeletons whose limbs a random order of the keypoints would shorten."""
    for group in labels.figures:
        count, links = group.skeleton.num_keypoints, np.array(group.skeleton.limbs).reshape(-1, 2)
        people = np.flatnonzero(group.labelled.sum(axis=1) >= max(3, count // 3))[:PEOPLE]
        if len(people) < ENOUGH or count < 5 or not len(links):
            continue
        distances = _mean_distances(group, people)
        orders = np.argsort(np.random.default_rng(0).random((ORDERS, count)), axis=1)
        lengths = distances[orders[:, links[:, 0]], orders[:, links[:, 1]]].mean(axis=1)
        own = distances[links[:, 0], links[:, 1]].mean()
        shorter = int((lengths < 0.97 * own).sum())
        if shorter >= SHORTER_ORDERS:
            told = f"{labels.categories[group.category].get('name')!r}: {shorter} of {ORDERS} random orders are shorter"
            yield Hit("order_doubtful", [group.category], lambda i, told=told: told)


def handedness(group: Figures) -> np.ndarray:
    """(P,) sine between the line of the eyes and the axis of the face: about −1 as it should be, 1 mirrored, 0 unknown.

    The axis goes from the nose to the eyes; where both shoulders are labelled, the axis from them must agree.
    """
    names = group.skeleton.keypoints
    if not {*EYES, NOSE} <= set(names):
        return np.zeros(len(group.rows))
    at = lambda name: group.keypoints[:, names.index(name), :2]
    visible = (group.keypoints[:, [names.index(n) for n in (*EYES, NOSE)], 2] == 2).all(axis=1)
    across, middle = at(EYES[0]) - at(EYES[1]), (at(EYES[0]) + at(EYES[1])) / 2
    turn = _sine(across, middle - at(NOSE)) * visible
    if set(SHOULDERS) <= set(names):
        both = group.labelled[:, [names.index(n) for n in SHOULDERS]].all(axis=1)
        body = _sine(across, middle - (at(SHOULDERS[0]) + at(SHOULDERS[1])) / 2)
        turn = np.where(both, np.where(turn * body > 0, np.minimum(abs(turn), abs(body)) * np.sign(turn), 0), turn)
    return np.nan_to_num(turn)


def exchanged_pairs(group: Figures) -> list[tuple[int, int]]:
    """Mirror pairs to be exchanged in the whole file, so that no limb crosses its twin any more; the fewest."""
    twins, straight, crossed = _twin_limbs(group)
    pair_of = {end: pair for pair in group.skeleton.flip_pairs for end in pair}
    neighbours = {pair: [] for pair in group.skeleton.flip_pairs}
    for (a, b), long, short in zip(twins, straight, crossed):
        there = ~np.isnan(long)
        long, short = long[there], short[there]
        if len(long) < ENOUGH:
            continue
        wrong = long.sum() > LONGER_IN_ALL * short.sum() and (long > short).mean() > 0.6
        neighbours[pair_of[a]].append((pair_of[b], wrong))
        neighbours[pair_of[b]].append((pair_of[a], wrong))
    exchanged, seen = [], {}
    for start in neighbours:
        if start in seen:
            continue
        seen[start], reached = False, [start]
        for pair in reached:  # grows while it is walked
            for other, wrong in neighbours[pair]:
                if other not in seen:
                    seen[other] = seen[pair] ^ wrong
                    reached.append(other)
        marked = [pair for pair in reached if seen[pair]]
        exchanged += marked if 2 * len(marked) <= len(reached) else [pair for pair in reached if not seen[pair]]
    return exchanged


def _by_viewer(group: Figures, turn: np.ndarray) -> bool:
    """Whether "left" was taken as the image's left for everybody: then it is right for people seen from behind."""
    names = group.skeleton.keypoints
    if not set(SHOULDERS) <= set(names):
        return False
    left, right = (names.index(name) for name in SHOULDERS)
    others = group.labelled[:, [left, right]].all(axis=1) & (turn == 0)
    return others.sum() >= 5 and (group.keypoints[others, left, 0] < group.keypoints[others, right, 0]).mean() > 0.8


def _twin_limbs(group: Figures) -> tuple[list[tuple[int, int]], np.ndarray, np.ndarray]:
    """Limbs with a twin (T), and their summed lengths as annotated and with one end exchanged, each (T, P), or NaN."""
    flip, twins = group.skeleton.flip_index, []
    for a, b in group.skeleton.limbs:
        twin = {int(flip[a]), int(flip[b])}
        if flip[a] != a and flip[b] != b and not twin & {a, b} and not any(twin == set(other) for other in twins):
            twins.append((a, b))
    points = np.where(group.labelled[..., None], group.keypoints[..., :2], np.nan)
    length = lambda a, b: np.linalg.norm(points[:, a] - points[:, b], axis=-1)
    straight = [length(a, b) + length(flip[a], flip[b]) for a, b in twins]
    crossed = [length(a, flip[b]) + length(flip[a], b) for a, b in twins]
    shape = (len(twins), len(group.rows))
    return twins, np.reshape(straight, shape), np.reshape(crossed, shape)


def _mean_distances(group: Figures, people: np.ndarray) -> np.ndarray:
    """(K, K) mean distance of all pairs of keypoints, as a share of the figure's extent."""
    points, labelled = group.keypoints[people, :, :2], group.labelled[people]
    size = np.hypot(*(group.extents[people, 2:] - group.extents[people, :2]).T)
    distances = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1) / np.maximum(size, 1)[:, None, None]
    both = labelled[:, :, None] & labelled[:, None]
    return np.where(both, distances, 0).sum(axis=0) / np.maximum(both.sum(axis=0), 1)


def _sine(across: np.ndarray, axis: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(across, axis=1), np.linalg.norm(axis, axis=1)
    clear = (lengths[0] >= FACE_PIXELS) & (lengths[1] >= FACE_PIXELS)
    cross = across[:, 0] * axis[:, 1] - across[:, 1] * axis[:, 0]
    return np.where(clear, cross / np.maximum(lengths[0] * lengths[1], 1e-9), 0)
