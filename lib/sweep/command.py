"""Execute a sweep: what is missing is done, what is done is kept, and the manifest always says how far it is."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from pathlib import Path

from tqdm.auto import tqdm

from lib import ROOT
from lib.book import one_line, record_of, succeeded_before
from lib.book_kernel import environment
from lib.book_plan import UsageError
from lib.book_report import write_report
from lib.files import locked, write
from lib.sweep import engines
from lib.sweep.grid import Run, read_grid
from lib.sweep.table import as_html, as_markdown, read_rows, rows, write_tables

REPORT_EVERY = 30  # seconds: the page of a large sweep takes long
LONGEST_TABLE = 40  # lines that are printed


def sweep(
    grid: str | Path | Mapping,
    out: str | Path = "runs/sweeps",
    name: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    profile: str | None = None,
    threads: int | None = None,
) -> Path:
    """Run a notebook with all parameters of a grid; runs that have succeeded before are kept.

    Args:
        grid: a YAML file (see `lib.sweep`), or what stands in one.
        out: where the folders of sweeps are made; relative paths are meant from the repository.
        name: of this sweep's folder; by default the grid file's.
        workers: how many runs at a time on this computer; by default one for each core.
        scheduler: address of a Dask cluster that is running, "tcp://127.0.0.1:8786", to run there instead.
        profile: smoke, workshop or full, instead of the grid's.
        threads: of each run; by default what there is, divided by the runs at a time.

    Returns:
        The folder: manifest.json, results.csv, results.md, index.html and a folder for every run. `lib.sweep.table.read_rows`
        reads the results.

    Raises:
        UsageError: an option or something in the grid does not fit; nothing has run then.
        RuntimeError: the cluster cannot be used, or was lost; or the same sweep is running elsewhere.
    """
    if scheduler and workers:
        raise UsageError(
            "workers are for this computer; on a cluster it is the scheduler who knows them, leave one away"
        )
    if isinstance(grid, Mapping) and not name:
        raise UsageError("a grid that is not a file needs a name for its folder")
    for option, value in (("workers", workers), ("threads", threads)):
        if value is not None and value < 1:
            raise UsageError(f"{option} is {value}, at least one is needed")
    runs = read_grid(grid, profile)
    folder = ROOT / out / (name or Path(grid).stem)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        progress = _Progress(folder, runs)
        missing = [run for run in runs if run.name not in progress.records]
        print(f"folder {folder}\n{len(runs)} runs, {len(runs) - len(missing)} kept from before")
        try:
            if missing:
                at = engines.dask(scheduler, folder, threads) if scheduler else engines.local(workers, threads)
                with at as engine:
                    at_a_time = min(engine.slots, len(missing))
                    print(f"{at_a_time} at a time on {engine.name}, threads of each: {engine.threads}")
                    progress.follow(missing, engine)
        finally:
            progress.save(report=True)
    return folder


def main(grid: str, out: str = "runs/sweeps", name: str | None = None, workers: int | None = None,
         scheduler: str | None = None, profile: str | None = None, threads: int | None = None, list: bool = False) -> int:  # fmt: skip
    """Run a notebook with all parameters of a YAML grid; the same command again does what is missing or has failed.

    Args:
        grid: the file; `lib/sweep/__init__.py` shows one.
        out: where the folders of sweeps are made.
        name: of this sweep's folder; by default the grid file's.
        workers: how many runs at a time on this computer; by default one for each core.
        scheduler: address of a running Dask cluster, tcp://127.0.0.1:8786, to run there instead.
        profile: smoke, workshop or full, instead of the grid's.
        threads: of each run; by default what there is, divided by the runs at a time.
        list: only say what would run.

    Returns:
        0 when every run has succeeded, 1 when one failed, 130 after Ctrl-C.
    """
    if list:
        for run in read_grid(grid, profile):
            print(f"{run.chapter.title}  {run.label or '(as it is)'}")
        return 0
    try:
        folder = sweep(grid, out, name, workers, scheduler, profile, threads)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    records = json.loads((folder / "manifest.json").read_text("utf-8"))["notebooks"]
    if len(records) <= LONGEST_TABLE:
        print(as_markdown(rows(records, only_swept=True)), end="")
    print(f"table  {folder / 'results.csv'}\nreport {folder / 'index.html'}")
    return int(any(row["status"] != "ok" for row in read_rows(folder)))


class _Progress:
    """The records of a sweep, and its files, which are true after every run.

    Every run keeps its own record (`run.json`), so even a sweep that is killed in this very moment loses none.
    """

    def __init__(self, folder: Path, runs: Sequence[Run]):
        self.folder, self.runs = folder, runs
        profiles = {str(run.chapter.overrides.get("profile", "none")) for run in runs}
        self.manifest = {"format": "pose-workbook-sweep-1", "profile": ", ".join(sorted(profiles)), **environment()}
        self.records = {run.name: described for run in runs if (described := self._kept(run))}
        self._reported = time.monotonic()

    def follow(self, missing: Sequence[Run], engine: engines.Engine) -> None:
        """Execute runs; returns when the last has ended.

        Raises:
            RuntimeError: the cluster was lost.
        """
        # without a terminal the bar is silent and one line per run tells the story
        with tqdm(total=len(self.runs), initial=len(self.records), desc=self.folder.name, unit="run", disable=None,
                  smoothing=0) as bar:  # fmt: skip
            futures = {engine.executor.submit(engine.start, str(self._prepared(run))): run for run in missing}
            for future in _as_they_end(futures, bar):
                run = futures[future]
                record = self._described(run, self._ended(run, future))
                self.records[run.name] = record
                self.save(report=time.monotonic() - self._reported > REPORT_EVERY)
                bar.write(one_line(record))
                failed = sum(record["status"] != "ok" for record in self.records.values())
                bar.set_postfix_str(f"{failed} failed" if failed else "", refresh=False)
                bar.update()

    def save(self, report: bool) -> None:
        """Write manifest and tables, and the page if wanted."""
        records = [self.records[run.name] for run in self.runs if run.name in self.records]
        self.manifest["notebooks"] = records
        write(self.folder / "manifest.json", json.dumps(self.manifest, indent=1, ensure_ascii=False))
        if records:
            write_tables(self.folder, records)
        if report:
            heading = f"Sweep {self.folder.name} of {self.runs[0].chapter.title}"
            write_report(self.folder, self.manifest, heading, as_html(records) if records else "")
            self._reported = time.monotonic()

    def _kept(self, run: Run) -> dict | None:
        """The record of an earlier success with the same cells and parameters."""
        path = self.folder / run.name / "run.json"
        record = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return self._described(run, record | {"kept": True}) if succeeded_before(run.chapter, record) else None

    def _prepared(self, run: Run) -> Path:
        """The folder of a run, with its job and without what an earlier attempt said."""
        folder = self.folder / run.name
        (folder / "run.json").unlink(missing_ok=True)
        job = {"notebook": str(run.chapter.path), "overrides": run.chapter.overrides}
        write(folder / "job.json", json.dumps(job, indent=1, ensure_ascii=False))
        return folder

    def _ended(self, run: Run, future: Future) -> dict:
        try:
            status, log = future.result()
        except CancelledError:
            raise RuntimeError(f"the cluster was lost; {len(self.records)} of {len(self.runs)} runs have ended and are kept, "
                               "the same command goes on from here") from None  # fmt: skip
        except Exception as error:  # noqa: BLE001  what happens to one worker must not stop the others
            status, log = None, f"{type(error).__name__}: {error}"
        path = self.folder / run.name / "run.json"
        if path.exists():
            return json.loads(path.read_text("utf-8"))
        return record_of(run.chapter, status="failed", error=_why(status, log))

    def _described(self, run: Run, record: dict) -> dict:
        return record | {"title": run.name, "heading": run.label or run.chapter.heading, "swept": run.swept}


def _as_they_end(futures: Mapping[Future, Run], bar: tqdm) -> Iterator[Future]:
    """Futures as they end; the clock of the bar goes on meanwhile."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
        bar.refresh()
        yield from done


def _why(status: int | None, log: str) -> dict[str, str]:
    """What the manifest says about a run whose process could not say it itself."""
    if status is None:
        return {"name": "LostWorker", "message": f"the worker of this run was lost ({log})"}
    if status < 0:
        return {"name": "Killed", "traceback": log, "message": f"its process was ended by signal {-status} "
                f"({signal.strsignal(-status)}): too little memory, or somebody killed it"}  # fmt: skip
    last = (log.strip().splitlines() or ["it gives no reason"])[-1]
    return {"name": "Ended", "message": f"its process ended with status {status}: {last}", "traceback": log}
