"""Two parts that share nothing, the same on every computer, and nothing lost from the file."""

import json

import pytest

from lib.data.coco import find_split, read_coco
from lib.data.split import held_out, split


def write_file(folder, names):
    (folder / "images").mkdir(parents=True)
    content = {
        "info": {"made": "by hand"},
        "images": [
            {"id": i + 7, "file_name": name, "width": 9, "height": 9, "mine": i} for i, name in enumerate(names)
        ],
        "annotations": [
            {"id": 2 * i + k + 1, "image_id": i + 7, "category_id": 1, "keypoints": [1, 2, 2], "colour": "red"}
            for i in range(len(names))
            for k in (0, 1)
        ],
        "categories": [{"id": 1, "name": "dot", "keypoints": ["dot"], "skeleton": []}],
        "unknown": [1, 2],
    }
    (folder / "dots.json").write_text(json.dumps(content))
    return folder / "dots.json", content


def test_two_parts_make_a_data_dir_and_lose_nothing(tmp_path):
    file, content = write_file(tmp_path, [f"{i}.jpg" for i in range(40)])
    before = file.read_bytes()
    assert split(file, 0.25) == [find_split(tmp_path, part)[0] for part in ("train", "val")]
    parts = [json.loads(find_split(tmp_path, part)[0].read_text()) for part in ("train", "val")]
    assert find_split(tmp_path, "train")[1] == find_split(tmp_path, "val")[1] == tmp_path / "images"
    assert [len(part["images"]) for part in parts] == [30, 10]
    for what in ("images", "annotations"):
        assert sorted((row for part in parts for row in part[what]), key=lambda row: row["id"]) == content[what]
    assert all(part["unknown"] == [1, 2] and part["info"] == content["info"] for part in parts)
    assert read_coco(tmp_path / "annotations/dots_keypoints_val.json").images and file.read_bytes() == before


def test_a_video_stays_on_one_side(tmp_path):
    names = [f"{video}_{i:06d}_{i / 10:09.3f}s.jpg" for video in ("walk", "run", "jump", "sit") for i in range(5)]
    file, _ = write_file(tmp_path, names)
    paths = split(file, 0.25)
    sides = [{image.file_name.split("_")[0] for image in read_coco(path).images} for path in paths]
    assert len(sides[0]) == 3 and len(sides[1]) == 1 and not sides[0] & sides[1]
    split(file, 0.25, group="")
    sides = [{image.file_name.split("_")[0] for image in read_coco(path).images} for path in paths]
    assert sides[0] & sides[1]


def test_clips_of_a_video_stay_on_one_side_too(tmp_path):
    clips = [
        f"{v}_clip_{c:06d}/{v}_{c + i:06d}_00000.{c + i:03d}s.jpg" for v in "abcd" for c in (0, 2) for i in range(4)
    ]
    moved = [f"{folder}/e_{i:06d}_00000.000s.jpg" for i, folder in enumerate(("first", "second", "second/sub"))]
    file, _ = write_file(tmp_path, clips + moved)
    sides = [{image.file_name.split("/")[-1][0] for image in read_coco(path).images} for path in split(file, 0.4)]
    assert sides[0] | sides[1] == set("abcde") and not sides[0] & sides[1]


def test_the_order_is_fixed_and_a_larger_part_holds_a_smaller_one():
    names = [str(i) for i in range(100)]
    small, large = (held_out(names, fraction) for fraction in (0.1, 0.3))
    assert sum(small) == 10 and sum(large) == 30 and all(b or not a for a, b in zip(small, large))
    assert [name for name, held in zip(names, held_out(names, 0.05)) if held] == ["39", "49", "51", "55", "65"]


def test_what_cannot_be_split(tmp_path):
    file, _ = write_file(tmp_path, [f"walk_{i:06d}_00000.{i:03d}s.jpg" for i in range(5)])
    with pytest.raises(ValueError, match=r"5 pictures in 1 groups \(the first 'walk'\) leave nothing for training"):
        split(file)
    with pytest.raises(ValueError, match="nothing for validation"):
        split(file, 0, group="")
    with pytest.raises(ValueError, match="not a regular expression"):
        split(file, group="(")
    with pytest.raises(ValueError, match="within 0..1"):
        split(file, 1.5)
    empty, _ = write_file(tmp_path / "empty", [])
    with pytest.raises(ValueError, match="lists no pictures"):
        split(empty)
    assert not (tmp_path / "annotations").exists()
