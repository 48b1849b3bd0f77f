"""DeeperCut leaves the house: one file finds the same person, in half precision, too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.checkpoints import Model
from lib.codecs.parts import PartsCodec
from lib.data.synthetic import write_dataset
from lib.export import export_onnx
from lib.models.deepercut import DeeperCut
from lib.parity import FP16, map_differences
from lib.predict import Predictor
from lib.skeleton import COCO17


def test_one_file_finds_the_same_person(tmp_path):
    torch.manual_seed(0)
    network = DeeperCut(COCO17, (1, 1, 2, 1), 8, layout="caffe", pairwise=False, intermediate=1)
    for head in (network.heatmaps, network.offsets):
        torch.nn.init.normal_(head.weight, std=0.05)
    network.train()(255 * torch.rand(4, 3, 64, 96))
    codec = PartsCodec(COCO17, pairwise=False, single=True)
    pictures = write_dataset(tmp_path / "people", num_train=1, num_val=3, workers=1)
    report = export_onnx(Model(network.eval(), codec, (64, 96)), tmp_path / "net.onnx", precision="fp16", data_dir=pictures)
    assert set(report.maps) == {"heatmaps", "offsets"}
    assert max(report.maps.values()) <= FP16.maps
    assert Predictor(tmp_path / "net.onnx").codec == codec


def test_maps_around_keypoints_count_where_the_keypoints_are():
    heatmaps = np.array([1.0, 0.25]).reshape(2, 1, 1)
    mine = {"heatmaps": heatmaps, "offsets": np.array([0, 0, 100, 0.5]).reshape(4, 1, 1), "pairwise": np.zeros((4, 1, 1))}
    theirs = {name: values.copy() for name, values in mine.items()}
    theirs["offsets"][2], theirs["pairwise"][0] = 101, 0.5
    assert map_differences(mine, theirs) == {"heatmaps": 0, "offsets": 0.25 / 25, "pairwise": 0.5}
    theirs["offsets"][3] = np.nan
    assert map_differences(mine, theirs)["offsets"] == float("inf")
    alone = {"heatmaps": heatmaps[:1], "pairwise": np.zeros((0, 1, 1))}
    assert map_differences(alone, alone) == {"heatmaps": 0, "pairwise": 0}
    with pytest.raises(ValueError, match="it is another model's file"):
        map_differences(mine, alone)
