"""Numbers of eight bits, torch's own files, top-down models and classifiers, all through the gate."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from lib import ROOT
from lib.checkpoints import Classifier, Model, file_sha256, load_model, save_classifier, save_model
from lib.classify.predictor import PictureClassifier
from lib.codecs.paf import PafCodec
from lib.data.augment import read_image
from lib.export import export_model, export_onnx, export_torch, to_int8, to_onnx
from lib.export.classifier import export_classifier
from lib.export.onnx_file import last_layers, metadata_of
from lib.models import CLASSIFIERS, NETWORKS
from lib.parity import INT8, ParityError, check_parity
from lib.predict import Predictor
from tests.crop_poles import PoleNet, pole_model
from tests.dots import POLE, DotNet, dot_model, write_poles


class DeepDots(DotNet):
    """As DotNet, behind a layer that lets everything pass, so that not every layer is the last."""

    def __init__(self, skeleton, gain: float = 1.0):
        super().__init__(skeleton, gain)
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        with torch.no_grad():
            self.first.weight.fill_(1e-5)  # 1e-5, or eight bits would lose nothing
            self.first.weight[range(3), range(3), 1, 1] = 1 / 255
            self.first.bias.zero_()

    def forward(self, images):
        return super().forward(255 * self.first(images).relu())


class Average(nn.Module):
    """Says which colour a picture has."""

    input_multiple = 8

    def __init__(self, classes, gain: float = 0.05):
        super().__init__()
        self.classes, self.options = tuple(classes), {"gain": gain}
        self.colours = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.colours.weight[:] = gain * torch.eye(3)[:, :, None, None]
            self.colours.bias.zero_()

    def forward(self, images):
        return {"logits": self.colours(images).mean(dim=(2, 3))}


@pytest.fixture(scope="module", autouse=True)
def networks():
    with pytest.MonkeyPatch.context() as patch:
        for network in (DotNet, DeepDots, PoleNet):
            patch.setitem(NETWORKS, network.__name__, network)
        patch.setitem(CLASSIFIERS, "Average", Average)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures, a checkpoint, and it as ONNX in single precision, not compared."""
    folder = tmp_path_factory.mktemp("formats")
    write_poles(folder / "poles")
    model = Model(DeepDots(POLE).eval(), PafCodec(POLE, stride=4, peak_threshold=0.3), (96, 128))
    save_model(folder / "deep.safetensors", model)
    return folder


@pytest.fixture(scope="module")
def single(folder):
    return to_onnx(load_model(folder / "deep.safetensors"))


def inputs(folder, count=4):
    predictor = Predictor(folder / "deep.safetensors")
    return [predictor.fit(folder / f"poles/images/{i}.png").inputs[0] for i in range(count)]


@pytest.mark.parametrize("int8_for", ["cpu", "tensorrt"])
def test_eight_bits_are_inside_and_the_last_layers_stay_as_they_are(folder, single, int8_for):
    proto = to_int8(single, inputs(folder), int8_for)
    layers = {node.name: node for node in proto.graph.node if node.op_type == "Conv"}
    assert len(layers) == 2 and set(last_layers(single.graph)) & set(layers) == {next(reversed(layers))}
    stored = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    first, last = layers.values()
    assert last.input[1] in stored and stored[last.input[1]] == onnx.TensorProto.FLOAT
    dequantised = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    assert stored[dequantised[first.input[1]]] == onnx.TensorProto.INT8
    facts = metadata_of(proto)["export"]
    assert facts["precision"] == "int8" and facts["int8_for"] == int8_for and facts["calibrated_on"] == 4
    assert last.name in facts["kept_float"]
    assert {entry.domain for entry in proto.opset_import} == {""}


def test_what_tensorrt_cannot_read_is_not_in_its_file(folder, single):
    proto = to_int8(single, inputs(folder), "tensorrt")
    for tensor in proto.graph.initializer:
        assert tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT8)
        if tensor.name.endswith("zero_point"):
            assert not onnx.numpy_helper.to_array(tensor).any()
    made_by = {output: node for node in proto.graph.node for output in node.output}
    quantised = [made_by.get(node.input[0]) for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert all(node is None or node.op_type != "Conv" for node in quantised)  # nothing parts a layer from its ReLU


def test_int8_is_judged_by_who_is_found(folder, tmp_path):
    report = export_onnx(folder / "deep.safetensors", tmp_path / "int8.onnx", precision="int8", calibrate=4,
                         data_dir=folder / "poles")  # fmt: skip
    assert report.tolerance == INT8 and report.failures == [] and report.ap[1] > 0.9
    assert max(report.maps.values()) > 1e-4 and "not judged" in str(report)
    manifest = json.loads((tmp_path / "int8.onnx.json").read_text())
    assert manifest["metadata"]["export"]["calibrated_on"] == 4 and manifest["parity"]["tolerance"]["ap"] == 0.02
    people = Predictor(tmp_path / "int8.onnx")([folder / "poles/images/0.png"])[0]
    assert len(people) == len(Predictor(folder / "deep.safetensors")([folder / "poles/images/0.png"])[0])


def test_int8_that_loses_people_is_refused(folder, single, tmp_path):
    blind = to_int8(single, [np.full((96, 128, 3), 20, np.uint8)])  # ranges measured in the dark cut everything bright
    onnx.save(blind, tmp_path / "blind.onnx")
    with pytest.raises(ParityError, match="out of tolerance: AP") as caught:
        check_parity(folder / "deep.safetensors", tmp_path / "blind.onnx", folder / "poles", tolerance=INT8)
    assert caught.value.report.ap[0] - caught.value.report.ap[1] > 0.02
    with pytest.raises(ValueError, match="no picture to calibrate int8 on"):
        to_int8(single, [])
    with pytest.raises(ValueError, match="choose cpu or tensorrt"):
        to_int8(single, inputs(folder), "tpu")


def test_int8_without_a_measured_ap_is_refused(folder, tmp_path):
    model = load_model(folder / "deep.safetensors")
    model.codec = PafCodec(POLE, stride=4, peak_threshold=1.5)
    with pytest.raises(ParityError, match="nobody found in these images") as caught:
        export_onnx(model, tmp_path / "x.onnx", precision="int8", calibrate=2, data_dir=folder / "poles", limit=3)
    assert caught.value.units == ["AP"] and "FAILED" in str(caught.value)
    assert [f.name for f in tmp_path.iterdir()] == ["x.onnx.rejected"]


@pytest.mark.parametrize("suffix", [".pt2", ".ts"])
def test_torchs_own_files_find_the_same_people(folder, tmp_path, suffix, recwarn):
    report = export_torch(folder / "deep.safetensors", tmp_path / f"deep{suffix}", data_dir=folder / "poles")
    assert report.failures == [] and report.batch_sizes == (1, 2, 8) and max(report.maps.values()) < 1e-5
    legacy = [str(warning.message) for warning in recwarn if "TorchScript is deprecated" in str(warning.message)]
    assert len(legacy) == (suffix == ".ts")
    file = Predictor(tmp_path / f"deep{suffix}")
    assert file.provider == ("torch cpu, torch.export" if suffix == ".pt2" else "torch cpu, TorchScript")
    assert file.metadata["export"]["source_sha256"] == file_sha256(folder / "deep.safetensors")
    pictures = [folder / f"poles/images/{i}.png" for i in range(5)]
    for mine, theirs in zip(Predictor(folder / "deep.safetensors")(pictures), file(pictures, batch_size=3)):
        assert np.allclose(mine.keypoints, theirs.keypoints, atol=1e-3)
    with pytest.raises(ValueError, match="fixed when this file was exported"):
        Predictor(tmp_path / f"deep{suffix}", precision="bf16")


def test_files_of_torch_that_are_not_ours_are_refused(tmp_path):
    (tmp_path / "junk.pt2").write_bytes(b"PK junk")
    (tmp_path / "junk.ts").write_bytes(b"PK junk")
    for name in ("junk.pt2", "junk.ts"):
        with pytest.raises(ValueError, match=f"{name}: torch .* cannot open"):
            Predictor(tmp_path / name)
    program = torch.export.export(nn.Conv2d(3, 3, 1), (torch.zeros(2, 3, 8, 8),))
    torch.export.save(program, tmp_path / "foreign.pt2")
    with pytest.raises(ValueError, match="foreign.pt2.*not written by this workbook"):
        Predictor(tmp_path / "foreign.pt2")


def test_a_pt2_with_code_in_it_is_not_opened(tmp_path):
    for name, content in (("x/data/constants/model_constants_config.json", {"config": {"bomb": {"use_pickle": True}}}),
                          ("x/data/aotinductor/model/a.so", {})):  # fmt: skip
        with zipfile.ZipFile(tmp_path / "bomb.pt2", "w") as archive:
            archive.writestr(name, json.dumps(content))
        with pytest.raises(ValueError, match="bomb.pt2 holds code"):
            Predictor(tmp_path / "bomb.pt2")


def test_top_down_models_are_compared_on_crops_of_annotated_people(folder, tmp_path):
    report = export_onnx(pole_model(), tmp_path / "crops.onnx", data_dir=folder / "poles")
    assert report.failures == [] and report.inputs > report.images == 12 and "crops" in str(report)
    assert set(report.batch_sizes) >= {1, 2} and len(report.shifts) >= report.inputs
    with pytest.raises(ValueError, match="needs a detector"):
        Predictor(tmp_path / "crops.onnx")
    other = pole_model(refine="none")
    with pytest.raises(ParityError, match="pixels"):
        check_parity(other, tmp_path / "crops.onnx", folder / "poles")


def test_the_command_writes_every_format_and_refuses_what_there_is_not(folder, tmp_path, capsys):
    data = {"data_dir": folder / "poles", "limit": 3}
    assert export_model(folder / "deep.safetensors", tmp_path / "deep.pt2", **data).exists()
    assert "ok" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="nowhere: no 'val' split found"):
        export_model(folder / "deep.safetensors", tmp_path / "deep.onnx", data_dir=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="written in fp32; int8 is for .onnx"):
        export_model(folder / "deep.safetensors", tmp_path / "deep.ts", precision="int8", **data)
    with pytest.raises(ValueError, match="precision 'int4' is unknown; choose fp32, fp16, int8"):
        export_onnx(folder / "deep.safetensors", tmp_path / "deep.onnx", precision="int4")


def test_the_command_takes_public_files(folder, tmp_path, monkeypatch):
    import lib.export as module

    (tmp_path / "public.pth").write_bytes(b"of others")
    monkeypatch.setattr(module, "public_model", lambda path: load_model(folder / "deep.safetensors"))
    export_model(tmp_path / "public.pth", tmp_path / "public.onnx", data_dir=folder / "poles", limit=2)
    export = json.loads((tmp_path / "public.onnx.json").read_text())["metadata"]["export"]
    assert export["source"] == "public.pth" and export["source_sha256"] == file_sha256(tmp_path / "public.pth")


def test_commands_start_without_what_they_do_not_need():
    """Lightning and torchvision take a second each."""
    code = "import sys, lib.export, lib.benchmark, lib.compare; print({'lightning', 'torchvision', 'timm'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout == "set()\n"


def test_the_command_says_when_nothing_was_proven(folder, tmp_path):
    blind = dot_model(peak_threshold=1.5)
    save_model(tmp_path / "blind.safetensors", blind)
    with pytest.raises(RuntimeError, match="blind.pt2 is written, but not proven: .*nobody was found in these 3 images"):
        export_model(tmp_path / "blind.safetensors", tmp_path / "blind.pt2", data_dir=folder / "poles", limit=3)
    assert (tmp_path / "blind.pt2").exists()


def test_a_classifier_names_the_same_classes(folder, tmp_path, capsys):
    model = Classifier(Average(("a red", "b green", "c blue")).eval(), (64, 64))
    save_classifier(tmp_path / "colours.safetensors", model)
    path = tmp_path / "colours.onnx"
    export_model(tmp_path / "colours.safetensors", path, data_dir=folder / "poles/images", input_size=(32, 64), limit=2)
    assert PictureClassifier(path).input_size == (32, 64)
    capsys.readouterr()
    export_model(tmp_path / "colours.safetensors", path, data_dir=folder / "poles/images")
    assert "12 pictures" in capsys.readouterr().out
    parity = json.loads((tmp_path / "colours.onnx.json").read_text())["parity"]
    assert parity["same_class"] == 1 and parity["probabilities"] < 1e-5 and parity["batch_sizes"] == [1, 2, 8]
    file, picture = PictureClassifier(path), read_image(folder / "poles/images/0.png")
    assert file.classes == model.network.classes and file.input_size == (64, 64)
    assert np.allclose(file(file.fit(picture)[None]), PictureClassifier(model)(file.fit(picture)[None]), atol=1e-5)
    with pytest.raises(ValueError, match="colours.onnx holds a classifier"):
        Predictor(path)
    with pytest.raises(ValueError, match="fp32 or fp16, not int8"):
        export_classifier(model, path, precision="int8")
    with pytest.raises(ValueError, match="becomes an .onnx file"):
        export_classifier(model, tmp_path / "colours.pt2")


def test_a_classifier_that_names_others_is_refused(folder, tmp_path, monkeypatch):
    model = Classifier(Average(("a red", "b green", "c blue")).eval(), (64, 64))
    honest = PictureClassifier.__call__
    monkeypatch.setattr(PictureClassifier, "__call__",
                        lambda self, images: honest(self, images)[:, :: 1 if self.network else -1])  # fmt: skip
    with pytest.raises(ValueError, match="colours.onnx does not name the same classes"):
        export_classifier(model, tmp_path / "colours.onnx", data_dir=folder / "poles/images", limit=3)
    assert [f.name for f in tmp_path.iterdir()] == ["colours.onnx.rejected"]
