"""Runs kept in MLflow, to be compared in its web page: parameters, figures of every epoch, pictures, the best checkpoint.

`make mlflow` starts a server on this machine (http://127.0.0.1:5000, its data in runs/mlflow); `--mlflow http://127.0.0.1:5000`
sends a training to it, `--mlflow local` writes into the same data without a server. A resumed training goes on in its run.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
import urllib.request
import warnings
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from lib import ROOT
from lib.files import write
from lib.history import History
from lib.learning import Learner
from lib.metric_curves import COUNTS

LOCAL, SQLITE = "runs/mlflow", "sqlite:///"
NOTE = "mlflow.json"  # in the folder of a run: where it is kept
ONCE = ("recipe.yaml", "model_summary.txt")
GROWING = ("metrics.yaml", "metrics.html", "metrics.png", "history.csv", "train.log")
NO_PARAMETERS = ("resume", "live")  # they say nothing about what comes out
PARAMETERS_AT_ONCE, LONGEST_PARAMETER = 100, 500
# how long a server may be silent: it must not hold up a training
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


class Experiment(Callback):
    """One run of MLflow beside a run of ours.

    Args:
        out_dir: folder of the run; `mlflow.json` in it says which run of MLflow belongs to it.
        where: address of a server; "local" for what the server of `make mlflow` shows, without it; or a folder.
        experiment: its name; runs of one experiment are compared with each other.
        recipe: parameters, by dotted key.
        history: the rows are its.

    Raises:
        RuntimeError: MLflow is not installed, or no server answers.
        ValueError: the folder's run is kept in another place.

    A server that goes away during a training does not end it: a warning says so, and what it missed is sent with the next
    epoch.
    """

    def __init__(self, out_dir: Path, where: str, experiment: str, recipe: Mapping[str, Any], history: History):
        self.out_dir, self.history = out_dir, history
        self.recipe = {k: str(value)[:LONGEST_PARAMETER] for k, value in recipe.items() if k not in NO_PARAMETERS}
        self.address, self.experiment, self._note = address_of(where), experiment, out_dir / NOTE
        begun = json.loads(self._note.read_text()) if self._note.is_file() else {}
        if begun and begun["address"] != self.address:
            raise ValueError(f"{out_dir} is kept at {begun['address']}, not at {self.address}: resume it there, or delete "
                             f"{NOTE} in it to begin another run of MLflow")  # fmt: skip
        self._run_id, self._last = begun.get("run_id"), 0  # the last epoch that is there
        self._client = client_of(self.address)

    def on_fit_start(self, trainer: lightning.Trainer, learner: Learner) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._begin(learner)
            page = self.page()
        except MlflowException as error:
            raise RuntimeError(f"MLflow at {self.address} does not take the run: {error}") from error
        if page:
            print(f"MLflow: {page}")
        with self._patient():
            for name in ONCE:
                self._upload(self.out_dir / name)
            self._upload(self.out_dir / "data_examples", "data_examples")

    def on_train_epoch_end(self, trainer: lightning.Trainer, learner: Learner) -> None:
        if self._missing():
            with self._patient():
                self._send_rows()

    def on_fit_end(self, trainer: lightning.Trainer, learner: Learner) -> None:
        with self._patient():
            self._send_rows()
            self._upload(self.out_dir / "best.safetensors")
            self._client.set_terminated(self._run_id, "FINISHED")

    def on_exception(self, trainer: lightning.Trainer, learner: Learner, exception: BaseException) -> None:
        if self._run_id:
            with self._patient():
                self._client.set_terminated(self._run_id, "KILLED" if isinstance(exception, KeyboardInterrupt) else "FAILED")

    def page(self) -> str | None:
        """Address of the run's page, which a server has; without the last part MLflow shows its menus for chat bots."""
        if not self.address.startswith("http"):
            return None
        number = self._client.get_run(self._run_id).info.experiment_id
        return f"{self.address}/#/experiments/{number}/runs/{self._run_id}?workflowType=machine_learning"

    def _begin(self, learner: Learner) -> None:
        """Go on in the run that the folder names, or begin one; parameters that a resumed run changed become tags."""
        client = self._client
        if self._run_id:
            client.update_run(self._run_id, status="RUNNING")
            there = client.get_run(self._run_id).data.params
            for key, value in self.recipe.items():
                if there.get(key, value) != value:
                    client.set_tag(self._run_id, f"resumed.{key}", value)
            seen = client.get_metric_history(self._run_id, f"val/{learner.best_by}")
            self._last = max((metric.step for metric in seen), default=0)
            return
        found = client.get_experiment_by_name(self.experiment)
        if found is None:
            # a server knows where its files go
            database = Path(self.address.removeprefix(SQLITE))
            place = {} if self.address.startswith("http") else {"artifact_location": (database.parent / "artifacts").as_uri()}
            number = client.create_experiment(self.experiment, **place)
        else:
            number = found.experiment_id
        name = "/".join(self.out_dir.parts[-2:]) if self.out_dir.name.startswith("step") else self.out_dir.name
        self._run_id = client.create_run(number, run_name=name).info.run_id
        write(self._note, json.dumps({"address": self.address, "experiment": self.experiment, "run_id": self._run_id}))
        from mlflow.entities import Param

        parameters = [Param(key, value) for key, value in self.recipe.items()]
        for start in range(0, len(parameters), PARAMETERS_AT_ONCE):
            client.log_batch(self._run_id, params=parameters[start : start + PARAMETERS_AT_ONCE])

    def _missing(self) -> list[dict]:
        # an epoch that was killed behind its validation is trained again: it is there already
        return [row for row in self.history.rows if row["epoch"] > self._last]

    def _send_rows(self) -> None:
        from mlflow.entities import Metric

        for row in self._missing():
            now = int(1000 * (time.time() - self.history.rows[-1]["seconds"] + row["seconds"]))
            metrics = [Metric(metric_name(name), value, now, row["epoch"]) for name, value in row.items() if name not in COUNTS]
            self._client.log_batch(self._run_id, metrics=metrics)
            self._upload(self.out_dir / f"eval_examples/epoch_{row['epoch']:04}.jpg", "eval_examples")
            self._last = row["epoch"]
        for name in GROWING:
            self._upload(self.out_dir / name)

    def _upload(self, path: Path, folder: str | None = None) -> None:
        if path.is_dir():
            self._client.log_artifacts(self._run_id, str(path), folder)
        elif path.is_file():
            self._client.log_artifact(self._run_id, str(path), folder)

    @contextmanager
    def _patient(self):
        """A store that does not answer now is told later."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:
            warnings.warn(f"MLflow at {self.address} does not answer ({error}); what it misses is sent after the next epoch, "
                          f"and all of it lies in {self.out_dir}", stacklevel=3)  # fmt: skip


def address_of(where: str) -> str:
    """The address of a server as it is; else that of the database in a folder ("local": runs/mlflow).

    Raises:
        ValueError: it looks like the address of a server, but lacks the http.
    """
    if "://" in where:
        return where.rstrip("/")
    if re.match(r"[\w.-]+:\d+\b", where):
        raise ValueError(f"--mlflow {where} is neither local nor a folder; a server's address begins with http://")
    return f"{SQLITE}{ROOT / (LOCAL if where == 'local' else where) / 'mlflow.db'}"


def client_of(address: str) -> Any:
    """A client of an MLflow that is there.

    Raises:
        RuntimeError: MLflow is not installed, or without what a local store needs, or no server answers.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise RuntimeError("MLflow is not installed: pip install -e '.[mlflow]', or leave --mlflow out") from None
    if address.startswith("http"):
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
                answer.read()
        except OSError as error:
            raise RuntimeError(f"no MLflow server answers at {address} ({error}): start one with `make mlflow`, or keep the run "
                               "without a server: --mlflow local") from None  # fmt: skip
    elif address.startswith(SQLITE):
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # tells of tables that it makes
        Path(address.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    try:
        client = MlflowClient(address)
        client.search_experiments(max_results=1)
    except ImportError as error:
        raise RuntimeError(f"MLflow cannot use {address} ({error}): without a server it needs all of MLflow, not "
                           "mlflow-skinny: pip install -e '.[mlflow]'") from None  # fmt: skip
    except MlflowException as error:
        raise RuntimeError(f"MLflow cannot use {address}: {error}") from None
    return client


def metric_name(column: str) -> str:
    """The column of a history as MLflow groups it: train/loss, val/AP."""
    split, _, rest = column.partition("_")
    if split in ("train", "val") and rest:
        return f"{split}/{rest}"
    return column if column == "learning_rate" else f"val/{column}"


def flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"data": {"seed": 0}} as {"data.seed": 0}, without what is empty."""
    found = {}
    for key, value in recipe.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif value is not None:
            found[name] = value
    return found
