"""A network without training with heatmaps, offsets and pairs: the poles of `tests.dots`, all about as long as `LENGTH`."""

from __future__ import annotations

import torch
from torch import nn

from lib.checkpoints import Model
from lib.codecs.parts import PartsCodec
from lib.skeleton import Skeleton
from tests.dots import POLE

LENGTH, SPREAD = 40.0, 10.0
STATS = ((0, LENGTH, SPREAD, SPREAD), (0, -LENGTH, SPREAD, SPREAD))


class PartDots(nn.Module):
    """Red and green are the heatmaps, offsets lead to the middle of the colour around a cell, ways are the mean ones."""

    stride, input_multiple, outputs = 8, 16, {}

    def __init__(self, skeleton: Skeleton):
        super().__init__()
        self.skeleton, self.options = skeleton, {}
        self.strides = {"heatmaps": 8, "offsets": 8, "pairwise": 8}
        self.colours = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.colours.weight[:] = (2 * torch.eye(3)[:2] - 1)[:, :, None, None] / 255

    def forward(self, images):
        colours = self.colours(images).relu()
        around = lambda values: nn.functional.avg_pool2d(values, 24, 8, padding=8)
        x, y = torch.arange(images.shape[3]), torch.arange(images.shape[2])
        weights = around(colours) + 1e-6
        middles = torch.stack([around(colours * x), around(colours * y[:, None])], dim=2) / weights[:, :, None]
        centres = torch.stack(torch.meshgrid(x[3::8] + 0.5, y[3::8] + 0.5, indexing="xy"))
        return {
            "heatmaps": nn.functional.avg_pool2d(colours, 8),
            "offsets": ((middles - centres) / 7.2801).flatten(1, 2),
            "pairwise": 0 * weights.repeat(1, 2, 1, 1),
        }


def part_model(input_size=(96, 128), **options) -> Model:
    options = {"pair_stats": STATS, "detection_threshold": 0.1, "pair_rule": (6.0, 12.0), "min_parts": 2} | options
    return Model(PartDots(POLE).eval(), PartsCodec(POLE, **options), input_size)
