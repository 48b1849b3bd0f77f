"""Make the README's pictures from the checkpoints in the repository: `python docs/make_pictures.py`."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from lib import ROOT
from lib.data.augment import fit_affine, warp
from lib.data.clip import render_clip
from lib.data.synthetic import Scene, render
from lib.draw import Trails, draw_people, heatmap_overlay, paf_overlay, save_gif
from lib.predict import Predictor
from lib.tracking import Tracker

SIDE, SEED, INDICES = 288, 2024, (2, 4, 5, 8, 11, 13)
CLIP, CLIP_INPUT, CLIP_SEED, RATE = (216, 384), (256, 456), 3, 12.5


def main() -> None:
    for path in (people(), crossing()):
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
    return save_gif(ROOT / "docs/people.gif", frames, seconds_per_frame=2.0, colours=256)


def crossing() -> Path:
    """Two people walk through each other and keep their ids."""
    predictor = Predictor(ROOT / "pretrained/lightweight_openpose_mini.safetensors", input_size=CLIP_INPUT)
    tracker, trails, frames = Tracker(predictor.skeleton), Trails(20), []
    for i, (image, _) in enumerate(render_clip(48, 2, CLIP, CLIP_SEED, rate=RATE, noise=0)):
        found = tracker(predictor([image])[0], i / RATE)
        drawn = draw_people(image, found, predictor.skeleton, min_score=0.2, by_track=True)
        frames.append(trails(drawn, found))
    return save_gif(ROOT / "docs/crossing.gif", frames, seconds_per_frame=1 / RATE, colours=128)


if __name__ == "__main__":
    main()
