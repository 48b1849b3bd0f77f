"""The command: what it leaves is whole, whatever the source is and whatever ends it."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib import ROOT
from lib.__main__ import main as command
from lib.checkpoints import save_model
from lib.data.video import Video, write_video
from lib.models import NETWORKS
from lib.predict import main, predict
from lib.predict import outputs as outputs_module
from lib.predict import painting as painting_module
from tests.dots import DotNet, dot_model, draw_poles
from tests.predict.cameras import Endless

# the command in a process of its own
SCRIPT = """
import sys
import lib.data.camera
from lib.__main__ import main
from lib.models import NETWORKS
from tests.dots import DotNet
from tests.predict.cameras import Endless

lib.data.camera.cv2.VideoCapture = Endless
NETWORKS["DotNet"] = DotNet
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def dot_net(monkeypatch):
    monkeypatch.setitem(NETWORKS, "DotNet", DotNet)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "dots.safetensors", dot_model())


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Twelve frames of a pole that walks to the right, not all equally long."""
    images = [draw_poles((96, 128), [(30 + i, 20, 80)]) for i in range(12)]
    times = [0.04 * i + 0.02 * (i % 2) for i in range(12)]
    return write_video(tmp_path_factory.mktemp("clip") / "walk.mp4", images, times)


def read(out: Path) -> tuple[list[dict], list[dict]]:
    with open(out / "people.csv", newline="") as file:
        return json.loads((out / "results.json").read_text()), list(csv.DictReader(file))


def frames_of(path: Path) -> list:
    return list(Video(path, progress=False).frames())


def test_a_video_becomes_a_video_and_two_lists(clip, model, tmp_path, capsys):
    arguments = [str(clip), "--model", str(model), "--out", str(tmp_path / "out"), "--track", "true"]
    assert main([*arguments, "--codec.peak_threshold=0.3"]) == 0
    results, rows = read(tmp_path / "out")
    assert [r["image_id"] for r in results] == list(range(12)) and {r["track_id"] for r in results} == {1}
    assert np.allclose([r["keypoints"][0] for r in results], 30 + np.arange(12), atol=1)
    assert len(rows) == 24 and {r["person"] for r in rows} == {"1"}
    assert [float(r["x"]) for r in rows if r["keypoint"] == "top"] == pytest.approx(
        [r["keypoints"][0] for r in results], abs=0.01
    )
    source, drawn = frames_of(clip), frames_of(tmp_path / "out/walk.mp4")
    assert [f.time for f in drawn] == pytest.approx([f.time for f in source], abs=1e-3)
    assert [float(r["time"]) for r in rows[::2]] == pytest.approx([f.time for f in source], abs=1e-3)
    assert all(np.abs(a.image.astype(int) - b.image).max() > 100 for a, b in zip(source, drawn)), "nobody is drawn"
    text = capsys.readouterr().out
    assert "network" in text and "12 frames with 12 people" in text


def test_the_published_rule_of_following_needs_three_keypoints(clip, model, tmp_path):
    predict(clip, model, tmp_path / "out", stop=4, smooth=True, track_rule="published")
    assert [r["track_id"] for r in read(tmp_path / "out")[0]] == [1, 2, 3, 4]  # a pole has two


def test_a_piece_of_a_video_keeps_its_numbers(clip, model, tmp_path):
    times = predict(clip, model, tmp_path / "out", start=3, stop=7, batch_size=3)
    results, _ = read(tmp_path / "out")
    assert [r["image_id"] for r in results] == [3, 4, 5, 6] and "track_id" not in results[0] and times.frames == 4
    assert len(frames_of(tmp_path / "out/walk.mp4")) == 4
    with pytest.raises(ValueError, match="frames 7 … 3 are none"):
        predict(clip, model, tmp_path / "other", start=7, stop=3)


def test_pictures_of_a_folder_and_its_sub_folders(model, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "in/drawn"
    (folder / "clip").mkdir(parents=True)
    for i, name in enumerate(("0.png", "2.png", "clip/1.png")):
        cv2.imwrite(str(folder / name), draw_poles((96 + i, 128), [(30 + 20 * i, 20, 80)])[..., ::-1])
    for again in (False, True):  # what the first run draws is no picture for the second
        predict(folder, model, out, batch_size=2, overwrite=again)
    results, rows = read(out)
    names = ["000000_0.jpg", "000001_2.jpg", "000002_1.jpg"]
    assert sorted(f.name for f in out.glob("*.jpg")) == names == [r["file_name"] for r in results]
    assert np.allclose([r["keypoints"][0] for r in results], [30, 50, 70], atol=1) and len(rows) == 6
    predict(folder / "2.png", model, tmp_path / "one")
    assert read(tmp_path / "one")[0][0]["keypoints"] == results[1]["keypoints"]


def test_earlier_results_are_not_replaced_unasked(clip, model, tmp_path):
    out = tmp_path / "out"
    predict(clip, model, out, stop=2)
    before = {f: f.read_bytes() for f in out.iterdir()}
    with pytest.raises(FileExistsError, match="holds results.json.*--overwrite true"):
        predict(clip, model, out)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="broken.mp4"):
        predict(tmp_path / "broken.mp4", model, out, overwrite=True)
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match="cut.jpg"):  # found out when it is read
        predict(tmp_path / "cut.jpg", model, out, overwrite=True)
    assert before == {f: f.read_bytes() for f in out.iterdir()}
    predict(clip, model, out, overwrite=True)
    assert len(read(out)[0]) == 12
    with pytest.raises(ValueError, match="is the video to be read"):
        predict(out / "walk.mp4", model, out, overwrite=True)
    with pytest.raises(FileExistsError, match=r"cut\.jpg is a file"):
        predict(clip, model, tmp_path / "cut.jpg")


def test_what_cannot_be_read_is_left_out_and_said(clip, model, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), draw_poles((96, 128), [(30, 20, 80)])[..., ::-1])
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())
    with pytest.raises(RuntimeError, match=r"1 of 3 pictures.*b\.png.*2 frames with 2 people"):
        predict(tmp_path, model, tmp_path / "out")
    assert [r["file_name"] for r in read(tmp_path / "out")[0]] == ["000000_a.jpg", "000002_c.jpg"]
    data = bytearray(clip.read_bytes())
    mdat = data.index(b"mdat")
    for at in range(mdat + 900, mdat + 1400):
        data[at] ^= 0x5A
    (tmp_path / "hurt.mp4").write_bytes(data)
    with pytest.raises(RuntimeError, match=r"hurt\.mp4: damaged.*frames with"):
        predict(tmp_path / "hurt.mp4", model, tmp_path / "hurt")
    assert len(frames_of(tmp_path / "hurt/hurt.mp4")) >= 5


@pytest.mark.parametrize("failing", ["_write_picture", "GrowingFile.append"])
def test_a_full_disk_is_one_sentence(model, tmp_path, monkeypatch, failing):
    for i in range(5):
        cv2.imwrite(str(tmp_path / f"{i}.png"), draw_poles((96, 128), [(30, 20, 80)])[..., ::-1])
    owner, name = (outputs_module.Results, failing) if "." not in failing else (outputs_module.GrowingFile, "append")
    calls, real = [], getattr(owner, name)

    def full(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(owner, name, full)
    with pytest.raises(OSError, match="No space left"):
        predict(tmp_path, model, tmp_path / "out")
    results, rows = read(tmp_path / "out")
    assert len(results) == (3 if failing == "_write_picture" else 2) and len(rows) in (2, 4, 6)


def test_a_disk_that_is_really_full(model, tmp_path, monkeypatch):
    monkeypatch.setattr("lib.data.camera.cv2.VideoCapture", Endless)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))  # a file may not grow larger
    try:
        with pytest.raises(OSError, match="cannot be written.*File too large"):
            predict("camera:0", model, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    results, rows = read(tmp_path / "out")
    frames = len(frames_of(tmp_path / "out/camera0.mp4"))
    # the last frame waits in the writer of the video for the next one, which says how long it is shown
    assert frames > 5 and abs(frames - 1 - int(rows[-1]["frame"])) <= 1 and abs(frames - len(results)) <= 1


def test_a_camera_that_vanishes_leaves_what_it_showed(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lib.data.camera.cv2.VideoCapture", partial(Endless, pictures=30))
    with pytest.raises(
        RuntimeError, match=r"camera 0 gave no more pictures after \d+ frames.*camera0.mp4, results.json"
    ):
        predict("camera:0", model, tmp_path / "out", smooth=True)
    results, _ = read(tmp_path / "out")
    assert results[0]["track_id"] == 1 and len(frames_of(tmp_path / "out/camera0.mp4")) == results[-1]["image_id"] + 1
    monkeypatch.setattr("lib.data.camera.cv2.VideoCapture", partial(Endless, pictures=0, opens=False))
    assert command(["predict", "camera:3", "--model", str(model), "--out", str(tmp_path / "other")]) == 1
    assert "camera 3 cannot be opened" in capsys.readouterr().err and not (tmp_path / "other").exists()


@pytest.fixture
def ctrl_c():
    """Who started the tests in the background may have switched Ctrl-C off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_it_cleanly(model, tmp_path):
    arguments = ["predict", "camera:0", "--model", str(model), "--out", str(tmp_path / "out"), "--track", "true"]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stderr=subprocess.PIPE, text=True,
                               cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    rows, until = tmp_path / "out/people.csv", time.monotonic() + 120
    while not rows.exists() or rows.stat().st_size < 3000:
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    results, rows = read(tmp_path / "out")
    frames = len(frames_of(tmp_path / "out/camera0.mp4"))
    assert process.returncode == 130 and "Traceback" not in errors
    assert errors.rstrip().splitlines()[-1].startswith(f"stopped: {frames} frames with {len(results)} people")
    assert frames == int(rows[-1]["frame"]) + 1 == results[-1]["image_id"] + 1


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_ends_between_two_frames_and_twice_at_once(clip, model, tmp_path, monkeypatch, capsys, times):
    real, drawn = painting_module.draw_people, []

    def draw(*arguments, **options):
        drawn.append(1)
        if len(drawn) == 3:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return real(*arguments, **options)

    monkeypatch.setattr(painting_module, "draw_people", draw)
    assert command(["predict", str(clip), "--model", str(model), "--out", str(tmp_path / "out")]) == 130
    frames = 3 if times == 1 else 2
    assert len(read(tmp_path / "out")[0]) == len(frames_of(tmp_path / "out/walk.mp4")) == frames
    assert f"stopped: {frames} frames with {frames} people: walk.mp4" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler and threading.active_count() < 8
