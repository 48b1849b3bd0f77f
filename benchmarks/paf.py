"""PAF targets and decoding on one core: trt_pose's 18 + 42 maps of 56×56 cells, Lightweight OpenPose's 19 + 38 of 32×57."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch

from lib import ROOT
from lib.codecs import PafCodec
from lib.codecs.paf import COARSE, LIGHTWEIGHT_OPENPOSE_TARGETS, PUBLISHED, lightweight_openpose_options
from lib.data.coco import Annotation, Category, CocoFile, Image
from lib.metrics import CocoScorer, people_to_results
from lib.skeleton import COCO17, COCO18_NECK, OPENPOSE18

SIZE = (224, 224)
CODEC = PafCodec(COCO18_NECK)
SIZE_OPENPOSE = (256, 456)
OPENPOSE = PafCodec(OPENPOSE18, **LIGHTWEIGHT_OPENPOSE_TARGETS | COARSE)
PUBLISHED_OPENPOSE = {"score": "openpose", **lightweight_openpose_options(OPENPOSE18)}

# a standing figure of height 1 around (0, 0): COCO's seventeen and the neck
FIGURE = [(0, -.44), (.04, -.48), (-.04, -.48), (.1, -.45), (-.1, -.45), (.17, -.3), (-.17, -.3), (.24, -.12),
          (-.24, -.12), (.28, .06), (-.28, .06), (.11, .05), (-.11, .05), (.14, .28), (-.14, .28), (.15, .5), (-.15, .5),
          (0, -.3)]  # fmt: skip


def main() -> None:
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    trt_pose()
    lightweight_openpose()
    encode = first_call_s("benchmarks.paf", "", "CODEC.encode(torch.zeros(1, 1, 18, 3), None, SIZE)")
    decode = first_call_s("benchmarks.paf", "", "CODEC.decode({'heatmaps': np.zeros((18, 56, 56)), 'pafs': np.zeros((42, 56, 56))})")
    print(f"first call after installation, compiling: encode {encode:.1f} s, decode {decode:.1f} s; "
          "cached on disk from then on")  # fmt: skip
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


def trt_pose() -> None:
    rng = np.random.default_rng(0)
    batch = torch.tensor(np.stack([crowd(5, rng) for _ in range(16)]))
    encode = median_ms(lambda: CODEC.encode(batch, None, SIZE), 60) / len(batch)
    print(f"encode, 16 images of 5 people      {encode:6.3f} ms per image  (bound: 0.5)")
    for people, bound in ((1, ""), (5, "  (bound: 0.3; the fastest published decoder, C++, elsewhere: 0.12)"),
                          (20, "  (bound: 1; the same: 0.52)")):  # fmt: skip
        scenes = [maps_of(crowd(people, rng)) for _ in range(20)]
        ours, published = (decode_ms(codec, scenes) for codec in (CODEC, replace(CODEC, **PUBLISHED)))
        print(f"decode, {people:2d} people                  {ours:6.3f} ms{bound}")
        print(f"  with the published options       {published:6.3f} ms")
    noise = {name: rng.random(m.shape, np.float32) for name, m in scenes[0].items()}
    print(f"decode, noise of 100 peaks a part  {median_ms(lambda: CODEC.decode(noise), 20):6.1f} ms")


def lightweight_openpose() -> None:
    """Time and AP of our options and the published ones, on the same maps: the published targets, blurred, with noise."""
    rng = np.random.default_rng(1)
    print("Lightweight OpenPose's 19 + 38 maps of 32×57 cells (published, Python, ×4, elsewhere: 14.5 and 26 ms)")
    for people, bound in ((5, 0.7), (20, 2.0)):
        truth = [crowd(people, rng, SIZE_OPENPOSE, OPENPOSE18.keypoints) for _ in range(40)]
        scenes = [faint(maps_of(seen, OPENPOSE, SIZE_OPENPOSE), rng) for seen in truth]
        ours, found = decode_ms(OPENPOSE, scenes, 10), ap(OPENPOSE, scenes, truth)
        print(f"decode, {people:2d} people                  {ours:6.3f} ms          AP {found:.3f}  (bound: {bound})")
        for factor in (1, 4, 8):
            codec = replace(OPENPOSE, upsample=factor, **PUBLISHED_OPENPOSE)
            taken, found = decode_ms(codec, scenes, 3), ap(codec, scenes, truth)
            print(f"  with the published options, ×{factor}   {taken:6.3f} ms  {taken / ours:5.1f}×  AP {found:.3f}")
    enlarge = median_ms(lambda: [cv2.resize(m, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
                                 for maps in scenes[0].values() for m in maps], 30)  # fmt: skip
    print(f"  enlarging the maps ×4, alone     {enlarge:6.3f} ms  {enlarge / ours:5.1f}×")


def crowd(people: int, rng: np.random.Generator, size: tuple[int, int] = SIZE,
          keypoints: Sequence[str] = COCO18_NECK.keypoints) -> np.ndarray:  # fmt: skip
    """People of a third to two thirds of the picture's height, anywhere, (P, 18, 3)."""
    heights = rng.uniform(size[0] / 3, 2 * size[0] / 3, (people, 1, 1))
    centres = np.stack([rng.uniform(30, side - 30, (people, 1)) for side in size[::-1]], axis=2)
    xy = (np.array(FIGURE) + rng.normal(0, 0.03, (people, 18, 2))) * heights + centres
    order = [COCO18_NECK.index(name) for name in keypoints]
    return np.concatenate([xy, np.full((people, 18, 1), 2)], axis=2).astype(np.float32)[:, order]


def maps_of(people: np.ndarray, codec: PafCodec = CODEC, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    targets = codec.encode(torch.tensor(people[None]), None, size)
    return {name: targets[name][0].numpy() for name in ("heatmaps", "pafs")}


def faint(maps: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """As a network gives them: lower, wider, and never quite 0."""
    blurred = lambda m: cv2.GaussianBlur(m, (0, 0), 0.7)
    return {name: np.stack([blurred(rng.uniform(0.5, 0.9) * m + 0.08 * rng.normal(0, 1, m.shape)) for m in values])
            .astype(np.float32) for name, values in maps.items()}  # fmt: skip


def ap(codec: PafCodec, scenes: list[dict], truth: list[np.ndarray]) -> float:
    order = [OPENPOSE18.index(name) for name in COCO17.keypoints]
    images = [Image(i + 1, f"{i}.jpg", *SIZE_OPENPOSE[::-1]) for i in range(len(scenes))]
    annotations = []
    for i, people in enumerate(truth):
        for person in people[:, order]:
            low, high = person[:, :2].min(axis=0), person[:, :2].max(axis=0)
            inside = ((person[:, :2] >= 0) & (person[:, :2] < SIZE_OPENPOSE[::-1])).all(axis=1)
            annotations.append(Annotation(len(annotations) + 1, i + 1, 1, keypoints=(person * inside[:, None]).ravel().tolist(),
                                          bbox=[*low.tolist(), *(high - low).tolist()], area=float(np.prod(high - low)) * 0.53))  # fmt: skip
    category = Category(1, "person", keypoints=list(COCO17.keypoints), skeleton=[])
    found = [row for i, maps in enumerate(scenes) for row in people_to_results(codec.decode(maps), i + 1)]
    return CocoScorer(CocoFile(images, annotations, [category]), OPENPOSE18)(found)["AP"]


def decode_ms(codec: PafCodec, scenes: list[dict], rounds: int = 30) -> float:
    return statistics.median(median_ms(lambda maps=maps: codec.decode(maps), rounds) for maps in scenes)


def median_ms(call: Callable, rounds: int) -> float:
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def first_call_s(module: str, before: str, call: str) -> float:
    """Seconds of a call in a new process whose compiler cache is empty; `before` is not timed, both see what `module` has."""
    lines = ("import time, numpy as np, torch", f"from {module} import *", before, "start = time.perf_counter()", call,
             "print(time.perf_counter() - start)")  # fmt: skip
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        done = subprocess.run([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, env=environment, capture_output=True, text=True,
                              check=True)  # fmt: skip
    return float(done.stdout)


if __name__ == "__main__":
    main()
