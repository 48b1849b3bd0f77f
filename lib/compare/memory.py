"""How much memory a model takes, measured in a process that does nothing else: this file, run as a program."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

RUNS, AT_ONCE = 2, 2
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux


def memory_of(models: Sequence[Sequence[Path]], threads: int = 1) -> Iterator[float]:
    """MiB by which the resident memory of a fresh process grows at most when it opens models and runs each on one input.

    Args:
        models: files that are opened together: one, or a top-down model's and that of its detector.
        threads: of the CPU.

    Raises:
        RuntimeError: a process failed, with its last line.
    """
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}

    def grown(paths: Sequence[Path]) -> float:
        command = [sys.executable, __file__, str(threads), *(str(Path(path).absolute()) for path in paths)]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if ended.returncode:
            raise RuntimeError(f"memory of {paths[0]}: {(ended.stderr.strip().splitlines() or ['the process was killed'])[-1]}")
        return float(ended.stdout.split()[-1])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(grown, models)


def growth(paths: Sequence[str], threads: int) -> float:
    """The same in this process; what it used before does not count."""
    import torch

    from lib.runtime import open_network

    if not all(str(path).endswith(".onnx") for path in paths):
        import timm  # noqa: F401 (some networks bring it along: that is not their size)
        import torchvision  # noqa: F401
    torch.set_num_threads(threads)
    before = _resident()
    networks = [open_network(path, threads=threads) for path in paths]
    for network in networks:
        for _ in range(RUNS):
            network(np.zeros((1, *network.metadata["input_size"], 3), np.uint8))
    return _peak() - before


def _resident() -> float:
    """Memory now, from where on the peak is counted; without Linux the peak so far, which may hide a little."""
    if not RESET.exists():
        return _peak()
    RESET.write_text("5")
    return _status("VmRSS")


def _peak() -> float:
    if STATUS.exists():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _status(key: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    print(growth(sys.argv[2:], int(sys.argv[1])))
