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
        parts = PurePosixPath(str(image.get("path") or "")).parts
        # in the container /datasets/NAME/sub/a.jpg; the server itself finds NAME behind the first "datasets"
        below = "/".join(parts[parts.index("datasets") + 2 :]) if "datasets" in parts else ""
        if below.endswith(f"/{image.get('file_name')}"):
            changes.add("file name completed by its sub-folder", f"{image['file_name']} → {below}")
            image = {**image, "file_name": below}
        images.append(image)
    return {**raw, "images": images}
