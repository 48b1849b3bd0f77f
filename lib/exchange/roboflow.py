"""Roboflow's "COCO keypoints" export: a file per split beside the pictures, which are renamed and usually resized."""

from __future__ import annotations

import re
from typing import Any

from lib.exchange.changes import Changes

HASHED = re.compile(r"_[a-zA-Z]{3,4}\.rf\.[0-9a-zA-Z]{8,}(?=\.)")


def parent_ids(categories: list[dict[str, Any]]) -> set:
    """Ids of the categories which only group others: no keypoints, and another one calls them its supercategory."""
    parents = {c.get("supercategory") for c in categories}
    return {c.get("id") for c in categories if not c.get("keypoints") and c.get("name") in parents}


def prepare(raw: dict[str, Any], changes: Changes) -> dict[str, Any]:
    """Take out the grouping category (id 0) where no annotation uses it, and say which names and sizes are Roboflow's."""
    used = {a.get("category_id") for a in raw["annotations"]}
    parents = parent_ids(raw["categories"]) - used
    for category in raw["categories"]:
        if category.get("id") in parents:
            changes.add("grouping category left out", f"id {category['id']}, {category.get('name')!r}")
    originals: dict[str, int] = {}
    for image in raw["images"]:
        name = str(image.get("file_name"))
        original = (image.get("extra") or {}).get("name") or HASHED.sub("", name)
        if original != name:
            changes.add("picture renamed by Roboflow, usually also resized: use the pictures of the export, the keypoints "
                        "fit them and not the originals", f"{name}, was {original}", "note")  # fmt: skip
        originals[original] = originals.get(original, 0) + 1
    for original, count in originals.items():
        if count > 1:
            changes.add("picture in several augmented versions: keep them in one split", f"{original}, {count} times",
                        "warning")  # fmt: skip
    return {**raw, "categories": [c for c in raw["categories"] if c.get("id") not in parents]}
