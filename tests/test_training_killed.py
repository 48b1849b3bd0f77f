"""SIGKILL: a training that is killed at a random step and resumed ends in the weights of one that was not."""

import json
import os
import random
import signal
import subprocess
import sys

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from lib import ROOT, distributed
from lib.data.synthetic import write_dataset
from lib.training import train

RECIPE = ROOT / "lib/recipes/higherhrnet_mini.yaml"
TIMEOUT = 300


KILL = """
import json, os, signal, sys
from lightning.pytorch.callbacks import Callback
from lib.training import train

class Kill(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)

train(sys.argv[2], sys.argv[3], json.loads(sys.argv[4]), callbacks=[Kill()])
"""


def test_killed_at_a_random_step_and_resumed_equals_uninterrupted(tmp_path):
    data_dir = write_dataset(tmp_path / "people", 24, 4)
    tiny = {
        "data.data_dir": str(data_dir), "data.input_size": [64, 64], "data.batch_size": 4, "data.num_workers": 1,
        "model.network.width": 8, "model.network.stem": 8, "model.warmup_steps": 5,
        "trainer.precision": "32-true", "trainer.max_epochs": 4, "trainer.enable_progress_bar": False,
    }  # fmt: skip
    whole = train(RECIPE, tmp_path / "whole", tiny)
    # from the first step on: in the first epoch there is no checkpoint yet, and the run begins anew
    step = random.randrange(1, whole.history[-1]["step"])
    command = [sys.executable, "-c", KILL, str(step), str(RECIPE), str(tmp_path / "cut"), json.dumps(tiny)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "cut/last.ckpt").exists() == (step > whole.history[0]["step"]), step
    resumed = train(RECIPE, tmp_path / "cut", tiny, resume=True)
    for (name, a), b in zip(whole.learner.state_dict().items(), resumed.learner.state_dict().values(), strict=True):
        assert torch.equal(a, b), (step, name)
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}, step


class CtrlC(Callback):
    """Like Ctrl-C behind a step."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def test_ctrl_c_says_how_to_go_on(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    data_dir = write_dataset(tmp_path / "people", 8, 4)
    tiny = {"data.data_dir": str(data_dir), "data.input_size": [64, 64], "data.batch_size": 4, "data.num_workers": 0,
            "model.network.width": 8, "model.network.stem": 8, "trainer.max_epochs": 2,
            "trainer.enable_progress_bar": False}  # fmt: skip
    try:
        for step, how in ((1, "begins again"), (3, r"--resume=true goes on from .*last\.ckpt")):
            with pytest.raises(KeyboardInterrupt, match=how):
                train(RECIPE, tmp_path / "run", tiny, callbacks=[CtrlC(step)])
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning switches it off
    said = (tmp_path / "run/train.log").read_text().splitlines()
    assert sum(line.endswith("by KeyboardInterrupt") for line in said) == 2


def test_a_checkpoint_that_is_being_written_leaves_the_old_one(tmp_path, monkeypatch):
    files = distributed.WholeFiles()
    files.save_checkpoint({"epoch": 1}, tmp_path / "last.ckpt")

    def half(content, path):
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        files.save_checkpoint({"epoch": 2}, tmp_path / "last.ckpt")
    assert files.load_checkpoint(tmp_path / "last.ckpt", weights_only=True) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]
