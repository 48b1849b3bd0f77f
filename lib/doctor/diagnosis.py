"""The doctor's findings: as text for a terminal, as a table and pictures in a notebook, as a page in a folder."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lib import draw, files
from lib.doctor.drawings import Tile, tile
from lib.doctor.findings import SEVERITIES, Finding
from lib.doctor.reading import Labels
from lib.doctor.statistics import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IN_TEXT = 3
COLOURS = {"severe": "#D55E00", "warning": "#E69F00", "note": "#0072B2"}
# JupyterLab sets the cells of tables to the right, more specifically than one can without !important
STYLE = """<style>table.doctor tr td, table.doctor tr th {text-align: left !important; vertical-align: top; padding: .3em .8em}
table.doctor tr td:nth-child(2) {text-align: right !important} .doctor code {font-size: 90%} .doctor small {opacity: .75}
.doctor b.s {color: white; border-radius: .3em; padding: .05em .5em; white-space: nowrap}</style>"""


@dataclass
class Diagnosis:
    """What `examine` found; printing it gives the text, a notebook shows the table.

    Attributes:
        labels: the file as it was read.
        findings: the most severe first.
        statistics: see `lib.doctor.statistics.statistics`.
        images: folder of the pictures, or None.
    """

    labels: Labels = field(repr=False)
    findings: list[Finding]
    statistics: dict[str, Any] = field(repr=False)
    images: Path | None = None

    @property
    def severe(self) -> bool:
        """Whether a finding is severe."""
        return any(finding.severity == "severe" for finding in self.findings)

    def __getitem__(self, code: str) -> Finding:
        """The finding of that code; KeyError if there is none."""
        for finding in self.findings:
            if finding.code == code:
                return finding
        raise KeyError(f"no finding {code!r}; there are {', '.join(self.codes()) or 'none'}")

    def codes(self) -> dict[str, int]:
        """Code → count of every finding."""
        return {finding.code: finding.count for finding in self.findings}

    def __str__(self) -> str:
        return "\n".join([self.summary(), *(_as_text(finding) for finding in self.findings)])

    def summary(self) -> str:
        """What is in the file, and how many findings there are, in one line."""
        s, names = self.statistics, [f.severity for f in self.findings]
        found = ", ".join(f"{names.count(name)} {name}" for name in SEVERITIES if name in names) or "nothing found"
        pictures = "" if self.images else " (pictures not checked)"
        return (f"{self.labels.path.name}: {s['images']:,} images, {s['annotations']:,} annotations, "
                f"{s['people']:,} people with keypoints{pictures}: {found}")  # fmt: skip

    def examples(self, code: str, count: int = 4) -> list[Tile]:
        """Drawn examples of a finding, (title, (H, W, 3) uint8 RGB) each; [] where there is nothing to draw."""
        finding = self[code]
        tiles = (tile(self.labels, finding.code, example) for example in finding.examples[:count])
        return [drawn for drawn in tiles if drawn]

    def show(self) -> None:
        """In a notebook: the table, drawn examples of every finding that has a place, and the statistics."""
        from IPython.display import display

        display(self)
        sheet = self.sheet()
        if sheet:
            display(sheet)
        display(plots(self.statistics))

    def sheet(self, count: int = 24) -> Figure | None:
        """Contact sheet: a few examples of every finding that can be drawn, the most severe first; or None."""
        found = [f.code for f in self.findings if f.code != "image_empty"]
        tiles = [drawn for code in found for drawn in self.examples(code, IN_TEXT)][:count]
        return _figure(tiles) if tiles else None

    def write(self, folder: str | Path) -> Path:
        """Write index.html with pictures beside it, and findings.json; returns the page."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _save(plots(self.statistics), folder / "statistics.png")
        sections = "".join(self._sections(folder))
        page = (f"<!doctype html><meta charset='utf-8'><title>{html.escape(self.labels.path.name)}</title>"
                "<style>body {font: 15px/1.4 sans-serif; max-width: 75em; margin: 2em auto} img {max-width: 100%}</style>"
                f"<h1>{html.escape(self.labels.path.name)}</h1>{self._repr_html_()}"
                f"<h2>Statistics</h2><img src='statistics.png' alt='plots'>{sections}")  # fmt: skip
        content = {"file": str(self.labels.path), "findings": self.findings, "statistics": self.statistics}
        files.write(folder / "findings.json", msgspec.json.format(msgspec.json.encode(content)))
        return files.write(folder / "index.html", page)

    def _sections(self, folder: Path) -> Iterator[str]:
        for finding in self.findings:
            tiles = self.examples(finding.code, 8)
            if tiles and finding.code != "image_empty":
                _save(_figure(tiles), folder / f"{finding.code}.png")
                yield f"<h2>{html.escape(finding.message)}</h2><img src='{finding.code}.png' alt='examples'>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><b class='s' style='background: {COLOURS[f.severity]}'>{f.severity}</b></td><td>{f.count:,}</td>"
            f"<td>{html.escape(f.message)}<br><small>{'<br>'.join(html.escape(e.text) for e in _told(f))}</small></td>"
            f"<td>{html.escape(_remedy(f))}</td><td><code>{f.code}</code></td></tr>"
            for f in self.findings
        )
        head = "<tr><th></th><th>count</th><th>what, and examples</th><th>fix</th><th>code</th></tr>"
        return f"{STYLE}<p>{html.escape(self.summary())}</p><table class='doctor'>{head * bool(rows)}{rows}</table>"


def _as_text(finding: Finding) -> str:
    lines = [f"{finding.severity:8}{finding.count:7,} × {finding.message} [{finding.code}]"]
    lines += [textwrap.shorten(example.text, 110, placeholder=" …") for example in _told(finding)]
    return f"\n{' ' * 16}".join([*lines, f"→ {_remedy(finding)}"])


def _told(finding: Finding) -> list:
    return [e for e in finding.examples[:IN_TEXT] if e.text and finding.severity != "note"]


def _remedy(finding: Finding) -> str:
    return f"--fix: {finding.fix}" if finding.fixable else finding.fix


def _figure(tiles: list[Tile]) -> Figure:
    return draw.show(*(t.picture for t in tiles), titles=[t.title for t in tiles], width=3.0 * min(4, len(tiles)))


def _save(figure: Figure, path: Path) -> None:
    with files.beside(path) as writing:
        figure.savefig(writing, dpi=100)
