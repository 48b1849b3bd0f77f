"""coco-annotator (github.com/jsbroks/coco-annotator): both its exports, the job's file and the fatter one by GET."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from lib.exchange.changes import Changes


def prepare(raw: dict[str, Any], changes: Changes) -> dict[str, Any]:
    """Give pictures their place below the data set's folder back: file_name is only the last part of path.

    All else is settled by `normalise`: iscrowd as a boolean, empty boxes and areas, keypoints longer or shorter than the
    names, MongoDB's dates, categories without keypoints, keys of its own.
    """
    images = []
    for image in raw["images"]:
        # /datasets/NAME/sub/a.jpg in the container
        parts = PurePosixPath(str(image.get("path") or "")).parts
        if len(parts) > 4 and parts[:2] == ("/", "datasets") and parts[-1] == image.get("file_name"):
            name = "/".join(parts[3:])
            changes.add("file name completed by its sub-folder", f"{image['file_name']} → {name}")
            image = {**image, "file_name": name}
        images.append(image)
    return {**raw, "images": images}
