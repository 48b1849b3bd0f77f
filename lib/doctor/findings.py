"""What the doctor can find: every kind of finding with its severity, its words and its remedy, in one table.

severe: the file cannot be read, or training and scores go wrong. warning: look at it. note: good to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SEVERITIES = ("severe", "warning", "note")


@dataclass(frozen=True)
class Kind:
    """One kind of finding.

    Attributes:
        table: what its rows are: "images", "annotations", "categories", or "" for the file as a whole.
        severity: "severe", "warning" or "note".
        message: what is wrong with the rows that are counted.
        fix: the way out; where `fixable`, what a repaired copy does.
        fixable: whether a repair mends it.
        severe_share: a warning about more than this share of the table's rows is severe.
    """

    table: str
    severity: str
    message: str
    fix: str
    fixable: bool = True
    severe_share: float = float("inf")


@dataclass(frozen=True)
class Hit:
    """What a check yields.

    Attributes:
        code: key of `KINDS`.
        rows: 0-based rows of the kind's table; zeros for "".
        tell: position in `rows` → what exactly is wrong with that row.
        marks: position in `rows` → the keypoints concerned, to be ringed in a picture.
        others: a second row of the same table for each, where a finding is about two.
    """

    code: str
    rows: Sequence[int]
    tell: Callable[[int], str] = lambda i: ""
    marks: Callable[[int], Sequence[int]] = lambda i: ()
    others: Sequence[int] | None = None


def where(code: str, mask: np.ndarray, tell: Callable[[int], str]) -> Iterator[Hit]:
    """A hit for the rows where `mask` is true, if there are any; `tell` takes a row."""
    rows = np.flatnonzero(mask)
    if len(rows):
        yield Hit(code, rows, lambda i: tell(rows[i]))


def told(code: str, sentences: dict[int, str], others: Sequence[int] | None = None) -> Iterator[Hit]:
    """A hit for rows with a sentence each, if there are any."""
    if sentences:
        yield Hit(code, list(sentences), list(sentences.values()).__getitem__, others=others)


@dataclass(frozen=True)
class Example:
    """One case of a finding: a sentence, and where to look (0-based rows of the file's lists, or None)."""

    text: str
    image: int | None = None
    annotation: int | None = None
    other: int | None = None
    marks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        code: a key of `KINDS`; stays the same from version to version.
        severity: "severe", "warning" or "note".
        count: how many images, annotations or categories.
        message: what is wrong with them.
        examples: some of them.
        fix: the way out.
        fixable: whether a repair mends it.
    """

    code: str
    severity: str
    count: int
    message: str
    examples: tuple[Example, ...]
    fix: str
    fixable: bool


F, I, A, C = "", "images", "annotations", "categories"
DROPPED = "left out of the copy"
DROPPED_WITH_PEOPLE = "left out of the copy, with their annotations"
LOOK = "look at the examples and mend them in the annotator"

KINDS = {
    # the file as a whole
    "not_strict_json": Kind(F, "severe", "not strict JSON", "written as strict JSON"),
    "not_an_object": Kind(F, "severe", "entries that are not objects {…}", DROPPED),
    "no_images": Kind(F, "severe", "no image is listed", "export again", False),
    "no_keypoint_names": Kind(F, "severe", "no category names its keypoints", "export with the skeleton's names", False),
    "nothing_labelled": Kind(F, "severe", "no annotation has a labelled keypoint", "export with keypoints", False),
    "refused": Kind(F, "severe", "the workbook cannot read this file", "see the sentence", False),
    # numbers, ids, names
    "image_types": Kind(I, "severe", "images with a number of the wrong type", "written as numbers"),
    "annotation_types": Kind(A, "severe", "annotations with a number of the wrong type", "written as numbers"),
    "category_types": Kind(C, "severe", "categories with a number of the wrong type", "written as numbers"),
    "image_id_missing": Kind(I, "severe", "images without a number as id", "numbered, references follow"),
    "annotation_id_missing": Kind(A, "severe", "annotations without a number as id", "numbered"),
    "category_id_missing": Kind(C, "severe", "categories without a number as id", "numbered, references follow"),
    "image_id_twice": Kind(I, "severe", "images with the id of another: nobody knows whose labels are whose",
                           "both left out of the copy, with their annotations; same file: merged"),
    "annotation_id_twice": Kind(A, "severe", "annotations with the id of another", "numbered anew"),
    "category_id_twice": Kind(C, "severe", "categories with the id of another", "the later ones are " + DROPPED),
    "category_id_zero": Kind(C, "note", "category id 0, which CVAT and others take for 'none'", "start at 1", False),
    "unknown_image": Kind(A, "severe", "annotations of images that are not listed", DROPPED),
    "unknown_category": Kind(A, "severe", "annotations of categories that are not listed",
                             "given to the only category with as many keypoints; without one " + DROPPED),
    "image_name": Kind(I, "severe", "images whose file_name is missing or leaves the folder", DROPPED_WITH_PEOPLE),
    "image_twice": Kind(I, "warning", "images listed again under another id", "merged into the first"),
    "image_size": Kind(I, "severe", "images without a size", "taken from the pictures, where they are given"),
    # categories
    "category_malformed": Kind(C, "severe", "categories with unusable fields", "made usable, sigmas dropped"),
    "category_without_names": Kind(C, "note", "categories without keypoints", "none needed", False),
    "skeleton_from_zero": Kind(C, "severe", "skeletons that seem to count from 0: COCO counts from 1", "counted from 1"),
    "skeleton_links": Kind(C, "severe", "skeletons with links that join no two keypoints, or twice", "links dropped"),
    "names_in_other_order": Kind(C, "warning", "COCO's 17 keypoints in another order than COCO's",
                                 "go by name, never by position: python -m lib convert does", False),
    "names_without_twin": Kind(C, "warning", "keypoints of one side whose other side is missing",
                               "rename them, left_x and right_x; mirrored pictures exchange them by name", False),
    "names_say_nothing": Kind(C, "warning", "keypoints with numbers for names", "give them names", False),
    "keypoint_never_labelled": Kind(C, "warning", "keypoints that nobody ever labelled",
                                    "label some, or take them out of the skeleton", False),
    "class_balance": Kind(C, "note", "categories with none or less than 1 % of the largest's annotations",
                          "label more of them, or say category=NAME", False),
    # keypoints
    "keypoint_count": Kind(A, "severe", "annotations whose keypoints are not x, y, v for each name",
                           "pairs get v = 2, surplus is cut, missing ones are not labelled; the rest loses its keypoints"),
    "keypoints_without_names": Kind(A, "severe", "annotations with keypoints in a category that names none",
                                    "given to the only category with as many keypoints"),
    "not_finite": Kind(A, "severe", "annotations with NaN, infinite or absurdly large keypoints", "these keypoints get v = 0"),
    "visibility": Kind(A, "severe", "annotations with a visibility other than 0, 1, 2", "v becomes 2 where it is above 0, else 0"),
    "num_keypoints": Kind(A, "warning", "annotations whose num_keypoints is missing or not the number with v > 0",
                          "counted", severe_share=0.01),
    "fractions": Kind(A, "severe", "annotations in fractions of the image instead of pixels", "turned into pixels"),
    "labelled_at_origin": Kind(A, "warning", "annotations with labelled keypoints at exactly 0, 0",
                               "these keypoints get v = 0", severe_share=0.01),
    "unlabelled_with_place": Kind(A, "note", "annotations with coordinates where v = 0", "fine, v is what counts", False),
    "keypoints_outside": Kind(A, "warning", "annotations with labelled keypoints outside the image",
                              "these keypoints get v = 0", severe_share=0.05),
    "segmentation": Kind(A, "severe", "annotations with an unusable segmentation", "the segmentation is left out"),
    # boxes, areas, people
    "boxes_as_corners": Kind(A, "severe", "boxes that seem to be x0, y0, x1, y1", "turned into x, y, width, height"),
    "box_missing": Kind(A, "severe", "annotations without a usable box", "drawn around the keypoints, else left out"),
    "box_outside": Kind(A, "warning", "boxes that reach out of the image", "cut at the border", severe_share=0.05),
    "box_misses_keypoints": Kind(A, "warning", "boxes that do not hold their keypoints", "grown to hold them",
                                 severe_share=0.2),
    "boxes_apart": Kind(A, "severe", "boxes beside their keypoints, in most of the file: the two are not measured alike",
                        "export again: another size of picture, fractions, or x and y exchanged?", False),
    "area_missing": Kind(A, "severe", "annotations without an area: OKS divides by it", "the polygon's, or 0.53 of the box"),
    "crowd_flag": Kind(A, "severe", "annotations whose iscrowd is neither 0 nor 1", "true and numbers above 0 become 1, others 0"),
    "crowd_with_keypoints": Kind(A, "warning", "crowds with keypoints: training and score ignore them",
                                 "set iscrowd to 0 if it is one person", False),
    "person_twice": Kind(A, "warning", "annotations that repeat another's keypoints", "the repetition is " + DROPPED,
                         severe_share=0.05),
    "person_nearly_twice": Kind(A, "warning", "annotations nearly equal to another: one person twice?", LOOK, False),
    "image_empty": Kind(I, "note", "images without annotations", "fine where nobody is to be seen", False),
    # left and right
    "sides_exchanged": Kind(A, "severe", "left and right are exchanged in most visible faces: in the whole file",
                            "exchanged back"),
    "pair_exchanged": Kind(A, "severe", "left and right of some keypoints are exchanged in the whole file", "exchanged back"),
    "face_mirrored": Kind(A, "warning", "faces whose left and right are exchanged", LOOK, False),
    "limbs_crossed": Kind(A, "warning", "limbs that would be far shorter with left and right exchanged", LOOK, False),
    "order_doubtful": Kind(C, "warning", "categories whose keypoints seem to stand in another order than the names",
                           "compare draw_skeleton with a picture; python -m lib convert maps by name", False),
    # pictures
    "picture_missing": Kind(I, "severe", "images whose file is not in the folder (is it the right one?)", DROPPED_WITH_PEOPLE),
    "picture_unreadable": Kind(I, "severe", "pictures that are damaged or cut off", DROPPED_WITH_PEOPLE),
    "picture_turned": Kind(I, "severe", "pictures that EXIF turns: the labels fit the turned picture, readers do not turn",
                           "labels turned back to the stored pixels"),
    "picture_size": Kind(I, "severe", "pictures of another size than the file says", DROPPED_WITH_PEOPLE),
    "picture_exif": Kind(I, "note", "pictures with an EXIF rotation whose labels fit the stored pixels", "fine", False),
    "picture_twice": Kind(I, "warning", "pictures that are the same, byte for byte, as another", "keep one", False),
    "leak": Kind(I, "severe", "pictures that the other set has too", DROPPED_WITH_PEOPLE),
    "leak_similar": Kind(I, "warning", "pictures that look like one of the other set: a copy, or the same film",
                         "split by film or place instead of by picture", False),
}  # fmt: skip
