"""Checkpoints: one safetensors file that is enough to predict (`model`), and the weights of others (`public`)."""

from lib.checkpoints.model import (
    Classifier,
    Model,
    file_sha256,
    load_classifier,
    load_model,
    model_from_metadata,
    save_classifier,
    save_model,
)
from lib.checkpoints.public import (
    load_deepercut,
    load_higherhrnet,
    load_hrnet,
    load_lightweight_openpose,
    load_topdown,
    load_trt_pose,
    load_weights,
)

__all__ = [
    "Classifier",
    "Model",
    "file_sha256",
    "load_classifier",
    "load_deepercut",
    "load_higherhrnet",
    "load_hrnet",
    "load_lightweight_openpose",
    "load_model",
    "load_topdown",
    "load_trt_pose",
    "load_weights",
    "model_from_metadata",
    "save_classifier",
    "save_model",
]
