"""One affine per sample: fit, rotate, scale, shift and mirror composed, so that every picture is resampled once.

Affines are (2, 3), original pixels → network input pixels, the integer coordinate being a pixel's centre.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch

from lib.people import cells_to_pixels, invert_affine

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
_REDUCED = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
            8: cv2.IMREAD_REDUCED_GRAYSCALE_8}  # the flags of the reduction alone # fmt: skip
_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG"
_JPEG_SCAN, _JPEG_END, _PNG_END = b"\xff\xda", b"\xff\xd9", b"IEND"

# luma weights (ITU-R BT.601), as in torchvision's and OpenCV's grayscale
_LUMA = torch.tensor([0.299, 0.587, 0.114])


def check_random(geometry: object, *ranges: str) -> None:
    """Raise ValueError unless these fields of a frozen dataclass are ranges above 0, and `flip` a probability."""
    for name in ranges:
        low, high = getattr(geometry, name)
        object.__setattr__(geometry, name, (float(low), float(high)))
        if not 0 < low <= high:
            raise ValueError(f"{type(geometry).__name__}: {name} must be a range (low, high) with 0 < low ≤ high, got "
                             f"{(low, high)}")  # fmt: skip
    if not 0 <= geometry.flip <= 1:
        raise ValueError(f"{type(geometry).__name__}: flip is a probability in 0..1, got {geometry.flip}")


@dataclass(frozen=True)
class Augment:
    """Random geometry, all uniform and relative to the picture fitted into the input (trt_pose's ranges by default).

    Attributes:
        scale: range of the zoom; 2 shows the middle half of the fitted picture at twice its size.
        rotation: largest angle in degrees, both ways; 11.5° is trt_pose's 0.2 rad.
        translation: largest shift as a fraction of the input's width and height, each axis on its own.
        flip: probability of mirroring.
        window: HigherHRNet's way instead: the input is a window on the picture, of the input's shape, and `scale` the range
            of its size; 2 shows twice as much at half the size. "short": the window of size 1 is the largest that lies within
            the picture (of a square input, the picture's short side wide); "long": the smallest that holds all of it. The
            window moves along the picture's axes, by up to `translation` of its size, and then turns about its own middle.
        mask_padding: what lies outside the picture is not supervised; otherwise it teaches that nobody is there.

    The figure is rotated in pixels, so nobody is sheared by it, whatever the shape of the picture.

    HigherHRNet's samples are `Augment((0.75, 1.5), 30, 0.2, 0.5, window="short", mask_padding=True)`. Three things of the
    original are left out. Its middle of a picture lies half a pixel beside ours. It mirrors the coordinates of each map by
    size − 1 − x, cells as if they were pixels, so that the targets of mirrored pictures lie one pixel beside the picture at
    stride 2 and three at stride 4. And it validates on the middle square of each picture, people beyond it unseen, where
    ours is validated on the whole picture, as it is used.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    rotation: float = 11.5
    translation: float = 0.2
    flip: float = 0.5
    window: Literal["short", "long"] | None = None
    mask_padding: bool = False

    def __post_init__(self):
        if self.window not in (None, "short", "long"):
            raise ValueError(f"Augment: window is short, long or nothing, got {self.window!r}")
        check_random(self, "scale")

    def sample(
        self,
        rng: np.random.Generator,
        image_size: tuple[int, int],
        input_size: tuple[int, int],
        keep_aspect_ratio: bool = True,
    ) -> tuple[np.ndarray, bool]:
        """Draw one affine.

        Args:
            rng: the only source of randomness; five numbers are drawn.
            image_size: (H, W) of the original.
            input_size: (H, W) of the network input.
            keep_aspect_ratio: see `fit_affine`.

        Returns:
            (2, 3) float64 original → input, and whether it mirrors (then left and right keypoints change places).
        """
        turn, zoom, shift_x, shift_y, mirror = rng.random(5).tolist()
        angle = math.radians(self.rotation) * (2 * turn - 1)
        zoom = self.scale[0] + (self.scale[1] - self.scale[0]) * zoom
        shift_x = self.translation * (2 * shift_x - 1) * input_size[1]
        shift_y = self.translation * (2 * shift_y - 1) * input_size[0]
        flipped = mirror < self.flip
        fit_x, fit_y = _fit_scales(image_size, input_size, keep_aspect_ratio, inside=self.window == "short")
        cos, sin, mirror = math.cos(angle), math.sin(angle), -1 if flipped else 1
        if self.window:
            zoom = 1 / zoom
            # moved along the picture's axes: the shift turns with the picture
            shift_x, shift_y = cos * shift_x - sin * shift_y, sin * shift_x + cos * shift_y
        cos, sin = zoom * cos, zoom * sin
        a, b, c, d = fit_x * cos * mirror, -fit_x * sin, fit_y * sin * mirror, fit_y * cos
        return _around_centres(a, b, c, d, image_size, input_size, shift_x, shift_y), flipped


def fit_affine(image_size: tuple[int, int], input_size: tuple[int, int], keep_aspect_ratio: bool = True) -> np.ndarray:
    """The affine without augmentation: the whole picture, centred, letterboxed or stretched.

    Args:
        image_size: (H, W) of the original.
        input_size: (H, W) of the network input.
        keep_aspect_ratio: one scale for both axes, bars at two sides; otherwise the picture fills the input.

    Returns:
        (2, 3) float64 original → input.
    """
    x, y = _fit_scales(image_size, input_size, keep_aspect_ratio)
    return _around_centres(x, 0, 0, y, image_size, input_size)


def in_picture(affine: np.ndarray, picture: tuple[int, int], cells: tuple[int, int], stride: int) -> np.ndarray:
    """Which cells of a map of the input have their centre in the picture.

    Args:
        affine: (2, 3) original → input.
        picture: (H, W) of the original.
        cells: (h, w) of the map.
        stride: pixels of the input per cell.

    Returns:
        (h, w) bool.
    """
    (a, b, x), (c, d, y) = invert_affine(affine)
    i, j = (cells_to_pixels(axis, stride) for axis in np.ogrid[: cells[0], : cells[1]])
    x, y = a * j + b * i + x, c * j + d * i + y
    return (x >= -0.5) & (x < picture[1] - 0.5) & (y >= -0.5) & (y < picture[0] - 0.5)


def warp(image: np.ndarray, affine: np.ndarray, input_size: tuple[int, int], background: int = 0) -> np.ndarray:
    """Resample an image (H, W, 3) uint8 once, bilinearly, to (*input_size, 3); outside it is grey of the value `background`.

    To shrink far without aliasing read the image with `read_reduced(path, reduction_for(affine))` and pass
    `reduced_affine(affine, reduction)`.
    """
    # OpenCV resamples four channels faster than three, by more than the detour costs
    padded = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    warped = cv2.warpAffine(padded, affine, input_size[::-1], flags=cv2.INTER_LINEAR, borderValue=(background,) * 4)
    return cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)


def image_files(folder: str | Path) -> list[Path]:
    """The pictures in a folder and its sub-folders, without hidden ones, in the order in which people count (2 before 10).

    Raises:
        FileNotFoundError: no such folder, or no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of images")
    found = [p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    found = [p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    if not found:
        raise FileNotFoundError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return sorted(found, key=lambda p: [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", p.as_posix())])


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 RGB.

    An EXIF rotation is ignored, as in COCO: annotations are in the stored pixels.

    Args:
        path: any format of OpenCV.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, or cut off (an interrupted download or copy).
    """
    return read_reduced(path, 1)[0]


def read_reduced(path: str | Path, max_reduction: int) -> tuple[np.ndarray, int]:
    """Read a picture as `read_image` does, and say by how much it was reduced.

    A JPEG is decoded directly at 1/max_reduction of its size (rounded up), which is faster and shrinks without
    aliasing; other formats come at full size.

    Returns:
        (H, W, 3) uint8 RGB, and the reduction: `max_reduction` or 1.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: image not found") from None
    _check_complete(path, data)
    reduction = max_reduction if data[:3].tobytes() == _JPEG else 1
    image = cv2.imdecode(data, _REDUCED[reduction] | _RGB)
    if image is None:
        raise ValueError(f"{path}: not a readable image ({data.size} bytes); replace the file")
    return image, reduction


def reduction_for(affine: np.ndarray) -> int:
    """The strongest reduced decode (1, 2, 4 or 8) which still gives every input pixel a pixel of its own."""
    a, b, c, d = affine[:, :2].ravel().tolist()
    # the larger singular value: how far the map stretches at most (numpy's SVD takes ten times as long)
    mean, half = (a * a + b * b + c * c + d * d) / 2, (a * a + b * b - c * c - d * d) / 2
    largest = math.sqrt(mean + math.hypot(half, a * c + b * d))
    return next((r for r in (8, 4, 2) if r * largest <= 1 + 1e-9), 1)


def reduced_affine(affine: np.ndarray, reduction: int) -> np.ndarray:
    """The same map from a picture reduced by r, whose pixel x is centred on r·x + (r − 1)/2 of the original."""
    r, shift = reduction, (reduction - 1) / 2
    return np.array([[r * a, r * b, x + shift * (a + b)] for a, b, x in affine.tolist()])


@dataclass(frozen=True)
class ColorJitter:
    """Random brightness, contrast, saturation and hue for every picture of a batch, as one colour matrix each.

    Factors are uniform in 1 ± value; hue turns colours around the grey axis by up to ± value of a full turn. The four
    are composed into one 3×3 matrix and an offset per picture, so the batch is touched once and clipped once. (The
    usual chain clips after each of the four and turns hue on HSV's hexagon, where ours keeps the mean of R, G and B.)
    """

    brightness: float = 0.05
    contrast: float = 0.05
    saturation: float = 0.05
    hue: float = 0.01

    def __call__(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Jitter a batch.

        Args:
            images: (N, 3, H, W) RGB 0..255, uint8 or float.
            generator: on the CPU; the source of the 4·N random numbers.

        Returns:
            (N, 3, H, W) float32 0..255, channels_last in memory.
        """
        limits = torch.tensor([self.brightness, self.contrast, self.saturation, self.hue])
        drawn = (torch.rand(len(images), 4, generator=generator) * 2 - 1) * limits
        device = images.device
        brightness, contrast, saturation = (1 + drawn[:, :3]).to(device).unbind(1)
        with torch.autocast(device.type, enabled=False):
            images = images.float()
            matrix = _colour_matrix(saturation, drawn[:, 3].to(device)) * (brightness * contrast)[:, None, None]
            # contrast scales the distance to the picture's mean grey
            offset = images.mean(dim=(2, 3)) @ _LUMA.to(device) * brightness * (1 - contrast)
            return _apply_colours(images, matrix, offset)


def _apply_colours(images: torch.Tensor, matrix: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    n, _, h, w = images.shape
    # several pixels a row, the matrix repeated along the diagonal: products of three columns are several times slower
    k = math.gcd(4, h * w)
    pixels = images.permute(0, 2, 3, 1).reshape(n, h * w // k, 3 * k)
    repeated = torch.einsum("pq,ndc->npcqd", torch.eye(k, device=images.device), matrix).reshape(n, 3 * k, 3 * k)
    out = torch.baddbmm(offset[:, None, None], pixels, repeated).clamp_(0, 255)
    return out.view(n, h, w, 3).permute(0, 3, 1, 2)


def _colour_matrix(saturation: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """(N, 3, 3): rotation around the grey axis (Rodrigues), then a blend with the luma."""
    cos, sin = torch.cos(2 * math.pi * turns)[:, None, None], torch.sin(2 * math.pi * turns)[:, None, None]
    same = torch.eye(3, device=turns.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=turns.device) / math.sqrt(3)
    hue = cos * same + (1 - cos) / 3 + sin * cross
    saturation = saturation[:, None, None]
    return (saturation * same + (1 - saturation) * _LUMA.to(turns.device)) @ hue


def _fit_scales(image_size, input_size, keep_aspect_ratio: bool, inside: bool = False) -> tuple[float, float]:
    y, x = input_size[0] / image_size[0], input_size[1] / image_size[1]
    one = max(x, y) if inside else min(x, y)
    return (one, one) if keep_aspect_ratio else (x, y)


def _around_centres(a, b, c, d, image_size, input_size, shift_x=0.0, shift_y=0.0) -> np.ndarray:
    """[[a, b], [c, d]] around the centre of the image, which lands on the centre of the input plus the shift."""
    from_x, from_y = (image_size[1] - 1) / 2, (image_size[0] - 1) / 2
    to_x, to_y = (input_size[1] - 1) / 2 + shift_x, (input_size[0] - 1) / 2 + shift_y
    return np.array([[a, b, to_x - a * from_x - b * from_y], [c, d, to_y - c * from_x - d * from_y]])


def _check_complete(path: str | Path, data: np.ndarray) -> None:
    """Some decoders paint the missing part of a cut-off file grey and go on; the end marker tells."""
    head, tail = data[:4].tobytes(), data[-16:].tobytes()
    complete = data.size > 0
    # the slow search is for files to which a camera or an editor appended data of its own
    if head.startswith(_JPEG) and not tail.endswith(_JPEG_END):
        content = data.tobytes()
        complete = content.rfind(_JPEG_END) > content.rfind(_JPEG_SCAN)  # within a scan the marker cannot occur
    elif head == _PNG and _PNG_END not in tail:
        complete = _PNG_END in data.tobytes()
    if not complete:
        raise ValueError(f"{path}: the image is cut off after {data.size} bytes; copy or download it again")
