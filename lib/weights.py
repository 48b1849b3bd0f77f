"""Weights of one network for another: which tensors fit, and outputs carried over to a new skeleton by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lib.skeleton import Skeleton

# of every channel of a new skeleton: the old skeleton's (its index, and −1 where it must be negated), or None if it is new
Pairs = list[tuple[int, int] | None]


@dataclass(frozen=True)
class LoadReport:
    """What happened to each tensor of a network that got its weights from a file.

    Attributes:
        loaded: taken over.
        missing: wanted, but not in the file (those of `fresh_parts` are not listed again).
        unused: in the file, but not wanted (nor listed for `dropped_parts`).
        mismatched: in both, with different shapes (said in the text).
        fresh_keypoints, fresh_limbs: outputs which the file's skeleton does not have; they keep their random weights.
        fresh_parts: whole stages which the file does not have; they keep their random weights.
        dropped_parts: whole stages of the file which the network does not have.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    fresh_keypoints: tuple[str, ...] = ()
    fresh_limbs: tuple[str, ...] = ()
    fresh_parts: tuple[str, ...] = ()
    dropped_parts: tuple[str, ...] = ()

    @property
    def fresh(self) -> tuple[str, ...]:
        """Names of all that keeps its random weights."""
        return (*self.fresh_keypoints, *self.fresh_limbs, *self.fresh_parts)

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors fit"]
        for what, names in (("are missing", self.missing), ("have another shape", self.mismatched),
                            ("are not wanted", self.unused)):  # fmt: skip
            if names:
                parts.append(f"{len(names)} {what} ({'; '.join(names[:2])}{'; …' if len(names) > 2 else ''})")
        if self.dropped_parts:
            parts.append(f"the file's {', '.join(self.dropped_parts)} are left out")
        if self.fresh:
            parts.append(f"random weights remain for {', '.join(self.fresh)}")
        return ", ".join(parts)


def fill(network: nn.Module, state: Mapping[str, Tensor], path: str | Path, source: Skeleton | None = None,
         options: Mapping[str, Any] | None = None) -> LoadReport:  # fmt: skip
    """Load a state dict into a network; where its skeleton is another one, outputs are carried over by name.

    Stages that repeat (`network.repeated`) may be fewer or more than the file's: those behind the file's last keep their
    random weights, those behind the network's last are left out. A warning names them, as it does for fresh outputs.

    Args:
        network: changed in place, or not at all.
        state: tensors under the network's own names.
        path: where they come from, for messages.
        source: the skeleton they were trained on; None if it is known to be the network's.
        options: of the network they come from, so that a failure can say which of them differ.

    Raises:
        ValueError: tensors are missing, left over, or of another shape; the numbers and first names are quoted. Or all fit, but
            mean something else in this network (`network.inseparable`), or hold NaN or infinity.
    """
    wanted, fresh = network.state_dict(), {}
    apart = [name for name in getattr(network, "inseparable", ()) if (options or network.options)[name] != network.options[name]]
    if apart:
        theirs, ours = (", ".join(f"{name}={values[name]!r}" for name in apart) for values in (options, network.options))
        raise ValueError(f"{path} was made with {theirs}, the network with {ours}: the tensors would fit, and see something else "
                         "than they learnt; make them equal")  # fmt: skip
    if source is not None and not _same_outputs(source, network.skeleton):
        state, fresh = _carry(network, state, source, path)
    report = _compare(wanted, state, getattr(network, "repeated", ()), fresh)
    if report.missing or report.unused or report.mismatched:
        raise ValueError(f"{path} does not fit this {type(network).__name__}: "
                         f"{_differing(options or {}, network.options)}{report}")  # fmt: skip
    broken = [key for key in report.loaded if not torch.isfinite(state[key]).all()]
    if broken:
        raise ValueError(f"{path}: {len(broken)} of its tensors hold NaN or infinity, the first is {broken[0]}: the training that "
                         "wrote it had failed, take an earlier checkpoint")  # fmt: skip
    network.load_state_dict({key: state.get(key, value) for key, value in wanted.items()})
    if report.fresh or report.dropped_parts:
        warnings.warn(f"{path}: {report}{'; train before you trust them' if report.fresh else ''}", stacklevel=3)
    return report


def _compare(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], repeated: tuple[str, ...], fresh: dict) -> LoadReport:
    common = wanted.keys() & state.keys()
    fits = {key for key in common if wanted[key].shape == state[key].shape}
    ours, theirs = _parts(wanted, repeated), _parts(state, repeated)
    fresh_parts, dropped = ours - theirs, theirs - ours
    return LoadReport(
        loaded=tuple(key for key in wanted if key in fits),
        # older files do not have the counters of batch norms, on which nothing depends
        missing=tuple(key for key in wanted if key not in common and not key.endswith("num_batches_tracked")
                      and _part(key, repeated) not in fresh_parts),
        unused=tuple(key for key in state if key not in common and _part(key, repeated) not in dropped),
        mismatched=tuple(f"{key}: file {list(state[key].shape)}, network {list(wanted[key].shape)}"
                         for key in wanted if key in common - fits),
        fresh_parts=tuple(sorted(fresh_parts)),
        dropped_parts=tuple(sorted(dropped)),
        **fresh,
    )  # fmt: skip


def _part(key: str, repeated: tuple[str, ...]) -> str | None:
    """The stage that a tensor belongs to, as "stages.3" (or "stages", if it has no number), where `repeated` names "stages".

    It may also name one of several, "skips.pairwise".
    """
    name, number, *_ = f"{key}..".split(".")
    if f"{name}.{number}" in repeated:
        return f"{name}.{number}"
    if name not in repeated:
        return None
    return f"{name}.{number}" if number.isdigit() else name


def _parts(state: Iterable[str], repeated: tuple[str, ...]) -> set[str]:
    return {_part(key, repeated) for key in state} - {None}


def _carry(network: nn.Module, state: Mapping[str, Tensor], source: Skeleton, path: str | Path):
    """Rearrange the channels of maps from `source` to the network's skeleton; also the names of what stays random."""
    target, new, carried = network.skeleton, network.state_dict(), dict(state)
    pairs, counts = _pairs(source, target), _counts(source)
    for prefix, kind in network.outputs.items():
        for key in (f"{prefix}.weight", f"{prefix}.bias"):
            if key not in state:
                continue
            # a deconvolution's weights have the input channels in front
            turn = int(isinstance(network.get_submodule(prefix), nn.ConvTranspose2d) and key.endswith("weight"))
            theirs, ours, count = state[key].transpose(0, turn), new[key].transpose(0, turn), counts[kind]
            if not count or len(theirs) % count or len(theirs) // count != len(ours) // len(pairs[kind]):
                raise ValueError(f"{path}: {key} has {len(theirs)} channels, which do not belong to the {count} {kind} of skeleton "
                                 f"{source.name!r}; say which skeleton it was trained on")  # fmt: skip
            if theirs.shape[1:] == ours.shape[1:]:
                carried[key] = _gather(theirs, ours, pairs[kind], count).transpose(0, turn)
    for prefix, layout in getattr(network, "inputs", {}).items():
        key = f"{prefix}.weight"
        if key in state:
            turn = 0 if isinstance(network.get_submodule(prefix), nn.ConvTranspose2d) else 1
            tensors = (values.transpose(turn, 1) for values in (state[key], new[key]))
            carried[key] = _carry_inputs(*tensors, layout, pairs, counts, f"{path}: {key}").transpose(turn, 1)
    names = [name for name, pair in zip(target.keypoints, pairs["keypoints"]) if pair is None]
    limbs = [f"{target.keypoints[a]}–{target.keypoints[b]}" for (a, b), pair in zip(target.limbs, pairs["limbs"])
             if pair is None and "limbs" in network.outputs.values()]  # fmt: skip
    return carried, {"fresh_keypoints": tuple(names), "fresh_limbs": tuple(limbs)}


def _carry_inputs(old: Tensor, new: Tensor, layout: Iterable[tuple[str | None, int]], pairs: Mapping[str, Pairs],
                  counts: Mapping[str, int], what: str) -> Tensor:  # fmt: skip
    """The same for a layer that reads maps: its input channels, of which those without a kind stay as they are."""
    layout = list(layout)
    theirs = [each * counts[kind] if kind else each for kind, each in layout]
    ours = [each * len(pairs[kind]) if kind else each for kind, each in layout]
    if sum(theirs) != old.shape[1] or old.shape[0] != new.shape[0] or old.shape[2:] != new.shape[2:]:
        raise ValueError(f"{what} reads {old.shape[1]} channels and not {sum(theirs)}, as it would with the skeleton named; "
                         "say which skeleton it was trained on")  # fmt: skip
    parts = zip(layout, old.split(theirs, dim=1), new.split(ours, dim=1))
    kept = [_gather(a.transpose(0, 1), b.transpose(0, 1), pairs[kind], counts[kind]).transpose(0, 1) if kind else a
            for (kind, _), a, b in parts]  # fmt: skip
    return torch.cat(kept, dim=1)


def _pairs(source: Skeleton, target: Skeleton) -> dict[str, Pairs]:
    keypoints = [(source.index(name), 1) if name in source.keypoints else None for name in target.keypoints]
    numbers = {pair: number for number, pair in enumerate(permutations(source.keypoints, 2))}
    return {
        "keypoints": keypoints,
        "keypoints+background": [*keypoints, (source.num_keypoints, 1)],
        "pairs": [(numbers[pair], 1) if pair in numbers else None for pair in permutations(target.keypoints, 2)],
        "limbs": [_find_limb(source, *(target.keypoints[end] for end in limb)) for limb in target.limbs],
    }


def _counts(skeleton: Skeleton) -> dict[str, int]:
    k = skeleton.num_keypoints
    return {"keypoints": k, "keypoints+background": k + 1, "limbs": skeleton.num_limbs, "pairs": k * (k - 1)}


def _differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    keys = [key for key in ours if key in theirs and theirs[key] != ours[key]]
    if not keys:
        return ""
    there, here = (", ".join(f"{key}={options[key]!r}" for key in keys) for options in (theirs, ours))
    return f"the file was made with {there}, the network with {here}; make them equal. Of its tensors, "


def _gather(old: Tensor, new: Tensor, pairs: Pairs, num_old: int) -> Tensor:
    groups, result = old.unflatten(0, (num_old, -1)), new.clone().unflatten(0, (len(pairs), -1))
    for i, pair in enumerate(pairs):
        if pair is not None:
            result[i] = pair[1] * groups[pair[0]]
    return result.flatten(0, 1)


def _find_limb(source: Skeleton, a: str, b: str) -> tuple[int, int] | None:
    """Index of the limb a–b, and −1 if it points from b to a."""
    named = [(source.keypoints[i], source.keypoints[j]) for i, j in source.limbs]
    for ends, sign in (((a, b), 1), ((b, a), -1)):
        if ends in named:
            return named.index(ends), sign
    return None


def _same_outputs(a: Skeleton, b: Skeleton) -> bool:
    return (a.keypoints, a.limbs) == (b.keypoints, b.limbs)
