"""What every preparation needs: a record of finished steps, room on the disk, and sizes people can read."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from lib import files

Fact = str | int | float | bool | None


class Steps:
    """The finished steps of a preparation, kept in `folder/prepared.yaml`.

    A step does its work in a way that may be repeated (`download` and `unpack` are such), then calls `finish`. Killed in
    between, it is done again, from where it stopped; killed after, it is skipped. The record holds no times and no
    machine, so an interrupted and an undisturbed preparation leave the same file.

        steps = Steps("data/mpii")
        if not steps.finished("images", size=12_000_000_000):
            unpack(...)
            steps.finish("images", size=12_000_000_000)
    """

    def __init__(self, folder: str | Path):
        """Open the record of a folder; there need not be one yet.

        Raises:
            ValueError: the record is not ours any more.
        """
        self.path = Path(folder) / "prepared.yaml"
        self._facts = self._read()

    def finished(self, step: str, **facts: Fact) -> bool:
        """Whether the step was finished from these facts (settings, sizes and checksums of what went in)."""
        return step in self._facts and facts.items() <= self._facts[step].items()

    def facts(self, step: str) -> dict[str, Fact]:
        """What was recorded when a step was finished; KeyError if it was not."""
        return dict(self._facts[step])

    def finish(self, step: str, **facts: Fact) -> None:
        """Record a step as finished; facts of an earlier run of it are forgotten."""
        self._facts = self._read() | {step: facts}
        files.write(self.path, yaml.safe_dump(self._facts, allow_unicode=True))

    def _read(self) -> dict[str, dict[str, Fact]]:
        try:
            facts = yaml.safe_load(self.path.read_text("utf-8")) if self.path.exists() else {}
        except (yaml.YAMLError, UnicodeDecodeError):
            facts = None
        if not isinstance(facts, dict) or not all(isinstance(value, dict) for value in facts.values()):
            raise ValueError(f"{self.path} is not a record of finished steps: delete it to do every step anew")
        return facts


def require_space(folder: str | Path, needed: int) -> None:
    """Raise OSError, saying what is needed and what is free, unless the disk of `folder` has room for `needed` bytes.

    The folder need not exist yet.
    """
    existing = Path(folder).resolve()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise OSError(f"{folder}: {readable(needed)} are needed and {readable(free)} are free on its disk: "
                      f"make room for {readable(needed - free)} more, or choose a folder on another disk")  # fmt: skip


def readable(size: float) -> str:
    """A number of bytes for people, in powers of 1000: "19.3 GB"."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.1f} {unit}" if unit != "bytes" else f"{size} bytes"
        size /= 1000
    return f"{size:,.1f} GB"
