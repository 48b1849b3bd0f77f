"""MLflow: what a run leaves there, at a real server and without one; a resumed run goes on; a server may be away for a while."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from types import SimpleNamespace

import pytest

from lib import ROOT
from lib.data.synthetic import write_dataset
from lib.experiments import Experiment, address_of, flat, metric_name
from lib.training import train

mlflow = pytest.importorskip("mlflow")
MlflowException = pytest.importorskip("mlflow.exceptions").MlflowException
pytest.importorskip("sqlalchemy", reason="mlflow-skinny has neither a server nor a local store")
LEARNER = SimpleNamespace(best_by="AP")
RECIPE = {"data.batch_size": 8, "model.network.name": "DotNet"}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> str:
    """The address of a server as `make mlflow` starts it, on a free port."""
    folder, address = tmp_path_factory.mktemp("server"), f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--no-serve-artifacts",
               "--default-artifact-root", f"{folder}/artifacts"]  # fmt: skip
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(command, env=os.environ | quiet, cwd=folder, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    deadline = time.monotonic() + 300
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                break
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, "the server does not start"
            time.sleep(0.1)
    yield address
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def row(epoch: int) -> dict:
    return {"epoch": epoch, "step": 2 * epoch, "seconds": float(epoch), "train_loss": 1 / epoch, "AP": epoch / 10}


def folder_of_a_run(folder, epochs: int):
    (folder / "data_examples").mkdir(parents=True, exist_ok=True)
    (folder / "eval_examples").mkdir(exist_ok=True)
    for name in ("recipe.yaml", "model_summary.txt", "data_examples/train.jpg", "metrics.html", "best.safetensors",
                 *(f"eval_examples/epoch_{epoch:04}.jpg" for epoch in range(1, epochs + 1))):  # fmt: skip
        (folder / name).write_bytes(name.encode())
    return folder


def artifacts(client, run_id: str) -> set[str]:
    top = client.list_artifacts(run_id)
    return {file.path for entry in top for file in (client.list_artifacts(run_id, entry.path) if entry.is_dir else [entry])}


def points(client, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, name)]


def test_a_run_at_a_server_and_its_resume(server, tmp_path, capsys):
    out_dir = folder_of_a_run(tmp_path / "mine", 3)
    history = SimpleNamespace(rows=[])
    experiment = Experiment(out_dir, server, "dots", RECIPE, history)
    experiment.on_fit_start(None, LEARNER)
    for epoch in (1, 2):
        history.rows.append(row(epoch))
        experiment.on_train_epoch_end(None, LEARNER)
    experiment.on_exception(None, LEARNER, KeyboardInterrupt())
    client = mlflow.MlflowClient(server)
    (run,) = client.search_runs([client.get_experiment_by_name("dots").experiment_id])
    assert (run.info.run_name, run.info.status) == ("mine", "KILLED")
    assert run.data.params == {key: str(value) for key, value in RECIPE.items()}
    assert points(client, run.info.run_id, "train/loss") == [(1, 1.0), (2, 0.5)]
    # killed before the checkpoint of the second epoch was written: it is trained again, and is not there twice
    history = SimpleNamespace(rows=[row(1)])
    experiment = Experiment(out_dir, server, "dots", RECIPE | {"data.batch_size": 4, "resume": True}, history)
    experiment.on_fit_start(None, LEARNER)
    for epoch in (2, 3):
        history.rows.append(row(epoch))
        experiment.on_train_epoch_end(None, LEARNER)
    experiment.on_fit_end(None, LEARNER)
    (run,) = client.search_runs([run.info.experiment_id])
    assert run.info.status == "FINISHED" and run.data.tags["resumed.data.batch_size"] == "4"
    assert "resumed.resume" not in run.data.tags and "resume" not in run.data.params
    page = f"{server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}?workflowType=machine_learning"
    assert capsys.readouterr().out.split() == ["MLflow:", page] * 2
    assert points(client, run.info.run_id, "val/AP") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert artifacts(client, run.info.run_id) == {
        "recipe.yaml", "model_summary.txt", "data_examples/train.jpg", "metrics.html", "best.safetensors",
        "eval_examples/epoch_0001.jpg", "eval_examples/epoch_0002.jpg", "eval_examples/epoch_0003.jpg",
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"mlflow\.json"):
        Experiment(out_dir, str(tmp_path / "elsewhere"), "dots", RECIPE, history)


def test_a_server_that_goes_away_misses_nothing(tmp_path, monkeypatch):
    history = SimpleNamespace(rows=[])
    experiment = Experiment(folder_of_a_run(tmp_path / "run", 3), str(tmp_path / "store"), "dots", RECIPE, history)
    experiment.on_fit_start(None, LEARNER)

    def away(*_, **__):
        raise MlflowException("connection refused")

    monkeypatch.setattr(experiment._client, "log_batch", away)
    history.rows.append(row(1))
    with pytest.warns(UserWarning, match="sent after the next epoch"):
        experiment.on_train_epoch_end(None, LEARNER)
    monkeypatch.undo()
    history.rows.append(row(2))
    experiment.on_train_epoch_end(None, LEARNER)
    client = mlflow.MlflowClient(address_of(str(tmp_path / "store")))
    (run,) = client.search_runs([client.get_experiment_by_name("dots").experiment_id])
    assert points(client, run.info.run_id, "val/AP") == [(1, 0.1), (2, 0.2)]


def test_a_missing_server_is_said_before_anything_is_written(tmp_path, capfd):
    address = f"http://127.0.0.1:{free_port()}"
    data_dir = write_dataset(tmp_path / "people", 8, 4)
    overrides = {"data.data_dir": str(data_dir), "data.batch_size": 4, "data.input_size": [64, 64], "data.num_workers": 0,
                 "model.network.upsample_channels": 8, "trainer.max_epochs": 1, "trainer.precision": "32-true",
                 "trainer.enable_progress_bar": False}  # fmt: skip
    recipe = ROOT / "lib/recipes/trt_pose_mini.yaml"
    with pytest.raises(RuntimeError, match="make mlflow"):
        train(recipe, tmp_path / "run", overrides | {"mlflow": address})
    assert not (tmp_path / "run").exists()
    # without a server: a training from beginning to end, and one that is resumed without saying where it is kept
    overrides |= {"mlflow": str(tmp_path / "store"), "experiment": "small"}
    train(recipe, tmp_path / "run", overrides)
    assert "mlflow.store" not in capfd.readouterr().err, "tells of the tables of its database"
    del overrides["mlflow"]
    train(recipe, tmp_path / "run", overrides | {"trainer.max_epochs": 2}, resume=True)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'store/mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["data.batch_size"] == "4"
    assert [step for step, _ in points(client, run.info.run_id, "val/AP")] == [1, 2]
    found = artifacts(client, run.info.run_id)
    assert {"recipe.yaml", "model_summary.txt", "best.safetensors", "metrics.png", "metrics.html", "data_examples/val.jpg",
            "eval_examples/epoch_0002.jpg", "train.log"} <= found  # fmt: skip


def test_names():
    assert flat({"data": {"seed": 0, "crop": None, "size": [4, 4]}, "live": False}) == {
        "data.seed": 0, "data.size": [4, 4], "live": False,
    }  # fmt: skip
    assert [metric_name(name) for name in ("train_loss", "val_loss", "AP", "learning_rate", "top1")] == [
        "train/loss", "val/loss", "val/AP", "learning_rate", "val/top1",
    ]  # fmt: skip
    assert address_of("http://127.0.0.1:5000/") == "http://127.0.0.1:5000"
    with pytest.raises(ValueError, match="http://"):
        address_of("127.0.0.1:5000")
    assert address_of("local") == f"sqlite:///{ROOT / 'runs/mlflow/mlflow.db'}"
