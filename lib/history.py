"""The history of a run: a row of figures for every validation, the best weights, and curves that grow in a notebook."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import lightning
import matplotlib.pyplot as plt
from IPython.display import display
from lightning.pytorch.callbacks import Callback

from lib.draw import plot_history
from lib.files import beside
from lib.learning import Learner


class Curves:
    """The curves of a training in one picture of a notebook: those of one run, or of several one after the other.

    Attributes:
        earlier: histories of the runs before this one.
    """

    def __init__(self):
        self.earlier: list[list[dict]] = []
        self._display = None

    def draw(self, rows: list[dict]) -> None:
        """Show the runs before this one and the rows of this one."""
        figure = plot_history(joined([*self.earlier, rows]) if self.earlier else rows)
        if self._display is None:
            self._display = display(figure, display_id=True)
        else:
            self._display.update(figure)
        plt.close(figure)


class History(Callback):
    """Keeps a row per validation, writes `history.csv` and the best weights, and draws the curves in a notebook.

    Attributes:
        rows: epoch, step, seconds and every figure of training and validation.
    """

    def __init__(self, out_dir: Path, curves: Curves | None = None):
        self.out_dir, self.curves = out_dir, curves
        self.rows: list[dict] = []
        self._validated, self._start = False, 0.0

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        self.rows = state["rows"]

    def on_train_start(self, trainer: lightning.Trainer, learner: Learner) -> None:
        self._start = time.monotonic() - (self.rows[-1]["seconds"] if self.rows else 0)

    def on_validation_end(self, trainer: lightning.Trainer, learner: Learner) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: lightning.Trainer, learner: Learner) -> None:
        # the trainer remembers the figures of the last validation, also in epochs without one
        validated, self._validated = self._validated, False
        if not validated or not trainer.is_global_zero:
            return
        values = {k: round(float(v), 6) for k, v in trainer.callback_metrics.items()}
        name, epoch = learner.best_by, trainer.current_epoch + 1
        best = max((row[name] for row in self.rows), default=-1.0)
        self.rows.append({"epoch": epoch, "step": trainer.global_step,
                          "seconds": round(time.monotonic() - self._start, 1), **values})  # fmt: skip
        if values[name] >= best:
            learner.save(self.out_dir / "best.safetensors", trainer.datamodule, **{name: values[name], "epoch": epoch})
        write_history(self.out_dir / "history.csv", self.rows)
        if self.curves:
            self.curves.draw(self.rows)


def best_row(rows: Sequence[dict], name: str) -> dict:
    """The row of the weights in `best.safetensors`: the highest figure, of equal ones the last."""
    return max(reversed(rows), key=lambda row: row[name])


def joined(histories: Iterable[list[dict]]) -> list[dict]:
    """Histories of steps as one: `chain_step` counts them from 1, and epoch, step and seconds go on where the last ended."""
    rows = []
    for number, history in enumerate(histories, start=1):
        before = rows[-1] if rows else {}
        counted = {name: before.get(name, 0) for name in ("epoch", "step", "seconds")}
        rows += [{"chain_step": number, **row, **{name: row[name] + counted[name] for name in counted}} for row in history]
    return rows


def write_history(path: Path, rows: list[dict]) -> None:
    """Write rows as CSV, whole or not at all; a column for every name that occurs."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with beside(path) as writing, writing.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def read_history(path: Path) -> list[dict]:
    """The rows that `write_history` wrote."""
    with path.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [row | {name: int(row[name]) for name in ("epoch", "step")} for row in rows]
