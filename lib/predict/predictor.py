"""Find people: one class runs a checkpoint, an ONNX file or a TensorRT plan, and all three give the same `People`."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from tqdm.auto import tqdm

from lib.checkpoints import Model, load_model
from lib.codecs import CODECS
from lib.data.augment import fit_affine, image_files, read_image, reduced_affine, reduction_for, warp
from lib.draw import draw_people
from lib.export_tensorrt import TensorRTNetwork
from lib.files import write
from lib.metrics import people_to_results
from lib.people import People, invert_affine
from lib.runtime import OnnxNetwork, TorchNetwork
from lib.skeleton import Skeleton


class Predictor:
    """People in images, from any file this workbook writes.

    Attributes:
        skeleton: what the keypoints are.
        codec: turns maps into people; rebuilt with `codec_options`.
        input_size: (H, W) of the network's input in pixels; images are fitted into it.
        keep_aspect_ratio: fit with borders (True) or stretch.
        metadata: what the file says about itself (`Model.metadata()`).
        source: the file, or None for a model in memory.
        provider: what really runs the network, for example "torch cpu" or "CPUExecutionProvider".

    Args:
        model: `.safetensors` checkpoint, exported `.onnx`, TensorRT `.plan`, or a `Model` in memory, of which a copy
            is taken.
        device: "cpu", "cuda" or "cuda:1". A device that cannot be used is an error, never a silent fallback.
        precision: "bf16" runs a torch network under autocast; an exported file carries its own precision.
        flip_test: average the maps of the image and of its mirror image; twice the work, usually a little more AP.
        input_size: (H, W) for another resolution than the checkpoint's; torch only, an exported file has its size fixed.
        codec_options: decode options to change, for example {"peak_threshold": 0.2}; an unknown name is an error.
        threads: CPU threads of ONNX Runtime; None leaves the choice to it. (For torch: `torch.set_num_threads`.)

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
    ):
        self.source: Path | None = None if isinstance(model, Model) else Path(model)
        self._network = _opened(model, device, precision, input_size, threads)
        self.metadata: dict = self._network.metadata
        self.provider: str = self._network.provider
        self.skeleton = Skeleton(**self.metadata["skeleton"])
        self.codec = codec_from_metadata(self.metadata, codec_options)
        self.input_size: tuple[int, int] = tuple(self.metadata["input_size"])
        self.keep_aspect_ratio: bool = self.metadata["keep_aspect_ratio"]
        self.flip_test = flip_test

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
        batches = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
        people: list[People] = []
        with (
            ThreadPoolExecutor(1) as pool,
            tqdm(total=len(images), desc="predict", unit="img", delay=1, leave=False) as bar,
        ):
            # the next batch is read and warped while the network works on this one
            coming = pool.submit(self.prepare, batches[0]) if batches else None
            for i in range(len(batches)):
                inputs, affines = coming.result()
                coming = pool.submit(self.prepare, batches[i + 1]) if i + 1 < len(batches) else None
                for maps, affine in zip(self.maps(inputs), affines):
                    people.append(self.codec.decode(maps).warped(invert_affine(affine)))
                bar.update(len(affines))
        return people

    def prepare(self, images: Sequence[np.ndarray | str | Path]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Fit images into the network's input.

        Returns:
            (N, H, W, 3) uint8 for `maps`, and for every image the (2, 3) affine original → input.
        """
        arrays = [_checked_image(image) for image in images]
        affines = [fit_affine(image.shape[:2], self.input_size, self.keep_aspect_ratio) for image in arrays]
        return np.stack([_fitted(image, affine, self.input_size) for image, affine in zip(arrays, affines)]), affines

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
        maps = self._network(images)
        if self.flip_test:
            mirrored = self._network(np.ascontiguousarray(images[:, :, ::-1]))
            maps = average_with_mirrored(maps, mirrored, self.skeleton)
        return [{name: values[i] for name, values in maps.items()} for i in range(len(images))]


def average_with_mirrored(maps: Mapping, mirrored: Mapping, skeleton: Skeleton) -> dict[str, np.ndarray]:
    """Flip test: average the maps of images with those of their mirror images, turned back.

    Left and right change places; in part affinity fields (y, x per limb) the x component changes its sign. A limb without a
    mirror twin in the skeleton keeps its own map.

    Args:
        maps: heatmaps (N, K or more, h, w), channels after K (a background) having no twin; pafs (N, 2L, h, w).
        mirrored: the same of images[:, :, ::-1].
        skeleton: brings the twins.

    Raises:
        ValueError: a kind of map for which no mirror rule is known.
    """
    averaged = {}
    for name, values in maps.items():
        back = mirrored[name][..., ::-1]
        if name == "heatmaps":
            back = back[:, [*skeleton.flip_index, *range(skeleton.num_keypoints, values.shape[1])]]
        elif name == "pafs":
            twins, signs = skeleton.limb_flip
            fields = back.reshape(len(back), -1, 2, *back.shape[2:])
            back = fields[:, twins] * (signs[:, None] * np.float32([1, -1]))[:, :, None, None]
            back[:, twins < 0] = values.reshape(fields.shape)[:, twins < 0]
            back = back.reshape(values.shape)
        else:
            raise ValueError(f"the flip test knows heatmaps and pafs, not {name!r}; predict without flip_test")
        averaged[name] = (values + back) / 2
    return averaged


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
    unknown = set(options or ()) - set(recorded)
    if unknown:
        raise ValueError(f"{name} has no option {', '.join(sorted(unknown))}; it has {', '.join(recorded)}")
    return CODECS[name](Skeleton(**metadata["skeleton"]), **{**recorded, **(options or {})})


def predict(
    images: Path,
    model: Path,
    out: Path,
    device: str = "cpu",
    batch_size: int = 8,
    flip_test: bool = False,
    min_score: float = 0.2,
) -> Path:
    """Find people in image files, draw them, and list them as COCO results.

    Args:
        images: a file, or a folder of which all images are taken, also those of its sub-folders.
        model: `.safetensors`, `.onnx` or `.plan`.
        out: folder for the drawn pictures and `results.json`, in which `image_id` counts the files from 0 and `file_name` names
            the picture.
        device: "cpu", "cuda" or "cuda:1".
        batch_size: images per network call.
        flip_test: average with the mirror image.
        min_score: keypoints below are not drawn; the JSON holds them all.

    Returns:
        The folder `out`.
    """
    files = _image_files(images, out)
    predictor = Predictor(model, device, flip_test=flip_test)
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for start in tqdm(range(0, len(files), batch_size), desc="predict", unit="batch"):
        batch = [read_image(file) for file in files[start : start + batch_size]]
        for i, (image, people) in enumerate(zip(batch, predictor(batch, batch_size)), start):
            picture = draw_people(image, people, predictor.skeleton, min_score=min_score)
            name = f"{i:06d}_{files[i].stem}.jpg"
            write(out / name, cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes())
            results += [{**row, "file_name": name} for row in people_to_results(people, i)]
    write(out / "results.json", json.dumps(results))
    return out


def _opened(
    model: Model | str | Path, device: str, precision: str, input_size: tuple[int, int] | None, threads: int | None
):
    if isinstance(model, Model):
        return TorchNetwork(copy.deepcopy(model), device, precision, input_size)
    path = Path(model)
    if path.suffix not in (".safetensors", ".onnx", ".plan"):
        raise ValueError(
            f"{path}: a model is a .safetensors checkpoint, an exported .onnx or a TensorRT .plan, not {path.suffix or 'this'!r}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no model {path}")
    if path.suffix == ".safetensors":
        return TorchNetwork(load_model(path), device, precision, input_size)
    if precision != "fp32" or input_size is not None:
        raise ValueError(
            f"{path}: precision and input_size were fixed when this file was exported; export it anew to change them"
        )
    return OnnxNetwork(path, device, threads) if path.suffix == ".onnx" else TensorRTNetwork(path, device)


def _checked_image(image: np.ndarray | str | Path) -> np.ndarray:
    if isinstance(image, (str, Path)):
        return read_image(image)
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"an image is an RGB uint8 array of shape (H, W, 3) or a path, got {got}")
    return image


def _fitted(image: np.ndarray, affine: np.ndarray, input_size: tuple[int, int]) -> np.ndarray:
    """One warp; a picture several times too large is averaged down first, as training does while it reads a JPEG."""
    reduction = reduction_for(affine)
    if reduction > 1:
        bottom, right = (-side % reduction for side in image.shape[:2])
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        image = cv2.resize(image, None, fx=1 / reduction, fy=1 / reduction, interpolation=cv2.INTER_AREA)
    return warp(image, reduced_affine(affine, reduction), input_size)


def _image_files(path: Path, out: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    # what was drawn before is not an image to look at
    files = [file for file in image_files(path) if not file.resolve().is_relative_to(out.resolve())]
    if not files:
        raise FileNotFoundError(f"{path} holds no image but those in {out}")
    return files
