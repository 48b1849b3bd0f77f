"""A person plays a clip in JupyterLab and moves the sliders: the same, in headless Chromium."""

import re

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from lib import ROOT
from tests.jupyterlab import lab, needs_browser, page_of, run_all_cells

pytestmark = needs_browser

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
CELL = f"""\
import sys
sys.path.insert(0, {str(ROOT)!r})
from lib.data.clip import render_clip
from lib.predict import Predictor
from lib.predict.live import LiveView
clip = [image for image, _ in render_clip(12, 2, (136, 240))]
view = LiveView(Predictor({str(ROOT / "pretrained/trt_pose_mini.safetensors")!r}), clip * 20, width=480)
view"""
PICTURE = "document.querySelector('.jp-OutputArea img.widget-image')"


def pixels(page) -> list[int]:
    """What the picture shows, small and grey."""
    return page.evaluate(
        f"""() => {{
            const image = {PICTURE}, canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [60, 34];
            const pen = canvas.getContext('2d');
            pen.drawImage(image, 0, 0, 60, 34);
            return [...pen.getImageData(0, 0, 60, 34).data].filter((_, i) => i % 4 < 3);
        }}"""
    )


def changed(page, before, least=0.5) -> list[int]:
    """The picture as soon as it differs."""
    for _ in range(300):
        now = pixels(page)
        if sum(abs(a - b) for a, b in zip(now, before)) / len(now) > least:
            return now
        page.wait_for_timeout(100)
    raise AssertionError("the picture does not change")


def test_sliders_buttons_and_play(tmp_path):
    (tmp_path / "notebooks").mkdir()
    notebook = tmp_path / "notebooks/live.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(CELL), new_code_cell("1 + 1")], metadata=KERNEL), notebook)
    shots = ROOT / "build/browser-live"
    shots.mkdir(parents=True, exist_ok=True)
    with lab(notebook) as address, page_of(address, shots / "live.png") as page:
        run_all_cells(page)
        page.wait_for_function(f"{PICTURE}?.naturalWidth === 240")
        with_people = pixels(page)
        output = page.locator(".jp-CodeCell").first.locator(".jp-OutputArea")
        assert re.search(r"[12] people · frame 0", output.inner_text())
        assert re.search(r"network\s+[\d.]+ ms", output.inner_text()), "nothing has been read again yet"
        page.screenshot(path=shots / "paused.png")

        peaks = output.locator(".widget-slider", has_text="peaks above").locator(".noUi-handle")
        peaks.focus()
        page.keyboard.press("End")
        output.get_by_text("0 people · frame 0").wait_for()
        empty = changed(page, with_people)
        output.get_by_role("button", name="heatmaps").click()
        changed(page, empty, 10)
        output.get_by_role("button", name="picture").click()
        peaks.focus()
        page.keyboard.press("Home")
        output.get_by_text(re.compile("[1-9] people · frame 0")).wait_for()

        output.get_by_title("next frame").click()
        output.get_by_text(re.compile("people · frame 1 ")).wait_for()
        output.get_by_title("play").click()
        output.get_by_text(re.compile(r"frame \d\d.*FPS")).wait_for()
        page.screenshot(path=shots / "playing.png")
        # the kernel is free meanwhile
        page.locator(".jp-CodeCell").nth(1).click()
        page.keyboard.press("Shift+Enter")
        page.locator(".jp-CodeCell").nth(1).locator(".jp-InputPrompt", has_text="[3]").wait_for()
        assert "FPS" in output.inner_text(), "it plays on"
        output.get_by_title("pause").click()
        output.get_by_title("play").wait_for()
        page.wait_for_timeout(500)
        still = pixels(page)
        page.wait_for_timeout(500)
        assert pixels(page) == still

        # the cell runs again: the view before it stops
        output.get_by_title("play").click()
        output.get_by_title("pause").wait_for()
        page.locator(".jp-CodeCell").first.locator(".jp-InputArea-editor").click()
        page.keyboard.press("Control+Enter")
        output.get_by_text(re.compile("people · frame 0")).wait_for()
        page.wait_for_function("document.querySelector('.jp-Notebook-ExecutionIndicator').dataset.status === 'idle'")
