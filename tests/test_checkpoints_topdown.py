"""Public top-down checkpoints: files of each layout, made from networks of ours, and how they are read."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lib.checkpoints import load_topdown, load_weights
from lib.codecs.heatmap import HeatmapCodec
from lib.models import hrnet_public
from lib.models.topdown import TopDown
from lib.predict.published import check_published, published_predictor, published_rules
from lib.runtime import public_model
from lib.skeleton import COCO17, MPII16

SMALL = {"backbone": "resnet18", "deconv_width": 8}


@pytest.fixture(scope="module")
def network() -> TopDown:
    torch.manual_seed(0)
    return TopDown(COCO17, **SMALL).eval()


def microsoft(network: TopDown) -> dict:
    """As Microsoft's training writes it, under the names of data parallelism."""
    names = (("backbone.", ""), ("deconvs.", "deconv_layers."), ("heatmaps.", "final_layer."))
    state = {}
    for key, value in network.state_dict().items():
        for ours, theirs in names:
            if key.startswith(ours):
                state[theirs + key.removeprefix(ours)] = value
    return state


def mmpose(network: TopDown, head: str = "head.", cfg: str = "") -> dict:
    state = {(head if key.startswith(("deconv_layers", "final_layer")) else "backbone.") + key: value
             for key, value in microsoft(network).items()}  # fmt: skip
    return {"meta": {"epoch": 210, "cfg": cfg}, "state_dict": state}


def write(content: dict, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(("name", "wrap", "size", "bgr"), [
    ("pose_resnet_18_256x192.pth.tar", microsoft, (256, 192), True),
    ("pose_resnet_18_384x288.pth", lambda n: {f"module.{k}": v for k, v in microsoft(n).items()}, (384, 288), True),
    ("td-hm_res18_8xb64-210e_coco-256x192-0123.pth", mmpose, (256, 192), False),
    ("res18_coco_256x256_2020.pth", lambda n: mmpose(n, "keypoint_head."), (256, 256), False),
    ("best.pth", lambda n: {"epoch": 3, "model": "pose_resnet", "state_dict": microsoft(n), "optimizer": {}}, (256, 192), True),
])  # fmt: skip
def test_every_layout_gives_the_same_maps(network, name, wrap, size, bgr, tmp_path):
    model = load_topdown(write(wrap(network), tmp_path / name))
    assert model.input_size == size and model.network.options["bgr"] is bgr
    assert model.network.options["backbone"] == "resnet18" and model.skeleton == COCO17
    assert model.codec == HeatmapCodec(COCO17, sigma=3.0 if size == (384, 288) else 2.0, unbiased=False, cells="first",
                                       refine="quarter")  # fmt: skip
    assert model.info["source"] == name
    images = 255 * torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        wanted = network(images.flip(1) if bgr else images)["heatmaps"]
        torch.testing.assert_close(model.network(images)["heatmaps"], wanted)
    assert type(public_model(tmp_path / name).network) is TopDown


@pytest.mark.parametrize(("name", "cfg", "cells", "refine", "unbiased"), [
    ("td-hm_hrnet-w32_udp-8xb64-210e_coco-256x192-1.pth", "", "ends", "udp", True),
    ("best.pth", "codec = dict(type='UDPHeatmap', sigma=2)", "ends", "udp", True),
    ("td-hm_res50_dark-8xb64-210e_coco-256x192-1.pth", "", "first", "dark", True),
    ("best.pth", "codec = dict(type='MSRAHeatmap', unbiased=True)", "first", "dark", True),
    ("best.pth", "codec = dict(type='MSRAHeatmap')", "first", "quarter", False),
])  # fmt: skip
def test_decoder_is_what_name_or_configuration_say(network, name, cfg, cells, refine, unbiased, tmp_path):
    codec = load_topdown(write(mmpose(network, cfg=cfg), tmp_path / name)).codec
    assert (codec.cells, codec.refine, codec.unbiased) == (cells, refine, unbiased)


def test_hrnet_and_what_its_trunk_is_good_for(tmp_path):
    with torch.device("meta"):
        names = TopDown(COCO17, "hrnet_w18").state_dict()
    state = {key: torch.zeros_like(value, device="cpu") for key, value in names.items()}
    state["backbone.conv1.weight"] += 0.5
    path = write(mmpose(SimpleNamespace(state_dict=lambda: state)), tmp_path / "td-hm_hrnet-w18_8xb64-210e_coco-256x192.pth")
    model = load_topdown(path)
    assert model.network.options["backbone"] == "hrnet_w18" and not len(model.network.deconvs)
    assert not model.network.options["bgr"]
    assert (model.network.backbone.conv1.weight == 0.5).all()
    assert hrnet_public.read_public(path).kind == "trunk"


def test_mpii_has_its_own_joints(tmp_path):
    torch.manual_seed(0)
    path = write(microsoft(TopDown(MPII16, **SMALL)), tmp_path / "pose_resnet_18_256x256.pth.tar")
    assert load_topdown(path).skeleton == MPII16
    with pytest.warns(UserWarning, match="random weights remain for nose"):
        model = load_topdown(path, COCO17)
    assert model.skeleton == COCO17


def test_training_starts_from_a_public_file(network, tmp_path):
    path = write(mmpose(network), tmp_path / "res18_coco_256x192.pth")
    own = TopDown(COCO17, **SMALL, deconvs=3)
    load_weights(own, path)
    assert torch.equal(own.heatmaps.weight, network.heatmaps.weight)
    with pytest.raises(ValueError, match="bgr=True.*bgr=False"):
        load_weights(own, write(microsoft(network), tmp_path / "pose_resnet_18_256x192.pth"))
    with pytest.raises(ValueError, match="made with deconv_width=8, the network with deconv_width=16"):
        load_weights(TopDown(COCO17, "resnet18", deconv_width=16), path)


def test_files_that_do_not_fit_are_named(network, tmp_path):
    state = microsoft(network)
    with pytest.raises(ValueError, match="Caffe"):
        load_topdown(write(state, tmp_path / "256x192_pose_resnet_18_caffe.pth"))
    deep = {**state, "layer4.7.conv1.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"stages of \[2, 2, 2, 8\] blocks"):
        load_topdown(write(deep, tmp_path / "deep.pth"))
    with pytest.raises(ValueError, match="1×1"):
        load_topdown(write({**state, "final_layer.weight": torch.zeros(17, 8, 3, 3)}, tmp_path / "wide.pth"))
    with pytest.raises(ValueError, match="are missing.*layer3"):
        load_topdown(write({k: v for k, v in state.items() if "layer3.1.bn" not in k}, tmp_path / "cut.pth"))
    del state["final_layer.weight"]
    with pytest.raises(ValueError, match="is not a top-down checkpoint"):
        load_topdown(write(state, tmp_path / "none.pth"))
    with pytest.raises(FileNotFoundError):
        load_topdown(tmp_path / "nowhere.pth")


def test_published_rules_read_as_the_file_says(network, tmp_path):
    path = write(mmpose(network), tmp_path / "res18_dark_coco_256x192.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor = published_predictor(path, flip_test=True, detector="whole")
    assert check_published(predictor, "all").of == "SimpleBaseline"
    assert (predictor.codec.refine, predictor.codec.cells) == ("dark", "first")
    with pytest.raises(ValueError, match="one scale, not 0.5 1; leave out scales$"):
        published_predictor(path, scales=(0.5, 1), detector="whole")
    with pytest.raises(ValueError, match="with_people"):
        published_rules(predictor.codec, "with_people")
