"""One training sample against cv2.imread of the same file, on one core: `python benchmarks/loader.py`.

A sample is a 640×480 JPEG brought to an augmented 224×224 image, or to a 368×368 crop around a person, with its mask and
keypoints. Pictures are smooth shapes under film grain, sized like photographs (about 100 kB); a third of them carries a crowd
to mask.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from lib.data.augment import Augment, ColorJitter
from lib.data.coco import Annotation, Category, CocoFile, Image, Rle
from lib.data.dataset import CocoKeypoints, KeypointSamples, collate
from lib.data.person_crops import CropAugment, PersonCrops
from lib.skeleton import COCO18_NECK

SIZE, INPUT, NUM_IMAGES, ROUNDS = (480, 640), (224, 224), 48, 12


def main() -> None:
    """Print the medians and the ratio."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        coco = write_pictures(Path(folder))
        data = CocoKeypoints(coco, folder, input_size=INPUT, augment=Augment())
        crops = PersonCrops(coco, folder, augment=CropAugment(), mask_unlabelled=True)
        kilobytes = np.mean([os.path.getsize(data.path(i)) for i in range(len(data))]) / 1e3
        reads, samples = compare(data, ROUNDS)
        crop_reads, crop_samples = compare(crops, ROUNDS // 4)
        batch = collate([data[i] for i in range(16)])
    jitter = ColorJitter()
    jitters = [seconds(lambda: jitter(batch["images"])) / 16 for _ in range(30)]
    print(f"cv2.imread of a {SIZE[1]}×{SIZE[0]} JPEG of {kilobytes:.0f} kB   {1e3 * np.median(reads):6.2f} ms")
    print(f"training sample {INPUT[1]}×{INPUT[0]}                    {1e3 * np.median(samples):6.2f} ms")
    print(f"ratio (at most 1.25)                       {np.median(samples) / np.median(reads):6.2f}")
    print(f"crop around a person, 368×368              {1e3 * np.median(crop_samples):6.2f} ms")
    print(f"ratio                                      {np.median(crop_samples) / np.median(crop_reads):6.2f}")
    print(f"colour jitter, per image of a batch of 16  {1e3 * np.median(jitters):6.2f} ms")


def compare(data: KeypointSamples, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of reading every picture and of every sample, side by side, so that a busy machine slows both."""
    reads, samples = [], []
    for epoch in range(rounds):
        data.set_epoch(epoch)
        for i in range(len(data)):
            path = str(data.path(i))
            reads.append(seconds(lambda path=path: cv2.imread(path)))
            samples.append(seconds(lambda i=i: data[i]))
    return reads, samples


def seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def write_pictures(folder: Path) -> CocoFile:
    """Write the JPEGs, return their annotations: five people each (boxes like COCO's), on every third picture a crowd."""
    rng = np.random.default_rng(0)
    coco = CocoFile([], [], [Category(1, "person", keypoints=list(COCO18_NECK.keypoints), skeleton=[])])
    for i in range(NUM_IMAGES):
        cv2.imwrite(str(folder / f"{i}.jpg"), texture(rng), [cv2.IMWRITE_JPEG_QUALITY, 92])
        coco.images.append(Image(i, f"{i}.jpg", SIZE[1], SIZE[0]))
        for _ in range(5):
            points = np.column_stack([rng.integers(0, SIZE[1], 18), rng.integers(0, SIZE[0], 18), np.full(18, 2)])
            width, height = rng.uniform(40, 160), rng.uniform(90, 360)
            box = [rng.uniform(0, SIZE[1] - width), rng.uniform(0, SIZE[0] - height), width, height]
            coco.annotations.append(
                Annotation(len(coco.annotations), i, 1, points.ravel().tolist(), bbox=box, area=5000)
            )
        if i % 3 == 0:
            crowd = Rle(SIZE, [100_000, 80_000, SIZE[0] * SIZE[1] - 180_000])
            coco.annotations.append(Annotation(len(coco.annotations), i, 1, iscrowd=1, segmentation=crowd))
    return coco


def texture(rng: np.random.Generator) -> np.ndarray:
    image = np.zeros((*SIZE, 3), np.float32)
    for cells, strength in ((4, 70), (16, 35), (64, 20)):
        coarse = rng.normal(0, strength, (cells * 3 // 4, cells, 3)).astype(np.float32)
        image += cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(image + 128 + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
