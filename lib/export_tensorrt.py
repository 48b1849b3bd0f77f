"""TensorRT 10 and 11: build a plan from an exported ONNX file, and run it on torch CUDA tensors.

TensorRT is an optional extra: it is imported when something here is called, never before. Precision comes from the ONNX file
alone (an fp16 file gives an fp16 plan): TensorRT 11 has no precision flags any more, and `STRONGLY_TYPED` gives 10 the same rule.
A plan belongs to one TensorRT version and one kind of GPU: ship the ONNX file, build plans where they run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import torch

from lib import files
from lib.checkpoints import file_sha256
from lib.runtime import METADATA_KEY, checked_device, checked_metadata

INPUT = "images"


def import_tensorrt() -> ModuleType:
    """The `tensorrt` module, 10 or newer; RuntimeError with the way out where there is none."""
    way_out = "an exported .onnx needs no TensorRT: Predictor('model.onnx', device='cuda') runs it with ONNX Runtime"
    try:
        import tensorrt
    except (ImportError, OSError) as error:  # OSError: the bindings without the libraries
        raise RuntimeError(
            f"TensorRT is not usable on this machine ({error}); with an NVIDIA GPU install it by `pip install -e .[tensorrt]`; "
            f"{way_out}"
        ) from error
    if _major(tensorrt) < 10:
        raise RuntimeError(f"TensorRT {tensorrt.__version__} is too old, 10 or 11 is needed; {way_out}")
    return tensorrt


def plan_name(exported: Path, max_batch: int) -> str:
    """`<model>_<gpu>_trt<version>_<precision>_b<max batch>.plan` for this machine."""
    trt = import_tensorrt()
    checked_device("cuda")
    precision = _metadata_of(exported).get("export", {}).get("precision", "fp32")
    return f"{exported.stem}_{_gpu()}_trt{trt.__version__}_{precision}_b{max_batch}.plan"


def build_tensorrt(
    exported: str | Path, plan: str | Path, max_batch: int = 8, workspace_mib: int = 2048, optimization_level: int = 3
) -> Path:
    """Build a plan for this machine's GPU; takes minutes the first time, a timing cache beside the plan shortens the next.

    Args:
        exported: ONNX file of `lib.export`.
        plan: `.plan` file to write; a JSON file beside it says what it was built from and how to read its maps.
        max_batch: the plan takes 1 to max_batch images and is tuned for max_batch.
        workspace_mib: scratch memory on the GPU.
        optimization_level: 0 to 5; higher searches longer.

    Returns:
        `plan`.

    Raises:
        RuntimeError: no TensorRT, no GPU, or TensorRT refuses the network, quoting its reasons.
        ValueError: the ONNX file is not ours.
    """
    trt = import_tensorrt()
    checked_device("cuda")
    exported, plan = Path(exported), Path(plan)
    metadata = _metadata_of(exported)
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = _parsed(trt, builder, logger, exported)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    config.builder_optimization_level = optimization_level
    shapes = [(batch, 3, *metadata["input_size"]) for batch in (1, max_batch, max_batch)]
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *shapes)
    config.add_optimization_profile(profile)
    plan.parent.mkdir(parents=True, exist_ok=True)
    cache = plan.parent / f"timing_trt{trt.__version__}_{_gpu()}.cache"
    _load_timing_cache(config, cache)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise RuntimeError(f"{exported}: TensorRT {trt.__version__} could not build a plan; its log above says why")
    files.write(cache, bytes(config.get_timing_cache().serialize()))
    card = {"onnx": exported.name, "onnx_sha256": file_sha256(exported), "tensorrt": trt.__version__,
            "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
            "profile": dict(zip(("min", "optimal", "max"), shapes)), "metadata": metadata}  # fmt: skip
    files.write(plan.with_suffix(".json"), json.dumps(card, indent=2))
    files.write(plan, bytes(serialized))
    return plan


class TensorRTNetwork:
    """A plan on a GPU: uint8 images (N, H, W, 3) in, float32 maps (N, C, h, w) by name out; torch tensors are the buffers."""

    def __init__(self, path: Path, device: str):
        if not device.startswith("cuda"):
            raise RuntimeError(f"{path}: a TensorRT plan runs on a GPU only; pass device='cuda', not {device!r}")
        trt = import_tensorrt()
        self.device = checked_device(device)
        card = _card_of(path)
        self.metadata = checked_metadata(json.dumps(card["metadata"]), path)
        with torch.cuda.device(self.device):
            self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
            self.engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
            if self.engine is None:
                raise RuntimeError(
                    f"{path} was built with TensorRT {card['tensorrt']} for {card['gpu']} and does not load with TensorRT "
                    f"{trt.__version__} on {torch.cuda.get_device_name(self.device)}; build it here from {card['onnx']}"
                )
            self.context = self.engine.create_execution_context()
            # the default stream would make TensorRT synchronise more often
            self._stream = torch.cuda.Stream(self.device)
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        odd = [name for name in names if self.engine.get_tensor_dtype(name) != trt.DataType.FLOAT]
        if odd:
            raise ValueError(
                f"{path}: input and output must be fp32, but {', '.join(odd)} is not; export the ONNX file anew"
            )
        self._outputs = [n for n in names if self.engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT]
        self._max_batch = self.engine.get_tensor_profile_shape(INPUT, 0)[2][0]
        self.provider = f"TensorRT {trt.__version__}"

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        runs = [self._run(images[i : i + self._max_batch]) for i in range(0, len(images), self._max_batch)]
        return {name: np.concatenate([run[name] for run in runs]) for name in self._outputs}

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        # the engine reads addresses: plain (N, 3, H, W) memory
        inputs = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float().contiguous()
        self.context.set_input_shape(INPUT, tuple(inputs.shape))
        buffers = {INPUT: inputs}
        for name in self._outputs:
            buffers[name] = torch.empty(tuple(self.context.get_tensor_shape(name)), device=self.device)
        for name, tensor in buffers.items():
            self.context.set_tensor_address(name, tensor.data_ptr())
        with torch.cuda.device(self.device):
            self._stream.wait_stream(torch.cuda.current_stream())
            if not self.context.execute_async_v3(self._stream.cuda_stream):
                raise RuntimeError(
                    f"TensorRT could not run a batch of shape {tuple(inputs.shape)}; its log above says why"
                )
            self._stream.synchronize()
        return {name: buffers[name].cpu().numpy() for name in self._outputs}


def _parsed(trt: ModuleType, builder, logger, exported: Path):
    # 11 types every network by itself; 10 must be told, and neither is ever asked for a precision
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if _major(trt) < 11 else 0
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(exported)):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise RuntimeError(f"{exported}: TensorRT {trt.__version__} cannot read this network: {reasons}")
    return network


def _gpu() -> str:
    """Name of this machine's GPU as part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", torch.cuda.get_device_name()).strip("-")


def _major(trt: ModuleType) -> int:
    return int(trt.__version__.split(".")[0])


def _metadata_of(exported: Path) -> dict:
    if not exported.is_file():
        raise FileNotFoundError(f"there is no exported file {exported}")
    properties = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    return checked_metadata(properties.get(METADATA_KEY), exported)


def _card_of(path: Path) -> dict:
    card = path.with_suffix(".json")
    if not card.is_file():
        raise FileNotFoundError(
            f"{card} is missing: it says how to read the maps of {path.name}; copy it along with the plan"
        )
    return json.loads(card.read_text())


def _load_timing_cache(config, path: Path) -> None:
    known = path.read_bytes() if path.is_file() else b""
    # False: made by another device or version, so that the measurements start anew
    if not config.set_timing_cache(config.create_timing_cache(known), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
