"""The synthetic person: a body with joint limits, dressed and drawn, and on it the 17 keypoints of COCO or the 16 of MPII."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import pairwise

import numpy as np

from lib.data.casting import Look, sample_look, sample_pose
from lib.data.figures import (
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
from lib.skeleton import COCO17, MPII16, Skeleton

_LEFT = [
    Joint("left_shoulder", "spine", (0.103, -0.272, 0), (-60, 180), (-90, 90), (-20, 170)),
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
# Points of the face in the frame of the head; the other side mirrors x.
_FACE = {"nose": (0, -0.078, -0.084), "left_eye": (0.027, -0.108, -0.066), "left_ear": (0.067, -0.095, 0.008)}
_FACE |= {name.replace("left", "right"): (-x, y, z) for name, (x, y, z) in _FACE.items() if name != "nose"}
# The trunk's points of MPII: frame, place in it, and on which parts it is seen (the pelvis lies between the thighs).
_TRUNK = {
    "pelvis": ("pelvis", (0, 0.012, 0), {"torso", "left_leg", "right_leg"}),
    "thorax": ("spine", (0, -0.272, 0), {"torso", "neck"}),
    "upper_neck": ("head", (0, -0.02, 0), {"neck", "face", "hair"}),
    "head_top": ("head", (0, -0.176, 0), {"face", "hair"}),
}
_SKULL = [((0, -0.112, 0), 0.067), ((0, -0.094, -0.014), 0.062), ((0, -0.062, -0.02), 0.046)]  # centres, radii
_BAND = (255, 92, 48)  # wristband
_INK = (38, 33, 40)


def person(
    rng: np.random.Generator,
    variety: float = 1.0,
    side_cue: bool = True,
    heading: float | None = None,
    skeleton: Skeleton = COCO17,
) -> Figure:
    """A random person: height about 1 when standing, lowest point at y = 0 unless jumping.

    Args:
        rng: source of pose, clothes and heading.
        variety: width of the pose ranges, 0..1.
        side_cue: everybody wears an orange band on the left wrist and a lighter left shoe.
        heading: degrees, 0 looks at the viewer, 90 to the right, 180 away; by default random, most often frontal.
        skeleton: of `COCO17`'s and `MPII16`'s keypoints those to annotate; what is drawn does not depend on it.
    """
    pose, angles = sample_pose(rng, variety)
    look = sample_look(rng)
    chance = rng.choice([0, 180, 90, -90], p=[0.48, 0.2, 0.16, 0.16]) + rng.uniform(-45, 45)
    if pose == "sit" and abs((chance + 180) % 360 - 180) > 100:
        chance = 180 - chance  # the stool, drawn behind, would be on the wrong side of somebody seen from behind
    heading = chance if heading is None else heading
    figure = posed_person(angles, look, heading, rng.uniform(-2, 14), side_cue, skeleton)
    lift = rng.uniform(0.08, 0.25) if pose == "jump" else 0.0
    if pose == "sit":
        figure.seat = [(s * 0.1, row, 0.03) for row in (0.1, figure.lowest() - 0.03) for s in (-1, 1)]
    return figure.standing(lift)


mpii_person = partial(person, skeleton=MPII16)


def posed_person(
    angles: Mapping[str, tuple[float, float, float]],
    look: Look,
    heading: float,
    tilt: float,
    side_cue: bool = True,
    skeleton: Skeleton = COCO17,
) -> Figure:
    """This person in this pose, the middle of the hips at (0, 0).

    Args:
        angles: joint name → (pitch, twist, roll) degrees, see `JOINTS`.
        look: build and clothes.
        heading: degrees, 0 looks at the viewer, 90 to the right, 180 away.
        tilt: degrees by which the camera looks down.
        side_cue: an orange band on the left wrist and a lighter left shoe.
        skeleton: the keypoints to annotate, see `person`.
    """
    body = _Body(forward_kinematics(JOINTS, angles, rotation(-tilt, 0, 0) @ rotation(0, heading, 0)), look, side_cue)
    surfaces = [body.surface(name) for name in skeleton.keypoints]
    return Figure(body.shapes(), body.keypoints(skeleton), surfaces, head=body.head_box())


class _Body:
    """Shapes of one posed and dressed person; b is the build, the factor of all widths."""

    def __init__(self, frames: dict[str, Frame], look: Look, side_cue: bool):
        self.frames, self.look, self.side_cue, self.b = frames, look, side_cue, look.build

    def keypoints(self, skeleton: Skeleton) -> np.ndarray:
        """(K, 2) in the order of the skeleton."""
        points = {name: frame.origin for name, frame in self.frames.items()}
        points |= {name: self.frames["head"].point(*local) for name, local in _FACE.items()}
        points |= {name: self.frames[frame].point(*local) for name, (frame, local, _) in _TRUNK.items()}
        return np.array([points[name][:2] for name in skeleton.keypoints])

    def head_box(self) -> np.ndarray:
        """[x0, y0, x1, y1] as MPII's annotators draw it: from chin and upper neck to the top, face to nape, no hairdo."""
        head = self.frames["head"]
        rounds = [(*head.point(*local)[:2], radius) for local, radius in _SKULL]
        x, y, r = np.array([*rounds, (*head.point(*_TRUNK["upper_neck"][1])[:2], 0.0)]).T
        return np.array([(x - r).min(), (y - r).min(), (x + r).max(), (y + r).max()])

    def surface(self, keypoint: str) -> frozenset[str]:
        """Parts on which a keypoint can be seen."""
        if keypoint in _TRUNK:
            return frozenset(_TRUNK[keypoint][2])
        side, _, joint = keypoint.partition("_")
        if joint not in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
            return frozenset({keypoint})
        limb = f"{side}_{'arm' if joint in ('shoulder', 'elbow', 'wrist') else 'leg'}"
        # A shoulder or hip on the far side of a body in profile is hidden by the trunk, on the near side it lies on it.
        behind = self.frames[keypoint].origin[2] - self.frames["spine"].point(0, -0.14, 0)[2]
        return frozenset({limb, "torso"} if joint in ("shoulder", "hip") and behind < 0.045 else {limb})

    def shapes(self) -> list[Shape]:
        """All parts, back to front by the depth of their middle."""
        z = {name: frame.origin[2] for name, frame in self.frames.items()}
        groups = {"shirt": self.shirt(), "hips": self.hips(), "head": self.head()}
        depth = {"shirt": self.frames["spine"].point(0, -0.14, 0)[2], "hips": z["pelvis"] + 0.03,
                 "head": self.frames["head"].point(0, -0.09, 0)[2] - 0.06}  # fmt: skip
        for side in ("left", "right"):
            groups[f"{side}_arm"], groups[f"{side}_leg"] = self.arm(side), self.leg(side)
            shoulder, elbow, wrist = (z[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist"))
            depth[f"{side}_arm"] = 0.25 * shoulder + 0.35 * elbow + 0.4 * wrist - 0.035
            depth[f"{side}_leg"] = (z[f"{side}_hip"] + z[f"{side}_knee"]) / 2 + 0.05
        if self.look.legwear in ("skirt", "dress"):  # it covers the thighs, wherever they go
            depth["hips"] = min(depth[group] for group in ("hips", "left_leg", "right_leg")) - 0.001
        return [shape for group in sorted(groups, key=lambda g: -depth[g]) for shape in groups[group]]

    def arm(self, side: str) -> list[Shape]:
        look, part, b = self.look, f"{side}_arm", self.b
        shoulder, elbow, wrist = (self.frames[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist"))
        palm = hull([(wrist.point(0, 0.02, 0), 0.024), (wrist.point(0, 0.055, -0.005), 0.021)], look.skin, part)
        if look.sleeve >= 1:
            upper = hull([(shoulder.origin, 0.042 * b), (elbow.origin, 0.035 * b)], look.shirt, part)
            lower = hull([(elbow.origin, 0.034 * b), (elbow.point(0, 0.13, 0), 0.029 * b)], look.shirt, part)
            shapes = outlined([palm, *lit(upper, lower)])
        else:
            upper = hull([(shoulder.origin, 0.038 * b), (elbow.origin, 0.031 * b)], look.skin, part)
            lower = hull([(elbow.origin, 0.03 * b), (wrist.origin, 0.023 * b)], look.skin, part)
            shapes = outlined([palm, *lit(upper, lower)])
        if 0 < look.sleeve < 1:
            sleeve = hull([(shoulder.origin, 0.043 * b), (shoulder.point(0, 0.09, 0), 0.041 * b)], look.shirt, part)
            shapes += outlined(lit(sleeve))
        if side == "left" and self.side_cue:
            shapes += outlined([band(elbow.point(0, 0.115, 0), wrist.origin, 0.029 * b, _BAND, part)], 0.004)
        return shapes

    def leg(self, side: str) -> list[Shape]:
        look, part, b = self.look, f"{side}_leg", self.b
        hip, knee, ankle = (self.frames[f"{side}_{joint}"] for joint in ("hip", "knee", "ankle"))
        bare = look.legwear != "trousers"
        cloth, slim = (look.skin, 0.84) if bare else (look.bottom, 1.0)
        thigh = hull([(hip.origin, 0.062 * b), (knee.origin, 0.046 * b * slim)], cloth, part)
        shin = hull([(knee.origin, 0.045 * b * slim), (ankle.point(0, -0.012, 0), 0.034 * b * slim)], cloth, part)
        colour = shade(look.shoes, 1.45) if side == "left" and self.side_cue else look.shoes
        shoe = hull([(ankle.point(0, 0.014, 0.012), 0.031), (ankle.point(0, 0.02, -0.075), 0.024)], colour, part)
        sock = hull([(ankle.origin, 0.028), (ankle.point(0, -0.03, 0), 0.027)], shade(look.skin, 0.92), part)
        shapes = outlined([sock, *lit(shoe, factor=0.8), *lit(thigh, shin)])
        if look.legwear == "shorts":
            shapes += outlined(
                lit(hull([(hip.origin, 0.066 * b), (hip.point(0, 0.15, 0), 0.06 * b)], look.bottom, part))
            )
        return shapes

    def hips(self) -> list[Shape]:
        look, b, pelvis = self.look, self.b, self.frames["pelvis"]
        spheres = [(pelvis.point(s * 0.054, 0.012, 0), 0.062 * b) for s in (-1, 1)]
        spheres += [(pelvis.point(s * 0.05, -0.05, 0), 0.055 * b) for s in (-1, 1)]
        if look.legwear in ("skirt", "dress"):
            spheres += [(self.frames[f"{side}_hip"].point(0, 0.16, 0), 0.074 * b) for side in ("left", "right")]
        colour = look.shirt if look.legwear == "dress" else look.bottom
        return outlined(lit(hull(spheres, colour, "torso"), factor=0.9))

    def shirt(self) -> list[Shape]:
        look, b, spine, pelvis = self.look, self.b, self.frames["spine"], self.frames["pelvis"]
        chest = [(spine.point(s * 0.09, -0.265, 0), 0.045 * b) for s in (-1, 1)]
        chest += [(spine.point(0, -0.2, z), 0.055 * b) for z in (-0.024, 0.022)]
        chest += [(pelvis.point(s * 0.046, -0.035, z), 0.055 * b) for s in (-1, 1) for z in (-0.012, 0.012)]
        neck = hull([(spine.point(0, -0.29, 0), 0.034 * b), (self.frames["head"].point(0, -0.05, 0), 0.033)],
                    shade(look.skin, 0.88), "neck")  # fmt: skip
        shirt = outlined(lit(hull(chest, look.shirt, "torso"), factor=0.9))
        if spine.axes[2, 2] > 0:  # the chest looks at us
            return [*shirt, neck, *self._shirt_front()]
        return [*outlined([neck]), *shirt]

    def _shirt_front(self) -> list[Shape]:
        look, spine = self.look, self.frames["spine"]
        front = lambda x, y: spine.point(x, y, -0.072 * look.build)
        line = lambda a, b, r, factor: hull([(front(*a), r), (front(*b), r)], shade(look.shirt, factor), "torso")
        shapes = [hull([(spine.point(0, -0.288, -0.026), 0.032)], shade(look.skin, 0.88), "torso")]
        if look.pattern == "zip":
            shapes.append(line((0, -0.25), (0, -0.03), 0.004, 0.55))
        if look.pattern == "badge":
            shapes.append(line((0.045, -0.2), (0.068, -0.2), 0.015, 1.6))
        if look.pattern == "stripes":
            shapes += [line((-0.055, y), (0.055, y), 0.009, 0.74) for y in (-0.19, -0.14, -0.09)]
        return shapes

    def head(self) -> list[Shape]:
        look, head = self.look, self.frames["head"]
        at, forward = head.point, head.axes[2, 2]  # 1 looks at us, −1 away from us
        cap = look.hairstyle == "cap"
        tone = {"cap": look.bottom, "bald": look.skin}.get(look.hairstyle, look.hair)
        skull = [hull([(at(*local), radius) for local, radius in _SKULL], look.skin, "face")]
        behind, top = self._hair(tone)
        near, far = self._features()
        if forward > -0.12:  # the back of the hair comes round the head as it turns into profile
            wrap = 0.058 * min(1.0, max(0.0, (0.95 - forward) / 0.6))
            nape = [hull([(at(0, -0.125, 0.03), wrap), (at(0, -0.09, 0.036), wrap * 0.85)], tone, "hair")]
            shapes = [*outlined(behind), *outlined(lit(*skull, factor=0.93)), *self._beard()]
            shapes += [] if look.hairstyle == "bald" else [*(nape if wrap > 0.02 else []), *top]
            return [*far, *shapes, *near, *(self._brim() if cap else [])]
        return [
            *far,
            *outlined(skull),
            *(self._brim() if cap else []),
            *outlined(lit(*behind, *top, factor=0.9)),
            *near,
        ]

    def _hair(self, tone) -> tuple[list[Shape], list[Shape]]:
        """Hair behind the face and on top of it."""
        at, style = self.frames["head"].point, self.look.hairstyle
        behind = [hull([(at(0, -0.124, 0.012), 0.073), (at(0, -0.1, 0.02), 0.068)], tone, "hair")]
        top = [
            hull(
                [(at(s * 0.036, -0.155, -0.022), 0.026) for s in (-1, 1)] + [(at(0, -0.16, 0.01), 0.036)], tone, "hair"
            )
        ]
        if style == "bald":
            return [hull([(at(0, -0.11, 0.012), 0.064)], tone, "hair")], []
        if style == "bun":
            behind.append(hull([(at(0, -0.195, 0.045), 0.033)], tone, "hair"))
        if style == "long":
            locks = [(at(s * 0.034, 0.0, 0.035), 0.047) for s in (-1, 1)]
            behind.append(hull([(at(0, -0.11, 0.022), 0.076), *locks], tone, "hair"))
        return behind, top

    def _beard(self) -> list[Shape]:
        at = self.frames["head"].point
        if not self.look.beard:
            return []
        chin = [(at(s * 0.03, -0.055, -0.03), 0.017) for s in (-1, 1)] + [(at(0, -0.04, -0.036), 0.028)]
        return [hull(chin, self.look.hair, "face")]

    def _brim(self) -> list[Shape]:
        at = self.frames["head"].point
        brim = [(at(s * 0.045, -0.148, -0.05), 0.011) for s in (-1, 1)] + [(at(0, -0.146, -0.105), 0.011)]
        return outlined([hull(brim, shade(self.look.bottom, 0.8), "hair")], 0.003)

    def _features(self) -> tuple[list[Shape], list[Shape]]:
        """Ears, eyes, mouth, nose: those on our side of the head, and those on the far side, which it hides."""
        look, at = self.look, self.frames["head"].point
        near: list[Shape] = []
        far: list[Shape] = []

        def put(shapes: list[Shape], local: tuple[float, float, float], margin: float) -> None:
            (near if at(*local)[2] < at(0, -0.1, 0)[2] + margin else far).extend(shapes)

        for side in ("left", "right"):
            ear = _FACE[f"{side}_ear"]
            put(outlined([hull([(at(*ear), 0.017)], shade(look.skin, 0.93), f"{side}_ear")], 0.004, 0.75), ear, 0.03)
        for side, s in (("left", 1), ("right", -1)):
            eye, part = _FACE[f"{side}_eye"], f"{side}_eye"
            brow = hull([(at(s * 0.017, -0.132, -0.068), 0.004), (at(s * 0.039, -0.131, -0.06), 0.004)],
                        shade(look.hair, 0.6), "face")  # fmt: skip
            frame = [hull([(at(*eye), 0.023)], _INK, part)] if look.glasses else []
            put([*frame, hull([(at(*eye), 0.0155)], (250, 250, 250), part), hull([(at(*eye), 0.011)], _INK, part), brow],
                eye, -0.022)  # fmt: skip
        lift = 0.007 * look.smile
        mouth = [at(-0.018, -0.05 - lift, -0.062), at(0, -0.05 + lift, -0.068), at(0.018, -0.05 - lift, -0.062)]
        lips = [hull([(a, 0.0045), (b, 0.0045)], (168, 62, 60), "face") for a, b in pairwise(mouth)]
        put(lips, (0, -0.05, -0.066), -0.022)
        nose = hull([(at(0, -0.094, -0.074), 0.007), (at(*_FACE["nose"]), 0.012)], shade(look.skin, 0.8), "nose")
        put([nose], _FACE["nose"], -0.01)
        return near, far
