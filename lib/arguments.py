"""Command lines: whatever is wrong in one is a sentence, which names the nearest option where one is misspelt."""

from __future__ import annotations

import difflib
import re
from dataclasses import fields, is_dataclass
from typing import NoReturn, get_args

import jsonargparse


class WrongArguments(ValueError):
    """A command line that cannot be understood; in a shell its exit status is 2."""


class OneSentence:
    """A parser of jsonargparse with this before it raises `WrongArguments`, where that would print its usage and exit."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        option = re.search(r"[Uu]nrecognized arguments: --?([\w.]+)", message)
        member = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
        known = [action.dest for action in self._actions]
        # of an option that may also be null, such as data.boxes: its own options are none of the parser's
        if inner := re.search(r"Parser key \"([\w.]+)\":.*?Option '(\w+)' is not accepted", message, re.DOTALL):
            kinds = get_args(next((action._typehint for action in self._actions if action.dest == inner[1]), None))
            known = [f"{inner[1]}.{field.name}" for kind in kinds if is_dataclass(kind) for field in fields(kind)]
            message, member = f"{inner[1]} has no option {inner[2]!r}", inner
        key = option[1] if option else ".".join(member.groups()) if member else None
        near = difflib.get_close_matches(key, known, 1, cutoff=0.5) if key else ()
        raise WrongArguments(f"{plain(message)}; " + (f"did you mean {near[0]!r}?" if near else f"see {self.prog} --help")) from ex


def plain(message: str) -> str:
    """An error of jsonargparse as one line; where a value may be of several kinds, why it is none of them."""
    for pattern, words in ((r"<class '([\w.]+)'>", r"\1"), (r'Parser key "([\w.]+)":', r"\1:"), (r"; see [\w. -]+ --help", "")):
        message = re.sub(pattern, words, message)
    message = " ".join(message.replace("a typing.Literal[", "one of [").split())
    kinds = re.search(r"Does not validate against any of the Union subtypes .*? Errors: - (.*) Given value type: .*", message)
    if kinds is None:
        return message
    faults = [fault for fault in kinds[1].split(" - ") if fault != "Expected a NoneType"]
    return message[: kinds.start()] + ", or: ".join(faults)


class Parser(OneSentence, jsonargparse.ArgumentParser):
    """The parser of every command but training, which has Lightning's."""
