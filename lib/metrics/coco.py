"""COCO's score for keypoints, from people to the AP table, for any skeleton."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from scipy.optimize import linear_sum_assignment

from lib.data.coco import CocoFile, category_named, skeleton_of
from lib.metrics.by_name import ByName
from lib.people import People, oks, oks_terms
from lib.skeleton import COCO17, Skeleton

METRICS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


def people_to_results(people: People, image_id: int, category_id: int = 1, half_pixel: bool = False,
                      third: str = "score") -> list[dict]:  # fmt: skip
    """One COCO result per person: keypoints as 3K numbers, and the person's score.

    Args:
        people: as predicted, in pixels of the image.
        image_id, category_id: COCO's numbers.
        half_pixel: add 0.5 to x and y of every keypoint found, for annotations that count from a pixel's corner.
        third: each keypoint's third number is its "score", or 1 where it was "found". COCO's score does not look at it.
    """
    keypoints = people.keypoints.astype(np.float64)
    found = keypoints[..., 2] > 0
    keypoints[..., :2] += 0.5 * half_pixel * found[..., None]
    if third == "found":
        keypoints[..., 2] = found
    flat = keypoints.round(3).reshape(len(people), 3 * keypoints.shape[1])
    return [
        {"image_id": int(image_id), "category_id": category_id, "keypoints": row.tolist(), "score": round(float(s), 6)}
        for row, s in zip(flat, people.scores)
    ]


def coco_output(metrics: Mapping[str, float]) -> str:
    """The figures as COCO's own evaluation prints them, ten lines.

    Args:
        metrics: of `METRICS`, 0..1, −1 where no person of that size exists.
    """
    kinds = {"AP": "Average Precision  (AP)", "AR": "Average Recall     (AR)"}
    rows = []
    for name in METRICS:
        overlap = {"50": "0.50     ", "75": "0.75     "}.get(name[2:], "0.50:0.95")
        area = {"m": "medium", "l": " large"}.get(name[2:], "   all")
        rows.append(f" {kinds[name[:2]]} @[ IoU={overlap:<9} | area={area} | maxDets= 20 ] = {metrics[name]:0.3f}\n")
    return "".join(rows)


class CocoScorer(ByName):
    """Scores predictions against one annotation file.

    Keypoints are matched by name, so that a model with a neck is scored on a file without one and the reverse. A `neck`
    beside COCO's own 17 keypoints was computed, not annotated: it is left out, as the published evaluations do.

    Attributes:
        keypoints, missing: see `ByName`.
        skeleton: the scored keypoints. sigmas: (K,) theirs.
        image_ids: what is scored.
        figures: {image id: its annotations as COCO's evaluation takes them}, with the scored keypoints alone.

    Args:
        coco: the annotations.
        predicted: skeleton of the predictions.
        category: name of the category; may be left out where the file has one with keypoints.
        image_ids: score only these images (default: every image of the file, with people or without).

    Raises:
        ValueError: predictions and annotations share no keypoint, or no image is left.
    """

    similarity = "oks"
    card: Mapping = {}

    def __init__(self, coco: CocoFile, predicted: Skeleton, category: str | None = None,
                 image_ids: Iterable[int] | None = None):  # fmt: skip
        self.category_id = category_named(coco, category).id
        truth = skeleton_of(coco, category)
        computed = {"neck"} if set(COCO17.keypoints) < set(truth.keypoints) else set()
        scored = [k for k, name in enumerate(truth.keypoints) if name not in computed]
        super().__init__(truth.keypoints, [truth.keypoints[k] for k in scored], predicted)
        place = {k: i for i, k in enumerate(scored)}
        limbs, twins = ([(place[a], place[b]) for a, b in pairs if a in place and b in place]
                        for pairs in (truth.limbs, truth.flip_pairs))  # fmt: skip
        self.skeleton = Skeleton(truth.name, self.keypoints, limbs, twins, [truth.sigmas[k] for k in scored])
        self.sigmas = np.array(self.skeleton.sigmas)
        self.image_ids = sorted({image.id for image in coco.images} if image_ids is None else set(image_ids))
        if not self.image_ids:
            raise ValueError("there is no image to score")
        self._truth = self._ground_truth(coco, scored)

    def __call__(self, results: Sequence[Mapping]) -> dict[str, float]:
        """AP and AR of COCO results (keypoints of the predicting skeleton) in 0..1; −1 where no person of that size exists.

        Images without a result are no error: their people count as missed.
        """
        ids = set(self.image_ids)
        results = [r for r in results if r["image_id"] in ids]
        if not results:
            exists = [any(low <= a["area"] < high for anns in self.figures.values() for a in anns if not a["ignore"])
                      for low, high in ((0, np.inf), (32**2, 96**2), (96**2, np.inf))]  # fmt: skip
            there = [exists[0]] * 3 + exists[1:]
            return {name: 0.0 if found else -1.0 for name, found in zip(METRICS, there * 2)}
        predictions = [
            {"image_id": r["image_id"], "category_id": self.category_id, "score": r["score"],
             "keypoints": self.select(np.reshape(r["keypoints"], (1, -1, 3))).ravel().tolist()}
            for r in results
        ]  # fmt: skip
        run = COCOeval_faster(self._truth, self._truth.loadRes(predictions), "keypoints", print_function=lambda *_: None,
                              kpt_oks_sigmas=self.sigmas.tolist())  # fmt: skip
        run.params.imgIds = self.image_ids
        run.evaluate()
        run.accumulate()
        run.summarize()
        return dict(zip(METRICS, (float(v) for v in run.stats[:10])))

    def rules(self) -> list[str]:
        """What decides the figures beyond COCO's own definition: nothing."""
        return []

    def match(self, results: Sequence[Mapping]) -> list[dict]:
        """Pair true and predicted people image by image, as many and as similar as possible.

        Returns:
            One dict per image: image_id, people (G), predictions (D), oks (G,) of each true person with its partner (0
            without one), similarity (G, K) of single keypoints and error (G, K) in pixels, both NaN where not labelled.
        """
        by_image: dict[int, list] = {image_id: [] for image_id in self.image_ids}
        for r in results:
            by_image.get(r["image_id"], []).append(np.reshape(r["keypoints"], (-1, 3)))
        return [self._match_image(image_id, predictions) for image_id, predictions in by_image.items()]

    def per_keypoint(self, matches: Sequence[Mapping]) -> list[dict]:
        """Table: keypoint, labelled (count), similarity (mean of OKS's term), found (share above 0.5), error (median px)."""
        width = len(self.keypoints)
        similarity = np.concatenate([m["similarity"] for m in matches] + [np.zeros((0, width))])
        error = np.concatenate([m["error"] for m in matches] + [np.zeros((0, width))])
        rows = []
        for k, name in enumerate(self.keypoints):
            labelled = ~np.isnan(similarity[:, k])
            terms, errors = similarity[labelled, k], error[labelled, k]
            errors = errors[np.isfinite(errors)]
            rows.append({
                "keypoint": name,
                "labelled": int(labelled.sum()),
                "similarity": float(terms.mean()) if len(terms) else float("nan"),
                "found": float((terms > 0.5).mean()) if len(terms) else float("nan"),
                "error": float(np.median(errors)) if len(errors) else float("nan"),
            })  # fmt: skip
        return rows

    def _match_image(self, image_id: int, predictions: list[np.ndarray]) -> dict:
        annotations = [a for a in self.figures.get(image_id, ()) if not a["ignore"]]
        truth = np.array([a["keypoints"] for a in annotations], float).reshape(-1, len(self.keypoints), 3)
        areas = np.array([a["area"] for a in annotations], float)
        found = self.select(np.array(predictions, float)) if predictions else np.zeros((0, len(self.keypoints), 3))
        labelled = truth[..., 2] > 0
        best = np.zeros(len(truth))
        similarity = np.where(labelled, 0.0, np.nan)
        error = np.where(labelled, np.inf, np.nan)
        scores = oks(found, truth, areas, self.sigmas)
        for d, g in zip(*linear_sum_assignment(scores, maximize=True)):
            there = labelled[g] & (found[d, :, 2] > 0)
            distance = np.linalg.norm(found[d, :, :2] - truth[g, :, :2], axis=-1)
            best[g] = scores[d, g]
            error[g, there] = distance[there]
            similarity[g, there] = oks_terms(distance**2, areas[g], self.sigmas)[there]
        return {"image_id": image_id, "people": len(truth), "predictions": len(found), "oks": best,
                "similarity": similarity, "error": error}  # fmt: skip

    def _ground_truth(self, coco: CocoFile, scored: list[int]) -> COCO:
        ids = set(self.image_ids)
        annotations, self.figures = [], {}
        for a in coco.annotations:
            if a.image_id not in ids or a.category_id != self.category_id:
                continue
            keypoints = np.reshape(a.keypoints or np.zeros(3 * (max(scored) + 1)), (-1, 3))[scored]
            labelled = int((keypoints[:, 2] > 0).sum())
            row = {"id": a.id, "image_id": a.image_id, "category_id": a.category_id, "bbox": list(a.bbox or [0, 0, 0, 0]),
                   "area": float(a.area or 0), "iscrowd": int(a.iscrowd or 0), "num_keypoints": labelled,
                   "keypoints": keypoints.ravel().tolist(),
                   "ignore": int(bool(a.iscrowd) or labelled == 0)}  # fmt: skip
            annotations.append(row)
            self.figures.setdefault(a.image_id, []).append(row)
        images = [{"id": i.id, "width": i.width, "height": i.height, "file_name": i.file_name}
                  for i in coco.images if i.id in ids]  # fmt: skip
        categories = [{"id": self.category_id, "name": "scored"}]
        return COCO({"images": images, "annotations": annotations, "categories": categories})
