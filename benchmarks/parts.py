"""Decoding of DeeperCut's maps of a 512×512 picture on one core: detections, probabilities of all 136 pairs, and the cut."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import cv2
import numpy as np
import torch

from benchmarks.paf import crowd, first_call_s, median_ms
from benchmarks.tags import average_precision
from lib.codecs import multicut, parts_decode, parts_pairs
from lib.codecs.pair_model import Samples, draw_samples, fit_pair_model
from lib.codecs.parts import PartsCodec
from lib.skeleton import COCO17

SIZE = (512, 512)
NUM_SCENES = 20


def codec_of(people: list[np.ndarray]) -> PartsCodec:
    """Statistics of crowds (P, 17, 3), and discs that are small enough for them."""
    ways = np.concatenate(people)[..., :2]
    rows = [
        (*(ways[:, b] - ways[:, a]).mean(axis=0), *(ways[:, b] - ways[:, a]).std(axis=0))
        for a, b in permutations(range(17), 2)
    ]
    return PartsCodec(COCO17, radius=12, nms_radius=3, pair_stats=rows)


def maps_of(people: np.ndarray, codec: PartsCodec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """As a network gives them: one keypoint in five is weak, offsets are off by 2 pixels, ways by 0.2 standard deviations."""
    targets = codec.encode(torch.tensor(people[None]), None, SIZE)
    maps = {name: targets[name][0].numpy() for name in ("heatmaps", "offsets", "pairwise")}
    strength = np.where(rng.random(17) < 0.2, rng.uniform(0.3, 0.5, 17), rng.uniform(0.6, 0.95, 17))
    blurred = np.stack([cv2.GaussianBlur(m, (0, 0), 0.7) for m in maps["heatmaps"]]) * strength[:, None, None]
    maps["heatmaps"] = (blurred + rng.normal(0, 0.03, blurred.shape)).clip(0, 1)
    maps["offsets"] = maps["offsets"] + rng.normal(0, 2 / 7.3, maps["offsets"].shape)
    maps["pairwise"] = maps["pairwise"] + rng.normal(0, 0.2, maps["pairwise"].shape)
    return {name: values.astype(np.float32) for name, values in maps.items()}


def fitted(codec: PartsCodec, scenes: list[dict], truth: list[np.ndarray], rng: np.random.Generator) -> PartsCodec:
    """The codec with regressions learnt from the scenes."""
    drawn = [draw_samples(maps, people, codec, rng, radius=codec.radius) for maps, people in zip(scenes, truth)]
    return replace(codec, pair_model=fit_pair_model(Samples.joined(drawn), COCO17, rng, least=10).rows)


def stages(maps: dict[str, np.ndarray], codec: PartsCodec) -> str:
    """Milliseconds of each."""
    found, tables = parts_decode.detections(maps, codec), codec.pair_tables
    edges = parts_pairs.edges_between(found.parts, tables.wanted)
    graph = parts_decode.cut_graph(maps, codec)
    unaries, weights = multicut.cost(found.scores), multicut.cost(graph.probabilities)
    told = lambda: parts_pairs.probabilities(
        edges, found.parts, found.cells, found.centres, found.places, maps["pairwise"], tables.stats,
        (*codec.pair_rule, codec.offset_stdev), codec.same_part, tables.fitted, tables.weights,
    )  # fmt: skip
    taken = [median_ms(f, 10) for f in (lambda: parts_decode.detections(maps, codec), told,
                                        lambda: multicut.multicut(unaries, edges, weights))]  # fmt: skip
    return (
        f"{len(found.parts):4d} detections {len(edges):6d} edges: {taken[0]:.2f} + {taken[1]:.2f} + {taken[2]:.2f} ms"
    )


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print("17 + 34 + 544 maps of 64×64 cells; detect + probabilities + cut of the last scene")
    for people, bound in ((1, 10), (5, 10), (20, 50)):
        rng = np.random.default_rng(people)
        truth = [crowd(people, rng, SIZE, COCO17.keypoints) for _ in range(NUM_SCENES)]
        codec = codec_of(truth)
        scenes = [maps_of(seen, codec, rng) for seen in truth]
        for name, one in (("rule", codec), ("regressions", fitted(codec, scenes, truth, rng))):
            taken = float(np.median([median_ms(lambda m=m: one.decode(m), 5) for m in scenes]))  # noqa: B023
            found = average_precision([one.decode(m) for m in scenes], truth)
            print(f"decode, {people:2d} people, {name:11} {taken:6.1f} ms (bound: {bound} ms)  AP {found:.3f}"
                  f"  {stages(scenes[-1], one)}")  # fmt: skip
    single = replace(codec, single=True)
    print(f"decode, one person alone      {median_ms(lambda: single.decode(scenes[0]), 20):6.2f} ms")
    noise = {name: rng.random(values.shape, dtype=np.float32) for name, values in scenes[0].items()}
    print(f"decode, noise                 {median_ms(lambda: codec.decode(noise), 5):6.1f} ms  {stages(noise, codec)}")
    first = first_call_s("benchmarks.parts", "rng = np.random.default_rng(0); people = crowd(2, rng, SIZE, COCO17.keypoints); "
                         "codec = codec_of([people]); maps = maps_of(people, codec, rng)", "codec.decode(maps)")  # fmt: skip
    print(f"first call after installation, compiling: {first:.1f} s; cached on disk from then on")


if __name__ == "__main__":
    main()
