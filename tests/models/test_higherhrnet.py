from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lib.codecs.tags import TagsCodec
from lib.models.grouping_loss import grouping_loss
from lib.models.higherhrnet import HigherHRNet
from lib.skeleton import COCO17, Skeleton
from tests.models.network_contract import STICK, NetworkContract

MINI = {"width": 16, "blocks": 1, "modules": [1, 1, 1], "stem": 16, "bottlenecks": 1, "refine_blocks": 1}
TINY = {"width": 4, "blocks": 1, "modules": [1], "stem": 4, "bottlenecks": 1, "refine_blocks": 1}


class TestHigherHRNet(NetworkContract):
    overfit_steps = 60

    def network(self, skeleton: Skeleton) -> HigherHRNet:
        return HigherHRNet(skeleton, **MINI)

    def codec(self, network: HigherHRNet) -> TagsCodec:
        return TagsCodec(network.skeleton, tags_at_half=network.options["tags_at_half"],
                         tag_per_keypoint=network.options["tag_per_keypoint"])  # fmt: skip

    def test_masked_cells_do_not_count(self):
        network = self.network(STICK).eval()
        losses = self.losses(network, *self.batch(network, masked=True))
        # tags are read where people are labelled, and the mask lies where they are not
        assert losses["heatmaps"] == losses["heatmaps_fine"] == 0


class TestOneTagMapAtBothResolutions(TestHigherHRNet):
    def network(self, skeleton: Skeleton) -> HigherHRNet:
        return HigherHRNet(skeleton, tags_at_half=True, tag_per_keypoint=False, **MINI)

    def test_outputs_name_the_last_layers(self):
        network = self.network(STICK)
        assert set(network.outputs) == {"heatmaps", "heatmaps_fine"}
        super().test_outputs_name_the_last_layers()


# multiply-adds of all convolutions; the published numbers count a deconvolution as if it had an input at each output cell
@pytest.mark.parametrize(
    ("width", "side", "parameters", "published"),
    [(32, 512, 28_645_331, 47.86), (32, 640, 28_645_331, 74.79), (48, 640, 63_827_139, 154.31)],
)
def test_published_sizes(width: int, side: int, parameters: int, published: float):
    with torch.device("meta"):
        network, images = HigherHRNet(COCO17, width), torch.empty(1, 3, side, side)
    assert sum(p.numel() for p in network.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        maps = network.eval()(images)
    assert {name: tuple(m.shape) for name, m in maps.items()} == {
        "heatmaps": (1, 17, side // 4, side // 4), "tags": (1, 17, side // 4, side // 4),
        "heatmaps_fine": (1, 17, side // 2, side // 2),
    }  # fmt: skip
    multiply_adds = counter.get_flop_counts()["Global"][torch.ops.aten.convolution] / 2
    deconvolution = network.enlarge[0].weight.numel() * (side // 4) ** 2
    assert (multiply_adds + 3 * deconvolution) / 1e9 == pytest.approx(published, abs=0.005)


@pytest.mark.parametrize("per_keypoint", [True, False])
@pytest.mark.parametrize("at_half", [True, False])
def test_maps_follow_the_tag_options(per_keypoint: bool, at_half: bool):
    network = HigherHRNet(STICK, tags_at_half=at_half, tag_per_keypoint=per_keypoint, **TINY)
    maps = network(torch.zeros(2, 3, 64, 96))
    tags = 4 if per_keypoint else 1
    wanted = {"heatmaps": (2, 4, 16, 24), "tags": (2, tags, 16, 24), "heatmaps_fine": (2, 4, 32, 48)}
    assert {name: tuple(m.shape) for name, m in maps.items()} == wanted | (
        {"tags_fine": (2, tags, 32, 48)} if at_half else {}
    )
    assert network.strides == TagsCodec(STICK, tags_at_half=at_half).strides


def test_fine_maps_see_the_coarse_ones():
    torch.manual_seed(0)
    network = HigherHRNet(STICK, **TINY).eval()
    images = 255 * torch.rand(1, 3, 32, 32)
    before = network(images)
    with torch.no_grad():
        network.tags.bias += 1
    after = network(images)
    assert torch.equal(before["heatmaps"], after["heatmaps"])
    assert not torch.equal(before["heatmaps_fine"], after["heatmaps_fine"])


def test_initial_weights_are_as_published():
    network = HigherHRNet(COCO17, **MINI)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 4:
            assert parameter.abs().max() < 0.006, name
            assert parameter.std().item() == pytest.approx(0.001, rel=0.25), name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, float(".bn" in name or name.endswith(".1.weight")) *
                                                          (not name.endswith("bias")))), name  # fmt: skip


def test_loss_is_the_published_one():
    torch.manual_seed(0)
    network = HigherHRNet(STICK, tags_at_half=True, push=0.5, pull=2.0, **TINY)
    maps = {name: torch.rand(2, 4, side, side) for name, side in (("heatmaps", 8), ("heatmaps_fine", 16), ("tags", 8),
                                                                  ("tags_fine", 16))}  # fmt: skip
    targets = {"heatmaps": torch.rand(2, 4, 8, 8), "heatmaps_fine": torch.rand(2, 4, 16, 16),
               "mask": torch.ones(2, 1, 8, 8), "mask_fine": torch.ones(2, 1, 16, 16),
               "cells": torch.randint(0, 64, (2, 3, 4)), "cells_fine": torch.randint(0, 256, (2, 3, 4))}  # fmt: skip
    targets["mask"][:, :, :4] = 0
    losses = network.loss(maps, targets)
    error = (maps["heatmaps"] - targets["heatmaps"])[:, :, 4:].square().sum() / (2 * 4 * 8 * 8)
    torch.testing.assert_close(losses["heatmaps"], error)
    coarse, fine = (grouping_loss(maps[f"tags{s}"], targets[f"cells{s}"]) for s in ("", "_fine"))
    torch.testing.assert_close(losses["push"], 0.5 * (coarse[0] + fine[0]))
    torch.testing.assert_close(losses["pull"], 2.0 * (coarse[1] + fine[1]))


def test_loss_is_finite_in_half_precision():
    network = HigherHRNet(STICK, **TINY)
    maps = {name: torch.full((1, 4, side, side), 1e-4, dtype=torch.float16) for name, side in
            (("heatmaps", 8), ("heatmaps_fine", 16), ("tags", 8))}  # fmt: skip
    targets = {name: torch.zeros(1, 4, side, side) for name, side in (("heatmaps", 8), ("heatmaps_fine", 16))}
    targets |= {
        "mask": torch.ones(1, 1, 8, 8),
        "mask_fine": torch.ones(1, 1, 16, 16),
        "cells": torch.full((1, 2, 4), -1),
    }
    losses = network.loss(maps, targets)
    assert losses["heatmaps"].item() == pytest.approx(1e-8, rel=0.01)
    assert losses["push"] == losses["pull"] == 0


def test_targets_of_another_codec_are_one_sentence():
    network = HigherHRNet(STICK, **TINY)
    maps = network(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"heatmaps: the network's maps are .1, 4, 8, 8., the targets .1, 4, 4, 4."):
        network.loss(maps, {"heatmaps": torch.zeros(1, 4, 4, 4), "mask": torch.ones(1, 1, 4, 4)})


def test_wrong_options_are_one_sentence():
    for options, message in (({"refine_blocks": 0}, "refine_blocks is a whole number"), ({"kind": "log"}, "kind"),
                             ({"pretrained": True}, "pretrained is False or the path"), ({"push": -1.0}, "push")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            HigherHRNet(STICK, **TINY | options)
