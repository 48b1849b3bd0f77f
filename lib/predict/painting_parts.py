"""What DeeperCut's maps say, drawn as arrows: offsets from cells to keypoints, and ways from a keypoint to the person's others."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from lib.codecs import multicut, parts_decode, parts_detect, parts_pairs
from lib.codecs.parts import PartsCodec
from lib.data.pair_statistics import NEVER_SEEN
from lib.draw import OUTLINE, SHIFT, fixed_point, heatmap_overlay, palette
from lib.draw_graph import draw_graph
from lib.people import apply_affine

WHITE = 255, 255, 255
MOST = 400  # arrows of offsets in one panel, those of the surest cells


def offset_panels(picture: np.ndarray, heatmaps: np.ndarray, maps: Mapping[str, np.ndarray], codec: PartsCodec,
                  to_picture: np.ndarray) -> list[np.ndarray]:  # fmt: skip
    """For every keypoint its heatmap, and arrows from the cells that are sure of it to where their offsets say it is.

    Args:
        picture: (H, W, 3) RGB uint8.
        heatmaps: (K, h, w) with the edges of the picture.
        maps: "heatmaps" and "offsets" of the network's input.
        codec: of the maps; its detection threshold says which cells are sure.
        to_picture: (2, 3) network's input → picture.
    """
    panels = []
    sure = np.nan_to_num(maps["heatmaps"], nan=-np.inf)
    for k in range(codec.skeleton.num_keypoints):
        panel = heatmap_overlay(picture, heatmaps[k][None])
        cells = np.argwhere(sure[k] >= codec.detection_threshold)
        cells = cells[np.argsort(-sure[k][tuple(cells.T)], kind="stable")[:MOST]]
        cells = np.insert(cells, 0, k, axis=1)
        geometry = codec.step, codec.start, codec.offset_stdev
        found = parts_detect.located(cells, maps["heatmaps"], maps["offsets"], *geometry)
        starts, ends = (apply_affine(to_picture, places) for places in (found.centres, found.places))
        _arrows(panel, starts, ends, [WHITE] * len(cells))
        panels.append(panel)
    return panels


def pair_panels(picture: np.ndarray, maps: Mapping[str, np.ndarray], codec: PartsCodec,
                to_picture: np.ndarray) -> list[np.ndarray]:  # fmt: skip
    """For every keypoint its detections, and from each the ways to where the person's other keypoints are said to be.

    An arrow has the colour of the keypoint that it leads to. Arguments as for `offset_panels`.
    """
    grey = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None] // 2 + 96, 3, axis=2)
    found, stats = parts_decode.detections(maps, codec), codec.pair_tables.stats
    k, colours, panels = codec.skeleton.num_keypoints, palette(codec.skeleton)[0], []
    for a in range(k):
        panel, ends = grey.copy(), np.array([b for b in range(k) if b != a], int)
        mine = found.parts == a
        x, y = found.cells[mine].T
        p = np.array([parts_pairs.pair_index(a, b, k) for b in ends], int)[:, None]
        told = np.stack([maps["pairwise"][2 * p, y, x], maps["pairwise"][2 * p + 1, y, x]], axis=-1)  # (K − 1, n, 2)
        ways = told * stats[a, ends, None, 2:] + stats[a, ends, None, :2]
        seen = [tuple(row) != NEVER_SEEN for row in stats[a, ends]]
        starts = apply_affine(to_picture, np.broadcast_to(found.centres[mine], ways.shape)[seen].reshape(-1, 2))
        tips = apply_affine(to_picture, (found.centres[mine] + ways)[seen].reshape(-1, 2))
        _arrows(panel, starts, tips, np.repeat(colours[ends[seen]], mine.sum(), axis=0))
        for place in apply_affine(to_picture, found.places[mine]):
            _dot(panel, place, colours[a])
        panels.append(panel)
    return panels


def graph_picture(picture: np.ndarray, maps: Mapping[str, np.ndarray], codec: PartsCodec,
                  to_picture: np.ndarray) -> np.ndarray:  # fmt: skip
    """All detections and how they were cut into people, see `lib.draw_graph`; arguments as for `offset_panels`."""
    graph = parts_decode.cut_graph(maps, codec)
    places, weights = apply_affine(to_picture, graph.detections.places), multicut.cost(graph.probabilities)
    return draw_graph(picture, places, graph.edges, weights, graph.labels, repelling=False)


def _arrows(panel: np.ndarray, starts: np.ndarray, ends: np.ndarray, colours) -> None:
    for start, end, colour in zip(starts, ends, colours):
        if not np.isfinite(end).all() or np.abs(end).max() > 4 * max(panel.shape):
            continue
        # a head of three pixels, however long the arrow is
        tip = min(1.0, 3 / max(float(np.hypot(*(end - start))), 1e-6))
        cv2.arrowedLine(panel, *fixed_point(np.stack([start, end])), tuple(map(int, colour)), 1, cv2.LINE_AA, SHIFT, tip)


def _dot(panel: np.ndarray, place: np.ndarray, colour: np.ndarray) -> None:
    for radius, paint in ((3.5, OUTLINE), (2.5, tuple(map(int, colour)))):
        cv2.circle(panel, fixed_point(place[None])[0], round(radius * 2**SHIFT), paint, -1, cv2.LINE_AA, SHIFT)
