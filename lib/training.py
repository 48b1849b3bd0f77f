"""Run a recipe: `python -m lib train --config lib/recipes/NAME.yaml [--data.batch_size=8 …] [--resume=true]`.

A recipe has three parts, each checked key by key: `model` and `data` (see `lib.learner`) and `trainer` (Lightning's own
options). An upstream trt_pose configuration (.json) is accepted in its place.
"""

from __future__ import annotations

import csv
import difflib
import json
import logging
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import lightning
import matplotlib.pyplot as plt
import yaml
from IPython.display import display
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lib import ROOT
from lib.checkpoints import save_model
from lib.draw import draw_people, grid, plot_history
from lib.files import beside, write
from lib.learner import PoseData, PoseModule, fastest_precision
from lib.models.trt_pose_recipe import recipe_from_upstream
from lib.preflight import preflight

# said by the libraries about each other, with nothing in it for the user
for _message in ("LightningCLI's args parameter", "Checkpoint directory .* exists", ".*LeafSpec", ".*log_every_n_steps",
                 ".*does not have many workers", ".*was deprecated in v4", ".*skip_none parameter"):  # fmt: skip
    warnings.filterwarnings("ignore", message=f"(?s)\\s*{_message}")
for _name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass
class TrainingRun:
    """What a training run left behind.

    Attributes:
        out_dir: folder with `best.safetensors` (highest AP), `last.ckpt` (for resuming), `recipe.yaml`, logs.
        history: one row per validation: epoch, step, seconds, train_loss, val_loss, AP and the other COCO figures.
        learner, data: the trained module and its data.
    """

    out_dir: Path
    history: list[dict]
    learner: PoseModule
    data: PoseData

    @property
    def best(self) -> Path:
        return self.out_dir / "best.safetensors"


def train(recipe: str | Path, out_dir: str | Path, overrides: Mapping[str, Any] | None = None, resume: bool = False,
          live: bool = False) -> TrainingRun:  # fmt: skip
    """Train as a recipe says.

    Args:
        recipe: YAML file, or an upstream trt_pose JSON file.
        out_dir: where everything is written; refused if it holds a finished or begun run, unless `resume`.
        overrides: dotted keys of the recipe, {"data.batch_size": 8}.
        resume: go on from `last.ckpt`, to the same weights as if nothing had happened.
        live: redraw the curves in the notebook after every epoch.

    Raises:
        ValueError: a key is unknown (the nearest one is named) or a value does not fit.
    """
    arguments = _arguments(recipe, out_dir, overrides)
    arguments += [f"--resume={str(resume).lower()}", f"--live={str(live).lower()}"]
    return _run(arguments, exit_on_error=False)


def main(arguments: list[str]) -> int:
    """`python -m lib train --config RECIPE --out_dir RUN [--data.batch_size=8 …] [--resume=true]`."""
    finished = _run(arguments, exit_on_error=True)
    best = max(finished.history, key=lambda row: row["AP"])
    print(f"best AP {best['AP']:.3f} in epoch {best['epoch']}: {finished.best}")
    return 0


def _run(arguments: list[str], exit_on_error: bool) -> TrainingRun:
    cli = _parse(arguments, exit_on_error)
    out_dir, last = ROOT / cli.config.out_dir, ROOT / cli.config.out_dir / "last.ckpt"
    if last.exists() and not cli.config.resume:
        raise FileExistsError(
            f"{out_dir} holds a training run: pass resume (--resume=true) to go on, or another out_dir"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    _keep_recipe(out_dir / "recipe.yaml", cli.parser.dump(cli.config), resumed=last.exists())
    history = History(out_dir, live=cli.config.live)
    cli.trainer.callbacks.insert(0, history)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=last if last.exists() else None, weights_only=True)
    return TrainingRun(out_dir, history.rows, cli.model, cli.datamodule)


def _keep_recipe(path: Path, recipe: str, resumed: bool) -> None:
    """Write the recipe beside its run; a run that is resumed must go on with the network it began with."""
    if resumed and path.exists():
        begun, now = (yaml.safe_load(text)["model"]["network"] for text in (path.read_text(), recipe))
        if begun != now:
            raise ValueError(
                f"{path.parent} trains the network {begun}, not {now}: resume with the same one, or choose another out_dir"
            )
    write(path, recipe)


def check(arguments: list[str]) -> int:
    """`python -m lib preflight --config RECIPE …`: the options of `train`; exit status 1 when the preflight fails.

    The images it learned by heart, with the people it then finds, are drawn into `out_dir` (runs/preflight).
    """
    cli = _parse(["--out_dir", "runs/preflight", *arguments], exit_on_error=True)
    report = preflight(cli.model, cli.datamodule)
    print(report)
    if report.people:
        picture = ROOT / cli.config.out_dir / "preflight.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        sheet = grid([draw_people(i, p, cli.datamodule.skeleton) for i, p in zip(report.inputs, report.people)])
        cv2.imwrite(str(picture), sheet[..., ::-1])
        print(f"pictures: {picture}")
    return 0 if report.passed else 1


def load_recipe(recipe: str | Path, overrides: Mapping[str, Any] | None = None) -> tuple[PoseModule, PoseData]:
    """The module and the data of a recipe, ready to look at, to preflight or to train with an own loop."""
    cli = _parse(_arguments(recipe, "runs/unused", overrides), exit_on_error=False)
    return cli.model, cli.datamodule


class History(Callback):
    """Keeps a row per epoch, writes `history.csv` and the best weights, and draws the curves where a notebook shows them."""

    def __init__(self, out_dir: Path, live: bool = False):
        self.out_dir, self.live = out_dir, live
        self.rows: list[dict] = []
        self._display = None
        self._start = time.monotonic()

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        self.rows = state["rows"]

    def on_train_epoch_end(self, trainer: lightning.Trainer, learner: PoseModule) -> None:
        values = {k: round(float(v), 6) for k, v in trainer.callback_metrics.items()}
        if trainer.sanity_checking or "AP" not in values or not trainer.is_global_zero:
            return
        best = max((row["AP"] for row in self.rows), default=-1.0)
        self.rows.append({"epoch": trainer.current_epoch + 1, "step": trainer.global_step,
                          "seconds": round(time.monotonic() - self._start, 1), **values})  # fmt: skip
        if values["AP"] >= best:
            info = {"AP": values["AP"], "epoch": trainer.current_epoch + 1}
            save_model(self.out_dir / "best.safetensors", learner.model(trainer.datamodule, **info))
        self._write()
        if self.live:
            self._draw()

    def _write(self) -> None:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with beside(self.out_dir / "history.csv") as writing, writing.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)

    def _draw(self) -> None:
        figure = plot_history(self.rows)
        if self._display is None:
            self._display = display(figure, display_id=True)
        else:
            self._display.update(figure)
        plt.close(figure)


def _arguments(recipe: str | Path, out_dir: str | Path, overrides: Mapping[str, Any] | None) -> list[str]:
    pairs = [f"--{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in (overrides or {}).items()]
    return ["--config", str(recipe), "--out_dir", str(out_dir), *pairs]


def _parse(arguments: list[str], exit_on_error: bool) -> _Cli:
    with tempfile.TemporaryDirectory() as folder:
        cli = _Cli(PoseModule, PoseData, args=_with_upstream_recipes(arguments, Path(folder)), run=False,
                    seed_everything_default=0, parser_class=_Parser, save_config_callback=None,
                    auto_configure_optimizers=False, parser_kwargs={"exit_on_error": exit_on_error, "allow_abbrev": False})  # fmt: skip
    check_fit(cli.model, cli.datamodule)
    return cli


def check_fit(learner: PoseModule, data: PoseData) -> None:
    """Raise ValueError where network, codec, input and mask do not fit each other, before anything is written."""
    model = learner.model(data)
    if data.train_set.mask_stride != model.codec.stride:
        raise ValueError(f"data.mask_stride is {data.train_set.mask_stride}, but the maps have stride {model.codec.stride}: "
                         "set both to the same")  # fmt: skip


def _with_upstream_recipes(arguments: list[str], folder: Path) -> list[str]:
    """Replace `--config upstream.json` by our recipe of it, written into `folder`."""
    arguments = [part for a in arguments for part in (a.split("=", 1) if a.startswith("--config=") else [a])]
    for i, argument in enumerate(arguments[1:], start=1):
        if arguments[i - 1] == "--config" and argument.endswith(".json"):
            recipe = folder / f"{Path(argument).stem}.yaml"
            recipe.write_text(yaml.safe_dump(recipe_from_upstream(argument)))
            arguments[i] = str(recipe)
    return arguments


class _Parser(LightningArgumentParser):
    """Says what is wrong in one sentence, with the nearest key where one is unknown; a ValueError in a notebook."""

    def error(self, message: str, ex: Exception | None = None):
        option = re.search(r"[Uu]nrecognized arguments: --([\w.]+)", message)
        member = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
        key = option.group(1) if option else ".".join(member.groups()) if member else None
        near = difflib.get_close_matches(key, [a.dest for a in self._actions], 1, cutoff=0.5) if key else ()
        message += f"; did you mean {near[0]!r}?" if near else ""
        if not self.exit_on_error:
            raise ValueError(message) from ex
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


class _Cli(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out_dir", type=str, required=True, help="folder of this run")
        parser.add_argument("--resume", type=bool, default=False, help="go on from out_dir/last.ckpt")
        parser.add_argument("--live", type=bool, default=False, help="draw the curves in the notebook while training")
        parser.link_arguments("data", "model.skeleton", compute_fn=lambda data: data.skeleton, apply_on="instantiate")

    def instantiate_trainer(self, **kwargs) -> lightning.Trainer:
        out_dir = ROOT / self.config.out_dir
        options = self.config.trainer
        if options.precision is None:
            options.precision = fastest_precision(options.accelerator)
        if options.logger is None:
            self.config_init.trainer.logger = [CSVLogger(out_dir, "logs"),
                                               TensorBoardLogger(out_dir, "logs")]  # fmt: skip
        self.config_init.trainer.precision = options.precision
        self.config_init.trainer.default_root_dir = str(out_dir)
        # one file that is written beside and moved: the run always has a whole one to resume from
        last = ModelCheckpoint(
            out_dir, "last", save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True
        )
        bar = [TQDMProgressBar(refresh_rate=10)] if options.enable_progress_bar is not False else []
        self.config_init.trainer.callbacks = [last, *bar]
        self.config_init.trainer.num_sanity_val_steps = options.num_sanity_val_steps or 0
        return super().instantiate_trainer(**kwargs)
