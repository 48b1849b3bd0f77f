"""Write a model as one ONNX file that finds the same people, or refuse to write it.

The file holds all that is needed to predict: normalisation is in the graph; skeleton, codec with its thresholds, input size and
stride are in the metadata. It is written beside, compared with the torch network in three units (`lib.parity`) and moved into
place only when all three hold. TensorRT plans, built from such a file, pass the same gate.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import Tensor, nn

from lib import files
from lib.checkpoints import Model, file_sha256, load_model
from lib.data.synthetic import write_dataset
from lib.export_tensorrt import build_tensorrt, plan_name
from lib.parity import FP16, FP32, ParityError, Report, Tolerance, check_parity
from lib.runtime import METADATA_KEY

OPSETS = range(18, 24)  # the exporter writes 18 and newer; below, its conversion can fail without saying so


def export_model(
    model: Path,
    out: Path,
    half: bool = False,
    data_dir: Path | None = None,
    split: str = "val",
    limit: int = 64,
    input_size: tuple[int, int] | None = None,
    opset: int = 20,
    max_batch: int = 8,
) -> Path:
    """Export a checkpoint to ONNX, or an ONNX file to a TensorRT plan; refuse a file that does not find the same people.

    Args:
        model: `.safetensors` checkpoint to export, or `.onnx` file to build a plan from.
        out: `.onnx` file; or the `.plan` file or folder for a plan for this machine's GPU (in a folder it gets a telling name).
        half: weights and arithmetic in fp16, input and output stay fp32; a plan has the precision of its `.onnx`.
        data_dir: dataset on which both must find the same people; by default 16 synthetic pictures are rendered.
        split: which part of it.
        limit: compare on at most so many images.
        input_size: (H, W) of the exported file, by default the checkpoint's.
        opset: ONNX operator set, 18 to 23.
        max_batch: largest batch of a TensorRT plan; an ONNX file takes any.

    Returns:
        The file that was written.

    Raises:
        ParityError: the exported file does not find the same people; it is kept as `.rejected` for study.
        ValueError: another pair of files than .safetensors → .onnx or .onnx → .plan.
        RuntimeError: a plan is wanted, but there is no TensorRT or no GPU.
    """
    data = {"data_dir": data_dir, "split": split, "limit": limit}
    if model.suffix == ".onnx" and out.suffix != ".onnx":
        out, report = export_tensorrt(model, out, max_batch=max_batch, **data)
    elif out.suffix == ".onnx" and model.suffix != ".onnx":
        report = export_onnx(model, out, half=half, opset=opset, input_size=input_size, **data)
    else:
        raise ValueError(f"{model} → {out}: a .safetensors checkpoint becomes an .onnx file, an .onnx file a .plan")
    print(report)
    return out


def export_onnx(
    model: Model | str | Path,
    path: str | Path,
    *,
    half: bool = False,
    opset: int = 20,
    input_size: tuple[int, int] | None = None,
    data_dir: str | Path | None = None,
    split: str = "val",
    limit: int = 64,
    tolerance: Tolerance | None = None,
) -> Report:
    """Write `path` if, and only if, it finds the same people as `model`.

    Beside it stands `PATH.parity.json` with the figures of the comparison.

    Args:
        model: a checkpoint or a `Model`.
        path: the `.onnx` file; an older one stays untouched until the new one has passed.
        half: fp16 weights and arithmetic, fp32 input and output.
        opset: ONNX operator set, 18 to 23.
        input_size: (H, W), by default the model's.
        data_dir: dataset to compare on (see `lib.data.coco.find_split`); by default 16 synthetic pictures are rendered.
        split: which part of it.
        limit: at most so many images.
        tolerance: by default `FP32`, or `FP16` with half.

    Returns:
        The comparison; print it for a table.

    Raises:
        ValueError: not an `.onnx` name, opset or input size out of range.
        ParityError: too different, naming the unit; the file is kept as `PATH.rejected`.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"{path}: the name of an exported file ends in .onnx")
    origin = {} if isinstance(model, Model) else {"source": Path(model).name, "source_sha256": file_sha256(model)}
    model = model if isinstance(model, Model) else load_model(model)
    if input_size is not None:
        model = dataclasses.replace(model, input_size=input_size)
    proto = to_onnx(model, half=half, opset=opset, origin=origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    candidate = path.with_name(f".{path.stem}.candidate.onnx")
    try:
        onnx.save(proto, candidate)
        return _bless(model, candidate, path, data_dir, split, limit, tolerance or (FP16 if half else FP32))
    finally:
        candidate.unlink(missing_ok=True)


def export_tensorrt(
    exported: str | Path,
    out: str | Path,
    *,
    max_batch: int = 8,
    data_dir: str | Path | None = None,
    split: str = "val",
    limit: int = 64,
    tolerance: Tolerance = FP16,
) -> tuple[Path, Report]:
    """Build a TensorRT plan for this machine's GPU, and keep it if it finds the same people as the ONNX file.

    Args:
        exported: `.onnx` file of `export_onnx`; its precision becomes the plan's.
        out: `.plan` file, or a folder in which the plan gets a telling name.
        max_batch: the plan takes batches of 1 to max_batch.
        data_dir, split, limit: as for `export_onnx`.
        tolerance: TensorRT computes an fp32 file in TF32, hence the tolerance of fp16.

    Returns:
        The plan and the comparison.

    Raises:
        RuntimeError: no TensorRT, no GPU, or a network that TensorRT refuses.
        ParityError: too different; the plan is kept as `PLAN.rejected`.
    """
    exported, out = Path(exported), Path(out)
    plan = out if out.suffix == ".plan" else out / plan_name(exported, max_batch)
    candidate = plan.with_name(f".{plan.stem}.candidate.plan")
    try:
        build_tensorrt(exported, candidate, max_batch)
        report = _bless(exported, candidate, plan, data_dir, split, limit, tolerance, device="cuda")
        os.replace(candidate.with_suffix(".json"), plan.with_suffix(".json"))
    finally:
        for left in (candidate, candidate.with_suffix(".json")):
            left.unlink(missing_ok=True)
    return plan, report


def to_onnx(
    model: Model,
    *,
    half: bool = False,
    opset: int = 20,
    origin: dict | None = None,
) -> onnx.ModelProto:
    """Convert, without comparing: input `images` (batch, 3, H, W) float32 RGB 0..255, outputs named as the maps.

    Args:
        model: stays as it is; a copy goes to the CPU and into eval mode.
        half: fp16 inside, fp32 outside.
        opset: 18 to 23.
        origin: facts for the metadata's `export` entry, such as the checkpoint's hash.

    Raises:
        ValueError: opset out of range, or the exporter wrote another opset than asked for.
    """
    if opset not in OPSETS:
        raise ValueError(
            f"opset {opset} is not between {OPSETS[0]} and {OPSETS[-1]}, which the exporter writes reliably"
        )
    network = copy.deepcopy(model.network).cpu().float().eval()
    example = torch.zeros(2, 3, *model.input_size)  # with a batch of one the exporter would fix the batch
    with torch.inference_mode():
        names = list(network(example))
    program = torch.onnx.export(
        _Outputs(network, names).eval(), (example,), dynamo=True, opset_version=opset, external_data=False, verbose=False,
        input_names=["images"], output_names=names, dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
    )  # fmt: skip
    proto = program.model_proto
    written = {entry.domain: entry.version for entry in proto.opset_import}.get("")
    if written != opset:
        raise ValueError(f"opset {opset} was asked for, but the exporter wrote {written}; ask for {written}")
    _strip_traces(proto)
    if half:
        proto = _half(proto)
    facts = {"precision": "fp16" if half else "fp32", "opset": opset, "torch": torch.__version__}
    metadata = model.metadata() | {"export": {**(origin or {}), **facts}}
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(metadata)})
    onnx.checker.check_model(proto, full_check=True)
    return proto


class _Outputs(nn.Module):
    """The network with its maps as a tuple, in a fixed order that the exporter names."""

    def __init__(self, network: nn.Module, names: list[str]):
        super().__init__()
        self.network, self.names = network, names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.network(images)
        return tuple(maps[name] for name in self.names)


def _half(proto: onnx.ModelProto) -> onnx.ModelProto:
    """fp16 weights and arithmetic between fp32 input and outputs."""
    # where the exporter notes a weight's type, the converter takes it for a value and casts what must stay fp32, such as the
    # factors of an enlargement, once for each reader under one and the same name
    weights = {weight.name for weight in proto.graph.initializer}
    values = [value for value in proto.graph.value_info if value.name not in weights]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(values)
    with warnings.catch_warnings():
        # weights below fp16's smallest number become that number; the parity gate judges the result
        warnings.filterwarnings("ignore", message="the float32 number")
        proto = convert_float_to_float16(proto, keep_io_types=True)
    OnnxModel.graph_topological_sort(proto.graph)  # the casts stand at the end
    return proto


def _strip_traces(proto: onnx.ModelProto) -> None:
    """Drop the exporter's notes on every node: they hold source lines and paths of the exporting machine."""
    graph = proto.graph
    for entry in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")


@contextlib.contextmanager
def _dataset(data_dir: str | Path | None) -> Iterator[Path]:
    """The given dataset, or a small synthetic one for the time of the comparison."""
    if data_dir is not None:
        yield Path(data_dir)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield write_dataset(Path(scratch) / "people", num_train=1, num_val=16, workers=1)


def _bless(
    reference: Model | Path,
    candidate: Path,
    path: Path,
    data_dir: str | Path | None,
    split: str,
    limit: int,
    tolerance: Tolerance,
    device: str = "cpu",
) -> Report:
    """Move a file into place if it finds the same people, else set it aside and say why."""
    try:
        with _dataset(data_dir) as data:
            report = check_parity(reference, candidate, data, split, limit, tolerance, device)
    except ParityError as error:
        os.replace(candidate, path.with_name(f"{path.name}.rejected"))
        error.report.file = path.name
        raise ParityError(error.report) from None
    report.file = path.name
    card = {"sha256": file_sha256(candidate), **report.to_dict()}
    files.write(path.with_name(f"{path.name}.parity.json"), json.dumps(card, indent=2))
    os.replace(candidate, path)
    return report
