"""The tests' own servers end with clients at their door, and leave no socket: pytest makes an error of a warning."""

import contextlib
import gc
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from deploy.local.ports import LOOPBACK, free_port
from tests.fakes.s3_adversary import Adversary
from tests.harness.balancer import Backend, Balancer

CLIENTS = 60
"""In the backlog of a server that has no time left to serve them."""


def adversary(port: int) -> AbstractContextManager[Adversary]:
    return Adversary(port=port)


def balancer(port: int) -> AbstractContextManager[Balancer]:
    return Balancer([Backend(port, port)], port)


@pytest.mark.parametrize("server", [adversary, balancer])
def test_clients_that_come_last_leave_no_socket(server: Callable[[int], AbstractContextManager[object]]) -> None:
    """Whatever stage their connections are in."""
    for _ in range(10):
        port = free_port()
        with contextlib.ExitStack() as clients, server(port):
            for _ in range(CLIENTS):
                clients.enter_context(socket.create_connection((LOOPBACK, port)))
        gc.collect()
