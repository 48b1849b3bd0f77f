"""A predictor at work, seen in a notebook: thresholds are sliders, and what they change is seen at once.

The maps of the shown frame are kept. A slider reads them anew, which takes about a millisecond; the network runs again only
for the next frame.
"""

from __future__ import annotations

import atexit
import copy
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import ipywidgets as widgets
import numpy as np

from lib.draw import draw_people, encoded, heatmap_overlay, paf_overlay, scaled, tag_overlay
from lib.people import People
from lib.predict.predictor import Predictor
from lib.predict.sources import Picture, Source, open_source
from lib.predict.stages import STAGES, StageTimes, timed
from lib.predict.stream import Seen, watch
from lib.tracking import Tracker

# decode options that get a slider
THRESHOLDS = {"peak_threshold": "peaks above", "link_threshold": "links above",
              "detection_threshold": "peaks above", "tag_threshold": "tags within"}  # fmt: skip
# what people are drawn on, and the maps it needs
LAYERS = {"picture": (), "heatmaps": ("heatmaps",), "fields": ("pafs",), "tags": ("tags", "heatmaps")}
SECONDS_PER_PICTURE = 1.0  # pictures of a folder are looked at, those of a video pass by
_STAGES = (*STAGES[:-1], "send")  # nothing is written here, but sent to the browser


class LiveView(widgets.VBox):
    """People in a video, a camera or pictures, with play, pause and sliders: `LiveView(predictor, "walk.mp4")`.

    It plays in a thread of its own, so other cells can run meanwhile; a new view stops the ones before it, so a cell that
    runs again leaves nothing behind. Without a browser: `step`, `frame`, `people`, and the values of the sliders.

    Attributes:
        frame: (H, W, 3) RGB uint8 as shown, or None before the first step.
        people: `People` of that frame, in pixels of the source's picture.
        index: number of that frame, −1 before the first step.
        times: `StageTimes` of all frames so far.
        error: what stopped it, or None.
        thresholds: {decode option: slider}, those of `THRESHOLDS` which the codec has; each is an attribute, too, such as
            `peak_threshold`.
        person_score, keypoint_score: sliders; people below are dropped, keypoints below are not drawn.
        position: slider, the frame's number; another frame is shown when it is set.
        layer: buttons, those of `LAYERS` whose maps the codec has.
        skeletons, tracking, smoothing: checkboxes.

    Args:
        predictor: finds the people; it is not changed.
        source: a video, a picture, a folder or "camera:0" as `open_source` takes it, an opened source, or RGB arrays.
        tracker: gives ids, of which a copy is taken; None for a `Tracker` with its defaults.
        width: of the shown picture at most, pixels.
        rate: pictures per second that are sent to the browser at most; a slow connection wants less.
        detect_every: of a top-down model, see `lib.predict.stream.watch`.

    Raises:
        FileNotFoundError, ValueError: the source cannot be opened.
    """

    _views: ClassVar[weakref.WeakSet[LiveView]] = weakref.WeakSet()

    def __init__(
        self,
        predictor: Predictor,
        source: str | Path | Source | Sequence[np.ndarray],
        tracker: Tracker | None = None,
        *,
        width: int = 640,
        rate: float = 15.0,
        detect_every: int = 1,
    ):
        self.source = _opened(source)
        stop_all()
        self._predictor = copy.copy(predictor)  # gets codecs of its own
        self._tracker = copy.deepcopy(tracker) if tracker else Tracker(predictor.skeleton)
        self._filter = self._tracker.smoothing
        self._width, self._rate, self._detect_every = width, rate, detect_every
        self.frame: np.ndarray | None = None
        self.people, self.index, self.error = People.empty(predictor.skeleton.num_keypoints), -1, None
        self.times = StageTimes()
        self._seen: Seen | None = None
        self._before = self._tracker  # as it was before the frame that is shown
        self._seconds: dict[str, float] = {}
        self._stream: Generator[Seen, None, None] | None = None
        self._start, self._jump = 0, None
        self._lock, self._halt, self._thread = threading.RLock(), threading.Event(), None
        self._moments: deque[float] = deque(maxlen=30)
        super().__init__(self._controls())
        self._views.add(self)

    @property
    def playing(self) -> bool:
        """Whether its thread is at work."""
        return self._thread is not None and self._thread.is_alive()

    def step(self) -> bool:
        """Find the people of the next frame and show them; False where the source has come to its end.

        Raises:
            OSError, ValueError: the source cannot be read.
        """
        with self._lock:
            return self._advance()

    def seek(self, index: int) -> None:
        """Show frame `index` of a file and go on from there. In a video all frames before are read again."""
        self._jump = index
        if not self.playing:
            self.step()

    def play(self) -> None:
        """Go on in a thread until the end, an error, `pause` or `stop`."""
        if not self.playing:
            self._halt.clear()
            self._thread = threading.Thread(target=self._work, name="live view", daemon=True)
            self._thread.start()
        self.play_button.value = True

    def pause(self) -> None:
        """Stay on this frame; sliders now read its maps again."""
        self._halt.set()
        if self._thread not in (None, threading.current_thread()):
            self._thread.join()
        self.play_button.value = False

    def stop(self) -> None:
        """Pause, and let go of the file or the camera; `play` and `step` open it again where they were."""
        self.pause()
        with self._lock:
            self._let_go(self.index + 1)

    def close(self) -> None:
        """Stop, and take the view out of the page."""
        if self in self._views:  # not where its source could not be opened
            self.stop()
        super().close()

    def _advance(self, show: bool = True) -> bool:
        if self._jump is not None:
            self._let_go(self._jump)
        if self._stream is None:
            self._tracker.reset()
            self._moment = 0.0
            self._stream = watch(self._predictor, self.source, start=self._start, detect_every=self._detect_every)
        try:
            seen = next(self._stream, None)
        except BaseException:  # also an interrupted cell: the next step opens the source again
            self._let_go(self.index + 1)
            raise
        if seen is None:
            self._let_go(0)
            if self._seen:
                self._show()
            self._tell(self.source.damage or "That was the last frame.", bool(self.source.damage))
            return False
        self._seen, self._seconds, self._before = seen, seen.seconds, self._tracker
        self.index, self.error = seen.index, None
        self._moment = max(self._moment, seen.time)  # in a damaged video time may go back
        self._moments.append(time.perf_counter())
        self._follow()
        if show:
            self._show()
        self.times.add(seen.seconds)
        return True

    def _work(self) -> None:
        """The thread of `play`: not faster than the source was recorded, drawn no oftener than the browser is sent it."""
        pace = {"pictures": SECONDS_PER_PICTURE, "camera": 0.0}.get(self.source.kind, 1 / (self.source.rate or 25))
        due, shown, show = time.perf_counter(), 0.0, True
        self._moments.clear()
        try:
            while not self._halt.wait(max(0.0, due - time.perf_counter())):
                show = (now := time.perf_counter()) - shown >= 1 / self._rate
                shown, due = now if show else shown, max(due, now) + pace
                with self._lock:
                    if not self._advance(show):
                        break
            else:
                if not show:
                    self._show()
        except Exception as error:  # noqa: BLE001  nobody waits for a thread: what went wrong is told in the view
            self._fail(error)
        finally:
            self.play_button.value = False

    def _follow(self) -> None:
        """From the people of the frame to those of the view: who is sure enough, and who is who."""
        people = self._seen.people
        people = people[people.scores >= self.person_score.value]
        if self.tracking.value:
            # a copy learns from this frame; when it is read again, another copy with the same memory does
            self._tracker = copy.deepcopy(self._before)
            self._tracker.smoothing = self._filter if self.smoothing.value else None
            with timed(self._seconds, "track"):
                people = self._tracker(people, self._moment)
        self.people = people

    def _show(self) -> None:
        """Draw the frame and send it."""
        with timed(self._seconds, "draw"):
            picture, to_screen = scaled(self._seen.image, min(1.0, self._width / self._seen.image.shape[1]))
            people, skeleton = self.people.warped(to_screen), self._predictor.skeleton
            if self.layer.value == "heatmaps":
                picture = heatmap_overlay(picture, self._maps("heatmaps")[: skeleton.num_keypoints], skeleton)
            elif self.layer.value == "fields":
                picture = paf_overlay(picture, self._maps("pafs"))
            elif self.layer.value == "tags":
                k = skeleton.num_keypoints
                picture = tag_overlay(picture, self._maps("tags")[:k], self._maps("heatmaps")[:k])
            if self.skeletons.value:
                picture = draw_people(
                    picture, people, skeleton, self.keypoint_score.value, by_track=self.tracking.value
                )
        with timed(self._seconds, "send"):
            self.frame = picture
            self.screen.value = encoded(".jpg", picture, 85)
        self.position.value = self.index
        self._tell()

    def _maps(self, name: str) -> np.ndarray:
        """Maps of the part of the network's input that is the picture."""
        return self._predictor.on_picture(name, self._seen.answers, self._seen.fitted)

    def _read_again(self, change) -> None:
        """A slider was moved: other people from the same maps, unless the next frame comes anyway."""
        # a browser that shows 0.1 may send back 0.09999999999999999
        options = {name: round(slider.value, 4) for name, slider in self.thresholds.items()}
        changed = replace(self._predictor.codec, **options)
        if change.owner in self.thresholds.values() and changed == self._predictor.codec:
            return
        self._predictor.codec = changed
        if self._seen is None or self.playing:
            return
        with self._lock:
            self._seconds = {}
            with timed(self._seconds, "decode"):
                self._seen.people = self._predictor.people(self._seen.answers, self._seen.fitted)
            self._follow()
            self._show()

    def _let_go(self, start: int) -> None:
        """Close the source; the next step opens it at frame `start`."""
        if self._stream is not None:
            self._stream.close()
        self._stream, self._jump = None, None
        self._start = 0 if self.source.kind == "camera" else start

    def _fail(self, error: Exception) -> None:
        self.error = error
        self._tell(str(error) if isinstance(error, (ValueError, OSError, RuntimeError)) else repr(error), True)

    def _tell(self, message: str = "", bad: bool = False) -> None:
        """The text: what is shown, and how long its stages took."""
        playing = len(self._moments) > 1 and self.playing
        fps = (len(self._moments) - 1) / (self._moments[-1] - self._moments[0]) if playing else 0.0
        facts = []
        if self._seen:
            time_ = [] if self.source.kind == "pictures" else [f"{self._seen.time:.2f} s"]
            facts = [f"{len(self.people)} people", f"frame {self.index}", *time_]
        facts += [f"<b>{fps:.1f} FPS</b>"] * playing
        colour = "#b00020" if bad else "inherit"
        self.status.value = f"{' · '.join(facts)}<div style='color:{colour};line-height:1.3'>{escape(message)}</div>"
        self.table.value = _bars(self.times.median if playing else self._seconds)

    def _controls(self) -> list[widgets.Widget]:
        """Make the parts and join them."""
        codec = self._predictor.codec
        slider = {"min": 0.0, "max": 1.0, "step": 0.01, "readout_format": ".2f",
                  "style": {"description_width": "96px"}, "layout": widgets.Layout(width="auto")}  # fmt: skip
        self.thresholds = {n: widgets.FloatSlider(getattr(codec, n), description=words, **slider | {"min": 0.01, "max": max(1.0, 2 * getattr(codec, n))})
                           for n, words in THRESHOLDS.items() if hasattr(codec, n)}  # fmt: skip
        for name, widget in self.thresholds.items():
            setattr(self, name, widget)
        self.person_score = widgets.FloatSlider(0.0, description="people above", **slider)
        self.keypoint_score = widgets.FloatSlider(0.0, description="draw above", **slider)
        layers = [layer for layer, maps in LAYERS.items() if set(maps) <= codec.strides.keys()]
        self.layer = widgets.ToggleButtons(options=layers, style={"button_width": "auto"})
        video = self.source.kind != "pictures"
        box = {"indent": False, "layout": widgets.Layout(width="auto", margin="2px 12px 2px 2px")}
        self.skeletons = widgets.Checkbox(True, description="people", **box)
        self.tracking = widgets.Checkbox(video, description="tracking", **box)
        self.smoothing = widgets.Checkbox(video and self._filter is not None, description="smoothing", **box)
        checks = [self.skeletons, self.tracking, self.smoothing]
        looks = [*self.thresholds.values(), self.person_score, self.keypoint_score, self.layer, *checks]
        for widget in looks:
            widget.observe(self._guarded(self._read_again), "value")
        self.screen = widgets.Image(format="jpeg", layout=widgets.Layout(width="100%", height="auto"))
        self.status, self.table = widgets.HTML(), widgets.HTML()
        left = widgets.Layout(flex="1 1 320px", max_width=f"{self._width}px")
        left = widgets.VBox([self.screen, self._transport()], layout=left)
        panel = [self.status, *looks[:-4], self.layer, widgets.HBox(checks), self.table]
        right = widgets.VBox(panel, layout=widgets.Layout(flex="0 0 320px", padding="0 0 0 12px"))
        return [widgets.HBox([left, right], layout=widgets.Layout(flex_flow="row wrap"))]

    def _transport(self) -> widgets.Widget:
        """Play, step, and where in the file."""
        small = widgets.Layout(width="44px", flex="0 0 auto")
        self.play_button = widgets.ToggleButton(icon="play", tooltip="play", layout=small)
        self.step_button = widgets.Button(icon="step-forward", tooltip="next frame", layout=small)
        last = max(0, (self.source.length or 1) - 1)
        self.position = widgets.IntSlider(0, 0, last, continuous_update=False, layout=widgets.Layout(flex="1 1 auto"))
        self.position.layout.display = None if last else "none"
        self.play_button.observe(self._guarded(self._toggled), "value")
        self.position.observe(self._guarded(lambda change: change.new == self.index or self.seek(change.new)), "value")
        self.step_button.on_click(self._guarded(lambda _: self.pause() or self.step()))
        return widgets.HBox([self.play_button, self.step_button, self.position])

    def _toggled(self, change) -> None:
        self.play_button.icon, self.play_button.tooltip = ("pause", "pause") if change.new else ("play", "play")
        if change.new != self.playing:
            self.play() if change.new else self.pause()

    def _guarded(self, action: Callable[[Any], Any]) -> Callable[[Any], None]:
        """For what the browser calls: an error is told in the view, where the person looks."""

        def act(change) -> None:
            try:
                action(change)
            except Exception as error:  # noqa: BLE001  nobody else would hear of it
                self._fail(error)

        return act

    def _repr_mimebundle_(self, **options: Any) -> dict:
        """The view, and its picture for pages without a kernel; a view that is shown has something to show."""
        if self._seen is None:
            self._guarded(lambda _: self.step())(None)
        still = {"image/jpeg": bytes(self.screen.value)} if self.screen.value else {}
        return super()._repr_mimebundle_(**options) | {"text/plain": f"LiveView of {self.source.name}"} | still


def stop_all() -> None:
    """Stop every view."""
    for view in list(LiveView._views):
        view.stop()


atexit.register(stop_all)


@dataclass
class Arrays:
    """RGB pictures in memory as a source."""

    images: Sequence[np.ndarray]
    rate: float = 25.0
    name, kind, damage = "arrays", "video", None

    @property
    def length(self) -> int:
        """How many."""
        return len(self.images)

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Picture]:
        """Pictures start … stop − 1."""
        for index in range(len(self.images))[start:stop]:
            yield Picture(index, index / self.rate, self.images[index], None)


def _opened(source: str | Path | Source | Sequence[np.ndarray]) -> Source:
    if isinstance(source, (str, Path)):
        return open_source(source)
    if hasattr(source, "frames"):
        return source
    images = list(source)
    if not images:
        raise ValueError("the source is an empty list; it should hold RGB arrays (H, W, 3)")
    return Arrays(images)


def _bars(seconds: Mapping[str, float]) -> str:
    """Milliseconds of every stage as a small table with bars; a stage that did not run has a dash."""
    total = sum(seconds.values()) or 1
    rows = [f"<tr><td>{stage}</td><td style='text-align:right;white-space:nowrap;padding:0 8px'>"
            + (f"{1e3 * seconds[stage]:.1f} ms" if stage in seconds else "–") + "</td><td style='width:100%'>"
            f"<div style='background:#0072b2;height:8px;width:{100 * seconds.get(stage, 0) / total:.1f}%'></div></td></tr>"
            for stage in _STAGES]  # fmt: skip
    return f"<table style='width:100%;line-height:1.3'>{''.join(rows)}</table>"
