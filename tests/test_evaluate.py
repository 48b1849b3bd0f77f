"""Evaluation: perfect people score 1, what was run is written down, both protocols and both rules, what a bad network finds."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from lib import evaluate as module
from lib.__main__ import main as command
from lib.checkpoints import Model, load_model, save_model
from lib.codecs import CODECS, PartsCodec
from lib.data.coco import Image, read_coco, write_coco
from lib.data.openpose_lists import val_subset
from lib.evaluate import evaluate, published_predictor
from lib.metrics import METRICS, coco_output
from lib.models import NETWORKS
from lib.models.higherhrnet import HigherHRNet
from lib.models.lightweight_openpose import LightweightOpenPose
from lib.predict import Predictor
from lib.skeleton import COCO17
from tests.dots import POLE, DotNet, dot_model, write_poles
from tests.models.hrnet_files import MINI, official
from tests.tag_dots import TagDots, tag_model


@pytest.fixture(scope="module")
def poles(tmp_path_factory):
    return write_poles(tmp_path_factory.mktemp("poles") / "data")


@pytest.fixture
def dots_can_be_loaded(monkeypatch):
    monkeypatch.setitem(NETWORKS, "DotNet", DotNet)


@pytest.fixture
def any_eights(monkeypatch):
    """368 is no multiple of 32."""
    monkeypatch.setattr(DotNet, "input_multiple", 8)


def test_people_that_are_found_score_and_the_report_says_how_it_was_run(poles, tmp_path, dots_can_be_loaded):
    checkpoint = save_model(tmp_path / "dots.safetensors", dot_model(min_parts=2))
    report = evaluate(Predictor(checkpoint), poles / "poles.json", poles / "images", tmp_path / "out")
    assert report.metrics["AP"] > 0.95
    assert [row["keypoint"] for row in report.per_keypoint] == ["top", "bottom"]
    assert all(row["found"] == 1 and row["error"] < 1.5 for row in report.per_keypoint)
    assert len(report.people) == 12 and report.worst_images(3)[0]["oks"] <= report.worst_images(3)[1]["oks"]
    card = json.loads((tmp_path / "out/run_card.json").read_text())
    assert card["model_file"]["name"] == "dots.safetensors" and len(card["model_file"]["sha256"]) == 64
    assert card["images"] == 12 and card["codec_options"]["min_parts"] == 2 and card["protocol"] == "all"
    results = json.loads((tmp_path / "out/coco_results.json").read_text())
    assert results == report.results and set(results[0]) == {"image_id", "category_id", "keypoints", "score"}
    assert "AP50" in report.table() and "bottom" in report.keypoint_table()


def test_images_without_detections_are_no_error(poles, tmp_path):
    blind = Predictor(dot_model(peak_threshold=5.0))
    report = evaluate(blind, poles / "poles.json", poles / "images", tmp_path)
    assert report.metrics["AP"] == 0 and report.results == []
    assert json.loads((tmp_path / "coco_results.json").read_text()) == []
    assert all(row["oks"] == 0 for row in report.per_image)


def test_the_protocols_differ_by_the_images_without_people(poles, tmp_path):
    coco = read_coco(poles / "poles.json")
    lonely = coco.images[0].id
    coco.annotations = [a for a in coco.annotations if a.image_id != lonely]
    file = write_coco(tmp_path / "poles.json", coco)
    predictor = Predictor(dot_model(min_parts=2))
    everything = evaluate(predictor, file, poles / "images")
    occupied = evaluate(predictor, file, poles / "images", protocol="with_people")
    assert (everything.run_card["images"], occupied.run_card["images"]) == (12, 11)
    # the pole that nobody annotated is a false positive only where its image counts
    assert everything.metrics["AP"] < occupied.metrics["AP"]
    assert np.isnan(next(r["oks"] for r in everything.per_image if r["image_id"] == lonely))


def test_bad_input_is_named(poles, tmp_path):
    predictor = Predictor(dot_model())
    with pytest.raises(ValueError, match="with_people"):
        evaluate(predictor, poles / "poles.json", poles / "images", protocol="people")
    coco = read_coco(poles / "poles.json")
    coco.annotations.clear()
    empty = write_coco(tmp_path / "empty.json", coco)
    with pytest.raises(ValueError, match="no image to score among 12"):
        evaluate(predictor, empty, poles / "images", protocol="with_people")
    with pytest.raises(ValueError, match="empty.json: no pole with keypoints in the 5 images to score of 12"):
        evaluate(predictor, empty, poles / "images", limit=5)
    coco = read_coco(poles / "poles.json")
    coco.images.append(Image(99, "gone.png", 64, 64))
    with pytest.raises(FileNotFoundError, match="gone.png"):
        evaluate(predictor, write_coco(tmp_path / "gone.json", coco), poles / "images")


def test_the_command_prints_the_tables(poles, tmp_path, capsys, dots_can_be_loaded):
    checkpoint = save_model(tmp_path / "dots.safetensors", dot_model(min_parts=2))
    module.main(checkpoint, str(poles), limit=3)
    printed = capsys.readouterr().out
    assert "AP50" in printed and "bottom" in printed


class FullDots(DotNet):
    """Each colour alone is a map, so that the stripe may reach into the dots: the published rule asks the ends, too."""

    def __init__(self, skeleton):
        super().__init__(skeleton)
        self.options = {}
        with torch.no_grad():
            self.colours.weight[:] = torch.eye(3)[:, :, None, None] / 255


def test_published_rules(tmp_path, any_eights):
    write_poles(tmp_path, margin=-4)
    model = replace(dot_model(), network=FullDots(POLE).eval())
    report = evaluate(published_predictor(model), tmp_path / "poles.json", tmp_path / "images", tmp_path, rules="published")
    assert report.metrics["AP50"] > 0.95
    card = json.loads((tmp_path / "run_card.json").read_text())
    assert (card["rules"], card["half_pixel"], card["fit"], card["maps_at"]) == ("published", True, "height", "image")
    assert card["input_size"] == [368, 368] and card["codec_options"]["score"] == "openpose" and not card["old_decoder"]
    numbers = np.array([r["keypoints"] for r in report.results]).reshape(-1, 3)
    assert set(numbers[:, 2]) == {1.0} and (numbers[:, :2] % 1 == 0.5).all(), "whole pixels and a half"
    assert report.rules() == "published rules of Lightweight OpenPose, 12 of 12 images, half a pixel added"
    assert json.loads((tmp_path / "metrics.json").read_text())["rules"] == report.rules()


def test_figures_by_other_rules_say_so(poles, any_eights):
    other = published_predictor(dot_model(), scales=(0.5, 1.0), flip_test=True, old_decoder=True)
    report = evaluate(other, poles / "poles.json", poles / "images", limit=2, rules="published", half_pixel=False)
    assert report.rules() == "published rules of Lightweight OpenPose, 2 of 12 images, old decoder, scales 0.5 1, flip test"
    assert report.run_card["scales"] == [0.5, 1.0] and report.run_card["old_decoder"] and report.run_card["limit"] == 2


@pytest.mark.parametrize("flip, said", [(0.0, "flip test of a model trained without mirror images"), (0.5, "flip test")])
def test_a_flip_test_of_who_never_saw_a_mirror_is_named(poles, flip, said):
    model = replace(dot_model(), info={"flip": flip})
    report = evaluate(Predictor(model, flip_test=True), poles / "poles.json", poles / "images", limit=1)
    assert report.rules() == f"our rules, 1 of 12 images, {said}"
    assert "mirror" not in evaluate(Predictor(model), poles / "poles.json", poles / "images", limit=1).rules()


def test_cocos_own_words(capsys):
    from pycocotools.cocoeval import COCOeval

    metrics = dict(zip(METRICS, (0.6731, 0.87, 0.7333, -1.0, 0.0, 1.0, 0.896, 0.77, 0.652, 0.819)))
    theirs = COCOeval(iouType="keypoints")
    # −1 stands where nothing exists; one number for each overlap and size
    overlaps, sizes = len(theirs.params.iouThrs), len(theirs.params.areaRng)
    values = {"AP": np.full((overlaps, 101, 1, sizes, 1), -1.0), "AR": np.full((overlaps, 1, sizes, 1), -1.0)}
    theirs.eval = {"precision": values["AP"], "recall": values["AR"]}
    theirs.summarize()
    assert coco_output(dict.fromkeys(METRICS, -1.0)) == capsys.readouterr().out
    lines = coco_output(metrics).splitlines()
    assert lines[0] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets= 20 ] = 0.673"
    assert lines[9] == " Average Recall     (AR) @[ IoU=0.50:0.95 | area= large | maxDets= 20 ] = 0.819"


def test_the_config_repeats_an_evaluation(poles, tmp_path, dots_can_be_loaded, capsys):
    checkpoint = save_model(tmp_path / "dots.safetensors", dot_model(min_parts=2))
    run = ["evaluate", str(checkpoint), f"--data_dir={poles}", f"--out_dir={tmp_path / 'a'}", "--limit=5", "--flip_test=true"]
    options = ["--codec.peak_threshold=0.2", "--scales=[0.5,1]", "--input_size=[64,96]", "--maps_at=image"]
    assert command([*run, *options]) == 0
    printed = capsys.readouterr().out
    assert command(["evaluate", f"--config={tmp_path / 'a/config.yaml'}", f"--out_dir={tmp_path / 'b'}"]) == 0
    assert capsys.readouterr().out == printed and "5 of 12 images, scales 0.5 1, flip test" in printed
    for name in ("coco_results.json", "coco_output.txt", "metrics.json", "run_card.json", "config.yaml"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text(), name
    card = json.loads((tmp_path / "a/run_card.json").read_text())
    assert card["codec_options"]["peak_threshold"] == 0.2 and card["maps_at"] == "image" and card["input_size"] == [64, 96]
    assert "maxDets= 20" in (tmp_path / "a/coco_output.txt").read_text()
    assert command([*run[:3], "--limit=1", f"--out_dir={tmp_path / 'c'}", "--input_size=64"]) == 0
    assert json.loads((tmp_path / "c/run_card.json").read_text())["input_size"] == [64, 64]
    assert command([*run[:3], "--limit=1", "--input_size=[64,64,3]"]) == 1 and "[height,width]" in capsys.readouterr().err
    in_memory = evaluate(Predictor(dot_model()), poles / "poles.json", poles / "images", limit=1)
    assert in_memory.config["model"] is None, "which nobody can repeat without a file"


def test_both_published_rules_of_tags(poles, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(NETWORKS, "TagDots", TagDots)
    coco = read_coco(poles / "poles.json")
    lonely = coco.images[0].id
    coco.annotations = [a for a in coco.annotations if a.image_id != lonely]
    file = write_coco(tmp_path / "poles.json", coco)
    checkpoint = save_model(tmp_path / "tags.safetensors", tag_model((96, 96)))
    run = ["evaluate", str(checkpoint), f"--annotations={file}", f"--images={poles / 'images'}", "--rules=published",
           "--flip_test=true", "--limit=6", "--batch_size=2"]  # fmt: skip
    assert command([*run, f"--out_dir={tmp_path / 'higher'}", "--scales=[0.5,1,2]", "--input_size=[128]"]) == 0
    assert "published rules of HigherHRNet, 6 of 12 images, scales 0.5 1 2, flip test\n" in capsys.readouterr().out
    assert command([*run, f"--out_dir={tmp_path / 'thawro'}", "--protocol=with_people"]) == 0
    expected = "published rules of pytorch-human-pose, 6 of 12 images, with people, flip test\n"
    assert expected in capsys.readouterr().out
    cards = [json.loads((tmp_path / name / "run_card.json").read_text()) for name in ("higher", "thawro")]
    assert [card["rules_of"] for card in cards] == ["HigherHRNet", "pytorch-human-pose"]
    assert [card["protocol"] for card in cards] == ["all", "with_people"]
    assert [card["codec_options"]["tag_threshold"] for card in cards] == [1.0, 0.5]
    assert cards[0]["input_size"] == [128, 128] and (cards[0]["fit"], cards[0]["maps_at"]) == ("short", "pixels")
    assert json.loads((tmp_path / "higher/metrics.json").read_text())["metrics"]["AP50"] > 0.6
    assert command(["evaluate", f"--config={tmp_path / 'higher/config.yaml'}"]) == 0
    assert command([*run, "--codec.tag_threshold=2"]) == 1
    assert "the published rules say what codec must be" in capsys.readouterr().err
    assert command([*run[:-3], "--rules=ours", "--fit=wide"]) == 1 and "choose model, height, short or native" in capsys.readouterr().err


def test_half_a_pixel_on_its_own(poles):
    predictor = Predictor(dot_model(min_parts=2))
    plain, moved = (evaluate(predictor, poles / "poles.json", poles / "images", half_pixel=half) for half in (None, True))
    gap = np.array([r["keypoints"] for r in moved.results]) - [r["keypoints"] for r in plain.results]
    np.testing.assert_allclose(gap.reshape(-1, 3), np.tile([0.5, 0.5, 0.0], (2 * len(gap), 1)), atol=1e-9)
    assert moved.run_card["half_pixel"] and "half a pixel" in moved.rules() and "half a pixel" not in plain.rules()


def test_the_subset_is_the_published_choice(poles):
    coco = read_coco(poles / "poles.json")
    report = evaluate(Predictor(dot_model(min_parts=2)), poles / "poles.json", poles / "images", subset=5)
    assert list(report.people) == [coco.images[i].id for i in val_subset(12, 5)]
    assert report.run_card["subset"] == 5 and report.rules() == "our rules, 5 of 12 images, subset of 5"


def test_a_subset_of_more_images_than_there_are_is_no_subset(poles):
    report = evaluate(Predictor(dot_model(min_parts=2)), poles / "poles.json", poles / "images", subset=999)
    assert report.rules() == "our rules, 12 of 12 images"


def test_published_rules_of_a_size_that_the_network_cannot_take():
    with pytest.raises(ValueError, match=r"input size 368×368 only, and a DotNet takes multiples of 32: .*rules='ours'"):
        published_predictor(dot_model())


def test_published_rules_need_their_predictor(poles, any_eights):
    files = poles / "poles.json", poles / "images"
    with pytest.raises(ValueError, match="Lightweight OpenPose's published rules .*fit 'model'.*another decoder.*published_predictor"):
        evaluate(Predictor(dot_model()), *files, rules="published")
    with pytest.raises(ValueError, match="all images"):
        evaluate(published_predictor(dot_model()), *files, rules="published", protocol="with_people")
    with pytest.raises(ValueError, match="ours or published"):
        evaluate(Predictor(dot_model()), *files, rules="theirs")


def test_there_are_no_published_rules_of_deepercut_to_compare_with(poles):
    predictor = Predictor(dot_model())
    predictor.codec = PartsCodec(predictor.skeleton)
    with pytest.raises(ValueError, match="no AP on COCO. .*rules='ours' with fit='native'"):
        evaluate(predictor, poles / "poles.json", poles / "images", rules="published")


def test_a_public_higherhrnet_is_evaluated(poles, tmp_path, capsys):
    torch.manual_seed(0)
    torch.save(official(HigherHRNet(COCO17, **MINI)), tmp_path / "pose_higher_hrnet.pth")
    coco = read_coco(poles / "poles.json")
    coco.categories[0].keypoints[:] = ["left_ear", "left_ankle"]
    file = write_coco(tmp_path / "ears.json", coco)
    run = ["evaluate", str(tmp_path / "pose_higher_hrnet.pth"), f"--annotations={file}", f"--images={poles / 'images'}"]
    assert command([*run, "--rules=published", "--input_size=[64]", "--limit=2", f"--out_dir={tmp_path}"]) == 0
    assert "published rules of HigherHRNet, 2 of 12 images" in capsys.readouterr().out
    card = json.loads((tmp_path / "run_card.json").read_text())
    assert card["model"]["codec"]["name"] == "TagsCodec" and card["model_file"]["name"] == "pose_higher_hrnet.pth"
    assert Predictor(tmp_path / "pose_higher_hrnet.pth", input_size=(64, 64)).codec.truncate


@pytest.mark.parametrize("rules", ["ours", "published"])
def test_a_network_that_sees_people_everywhere_gives_a_table(poles, tmp_path, rules, any_eights):
    (tmp_path / "images").mkdir()
    for i in range(12):
        noise = np.random.default_rng(i).integers(0, 256, (120, 160, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"images/{i}.png"), noise)
    model = replace(dot_model(min_parts=1, link_threshold=0.0), network=FullDots(POLE).eval())
    predictor = published_predictor(model) if rules == "published" else Predictor(model)
    report = evaluate(predictor, poles / "poles.json", tmp_path / "images", limit=3, rules=rules)
    assert 0 <= report.metrics["AP"] < 0.5
    assert max(len(people) for people in report.people.values()) == 20
    assert len(report.results) == sum(map(len, report.people.values()))


def test_the_surest_twenty_are_all_that_cocos_score_looks_at(poles, monkeypatch):
    model = dot_model(min_parts=1, peak_threshold=0.02, link_threshold=0.0)
    few = evaluate(Predictor(model), poles / "poles.json", poles / "images")
    monkeypatch.setattr(module, "PEOPLE_PER_IMAGE", 10_000)
    everybody = evaluate(Predictor(model), poles / "poles.json", poles / "images")
    assert everybody.metrics == few.metrics


def test_the_command_follows_published_rules(poles, tmp_path, capsys, dots_can_be_loaded, any_eights):
    checkpoint = save_model(tmp_path / "dots.safetensors", dot_model())
    run = ["evaluate", str(checkpoint), f"--data_dir={poles}", "--limit=2", f"--out_dir={tmp_path}"]
    assert command([*run, "--rules=published", "--scales=[0.5,1]", "--half_pixel=false"]) == 0
    assert "published rules of Lightweight OpenPose, 2 of 12 images, scales 0.5 1\n" in capsys.readouterr().out
    card = json.loads((tmp_path / "run_card.json").read_text())
    assert card["model_file"]["name"] == "dots.safetensors"
    assert command([*run, "--old_decoder=true"]) == 1
    assert "--rules=published" in capsys.readouterr().err
    assert command([*run, "--num_refinement_stages=1"]) == 1
    assert "DotNet, which has no refinement stages" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["limit", "subset"])
def test_a_number_of_images_counts_them(poles, option):
    with pytest.raises(ValueError, match=f"{option} is -1; it counts images"):
        evaluate(Predictor(dot_model()), poles / "poles.json", poles / "images", **{option: -1})


def test_later_stages_are_left_out_and_public_files_are_read(tmp_path):
    network = LightweightOpenPose(POLE, num_refinement_stages=2, num_channels=16).eval()
    model = Model(network, CODECS["PafCodec"](POLE, stride=8), (64, 64))
    path = save_model(tmp_path / "two.safetensors", model)
    with pytest.warns(UserWarning, match="stage"):
        fewer = module._readable(path, 1)
    assert len(fewer.network.refinement_stages) == 1 and fewer.metadata()["network"]["options"]["num_refinement_stages"] == 1
    with pytest.raises(ValueError, match="has 2 refinement stages, 3 of them cannot be used"):
        module._readable(path, 3)
    images = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(fewer.network(images)["pafs"], load_model(path).network.stages(images)[1]["pafs"])
    assert module._readable(path, None) == path
    with pytest.raises(ValueError, match="before it is exported"):
        module._readable(tmp_path / "two.onnx", 1)
    torch.save({"state_dict": replace(model).network.state_dict()}, tmp_path / "checkpoint_iter_7.pth")
    with pytest.raises(ValueError, match="keypoints"):
        module._readable(tmp_path / "checkpoint_iter_7.pth", None)
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match="ImageNet classifier"):
        module._readable(tmp_path / "net.pth", None)
