"""What this machine can do for the workbook, and what to do about what it cannot."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib import ROOT

MIN_MEMORY_GIB = 4
MIN_DISK_GIB = 5  # synthetic data, runs and a report; COCO needs 25 more
TENSORRT_ABSENT = "fine: exported models run in ONNX Runtime (with an NVIDIA GPU, pip install -e .[tensorrt])"


@dataclass(frozen=True)
class Check:
    """One line of the doctor's table: what was looked at, what was found, whether that is enough, and what to do or know."""

    name: str
    found: str
    ok: bool
    advice: str = ""


def check_environment() -> list[Check]:
    """Look at Python, packages, processor, memory, disk, GPU and runtimes; a few seconds, no network.

    A missing GPU or TensorRT is fine: everything in this workbook runs without. `ok` is False only where something here would
    fail or crawl.
    """
    first = [_python(), _packages(), _torch()]
    torch_works = first[-1].ok  # what asks torch is left out where torch cannot answer
    return [
        *first,
        *([_processor(), _gpu()] if torch_works else []),
        _memory(),
        _onnxruntime(),
        _tensorrt(),
        _disk(ROOT),
    ]


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table(checks: Sequence[Check]) -> str:
    """The checks as aligned text, advice below the line it belongs to."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{'ok  ' if check.ok else 'LOOK'}  {check.name:{width}}  {check.found}")
        if check.advice:
            lines.append(f"{'':{width + 8}}→ {check.advice}")
    return "\n".join(lines)


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    advice = "" if ok else "the workbook needs Python 3.11 or newer: conda env create -f environment.yml"
    return Check("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", ok, advice)


def _packages() -> Check:
    """Compare what is installed with what pyproject.toml asks for."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in importlib.metadata.requires("pose-workbook") or ()]
    except importlib.metadata.PackageNotFoundError:
        return Check("packages", "this workbook is not installed", False, "pip install -e . in its folder")
    wanted = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = []
    for requirement in wanted:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if wrong:
        return Check("packages", "; ".join(wrong), False, "pip install -e . brings them up to date")
    return Check("packages", f"all {len(wanted)} are there, new enough", True)


def _torch() -> Check:
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # fails where the two builds do not match
    except (ImportError, RuntimeError) as error:
        return Check("PyTorch", str(error).splitlines()[0], False,
                     "torch and torchvision must be of one build: pip install --force-reinstall torch torchvision")  # fmt: skip
    return Check("PyTorch", f"torch {torch.__version__}, torchvision {torchvision.__version__}", True)


def _processor() -> Check:
    import torch

    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    bf16 = "bf16 in hardware" if has_bf16 else "no bf16 in hardware"
    advice = "" if cores() >= 2 else "training in notebook 10 takes twice as long on one core"
    return Check("processor", f"{cores()} cores, torch uses {torch.get_num_threads()} threads, {bf16}", True, advice)


def _memory() -> Check:
    total = _total_memory() / 2**30
    ok = total == 0 or total >= MIN_MEMORY_GIB
    advice = "" if ok else f"less than {MIN_MEMORY_GIB} GiB: use batch_size=4 in notebook 10 and close other programs"
    return Check("memory", f"{total:.1f} GiB" if total else "unknown", ok, advice)


def _total_memory() -> int:
    """Bytes of the machine, or of the container if that is less; 0 where the system does not say."""
    names = getattr(os, "sysconf_names", {})
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else 0
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and limit.read_text().strip().isdigit():
        total = min(total, int(limit.read_text()))
    return total


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return Check("GPU", ", ".join(f"{card.name} ({card.total_memory / 2**30:.0f} GiB)" for card in cards), True)
    if torch.backends.mps.is_available():
        return Check(
            "GPU", "Apple (mps)", True, "the notebooks use the CPU; training with --trainer.accelerator=mps works"
        )
    return Check("GPU", "none", True, "fine for smoke and workshop; the profile full (COCO) wants an NVIDIA GPU")


def _onnxruntime() -> Check:
    try:
        import onnxruntime
    except ImportError as error:
        return Check("ONNX Runtime", str(error), False, "pip install -e . installs the build for this machine")
    providers = [p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers()]
    return Check("ONNX Runtime", f"{onnxruntime.__version__}, built for {', '.join(providers)}", "CPU" in providers)


def _tensorrt() -> Check:
    if importlib.util.find_spec("tensorrt") is None:
        return Check("TensorRT", "none", True, TENSORRT_ABSENT)
    import tensorrt

    return Check("TensorRT", tensorrt.__version__, True)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / 2**30
    ok = free >= MIN_DISK_GIB
    advice = (
        "" if ok else f"data and runs want {MIN_DISK_GIB} GiB; runs/ and data/synthetic/ can be deleted at any time"
    )
    return Check("disk", f"{free:.0f} GiB free in {folder}", ok, advice)
