import numpy as np
import pytest

from lib.data.coco import Annotation, Category, CocoFile, Image
from lib.metrics import CocoScorer, people_to_results
from lib.metrics.pck import THRESHOLDS, pck_curves, pck_table
from lib.people import People
from lib.skeleton import Skeleton

PAIR = Skeleton("pair", ["a", "b"], [], [], [0.1, 0.1])


def test_curves_of_a_file():
    truth = [[0, 0, 2, 50, 50, 2], [200, 200, 2, 250, 250, 2], [1, 1, 2, 2, 2, 2]]
    boxes = [[0, 0, 50, 100], [200, 200, 100, 20], [0, 0, 0, 0]]  # the last has no size and is left out
    annotations = [Annotation(i, 1, 1, keypoints, 2, box, 5000.0) for i, (keypoints, box) in enumerate(zip(truth, boxes), 1)]
    fields = PAIR.to_coco()
    coco = CocoFile([Image(1, "1.jpg", 300, 300), Image(2, "2.jpg", 300, 300)], annotations,
                    [Category(1, "pair", keypoints=fields["keypoints"], skeleton=[], sigmas=fields["sigmas"])])  # fmt: skip
    scorer = CocoScorer(coco, PAIR)
    people = People([[[0, 10, 1], [50, 50, 1]]], [1.0])
    curves = pck_curves(scorer, scorer.match(people_to_results(people, 1)))
    assert curves["b"].tolist() == [0.5] * len(THRESHOLDS)
    assert curves["a"][THRESHOLDS < 0.0999].max() == 0 and curves["a"][-1] == 0.5
    table = pck_table(curves)
    assert table["PCK@0.05"] == pytest.approx(0.25) and table["PCK@0.2"] == pytest.approx(0.5)
    assert table["PCK@0.05"] < table["AUC"] < table["PCK@0.2"]


def test_nobody():
    coco = CocoFile([Image(1, "1.jpg", 9, 9)], [], [Category(1, "pair", keypoints=["a", "b"], skeleton=[], sigmas=[0.1, 0.1])])
    scorer = CocoScorer(coco, PAIR)
    assert all(np.isnan(v) for v in pck_table(pck_curves(scorer, scorer.match([]))).values())
