"""Which notebooks run, and with which parameters: everything that can be wrong is said before the first cell runs."""

from __future__ import annotations

import ast
import difflib
import hashlib
import io
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

PROFILES = ("smoke", "workshop", "full")
WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class UsageError(ValueError):
    """The user asked for something that does not exist or does not fit; the message says what does."""


@dataclass
class Chapter:
    """One notebook of a run.

    Attributes:
        path: the notebook.
        heading: its first markdown heading.
        sha256: of the kinds and sources of its cells; outputs and execution counts do not matter.
        defaults: the scalars of its `parameters` cell, by name.
        comments: what the notebook says about each of them.
        overrides: the values this run gives to its parameters, checked against the defaults' types.
    """

    path: Path
    heading: str
    sha256: str
    defaults: dict[str, object]
    comments: dict[str, str]
    overrides: dict[str, object] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.path.stem

    def parameters_in(self, folder: Path) -> dict[str, object]:
        """Overrides of this run; `out_dir`, where the notebook has it and the user did not set it, is `folder`."""
        own = {"out_dir": str(folder)} if "out_dir" in self.defaults else {}
        return own | self.overrides


def plan(
    folder: Path, names: Sequence[str], profile: str, data_dir: str | None, parameters: Mapping[str, object]
) -> list[Chapter]:
    """Read the chosen notebooks and give each its parameters.

    Args:
        folder: holds the notebooks, `NN_title.ipynb`, in reading order.
        names: "10", "10_train_trt_pose" or a file's path; none = all.
        profile: smoke, workshop or full; for notebooks which have `profile`.
        data_dir: for notebooks which have `data_dir`; None leaves their own.
        parameters: name → value, or "10.name" → value; text is converted to the default's type.

    Returns:
        Chapters in the order of their names.

    Raises:
        UsageError: an unknown notebook, profile or parameter (naming the nearest) or a value of the wrong type.
    """
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        raise UsageError(f"no notebooks in {folder}")
    if profile not in PROFILES:
        raise UsageError(f"profile {profile!r} is unknown{nearest(profile, PROFILES)}")
    titles = [path.stem for path in paths]
    chosen = {_title(name, titles) for name in names} or set(titles)
    chapters = [_read(path) for path in paths if path.stem in chosen]
    for chapter in chapters:
        common = {"profile": profile} | ({} if data_dir is None else {"data_dir": data_dir})
        chapter.overrides.update({key: value for key, value in common.items() if key in chapter.defaults})
    for key, value in parameters.items():
        _give(chapters, titles, key, value)
    if data_dir is not None and not any("data_dir" in chapter.defaults for chapter in chapters):
        raise UsageError("none of the chosen notebooks has the parameter data_dir")
    return chapters


def read_parameters(notebook: nbformat.NotebookNode, where: str) -> tuple[dict[str, object], dict[str, str]]:
    """Names → default scalars, and names → comments, of the one cell tagged `parameters` (none: empty).

    Raises:
        UsageError: there are several such cells, or a line is not `name = scalar`.
    """
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    if len(cells) > 1:
        raise UsageError(f"{where}: {len(cells)} cells are tagged parameters, there may be one")
    source = cells[0].source if cells else ""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    remarks = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    defaults, comments = {}, {}
    for statement in ast.parse(source).body:
        try:
            (target,) = statement.targets
            value = ast.literal_eval(statement.value)
            if isinstance(value, list | tuple | dict | set):
                raise TypeError("not a scalar")
            defaults[target.id] = value
            comments[target.id] = remarks.get(statement.lineno, "")
        except (AttributeError, TypeError, ValueError):
            line = ast.get_source_segment(source, statement)
            raise UsageError(f"{where}: the parameters cell may hold only `name = scalar`, not `{line}`") from None
    return defaults, comments


def _read(path: Path) -> Chapter:
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # noqa: BLE001  nbformat raises whatever its JSON and schema libraries raise
        raise UsageError(f"{path} is not a readable notebook: {error}") from None
    defaults, comments = read_parameters(notebook, path.name)
    lines = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").splitlines()
    heading = next((line.lstrip("# ").strip() for line in lines if line.startswith("# ")), path.stem)
    cells = "\0".join(f"{cell.cell_type}\0{cell.source}" for cell in notebook.cells)
    return Chapter(path, heading, hashlib.sha256(cells.encode()).hexdigest(), defaults, comments)


def _title(name: str, titles: Sequence[str]) -> str:
    """The notebook meant by "1", "01", "01_synthetic_people" or "notebooks/01_synthetic_people.ipynb"."""
    stem = Path(name).name.removesuffix(".ipynb")
    found = [title for title in titles if title == stem or title.split("_")[0] == stem.zfill(2)]
    if len(found) != 1:
        raise UsageError(f"notebook {name!r} is {'ambiguous' if found else 'unknown'}{nearest(stem, found or titles)}")
    return found[0]


def _give(chapters: Sequence[Chapter], titles: Sequence[str], key: str, value: object) -> None:
    """Set a parameter in every notebook which has it; "10.key" names one notebook."""
    prefix, dot, name = key.rpartition(".")
    owners = [chapter for chapter in chapters if not dot or chapter.title == _title(prefix, titles)]
    if not owners:
        raise UsageError(f"{key}: {_title(prefix, titles)} is not among the chosen notebooks")
    takers = [chapter for chapter in owners if name in chapter.defaults]
    if not takers:
        known = {name for chapter in owners for name in chapter.defaults}
        where = f"{owners[0].title} has no" if len(owners) == 1 else "none of the chosen notebooks has the"
        raise UsageError(f"{where} parameter {name!r}{nearest(name, sorted(known))}")
    for chapter in takers:
        chapter.overrides[name] = _convert(value, chapter.defaults[name], f"{chapter.title}: {name}")


def _convert(value: object, default: object, where: str) -> object:
    """Text from the command line → the default's type; other values must have that type already."""
    kind = type(default)
    try:
        if default is None or (kind is str and isinstance(value, str | Path)):
            return str(value) if isinstance(value, Path) else value
        if isinstance(value, str) and kind is bool:
            return WORDS[value.lower()]
        if isinstance(value, str) and kind is not str:
            return kind(value)
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise ValueError
        return value
    except (KeyError, ValueError):
        raise UsageError(f"{where}: {value!r} is not of type {kind.__name__}, the default is {default!r}") from None


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: the known one that looks like it, or all of them."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f", did you mean {near[0]!r}?" if near else f"; there is {', '.join(known) or 'none'}"
