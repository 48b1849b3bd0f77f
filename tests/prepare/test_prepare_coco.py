"""`prepare coco` against small archives of the same shape, on a server of this computer."""

import hashlib
import json
import os
import shutil
import zipfile

import pytest

from lib.__main__ import main
from lib.data.coco import find_split, read_coco
from lib.prepare import coco
from lib.prepare.coco import ARCHIVES, prepare_coco
from tests.prepare.killing import kill_everywhere, tree
from tests.prepare.server import serving

PICTURES = {"train": 3, "val": 2}
ADDRESSES = {
    "annotations": "annotations/annotations_trainval2017.zip",
    "val": "zips/val2017.zip",
    "train": "zips/train2017.zip",
}


def labels(split, count):
    category = {"id": 1, "name": "person", "keypoints": ["nose"], "skeleton": []}
    images = [{"id": i, "file_name": f"{i:012}.jpg", "width": 2, "height": 2} for i in range(count)]
    people = [{"id": 1, "image_id": 0, "category_id": 1, "keypoints": [1, 1, 2], "bbox": [0, 0, 2, 2], "area": 4}]
    return json.dumps({"images": images, "annotations": people, "categories": [category], "info": {"split": split}})


def members(key):
    if key == "annotations":
        return {f"annotations/{kind}_{split}2017.json": labels(split, count) if kind == "person_keypoints" else "{}"
                for split, count in PICTURES.items() for kind in ("captions", "instances", "person_keypoints")}  # fmt: skip
    return {f"{key}2017/{i:012}.jpg": f"picture {i} of {key}" * 20 for i in range(PICTURES[key])}


def write_archives(folder, patch, change=None):
    """The three archives in `folder`, and ARCHIVES patched to be about them."""
    for key, address in ADDRESSES.items():
        path = folder / address
        path.parent.mkdir(parents=True, exist_ok=True)
        content = members(key)
        if change:
            change(key, content)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            if key != "annotations":
                file.mkdir(f"{key}2017")
            for name, text in content.items():
                file.writestr(zipfile.ZipInfo(name), text)
        old, data = ARCHIVES[key], path.read_bytes()
        known = dict(size=len(data), sha256=hashlib.sha256(data).hexdigest(), files=PICTURES.get(key, 2), unpacked=3000)
        patch.setitem(coco.ARCHIVES, key, old._replace(**known))


@pytest.fixture
def originals(tmp_path, monkeypatch):
    write_archives(tmp_path / "server", monkeypatch)
    return tmp_path / "server"


@pytest.fixture
def server(originals, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as served:
        served.files = {f"/{address}": (originals / address).read_bytes() for address in ADDRESSES.values()}
        yield served


@pytest.fixture
def archives(originals, tmp_path):
    """The three in one folder, as a teacher would hand them out."""
    (tmp_path / "stick").mkdir()
    for address in ADDRESSES.values():
        shutil.copy(originals / address, tmp_path / "stick")
    return tmp_path / "stick"


def test_what_is_known_of_the_real_archives():
    assert [ARCHIVES[key].address for key in ADDRESSES] == list(ADDRESSES.values())
    assert (ARCHIVES["train"].files, ARCHIVES["val"].files) == (118_287, 5_000)
    assert all(len(bytes.fromhex(a.sha256)) == 32 and a.size > 200_000_000 for a in ARCHIVES.values())


def test_downloaded_and_laid_out(server, tmp_path, capsys):
    assert main(["prepare", "coco", "--data_dir", str(tmp_path / "coco"), "--url", f"{server.url}/"]) == 0
    said = capsys.readouterr().out
    assert "train2017/*.jpg: 3 files" in said and "to download" in said
    for split, count in PICTURES.items():
        file, folder = find_split(tmp_path / "coco", split)
        assert sorted(image.file_name for image in read_coco(file).images) == sorted(os.listdir(folder))
        assert len(os.listdir(folder)) == count
        assert (folder / "000000000001.jpg").read_text() == members(split)[f"{split}2017/000000000001.jpg"]
    assert sorted(os.listdir(tmp_path / "coco")) == ["annotations", "archives", "prepared.yaml", "train2017", "val2017"]
    assert sorted(os.listdir(tmp_path / "coco/annotations")) == [f"person_keypoints_{s}2017.json" for s in PICTURES]


def test_again_there_is_nothing_to_do(server, tmp_path):
    prepare_coco(tmp_path / "coco", url=server.url)
    before, asked = tree(tmp_path / "coco"), len(server.asked)
    prepare_coco(tmp_path / "coco", url=server.url)
    assert tree(tmp_path / "coco") == before and len(server.asked) == asked
    (tmp_path / "coco/val2017/000000000001.jpg").unlink()
    prepare_coco(tmp_path / "coco", url=server.url)
    assert tree(tmp_path / "coco") == before and len(server.asked) == asked


def test_one_split_and_no_archives(server, tmp_path):
    for _ in range(2):
        prepare_coco(tmp_path / "coco", "val", url=server.url, keep_archives=False)
        assert sorted(os.listdir(tmp_path / "coco")) == ["annotations", "prepared.yaml", "val2017"]
    assert len(server.asked) == 2
    prepare_coco(tmp_path / "coco", url=server.url)
    assert len(server.asked) == 3 and len(os.listdir(tmp_path / "coco/train2017")) == 3


def test_from_archives_without_a_network(archives, tmp_path):
    before = tree(archives)
    prepare_coco(tmp_path / "coco", archives=archives, url="http://127.0.0.1:9", keep_archives=False)
    assert tree(archives) == before
    assert sorted(os.listdir(tmp_path / "coco")) == ["annotations", "prepared.yaml", "train2017", "val2017"]


def test_an_archive_that_is_missing_or_another(archives, tmp_path):
    (archives / "val2017.zip").write_bytes((archives / "val2017.zip").read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="val2017.zip has the sha256"):
        prepare_coco(tmp_path / "coco", archives=archives)
    (archives / "val2017.zip").unlink()
    with pytest.raises(
        FileNotFoundError, match="val2017.zip is missing: put val2017.zip there, or leave --archives away"
    ):
        prepare_coco(tmp_path / "coco", archives=archives)


def test_killed_before_each_step(server, tmp_path):
    def work(folder=tmp_path / "coco"):
        prepare_coco(folder, url=server.url, keep_archives=False)

    work(tmp_path / "undisturbed")
    kill_everywhere(work, tmp_path / "coco", tree(tmp_path / "undisturbed"), step=2)


def test_connections_that_break(server, tmp_path):
    prepare_coco(tmp_path / "undisturbed", url=server.url)
    server.script = [{"stop": 100}, {"stop": 50}, {"stop": 10}]
    prepare_coco(tmp_path / "coco", url=server.url)
    assert tree(tmp_path / "coco") == tree(tmp_path / "undisturbed")


def test_a_damaged_download_leaves_nothing_that_spoils_the_next(server, tmp_path):
    prepare_coco(tmp_path / "undisturbed", url=server.url)
    server.script = [{}, {"corrupt": 77}]
    with pytest.raises(ValueError, match="The damaged download is removed"):
        prepare_coco(tmp_path / "coco", url=server.url)
    prepare_coco(tmp_path / "coco", url=server.url)
    assert tree(tmp_path / "coco") == tree(tmp_path / "undisturbed")


def test_too_little_room_is_said_before_anything_starts(server, tmp_path, monkeypatch):
    real = shutil.disk_usage(tmp_path)
    sizes = {key: archive.size for key, archive in coco.ARCHIVES.items()}

    def free(room):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=room))

    free(sum(sizes.values()) + 3 * 3000 - 1)
    with pytest.raises(OSError, match="are needed and .* are free on its disk: make room for 1 bytes more"):
        prepare_coco(tmp_path / "coco", url=server.url)
    assert not server.asked and not (tmp_path / "coco").exists()
    prepare_coco(tmp_path / "coco", url=server.url, keep_archives=False)
    free(0)
    prepare_coco(tmp_path / "coco", url=server.url)  # all is there, so no room is needed


@pytest.mark.parametrize("change, message", [
    (lambda key, files: key == "val" and files.popitem(), "holds 1 of the 2 files"),
    (lambda key, files: key == "annotations" and files.update({"annotations/person_keypoints_val2017.json": "{}"}),
     "person_keypoints_val2017.json"),
    (lambda key, files: key == "annotations" and files.update({"annotations/person_keypoints_val2017.json": labels("val", 7)}),
     "lists 5 pictures that are not in .*val2017, the first is 000000000002.jpg"),
])  # fmt: skip
def test_archives_that_do_not_fit_together(tmp_path, monkeypatch, change, message):
    write_archives(tmp_path / "server", monkeypatch, change)
    (tmp_path / "server/zips/val2017.zip").rename(tmp_path / "server/annotations/val2017.zip")
    with pytest.raises(ValueError, match=message):
        prepare_coco(tmp_path / "coco", "val", tmp_path / "server/annotations")


def test_a_file_of_the_users_is_not_overwritten(archives, tmp_path):
    (tmp_path / "coco/val2017").mkdir(parents=True)
    (tmp_path / "coco/val2017/000000000001.jpg").write_text("mine")
    with pytest.raises(ValueError, match="000000000001.jpg is there already and differs"):
        prepare_coco(tmp_path / "coco", "val", archives)
    assert (tmp_path / "coco/val2017/000000000001.jpg").read_text() == "mine"
