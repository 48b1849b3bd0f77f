"""The grid of a sweep: a YAML file in, a list of runs out, everything that can be wrong said before the first one starts."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from lib import ROOT
from lib.book_plan import Chapter, UsageError, nearest, plan

KEYS = ("notebook", "profile", "parameters", "cross", "runs")


@dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
        name: of its folder: what is swept, and a few digits of all of its parameters. It depends on nothing else, so a grid
            may grow, shrink or be sorted anew and finds its earlier runs again.
        swept: the parameters in which runs of this grid may differ.
        chapter: the notebook and all parameters.
    """

    name: str
    swept: dict[str, object]
    chapter: Chapter

    @property
    def label(self) -> str:
        return ", ".join(f"{key} = {value}" if value != "" else f"{key} empty" for key, value in self.swept.items())


def read_grid(grid: str | Path | Mapping, profile: str | None = None) -> list[Run]:
    """All runs of a grid (see `lib.sweep`), crossed ones first, the last list moving fastest.

    Args:
        grid: a YAML file, or what stands in one.
        profile: smoke, workshop or full, instead of the grid's.

    Raises:
        UsageError: a key, notebook or parameter is unknown (naming the nearest), a value does not fit, or two runs are the same.
    """
    where = "the grid" if isinstance(grid, Mapping) else str(grid)
    content = dict(grid) if isinstance(grid, Mapping) else _read(Path(grid))
    for key in content:
        if key not in KEYS:
            raise UsageError(f"{where}: {key!r} is unknown{nearest(str(key), KEYS)}")
    if not isinstance(content.get("notebook"), str | int):
        raise UsageError(f"{where}: say which notebook, as `notebook: 21` or with the path of a file")
    fixed, points = _points(content, where)
    path = Path(str(content["notebook"]))
    folder = ROOT / path.parent if path.suffix == ".ipynb" else ROOT / "notebooks"
    chapters: dict[str, Chapter] = {}
    for point in points:
        try:
            (chapter,) = plan(folder, [path.name], profile or content.get("profile", "workshop"), None, fixed | point)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        if "out_dir" in chapter.overrides:
            raise UsageError(f"{where}: leave out_dir out, every run has a folder of its own")
        name = _name({key: chapter.overrides[_bare(key)] for key in point}, chapter.overrides)
        if name in chapters:
            raise UsageError(f"{where}: two runs are the same: {point or 'without any parameter'}")
        chapters[name] = chapter
    swept = dict.fromkeys(_bare(key) for point in points for key in point)
    return [Run(name, {key: (c.defaults | c.overrides)[key] for key in swept}, c) for name, c in chapters.items()]


def _bare(key: str) -> str:
    """`epochs` of `10.epochs`."""
    return key.rpartition(".")[2]


def _read(path: Path) -> dict:
    try:
        content = _Strict(path.read_text("utf-8")).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a grid is a table with the keys {', '.join(KEYS)}")
    return content


class _Strict(yaml.SafeLoader):
    """YAML, but a key that stands there twice is an error; the second would silently win."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _points(content: Mapping, where: str) -> tuple[dict, list[dict]]:
    """What all runs share, and what each has of its own."""
    fixed, cross = (_table(content.get(key) or {}, f"{where}: {key}") for key in ("parameters", "cross"))
    for key, values in cross.items():
        if not isinstance(values, list | tuple) or not values:
            raise UsageError(f"{where}: cross: {key} is {values!r}, but should be a list of the values to try")
        if key in fixed:
            raise UsageError(f"{where}: {key} stands under parameters and under cross, leave one of them")
    singles = content.get("runs") or []
    if not isinstance(singles, list | tuple):
        raise UsageError(f"{where}: runs is a list of single runs, each as `- {{name: value}}`")
    crossed = [dict(zip(cross, values, strict=True)) for values in itertools.product(*cross.values())] if cross else []
    points = crossed + [_table(single, f"{where}: runs") for single in singles]
    if not points:
        raise UsageError(f"{where}: nothing to sweep; give lists under cross, or single runs under runs")
    for key, value in itertools.chain(fixed.items(), *(point.items() for point in points)):
        if isinstance(value, list | dict | None):
            raise UsageError(f"{where}: {key} is {value!r}, but parameters are single numbers, words, true or false")
    return fixed, points


def _table(content: object, where: str) -> dict[str, object]:
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"{where}: {content!r} is not a table of `name: value`")
    return dict(content)


def _name(swept: Mapping[str, object], overrides: Mapping[str, object]) -> str:
    """Readable first, unique by its last digits, and a file name on every system."""
    readable = re.sub(r"[^\w.=,+-]+", "-", ",".join(f"{k}={v}" for k, v in swept.items()), flags=re.ASCII)[:80]
    digits = hashlib.sha256(json.dumps(overrides, sort_keys=True).encode()).hexdigest()[:6]
    return f"{readable}-{digits}".lstrip("-.")
