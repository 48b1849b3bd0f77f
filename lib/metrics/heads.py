"""What both measures of MPII read: annotated people with a head box, rows of joints, and distances in heads.

Sources: Andriluka et al., 2D Human Pose Estimation, CVPR 2014, and the benchmark's evaluation toolkit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from lib.data.coco import Annotation, category_named, read_coco, skeleton_of
from lib.data.mpii import head_size
from lib.metrics.by_name import ByName
from lib.skeleton import Skeleton

ROWS = {"Head": ("upper_neck", "head_top")} | {
    part.capitalize(): (f"right_{part}", f"left_{part}")
    for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
}
"""MPII's table. Its other two joints, pelvis and thorax, are not scored."""


class Extras(msgspec.Struct):
    """What MPII knows of a person and COCO does not (see `lib.data.mpii.to_coco`); None where the file does not say it."""

    id: int
    head_box: tuple[float, float, float, float] | None = None
    group: int | str | None = None
    rect: int | None = None
    single_person: bool | None = None


class _File(msgspec.Struct):
    annotations: list[Extras]


@dataclass(frozen=True)
class Labelled:
    """An annotated person.

    Attributes:
        keypoints: (K, 3) float64 [x, y, v] of the scored keypoints, in pixels of the picture.
        head: length of the head in these pixels, 0.6 × the diagonal of its box; NaN where none is annotated.
        extras: what else is known.
    """

    keypoints: np.ndarray
    head: float
    extras: Extras


class HeadScorer(ByName):
    """Reads a COCO keypoint file whose people have a `head_box` [x, y, width, height] for scoring in heads.

    Attributes:
        rows: the table, {row: names}. What MPII's own rows name, and where they name nothing a row for every keypoint.
        unscored: keypoints of the file that no row has.
        image_ids: what is scored.
        people: {image id: its labelled people}, also those without a head box.
        headless: how many have none, and are not scored therefore.
        grouped: whether the file has people with the key `group`.

    Args:
        annotations: the file.
        predicted: skeleton of the predictions; keypoints are matched by name.
        category: name of the category; may be left out where the file has one with keypoints.
        image_ids: score only these images (default: every image of the file).

    Raises:
        ValueError: no image or nobody to score, nobody has a head box, no keypoint in common, or a key is malformed.
    """

    def __init__(self, annotations: str | Path, predicted: Skeleton, category: str | None = None,
                 image_ids: Iterable[int] | None = None):  # fmt: skip
        coco = read_coco(annotations, category)
        kind, names = category_named(coco, category).id, skeleton_of(coco, category).keypoints
        self.rows = rows_of(names)
        scored = [k for k, name in enumerate(names) if any(name in row for row in self.rows.values())]
        super().__init__(names, [names[k] for k in scored], predicted)
        self.unscored = [name for name in names if name not in self.keypoints]
        self.image_ids = sorted({image.id for image in coco.images} if image_ids is None else set(image_ids))
        if not self.image_ids:
            raise ValueError("there is no image to score")
        self.people: dict[int, list[Labelled]] = {image_id: [] for image_id in self.image_ids}
        extras = read_extras(annotations)
        self.grouped = any(person.group is not None for person in extras.values())
        for a in coco.annotations:
            if a.category_id == kind and a.image_id in self.people and not a.iscrowd:
                person = _labelled(a, extras[a.id], scored)
                self.people[a.image_id] += [person] * bool((person.keypoints[:, 2] > 0).any())
        everybody = [person for people in self.people.values() for person in people]
        self.headless = sum(bool(np.isnan(person.head)) for person in everybody)
        if self.headless == len(everybody):
            raise ValueError(f"{annotations}: none of the {len(everybody)} people to score has a head_box [x, y, width, "
                             "height], by whose diagonal MPII's measures divide; `python -m lib prepare mpii` and `python -m "
                             "lib synthetic --figure=mpii` write it. Without head boxes: --measure=coco")  # fmt: skip

    @property
    def card(self) -> dict:
        """What decides the figures, for a run card."""
        return {"head_size": "0.6 x diagonal of head_box, in pixels of the picture", "rows": self.rows,
                "keypoints_not_scored": self.unscored, "people_without_head_box": self.headless}  # fmt: skip

    def remarks(self) -> list[str]:
        """Who and what was not scored as it might have been, in few words each."""
        left_out = [f"{self.headless} people without a head box left out"] * bool(self.headless)
        return left_out + [f"{', '.join(self.missing)} not predicted"] * bool(self.missing)

    def predictions(self, results: Sequence[Mapping]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """COCO results → {image id: scored keypoints (D, K, 3) and scores of people (D,)}, in the order of the results."""
        found: dict[int, list] = {image_id: [] for image_id in self.image_ids}
        for r in results:
            found.get(r["image_id"], []).append((np.reshape(r["keypoints"], (-1, 3)), r["score"]))
        none = np.zeros((0, len(self.keypoints), 3)), np.zeros(0)
        return {image_id: (self.select(np.array([k for k, _ in people], float)), np.array([s for _, s in people], float))
                if people else none for image_id, people in found.items()}  # fmt: skip

    def by_row(self, values: Sequence[float]) -> dict[str, float]:
        """Values (K,) of keypoints → the mean of every row's, without NaN; NaN where nothing else is there."""
        of = dict(zip(self.keypoints, values))
        return {row: mean([of[name] for name in names]) for row, names in self.rows.items()}


def read_extras(annotations: str | Path) -> dict[int, Extras]:
    """{annotation id: its keys beyond COCO's}.

    Raises:
        ValueError: a key is not of its form, for example a head_box that is no four numbers.
    """
    try:
        content = msgspec.json.decode(Path(annotations).read_bytes(), type=_File)
    except msgspec.ValidationError as error:
        raise ValueError(f"{annotations}: head_box is [x, y, width, height], group a number or a name, rect a number: "
                         f"{error}") from None  # fmt: skip
    return {extras.id: extras for extras in content.annotations}


def rows_of(keypoints: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """MPII's rows as far as a skeleton has their keypoints; if it has none, a row for every keypoint."""
    rows = {row: tuple(name for name in names if name in keypoints) for row, names in ROWS.items()}
    return {row: names for row, names in rows.items() if names} or {name: (name,) for name in keypoints}


def head_errors(predicted: np.ndarray, truth: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """Distances in heads.

    Args:
        predicted: (…, K, 3) pixels and score; 0 = not found.
        truth: (…, K, 3) pixels and visibility; 0 = not labelled.
        heads: (…) lengths of heads in pixels, see `lib.data.mpii.head_size`.

    Returns:
        (…, K), broadcast; infinite where a labelled keypoint was not found (or is not a number), NaN where not labelled.

    Raises:
        ValueError: a head is not longer than 0.
    """
    heads = np.asarray(heads, float)
    if not (heads > 0).all():
        raise ValueError(f"heads are lengths in pixels above 0, got {heads[~(heads > 0)].ravel()[0]}")
    distance = np.linalg.norm(predicted[..., :2] - truth[..., :2], axis=-1) / heads[..., None]
    found = (predicted[..., 2] > 0) & np.isfinite(distance)
    return np.where(truth[..., 2] > 0, np.where(found, distance, np.inf), np.nan)


def mean(values: Iterable[float]) -> float:
    """Without NaN; NaN of nothing."""
    there = [value for value in values if not np.isnan(value)]
    return float(np.mean(there)) if there else float("nan")


def _labelled(a: Annotation, extras: Extras, scored: Sequence[int]) -> Labelled:
    keypoints = np.reshape(a.keypoints or np.zeros(3 * (max(scored) + 1)), (-1, 3)).astype(float)[scored]
    head = head_size(extras.head_box) if extras.head_box else 0.0
    return Labelled(keypoints, head if 0 < head < np.inf else float("nan"), extras)
