import json
import os
import random

import pytest

from lib.__main__ import main
from lib.data.coco import insert_neck_file, read_coco
from lib.doctor import examine, repair
from lib.skeleton import COCO17, MPII16


def content(skeleton=COCO17, people=6):
    keypoints = [n for k in range(skeleton.num_keypoints) for n in (20 + 4 * k, 30 + 2 * k, 2)]
    return {
        "images": [{"id": i, "file_name": f"<b>{i}</b>.jpg", "width": 128, "height": 96} for i in range(people)],
        "annotations": [{"id": i + 1, "image_id": i, "category_id": 1, "keypoints": [*keypoints], "bbox": [15, 20, 90, 60],
                         "num_keypoints": skeleton.num_keypoints, "area": 2000, "iscrowd": 0} for i in range(people)],
        "categories": [skeleton.to_coco()],
    }  # fmt: skip


def save(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "is empty"),
        ("{", "not a JSON file"),
        ("hello", "not a JSON file"),
        ("[" * 100_000, "not a JSON file"),
        ("3", "holds int"),
        ("[]", "a bare list"),
        ('[{"id": 1, "annotations": []}]', "python -m lib convert"),
        ("PK\x03\x04", "is a zip: `python -m lib convert"),
        ('[{"image_id": 1, "score": 0.5}]', "results of a model"),
        ("{}", "'images' is missing"),
        ('{"images": [], "categories": [], "annotations": null}', "'annotations' is null"),
        ('{"images": {}, "categories": [], "annotations": []}', "'images' is {}"),
    ],
)
def test_no_coco_file_is_one_sentence(tmp_path, text, words, capsys):
    path = save(tmp_path / "a.json", text)
    assert main(["doctor", str(path)]) == 1
    error = capsys.readouterr().err
    assert words in error and str(path) in error and error.count("\n") == 1


def test_another_encoding_and_a_folder_for_the_copy(tmp_path, capsys):
    path = tmp_path / "a.json"
    path.write_bytes('{"images": [{"file_name": "k\xe4se.jpg"}]}'.encode("latin-1"))
    assert main(["doctor", str(path)]) == 1
    assert f"{path} is not a JSON file: 'utf-8'" in capsys.readouterr().err
    assert main(["doctor", str(save(path, content())), "--fix", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert f"{tmp_path} is a folder" in captured.err and not captured.out


def test_no_file_no_folder_no_memory(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such annotation file"):
        examine(tmp_path / "none.json")
    with pytest.raises(ValueError, match="is a folder"):
        examine(tmp_path)
    path = save(tmp_path / "a.json", content())
    with pytest.raises(FileNotFoundError, match="pictures of .*a.json does not exist"):
        examine(path, tmp_path / "none")
    with pytest.raises(ValueError, match="give images"):
        examine(path, against=path)
    with pytest.raises(FileNotFoundError, match="say which it is"):
        examine(path, tmp_path, against=path)
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.write(b"{")
        os.truncate(file.fileno(), 10**12)  # takes no space on the disk
    with pytest.raises(ValueError, match="1000.0 GB and would need about 8000 GB"):
        examine(huge)


@pytest.mark.parametrize("value", [None, True, "x", -1, 1.5, 10**400, [], {}, [[]], [None] * 4, ["a"] * 51])
@pytest.mark.parametrize("table", ["images", "annotations", "categories"])
def test_any_value_in_any_field_is_survived(tmp_path, table, value):
    for key in [*content()[table][0], "segmentation"]:
        data = content()
        data[table][0][key] = value
        path = save(tmp_path / "a.json", data)
        found = examine(path)
        str(found), found._repr_html_(), found.sheet()
        try:
            repair(path, tmp_path / "mended.json")
        except ValueError as error:
            assert "no image would be left" in str(error)
            continue
        after = examine(tmp_path / "mended.json")
        unfixable = {"image_size", "keypoints_without_names"}  # without pictures, without another category
        assert not [f for f in after.findings if f.severity == "severe" and f.fixable and f.code not in unfixable], key


def test_many_faults_at_once_are_survived(tmp_path):
    values = [None, True, "x", "5", -1, 1.5, 10**400, float("nan"), [], {}, [[]], [1, 2, 3, 4], [0] * 51, "../x"]
    rng = random.Random(0)
    for _ in range(60):
        data = content()
        for _ in range(rng.randint(2, 8)):
            entry = rng.choice(data[rng.choice(["images", "annotations", "annotations", "categories"])])
            entry[rng.choice([*entry])] = rng.choice(values)
        path = save(tmp_path / "a.json", data)
        str(examine(path))
        try:
            repair(path, tmp_path / "mended.json")
        except ValueError as error:
            assert "no image would be left" in str(error)
            continue
        if not examine(tmp_path / "mended.json").severe:
            read_coco(tmp_path / "mended.json")


def test_the_copy_never_replaces_the_file(tmp_path):
    path = save(tmp_path / "a.json", content())
    (tmp_path / "link.json").symlink_to(path)
    (tmp_path / "same.json").hardlink_to(path)
    for out in ("a.json", "link.json", "same.json", "x/../a.json"):
        with pytest.raises(ValueError, match="must not replace"):
            repair(path, tmp_path / out)
        assert main(["doctor", str(path), "--fix", str(tmp_path / out)]) == 1


def test_nothing_left_is_no_repair(tmp_path):
    data = content()
    for image in data["images"]:
        image["file_name"] = "/etc/passwd"
    with pytest.raises(ValueError, match="no image would be left"):
        repair(save(tmp_path / "a.json", data), tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_exit_status_and_text(tmp_path, capsys):
    path = save(tmp_path / "a.json", content())
    assert main(["doctor", str(path)]) == 0
    data = content()
    data["annotations"][0]["area"] = 0
    assert main(["doctor", str(save(path, data))]) == 1
    out = capsys.readouterr().out
    assert "1 × annotations without an area" in out and "annotation 1 in '<b>0</b>.jpg'" in out and "--fix:" in out


def test_report(tmp_path):
    data = content()
    data["annotations"][0]["area"] = 0
    page = examine(save(tmp_path / "a.json", data)).write(tmp_path / "report")
    text = page.read_text()
    assert "<b>0</b>" not in text and "&lt;b&gt;0" in text  # names are no markup
    assert {p.name for p in page.parent.iterdir()} >= {
        "index.html",
        "findings.json",
        "statistics.png",
        "area_missing.png",
    }
    found = json.loads((page.parent / "findings.json").read_text())
    assert found["findings"][0]["code"] == "area_missing" and found["statistics"]["people"] == 6


def test_show_in_a_notebook(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    data = content()
    data["annotations"][0]["area"] = 0
    examine(save(tmp_path / "a.json", data)).show()
    assert [type(x).__name__ for x in shown] == ["Diagnosis", "Figure", "Figure"]


def test_statistics(tmp_path):
    data = content()
    data["annotations"][0]["keypoints"][:6] = [0, 0, 0, 24, 32, 1]
    data["annotations"][1]["image_id"] = 0
    s = examine(save(tmp_path / "a.json", data)).statistics
    assert s["categories"]["person"]["keypoints"]["nose"] == [5, 0, 1]
    assert s["categories"]["person"]["keypoints"]["left_eye"] == [5, 1, 0]
    assert s["people_per_image"] == [1, 4, 1] and s["keypoints_per_person"][16:] == [1, 5]
    assert sum(s["sizes"]) == 6 and s["sizes"][s["size_edges"].index(32)] == 6  # √2000 = 44.7


def test_any_skeleton(tmp_path):
    for skeleton in (MPII16,):
        found = examine(save(tmp_path / "a.json", content(skeleton)))
        assert not found.severe and found.statistics["people"] == 6


def test_a_file_with_necks_is_healthy(tmp_path):
    data = content()
    path = insert_neck_file(save(tmp_path / "a.json", data), tmp_path / "neck.json")
    assert "num_keypoints" not in examine(path).codes()  # trt_pose leaves the neck out of the count
