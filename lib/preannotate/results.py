"""What annotators open: a zip for CVAT with its labels, and a start for our own annotator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from lib import files
from lib.annotate.labels import Place, write_place
from lib.data.coco import AREA_OF_BOX, Annotation, Category, CocoFile, Image, write_coco
from lib.exchange import Changes, cvat_labels, write_cvat_zip
from lib.preannotate.journal import Labelled, Line
from lib.skeleton import Skeleton

ZIP, LABELS, CVAT_LABELS, CROPS = "cvat.zip", "labels.json", "cvat_labels.json", "crops.json"
IMAGES, WHOLE = "images", "whole"


def write_results(folder: Path, lines: Sequence[Line], skeleton: Skeleton) -> Changes:
    """Write all files; nothing that is there already is changed. The zip comes last: where it is, the rest is.

    Returns:
        What the zip does not have.
    """
    pictures = [picture for line in lines for picture in line.pictures]
    coco = to_coco(pictures, skeleton)
    if not (folder / LABELS).exists():  # from then on it belongs to whoever annotates
        # suggestions enter the file when they are accepted or edited: nobody's guess is taken for a label
        suggestions = {p.file_name: [person.keypoints for person in p.people] for p in pictures if p.people}
        write_place(folder / LABELS, Place(pictures[0].file_name, [], suggestions))
        # pictures, too, enter it with their people, or marked as done: one that waits is not one without people
        write_coco(folder / LABELS, msgspec.structs.replace(coco, images=[], annotations=[]))
    files.write(folder / CVAT_LABELS, msgspec.json.format(msgspec.json.encode(cvat_labels(skeleton))))
    if origins := {p.file_name: p.origin for p in pictures if p.origin}:
        files.write(folder / CROPS, msgspec.json.format(msgspec.json.encode(origins)))
    return write_cvat_zip(folder / ZIP, coco, images=folder / IMAGES)


def to_coco(pictures: Sequence[Labelled], skeleton: Skeleton) -> CocoFile:
    """A COCO file with ids from 1; a person's area is the share of the box that people fill."""
    kind = skeleton.to_coco() | {"supercategory": ""}  # CVAT's library would take one for a parent label
    coco = CocoFile([], [], [msgspec.convert(kind, Category)])
    for number, picture in enumerate(pictures, 1):
        coco.images.append(Image(number, picture.file_name, picture.width, picture.height))
        for person in picture.people:
            coco.annotations.append(Annotation(
                len(coco.annotations) + 1, number, kind["id"], person.keypoints, sum(v > 0 for v in person.keypoints[2::3]),
                person.box, round(AREA_OF_BOX * person.box[2] * person.box[3], 2), segmentation=[],
            ))  # fmt: skip
    return coco
