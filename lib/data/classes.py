"""Synthetic pictures in ImageNet's layout: parts of bodies, things and scenery, to pretrain a trunk on without a download.

`python -m lib synthetic-classes data/synthetic_classes`. What a trunk must see to tell an elbow from a knee is what a pose
network has to find later, in pictures of the same people. Left and right are one class, so these may be mirrored.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from lib.data.canvas import Canvas
from lib.data.scenery import KINDS, background, thing
from lib.data.synthetic import FIGURES, JPEG_QUALITY, Scene, is_complete, made_beside, render, sensed
from lib.draw import encoded

FORMAT = 1  # goes up whenever the same settings give other pictures
SCENE = Scene(height=(0.65, 0.98), truncation=0.0, crowd=0.0)
SIDES = 64, 96  # shortest and longest side of a picture, pixels
SCENERY = "scenery"

# class → figure, and the keypoints (less their side) of which one lies in the middle of each picture
PARTS: dict[str, tuple[str, set[str]]] = {
    **{part: ("person", {part}) for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")},
    "head": ("person", {"nose", "eye", "ear"}),
    "dog_head": ("dog", {"nose", "eye", "ear"}),
    "dog_paw": ("dog", {"front_paw", "back_paw"}),
}
# made-up WNIDs, far above WordNet's: in the order of the names, so the class index is alphabetical too
WNIDS = {name: f"n{90_000_001 + i}" for i, name in enumerate(sorted([*PARTS, *KINDS, SCENERY]))}

# a picture from which others are cut, and where their middles are: class → (x, y) pixels
Sheet = tuple[np.ndarray, dict[str, tuple[float, float]]]


def write_classes(out_dir: str | Path, train_per_class: int = 400, val_per_class: int = 50, seed: int = 1) -> Path:
    """Write train/WNID/0000.jpg …, val/WNID/… and imagenet_class_index.json: 16 classes of pictures 64 to 96 pixels wide.

    A folder that holds exactly this set already is left as it is. The files are made in a folder beside and moved into place
    when complete. Their people are others than those of `python -m lib synthetic`, whose seed is 0.

    Args:
        out_dir: folder to make.
        train_per_class: pictures of each class for training.
        val_per_class: pictures of each class for validation.
        seed: series of pictures.

    Returns:
        out_dir.

    Raises:
        FileExistsError: out_dir holds anything else.
    """
    out_dir = Path(out_dir)
    counts = {"train": train_per_class, "val": val_per_class}
    if min(counts.values()) < 1:
        raise ValueError(f"every class needs a picture for training and one for validation, got {counts}")
    config = {"format": FORMAT, "counts": counts, "scene": asdict(SCENE), "sides": SIDES, "seed": seed}
    config = json.loads(json.dumps(config))
    if is_complete(out_dir, config):
        return out_dir
    with made_beside(out_dir, config) as making:
        for split, count in counts.items():
            _write_split(making / split, count, seed, first=0 if split == "train" else 1 << 31)
        index = {str(i): [wnid, name] for i, (name, wnid) in enumerate(WNIDS.items())}
        (making / "imagenet_class_index.json").write_text(json.dumps(index))
    return out_dir


def figure_sheet(figure: str, seed: int, index: int) -> Sheet:
    """A synthetic picture, and of each class of its figure a keypoint that can be seen."""
    skeleton, rng = FIGURES[figure][0], np.random.default_rng([seed, index, 1])
    image, labels = render(SCENE, seed, index, figure)
    middles = {}
    for name, (whose, keypoints) in PARTS.items():
        own = [without_side(k) in keypoints for k in skeleton.keypoints] if whose == figure else []
        seen = labels.keypoints[:, np.flatnonzero(own)].reshape(-1, 3)
        seen = seen[seen[:, 2] == 2]
        if len(seen):
            middles[name] = tuple(rng.choice(seen)[:2].tolist())
    return image, middles


def things_sheet(seed: int, index: int) -> Sheet:
    """A row of things, one of each kind, with an empty place among them for the scenery."""
    rng, side = np.random.default_rng([seed, index, 2]), SIDES[1]
    names = rng.permutation([*KINDS, SCENERY]).tolist()
    height, width = 3 * side // 2, side * len(names)
    image, horizon = background(rng, (height, width), SCENE.clutter)
    canvas, middles = Canvas((height, width), SCENE.supersample), {}
    for place, name in enumerate(names):
        x, ground = (place + 0.5) * side, rng.uniform(max(horizon / height, 0.65), 0.95) * height
        if name == SCENERY:
            middles[name] = x, rng.uniform(side / 2, height - side / 2)
            continue
        shapes, scale = thing(rng, name), rng.uniform(0.5, 0.75) * side
        canvas.paint(shapes, scale, (x, ground))
        top = min(y - r for shape in shapes for _, y, r in shape.circles)
        middles[name] = x, ground + scale * top / 2
    return sensed(canvas.over(image), rng, SCENE.noise, rng.uniform(0.92, 1.08), rng.uniform(-6, 6)), middles


def without_side(keypoint: str) -> str:
    """ "left_front_paw" → "front_paw"."""
    return keypoint.removeprefix("left_").removeprefix("right_")


def _write_split(folder: Path, count: int, seed: int, first: int) -> None:
    for wnid in WNIDS.values():
        (folder / wnid).mkdir(parents=True)
    sheets: list[tuple[set[str], Callable[[int], Sheet]]] = [({*KINDS, SCENERY}, lambda i: things_sheet(seed, i))]
    for figure in dict.fromkeys(figure for figure, _ in PARTS.values()):
        names = {name for name, (whose, _) in PARTS.items() if whose == figure}
        sheets.append((names, lambda i, figure=figure: figure_sheet(figure, seed, i)))
    with tqdm(total=count * len(WNIDS), desc=f"{folder.parent.name.split('.')[1]}/{folder.name}", unit="img", delay=1) as bar:
        for names, sheet in sheets:
            for name, number, picture in _cut(names, sheet, count, seed, first):
                (folder / WNIDS[name] / f"{number:04d}.jpg").write_bytes(encoded(".jpg", picture, JPEG_QUALITY))
                bar.update()


def _cut(names: set[str], sheet: Callable[[int], Sheet], count: int, seed: int,
         first: int) -> Iterator[tuple[str, int, np.ndarray]]:  # fmt: skip
    """Name, number and pixels of `count` pictures of each class, at most one from each sheet."""
    made = dict.fromkeys(sorted(names), 0)
    for index in itertools.count(first):
        image, middles = sheet(index)
        rng = np.random.default_rng([seed, index, 3])
        for name, middle in middles.items():
            window = _window(image, middle, rng)
            if made[name] < count and window is not None:
                yield name, made[name], window
                made[name] += 1
        if min(made.values()) == count:
            return


def _window(image: np.ndarray, middle: tuple[float, float], rng: np.random.Generator) -> np.ndarray | None:
    """A square around a point, moved into the image if it reaches out a little; None if it reaches out far."""
    side = int(rng.integers(SIDES[0], SIDES[1] + 1))
    corner = np.rint(np.array(middle) + rng.uniform(-side / 12, side / 12, 2) - (side - 1) / 2).astype(int)
    x, y = inside = corner.clip(0, np.array(image.shape[1::-1]) - side)
    return image[y : y + side, x : x + side] if abs(inside - corner).max() <= side / 6 else None
