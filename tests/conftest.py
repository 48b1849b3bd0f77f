"""What every test shares: no window, no network, few threads."""

from __future__ import annotations

import ipaddress
import socket

import matplotlib
import pytest
import torch

# not by MPLBACKEND, which notebook kernels would inherit and then show no picture
matplotlib.use("Agg")
# networks of the tests are so small that more threads only wait for each other
torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Connections leave this computer only by mistake: say so at once instead of waiting for a time-out."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            raise AssertionError(f"a test tried to reach {address[0]}; tests must work without a network")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


def _is_local(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback
