"""Pictures into the network's input, and its maps back to one resolution: where every resampling is written once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from lib.data.augment import fit_affine, reduced_affine, reduction_for, warp
from lib.people import invert_affine, pixels_to_cells

GREY = 128  # around pictures fitted by their height: what Lightweight OpenPose's normalisation turns into 0


def fit_model(image: np.ndarray, input_size: tuple[int, int], keep_aspect_ratio: bool) -> tuple[np.ndarray, np.ndarray]:
    """The whole picture in the input, as in training and validation.

    A picture several times too large is averaged down first, as training does while it reads a JPEG.

    Returns:
        (*input_size, 3) uint8, and the (2, 3) affine original → input.
    """
    affine = fit_affine(image.shape[:2], input_size, keep_aspect_ratio)
    reduction = reduction_for(affine)
    if reduction > 1:
        bottom, right = (-side % reduction for side in image.shape[:2])
        if bottom or right:
            image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        # halving is what OpenCV does fastest: twice takes a third of the time of a quarter at once
        for _ in range(reduction.bit_length() - 1):
            image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return warp(image, reduced_affine(affine, reduction), input_size), affine


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


def maps_at_input(
    answers: Sequence[Mapping[str, np.ndarray]], affines: Sequence[np.ndarray], base: int, stride: int
) -> Mapping[str, np.ndarray]:
    """Mean of the maps of all scales, on the cells of scale number `base`; with a single scale its own maps.

    Args:
        answers: for each scale {name: (C, h, w)}.
        affines: for each scale original → input.
        base: whose cells.
        stride: pixels of the input per cell.
    """
    if len(answers) == 1:
        return answers[0]
    to_base = _to_cells(affines[base], stride)
    mean = {}
    for name, target in answers[base].items():
        total = np.zeros_like(target)
        for maps, affine in zip(answers, affines):
            # from a cell of the base to a cell of this scale
            back = _compose(_to_cells(affine, stride), invert_affine(to_base))
            for channel, values in zip(total, maps[name]):
                channel += _warped(values, back, channel.shape)
        mean[name] = total / np.float32(len(answers))
    return mean


def maps_at_image(
    answers: Sequence[Mapping[str, np.ndarray]],
    affines: Sequence[np.ndarray],
    size: tuple[int, int],
    stride: int,
    published: bool = False,
) -> dict[str, np.ndarray]:
    """Mean of the maps of all scales at every pixel of the picture.

    Each map is enlarged by the stride, and what lies on the picture is brought to its size, both by cubic interpolation.

    Args:
        answers: for each scale {name: (C, h, w)}.
        affines: for each scale original → input, without rotation.
        size: (H, W) of the picture.
        stride: pixels of the input per cell.
        published: cut the picture out at whole pixels of the input and stretch that, as Lightweight OpenPose's evaluation
            does; otherwise the affine is followed exactly.

    Returns:
        {name: (C, H, W)} float32.
    """
    mean = {name: np.zeros((len(values), *size), np.float32) for name, values in answers[0].items()}
    for maps, affine in zip(answers, affines):
        # the picture's outer edges in the input
        edges = affine[:, :2] @ [[-0.5, size[1] - 0.5], [-0.5, size[0] - 0.5]] + affine[:, 2:] + 0.5
        (left, right), (top, bottom) = np.rint(edges).astype(int)
        for name, target in mean.items():
            for channel, values in zip(target, maps[name]):
                large = cv2.resize(values, None, fx=stride, fy=stride, interpolation=cv2.INTER_CUBIC)
                if published:
                    channel += cv2.resize(large[top:bottom, left:right], size[::-1], interpolation=cv2.INTER_CUBIC)
                else:
                    channel += _warped(large, affine, size)
    for target in mean.values():
        target /= len(answers)
    return mean


def _warped(values: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Values (h, w) at places given by an affine from the target to them; outside, those of the border."""
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(values, affine, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _to_cells(affine: np.ndarray, stride: int) -> np.ndarray:
    """original → cells, from original → input."""
    return np.concatenate([affine[:, :2] / stride, pixels_to_cells(affine[:, 2:], stride)], axis=1)


def _compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    return np.concatenate([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2:] + outer[:, 2:]], axis=1)
