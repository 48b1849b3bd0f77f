"""What the maps of pairs say of two detections: channels, features and probabilities, against arithmetic by hand."""

from itertools import combinations, permutations

import numpy as np
import pytest

from lib.codecs import parts_pairs
from lib.codecs.parts_decode import unscaled

SAME_PART = (0.2, 7.5)
RULE = (4.0, 4.0, 0.0)


class Two:
    """Detections 0 and 1 of keypoints 0 and 1 (of 2), cells of 8 pixels, in maps that say what `told` says."""

    parts = np.array([0, 1])
    cells = np.array([[2, 1], [5, 3]])  # x, y

    def __init__(self, places=((20.0, 12.0), (44.0, 28.0)), forward=(0, 0), backward=(0, 0)):
        self.centres = self.cells * 8.0 + 3.5
        self.places = np.array(places)
        self.stats = np.ones((2, 2, 4))
        self.stats[0, 1], self.stats[1, 0] = (20, 10, 4, 2), (-20, -10, 4, 2)
        self.pairwise = np.full((4, 6, 8), np.nan, np.float32)
        self.pairwise[:2, 1, 2], self.pairwise[2:, 3, 5] = forward, backward

    def features(self):
        return parts_pairs.features(
            np.array([[0, 1]]), self.parts, self.cells, self.centres, self.places, self.pairwise, self.stats
        )[0]

    def probability(self, rule=RULE, fitted=None, weights=None):
        fitted = np.zeros((2, 2), bool) if fitted is None else fitted
        weights = np.zeros((2, 2, 9)) if weights is None else weights
        return parts_pairs.probabilities(np.array([[0, 1]]), self.parts, self.cells, self.centres, self.places, self.pairwise,
                                         self.stats, rule, SAME_PART, fitted, weights)[0]  # fmt: skip


@pytest.mark.parametrize("k", [2, 3, 17])
def test_pairs_are_numbered_as_permutations(k):
    assert [parts_pairs.pair_index(a, b, k) for a, b in permutations(range(k), 2)] == list(range(k * (k - 1)))


def test_features_by_hand():
    # from the centre (19.5, 11.5) to the place (44, 28) it is (24.5, 16.5), from (43.5, 27.5) to (20, 12) (−23.5, −15.5)
    two = Two(forward=(0.5, 1.0), backward=(-1.0, 0.25))
    f = two.features()
    told = np.array([[22, 12], [-24, -9.5]])
    way = np.array([[24.5, 16.5], [-23.5, -15.5]])
    angle = lambda v: np.arctan2(v[:, 1], v[:, 0])
    np.testing.assert_allclose(f[[0, 2]], np.hypot(*(way - told).T))
    np.testing.assert_allclose(f[[1, 3]], np.abs(angle(way) - angle(told)))
    np.testing.assert_allclose(f[4:], np.exp(-f[:4]))


def test_angles_never_exceed_half_a_turn():
    # the way is nearly to the left, a little up; the maps say to the left, a little down
    two = Two(places=((20.0, 12.0), (0.0, 11.0)), forward=(-10, -4.75), backward=(0, 0))
    assert two.features()[1] == pytest.approx(np.arctan2(0.5, 19.5) + np.arctan2(0.5, 20))


def test_the_rule_without_a_regression():
    # both directions are off by one standard deviation: one half
    forward, backward = (24.5 - 20 + 4) / 4, (-23.5 + 20 - 4) / 4
    two = Two(forward=(forward, (16.5 - 10) / 2), backward=(backward, (-15.5 + 10) / 2))
    assert two.probability() == pytest.approx(0.5, abs=1e-6)
    # the width makes standard deviations √(4² + 3²) = 5 of 4
    assert two.probability((4.0, 4.0, 3.0)) == pytest.approx(1 / (1 + np.exp(4 * 0.8 - 4)), abs=1e-6)


def test_detections_of_one_keypoint_are_judged_by_their_distance():
    two = Two(places=((20.0, 12.0), (20.0, 49.5)))
    two.parts = np.array([1, 1])
    assert two.probability() == pytest.approx(0.5)
    two.places[1, 1] = 5000
    assert two.probability() == 0


def test_regressions_see_features_scaled_as_in_training():
    rng = np.random.default_rng(0)
    low, high, weights = rng.uniform(0, 1, 8), rng.uniform(2, 50, 8), rng.normal(0, 2, 9)
    table, fitted = np.zeros((2, 2, 9)), np.array([[False, True], [False, False]])
    table[0, 1] = unscaled(np.concatenate([low, high, weights]))
    two = Two(forward=(0.5, 1.0), backward=(-1.0, 0.25))
    scaled = np.append((two.features() - low) / (high - low), 1)
    assert two.probability(fitted=fitted, weights=table) == pytest.approx(1 / (1 + np.exp(-scaled @ weights)))


def test_a_feature_that_never_varied_says_nothing():
    row = np.concatenate([np.zeros(8), np.append(np.ones(7), 0), np.arange(1, 10)])
    np.testing.assert_array_equal(unscaled(row), [1, 2, 3, 4, 5, 6, 7, 0, 9])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_never_joins(bad):
    fitted, weights = np.array([[False, True], [False, False]]), np.zeros((2, 2, 9))
    weights[0, 1] = 1
    two = Two(forward=(bad, 0))
    assert two.probability() == 0
    for sign in (1, -1):
        assert two.probability(fitted=fitted, weights=sign * weights) == 0


def test_only_wanted_pairs_are_asked():
    parts = np.array([0, 0, 1, 2, 2])
    everything = np.triu(np.ones((3, 3), bool))
    np.testing.assert_array_equal(parts_pairs.edges_between(parts, everything), [*combinations(range(5), 2)])
    wanted = np.eye(3, dtype=bool)
    wanted[0, 2] = True
    edges = parts_pairs.edges_between(parts, wanted)
    np.testing.assert_array_equal(edges, [(0, 1), (0, 3), (0, 4), (1, 3), (1, 4), (3, 4)])
    assert parts_pairs.edges_between(np.zeros(0, np.int64), wanted).shape == (0, 2)
