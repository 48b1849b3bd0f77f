"""Every check, in the order in which a repair goes through them: later stages build on mended earlier ones.

A check is a function `(labels) → Iterator[Hit]`; what it may find stands in `findings.KINDS`.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lib.data.coco import CocoFile, check_coco, no_garbage_collection
from lib.doctor import figures, pictures, sides, structure
from lib.doctor.findings import KINDS, SEVERITIES, Example, Finding, Hit
from lib.doctor.reading import Labels

STAGES = (
    (structure.syntax, structure.types, structure.ids, structure.references, structure.image_names),
    (structure.image_sizes, structure.categories, structure.links, structure.keypoint_words),
    (pictures.readable, pictures.sizes, pictures.copies, pictures.leaks),
    (figures.keypoint_counts, figures.segmentations, figures.crowds),
    (figures.finite, figures.visibilities, figures.places),
    (figures.boxes_present,),
    (figures.boxes_fit, figures.areas, figures.counted),
    (figures.twice, sides.sides, sides.order),
    (structure.emptiness,),
)
EXAMPLES = 8


@no_garbage_collection()
def find_all(labels: Labels) -> list[Finding]:
    """Run every check; the most severe findings come first."""
    found = [finding(labels, hit) for stage in STAGES for check in stage for hit in check(labels)]
    if not any(f.severity == "severe" for f in found):
        found += [finding(labels, hit) for hit in _refused(labels)]
    return sorted(found, key=lambda f: SEVERITIES.index(f.severity))


def finding(labels: Labels, hit: Hit) -> Finding:
    """A hit in words, with its first examples."""
    kind = KINDS[hit.code]
    severity = kind.severity
    if len(hit.rows) > kind.severe_share * _table_size(labels, kind.table):
        severity = "severe"
    examples = tuple(_example(labels, kind.table, hit, i) for i in range(min(EXAMPLES, len(hit.rows))))
    return Finding(hit.code, severity, len(hit.rows), kind.message, examples, kind.fix, kind.fixable)


def _table_size(labels: Labels, table: str) -> int:
    """People with keypoints for annotations: those without cannot be wrong about them."""
    return (
        len(labels.labelled_counts.nonzero()[0]) if table == "annotations" else len(getattr(labels, table or "images"))
    )


def _example(labels: Labels, table: str, hit: Hit, i: int) -> Example:
    row, told = int(hit.rows[i]), hit.tell(i)
    other = None if hit.others is None else int(hit.others[i])
    if table == "annotations":
        annotation, image = labels.annotations[row], int(labels.image_of[row])
        name = f" in {labels.images[image].get('file_name')!r}" if image >= 0 else ""
        text = f"annotation {annotation.get('id')!r}{name}: {told}".removesuffix(": ")
        return Example(text, image if image >= 0 else None, row, other, tuple(int(k) for k in hit.marks(i)))
    if table == "images":
        image = labels.images[row]
        text = f"image {image.get('id')!r} {image.get('file_name')!r}: {told}".removesuffix(": ")
        return Example(text, row, None, other)
    return Example(told)


def _refused(labels: Labels) -> Iterator[Hit]:
    """The last word has the reader that training uses."""
    try:
        check_coco(msgspec.convert(labels.content, CocoFile), labels.path)
    except (msgspec.ValidationError, ValueError) as error:
        told = str(error)
        yield Hit("refused", [0], lambda i: told)
