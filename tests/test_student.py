"""Student versions: nothing but the solutions is missing, what students wrote is safe, checks can say no."""

import json

import nbformat
import pytest

from lib.__main__ import main
from lib.student import STUB, answered, exercises, refuses, student, with_proofs, without_solutions

MARKED = "side = None  # how long\nif True:\n    ### BEGIN SOLUTION\n    side = 3\n    side += 1\n    ### END SOLUTION"
CHECK = 'assert side is not None, "side is still empty"\nassert side == 4, f"a side of {side} is not it"'


def cell(source, *tags, **fields):
    make = nbformat.v4.new_markdown_cell if source.startswith(("#", "<")) else nbformat.v4.new_code_cell
    # nbformat makes ids of its own, other ones each time
    return make(source, metadata={"tags": list(tags), **fields}, id=f"id-{len(source)}")


def lesson(*cells):
    cells = cells or (
        cell("# A square"),
        cell("sides = 4\nprint(sides)"),
        cell(MARKED, "solution", wrong=["side = 5"]),
        cell(CHECK, "check"),
        cell("<details>Because 3 + 1 is 4.</details>", "solution"),
        cell("# The end"),
    )
    return nbformat.v4.new_notebook(cells=list(cells))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    nbformat.write(lesson(), folder / "00_square.ipynb")
    nbformat.write(lesson(cell("# No exercise"), cell("a = 1")), folder / "01_plain.ipynb")
    (folder / "notes.txt").write_text("not a notebook")
    (folder / "data").mkdir()
    return folder


def run(source, names=None):
    names = {} if names is None else names
    exec(source, names)  # noqa: S102
    return names


def test_only_the_solutions_are_missing():
    before = lesson()
    before.cells[2].outputs = [nbformat.v4.new_output("stream", text="4")]
    after = without_solutions(before)
    stub, check = after.cells[2:4]
    assert stub.source == f"side = None  # how long\nif True:\n    {STUB}"
    assert "wrong" not in stub.metadata and not stub.outputs
    assert [c.source for c in after.cells if c.source != stub.source] == [
        "# A square",
        "sides = 4\nprint(sides)",
        CHECK,
        "# The end",
    ]
    with pytest.raises(AssertionError, match="still empty"):
        run(check.source, run(stub.source))
    run(check.source, run(before.cells[2].source))
    assert before.cells[2].source == MARKED, "the notebook that was given has changed"


def test_a_stub_stands_alone_in_a_function():
    source = answered("def f():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION\n\nx = f()", STUB)
    assert run(source)["x"] is None
    assert run(answered(MARKED, "side = 7\nside -= 3"))["side"] == 4


@pytest.mark.parametrize(
    ("source", "tags", "following", "words"),
    [
        ("### BEGIN SOLUTION\na = 1", ("solution",), ("check",), "cell x1: there must be one line '### BEGIN"),
        ("a = 1\n### END SOLUTION", ("solution",), ("check",), "one line '### BEGIN SOLUTION'"),
        ("### END SOLUTION\na = 1\n### BEGIN SOLUTION", ("solution",), ("check",), "below it one line '### END"),
        (f"{MARKED}\n{MARKED}", ("solution",), ("check",), "there must be one line"),
        (MARKED, (), ("check",), "needs the tag solution"),
        (MARKED, ("solution",), (), "with the tag check"),
        (MARKED, ("solution",), None, "with the tag check"),
    ],
)
def test_a_badly_marked_exercise_is_named(folder, capsys, tmp_path, source, tags, following, words):
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)}, id="x1")]
    cells += [] if following is None else [cell("assert True, 'yes'", *following)]
    nbformat.write(lesson(*cells), folder / "02_bad.ipynb")
    out = tmp_path / "student"
    assert main(["student", f"--folder={folder}", f"--out={out}"]) == 1
    error = capsys.readouterr().err
    assert words in error and "02_bad.ipynb, cell x1" in error
    assert not out.exists(), "something was written although a notebook is broken"


def test_twice_is_the_same_and_only_notebooks_are_written(folder, tmp_path):
    for out in ("a", "b", "a"):
        student(tmp_path / out, folder)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / out).iterdir()} for out in ("a", "b"))
    assert first == second and sorted(first) == ["00_square.ipynb", "01_plain.ipynb"]
    nbformat.validate(nbformat.read(tmp_path / "a/00_square.ipynb", as_version=4))


def test_the_work_of_a_student_is_kept(folder, tmp_path, capsys):
    out = tmp_path / "student"
    student(out, folder)
    done = out / "00_square.ipynb"
    done.write_text(done.read_text().replace(STUB, "side = 4"))
    edited = done.read_bytes()
    capsys.readouterr()
    student(out, folder)
    assert done.read_bytes() == edited
    printed = capsys.readouterr().out
    assert "1 of 2 notebooks" in printed and "00_square.ipynb has been edited" in printed
    student(out, folder, overwrite=True)
    assert STUB in done.read_text()


def test_what_nobody_edited_follows_the_workbook(folder, tmp_path, capsys):
    out = tmp_path / "student"
    student(out, folder)
    executed = nbformat.read(out / "01_plain.ipynb", as_version=4)
    executed.cells[1].outputs = [nbformat.v4.new_output("stream", text="seen")]
    nbformat.write(executed, out / "01_plain.ipynb")
    student(out, folder)
    assert "seen" in (out / "01_plain.ipynb").read_text()
    for name in ("00_square", "01_plain"):
        path = folder / f"{name}.ipynb"
        path.write_text(path.read_text().replace("# ", "# New: "))
    student(out, folder)
    assert all("# New: " in path.read_text() for path in out.glob("*.ipynb"))
    assert "has been edited" not in capsys.readouterr().out


def test_a_file_that_is_not_ours_is_kept(folder, tmp_path, capsys):
    (tmp_path / "student").mkdir()
    own = tmp_path / "student/00_square.ipynb"
    nbformat.write(lesson(cell("# My own")), own)
    student(tmp_path / "student", folder)
    assert "My own" in own.read_text() and "has been edited" in capsys.readouterr().out


def test_it_never_writes_over_the_notebooks_themselves(folder, tmp_path):
    with pytest.raises(ValueError, match="choose another folder"):
        student(folder, folder, overwrite=True)
    with pytest.raises(ValueError, match="no notebooks in"):
        student(tmp_path / "out", tmp_path / "nothing")
    (folder / "03_torn.ipynb").write_text('{"cells": [')
    with pytest.raises(ValueError, match="03_torn.ipynb is not a readable notebook"):
        student(tmp_path / "out", folder)


def test_proofs_run_in_the_notebook(folder, tmp_path):
    student(tmp_path / "proof", folder, prove=True)
    proof = nbformat.read(tmp_path / "proof/00_square.ipynb", as_version=4)
    sources = [c.source for c in proof.cells if c.cell_type == "code"]
    assert MARKED in sources and len(sources) == 4
    names = {}
    for source in sources:
        run(source, names)
    assert names["side"] == 4


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("assert side is None or side == 4, 'this is not the side'", "accepts this answer:\nside = None"),
        ("assert side == 4, 'wrong'", "without a sentence"),
        ("assert side is None or side > 3, 'longer, please, this is short'", "accepts"),
    ],
)
def test_a_check_that_does_not_help_is_found(check, words):
    proof = with_proofs(lesson(cell(MARKED, "solution", wrong=["side = 5"]), cell(check, "check"))).cells[0].source
    with pytest.raises(AssertionError, match=words):
        run(proof)


def test_answers_do_not_see_each_other():
    names = {"seen": 1}
    refuses("assert seen == 1 and more != 2, 'more is still 2'", ["more = 2", "more = 2\nseen = 1"], names)
    assert "more" not in names


def test_exercises_are_found_in_order():
    pairs = exercises(lesson())
    assert [(a.source, b.source) for a, b in pairs] == [(MARKED, CHECK)]
    assert json.dumps(pairs)  # plain cells
