import pickle

import msgspec
import numpy as np
import pytest
from faster_coco_eval import COCO

from benchmarks.big_coco import write_big_coco
from lib.data.coco import read_coco
from lib.data.index import LabelIndex
from lib.data.openpose_lists import PersonList, val_subset, write_val_subset
from lib.skeleton import COCO17


def save(path, people, images=1):
    listed = [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(images)]
    people = [{"id": i, "image_id": 0, "category_id": 1, **p} for i, p in enumerate(people)]
    path.write_bytes(msgspec.json.encode({"images": listed, "annotations": people, "categories": [COCO17.to_coco()]}))
    return path


def person(x, y=100, width=50, height=184, points=17, **more):
    keypoints = [x, y, 2] * points + [0, 0, 0] * (17 - points)
    return {"bbox": [x - width / 2, y - height / 2, width, height], "keypoints": keypoints, "num_keypoints": points,
            "area": 5000, **more}  # fmt: skip


def list_of(path, **options):
    return PersonList(LabelIndex.of(path), **options)


def test_main_persons_and_everybody_else(tmp_path):
    people = [
        person(100),
        person(114.9),  # nearer than 0.3 × 50 to the first
        person(115, width=200),  # exactly as far: a main person
        person(170, width=300),  # nearer than 0.3 × 200 to the one before
        person(300, points=4),  # too few keypoints
        person(400, area=1023.9),  # too small
        person(500, points=0),  # nobody to draw
        person(105, iscrowd=1, segmentation={"size": [480, 640], "counts": [480 * 640]}),
        person(600, image_id=1),
        person(620, image_id=2, area=900),
    ]
    found = list_of(save(tmp_path / "a.json", people, images=4))
    assert len(found) == 3 and [p.annotation_id for p in found] == [0, 2, 8] and found.images.tolist() == [0, 0, 1]
    first, second, alone = found
    assert first.image.file_name == "0.jpg" and first.centre.tolist() == [100, 100] and first.scale == 184 / 368
    assert first.keypoints.shape == (17, 3) and (first.keypoints[:, 0] == 100).all()
    assert first.others[:, 0, 0].round(1).tolist() == pytest.approx([114.9, 115, 170, 300, 400])
    assert second.others[:, 0, 0].round(1).tolist() == pytest.approx([100, 114.9, 170, 300, 400])
    assert first.crowds.tolist() == second.crowds.tolist() == [7] and found.labels.runs(7).tolist() == [480 * 640]
    assert alone.others.shape == (0, 17, 3) and alone.crowds.tolist() == []
    assert list_of(save(tmp_path / "a.json", people, images=4), input_size=184)[0].scale == 1


def brute_force(coco):
    """The rule once more, picture by picture and in words."""
    chosen = []
    for image in coco.images:
        centres = []
        for a in coco.annotations:
            if a.image_id != image.id or a.iscrowd or a.num_keypoints < 5 or a.area < 1024:
                continue
            centre = np.array([a.bbox[0] + a.bbox[2] / 2, a.bbox[1] + a.bbox[3] / 2])
            if not any(np.linalg.norm(centre - other) < 0.3 * width for other, width in centres):
                centres.append((centre, a.bbox[2]))
                chosen.append(a.id)
    return chosen


def test_the_list_of_a_generated_set(tmp_path):
    path = write_big_coco(tmp_path / "big.json", 40, 900, 700)
    labels, coco = LabelIndex.build(path), read_coco(path)
    found = PersonList(labels)
    expected = brute_force(coco)
    assert [p.annotation_id for p in found] == expected and 200 < len(expected) < 700
    candidates = {a.id for a in coco.annotations if a.num_keypoints}
    assert set(labels.ids[found.candidates].tolist()) == candidates
    again = pickle.loads(pickle.dumps(found))
    assert len(pickle.dumps(found)) < 20_000 and again[7].others.tolist() == found[7].others.tolist()


def test_with_a_neck(tmp_path):
    people = [person(100), person(300)]
    people[0]["keypoints"][15:21] = [90, 50, 2, 111, 60, 1]
    labels = LabelIndex.of(save(tmp_path / "a.json", people)).with_neck(rounded=False)
    sample = PersonList(labels)[0]
    assert sample.keypoints[17].tolist() == [100.5, 55, 1] and sample.others.shape == (1, 18, 3)


def test_keypoints_that_the_original_drops(tmp_path):
    people = [person(100)]
    people[0]["keypoints"][:9] = [0, 0, 2, 640, 5, 1, 5, 480, 2]
    assert list_of(save(tmp_path / "a.json", people))[0].keypoints[:4, 2].tolist() == [0, 0, 0, 2]


def test_own_data_without_area_or_box(tmp_path):
    without_area = {k: v for k, v in person(100).items() if k != "area"}
    assert len(list_of(save(tmp_path / "a.json", [without_area]))) == 1
    without_box = {k: v for k, v in person(100).items() if k != "bbox"}
    with pytest.raises(ValueError, match=r"a\.json: annotation 1 has keypoints but no bbox"):
        list_of(save(tmp_path / "a.json", [without_area, without_box]))
    with pytest.raises(ValueError, match=r"a\.json: nobody among 1 'person' annotations has 5 keypoints and 1024"):
        list_of(save(tmp_path / "a.json", [person(100, points=3), person(200, points=0)]))


def test_the_original_takes_these_validation_images():
    """The first of Python's shuffle of 0 … 4999 with seed 0."""
    assert val_subset(5000)[:5] == [2795, 4151, 597, 2932, 3289] and len(val_subset(5000)) == 250
    assert val_subset(118_287, 10) == val_subset(5000, 10)
    assert sorted(val_subset(72)) == list(range(72)) and val_subset(72, 9) == val_subset(72)[:9] != list(range(9))
    assert val_subset(0) == []


def test_the_subset_is_a_file_of_its_own(tmp_path):
    source = write_big_coco(tmp_path / "all.json", 60, 200, 90)
    before = msgspec.json.decode(source.read_bytes())
    target = write_val_subset(source, tmp_path / "deep/subset.json", 20)
    content = msgspec.json.decode(target.read_bytes())
    assert content["images"] == [before["images"][i] for i in val_subset(60, 20)]
    ids = [image["id"] for image in content["images"]]
    expected = [a for i in ids for a in before["annotations"] if a["image_id"] == i]
    assert content["annotations"] == expected != []
    assert {k: content[k] for k in ("info", "licenses", "categories")} == {
        k: before[k] for k in ("info", "licenses", "categories")
    }
    result = {"image_id": ids[0], "category_id": 1, "keypoints": [1] * 51, "score": 1.0}
    assert len(COCO(str(target)).loadRes([result]).anns) == 1
    del before["info"], before["licenses"]
    source.write_bytes(msgspec.json.encode(before))
    bare = msgspec.json.decode(write_val_subset(source, target).read_bytes())
    assert bare["info"] == {} and bare["licenses"] == [] and len(bare["images"]) == 60
    with pytest.raises(ValueError, match="choose another target"):
        write_val_subset(source, source)
