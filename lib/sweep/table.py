"""What a sweep found, as a table: parameters and results, one line for each run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from lib.book_report import number_text
from lib.files import write

Row = dict[str, object]


def read_rows(folder: str | Path) -> list[Row]:
    """The runs of a sweep that have ended, in the order of its grid: run, parameters, results, seconds, status.

    Raises:
        FileNotFoundError: the folder holds no sweep.
    """
    return rows(json.loads(Path(folder, "manifest.json").read_text("utf-8"))["notebooks"])


def rows(records: Sequence[dict], only_swept: bool = False) -> list[Row]:
    """Lines of the table from the records of a manifest; all have the same columns, missing values are None.

    Args:
        records: of the runs.
        only_swept: leave out the parameters that all runs share. A result called like a parameter gets " (result)" behind it.
    """
    given = [({} if only_swept else r["overrides"]) | r["swept"] for r in records]
    found = [r.get("results", {}) for r in records]
    parameters, metrics = (list(dict.fromkeys(key for table in tables for key in table)) for tables in (given, found))
    taken = {"run", "status", "seconds", *parameters}
    called = {metric: f"{metric} (result)" if metric in taken else metric for metric in metrics}
    return [
        {"run": record["title"], **{key: values.get(key) for key in parameters}}
        | {called[key]: results.get(key) for key in metrics}
        | {"seconds": record.get("seconds"), "status": record["status"]}
        for record, values, results in zip(records, given, found, strict=True)
    ]


def write_tables(folder: Path, records: Sequence[dict]) -> None:
    """`results.csv` with all parameters, for programs, and `results.md` with the swept ones, for people."""
    lines = rows(records)
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    write(folder / "results.csv", text.getvalue())
    write(folder / "results.md", as_markdown(rows(records, only_swept=True)))


def as_markdown(lines: Sequence[Row]) -> str:
    """A table for a README or a terminal, without the names of folders."""
    names = [name for name in lines[0] if name != "run"]
    cells = [[number_text(line[name]).replace("|", "\\|") for name in names] for line in lines]
    widths = [max(3, len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(names)]
    numbers = [all(isinstance(line[name], int | float | None) for line in lines) for name in names]
    rule = ["-" * (width - right) + ":" * right for width, right in zip(widths, numbers, strict=True)]
    aligned = [[text.rjust(width) if right else text.ljust(width) for text, width, right in zip(row, widths, numbers, strict=True)]
               for row in (names, *cells)]  # fmt: skip
    return "".join(f"| {' | '.join(row)} |\n" for row in (aligned[0], rule, *aligned[1:]))


def as_html(records: Sequence[dict]) -> str:
    """The same for the report; every line leads to its run, and what has failed is red."""
    lines = rows(records, only_swept=True)
    names = [name for name in lines[0] if name not in ("run", "status")]
    head = "".join(f"<th>{escape(name)}</th>" for name in ("status", *names))
    body = "".join(
        f"<tr><td><a class={'soft' if line['status'] == 'ok' else 'error'} href='#{escape(line['run'])}'>{line['status']}</a></td>"
        + "".join(f"<td class=number>{escape(number_text(line[name]))}</td>" for name in names)
        + "</tr>"
        for line in lines
    )
    return f"<h2>Results</h2><div class=wide><table><tr>{head}</tr>{body}</table></div>"
