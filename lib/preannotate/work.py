"""The work itself: pictures are read, people found, labels noted, batch by batch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from lib import files
from lib.data.video import Video
from lib.draw import save_picture
from lib.people import People
from lib.preannotate.journal import Journal, Labelled, Line
from lib.preannotate.labels import cut, labelled, writable
from lib.preannotate.results import IMAGES, WHOLE
from lib.predict.predictor import Fitted, Predictor
from lib.predict.sources import upright
from lib.predict.stages import overlapped

QUALITY = 95  # of JPEG, 1 to 100


@dataclass(frozen=True)
class Taken:
    """A picture on its way.

    Attributes:
        name: what it is called in the results.
        image: (H, W, 3) uint8 RGB, upright; None where it could not be read.
        path: of its file; None for a frame of a video.
        turned: whether the file shows it turned, as EXIF says.
        fault: why it could not be read.
    """

    name: str
    image: np.ndarray | None = None
    path: Path | None = None
    turned: bool = False
    fault: str = ""


def read_pictures(names: Mapping[str, Path], journal: Journal) -> Iterator[Taken]:
    """The pictures that are not done yet, upright; a damaged one with its fault."""
    for name, path in names.items():
        if journal.done(name):
            continue
        try:
            files.relative(name)
            image, turned = upright(path)
        except (ValueError, OSError) as error:
            yield Taken(name, fault=str(error))
        else:
            yield Taken(name, image, path, turned)


def read_frames(video: Video, step: int, journal: Journal) -> Iterator[Taken]:
    """Every `step`-th frame of a video that is not done yet."""
    for frame in video.frames():
        name = f"{video.name_of(frame)}.jpg"
        if frame.index % step == 0 and not journal.done(name):
            yield Taken(name, frame.image)


@dataclass
class Work:
    """Finds people in pictures and notes them in the journal.

    Attributes:
        predictor: with its detector, where it needs one.
        places: where the keypoints to annotate stand among the model's.
        journal: of what was done.
        folder: for the folders of pictures.
        crops: a picture for every person.
        low, high: scores from which a keypoint is hidden, and visible.
    """

    predictor: Predictor
    places: Sequence[int]
    journal: Journal
    folder: Path
    crops: bool
    low: float
    high: float

    def run(self, pictures: Iterator[Taken], total: int | None, batch_size: int) -> None:
        """Work through the pictures.

        Raises:
            KeyboardInterrupt: with a sentence about what was done.
        """
        done = sum(self.journal.done(name) for name in self.journal.lines)
        bar = tqdm(total=total, initial=done, desc="pre-annotate", unit="picture")
        try:
            # the next batch is read, and its people are detected, while the network works on one
            with bar, closing(overlapped(self._batches(pictures, batch_size))) as batches:
                for batch in batches:
                    self.journal.add(list(self._lines(batch)))
                    bar.update(len(batch))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"pictures done: {len(self.journal.lines)}, the same command goes on behind them") from None

    def _batches(self, pictures: Iterator[Taken], size: int) -> Iterator[list[tuple[Taken, Fitted | None]]]:
        while batch := [self._fitted(picture) for picture in islice(pictures, size)]:
            yield batch

    def _fitted(self, picture: Taken) -> tuple[Taken, Fitted | None]:
        if picture.image is None:
            return picture, None
        if not self.predictor.per_person:
            return picture, self.predictor.fit(picture.image)
        try:
            boxes = self.predictor.detect(picture.image, picture.path)
            if picture.turned and self.predictor.detector.name == "truth":
                raise ValueError(f"{picture.path} is turned by EXIF, and annotated boxes are of the picture as it is stored")
        except ValueError as error:
            return Taken(picture.name, fault=str(error)), None
        return picture, self.predictor.fit(picture.image, boxes)

    def _lines(self, batch: Sequence[tuple[Taken, Fitted | None]]) -> Iterator[Line]:
        answers = iter(self.predictor.answers([fitted for _, fitted in batch if fitted is not None]))
        for picture, fitted in batch:
            if fitted is None:
                tqdm.write(f"left out: {picture.fault}", file=sys.stderr)
                yield Line(picture.name, fault=picture.fault)
                continue
            people = self.predictor.people(next(answers), fitted)
            chosen = People(people.keypoints[:, self.places], people.scores, people.boxes)
            label, unsure = labelled(picture.name, picture.image, chosen, self.low, self.high)
            yield Line(picture.name, self._written(picture, label), unsure)

    def _written(self, picture: Taken, label: Labelled) -> list[Labelled]:
        """Write what annotators are to see, and with crops the whole pictures as well, to which the labels come back."""
        if self.crops and not label.people:
            return []
        folder = self.folder / (WHOLE if self.crops else "") / IMAGES
        if picture.path is not None and not picture.turned:
            files.write(files.inside(folder, label.file_name), picture.path.read_bytes())
        else:
            label.file_name = writable(label.file_name)
            save_picture(files.inside(folder, label.file_name), picture.image, QUALITY)
        if not self.crops:
            return [label]
        cuts = cut(label, picture.image)
        for each, pixels in cuts:
            save_picture(files.inside(self.folder / IMAGES, each.file_name), pixels, QUALITY)
        return [each for each, _ in cuts]
