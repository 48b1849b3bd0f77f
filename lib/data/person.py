"""The synthetic person: a body with joint limits, poses, clothes, and the 17 keypoints of COCO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.data.figures import (
    Colour,
    Figure,
    Frame,
    Joint,
    Shape,
    forward_kinematics,
    hull,
    lit,
    mirrored,
    outlined,
    rotation,
    shade,
)
from lib.skeleton import COCO17

_LEFT = [
    Joint("left_shoulder", "spine", (0.105, -0.275, 0), (-60, 180), (-90, 90), (-20, 170)),
    Joint("left_elbow", "left_shoulder", (0, 0.155, 0), (0, 150)),
    Joint("left_wrist", "left_elbow", (0, 0.145, 0), (-60, 60), (-90, 90), (-20, 20)),
    Joint("left_hip", "pelvis", (0.058, 0.012, 0), (-35, 125), (-25, 50), (-15, 60)),
    Joint("left_knee", "left_hip", (0, 0.215, 0), (-145, 0)),
    Joint("left_ankle", "left_knee", (0, 0.212, 0), (-40, 25), (-10, 20), (-10, 10)),
]
JOINTS = [
    Joint("pelvis", "", (0, 0, 0), (-40, 40), (0, 0), (-40, 40)),
    Joint("spine", "pelvis", (0, -0.01, 0), (-90, 20), (-35, 35), (-30, 30)),
    Joint("head", "spine", (0, -0.3, 0), (-40, 35), (-65, 65), (-25, 25)),
    *_LEFT,
    *mirrored(_LEFT),
]

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
BAND = (255, 92, 48)  # the wristband that everybody wears on the left


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


def person(rng: np.random.Generator, variety: float = 1.0, side_cue: bool = True) -> Figure:
    """A random person: height about 1 when standing, lowest point at y = 0.

    Args:
        rng: source of pose, clothes and heading.
        variety: width of the pose ranges, 0..1.
        side_cue: everybody wears an orange band on the left wrist and a lighter left shoe.
    """
    name, angles = sample_pose(rng, variety)
    look = sample_look(rng)
    facing = rng.choice([0, 180, 90, -90], p=[0.48, 0.2, 0.16, 0.16]) + rng.uniform(-45, 45)
    camera = rng.uniform(-2, 14)
    frames = forward_kinematics(JOINTS, angles, rotation(-camera, 0, 0) @ rotation(0, facing, 0))
    body = _Body(frames, look, side_cue)
    shapes = body.shapes()
    lowest = max(y + r for s in shapes for _, y, r in s.circles) + (rng.uniform(0.08, 0.25) if name == "jump" else 0)
    shapes = [s._replace(circles=[(x, y - lowest, r) for x, y, r in s.circles]) for s in shapes]
    seat = ()
    if name == "sit":
        x, y = frames["pelvis"].origin[:2]
        seat = [(x - 0.1, y + 0.1 - lowest, 0.03), (x + 0.1, y + 0.1 - lowest, 0.03), (x - 0.1, -0.04, 0.03),
                (x + 0.1, -0.04, 0.03)]  # fmt: skip
    return Figure(shapes, body.keypoints() - (0, lowest), SURFACES, seat)


class _Body:
    """Shapes of one posed and dressed person."""

    def __init__(self, frames: dict[str, Frame], look: Look, side_cue: bool):
        self.frames, self.look, self.side_cue = frames, look, side_cue

    def keypoints(self) -> np.ndarray:
        """(17, 2) in the order of COCO."""
        points = {name: self.frames[name].origin for name in COCO17.keypoints if name in self.frames}
        points |= {name: self.frames["head"].point(*local) for name, local in _FACE.items()}
        return np.array([points[name][:2] for name in COCO17.keypoints])

    def shapes(self) -> list[Shape]:
        """All parts, back to front by the depth of their middle."""
        depth = {"torso": self.frames["spine"].point(0, -0.14, 0)[2]}
        groups = {"torso": self.torso(), "head": self.head()}
        depth["head"] = self.frames["head"].point(0, -0.09, 0)[2] - 0.06
        for side in ("left", "right"):
            shoulder, elbow, wrist, hip, knee = (
                self.frames[f"{side}_{j}"].origin for j in ("shoulder", "elbow", "wrist", "hip", "knee")
            )
            groups[f"{side}_arm"], groups[f"{side}_leg"] = self.arm(side), self.leg(side)
            depth[f"{side}_arm"] = 0.25 * shoulder[2] + 0.35 * elbow[2] + 0.4 * wrist[2] - 0.035
            depth[f"{side}_leg"] = (hip[2] + knee[2]) / 2 + 0.05
        return [shape for group in sorted(groups, key=lambda g: -depth[g]) for shape in groups[group]]

    def arm(self, side: str) -> list[Shape]:
        look, part, b = self.look, f"{side}_arm", self.look.build
        shoulder, elbow, wrist = (self.frames[f"{side}_{j}"] for j in ("shoulder", "elbow", "wrist"))
        hand, tip = wrist.point(0, 0.025, 0), wrist.point(0, 0.06, -0.005)
        along = lambda frame, length, t: frame.point(0, length * t, 0)
        upper = hull([(shoulder.origin, 0.042 * b), (elbow.origin, 0.033 * b)], look.skin, part)
        lower = hull([(elbow.origin, 0.032 * b), (wrist.origin, 0.024 * b)], look.skin, part)
        palm = hull([(hand, 0.026), (tip, 0.021)], look.skin, part)
        shapes = [palm, *lit(lower), *lit(upper)]
        if look.sleeve >= 1:
            end = along(elbow, 0.145, 0.9)
            shapes = [palm, *lit(hull([(elbow.origin, 0.036 * b), (end, 0.03 * b)], look.shirt, part)),
                      *lit(hull([(shoulder.origin, 0.047 * b), (elbow.origin, 0.037 * b)], look.shirt, part))]  # fmt: skip
        elif look.sleeve > 0:
            end = along(shoulder, 0.155, 0.62)
            shapes += lit(hull([(shoulder.origin, 0.047 * b), (end, 0.043 * b)], look.shirt, part))
        shapes = outlined(shapes)
        if side == "left" and self.side_cue:
            ends = (along(elbow, 0.145, 0.84), along(elbow, 0.145, 0.98))
            shapes += outlined([hull([(p, 0.03 * b) for p in ends], BAND, part)], 0.004)
        return shapes

    def leg(self, side: str) -> list[Shape]:
        look, part, b = self.look, f"{side}_leg", self.look.build
        hip, knee, ankle = (self.frames[f"{side}_{j}"] for j in ("hip", "knee", "ankle"))
        bare = look.legwear != "trousers"
        cloth = look.skin if bare else look.bottom
        slim = 0.86 if bare else 1.0
        thigh = hull([(hip.origin, 0.062 * b), (knee.origin, 0.046 * b * slim)], cloth, part)
        shin = hull([(knee.origin, 0.046 * b * slim), (ankle.point(0, -0.012, 0), 0.034 * b * slim)], cloth, part)
        shoe_colour = shade(look.shoes, 1.45) if side == "left" and self.side_cue else look.shoes
        shoe = hull([(ankle.point(0, 0.014, 0.012), 0.031), (ankle.point(0, 0.02, -0.075), 0.024)], shoe_colour, part)
        sock = hull([(ankle.origin, 0.028), (ankle.point(0, -0.03, 0), 0.027)], shade(look.skin, 0.92), part)
        shapes = [sock, *lit(shoe, 0.8), *lit(shin), *lit(thigh)]
        if look.legwear == "shorts":
            end = hip.point(0, 0.15, 0)
            shapes += lit(hull([(hip.origin, 0.066 * b), (end, 0.062 * b)], look.bottom, part))
        return outlined(shapes)

    def torso(self) -> list[Shape]:
        look, b = self.look, self.look.build
        spine, pelvis = self.frames["spine"], self.frames["pelvis"]
        shirt_low = [(pelvis.point(s * 0.05, -0.03, z), 0.056 * b) for s in (-1, 1) for z in (-0.012, 0.012)]
        hips = [(pelvis.point(s * 0.056, 0.012, 0), 0.062 * b) for s in (-1, 1)]
        hips += [(pelvis.point(s * 0.05, -0.05, 0), 0.055 * b) for s in (-1, 1)]
        bottom = look.shirt if look.legwear == "dress" else look.bottom
        shapes = lit(hull(hips, bottom, "torso"), 0.9)
        chest = [(spine.point(s * 0.094, -0.268, 0), 0.046 * b) for s in (-1, 1)]
        chest += [(spine.point(0, -0.2, z), 0.055 * b) for z in (-0.024, 0.022)]
        shapes += lit(hull(chest + shirt_low, look.shirt, "torso"), 0.9)
        if look.legwear in ("skirt", "dress"):
            hem = [(self.frames[f"{s}_hip"].point(0, 0.17, 0), 0.075 * b) for s in ("left", "right")]
            waist = [(pelvis.point(s * 0.045, -0.04, 0), 0.055 * b) for s in (-1, 1)]
            skirt = lit(hull(waist + hem, bottom, "torso"), 0.9)
            shapes = skirt + shapes if look.legwear == "skirt" else shapes[:2] + skirt + shapes[2:]
        neck = hull([(spine.point(0, -0.29, 0), 0.036 * b), (self.frames["head"].point(0, -0.05, 0), 0.034)],
                    shade(look.skin, 0.9), "neck")  # fmt: skip
        faces_us = spine.axes[2, 2] > 0
        return outlined(shapes) + [neck] + self._shirt_front() if faces_us else outlined([neck, *shapes])

    def _shirt_front(self) -> list[Shape]:
        look, spine = self.look, self.frames["spine"]
        collar = hull([(spine.point(0, -0.285, -0.03), 0.03)], shade(look.skin, 0.9), "torso")
        front = lambda x, y: spine.point(x, y, -0.075 * look.build)
        line = lambda a, b, r, c: hull([(front(*a), r), (front(*b), r)], c, "torso")
        if look.pattern == "zip":
            return [collar, line((0, -0.25), (0, -0.02), 0.004, shade(look.shirt, 0.55))]
        if look.pattern == "badge":
            return [collar, line((0.045, -0.2), (0.07, -0.2), 0.016, shade(look.shirt, 1.6))]
        if look.pattern == "stripes":
            return [collar] + [
                line((-0.06, y), (0.06, y), 0.01, shade(look.shirt, 0.72)) for y in (-0.18, -0.12, -0.06)
            ]
        return [collar]

    def head(self) -> list[Shape]:
        look, head = self.look, self.frames["head"]
        skin, ink = look.skin, shade(look.hair, 0.6)
        forward = head.axes[2, 2]  # 1 looks at us, −1 away from us
        at = head.point
        face = hull([(at(0, -0.105, -0.022), 0.06), (at(0, -0.062, -0.024), 0.046)], skin, "face")
        skull = hull([(at(0, -0.108, 0.002), 0.07), (at(0, -0.066, -0.008), 0.05)], skin, "skull")
        hair = [hull([(at(0, -0.125, 0.014), 0.073), (at(0, -0.1, 0.022), 0.068)], look.hair, "hair")]
        if look.hairstyle == "bald":
            hair = [hull([(at(0, -0.112, 0.01), 0.068)], skin, "hair")]
        if look.hairstyle == "bun":
            hair.append(hull([(at(0, -0.19, 0.05), 0.034)], look.hair, "hair"))
        if look.hairstyle == "long":
            hair.append(hull([(at(0, -0.11, 0.025), 0.072), (at(0.03, 0.0, 0.045), 0.05), (at(-0.03, 0.0, 0.045), 0.05)],
                             look.hair, "hair"))  # fmt: skip
        if look.hairstyle == "cap":
            hair[0] = hair[0]._replace(colour=look.bottom)
        features, hidden = self._features(ink)
        faced = [*outlined([*lit(face, 0.93)], 0.003, 0.8), *self._beard()]
        if forward > -0.12:
            middle = [*outlined([*hair, skull]), *faced]
        else:
            middle = [*outlined([skull, face]), *outlined(hair)]
        return [*hidden, *middle, *features, *self._brim(forward)]

    def _beard(self) -> list[Shape]:
        at = self.frames["head"].point
        if not self.look.beard:
            return []
        return [hull([(at(s * 0.026, -0.055, -0.04), 0.02) for s in (-1, 1)] + [(at(0, -0.045, -0.045), 0.027)],
                     self.look.hair, "face")]  # fmt: skip

    def _brim(self, forward: float) -> list[Shape]:
        at = self.frames["head"].point
        if self.look.hairstyle != "cap" or forward < -0.12:
            return []
        brim = [(at(s * 0.045, -0.15, -0.055), 0.012) for s in (-1, 1)] + [(at(0, -0.148, -0.1), 0.012)]
        return outlined([hull(brim, shade(self.look.bottom, 0.8), "hair")], 0.003)

    def _features(self, ink: Colour) -> tuple[list[Shape], list[Shape]]:
        """Eyes, nose, ears, mouth: those on our side of the head, and those behind it."""
        look, head = self.look, self.frames["head"]
        at, near, far = head.point, [], []
        middle = at(0, -0.1, 0)[2]

        def put(shapes: list[Shape], local: tuple[float, float, float], margin: float) -> None:
            (near if at(*local)[2] < middle + margin else far).extend(shapes)

        for side, s in (("left", 1), ("right", -1)):
            ear = _FACE[f"{side}_ear"]
            put(outlined([hull([(at(*ear), 0.018)], shade(look.skin, 0.95), f"{side}_ear")], 0.004, 0.75), ear, 0.03)
        for side, s in (("left", 1), ("right", -1)):
            eye = _FACE[f"{side}_eye"]
            brow = hull([(at(s * 0.018, -0.133, -0.07), 0.004), (at(s * 0.04, -0.134, -0.062), 0.004)], ink, "face")
            white = hull([(at(*eye), 0.0165)], (250, 250, 250), f"{side}_eye")
            pupil = hull([(at(*eye), 0.0105)], (36, 32, 40), f"{side}_eye")
            glasses = [hull([(at(*eye), 0.024)], (40, 40, 46), f"{side}_eye")] if look.glasses else []
            put([*glasses, white, pupil, brow], eye, -0.022)
        mouth = [at(s * 0.017, -0.05, -0.066) for s in (-1, 1)]
        put([hull([(m, 0.005) for m in mouth], (176, 66, 62), "face")], (0, -0.05, -0.066), -0.022)
        nose = _FACE["nose"]
        put([hull([(at(0, -0.092, -0.078), 0.008), (at(*nose), 0.0125)], shade(look.skin, 0.8), "nose")], nose, -0.01)
        return near, far


_FACE = {"nose": (0, -0.078, -0.088), "left_eye": (0.027, -0.11, -0.069), "right_eye": (-0.027, -0.11, -0.069),
         "left_ear": (0.069, -0.095, 0.008), "right_ear": (-0.069, -0.095, 0.008)}  # fmt: skip


def _surface(name: str) -> frozenset[str]:
    side, _, part = name.partition("_")
    limbs = {"shoulder": ("arm", "torso"), "elbow": ("arm",), "wrist": ("arm",),
             "hip": ("leg", "torso"), "knee": ("leg",), "ankle": ("leg",)}  # fmt: skip
    if part not in limbs:
        return frozenset({name})
    return frozenset(p if p == "torso" else f"{side}_{p}" for p in limbs[part])


SURFACES = tuple(_surface(name) for name in COCO17.keypoints)
