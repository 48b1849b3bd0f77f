"""Make the README's pictures from the checkpoints in the repository: `python docs/make_pictures.py`."""

from collections import defaultdict, deque
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from lib import ROOT, files
from lib.codecs.multicut import cost
from lib.codecs.parts_decode import cut_graph
from lib.data.augment import fit_affine, warp
from lib.data.clip import render_clip
from lib.data.synthetic import Scene, render
from lib.draw import draw_people, heatmap_overlay, paf_overlay, track_colour
from lib.draw_graph import draw_graph
from lib.people import apply_affine, invert_affine
from lib.predict import Predictor
from lib.tracking import Tracker

SIDE, SEED, INDICES = 288, 2024, (2, 4, 5, 8, 11, 13)
CROWD = 8
CLIP, CLIP_INPUT, CLIP_SEED, RATE = (216, 384), (256, 456), 3, 12.5


def main() -> None:
    for path in (people(), crossing(), cut()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.2f} MB")


def people() -> Path:
    """Pictures, their maps, and who was found."""
    predictor = Predictor(ROOT / "pretrained/trt_pose_mini.safetensors")
    scene = replace(Scene(), size=(SIDE, SIDE), supersample=4)
    frames = []
    for index in INDICES:
        image, _ = render(scene, SEED, index)
        fitted = warp(image, fit_affine(image.shape[:2], predictor.input_size), predictor.input_size)
        maps = predictor.maps(fitted[None])[0]
        found = draw_people(image, predictor([image])[0], predictor.skeleton)
        heatmaps = heatmap_overlay(image, maps["heatmaps"], predictor.skeleton)
        frames.append(np.concatenate([image, heatmaps, paf_overlay(image, maps["pafs"]), found], axis=1))
    return _save_gif(ROOT / "docs/people.gif", frames, seconds=2.0, colours=256)


def crossing() -> Path:
    """Two people walk through each other and keep their ids; behind them the way that each took."""
    predictor = Predictor(ROOT / "pretrained/lightweight_openpose_mini.safetensors", input_size=CLIP_INPUT)
    tracker, frames = Tracker(predictor.skeleton), []
    ways = defaultdict(lambda: deque(maxlen=20))
    for i, (image, _) in enumerate(render_clip(48, 2, CLIP, CLIP_SEED, rate=RATE, noise=0)):
        found = tracker(predictor([image])[0], i / RATE)
        drawn = draw_people(image, found, predictor.skeleton, min_score=0.2, by_track=True)
        boxes = found.boxes_around_keypoints()
        # the box around a few keypoints jumps: half of them are needed to say where somebody is
        seen = (found.keypoints[..., 2] > 0).mean(axis=1) >= 0.5
        for track, middle in zip(found.ids[seen].tolist(), (boxes[:, :2] + boxes[:, 2:] / 2)[seen]):
            ways[track].append(middle)
            if track:
                line = np.rint(np.array(ways[track]) * 16).astype(np.int32)
                cv2.polylines(drawn, [line], False, track_colour(track), 2, cv2.LINE_AA, 4)
        frames.append(drawn)
    return _save_gif(ROOT / "docs/crossing.gif", frames, seconds=1 / RATE, colours=128)


def cut() -> Path:
    """What was detected in a picture, how the graph of it was cut, and the people that these pieces are."""
    predictor = Predictor(ROOT / "pretrained/deepercut_mini.safetensors")
    image, _ = render(replace(Scene(), size=(SIDE, SIDE), supersample=4), SEED, CROWD)
    affine = fit_affine(image.shape[:2], predictor.input_size)
    graph = cut_graph(predictor.maps(warp(image, affine, predictor.input_size)[None])[0], predictor.codec)
    found, limbs = graph.detections, [set(limb) for limb in predictor.skeleton.limbs]
    drawn = [set(found.parts[edge]) in limbs for edge in graph.edges]  # all pairs would hide everything
    places, weights = apply_affine(invert_affine(affine), found.places), cost(graph.probabilities)[drawn]
    panels = [draw_graph(image, places, graph.edges[drawn], weights, labels) for labels in (None, graph.labels)]
    panels.append(draw_people(image, predictor([image])[0], predictor.skeleton))
    _, jpeg = cv2.imencode(".jpg", np.concatenate(panels, axis=1)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])
    return files.write(ROOT / "docs/cut.jpg", jpeg.tobytes())


def _save_gif(path: Path, frames: list[np.ndarray], seconds: float, colours: int) -> Path:
    """An endless GIF; all frames share one palette, which keeps it small and free of flicker."""
    sample = Image.fromarray(np.concatenate([frame[::2, ::2] for frame in frames[:: max(1, len(frames) // 8)]]))
    # without the rounds of k-means the few saturated pixels of a field get the brown of the picture around them
    shared = sample.quantize(colours, method=Image.Quantize.MEDIANCUT, kmeans=3)
    first, *others = (Image.fromarray(frame).quantize(palette=shared) for frame in frames)
    with files.beside(path) as writing:
        first.save(writing, "GIF", save_all=True, append_images=others, loop=0, optimize=True, duration=round(1000 * seconds))
    return path


if __name__ == "__main__":
    main()
