"""A data set of one's own in two parts, for training and validation; pictures that resemble each other stay together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lib import files
from lib.data.coco import no_garbage_collection, read_coco

# as `frames` calls the pictures of a video, in whatever folder: clips have one each, and share frames where they overlap
SAME_VIDEO = r"(?:.*/)?([^/]+)_\d{6}_\d{5}\.\d{3}s\.\w+"


def held_out(groups: Sequence[str], fraction: float) -> list[bool]:
    """Which items belong to the held-out part: whole groups, until it has this fraction of all items.

    The groups come in the order of a hash of their names: the same on every computer, and a larger fraction holds a
    smaller one. A group that is met later hardly moves the others.

    Raises:
        ValueError: the fraction is not within 0..1.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"the fraction for validation must lie within 0..1, got {fraction}")
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    chosen, count = set(), 0
    for group in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if count >= fraction * len(groups):
            break
        chosen.add(group)
        count += sizes[group]
    return [group in chosen for group in groups]


@no_garbage_collection()
def split(file: str | Path, val_fraction: float = 0.1, group: str = SAME_VIDEO) -> list[Path]:
    """Split a COCO keypoint file whose pictures lie in images/ beside it into annotations for training and validation.

    Writes annotations/NAME_keypoints_train.json and …_val.json beside the file, which together are a data_dir; the
    pictures stay where they are. The file itself is not changed, and keys that COCO does not know are carried along.

    Args:
        file: COCO keypoint file.
        val_fraction: part of the pictures for validation.
        group: regular expression that finds in a file_name what must not be torn apart; names that do not match stand for
            themselves. By default the frames of one video, by its name, in whatever folders they lie; "" splits picture by
            picture.

    Raises:
        ValueError: one of the two parts would be empty, or `group` is not a regular expression.
    """
    file = Path(file)
    coco = read_coco(file)
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise ValueError(f"group {group!r} is not a regular expression: {error}") from None
    names = [image.file_name for image in coco.images]
    found = [pattern.match(name) if group else None for name in names]
    groups = [match[match.lastindex or 0] if match else name for match, name in zip(found, names, strict=True)]
    held = held_out(groups, val_fraction)
    if all(held) or not any(held):
        raise (
            ValueError(
                f"{file}: {len(names)} pictures in {len(set(groups))} groups (the first {groups[0]!r}) leave nothing for "
                f"{'training' if any(held) else 'validation'} with val_fraction {val_fraction}: frames of one video resemble "
                'each other too much to score with; take another video, or say group="" to split picture by picture'
            )
            if names
            else ValueError(f"{file}: it lists no pictures")
        )
    content = msgspec.json.decode(file.read_bytes())
    written = []
    for part, wanted in (("train", False), ("val", True)):
        ids = {image.id for image, is_held in zip(coco.images, held, strict=True) if is_held == wanted}
        rows = {
            "images": [image for image in content["images"] if image["id"] in ids],
            "annotations": [a for a in content["annotations"] if a["image_id"] in ids],
        }
        path = file.parent / f"annotations/{file.stem}_keypoints_{part}.json"
        written.append(files.write(path, msgspec.json.encode(content | rows)))
        print(f"{path}: {len(rows['images']):,} pictures, {len(rows['annotations']):,} annotations")
    return written
