"""What is trained, and on what: a network with its codec and optimiser, and a pair of COCO keypoint files.

The same two classes serve every architecture and every skeleton. Everything random depends only on the seed, the epoch and
the sample, so a run that was interrupted and resumed ends in the same weights as one that was not.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from torch.utils.data import DataLoader, DistributedSampler

from lib import ROOT
from lib.checkpoints import Model, load_weights
from lib.codecs import CODECS, Codec
from lib.data.augment import Augment, ColorJitter
from lib.data.coco import CocoFile, category_named, find_split, insert_neck, read_coco, with_skeleton
from lib.data.dataset import CocoKeypoints, collate, worker_init
from lib.data.index import LabelIndex
from lib.data.person_crops import CropAugment, PersonCrops
from lib.metrics import CocoScorer, people_to_results
from lib.models import NETWORKS
from lib.people import People, invert_affine
from lib.skeleton import Skeleton

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


class PoseModule(lightning.LightningModule):
    """A network, its codec and how they are trained.

    Args:
        skeleton: set from the data.
        network: `name` of a class in `lib.models.NETWORKS` and its options.
        codec: `name` of a class in `lib.codecs.CODECS` and its options.
        optimizer: adam, adamw or sgd (momentum 0.9).
        learning_rate: one value, or {epoch: value from that epoch on}; epochs count from 0.
        schedule: "steps" follows `learning_rate`; "cosine" warms up and falls to zero along a cosine over the whole run.
        warmup_steps: steps of the optimiser over which the learning rate rises linearly.
        weight_decay: of every parameter, or of the groups that have one.
        group_rates: the network divides its parameters into groups (`parameter_groups()`), each with its own multiple of
            the learning rate, and with or without weight decay.
        stdev: {epoch: value from that epoch on} of the codec's `stdev`, or None to leave it.
        color_jitter: largest relative change of brightness, contrast and saturation, and turn of hue (of 1).
        initial_weights: a checkpoint of ours, or a public one, to start from.

    With the trainer's `accumulate_grad_batches: n` one step of the optimiser follows the mean gradient of n batches, while
    batch norms see the single batches. Where an epoch ends within a group, Lightning takes a step with what is there, still
    divided by n: every picture counts the same. (Lightweight OpenPose's own code throws such a rest away.)
    """

    def __init__(
        self,
        skeleton: Skeleton,
        network: dict[str, Any],
        codec: dict[str, Any],
        optimizer: Literal["adam", "adamw", "sgd"] = "adam",
        learning_rate: float | dict[int, float] = 1e-3,
        schedule: Literal["steps", "cosine"] = "steps",
        warmup_steps: int = 0,
        weight_decay: float = 0.0,
        group_rates: bool = False,
        stdev: dict[int, float] | None = None,
        color_jitter: tuple[float, float, float, float] = (0.05, 0.05, 0.05, 0.01),
        initial_weights: str | None = None,
    ):
        super().__init__()
        self.network = construct(NETWORKS, "network", network, skeleton)
        self.codec = construct(CODECS, "codec", codec, skeleton)
        if initial_weights:
            load_weights(self.network, ROOT / initial_weights)
        # the layout in which convolutions are fastest, on CPUs as on GPUs (a tenth of the training time on two cores)
        self.network.to(memory_format=torch.channels_last)
        self.skeleton = skeleton
        self.optimizer, self.weight_decay, self.group_rates = optimizer, weight_decay, group_rates
        if group_rates and not hasattr(self.network, "parameter_groups"):
            raise ValueError(f"model.group_rates: {type(self.network).__name__} has no groups of parameters, leave it out")
        self.learning_rate = learning_rate if isinstance(learning_rate, dict) else {0: learning_rate}
        self.schedule, self.warmup_steps = schedule, warmup_steps
        self.stdev = stdev
        self.jitter = ColorJitter(*color_jitter)
        self._results: list[dict] = []

    def configure_optimizers(self):
        options = {"momentum": 0.9} if self.optimizer == "sgd" else {}
        rate = self.learning_rate[min(self.learning_rate)]
        # one fused kernel is fastest, but Lightning cannot clip gradients in front of it
        options["fused"] = self._trainer is None or self.trainer.gradient_clip_val is None
        groups = self.network.parameter_groups() if self.group_rates else [{"params": list(self.parameters())}]
        groups = [
            {
                "params": group["params"],
                "lr_factor": group.get("lr_factor", 1.0),
                "weight_decay": self.weight_decay if group.get("decay", True) else 0.0,
            }
            for group in groups
        ]
        return OPTIMIZERS[self.optimizer](groups, lr=rate, **options)

    def on_train_epoch_start(self):
        if self.stdev:
            self.codec = dataclasses.replace(self.codec, stdev=at_epoch(self.stdev, self.current_epoch))

    def on_train_batch_start(self, batch, batch_index: int):
        # a pure function of epoch and step, so that a resumed run needs no scheduler state; both count steps of the
        # optimiser, of which there is one for `accumulate_grad_batches` batches
        rate = at_epoch(self.learning_rate, self.current_epoch)
        if self.warmup_steps:
            rate *= min(1.0, (self.global_step + 1) / self.warmup_steps)
        if self.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * self.global_step / max(1, self.trainer.estimated_stepping_batches)))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate * group["lr_factor"]
        self.log("learning_rate", rate)

    def training_step(self, batch: dict, batch_index: int) -> torch.Tensor:
        # every batch its own colours, also where several share one step of the optimiser
        batch_number = self.current_epoch * self.trainer.num_training_batches + batch_index
        seed = self.trainer.datamodule.seed * 1_000_003 + self.global_rank * 1_000_000_007 + batch_number
        generator = torch.Generator().manual_seed(seed)
        images = self.jitter(batch["images"], generator)
        losses = self.losses(images, batch)
        total = sum(losses.values())
        if not torch.isfinite(total):
            terms = ", ".join(f"{name} {value.item()}" for name, value in losses.items())
            raise FloatingPointError(f"the loss is not finite in epoch {self.current_epoch}, batch {batch_index} "
                                     f"(images {batch['image_ids'].tolist()}): {terms}; lower learning_rate or add "
                                     "warmup_steps")  # fmt: skip
        size = len(images)
        self.log("train_loss", total.detach(), prog_bar=True, on_step=False, on_epoch=True, batch_size=size)
        self.log_dict(
            {f"train_{k}": v.detach() for k, v in losses.items()}, on_step=False, on_epoch=True, batch_size=size
        )
        return total

    def validation_step(self, batch: dict, batch_index: int) -> None:
        targets = self.targets(batch)
        maps = {name: m.float() for name, m in self.network(batch["images"].float()).items()}
        losses = self.network.loss(maps, targets)
        self.log("val_loss", sum(losses.values()), batch_size=len(batch["images"]), sync_dist=True)
        self._results += to_results(decode(maps, self.codec), batch)

    def on_validation_epoch_end(self):
        results, self._results = self._results, []
        if torch.distributed.is_initialized():
            parts = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, results)
            results = [r for part in parts for r in part]
        for name, value in self.trainer.datamodule.scorer(results).items():
            self.log(name, value, prog_bar=name == "AP", rank_zero_only=False)

    def losses(self, images: torch.Tensor, batch: dict) -> dict[str, torch.Tensor]:
        """Every loss term of a batch; images (N, 3, H, W) float in 0..255."""
        maps = self.network(images.contiguous(memory_format=torch.channels_last))
        return self.network.loss({name: m.float() for name, m in maps.items()}, self.targets(batch))

    def targets(self, batch: dict) -> dict[str, torch.Tensor]:
        """Target maps of a batch as `collate` makes it."""
        return self.codec.encode(batch["keypoints"], batch["mask"], tuple(batch["images"].shape[-2:]))

    def model(self, data: PoseData, **info) -> Model:
        """What a checkpoint holds: the network as it is now, and all that is needed to predict with it."""
        return Model(self.network, self.codec, tuple(data.input_size), data.keep_aspect_ratio, info)


class PoseData(lightning.LightningDataModule):
    """Training and validation images with their keypoints.

    Args:
        data_dir: a folder with annotations and images, see data/README.md; relative paths are meant from the repository.
        train_annotations, train_images, val_annotations, val_images: instead of what `data_dir` holds. Where an index of
            the training annotations lies beside them (`python -m lib index`), it is opened instead of reading them.
        category: name of the COCO category; may be left out where only one has keypoints.
        neck: insert a neck between the shoulders, as trt_pose does, where the annotations have none.
        skeleton: what the network is to find, one of the built-in ones ("openpose18"), a .yaml or a COCO .json: keypoints are
            taken from the annotations by name (a neck is the exact middle of the shoulders), limbs from the skeleton.
            Instead of `neck`; by default what the annotations have.
        samples: "images" shows every training picture once an epoch, as a whole; "people" every main person once, in the
            middle of a crop (see `lib.data.person_crops`). Validation always sees whole pictures.
        crops: random geometry of "people".
        input_size: height and width of the network's input.
        keep_aspect_ratio: pad instead of stretching.
        augment: random scale, rotation, translation and flip of "images"; null for none.
        mask_unlabelled: do not punish what stands where people are not annotated.
        mask_stride: pixels per cell of that mask.
        min_area, max_area: leave out people smaller or larger than this fraction of the image (of "images").
        batch_size, num_workers, seed: as usual; the result does not depend on num_workers.
        limit_train, limit_val: use only the first so many images.
    """

    def __init__(
        self,
        data_dir: str = "data/synthetic",
        train_annotations: str | None = None,
        train_images: str | None = None,
        val_annotations: str | None = None,
        val_images: str | None = None,
        category: str | None = None,
        neck: bool = False,
        skeleton: str | None = None,
        samples: Literal["images", "people"] = "images",
        crops: CropAugment | None = CropAugment(),
        input_size: tuple[int, int] = (224, 224),
        keep_aspect_ratio: bool = True,
        augment: Augment | None = Augment(),
        mask_unlabelled: bool = True,
        mask_stride: int = 4,
        min_area: float = 0.0,
        max_area: float = 1.0,
        batch_size: int = 16,
        num_workers: int = 1,
        limit_train: int | None = None,
        limit_val: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.input_size, self.keep_aspect_ratio, self.category = input_size, keep_aspect_ratio, category
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        if neck and skeleton:
            raise ValueError("data.neck and data.skeleton: a skeleton says whether there is a neck, leave data.neck out")
        self._view = category, neck, Skeleton.named(_from_root(skeleton)) if skeleton else None
        shared = dict(category=category, input_size=input_size, mask_stride=mask_stride,
                      mask_unlabelled=mask_unlabelled, seed=seed)  # fmt: skip
        self._whole = dict(keep_aspect_ratio=keep_aspect_ratio, min_area=min_area, max_area=max_area, **shared)
        annotations, images = _find(data_dir, "train", train_annotations, train_images)
        self._labels = labels = _viewed(LabelIndex.of(annotations), *self._view)
        if samples == "people":
            self.train_set = PersonCrops(labels, images, augment=crops, limit=limit_train, **shared)
        else:
            self.train_set = CocoKeypoints(labels, images, augment=augment, limit=limit_train, **self._whole)
        annotations, images = _find(data_dir, "val", val_annotations, val_images)
        val_coco = _viewed(read_coco(annotations), *self._view)
        self.val_set = CocoKeypoints(val_coco, images, limit=limit_val, **self._whole)
        self.skeleton = self.train_set.skeleton
        if self.val_set.skeleton.keypoints != self.skeleton.keypoints:
            raise ValueError(f"training annotations have {self.skeleton.num_keypoints} keypoints, validation annotations "
                             f"{self.val_set.skeleton.num_keypoints}: they must be the same")  # fmt: skip
        self.scorer = CocoScorer(val_coco, self.skeleton, category, self.val_set.image_ids.tolist())

    def whole_pictures(self) -> CocoKeypoints:
        """The training pictures as validation would show them, also where the samples are people."""
        if isinstance(self.train_set, CocoKeypoints):
            whole = copy.copy(self.train_set)
            whole.augment = None
            return whole
        return CocoKeypoints(self._labels, self.train_set.images, **self._whole)

    def read_train(self) -> CocoFile:
        """The training annotations, read again: kept in memory, COCO's would fill two gigabytes in every worker."""
        return _viewed(read_coco(self._labels.source), *self._view)

    def train_dataloader(self) -> DataLoader:
        sampler = _EpochSampler(self.train_set, self.seed, self.trainer)
        return DataLoader(self.train_set, self.batch_size, sampler=sampler, num_workers=self.num_workers,
                          collate_fn=collate, worker_init_fn=worker_init, persistent_workers=self.num_workers > 0,
                          drop_last=len(self.train_set) > self.batch_size)  # fmt: skip

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_set, self.batch_size, num_workers=self.num_workers, collate_fn=collate,
                          worker_init_fn=worker_init)  # fmt: skip


def _find(data_dir: str, split: str, annotations: str | None, images: str | None) -> tuple[Path, Path]:
    """The annotation file of a split and the folder of its images."""
    if annotations is None or images is None:
        found = find_split(ROOT / data_dir, split)
        annotations, images = annotations or found[0], images or found[1]
    return ROOT / annotations, ROOT / images


def _viewed(labels: CocoFile | LabelIndex, category: str | None, neck: bool,
            skeleton: Skeleton | None) -> CocoFile | LabelIndex:  # fmt: skip
    """Annotations with the keypoints and limbs that are to be learnt."""
    in_memory = isinstance(labels, CocoFile)
    if skeleton:
        return with_skeleton(labels, skeleton, category) if in_memory else labels.with_skeleton(skeleton, category)
    named = category_named(labels, category)
    if not neck or "neck" in named.keypoints:
        return labels
    return insert_neck(labels, named.name) if in_memory else labels.with_neck(named.name)


def _from_root(skeleton: str) -> str | Path:
    """A file is meant from the repository, a built-in name is itself."""
    return ROOT / skeleton if Path(skeleton).suffix else skeleton


class _EpochSampler(DistributedSampler):
    """Shuffles by (seed, epoch), and tells the dataset the epoch that its augmentation depends on."""

    def __init__(self, dataset: CocoKeypoints, seed: int, trainer: lightning.Trainer):
        super().__init__(dataset, trainer.world_size, trainer.global_rank, shuffle=True, seed=seed)
        self._trainer = trainer

    def __iter__(self):
        # after a resume Lightning asks for the order before it announces the epoch, and before `current_epoch` is right
        self.set_epoch(self._trainer.fit_loop.epoch_progress.current.processed)
        self.dataset.set_epoch(self.epoch)
        return super().__iter__()


def decode(maps: Mapping[str, torch.Tensor], codec: Codec) -> list[People]:
    """The people of every image of a batch, in pixels of the network's input."""
    arrays = {name: m.float().cpu().numpy() for name, m in maps.items()}
    return [codec.decode({name: m[n] for name, m in arrays.items()}) for n in range(len(next(iter(arrays.values()))))]


def to_results(people: list[People], batch: dict) -> list[dict]:
    """COCO results of the people of a batch, brought back to the pixels of the original images."""
    rows = zip(people, batch["image_ids"].tolist(), batch["affines"].cpu().numpy())
    return [
        r for found, image_id, affine in rows for r in people_to_results(found.warped(invert_affine(affine)), image_id)
    ]


def at_epoch(values: Mapping[int, float], epoch: int) -> float:
    """The value of {first epoch: value} that holds in `epoch`."""
    return values[max((start for start in values if start <= epoch), default=min(values))]


def fastest_precision(accelerator: str = "auto") -> str:
    """ "bf16-mixed" where the device computes in bfloat16 (GPUs since Ampere, CPUs with AVX512-BF16 or AMX), else "32-true"."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    return "bf16-mixed" if _cpu_has_bf16() else "32-true"


def _cpu_has_bf16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def construct(table: Mapping[str, type], what: str, options: Mapping[str, Any], skeleton: Skeleton):
    """Build `table[options["name"]](skeleton, **rest)`; an unknown name or option is an error naming the nearest one."""
    options = dict(options)
    name = options.pop("name", None)
    if name not in table:
        raise ValueError(f"model.{what}.name {name!r} is unknown{_nearest(str(name), table)}")
    known = [p for p in inspect.signature(table[name]).parameters if p != "skeleton"]
    for key in options:
        if key not in known:
            raise ValueError(f"model.{what}: {name} has no option {key!r}{_nearest(key, known)}")
    return table[name](skeleton, **options)


def _nearest(word: str, known) -> str:
    near = difflib.get_close_matches(word, list(known), 1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
