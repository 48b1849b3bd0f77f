"""Keypoints find their places by name: LShoulder, l_shoulder, left shoulder and Shoulder.Left are left_shoulder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from lib.skeleton import Skeleton

_SIDES = {"left": "left", "l": "left", "lt": "left", "right": "right", "r": "right", "rt": "right"}
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_GLUED = re.compile(r"(left|right|l|r)(.{2,})")


def match_names(names: Sequence[str], skeleton: Skeleton, aliases: Mapping[str, str] | None = None) -> dict[str, str]:
    """Which of our keypoints every name of a file means.

    An exact name comes first, then an alias, then the name without case, separators and camel humps, its side (l, left,
    lt, r, right, rt) wherever it stands. A side glued to the word (lshoulder) counts only where the file has its twin.

    Args:
        names: as the file writes them.
        skeleton: ours.
        aliases: the file's name → ours, for everything else; its own spelling does not matter either.

    Returns:
        Their name → our name; names without a partner are left out.

    Raises:
        KeyError: an alias leads to a keypoint that the skeleton does not have.
        ValueError: two names of the file mean one of ours.
    """
    ours = _by_key(skeleton.keypoints)
    for target in (aliases or {}).values():
        skeleton.index(target)
    by_alias = {key: aliases[alias] for key, alias in _by_key(aliases or ()).items()}
    found, taken = {}, {}
    for name, key in zip(names, _keys(names)):
        if name in skeleton.keypoints and name not in (aliases or {}):
            match = name
        else:
            match = (aliases or {}).get(name) or by_alias.get(key) or ours.get(key)
        if match is None:
            continue
        if match in taken:
            raise ValueError(f"{taken[match]!r} and {name!r} both mean {match!r}: rename one, or say aliases={{...}}")
        found[name], taken[match] = match, name
    return found


def name_keys(names: Sequence[str]) -> list[tuple[str, str]]:
    """(side, rest) of every name, equal for all its spellings; side is left, right or empty.

    Names of one list which only differ in spelling stay as they are: each means something of its own.
    """
    keys = _keys(names)
    counts = Counter(keys)
    return [key if counts[key] == 1 else ("", name) for key, name in zip(keys, names)]


def unique(names: Sequence[str]) -> list[str]:
    """The same names with _2, _3 … appended where one comes again."""
    result: list[str] = []
    for name in names:
        candidates = [name, *(f"{name}_{n}" for n in range(2, len(names) + 2))]
        result.append(next(c for c in candidates if c not in result))
    return result


def _by_key(names) -> dict[tuple[str, str], str]:
    return dict(zip(name_keys(list(names)), names))


def _keys(names: Sequence[str]) -> list[tuple[str, str]]:
    keys = [_key(name) for name in names]
    known = set(keys)
    for k, (side, rest) in enumerate(keys):
        glued = _GLUED.fullmatch(rest)
        if not side and glued:
            short, word = glued.groups()
            twin = {"l": "r", "r": "l", "left": "right", "right": "left"}[short] + word
            if ("", twin) in known:
                keys[k] = _SIDES[short], word
    return keys


def _key(name: str) -> tuple[str, str]:
    words = [word for word in re.split(r"[\W_]+", _HUMP.sub(" ", name).casefold()) if word]
    sides = [word for word in words if word in _SIDES]
    if len(sides) != 1 or len(words) == 1:
        return "", "".join(words)
    return _SIDES[sides[0]], "".join(word for word in words if word not in _SIDES)
