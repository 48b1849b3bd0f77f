"""The folder of a run: what it says about the network, the best epoch and its pictures is what is there."""


import numpy as np
import pytest
from torch import nn

from lib import ROOT, chain
from lib.checkpoints import load_model
from lib.data.synthetic import write_dataset
from lib.history import best_row
from lib.model_summary import model_summary
from lib.results import some
from lib.training import TrainingRun, load_recipe, train

RECIPE = "lib/recipes/higherhrnet_mini.yaml"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> dict:
    data_dir = write_dataset(tmp_path_factory.mktemp("data") / "people", 8, 4)
    return {
        "data.data_dir": str(data_dir), "data.input_size": [64, 64], "data.batch_size": 4, "data.num_workers": 0,
        "model.network.width": 8, "model.network.stem": 8, "model.warmup_steps": 2,
        "trainer.precision": "32-true", "trainer.max_epochs": 2, "trainer.enable_progress_bar": False,
    }  # fmt: skip


def test_of_equal_epochs_the_best_is_the_one_whose_weights_were_kept(tiny, tmp_path):
    run = train(RECIPE, tmp_path / "run", tiny)
    assert [row["AP"] for row in run.history] == [0.0, 0.0], "it cannot have learnt anything yet"
    kept = load_model(run.best).info["epoch"]
    assert best_row(run.history, "AP")["epoch"] == kept
    assert f"in epoch {kept}" in (run.out_dir / "metrics.html").read_text()
    assert {path.name for path in (run.out_dir / "logs").iterdir()} == {"version_0"}
    resumed = train(RECIPE, run.out_dir, tiny | {"trainer.max_epochs": 3}, resume=True)
    logs = {path.parent.name for path in (resumed.out_dir / "logs").glob("*/metrics.csv")}
    assert logs == {path.parent.name for path in (resumed.out_dir / "logs").glob("*/events*")} == {"version_0", "version_1"}


class Branched(nn.Module):
    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList([nn.Sequential(nn.Conv2d(3, 4, 1)), nn.ModuleDict({"fine": nn.Conv2d(3, 2, 1)})])
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, images):
        return self.branches[1]["fine"](images), self.head(self.branches[0](images))


def test_a_layer_in_a_list_is_called_after_the_list():
    names = [line.split(" (")[0] for line in model_summary(Branched(), (8, 6)).splitlines()[4:]]
    assert names == ["  branches.0", "    0", "  branches.1.fine", "  head"]


def test_a_training_without_validation_says_that_nothing_is_best(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(chain, "run", lambda *_, **__: TrainingRun(tmp_path, [], None, None))
    assert chain.main(["--config", str(ROOT / RECIPE), "--out_dir", str(tmp_path)]) == 0
    assert "no epoch was validated" in capsys.readouterr().out


def test_sheets_name_their_columns(tiny):
    learner, data = load_recipe(RECIPE, tiny)
    batch = some(data.val_set, data.val_dataloader().collate_fn, 2)
    for sheet, columns in ((learner.draw_targets(batch), 3), (learner.draw_answers(batch), 4)):
        assert sheet.shape[1] == columns * 64 + (columns - 1) * 4
        bar = sheet.shape[0] - (2 * 64 + 4)
        heads = [sheet[:bar, left : left + 64] for left in range(0, sheet.shape[1], 68)]
        assert bar >= 12 and all((head < 128).any() and np.median(head) == 255 for head in heads)
