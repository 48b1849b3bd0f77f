"""What has been done already, line by line: a stopped run goes on behind the last whole line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from lib.exchange.crops import Origin


class Person(Struct):
    """A person as labels: x, y, v for every keypoint, and the box [x, y, width, height]."""

    keypoints: list[int | float]
    box: list[float]


class Labelled(Struct):
    """A picture to be corrected: name, size in pixels, people, and where it was cut out, if it was."""

    file_name: str
    width: int
    height: int
    people: list[Person] = []
    origin: Origin | None = None


class Line(Struct):
    """What became of one picture or frame.

    Attributes:
        source: its name.
        pictures: itself, or the people cut out of it.
        unsure: people who were left out because no keypoint was sure enough.
        fault: why it could not be read, "" if it could.
    """

    source: str
    pictures: list[Labelled] = []
    unsure: int = 0
    fault: str = ""


class Journal:
    """Lines of one run, kept in a file and written as they come.

    Args:
        path: of the file; it need not exist.
        settings: what decides about the results. It is the first line.

    Attributes:
        lines: what was done, by source.

    Raises:
        ValueError: the file was begun with other settings, or is no journal.
    """

    def __init__(self, path: Path, settings: Mapping[str, str | int | float | bool | None]):
        self.path, self.lines = path, {}
        head = msgspec.json.encode(settings) + b"\n"
        if not path.exists():
            path.write_bytes(head)
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # whoever was killed while writing left half a line
        try:
            first, *rest = whole.splitlines() or [head]
            before = msgspec.json.decode(first, type=dict)
            for line in rest:
                self._keep(msgspec.json.decode(line, type=Line))
        except msgspec.DecodeError as error:
            raise ValueError(f"{path} is damaged ({error}): remove its folder and begin anew") from None
        now = msgspec.json.decode(head, type=dict)
        other = [f"{key} was {before.get(key)}, now {now.get(key)}" for key in {**before, **now}
                 if before.get(key) != now.get(key)]  # fmt: skip
        if other:
            raise ValueError(f"{path.parent} was begun with other settings ({'; '.join(other)}): go on with the same ones, or "
                             "choose another folder with --out")  # fmt: skip
        if whole != content or not whole:
            path.write_bytes(whole or head)

    def done(self, source: str) -> bool:
        """Whether nothing is left to do for a picture; what could not be read is tried again."""
        return source in self.lines and not self.lines[source].fault

    def add(self, lines: Iterable[Line]) -> None:
        """Note what was done, on the disk when this returns."""
        lines = list(lines)
        with self.path.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        for line in lines:
            self._keep(line)

    def _keep(self, line: Line) -> None:
        self.lines[line.source] = line
