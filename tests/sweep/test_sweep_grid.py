"""Grids: which runs they mean, and what is wrong with them."""

import re

import nbformat
import pytest

from lib import ROOT
from lib.book_plan import UsageError
from lib.sweep.grid import read_grid

PARAMETERS = """\
profile = "workshop"  # smoke, workshop or full
out_dir = "runs/tiny"  # where results go
rate = 0.1  # how fast
steps = 40  # how many
flip = True  # mirrored too
"""


@pytest.fixture
def notebook(tmp_path):
    cell = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "tiny.ipynb")
    return str(tmp_path / "tiny.ipynb")


@pytest.fixture
def read(notebook, tmp_path):
    """read(text of a grid without its notebook, …) → runs"""

    def read(text, **options):
        (tmp_path / "grid.yaml").write_text(f"notebook: {notebook}\n{text}")
        return read_grid(tmp_path / "grid.yaml", **options)

    return read


def test_lists_are_crossed_and_single_runs_follow(read):
    runs = read("parameters: {steps: 7}\ncross:\n  rate: [1e-3, 1]\n  flip: [yes, no]\nruns:\n  - {rate: 0.5, steps: 9}\n")
    swept = [tuple(run.swept.values()) for run in runs]
    assert list(runs[0].swept) == ["rate", "flip", "steps"]
    # text of YAML (1e-3 is text there) and whole numbers become what the notebook's own value is
    assert swept == [(0.001, True, 7), (0.001, False, 7), (1.0, True, 7), (1.0, False, 7), (0.5, True, 9)]
    assert runs[0].chapter.overrides == {"profile": "workshop", "rate": 0.001, "flip": True, "steps": 7}
    assert runs[0].label == "rate = 0.001, flip = True, steps = 7"
    assert runs[4].chapter.overrides == {"profile": "workshop", "rate": 0.5, "steps": 9}


def test_a_run_has_the_same_name_in_every_grid_and_another_with_other_parameters(read):
    few, many = read("cross: {rate: [1, 2]}"), read("cross: {rate: [3, 2, 1.0]}\nruns: [{steps: 3}]")
    assert [run.name for run in few] == [many[2].name, many[1].name]
    assert few[0].name.startswith("rate=1.0-")
    others = [read("parameters: {steps: 9}\ncross: {rate: [1, 2]}"), read("cross: {rate: [1, 2]}", profile="smoke")]
    assert len({runs[0].name for runs in (few, *others)}) == 3


def test_names_are_file_names_everywhere(tmp_path, notebook):
    cell = nbformat.v4.new_code_cell("model = ''  # a file", metadata={"tags": ["parameters"]})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebook)
    values = ["../a:b?.onnx", "ä/" + "x" * 300, "", "a b"]
    runs = read_grid({"notebook": notebook, "cross": {"model": values}})
    assert all(re.fullmatch(r"[\w.=,+-]{5,100}", run.name, re.ASCII) for run in runs)
    assert len({run.name for run in runs}) == 4 and runs[2].label == "model empty"


def test_a_notebook_of_the_workbook_by_its_number():
    (run,) = read_grid({"notebook": 0, "runs": [{"seed": 3}]})  # YAML reads 00 as 0
    assert run.chapter.title == "00_start_here"


def test_the_example_is_a_grid_of_files_that_are_there():
    runs = read_grid(ROOT / "notebooks/sweep_models.yaml")
    assert len(runs) == 4 and all((ROOT / run.swept["model"]).exists() for run in runs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("crss: {rate: [1]}", "'crss' is unknown, did you mean 'cross'"),
        ("", "nothing to sweep"),
        ("cross: {ratee: [1]}", "grid.yaml: tiny has no parameter 'ratee', did you mean 'rate'"),
        ("cross: {rate: [1, fast]}", "rate: 'fast' is not of type float, the default is 0.1"),
        ("runs: [{steps: 1.5}]", "1.5 is not of type int"),
        ("parameters: {stepz: 1}\nruns: [{rate: 1}]", "parameter 'stepz', did you mean 'steps'"),
        ("cross: {rate: 0.1}", "cross: rate is 0.1, but should be a list"),
        ("cross: {rate: []}", "cross: rate is [], but should be a list"),
        ("cross: {rate: [[1, 2]]}", "rate is [1, 2], but parameters are single"),
        ("cross: {rate: [1, 1.0]}", "two runs are the same"),
        ("cross: {rate: [1]}\nruns: [{rate: 1}]", "two runs are the same"),
        ("cross: {rate: [1]}\nparameters: {rate: 2}", "rate stands under parameters and under cross"),
        ("cross: {rate: [1]}\ncross: {steps: [1]}", "'cross' stands there twice"),
        ("runs: {rate: 1}", "runs is a list"),
        ("runs: [3]", "3 is not a table"),
        ("runs: [{out_dir: here}]", "leave out_dir out"),
        ("profile: smoky\nruns: [{rate: 1}]", "did you mean 'smoke'"),
        ("runs: [", "grid.yaml is not readable YAML"),
    ],
)
def test_what_does_not_fit_is_said(read, text, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        read(text)


def test_a_grid_in_python_may_have_tuples(notebook):
    runs = read_grid({"notebook": notebook, "cross": {"rate": (1, 2)}, "runs": ({"steps": 3},)})
    assert len(runs) == 3


def test_a_grid_needs_a_notebook(tmp_path):
    (tmp_path / "grid.yaml").write_text("cross: {rate: [1]}\n")
    with pytest.raises(UsageError, match="say which notebook"):
        read_grid(tmp_path / "grid.yaml")
    (tmp_path / "grid.yaml").write_text("- 1\n")
    with pytest.raises(UsageError, match="a grid is a table with the keys notebook, profile"):
        read_grid(tmp_path / "grid.yaml")
    with pytest.raises(UsageError, match="'nothing' is unknown"):
        read_grid({"notebook": "nothing", "runs": [{"rate": 1}]})
    with pytest.raises(FileNotFoundError):
        read_grid(tmp_path / "none.yaml")
