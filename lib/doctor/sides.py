"""Left and right, and the order of the keypoints, told from geometry.

Four statistics, each quiet on correct annotations:

- A visible face has a handedness: its own left eye lies at the image's right, and turning the picture changes nothing.
  Only exchanged names mirror it. Faces from behind are not visible (v = 2), so they do not count.
- Mirror pairs that the skeleton holds together (eyes, shoulders, hips) cannot be twisted against each other by much.
- Other limbs run beside their twins; exchanging left and right of one end must not make both far shorter.
- Limbs join neighbours: a random order of the keypoints makes them longer than the right one, in any skeleton. And where
  the names are a body's, shoulders lie above hips, hips above knees, in most pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np

from lib.doctor.findings import Hit, told
from lib.doctor.reading import Figures, Labels

EYES, NOSE, SHOULDERS = ("left_eye", "right_eye"), "nose", ("left_shoulder", "right_shoulder")
CLEAR = 0.5  # sine of the angle between the line of the eyes and the axis of the face
FACE_PIXELS = 3  # smaller faces have no direction in whole pixels
ENOUGH = 5  # clear cases, before a word is said about a whole file
TWIST, FAR_TWIST = 0.15, 0.3  # widths against the distance of two pairs with a limb between them, and without
LONGER, BY = 1.5, 0.2  # a crossed pair of limbs is so many times longer, and by this share of the figure
IN_ALL = 1.05  # times longer in sum over all figures
MIXED = 0.05  # a pair that crosses in some figures and not in others is not exchanged in all
DOWNWARDS, UPSIDE_DOWN = ("eye", "shoulder", "hip", "knee", "ankle"), 0.03  # of the figure's extent
ORDERS, PEOPLE = 5000, 4000
FEW = 9  # keypoints; of fewer, limbs that are right often join the farther ones: a table's legs, a beetle's sting


class Relation(NamedTuple):
    """Two mirror pairs whose sides must agree; `crossed` (P,) where they clearly do not, `usual` where they clearly do."""

    first: tuple[int, int]
    second: tuple[int, int]
    crossed: np.ndarray
    usual: np.ndarray
    in_all: int  # over the whole file: 1 crossed, 0 not, −1 nobody knows


def sides(labels: Labels) -> Iterator[Hit]:
    """What is exchanged in the whole file: some mirror pairs, or everybody; else single faces and limbs."""
    for group in labels.figures:
        if labels.apart.any() or disorder(group):
            continue
        turn, found = handedness(group), relations(group)
        mirrored, fine = turn > CLEAR, turn < -CLEAR
        most = mirrored.sum() >= ENOUGH and mirrored.sum() > fine.sum()
        face = [k for k, name in enumerate(group.skeleton.keypoints) if name in (*EYES, NOSE)]
        crossed = any(relation.in_all == 1 for relation in found) and not any(map(_mixed, found))
        if pairs := exchanged_pairs(group, found, most) if crossed else []:
            yield _pairs_hit(group, pairs)
        elif most:
            said = f"{mirrored.sum()} of {(mirrored | fine).sum()} visible faces are mirrored"
            rows = group.rows[mirrored if _by_viewer(group, turn) else ~fine & group.labelled.any(axis=1)]
            yield Hit("sides_exchanged", rows, lambda i, said=said: said, lambda i, face=face: face)
        else:
            if mirrored.any():
                tell = lambda i: "its left eye lies where the right one belongs"
                yield Hit("face_mirrored", group.rows[mirrored], tell, lambda i, face=face: face)
            yield from _crossed_limbs(group, found)


def relations(group: Figures) -> list[Relation]:
    """Every two mirror pairs that are rigid, and every two that a limb and its twin join."""
    skeleton = group.skeleton
    links, flip = {frozenset(limb) for limb in skeleton.limbs}, skeleton.flip_index
    middles = np.flatnonzero(flip == np.arange(skeleton.num_keypoints)).tolist()
    points = np.where(group.labelled[..., None], group.keypoints[..., :2], np.nan)
    joined = lambda one, other: any({frozenset((one[0], end)), frozenset((one[1], end))} & links for end in other)
    rigid = {pair: frozenset(pair) in links or any({frozenset((end, m)) for end in pair} <= links for m in middles)
             for pair in skeleton.flip_pairs}  # fmt: skip
    found = []
    for one, other in combinations(skeleton.flip_pairs, 2):
        if rigid[one] and rigid[other]:
            found.append(_twist(points, one, other, TWIST if joined(one, other) else FAR_TWIST))
        elif joined(one, other):
            found.append(_crossing(points, group.extents, one, other))
    return found


def _twist(points: np.ndarray, one: tuple, other: tuple, least: float) -> Relation:
    axis = (points[:, one].sum(axis=1) - points[:, other].sum(axis=1)) / 2
    length = np.linalg.norm(axis, axis=1)
    across = [_cross(points[:, pair[0]] - points[:, pair[1]], axis) / np.maximum(length, 1e-9) for pair in (one, other)]
    with np.errstate(invalid="ignore"):
        clear = (np.abs(across) > least * length).all(axis=0) & (length > 2 * FACE_PIXELS)
        crossed, usual = clear & (across[0] * across[1] < 0), clear & (across[0] * across[1] > 0)
    known = crossed.sum() + usual.sum() >= max(ENOUGH, 0.2 * (~np.isnan(length)).sum())
    return Relation(one, other, crossed, usual, int(crossed.sum() > usual.sum()) if known else -1)


def _crossing(points: np.ndarray, extents: np.ndarray, one: tuple, other: tuple) -> Relation:
    length = lambda a, b: np.linalg.norm(points[:, a] - points[:, b], axis=-1)
    own = length(one[0], other[0]) + length(one[1], other[1])
    exchanged = length(one[0], other[1]) + length(one[1], other[0])
    size = np.hypot(*(extents[:, 2:] - extents[:, :2]).T)
    with np.errstate(invalid="ignore"):
        crossed = (own > LONGER * exchanged) & (own - exchanged > BY * size)
        usual = (exchanged > LONGER * own) & (exchanged - own > BY * size)
    known = ~np.isnan(own)
    ratio = own[known].sum() / max(exchanged[known].sum(), 1e-9)
    most = (own > exchanged)[known].mean() > 0.8 if ratio > IN_ALL else ratio < 1 / IN_ALL
    return Relation(one, other, crossed, usual, int(ratio > 1) if most and known.sum() >= ENOUGH else -1)


def exchanged_pairs(group: Figures, found: list[Relation], mirrored: bool) -> list[tuple[int, int]]:
    """The fewest mirror pairs to exchange so that no relation is crossed any more; the face's word counts more.

    Args:
        mirrored: whether most visible faces are mirrored, and the eyes thus among the exchanged.
    """
    names, exchanged, seen = group.skeleton.keypoints, [], {}
    for start in group.skeleton.flip_pairs:
        if start in seen:
            continue
        seen[start], reached = False, [start]
        for pair in reached:  # grows while it is walked
            for relation in found:
                if relation.in_all >= 0 and pair in relation[:2]:
                    other = relation.second if pair == relation.first else relation.first
                    if other not in seen:
                        seen[other] = seen[pair] ^ bool(relation.in_all)
                        reached.append(other)
        marked = [pair for pair in reached if seen[pair]]
        eyes = next((pair for pair in reached if names[pair[0]] in EYES), None)
        wrong_way = seen[eyes] != mirrored if eyes else 2 * len(marked) > len(reached)
        exchanged += [pair for pair in reached if not seen[pair]] if wrong_way else marked
    return exchanged


def order(labels: Labels) -> Iterator[Hit]:
    """Skeletons whose names or limbs do not fit the keypoints."""
    for group in labels.figures:
        if why := disorder(group):
            yield from told("order_doubtful", {group.category: why})


def disorder(group: Figures) -> str:
    """Why the keypoints seem to stand in another order than the names, or ""."""
    count, links = group.skeleton.num_keypoints, np.array(group.skeleton.limbs).reshape(-1, 2)
    people = np.flatnonzero(group.labelled.sum(axis=1) >= max(3, count // 3))[:PEOPLE]
    if len(people) < 2 * ENOUGH:
        return ""
    size = np.maximum(np.hypot(*(group.extents[people, 2:] - group.extents[people, :2]).T), 1)
    height, above = {}, ""
    for part in DOWNWARDS:
        at = [k for k, name in enumerate(group.skeleton.keypoints) if name.lower() in (f"left_{part}", f"right_{part}")]
        y = np.where(group.labelled[people][:, at], group.keypoints[people][:, at, 1], np.nan)
        if at and not np.isnan(y).all(axis=1).all():
            height[part] = y.mean(axis=1) / size
    for upper, lower in pairwise(height):
        drop = height[lower] - height[upper]
        if (~np.isnan(drop)).sum() >= ENOUGH and np.nanmedian(drop) < -UPSIDE_DOWN:
            above = f"{lower}s lie above {upper}s in most pictures"
    if above or count < FEW or not len(links):
        return above
    distances = _mean_distances(group, people, size)
    orders = np.argsort(np.random.default_rng(0).random((ORDERS, count)), axis=1)
    lengths = distances[orders[:, links[:, 0]], orders[:, links[:, 1]]].mean(axis=1)
    shorter = int((lengths < 0.97 * distances[links[:, 0], links[:, 1]].mean()).sum())
    return f"{shorter} of {ORDERS} random orders of its keypoints make its limbs shorter" if shorter >= 3 else ""


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


def _mixed(relation: Relation) -> bool:
    crossed, usual = relation.crossed.sum(), relation.usual.sum()
    return min(crossed, usual) > max(1, MIXED * (crossed + usual))


def _pairs_hit(group: Figures, pairs: list[tuple[int, int]]) -> Hit:
    names, ends = group.skeleton.keypoints, [end for pair in pairs for end in pair]
    said = ", ".join(f"{names[a]} with {names[b]}" for a, b in pairs)
    rows = np.flatnonzero(group.labelled[:, ends].any(axis=1))
    return Hit("pair_exchanged", group.rows[rows], lambda i: said, lambda i: ends)


def _crossed_limbs(group: Figures, found: list[Relation]) -> Iterator[Hit]:
    names = group.skeleton.keypoints
    first = {p: (*r.first, *r.second) for r in reversed(found) for p in np.flatnonzero(r.crossed).tolist()}
    if first:
        people, ends = list(first), list(first.values())
        tell = lambda i: "{} and {} against {} and {}".format(*(names[end] for end in ends[i]))
        yield Hit("limbs_crossed", group.rows[people], tell, lambda i: ends[i])


def _by_viewer(group: Figures, turn: np.ndarray) -> bool:
    """Whether "left" was taken as the image's left for everybody: then it is right for people seen from behind."""
    names = group.skeleton.keypoints
    if not set(SHOULDERS) <= set(names):
        return False
    left, right = (names.index(name) for name in SHOULDERS)
    others = group.labelled[:, [left, right]].all(axis=1) & (turn == 0)
    at_left = group.keypoints[others, left, 0] < group.keypoints[others, right, 0]
    return others.sum() >= ENOUGH and at_left.mean() > 0.8


def _mean_distances(group: Figures, people: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(K, K) mean distance of all pairs of keypoints, as a share of the figure's extent."""
    points, labelled = group.keypoints[people, :, :2], group.labelled[people]
    distances = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1) / size[:, None, None]
    both = labelled[:, :, None] & labelled[:, None]
    return np.where(both, distances, 0).sum(axis=0) / np.maximum(both.sum(axis=0), 1)


def _sine(across: np.ndarray, axis: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(across, axis=1), np.linalg.norm(axis, axis=1)
    clear = (lengths[0] >= FACE_PIXELS) & (lengths[1] >= FACE_PIXELS)
    return np.where(clear, _cross(across, axis) / np.maximum(lengths[0] * lengths[1], 1e-9), 0)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
