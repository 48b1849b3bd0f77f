"""Where the runs of a sweep are executed: processes of this computer, or the workers of a Dask cluster.

Both are executors of `concurrent.futures`, so that everything else is the same. What a worker does is start a process and
wait for it: a run that takes its process down, a crash or too little memory, takes nothing else with it, and a worker that
dies takes its own runs down, no others. (joblib would drive both, but waits forever when a worker of Dask dies, and its own
workers all die with one.)
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lib import ROOT
from lib.environment import cores

THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
LOG_END = 2000  # characters of a log that come back
PROGRAM = ("-m", "lib.sweep.one")  # what a run is, for Python
NEEDED = "import lib.book, lib.sweep.one"  # what a worker must be able to do
PATIENCE = 10  # seconds until a scheduler that does not answer is not there


@dataclass(frozen=True)
class Engine:
    """Somewhere to run: `executor.submit(start, folder)` gives the exit status and the end of the log of one run."""

    executor: Executor
    start: Callable[[str], tuple[int, str]]
    slots: int  # runs at a time
    threads: int  # of each run
    name: str


@contextmanager
def local(workers: int | None = None, threads: int | None = None) -> Iterator[Engine]:
    """Processes of this computer, `workers` at a time (by default one for each core), which share the cores.

    They end when the block ends, and when this process is killed.
    """
    workers = workers or cores()
    threads = threads or max(1, cores() // workers)
    # all runs read from one pipe that nothing is ever written to: it closes when this side of it is closed
    theirs, ours = os.pipe()
    executor = ThreadPoolExecutor(workers)
    try:
        yield Engine(executor, starter(str(ROOT), threads, theirs), workers, threads, "this computer")
    finally:
        os.close(ours)
        executor.shutdown(cancel_futures=True)
        os.close(theirs)


@contextmanager
def dask(address: str, folder: Path, threads: int | None = None) -> Iterator[Engine]:
    """The workers of a Dask cluster that is running, one run at a time on each of their threads.

    The repository and `folder` must be where they are here, for instance on a shared disk. Runs that have begun when the block
    ends by an error go on, and are found finished the next time.

    Raises:
        ValueError: that is no address.
        RuntimeError: Dask is not installed, there is no such cluster, it has no workers, or one of them cannot do the work.
    """
    try:
        from distributed import Client
    except ImportError:
        raise RuntimeError("a cluster needs Dask: pip install -e '.[dask]'") from None
    if not re.fullmatch(r"(\w+://)?[^/\s]+:\d+/?", address):
        raise ValueError(
            f"{address!r} is not the address of a scheduler: write it as it prints it, tcp://127.0.0.1:8786"
        )
    # what happens to the cluster is said here in a sentence; Dask would print the stacks of its attempts to connect again
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False, asynchronous=False)
    except OSError as error:
        raise RuntimeError(f"no Dask scheduler answers at {address} ({error}); start one with `dask scheduler`, and "
                           f"workers with `dask worker {address}`") from None  # fmt: skip
    try:
        slots = client.nthreads()
        if not slots:
            raise RuntimeError(f"the cluster at {address} has no workers: start some with `dask worker {address}`")
        machines = _machines(client, folder, slots)
        threads = threads or max(1, min(processors // used for processors, used in machines.values()))
        # Dask takes equal calls for one
        executor = client.get_executor(pure=False)
        yield Engine(
            executor, starter(str(ROOT), threads), sum(slots.values()), threads, f"{len(slots)} workers of {address}"
        )
    finally:
        client.close()


def starter(root: str, threads: int, stdin: int = subprocess.PIPE) -> Callable[[str], tuple[int, str]]:
    """A function that executes the run of a folder in a process of its own and waits for it.

    It uses nothing of `lib`, so workers which could not import that get it by value.
    """
    environment, program = dict.fromkeys(THREADS, str(threads)), PROGRAM

    def start(folder: str) -> tuple[int, str]:
        import os
        import subprocess
        import sys

        path = os.path.join(folder, "run.log")
        with open(path, "wb") as log:
            process = subprocess.Popen([sys.executable, *program, folder], cwd=root, stdin=stdin, stdout=log, stderr=log,
                                       env=os.environ | environment, start_new_session=True)  # fmt: skip
            status = process.wait()
        with open(path, "rb") as log:
            text = log.read().decode(errors="replace")[-LOG_END:]
        if not text:
            os.remove(path)
        return status, text

    return start


def _machines(client, folder: Path, slots: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Cores and runs at a time of every machine of a cluster.

    Raises:
        RuntimeError: a worker has another Python, does not see the folder, or cannot import lib.
    """
    versions = client.get_versions()
    here = versions["client"]["host"]["python"]
    for worker, info in versions["workers"].items():
        there = info["host"]["python"]
        if there.split(".")[:2] != here.split(".")[:2]:
            raise RuntimeError(f"worker {worker} runs Python {there}, this is {here}: start it with the workbook's own")
    machines: dict[str, tuple[int, int]] = {}
    for worker, (host, processors, sees, complaint) in client.run(_probe(str(ROOT), str(folder))).items():
        if not sees:
            raise RuntimeError(
                f"worker {worker} on {host} does not see {folder}: give --out a folder that all machines share"
            )
        if complaint:
            raise RuntimeError(f"worker {worker} on {host} cannot import lib from {ROOT} ({complaint}): start it with the "
                               f"workbook's own Python, `.venv/bin/dask worker {client.scheduler.address}`")  # fmt: skip
        machines[host] = (processors, machines.get(host, (0, 0))[1] + slots.get(worker, 1))
    return machines


def _probe(root: str, folder: str) -> Callable[[], Awaitable[tuple[str, int, bool, str]]]:
    """A function that says what a worker is: host, cores, whether it sees the folder, what it complains about lib."""
    needed = NEEDED

    def look() -> tuple[str, int, bool, str]:
        import os
        import platform
        import subprocess
        import sys

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        where = root if os.path.isdir(root) else None
        done = subprocess.run([sys.executable, "-c", needed], cwd=where, capture_output=True, text=True, check=False)
        complaint = (done.stderr.strip().splitlines() or ["it gives no reason"])[-1] if done.returncode else ""
        return platform.node(), cores, os.path.isdir(folder), complaint

    async def probe() -> tuple[str, int, bool, str]:
        import asyncio

        return await asyncio.to_thread(look)  # a worker that does not answer meanwhile is taken for dead

    return probe
