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
COLLAPSED = "all points of an image in one figure: of several people only the last point of a name is left; export JSON"


def prepare(raw: Row, changes: Changes) -> Row:
    """The COCO export. Ids from 0, missing areas and segmentations are settled by `normalise`; this says what is lost."""
    with_points = [c.get("id") for c in raw["categories"] if c.get("keypoints")]
    boxes = Counter(a.get("image_id") for a in raw["annotations"] if a.get("category_id") not in with_points)
    for a in raw["annotations"]:
        if a.get("category_id") in with_points:
            image = f"image {a.get('image_id')}"
            changes.add(COLLAPSED, image, "severe")
            if boxes[a.get("image_id")] > 1:
                example = f"{image}, {boxes[a['image_id']]} boxes"
                changes.add("image with several boxes and one figure", example, "severe")
    for name, count in Counter(image.get("file_name") for image in raw["images"]).items():
        if count > 1:
            changes.add("image that several people annotated: it is there once for each", f"{name}, {count}", "severe")
    return raw


def from_tasks(tasks: list[Row], changes: Changes) -> Row:
    """Label Studio's own JSON as COCO-like lists; positions in percent become pixels.

    A point belongs to the rectangle or the points that its parentID or a relation ties it to; else to the smallest
    rectangle around it that has no point of its name yet; else the n-th point of a name belongs to the n-th person, which
    is reported as severe. A rectangle is the person's box and its label the category, which those without one share.
    """
    images, people = [], []
    for number, task in enumerate(tasks, 1):
        try:
            result = _result(task, changes)
            size = next((r for r in result if r.get("original_width") and r.get("original_height")), {})
            images.append({"id": task.get("id", number), "file_name": _picture(task), "width": size.get("original_width"),
                           "height": size.get("original_height")})  # fmt: skip
            people += [(images[-1]["id"], *person) for person in _people(result, f"task {task.get('id')}", changes)]
        except (TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
            raise ValueError(f"task {task.get('id')} is not as Label Studio writes it: {error!r}") from None
    usual = Counter(label for _, label, _, _ in people if label).most_common(1)
    people = [(image_id, label or (usual[0][0] if usual else "default"), *rest) for image_id, label, *rest in people]
    names: dict[str, list[str]] = {}
    for _, category, points, _ in people:
        names[category] = list(dict.fromkeys([*names.get(category, ()), *points]))
    for category, keypoints in names.items():
        example = f"{category}: {', '.join(keypoints)}"
        changes.add("keypoints in order of appearance and without links: --skeleton gives both", example, "warning")
    ids = {name: number for number, name in enumerate(names, 1)}
    annotations = []
    for image_id, category, points, box in people:
        keypoints = [v for name in names[category] for v in points.get(name, (0, 0, 0))]
        annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": ids[category], "bbox": box,
                            "keypoints": keypoints, "num_keypoints": len(points)})  # fmt: skip
    categories = [{"id": i, "name": name, "keypoints": names[name], "skeleton": []} for name, i in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _result(task: Row, changes: Changes) -> list[Row]:
    """The regions of the newest annotation that was not skipped, the ground truth first."""
    where = f"task {task.get('id')}"
    given = task.get("annotations", task.get("completions")) or []
    done = [a for a in given if not (a.get("was_cancelled") or a.get("skipped"))]
    done.sort(key=lambda a: (bool(a.get("ground_truth")), str(a.get("updated_at") or a.get("created_at") or "")))
    if len(done) < len(given):
        changes.add("skipped annotation left out", where, "note", len(given) - len(done))
    if len(done) > 1:
        example = f"{where}, {len(done)}"
        changes.add("several annotations of an image: ground truth or newest taken", example, "severe", len(done) - 1)
    if not done and task.get("predictions"):
        changes.add("predictions that nobody has accepted left out", where, "warning")
    return (done[-1].get("result") or []) if done else []


def _picture(task: Row) -> str:
    data = task.get("data") or {}
    links = [data.get("image"), *data.values(), task.get("file_upload")]
    link = next((v for v in links if isinstance(v, str) and ("/" in v or PurePosixPath(v).suffix)), None)
    if link is None:
        raise ValueError(f"task {task.get('id')} has no picture in its data {sorted(data)}")
    parts = urlsplit(link)
    below = parse_qs(parts.query).get("d")  # /data/local-files/?d=folder/a.jpg
    if below:
        return below[0].lstrip("/")
    return PurePosixPath(unquote(parts.path)).name if link.startswith("/data/") or parts.scheme else link


def _people(result: list[Row], where: str, changes: Changes) -> list[tuple[str | None, dict, list | None]]:
    """(label of the rectangle, points by name, box) of everybody in an image."""
    values = {r.get("id"): r.get("value") or {} for r in result if r.get("type") != "relation"}
    boxes = {r["id"]: _box(r) for r in result if r.get("type") in ("rectanglelabels", "rectangle")}
    points = [r for r in result if (r.get("value") or {}).get("keypointlabels")]
    for r in result:
        if r.get("id") not in boxes and r not in points and r.get("type") != "relation":
            changes.add(f"region of type {r.get('type')} left out", where, "warning")
        if r.get("image_rotation"):
            changes.add("image was turned in Label Studio: check where its points lie", where, "severe")
    owners = _owners(result, boxes)
    groups: dict[Any, dict[str, tuple]] = {i: {} for i in boxes}
    for r in points:
        point, name = _point(r), str(r["value"]["keypointlabels"][0])
        if point[2] == 1:
            changes.add("point marked as hidden: v = 1", f"{where}, {name}")
        around = [(w * h, i) for i, (x, y, w, h) in boxes.items()
                  if name not in groups[i] and 0 <= point[0] - x <= w and 0 <= point[1] - y <= h]  # fmt: skip
        owner = owners.get(r.get("id")) or min(around, default=(0, None))[1]
        if owner is None:
            owner = 1 + sum(type(i) is int and name in found for i, found in groups.items())
            if owner > 1:
                rule = "points of one name, nothing says whose: n-th point, n-th person"
                changes.add(rule, f"{where}, {name}", "severe")
        if name in groups.setdefault(owner, {}):
            changes.add("second point of one name for one person left out", f"{where}, {name}", "severe")
        groups[owner].setdefault(name, point)
    labels = {i: value["rectanglelabels"][0] for i, value in values.items() if value.get("rectanglelabels")}
    return [(labels.get(i), found, boxes.get(i)) for i, found in groups.items()]


def _owners(result: list[Row], boxes: dict) -> dict[Any, Any]:
    """Region → the one that stands for all which parentIDs and relations tie together: a rectangle, if there is one."""
    pairs = [(r["parentID"], r.get("id")) for r in result if r.get("parentID")]
    pairs += [(r.get("from_id"), r.get("to_id")) for r in result if r.get("type") == "relation"]
    leaders = {end: end for pair in pairs for end in pair}
    for pair in pairs:
        a, b = (leaders[end] for end in pair)
        for end, leader in leaders.items():
            if leader in (a, b):
                leaders[end] = b if b in boxes else a
    return leaders


def _point(r: Row) -> tuple[float, float, int]:
    value = r["value"]
    # four decimals are far below what a mouse can do, and 50.000000001 % is whole again
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
