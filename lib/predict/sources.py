"""Where pictures come from: files, folders, videos and cameras, all read frame by frame in one way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import PIL.Image
from PIL.ExifTags import Base

from lib.data.augment import IMAGE_SUFFIXES, image_files, read_image
from lib.data.camera import Camera
from lib.data.video import Video

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mp2", ".ts", ".m2ts", ".mts", ".wmv",
                  ".flv", ".3gp", ".ogv", ".vob", ".mxf", ".h264", ".264", ".h265", ".hevc", ".mjpeg", ".mjpg", ".y4m")  # fmt: skip
PICTURES_PER_SECOND = 25.0  # pictures have no time of their own; a tracker needs one


class Source(Protocol):
    """Something that gives frames.

    Attributes:
        name: for files written about it.
        kind: what it is.
        length: frames, as far as it knows.
        rate: frames per second, as far as it knows.
        damage: after a walk through the frames, a sentence about what could not be read, or None.
    """

    name: str
    kind: Literal["pictures", "video", "camera"]
    length: int | None
    rate: float | None
    damage: str | None

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator:
        """Frames start … stop − 1, each with `index`, `time` in seconds and `image` (H, W, 3) RGB uint8."""


@dataclass(frozen=True)
class Picture:
    """One picture of a folder: its number from 0, a nominal time in seconds, the pixels, the file."""

    index: int
    time: float
    image: np.ndarray
    path: Path


class Pictures:
    """Picture files as a source; those that cannot be read are left out and counted in `damage`.

    They are upright, as people see them: a rotation noted by EXIF is applied, as it is in videos. (Data sets are read in
    their stored pixels, which is what annotations count in.)

    Raises:
        FileNotFoundError: no such file or folder, or no picture in it.
    """

    kind, rate = "pictures", PICTURES_PER_SECOND

    def __init__(self, path: str | Path, without: Path | None = None):
        path = Path(path)
        self.name, self.damage = path.resolve().name if path.is_dir() else path.stem, None
        self.paths = [path]
        if path.is_dir():
            # what was drawn before is not a picture to look at
            drawn = without and without.resolve()
            self.paths = [file for file in image_files(path) if not (drawn and file.resolve().is_relative_to(drawn))]
            if not self.paths:
                raise FileNotFoundError(f"{path} holds no image but those in {without}")
        self.length = len(self.paths)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Picture]:
        """Pictures start … stop − 1.

        Raises:
            ValueError: not one of them can be read; the first reason is told.
        """
        self.damage, faults, read = None, [], 0
        for index, path in list(enumerate(self.paths))[start:stop]:
            try:
                image, _ = upright(path)
            except (ValueError, OSError) as error:
                faults.append(str(error))
                continue
            read += 1
            yield Picture(index, index / PICTURES_PER_SECOND, image, path)
        if faults and not read:
            raise ValueError(faults[0])
        if faults:
            self.damage = f"{len(faults)} of {read + len(faults)} pictures could not be read; the first: {faults[0]}"
        if not read:
            raise ValueError(f"there are {len(self.paths)} pictures (0 … {len(self.paths) - 1}), start is {start}")


def open_source(source: str | Path, without: Path | None = None) -> Source:
    """A picture, a folder of pictures, a video, or `camera:N`.

    Args:
        source: path, or "camera:0" for the first camera.
        without: folder whose pictures are not taken, though it lies in `source`.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: an address, a kind of file that is neither picture nor video, an empty file.
    """
    text = str(source)
    if text.startswith("camera:"):
        number = text.removeprefix("camera:")
        if not number.isdecimal():
            raise ValueError(f"{text!r}: cameras are numbered, camera:0 is the first")
        return Camera(int(number))
    path = Path(source)
    if "://" in text:
        raise ValueError(f"{text}: addresses are not read; download the file and give its path")
    if path.is_dir():
        return Pictures(path, without)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such picture, video or folder (a camera is camera:0)")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty; copy or download it again")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return Pictures(path)
    if suffix not in VIDEO_SUFFIXES:
        raise ValueError(
            f"{path}: {suffix or 'no suffix'!r} is neither a picture ({' '.join(IMAGE_SUFFIXES)}) nor a video "
            f"({' '.join(VIDEO_SUFFIXES[:6])} …)"
        )
    return Video(path, progress=False)


def upright(path: Path) -> tuple[np.ndarray, bool]:
    """`read_image`, turned and mirrored as EXIF says, and whether there was anything to turn."""
    image = read_image(path)
    with PIL.Image.open(path) as header:  # reads no pixels
        orientation = header.getexif().get(Base.Orientation, 1)
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image), orientation != 1
