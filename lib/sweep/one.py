"""One run of a sweep, as a process: `python -m lib.sweep.one FOLDER` does what FOLDER/job.json says.

The last thing it writes is FOLDER/run.json, the record of the run. Where there is none after the process has ended, it was
killed. Standard input is the other end of whoever started it: when that closes, nobody waits for this run any more.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from lib.files import locked, write


def main(folder: Path) -> None:
    """Execute the notebook of a run, unless that has happened already: a cluster may ask twice."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads((folder / "job.json").read_text())
    with ExitStack() as held:
        _hold(folder, held)
        if (folder / "run.json").exists():
            return
        # imported here, so that a run which is done already ends in a moment
        from lib.book import run_notebook
        from lib.book_plan import plan

        notebook = Path(job["notebook"])
        # the profile stands among the overrides, if the notebook has one
        (chapter,) = plan(notebook.parent, [notebook.name], "workshop", None, job["overrides"])
        record = run_notebook(chapter, folder) | {"host": platform.node()}
        write(folder / "run.json", json.dumps(record, indent=1, ensure_ascii=False))


def _hold(folder: Path, held: ExitStack) -> None:
    """Wait until the process of an earlier attempt, which may not have noticed yet that nobody waits for it, is gone."""
    while True:
        try:
            held.enter_context(locked(folder))
            return
        except RuntimeError:
            time.sleep(0.2)


def _end_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin, whose lock this thread would still hold when the run has ended well
    os._exit(1)  # the kernel notices within a second that its parent is gone


if __name__ == "__main__":
    main(Path(sys.argv[1]))
