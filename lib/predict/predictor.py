"""Find people: one class runs a checkpoint, an ONNX file or a TensorRT plan, and all three give the same `People`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm.auto import tqdm

from lib.checkpoints import Model
from lib.codecs import CODECS
from lib.codecs.codec import nearest
from lib.data.augment import read_image
from lib.data.boxes import PADDING
from lib.detect import SPECS, Detector
from lib.people import People, invert_affine
from lib.predict.detecting import detector_named
from lib.predict.fitting import (
    Fitted,
    crops_on_picture,
    fit_height,
    fit_model,
    fit_native,
    fit_short,
    maps_at_image,
    maps_at_input,
    maps_at_pixels,
    on_picture,
)
from lib.predict.stages import overlapped
from lib.predict.topdown import fit_boxes, people_of_crops
from lib.runtime import open_network
from lib.skeleton import Skeleton

LARGEST_SCALE = 8  # a percentage taken for a factor would ask for more memory than the machine has
INPUTS = 32  # crops that go through the network together at most, if there are not more pictures


class Predictor:
    """People in images, from any file this workbook writes.

    `predictor(images)` does all; `fit`, `answers` and `people` are its three steps for who wants to time them, or to read
    the same maps again with another `codec`. A top-down model, whose codec reads one person at a time, has a step before:
    `detect` says where people are, and what is fitted are crops around their boxes.

    Attributes:
        skeleton: what the keypoints are.
        codec: turns maps into people; rebuilt with `codec_options`, and may be replaced at any time.
        input_size: (H, W) of the network's input in pixels; images are fitted into it.
        keep_aspect_ratio: fit with borders (True) or stretch.
        metadata: what the file says about itself (`Model.metadata()`).
        source: the file, or None for a model in memory.
        provider: what really runs the network, for example "torch cpu" or "CPUExecutionProvider".
        device, precision, flip_test, fit_to, maps_at: as asked for.
        scales: those asked for, or those of the scale search.
        searches: whether there is one.
        detector: of a top-down model; may be replaced at any time.
        padding: sides of a crop per side of its box, as trained.

    Args:
        model: what `lib.runtime.open_network` takes: `.safetensors` checkpoint, exported `.onnx`, `.plan`, `.pt2` or `.ts`, a
            public `.pth`, or a `Model` in memory, of which a copy is taken.
        device: "cpu", "cuda" or "cuda:1". A device that cannot be used is an error, never a silent fallback.
        precision: "bf16" runs a torch network under autocast; an exported file carries its own precision.
        flip_test: average the maps of the image and of its mirror image (tags get a second number instead); twice the work,
            usually a little more AP.
        input_size: (H, W) for another resolution than the checkpoint's; torch only, an exported file has its size fixed.
        codec_options: decode options to change, for example {"peak_threshold": 0.2}; an unknown name is an error.
        threads: CPU threads of ONNX Runtime; None leaves the choice to it. (For torch: `torch.set_num_threads`.)
        scales: the picture is shown to the network at each of these sizes, relative to the fitted one, and the maps are
            averaged, but for those of the codec's `own_scale`, which come from scale 1 (or the largest). (0.5, 1, 1.5, 2) is
            Lightweight OpenPose's choice, (0.5, 1, 2) HigherHRNet's. Torch only.
        fit: "model" fits the picture into `input_size` with black borders (or stretches it, as the checkpoint says).
            "height" is Lightweight OpenPose's evaluation: the height becomes input_size[0], the width what it must be, at
            least input_size[1], with grey borders up to the network's multiple. "short" is HigherHRNet's: the shorter side
            becomes the smaller of `input_size`, rounded up to a multiple of 64, the other what it must be. Torch only.
        maps_at: resolution of the maps that are read: "input", as the network gives them; "pixels", the input's own, by
            linear interpolation (HigherHRNet's evaluation, in which large pictures are not averaged down first either);
            or "image", the picture's own, by cubic interpolation (Lightweight OpenPose's). That takes about 4 bytes for
            every pixel and channel: half a gigabyte for 1080p.
        scale_search: of one person (a codec with `single`), instead of `scales`: the picture is read at each of these sizes, and
            the pose counts whose worst keypoint scores best (DeeperCut's Caffe demo). Torch only.
        detector: of a top-down model, and only of one: a `lib.detect.Detector`, or what `detector_named` opens.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is of another kind, or an option does not fit it.
        RuntimeError: the device or its runtime is missing on this machine.
    """

    def __init__(
        self,
        model: Model | str | Path,
        device: str = "cpu",
        *,
        precision: Literal["fp32", "bf16"] = "fp32",
        flip_test: bool = False,
        input_size: tuple[int, int] | None = None,
        codec_options: Mapping | None = None,
        threads: int | None = None,
        scales: Sequence[float] = (1.0,),
        fit: Literal["model", "height", "short", "native"] = "model",
        maps_at: Literal["input", "pixels", "image"] = "input",
        scale_search: Sequence[float] | None = None,
        detector: Detector | str | Path | None = None,
    ):
        self.source: Path | None = None if isinstance(model, Model) else Path(model)
        self._network = open_network(model, device, precision, input_size, threads)
        self.metadata: dict = self._network.metadata
        self.provider: str = self._network.provider
        self.device, self.precision = device, precision
        self.skeleton = Skeleton(**self.metadata["skeleton"])
        self.codec = codec_from_metadata(self.metadata, codec_options)
        self.input_size: tuple[int, int] = tuple(self.metadata["input_size"])
        self.keep_aspect_ratio: bool = self.metadata["keep_aspect_ratio"]
        self.flip_test, self.scales, self.maps_at = flip_test, tuple(float(s) for s in scale_search or scales), maps_at
        self.fit_to, self.searches = fit, bool(scale_search)
        self.padding: float = self.metadata["info"].get("box_padding", PADDING)
        self._check_options(both=self.searches and tuple(scales) != (1.0,))
        self._check_detector(detector)
        self.detector = detector_named(detector, device) if isinstance(detector, (str, Path)) else detector

    def __call__(self, images: Sequence[np.ndarray | str | Path], batch_size: int = 8) -> list[People]:
        """Find the people of every image.

        Args:
            images: RGB uint8 arrays (H, W, 3) of any sizes, or paths; mixed if you like.
            batch_size: images that go through the network together.

        Returns:
            One `People` per image, in pixels of that image as it was given. Progress shows when it takes over a second.

        Raises:
            ValueError: an array is no RGB uint8 image; or a file is truncated, named.
            FileNotFoundError: a path does not exist.
        """
        if isinstance(images, (str, Path)) or (isinstance(images, np.ndarray) and images.ndim == 3):
            raise ValueError("images must be a list of images or paths; for a single one write predictor([image])[0]")
        return list(self.each(images, batch_size))

    def each(
        self, images: Sequence[np.ndarray | str | Path], batch_size: int = 8, what: str = "predict"
    ) -> Iterator[People]:
        """The same, one after the other, so that nobody has to keep them all; `what` stands before the progress."""
        # the next batch is read and warped while the network works on one and the people of the last are read
        batches = overlapped(self._batches(images, batch_size))
        answers = overlapped((batch, self.answers(batch)) for batch in batches)
        with tqdm(total=len(images), desc=what, unit="img", delay=1, leave=False, disable=len(images) == 1) as bar:
            for batch, maps in answers:
                for fitted, answer in zip(batch, maps):
                    yield self.people(answer, fitted)
                bar.update(len(batch))

    @property
    def per_person(self) -> bool:
        """Whether the model is a top-down one: it sees people one by one, and needs a detector."""
        return getattr(self.codec, "per_person", False)

    @property
    def mirror_is_new(self) -> bool:
        """Whether the flip test shows the network what training, without mirror images, did not: it may take left for right."""
        return self.flip_test and self.metadata["info"].get("flip") == 0

    def detect(self, image: np.ndarray | str | Path, path: str | Path | None = None) -> np.ndarray:
        """The boxes (P, 5) [x, y, width, height, score] of an image's people, as the detector says.

        Args:
            image: array or path.
            path: of the array, for detectors that look up what is annotated.
        """
        path = image if isinstance(image, (str, Path)) else path
        return self.detector(_checked_image(image), path and Path(path))

    def fit(self, image: np.ndarray | str | Path, boxes: np.ndarray | None = None) -> Fitted:
        """Fit an image into the network's input, once for every scale, or for a top-down model each of its boxes.

        Args:
            image: array or path.
            boxes: (P, 5) of a top-down model, in place of those that `detect` finds.

        Raises:
            ValueError: no RGB uint8 image, or a damaged file; no boxes, or boxes for a model that needs none.
        """
        if self.per_person:
            path, image = image, _checked_image(image)
            if boxes is None:
                boxes = self.detect(image, None if path is image else path)
            return fit_boxes(image, boxes, self.input_size, self.padding, getattr(self.codec, "cells", "centres"))
        if boxes is not None:
            raise ValueError("boxes are for a top-down model; this one looks at the whole picture")
        image = _checked_image(image)
        if self.fit_to == "height":
            fits = [fit_height(image, self.input_size, scale, self._multiple) for scale in self.scales]
        elif self.fit_to == "short":
            side, smallest, averaged = min(self.input_size), min(self.scales), self.maps_at != "pixels"
            fits = [fit_short(image, side, scale, smallest, self._multiple, averaged) for scale in self.scales]
        elif self.fit_to == "native":
            fits = [fit_native(image, scale, self._multiple) for scale in self.scales]
        else:
            fits = [fit_model(image, size, self.keep_aspect_ratio) for size in self._sizes]
        inputs, affines = zip(*fits)
        return Fitted(inputs, affines, image.shape[:2])

    def answers(self, batch: Sequence[Fitted]) -> list[list[dict[str, np.ndarray]]]:
        """What the network says of each input of each picture: float32 maps (C, h, w), named as the codec wants them."""
        inputs = [pixels for fitted in batch for pixels in fitted.inputs]
        alike: dict[tuple, list[int]] = {}
        for i, pixels in enumerate(inputs):
            alike.setdefault(pixels.shape, []).append(i)
        answers: list = [None] * len(inputs)
        most = max(len(batch), INPUTS)
        # what has the same shape goes together, whatever picture it is of
        for same in alike.values():
            for start in range(0, len(same), most):
                some = same[start : start + most]
                for i, maps in zip(some, self._run(np.stack([inputs[i] for i in some]))):
                    answers[i] = maps
        rest = iter(answers)
        return [[next(rest) for _ in fitted.inputs] for fitted in batch]

    def people(self, answers: Sequence[Mapping[str, np.ndarray]], fitted: Fitted) -> People:
        """Read the people of one picture from the maps of its scales or boxes, in pixels of that picture."""
        if fitted.boxes is not None:
            return people_of_crops(self.codec, answers, fitted)
        if not self.searches:
            return self._read(answers, fitted, self.base)
        alone = [Fitted((pixels,), (affine,), fitted.size) for pixels, affine in zip(fitted.inputs, fitted.affines)]
        found = [self._read([maps], one, 0) for maps, one in zip(answers, alone)]
        return max(found, key=lambda people: float(people.keypoints[..., 2].min()) if len(people) else -1.0)

    def _read(self, answers: Sequence[Mapping[str, np.ndarray]], fitted: Fitted, base: int) -> People:
        """The people that the maps of several scales, averaged on the cells of scale number `base`, show."""
        codec = self.codec
        if self.maps_at == "image":
            published = self.fit_to == "height"
            maps = maps_at_image(answers, fitted.affines, fitted.size, codec.strides, codec.own_scale, base, published)
            return codec.at_pixels(codec.stride / fitted.affines[base][1, 1]).decode(maps)
        if self.maps_at == "pixels":
            maps = maps_at_pixels(answers, base, fitted.inputs[base].shape[:2], codec.own_scale)
            codec = codec.at_pixels(codec.stride)
        else:
            maps = maps_at_input(answers, fitted.affines, base, codec.strides, codec.own_scale)
        return codec.decode(maps).warped(invert_affine(fitted.affines[base]))

    def on_picture(self, name: str, answers: Sequence[Mapping[str, np.ndarray]], fitted: Fitted) -> np.ndarray:
        """Maps (C, h', w') of that name with the edges of the picture, to be drawn over it; of crops the highest values."""
        stride = self.codec.strides[name]
        if fitted.boxes is not None:
            return crops_on_picture([maps[name] for maps in answers], fitted, stride, self.skeleton.num_keypoints)
        return on_picture(answers[self.base][name], fitted.affines[self.base], fitted.size, stride)

    @property
    def base(self) -> int:
        """Number of the scale on whose cells the maps are averaged: that of 1, or of the largest."""
        return self.scales.index(1.0 if 1.0 in self.scales else max(self.scales))

    def prepare(self, images: Sequence[np.ndarray | str | Path]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Fit images into `input_size`, whatever `scales` and `fit` are.

        Returns:
            (N, H, W, 3) uint8 for `maps`, and for every image the (2, 3) affine original → input.
        """
        fits = [fit_model(_checked_image(image), self.input_size, self.keep_aspect_ratio) for image in images]
        return np.stack([pixels for pixels, _ in fits]), [affine for _, affine in fits]

    def maps(self, images: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Network output of images that have the input size already.

        Args:
            images: (N, H, W, 3) uint8 RGB, (H, W) = `input_size`.

        Returns:
            N dicts of float32 maps (C, h, w), named as the codec wants them.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != (*self.input_size, 3) or images.dtype != np.uint8:
            raise ValueError(
                f"the network takes uint8 images of shape (N, {self.input_size[0]}, {self.input_size[1]}, 3), "
                f"got {images.dtype} {images.shape}; call predictor(images) to have them fitted"
            )
        return self._run(images)

    def _run(self, images: np.ndarray) -> list[dict[str, np.ndarray]]:
        maps = self._network(images)
        if self.flip_test:
            mirrored = self._network(np.ascontiguousarray(images[:, :, ::-1]))
            maps = self.codec.with_mirrored(maps, self.codec.flip(mirrored))
        return [{name: values[i] for name, values in maps.items()} for i in range(len(images))]

    def _batches(self, images: Sequence, batch_size: int) -> Iterator[list[Fitted]]:
        for start in range(0, len(images), batch_size):
            yield [self.fit(image) for image in images[start : start + batch_size]]

    def _check_detector(self, detector: Detector | str | Path | None) -> None:
        what = self.source or "this model"
        if not self.per_person:
            if detector is not None:
                raise ValueError(f"{what} finds all people of a picture by itself: leave the detector out")
            return
        if detector is None:
            raise ValueError(f"{what} reads one person at a time and needs a detector that says where people are; give {SPECS}")
        if self.searches or self.scales != (1.0,) or self.fit_to != "model" or self.maps_at != "input":
            raise ValueError(f"{what} is a top-down model, which sees every person in a crop of one size: leave out scales, "
                             "scale_search, fit and maps_at")  # fmt: skip

    def _check_options(self, both: bool) -> None:
        if self.fit_to not in ("model", "height", "short", "native"):
            raise ValueError(f"fit is {self.fit_to!r}; choose model, height, short or native")
        if self.searches and (both or not getattr(self.codec, "single", False)):
            raise ValueError("a scale search chooses one pose from several, scales averages their maps: give one of them" if both
                             else "a scale search is for one person in a picture: give a DeeperCut model single=True "
                             "(--codec.single=true), or average the maps with scales")  # fmt: skip
        if self.maps_at not in ("input", "pixels", "image"):
            raise ValueError(f"maps_at is {self.maps_at!r}; choose input, pixels or image")
        if not self.scales or not all(0 < scale <= LARGEST_SCALE for scale in self.scales):
            raise ValueError(f"scales are factors above 0 and at most {LARGEST_SCALE}, at least one, got {self.scales}")
        multiple = self._multiple = getattr(self._network, "input_multiple", None)
        if multiple is None and (self.fit_to != "model" or self.scales != (1.0,)):
            raise ValueError(f"{self.source}: fit={self.fit_to!r} and other scales than 1 need a network of free size, and this "
                             f"file has the size {self.input_size[0]}×{self.input_size[1]} fixed; give the checkpoint itself")  # fmt: skip
        self._sizes = [
            self.input_size
            if scale == 1
            else tuple(max(multiple, round(scale * side / multiple) * multiple) for side in self.input_size)
            for scale in self.scales
        ]


def codec_from_metadata(metadata: Mapping, options: Mapping | None = None):
    """The codec a file was made with, `options` replacing some of its own.

    Raises:
        ValueError: unknown codec, or an option it does not have.
    """
    name, recorded = metadata["codec"]["name"], metadata["codec"]["options"]
    if name not in CODECS:
        raise ValueError(
            f"the file wants the codec {name!r}; this version has {', '.join(CODECS)}: update the workbook"
        )
    options = dict(options or {})
    # a file may be older than an option: then it was made with that option's default
    known = [field.name for field in dataclasses.fields(CODECS[name]) if field.name != "skeleton"]
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}{nearest(option, known)}")
    if "stride" in options and options["stride"] != recorded.get("stride", options["stride"]):
        raise ValueError(f"the network's maps have the stride {recorded['stride']}; people read with the stride "
                         f"{options['stride']} would stand in wrong places: leave it out")  # fmt: skip
    try:
        return CODECS[name](Skeleton(**metadata["skeleton"]), **{**recorded, **options})
    except TypeError as error:
        raise ValueError(f"{name} cannot work with {options}: {error}") from error


def _checked_image(image: np.ndarray | str | Path) -> np.ndarray:
    if isinstance(image, (str, Path)):
        return read_image(image)
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"an image is an RGB uint8 array of shape (H, W, 3) or a path, got {got}")
    return image
