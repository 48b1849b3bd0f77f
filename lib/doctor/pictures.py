"""The pictures themselves: there, whole, of the right size, turned by EXIF, twice, or in the other set too."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from lib import files
from lib.doctor.findings import Hit, told
from lib.doctor.reading import Labels
from lib.doctor.structure import name_fault

EXIF_ORIENTATION, TURNING = 274, (5, 6, 7, 8)  # the values of the tag that exchange width and height
MAX_PIXELS = 2**28
THUMBNAIL = 16
MAX_BITS, MIN_CORRELATION, FLAT = 10, 0.95, 4.0  # of 64 bits; of the thumbnails; grey levels


@dataclass(frozen=True)
class Picture:
    """What one look at a picture tells; `fault` says why there is nothing else.

    Attributes:
        path: the file.
        fault: a sentence, or "" for a good picture.
        missing: whether there is no such file.
        size: stored width and height, in pixels.
        orientation: EXIF's, 1 to 8.
        sha: of the bytes.
        dhash: 64 bits, whether it gets brighter from cell to cell; survives resizing and compression.
        thumbnail: (16, 16) uint8, grey.
    """

    path: Path
    fault: str = ""
    missing: bool = False
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    sha: bytes = b""
    dhash: int = 0
    thumbnail: np.ndarray | None = None


def look_at_all(folder: str | Path, labels: Labels) -> dict[str, Picture]:
    """Look at every picture that the file lists and whose name stays in the folder; name → what was seen."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: the folder of the pictures of {labels.path} does not exist")
    names = {name for image in labels.images if not name_fault(name := image.get("file_name"))}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        seen = pool.map(partial(_look_inside, folder), names)
        return dict(zip(names, list(tqdm(seen, f"pictures of {labels.path.name}", len(names), unit=" pictures"))))


def _look_inside(folder: Path, name: str) -> Picture:
    try:
        return look(files.inside(folder, name))
    except ValueError as error:
        return Picture(folder / "unknown", str(error))


def look(path: Path) -> Picture:
    """Read and decode one picture, with the reader that training uses."""
    from PIL import Image

    from lib.data.augment import read_reduced  # brings torch, which takes seconds to load

    try:
        data = path.read_bytes()
        with Image.open(BytesIO(data)) as header:
            size, orientation = header.size, header.getexif().get(EXIF_ORIENTATION, 1)
        if size[0] * size[1] > MAX_PIXELS:
            return Picture(path, f"{size[0]}×{size[1]} are too many pixels", size=size)
        image, _ = read_reduced(path, next((r for r in (8, 4, 2) if min(size) >= 4 * THUMBNAIL * r), 1))
    except FileNotFoundError:
        return Picture(path, "no such file", missing=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return Picture(path, str(error).removeprefix(f"{path}: ").split("; replace")[0].replace(str(path), path.name))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    dhash = int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes())
    thumbnail = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return Picture(path, "", False, size, orientation, hashlib.sha256(data).digest(), dhash, thumbnail)


def readable(labels: Labels) -> Iterator[Hit]:
    """Files that are missing or damaged."""
    seen = _seen(labels)
    for code, missing in (("picture_missing", True), ("picture_unreadable", False)):
        yield from told(code, {row: p.fault for row, p in seen.items() if p.fault and p.missing == missing})


def sizes(labels: Labels) -> Iterator[Hit]:
    """Sizes that differ from the file's, and what EXIF has to do with it."""
    found: dict[str, dict[int, str]] = {"picture_turned": {}, "picture_size": {}, "picture_exif": {}}
    for row, picture in _seen(labels).items():
        listed, turns = tuple(labels.sizes[row]), picture.orientation in TURNING
        if picture.fault or np.isnan(listed).any():
            continue
        said = f"{picture.size[0]}×{picture.size[1]} stored, {listed[0]:.0f}×{listed[1]:.0f} in the file"
        if listed != picture.size:
            turned = listed == picture.size[::-1]
            code = "picture_turned" if turned and turns else "picture_size"
            found[code][row] = f"{said}{f', EXIF orientation {picture.orientation}' if turns else ''}"
        elif picture.orientation > 1:
            found["picture_exif"][row] = f"EXIF orientation {picture.orientation}"
    for code, sentences in found.items():
        yield from told(code, sentences)


def copies(labels: Labels) -> Iterator[Hit]:
    """The same bytes under another name."""
    first, again = {}, {}
    for row, picture in _seen(labels).items():
        if not picture.fault:
            other = first.setdefault(picture.sha, row)
            if labels.images[other]["file_name"] != labels.images[row]["file_name"]:
                again[row] = other
    said = {row: f"as {labels.images[other]['file_name']!r}" for row, other in again.items()}
    yield from told("picture_twice", said, list(again.values()))


def leaks(labels: Labels) -> Iterator[Hit]:
    """Pictures that the other set has too, byte for byte or by their looks. `others` are rows of `labels.against`."""
    others = labels.against
    seen = {row: picture for row, picture in _seen(labels).items() if not picture.fault}
    known = {picture.sha: i for i, picture in reversed(list(enumerate(others)))}
    same = {row: known[picture.sha] for row, picture in seen.items() if picture.sha in known}
    rest = [row for row in seen if row not in same]
    near = {rest[a]: b for a, b in similar([seen[row] for row in rest], others)}
    for code, pairs in (("leak", same), ("leak_similar", near)):
        said = {row: f"is {others[other].path.name!r} there" for row, other in pairs.items()}
        yield from told(code, said, list(pairs.values()))


def similar(first: Sequence[Picture], second: Sequence[Picture]) -> Iterator[tuple[int, int]]:
    """For every picture of `first` that looks like one of `second`, their indices.

    64-bit difference hashes (https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html) that
    differ in at most 10 bits propose, the correlation of 16 × 16 thumbnails decides. Flat pictures look like any other.
    """
    if not first or not second:
        return
    (codes, thumbs, flat), (other_codes, other_thumbs, other_flat) = _signatures(first), _signatures(second)
    chunk = max(1, 2**24 // len(second))
    for start in range(0, len(first), chunk):
        bits = np.bitwise_count(codes[start : start + chunk, None] ^ other_codes)
        a, b = np.nonzero((bits <= MAX_BITS) & ~flat[start : start + chunk, None] & ~other_flat)
        correlation = np.einsum("nd,nd->n", thumbs[start + a], other_thumbs[b])
        best = {}
        for i, j, c in zip(a.tolist(), b.tolist(), correlation.tolist()):
            if c > max(MIN_CORRELATION, best.get(i, (0, 0))[0]):
                best[i] = c, j
        yield from ((start + i, j) for i, (_, j) in best.items())


def _signatures(pictures: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    codes = np.array([picture.dhash for picture in pictures], np.uint64)
    thumbs = np.array([picture.thumbnail for picture in pictures], np.float32).reshape(len(pictures), -1)
    flat = thumbs.std(axis=1) < FLAT
    thumbs -= thumbs.mean(axis=1, keepdims=True)
    return codes, thumbs / np.maximum(np.linalg.norm(thumbs, axis=1, keepdims=True), 1e-6), flat


def _seen(labels: Labels) -> dict[int, Picture]:
    """Row of the image → its picture, where one was looked for."""
    seen = ((row, labels.picture(row)) for row in range(len(labels.images)))
    return {row: picture for row, picture in seen if picture is not None}
