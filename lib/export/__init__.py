"""Write a model as one file that finds the same people, or refuse to write it.

The file holds all that is needed to predict: normalisation is in the graph; skeleton, codec with its thresholds, input size and
stride are in the metadata. It is written beside, compared with the torch network in three units (`lib.parity`) and moved into
place only when all three hold. TensorRT plans, built from such a file, pass the same gate.

| suffix | what | precisions | runs in |
| --- | --- | --- | --- |
| .onnx | ONNX | fp32, fp16, int8 | ONNX Runtime, TensorRT, and whatever else reads ONNX |
| .pt2 | torch.export | fp32 | torch |
| .ts | TorchScript, which torch is giving up | fp32 | torch, libtorch |
| .plan | TensorRT, of an .onnx | that of the .onnx | the kind of GPU it was built on |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import onnx

from lib.checkpoints import Model, file_sha256, load_model
from lib.data.coco import find_split, read_coco
from lib.export.gate import bless, comparison_set
from lib.export.onnx_file import Int8For, metadata_of, to_int8, to_onnx
from lib.export.plan import build_tensorrt, plan_name
from lib.export.torch_file import write_torch_file
from lib.models.own import read_own
from lib.parity import FP16, FP32, INT8, Report, Tolerance, images_to_compare, open_predictor
from lib.runtime import METADATA_KEY, PUBLIC_SUFFIXES, public_model
from lib.runtime.checks import refuse_changes

__all__ = ["METADATA_KEY", "export_model", "export_onnx", "export_tensorrt", "export_torch", "to_int8", "to_onnx"]

Precision = Literal["fp32", "fp16", "int8"]
TOLERANCES = {"fp32": FP32, "fp16": FP16, "int8": INT8}


def export_model(
    model: Path,
    out: Path,
    precision: Precision = "fp32",
    int8_for: Int8For = "cpu",
    data_dir: Path | None = None,
    split: str = "val",
    limit: int = 64,
    calibrate: int = 64,
    input_size: tuple[int, int] | None = None,
    opset: int = 20,
    max_batch: int = 8,
) -> Path:
    """Export a checkpoint, or an ONNX file to a TensorRT plan; refuse a file that does not find the same people.

    Args:
        model: checkpoint to export, `.safetensors` (that of a classifier to .onnx) or a public `.pth`, or `.onnx` file to build
            a plan from.
        out: `.onnx`, `.pt2` or `.ts` file; or the `.plan` file or folder for a plan for this machine's GPU (in a folder it gets
            a telling name).
        precision: of weights and arithmetic, in an `.onnx`; input and output stay fp32, and a plan has that of its `.onnx`.
        int8_for: numbers of eight bits as ONNX Runtime wants them on a CPU, or as TensorRT does.
        data_dir: dataset on which both must find the same people; by default synthetic pictures are rendered.
        split: which part of it.
        limit: compare on at most so many images.
        calibrate: images, of the dataset's training part, on which the ranges of int8 are measured.
        input_size: (H, W) of the exported file, by default the checkpoint's.
        opset: ONNX operator set, 18 to 23.
        max_batch: largest batch of a TensorRT plan; other files take any.

    Returns:
        The file that was written.

    Raises:
        ParityError: the exported file does not find the same people; it is kept as `.rejected` for study.
        ValueError: a pair of files or a precision that there is not.
        RuntimeError: the file is written, but nobody was found to compare; or a plan is wanted, and there is no TensorRT or GPU.
    """
    data = {"data_dir": data_dir, "split": split, "limit": limit}
    if model.suffix == ".safetensors" and "classes" in read_own(model)[0]:
        return _classifier(model, out, precision=precision, opset=opset, input_size=input_size, data_dir=data_dir, limit=limit)
    if model.suffix == ".onnx" and out.suffix not in (".onnx", ".pt2", ".ts"):
        refuse_changes(model, precision, input_size)
        out, report = export_tensorrt(model, out, max_batch=max_batch, **data)
    elif out.suffix == ".onnx" and model.suffix != ".onnx":
        report = export_onnx(model, out, precision=precision, int8_for=int8_for, calibrate=calibrate, opset=opset,
                             input_size=input_size, **data)  # fmt: skip
    elif out.suffix in (".pt2", ".ts") and model.suffix != ".onnx":
        if precision != "fp32":
            raise ValueError(f"{out}: a {out.suffix} is written in fp32; {precision} is for .onnx files")
        report = export_torch(model, out, input_size=input_size, **data)
    else:
        raise ValueError(f"{model} → {out}: a checkpoint becomes an .onnx, .pt2 or .ts file, an .onnx file a .plan")
    print(report)
    if precision == "int8" and data_dir is None:
        print("its ranges were measured, and its AP compared, on drawn people: for pictures of another kind name a data set of them with "
              "--data_dir")  # fmt: skip
    if report.unproven:
        raise RuntimeError(f"{out} is written, but not proven: {report.unproven}")
    return out


def export_onnx(
    model: Model | str | Path,
    path: str | Path,
    *,
    precision: Precision = "fp32",
    int8_for: Int8For = "cpu",
    calibrate: int = 64,
    opset: int = 20,
    input_size: tuple[int, int] | None = None,
    data_dir: str | Path | None = None,
    split: str = "val",
    limit: int = 64,
    tolerance: Tolerance | None = None,
) -> Report:
    """Write `path` if, and only if, it finds the same people as `model`.

    Beside it stands `PATH.json`, see `lib.export.gate`.

    Args:
        model: a checkpoint or a `Model`.
        path: the `.onnx` file; an older one stays untouched until the new one has passed.
        precision: of weights and arithmetic; input and output are fp32.
        int8_for: see `lib.export.onnx_file.to_int8`.
        calibrate: images for int8, of the dataset's training part.
        opset: ONNX operator set, 18 to 23.
        input_size: (H, W), by default the model's.
        data_dir: dataset to compare on (see `lib.data.coco.find_split`); by default synthetic pictures are rendered.
        split: which part of it.
        limit: at most so many images.
        tolerance: by default that of the precision: `FP32`, `FP16` or `INT8`.

    Returns:
        The comparison; print it for a table.

    Raises:
        ValueError: not an `.onnx` name, precision, opset or input size out of range.
        ParityError: too different, naming the unit; the file is kept as `PATH.rejected`.
    """
    if precision not in TOLERANCES:
        raise ValueError(f"precision {precision!r} is unknown; choose {', '.join(TOLERANCES)}")

    def write(resized: Model, candidate: Path, origin: dict, data: Path) -> dict:
        proto = to_onnx(resized, half=precision == "fp16", opset=opset, origin=origin)
        if precision == "int8":
            proto = to_int8(proto, _calibration(resized, data, calibrate), int8_for)
        onnx.save(proto, candidate)
        return metadata_of(proto)

    tolerance = tolerance or TOLERANCES[precision]
    return _exported(model, Path(path), (".onnx",), write, input_size, (data_dir, split, limit), tolerance)


def export_torch(
    model: Model | str | Path,
    path: str | Path,
    *,
    input_size: tuple[int, int] | None = None,
    data_dir: str | Path | None = None,
    split: str = "val",
    limit: int = 64,
) -> Report:
    """The same for a `.pt2` (torch.export) or `.ts` (TorchScript, with a warning) file, in fp32.

    Arguments, what it returns and what it raises are those of `export_onnx`.
    """
    write = lambda resized, candidate, origin, data: write_torch_file(resized, candidate, origin)
    return _exported(model, Path(path), (".pt2", ".ts"), write, input_size, (data_dir, split, limit), FP32)


def export_tensorrt(
    exported: str | Path,
    out: str | Path,
    *,
    max_batch: int = 8,
    data_dir: str | Path | None = None,
    split: str = "val",
    limit: int = 64,
) -> tuple[Path, Report]:
    """Build a TensorRT plan for this machine's GPU, and keep it if it finds the same people as the ONNX file.

    What may differ is what fp16 may, as TensorRT computes an fp32 file in TF32, or int8.

    Args:
        exported: `.onnx` file of `export_onnx`; its precision becomes the plan's.
        out: `.plan` file, or a folder in which the plan gets a telling name.
        max_batch: the plan takes batches of 1 to max_batch.
        data_dir, split, limit: as for `export_onnx`.

    Returns:
        The plan and the comparison.

    Raises:
        RuntimeError: no TensorRT, no GPU, or a network that TensorRT refuses.
        ValueError: an int8 file made for CPUs.
        ParityError: too different; the plan is kept as `PLAN.rejected`.
    """
    exported, out = Path(exported), Path(out)
    plan = out if out.suffix == ".plan" else out / plan_name(exported, max_batch)
    candidate = plan.with_name(f".{plan.stem}.candidate.plan")
    card = Path(f"{candidate}.json")
    try:
        facts = build_tensorrt(exported, candidate, max_batch)
        tolerance = INT8 if facts["metadata"]["export"].get("precision") == "int8" else FP16
        with comparison_set(data_dir, split) as data:
            report = bless(exported, candidate, plan, facts, (data, split, limit), tolerance, device="cuda")
    finally:
        for left in (candidate, card):
            left.unlink(missing_ok=True)
    return plan, report


def _classifier(model: Path, out: Path, **options) -> Path:
    # it brings along all that trains classifiers, which takes a second
    from lib.export.classifier import export_classifier

    figures = export_classifier(model, out, **options)
    print(f"{out.name}: {figures['images']} pictures, probabilities differ by at most {figures['probabilities']:.1e}, the most "
          f"probable class is the same in {figures['same_class']:.1%}")  # fmt: skip
    return out


def _exported(
    model: Model | str | Path,
    path: Path,
    suffixes: tuple[str, ...],
    write: Callable[[Model, Path, dict, Path], dict],
    input_size: tuple[int, int] | None,
    compared: tuple[str | Path | None, str, int],
    tolerance: Tolerance,
) -> Report:
    """Write beside, compare, move into place; `write` returns the metadata."""
    if path.suffix not in suffixes:
        raise ValueError(f"{path}: the name of such a file ends in {' or '.join(suffixes)}")
    origin = {} if isinstance(model, Model) else {"source": Path(model).name, "source_sha256": file_sha256(model)}
    if not isinstance(model, Model):
        model = public_model(model) if Path(model).suffix in PUBLIC_SUFFIXES else load_model(model)
    if input_size is not None:
        model = dataclasses.replace(model, input_size=input_size)
    candidate = path.with_name(f".{path.stem}.candidate{path.suffix}")
    with ExitStack() as stack:
        data = stack.enter_context(comparison_set(*compared[:2]))
        stack.callback(candidate.unlink, missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = write(model, candidate, origin, data)
        return bless(model, candidate, path, {"metadata": metadata}, (data, *compared[1:]), tolerance)


def _calibration(model: Model, data: Path, count: int):
    """What the network sees of the first pictures of the training part: whole pictures, or everybody in them."""
    annotations, folder = find_split(data, "train")
    predictor = open_predictor(model, annotations)
    for image in images_to_compare(read_coco(annotations), count):
        yield from predictor.fit(folder / image.file_name).inputs
