"""The folder of a run: what is learnt, what it is learnt from, what comes out of it and how far it is, for people to look at.

    recipe.yaml, best.safetensors, last.ckpt, history.csv      by `lib.training` and `lib.history`
    model_summary.txt                                          layers, parameters, multiply-adds
    data_examples/train.jpg, val.jpg                           samples with their targets
    eval_examples/epoch_0001.jpg, …                            what the network says about the same pictures
    metrics.yaml, metrics.html, metrics.png                    figures of every epoch
    train.log                                                  when it began, what it found, how it ended

Only the process that writes anything makes them, outside the steps of the optimiser: training does not wait for them but
between epochs, for a fraction of a second.
"""

from __future__ import annotations

import platform
import time
from datetime import datetime
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from lib import metric_curves
from lib.draw import save_picture
from lib.files import beside, write
from lib.history import History, best_row
from lib.learning import Learner
from lib.model_summary import model_summary

EXAMPLES = 6  # pictures on a sheet
PICTURE_EVERY = 30  # seconds: drawing the curves takes long in a training of small epochs


class Results(Callback):
    """Fills the folder of a run; see above.

    Args:
        out_dir: the folder.
        history: the rows are its.
        note: what the log says in the beginning.
    """

    def __init__(self, out_dir: Path, history: History, note: str = ""):
        self.out_dir, self.history, self.note = out_dir, history, note
        self._rows, self._began = 0, time.monotonic()
        self._drawn = self._began

    def on_fit_start(self, trainer: lightning.Trainer, learner: Learner) -> None:
        if not trainer.is_global_zero:
            return
        data, self._rows = trainer.datamodule, len(self.history.rows)
        self.say(f"{self.note}: {len(data.train_set)} training and {len(data.val_set)} validation samples, "
                 f"{trainer.world_size} × {trainer.strategy.root_device.type} ({platform.node()}), {trainer.precision}, "
                 f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, torch {torch.__version__}")  # fmt: skip
        write(self.out_dir / "model_summary.txt", model_summary(learner.network, data.input_size))
        collate = data.val_dataloader().collate_fn
        for split, samples in (("train", data.train_set), ("val", data.val_set)):
            path = self.out_dir / f"data_examples/{split}.jpg"
            if not path.exists():
                save_picture(path, learner.draw_targets(some(samples, collate)))

    def on_train_epoch_end(self, trainer: lightning.Trainer, learner: Learner) -> None:
        rows = self.history.rows
        if not trainer.is_global_zero or len(rows) == self._rows:
            return
        self._rows, row = len(rows), rows[-1]
        self.say(", ".join(f"{name} {value:g}" for name, value in row.items()))
        samples = some(trainer.datamodule.val_set, trainer.datamodule.val_dataloader().collate_fn)
        with trainer.precision_plugin.forward_context():
            sheet = learner.draw_answers(samples)
        save_picture(self.out_dir / f"eval_examples/epoch_{row['epoch']:04}.jpg", sheet)
        self._write_metrics(learner, picture=time.monotonic() - self._drawn > PICTURE_EVERY)

    def on_fit_end(self, trainer: lightning.Trainer, learner: Learner) -> None:
        if trainer.is_global_zero:
            self._write_metrics(learner, picture=True)
            self.say(f"finished after {time.monotonic() - self._began:.0f} s")

    def on_exception(self, trainer: lightning.Trainer, learner: Learner, exception: BaseException) -> None:
        if trainer.is_global_zero and self.out_dir.is_dir():
            self.say(f"ended in epoch {trainer.current_epoch + 1}, step {trainer.global_step}, by {type(exception).__name__}"
                     + f": {exception}" * bool(str(exception)))  # fmt: skip

    def say(self, sentence: str) -> None:
        """Add a line to `train.log`; the file of a resumed run goes on."""
        with (self.out_dir / "train.log").open("a") as file:
            file.write(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S%z} {sentence}\n")

    def _write_metrics(self, learner: Learner, picture: bool) -> None:
        rows = self.history.rows
        if not rows:
            return
        metrics, best = metric_curves.by_metric(rows), best_row(rows, learner.best_by)
        remarks = {"network": type(learner.network).__name__, "epochs": str(rows[-1]["epoch"]),
                   "steps": str(rows[-1]["step"]), "seconds": f"{rows[-1]['seconds']:.0f}",
                   f"best {learner.best_by}": f"{best[learner.best_by]:.4f} in epoch {best['epoch']}"}  # fmt: skip
        write(self.out_dir / "metrics.yaml", metric_curves.as_yaml(metrics))
        write(self.out_dir / "metrics.html", metric_curves.as_html(metrics, self.out_dir.name, remarks))
        if picture:
            with beside(self.out_dir / "metrics.png") as writing:
                metric_curves.as_figure(metrics).savefig(writing, dpi=90)
            self._drawn = time.monotonic()


def some(samples, collate, count: int = EXAMPLES) -> dict:
    """A batch of `count` samples, evenly spread over a data set; always the same ones."""
    count = min(count, len(samples))
    return collate([samples[i * len(samples) // count] for i in range(count)])
