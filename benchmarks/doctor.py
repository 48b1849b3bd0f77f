"""The dataset doctor: on labels of COCO's size, on pictures, and how surely it tells exchanged sides."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.big_coco import write_big_coco
from lib.data.coco import no_garbage_collection
from lib.data.synthetic import write_dataset
from lib.doctor import examine, repair
from lib.doctor.pictures import look
from lib.doctor.reading import Labels

NUM_IMAGES = 400
PARTS = ("hip knee ankle", "shoulder elbow wrist", "eye ear", "elbow", "wrist", "knee", "ankle",
         "eye ear shoulder elbow wrist hip knee ankle")  # fmt: skip


def main() -> None:
    """Print seconds and memory (bounds: 60 s, 4 GB), pictures per second, and found against false alarms."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        labels_of_coco_size(folder)
        file = write_dataset(folder / "set", NUM_IMAGES, 1) / "annotations" / "person_keypoints_train.json"
        look(folder / "set" / "train" / "000000.jpg")  # the first loads the reader
        start = time.perf_counter()
        examine(file, folder / "set" / "train")
        rate = NUM_IMAGES / (time.perf_counter() - start)
        print(f"pictures read, decoded, hashed: {rate:,.0f} per second of 256×256")
        exchanged_sides(file)


def labels_of_coco_size(folder: Path) -> None:
    path = write_big_coco(folder / "big.json")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    diagnosis = examine(path)
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1e6 if sys.platform != "darwin" else 1e9
    print(f"{diagnosis.summary()}\nexamined in {seconds:.1f} s (bound: 60 s), peak {peak / unit:.1f} GB "
          f"({before / unit:.1f} GB before; bound: 4 GB)")  # fmt: skip
    start = time.perf_counter()
    repair(path, folder / "mended.json")
    print(f"repaired copy written in {time.perf_counter() - start:.1f} s")


@no_garbage_collection()
def exchanged_sides(file: Path) -> None:
    """Exchange parts of every fourth person: how many of them are named, and how many others."""
    for parts in PARTS:
        content = msgspec.json.decode(file.read_bytes())
        names = content["categories"][0]["keypoints"]
        index = np.arange(len(names))
        for part in parts.split():
            pair = names.index(f"left_{part}"), names.index(f"right_{part}")
            index[list(pair)] = pair[::-1]
        changed = set()
        for row, annotation in enumerate(content["annotations"]):
            if row % 4 == 0 and annotation["num_keypoints"] > 8:
                annotation["keypoints"] = np.reshape(annotation["keypoints"], (-1, 3))[index].ravel().tolist()
                changed.add(row)
        told = told_of(Labels(file, content))
        print(
            f"exchanged {parts:44} named {len(told & changed):4} of {len(changed)}, false alarms {len(told - changed)}"
        )


def told_of(labels: Labels) -> set[int]:
    """Rows of the annotations that are named for exchanged sides."""
    from lib.doctor.sides import sides

    return {int(row) for hit in sides(labels) for row in hit.rows}


if __name__ == "__main__":
    main()
