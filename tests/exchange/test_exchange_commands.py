"""The commands as a user calls them, and the compose file of coco-annotator."""

import json
import re
import zipfile

import pytest
import yaml

from lib import ROOT
from lib.__main__ import main
from lib.data.coco import read_coco, skeleton_of
from lib.exchange import Changes
from lib.skeleton import COCO17
from tests.exchange.fixtures_of_tools import coco_annotator, cvat, save


def run(*arguments):
    return main([str(a) for a in arguments])


def test_convert_to_json_and_zip_says_what_it_did(tmp_path, capsys):
    source = save(tmp_path / "export.json", coco_annotator())
    before = source.read_bytes()
    assert run("convert", source, tmp_path / "ours.json") == 0
    out = capsys.readouterr().out
    assert (
        "coco_annotator (images carry dataset_id and path)" in out and "2 images, 3 annotations, 2 of them with" in out
    )
    assert "3 × iscrowd that is not 0 or 1 (first: annotation 900, False → 0)" in out and "ours.json: written" in out
    assert len(read_coco(tmp_path / "ours.json").annotations) == 3 and source.read_bytes() == before
    assert run("convert", tmp_path / "ours.json", tmp_path / "cvat.zip", "--subset", "train") == 0
    with zipfile.ZipFile(tmp_path / "cvat.zip") as archive:
        assert "annotations/person_keypoints_train.json" in archive.namelist()
    assert run("convert", tmp_path / "cvat.zip", tmp_path / "back.json") == 0
    assert "nothing had to be changed" in capsys.readouterr().out


def test_convert_maps_to_a_skeleton_with_aliases(tmp_path, capsys):
    source = save(tmp_path / "export.json", coco_annotator(categories__0__keypoints=["Snout", "LEye", "eye-r"]))
    skeleton = tmp_path / "face.yaml"
    skeleton.write_text(
        "name: face\nkeypoints: [left_eye, right_eye, nose]\nlimbs: [[nose, left_eye]]\nsigmas: [.1, .1, .1]"
    )
    (tmp_path / "aliases.yaml").write_text("snout: nose")
    target = tmp_path / "ours.json"
    assert run("convert", source, target, "--skeleton", skeleton, "--aliases", tmp_path / "aliases.yaml") == 0
    coco = read_coco(target)
    assert skeleton_of(coco, "face").keypoints == ("left_eye", "right_eye", "nose")
    assert coco.annotations[0].keypoints == [25, 15, 1, 0, 0, 0, 30, 20, 2]
    assert "Snout → nose" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["convert", "export.json", "ours.txt"], "the target is a .json or a .zip or a .mat file"),
        (["convert", "export.json", "export.json"], "this is the source, which is never changed"),
        (["convert", "nothing.json", "ours.json"], "nothing.json: no such file or folder"),
        (["convert", "export.json", "ours.json", "--aliases", "a.yaml"], "give the skeleton they lead to"),
        (
            ["convert", "export.json", "ours.json", "--skeleton", "coco17", "--aliases", "a.yaml"],
            "their_name: our_name",
        ),
        (["convert", "export.json", "ours.json", "--skeleton", "coco99"], "coco99"),
        (["convert", "export.json", "ours.json", "--kind", "labelme"], "kind 'labelme' is none of auto"),
        (["merge", "m.zip", "export.json", "other.json"], "the target is a .json file"),
        (["merge", "m.json", "export.json", "other.json", "--images", "[.]"], "2 sources and 1 folders"),
        (["cvat-labels", "coco99", "labels.json"], "coco99"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "export.json", coco_annotator())
    save(tmp_path / "other.json", cvat())
    (tmp_path / "a.yaml").write_text("- nose")
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_merge_of_three_with_their_pictures(tmp_path, capsys):
    for name in (".a", "b", "c"):
        save(tmp_path / name / "labels.json", coco_annotator())
        (tmp_path / name / "images").mkdir()
    sources = [tmp_path / name / "labels.json" for name in (".a", "b", "c")]
    more = ["--more+", sources[2]]
    folders = [v for name in (".a", "b", "c") for v in ("--images+", tmp_path / name / "images")]
    assert run("merge", tmp_path / "all.json", *sources[:2], *more, *folders) == 0
    names = [i.file_name for i in read_coco(tmp_path / "all.json").images]
    assert names == [f"{folder}/images/{name}.jpg" for folder in (".a", "b", "c") for name in "ab"]
    assert f"pictures below {tmp_path}" in capsys.readouterr().out
    assert run("merge", tmp_path / "all.json", *sources[:2], "--same_images", "true") == 0
    assert len(read_coco(tmp_path / "all.json").images) == 2


def test_cvat_labels_file(tmp_path, capsys):
    assert run("cvat-labels", "coco17", tmp_path / "labels.json") == 0
    labels = json.loads((tmp_path / "labels.json").read_text())
    assert [s["name"] for s in labels[0]["sublabels"]] == list(COCO17.keypoints)
    assert "label 'person' with 17 points" in capsys.readouterr().out


def test_changes_count_and_show_the_worst_first():
    changes = Changes("title")
    assert not changes and str(changes) == "title\n  nothing had to be changed"
    changes.add("small", "here")
    changes.add("small", "there")
    changes.add("large", "everywhere", "severe", 5)
    other = Changes()
    other.add("small", "elsewhere", "warning")
    changes.include(other, "other: ")
    assert changes.severe == ["large"] and changes.lines["small"].count == 3
    assert [" ".join(row.split()) for row in str(changes).split("\n")] == [
        "title", "severe 5 × large (first: everywhere)", "warning 3 × small (first: here)"]  # fmt: skip


COMPOSE = ROOT / "docs/coco-annotator/compose.yaml"


def test_coco_annotator_listens_on_this_computer_only_and_without_a_known_secret():
    content = yaml.safe_load(COMPOSE.read_text())
    services = content["services"]
    assert set(services) == {"webserver", "workers", "messageq", "database"} and "version" not in content
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"webserver": ["127.0.0.1:5000:5000"]}
    for name, service in services.items():
        assert "container_name" not in service and service.get("network_mode") != "host", name
        assert re.fullmatch(r"[\w./-]+:[\w.-]+", service["image"]) and not service["image"].endswith(":latest")
        for key, value in service.get("environment", {}).items():
            if re.search("SECRET|PASS|KEY", key):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), f"{name}: {key} must be set by the user"
    assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", services["webserver"]["environment"]["SECRET_KEY"])
    for name in ("webserver", "workers"):
        assert any(v.endswith(":/datasets") for v in services[name]["volumes"])
        broker = services[name]["environment"]["CELERY_BROKER_URL"]
        assert "password" not in broker.replace("BROKER_PASSWORD", "") and "@messageq:5672" in broker
    assert services["database"]["volumes"] == ["mongodb_data:/data/db"] and "mongodb_data" in content["volumes"]


def test_the_page_about_it_names_the_commands():
    page = (COMPOSE.parent / "README.md").read_text()
    for words in ("docker compose up", "SECRET_KEY", "127.0.0.1:5000", "python -m lib convert", "skeleton"):
        assert words in page


@pytest.mark.parametrize(
    "content, message",
    [
        (b" \n", "is.json: empty; export or copy it again"),
        (b'{"file_name": "k\xe4se.jpg"}', "is.json: not a JSON file: 'utf-8'"),
        (b"[" * 100_000, "is.json: not a JSON file: maximum recursion"),
        (b"PK\x03\x04 and no more", "is.json: a zip without its end"),
        (
            b'[{"id": 7, "data": {"image": "a.jpg"}, "annotations": [5]}]',
            "is.json: task 7 is not as Label Studio writes it",
        ),
        (b'{"images": [5], "annotations": [], "categories": []}', "is.json: info, images and categories do not hold"),
    ],
)
def test_files_of_another_kind_are_refused_in_one_line(tmp_path, capsys, content, message):
    (tmp_path / "is.json").write_bytes(content)
    assert run("convert", tmp_path / "is.json", tmp_path / "ours.json") == 1
    error = capsys.readouterr().err.strip()
    assert message in error and "\n" not in error and not (tmp_path / "ours.json").exists()


def test_impossible_numbers_and_names_in_an_export(tmp_path, capsys):
    huge = 10**400
    row = {"annotations__0__keypoints": [huge, 5, 2, 6, 6, 2, 7, 7, 2], "annotations__1__keypoints": "none",
           "annotations__2__segmentation": [[huge, 1, 2, 3, 4, 5]]}  # fmt: skip
    source = save(tmp_path / "export.json", coco_annotator(**row))
    assert run("convert", source, tmp_path / "ours.json") == 0
    out = capsys.readouterr().out
    assert "coordinates that are not numbers: v = 0" in out and "keypoints that are no list left out" in out
    assert read_coco(tmp_path / "ours.json").annotations[0].keypoints[:6] == [0, 0, 0, 6, 6, 2]
    for key, value, message in (
        ("width", huge, "say --images FOLDER"),
        ("file_name", "a" * 300, "no file can have the file_name"),
    ):
        source = save(tmp_path / "export.json", coco_annotator(**{f"images__0__{key}": value, "images__0__path": ""}))
        assert run("convert", source, tmp_path / "other.json", *(["--images", tmp_path] * (key == "file_name"))) == 1
        assert message in (error := capsys.readouterr().err) and "export.json: image" in error and len(error) < 400


@pytest.mark.parametrize("text", ["a: [b", "name: x\nkeypoints: [1, 2]\nlimbs: [[0, 1]]", "\xff", "- x"])
def test_what_people_write_by_hand_is_named_when_it_is_wrong(tmp_path, capsys, text):
    source = save(tmp_path / "export.json", coco_annotator())
    (tmp_path / "mine.yaml").write_bytes(text.encode("latin-1"))
    (tmp_path / "folder.json").mkdir()
    for arguments in (["convert", source, tmp_path / "o.json", "--skeleton", tmp_path / "mine.yaml"],
                      ["convert", source, tmp_path / "o.json", "--skeleton", "coco17", "--aliases", tmp_path / "mine.yaml"],
                      ["cvat-labels", tmp_path / "mine.yaml", tmp_path / "o.json"]):  # fmt: skip
        assert run(*arguments) == 1
        error = capsys.readouterr().err.strip()
        assert "mine.yaml" in error and "\n" not in error and not (tmp_path / "o.json").exists()
    assert run("convert", source, tmp_path / "folder.json") == 1 and "is a folder" in capsys.readouterr().err
