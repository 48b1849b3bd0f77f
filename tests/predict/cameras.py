"""A camera for tests: a pole that walks to the right, again and again."""

import time

import cv2
import numpy as np

from tests.dots import draw_poles


class Endless:
    """Stands in for cv2.VideoCapture.

    Args:
        number: of the camera.
        pictures: after so many it is unplugged.
        opens: whether it can be opened at all.
        pause: seconds a picture takes.
    """

    def __init__(self, number: int, pictures: int | None = None, opens: bool = True, pause: float = 0.004):
        self.left, self.opens, self.pause, self.released = pictures, opens, pause, False
        self.pictures = [draw_poles((96, 128), [(30 + i, 20, 80)])[..., ::-1] for i in range(40)]
        self.count = 0

    def isOpened(self) -> bool:
        return self.opens

    def get(self, what: int) -> float:
        return 30.0 if what == cv2.CAP_PROP_FPS else 0.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        time.sleep(self.pause)
        if self.count == self.left:
            return False, None
        self.count += 1
        return True, self.pictures[self.count % len(self.pictures)].copy()

    def release(self) -> None:
        self.released = True
