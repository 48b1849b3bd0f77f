"""A person annotates in JupyterLab, by keyboard alone and with the mouse: the same, in headless Chromium."""

import json
import re
from contextlib import contextmanager

import cv2
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from pycocotools.coco import COCO

from lib import ROOT
from lib.skeleton import Skeleton
from lib.training import train
from tests.jupyterlab import lab, needs_browser, page_of, run_all_cells

pytestmark = needs_browser

BIRD = Skeleton("bird", ("beak", "left_wing", "right_wing"), ((0, 1), (0, 2)), ((1, 2),), (0.05,) * 3)
SIZE = (120, 160)
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@pytest.fixture
def data(tmp_path):
    """FOLDER/images with two pictures, whose labels will be FOLDER/birds.json: the flat layout of a data set."""
    (tmp_path / "data/images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "b.jpg"):
        cv2.imwrite(str(tmp_path / "data/images" / name), rng.integers(0, 255, (*SIZE, 3), np.uint8))
    return tmp_path / "data"


@contextmanager
def annotator(data, tmp_path, name, views=1):
    """The page of a notebook whose only cell shows annotators of one session of that data."""
    (data / "bird.yaml").write_text(
        f"name: bird\nkeypoints: {list(BIRD.keypoints)}\nlimbs: [[0, 1], [0, 2]]\nsigmas: [.05, .05, .05]\n"
    )
    cell = (
        "from lib.annotate import Annotator, Session\n"
        f"session = Session({str(data / 'images')!r}, {str(data / 'bird.yaml')!r}, {str(data / 'birds.json')!r})\n"
        f"display(*[Annotator(session) for _ in range({views})])"
    )
    (tmp_path / "notebooks").mkdir()
    notebook = tmp_path / "notebooks/annotate.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(cell)], metadata=KERNEL), notebook)
    shots = ROOT / "build/browser-annotator"
    shots.mkdir(parents=True, exist_ok=True)
    with lab(notebook) as address, page_of(address, shots / f"{name}.png") as page:
        run_all_cells(page)
        page.locator(".pose-annotator[data-picture='160x120']").nth(views - 1).wait_for(timeout=20_000)
        yield page
        assert page.locator(".jp-Notebook .jp-Cell").count() == 1, "a key reached JupyterLab"


def says(page, text, view=0):
    live = page.locator(".pose-annotator").nth(view).locator(".live", has_text=re.compile(text))
    live.wait_for(timeout=10_000)


def crosshair(page) -> tuple[int, int]:
    return tuple(map(int, re.search(r"x (\d+) +y (\d+)", page.locator(".pose-annotator .where").inner_text()).groups()))


def steer(page, x, y):
    """Arrow keys to a pixel: Shift for tens."""
    for axis, target, keys in ((0, x, ("ArrowLeft", "ArrowRight")), (1, y, ("ArrowUp", "ArrowDown"))):
        away = target - crosshair(page)[axis]
        tens, ones = divmod(abs(away), 10)
        for key, times in (("Shift+" + keys[away > 0], tens), (keys[away > 0], ones)):
            for _ in range(times):
                page.keyboard.press(key)
        page.wait_for_function("""([axis, target]) => document.querySelector('.pose-annotator .where').textContent
            .match(/\\d+/g)[axis] == target""", arg=[axis, target])  # fmt: skip


def by_id(data) -> dict:
    return {a["id"]: a for a in json.loads((data / "birds.json").read_text())["annotations"]}


def test_three_people_on_two_images_by_keyboard_alone(data, tmp_path):
    people = [[(20 + 45 * i, 30), (10 + 45 * i, 60 + 5 * i), (33 + 45 * i, 64)] for i in range(3)]
    with annotator(data, tmp_path, "keyboard") as page:
        press = page.keyboard.press
        for _ in range(60):  # nothing but Tab leads there
            press("Tab")
            if page.evaluate("document.activeElement.matches('.pose-annotator canvas')"):
                break
        else:
            pytest.fail("the Tab key does not reach the annotator")
        for image in range(2):
            for number, points in enumerate(people):
                if number:
                    press("a")
                    says(page, f"Person {number + 1} added")
                for name, point in zip(BIRD.keypoints, points):
                    steer(page, *point)
                    press("Shift+Enter" if name == "left_wing" else "Enter")
                    says(page, f"{name} of person {number + 1} placed at {point[0]}, {point[1]}")
            press(".")
            says(page, "Image 2 of 2, b.jpg" if image == 0 else "there is no image 3")
        # what was placed wrongly is put right: moved, made visible, taken away, undone; a person too many goes
        press("p")
        says(page, "Person 1 of 3")
        for key, said in (("ArrowRight", "beak of person 1 moved to 21, 30"), ("n", "left_wing of person 1: hidden"),
                          ("v", "left_wing of person 1 is not labelled"), ("v", "left_wing of person 1 is visible"),
                          ("Delete", "left_wing of person 1 deleted"), ("z", "Undone: left_wing deleted"),
                          ("z", "Undone: left_wing visible"), ("r", "Done again: left_wing visible"),
                          ("a", "Person 4 added"), ("Shift+Delete", "Person 4 deleted")):  # fmt: skip
            press(key)
            says(page, said)
        press("Escape")
        assert page.evaluate("!document.activeElement.closest('.pose-annotator')"), "Escape does not leave"

    coco = COCO(data / "birds.json")
    assert [coco.imgs[i]["file_name"] for i in sorted(coco.imgs)] == ["a.jpg", "b.jpg"]
    for image_id in sorted(coco.imgs):
        found = [np.reshape(a["keypoints"], (3, 3)) for a in coco.loadAnns(coco.getAnnIds(image_id))]
        assert np.abs(np.array(found)[..., :2] - people).max() <= 1
    visibility = np.array([a["keypoints"][2::3] for a in coco.loadAnns(coco.getAnnIds())])
    assert visibility.tolist() == [[2, 1, 2]] * 3 + [[2, 2, 2]] + [[2, 1, 2]] * 2

    small = {"data.data_dir": str(data), "data.neck": False, "data.batch_size": 2, "data.num_workers": 0, "data.augment": "null",
             "data.input_size": [64, 64], "trainer.max_epochs": 2, "trainer.precision": "32-true", "model.warmup_steps": 0,
             "trainer.enable_progress_bar": False, "model.network.upsample_channels": 16}  # fmt: skip
    run = train(ROOT / "lib/recipes/trt_pose_mini.yaml", tmp_path / "run", small)
    assert len(run.history) == 2 and all(np.isfinite(row["train_loss"]) for row in run.history)


def test_mouse_zoom_drag_undo_and_the_pixels_that_are_stored(data, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # cameras store this way; labels are for the stored pixels, in which the picture is 160 wide
    Image.open(data / "images/a.jpg").save(data / "images/a.jpg", exif=turned)
    with annotator(data, tmp_path, "mouse") as page:
        box = page.locator(".pose-annotator canvas").bounding_box()
        scale = min((box["width"] - 16) / SIZE[1], (box["height"] - 16) / SIZE[0])
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        def at(x, y, zoomed=1.0):
            """Page coordinates of an image pixel; the picture's centre stays in the middle of the canvas."""
            return tuple(m + (p + 0.5 - n / 2) * scale * zoomed for m, p, n in zip(middle, (x, y), SIZE[::-1]))

        def points(person):
            return np.reshape(by_id(data)[person]["keypoints"], (3, 3))

        page.mouse.click(*at(40, 30))
        says(page, "beak of person 1 placed")
        page.keyboard.down("Shift")
        page.mouse.click(*at(60, 50))
        page.keyboard.up("Shift")
        says(page, "left_wing of person 1 placed.*hidden")
        page.mouse.move(*middle)
        for _ in range(4):
            page.mouse.wheel(0, -60)
        zoomed = float(page.locator(".pose-annotator .where").inner_text().split("·")[1].strip(" %\xa0")) / 100 / scale
        assert 2 < zoomed < 5
        page.mouse.click(*at(85.25, 60.5, zoomed))
        says(page, "right_wing of person 1 placed")
        assert np.abs(points(1) - [[40, 30, 2], [60, 50, 1], [85.25, 60.5, 2]]).max() < 0.3
        page.mouse.click(*at(90, 70, zoomed))
        says(page, "has its place")
        page.keyboard.press("0")
        page.mouse.move(*at(40, 30))
        page.mouse.down()
        page.mouse.move(*at(45, 35))
        page.mouse.move(*at(50, 38))
        page.mouse.up()
        says(page, "beak of person 1 moved")
        assert np.abs(points(1)[0] - [50, 38, 2]).max() < 0.3
        page.mouse.click(*at(60, 50), button="right")
        says(page, "left_wing of person 1 is not labelled")
        assert by_id(data)[1]["num_keypoints"] == 2
        page.get_by_role("button", name="Undo (Z)").click()
        says(page, "Undone: left_wing not labelled")
        page.get_by_role("button", name="Add a person (A)").click()
        says(page, "Person 2 added")
        page.mouse.click(*at(120, 100))
        says(page, "beak of person 2 placed")
        page.get_by_role("button", name="Person 1: 3 of 3").click()
        says(page, "left_wing of person 1")
        page.mouse.click(*at(120, 100))
        says(page, "beak of person 2: visible")
        page.locator(".pose-annotator .row", has_text="b.jpg").click()
        says(page, "Image 2 of 2, b.jpg: no people")
        page.keyboard.press("d")
        says(page, "b.jpg is done")
    saved = by_id(data)
    assert sorted(saved) == [1, 2] and np.abs(points(1) - [[50, 38, 2], [60, 50, 1], [85.25, 60.5, 2]]).max() < 0.3
    assert np.abs(np.array(saved[2]["keypoints"][:2]) - [120, 100]).max() < 0.3
    coco = COCO(data / "birds.json")
    assert {i["file_name"]: (i["width"], i["height"]) for i in coco.imgs.values()} == {
        "a.jpg": (160, 120),
        "b.jpg": (160, 120),
    }


def test_two_views_a_narrow_window_and_a_kernel_that_ends(data, tmp_path):
    with annotator(data, tmp_path, "two-views", views=2) as page:
        canvases = page.locator(".pose-annotator canvas")
        canvases.nth(0).focus()
        page.keyboard.press(".")
        says(page, "Image 2 of 2, b.jpg")
        # the other one still shows the first picture: what is clicked there must not land on the second
        says(page, "Image 1 of 2, a.jpg", view=1)
        click = """canvas => {
            const { left, top, width, height } = canvas.getBoundingClientRect();
            const at = { clientX: left + width / 2, clientY: top + height / 2, bubbles: true, pointerId: 1, button: 0 };
            canvas.setPointerCapture = () => {};
            for (const type of ["pointerdown", "pointerup"]) canvas.dispatchEvent(new PointerEvent(type, at));
        }"""
        canvases.nth(1).evaluate(click)
        says(page, "changed elsewhere", view=1)
        assert not (data / "birds.json").exists()
        canvases.nth(1).evaluate(click)
        says(page, "beak of person 1 placed", view=1)
        assert [i["file_name"] for i in json.loads((data / "birds.json").read_text())["images"]] == ["b.jpg"]
        page.mouse.move(5, 5)
        canvases.nth(0).hover()  # the mouse on its way to a click is enough to see what the other one did
        says(page, "beak of person 1 placed")

        page.set_viewport_size({"width": 700, "height": 900})
        page.locator(".pose-annotator.slim").first.wait_for()
        box = canvases.nth(0).bounding_box()
        assert box["width"] > 250 and box["height"] > 250, "the picture has to be seen"
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 + 40)
        says(page, "left_wing of person 1 placed")
        x, y = np.reshape(by_id(data)[1]["keypoints"], (3, 3))[1, :2]
        scale = (box["width"] - 16) / SIZE[1]
        assert abs(x - 79.5) < 1 and abs(y - (59.5 + 40 / scale)) < 1

        page.set_viewport_size({"width": 1400, "height": 1000})
        page.get_by_role("menuitem", name="Kernel", exact=True).click()
        page.get_by_role("menuitem", name="Shut Down Kernel", exact=True).click()
        canvases.nth(0).focus()
        for _ in range(20):
            page.keyboard.press("n")
            page.wait_for_timeout(250)
            if page.locator(".live", has_text=re.compile("kernel")).count():
                break
        says(page, "The kernel has ended|the kernel, which is busy or has ended")
