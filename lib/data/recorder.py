"""A video written while it is made: constant memory, and a file that plays whatever ends the writing."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

CLOCK = Fraction(1, 90_000)
FRAGMENT = 1.0  # seconds: so much a killed process loses at most
# written in fragments, each of which stands for itself, and joined to a common MP4 when it is closed
MOVFLAGS = "hybrid_fragmented+frag_every_frame+empty_moov+default_base_moof"


class VideoRecorder:
    """Writes H.264 in MP4 frame by frame, with the time of every frame; it plays in a notebook.

    Pictures with an odd side get one more column or row, because the format halves the colours. The file is on disk in
    fragments of about a second: whoever kills the process, or fills the disk, has a video up to there.

    Attributes:
        path: of the file.
        frames: written so far.

    Args:
        path: ends in .mp4; the folder is made. A file of that name is replaced when the first frame comes.
        rate: frames per second, as far as known; also the spacing of frames written without a time.
        quality: x264's crf; 18 is hardly distinguishable from the original, every 6 more halve the file.

    Raises:
        ValueError: the name does not end in .mp4, or the rate is not positive.
        OSError: writing failed; what was written before plays.
    """

    def __init__(self, path: str | Path, rate: float = 25.0, quality: int = 20):
        self.path, self.frames = Path(path), 0
        if self.path.suffix.lower() != ".mp4":
            raise ValueError(f"{path}: a recording's name ends in .mp4")
        if not rate > 0:
            raise ValueError(f"{path}: {rate} frames per second; the rate must be positive")
        self._rate, self._quality = float(rate), quality
        self._container = self._stream = None
        self._last = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def write(self, image: np.ndarray, time: float | None = None) -> None:
        """Append a frame.

        Args:
            image: (H, W, 3) RGB uint8; one of another size than the first is scaled to it.
            time: seconds at which it is shown, later than the frame before; the first frame's time is the beginning. None
                continues with the rate.
        """
        if self._container is None:
            self._open(image, time)
        if time is None:
            pts = self._last + round(1 / self._rate / CLOCK) if self.frames else 0
        else:
            pts = round((time - self._begin) / CLOCK)
        self._last = max(pts, self._last + 1)
        frame = self._frame(image)
        frame.pts, frame.time_base = self._last, CLOCK
        self._attempt(lambda: self._container.mux(self._stream.encode(frame)))
        self.frames += 1

    def close(self) -> None:
        """Write what the encoder still holds, and the table of contents. Nothing happens when it is closed already."""
        if self._container is None:
            return
        self._attempt(lambda: self._container.mux(self._stream.encode(None)))
        self._attempt(self._container.close)
        self._container = None
        self._file.close()

    def _open(self, image: np.ndarray, time: float | None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = _Fragments(self.path)
        options = {"movflags": MOVFLAGS, "flush_packets": "1"}
        self._container = av.open(self._file, "w", format="mp4", options=options)
        # zerolatency: no frame waits in the encoder
        options = {"crf": str(self._quality), "preset": "superfast", "tune": "zerolatency"}
        rate = Fraction(self._rate).limit_denominator(1001)
        stream = self._container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = (side + side % 2 for side in image.shape[:2])
        stream.pix_fmt, stream.time_base, stream.codec_context.time_base = "yuv420p", CLOCK, CLOCK
        # which matrix OpenCV's conversion uses has to be said, players guess by the size
        stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.SMPTE170M, ColorRange.MPEG
        stream.codec_context.gop_size = max(1, round(FRAGMENT * self._rate))
        self._stream, self._begin = stream, time or 0.0

    def _frame(self, image: np.ndarray) -> av.VideoFrame:
        height, width = self._stream.height, self._stream.width
        bottom, right = height - image.shape[0], width - image.shape[1]
        if (bottom, right) != (0, 0):
            if bottom in (0, 1) and right in (0, 1):
                image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
            else:
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        # OpenCV converts in a twentieth of the time that libswscale takes
        return av.VideoFrame.from_ndarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), format="yuv420p")

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            container, self._container = self._container, None
            kept = self._file.give_up()
            with suppress(av.FFmpegError):  # it repeats what was just said
                container.close()
            self._file.close()
            if not kept:
                self.path.unlink()
            left = "what is there plays" if kept else "nothing of it could be kept"
            why = error.strerror or str(error)
            raise OSError(f"{self.path}: cannot be written after {self.frames} frames ({why}); {left}") from error


class _Fragments:
    """The file under the writer of MP4. Once something went wrong it is cut behind the last whole fragment and left alone."""

    def __init__(self, path: Path):
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 (`close` does)
        self._lost = False

    def write(self, content: bytes) -> int:
        rest = memoryview(content)
        while rest and not self._lost:
            rest = rest[self._file.write(rest) :]
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def give_up(self) -> bool:
        """Cut off what is not whole, and do nothing from now on; False if no frame is left."""
        self._lost = True
        end = whole = 0
        length = self._file.seek(0, os.SEEK_END)
        while end + 16 <= length:
            self._file.seek(end)
            size, kind, long = struct.unpack(">I4sQ", self._file.read(16))
            end += long if size == 1 else size or length
            if kind == b"mdat" and end <= length:
                whole = end
        self._file.truncate(whole)
        return whole > 0

    def close(self) -> None:
        self._file.close()
