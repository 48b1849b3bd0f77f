"""Public checkpoints of Lightweight OpenPose: the same maps, on any skeleton, and errors that say what a file is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib.checkpoints import Model, load_lightweight_openpose, load_model, load_trt_pose, load_weights, save_model
from lib.codecs.paf import COARSE, PafCodec
from lib.models.lightweight_openpose import LightweightOpenPose
from lib.models.trt_pose import TrtPose
from lib.skeleton import COCO18_NECK, OPENPOSE18, Skeleton
from tests.models.lightweight_openpose_files import (
    mobilenet_content,
    original_maps,
    original_state,
    save_legacy,
    training_state,
)  # fmt: skip

MINI = {"num_channels": 16, "width": 0.25}
ARM = Skeleton("arm", ("right_wrist", "right_elbow", "tool"), ((1, 0), (0, 2)), (), (0.05,) * 3)
IMAGES = torch.randint(0, 256, (1, 3, 64, 96), generator=torch.Generator().manual_seed(1)).float()


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return original_state(stages=3)


@pytest.fixture(scope="module")
def public_file(tmp_path_factory, state: Mapping) -> Path:
    """With three refinement stages, saved on a GPU in the old format, as the published one is."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("public")
        return save_legacy(training_state(state), folder / "checkpoint_iter_370000.pth", patch)


@pytest.fixture(scope="module")
def wanted(state: Mapping) -> list[tuple[Tensor, Tensor]]:
    """Every stage's maps as the original computes them."""
    with torch.inference_mode():
        return original_maps(state, (IMAGES.flip(1) - 128) / 256, stages=3)


def swapped(fields: Tensor) -> Tensor:
    return fields.unflatten(1, (-1, 2)).flip(2).flatten(1, 2)


def assert_close(got: Tensor, want: Tensor) -> None:
    assert (got - want).abs().max() <= 1e-5 * max(1, want.abs().max())


def test_all_stages_of_a_public_file(public_file: Path, wanted: list):
    model = load_lightweight_openpose(public_file, num_refinement_stages=None)
    assert model.network.options["num_refinement_stages"] == 3 and not model.network.training
    assert (model.skeleton, model.input_size, model.keep_aspect_ratio) == (OPENPOSE18, (256, 456), True)
    assert model.info["source"] == "checkpoint_iter_370000.pth"
    with torch.inference_mode():
        stages = model.network.stages(IMAGES)
    assert len(stages) == 4
    for stage, (heatmaps, fields) in zip(stages, wanted):
        assert heatmaps.abs().max() > 0.1 < fields.abs().max()
        assert_close(stage["heatmaps"], heatmaps)
        assert_close(stage["pafs"], swapped(fields))


@pytest.mark.parametrize("stages", [0, 1, 2])
def test_first_stages_of_a_public_file(public_file: Path, wanted: list, stages: int):
    with pytest.warns(UserWarning, match=rf"file's {'.*'.join(f'refinement_stages.{r}' for r in range(stages, 3))} are left"):
        model = load_lightweight_openpose(public_file, num_refinement_stages=stages)
    with torch.inference_mode():
        maps = model.network(IMAGES)
    assert_close(maps["heatmaps"], wanted[stages][0])
    assert_close(maps["pafs"], swapped(wanted[stages][1]))


@pytest.mark.parametrize("form", ["zip", "module", "bare"])
def test_other_forms_of_the_file(tmp_path: Path, state: Mapping, wanted: list, form: str):
    contents = {"zip": training_state(state), "module": {"state_dict": {f"module.{k}": v for k, v in state.items()}},
                "bare": state}  # fmt: skip
    torch.save(contents[form], tmp_path / "file.pth")
    model = load_lightweight_openpose(tmp_path / "file.pth", num_refinement_stages=3)
    with torch.inference_mode():
        assert_close(model.network(IMAGES)["pafs"], swapped(wanted[3][1]))


def test_the_codec_reads_fields_where_the_original_draws_them(public_file: Path):
    with pytest.warns(UserWarning):
        codec = load_lightweight_openpose(public_file).codec
    assert (codec.stride, codec.paf_offset, codec.background, codec.peak_window) == (8, 0.4375, True, COARSE["peak_window"])


def test_more_stages_than_the_file_has(tmp_path: Path):
    torch.save(training_state(original_state(1)), tmp_path / "one.pth")
    with pytest.raises(ValueError, match="one.pth has 1 refinement stages, not 3; ask for at most 1"):
        load_lightweight_openpose(tmp_path / "one.pth", num_refinement_stages=3)
    network = LightweightOpenPose(OPENPOSE18, 3)
    fresh = network.state_dict()["refinement_stages.1.trunk.0.initial.0.weight"].clone()
    with pytest.warns(UserWarning, match=r"random weights remain for refinement_stages.1, refinement_stages.2; train before"):
        report = load_weights(network, tmp_path / "one.pth")
    assert (len(report.loaded), report.missing, report.unused, report.mismatched) == (250, (), (), ())
    assert report.fresh_parts == ("refinement_stages.1", "refinement_stages.2")
    assert torch.equal(network.state_dict()["refinement_stages.1.trunk.0.initial.0.weight"], fresh)


def test_stages_of_our_own_checkpoint(tmp_path: Path):
    networks = {stages: LightweightOpenPose(OPENPOSE18, stages, **MINI) for stages in (1, 3)}
    for stages, network in networks.items():
        model = Model(network, PafCodec(OPENPOSE18, stride=8), (64, 96))
        save_model(tmp_path / f"{stages}.safetensors", model)
    target = LightweightOpenPose(OPENPOSE18, 3, **MINI)
    with pytest.warns(UserWarning, match=r"remain for refinement_stages\.1, refinement_stages\.2"):
        load_weights(target, tmp_path / "1.safetensors")
    assert torch.equal(target.refinement_stages[0].trunk[0].initial[0].weight,
                       networks[1].refinement_stages[0].trunk[0].initial[0].weight)  # fmt: skip
    target = LightweightOpenPose(OPENPOSE18, 1, **MINI)
    with pytest.warns(UserWarning, match=r"file's refinement_stages\.1, refinement_stages\.2 are left out$"):
        assert load_weights(target, tmp_path / "3.safetensors").dropped_parts
    assert load_model(tmp_path / "3.safetensors").network.options["num_refinement_stages"] == 3


def test_a_stage_that_is_incomplete_is_an_error(tmp_path: Path):
    state = original_state(1)
    del state["refinement_stages.0.trunk.2.trunk.1.1.running_var"]
    torch.save(training_state(state), tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"part.pth does not fit .*1 are missing \(refinement_stages.0.trunk.2.trunk.1.1.run"):
        load_lightweight_openpose(tmp_path / "part.pth")


def test_essential_tensors_that_are_missing(tmp_path: Path):
    state = {key: value for key, value in original_state(1).items() if not key.startswith("initial_stage.pafs")}
    torch.save(training_state(state), tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"part.pth lacks initial_stage.pafs.1.0.bias: it is not a complete"):
        load_lightweight_openpose(tmp_path / "part.pth")


def test_an_own_skeleton_gets_its_channels_by_name(public_file: Path, state: Mapping):
    with pytest.warns(UserWarning, match="random weights remain for tool, right_wrist–tool; train before you trust them"):
        model = load_lightweight_openpose(public_file, ARM, num_refinement_stages=3)
    new = model.network.state_dict()
    wrist, background = OPENPOSE18.index("right_wrist"), 18
    limb = OPENPOSE18.limbs.index((OPENPOSE18.index("right_elbow"), wrist))
    for stage in ("initial_stage", "refinement_stages.0", "refinement_stages.2"):
        for part in ("weight", "bias"):
            old = {kind: state[f"{stage}.{kind}.1.0.{part}"] for kind in ("heatmaps", "pafs")}
            heatmaps, pafs = (new[f"{stage}.{kind}.1.0.{part}"] for kind in ("heatmaps", "pafs"))
            assert torch.equal(heatmaps[0], old["heatmaps"][wrist])
            assert torch.equal(heatmaps[-1], old["heatmaps"][background])
            assert torch.equal(pafs[:2], old["pafs"][[2 * limb + 1, 2 * limb]])
    read, old = (s["refinement_stages.1.trunk.0.initial.0.weight"] for s in (new, state))
    assert read.shape[1] == 128 + 4 + 4
    assert torch.equal(read[:, :128], old[:, :128])
    assert torch.equal(read[:, 128], old[:, 128 + wrist])
    assert torch.equal(read[:, 128 + 3], old[:, 128 + background])
    assert torch.equal(read[:, 132:134], old[:, [128 + 19 + 2 * limb + 1, 128 + 19 + 2 * limb]])


def test_the_same_figure_in_another_order_finds_the_same_maps(public_file: Path):
    """Limbs that point the other way have the opposite field, and later stages must read it as such."""
    order = [*range(17, -1, -1)]
    turned = Skeleton("person", [OPENPOSE18.keypoints[i] for i in order],
                      [(17 - b, 17 - a) for a, b in reversed(OPENPOSE18.limbs)],
                      [(17 - a, 17 - b) for a, b in OPENPOSE18.flip_pairs], [OPENPOSE18.sigmas[i] for i in order])  # fmt: skip
    one, other = (load_lightweight_openpose(public_file, s, num_refinement_stages=None) for s in (OPENPOSE18, turned))
    with torch.inference_mode():
        a, b = one.network(IMAGES), other.network(IMAGES)
    assert_close(b["heatmaps"], torch.cat([a["heatmaps"][:, order], a["heatmaps"][:, 18:]], dim=1))
    assert_close(b["pafs"], -a["pafs"].unflatten(1, (19, 2)).flip(1).flatten(1, 2))


def test_trt_poses_skeleton_begins_with_the_shared_limbs(public_file: Path):
    shared = {frozenset(OPENPOSE18.keypoints[end] for end in limb) for limb in OPENPOSE18.limbs}
    names = [tuple(COCO18_NECK.keypoints[end] for end in limb) for limb in COCO18_NECK.limbs]
    network = LightweightOpenPose(COCO18_NECK)
    with pytest.warns(UserWarning, match="random weights remain for"):
        report = load_weights(network, public_file)
    assert report.fresh_keypoints == ()
    assert report.fresh_limbs == tuple(f"{a}–{b}" for a, b in names if frozenset((a, b)) not in shared)
    assert 0 < len(report.fresh_limbs) < len(names)


def test_a_file_trained_with_the_public_code_on_own_keypoints(tmp_path: Path):
    torch.save(training_state(original_state(1, keypoints=3, limbs=2)), tmp_path / "own.pth")
    assert load_lightweight_openpose(tmp_path / "own.pth", ARM).skeleton == ARM
    with pytest.raises(ValueError, match=r"has 3 keypoints and 2 limbs, skeleton 'person' has 18 and 19: pass trained_on="):
        load_lightweight_openpose(tmp_path / "own.pth")
    with pytest.warns(UserWarning, match="nose"):
        load_lightweight_openpose(tmp_path / "own.pth", trained_on=ARM)
    short = dataclasses.replace(ARM, limbs=((1, 0),))
    with pytest.raises(ValueError, match="do not belong to the 1 limbs of skeleton 'arm'"):
        load_lightweight_openpose(tmp_path / "own.pth", trained_on=short)


def test_mobilenet_fills_the_trunk_alone(tmp_path: Path, state: Mapping, monkeypatch):
    path = save_legacy(mobilenet_content(state), tmp_path / "mobilenet_sgd_68.848.pth.tar", monkeypatch)
    network = LightweightOpenPose(ARM)
    before = network.state_dict()["cpm.conv.0.weight"].clone()
    with pytest.warns(UserWarning, match="classifier fills the trunk, all behind it keeps its random weights: 115 tensors fit"):
        report = load_weights(network, path)
    assert len(report.loaded) == 115 and report.missing[0] == "cpm.align.0.weight"
    assert torch.equal(network.state_dict()["model.11.3.weight"], state["model.11.3.weight"])
    assert torch.equal(network.state_dict()["cpm.conv.0.weight"], before)


def test_a_file_of_another_network(tmp_path: Path, public_file: Path, state: Mapping):
    trt_pose = TrtPose(COCO18_NECK, stages=2, num_upsample=1, upsample_channels=8)
    openpose = LightweightOpenPose(COCO18_NECK, **MINI)
    own = save_model(tmp_path / "own.safetensors", Model(trt_pose, PafCodec(COCO18_NECK, stride=4), (64, 64)))
    with pytest.raises(ValueError, match="holds the weights of a TrtPose, the network is a LightweightOpenPose"):
        load_weights(openpose, own)
    with pytest.raises(ValueError, match="not a trt_pose state dict: it is a checkpoint of Lightweight OpenPose; load_light"):
        load_weights(trt_pose, public_file)
    with pytest.raises(ValueError, match="not a trt_pose state dict: it is a checkpoint of Lightweight OpenPose; load_light"):
        load_trt_pose(public_file)
    torch.save(mobilenet_content(state), tmp_path / "mobilenet.pth.tar")
    with pytest.raises(ValueError, match="not a checkpoint of Lightweight OpenPose: it is a MobileNet classifier; give it to"):
        load_lightweight_openpose(tmp_path / "mobilenet.pth.tar")
    with pytest.raises(ValueError, match="read by load_trt_pose, load_lightweight_openpose"):
        load_model(public_file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"0.resnet.conv1.weight": torch.zeros(1), "1.cmap_conv.weight": torch.zeros(1)}, "trt_pose state dict; load_trt_pose"),
        ({"backbone.base.weight": torch.zeros(1)}, "it has a DLA trunk"),
        ({"engine": torch.zeros(4, dtype=torch.uint8)}, "TensorRT engine made by torch2trt"),
        ({"state_dict": {"network.cpm.align.0.weight": torch.zeros(1)}}, "training state .* take best.safetensors"),
        ({"fc.weight": torch.zeros(1)}, "it is an ImageNet classifier"),
        ({"layer": torch.zeros(1)}, "its tensors are named 'layer'"),
        ([1, 2], "it holds a list"),
        ({}, "it holds a dict"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content, message: str):
    torch.save(content, tmp_path / "file.pth")
    for read in (load_lightweight_openpose, lambda path: load_weights(LightweightOpenPose(ARM, **MINI), path)):
        with pytest.raises(ValueError, match=f"file.pth is not a checkpoint of Lightweight OpenPose: .*{message}"):
            read(tmp_path / "file.pth")


def test_files_that_cannot_be_opened(tmp_path: Path, public_file: Path):
    with pytest.raises(FileNotFoundError, match=r"no\.pth: there is no such checkpoint"):
        load_lightweight_openpose(tmp_path / "no.pth")
    own = Model(LightweightOpenPose(ARM, **MINI), PafCodec(ARM, stride=8), (64, 64))
    files = {
        "page.pth": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "it is a web page"),
        "cut.pth": (public_file.read_bytes()[:500_000], "cut short or of another kind"),
        "empty.pth": (b"", "cut short or of another kind"),
        "ours.pth": (save_model(tmp_path / "a.safetensors", own).read_bytes(), "load_model and load_weights read ours, if"),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not a checkpoint that can be opened: .*{message}"):
            load_lightweight_openpose(tmp_path / name)


def test_objects_besides_tensors_are_named(tmp_path: Path, state: Mapping):
    torch.save({"state_dict": state, "arguments": Path("here")}, tmp_path / "objects.pth")
    with pytest.raises(ValueError, match=r"objects.pth.*besides tensors \(pathlib.*could run foreign code"):
        load_lightweight_openpose(tmp_path / "objects.pth")
    torch.save({"state_dict": state | {"note": "hello"}}, tmp_path / "text.pth")
    with pytest.raises(ValueError, match="text.pth: 'note' is not a tensor but a str"):
        load_lightweight_openpose(tmp_path / "text.pth")
