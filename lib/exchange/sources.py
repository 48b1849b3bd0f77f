"""Open an export, whatever it is packed in, and recognise the tool that wrote it."""

from __future__ import annotations

import json
import re
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from lib import files
from lib.data.coco import CocoFile, no_garbage_collection
from lib.exchange import coco_annotator, dataset_mat, label_studio, roboflow
from lib.exchange.changes import Changes
from lib.exchange.merge import merge_sets
from lib.exchange.normalise import normalise
from lib.skeleton import MPII14, Skeleton

KINDS: dict[str, Callable[[dict, Changes], dict]] = {
    "coco": lambda raw, changes: raw,
    "coco_annotator": coco_annotator.prepare,
    "cvat": lambda raw, changes: raw,
    "dataset_mat": lambda raw, changes: raw,
    "label_studio": label_studio.prepare,
    "roboflow": roboflow.prepare,
}
MAX_JSON, FREE_JSON, MAX_RATIO, MAX_ENTRIES = 2 * 2**30, 64 * 2**20, 200, 2_000_000

# where the annotations of an export lie, the most telling first; the group is the split
_ROBOFLOW = r"(?:(.*)/)?_annotations\.coco\.json"
_LAYOUTS = [_ROBOFLOW, r"annotations/person_keypoints_(.+)\.json", r"()result\.json", r"()\.exports/coco-[^/]*\.json",
            r"()[^/]+\.json"]  # fmt: skip


@no_garbage_collection()
def read_any(path: str | Path, kind: str = "auto", images: str | Path | None = None, skeleton: Skeleton = MPII14,
             first_pixel: int = 1) -> tuple[CocoFile, Changes]:  # fmt: skip
    """Read the keypoints that an annotation tool exported.

    Args:
        path: a JSON file, a zip, an export's folder (several splits become one set, each in its folder), or DeeperCut's
            dataset.mat.
        kind: coco, coco_annotator, cvat, label_studio, roboflow, dataset_mat, or auto: recognised from the content.
        images: folder of the pictures: finds them under their names and reads sizes that the file does not have.
        skeleton, first_pixel: of a dataset.mat, see `lib.exchange.dataset_mat.read_samples`.

    Returns:
        A file that `check_coco` accepts, and the report of what was changed on the way.

    Raises:
        FileNotFoundError: no such file. ValueError: not an export of any of them, or one that could be of two tools; an
            archive that is damaged, or too large when unpacked.
    """
    if kind not in ("auto", *KINDS):
        raise ValueError(f"kind {kind!r} is none of auto, {', '.join(KINDS)}")
    path, changes = Path(path), Changes()
    if path.suffix.lower() == ".mat" and kind == "auto":
        kind = "dataset_mat"
    if kind == "dataset_mat":
        documents = {"": dataset_mat.read_samples(path, before := Changes(), skeleton, first_pixel)}
        changes.include(before)
    else:
        documents = _documents(path)
    sets = []
    for folder, content in documents.items():
        below = Path(images, folder) if images and Path(images, folder).is_dir() else images
        found = Changes()
        sets.append(_read(f"{path}" + f" ({folder})" * bool(folder), content, kind, below, found))
        changes.include(found, f"{folder}: " * (len(documents) > 1))
    coco = sets[0]
    if any(documents):  # splits in folders
        coco, merged = merge_sets(sets, list(documents))
        changes.include(merged)
        coco.source = str(path)
    labelled = sum(any(a.keypoints[2::3]) for a in coco.annotations if a.keypoints)
    changes.title = (f"{path}: {found.title}\n  {len(coco.images)} images, {len(coco.annotations)} annotations, {labelled} of "
                     f"them with labelled keypoints, categories {', '.join(repr(c.name) for c in coco.categories)}")  # fmt: skip
    return coco, changes


def recognise(content: Any) -> tuple[str, str]:
    """Which tool wrote a decoded JSON file, and by what it is known.

    Raises:
        ValueError: no annotations of any tool, or the signs of two.
    """
    if isinstance(content, list) and content and all(isinstance(task, dict) for task in content):
        if any("annotations" in task or "completions" in task for task in content):
            return "label_studio", "a list of tasks with annotations"
        raise ValueError('a list without "annotations" in it: of Label Studio\'s exports choose JSON, not JSON-MIN')
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
        raise ValueError("no list of tasks, and no COCO file with images, annotations and categories")
    info, images, categories = content.get("info") or {}, content["images"] or [], content["categories"] or []
    if not isinstance(info, dict) or not all(isinstance(row, dict) for row in (*images, *categories)):
        raise ValueError("info, images and categories do not hold what COCO files have there")
    by_datumaro = content.get("licenses") == [{"name": "", "id": 0, "url": ""}]
    signs = {
        "label_studio": {"info.contributor is Label Studio": info.get("contributor") == "Label Studio"},
        "coco_annotator": {"images carry dataset_id and path": any({"dataset_id", "path"} <= i.keys() for i in images),
                           "categories carry keypoint_colors": any("keypoint_colors" in c for c in categories)},
        "cvat": {"licenses and dates as Datumaro writes them": by_datumaro and all(i.get("date_captured") == 0 for i in images)},
        "roboflow": {"info names roboflow": "roboflow" in str(info.get("description")).lower(),
                     "a grouping category with id 0": 0 in roboflow.parent_ids(categories),
                     "pictures renamed to NAME.rf.HASH": any(roboflow.HASHED.search(str(i.get("file_name"))) for i in images)},
    }  # fmt: skip
    found = {tool: next(sign for sign in named if named[sign]) for tool, named in signs.items() if any(named.values())}
    if len(found) > 1:
        both = " and ".join(f"{tool} ({sign})" for tool, sign in found.items())
        raise ValueError(f"this could be of {both}: say which with --kind")
    return next(iter(found.items()), ("coco", "no sign of any tool"))


def _read(source: str, content: Any, kind: str, images: Path | None, changes: Changes) -> CocoFile:
    tool = kind
    try:
        tool, sign = recognise(content) if kind == "auto" else (kind, "as you said")
        changes.title = f"{tool} ({sign})"
        if isinstance(content, list) and tool == "label_studio":
            return normalise(label_studio.from_tasks(content, changes), source, changes, images)
        for what in ("images", "annotations", "categories"):
            rows = content.get(what) if isinstance(content, dict) else None
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise ValueError(f"it has no list of objects {what!r}")
        return normalise(KINDS[tool](content, changes), source, changes, images)
    except ValueError as error:
        raise ValueError(str(error) if source in str(error) else f"{source}: {error}") from None
    except (TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
        raise ValueError(f"{source}: not as {tool} writes it: {type(error).__name__} {error}") from error


def _documents(path: Path) -> dict[str, Any]:
    """Folder (or CVAT subset) → decoded JSON; one entry called "" where there is only one file."""
    if path.is_dir():
        names = [p.relative_to(path).as_posix() for p in sorted(path.rglob("*.json")) if not p.is_symlink()]
        return {part: _decoded(path / name, (path / name).read_bytes()) for part, name in _chosen(path, names).items()}
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if not zipfile.is_zipfile(path):
        return {"": _decoded(path, path.read_bytes())}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in _checked(path, archive.infolist())}
            chosen = _chosen(path, [name for name in entries if name.endswith(".json")])
            return {part: _decoded(f"{path}/{name}", archive.read(entries[name])) for part, name in chosen.items()}
    except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: a damaged or unknown zip: {error}") from None
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def _chosen(path: Path, names: list[str]) -> dict[str, str]:
    """Folder of a split → its annotations, by the first layout that fits."""
    for layout in _LAYOUTS:
        found = [(match[1] or "", name) for name in names if (match := re.fullmatch(layout, name))]
        if len(dict(found)) < len(found):
            raise ValueError(f"{path}: several annotation files, name one: {', '.join(name for _, name in found)}")
        if found:
            return dict(found) if layout is _ROBOFLOW or len(found) > 1 else {"": found[0][1]}
    raise ValueError(f"{path}: no annotations in it; looked for train/_annotations.coco.json (Roboflow), "
                     "annotations/person_keypoints_*.json (CVAT), result.json (Label Studio), or one *.json")  # fmt: skip


def _checked(path: Path, entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The entries, where none is a link, leaves its folder, or unpacks to far more than it should."""
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"{path}: {len(entries)} entries are more than the {MAX_ENTRIES} that are taken")
    for entry in entries:
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise ValueError(f"{path}: {entry.filename!r} is a link; links in archives are refused")
        files.inside(path.parent / PurePosixPath(path.name + ".unpacked"), entry.filename)
        if entry.filename.endswith(".json") and (entry.file_size > MAX_JSON or entry.file_size > max(
                FREE_JSON, MAX_RATIO * entry.compress_size)):  # fmt: skip
            raise ValueError(f"{path}: {entry.filename!r} would unpack from {entry.compress_size} to {entry.file_size} "
                             "bytes: refused; unpack it yourself if you trust it")  # fmt: skip
    return entries


def _decoded(name: str | Path, content: bytes) -> Any:
    """JSON, also with a byte order mark, and with the NaN that some tools write, as null."""
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip() or content.startswith(b"PK\x03\x04"):
        raise ValueError(f"{name}: {'a zip without its end' if content.strip() else 'empty'}; export or copy it again")
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            return json.loads(content, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}: not a JSON file: {error}") from None
