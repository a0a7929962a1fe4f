"""Clients that do as the contract tells them, and the judge of what became of it: Kafka's log, and nothing else.

Owns a thread with an event loop, so that a test's thread is free to break things meanwhile. A try that is refused
(nothing was written) is followed by one with other bytes, so that its own can be looked for in the log; one of which
nobody knows (504, a lost answer) is repeated byte for byte under its Idempotency-Key until its end is known.
"""

import asyncio
import contextlib
import io
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

import aiohttp
import psutil

from shared.record import new_collection_id
from tests.harness import hostile
from tests.harness.background import Background
from tests.harness.broker import Topic
from tests.harness.load import envelope, payloads
from tests.harness.oracle import Answers, Verdict, judge
from tests.harness.pipeline import GROWTH_MAX_BYTES
from tests.harness.tiers import IngestTier
from tests.harness.waiting import until

CANARY = "canary"
"""Header of records that a test writes by itself: they are nobody's payloads."""

_PAUSE_MAX_S = 0.3  # in place of a longer Retry-After: the faults of tests are short
_MEMORY_EVERY_S = 0.2
_STOP_DEADLINE_S = 60
_CHUNKS = 10  # of a body that is sent slowly


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer: when it came (monotonic), its status (0: none came), the problem's code ("" for a 200)."""

    at_s: float
    asked_s: float
    status: int
    code: str


class RuleFollowers(Background):
    """`clients` clients of one ingest, from `__enter__` to `stop`: each posts the next collection when its last is 200.

    Args:
        tier: the ingest.
        clients: how many post at the same time.
        items: payloads a collection.
        size: of a payload, bytes.
        every_s: least time between two collections of one client.
        headers: of each request, beyond its own.
        upload_s: how long a client takes to send a body, in chunks; 0 sends it at once.
        answers: of others before them, to go on with.

    """

    def __init__(
        self,
        tier: IngestTier,
        *,
        clients: int = 4,
        items: int = 3,
        size: int = 200,
        every_s: float = 0.05,
        headers: Mapping[str, str] | None = None,
        upload_s: float = 0,
        answers: Answers | None = None,
    ) -> None:
        self.answers = Answers() if answers is None else answers
        self.seen: list[Seen] = []  # every answer, in the order in which they came
        self.grown_bytes = 0  # the most that the ingest's resident memory lay above where it began
        super().__init__("rule-following", stop_deadline_s=_STOP_DEADLINE_S)
        self._tier = tier
        self._clients = clients
        self._items = items
        self._size = size
        self._every_s = every_s
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._upload_s = upload_s

    def since(self, asked_s: float) -> list[Seen]:
        """Answers to what was asked after that moment."""
        return [one for one in list(self.seen) if one.asked_s >= asked_s]

    def codes(self, asked_s: float = 0) -> Counter[str]:
        """How often each code was told to what was asked after that moment; "" is a 200, "lost" no answer."""
        return Counter(one.code for one in self.since(asked_s))

    def wait_accepted(self, what: str, *, deadline_s: float, more: int = 1) -> float:
        """Wait until `more` collections that are asked from now on are answered 200; how long it took.

        Raises:
            AssertionError: they are not in time; shows what was told instead.

        """
        self.check()
        began_s = time.monotonic()
        try:
            until(
                lambda: sum(one.status == 200 and one.at_s >= began_s for one in list(self.seen)) >= more,
                what,
                deadline_s=deadline_s,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}; told meanwhile: {self.codes(began_s)}") from None
        return time.monotonic() - began_s

    def stop(self) -> Answers:
        """End them once each has its 200; everything that they were told.

        Raises:
            BaseException: what ended a client early.

        """
        assert self.ended(), f"a client never got its 200; told of late: {self.seen[-5:]}"
        return self.answers

    async def run(self) -> None:
        """Send until it is time to stop."""
        watch = asyncio.create_task(self._watch_memory())
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
            for _ in range(self._clients):
                group.create_task(self._client(session))
        watch.cancel()
        await asyncio.wait({watch})

    async def _client(self, session: aiohttp.ClientSession) -> None:
        loop = asyncio.get_running_loop()
        while not self.stopping.is_set():
            due = loop.time() + self._every_s
            await self._collection(session)
            await asyncio.sleep(max(due - loop.time(), 0))  # the pace of the load, not a wait for anything

    async def _collection(self, session: aiohttp.ClientSession) -> None:
        """One collection until its 200."""
        in_doubt = False
        items, key = self._next()
        while True:
            asked_s = time.monotonic()
            status, document, pause_s = await self._post(session, envelope(items), key)
            code = "" if status == 200 else str(document.get("code", "lost"))
            self.seen.append(Seen(time.monotonic(), asked_s, status, code))
            self.answers.statuses[status] += 1
            if status == 200:
                self.answers.accept(document["ids"], items)
                return
            if document.get("outcome", "unknown") == "unknown":
                in_doubt = True
                self.answers.unknown.update(items)
            elif not in_doubt:
                self.answers.refused.update(items)
                items, key = self._next()
            assert status in {0, 408, 429, 503, 504}, f"{status} {document}"
            await asyncio.sleep(pause_s)  # as the contract asks of a client

    def _next(self) -> tuple[list[bytes], str]:
        return payloads(self._items, size=self._size), new_collection_id(time.time_ns() // 1_000_000, os.urandom(10))

    async def _post(
        self, session: aiohttp.ClientSession, body: bytes, key: str
    ) -> tuple[int, dict[str, list[str]], float]:
        headers = {**self._headers, "Idempotency-Key": key}
        try:
            data = _slowly(body, self._upload_s) if self._upload_s else io.BytesIO(body)
            async with session.post(self._tier.collections_url, data=data, headers=headers) as response:
                document = json.loads(await response.read())
                pause_s = min(float(response.headers.get("Retry-After", 0.1)), _PAUSE_MAX_S)
                return response.status, document, pause_s
        except (aiohttp.ClientError, TimeoutError):
            return 0, {}, 0.1

    async def _watch_memory(self) -> None:
        process = psutil.Process(self._tier.process.pid)
        began = process.memory_info().rss
        with contextlib.suppress(psutil.NoSuchProcess):
            while True:
                self.grown_bytes = max(self.grown_bytes, process.memory_info().rss - began)
                await asyncio.sleep(_MEMORY_EVERY_S)


async def _slowly(body: bytes, upload_s: float) -> AsyncIterator[bytes]:
    size = -(-len(body) // _CHUNKS)
    for start in range(0, len(body), size):
        yield body[start : start + size]
        await asyncio.sleep(upload_s / _CHUNKS)  # the pace of a slow line, not a wait for anything


@dataclass(frozen=True, slots=True)
class _Record:
    """A record as the oracle wants it."""

    body: bytes
    sequence: int


def judge_log(answers: Answers, topic: Topic) -> Verdict:
    """Compare what clients were told with every record of the topic, asked from the broker itself.

    What hostile clients sent is left out: they follow no rules, and some of it may be written (504).
    Bytes under two ids, which would be two objects, count as `second_key`: each is one payload of one Idempotency-Key.
    """
    found: dict[str, list[_Record]] = defaultdict(list)
    ids: dict[bytes, set[str]] = defaultdict(set)
    for record in topic.records():
        headers = dict(record.headers)
        if CANARY not in headers and headers.get("spillway-version") != hostile.VERSION:
            record_id, body = headers["spillway-id"].decode(), record.value or b""
            found[record_id].append(_Record(body, record.offset + 1))
            ids[body].add(record_id)
    return replace(judge(answers, found), second_key=[min(several) for several in ids.values() if len(several) > 1])


def settle(
    tier: IngestTier, topic: Topic, *clients: RuleFollowers, growth_max_bytes: int = GROWTH_MAX_BYTES
) -> Verdict:
    """End the clients, who share their answers, once each has its 200, and judge all that every fault test promises.

    Raises:
        AssertionError: a 200 is not in the topic as it was told, something refused is, the ingest has grown or ended.

    """
    for one in clients:
        answers = one.stop()
    verdict = judge_log(answers, topic)
    told = sum((one.codes() for one in clients), Counter[str]())
    assert not verdict.faults, f"{verdict}\ntold: {told}"
    assert verdict.accepted > 0
    grown_bytes = max(one.grown_bytes for one in clients)
    assert grown_bytes < growth_max_bytes, f"ingest grew by {grown_bytes} bytes"
    assert tier.process.returncode is None
    return verdict
