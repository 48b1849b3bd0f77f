"""Watch a source through a predictor: one iterator for the command, the live view and the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lib.people import People
from lib.predict.fitting import Fitted
from lib.predict.predictor import Predictor
from lib.predict.sources import Source, open_source
from lib.predict.stages import overlapped, timed
from lib.predict.topdown import carried_boxes

SURE = 0.3  # score of the keypoints by which people are followed between two detections


@dataclass
class Seen:
    """One frame with the people found in it.

    Attributes:
        index: number of the frame in its source, from 0.
        time: seconds since the source's beginning (pictures count as 25 per second).
        image: (H, W, 3) RGB uint8.
        people: in pixels of the image; with ids when tracked.
        path: of the picture, None for a frame of a video or camera.
        seconds: what each stage took for this frame; add "draw" and "write" with `timed(seen.seconds, "draw")`.
        fitted: the network's input.
        answers: its maps, so that `predictor.people(seen.answers, seen.fitted)` reads them again with another codec.
    """

    index: int
    time: float
    image: np.ndarray
    people: People | None = None
    path: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    fitted: Fitted | None = None
    answers: list[dict[str, np.ndarray]] | None = None


def watch(
    predictor: Predictor,
    source: str | Path | Source,
    tracker: Callable[[People, float], People] | None = None,
    *,
    start: int = 0,
    stop: int | None = None,
    batch_size: int = 1,
    overlap: bool = True,
    detect_every: int = 1,
) -> Generator[Seen, None, None]:
    """Find the people of every frame of a source, in order.

    While the network works on a frame, the next one is read and fitted, and the people of the one before are read and
    tracked (and drawn and written by who takes the frames). Memory does not grow with the length of the source. Close the
    generator, or leave the loop, to end it.

    Args:
        predictor: finds them.
        source: path of a picture, a folder or a video, "camera:0", or a source that is open already.
        tracker: gives ids, called in the order of the frames with people and seconds.
        start, stop: frames start … stop − 1.
        batch_size: frames that go through the network together; a camera's go alone.
        overlap: work in three threads; the results are the same without.
        detect_every: of a top-down model: its detector looks at each so many-th frame only (and where nobody is known). In between
            people are looked for where they were in the frame before, which must be known first: frames then go one by
            one, and nothing overlaps. Who enters is seen when the detector looks again.

    Raises:
        ValueError, OSError: of the source, behind the frames before.
    """
    source = source if hasattr(source, "frames") else open_source(source)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    boxes = _Boxes(predictor, detect_every)
    ahead = overlapped if overlap and detect_every == 1 else (lambda items: items)
    alone = source.kind == "camera" or detect_every > 1
    batches = ahead(_fitted(predictor, source, start, stop, 1 if alone else batch_size, boxes))
    answered = ahead(_answered(predictor, batches))
    moment = 0.0
    try:
        for seen in _each(answered):
            with timed(seen.seconds, "decode"):
                seen.people = predictor.people(seen.answers, seen.fitted)
            boxes.follow(seen)
            if tracker is not None:
                moment = max(moment, seen.time)  # in a damaged video time may go back
                with timed(seen.seconds, "track"):
                    seen.people = tracker(seen.people, moment)
            yield seen
            del seen
    finally:
        answered.close()


class _Boxes:
    """Where to look for people in the next frame; None for a model that looks at all of it."""

    def __init__(self, predictor: Predictor, every: int):
        if every < 1 or (every > 1 and not predictor.per_person):
            raise ValueError(f"detect_every is {every}; " + ("it counts frames and must be at least 1" if every < 1 else
                             "only a top-down model has a detector: leave it out"))  # fmt: skip
        self._predictor, self._every = predictor, every
        self._age, self._known = 0, np.zeros((0, 5), np.float32)

    def __call__(self, image: np.ndarray, path: Path | None, seconds: dict[str, float]) -> np.ndarray | None:
        """Boxes (P, 5), and in `seconds` what finding them took."""
        if not self._predictor.per_person:
            return None
        self._age += 1
        if self._age < self._every and len(self._known):
            return self._known
        self._age = 0
        with timed(seconds, "detect"):
            return self._predictor.detect(image, path)

    def follow(self, seen: Seen) -> None:
        """Take note of the people of the last frame."""
        if self._every > 1:
            self._known = carried_boxes(seen.people, seen.fitted, SURE)


def _fitted(
    predictor: Predictor, source: Source, start: int, stop: int | None, batch_size: int, boxes: _Boxes
) -> Iterator[list[Seen]]:
    """Batches of frames, read and fitted."""
    frames = source.frames(start, stop)
    try:
        batch: list[Seen] = []
        while True:
            seconds: dict[str, float] = {}
            with timed(seconds, "read"):
                frame = next(frames, None)
                image = None if frame is None else frame.image
            if frame is None:
                break
            seen = Seen(frame.index, frame.time, image, path=getattr(frame, "path", None), seconds=seconds)
            del frame
            where = boxes(image, seen.path, seconds)
            with timed(seconds, "prepare"):
                seen.fitted = predictor.fit(image, where)
            batch.append(seen)
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
    finally:
        frames.close()


def _answered(predictor: Predictor, batches: Iterator[list[Seen]]) -> Iterator[list[Seen]]:
    """The same batches with the network's maps."""
    try:
        for batch in batches:
            seconds: dict[str, float] = {}
            with timed(seconds, "network"):
                answers = predictor.answers([seen.fitted for seen in batch])
            for seen, maps in zip(batch, answers):
                seen.answers = maps
                seen.seconds["network"] = seconds["network"] / len(batch)
            yield batch
    finally:
        batches.close()


def _each(batches: Iterator[list[Seen]]) -> Iterator[Seen]:
    for batch in batches:
        yield from batch
