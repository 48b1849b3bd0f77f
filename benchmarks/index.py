"""The label index on a file of COCO's size, beside pycocotools: time, and memory of a process of its own for each.

Memory is what the process has more than before (resident, and of that what it shares with nobody), or its peak.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from benchmarks.big_coco import write_big_coco

MB = 1e6
IMAGES = 2000


def main() -> None:
    """Print a table; every line is measured by this module in another process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "person_keypoints_big.json")
        write_big_coco(path)
        print(f"118,000 images, 262,000 people, 150,000 with keypoints: {path.stat().st_size / MB:.0f} MB of JSON")
        for name in STEPS:
            subprocess.run([sys.executable, "-m", "benchmarks.index", name, path], check=True)


def build(path: str) -> str:
    from lib.data.index import LabelIndex, index_path

    seconds, _ = measured(lambda: LabelIndex.build(path))
    return (f"build the index                        {seconds:8.2f} s      peak {peak():6.0f} MB  (bound: 30 s, 3000 MB); "
            f"{index_path(path).stat().st_size / MB:.0f} MB")  # fmt: skip


def open_index(path: str) -> str:
    from lib.data.index import LabelIndex

    seconds, (resident, own) = measured(lambda: LabelIndex.of(path))
    return f"open it                                {seconds:8.4f} s      + {resident:4.0f} MB, {own:4.0f} own  (bound: 0.2 s, 50 MB)"


def read_labels(path: str) -> str:
    from lib.data.index import LabelIndex

    labels = LabelIndex.of(path)
    some = np.random.default_rng(0).integers(0, len(labels), IMAGES).tolist()
    seconds, _ = measured(lambda: [(labels.image(i), labels.keypoints(labels.rows(i))) for i in some])
    return f"name, size and keypoints of an image   {1e6 * seconds / IMAGES:8.1f} µs"


def dataset(path: str) -> str:
    from lib.data.dataset import CocoKeypoints

    seconds, (resident, own) = measured(lambda: CocoKeypoints(path, Path(path).parent))
    return f"training set from the index            {seconds:8.3f} s      + {resident:4.0f} MB, {own:4.0f} own"


def dataset_from_json(path: str) -> str:
    from lib.data.coco import read_coco
    from lib.data.dataset import CocoKeypoints

    seconds, _ = measured(lambda: CocoKeypoints(read_coco(path), Path(path).parent))
    return f"training set from the JSON             {seconds:8.2f} s      peak {peak():6.0f} MB"


def people(path: str) -> str:
    from lib.data.index import LabelIndex
    from lib.data.openpose_lists import PersonList

    labels, found = LabelIndex.of(path), []
    seconds, _ = measured(lambda: found.append(PersonList(labels)))
    return f"Lightweight OpenPose's {len(found[0]):7,d} people  {seconds:8.2f} s"


def pycocotools(path: str) -> str:
    import contextlib
    import io

    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        kept: list = []
        seconds, (resident, own) = measured(lambda: kept.append(COCO(path)))
    return f"pycocotools COCO(), in every process   {seconds:8.2f} s      + {resident:4.0f} MB, {own:4.0f} own, peak {peak():6.0f} MB"


STEPS: dict[str, Callable[[str], str]] = {f.__name__: f for f in (
    build, open_index, read_labels, dataset, dataset_from_json, people, pycocotools)}  # fmt: skip


def measured(work: Callable) -> tuple[float, tuple[float, float]]:
    """Seconds, and by how many MB the resident and the unshared memory grew while the result is kept."""
    before, start = psutil.Process().memory_full_info(), time.perf_counter()
    kept = work()
    seconds, after = time.perf_counter() - start, psutil.Process().memory_full_info()
    del kept
    return seconds, ((after.rss - before.rss) / MB, (after.uss - before.uss) / MB)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MB


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(STEPS[sys.argv[1]](sys.argv[2]), flush=True)
    else:
        main()
