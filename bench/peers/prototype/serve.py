"""The bare prototype of ingest: what an HTTP server, a slicer and a Kafka client cost with nothing between them.

A peer of the benchmark: the floor that ingest's checks, bounds and metrics are measured against. It writes the records
that the uploader reads and answers only when all are acknowledged, but it refuses nothing: no limits, no deadlines, no
authentication, no check of UTF-8 or of duplicate keys. It must never serve anybody.
"""

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import msgspec
import uvicorn
import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

COLLECTIONS_A_BATCH_MAX = 500

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[str, bytes]]


class Collection(msgspec.Struct):
    """The envelope; payloads stay the client's bytes."""

    version: str
    token: str
    data: list[msgspec.Raw]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A collection whose request waits for its ack."""

    payloads: list[msgspec.Raw]
    uuid: str
    headers: Headers
    done: asyncio.Future[None]


class Writer:
    """The one task that writes to a partition: it takes whatever waits as one batch, and one batch at a time."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partition: int) -> None:
        self._producer = producer
        self._topic = topic
        self._partition = partition
        self._queue: list[Waiting] = []
        self._awake = asyncio.Event()

    def put(self, waiting: Waiting) -> None:
        """Take a collection for one of the next batches."""
        self._queue.append(waiting)
        self._awake.set()

    async def run(self) -> None:
        """Write for ever; a failed batch ends the task, and those who wait for it wait in vain."""
        while True:
            await self._awake.wait()
            taken, self._queue = self._queue[:COLLECTIONS_A_BATCH_MAX], self._queue[COLLECTIONS_A_BATCH_MAX:]
            if not self._queue:
                self._awake.clear()
            batch = self._producer.create_batch()
            for waiting in taken:
                for index, payload in enumerate(waiting.payloads):
                    identity = ("spillway-id", f"{waiting.uuid}-{index}".encode())
                    headers = [identity, *waiting.headers, ("spillway-index", b"%d" % index)]
                    record = {"key": None, "value": bytes(payload), "timestamp": None, "headers": headers}
                    if batch.append(**record) is None:  # it is full
                        await self._send(batch)
                        batch = self._producer.create_batch()
                        batch.append(**record)
            await self._send(batch)
            for waiting in taken:
                waiting.done.set_result(None)

    async def _send(self, batch: BatchBuilder) -> None:
        batch.close()
        await (await self._producer.send_batch(batch, self._topic, partition=self._partition))


class Application:
    """A bare ASGI application: body, slices, a writer in turn, 200."""

    def __init__(self, writers: list[Writer]) -> None:
        self._writers = writers
        self._decode = msgspec.json.Decoder(Collection).decode
        self._encode = msgspec.json.Encoder().encode
        self._turn = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer any GET, and any POST as a collection."""
        body = b"" if scope["method"] == "GET" else await self._stored(receive)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stored(self, receive: Receive) -> bytes:
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        collection = self._decode(body)
        identity = str(uuid.uuid4())
        done = asyncio.get_running_loop().create_future()
        self._turn = (self._turn + 1) % len(self._writers)
        headers = _headers(collection, identity)
        self._writers[self._turn].put(Waiting(collection.data, identity, headers, done))
        await done
        count = len(collection.data)
        return self._encode({"accepted": count, "ids": [f"{identity}-{index}" for index in range(count)]})


def _headers(collection: Collection, identity: str) -> Headers:
    return [
        ("spillway-folder", b"payloads"),
        ("spillway-version", collection.version.encode()),
        ("spillway-received-ns", b"%d" % time.time_ns()),
        ("spillway-request-id", identity.encode()),
        ("spillway-count", b"%d" % len(collection.data)),
        ("content-type", b"application/json"),
    ]


async def main() -> None:
    """Serve until SIGTERM."""
    topic = os.environ["KAFKA_TOPIC"]
    producer = AIOKafkaProducer(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP"], acks="all", max_batch_size=1_000_000)
    async with producer:
        partitions = await producer.partitions_for(topic)
        writers = [Writer(producer, topic, partition) for partition in sorted(partitions)]
        running = [asyncio.create_task(writer.run()) for writer in writers]
        config = uvicorn.Config(
            Application(writers),
            host="127.0.0.1",
            port=int(os.environ["PORT"]),
            http="httptools",
            lifespan="off",
            access_log=False,
            log_level="warning",
        )
        await uvicorn.Server(config).serve()
        for task in running:
            task.cancel()


if __name__ == "__main__":
    uvloop.run(main())
