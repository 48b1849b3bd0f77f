"""How every network here is trained: optimiser, learning rate, frozen statistics, colours, and the order of the samples.

`lib.learner.PoseModule` and `lib.classify.ClassifierModule` are learners. Everything random is a pure function of the seed,
the epoch and the place of a sample in it. So a run that was interrupted and resumed ends in the same weights as one that was
not, and several processes see together what one with a larger batch sees.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset, Sampler

from lib import ROOT
from lib.checkpoints import load_weights
from lib.data.augment import ColorJitter
from lib.data.dataset import worker_init

OPTIMIZERS: dict[str, Callable] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
    "nesterov": partial(torch.optim.SGD, momentum=0.9, nesterov=True),
}

POOL = 64  # batches among whose samples those of one size look for each other


class Learner(lightning.LightningModule, ABC):
    """A network and how its parameters are changed; a subclass says what its losses are and how it is validated.

    Args:
        network: what is trained.
        initial_weights: a checkpoint of ours, or a public one, to start from.
        optimizer: adam, adamw, sgd (momentum 0.9) or nesterov (the same with Nesterov's momentum).
        learning_rate: one value, or {epoch: value from that epoch on}; epochs count from 0.
        schedule: "steps" follows `learning_rate`; "iterations" does, too, but there its keys count steps of the optimiser
            instead of epochs; "cosine" warms up and falls to zero along a cosine over the whole run.
        warmup_steps: steps of the optimiser over which the learning rate rises linearly.
        weight_decay: of every parameter, or of the groups that have one.
        group_rates: the network divides its parameters into groups (`parameter_groups()`), each with its own multiple of
            the learning rate, and with or without weight decay.
        freeze_norm: batch norms keep the statistics they began with, and normalise by them; for batches too small to take
            statistics from. What they multiply and add is learnt as ever.
        color_jitter: largest relative change of brightness, contrast and saturation, and turn of hue (of 1).

    Attributes:
        best_by: the figure of validation that decides which weights are best; higher is better.

    With the trainer's `accumulate_grad_batches: n` one step of the optimiser follows the mean gradient of n batches, while
    batch norms see the single batches. Where an epoch ends within a group, Lightning takes a step with what is there, still
    divided by n: every picture counts the same. (Lightweight OpenPose's own code throws such a rest away.)
    """

    best_by: ClassVar[str]

    def __init__(
        self,
        network: nn.Module,
        initial_weights: str | None = None,
        optimizer: Literal["adam", "adamw", "sgd", "nesterov"] = "adam",
        learning_rate: float | dict[int, float] = 1e-3,
        schedule: Literal["steps", "iterations", "cosine"] = "steps",
        warmup_steps: int = 0,
        weight_decay: float = 0.0,
        group_rates: bool = False,
        freeze_norm: bool = False,
        color_jitter: tuple[float, float, float, float] = (0.05, 0.05, 0.05, 0.01),
    ):
        super().__init__()
        self.network = network
        if initial_weights:
            load_weights(network, ROOT / initial_weights)
        # the layout in which convolutions are fastest, on CPUs as on GPUs (a tenth of the training time on two cores)
        network.to(memory_format=torch.channels_last)
        self.optimizer, self.weight_decay, self.group_rates = optimizer, weight_decay, group_rates
        if group_rates and not hasattr(network, "parameter_groups"):
            raise ValueError(f"model.group_rates: {type(network).__name__} has no groups of parameters, leave it out")
        self.learning_rate = learning_rate if isinstance(learning_rate, dict) else {0: learning_rate}
        self.schedule, self.warmup_steps = schedule, warmup_steps
        if min(warmup_steps, weight_decay, *self.learning_rate.values()) < 0:
            raise ValueError("model.warmup_steps, model.weight_decay and model.learning_rate are not negative, got "
                             f"{warmup_steps}, {weight_decay} and {learning_rate}")  # fmt: skip
        self.freeze_norm = freeze_norm
        self.jitter = ColorJitter(*color_jitter)

    @abstractmethod
    def losses(self, images: Tensor, batch: dict) -> dict[str, Tensor]:
        """Every loss term of a batch; images (N, 3, H, W) float in 0..255."""

    @abstractmethod
    def save(self, path: str | Path, data: lightning.LightningDataModule, **info: Any) -> Path:
        """Write the network as it is now and all that is needed to use it, `info` with it."""

    @abstractmethod
    def draw_targets(self, batch: dict) -> np.ndarray:
        """What it is to learn from a batch, as a sheet of pictures (H, W, 3) uint8."""

    @abstractmethod
    def draw_answers(self, batch: dict) -> np.ndarray:
        """What it now says about a batch, as a sheet of pictures (H, W, 3) uint8."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # one fused kernel is fastest, but Lightning cannot clip gradients in front of it
        fused = self._trainer is None or self.trainer.gradient_clip_val is None
        groups = self.network.parameter_groups() if self.group_rates else [{"params": list(self.parameters())}]
        groups = [
            {
                "params": group["params"],
                "lr_factor": group.get("lr_factor", 1.0),
                "weight_decay": self.weight_decay if group.get("decay", True) else 0.0,
            }
            for group in groups
        ]
        return OPTIMIZERS[self.optimizer](groups, lr=self.learning_rate[min(self.learning_rate)], fused=fused)

    def train(self, mode: bool = True) -> Learner:
        """As ever, but for frozen batch norms."""
        super().train(mode)
        if self.freeze_norm:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def on_train_epoch_start(self) -> None:
        self.train()
        # instead of keeping the state of every generator: the same after a resume, on any number of devices
        seed = np.random.SeedSequence((self.trainer.datamodule.seed, self.current_epoch, self.global_rank))
        for number, start in zip(seed.generate_state(3).tolist(), (torch.manual_seed, np.random.seed, random.seed)):
            start(number)

    def on_train_batch_start(self, batch: dict, batch_index: int) -> None:
        # a pure function of epoch and step, so that a resumed run needs no scheduler state; both count steps of the
        # optimiser, of which there is one for `accumulate_grad_batches` batches
        rate = at(self.learning_rate, self.global_step if self.schedule == "iterations" else self.current_epoch)
        if self.warmup_steps:
            rate *= min(1.0, (self.global_step + 1) / self.warmup_steps)
        if self.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * self.global_step / max(1, self.trainer.estimated_stepping_batches)))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate * group["lr_factor"]
        self.log("learning_rate", rate)

    def training_step(self, batch: dict, batch_index: int) -> Tensor:
        losses = self.losses(self.jitter(batch["images"], self._generator(batch_index, len(batch["images"]))), batch)
        total = sum(losses.values())
        if not torch.isfinite(total):
            terms = ", ".join(f"{name} {value.item()}" for name, value in losses.items())
            which = batch["image_ids" if "image_ids" in batch else "indices"].tolist()
            raise FloatingPointError(f"the loss is not finite in epoch {self.current_epoch}, batch {batch_index} "
                                     f"(images {which}): {terms}; lower learning_rate or add warmup_steps")  # fmt: skip
        self.log_figures({"train_loss": total, **{f"train_{name}": v for name, v in losses.items()}}, batch)
        return total

    def log_figures(self, figures: Mapping[str, Tensor], batch: dict, bar: str = "train_loss") -> None:
        """Means over the pictures of an epoch, of all processes; `bar` names the one that the progress bar shows."""
        for name, value in figures.items():
            self.log(name, value.detach(), prog_bar=name == bar, on_step=False, on_epoch=True,
                     batch_size=len(batch["images"]), sync_dist=True)  # fmt: skip

    def of_all_processes(self, found: dict) -> dict:
        """What every process found, by sample: they may have seen a few of them twice between them."""
        if self.trainer.world_size == 1:
            return found
        parts = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(parts, found)
        return {sample: value for part in parts for sample, value in part.items()}

    def _generator(self, batch_index: int, count: int) -> torch.Generator:
        """Of the colours of `count` pictures: every batch its own, also where several share one step of the optimiser."""
        number = self.current_epoch * self.trainer.num_training_batches + batch_index
        generator = torch.Generator().manual_seed(self.trainer.datamodule.seed * 1_000_003 + number)
        # the processes' batches, one behind the other, are the batch of one process: the colours before ours are others'
        torch.rand(self.global_rank * count * 4, generator=generator)
        return generator


class TrainOrder(Sampler):
    """Shuffles by (seed, epoch), and tells the dataset the epoch that its augmentation depends on.

    Every batch of the whole training, of W processes with B samples each, is cut into W pieces; process r takes the r-th.
    What does not fill a batch is left out, unless there is no other. Then samples are repeated until all processes have the
    same number.

    Where samples differ in size (`dataset.sizes`, (n, 2) pixels), those of a batch are nearly alike, because a batch is padded to
    its largest: `POOL` batches at a time are sorted by size, and then batches are shuffled.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int, trainer: lightning.Trainer):
        self.dataset, self.batch_size, self.seed, self._trainer = dataset, batch_size, seed, trainer
        self.processes, self.process = trainer.world_size, trainer.global_rank

    def __len__(self) -> int:
        whole = len(self.dataset) // (self.batch_size * self.processes)
        return whole * self.batch_size or math.ceil(len(self.dataset) / self.processes)

    def __iter__(self) -> Iterator[int]:
        # after a resume Lightning asks for the order before it announces the epoch, and before `current_epoch` is right
        epoch = self._trainer.fit_loop.epoch_progress.current.processed
        self.dataset.set_epoch(epoch)
        generator = torch.Generator().manual_seed(self.seed + epoch)
        order = torch.randperm(len(self.dataset), generator=generator).tolist()
        size = min(self.batch_size, len(self))
        if getattr(self.dataset, "sizes", None) is not None and 1 < size * self.processes <= len(order):
            order = self._alike(order, size * self.processes, generator)
        for start in range(self.process * size, len(self) * self.processes, size * self.processes):
            yield from (order[i % len(order)] for i in range(start, start + size))

    def _alike(self, order: list[int], size: int, generator: torch.Generator) -> list[int]:
        """Whole batches of `size` samples, each of samples that are nearly of one size."""
        sizes, batches = self.dataset.sizes.tolist(), []
        whole = order[: len(order) // size * size]  # cut before they are sorted: otherwise the largest would be left out
        for start in range(0, len(whole), POOL * size):
            pool = sorted(whole[start : start + POOL * size], key=lambda i: sizes[i])
            batches += [pool[i : i + size] for i in range(0, len(pool), size)]
        return [i for b in torch.randperm(len(batches), generator=generator).tolist() for i in batches[b]]


class ValOrder(Sampler):
    """Every W-th sample for each of W processes; a few are repeated, so that all of them have the same number."""

    def __init__(self, dataset: Dataset, trainer: lightning.Trainer):
        self.dataset, self.processes, self.process = dataset, trainer.world_size, trainer.global_rank

    def __len__(self) -> int:
        return math.ceil(len(self.dataset) / self.processes)

    def __iter__(self) -> Iterator[int]:
        return (i % len(self.dataset) for i in range(self.process, len(self) * self.processes, self.processes))


def train_loader(data: lightning.LightningDataModule, collate: Callable) -> DataLoader:
    """Batches of `data.train_set` for this process; `data` has batch_size, num_workers and seed, too."""
    order = TrainOrder(data.train_set, data.batch_size, data.seed, data.trainer)
    return DataLoader(data.train_set, data.batch_size, sampler=order, num_workers=data.num_workers, collate_fn=collate,
                      worker_init_fn=worker_init, persistent_workers=data.num_workers > 0)  # fmt: skip


def val_loader(data: lightning.LightningDataModule, collate: Callable) -> DataLoader:
    """Batches of `data.val_set` for this process; all of it where there is no trainer."""
    order = ValOrder(data.val_set, data.trainer) if data.trainer else None
    return DataLoader(data.val_set, data.batch_size, sampler=order, num_workers=data.num_workers, collate_fn=collate,
                      worker_init_fn=worker_init)  # fmt: skip


def at(values: Mapping[int, float], now: int) -> float:
    """The value of {first epoch or step: value} that holds `now`."""
    return values[max((start for start in values if start <= now), default=min(values))]


def fastest_precision(accelerator: str = "auto") -> str:
    """ "bf16-mixed" where the device computes in bfloat16 (GPUs since Ampere, CPUs with AVX512-BF16 or AMX), else "32-true"."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return "bf16-mixed" if _cpu_has_bf16() else "32-true"


def _cpu_has_bf16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
