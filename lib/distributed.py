"""Several processes: what `torchrun` says about them, and what is said when one of them ends.

`torchrun --standalone --nproc_per_node=2 -m lib train …` starts the same command twice; each process finds its number and
that of the others in its environment. Without torchrun there is one process, whatever the machine has.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from lib.files import beside


def launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def process_count() -> int:
    """How many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return not launched() or os.environ["RANK"] == "0"


def quiet_unless_main() -> None:
    """Only one process talks; what ends another one is still said."""
    if not is_main():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for the rest of this process
        warnings.simplefilter("ignore")


def first_to_say(sentence: str) -> bool:
    """Whether no other process of this launch said the same before; torchrun's store counts. Alone one always is the first."""
    if process_count() == 1:
        return True
    try:
        store = torch.distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False,
                                           wait_for_workers=False, timeout=timedelta(seconds=10))  # fmt: skip
        return store.add(f"said after {os.environ['TORCHELASTIC_RESTART_COUNT']} restarts: {sentence}", 1) == 1
    except torch.distributed.DistError:  # torchrun itself is gone: rather twice than never
        return True


@contextmanager
def one_voice() -> Iterator[None]:
    """What all processes meet, an error or Ctrl-C, is raised in the first; the others end with status 1 and say nothing."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        if not first_to_say("a process was lost" if isinstance(error, ProcessLost) else f"{error}"):
            sys.exit(1)
        raise


class ProcessLost(RuntimeError):
    """Another process of this training ended."""


def place(options: Any) -> dict[str, Any]:
    """Where the trainer runs: on all of torchrun's processes, or in this one.

    Args:
        options: the trainer's, with accelerator, devices and sync_batchnorm.

    Returns:
        Options of `lightning.Trainer` that replace the given ones.

    Raises:
        ValueError: several devices without torchrun; or batch norms that share statistics, on CPUs.
    """
    gpus = options.accelerator in ("gpu", "cuda") or (options.accelerator == "auto" and torch.cuda.is_available())
    if options.sync_batchnorm and not gpus:
        raise ValueError("trainer.sync_batchnorm works on GPUs alone: on CPUs leave it out, or keep the statistics of the "
                         "batch norms with model.freeze_norm=true")  # fmt: skip
    # the orders of `lib.learning` know the processes
    placed = {"use_distributed_sampler": False}
    if launched():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return placed | {"devices": local, "num_nodes": process_count() // local}
    # a number, "auto", or which ones: [1] or "1,"
    devices = options.devices
    if isinstance(devices, str) and "," in devices:
        devices = devices.split(",")
    count = str(len([device for device in devices if device]) if isinstance(devices, list) else devices)
    if options.num_nodes > 1 or count not in ("auto", "1"):
        raise ValueError(f"trainer.devices is {options.devices} and trainer.num_nodes {options.num_nodes}, but this is one "
                         f"process: start `torchrun --standalone --nproc_per_node={count if count.isdecimal() else 'N'} "
                         "-m lib train …` and leave both out")  # fmt: skip
    return placed | {"devices": 1 if count == "auto" else options.devices}


def lost_another(error: RuntimeError) -> bool:
    """Whether this is what the other processes see when one of them ends: a broken connection, or torchrun's SIGTERM."""
    words = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "killed by signal: terminated")
    return process_count() > 1 and any(word in str(error).lower() for word in words)


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints beside and moves them: whoever is killed meanwhile leaves the old one or the new one.

    (Lightning writes into the system's temporary folder and moves from there, which copies where that is another disk.)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        with beside(path) as writing:
            torch.save(checkpoint, writing)
