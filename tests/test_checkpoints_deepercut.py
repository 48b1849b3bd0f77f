"""Dumps of the original DeeperCut's variables: the same maps, on any skeleton, and errors that say what a file is."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from lib.checkpoints import Model, load_deepercut, load_model, load_weights, save_model
from lib.codecs.parts import PartsCodec
from lib.models.deepercut import DeeperCut
from lib.models.resnet import ResNet
from lib.skeleton import COCO17, MPII14, Skeleton
from tests.models.deepercut_files import random_variables, tensorflow_maps, write_dump

UNITS, WIDTH = [1, 2, 3, 2], 4
MINI = {"units": UNITS, "width": WIDTH, "layout": "caffe"}
ARM = Skeleton("arm", ("shoulder", "left_hand", "elbow", "right_hand"), ((0, 2),), ((1, 3),), (0.05,) * 4)
# one keypoint is new, one is gone, and the order is another
CLAW = Skeleton("claw", ("elbow", "tip", "shoulder"), ((0, 2),), (), (0.05,) * 3)


@pytest.fixture(scope="module")
def variables() -> dict[str, np.ndarray]:
    return random_variables(UNITS, WIDTH)


@pytest.fixture(scope="module")
def dump(tmp_path_factory, variables: Mapping) -> Path:
    return write_dump(tmp_path_factory.mktemp("public") / "snapshot-7.npz", variables)


@pytest.mark.parametrize("size", [(16, 16), (48, 80), (64, 32)])
def test_maps_are_those_of_tensorflow(dump, variables, size):
    images = torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(1)).float()
    wanted = tensorflow_maps(variables, images, unit=2)
    network = load_deepercut(dump, ARM, intermediate=2).network
    with torch.inference_mode():
        maps = network(images)
        network.train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        maps |= network(images)
    torch.testing.assert_close(maps["heatmaps"], maps["logits"].sigmoid())
    wanted["logits"] = wanted.pop("heatmaps")
    for name, values in wanted.items():
        assert (maps[name] - values).abs().max() <= 1e-5 * values.abs().max(), name


@pytest.mark.parametrize("parts", [{"pairwise": False}, {"intermediate": False}, {"offsets": False}])
def test_parts_that_a_file_lacks(tmp_path, parts):
    variables = random_variables(UNITS, WIDTH, **parts)
    model = load_deepercut(write_dump(tmp_path / "a.npz", variables), ARM, intermediate=1 if "intermediate" not in parts else None)
    options = model.network.options
    assert options["pairwise"] == parts.get("pairwise", True) == model.codec.pairwise != model.codec.single
    assert (options["intermediate"] is None) == ("intermediate" in parts)
    images = torch.rand(1, 3, 32, 32) * 255
    found, wanted = model.network(images), tensorflow_maps(variables, images, 1)
    if "offsets" in parts:
        assert not found["offsets"].any()
    else:
        torch.testing.assert_close(found["offsets"], wanted["offsets"], rtol=1e-4, atol=1e-4)


def test_an_intermediate_detector_of_an_unknown_unit_is_left_out(dump):
    with pytest.warns(UserWarning, match="the file's intermediate are left out"):
        assert load_deepercut(dump, ARM).network.options["intermediate"] is None
    with pytest.raises(ValueError, match="has 3 .*1 to 3.*got 12"):
        load_deepercut(dump, ARM, intermediate=12)


@pytest.mark.parametrize(("skeleton", "origin", "single", "size"), [(MPII14, 3, True, (560, 560)), (COCO17, 4, False, (640, 640))])
def test_what_goes_with_the_published_files(tmp_path, skeleton, origin, single, size):
    variables = random_variables(UNITS, WIDTH, skeleton.num_keypoints, pairwise=not single, intermediate=False)
    model = load_deepercut(write_dump(tmp_path / "a.npz", variables))
    assert (model.skeleton, model.codec.origin, model.codec.single, model.input_size) == (skeleton, origin, single, size)
    assert model.info["source"] == "a.npz"
    loaded = load_model(save_model(tmp_path / "a.safetensors", model))
    images = torch.rand(1, 3, 32, 32) * 255
    torch.testing.assert_close(loaded.network(images), model.network(images), rtol=0, atol=0)


def test_safetensors_dumps_and_names_with_their_output(tmp_path, dump, variables):
    state = load_deepercut(dump, ARM, intermediate=2).network.state_dict()
    path = tmp_path / "snapshot.safetensors"
    save_file({f"{name}:0": np.ascontiguousarray(values) for name, values in variables.items()}, path)
    torch.testing.assert_close(load_deepercut(path, ARM, intermediate=2).network.state_dict(), state, rtol=0, atol=0)


def test_keypoints_and_pairs_are_carried_over_by_name(dump):
    whole = load_deepercut(dump, ARM, intermediate=2)
    with pytest.warns(UserWarning, match="random weights remain for tip"):
        part = load_deepercut(dump, CLAW, trained_on=ARM, intermediate=2)
    images = torch.rand(1, 3, 32, 48) * 255
    old, new = whole.network(images), part.network(images)
    pairs = {pair: number for number, pair in enumerate(permutations(ARM.keypoints, 2))}
    shared = 0
    for number, (a, b) in enumerate(permutations(CLAW.keypoints, 2)):
        if (a, b) in pairs:
            theirs, mine = (values["pairwise"].unflatten(1, (-1, 2)) for values in (old, new))
            torch.testing.assert_close(mine[:, number], theirs[:, pairs[a, b]])
            shared += 1
    assert shared == 2
    for name in ("elbow", "shoulder"):
        i, k = CLAW.index(name), ARM.index(name)
        torch.testing.assert_close(new["heatmaps"][:, i], old["heatmaps"][:, k])
        torch.testing.assert_close(new["offsets"][:, 2 * i : 2 * i + 2], old["offsets"][:, 2 * k : 2 * k + 2])


def test_our_own_files_carry_over_and_lose_or_gain_stages(tmp_path, dump):
    model = load_deepercut(dump, ARM, intermediate=2)
    path = save_model(tmp_path / "arm.safetensors", model)
    for options, said in (({"pairwise": False}, "the file's intermediate, pairwise are left out"),
                          ({"skip": True, "intermediate": 2}, "random weights remain for skips")):  # fmt: skip
        with pytest.warns(UserWarning, match=said):
            load_weights(DeeperCut(ARM, **MINI, **options), path)
    network = DeeperCut(CLAW, **MINI, intermediate=2)
    with pytest.warns(UserWarning, match="random weights remain for tip"):
        load_weights(network, path)
    torch.testing.assert_close(network.heatmaps.weight[:, CLAW.index("elbow")], model.network.heatmaps.weight[:, ARM.index("elbow")])
    dot = Skeleton("dot", ("elbow",), (), (), (0.05,))
    with pytest.warns(UserWarning, match="the file's intermediate, pairwise are left out"):
        load_weights(DeeperCut(dot, **MINI), path)


def test_one_person_s_network_goes_on_with_several(tmp_path):
    alone = DeeperCut(ARM, **MINI, skip=True, pairwise=False)
    path = save_model(tmp_path / "alone.safetensors", Model(alone, PartsCodec(ARM, pairwise=False, single=True), (64, 64), True))
    several = DeeperCut(ARM, **MINI, skip=True, pairwise_width=6)
    with pytest.warns(UserWarning, match="random weights remain for narrow.0, pairwise, skips.pairwise"):
        load_weights(several, path)
    torch.testing.assert_close(several.skips["heatmaps"].weight, alone.skips["heatmaps"].weight)


def test_layouts_are_never_mixed(tmp_path, dump):
    model = load_deepercut(dump, ARM, intermediate=2)
    path, other = save_model(tmp_path / "arm.safetensors", model), DeeperCut(ARM, UNITS, WIDTH, intermediate=2)
    before = other.heatmaps.weight.clone()
    for file in (path, dump):
        with pytest.raises(ValueError, match="layout='caffe'.*layout='torchvision'.*make them equal"):
            load_weights(other, file)
    with pytest.raises(ValueError, match="weights of the caffe layout, the network has layout='torchvision'"):
        DeeperCut(ARM, UNITS, WIDTH, pretrained=str(dump))
    assert torch.equal(other.heatmaps.weight, before)
    classifier = tmp_path / "resnet50.pth"
    torch.save(torchvision_state(), classifier)
    with pytest.raises(ValueError, match="weights of the torchvision layout, the network has layout='caffe'"):
        DeeperCut(ARM, **MINI, pretrained=str(classifier))
    with pytest.raises(ValueError, match="torchvision's weights, which need layout='torchvision'"):
        DeeperCut(ARM, **MINI, pretrained=True)


def test_trunks_of_classifiers(tmp_path, dump):
    state, path = torchvision_state(), tmp_path / "classifier.pth"
    torch.save({"state_dict": {f"module.{name}": values for name, values in state.items()}}, path)
    network = DeeperCut(ARM, (1, 1, 1, 1), 8, pretrained=str(path))
    assert torch.equal(network.trunk.layer4[0].conv2.weight, state["layer4.0.conv2.weight"])
    assert network.options["pretrained"] is False
    caffe = DeeperCut(ARM, **MINI, pretrained=str(dump))
    wanted = load_deepercut(dump, ARM, intermediate=2).network
    assert torch.equal(caffe.trunk.layer3[2].bn1.running_var, wanted.trunk.layer3[2].bn1.running_var)
    assert not torch.equal(caffe.heatmaps.weight, wanted.heatmaps.weight)
    with pytest.warns(UserWarning, match="a classifier fills the trunk, all behind it keeps its random weights"):
        load_weights(DeeperCut(ARM, (1, 1, 1, 1), 8), path)


@pytest.mark.parametrize(("options", "message"), [
    ({"units": (1, 1, 2, 1), "width": 8}, r"units=\[1, 1, 1, 1\] and width=8, the network has units=\[1, 1, 2, 1\]"),
    ({"units": (1, 1, 1, 1), "width": 4}, "width=8, .* and width=4: make them equal"),
])  # fmt: skip
def test_trunks_of_another_size(tmp_path, options, message):
    torch.save(torchvision_state(), tmp_path / "classifier.pth")
    with pytest.raises(ValueError, match=message):
        DeeperCut(ARM, **options, pretrained=str(tmp_path / "classifier.pth"))
    with pytest.raises(ValueError, match="torchvision has no ResNet with units"):
        DeeperCut(ARM, **options, pretrained=True)


def test_files_that_are_something_else(tmp_path, dump, variables):
    def refused(name: str, content: bytes | Mapping | None, message: str) -> None:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            write_dump(path, content)
        with pytest.raises((ValueError, OSError), match=message) as caught:
            load_deepercut(path, ARM)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    whole = dump.read_bytes()
    few = {name: values for name, values in variables.items() if "/block3/" not in name}
    hole = {name: values for name, values in variables.items() if name != "resnet_v1_101/block2/unit_2/bottleneck_v1/conv2/weights"}
    plain = {name: values for name, values in variables.items() if not name.startswith("pose/")}
    refused("missing.npz", None, "there is no such dump")
    refused("page.npz", b"\n<!DOCTYPE html><html>404</html>", "page.npz is a web page")
    refused("short.npz", whole[: len(whole) // 2], "is not an .npz file, or it is cut short")
    refused("zeros.npz", bytes(4000), "is not an .npz file, or it is cut short|no .npz file of plain arrays")
    refused("empty.npz", b"", "is not an .npz file, or it is cut short")
    refused("short.safetensors", whole[:100], "is not a safetensors file, or it is cut short")
    refused("snapshot.ckpt", b"", "is a TensorFlow checkpoint.*pretrained/README.md")
    refused("snapshot.data-00000-of-00001", b"", "is a TensorFlow checkpoint")
    (tmp_path / "bare-7.index").write_bytes(b"")
    refused("bare-7", None, "is a TensorFlow checkpoint")
    refused("dump.npy", whole, "ends in .npz or .safetensors")
    refused("other.npz", {"w": np.zeros(3)}, "no dump of a slim ResNet's variables .* it holds 'w'")
    refused("nothing.npz", {}, "it holds nothing else")
    refused("few.npz", few, "of the ResNet layer3 is missing")
    refused("hole.npz", hole, r"does not fit this DeeperCut: .*trunk.layer2.1.conv2.weight")
    refused("plain.npz", plain, "a ResNet without part detectors; give it to a DeeperCut as `pretrained`")
    refused("words.npz", {**variables, "resnet_v1_101/conv1/weights": np.array(["a"])}, "conv1/weights holds no numbers but")
    refused("sizes.npz", {**variables, "pose/part_pred/block4/biases": np.zeros(5, np.float32)}, "5 keypoints.*pass trained_on=")
    refused("ours.safetensors", save_model(tmp_path / "ours.safetensors", small_model()).read_bytes(), "checkpoint of this project")


def test_objects_are_not_opened(tmp_path, variables):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    path = tmp_path / "bomb.npz"
    np.savez(path, **variables, bomb=np.array([Bomb()], object))
    with pytest.raises(ValueError, match="Python objects, which are not opened"):
        load_deepercut(path, ARM)
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(ValueError, match="bomb.pth is not a checkpoint that can be opened"):
        DeeperCut(ARM, **SMALL, pretrained=str(tmp_path / "bomb.pth"))
    assert not (tmp_path / "exploded").exists()


def test_loading_does_not_move_the_random_numbers(dump):
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load_deepercut(dump, ARM)
    after = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(3), after)


SMALL = {"units": (1, 1, 1, 1), "width": 8}


def torchvision_state() -> dict[str, torch.Tensor]:
    """Of a small classifier with torchvision's names."""
    return {**ResNet(**SMALL).state_dict(), "fc.weight": torch.zeros(2, 256), "fc.bias": torch.zeros(2)}


def small_model() -> Model:
    return Model(DeeperCut(ARM, **SMALL, pairwise=False), PartsCodec(ARM, pairwise=False), (32, 32))
