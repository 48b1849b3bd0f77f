"""The command that measures pairs of keypoints for a recipe."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from lib.codecs.parts import PartsCodec
from lib.data.pair_statistics import read_pair_stats
from lib.data.synthetic import write_dataset
from lib.pairwise import stats
from lib.skeleton import COCO17


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / "synthetic", 4, 1, workers=1)


def test_the_command_fills_in_a_recipe(folder, tmp_path, capsys):
    recipe = {"model": {"network": {"name": "DeeperCut", "units": [1, 1, 1, 1], "width": 8}, "codec": {"name": "PartsCodec"}},
              "data": {"data_dir": str(folder), "input_size": [64, 64], "mask_stride": 8, "augment": None}, "trainer": {}}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    stats(str(tmp_path / "recipe.yaml"), out=tmp_path / "filled.yaml")
    assert "272 pairs" in (said := capsys.readouterr().out) and "nose → " in said
    filled = yaml.safe_load((tmp_path / "filled.yaml").read_text())
    rows = filled["model"]["codec"].pop("pair_stats")
    assert filled == recipe and PartsCodec(COCO17, pair_stats=rows).pair_stats is not None
    stats(str(tmp_path / "recipe.yaml"), out=tmp_path / "pairs.mat")
    np.testing.assert_allclose(read_pair_stats(tmp_path / "pairs.mat", COCO17), rows, atol=1e-3)
    stats(str(tmp_path / "recipe.yaml"), out=tmp_path / "halved.yaml", published=tmp_path / "pairs.mat", scale=0.5)
    halved = yaml.safe_load((tmp_path / "halved.yaml").read_text())["model"]["codec"]["pair_stats"]
    np.testing.assert_allclose(halved, np.array(rows) / 2, atol=2e-3)
    with pytest.raises(ValueError, match="stats.txt: write to a .yaml"):
        stats(str(tmp_path / "recipe.yaml"), out=tmp_path / "stats.txt")
