import os
import socket
from collections.abc import Iterator

import pytest

from workbook import ports


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with socket.create_server((ports.HOST, 0)) as server:
        yield server


def test_a_taken_port_is_named_with_its_owner(taken: socket.socket) -> None:
    port = taken.getsockname()[1]
    with pytest.raises(ports.PortTaken, match=f"port {port} .* process {os.getpid()}") as caught:
        ports.require_free(port)
    assert (caught.value.port, caught.value.pid) == (port, os.getpid())


def test_a_free_port_passes() -> None:
    ports.require_free(ports.free_port())


def test_nobody_listens_on_a_free_port() -> None:
    assert ports.listener(ports.free_port()) is None
