import numpy as np
import pytest

from lib.data.clip import render_clip
from lib.data.video import Video, write_video
from lib.skeleton import COCO17


def test_the_same_arguments_give_the_same_frames():
    once, twice = (list(render_clip(4, 2, seed=3)) for _ in range(2))
    for (image, people), (other, same) in zip(once, twice):
        np.testing.assert_array_equal(image, other)
        np.testing.assert_array_equal(people.keypoints, same.keypoints)
    assert once[0][0].shape == (270, 480, 3) and once[0][0].dtype == np.uint8
    assert (next(render_clip(4, 2, seed=4))[0] != once[0][0]).any()


@pytest.mark.parametrize("seed", range(3))
def test_two_meet_in_the_middle_and_go_past_each_other(seed):
    clip = [people for _, people in render_clip(60, 2, seed=seed)]
    noses = np.array([people.keypoints[:, COCO17.index("left_hip"), 0] for people in clip])
    left = noses[:, 0] < noses[:, 1]
    assert left[24] != left[35]
    hidden = [(people.keypoints[:, :, 2] == 1).sum(axis=1).max() for people in clip]
    assert max(hidden[26:34]) >= 10 > min(hidden)  # one is behind the other
    assert all(people.ids.tolist() == [1, 2] for people in clip)
    heights = clip[0].boxes[:, 3]
    assert abs(heights[0] - heights[1]) > 20  # at different depths


def test_people_move_smoothly_and_swing_their_limbs():
    keypoints = np.array([people.keypoints for _, people in render_clip(30, 2, seed=1)])
    steps = np.linalg.norm(np.diff(keypoints[..., :2], axis=0), axis=-1)
    assert 2 < steps.mean() < 8 and steps.max() < 25
    ankles = [COCO17.index("left_ankle"), COCO17.index("right_ankle")]
    apart = keypoints[:, 0, ankles[0], 0] - keypoints[:, 0, ankles[1], 0]
    assert apart.max() > 20 and apart.min() < -20


def test_only_people_and_their_shadows_change():
    frames = list(render_clip(12, 1, seed=2, noise=0))
    around = np.ones(frames[0][0].shape[:2], bool)
    for _, people in frames:
        x, y, w, h = people.boxes[0].round().astype(int)
        around[max(y - 4, 0) : y + h + 20, max(x - 30, 0) : x + w + 30] = False
    assert around.mean() > 0.3
    np.testing.assert_array_equal(frames[0][0][around], frames[-1][0][around])


@pytest.mark.parametrize("count", [0, 1, 5, 20])
def test_any_number_of_people(count):
    image, people = next(render_clip(1, count, crossing=False, height=(0.3, 0.6)))
    assert len(people) == count and people.keypoints.shape[1:] == (17, 3) and image.shape == (270, 480, 3)
    if count > 1:
        x = people.boxes[:, 0] + people.boxes[:, 2] / 2
        assert (np.diff(x) > -10).all()  # everybody in a strip of his own, from left to right


def test_long_clips_turn_round_inside_the_picture():
    keypoints = np.array([people.keypoints for _, people in render_clip(40, 2, rate=2)])
    assert (keypoints[..., 2] > 0).mean() > 0.95


def test_video(tmp_path):
    expected = [image for image, _ in render_clip(5, 1, (128, 160), seed=1, rate=10)]
    frames = list(Video(write_video(tmp_path / "clip.mp4", expected, 10)).frames())
    assert [round(frame.time, 3) for frame in frames] == [0, 0.1, 0.2, 0.3, 0.4]
    assert np.abs(frames[3].image.astype(int) - expected[3]).mean() < 6


def test_impossible_numbers():
    for options in ({"people": -1}, {"size": (10, 10)}, {"rate": 0}, {"height": (0.9, 0.5)}):
        with pytest.raises(ValueError, match="a clip needs"):
            next(render_clip(1, **options))
