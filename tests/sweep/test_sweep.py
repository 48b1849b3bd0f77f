"""Sweeps: whatever ends a run, the others go on, and the next start does what is missing; here and on a cluster."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from lib import ROOT
from lib.__main__ import main
from lib.book_plan import UsageError
from lib.files import locked
from lib.sweep import engines
from lib.sweep.command import sweep
from lib.sweep.table import as_markdown, read_rows, rows

QUICK = str(Path(__file__).with_name("one_quick.py"))
PARAMETERS = """\
profile = "workshop"  # smoke, workshop or full
out_dir = "runs/tiny"  # where results go
rate = 0.1  # how fast
seed = 0  # how lucky
fail = ""  # what goes wrong
"""
TWELVE = {"cross": {"rate": [0.1, 0.2], "seed": [0, 1, 2, 3, 4]}, "runs": [{"fail": "raise"}, {"fail": "kill"}]}


def write(path, *cells):
    new = nbformat.v4.new_code_cell
    cells = [new(PARAMETERS, metadata={"tags": ["parameters"]}), *map(new, cells)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "3"}}), path)


@pytest.fixture
def quick(monkeypatch):
    """Runs without kernels: what is tested is everything around them."""
    monkeypatch.setattr(engines, "PROGRAM", (QUICK,))
    monkeypatch.setattr(engines, "NEEDED", "pass")


@pytest.fixture
def run(tmp_path):
    """run(grid, name=…, …) → rows of the table by name of the run, and the folder."""
    write(tmp_path / "tiny.ipynb", "print(rate)")

    def run(grid, name="one", **options):
        folder = sweep({"notebook": str(tmp_path / "tiny.ipynb"), "profile": "smoke", **grid}, tmp_path, name, **options)
        return {row["run"]: row for row in read_rows(folder)}, folder

    return run


@pytest.fixture(scope="module")
def cluster():
    """Address of a scheduler with two workers, which speak over TCP as others do, but live in this process."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


def attempts(folder):
    return {path.parent.name: len(path.read_text()) for path in folder.glob("*/attempts")}


def without_time(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows.values()]


@pytest.mark.usefixtures("quick")
def test_twelve_runs_survive_a_failure_and_a_kill_and_the_next_start_does_what_is_missing(run, tmp_path):
    rows, folder = run(TWELVE, workers=3)
    assert [row["status"] for row in rows.values()] == ["ok"] * 10 + ["failed"] * 2
    assert [row["AP"] for row in rows.values()][:6] == [0.2, 1.2, 2.2, 3.2, 4.2, 0.4]
    assert {row["threads"] for row in rows.values() if row["status"] == "ok"} == {str(max(1, engines.cores() // 3))}
    records = json.loads((folder / "manifest.json").read_text())["notebooks"]
    assert records[10]["error"]["message"] == "no <luck>" and "ended by signal 9" in records[11]["error"]["message"]

    rows, _ = run(TWELVE, workers=3)
    assert [row["status"] for row in rows.values()] == ["ok"] * 10 + ["failed", "ok"]
    assert [attempts(folder)[name] for name in rows] == [1] * 10 + [2, 2]

    # a larger grid finds its earlier runs again; what is not asked for any more keeps its folder
    more, _ = run({"cross": {"rate": [0.1, 0.3], "seed": [0]}})
    assert [attempts(folder)[name] for name in more] == [1, 1] and len(attempts(folder)) == 13
    # another notebook under the same name, other results
    write(tmp_path / "tiny.ipynb", "print('changed')")
    again, _ = run({"cross": {"rate": [0.1, 0.3], "seed": [0]}})
    assert [attempts(folder)[name] for name in again] == [2, 2] and list(again) == list(more)


@pytest.mark.usefixtures("quick")
def test_a_cluster_gives_the_same_results(run, cluster):
    here, _ = run(TWELVE, "here", workers=2, threads=1)
    there, folder = run(TWELVE, "there", scheduler=cluster, threads=1)
    assert without_time(there) == without_time(here) and len(there) == 12
    there, _ = run(TWELVE, "there", scheduler=cluster, threads=1)
    assert [row["status"] for row in there.values()] == ["ok"] * 10 + ["failed", "ok"]
    assert sorted(attempts(folder).values()) == [1] * 10 + [2, 2]


@pytest.mark.usefixtures("quick")
def test_workers_that_cannot_do_the_work_are_named(run, cluster, monkeypatch):
    with engines.dask(cluster, ROOT) as engine:
        assert engine.slots == 2 and engine.threads == max(1, engines.cores() // 2)
    monkeypatch.setattr(engines, "NEEDED", "import a_package_that_is_not_there")
    with pytest.raises(RuntimeError, match="cannot import lib from .*No module named 'a_package_that_is_not_there'.*start it with"):
        run(TWELVE, scheduler=cluster)
    with pytest.raises(RuntimeError, match="does not see /somewhere/else"), engines.dask(cluster, Path("/somewhere/else")):
        pass


@pytest.mark.usefixtures("quick")
def test_no_cluster_is_one_sentence(run, monkeypatch, unused="tcp://127.0.0.1:9"):
    pytest.importorskip("distributed")
    monkeypatch.setattr(engines, "PATIENCE", 0.2)
    with pytest.raises(RuntimeError, match="no Dask scheduler answers at tcp://127.0.0.1:9 .*`dask scheduler`"):
        run(TWELVE, scheduler=unused)
    with pytest.raises(ValueError, match="'nonsense' is not the address of a scheduler"):
        run(TWELVE, scheduler="nonsense")
    with pytest.raises(UsageError, match="leave one away"):
        run(TWELVE, scheduler=unused, workers=2)


@pytest.mark.parametrize("option", ["workers", "threads"])
def test_nobody_works_with_less_than_one(run, option, tmp_path):
    with pytest.raises(UsageError, match=f"{option} is 0, at least one"):
        run(TWELVE, **{option: 0})
    assert not (tmp_path / "one").exists()


@pytest.mark.usefixtures("quick")
def test_a_process_that_ends_without_a_word_left_its_last_words_in_the_log(run):
    _, folder = run({"runs": [{"fail": "exit"}]})
    (record,) = json.loads((folder / "manifest.json").read_text())["notebooks"]
    assert record["error"]["message"] == "its process ended with status 1: disk full"
    assert "ended with status 1: disk full" in (folder / "index.html").read_text()


@pytest.mark.usefixtures("quick")
def test_one_sweep_at_a_time_and_runs_end_with_it(run, tmp_path):
    (tmp_path / "one").mkdir()
    with locked(tmp_path / "one"), pytest.raises(RuntimeError, match="another process is writing it"):
        run(TWELVE)
    folder = tmp_path / "waits"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({"notebook": "", "overrides": {"fail": "wait"}}))
    with pytest.raises(KeyboardInterrupt), engines.local(2) as engine:
        future = engine.executor.submit(engine.start, str(folder))
        while not (folder / "attempts").exists():
            time.sleep(0.02)
        raise KeyboardInterrupt
    assert future.result(timeout=0)[0] == 1


def test_a_run_ends_when_nobody_waits_for_it_and_is_not_done_twice(tmp_path):
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "run.json").write_text("{}")
    command = [sys.executable, "-m", "lib.sweep.one", str(tmp_path)]
    pipe = {"cwd": ROOT, "stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipe) as process:
        # the parent is there, so it does not end by itself; the job is done, so it does nothing
        assert process.wait() == 0 and not process.stderr.read()
    with locked(tmp_path), subprocess.Popen(command, **pipe) as process:  # the lock keeps it waiting
        assert process.communicate() == (None, "") and process.returncode == 1


def test_the_command_with_real_notebooks(tmp_path, capsys):
    write(
        tmp_path / "tiny.ipynb",
        "import json, os\nfrom pathlib import Path\n"
        "if fail == 'kernel': os._exit(3)\n"
        "Path(out_dir, 'results.json').write_text(json.dumps({'AP': rate * 2, 'cwd': os.getcwd(), 'seed': seed}));",
    )
    (tmp_path / "grid.yaml").write_text(f"notebook: {tmp_path / 'tiny.ipynb'}\nruns: [{{rate: 0.2}}, {{fail: kernel}}]\n")
    command = ["sweep", str(tmp_path / "grid.yaml"), "--out", str(tmp_path), "--profile", "smoke"]
    assert main([*command, "--list", "true"]) == 0
    assert "tiny  rate = 0.2, fail empty\n" in capsys.readouterr().out and not (tmp_path / "grid").exists()
    assert main(command) == 1
    printed = capsys.readouterr().out
    assert re.search(r"\|  0\.2 \| +\| 0\.4 \|.*\| ok ", printed) and re.search(r"\| kernel \|.*failed", printed)
    good, bad = read_rows(tmp_path / "grid")
    assert good["AP"] == 0.4 and good["cwd"] == str(tmp_path / "grid" / good["run"]) and good["profile"] == "smoke"
    assert good["seed"] == 0 and good["seconds"] > 0
    report = (tmp_path / "grid/index.html").read_text()
    assert "Sweep grid of tiny" in report and f"href='{good['run']}/tiny.html'" in report and "the kernel died" in report
    assert (tmp_path / "grid" / good["run"] / "tiny.html").exists() and bad["status"] == "failed"
    assert (tmp_path / "grid/results.csv").read_text().startswith("run,profile,rate,fail,AP,cwd,seed,seconds,status\n")


def test_ctrl_c_keeps_what_is_there(run, tmp_path, monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lib.sweep.command._as_they_end", stopped)
    monkeypatch.setattr(engines, "PROGRAM", (QUICK,))
    with pytest.raises(KeyboardInterrupt):
        run({"runs": [{"fail": "wait"}]}, workers=1)
    assert json.loads((tmp_path / "one/manifest.json").read_text())["notebooks"] == []
    grid = tmp_path / "g.yaml"
    grid.write_text(f"notebook: {tmp_path / 'tiny.ipynb'}\nruns: [{{fail: wait}}]\n")
    assert main(["sweep", str(grid), "--out", str(tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_result_called_like_a_parameter_keeps_a_column_of_its_own():
    record = {"title": "x", "status": "ok", "overrides": {"rate": 1.0}, "swept": {"rate": 1.0}, "results": {"rate": 2, "seconds": 3}}
    (row,) = rows([record])
    assert row == {"run": "x", "rate": 1.0, "rate (result)": 2, "seconds (result)": 3, "seconds": None, "status": "ok"}


def test_markdown_stands_in_columns():
    table = as_markdown([{"run": "x", "rate": 0.12345678, "note": "a|b", "status": "ok"}, {"run": "y", "rate": None, "note": "", "status": "failed"}])  # fmt: skip
    assert table == (
        "|   rate | note | status |\n"
        "| -----: | ---- | ------ |\n"
        "| 0.1235 | a\\|b | ok     |\n"
        "|        |      | failed |\n"
    )
