"""Statistics of pairs: by hand, of mirror images and of a training set; the published files in both of their forms."""

from __future__ import annotations

import warnings
from itertools import permutations

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from lib.codecs.parts import PartsCodec
from lib.data.dataset import CocoKeypoints
from lib.data.pair_statistics import (
    LEAST,
    NEVER_SEEN,
    of_training_set,
    pair_statistics,
    read_pair_stats,
    write_pair_stats,
)
from lib.data.scaled import ScaledPictures, ScaleJitter
from lib.data.synthetic import write_dataset
from lib.skeleton import COCO17, Skeleton

FEET = Skeleton("feet", ("head", "left_foot", "right_foot"), ((0, 1), (0, 2)), ((1, 2),), (0.05,) * 3)
PAIRS = list(permutations(range(3), 2))


def people():
    """Head in the middle above, feet 10 and 30 to the left and to the right; of the third the right one is missing."""
    return np.array([[[50, 0, 2], [60, 100, 2], [40, 100, 1]], [[50, 0, 2], [80, 80, 2], [20, 80, 2]],
                     [[50, 0, 2], [70, 90, 2], [7, 7, 0]]], float)  # fmt: skip


def test_mean_and_spread_by_hand():
    rows = dict(zip(PAIRS, pair_statistics(people(), FEET)))
    ways = np.array([[10, 100], [30, 80], [20, 90]])
    np.testing.assert_allclose(rows[0, 1], [*ways.mean(axis=0), *ways.std(axis=0)])
    np.testing.assert_allclose(rows[1, 0], rows[0, 1] * (-1, -1, 1, 1))
    # two people have both feet, at one height: nothing can be measured in a spread of 0
    np.testing.assert_allclose(rows[1, 2], [-40, 0, 20, LEAST])


def test_mirror_images_count_too():
    rows = dict(zip(PAIRS, pair_statistics(people(), FEET, flip=True)))
    ways = np.array([[10, 100], [30, 80], [20, 90], [10, 100], [30, 80]])
    np.testing.assert_allclose(rows[0, 1], [*ways.mean(axis=0), *ways.std(axis=0)])
    np.testing.assert_allclose(rows[0, 2], rows[0, 1] * (-1, 1, 1, 1))


def test_pairs_never_seen_are_named_once():
    found = people()
    found[:, 2, 2] = 0
    with pytest.warns(UserWarning, match="nobody in the labels has the pairs head–right_foot, left_foot–right_foot: ") as seen:
        rows = dict(zip(PAIRS, pair_statistics(found, FEET)))
    assert len(seen) == 1 and tuple(rows[0, 2]) == tuple(rows[2, 1]) == NEVER_SEEN
    with pytest.warns(UserWarning):
        PartsCodec(FEET, pair_stats=pair_statistics(np.zeros((0, 3, 3)), FEET))
    with warnings.catch_warnings(action="error"):
        assert pair_statistics(np.zeros((2, 1, 3)), Skeleton("dot", ("dot",), (), (), (0.05,))).shape == (0, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("set") / "synthetic", 6, 2, workers=1)


def annotations(folder):
    return folder / "annotations/person_keypoints_train.json", folder / "train"


@pytest.mark.parametrize("kind", [CocoKeypoints, ScaledPictures])
def test_of_a_training_set_in_pixels_of_the_input(folder, kind):
    options = {"input_size": (128, 128)} if kind is CocoKeypoints else {"augment": ScaleJitter(0.5, (0.5, 1.5), 1, None, 1)}
    data = kind(*annotations(folder), **options)
    rows = of_training_set(data, flip=False)
    whole = [CocoKeypoints(*annotations(folder), input_size=(256, 256)).keypoints(i) for i in range(len(data))]
    np.testing.assert_allclose(rows[:, :2], pair_statistics(np.concatenate(whole), data.skeleton)[:, :2] / 2, atol=1e-3)
    # without being told, as training mirrors
    mirrored = of_training_set(data)
    twins = {pair: row for pair, row in zip(permutations(data.skeleton.keypoints, 2), mirrored)}
    same = np.allclose(twins["nose", "left_wrist"], twins["nose", "right_wrist"] * (-1, 1, 1, 1), atol=1e-3)
    assert same == (kind is ScaledPictures)


def test_nobody_to_measure_is_said(folder):
    data = CocoKeypoints(*annotations(folder), limit=1)
    data.keypoints = lambda index: np.zeros((1, 17, 3))
    with pytest.raises(ValueError, match="none of the 1 people in 1 training samples has two labelled keypoints"):
        of_training_set(data)


def test_published_files_come_back(tmp_path):
    rows = pair_statistics(people(), FEET)
    path = write_pair_stats(tmp_path / "stats.mat", rows, FEET)
    assert loadmat(path)["graph"].tolist() == [list(pair) for pair in PAIRS]
    np.testing.assert_array_equal(read_pair_stats(path, FEET), rows)
    np.testing.assert_allclose(read_pair_stats(path, FEET, scale=0.5), rows / 2)
    assert write_pair_stats(tmp_path / "again.mat", rows, FEET).read_bytes() == path.read_bytes()


def test_files_of_the_caffe_version_count_from_one_and_go_one_way(tmp_path):
    rows = dict(zip(PAIRS, pair_statistics(people(), FEET)))
    one_way = [(0, 1), (0, 2), (1, 2)]
    content = {"graph": np.array(one_way) + 1.0, "means": [rows[p][:2] for p in one_way], "std_devs": [rows[p][2:] for p in one_way]}
    savemat(tmp_path / "caffe.mat", content)
    np.testing.assert_allclose(read_pair_stats(tmp_path / "caffe.mat", FEET), [rows[pair] for pair in PAIRS])
    savemat(tmp_path / "few.mat", {name: values[:2] for name, values in content.items()})
    with pytest.raises(ValueError, match="few.mat lacks .* 1–2"):
        raise_warnings(lambda: read_pair_stats(tmp_path / "few.mat", Skeleton("three", ("0", "1", "2"), (), (), (0.05,) * 3)))


def raise_warnings(call):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    raise ValueError(str(seen[0].message))


def test_other_files_are_refused(tmp_path):
    savemat(tmp_path / "other.mat", {"dataset": 1})
    with pytest.raises(ValueError, match="other.mat: no statistics of pairs: .* it has dataset"):
        read_pair_stats(tmp_path / "other.mat", FEET)
    write_pair_stats(tmp_path / "stats.mat", np.ones((272, 4)), COCO17)
    with pytest.raises(ValueError, match="stats.mat: the graph is not of pairs of the 3 keypoints"):
        read_pair_stats(tmp_path / "stats.mat", FEET)
    with pytest.raises(FileNotFoundError):
        read_pair_stats(tmp_path / "none.mat", FEET)
