"""A network as one ONNX file: from torch's exporter, in single or half precision, or in whole numbers of eight bits."""

from __future__ import annotations

import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import Tensor, nn

from lib.checkpoints import Classifier, Model
from lib.runtime import METADATA_KEY
from lib.runtime.checks import INPUT

OPSETS = range(18, 24)  # the exporter writes 18 and newer; below, its conversion can fail without saying so
WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
Int8For = Literal["cpu", "tensorrt"]


def to_onnx(
    model: Model | Classifier, *, half: bool = False, opset: int = 20, origin: dict | None = None
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
    network = Outputs(model)
    program = torch.onnx.export(
        network, (network.example,), dynamo=True, opset_version=opset, external_data=False, verbose=False,
        input_names=[INPUT], output_names=network.names, dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}},
    )  # fmt: skip
    proto = program.model_proto
    written = {entry.domain: entry.version for entry in proto.opset_import}.get("")
    if written != opset:
        raise ValueError(f"opset {opset} was asked for, but the exporter wrote {written}; ask for {written}")
    _strip_traces(proto)
    if half:
        proto = _half(proto)
    facts = {"precision": "fp16" if half else "fp32", "opset": opset, "torch": torch.__version__}
    return described(proto, model.metadata() | {"export": {**(origin or {}), **facts}})


def to_int8(proto: onnx.ModelProto, inputs: Iterable[np.ndarray], int8_for: Int8For = "cpu") -> onnx.ModelProto:
    """Convolutions in whole numbers of eight bits, of a range that is measured on pictures (static quantisation).

    The graph stays one of floating point, between pairs of QuantizeLinear and DequantizeLinear, which a runtime melts into its
    own int8 operations. The last layers, whose numbers are read as maps, keep floating point.

    Args:
        proto: of `to_onnx`, fp32.
        inputs: (H, W, 3) uint8, as the network gets them.
        int8_for: "cpu": activations unsigned and with a zero of their own, which ONNX Runtime's kernels for CPUs ask for (and
            without which they are no faster than fp32). "tensorrt": all that TensorRT takes: signed and symmetric numbers, biases
            in floating point, no pair behind a convolution, where it would part it from its ReLU.

    Raises:
        ValueError: no inputs, or another use than these two.
    """
    if int8_for not in ("cpu", "tensorrt"):
        raise ValueError(f"int8_for is {int8_for!r}; choose cpu or tensorrt")
    reader = _Inputs(inputs)
    if not reader.count:
        raise ValueError("there is no picture to calibrate int8 on: every number's range is measured on pictures")
    kept = last_layers(proto.graph)
    tensorrt = int8_for == "tensorrt"
    options = {"WeightSymmetric": True, "ActivationSymmetric": tensorrt, "QuantizeBias": not tensorrt,
               "DedicatedQDQPair": tensorrt, "OpTypesToExcludeOutputQuantization": list(WEIGHTED) if tensorrt else []}  # fmt: skip
    logging.disable(logging.WARNING)  # it asks for a preparation that torch's exporter has done
    try:
        with tempfile.TemporaryDirectory() as scratch:
            source, target = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
            onnx.save(proto, source)
            quantize_static(
                source, target, reader, quant_format=QuantFormat.QDQ, per_channel=True, weight_type=QuantType.QInt8,
                activation_type=QuantType.QInt8 if tensorrt else QuantType.QUInt8,
                op_types_to_quantize=[*WEIGHTED] if tensorrt else [*WEIGHTED, "Add"], nodes_to_exclude=kept,
                extra_options=options,
            )  # fmt: skip
            whole = onnx.load(target)
    finally:
        logging.disable(logging.NOTSET)
    metadata = metadata_of(proto)
    metadata["export"] |= {"precision": "int8", "int8_for": int8_for, "calibrated_on": reader.count, "kept_float": kept}
    return described(whole, metadata)


def last_layers(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes from the last layer with weights, itself included, to each output."""
    made_by = {output: node for node in graph.node for output in node.output}
    wanted, names = [output.name for output in graph.output], set()
    while wanted:
        node = made_by.get(wanted.pop())
        if node is None or node.name in names:
            continue
        names.add(node.name)
        if node.op_type not in WEIGHTED:
            wanted += node.input
    return sorted(names)


def described(proto: onnx.ModelProto, metadata: dict) -> onnx.ModelProto:
    """The same graph with metadata, checked."""
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(metadata)})
    onnx.checker.check_model(proto, full_check=True)
    return proto


def metadata_of(proto: onnx.ModelProto) -> dict:
    """What `described` wrote."""
    return json.loads({entry.key: entry.value for entry in proto.metadata_props}[METADATA_KEY])


class Outputs(nn.Module):
    """A copy of a model's network on the CPU, with its outputs as a tuple in the fixed order of `names`.

    `example` is a batch of two to follow it with: with a batch of one, exporters would fix the batch.
    """

    def __init__(self, model: Model | Classifier):
        super().__init__()
        self.network = copy.deepcopy(model.network).cpu().float().eval()
        self.example = torch.zeros(2, 3, *model.input_size)
        with torch.inference_mode():
            self.names = list(self.network(self.example))
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.network(images)
        return tuple(maps[name] for name in self.names)


class _Inputs(CalibrationDataReader):
    """Pictures, one by one, as ONNX Runtime asks for them."""

    def __init__(self, pictures: Iterable[np.ndarray]):
        pictures = list(pictures)
        self._pictures, self.count = iter(pictures), len(pictures)

    def get_next(self) -> dict[str, np.ndarray] | None:
        picture = next(self._pictures, None)
        if picture is None:
            return None
        return {INPUT: np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32)}


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
