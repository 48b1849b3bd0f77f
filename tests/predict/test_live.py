"""The live view without a browser: what the sliders, the buttons and the thread do."""

import threading
import time

import cv2
import numpy as np
import pytest

from lib import ROOT
from lib.data.camera import Camera
from lib.data.clip import render_clip
from lib.data.video import write_video
from lib.people import People
from lib.predict import Predictor
from lib.predict.fitting import on_picture
from lib.predict.live import LiveView, stop_all
from lib.tracking import OneEuro, Tracker

MODEL = ROOT / "pretrained/trt_pose_mini.safetensors"


@pytest.fixture(scope="module")
def predictor():
    return Predictor(MODEL)


@pytest.fixture(scope="module")
def clip():
    return [image for image, _ in render_clip(8, 2, (136, 240))]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    stop_all()
    assert not [t for t in threading.enumerate() if t.name in ("live view", "overlapped", "camera")]


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class Counted(Predictor):
    """Counts how often the network runs."""

    calls = 0

    def answers(self, batch):
        type(self).calls += len(batch)
        return super().answers(batch)


def test_steps_show_each_frame_with_its_people(predictor, clip):
    view, tracker = LiveView(predictor, clip), Tracker(predictor.skeleton)
    assert view.frame is None and view.index == -1
    for i, people in enumerate(predictor(clip)):
        assert view.step()
        expected = tracker(people, i / 25)
        assert np.array_equal(view.people.keypoints, expected.keypoints) and np.array_equal(view.people.ids, expected.ids)
        assert view.index == view.position.value == i and view.frame.shape == clip[0].shape
        shown = cv2.imdecode(np.frombuffer(view.screen.value, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(shown.astype(int) - view.frame).mean() < 8
    assert not view.step() and "last frame" in view.status.value and view.index == 7
    assert view.step() and view.index == 0, "after the end it begins again"
    assert {"read", "prepare", "network", "decode", "track", "draw", "send"} == set(view.times.median)


def test_sliders_read_the_same_maps_again_without_the_network(clip):
    predictor = Counted(MODEL)
    view = LiveView(predictor, clip[:2])
    view.step()
    view.step()  # the last frame: the network is not at work on another one already
    frame, codec = view.frame, predictor.codec
    found = len(view.people)
    assert found >= 1
    view.peak_threshold.value = 1.0
    assert len(view.people) == 0 and (view.frame != frame).any()
    view.peak_threshold.value = codec.peak_threshold
    assert len(view.people) == found and np.array_equal(view.frame, frame), "the tracker did not see the frame twice"
    keypoints = (view.people.keypoints[..., 2] > 0).sum()
    view.link_threshold.value = 1.0
    assert (view.people.keypoints[..., 2] > 0).sum() < keypoints, "torn apart"
    view.link_threshold.value = codec.link_threshold
    frame = view.frame
    view.link_threshold.value = codec.link_threshold - 1e-12
    assert view.frame is frame, "what browsers make of 0.1 is no other threshold"
    view.person_score.value = 1.0
    assert len(view.people) == 0
    view.person_score.value = 0.0
    view.keypoint_score.value = 1.0
    assert len(view.people) == found and np.array_equal(view.frame, clip[1]), "nothing is sure enough to be drawn"
    assert Counted.calls == 2 and predictor.codec == codec, "the predictor stays as it was"
    view.peak_threshold.value = 1.0
    assert not view.step() and view.step() and view.index == 0
    assert len(view.people) == 0, "a threshold holds for the next frames, too"


def test_layers_and_checkboxes(predictor, clip):
    view = LiveView(predictor, clip)
    view.step()
    people = view.frame
    view.skeletons.value = False
    assert np.array_equal(view.frame, clip[0])
    pictures = [people]
    for layer in ("heatmaps", "fields"):
        view.layer.value = layer
        pictures.append(view.frame)
    assert all((a != b).any() for a in pictures for b in pictures if a is not b)
    view.layer.value, view.skeletons.value, view.tracking.value = "picture", True, False
    view.step()
    assert view.people.ids is None
    assert np.array_equal(view.people.keypoints, predictor([clip[1]])[0].keypoints)


def test_smoothing_can_be_switched_and_the_tracker_given_stays_as_it_was(predictor, clip):
    tracker = Tracker(predictor.skeleton, smoothing=OneEuro(min_cutoff=0.1, beta=0))
    view = LiveView(predictor, clip, tracker)
    view.step()
    view.step()
    calm = view.people.keypoints
    view.smoothing.value = False
    assert np.array_equal(view.people.keypoints, predictor([clip[1]])[0].keypoints) and len(view.people.ids)
    view.smoothing.value = True
    assert np.array_equal(view.people.keypoints, calm)
    assert tracker(People.empty(predictor.skeleton.num_keypoints), 0.0) is not None, "it has seen no time yet"


def test_any_frame_of_a_video_and_wide_pictures_made_smaller(predictor, clip, tmp_path):
    path = write_video(tmp_path / "walk.mp4", [image for image, _ in render_clip(10, 2, (136, 240))])
    view = LiveView(predictor, path, width=120)
    view.step()
    assert view.frame.shape == (68, 120, 3) and view.position.max == 9
    for index in (7, 2, 9):
        view.position.value = index
        assert view.index == index
        expected = predictor([view._seen.image])[0]
        assert np.allclose(view.people.keypoints, expected.keypoints), "in pixels of the video"
    view.play()
    wait_for(lambda: not view.playing)
    assert view.error is None and view.index == 9 and view.play_button.value is False


def test_a_folder_of_pictures_is_not_tracked(predictor, clip, tmp_path):
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"{i}.png"), clip[i][..., ::-1])
    view = LiveView(predictor, tmp_path)
    assert view.step() and view.step() and view.people.ids is None and view.index == 1
    assert np.array_equal(view.people.keypoints, predictor([clip[1]])[0].keypoints)


def test_play_goes_on_while_the_kernel_does_other_things_until_it_is_paused(predictor, clip):
    view = LiveView(predictor, clip * 100)
    view.play_button.value = True  # as the browser does it
    wait_for(lambda: view.index > 2)
    assert view.playing and view.play_button.icon == "pause"
    view.peak_threshold.value = 1.0
    seen = view.index
    wait_for(lambda: view.index > seen + 1)
    assert len(view.people) == 0
    view.position.value = 300
    wait_for(lambda: view.index >= 300)
    view.play_button.value = False
    assert not view.playing and view.play_button.icon == "play"
    stays = view.index
    time.sleep(0.2)
    assert view.index == stays
    view.play()
    again = LiveView(predictor, clip)  # the cell runs again
    assert not view.playing
    again.play()
    again.close()
    assert not again.playing


class Unplugged:
    """A camera that gives three pictures."""

    left = 3

    def __init__(self, number):
        self.opened = number == 0

    def isOpened(self):
        return self.opened

    def get(self, _):
        return 30.0

    def read(self):
        type(self).left -= 1
        time.sleep(0.02)
        return type(self).left >= 0, np.zeros((64, 64, 3), np.uint8)

    def release(self):
        self.opened = False


def test_a_camera_that_vanishes_is_told_in_the_view(predictor):
    view = LiveView(predictor, Camera(0, capture=Unplugged))
    view.play()
    wait_for(lambda: not view.playing)
    assert "unplugged" in view.status.value and view.index >= 0
    assert view.position.layout.display == "none"


def test_a_camera_that_is_not_there(predictor):
    view = LiveView(predictor, Camera(1, capture=Unplugged))
    with pytest.raises(OSError, match="camera 1 cannot be opened"):
        view.step()
    view.play()
    wait_for(lambda: not view.playing)
    assert "camera 1 cannot be opened" in view.status.value and isinstance(view.error, OSError)
    view.step_button.click()
    assert "camera 1 cannot be opened" in view.status.value


def test_what_cannot_be_opened_is_an_error_at_once(predictor, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"walk\.mp4"):
        LiveView(predictor, tmp_path / "walk.mp4")
    with pytest.raises(ValueError, match="empty list"):
        LiveView(predictor, [])


def test_pages_without_a_kernel_get_the_picture(predictor, clip):
    data = LiveView(predictor, clip)._repr_mimebundle_()
    assert type(data["image/jpeg"]) is bytes and data["image/jpeg"][:2] == b"\xff\xd8"
    assert "application/vnd.jupyter.widget-view+json" in data


@pytest.mark.parametrize("size", [(90, 200), (200, 90), (64, 64)])
def test_maps_lie_on_the_picture_where_they_were_computed(size):
    """A bump at a picture's pixel in the maps of a letterboxed input is at that pixel after the maps were scaled up."""
    from lib.data.augment import fit_affine

    stride, affine = 4, fit_affine(size, (128, 128))
    point = np.array([0.3 * size[1], 0.6 * size[0]])
    x, y = (affine[:, :2] @ point + affine[:, 2] - (stride - 1) / 2) / stride
    rows, columns = np.mgrid[:32, :32]
    maps = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8)[None].astype(np.float32)
    found = cv2.resize(on_picture(maps, affine, size, stride)[0], size[::-1])
    peak = np.array(np.unravel_index(found.argmax(), size))[::-1]
    assert np.abs(peak - point).max() <= 0.5 * stride / affine[0, 0]
