"""A model in torch: a `Model`, or a program that torch wrote."""

from __future__ import annotations

import dataclasses
import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import torch

from lib.checkpoints import Model
from lib.runtime.checks import METADATA_KEY, checked_device, checked_metadata


class TorchNetwork:
    """A `Model` on a device.

    Args:
        model: it goes to the device, and into eval mode.
        device: cpu, cuda or cuda:1.
        precision: fp32 or bf16.
        input_size: (H, W) instead of the model's.

    Raises:
        ValueError: another precision, or a size that the network cannot take.
        RuntimeError: there is no such device.
    """

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
        """See `lib.runtime`."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            maps = self.network(_on_device(images, self.device))
        return {name: values.float().contiguous().cpu().numpy() for name, values in maps.items()}


class TorchFileNetwork:
    """A `.pt2` or TorchScript (`.ts`) file of `lib.export`, in torch.

    Both are programs: open only what comes from somebody you trust. Files with pickled objects, which ours have not, are refused.

    Raises:
        ValueError: the file was not written by this workbook, or torch cannot open it.
        RuntimeError: there is no such device.
    """

    def __init__(self, path: Path, device: str):
        self.device = checked_device(device)
        extra = {METADATA_KEY: ""}
        try:
            if path.suffix == ".pt2":
                _refuse_pickles(path)
                program = torch.export.load(path, extra_files=extra)
                if self.device.type != "cpu":
                    program = torch.export.passes.move_to_device_pass(program, self.device)
                self.network = program.module()
            else:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message=".*deprecated")  # who wrote the file was told
                    self.network = torch.jit.load(path, map_location=self.device, _extra_files=extra).eval()
        except (RuntimeError, zipfile.BadZipFile, AssertionError, KeyError, OSError) as error:
            raise ValueError(f"{path}: torch {torch.__version__} cannot open this file: {error}") from error
        text = extra[METADATA_KEY]
        self.metadata = checked_metadata(text.decode() if isinstance(text, bytes) else text or None, path)
        self.provider = f"torch {device}, {'torch.export' if path.suffix == '.pt2' else 'TorchScript'}"
        self.network.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See `lib.runtime`."""
        maps = self.network(_on_device(images, self.device))
        return {name: m.contiguous().cpu().numpy() for name, m in zip(self.metadata["export"]["outputs"], maps)}


def _on_device(images: np.ndarray, device: torch.device) -> torch.Tensor:
    # (N, H, W, 3) seen as (N, 3, H, W) is channels_last already: bytes travel, floats are made on the device
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()


def _refuse_pickles(path: Path) -> None:
    """A .pt2 may hold pickled objects and compiled libraries, which torch would run while it opens the file."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        tables = [json.loads(archive.read(name))["config"] for name in names if name.endswith("_config.json")]
    pickled = [name for table in tables for name, entry in table.items() if entry.get("use_pickle")]
    compiled = [name for name in names if "aotinductor" in name]
    if pickled or compiled:
        raise ValueError(f"{path} holds code ({(pickled + compiled)[0]}), which files of this workbook do not: it is not opened")
