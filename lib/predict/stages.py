"""Work in stages: the time each takes, and threads in which neighbouring stages overlap."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

STAGES = ("read", "detect", "prepare", "network", "decode", "track", "draw", "write")
REMEMBERED = 2000  # frames of which medians are taken: memory stays the same however long a video is


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time of the block to `seconds[stage]`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start


class StageTimes:
    """Seconds per frame of every stage, and frames per second of all together.

    Attributes:
        frames: frames counted so far.
        elapsed: seconds from the making of this object to the last frame.
    """

    def __init__(self):
        self.frames, self.elapsed = 0, 0.0
        self._began = time.perf_counter()
        self._sums: dict[str, float] = {}
        self._recent: dict[str, deque[float]] = {}

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count one frame with what its stages took."""
        self.frames += 1
        self.elapsed = time.perf_counter() - self._began
        for stage, value in seconds.items():
            self._sums[stage] = self._sums.get(stage, 0.0) + value
            self._recent.setdefault(stage, deque(maxlen=REMEMBERED)).append(value)

    @property
    def fps(self) -> float:
        """Frames per second of the whole, as the user waits for it; 0 before the first frame."""
        return self.frames / self.elapsed if self.elapsed else 0.0

    @property
    def median(self) -> dict[str, float]:
        """Median seconds of each stage over the last frames, in the order of the stages."""
        return {stage: float(np.median(self._recent[stage])) for stage in self._ordered()}

    @property
    def mean(self) -> dict[str, float]:
        """Mean seconds of each stage over all frames, in the order of the stages."""
        return {stage: self._sums[stage] / self.frames for stage in self._ordered()}

    def latest(self, frames: int = 25) -> dict[str, float]:
        """Mean seconds of each stage over the last few frames, in the order of the stages."""
        return {stage: float(np.mean([*self._recent[stage]][-frames:])) for stage in self._ordered()}

    def table(self) -> str:
        """Aligned text: median and mean milliseconds of each stage, and the frames per second it would reach alone."""
        median, mean = self.median, self.mean
        lines = [f"{'stage':10}{'median ms':>11}{'mean ms':>10}{'FPS alone':>11}"]
        lines += [
            f"{stage:10}{1e3 * median[stage]:11.2f}{1e3 * mean[stage]:10.2f}{1 / max(mean[stage], 1e-9):11.1f}"
            for stage in median
        ]
        return "\n".join([*lines, f"{self.frames} frame{'s' * (self.frames != 1)} in {self.elapsed:.1f} s, {self.fps:.1f} FPS together"])

    def _ordered(self) -> list[str]:
        return [s for s in STAGES if s in self._sums] + [s for s in self._sums if s not in STAGES]


def overlapped(items: Iterable[Item], depth: int = 1) -> Generator[Item, None, None]:
    """The same items in the same order, made in a thread of their own, at most `depth` ahead of who takes them.

    What `items` raises is raised here, behind the items before it. Closing the generator, also by leaving a loop early,
    stops the thread and closes `items` in it.
    """
    ready: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def hand_over(kind: str, value) -> None:
        while not stop.is_set():
            try:
                return ready.put((kind, value), timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                hand_over("item", item)
                if stop.is_set():
                    break
        except BaseException as error:  # noqa: BLE001  whatever it is, it belongs to who waits for the items
            hand_over("error", error)
        else:
            hand_over("end", None)
        finally:
            close = getattr(items, "close", None)
            if close:
                close()

    worker = threading.Thread(target=work, name="overlapped", daemon=True)
    worker.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
            del value  # or the picture would be held until the next one comes
    finally:
        stop.set()
        worker.join()
