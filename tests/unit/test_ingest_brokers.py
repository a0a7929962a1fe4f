"""Questions to all brokers at once, against connections that answer by script."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest, MetadataRequest_v5

from services.ingest.brokers import Address, Brokers

A, B, C = ("a", 1), ("b", 2), ("c", 3)
SHORT_S, LONG_S = 0.05, 5.0
THAWED = SimpleNamespace(brokers=[1])


class Connection:
    """One connection; each question waits until the test answers it."""

    def __init__(self) -> None:
        self.questions: list[asyncio.Future[object]] = []
        self.asked: list[MetadataRequest] = []
        self.open = True

    def connected(self) -> bool:
        return self.open

    def send(self, request: MetadataRequest) -> asyncio.Future[object]:
        self.asked.append(request)
        self.questions.append(asyncio.get_running_loop().create_future())
        return self.questions[-1]

    def close(self) -> None:
        self.open = False


class Net:
    """All connections that were made, by address; those to `away` are refused, those to `prompt` answer at once."""

    def __init__(self) -> None:
        self.made: dict[Address, list[Connection]] = {}
        self.away: set[Address] = set()
        self.prompt: set[Address] = set()
        self.brokers = Brokers(self.connect, "t")  # type: ignore[arg-type]

    async def connect(self, host: str, port: int) -> Connection:
        address = (host, port)
        if address in self.away:
            raise ConnectionRefusedError(f"{host}:{port}")
        connection = Connection()
        self.made.setdefault(address, []).append(connection)
        if address in self.prompt:
            connection.send = lambda request: _answered(request, host)  # type: ignore[method-assign]
        return connection

    def last(self, address: Address) -> Connection:
        return self.made[address][-1]


def _answered(_request: Any, host: str) -> asyncio.Future[object]:
    answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    answer.set_result(SimpleNamespace(host=host, brokers=[1]))
    return answer


@asynccontextmanager
async def net() -> AsyncIterator[Net]:
    made = Net()
    try:
        yield made
    finally:
        await made.brokers.close()


async def test_the_first_answer_wins() -> None:
    """One broker that answers is enough, however many are frozen or gone; nobody waits for those."""
    async with net() as n:
        n.away, n.prompt = {A}, {C}
        async with asyncio.timeout(LONG_S / 2):
            answer = await n.brokers.ask({A, B, C}, LONG_S)
        assert (answer.address, answer.response.host) == (C, "c")
        assert len(n.last(B).questions) == 1


async def test_nobody_has_always_the_word() -> None:
    """The fastest broker may be cut off from the others, its word on leaders old: each that answers is heard."""
    async with net() as n:
        n.prompt = {A, B}
        heard = {(await n.brokers.ask({A, B}, LONG_S)).address for _ in range(60)}
        assert heard == {A, B}


async def test_silence_is_told_from_refusal() -> None:
    """Where one broker is only silent it is a time-out; where each says no, that is the reason."""
    async with net() as n:
        n.away = {A}
        with pytest.raises(TimeoutError, match="no answer"):
            await n.brokers.ask({A, B}, SHORT_S)
        n.away = {A, C}
        with pytest.raises(ConnectionRefusedError):
            await n.brokers.ask({A, C}, LONG_S)


async def test_a_broker_without_a_cluster_is_no_answer() -> None:
    """Just started, or just thawed: it answers, knows of no broker, and cannot take anything yet."""
    async with net() as n:
        asking = asyncio.create_task(n.brokers.ask({A}, LONG_S))
        async with asyncio.timeout(LONG_S):
            while A not in n.made or not n.last(A).questions:  # noqa: ASYNC110 - a turn of the loop
                await asyncio.sleep(0)
        n.last(A).questions[0].set_result(SimpleNamespace(brokers=[]))
        with pytest.raises(KafkaConnectionError, match="not yet one of a cluster"):
            await asking


async def test_a_broker_that_owes_an_answer_is_silent() -> None:
    """Over as many questions as it takes, until it answers or says no: nobody is to be sent there meanwhile."""
    async with net() as n:
        n.prompt = {B}
        await n.brokers.ask({A, B}, LONG_S)
        async with asyncio.timeout(LONG_S):
            while not n.brokers.silent(A):  # noqa: ASYNC110 - time passes
                await asyncio.sleep(0.01)
        assert not n.brokers.silent(B)
        n.last(A).questions[0].set_exception(TimeoutError())  # of the request
        async with asyncio.timeout(LONG_S):
            while len(n.made[A]) == 1:
                await n.brokers.ask({A, B}, LONG_S)
        assert n.brokers.silent(A)
        n.last(A).questions[0].set_result(THAWED)
        await n.brokers.ask({A, B}, LONG_S)
        assert not n.brokers.silent(A)


async def test_a_frozen_broker_is_heard_at_its_thaw() -> None:
    """The question stays out, once; its answer counts for whoever asks at that moment."""
    async with net() as n:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await n.brokers.ask({A}, SHORT_S)
        assert len(n.last(A).questions) == 1
        asking = asyncio.create_task(n.brokers.ask({A}, LONG_S))
        await asyncio.sleep(0)
        n.last(A).questions[0].set_result(THAWED)
        assert (await asking).response is THAWED


async def test_an_old_answer_is_none() -> None:
    """What a broker said between two questions says nothing of now: it is asked anew."""
    async with net() as n:
        with pytest.raises(TimeoutError):
            await n.brokers.ask({A}, SHORT_S)
        n.last(A).questions[0].set_result(THAWED)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await n.brokers.ask({A}, SHORT_S)
        assert len(n.last(A).questions) == 2


async def test_a_broken_connection_is_made_anew() -> None:
    """A question that failed closes its connection; the next goes out on another."""
    async with net() as n:
        with pytest.raises(TimeoutError):
            await n.brokers.ask({A}, SHORT_S)
        n.last(A).questions[0].set_exception(KafkaConnectionError())
        with pytest.raises(KafkaConnectionError):
            await n.brokers.ask({A}, LONG_S)
        assert not n.last(A).open
        with pytest.raises(TimeoutError):
            await n.brokers.ask({A}, SHORT_S)
        assert len(n.made[A]) == 2


async def test_brokers_that_are_no_more_are_let_go() -> None:
    """A connection lives for as long as its broker is asked."""
    async with net() as n:
        n.prompt = {B}
        await n.brokers.ask({A, B}, LONG_S)
        assert n.last(A).open
        await n.brokers.ask({B}, LONG_S)
        assert not n.last(A).open
        assert n.last(B).open


async def test_a_question_makes_no_topic() -> None:
    """Brokers make a topic that is asked for by name, unless they are told not to: it would have one partition."""
    async with net() as n:
        with pytest.raises(TimeoutError):
            await n.brokers.ask({A}, SHORT_S)
        (request,) = n.last(A).asked
        built = request.build(MetadataRequest_v5)
        assert (built.topics, built.allow_auto_topic_creation) == (["t"], False)
