"""A real JupyterLab in headless Chromium, for tests which do what a person does."""

from __future__ import annotations

import atexit
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.error import URLError

import pytest

from lib import ROOT

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
MINUTES_FOR_CELLS = 4

needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium found (Debian: apt-get install chromium)"),
]


@contextmanager
def lab(notebook: Path) -> Iterator[str]:
    """Address at which JupyterLab on this computer shows a notebook and its folder; its kernels end afterwards.

    One server serves all tests of a process: starting and ending one takes as long as most of them.
    """
    server, token = _server()
    try:
        yield f"{server}/lab/tree{notebook.resolve().as_posix()}?token={token}&reset"
    finally:
        for session in json.loads(_ask(server, token, "/api/sessions")):
            _ask(server, token, f"/api/sessions/{session['id']}", method="DELETE")


@cache
def _server() -> tuple[str, str]:
    """Address and token of a JupyterLab which sees every folder and ends with this process."""
    own = Path(tempfile.mkdtemp(prefix="jupyterlab-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    # settings and workspaces of whoever runs the tests stay out of the way, and stay as they are
    folders = {name: str(own / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR",
                                                          "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR")}  # fmt: skip
    folders["JUPYTER_CONFIG_PATH"] = str(ROOT / "docs/jupyterlab")  # as `make lab` does
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", "--ServerApp.root_dir=/",
        "--ContentsManager.allow_hidden=True",
    ]  # fmt: skip
    with (own / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | folders, stdout=log, stderr=log, start_new_session=True)
    atexit.register(_end, server, own)
    _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server, own / "lab.log")
    return f"http://127.0.0.1:{port}", token


def _end(server: subprocess.Popen, own: Path) -> None:
    # a polite end first: the server then ends its kernels too
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
    shutil.rmtree(own, ignore_errors=True)


def _ask(server: str, token: str, path: str, method: str = "GET") -> bytes:
    request = urllib.request.Request(server + path, method=method, headers={"Authorization": f"token {token}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


@contextmanager
def page_of(address: str, screenshot: Path, **options) -> Iterator:
    """A page which shows the notebook; how it looked at the end, also after a failure, is kept as a picture."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page(**{"viewport": {"width": 1400, "height": 1000}} | options)
        page.set_default_timeout(60_000)
        try:
            page.goto(address)
            yield page
        finally:
            page.screenshot(path=screenshot)
            browser.close()


def run_all_cells(page) -> None:
    """Menu Run → Run All Cells, wait until the kernel rests, save."""
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
    page.locator(".jp-Notebook .jp-Cell").first.click()
    prompt = page.locator(".jp-CodeCell .jp-InputPrompt", has_text=re.compile(r"[\d*]")).first
    for _ in range(5):  # a kernel that is idle may still not be connected
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_timeout(1000)
        if prompt.count():
            break
        if (question := page.locator(".jp-Dialog .jp-mod-accept")).count():  # with which kernel, then
            question.click()
    page.wait_for_function(
        """() => {
            const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent);
            const idle = document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle';
            return idle && prompts.some(text => /\\d/.test(text)) && !prompts.some(text => text.includes('*'));
        }""",
        timeout=MINUTES_FOR_CELLS * 60_000,
    )
    page.keyboard.press("Control+s")
    page.locator(".jp-mod-current.jp-mod-dirty, .jp-mod-dirty").first.wait_for(state="detached")


def _wait_for(address, server, log, seconds=60):
    for _ in range(seconds * 10):
        assert server.poll() is None, f"JupyterLab ended:\n{log.read_text()[-2000:]}"
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except URLError:
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not answer within {seconds} s:\n{log.read_text()[-2000:]}")
