"""A COCO keypoint file in the hands of an annotator: what is not edited stays as it stood, byte for byte."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from lib import files
from lib.data.coco import AREA_OF_BOX, CocoFile, box_around, read_coco
from lib.skeleton import Skeleton


class LabelFile:
    """Labels of one category, changed image by image and written as a whole.

    Args:
        path: COCO keypoint file to go on with, or a new one.
        skeleton: its keypoints must be those of the category, in the same order. A category without keypoints (boxes,
            which are about to get keypoints) receives them.
        category: its name; None: the only one with keypoints, else the one called like the skeleton. A name that the
            file does not know becomes a new category.

    Attributes:
        images: COCO image records by file_name.
        done: file_names of images to list even if nobody is on them.

    Raises:
        ValueError: not a COCO file, or other keypoints than the skeleton's. The file stays as it is.
    """

    def __init__(self, path: str | Path, skeleton: Skeleton, category: str | None = None):
        self.path, self.skeleton = Path(path), skeleton
        if self.path.is_symlink():
            self.path = self.path.resolve()  # the file behind the link is moved into place, not the link replaced
        self.done: set[str] = set()
        # the stamp comes first: who writes while we read is noticed when we save
        self._stamp = _stamp(self.path)
        coco, self._rest = CocoFile([], [], []), {}
        if self._stamp is not None:
            coco = read_coco(self.path)
            self._rest = msgspec.json.decode(self.path.read_bytes(), type=dict[str, Raw])
        self._categories = self._items("categories", dict)
        self.category_id = self._find_category(category)
        self.images = {image["file_name"]: image for image in self._items("images", dict)}
        if len(self.images) < len(coco.images):
            raise ValueError(f"{path}: two images have the same file_name; `python -m lib doctor` shows which")
        self._listed = set(self.images)
        self._annotations = dict(zip((a.id for a in coco.annotations), self._items("annotations", Raw)))
        self._last_id = max(0, *self._annotations) if self._annotations else 0
        self._ids_of: dict[int, list[int]] = {}
        for a in coco.annotations:
            if a.category_id == self.category_id and not a.iscrowd:
                self._ids_of.setdefault(a.image_id, []).append(a.id)

    def new_id(self) -> int:
        """An annotation id, 1 or more, that was never given before."""
        self._last_id += 1
        return self._last_id

    def people(self, name: str) -> list[dict]:
        """Annotations of an image in the file's order, with `keypoints` (zeros where the file has none); no crowds."""
        found = [msgspec.json.decode(self._annotations[i]) for i in self._ids_of.get(self._image_id(name), ())]
        for annotation in found:
            if not annotation.get("keypoints"):
                annotation["keypoints"] = [0] * (3 * self.skeleton.num_keypoints)
        return found

    def count(self, name: str) -> int:
        """How many people of an image stand in the file."""
        return len(self._ids_of.get(self._image_id(name), ()))

    def store(self, name: str, size: tuple[int, int], before: list[dict], after: list[dict]) -> None:
        """Replace an image's annotations; those which are equal in both lists are not touched.

        Annotations without an id, and those with neither keypoints nor a box nor a segmentation, are left out.
        """
        image = self.images.get(name)
        if image is None:
            new_id = max((record["id"] for record in self.images.values()), default=0) + 1
            image = {"id": max(1, new_id), "file_name": name, "width": size[1], "height": size[0]}
            self.images[name] = image
        ids = self._ids_of.setdefault(image["id"], [])
        for annotation in after:
            if annotation in before or "id" not in annotation or _is_empty(annotation):
                continue
            record = {"id": annotation["id"], "image_id": image["id"], "category_id": self.category_id} | annotation
            if annotation["id"] not in self._annotations:
                ids.append(annotation["id"])
            self._annotations[annotation["id"]] = Raw(msgspec.json.encode(record))
        written = {a["id"] for a in after if "id" in a and (a in before or not _is_empty(a))}
        for i in ({a["id"] for a in before if "id" in a} - written) & set(ids):
            ids.remove(i)
            del self._annotations[i]

    def encoded(self) -> bytes:
        """The whole file."""
        images = [image for name, image in self.images.items() if self._belongs(name, image["id"])]
        content = {"images": images, "annotations": list(self._annotations.values()), "categories": self._categories}
        return msgspec.json.encode(self._rest | content)

    def save(self, path: str | Path | None = None) -> None:
        """Write the file; with `path` to a new one, which is used from then on.

        Raises:
            ValueError: the file was changed by somebody else since it was read or written here.
            FileExistsError: `path` exists.
            OSError: the folder cannot be written to.
        """
        if path is not None and Path(path).exists():
            raise FileExistsError(f"{path} exists: choose a new file to save to")
        if path is None and _stamp(self.path) != self._stamp:
            raise ValueError(
                f"{self.path} was changed or removed by somebody else: nothing is written over it. Open it again with a "
                "new Session, or keep what you have here with session.save('another.json')"
            )
        self.path = files.write(path or self.path, self.encoded())
        self._stamp = _stamp(self.path)

    def _belongs(self, name: str, image_id: int) -> bool:
        return name in self._listed or name in self.done or bool(self._ids_of.get(image_id))

    def _image_id(self, name: str) -> int | None:
        image = self.images.get(name)
        return None if image is None else image["id"]

    def _items(self, key: str, kind: type) -> list:
        return msgspec.json.decode(self._rest[key], type=list[kind]) if key in self._rest else []

    def _find_category(self, name: str | None) -> int:
        with_keypoints = [c for c in self._categories if c.get("keypoints")]
        wanted = name if name is not None else self.skeleton.name
        found = next((c for c in self._categories if c["name"] == wanted), None)
        if name is None and len(with_keypoints) == 1:
            found = with_keypoints[0]
        if found is None:
            new_id = max((c["id"] for c in self._categories), default=0) + 1
            self._categories.append(self.skeleton.to_coco(max(1, new_id)) | {"name": wanted})
            return self._categories[-1]["id"]
        if not found.get("keypoints"):
            found |= {key: self.skeleton.to_coco()[key] for key in ("keypoints", "skeleton", "sigmas")}
        elif found["keypoints"] != list(self.skeleton.keypoints):
            raise ValueError(
                f"{self.path}: category {found['name']!r} has the {len(found['keypoints'])} keypoints "
                f"{', '.join(found['keypoints'])}, the skeleton has {len(self.skeleton.keypoints)}: "
                f"{', '.join(self.skeleton.keypoints)}. Pass Skeleton.named({str(self.path)!r}) to go on with the "
                "file's, category='another name' to add a kind of figure, or another save_to"
            )
        return found["id"]


class Place(Struct):
    """What the annotator remembers besides the labels, in a hidden file of its own so that the COCO file stays clean."""

    image: str = ""
    done: list[str] = []
    suggestions: dict[str, list[list[int | float]]] = {}


def place_path(labels: Path) -> Path:
    """Where the place belongs: no *.json, which would be taken for labels."""
    return labels.with_name(f".{labels.stem}.annotator")


def read_place(labels: Path, num_keypoints: int) -> Place:
    """Raises ValueError where the file is damaged or its suggestions have another number of keypoints."""
    path = place_path(labels)
    if not path.exists():
        return Place()
    try:
        place = msgspec.json.decode(path.read_bytes(), type=Place)
    except msgspec.DecodeError as error:
        raise ValueError(
            f"{path}: damaged ({error}); remove it, only the current image, done marks and suggestions are lost"
        ) from None
    if any(len(points) != 3 * num_keypoints for figures in place.suggestions.values() for points in figures):
        raise ValueError(f"{path}: its suggestions are not of {num_keypoints} keypoints; remove it to do without them")
    return place


def write_place(labels: Path, place: Place) -> None:
    """Written beside and moved into place, as the labels are."""
    files.write(place_path(labels), msgspec.json.encode(place))


def derive(annotation: dict, keypoints_before: list, size: tuple[int, int]) -> None:
    """Set num_keypoints, bbox, area and iscrowd after an edit of `keypoints`.

    A box which is not the one that we draw around keypoints was made by a person or a detector: it only grows, where it
    no longer holds the keypoints. An area which is not that of the box (of a mask, say) stays.

    Args:
        annotation: changed in place.
        keypoints_before: x, y, v × K before the edit.
        size: (H, W) of the image; boxes end at its border.
    """
    annotation["num_keypoints"] = sum(v > 0 for v in annotation["keypoints"][2::3])
    annotation.setdefault("iscrowd", 0)
    old = annotation.get("bbox") or [0, 0, 0, 0]
    previous = box_around(_labelled(keypoints_before), size)
    ours = not (old[2] and old[3]) or (previous and _same(old, previous))
    points = _labelled(annotation["keypoints"])
    box = box_around(points, size) if ours else _grown(old, box_around(points, size, margin=False))
    area = annotation.get("area") or 0
    if not box:
        annotation.pop("bbox", None)
        if not annotation.get("segmentation"):
            annotation.pop("area", None)
        return
    if not area or abs(area - AREA_OF_BOX * old[2] * old[3]) < 0.02 * max(1, old[2] + old[3]):
        annotation["area"] = round(AREA_OF_BOX * box[2] * box[3], 2)
    annotation["bbox"] = box


def _labelled(keypoints: list) -> list[tuple]:
    return [(x, y) for x, y, v in zip(keypoints[::3], keypoints[1::3], keypoints[2::3]) if v > 0]


def _grown(box: list, inner: list) -> list:
    if not inner:
        return box
    left, top = min(box[0], inner[0]), min(box[1], inner[1])
    right, bottom = max(box[0] + box[2], inner[0] + inner[2]), max(box[1] + box[3], inner[1] + inner[3])
    grown = [round(n, 2) for n in (left, top, right - left, bottom - top)]
    return box if _same(box, grown) else grown


def _same(a: list, b: list) -> bool:
    return max(abs(x - y) for x, y in zip(a, b)) < 0.02


def _is_empty(annotation: dict) -> bool:
    return not (annotation.get("num_keypoints") or annotation.get("bbox") or annotation.get("segmentation"))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size
