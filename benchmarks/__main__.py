"""Every figure the README quotes: `make bench`, or `python -m benchmarks NAME …` for some."""

from __future__ import annotations

import os
import platform
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path


def main(names: list[str]) -> int:
    known = sorted(p.stem for p in Path(__file__).parent.glob("[a-z]*.py"))
    unknown = set(names) - set(known)
    if unknown:
        print(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "numba", "opencv-python-headless", "onnxruntime-gpu"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}, {packages}")
    for name in names or known:
        print(f"\n== {name}", flush=True)
        import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
