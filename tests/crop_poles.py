"""A top-down network without training: it finds the pole of a crop by the colours of its ends."""

from __future__ import annotations

import numpy as np

from lib.checkpoints import Model
from lib.codecs import CODECS
from tests.dots import POLE, DotNet


class PoleNet(DotNet):
    """Red and green are the heatmaps."""

    def forward(self, images):
        return {"heatmaps": super().forward(images)["heatmaps"]}


def pole_model(input_size=(128, 96), info=None, **options) -> Model:
    return Model(PoleNet(POLE).eval(), CODECS["HeatmapCodec"](POLE, sigma=5 / 4, **options), input_size, info=info or {})


def boxes_of(poles, score: float = 1.0) -> np.ndarray:
    """(P, 5) around poles [(x, y of the top, y of the bottom), …]."""
    rows = [[x + 0.5 - 12, top + 0.5 - 12, 24, bottom - top + 24, score] for x, top, bottom in poles]
    return np.array(rows, np.float32).reshape(-1, 5)


class Given:
    """A detector that knows the boxes of pictures by their file names, or has the same ones for all."""

    name, licence = "given", "ours"

    def __init__(self, boxes):
        self.boxes, self.calls = boxes, 0

    def __call__(self, image, path=None):
        self.calls += 1
        return self.boxes[path.name] if isinstance(self.boxes, dict) else self.boxes
