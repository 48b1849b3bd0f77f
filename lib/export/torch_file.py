"""A network as a program of torch's own: `.pt2` (torch.export), or TorchScript (`.ts`), which torch is giving up."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch

from lib.checkpoints import Model
from lib.export.onnx_file import Outputs
from lib.runtime import METADATA_KEY

LEGACY = ("TorchScript is deprecated by PyTorch and will not be opened for ever: write a .ts for programs that read nothing "
          "else, and an .onnx or .pt2 for all others")  # fmt: skip


def write_torch_file(model: Model, path: Path, origin: dict | None = None) -> dict:
    """Write a `.pt2` or `.ts` file, without comparing: input (batch, 3, H, W) float32 RGB 0..255, a tuple of maps as output.

    Args:
        model: stays as it is.
        path: its suffix says which of the two.
        origin: facts for the metadata's `export` entry, such as the checkpoint's hash.

    Returns:
        The file's metadata, which stand in it, too.
    """
    network = Outputs(model)
    facts = {"precision": "fp32", "torch": torch.__version__, "outputs": network.names}
    metadata = model.metadata() | {"export": {**(origin or {}), **facts}}
    extra = {METADATA_KEY: json.dumps(metadata)}
    if path.suffix == ".pt2":
        shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
        program = torch.export.export(network, (network.example,), dynamic_shapes=shapes)
        torch.export.save(program, path, extra_files=extra)
    else:
        warnings.warn(LEGACY, FutureWarning, stacklevel=2)
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.filterwarnings("ignore", message=".*deprecated")
            torch.jit.save(torch.jit.trace(network, network.example, check_trace=False), path, _extra_files=extra)
    return metadata
