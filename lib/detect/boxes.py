"""Boxes of people: fitted into a network's input and back, thinned out, scored.

A box is [x, y, width, height, score] in COCO's meaning: x and y count from the edges of pixels, so that the box of a whole
picture is [0, 0, W, H].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster

from lib.data.coco import CocoFile, category_named

GREY = 114  # of the borders, in all YOLOs
BOX_METRICS = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class Letterbox:
    """A picture shrunk or enlarged to fit an input, with grey borders.

    Attributes:
        pixels: (H, W, 3) uint8, the input.
        scale: (2,) input pixels per pixel of the picture, x and y.
        offset: (2,) where the picture's corner lies in the input, x and y.
    """

    pixels: np.ndarray
    scale: np.ndarray
    offset: np.ndarray

    def back(self, corners: np.ndarray) -> np.ndarray:
        """(P, 4) left, top, right, bottom in the input → in the picture."""
        return (corners - np.tile(self.offset, 2)) / np.tile(self.scale, 2)


def letterbox(image: np.ndarray, size: tuple[int, int], centred: bool) -> Letterbox:
    """Fit a picture (H, W, 3) uint8 into an input of `size` (H, W), its proportions kept; in the middle or top left."""
    height, width = image.shape[:2]
    scale = min(size[0] / height, size[1] / width)
    whole = round if centred else int  # as those who trained the networks fit their pictures
    inner = [min(max(1, whole(side * scale)), most) for side, most in zip((width, height), size[::-1])]
    left, top = ((most - side) // 2 if centred else 0 for side, most in zip(inner, size[::-1]))
    pixels = np.full((*size, 3), GREY, np.uint8)
    pixels[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
    return Letterbox(pixels, np.array(inner) / (width, height), np.array([left, top], float))


def to_boxes(corners: np.ndarray, scores: np.ndarray, size: tuple[int, int], threshold: float,
             overlap: float | None = None) -> np.ndarray:  # fmt: skip
    """What a detector says as boxes within the picture, the surest first.

    Args:
        corners: (P, 4) left, top, right, bottom in pixels of the picture.
        scores: (P,) 0..1.
        size: (H, W) of the picture; boxes are cut there, and left out where nothing remains.
        threshold: boxes with a lower score are left out.
        overlap: of two boxes whose intersection over union is larger the surer one stays; None: all stay.

    Returns:
        (P, 5) float32 [x, y, width, height, score].
    """
    sure = np.flatnonzero(scores >= threshold)
    order = sure[np.argsort(-scores[sure], kind="stable")]
    corners, scores = np.asarray(corners, np.float32)[order], np.asarray(scores, np.float32)[order]
    if overlap is not None:
        from torchvision.ops import nms  # it takes a second, which no other command shall wait for

        kept = nms(torch.from_numpy(corners), torch.from_numpy(scores), overlap).numpy()
        corners, scores = corners[kept], scores[kept]
    corners = corners.clip(0, np.tile(size[::-1], 2)).astype(np.float32)
    sides = corners[:, 2:] - corners[:, :2]
    boxes = np.concatenate([corners[:, :2], sides, scores[:, None]], axis=1)
    return boxes[(sides > 0).all(axis=1)]


def box_ap(found: Mapping[int, np.ndarray], coco: CocoFile, category: str | None = None) -> dict[str, float]:
    """COCO's score for boxes against a file's: AP (mean over overlaps 0.50:0.95), AP50 and AP75.

    Args:
        found: image id → (P, 5) boxes with scores. Only these images are scored; a picture without boxes has (0, 5).
        coco: the annotations; crowds are left out of the score, as COCO does.
        category: whose boxes; None: the only one with keypoints.

    Returns:
        `BOX_METRICS` in 0..1; −1 where no box is annotated.

    Raises:
        KeyError: no such category, or several and none is named.
    """
    chosen = category_named(coco, category)
    truth = [{"id": a.id, "image_id": a.image_id, "category_id": 1, "bbox": list(a.bbox), "iscrowd": a.iscrowd,
              "area": float(a.area or a.bbox[2] * a.bbox[3])}
             for a in coco.annotations if a.category_id == chosen.id and a.image_id in found and a.bbox]  # fmt: skip
    results = [{"image_id": i, "category_id": 1, "bbox": box[:4].tolist(), "score": float(box[4])}
               for i, boxes in found.items() for box in np.asarray(boxes, float)]  # fmt: skip
    if not results or not truth:
        return dict.fromkeys(BOX_METRICS, 0.0 if any(not row["iscrowd"] for row in truth) else -1.0)
    images = [{"id": i.id, "width": i.width, "height": i.height} for i in coco.images if i.id in found]
    dataset = COCO({"images": images, "annotations": truth, "categories": [{"id": 1, "name": chosen.name}]})
    run = COCOeval_faster(dataset, dataset.loadRes(results), "bbox", print_function=lambda *_: None)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return dict(zip(BOX_METRICS, (float(v) for v in run.stats[:3])))
