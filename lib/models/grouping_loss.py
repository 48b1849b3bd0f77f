"""The loss of associative embedding (Newell et al. 2017, arXiv:1611.05424): a person's tags agree, people's tags differ."""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = ("exp", "max")


def grouping_loss(tags: Tensor, cells: Tensor, kind: str = "exp") -> tuple[Tensor, Tensor]:
    """Push and pull of a batch, each the mean over its pictures, both before any weight.

    Pull is the mean over a picture's people of the variance of a person's tags. Push compares the mean tags of every two
    people: "exp" takes half the mean of exp(−Δ²), at most 0.5 where all are alike and 0 where they are far apart; "max" the
    same of max(0, 1 − |Δ|). A picture with one person has no push, one without people neither; both stay finite and
    differentiable.

    Args:
        tags: (N, K, h, w), or (N, 1, h, w) where all keypoints share one map.
        cells: (N, P, K) int64 flat cell index y·w + x of every labelled keypoint, −1 where there is none.
        kind: of push, one of `KINDS`.

    Returns:
        push, pull: float32 scalars.

    Raises:
        ValueError: shapes do not fit each other, or `kind` is unknown.
    """
    if kind not in KINDS:
        raise ValueError(f"kind of the grouping loss must be one of {', '.join(KINDS)}, got {kind!r}")
    n, channels = tags.shape[:2]
    if tags.ndim != 4 or cells.ndim != 3 or len(cells) != n or channels not in (1, cells.shape[2]):
        raise ValueError("the grouping loss needs tags (N, K or 1, h, w) and cells (N, P, K), "
                         f"got {tuple(tags.shape)} and {tuple(cells.shape)}")  # fmt: skip
    found = cells >= 0
    values = tags.flatten(2).expand(n, cells.shape[2], -1).gather(2, cells.clamp(min=0).transpose(1, 2))
    # what is not there must not reach the sums, not even multiplied by 0: it may be infinite
    values = torch.where(found, values.transpose(1, 2).float(), 0.0)
    count = found.sum(dim=2).clamp(min=1)
    mean = values.sum(dim=2) / count
    spread = torch.where(found, values - mean[..., None], 0.0).square().sum(dim=2) / count
    person = found.any(dim=2)
    people = person.sum(dim=1)
    pull = spread.sum(dim=1) / people.clamp(min=1)
    difference = mean[:, :, None] - mean[:, None]
    alike = (1 - difference.abs()).clamp(min=0) if kind == "max" else torch.exp(-difference.square())
    pairs = (person[:, :, None] & person[:, None]).triu(diagonal=1)
    # every pair stands here once, in the mean over n·(n − 1) ordered pairs twice, and the factor one half takes that back
    push = torch.where(pairs, alike, 0.0).sum(dim=(1, 2)) / (people * (people - 1)).clamp(min=1)
    return push.mean(), pull.mean()
