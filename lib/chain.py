"""Training in steps, each from the best weights of the one before it:

`python -m lib train --config lib/recipes/lightweight_openpose.yaml --step 1|2|3|all --out_dir RUN [--model.…=…]`.

A recipe may end with `steps:`, a list with the dotted keys in which each step differs from what stands above it. A step may
be another recipe (`recipe: hrnet_w32.yaml`), changed by its dotted keys. Step N writes into RUN/stepN and starts from
RUN/step(N−1)/best.safetensors, the weights of the highest AP (or of the best classifier). `--data.num_workers=4` is for every
step, `--step2.data.data_dir=…` for one.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from lib import ROOT, distributed, files
from lib.checkpoints import load_weights
from lib.history import Curves, best_row, joined, read_history, write_history
from lib.learner import PoseData, PoseModule, decode, to_results
from lib.training import TrainingRun, override_arguments, parse, read_recipe, run


def train_steps(recipe: str | Path, out_dir: str | Path, steps: str | int = "all",
                overrides: Mapping[str, Any] | None = None, resume: bool = False, live: bool = False) -> list[TrainingRun]:  # fmt: skip
    """Train one step of a recipe, or all of them one after the other.

    All wanted steps are checked before the first begins. A step that was finished is not trained again, and a line says so.
    `out_dir/history.csv` holds the curves of all steps (see `lib.training.joined`).

    Args:
        recipe: YAML file with `steps`.
        out_dir: every step gets a folder in it.
        steps: "all", or the number of one, counted from 1.
        overrides: dotted keys of the recipe, for every step, or behind `step2.` for one. `model.initial_weights` is where the
            first wanted step starts.
        resume: go on in the step that was interrupted, to the same weights as if nothing had happened.
        live: redraw the curves in the notebook after every validation.

    Returns:
        A run for every wanted step.

    Raises:
        ValueError: no such step; or a key is unknown or a value does not fit, in any of the steps.
        FileNotFoundError: the weights of the step before are missing, with the command that makes them.
        FileExistsError: a step was begun, and `resume` was not said.
    """
    flags = [f"--resume={str(resume).lower()}", f"--live={str(live).lower()}"]
    return _train(Path(recipe), ROOT / out_dir, str(steps), [*override_arguments(overrides), *flags])


@torch.inference_mode()
def score_stages(learner: PoseModule, data: PoseData) -> list[dict[str, float]]:
    """COCO's figures of every stage of a network with refinement, the first guess first: what does refining bring?"""
    learner.eval()
    found: list[list[dict]] = []
    for batch in tqdm(data.val_dataloader(), desc="stages", unit="batch"):
        stages = learner.network.stages(batch["images"].float().to(learner.device))
        found = found or [[] for _ in stages]
        for results, maps in zip(found, stages, strict=True):
            results += to_results(decode(maps, learner.codec), batch)
    return [data.scorer(results) for results in found]


def main(arguments: list[str]) -> int:
    """`python -m lib train --config RECIPE --out_dir RUN [--step=2] [--data.batch_size=8 …] [--resume=true]`.

    Returns 0.
    """
    distributed.quiet_unless_main()
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("--config", "--out_dir", "--step"):
        parser.add_argument(name)
    chosen, others = parser.parse_known_args(arguments)
    plain = chosen.config is None or chosen.out_dir is None or {"-h", "--help"} & {*others}
    with distributed.one_voice():
        if plain or (chosen.step is None and "steps" not in read_recipe(chosen.config)):
            runs = [run(arguments)]
        else:
            wanted = "all" if chosen.step is None else chosen.step
            runs = _train(Path(chosen.config), ROOT / chosen.out_dir, wanted, others)
    for finished in runs if distributed.is_main() else ():  # the others keep no history
        if not finished.history:
            print(f"no epoch was validated, so there are no best weights: {finished.out_dir}")
            continue
        name = finished.learner.best_by
        best = best_row(finished.history, name)
        print(f"best {name} {best[name]:.3f} in epoch {best['epoch']}: {finished.best}")
    return 0


def _train(recipe: Path, out_dir: Path, wanted: str, given: list[str]) -> list[TrainingRun]:
    count = len(read_recipe(recipe).get("steps", ()))
    numbers, others = _numbers(recipe, wanted, count), _by_step(given, count)
    arguments = {n: ["--config", str(recipe), "--step", str(n), "--out_dir", str(_folder(out_dir, n))] for n in numbers}
    # a slip in the last step is said today, not after days of training the first
    parsed = {n: _parsed(n, count, [*arguments[n], *others[n]]) for n in numbers}
    curves, runs = Curves(), []
    for n in range(1, numbers[0]):
        history = _folder(out_dir, n) / "history.csv"
        curves.earlier.append(read_history(history) if history.is_file() else [])
    for n in numbers:
        folder = _folder(out_dir, n)
        epochs = parsed[n].config.trainer.max_epochs
        if _finished(folder, epochs):
            print(f"step {n} of {count} is finished, {epochs} epochs: {folder}")
            runs.append(_read_run(folder, parsed[n]))
        else:
            start = _start(recipe, out_dir, n, others[n]) if n > 1 else []
            print(f"step {n} of {count}: {folder}", flush=True)
            # where a chain is entered the user may say where to start; later steps follow the ones before
            rest = [*start, *others[n]] if n == numbers[0] else [*others[n], *start]
            runs.append(run([*arguments[n], *rest], curves=curves))
            if distributed.is_main():
                files.write(folder / "finished.json", json.dumps({"epochs": epochs}))
        curves.earlier.append(runs[-1].history)
        if distributed.is_main():
            write_history(out_dir / "history.csv", joined(curves.earlier))
    return runs


def _parsed(step: int, count: int, arguments: list[str]):
    try:
        return parse(arguments)
    except (ValueError, KeyError) as error:
        raise ValueError(f"step {step} of {count}: {error.args[0] if len(error.args) == 1 else error}") from error


def _by_step(arguments: Sequence[str], count: int) -> dict[int, list[str]]:
    """The arguments of every step: its own (`--step2.data.seed=1`) behind those of all.

    Raises:
        ValueError: there is no such step.
    """
    shared, own, taken = [], {n: [] for n in range(1, count + 1)}, None
    for argument in arguments:
        named = re.match(r"--step(\d+)\.(.+)", argument)
        if named and int(named[1]) not in own:
            raise ValueError(f"{argument}: there are only the steps 1 to {count}")
        # what follows a key without "=" is its value
        taken = int(named[1]) if named else None if argument.startswith("--") else taken
        (own[taken] if taken else shared).append(f"--{named[2]}" if named else argument)
    return {n: [*shared, *own[n]] for n in own}


def _numbers(recipe: Path, wanted: str, count: int) -> list[int]:
    if not count:
        raise ValueError(f"{recipe} has no steps, it is trained in one run: leave --step out")
    if wanted == "all":
        return list(range(1, count + 1))
    if not wanted.isdecimal() or not 1 <= int(wanted) <= count:
        raise ValueError(f"{recipe} has no step {wanted!r}: choose 1 to {count}, or all")
    return [int(wanted)]


def _folder(out_dir: Path, step: int) -> Path:
    return out_dir / f"step{step}"


def _start(recipe: Path, out_dir: Path, step: int, others: Sequence[str]) -> list[str]:
    """The argument that begins a step with the best weights of the one before."""
    best = _folder(out_dir, step - 1) / "best.safetensors"
    if not best.is_file() and not any(o.startswith("--model.initial_weights") for o in others):
        raise FileNotFoundError(f"{best}: step {step} starts from the best weights of step {step - 1}, which are not there; "
                                f"`python -m lib train --config {recipe} --step {step - 1} --out_dir {out_dir}` "
                                "makes them")  # fmt: skip
    return [f"--model.initial_weights={best}"]


def _finished(folder: Path, epochs: int) -> bool:
    """Whether a step was trained to its end; one that is to be longer now was not."""
    done = folder / "finished.json"
    return done.is_file() and json.loads(done.read_text())["epochs"] >= epochs


def _read_run(folder: Path, cli) -> TrainingRun:
    load_weights(cli.model.network, folder / "best.safetensors")
    return TrainingRun(folder, read_history(folder / "history.csv"), cli.model, cli.datamodule)
