"""Asks the brokers, apart from the producer: all of them at the same time, and nobody waits for the slow ones.

Owns one connection to each address that it is told to ask, and the questions that are still out on them. The
producer's own client is no witness of whether Kafka is there: it asks one broker after the other, for a whole request
time-out where that one is frozen, and makes its connections one at a time behind one lock; and what is asked on a
connection with a produce waits until that produce is acked. Decides nothing: what silence means is `producer`'s to say.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.admin.config_resource import ConfigResource
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

Address = tuple[str, int]
Connect = Callable[[str, int], Awaitable[AIOKafkaConnection]]
"""Opens one connection to a broker, security and all; its requests have a time-out of their own."""

_GRACE_S = 0.05  # how far behind the first answer another may be to count
_SILENT_AFTER_S = 1.5
_CLOSE_BOUND_S = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the broker at `address` says of the cluster and the topic: a MetadataResponse of aiokafka.

    Can be asked on, as an admin client can: by `shared.kafka.topic_facts`.
    """

    address: Address
    response: Any
    connection: AIOKafkaConnection

    @property
    def brokers(self) -> set[Address]:
        """The addresses of the brokers that it names."""
        return {(host, port) for _, host, port, *_ in self.response.brokers}

    async def describe_topics(self, _names: Sequence[str]) -> list[dict[str, Any]]:
        """The topics that were asked for."""
        topics: list[dict[str, Any]] = self.response.to_object()["topics"]
        return topics

    async def describe_configs(self, resources: Sequence[ConfigResource]) -> list[Any]:
        """Ask the same broker for configurations."""
        wanted = [(resource.resource_type, resource.name, None) for resource in resources]
        return [await self.connection.send(DescribeConfigsRequest(wanted))]


class Brokers:
    """Connections for questions only."""

    def __init__(self, connect: Connect, topic: str) -> None:
        self._connect = connect
        self._topic = topic
        self._connections: dict[Address, AIOKafkaConnection] = {}
        # One question a broker: to a frozen one it stays out, so that its thaw is noticed at once.
        self._out: dict[Address, asyncio.Task[Answer]] = {}
        self._owing: dict[Address, float] = {}  # since when a broker owes an answer, over several questions

    async def ask(self, addresses: Collection[Address], bound_s: float) -> Answer:
        """Ask all these brokers for the topic's metadata. Connections to others are closed.

        Returns:
            The first answer, or one of those right behind it, by chance: the fastest broker may be one that is cut off
            from the others, whose word is old.

        Raises:
            TimeoutError: at least one was silent for `bound_s` seconds, and none answered.
            KafkaError, OSError: each of them failed; the last failure.

        """
        for address in (self._connections.keys() | self._out.keys()) - set(addresses):
            self._drop(address)
        for address in addresses:
            if address not in self._out or self._out[address].done():  # an old answer is none
                self._out[address] = asyncio.create_task(self._question(address))
                self._out[address].add_done_callback(_seen)
                self._owing.setdefault(address, time.monotonic())
        failure: BaseException = TimeoutError("no answer")
        waiting = {self._out[address] for address in addresses}
        try:
            async with asyncio.timeout(bound_s):
                while waiting:
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    answers = [task.result() for task in done if task.exception() is None]
                    if answers:
                        break
                    failure = done.pop().exception() or failure
                else:
                    raise failure
        except TimeoutError:
            raise TimeoutError("no answer") from None
        if waiting:
            done, _ = await asyncio.wait(waiting, timeout=_GRACE_S)
            answers += [task.result() for task in done if task.exception() is None]
        return random.choice(answers)  # noqa: S311 - nobody gains by guessing

    def silent(self, address: Address) -> bool:
        """Whether the broker has owed an answer for long: whoever sends to it would wait in vain."""
        since_s = self._owing.get(address)
        return since_s is not None and time.monotonic() - since_s > _SILENT_AFTER_S

    async def close(self) -> None:
        """End the questions and the connections."""
        ending: list[asyncio.Future[Any]] = list(self._out.values())
        for address in self._connections.keys() | self._out.keys():
            closed = self._drop(address)
            ending += [] if closed is None else [closed]
        if ending:
            await asyncio.wait(ending, timeout=_CLOSE_BOUND_S)

    async def _question(self, address: Address) -> Answer:
        try:
            connection = self._connections.get(address)
            if connection is None or not connection.connected():
                connection = self._connections[address] = await self._connect(*address)
            # A question must not make the topic: brokers do by default, with one partition.
            response = await connection.send(MetadataRequest([self._topic], allow_auto_topic_creation=False))
            if not response.brokers:
                raise KafkaConnectionError(f"the broker at {address} is not yet one of a cluster")
        except (KafkaError, OSError, TimeoutError) as error:
            if connection is not None:
                connection.close()
            if not isinstance(error, TimeoutError):  # it has said no, or hung up
                self._owing.pop(address, None)
            raise
        self._owing.pop(address, None)
        return Answer(address, response, connection)

    def _drop(self, address: Address) -> "asyncio.Future[Any] | None":
        task = self._out.pop(address, None)
        if task is not None:
            task.cancel()
        self._owing.pop(address, None)
        connection = self._connections.pop(address, None)
        return None if connection is None else connection.close()


def _seen(task: asyncio.Task[Answer]) -> None:
    """Look at a failure that nobody waits for any more, or asyncio logs it."""
    if not task.cancelled():
        task.exception()
