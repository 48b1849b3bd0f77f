"""What runs a network: torch or ONNX Runtime, on the device that was asked for or not at all.

Every runtime is called with uint8 images (N, H, W, 3) and returns float32 maps (N, C, h, w) by name; it has `metadata` (what
`Model.metadata()` says, read from the file) and `provider` (what really runs). One that takes images of any size says of
which number their sides must be multiples, `input_multiple`; others take the size they were exported with. TensorRT's stands in `export_tensorrt`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from lib.checkpoints import FORMAT, Model

METADATA_KEY = "pose_workbook"
"""Name of the ONNX metadata entry that holds `Model.metadata()` as JSON."""


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


class OnnxNetwork:
    """An exported file in ONNX Runtime, on the provider that was asked for or not at all."""

    def __init__(self, path: Path, device: str, threads: int | None):
        provider = ("CPUExecutionProvider", {})
        if device != "cpu":
            provider = ("CUDAExecutionProvider", {"device_id": checked_device(device).index or 0})
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or 0
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=[provider])
        except Exception as error:  # ONNX Runtime raises its own classes, none of which is public
            raise ValueError(f"{path}: ONNX Runtime cannot open this file: {error}") from error
        self.provider = self.session.get_providers()[0]
        if self.provider != provider[0]:
            raise RuntimeError(
                f"{path}: asked for {provider[0]}, but ONNX Runtime {onnxruntime.__version__} offers {self.provider} on this "
                "machine; install the CUDA libraries with `pip install -e .[gpu]`, or use device='cpu'"
            )
        self.metadata = checked_metadata(self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), path)
        self._names = [output.name for output in self.session.get_outputs()]

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        inputs = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
        return dict(zip(self._names, self.session.run(self._names, {"images": inputs})))


def checked_metadata(text: str | None, path: Path) -> dict:
    """Metadata of an exported file from its JSON, or one clear error."""
    if text is None:
        raise ValueError(
            f"{path} does not say how to read its maps (no {METADATA_KEY!r} metadata): it was not written by this workbook; "
            "export the checkpoint with `python -m lib export MODEL.safetensors OUT.onnx`"
        )
    metadata = json.loads(text)
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} has the format {metadata.get('format')!r}, this version reads {FORMAT!r}; export it anew"
        )
    return metadata


def checked_device(device: str) -> torch.device:
    """`torch.device` of a name, if this machine has it."""
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device {device!r} is unknown; choose cpu, cuda, or cuda:1 and so on") from None
    if kind.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"device {device!r} was asked for, but torch {torch.__version__} finds no CUDA GPU; use device='cpu'"
        )
    if kind.type == "cuda" and (kind.index or 0) >= (count := torch.cuda.device_count()):
        raise RuntimeError(f"device {device!r} was asked for, but the last of this machine's GPUs is cuda:{count - 1}")
    return kind
