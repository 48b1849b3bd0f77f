"""ImageNet (ILSVRC 2012) out of Kaggle's zip, in one pass, sorted into the class folders that ImageFolder reads."""

from __future__ import annotations

import csv
import os
import re
import zipfile
from collections import Counter
from pathlib import Path

import msgspec

from lib import files
from lib.prepare.archives import DAMAGE, Select, unpack
from lib.prepare.steps import Steps

COUNTS = {"train": 1_281_167, "val": 50_000, "test": 100_000}
_CLASSES, _SOLUTION = "LOC_synset_mapping.txt", "LOC_val_solution.csv"
_PICTURE = re.compile(r"ILSVRC/Data/CLS-LOC/(train(?=/n\d{8}/)|val|test)/(?:(n\d{8})/)?([^/]+)\.JPEG")


def prepare_imagenet(
    archive: str | Path,
    data_dir: str | Path = "data/imagenet",
    classes: int | None = None,
    images: int | None = None,
    test: bool = False,
) -> None:
    """Sort Kaggle's ImageNet into folders; stopped at any moment, the same command goes on where it was.

    Get imagenet-object-localization-challenge.zip (167 GB) from
    https://www.kaggle.com/competitions/imagenet-object-localization-challenge after accepting its terms, for instance with
    `kaggle competitions download`. It is read as it is, and never changed; about 155 GB are written:
    train/WNID/*.JPEG, val/WNID/*.JPEG and imagenet_class_index.json, {"0": ["n01440764", "tench"], …}. The index of a
    class is its place among the sorted WNIDs, as in torchvision's ImageFolder and in published checkpoints. The list of
    two million files takes a minute to read, and 2.5 GB of memory.

    Args:
        archive: Kaggle's zip.
        data_dir: folder to fill.
        classes: take only so many classes, spread evenly over all; their indices count from 0 again.
        images: take only so many training pictures of each class, the first in the archive.
        test: unpack the pictures of the test set too, which have no classes.
    """
    if images is not None and images < 1:
        raise ValueError(f"--images {images}: at least 1 of each class")
    archive, folder, steps = Path(archive), Path(data_dir), Steps(data_dir)
    if not archive.is_file():
        raise FileNotFoundError(f"{archive} is not there: get it from Kaggle, as data/README.md says")
    facts = dict(bytes=archive.stat().st_size, classes=classes, images=images, test=test)
    if not steps.finished("pictures", **facts) or steps.facts("pictures")["files"] != _count(folder):
        names, where, numbers = _plan(archive, classes, images, test)
        _check_folder(folder, names)
        total = unpack(archive, folder, _selection(where, names, images, test))
        index = {str(i): [wnid, name] for i, (wnid, name) in enumerate(names.items())}
        files.write(folder / "imagenet_class_index.json", msgspec.json.encode(index))
        if _count(folder) != total:
            raise ValueError(f"{folder} holds {_count(folder):,} pictures, {total:,} of them from {archive}: "
                             "choose an empty folder for another selection")  # fmt: skip
        steps.finish("pictures", **facts, **numbers, files=total)
    recorded = steps.facts("pictures")
    for split in ("train", "val", "test") if test else ("train", "val"):
        print(f"{folder / split}: {recorded[f'{split}_files']:,} pictures")


def read_classes(text: str, source: str = _CLASSES) -> dict[str, str]:
    """WNID → name, sorted by WNID: the first of a class's names, with underscores as in Keras' index file.

    Raises:
        ValueError: a line is not "n01440764 tench, Tinca tinca", or a class stands there twice.
    """
    names: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        found = re.fullmatch(r"(n\d{8}) ([^,]+)(,.*)?", line.strip())
        if not found or found[1] in names:
            raise ValueError(f"{source}, line {number}: {line[:80]!r} is not a new class like 'n01440764 tench, tinca'")
        names[found[1]] = found[2].strip().replace(" ", "_")
    return dict(sorted(names.items()))


def read_solution(text: str, names: dict[str, str], source: str = _SOLUTION) -> dict[str, str]:
    """Name of a validation picture → its WNID.

    Each line is "ILSVRC2012_val_00048981,n03995372 85 1 499 272": a WNID and a box in pixels for every object.

    Raises:
        ValueError: another header, a class that `names` lacks, several classes in a line, a picture that is there twice.
    """
    rows = csv.reader(text.splitlines())
    if next(rows, None) != ["ImageId", "PredictionString"]:
        raise ValueError(f"{source}: the first line is not ImageId,PredictionString")
    where: dict[str, str] = {}
    for row in rows:
        wnids = row[1].split()[::5] if len(row) == 2 and len(row[1].split()) % 5 == 0 else []
        fault = (
            f"{','.join(row)[:80]!r} is not a picture and boxes of one class" if len(set(wnids)) != 1
            else f"{_CLASSES} does not list the class {wnids[0]!r} of {row[0]}" if wnids[0] not in names
            else f"{row[0]} is there twice" if row[0] in where
            else None
        )  # fmt: skip
        if fault:
            raise ValueError(f"{source}, line {rows.line_num}: {fault}")
        where[row[0]] = wnids[0]
    return where


def _plan(archive: Path, classes: int | None, images: int | None, test: bool) -> tuple[dict, dict, dict[str, int]]:
    """Check all that can be known before the first byte is written.

    Returns:
        names of the chosen classes, classes of the validation pictures, pictures in each split.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            every = read_classes(_text(file, _CLASSES), f"{archive}: {_CLASSES}")
            where = read_solution(_text(file, _SOLUTION), every, f"{archive}: {_SOLUTION}")
            _check_complete(archive, file.infolist(), every, where)
            names = _spread(every, classes)
            select = _selection(where, names, images, test)
            chosen = Counter(place.partition("/")[0] + "_files" for name in file.namelist() if (place := select(name)))
    except DAMAGE as error:
        raise ValueError(f"{archive} is not a complete zip or damaged ({error}): download it again") from error
    return names, where, dict(chosen)


def _check_complete(archive: Path, infos: list[zipfile.ZipInfo], names: dict[str, str], where: dict[str, str]) -> None:
    counts, seen = Counter(), set()
    for info in infos:
        if not (found := _PICTURE.fullmatch(info.filename)):
            continue
        split, wnid, name = found.groups()
        counts[split] += 1
        if not info.file_size:
            raise ValueError(f"{archive}: {info.filename} is empty: download the archive again")
        if wnid and wnid not in names:
            raise ValueError(f"{archive}: {_CLASSES} does not list the class of {info.filename}")
        if split == "val":
            seen.add(name)
    for what, which in (("gives no class for", seen - where.keys()), ("is alone with", where.keys() - seen)):
        if which:
            raise ValueError(f"{archive}: {_SOLUTION} {what} {len(which):,} validation pictures, one is {min(which)}")
    for split, expected in COUNTS.items():
        if counts[split] != expected:
            raise ValueError(f"{archive}: {counts[split]:,} {split} pictures below ILSVRC/Data/CLS-LOC, expected are "
                             f"{expected:,}: download all of imagenet-object-localization-challenge.zip")  # fmt: skip


def _selection(where: dict[str, str], names: dict[str, str], images: int | None, test: bool) -> Select:
    """Where each file of the archive goes; to be asked once for each, in their order."""
    taken = Counter()

    def select(name: str) -> str | None:
        found = _PICTURE.fullmatch(name)
        if not found or found[1] == "test":
            return f"test/{found[3]}.JPEG" if found and test else None
        wnid = found[2] or where[found[3]]
        if found[1] == "train":
            taken[wnid] += 1
            if images is not None and taken[wnid] > images:
                return None
        return f"{found[1]}/{wnid}/{found[3]}.JPEG" if wnid in names else None

    return select


def _spread(names: dict[str, str], classes: int | None) -> dict[str, str]:
    if classes is None:
        return names
    if not 1 <= classes <= len(names):
        raise ValueError(f"--classes {classes}: there are {len(names):,}")
    wnids = list(names)
    return {wnid: names[wnid] for wnid in (wnids[i * len(wnids) // classes] for i in range(classes))}


def _text(file: zipfile.ZipFile, name: str) -> str:
    size = next((info.file_size for info in file.infolist() if info.filename == name), None)
    if size is None or size > 64 << 20:
        raise ValueError(f"{file.filename} holds no {name}: it is not Kaggle's imagenet-object-localization-challenge")
    return file.read(name).decode("utf-8-sig")


def _check_folder(folder: Path, names: dict[str, str]) -> None:
    """ImageFolder takes every folder for a class, so there must be no other than those of this selection."""
    there = {path.name for split in ("train", "val") for path in folder.glob(f"{split}/*") if path.is_dir()}
    if strange := there - names.keys():
        raise ValueError(f"{folder} holds {len(strange):,} classes that are not wanted, one is {min(strange)}: "
                         "choose an empty folder for another selection")  # fmt: skip


def _count(folder: Path) -> int:
    folders = [folder / "test", *folder.glob("train/*"), *folder.glob("val/*")]
    return sum(name.endswith(".JPEG") for path in folders if path.is_dir() for name in os.listdir(path))
