"""Notebooks for a workshop: the same ones, without the solutions of their exercises.

An exercise is a code cell tagged `solution` and, right below it, a code cell tagged `check`. The student has to find the
lines between two marks; the check says whether they are right:

    turned = None
    ### BEGIN SOLUTION
    turned = image[:, ::-1]
    ### END SOLUTION

A check that accepts everything teaches nothing. So a solution cell lists wrong answers in its metadata (`wrong`: what
stands between the marks instead), and `student --prove true` writes notebooks which run every check against them.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import ROOT
from .files import write

if TYPE_CHECKING:
    import nbformat  # imported where it is needed: proofs run `refuses` in kernels, which should not wait for it

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
STUB = "...  # your code here"


def student(
    out: str | Path = "build/student",
    folder: str | Path = "notebooks",
    prove: bool = False,
    overwrite: bool = False,
) -> None:
    """Write every notebook without its solutions; a file that somebody has worked in is kept, and said so.

    Args:
        out: where the notebooks go; relative paths are meant from the repository.
        folder: where the notebooks are.
        prove: keep the solutions, and let every check first refuse the empty and the wrong answers (for `make test`).
        overwrite: replace edited files too.

    Raises:
        ValueError: there are no notebooks, `out` is `folder`, or a solution is not marked as it should be.
    """
    folder, out = ROOT / folder, ROOT / out
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise ValueError(f"no notebooks in {folder}")
    if out.resolve() == folder.resolve():
        raise ValueError(f"{out} holds the notebooks themselves: choose another folder for those of the students")
    # all of them are made before the first is written, so that a broken exercise leaves nothing half done
    made = {path.name: (with_proofs if prove else without_solutions)(_read(path), path.name) for path in paths}
    kept = [name for name, notebook in made.items() if not _put(out / name, notebook, overwrite)]
    print(f"{out}: {len(made) - len(kept)} of {len(made)} notebooks are up to date")
    for name in kept:
        print(f"{name} has been edited and stays as it is (--overwrite true replaces it, the edits are lost)")


def without_solutions(notebook: nbformat.NotebookNode, name: str = "notebook") -> nbformat.NotebookNode:
    """A copy in which the lines to find are one stub; cells tagged `solution` without any mark are left out.

    Raises:
        ValueError: an exercise is not marked as it should be.
    """
    result = copy.deepcopy(notebook)
    result.cells = [cell for cell in result.cells if "solution" not in _tags(cell) or _marks(cell.source)]
    for solution, check in exercises(result, name):
        solution.source = answered(solution.source, STUB, f"{name}, cell {solution.get('id')}")
        solution.metadata.pop("wrong", None)
        for cell in (solution, check):  # what was printed may give the answer away
            cell.outputs, cell.execution_count = [], None
    return result


def with_proofs(notebook: nbformat.NotebookNode, name: str = "notebook") -> nbformat.NotebookNode:
    """A copy with a cell before each solution which lets its check refuse the stub and each of the wrong answers.

    Raises:
        ValueError: an exercise is not marked as it should be.
    """
    from nbformat.v4 import new_code_cell

    result = copy.deepcopy(notebook)
    for solution, check in exercises(result, name):
        where = f"{name}, cell {solution.get('id')}"
        answers = [answered(solution.source, answer, where) for answer in (STUB, *solution.metadata.get("wrong", ()))]
        source = f"from lib.student import refuses\n\nrefuses({check.source!r}, {answers!r}, globals())"
        proof = new_code_cell(source, id=f"prove-{solution.id}")
        result.cells.insert(result.cells.index(solution), proof)
    return result


def exercises(
    notebook: nbformat.NotebookNode, name: str = "notebook"
) -> list[tuple[nbformat.NotebookNode, nbformat.NotebookNode]]:
    """Pairs of cells (solution, check), which stand below each other in this order.

    Raises:
        ValueError: a solution is marked in a cell without the tag, or no check follows it.
    """
    pairs = []
    for cell, following in itertools.zip_longest(notebook.cells, notebook.cells[1:]):
        if cell.cell_type == "code" and _marks(cell.source):
            if "solution" not in _tags(cell) or following is None or "check" not in _tags(following):
                raise ValueError(
                    f"{name}, cell {cell.get('id')}: a cell with '{BEGIN}' needs the tag solution, and below it a code "
                    "cell with the tag check"
                )
            pairs.append((cell, following))
    return pairs


def answered(source: str, answer: str, where: str = "this cell") -> str:
    """The source of a solution cell with `answer` (indented as the marks are) instead of marks and solution.

    Raises:
        ValueError: the marks are not one pair, in this order.
    """
    lines = source.splitlines()
    marks = _marks(source)
    if [lines[number].strip() for number in marks] != [BEGIN, END]:
        raise ValueError(f"{where}: there must be one line '{BEGIN}' and below it one line '{END}'")
    first, last = marks
    indent = lines[first][: -len(lines[first].lstrip())]
    return "\n".join([*lines[:first], textwrap.indent(answer, indent), *lines[last + 1 :]])


def refuses(check: str, answers: Sequence[str], names: dict[str, object]) -> None:
    """Run a check after each answer, with a copy of these names; each time it must fail with a sentence.

    Raises:
        AssertionError: the check accepts an answer, or does not say what is wrong.
    """
    for answer in answers:
        here = dict(names)
        exec(compile(answer, "<answer>", "exec"), here)  # noqa: S102  cells of our own notebooks
        try:
            exec(compile(check, "<check>", "exec"), here)  # noqa: S102
        except AssertionError as error:
            if len(str(error).split()) < 3:
                raise AssertionError(f"the check fails without a sentence that helps, after:\n{answer}") from error
        else:
            raise AssertionError(f"the check accepts this answer:\n{answer}")


def _marks(source: str) -> list[int]:
    return [number for number, line in enumerate(source.splitlines()) if line.strip() in (BEGIN, END)]


def _tags(cell: nbformat.NotebookNode) -> Sequence[str]:
    return cell.metadata.get("tags", ())


def _read(path: Path) -> nbformat.NotebookNode:
    import nbformat

    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:  # noqa: BLE001  nbformat raises whatever its JSON and schema libraries raise
        raise ValueError(f"{path} is not a readable notebook: {error}") from None


def _put(path: Path, notebook: nbformat.NotebookNode, overwrite: bool) -> bool:
    """Write the file unless it has been edited since it was written here; False when it was kept for that reason."""
    import nbformat

    cells = _fingerprint(notebook)
    if path.exists() and not overwrite:
        there = _read(path)
        if _fingerprint(there) == cells:  # somebody may have executed it
            return True
        if there.metadata.get("workbook", {}).get("student") != _fingerprint(there):
            return False
    notebook.metadata.workbook = {**notebook.metadata.get("workbook", {}), "student": cells}
    write(path, nbformat.writes(notebook) + "\n")
    return True


def _fingerprint(notebook: nbformat.NotebookNode) -> str:
    """Of the kinds and sources of the cells: executing a notebook is not editing it."""
    cells = "\0".join(f"{cell.cell_type}\0{cell.source}" for cell in notebook.cells)
    return hashlib.sha256(cells.encode()).hexdigest()
