"""Latency of the mini model in torch and in ONNX Runtime, network alone and end to end, on one CPU core."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import torch

from lib import ROOT
from lib.checkpoints import Model, load_model
from lib.codecs.paf import PafCodec
from lib.data.synthetic import Scene, render
from lib.export import to_int8, to_onnx
from lib.models.trt_pose import TrtPose
from lib.predict import Predictor
from lib.skeleton import COCO18_NECK

CHECKPOINT = ROOT / "pretrained/trt_pose_mini.safetensors"
WARM_UP, ROUNDS = 10, 60


def main(rounds: int = ROUNDS) -> None:
    """Print p50 and p90 of every runtime; they take turns, so that a busy machine slows all alike."""
    torch.set_num_threads(1)
    model = load_model(CHECKPOINT) if CHECKPOINT.exists() else random_model()
    picture, _ = render(Scene(size=(480, 640), min_people=4, max_people=4, height=(0.4, 0.8)), seed=1, index=0)
    with tempfile.TemporaryDirectory() as folder:
        predictors = runtimes(model, Path(folder))
        inputs, _ = predictors["torch fp32"].prepare([picture])
        calls = {f"{name}, network": lambda p=p: p.maps(inputs) for name, p in predictors.items()}
        calls |= {f"{name}, picture → people": lambda p=p: p([picture]) for name, p in predictors.items()}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(WARM_UP + rounds):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                times[name].append(1e3 * (time.perf_counter() - start))
    weights = CHECKPOINT.name if CHECKPOINT.exists() else "random weights"
    size = "×".join(map(str, model.input_size))
    print(f"mini model ({weights}) at {size}, batch 1, 640×480 picture, 1 thread, {rounds} rounds after {WARM_UP}")
    for name, values in times.items():
        p50, p90 = np.percentile(values[WARM_UP:], (50, 90))
        print(f"  {name:38} p50 {p50:7.2f} ms   p90 {p90:7.2f} ms")


def random_model() -> Model:
    """The shape of `lib/recipes/trt_pose_mini.yaml`; a network takes as long without training."""
    network = TrtPose(COCO18_NECK, trunk="resnet18", stages=3, num_upsample=2, upsample_channels=64)
    return Model(network.eval(), PafCodec(COCO18_NECK, stride=network.stride), (160, 160))


def runtimes(model: Model, folder: Path) -> dict[str, Predictor]:
    """The same model in torch, and exported to fp32, to fp16 (which a CPU computes as fp32, with casts) and to int8."""
    predictors = {"torch fp32": Predictor(model)}
    pictures = [render(Scene(), seed=0, index=index)[0] for index in range(16)]
    files = {"fp32": to_onnx(model), "fp16": to_onnx(model, half=True)}
    files["int8"] = to_int8(files["fp32"], predictors["torch fp32"].prepare(pictures)[0])
    for precision, proto in files.items():
        onnx.save(proto, folder / f"{precision}.onnx")
        predictors[f"ONNX Runtime {precision}"] = Predictor(folder / f"{precision}.onnx", threads=1)
    return predictors


if __name__ == "__main__":
    main()
