"""Command lines: whatever is wrong in one is a sentence, which names the nearest option where one is misspelt."""

from __future__ import annotations

import difflib
import re
from typing import NoReturn

import jsonargparse


class WrongArguments(ValueError):
    """A command line that cannot be understood; in a shell its exit status is 2."""


class OneSentence:
    """A parser of jsonargparse with this before it raises `WrongArguments`, where that would print its usage and exit."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        option = re.search(r"[Uu]nrecognized arguments: --?([\w.]+)", message)
        member = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
        key = option[1] if option else ".".join(member.groups()) if member else None
        near = difflib.get_close_matches(key, [action.dest for action in self._actions], 1, cutoff=0.5) if key else ()
        message = " ".join(re.sub(r"<class '([\w.]+)'>", r"\1", message).replace("a typing.Literal[", "one of [").split())
        raise WrongArguments(f"{message}; " + (f"did you mean {near[0]!r}?" if near else f"see {self.prog} --help")) from ex


class Parser(OneSentence, jsonargparse.ArgumentParser):
    """The parser of every command but training, which has Lightning's."""
