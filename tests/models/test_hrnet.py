from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lib.checkpoints import Classifier, load_classifier, load_model, save_classifier
from lib.models.hrnet import HRNet, HRNetClassifier
from lib.models.images import IMAGENET_MEAN, IMAGENET_STD
from tests.models.hrnet_files import MINI

SMALL = {**MINI, "head": 4, "features": 24}


def classifier(classes=5, **options) -> HRNetClassifier:
    torch.manual_seed(0)
    return HRNetClassifier(classes, **SMALL | options)


@pytest.mark.parametrize(("width", "parameters", "multiply_adds"), [(32, 41_232_680, 8.919), (48, 77_469_864, 17.276)])
def test_published_sizes(width: int, parameters: int, multiply_adds: float):
    with torch.device("meta"):
        network, images = HRNetClassifier(1000, width), torch.empty(1, 3, 224, 224)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == 1956
    with FlopCounterMode(display=False) as counter:
        assert network.eval()(images)["logits"].shape == (1, 1000)
    convolutions = counter.get_flop_counts()["Global"][torch.ops.aten.convolution]
    assert convolutions / 2e9 == pytest.approx(multiply_adds, abs=5e-4)


@pytest.mark.parametrize("width", [18, 30, 40, 44, 64])
def test_published_widths(width: int):
    with torch.device("meta"):
        maps = HRNet(width)(torch.empty(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(1, width << i, 16 >> i, 24 >> i) for i in range(4)]


@pytest.mark.parametrize("modules", [[1], [2, 1], (1, 1, 1)])
def test_fewer_stages_have_fewer_branches(modules):
    trunk = HRNet(4, 1, modules, stem=4, bottlenecks=1)
    assert trunk.channels == (4, 8, 16, 32)[: len(modules) + 1]
    assert [m.shape[1] for m in trunk(torch.zeros(2, 3, 32, 32))] == list(trunk.channels)
    network = classifier(modules=modules)
    assert network(torch.zeros(1, 3, 64, 32))["logits"].shape == (1, 5)


def test_finest_resolution_alone_is_the_same():
    torch.manual_seed(0)
    whole, finest = HRNet(8, 1, (1, 1, 2), 8, 1).eval(), HRNet(8, 1, (1, 1, 2), 8, 1, all_scales=False).eval()
    state = whole.state_dict()
    lacking = state.keys() - finest.state_dict().keys()
    assert lacking == {
        key for key in state if key.startswith(("stages.2.1.fuse.1", "stages.2.1.fuse.2", "stages.2.1.fuse.3"))
    }
    finest.load_state_dict({key: value for key, value in state.items() if key not in lacking})
    images = torch.randn(1, 3, 64, 32)
    (alone,) = finest(images)
    assert torch.equal(alone, whole(images)[0])


def test_every_branch_sees_every_other():
    """The gradient of each output reaches the first layer of each branch of the last exchange."""
    torch.manual_seed(0)
    trunk = HRNet(4, 1, (1, 1, 1), 4, 1).train()
    for output in trunk(torch.randn(2, 3, 64, 64)):
        trunk.zero_grad()
        output.square().sum().backward(retain_graph=True)
        for branch in trunk.stages[-1][-1].branches:
            assert branch[0].conv1.weight.grad.abs().max() > 0


def test_normalisation_is_inside():
    seen = []
    network = classifier().eval()
    network.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mean, std = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    for colour in (mean, mean + std):
        network(colour.expand(1, 3, 32, 32))
    assert seen[0].abs().max() < 1e-5
    assert (seen[1] - 1).abs().max() < 1e-5


def test_initial_weights_are_as_published():
    network = HRNetClassifier(1000, 32, blocks=1, modules=[1], bottlenecks=1)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 4 and parameter.numel() > 20_000:
            fan_out = parameter.shape[0] * parameter[0, 0].numel()
            assert parameter.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05), name
    assert network.classify.weight.abs().max() <= 2048**-0.5


def test_learns_colours():
    network = classifier(3).train()
    labels = torch.arange(12) % 3
    images = 40 * torch.rand(12, 3, 32, 32)
    images[torch.arange(12), labels] += 150
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        (loss,) = network.loss(network(images), {"labels": labels}).values()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert losses[0] == pytest.approx(np.log(3), abs=0.8)
    assert losses[-1] < 0.3


def test_round_trip(tmp_path: Path):
    network = classifier(("cat", "dog", "hand"))
    with torch.no_grad():
        for _ in range(2):
            network.train()(255 * torch.rand(2, 3, 32, 32))
    network.eval()
    path = save_classifier(tmp_path / "cls.safetensors", Classifier(network, (64, 32), {"top1": 0.7}))
    before = torch.get_rng_state()
    loaded = load_classifier(path)
    assert torch.equal(before, torch.get_rng_state())
    assert loaded.network.classes == ("cat", "dog", "hand")
    assert (loaded.input_size, loaded.info) == ((64, 32), {"top1": 0.7})
    assert not loaded.network.training
    images = 255 * torch.rand(1, 3, 64, 32)
    assert torch.equal(loaded.network(images)["logits"], network(images)["logits"])
    with pytest.raises(ValueError, match="holds a classifier, which finds no people"):
        load_model(path)


def test_onnx_computes_the_same_logits(tmp_path: Path):
    network, path = classifier().eval(), tmp_path / "cls.onnx"
    images = 255 * torch.rand(2, 3, 64, 32)
    dimension = torch.export.Dim("batch", min=1, max=64)
    torch.onnx.export(network, (images,), path, dynamo=True, input_names=["images"], output_names=["logits"],
                      dynamic_shapes=({0: dimension},), verbose=False)  # fmt: skip
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (images, images[:1]):
        wanted = network(batch)["logits"].detach().numpy()
        np.testing.assert_allclose(
            session.run(None, {"images": batch.numpy()})[0], wanted, atol=1e-4 * np.abs(wanted).max()
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "classes are different names"),
        ({"classes": ("a", "a")}, "classes are different names"),
        ({"classes": "cats"}, "classes are different names"),
        ({"width": 0}, "width is a whole number"),
        ({"modules": []}, "one to three whole numbers"),
        ({"modules": [1, 0]}, "one to three whole numbers"),
        ({"modules": 3}, "one to three whole numbers"),
        ({"head": 1.5}, "head is a whole number"),
        ({"pretrained": True}, "pretrained is False or the path"),
        ({"pretrained": "runs/nowhere.pth"}, "there is no such checkpoint"),
    ],
)
def test_wrong_options_are_one_sentence(options, message):
    error = FileNotFoundError if "nowhere" in str(options) else ValueError
    with pytest.raises(error, match=message):
        HRNetClassifier(**{"classes": 3, **SMALL} | options)


def test_wrong_input_size_is_one_sentence():
    with pytest.raises(ValueError, match="200 × 224 pixels.*the nearest size is 192 × 224"):
        classifier()(torch.zeros(1, 3, 200, 224))
