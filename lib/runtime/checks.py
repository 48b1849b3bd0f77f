"""What every runtime asks first: is the device there, and does the file say how its maps are read?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lib.models.own import FORMAT

METADATA_KEY = "pose_workbook"
"""Name of the entry of an exported file that holds `Model.metadata()` as JSON."""
INPUT = "images"
"""Name of the input of an exported network."""


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


def refuse_changes(path: Path, precision: str, input_size: tuple[int, int] | None) -> None:
    """Raise ValueError where another precision than fp32 or a size is asked of an exported file."""
    if precision != "fp32" or input_size is not None:
        raise ValueError(
            f"{path}: precision and input_size were fixed when this file was exported; export it anew to change them"
        )


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


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
