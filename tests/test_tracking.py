import numpy as np
import pytest

from lib import ROOT
from lib.data.clip import render_clip
from lib.people import People, oks
from lib.predict import Predictor
from lib.skeleton import BUILT_IN, COCO17, COCO18_NECK, Skeleton
from lib.tracking import PUBLISHED_SMOOTHING, Filtered, OneEuro, Tracker

OPENPOSE18 = BUILT_IN["openpose18"]
BODY = np.random.default_rng(1).uniform((0, 0), (60, 180), (17, 2))  # one person's keypoints, pixels


def people_at(*places, noise=0.0, rng=None, missing=0.0) -> People:
    """Copies of one body at (x, y), shaken, some of their keypoints not found."""
    keypoints = np.ones((len(places), 17, 3))
    keypoints[..., :2] = BODY + np.reshape(places, (-1, 1, 2))
    if rng is not None:
        keypoints[..., :2] += rng.normal(0, noise, (len(places), 17, 2))
        keypoints[rng.random(keypoints.shape[:2]) < missing] = 0
    return People(keypoints, np.ones(len(places)))


def crossing(frames=60, noise=1.5, missing=0.1, hidden=range(0), skip=1, seed=0):
    """(time, who, people): two walk through each other at frame 30; number 1 is behind and not found in `hidden`."""
    rng = np.random.default_rng(seed)
    for f in range(0, frames, skip):
        who = [0] if f in hidden else [0, 1]
        places = [[(6 * f, 0), (360 - 6 * f, -12)][p] for p in who]
        who, places = (who, places) if rng.random() < 0.5 else (who[::-1], places[::-1])
        yield f / 30, who, people_at(*places, noise=noise, rng=rng, missing=missing)


def ids_of_everybody(frames, tracker) -> dict[int, set[int]]:
    ids: dict[int, set[int]] = {}
    for time, who, people in frames:
        for person, track in zip(who, tracker(people, time).ids.tolist()):
            ids.setdefault(person, set()).add(track)
    return ids


class TestIds:
    def test_from_one_up_in_order_of_appearance_and_never_again(self):
        tracker = Tracker(COCO17, max_gap=0.5)
        assert tracker(people_at((0, 0), (300, 0)), 0).ids.tolist() == [1, 2]
        third = tracker(people_at((900, 0), (300, 0), (0, 0)), 0.1)
        assert third.ids.tolist() == [3, 2, 1] and third.ids.dtype == np.int64
        assert tracker(People.empty(17), 1).ids.tolist() == []
        assert tracker(people_at((0, 0)), 1.1).ids.tolist() == [4]  # all were gone for longer than max_gap
        tracker.reset()
        assert tracker(people_at((0, 0)), 0).ids.tolist() == [1]

    @pytest.mark.parametrize("hidden, skip", [(range(0), 1), (range(26, 36), 1), (range(0), 4), (range(24, 38), 2)])
    def test_two_who_cross_keep_theirs(self, hidden, skip):
        for seed in range(8):
            ids = ids_of_everybody(crossing(hidden=hidden, skip=skip, seed=seed), Tracker(COCO17))
            assert sorted(map(sorted, ids.values())) == [[1], [2]]

    def test_those_who_cross_are_no_easy_prey(self):
        ids = ids_of_everybody(crossing(hidden=range(26, 36)), Tracker(COCO17, rule="published"))
        assert max(map(len, ids.values())) > 1

    def test_times_may_be_irregular_and_the_same_may_come_again(self):
        tracker, rng = Tracker(COCO17), np.random.default_rng(0)
        for time in np.cumsum(rng.uniform(0, 0.3, 40)):
            for _ in range(2):
                assert tracker(people_at((150 * time, 0)), time).ids.tolist() == [1]

    def test_the_same_people_twice_get_the_same(self):
        twice = [[tracker(p, time) for time, _, p in crossing()] for tracker in (Tracker(COCO17), Tracker(COCO17))]
        for a, b in zip(*twice):
            np.testing.assert_array_equal(a.ids, b.ids)
            np.testing.assert_array_equal(a.keypoints, b.keypoints)

    def test_scraps_start_no_track(self):
        people = people_at((0, 0), (300, 0), (600, 0))
        people.keypoints[1, 4:] = 0
        people.scores[2] = 0.1
        found = Tracker(COCO17, min_score=0.2)(people, 0)
        assert found.ids.tolist() == [1, 0, 0] and len(found) == 3
        assert Tracker(COCO17, min_keypoints=4)(people, 0).ids.tolist() == [1, 2, 3]

    def test_somebody_else_far_away_is_somebody_else(self):
        tracker = Tracker(COCO17)
        tracker(people_at((0, 0)), 0)
        assert tracker(people_at((700, 0)), 0.2).ids.tolist() == [2]

    def test_any_skeleton(self):
        dot = Skeleton("dot", ["dot"], [], [], [0.05])
        tracker = Tracker(dot)
        for f in range(20):
            found = tracker(People([[[f, 0, 1]], [[100 - f, 50, 1]]], [1, 1]), f / 30)
            assert found.ids.tolist() == [1, 2]

    def test_memory_stays_bounded(self):
        tracker, rng = Tracker(COCO17, max_gap=0.2), np.random.default_rng(0)
        for f in range(300):
            tracker(people_at(*rng.uniform(0, 1e5, (3, 2))), f / 30)
        assert len(tracker._tracks.ids) <= 3 * 8 and tracker(people_at((0, 0)), 10).ids[0] > 800


class TestInput:
    def test_keypoints_that_are_no_numbers_were_not_found(self):
        tracker, people = Tracker(COCO17), people_at((0, 0), (300, 0))
        people.keypoints[0, 3, 0], people.keypoints[1, :, 1] = np.nan, np.inf
        found = tracker(people, 0)
        assert found.ids.tolist() == [1, 0] and np.isfinite(found.keypoints).all()
        assert found.keypoints[0, 3].tolist() == [0, 0, 0] and np.isnan(people.keypoints[0, 3, 0])
        assert tracker(people_at((0, 0)), 0.1).ids.tolist() == [1]

    def test_people_stay_as_they_are_but_for_ids_and_places(self):
        people = people_at((0, 0), (300, 0), missing=0.3, rng=np.random.default_rng(0))
        people.boxes = people.boxes_around_keypoints()
        before = people.keypoints.copy()
        found = Tracker(COCO17)(people, 0)
        np.testing.assert_array_equal(people.keypoints, before)
        np.testing.assert_array_equal(found.keypoints[..., 2], before[..., 2])
        assert found.boxes is people.boxes and people.ids is None

    def test_time_goes_forwards(self):
        tracker = Tracker(COCO17)
        tracker(people_at((0, 0)), 2)
        with pytest.raises(ValueError, match=r"from 2 s to 1\.5 s: call reset\(\)"):
            tracker(people_at((0, 0)), 1.5)
        with pytest.raises(ValueError, match="seconds, got nan"):
            tracker(people_at((0, 0)), np.nan)

    def test_another_skeleton_and_impossible_options(self):
        with pytest.raises(ValueError, match="17 keypoints, the tracker's skeleton 'person' has 18"):
            Tracker(COCO18_NECK)(people_at((0, 0)), 0)
        for options in ({"max_gap": -1}, {"min_similarity": 1}, {"min_keypoints": 18}, {"rule": "best"}):
            with pytest.raises(ValueError, match="got|not 'best'"):
                Tracker(COCO17, **options)
        with pytest.raises(ValueError, match="One-Euro"):
            OneEuro(min_cutoff=0)


class TestPublishedRule:
    def test_equals_the_rule_in_plain_python(self):
        for seed in range(6):
            rng = np.random.default_rng(seed)
            tracker, previous, next_id = Tracker(OPENPOSE18, rule="published", smoothing=None), [], 1
            shapes, places = rng.uniform(0, (60, 160), (6, 18, 2)), rng.uniform(0, 300, (6, 1, 2))
            for f in range(40):
                places += rng.normal(0, 6, places.shape)
                who = rng.permutation(6)[: rng.integers(0, 7)]
                points = np.rint(shapes[who] + places[who])
                found = rng.random(points.shape[:2]) > 0.25
                scores = rng.uniform(3, 20, len(who))
                people = People(np.concatenate([points, found[..., None]], axis=2), scores)
                previous, next_id = published(previous, people, next_id, OPENPOSE18.sigmas)
                assert tracker(people, f / 15).ids.tolist() == [track for track, _ in previous]

    def test_forgets_at_once(self):
        tracker = Tracker(COCO17, rule="published")
        assert tracker(people_at((0, 0)), 0).ids.tolist() == [1]
        assert len(tracker(People.empty(17), 0.1)) == 0
        assert tracker(people_at((0, 0)), 0.2).ids.tolist() == [2]


def published(previous, people, next_id, sigmas):
    """Greedy matching with the previous frame: at least three keypoints with a similarity above one half."""
    result, free = [None] * len(people), list(previous)
    for p in sorted(range(len(people)), key=lambda p: -people.scores[p]):
        alike = [sum(similar(people.keypoints[p], old, sigmas)) for _, old in free]
        best = int(np.argmax(alike)) if alike else 0
        if alike and alike[best] >= 3:
            result[p] = (free.pop(best)[0], people.keypoints[p])
        else:
            result[p] = (next_id, people.keypoints[p])
            next_id += 1
    return result, next_id


def similar(a, b, sigmas):
    area = max(np.prod(np.ptp(k[k[:, 2] > 0, :2], axis=0) + 1) for k in (a, b))
    for k, sigma in enumerate(sigmas):
        if a[k, 2] and b[k, 2]:
            yield np.exp(-np.sum((a[k, :2] - b[k, :2]) ** 2) / (2 * area * (2 * sigma) ** 2)) > 0.5


class TestSmoothing:
    def test_equals_one_filter_after_the_other(self):
        rng = np.random.default_rng(0)
        walk = rng.normal(0, 3, (80, 2, 3, 2)).cumsum(axis=0)
        state = Filtered.start(2, 3)
        plain = [[[PlainOneEuro() for _ in range(2)] for _ in range(3)] for _ in range(2)]
        for points in walk:
            state = PUBLISHED_SMOOTHING(state, points, np.ones((2, 3), bool), np.ones(2), np.ones(2))
            expected = [[[plain[t][k][c](points[t, k, c]) for c in range(2)] for k in range(3)] for t in range(2)]
            np.testing.assert_allclose(state.points, expected, atol=1e-9)

    def test_still_people_are_calmed_and_walking_ones_do_not_lag(self):
        rng, tracker, raw, smooth, lag = np.random.default_rng(0), Tracker(COCO17), [], [], []
        for f in range(120):
            people = people_at((0, 0), (4 * f, 300), noise=1.5, rng=rng)
            found = tracker(people, f / 30)
            raw.append(people.keypoints[0, :, :2] - BODY)
            smooth.append(found.keypoints[0, :, :2] - BODY)
            lag.append((found.keypoints[1, :, 0] - BODY[:, 0] - 4 * f).mean())
        assert np.std(smooth[20:]) < 0.75 * np.std(raw[20:])
        assert abs(np.mean(lag[20:])) < 3

    def test_size_of_the_picture_does_not_matter(self):
        found = []
        for scale in (1, 4):
            rng, tracker = np.random.default_rng(0), Tracker(COCO17)
            for f in range(30):
                people = people_at((4 * f, 0), noise=2, rng=rng)
                people.keypoints[..., :2] *= scale
                last = tracker(people, f / 30).keypoints[0, :, :2] / scale
            found.append(last)
        np.testing.assert_allclose(*found, atol=0.2)

    def test_a_keypoint_that_was_absent_begins_anew(self):
        tracker, rng = Tracker(COCO17), np.random.default_rng(0)
        for f in range(10):
            tracker(people_at((0, 0), noise=2, rng=rng), f / 30)
        gone = people_at((0, 0))
        gone.keypoints[0, 5] = 0
        assert tracker(gone, 10 / 30).keypoints[0, 5].tolist() == [0, 0, 0]
        back = people_at((10, 0))
        found = tracker(back, 11 / 30)
        np.testing.assert_allclose(found.keypoints[0, 5], back.keypoints[0, 5])
        assert np.abs(found.keypoints[0, 6] - back.keypoints[0, 6]).max() > 0.2

    def test_may_be_left_off(self):
        tracker, rng = Tracker(COCO17, smoothing=None), np.random.default_rng(0)
        for f in range(5):
            people = people_at((0, 0), noise=2, rng=rng)
            np.testing.assert_array_equal(tracker(people, f / 30).keypoints, people.keypoints)


class PlainOneEuro:
    """One coordinate, as in the paper; 15 frames per second, cutoffs 1 Hz, beta 0.05."""

    def __init__(self):
        self.raw = self.value = None
        self.speed = 0.0

    def __call__(self, x):
        alpha = lambda cutoff: 1 / (1 + 15 / (2 * np.pi * cutoff))
        if self.raw is None:
            self.raw = self.value = x
            return x
        self.speed += alpha(1) * ((x - self.raw) * 15 - self.speed)
        self.value += alpha(1 + 0.05 * abs(self.speed)) * (x - self.value)
        self.raw = x
        return self.value


@pytest.fixture(scope="module")
def clip():
    """(truth, people found by the small trained network), frame by frame, of two who cross."""
    frames = list(render_clip(52, 2, seed=6, rate=12.5))[14:38]
    found = Predictor(ROOT / "pretrained/trt_pose_mini.safetensors")([image for image, _ in frames])
    return [(truth, people) for (_, truth), people in zip(frames, found)]


class TestPeopleFoundByTheTrainedNetwork:
    def test_two_who_cross_keep_their_ids(self, clip):
        tracker, ids, hidden = Tracker(COCO18_NECK), {1: [], 2: []}, 0
        for f, (truth, people) in enumerate(clip):
            found = tracker(people, f / 12.5)
            alike = oks(truth.keypoints, np.concatenate([people.keypoints[:, :17]]), np.prod(truth.boxes[:, 2:], axis=1)[:1]
                        .repeat(len(people)), COCO17.sigmas)  # fmt: skip
            hidden += len(people) < 2
            for person in range(2):
                if len(people) and alike[person].max() > 0.5:
                    ids[person + 1].append(int(found.ids[alike[person].argmax()]))
        assert hidden  # they really pass behind each other
        assert {frozenset(seen) for seen in ids.values()} == {frozenset({1}), frozenset({2})}
        assert min(map(len, ids.values())) > len(clip) / 2

    def test_the_same_clip_twice_gives_the_same_ids(self, clip):
        tracker = Tracker(COCO18_NECK)
        once = [tracker(people, f / 12.5).ids.tolist() for f, (_, people) in enumerate(clip)]
        tracker.reset()
        assert once == [tracker(people, f / 12.5).ids.tolist() for f, (_, people) in enumerate(clip)]
