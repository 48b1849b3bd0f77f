from __future__ import annotations

import pytest
import torch
import torchvision

from lib.codecs.paf import PafCodec
from lib.models.images import IMAGENET_MEAN
from lib.models.trt_pose import TRUNKS, TrtPose
from lib.skeleton import COCO17, COCO18_NECK, Skeleton
from tests.models.network_contract import STICK, NetworkContract

# parameters of the published networks (18 keypoints, 21 limbs, 3 upsamplings): baseline and attention
PARAMETERS = {
    "resnet18": (19_585_148, 20_765_308), "resnet34": (29_693_308, 30_873_468), "resnet50": (44_499_580, 45_679_740),
    "resnet101": (63_491_708, 64_671_868), "resnet152": (79_135_356, 80_315_516),
    "densenet121": (19_556_796, 20_736_956), "densenet169": (30_330_300, 31_510_460),
    "densenet201": (38_035_900, 39_216_060), "densenet161": (48_774_268, 49_954_428),
    "mnasnet0_5": (15_637_604, 16_817_764), "mnasnet0_75": (16_589_300, 17_769_460),
    "mnasnet1_0": (17_802_404, 18_982_564), "mnasnet1_3": (19_701_348, 20_881_508),
}  # fmt: skip
MINI = {"stages": 3, "num_upsample": 2, "upsample_channels": 32}


class TestTrtPose(NetworkContract):
    def network(self, skeleton: Skeleton) -> TrtPose:
        return TrtPose(skeleton, **MINI)

    def codec(self, network: TrtPose) -> PafCodec:
        return PafCodec(network.skeleton, stride=network.stride, stdev=0.08)


class TestBaselineWithFlatBlocks(TestTrtPose):
    def network(self, skeleton: Skeleton) -> TrtPose:
        return TrtPose(skeleton, attention=False, num_flat=1, **MINI)


@pytest.mark.parametrize("trunk", PARAMETERS)
def test_parameters_of_the_published_networks(trunk: str):
    with torch.device("meta"):
        for attention, wanted in enumerate(PARAMETERS[trunk]):
            network = TrtPose(COCO18_NECK, trunk, bool(attention))
            assert sum(p.numel() for p in network.parameters()) == wanted
        maps = network(torch.zeros(1, 3, 64, 96))
    assert {name: tuple(m.shape) for name, m in maps.items()} == {"heatmaps": (1, 18, 16, 24), "pafs": (1, 42, 16, 24)}


def test_every_trunk_is_listed():
    assert TRUNKS.keys() == PARAMETERS.keys()


@pytest.mark.parametrize(("stages", "num_upsample", "stride"), [(4, 3, 4), (4, 2, 8), (4, 5, 1), (3, 2, 4), (2, 1, 4)])
def test_stride(stages: int, num_upsample: int, stride: int):
    network = TrtPose(STICK, stages=stages, num_upsample=num_upsample, upsample_channels=8).eval()
    assert network.stride == stride
    assert network(torch.zeros(1, 3, 32, 64))["heatmaps"].shape == (1, 4, 32 // stride, 64 // stride)


def test_without_upsampling_only_the_last_convolution_remains():
    network = TrtPose(STICK, attention=False, num_upsample=0)
    assert [name for name, _ in network.heatmaps.named_parameters()] == ["output.weight", "output.bias"]
    assert network.stride == 32


def test_normalisation_is_inside_the_graph():
    network = TrtPose(STICK, **MINI).eval()
    seen = []
    network.trunk.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network(255 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1).expand(1, 3, 32, 32))
    network(torch.full((1, 3, 32, 32), 255.0))
    assert seen[0].abs().max() < 1e-6
    white = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    torch.testing.assert_close(seen[1][0, :, 0, 0], white)
    assert not any("mean" in key.split(".")[0] for key in network.state_dict())


def test_gates_are_sigmoid_and_tanh():
    network = TrtPose(STICK, **MINI)
    assert (network.heatmaps.activation, network.pafs.activation) == (torch.sigmoid, torch.tanh)


def test_densenet_ends_without_relu():
    network = TrtPose(STICK, "densenet121", upsample_channels=8).eval()
    assert network.trunk(torch.randn(1, 3, 64, 64)).min() < 0


def test_upsampling_has_a_bias():
    assert TrtPose(STICK, **MINI).heatmaps.up[0].bias is not None


def test_begins_with_empty_maps():
    maps = TrtPose(STICK, **MINI)(255 * torch.rand(2, 3, 64, 64))
    assert all(values.abs().max() < 0.05 for values in maps.values())


def test_loss_is_the_masked_mean_of_squares():
    network = TrtPose(STICK, **MINI)
    shapes = {"heatmaps": (2, 4, 8, 8), "pafs": (2, 6, 8, 8)}
    maps = {name: torch.randn(shape) for name, shape in shapes.items()}
    targets = {name: torch.randn(shape) for name, shape in shapes.items()} | {"mask": torch.ones(2, 1, 8, 8)}
    targets["mask"][:, :, :4] = 0
    for name, value in network.loss(maps, targets).items():
        wanted = (maps[name] - targets[name])[:, :, 4:].square().sum() / maps[name].numel()
        torch.testing.assert_close(value, wanted)


def test_loss_says_when_targets_have_another_stride():
    network = TrtPose(STICK, **MINI)
    maps = {"heatmaps": torch.zeros(1, 4, 8, 8), "pafs": torch.zeros(1, 6, 8, 8)}
    with pytest.raises(ValueError, match=r"maps are \(1, 4, 8, 8\), the targets \(1, 4, 4, 4\).*stride=4"):
        network.loss(maps, {"heatmaps": torch.zeros(1, 4, 4, 4), "pafs": torch.zeros(1, 6, 4, 4), "mask": torch.ones(1, 1, 4, 4)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trunk": "resnet19"}, "'resnet19' is unknown, did you mean 'resnet18'"),
        ({"trunk": "densenet121", "stages": 3}, "stages=3"),
        ({"num_upsample": 0}, "num_upsample=0 must be 1 to 5"),
        ({"stages": 3, "num_upsample": 5}, "num_upsample=5 must be 1 to 4"),
    ],
)
def test_options_that_do_not_fit(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        TrtPose(COCO17, **options)


def test_skeleton_without_limbs():
    with pytest.raises(ValueError, match="'dot' has no limbs"):
        TrtPose(Skeleton("dot", ("a",), (), (), (0.05,)))


@pytest.mark.parametrize(("trunk", "mark"), [("resnet18", "bn1.bias"), ("densenet121", "features.norm0.bias"),
                                             ("mnasnet0_5", "layers.1.bias")])  # fmt: skip
def test_pretrained_from_a_file(tmp_path, trunk: str, mark: str):
    state = getattr(torchvision.models, trunk)(weights=None).state_dict()
    state[mark] += 7
    torch.save(state, tmp_path / "imagenet.pth")
    network = TrtPose(STICK, trunk, upsample_channels=8, pretrained=str(tmp_path / "imagenet.pth"))
    loaded = network.trunk.state_dict()
    key = mark.removeprefix("features.").removeprefix("layers.")
    assert (loaded[key] == 7).all()
    assert network.options["pretrained"] is False


def test_pretrained_from_an_old_densenet_file(tmp_path):
    state = torchvision.models.densenet121(weights=None).state_dict()
    old = {k.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v for k, v in state.items()}
    torch.save(old, tmp_path / "imagenet.pth")
    network = TrtPose(STICK, "densenet121", upsample_channels=8, pretrained=str(tmp_path / "imagenet.pth"))
    key = "denseblock1.denselayer1.conv2.weight"
    assert torch.equal(network.trunk.state_dict()[key], state[f"features.{key}"])


def test_pretrained_for_another_trunk(tmp_path):
    torch.save(torchvision.models.resnet34(weights=None).state_dict(), tmp_path / "imagenet.pth")
    with pytest.raises(ValueError, match=r"imagenet.pth does not fit the trunk resnet50.*missing"):
        TrtPose(STICK, "resnet50", upsample_channels=8, pretrained=str(tmp_path / "imagenet.pth"))
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list.pth holds no tensors by name: it holds a list"):
        TrtPose(STICK, upsample_channels=8, pretrained=str(tmp_path / "list.pth"))
    with pytest.raises(FileNotFoundError, match=r"gone.pth: there is no such checkpoint"):
        TrtPose(STICK, upsample_channels=8, pretrained=str(tmp_path / "gone.pth"))
