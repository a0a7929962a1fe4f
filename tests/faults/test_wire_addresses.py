"""A host name with several addresses, inside one process: all are used, a dead one costs little and is used again."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from services.uploader.errors import TransientError
from services.uploader.store import Store
from services.uploader.store.connections import addresses
from tests.fakes.s3_acts import Then, stores, together
from tests.fakes.s3_adversary import Adversary
from tests.harness.adverse import Adverse
from tests.harness.names import Names, black_hole
from tests.harness.waiting import eventually

NAME = "s3.test"
GOOD, OTHER, THIRD, DEAD = "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"

ORDERS = {"dead first": [DEAD, GOOD], "dead last": [GOOD, DEAD], "dead between": [GOOD, DEAD, OTHER]}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """`s3.test` has no address yet. What is known of a name or an address is soon forgotten."""
    monkeypatch.setattr(addresses, "FRESH_S", 0.2)
    monkeypatch.setattr(addresses, "DEAD_S", 5.0)
    return Names(monkeypatch)


@pytest.fixture
def server() -> Iterator[Adversary]:
    """On three addresses."""
    with Adversary(GOOD, OTHER, THIRD) as found:
        yield found


@pytest.fixture
def named(adverse_on: Callable[[Adversary], Adverse], server: Adversary) -> Adverse:
    """Stores on it."""
    return adverse_on(server)


@pytest.fixture
def wire_named(server: Adversary, monkeypatch: pytest.MonkeyPatch) -> Adverse:
    """Stores on it of the wire client."""
    return Adverse("wire", server, monkeypatch)


async def _at_once(named: Adverse, store: Store, name: str, count: int) -> None:
    """So many puts, each on a connection of its own."""
    named.server.then(*together(count))
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(named.put(store, f"{name}-{number}"))


async def test_all_addresses_are_used(wire_named: Adverse, names: Names) -> None:
    """S3 answers with many addresses, each a machine: connections are spread over them."""
    names.addresses[NAME] = [GOOD, OTHER, THIRD]
    async with wire_named.open(wire_named.server.url(NAME)) as store:
        await _at_once(wire_named, store, "key", 12)
    assert set(wire_named.server.accepted) == {GOOD, OTHER, THIRD}
    assert max(wire_named.server.accepted.values()) <= 6


@pytest.mark.parametrize("order", ORDERS)
async def test_an_address_that_refuses_is_passed_over(named: Adverse, names: Names, order: str) -> None:
    """One of several is refused: no put fails for it, on the first connection or a later one."""
    names.addresses[NAME] = ORDERS[order]
    async with named.open(named.server.url(NAME)) as store:
        await _at_once(named, store, "first", 8)
        named.server.then(*[stores(then=Then.CLOSE)] * 8)
        for number in range(9):
            await named.put(store, f"later-{number}")


@pytest.mark.parametrize("order", ORDERS)
async def test_an_address_that_swallows_is_passed_over(wire_named: Adverse, names: Names, order: str) -> None:
    """One of several takes no connection and refuses none: no put fails, and not each new connection waits for it."""
    names.addresses[NAME] = ORDERS[order]
    with black_hole(DEAD, wire_named.server.port):
        async with wire_named.open(wire_named.server.url(NAME)) as store:
            await _at_once(wire_named, store, "first", 8)
            wire_named.server.then(*[stores(then=Then.CLOSE)] * 50)
            # A third of them at least would wait 1 s, an address's share of the time of connecting.
            async with asyncio.timeout(15):
                for number in range(51):
                    await wire_named.put(store, f"later-{number}")


@pytest.mark.parametrize("order", [[GOOD, OTHER], [OTHER, GOOD]], ids=str)
async def test_an_address_dies_under_way(named: Adverse, names: Names, order: list[str]) -> None:
    """Its connections are reset and refused from then on: the other takes all, and no put is told of it."""
    names.addresses[NAME] = order
    async with named.open(named.server.url(NAME)) as store:
        await _at_once(named, store, "before", 4)
        named.server.refuse(GOOD)
        for number in range(8):
            await named.put(store, f"after-{number}")
        await _at_once(named, store, "at-once", 4)
        named.server.refuse(OTHER)
        named.server.listen(GOOD)
        await named.stored_at_last(store, "the other way round")


async def test_a_dead_address_is_used_again(wire_named: Adverse, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Being passed over has an end: an address that is back gets connections again."""
    monkeypatch.setattr(addresses, "DEAD_S", 0.5)
    names.addresses[NAME] = [GOOD, OTHER]
    server = wire_named.server
    server.refuse(OTHER)
    async with wire_named.open(server.url(NAME)) as store:
        await _at_once(wire_named, store, "before", 4)
        assert set(server.accepted) == {GOOD}
        server.listen(OTHER)
        server.always = stores(then=Then.CLOSE)
        async with asyncio.timeout(20):
            while not server.accepted[OTHER]:
                await wire_named.put(store, "again")


async def test_a_name_that_moves_is_asked_again(wire_named: Adverse, names: Names) -> None:
    """The one address of a name is replaced by another, and dies: found without a restart."""
    names.addresses[NAME] = [GOOD]
    async with wire_named.open(wire_named.server.url(NAME)) as store:
        await wire_named.put(store, "before")
        names.addresses[NAME] = [OTHER]
        wire_named.server.refuse(GOOD)
        errors = await wire_named.stored_at_last(store, "after")
        assert {type(error) for error in errors} <= {TransientError}


@pytest.mark.parametrize("found", [[DEAD], [DEAD, "127.0.0.6"], []], ids=str)
async def test_no_address_answers(wire_named: Adverse, names: Names, found: list[str]) -> None:
    """All refuse, or the name has none: weather, and over as soon as there is one."""
    names.addresses[NAME] = found
    async with wire_named.open(wire_named.server.url(NAME)) as store:
        with pytest.raises(TransientError) as caught:
            await wire_named.put(store, "key")
        assert caught.value.reason == "connection"
        names.addresses[NAME] = [GOOD]
        errors = await wire_named.stored_at_last(store, "key")
        assert {type(error) for error in errors} <= {TransientError}


async def test_a_name_that_nobody_answers_for_ends(
    wire_named: Adverse, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that hangs holds neither the event loop nor the put, which ends by the deadline of connecting."""
    names.addresses[NAME] = [GOOD]
    wire_named.connect_timeout(0.5)
    resolve = socket.getaddrinfo
    asked, answered = [], asyncio.Event()
    loop = asyncio.get_running_loop()
    hanging = threading.Event()

    def hang(host: object, *arguments: object, **more: object) -> object:
        if host == NAME:
            asked.append(host)
            hanging.wait(20)
        return resolve(host, *arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        async with wire_named.open(wire_named.server.url(NAME)) as store:
            loop.call_later(0.1, answered.set)
            with pytest.raises(TransientError) as caught:
                await wire_named.put(store, "key")
            assert caught.value.reason == "timeout"
            assert asked
            assert answered.is_set()
            hanging.set()
            await wire_named.stored_at_last(store, "key")
    finally:
        hanging.set()
    await eventually(lambda: not wire_named.server.alive, "all connections to be closed")
