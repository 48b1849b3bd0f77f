"""The comparison as four charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lib.analysis.drawings import COLOURS
from lib.draw import CURVES
from lib.metrics.errors import KINDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGES = {"load": "#BBBBBB", "detect": "#CC79A7", "preprocess": "#E69F00", "network": "#0072B2", "decode": "#009E73"}
SMALLEST, PER_MILLION = 40, 45  # areas of dots in points², for parameters


def figure(rows: Sequence, rules: str) -> Figure:
    """AP over latency, latency over people, stages, and errors; only the last if latency was not measured."""
    from matplotlib.figure import Figure

    panels = [accuracy_panel, people_panel, stages_panel, errors_panel] if rows[0].latency else [errors_panel]
    sheet = Figure(figsize=(13, 9.4) if len(panels) > 1 else (8, 4.5))
    across = 2 if len(panels) > 1 else 1
    sheet.subplots_adjust(0.125 if across > 1 else 0.3, 0.1 if across > 1 else 0.2, 0.985, 0.92, 0.3, 0.3 + 0.02 * len(rows) if across > 1 else 0.3)
    for axis, panel in zip(sheet.subplots(across, across, squeeze=False).flat, panels):
        panel(rows, axis)
        axis.spines[["top", "right"]].set_visible(False)
    sheet.suptitle(rules, fontsize=8, wrap=True)
    return sheet


def middle(rows: Sequence) -> int:
    """The number of people whose latency the charts show, the median of those measured."""
    return sorted(rows[0].latency)[len(rows[0].latency) // 2]


def accuracy_panel(rows: Sequence, axis: Axes) -> None:
    """The further up and to the left, the better; the dots grow with the parameters, the bars are the spread of the rounds."""
    count = middle(rows)
    for row, colour in zip(rows, CURVES * len(rows)):
        total, (low, high) = row.latency[count]["total"], row.spread[count]
        parameters = np.nansum([row.parameters, row.of_detector[0]]) / 1e6
        axis.errorbar(total, row.metrics["AP"], xerr=[[max(total - low, 0)], [max(high - total, 0)]], color=colour, linewidth=1.5,
                      label=f"{row.title}: {parameters:.1f} M")  # fmt: skip
        axis.scatter(total, row.metrics["AP"], SMALLEST + PER_MILLION * parameters, color=colour, alpha=0.75, zorder=3)
    axis.set_xscale("log")
    _plain_numbers(axis.xaxis)
    axis.grid(alpha=0.3)
    axis.margins(0.15, 0.3)
    axis.set(xlabel=f"milliseconds from picture to {count} people", ylabel="AP", title="accuracy and latency")
    axis.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)


def people_panel(rows: Sequence, axis: Axes) -> None:
    """What one waits for with more people in the picture: top-down models work for everybody, the others hardly notice."""
    for row, colour in zip(rows, CURVES * len(rows)):
        axis.plot(list(row.latency), [stages["total"] for stages in row.latency.values()], "o-", color=colour)
    axis.set_yscale("log")
    _plain_numbers(axis.yaxis)
    axis.set_xticks(list(rows[0].latency))
    axis.grid(alpha=0.3)
    axis.set(xlabel="people in the picture", ylabel="milliseconds", title="latency by people")


def stages_panel(rows: Sequence, axis: Axes) -> None:
    """Where the time goes."""
    count, left = middle(rows), np.zeros(len(rows))
    for stage, colour in STAGES.items():
        values = np.array([row.latency[count].get(stage, 0.0) for row in rows])
        axis.barh(range(len(rows)), values, left=left, color=colour, label=stage)
        left += values
    _named(axis, rows)
    axis.set(xlabel="milliseconds", title=f"stages, {count} people")
    axis.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=len(STAGES))


def errors_panel(rows: Sequence, axis: Axes) -> None:
    """Kinds of errors of the keypoints of people who were found."""
    left = np.zeros(len(rows))
    for kind in KINDS[1:]:
        values = np.array([100 * row.errors[kind] for row in rows])
        axis.barh(range(len(rows)), values, left=left, color=COLOURS[kind], label=kind)
        left += values
    _named(axis, rows)
    axis.set(xlabel="% of the labelled keypoints of people who were found", title="errors of keypoints")
    axis.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=len(KINDS))


def _named(axis: Axes, rows: Sequence) -> None:
    axis.set_yticks(range(len(rows)), [row.title.replace(", ", "\n") for row in rows], fontsize=7)
    axis.invert_yaxis()


def _plain_numbers(axis) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
