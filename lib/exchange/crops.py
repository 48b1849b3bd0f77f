"""Labels of people who were cut out of pictures, brought back to the whole pictures."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from lib.data.coco import Annotation, CocoFile, Image
from lib.exchange.changes import Changes


class Origin(Struct):
    """Where a picture was cut out.

    Attributes:
        source: file name of the whole picture.
        width, height: of the whole picture, pixels.
        box: the part that was cut out, [x, y, width, height] in its pixels.
    """

    source: str
    width: int
    height: int
    box: tuple[int, int, int, int]


def uncropped(coco: CocoFile, crops: str | Path) -> tuple[CocoFile, Changes]:
    """Labels made on cut-out pictures as labels of the whole pictures.

    Args:
        coco: the labels; stays as it is.
        crops: JSON file, the file name of every cut-out picture → `Origin`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file; a picture that is not in it, or has another size than what was cut out.
    """
    try:
        origins = msgspec.json.decode(Path(crops).read_bytes(), type=dict[str, Origin])
    except msgspec.DecodeError as error:
        raise ValueError(f"{crops}: does not say where pictures were cut out: {error}") from None
    changes, wholes, places = Changes(), {}, {}
    for image in coco.images:
        origin = origins.get(image.file_name)
        if origin is None:
            raise ValueError(f"{coco.source}: {image.file_name} is none of the {len(origins)} pictures of {crops}: give the file "
                             "that lies beside them")  # fmt: skip
        if [image.width, image.height] != list(origin.box[2:]):
            raise ValueError(f"{coco.source}: {image.file_name} has {image.width}×{image.height} pixels, {origin.box[2]}×"
                             f"{origin.box[3]} were cut out: export the labels without resizing the pictures")  # fmt: skip
        whole = wholes.setdefault(origin.source, Image(len(wholes) + 1, origin.source, origin.width, origin.height))
        places[image.id] = whole.id, origin.box[:2]
        changes.add("labels of a cut-out picture brought back to the whole one", f"{image.file_name} → {origin.source}")
    names = {image.file_name for image in coco.images}
    for name, origin in origins.items():
        if origin.source in wholes and name not in names:
            changes.add("without labels, though others of the same whole picture have some", f"{name} of {origin.source}", "warning")
    annotations = [_moved(a, *places[a.image_id], changes) for a in coco.annotations]
    result = replace(coco, images=list(wholes.values()), annotations=annotations)
    result.source = coco.source
    return result, changes


def _moved(a: Annotation, image_id: int, corner: tuple[int, int], changes: Changes) -> Annotation:
    (left, top), a = corner, replace(a, image_id=image_id)
    if a.keypoints:
        points = zip(a.keypoints[::3], a.keypoints[1::3], a.keypoints[2::3])
        # zeros are no place
        a.keypoints = [n for x, y, v in points for n in ((round(x + left, 2), round(y + top, 2), v) if x or y or v else (0, 0, 0))]
    if a.bbox:
        a.bbox = [round(a.bbox[0] + left, 2), round(a.bbox[1] + top, 2), *a.bbox[2:]]
    if isinstance(a.segmentation, list):
        a.segmentation = [[round(n + corner[k % 2], 2) for k, n in enumerate(polygon)] for polygon in a.segmentation]
    elif a.segmentation:
        changes.add("a run-length mask is one of the cut-out picture: left out", f"annotation {a.id}", "warning")
        a.segmentation = []
    return a
