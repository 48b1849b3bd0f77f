"""CVAT: its "COCO Keypoints 1.0" zip, written and read, and a skeleton for its label constructor.

CVAT drops boxes on import and makes polygons of masks, so the zip keeps boxes and leaves masks out. A keypoint with v = 0
keeps its place: there it is "outside", and an annotator can switch it on instead of drawing it. v = 1 is "occluded".
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path, PurePosixPath

import msgspec
import numpy as np
from tqdm.auto import tqdm

from lib import files
from lib.data.coco import CocoFile, no_garbage_collection
from lib.draw import palette
from lib.exchange.changes import Changes
from lib.exchange.normalise import normalise
from lib.skeleton import Skeleton
from lib.skeleton_layout import layout

_UNSAFE = re.compile(r"[\"<>&\x00-\x1f]")
_WHEN = (1980, 1, 1, 0, 0, 0)  # the same content is the same file


def cvat_labels(skeleton: Skeleton) -> list[dict]:
    """What CVAT's label constructor takes in its "Raw" tab: one skeleton label with a point for every keypoint.

    Raises:
        ValueError: a name holds one of `" < > &`; CVAT puts names into the SVG and replaces them there as plain text.
    """
    for name in (skeleton.name, *skeleton.keypoints):
        if not isinstance(name, str) or _UNSAFE.search(name) or not name.strip():
            raise ValueError(f'CVAT cannot have a label called {name!r}: rename it without ", <, > and &')
    colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in palette(skeleton)[0]]
    sublabels = [{"name": name, "type": "points", "color": colour, "attributes": []}
                 for name, colour in zip(skeleton.keypoints, colours)]  # fmt: skip
    return [{"name": skeleton.name, "type": "skeleton", "color": "#d55400", "attributes": [], "sublabels": sublabels,
             "svg": _svg(skeleton, colours)}]  # fmt: skip


@no_garbage_collection()
def write_cvat_zip(
    path: str | Path, coco: CocoFile, subset: str = "default", images: str | Path | None = None
) -> Changes:
    """Write a zip that CVAT takes as "COCO Keypoints 1.0", for a task or (with pictures) for a project.

    Args:
        path: written beside and moved into place.
        coco: stays as it is; every category needs keypoints in CVAT, others are left out and reported.
        subset: CVAT's name of the part, "default" for a task.
        images: folder of the pictures to put in; a task that has them already needs none.

    Returns:
        What the zip does not have.

    Raises:
        ValueError: a subset's name with other than letters, digits, _ and -. FileNotFoundError: a picture is missing.
    """
    if not re.fullmatch(r"[\w-]+", subset):
        raise ValueError(f"subset {subset!r}: use letters, digits, _ and -")
    changes = Changes(str(path))
    raw = msgspec.to_builtins(coco)
    raw["categories"] = [c for c in raw["categories"] if c.get("keypoints")]
    known = {c["id"] for c in raw["categories"]}
    for a in raw["annotations"]:
        if a["category_id"] not in known:
            changes.add("CVAT takes skeletons only: annotation of a category without keypoints left out",
                        f"annotation {a['id']}", "warning")  # fmt: skip
    raw["annotations"] = [a for a in raw["annotations"] if a["category_id"] in known]
    if not known:
        raise ValueError(f"{coco.source}: no category has keypoints, so there is no skeleton for CVAT")
    clean = normalise(raw, coco.source, changes)
    for a in clean.annotations:
        if a.segmentation:
            changes.add("CVAT would make polygons of masks: left out", f"annotation {a.id}")
            a.segmentation = []
    for category in clean.categories:
        if category.supercategory:
            changes.add("CVAT's library would take the supercategory for a parent label: left out", category.name)
        category.supercategory = ""
    _check_item_names(clean, changes)
    sources = {image.file_name: _picture(images, image.file_name) for image in clean.images} if images else {}
    with files.beside(path) as writing, zipfile.ZipFile(writing, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(f"annotations/person_keypoints_{subset}.json", _WHEN)
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, msgspec.json.encode(clean))
        archive.writestr(zipfile.ZipInfo(f"images/{subset}/", _WHEN), b"")
        for name, source in tqdm(sources.items(), "pictures", unit=" pictures", disable=len(sources) < 500):
            archive.writestr(zipfile.ZipInfo(f"images/{subset}/{name}", _WHEN), source.read_bytes())
    return changes


def _check_item_names(coco: CocoFile, changes: Changes) -> None:
    """CVAT finds a frame by its path without the extension."""
    seen: dict[str, str] = {}
    for image in coco.images:
        other = seen.setdefault(str(PurePosixPath(image.file_name).with_suffix("")), image.file_name)
        if other != image.file_name:
            changes.add("CVAT cannot tell two pictures apart by their extension: rename one", f"{other}, {image.file_name}",
                        "severe")  # fmt: skip


def _picture(folder: str | Path, name: str) -> Path:
    path = files.inside(folder, name)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this picture is in the annotations and not in the folder")
    return path


def _svg(skeleton: Skeleton, colours: list[str]) -> str:
    """Lines and circles in a square of 0..100, without an outer element, as the constructor stores it."""
    points = layout(skeleton)
    low, span = points.min(axis=0), max(float(np.ptp(points, axis=0).max()), 1e-6)
    points = 50 + (points - low - np.ptp(points, axis=0) / 2) / span * 84
    lines = [
        f'<line x1="{points[a][0]:.2f}" y1="{points[a][1]:.2f}" x2="{points[b][0]:.2f}" y2="{points[b][1]:.2f}" '
        f'stroke="black" stroke-width="0.5" data-type="edge" data-node-from="{a + 1}" data-node-to="{b + 1}"></line>'
        for a, b in skeleton.limbs
    ]
    circles = [
        f'<circle r="1.5" cx="{x:.2f}" cy="{y:.2f}" stroke="black" stroke-width="0.1" fill="{colour}" '
        f'data-type="element node" data-element-id="{k}" data-node-id="{k}" data-label-name="{name}"></circle>'
        for k, ((x, y), colour, name) in enumerate(zip(points, colours, skeleton.keypoints), 1)
    ]
    return "".join(lines + circles)
