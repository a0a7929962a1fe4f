"""Requests of the wire client leave together; until one has left, nothing that comes is its answer.

On connections alone, over transports that keep what is written.
"""

import asyncio

import pytest

from services.uploader.errors import TransientError
from services.uploader.store.connections.connection import Connection, IdleClosedError
from services.uploader.store.connections.outbox import Outbox
from tests.harness.raw_s3 import stored
from tests.unit.test_wire_fuzz import BODY, Wire

REQUEST = b"head" + BODY


def connections(count: int) -> list[tuple[Connection, Wire]]:
    """Open ones, of one outbox, and their other sides."""
    loop = asyncio.get_running_loop()
    outbox = Outbox(loop)
    pairs = []
    for _ in range(count):
        transport = Wire(loop)
        transport.protocol = Connection(loop, outbox, lambda _: None)
        transport.protocol.connection_made(transport)
        pairs.append((transport.protocol, transport))
    return pairs


async def turn() -> None:
    await asyncio.sleep(0)


async def kept(connection: Connection, transport: Wire) -> None:
    """Carry one request."""
    waiter = connection.send(b"head", BODY)
    await turn()
    transport.receive(stored(BODY))
    await waiter
    transport.sent = b""


async def test_requests_leave_together() -> None:
    """All that were made in one turn leave at its end, each once and whole; those of the next turn at that one's."""
    pairs = connections(3)
    for connection, _ in pairs[:2]:
        connection.send(b"head", BODY)
    assert [transport.sent for _, transport in pairs] == [b"", b"", b""]
    await turn()
    assert [transport.sent for _, transport in pairs] == [REQUEST, REQUEST, b""]
    pairs[2][0].send(b"head", b"x" * 100_000)
    await turn()
    assert [transport.sent for _, transport in pairs] == [REQUEST, REQUEST, b"head" + b"x" * 100_000]


async def test_what_comes_before_a_request_has_left_is_not_its_answer() -> None:
    """Even if it would pass for one: nothing was sent, so the put may go out again on another connection."""
    [(connection, transport)] = connections(1)
    await kept(connection, transport)
    waiter = connection.send(b"head", BODY)
    transport.receive(stored(BODY))
    await turn()
    with pytest.raises(IdleClosedError):
        await waiter
    assert transport.sent == b""
    assert not connection.usable


async def test_a_fresh_connection_that_speaks_first_ends_the_put() -> None:
    """It was never idle: no second try."""
    [(connection, transport)] = connections(1)
    waiter = connection.send(b"head", BODY)
    transport.receive(stored(BODY))
    with pytest.raises(TransientError):
        await waiter
    assert transport.sent == b""


@pytest.mark.parametrize("end", ["cancelled", "closed", "reset"])
async def test_a_request_whose_put_has_ended_does_not_leave(end: str) -> None:
    """And does not keep those behind it from leaving."""
    (first, first_wire), (second, second_wire) = connections(2)
    await kept(first, first_wire)
    waiter = first.send(b"head", BODY)
    second.send(b"head", BODY)
    match end:
        case "cancelled":
            waiter.cancel()  # its put hears of it in the next turn, and only then gives the connection back
        case "closed":
            first_wire.end()
        case _:
            first.connection_lost(ConnectionResetError())
    await turn()
    assert (first_wire.sent, second_wire.sent) == (b"", REQUEST)
    if end != "cancelled":
        with pytest.raises(IdleClosedError):
            await waiter
