"""The network on backbones of every family, its losses, and the weights it starts from."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import save_file

from lib.checkpoints import load_weights, save_model
from lib.checkpoints.model import Model
from lib.codecs.heatmap import HeatmapCodec
from lib.models.images import IMAGENET_MEAN
from lib.models.topdown import TopDown
from lib.models.topdown_backbone import find_level
from lib.skeleton import COCO17
from tests.models.network_contract import STICK, NetworkContract

SMALL = {"backbone": "test_resnet", "deconv_width": 16}
NARROW_SWIN = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
FAMILIES = {
    "resnet": {"backbone": "test_resnet"},
    "resnet, stride 8": {"backbone": "test_resnet", "deconvs": 1},
    "mobilenet": {"backbone": "mobilenetv4_conv_small_035", "deconvs": 2},
    "efficientnet": {"backbone": "test_efficientnet"},
    "convnext": {"backbone": "test_convnext"},
    "hrnet": {"backbone": "hrnet_w18_small"},
    "swin, channels last": {"backbone": "swin_tiny_patch4_window7_224", "deconvs": 1, "img_size": (64, 96),
                            "backbone_options": NARROW_SWIN},
    "vit": {"backbone": "test_vit", "img_size": (64, 96)},
}  # fmt: skip


def awake(network: TopDown) -> TopDown:
    """timm's residual branches begin with a factor 0, which nothing passes: no gradient either, in the first step."""
    for parameter in network.backbone.parameters():
        if parameter.ndim == 1 and not parameter.any():
            torch.nn.init.normal_(parameter, 1, 0.1)
    return network


class TestContract(NetworkContract):
    overfit_steps = 70

    def network(self, skeleton):
        return awake(TopDown(skeleton, "test_resnet", deconvs=1, deconv_width=48))

    def codec(self, network):
        return HeatmapCodec(network.skeleton)

    def batch(self, network, num_images=4, num_people=1, size=None, masked=False):
        return super().batch(network, num_images, num_people, size, masked)


@pytest.mark.parametrize("options", FAMILIES.values(), ids=FAMILIES)
def test_every_family_gives_maps_at_a_quarter_and_learns_with_all_it_has(options):
    network = awake(TopDown(STICK, deconv_width=8, **options)).train()
    images, targets = TestContract().batch(network)
    maps = network(images)
    assert {name: m.shape for name, m in maps.items()} == {"heatmaps": (4, 4, 16, 24)}
    network.loss(maps, targets)["heatmaps"].backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or (p.ndim > 1 and not p.grad.any())]
    assert not idle
    assert 64 % network.input_multiple == 0 and network.options["pretrained"] is False
    again = TopDown(STICK, **network.options)
    again.load_state_dict(network.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(images), network.eval()(images))


def test_maps_keep_their_place_in_the_picture():
    """A channels-last map read as channels-first would have the right shape, and be rubbish."""
    for options in (FAMILIES["swin, channels last"], FAMILIES["convnext"], FAMILIES["vit"]):
        torch.manual_seed(0)
        network = TopDown(STICK, deconv_width=8, **options).eval()
        network.deconvs = torch.nn.Identity()
        network.heatmaps = torch.nn.Identity()
        images = torch.full((1, 3, 64, 96), 128.0)
        with torch.inference_mode():
            before = network(images)["heatmaps"]
            images[:, :, :32, :32] += 100 * torch.randn(3, 32, 32)
            change = (network(images)["heatmaps"] - before).abs().sum(dim=1)[0]
        y, x = divmod(int(change.argmax()), change.shape[1])
        assert y < change.shape[0] / 2 and x < change.shape[1] / 2, options


def test_transformers_end_in_their_norm():
    network = TopDown(STICK, **FAMILIES["vit"], deconv_width=8)
    assert not isinstance(network.backbone.model.norm, torch.nn.Identity)


def test_deconvs_choose_the_map():
    widths = {deconvs: TopDown(STICK, "test_resnet", deconvs, 8).deconvs for deconvs in (1, 2, 3)}
    assert [len(layers) // 3 for layers in widths.values()] == [1, 2, 3]
    none = TopDown(STICK, "test_resnet", 0, 8)
    assert not len(none.deconvs) and none.input_multiple == 4 and none(torch.zeros(1, 3, 12, 20))["heatmaps"].shape == (1, 4, 3, 5)


@pytest.mark.parametrize(("options", "message"), [
    ({"backbone": "rsnet50"}, "'rsnet50', did you mean 'resnet50'"),
    ({"backbone": "test_resnet", "deconvs": 5}, "strides 2, 4, 8, 16, 32: deconvs is 0, 1, 2, 3, got 5"),
    ({"backbone": "hrnet_w18_small", "deconvs": 2}, "deconvs is 0, got 2"),
    ({"backbone": "test_vit"}, "test_vit has learnt positions.*img_size"),
    ({"backbone": "test_resnet", "img_size": (64, 64)}, "test_resnet cannot be a backbone with .*img_size"),
    ({"backbone": "vit_small_patch14_dinov2", "img_size": (56, 56)}, "strides 14: deconvs is none"),
    ({**SMALL, "ohkm": 5}, "4 keypoints, got 5"),
    ({**SMALL, "joint_weights": {"elbow": 1.2}}, "'elbow'.*head, hip, left_foot"),
    ({**SMALL, "joint_weights": {"foot": -1}}, "'foot'.*-1"),
])  # fmt: skip
def test_wrong_options_are_one_clear_error(options, message):
    with pytest.raises(ValueError, match=message):
        TopDown(STICK, **options)


def test_other_size_than_a_transformer_was_built_for():
    with pytest.raises(ValueError, match=r"96 × 64 pixels.*built for 64 × 96 only"):
        TopDown(STICK, **FAMILIES["vit"])(torch.zeros(1, 3, 96, 64))


def test_loss_counts_labelled_keypoints_by_their_weights():
    network = TopDown(STICK, **SMALL, joint_weights={"foot": 1.5, "head": 2})
    assert network.joint_weights.tolist() == [2, 1, 1.5, 1.5]
    answers, zeros = torch.rand(2, 4, 16, 24), torch.zeros(2, 4, 16, 24)
    targets = {"heatmaps": zeros, "weights": torch.tensor([[1, 1, 0, 1.0], [1, 0, 1, 1]]), "mask": torch.ones(2, 1, 16, 24)}
    squares = answers.square().mean(dim=(2, 3)) * targets["weights"] * network.joint_weights
    torch.testing.assert_close(network.loss({"heatmaps": answers}, targets)["heatmaps"], squares.mean())
    targets["mask"][1] = 0
    torch.testing.assert_close(network.loss({"heatmaps": answers}, targets)["heatmaps"], squares[0].sum() / 8)
    with pytest.raises(ValueError, match="stride=4"):
        network.loss({"heatmaps": answers[:, :, :8]}, targets)


def test_hard_keypoints_alone_count():
    network = TopDown(STICK, **SMALL, ohkm=2)
    answers = torch.stack([torch.full((8, 8), value) for value in (0.1, 0.4, 0.2, 0.3)])[None].requires_grad_()
    targets = {"heatmaps": torch.zeros(1, 4, 8, 8), "weights": torch.ones(1, 4), "mask": torch.ones(1, 1, 8, 8)}
    loss = network.loss({"heatmaps": answers}, targets)["heatmaps"]
    assert loss.item() == pytest.approx((0.16 + 0.09) / 2)
    loss.backward()
    assert answers.grad.abs().sum(dim=(0, 2, 3)).gt(0).tolist() == [False, True, False, True]


def test_colours_are_normalised_as_the_weights_want_it():
    torch.manual_seed(0)
    network = TopDown(STICK, **SMALL).eval()
    turned = TopDown(STICK, **SMALL, bgr=True).eval()
    turned.load_state_dict(network.state_dict())
    images = 255 * torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(turned(images), network(images.flip(1)))
    assert network.options["mean"] == [0.5, 0.5, 0.5] == (network.normalise.mean.flatten() / 255).tolist()
    assert find_level("resnet50", None, {}).config["mean"] == IMAGENET_MEAN


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_backbone_starts_from_a_file_of_timm(suffix, tmp_path, capsys):
    torch.manual_seed(1)
    state = timm.create_model("test_resnet").state_dict()
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    network = TopDown(STICK, **SMALL, pretrained=str(path))
    loaded = network.backbone.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.items()) and len(loaded) > 20
    assert "apache-2.0" in capsys.readouterr().out
    assert network.info == {"backbone_weights": str(path), "licence": "apache-2.0"} and network.options["pretrained"] is False


def test_backbone_is_not_started_from_something_else(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(timm.create_model("test_convnext").state_dict(), path)
    with pytest.raises(ValueError, match="lacks .*is it a file of timm's test_resnet"):
        TopDown(STICK, **SMALL, pretrained=str(path))
    with pytest.raises(FileNotFoundError, match="no file .*nowhere"):
        TopDown(STICK, **SMALL, pretrained=str(tmp_path / "nowhere.pth"))


def test_download_that_fails_says_what_to_do(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr("timm.models._builder.load_pretrained", fail)
    with pytest.raises(OSError, match="no route|pretrained a file"):
        TopDown(STICK, **SMALL, pretrained=True)


def test_another_skeleton_takes_over_the_keypoints_it_shares(tmp_path):
    torch.manual_seed(0)
    network = TopDown(COCO17, **SMALL)
    path = save_model(tmp_path / "model.safetensors", Model(network, HeatmapCodec(COCO17), (64, 64)))
    arms = COCO17.from_coco({"name": "person", "keypoints": ["left_wrist", "right_wrist", "tail"], "skeleton": [],
                             "sigmas": [0.05] * 3})  # fmt: skip
    other = TopDown(arms, **SMALL)
    with pytest.warns(UserWarning, match="random weights remain for tail"):
        load_weights(other, path)
    wrists = [COCO17.index("left_wrist"), COCO17.index("right_wrist")]
    assert torch.equal(other.heatmaps.weight[:2], network.heatmaps.weight[wrists])
    with pytest.raises(ValueError, match="bgr=False, the network with bgr=True|bgr=False.*bgr=True"):
        load_weights(TopDown(arms, **SMALL, bgr=True), path)
