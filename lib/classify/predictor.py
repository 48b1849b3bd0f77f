"""A classifier at work: pictures in, probabilities out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from lib.checkpoints import Classifier, load_classifier, load_hrnet
from lib.data.imagenet import centre_affine, cut, draw, folder_of, name_of, read_class_index
from lib.runtime import checked_device


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
