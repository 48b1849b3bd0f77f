"""Sources and `watch`: every kind is read frame by frame, results do not depend on threads, and bad input is one sentence."""

import threading
import time
import weakref
from types import SimpleNamespace

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from lib.data.camera import Camera
from lib.data.video import Video, write_video
from lib.models import NETWORKS
from lib.people import People
from lib.predict import Predictor, watch
from lib.predict.sources import Pictures, open_source
from tests.dots import DotNet, dot_model, draw_poles
from tests.predict.cameras import Endless


@pytest.fixture(autouse=True)
def dot_net(monkeypatch):
    monkeypatch.setitem(NETWORKS, "DotNet", DotNet)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    images = [draw_poles((96, 128), [(30 + 3 * i, 20, 80), (90, 30, 60 + i)]) for i in range(10)]
    return write_video(tmp_path_factory.mktemp("clip") / "walk.mp4", images, 10)


def order(people: People, moment: float) -> People:
    """A tracker that numbers the frames it is shown."""
    order.seen.append(moment)
    people.ids = np.full(len(people), len(order.seen))
    return people


@pytest.mark.parametrize("batch_size", [1, 3])
def test_results_are_the_same_with_and_without_overlap(clip, batch_size):
    predictor, runs = Predictor(dot_model()), []
    for overlap in (True, False):
        order.seen = []
        runs.append(list(watch(predictor, clip, order, batch_size=batch_size, overlap=overlap)))
        assert order.seen == pytest.approx([0.1 * i for i in range(10)])
    alone = predictor([frame.image for frame in Video(clip, progress=False).frames()])
    for a, b, expected in zip(*runs, alone, strict=True):
        assert (a.index, a.time, a.path) == (b.index, b.time, b.path) and np.array_equal(a.image, b.image)
        assert np.array_equal(a.people.keypoints, b.people.keypoints) and len(a.people) == 2
        assert np.array_equal(a.people.keypoints, expected.keypoints) and a.people.ids.tolist() == [a.index + 1] * 2
        assert list(a.seconds) == ["read", "prepare", "network", "decode", "track"] and min(a.seconds.values()) > 0
        again = predictor.people(a.answers, a.fitted)
        assert np.array_equal(again.keypoints, expected.keypoints)


def test_leaving_early_ends_the_threads_and_the_source(clip):
    before = threading.active_count()
    frames = watch(Predictor(dot_model()), clip, start=2, batch_size=2)
    assert next(frames).index == 2
    frames.close()
    assert threading.active_count() == before


def test_an_error_of_the_tracker_or_the_network_ends_it(clip):
    predictor = Predictor(dot_model())

    def failing(*_):
        raise ValueError("who is that?")

    before = threading.active_count()
    with pytest.raises(ValueError, match="who is that"):
        list(watch(predictor, clip, failing))
    predictor._network = failing
    with pytest.raises(ValueError, match="who is that"):
        list(watch(predictor, clip))
    with pytest.raises(ValueError, match="batch_size is 0"):
        next(watch(predictor, clip, batch_size=0))
    assert threading.active_count() == before


def test_a_long_source_does_not_pile_up():
    """Frames that were taken are gone, and those to come are not made yet."""
    made, most = [], [0]

    class Long:
        kind, name, length, rate, damage = "video", "long", None, 25.0, None

        def frames(self, start, stop):
            for i in range(60):
                image = draw_poles((96, 128), [(64, 20, 80)])
                made.append(weakref.ref(image))
                most[0] = max(most[0], sum(ref() is not None for ref in made))
                yield SimpleNamespace(index=i, time=i / 25, image=image)
                del image

    for seen in watch(Predictor(dot_model()), Long()):
        time.sleep(0.002)
        assert len(seen.people) == 1
    assert len(made) == 60 and most[0] <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_upright_as_exif_says(tmp_path, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(draw_poles((60, 128), [(30, 10, 40), (100, 20, 50)])).save(tmp_path / "phone.png", exif=exif)
    shown = PIL.ImageOps.exif_transpose(PIL.Image.open(tmp_path / "phone.png"))
    (seen,) = open_source(tmp_path / "phone.png").frames()
    assert np.array_equal(seen.image, np.asarray(shown)) and seen.image.flags.c_contiguous


def test_pictures_have_numbers_and_nominal_times(tmp_path):
    for name in ("10.png", "9.png", "notes.txt"):
        cv2.imwrite(str(tmp_path / name), draw_poles((96, 128), [])) if name.endswith("png") else (
            tmp_path / name
        ).write_text("")
    (tmp_path / "out").mkdir()
    cv2.imwrite(str(tmp_path / "out/drawn.png"), np.zeros((8, 8, 3), np.uint8))
    source = open_source(tmp_path, without=tmp_path / "out")
    frames = list(source.frames())
    assert source.kind == "pictures" and source.length == 2 and source.name == tmp_path.name
    assert [(f.index, f.time, f.path.name) for f in frames] == [(0, 0.0, "9.png"), (1, 0.04, "10.png")]
    assert [f.index for f in source.frames(1)] == [1] and [f.index for f in source.frames(0, 1)] == [0]
    with pytest.raises(ValueError, match="2 pictures.*start is 2"):
        list(source.frames(2))
    with pytest.raises(FileNotFoundError, match="no image but those"):
        Pictures(tmp_path / "out", without=tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("gone.mp4", None, FileNotFoundError, r"gone\.mp4: there is no such"),
        ("empty.mp4", b"", ValueError, r"empty\.mp4: the file is empty"),
        ("text.mp4", b"hello", ValueError, r"text\.mp4: not a video"),
        ("notes.txt", b"hello", ValueError, r"notes\.txt: '\.txt' is neither a picture"),
        ("noname", b"hello", ValueError, "'no suffix' is neither"),
        ("camera:one", None, ValueError, "cameras are numbered"),
        ("https://example.org/a.mp4", None, ValueError, "addresses are not read"),
    ],
)
def test_what_is_no_source_is_said(tmp_path, name, content, error, message):
    path = name if ":" in name else tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=message):
        open_source(path)


def test_a_camera_and_a_video_are_opened_by_name(clip, monkeypatch):
    monkeypatch.setattr("lib.data.camera.cv2.VideoCapture", Endless)
    video, camera = open_source(str(clip)), open_source("camera:2")
    assert isinstance(camera, Camera) and camera.name == "camera2" and camera.kind == "camera"
    assert isinstance(video, Video) and (video.kind, video.name, video.length) == ("video", "walk", 10)
    assert video.rate == pytest.approx(10, rel=0.1)
    seen = list(watch(Predictor(dot_model()), camera, stop=4, batch_size=8))
    assert [s.index for s in seen] == [0, 1, 2, 3] and all(len(s.people) == 1 for s in seen)
    assert [s.time for s in seen] == sorted(s.time for s in seen) and seen[0].time == 0
