"""What a training step costs beside the network itself: colour jitter, target maps, loss and optimiser."""

from __future__ import annotations

import statistics
import time

import torch

from lib.learner import PoseModule
from lib.learning import fastest_precision
from lib.skeleton import COCO18_NECK

BATCH, SIZE, PEOPLE = 16, 224, 5


def main(rounds: int = 8) -> None:
    learner = PoseModule(COCO18_NECK, {"name": "TrtPose", "trunk": "resnet18"}, {"name": "PafCodec"})
    learner.to(memory_format=torch.channels_last).train()
    optimizer = learner.configure_optimizers()
    batch = random_batch()
    bf16 = fastest_precision("cpu").startswith("bf16")
    bare, step = [], []
    # the two take turns, so that a busy machine slows both alike
    for _ in range(rounds + 1):
        for times, call in ((bare, bare_network), (step, training_step)):
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = call(learner, batch)
            loss.backward()
            if call is training_step:
                optimizer.step()
            optimizer.zero_grad()
            times.append(time.perf_counter() - start)
    bare, step = (statistics.median(times[1:]) for times in (bare, step))
    print(f"training step, resnet18 at {SIZE}², batch {BATCH}, {PEOPLE} people, {torch.get_num_threads()} threads, "
          f"{'bf16' if bf16 else 'fp32'}")  # fmt: skip
    print(f"  bare forward + backward {BATCH / bare:7.1f} img/s")
    print(f"  whole training step     {BATCH / step:7.1f} img/s = {bare / step:.1%} of it (bound: at least 95 %)")


def bare_network(learner: PoseModule, batch: dict) -> torch.Tensor:
    images = batch["images"].float().contiguous(memory_format=torch.channels_last)
    return sum(m.float().square().mean() for m in learner.network(images).values())


def training_step(learner: PoseModule, batch: dict) -> torch.Tensor:
    return sum(learner.losses(learner.jitter(batch["images"]), batch).values())


def random_batch() -> dict:
    generator = torch.Generator().manual_seed(0)
    keypoints = torch.rand(BATCH, PEOPLE, COCO18_NECK.num_keypoints, 3, generator=generator)
    keypoints[..., :2] = keypoints[..., :2] * 80 + torch.rand(BATCH, PEOPLE, 1, 2, generator=generator) * (SIZE - 80)
    keypoints[..., 2] = 2
    images = torch.randint(0, 256, (BATCH, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
    return {
        "images": images,
        "keypoints": keypoints,
        "mask": torch.ones(BATCH, SIZE // 4, SIZE // 4, dtype=torch.uint8),
    }


if __name__ == "__main__":
    main()
