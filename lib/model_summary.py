"""A network in numbers: its layers, what they give out, and what they cost."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_COUNTED = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def multiply_adds(network: nn.Module, input_size: tuple[int, int]) -> int:
    """Multiply-adds of convolutions and linear layers for one picture (H, W).

    Published GFLOPs mostly are these / 10⁹. HigherHRNet's count a transposed convolution as if every output saw all of its
    kernel (47.86 at width 32 and 512 pixels), of which three quarters fall between the inputs (46.20).
    """
    return sum(_look(network, input_size)[1].values())


def model_summary(network: nn.Module, input_size: tuple[int, int], depth: int = 3) -> str:
    """Layers down to `depth`, each with the shape of its output, its parameters and its multiply-adds for one picture.

    Args:
        network: takes pictures (N, 3, H, W) float; stays as it is.
        input_size: (H, W).
        depth: how deep layers within layers are listed.
    """
    shapes, costs = _look(network, input_size)
    rows, above = [("layer", "output", "parameters", "multiply-adds")], []
    for name, module in network.named_modules():
        deep = name.count(".") + bool(name) > depth
        if deep or not (parameters := sum(p.numel() for p in module.parameters())) or name not in shapes:
            continue
        # what only holds layers (a ModuleList) has no row: its name stands before theirs
        above = [other for other in above if name.startswith(f"{other}.")]
        level, short = len(above) + bool(name), name.removeprefix(f"{above[-1]}." if above else "")
        above += [name] * bool(name)
        cost = sum(value for layer, value in costs.items() if not name or layer == name or layer.startswith(f"{name}."))
        title = f"{'  ' * level}{short or type(network).__name__}"
        rows.append((f"{title} ({type(module).__name__})" if level else title, shapes[name], f"{parameters:,}", f"{cost:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"{a:{widths[0]}}  {b:{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}" for a, b, c, d in rows]
    total = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    head = (f"{total:,} parameters ({trained:,} are trained), {sum(costs.values()) / 1e9:.3f} billion multiply-adds for a "
            f"picture of {input_size[1]}×{input_size[0]} pixels")  # fmt: skip
    return "\n".join([head, "", *lines]) + "\n"


def _look(network: nn.Module, input_size: tuple[int, int]) -> tuple[dict[str, str], dict[str, int]]:
    """Output shapes of all layers, and multiply-adds of those that have any, by name; a copy on the CPU is asked once."""
    network = copy.deepcopy(network).cpu().float().eval()
    shapes: dict[str, str] = {}
    costs: dict[str, int] = {}
    with _watched(network, shapes, costs), torch.inference_mode():
        network(torch.zeros(1, 3, *input_size))
    return shapes, costs


@contextmanager
def _watched(network: nn.Module, shapes: dict[str, str], costs: dict[str, int]) -> Iterator[None]:
    def watch(name: str):
        def look(module: nn.Module, inputs: tuple, output: object) -> None:
            shapes[name] = _shape(output)
            if isinstance(module, _COUNTED):
                # a transposed convolution multiplies every input value with its kernel, the others make every output value so
                values = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
                costs[name] = costs.get(name, 0) + values.numel() * (module.weight.numel() // module.weight.shape[0])

        return look

    handles = [module.register_forward_hook(watch(name)) for name, module in network.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _shape(output: object) -> str:
    if isinstance(output, Tensor):
        return "×".join(map(str, output.shape[1:]))
    if isinstance(output, dict):
        return ", ".join(f"{name} {_shape(value)}" for name, value in output.items())
    return ", ".join(_shape(value) for value in output) if isinstance(output, (list, tuple)) else ""
