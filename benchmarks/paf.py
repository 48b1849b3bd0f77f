"""PAF targets and decoding on one core: trt_pose's 18 + 42 maps of 56×56 cells."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from lib import ROOT
from lib.codecs import PafCodec
from lib.codecs.paf import PUBLISHED
from lib.skeleton import COCO18_NECK

SIZE = (224, 224)
CODEC = PafCodec(COCO18_NECK)

# a standing figure of height 1 around (0, 0): COCO's seventeen and the neck
FIGURE = [(0, -.44), (.04, -.48), (-.04, -.48), (.1, -.45), (-.1, -.45), (.17, -.3), (-.17, -.3), (.24, -.12),
          (-.24, -.12), (.28, .06), (-.28, .06), (.11, .05), (-.11, .05), (.14, .28), (-.14, .28), (.15, .5), (-.15, .5),
          (0, -.3)]  # fmt: skip


def main() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
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
    print(f"first call after installation, compiling: encode {first_call_s('encode'):.1f} s, decode {first_call_s('decode'):.1f} s; "
          "cached on disk from then on")  # fmt: skip
    torch.set_num_threads(threads)


def crowd(people: int, rng: np.random.Generator) -> np.ndarray:
    """People of a third to two thirds of the picture's height, anywhere, (P, 18, 3)."""
    heights, centres = rng.uniform(75, 150, (people, 1, 1)), rng.uniform(30, 194, (people, 1, 2))
    xy = (np.array(FIGURE) + rng.normal(0, 0.03, (people, 18, 2))) * heights + centres
    return np.concatenate([xy, np.full((people, 18, 1), 2)], axis=2).astype(np.float32)


def maps_of(people: np.ndarray) -> dict[str, np.ndarray]:
    targets = CODEC.encode(torch.tensor(people[None]), None, SIZE)
    return {name: targets[name][0].numpy() for name in ("heatmaps", "pafs")}


def decode_ms(codec: PafCodec, scenes: list[dict]) -> float:
    return statistics.median(median_ms(lambda maps=maps: codec.decode(maps), 30) for maps in scenes)


def median_ms(call: Callable, rounds: int) -> float:
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def first_call_s(what: str) -> float:
    """Seconds of the first call in a new process whose compiler cache is empty."""
    calls = {"encode": "CODEC.encode(torch.zeros(1, 1, 18, 3), None, SIZE)",
             "decode": "CODEC.decode({'heatmaps': np.zeros((18, 56, 56)), 'pafs': np.zeros((42, 56, 56))})"}  # fmt: skip
    program = ("import time, numpy as np, torch; from benchmarks.paf import CODEC, SIZE; start = time.perf_counter(); "
               f"{calls[what]}; print(time.perf_counter() - start)")  # fmt: skip
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True,
                              check=True)  # fmt: skip
    return float(done.stdout)


if __name__ == "__main__":
    main()
