"""Our own files: safetensors with a header that says what the tensors are. Nothing here ever unpickles code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lib.files import write

FORMAT = "pose-workbook-1"
_HEADER = "pose_workbook"


def write_own(path: str | Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any], half: bool = False) -> Path:
    """Write tensors and a header that JSON can hold; the file is replaced in one step, so a reader never sees half of it.

    Args:
        path: `.safetensors`; its folder is made if need be.
        state: tensors on any device.
        metadata: the header.
        half: store tensors with more than one dimension in float16.

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: a checkpoint's name ends in .safetensors")
    stored = {}
    for key, value in state.items():
        value = value.detach().cpu().contiguous()
        stored[key] = value.half() if half and value.is_floating_point() and value.ndim > 1 else value
    # safetensors' own writing of a file would hide it from everybody else, whatever the umask says
    return write(path, save(stored, metadata={_HEADER: json.dumps(metadata)}))


def holds_own(path: str | Path) -> bool:
    """Whether a file is a checkpoint of this project."""
    try:
        with safe_open(path, framework="pt") as file:
            return _HEADER in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_own(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors (float32 where floating) of a checkpoint of ours, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint of this project, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        public = path.suffix in (".pth", ".pt", ".tar")
        hint = (
            "; public files are read by load_trt_pose, load_lightweight_openpose, load_higherhrnet, load_hrnet and load_deepercut"
            if public
            else ""
        )
        raise ValueError(f"{path} is not a safetensors checkpoint, or it is cut short{hint}") from error
    if header is None:
        raise ValueError(f"{path} holds tensors but no description of a model: it was not written by this project")
    return json.loads(header), {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
