from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from lib.models.resnet import LAYOUTS, RESNETS, ResNet


@pytest.mark.parametrize(("depth", "parameters"), [(50, 23_508_032), (101, 42_500_160), (152, 58_143_808)])
def test_parameters_of_the_published_depths(depth, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in ResNet(RESNETS[depth]).parameters()) == parameters


def test_torchvision_layout_computes_what_torchvision_does():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, False, True]).eval()
    ours = ResNet(RESNETS[50]).eval()
    ours.load_state_dict({name: values for name, values in theirs.state_dict().items() if not name.startswith("fc.")})
    images = torch.randint(0, 256, (1, 3, 48, 64)).float()
    with torch.inference_mode():
        found = ours(images, unit=2)
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(ours.normalise(images)))))
        fine = theirs.layer2(theirs.layer1(x))
        middle = theirs.layer3[1](theirs.layer3[0](fine))
        deep = theirs.layer4(theirs.layer3(fine))
    for mine, wanted in zip(found, (fine, middle, deep)):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_where_it_strides_and_dilates(layout):
    trunk = ResNet((2, 2, 2, 3), 2, layout)
    caffe = layout == "caffe"
    for stage in range(1, 5):
        units = getattr(trunk, f"layer{stage}")
        stride = 2 if stage in (2, 3) else 1
        assert [unit.conv1.stride[0] for unit in units] == [stride if caffe else 1] + [1] * (len(units) - 1)
        assert [unit.conv2.stride[0] for unit in units] == [1 if caffe else stride] + [1] * (len(units) - 1)
        rest = 2 if stage == 4 else 1
        assert [unit.conv2.dilation[0] for unit in units] == [rest if caffe else 1] + [rest] * (len(units) - 1)
        assert [unit.downsample is not None for unit in units] == [True] + [False] * (len(units) - 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_and_channels_of_the_features(layout):
    trunk = ResNet((1, 1, 2, 1), 4, layout).eval()
    features = trunk(torch.rand(2, 3, 32, 80), unit=2)
    assert [tuple(f.shape) for f in features] == [(2, 32, 4, 10), (2, 64, 2, 5), (2, 128, 2, 5)]
    assert trunk.channels == (16, 32, 64, 128)
    assert trunk(torch.rand(1, 3, 16, 16)).middle is None


@pytest.mark.parametrize(("layout", "shift"), [("torchvision", 0), ("caffe", 2)])
def test_where_the_centres_of_the_features_lie(layout, shift):
    trunk = linear(ResNet((1, 2, 1, 2), 2, layout))
    images = torch.ones(1, 3, 640, 640, requires_grad=True)
    trunk(images).deep[0, :, 20, 18].sum().backward()
    weight = images.grad[0].abs().sum(0)
    rows, columns = (weight.sum(dim) for dim in (1, 0))
    pixels = torch.arange(640.0)
    assert (rows @ pixels / rows.sum()).item() == pytest.approx(16 * 20 + shift, abs=0.01)
    assert (columns @ pixels / columns.sum()).item() == pytest.approx(16 * 18 + shift, abs=0.01)


@pytest.mark.parametrize("size", [10, 20, 33, 64])
def test_bfloat16_gradients_of_the_dilated_stage_are_those_of_float32(size):
    torch.manual_seed(0)
    layer, images = nn.Conv2d(32, 32, 3, padding=2, dilation=2), torch.randn(2, 32, size, size)
    gradients = []
    for kind in (torch.float32, torch.bfloat16):
        layer.zero_grad()
        x = images.clone().to(memory_format=torch.channels_last).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            (layer(x).float().sin() * torch.linspace(-1, 1, size)).sum().backward()
        gradients.append((x.grad, layer.weight.grad.clone()))
    for full, half in zip(*gradients):
        assert (full - half).norm() < 0.02 * full.norm()


@pytest.mark.parametrize(("options", "message"), [
    ({"units": (3, 4, 6)}, "units are four numbers of 1 or more"),
    ({"units": (3, 4, 0, 3)}, "units are four numbers of 1 or more"),
    ({"width": 0}, "width is the number of channels of the ResNet's stem"),
    ({"layout": "slim"}, "layout is one of torchvision, caffe, got 'slim'"),
])  # fmt: skip
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**options)


def linear(trunk: ResNet) -> ResNet:
    """All weights alike, averages instead of maxima: the gradient is the shape of what a feature sees."""
    pool = trunk.maxpool
    trunk.maxpool = nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding, pool.ceil_mode)
    trunk.normalise = nn.Identity()
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    return trunk.eval()
