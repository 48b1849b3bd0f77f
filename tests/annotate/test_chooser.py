"""Choosing frames: the rules without a view, what the view may ask for, and the view in a browser."""

import cv2
import numpy as np
import pytest

from lib.annotate.chooser import FrameChooser
from lib.data.video import frames, write_video


def picture(number):
    """Noise whose contrast, and with it the sharpness, goes up and down with a period of 6 frames."""
    noise = np.random.default_rng(number).integers(-60, 60, (48, 64, 1))
    return np.repeat(128 + noise * (0.1 + number % 6 / 6), 3, axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("chooser") / "film.mp4", map(picture, range(24)), 12)


@pytest.fixture
def chooser(video, tmp_path):
    return FrameChooser(video, tmp_path / "pictures")


def say(chooser, action, *values):
    """What a click or key in the view does."""
    chooser._handle_custom_msg({"do": action, "with": list(values)}, [])
    return chooser._state


def test_headless_choice_is_written_as_frames_writes_it(video, tmp_path):
    paths = FrameChooser(video, step=2).choose([20, 4, 8]).save(tmp_path / "chosen")
    assert [path.name for path in paths] == [
        "film_000004_00000.333s.jpg", "film_000008_00000.667s.jpg", "film_000020_00001.667s.jpg"
    ]  # fmt: skip
    frames(video, tmp_path / "all")
    assert all(path.read_bytes() == (tmp_path / "all" / path.name).read_bytes() for path in paths)


def test_candidates(video):
    assert FrameChooser(video, step=5, start_idx=3, max_idx=18).candidates == [3, 8, 13, 18]
    with pytest.raises(ValueError, match="step is 0"):
        FrameChooser(video, step=0)


def test_too_many_candidates(video, monkeypatch):
    monkeypatch.setattr("lib.annotate.chooser.MOST", 10)
    with pytest.raises(ValueError, match="more than 10 candidates; take fewer with step=20"):
        FrameChooser(video, step=2)


def test_choose_drop_toggle_clear_undo(chooser):
    chooser.choose([5, 1]).choose([1, 9]).drop([5]).toggle(2).toggle(9)
    assert chooser.chosen == [1, 2] and chooser.message == "2 of 24 frames chosen"
    chooser.clear()
    assert chooser.chosen == []
    chosen = [chooser.undo().chosen for _ in range(6)]
    assert chosen == [[1, 2], [1, 2, 9], [1, 9], [1, 5, 9], [1, 5], []]
    with pytest.raises(ValueError, match="nothing to undo"):
        chooser.undo()
    with pytest.raises(KeyError, match="frame 24 is no candidate; there are 24, from 0 to 23"):
        chooser.choose([3, 24])
    assert chooser.chosen == []


def test_every_and_sharpest_of_n(chooser):
    assert chooser.every(10).chosen == [0, 10, 20]
    assert chooser.sharpest(6).chosen == [5, 11, 17, 23]
    assert chooser.sharpest(100).chosen == [max(chooser.candidates, key=chooser.sharpness.get)]
    with pytest.raises(ValueError, match="one of every 0"):
        chooser.every(0)


def test_order_and_filter(chooser):
    assert chooser.shown == list(range(24))
    by_sharpness = chooser.order_by("sharpness").shown
    assert {i % 6 for i in by_sharpness[:4]} == {5} and {i % 6 for i in by_sharpness[-4:]} == {0}
    chooser.choose([0]).hide_blurry(0.5)
    assert len(chooser.shown) == 12 and {i % 6 for i in chooser.shown} == {3, 4, 5}
    assert chooser.chosen == [0], "a hidden frame stays chosen"
    assert chooser.every(3).chosen == [3, 9, 15, 21], "among the shown ones, in order of time"
    for wrong in (lambda: chooser.hide_blurry(1), lambda: chooser.order_by("colour")):
        with pytest.raises(ValueError, match="lies between|ordered by"):
            wrong()


def test_save_again_and_nothing_to_save(chooser, video, tmp_path):
    with pytest.raises(ValueError, match="nothing is chosen"):
        chooser.save()
    with pytest.raises(ValueError, match="save_to=FOLDER"):
        FrameChooser(video).choose([1]).save()
    (path,) = chooser.choose([7]).save()
    before = path.stat().st_mtime_ns
    chooser.choose([3]).save()
    assert path.stat().st_mtime_ns == before and len(list(path.parent.iterdir())) == 2
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="other content"):
        chooser.save()
    assert path.read_bytes() == b"mine"


def test_messages_of_the_view(chooser, tmp_path):
    assert say(chooser, "toggle", 4)["chosen"] == [4]
    assert say(chooser, "choose", [6, 7])["chosen"] == [4, 6, 7]
    assert say(chooser, "hide_blurry", 0.5)["shown"] == chooser.shown
    before = chooser._preview
    assert say(chooser, "look", 11)["focus"] == 11 and chooser._preview != before
    assert "3 pictures are in" in say(chooser, "save")["message"] and len(list((tmp_path / "pictures").iterdir())) == 3
    assert say(chooser, "undo")["chosen"] == [4]


def test_a_wrong_message_of_the_view_is_a_sentence_or_nothing(chooser):
    assert "frame 99 is no candidate" in say(chooser, "toggle", 99)["message"]
    assert "one of every 0" in say(chooser, "every", 0)["message"]
    assert "nothing is chosen" in say(chooser, "save")["message"]
    state = chooser._state
    for action in ("_set", "close", "video", "nonsense"):
        assert say(chooser, action) == state
    assert chooser.chosen == []


def test_sheet_and_page_without_a_kernel(chooser):
    plain, marked = chooser.sheet(), chooser.choose([0]).sheet()
    assert plain.shape == marked.shape and plain.dtype == np.uint8
    assert tuple(marked[0, 0]) == (0, 158, 115) and (plain[0, 0] == plain[0, 0, 0]).all()
    data = chooser._repr_mimebundle_()[0]
    assert "application/vnd.jupyter.widget-view+json" in data
    assert cv2.imdecode(np.frombuffer(data["image/jpeg"], np.uint8), 1).shape == marked.shape
    assert data["text/plain"] == "FrameChooser: 1 of 24 frames chosen"
