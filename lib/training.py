"""Run a recipe: `python -m lib train --config lib/recipes/NAME.yaml [--data.batch_size=8 …] [--resume=true]`.

A recipe has three parts, each checked key by key: `model` and `data` (see `lib.learner`; of a classifier, `lib.classify`) and
`trainer` (Lightning's own options). The original's configuration of trt_pose (.json) or DeeperCut (pose_cfg.yaml) is accepted in
its place. Some are trained in several `steps`, one run each: see `lib.chain`. On several devices: `torchrun --standalone
--nproc_per_node=N -m lib train …`.
"""

from __future__ import annotations

import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lib import ROOT, distributed
from lib.arguments import OneSentence, WrongArguments, plain
from lib.classify import ClassifierModule, ImageNetData
from lib.draw import draw_people, grid, save_picture
from lib.experiments import NOTE, Experiment, flat
from lib.files import write
from lib.history import Curves, History
from lib.learner import PoseData, PoseModule
from lib.learning import Learner, fastest_precision
from lib.models import CLASSIFIERS
from lib.models.deepercut_recipe import is_pose_cfg, recipe_from_pose_cfg
from lib.models.trt_pose_recipe import recipe_from_upstream
from lib.preflight import preflight
from lib.results import Results

# said by the libraries about each other, with nothing in it for the user
for _message in ("LightningCLI's args parameter", "Checkpoint directory .* exists", ".*LeafSpec", ".*log_every_n_steps",
                 ".*does not have many workers", ".*was deprecated in v4", ".*skip_none parameter",
                 ".*in eval mode at the start of training", ".*recommended to use .*sync_dist"):  # fmt: skip
    warnings.filterwarnings("ignore", message=f"(?s)\\s*{_message}")
for _name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)


PROGRAM = "python -m lib train"
USAGE = f"{PROGRAM} --config RECIPE --out_dir RUN [--resume=true] [--GROUP.KEY=VALUE …]"
DESCRIPTION = ("Every key of a recipe is an option here, and what is given here comes before what the recipe says. "
               "`preflight` takes the same ones.")  # fmt: skip


@dataclass
class TrainingRun:
    """What a training run left behind.

    Attributes:
        out_dir: folder with `best.safetensors`, `last.ckpt` (for resuming), `recipe.yaml`, and what `lib.results` adds.
        history: one row per validation: epoch, step, seconds, train_loss, val_loss, AP and the other COCO figures (of a
            classifier: top1 and top5).
        learner, data: the trained module and its data.
    """

    out_dir: Path
    history: list[dict]
    learner: Learner
    data: lightning.LightningDataModule

    @property
    def best(self) -> Path:
        """The weights of the epoch with the highest AP (or top1)."""
        return self.out_dir / "best.safetensors"


def train(recipe: str | Path, out_dir: str | Path, overrides: Mapping[str, Any] | None = None, resume: bool = False,
          live: bool = False, callbacks: Sequence[Callback] = ()) -> TrainingRun:  # fmt: skip
    """Train as a recipe says.

    Args:
        recipe: YAML file, or an upstream trt_pose JSON file; one with steps is trained by `lib.chain.train_steps`.
        out_dir: where everything is written; refused if it holds a finished or begun run, unless `resume`.
        overrides: dotted keys of the recipe, {"data.batch_size": 8}.
        resume: go on from `last.ckpt`, to the same weights as if nothing had happened.
        live: redraw the curves in the notebook after every epoch.
        callbacks: further ones of Lightning, to watch the training.

    Raises:
        ValueError: a key is unknown (the nearest one is named) or a value does not fit.
        KeyboardInterrupt: after Ctrl-C, with a sentence about how to go on.
    """
    if count := len(read_recipe(recipe).get("steps", ())):
        raise ValueError(f"{recipe} is trained in {count} steps: lib.chain.train_steps(recipe, out_dir) trains them")
    arguments = _arguments(recipe, out_dir, overrides)
    arguments += [f"--resume={str(resume).lower()}", f"--live={str(live).lower()}"]
    return run(arguments, callbacks=callbacks)


def run(arguments: list[str], curves: Curves | None = None, callbacks: Sequence[Callback] = ()) -> TrainingRun:
    """Train as command-line arguments say; see `train`.

    Args:
        arguments: `--config RECIPE --out_dir RUN` and the rest.
        curves: to go on drawing, if they are live.
        callbacks: further ones of Lightning.
    """
    cli = parse(arguments)
    out_dir, last = ROOT / cli.config.out_dir, ROOT / cli.config.out_dir / "last.ckpt"
    if last.exists() and not cli.config.resume:
        raise FileExistsError(
            f"{out_dir} holds a training run: pass resume (--resume=true) to go on, or another out_dir"
        )
    recipe = cli.parser.dump(cli.config)
    check_same_network(out_dir / "recipe.yaml", recipe, resumed=last.exists())
    history = History(out_dir, (curves or Curves()) if cli.config.live else None)
    callbacks = [history, *callbacks]
    if distributed.is_main():
        callbacks += _keepers(cli, out_dir, recipe, history)
        write(out_dir / "recipe.yaml", recipe)
    cli.trainer.callbacks[:0] = callbacks
    try:
        cli.trainer.fit(
            cli.model, datamodule=cli.datamodule, ckpt_path=last if last.exists() else None, weights_only=True
        )
    except RuntimeError as error:
        if not distributed.lost_another(error):
            raise
        raise distributed.ProcessLost(f"another process of this training ended, so this one ends, too ({error}); torchrun "
                                      f"says below which: {_what_goes_on(last)}") from error  # fmt: skip
    except SystemExit:  # so Lightning ends after Ctrl-C, without a word
        raise KeyboardInterrupt(_what_goes_on(last)) from None
    return TrainingRun(out_dir, history.rows, cli.model, cli.datamodule)


def _what_goes_on(last: Path) -> str:
    how = f"with --resume=true goes on from {last}" if last.exists() else "begins again, no epoch was finished"
    return f"the same command {how}"


def check_same_network(path: Path, recipe: str, resumed: bool) -> None:
    """Raise ValueError where a run is to be resumed with another network than its recipe says it began with."""
    if resumed and path.exists():
        begun, now = (yaml.safe_load(text)["model"]["network"] for text in (path.read_text(), recipe))
        if begun != now:
            raise ValueError(
                f"{path.parent} trains the network {begun}, not {now}: resume with the same one, or choose another out_dir"
            )


def _keepers(cli: _Cli, out_dir: Path, recipe: str, history: History) -> list:
    """What fills the folder of a run, and its run in MLflow if there is to be one."""
    resumed = (out_dir / "last.ckpt").exists()
    keepers = [Results(out_dir, history, "resumed" if resumed else "begun")]
    where = cli.config.mlflow
    if where is None and cli.config.resume and (out_dir / NOTE).is_file():
        where = json.loads((out_dir / NOTE).read_text())["address"]
    if where:
        name = cli.config.experiment or ("debug" if cli.config.limit_batches else type(cli.model.network).__name__)
        keepers.append(Experiment(out_dir, where, name, flat(yaml.safe_load(recipe)), history))
    return keepers


def check(arguments: list[str]) -> int:
    """`python -m lib preflight --config RECIPE …`: the options of `train`; exit status 1 when the preflight fails.

    The images it learned by heart, with the people it then finds, are drawn into `out_dir` (runs/preflight).
    """
    cli = parse(["--out_dir", "runs/preflight", *arguments])
    if not isinstance(cli.model, PoseModule):
        raise ValueError(f"preflight looks for people, {type(cli.model.network).__name__} is a classifier: train it with "
                         "--data.limit_train=50 for a first look")  # fmt: skip
    report = preflight(cli.model, cli.datamodule)
    print(report)
    if report.people:
        sheet = grid([draw_people(i, p, cli.datamodule.skeleton) for i, p in zip(report.inputs, report.people)])
        print(f"pictures: {save_picture(ROOT / cli.config.out_dir / 'preflight.png', sheet)}")
    return 0 if report.passed else 1


def load_recipe(recipe: str | Path, overrides: Mapping[str, Any] | None = None,
                step: int | None = None) -> tuple[Learner, lightning.LightningDataModule]:  # fmt: skip
    """The module and the data of a recipe (of one with steps: of the first, or of `step`).

    They are ready to look at, to preflight or to train with an own loop.
    """
    arguments = _arguments(recipe, "runs/unused", overrides) + (["--step", str(step)] if step is not None else [])
    cli = parse(arguments)
    return cli.model, cli.datamodule


def override_arguments(overrides: Mapping[str, Any] | None) -> list[str]:
    """{"data.batch_size": 8} as the command line has it."""
    return [f"--{key}={v if isinstance(v, str) else json.dumps(v)}" for key, v in (overrides or {}).items()]


def _arguments(recipe: str | Path, out_dir: str | Path, overrides: Mapping[str, Any] | None) -> list[str]:
    return ["--config", str(recipe), "--out_dir", str(out_dir), *override_arguments(overrides)]


def parse(arguments: list[str]) -> _Cli:
    """Module, data and trainer that arguments describe, checked; nothing is written. ValueError where they do not fit."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = _with_plain_recipes(arguments, Path(folder))
        classes = (ClassifierModule, ImageNetData) if _network(arguments) in CLASSIFIERS else (PoseModule, PoseData)
        options = {"prog": PROGRAM, "exit_on_error": False, "allow_abbrev": False, "description": DESCRIPTION, "usage": USAGE}
        try:
            cli = _Cli(*classes, args=arguments, run=False, seed_everything_default=0, parser_class=_Parser,
                       save_config_callback=None, auto_configure_optimizers=False, parser_kwargs=options)  # fmt: skip
        except WrongArguments:
            raise
        except (ValueError, KeyError) as error:  # of a class that cannot take what it was given
            raise ValueError(plain(str(error.args[0]))) from error
        except MisconfigurationException as error:
            raise ValueError(f"Lightning cannot train with these options of the trainer: {error}") from error
    if isinstance(cli.model, PoseModule):
        check_fit(cli.model, cli.datamodule)
        cli.model.look_at(cli.datamodule)
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
    """What stands in a recipe, or the recipe which the original's configuration of trt_pose or DeeperCut amounts to.

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
    if is_pose_cfg(content):
        return recipe_from_pose_cfg(path)
    if not isinstance(content, dict) or not isinstance(content.get("steps", []), list):
        raise ValueError(f"{path} is not a recipe: it needs the keys model, data and trainer, and `steps` are a list")
    return content


def of_step(recipe: dict, step: int | None, source: str | Path) -> dict:
    """One step of a recipe, by itself: what all have in common, changed by the step's dotted keys.

    A step that names another recipe (`recipe: hrnet_w32.yaml`, beside this one) is that one, changed by both.

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
    changes = dict(steps[(step or 1) - 1]) if steps else {}
    if named := changes.pop("recipe", None):
        base = read_recipe(Path(source).parent / named)
        if "steps" in base:
            raise ValueError(f"{source}, step {step or 1}: {named} has steps itself; name a recipe without")
        changes, common = flat(common) | changes, base
    for key, value in changes.items():
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
            if "steps" in content or step is not None or content != yaml.safe_load(Path(argument).read_text()):
                recipe = folder / f"{Path(argument).stem}.yaml"
                recipe.write_text(yaml.safe_dump(of_step(content, step, argument), sort_keys=False))
                arguments[i] = str(recipe)
    return arguments


def _network(arguments: list[str]) -> str | None:
    """The name of the network that arguments or their recipes give; the last one counts."""
    name = None
    for i, argument in enumerate(arguments):
        key, _, value = argument.partition("=")
        value = value or (arguments[i + 1] if i + 1 < len(arguments) else "")
        if key == "--model.network.name":
            name = value
        elif key == "--config" and Path(value).is_file():
            network = (read_recipe(value).get("model") or {}).get("network")
            name = network.get("name", name) if isinstance(network, dict) else name
    return name


def _step_number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"--step is the number of one step here, not {text!r}")
    return int(text)


def _listed(given: Any) -> list:
    return [] if given is None else [*given] if isinstance(given, (list, tuple)) else [given]


class _Parser(OneSentence, LightningArgumentParser):
    """Lightning's, whose errors are one sentence."""


class _Cli(LightningCLI):
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out_dir", type=str, required=True, help="folder of this run")
        parser.add_argument("--resume", type=bool, default=False, help="go on from out_dir/last.ckpt")
        parser.add_argument("--step", type=str, help="of a recipe with steps: a number, or all (the default)")
        parser.add_argument("--live", type=bool, default=False, help="draw the curves in the notebook while training")
        parser.add_argument("--limit_batches", type=int, help="so many batches in every epoch and validation, to look for faults")
        parser.add_argument("--mlflow", type=str, help="keep the run in MLflow: the address of a server (make mlflow starts "
                            "http://127.0.0.1:5000), local for the same data without one, or a folder")  # fmt: skip
        parser.add_argument("--experiment", type=str, help="its name in MLflow; by default that of the network, or debug")
        given = "classes" if self.model_class is ClassifierModule else "skeleton"
        parser.link_arguments(
            "data", f"model.{given}", compute_fn=lambda data: getattr(data, given), apply_on="instantiate"
        )

    def instantiate_trainer(self, **kwargs) -> lightning.Trainer:
        out_dir, options, chosen = ROOT / self.config.out_dir, self.config.trainer, self.config_init.trainer
        for name, value in distributed.place(options).items():
            chosen[name] = value
        if options.precision is None:
            options.precision = fastest_precision(options.accelerator)
        chosen.precision = options.precision
        if self.config.limit_batches is not None:
            if self.config.limit_batches < 1:
                raise ValueError(f"limit_batches is {self.config.limit_batches}: leave it out to take all of them")
            chosen.limit_train_batches = chosen.limit_val_batches = self.config.limit_batches
        if options.logger is None:
            version = len([*(out_dir / "logs").glob("version_*")])
            chosen.logger = [kind(out_dir, "logs", version=version) for kind in (CSVLogger, TensorBoardLogger)]
        chosen.default_root_dir = str(out_dir)
        # one file that is written beside and moved: the run always has a whole one to resume from
        last = ModelCheckpoint(
            out_dir, "last", save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True
        )
        bar = [TQDMProgressBar(refresh_rate=10)] if options.enable_progress_bar is not False else []
        chosen.callbacks = [*_listed(chosen.callbacks), last, *bar]
        chosen.plugins = [*_listed(chosen.plugins), distributed.WholeFiles()]
        chosen.num_sanity_val_steps = options.num_sanity_val_steps or 0
        return super().instantiate_trainer(**kwargs)
