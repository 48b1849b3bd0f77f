"""The synthetic dog: a second figure from the same joints and shapes, with a skeleton of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lib.data.figures import (
    Colour,
    Figure,
    Frame,
    Joint,
    Shape,
    band,
    forward_kinematics,
    hull,
    lit,
    mirrored,
    outlined,
    rotation,
    shade,
)
from lib.skeleton import Skeleton, flip_pairs_by_name

_NAMES = ["nose", "left_eye", "right_eye", "left_ear", "right_ear", "withers", "tail_base", "tail_tip",
          "left_front_elbow", "right_front_elbow", "left_front_paw", "right_front_paw",
          "left_back_knee", "right_back_knee", "left_back_paw", "right_back_paw"]  # fmt: skip
_LINKS = [("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"), ("right_eye", "right_ear"),
          ("nose", "withers"), ("withers", "tail_base"), ("tail_base", "tail_tip"),
          ("withers", "left_front_elbow"), ("withers", "right_front_elbow"),
          ("left_front_elbow", "left_front_paw"), ("right_front_elbow", "right_front_paw"),
          ("tail_base", "left_back_knee"), ("tail_base", "right_back_knee"),
          ("left_back_knee", "left_back_paw"), ("right_back_knee", "right_back_paw")]  # fmt: skip
_SIGMAS = [0.03, 0.03, 0.03, 0.04, 0.04, *[0.08] * 2, 0.06, *[0.07, 0.07, 0.06, 0.06] * 2]

DOG = Skeleton(
    "dog", _NAMES, [(_NAMES.index(a), _NAMES.index(b)) for a, b in _LINKS], flip_pairs_by_name(_NAMES), _SIGMAS
)

_LEFT = [
    Joint("left_front_shoulder", "chest", (0.058, 0.03, 0), (-60, 80), (0, 0), (-5, 12)),
    Joint("left_front_elbow", "left_front_shoulder", (0, 0.15, 0), (-5, 130)),
    Joint("left_front_paw", "left_front_elbow", (0, 0.21, 0), (-70, 60)),
    Joint("left_back_hip", "pelvis", (0.055, 0.03, 0.02), (-50, 110), (0, 0), (-5, 25)),
    Joint("left_back_knee", "left_back_hip", (0, 0.165, 0), (-135, 0)),
    Joint("left_back_hock", "left_back_knee", (0, 0.15, 0), (0, 120)),
    Joint("left_back_paw", "left_back_hock", (0, 0.11, 0)),
]
JOINTS = [
    Joint("pelvis", "", (0, 0, 0), (-45, 60), (0, 0), (-6, 6)),
    Joint("chest", "pelvis", (0, -0.01, -0.38), (-20, 20), (-18, 18), (-8, 8)),
    Joint("neck", "chest", (0, -0.06, -0.05), (-135, 0), (-30, 30), (-12, 12)),
    Joint("head", "neck", (0, -0.17, 0), (-30, 90), (-40, 40), (-15, 15)),
    Joint("tail_base", "pelvis", (0, -0.055, 0.065), (-170, -10), (0, 0), (-30, 30)),
    Joint("tail_mid", "tail_base", (0, 0.11, 0), (-50, 50), (0, 0), (-30, 30)),
    Joint("tail_tip", "tail_mid", (0, 0.11, 0)),
    *_LEFT,
    *mirrored(_LEFT),
]

# Ranges in degrees (low, high): body tilt, neck, (front leg, elbow), (hip, knee, hock), the last two for either side.
_UP = (-52, -28)
_FRONT, _BACK = ((-8, 8), (0, 8)), ((8, 20), (-50, -36), (28, 42))
POSES = {
    "stand": ((-2, 2), _UP, _FRONT, _FRONT, _BACK, _BACK),
    "sniff": ((-8, -2), (-128, -100), ((0, 18), (0, 10)), _FRONT, _BACK, _BACK),
    "walk": ((-2, 2), _UP, ((18, 34), (0, 25)), ((-32, -14), (5, 45)), ((28, 45), (-55, -35), (20, 40)),
             ((-28, -8), (-40, -18), (15, 35))),
    "run": ((-6, 8), (-75, -45), ((45, 72), (0, 35)), ((30, 60), (0, 60)), ((-48, -25), (-35, -8), (10, 40)),
            ((-45, -15), (-45, -10), (10, 45))),
    "sit": ((42, 54), (-84, -60), ((-54, -42), (0, 6)), ((-54, -42), (0, 6)), ((34, 50), (-125, -108), (100, 118)),
            ((34, 50), (-125, -108), (100, 118))),
    "bow": ((-36, -24), (-30, -5), ((75, 90), (0, 12)), ((75, 90), (0, 12)), ((28, 45), (-48, -36), (28, 42)),
            ((28, 45), (-48, -36), (28, 42))),
}  # fmt: skip
_COATS = [
    (196, 148, 96),
    (120, 82, 56),
    (232, 214, 184),
    (72, 66, 66),
    (160, 160, 164),
    (214, 168, 84),
    (246, 240, 228),
]
_COLLARS = [(214, 68, 62), (66, 128, 196), (72, 160, 110), (238, 178, 60)]
_NOSE, _SOCK = (44, 38, 42), (250, 246, 238)
_HEAD = {"nose": (0, 0.005, -0.15), "left_eye": (0.034, -0.024, -0.054), "right_eye": (-0.034, -0.024, -0.054)}


@dataclass(frozen=True)
class Coat:
    """Fur, marks, ears and collar of one dog."""

    fur: Colour
    mark: Colour
    collar: Colour
    saddle: bool
    floppy: bool
    build: float


def dog(rng: np.random.Generator, variety: float = 1.0, side_cue: bool = True, heading: float | None = None) -> Figure:
    """A random dog: about 1 long and 0.7 high, lowest point at y = 0.

    Args:
        rng: source of pose, coat and heading.
        variety: width of the pose ranges, 0..1.
        side_cue: every dog has white socks on its left paws.
        heading: degrees, 0 looks at the viewer, 90 to the right, 180 away; by default random, most often sideways.
    """
    fur, mark = (_COATS[i] for i in rng.permutation(len(_COATS))[:2])
    fur = tuple(np.clip(fur + rng.normal(0, 8, 3), 20, 250))
    coat = Coat(fur, mark, _COLLARS[rng.integers(4)], *(bool(b) for b in rng.random(2) < 0.5), rng.uniform(0.85, 1.12))
    chance = rng.choice([90, -90, 0, 180], p=[0.36, 0.36, 0.18, 0.1]) + rng.uniform(-40, 40)
    heading = chance if heading is None else heading
    camera = rotation(-rng.uniform(0, 14), 0, 0)
    frames = forward_kinematics(JOINTS, _sample_pose(rng, variety), camera @ rotation(0, heading, 0))
    body = _Body(frames, coat, side_cue)
    return Figure(body.shapes(), body.keypoints(), [body.surface(name) for name in _NAMES]).standing()


def _sample_pose(rng: np.random.Generator, variety: float) -> dict[str, tuple[float, float, float]]:
    def draw(low: float, high: float) -> float:
        return (low + high) / 2 + variety * (high - low) / 2 * rng.uniform(-1, 1)

    tilt, neck, *legs = POSES[str(rng.choice(list(POSES)))]
    sides = ("left", "right") if rng.random() < 0.5 else ("right", "left")
    tilt, neck = draw(*tilt), draw(*neck)
    angles = {"pelvis": (tilt, 0.0, 0.0), "chest": (draw(-4, 4), draw(-8, 8), 0.0), "neck": (neck, draw(-15, 15), 0.0)}
    angles["head"] = (draw(-12, 14) - 0.85 * neck - tilt, draw(-30, 30), draw(-12, 12))
    angles |= {"tail_base": (draw(-165, -40), 0.0, draw(-25, 25)), "tail_mid": (draw(-35, 35), 0.0, draw(-25, 25))}
    # A walking animal moves the legs of a diagonal together: the first hind leg is on the other side.
    for side, (shoulder, elbow) in zip(sides, legs[:2]):
        angles |= {
            f"{side}_front_shoulder": (draw(*shoulder), 0.0, draw(0, 5)),
            f"{side}_front_elbow": (draw(*elbow), 0, 0),
        }
    for side, (hip, knee, hock) in zip(sides[::-1], legs[2:]):
        angles |= {f"{side}_back_hip": (draw(*hip), 0.0, draw(0, 8)), f"{side}_back_knee": (draw(*knee), 0.0, 0.0)}
        angles |= {f"{side}_back_hock": (draw(*hock), 0.0, 0.0)}
    return angles


class _Body:
    """Shapes of one posed dog."""

    def __init__(self, frames: dict[str, Frame], coat: Coat, side_cue: bool):
        self.frames, self.coat, self.side_cue = frames, coat, side_cue

    def keypoints(self) -> np.ndarray:
        """(16, 2) in the order of the skeleton."""
        points = {name: frame.origin for name, frame in self.frames.items()}
        points |= {name: self.frames["head"].point(*local) for name, local in _HEAD.items()}
        points |= {f"{side}_ear": self._ear(s)[1] for side, s in (("left", 1), ("right", -1))}
        points["withers"] = self.frames["chest"].point(0, -0.05, 0.02)
        return np.array([points[name][:2] for name in _NAMES])

    def surface(self, keypoint: str) -> frozenset[str]:
        """Parts on which a keypoint can be seen."""
        if keypoint == "withers":
            return frozenset({"torso", "neck"})
        if keypoint in ("tail_base", "tail_tip"):
            return frozenset({"tail", "torso"} if keypoint == "tail_base" else {"tail"})
        return frozenset({keypoint.rsplit("_", 1)[0] + "_leg" if keypoint.count("_") == 2 else keypoint})

    def shapes(self) -> list[Shape]:
        """All parts, back to front."""
        chest, pelvis = self.frames["chest"].origin[2], self.frames["pelvis"].origin[2]
        middle = (chest + pelvis) / 2
        groups = {"torso": self.torso(), "head": self.head(), "tail": self.tail()}
        depth = {"torso": 0.0, "head": self.frames["head"].origin[2] - middle - 0.06,
                 "tail": 0.5 * (self.frames["tail_mid"].origin[2] - pelvis) + 0.2 * (pelvis - middle) + 0.01}  # fmt: skip
        for side in ("left", "right"):
            for end, girdle, root in (("front", chest, "shoulder"), ("back", pelvis, "hip")):
                groups[f"{side}_{end}"] = self.leg(side, end)
                hang = self.frames[f"{side}_{end}_{root}"].origin[2] - girdle
                depth[f"{side}_{end}"] = hang + 0.2 * (girdle - middle)
        return [shape for group in sorted(groups, key=lambda g: -depth[g]) for shape in groups[group]]

    def torso(self) -> list[Shape]:
        chest, pelvis, b = self.frames["chest"], self.frames["pelvis"], self.coat.build
        trunk = hull([(chest.point(0, 0.035, 0.02), 0.108 * b), (pelvis.point(0, 0.01, -0.18), 0.088 * b),
                      (pelvis.origin, 0.088 * b)], self.coat.fur, "torso")  # fmt: skip
        shapes = lit(trunk, factor=0.88)
        if self.coat.saddle:
            shapes.append(hull([(chest.point(0, -0.03, 0.07), 0.04 * b), (pelvis.point(0, -0.02, -0.17), 0.045 * b),
                                (pelvis.point(0, -0.035, -0.03), 0.036 * b)], self.coat.mark, "torso"))  # fmt: skip
        return outlined(shapes)

    def tail(self) -> list[Shape]:
        base, mid, tip = (self.frames[f"tail_{name}"].origin for name in ("base", "mid", "tip"))
        near, far = hull([(base, 0.03), (mid, 0.026)], self.coat.fur, "tail"), hull([(mid, 0.026), (tip, 0.017)],
                                                                                    self.coat.fur, "tail")  # fmt: skip
        return outlined([*lit(near, far), hull([(tip, 0.016)], self.coat.mark, "tail")])

    def leg(self, side: str, end: str) -> list[Shape]:
        coat, part, b = self.coat, f"{side}_{end}_leg", self.coat.build
        names = ("shoulder", "elbow", "paw") if end == "front" else ("hip", "knee", "hock", "paw")
        radii = (0.062, 0.036, 0.026) if end == "front" else (0.075, 0.042, 0.028, 0.026)
        joints = [self.frames[f"{side}_{end}_{name}"] for name in names]
        bones = [hull([(a.origin, ra * b), (z.origin, rz * b)], coat.fur, part)
                 for a, z, ra, rz in zip(joints, joints[1:], radii, radii[1:])]  # fmt: skip
        # The foot points forward on the ground, whatever the leg does.
        ahead = self.frames["pelvis"].axes @ (0, 0, -0.035)
        colour = _SOCK if side == "left" and self.side_cue else coat.fur
        paw = hull([(joints[-1].origin, 0.031), (joints[-1].origin + ahead, 0.026)], colour, part)
        sock = hull([(joints[-1].origin, 0.029 * b), (joints[-1].point(0, -0.04, 0), 0.028 * b)], colour, part)
        return outlined([*lit(*bones), sock, *lit(paw)])

    def _ear(self, s: int) -> tuple[np.ndarray, np.ndarray]:
        """Root and tip of an ear; s is 1 for the left, −1 for the right one."""
        at = self.frames["head"].point
        tip = at(s * 0.088, 0.035, 0.012) if self.coat.floppy else at(s * 0.06, -0.125, 0.012)
        return at(s * 0.044, -0.048, 0.012), tip

    def head(self) -> list[Shape]:
        coat, chest, head = self.coat, self.frames["chest"], self.frames["head"]
        at, neck, b = head.point, self.frames["neck"], coat.build
        throat = lit(
            hull([(chest.point(0, 0.0, -0.03), 0.085 * b), (neck.point(0, -0.14, 0), 0.058)], coat.fur, "neck")
        )
        ring = band(neck.point(0, -0.095, 0), neck.point(0, -0.065, 0), 0.074 * b, coat.collar, "neck")
        skull = hull([(at(0, -0.012, 0), 0.07)], coat.fur, "skull")
        snout = hull([(at(0, 0.022, -0.05), 0.044), (at(0, 0.026, -0.125), 0.03)], shade(coat.fur, 1.25), "snout")
        faces_us = head.axes[2, 2] > -0.1
        near: list[Shape] = []
        far: list[Shape] = []
        for side, s in (("left", 1), ("right", -1)):
            root, tip = self._ear(s)
            ear = hull([(root, 0.03), (tip, 0.02 if coat.floppy else 0.01)], coat.mark, f"{side}_ear")
            (far if root[2] > head.origin[2] + 0.02 else near).extend(outlined([ear], 0.004))
            eye, part = at(*_HEAD[f"{side}_eye"]), f"{side}_eye"
            dots = [hull([(eye, 0.015)], (250, 250, 246), part), hull([(eye, 0.011)], _NOSE, part)]
            (near if eye[2] < head.origin[2] - 0.012 else far).extend(dots)
        nose = hull([(at(*_HEAD["nose"]), 0.019)], _NOSE, "nose")
        front, back = outlined([snout], 0.004) + [nose], outlined(lit(skull, factor=0.92))
        middle = [*back, *front] if faces_us else [*front, *back]
        collar = outlined([ring], 0.004)
        if self.frames["neck"].axes[2, 2] < -0.5:  # seen from behind, the neck stands before the head
            return [*far, *middle, *near, *outlined(throat), *collar]
        return [*outlined(throat), *collar, *far, *middle, *near]
