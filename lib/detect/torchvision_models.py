"""torchvision's detectors (BSD-3-Clause): SSDlite, Faster R-CNN, FCOS, RetinaNet, Keypoint R-CNN."""

from __future__ import annotations

import urllib.error
from pathlib import Path

import numpy as np
import torch

from lib.detect.boxes import to_boxes
from lib.runtime import checked_device

PUBLISHED = "BSD-3-Clause (torchvision); trained on COCO, whose pictures keep their own licences"


class TorchvisionDetector:
    """People found by a detector of torchvision.

    Args:
        name: its builder, such as "fasterrcnn_mobilenet_v3_large_320_fpn".
        weights: state dict of that builder; None: the published COCO weights, downloaded once.
        device: cpu, cuda or cuda:1.
        threshold: boxes with a lower score are left out, 0..1.

    Raises:
        ValueError: torchvision has no such detector, or the file does not fit it.
        FileNotFoundError: no such file.
        OSError: the weights cannot be downloaded.
    """

    def __init__(self, name: str, weights: str | Path | None = None, device: str = "cpu", threshold: float = 0.3):
        import torchvision  # it takes a second, which no other detector shall wait for

        known = torchvision.models.list_models(module=torchvision.models.detection)
        if name not in known:
            raise ValueError(f"torchvision has no detector {name!r}; it has {', '.join(known)}")
        published = torchvision.models.get_model_weights(name).DEFAULT
        categories = published.meta["categories"]
        self.name, self.licence = name, PUBLISHED if weights is None else None
        self.device, self.threshold = checked_device(device), threshold
        self._person = categories.index("person")
        state = _downloaded(published) if weights is None else _read(weights)
        network = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=len(categories))
        try:
            network.load_state_dict(state)
        except (RuntimeError, AttributeError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{weights}: these are not weights of {name} for COCO's classes: {reason}") from None
        self._network = network.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, path: Path | None = None) -> np.ndarray:
        """See `lib.detect.Detector`."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self.device).permute(2, 0, 1).float() / 255
        found = self._network([pixels])[0]
        people = found["labels"] == self._person
        corners, scores = (found[what][people].cpu().numpy() for what in ("boxes", "scores"))
        return to_boxes(corners, scores, image.shape[:2], self.threshold)


def _read(path: str | Path):
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file of weights {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever is not a file of weights fails in its own way
        raise ValueError(f"{path}: not a file of weights: {' '.join(str(error).split())[:200]}") from error


def _downloaded(published) -> dict:
    try:
        return published.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (urllib.error.URLError, TimeoutError) as error:
        name = Path(published.url).name
        raise OSError(f"{published.url} cannot be downloaded ({error}): put the file {name} here by other means and say "
                      f"torchvision:NAME=PATH/{name}, or choose another detector") from None  # fmt: skip
