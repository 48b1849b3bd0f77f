"""Run the notebooks headless, strictly: `python -m lib book [NAMES...] --profile smoke -p name=value`.

Upstream's runner only warns about a mistyped parameter; this one refuses it and names the nearest. Every notebook gets a
folder of its own, a failed one does not stop the others, and `manifest.json` and `index.html` tell what happened.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from nbclient.exceptions import DeadKernelError
from papermill import execute_notebook
from tqdm import tqdm

from . import ROOT
from .book_kernel import ENGINE, environment
from .book_plan import PROFILES, Chapter, UsageError, plan
from .book_report import error_text, notebook_page, write_report
from .files import write

RED, GREEN, PLAIN = "\033[31m", "\033[32m", "\033[0m"
SIGNS = {"ok": ("✓", GREEN), "failed": ("✗", RED), "interrupted": ("✗", RED)}


def main(
    notebooks: Sequence[str] = (),
    profile: str = "workshop",
    out: str | Path = "runs/book",
    name: str | None = None,
    data_dir: str | None = None,
    parameters: Mapping[str, object] | None = None,
    resume: bool = False,
    write_only: str | Path | None = None,
    folder: str | Path = "notebooks",
) -> int:
    """Execute notebooks in order and write a report.

    Args:
        notebooks: numbers or names ("10", "10_train_trt_pose"); none = all.
        profile: smoke, workshop or full; passed to the notebooks which have this parameter.
        out: where run folders are made; relative paths are meant from the repository.
        name: name of the run's folder; by default the time of day, or with `resume` the newest run.
        data_dir: the data set for every notebook which has this parameter; by default each notebook's own.
        parameters: values for the notebooks' parameters; "name" goes to every notebook that has it, "10.name" to one.
        resume: keep the results of notebooks which succeeded with the same cells and the same parameters.
        write_only: write parameterised copies into this folder, execute nothing.
        folder: where the notebooks are.

    Returns:
        0 when every notebook succeeded, 1 when one failed, 130 after Ctrl-C.

    Raises:
        UsageError: a notebook, profile or parameter is unknown, or a value has the wrong type.
    """
    chapters = plan(ROOT / folder, notebooks, profile, data_dir, parameters or {})
    if write_only is not None:
        for chapter in chapters:
            print(_write_copy(chapter, ROOT / write_only))
        return 0
    run_dir = _run_folder(ROOT / out, name, resume)
    manifest = {"format": "pose-workbook-run-1", "profile": profile, **environment(), "notebooks": []}
    before = _read_manifest(run_dir) if resume else {}
    print(f"run folder {run_dir}\nkernel     {sys.executable} (Python {manifest['python']})")
    records = {}
    try:
        _run_all(chapters, run_dir, manifest, before, records)
    except KeyboardInterrupt:
        print("interrupted; --resume goes on from here", file=sys.stderr)
        return 130
    finally:
        print(f"report     {_save(run_dir, manifest, before | records)}")
    return int(any(record["status"] != "ok" for record in records.values()))


def command(arguments: Sequence[str] | None = None) -> int:
    """The command line of `main`; returns the exit code, 2 for a mistake in the arguments."""
    parser = argparse.ArgumentParser("python -m lib book", description="Run notebooks headless and write a report.")
    parser.add_argument("notebooks", nargs="*", metavar="NAME", help="10 or 10_train_trt_pose; none = all")
    parser.add_argument("--profile", default="workshop", help=f"{', '.join(PROFILES)} (default: workshop)")
    parser.add_argument("--data_dir", help="data set for every notebook which has this parameter")
    parser.add_argument("-p", "--parameter", action="append", default=[], metavar="[10.]NAME=VALUE",
                        help="a value for the notebooks which have this parameter, or for one notebook; repeatable")  # fmt: skip
    parser.add_argument("--out", default="runs/book", help="where run folders are made (default: runs/book)")
    parser.add_argument("--name", help="name of the run's folder (default: the time, with --resume the newest)")
    parser.add_argument("--resume", action="store_true", help="skip notebooks which succeeded with the same parameters")
    parser.add_argument("--write_only", metavar="DIR", help="write parameterised copies, execute nothing")
    parser.add_argument("--list", action="store_true", help="show the notebooks and their parameters")
    parser.add_argument("--folder", default="notebooks", help=argparse.SUPPRESS)
    given = vars(parser.parse_intermixed_args(arguments))
    try:
        pairs = [_pair(text) for text in given.pop("parameter")]
        if given.pop("list"):
            _show(plan(ROOT / given["folder"], given["notebooks"], given["profile"], None, {}))
            return 0
        return main(**given, parameters=dict(pairs))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"-p {text}: write it as name=value, or 10.name=value for one notebook")
    return key.strip(), value


def _show(chapters: list[Chapter]) -> None:
    for chapter in chapters:
        print(chapter.title)
        for key, value in chapter.defaults.items():
            print(f"    {key} = {value!r}  # {chapter.comments[key]}")


def _run_all(chapters: list[Chapter], run_dir: Path, manifest: dict, before: dict, records: dict) -> None:
    """Execute what can be executed into `records`; after every notebook manifest and report are up to date."""
    # without a terminal (a log file, CI) the bars are silent and one line per notebook tells the story
    with tqdm(chapters, desc="book", unit="notebook", disable=None, smoothing=0) as bar:
        for chapter in bar:
            kept = before.get(chapter.title, {})
            if succeeded_before(chapter, kept):
                record = kept | {"kept": True}
            else:
                record = run_notebook(chapter, run_dir / chapter.title)
            records[chapter.title] = record
            _save(run_dir, manifest, before | records)
            bar.write(one_line(record))
            if record["status"] == "interrupted":
                raise KeyboardInterrupt


def run_notebook(chapter: Chapter, folder: Path) -> dict:
    """Execute a notebook in a folder and make a page of it; whatever it breaks stands in the record, nothing is raised.

    Returns:
        What the manifest says about it: title, heading, sha256, overrides, status ("ok", "failed" or "interrupted"),
        started, parameters, seconds, results, error, and the paths of notebook and page from the folder's own folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # what an earlier attempt reported must not be taken for this one's
    (folder / "results.json").unlink(missing_ok=True)
    parameters = chapter.parameters_in(folder)
    executed = folder / chapter.path.name
    record = record_of(chapter, status="ok", started=_now(), parameters=parameters)
    start = time.perf_counter()
    try:
        execute_notebook(
            _no_templates(chapter.path), _no_templates(executed), parameters,
            engine_name=ENGINE, kernel_name="python3", language="python", progress_bar=False, cwd=folder,
        )  # fmt: skip
    except KeyboardInterrupt:
        record.update(status="interrupted", error={"message": "interrupted by the user"})
    except Exception as error:  # noqa: BLE001  whatever breaks one notebook, a dead kernel too, must not stop the others
        record.update(status="failed", error=_error(error))
    record["seconds"] = round(time.perf_counter() - start, 1)
    record["notebook"] = f"{folder.name}/{executed.name}"
    try:
        record["results"] = _results(folder / "results.json")
    except ValueError as error:
        record.update(status="failed", error={"name": "ValueError", "message": str(error)})
    if executed.exists():
        record["page"] = f"{folder.name}/{notebook_page(executed).name}"
    return record


def record_of(chapter: Chapter, **fields) -> dict:
    """What the manifest says about a notebook, with `fields` about this run of it."""
    return {"title": chapter.title, "heading": chapter.heading, "sha256": chapter.sha256,
            "overrides": chapter.overrides, **fields}  # fmt: skip


def succeeded_before(chapter: Chapter, record: dict) -> bool:
    """True when the record of an earlier run is that of a success with the same cells and parameters."""
    now = {"status": "ok", "sha256": chapter.sha256, "overrides": chapter.overrides}
    return now.items() <= record.items()


def _error(error: Exception) -> dict:
    """What the manifest and the report say about an exception of papermill or of the kernel."""
    if isinstance(error, DeadKernelError):
        return {"name": "DeadKernelError", "message": "the kernel died: no memory left, or a crash in native code"}
    fields = {"name": getattr(error, "ename", type(error).__name__), "message": getattr(error, "evalue", str(error))}
    if hasattr(error, "exec_count"):
        fields |= {"cell": error.exec_count, "traceback": "\n".join(error.traceback)}
    return fields


def _results(path: Path) -> dict[str, object]:
    """A notebook's flat table of metrics, empty when it wrote none."""
    if not path.exists():
        return {}
    results = json.loads(path.read_text())
    if not isinstance(results, dict) or any(isinstance(value, dict | list) for value in results.values()):
        raise ValueError(f"{path}: results must be one flat object of metric: number or text")
    return results


def one_line(record: dict) -> str:
    """What the terminal says when a notebook has ended, in colours if it is one."""
    sign, colour = SIGNS[record["status"]]
    text = f"{sign} {record['title']}"
    if record["status"] == "ok":
        text += "  kept" if record.get("kept") else f"  {record['seconds']:.0f} s"
    else:
        text += f"  {error_text(record['error'])}"
    return f"{colour}{text}{PLAIN}" if sys.stdout.isatty() else text


def _write_copy(chapter: Chapter, folder: Path) -> Path:
    """A parameterised notebook without outputs, for tools which execute notebooks themselves."""
    target = folder / chapter.path.name
    work = folder / chapter.title
    work.mkdir(parents=True, exist_ok=True)
    execute_notebook(
        _no_templates(chapter.path), _no_templates(target), chapter.parameters_in(work),
        kernel_name="python3", language="python", prepare_only=True, progress_bar=False,
    )  # fmt: skip
    return target


def _no_templates(path: Path) -> str:
    """Papermill formats paths as templates; a brace in a folder's name is only a brace."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _run_folder(out: Path, name: str | None, resume: bool) -> Path:
    if name is None and resume:
        runs = sorted(out.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime)
        if not runs:
            raise UsageError(f"{out} has no run to resume; leave --resume away for the first one")
        return runs[-1].parent
    run_dir = out / (name or dt.datetime.now().strftime("%Y-%m-%d_%H-%M-%S"))
    if resume and not (run_dir / "manifest.json").exists():
        raise UsageError(f"{run_dir} has no manifest.json, so it cannot be resumed")
    if not resume and run_dir.exists():
        raise UsageError(f"{run_dir} exists; add --resume to go on with it, or choose another --name")
    run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir


def _read_manifest(run_dir: Path) -> dict[str, dict]:
    return {record["title"]: record for record in json.loads((run_dir / "manifest.json").read_text())["notebooks"]}


def _save(run_dir: Path, manifest: dict, records: dict[str, dict]) -> Path:
    """Write manifest and report; a resumed run keeps the records of notebooks which it was not asked for."""
    manifest["notebooks"] = [records[title] for title in sorted(records)]
    write(run_dir / "manifest.json", json.dumps(manifest, indent=1, ensure_ascii=False))
    return write_report(run_dir, manifest)


def _now() -> str:
    return dt.datetime.now().astimezone().isoformat(timespec="seconds")
