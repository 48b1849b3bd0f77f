"""Pictures into the network's input, and its maps back to one resolution: where every resampling is written once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lib.data.augment import fit_affine, reduced_affine, reduction_for, warp
from lib.data.boxes import box_affine
from lib.people import apply_affine, invert_affine, pixels_to_cells

GREY = 128  # around pictures fitted by their height: what Lightweight OpenPose's normalisation turns into 0


@dataclass(frozen=True)
class Fitted:
    """A picture as the network gets it: once for every scale, or for a top-down network a crop of every box.

    Attributes:
        inputs: (h, w, 3) RGB for each scale or box, uint8, or float32 where they were fitted by their height.
        affines: (2, 3) original → input for each of them.
        size: (H, W) of the original.
        boxes: (P, 5) [x, y, width, height, score] of the crops; None where the whole picture is shown.
    """

    inputs: tuple[np.ndarray, ...]
    affines: tuple[np.ndarray, ...]
    size: tuple[int, int]
    boxes: np.ndarray | None = None


def fit_model(image: np.ndarray, input_size: tuple[int, int], keep_aspect_ratio: bool) -> tuple[np.ndarray, np.ndarray]:
    """The whole picture in the input, as in training and validation.

    A picture several times too large is averaged down first, as training does while it reads a JPEG.

    Returns:
        (*input_size, 3) uint8, and the (2, 3) affine original → input.
    """
    affine = fit_affine(image.shape[:2], input_size, keep_aspect_ratio)
    return _averaged_and_warped(image, affine, input_size), affine


def fit_height(
    image: np.ndarray, input_size: tuple[int, int], scale: float, multiple: int
) -> tuple[np.ndarray, np.ndarray]:
    """The picture at a height, its width what it must be, centred on grey: Lightweight OpenPose's evaluation.

    Args:
        image: (H, W, 3) uint8 RGB.
        input_size: height for scale 1, and the least width; also the least size of the input at any scale.
        scale: factor of the height.
        multiple: sides of the input are multiples of it.

    Returns:
        (h, w, 3) float32, and the (2, 3) affine original → input.
    """
    factor = scale * input_size[0] / image.shape[0]
    # cubic interpolation overshoots at edges, and what is beyond 0..255 there is part of the published input
    # (in double precision: OpenCV's single one is off by up to a hundredth of a grey level)
    content = cv2.resize(image.astype(np.float64), None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    missing = [-(-max(side, least) // multiple) * multiple - side for side, least in zip(content.shape[:2], input_size)]
    top, left = (m // 2 for m in missing)
    padded = cv2.copyMakeBorder(
        content, top, missing[0] - top, left, missing[1] - left, cv2.BORDER_CONSTANT, value=(GREY, GREY, GREY)
    )
    shift = (factor - 1) / 2  # centres of pixels are scaled about the picture's corner
    return padded.astype(np.float32), np.array([[factor, 0, shift + left], [0, factor, shift + top]])


def fit_short(
    image: np.ndarray, side: int, scale: float, smallest: float, multiple: int, averaged: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """The picture's shorter side at a size, the other in proportion, black beside it: HigherHRNet's evaluation.

    Sides are rounded up to multiples of 64 at the smallest scale of an evaluation; those of other scales follow from them.

    Args:
        image: (H, W, 3) uint8 RGB.
        side: of the shorter side at scale 1, pixels.
        scale: factor of the sides.
        smallest: of all scales.
        multiple: sides of the input are multiples of it, too; scales that are not halves or doubles may ask for more.
        averaged: average a picture several times too large first. (The original does not.)

    Returns:
        (h, w, 3) uint8, and the (2, 3) affine original → input.
    """
    height, width = image.shape[:2]
    short = _next_64(smallest * side)
    sides = [_next_64(short / min(height, width) * n) if n > min(height, width) else short for n in (height, width)]
    size = [-(-int(n * scale / smallest) // multiple) * multiple for n in sides]
    factor = min(size) / min(height, width)
    # the middles of picture and input, counted from the corner, whole pixels of the picture, lie on each other
    shift = [n / 2 - factor * int(m / 2 + 0.5) for n, m in zip(size, (height, width))]
    affine = np.array([[factor, 0, shift[1]], [0, factor, shift[0]]])
    return (_averaged_and_warped if averaged else warp)(image, affine, tuple(size)), affine


def fit_native(image: np.ndarray, scale: float, multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """The picture at its own size times a scale, black right and below up to the network's multiple: DeeperCut's evaluation.

    Args:
        image: (H, W, 3) uint8 RGB.
        scale: factor of the sides.
        multiple: sides of the input are multiples of it.

    Returns:
        (h, w, 3) uint8, and the (2, 3) affine original → input; both have the same outer edges left and above.
    """
    size = tuple(-(-max(1, round(scale * side)) // multiple) * multiple for side in image.shape[:2])
    shift = (scale - 1) / 2
    affine = np.array([[scale, 0, shift], [0, scale, shift]])
    return _averaged_and_warped(image, affine, size), affine


def fit_box(image: np.ndarray, box: np.ndarray, input_size: tuple[int, int], padding: float,
            cells: str) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The crop around a box, black beyond the picture; a part several times too large is averaged down first.

    Args:
        image: (H, W, 3) uint8 RGB.
        box, input_size, padding, cells: see `box_affine`.

    Returns:
        (*input_size, 3) uint8, and the (2, 3) affine original → input.
    """
    affine = box_affine(box, input_size, padding, cells=cells)
    # only what the crop shows is touched, and a pixel around it to interpolate with
    height, width = input_size
    corners = apply_affine(invert_affine(affine), np.array([[-1, -1], [width, height]]))
    (left, top), (right, bottom) = np.floor(corners[0]).astype(int), np.ceil(corners[1]).astype(int) + 1
    left, top = max(left, 0), max(top, 0)
    part = image[top : max(bottom, 0), left : max(right, 0)]
    if not part.size:
        return np.zeros((*input_size, 3), np.uint8), affine
    moved = np.column_stack([affine[:, :2], apply_affine(affine, np.array([left, top]))])
    return _averaged_and_warped(part, moved, input_size), affine


def maps_at_input(
    answers: Sequence[Mapping[str, np.ndarray]],
    affines: Sequence[np.ndarray],
    base: int,
    strides: Mapping[str, int],
    own_scale: Sequence[str] = (),
) -> Mapping[str, np.ndarray]:
    """Mean of the maps of all scales, on the cells of scale number `base`; with a single scale its own maps.

    Args:
        answers: for each scale {name: (C, h, w)}.
        affines: for each scale original → input.
        base: whose cells.
        strides: pixels of the input per cell of each map.
        own_scale: maps that are not averaged but taken from the base scale.
    """
    if len(answers) == 1:
        return answers[0]
    mean = {}
    for name, target in answers[base].items():
        if name in own_scale:
            mean[name] = target
            continue
        stride, total = strides[name], np.zeros_like(target)
        to_base = _to_cells(affines[base], stride)
        for maps, affine in zip(answers, affines):
            # from a cell of the base to a cell of this scale
            back = _compose(_to_cells(affine, stride), invert_affine(to_base))
            for channel, values in zip(total, maps[name]):
                channel += _warped(values, back, channel.shape)
        mean[name] = total / np.float32(len(answers))
    return mean


def maps_at_pixels(
    answers: Sequence[Mapping[str, np.ndarray]], base: int, size: tuple[int, int], own_scale: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Mean of the maps of all scales at every pixel of the input of scale number `base`: HigherHRNet's evaluation.

    Coarse maps are brought to the resolution of the finest of their scale, and all to the input's, both by linear
    interpolation.

    Args:
        answers: for each scale {name: (C, h, w)}.
        base: whose pixels.
        size: (H, W) of its input.
        own_scale: maps that are not averaged but taken from the base scale.

    Returns:
        {name: (C, H, W)} float32.

    Raises:
        ValueError: the inputs of the scales have not the same proportions, so that one is not the other enlarged.
    """
    shapes = [next(iter(maps.values())).shape[1:] for maps in answers]
    if any(h * shapes[base][1] != w * shapes[base][0] for h, w in shapes):
        raise ValueError("maps at the input's pixels need scales that give inputs of the same proportions, such as 0.5, 1 and 2; "
                         f"these give maps of {', '.join(f'{h}×{w}' for h, w in shapes)} cells")  # fmt: skip
    mean = {}
    for name in answers[base]:
        used = [answers[base]] if name in own_scale else answers
        for maps in used:
            finest = max((values.shape[1:] for values in maps.values()), key=np.prod)
            large = _resized(_resized(maps[name], finest), size)
            mean[name] = mean[name] + large if name in mean else large
        mean[name] = mean[name] / np.float32(len(used))
    return mean


def maps_at_image(
    answers: Sequence[Mapping[str, np.ndarray]],
    affines: Sequence[np.ndarray],
    size: tuple[int, int],
    strides: Mapping[str, int],
    own_scale: Sequence[str] = (),
    base: int = 0,
    published: bool = False,
) -> dict[str, np.ndarray]:
    """Mean of the maps of all scales at every pixel of the picture.

    Each map is enlarged by the stride, and what lies on the picture is brought to its size, both by cubic interpolation.

    Args:
        answers: for each scale {name: (C, h, w)}.
        affines: for each scale original → input, without rotation.
        size: (H, W) of the picture.
        strides: pixels of the input per cell of each map.
        own_scale: maps that are not averaged but taken from scale number `base`.
        base: which is that.
        published: cut the picture out at whole pixels of the input and stretch that, as Lightweight OpenPose's evaluation
            does; otherwise the affine is followed exactly.

    Returns:
        {name: (C, H, W)} float32.
    """
    mean = {name: np.zeros((len(values), *size), np.float32) for name, values in answers[0].items()}
    for scale, (maps, affine) in enumerate(zip(answers, affines)):
        # the picture's outer edges in the input
        edges = affine[:, :2] @ [[-0.5, size[1] - 0.5], [-0.5, size[0] - 0.5]] + affine[:, 2:] + 0.5
        (left, right), (top, bottom) = np.rint(edges).astype(int)
        for name, target in mean.items():
            if name in own_scale and scale != base:
                continue
            for channel, values in zip(target, maps[name]):
                stride = strides[name]
                large = cv2.resize(values, None, fx=stride, fy=stride, interpolation=cv2.INTER_CUBIC)
                if published:
                    channel += cv2.resize(large[top:bottom, left:right], size[::-1], interpolation=cv2.INTER_CUBIC)
                else:
                    channel += _warped(large, affine, size)
    for name, target in mean.items():
        target /= 1 if name in own_scale else len(answers)
    return mean


def on_picture(maps: np.ndarray, affine: np.ndarray, size: tuple[int, int], stride: int,
               cells: Sequence[int] | None = None) -> np.ndarray:  # fmt: skip
    """Maps of the network's input, cut and moved so that their edges are those of the picture.

    Args:
        maps: (C, h, w).
        affine: picture → input, without rotation.
        size: (H, W) of the picture.
        stride: pixels of the input per cell.
        cells: [w', h'], with 0 where the maps say nothing; None for the values of their border there.

    Returns:
        (C, h', w'), cells about as large as they were, if `cells` does not say otherwise.
    """
    scale = np.diag(affine[:, :2]) / stride  # cells per pixel, x and y
    border = cv2.BORDER_REPLICATE if cells is None else cv2.BORDER_CONSTANT
    cells = cells or [max(1, round(n * s)) for n, s in zip(size[::-1], scale)]
    pixels = np.array(size[::-1]) / cells  # of the picture per new cell
    shift = affine[:, :2] @ ((pixels - 1) / 2) + affine[:, 2]
    back = np.column_stack([np.diag(scale * pixels), pixels_to_cells(shift, stride)])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.stack([cv2.warpAffine(m, back, cells, flags=flags, borderMode=border) for m in maps])


def crops_on_picture(maps: Sequence[np.ndarray], fitted: Fitted, stride: int, channels: int) -> np.ndarray:
    """Maps (C, h, w) of all crops on one picture, the highest where they overlap: (C, h', w') with a cell for each 4×4 pixels."""
    cells = [-(-side // 4) for side in fitted.size[::-1]]
    together = np.zeros((channels, *cells[::-1]), np.float32)
    for crop, affine in zip(maps, fitted.affines):
        np.maximum(together, on_picture(crop, affine, fitted.size, stride, cells), out=together)
    return together


def _averaged_and_warped(image: np.ndarray, affine: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    reduction = reduction_for(affine)
    if reduction > 1:
        bottom, right = (-side % reduction for side in image.shape[:2])
        if bottom or right:
            image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        # halving is what OpenCV does fastest: twice takes a third of the time of a quarter at once
        for _ in range(reduction.bit_length() - 1):
            image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return warp(image, reduced_affine(affine, reduction), input_size)


def _next_64(side: float) -> int:
    """A multiple of 64 from a side up; a fraction of a pixel beyond one is left off, as published."""
    return int((side + 63) // 64 * 64)


def _resized(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps (C, h, w) as (C, *size)."""
    if maps.shape[1:] == size:
        return maps
    return np.stack([cv2.resize(channel, size[::-1], interpolation=cv2.INTER_LINEAR) for channel in maps])


def _warped(values: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Values (h, w) at places given by an affine from the target to them; outside, those of the border."""
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(values, affine, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _to_cells(affine: np.ndarray, stride: int) -> np.ndarray:
    """original → cells, from original → input."""
    return np.concatenate([affine[:, :2] / stride, pixels_to_cells(affine[:, 2:], stride)], axis=1)


def _compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    return np.concatenate([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2:] + outer[:, 2:]], axis=1)
