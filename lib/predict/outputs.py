"""What prediction leaves behind, written frame by frame: files that are whole at any moment, whatever ends the writing."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec
import numpy as np

from lib import files
from lib.data.recorder import VideoRecorder
from lib.draw import save_picture
from lib.metrics import people_to_results
from lib.predict.sources import Source
from lib.predict.stream import Seen
from lib.skeleton import Skeleton

CSV_COLUMNS = ("frame", "time", "person", "keypoint", "x", "y", "score")
JPEG_QUALITY = 92


class GrowingFile:
    """A text file that is whole after every `append`: what was written, and an end that each append overwrites.

    Args:
        path: replaced by an empty one (head and tail) when this object is made.
        head, tail: before and behind all content.
    """

    def __init__(self, path: Path, head: bytes, tail: bytes = b""):
        self.path, self._tail = path, tail
        files.write(path, head + tail)
        self._end = len(head)
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115 (`close` does)

    def append(self, content: bytes) -> None:
        """Add content in front of the end.

        Raises:
            OSError: it could not be written; the file is as it was before.
        """
        self._file.seek(self._end)
        rest = memoryview(content + self._tail)
        try:
            while rest:  # one call, unless the disk is nearly full
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            # the place of the old end is still ours, also on a full disk
            self._file.seek(self._end)
            self._file.write(self._tail)
            self._file.truncate(self._end + len(self._tail))
            why = error.strerror or str(error)
            raise OSError(f"{self.path}: cannot be written ({why}); what is there is whole") from error
        self._end += len(content)

    def close(self) -> None:
        self._file.close()


class Results:
    """The folder a source's results go to: pictures or videos, `results.json` and `people.csv`.

    Everything is made when the first frame comes, so that a source which cannot be read costs nobody his earlier results.

    Attributes:
        frames, people: written so far.
        videos: {kind of picture: path}, none of a source of pictures.

    Args:
        out: folder, made if need be.
        source: of the frames.
        skeleton: of the people.
        overwrite: replace what an earlier run left in `out`.
        kinds: of pictures that every frame comes with; all but "connections" have their kind in the name.

    Raises:
        FileExistsError: there are results already, or `out` is a file.
        ValueError: the video written would replace the one read.
    """

    def __init__(self, out: Path, source: Source, skeleton: Skeleton, overwrite: bool = False,
                 kinds: Sequence[str] = ("connections",)):  # fmt: skip
        self.out, self.frames, self.people = out, 0, 0
        self._source, self._skeleton, self._overwrite = source, skeleton, overwrite
        self._json: GrowingFile | None = None
        self._csv: GrowingFile | None = None
        self._suffixes = {kind: "" if kind == "connections" else f"_{kind}" for kind in kinds}
        still = source.kind == "pictures"
        self.videos = {} if still else {k: out / f"{source.name}{s}.mp4" for k, s in self._suffixes.items()}
        self._recorders: dict[str, VideoRecorder] = {}
        self._check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            self.close()
        except OSError:
            # what fails behind an error is that error once more: the disk is full
            if kind is None:
                raise

    def write(self, seen: Seen, pictures: Mapping[str, np.ndarray]) -> None:
        """Append one frame.

        Args:
            seen: the frame and its people.
            pictures: {kind: (H, W, 3) RGB uint8}, what was drawn of the frame.

        Raises:
            OSError: the disk is full, or the folder cannot be written; what is there is whole.
        """
        if self._json is None:
            self.out.mkdir(parents=True, exist_ok=True)
            self._json = GrowingFile(self.out / "results.json", b"[", b"\n]\n")
            self._csv = GrowingFile(self.out / "people.csv", ",".join(CSV_COLUMNS).encode() + b"\n")
            # a camera knows its rate once it is open
            rate = self._source.rate or 25.0
            self._recorders = {kind: VideoRecorder(path, rate) for kind, path in self.videos.items()}
        for kind, recorder in self._recorders.items():
            recorder.write(pictures[kind], seen.time)
        if self._recorders:
            facts = {"time": round(seen.time, 4)}
        else:
            names = [self._write_picture(seen, pictures[kind], suffix) for kind, suffix in self._suffixes.items()]
            facts = {"file_name": names[0]}
        self._json.append(self._json_rows(seen, facts))
        self._csv.append(self._csv_rows(seen))
        self.frames += 1
        self.people += len(seen.people)

    def close(self) -> None:
        """Finish the videos. Nothing happens the second time."""
        for file in (self._json, self._csv, *self._recorders.values()):
            if file:
                file.close()

    def summary(self) -> str:
        """What was written, in half a sentence."""
        if not self.frames:
            return "nothing was written"
        drawn = ", ".join(path.name for path in self.videos.values()) or "the drawn pictures"
        frames = f"{self.frames} frame{'s' * (self.frames != 1)}"
        return f"{frames} with {self.people} people: {drawn}, results.json and people.csv in {self.out}"

    def _check(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise FileExistsError(f"{self.out} is a file; --out names a folder")
        for video in self.videos.values():
            if video.exists() and video.resolve() == _path_of(self._source):
                raise ValueError(f"{video} is the video to be read, and would be replaced by its own result: choose another "
                                 "--out")  # fmt: skip
        written = [self.out / "results.json", self.out / "people.csv", *self.videos.values()]
        there = [path.name for path in written if path.exists()]
        if there and not self._overwrite:
            raise FileExistsError(f"{self.out} holds {' and '.join(there)} already: choose another --out, or replace them with "
                                  "--overwrite true")  # fmt: skip

    def _write_picture(self, seen: Seen, picture: np.ndarray, suffix: str) -> str:
        path = self.out / f"{seen.index:06d}_{seen.path.stem}{suffix}.jpg"
        if path.exists() and not self._overwrite:
            raise FileExistsError(f"{path} exists already: choose another --out, or replace it with --overwrite true")
        return save_picture(path, picture, JPEG_QUALITY).name

    def _json_rows(self, seen: Seen, facts: dict) -> bytes:
        rows = people_to_results(seen.people, seen.index)
        ids = [{}] * len(rows) if seen.people.ids is None else [{"track_id": int(i)} for i in seen.people.ids]
        encoded = [msgspec.json.encode({**row, **facts, **track}) for row, track in zip(rows, ids)]
        first = b"\n" if self.people == 0 else b",\n"
        return first + b",\n".join(encoded) if encoded else b""

    def _csv_rows(self, seen: Seen) -> bytes:
        """One row for each keypoint found. A person has its id, without tracking its number in the frame from 1."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        people, frame, time = seen.people, seen.index, f"{seen.time:.4f}"
        persons = range(1, len(people) + 1) if people.ids is None else people.ids.tolist()
        for number, (person, keypoints) in enumerate(zip(persons, people.keypoints.tolist()), 1):
            writer.writerows(
                # who was not followed has no id: a number below 0, which means nothing in another frame
                (frame, time, person or -number, name, f"{x:.2f}", f"{y:.2f}", f"{score:.4f}")
                for name, (x, y, score) in zip(self._skeleton.keypoints, keypoints)
                if score > 0
            )
        return text.getvalue().encode()


def _path_of(source: Source) -> Path | None:
    path = getattr(source, "path", None)
    return None if path is None else Path(path).resolve()
