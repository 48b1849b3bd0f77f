"""The camera: always the newest picture, and one sentence when it goes."""

import threading
import time
from typing import ClassVar

import numpy as np
import pytest

from lib.data.camera import Camera


class Numbered:
    """Stands in for cv2.VideoCapture: every picture is blue and shows its number."""

    made: ClassVar[list] = []

    def __init__(self, number, pictures=10**9, pause=0.002, hang=False):
        self.count, self.pictures, self.pause, self.hang, self.released = 0, pictures, pause, hang, False
        self.made.append(self)

    def isOpened(self):
        return self.pictures > 0

    def get(self, what):
        return 0.0

    def read(self):
        time.sleep(self.pause)
        if self.hang and self.count == self.pictures:
            time.sleep(0.5)
        if self.count >= self.pictures:
            return False, None
        self.count += 1
        return True, np.full((4, 6, 3), (200, self.count % 200, 0), np.uint8)

    def release(self):
        self.released = True


def camera(**options) -> Camera:
    patience = options.pop("patience", 5.0)
    return Camera(1, lambda number: Numbered(number, **options), patience)


def test_who_is_slow_gets_the_newest_picture():
    source = camera()
    numbers, times = [], []
    for frame in source.frames(stop=5):
        time.sleep(0.05)
        assert frame.image[0, 0].tolist()[::2] == [0, 200], "RGB"
        numbers.append(int(frame.image[0, 0, 1]))
        times.append(frame.time)
    assert all(np.diff(numbers) > 5) and all(np.diff(times) > 0.02) and times[0] == 0
    assert source.dropped > 20 and source.damage is None and source.rate is None


def test_no_picture_comes_twice():
    numbers = [int(frame.image[0, 0, 1]) for frame in camera(pause=0.01).frames(stop=8)]
    assert numbers == sorted(set(numbers))


def test_it_is_released_when_nobody_looks_any_more():
    frames = camera().frames()
    next(frames)
    frames.close()
    assert Numbered.made[-1].released and not any(thread.name == "camera" for thread in threading.enumerate())


@pytest.mark.parametrize("hang", [False, True])
def test_a_camera_that_vanishes_or_hangs_ends_with_a_sentence(hang):
    source = camera(pictures=6, pause=0.02, hang=hang, patience=0.15)
    frames = list(source.frames())
    assert 1 <= len(frames) <= 6
    assert source.damage == f"camera 1 gave no more pictures after {len(frames)} frames: is it unplugged?"


def test_one_that_is_not_there_is_an_error(capfd):
    with pytest.raises(OSError, match="camera 1 cannot be opened"):
        next(camera(pictures=0).frames())
    assert Numbered.made[-1].released
    with pytest.raises(OSError, match="camera 97 cannot be opened"):  # OpenCV's own
        next(Camera(97).frames())
    assert capfd.readouterr().err == ""
