"""Heads that are no HTTP, on raw sockets: each is answered or its connection closed, and the server lives on."""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from services.ingest.problems import Code
from tests.fuzz.heads import BODY, PAYLOAD, request
from tests.fuzz.sizes import Sizes
from tests.fuzz.target import HANG_S, Target, problem_of
from tests.harness.http_client import Answer
from tests.harness.waiting import until

_AT_ONCE = 100
_NOT_OURS = {Code.TRANSFER_CODING.value.status}  # the one 5xx that is the client's own doing


@pytest.fixture(scope="module")
def ingest_settings() -> dict[str, str]:
    """An ingest that does not wait for long for what never comes."""
    return {"HEAD_DEADLINE_S": "2", "BODY_DEADLINE_S": "2"}


async def first_answer(reader: asyncio.StreamReader, *, has_body: bool) -> Answer:
    """The first answer that is no interim one.

    Raises:
        asyncio.IncompleteReadError: the connection was closed before it was whole.

    """
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.rstrip("\r\n").split("\r\n")
        version, status, *_ = status_line.split(" ")
        assert version == "HTTP/1.1"
        if not status.startswith("1"):
            break
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"])) if has_body else b""
    return Answer(int(status), headers, body)


async def ask(ingest: Target, sent: bytes) -> Answer | None:
    """The answer, or None where the connection was closed without one.

    Raises:
        TimeoutError: neither within the time of a hang.

    """
    parts = urlsplit(ingest.tier.url)
    async with asyncio.timeout(HANG_S):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(sent)
            return await first_answer(reader, has_body=not sent.lstrip(b"\r\n").startswith(b"HEAD"))
        except (ConnectionError, asyncio.IncompleteReadError):
            return None
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def hold(answer: Answer | None) -> None:
    """No answer at all, or one in its form that is no fault of ours."""
    if answer is None or answer.status < 400:
        return
    assert answer.status < 500 or answer.status in _NOT_OURS
    if answer.body:
        problem_of(answer)


async def ask_all(ingest: Target, seeds: range) -> Counter[str]:
    """Ask one request a seed, all at once; how often which status, or none."""
    requests = [request(seed) for seed in seeds]
    counts: Counter[str] = Counter()
    for sent, answer in zip(requests, await asyncio.gather(*(ask(ingest, sent) for sent in requests)), strict=True):
        counts[str(answer.status) if answer else "closed"] += 1
        try:
            hold(answer)
        except AssertionError as error:
            error.add_note(f"{answer} to {sent[:4000]!r}")
            raise
    return counts


def test_no_head_harms(ingest: Target, sizes: Sizes, record_property: Callable[[str, object], None]) -> None:
    """Whatever a head says, its client is told or the connection ends in time, and the next one is served."""
    first = secrets.randbelow(2**32)
    counts: Counter[str] = Counter()
    for start in range(first, first + sizes.heads, _AT_ONCE):
        counts += asyncio.run(ask_all(ingest, range(start, start + _AT_ONCE)))
    record_property("fuzz", ", ".join(f"{count}x {status}" for status, count in sorted(counts.items())))
    assert counts["closed"] < counts.total() * 0.2
    _, answer = ingest.post(BODY)
    assert answer.status == 200
    assert {record.value for record in ingest.topic.records()} == {PAYLOAD}
    until(lambda: ingest.tier.metric("spillway_ingest_in_flight_bytes") == 0, "the bytes to be free", deadline_s=10)
    ingest.assert_unharmed()


def test_no_100_behind_a_refusal(ingest: Target) -> None:
    """A body that was expected and makes no sense is answered 400; found by the fuzzer, as an error in the log."""
    head = b"POST /v1/collections HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = asyncio.run(ask(ingest, head + b"no chunk"))
    assert answer is not None
    assert answer.status == 400
    ingest.assert_unharmed()
