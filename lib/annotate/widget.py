"""The annotator in a notebook: the session's rules behind a picture, a mouse and a keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from lib.annotate.session import Session
from lib.data.augment import read_image
from lib.draw import draw_people, encoded, palette, scaled
from lib.skeleton import Skeleton
from lib.skeleton_layout import layout

_BROWSERS_SHOW = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP"}
_ACTIONS = {
    "go_to", "next_image", "previous_image", "next_open_image", "next_person", "previous_person", "add_person",
    "delete_person", "next_keypoint", "previous_keypoint", "select", "place", "move", "toggle_visibility",
    "delete_keypoint", "accept", "mark_done", "undo", "redo", "save",
}  # fmt: skip
_NOT_ABOUT_THE_PICTURE = {"look", "go_to", "save"}
_STILL = 1000  # pixels, the longer side of the picture that stays in the notebook's file


class Annotator(anywidget.AnyWidget):
    """Shows a `Session` in JupyterLab, VS Code or Colab: `display(Annotator(session))`. Press ? in it for the keys.

    Args:
        session: everything that is done here is done to it, and it can be used from other cells meanwhile.
        height: of the whole widget, in CSS pixels.
    """

    _esm = Path(__file__).with_name("annotator.js")
    _css = Path(__file__).with_name("annotator.css")
    figure = traitlets.Dict().tag(sync=True)
    names = traitlets.List().tag(sync=True)
    progress = traitlets.List().tag(sync=True)
    picture = traitlets.Bytes().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)
    height = traitlets.Int(600).tag(sync=True)

    def __init__(self, session: Session, height: int = 600):
        super().__init__(figure=_figure(session.skeleton), names=list(session.names), height=height)
        self.session = session
        self._shown: int | None = None
        self._revision = 0
        self._problem = ""
        self.refresh()
        self.on_msg(self._on_message)

    def refresh(self) -> None:
        """Show what the session is now, after other cells have used it; the view asks for it when it gets the focus."""
        self._revision += self._changed_elsewhere()
        self.progress = [self.session.progress(index) for index in range(len(self.names))]
        self._show()

    def _repr_mimebundle_(self, **options: Any):
        """The widget, and the picture with its people for pages without a kernel."""
        self.refresh()
        data, *rest = super()._repr_mimebundle_(**options) or ({},)
        data = {**data, "text/plain": f"Annotator: {self.session.message}"}
        if not self._problem:
            image, people = read_image(self.session.path()), self.session.people()
            image, to_still = scaled(image, min(1.0, _STILL / max(image.shape[:2])))
            drawn = draw_people(image, people.warped(to_still), self.session.skeleton)
            data["image/jpeg"] = encoded(".jpg", drawn)
        return (data, *(rest or [{}]))

    def _on_message(self, _, content: dict, buffers) -> None:
        """One key or click: {"do": action, "with": arguments, "from": [view, number], "seen": revision}.

        What was meant for a picture that other cells have changed meanwhile is not done to the one that is there now.
        """
        if self._changed_elsewhere():
            self.refresh()
        before, error = self.session.image_index, ""
        try:
            if content["do"] not in _NOT_ABOUT_THE_PICTURE and content.get("seen", self._revision) != self._revision:
                raise ValueError("this was changed elsewhere and is shown now as it stands: look, then do it again")
            self._act(content["do"], *content.get("with", ()))
        except (ValueError, OSError) as problem:
            error = str(problem)
        touched = {i: self.session.progress(i) for i in (before, self.session.image_index)}
        if any(self.progress[i] != now for i, now in touched.items()):
            self.progress = [touched.get(i, old) for i, old in enumerate(self.progress)]
        self._show(error, content.get("from", ()))

    def _act(self, action: str, *arguments) -> None:
        if action == "look":
            self.refresh()
        elif action == "click":
            self._click(*arguments)
        elif action in _ACTIONS:
            getattr(self.session, action)(*arguments)
        else:
            raise ValueError(f"the annotator cannot {action!r}")

    def _click(self, x: float, y: float, v: int) -> None:
        """A click beside all points places the next one; it never moves one that has its place."""
        if self.session.placed:
            raise ValueError("this keypoint has its place: drag it, press n for the next one or a for another person")
        self.session.place(x, y, v)

    def _show(self, error: str = "", asked_by=()) -> None:
        session = self.session
        with self.hold_sync():
            if self._shown != session.image_index or self._problem:
                self._shown, self._problem, self.picture = session.image_index, "", b""
                try:
                    session.size()
                    self.picture = picture(session.path())
                except (ValueError, OSError) as problem:
                    self._problem = str(problem)
            height, width = (0, 0) if self._problem else session.size()
            self.state = self._labels() | {
                "revision": self._revision,
                "size": [width, height],
                "message": error or self._problem or session.message,
                "error": bool(error or self._problem),
                "undo": bool(session.history.done),
                "redo": bool(session.history.undone),
                "saved": session.saved,
                "file": str(session.save_to),
                "from": list(asked_by),
            }

    def _labels(self) -> dict:
        session = self.session
        return {
            "index": session.image_index,
            "people": [
                {"points": a["keypoints"], "suggested": "id" not in a, "box": a.get("bbox")}
                for a in session.annotations()
            ],
            "person": session.person,
            "keypoint": session.keypoint,
        }

    def _changed_elsewhere(self) -> bool:
        return bool(self.state) and any(self.state[key] != now for key, now in self._labels().items())


def picture(path: Path) -> bytes:
    """The file as it is where browsers show what models see; otherwise, turned by EXIF or transparent, say, as JPEG."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(Base.Orientation, 1) != 1
            transparent = "A" in image.getbands() or "transparency" in image.info
            as_it_is = image.format in _BROWSERS_SHOW and not turned and not transparent
    except UnidentifiedImageError:
        as_it_is = False
    if as_it_is:
        return path.read_bytes()
    return encoded(".jpg", read_image(path), 95)


def _figure(skeleton: Skeleton) -> dict:
    """What the view needs to draw one: names, limbs, colours, and where to put keypoints in the small drawing."""
    keypoints, limbs = palette(skeleton)
    points = layout(skeleton)
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - (low + high) / 2) / max(*(high - low), 1e-6) + 0.5
    return {
        "name": skeleton.name,
        "keypoints": list(skeleton.keypoints),
        "limbs": [list(limb) for limb in skeleton.limbs],
        "keypoint_colours": keypoints.tolist(),
        "limb_colours": limbs.tolist(),
        "layout": points.round(4).tolist(),
    }
