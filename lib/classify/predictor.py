"""A classifier at work: pictures in, probabilities out, and both in one drawing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from lib.checkpoints import Classifier, load_classifier, load_hrnet
from lib.data.imagenet import centre_affine, cut, draw, folder_of, name_of, read_class_index
from lib.runtime import checked_device

PANEL, ROW, TEXT = 300, 46, 16  # width of the panel with the bars, height of a row, size of the letters: pixels
HEIGHTS = 5 * ROW + 10, 480  # least and most of a drawn picture
RIGHT, GUESS, OTHER, PAPER, INK = (0, 158, 115), (0, 114, 178), (170, 170, 170), (250, 250, 248), (30, 30, 30)


class PictureClassifier:
    """Says what pictures show.

    Args:
        model: a classifier, a checkpoint of ours (.safetensors), or a public file (see `lib.checkpoints.load_hrnet`).
        device: cpu, cuda or cuda:1.
        classes: a class index (.json or .yaml) that names the classes, for public files, which do not.

    Attributes:
        classes: C classes, "FOLDER NAME" (see `lib.data.imagenet`).
        input_size: (H, W) of the network's input.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds no classifier, or the index has another number of classes.
        RuntimeError: there is no such device.
    """

    def __init__(self, model: Classifier | str | Path, device: str = "cpu", classes: str | Path | None = None):
        if not isinstance(model, Classifier):
            model = load_classifier(model) if Path(model).suffix == ".safetensors" else load_hrnet(model)
        self.device = checked_device(device)
        self.classes, self.input_size = tuple(model.network.classes), model.input_size
        self.centre: float = model.info.get("centre", 0.875)
        if classes is not None:
            named = read_class_index(classes)
            if len(named) != len(self.classes):
                raise ValueError(f"{classes} names {len(named)} classes, the network knows {len(self.classes)}")
            self.classes = named
        # a name that two classes share tells nothing
        names = Counter(map(name_of, self.classes))
        self._labels = {name: i for i, label in enumerate(self.classes) if names[name := name_of(label)] == 1}
        self._labels |= {folder_of(label): i for i, label in enumerate(self.classes)}
        self.network = model.network.to(self.device, memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Fitted images (N, H, W, 3) uint8 RGB → probabilities (N, C) float32."""
        # (N, H, W, 3) seen as (N, 3, H, W) is channels_last already
        inputs = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float()
        return self.network(inputs)["logits"].float().softmax(dim=1).cpu().numpy()

    def fit(self, picture: str | Path | np.ndarray) -> np.ndarray:
        """The middle of a picture, a file or (H, W, 3) uint8 RGB, as (*input_size, 3)."""
        affine_of = lambda size: centre_affine(size, self.input_size, self.centre)
        if isinstance(picture, np.ndarray):
            return draw(picture, affine_of(picture.shape[:2]), self.input_size)
        return cut(picture, affine_of, self.input_size)

    def label_of(self, folder: str) -> int | None:
        """The class whose WNID or name a folder has, or None."""
        return self._labels.get(folder, self._labels.get(folder.replace("_", " ")))


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
    scale = min(max(1, HEIGHTS[0] / height), HEIGHTS[1] / height)
    size = max(1, round(width * scale)), round(height * scale)
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
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
