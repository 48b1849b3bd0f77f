import json
import re
import sys

import cv2
import nbformat
import numpy as np
import pytest

from lib import book
from lib.book_math import formulas_to_svg
from lib.book_plan import UsageError
from lib.book_report import first_picture, notebook_page

PARAMETERS = """\
profile = "workshop"  # smoke, workshop or full
out_dir = "runs/tiny"  # where results go
steps = 40  # how many
rate = 0.1  # how fast
flip = True  # mirrored too
"""


def write(path, *cells, parameters=PARAMETERS):
    """A tiny notebook: text that starts with `#` is markdown, the rest is code."""
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    notebook.cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})] if parameters else []
    for text in cells:
        new_cell = nbformat.v4.new_markdown_cell if text.startswith("#") else nbformat.v4.new_code_cell
        notebook.cells.append(new_cell(text))
    nbformat.write(notebook, path)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write(folder / "00_start.ipynb", "# Start <here>", "seen = [profile, steps, rate, flip]")
    write(folder / "10_train.ipynb", "# Train", "print(steps)")
    return folder


@pytest.fixture
def run(folder, tmp_path):
    """run(notebooks…, name=…) → exit code and the records of the run by title."""

    def run(*notebooks, name="run", **options):
        code = book.main(notebooks, folder=folder, out=tmp_path / "runs", name=name, **options)
        manifest = json.loads((tmp_path / "runs" / name / "manifest.json").read_text())
        return code, {record["title"]: record for record in manifest["notebooks"]}

    return run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parameters": {"stepz": 3}}, "'stepz', did you mean 'steps'"),
        ({"notebooks": ["0"], "parameters": {"10.steps": 3}}, "10.steps: 10_train is not among the chosen notebooks"),
        ({"parameters": {"10.rat": 3}}, "10_train has no parameter 'rat', did you mean 'rate'"),
        ({"parameters": {"steps": "many"}}, "00_start: steps: 'many' is not of type int, the default is 40"),
        ({"parameters": {"steps": 1.5}}, "1.5 is not of type int"),
        ({"parameters": {"steps": True}}, "True is not of type int"),
        ({"parameters": {"flip": "perhaps"}}, "'perhaps' is not of type bool"),
        ({"parameters": {"profile": 3}}, "3 is not of type str"),
        ({"profile": "smoky"}, "profile 'smoky' is unknown, did you mean 'smoke'"),
        ({"notebooks": ["10_trian"]}, "notebook '10_trian' is unknown, did you mean '10_train'"),
        ({"data_dir": "data/mine"}, "none of the chosen notebooks has the parameter data_dir"),
        ({"resume": True}, "has no run to resume"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(folder, tmp_path, options, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        book.main(folder=folder, out=tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()


def test_only_scalars_may_be_parameters(folder, tmp_path):
    write(folder / "20_bad.ipynb", parameters="size = 3\nsizes = [size, 4]\n")
    with pytest.raises(UsageError, match=re.escape("20_bad.ipynb: the parameters cell may hold only")):
        book.main(folder=folder, out=tmp_path)


def test_command_line_says_what_is_wrong(folder, capsys):
    assert book.command(["10", "--folder", str(folder), "-p", "stepz=3"]) == 2
    assert "did you mean 'steps'" in capsys.readouterr().err
    assert book.command(["10", "--folder", str(folder), "-p", "steps"]) == 2
    assert book.command(["--list", "--folder", str(folder)]) == 0
    assert "steps = 40  # how many" in capsys.readouterr().out


def test_values_reach_the_notebooks_that_have_them(folder, tmp_path):
    write(folder / "20_plain.ipynb", "x = 1", parameters="")
    write(folder / "30_data.ipynb", "x = 1", parameters="data_dir = 'data/synthetic'  # what to learn from\n")
    given = ["--profile", "smoke", "--data_dir", "data/mine", "-p", "rate=1", "-p", "flip=no", "-p", "10.steps=3"]
    copies = tmp_path / "copies"
    assert book.command([*given, "--folder", str(folder), "--write_only", str(copies)]) == 0
    injected = {path.stem: _injected(path) for path in copies.glob("*.ipynb")}
    common = {"profile": "smoke", "rate": 1.0, "flip": False}
    assert injected == {
        "00_start": common | {"out_dir": str(copies / "00_start")},
        "10_train": common | {"out_dir": str(copies / "10_train"), "steps": 3},
        "20_plain": {},
        "30_data": {"data_dir": "data/mine"},
    }


def _injected(path):
    cells = [c for c in nbformat.read(path, 4).cells if "injected-parameters" in c.metadata.get("tags", ())]
    values = {}
    for cell in cells:
        exec(cell.source, {}, values)  # noqa: S102
    return values


def test_what_fails_is_red_and_does_not_stop_the_others(folder, run, tmp_path, capsys):
    write(folder / "20_fail.ipynb", "# Break", "raise KeyError('no <nose> here')")
    write(folder / "21_after.ipynb", "# After", "1")
    write(folder / "25_dead.ipynb", "import os\nos._exit(1)")
    nested = "from pathlib import Path\nPath('results.json').write_text('{\"AP\": {\"all\": 1}}')"
    write(folder / "30_other.ipynb", "# Other", nested)
    code, records = run("20", "21", "25", "30")
    assert code == 1
    assert [record["status"] for record in records.values()] == ["failed", "ok", "failed", "failed"]
    assert "✗ 20_fail  cell [3]: KeyError: 'no <nose> here'" in capsys.readouterr().out
    assert records["20_fail"]["error"]["name"] == "KeyError" and records["20_fail"]["error"]["cell"] == 3
    assert "the kernel died" in records["25_dead"]["error"]["message"]
    # it ran to its end, but says something that is no table
    assert "one flat object" in records["30_other"]["error"]["message"] and "page" in records["30_other"]
    report = (tmp_path / "runs/run/index.html").read_text()
    assert "<a class=error href='20_fail/20_fail.html'>20_fail</a> failed" in report
    assert "no &lt;nose&gt; here" in report and "<nose>" not in report
    assert (tmp_path / "runs/run/20_fail/20_fail.html").exists()


def test_manifest_results_and_report(folder, run, tmp_path, monkeypatch):
    # a kernelspec of the user's that starts something else must not be taken
    spec = tmp_path / "jupyter/kernels/python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write(
        folder / "40_results.ipynb",
        "# Results",
        "import json, os, sys\nfrom pathlib import Path\nimport lib",
        "metrics = {'AP': 0.51234, 'python': sys.executable, 'cwd': os.getcwd()}\n"
        "Path(out_dir, 'results.json').write_text(json.dumps(metrics));",
        "import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);",
    )
    code, records = run("40", profile="smoke", parameters={"steps": 7})
    record, run_dir = records["40_results"], tmp_path / "runs/run"
    assert code == 0
    assert record["parameters"] == {"out_dir": str(run_dir / "40_results"), "profile": "smoke", "steps": 7}
    assert record["results"] == {"AP": 0.51234, "python": sys.executable, "cwd": str(run_dir / "40_results")}
    assert record["seconds"] > 0 and len(record["sha256"]) == 64
    manifest = json.loads((run_dir / "manifest.json").read_text())
    assert manifest["profile"] == "smoke" and {"torch", "numpy"} <= manifest["versions"].keys()
    report = (run_dir / "index.html").read_text()
    assert "<td>AP</td><td class=number>0.5123</td>" in report
    assert "src='data:image/jpeg;base64," in report  # the thumbnail
    for page in (report, (run_dir / "40_results/40_results.html").read_text()):
        assert not re.search(r"<script|<link|src=.https?:|url\(.?https?:", page)


@pytest.fixture
def without_kernels(monkeypatch):
    """Notebooks run in this process: which of them run, and when, does not depend on how."""

    def run_notebook(chapter, folder):
        folder.mkdir(parents=True, exist_ok=True)
        record = book.record_of(chapter, status="ok", seconds=0)
        monkeypatch.chdir(folder)
        for cell in nbformat.read(chapter.path, as_version=4).cells:
            try:
                exec(cell.source, {})  # noqa: S102
            except ValueError:
                record.update(status="failed", error={"message": "broken"})
        return record

    monkeypatch.setattr(book, "run_notebook", run_notebook)


@pytest.mark.usefixtures("without_kernels")
def test_resume_runs_only_what_is_new_or_broken(folder, run, tmp_path):
    count = (
        "from pathlib import Path\nlog = Path('count')\nlog.write_text(log.read_text() + 'x' if log.exists() else 'x')"
    )
    write(folder / "20_stable.ipynb", count)
    write(folder / "30_broken.ipynb", count, "raise ValueError")
    write(folder / "40_other.ipynb", count)
    times = lambda: [len((tmp_path / "runs/run" / t / "count").read_text()) for t in titles]
    titles = ["20_stable", "30_broken", "40_other"]
    assert run(*titles)[0] == 1
    with pytest.raises(UsageError, match="exists; add --resume"):
        run(*titles)
    code, records = run(*titles, resume=True)
    assert (code, times()) == (1, [1, 2, 1]) and records["20_stable"]["kept"]
    write(folder / "30_broken.ipynb", count)
    assert run("30", resume=True)[0] == 0 and times() == [1, 3, 1]
    assert run(*titles, resume=True, parameters={"30.steps": 1})[0] == 0 and times() == [1, 4, 1]
    write(folder / "20_stable.ipynb", count, "changed = True")
    code, records = run("20", "40", resume=True)
    assert times() == [2, 4, 1]
    assert set(records) == set(titles), "a notebook that was not asked for keeps its record"


def test_progress_bars_and_formulas_stand_in_the_page_without_scripts(folder, run, tmp_path):
    write(
        folder / "20_bar.ipynb",
        "# Bars\n\nA cell is $x = s j$.",
        "from tqdm.auto import tqdm\nfor _ in tqdm(range(9)): pass",
    )
    assert run("20")[0] == 0
    page = (tmp_path / "runs/run/20_bar/20_bar.html").read_text()
    assert re.search(r"100%.*9/9", page) and "data:image/svg+xml" in page and "$x = s j$" not in page


def test_formulas_leave_code_and_money_alone():
    text = "costs $5 and $6, `$x$` and\n```\n$x$\n```\n and $\\unknowncommand{x}$"
    assert formulas_to_svg(text) == text
    assert formulas_to_svg("so $\\frac{a}{b}$ is").count("<img") == 1
    assert "text-align:center" in formulas_to_svg("$$\na + b\n$$")


def test_first_picture_is_small_and_skips_icons(tmp_path):
    import base64

    def png(height, width):
        image = np.full((height, width, 3), 200, np.uint8)
        return base64.b64encode(cv2.imencode(".png", image)[1]).decode()

    notebook = nbformat.v4.new_notebook()
    outputs = [nbformat.v4.new_output("display_data", {"image/png": png(8, 8)}),
               nbformat.v4.new_output("display_data", {"text/html": f"<img src='data:image/png;base64,{png(600, 900)}'>"})]  # fmt: skip
    notebook.cells = [nbformat.v4.new_code_cell("show()", outputs=outputs)]
    nbformat.write(notebook, tmp_path / "a.ipynb")
    picture = base64.b64decode(first_picture(tmp_path / "a.ipynb").partition(",")[2])
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape == (320, 480, 3)
    assert notebook_page(tmp_path / "a.ipynb").exists()
