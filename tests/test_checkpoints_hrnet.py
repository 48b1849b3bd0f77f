from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from torch import nn

from lib.checkpoints import (
    Classifier,
    Model,
    load_classifier,
    load_higherhrnet,
    load_hrnet,
    load_model,
    load_weights,
    save_classifier,
    save_model,
)
from lib.codecs.paf import PafCodec
from lib.codecs.tags import TagsCodec
from lib.models.foreign import read_foreign
from lib.models.higherhrnet import HigherHRNet
from lib.models.hrnet import HRNetClassifier
from lib.models.hrnet_public import load_trunk
from lib.models.trt_pose import TrtPose
from lib.skeleton import COCO17, MPII14, Skeleton
from tests.models.hrnet_files import (
    MINI,
    half_behind_a_cast,
    imagenet_of_pose,
    mmpose,
    official,
    thawro,
    thawro_training_state,
    training_state,
)

HEAD = {"head": 4, "features": 24}
ARM = Skeleton("arm", ("right_wrist", "right_elbow", "tool"), (), (), (0.05,) * 3)


def randomised(network: nn.Module) -> nn.Module:
    """Values that half precision keeps as they are, and that no two tensors share."""
    generator = torch.Generator().manual_seed(0)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.randint(1, 2048, value.shape, generator=generator) / 1024)
    return network.eval()


def pose(skeleton: Skeleton = COCO17, **options) -> HigherHRNet:
    return randomised(HigherHRNet(skeleton, **MINI | {"refine_blocks": 2} | options))


def classifier(classes=7) -> HRNetClassifier:
    return randomised(HRNetClassifier(classes, **MINI, **HEAD))


def same(a: nn.Module, b: nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def saved(folder: Path, content, name: str = "file.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


POSE_FILES: dict[str, Callable[[nn.Module], dict]] = {
    "official": official,
    "half precision": lambda network: half_behind_a_cast(official(network)),
    "training state": lambda network: training_state(official(network)),
    "best state alone": lambda network: {"model": "pose", "best_state_dict": official(network)},
    "compiled and distributed": lambda network: {f"module._orig_mod.{k}": v for k, v in official(network).items()},
    "thawro": thawro,
    "thawro training state": lambda network: thawro_training_state(thawro(network)),
    "thawro, wrapped": lambda network: {"module": {"model": {f"module.{k}": v for k, v in thawro(network).items()}}},
    "mmpose": mmpose,
    "without counters": lambda network: {k: v for k, v in official(network).items() if "num_batches" not in k},
}
CLASSIFIER_FILES = {name: POSE_FILES[name] for name in POSE_FILES if name != "mmpose"}


@pytest.mark.parametrize("layout", POSE_FILES)
def test_pose_files(layout: str, tmp_path: Path, capsys):
    network = pose()
    model = load_higherhrnet(saved(tmp_path, POSE_FILES[layout](network), "pose_higher_hrnet_w32_640.pth"))
    assert same(model.network, network) or layout == "without counters"
    assert torch.equal(model.network.tags.weight, network.tags.weight)
    assert (model.skeleton, model.input_size) == (COCO17, (640, 640))
    assert model.codec == TagsCodec(COCO17, truncate=True)
    assert not model.network.training
    said = capsys.readouterr().out
    assert "width 8, 17 keypoints" in said
    assert (
        f"{len([k for k in network.state_dict() if layout != 'without counters' or 'num_b' not in k])} tensors fit"
        in said
    )


@pytest.mark.parametrize("layout", CLASSIFIER_FILES)
def test_classifier_files(layout: str, tmp_path: Path, capsys):
    network = classifier()
    model = load_hrnet(saved(tmp_path, CLASSIFIER_FILES[layout](network)))
    assert same(model.network, network) or layout == "without counters"
    assert torch.equal(model.network.classify.weight, network.classify.weight)
    assert (model.network.classes[-1], model.input_size) == ("6", (224, 224))
    assert "width 8, 7 classes" in capsys.readouterr().out


def test_numbers_of_tensors_in_public_files():
    """What the authors' files hold: any other number would be another network."""
    with torch.device("meta"):
        files = {1956: official(HRNetClassifier(1000)), 1810: official(HigherHRNet(COCO17))}
    for number, state in files.items():
        assert len(state) == number
    assert [sum(key.startswith("stage") for key in state) for state in files.values()] == [1716, 1638]
    assert len(files[1956].keys() & files[1810].keys()) == 1752
    assert files[1810]["final_layers.0.weight"].shape == (34, 32, 1, 1)


@pytest.mark.parametrize("per_keypoint", [True, False])
@pytest.mark.parametrize("at_half", [True, False])
def test_outputs_are_divided_by_their_numbers(per_keypoint: bool, at_half: bool, tmp_path: Path):
    for skeleton in (COCO17, ARM):
        network = pose(skeleton, tag_per_keypoint=per_keypoint, tags_at_half=at_half)
        model = load_higherhrnet(saved(tmp_path, official(network)), skeleton)
        assert same(model.network, network)
        assert model.network.strides == model.codec.strides


def test_names_of_files_tell_the_input_size(tmp_path: Path):
    content = official(pose())
    for name, size in (("pose_higher_hrnet_w32_512.pth", (512, 512)), ("higher_hrnet_32.pt", (512, 512)),
                       ("run_2026.pth", (512, 512)),
                       ("higher_hrnet48_coco_512x640-60fedcbc_20200712.pth", (512, 640))):  # fmt: skip
        assert load_higherhrnet(saved(tmp_path, content, name)).input_size == size
    assert load_higherhrnet(saved(tmp_path, content), input_size=(64, 96)).input_size == (64, 96)


def test_other_skeletons_get_the_keypoints_they_share(tmp_path: Path):
    path, file = saved(tmp_path, official(network := pose())), network.state_dict()
    with pytest.warns(UserWarning, match=r"random weights remain for tool; train"):
        model = load_higherhrnet(path, ARM)
    ours, shared = model.network.state_dict(), [COCO17.index(name) for name in ARM.keypoints[:2]]
    for layer in ("heatmaps", "tags", "heatmaps_fine"):
        assert torch.equal(ours[f"{layer}.weight"][:2], file[f"{layer}.weight"][shared])
        assert ours[f"{layer}.weight"][2].abs().max() < 0.01
    # the deconvolution reads features, heatmaps and tags
    reads, theirs = ours["enlarge.0.weight"], file["enlarge.0.weight"]
    assert torch.equal(reads[:8], theirs[:8])
    assert torch.equal(reads[8:10], theirs[[8 + i for i in shared]])
    assert torch.equal(reads[11:13], theirs[[8 + 17 + i for i in shared]])
    assert reads[[10, 13]].abs().max() < 0.01
    assert torch.equal(ours["refine.1.conv2.weight"], file["refine.1.conv2.weight"])


def test_a_file_of_an_unknown_skeleton_asks_for_it(tmp_path: Path):
    path = saved(tmp_path, official(pose(MPII14)))
    with pytest.raises(ValueError, match="has 14 keypoints, skeleton 'arm' has 3: pass trained_on="):
        load_higherhrnet(path, ARM)
    with pytest.warns(UserWarning, match="tool"):
        load_higherhrnet(path, ARM, trained_on=MPII14)
    assert load_higherhrnet(path, MPII14).skeleton == MPII14


@pytest.mark.parametrize("content", [official, thawro, imagenet_of_pose])
def test_trunk_of_a_classifier_file(content, tmp_path: Path, capsys):
    source = classifier()
    path = saved(tmp_path, content(source))
    network = HigherHRNet(COCO17, **MINI, pretrained=str(path))
    assert network.options["pretrained"] is False
    said = capsys.readouterr().out
    for key, value in network.state_dict().items():
        assert not key.startswith("trunk.") or torch.equal(value, source.state_dict()[key]), key
    trunk = sum(key.startswith("trunk.") for key in network.state_dict())
    assert f"{trunk} tensors fit, the file's" in said
    assert "trunk.stages.2.1.fuse.1" in said
    assert said.rstrip().endswith("random weights remain for enlarge, heatmaps, heatmaps_fine, refine, tags")
    assert same(HRNetClassifier(3, **MINI, **HEAD, pretrained=str(path)).trunk, source.trunk)


def test_no_pretraining_means_none(tmp_path: Path):
    network = HigherHRNet(COCO17, **MINI, pretrained=False)
    assert max(p.abs().max() for p in network.trunk.parameters() if p.ndim == 4) < 0.006


def test_trunk_of_our_own_files(tmp_path: Path, capsys):
    source, poses = classifier(("cat", "dog")), pose()
    file = save_classifier(tmp_path / "classifier.safetensors", Classifier(source, (64, 64)))
    own = save_model(tmp_path / "pose.safetensors", Model(poses, TagsCodec(COCO17), (64, 64)))
    network = HigherHRNet(ARM, **MINI, pretrained=str(file))
    for key, value in network.trunk.state_dict().items():
        assert torch.equal(value, source.trunk.state_dict()[key]), key
    assert "HRNetClassifier of ours" in capsys.readouterr().out
    assert same(HigherHRNet(ARM, **MINI, pretrained=str(own)).trunk, poses.trunk)
    again = HigherHRNet(ARM, **MINI)
    report = load_weights(again, file)
    assert report.fresh_parts == ("enlarge", "heatmaps", "heatmaps_fine", "refine", "tags")
    assert same(again.trunk, network.trunk)


def test_a_trunk_that_does_not_fit_is_refused(tmp_path: Path):
    network = HigherHRNet(COCO17, **MINI)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    wide = HRNetClassifier(3, **MINI | {"width": 12, "blocks": 2}, **HEAD)
    with pytest.raises(
        ValueError, match=r"does not fit the trunk of this HigherHRNet: .* made with width=12, blocks=2; give"
    ):
        load_trunk(network, saved(tmp_path, official(wide)))
    state = official(classifier())
    del state["stage3.0.branches.1.0.conv1.weight"]
    with pytest.raises(ValueError, match=r"1 of \d+ tensors are missing.*trunk.stages.1.0.branches.1.0.conv1.weight"):
        load_trunk(network, saved(tmp_path, state))
    with pytest.raises(ValueError, match="puts only the finest resolution together; start from a classifier"):
        HRNetClassifier(3, **MINI, **HEAD, pretrained=str(saved(tmp_path, official(pose()))))
    own = save_model(tmp_path / "t.safetensors", Model(TrtPose(COCO17, stages=2, num_upsample=1, upsample_channels=8),
                                                       PafCodec(COCO17, stride=4), (64, 64)))  # fmt: skip
    with pytest.raises(ValueError, match="is a TrtPose of ours, which has another trunk"):
        load_trunk(network, own)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_incomplete_pose_files_are_refused(tmp_path: Path):
    state = official(pose())
    for key, message in (("deconv_layers.0.1.0.conv1.weight", "1 are missing .refine.0.conv1.weight"),
                         ("final_layers.1.weight", "another number of output layers"),
                         ("conv1.weight", "lacks trunk.stem.0.0.weight: its trunk is incomplete")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            load_higherhrnet(saved(tmp_path, {k: v for k, v in state.items() if k != key}))
    state["final_layers.1.weight"] = state["final_layers.1.weight"][:5]
    with pytest.raises(ValueError, match="34 and 5 channels are no heatmaps and tags"):
        load_higherhrnet(saved(tmp_path, state))


def test_files_of_the_other_kind_say_where_they_belong(tmp_path: Path):
    with pytest.raises(ValueError, match="holds a pose, not a classifier.*load_higherhrnet"):
        load_hrnet(saved(tmp_path, official(pose())))
    with pytest.raises(ValueError, match="holds a classifier, not a HigherHRNet"):
        load_higherhrnet(saved(tmp_path, official(classifier())))
    with pytest.raises(ValueError, match="holds a trunk, not a classifier; give it to a network as `pretrained`"):
        load_hrnet(saved(tmp_path, imagenet_of_pose(classifier())))
    with pytest.raises(ValueError, match="is not an HRNet checkpoint: its tensors are named 'a'"):
        load_hrnet(saved(tmp_path, {"a": torch.zeros(1)}))
    with pytest.raises(ValueError, match="knows 7 classes, but 2 names"):
        load_hrnet(saved(tmp_path, official(classifier())), ["a", "b"])


def test_load_weights_reads_all_of_them(tmp_path: Path, capsys):
    source = pose(tags_at_half=True)
    for content in (official, thawro, mmpose):
        network = HigherHRNet(COCO17, **MINI, refine_blocks=2, tags_at_half=True)
        load_weights(network, saved(tmp_path, content(source)))
        assert same(network, source)
    path = saved(tmp_path, official(source))
    with pytest.warns(UserWarning, match="the file's tags_fine are left out"):
        load_weights(HigherHRNet(COCO17, **MINI, refine_blocks=2), path)
    with pytest.raises(ValueError, match="the file was made with width=8, the network with width=12; make them equal"):
        load_weights(HigherHRNet(COCO17, **MINI | {"width": 12}, refine_blocks=2, tags_at_half=True), path)
    own = save_model(tmp_path / "own.safetensors", Model(source, TagsCodec(COCO17, tags_at_half=True), (64, 64)))
    with pytest.warns(UserWarning, match="random weights remain for tool"):
        load_weights(network := HigherHRNet(ARM, **MINI, refine_blocks=2, tags_at_half=True), own)
    assert torch.equal(network.tags_fine.bias[:2], source.tags_fine.bias[[COCO17.index(n) for n in ARM.keypoints[:2]]])
    assert "tensors fit" in capsys.readouterr().out


def test_a_classifier_with_other_classes_keeps_its_last_layer(tmp_path: Path):
    source = classifier(("cat", "dog"))
    own = save_classifier(tmp_path / "own.safetensors", Classifier(source, (64, 64)))
    network = HRNetClassifier(("dog", "cat"), **MINI, **HEAD)
    with pytest.warns(UserWarning, match="random weights remain for classify"):
        load_weights(network, own)
    assert same(network.last, source.last)
    assert not torch.equal(network.classify.weight, source.classify.weight)
    load_weights(network := HRNetClassifier(("cat", "dog"), **MINI, **HEAD), own)
    assert same(network, source)
    load_weights(network := HRNetClassifier(("cat", "dog"), **MINI, **HEAD), saved(tmp_path, thawro(source)))
    assert same(network, source)


def test_maps_of_network_and_codec_must_be_the_same():
    network = pose()
    for codec, message in ((TagsCodec(COCO17, tags_at_half=True), "tags_at_half"),
                           (PafCodec(COCO17, stride=4), "use a TagsCodec"),
                           (TagsCodec(COCO17, tag_per_keypoint=False), "tag_per_keypoint is True for the network and False")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Model(network, codec, (64, 64))
    with pytest.raises(ValueError, match="multiples of 32"):
        Classifier(classifier(), (224, 200))


def test_plain_arrays_are_opened_and_objects_are_not(tmp_path: Path):
    arrays = {"array": np.arange(3, dtype=np.uint32), "number": np.float64(2.5), "flags": np.array([True])}
    content = read_foreign(saved(tmp_path, arrays))
    assert content["array"].tolist() == [0, 1, 2]
    assert (content["number"], content["flags"].tolist()) == (2.5, [True])
    for evil in (np.array(["plain"], dtype=object), np.array([PurePosixPath("/")], dtype=object), [PurePosixPath("/")]):
        with pytest.raises(
            ValueError, match=r"it holds Python objects besides tensors \((numpy\.dtypes\.ObjectDType|pathlib)"
        ):
            read_foreign(saved(tmp_path, {"evil": evil}))


def test_a_classifier_is_no_model(tmp_path: Path):
    own = save_model(tmp_path / "pose.safetensors", Model(pose(), TagsCodec(COCO17), (64, 64)))
    with pytest.raises(ValueError, match="holds no classifier but a HigherHRNet; load_model reads pose models"):
        load_classifier(own)
    assert same(load_model(own).network, pose())
