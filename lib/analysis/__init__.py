"""Why a model has the AP that it has: curves, kinds of errors and what they cost, groups of people, the worst pictures first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from lib import files
from lib.analysis.drawings import figure, worst_sheet
from lib.data.coco import read_coco
from lib.metrics import CocoScorer
from lib.metrics.errors import FIXES, KINDS, Errors, Judged, find_errors
from lib.metrics.pck import pck_curves, pck_table
from lib.metrics.precision import Scene, tally
from lib.skeleton import Skeleton

SIDES = (0, 32, 64, 96, 128, 1e5)
"""Of people in pixels, the square root of their area: COCO's small people end at 32, its large ones begin at 96."""
CROWDING = {"apart": 0.0, "near": 0.1, "crowded": 0.8}
"""Least index of a picture: CrowdPose's easy, medium and hard ones (Li et al. 2019, arXiv:1812.00324)."""
BINS = np.linspace(0, 1, 21)
WORST = 12


class Evaluated(Protocol):
    """What is read of a `lib.evaluate.Report`."""

    results: list[dict]
    per_image: list[dict]
    run_card: dict
    config: dict

    def rules(self) -> str: ...


class Group(NamedTuple):
    """People who have something in common: how many, and COCO's AP of them alone; NaN for nobody."""

    name: str
    people: int
    ap: float


@dataclass(frozen=True)
class Analysis:
    """An evaluation, taken apart.

    Attributes:
        errors: kinds of errors and what they cost, and precision over recall.
        oks: (P,) similarity of everybody annotated with the prediction that suits best, 0 for who was missed; pairs are made
            so that their sum is largest.
        pck: {keypoint or "Total": share found at every of `lib.metrics.pck.THRESHOLDS` of the box's longer side}.
        by_size: people by `SIDES`; the rest of the picture is ignored, as for COCO's APm and APl.
        by_crowding: all people of the pictures by `crowd_index`.
        files: {image id: file name}.
        images: their folder.
        rules: what decides the figures, in a line.
    """

    errors: Errors
    oks: np.ndarray
    pck: dict[str, np.ndarray]
    by_size: list[Group]
    by_crowding: list[Group]
    files: dict[int, str]
    images: Path
    rules: str

    @property
    def skeleton(self) -> Skeleton:
        return self.errors.skeleton

    @property
    def average_precision(self) -> float:
        return self.errors.tally.average_precision()

    def figure(self):
        """Six panels as one matplotlib figure, see `lib.analysis.drawings`."""
        return figure(self)

    def worst(self, count: int = WORST) -> np.ndarray:
        """The pictures whose errors cost most as one sheet (H, W, 3) RGB uint8: annotated and predicted side by side."""
        return worst_sheet(self, count)

    def table(self) -> str:
        """The most important of it as text."""
        shares, people, ap = self.errors.shares(), self.errors.people, self.average_precision
        lines = [
            ", ".join(f"{kind} {100 * share:.1f} %" for kind, share in shares.items()) + " of the keypoints of people found",
            f"{people['missed']} of {people['people']} people missed, {people['false positives']} of {people['predictions']} "
            + f"predictions without a partner, {people['duplicates']} of these duplicates\n",
            f"{'fixed':16}{'alone':>16}{'after those above':>20}",
            f"{'nothing':16}{ap:9.3f}{'':7}{ap:13.3f}",
        ]
        before = ap
        for fix in FIXES:
            alone, turn = self.errors.alone[fix], self.errors.in_turn[fix]
            lines.append(f"{fix:16}{alone:9.3f}{alone - ap:+7.3f}{turn:13.3f}{turn - before:+7.3f}")
            before = turn
        groups = [("AP by size", self.by_size), ("AP by crowding", self.by_crowding)]
        lines += ["", *(f"{name:16}" + ", ".join(f"{g.name} {g.ap:.3f} ({g.people})" for g in group if g.people)
                        for name, group in groups)]  # fmt: skip
        return "\n".join([*lines, f"{'PCK':16}" + ", ".join(f"{k} {v:.3f}" for k, v in pck_table(self.pck).items())])

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it, the worst pictures first; null for what is no number."""
        names = self.skeleton.keypoints
        content = {
            "rules": self.rules, "AP": self.average_precision, "people": self.errors.people, "shares": self.errors.shares(),
            "keypoints": {kind: dict(zip(names, row.tolist())) for kind, row in zip(KINDS, self.errors.counts)},
            "alone": self.errors.alone, "in_turn": self.errors.in_turn,
            "oks": {"from": BINS[:-1].round(2).tolist(), "people": np.histogram(self.oks, BINS)[0].tolist()},
            "pck": pck_table(self.pck), "by_size": [g._asdict() for g in self.by_size],
            "by_crowding": [g._asdict() for g in self.by_crowding],
            "worst_images": [self._row(picture) for picture in self.errors.worst()],
        }  # fmt: skip
        return plain(content)

    def _row(self, picture: Judged) -> dict[str, Any]:
        kinds = {kind: int((picture.kinds == number).sum()) for number, kind in enumerate(KINDS)}
        return {"file_name": self.files[picture.scene.image_id], "cost": picture.cost, "missed": int(picture.missed.sum()),
                "false_positives": int(picture.false_positives.sum()), "keypoints": kinds}  # fmt: skip


def analyse(report: Evaluated) -> Analysis:
    """Take an evaluation by COCO's measure apart; its annotation file and pictures must still be where they were.

    Raises:
        ValueError: it was made by another measure.
    """
    card, config = report.run_card, report.config
    if card["measure"] != "coco":
        raise ValueError(f"the analysis is of COCO's measure, and this evaluation is by {card['measure']}: leave out "
                         f"--measure={card['measure']} or --analysis")  # fmt: skip
    coco = read_coco(config["annotations"], config["category"])
    scorer = CocoScorer(coco, Skeleton(**card["model"]["skeleton"]), config["category"], [r["image_id"] for r in report.per_image])
    errors, matches = find_errors(scorer, report.results), scorer.match(report.results)
    scenes = [picture.scene for picture in errors.pictures]
    return Analysis(errors, np.concatenate([np.zeros(0), *(m["oks"] for m in matches)]), pck_curves(scorer, matches),
                    _by_size(errors), _by_crowding(errors, scenes), {r["image_id"]: r["file_name"] for r in report.per_image},
                    Path(config["images"]), report.rules())  # fmt: skip


def write_analysis(analysis: Analysis, out_dir: str | Path) -> Analysis:
    """The same, after writing `analysis.json`, the table as `analysis.txt`, the panels as `analysis.png` and `worst.jpg`, each whole."""
    import cv2

    out_dir = Path(out_dir)
    files.write(out_dir / "analysis.json", json.dumps(analysis.as_dict(), indent=2))
    files.write(out_dir / "analysis.txt", f"{analysis.rules}\n\n{analysis.table()}\n")
    with files.beside(out_dir / "analysis.png") as writing:
        analysis.figure().savefig(writing, dpi=110)
    files.write(out_dir / "worst.jpg", cv2.imencode(".jpg", analysis.worst()[..., ::-1])[1].tobytes())
    return analysis


def plain(content: Any) -> Any:
    """What JSON can say: arrays as lists, and null for what is no number."""
    if isinstance(content, Mapping):
        return {key: plain(value) for key, value in content.items()}
    if isinstance(content, (list, np.ndarray)):
        return [plain(value) for value in content]
    if isinstance(content, (float, np.floating)):
        return float(content) if np.isfinite(content) else None
    return content


def crowd_index(scene: Scene) -> float:
    """How much people of a picture are in each other's way: keypoints of others in somebody's box for each of his own there.

    The mean over the people who count; 0 where there are none.
    """
    people, boxes = scene.truth[~scene.ignored], scene.boxes[~scene.ignored]
    ratios = []
    for person, (x, y, width, height) in enumerate(boxes):
        low, high = np.array([x, y]), np.array([x + width, y + height])
        inside = ((people[..., :2] >= low) & (people[..., :2] <= high)).all(axis=-1) & (people[..., 2] > 0)
        own = inside[person].sum()
        ratios.append((inside.sum() - own) / max(own, 1))
    return float(np.mean(ratios)) if ratios else 0.0


def _by_size(errors: Errors) -> list[Group]:
    scenes, alike = [p.scene for p in errors.pictures], [p.similarity for p in errors.pictures]
    groups = []
    for low, high in pairwise(SIDES):
        found = tally(scenes, alike, area=(low**2, high**2))
        name = f"< {high} px" if not low else f"≥ {low} px" if high == SIDES[-1] else f"{low}–{high} px"
        groups.append(Group(name, found.found.shape[1], found.average_precision()))
    return groups


def _by_crowding(errors: Errors, scenes: Sequence[Scene]) -> list[Group]:
    level = np.searchsorted([*CROWDING.values()], [crowd_index(scene) for scene in scenes], side="right") - 1
    groups = []
    for number, name in enumerate(CROWDING):
        chosen = [p for p, at in zip(errors.pictures, level) if at == number]
        found = tally([p.scene for p in chosen], [p.similarity for p in chosen])
        groups.append(Group(name, found.found.shape[1], found.average_precision()))
    return groups
