"""`python -m lib predict SOURCE --model MODEL --out OUT`: everything that is found, drawn and listed, frame by frame."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm

from lib.arguments import Parser
from lib.detect import THRESHOLD
from lib.predict.detecting import detector_named
from lib.predict.outputs import Results
from lib.predict.painting import Painter
from lib.predict.predictor import Predictor
from lib.predict.sources import Source, open_source
from lib.predict.stages import StageTimes, timed
from lib.predict.stream import Seen, watch
from lib.skeleton import Skeleton
from lib.tracking import PUBLISHED_SMOOTHING, OneEuro, Tracker


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0."""
    parser = Parser(prog="python -m lib predict", description=predict.__doc__.split("\n")[0])
    parser.add_argument("source", metavar="SOURCE", help="picture, folder of pictures, video, or camera:0")
    parser.add_argument("--input_size", type=int, nargs="+", metavar="SIDE",
                        help="another resolution than the model's: height and width, or one number for both")  # fmt: skip
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0], help="average the maps of these sizes")
    parser.add_argument("--scale_search", type=float, nargs="+", help="of one person: the best pose of these sizes")
    taken = {"source", "input_size", "scales", "scale_search"}
    parser.add_function_arguments(predict, as_positional=False, skip=taken)
    predict(**parser.parse_args(arguments).as_dict())
    return 0


def predict(source: str | Path, model: str | Path, out: str | Path, *, track: bool = False, smooth: bool = False,
            track_rule: Literal["ours", "published"] = "ours", show_ids: bool = True, min_score: float = 0.2, device: str = "cpu", batch_size: int = 4, flip_test: bool = False,
            scales: tuple[float, ...] | list[float] = (1.0,), scale_search: tuple[float, ...] | list[float] | None = None,
            input_size: tuple[int, int] | list[int] | None = None, fit: str = "model", maps_at: str = "input",
            codec: dict[str, Any] | None = None, pictures: str = "connections", start: int = 0, stop: int | None = None,
            overwrite: bool = False, detector: str | None = None, detector_threshold: float = THRESHOLD,
            detect_every: int = 1) -> StageTimes:  # fmt: skip
    """Find people in pictures, a video or a camera, draw them, and list them.

    Then `out` holds the drawn pictures, or videos with the times of the original; `results.json`, COCO results with the frame's
    number from 0 as `image_id`; and `people.csv`, a row for each keypoint found: whole up to where a run ended, however.

    Args:
        source: picture, folder (with its sub-folders), video, or camera:0.
        model: `.safetensors`, an exported `.onnx`, `.plan`, `.pt2` or `.ts`, or a public `.pth` (see pretrained/README.md).
        out: folder for the results.
        track: give people ids that last from frame to frame.
        smooth: calm the keypoints of everybody who is tracked; implies track.
        track_rule: "ours" keeps ids over short gaps; "published" follows and calms as Lightweight OpenPose's demo does.
        show_ids: those who are tracked show their ids, each in a colour of his own.
        min_score: keypoints below are not drawn; the lists hold them all.
        device: cpu, cuda or cuda:1.
        batch_size: frames per network call; a camera's go alone.
        flip_test: average with the mirror image (the flip of HigherHRNet's evaluation).
        scales: average the maps of the picture at these sizes, relative to the fitted one.
        scale_search: of one person (`--codec.single=true`) take the pose whose worst keypoint scores best among these sizes.
        input_size: height and width of the network's input, instead of the model's own; one number for both.
        fit: "model" fits pictures into the input; "height" and "short" only that side of them; "native" keeps their size.
        maps_at: read people from maps as they are ("input"), or enlarged to the input's "pixels", or those of the "image".
        codec: decode options, each as `--codec.NAME=VALUE`: `detection_threshold`, `peak_threshold`, `single` and so on.
        pictures: what is drawn, with commas between: "connections" (the people), "tags" (each keypoint's beside them),
            "heatmaps" (of every keypoint, and its tags), "fields" (of every limb), "offsets", "pairs" and "graph" (DeeperCut).
        start: first frame.
        stop: frame before which to stop.
        overwrite: replace what an earlier run left in `out`.
        detector: of a top-down model: the .onnx of a YOLO, torchvision:NAME, a model of this workbook for several people,
            truth=FILE.json (annotated boxes) or whole (one person fills the picture).
        detector_threshold: boxes with a lower score are left out.
        detect_every: the detector looks at each so many-th frame only, and people are followed in between.

    Returns:
        What each stage took.

    Raises:
        ValueError, OSError: source, model or options cannot be used; the disk is full; there are results already.
        RuntimeError, KeyboardInterrupt: the source is damaged, the camera vanished, Ctrl-C; what was written is said.
    """
    _check(start, stop, input_size)
    opened = open_source(source, without=Path(out))
    predictor = told_of_mirrors(Predictor(
        model, device, flip_test=flip_test, scales=scales, scale_search=scale_search, fit=fit, maps_at=maps_at,
        codec_options=codec, input_size=input_size and (input_size[0], input_size[-1]),
        detector=detector and detector_named(detector, device, threshold=detector_threshold),
    ))  # fmt: skip
    painter = Painter(predictor, [kind.strip() for kind in pictures.split(",") if kind.strip()], min_score, show_ids)
    tracker = _tracker(predictor.skeleton, smooth, track_rule) if track or smooth else None
    how = {"start": start, "stop": stop, "batch_size": batch_size, "detect_every": detect_every}
    with closing(watch(predictor, opened, tracker, **how)) as frames:
        results = Results(Path(out), opened, predictor.skeleton, overwrite, painter.kinds)
        return _write_all(frames, painter, results, opened, _total(opened.length, start, stop))


def told_of_mirrors(predictor: Predictor) -> Predictor:
    """The same; where a flip test was asked for that may do harm, the user is told."""
    if predictor.mirror_is_new:
        print(f"{predictor.source} has not learnt from mirror images: --flip_test may make it worse", file=sys.stderr)
    return predictor


def _tracker(skeleton: Skeleton, smooth: bool, rule: str) -> Tracker:
    smoothing = PUBLISHED_SMOOTHING if rule == "published" else OneEuro()
    return Tracker(skeleton, smoothing=smoothing if smooth else None, rule=rule)


def _check(start: int, stop: int | None, input_size: Sequence[int] | None) -> None:
    if start < 0 or (stop is not None and stop <= start):
        raise ValueError(f"frames {start} … {stop} are none: start counts from 0 and stop comes behind it")
    if input_size is not None and len(input_size) > 2:
        raise ValueError(f"input_size is height and width, or one number for both, got {' '.join(map(str, input_size))}")


def _write_all(
    frames: Iterable[Seen],
    paint: Callable[[Seen], dict[str, np.ndarray]],
    results: Results,
    source: Source,
    total: int | None,
) -> StageTimes:
    times, asked = StageTimes(), threading.Event()
    try:
        with interruptible(asked), results, tqdm(total=total, desc=source.name, unit="frame") as bar:
            for seen in frames:
                with timed(seen.seconds, "draw"):
                    pictures = paint(seen)
                with timed(seen.seconds, "write"):
                    results.write(seen, pictures)
                times.add(seen.seconds)
                if bar.update():  # it is time to show something
                    bar.set_postfix_str(", ".join(f"{s} {1e3 * t:.0f}" for s, t in times.latest().items()) + " ms")
                if asked.is_set():
                    break
    except KeyboardInterrupt:
        raise KeyboardInterrupt(results.summary()) from None
    if results.frames:
        print(times.table(), results.summary(), sep="\n")
    if asked.is_set():
        raise KeyboardInterrupt(results.summary())
    if source.damage:
        raise RuntimeError(f"{source.damage}; {results.summary()}")
    return times


@contextmanager
def interruptible(asked: threading.Event) -> Iterator[None]:
    """The first Ctrl-C sets the event, for a loop to end between two frames; a second one ends it at once."""

    def note(*_) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    # another thread gets no signals, and who started us without Ctrl-C meant it
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _total(length: int | None, start: int, stop: int | None) -> int | None:
    ends = [end for end in (length, stop) if end is not None]
    return max(min(ends) - start, 0) if ends else None
