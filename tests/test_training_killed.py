"""SIGKILL: a training that is killed at a random step and resumed ends in the weights of one that was not."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from lib import ROOT, distributed
from lib.data.synthetic import write_dataset
from lib.training import train

RECIPE = ROOT / "lib/recipes/higherhrnet_mini.yaml"
TIMEOUT = 300


def test_killed_at_a_random_step_and_resumed_equals_uninterrupted(tmp_path):
    data_dir = write_dataset(tmp_path / "people", 24, 4)
    tiny = {
        "data.data_dir": str(data_dir), "data.input_size": [64, 64], "data.batch_size": 4, "data.num_workers": 1,
        "model.network.width": 8, "model.network.stem": 8, "model.warmup_steps": 5,
        "trainer.precision": "32-true", "trainer.max_epochs": 6, "trainer.enable_progress_bar": False,
    }  # fmt: skip
    whole = train(RECIPE, tmp_path / "whole", tiny)
    command = [sys.executable, "-m", "lib", "train", f"--config={RECIPE}", f"--out_dir={tmp_path / 'cut'}",
               *(f"--{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in tiny.items())]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    began = time.monotonic()
    while not (tmp_path / "cut/last.ckpt").exists() and process.poll() is None and time.monotonic() < began + TIMEOUT:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 2 * whole.history[-1]["seconds"] / len(whole.history)))
    process.send_signal(signal.SIGKILL)
    said = process.communicate(timeout=TIMEOUT)[0]
    assert process.returncode == -signal.SIGKILL, f"it should not have come to its end, nor failed: {said}"
    resumed = train(RECIPE, tmp_path / "cut", tiny, resume=True)
    for (name, a), b in zip(whole.learner.state_dict().items(), resumed.learner.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}


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
