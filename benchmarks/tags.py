"""Decoding of HigherHRNet's maps of a 512×512 picture on one core, beside the published procedure on the same maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import torch

from benchmarks import tags_published
from benchmarks.paf import crowd, first_call_s, median_ms
from lib.codecs.tags import TagsCodec
from lib.codecs.tags_decode import PUBLISHED_TAGS
from lib.codecs.tags_group import joint_order
from lib.data.coco import Annotation, Category, CocoFile, Image
from lib.metrics import CocoScorer, people_to_results
from lib.people import People
from lib.skeleton import COCO17

SIZE = (512, 512)
CODEC = TagsCodec(COCO17)
NUM_SCENES = 40


def main() -> None:
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print("17 + 17 maps of 128×128 cells, 17 of 256×256; refinement on; published: all enlarged to 512×512, plain Python")
    for people, bound in ((5, 8), (20, 15)):
        for flip in (False, True):
            rng = np.random.default_rng(people)
            truth = [crowd(people, rng, SIZE, COCO17.keypoints) for _ in range(NUM_SCENES)]
            scenes = [maps_of(seen, rng, 1 + flip) for seen in truth]
            print(f"decode, {people:2d} people{', flip' if flip else '      '}          {row(CODEC.decode, scenes, truth, 20)}"
                  f"  (bound: {bound * (1 + flip)} ms)")  # fmt: skip
            published = lambda maps: tags_published.decode(maps, joint_order(COCO17))
            print(f"  published, written plainly       {row(published, scenes, truth, 1)}")
            print(f"  published options of the codec   {row(replace(CODEC, **PUBLISHED_TAGS).decode, scenes, truth, 1)}")
    noise = {name: rng.normal(0, 1, values.shape).astype(np.float32) for name, values in scenes[0].items()}
    print(f"decode, noise of 30 peaks a part   {median_ms(lambda: CODEC.decode(noise), 10):7.1f} ms")
    first = first_call_s("benchmarks.tags", "rng = np.random.default_rng(0); maps = maps_of(crowd(2, rng, SIZE, COCO17.keypoints), rng)",
                         "CODEC.decode(maps)")  # fmt: skip
    print(f"first call after installation, compiling: {first:.1f} s; cached on disk from then on")
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


def row(decode: Callable[[dict], People], scenes: list[dict], truth: list[np.ndarray], rounds: int) -> str:
    """Median milliseconds and AP."""
    taken = float(np.median([median_ms(lambda maps=maps: decode(maps), rounds) for maps in scenes[:10]]))
    found = [decode(maps) for maps in scenes]
    return f"{taken:7.1f} ms  AP {average_precision(found, truth):.3f}"


def maps_of(people: np.ndarray, rng: np.random.Generator, numbers: int = 1) -> dict[str, np.ndarray]:
    """As a network gives them for people (P, 17, 3): heatmaps of all strengths, blurred; tags that are the nearest person's.

    One keypoint in five is weak, its heatmap about as high as the threshold of detection. Of two people's tags the nearest are
    about 1 apart, and a keypoint's are off by 0.15.
    """
    targets = [CODEC.encode(torch.tensor(person[None, None]), None, SIZE) for person in people]
    strength = rng.uniform(0.5, 0.9, people.shape[:2])
    strength = np.where(rng.random(strength.shape) < 0.2, rng.uniform(0.03, 0.2, strength.shape), strength)
    maps = {}
    for name in ("heatmaps", "heatmaps_fine"):
        drawn = np.stack([target[name][0].numpy() for target in targets])
        highest = (drawn * strength[..., None, None]).max(axis=0)
        maps[name] = np.stack([cv2.GaussianBlur(m + 0.03 * rng.normal(0, 1, m.shape), (0, 0), 0.7) for m in highest])
    cells = (people[..., :2].transpose(1, 0, 2) - 1.5) / 4  # (K, P, 2)
    y, x = np.mgrid[: SIZE[0] // 4, : SIZE[1] // 4]
    tags = np.zeros((numbers, 17, *y.shape))
    for number in range(numbers):
        own = rng.permutation(len(people)) + rng.normal(0, 0.1, len(people))
        for k in range(17):
            apart = (cells[k, :, 0, None, None] - x) ** 2 + (cells[k, :, 1, None, None] - y) ** 2
            weights = np.exp(-(apart - apart.min(axis=0)) / (2 * 2.0**2))
            shown = own + rng.normal(0, 0.15, len(people))
            tags[number, k] = (weights * shown[:, None, None]).sum(axis=0) / weights.sum(axis=0)
    maps["tags"] = (tags + rng.normal(0, 0.05, tags.shape)).reshape(-1, *y.shape)
    return {name: values.astype(np.float32) for name, values in maps.items()}


def average_precision(found: list[People], truth: list[np.ndarray]) -> float:
    images = [Image(i + 1, f"{i}.jpg", *SIZE[::-1]) for i in range(len(found))]
    annotations = []
    for i, people in enumerate(truth):
        for person in people:
            low, high = person[:, :2].min(axis=0), person[:, :2].max(axis=0)
            inside = ((person[:, :2] >= 0) & (person[:, :2] < SIZE[::-1])).all(axis=1)
            annotations.append(Annotation(len(annotations) + 1, i + 1, 1, keypoints=(person * inside[:, None]).ravel().tolist(),
                                          bbox=[*low.tolist(), *(high - low).tolist()], area=float(np.prod(high - low)) * 0.53))  # fmt: skip
    category = Category(1, "person", keypoints=list(COCO17.keypoints), skeleton=[])
    results = [one for i, people in enumerate(found) for one in people_to_results(people, i + 1)]
    return CocoScorer(CocoFile(images, annotations, [category]), COCO17)(results)["AP"]


if __name__ == "__main__":
    main()
