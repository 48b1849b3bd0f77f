"""Pictures out of a video: read once from its beginning, so that frame numbers are exact whatever the file.

Seeking by frame number is a guess in videos of variable frame rate (phones, screen recordings). Decoding is fast; here
every frame is decoded in order and counted, and its time is the one which a player shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Literal

import av
import cv2
import numpy as np
from av.stream import Disposition
from tqdm.auto import tqdm

from lib import files
from lib.draw import encoded

SHARPNESS_WIDTH = 512  # pixels: sharpness is measured at about the size which a network sees
SIGNS = {"first": 0, "sharpest": 1, "blurriest": -1}
ENDS_EARLY = 0.5, 0.05  # seconds and share of the length that may be missing before a file counts as cut off


def frames(
    video: str | Path,
    out_dir: str | Path,
    step: int = 1,
    select: Literal["first", "sharpest", "blurriest"] = "first",
    clip_size: int | None = None,
    clip_step: int | None = None,
    start_idx: int = 0,
    max_idx: int | None = None,
    format: Literal["jpg", "png"] = "jpg",
    quality: int = 95,
) -> list[Path]:
    """Write frames of a video as pictures, named VIDEO_INDEX_TIMEs.jpg: `walk_000123_00004.100s.jpg`.

    All numbers count frames of the video. Rotation as phones note it is applied. A picture that is there already stays
    as it is, so a stopped run is simply started again.

    Args:
        video: file to read.
        out_dir: folder to write into; the pictures of several videos may share it.
        step: one picture for every so many frames.
        select: which frame of each `step`: the first, the sharpest or the blurriest.
        clip_size: cut the video into clips of so many frames, each in a folder VIDEO_clip_INDEX of its own; the last
            one may be shorter.
        clip_step: from the start of a clip to the start of the next; None: clip_size. Less lets clips overlap.
        start_idx: first frame to use.
        max_idx: last frame to use; None: the last one of the video.
        format: of the pictures; png loses nothing.
        quality: of JPEG, 1 to 100.

    Returns:
        The pictures, also those that were there before.

    Raises:
        FileNotFoundError, ValueError: no such file, not a video, numbers that do not fit.
        FileExistsError: a file of that name has other content.
        RuntimeError: the video is damaged; what could be read has been written.
    """
    _check(step, clip_size, clip_step, start_idx, max_idx, quality)
    if select not in SIGNS:
        raise ValueError(f"select is {select!r}; choose one of {', '.join(SIGNS)}")
    reader, out_dir = Video(video), Path(out_dir)
    stop = None if max_idx is None else max_idx + 1
    written, kept = [], []
    for clip, frame in _selected(reader.frames(start_idx, stop), start_idx, step, SIGNS[select], clip_size, clip_step):
        folder = out_dir if clip is None else out_dir / f"{reader.path.stem}_clip_{clip:06d}"
        path = folder / f"{reader.name_of(frame)}.{format}"
        (written if write_picture(path, frame.image, quality) else kept).append(path)
    counts = f"{_count(reader.count, 'frame')} read, {_count(len(written), 'picture')} written"
    print(f"{reader.path.name}: {counts} to {out_dir}" + f", {len(kept)} there already" * bool(kept))
    if reader.damage:
        raise RuntimeError(reader.damage)
    return sorted(written + kept)


@dataclass(frozen=True)
class Frame:
    """One frame: its number from 0, its time in seconds since the video's beginning, the decoded picture."""

    index: int
    time: float
    raw: av.VideoFrame

    @cached_property
    def image(self) -> np.ndarray:
        """(H, W, 3) RGB uint8, upright."""
        # both count counter-clockwise
        return np.ascontiguousarray(np.rot90(self.raw.to_ndarray(format="rgb24"), round(self.raw.rotation / 90)))

    @cached_property
    def sharpness(self) -> float:
        """See `sharpness`."""
        return sharpness(self.raw.to_ndarray(format="gray"))


class Video:
    """A video file.

    Attributes:
        path: of the file.
        length: number of frames as the file claims, None where it does not say. May be wrong.
        count: frames read by the last walk through `frames`.
        damage: a sentence about what that walk could not read, or None.
        rate: mean frames per second, None where the file does not say.
        name: of the file, without its suffix.

    Args:
        path: of the file.
        progress: show a bar while frames are read.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a video, or one without pictures.
    """

    kind = "video"

    def __init__(self, path: str | Path, progress: bool = True):
        self.path, self.progress = Path(path), progress
        self.name, self.count, self.damage = self.path.stem, 0, None
        if not self.path.is_file():
            raise FileNotFoundError(f"{path}: there is no such video file")
        container, stream = self._open()
        with container:
            rate = stream.average_rate or stream.guessed_rate
            self.rate = float(rate) if rate else None
            self.length = stream.frames or None
            if self.length is None and container.duration and rate:
                self.length = round(container.duration / av.time_base * rate)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Frames start … stop − 1, in the order in which they are shown; all before them are decoded too.

        Raises:
            ValueError: nothing could be decoded, or the video ends before `start`.
        """
        self.count, self.damage = 0, None
        total = min(self.length or stop or 0, stop or self.length or 0) or None
        faults, end = {"unreadable": 0, "corrupt": 0}, 0.0
        container, stream = self._open()
        bar = tqdm(total=total, desc=self.path.name, unit="frame", disable=not self.progress)
        with container, bar:
            begin, length = (container.start_time or 0) / av.time_base, _seconds(container, stream)
            for raw in _decoded(container, stream, faults):
                if self.count == stop:
                    break
                # a bare stream has no times: then the nominal rate gives them
                time = float(self.count / (stream.average_rate or 25) if raw.pts is None else raw.time - begin)
                end = time + float((raw.duration or 0) * (raw.time_base or 0))
                self.count += 1
                bar.update()
                if self.count > start:
                    yield Frame(self.count - 1, time, raw)
        complete = self.count == stop or length is None or end + max(ENDS_EARLY[0], ENDS_EARLY[1] * length) > length
        self._judge(start, faults, None if complete else f"it ends at {end:.1f} s of {length:.1f} s")

    def name_of(self, frame: Frame) -> str:
        """Video, number and time, for the frame's picture: `walk_000123_00004.100s`."""
        return f"{self.path.stem}_{frame.index:06d}_{frame.time:09.3f}s"

    def _open(self):
        try:
            container = av.open(str(self.path))
        except av.FFmpegError as error:
            raise ValueError(f"{self.path}: not a video that can be read ({error.strerror}); an interrupted recording "
                             "lacks its table of contents, convert it with the program that made it") from None  # fmt: skip
        # the cover of a song is a video stream, too
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        best = container.streams.best("video")
        if not streams or streams[0].codec_context is None:
            container.close()
            raise ValueError(
                f"{self.path}: has no pictures" + (" in a known format" if streams else ", only sound or nothing")
            )
        return container, best if best in streams else streams[0]

    def _judge(self, start: int, faults: dict[str, int], early: str | None) -> None:
        if self.count == 0:
            raise ValueError(f"{self.path}: not one frame could be decoded, the file is damaged or its format unknown")
        found = [f"{faults['unreadable']} packets are unreadable (frames count on without them)"] * (
            faults["unreadable"] > 0
        )
        found += [f"{faults['corrupt']} frames are corrupt"] * (faults["corrupt"] > 0) + [early] * bool(early)
        if found:
            self.damage = f"{self.path}: damaged, {_count(self.count, 'frame')} could be read; {', '.join(found)}"
        if self.count <= start:
            raise ValueError(self.damage or f"{self.path}: has {_count(self.count, 'frame')} (0 … {self.count - 1}), "
                             f"start_idx is {start}")  # fmt: skip


def sharpness(image: np.ndarray) -> float:
    """Variance of the Laplacian of the grey picture at 512 pixels of width (narrower ones stay as they are).

    Only good for ranking pictures of the same scene: what is in the picture counts more than the focus.

    Args:
        image: (H, W, 3) RGB or (H, W) grey, uint8.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    height, width = grey.shape
    if width > SHARPNESS_WIDTH:
        grey = cv2.resize(grey, (SHARPNESS_WIDTH, max(1, round(height * SHARPNESS_WIDTH / width))),
                          interpolation=cv2.INTER_AREA)  # fmt: skip
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def write_picture(path: str | Path, image: np.ndarray, quality: int = 95) -> bool:
    """Write an RGB picture as PNG or JPEG, by the suffix; False if exactly this file is there already.

    Raises:
        FileExistsError: there is another file of that name.
    """
    path = Path(path)
    data = encoded(path.suffix, image, quality)
    if not path.exists():
        files.write(path, data)
        return True
    if path.read_bytes() != data:
        raise FileExistsError(f"{path} exists with other content: choose another out_dir, or remove the file")
    return False


def write_video(path: str | Path, images: Iterable[np.ndarray], times: float | Sequence[float] = 25.0,
                rotation: int = 0) -> Path:  # fmt: skip
    """Write an H.264 video, which also plays in a notebook.

    Args:
        path: ends in .mp4 or .mkv; written beside and moved into place.
        images: (H, W, 3) RGB uint8, all of one size, with even sides.
        times: frames per second, or the second at which each frame is shown, for a variable rate.
        rotation: degrees counter-clockwise by which players shall turn it, as phones note it.
    """
    clock = Fraction(1, 90_000)
    with files.beside(path) as writing, av.open(str(writing), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.pix_fmt, stream.time_base, stream.codec_context.time_base = "yuv420p", clock, clock
        if rotation:
            stream.set_display_rotation(rotation)
        for i, image in enumerate(images):
            if i == 0:
                stream.height, stream.width = size = image.shape[:2]
            if image.shape[:2] != size or size[0] % 2 or size[1] % 2:
                raise ValueError(f"{path}: frame {i} is {image.shape[1]}×{image.shape[0]} pixels; all must be of one "
                                 "size with even sides")  # fmt: skip
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            second = i / times if isinstance(times, int | float) else times[i]
            frame.pts, frame.time_base = round(second / clock), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return Path(path)


def _selected(frames: Iterable[Frame], start: int, step: int, sign: int, clip_size: int | None,
              clip_step: int | None) -> Iterator[tuple[int | None, Frame]]:  # fmt: skip
    """One frame of every window of `step` frames, with the index of the first frame of its clip.

    A frame lies in several clips where they overlap; each open clip holds one candidate.
    """
    best: dict[int | None, Frame] = {}
    for frame in frames:
        i = frame.index - start
        clips = [None]
        if clip_size is not None:
            every = clip_step or clip_size
            clips = [start + c * every for c in range(max(0, (i - clip_size) // every + 1), i // every + 1)]
        for done in best.keys() - set(clips):
            yield done, best.pop(done)
        for clip in clips:
            if (frame.index - (start if clip is None else clip)) % step == 0:
                if clip in best:
                    yield clip, best[clip]
                best[clip] = frame
            elif sign and sign * frame.sharpness > sign * best[clip].sharpness:
                best[clip] = frame
    yield from best.items()


def _decoded(container, stream, faults: dict[str, int]) -> Iterator[av.VideoFrame]:
    """All frames that can be read, going on behind a damaged packet; what is wrong is counted in `faults`."""
    stream.thread_type = "AUTO"
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            decoded = () if packet is None else packet.decode()
        except av.FFmpegError:
            faults["unreadable"] += 1
            # a broken container ends the packets, a broken packet does not
            continue
        if packet is None:
            return
        for raw in decoded:
            faults["corrupt"] += raw.is_corrupt
            yield raw


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _seconds(container, stream) -> float | None:
    """How long the file claims to be: the shorter of what its head and its stream say."""
    claims = [container.duration / av.time_base] if container.duration else []
    claims += [float(stream.duration * stream.time_base)] if stream.duration else []
    return min(claims, default=None)


def _check(step: int, clip_size: int | None, clip_step: int | None, start: int, last: int | None, quality: int) -> None:
    for name, value in (("step", step), ("clip_size", clip_size), ("clip_step", clip_step)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it counts frames and must be at least 1")
    if clip_step is not None and clip_size is None:
        raise ValueError(f"clip_step is {clip_step} but there is no clip_size: say how many frames a clip has")
    if clip_size is not None and step > clip_size:
        raise ValueError(f"step {step} is longer than a clip of {clip_size} frames: make clip_size at least {step}")
    if start < 0:
        raise ValueError(f"start_idx is {start}; the first frame is 0")
    if last is not None and last < start:
        raise ValueError(f"max_idx {last} comes before start_idx {start}: no frame is left")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; JPEG knows 1 to 100")
