"""Export: one file that is enough to predict, and a gate that lets nothing else through."""

import dataclasses
import json
import shutil

import numpy as np
import onnx
import pytest
import torch

from lib.checkpoints import Model, file_sha256, save_model
from lib.codecs.paf import LIGHTWEIGHT_OPENPOSE_TARGETS, PafCodec
from lib.export import export_model, export_onnx, to_onnx
from lib.models import NETWORKS
from lib.models.lightweight_openpose import LightweightOpenPose
from lib.models.trt_pose import TrtPose
from lib.parity import FP16, FP32, INT8, ParityError, Report, Tolerance, check_parity, keypoint_shifts, map_differences
from lib.people import People
from lib.predict import Predictor
from lib.runtime import METADATA_KEY
from lib.skeleton import COCO17, OPENPOSE18
from tests.dots import POLE, DotNet, dot_model, draw_poles, write_poles

IMAGE = draw_poles((110, 150), [(30, 20, 80), (110, 30, 90)])


@pytest.fixture(scope="module", autouse=True)
def dot_net():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "DotNet", DotNet)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, a dataset, and the checkpoint's fp32 and fp16 exports with their reports."""
    folder = tmp_path_factory.mktemp("export")
    save_model(folder / "dots.safetensors", dot_model(peak_threshold=0.3))
    write_poles(folder / "poles")
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return export_onnx(folder / "dots.safetensors", folder / "dots.onnx", data_dir=folder / "poles")


@pytest.fixture(scope="module")
def half_report(folder):
    return export_onnx(folder / "dots.safetensors", folder / "half.onnx", precision="fp16", data_dir=folder / "poles")


def changed(source, target, **codec_options):
    """A copy of an exported file whose metadata has other codec options."""
    proto = onnx.load(source)
    metadata = json.loads(proto.metadata_props[0].value)
    metadata["codec"]["options"].update(codec_options)
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(metadata)})
    onnx.save(proto, target)
    return target


def test_the_report_compares_in_three_units(folder, report):
    assert report.failures == [] and report.images == 12 and report.batch_sizes == (1, 2, 8)
    assert max(report.maps.values()) < 1e-5 and len(report.shifts) >= 24 and report.shifts.max() < 0.01
    assert report.ap[0] > 0.9 and report.ap[0] == report.ap[1]
    assert "12 images" in str(report) and "FAILED" not in str(report) and str(report).count("ok") == 4


def test_the_manifest_says_what_the_file_is(folder, report):
    manifest = json.loads((folder / "dots.onnx.json").read_text())
    assert manifest["sha256"] == file_sha256(folder / "dots.onnx") and manifest["file"] == "dots.onnx"
    assert manifest["bytes"] == (folder / "dots.onnx").stat().st_size
    assert manifest["parity"]["failures"] == [] and manifest["parity"]["batch_sizes"] == [1, 2, 8]
    assert manifest["metadata"]["export"]["source_sha256"] == file_sha256(folder / "dots.safetensors")
    assert torch.__version__.startswith(manifest["versions"]["torch"]) and "onnx" in manifest["versions"]


def test_the_file_is_one_clean_onnx_with_a_free_batch(folder, report):
    proto = onnx.load(folder / "dots.onnx", load_external_data=False)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 20)]
    (images,) = proto.graph.input
    assert images.name == "images" and [d.dim_value for d in images.type.tensor_type.shape.dim] == [0, 3, 96, 128]
    assert [output.name for output in proto.graph.output] == ["heatmaps", "pafs"]
    assert not any(t.external_data for t in proto.graph.initializer)
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert sorted(f.name for f in folder.glob("dots*")) == ["dots.onnx", "dots.onnx.json", "dots.safetensors"]
    assert not list(folder.glob(".*"))


def test_the_file_alone_is_enough_to_predict(folder, report, tmp_path, monkeypatch):
    shutil.copy(folder / "dots.onnx", tmp_path / "moved.onnx")
    torch_people = Predictor(folder / "dots.safetensors")([IMAGE])[0]
    monkeypatch.delitem(NETWORKS, "DotNet")  # nobody needs the network's class any more
    file = Predictor(tmp_path / "moved.onnx", threads=1)
    assert file.provider == "CPUExecutionProvider" and file.skeleton == POLE and file.input_size == (96, 128)
    assert file.codec == PafCodec(POLE, peak_threshold=0.3) and file.keep_aspect_ratio is True
    assert file.metadata["export"]["source_sha256"] == file_sha256(folder / "dots.safetensors")
    assert file.metadata["export"]["precision"] == "fp32" and file.metadata["stride"] == 4
    (people,) = file([IMAGE])
    assert len(people) == 2 and np.allclose(people.keypoints, torch_people.keypoints, atol=1e-3)
    assert np.allclose(
        Predictor(tmp_path / "moved.onnx", flip_test=True)([IMAGE])[0].keypoints, people.keypoints, atol=0.05
    )


def test_half_precision_is_inside_only(folder, report, half_report):
    assert half_report.tolerance == FP16 and 1e-7 < max(half_report.maps.values()) < 1e-2
    assert half_report.share_within >= 0.99
    proto = onnx.load(folder / "half.onnx")
    assert {t.data_type for t in proto.graph.initializer if t.dims} == {onnx.TensorProto.FLOAT16}
    ends = [*proto.graph.input, *proto.graph.output]
    assert {end.type.tensor_type.elem_type for end in ends} == {onnx.TensorProto.FLOAT}
    assert Predictor(folder / "half.onnx").metadata["export"]["precision"] == "fp16"


def test_trt_pose_exports_with_equal_maps_on_pictures_made_for_it(tmp_path):
    torch.manual_seed(0)
    network = TrtPose(COCO17, stages=2, num_upsample=1, upsample_channels=8)
    model = Model(network.train(), PafCodec(COCO17, stride=network.stride), (64, 96))
    report = export_onnx(model, tmp_path / "deep/er/net.onnx", input_size=(64, 64))
    assert max(report.maps.values()) <= FP32.maps and set(report.maps) == {"heatmaps", "pafs"}
    assert network.training and model.input_size == (64, 96)
    assert Predictor(tmp_path / "deep/er/net.onnx").input_size == (64, 64)


def test_lightweight_openpose_exports_its_last_stage_alone(tmp_path):
    torch.manual_seed(0)
    network = LightweightOpenPose(OPENPOSE18, num_refinement_stages=2, num_channels=8, width=0.25)
    model = Model(network.train(), PafCodec(OPENPOSE18, **LIGHTWEIGHT_OPENPOSE_TARGETS), (256, 456))
    report = export_onnx(model, tmp_path / "net.onnx", precision="fp16", limit=3)
    assert set(report.maps) == {"heatmaps", "pafs"} and network.training
    outputs = onnx.load(tmp_path / "net.onnx").graph.output
    shapes = {output.name: [d.dim_value for d in output.type.tensor_type.shape.dim][1:] for output in outputs}
    assert shapes == {"heatmaps": [19, 32, 57], "pafs": [38, 32, 57]}
    file = Predictor(tmp_path / "net.onnx")
    assert file.codec == model.codec and file.input_size == (256, 456)
    assert len(file([IMAGE])) == 1


@pytest.mark.parametrize(
    ("options", "units"), [({"refine": "centroid"}, ["pixels"]), ({"peak_threshold": 0.995}, ["pixels", "AP"])]
)
def test_decoding_otherwise_is_refused_although_the_maps_agree(folder, report, tmp_path, options, units):
    bad = changed(folder / "dots.onnx", tmp_path / "bad.onnx", **options)
    with pytest.raises(ParityError, match="bad.onnx does not find the same people") as caught:
        check_parity(folder / "dots.safetensors", bad, folder / "poles")
    assert caught.value.units == units and caught.value.report.failures == units
    assert "FAILED" in str(caught.value)


def test_other_weights_are_refused_although_the_people_agree(folder, report):
    with pytest.raises(ParityError) as caught:
        check_parity(dot_model(gain=1.001, peak_threshold=0.3), folder / "dots.onnx", folder / "poles")
    assert caught.value.units == ["maps"]


def test_a_refused_file_never_takes_the_place_of_a_good_one(folder, report, tmp_path):
    shutil.copy(folder / "dots.onnx", tmp_path / "out.onnx")
    before = (tmp_path / "out.onnx").read_bytes()
    strict = dataclasses.replace(FP32, maps=1e-12)
    with pytest.raises(ParityError, match="out.onnx"):
        export_onnx(dot_model(gain=0.9), tmp_path / "out.onnx", precision="fp16", data_dir=folder / "poles", tolerance=strict)
    assert (tmp_path / "out.onnx").read_bytes() == before
    assert sorted(f.name for f in tmp_path.iterdir()) == ["out.onnx", "out.onnx.rejected"]
    with pytest.raises(ValueError, match="rejected"):
        Predictor(tmp_path / "out.onnx.rejected")


def test_maps_that_are_not_finite_never_pass():
    maps = {"heatmaps": np.ones((1, 2, 2), np.float32)}
    broken = {"heatmaps": np.array([[[1, np.nan], [1, 1]]], np.float32)}
    for pair in ((maps, broken), (broken, maps), (broken, broken)):
        assert map_differences(*pair) == {"heatmaps": np.inf}
    assert map_differences(maps, {"heatmaps": maps["heatmaps"] * 1.25}) == {"heatmaps": 0.25}
    assert map_differences({"a": np.full(3, -4.0)}, {"a": np.full(3, -3.0)}) == {"a": 0.25}
    with pytest.raises(ValueError, match="another model's file"):
        map_differences(maps, {"heatmaps": np.ones((1, 2, 3))})


def test_keypoint_shifts_pair_people_and_count_the_lonely():
    mine = People(
        [[[10, 10, 0.9], [20, 10, 0.9]], [[50, 50, 0.9], [0, 0, 0]], [[90, 90, 0.2], [95, 90, 0.8]]], [1, 1, 1]
    )
    theirs = People([[[50, 53, 0.9], [60, 50, 0.5]], [[10, 10, 0.9], [24, 13, 0.1]]], [1, 1])
    # a pair at 0 and 5 px, a pair at 3 px whose second keypoint only one side has, and a person that only one side has
    assert sorted(keypoint_shifts(mine, theirs, 0.3)) == [0, 3, 5, np.inf, np.inf]
    assert sorted(keypoint_shifts(theirs, mine, 0.3)) == [0, 3, 5, np.inf, np.inf]
    report = Report("a.onnx", "CPU", 1, 1, (1,), {}, keypoint_shifts(mine, theirs, 0.3), None, "", INT8)
    assert "20.00% of 5 within 0.5 px; median 3.000, 99 % 3.000 px; 2 found by one only" in str(report)
    assert len(keypoint_shifts(People.empty(2), People.empty(2), 0.3)) == 0
    assert sorted(keypoint_shifts(People.empty(2), theirs, 0.4)) == [np.inf] * 3


def test_what_was_not_compared_is_not_called_ok(folder, report, tmp_path):
    blind = dot_model(peak_threshold=1.5)
    seen = check_parity(
        blind, changed(folder / "dots.onnx", tmp_path / "blind.onnx", peak_threshold=1.5), folder / "poles"
    )
    assert len(seen.shifts) == 0 and seen.ap is None and str(seen).count("not measured") == 2


@pytest.mark.parametrize("opset", [17, 24])
def test_opsets_that_the_exporter_cannot_write_are_refused(opset):
    with pytest.raises(ValueError, match=f"opset {opset} is not between 18 and 23"):
        to_onnx(dot_model(), opset=opset)


def test_the_opset_is_what_was_asked_for():
    assert [entry.version for entry in to_onnx(dot_model(), opset=18).opset_import] == [18]


def test_wrong_names_and_sizes_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="ends in .onnx"):
        export_onnx(dot_model(), tmp_path / "dots.pt")
    with pytest.raises(ValueError, match="multiples of 32.*250"):
        export_onnx(dot_model(), tmp_path / "dots.onnx", input_size=(250, 256))
    with pytest.raises(FileNotFoundError):
        export_onnx(tmp_path / "gone.safetensors", tmp_path / "dots.onnx")
    with pytest.raises(ValueError, match="becomes an .onnx, .pt2 or .ts"):
        export_model(folder / "dots.safetensors", tmp_path / "dots.plan")
    assert list(tmp_path.iterdir()) == []


def test_without_images_nothing_can_be_compared(folder, report):
    with pytest.raises(ValueError, match="poles.json: no image to compare on"):
        check_parity(folder / "dots.safetensors", folder / "dots.onnx", folder / "poles", limit=0)


def test_an_exported_file_has_its_size_and_precision_fixed(folder, report):
    for options in ({"input_size": (64, 64)}, {"precision": "bf16"}):
        with pytest.raises(ValueError, match="fixed when this file was exported"):
            Predictor(folder / "dots.onnx", **options)


def test_onnx_files_of_others_are_refused(folder, report, tmp_path):
    proto = onnx.load(folder / "dots.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match="foreign.onnx.*not written by this workbook"):
        Predictor(tmp_path / "foreign.onnx")
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps({"format": "pose-workbook-9"})})
    onnx.save(proto, tmp_path / "newer.onnx")
    with pytest.raises(ValueError, match="newer.onnx.*'pose-workbook-9'"):
        Predictor(tmp_path / "newer.onnx")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_provider_that_is_not_there_is_an_error(folder, report, monkeypatch, capfd):
    # as on a machine with a GPU whose CUDA libraries do not fit: ONNX Runtime would go on with the CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RuntimeError, match="CUDAExecutionProvider.*CPUExecutionProvider"):
        Predictor(folder / "dots.onnx", device="cuda")


def test_tolerances_are_those_of_the_specification():
    assert Tolerance(1e-4, 0.05, 1.0, 0.001) == FP32 and Tolerance(1e-2, 0.5, 0.99, 0.005) == FP16
