"""A person opens a notebook in JupyterLab and runs all its cells: the same, in headless Chromium."""

import shutil

import nbformat
import pytest

from lib import ROOT, book
from tests.jupyterlab import lab, needs_browser, page_of, run_all_cells

NOTEBOOK = "00"  # the one that people open first

pytestmark = needs_browser


@pytest.fixture
def notebook():
    """Parameterised copy of a notebook, without outputs."""
    folder = ROOT / "build/browser"
    shutil.rmtree(folder, ignore_errors=True)
    assert book.main([NOTEBOOK], profile="smoke", write_only=folder) == 0
    (path,) = folder.glob("*.ipynb")
    return path


def test_all_cells_run_and_show_pictures(notebook):
    with lab(notebook) as address, page_of(address, notebook.with_suffix(".png")) as page:
        run_all_cells(page)
        pictures = page.locator(".jp-OutputArea-output img")
        pictures.first.scroll_into_view_if_needed()
        page.wait_for_timeout(500)
        widths = pictures.evaluate_all("images => images.map(image => image.naturalWidth)")
        assert not page.get_by_text("Jupyter news").count(), "a question stands over the page"
    executed = nbformat.read(notebook, as_version=4)
    code = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    errors = [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert not errors, errors[0]
    assert all(cell.execution_count for cell in code), "some cells did not run"
    assert widths and min(widths) > 0, "no picture is shown in the page"
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
