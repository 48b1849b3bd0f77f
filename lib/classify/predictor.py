"""A classifier at work: pictures in, probabilities out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from scipy.special import softmax

from lib.checkpoints import Classifier, load_classifier, load_hrnet
from lib.data.imagenet import centre_affine, cut, draw, folder_of, name_of, read_class_index
from lib.runtime import OnnxNetwork, TorchNetwork


class PictureClassifier:
    """Says what pictures show.

    Args:
        model: a classifier, a checkpoint of ours (.safetensors), exported (.onnx), or a public file (see
            `lib.checkpoints.load_hrnet`).
        device: cpu, cuda or cuda:1.
        classes: a class index (.json or .yaml) that names the classes, for public files, which do not.

    Attributes:
        classes: C classes, "FOLDER NAME" (see `lib.data.imagenet`).
        input_size: (H, W) of the network's input.
        network: the torch network, or None of an exported file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file holds no classifier, or the index has another number of classes.
        RuntimeError: there is no such device.
    """

    def __init__(self, model: Classifier | str | Path, device: str = "cpu", classes: str | Path | None = None):
        if not isinstance(model, Classifier) and Path(model).suffix == ".onnx":
            self._network = OnnxNetwork(Path(model), device, None)
        else:
            if not isinstance(model, Classifier):
                model = load_classifier(model) if Path(model).suffix == ".safetensors" else load_hrnet(model)
            self._network = TorchNetwork(model, device, "fp32", None)
        self.network, metadata = getattr(self._network, "network", None), self._network.metadata
        if "classes" not in metadata:
            raise ValueError(f"{model} finds people and names no classes; use it with `python -m lib predict`")
        self.classes, self.input_size = tuple(metadata["classes"]), tuple(metadata["input_size"])
        self.centre: float = metadata["info"].get("centre", 0.875)
        if classes is not None:
            named = read_class_index(classes)
            if len(named) != len(self.classes):
                raise ValueError(f"{classes} names {len(named)} classes, the network knows {len(self.classes)}")
            self.classes = named
        # a name that two classes share tells nothing
        names = Counter(map(name_of, self.classes))
        self._labels = {name: i for i, label in enumerate(self.classes) if names[name := name_of(label)] == 1}
        self._labels |= {folder_of(label): i for i, label in enumerate(self.classes)}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Fitted images (N, H, W, 3) uint8 RGB → probabilities (N, C) float32."""
        return softmax(self._network(images)["logits"], axis=1)

    def fit(self, picture: str | Path | np.ndarray) -> np.ndarray:
        """The middle of a picture, a file or (H, W, 3) uint8 RGB, as (*input_size, 3)."""
        affine_of = lambda size: centre_affine(size, self.input_size, self.centre)
        if isinstance(picture, np.ndarray):
            return draw(picture, affine_of(picture.shape[:2]), self.input_size)
        return cut(picture, affine_of, self.input_size)

    def label_of(self, folder: str) -> int | None:
        """The class whose WNID or name a folder has, or None."""
        return self._labels.get(folder, self._labels.get(folder.replace("_", " ")))
