"""An ONNX file in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime

from lib.runtime.checks import INPUT, METADATA_KEY, checked_device, checked_metadata


def onnx_session(path: Path, device: str = "cpu", threads: int | None = None) -> onnxruntime.InferenceSession:
    """Any ONNX file, ready to run, on the provider that was asked for or not at all.

    Args:
        path: the file.
        device: cpu, cuda or cuda:1.
        threads: of the CPU, for one operation; None for one for each core.

    Raises:
        FileNotFoundError: no such file.
        ValueError: ONNX Runtime cannot open it.
        RuntimeError: there is no such device, or ONNX Runtime does not run on it here.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no model {path}")
    provider = ("CPUExecutionProvider", {})
    if device != "cpu":
        provider = ("CUDAExecutionProvider", {"device_id": checked_device(device).index or 0})
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[provider])
    except Exception as error:  # ONNX Runtime raises its own classes, none of which is public
        raise ValueError(f"{path}: ONNX Runtime cannot open this file: {error}") from error
    if (running := session.get_providers()[0]) != provider[0]:
        raise RuntimeError(
            f"{path}: asked for {provider[0]}, but ONNX Runtime {onnxruntime.__version__} offers {running} on this "
            "machine; install the CUDA libraries with `pip install -e .[gpu]`, or use device='cpu'"
        )
    return session


class OnnxNetwork:
    """A file of `lib.export`; arguments and errors as of `onnx_session`, and a ValueError for files of others."""

    def __init__(self, path: Path, device: str, threads: int | None):
        self.session = onnx_session(path, device, threads)
        self.provider = self.session.get_providers()[0]
        self.metadata = checked_metadata(self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), path)
        self._names = [output.name for output in self.session.get_outputs()]

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See `lib.runtime`."""
        inputs = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
        return dict(zip(self._names, self.session.run(self._names, {INPUT: inputs})))
