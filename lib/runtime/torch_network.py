"""A model in torch."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from lib.checkpoints import Model
from lib.runtime.checks import checked_device


class TorchNetwork:
    """A `Model` on a device; uint8 images in, float32 maps out."""

    def __init__(self, model: Model, device: str, precision: str, input_size: tuple[int, int] | None):
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision {precision!r} is unknown; a torch network runs in fp32 or bf16")
        self.device = checked_device(device)
        model = model if input_size is None else dataclasses.replace(model, input_size=input_size)
        self.metadata = model.metadata()
        self.input_multiple: int = model.network.input_multiple
        self.provider = f"torch {device}" + (" bf16" if precision == "bf16" else "")
        self.network = model.network.to(self.device, memory_format=torch.channels_last).eval()
        self._bf16 = precision == "bf16"

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        # (N, H, W, 3) seen as (N, 3, H, W) is channels_last already: bytes travel, floats are made on the device
        inputs = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            maps = self.network(inputs)
        return {name: values.float().contiguous().cpu().numpy() for name, values in maps.items()}
