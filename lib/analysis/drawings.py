"""Pictures of an analysis: six panels, and the worst pictures with their errors marked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from lib.data.augment import read_image
from lib.draw import draw_people, grid
from lib.files import inside
from lib.metrics.errors import FIXES, KINDS, Judged
from lib.metrics.pck import THRESHOLDS as SIZES
from lib.metrics.pck import pck_table
from lib.metrics.precision import RECALLS, THRESHOLDS
from lib.people import People

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# told apart by everybody (after Okabe and Ito)
COLOURS = {"good": "#CFD8DC", "jitter": "#F0E442", "inversion": "#56B4E9", "swap": "#CC79A7", "miss": "#D55E00",
           "score": "#0072B2", "false positive": "#E69F00", "missed person": "#222222"}  # fmt: skip
STRICTNESS = (0, 5, 8)  # numbers of THRESHOLDS whose curves are drawn
FONT = cv2.FONT_HERSHEY_SIMPLEX, 0.38
TILE = 320  # height of a picture on the sheet
NO_PICTURE = 120  # side of the sheet if nothing is wrong


def figure(analysis) -> Figure:
    """Precision over recall, OKS, PCK; kinds of errors, what they cost, and AP of groups."""
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(14, 8.2))
    # a fixed layout: matplotlib's own takes seconds to think one out
    sheet.subplots_adjust(0.08, 0.08, 0.985, 0.91, 0.27, 0.3)
    panels = (precision_panel, oks_panel, pck_panel, kinds_panel, cost_panel, groups_panel)
    for axis, panel in zip(sheet.subplots(2, 3).flat, panels):
        panel(analysis, axis)
        axis.spines[["top", "right"]].set_visible(False)
    sheet.suptitle(f"AP {analysis.average_precision:.3f}: {analysis.rules}", fontsize=10)
    return sheet


def precision_panel(analysis, axis: Axes) -> None:
    """Precision over recall at three strictnesses: a curve that ends early misses people, one that sags is imprecise."""
    rows = analysis.errors.tally.precision()
    for number, colour in zip(STRICTNESS, ("#009E73", "#0072B2", "#D55E00")):
        axis.plot(RECALLS, rows[number], color=colour, label=f"OKS ≥ {THRESHOLDS[number]:g}: AP {rows[number].mean():.3f}")
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="precision and recall")
    axis.legend(frameon=False, fontsize=8, loc="lower left")


def oks_panel(analysis, axis: Axes) -> None:
    """How similar everybody's prediction is; who was missed stands at 0."""
    axis.hist(analysis.oks, np.linspace(0, 1, 21), color="#0072B2", edgecolor="white")
    missed = int((analysis.oks < 0.1).sum())
    axis.set(xlabel="OKS with the best prediction", ylabel="people", xlim=(0, 1),
             title=f"similarity of {len(analysis.oks)} people, {missed} below 0.1")  # fmt: skip


def pck_panel(analysis, axis: Axes) -> None:
    """Keypoints found over the distance that is still called found."""
    for name, values in analysis.pck.items():
        total = name == "Total"
        axis.plot(SIZES, values, color="black" if total else "0.75", linewidth=2.2 if total else 0.8, zorder=2 + total)
    ends = {name: values[len(SIZES) // 4] for name, values in analysis.pck.items() if name != "Total"}
    for choose, name in ((max, "best"), (min, "worst")):
        keypoint = choose(ends, key=ends.get)
        axis.plot(SIZES, analysis.pck[keypoint], linewidth=1.4, label=f"{name} at 0.05: {keypoint}", zorder=2.5)
    title = ", ".join(f"{key[4:]}: {value:.2f}" for key, value in pck_table(analysis.pck).items() if key != "AUC")
    axis.set(xlabel="distance, in longer sides of the box", ylabel="keypoints found", xlim=(0, SIZES[-1]), ylim=(0, 1),
             xticks=SIZES[::10], title=f"PCK at {title}")  # fmt: skip
    axis.legend(frameon=False, fontsize=8, loc="lower right")


def kinds_panel(analysis, axis: Axes) -> None:
    """Kinds of errors of every keypoint, in people who were found."""
    counts = analysis.errors.counts
    shares, left = 100 * counts / np.maximum(counts.sum(axis=0), 1), np.zeros(counts.shape[1])
    for kind, row in reversed(list(zip(KINDS, shares))):
        axis.barh(np.arange(len(left)), row, left=left, color=COLOURS[kind], label=kind, height=0.85)
        left = left + row
    axis.set_yticks(np.arange(len(left)), analysis.skeleton.keypoints, fontsize=7)
    axis.invert_yaxis()
    axis.set(xlabel="% of the labelled keypoints", xlim=(0, max(10.0, min(100.0, 1.6 * (100 - shares[0]).max()))))
    axis.set_title("errors of keypoints", pad=16)
    axis.legend(frameon=False, fontsize=7, ncols=len(KINDS), loc="lower center", bbox_to_anchor=(0.45, 0.97),
                handlelength=1, columnspacing=1)  # fmt: skip


def cost_panel(analysis, axis: Axes) -> None:
    """AP gained by fixing each kind alone, and from AP to 1 when they are fixed from top to bottom."""
    ap = before = analysis.average_precision
    for row, fix in enumerate(FIXES):
        alone, turn = analysis.errors.alone[fix], analysis.errors.in_turn[fix]
        axis.barh(row - 0.2, alone - ap, 0.38, color=COLOURS[fix], edgecolor="0.3", linewidth=0.5)
        axis.barh(row + 0.2, turn - before, 0.38, color=COLOURS[fix], edgecolor="0.3", linewidth=0.5, alpha=0.45, hatch="///")
        axis.text(max(alone - ap, 0), row - 0.2, f" {alone - ap:+.3f}", fontsize=7, va="center")
        before = turn
    axis.set_yticks(range(len(FIXES)), FIXES, fontsize=8)
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set(xlabel="AP gained (plain: this alone, hatched: after those above)", title="what the errors cost")


def groups_panel(analysis, axis: Axes) -> None:
    """AP of people by their size in the picture, and of pictures by how much people are in each other's way."""
    groups = [g for g in [*analysis.by_size, *analysis.by_crowding] if g.people]
    sizes = len([g for g in analysis.by_size if g.people])
    places = [i + (i >= sizes) * 0.6 for i in range(len(groups))]
    axis.bar(places, [g.ap for g in groups], color=["#56B4E9"] * sizes + ["#009E73"] * (len(groups) - sizes))
    for place, group in zip(places, groups):
        axis.text(place, group.ap + 0.01, f"{group.ap:.2f}\n({group.people})", ha="center", fontsize=7)
    axis.set_xticks(places, [g.name for g in groups], fontsize=7, rotation=30)
    axis.set(ylim=(0, 1.12), ylabel="AP (people)", title="by size, and by crowding")


def worst_sheet(analysis, count: int) -> np.ndarray:
    """The pictures whose errors cost most: annotated on the left, predicted on the right with every error ringed."""
    worst = analysis.errors.worst(count)
    names = [analysis.files[p.scene.image_id] for p in worst]
    tiles = [tile(read_image(inside(analysis.images, name)), p, analysis.skeleton, name) for p, name in zip(worst, names)]
    return grid(tiles, columns=2, gap=8) if tiles else np.full((NO_PICTURE, NO_PICTURE, 3), 255, np.uint8)


def tile(image: np.ndarray, picture: Judged, skeleton, name: str) -> np.ndarray:
    """Annotated and predicted people side by side, (320 + caption, …, 3) RGB uint8, errors in the colours of `COLOURS`.

    The name stands above on the right, where there is room for it.

    Rings are keypoints; boxes are people who were missed (on the left) and predictions without a partner (on the right).
    """
    scene, factor = picture.scene, TILE / image.shape[0]
    small = cv2.resize(image, (max(1, round(image.shape[1] * factor)), TILE), interpolation=cv2.INTER_AREA)
    scaled = [np.concatenate([points[..., :2] * factor, points[..., 2:]], axis=-1) for points in (scene.truth, scene.keypoints)]
    true, found = (People(points, np.ones(len(points))) for points in scaled)
    left = draw_people(small, true[~scene.ignored], skeleton)
    right = draw_people(small, found, skeleton)
    for box in true.boxes_around_keypoints()[picture.missed]:
        _box(left, box, _rgb("missed person"))
    for box in found.boxes_around_keypoints()[picture.false_positives]:
        _box(right, box, _rgb("false positive"))
    for number, kind in list(enumerate(KINDS))[1:]:
        for x, y, s in found.keypoints[picture.kinds == number]:
            if s > 0:
                cv2.circle(right, (round(float(x)), round(float(y))), 6, _rgb(kind), 2, cv2.LINE_AA)
    return np.concatenate([_caption(picture, name, left.shape[1] * 2), np.concatenate([left, right], axis=1)])


def _caption(picture: Judged, name: str, width: int) -> np.ndarray:
    strip, at = np.full((20, width, 3), 255, np.uint8), 4
    counted = [(kind, int((picture.kinds == number).sum())) for number, kind in list(enumerate(KINDS))[1:]]
    counted += [("false positive", int(picture.false_positives.sum())), ("missed person", int(picture.missed.sum()))]
    for kind, number in counted:
        if number:
            cv2.rectangle(strip, (at, 5), (at + 10, 15), _rgb(kind), -1)
            _write(strip, text := f"{number} {kind}", at + 14)
            at += 26 + _width(text)
    if at + _width(name) + 4 < width:
        _write(strip, name, width - _width(name) - 4)
    return strip


def _write(strip: np.ndarray, text: str, x: int) -> None:
    cv2.putText(strip, text, (x, 14), *FONT, (40, 40, 40), 1, cv2.LINE_AA)


def _width(text: str) -> int:
    return cv2.getTextSize(text, *FONT, 1)[0][0]


def _box(canvas: np.ndarray, box: np.ndarray, colour: tuple[int, ...]) -> None:
    x, y, width, height = (round(float(v)) for v in np.clip(box, -1e4, 1e4))
    cv2.rectangle(canvas, (x - 4, y - 4), (x + width + 4, y + height + 4), colour, 2, cv2.LINE_AA)


def _rgb(kind: str) -> tuple[int, int, int]:
    return tuple(int(COLOURS[kind][i : i + 2], 16) for i in (1, 3, 5))
