"""Names of pictures: relative to their folder, whatever a tool made of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import Image

from lib import files
from lib.exchange.changes import Changes


def file_names(rows: list[dict[str, Any]], changes: Changes, folder: Path | None = None) -> list[str]:
    """Where the pictures of COCO image entries lie, relative to their folder.

    Backslashes, links to a server, absolute paths and `..` are taken away. With a `folder`, the longest end of the name
    under which a picture is there is taken.
    """
    if folder is not None and not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: the folder of the pictures does not exist")
    names = []
    for row in rows:
        given = row.get("file_name") or row.get("path")
        if not isinstance(given, str) or not given.strip("./\\ "):
            raise ValueError(f"image {row.get('id')} has the file_name {given!r}: every image needs one")
        try:
            name, there = _inside(given, folder)
        except (OSError, ValueError):
            raise ValueError(f"image {row.get('id')}: no file can have the file_name {given!r:.60}") from None
        if name != given:
            changes.add("file name made relative to the folder of the pictures", f"{given} → {name}")
        if not there:
            changes.add("picture is not in the folder", f"{name} in {folder}", "warning")
        names.append(name)
    for name, count in Counter(names).items():
        if count > 1:
            rule = "file name that several images share: their figures cannot be told apart"
            changes.add(rule, name, "severe", count)
    return names


def picture_size(folder: Path, name: str) -> tuple[int, int] | None:
    """(width, height) from a picture's head, without decoding it; None where there is no picture."""
    try:
        with Image.open(files.inside(folder, name)) as image:
            return image.size
    except (OSError, ValueError):
        return None


def _inside(given: str, folder: Path | None) -> tuple[str, bool]:
    """The name inside its folder, and whether a picture is there (yes, where nobody knows)."""
    link = urlsplit(given) if "://" in given else None
    path = PurePosixPath(unquote(link.path) if link else given.replace("\\", "/"))
    whole = path.is_absolute() or link is not None or ":" in path.parts[0]
    parts = [part for part in path.parts if part not in ("/", "..") and ":" not in part]
    ends = ["/".join(parts[k:]) for k in range(len(parts))]
    if folder is not None:
        for end in ends:
            if files.inside(folder, end).is_file():
                return end, True
    return (ends[-1] if whole else ends[0]), folder is None
