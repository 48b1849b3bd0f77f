"""MPII Human Pose from its two archives: COCO keypoint files, a split by video, and DeeperCut's crops."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from PIL import Image

from lib import files
from lib.data.mpii import MpiiImage, read_mpii, read_names, split_by_video, to_coco
from lib.prepare.crops import cut_crops, parallel, write_annotations
from lib.prepare.fetch import Archive, fetch
from lib.skeleton import BUILT_IN

MAT = "mpii_human_pose_v1_u12_1.mat"


# MPII publishes no checksums: these are TensorFlow Datasets'. There are three pictures fewer than entries in annolist.
# A pattern's group is the name that a file gets.
ARCHIVES = (
    Archive("mpii_human_pose_v1_u12_2.zip", 12_340_483,
            "3e8bd6b61d39bc2e2bc5cd33a17b0bd08cd2d06c302f24f552042e53a35bcb76",
            rf"(?:\./)?[^/]+/({re.escape(MAT)})", 1, 100_000_000, MAT),
    Archive("mpii_human_pose_v1.tar.gz", 12_088_943_206,
            "6d26fbf89f49a7aeff4aa5f98123763f334693806b98eb15630f57a0b50998ce",
            r"(?:\./)?(images/[^/]+\.jpg)", 24_984, 12_300_000_000, "images/*.jpg"),
)  # fmt: skip


def prepare_mpii(
    data_dir: str | Path = "data/mpii",
    archives: str | Path | None = None,
    unpacked: bool = False,
    skeleton: Literal["mpii16", "mpii14"] = "mpii16",
    val_fraction: float = 0.1,
    val_list: str | Path | None = None,
    crops: bool = False,
    max_missing: int = 10,
    threads: int | None = None,
    url: str = "https://datasets.d2.mpi-inf.mpg.de/andriluka14cvpr",
    keep_archives: bool = True,
) -> None:
    """Download MPII Human Pose and write COCO keypoint files; stopped at any moment, the same command goes on.

    12.1 GB are downloaded and 12.3 GB unpacked. MPII is for research; its authors exclude commercial use, because the
    pictures belong to the makers of the videos.

    The joints of MPII's own test images are withheld, so validation images come out of its training images, whole
    videos at a time. Training images without any annotated joint are left out: people in them are not marked.

    Args:
        data_dir: folder to fill: images/, annotations/person_keypoints_{train,val,test}.json, crops/.
        archives: folder with mpii_human_pose_v1.tar.gz and mpii_human_pose_v1_u12_2.zip from elsewhere. They are only
            read, and nothing is downloaded.
        unpacked: images/ and mpii_human_pose_v1_u12_1.mat lie in DATA_DIR already; nothing is downloaded or unpacked.
        skeleton: all 16 joints, or DeeperCut's 14 without pelvis and thorax.
        val_fraction: part of the annotated images for validation.
        val_list: file that names the validation images instead: one name a line, or JSON such as the well-known
            valid.json of Tompson's split.
        crops: also cut every person out for DeeperCut, the head 50 pixels long: crops/images, crops/annotations and
            crops/dataset_{train,val}.mat; up to 15 GB more. The original trains on all of them: --val_fraction 0.
        max_missing: pictures that may be missing, and are left out. MPII's own archive lacks 3 of 24,987.
        threads: for reading pictures and cutting; by default as many as there are cores, and some more.
        url: the server's folder.
        keep_archives: keep what was downloaded in DATA_DIR/archives; off: delete it once its files are in place.
    """
    print("MPII Human Pose (Andriluka et al., CVPR 2014) is for research, not for commercial use")
    folder = Path(data_dir)
    if not unpacked:
        fetch(ARCHIVES, folder, archives, url, keep_archives)
    elif not (folder / MAT).is_file():
        raise FileNotFoundError(f"{folder / MAT} is missing: --unpacked expects it there, beside images/")
    images = read_mpii(folder / MAT)
    sizes = _sizes(images, folder, max_missing, threads)
    splits = _split([image for image in images if image.name in sizes], val_fraction, val_list, folder / MAT)
    for split, chosen in splits.items():
        path = folder / f"annotations/person_keypoints_{split}.json"
        write_annotations(path, to_coco(chosen, sizes, BUILT_IN[skeleton]))
    for split in ("train", "val") if crops else ():
        mat = hashlib.sha256((folder / MAT).read_bytes()).hexdigest()
        cut_crops(split, splits[split], sizes, folder / "images", folder / "crops", mat, threads=threads)


def _sizes(images: Sequence[MpiiImage], folder: Path, max_missing: int, threads: int | None) -> dict:
    """(height, width) by name, of the pictures that are there."""

    def size(image: MpiiImage) -> tuple[int, int] | None:
        try:
            path = files.inside(folder / "images", image.name)
        except ValueError as error:
            raise ValueError(f"{folder / MAT}: image {image.id}: {error}") from None
        try:
            with Image.open(path) as picture:  # reads no more than the header
                return picture.size[::-1]
        except FileNotFoundError:
            return None
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path}: not a readable image ({error}); unpack it again") from None

    found = dict(zip((image.name for image in images), parallel(size, images, threads, "sizes")))
    missing = [name for name, size in found.items() if size is None]
    if len(missing) > max_missing:
        raise FileNotFoundError(f"{folder / 'images'}: {len(missing):,} of {len(found):,} pictures are missing, the first is "
                                f"{missing[0]}; unpack them again, or allow it with --max_missing {len(missing)}")  # fmt: skip
    if missing:
        print(f"left out because the picture is missing: {', '.join(missing[:10])}" + " …" * (len(missing) > 10))
    return {name: size for name, size in found.items() if size is not None}


def _split(images: Sequence[MpiiImage], fraction: float, listed: str | Path | None, mat: Path) -> dict[str, list]:
    labelled = [image for image in images if image.train and image.labelled]
    if not labelled:
        raise ValueError(f"{mat}: none of its {len(images)} images with a picture has an annotated joint")
    if listed is None:
        val = split_by_video(labelled, fraction)
    else:
        names = read_names(listed)
        val = {image.id for image in labelled if image.name in names}
        unknown = names - {image.name for image in labelled}
        if unknown:
            raise ValueError(f"{listed}: {len(unknown)} of {len(names)} names are no annotated training images of {mat}, "
                             f"the first is {min(unknown)}")  # fmt: skip
    return {
        "train": [image for image in labelled if image.id not in val],
        "val": [image for image in labelled if image.id in val],
        "test": [image for image in images if not image.train],
    }
