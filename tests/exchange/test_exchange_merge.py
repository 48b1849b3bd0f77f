"""Names, never positions: matching, mapping to a skeleton, and the union of different sets."""

import numpy as np
import pytest

from lib.data.coco import CocoFile, check_coco, skeleton_of
from lib.exchange import match_names, merge_sets, read_any, remap
from lib.exchange.names import name_keys
from lib.skeleton import COCO17, Skeleton
from tests.exchange.fixtures_of_tools import coco_annotator, cvat, save

FACE = Skeleton("face", ["nose", "left_eye", "right_eye"], [(0, 1), (0, 2)], [(1, 2)], [0.1, 0.2, 0.2])


@pytest.mark.parametrize(
    "spelling",
    ["left_shoulder", "LShoulder", "l_shoulder", "left shoulder", "LEFT_SHOULDER", "leftShoulder", "Shoulder.Left",
     "shoulder-l", "Left-Shoulder", "LtShoulder", "L. Shoulder", "shoulder_L"],
)  # fmt: skip
def test_spellings_of_one_name(spelling):
    assert match_names([spelling], COCO17) == {spelling: "left_shoulder"}


def test_glued_sides_need_their_twin():
    assert match_names(["lshoulder", "rshoulder", "leftear", "rightear"], COCO17) == {
        "lshoulder": "left_shoulder", "rshoulder": "right_shoulder", "leftear": "left_ear", "rightear": "right_ear"}  # fmt: skip
    assert match_names(["rear", "lshoulder"], COCO17) == {}  # the rear of an animal is not a right ear
    assert name_keys(["l", "r", "Left"]) == [("", "l"), ("", "r"), ("", "left")]


def test_names_that_only_differ_in_spelling_are_not_confused():
    assert len(set(name_keys(["a_b", "ab", "A_B", "c"]))) == 4
    skeleton = Skeleton("x", ["tip_1", "tip1"], [], [], [1, 1])
    assert match_names(["tip1", "tip_1"], skeleton) == {"tip1": "tip1", "tip_1": "tip_1"}


def test_aliases_come_before_spelling_and_are_checked():
    assert match_names(["Snout", "l_eye"], FACE, {"snout": "nose"}) == {"Snout": "nose", "l_eye": "left_eye"}
    assert match_names(["nose"], FACE, {"nose": "left_eye"}) == {"nose": "left_eye"}
    with pytest.raises(KeyError, match="has no keypoint 'nase', did you mean 'nose'"):
        match_names(["Snout"], FACE, {"Snout": "nase"})
    with pytest.raises(ValueError, match="'LEye' and 'eye left' both mean 'left_eye'"):
        match_names(["LEye", "eye left"], FACE)


def some(tmp_path, **edits) -> CocoFile:
    return read_any(save(tmp_path / "set.json", coco_annotator(**edits)))[0]


def test_remap_moves_values_with_their_names(tmp_path):
    coco = some(tmp_path, categories__0__keypoints=["REye", "tail", "Nose"], categories__0__skeleton=[[1, 2]])
    mapped, changes = remap(coco, FACE)
    assert mapped.annotations[0].keypoints == [0, 0, 0, 0, 0, 0, 30, 20, 2] and mapped.annotations[0].num_keypoints == 1
    assert mapped.annotations[1].keypoints == [70, 30, 2, 0, 0, 0, 30, 40, 2]
    assert skeleton_of(mapped, "face") == FACE and mapped.annotations[2] == coco.annotations[2]
    assert [c.name for c in coco.categories] == ["cat", "bowl"] and coco.annotations[0].keypoints[0] == 30
    assert "tail, labelled 2 times" in changes.lines[changes.severe[0]].example and len(changes.severe) == 1
    assert changes.lines["keypoint renamed"].count == 2
    assert changes.lines["keypoint is not in the file: v = 0 everywhere"].example == "left_eye"
    check_coco(mapped)


def test_another_category_of_the_skeletons_name_steps_aside(tmp_path):
    coco = some(tmp_path, categories__1__name="face")
    mapped, changes = remap(coco, FACE)
    assert [(c.id, c.name) for c in mapped.categories] == [(17, "face"), (23, "face_2")]
    assert skeleton_of(mapped, "face") == FACE and "face → face_2" in str(changes)


def test_the_same_skeleton_in_another_order_is_only_reordered(tmp_path):
    coco = some(tmp_path)
    there, _ = remap(coco, Skeleton("cat", ["right_eye", "nose", "left_eye"], [], [], [1, 1, 1]))
    back, changes = remap(there, FACE)
    assert not changes and [a.keypoints for a in back.annotations[:2]] == [a.keypoints for a in coco.annotations[:2]]


def test_remap_of_strangers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none of a, b, c is a keypoint of 'face'"):
        remap(some(tmp_path, categories__0__keypoints=["a", "b", "c"]), FACE)
    with pytest.raises(KeyError, match="no category 'dog'"):
        remap(some(tmp_path), FACE, category="dog")


def two_sets(tmp_path, names, **edits):
    first = read_any(save(tmp_path / "first.json", coco_annotator()))[0]
    edits = {"categories__0__name": "Cat", "categories__0__keypoints": names} | edits
    return first, read_any(save(tmp_path / "second.json", cvat(**edits)))[0]


def test_the_union_has_v_0_where_a_set_lacks_a_keypoint(tmp_path):
    first, second = two_sets(tmp_path, ["LEye", "tail", "nose"], categories__0__skeleton=[[1, 3], [2, 3]])
    merged, changes = merge_sets([first, second])
    cat = merged.categories[0]
    assert cat.keypoints == ["nose", "left_eye", "right_eye", "tail"] and len(merged.categories) == 2
    assert cat.skeleton == [(1, 2), (1, 3), (4, 1)]  # the link that both have stands there once
    assert merged.annotations[0].keypoints == [*first.annotations[0].keypoints, 0, 0, 0]
    assert merged.annotations[3].keypoints == [33.5, 12.0, 0, 20.5, 30.25, 2, 0, 0, 0, 55.0, 45.0, 1]
    assert [a.num_keypoints for a in merged.annotations if a.keypoints] == [2, 3, 2]
    assert [i.id for i in merged.images] == [1, 2, 3] and [a.id for a in merged.annotations] == [1, 2, 3, 4]
    assert [a.image_id for a in merged.annotations] == [1, 2, 2, 3]
    assert [merged.categories[a.category_id - 1].name for a in merged.annotations] == ["cat", "cat", "bowl", "cat"]
    assert [i.file_name for i in merged.images] == ["a.jpg", "b.jpg", "sub/a.jpg"]
    assert changes.lines["keypoint that a set does not have: v = 0 there"].count == 2
    assert "LEye → left_eye" in changes.lines["keypoint renamed"].example
    assert first.annotations[0].id == 900 and len(first.annotations[0].keypoints) == 9


def test_no_keypoint_of_any_person_is_lost_in_a_union(tmp_path):
    rng = np.random.default_rng(0)
    sets = []
    for n in range(3):
        names = [str(name) for name in rng.permutation(COCO17.keypoints)[: 5 + n]]
        keypoints = [v for k in range(len(names)) for v in (10 * n + k, k, k % 3)]
        data = cvat(
            categories__0__keypoints=names, annotations__0__keypoints=keypoints, images__0__file_name=f"{n}.jpg"
        )
        sets.append(read_any(save(tmp_path / f"{n}.json", data))[0])
    merged, _ = merge_sets(sets)
    union = merged.categories[0].keypoints
    for coco, a in zip(sets, merged.annotations):
        old = coco.annotations[0].keypoints
        for k, name in enumerate(coco.categories[0].keypoints):
            at = union.index(name)
            assert a.keypoints[3 * at : 3 * at + 3] == old[3 * k : 3 * k + 3]
        assert sum(a.keypoints[2::3]) == sum(old[2::3])


def test_sigmas_are_joined_where_both_bring_them(tmp_path):
    first, second = two_sets(tmp_path, ["nose", "tail", "left_eye"], categories__0__sigmas=[0.1, 0.2, 0.3])
    merged, changes = merge_sets([first, second])
    assert not merged.categories[0].sigmas and any("only one set brings sigmas" in rule for rule in changes.lines)
    first.categories[0].sigmas = [0.5, 0.6, 0.7]
    assert merge_sets([first, second])[0].categories[0].sigmas == [0.5, 0.6, 0.7, 0.2]


def test_names_of_pictures_are_kept_apart(tmp_path):
    first, second = two_sets(tmp_path, ["nose", "left_eye", "right_eye"], images__0__file_name="a.jpg")
    merged, changes = merge_sets([first, second])
    assert [i.file_name for i in merged.images] == ["first/a.jpg", "first/b.jpg", "second/a.jpg"]
    assert any("stands in several sets" in rule for rule in changes.lines)
    merged, changes = merge_sets([first, second], ["x", ""])
    assert [i.file_name for i in merged.images] == ["x/a.jpg", "x/b.jpg", "a.jpg"] and not changes.severe
    _, changes = merge_sets([first, second], ["", ""])
    assert changes.severe == ["picture that several sets bring: --same_images makes it one"]
    merged, changes = merge_sets([first, second], same_images=True)
    assert [i.file_name for i in merged.images] == ["a.jpg", "b.jpg"] and merged.annotations[3].image_id == 1
    second.images[0].width = 99
    with pytest.raises(ValueError, match="a.jpg has 99×80 pixels, in an earlier set 100×80"):
        merge_sets([first, second], same_images=True)
    with pytest.raises(ValueError, match="2 data sets and 1 folders"):
        merge_sets([first, second], ["x"])
    with pytest.raises(ValueError, match="0 data sets"):
        merge_sets([])


def test_a_set_without_keypoints_takes_those_of_the_other(tmp_path):
    first, second = two_sets(tmp_path, ["nose", "left_eye", "right_eye"])
    first.categories[0].keypoints = first.categories[0].skeleton = []
    for a in first.annotations:
        a.keypoints = []
    merged, _ = merge_sets([first, second])
    assert merged.categories[0].keypoints == ["nose", "left_eye", "right_eye"]
    assert merged.annotations[3].keypoints == second.annotations[0].keypoints
