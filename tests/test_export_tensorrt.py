"""TensorRT without TensorRT: a stand-in offers exactly what the documentation of 10 and of 11 lists, and nothing that 11 removed.

An attribute that 11 took away (FP16 and INT8 flags, calibrators, EXPLICIT_BATCH, …) does not exist on the stand-ins, so that
touching it fails here as it would there. The stand-in engine computes with ONNX Runtime from and to the addresses it was given.
"""

import ctypes
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from lib.checkpoints import file_sha256
from lib.export import export_model, export_onnx
from lib.export import plan as export_tensorrt
from lib.models import NETWORKS
from lib.parity import ParityError
from lib.predict import Predictor
from lib.runtime import METADATA_KEY
from lib.runtime import plan as runtime_plan
from tests.dots import DotNet, dot_model, draw_poles, write_poles

IMAGES = [draw_poles((96, 128), [(20 + 10 * i, 20, 80)]) for i in range(5)]


class FakeTensorRT(ModuleType):
    """The part of TensorRT that exists in 10 and 11 alike; `calls` records what was asked for."""

    def __init__(self, version: str):
        super().__init__("tensorrt")
        self.__version__, self.calls, self.refuse = version, [], None
        self.Logger = type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None})
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.DataType = SimpleNamespace(FLOAT="float", HALF="half")
        self.TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
        # both know the flag, 11 ignores it
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.Builder = lambda logger: Builder(self)
        self.OnnxParser = lambda network, logger: Parser(self, network)
        self.Runtime = lambda logger: Runtime(self)


class Builder:
    def __init__(self, trt):
        self.trt = trt

    def create_network(self, flags):
        self.trt.calls.append(("create_network", flags))
        return SimpleNamespace()

    def create_builder_config(self):
        return Config(self.trt)

    def create_optimization_profile(self):
        return SimpleNamespace(set_shape=lambda *args: self.trt.calls.append(("set_shape", *args)))

    def build_serialized_network(self, network, config):
        if self.trt.refuse == "build":
            return None
        profile = next(call[2:] for call in self.trt.calls if call[0] == "set_shape")
        content = json.dumps({"onnx": network.file, "profile": profile, "trt": self.trt.__version__})
        return memoryview(content.encode())


class Config:
    def __init__(self, trt):
        self.trt = trt

    def set_memory_pool_limit(self, pool, size):
        self.trt.calls.append(("set_memory_pool_limit", pool, size))

    def add_optimization_profile(self, profile):
        self.trt.calls.append(("add_optimization_profile",))

    def create_timing_cache(self, blob):
        return SimpleNamespace(blob=blob, serialize=lambda: memoryview(b"timings of " + self.trt.__version__.encode()))

    def set_timing_cache(self, cache, ignore_mismatch):
        self.trt.calls.append(("set_timing_cache", cache.blob, ignore_mismatch))
        self.cache = cache
        return cache.blob in (b"", b"timings of " + self.trt.__version__.encode())

    def get_timing_cache(self):
        return self.cache


class Parser:
    num_errors = 1

    def __init__(self, trt, network):
        self.trt, self.network = trt, network

    def parse_from_file(self, path):
        self.network.file = path
        return self.trt.refuse != "parse"

    def get_error(self, index):
        return f"node {index}: no such operator"


class Runtime:
    def __init__(self, trt):
        self.trt = trt

    def deserialize_cuda_engine(self, content):
        plan = json.loads(content)
        return Engine(self.trt, plan) if plan["trt"] == self.trt.__version__ else None


class Engine:
    num_io_tensors = 3

    def __init__(self, trt, plan):
        self.trt, self.plan = trt, plan
        self.session = onnxruntime.InferenceSession(plan["onnx"], providers=["CPUExecutionProvider"])

    def get_tensor_name(self, index):
        return ("images", "heatmaps", "pafs")[index]

    def get_tensor_mode(self, name):
        return "in" if name == "images" else "out"

    def get_tensor_dtype(self, name):
        return "half" if self.trt.refuse == "half" else "float"

    def get_tensor_profile_shape(self, name, profile):
        return self.plan["profile"]

    def create_execution_context(self):
        return Context(self)


class Context:
    def __init__(self, engine):
        self.engine, self.addresses = engine, {}

    def set_input_shape(self, name, shape):
        low, _, high = self.engine.plan["profile"]
        assert all(a <= b <= c for a, b, c in zip(low, shape, high)), f"{shape} is outside the profile"
        self.shape = shape
        self.engine.trt.calls.append(("set_input_shape", name, shape))

    def get_tensor_shape(self, name):
        return (self.shape[0], 2, self.shape[2] // 4, self.shape[3] // 4)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def _memory(self, name, shape):
        numbers = ctypes.c_float * int(np.prod(shape))
        return np.ctypeslib.as_array(numbers.from_address(self.addresses[name])).reshape(shape)

    def execute_async_v3(self, stream):
        assert stream == 77
        if self.engine.trt.refuse == "run":
            return False
        outputs = self.engine.session.run(["heatmaps", "pafs"], {"images": self._memory("images", self.shape)})
        for name, values in zip(("heatmaps", "pafs"), outputs):
            self._memory(name, values.shape)[:] = values
        return True


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """The CPU, looking like a GPU to our own code."""
    stream = SimpleNamespace(cuda_stream=77, wait_stream=lambda other: None, synchronize=lambda: None)
    monkeypatch.setattr(export_tensorrt, "checked_device", lambda device: torch.device("cpu"))
    monkeypatch.setattr(runtime_plan, "checked_device", lambda device: torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Toy GPU (8 GB)")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())


@pytest.fixture(params=["10.16.1.11", "11.4.0.106"])
def trt(request, monkeypatch):
    module = FakeTensorRT(request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tensorrt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(NETWORKS, "DotNet", DotNet)
        export_onnx(dot_model(), folder / "dots.onnx", data_dir=write_poles(folder / "poles", 6))
    return folder


def test_a_plan_is_built_as_documented(trt, folder, tmp_path):
    plan = tmp_path / "dots.plan"
    facts = export_tensorrt.build_tensorrt(folder / "dots.onnx", plan, max_batch=4)
    calls = {call[0]: call[1:] for call in trt.calls}
    assert calls["create_network"] == (2,)
    assert calls["set_memory_pool_limit"] == ("workspace", 2 << 30)
    assert calls["set_shape"] == ("images", (1, 3, 96, 128), (4, 3, 96, 128), (4, 3, 96, 128))
    assert "add_optimization_profile" in calls
    card = json.loads(Path(f"{plan}.json").read_text())
    assert card == json.loads(json.dumps(facts))
    assert card["tensorrt"] == trt.__version__ and card["gpu"] == "Toy GPU (8 GB)"
    assert card["onnx_sha256"] == file_sha256(folder / "dots.onnx") and card["profile"]["max"] == [4, 3, 96, 128]
    assert card["metadata"]["skeleton"]["keypoints"] == ["top", "bottom"]
    cache = f"timing_trt{trt.__version__}_Toy-GPU-8-GB.cache"
    assert sorted(f.name for f in tmp_path.iterdir()) == ["dots.plan", "dots.plan.json", cache]


def test_the_timing_cache_is_used_again_and_a_foreign_one_is_dropped(trt, folder, tmp_path):
    for _ in range(2):
        export_tensorrt.build_tensorrt(folder / "dots.onnx", tmp_path / "dots.plan")
    (cache,) = tmp_path.glob("*.cache")
    cache.write_bytes(b"of another GPU")
    export_tensorrt.build_tensorrt(folder / "dots.onnx", tmp_path / "dots.plan")
    mine = b"timings of " + trt.__version__.encode()
    used = [call[1] for call in trt.calls if call[0] == "set_timing_cache"]
    assert used == [b"", mine, b"of another GPU", b""] and cache.read_bytes() == mine


def test_a_plan_finds_the_same_people_in_any_number_of_images(trt, folder, tmp_path):
    export_tensorrt.build_tensorrt(folder / "dots.onnx", plan := tmp_path / "dots.plan", max_batch=2)
    predictor = Predictor(plan, device="cuda")
    assert predictor.provider == f"TensorRT {trt.__version__}" and predictor.input_size == (96, 128)
    for a, b in zip(predictor(IMAGES, batch_size=5), Predictor(folder / "dots.onnx")(IMAGES)):
        assert len(a) == 1 and np.allclose(a.keypoints, b.keypoints, atol=1e-4)
    assert [call[2][0] for call in trt.calls if call[0] == "set_input_shape"] == [2, 2, 1]


def test_the_command_names_the_plan_and_puts_it_through_the_gate(trt, folder, tmp_path, capsys):
    plan = export_model(folder / "dots.onnx", tmp_path / "plans", data_dir=folder / "poles", max_batch=4)
    assert plan.name == f"dots_Toy-GPU-8-GB_trt{trt.__version__}_fp32_b4.plan" and Path(f"{plan}.json").exists()
    assert "TensorRT" in capsys.readouterr().out
    assert json.loads(Path(f"{plan}.json").read_text())["parity"]["failures"] == []
    assert not list(plan.parent.glob(".*"))
    for options in ({"precision": "fp16"}, {"input_size": (64, 64)}):
        with pytest.raises(ValueError, match="dots.onnx: precision and input_size were fixed"):
            export_model(folder / "dots.onnx", tmp_path / "plans", **options)


def test_a_plan_that_finds_others_is_set_aside(trt, folder, tmp_path, monkeypatch):
    honest = Context.execute_async_v3

    def broken(self, stream):
        honest(self, stream)
        self._memory("heatmaps", (self.shape[0], 2, 24, 32))[:, 0] = 0
        return True

    monkeypatch.setattr(Context, "execute_async_v3", broken)
    with pytest.raises(ParityError, match="dots.plan"):
        export_model(folder / "dots.onnx", tmp_path / "dots.plan", data_dir=folder / "poles")
    assert [f.name for f in tmp_path.iterdir() if f.suffix != ".cache"] == ["dots.plan.rejected"]


def test_what_tensorrt_refuses_is_told(trt, folder, tmp_path):
    for refuse, message in (("parse", "node 0: no such operator"), ("build", "could not build")):
        trt.refuse = refuse
        with pytest.raises(RuntimeError, match=message):
            export_tensorrt.build_tensorrt(folder / "dots.onnx", tmp_path / "dots.plan")
    assert not list(tmp_path.glob("*.plan"))
    trt.refuse = None
    export_tensorrt.build_tensorrt(folder / "dots.onnx", plan := tmp_path / "dots.plan")
    trt.refuse = "half"
    with pytest.raises(ValueError, match="must be fp32, but images, heatmaps, pafs"):
        Predictor(plan, device="cuda")
    trt.refuse = "run"
    with pytest.raises(RuntimeError, match=r"could not run a batch of shape \(5, 3, 96, 128\)"):
        Predictor(plan, device="cuda")(IMAGES)


def test_a_plan_of_another_version_or_without_its_card_is_named(trt, folder, tmp_path):
    export_tensorrt.build_tensorrt(folder / "dots.onnx", plan := tmp_path / "dots.plan")
    built = trt.__version__
    trt.__version__ = "11.9.0"
    with pytest.raises(RuntimeError, match=f"built with TensorRT {built}.*11.9.0.*build it here from dots.onnx"):
        Predictor(plan, device="cuda")
    with pytest.raises(RuntimeError, match="runs on a GPU only"):
        Predictor(plan)
    Path(f"{plan}.json").write_text("")
    with pytest.raises(ValueError, match="dots.plan.json is not what was written beside dots.plan"):
        Predictor(plan, device="cuda")
    Path(f"{plan}.json").unlink()
    with pytest.raises(FileNotFoundError, match="dots.plan.json is missing"):
        Predictor(plan, device="cuda")


def test_without_tensorrt_one_sentence_names_the_way_out(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(RuntimeError, match=r"pip install -e .\[tensorrt\].*ONNX Runtime"):
        export_model(folder / "dots.onnx", tmp_path)
    (tmp_path / "dots.plan").write_bytes(b"")
    with pytest.raises(RuntimeError, match="not usable"):
        Predictor(tmp_path / "dots.plan", device="cuda")
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT("8.6.1"))
    with pytest.raises(RuntimeError, match="8.6.1 is too old"):
        export_tensorrt.import_tensorrt()


def test_foreign_and_missing_onnx_files_are_named(trt, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.onnx"):
        export_tensorrt.build_tensorrt(tmp_path / "gone.onnx", tmp_path / "gone.plan")


def test_int8_of_cpus_is_not_even_tried(trt, folder, tmp_path):
    proto = onnx.load(folder / "dots.onnx")
    metadata = json.loads(proto.metadata_props[0].value)
    metadata["export"] |= {"precision": "int8", "int8_for": "cpu"}
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(metadata)})
    onnx.save(proto, tmp_path / "int8.onnx")
    with pytest.raises(ValueError, match="int8.onnx: its int8 is that of CPUs.*--int8_for tensorrt"):
        export_model(tmp_path / "int8.onnx", tmp_path / "plans", data_dir=folder / "poles")
    metadata["export"]["int8_for"] = "tensorrt"
    onnx.helper.set_model_props(proto, {METADATA_KEY: json.dumps(metadata)})
    onnx.save(proto, tmp_path / "int8.onnx")
    plan = export_model(tmp_path / "int8.onnx", tmp_path / "plans", data_dir=folder / "poles")
    assert "_int8_b8" in plan.name
    # rounding of eight bits is another one there: as for the file itself, AP judges
    assert json.loads(Path(f"{plan}.json").read_text())["parity"]["tolerance"]["maps"] is None
