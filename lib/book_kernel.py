"""The engine which executes a notebook with this very interpreter and shows how far it is."""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
import subprocess
import sys
import threading
from html import unescape
from importlib import metadata
from pathlib import Path

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from tqdm import tqdm

from . import ROOT

ENGINE = "pose-workbook"
PACKAGES = (
    "pose-workbook", "torch", "torchvision", "lightning", "numpy", "numba", "opencv-python-headless", "onnx",
    "onnxruntime", "onnxruntime-gpu", "tensorrt", "faster-coco-eval", "pycocotools", "papermill", "ipykernel",
)  # fmt: skip


def environment() -> dict:
    """What a result depends on besides the notebook: versions, machine, git commit, the moment."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue  # optional packages are simply not in the table
    return {
        "started": dt.datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "kernel": sys.executable,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "git": _git(),
        "versions": versions,
    }


def _git() -> dict | None:
    """Commit of the repository and whether files differ from it; None outside git."""

    def ask(*words: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


class ThisPython(AsyncKernelManager):
    """Starts the running interpreter, whatever a kernelspec named python3 on this computer points to."""

    def __init__(self, **options):
        super().__init__(**options)
        # cells and outputs travel over local sockets which other users of this computer could listen to
        if self.has_trait("transport_encryption"):
            self.transport_encryption = "auto"

    @property
    def kernel_spec(self) -> KernelSpec:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {
            "PYTHONPATH": path,
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # pictures in cells, whatever the shell prefers
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a remark of the debugger would stand in every notebook
        }
        return KernelSpec(**get_kernel_dict(), env=environment)


class Client(PapermillNotebookClient):
    """Runs the cells under a progress bar which shows the section, and the notebook's own bar as it moves."""

    def execute(self, **kwargs):
        stop = threading.Event()
        with tqdm(total=len(self.nb.cells), unit="cell", leave=False, disable=None, position=1) as self.bar:
            ticker = threading.Thread(target=self._tick, args=(stop,), daemon=True)
            ticker.start()
            try:
                return super().execute(**kwargs)
            finally:
                stop.set()
                ticker.join()

    def execute_cell(self, cell, cell_index, *args, **kwargs):
        section = re.search(r"^#+\s+(.+)$", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else None
        if section:
            self.bar.set_description_str(section[1][:40])
        try:
            return super().execute_cell(cell, cell_index, *args, **kwargs)
        finally:
            self.bar.set_postfix_str("")
            self.bar.update()

    def handle_comm_msg(self, outs, msg, cell_index):
        super().handle_comm_msg(outs, msg, cell_index)
        text = msg["content"]["data"].get("state", {}).get("value")
        if isinstance(text, str) and "/" in text and "[" in text:  # the right-hand text of a tqdm bar
            self.bar.set_postfix_str(unescape(re.sub(r"<[^>]*>", "", text)).strip())

    def _tick(self, stop: threading.Event) -> None:
        """Long cells send nothing for minutes; the clocks must go on all the same."""
        while not stop.wait(1.0):
            for bar in list(tqdm._instances):
                bar.refresh()


class Engine(NBClientEngine):
    """Papermill's engine with our client and kernel; a cell may take as long as it likes.

    What the kernel process itself complains about (a crash of a native library, say) goes to `kernel.log` beside the
    executed notebook.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man, kernel_name, start_timeout=60, **unused):
        manager = {"kernel_manager_class": ThisPython, "kernel_name": kernel_name}
        log = Path("kernel.log").resolve()
        try:
            with log.open("w") as complaints:
                return Client(nb_man, timeout=None, startup_timeout=start_timeout, **manager).execute(stderr=complaints)
        finally:
            if log.stat().st_size == 0:
                log.unlink()


papermill_engines.register(ENGINE, Engine)
