"""Lightweight OpenPose: the published sizes, its stages, its loss and its groups of parameters."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lib.codecs.paf import PafCodec
from lib.models.lightweight_openpose import LightweightOpenPose
from lib.skeleton import COCO17, COCO18_NECK, OPENPOSE18, Skeleton
from tests.models.lightweight_openpose_files import mobilenet_content, original_state
from tests.models.network_contract import STICK, NetworkContract

MINI = {"num_channels": 32, "width": 0.25}
ODD = Skeleton("odd", ("a", "b", "c", "d", "e"), ((4, 0), (0, 1), (3, 1)), ((1, 3),), (0.05,) * 5)
# R → parameters and tensors of the published network
SIZES = {0: (2_483_065, 162), 1: (4_091_698, 250), 2: (5_700_331, 338), 3: (7_308_964, 426)}


class TestLightweightOpenPose(NetworkContract):
    overfit_steps = 60

    def network(self, skeleton: Skeleton) -> LightweightOpenPose:
        return LightweightOpenPose(skeleton, **MINI)

    def codec(self, network: LightweightOpenPose) -> PafCodec:
        return PafCodec(network.skeleton, stride=network.stride, background=True, stdev=0.08)


@pytest.mark.parametrize("skeleton", [OPENPOSE18, COCO18_NECK, COCO17, ODD], ids=["openpose18", "neck", "coco17", "odd"])
@pytest.mark.parametrize("stages", [0, 2])
def test_learns_any_skeleton_in_every_stage(skeleton: Skeleton, stages: int):
    network = LightweightOpenPose(skeleton, stages, **MINI).train()
    contract = TestLightweightOpenPose()
    images, targets = contract.batch(network)
    assert targets["heatmaps"].shape[1] == skeleton.num_keypoints + 1
    losses = network.loss(network(images), targets)
    assert len(losses) == 2 * (stages + 1)
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters() if p.ndim > 1)


@pytest.mark.parametrize("stages", SIZES)
def test_size_of_the_published_networks(stages: int):
    with torch.device("meta"):
        network = LightweightOpenPose(OPENPOSE18, stages)
    assert (sum(p.numel() for p in network.parameters()), len(network.state_dict())) == SIZES[stages]


@pytest.mark.parametrize(("height", "width", "gmac"), [(368, 368, 8.88), (256, 456, 7.66), (256, 256, 4.30)])
def test_multiplications_of_the_published_network(height: int, width: int, gmac: float):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        maps = LightweightOpenPose(OPENPOSE18).eval()(torch.zeros(1, 3, height, width))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=0.005)
    assert maps["heatmaps"].shape == (1, 19, height // 8, width // 8)
    assert maps["pafs"].shape == (1, 38, height // 8, width // 8)


def test_names_and_shapes_of_the_published_tensors():
    for stages in (0, 3):
        with torch.device("meta"):
            network = LightweightOpenPose(OPENPOSE18, stages)
        wanted = {key: value.shape for key, value in original_state(stages).items()}
        assert {key: value.shape for key, value in network.state_dict().items()} == wanted


def test_earlier_stages_are_maps_of_their_own_in_training_only():
    network = LightweightOpenPose(STICK, 2, **MINI).train()
    images = 255 * torch.rand(2, 3, 32, 48)
    assert list(network(images)) == ["heatmaps", "pafs", "heatmaps_0", "pafs_0", "heatmaps_1", "pafs_1"]
    network.eval()
    assert list(network(images)) == ["heatmaps", "pafs"]
    stages = network.stages(images)
    assert len(stages) == 3 and all(list(stage) == ["heatmaps", "pafs"] for stage in stages)
    assert torch.equal(stages[-1]["pafs"], network(images)["pafs"])
    assert list(LightweightOpenPose(STICK, 0, **MINI)(images)) == ["heatmaps", "pafs"]


def test_a_refinement_stage_sees_the_maps_before_it():
    network = LightweightOpenPose(STICK, **MINI)
    (prefix,) = network.inputs
    assert [sum(each for _, each in layout[:1]) for layout in network.inputs.values()] == [32]
    images = 255 * torch.rand(1, 3, 32, 32)
    stages = network.stages(images)
    network.zero_grad()
    stages[1]["heatmaps"].sum().backward()
    assert network.get_submodule(prefix).weight.shape[1] == 32 + 5 + 6
    assert network.get_submodule("initial_stage.pafs.1.0").weight.grad.abs().max() > 0


def test_normalisation_is_inside_the_graph():
    network = LightweightOpenPose(STICK, **MINI).eval()
    seen = []
    network.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.arange(256.0).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    network(images)
    torch.testing.assert_close(seen[0], (images - 128) / 256)


def test_begins_with_empty_maps():
    maps = LightweightOpenPose(STICK, **MINI)(255 * torch.rand(2, 3, 64, 64))
    assert all(values.abs().max() < 0.2 for values in maps.values())


def test_loss_is_half_the_masked_sum_of_squares_per_image():
    network = LightweightOpenPose(STICK, **MINI)
    shapes = {"heatmaps": (3, 5, 8, 8), "pafs": (3, 6, 8, 8)}
    targets = {name: torch.randn(shape) for name, shape in shapes.items()} | {"mask": torch.ones(3, 1, 8, 8)}
    targets["mask"][:, :, :4] = 0
    maps = {f"{name}{stage}": torch.randn(shape) for name, shape in shapes.items() for stage in ("", "_0")}
    losses = network.loss(maps, targets)
    assert losses.keys() == maps.keys()
    for name, value in losses.items():
        error = (maps[name] - targets[name.removesuffix("_0")])[:, :, 4:]
        torch.testing.assert_close(value, error.square().sum() / 6)


def test_loss_says_when_targets_have_no_background():
    network = LightweightOpenPose(STICK, **MINI)
    maps = {"heatmaps": torch.zeros(1, 5, 8, 8), "pafs": torch.zeros(1, 6, 8, 8)}
    targets = {"heatmaps": torch.zeros(1, 4, 8, 8), "pafs": torch.zeros(1, 6, 8, 8), "mask": torch.ones(1, 1, 8, 8)}
    with pytest.raises(ValueError, match=r"maps are \(1, 5, 8, 8\), the targets \(1, 4, 8, 8\).*background=True"):
        network.loss(maps, targets)


def test_parameter_groups_are_the_thirteen_published():
    network = LightweightOpenPose(OPENPOSE18, 2)
    groups = network.parameter_groups()
    found = [(group["lr_factor"], group["decay"], sum(p.numel() for p in group["params"])) for group in groups]
    conv = 864 + sum(a * b for a, b in ((32, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512))) + 5 * 512**2
    depthwise = 9 * (32 + 64 + 128 * 2 + 256 * 2 + 512 * 5 + 0)
    norms = 32 + sum(b + a for a, b in ((32, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512))) + 5 * 1024
    assert [entry[:2] for entry in found] == [
        (1, True), (1, False), (1, False), (2, False),  # trunk: convolutions, depthwise ones, batch norms
        (1, True), (2, False), (1, False), (1, True), (2, False),  # cpm, initial stage
        (4, True), (8, False), (1, False), (2, False),  # refinement
    ]  # fmt: skip
    assert [entry[2] for entry in found[:4]] == [conv, depthwise, norms, norms]
    assert [entry[2] for entry in found[11:]] == [2 * 5 * 2 * 128] * 2
    every = [id(p) for group in groups for p in group["params"]]
    assert len(set(every)) == len(every) == len(list(network.parameters()))
    assert len({group["name"] for group in groups}) == 13
    assert len(LightweightOpenPose(STICK, 0, **MINI).parameter_groups()) == 9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_refinement_stages": -1}, "num_refinement_stages is a whole number from 0 up, got -1"),
        ({"num_refinement_stages": 1.5}, "num_refinement_stages is a whole number"),
        ({"num_channels": 0}, "num_channels is a whole number from 1 up, got 0"),
        ({"num_channels": True}, "num_channels is a whole number from 1 up, got True"),
        ({"width": 0}, "width=0 must be a number above 0"),
        ({"width": "half"}, "width='half' must be a number above 0"),
        ({"pretrained": True}, "pretrained is False, or the path of mobilenet"),
    ],
)
def test_options_that_do_not_fit(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        LightweightOpenPose(COCO17, **options)


def test_skeleton_without_limbs():
    with pytest.raises(ValueError, match="'dot' has no limbs"):
        LightweightOpenPose(Skeleton("dot", ("a",), (), (), (0.05,)))


def test_pretrained_trunk(tmp_path):
    state = original_state(0, seed=3)
    torch.save(mobilenet_content(state), tmp_path / "mobilenet.pth.tar")
    network = LightweightOpenPose(STICK, pretrained=str(tmp_path / "mobilenet.pth.tar"))
    loaded = network.state_dict()
    # RGB as it was trained, not turned to the original's BGR
    for key in ("model.0.0.weight", "model.7.0.weight", "model.11.4.running_var"):
        assert torch.equal(loaded[key], state[key])
    assert loaded["model.3.1.num_batches_tracked"] == 0
    assert network.options["pretrained"] is False


def test_pretrained_trunk_that_does_not_fit(tmp_path):
    state = original_state(0)
    torch.save(mobilenet_content(state), tmp_path / "mobilenet.pth.tar")
    with pytest.raises(ValueError, match=r"mobilenet.pth.tar does not fit the trunk with width=0.5: .* first is 0.0"):
        LightweightOpenPose(STICK, width=0.5, pretrained=str(tmp_path / "mobilenet.pth.tar"))
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="other.pth is not a MobileNet classifier: it is a checkpoint of Lightweight OpenPose"):
        LightweightOpenPose(STICK, pretrained=str(tmp_path / "other.pth"))
    with pytest.raises(FileNotFoundError, match="no.tar"):
        LightweightOpenPose(STICK, pretrained=str(tmp_path / "no.tar"))


def test_dilated_gradients_in_bfloat16_are_those_of_float32():
    # torch's own gradient of dilated depthwise weights is wrong there on maps of this size
    layer, gradients = LightweightOpenPose(OPENPOSE18, 0, 16, 0.25).train().model[7][0], []
    assert layer.dilation == (2, 2) and layer.groups == layer.in_channels
    random = torch.Generator().manual_seed(0)
    features, slopes = (torch.randn(2, layer.in_channels, 46, 46, generator=random) for _ in range(2))
    for enabled in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            made = layer(features.contiguous(memory_format=torch.channels_last))
        made.float().backward(slopes)
        gradients.append(layer.weight.grad.clone())
    exact, rough = gradients
    assert (rough - exact).abs().max() < 0.02 * exact.abs().max()
