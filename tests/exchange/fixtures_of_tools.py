"""Exports as the tools write them, small enough to read; nothing here comes from a real export."""

import copy
import json
import zipfile

NAMES = ["nose", "left_eye", "right_eye"]


def coco_annotator(**changes):
    """Three people on two pictures: one masked, one with points alone, one of a category that has no keypoints."""
    image = {"width": 100, "height": 80, "dataset_id": 3}
    data = {
        "images": [
            {"id": 41, "file_name": "a.jpg", "path": "/datasets/cats/a.jpg", **image},
            {"id": 42, "file_name": "b.jpg", "path": "/datasets/cats/b.jpg", **image},
        ],
        "categories": [
            {"id": 17, "name": "cat", "supercategory": "", "color": "#2080c0", "metadata": {}, "keypoints": NAMES,
             "skeleton": [[1, 2], [1, 3]], "keypoint_colors": ["#f00", "#0f0", "#00f"]},
            {"id": 23, "name": "bowl", "supercategory": "", "color": "#999999", "metadata": {}, "keypoint_colors": []},
        ],
        "annotations": [
            {"id": 900, "image_id": 41, "category_id": 17, "segmentation": [[10, 10, 50, 10, 50, 40, 10, 40]], "area": 1200,
             "bbox": [10.0, 10.0, 40.0, 30.0], "iscrowd": False, "isbbox": False, "color": "#abc", "metadata": {},
             "keypoints": [30, 20, 2, 25, 15, 1, 0, 0, 0], "num_keypoints": 2},
            {"id": 901, "image_id": 42, "category_id": 17, "segmentation": [], "area": 0, "bbox": [0, 0, 0, 0],
             "iscrowd": False, "isbbox": False, "color": "#def", "metadata": {},
             "keypoints": [30, 40, 2, 20, 30, 2, 70, 30, 2], "num_keypoints": 3},
            {"id": 902, "image_id": 42, "category_id": 23, "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]], "area": 64,
             "bbox": [1, 1, 8, 8], "iscrowd": False, "isbbox": True, "color": "#123", "metadata": {}},
        ],
    }  # fmt: skip
    return edited(data, changes)


def cvat(**changes):
    """As Datumaro writes it: a licence without a name, dates of 0, places of points that are outside."""
    data = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
        "categories": [{"id": 1, "name": "cat", "supercategory": "", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}],
        "images": [{"id": 1, "width": 100, "height": 80, "file_name": "sub/a.jpg", "license": 0, "flickr_url": "",
                    "coco_url": "", "date_captured": 0}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [], "area": 525.0, "bbox": [20.0, 30.0, 35.0, 15.0],
             "iscrowd": 0, "attributes": {"occluded": False}, "keypoints": [20.5, 30.25, 2, 55.0, 45.0, 1, 33.5, 12.0, 0],
             "num_keypoints": 2},
        ],
    }  # fmt: skip
    return edited(data, changes)


def label_studio_coco(**changes):
    """Two boxes and the points of two people in one figure; ids from 0."""
    data = {
        "images": [{"width": 200, "height": 100, "id": 0, "file_name": "../../media/upload/1/ab12cd34-a.jpg"}],
        "categories": [
            {"id": 2, "name": "cat"},
            {"id": 3, "name": "default", "supercategory": "default", "keypoints": NAMES, "skeleton": []},
        ],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 2, "segmentation": [], "bbox": [10.0, 10.0, 60.0, 80.0], "ignore": 0,
             "iscrowd": 0, "area": 4800.0},
            {"id": 1, "image_id": 0, "category_id": 2, "segmentation": [], "bbox": [110.0, 10.0, 60.0, 80.0], "ignore": 0,
             "iscrowd": 0, "area": 4800.0},
            {"id": 2, "image_id": 0, "category_id": 3, "keypoints": [140, 30, 2, 45, 25, 2, 0, 0, 0], "num_keypoints": 2,
             "bbox": [45, 25, 95, 5], "iscrowd": 0},
        ],
        "info": {"year": 2026, "version": "1.0", "description": "", "contributor": "Label Studio", "url": ""},
    }  # fmt: skip
    return edited(data, changes)


def point(name, x, y, size=(200, 100), region=None, **more):
    """A point of Label Studio's own JSON; x and y in pixels."""
    value = {"x": 100 * x / size[0], "y": 100 * y / size[1], "width": 0.4, "keypointlabels": [name]}
    value |= {key: more.pop(key) for key in ("hidden",) if key in more}
    region = region or f"p{name}{x}{y}"
    return {"id": region, "type": "keypointlabels", "from_name": "kp", "to_name": "image", "value": value,
            "original_width": size[0], "original_height": size[1], "image_rotation": 0, **more}  # fmt: skip


def rectangle(region, x, y, w, h, size=(200, 100), label="cat", rotation=0):
    value = {"x": 100 * x / size[0], "y": 100 * y / size[1], "width": 100 * w / size[0], "height": 100 * h / size[1],
             "rotation": rotation, "rectanglelabels": [label]}  # fmt: skip
    return {"id": region, "type": "rectanglelabels", "from_name": "box", "to_name": "image", "value": value,
            "original_width": size[0], "original_height": size[1], "image_rotation": 0}  # fmt: skip


def task(*result, number=1, image="/data/upload/1/ab12cd34-a.jpg", **annotation):
    return {"id": number, "data": {"image": image}, "annotations": [{"id": 7, "result": list(result), **annotation}]}


def label_studio_tasks():
    """Two cats in one picture, told apart by the rectangle each point belongs to."""
    return [
        task(rectangle("r1", 10, 10, 60, 80), rectangle("r2", 110, 10, 60, 80),
             point("nose", 40, 30, parentID="r1"), point("left_eye", 45.5, 25, parentID="r1"),
             point("nose", 140, 30, parentID="r2"), point("right_eye", 135, 25.25, parentID="r2", hidden=True)),
        task(point("nose", 12, 10, (64, 48)), number=2, image="s3://bucket/more/b.jpg?signature=x"),
    ]  # fmt: skip


def roboflow(**changes):
    """A grouping category with id 0, names with a hash, ids from 0."""
    name = "IMG_1_JPG_jpg.rf.0123456789abcdef0123456789abcdef.jpg"
    data = {
        "info": {"year": "2026", "version": "1", "description": "Exported from roboflow.com"},
        "licenses": [{"id": 1, "url": "", "name": "CC BY 4.0"}],
        "categories": [
            {"id": 0, "name": "cats-Qx7", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "cats-Qx7", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]},
        ],
        "images": [{"id": 0, "license": 1, "file_name": name, "height": 640, "width": 640, "extra": {"name": "IMG_1.JPG"},
                    "date_captured": "2026-09-10T07:12:44+00:00"}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 1, "bbox": [100, 120.5, 200, 150], "area": 30000.0, "segmentation": [],
             "iscrowd": 0, "keypoints": [150, 180, 2, 140.5, 170, 1, 0, 0, 0]},
        ],
    }  # fmt: skip
    return edited(data, changes)


def edited(data, changes):
    """A copy with `annotations__1__area=0` (list__index__key) or whole lists put in; DROP takes a key out."""
    data = copy.deepcopy(data)
    for path, value in changes.items():
        *way, last = path.split("__")
        place = data
        for step in way:
            place = place[int(step) if step.isdigit() else step]
        if value is DROP:
            del place[last]
        else:
            place[int(last) if last.isdigit() else last] = value
    return data


DROP = object()


def save(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def zipped(path, **entries):
    """A zip; entries as name=content, where `__` in a name stands for `/` and `_dot_` for `.`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            content = content if isinstance(content, str | bytes) else json.dumps(content)
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return path
