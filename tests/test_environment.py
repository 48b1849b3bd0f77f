import builtins
import importlib.metadata
from collections import namedtuple

import pytest

from lib import environment
from lib.environment import Check, check_environment, table


def test_every_line_is_complete_and_this_machine_passes():
    checks = check_environment()
    names = [check.name for check in checks]
    assert names == ["Python", "packages", "PyTorch", "processor", "GPU", "memory", "ONNX Runtime", "TensorRT", "disk"]
    assert all(check.found for check in checks)
    assert all(check.advice for check in checks if not check.ok)
    assert {check.name: check.ok for check in checks}["packages"]


def test_table_puts_advice_below_its_line():
    text = table([Check("disk", "1 GiB", False, "make room"), Check("processor", "2 cores", True)])
    assert text.splitlines() == ["LOOK  disk       1 GiB", "                 → make room", "ok    processor  2 cores"]


def test_packages_names_what_is_missing_or_old(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires",
                        lambda name: ["numpy>=999", "no-such-package>=1", "x>=1; extra == 'gpu'"])  # fmt: skip
    check = environment._packages()
    assert not check.ok
    assert "numpy" in check.found and ">=999" in check.found
    assert "no-such-package is missing" in check.found
    assert "x is missing" not in check.found


def test_packages_when_the_workbook_is_not_installed(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    check = environment._packages()
    assert not check.ok and "pip install -e ." in check.advice


def test_a_broken_torch_is_reported_and_not_raised(monkeypatch):
    real = builtins.__import__

    def broken(name, *args, **kwargs):
        if name == "torchvision":
            raise ImportError("undefined symbol: _ZN3c10\nmore lines")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    checks = {check.name: check for check in check_environment()}
    assert not checks["PyTorch"].ok and checks["PyTorch"].found == "undefined symbol: _ZN3c10"
    assert "processor" not in checks and "disk" in checks


def test_full_disk(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda folder: usage(2**40, 2**40, 2**30))
    check = environment._disk(tmp_path)
    assert not check.ok and check.found.startswith("1 GiB free") and "5 GiB" in check.advice


@pytest.mark.parametrize("gib, ok", [(2, False), (16, True), (0, True)])
def test_memory(monkeypatch, gib, ok):
    monkeypatch.setattr(environment, "_total_memory", lambda: gib * 2**30)
    assert environment._memory().ok == ok
