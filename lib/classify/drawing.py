"""The most probable classes of a picture, as bars beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lib.data.imagenet import name_of

PANEL, ROW, TEXT = 300, 46, 16  # width of the panel with the bars, height of a row, size of the letters: pixels
HEIGHTS, WIDEST = (5 * ROW + 10, 480), 1600  # least and most height of a drawn picture, and its most width
RIGHT, GUESS, OTHER, PAPER, INK = (0, 158, 115), (0, 114, 178), (170, 170, 170), (250, 250, 248), (30, 30, 30)


@dataclass
class Top:
    """The classes a picture most probably shows.

    Attributes:
        labels: (k,) class indices, the most probable first.
        probabilities: (k,) 0..1.
        names: k names.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    names: list[str]


def top(probabilities: np.ndarray, classes: Sequence[str], count: int = 5) -> Top:
    """The `count` most probable of C classes, or all where there are fewer; equals keep the order of the classes."""
    labels = np.argsort(-probabilities, kind="stable")[:count]
    return Top(labels, probabilities[labels], [name_of(classes[label]) for label in labels])


def draw_top(image: np.ndarray, best: Top, truth: str | None = None) -> np.ndarray:
    """A picture with its most probable classes as bars beside it.

    Args:
        image: (H, W, 3) uint8 RGB; very small and very large ones are scaled.
        best: of `top`.
        truth: the name of what it really shows, which is drawn green; named below if it is not among the best.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    scale = min(max(1, HEIGHTS[0] / height), HEIGHTS[1] / height, WIDEST / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    below = max(0, HEIGHTS[0] - size[1])  # what a very wide picture leaves free of the height that the bars need
    image = cv2.copyMakeBorder(image, 0, below, 0, 0, cv2.BORDER_CONSTANT, value=PAPER)
    panel = Image.new("RGB", (PANEL, image.shape[0]), PAPER)
    pen, font = ImageDraw.Draw(panel), _font()
    for row, (name, probability) in enumerate(zip(best.names, best.probabilities.tolist())):
        y, colour = 8 + row * ROW, RIGHT if name == truth else GUESS if row == 0 else OTHER
        pen.text((12, y), _short(name, pen, PANEL - 84), INK, font)
        pen.text((PANEL - 12, y), f"{probability:.1%}", INK, font, anchor="ra")
        pen.rectangle((12, y + 22, 12 + round(probability * (PANEL - 24)), y + 34), colour)
    if truth is not None and truth not in best.names:
        # over the last bar, which is never long: four others are longer
        pen.text((PANEL - 12, panel.height - 6), _short(f"really: {truth}", pen, PANEL - 24), RIGHT, font, anchor="rd")
    return np.concatenate([image, np.asarray(panel)], axis=1)


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), TEXT)


def _short(text: str, pen: ImageDraw.ImageDraw, width: int) -> str:
    if pen.textlength(text, _font()) <= width:
        return text
    while text and pen.textlength(f"{text}…", _font()) > width:
        text = text[:-1]
    return f"{text}…"
