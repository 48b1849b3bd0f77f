"""What every network must do. A test class inherits `NetworkContract` and says how to build a small one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from lib.checkpoints import Model, load_model, save_model
from lib.codecs import Codec
from lib.skeleton import COCO17, Skeleton

STICK = Skeleton("stick", ("head", "hip", "left_foot", "right_foot"), ((0, 1), (1, 2), (3, 1)), ((2, 3),), (0.05,) * 4)


class NetworkContract:
    """Inherit, and implement `network` and `codec`."""

    size = (64, 96)
    sizes = ((64, 64), (64, 96), (128, 32))
    overfit_steps = 30

    def network(self, skeleton: Skeleton) -> nn.Module:
        """A small network with random weights."""
        raise NotImplementedError

    def codec(self, network: nn.Module) -> Codec:
        """The codec it is trained with."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _seed(self):
        torch.manual_seed(0)

    def test_maps_have_the_size_of_the_targets_at_every_input_size(self):
        network = self.network(STICK).eval()
        for size in self.sizes:
            images, targets = self.batch(network, num_images=2, size=size)
            with torch.inference_mode():
                maps = network(images)
            assert maps.keys() & targets.keys()
            strides = getattr(network, "strides", dict.fromkeys(maps, network.stride))
            assert maps.keys() == strides.keys()
            for name, values in maps.items():
                # tags have no map as their target
                assert name not in targets or values.shape == targets[name].shape, (size, name)
                assert torch.isfinite(values).all()
                assert values.shape[-2:] == (size[0] // strides[name], size[1] // strides[name])

    def test_every_parameter_gets_a_gradient(self):
        network = self.network(STICK).train()
        losses = self.losses(network, *self.batch(network))
        assert all(torch.isfinite(value) and value.ndim == 0 for value in losses.values())
        sum(losses.values()).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            if parameter.ndim > 1:
                assert parameter.grad.abs().max() > 0, name

    def test_batch_without_people(self):
        network = self.network(STICK).train()
        losses = self.losses(network, *self.batch(network, num_people=0))
        sum(losses.values()).backward()
        assert all(torch.isfinite(value) for value in losses.values())
        assert all(torch.isfinite(p.grad).all() for p in network.parameters())

    def test_masked_cells_do_not_count(self):
        network = self.network(STICK).eval()
        images, targets = self.batch(network, masked=True)
        assert all(value == 0 for value in self.losses(network, images, targets).values())

    def test_other_number_of_keypoints(self):
        for skeleton in (STICK, COCO17):
            network = self.network(skeleton).eval()
            images, targets = self.batch(network)
            maps = network(images)
            others = ("cells", "weights")  # of which there are no maps
            wanted = {k: v.shape for k, v in targets.items() if "mask" not in k and not k.startswith(others)}
            assert {k: maps[k].shape for k in wanted} == wanted
            assert all(k in wanted or maps[k].shape[1] in (1, skeleton.num_keypoints) for k in maps)

    def test_options_rebuild_the_network(self):
        network = self.network(STICK)
        again = type(network)(STICK, **network.options)
        shapes, wanted = ({k: v.shape for k, v in n.state_dict().items()} for n in (again, network))
        assert shapes == wanted

    def test_outputs_name_the_last_layers(self):
        state = {skeleton.name: self.network(skeleton).state_dict() for skeleton in (STICK, COCO17)}
        differing = {key.rpartition(".")[0] for key in state["stick"]
                     if state["stick"][key].shape != state["person"][key].shape}  # fmt: skip
        network = self.network(STICK)
        assert differing == {*network.outputs, *getattr(network, "inputs", {})}

    def test_save_and_load(self, tmp_path: Path):
        network = self.trained_a_little(STICK)
        model = Model(network, self.codec(network), self.size, keep_aspect_ratio=False, info={"AP": 0.5})
        loaded = load_model(save_model(tmp_path / "model.safetensors", model))
        assert loaded.metadata() == model.metadata()
        assert not loaded.network.training
        self.assert_same_maps(network, loaded.network, tolerance=0)

    def test_half_precision_file_is_smaller_and_close(self, tmp_path: Path):
        network = self.trained_a_little(STICK)
        model = Model(network, self.codec(network), self.size)
        full, half = (save_model(tmp_path / f"{h}.safetensors", model, half=h) for h in (False, True))
        assert half.stat().st_size < 0.6 * full.stat().st_size
        self.assert_same_maps(network, load_model(half).network, tolerance=0.02)

    def test_onnx_computes_the_same_maps(self, tmp_path: Path):
        network, path = self.trained_a_little(STICK), tmp_path / "model.onnx"
        images, _ = self.batch(network, num_images=2)
        names = list(network(images))
        batch = torch.export.Dim("batch", min=1, max=64)
        torch.onnx.export(network, (images,), path, dynamo=True, input_names=["images"], output_names=names,
                          dynamic_shapes=({0: batch},), verbose=False)  # fmt: skip
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for batch in (images, images[:1]):
            with torch.inference_mode():
                wanted = network(batch)
            for name, values in zip(names, session.run(names, {"images": batch.numpy()})):
                largest = wanted[name].abs().max().item()
                np.testing.assert_allclose(values, wanted[name].numpy(), rtol=0, atol=1e-5 * largest)

    def test_wrong_input_size_is_one_clear_error(self):
        network = self.network(STICK)
        side = network.input_multiple * 2 + 4
        with pytest.raises(ValueError, match=f"{side} × {side}.*multiples of {network.input_multiple}"):
            network(torch.zeros(1, 3, side, side))

    def test_learns_eight_images_by_heart(self):
        network = self.network(STICK).train()
        images, targets = self.batch(network, num_images=8)
        nothing = {name: torch.zeros_like(values) for name, values in network(images).items()}
        blank = sum(network.loss(nothing, targets).values()).item()
        loss = self.train(network, images, targets, self.overfit_steps)
        assert loss < 0.15 * blank, f"loss {loss:.5f}, empty maps have {blank:.5f}"

    def batch(self, network: nn.Module, num_images: int = 4, num_people: int = 2, size: tuple[int, int] | None = None,
              masked: bool = False) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """Images (N, 3, H, W) with a coloured square on every keypoint, and their targets."""
        height, width = size or self.size
        skeleton, generator = network.skeleton, torch.Generator().manual_seed(1)
        keypoints = torch.rand(num_images, num_people, skeleton.num_keypoints, 3, generator=generator)
        keypoints *= torch.tensor([width - 1, height - 1, 2.0])
        keypoints[..., 2] = 2
        images = torch.randint(0, 40, (num_images, 3, height, width), generator=generator).float()
        colours = 60 + 190 * torch.rand(skeleton.num_keypoints, 3, generator=generator)
        for image, people in zip(images, keypoints):
            for person in people:
                for (x, y, _), colour in zip(person.int().tolist(), colours):
                    image[:, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = colour[:, None, None]
        mask = torch.zeros(num_images, height // network.stride, width // network.stride) if masked else None
        return images, self.codec(network).encode(keypoints, mask, (height, width))

    @staticmethod
    def losses(network: nn.Module, images: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        return network.loss(network(images), targets)

    def train(self, network: nn.Module, images: Tensor, targets: dict[str, Tensor], steps: int) -> float:
        """Adam on one batch; the last loss."""
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = sum(self.losses(network, images, targets).values())
            loss.backward()
            optimizer.step()
        return loss.item()

    def trained_a_little(self, skeleton: Skeleton) -> nn.Module:
        """A network with maps that are not empty and batch norms that have seen images, in eval mode."""
        network = self.network(skeleton).train()
        self.train(network, *self.batch(network), steps=8)
        return network.eval()

    def assert_same_maps(self, a: nn.Module, b: nn.Module, tolerance: float) -> None:
        """Compare relative to the largest value of each map."""
        images, _ = self.batch(a)
        with torch.inference_mode():
            for (name, wanted), got in zip(a(images).items(), b(images).values()):
                assert (wanted - got).abs().max() <= tolerance * wanted.abs().max(), name
