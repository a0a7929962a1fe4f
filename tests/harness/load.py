"""A client of the ingest tier that remembers what it was told. Every payload it posts differs from every other.

Owns a thread with an event loop, so that a test's thread is free to break things meanwhile.
"""

import asyncio
import io
import itertools
import json
from collections.abc import Sequence

import aiohttp

from tests.harness.background import Background
from tests.harness.oracle import Answers

_serials = itertools.count()


def payloads(count: int, *, size: int = 200) -> list[bytes]:
    """As many JSON objects of about `size` bytes, no two of one run alike."""
    made = []
    for _ in range(count):
        head = b'{"serial": %d, "fill": "' % next(_serials)
        made.append(head + b"x" * max(size - len(head) - 2, 0) + b'"}')
    return made


def envelope(items: Sequence[bytes]) -> bytes:
    """A collection with these payloads, byte for byte."""
    return b'{"version": "1", "token": "t", "data": [' + b",".join(items) + b"]}"


async def post(session: aiohttp.ClientSession, url: str, items: Sequence[bytes], answers: Answers) -> int:
    """Post one collection and enter the answer; its status, 0 where none came.

    Raises:
        AssertionError: an answer that the contract has no place for.

    """
    try:
        body_in = io.BytesIO(envelope(items))  # bytes of over 1 MB would draw a warning
        async with session.post(url, data=body_in, headers={"Content-Type": "application/json"}) as response:
            status, body = response.status, await response.read()
    except aiohttp.ClientConnectorError:
        answers.statuses[0] += 1
        answers.refused.update(items)  # no connection: nothing left this process
        return 0
    except (aiohttp.ClientError, TimeoutError):
        answers.statuses[0] += 1
        answers.unknown.update(items)
        return 0
    answers.statuses[status] += 1
    if status == 200:
        answers.accept(json.loads(body)["ids"], items)
    elif json.loads(body).get("outcome") == "not_written":
        answers.refused.update(items)
    else:
        answers.unknown.update(items)
    return status


def post_at_once(url: str, collections: Sequence[Sequence[bytes]], answers: Answers, *, deadline_s: float = 60) -> None:
    """Post all collections at the same time, one connection each."""

    async def run() -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=deadline_s)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
            for items in collections:
                group.create_task(post(session, url, items, answers))

    asyncio.run(run())


class Load(Background):
    """Steady load from `__enter__` to `stop`: `per_s` collections of `items` payloads a second, from `clients` clients.

    `size` is a payload's, in bytes; `answers` goes on with what clients were told before. A refused or unknown
    collection is not posted again: its payloads are entered as such, and the next one goes out.
    """

    def __init__(
        self,
        url: str,
        *,
        clients: int = 4,
        items: int = 5,
        per_s: float = 40,
        size: int = 200,
        answers: Answers | None = None,
    ) -> None:
        super().__init__("load", stop_deadline_s=30)
        self.answers = Answers() if answers is None else answers
        self._url = url
        self._clients = clients
        self._items = items
        self._size = size
        self._pause_s = clients / per_s

    @property
    def accepted(self) -> int:
        """Payloads answered 200 so far."""
        return len(self.answers.accepted)

    def stop(self) -> Answers:
        """End the load once the posts under way are answered; everything that clients were told.

        Raises:
            BaseException: what ended a client early.

        """
        assert self.ended(), "a client of the load still waits for its answer"
        return self.answers

    async def run(self) -> None:
        """Post until it is time to stop."""
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            for _ in range(self._clients):
                group.create_task(self._client(session))

    async def _client(self, session: aiohttp.ClientSession) -> None:
        loop = asyncio.get_running_loop()
        while not self.stopping.is_set():
            due = loop.time() + self._pause_s
            await post(session, self._url, payloads(self._items, size=self._size), self.answers)
            await asyncio.sleep(max(due - loop.time(), 0))  # the pace of the load, not a wait for anything
