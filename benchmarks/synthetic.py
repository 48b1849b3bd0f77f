"""How fast synthetic people are made: rendered, encoded and written, with labels, on one and on two cores."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from lib.data.synthetic import FIGURES, Scene, render, write_dataset

NUM_IMAGES = 600


def main() -> None:
    """Print images per second of 256×256 pixels (aim: at least 100 on two cores)."""
    for figure in FIGURES:
        render(Scene(), 0, 0, figure)  # first use
        start = time.process_time()
        for index in range(100):
            render(Scene(), 0, index, figure)
        print(
            f"{figure}: render                     {(time.process_time() - start) * 10:6.1f} ms of one core per image"
        )
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                write_dataset(Path(folder) / "set", NUM_IMAGES, 0, figure=figure, workers=workers)
                rate = NUM_IMAGES / (time.perf_counter() - start)
            print(f"{figure}: write_dataset, {workers} process{'es' if workers > 1 else '  '} {rate:6.0f} images/s")


if __name__ == "__main__":
    main()
