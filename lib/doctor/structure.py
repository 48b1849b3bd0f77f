"""Checks of the file itself: lists, types, ids, references, names, categories."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

import numpy as np

from lib import files
from lib.doctor.findings import Hit, told, where
from lib.doctor.reading import Labels, keypoint_names, usable_links, usable_skeleton
from lib.skeleton import COCO17

SINGULAR = {"images": "image", "annotations": "annotation", "categories": "category"}
WHOLE = {"images": ("id", "width", "height"), "categories": ("id",),
         "annotations": ("id", "image_id", "category_id", "num_keypoints")}  # fmt: skip
SIDES = ("left", "right")
PLAIN_NAME = re.compile(r"\w[\w. -]*")


def syntax(labels: Labels) -> Iterator[Hit]:
    """NaN, Infinity, a byte order mark; entries that are no objects."""
    if not labels.strict:
        yield Hit("not_strict_json", [0], lambda i: "NaN, Infinity or a byte order mark, which most readers refuse")
    if labels.not_objects:
        yield Hit("not_an_object", [0] * labels.not_objects)


def types(labels: Labels) -> Iterator[Hit]:
    """Numbers that are text, true or null, and fractions where whole numbers belong."""
    for table, singular in SINGULAR.items():
        entries, wrong = getattr(labels, table), {}
        for name in WHOLE[table]:
            _note_types(wrong, name, [[entry.get(name, 0)] for entry in entries], {int})
        if table == "annotations":
            _note_types(wrong, "area", [[entry.get("area", 0)] for entry in entries], {int, float})
            for name in ("keypoints", "bbox"):
                lists = [value if isinstance(value, list) else () for value in labels.column(name)]
                _note_types(wrong, name, lists, {int, float})
        yield from told(f"{singular}_types", wrong)


def ids(labels: Labels) -> Iterator[Hit]:
    """Missing and repeated ids."""
    for table, singular in SINGULAR.items():
        keys, entries, first, again = labels.ids[table], getattr(labels, table), {}, {}
        no_number = {r: f"id is {entries[r].get('id')!r}" for r, key in enumerate(keys) if not isinstance(key, int)}
        yield from told(f"{singular}_id_missing", no_number)
        for row, key in enumerate(keys):
            if key is not None and first.setdefault(key, row) != row:
                again[row] = f"id {key!r} again"
        yield from told(f"{singular}_id_twice", again, [first[keys[row]] for row in again])


def references(labels: Labels) -> Iterator[Hit]:
    """Annotations of images or categories that are not listed."""
    for code, found, name in (("unknown_image", labels.image_of, "image_id"),
                              ("unknown_category", labels.category_of, "category_id")):  # fmt: skip
        yield from where(code, found < 0, lambda row, n=name: f"{n} {labels.annotations[row].get(n)!r} is not listed")


def image_names(labels: Labels) -> Iterator[Hit]:
    """Names that are missing, leave the folder, or stand twice."""
    bad, first, again = {}, {}, {}
    for row, image in enumerate(labels.images):
        name = image.get("file_name")
        if fault := name_fault(name):
            bad[row] = fault
        elif first.setdefault(name, row) != row and labels.ids["images"][row] != labels.ids["images"][first[name]]:
            again[row] = f"{name!r} again"
    yield from told("image_name", bad)
    yield from told("image_twice", again, [first[labels.images[row]["file_name"]] for row in again])


def image_sizes(labels: Labels) -> Iterator[Hit]:
    """Width or height missing, zero, negative."""
    said = lambda row: ", ".join(f"{side} {labels.images[row].get(side)!r}" for side in ("width", "height"))
    yield from where("image_size", np.isnan(labels.sizes).any(axis=1), said)


def categories(labels: Labels) -> Iterator[Hit]:
    """Names, sigmas and links of the categories."""
    faults = {row: _faults(category) for row, category in enumerate(labels.categories)}
    yield from told("category_malformed", {row: "; ".join(fault) for row, fault in faults.items() if fault})
    nameless = [row for row, count in enumerate(labels.num_keypoints) if not count]
    if len(nameless) == len(labels.categories):
        yield Hit("no_keypoint_names", [0])
    else:
        yield from told("category_without_names", {row: _name(labels, row) for row in nameless})
    zero = [row for row, key in enumerate(labels.ids["categories"]) if key == 0]
    yield from told("category_id_zero", {row: _name(labels, row) for row in zero})


def links(labels: Labels) -> Iterator[Hit]:
    """Skeletons counted from 0, and links that join nothing."""
    from_zero, broken = {}, {}
    for row, category in enumerate(labels.categories):
        listed, count = category.get("skeleton", []), len(keypoint_names(category))
        listed = listed if isinstance(listed, list) else [listed]
        ends = [end for link in listed if isinstance(link, list) for end in link if type(end) is int]
        if ends and min(ends) == 0 and max(ends) < count:
            from_zero[row] = f"{_name(labels, row)}: ends from 0 to {max(ends)} for {count} keypoints"
        elif len(usable_links(category)) < len(listed):
            good = {frozenset((a + 1, b + 1)) for a, b in usable_links(category)}
            bad = [link for link in listed if not isinstance(link, list) or _ends(link) not in good]
            broken[row] = f"{_name(labels, row)}: {str((bad or ['a link twice'])[0])[:40]}"
    yield from told("skeleton_from_zero", from_zero)
    yield from told("skeleton_links", broken)


def keypoint_words(labels: Labels) -> Iterator[Hit]:
    """COCO's names in another order, sides without a twin, numbers for names."""
    order, alone, numbered = {}, {}, {}
    for row, category in enumerate(labels.categories):
        names = keypoint_names(category)
        plain = [name.lower().replace(" ", "_").replace("-", "_") for name in names]
        if sorted(plain) == sorted(COCO17.keypoints) and tuple(plain) != COCO17.keypoints:
            order[row] = f"{_name(labels, row)}: {', '.join(names[:4])}, …"
        paired = {end for pair in usable_skeleton(category).flip_pairs for end in pair} if names else set()
        single = [name for k, name in enumerate(names) if k not in paired and any(s in plain[k] for s in SIDES)]
        if single:
            alone[row] = f"{_name(labels, row)}: {', '.join(single)}"
        if names and all(name.strip("_- ").removeprefix("kp").strip("_- ").isdigit() for name in plain):
            numbered[row] = f"{_name(labels, row)}: {', '.join(names[:4])}, …"
    yield from told("names_in_other_order", order)
    yield from told("names_without_twin", alone)
    yield from told("names_say_nothing", numbered)


def emptiness(labels: Labels) -> Iterator[Hit]:
    """Nothing there: in the file, of a category, of a keypoint, in an image."""
    if not labels.images:
        yield Hit("no_images", [0])
    if not labels.labelled_counts.any():
        yield Hit("nothing_labelled", [0])
        return
    per_category = np.bincount(labels.category_of[labels.category_of >= 0], minlength=len(labels.categories))
    rare = np.flatnonzero(per_category < 0.01 * per_category.max())
    yield from told("class_balance", {r: f"{_name(labels, r)}: {per_category[r]} annotations" for r in rare.tolist()})
    never = {}
    for group in labels.figures:
        missing = np.flatnonzero(~group.labelled.any(axis=0))
        if len(missing) and group.labelled.any():
            names = ", ".join(group.skeleton.keypoints[k] for k in missing)
            never[group.category] = f"{_name(labels, group.category)}: {names}"
    yield from told("keypoint_never_labelled", never)
    empty = np.bincount(labels.image_of[labels.image_of >= 0], minlength=len(labels.images)) == 0
    yield from where("image_empty", empty, lambda row: "")


def name_fault(name: object) -> str:
    """Why a file name cannot be used, or ""."""
    if not isinstance(name, str):
        return f"file_name is {name!r}"
    if PLAIN_NAME.fullmatch(name):  # nearly all are: the thorough look takes fifty times as long
        return ""
    try:
        files.relative(name)
    except ValueError as error:
        return str(error)
    return ""


def _note_types(wrong: dict[int, str], name: str, lists: list, allowed: set[type]) -> None:
    if set(map(type, chain.from_iterable(lists))) <= allowed:
        return
    for row, values in enumerate(lists):
        bad = next((value for value in values if type(value) not in allowed), allowed)
        if bad is not allowed:
            wrong.setdefault(row, f"{name}: {str(bad)[:30]!r} is {type(bad).__name__}")


def _name(labels: Labels, row: int) -> str:
    return repr(labels.categories[row].get("name"))


def _ends(link: list) -> frozenset | None:
    return frozenset(link) if all(type(end) is int for end in link) else None


def _faults(category: dict) -> list[str]:
    names, found = category.get("keypoints", []), []
    if not isinstance(category.get("name"), str):
        found.append(f"its name is {category.get('name')!r}")
    if not isinstance(names, list):
        found.append(f"keypoints is {type(names).__name__}, not a list")
    elif not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        found.append("keypoints needs different names, as text")
    sigmas = category.get("sigmas", ())
    if sigmas != () and not (isinstance(sigmas, list) and len(sigmas) == len(keypoint_names(category))
                                   and all(type(s) in (int, float) and 0 < s < 1e9 for s in sigmas)):  # fmt: skip
        found.append(f"sigmas needs {len(keypoint_names(category))} positive numbers")
    return found
