"""A classifier as one ONNX file that names the same classes."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx

from lib import files
from lib.checkpoints import Classifier, file_sha256, load_classifier
from lib.classify.predictor import PictureClassifier
from lib.data.augment import image_files
from lib.data.classes import write_classes
from lib.export.gate import manifest_of
from lib.export.onnx_file import metadata_of, to_onnx
from lib.parity import map_differences

PROBABILITIES, SAME_CLASS = {"fp32": 1e-4, "fp16": 1e-2}, {"fp32": 1.0, "fp16": 0.99}


def export_classifier(
    model: Classifier | str | Path,
    path: str | Path,
    *,
    precision: str = "fp32",
    opset: int = 20,
    input_size: tuple[int, int] | None = None,
    data_dir: str | Path | None = None,
    limit: int = 64,
) -> dict:
    """Write `path` if, and only if, it names the same classes as `model`: input as of pose models, output "logits".

    Probabilities may differ by 1e-4 (fp16: 1e-2), and the most probable class must be the same in every (fp16: in 99 of 100)
    pictures. Beside it stands `PATH.json`, see `lib.export.gate`.

    Args:
        model: a checkpoint or a `Classifier`.
        path: the `.onnx` file; an older one stays untouched until the new one has passed.
        precision: fp32 or fp16.
        opset: ONNX operator set, 18 to 23.
        input_size: (H, W), by default the model's.
        data_dir: folder of pictures (with its sub-folders) to compare on; by default synthetic ones are drawn.
        limit: at most so many of them.

    Returns:
        images, batch_sizes, probabilities (their largest difference) and same_class (share of the pictures).

    Raises:
        ValueError: not an `.onnx` name, another precision, or a file that names others; it is kept as `PATH.rejected`.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"{path}: a classifier becomes an .onnx file")
    if precision not in PROBABILITIES:
        raise ValueError(f"{path}: a classifier is written in fp32 or fp16, not {precision}")
    origin = {} if isinstance(model, Classifier) else {"source": Path(model).name, "source_sha256": file_sha256(model)}
    model = model if isinstance(model, Classifier) else load_classifier(model)
    if input_size is not None:
        model = dataclasses.replace(model, input_size=input_size)
    proto = to_onnx(model, half=precision == "fp16", opset=opset, origin=origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    candidate = path.with_name(f".{path.stem}.candidate.onnx")
    try:
        onnx.save(proto, candidate)
        with _pictures(data_dir, limit) as pictures:
            figures = _compared(PictureClassifier(model), PictureClassifier(candidate), pictures)
        if not (figures["probabilities"] <= PROBABILITIES[precision] and figures["same_class"] >= SAME_CLASS[precision]):
            os.replace(candidate, path.with_name(f"{path.name}.rejected"))
            raise ValueError(f"{path.name} does not name the same classes as the model: probabilities differ by up to "
                             f"{figures['probabilities']:.1e} (allowed {PROBABILITIES[precision]:.0e}), the most probable class is "
                             f"the same in {figures['same_class']:.1%} of {figures['images']} pictures")  # fmt: skip
        manifest = manifest_of(candidate, path, {"metadata": metadata_of(proto)}, figures)
        files.write(f"{path}.json", json.dumps(manifest, indent=2))
        os.replace(candidate, path)
    finally:
        candidate.unlink(missing_ok=True)
    return figures


def _compared(reference: PictureClassifier, file: PictureClassifier, pictures: Sequence[Path]) -> dict:
    fitted = np.stack([reference.fit(picture) for picture in pictures])
    bounds = [0, 1, 3, *range(11, len(fitted), 8), len(fitted)]
    batches = [fitted[a:b] for a, b in pairwise(bounds) if b > a]
    mine, theirs = (np.concatenate([classifier(batch) for batch in batches]) for classifier in (reference, file))
    return {"images": len(fitted), "batch_sizes": sorted({len(batch) for batch in batches}),
            "probabilities": map_differences({"": mine}, {"": theirs})[""],
            "same_class": float((mine.argmax(1) == theirs.argmax(1)).mean())}  # fmt: skip


@contextmanager
def _pictures(data_dir: str | Path | None, limit: int) -> Iterator[list[Path]]:
    """Evenly spread over the folder, and so over its classes."""
    with tempfile.TemporaryDirectory() as scratch:
        found = image_files(data_dir or write_classes(Path(scratch) / "classes", 1, 4) / "val")
        count = min(limit, len(found))
        if count < 1:
            raise ValueError(f"limit is {limit}; it counts pictures and must be at least 1")
        yield [found[i * len(found) // count] for i in range(count)]
