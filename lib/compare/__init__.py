"""Several models on the same pictures, by the same rules, in the same runtime: how good, how large, how fast.

What is not the same stands in the table, as far as files say it: the size of the input, and whose boxes a top-down model gets.
Speed is measured in rounds in which the models take turns, so that whatever else the machine does slows all of them alike.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from tqdm.auto import tqdm

from lib import ROOT, files
from lib.analysis import Analysis, analyse
from lib.benchmark import drawn_crowd, machine, measure, threads_of_the_cpu
from lib.checkpoints import file_sha256
from lib.checkpoints.model import model_from_metadata
from lib.codecs import CODECS
from lib.compare.drawings import figure
from lib.compare.memory import memory_of
from lib.compare.table import markdown, text, write_readme
from lib.data.coco import find_split
from lib.detect import Detector
from lib.evaluate import DETECTOR_THRESHOLD, evaluate
from lib.export import export_onnx
from lib.export.onnx_file import metadata_of
from lib.metrics.errors import FIXES
from lib.model_summary import multiply_adds
from lib.predict import Predictor
from lib.predict.detecting import PoseDetector, detector_named
from lib.runtime import open_network

SHIPPED = tuple(f"pretrained/{name}_mini.safetensors"
                for name in ("trt_pose", "lightweight_openpose", "higherhrnet", "deepercut", "topdown"))  # fmt: skip
DETECTOR = SHIPPED[0]
PEOPLE = (1, 5, 20)
TRUTH = "ground-truth boxes"
PARITY_IMAGES = 8  # on which an exported file must find the same people before it is compared

Runtime = Literal["onnx", "torch"]


@dataclass(frozen=True)
class Row:
    """A model in the comparison.

    Attributes:
        name: the file's, without suffix, behind that of its folder where two are alike. network: its class. input_size: (H, W).
        boxes: whose a top-down model got; "" for models that look at the whole picture.
        provider: what ran the network.
        metrics: COCO's, in 0..1.
        errors: {kind: share of the keypoints of people who were found}, see `lib.metrics.errors`.
        gained: {fix: AP gained if this alone were fixed}.
        people: counts of people, missed ones, predictions, and false positives.
        parameters, multiply_adds: of the network for one picture, of a top-down model for one person.
        of_detector: the same two numbers of the model that finds the boxes; zeros if there is none, NaN if it is not ours.
        memory: MiB by which a fresh process grows when it opens the model (and detector) and runs it; NaN if not measured.
        latency: {people in a picture: {stage or "total": milliseconds}}, medians over the rounds.
        spread: {people in a picture: (least, largest)} total of the rounds, milliseconds.
    """

    name: str
    network: str
    input_size: tuple[int, int]
    boxes: str
    provider: str
    metrics: dict[str, float]
    errors: dict[str, float]
    gained: dict[str, float]
    people: dict[str, int]
    parameters: int
    multiply_adds: int
    of_detector: tuple[float, float] = (0, 0)
    memory: float = float("nan")
    latency: dict[int, dict[str, float]] = field(default_factory=dict)
    spread: dict[int, tuple[float, float]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name, and whose boxes."""
        return f"{self.name}, {self.boxes}" if self.boxes else self.name


@dataclass(frozen=True)
class Comparison:
    """Models and what they were compared by.

    Attributes:
        rows: in the order that was asked for.
        analyses: of the rows, with everything about their errors.
        rules: what is the same for all, in a line.
        machine: of `lib.benchmark.machine`.
    """

    rows: list[Row]
    analyses: list[Analysis]
    rules: str
    machine: dict[str, str | int]

    def table(self) -> str:
        """The most important as aligned text."""
        return text(self.rows)

    def markdown(self) -> str:
        """The table and the rules in Markdown."""
        return markdown(self.rows, self.rules)

    def figure(self):
        """Accuracy over latency, latency by people and by stage, kinds of errors: a matplotlib figure."""
        return figure(self.rows, self.rules)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        content = json.dumps({"rules": self.rules, "machine": self.machine, "rows": [asdict(row) for row in self.rows]})
        return json.loads(content, parse_constant=lambda _: None)


@dataclass(frozen=True)
class _Entry:
    """A model, opened."""

    name: str
    path: Path
    predictor: Predictor
    boxes: str
    of_detector: tuple[float, float]


def compare(models: Sequence[str | Path] = SHIPPED, data_dir: str | Path = "data/synthetic", split: str = "val", *,
            detector: str = DETECTOR, runtime: Runtime = "onnx", threads: int = 1, limit: int | None = None,
            people: Sequence[int] = PEOPLE, rounds: int = 5, repeats: int = 5, memory: bool = True,
            folder: str | Path = "runs/compare") -> Comparison:  # fmt: skip
    """Evaluate and measure models; a top-down one stands there twice, with the annotated boxes and with a detector's.

    Args:
        models: checkpoints, exported files or public ones; relative to the repository.
        data_dir: COCO data set on which all are evaluated, by our rules on all images.
        split: which part of it.
        detector: of top-down models, see `lib.predict.detecting.detector_named`.
        runtime: "onnx" exports checkpoints into `folder` (once, and compared on a few pictures) and runs them in ONNX Runtime;
            "torch" runs them as they are. Other files run in what they are for.
        threads: of the CPU.
        limit: only the first so many images are evaluated.
        people: latency is measured on drawn pictures (640×480) with so many people; none: it is not measured.
        rounds: in which the models take turns; the medians count.
        repeats: pictures that are timed in each round, one at a time, after one that is not.
        memory: measure it, in a process for each model.
        folder: for exported models.

    Raises:
        ValueError: no model, an unknown runtime, rounds or repeats below 1.
        FileNotFoundError: no such model or data set.
        ParityError: an exported file does not find the same people.
    """
    if not models or runtime not in ("onnx", "torch") or min(rounds, repeats, threads) < 1:
        raise ValueError(f"a comparison needs models, the runtime onnx or torch, and rounds, repeats and threads from 1 on: got "
                         f"{len(models)} models, {runtime!r}, {rounds}, {repeats} and {threads}")  # fmt: skip
    annotations, images = find_split(ROOT / data_dir, split)
    with threads_of_the_cpu(threads), tqdm(desc="compare", unit="step", delay=1) as bar:
        paths = [ROOT / model for model in models]
        ours = [ROOT / detector] if detector.endswith(".safetensors") and ROOT / detector not in paths else []
        names = dict(zip([*paths, *ours], _different_names([*paths, *ours])))
        opening = _Opening(runtime, threads, Path(ROOT / folder), ROOT / data_dir, split, annotations, names)
        entries = [entry for path in paths for entry in opening.entries(path, detector)]
        bar.total = len(entries) * (1 + memory + rounds * len(people))
        rows, analyses = [], []
        for entry in _counted(bar, entries, "evaluate"):
            report = evaluate(entry.predictor, annotations, images, limit=limit)
            analyses.append(analyse(report))
            rows.append(_row(entry, report.metrics, analyses[-1]))
        opened = [[e.path, e.predictor.detector.path] if e.of_detector[0] > 0 else [e.path] for e in entries]
        sizes = list(_counted(bar, memory_of(opened if memory else [], threads), "memory"))
        with tempfile.TemporaryDirectory() as drawn:
            latency = _latency(entries, people, rounds, repeats, Path(drawn), bar)
    for i, (medians, spread) in enumerate(latency):
        known = memory and not np.isnan(entries[i].of_detector[0])  # nothing is known of other people's detectors
        rows[i] = replace(rows[i], memory=sizes[i] if known else float("nan"), latency=medians, spread=spread)
    counted, facts = len(analyses[0].files), machine()
    rules = (f"{counted} images of {data_dir} ({split}), our rules, {' and '.join(sorted({r.provider for r in rows}))}, "
             f"{threads} thread{'s' * (threads > 1)} of {facts['cpu']}")  # fmt: skip
    if people:
        differ = np.median([50 * (high - low) / row.latency[n]["total"] for row in rows for n, (low, high) in row.spread.items()])
        rules += f"; pictures of 640×480 one by one, medians of {rounds} rounds in turn, which differ by ±{differ:.0f} %"
        rules += f" (load {facts['load']} on {facts['cores']} cores)" * ("load" in facts)
    return Comparison(rows, analyses, rules, facts)


def main(models: tuple[str, ...] = SHIPPED, data_dir: str = "data/synthetic", split: str = "val", detector: str = DETECTOR,
         runtime: Runtime = "onnx", threads: int = 1, limit: int | None = None, people: tuple[int, ...] = PEOPLE,
         rounds: int = 5, repeats: int = 5, memory: bool = True, out: str = "runs/compare", readme: Path | None = None,
         picture: Path = Path("docs/comparison.png")) -> None:  # fmt: skip
    """Compare models on the same pictures: AP, errors, size, memory and latency, as a table and a chart.

    In the folder `out` are then comparison.json, comparison.md and comparison.png, an analysis of each model's errors, and the
    exported models.

    Args:
        models: files, as --models='[a.safetensors,b.onnx]'; left out, those of the repository.
        data_dir: folder as data/README.md describes.
        split: train or val.
        detector: of top-down models, besides the annotated boxes: the .onnx of a YOLO, "torchvision:NAME", "whole", or a model
            of this workbook that finds several people.
        runtime: onnx (checkpoints are exported first) or torch.
        threads: of the CPU.
        limit: evaluate only the first so many images.
        people: numbers of people in the pictures on which latency is measured, as --people='[1, 20]'.
        rounds: in which the models take turns.
        repeats: pictures per round.
        memory: measure memory in fresh processes.
        out: folder.
        readme: Markdown file whose lines between <!-- comparison --> and <!-- /comparison --> are replaced.
        picture: with readme, where its chart goes.
    """
    found = compare(models, data_dir, split, detector=detector, runtime=runtime, threads=threads, limit=limit, people=people,
                    rounds=rounds, repeats=repeats, memory=memory, folder=out)  # fmt: skip
    print(found.rules, found.table(), sep="\n\n")
    write_comparison(found, ROOT / out)
    if readme is not None:
        write_readme(readme, found.markdown(), picture)
        _save(found, picture)


def write_comparison(found: Comparison, out: str | Path) -> None:
    """Write comparison.json, comparison.md and comparison.png, and each model's analysis.json in a folder of its name."""
    out = Path(out)
    files.write(out / "comparison.json", json.dumps(found.as_dict(), indent=2))
    files.write(out / "comparison.md", found.markdown())
    _save(found, out / "comparison.png")
    for row, analysis in zip(found.rows, found.analyses):
        files.write(out / row.title.replace(", ", "_").replace(" ", "_") / "analysis.json", json.dumps(analysis.as_dict(), indent=2))


def _save(found: Comparison, path: Path) -> None:
    with files.beside(path) as writing:
        found.figure().savefig(writing, dpi=100)


@dataclass(frozen=True)
class _Opening:
    """How models are opened."""

    runtime: Runtime
    threads: int
    folder: Path
    data_dir: Path
    split: str
    annotations: Path
    names: dict[Path, str]

    def entries(self, model: Path, detector: str) -> Iterator[_Entry]:
        """A model, or a top-down model with its two kinds of boxes."""
        path, name = self.exported(model), self.names[model]
        codec = open_network(path).metadata["codec"]["name"]
        if not getattr(CODECS[codec], "per_person", False):
            yield _Entry(name, path, Predictor(path, threads=self.threads), "", (0, 0))
            return
        truth = detector_named("truth", annotations=self.annotations)
        yield _Entry(name, path, Predictor(path, threads=self.threads, detector=truth), TRUTH, (0, 0))
        found_by, size = self.detector(detector)
        boxes = f"boxes of {self.names.get(ROOT / detector, found_by.name)}"
        yield _Entry(name, path, Predictor(path, threads=self.threads, detector=found_by), boxes, size)

    def detector(self, spec: str) -> tuple[Detector, tuple[float, float]]:
        """The detector and its network's parameters and multiply-adds, which are known if it is one of ours."""
        ours = (ROOT / spec).suffix == ".safetensors"
        path = self.exported(ROOT / spec) if ours else ROOT / spec if (ROOT / spec).is_file() else spec
        found_by = detector_named(path, threshold=DETECTOR_THRESHOLD, threads=self.threads)
        return found_by, _size(found_by.predictor) if isinstance(found_by, PoseDetector) else (float("nan"), float("nan"))

    def exported(self, model: Path) -> Path:
        """A checkpoint as ONNX, exported anew if it has changed; or what was given."""
        if not model.is_file():
            raise FileNotFoundError(f"there is no model {model}")
        if self.runtime == "torch" or model.suffix != ".safetensors":
            return model
        path = self.folder / "models" / f"{self.names[model]}.onnx"
        if not (path.is_file() and _source(path) == file_sha256(model)):
            export_onnx(model, path, data_dir=self.data_dir, split=self.split, limit=PARITY_IMAGES)
        return path


def _different_names(paths: Sequence[Path]) -> list[str]:
    """Names of files, with suffix or as many folders as it takes to tell them apart: every training writes a best.safetensors."""
    for folders in range(max(len(path.parts) for path in paths)):
        for ends in ([path.stem for path in paths], [path.name for path in paths]):
            names = ["_".join((*path.parts[-1 - folders : -1], end)) for path, end in zip(paths, ends)]
            if len(set(names)) == len(names):
                return names
    raise ValueError(f"one model stands twice among {', '.join(map(str, paths))}")


def _source(path: Path) -> str | None:
    """SHA-256 of the checkpoint that an exported file was made of."""
    return metadata_of(onnx.load(path))["export"].get("source_sha256")


def _row(entry: _Entry, metrics: dict[str, float], analysis: Analysis) -> Row:
    predictor, errors = entry.predictor, analysis.errors
    gained = {fix: errors.alone[fix] - analysis.average_precision for fix in FIXES}
    return Row(entry.name, predictor.metadata["network"]["name"], predictor.input_size, entry.boxes, predictor.provider, metrics,
               errors.shares(), gained, errors.people, *_size(predictor), entry.of_detector)  # fmt: skip


def _size(predictor: Predictor) -> tuple[int, int]:
    """Parameters, and multiply-adds for one input."""
    network = model_from_metadata(predictor.metadata).network
    return sum(p.numel() for p in network.parameters()), multiply_adds(network, predictor.input_size)


def _latency(entries: Sequence[_Entry], people: Sequence[int], rounds: int, repeats: int, folder: Path, bar: tqdm) -> list[tuple]:
    """({people: {stage: ms}}, {people: (least, largest)}) of every entry."""
    times: dict[tuple[int, int], list[dict[str, float]]] = {}
    crowds = {count: drawn_crowd(count, folder / str(count)) for count in people}
    for _ in range(rounds):
        for count, (truth, pictures) in crowds.items():
            for i, entry in _counted(bar, list(enumerate(entries)), f"{count} people"):
                if entry.boxes == TRUTH:  # those of the pictures that are shown
                    entry.predictor.detector = detector_named("truth", annotations=truth)
                stages = measure(entry.predictor, pictures, warmup=1, repeats=repeats)
                times.setdefault((i, count), []).append({stage: latency.p50 for stage, latency in stages.items()})
    found = []
    for i in range(len(entries)):
        medians = {n: {stage: float(np.median([t[stage] for t in times[i, n]])) for stage in times[i, n][0]} for n in people}
        spread = {n: (min(t["total"] for t in times[i, n]), max(t["total"] for t in times[i, n])) for n in people}
        found.append((medians, spread))
    return found


def _counted(bar: tqdm, items: Iterable, what: str) -> Iterator:
    for item in items:
        bar.set_postfix_str(what)
        yield item
        bar.update()
