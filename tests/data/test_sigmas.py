"""Sigmas from double annotation: a simulation whose truth is known, slips, and files that do not fit."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from lib.__main__ import main
from lib.data.coco import CocoFile, read_coco, write_coco
from lib.data.sigmas import compare, sigmas
from lib.people import oks
from lib.skeleton import COCO17, Skeleton

LAMP = Skeleton("lamp", ["foot", "elbow", "left_rim", "right_rim"], [(0, 1), (1, 2), (1, 3)], [(2, 3)], [0.05] * 4)


def annotate(skeleton, true_sigmas, seed, pictures=60, people=2, first=1):
    """What an annotator with these sigmas writes of pictures whose truth is always the same."""
    truth, hand = np.random.default_rng(0), np.random.default_rng((seed, 1))
    coco = {"images": [], "annotations": [], "categories": [skeleton.to_coco(7)]}
    del coco["categories"][0]["sigmas"]
    for i in range(pictures):
        coco["images"].append({"id": first + i, "file_name": f"{i}.jpg", "width": 1000, "height": 500})
        for p in range(people):
            side = truth.uniform(60, 200)
            places = truth.uniform(0, 1, (skeleton.num_keypoints, 2)) * side + (p * 500, 100)
            # the spread is that of the distance: each axis has 1 / √2 of it
            noise = hand.normal(0, 1, places.shape) * side * np.array(true_sigmas)[:, None] / np.sqrt(2)
            keypoints = np.column_stack([places + noise, np.full(len(places), 2)])
            coco["annotations"].append({
                "id": len(coco["annotations"]) + 1, "image_id": first + i, "category_id": 7, "iscrowd": 0,
                "keypoints": keypoints.ravel().tolist(), "num_keypoints": len(places), "area": side**2,
                "bbox": [p * 500, 100, side, side],
            })  # fmt: skip
    return coco


def as_coco(data, tmp_path, name="x.json") -> CocoFile:
    (tmp_path / name).write_text(json.dumps(data))
    return read_coco(tmp_path / name)


@pytest.fixture
def pair(tmp_path):
    """Two annotators of lamps; their image ids differ, as files of different tools do."""
    true = [0.03, 0.08, 0.05, 0.05]
    return (true, annotate(LAMP, true, 1), annotate(LAMP, true, 2, first=900), tmp_path)


def test_known_sigmas_come_back(tmp_path):
    first, second = (as_coco(annotate(COCO17, COCO17.sigmas, seed, 1000, 1), tmp_path) for seed in (1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare(first, second).skeleton
    assert found.keypoints == COCO17.keypoints
    ratio = np.array(found.sigmas) / COCO17.sigmas
    assert np.abs(ratio - 1).max() < 0.06
    assert abs(ratio.mean() - 1) < 0.015  # neither the distance of two instead of one, nor an axis instead of both


def test_standard_errors_are_honest(tmp_path):
    seeds = range(0, 40, 2)
    found = [compare(as_coco(annotate(LAMP, [0.05] * 4, s), tmp_path), as_coco(annotate(LAMP, [0.05] * 4, s + 1), tmp_path))
             for s in seeds]  # fmt: skip
    spread = np.std([a.skeleton.sigmas for a in found], axis=0)
    assert spread == pytest.approx(found[0].errors, rel=0.5)
    assert found[0].pairs.tolist() == [120, 120, 240, 240]


def test_the_convention_is_that_of_oks(tmp_path):
    """COCO's text: a person within one, two, three standard deviations scores .88, .61, .32."""
    truth = np.array([[[0.0, 0, 2]]])
    one = oks(np.array([[[0.05 * 100, 0]]]), truth, np.array([100.0**2]), np.array([0.05]))
    assert one[0, 0] == pytest.approx(np.exp(-1 / 8))


def test_twins_share_one_sigma_and_order_does_not_matter(pair):
    _, first, second, tmp_path = pair
    straight = compare(as_coco(first, tmp_path), as_coco(second, tmp_path))
    assert straight.skeleton.sigmas[2] == straight.skeleton.sigmas[3]
    category = second["categories"][0]
    category["keypoints"] = category["keypoints"][::-1]
    category["skeleton"] = []
    for a in second["annotations"]:
        a["keypoints"] = np.reshape(a["keypoints"], (-1, 3))[::-1].ravel().tolist()
    second["annotations"].reverse()
    turned = compare(as_coco(first, tmp_path), as_coco(second, tmp_path))
    assert turned.skeleton == straight.skeleton


def test_slips_and_swaps_are_reported_not_averaged(pair):
    _, first, second, tmp_path = pair
    clean = compare(as_coco(first, tmp_path), as_coco(second, tmp_path))
    for a in second["annotations"][:6]:
        a["keypoints"][0] += 300  # the foot, far away
    for a in second["annotations"][10:14]:
        k = a["keypoints"]
        a["keypoints"] = k[:6] + k[9:] + k[6:9]
    found = compare(as_coco(first, tmp_path), as_coco(second, tmp_path))
    assert found.far[0] == clean.far[0] + 6 and len(found.swapped) == 4
    assert found.swapped[0] == "13.jpg, left_rim" or found.swapped[0].endswith("left_rim")
    assert found.skeleton.sigmas == pytest.approx(clean.skeleton.sigmas, rel=0.04)
    assert "exchanged 4 times" in str(found)


def test_exchanged_body_is_still_the_same_person(pair):
    _, first, second, tmp_path = pair
    for a in second["annotations"]:
        if a["id"] % 4 == 1:
            k = a["keypoints"]
            a["keypoints"] = k[:6] + k[9:] + k[6:9]
    found = compare(as_coco(first, tmp_path), as_coco(second, tmp_path))
    assert found.people == 120 and found.alone == 0 and len(found.swapped) > 20


def test_every_tenth_body_exchanged_changes_little(tmp_path):
    first, second = (annotate(COCO17, COCO17.sigmas, seed, 200, 1) for seed in (1, 2))
    clean = compare(as_coco(first, tmp_path), as_coco(second, tmp_path))
    assert clean.swapped == []
    for a in second["annotations"][::10]:
        a["keypoints"] = np.reshape(a["keypoints"], (-1, 3))[COCO17.flip_index].ravel().tolist()
    found = compare(as_coco(first, tmp_path), as_coco(second, tmp_path))
    assert found.people == 200 and len({place.split(",")[0] for place in found.swapped}) == 20
    assert found.skeleton.sigmas == pytest.approx(clean.skeleton.sigmas, rel=0.04)


def test_people_without_partner_pictures_in_one_file_and_unlabelled_keypoints(pair):
    _, first, second, tmp_path = pair
    second["annotations"] = second["annotations"][1:]
    second["annotations"][-1]["iscrowd"] = 1
    second["images"].append({"id": 5000, "file_name": "new.jpg", "width": 9, "height": 9})
    for a in first["annotations"][20:30]:
        a["keypoints"][0:3] = 0, 0, 0
    found = compare(as_coco(first, tmp_path), as_coco(second, tmp_path))
    assert (found.people, found.alone, found.pictures, found.missing) == (118, 2, 60, 1)
    assert found.pairs[0] == 108 and found.pairs[1] == 118


def test_an_area_that_is_missing_comes_from_the_box(pair):
    _, first, second, tmp_path = pair
    with_area = compare(as_coco(first, tmp_path), as_coco(second, tmp_path))
    for a in first["annotations"] + second["annotations"]:
        a["area"] = 0
    without = compare(as_coco(first, tmp_path), as_coco(second, tmp_path))
    assert without.skeleton.sigmas == pytest.approx(np.array(with_area.skeleton.sigmas) / np.sqrt(0.53))


def test_few_pairs_warn_and_too_few_keep_the_default(tmp_path):
    first, second = (annotate(LAMP, [0.05] * 4, seed, 4, 1) for seed in (1, 2))
    for a in second["annotations"][:3]:
        a["keypoints"][5] = 0  # elbow: one pair is left
    with pytest.warns(UserWarning, match=r"fewer than 10 pairs, sigma is rough: foot \(4 pairs\), left_rim \(8"):
        found = compare(as_coco(first, tmp_path), as_coco(second, tmp_path))
    with pytest.warns(UserWarning, match=r"no estimate, sigma stays at the default of 0.05: elbow \(1 pairs\)"):
        compare(as_coco(first, tmp_path), as_coco(second, tmp_path))
    assert found.skeleton.sigmas[1] == 0.05 and np.isinf(found.errors[1])


def test_files_that_do_not_fit(pair):
    _, first, second, tmp_path = pair
    a, b = as_coco(first, tmp_path, "a.json"), as_coco(second, tmp_path, "b.json")
    with pytest.raises(ValueError, match="one file is a copy of the other"):
        compare(a, a)
    for image in b.images:
        image.file_name = "other/" + image.file_name
    with pytest.raises(ValueError, match=r"nobody stands in both .*a.json and .*b.json"):
        compare(a, b)
    b.categories[0].keypoints[0] = "base"
    with pytest.raises(ValueError, match="different keypoints: base, foot"):
        compare(a, b)
    with pytest.raises(KeyError, match="no category 'chair'"):
        compare(a, b, "chair")


def test_command_writes_a_copy_that_evaluates_with_them(pair, capsys):
    true, first, second, tmp_path = pair
    first["notes"] = {"kept": True}
    first["categories"].append({"id": 9, "name": "table", "supercategory": ""})
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    a.write_text(json.dumps(first))
    b.write_text(json.dumps(second))
    out = tmp_path / "new" / "with_sigmas.json"
    assert main(["sigmas", str(a), str(b), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "120 people on 60 pictures compared" in printed and "left_rim" in printed
    assert json.loads(a.read_text()) == first and json.loads(b.read_text()) == second
    written = json.loads(out.read_text())
    assert written["notes"] == {"kept": True} and "sigmas" not in written["categories"][1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        skeleton = Skeleton.from_coco(written["categories"][0])
    assert skeleton.sigmas == pytest.approx(true, rel=0.15)
    assert replace(skeleton, sigmas=LAMP.sigmas) == LAMP
    write_coco(out, read_coco(out))
    for original in (a, b):
        with pytest.raises(ValueError, match="choose another name than those of the originals"):
            sigmas(a, b, original)
    assert json.loads(a.read_text()) == first
