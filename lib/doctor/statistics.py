"""What is in a data set, in numbers and in one picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lib.doctor.reading import Labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VISIBLE, HIDDEN, ABSENT, INK = "#0072B2", "#E69F00", "#DDDDDD", "#333333"
SIZE_EDGES = 2.0 ** np.arange(0, 13.01, 0.5)  # pixels, the square root of the area
SMALL, LARGE = 32, 96  # COCO's borders between small, medium and large


def statistics(labels: Labels) -> dict[str, Any]:
    """Counts and histograms, all plain numbers and lists.

    Returns:
        images, images_with_people, annotations, people (with a labelled keypoint), crowds;
        categories: name → {annotations, people, keypoints: name → [visible, hidden, not labelled]} of people;
        sizes: people per bin of `size_edges`, the square roots of their areas (or half their boxes) in pixels;
        people_per_image, keypoints_per_person: how many images hold 0, 1, 2, … people, and so on;
        places: (20, 20) where in the image the middles of people lie, rows from the top.
    """
    people = np.flatnonzero(labels.labelled_counts > 0)
    images = labels.image_of[people]
    per_image = np.bincount(images[images >= 0], minlength=len(labels.images))
    sizes = np.sqrt(np.where(np.isnan(labels.areas), labels.boxes[:, 2:].prod(axis=1) / 2, labels.areas))[people]
    middles = (labels.extents[people, :2] + labels.extents[people, 2:]) / 2 / labels.image_sizes[people]
    middles = middles[np.isfinite(middles).all(axis=1)]
    places = np.histogram2d(middles[:, 1], middles[:, 0], bins=20, range=[[0, 1], [0, 1]])[0]
    return {
        "images": len(labels.images),
        "images_with_people": int((per_image > 0).sum()),
        "annotations": len(labels.annotations),
        "people": len(people),
        "crowds": int(labels.crowds.sum()),
        "categories": _categories(labels),
        "size_edges": SIZE_EDGES.tolist(),
        "sizes": np.histogram(sizes[np.isfinite(sizes)], SIZE_EDGES)[0].tolist(),
        "people_per_image": np.bincount(per_image).tolist(),
        "keypoints_per_person": np.bincount(labels.labelled_counts[people]).tolist(),
        "places": places.astype(int).tolist(),
    }


def plots(stats: dict[str, Any]) -> Figure:
    """The statistics as one figure: visibility of every keypoint, sizes, people per image, places."""
    import matplotlib.pyplot as plt

    named = {name: c for name, c in stats["categories"].items() if c["keypoints"]}
    largest = max(named, key=lambda name: named[name]["people"], default=None)
    keypoints = named[largest]["keypoints"] if largest else {}
    figure = plt.figure(figsize=(13, max(5.5, 0.24 * len(keypoints) + 1.6)), layout="constrained")
    plt.close(figure)
    axes = figure.subplot_mosaic([["keypoints", "sizes", "people"], ["keypoints", "counts", "last"]],
                                 width_ratios=[1.5, 1, 1])  # fmt: skip
    _plot_keypoints(axes["keypoints"], keypoints, largest)
    _plot_sizes(axes["sizes"], stats)
    _plot_counts(axes["people"], stats["people_per_image"], "people per image", "images")
    _plot_counts(axes["counts"], stats["keypoints_per_person"], "labelled keypoints per person", "people")
    if len(named) > 1:
        _plot_bars(axes["last"], {name: c["people"] for name, c in named.items()})
    else:
        axes["last"].imshow(stats["places"], cmap="cividis", extent=(0, 1, 1, 0))
        axes["last"].set(title="where people stand in the image", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    for axis in axes.values():
        axis.title.set_fontsize(10)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _categories(labels: Labels) -> dict[str, dict]:
    found = {}
    counts = np.bincount(labels.category_of[labels.category_of >= 0], minlength=len(labels.categories)).tolist()
    groups = {group.category: group for group in labels.figures}
    for row, category in enumerate(labels.categories):
        name, keypoints, people = str(category.get("name")), {}, 0
        if row in groups:
            group = groups[row]
            there = group.labelled.any(axis=1)
            people, v = int(there.sum()), np.where(group.labelled[there], group.keypoints[there, :, 2], 0)
            shares = np.stack([(v == 2).sum(axis=0), ((v != 2) & (v > 0)).sum(axis=0), (v == 0).sum(axis=0)], axis=1)
            keypoints = dict(zip(group.skeleton.keypoints, shares.tolist()))
        key = name if name not in found else f"{name} ({row})"
        found[key] = {"annotations": counts[row], "people": people, "keypoints": keypoints}
    return found


def _plot_keypoints(axis, keypoints: dict[str, list[int]], category: str | None) -> None:
    counts = np.array(list(keypoints.values()), float).reshape(-1, 3)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    start = np.zeros(len(shares))
    for share, label, colour in zip(shares.T, ("visible", "hidden", "not labelled"), (VISIBLE, HIDDEN, ABSENT)):
        axis.barh(list(keypoints), share, left=start, label=label, color=colour, height=0.8)
        start += share
    axis.invert_yaxis()
    axis.set(xlim=(0, 100), xlabel="% of people", title=f"keypoints of {category!r}" if category else "no keypoints")
    axis.legend(ncols=3, fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.04))


def _plot_sizes(axis, stats: dict[str, Any]) -> None:
    edges, counts = np.array(stats["size_edges"]), np.array(stats["sizes"])
    axis.bar(edges[:-1], counts, np.diff(edges), align="edge", color=VISIBLE, edgecolor="white", linewidth=0.5)
    axis.set(xscale="log", title="size of people (√area, pixels)", ylabel="people")
    for border, side, where in ((SMALL, "small", "right"), (LARGE, "large", "left")):
        axis.axvline(border, color=INK, linewidth=1, linestyle=":")
        axis.annotate(f" {side} ", (border, 1), xycoords=("data", "axes fraction"), ha=where, va="top", fontsize=8)
    axis.set_xticks([8, 16, 32, 64, 128, 256, 512], labels=["8", "16", "32", "64", "128", "256", "512"])
    axis.minorticks_off()
    used = np.flatnonzero(counts)
    if len(used):
        axis.set_xlim(edges[max(0, used[0] - 1)], edges[min(len(counts), used[-1] + 2)])


def _plot_counts(axis, counts: list[int], title: str, what: str) -> None:
    axis.bar(range(len(counts)), counts, color=VISIBLE, width=0.9)
    axis.set(title=title, ylabel=what)
    for ticks in (axis.xaxis, axis.yaxis):  # nobody counts half a person
        ticks.get_major_locator().set_params(integer=True)


def _plot_bars(axis, counts: dict[str, int]) -> None:
    axis.barh(list(counts), list(counts.values()), color=VISIBLE)
    axis.invert_yaxis()
    axis.set(title="people per category")
