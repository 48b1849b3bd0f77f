"""A TensorRT plan on torch CUDA tensors. TensorRT is imported when something here is called, never before."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from lib.runtime.checks import INPUT, checked_device, checked_metadata


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
    if int(tensorrt.__version__.partition(".")[0]) < 10:
        raise RuntimeError(f"TensorRT {tensorrt.__version__} is too old, 10 or 11 is needed; {way_out}")
    return tensorrt


class TensorRTNetwork:
    """A plan on a GPU; torch tensors are its buffers.

    Args:
        path: the `.plan`; what is to be known of it stands beside it in PLAN.json.
        device: cuda or cuda:1.

    Raises:
        FileNotFoundError: PLAN.json is missing.
        ValueError: it is of something else, or the plan's input or output is not fp32.
        RuntimeError: no GPU, no TensorRT, or another version or GPU than the plan was built for.
    """

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
        """See `lib.runtime`; more images than the plan takes at once go one batch after the other."""
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


def _card_of(path: Path) -> dict:
    card = Path(f"{path}.json")
    if not card.is_file():
        raise FileNotFoundError(
            f"{card} is missing: it says how to read the maps of {path.name}; copy it along with the plan"
        )
    content = json.loads(card.read_text() or "{}")
    if "metadata" not in content:
        raise ValueError(f"{card} is not what was written beside {path.name}; copy it anew, or build the plan here")
    return content
