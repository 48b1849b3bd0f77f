"""DeeperCut's crops, one person each, out of MPII or of any data set whose people have head boxes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from tqdm.auto import tqdm

from lib import files
from lib.data.augment import read_image
from lib.data.coco import (
    Annotation,
    CocoFile,
    Image,
    Number,
    category_named,
    check_coco,
    find_split,
    order_of,
    read_coco,
)
from lib.data.deepercut_crops import HEAD, Crop, Sample, crops_to_coco, cut, plan_crops, write_dataset_mat
from lib.data.mpii import MpiiImage, MpiiPerson
from lib.draw import save_picture
from lib.prepare.steps import Steps, require_space
from lib.skeleton import BUILT_IN, MPII14, MPII16, Skeleton

Sizes = dict[str, tuple[int, int]]  # name of a picture → (height, width)
SMALLEST_HEAD, LARGEST_HEAD = 4, 500  # pixels


class _Image(Image):
    video: int | None = None


class _Person(Annotation):
    """What only MPII annotates, as `lib.data.mpii.to_coco` writes it."""

    head_box: tuple[float, float, float, float] | None = None
    objpos: tuple[float, float] | None = None
    scale: Number | None = None
    rect: int | UnsetType = UNSET
    single_person: bool = False


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Person]


def crops(
    data_dir: str | Path,
    out: str | Path | None = None,
    split: Literal["train", "val"] | None = None,
    head: int = HEAD,
    skeleton: Literal["mpii14", "mpii16"] = "mpii14",
    threads: int | None = None,
) -> None:
    """Cut every person out for DeeperCut, all heads the same size; stopped at any moment, the same command goes on.

    Crops hold all joints of a person and a margin, wider for people who stand apart (`single_person`), and end before the
    next person's joints. They are what `prepare mpii --crops true` makes: images/, annotations/ and dataset_{train,val}.mat.

    Args:
        data_dir: a data set with MPII's joints and `head_box` of each person: what `prepare mpii` or `synthetic --figure mpii`
            wrote, or your own.
        out: folder to fill, by default DATA_DIR/crops.
        split: only this one; by default both.
        head: pixels of a head in the crops, and thereby of everything, margins too. The published 50 make a standing person
            about 400 tall; 16 make 128, which a laptop can learn from.
        skeleton: DeeperCut's 14 joints, or also pelvis and thorax.
        threads: for reading pictures and cutting; by default as many as there are cores, and some more.

    Raises:
        FileNotFoundError: no such data set.
        ValueError: its people have no head boxes, or not these joints, or two pictures share an id.
    """
    if not SMALLEST_HEAD <= head <= LARGEST_HEAD:
        raise ValueError(f"--head {head}: a head in a crop has {SMALLEST_HEAD} to {LARGEST_HEAD} pixels")
    folder = Path(out or Path(data_dir) / "crops")
    found = _find_splits(data_dir, split)
    people = {name: _read_people(found[name][0], BUILT_IN[skeleton]) for name in ([split] if split else found)}
    _check_ids([path for path, _ in found.values()])
    for name, (images, sizes) in people.items():
        path, pictures = found[name]
        source = hashlib.sha256(path.read_bytes()).hexdigest()
        cut_crops(name, images, sizes, pictures, folder, source, head, BUILT_IN[skeleton], threads)


def cut_crops(
    split: str,
    images: Sequence[MpiiImage],
    sizes: Sizes,
    pictures: Path,
    out: Path,
    source: str,
    head: float = HEAD,
    skeleton: Skeleton = MPII14,
    threads: int | None = None,
) -> None:
    """Cut the crops of a split and write their labels; crops that are there already from this source stay.

    Args:
        split: "train" or "val".
        images: annotated ones, their ids different from those of other splits in the same folder.
        sizes: of every image.
        pictures: their folder.
        out: folder to fill.
        source: what the annotations were read from, in one word (a checksum): crops of another source are cut again.
        head, skeleton, threads: see `crops`.

    Raises:
        OSError: no room for them.
        ValueError: a picture is not of the size that the annotations say.
    """
    planned, left_out = plan_crops(images, sizes, head=head)
    target, steps, by_image = out / "images", Steps(out), {}
    for crop in planned:
        by_image.setdefault(crop.image.name, []).append(crop)
    facts = {"source": source, "head": head}
    if not steps.finished(f"crops of {split}", **facts):
        for crop in planned:
            (target / crop.name).unlink(missing_ok=True)
        steps.finish(f"crops of {split}", **facts)  # those which are there from now on are of this source

    def missing(crops: Iterable[Crop]) -> list[Crop]:
        return [crop for crop in crops if not (target / crop.name).exists()]

    def write_crops(name: str) -> None:
        if todo := missing(by_image[name]):
            path = files.inside(pictures, name)
            image = read_image(path)
            if image.shape[:2] != tuple(sizes[name]):
                raise ValueError(f"{path} has {image.shape[1]}×{image.shape[0]} pixels, its annotations say "
                                 f"{sizes[name][1]}×{sizes[name][0]}: get the two from the same place")  # fmt: skip
            for crop in todo:
                save_picture(target / crop.name, cut(image, crop))

    # a photograph's PNG takes about two bytes for a pixel
    require_space(target, sum(2 * c.size[0] * c.size[1] for c in missing(planned)))
    parallel(write_crops, list(by_image), threads, f"crops of {split}")
    write_annotations(out / f"annotations/person_keypoints_{split}.json", crops_to_coco(planned, skeleton))
    if planned:
        samples = [Sample(str((target / crop.name).resolve()), crop.size, (crop.joints,)) for crop in planned]
        print(f"{write_dataset_mat(out / f'dataset_{split}.mat', samples)}: {len(samples):,} samples")
    if left_out:
        print(f"{len(left_out)} people of {split} have no crop, the first: {left_out[0]}")


def write_annotations(path: Path, content: dict) -> None:
    """Check and write a COCO file of plain lists and dicts, and say what is in it."""
    check_coco(msgspec.convert(content, CocoFile), path)
    files.write(path, msgspec.json.encode(content))
    people = sum(1 for a in content["annotations"] if a["num_keypoints"])
    print(f"{path}: {len(content['images']):,} images, {people:,} people with joints")


def parallel(function: Callable[[Any], Any], items: Sequence, threads: int | None, what: str) -> list:
    """The results of a function of each image, in their order, with a progress bar; the first error ends all."""
    with ThreadPoolExecutor(threads) as pool:
        try:
            return list(tqdm(pool.map(function, items), total=len(items), desc=what, unit="image"))
        finally:
            pool.shutdown(cancel_futures=True)


def _find_splits(data_dir: str | Path, needed: str | None) -> dict[str, tuple[Path, Path]]:
    """Annotations and pictures of each split; one that is not asked for may be absent."""
    found = {}
    for name in ("train", "val"):
        try:
            found[name] = find_split(data_dir, name)
        except FileNotFoundError:
            if needed in (None, name):
                raise
    return found


def _check_ids(paths: Sequence[Path]) -> None:
    """Crops of all splits lie in one folder and are named by their picture's id."""
    owners: dict[int, Path] = {}
    for path in dict.fromkeys(paths):  # a flat folder has one file for both
        for image in read_coco(path).images:
            if owners.setdefault(image.id, path) != path:
                raise ValueError(f"{path}: the id {image.id} of {image.file_name} is another picture's in {owners[image.id]}, "
                                 "and crops are named by it: number the pictures of the two files apart")  # fmt: skip


def _read_people(path: Path, skeleton: Skeleton) -> tuple[list[MpiiImage], Sizes]:
    """A COCO file as MPII's own would be read; crowds are nobody."""
    category = category_named(read_coco(path))
    order_of(category, skeleton, path)  # an error where a joint of the crops is not annotated
    dropped = [name for name in category.keypoints if name not in MPII16.keypoints]
    if dropped:
        print(f"{path}: {', '.join(dropped)} are no joints of MPII, the crops are without")
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_File)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {error}") from None
    everybody: dict[int, dict[int, MpiiPerson]] = {image.id: {} for image in content.images}
    for a in content.annotations:
        if a.category_id == category.id and not a.iscrowd and a.keypoints:
            rects = everybody[a.image_id]
            person = _person(a, category.keypoints, default_rect=len(rects) + 1)
            if rects.setdefault(person.rect, person) is not person:
                raise ValueError(f"{path}: image {a.image_id} has two people with the rect {person.rect}, one is "
                                 f"annotation {a.id}: give each its own")  # fmt: skip
    people = [person for rects in everybody.values() for person in rects.values()]
    if not any(person.head_box for person in people):
        raise ValueError(f"{path}: none of its {len(people)} people has a head_box, and crops are cut by the size of the head: "
                         "use what `prepare mpii` or `synthetic --figure mpii` writes, or add head_box [x, y, w, h]")  # fmt: skip
    images = [MpiiImage(i.id, i.file_name, True, i.video, tuple(everybody[i.id].values())) for i in content.images]
    return images, {i.file_name: (i.height, i.width) for i in content.images}


def _person(a: _Person, names: Sequence[str], default_rect: int) -> MpiiPerson:
    given, keypoints = np.reshape(a.keypoints, (-1, 3)), np.zeros((MPII16.num_keypoints, 3))
    for name, point in zip(names, given):
        if name in MPII16.keypoints and point[2]:
            keypoints[MPII16.index(name)] = point
    rect = default_rect if a.rect is UNSET else a.rect
    return MpiiPerson(rect, keypoints, a.head_box, a.objpos, a.scale, a.single_person)
