from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lib.checkpoints import Model, load_model, save_model
from lib.codecs.parts import PartsCodec
from lib.models.deepercut import DeeperCut
from lib.models.resnet import LAYOUTS, RESNETS
from lib.skeleton import COCO17, MPII14, Skeleton
from tests.models.network_contract import STICK, NetworkContract

SMALL = {"units": (1, 1, 2, 1), "width": 8}
DOT = Skeleton("dot", ("dot",), (), (), (0.05,))


def codec_of(network: DeeperCut) -> PartsCodec:
    k, pairwise = network.skeleton.num_keypoints, network.options["pairwise"]
    return PartsCodec(network.skeleton, radius=6, pairwise=pairwise, pair_stats=[(0, 0, 30, 30)] * (k * (k - 1)))


class TestDeeperCut(NetworkContract):
    def network(self, skeleton):
        return DeeperCut(skeleton, **SMALL, intermediate=1, skip=True, pairwise_width=16)

    def codec(self, network):
        return codec_of(network)


class TestCaffeLayout(NetworkContract):
    overfit_steps = 40

    def network(self, skeleton):
        return DeeperCut(skeleton, **SMALL, layout="caffe")

    def codec(self, network):
        return codec_of(network)


@pytest.mark.parametrize(("skeleton", "counts"), [
    (MPII14, {"heatmaps": 258_062, "offsets": 516_124, "pairwise": 6_709_612, "intermediate": 129_038}),
    (COCO17, {"heatmaps": 313_361, "offsets": 626_722, "pairwise": 10_027_552, "intermediate": 156_689}),
])  # fmt: skip
def test_parameters_of_the_published_heads(skeleton, counts):
    with torch.device("meta"):
        network = DeeperCut(skeleton, RESNETS[50], intermediate=3)
    assert {name: sum(p.numel() for p in getattr(network, name).parameters()) for name in counts} == counts
    assert sum(p.numel() for p in network.parameters()) == 23_508_032 + sum(counts.values())


@pytest.mark.parametrize(("layout", "off"), [("torchvision", 3.5), ("caffe", 9.5)])
def test_how_far_cells_lie_from_what_they_see(layout, off):
    network = DeeperCut(STICK, **SMALL, layout=layout, pairwise=False).eval()
    pool = network.trunk.maxpool
    network.trunk.maxpool = nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
    network.trunk.normalise = nn.Identity()
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    images, pixels = torch.ones(1, 3, 640, 640, requires_grad=True), torch.arange(640.0)
    maps = network(images)["offsets"]
    for cell in (40, 41):
        images.grad = None
        maps[0, 0, cell, cell].backward(retain_graph=True)
        columns = images.grad[0].sum((0, 1))
        seen = (columns @ pixels / columns.sum()).item()
        assert 8 * cell + 3.5 - seen == pytest.approx(off, abs=0.02)


def test_maps_in_training_are_logits():
    network = DeeperCut(STICK, **SMALL, intermediate=2)
    images = torch.rand(1, 3, 32, 48) * 255
    training, maps = network(images), network.eval()(images)
    assert list(training) == ["logits", "offsets", "pairwise", "logits_intermediate"]
    assert list(maps) == list(network.strides) == ["heatmaps", "offsets", "pairwise"]
    # most cells are empty, and so they begin
    assert 0.01 < maps["heatmaps"].mean() < 0.04


def test_losses_are_the_same_in_training_and_not():
    network = DeeperCut(STICK, **SMALL).train()
    keypoints = torch.tensor([[[[20, 20, 2], [40, 30, 2], [30, 50, 2], [60, 50, 0]]]]).float()
    targets = codec_of(network).encode(keypoints, None, (64, 64))
    maps = {name: 3 * torch.randn(1, c, 8, 8) for name, c in (("logits", 4), ("offsets", 8), ("pairwise", 24))}
    training = network.loss({**maps, "logits_intermediate": maps["logits"]}, targets)
    assert list(training) == ["heatmaps", "heatmaps_intermediate", "offsets", "pairwise"]
    assert training["heatmaps"] == training["heatmaps_intermediate"]
    del training["heatmaps_intermediate"]
    logits = maps.pop("logits")
    torch.testing.assert_close(network.loss({"heatmaps": logits.sigmoid(), **maps}, targets), training)


def test_weights_and_kind_of_the_losses():
    targets = {"heatmaps": torch.zeros(1, 4, 1, 1), "mask": torch.ones(1, 1, 1, 1), "offsets": torch.zeros(1, 8, 1, 1),
               "offsets_mask": torch.ones(1, 4, 1, 1)}  # fmt: skip
    maps = {"logits": torch.zeros(1, 4, 1, 1), "offsets": torch.full((1, 8, 1, 1), 3.0)}
    for huber, error in ((True, 2.5), (False, 9.0)):
        network = DeeperCut(STICK, **SMALL, pairwise=False, offset_weight=0.1, huber=huber)
        assert network.loss(maps, targets)["offsets"].item() == pytest.approx(0.1 * error)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_keypoint_has_no_pairs(layout, tmp_path: Path):
    network = DeeperCut(DOT, **SMALL, layout=layout, skip=True, pairwise_width=4)
    maps = network(torch.rand(1, 3, 32, 32))
    assert maps["pairwise"].shape == (1, 0, 4, 4)
    targets = codec_of(network).encode(torch.tensor([[[[9.0, 9, 2]]]]), None, (32, 32))
    assert network.loss(maps, targets)["pairwise"] == 0
    model = Model(network.eval(), codec_of(network), (32, 32))
    assert load_model(save_model(tmp_path / "dot.safetensors", model)).skeleton == DOT


@pytest.mark.parametrize(("options", "message"), [
    ({"units": RESNETS[50], "intermediate": 12}, "third stage, which has 6 .*: 1 to 6, or null for no such head, got 12"),
    ({"intermediate": True}, "got True"),
    ({"pairwise_width": 0}, "pairwise_width is a number of channels"),
    ({"offset_weight": -1}, "offset_weight is the weight of a loss, 0 or more, got -1"),
    ({"pairwise_weight": float("nan")}, "pairwise_weight"),
    ({"units": 50}, "units are four numbers"),
])  # fmt: skip
def test_options_out_of_range(options, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        DeeperCut(STICK, **options)
