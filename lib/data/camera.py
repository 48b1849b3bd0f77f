"""A camera as a source of frames: always the newest one, however long the last one took."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

PATIENCE = 5.0  # seconds without a picture after which a camera counts as gone


@dataclass(frozen=True)
class CameraFrame:
    """One frame: its number among those taken, seconds since the first one, (H, W, 3) RGB uint8."""

    index: int
    time: float
    image: np.ndarray


class Camera:
    """A camera of this computer.

    A thread of its own empties the camera, so that who is slow gets the newest picture and not one from a queue.

    Attributes:
        name: "camera0" for the first.
        dropped: pictures that nobody took before the next one came.
        damage: why it ended, if it was not asked to.

    Args:
        number: 0 is the first camera.
        capture: what opens it; OpenCV's `VideoCapture` unless another is given.
        patience: seconds without a picture after which the camera counts as gone.
    """

    kind, length = "camera", None

    def __init__(self, number: int = 0, capture: Callable | None = None, patience: float = PATIENCE):
        self.number, self.name = number, f"camera{number}"
        self.dropped, self.damage, self.rate = 0, None, None
        self._capture, self._patience = capture, patience

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[CameraFrame]:
        """Frames start … stop − 1 of those taken, until the camera vanishes or the generator is closed.

        Raises:
            OSError: the camera cannot be opened.
        """
        self.dropped, self.damage = 0, None
        capture = self._opened()
        newest = _Newest(capture)
        index = 0
        began = None
        try:
            while stop is None or index < stop:
                taken = newest.take(self._patience)
                if taken is None:
                    self.damage = f"camera {self.number} gave no more pictures after {index} frames: is it unplugged?"
                    return
                moment, picture = taken
                began = moment if began is None else began
                if index >= start:
                    yield CameraFrame(index, moment - began, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
                index += 1
        finally:
            self.dropped = newest.stop()

    def _opened(self):
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the sentence below says it better
        try:
            capture = (self._capture or cv2.VideoCapture)(self.number)
        finally:
            cv2.utils.logging.setLogLevel(level)
        if not capture.isOpened():
            capture.release()
            raise OSError(f"camera {self.number} cannot be opened: it is not there, another program has it, or you may not "
                          "use it")  # fmt: skip
        rate = capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 1 <= rate <= 1000 else None
        return capture


class _Newest:
    """Reads in a thread and keeps the last picture alone."""

    def __init__(self, capture):
        self._capture, self._changed = capture, threading.Condition()
        self._picture, self._over, self._dropped = None, False, 0
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)
        self._thread.start()

    def take(self, patience: float) -> tuple[float, np.ndarray] | None:
        """Moment and BGR pixels of a picture that was not taken before; None when no more come."""
        with self._changed:
            self._changed.wait_for(lambda: self._picture is not None or self._over, patience)
            picture, self._picture = self._picture, None
        return picture

    def stop(self) -> int:
        """End the thread and release the camera; returns how many pictures nobody took."""
        self._over = True
        self._thread.join(timeout=2)  # a camera that hangs is left to its fate
        return self._dropped

    def _read(self) -> None:
        try:
            while not self._over:
                good, picture = self._capture.read()
                if not good:
                    break
                with self._changed:
                    self._dropped += self._picture is not None
                    self._picture = time.monotonic(), picture
                    self._changed.notify()
        finally:
            self._capture.release()
            with self._changed:
                self._over = True
                self._changed.notify()
