"""TensorRT 10 and 11: build a plan from an exported ONNX file; `lib.runtime.plan` runs it.

TensorRT is an optional extra: it is imported when something here is called, never before. Precision comes from the ONNX file
alone (an fp16 file gives an fp16 plan): TensorRT 11 has no precision flags any more, and `STRONGLY_TYPED` gives 10 the same rule.
A plan belongs to one TensorRT version and one kind of GPU: ship the ONNX file, build plans where they run.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType

import onnx
import torch

from lib import files
from lib.checkpoints import file_sha256
from lib.runtime import METADATA_KEY, checked_device, checked_metadata
from lib.runtime.checks import INPUT
from lib.runtime.plan import import_tensorrt

WORKSPACE = 2 << 30  # bytes of the GPU, for scratch


def plan_name(exported: Path, max_batch: int) -> str:
    """`<model>_<gpu>_trt<version>_<precision>_b<max batch>.plan` for this machine."""
    precision = _metadata_of(exported).get("export", {}).get("precision", "fp32")
    trt = import_tensorrt()
    checked_device("cuda")
    return f"{exported.stem}_{_gpu()}_trt{trt.__version__}_{precision}_b{max_batch}.plan"


def build_tensorrt(exported: str | Path, plan: str | Path, max_batch: int = 8) -> dict:
    """Build a plan for this machine's GPU; takes minutes the first time, a timing cache beside the plan shortens the next.

    Args:
        exported: ONNX file of `lib.export`.
        plan: `.plan` file to write; `PLAN.json` says what it was built from and how to read its maps.
        max_batch: the plan takes 1 to max_batch images and is tuned for max_batch.

    Returns:
        What stands in `PLAN.json`.

    Raises:
        RuntimeError: no TensorRT, no GPU, or TensorRT refuses the network, quoting its reasons.
        ValueError: the ONNX file is not ours, or its int8 is that of CPUs.
    """
    exported, plan = Path(exported), Path(plan)
    metadata = _metadata_of(exported)
    trt = import_tensorrt()
    checked_device("cuda")
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = _parsed(trt, builder, logger, exported)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE)
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
    facts = {"onnx": exported.name, "onnx_sha256": file_sha256(exported), "tensorrt": trt.__version__,
             "gpu": torch.cuda.get_device_name(), "profile": dict(zip(("min", "optimal", "max"), shapes)),
             "metadata": metadata}  # fmt: skip
    files.write(f"{plan}.json", json.dumps(facts, indent=2))
    files.write(plan, bytes(serialized))
    return facts


def _parsed(trt: ModuleType, builder, logger, exported: Path):
    # 10 must be told, 11 does so by itself and ignores it; neither is ever asked for a precision
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(exported)):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise RuntimeError(f"{exported}: TensorRT {trt.__version__} cannot read this network: {reasons}")
    return network


def _gpu() -> str:
    """Name of this machine's GPU as part of a file name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", torch.cuda.get_device_name()).strip("-")


def _metadata_of(exported: Path) -> dict:
    if not exported.is_file():
        raise FileNotFoundError(f"there is no exported file {exported}")
    properties = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    metadata = checked_metadata(properties.get(METADATA_KEY), exported)
    if metadata.get("export", {}).get("int8_for") == "cpu":
        raise ValueError(f"{exported}: its int8 is that of CPUs (unsigned, with zeros of their own), which TensorRT does not read; "
                         "export the checkpoint with --precision int8 --int8_for tensorrt")  # fmt: skip
    return metadata


def _load_timing_cache(config, path: Path) -> None:
    known = path.read_bytes() if path.is_file() else b""
    # False: made by another device or version, so that the measurements start anew
    if not config.set_timing_cache(config.create_timing_cache(known), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
