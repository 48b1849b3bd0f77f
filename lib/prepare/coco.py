"""COCO 2017 from its three archives: pictures and keypoint annotations, laid out as `lib.data.coco.find_split` expects."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from lib.data.coco import read_coco
from lib.prepare.archives import unpack
from lib.prepare.download import check_file, download
from lib.prepare.steps import Steps, readable, require_space


class Archive(NamedTuple):
    """What one archive is called on the server and what must be in it; sizes in bytes."""

    address: str
    size: int
    sha256: str
    pattern: str  # of the names that are taken out of it
    files: int  # how many these are
    unpacked: int  # their size, with what a disk wastes on each

    @property
    def name(self) -> str:
        return self.address.rpartition("/")[2]

    def select(self, name: str) -> str | None:
        """What `unpack` asks: the name below the data folder, None for what is left in the archive."""
        return name if re.fullmatch(self.pattern, name) else None


# COCO publishes no checksums. Sizes: the Content-Length of its server, as in the logs of many. SHA-256: those of
# torchvision's prototype datasets; the Hugging Face mirror pcuenq/coco-2017-mirror has the same.
ARCHIVES = {
    "annotations": Archive(
        "annotations/annotations_trainval2017.zip", 252_907_541,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        r"annotations/person_keypoints_(train|val)2017\.json", 2, 260_000_000),
    "val": Archive(
        "zips/val2017.zip", 815_585_330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        r"val2017/\d{12}\.jpg", 5_000, 840_000_000),
    "train": Archive(
        "zips/train2017.zip", 19_336_861_798, "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        r"train2017/\d{12}\.jpg", 118_287, 19_800_000_000),
}  # fmt: skip


def prepare_coco(
    data_dir: str | Path = "data/coco",
    split: Literal["both", "val", "train"] = "both",
    archives: str | Path | None = None,
    url: str = "http://images.cocodataset.org",
    keep_archives: bool = True,
) -> None:
    """Download, check and unpack COCO 2017; stopped at any moment, the same command goes on where it was.

    20.4 GB are downloaded and 20.9 GB unpacked; `--split val` needs 1.1 GB and 1.1 GB. Sizes, SHA-256 and the numbers of
    pictures are checked, so that http is no risk. The annotations (CC BY 4.0) are those of people's keypoints, of both
    splits.

    Args:
        data_dir: folder to fill: annotations/, train2017/, val2017/.
        split: whose pictures.
        archives: folder with train2017.zip, val2017.zip and annotations_trainval2017.zip from elsewhere, such as a
            teacher's disk. They are only read, and nothing is downloaded.
        url: the server; https://s3.amazonaws.com/images.cocodataset.org is the same one with a certificate.
        keep_archives: keep what was downloaded in DATA_DIR/archives; off: delete each archive once its files are in place.
    """
    folder, steps = Path(data_dir), Steps(data_dir)
    wanted = [ARCHIVES[key] for key in ARCHIVES if key in ("annotations", split) or split == "both"]
    todo = [archive for archive in wanted if not _in_place(folder, steps, archive)]
    own = folder / "archives"
    _check_space(folder, todo, None if archives else own, keep_archives)
    for archive in todo:
        if archives:
            source = _given(Path(archives), archive)
        else:
            source = download(f"{url.rstrip('/')}/{archive.address}", own / archive.name, archive.size, archive.sha256)
        found = unpack(source, folder, archive.select)
        if found != archive.files:
            raise ValueError(f"{source} holds {found:,} of the {archive.files:,} files that are expected: get it again")
        _check_names(folder, archive)
        steps.finish(archive.name, sha256=archive.sha256)
        if not (keep_archives or archives):
            _remove(own, [archive])
    if not (keep_archives or archives):
        _remove(own, wanted)
    for archive in wanted:
        print(f"{folder / archive.pattern.partition('/')[0]}: {archive.files:,} files from {archive.name}")


def _in_place(folder: Path, steps: Steps, archive: Archive) -> bool:
    return steps.finished(archive.name, sha256=archive.sha256) and len(_files(folder, archive)) == archive.files


def _files(folder: Path, archive: Archive) -> list[Path]:
    """What is there of an archive."""
    within = folder / archive.pattern.partition("/")[0]
    names = within.iterdir() if within.is_dir() else ()
    return [path for path in names if archive.select(f"{within.name}/{path.name}")]


def _check_space(folder: Path, todo: list[Archive], own: Path | None, keep: bool) -> None:
    """Raise OSError before anything starts if the disk will be full at any point of the way."""
    fetch = room = most = 0
    for archive in todo:
        if own:
            here = [path.stat().st_size for path in (own / archive.name, own / f"{archive.name}.part") if path.exists()]
            missing = max(0, archive.size - sum(here))
            fetch, room = fetch + missing, room + missing
        room += max(0, archive.unpacked - sum(path.stat().st_size for path in _files(folder, archive)))
        most = max(most, room)
        room -= archive.size if own and not keep else 0
    require_space(folder, most)
    if todo:
        print(f"{folder}: {readable(fetch)} to download, {readable(most)} of room needed, and there")


def _given(folder: Path, archive: Archive) -> Path:
    path = folder / archive.name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: put {archive.name} there, or leave --archives away to download it")
    check_file(path, archive.size, archive.sha256)
    return path


def _check_names(folder: Path, archive: Archive) -> None:
    """Raise ValueError unless the annotations read well, and the pictures are those that they are about."""
    files = _files(folder, archive)
    if archive.name.startswith("annotations"):
        for path in files:
            read_coco(path, "person")
        return
    labels = folder / f"annotations/person_keypoints_{archive.name.removesuffix('.zip')}.json"
    missing = {image.file_name for image in read_coco(labels).images} - {path.name for path in files}
    if missing:
        raise ValueError(
            f"{labels} lists {len(missing):,} pictures that {archive.name} lacks, the first is {min(missing)}"
        )


def _remove(own: Path, archives: list[Archive]) -> None:
    for archive in archives:
        (own / archive.name).unlink(missing_ok=True)
    if own.is_dir() and not any(own.iterdir()):
        own.rmdir()
