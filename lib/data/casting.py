"""Casting: the poses and the clothes among which chance chooses a synthetic person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.data.figures import Colour

# Poses: ranges in degrees (low, high). `arm`, `leg` hold for one side, drawn by lot, `arm2`, `leg2` for the other one
# (the same if missing). arm = (shoulder pitch, shoulder roll, shoulder twist, elbow); leg = (hip pitch, hip roll, knee).
_HANG = ((-15, 22), (4, 20), (-25, 15), (4, 50))
_STRAIGHT = ((-6, 8), (1, 9), (0, 8))
POSES: dict[str, dict] = {
    "stand": {"arm": _HANG, "leg": _STRAIGHT},
    "hands_on_hips": {"arm": ((-30, -14), (42, 54), (-88, -70), (88, 108)), "leg": ((-6, 8), (4, 14), (0, 8))},
    "wave": {"arm": ((-10, 15), (85, 140), (75, 90), (20, 95)), "arm2": _HANG, "leg": _STRAIGHT},
    "reach": {"arm": ((70, 165), (0, 35), (-20, 20), (0, 35)), "arm2": _HANG, "leg": _STRAIGHT, "bend": (-5, 15)},
    "cheer": {"arm": ((135, 178), (5, 35), (-30, 30), (0, 55)), "leg": ((-8, 10), (3, 22), (0, 12))},
    "arms_out": {"arm": ((-10, 15), (60, 105), (-20, 60), (0, 35)), "leg": ((-8, 10), (4, 25), (0, 10))},
    "think": {"arm": ((25, 45), (0, 12), (-45, -20), (115, 140)), "arm2": ((10, 25), (0, 8), (-75, -55), (70, 95)),
              "leg": _STRAIGHT},
    "walk": {"arm": ((-38, -15), (3, 12), (-10, 10), (8, 35)), "arm2": ((15, 42), (3, 12), (-20, 5), (12, 50)),
             "leg": ((16, 34), (0, 5), (2, 14)), "leg2": ((-26, -10), (0, 5), (12, 42)), "bend": (0, 8)},
    "run": {"arm": ((-58, -30), (4, 15), (-15, 5), (70, 110)), "arm2": ((25, 60), (4, 15), (-30, 0), (75, 115)),
            "leg": ((45, 78), (0, 6), (60, 105)), "leg2": ((-30, -12), (0, 5), (25, 85)), "bend": (8, 20)},
    "lunge": {"arm": ((-10, 60), (8, 40), (-20, 20), (10, 80)), "leg": ((62, 85), (0, 8), (72, 92)),
              "leg2": ((-30, -18), (0, 6), (15, 40)), "bend": (0, 15)},
    "kick": {"arm": ((-30, 30), (30, 80), (-10, 30), (5, 45)), "leg": ((50, 95), (0, 15), (0, 30)),
             "leg2": ((-8, 4), (2, 8), (2, 15)), "bend": (-10, 8)},
    "tree": {"arm": ((150, 178), (2, 14), (-20, 10), (5, 45)), "leg": ((45, 70), (35, 55), (100, 130)),
             "leg2": ((-3, 3), (0, 4), (0, 4))},
    "squat": {"arm": ((50, 95), (5, 25), (-20, 10), (0, 40)), "leg": ((85, 115), (8, 30), (95, 130)), "bend": (15, 40)},
    "bend": {"arm": ((50, 110), (0, 15), (-20, 15), (0, 25)), "leg": ((-2, 18), (2, 10), (2, 22)), "bend": (40, 80)},
    "jump": {"arm": ((60, 170), (15, 60), (-20, 60), (5, 60)), "leg": ((0, 60), (4, 28), (15, 95)), "bend": (-10, 12)},
    "sit": {"arm": ((12, 45), (4, 16), (-30, -5), (35, 80)), "leg": ((78, 96), (3, 16), (68, 100)), "bend": (-2, 15)},
    "dance": {"arm": ((-30, 150), (10, 110), (-50, 80), (10, 110)), "leg": ((-12, 50), (2, 30), (2, 60)),
              "leg2": ((-10, 10), (2, 16), (0, 20)), "bend": (-10, 25)},
}  # fmt: skip
_WEIGHTS = {"stand": 3, "walk": 3, "wave": 1.5, "sit": 1.5, "dance": 1.5}

SKIN = [(255, 224, 196), (244, 205, 170), (230, 180, 140), (203, 146, 104), (160, 106, 72), (118, 76, 52), (88, 56, 42)]
HAIR = [(38, 30, 30), (66, 44, 34), (110, 70, 42), (158, 104, 58), (214, 170, 98), (150, 150, 156), (160, 64, 40)]
CLOTH = [(226, 87, 76), (242, 157, 75), (246, 205, 97), (121, 184, 121), (62, 150, 140), (78, 163, 210), (59, 105, 178),
         (120, 94, 170), (200, 110, 160), (236, 236, 230), (70, 76, 92), (150, 160, 172), (176, 124, 92)]  # fmt: skip
TROUSERS = [(52, 72, 112), (44, 50, 66), (92, 112, 146), (128, 104, 82), (84, 92, 80), (188, 172, 146), (70, 62, 74)]
SHOES = [(60, 52, 50), (236, 234, 228), (150, 84, 60), (48, 66, 110), (190, 60, 60)]


@dataclass(frozen=True)
class Look:
    """Everything about a person which is not the pose."""

    skin: Colour
    hair: Colour
    shirt: Colour
    bottom: Colour
    shoes: Colour
    sleeve: float  # 0 none .. 1 down to the wrist
    legwear: str  # trousers, shorts, skirt or dress
    hairstyle: str  # short, long, bun, cap or bald
    pattern: str  # plain, stripes, zip or badge
    build: float  # width of limbs and body, 1 is average
    smile: float  # -1 sad .. 1 glad
    glasses: bool
    beard: bool


def sample_look(rng: np.random.Generator) -> Look:
    """Dress somebody at random."""

    def pick(colours: Sequence[Colour], jitter: float = 10) -> Colour:
        return tuple(np.clip(colours[rng.integers(len(colours))] + rng.normal(0, jitter, 3), 8, 250))

    style = str(rng.choice(["short", "long", "bun", "cap", "bald"], p=[0.42, 0.24, 0.12, 0.15, 0.07]))
    return Look(
        pick(SKIN, 5), pick(HAIR, 6), pick(CLOTH), pick(TROUSERS), pick(SHOES),
        sleeve=float(rng.choice([0.0, 0.42, 1.0], p=[0.12, 0.45, 0.43])),
        legwear=str(rng.choice(["trousers", "shorts", "skirt", "dress"], p=[0.62, 0.16, 0.1, 0.12])),
        hairstyle=style,
        pattern=str(rng.choice(["plain", "stripes", "zip", "badge"], p=[0.35, 0.2, 0.25, 0.2])),
        build=float(rng.uniform(0.88, 1.15)),
        smile=float(rng.uniform(-0.3, 1)),
        glasses=bool(rng.random() < 0.15),
        beard=bool(style in ("short", "cap", "bald") and rng.random() < 0.25),
    )  # fmt: skip


def sample_pose(rng: np.random.Generator, variety: float = 1.0) -> tuple[str, dict[str, tuple[float, float, float]]]:
    """Name of a pose and its angles; `variety` 0 gives the middle of every range, 1 the full range."""
    names = list(POSES)
    weights = np.array([_WEIGHTS.get(n, 1.0) for n in names])
    name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    pose = POSES[name]

    def draw(limits: Sequence[float]) -> float:
        low, high = limits
        return (low + high) / 2 + variety * (high - low) / 2 * rng.uniform(-1, 1)

    first, second = ("left", "right") if rng.random() < 0.5 else ("right", "left")
    angles = {"spine": (-draw(pose.get("bend", (-4, 7))), draw((-14, 14)), draw((-6, 6))),
              "head": (draw((-14, 12)) + 0.4 * float(name == "bend") * 40, draw((-38, 38)), draw((-9, 9))),
              "pelvis": (0.0, 0.0, draw((-4, 4)))}  # fmt: skip
    for side, number in ((first, ""), (second, "2")):
        pitch, roll, twist, elbow = map(draw, pose.get("arm" + number, pose["arm"]))
        angles |= {f"{side}_shoulder": (pitch, twist, roll), f"{side}_elbow": (elbow, 0, 0)}
        angles |= {f"{side}_wrist": (draw((-15, 15)), 0.0, 0.0)}
        hip, spread, knee = map(draw, pose.get("leg" + number, pose["leg"]))
        angles |= {f"{side}_hip": (hip, draw((0, 18)), spread), f"{side}_knee": (-knee, 0, 0)}
        angles |= {f"{side}_ankle": (knee - hip if name in ("squat", "lunge", "walk") else draw((-6, 6)), 0.0, 0.0)}
    return name, angles
