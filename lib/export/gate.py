"""The gate every exported file passes, and the manifest that stands beside it.

`PATH.json` says what the file is: its SHA-256 and size, where it comes from, how its maps are read (`metadata`), with which
versions it was written, and the figures of the comparison it has passed (`parity`).
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib import files
from lib.checkpoints import Model, file_sha256
from lib.data.coco import find_split
from lib.data.synthetic import write_dataset
from lib.parity import ParityError, Report, Tolerance, check_parity
from lib.runtime.checks import versions

PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime", "tensorrt", "numpy", "pose-workbook")


@contextmanager
def comparison_set(data_dir: str | Path | None, split: str = "val") -> Iterator[Path]:
    """The given dataset, or a small synthetic one for the time of the comparison."""
    if data_dir is not None:
        find_split(data_dir, split)  # a wrong folder is told before minutes of work
        yield Path(data_dir)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield write_dataset(Path(scratch) / "people", num_train=32, num_val=32, workers=1)


def bless(
    reference: Model | Path,
    candidate: Path,
    path: Path,
    facts: dict,
    compared: tuple[Path, str, int],
    tolerance: Tolerance,
    device: str = "cpu",
) -> Report:
    """Move a file into place if it finds the same people, else set it aside and say why.

    Args:
        reference: what it is compared with.
        candidate: the file under another name.
        path: its place.
        facts: for the manifest; "metadata" is what the file says of itself.
        compared: dataset, its part, and the number of images.
        tolerance: what may differ.
        device: where it runs.

    Raises:
        ParityError: it does not; it is kept as `PATH.rejected`.
    """
    try:
        report = check_parity(reference, candidate, *compared, tolerance, device)
    except ParityError as error:
        os.replace(candidate, path.with_name(f"{path.name}.rejected"))
        error.report.file = path.name
        raise ParityError(error.report) from None
    report.file = path.name
    manifest = manifest_of(candidate, path, facts, report.to_dict())
    files.write(path.with_name(f"{path.name}.json"), json.dumps(manifest, indent=2))
    os.replace(candidate, path)
    return report


def manifest_of(candidate: Path, path: Path, facts: dict, parity: dict) -> dict:
    """The content of `PATH.json`."""
    return {"file": path.name, "sha256": file_sha256(candidate), "bytes": candidate.stat().st_size, **facts,
            "versions": {"python": platform.python_version(), **versions(PACKAGES)}, "parity": parity}  # fmt: skip
