"""How long finding people takes, stage by stage, on this machine.

Latency is what one waits for: the time of a whole batch, read one stage after the other, nothing overlapping. Half of the batches take
at most p50, nine tenths at most p90, all but one in a hundred at most p99 (which takes a hundred batches to be seen).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from lib.data.augment import read_image
from lib.data.coco import find_split, read_coco
from lib.data.stage import Scene
from lib.data.synthetic import write_dataset
from lib.predict import Predictor
from lib.predict.stages import timed

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
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
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
    scene = Scene(size, people, people, (0.25, 0.45), crowd=0, truncation=0, objects=0)
    annotations, images = find_split(write_dataset(folder, num_train=1, num_val=pictures, scene=scene, workers=1), "val")
    return annotations, [images / image.file_name for image in read_coco(annotations).images]


def _find(predictor: Predictor, batch: Sequence[np.ndarray | str | Path], seconds: dict[str, float]) -> int:
    """Number of people in a batch; adds what each stage took."""
    pictures, paths = list(batch), [None if isinstance(image, np.ndarray) else Path(image) for image in batch]
    if any(paths):
        with timed(seconds, "load"):
            pictures = [picture if path is None else read_image(path) for picture, path in zip(pictures, paths)]
    boxes, detector = [], getattr(predictor, "detector", None)
    if detector is not None:
        with timed(seconds, "detect"):
            boxes = [(detector(picture, path),) for picture, path in zip(pictures, paths)]
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
