"""Before hours of training: can this network learn eight of these images by heart? If not, no schedule will help."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm.auto import tqdm

from lib.data.coco import CocoFile
from lib.data.dataset import collate
from lib.learner import PoseData, PoseModule, decode, to_results
from lib.learning import fastest_precision
from lib.metrics import CocoScorer
from lib.people import People


@dataclass
class Preflight:
    """Outcome of `preflight`.

    Attributes:
        failures: what went wrong, each with what to look at; empty when the network passed.
        losses: total loss after every step.
        metrics: COCO figures on the images it learned.
        image_ids: the images.
        inputs: (N, H, W, 3) uint8, the images as the network saw them.
        people: what it finds in each of them afterwards, in pixels of `inputs`.
    """

    losses: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    image_ids: list[int] = field(default_factory=list)
    inputs: np.ndarray | None = None
    people: list[People] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        verdict = "PASS" if self.passed else "FAIL: " + "; ".join(self.failures)
        score = f", AP50 {self.metrics['AP50']:.2f}" if self.metrics else ""
        return (f"{verdict} ({len(self.image_ids)} images, {len(self.losses)} steps, "
                f"loss {self.losses[0]:.4g} → {self.losses[-1]:.4g}{score})")  # fmt: skip


def preflight(learner: PoseModule, data: PoseData, images: int = 8, steps: int = 150, learning_rate: float = 1e-3,
              max_people: int = 3, min_area: float = 0.03, target: float = 0.9) -> Preflight:  # fmt: skip
    """Overfit a few training images without augmentation, with a copy of the network, and judge the people it then finds.

    The images are whole ones, as in validation, also where training cuts a sample out for every person: only so is it clear
    whom the network should have found. Only top-down networks get crops, of pictures with a single person.

    Args:
        learner, data: as for training; both stay untouched.
        images: how many; the first whose people are few, large and not mostly hidden are taken.
        steps: batches of all images together.
        learning_rate: for Adam; rises over a tenth of the steps, then falls along a cosine.
        max_people: per image.
        min_area: area of the smallest person, as a fraction of the image.
        target: AP50 on these images that counts as learnt.
    """
    dataset, coco = data.whole_pictures(), data.read_train()
    if getattr(learner.codec, "per_person", False):
        max_people = 1  # a sample shows one of them: the others of its picture would count as missed
    chosen = easy_images(coco, dataset.image_ids.tolist(), images, max_people, min_area)
    batch = collate([dataset[i] for i in chosen])
    report = Preflight(image_ids=batch["image_ids"].tolist(), inputs=batch["images"].permute(0, 2, 3, 1).numpy())
    learner = copy.deepcopy(learner).to(memory_format=torch.channels_last).train()
    targets = learner.targets(batch)
    if not targets_say_something(targets):
        report.failures.append("every target map is zero: no keypoint falls inside the network's input; "
                               "look at the boxes, the input size and the visibilities")  # fmt: skip
    _overfit(learner, batch, steps, learning_rate, report)
    if np.isfinite(report.losses[-1]):
        _judge(learner, batch, CocoScorer(coco, data.skeleton, data.category, report.image_ids), target, report)
    return report


def easy_images(coco: CocoFile, image_ids: list[int], count: int, max_people: int, min_area: float) -> list[int]:
    """Places in `image_ids` of the first images whose people are all large, half visible and at most `max_people`."""
    people: dict[int, list] = {}
    for a in coco.annotations:
        people.setdefault(a.image_id, []).append(a)
    sizes = {image.id: image.width * image.height for image in coco.images}
    chosen = []
    for index, image_id in enumerate(image_ids):
        here = people.get(image_id, [])
        if 1 <= len(here) <= max_people and all(
            # who is mostly hidden may leave scraps in the maps that no decoder joins
            not a.iscrowd and a.num_keypoints and 6 * a.num_keypoints >= len(a.keypoints)
            and a.area >= min_area * sizes[image_id]
            for a in here
        ):
            chosen.append(index)
        if len(chosen) == count:
            return chosen
    raise ValueError(f"only {len(chosen)} of {len(image_ids)} images hold only 1 to {max_people} people, all larger than "
                     f"{min_area:.0%} of the image and half labelled, {count} are wanted: lower images or min_area")  # fmt: skip


def targets_say_something(targets: dict[str, torch.Tensor]) -> bool:
    """False where every target map but the mask is zero everywhere."""
    return any(float(t.abs().max()) > 0 for name, t in targets.items() if name != "mask" and t.numel())


def _overfit(learner: PoseModule, batch: dict, steps: int, learning_rate: float, report: Preflight) -> None:
    optimizer = torch.optim.Adam(learner.parameters(), lr=learning_rate, fused=True)
    # without the gentle start a fresh head can fall into answering zero everywhere and stay there
    rise = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, 0.505 + 0.495 * math.cos(math.pi * step / steps))
    )
    images = batch["images"].float()
    bar = tqdm(range(steps), desc="preflight", unit="step")
    for _ in bar:
        # entered anew in every step: autocast keeps its copies of the weights until it is left
        with torch.autocast("cpu", torch.bfloat16, enabled=fastest_precision("cpu") == "bf16-mixed"):
            total = sum(learner.losses(images, batch).values())
        report.losses.append(total.item())
        if not np.isfinite(report.losses[-1]):
            report.failures.append(f"the loss became {report.losses[-1]} in step {len(report.losses)}: "
                                   "lower the learning rate and look for NaN in the annotations")  # fmt: skip
            return
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{report.losses[-1]:.4g}")
    if report.losses[-1] > 0.5 * report.losses[0]:
        report.failures.append(f"the loss fell only from {report.losses[0]:.4g} to {report.losses[-1]:.4g}: the network "
                               "does not learn; check learning rate, frozen layers and the mask")  # fmt: skip


@torch.inference_mode()
def _judge(learner: PoseModule, batch: dict, scorer: CocoScorer, target: float, report: Preflight) -> None:
    maps = learner.eval().network(batch["images"].float())
    flat = [name for name, m in maps.items() if float(m.abs().max()) < 1e-3]
    if flat:
        report.failures.append(f"the network answers only zeros in {', '.join(flat)}")
    report.people = decode(maps, learner.codec)
    report.metrics = scorer(to_results(report.people, batch))
    if report.metrics["AP50"] < target:
        report.failures.append(f"AP50 on the images it should know by heart is {report.metrics['AP50']:.2f}, "
                               f"not {target}: train more steps, or look at maps and decoding thresholds")  # fmt: skip
