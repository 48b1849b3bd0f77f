"""Kinds of errors and what they cost: cases made by hand, and figures of the authors' own program on random scenes."""

import numpy as np
import pytest

from lib.data.coco import Annotation, Category, CocoFile, Image
from lib.metrics import METRICS, CocoScorer, people_to_results
from lib.metrics.errors import FIXES, KINDS, best_scores, find_errors, judge
from lib.metrics.precision import Scene, scenes_of, tally
from lib.people import People
from lib.skeleton import COCO17, Skeleton

LEFT, RIGHT, MIDDLE = 0, 1, 2
TRIO = Skeleton("trio", ["left_hand", "right_hand", "head"], [], [(0, 1)], [0.1, 0.1, 0.1])
SIDE = 100.0  # of every person's area, so that a distance d has the similarity exp(−d² / (2·(0.2·100)²))


def far(similarity):
    """Pixels at which a keypoint has that similarity."""
    return 0.2 * SIDE * np.sqrt(-2 * np.log(similarity))


def scene(predicted, truth, scores=None, ignored=None):
    predicted, truth = np.array(predicted, float).reshape(-1, 3, 3), np.array(truth, float).reshape(-1, 3, 3)
    ignored = np.zeros(len(truth), bool) if ignored is None else np.array(ignored)
    scores = np.linspace(1, 0.5, len(predicted)) if scores is None else np.array(scores)
    return Scene(1, predicted, scores, truth, np.full(len(truth), SIDE**2), np.tile([0.0, 0, SIDE, SIDE], (len(truth), 1)),
                 ignored, ignored)  # fmt: skip


def judged(*args, **options):
    return judge(scene(*args, **options), np.array(TRIO.sigmas), TRIO.flip_index)


ONE = [[0, 0, 2], [200, 0, 2], [100, -100, 2]]
OTHER = [[0, 500, 2], [200, 500, 2], [100, 400, 2]]


def kinds_of(places, truth=(ONE, OTHER)):
    found = [[x, y, 1] for x, y in places]
    return [KINDS[k] if k >= 0 else None for k in judged([found], truth).kinds[0]]


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ((0, 0), "good"), ((far(0.86), 0), "good"), ((far(0.84), 0), "jitter"), ((0, far(0.51)), "jitter"),
        ((0, far(0.49)), "miss"), ((200, 0), "inversion"), ((200, far(0.51)), "inversion"), ((200, far(0.49)), "miss"),
        ((0, 500), "swap"), ((200, 500), "swap"), ((0, 500 - far(0.49)), "miss"), ((100, -100), "miss"),
    ],
)  # fmt: skip
def test_a_keypoint_at_every_place(place, kind):
    """The twin of somebody else is a swap, too; another kind of keypoint at its place is none."""
    assert kinds_of([place, (200, 0), (100, -100)]) == [kind, "good", "good"]


def test_what_is_not_labelled_has_no_kind_and_what_is_not_found_is_missed():
    truth = np.array([ONE], float)
    truth[0, RIGHT] = 0
    found = np.array([ONE], float)
    found[0, MIDDLE] = 100, -100, 0  # at the right place, but with no score: not found
    kinds = judged(found, truth).kinds[0]
    assert kinds[RIGHT] == -1 and KINDS[kinds[MIDDLE]] == "miss" and KINDS[kinds[LEFT]] == "good"


def test_inversion_needs_the_twin_to_be_labelled():
    truth = np.array([ONE], float)
    truth[0, RIGHT, 2] = 0
    assert kinds_of([(200, 0), (200, 0), (100, -100)], truth) == ["miss", None, "good"]


def test_a_fixed_keypoint_is_barely_right():
    found = np.array([ONE], float)
    found[0, :, :2] = (far(0.7), 0), (0, 0), (0, 900)  # jitter, inversion, miss
    case = judged(found, [ONE])
    distances = np.linalg.norm(case.right[0] - np.array(ONE)[:, :2], axis=1)
    assert distances == pytest.approx([far(0.85) / 2, 0, far(0.5) / 2], abs=1e-5)


def test_people_without_a_partner():
    case = judged([ONE, np.array(ONE) + [5, 5, 0], np.array(ONE) + [900, 900, 0]], [ONE, OTHER], scores=[0.9, 0.8, 0.3])
    assert case.false_positives.tolist() == [False, True, True] and case.missed.tolist() == [False, True]
    assert case.cost == pytest.approx(1 + 0.8 + 0.3)
    crowd = judged([ONE, np.array(ONE) + [5, 5, 0]], [ONE], ignored=[True])
    assert not crowd.false_positives.any() and not crowd.missed.any() and crowd.cost == 0


def test_best_scores_suppress_the_twin_of_a_better_one():
    near = scene([np.array(ONE) + [30, 0, 0], ONE, OTHER], [ONE, OTHER])
    sigmas = np.array(TRIO.sigmas)
    scores = best_scores(near, near.keypoints[..., :2], near.similarity(sigmas), sigmas)
    assert scores[1] == scores[2] == 1 and 0 < scores[0] < near.similarity(sigmas)[0, 0]


def crowded(seed):
    """People with every kind of error, false alarms and crowds; from NumPy's frozen generator."""
    rng = np.random.RandomState(seed)
    annotations, results = [], []
    for image_id in range(1, 21):
        bodies = rng.uniform(0, 1, (rng.randint(0, 5), 17, 2))
        sizes = rng.uniform(40, 240, len(bodies))
        bodies = bodies * sizes[:, None, None] + rng.uniform(0, 300, (len(bodies), 1, 2))
        for p, (body, size) in enumerate(zip(bodies, sizes)):
            seen = rng.choice([0, 1, 2], 17, p=[0.2, 0.2, 0.6])
            labels = np.where(seen[:, None] > 0, np.concatenate([body, seen[:, None]], 1), 0)
            box = [*body.min(0).tolist(), *np.ptp(body, axis=0).tolist()]
            annotations.append(Annotation(len(annotations) + 1, image_id, 1, labels.ravel().tolist(), int((seen > 0).sum()), box,
                                          float(size**2 / 2), int(p == 3), []))  # fmt: skip
            for kind in ("once", "again", "nobody")[: rng.randint(0, 4)]:
                found = body + rng.normal(0, rng.choice([0.01, 0.04]) * size, (17, 2))
                mixed = rng.choice([0, 1, 2], 17, p=[0.7, 0.15, 0.15])
                found = np.where(mixed[:, None] == 1, body[COCO17.flip_index], found)
                found = np.where(mixed[:, None] == 2, bodies[rng.randint(len(bodies))], found)
                found = found + rng.normal(0, size, (17, 2)) * (kind == "nobody")
                people = People(np.concatenate([found, np.ones((17, 1))], 1)[None], [rng.uniform()])
                results += people_to_results(people, image_id)
    fields = COCO17.to_coco()
    category = Category(1, "person", keypoints=fields["keypoints"], skeleton=fields["skeleton"])
    return CocoFile([Image(i, f"{i}.jpg", 640, 480) for i in range(1, 21)], annotations, [category]), results


# what coco-analyze (commit of 2019) says to crowded(seed), without limits of the area: AP, keypoints of every kind, AP with
# each of the first five fixes alone, AP with all seven in turn
ORIGINAL = {
    0: (0.165551, [235, 31, 53, 62, 51],
        [0.225786, 0.296746, 0.234223, 0.180398, 0.400549],
        [0.225786, 0.406734, 0.523108, 0.543594, 0.767327, 0.767327, 1.0]),
    1: (0.197648, [135, 23, 19, 48, 29],
        [0.248362, 0.318466, 0.233458, 0.215239, 0.347525],
        [0.248362, 0.446746, 0.507395, 0.530405, 0.639807, 0.641584, 1.0]),
    2: (0.164644, [179, 26, 35, 66, 40],
        [0.224996, 0.301551, 0.268847, 0.181887, 0.334323],
        [0.224996, 0.425741, 0.569402, 0.593881, 0.716635, 0.719802, 1.0]),
}  # fmt: skip


@pytest.mark.parametrize("seed", ORIGINAL)
def test_figures_of_the_authors_program(seed):
    coco, results = crowded(seed)
    errors = find_errors(CocoScorer(coco, COCO17), results)
    ap, counts, alone, in_turn = ORIGINAL[seed]
    assert errors.tally.average_precision() == pytest.approx(ap, abs=1e-6)
    assert errors.counts.sum(axis=1).tolist() == counts
    assert [errors.alone[fix] for fix in FIXES[:5]] == pytest.approx(alone, abs=1e-6)
    assert list(errors.in_turn.values()) == pytest.approx(in_turn, abs=1e-6)
    assert sum(errors.shares().values()) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_the_open_steps_give_the_table(seed):
    coco, results = crowded(seed + 10)
    scorer = CocoScorer(coco, COCO17)
    scenes = scenes_of(scorer, results)
    alike = [scene.similarity(scorer.sigmas) for scene in scenes]
    table = dict(zip(METRICS, scorer(results).values()))
    for name, area in (("AP", (0, 1e10)), ("APm", (32**2, 96**2)), ("APl", (96**2, 1e10))):
        assert tally(scenes, alike, area=area).average_precision() == pytest.approx(table[name], abs=1e-9)
    assert tally(scenes, alike).precision()[5].mean() == pytest.approx(table["AP75"], abs=1e-9)
    recall, precision = tally(scenes, alike).curve(0)
    assert recall[-1] == pytest.approx(scorer(results)["AR50"]) and (np.diff(recall) >= 0).all() and precision.max() <= 1


def test_false_positives_and_missed_people_alone():
    """One of two people found, and a surer false alarm: precision 1/2 up to a recall of 1/2."""
    fields = TRIO.to_coco()
    annotations = [Annotation(i, 1, 1, np.ravel(p).tolist(), 3, [0, 0, 1, 1], SIDE**2, 0) for i, p in ((1, ONE), (2, OTHER))]
    category = Category(1, "trio", keypoints=fields["keypoints"], skeleton=[], sigmas=fields["sigmas"])
    coco = CocoFile([Image(1, "1.jpg", 640, 480)], annotations, [category])
    people = People([np.array(ONE) + [2000, 2000, 0], ONE], [0.9, 0.8])
    errors = find_errors(CocoScorer(coco, TRIO), people_to_results(people, 1))
    half = 51 / 101  # steps of recall up to 0.5
    assert errors.tally.average_precision() == pytest.approx(half / 2)
    assert errors.alone["false positive"] == pytest.approx(half)
    assert errors.alone["missed person"] == pytest.approx(1 / 2)
    assert errors.in_turn["missed person"] == 1
    assert errors.people == {"people": 2, "missed": 1, "predictions": 2, "false positives": 1, "duplicates": 0}
    assert [p.scene.image_id for p in errors.worst()] == [1]


def test_nobody_predicted_and_nobody_there():
    coco, _ = crowded(3)
    errors = find_errors(CocoScorer(coco, COCO17), [])
    assert errors.tally.average_precision() == 0 and errors.alone["missed person"] != errors.alone["missed person"]
    assert not errors.counts.any() and errors.people["missed"] == errors.people["people"] > 0
    nobody = CocoFile(coco.images, [], coco.categories)
    errors = find_errors(CocoScorer(nobody, COCO17), [])
    assert np.isnan(errors.tally.average_precision()) and errors.worst() == []
