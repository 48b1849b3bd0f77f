"""Articulated figures for synthetic images: joints with limits, forward kinematics in 3D, drawing as flat shapes.

A figure is posed in its own units (height 1 for a person), in view coordinates: x right, y down, z away from the viewer;
seen from the front it looks towards −z and its left is at +x. Everything is drawn with a single primitive, the convex
hull of a few circles, listed back to front. What hides what is therefore decided by drawing order alone, and the
visibility of a keypoint can be read from the finished picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import cos, radians, sin
from typing import NamedTuple

import numpy as np

Colour = tuple[float, float, float]  # RGB, 0..255
Range = tuple[float, float]


class Shape(NamedTuple):
    """Convex hull of circles, filled with one colour.

    Attributes:
        circles: [(x, y, radius), ...] in figure units; one circle is a disc, two are a limb.
        colour: RGB 0..255.
        part: name of the body part it belongs to, which tells whose surface a pixel shows.
    """

    circles: Sequence[tuple[float, float, float]]
    colour: Colour
    part: str


@dataclass
class Figure:
    """A posed and dressed figure.

    Attributes:
        shapes: back to front.
        keypoints: (K, 2) figure units, in the order of the skeleton.
        surfaces: for every keypoint the parts on which it lies; it is visible where one of them is the topmost.
        seat: circles (x, y, radius) of a stool to draw behind the figure, empty for nobody seated.
        head: [x0, y0, x1, y1] around the head, figure units, or None where none is to be annotated.
    """

    shapes: list[Shape]
    keypoints: np.ndarray
    surfaces: Sequence[frozenset[str]]
    seat: Sequence[tuple[float, float, float]] = ()
    head: np.ndarray | None = None

    def footprint(self) -> tuple[float, float]:
        """Middle and half width of what stands on or next to the ground."""
        ground = self.lowest()
        near = [(x, r) for shape in self.shapes for x, y, r in shape.circles if y + r > ground - 0.12]
        low, high = min(x - r for x, r in near), max(x + r for x, r in near)
        return (low + high) / 2, (high - low) / 2

    @cached_property
    def bounds(self) -> np.ndarray:
        """[x0, y0, x1, y1] around all shapes."""
        circles = np.array([circle for shape in self.shapes for circle in shape.circles])
        low, high = circles[:, :2] - circles[:, 2:], circles[:, :2] + circles[:, 2:]
        return np.concatenate([low.min(axis=0), high.max(axis=0)])

    def lowest(self) -> float:
        """Largest y of all shapes."""
        return max(y + r for shape in self.shapes for _, y, r in shape.circles)

    def standing(self, lift: float = 0.0) -> Figure:
        """The figure moved up or down until its lowest point is `lift` above y = 0."""
        down = -self.lowest() - lift
        move = lambda circles: [(x, y + down, r) for x, y, r in circles]
        shapes = [shape._replace(circles=move(shape.circles)) for shape in self.shapes]
        head = None if self.head is None else self.head + (0, down, 0, down)
        return Figure(shapes, self.keypoints + (0, down), self.surfaces, move(self.seat), head)


@dataclass(frozen=True)
class Joint:
    """A joint of the kinematic tree.

    Attributes:
        name, parent: names; the root has the parent "".
        at: where the joint sits in the frame of its parent, figure units.
        pitch: limits in degrees; positive swings a hanging limb forward.
        twist: limits in degrees; positive turns the front of a left limb outwards.
        roll: limits in degrees; positive lifts a left limb sideways, outwards.
    """

    name: str
    parent: str
    at: tuple[float, float, float]
    pitch: Range = (0, 0)
    twist: Range = (0, 0)
    roll: Range = (0, 0)


class Frame(NamedTuple):
    """Orientation (3, 3) and origin (3,) of a joint in view coordinates."""

    axes: np.ndarray
    origin: np.ndarray

    def point(self, x: float, y: float, z: float) -> np.ndarray:
        """View coordinates (3,) of a point given in this frame."""
        return self.origin + self.axes @ (x, y, z)


def rotation(pitch: float, twist: float, roll: float) -> np.ndarray:
    """(3, 3) rotation: twist about the limb, then pitch forward, then roll sideways; degrees, senses as in `Joint`."""
    (sp, cp), (st, ct), (sr, cr) = ((sin(radians(a)), cos(radians(a))) for a in (pitch, twist, roll))
    return np.array([[cr * ct + sr * sp * st, sr * cp, -cr * st + sr * sp * ct],
                     [-sr * ct + cr * sp * st, cr * cp, sr * st + cr * sp * ct],
                     [cp * st, -sp, cp * ct]])  # fmt: skip


def forward_kinematics(
    joints: Sequence[Joint], angles: Mapping[str, tuple[float, float, float]], root: np.ndarray
) -> dict[str, Frame]:
    """Frames of all joints.

    Args:
        joints: parents before children. Joints named `right_…` mirror the senses of twist and roll.
        angles: joint name → (pitch, twist, roll) degrees, clipped to the limits of the joint; missing ones are 0.
        root: (3, 3) orientation of the whole figure: camera and heading.
    """
    frames: dict[str, Frame] = {}
    for joint in joints:
        parent = frames[joint.parent] if joint.parent else Frame(root, np.zeros(3))
        limits = (joint.pitch, joint.twist, joint.roll)
        pitch, twist, roll = (
            min(max(a, low), high) for a, (low, high) in zip(angles.get(joint.name, (0, 0, 0)), limits)
        )
        side = -1 if joint.name.startswith("right_") else 1
        frames[joint.name] = Frame(parent.axes @ rotation(pitch, side * twist, side * roll), parent.point(*joint.at))
    return frames


def mirrored(left: Sequence[Joint]) -> list[Joint]:
    """The right-hand twins of `left_…` joints."""
    swap = lambda name: name.replace("left_", "right_")
    return [Joint(swap(j.name), swap(j.parent), (-j.at[0], *j.at[1:]), j.pitch, j.twist, j.roll) for j in left]


def hull(points: Sequence[tuple[np.ndarray, float]], colour: Colour, part: str) -> Shape:
    """Shape around spheres given as (view point (3,), radius)."""
    return Shape([(p[0], p[1], r) for p, r in points], colour, part)


def shade(colour: Colour, factor: float) -> Colour:
    """Darker (factor < 1) or, towards white, lighter (factor > 1)."""
    if factor <= 1:
        return tuple(c * factor for c in colour)
    return tuple(255 - (255 - c) * (2 - factor) for c in colour)


def outlined(shapes: Sequence[Shape], width: float = 0.005, factor: float = 0.62) -> list[Shape]:
    """The shapes over their own darker, wider silhouettes: one outline around the whole group."""
    grown = [Shape([(x, y, r + width) for x, y, r in s.circles], shade(s.colour, factor), s.part) for s in shapes]
    return grown + list(shapes)


def lit(*shapes: Shape, factor: float = 0.86) -> list[Shape]:
    """The shapes in shade, then their parts towards the light (upper left) in full colour."""
    dark = [s._replace(colour=shade(s.colour, factor)) for s in shapes]
    return dark + [s._replace(circles=[(x - 0.16 * r, y - 0.12 * r, 0.8 * r) for x, y, r in s.circles]) for s in shapes]


def band(a: np.ndarray, b: np.ndarray, half_width: float, colour: Colour, part: str) -> Shape:
    """A cuff around the limb between the view points a and b."""
    along = b[:2] - a[:2]
    length = float(np.hypot(*along))
    across = np.array((-along[1], along[0])) / length if length > 1e-6 else np.array((1.0, 0.0))
    radius = 0.3 * half_width
    corners = [p[:2] + s * (half_width - radius) * across for p in (a, b) for s in (-1, 1)]
    return Shape([(x, y, radius) for x, y in corners], colour, part)
