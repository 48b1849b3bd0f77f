"""The comparison as text and as Markdown, and its place in a README."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from lib import files
from lib.metrics.errors import KINDS

BEGIN, END = "<!-- comparison -->", "<!-- /comparison -->"


def text(rows: Sequence) -> str:
    """Aligned columns."""
    return _aligned([_heads(rows), *(_cells(row) for row in rows)])


def markdown(rows: Sequence, rules: str) -> str:
    """The table with its rules below."""
    heads = _heads(rows)
    lines = [heads, ["---"] * len(heads), *(_cells(row) for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + f"\n\n{_sentence(rules)}\n"


def write_readme(readme: Path, table: str, picture: Path) -> None:
    """Put the table and the chart between the comments of a Markdown file.

    Raises:
        OSError: there is no such file. ValueError: it lacks the comments.
    """
    content = readme.read_text()
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme} has no lines {BEGIN} and {END}, between which the comparison belongs: add them where it is to be")
    link = Path(os.path.relpath(picture.absolute(), readme.absolute().parent)).as_posix()
    files.write(readme, f"{before}{begin}\n{table}\n![Accuracy and latency of the compared models]({link})\n{end}{after}")


def _heads(rows: Sequence) -> list[str]:
    latency = rows[0].latency
    heads = ["model", "input", "AP", "AP50", f"keypoints {' / '.join(KINDS[1:])}, %", "missed, false people",
             "parameters", "multiply-adds", "memory"]  # fmt: skip
    if latency:
        heads += [f"ms for {' / '.join(map(str, latency))} people", f"of the ms for {max(latency)}: detect / network / decode"]
    return heads


def _cells(row) -> list[str]:
    boxes = "" if not row.boxes else ", per person"
    extra = lambda number: f" + {number}".replace("nan", "?") if any(row.of_detector) else ""
    cells = [
        row.title, "×".join(map(str, row.input_size)), f"{row.metrics['AP']:.3f}", f"{row.metrics['AP50']:.3f}",
        " / ".join(f"{100 * row.errors[kind]:.1f}" for kind in KINDS[1:]),
        f"{row.people['missed']} of {row.people['people']}, {row.people['false positives']}",
        f"{row.parameters / 1e6:.1f}{extra(f'{row.of_detector[0] / 1e6:.1f}')} M",
        f"{row.multiply_adds / 1e9:.2f} G{boxes}{extra(f'{row.of_detector[1] / 1e9:.2f} G')}",
        "–" if math.isnan(row.memory) else f"{row.memory:.0f} MiB",
    ]  # fmt: skip
    if row.latency:
        stages = row.latency[max(row.latency)]
        cells.append(" / ".join(f"{stages['total']:.0f}" for stages in row.latency.values()))
        cells.append(" / ".join(f"{stages[stage]:.1f}" if stage in stages else "–" for stage in ("detect", "network", "decode")))
    return cells


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _sentence(rules: str) -> str:
    return f"{rules[0].upper()}{rules[1:]}."
