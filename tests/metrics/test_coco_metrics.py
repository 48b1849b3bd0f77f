"""The AP table, against pycocotools and against cases counted by hand."""

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lib.data.coco import Annotation, Category, CocoFile, Image, insert_neck
from lib.metrics import METRICS, CocoScorer, people_to_results
from lib.people import People
from lib.skeleton import COCO17, COCO18_NECK, Skeleton


def coco_file(rng, images=12, most_people=5, sizes=(20, 240)) -> CocoFile:
    """Random figures, some keypoints unlabelled, one crowd per third image and images without anybody."""
    annotations = []
    for image_id in range(1, images + 1):
        for p in range(rng.integers(0, most_people + 1)):
            height = rng.uniform(*sizes)
            xy = rng.uniform(0, 300, 2) + rng.uniform(0, 1, (17, 2)) * [height / 2, height]
            v = rng.choice([0, 1, 2], 17, p=[0.2, 0.2, 0.6])
            keypoints = np.where(v[:, None] > 0, np.concatenate([xy, v[:, None]], 1), 0)
            crowd = int(p == 4)
            box = [*xy.min(0).tolist(), *np.ptp(xy, axis=0).tolist()]
            annotations.append(Annotation(len(annotations) + 1, image_id, 1, keypoints.ravel().tolist(), int((v > 0).sum()),
                                          box, height**2 / 2, crowd, []))  # fmt: skip
    fields = COCO17.to_coco()
    category = Category(1, "person", keypoints=fields["keypoints"], skeleton=fields["skeleton"])
    return CocoFile([Image(i, f"{i}.jpg", 640, 480) for i in range(1, images + 1)], annotations, [category])


def noisy_results(coco: CocoFile, rng, noise=0.04, drop=0.1, extra=0.3) -> list[dict]:
    results = []
    for a in coco.annotations:
        keypoints = np.reshape(a.keypoints, (17, 3)).astype(float)
        keypoints[:, :2] += rng.normal(0, noise * np.sqrt(a.area), (17, 2))
        keypoints[:, 2] = rng.uniform(0.1, 1, 17)
        if rng.random() > drop:
            results += people_to_results(People(keypoints[None], [rng.random()]), a.image_id)
        if rng.random() < extra:
            keypoints[:, :2] += rng.normal(0, 60, (17, 2))
            results += people_to_results(People(keypoints[None], [rng.random()]), a.image_id)
    return results


def official(coco: CocoFile, results: list[dict]) -> dict[str, float]:
    import msgspec

    truth = COCO()
    truth.dataset = msgspec.to_builtins(coco)
    truth.createIndex()
    run = COCOeval(truth, truth.loadRes(results), "keypoints")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return dict(zip(METRICS, run.stats))


@pytest.mark.parametrize("seed", range(4))
def test_table_equals_pycocotools(seed):
    rng = np.random.default_rng(seed)
    coco = coco_file(rng)
    results = noisy_results(coco, rng)
    ours, theirs = CocoScorer(coco, COCO17)(results), official(coco, results)
    assert 0.05 < theirs["AP"] < 0.95
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_the_neck_is_left_out_and_names_decide():
    rng = np.random.default_rng(7)
    coco = coco_file(rng)
    results = noisy_results(coco, rng)
    with_neck = [r | {"keypoints": r["keypoints"] + [0.0, 0.0, 1.0]} for r in results]
    plain = CocoScorer(coco, COCO17)(results)
    assert CocoScorer(insert_neck(coco), COCO18_NECK)(with_neck) == plain
    assert CocoScorer(insert_neck(coco), COCO17)(results) == plain
    order = rng.permutation(17)
    names = [COCO17.keypoints[k] for k in order]
    shuffled = Skeleton("person", names, (), (), [COCO17.sigmas[k] for k in order])
    turned = [r | {"keypoints": np.reshape(r["keypoints"], (17, 3))[order].ravel().tolist()} for r in results]
    assert CocoScorer(coco, shuffled)(turned) == plain


def test_nobody_found_is_zero_and_nobody_there_is_minus_one():
    rng = np.random.default_rng(1)
    coco = coco_file(rng, sizes=(200, 240))
    metrics = CocoScorer(coco, COCO17)([])
    assert metrics["AP"] == metrics["AR75"] == metrics["APl"] == 0 and metrics["APm"] == -1
    coco.annotations.clear()
    assert set(CocoScorer(coco, COCO17)([]).values()) == {-1.0}


def test_only_the_chosen_images_count():
    rng = np.random.default_rng(2)
    coco = coco_file(rng)
    perfect = [r for a in coco.annotations if a.image_id <= 6 and not a.iscrowd
               for r in people_to_results(People(np.reshape(a.keypoints, (1, 17, 3)), [1.0]), a.image_id)]  # fmt: skip
    assert CocoScorer(coco, COCO17, image_ids=range(1, 7))(perfect)["AP"] == pytest.approx(1)
    assert CocoScorer(coco, COCO17)(perfect)["AP"] < 0.9


def test_per_keypoint_table_by_hand():
    keypoints = np.zeros((17, 3))
    keypoints[:3] = [[10, 10, 2], [20, 10, 2], [30, 10, 1]]
    category = Category(1, "person", keypoints=list(COCO17.keypoints))
    coco = CocoFile([Image(1, "1.jpg", 64, 64)],
                    [Annotation(1, 1, 1, keypoints.ravel().tolist(), 3, [0, 0, 40, 40], 1600.0, 0, [])], [category])  # fmt: skip
    scorer = CocoScorer(coco, COCO17)
    predicted = keypoints.copy()
    predicted[1, 0] += 3  # an eye off by 3 px: exp(−9 / (2 · 1600 · 0.05²))
    predicted[2] = 0  # an eye not found
    matches = scorer.match(people_to_results(People(predicted[None], [1.0]), 1))
    nose, left, right, ear = scorer.per_keypoint(matches)[:4]
    assert nose["similarity"] == pytest.approx(1) and nose["error"] == pytest.approx(0) and nose["found"] == 1
    assert (
        left["similarity"] == pytest.approx(np.exp(-9 / 8)) and left["error"] == pytest.approx(3) and left["found"] == 0
    )
    assert right["similarity"] == 0 and right["labelled"] == 1 and np.isnan(right["error"])
    assert ear["labelled"] == 0


def test_no_common_keypoint_is_an_error():
    rng = np.random.default_rng(3)
    beetle = Skeleton("beetle", ["head", "tail"], [(0, 1)], (), [0.05, 0.05])
    with pytest.raises(ValueError, match="no name in common"):
        CocoScorer(coco_file(rng), beetle)


def test_published_results_count_half_pixels_and_say_only_what_was_found():
    people = People([[[10, 20, 0.5], [0, 0, 0], [3.25, 4, 0.01]]], [7.5])
    plain, published = people_to_results(people, 3), people_to_results(people, 3, 1, half_pixel=True, third="found")
    assert plain[0]["keypoints"] == [10, 20, 0.5, 0, 0, 0, 3.25, 4, 0.01]
    assert published[0]["keypoints"] == [10.5, 20.5, 1, 0, 0, 0, 3.75, 4.5, 1]
    assert published[0]["score"] == 7.5 and people.keypoints[0, 0, 0] == 10


def test_results_as_annotated_give_other_programs_the_same_table():
    rng = np.random.default_rng(9)
    coco = coco_file(rng)
    results = noisy_results(coco, rng)
    order = rng.permutation(18)
    names = [("neck", *COCO17.keypoints)[k] for k in order]
    model = Skeleton("person", names, (), (), (0.05,) * 18)
    turned = [r | {"keypoints": np.concatenate([[[9, 9, 1]], np.reshape(r["keypoints"], (17, 3))])[order].ravel().tolist()}
              for r in results]  # fmt: skip
    scorer = CocoScorer(coco, model)
    back = scorer.as_annotated(turned)
    assert back == results
    assert scorer(turned) == pytest.approx(official(coco, back), abs=1e-9)
    # with an annotated neck it stays, and what the model lacks is 0, 0, 0
    with_neck = CocoScorer(insert_neck(coco), model).as_annotated(turned[:1])[0]["keypoints"]
    assert len(with_neck) == 54 and with_neck[-3:] == [9, 9, 1]
    noseless = CocoScorer(coco, Skeleton("person", COCO17.keypoints[1:], (), (), (0.05,) * 16))
    cut = [r | {"keypoints": r["keypoints"][3:]} for r in results[:1]]
    assert noseless.as_annotated(cut)[0]["keypoints"] == [0, 0, 0] + results[0]["keypoints"][3:]
