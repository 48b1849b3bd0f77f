"""Does an exported file find the same people? Measured in map values, in pixels and in AP, because each can hide a fault.

Small differences in the maps may still move a keypoint, keypoints may agree on easy people only, and AP alone forgives a lot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from tqdm.auto import tqdm

from lib.checkpoints import Model
from lib.codecs import CODECS
from lib.data.coco import CocoFile, Image, find_split, read_coco, skeleton_of
from lib.detect import TruthBoxes, WholeImage
from lib.metrics import CocoScorer, people_to_results
from lib.people import People
from lib.predict import Predictor
from lib.predict.fitting import Fitted
from lib.runtime import open_network


@dataclass(frozen=True)
class Tolerance:
    """What may differ.

    Attributes:
        maps: largest difference of any map value, where the maps' own largest value is 1 or less; relative to it above 1. None
            where maps are shown and not judged.
        pixels: shift of a confident keypoint, in pixels of the network's input (None: not judged) …
        share: … which this share of them must not exceed.
        ap: by how much AP may fall, in 0..1.
        confident: keypoint score from which a keypoint counts.
    """

    maps: float | None
    pixels: float | None
    share: float
    ap: float
    confident: float = 0.3


AROUND = ("offsets", "pairwise")
"""Maps with as many channels for each keypoint, in the keypoints' order, that are learnt near the keypoint alone."""

FP32 = Tolerance(maps=1e-4, pixels=0.05, share=1.0, ap=0.001)
FP16 = Tolerance(maps=1e-2, pixels=0.5, share=0.99, ap=0.005)
INT8 = Tolerance(maps=None, pixels=None, share=0.0, ap=0.02)
"""With 256 values for every number maps move visibly everywhere: what counts is who is found."""


@dataclass
class Report:
    """A comparison of a torch model with an exported file; `print` shows it as a table.

    Attributes:
        file, provider: what was compared, and what ran it.
        images: number of images.
        inputs: what went through the network: as many, or for a top-down model one crop for each person.
        batch_sizes: which batches went through the file.
        maps: largest difference by name of the map, relative to the largest value where that exceeds 1.
        shifts: pixels of the network's input, one per confident keypoint; inf where only one of the two found it.
        ap: AP of torch and of the file, or None where it could not be measured …
        no_ap: … and why.
        tolerance: what was allowed.
    """

    file: str
    provider: str
    images: int
    inputs: int
    batch_sizes: tuple[int, ...]
    maps: dict[str, float]
    shifts: np.ndarray
    ap: tuple[float, float] | None
    no_ap: str
    tolerance: Tolerance
    failures: list[str] = field(init=False)

    def __post_init__(self):
        t = self.tolerance
        passed = {
            # written so that NaN fails
            "maps": all(np.isfinite(d) and (t.maps is None or d <= t.maps) for d in self.maps.values()),
            "pixels": t.pixels is None or not len(self.shifts) or self.share_within >= t.share,
            # where nothing else is judged, AP must have been measured
            "AP": t.maps is not None if self.ap is None else self.ap[0] - self.ap[1] <= t.ap,
        }
        self.failures = [unit for unit, fine in passed.items() if not fine]

    @property
    def _pixels(self) -> float:
        return 0.5 if self.tolerance.pixels is None else self.tolerance.pixels

    @property
    def share_within(self) -> float:
        """Share of the confident keypoints that moved by at most `tolerance.pixels`, or half a pixel where that is not judged."""
        return float((self.shifts <= self._pixels).mean()) if len(self.shifts) else float("nan")

    @property
    def unproven(self) -> str:
        """One sentence where nothing but the maps could be compared, else nothing."""
        if len(self.shifts):
            return ""
        return (f"{self.file}: nobody was found in these {self.images} images, so that nothing but the maps was compared; name a "
                "data set of people this model can find with --data_dir")  # fmt: skip

    def rows(self) -> list[tuple[str, str, str, str]]:
        """The table: unit, measured, allowed, verdict."""
        t = self.tolerance
        maps = "not judged" if t.maps is None else f"{t.maps:.0e}"
        rows = [(f"maps: {name}", f"{d:.1e}", maps, self._verdict("maps", t.maps)) for name, d in self.maps.items()]
        shifts, verdict = "no confident keypoint in these images", "not measured"
        if len(self.shifts):
            found = np.isfinite(self.shifts)
            shifts = f"{self.share_within:.2%} of {len(self.shifts)} within {self._pixels} px"
            if found.any():
                shifts += "; median {:.3f}, 99 % {:.3f} px".format(*np.quantile(self.shifts[found], (0.5, 0.99), method="lower"))
            shifts += f"; {(~found).sum()} found by one only" * (not found.all())
            verdict = self._verdict("pixels", t.pixels)
        rows.append(("keypoints", shifts, "not judged" if t.pixels is None else f"{t.share:.0%} within {t.pixels} px", verdict))
        ap = "{:.4f} → {:.4f}".format(*self.ap) if self.ap else self.no_ap
        judged = self.ap is not None or "AP" in self.failures
        return [*rows, ("AP", ap, f"− {t.ap}", self._verdict("AP", t.ap) if judged else "not measured")]

    def _verdict(self, unit: str, allowed: float | None) -> str:
        return "FAILED" if unit in self.failures else "ok" if allowed is not None else ""

    def to_dict(self) -> dict:
        """For a JSON file beside the export."""
        levels = (0.5, 0.9, 0.99, 1) if len(self.shifts) else ()
        shifts = [float(np.quantile(self.shifts, level, method="lower")) for level in levels]
        shifts = {f"shift_q{100 * q:g}": shift if np.isfinite(shift) else None for q, shift in zip(levels, shifts)}
        return {"file": self.file, "provider": self.provider, "images": self.images, "inputs": self.inputs, "batch_sizes": list(self.batch_sizes),
                "maps": self.maps, "keypoints": len(self.shifts), **shifts, "ap": self.ap, "no_ap": self.no_ap,
                "tolerance": asdict(self.tolerance), "failures": self.failures}  # fmt: skip

    def __str__(self) -> str:
        header = ("unit", "measured", "allowed", "verdict")
        rows = [header, *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        crops = f" ({self.inputs} crops)" if self.inputs != self.images else ""
        batches = ", ".join(map(str, self.batch_sizes))
        title = f"{self.file} on {self.provider}, {self.images} images{crops} in batches of {batches}"
        return "\n".join([title] + ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows])


class ParityError(ValueError):
    """An exported file differs from its model. `report` holds the figures, `units` what failed: maps, pixels or AP."""

    def __init__(self, report: Report):
        self.report, self.units = report, report.failures
        super().__init__(f"{report.file} does not find the same people as the model; out of tolerance: "
                         f"{', '.join(self.units)}\n{report}")  # fmt: skip


def check_parity(
    model: Model | str | Path,
    exported: str | Path,
    data_dir: str | Path,
    split: str = "val",
    limit: int = 64,
    tolerance: Tolerance = FP32,
    device: str = "cpu",
) -> Report:
    """Run a model and an exported file side by side on real images; a top-down one on the crops of annotated people.

    Args:
        model: a `Model` or a file to compare with; runs on the CPU.
        exported: what `lib.export` writes.
        data_dir: dataset (see `lib.data.coco.find_split`); its skeleton may be another one, keypoints pair by name for AP.
        split: which part of it.
        limit: the first so many images, those with people before those without.
        tolerance: what may differ.
        device: where the exported file runs.

    Returns:
        The figures, all within tolerance.

    Raises:
        ParityError: out of tolerance, with the same report.
        ValueError: no images, or the file's maps have other names or shapes than the model's.
    """
    annotations, folder = find_split(data_dir, split)
    reference, file = open_predictor(model, annotations), open_predictor(exported, annotations, device)
    coco = read_coco(annotations)
    images = images_to_compare(coco, limit)
    if not images:
        raise ValueError(f"{annotations}: no image to compare on (of {len(coco.images)}, limit {limit})")
    maps: dict[str, float] = {}
    shifts, results, inputs = [np.zeros(0)], ([], []), 0
    sizes, seen = chain((1, 2), repeat(8)), set()  # a file whose batch is fixed, or cannot be one, does not get through
    for batch in tqdm(list(_batches(images)), desc="parity", unit="batch", delay=1, leave=False):
        fitted = [reference.fit(folder / image.file_name) for image in batch]
        both = _answers((reference, file), fitted, sizes, seen)
        for image, one, mine, theirs in zip(batch, fitted, *both):
            inputs += len(mine)
            for a, b in zip(mine, theirs):
                for name, difference in map_differences(a, b).items():
                    maps[name] = max(maps.get(name, 0.0), difference)
                shifts.append(keypoint_shifts(reference.codec.decode(a), file.codec.decode(b), tolerance.confident))
            for rows, predictor, answers in zip(results, (reference, file), (mine, theirs)):
                rows += people_to_results(predictor.people(answers, one), image.id)
    ap, no_ap = _average_precision(coco, reference, [image.id for image in images], results)
    report = Report(Path(exported).name, file.provider, len(images), inputs, tuple(sorted(seen)), maps,
                    np.concatenate(shifts), ap, no_ap, tolerance)  # fmt: skip
    if report.failures:
        raise ParityError(report)
    return report


def open_predictor(model: Model | str | Path, annotations: str | Path | None, device: str = "cpu", **options) -> Predictor:
    """A predictor of a model or file; of a top-down one with the annotated people's boxes, or the whole picture where there are no
    annotations. `options` are `Predictor`'s.
    """
    name = type(model.codec).__name__ if isinstance(model, Model) else open_network(model, device).metadata["codec"]["name"]
    detector = None
    if getattr(CODECS.get(name), "per_person", False):
        detector = TruthBoxes(annotations) if annotations else WholeImage()
    return Predictor(model, device, detector=detector, **options)


def images_to_compare(coco: CocoFile, limit: int) -> list[Image]:
    """The first so many images, those with people before those without."""
    occupied = {a.image_id for a in coco.annotations if any((a.keypoints or [])[2::3])}
    return sorted(coco.images, key=lambda image: image.id not in occupied)[:limit]


def map_differences(mine: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest absolute difference of each map, divided by the map's largest value where that is above 1; inf for NaN.

    What a map says of a keypoint's surroundings alone (`AROUND`) counts as much as the heatmap says that it is there: elsewhere
    nothing was learnt, and the numbers are large and arbitrary.
    """
    shapes = [{name: values.shape for name, values in maps.items()} for maps in (mine, theirs)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the model's maps are {shapes[0]}, the exported file's {shapes[1]}: it is another model's file"
        )
    differences = {}
    for name, values in mine.items():
        there = np.ones(1)
        if name in AROUND:
            heatmaps = mine["heatmaps"].clip(0, 1)
            there = np.repeat(heatmaps, values.shape[-3] // heatmaps.shape[-3], axis=-3)
        with np.errstate(invalid="ignore"):  # inf − inf
            difference = (np.abs(values - theirs[name]) * there).max(initial=0) / max(1.0, (np.abs(values) * there).max(initial=0))
        differences[name] = float(difference) if np.isfinite(difference) else float("inf")
    return differences


def keypoint_shifts(mine: People, theirs: People, confident: float) -> np.ndarray:
    """How far every confident keypoint of two predictions of one image lies from its twin.

    People are paired so that their keypoints lie nearest to each other. A keypoint is confident if either score says so.

    Returns:
        (M,) float, in the unit of the people; inf for a keypoint, or a whole person, that only one of the two has.
    """
    a, b = mine.keypoints, theirs.keypoints
    both = (a[:, None, :, 2] > 0) & (b[None, :, :, 2] > 0)
    distance = np.where(both, np.linalg.norm(a[:, None, :, :2] - b[None, :, :, :2], axis=-1), np.inf)
    rows, columns = linear_sum_assignment((1 / (1 + distance)).sum(-1), maximize=True)
    counted = np.maximum(a[rows, :, 2], b[columns, :, 2]) >= confident
    alone = np.concatenate([np.delete(a, rows, axis=0)[..., 2].ravel(), np.delete(b, columns, axis=0)[..., 2].ravel()])
    return np.concatenate([distance[rows, columns][counted], np.full((alone >= confident).sum(), np.inf)])


def _batches(images: Sequence) -> Iterator[Sequence]:
    """One image, two, then eights."""
    yield images[:1]
    for start, stop in [(1, 3), *((i, i + 8) for i in range(3, len(images), 8))]:
        if images[start:stop]:
            yield images[start:stop]


def _answers(predictors: Sequence[Predictor], fitted: Sequence[Fitted], sizes: Iterator[int], seen: set[int]) -> list[list]:
    """For each predictor and picture the maps of its inputs, which go through the networks in batches of the given sizes."""
    inputs = [pixels for one in fitted for pixels in one.inputs]
    answers: list[list] = [[] for _ in predictors]
    while len(answers[0]) < len(inputs):
        stack = np.stack(inputs[len(answers[0]) :][: next(sizes)])
        seen.add(len(stack))
        for mine, predictor in zip(answers, predictors):
            mine += predictor.maps(stack)
    ends = np.cumsum([len(one.inputs) for one in fitted])
    return [[mine[end - len(one.inputs) : end] for one, end in zip(fitted, ends)] for mine in answers]


def _average_precision(
    coco: CocoFile, predictor: Predictor, image_ids, results
) -> tuple[tuple[float, float] | None, str]:
    if not set(skeleton_of(coco).keypoints) & set(predictor.skeleton.keypoints):
        return None, f"the annotations have none of the keypoints of {predictor.skeleton.name!r}"
    scorer = CocoScorer(coco, predictor.skeleton, image_ids=image_ids)
    if not any(results):
        return None, "nobody found in these images"
    ap = tuple(scorer([{**row, "category_id": scorer.category_id} for row in rows])["AP"] for rows in results)
    return (ap, "") if min(ap) >= 0 else (None, "nobody annotated in these images")
