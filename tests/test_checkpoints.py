from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from lib.checkpoints import Model, file_sha256, load_model, load_trt_pose, load_weights, model_from_metadata, save_model
from lib.codecs.paf import PafCodec
from lib.models.trt_pose import TrtPose
from lib.models.trt_pose_public import options_from_name
from lib.skeleton import COCO17, COCO18_NECK, Skeleton

MINI = {"stages": 3, "num_upsample": 2, "upsample_channels": 8}
ARM = Skeleton("arm", ("right_wrist", "right_elbow", "tool"), ((1, 0), (0, 2)), (), (0.05,) * 3)


def make_model(skeleton: Skeleton = COCO18_NECK, **options) -> Model:
    network = TrtPose(skeleton, **MINI | options)
    return Model(network, PafCodec(skeleton, stride=network.stride), (64, 96), info={"AP": 0.5})


def public_state(network: TrtPose) -> dict[str, torch.Tensor]:
    """The network's tensors under the names of NVIDIA's files, with the classifier those bring along."""
    trunk = next(p for name, p in (("resnet", "0.resnet."), ("densenet", "0.densenet.features."),
                                   ("mnasnet", "0.backbone.layers.")) if network.options["trunk"].startswith(name))  # fmt: skip
    attention, state = network.options["attention"], {}
    for key, value in network.state_dict().items():
        key = re.sub(r"^trunk\.", trunk, key).replace("heatmaps.", "1.cmap_").replace("pafs.", "1.paf_")
        if attention:
            key = key.replace("_gate.", "_att.").replace("_output.", "_conv.")
        elif network.options["num_upsample"]:
            key = key.replace("_up.", "_conv.0.").replace("_output.", "_conv.1.")
        else:
            key = key.replace("_output.", "_conv.")
        state[key] = value
    classifier = {"0.resnet.": "0.resnet.fc.", "0.densenet.features.": "0.densenet.classifier."}
    state[classifier.get(trunk, "0.backbone.classifier.1.") + "weight"] = torch.zeros(1000, 4)
    return state


def randomised(network: TrtPose) -> TrtPose:
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def public_file(tmp_path_factory) -> tuple[Path, TrtPose]:
    network = randomised(TrtPose(COCO18_NECK, upsample_channels=8)).eval()
    path = tmp_path_factory.mktemp("public") / "resnet18_baseline_att_160x128_A.pth"
    torch.save(public_state(network), path)
    return path, network


def test_round_trip(tmp_path: Path):
    model = make_model()
    randomised(model.network)
    path = save_model(tmp_path / "new folder" / "model.safetensors", model)
    loaded = load_model(path)
    assert loaded.metadata() == model.metadata()
    assert loaded.skeleton == COCO18_NECK
    assert loaded.codec == model.codec
    for key, value in model.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], value), key
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_who_may_read_a_checkpoint_is_for_the_umask_to_say(tmp_path: Path):
    before = os.umask(0o027)
    try:
        assert save_model(tmp_path / "model.safetensors", make_model()).stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_metadata_is_json_and_rebuilds():
    model = make_model()
    metadata = json.loads(json.dumps(model.metadata()))
    assert metadata["stride"] == 4
    assert metadata["input_size"] == [64, 96]
    assert model_from_metadata(metadata).metadata() == metadata


def test_loading_does_not_move_the_random_generator(tmp_path: Path):
    path = save_model(tmp_path / "model.safetensors", make_model())
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    load_model(path)
    assert torch.equal(torch.rand(4), wanted)


def test_channels_last_weights_are_saved(tmp_path: Path):
    model = make_model()
    wanted = model.network.trunk.conv1.weight.detach().clone()
    model.network.to(memory_format=torch.channels_last)
    loaded = load_model(save_model(tmp_path / "model.safetensors", model))
    assert torch.equal(loaded.network.trunk.conv1.weight, wanted)


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch):
    path = save_model(tmp_path / "model.safetensors", make_model())
    before = path.read_bytes()
    broken = make_model()
    broken.info = {"not json": object()}
    with pytest.raises(TypeError):
        save_model(path, broken)
    monkeypatch.setattr("lib.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_model(path, make_model())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_name_of_a_checkpoint():
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        save_model("model.pth", make_model())


def test_sha256(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"pose")
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"pose").hexdigest()


def test_missing_file(tmp_path: Path):
    for read in (load_model, load_trt_pose, lambda path: load_weights(make_model().network, path)):
        with pytest.raises(FileNotFoundError, match=r"no\.pth: there is no such checkpoint"):
            read(tmp_path / "no.pth")


def test_load_model_refuses_other_files(tmp_path: Path, public_file):
    text = tmp_path / "text.safetensors"
    text.write_text("hello, this is no checkpoint at all")
    whole = save_model(tmp_path / "whole.safetensors", make_model())
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-100])
    bare = tmp_path / "bare.safetensors"
    save_file({"a": torch.zeros(1)}, bare)
    for path, message in ((text, "not a safetensors checkpoint"), (cut, "cut short"),
                          (public_file[0], "read by load_trt_pose"), (bare, "not written by this project")):  # fmt: skip
        with pytest.raises(ValueError, match=rf"{path.name}.*{message}"):
            load_model(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pose-workbook-9"}, "format is 'pose-workbook-9', this version reads 'pose-workbook-1'"),
        ({"network": {"name": "Other", "options": {}}}, "network 'Other' is unknown, there are TrtPose"),
        ({"network": {"name": "TrtPose", "options": {"colour": 3}}}, "unexpected keyword argument 'colour'"),
        ({"input_size": [64, 100]}, "multiples of 32"),
    ],
)
def test_header_of_another_version(tmp_path: Path, change: dict, message: str):
    model = make_model()
    path = tmp_path / "model.safetensors"
    header = json.dumps(model.metadata() | change)
    save_file(model.network.state_dict(), path, metadata={"pose_workbook": header})
    with pytest.raises(ValueError, match=f"model.safetensors: its header describes no model of .*{message}"):
        load_model(path)


def test_checkpoint_with_other_keypoints_than_the_data(tmp_path: Path):
    path = save_model(tmp_path / "model.safetensors", make_model())
    with pytest.raises(ValueError, match=r"model.safetensors has 18 keypoints, your data 17 .*'person'\); .*neck"):
        load_model(path, skeleton=COCO17)
    assert load_model(path, skeleton=COCO18_NECK).skeleton == COCO18_NECK


def test_weights_that_are_not_numbers(tmp_path: Path):
    model = make_model()
    with torch.no_grad():
        next(model.network.parameters()).view(-1)[3] = float("nan")
    path = save_model(tmp_path / "model.safetensors", model)
    with pytest.raises(ValueError, match=r"model.safetensors: 1 of its tensors hold NaN or infinity, the first is .*weight"):
        load_model(path)


def test_model_that_does_not_belong_together():
    network = TrtPose(COCO18_NECK, **MINI)
    with pytest.raises(ValueError, match=r"multiples of 32, got \(100, 64\)"):
        Model(network, PafCodec(COCO18_NECK, stride=4), (100, 64))
    with pytest.raises(ValueError, match="stride 4, the codec's 8"):
        Model(network, PafCodec(COCO18_NECK, stride=8), (64, 64))
    with pytest.raises(ValueError, match="the network has 18 keypoints, the codec 17"):
        Model(network, PafCodec(COCO17, stride=4), (64, 64))


def test_weights_of_another_trunk(tmp_path: Path, public_file):
    path = save_model(tmp_path / "model.safetensors", make_model(trunk="resnet34"))
    network = TrtPose(COCO18_NECK, **MINI)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"made with trunk='resnet34', the network with trunk='resnet18'; make them equal.*"
                                         r"126 tensors fit, \d+ are not wanted"):  # fmt: skip
        load_weights(network, path)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with pytest.raises(ValueError, match=r"file was made with upsample_channels=8, num_upsample=3, the network"):
        load_weights(TrtPose(COCO18_NECK, **MINI | {"upsample_channels": 16}), public_file[0])
    with pytest.raises(ValueError, match="has the trunk resnet18, not resnet50"):
        load_trt_pose(public_file[0], trunk="resnet50")


def test_weights_for_another_skeleton(tmp_path: Path):
    model = make_model()
    randomised(model.network)
    network = TrtPose(ARM, **MINI)
    random = network.state_dict()["heatmaps.output.weight"][2].clone()
    with pytest.warns(UserWarning, match="random weights remain for tool, right_wrist–tool; train before"):
        report = load_weights(network, save_model(tmp_path / "model.safetensors", model))
    assert (report.fresh_keypoints, report.fresh_limbs) == (("tool",), ("right_wrist–tool",))
    old, new = model.network.state_dict(), network.state_dict()
    wrist, limb = COCO18_NECK.index("right_wrist"), COCO18_NECK.limbs.index((8, 10))
    for part in ("weight", "bias"):
        assert torch.equal(new[f"heatmaps.output.{part}"][0], old[f"heatmaps.output.{part}"][wrist])
        assert torch.equal(new[f"pafs.output.{part}"][:2], old[f"pafs.output.{part}"][2 * limb : 2 * limb + 2])
    assert torch.equal(new["heatmaps.output.weight"][2], random)
    assert torch.equal(new["trunk.conv1.weight"], old["trunk.conv1.weight"])


def test_limb_that_points_the_other_way_is_negated(tmp_path: Path):
    turned = dataclasses.replace(COCO17, limbs=tuple((b, a) for a, b in COCO17.limbs))
    model, network = make_model(COCO17), TrtPose(turned, **MINI)
    randomised(model.network)
    load_weights(network, save_model(tmp_path / "model.safetensors", model))
    images = 255 * torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        old, new = model.network.eval()(images), network.eval()(images)
    assert torch.equal(new["pafs"], -old["pafs"])
    assert torch.equal(new["heatmaps"], old["heatmaps"])


def test_public_file(public_file):
    path, network = public_file
    model = load_trt_pose(path)
    assert model.network.options == network.options
    assert (model.input_size, model.keep_aspect_ratio, model.info["source"]) == ((160, 128), False, path.name)
    images = 255 * torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        wanted, got = network(images), model.network(images)
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)


@pytest.mark.parametrize(
    "options",
    [
        {"trunk": "resnet50", "attention": False, "num_flat": 1},
        {"trunk": "densenet121", "num_upsample": 2},
        {"trunk": "mnasnet0_5", "num_flat": 2},
        {"attention": False, "num_upsample": 0},
    ],
)
def test_options_are_found_in_the_tensors(tmp_path: Path, options: dict):
    network = TrtPose(COCO18_NECK, **{"upsample_channels": 8} | options)
    torch.save(public_state(network), tmp_path / "epoch_249.pth")
    loaded = load_trt_pose(tmp_path / "epoch_249.pth").network
    assert {k: loaded.options[k] for k in options} == options
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in network.state_dict().items())


def test_public_file_for_another_skeleton(public_file):
    with pytest.warns(UserWarning, match="random weights remain for tool, right_wrist–tool"):
        model = load_trt_pose(public_file[0], ARM)
    assert model.skeleton == ARM
    wanted = public_file[1].state_dict()["heatmaps.output.bias"][COCO18_NECK.index("right_elbow")]
    assert model.network.state_dict()["heatmaps.output.bias"][1] == wanted


def test_file_trained_with_the_public_code_on_own_keypoints(tmp_path: Path):
    network = TrtPose(ARM, upsample_channels=8)
    torch.save(public_state(network), tmp_path / "own.pth")
    assert load_trt_pose(tmp_path / "own.pth", ARM).skeleton == ARM
    with pytest.raises(ValueError, match=r"has 3 keypoints and 2 limbs, skeleton 'person' has 17 and 19: pass"):
        load_trt_pose(tmp_path / "own.pth", COCO17)
    with pytest.warns(UserWarning, match="nose"):
        model = load_trt_pose(tmp_path / "own.pth", COCO17, trained_on=ARM)
    wrist = COCO17.index("right_wrist")
    weights = (n.state_dict()["heatmaps.output.weight"] for n in (model.network, network))
    assert torch.equal(next(weights)[wrist], next(weights)[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"engine": torch.zeros(4, dtype=torch.uint8)}, "TensorRT engine made by torch2trt.*take the .pth"),
        ({"state_dict": {"a": torch.zeros(1)}, "epoch": 3}, "weights under 'state_dict'; take best.safetensors"),
        ({"backbone.base.weight": torch.zeros(1)}, "DLA trunk"),
        ({"layer.weight": torch.zeros(1)}, "its tensors are named 'layer.weight'"),
        ([1, 2], "it holds a list"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content, message: str):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ValueError, match=f"file.pth is not a trt_pose state dict: .*{message}"):
        load_trt_pose(tmp_path / "file.pth")


def test_imagenet_file_is_named(tmp_path: Path):
    with torch.device("meta"):
        keys = torchvision.models.resnet18().state_dict()
    torch.save({key: torch.zeros(1) for key in keys}, tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=r"resnet18.pth.*ImageNet classifier.*pretrained="):
        load_trt_pose(tmp_path / "resnet18.pth")


def test_files_that_cannot_be_opened(tmp_path: Path, public_file):
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "cut.pth").write_bytes(public_file[0].read_bytes()[:5000])
    for name in ("text.pth", "empty.pth", "cut.pth"):
        with pytest.raises(ValueError, match=f"{name} is not a checkpoint that can be opened"):
            load_trt_pose(tmp_path / name)


class Dangerous:
    """Runs code where a file is unpickled carelessly."""

    def __reduce__(self):
        return (Path.touch, (Path(self.target),))


class Shell:
    def __reduce__(self):
        return (os.system, ("exit",))


def test_a_checkpoint_that_would_call_the_shell_says_so(tmp_path: Path):
    torch.save({"state_dict": Shell()}, tmp_path / "shell.pth")
    with pytest.raises(ValueError, match=r"shell.pth.*Python objects besides tensors \(\w+\.system\).*foreign code"):
        load_trt_pose(tmp_path / "shell.pth")


def test_a_checkpoint_never_runs_code(tmp_path: Path):
    Dangerous.target = str(tmp_path / "was_here")
    torch.save({"0.resnet.conv1.weight": Dangerous()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil.pth.*could run foreign code"):
        load_trt_pose(tmp_path / "evil.pth")
    assert not (tmp_path / "was_here").exists()


def test_incomplete_public_file(tmp_path: Path, public_file):
    state = torch.load(public_file[0], weights_only=True)
    for missing, message in (("0.resnet.bn1.weight", "fit none of.*the nearest is resnet18"),
                             ("1.paf_att.bias", r"1 are missing \(pafs.gate.bias\)")):  # fmt: skip
        torch.save({k: v for k, v in state.items() if k != missing}, tmp_path / "part.pth")
        with pytest.raises(ValueError, match=message):
            load_trt_pose(tmp_path / "part.pth")


def test_names_of_the_public_builders():
    assert options_from_name("resnet18_baseline_att") == {"trunk": "resnet18", "attention": True}
    assert options_from_name("mnasnet0_75_baseline") == {"trunk": "mnasnet0_75", "attention": False}
    with pytest.raises(ValueError, match="did you mean 'densenet121_baseline_att'"):
        options_from_name("densnet121_baseline_att")
    with pytest.raises(ValueError, match="the public repository lacks"):
        options_from_name("dla34up_pose")
