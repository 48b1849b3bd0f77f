"""What runs a network: torch, ONNX Runtime or TensorRT, on the device that was asked for or not at all.

Every runtime is called with uint8 images (N, H, W, 3) and returns float32 maps (N, C, h, w) by name; it has `metadata` (what
`Model.metadata()` says, read from the file) and `provider` (what really runs). One that takes images of any size says of
which number their sides must be multiples, `input_multiple`; others take the size they were exported with.
"""

from __future__ import annotations

import copy
from pathlib import Path

from lib.checkpoints import Model, load_higherhrnet, load_lightweight_openpose, load_model, load_topdown, load_trt_pose
from lib.models.foreign import identify, read_foreign
from lib.runtime.checks import METADATA_KEY, checked_device, checked_metadata, refuse_changes
from lib.runtime.onnx_network import OnnxNetwork, onnx_session
from lib.runtime.plan import TensorRTNetwork
from lib.runtime.torch_network import TorchFileNetwork, TorchNetwork

__all__ = ["EXPORTED_SUFFIXES", "METADATA_KEY", "PUBLIC", "PUBLIC_SUFFIXES", "OnnxNetwork", "TensorRTNetwork", "TorchFileNetwork", "TorchNetwork", "checked_device",
           "checked_metadata", "onnx_session", "open_network", "public_model"]  # fmt: skip

PUBLIC = {"trt_pose": load_trt_pose, "lightweight_openpose": load_lightweight_openpose, "higherhrnet": load_higherhrnet,
          "topdown": load_topdown}  # fmt: skip
"""Kinds of public files that can predict, and what reads them."""
PUBLIC_SUFFIXES = (".pth", ".pt", ".tar")
EXPORTED_SUFFIXES = (".onnx", ".plan", ".pt2", ".ts")


def open_network(
    model: Model | str | Path,
    device: str = "cpu",
    precision: str = "fp32",
    input_size: tuple[int, int] | None = None,
    threads: int | None = None,
) -> TorchNetwork | TorchFileNetwork | OnnxNetwork | TensorRTNetwork:
    """A model or a file of one, ready to run.

    Args:
        model: a `Model` (a copy of it runs), a `.safetensors` checkpoint, a file of `lib.export` (`.onnx`, `.plan`, `.pt2`, `.ts`),
            or a public file of one of the kinds in `PUBLIC`.
        device: cpu, cuda or cuda:1.
        precision: fp32 or bf16, of what runs in torch; an exported file has its own.
        input_size: (H, W) instead of the model's own; an exported file has its own.
        threads: of the CPU in ONNX Runtime; None for one for each core.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is of another kind, or an option does not fit it.
        RuntimeError: the device or its runtime is missing on this machine.
    """
    if isinstance(model, Model):
        return TorchNetwork(copy.deepcopy(model), device, precision, input_size)
    path = Path(model)
    if path.suffix not in (".safetensors", *EXPORTED_SUFFIXES, *PUBLIC_SUFFIXES):
        raise ValueError(f"{path}: a model is a .safetensors checkpoint, an exported .onnx, .pt2 or .ts, a TensorRT .plan or a public "
                         f".pth, not {path.suffix or 'this'!r}")  # fmt: skip
    if not path.is_file():
        raise FileNotFoundError(f"there is no model {path}")
    if path.suffix in PUBLIC_SUFFIXES:
        return TorchNetwork(public_model(path), device, precision, input_size)
    if path.suffix == ".safetensors":
        return TorchNetwork(load_model(path), device, precision, input_size)
    refuse_changes(path, precision, input_size)
    if path.suffix == ".onnx":
        network = OnnxNetwork(path, device, threads)
    else:
        network = TensorRTNetwork(path, device) if path.suffix == ".plan" else TorchFileNetwork(path, device)
    if "classes" in network.metadata:
        raise ValueError(f"{path} holds a classifier, which finds no people; use it with `python -m lib classify`")
    return network


def public_model(path: str | Path) -> Model:
    """A public checkpoint of one of the kinds in `PUBLIC` (of Lightweight OpenPose with one refinement stage).

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file; the sentence says which.
    """
    kind, what = identify(read_foreign(path))
    if kind not in PUBLIC:
        raise ValueError(f"{path} cannot find people like this: {what}")
    return PUBLIC[kind](path)
