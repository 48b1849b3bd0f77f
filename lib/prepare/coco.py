"""COCO 2017 from its three archives: pictures and keypoint annotations, laid out as `lib.data.coco.find_split` expects."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lib.data.coco import read_coco
from lib.prepare.fetch import Archive, fetch
from lib.prepare.steps import Steps

# COCO publishes no checksums. Sizes: the Content-Length of its server, as in the logs of many. SHA-256: those of
# torchvision's prototype datasets; the Hugging Face mirror pcuenq/coco-2017-mirror has the same.
ARCHIVES = {
    "annotations": Archive(
        "annotations/annotations_trainval2017.zip", 252_907_541,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        r"annotations/person_keypoints_(?:train|val)2017\.json", 2, 260_000_000,
        "annotations/person_keypoints_*2017.json"),
    "val": Archive(
        "zips/val2017.zip", 815_585_330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
        r"val2017/\d{12}\.jpg", 5_000, 840_000_000, "val2017/*.jpg"),
    "train": Archive(
        "zips/train2017.zip", 19_336_861_798, "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
        r"train2017/\d{12}\.jpg", 118_287, 19_800_000_000, "train2017/*.jpg"),
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
    fetch(wanted, folder, archives, url, keep_archives)
    for name in ("val", "train") if split == "both" else (split,):
        if not steps.finished(f"check {name}"):
            _check(folder, name)
            steps.finish(f"check {name}")
    for archive in wanted:
        print(f"{folder / archive.places}: {archive.files:,} files from {archive.name}")


def _check(folder: Path, split: str) -> None:
    """Raise ValueError unless the annotations read well, and the pictures that they are about are there."""
    labels, pictures = folder / f"annotations/person_keypoints_{split}2017.json", ARCHIVES[split].there(folder)
    missing = {image.file_name for image in read_coco(labels, "person").images} - {path.name for path in pictures}
    if missing:
        raise ValueError(f"{labels} lists {len(missing):,} pictures that are not in {folder / f'{split}2017'}, the first is "
                         f"{min(missing)}")  # fmt: skip
