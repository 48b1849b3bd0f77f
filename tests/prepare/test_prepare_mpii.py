"""`prepare mpii` from archives to files that train: split, resume after a kill, hostile and wrong archives."""

import functools
import hashlib
import http.server
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import cv2
import jsonargparse
import numpy as np
import pytest

from lib import ROOT
from lib.data.coco import read_coco, skeleton_of
from lib.data.dataset import CocoKeypoints
from lib.data.deepercut_crops import read_dataset_mat
from lib.prepare import mpii as prepare
from lib.prepare.coco import Archive
from lib.skeleton import MPII14, MPII16
from tests.data.mpii_release import person, struct, write_picture, write_release

SIZE = 240, 320


def pictures(count=12):
    for i in range(count):
        head = 16 + i
        people = [person(100 + i, 20, head), person(240 - i, 30, head + 3)][: 1 + i % 2]
        yield {"name": f"{i:04d}.jpg", "people": people, "single": np.uint8(1), "video": i // 2}
    yield {"name": "empty.jpg"}
    yield {"name": "test.jpg", "train": 0, "people": [{"scale": 1.0, "objpos": struct([{"x": 50.0, "y": 60.0}])}]}
    yield {"name": "gone.jpg", "people": [person(100, 20, 20)]}  # named, but not in the archive


def write_archives(folder: Path, images: list[dict]) -> tuple[Archive, Archive]:
    """Two archives like MPII's, and what `prepare.ARCHIVES` has to say of them."""
    folder.mkdir(parents=True)
    mat = write_release(folder / "r.mat", images)
    with zipfile.ZipFile(folder / "mpii_human_pose_v1_u12_2.zip", "w") as archive:
        archive.writestr("mpii_human_pose_v1_u12_2/README.md", "read me")
        archive.write(mat, f"mpii_human_pose_v1_u12_2/{prepare.MAT}")
    mat.unlink()
    there = [image["name"] for image in images if image["name"] != "gone.jpg"]
    with tarfile.open(folder / "mpii_human_pose_v1.tar.gz", "w:gz") as archive:
        for i, name in enumerate(there):
            picture = write_picture(folder / "picture.jpg", SIZE, seed=i)
            info = tarfile.TarInfo(f"./images/{name}")
            info.size = picture.stat().st_size
            archive.addfile(info, io.BytesIO(picture.read_bytes()))
    (folder / "picture.jpg").unlink()
    return describe(folder, len(there))


def describe(folder: Path, count: int) -> tuple[Archive, Archive]:
    described = []
    for archive, number in zip(prepare.ARCHIVES, (1, count)):
        content = (folder / archive.name).read_bytes()
        described.append(archive._replace(size=len(content), sha256=hashlib.sha256(content).hexdigest(), files=number,
                                          unpacked=1000))  # fmt: skip
    return tuple(described)


@pytest.fixture
def archives(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "ARCHIVES", write_archives(tmp_path / "given", list(pictures())))
    return tmp_path / "given"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_archives_become_files_that_train(archives, tmp_path, capsys):
    before = tree(archives)
    folder = tmp_path / "mpii"
    arguments = ["--data_dir", str(folder), "--archives", str(archives), "--crops", "true", "--threads", "2"]
    jsonargparse.auto_cli(prepare.prepare_mpii, args=[*arguments, "--val_fraction", "0.2"])
    assert tree(archives) == before
    out = capsys.readouterr().out
    assert "research" in out and "gone.jpg" in out and "person_keypoints_train.json: 8 images, 12 people" in out

    files = {split: folder / f"annotations/person_keypoints_{split}.json" for split in ("train", "val", "test")}
    coco = {split: read_coco(path) for split, path in files.items()}
    assert [len(coco[split].images) for split in files] == [8, 4, 1]
    assert skeleton_of(coco["train"]) == MPII16
    names = [image.file_name for split in files for image in coco[split].images]
    assert len(names) == len(set(names)) and "empty.jpg" not in names and "gone.jpg" not in names
    for split in files:
        for image in coco[split].images:  # the id is the place in annolist
            assert (image.width, image.height) == SIZE[::-1]
            assert image.id == (14 if split == "test" else int(image.file_name[:4]) + 1)
    videos = [{image["video"] for image in json.loads(files[s].read_text())["images"]} for s in ("train", "val")]
    assert not videos[0] & videos[1]
    assert json.loads(files["test"].read_text())["annotations"][0]["objpos"] == [49, 59]
    assert len(CocoKeypoints(files["train"], folder / "images", input_size=(64, 64))[7]["keypoints"]) == 2

    for split, count in (("train", 12), ("val", 6)):
        cropped = folder / f"crops/annotations/person_keypoints_{split}.json"
        samples = CocoKeypoints(cropped, folder / "crops/images", input_size=(128, 128))
        assert len(samples) == count and all(len(sample["keypoints"]) == 1 for sample in samples)
        assert samples.skeleton == MPII14
        entries = read_dataset_mat(folder / f"crops/dataset_{split}.mat")
        assert [Path(entry.image).name for entry in entries] == [image.file_name for image in read_coco(cropped).images]
        for entry in entries:
            assert cv2.imread(entry.image).shape[:2] == entry.size and len(entry.joints[0]) == 14


def test_a_second_run_changes_nothing_and_other_settings_what_they_say(archives, tmp_path):
    folder = tmp_path / "mpii"
    settings = dict(archives=archives, crops=True, val_fraction=0.2)
    prepare.prepare_mpii(folder, **settings)
    before = tree(folder)
    times = {path: path.stat().st_mtime_ns for path in (folder / "crops/images").iterdir()}
    prepare.prepare_mpii(folder, **settings)
    assert tree(folder) == before and times == {path: path.stat().st_mtime_ns for path in times}

    (tmp_path / "names.txt").write_text("0003.jpg\n0007.jpg\n")
    prepare.prepare_mpii(folder, **settings | {"skeleton": "mpii14", "val_list": tmp_path / "names.txt"})
    val = read_coco(folder / "annotations/person_keypoints_val.json")
    assert [image.file_name for image in val.images] == ["0003.jpg", "0007.jpg"] and skeleton_of(val) == MPII14
    assert len(read_coco(folder / "annotations/person_keypoints_train.json").images) == 10
    (tmp_path / "names.txt").write_text("0003.jpg\ntest.jpg\nother.jpg\n")
    with pytest.raises(ValueError, match="2 of 3 names are no annotated training images.*other.jpg"):
        prepare.prepare_mpii(folder, unpacked=True, val_list=tmp_path / "names.txt")
    with pytest.raises(FileNotFoundError, match="u12_1.mat is missing: --unpacked expects it there"):
        prepare.prepare_mpii(tmp_path / "elsewhere", unpacked=True)


def test_crops_of_another_annotation_file_are_cut_again(archives, tmp_path):
    folder = tmp_path / "mpii"
    prepare.prepare_mpii(folder, archives=archives, crops=True)
    before = tree(folder / "crops/images")
    images = [{**image, "people": [person(120, 25, 30)]} for image in pictures() if image["name"] != "test.jpg"]
    write_release(folder / prepare.MAT, images)
    prepare.prepare_mpii(folder, unpacked=True, crops=True)
    after = tree(folder / "crops/images")
    assert all(after[name] != before[name] for name in ("im00001_1.png", "im00005_1.png"))


SCRIPT = """
import json, sys
from pathlib import Path
from lib.prepare import mpii
from lib.prepare.coco import Archive
mpii.ARCHIVES = tuple(Archive(*values) for values in json.loads(sys.argv[1]))
mpii.prepare_mpii(sys.argv[2], archives=sys.argv[3], crops=True, val_fraction=0.2, threads=1)
"""


def test_killed_anywhere_and_started_again_it_ends_in_the_same_files(archives, tmp_path):
    folder = tmp_path / "mpii"
    command = [sys.executable, "-c", SCRIPT, json.dumps(prepare.ARCHIVES), str(folder), str(archives)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    start = functools.partial(subprocess.Popen, command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL)  # fmt: skip
    stages = ("images/0002.jpg", "crops/images/im00005_1.png")
    killed = 0
    for stage in stages:
        process = start()
        while process.poll() is None and not (folder / stage).exists():
            time.sleep(0.001)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed and start().wait() == 0
    finished = tree(folder)
    os.rename(folder, tmp_path / "interrupted")
    prepare.prepare_mpii(folder, archives=archives, crops=True, val_fraction=0.2)
    assert finished == tree(folder)


def test_downloads_from_a_server_and_clears_up(archives, tmp_path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            return

    handler = functools.partial(Quiet, directory=str(archives))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        prepare.prepare_mpii(tmp_path / "a", url=url, keep_archives=False)
        prepare.prepare_mpii(tmp_path / "b", url=url)
        server.shutdown()
    assert not (tmp_path / "a/archives").exists() and len(list((tmp_path / "b/archives").iterdir())) == 2
    prepare.prepare_mpii(tmp_path / "a", url="http://127.0.0.1:9")  # all in place: no server needed
    assert (tmp_path / "a/annotations/person_keypoints_val.json").exists()


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/passwd", "a/../../x.jpg", "..\\x.jpg", "C:\\x.jpg", ""])
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    write_picture(tmp_path / "mpii/images/a.jpg")
    write_picture(tmp_path / "x.jpg")
    images = [{"name": "a.jpg", "people": [person(99, 20)]}, {"name": name, "people": [person(99, 20)]}]
    write_release(tmp_path / "mpii" / prepare.MAT, images)
    with pytest.raises(ValueError, match=r"u12_1.mat: image 2: .* leaves its folder"):
        prepare.prepare_mpii(tmp_path / "mpii", unpacked=True)
    assert not (tmp_path / "mpii/annotations").exists()


def test_wrong_things_are_one_clear_error(archives, tmp_path, monkeypatch):
    folder = tmp_path / "mpii"
    with pytest.raises(FileNotFoundError):
        prepare.prepare_mpii(folder, archives=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="u12_1.mat"):
        prepare.prepare_mpii(folder, unpacked=True)
    prepare.prepare_mpii(folder, archives=archives)

    with pytest.raises(FileNotFoundError, match="1 of 15 pictures are missing, the first is gone.jpg.*--max_missing 1"):
        prepare.prepare_mpii(folder, archives=archives, max_missing=0)
    (folder / "images/0001.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="0001.jpg: not a readable image"):
        prepare.prepare_mpii(folder, unpacked=True)
    for path in (folder / "images").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="none of its 0 images with a picture"):
        prepare.prepare_mpii(folder, unpacked=True, max_missing=99)

    first, second = prepare.ARCHIVES
    monkeypatch.setattr(prepare, "ARCHIVES", (first, second._replace(files=99)))
    with pytest.raises(ValueError, match="holds 14 of the 99 files"):
        prepare.prepare_mpii(tmp_path / "other", archives=archives)
    monkeypatch.setattr(prepare, "ARCHIVES", (first, second._replace(sha256="0" * 64)))
    with pytest.raises(ValueError, match="sha256"):
        prepare.prepare_mpii(tmp_path / "another", archives=archives)
    assert not (tmp_path / "another/images").exists()


def test_the_real_archives_names_are_understood():
    mat, tar = prepare.ARCHIVES
    assert re.fullmatch(mat.pattern, f"mpii_human_pose_v1_u12_2/{prepare.MAT}")[1] == prepare.MAT
    assert not re.fullmatch(mat.pattern, "mpii_human_pose_v1_u12_2/README.md")
    for name in ("./images/000001163.jpg", "images/000001163.jpg"):
        assert re.fullmatch(tar.pattern, name)[1] == "images/000001163.jpg"
    assert not re.fullmatch(tar.pattern, "./images/") and not re.fullmatch(tar.pattern, "images/../x.jpg")
