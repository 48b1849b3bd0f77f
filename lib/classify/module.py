"""What is trained on class folders: a classifier, and ImageNet's layout as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader

from lib import ROOT
from lib.checkpoints import Classifier, save_classifier
from lib.classify.drawing import draw_top, top
from lib.data.imagenet import ImageFolders, RandomCrop, collate, name_of
from lib.draw import grid
from lib.learner import construct
from lib.learning import Learner, train_loader, val_loader
from lib.models import CLASSIFIERS


class ClassifierModule(Learner):
    """A classifier and how it is trained, by cross entropy.

    Args:
        classes: set from the data.
        network: `name` of a class in `lib.models.CLASSIFIERS` and its options.
        optimizer: adam, adamw, sgd (momentum 0.9) or nesterov (the same with Nesterov's momentum).
        learning_rate: one value, or {epoch: value from that epoch on}; epochs count from 0.
        weight_decay: of every parameter, or of the groups that have one.
        color_jitter: largest relative change of brightness, contrast and saturation, and turn of hue (of 1).
        training: see `lib.learning.Learner`.
    """

    best_by = "top1"

    def __init__(
        self,
        classes: tuple[str, ...],
        network: dict[str, Any],
        optimizer: Literal["adam", "adamw", "sgd", "nesterov"] = "nesterov",
        learning_rate: float | dict[int, float] = 0.05,
        weight_decay: float = 1e-4,
        color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
        **training: Any,
    ):
        super().__init__(
            construct(CLASSIFIERS, "network", network, classes),
            optimizer=optimizer,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            color_jitter=color_jitter,
            **training,
        )
        self.classes = tuple(classes)
        self._hits: dict[int, tuple[bool, bool]] = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) float in 0..255 → logits (N, C) float32."""
        return self.network(images.contiguous(memory_format=torch.channels_last))["logits"].float()

    def losses(self, images: torch.Tensor, batch: dict) -> dict[str, torch.Tensor]:
        """The cross entropy of a batch; images (N, 3, H, W) float in 0..255."""
        return self.network.loss({"logits": self(images)}, batch)

    def validation_step(self, batch: dict, batch_index: int) -> None:
        logits = self(batch["images"].float())
        self.log_figures({"val_loss": sum(self.network.loss({"logits": logits}, batch).values())}, batch, bar="")
        self._hits |= zip(batch["indices"].tolist(), hits(logits, batch["labels"]).tolist(), strict=True)

    def on_validation_epoch_end(self) -> None:
        found, self._hits = self.of_all_processes(self._hits), {}
        for name, value in zip(("top1", "top5"), np.mean(list(found.values()), axis=0).tolist()):
            self.log(name, value, prog_bar=name == self.best_by, rank_zero_only=False)

    def model(self, data: ImageNetData, **info) -> Classifier:
        """What a checkpoint holds: the network as it is now, and all that is needed to classify with it."""
        return Classifier(self.network, tuple(data.input_size), {"centre": data.centre, **info})

    def save(self, path: str | Path, data: ImageNetData, **info) -> Path:
        """Write a checkpoint."""
        return save_classifier(path, self.model(data, **info))

    def draw_targets(self, batch: dict) -> np.ndarray:
        """The pictures of a batch with the names of their classes, as a sheet (H, W, 3) uint8."""
        certain = np.eye(len(self.classes), dtype=np.float32)[batch["labels"].cpu().numpy()]
        return self._sheet(batch, certain, count=1)

    @torch.inference_mode()
    def draw_answers(self, batch: dict) -> np.ndarray:
        """The pictures of a batch with the classes it takes for the most probable, as a sheet (H, W, 3) uint8."""
        training = self.training
        answers = self.eval()(batch["images"].to(self.device).float()).softmax(dim=1).cpu().numpy()
        self.train(training)
        return self._sheet(batch, answers, count=5)

    def _sheet(self, batch: dict, probabilities: np.ndarray, count: int) -> np.ndarray:
        rows = zip(batch["images"].permute(0, 2, 3, 1).cpu().numpy(), probabilities, batch["labels"].tolist())
        return grid([draw_top(image, top(answer, self.classes, count), name_of(self.classes[label]))
                     for image, answer, label in rows], columns=3)  # fmt: skip


class ImageNetData(lightning.LightningDataModule):
    """Training and validation pictures in class folders.

    Args:
        data_dir: a folder with train/ and val/, see data/README.md; relative paths are meant from the repository.
        input_size: height and width of the network's input.
        crop: random geometry of training; null for the middle of every picture.
        centre: the part of a picture's shorter side that validation sees, see `lib.data.imagenet.centre_affine`.
        batch_size: pictures in a batch, of each process.
        num_workers: processes that read pictures; the result does not depend on it.
        limit_train: train on so many pictures only, spread over the classes.
        limit_val: validate on so many only.
        seed: of order, crops and colours.

    Attributes:
        classes: C classes, "FOLDER NAME", in the order of the labels.
    """

    def __init__(
        self,
        data_dir: str = "data/imagenet",
        input_size: tuple[int, int] = (224, 224),
        crop: RandomCrop | None = RandomCrop(),
        centre: float = 0.875,
        batch_size: int = 32,
        num_workers: int = 1,
        limit_train: int | None = None,
        limit_val: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.input_size, self.centre = tuple(input_size), centre
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        shared = dict(input_size=self.input_size, centre=centre, seed=seed)
        self.train_set = ImageFolders(ROOT / data_dir, "train", crop=crop, limit=limit_train, **shared)
        self.val_set = ImageFolders(ROOT / data_dir, "val", limit=limit_val, **shared)
        self.classes = self.train_set.classes
        if differ := sorted(set(self.classes) ^ set(self.val_set.classes)):
            where = "train" if differ[0] in self.classes else "val"
            raise ValueError(f"{ROOT / data_dir}: train and val hold different classes, {len(differ)} are only in one of them, "
                             f"the first is {differ[0]!r}, only in {where}: make them the same")  # fmt: skip
        if len(self.classes) < 2:
            raise ValueError(f"{ROOT / data_dir} holds a single class, {self.classes[0]!r}: there is nothing to tell it from, "
                             "add another")  # fmt: skip

    def train_dataloader(self) -> DataLoader:
        return train_loader(self, collate)

    def val_dataloader(self) -> DataLoader:
        return val_loader(self, collate)


def hits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Whether the class of a picture is the most probable one, and among the five most probable.

    Args:
        logits: (N, C), or probabilities; with at most five classes the second is always true.
        labels: (N,) int64.

    Returns:
        (N, 2) bool, whose means are top-1 and top-5. Published are the errors, 1 minus these.
    """
    order = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    return torch.stack([order[:, 0], order.any(dim=1)], dim=1)
