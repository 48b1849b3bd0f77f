"""Published archives into a folder: room checked, downloaded or taken from a disk, unpacked, and recorded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lib.prepare.archives import unpack
from lib.prepare.download import check_file, download
from lib.prepare.steps import Steps, readable, require_space


class Archive(NamedTuple):
    """What one archive is called on the server and what must be in it; sizes in bytes."""

    address: str
    size: int
    sha256: str
    pattern: str  # of the names that are taken out of it; a group is the name that a file gets
    files: int  # how many these are
    unpacked: int  # their size, with what a disk wastes on each
    places: str = ""  # where they lie in the data folder, as a pattern for `glob`

    @property
    def name(self) -> str:
        return self.address.rpartition("/")[2]

    def select(self, name: str) -> str | None:
        """What `unpack` asks: the name below the data folder, None for what is left in the archive."""
        found = re.fullmatch(self.pattern, name)
        return found and found[found.lastindex or 0]

    def there(self, folder: Path) -> list[Path]:
        """Its files that are in place."""
        return list(folder.glob(self.places))


def fetch(archives: Sequence[Archive], folder: str | Path, given: str | Path | None, url: str, keep: bool) -> None:
    """Bring the files of some archives to their places; stopped at any moment and called again, it goes on.

    Args:
        archives: in the order in which they are fetched.
        folder: data folder. What is downloaded goes to its archives/, what is finished is recorded in its prepared.yaml.
        given: folder that has the archives already; they are only read, and nothing is downloaded.
        url: what stands before the archives' addresses otherwise.
        keep: keep what was downloaded; off: delete each archive once its files are in place.

    Raises:
        OSError: too little room, said before anything starts; a given archive is missing; the download failed.
        ValueError: an archive is damaged or another one than expected.
    """
    folder, own, steps = Path(folder), Path(folder, "archives"), Steps(folder)
    done = [steps.finished(a.name, sha256=a.sha256) and len(a.there(folder)) >= a.files for a in archives]
    todo = [archive for archive, is_done in zip(archives, done, strict=True) if not is_done]
    _check_space(todo, folder, None if given else own, keep)
    for archive in todo:
        if given:
            source = _given(archive, Path(given))
        else:
            source = download(f"{url.rstrip('/')}/{archive.address}", own / archive.name, archive.size, archive.sha256)
        found = unpack(source, folder, archive.select)
        if found != archive.files:
            raise ValueError(f"{source} holds {found:,} of the {archive.files:,} files that are expected: get it again")
        steps.finish(archive.name, sha256=archive.sha256)
        if not (given or keep):
            source.unlink()
    if not (given or keep):
        for archive in archives:  # also those that were finished, and not yet deleted, when it was killed
            (own / archive.name).unlink(missing_ok=True)
        if own.is_dir() and not any(own.iterdir()):
            own.rmdir()


def _check_space(todo: Sequence[Archive], folder: Path, own: Path | None, keep: bool) -> None:
    """Raise OSError before anything starts if the disk would be full at any point of the way."""
    missing = room = most = 0
    for archive in todo:
        if own:
            here = [path.stat().st_size for path in (own / archive.name, own / f"{archive.name}.part") if path.exists()]
            missing += max(0, archive.size - sum(here))
            room += max(0, archive.size - sum(here))
        room += max(0, archive.unpacked - sum(path.stat().st_size for path in archive.there(folder)))
        most = max(most, room)
        room -= archive.size if own and not keep else 0
    require_space(folder, most)
    if todo:
        print(f"{folder}: {readable(missing)} to download, {readable(most)} of room needed, and there")


def _given(archive: Archive, folder: Path) -> Path:
    path = folder / archive.name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: put {archive.name} there, or leave --archives away to download it")
    check_file(path, archive.size, archive.sha256)
    return path
