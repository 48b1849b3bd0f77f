"""Training of a top-down network: its validation and the prediction with annotated boxes are the same thing."""

import lightning
import pytest

from lib import ROOT
from lib.checkpoints import load_model
from lib.data.synthetic import Scene, write_dataset
from lib.detect import TruthBoxes
from lib.evaluate import evaluate
from lib.predict import Predictor
from lib.training import load_recipe, train

MINI, SHIPPED = ROOT / "lib/recipes/topdown_mini.yaml", ROOT / "pretrained/topdown_mini.safetensors"


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Pictures with several people each: several samples of one picture."""
    scene = Scene(min_people=2, max_people=4)
    return write_dataset(tmp_path_factory.mktemp("crowd"), num_train=4, num_val=8, scene=scene, workers=1)


def test_validation_equals_evaluation_with_annotated_boxes(crowd):
    overrides = {"data.data_dir": str(crowd), "data.num_workers": 0, "model.initial_weights": str(SHIPPED),
                 "data.input_size": list(load_model(SHIPPED).input_size), "data.batch_size": 5}  # fmt: skip
    learner, data = load_recipe(MINI, overrides)
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (validated,) = trainer.validate(learner, data, verbose=False)
    assert len(data.val_set) > len(set(data.val_set.image_ids.tolist()))
    annotations = crowd / "annotations/person_keypoints_val.json"
    report = evaluate(Predictor(learner.model(data), detector=TruthBoxes(annotations)), annotations, crowd / "val")
    assert report.metrics["AP"] > 0.6
    # the one reads each picture anew, perhaps at a reduced size
    assert validated["AP"] == pytest.approx(report.metrics["AP"], abs=0.02)


@pytest.mark.parametrize("given", [{"data.boxes.shfit": 0.1}, {"data.boxes": {"shfit": 0.1}}])
def test_a_misspelt_option_of_boxes_names_the_nearest(given):
    with pytest.raises(ValueError, match=r"^data.boxes has no option 'shfit'; did you mean 'data.boxes.shift'\?$"):
        load_recipe(MINI, given)


def test_a_run_keeps_the_padding_it_was_trained_with(crowd, tmp_path):
    overrides = {"data.data_dir": str(crowd), "data.num_workers": 0, "data.input_size": [64, 64], "data.batch_size": 4,
                 "data.boxes.padding": 1.5, "trainer.max_epochs": 1}  # fmt: skip
    run = train(MINI, tmp_path / "run", overrides)
    predictor = Predictor(run.best, detector="whole")
    assert predictor.padding == 1.5 and predictor.metadata["info"]["flip"] == 0
    image = run.data.val_set.path(0)
    fitted = predictor.fit(image, run.data.val_set.boxes[:1].tolist() and [[*run.data.val_set.boxes[0], 1.0]])
    item = run.data.val_set[0]
    assert fitted.affines[0] == pytest.approx(item["affine"].numpy(), abs=1e-4)
