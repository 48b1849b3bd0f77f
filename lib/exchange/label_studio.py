"""Label Studio: its own JSON, which keeps who is who, and its COCO export, which does not.

The COCO export writes one keypoint figure per image: of several people only the last point of each name survives, without
any trace. So where more than one person stands in an image, "JSON" is the export to choose.
"""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from lib.exchange.changes import Changes

Row = dict[str, Any]
COLLAPSED = (
    "all points of an image are one figure: where there were several people only the last point of each name is \
left, which cannot be undone: export JSON instead of COCO"
)


def prepare(raw: Row, changes: Changes) -> Row:
    """The COCO export. Ids from 0, missing areas and segmentations are settled by `normalise`; this says what is lost."""
    with_points = [c.get("id") for c in raw["categories"] if c.get("keypoints")]
    for a in raw["annotations"]:
        if a.get("category_id") in with_points:
            changes.add(COLLAPSED, f"annotation {a.get('id')}, image {a.get('image_id')}", "severe")
    boxes = Counter(a.get("image_id") for a in raw["annotations"] if a.get("category_id") not in with_points)
    for image_id, count in boxes.items():
        if count > 1 and with_points:
            changes.add("image with several boxes and at most one figure of keypoints", f"image {image_id}, {count} boxes",
                        "severe")  # fmt: skip
    for name, count in Counter(image.get("file_name") for image in raw["images"]).items():
        if count > 1:
            changes.add(
                "image that several annotators worked on: it comes once for each", f"{name}, {count} times", "severe"
            )
    return raw


def from_tasks(tasks: list[Row], changes: Changes) -> Row:
    """Label Studio's own JSON as COCO-like lists; positions in percent become pixels.

    People are told apart by, in this order: the region that a point belongs to (parentID), a relation between them, the
    smallest rectangle that holds the point and has no point of that name yet, and at last by counting: the n-th point of a
    name belongs to the n-th person, which is reported as severe. A rectangle is a person's box, its label the category; people without one get the most frequent label.
    """
    images, people = [], []
    for number, task in enumerate(tasks, 1):
        result = _result(task, changes)
        images.append({"id": task.get("id", number), "file_name": _picture(task, number), **_size(result)})
        people += [(images[-1]["id"], *person) for person in _people(result, f"task {task.get('id')}", changes)]
    labels = Counter(category for _, category, _, _ in people if category)
    usual = labels.most_common(1)[0][0] if labels else "default"
    people = [(image_id, category or usual, *person) for image_id, category, *person in people]
    names: dict[str, list[str]] = {}
    for _, category, points, _ in people:
        known = names.setdefault(category, [])
        known += [name for name in points if name not in known]
    for category, keypoints in names.items():
        if keypoints:
            changes.add("order of the keypoints is the order of their first appearance, links are unknown: --skeleton "
                        "gives both", f"{category}: {', '.join(keypoints)}", "warning")  # fmt: skip
    ids = {name: number for number, name in enumerate(names, 1)}
    annotations = []
    for image_id, category, points, box in people:
        keypoints = [v for name in names[category] for v in points.get(name, (0, 0, 0))]
        a = {"id": len(annotations) + 1, "image_id": image_id, "category_id": ids[category], "iscrowd": 0, "bbox": box}
        annotations.append(a | {"keypoints": keypoints, "num_keypoints": sum(v > 0 for v in keypoints[2::3])})
    categories = [{"id": i, "name": name, "keypoints": names[name], "skeleton": []} for name, i in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _result(task: Row, changes: Changes) -> list[Row]:
    """The regions of the newest annotation that was not skipped, the ground truth first."""
    where = f"task {task.get('id')}"
    given = task.get("annotations", task.get("completions")) or []
    done = [a for a in given if not (a.get("was_cancelled") or a.get("skipped"))]
    if len(done) < len(given):
        changes.add("skipped annotation left out", where, "note", len(given) - len(done))
    done.sort(key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or a.get("created_at") or "")))
    if len(done) > 1:
        changes.add("several annotations of one image: the ground truth or the newest taken", f"{where}, {len(done)}",
                    "severe", len(done) - 1)  # fmt: skip
    if not done and task.get("predictions"):
        changes.add("predictions that nobody has accepted left out", where, "warning")
    return (done[-1].get("result") or []) if done else []


def _picture(task: Row, number: int) -> str:
    data = task.get("data") or {}
    links = [data.get("image"), *data.values(), task.get("file_upload")]
    link = next((v for v in links if isinstance(v, str) and ("/" in v or PurePosixPath(v).suffix)), None)
    if link is None:
        raise ValueError(f"task {task.get('id', number)} has no picture in its data {sorted(data)}")
    parts = urlsplit(link)
    below = parse_qs(parts.query).get("d")  # /data/local-files/?d=folder/a.jpg
    if below:
        return below[0].lstrip("/")
    return PurePosixPath(unquote(parts.path)).name if link.startswith("/data/") or parts.scheme else link


def _size(result: list[Row]) -> Row:
    known = (r for r in result if r.get("original_width") and r.get("original_height"))
    return next(({"width": r["original_width"], "height": r["original_height"]} for r in known), {})


def _people(result: list[Row], where: str, changes: Changes) -> list[tuple[str | None, dict, list | None]]:
    """(label of the rectangle, points by name, box) of everybody in an image."""
    boxes = {
        r.get("id"): r for r in result if "rectanglelabels" in (r.get("value") or {}) or r.get("type") == "rectangle"
    }
    points = [r for r in result if (r.get("value") or {}).get("keypointlabels")]
    owners = {r["id"]: r["parentID"] for r in result if r.get("id") and r.get("parentID")}
    for r in result:
        if r.get("type") == "relation":
            owners.setdefault(r.get("to_id"), r.get("from_id"))
            owners.setdefault(r.get("from_id"), r.get("to_id"))
        elif r.get("id") not in boxes and r not in points:
            changes.add(f"region of type {r.get('type')} left out", where, "warning")
        if r.get("image_rotation"):
            changes.add("image was turned in Label Studio: check where its points lie", where, "severe")
    groups: dict[Any, dict[str, tuple]] = {i: {} for i in boxes}
    places = {i: _box(r) for i, r in boxes.items()}
    for r in points:
        point, name = _point(r, where, changes), str(r["value"]["keypointlabels"][0])
        owner = _owner(r, name, point, owners, places, groups)
        if owner is None:
            loose = sum(name in found for i, found in groups.items() if i not in boxes and isinstance(i, int))
            owner = loose + 1
            if loose:
                changes.add("several points of one name and nothing that says whose: the n-th belongs to the n-th person",
                            f"{where}, {name}", "severe")  # fmt: skip
        elif name in groups[owner]:
            changes.add("second point of one name for one person left out", f"{where}, {name}", "severe")
            continue
        groups.setdefault(owner, {})[name] = point
    labels = {i: (r["value"].get("rectanglelabels") or [None])[0] for i, r in boxes.items()}
    return [(labels.get(i), found, places.get(i)) for i, found in groups.items()]


def _owner(r: Row, name: str, point: tuple, owners: dict, places: dict, groups: dict) -> Any:
    """Key of the group a point belongs to; None: nothing says so."""
    owner = owners.get(r.get("id"))
    if owner in places:
        return owner
    if owner is not None:  # a group without a rectangle
        key = f"group {owner}"
        groups.setdefault(key, {})
        return key
    holds = [i for i, (x, y, w, h) in places.items()
             if x <= point[0] <= x + w and y <= point[1] <= y + h and name not in groups[i]]  # fmt: skip
    return min(holds, key=lambda i: places[i][2] * places[i][3], default=None)


def _point(r: Row, where: str, changes: Changes) -> tuple[float, float, int]:
    value = r["value"]
    if value.get("hidden"):
        changes.add("point marked as hidden: v = 1", f"{where}, {value['keypointlabels'][0]}")
    # seven digits are far below what a mouse can do, and make 50.000000001 % whole again
    x, y = (round(value[axis] / 100 * r[f"original_{side}"], 4) for axis, side in (("x", "width"), ("y", "height")))
    return x, y, 1 if value.get("hidden") else 2


def _box(r: Row) -> list[float]:
    """[x, y, width, height] in pixels; of a turned rectangle (about its upper left corner) the box around it."""
    value, size = r["value"], np.array([r["original_width"], r["original_height"]])
    x, y, w, h = (value[key] / 100 * size[k % 2] for k, key in enumerate(("x", "y", "width", "height")))
    angle = np.deg2rad(value.get("rotation") or 0)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]]) @ turn.T + (x, y)
    low, high = corners.min(axis=0), corners.max(axis=0)
    return [round(float(v), 4) for v in (*low, *(high - low))]
