"""A network without training that finds real people: poles with a red top, a green bottom and a blue stripe between."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from lib.checkpoints import Model
from lib.codecs import CODECS
from lib.data.coco import Annotation, Category, CocoFile, Image, write_coco
from lib.skeleton import Skeleton

POLE = Skeleton("pole", ("top", "bottom"), ((0, 1),), (), (0.05, 0.05))


class DotNet(nn.Module):
    """Colours are the maps: red and green are heatmaps, blue is a field that points down."""

    stride, input_multiple, outputs = 4, 32, {}

    def __init__(self, skeleton: Skeleton, gain: float = 1.0):
        super().__init__()
        self.skeleton, self.options = skeleton, {"gain": gain}
        self.colours = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.colours.weight[:] = gain / 255 * (2 * torch.eye(3) - 1)[:, :, None, None]
            self.colours.bias.zero_()

    def forward(self, images):
        red, green, blue = nn.functional.avg_pool2d(self.colours(images).relu(), 4).split(1, dim=1)
        return {"heatmaps": torch.cat([red, green], 1), "pafs": torch.cat([blue, blue * 0], 1)}


def dot_model(input_size=(96, 128), gain: float = 1.0, **options) -> Model:
    return Model(DotNet(POLE, gain).eval(), CODECS["PafCodec"](POLE, stride=4, **options), input_size)


def draw_poles(size: tuple[int, int], poles, margin: float = 8) -> np.ndarray:
    """(H, W, 3) uint8 RGB with poles [(x, y of the top, y of the bottom), …] in pixels; `margin` between stripe and ends."""
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.zeros((*size, 3))
    for px, top, bottom in poles:
        for channel, py in ((0, top), (1, bottom)):
            image[..., channel] = np.maximum(image[..., channel], 255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 50))
        stripe = (np.abs(x - px) < 6) & (y > top + margin) & (y < bottom - margin)
        image[..., 2] = np.maximum(image[..., 2], 255 * stripe)
    return image.round().astype(np.uint8)


def random_poles(rng: np.random.Generator, size: tuple[int, int]) -> list[tuple[float, float, float]]:
    """One or two poles, well apart."""
    height, width = size
    xs = rng.uniform(0.1 * width, 0.4 * width), rng.uniform(0.6 * width, 0.9 * width)
    return [(x, rng.uniform(0.1, 0.3) * height, rng.uniform(0.6, 0.9) * height) for x in xs[: rng.integers(1, 3)]]


def write_poles(folder: Path, count: int = 12, margin: float = 8) -> Path:
    """A COCO dataset of poles in pictures of several sizes: FOLDER/poles.json and FOLDER/images."""
    rng = np.random.default_rng(3)
    coco = CocoFile(
        [], [], [Category(1, "pole", keypoints=list(POLE.keypoints), skeleton=[(1, 2)], sigmas=[0.05, 0.05])]
    )
    (folder / "images").mkdir(parents=True)
    for i in range(count):
        size = (int(rng.integers(90, 200)), int(rng.integers(120, 260)))
        poles = random_poles(rng, size)
        cv2.imwrite(str(folder / f"images/{i}.png"), draw_poles(size, poles, margin)[..., ::-1])
        coco.images.append(Image(i, f"{i}.png", size[1], size[0]))
        for x, top, bottom in poles:
            box = [x - 8, top - 8, 16, bottom - top + 16]
            keypoints = [x, top, 2, x, bottom, 2]
            coco.annotations.append(Annotation(len(coco.annotations) + 1, i, 1, keypoints, 2, box, box[2] * box[3]))
    write_coco(folder / "poles.json", coco)
    return folder
