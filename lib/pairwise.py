"""What DeeperCut needs to know of pairs of keypoints: `python -m lib pairwise-stats RECIPE --out FILE` before training, where they
lie from each other; `python -m lib pairwise-fit MODEL --data_dir DIR` after it, which detections are of one person."""

from __future__ import annotations

import dataclasses
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import yaml
from safetensors import safe_open
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from lib import ROOT
from lib.checkpoints import Model, load_model, save_model
from lib.codecs.pair_model import Fit, Samples, draw_samples, fit_pair_model, read_published
from lib.codecs.parts import PartsCodec
from lib.data.coco import find_split
from lib.data.dataset import CocoKeypoints, KeypointSamples, collate
from lib.data.index import LabelIndex
from lib.data.pair_statistics import of_training_set, read_pair_stats, write_pair_stats
from lib.files import write
from lib.runtime import TorchNetwork
from lib.skeleton import Skeleton
from lib.training import load_recipe, read_recipe


def stats(recipe: str, *, out: Path, published: Path | None = None, scale: float = 1.0, flip: bool | None = None) -> Path:
    """Measure from the training labels where the keypoints of a person lie from each other, mean and spread of every pair.

    Training does that itself where a recipe has no `pair_stats`; this is for looking at them, for keeping those of one data
    set while training on another, and for the original's files.

    Args:
        recipe: of a DeeperCut network; its training pictures are measured.
        out: .yaml for a copy of the recipe with the pair_stats in it, or .mat for DeeperCut's own programs.
        published: a pairwise_stats.mat of theirs, instead of measuring.
        scale: pixels of the network's input per pixel of that file, the original's global_scale.
        flip: also count everybody's mirror image; by default where the recipe's training mirrors.

    Raises:
        ValueError: the recipe is for another codec, a file is of another skeleton, or `out` has another suffix.
    """
    if Path(out).suffix not in (".yaml", ".mat"):
        raise ValueError(f"{out}: write to a .yaml (the recipe with its pair_stats) or to a .mat (DeeperCut's own)")
    learner, data = load_recipe(recipe)
    if not isinstance(learner.codec, PartsCodec):
        raise ValueError(f"{recipe} is for the codec {type(learner.codec).__name__}, which has no use for pairs; give a recipe for "
                         "PartsCodec")  # fmt: skip
    if published is None:
        rows = of_training_set(data.train_set, flip)
    else:
        rows = read_pair_stats(published, data.skeleton, scale)
    print(_widest(rows, data.skeleton))
    if Path(out).suffix == ".mat":
        write_pair_stats(out, rows, data.skeleton)
    else:
        content = read_recipe(recipe)
        content["model"]["codec"]["pair_stats"] = np.round(rows, 3).tolist()
        write(out, yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=130))
    print(f"{out}: written")
    return Path(out)


def fit(model: Path, *, out: Path | None = None, recipe: str | None = None, data_dir: str | None = None,
        published: Path | None = None, pictures: int = 500, per_picture: int = 20, penalty_c: float = 1.0, least: int = 50,
        batch_size: int = 8, device: str = "cpu", seed: int = 0) -> Path:  # fmt: skip
    """Learn how probably two detections are of one person, from the network's own answers to training pictures.

    Writes a copy of the model with the regressions in its codec (`pair_model`). Pairs of which there are too few samples are
    named and keep the built-in rule.

    Args:
        model: .safetensors checkpoint of a DeeperCut network with pairwise maps.
        out: .safetensors to write; by default the model's own file is replaced.
        recipe: whose training pictures are taken.
        data_dir: or a folder with annotations and images, as for training.
        published: or, instead of learning, a folder with spatial_model_cidx_A_B.mat of the published TensorFlow models.
        pictures: how many are looked at, drawn at random.
        per_picture: samples of one person drawn for each pair of keypoints in a picture, and as many of different ones.
        penalty_c: C of the logistic regressions; DeeperCut has 0.001.
        least: samples of either kind that a pair needs.
        batch_size: pictures per network call.
        device: cpu, cuda or cuda:1.
        seed: of all that is random; the same seed gives the same file.

    Raises:
        ValueError: the model has no pairwise maps or other keypoints than the pictures, a number is out of its range, or no pair
            has enough samples.
    """
    given = [source for source in (recipe, data_dir, published) if source is not None]
    if len(given) != 1:
        raise ValueError("name exactly one of --recipe RECIPE, --data_dir FOLDER (training pictures to learn from) and "
                         f"--published FOLDER (.mat files), got {len(given)}")  # fmt: skip
    if min(pictures, per_picture, least) < 1 or not penalty_c > 0:
        raise ValueError(f"pictures, per_picture and least are 1 or more and penalty_c is above 0, got {pictures}, {per_picture}, "
                         f"{least} and {penalty_c:g}")  # fmt: skip
    if out is not None and Path(out).suffix != ".safetensors":
        raise ValueError(f"{out}: what is written is a checkpoint, its name ends in .safetensors")
    loaded = load_model(model)
    _check_pairs(loaded, model)
    if published is not None:
        rows, about = read_published(published, loaded.skeleton), {"published": str(Path(published).name)}
    else:
        samples = sampled(loaded, _training_set(loaded, recipe, data_dir), pictures=pictures, per_picture=per_picture,
                          batch_size=batch_size, device=device, seed=seed)  # fmt: skip
        found = fit_pair_model(samples, loaded.skeleton, np.random.default_rng(seed), penalty_c=penalty_c, least=least)
        print(_summary(found, loaded.skeleton, least))
        about = {"pictures": pictures, "per_picture": per_picture, "penalty_c": penalty_c, "seed": seed}
        rows = found.rows
    fitted = dataclasses.replace(loaded, codec=dataclasses.replace(loaded.codec, pair_model=rows),
                                 info=loaded.info | {"pair_model": about})  # fmt: skip
    out = save_model(out or model, fitted, half=_is_half(model))
    print(f"{out}: {sum(row is not None for row in rows)} of {len(rows)} pairs have a regression")
    return out


def sampled(model: Model, train_set: KeypointSamples, *, pictures: int = 500, per_picture: int = 20, batch_size: int = 8,
            device: str = "cpu", seed: int = 0) -> Samples:  # fmt: skip
    """Samples of pairs from the network's answers to training pictures; arguments as for `fit`."""
    rng, network = np.random.default_rng(seed), TorchNetwork(model, device, "fp32", None)
    chosen = np.sort(rng.permutation(len(train_set))[:pictures])
    loader = DataLoader(Subset(train_set, chosen.tolist()), batch_size, collate_fn=collate)
    found = []
    with tqdm(total=len(chosen), desc="samples of pairs", unit="img") as bar:
        for batch in loader:
            maps = network(batch["images"].permute(0, 2, 3, 1).contiguous().numpy())
            for n, keypoints in enumerate(batch["keypoints"].numpy()):
                scale = np.sqrt(abs(np.linalg.det(batch["affines"][n, :, :2].numpy())))
                found.append(draw_samples(
                    {name: values[n] for name, values in maps.items()}, keypoints, model.codec, rng, most=per_picture,
                    radius=model.codec.radius * (scale if model.codec.radius_scales else 1), mask=batch["mask"][n].numpy(),
                ))  # fmt: skip
            bar.update(n + 1)
    return Samples.joined(found)


def _training_set(model: Model, recipe: str | None, data_dir: str | None) -> KeypointSamples:
    """Whole training pictures of a recipe or a folder, with the model's keypoints."""
    if recipe is not None:
        train_set = load_recipe(recipe)[1].whole_pictures()
        if train_set.skeleton.keypoints != model.skeleton.keypoints:
            raise ValueError(f"{recipe} has the keypoints {', '.join(train_set.skeleton.keypoints)}, the model "
                             f"{', '.join(model.skeleton.keypoints)}: fit it on pictures with its own")  # fmt: skip
        return train_set
    annotations, images = find_split(ROOT / data_dir, "train")
    labels = LabelIndex.of(annotations).with_skeleton(model.skeleton, None)
    return CocoKeypoints(labels, images, input_size=model.input_size, keep_aspect_ratio=model.keep_aspect_ratio,
                         mask_stride=model.codec.stride)  # fmt: skip


def _widest(rows: np.ndarray, skeleton: Skeleton, shown: int = 5) -> str:
    """What is to be seen of statistics: the pairs that hold together best, and least."""
    names = [f"{a} → {b}" for a, b in permutations(skeleton.keypoints, 2)]
    order = np.argsort(np.hypot(rows[:, 2], rows[:, 3]), kind="stable")
    lines = [f"{len(rows)} pairs of keypoints; mean and spread in pixels of the network's input"]
    for p in order if len(order) <= 2 * shown else [*order[:shown], *order[-shown:]]:
        x, y, spread_x, spread_y = rows[p]
        lines.append(f"  {names[p]:32} x {x:7.1f} ± {spread_x:5.1f}   y {y:7.1f} ± {spread_y:5.1f}")
    return "\n".join(lines)


def _check_pairs(model: Model, path: Path) -> None:
    codec = model.codec
    if not isinstance(codec, PartsCodec) or not codec.pairwise or codec.skeleton.num_keypoints < 2:
        raise ValueError(f"{path} has no pairwise maps ({type(model.network).__name__}), so there is nothing to learn of pairs; "
                         "train a DeeperCut network with pairwise terms")  # fmt: skip
    codec.stats()  # or one clear sentence


def _summary(found: Fit, skeleton: Skeleton, least: int) -> str:
    named = [f"{a}–{b}" for a, b in combinations(skeleton.keypoints, 2)]
    fitted = [p for p, row in enumerate(found.rows) if row is not None]
    without = [name for name, row in zip(named, found.rows) if row is None]
    if not fitted:
        raise ValueError(f"no pair of keypoints has {least} samples of one person and as many of different ones: take more "
                         "pictures, or a smaller --least")  # fmt: skip
    worst = min(fitted, key=lambda p: found.right[p])
    typical, right, ruled = (np.take(values, fitted) for values in (found.positives, found.right, found.ruled))
    said = (f"{len(fitted)} pairs of keypoints, each from {np.median(typical):.0f} samples of one person (median) and as many of different ones: the "
            f"regressions are right about {right.mean():.1%} of them, the built-in rule about {ruled.mean():.1%}; the worst is {named[worst]} "
            f"with {found.right[worst]:.1%}")  # fmt: skip
    if without:
        said += f"\nfewer than {least} samples, so these keep the built-in rule: {', '.join(without)}"
    return said


def _is_half(path: Path) -> bool:
    """Whether a checkpoint stores float16."""
    with safe_open(path, framework="pt") as file:
        return any(file.get_slice(key).get_dtype() == "F16" for key in file.keys())  # noqa: SIM118 (not a mapping)
