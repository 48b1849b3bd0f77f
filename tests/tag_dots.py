"""A network without training with heatmaps at two resolutions and tags: the poles of `tests.dots`, told apart by their x."""

from __future__ import annotations

import torch
from torch import nn

from lib.checkpoints import Model
from lib.codecs import CODECS
from lib.skeleton import Skeleton
from tests.dots import POLE


class TagDots(nn.Module):
    """Red and green are the heatmaps; a tag is how far to the right of the input its cell lies, 0..20."""

    stride, input_multiple, outputs = 4, 32, {}

    def __init__(self, skeleton: Skeleton):
        super().__init__()
        self.skeleton, self.options = skeleton, {}
        self.colours = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.colours.weight[:] = (2 * torch.eye(3)[:2] - 1)[:, :, None, None] / 255

    def forward(self, images):
        fine = nn.functional.avg_pool2d(self.colours(images).relu(), 2)
        heatmaps = nn.functional.avg_pool2d(fine, 2)
        ramp = 20 * torch.cumsum(torch.ones_like(heatmaps), 3) / heatmaps.shape[3]
        return {"heatmaps": heatmaps, "tags": ramp, "heatmaps_fine": fine}


def tag_model(input_size=(96, 128), **options) -> Model:
    return Model(TagDots(POLE).eval(), CODECS["TagsCodec"](POLE, stride=4, min_parts=2, **options), input_size)
