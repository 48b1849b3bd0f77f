"""The habits of the notebooks, kept true: every rule is a sentence that says what to change."""

import ast
import re
import statistics
import tokenize
from io import StringIO

import nbformat
import pytest

from lib import ROOT
from lib.book_plan import UsageError, read_parameters
from lib.student import BEGIN, END, STUB, answered, exercises, without_solutions

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CELLS, WORDS, LONGEST_P90, EXERCISES = (15, 40), (600, 1500), 20, 2
CLOSING = ("summary", "what can go wrong", "exercises")
PROFILES = ("smoke", "workshop", "full")
OTHER_MACHINE = r"(?<![\w./:<])/(?:home|work|root|tmp|usr|mnt|opt|var|Users|content)/|\b[A-Z]:\\"
NETWORK = (
    r"\b(?:urlopen|urlretrieve|download_url|hf_hub_download|load_state_dict_from_url)\b|\brequests\.|^\s*[!%]\s*(?:pip|"
    r"conda|wget|curl|git|apt)\b|pretrained\s*=\s*True"
)


def problems(name: str, notebook: nbformat.NotebookNode) -> list[str]:
    """Every broken habit of a notebook as one sentence."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    text = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    checks = (_names(name, notebook), _sizes(code, text), _parameters(name, notebook), _prose(text), _code(code))
    return [problem for found in (*checks, _outputs(code), _exercises(name, notebook)) for problem in found]


def _names(name, notebook):
    if not re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", name):
        yield f"{name}: the name is not NN_title.ipynb"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernelspec is not python3"
    ids = [cell.get("id") for cell in notebook.cells]
    if None in ids or len(set(ids)) < len(ids):
        yield "cells need ids, each its own (nbformat 4.5)"


def _sizes(code, text):
    if not CELLS[0] <= len(code) + len(text) <= CELLS[1]:
        yield f"{len(code) + len(text)} cells, there should be {CELLS[0]}–{CELLS[1]}"
    words = sum(len(cell.source.split()) for cell in text)
    if not WORDS[0] <= words <= WORDS[1]:
        yield f"{words} words of prose, there should be {WORDS[0]}–{WORDS[1]}"
    lines = [len(cell.source.splitlines()) for cell in code]
    if len(lines) > 1 and (longest := statistics.quantiles(lines, n=10, method="inclusive")[-1]) > LONGEST_P90:
        yield f"nine tenths of the code cells should have at most {LONGEST_P90} lines, not {longest:.1f}"


def _parameters(name, notebook):
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        yield f"{len(cells)} cells are tagged parameters, there must be exactly one"
        return
    try:
        defaults, comments = read_parameters(notebook, name)
    except UsageError as error:
        yield str(error)
        return
    yield from (f"parameter {key} has no comment" for key, comment in comments.items() if not comment)
    if defaults.get("profile") != "workshop":
        yield 'there is no parameter profile = "workshop"'
    if defaults.get("data_dir", "data/synthetic") != "data/synthetic":
        yield "data_dir is the data set of people that `make workbook` gives to every notebook: call another kind otherwise"
    for key in ("data_dir", "out_dir"):
        if str(defaults.get(key, "")).startswith(("/", "~")):
            yield f"{key} is not relative to the repository"
    if "results.json" in "".join(cell.source for cell in notebook.cells) and "out_dir" not in defaults:
        yield "results.json needs the parameter out_dir"


def _prose(text):
    opening = text[0].source if text else ""
    if not opening.startswith("# "):
        yield "the first markdown cell does not begin with a heading"
    if not re.search(r"\bminutes?\b", opening):
        yield "the opening does not say how many minutes it takes"
    headings = [
        re.sub(r"\W*$", "", line.lstrip("# ")).lower()
        for cell in text
        for line in _without_code(cell.source).splitlines()
        if line.startswith("#")
    ]
    yield from (f"there is no heading {word.capitalize()!r}" for word in CLOSING if word not in headings)


def _code(code):
    for cell in code:
        start = f"code cell {cell.get('id')}:"
        if re.search(NETWORK, cell.source, re.MULTILINE):
            yield f"{start} needs a network"
        if match := re.search(OTHER_MACHINE, cell.source):
            yield f"{start} has the absolute path {match[0]}"
        if re.search(r"\binput\(|os\.chdir\(|^\s*%cd\b", cell.source, re.MULTILINE):
            yield f"{start} waits for a person or changes the working folder"
        if "raises-exception" in cell.metadata.get("tags", ()):
            yield f"{start} is tagged raises-exception, which stops a headless run: show errors with try/except"
        if re.search(r"\bcuda\(\)|device\s*=\s*[\"']cuda", cell.source):
            yield f"{start} needs a GPU"
    if not any(re.search(r"^\s*assert\b", cell.source, re.MULTILINE) for cell in code):
        yield "no cell asserts anything"


def _outputs(code):
    for cell in code:
        tags = set(cell.metadata.get("tags", ()))
        if cell.outputs and "keep_output" not in tags:
            yield f"code cell {cell.get('id')} has outputs: run nbstripout --keep-count, or tag it keep_output"
        if "keep_output" in tags and "nbval-check-output" not in tags:
            yield f"code cell {cell.get('id')} keeps its output, so it also needs the tag nbval-check-output"


def _exercises(name, notebook):
    """Below the heading Exercises: text, a solution to find, a check that has been seen to say no (lib.student)."""
    headings = [re.search(r"^#+\s*exercises\b", cell.source.lower(), re.MULTILINE) for cell in notebook.cells]
    start = next((index for index, found in enumerate(headings) if found), len(headings))
    try:
        pairs = exercises(notebook, name)
        without_solutions(notebook, name)
    except ValueError as error:
        yield str(error)
        return
    if len(pairs) < EXERCISES:
        yield f"{len(pairs)} exercises check themselves, there should be {EXERCISES} (see lib/student.py)"
    checks = [cell for cell in notebook.cells if "check" in cell.metadata.get("tags", ())]
    yield from (f"cell {c.id} is tagged check, but no solution to find is above it" for c in checks
                if all(c is not check for _, check in pairs))  # fmt: skip
    for solution, check in pairs:
        where = notebook.cells.index(solution)
        if where <= start or notebook.cells[where - 1].cell_type != "markdown":
            yield f"cell {solution.id}: the exercise is not told in the cell above, below the heading Exercises"
        yield from _one_exercise(solution, check)


def _one_exercise(solution, check):
    wrong = solution.metadata.get("wrong", [])
    if not wrong or not all(isinstance(answer, str) for answer in wrong):
        yield f"cell {solution.id}: its metadata 'wrong' lists no answer that the check refuses"
    for answer in (STUB, *wrong):
        try:
            ast.parse(answered(solution.source, answer))
        except SyntaxError as error:
            yield f"cell {solution.id} is no Python with the answer {answer!r}: {error.msg}"
    asserts = [node for node in ast.walk(ast.parse(check.source)) if isinstance(node, ast.Assert)]
    if not asserts or any(node.msg is None for node in asserts):
        yield f"cell {check.id}: a check consists of asserts, each with a sentence that helps"


def _without_code(source: str) -> str:
    return re.sub(r"^(```|~~~).*?^\1", "", source, flags=re.MULTILINE | re.DOTALL)


def test_there_are_notebooks():
    assert NOTEBOOKS, "notebooks/ is empty"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_the_habits(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    found = problems(path.name, notebook)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_cells_are_python(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            source = re.sub(r"^\s*[%!].*$", "pass", cell.source, flags=re.MULTILINE)
            ast.parse(source)
            list(tokenize.generate_tokens(StringIO(source).readline))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_students_get_python_without_answers(path):
    notebook = nbformat.read(path, as_version=4)
    given = without_solutions(notebook, path.name)
    nbformat.validate(given)
    code = [cell.source for cell in given.cells if cell.cell_type == "code"]
    for source in code:
        ast.parse(re.sub(r"^\s*[%!].*$", "pass", source, flags=re.MULTILINE))
    assert not any(mark in source for source in code for mark in (BEGIN, END))
    assert sum(STUB in source for source in code) == len(exercises(notebook))


def good_notebook():
    """The smallest notebook that keeps every habit."""
    markdown, code = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    cells = [markdown("# Title\n\nYou will have a model (about 5 minutes). " + "word " * 600)]
    cells += [code('profile = "workshop"  # how long it may take', metadata={"tags": ["parameters"]})]
    cells += [code(f"assert {number} < 20") for number in range(12)]
    cells += [
        markdown("## Summary"),
        markdown("## What can go wrong"),
    ]
    for number in range(2):
        cells += [markdown("## Exercises"), code("a = None\n### BEGIN SOLUTION\na = 4\n### END SOLUTION")]
        cells[-1].metadata.update(tags=["solution"], wrong=["a = 5"])
        cells += [code("assert a == 4, f'four, not {a}'", metadata={"tags": ["check"]})]
    return nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )


def spoil(change):
    notebook = good_notebook()
    change(notebook)
    return problems("10_title.ipynb", notebook)


def test_the_good_notebook_has_no_problem():
    assert problems("10_title.ipynb", good_notebook()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n: n.cells.__setitem__(slice(2, 12), []), "12 cells"),
        (lambda n: n.cells[0].update(source="# Title\n\n5 minutes"), "words of prose"),
        (lambda n: n.cells[0].update(source=n.cells[0].source.replace("minutes", "moments")), "how many minutes"),
        (lambda n: [c.update(source="a = 1\n" * 21 + "assert a") for c in n.cells[2:5]], "at most 20 lines"),
        (lambda n: n.cells[1].metadata.update(tags=[]), "exactly one"),
        (lambda n: n.cells[1].update(source='profile = "workshop"'), "profile has no comment"),
        (lambda n: n.cells[1].update(source='profile = "smoke"  # x'), 'profile = "workshop"'),
        (lambda n: n.cells[1].update(source="a = 1  # x\nb = a + 1  # x"), "only `name = scalar`"),
        (
            lambda n: n.cells[1].update(source='profile = "workshop"  # x\ndata_dir = "data/mine"  # x'),
            "call another kind",
        ),
        (lambda n: n.cells[2].update(source="open('/home/me/x.jpg')"), "absolute path /home/"),
        (lambda n: n.cells[2].update(source="!pip install x"), "needs a network"),
        (lambda n: n.cells[2].update(source="input('ready?')"), "waits for a person"),
        (lambda n: n.cells[2].update(source="model.cuda()"), "needs a GPU"),
        (lambda n: n.cells[2].update(outputs=[nbformat.v4.new_output("stream", text="1")]), "has outputs"),
        (lambda n: n.cells[2].metadata.update(tags=["keep_output"]), "nbval-check-output"),
        (lambda n: n.cells[2].metadata.update(tags=["raises-exception"]), "try/except"),
        (lambda n: n.cells.__delitem__(slice(-3, None)), "1 exercises check themselves"),
        (lambda n: n.cells[-2].metadata.update(wrong=[]), "lists no answer"),
        (lambda n: n.cells[-2].metadata.update(wrong=["a = "]), "no Python with the answer"),
        (lambda n: n.cells[-2].update(source="a = 4"), "no solution to find is above"),
        (
            lambda n: n.cells[-2].update(source=n.cells[-2].source.replace("END", "end")),
            "one line '### BEGIN SOLUTION'",
        ),
        (lambda n: n.cells[-1].update(source="assert a == 4"), "each with a sentence"),
        (lambda n: n.cells[-1].metadata.update(tags=[]), "the tag check"),
        (lambda n: n.cells[-3].update(cell_type="raw"), "not told in the cell above"),
        (lambda n: n.cells[-7].update(source="## Trouble"), "What can go wrong"),
        (lambda n: n.cells[3].update(id=n.cells[4].id), "cells need ids"),
        (lambda n: n.metadata.kernelspec.update(name="conda-env"), "not python3"),
        (lambda n: [c.update(source=c.source.replace("assert", "print()#")) for c in n.cells], "asserts"),
    ],
)
def test_every_rule_can_be_broken(change, words):
    assert words in "\n".join(spoil(change))
