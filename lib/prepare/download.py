"""One file from a web server: resumed where it broke off, checked before it gets its name."""

from __future__ import annotations

import hashlib
import os
import re
import ssl
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from tqdm.auto import tqdm

from lib import files
from lib.files import locked
from lib.prepare.steps import readable, require_space

CHUNK = 1 << 20


def download(
    url: str,
    path: str | Path,
    size: int | None = None,
    sha256: str | None = None,
    *,
    timeout: float = 30.0,
    retries: int = 5,
    wait: float = 1.0,
) -> Path:
    """Fetch `url` to `path`; a download that was broken off or killed goes on where it stopped.

    Until it is complete and checked the file is called `path` + ".part"; beside it `path` + ".part.json" remembers which
    version of the server's file it is part of. If that changed, or the server cannot send parts, it starts again.
    Without a checksum a part is only continued where the server names versions (ETag or Last-Modified).

    Args:
        url: http or https.
        path: where the file goes. A file that is already there is checked and left as it is.
        size: of the whole file in bytes.
        sha256: of the whole file, as hexadecimal digits.
        timeout: seconds without a byte after which a connection counts as broken.
        retries: attempts in a row that may end without a new byte.
        wait: seconds before the second attempt; doubled with each that fails.

    Returns:
        `path`.

    Raises:
        ValueError: another scheme than http and https, also after a redirection; the server offers another size or a web
            page; the size or a checksum is wrong (a damaged download is removed, a file that was there before is not).
        OSError: the server refuses, or the connection keeps breaking (the part is kept); no room on the disk.
        RuntimeError: another process is downloading the same file.
    """
    path, part = Path(path), Path(f"{path}.part")
    _check_scheme(url)
    if path.exists():
        try:
            check_file(path, size, sha256)
        except ValueError as error:
            raise ValueError(f"{error}. It was here before this download: move it away or delete it") from error
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part.touch()
    with locked(part):
        transfer = _Transfer(url, part, size, bool(sha256), timeout)
        transfer.run(retries, wait)
        try:
            check_file(part, size, sha256)
        except ValueError as error:
            part.unlink()
            transfer.record.unlink(missing_ok=True)
            raise ValueError(f"{error}. The damaged download is removed: start again; if it comes out the same, "
                             f"{url} is not the file that is expected") from error  # fmt: skip
        transfer.record.unlink(missing_ok=True)
        os.replace(part, path)
    return path


def check_file(path: str | Path, size: int | None = None, sha256: str | None = None) -> None:
    """Raise ValueError unless a file has this size in bytes and this checksum; None is not checked."""
    path = Path(path)
    found = path.stat().st_size
    if size is not None and found != size:
        raise ValueError(f"{path} has {found:,} bytes, expected are {size:,}")
    if sha256 is not None and (digest := _digest(path)) != sha256.lower():
        raise ValueError(f"{path} has the sha256 {digest}, expected is {sha256.lower()}")


class _Broken(Exception):
    """The connection failed in a way that another attempt may mend."""


class _Origin(Struct):
    """Which file on which server a part belongs to; `version` is what If-Range takes, `size` in bytes, both if known."""

    url: str
    version: str | None = None
    size: int | None = None


class _Transfer:
    """The bytes of one URL on their way into a .part file."""

    def __init__(self, url: str, part: Path, size: int | None, checked: bool, timeout: float):
        self.url, self.part, self.size, self.checked, self.timeout = url, part, size, checked, timeout
        self.record = Path(f"{part}.json")
        self.opener = urllib.request.build_opener(_Redirections)

    def run(self, retries: int, wait: float) -> None:
        best = failures = 0
        with open(self.part, "ab", buffering=0) as self.file, _bar(self.size, self.part.stem) as self.bar:
            while True:
                try:
                    return self.attempt()
                except _Broken as error:
                    have = self.file.tell()
                    failures = 0 if have > best else failures + 1
                    best = max(best, have)
                    if failures > retries:
                        raise OSError(f"{self.url}: {error}; {readable(have)} are kept in {self.part}: "
                                      "start again to go on from there") from error  # fmt: skip
                    self.bar.write(f"{self.url}: {error}; going on after {readable(have)}")
                    time.sleep(wait * 2**failures)

    def attempt(self) -> None:
        """One connection; returns when the part is the whole file."""
        have, origin = self.resumable()
        if have and have == origin.size:
            return
        headers = {"User-Agent": "pose-workbook", "Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-"} | ({"If-Range": origin.version} if origin.version else {})
        response = self.open(urllib.request.Request(self.url, headers=headers), have)
        if response is None:
            return
        with response:
            total = self.begin(response, have, origin)
            while chunk := self.read(response):
                if total is not None and self.file.tell() + len(chunk) > total:
                    raise ValueError(f"{self.url}: the server sends more than the {total:,} bytes of the file")
                self.file.write(chunk)
                self.bar.update(len(chunk))
        if total is not None and self.file.tell() < total:
            raise _Broken(f"the connection ended after {self.file.tell():,} of {total:,} bytes")

    def resumable(self) -> tuple[int, _Origin]:
        """Bytes that may be kept, and the file they belong to."""
        have, origin = self.file.seek(0, os.SEEK_END), _Origin(self.url, size=self.size)
        if self.record.exists():
            recorded = msgspec.json.decode(self.record.read_bytes(), type=_Origin)
            if recorded.url == self.url:
                origin = _Origin(self.url, recorded.version, self.size or recorded.size)
        if have > (origin.size or have) or not (origin.version or self.checked):
            self.restart()
            have = 0
        self.bar.n = have
        return have, origin

    def restart(self) -> None:
        self.file.truncate(0)
        self.bar.n = self.file.seek(0)

    def open(self, request: urllib.request.Request, have: int) -> HTTPResponse | None:
        """The answer to a request; None if the server says that we have all of the file."""
        try:
            with _network():
                return self.opener.open(request, timeout=self.timeout)
        except HTTPError as error:
            if error.code == 416 and have:
                if _content_range(error.headers) == (None, have):
                    return None
                self.restart()
                raise _Broken("the server's file has become shorter") from error
            if error.code in (408, 425, 429) or error.code >= 500:
                raise _Broken(f"the server answers {error.code} {error.reason}") from error
            raise OSError(f"{self.url}: the server answers {error.code} {error.reason}") from error

    def begin(self, response: HTTPResponse, have: int, origin: _Origin) -> int | None:
        """Look at the answer before its first byte; returns the size of the whole file, None if nobody knows."""
        html = urlsplit(self.url).path.endswith((".html", ".htm"))
        if response.headers.get_content_type() == "text/html" and not html:
            raise ValueError(f"{self.url}: the server answers with a web page instead of the file; open it in a browser "
                             "to see why (a login, the sign-in page of a Wi-Fi, a file that moved)")  # fmt: skip
        length, version = response.headers.get("Content-Length", ""), _version(response.headers)
        start, offered = 0, int(length) if length.isdigit() else None
        if response.status == 206:
            start, offered = _content_range(response.headers)
        if self.size is not None and offered not in (None, self.size):
            raise ValueError(f"{self.url}: the server offers {offered:,} bytes, expected are {self.size:,}")
        known = origin.version, origin.size
        changed = origin.version and (version or known[0], offered or known[1]) != known
        if start != have or changed:
            self.restart()
            if start:
                raise _Broken("the server has another file than before")
        total = self.size if offered is None else offered
        if not self.file.tell():
            files.write(self.record, msgspec.json.encode(_Origin(self.url, version, total)))
        self.bar.total = total
        self.bar.refresh()
        require_space(self.part.parent, (total or 0) - self.file.tell())
        return total

    def read(self, response: HTTPResponse) -> bytes:
        with _network():
            return response.read1(CHUNK)


class _Redirections(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, file, code, message, headers, url):
        _check_scheme(url)
        if request.full_url.startswith("https:") and not url.lower().startswith("https:"):
            raise ValueError(f"{request.full_url} leads from https to {url}, where anybody could change it: refused")
        return super().redirect_request(request, file, code, message, headers, url)


@contextmanager
def _network() -> Iterator[None]:
    """What goes wrong on the way is _Broken; what the server says clearly, and a false certificate, is not."""
    try:
        yield
    except HTTPError:
        raise
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise OSError(f"the server's certificate is not valid: {reason.verify_message}") from error
        raise _Broken(f"the connection broke ({reason or type(reason).__name__})") from error


def _check_scheme(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
        raise ValueError(f"{url!r}: only http and https addresses are downloaded")


def _version(headers: Message) -> str | None:
    # a weak ETag does not promise equal bytes, so it cannot stand in If-Range
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified")


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """First byte and whole size out of "bytes 100-199/200" or "bytes */200"."""
    found = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(?:(\d+)|\*)", headers.get("Content-Range", ""))
    start, total = found.groups() if found else (None, None)
    return start and int(start), total and int(total)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file, _bar(path.stat().st_size, f"checking {path.name}") as bar:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _bar(total: int | None, what: str) -> tqdm:
    return tqdm(total=total, desc=what, unit="B", unit_scale=True, leave=False)
