"""MPII's AP of several people, by hand and once more in loops: missing joints, extra people, borders of groups."""

import numpy as np
import pytest
from scipy.io import savemat

from lib.metrics import MpiiPeopleScorer, average_precision
from lib.metrics.mpii_people import assign, read_groups
from lib.skeleton import MPII14, Skeleton
from tests.data.mpii_release import NOTHING, cell
from tests.metrics.head_scenes import found, person, plain_ap, random_scene, write_file

HIP, KNEE, WRIST = "left_hip", "left_knee", "left_wrist"
HEADS = np.array([30.0, 30.0])


def joints(*places) -> np.ndarray:
    """(K, 3) of x in pixels or None for a joint that is not there; a pair is (x, score)."""
    return np.array([[0, 0, 0] if p is None else [p[0], 0, p[1]] if isinstance(p, tuple) else [p, 0, 1] for p in places], float)


def test_each_prediction_keeps_its_best_and_each_person_takes_the_best_of_those():
    truth = np.array([joints(0, 0, 0, 0), joints(100, 100, 100, 100)])
    good, better, other = joints(0, 0, 50, 50), joints(0, 0, 0, 50), joints(100, 50, 50, 50)
    partners, hits = assign(np.array([good, better, other]), truth, HEADS)
    assert partners.tolist() == [-1, 0, 1], "the one who is beaten gets nobody"
    assert hits.sum(axis=1).tolist() == [0, 3, 1]
    # the second has two joints of the first person and one of the second: beaten there, it does not fall back
    torn = joints(0, 0, 100, 50)
    assert assign(np.array([better, torn]), truth, HEADS)[0].tolist() == [0, -1]


def test_equals_and_strangers():
    truth = np.array([joints(0, 0), joints(0, 0)])
    assert assign(np.array([joints(0, 0), joints(0, 0)]), truth, HEADS)[0].tolist() == [0, -1], "of equals the first"
    assert assign(np.array([joints(50, 50)]), truth, HEADS)[0].tolist() == [-1], "no joint agrees"
    assert assign(np.zeros((0, 2, 3)), truth, HEADS)[0].tolist() == []
    assert assign(np.array([joints(0, 0)]), np.zeros((0, 2, 3)), np.zeros(0))[0].tolist() == [-1]


def test_the_share_is_of_the_annotated_joints():
    """Two of two beats three of four."""
    truth = np.array([joints(0, 0, 0, 0), joints(0, None, None, 0)])
    assert assign(np.array([joints(0, 0, 50, 0)]), truth, HEADS)[0].tolist() == [1]
    # and what was not found counts against a prediction: one of four
    partners, hits = assign(np.array([joints(0, None, None, None)]), truth[:1], HEADS[:1])
    assert partners.tolist() == [0] and hits.tolist() == [[True, False, False, False]]


def test_just_half_a_head_is_still_right():
    truth = np.array([joints(0)])
    assert assign(np.array([joints(15)]), truth, HEADS[:1])[1].all()
    assert not assign(np.array([joints(15.01)]), truth, HEADS[:1])[1].any()


def test_average_precision_by_hand():
    # ranked right, wrong, right, wrong, wrong of 4: precision 1 at the first step, 2/3 at the second, then nothing
    assert average_precision([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 0, 0], 4) == pytest.approx((1 + 2 / 3) / 4)
    # wrong, right, right of 2: 1/2 and 2/3; interpolated both count with the best at or behind them
    assert average_precision([0.9, 0.8, 0.7], [0, 1, 1], 2) == pytest.approx((2 / 3 + 2 / 3) / 2)
    # the same in another order
    assert average_precision([0.7, 0.9, 0.8], [1, 0, 1], 2) == pytest.approx(2 / 3)
    assert average_precision([], [], 3) == 0 and np.isnan(average_precision([0.5], [0], 0))
    assert average_precision([0.5, 0.5], [1, 0], 1) == 1 and average_precision([0.5, 0.5], [0, 1], 1) == 0.5


def test_the_table_by_hand(tmp_path):
    """One picture: a person found with a wrist that nobody annotated, one found by half, and a third whom nobody knows."""
    a = {HIP: (100, 100), KNEE: (100, 200)}
    b = {HIP: (300, 100), KNEE: (300, 200), WRIST: (340, 80)}
    scorer = MpiiPeopleScorer(write_file(tmp_path / "one.json", [[person(a, MPII14), person(b, MPII14)]]), MPII14)
    results = [
        found(1, {HIP: (100, 100, 0.9), KNEE: (100, 240, 0.8), WRIST: (140, 80, 0.9)}),  # of a: hip right, knee wrong
        found(1, {HIP: (300, 101, 0.5), KNEE: (300, 201, 0.6)}),  # of b: both right, the wrist missing
        found(1, {HIP: (600, 300, 0.7), KNEE: (600, 400, 0.1)}),  # nobody's
    ]
    figures = scorer(results)
    rows = {row["keypoint"]: row for row in scorer.per_keypoint(scorer.match(results))}
    # hips: right 0.9, wrong 0.7, right 0.5 of 2; knees: wrong 0.8, right 0.6, wrong 0.1 of 2; wrists: wrong of 1
    assert rows[HIP]["ap"] == pytest.approx((1 + 2 / 3) / 2) and rows[KNEE]["ap"] == pytest.approx(1 / 2 / 2)
    assert rows[WRIST]["ap"] == 0 and (rows[WRIST]["predicted"], rows[WRIST]["labelled"]) == (1, 1)
    assert rows[KNEE]["recall"] == 0.5 and rows[HIP]["recall"] == 1
    assert figures["Hip"] == rows[HIP]["ap"] and np.isnan(figures["Ankle"])
    assert figures["mAP"] == pytest.approx((5 / 6 + 1 / 4 + 0) / 3), "of the three keypoints that are annotated"
    assert figures["UBody"] == 0 and figures["mAP+UBody"] == pytest.approx((5 / 6 + 1 / 4 + 0 + 0) / 4)
    assert "3 keypoints: left_hip, left_knee, left_wrist" in scorer.card["mAP"]
    assert scorer.match(results)[0]["pckh"].tolist() == [1 / 2, 2 / 3]


def test_means_of_fourteen_and_fifteen(tmp_path):
    places = {name: (40 * k, 100) for k, name in enumerate(MPII14.keypoints)}
    scorer = MpiiPeopleScorer(write_file(tmp_path / "one.json", [[person(places, MPII14)]]), MPII14)
    legs = {name: place for name, place in places.items() if name.split("_")[1] in ("hip", "knee", "ankle")}
    figures = scorer([found(1, legs)])
    assert figures["UBody"] == 0 and figures["mAP"] == pytest.approx(6 / 14)
    assert figures["mAP+UBody"] == pytest.approx(6 / 15), "one more number, and it is 0"
    assert scorer.rules()[1] == "mAP of 14 keypoints (mAP+UBody: of these and UBody)"


def test_people_are_missed_also_where_nobody_was_found(tmp_path):
    places = {HIP: (100, 100)}
    file = write_file(tmp_path / "two.json", [[person(places, MPII14)], [person(places, MPII14)], []])
    scorer = MpiiPeopleScorer(file, MPII14)
    assert scorer([found(1, places)])["mAP"] == 0.5
    assert scorer([])["mAP"] == 0
    # without anybody in the picture all joints are wrong
    assert scorer([found(1, {HIP: (100, 100, 0.5)}), found(3, {HIP: (100, 100, 0.9)})])["mAP"] == 0.25


def grouped(tmp_path, **extras):
    """Groups of one person each at x = 100 and 400, and somebody at 700 who is in none; heads of 30 in boxes of 30 × 40."""
    people = [
        person({HIP: (x, 100)}, MPII14, head_box=[x, 100, 30, 40], **({"group": group} if group else {}))
        for x, group in ((100, "a"), (400, "b"), (700, None))
    ]
    return write_file(tmp_path / "groups.json", [people])


def test_predictions_belong_to_the_group_they_lie_in(tmp_path):
    scorer = MpiiPeopleScorer(grouped(tmp_path), MPII14)
    assert [group.region.tolist() for group in scorer.groups] == [[70, 70, 160, 170], [370, 70, 460, 170]]
    assert [len(group.people) for group in scorer.groups] == [1, 1], "the third is in no group"
    both = [found(1, {HIP: (100, 100, 0.5)}), found(1, {HIP: (400, 100, 0.5)})]
    assert scorer(both)["mAP"] == 1
    # on the border of a region a stranger is wrong, outside of all it does not count
    assert scorer([*both, found(1, {HIP: (460, 100, 0.9)})])["mAP"] == pytest.approx(2 / 3)
    assert scorer([*both, found(1, {HIP: (460.01, 100, 0.9)}), found(1, {HIP: (700, 100, 0.9)}), found(1, {})])["mAP"] == 1
    matches = scorer.match([*both, found(1, {HIP: (455, 100)})])
    assert [m["predictions"] for m in matches] == [1, 2]
    assert scorer.rules()[2] == "2 groups (groups by the key `group`)"


def test_a_file_of_groups_stays_one_where_some_pictures_have_none(tmp_path):
    people = [person({HIP: (100, 100)}, MPII14, group=1)], [person({HIP: (100, 100)}, MPII14)]
    file = write_file(tmp_path / "some.json", people)
    assert [group.image_id for group in MpiiPeopleScorer(file, MPII14).groups] == [1]
    with pytest.raises(ValueError, match="no group to score in its 1 pictures"):
        MpiiPeopleScorer(file, MPII14, image_ids=[2])


def test_where_groups_overlap_the_nearer_middle_has_it(tmp_path):
    people = [person({HIP: (x, 100)}, MPII14, head_box=[x - 15, 80, 30, 40], group=x) for x in (100, 130)]
    scorer = MpiiPeopleScorer(write_file(tmp_path / "near.json", [people]), MPII14)
    # 112 is within 15 pixels of nobody else's hip but that of the first
    assert [m["predictions"] for m in scorer.match([found(1, {HIP: (112, 100)}), found(1, {HIP: (118, 100)})])] == [1, 1]


def test_the_middle_is_that_of_the_joints_that_were_found(tmp_path):
    scorer = MpiiPeopleScorer(grouped(tmp_path), MPII14)
    # the hip alone lies in a region; with a knee far off the middle does not, and without joints there is no middle
    assert sum(m["predictions"] for m in scorer.match([found(1, {HIP: (100, 100), KNEE: (300, 100)})])) == 0
    corner = [person({HIP: (10, 10)}, MPII14, group=1)]
    scorer = MpiiPeopleScorer(write_file(tmp_path / "corner.json", [corner]), MPII14)
    assert [m["predictions"] for m in scorer.match([found(1, {HIP: (10, 10)}), found(1, {})])] == [1]


def test_groups_of_the_benchmark(tmp_path):
    """As in groups_v12.mat: a cell for each picture, of columns of rectangles, empty in two ways."""
    column = lambda *rects: np.array(rects, np.uint8)[:, None]
    row = lambda *groups: cell(list(groups)).T
    cells = cell([row(column(1), column(2, 3)), np.zeros((1, 0)), np.empty((0, 0), object), row(column(1, 4), column(2))])
    savemat(tmp_path / "groups.mat", {"groups": cells})
    assert read_groups(tmp_path / "groups.mat") == [[(1,), (2, 3)], [], [], [(1, 4), (2,)]]

    def rectangle(rect: int, x: float, single: bool = False) -> dict:
        return person({HIP: (x, 100)}, MPII14, rect=rect, single_person=single, head_box=[x, 100, 30, 40])

    first = [rectangle(1, 100, single=True), rectangle(2, 300), rectangle(3, 350)]
    fourth = [rectangle(1, 100), rectangle(2, 500)]  # of the fourth rectangle no joints are known
    file = write_file(tmp_path / "two.json", [first, fourth], ids=[1, 4])
    scorer = MpiiPeopleScorer(file, MPII14, groups=tmp_path / "groups.mat")
    members = [[p.extras.rect for p in group.people] for group in scorer.groups]
    assert members == [[2, 3], [1], [2]], "who stands apart belongs to the other measure"
    assert scorer([found(1, {HIP: (x, 100)}) for x in (300, 350, 100)] + [found(4, {HIP: (100, 100)})])["mAP"] == 0.75


def test_groups_that_do_not_belong_to_the_file(tmp_path):
    savemat(tmp_path / "groups.mat", {"groups": cell([NOTHING])})
    known = person({HIP: (0, 0)}, MPII14, rect=1)
    for people, ids in (([known], [1001]), ([person({HIP: (0, 0)}, MPII14)], [1])):
        file = write_file(tmp_path / "own.json", [people], ids=ids)
        with pytest.raises(ValueError, match=rf"counts MPII's 1 pictures .* image {ids[0]} of .*own\.json.* key `group`"):
            MpiiPeopleScorer(file, MPII14, groups=tmp_path / "groups.mat")
    with pytest.raises(ValueError, match=r"own\.json: no group to score in its 1 pictures \(groups of groups\.mat\)"):
        MpiiPeopleScorer(write_file(tmp_path / "own.json", [[known]]), MPII14, groups=tmp_path / "groups.mat")
    savemat(tmp_path / "other.mat", {"annolist": cell([NOTHING])})
    with pytest.raises(ValueError, match=r"other\.mat: no list `groups`"):
        read_groups(tmp_path / "other.mat")
    with pytest.raises(FileNotFoundError):
        read_groups(tmp_path / "gone.mat")


def test_a_skeleton_without_joints_of_people_has_no_upper_body(tmp_path):
    ball = Skeleton("ball", ("middle",), (), (), (0.05,))
    scorer = MpiiPeopleScorer(write_file(tmp_path / "b.json", [[person({"middle": (50, 50)}, ball)]], ball), ball)
    assert scorer([found(1, {"middle": (50, 60)}, ball)]) == {"middle": 1, "mAP": 1}
    assert "UBody" not in scorer.card and scorer.rules()[1] == "mAP of 1 keypoints"


def test_three_hundred_scenes_in_loops(tmp_path):
    """The whole way through a file, ten groups at a time, against the description written down plainly."""
    rng = np.random.default_rng(11)
    skeleton = Skeleton("person", MPII14.keypoints[:4], (), (), (0.05,) * 4)
    for batch in range(30):
        scenes = [random_scene(rng) for _ in range(10)]
        images = [
            [{"keypoints": t.ravel().tolist(), "head_box": [0, 0, 10, 40 / 3], "area": 1} for t in truth]
            for _, truth, _ in scenes
        ]  # 0.6 · hypot(10, 40/3) = 10
        results = [
            {"image_id": i, "keypoints": p.ravel().tolist(), "score": 1.0}
            for i, (predicted, _, _) in enumerate(scenes, 1)
            for p in predicted
        ]
        scorer = MpiiPeopleScorer(write_file(tmp_path / f"{batch}.json", images, skeleton), skeleton)
        rows = scorer.per_keypoint(scorer.match(results))
        np.testing.assert_allclose([row["ap"] for row in rows], plain_ap(scenes), rtol=0, atol=1e-12)
