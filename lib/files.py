"""Files: written beside and moved into place, and never outside the folder they belong to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePosixPath

try:
    import fcntl
except ImportError:  # Windows, where `locked` holds nothing
    fcntl = None


@contextmanager
def beside(path: str | Path) -> Iterator[Path]:
    """A path in the same folder to write to; it becomes `path` when the block ends, and is removed when it fails.

    Whoever reads `path` sees the old file or the new one, never half of one. The suffix is kept, so that libraries which
    choose a format by it do the same. What a killed process left behind is removed by the next one that writes here.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent.absolute())
    writing = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield writing
        os.replace(writing, path)
    except OSError as error:
        if error.errno and not error.filename:  # a full disk does not say for which file it has no room
            error.filename = str(path)
        raise
    finally:
        writing.unlink(missing_ok=True)


def write(path: str | Path, content: bytes | str) -> Path:
    """Write a whole file at once (text as UTF-8), beside and moved into place; makes the folder."""
    with beside(path) as writing:
        writing.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Hold a file or folder that exists; the system lets go of it when the process ends, however it ends.

    Raises:
        RuntimeError: another process holds it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"{path}: another process is writing it; wait for it or end it") from error
        yield
    finally:
        os.close(handle)


def relative(name: str) -> PurePosixPath:
    """A name that stands in a data file, as a path below its folder.

    Raises:
        ValueError: the name is empty, absolute, has a drive, a `..` or a NUL.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if not path.name or path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in name:
        raise ValueError(f"{name!r} leaves its folder: write it relative to that folder, without '..'")
    return path


def inside(folder: str | Path, name: str) -> Path:
    """`folder / name` for a name that stands in a data file or an archive.

    Raises:
        ValueError: of `relative`, or the name reaches out of the folder through a link.
    """
    path = Path(folder, relative(name))
    if not path.resolve().is_relative_to(Path(folder).resolve()):
        raise ValueError(f"{name!r} leaves {folder} through a link: copy the file into the folder")
    return path


@cache
def _sweep(folder: Path) -> None:
    """Once for each folder and process: listing tens of thousands of files takes longer than writing one."""
    for entry in os.scandir(folder):
        left = re.fullmatch(r"\..+\.(\d+)\.part(\.[^.]*)?", entry.name)
        if left and entry.is_file(follow_symlinks=False) and not _alive(int(left[1])):
            Path(entry).unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
