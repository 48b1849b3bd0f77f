"""Undo and redo over all images."""

from __future__ import annotations

from dataclasses import dataclass

Cursor = tuple[int | None, int]  # person, keypoint


@dataclass
class Step:
    """One edit: the people of an image before and after, and where the cursor stood."""

    image: int
    text: str
    before: list[dict]
    after: list[dict]
    cursor_before: Cursor
    cursor_after: Cursor


class History:
    """Steps that can be taken back, newest last, and those taken back, to be done again."""

    def __init__(self):
        self.done: list[Step] = []
        self.undone: list[Step] = []

    def add(self, step: Step, join: bool = False) -> None:
        """Remember an edit. With `join` it becomes one with the last, where it goes on exactly there."""
        last = self.done[-1] if self.done and not self.undone else None
        here = (step.image, step.text, step.cursor_before)
        if join and last is not None and (last.image, last.text, last.cursor_after) == here:
            last.after = step.after
        else:
            self.done.append(step)
        self.undone.clear()

    def back(self) -> Step:
        """The step to take back; ValueError without one."""
        return _shift(self.done, self.undone, "undo")

    def forward(self) -> Step:
        """The step to do again; ValueError without one."""
        return _shift(self.undone, self.done, "redo")


def _shift(source: list[Step], target: list[Step], what: str) -> Step:
    if not source:
        raise ValueError(f"nothing to {what}")
    target.append(source.pop())
    return target[-1]
