"""Data sets of different keypoints become one: by name, with v = 0 where a set does not know a keypoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import UNSET, convert
from msgspec.structs import replace

from lib.data.coco import Annotation, Category, CocoFile, Image, category_named, check_coco
from lib.exchange.changes import Changes
from lib.exchange.names import match_names, name_keys, unique
from lib.skeleton import Skeleton


def remap(coco: CocoFile, skeleton: Skeleton, aliases: Mapping[str, str] | None = None,
          category: str | None = None) -> tuple[CocoFile, Changes]:  # fmt: skip
    """Rewrite the keypoints of a category for another skeleton, by name and never by position.

    Args:
        coco: stays as it is.
        skeleton: gives order, links, sigmas and the category's new name.
        aliases: their name → ours, see `match_names`.
        category: whose keypoints; None: the only one that has some.

    Raises:
        KeyError: no such category. ValueError: not one name fits, or two fit the same keypoint.
    """
    old, changes = category_named(coco, category), Changes()
    match = match_names(old.keypoints, skeleton, aliases)
    if not match:
        raise ValueError(f"{coco.source}: none of {', '.join(old.keypoints)} is a keypoint of {skeleton.name!r} "
                         f"({', '.join(skeleton.keypoints)}): choose another skeleton or give aliases")  # fmt: skip
    for theirs, ours in match.items():
        if theirs != ours:
            changes.add("keypoint renamed", f"{theirs} → {ours}")
    for name in skeleton.keypoints:
        if name not in match.values():
            changes.add("keypoint is not in the file: v = 0 everywhere", name, "warning")
    figures = [a for a in coco.annotations if a.category_id == old.id and a.keypoints]
    for k, name in enumerate(old.keypoints):
        if name not in match:
            labels = sum(a.keypoints[3 * k + 2] > 0 for a in figures)
            example, severity = f"{name}, labelled {labels} times", "severe" if labels else "warning"
            changes.add("keypoint without a place in the skeleton or the aliases left out", example, severity)
    sources = {ours: old.keypoints.index(theirs) for theirs, ours in match.items()}
    places = [sources.get(name) for name in skeleton.keypoints]
    new = convert(skeleton.to_coco(old.id), Category)  # with links as tuples, as they are read
    categories = [new if c is old else c for c in coco.categories]
    for k, other in enumerate(categories):
        if other is not new and other.name == new.name:
            categories[k] = replace(other, name=f"{other.name}_2")
            changes.add("category that had the skeleton's name renamed", f"{other.name} → {other.name}_2", "warning")
    annotations = [_moved(a, places) if a.category_id == old.id else a for a in coco.annotations]
    result = replace(coco, categories=categories, annotations=annotations)
    result.source = coco.source
    check_coco(result)
    return result, changes


def merge_sets(sets: Sequence[CocoFile], folders: Sequence[str] | None = None,
               same_images: bool = False) -> tuple[CocoFile, Changes]:  # fmt: skip
    """Join data sets: categories of one name become one, with the union of their keypoints and links.

    Order and spelling are the first set's, new keypoints follow; ids are numbered anew from 1.

    Args:
        sets: they stay as they are.
        folders: one per set, put before its file names ("" for none); None: names stay unless two sets share one, then
            the name of its own file is put before the names of every set.
        same_images: a file name that stands in two sets is one picture, annotated in both.

    Raises:
        ValueError: no set, not one folder per set, or one picture with two sizes.
    """
    changes = Changes()
    if not sets or (folders is not None and len(folders) != len(sets)):
        raise ValueError(f"{len(sets)} data sets and {len(folders or ())} folders: one for each is needed")
    if folders is None:
        folders = [""] * len(sets) if same_images else _folders(sets, changes)
    keys = [name_keys([c.name for c in coco.categories]) for coco in sets]
    categories: dict[tuple[str, str], Category] = {}
    for coco, own in zip(sets, keys):
        for theirs, key in zip(coco.categories, own):
            first = categories.get(key)
            categories[key] = _union(first, theirs, changes) if first else replace(theirs, id=len(categories) + 1)
    images: dict[object, Image] = {}
    annotations: list[Annotation] = []
    for coco, own, folder in zip(sets, keys, folders):
        image_ids = {}
        for image in coco.images:
            name = f"{folder}/{image.file_name}" if folder else image.file_name
            new = replace(image, id=len(images) + 1, file_name=name)
            kept = images.setdefault(name if same_images else new.id, new)
            if (kept.width, kept.height) != (new.width, new.height):
                raise ValueError(f"{coco.source}: {name} has {new.width}×{new.height} pixels, in an earlier set "
                                 f"{kept.width}×{kept.height}: these are two pictures")  # fmt: skip
            image_ids[image.id] = kept.id
        ours = {c.id: categories[key] for c, key in zip(coco.categories, own)}
        places = {c.id: _places(c, ours[c.id], coco.source, changes) for c in coco.categories}
        for a in coco.annotations:
            new_ids = dict(id=len(annotations) + 1, image_id=image_ids[a.image_id], category_id=ours[a.category_id].id)
            annotations.append(replace(_moved(a, places[a.category_id]), **new_ids))
    result = CocoFile(list(images.values()), annotations, list(categories.values()), sets[0].info, sets[0].licenses)
    result.source = " + ".join(coco.source for coco in sets)
    twice = [name for name, count in Counter(image.file_name for image in result.images).items() if count > 1]
    if twice:
        changes.add("picture that several sets bring: --same_images makes it one", twice[0], "severe", len(twice))
    check_coco(result)
    return result, changes


def _union(first: Category, second: Category, changes: Changes) -> Category:
    """The first category with the keypoints and links that only the second has."""
    if not second.keypoints:
        return first
    if not first.keypoints:
        return replace(first, keypoints=second.keypoints, skeleton=second.skeleton, sigmas=second.sigmas)
    known = dict(zip(name_keys(first.keypoints), first.keypoints))
    ours = [known.get(key, name) for key, name in zip(name_keys(second.keypoints), second.keypoints)]
    names = list(dict.fromkeys([*first.keypoints, *ours]))
    links = {frozenset(link): tuple(link) for link in first.skeleton or ()}
    for a, b in second.skeleton or ():
        link = names.index(ours[a - 1]) + 1, names.index(ours[b - 1]) + 1
        links.setdefault(frozenset(link), link)
    sigmas = UNSET
    if first.sigmas and second.sigmas:
        by_name = dict(zip(ours, second.sigmas)) | dict(zip(first.keypoints, first.sigmas))
        sigmas = [by_name[name] for name in names]
    elif first.sigmas or second.sigmas:
        changes.add("only one set brings sigmas: left out of the union", first.name, "warning")
    return replace(first, keypoints=names, skeleton=list(links.values()), sigmas=sigmas)


def _places(theirs: Category, ours: Category, source: str, changes: Changes) -> list[int | None] | None:
    """Where each of our keypoints stands in their category; None: there is nothing to move."""
    if not theirs.keypoints:
        return None
    places = dict(zip(name_keys(theirs.keypoints), range(len(theirs.keypoints))))
    found = [places.get(key) for key in name_keys(ours.keypoints)]
    for name, place in zip(ours.keypoints, found):
        if place is None:
            changes.add("keypoint that a set does not have: v = 0 there", f"{name} in {source}")
        elif theirs.keypoints[place] != name:
            changes.add("keypoint renamed", f"{theirs.keypoints[place]} → {name} in {source}")
    return found


def _moved(a: Annotation, places: list[int | None] | None) -> Annotation:
    if not places or not a.keypoints:
        return a
    keypoints = [v for k in places for v in ((0, 0, 0) if k is None else a.keypoints[3 * k : 3 * k + 3])]
    return replace(a, keypoints=keypoints, num_keypoints=sum(v > 0 for v in keypoints[2::3]))


def _folders(sets: Sequence[CocoFile], changes: Changes) -> list[str]:
    names = [{image.file_name for image in coco.images} for coco in sets]
    shared = set().union(*(a & b for k, a in enumerate(names) for b in names[:k]))
    if not shared:
        return [""] * len(sets)
    folders = unique([Path(coco.source).stem for coco in sets])
    changes.add("file name that stands in several sets: every set's names now start with a folder of its own, move the "
                "pictures there or say that they are the same images", f"{min(shared)} → {folders[0]}/…",
                "warning", len(shared))  # fmt: skip
    return folders
