"""How long finding people takes, stage by stage, on this machine.

Latency is what one waits for: the time of a whole batch, read one stage after the other, nothing overlapping. Half of the batches take
at most p50, nine tenths at most p90, all but one in a hundred at most p99 (which takes a hundred batches to be seen).
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from tqdm.auto import tqdm

from lib import files
from lib.checkpoints import file_sha256
from lib.data.augment import image_files, read_image
from lib.data.coco import find_split, read_coco
from lib.data.stage import Scene
from lib.data.synthetic import write_dataset
from lib.parity import open_predictor
from lib.predict import Predictor
from lib.predict.detecting import detector_named
from lib.predict.stages import timed
from lib.runtime.checks import versions

STAGES = ("load", "detect", "preprocess", "network", "decode")
PACKAGES = ("torch", "onnxruntime-gpu", "onnxruntime", "tensorrt", "numpy", "opencv-python-headless", "pose-workbook")


@dataclass(frozen=True)
class Latency:
    """Milliseconds for a batch.

    Attributes:
        p50, p90, p99: what half, nine tenths and all but one in a hundred of the batches took at most.
        n: number of batches.
    """

    p50: float
    p90: float
    p99: float
    n: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """Percentiles that really were measured: none lies between two batches."""
        return cls(*(1e3 * np.percentile(seconds, (50, 90, 99), method="inverted_cdf")).tolist(), len(seconds))


def benchmark(
    model: Path,
    detector: str | None = None,
    people: tuple[int, ...] = (1, 5, 20),
    batch_sizes: tuple[int, ...] = (1, 8),
    pictures: Path | None = None,
    size: tuple[int, int] = (480, 640),
    device: str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    threads: int | None = None,
    flip_test: bool = False,
    warmup: int = 5,
    repeats: int = 50,
    out: Path | None = None,
) -> dict:
    """How long a model takes on this machine, stage by stage, by batch size and by number of people.

    Args:
        model: checkpoint, exported file or public file, as for `predict`.
        detector: of a top-down model, as for `predict`; left out, the drawn people's own boxes, which cost nothing.
        people: how many there are in the pictures that are drawn for it.
        batch_sizes: pictures that go through the network together.
        pictures: a folder of your own pictures, instead of drawn ones.
        size: height and width of the drawn ones.
        device: cpu, cuda, cuda:1; if the model cannot run there, this is an error.
        precision: fp32 or bf16, of what runs in torch.
        threads: of the CPU; left out, as many as each library takes.
        flip_test: average with the mirrored picture.
        warmup: batches that run first and do not count.
        repeats: batches that count; 100 and more for a p99 that says something.
        out: JSON file for the figures.

    Returns:
        What is written to `out`: model, sha256, provider, options, machine, and `rows`.

    Raises:
        ValueError, OSError, RuntimeError: of `Predictor` and of the detector.
    """
    if not (people or pictures) or min(batch_sizes, default=0) < 1 or repeats < 1 or warmup < 0:
        raise ValueError(f"a benchmark needs people or pictures, batches and repeats from 1 and a warmup from 0 on: got people {people}, "
                         f"batch_sizes {batch_sizes}, repeats {repeats} and warmup {warmup}")  # fmt: skip
    with threads_of_the_cpu(threads), tempfile.TemporaryDirectory() as scratch:
        facts = machine()
        predictor = open_predictor(model, None, device, threads=threads, precision=precision, flip_test=flip_test)
        if bool(detector) > predictor.per_person:
            raise ValueError(f"{model} finds all people of a picture by itself: leave the detector out")
        if predictor.per_person and pictures and not detector:
            raise ValueError(f"{model} reads one person at a time: say with --detector what finds people in your own pictures")
        drawn = () if pictures else people
        crowds = {n: drawn_crowd(n, Path(scratch) / f"people_{n}", size=size) for n in drawn} or {"own": (None, image_files(pictures))}
        rows = list(_rows(predictor, crowds, batch_sizes, detector or "truth", threads, (warmup, repeats)))
    result = {"model": model.name, "sha256": file_sha256(model), "provider": predictor.provider, "device": device,
              "precision": predictor.metadata.get("export", {}).get("precision", precision),
              "input_size": list(predictor.input_size), "picture_size": None if pictures else list(size), "threads": threads,
              "flip_test": flip_test, "detector": predictor.detector.name if predictor.per_person else None, "warmup": warmup,
              "repeats": repeats, "machine": facts, "rows": rows}  # fmt: skip
    print(table(result))
    if out:
        files.write(out, json.dumps(result, indent=2))
    return result


def table(result: Mapping) -> str:
    """Figures of `benchmark` as aligned text: milliseconds of a batch, p50/p90/p99."""
    stages = list(result["rows"][0]["milliseconds"])
    lines = [["people", "batch", "found", *stages, "pictures/s"]]
    for row in result["rows"]:
        cells = ["/".join(f"{row['milliseconds'][s][p]:.{1 if s == 'network' else 2}f}" for p in ("p50", "p90", "p99")) for s in stages]
        lines.append([str(row["people"]), str(row["batch_size"]), f"{row['found']:g}", *cells, f"{row['pictures_per_second']:.1f}"])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    size, facts = "×".join(map(str, result["input_size"])), result["machine"]
    threads = result["threads"] or f"{facts['torch_threads']} (torch), all (others)"
    title = (f"{result['model']}, {result['precision']}, on {result['provider']}, input {size}, threads: {threads}"
             + (f", boxes: {result['detector']}" if result["detector"] else ""))  # fmt: skip
    known = ", ".join(f"{name} {facts[name]}" for name in PACKAGES if name in facts)
    where = f"{facts.get('gpu', '')} {facts['cpu']}, {facts['cores']} cores, load {facts.get('load', '?')}; {known}".strip()
    note = f"milliseconds of a batch, p50/p90/p99 of {result['repeats']} after {result['warmup']}"
    body = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines]
    return "\n".join([title, where, note, *body])


def measure(
    predictor: Predictor, images: Sequence[np.ndarray | str | Path], batch_size: int = 1, warmup: int = 5, repeats: int = 50
) -> dict[str, Latency]:
    """Find people again and again, and time every stage.

    Args:
        predictor: what is measured; with a detector, finding the boxes is a stage, too.
        images: RGB uint8 arrays (H, W, 3), or paths (then reading the file is a stage, too); used in turn.
        batch_size: pictures that go through the network together.
        warmup: batches that run first and do not count.
        repeats: batches that count.

    Returns:
        The latency of each stage that there is, in the order of `STAGES`, and of all together as "total".

    Raises:
        ValueError: no pictures, or a number below 1.
    """
    if not len(images) or batch_size < 1 or repeats < 1:
        raise ValueError(f"there must be pictures, batches and repeats: got {len(images)} pictures, batch_size {batch_size}, "
                         f"repeats {repeats}")  # fmt: skip
    runs: list[dict[str, float]] = []
    for run in range(warmup + repeats):
        seconds: dict[str, float] = {}
        batch = [images[i % len(images)] for i in range(run * batch_size, (run + 1) * batch_size)]
        _find(predictor, batch, seconds)
        runs.append(seconds)
    runs = runs[warmup:]
    stages = {stage: Latency.of([run[stage] for run in runs]) for stage in STAGES if stage in runs[0]}
    return stages | {"total": Latency.of([sum(run.values()) for run in runs])}


def machine() -> dict[str, str | int]:
    """What figures of speed depend on: processor, cores, threads, GPU, and versions of what computes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    facts = {"cpu": _processor(), "cores": cores, "torch_threads": torch.get_num_threads(), "system": platform.platform(),
             "python": platform.python_version()}  # fmt: skip
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    facts |= versions(PACKAGES)
    if hasattr(os, "getloadavg"):
        facts["load"] = round(os.getloadavg()[0], 1)  # above the number of cores: others were working, too
    return facts


def drawn_crowd(
    people: int, folder: str | Path, pictures: int = 4, size: tuple[int, int] = (480, 640)
) -> tuple[Path, list[Path]]:
    """Draw pictures of so many synthetic people, who are equally large however many they are.

    Args:
        people: 1 to 254.
        folder: is made, with a COCO data set in it; one that is there already is used again.
        pictures: how many.
        size: (H, W) of the pictures.

    Returns:
        The COCO file with everybody's keypoints and boxes, and the pictures.
    """
    scene = Scene(size, people, people, (0.4, 0.6), crowd=0, truncation=0, objects=0)
    annotations, images = find_split(write_dataset(folder, num_train=1, num_val=pictures, scene=scene, workers=1), "val")
    return annotations, [images / image.file_name for image in read_coco(annotations).images]


@contextmanager
def threads_of_the_cpu(count: int | None) -> Iterator[None]:
    """Torch and OpenCV on so many threads for a while; None changes nothing.

    Raises:
        ValueError: fewer than 1.
    """
    if count is not None and count < 1:
        raise ValueError(f"threads is {count}; it must be at least 1")
    before = torch.get_num_threads(), cv2.getNumThreads()
    if count:
        torch.set_num_threads(count)
        cv2.setNumThreads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def _rows(
    predictor: Predictor, crowds: Mapping, batch_sizes: Sequence[int], detector: str, threads: int | None, counts: tuple[int, int]
) -> Iterator[dict]:
    """What every setting takes."""
    settings = [(people, size) for people in crowds for size in batch_sizes]
    for people, batch_size in tqdm(settings, desc="benchmark", unit="setting", delay=1):
        annotations, paths = crowds[people]
        if predictor.per_person:
            predictor.detector = detector_named(detector, predictor.device, annotations=annotations, threads=threads)
        found = np.mean([len(found) for found in predictor(paths)])
        stages = measure(predictor, paths, batch_size, *counts)
        yield {"people": people, "batch_size": batch_size, "found": round(float(found), 2),
               "pictures_per_second": round(1e3 * batch_size / stages["total"].p50, 2),
               "milliseconds": {stage: asdict(latency) for stage, latency in stages.items()}}  # fmt: skip


def _find(predictor: Predictor, batch: Sequence[np.ndarray | str | Path], seconds: dict[str, float]) -> int:
    """Number of people in a batch; adds what each stage took."""
    pictures, paths = list(batch), [None if isinstance(image, np.ndarray) else Path(image) for image in batch]
    if any(paths):
        with timed(seconds, "load"):
            pictures = [picture if path is None else read_image(path) for picture, path in zip(pictures, paths)]
    boxes = []
    if predictor.per_person:
        with timed(seconds, "detect"):
            boxes = [(predictor.detect(picture, path),) for picture, path in zip(pictures, paths)]
    with timed(seconds, "preprocess"):
        fitted = [predictor.fit(picture, *box) for picture, box in zip(pictures, boxes or [()] * len(pictures))]
    with timed(seconds, "network"):
        answers = predictor.answers(fitted)
    with timed(seconds, "decode"):
        return sum(len(predictor.people(answer, one)) for answer, one in zip(answers, fitted))


def _processor() -> str:
    """The processor's name as the system has it."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")] \
        if info.is_file() else []  # fmt: skip
    return names[0] if names else platform.processor() or platform.machine()
