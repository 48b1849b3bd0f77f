"""Videos to pictures: exact numbers and times, selection, clips, rotation, damage, resumption."""

import os
import signal
import subprocess
import sys
import time

import av
import cv2
import numpy as np
import pytest

from lib import ROOT
from lib.__main__ import main
from lib.data.video import Video, frames, sharpness, write_picture, write_video

HEIGHT, WIDTH = 64, 96
MARK, BITS = 8, 7  # a frame's number stands in its top row of blocks


def numbered(number, detail=0.0):
    """A picture that says which frame it is, with `detail` 0…1 of fine structure in its lower part."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for bit in range(BITS):
        image[:MARK, bit * MARK : (bit + 1) * MARK] = 255 * (number >> bit & 1)
    noise = np.random.default_rng(number).integers(-100, 100, (HEIGHT // 2, WIDTH, 1))
    image[HEIGHT // 2 :] = 128 + detail * noise
    return image


def number_in(image):
    blocks = image[MARK // 2, MARK // 2 : BITS * MARK : MARK].mean(axis=-1) > 128
    return int(blocks @ 2 ** np.arange(BITS))


def read(path):
    return cv2.imread(str(path))[..., ::-1]


def numbers(paths):
    return [number_in(read(path)) for path in paths]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """60 frames at 25 per second."""
    return write_video(tmp_path_factory.mktemp("video") / "walk.mp4", map(numbered, range(60)))


@pytest.fixture(scope="module")
def varying(tmp_path_factory):
    """40 frames of variable rate, of which every 10th is sharp and the one behind it blurry."""
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.01, 0.2, 40)) - 0.01
    details = [1.0 if i % 10 == 7 else 0.05 if i % 10 == 8 else 0.4 for i in range(40)]
    path = tmp_path_factory.mktemp("video") / "phone.mkv"
    return write_video(path, map(numbered, range(40), details), list(times - times[0])), times - times[0]


def test_every_frame_by_number_and_time(video, tmp_path, capsys):
    paths = frames(video, tmp_path)
    assert numbers(paths) == list(range(60))
    assert paths[31].name == "walk_000031_00001.240s.jpg"
    assert "60 frames read, 60 pictures written" in capsys.readouterr().out


def test_variable_rate(varying, tmp_path):
    video, times = varying
    paths = frames(video, tmp_path, step=3)
    assert numbers(paths) == list(range(0, 40, 3))
    assert [float(path.stem.split("_")[-1][:-1]) for path in paths] == pytest.approx(times[::3], abs=0.002)


@pytest.mark.parametrize(("select", "offset"), [("first", 0), ("sharpest", 7), ("blurriest", 8)])
def test_selection_within_windows(varying, tmp_path, select, offset):
    assert numbers(frames(varying[0], tmp_path, step=10, select=select)) == [offset + 10 * i for i in range(4)]


def test_start_and_end(video, tmp_path):
    assert numbers(frames(video, tmp_path, step=4, start_idx=10, max_idx=22)) == [10, 14, 18, 22]
    assert numbers(frames(video, tmp_path / "one", start_idx=59)) == [59]


def test_a_window_counts_from_start_idx(varying, tmp_path):
    assert numbers(frames(varying[0], tmp_path, step=10, select="sharpest", start_idx=8, max_idx=27)) == [17, 27]


def clips(folder):
    return {p.name: [int(q.name.split("_")[1]) for q in sorted(p.iterdir())] for p in sorted(folder.iterdir())}


def test_clips_side_by_side_the_last_one_shorter(video, tmp_path):
    paths = frames(video, tmp_path, step=10, clip_size=25, start_idx=5)
    assert clips(tmp_path) == {"walk_clip_000005": [5, 15, 25], "walk_clip_000030": [30, 40, 50],
                               "walk_clip_000055": [55]}  # fmt: skip
    assert numbers(paths) == [5, 15, 25, 30, 40, 50, 55]


def test_clips_overlap(video, tmp_path):
    frames(video, tmp_path, step=2, clip_size=6, clip_step=4, start_idx=1, max_idx=12)
    assert clips(tmp_path) == {"walk_clip_000001": [1, 3, 5], "walk_clip_000005": [5, 7, 9],
                               "walk_clip_000009": [9, 11]}  # fmt: skip


def test_clips_with_gaps(video, tmp_path):
    frames(video, tmp_path, clip_size=2, clip_step=20)
    assert clips(tmp_path) == {"walk_clip_000000": [0, 1], "walk_clip_000020": [20, 21], "walk_clip_000040": [40, 41]}


def test_selection_in_overlapping_clips_equals_every_clip_alone(varying, tmp_path):
    video = varying[0]
    frames(video, tmp_path / "all", step=4, select="blurriest", clip_size=9, clip_step=5)
    for start in range(0, 40, 5):
        alone = frames(video, tmp_path / str(start), 4, "blurriest", start_idx=start, max_idx=min(start + 8, 39))
        together = sorted((tmp_path / "all" / f"phone_clip_{start:06d}").iterdir())
        assert [path.name for path in together] == [path.name for path in alone]


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_rotation_as_opencv_applies_it(tmp_path, degrees):
    image = np.full((48, 64, 3), 90, np.uint8)
    image[:20, :30] = 250, 30, 30
    path = write_video(tmp_path / "turned.mp4", [image] * 3, rotation=degrees)
    ours = next(Video(path).frames()).image
    assert ours.shape == ((64, 48, 3) if degrees % 180 else (48, 64, 3))
    theirs = cv2.VideoCapture(str(path)).read()[1][..., ::-1]
    assert np.abs(ours.astype(int) - theirs).mean() < 3
    assert np.abs(ours.astype(int) - np.rot90(image, degrees // 90)).mean() < 6


def test_png_is_the_decoded_picture(video, tmp_path):
    (path,) = frames(video, tmp_path, format="png", max_idx=0)
    assert (read(path) == next(Video(video).frames()).image).all()


def test_second_run_rewrites_nothing(video, tmp_path, capsys):
    first = frames(video, tmp_path, step=10)
    first[2].unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert frames(video, tmp_path, step=10) == first
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "1 picture written" in (out := capsys.readouterr().out) and "5 there already" in out


def test_another_file_of_that_name_is_left_alone(video, tmp_path):
    (path,) = frames(video, tmp_path, max_idx=0)
    with pytest.raises(FileExistsError, match="choose another out_dir"):
        frames(video, tmp_path, max_idx=0, quality=50)
    write_picture(tmp_path / "new.png", read(path))
    assert not write_picture(tmp_path / "new.png", read(path))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_and_started_again(video, tmp_path):
    whole = {path.name: path.read_bytes() for path in frames(video, tmp_path / "whole", format="png")}
    slow = (
        "import os, time, lib.files as f, lib.data.video as v; write = f.write\n"
        "f.write = lambda *a: (time.sleep(0.02), write(*a))\n"
        f"v.frames({str(video)!r}, {str(tmp_path / 'out')!r}, format='png')"
    )
    process = subprocess.Popen([sys.executable, "-c", slow], cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any((tmp_path / "out").glob("walk_000010*")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    some = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("walk*")}
    assert 0 < len(some) < 60 and some.items() <= whole.items()
    frames(video, tmp_path / "out", format="png")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("walk*")} == whole


def test_cut_off_video_gives_what_is_there_and_says_so(video, tmp_path):
    cut = tmp_path / "cut.mkv"
    whole = write_video(tmp_path / "whole.mkv", (numbered(i, 1.0) for i in range(60))).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RuntimeError, match=r"cut.mkv: damaged, \d+ frames could be read; it ends at .* of 2.4 s"):
        frames(cut, tmp_path / "out", step=5)
    found = numbers(sorted((tmp_path / "out").iterdir()))
    assert 2 < len(found) < 12 and found == list(range(0, 5 * len(found), 5))


def test_damage_in_the_middle(tmp_path, capsys):
    broken = write_video(tmp_path / "broken.mp4", (numbered(i, i % 2) for i in range(60)))
    data = bytearray(broken.read_bytes())
    rng = np.random.default_rng(0)
    data[len(data) // 3 : len(data) // 3 + 4000] = rng.bytes(4000)
    broken.write_bytes(data)
    assert main(["frames", str(broken), str(tmp_path / "out"), "--step", "10"]) == 1
    assert "damaged" in capsys.readouterr().err
    assert len(list((tmp_path / "out").iterdir())) >= 5


def silent_film(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        sound.rate = 8000
        container.mux([*stream.encode(sound), *stream.encode()])


def test_files_that_are_no_video(tmp_path, video):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    silent_film(tmp_path / "sound.m4a")
    (tmp_path / "head.mp4").write_bytes(video.read_bytes()[:2000])
    for name, words in (("text.mp4", "not a video"), ("empty.mp4", "not a video"), ("sound.m4a", "no pictures, only sound or nothing"),
                        ("head.mp4", "nothing")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name}: .*{words}"):
            Video(tmp_path / name)
    for name in ("nothing.mp4", ""):
        with pytest.raises(FileNotFoundError, match="no such video file"):
            Video(tmp_path / name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"step": 0}, "step is 0"),
        ({"clip_size": 0}, "clip_size is 0"),
        ({"clip_step": 5}, "no clip_size"),
        ({"clip_size": 5, "clip_step": -1}, "clip_step is -1"),
        ({"clip_size": 5, "step": 6}, "step 6 is longer than a clip of 5"),
        ({"start_idx": -1}, "start_idx is -1"),
        ({"start_idx": 9, "max_idx": 8}, "max_idx 8 comes before start_idx 9"),
        ({"start_idx": 60}, r"has 60 frames \(0 … 59\), start_idx is 60"),
        ({"quality": 0}, "quality is 0"),
        ({"select": "nicest"}, "choose one of first"),
    ],
)
def test_numbers_that_do_not_fit(video, tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        frames(video, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_sharpness_falls_with_blur_and_does_not_ask_for_size():
    image = np.random.default_rng(0).integers(0, 255, (256, 512, 3), np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 2)
    blurred = cv2.GaussianBlur(image, (0, 0), 2)
    assert sharpness(blurred) < 0.5 * sharpness(image)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    assert sharpness(grey) == sharpness(image) == pytest.approx(cv2.Laplacian(grey, cv2.CV_64F).var(), rel=1e-4)
    doubled = cv2.resize(image, (1024, 512), interpolation=cv2.INTER_NEAREST)
    assert sharpness(doubled) == pytest.approx(sharpness(image), rel=0.02)
    assert sharpness(np.zeros((5, 2000), np.uint8)) == 0


def test_writing_needs_pictures_of_one_even_size(tmp_path):
    for sizes in ([(64, 64), (64, 66)], [(63, 64)]):
        with pytest.raises(ValueError, match="one size with even sides"):
            write_video(tmp_path / "x.mp4", [np.zeros((*size, 3), np.uint8) for size in sizes])
    assert not any(tmp_path.iterdir())
