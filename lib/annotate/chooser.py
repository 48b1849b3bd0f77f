"""Choose the frames of a video which are worth annotating: by hand, every n-th, or the sharpest of every n.

All rules are methods here and work without a notebook; the view only draws and passes clicks and keys on.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anywidget
import cv2
import numpy as np
import traitlets

from lib.data.video import Frame, Video, write_picture
from lib.draw import encoded, grid, scaled

MOST = 1000  # candidates: more would take minutes to look through, and hundreds of megabytes
THUMBNAIL, PREVIEW = 160, 720  # pixels, the longer side
GREEN, GREY = (0, 158, 115), (225, 225, 225)
ACTIONS = ("toggle", "choose", "drop", "every", "sharpest", "clear", "undo", "order_by", "hide_blurry", "look", "save")


class FrameChooser(anywidget.AnyWidget):
    """Thumbnails of a video with their sharpness, to choose from: `display(FrameChooser("walk.mp4", "pictures"))`.

    Without a notebook: `FrameChooser("walk.mp4", step=10).choose([20, 50]).save("pictures")`.

    Args:
        video: file to read; it is decoded once now, and once for every `save`.
        save_to: folder which the button "save" writes to.
        step: every so many frames is a candidate.
        start_idx: first candidate.
        max_idx: last frame looked at; None: to the end.

    Attributes:
        candidates: frame numbers to choose from.
        chosen: frame numbers chosen, sorted.
        shown: candidates in the order of the view, without hidden ones.

    Raises:
        FileNotFoundError, ValueError: of `Video`; or there are more than 1,000 candidates.
    """

    _esm = Path(__file__).with_name("chooser.js")
    _css = Path(__file__).with_name("chooser.css")
    _frames = traitlets.List().tag(sync=True)
    _thumbnails = traitlets.List().tag(sync=True)
    _preview = traitlets.Bytes().tag(sync=True)
    _state = traitlets.Dict().tag(sync=True)

    def __init__(self, video: str | Path, save_to: str | Path | None = None, step: int = 1, start_idx: int = 0,
                 max_idx: int | None = None):  # fmt: skip
        if step < 1:
            raise ValueError(f"step is {step}; it counts frames and must be at least 1")
        self.video = Video(video)
        self.save_to = save_to
        self._previews: dict[int, bytes] = {}
        found, thumbnails = [], []
        for frame in self.video.frames(start_idx, None if max_idx is None else max_idx + 1):
            if (frame.index - start_idx) % step:
                continue
            if len(found) == MOST:
                raise ValueError(f"{video}: more than {MOST} candidates; take fewer with step={10 * step}, or a part of "
                                 "the video with start_idx and max_idx")  # fmt: skip
            found.append({"index": frame.index, "time": frame.time, "sharpness": frame.sharpness})
            thumbnails.append(_jpeg(frame, THUMBNAIL, 80))
            self._previews[frame.index] = _jpeg(frame, PREVIEW, 85)
        self.candidates = [row["index"] for row in found]
        self.sharpness = {row["index"]: row["sharpness"] for row in found}
        self.chosen: list[int] = []
        self._before: list[list[int]] = []
        self._order, self._hidden, self._focus = "time", 0.0, self.candidates[0]
        super().__init__(_frames=found, _thumbnails=thumbnails)
        self.message = self.video.damage or f"{len(found)} candidates"
        self._publish()
        self.on_msg(self._receive)

    @property
    def shown(self) -> list[int]:
        limit = np.quantile(list(self.sharpness.values()), self._hidden)
        shown = [i for i in self.candidates if self.sharpness[i] >= limit]
        return sorted(shown, key=lambda i: -self.sharpness[i]) if self._order == "sharpness" else shown

    def choose(self, frames: Iterable[int]) -> FrameChooser:
        """Add frames to the chosen ones; KeyError for one that is no candidate."""
        return self._set({*self.chosen, *self._known(frames)})

    def drop(self, frames: Iterable[int]) -> FrameChooser:
        """Take frames from the chosen ones."""
        return self._set({*self.chosen} - {*self._known(frames)})

    def toggle(self, frame: int) -> FrameChooser:
        """Choose a frame, or drop it if it is chosen."""
        return self._set({*self.chosen} ^ {*self._known([frame])})

    def every(self, n: int) -> FrameChooser:
        """Choose every n-th of the frames shown, in order of time, instead of what is chosen now."""
        return self._set([group[0] for group in self._groups(n)])

    def sharpest(self, n: int) -> FrameChooser:
        """Choose the sharpest of every n frames shown, in order of time, instead of what is chosen now."""
        return self._set([max(group, key=self.sharpness.get) for group in self._groups(n)])

    def clear(self) -> FrameChooser:
        """Choose none."""
        return self._set([])

    def undo(self) -> FrameChooser:
        """Back to what was chosen before the last change."""
        if not self._before:
            raise ValueError("there is nothing to undo")
        self.chosen = self._before.pop()
        return self._tell(f"Undone: {self._count()}")

    def order_by(self, order: str) -> FrameChooser:
        """Show by "time", or by "sharpness", the sharpest first."""
        if order not in ("time", "sharpness"):
            raise ValueError(f"frames are ordered by 'time' or 'sharpness', not by {order!r}")
        self._order = order
        return self._tell(f"Ordered by {order}")

    def hide_blurry(self, share: float) -> FrameChooser:
        """Hide this share of the candidates, the blurriest; 0 shows all. What is chosen stays chosen."""
        if not 0 <= share < 1:
            raise ValueError(f"the share of hidden frames lies between 0 and 1, not at {share}")
        self._hidden = share
        return self._tell(f"{len(self.shown)} of {len(self.candidates)} frames shown")

    def look(self, frame: int) -> FrameChooser:
        """Show this frame in large."""
        (self._focus,) = self._known([frame])
        return self._tell(f"Frame {frame}, {'' if frame in self.chosen else 'not '}chosen")

    def save(self, out_dir: str | Path | None = None) -> list[Path]:
        """Write the chosen frames as `frames` does, in full size, and say where; existing ones stay as they are.

        Raises:
            ValueError: no folder is known, or nothing is chosen.
            FileExistsError: a file of that name has other content.
        """
        out_dir = out_dir or self.save_to
        if out_dir is None or not self.chosen:
            raise ValueError("nothing is chosen yet" if out_dir else "say where to: FrameChooser(…, save_to=FOLDER)")
        chosen, paths = set(self.chosen), []
        for frame in self.video.frames(self.chosen[0], self.chosen[-1] + 1):
            if frame.index in chosen:
                paths.append(Path(out_dir) / f"{self.video.name_of(frame)}.jpg")
                write_picture(paths[-1], frame.image)
        self._tell(f"{len(paths)} pictures are in {out_dir}")
        return paths

    def sheet(self, columns: int = 6) -> np.ndarray:
        """Contact sheet of the frames shown, chosen ones framed in green; (H, W, 3) RGB uint8."""
        thumbnails = dict(zip(self.candidates, self._thumbnails))
        pictures = []
        for index in self.shown:
            picture = cv2.imdecode(np.frombuffer(thumbnails[index], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            edge = GREEN if index in self.chosen else GREY
            pictures.append(cv2.copyMakeBorder(picture, 5, 5, 5, 5, cv2.BORDER_CONSTANT, value=edge))
        return grid(pictures, columns)

    def _repr_mimebundle_(self, **options: Any):
        """The widget, and its contact sheet for pages without a kernel."""
        data, *rest = super()._repr_mimebundle_(**options) or ({},)
        sheet = encoded(".jpg", self.sheet())
        return ({**data, "text/plain": f"FrameChooser: {self._count()}", "image/jpeg": sheet}, *(rest or [{}]))

    def _known(self, frames: Iterable[int]) -> list[int]:
        frames = list(frames)
        unknown = [i for i in frames if i not in self.sharpness]
        if unknown:
            raise KeyError(f"frame {unknown[0]} is no candidate; there are {len(self.candidates)}, from "
                           f"{self.candidates[0]} to {self.candidates[-1]}")  # fmt: skip
        return frames

    def _groups(self, n: int) -> list[list[int]]:
        if n < 1:
            raise ValueError(f"one of every {n} frames is none: take 1 or more")
        shown = sorted(self.shown)
        return [shown[i : i + n] for i in range(0, len(shown), n)]

    def _set(self, chosen: Iterable[int]) -> FrameChooser:
        self._before.append(self.chosen)
        self.chosen = sorted(chosen)
        return self._tell(self._count())

    def _count(self) -> str:
        return f"{len(self.chosen)} of {len(self.candidates)} frames chosen"

    def _tell(self, message: str) -> FrameChooser:
        self.message = message
        self._publish()
        return self

    def _publish(self) -> None:
        self._preview = self._previews[self._focus]
        self._state = {"shown": self.shown, "chosen": self.chosen, "focus": self._focus, "order": self._order,
                       "hidden": self._hidden, "message": self.message, "undo": bool(self._before),
                       "save_to": None if self.save_to is None else str(self.save_to)}  # fmt: skip

    def _receive(self, _, content: dict, buffers: list) -> None:
        """A click or key from the view: {"do": one of ACTIONS, "with": its arguments}."""
        if content.get("do") not in ACTIONS:
            return
        try:
            getattr(self, content["do"])(*content.get("with", ()))
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            self._tell(str(error.args[0] if isinstance(error, KeyError) else error))


def _jpeg(frame: Frame, side: int, quality: int) -> bytes:
    image = frame.image
    return encoded(".jpg", scaled(image, min(1.0, side / max(image.shape[:2])))[0], quality)
