"""The recorder: what it wrote plays, whoever ended it."""

import subprocess
import sys
import tracemalloc

import av
import numpy as np
import pytest

from lib import ROOT
from lib.data import recorder as module
from lib.data.recorder import VideoRecorder
from lib.data.video import Video

SCRIPT = """
import os, sys, numpy as np
from lib.data.recorder import VideoRecorder
recorder = VideoRecorder(sys.argv[1], 25)
for i in range(40):
    recorder.write(np.full((48, 64, 3), 5 * i, np.uint8), i / 25)
os.kill(os.getpid(), 9)
"""


def frames_of(path) -> list:
    return list(Video(path, progress=False).frames())


def noise(size=(48, 64)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)


def test_frames_times_and_colours_come_back(tmp_path):
    colours = [(255, 0, 0), (0, 200, 30), (20, 40, 220), (128, 128, 128)]
    times = [7.0, 7.04, 7.5, 7.51]
    with VideoRecorder(tmp_path / "new/a.mp4", 25) as recorder:
        for colour, time in zip(colours, times):
            recorder.write(np.full((48, 64, 3), colour, np.uint8), time)
        assert recorder.frames == 4
    frames = frames_of(tmp_path / "new/a.mp4")
    assert [f.time for f in frames] == pytest.approx([t - 7 for t in times], abs=1e-4)
    for frame, colour in zip(frames, colours):
        assert np.abs(frame.image.mean((0, 1)) - colour).max() < 5
    with av.open(str(tmp_path / "new/a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.frames) == ("h264", "yuv420p", 4)
        assert container.duration > 500_000


def test_without_times_the_rate_counts_and_doubled_times_are_moved_on(tmp_path):
    with VideoRecorder(tmp_path / "a.mp4", 10) as recorder:
        for _ in range(4):
            recorder.write(noise())
    assert [f.time for f in frames_of(tmp_path / "a.mp4")] == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-4)
    with VideoRecorder(tmp_path / "b.mp4") as recorder:
        for time in (0, 0.1, 0.1, 0.05, 0.2):
            recorder.write(noise(), time)
    times = [f.time for f in frames_of(tmp_path / "b.mp4")]
    assert len(times) == 5 and times == sorted(set(times)) and times[-1] == pytest.approx(0.2)


@pytest.mark.parametrize(("size", "written"), [((47, 64), (48, 64)), ((47, 63), (48, 64)), ((1, 1), (2, 2))])
def test_odd_sides_get_one_pixel_more(tmp_path, size, written):
    with VideoRecorder(tmp_path / "a.mp4") as recorder:
        recorder.write(np.full((*size, 3), 90, np.uint8))
        recorder.write(np.full((30, 200, 3), 90, np.uint8))  # of another size: scaled
    frames = frames_of(tmp_path / "a.mp4")
    assert [f.image.shape[:2] for f in frames] == [written] * 2 and abs(int(frames[0].image[-1, -1, 0]) - 90) < 4


def test_a_killed_process_leaves_a_video_that_plays(tmp_path):
    subprocess.run([sys.executable, "-c", SCRIPT, tmp_path / "k.mp4"], cwd=ROOT, check=False)
    video = Video(tmp_path / "k.mp4", progress=False)
    assert len(list(video.frames())) >= 38 and video.damage is None


@pytest.mark.parametrize("room", [0, 700, 1000, 9_000, 30_000, 45_000, 59_000, 61_000])
def test_a_full_disk_leaves_a_video_that_plays(tmp_path, monkeypatch, room):
    class Small(module._Fragments):
        left = room

        def write(self, content):
            if self._lost:
                return len(content)
            content, self.left = bytes(content), self.left - len(content)
            if self.left < 0:
                super().write(content[: self.left])
                raise OSError(28, "No space left on device")
            return super().write(content)

    monkeypatch.setattr(module, "_Fragments", Small)
    path, recorder = tmp_path / "a.mp4", VideoRecorder(tmp_path / "a.mp4")
    with pytest.raises(OSError, match="a.mp4: cannot be written after.*No space left"), recorder:
        for i in range(100):
            recorder.write(np.roll(noise(), i, axis=1))
    if path.exists():
        video = Video(path, progress=False)
        assert abs(len(list(video.frames())) - recorder.frames) <= 1 and video.damage is None and room > 1000
    else:
        assert room < 9000
    recorder.close()  # once more does no harm


def test_the_table_of_contents_may_be_what_no_longer_fits(tmp_path, monkeypatch):
    """Wherever the end of the disk lies within the last bytes, all frames stay."""
    with VideoRecorder(tmp_path / "a.mp4") as recorder:
        for i in range(20):
            recorder.write(np.roll(noise(), i, axis=1))
        before = recorder._file.tell()
    sizes = range(before, (tmp_path / "a.mp4").stat().st_size, 97)
    assert len(sizes) > 5
    for size in sizes:
        real = module._Fragments.write

        def write(self, content, size=size, real=real):
            if not self._lost and self.tell() + len(content) > size:
                real(self, bytes(content)[: max(0, size - self.tell())])
                raise OSError(28, "No space left on device")
            return real(self, content)

        with monkeypatch.context() as patch, pytest.raises(OSError, match="after 20 frames"):
            patch.setattr(module._Fragments, "write", write)
            with VideoRecorder(tmp_path / "b.mp4") as recorder:
                for i in range(20):
                    recorder.write(np.roll(noise(), i, axis=1))
        assert len(frames_of(tmp_path / "b.mp4")) >= 19, size


def test_memory_stays_the_same(tmp_path):
    image = noise((240, 320))
    with VideoRecorder(tmp_path / "a.mp4") as recorder:
        recorder.write(image)
        tracemalloc.start()
        for _ in range(150):
            recorder.write(image)
        grown = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert grown < 10 * image.nbytes


def test_names_and_rates_that_cannot_be(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.mp4"):
        VideoRecorder(tmp_path / "a.avi")
    for rate in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="must be positive"):
            VideoRecorder(tmp_path / "a.mp4", rate)
    VideoRecorder(tmp_path / "a.mp4").close()
    assert not (tmp_path / "a.mp4").exists()
