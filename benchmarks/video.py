"""A video from file to file: FPS of every stage, with Lightweight OpenPose in ONNX Runtime at 456×256 on one core.

`python -m benchmarks.video [VIDEO]`, or POSE_VIDEO=walk.mp4; otherwise a clip of synthetic people is rendered. The network has
random weights, which take as long as others but find nobody. So that there is something to decode, track and draw,
its maps are exchanged for those of five walkers in the size of the video.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch

from lib.checkpoints import Model
from lib.codecs.paf import PafCodec
from lib.data.augment import fit_affine
from lib.data.clip import render_clip
from lib.data.recorder import VideoRecorder
from lib.data.video import Video
from lib.draw import draw_people
from lib.export import to_onnx
from lib.models.lightweight_openpose import LightweightOpenPose
from lib.people import People, apply_affine
from lib.predict import Predictor, StageTimes, timed, watch
from lib.skeleton import COCO17, OPENPOSE18
from lib.tracking import Tracker

INPUT, CLIP, WALKERS, FRAMES, WARM_UP = (256, 456), (1080, 1920), 5, 60, 8
LIGHT = ("prepare", "decode", "track", "draw")  # together to take less than the network


def main(arguments: list[str]) -> None:
    """Print the table of the stages one after another, and frames per second when they overlap."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        given = arguments[0] if arguments else os.environ.get("POSE_VIDEO")
        path = Path(given) if given else written_clip(Path(folder) / "clip.mp4")
        size = next(Video(path, progress=False).frames()).image.shape[:2]
        predictor = Walkers(exported(Path(folder)), size)
        what = path.name if given else f"a clip of {WALKERS} synthetic people"
        print(f"{what}, {size[1]}×{size[0]} pixels; Lightweight OpenPose (random weights) at {INPUT[1]}×{INPUT[0]}, "
              f"{predictor.provider}, 1 thread; {WALKERS} people decoded, tracked, smoothed and drawn")  # fmt: skip
        run(predictor, path, Path(folder), overlap=False, stop=WARM_UP)
        times = run(predictor, path, Path(folder), overlap=False)
        print(times.table())
        light, network = sum(times.median[stage] for stage in LIGHT), times.median["network"]
        verdict = "less" if light < network else "MORE"
        print(f"{' + '.join(LIGHT)}: {1e3 * light:.2f} ms, {verdict} than the network's {1e3 * network:.2f} ms")
        overlapped = run(predictor, path, Path(folder), overlap=True)
        print(f"with overlapping stages: {overlapped.fps:.1f} FPS together, without: {times.fps:.1f}")


def run(predictor: Predictor, path: Path, folder: Path, overlap: bool, stop: int | None = None) -> StageTimes:
    times, tracker = StageTimes(), Tracker(predictor.skeleton)
    predictor.begin()
    with VideoRecorder(folder / "drawn.mp4") as recorder:
        for seen in watch(predictor, path, tracker, overlap=overlap, stop=stop):
            with timed(seen.seconds, "draw"):
                picture = draw_people(seen.image, seen.people, predictor.skeleton, 0.2, by_track=True, in_place=True)
            with timed(seen.seconds, "write"):
                recorder.write(picture, seen.time)
            times.add(seen.seconds)
    return times


class Walkers(Predictor):
    """Runs its network, and then answers with the maps of people who walk across the picture."""

    def __init__(self, model: Path, size: tuple[int, int]):
        super().__init__(model, threads=1)
        affine = fit_affine(size, self.input_size)
        self._drawn = [self._maps_of(people, affine, size) for people in walking()]
        self.begin()

    def begin(self) -> None:
        self._next = 0

    def answers(self, batch):
        super().answers(batch)
        first, self._next = self._next, self._next + len(batch)
        return [[self._drawn[i % len(self._drawn)]] for i in range(first, self._next)]

    def _maps_of(self, people: People, affine: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
        keypoints = people.keypoints.copy()
        keypoints[..., :2] = apply_affine(affine, keypoints[..., :2] * (size[1] / CLIP[1], size[0] / CLIP[0]))
        maps = self.codec.encode(torch.from_numpy(keypoints)[None], None, self.input_size)
        return {name: maps[name][0].numpy() for name in ("heatmaps", "pafs")}


def walking() -> Iterator[People]:
    """People of the rendered clip with the network's keypoints; the neck lies between the shoulders."""
    small = CLIP[0] // 8, CLIP[1] // 8
    for _, people in render_clip(FRAMES, WALKERS, small, crossing=False):
        points = dict(zip(COCO17.keypoints, (8 * people.keypoints.transpose(1, 0, 2)) * (1, 1, 1 / 8)))
        sides = np.stack([points["left_shoulder"], points["right_shoulder"]])
        points["neck"] = np.where((sides[..., 2:] > 0).all(0), sides.mean(0), 0)
        yield People(np.stack([points[name] for name in OPENPOSE18.keypoints], axis=1), people.scores)


def written_clip(path: Path) -> Path:
    """Rendered at a quarter of the size, in which a second takes a second."""
    with VideoRecorder(path) as recorder:
        for image, _ in render_clip(FRAMES, WALKERS, (CLIP[0] // 4, CLIP[1] // 4), crossing=False):
            recorder.write(cv2.resize(image, CLIP[::-1], interpolation=cv2.INTER_LINEAR))
    return path


def exported(folder: Path) -> Path:
    network = LightweightOpenPose(OPENPOSE18).eval()
    path = folder / "lightweight_openpose.onnx"
    onnx.save(to_onnx(Model(network, PafCodec(OPENPOSE18, stride=network.stride), INPUT)), path)
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
