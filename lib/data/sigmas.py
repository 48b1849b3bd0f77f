"""How precisely keypoints can be annotated: sigmas for OKS, from pictures which two people annotated independently.

COCO (https://cocodataset.org/#keypoints-eval) sets sigma² = E[d² / s²], where d is how far an annotation lies from the
true place and s² is the object's area; OKS then allows 2 sigma. The true place is not known, but two annotators miss it
independently, so the square of their distance is on average twice d²: sigma² = E[distance² / area] / 2. The spread along
one axis alone is sigma / √2.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
from scipy.optimize import linear_sum_assignment

from lib import files
from lib.data.coco import AREA_OF_BOX, Annotation, CocoFile, category_named, read_coco, skeleton_of
from lib.skeleton import UNKNOWN_SIGMA, Skeleton

SAME_PERSON = 0.3  # least similarity of two annotations of one person,
WIDE_SIGMA = 0.1  # measured with this sigma for every keypoint
FAR = 9.0  # times the typical squared distance: e⁻⁹ of honest pairs lie farther apart
FEW, TOO_FEW = 10, 3  # pairs: below, an estimate is rough, or none is made


@dataclass
class Agreement:
    """What two annotations of the same pictures have in common.

    Attributes:
        skeleton: of the first file, with the estimated sigmas.
        pairs: (K,) compared annotations behind each sigma; mirror twins share theirs.
        far: (K,) of them left out, more than three times farther apart than is usual.
        swapped: "picture, keypoint" where left and right were exchanged; left out, too.
        people: matched; alone: people in only one of the two; pictures: in both files; missing: in only one.
    """

    skeleton: Skeleton
    pairs: np.ndarray
    far: np.ndarray
    people: int
    alone: int
    pictures: int
    missing: int
    swapped: list[str] = field(default_factory=list)

    @property
    def errors(self) -> np.ndarray:
        """(K,) standard error of each sigma; infinite without enough pairs."""
        used = np.maximum(self.pairs - self.far, 1)
        return np.where(self.pairs < TOO_FEW, np.inf, np.array(self.skeleton.sigmas) / (2 * np.sqrt(used)))

    def __str__(self) -> str:
        head = f"{self.people} people on {self.pictures} pictures compared; "
        head += f"{self.alone} people without a partner, {self.missing} pictures in one file only"
        lines = [head, f"{'keypoint':20} {'sigma':>7} {'±':>6} {'pairs':>6} {'too far':>8}"]
        rows = zip(self.skeleton.keypoints, self.skeleton.sigmas, self.errors, self.pairs, self.far)
        lines += [f"{name:20} {sigma:7.4f} {error:6.4f} {n:6} {far:8}" for name, sigma, error, n, far in rows]
        if self.swapped:
            lines.append(f"left and right exchanged {len(self.swapped)} times: {'; '.join(self.swapped[:5])}"
                         + " …" * (len(self.swapped) > 5))  # fmt: skip
        return "\n".join(lines)


def sigmas(first: str | Path, second: str | Path, out: str | Path | None = None, category: str | None = None) -> None:
    """Estimate how precisely each keypoint can be annotated, from two annotations of the same pictures.

    Args:
        first: COCO keypoint file of one annotator.
        second: that of another, or of the same person some days later; annotated from empty, not corrected.
        out: file to write: a copy of the first with `sigmas` in its category. Neither original is changed.
        category: to use; None: the only one with keypoints.
    """
    agreement = compare(read_coco(first), read_coco(second), category)
    print(agreement)
    if out is None:
        return
    if Path(out).resolve() in (Path(first).resolve(), Path(second).resolve()):
        raise ValueError(f"{out}: the sigmas are written to a copy, choose another name than those of the originals")
    content = msgspec.json.decode(Path(first).read_bytes())
    for row in content["categories"]:
        if row["name"] == agreement.skeleton.name:
            row["sigmas"] = [round(sigma, 5) for sigma in agreement.skeleton.sigmas]
    files.write(out, msgspec.json.encode(content))
    print(f"written to {out}")


def compare(first: CocoFile, second: CocoFile, category: str | None = None) -> Agreement:
    """Match pictures by file name and people by similarity, and estimate the sigmas from those found in both.

    Mirror twins are estimated together, so that a mirrored picture scores the same. Pairs which lie more than three times
    farther apart than usual are slips, not spread: they are counted, not averaged; so are exchanged sides.

    Returns:
        The agreement; a keypoint with fewer than 3 pairs keeps the default of 0.05. That, and fewer than 10, is warned of.

    Raises:
        KeyError: no such category.
        ValueError: the keypoints have other names, nobody stands in both files, or one is a copy of the other.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sigmas which are not known yet
        skeleton = skeleton_of(first, category)
    other = category_named(second, category or skeleton.name)
    if set(other.keypoints or ()) != set(skeleton.keypoints):
        raise ValueError(f"{first.source} and {second.source} name different keypoints: "
                         f"{', '.join(sorted(set(other.keypoints or ()) ^ set(skeleton.keypoints)))}")  # fmt: skip
    mine = _by_picture(first, category_named(first, category).id, range(skeleton.num_keypoints))
    theirs = _by_picture(second, other.id, [other.keypoints.index(name) for name in skeleton.keypoints])
    matches, alone = [], 0
    for name in mine.keys() & theirs.keys():
        found = _matches(mine[name], theirs[name], skeleton)
        matches += [(name, mine[name][i], theirs[name][j]) for i, j in found]
        alone += len(mine[name]) + len(theirs[name]) - 2 * len(found)
    if not matches:
        raise ValueError(f"nobody stands in both {first.source} and {second.source}: pictures are matched by file_name, "
                         "people by where their keypoints lie")  # fmt: skip
    matches.sort(key=lambda match: match[0])
    values, pairs, far, swapped = _estimate(matches, skeleton)
    _warn_of_few(skeleton, values, pairs)
    values = np.where(np.isnan(values), UNKNOWN_SIGMA, values)
    measured = replace(skeleton, sigmas=values)
    return Agreement(measured, pairs, far, len(matches), alone, len(mine.keys() & theirs.keys()),
                     len(mine.keys() ^ theirs.keys()), swapped)  # fmt: skip


def _by_picture(coco: CocoFile, category_id: int, order: Sequence[int]) -> dict[str, list[tuple[np.ndarray, float]]]:
    """Keypoints (K, 3) and area of everybody with a keypoint, by file name."""
    names = {image.id: image.file_name for image in coco.images}
    people: dict[str, list] = {name: [] for name in names.values()}
    for a in coco.annotations:
        if a.category_id == category_id and not a.iscrowd and a.keypoints and any(a.keypoints[2::3]):
            keypoints = np.reshape(np.array(a.keypoints, float), (-1, 3))[list(order)]
            people[names[a.image_id]].append((keypoints, _area(a, keypoints)))
    return people


def _area(a: Annotation, keypoints: np.ndarray) -> float:
    if a.area:
        return float(a.area)
    points = keypoints[keypoints[:, 2] > 0, :2]
    sides = a.bbox[2:] if a.bbox and a.bbox[2] * a.bbox[3] else np.maximum(np.ptp(points, axis=0), 1)
    return float(AREA_OF_BOX * sides[0] * sides[1])


def _distances(a: np.ndarray, b: np.ndarray, area: float) -> np.ndarray:
    """(K,) squared distance over area; NaN where one of both is not labelled."""
    both = (a[:, 2] > 0) & (b[:, 2] > 0)
    return np.where(both, ((a[:, :2] - b[:, :2]) ** 2).sum(axis=1) / area, np.nan)


def _matches(mine: list, theirs: list, skeleton: Skeleton) -> list[tuple[int, int]]:
    """Pairs of indices which are the same person; exchanged sides do not keep two annotations apart."""
    similarity = np.zeros((len(mine), len(theirs)))
    for i, (a, area) in enumerate(mine):
        for j, (b, other) in enumerate(theirs):
            terms = [np.exp(-_distances(a, way, (area + other) / 2) / (8 * WIDE_SIGMA**2))
                     for way in (b, b[skeleton.flip_index])]  # fmt: skip
            similarity[i, j] = max((t[~np.isnan(t)].mean() for t in terms if not np.isnan(t).all()), default=0)
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return [(i, j) for i, j in zip(rows, columns) if similarity[i, j] >= SAME_PERSON]


def _estimate(matches: list, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Sigmas (K) or NaN, compared pairs (K,), those too far apart (K,), and where sides were exchanged."""
    flip = skeleton.flip_index
    rows = [(a, b, (area + other) / 2) for _, (a, area), (b, other) in matches]
    straight = np.array([_distances(a, b, area) for a, b, area in rows])
    crossed = np.array([_distances(a, b[flip], area) for a, b, area in rows])
    if np.mean(straight[~np.isnan(straight)] == 0) > 0.5:
        raise ValueError("more than half of the keypoints are equal to the last digit: one file is a copy of the other; "
                         "annotate the pictures a second time from empty")  # fmt: skip
    # squared distances follow an exponential law, whose median is ln 2 times its mean
    groups = [[k] if k == twin else [k, twin] for k, twin in enumerate(flip)]
    medians = np.array([np.median(d[np.isfinite(d)]) if np.isfinite(d := straight[:, g]).any() else 0 for g in groups])
    limits = np.where(medians > 0, FAR * medians / np.log(2), np.inf)
    straight_both, crossed_both = straight + straight[:, flip], crossed + crossed[:, flip]
    exchanged = (straight_both > 2 * limits) & (crossed_both <= 2 * limits)
    # whoever exchanged the knees exchanged the hips, too, where twins are too close together to tell
    exchanged |= exchanged.any(axis=1, keepdims=True) & (crossed_both < straight_both)
    swapped = [f"{matches[i][0]}, {skeleton.keypoints[k]}" for i, k in np.argwhere(exchanged) if k < flip[k]]
    straight[exchanged] = np.nan
    values, pairs, far = [], [], []
    for group, limit in zip(groups, limits):
        distances = straight[:, group][np.isfinite(straight[:, group])]
        near = distances[distances <= limit]
        pairs.append(len(distances))
        far.append(len(distances) - len(near))
        values.append(np.sqrt(near.mean() / 2) if len(near) >= TOO_FEW and near.any() else np.nan)
    return np.array(values), np.array(pairs), np.array(far), swapped


def _warn_of_few(skeleton: Skeleton, values: np.ndarray, pairs: np.ndarray) -> None:
    unknown = np.isnan(values)
    for which, what in ((unknown, f"no estimate, sigma stays at the default of {UNKNOWN_SIGMA}"),
                        (~unknown & (pairs < FEW), f"fewer than {FEW} pairs, sigma is rough")):  # fmt: skip
        if which.any():
            names = ", ".join(f"{skeleton.keypoints[k]} ({pairs[k]} pairs)" for k in np.flatnonzero(which))
            warnings.warn(f"{what}: {names}; annotate more pictures twice", stacklevel=3)
