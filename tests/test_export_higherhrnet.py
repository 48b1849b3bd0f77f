"""HigherHRNet leaves the house: maps of two resolutions in one file, which finds the same people."""

from __future__ import annotations

import dataclasses

import onnx
import pytest
import torch

from lib.checkpoints import Model
from lib.codecs.tags import TagsCodec
from lib.data.synthetic import write_dataset
from lib.export import export_onnx
from lib.models.higherhrnet import HigherHRNet
from lib.parity import FP16, FP32
from lib.predict import Predictor
from lib.skeleton import COCO17

MINI = {"width": 8, "blocks": 1, "modules": [1, 1], "stem": 8, "bottlenecks": 1, "refine_blocks": 1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("pictures") / "people", num_train=1, num_val=4, workers=1)


def busy(network: HigherHRNet) -> HigherHRNet:
    """Weights with which maps are not empty, so that there are people to compare."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 4:
                spread = (2 / parameter[0].numel()) ** 0.5
                parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
        network.train()(255 * torch.rand(4, 3, 64, 96, generator=generator))
    return network.eval()


@pytest.mark.parametrize(
    ("options", "half"), [({}, True), ({"tags_at_half": True, "tag_per_keypoint": False}, False)]
)
def test_one_file_finds_the_same_people(options, half: bool, tmp_path, pictures):
    codec = TagsCodec(COCO17, **options, detection_threshold=0.5)
    model = Model(busy(HigherHRNet(COCO17, **MINI, **options)), codec, (64, 96))
    # weights without training give maps full of peaks of equal height, of which rounding makes another choice
    tolerance = dataclasses.replace(FP16, share=0.8) if half else None
    report = export_onnx(model, tmp_path / "net.onnx", precision="fp16" if half else "fp32", data_dir=pictures, limit=4, tolerance=tolerance)
    assert set(report.maps) == set(model.network.strides)
    assert max(report.maps.values()) <= (FP16 if half else FP32).maps
    assert len(report.shifts) > 20
    outputs = onnx.load(tmp_path / "net.onnx").graph.output
    shapes = {output.name: [d.dim_value for d in output.type.tensor_type.shape.dim][2:] for output in outputs}
    assert shapes == {name: [64 // stride, 96 // stride] for name, stride in model.network.strides.items()}
    assert Predictor(tmp_path / "net.onnx").codec == codec
