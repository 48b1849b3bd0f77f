"""Archives from the internet unpacked: nothing outside the folder, nothing overwritten, nothing but files, never too much."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tqdm.auto import tqdm

from lib import files
from lib.files import locked
from lib.prepare.steps import readable, require_space

CHUNK = 1 << 20
Select = Callable[[str], str | None]

# .., an absolute name, a drive or another prefix with a colon, a backslash, a control character
_HOSTILE = re.compile(r"(^|/)\.\.(/|$)|^/|^[^/]*:|\\|[\0-\x1f\x7f]")
_LINKS_AND_DEVICES = (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError,
           UnicodeDecodeError, RuntimeError)  # fmt: skip
_LIMIT, _RATIO = 64 << 20, 200


def unpack(archive: str | Path, folder: str | Path, select: Select | None = None, max_bytes: int | None = None) -> int:
    """Unpack a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz; one that was broken off or killed goes on where it stopped.

    Every file is written beside and moved into place when it is complete. A file that is there already is compared with
    the archive and kept. The archive is only read. Permissions, owners and times are not taken over.

    Args:
        archive: what to unpack.
        folder: where to; made if it is missing.
        select: gets the name of each file in the archive and returns the name it shall have below `folder`
            (`lambda name: name.removeprefix("images/")`), or None to leave it out. None takes everything as it is.
        max_bytes: refuse to write more than that; None: 200 times the archive's size, and 64 MiB for a small one.

    Returns:
        The number of selected files, all of which are in place.

    Raises:
        ValueError: not an archive; damaged; a name that leaves the folder (`..`, absolute, a drive, a backslash, a
            control character); a link, device, sparse or encrypted file; two names for one file, also where a disk does
            not tell upper from lower case; entries that share bytes, or more bytes than `max_bytes`; a file that is
            there with another content. A zip is checked before its first byte is written.
        OSError: no room on the disk.
        RuntimeError: another process is unpacking into this folder.
    """
    archive, folder = Path(archive), Path(folder)
    with open(archive, "rb") as file:
        start = file.read(512)
    limit = max(_LIMIT, _RATIO * archive.stat().st_size) if max_bytes is None else max_bytes
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        unpacking = _Unpacking(archive, folder, select or str, limit)
        if start[:4] in (b"PK\3\4", b"PK\5\6"):
            return unpacking.zip()
        for magic, opener in {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}.items():
            if start.startswith(magic):
                return unpacking.tar(opener)
        if start[257:262] == b"ustar":
            return unpacking.tar(lambda file: file)
    raise ValueError(f"{archive} is neither a zip nor a tar archive: it starts with {start[:16]!r}")


class _Unpacking:
    """One archive on its way into one folder."""

    def __init__(self, archive: Path, folder: Path, select: Select, limit: int):
        self.archive, self.folder, self.select, self.limit = archive, folder, select, limit
        self.temporary = folder / ".unpacking.part"
        self.parents: dict[PurePosixPath, Path] = {}
        self.folders: set[str] = set()
        self.taken: set[str] = set()

    def zip(self) -> int:
        with self.damage("its list of files"), zipfile.ZipFile(self.archive) as archive:
            self.check_overlaps(archive)
            places = [(info, place) for info in archive.infolist() if (place := self.zip_place(info))]
            total = sum(info.file_size for info, _ in places)
            self.check_total(total)
            require_space(self.folder, sum(info.file_size for info, place in places if not place.exists()))
            # in the order of the bytes, so that a disk reads from front to back
            with self.writing(total) as bar:
                for info, place in sorted(places, key=lambda pair: pair[0].header_offset):
                    with self.damage(info.filename):
                        if place.exists():
                            self.check_same(place, info.file_size, info.CRC)
                        else:
                            with archive.open(info) as source:
                                self.put(source, place)
                    bar.update(info.file_size)
        return len(places)

    def tar(self, opener: Callable[[BinaryIO], BinaryIO]) -> int:
        count = total = 0
        with (
            self.damage("its first entry"),
            open(self.archive, "rb") as raw,
            opener(raw) as stream,
            self.writing(self.archive.stat().st_size) as bar,
            tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictTarInfo) as archive,
        ):
            name = "its first entry"
            while True:
                with self.damage(f"what follows {name}"):
                    if (member := archive.next()) is None:
                        break
                name, archive.members = member.name, []  # tarfile remembers every entry, which is not needed here
                total += 512 + member.size
                self.check_total(total)
                if place := self.tar_place(member):
                    with self.damage(name):
                        self.put_member(archive, member, place)
                    count += 1
                bar.update(raw.tell() - bar.n)
            with self.damage(f"what follows {name}"):
                while stream.read(CHUNK):  # up to the checksum at the end
                    pass
        return count

    def put_member(self, archive: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> None:
        if place.exists():
            self.check_same(place, member.size, _crc(archive.extractfile(member)))
        else:
            require_space(self.folder, member.size)
            self.put(archive.extractfile(member), place)

    def zip_place(self, info: zipfile.ZipInfo) -> Path | None:
        # zipfile cuts names at a NUL; the original tells
        self.check_name(info.orig_filename)
        if stat.S_IFMT(info.external_attr >> 16) in _LINKS_AND_DEVICES:
            raise ValueError(f"{self.archive}: {info.filename!r} is a link or a device: refused")
        if info.flag_bits & 0x41:
            raise ValueError(f"{self.archive}: {info.filename!r} is encrypted: unpack it yourself, with its password")
        return None if info.is_dir() else self.place(info.filename)

    def tar_place(self, member: tarfile.TarInfo) -> Path | None:
        self.check_name(member.name)
        if member.isdir():
            return None
        if not member.isreg() or member.issparse():
            raise ValueError(f"{self.archive}: {member.name!r} is a link, a device or a sparse file: refused")
        return self.place(member.name)

    def check_name(self, name: str) -> None:
        if _HOSTILE.search(name) or not name:
            raise ValueError(f"{self.archive}: the name {name!r} leaves its folder: refused, do not trust this archive")

    def place(self, name: str) -> Path | None:
        """Where a file goes: inside the folder, and in a place of its own."""
        chosen = self.select(name)
        if chosen is None:
            return None
        path, parent = PurePosixPath(chosen), PurePosixPath(chosen).parent
        self.check_name(path.name and chosen)
        key, clash = _key(path), False
        if parent not in self.parents:
            # once for each folder, because it resolves links, which takes its time
            self.parents[parent] = files.inside(self.folder, f"{parent}/{path.name}").parent
            above = {_key(folder) for folder in path.parents}
            clash = not above.isdisjoint(self.taken)
            self.folders |= above
        if clash or key in self.taken or key in self.folders:
            raise ValueError(f"{self.archive}: {name!r} would overwrite another entry of the archive: refused")
        self.taken.add(key)
        return self.parents[parent] / path.name

    def check_overlaps(self, archive: zipfile.ZipFile) -> None:
        """Entries that share compressed bytes are how a small zip becomes petabytes."""
        entries = sorted(archive.infolist(), key=lambda info: info.header_offset)
        starts = [info.header_offset for info in entries[1:]] + [archive.start_dir]
        for info, following in zip(entries, starts, strict=True):
            if info.header_offset + 30 + len(info.orig_filename) + info.compress_size > following:
                raise ValueError(f"{self.archive}: {info.filename!r} shares its bytes with another entry: refused")

    def check_total(self, total: int) -> None:
        if total > self.limit:
            raise ValueError(f"{self.archive}: {readable(self.archive.stat().st_size)} claim to hold {readable(total)}, "
                             f"more than the {readable(self.limit)} that are allowed: refused")  # fmt: skip

    def check_same(self, place: Path, size: int, crc: int) -> None:
        with open(place, "rb") as file:
            if place.stat().st_size != size or _crc(file) != crc:
                raise ValueError(f"{place} is there already and differs from {self.archive}: move it away or delete it")

    def put(self, source: BinaryIO, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with open(self.temporary, "wb") as target:
            shutil.copyfileobj(source, target, CHUNK)
        os.replace(self.temporary, place)

    @contextmanager
    def writing(self, total: int) -> Iterator[tqdm]:
        try:
            with tqdm(total=total, desc=self.archive.name, unit="B", unit_scale=True, leave=False) as bar:
                yield bar
        finally:
            self.temporary.unlink(missing_ok=True)

    @contextmanager
    def damage(self, where: str) -> Iterator[None]:
        """Errors of the archive libraries in one sentence that names the place."""
        try:
            yield
        except DAMAGE as error:
            raise ValueError(f"{self.archive} is damaged, or of a kind that Python cannot read, at {where!r} ({error}): "
                             "get it again, or unpack it with another program") from error  # fmt: skip


class _StrictTarInfo(tarfile.TarInfo):
    """tarfile takes a damaged header for the end of the archive, and reads extended headers of any size into memory."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no valid header: {error}") from error
        if info.size < 0 or not (info.isreg() or info.isdir() or info.islnk() or info.issym() or info.size <= CHUNK):
            raise tarfile.ReadError(f"a header of {info.size:,} bytes")
        return info


def _key(path: PurePosixPath) -> str:
    """One key for all the names that a disk may take for the same file."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _crc(file: BinaryIO) -> int:
    crc = 0
    while chunk := file.read(CHUNK):
        crc = zlib.crc32(chunk, crc)
    return crc
