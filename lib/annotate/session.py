"""The rules of annotating: a cursor on one keypoint of one person of one image, edits that can be undone, autosave.

Everything the annotator can do is a method here and works without a notebook; the widget only draws and passes keys on.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from threading import RLock

import msgspec
import numpy as np
from tqdm.auto import tqdm

from lib.annotate.history import Cursor, History, Step
from lib.annotate.labels import LabelFile, Place, derive, place_path, read_place, write_place
from lib.annotate.sources import as_labels, by_names, check_folder, images_of
from lib.data.augment import read_image
from lib.data.coco import CocoFile
from lib.people import People
from lib.skeleton import Skeleton

VISIBILITY = {2: "visible", 1: "hidden", 0: "not labelled"}


class Session:
    """Annotating a list of images into one COCO file, which is written after every change.

    Nothing has to be saved or closed: make a Session with the same arguments to go on where you stopped. Methods that
    do nothing sensible where they stand raise ValueError with the way out and change nothing.

    Args:
        images: a folder (with its sub-folders), or paths of images.
        skeleton: what to annotate, or its built-in name, YAML or COCO file (`Skeleton.named`).
        save_to: COCO keypoint file; it need not exist. What is not edited, also unknown keys, other categories and other
            images, stays in it as it is. A hidden file `.NAME.annotator` beside it keeps the place, done marks and
            suggestions.
        category: name of the category; None: the only one with keypoints, else the skeleton's name.

    Attributes:
        skeleton: as above.
        folder: file_names in the COCO file are relative to it.
        names: file_name of every image.
        image_index: the current image, 0-based.
        person: index of the current person among the image's people, or None where nobody is.
        keypoint: index of the current keypoint.
        history: `done` and `undone` edits.
        message: a sentence about the last thing that happened, for status lines and screen readers.
        saved: False after a change that could not be written.

    Raises:
        FileNotFoundError: no image.
        ValueError: `save_to` is not a COCO file, belongs to other images or has other keypoints; it stays as it is.
    """

    def __init__(
        self,
        images: str | Path | Sequence[str | Path],
        skeleton: Skeleton | str | Path,
        save_to: str | Path,
        category: str | None = None,
    ):
        self.skeleton = skeleton if isinstance(skeleton, Skeleton) else Skeleton.named(skeleton)
        self.folder, self.names = images_of(images)
        self._file = LabelFile(save_to, self.skeleton, category)
        check_folder(self._file, self.folder)
        place = read_place(self._file.path, self.skeleton.num_keypoints)
        self._file.done |= set(place.done)
        self._suggested = place.suggestions
        self._people: dict[int, list[dict]] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._lock = RLock()  # JupyterLab answers the widget in a thread of its own while a cell runs
        self.history = History()
        self.saved, self.message = True, ""
        self.image_index, self.person, self.keypoint = 0, None, 0
        self._go(self.names.index(place.image) if place.image in self.names else 0)

    def __repr__(self) -> str:
        counts = [self.progress(i)[0] for i in range(len(self.names))]
        return (
            f"Session({self.save_to}: {sum(counts)} × {self.skeleton.name!r} on {sum(c > 0 for c in counts)} of "
            f"{len(counts)} images)"
        )

    @property
    def save_to(self) -> Path:
        """The COCO file."""
        return self._file.path

    @property
    def name(self) -> str:
        """file_name of the current image."""
        return self.names[self.image_index]

    @property
    def placed(self) -> bool:
        """Whether the current keypoint is labelled."""
        return self._point()[2] > 0

    # -- looking -------------------------------------------------------------------------------------------------------

    def path(self, index: int | None = None) -> Path:
        """The file of an image (default: the current one)."""
        return self.folder / self.names[self.image_index if index is None else index]

    def annotations(self) -> list[dict]:
        """The current image's people as COCO annotations; a suggestion has no `id` yet. Change nothing in them."""
        return self._load(self.image_index)

    def people(self, index: int | None = None, suggested: bool = False) -> People:
        """Annotated people of an image, s = visibility 0, 1, 2; with `suggested` also predictions not yet accepted."""
        found = [a for a in self._load(self.image_index if index is None else index) if suggested or "id" in a]
        if not found:
            return People.empty(self.skeleton.num_keypoints)
        return People(
            np.array([a["keypoints"] for a in found]).reshape(len(found), -1, 3),
            np.ones(len(found)),
            np.array([a.get("bbox") or [0, 0, 0, 0] for a in found], np.float32),
            np.array([a.get("id", 0) for a in found], np.int64),
        )

    def coco(self) -> CocoFile:
        """What stands in the file, or would if it could be written."""
        coco = msgspec.json.decode(self._file.encoded(), type=CocoFile)
        coco.source = str(self.save_to)
        return coco

    def progress(self, index: int) -> tuple[int, int, bool]:
        """Of an image: number of annotated people, number of suggested people, whether it is marked as done."""
        name = self.names[index]
        return self._file.count(name), len(self._suggested.get(name, ())), name in self._file.done

    def size(self, index: int | None = None) -> tuple[int, int]:
        """(H, W) of an image.

        Raises:
            FileNotFoundError, ValueError: missing, damaged, or of another size than the COCO file says.
        """
        index = self.image_index if index is None else index
        if index not in self._sizes:
            size = read_image(self.path(index)).shape[:2]
            known = self._file.images.get(self.names[index])
            if known is not None and (known["height"], known["width"]) != size:
                raise ValueError(
                    f"{self.path(index)} is {size[1]}×{size[0]} pixels, {self.save_to} says {known['width']}×"
                    f"{known['height']}: its labels belong to another version of the image"
                )
            self._sizes[index] = size
        return self._sizes[index]

    # -- moving around -------------------------------------------------------------------------------------------------

    def go_to(self, index: int) -> None:
        """Show an image."""
        if not 0 <= index < len(self.names):
            raise ValueError(f"there is no image {index + 1}: they go from 1 to {len(self.names)}")
        self._go(index)
        self._remember()

    def next_image(self) -> None:
        self.go_to(self.image_index + 1)

    def previous_image(self) -> None:
        self.go_to(self.image_index - 1)

    def next_open_image(self) -> None:
        """The next image, from here round, with nobody on it and not marked as done."""
        n = len(self.names)
        for index in ((self.image_index + step) % n for step in range(1, n + 1)):
            people, _, done = self.progress(index)
            if not people and not done:
                return self.go_to(index)
        raise ValueError("every image has annotations or is marked as done")

    def next_person(self) -> None:
        self._step_person(1)

    def previous_person(self) -> None:
        self._step_person(-1)

    def next_keypoint(self) -> None:
        self._select(self.person, (self.keypoint + 1) % self.skeleton.num_keypoints)

    def previous_keypoint(self) -> None:
        self._select(self.person, (self.keypoint - 1) % self.skeleton.num_keypoints)

    def select(self, person: int | None, keypoint: int) -> None:
        """Put the cursor on a keypoint (index) of a person (index; None where nobody is on the image)."""
        count = len(self.annotations())
        if not (count == 0 if person is None else 0 <= person < count):
            raise ValueError(f"person {person} does not exist: this image has {count}, counted from 0")
        if not 0 <= keypoint < self.skeleton.num_keypoints:
            raise ValueError(f"keypoint {keypoint} does not exist: the skeleton has {self.skeleton.num_keypoints}")
        self._select(person, keypoint)

    # -- editing -------------------------------------------------------------------------------------------------------

    def place(self, x: float, y: float, v: int = 2) -> None:
        """Put the current keypoint at (x, y) image pixels, then go to the next one that is not labelled.

        Outside the image means its border. Where nobody is on the image, a person is added.

        Args:
            v: 2 visible, 1 hidden.
        """
        if v not in (1, 2):
            raise ValueError(f"a placed keypoint is visible (2) or hidden (1), not {v}")
        point = self._within(x, y)
        name = self._keypoint_name
        with self._edit(f"{name} placed"):
            if self.person is None:
                self._append_person()
            self._set(*point, v)
            who, hidden = self._who(), ", hidden" if v == 1 else ""
            self._advance()
        self.message = f"{name} of {who} placed at {point[0]:g}, {point[1]:g}{hidden}. {self._next()}"

    def move(self, dx: float, dy: float, again: bool = False) -> None:
        """Shift the current keypoint by so many pixels; it ends at the image's border.

        Args:
            again: goes on with the move before it, and is undone together with it.
        """
        x, y, v = self._placed()
        point = self._within(x + dx, y + dy)
        text = f"{self._keypoint_name} of {self._who()} moved"
        with self._edit(text, join=again):
            self._set(*point, v or 2)
        self.message = f"{self._keypoint_name} of {self._who()} moved to {point[0]:g}, {point[1]:g}"

    def set_visibility(self, v: int) -> None:
        """2 visible, 1 hidden, 0 not labelled (its coordinates are kept, in case it comes back)."""
        if v not in VISIBILITY:
            raise ValueError(f"visibility is 0, 1 or 2, not {v}")
        x, y, _ = self._placed()
        with self._edit(f"{self._keypoint_name} {VISIBILITY[v]}"):
            self._set(x, y, v)
        self.message = f"{self._keypoint_name} of {self._who()} is {VISIBILITY[v]}"

    def toggle_visibility(self) -> None:
        """Visible → hidden → not labelled → visible."""
        self.set_visibility((self._placed()[2] - 1) % 3)

    def delete_keypoint(self) -> None:
        """Take the current keypoint away."""
        self._placed()
        with self._edit(f"{self._keypoint_name} deleted"):
            self._set(0, 0, 0)
        self.message = f"{self._keypoint_name} of {self._who()} deleted"

    def add_person(self) -> None:
        """Start another person with the first keypoint; one without any keypoint yet is used first."""
        people = self.annotations()
        blank = next((i for i, a in enumerate(people) if not any(a["keypoints"]) and not a.get("bbox")), None)
        if blank is None:
            with self._edit("person added"):
                self._append_person()
        else:
            self.person, self.keypoint = blank, 0
        self.message = f"{self._who().capitalize()} added. {self._next()}"

    def delete_person(self) -> None:
        """Remove the current person (reject it, where it is a suggestion)."""
        self._someone()
        who = self._who()
        with self._edit(f"{who} deleted") as people:
            del people[self.person]
            self._choose(min(self.person, len(people) - 1))
        self.message = f"{who.capitalize()} deleted. {self._about_people()}"

    def accept(self, everyone: bool = False) -> None:
        """Take the current suggestion, or all on the image, over as they are. Editing one does the same."""
        taken = [a for a in (self.annotations() if everyone else [self._someone()]) if "id" not in a]
        if not taken:
            raise ValueError("this image has no suggestions" if everyone else f"{self._who()} is no suggestion")
        with self._edit("suggestion accepted"):
            for annotation in taken:
                self._confirm(annotation, annotation["keypoints"])
        self.message = f"{'All suggestions' if everyone else self._who().capitalize()} accepted. {self._about_people()}"

    def mark_done(self, done: bool | None = None) -> None:
        """Mark the current image as looked through (None: change the mark); the file then lists it even without people."""
        done = self.name not in self._file.done if done is None else done
        if done:
            size = self.size()
            self._file.store(self.name, size, [], [])
            self._file.done.add(self.name)
        else:
            self._file.done.discard(self.name)
        self.message = f"{self.name} is {'done' if done else 'no longer done'}"
        self._write()

    def undo(self) -> None:
        """Take back the last edit, on whichever image it was."""
        step = self.history.back()
        self._restore(step.image, step.before, step.cursor_before, f"Undone: {step.text}")

    def redo(self) -> None:
        """Do again what was undone last."""
        step = self.history.forward()
        self._restore(step.image, step.after, step.cursor_after, f"Done again: {step.text}")

    def save(self, path: str | Path | None = None) -> None:
        """Write the file now; with `path` to a new file, which is used from then on (see `LabelFile.save`)."""
        self._write(path)
        self.message = f"Saved {self.save_to}"

    def start_from(self, predict: Callable[[np.ndarray], People], min_score: float = 0.3) -> int:
        """Suggest people on all images that have neither annotations nor suggestions nor a done mark.

        A suggestion enters the COCO file when it is accepted or edited.

        Args:
            predict: a `Predictor`, of which the skeleton's keypoints are taken by name; or a function of your own, image
                (H, W, 3) RGB uint8 → People with the skeleton's keypoints and scores as s.
            min_score: keypoints below keep their place with v = 0, so that one key shows them; people with none above
                are left out.

        Returns:
            Number of people suggested. Images that cannot be read are skipped and named in a warning.
        """
        predict, unread, total = by_names(predict, self.skeleton), [], 0
        todo = [index for index in range(len(self.names)) if not any(self.progress(index))]
        try:
            for index in tqdm(todo, unit="image", desc="suggesting"):
                try:
                    self.size(index)
                    image = read_image(self.path(index))
                except (OSError, ValueError) as error:
                    unread.append(str(error))
                    continue
                figures = as_labels(predict(image), image.shape[:2], min_score, min_score)
                total += self._suggest(index, [figure for figure in figures if any(figure[2::3])])
        finally:  # what there is when somebody interrupts stays
            self._remember()
            self._go(self.image_index)
        if unread:
            warnings.warn(f"{len(unread)} images were left out: {'; '.join(unread[:3])}", stacklevel=2)
        return total

    # -- below: helpers ------------------------------------------------------------------------------------------------

    @property
    def _keypoint_name(self) -> str:
        return self.skeleton.keypoints[self.keypoint]

    def _load(self, index: int) -> list[dict]:
        if index not in self._people:
            name = self.names[index]
            suggestions = [{"keypoints": list(points)} for points in self._suggested.get(name, ())]
            self._people[index] = self._file.people(name) + suggestions
        return self._people[index]

    @contextmanager
    def _edit(self, text: str, join: bool = False) -> Iterator[list[dict]]:
        """Change the people of the current image inside; afterwards the step can be undone and the file is written."""
        size = self.size()  # an image that cannot be shown is not annotated either
        with self._lock:
            people = self._load(self.image_index)
            before, cursor = deepcopy(people), (self.person, self.keypoint)
            try:
                yield people
            except BaseException:
                self._people[self.image_index] = before
                self.person, self.keypoint = cursor
                raise
            cursors = cursor, (self.person, self.keypoint)
            self.history.add(Step(self.image_index, text, before, deepcopy(people), *cursors), join)
            self._store(self.image_index, size, before)

    def _store(self, index: int, size: tuple[int, int], before: list[dict]) -> None:
        name, people = self.names[index], self._people[index]
        self._file.store(name, size, before, people)
        left = [a["keypoints"] for a in people if "id" not in a]
        changed = left != self._suggested.get(name, [])
        self._suggested[name] = left
        self._write(place=changed)

    def _suggest(self, index: int, figures: list[list[float]]) -> int:
        with self._lock:
            if any(self.progress(index)):
                return 0  # annotated while we were at it
            self._suggested[self.names[index]] = figures
            self._people.pop(index, None)
        return len(figures)

    def _write(self, path: str | Path | None = None, place: bool = True) -> None:
        self.saved = self.saved and path is not None  # whether a copy succeeds says nothing about the file
        with self._writing(path or self.save_to):
            self._file.save(path)
        self.saved = True
        if place:
            self._remember()

    def _remember(self) -> None:
        with self._writing(place_path(self.save_to)):
            suggestions = {name: figures for name, figures in self._suggested.items() if figures}
            write_place(self.save_to, Place(self.name, sorted(self._file.done), suggestions))

    @contextmanager
    def _writing(self, path: str | Path) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except FileExistsError:
            raise
        except OSError as error:
            text = (
                "Your work is still here: put that right and press Ctrl+S, or run session.save('ELSEWHERE/labels.json')"
            )
            raise OSError(f"{path} cannot be written ({error.strerror or error}). {text}") from error

    def _restore(self, index: int, people: list[dict], cursor: Cursor, text: str) -> None:
        elsewhere = index != self.image_index
        self.image_index = index
        before = self._load(index)
        self._people[index] = deepcopy(people)
        self.person, self.keypoint = cursor
        self.message = text + (f" (on {self.name})" if elsewhere else "")
        self._store(index, self.size(index), before)

    def _go(self, index: int) -> None:
        self.image_index = index
        self._choose(0 if self.annotations() else -1)
        self.message = f"Image {index + 1} of {len(self.names)}, {self.name}: {self._about_people()}"

    def _step_person(self, step: int) -> None:
        count = len(self.annotations())
        if not count:
            raise ValueError("nobody is on this image yet: place a keypoint, or add a person")
        self._choose((self.person + step) % count)
        self.message = f"{self._who().capitalize()} of {count}. {self._next()}"

    def _choose(self, person: int) -> None:
        """The cursor on a person's first keypoint without a label; −1 is nobody."""
        self.person, self.keypoint = (None, 0) if person < 0 else (person, self.skeleton.num_keypoints - 1)
        if self.person is not None and not self._advance():
            self.keypoint = 0

    def _select(self, person: int | None, keypoint: int) -> None:
        self.person, self.keypoint = person, keypoint
        x, y, v = self._point()
        where = f"{VISIBILITY[v]} at {x:g}, {y:g}" if v else "not labelled"
        self.message = f"{self._keypoint_name} of {self._who()}: {where}"

    def _advance(self) -> bool:
        """The cursor on the next keypoint without a label, from here round; False where all have one."""
        k = self.skeleton.num_keypoints
        visibility = self.annotations()[self.person]["keypoints"][2::3]
        for keypoint in ((self.keypoint + step) % k for step in range(1, k + 1)):
            if not visibility[keypoint]:
                self.keypoint = keypoint
                return True
        return False

    def _append_person(self) -> None:
        people = self._load(self.image_index)
        people.append({"id": self._file.new_id(), "keypoints": [0] * (3 * self.skeleton.num_keypoints)})
        self.person = len(people) - 1
        self.keypoint = self.keypoint if len(people) == 1 else 0

    def _set(self, x: float, y: float, v: int) -> None:
        annotation = self._someone()
        keypoints = list(annotation["keypoints"])
        keypoints[3 * self.keypoint : 3 * self.keypoint + 3] = [x, y, v]
        self._confirm(annotation, keypoints)

    def _confirm(self, annotation: dict, keypoints: list) -> None:
        before, annotation["keypoints"] = annotation["keypoints"], keypoints
        if "id" not in annotation:
            annotation["id"] = self._file.new_id()
        derive(annotation, before, self.size())

    def _someone(self) -> dict:
        if self.person is None:
            raise ValueError("nobody is on this image yet: place a keypoint, or add a person")
        return self.annotations()[self.person]

    def _point(self) -> tuple[float, float, int]:
        if self.person is None:
            return 0, 0, 0
        x, y, v = self.annotations()[self.person]["keypoints"][3 * self.keypoint : 3 * self.keypoint + 3]
        return x, y, int(v)

    def _placed(self) -> tuple[float, float, int]:
        self._someone()
        x, y, v = self._point()
        if not (v or x or y):
            raise ValueError(f"{self._keypoint_name} of {self._who()} has no place yet: place it first")
        return x, y, v

    def _within(self, x: float, y: float) -> tuple[float, float]:
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ValueError(f"a keypoint needs finite coordinates, got {x}, {y}")
        height, width = self.size()
        return round(min(max(float(x), 0.0), width - 1), 2), round(min(max(float(y), 0.0), height - 1), 2)

    def _who(self) -> str:
        return "nobody" if self.person is None else f"person {self.person + 1}"

    def _next(self) -> str:
        if self._point()[2]:
            return "All keypoints are labelled"
        return f"Next: {self._keypoint_name}, {self.keypoint + 1} of {self.skeleton.num_keypoints}"

    def _about_people(self) -> str:
        people = self.annotations()
        suggested = sum("id" not in a for a in people)
        count = len(people) - suggested
        text = f"{count or 'no'} {'person' if count == 1 else 'people'}"
        return text + (f", {suggested} suggested" if suggested else "")
