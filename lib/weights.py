"""Weights of one network for another: which tensors fit, and last layers carried over to a new skeleton by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lib.skeleton import Skeleton


@dataclass(frozen=True)
class LoadReport:
    """What happened to each tensor of a network that got its weights from a file.

    Attributes:
        loaded: taken over.
        missing: wanted, but not in the file.
        unused: in the file, but not wanted.
        mismatched: in both, with different shapes (said in the text).
        fresh_keypoints, fresh_limbs: outputs which the file's skeleton does not have; they keep their random weights.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    fresh_keypoints: tuple[str, ...] = ()
    fresh_limbs: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors fit"]
        for what, names in (("are missing", self.missing), ("have another shape", self.mismatched),
                            ("are not wanted", self.unused)):  # fmt: skip
            if names:
                parts.append(f"{len(names)} {what} ({'; '.join(names[:2])}{'; …' if len(names) > 2 else ''})")
        if self.fresh_keypoints or self.fresh_limbs:
            fresh = [*self.fresh_keypoints, *self.fresh_limbs]
            parts.append(f"random weights remain for {', '.join(fresh)}")
        return ", ".join(parts)


def fill(network: nn.Module, state: Mapping[str, Tensor], path: str | Path, source: Skeleton | None = None,
         options: Mapping[str, Any] | None = None) -> LoadReport:  # fmt: skip
    """Load a state dict into a network; where its skeleton is another one, outputs are carried over by name.

    Args:
        network: changed in place, or not at all.
        state: tensors under the network's own names.
        path: where they come from, for messages.
        source: the skeleton they were trained on; None if it is known to be the network's.
        options: of the network they come from, so that a failure can say which of them differ.

    Raises:
        ValueError: tensors are missing, left over, or of another shape; the numbers and first names are quoted.
    """
    wanted, fresh = network.state_dict(), {}
    if source is not None and not _same_outputs(source, network.skeleton):
        state, fresh = _carry_outputs(network, state, source, path)
    common = wanted.keys() & state.keys()
    fits = {key for key in common if wanted[key].shape == state[key].shape}
    report = LoadReport(
        loaded=tuple(key for key in wanted if key in fits),
        missing=tuple(key for key in wanted if key not in common),
        unused=tuple(key for key in state if key not in common),
        mismatched=tuple(f"{key}: file {list(state[key].shape)}, network {list(wanted[key].shape)}"
                         for key in wanted if key in common - fits),
        **fresh,
    )  # fmt: skip
    if report.missing or report.unused or report.mismatched:
        raise ValueError(f"{path} does not fit this {type(network).__name__}: "
                         f"{_differing(options or {}, network.options)}{report}")  # fmt: skip
    network.load_state_dict(state)
    if report.fresh_keypoints or report.fresh_limbs:
        warnings.warn(f"{path}: {report}; train before you trust them", stacklevel=3)
    return report


def _carry_outputs(network: nn.Module, state: Mapping[str, Tensor], source: Skeleton, path: str | Path):
    """Rearrange the last layers' channels from `source` to the network's skeleton; also the names of what stays random."""
    target = network.skeleton
    pairs = {
        "keypoints": [(source.index(name), 1) if name in source.keypoints else None for name in target.keypoints],
        "limbs": [_find_limb(source, *(target.keypoints[end] for end in limb)) for limb in target.limbs],
    }
    old, new, fresh = {"keypoints": source.num_keypoints, "limbs": source.num_limbs}, network.state_dict(), dict(state)
    for prefix, kind in network.outputs.items():
        for key in (f"{prefix}.weight", f"{prefix}.bias"):
            if key not in state:
                continue
            if len(state[key]) % old[kind] or len(state[key]) // old[kind] != len(new[key]) // len(pairs[kind]):
                raise ValueError(f"{path}: {key} has {len(state[key])} channels, which do not belong to the {old[kind]} "
                                 f"{kind} of skeleton {source.name!r}; say which skeleton it was trained on")  # fmt: skip
            if state[key].shape[1:] == new[key].shape[1:]:
                fresh[key] = _gather(state[key], new[key], pairs[kind], old[kind])
    names = [name for name, pair in zip(target.keypoints, pairs["keypoints"]) if pair is None]
    limbs = [f"{target.keypoints[a]}–{target.keypoints[b]}"
             for (a, b), pair in zip(target.limbs, pairs["limbs"]) if pair is None]  # fmt: skip
    return fresh, {"fresh_keypoints": tuple(names), "fresh_limbs": tuple(limbs)}


def _differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    keys = [key for key in ours if key in theirs and theirs[key] != ours[key]]
    if not keys:
        return ""
    there, here = (", ".join(f"{key}={options[key]!r}" for key in keys) for options in (theirs, ours))
    return f"the file was made with {there}, the network with {here}; make them equal. Of its tensors, "


def _gather(old: Tensor, new: Tensor, pairs: list[tuple[int, int] | None], num_old: int) -> Tensor:
    groups, result = old.view(num_old, -1, *old.shape[1:]), new.clone().view(len(pairs), -1, *new.shape[1:])
    for i, pair in enumerate(pairs):
        if pair is not None:
            result[i] = pair[1] * groups[pair[0]]
    return result.view_as(new)


def _find_limb(source: Skeleton, a: str, b: str) -> tuple[int, int] | None:
    """Index of the limb a–b, and −1 if it points from b to a."""
    named = [(source.keypoints[i], source.keypoints[j]) for i, j in source.limbs]
    for ends, sign in (((a, b), 1), ((b, a), -1)):
        if ends in named:
            return named.index(ends), sign
    return None


def _same_outputs(a: Skeleton, b: Skeleton) -> bool:
    return (a.keypoints, a.limbs) == (b.keypoints, b.limbs)
