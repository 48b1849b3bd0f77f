"""Several processes: together they see what one sees with a larger batch, and one that is killed ends the others clearly."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from lib import ROOT, distributed
from lib.data.augment import ColorJitter
from lib.data.synthetic import write_dataset
from lib.learning import Learner, TrainOrder, ValOrder
from lib.training import load_recipe, train

RECIPE = ROOT / "lib/recipes/higherhrnet_mini.yaml"
TIMEOUT = 300  # seconds; far more than it takes, for machines with other things to do


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> dict:
    """A HigherHRNet of a few thousand parameters, whose batch norms keep their statistics."""
    data_dir = write_dataset(tmp_path_factory.mktemp("data") / "people", 16, 4)
    return {
        "data.data_dir": str(data_dir), "data.input_size": [64, 64], "data.num_workers": 1,
        "model.network.width": 8, "model.network.stem": 8, "model.freeze_norm": True, "model.warmup_steps": 2,
        "model.color_jitter": [0.2, 0.2, 0.2, 0.05], "model.optimizer": "sgd", "model.learning_rate": 0.02,
        "trainer.precision": "32-true", "trainer.max_epochs": 5, "trainer.enable_progress_bar": False,
    }  # fmt: skip


class Eleven:
    """A data set of eleven numbers."""

    epochs: list

    def __init__(self):
        self.epochs = []

    def __len__(self):
        return 11

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


def trainer_of(process: int, processes: int, epoch: int = 0):
    progress = SimpleNamespace(current=SimpleNamespace(processed=epoch))
    return SimpleNamespace(world_size=processes, global_rank=process, fit_loop=SimpleNamespace(epoch_progress=progress),
                           num_training_batches=3, datamodule=SimpleNamespace(seed=1))  # fmt: skip


def batches(size: int, processes: int, epoch: int = 0) -> list[list[int]]:
    """Every batch of the whole training: the batches of the processes one behind the other."""
    orders = [TrainOrder(Eleven(), size, 1, trainer_of(r, processes, epoch)) for r in range(processes)]
    listed = [list(order) for order in orders]
    assert all(len(order) == len(indices) for order, indices in zip(orders, listed))
    return [[i for indices in listed for i in indices[k : k + size]] for k in range(0, len(listed[0]), size)]


def test_processes_see_together_what_one_process_sees():
    one = batches(4, 1)
    assert [len(batch) for batch in one] == [4, 4] and len({i for batch in one for i in batch}) == 8
    assert batches(2, 2) == one and batches(1, 4) == one
    assert batches(4, 1, epoch=1) != one and batches(2, 2, epoch=1) == batches(4, 1, epoch=1)


def test_samples_of_one_size_share_a_batch(monkeypatch):
    """Of eleven, drawn anew in every epoch, those of five sizes; together the processes see what one process sees."""
    monkeypatch.setattr(Eleven, "sizes", np.array([[10 * (i % 5), 7] for i in range(11)]), raising=False)
    one = batches(2, 1)
    assert sorted(len({*batch}) for batch in one) == [2] * 5 and len({i for batch in one for i in batch}) == 10
    assert sum(len({i % 5 for i in batch}) for batch in one) < 8  # shuffled, nearly every batch has two sizes
    assert batches(1, 2) == one and batches(2, 1, epoch=1) != one
    assert [min(batch) % 5 for batch in one] != sorted(min(batch) % 5 for batch in one)  # no epoch begins with the small ones
    assert {*batches(20, 1)[0]} == set(range(11))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_batch_larger_than_the_data_is_all_of_it(processes):
    (only,) = batches(20, processes)
    assert set(only) == set(range(11)) and len(only) % processes == 0 and len(only) < 11 + processes


def test_validation_sees_everything_and_all_processes_have_the_same_number():
    listed = [list(ValOrder(Eleven(), trainer_of(r, 3))) for r in range(3)]
    assert {len(indices) for indices in listed} == {4} and {i for indices in listed for i in indices} == set(range(11))


def test_colours_belong_to_the_place_of_a_picture_not_to_its_process():
    images, jitter = torch.rand(6, 3, 4, 4) * 255, ColorJitter(0.3, 0.3, 0.3, 0.1)

    def coloured(process, processes):
        learner = SimpleNamespace(trainer=trainer_of(process, processes), current_epoch=2, global_rank=process)
        mine = images.chunk(processes)[process]
        return jitter(mine, Learner._generator(learner, 1, len(mine)))

    together = coloured(0, 1)
    assert torch.allclose(torch.cat([coloured(r, 2) for r in range(2)]), together, atol=1e-4)
    assert torch.allclose(torch.cat([coloured(r, 3) for r in range(3)]), together, atol=1e-4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"trainer.devices": 2}, "torchrun --standalone --nproc_per_node=2"),
        ({"trainer.num_nodes": 2}, "torchrun"),
        ({"trainer.sync_batchnorm": True, "trainer.accelerator": "cpu"}, "freeze_norm"),
    ],
)
def test_what_one_process_or_a_cpu_cannot_do_is_said(tiny, overrides, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(RECIPE, tiny | overrides)


def test_devices_and_nodes_are_those_of_torchrun(monkeypatch):
    options = SimpleNamespace(accelerator="cpu", devices="auto", num_nodes=1, sync_batchnorm=False)
    assert distributed.place(options)["devices"] == 1 and distributed.is_main()
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5"}.items():
        monkeypatch.setenv(name, value)
    placed = distributed.place(options)
    assert (placed["devices"], placed["num_nodes"], distributed.process_count()) == (4, 2, 8) and not distributed.is_main()


def test_frozen_norms_keep_their_statistics(tiny):
    learner, _ = load_recipe(RECIPE, tiny)
    norms = [m for m in learner.train().modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms) and learner.network.training
    assert all(norm.weight.requires_grad for norm in norms)
    thawed, _ = load_recipe(RECIPE, tiny | {"model.freeze_norm": False})
    assert all(m.training for m in thawed.train().modules())


def two_processes(tiny: dict, out_dir, resume: bool) -> subprocess.Popen:
    overrides = [f"--{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in tiny.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "lib", "train"]
    command += [f"--config={RECIPE}", f"--out_dir={out_dir}", f"--resume={str(resume).lower()}", *overrides]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True)  # fmt: skip


def kill_second(launcher: subprocess.Popen) -> None:
    """SIGKILL the process with rank 1."""
    workers = psutil.Process(launcher.pid).children()
    (second,) = [worker for worker in workers if worker.environ().get("RANK") == "1"]
    second.send_signal(signal.SIGKILL)


def end(launcher: subprocess.Popen) -> str:
    """What a launcher printed until it ended by itself."""
    try:
        return launcher.communicate(timeout=TIMEOUT)[0]
    except subprocess.TimeoutExpired:
        os.killpg(launcher.pid, signal.SIGKILL)
        raise


def test_one_of_two_processes_is_killed_and_the_run_resumed_equals_one_process(tiny, tmp_path):
    """Takes half a minute: torch is imported five times. With normalisation frozen, two processes with batches of 4 have the
    gradients of one with batches of 8, within rounding, whatever happened in between."""
    launcher = two_processes(tiny | {"data.batch_size": 4}, tmp_path / "two", resume=False)
    began = time.monotonic()
    while not (tmp_path / "two/last.ckpt").exists() and launcher.poll() is None and time.monotonic() < began + TIMEOUT:
        time.sleep(0.01)
    assert launcher.poll() is None, end(launcher)
    kill_second(launcher)
    said = end(launcher)
    assert launcher.returncode != 0
    assert "another process of this training ended" in said and "--resume=true" in said and "SIGKILL" in said
    again = two_processes(tiny | {"data.batch_size": 4}, tmp_path / "two", resume=True)
    said = end(again)
    assert again.returncode == 0, said
    assert len(re.findall("best AP", said)) == 1, "only one process prints"
    one = train(RECIPE, tmp_path / "one", tiny | {"data.batch_size": 8})
    rows = list(csv.DictReader((tmp_path / "two/history.csv").open()))
    assert len(rows) == len(one.history) == 5
    for a, b in zip(rows, one.history, strict=True):
        for name in ("train_loss", "train_heatmaps", "train_push", "train_pull", "val_loss", "learning_rate"):
            assert float(a[name]) == pytest.approx(b[name], rel=1e-4, abs=2e-6), (name, a["epoch"])
    ends = [torch.load(tmp_path / f"{name}/last.ckpt", weights_only=True) for name in ("one", "two")]
    for name, value in ends[0]["state_dict"].items():
        assert torch.allclose(value, ends[1]["state_dict"][name], rtol=1e-4, atol=1e-6), name
    # momentum is the sum of the gradients of all steps
    momenta = [[state["momentum_buffer"] for state in e["optimizer_states"][0]["state"].values()] for e in ends]
    largest = max(float(m.abs().max()) for m in momenta[0])
    assert largest > 1e-4
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5 * largest) for a, b in zip(*momenta, strict=True))


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (lambda rank: ValueError("the same for all"), 1),
        (lambda rank: ValueError(f"of process {rank}"), 3),
        (lambda rank: distributed.ProcessLost(f"seen by process {rank}"), 1),
    ],
)
def test_what_all_processes_meet_is_said_once(error, times, monkeypatch):
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun has one
    said, silent = [], []
    for rank in range(3):
        for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "TORCHELASTIC_RESTART_COUNT": 0,
                            "TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": 3, "RANK": rank}.items():  # fmt: skip
            monkeypatch.setenv(name, str(value))
        try:
            with distributed.one_voice():
                raise error(rank)
        except SystemExit as end:
            silent.append(end.code)
        except Exception as raised:  # noqa: BLE001
            said.append(raised)
    assert len(said) == times and silent == [1] * (3 - times)
