"""Predicted keypoints put in the place of annotated ones of the same name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lib.skeleton import Skeleton


class ByName:
    """Scores a skeleton's predictions against annotations which may know other keypoints.

    Attributes:
        keypoints: names that are scored, in the annotations' order.
        missing: those of them that the model does not predict; they count as not found.

    Args:
        annotated: the file's keypoints.
        scored: those of them that count.
        predicted: skeleton of the predictions.

    Raises:
        ValueError: predictions and annotations share no keypoint.
    """

    def __init__(self, annotated: Sequence[str], scored: Sequence[str], predicted: Skeleton):
        self.keypoints = list(scored)
        self.missing = [name for name in self.keypoints if name not in predicted.keypoints]
        if len(self.missing) == len(self.keypoints):
            raise ValueError(f"the model's keypoints ({', '.join(predicted.keypoints)}) and the annotations' "
                             f"({', '.join(self.keypoints)}) have no name in common")  # fmt: skip
        # a missing keypoint reads the column of zeros which `_picked` appends
        place = {name: k for k, name in enumerate(predicted.keypoints)}
        self._annotated = [place.get(name, predicted.num_keypoints) for name in annotated]
        self._columns = [place.get(name, predicted.num_keypoints) for name in self.keypoints]

    def select(self, keypoints: np.ndarray) -> np.ndarray:
        """Predicted keypoints (P, K, 3) → the scored ones, in the annotations' order; missing ones are zeros."""
        return _picked(keypoints, self._columns)

    def as_annotated(self, results: Iterable[Mapping]) -> list[dict]:
        """COCO results with the keypoints of the annotation file, in its order: any COCO program can score them.

        What the model does not predict is 0, 0, 0; what the file does not annotate is left out.
        """
        rows = ((r, np.reshape(r["keypoints"], (1, -1, 3))) for r in results)
        return [{**r, "keypoints": _picked(keypoints, self._annotated).ravel().tolist()} for r, keypoints in rows]


def _picked(keypoints: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    return np.pad(keypoints, ((0, 0), (0, 1), (0, 0)))[:, columns]
