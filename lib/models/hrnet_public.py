"""The layouts of HRNet's files: ImageNet classifiers and HigherHRNet."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from lib.weights import LoadReport


def load_trunk(network: nn.Module, path: str | Path) -> LoadReport:
    """Fill the trunk of a network from a checkpoint."""
    raise ValueError(f"{path}: cannot be read yet")
