"""A person chooses frames in JupyterLab, by keyboard and mouse: the same, in headless Chromium."""

import re

import nbformat
import numpy as np
from nbformat.v4 import new_code_cell, new_notebook

from lib import ROOT
from lib.data.video import write_video
from tests.jupyterlab import lab, needs_browser, page_of, run_all_cells

pytestmark = needs_browser

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def says(page, text):
    page.locator(".chooser-status", has_text=re.compile(text)).wait_for(timeout=10_000)


def chosen(page):
    tiles = page.locator(".chooser-tile[aria-selected=true]")
    return [int(number) for number in tiles.evaluate_all("tiles => tiles.map(t => t.dataset.frame)")]


def test_choose_by_keyboard_and_mouse_and_save(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(100 - 4 * (i % 12), 130 + 8 * (i % 12), (48, 64, 3), np.uint8) for i in range(24)]
    film = write_video(tmp_path / "film.mp4", pictures)
    (tmp_path / "notebooks").mkdir()
    notebook, out = tmp_path / "notebooks/choose.ipynb", tmp_path / "pictures"
    cell = f"from lib.annotate.chooser import FrameChooser\nFrameChooser({str(film)!r}, {str(out)!r})"
    nbformat.write(new_notebook(cells=[new_code_cell(cell)], metadata=KERNEL), notebook)
    shots = ROOT / "build/browser-chooser"
    shots.mkdir(parents=True, exist_ok=True)
    with lab(notebook) as address, page_of(address, shots / "chooser.png") as page:
        run_all_cells(page)
        tiles = page.locator(".chooser-tile")
        tiles.nth(23).wait_for()
        assert page.locator(".chooser-preview").evaluate("image => image.naturalWidth") == 64
        tiles.nth(2).click()
        says(page, "1 of 24 frames chosen")
        for key in ("ArrowRight", "ArrowRight", "Space", "End", "Space", "Home", "Enter"):
            page.keyboard.press(key)
        says(page, "4 of 24 frames chosen")
        assert chosen(page) == [0, 2, 4, 23]
        page.keyboard.press("Control+z")
        says(page, "Undone: 3 of 24")
        tiles.nth(6).click()
        tiles.nth(9).click(modifiers=["Shift"])
        says(page, "7 of 24 frames chosen")
        assert chosen(page) == [2, 4, 6, 7, 8, 9, 23]
        page.get_by_label("order").select_option("sharpness")
        says(page, "Ordered by sharpness")
        assert tiles.first.get_attribute("data-frame") in ("11", "23")
        page.get_by_label("n", exact=True).fill("12")
        page.get_by_role("button", name="sharpest of n").click()
        says(page, "2 of 24 frames chosen")
        assert sorted(chosen(page)) == [11, 23]
        page.get_by_role("button", name="save 2").click()
        says(page, "2 pictures are in")
        assert page.locator(".jp-Notebook .jp-Cell").count() == 1, "a key reached JupyterLab"
    assert sorted(path.name for path in out.iterdir()) == ["film_000011_00000.440s.jpg", "film_000023_00000.920s.jpg"]
