"""Every figure the README quotes: `make bench`, or `python -m benchmarks NAME …` for some."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import cv2
import numba
import onnxruntime
import torch


def main(names: list[str]) -> int:
    known = sorted({p.stem for p in Path(__file__).parent.glob("[a-z]*.py")} - {"big_coco", "tags_published"})  # which measure nothing
    unknown = set(names) - set(known)
    if unknown:
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    packages = ", ".join(f"{m.__name__} {m.__version__}" for m in (torch, numba, cv2, onnxruntime))
    print(f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}, {packages}")
    failed = False
    for name in names or known:
        print(f"\n== {name}", flush=True)
        # each in a process of its own: they choose their threads differently
        failed |= subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
