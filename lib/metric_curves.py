"""Curves: a run's figures over its epochs as YAML, as a picture, and as one HTML file that needs nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COUNTS = ("epoch", "step", "seconds", "chain_step")
COLOURS = {"train": "#0072B2", "val": "#D55E00"}
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 340, 210, 52, 12, 10, 30

Metrics = dict[str, dict[str, list[tuple[int, float]]]]


def by_metric(rows: Sequence[Mapping[str, float]]) -> Metrics:
    """Rows of a history → {metric: {"train" or "val": [(epoch, value), …]}}; `train_loss` is the metric loss of train.

    What is not called `train_…` is a figure of validation, but for the learning rate.
    """
    metrics: Metrics = {}
    for row in rows:
        for name, value in row.items():
            if name not in COUNTS:
                split, _, metric = name.partition("_")
                split, metric = (split, metric) if split in COLOURS and metric else ("val", name)
                split = "train" if name == "learning_rate" else split
                metrics.setdefault(metric, {}).setdefault(split, []).append((int(row["epoch"]), float(value)))
    return metrics


def as_yaml(metrics: Metrics) -> str:
    """{metric: {split: [{epoch: 1, value: 0.5}, …]}}."""
    lists = {
        metric: {split: [{"epoch": epoch, "value": value} for epoch, value in points] for split, points in lines.items()}
        for metric, lines in metrics.items()
    }
    return yaml.safe_dump(lists, sort_keys=False, allow_unicode=True)


def as_figure(metrics: Metrics) -> Figure:
    """One panel for every metric, training in blue and validation in orange."""
    from matplotlib.figure import Figure

    columns = min(4, max(1, len(metrics)))
    rows = math.ceil(max(1, len(metrics)) / columns)
    width, height = 3.4 * columns, 2.3 * rows
    figure = Figure(figsize=(width, height))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    # a fixed layout: matplotlib's own takes seconds to think one out
    figure.subplots_adjust(0.7 / width, 0.4 / height, 1 - 0.1 / width, 1 - 0.3 / height, 0.3, 0.35)
    for axis, (metric, lines) in zip(axes, metrics.items()):
        for split, points in lines.items():
            axis.plot(*zip(*points), color=COLOURS[split], marker="o" if len(points) < 40 else "", markersize=3, label=split)
        axis.set_title(metric, fontsize=10)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)  # there is no epoch 0.96
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axis.legend(frameon=False, fontsize=8)
    for axis in axes[max(0, len(metrics) - columns) : len(metrics)]:
        axis.set_xlabel("epoch", fontsize=9, labelpad=1)
    for axis in axes[len(metrics) :]:
        axis.axis("off")
    return figure


def as_html(metrics: Metrics, title: str, remarks: Mapping[str, str]) -> str:
    """A page with a chart for every metric, whose points tell their values, and a table of remarks; no script, no network.

    Args:
        metrics: of `by_metric`.
        title: heading.
        remarks: rows of the table.
    """
    table = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in remarks.items())
    charts = "".join(_chart(metric, lines) for metric, lines in metrics.items())
    legend = " ".join(f'<span style="color:{colour}">● {split}</span>' for split, colour in COLOURS.items())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2em; color: #222 }} th {{ text-align: left; padding-right: 1.5em }}
figure {{ display: inline-block; margin: 0 1em 1em 0 }} figcaption {{ font-weight: 600 }} text {{ font-size: 11px; fill: #555 }}
</style></head><body><h1>{html.escape(title)}</h1><table>{table}</table><p>{legend}</p>{charts}</body></html>
"""


def _chart(metric: str, lines: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    points = [point for line in lines.values() for point in line if math.isfinite(point[1])]
    if not points:
        return f"<figure><figcaption>{html.escape(metric)}</figcaption>no finite value</figure>"
    (first, *_, last), values = sorted([p[0] for p in points] * 2), [p[1] for p in points]
    low, high = min(values), max(values)
    # one value alone, or the same one always, lies in the middle
    room = (high - low) or abs(high) or 1.0
    low, high = (low, high) if high > low else (low - room / 2, high + room / 2)

    def place(epoch: int, value: float) -> tuple[float, float]:
        across = (epoch - first) / (last - first) if last > first else 0.5
        up = (value - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [_axes(first, last, low, high)]
    for split, line in lines.items():
        placed = [(*place(*point), point) for point in line if math.isfinite(point[1])]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in placed)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{COLOURS[split]}" stroke-width="1.5"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[split]}"><title>{split}, epoch {epoch}: {value:.6g}</title></circle>'
            for x, y, (epoch, value) in placed
        ]
    return (f'<figure><figcaption>{html.escape(metric)}</figcaption><svg width="{WIDTH}" height="{HEIGHT}" '
            f'viewBox="0 0 {WIDTH} {HEIGHT}">{"".join(parts)}</svg></figure>')  # fmt: skip


def _axes(first: int, last: int, low: float, high: float) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for share in (0, 0.5, 1):
        y = bottom - share * (bottom - TOP)
        parts.append(f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
                     f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{low + share * (high - low):.3g}</text>')  # fmt: skip
    ends = [(LEFT, first, "start"), (right, last, "end")] if last > first else [((LEFT + right) / 2, first, "middle")]
    parts += [f'<text x="{x}" y="{bottom + 16}" text-anchor="{anchor}">{epoch}</text>' for x, epoch, anchor in ends]
    return "".join(parts) + f'<text x="{(LEFT + right) / 2}" y="{bottom + 28}" text-anchor="middle">epoch</text>'
