"""What a figure is made of: names, limbs, mirror twins and how precisely each keypoint can be annotated.

Topology is data. A `Skeleton` comes from a COCO category, from a YAML file or from `BUILT_IN`; flip indices, part
affinity channels, OKS, drawing and neck insertion are all derived from it, and no keypoint index stands anywhere else.
"""

from __future__ import annotations

import difflib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml

UNKNOWN_SIGMA = 0.05
PEOPLE = ("person", "people", "human", "pedestrian")

# Spread of annotators as a fraction of the object's size (COCO keypoint evaluation). Places that COCO does not annotate
# take the value of what they lie between or beside: neck and thorax the shoulders', pelvis the hips', top of the head the ears'.
COCO_SIGMAS = dict(nose=0.026, eye=0.025, ear=0.035, shoulder=0.079, elbow=0.072, wrist=0.062, hip=0.107, knee=0.087,
                   ankle=0.089, neck=0.079, thorax=0.079, pelvis=0.107, top=0.035)  # fmt: skip


@dataclass(frozen=True)
class Skeleton:
    """Keypoints of one kind of figure.

    Attributes:
        name: the category, for people "person".
        keypoints: K unique names in channel order.
        limbs: L pairs of 0-based keypoint indices, in part affinity field order; the graph may have cycles.
        flip_pairs: pairs of indices which change places when the image is mirrored.
        sigmas: K annotation spreads for OKS, as fractions of the object's size (square root of its area).

    Raises:
        ValueError: an index, a name or the number of sigmas does not fit, with the way out.
    """

    name: str
    keypoints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]

    def __post_init__(self):
        # lists from JSON and YAML become tuples, so that equal skeletons compare equal
        object.__setattr__(self, "keypoints", tuple(self.keypoints))
        object.__setattr__(self, "limbs", tuple((int(a), int(b)) for a, b in self.limbs))
        object.__setattr__(self, "flip_pairs", tuple((int(a), int(b)) for a, b in self.flip_pairs))
        object.__setattr__(self, "sigmas", tuple(float(s) for s in self.sigmas))
        _check(self)

    @property
    def num_keypoints(self) -> int:
        return len(self.keypoints)

    @property
    def num_limbs(self) -> int:
        return len(self.limbs)

    @cached_property
    def flip_index(self) -> np.ndarray:
        """(K,) int64: keypoint k of the mirrored image is keypoint `flip_index[k]` of the original."""
        index = np.arange(self.num_keypoints)
        for a, b in self.flip_pairs:
            index[a], index[b] = b, a
        return index

    @cached_property
    def limb_flip(self) -> tuple[np.ndarray, np.ndarray]:
        """Twin of every limb under mirroring: its index (L,) int64, and −1 where the twin points the other way.

        A limb without a twin in the list maps to −1.
        """
        twins, signs = np.full(self.num_limbs, -1), np.ones(self.num_limbs, np.float32)
        for k, (a, b) in enumerate(self.limbs):
            a, b = int(self.flip_index[a]), int(self.flip_index[b])
            if (a, b) in self.limbs:
                twins[k] = self.limbs.index((a, b))
            elif (b, a) in self.limbs:
                twins[k], signs[k] = self.limbs.index((b, a)), -1
        return twins, signs

    def index(self, keypoint: str) -> int:
        """0-based index of a keypoint's name; KeyError names the nearest one."""
        if keypoint not in self.keypoints:
            near = difflib.get_close_matches(keypoint, self.keypoints, 1)
            hint = f", did you mean {near[0]!r}?" if near else f": it has {', '.join(self.keypoints)}"
            raise KeyError(f"skeleton {self.name!r} has no keypoint {keypoint!r}{hint}")
        return self.keypoints.index(keypoint)

    def with_neck(self) -> Skeleton:
        """Append `neck` as the last keypoint and rewire the trunk through it, as trt_pose does.

        Links shoulder–shoulder and shoulder–hip go; neck–nose, neck–shoulders and neck–hips come, at the end.
        """
        if "neck" in self.keypoints:
            raise ValueError(f"skeleton {self.name!r} has a neck already (keypoint {self.index('neck')})")
        nose, *shoulders = (self.index(n) for n in ("nose", "left_shoulder", "right_shoulder"))
        hips = [self.index("left_hip"), self.index("right_hip")]
        trunk = {frozenset(shoulders), *(frozenset(pair) for pair in zip(shoulders, hips))}
        neck = self.num_keypoints
        limbs = [limb for limb in self.limbs if frozenset(limb) not in trunk]
        limbs += [(neck, end) for end in (nose, *shoulders, *hips)]
        sigma = float(np.mean([self.sigmas[s] for s in shoulders]))
        return Skeleton(self.name, (*self.keypoints, "neck"), limbs, self.flip_pairs, (*self.sigmas, sigma))

    @classmethod
    def from_coco(cls, category: Mapping) -> Skeleton:
        """Read a COCO category: `name`, `keypoints`, 1-based `skeleton`, and `sigmas` if it brings them.

        Mirror twins are found by name (left/right, l/r). Without `sigmas`, keypoints which COCO knows by name get COCO's
        value; the others get 0.05. A warning says so, and also that a figure which is no person borrows people's values.
        """
        names = list(category.get("keypoints") or ())
        if not names:
            raise ValueError(f"category {category.get('name')!r} has no keypoints; choose one that lists them")
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"category {category.get('name')!r}: keypoints are names, got {names}")
        try:
            limbs = [(a - 1, b - 1) for a, b in category.get("skeleton") or ()]
        except (TypeError, ValueError):
            raise ValueError(
                f"category {category.get('name')!r}: skeleton must be pairs of keypoints counted from 1, got "
                f"{category['skeleton']}"
            ) from None
        sigmas = category.get("sigmas") or _sigmas_by_name(names, str(category.get("name")))
        return cls(category.get("name", ""), names, limbs, flip_pairs_by_name(names), sigmas)

    def to_coco(self, category_id: int = 1) -> dict:
        """COCO category with 1-based links, plus our `sigmas` so that a custom skeleton evaluates the same elsewhere."""
        return {
            "id": category_id,
            "name": self.name,
            "supercategory": self.name,
            "keypoints": list(self.keypoints),
            "skeleton": [[a + 1, b + 1] for a, b in self.limbs],
            "sigmas": list(self.sigmas),
        }

    @classmethod
    def from_yaml(cls, path: str | Path) -> Skeleton:
        """Read name, keypoints, limbs as pairs of names (or indices), and optionally flip_pairs and sigmas (by name)."""
        try:
            return cls(**_from_yaml(yaml.safe_load(Path(path).read_text())))
        except (ValueError, TypeError, yaml.YAMLError) as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def named(cls, name: str | Path) -> Skeleton:
        """One of `BUILT_IN`, or what a YAML file or the only category with keypoints of a COCO file describes.

        Raises:
            ValueError: neither a built-in name (the nearest is named) nor such a file.
        """
        if str(name) in BUILT_IN:
            return BUILT_IN[str(name)]
        path = Path(name)
        if path.suffix.lower() in (".yaml", ".yml"):
            return cls.from_yaml(path)
        if path.suffix.lower() == ".json":
            return _from_coco_file(path)
        near = difflib.get_close_matches(str(name), BUILT_IN, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"built in are {', '.join(BUILT_IN)}"
        raise ValueError(f"no skeleton {str(name)!r}: {hint} (or give a .yaml of your own, or a COCO .json)")

    def to_dict(self) -> dict:
        """Plain lists and numbers, for metadata of checkpoints and exported files; `Skeleton(**d)` reads it back."""
        return {k: [list(v) if isinstance(v, tuple) else v for v in value] if isinstance(value, tuple) else value
                for k, value in asdict(self).items()}  # fmt: skip


def flip_pairs_by_name(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pair `left_x` with `right_x`, `x_left` with `x_right`, `l_x` with `r_x`, `Lx` with `Rx`."""
    patterns = [("left", "right"), ("Left", "Right"), (r"\bl(?=[_ -])", "r"), (r"(?<=[_ -])l\b", "r"),
                (r"\bL(?=[A-Z_ -])", "R"), (r"(?<=[_ -])L\b", "R")]  # fmt: skip
    pairs = []
    for a, name in enumerate(names):
        for left, right in patterns:
            twin = re.sub(left, right, name, count=1)
            if twin != name and twin in names:
                pairs.append((a, list(names).index(twin)))
                break
    return tuple(pairs)


def _sigmas_by_name(names: Sequence[str], figure: str) -> list[float]:
    found = {name: next((s for part, s in COCO_SIGMAS.items() if name.split("_")[-1] == part), None) for name in names}
    unknown = [name for name, sigma in found.items() if sigma is None]
    borrowed = [name for name in names if name not in unknown and figure.lower() not in PEOPLE]
    said = [f"no sigma known for {', '.join(unknown)}: OKS uses {UNKNOWN_SIGMA} for each"] if unknown else []
    said += [f"{figure!r} borrows people's sigmas for {', '.join(borrowed)}"] if borrowed else []
    if said:
        warnings.warn(f"{'; '.join(said)}; add `sigmas` to the category to set your own", stacklevel=3)
    return [UNKNOWN_SIGMA if sigma is None else sigma for sigma in found.values()]


def _from_coco_file(path: Path) -> Skeleton:
    try:
        categories = [c for c in json.loads(path.read_text())["categories"] if c.get("keypoints")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a COCO file with categories: {type(error).__name__} {error}") from None
    if len(categories) != 1:
        found = ", ".join(repr(c.get("name")) for c in categories) or "none"
        raise ValueError(f"{path}: exactly one category with keypoints is needed, found {found}")
    return Skeleton.from_coco(categories[0])


def _from_yaml(data) -> dict:
    if not isinstance(data, dict) or not {"name", "keypoints", "limbs"} <= data.keys():
        raise ValueError("a skeleton file needs the keys name, keypoints and limbs")
    for key in ("keypoints", "limbs"):
        if not isinstance(data[key], list):
            raise ValueError(f"{key} must be a list, got {data[key]!r}")
    names = data["keypoints"]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"keypoints are names (quote numbers and yes/no), got {names}")
    sigmas = data.get("sigmas") or _sigmas_by_name(names, str(data["name"]))
    if isinstance(sigmas, dict):
        if set(sigmas) != set(names):
            raise ValueError(f"sigmas must name every keypoint once; differing: {set(sigmas) ^ set(names)}")
        sigmas = [sigmas[name] for name in names]
    flips = _pairs(data, "flip_pairs", names) if "flip_pairs" in data else flip_pairs_by_name(names)
    return dict(name=data["name"], keypoints=names, limbs=_pairs(data, "limbs", names), flip_pairs=flips, sigmas=sigmas)


def _pairs(data: dict, key: str, names: list[str]) -> list[tuple[int, int]]:
    pairs = []
    for pair in data[key]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(f"{key}: {pair!r} is not a pair of keypoints")
        unknown = [end for end in pair if isinstance(end, str) and end not in names]
        if unknown:
            raise ValueError(f"{key}: {unknown[0]!r} is not in list; the keypoints are {', '.join(names)}")
        pairs.append(tuple(names.index(end) if isinstance(end, str) else end for end in pair))
    return pairs


def _check(s: Skeleton) -> None:
    k = len(s.keypoints)
    if k == 0 or len(set(s.keypoints)) != k:
        raise ValueError(f"skeleton {s.name!r} needs unique keypoint names, got {list(s.keypoints)}")
    for what in ("limbs", "flip_pairs"):
        for pair in getattr(s, what):
            if not all(0 <= end < k for end in pair) or pair[0] == pair[1]:
                raise ValueError(
                    f"skeleton {s.name!r} has {k} keypoints, {what} {pair} is not a pair of them (0-based)"
                )
    if len({frozenset(limb) for limb in s.limbs}) != len(s.limbs):
        raise ValueError(f"skeleton {s.name!r} lists a limb twice")
    ends = [end for pair in s.flip_pairs for end in pair]
    if len(set(ends)) != len(ends):
        raise ValueError(f"skeleton {s.name!r}: a keypoint stands in two flip_pairs: {s.flip_pairs}")
    if len(s.sigmas) != k:
        raise ValueError(f"skeleton {s.name!r} has {k} keypoints but {len(s.sigmas)} sigmas")
    if not all(np.isfinite(v) and v > 0 for v in s.sigmas):
        raise ValueError(f"skeleton {s.name!r}: sigmas must be positive numbers, got {s.sigmas}")


_COCO_KEYPOINTS = ["nose"] + [f"{side}_{part}" for part in
                              ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
                              for side in ("left", "right")]  # fmt: skip

# 1-based links of the official person category, in its order
_COCO_LINKS = [(16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10),
               (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)]  # fmt: skip

COCO17 = Skeleton.from_coco({"name": "person", "keypoints": _COCO_KEYPOINTS, "skeleton": _COCO_LINKS})
COCO18_NECK = COCO17.with_neck()

_MPII_LEGS = ["right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"]
_MPII_ARMS = ["right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist"]

# http://human-pose.mpi-inf.mpg.de, ids 0 to 15; the spine ties legs, arms and head together
MPII16 = Skeleton.from_coco({
    "name": "person",
    "keypoints": [*_MPII_LEGS, "pelvis", "thorax", "upper_neck", "head_top", *_MPII_ARMS],
    "skeleton": [(1, 2), (2, 3), (3, 7), (7, 4), (4, 5), (5, 6), (7, 8), (8, 9), (9, 10),
                 (11, 12), (12, 13), (13, 8), (8, 14), (14, 15), (15, 16)],
})  # fmt: skip
# the 14 of DeeperCut (Insafutdinov et al., 2016), in its order: pelvis and thorax are left out
MPII14 = Skeleton.from_coco({
    "name": "person",
    "keypoints": [*_MPII_LEGS, *_MPII_ARMS, "upper_neck", "head_top"],
    "skeleton": [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (7, 8), (8, 9), (9, 13), (13, 10), (10, 11), (11, 12),
                 (3, 9), (4, 10), (13, 14)],
})  # fmt: skip

# OpenPose's eighteen (Cao et al. 2017): the neck comes second, everything hangs on it, and the ears are tied to the
# shoulders; the order of the limbs is that of Lightweight OpenPose's part affinity fields
OPENPOSE18 = Skeleton.from_coco({
    "name": "person",
    "keypoints": ["nose", "neck"]
    + [f"{side}_{part}" for side in ("right", "left") for part in ("shoulder", "elbow", "wrist")]
    + [f"{side}_{part}" for side in ("right", "left") for part in ("hip", "knee", "ankle")]
    + ["right_eye", "left_eye", "right_ear", "left_ear"],
    "skeleton": [(2, 9), (9, 10), (10, 11), (2, 12), (12, 13), (13, 14), (2, 3), (3, 4), (4, 5), (3, 17),
                 (2, 6), (6, 7), (7, 8), (6, 18), (2, 1), (1, 15), (1, 16), (15, 17), (16, 18)],
})  # fmt: skip

BUILT_IN: dict[str, Skeleton] = {
    "coco17": COCO17, "coco18_neck": COCO18_NECK, "mpii16": MPII16, "mpii14": MPII14, "openpose18": OPENPOSE18,
}  # fmt: skip
