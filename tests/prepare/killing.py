"""Processes that are killed in the middle of their work, at a chosen step, and what they leave."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

# whatever changes a folder announces itself with one of these; `open` counts when it is for writing
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def start(work: Callable[[], object], kill_at: int | None = None) -> int:
    """Run `work` in a process of its own, killed by SIGKILL just before its `kill_at`-th change to a folder."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        if kill_at is not None:
            _kill_before(kill_at)
        work()
        status = 0
    except BaseException as error:  # noqa: BLE001 whatever it is, this process must not go on as a second pytest
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def finish(pid: int) -> bool:
    """Wait for the end; True for a success, False if it was killed, an AssertionError for a failure of its own."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the work failed instead of being killed, see its message above"
    return True


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert not finish(pid)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it did not happen within 20 seconds"
        time.sleep(0.005)


def kill_everywhere(work: Callable[[], object], folder: Path, expected: dict[str, bytes | None], step: int = 1) -> None:
    """Kill `work` before each of its changes and start it again; every time `folder` must end as `expected`.

    Then once more, killing also the one that was started again, and that which was started after it, and so on.
    """
    kills, done = 0, False
    while not done:
        shutil.rmtree(folder, ignore_errors=True)
        done = finish(start(work, kill_at=kills * step))
        assert done or finish(start(work))
        assert tree(folder) == expected, f"killed before change {kills * step}"
        kills += 1
    shutil.rmtree(folder)
    assert kills * step > len(expected), "it was hardly killed at all"
    for kills in range(10_000):
        if finish(start(work, kill_at=kills * step)):
            break
    assert tree(folder) == expected


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder: relative name → content, None for a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def _kill_before(change: int) -> None:
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes and not str(arguments[0]).startswith("/dev/") or event in CHANGES:
            if seen == change:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(hook)
