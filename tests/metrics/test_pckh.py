"""PCKh, counted by hand and once more in loops: what is correct, who is paired with whom, what is left out."""

import json

import numpy as np
import pytest

from lib.metrics import PckhScorer, pckh
from lib.metrics.heads import head_errors, rows_of
from lib.metrics.pckh import THRESHOLDS, area, shares
from lib.skeleton import COCO17, MPII14, MPII16, Skeleton
from tests.metrics.head_scenes import HEAD_BOX, found, person, plain_pckh, random_scene, write_file


def one(x: float = 0.0, score: float = 1.0, v: float = 2) -> np.ndarray:
    """(1, 1, 3): one person's one joint."""
    return np.array([[[x, 0.0, score]]]) if v == 2 else np.array([[[x, 0.0, v]]])


@pytest.mark.parametrize(("distance", "expected"), [(0, 1), (15, 1), (15.01, 0)])
def test_just_half_a_head_is_still_correct(distance, expected):
    assert pckh(one(distance), one(), np.array([30.0])).total == expected


def test_what_was_not_found_is_wrong_and_what_is_not_labelled_does_not_count():
    assert pckh(one(0, score=0), one(), np.array([30.0])).total == 0
    assert pckh(np.full((1, 1, 3), np.nan), one(), np.array([30.0])).total == 0
    unlabelled = pckh(one(0), one(0, v=0), np.array([30.0]))
    assert np.isnan(unlabelled.total) and np.isnan(unlabelled.keypoints[0])
    errors = head_errors(np.concatenate([one(3), one(0, 0), one()], 1), np.concatenate([one(), one(), one(v=0)], 1), np.array([30.0]))
    np.testing.assert_array_equal(errors, [[0.1, np.inf, np.nan]])


def test_a_head_without_length_is_no_unit():
    with pytest.raises(ValueError, match=r"above 0, got 0\.0"):
        pckh(one(), one(), np.array([0.0]))


def test_the_table_by_hand(tmp_path):
    """Two crops. First: both wrists right, one ankle right, one wrong. Second: one wrist wrong, head top found, neck not."""
    first = {"left_wrist": (100, 100), "right_wrist": (200, 100), "left_ankle": (100, 300), "right_ankle": (200, 300)}
    second = {"left_wrist": (100, 100), "head_top": (150, 50), "upper_neck": (150, 80)}
    file = write_file(tmp_path / "two.json", [[person(first, MPII14)], [person(second, MPII14)]])
    results = [
        found(1, first | {"left_wrist": (109, 112), "right_ankle": (200, 316)}),  # 15 and 16 pixels
        found(2, {"left_wrist": (100, 116), "head_top": (150, 50)}),
    ]
    figures = PckhScorer(file, MPII14)(results)
    # left wrists 1 of 2, right wrists 1 of 1: their mean is 3/4, though 2 of 3 wrists are right
    assert figures["Wrist"] == 0.75 and figures["Ankle"] == 0.5 and figures["Head"] == 0.5
    assert figures["Total"] == pytest.approx(4 / 7), "four of seven joints: all alike, whatever row they are in"
    assert np.isnan([figures[row] for row in ("Shoulder", "Elbow", "Hip", "Knee")]).all()


def test_the_area_under_the_curve_by_hand():
    # a quarter of a head off: nothing up to 0.24, everything from 0.25 on, and half of the step between
    values = [shares(np.array([[0.25]]), threshold).total for threshold in THRESHOLDS]
    assert area(values) == pytest.approx((0.25 + 0.005) / 0.5)
    assert area(np.ones(len(THRESHOLDS))) == pytest.approx(1) and len(THRESHOLDS) == 51


def test_pelvis_and_thorax_are_not_scored(tmp_path):
    places = {"pelvis": (100, 100), "thorax": (100, 50), "left_hip": (90, 100)}
    file = write_file(tmp_path / "16.json", [[person(places, MPII16)]], MPII16)
    scorer = PckhScorer(file, MPII16)
    assert scorer([found(1, {"left_hip": (90, 100)}, MPII16)])["Total"] == 1
    assert scorer.card["keypoints_not_scored"] == ["pelvis", "thorax"] and len(scorer.keypoints) == 14


def test_alone_in_a_picture_one_has_the_surest_prediction(tmp_path):
    here, elsewhere = {"left_hip": (100, 100)}, {"left_hip": (400, 100)}
    scorer = PckhScorer(write_file(tmp_path / "one.json", [[person(here, MPII14)]]), MPII14)
    assert scorer([found(1, here, score=0.9), found(1, elsewhere, score=0.8)])["Total"] == 1
    assert scorer([found(1, here, score=0.8), found(1, elsewhere, score=0.9)])["Total"] == 0
    assert scorer([])["Total"] == 0 and scorer([])["AUC"] == 0


def test_several_people_have_one_prediction_each(tmp_path):
    left, right = {"left_hip": (100, 100)}, {"left_hip": (400, 100)}
    file = write_file(tmp_path / "two.json", [[person(left, MPII14), person(right, MPII14)]])
    scorer = PckhScorer(file, MPII14)
    assert scorer([found(1, right), found(1, {"left_hip": (200, 500)}), found(1, left, score=0.1)])["Total"] == 1
    assert scorer([found(1, left), found(1, left)])["Total"] == 0.5, "nobody is predicted twice"
    # between two who are both near enough the better pairs: 3 + 3 pixels, not 6 + 12
    near = {"left_hip": (109, 100)}
    file = write_file(tmp_path / "near.json", [[person(left, MPII14), person(near, MPII14)]])
    matches = PckhScorer(file, MPII14).match([found(1, {"left_hip": (112, 100)}), found(1, {"left_hip": (103, 100)})])
    pixels = matches[0]["pixels"][:, MPII14.index("left_hip")]
    np.testing.assert_allclose(pixels, [3, 3])


def test_people_without_a_head_box_are_left_out_aloud(tmp_path):
    here, there = {"left_hip": (100, 100)}, {"left_hip": (400, 100)}
    blind = person(there, MPII14)
    del blind["head_box"]
    scorer = PckhScorer(write_file(tmp_path / "a.json", [[person(here, MPII14), blind]]), MPII14)
    # the surer one is of the other person: whoever is not alone is paired by place
    assert scorer([found(1, there, score=0.9), found(1, here, score=0.1)])["Total"] == 1
    assert scorer.headless == 1 and scorer.card["people_without_head_box"] == 1
    assert scorer.rules() == ["PCKh@0.5 in %", "1 people", "1 people without a head box left out"]
    flat = person(there, MPII14, head_box=[10, 10, 0, 0])
    assert PckhScorer(write_file(tmp_path / "b.json", [[person(here, MPII14), flat]]), MPII14).headless == 1
    with pytest.raises(ValueError, match="none of the 1 people to score has a head_box .*prepare mpii.*--measure=coco"):
        PckhScorer(write_file(tmp_path / "c.json", [[blind]]), MPII14)
    for box in ([1, 2, 3], "here"):
        file = write_file(tmp_path / "d.json", [[person(here, MPII14, head_box=box)]])
        with pytest.raises(ValueError, match=r"d\.json: head_box is \[x, y, width, height\]"):
            PckhScorer(file, MPII14)


def test_only_people_who_stand_apart(tmp_path):
    here, there = {"left_hip": (100, 100)}, {"left_hip": (400, 100)}
    people = [person(here, MPII14, single_person=True), person(there, MPII14, single_person=False)]
    file = write_file(tmp_path / "two.json", [people])
    results = [found(1, there, score=0.9), found(1, {"left_hip": (100, 130)}, score=0.8)]
    assert PckhScorer(file, MPII14)(results)["Total"] == 0.5
    single = PckhScorer(file, MPII14, people="single")
    assert single(results)["Total"] == 0 and single.rules() == ["PCKh@0.5 in %", "1 people who stand apart"]
    with pytest.raises(ValueError, match="choose all or single"):
        PckhScorer(file, MPII14, people="many")
    with pytest.raises(ValueError, match="nobody to score with --people=single"):
        PckhScorer(write_file(tmp_path / "none.json", [people[1:]]), MPII14, people="single")


def test_rows_of_other_skeletons(tmp_path):
    assert list(rows_of(COCO17.keypoints)) == ["Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle"]
    assert list(rows_of(MPII16.keypoints)) == ["Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle"]
    ball = Skeleton("ball", ("middle",), (), (), (0.05,))
    file = write_file(tmp_path / "ball.json", [[person({"middle": (50, 50)}, ball)]], ball)
    assert PckhScorer(file, ball)([found(1, {"middle": (50, 60)}, ball)]).keys() == {"middle", "Total", "AUC"}


def test_keypoints_that_the_model_does_not_know_are_missed(tmp_path):
    places = {"left_hip": (100, 100), "head_top": (100, 0)}
    scorer = PckhScorer(write_file(tmp_path / "one.json", [[person(places, MPII14)]]), COCO17)
    assert scorer.rules()[2] == "upper_neck, head_top not predicted"
    assert scorer([found(1, {"left_hip": (100, 100)}, COCO17)])["Total"] == 0.5
    hand = Skeleton("hand", ("thumb",), (), (), (0.05,))
    with pytest.raises(ValueError, match="no name in common"):
        PckhScorer(tmp_path / "one.json", hand)


def test_a_crop_has_the_figure_of_its_picture(tmp_path):
    rng = np.random.default_rng(0)
    for name, scale, shift in (("picture", 1.0, 0.0), ("crop", 0.37, -40.0)):
        truth = {k: tuple(scale * rng.uniform(100, 500, 2) + shift) for k in MPII14.keypoints}
        box = [0, 0, 30 * scale, 40 * scale]
        guess = {k: (x + scale * dx, y + scale * 3) for (k, (x, y)), dx in zip(truth.items(), range(3, 31, 2))}
        file = write_file(tmp_path / f"{name}.json", [[person(truth, MPII14, head_box=box)]])
        figures = PckhScorer(file, MPII14)([found(1, guess)])
        assert figures["Total"] == 6 / 14, name  # dx = 3, 5 … 13 are within 15 pixels of the picture, 15 is not


def test_images_and_categories_that_are_not_asked_for(tmp_path):
    places = {"left_hip": (100, 100)}
    crowd = person({"left_hip": (300, 300)}, MPII14, iscrowd=1)
    file = write_file(tmp_path / "two.json", [[person(places, MPII14), crowd], [person(places, MPII14)]])
    scorer = PckhScorer(file, MPII14, image_ids=[1])
    assert scorer([found(1, places), found(2, {}), found(7, places)])["Total"] == 1
    assert [len(people) for people in scorer.people.values()] == [1]
    with pytest.raises(ValueError, match="no image to score"):
        PckhScorer(file, MPII14, image_ids=[])


def test_the_table_per_keypoint(tmp_path):
    places = {"left_hip": (100, 100), "left_knee": (100, 200)}
    file = write_file(tmp_path / "two.json", [[person(places, MPII14)], [person(places, MPII14)]])
    scorer = PckhScorer(file, MPII14)
    rows = scorer.per_keypoint(scorer.match([found(1, {"left_hip": (103, 104), "left_knee": (100, 230)}), found(2, {})]))
    rows = {row["keypoint"]: row for row in rows}
    assert (rows["left_hip"]["labelled"], rows["left_hip"]["pckh"], rows["left_hip"]["error"]) == (2, 0.5, 5)
    assert (rows["left_knee"]["pckh"], rows["left_knee"]["auc"], rows["left_knee"]["error"]) == (0, 0, 30)
    assert rows["left_wrist"]["labelled"] == 0 and np.isnan(rows["left_wrist"]["pckh"])


def test_three_hundred_scenes_in_loops():
    rng = np.random.default_rng(5)
    for _ in range(300):
        predicted, truth, heads = random_scene(rng)
        pairs = min(len(predicted), len(truth))
        threshold = rng.choice([0.1, 0.3, 0.5])
        mine = pckh(predicted[:pairs], truth[:pairs], heads[:pairs], threshold)
        plain, total = plain_pckh(predicted[:pairs], truth[:pairs], heads[:pairs], threshold)
        np.testing.assert_array_equal(mine.keypoints, plain)
        np.testing.assert_array_equal(mine.total, total)


def test_the_head_box_is_measured_along_its_diagonal(tmp_path):
    file = write_file(tmp_path / "one.json", [[person({"left_hip": (0, 0)}, MPII14)]])
    assert PckhScorer(file, MPII14).people[1][0].head == 30
    assert json.loads(file.read_text())["annotations"][0]["head_box"] == HEAD_BOX
