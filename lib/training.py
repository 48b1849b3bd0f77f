"""Run a recipe: `python -m lib train --config lib/recipes/NAME.yaml [--data.batch_size=8 …] [--resume=true]`.

A recipe has three parts, each checked key by key: `model` and `data` (see `lib.learner`) and `trainer` (Lightning's own
options). An upstream trt_pose configuration (.json) is accepted in its place. Some are trained in several `steps`, one run
each: see `lib.chain`.
"""

from __future__ import annotations

import copy
import csv
import difflib
import json
import logging
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping
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
        recipe: YAML file, or an upstream trt_pose JSON file; one with steps is trained by `lib.chain.train_steps`.
        out_dir: where everything is written; refused if it holds a finished or begun run, unless `resume`.
        overrides: dotted keys of the recipe, {"data.batch_size": 8}.
        resume: go on from `last.ckpt`, to the same weights as if nothing had happened.
        live: redraw the curves in the notebook after every epoch.

    Raises:
        ValueError: a key is unknown (the nearest one is named) or a value does not fit.
    """
    if count := len(read_recipe(recipe).get("steps", ())):
        raise ValueError(f"{recipe} is trained in {count} steps: lib.chain.train_steps(recipe, out_dir) trains them")
    arguments = _arguments(recipe, out_dir, overrides)
    arguments += [f"--resume={str(resume).lower()}", f"--live={str(live).lower()}"]
    return run(arguments, exit_on_error=False)


def run(arguments: list[str], exit_on_error: bool, curves: Curves | None = None) -> TrainingRun:
    """Train as command-line arguments say; see `train`.

    Args:
        arguments: `--config RECIPE --out_dir RUN` and the rest.
        exit_on_error: leave the program with status 2 at a wrong argument, instead of a ValueError.
        curves: to go on drawing, if they are live.
    """
    cli = parse(arguments, exit_on_error)
    out_dir, last = ROOT / cli.config.out_dir, ROOT / cli.config.out_dir / "last.ckpt"
    if last.exists() and not cli.config.resume:
        raise FileExistsError(
            f"{out_dir} holds a training run: pass resume (--resume=true) to go on, or another out_dir"
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    keep_recipe(out_dir / "recipe.yaml", cli.parser.dump(cli.config), resumed=last.exists())
    history = History(out_dir, (curves or Curves()) if cli.config.live else None)
    cli.trainer.callbacks.insert(0, history)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=last if last.exists() else None, weights_only=True)
    return TrainingRun(out_dir, history.rows, cli.model, cli.datamodule)


def keep_recipe(path: Path, recipe: str, resumed: bool) -> None:
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
    cli = parse(["--out_dir", "runs/preflight", *arguments], exit_on_error=True)
    report = preflight(cli.model, cli.datamodule)
    print(report)
    if report.people:
        picture = ROOT / cli.config.out_dir / "preflight.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        sheet = grid([draw_people(i, p, cli.datamodule.skeleton) for i, p in zip(report.inputs, report.people)])
        cv2.imwrite(str(picture), sheet[..., ::-1])
        print(f"pictures: {picture}")
    return 0 if report.passed else 1


def load_recipe(recipe: str | Path, overrides: Mapping[str, Any] | None = None,
                step: int | None = None) -> tuple[PoseModule, PoseData]:  # fmt: skip
    """The module and the data of a recipe (of one with steps: of the first, or of `step`).

    They are ready to look at, to preflight or to train with an own loop.
    """
    arguments = _arguments(recipe, "runs/unused", overrides) + (["--step", str(step)] if step is not None else [])
    cli = parse(arguments, exit_on_error=False)
    return cli.model, cli.datamodule


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


def joined(histories: Iterable[list[dict]]) -> list[dict]:
    """Histories of steps as one: `chain_step` counts them from 1, and epoch, step and seconds go on where the last ended."""
    rows = []
    for number, history in enumerate(histories, start=1):
        before = rows[-1] if rows else {}
        counted = {name: before.get(name, 0) for name in ("epoch", "step", "seconds")}
        rows += [{"chain_step": number, **row, **{name: row[name] + counted[name] for name in counted}} for row in history]
    return rows


class History(Callback):
    """Keeps a row per validation, writes `history.csv` and the best weights, and draws the curves in a notebook."""

    def __init__(self, out_dir: Path, curves: Curves | None = None):
        self.out_dir, self.curves = out_dir, curves
        self.rows: list[dict] = []
        self._validated = False
        self._start = time.monotonic()

    def state_dict(self) -> dict:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict) -> None:
        self.rows = state["rows"]
        self._start = time.monotonic() - (self.rows[-1]["seconds"] if self.rows else 0)

    def on_validation_end(self, trainer: lightning.Trainer, learner: PoseModule) -> None:
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: lightning.Trainer, learner: PoseModule) -> None:
        # the trainer remembers the figures of the last validation, also in epochs without one
        validated, self._validated = self._validated, False
        if not validated or not trainer.is_global_zero:
            return
        values = {k: round(float(v), 6) for k, v in trainer.callback_metrics.items()}
        best = max((row["AP"] for row in self.rows), default=-1.0)
        self.rows.append({"epoch": trainer.current_epoch + 1, "step": trainer.global_step,
                          "seconds": round(time.monotonic() - self._start, 1), **values})  # fmt: skip
        if values["AP"] >= best:
            info = {"AP": values["AP"], "epoch": trainer.current_epoch + 1}
            save_model(self.out_dir / "best.safetensors", learner.model(trainer.datamodule, **info))
        write_history(self.out_dir / "history.csv", self.rows)
        if self.curves:
            self.curves.draw(self.rows)


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


def override_arguments(overrides: Mapping[str, Any] | None) -> list[str]:
    """{"data.batch_size": 8} as the command line has it."""
    return [f"--{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in (overrides or {}).items()]


def _arguments(recipe: str | Path, out_dir: str | Path, overrides: Mapping[str, Any] | None) -> list[str]:
    return ["--config", str(recipe), "--out_dir", str(out_dir), *override_arguments(overrides)]


def parse(arguments: list[str], exit_on_error: bool) -> _Cli:
    """Module, data and trainer that arguments describe, checked; nothing is written."""
    with tempfile.TemporaryDirectory() as folder:
        cli = _Cli(PoseModule, PoseData, args=_with_plain_recipes(arguments, Path(folder)), run=False,
                    seed_everything_default=0, parser_class=_Parser, save_config_callback=None,
                    auto_configure_optimizers=False, parser_kwargs={"exit_on_error": exit_on_error, "allow_abbrev": False})  # fmt: skip
    check_fit(cli.model, cli.datamodule)
    every, epochs = cli.config.trainer.check_val_every_n_epoch, cli.config.trainer.max_epochs
    if every and epochs and 0 < epochs < every:
        raise ValueError(f"trainer.max_epochs is {epochs}, but only every {every}th epoch is validated "
                         "(trainer.check_val_every_n_epoch): there would be no best weights")  # fmt: skip
    return cli


def check_fit(learner: PoseModule, data: PoseData) -> None:
    """Raise ValueError where network, codec, input and mask do not fit each other, before anything is written."""
    model = learner.model(data)
    if data.train_set.mask_stride != model.codec.stride:
        raise ValueError(f"data.mask_stride is {data.train_set.mask_stride}, but the maps have stride {model.codec.stride}: "
                         "set both to the same")  # fmt: skip


def read_recipe(path: str | Path) -> dict:
    """What stands in a recipe, or the recipe which an upstream trt_pose configuration (.json) amounts to.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a recipe.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such recipe; ours lie in lib/recipes")
    if path.suffix == ".json":
        return recipe_from_upstream(path)
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("steps", []), list):
        raise ValueError(f"{path} is not a recipe: it needs the keys model, data and trainer, and `steps` are a list")
    return content


def of_step(recipe: dict, step: int | None, source: str | Path) -> dict:
    """One step of a recipe, by itself: what all have in common, changed by the step's dotted keys.

    Args:
        recipe: as `read_recipe` gives it.
        step: counted from 1; None: the first, or all of a recipe without steps.
        source: what errors call it.
    """
    common = copy.deepcopy(recipe)
    steps = common.pop("steps", [])
    if step is not None and not 1 <= step <= len(steps):
        there = f"it has the steps 1 to {len(steps)}" if steps else "it is trained in one run, leave the step out"
        raise ValueError(f"{source} has no step {step}: {there}")
    for key, value in (steps[(step or 1) - 1] if steps else {}).items():
        *parents, last = key.split(".")
        if not parents:
            raise ValueError(f"{source}, step {step or 1}: {key!r} is no dotted key like model.network.num_channels")
        group = common
        for parent in parents:
            group = group.setdefault(parent, {})
        group[last] = value
    return common


def _with_plain_recipes(arguments: list[str], folder: Path) -> list[str]:
    """Replace upstream configurations, and recipes of which `--step` takes one step, by plain recipes in `folder`."""
    arguments, step = list(arguments), None
    arguments = [part for a in arguments for part in (a.split("=", 1) if a.startswith(("--config=", "--step=")) else [a])]
    if "--step" in arguments:
        place = arguments.index("--step")
        step = _step_number((arguments[place + 1 : place + 2] or [""])[0])
        del arguments[place : place + 2]
    for i, argument in enumerate(arguments[1:], start=1):
        if arguments[i - 1] == "--config" and Path(argument).is_file():
            content = read_recipe(argument)
            if argument.endswith(".json") or "steps" in content or step is not None:
                recipe = folder / f"{Path(argument).stem}.yaml"
                recipe.write_text(yaml.safe_dump(of_step(content, step, argument), sort_keys=False))
                arguments[i] = str(recipe)
    return arguments


def _step_number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"--step is the number of one step here, not {text!r}")
    return int(text)


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
        parser.add_argument("--step", type=str, help="of a recipe with steps: a number, or all (the default)")
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
