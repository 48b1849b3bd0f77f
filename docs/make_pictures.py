"""Make the README's picture from the checkpoint in the repository: `python docs/make_pictures.py`."""

from dataclasses import replace

import numpy as np

from lib import ROOT
from lib.data.augment import fit_affine, warp
from lib.data.synthetic import Scene, render
from lib.draw import draw_people, heatmap_overlay, paf_overlay, save_gif
from lib.predict import Predictor

SIDE, SEED, INDICES = 288, 2024, (2, 4, 5, 8, 11, 13)


def main() -> None:
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
    path = save_gif(ROOT / "docs/people.gif", frames, seconds_per_frame=2.0, colours=256)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
