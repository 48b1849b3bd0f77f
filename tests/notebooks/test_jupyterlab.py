"""A person opens a notebook in JupyterLab and runs all its cells: the same, in headless Chromium."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.error import URLError

import nbformat
import pytest

from lib import ROOT, book

playwright = pytest.importorskip("playwright.sync_api")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
NOTEBOOK = "01"  # synthetic people: pictures within seconds
MINUTES_FOR_CELLS = 4

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium found (Debian: apt-get install chromium)"),
]


@pytest.fixture
def notebook():
    """Parameterised copy of a notebook, without outputs."""
    folder = ROOT / "build/browser"
    shutil.rmtree(folder, ignore_errors=True)
    assert book.main([NOTEBOOK], profile="smoke", write_only=folder) == 0
    (path,) = folder.glob("*.ipynb")
    return path


@pytest.fixture
def lab(notebook, tmp_path):
    """Address of a JupyterLab on this computer which shows the notebook's folder, ended afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    # settings and workspaces of whoever runs the tests stay out of the way, and stay as they are
    own = {name: str(tmp_path / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR",
                                                           "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_RUNTIME_DIR")}  # fmt: skip
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={notebook.parent}",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", server, tmp_path / "lab.log")
        yield f"http://127.0.0.1:{port}/lab/tree/{notebook.name}?token={token}&reset"
    finally:
        # a polite end first: the server then ends its kernels too
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _wait_for(address, server, log, seconds=60):
    for _ in range(seconds * 2):
        assert server.poll() is None, f"JupyterLab ended:\n{log.read_text()[-2000:]}"
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except URLError:
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not answer within {seconds} s:\n{log.read_text()[-2000:]}")


def test_all_cells_run_and_show_pictures(lab, notebook):
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        try:
            page.goto(lab)
            _run_all_cells(page)
            pictures = page.locator(".jp-OutputArea-output img")
            pictures.first.scroll_into_view_if_needed()
            page.wait_for_timeout(500)
            widths = pictures.evaluate_all("images => images.map(image => image.naturalWidth)")
        finally:
            page.screenshot(path=notebook.with_suffix(".png"))
            browser.close()
    executed = nbformat.read(notebook, as_version=4)
    code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    errors = [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert not errors, errors[0]
    assert all(cell.execution_count for cell in code), "some cells did not run"
    assert widths and min(widths) > 0, "no picture is shown in the page"
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)


def _run_all_cells(page):
    """Menu Run → Run All Cells, wait until the kernel rests, save."""
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
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
