"""What is trained, and on what: a network with its codec and optimiser, and a pair of COCO keypoint files.

The same two classes serve every architecture and every skeleton; `lib.learning` says how they are trained.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader

from lib import ROOT
from lib.checkpoints import Model, save_model
from lib.codecs import CODECS, Codec
from lib.codecs.codec import nearest
from lib.data.augment import Augment
from lib.data.boxes import BoxAugment, PersonBoxes
from lib.data.coco import CocoFile, category_named, find_split, insert_neck, read_coco, with_skeleton
from lib.data.dataset import CocoKeypoints, KeypointSamples, collate
from lib.data.index import LabelIndex
from lib.data.pair_statistics import of_training_set
from lib.data.person_crops import CropAugment, PersonCrops
from lib.data.scaled import ScaledPictures, ScaleJitter
from lib.examples import answers_sheet, targets_sheet
from lib.learning import Learner, at, train_loader, val_loader
from lib.metrics import CocoScorer, people_to_results
from lib.models import NETWORKS
from lib.people import People, invert_affine
from lib.skeleton import Skeleton


class PoseModule(Learner):
    """A network, its codec and how they are trained.

    Args:
        skeleton: set from the data.
        network: `name` of a class in `lib.models.NETWORKS` and its options.
        codec: `name` of a class in `lib.codecs.CODECS` and its options.
        stdev: {epoch: value from that epoch on} of the codec's `stdev`, or None to leave it.
        training: how it is trained, see `lib.learning.Learner`.
    """

    best_by = "AP"

    def __init__(
        self,
        skeleton: Skeleton,
        network: dict[str, Any],
        codec: dict[str, Any],
        stdev: dict[int, float] | None = None,
        **training: Any,
    ):
        super().__init__(construct(NETWORKS, "network", network, skeleton), **training)
        self.codec = construct(CODECS, "codec", codec, skeleton)
        self.skeleton = skeleton
        self.stdev = stdev
        self._results: dict[int, list[dict]] = {}

    def look_at(self, data: PoseData) -> None:
        """Measure in the training set what the codec wants to know of it: how far keypoints lie apart, for pairwise maps."""
        if getattr(self.codec, "pairwise", False) and self.codec.pair_stats is None:
            self.codec = dataclasses.replace(self.codec, pair_stats=of_training_set(data.train_set))

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.stdev:
            self.codec = dataclasses.replace(self.codec, stdev=at(self.stdev, self.current_epoch))

    def validation_step(self, batch: dict, batch_index: int) -> None:
        targets = self.targets(batch)
        maps = {name: m.float() for name, m in self.network(batch["images"].float()).items()}
        losses = self.network.loss(maps, targets)
        self.log_figures({"val_loss": sum(losses.values()), **{f"val_{name}": v for name, v in losses.items()}}, batch, "")
        self._results |= results_by_sample(decode(maps, self.codec), batch)

    def on_validation_epoch_end(self) -> None:
        results, self._results = self.of_all_processes(self._results), {}
        found = [row for sample in sorted(results) for row in results[sample]]
        for name, value in self.trainer.datamodule.scorer(found).items():
            self.log(name, value, prog_bar=name == self.best_by, rank_zero_only=False)

    def losses(self, images: torch.Tensor, batch: dict) -> dict[str, torch.Tensor]:
        """Every loss term of a batch; images (N, 3, H, W) float in 0..255."""
        maps = self.network(images.contiguous(memory_format=torch.channels_last))
        return self.network.loss({name: m.float() for name, m in maps.items()}, self.targets(batch))

    def targets(self, batch: dict) -> dict[str, torch.Tensor]:
        """Target maps of a batch as `collate` makes it."""
        scaled = {"scales": torch.linalg.det(batch["affines"][..., :2]).abs().sqrt()} if self.codec.wants_scales else {}
        return self.codec.encode(batch["keypoints"], batch["mask"], tuple(batch["images"].shape[-2:]), **scaled)

    def model(self, data: PoseData, **info) -> Model:
        """What a checkpoint holds: the network as it is now, and all that is needed to predict with it."""
        augment = data.train_set.augment
        info = {"flip": augment.flip if augment else 0.0, **info}  # whether a flip test will show it something new
        if isinstance(data.train_set, PersonBoxes):
            info = {"box_padding": augment.padding, **info}
        info = {**getattr(self.network, "info", {}), **info}  # whose weights it started from, and their licence
        return Model(self.network, self.codec, tuple(data.input_size), data.keep_aspect_ratio, info)

    def save(self, path: str | Path, data: PoseData, **info: Any) -> Path:
        """Write a checkpoint, see `lib.checkpoints.save_model`."""
        return save_model(path, self.model(data, **info))

    def draw_targets(self, batch: dict) -> np.ndarray:
        """The pictures of a batch with their people, and the maps that are to be learnt from them."""
        return targets_sheet(batch, {name: t.cpu().numpy() for name, t in self.targets(batch).items()}, self.skeleton)

    @torch.inference_mode()
    def draw_answers(self, batch: dict) -> np.ndarray:
        """The pictures of a batch with the people who are found in them, and the maps they were found in."""
        training = self.training
        maps = {name: m.float() for name, m in self.eval().network(batch["images"].to(self.device).float()).items()}
        self.train(training)
        arrays = {name: m.cpu().numpy() for name, m in maps.items()}
        return answers_sheet(batch, arrays, decode(maps, self.codec), self.skeleton)


class PoseData(lightning.LightningDataModule):
    """Training and validation images with their keypoints.

    Args:
        data_dir: a folder with annotations and images, see data/README.md; relative paths are meant from the repository.
        train_annotations: COCO keypoint file, instead of what `data_dir` holds. Where an index of it lies beside it
            (`python -m lib index`), that is opened instead of reading it.
        train_images: folder of its pictures.
        val_annotations: the same for validation.
        val_images: folder of its pictures.
        category: name of the COCO category; may be left out where only one has keypoints.
        neck: insert a neck between the shoulders, as trt_pose does, where the annotations have none.
        skeleton: what the network is to find, one of the built-in ones ("openpose18"), a .yaml or a COCO .json: keypoints are
            taken from the annotations by name (a neck is the exact middle of the shoulders), limbs from the skeleton.
            Instead of `neck`; by default what the annotations have.
        samples: "images" shows every training picture once an epoch, as a whole, fitted into the input; "scaled" so, too, but
            in its own size times a factor (see `lib.data.scaled`); "people" every main person once, in the middle of a crop
            (see `lib.data.person_crops`). Validation sees whole pictures then, fitted into the input. "boxes" is for top-down
            networks: every annotated person's box once, cut out to fill the input, in validation, too (see `lib.data.boxes`).
        crops: random geometry of "people".
        boxes: random geometry of "boxes".
        scaled: random sizes of "scaled".
        input_size: height and width of the network's input.
        keep_aspect_ratio: pad instead of stretching.
        augment: random scale, rotation, translation and flip of "images"; null for none.
        mask_unlabelled: do not punish what stands where people are not annotated.
        unlabelled_pictures: also train on pictures all of whose people lack keypoints or are crowds (of "images").
        mask_stride: pixels per cell of that mask.
        min_area: leave out people smaller than this fraction of the image (of "images").
        max_area: leave out larger ones.
        batch_size: samples in a batch, of each process.
        num_workers: processes that read samples; the result does not depend on it.
        limit_train: train on the first so many samples only.
        limit_val: validate on the first so many only.
        seed: of order, augmentation and colours.
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
        samples: Literal["images", "people", "scaled", "boxes"] = "images",
        crops: CropAugment | None = CropAugment(),
        boxes: BoxAugment | None = BoxAugment(),
        scaled: ScaleJitter = ScaleJitter(),
        input_size: tuple[int, int] = (224, 224),
        keep_aspect_ratio: bool = True,
        augment: Augment | None = Augment(),
        mask_unlabelled: bool = True,
        unlabelled_pictures: bool = False,
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
        shared = dict(category=category, mask_stride=mask_stride, seed=seed)
        sized, masked = shared | {"input_size": input_size}, {"mask_unlabelled": mask_unlabelled}
        self._whole = dict(keep_aspect_ratio=keep_aspect_ratio, min_area=min_area, max_area=max_area, **sized, **masked)
        unlabelled = dict(limit=limit_train, unlabelled_pictures=unlabelled_pictures)
        annotations, images = _find(data_dir, "train", train_annotations, train_images)
        self._labels = labels = _viewed(LabelIndex.of(annotations), *self._view)
        if samples == "people":
            self.train_set = PersonCrops(labels, images, augment=crops, limit=limit_train, **sized, **masked)
        elif samples == "boxes":
            self.train_set = PersonBoxes(labels, images, augment=boxes, limit=limit_train, **sized)
        elif samples == "scaled":
            self.train_set = ScaledPictures(labels, images, augment=scaled, **shared, **masked, **unlabelled)
        else:
            self.train_set = CocoKeypoints(labels, images, augment=augment, **self._whole, **unlabelled)
        annotations, images = _find(data_dir, "val", val_annotations, val_images)
        val_coco = _viewed(read_coco(annotations), *self._view)
        if samples == "boxes":
            self.val_set = PersonBoxes(val_coco, images, augment=boxes and boxes.still, limit=limit_val, **sized)
        else:
            self.val_set = CocoKeypoints(val_coco, images, limit=limit_val, **self._whole)
        self.skeleton = self.train_set.skeleton
        if self.val_set.skeleton.keypoints != self.skeleton.keypoints:
            raise ValueError(f"training annotations have {self.skeleton.num_keypoints} keypoints, validation annotations "
                             f"{self.val_set.skeleton.num_keypoints}: they must be the same")  # fmt: skip
        self.scorer = CocoScorer(val_coco, self.skeleton, category, self.val_set.image_ids.tolist())

    def whole_pictures(self) -> KeypointSamples:
        """The training pictures as validation would show them, also where the samples are people."""
        if isinstance(self.train_set, CocoKeypoints | PersonBoxes):
            return self.train_set.still()
        return CocoKeypoints(self._labels, self.train_set.images, **self._whole)

    def read_train(self) -> CocoFile:
        """The training annotations, read again: kept in memory, COCO's would fill two gigabytes in every worker."""
        return _viewed(read_coco(self._labels.source), *self._view)

    def train_dataloader(self) -> DataLoader:
        return train_loader(self, collate)

    def val_dataloader(self) -> DataLoader:
        return val_loader(self, collate)


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


def decode(maps: Mapping[str, torch.Tensor], codec: Codec) -> list[People]:
    """The people of every image of a batch, in pixels of the network's input."""
    arrays = {name: m.float().cpu().numpy() for name, m in maps.items()}
    return [codec.decode({name: m[n] for name, m in arrays.items()}) for n in range(len(next(iter(arrays.values()))))]


def to_results(people: list[People], batch: dict) -> list[dict]:
    """COCO results of the people of a batch, brought back to the pixels of the original images."""
    return [row for rows in results_by_sample(people, batch).values() for row in rows]


def results_by_sample(people: list[People], batch: dict) -> dict[int, list[dict]]:
    """The same, by the number of the sample, or where every picture is one, by its image id."""
    numbers = batch.get("samples", batch["image_ids"]).tolist()
    rows = zip(people, numbers, batch["image_ids"].tolist(), batch["affines"].cpu().numpy(), strict=True)
    return {n: people_to_results(found.warped(invert_affine(affine)), image_id) for found, n, image_id, affine in rows}


def construct(table: Mapping[str, type], what: str, options: Mapping[str, Any], first: Any):
    """Build `table[options["name"]](first, **rest)`; an unknown name or option is an error naming the nearest one."""
    options = dict(options)
    name = options.pop("name", None)
    if name not in table:
        raise ValueError(f"model.{what}.name {name!r} is unknown{nearest(str(name), table)}")
    known = list(inspect.signature(table[name]).parameters)[1:]
    for key in options:
        if key not in known:
            raise ValueError(f"model.{what}: {name} has no option {key!r}{nearest(key, known)}")
    try:
        return table[name](first, **options)
    except TypeError as error:
        raise ValueError(f"model.{what}: {name} cannot be made of {options}: {error}") from error
