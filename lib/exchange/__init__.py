"""Annotations come from other tools and go back to them: coco-annotator, CVAT, Label Studio, Roboflow, DeeperCut's dataset.mat.

`read_any` reads all of them and says what it changed; keypoints are matched by name, never by position alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import yaml

from lib import files
from lib.data.coco import write_coco
from lib.exchange.changes import Changes
from lib.exchange.crops import uncropped
from lib.exchange.cvat import cvat_labels, write_cvat_zip
from lib.exchange.dataset_mat import write_samples
from lib.exchange.merge import merge_sets, remap
from lib.exchange.names import match_names
from lib.exchange.sources import read_any
from lib.skeleton import MPII14, Skeleton

__all__ = ["Changes", "convert", "cvat_labels", "cvat_labels_file", "match_names", "merge", "merge_sets", "read_any",
           "remap", "write_cvat_zip"]  # fmt: skip


def convert(source: str, target: str, kind: str = "auto", images: str | None = None, skeleton: str | None = None,
            aliases: str | None = None, category: str | None = None, subset: str = "default",
            first_pixel: int = 1, crops: str | None = None) -> None:  # fmt: skip
    """Turn an annotation tool's export into our COCO file, a CVAT zip or DeeperCut's dataset.mat, and say what was changed.

    Args:
        source: JSON file, zip, export folder or .mat file; it is never changed.
        target: a .json file (COCO keypoints), a .zip file (CVAT's "COCO Keypoints 1.0") or a .mat file (dataset.mat).
        kind: coco, coco_annotator, cvat, label_studio, roboflow or dataset_mat; auto recognises it from the content.
        images: folder of the pictures: finds them under their names, reads missing sizes, fills a .zip, and gives a .mat
            absolute paths.
        skeleton: keypoints to map to by name: a built-in name, a YAML file or a COCO file. A dataset.mat has no names:
            there it says which keypoint each joint's id is, by default mpii14.
        aliases: YAML file with the export's names and ours, `their_name: our_name`, for what is not matched by itself.
        category: whose keypoints are mapped, where several have some.
        subset: CVAT's name of the part, in a .zip.
        first_pixel: of a dataset.mat: 1 where pixels are counted from 1, as its MATLAB preparation does, 0 where from 0.
        crops: crops.json of `preannotate --crops`: labels of the cut-out pictures become labels of the whole ones.
    """
    _check_target(target, [source], ".json", ".zip", ".mat")
    if first_pixel not in (0, 1):
        raise ValueError(f"first_pixel {first_pixel}: pixels are counted from 0 or from 1")
    if aliases and not skeleton:
        raise ValueError(f"aliases {aliases} say which name becomes which: give the skeleton they lead to as well")
    wanted = _by_hand(Skeleton.named, skeleton) if skeleton else None
    coco, changes = read_any(source, kind, images, wanted or MPII14, first_pixel)
    if crops:
        coco, joined = uncropped(coco, crops)
        changes.include(joined)
    if wanted:
        names = _by_hand(_read_aliases, aliases) if aliases else None
        coco, mapped = remap(coco, wanted, names, category)
        changes.include(mapped)
    if Path(target).suffix == ".zip":
        changes.include(write_cvat_zip(target, coco, subset, images))
    elif Path(target).suffix == ".mat":
        changes.include(write_samples(target, coco, images, category, first_pixel=first_pixel))
    else:
        write_coco(target, coco)
    print(changes)
    print(f"{target}: written")


def merge(target: str, first: str, second: str, more: list[str] | None = None, images: list[str] | None = None,
          same_images: bool = False) -> None:  # fmt: skip
    """Join data sets into one COCO file: the union of their keypoints by name, v = 0 where a set lacks one.

    `python -m lib merge all.json a.json b.zip --more+ c.json --images+ a/images --images+ b/images --images+ c/images`

    Args:
        target: the .json file to write.
        first: an export of any tool (see convert); its order and spelling of keypoints stay.
        second: another one.
        more: further ones, as in --more+ c.json --more+ d.json.
        images: one folder of pictures for each, in this order, as in --images+ a --images+ b; file names then start from
            the folder above them all.
        same_images: a file name that stands in two of them is one picture, annotated in both.
    """
    sources = [first, second, *(more or ())]
    _check_target(target, sources, ".json")
    if images and len(images) != len(sources):
        raise ValueError(f"{len(sources)} sources and {len(images)} folders of pictures: give one for each")
    read = [read_any(path, images=folder) for path, folder in zip(sources, images or [None] * len(sources))]
    for _, changes in read:
        print(changes)
    folders, where = None, ""
    if images:
        roots = [Path(folder).resolve() for folder in images]
        above = Path(os.path.commonpath(roots))
        folders = [root.relative_to(above).as_posix() if root != above else "" for root in roots]
        where = f", pictures below {above}"
    coco, changes = merge_sets([coco for coco, _ in read], folders, same_images)
    write_coco(target, coco)
    changes.title = f"{target}: {len(coco.images)} images, {len(coco.annotations)} annotations{where}"
    print(changes)


def cvat_labels_file(skeleton: str, target: str) -> None:
    """Write a skeleton for CVAT's label constructor: paste the file into its "Raw" tab.

    Args:
        skeleton: a built-in name, a YAML file or a COCO file.
        target: the .json file to write.
    """
    _check_target(target, [skeleton], ".json")
    labels = cvat_labels(_by_hand(Skeleton.named, skeleton))
    files.write(target, msgspec.json.format(msgspec.json.encode(labels)))
    print(f"{target}: label {labels[0]['name']!r} with {len(labels[0]['sublabels'])} points")


def _by_hand(read, name: str):
    """Read a file that people write by hand: whatever is wrong in it becomes one line that names it."""
    try:
        return read(name)
    except (ValueError, TypeError, AttributeError, OverflowError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise ValueError(said if str(name) in said else f"{name}: not as it should be written: {said}") from None


def _check_target(target: str, sources: list[str], *suffixes: str) -> None:
    if Path(target).suffix not in suffixes:
        raise ValueError(f"{target}: the target is a {' or a '.join(suffixes)} file")
    if Path(target).is_dir():
        raise ValueError(f"{target} is a folder: choose another name for the target")
    if any(Path(target).resolve() == Path(source).resolve() for source in sources):
        raise ValueError(f"{target}: this is the source, which is never changed; choose another target")


def _read_aliases(path: str) -> dict[str, str]:
    content = yaml.safe_load(Path(path).read_text())
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in (*content, *content.values())):
        raise ValueError(f"{path}: aliases are written as one `their_name: our_name` a line")
    return content
