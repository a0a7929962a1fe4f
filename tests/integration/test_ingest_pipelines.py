"""Requests behind one another, in chunks, or offering another protocol: what belongs to one counts for no other."""

import asyncio
import contextlib

import pytest

from services.ingest.batching import Submission
from services.ingest.problems import Problem
from tests.harness.front import front
from tests.harness.raw_http import PATH, post
from tests.harness.waiting import eventually

pytestmark = pytest.mark.usefixtures("loop_factory")

BODY = b'{"version":"1","data":[1]}'
HEAD_LIMIT = {"max_head_bytes": 4096}


async def test_a_request_is_not_told_of_its_followers_mistake() -> None:
    """Bytes beyond Content-Length are another request, and a broken one: the first gets its own answer, not that 400.

    A 400 says that nothing was written, and this collection is being written.
    """
    release = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    def submit(submission: Submission) -> Problem | None:
        async def later() -> None:
            await release.wait()
            submission.settle(None)

        tasks.add(asyncio.create_task(later()))
        return None

    async with front(submit=submit) as served, await served.connect() as client:
        await client.send(post(BODY) + b"\x00garbage\r\n\r\n")
        await eventually(lambda: served.submitted, "the submission")
        release.set()
        answer = await client.answer()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert await client.ended() == b""


async def test_pipelined_requests_before_a_broken_one_are_all_answered() -> None:
    """Three requests and a broken fourth in one write: three answers, then the end."""
    async with front() as served, await served.connect() as client:
        await client.send(post(BODY) * 3 + b"BAD BAD BAD\r\n\r\n")
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 200]
        assert await client.ended() == b""
    assert len(served.submitted) == 3


async def test_many_requests_in_one_write_are_all_answered() -> None:
    """Bounds of a head and of framing hold for each request, not for a read that has parts of several."""
    sizes = [200 + 997 * number for number in range(40)]
    requests = b"".join(post(b'{"version":"1","data":["%s"]}' % (b"x" * size)) for size in sizes)
    async with front(HEAD_LIMIT) as served, await served.connect() as client:
        sending = asyncio.create_task(client.send(requests))
        assert [(await client.answer()).status for _ in sizes] == [200] * len(sizes)
        await sending
    assert [len(submission.values[0]) for submission in served.submitted] == [size + 2 for size in sizes]


async def test_a_pipeline_goes_on_wherever_its_reads_end() -> None:
    """Requests of every size, in writes of every size: none is forgotten between two reads."""
    sizes = [(number * 7919) % 9000 for number in range(300)]
    requests = b"".join(post(b'{"version":"1","data":["%s"]}' % (b"x" * size)) for size in sizes)
    async with front() as served, await served.connect() as client:

        async def send() -> None:
            at = 0
            for turn in range(len(requests)):
                step = 1 + (turn * 104_729) % 70_000
                await client.send(requests[at : at + step])
                at += step
                if at >= len(requests):
                    return

        sending = asyncio.create_task(send())
        assert [(await client.answer()).status for _ in sizes] == [200] * len(sizes)
        await sending
        assert served.admission.in_flight_bytes == 0


async def test_who_offers_an_upgrade_and_closes_is_closed() -> None:
    """What else the Connection header says still holds, and so does the version."""
    upgrade = b"Upgrade: h2c\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
    for head in (b"HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade", b"HTTP/1.0\r\nConnection: Upgrade"):
        async with front() as served, await served.connect() as client:
            assert (await client.ask(b"POST %s %s\r\n%s" % (PATH.encode(), head, upgrade))).status == 200
            assert await client.ended() == b""


CHUNKED = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


@pytest.mark.parametrize("pieces", [1, 2])
async def test_trailers_are_no_headers(pieces: int) -> None:
    """Whether they come in one read with the head or not: what stands behind the body decides nothing."""
    trailers = b"Idempotency-Key: x\r\nContent-Encoding: br\r\nX-Request-Id: sneaked\r\n"
    body = b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(BODY), BODY, trailers)
    async with front() as served, await served.connect() as client:
        if pieces == 1:
            await client.send(CHUNKED + body)
        else:
            await client.send(CHUNKED + body[:10])
            await eventually(lambda: served.admission.in_flight_bytes, "the body's first bytes")
            await client.send(body[10:])
        answer = await client.answer()
        assert answer.status == 200
        assert answer.headers["x-request-id"] != "sneaked"


@pytest.mark.parametrize("endless", [b"0\r\nX: " + b"v" * 300_000, b"1;" + b"x" * 300_000])
async def test_trailers_and_chunk_extensions_are_bounded(endless: bytes) -> None:
    """What is no body is not kept without end, and does not wait for the body's deadline."""
    async with front(HEAD_LIMIT) as served, await served.connect() as client:
        await client.send(CHUNKED + b"1\r\n{\r\n")
        await eventually(lambda: served.admission.in_flight_bytes, "the body's first byte")
        await client.send(endless)
        answer = await client.answer()
        assert (answer.status, answer.code) == (400, "invalid_http")
        assert await client.ended() == b""
    assert served.submitted == []


async def test_a_body_in_chunks_of_one_byte_is_taken() -> None:
    """The worst that a legal client does to its framing."""
    large = b'{"version":"1","data":["' + b"x" * 20_000 + b'"]}'
    async with front(HEAD_LIMIT) as served, await served.connect() as client:
        await client.send(CHUNKED)
        for start in range(0, len(large), 500):
            await client.send(b"".join(b"1\r\n%c\r\n" % byte for byte in large[start : start + 500]))
        assert (await client.ask(b"0\r\n\r\n")).status == 200


async def test_an_offered_upgrade_is_declined_and_the_request_served() -> None:
    """Java's client offers h2c with its first request: its body counts, and so does the next request."""
    headers = (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA",
    )
    async with front() as served, await served.connect() as client:
        assert (await client.ask(post(BODY, *headers))).status == 200
        assert (await client.ask(post(BODY))).status == 200
        await client.send(post(BODY, *headers) + post(BODY))
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
    assert [submission.values for submission in served.submitted] == [[b"1"]] * 4


async def test_large_bodies_are_no_large_heads() -> None:
    """Bytes of a pipelined body are not taken for the head that follows them."""
    large = b'{"version":"1","data":["' + b"x" * 100_000 + b'"]}'
    async with front(HEAD_LIMIT) as served, await served.connect() as client:
        both = post(large) + post(BODY)
        await client.send(both[:-40])
        assert (await client.answer()).status == 200
        assert (await client.ask(both[-40:])).status == 200


async def test_a_flood_of_tiny_requests_has_its_turn_like_others() -> None:
    """Fourteen thousand requests in a read are not fourteen thousand objects: others are served between them."""
    tiny = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with front() as served, await served.connect() as flood, await served.connect() as good:
        flood.writer.write(tiny * 9000)
        assert (await flood.answer()).status == 404
        assert (await good.ask(post(BODY))).status == 200
        assert [(await flood.answer()).status for _ in range(500)] == [404] * 500
        (connection,) = (each for each in served.server.server_state.connections if each.pipeline)
        assert len(connection.pipeline) < 300


async def test_many_upgrades_in_one_write_are_all_answered() -> None:
    """Each is read again without its offer, one after the other and not one inside the other."""
    one = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n".encode()
    async with front() as served, await served.connect() as client:
        sending = asyncio.create_task(client.send(one * 1500))
        assert [(await client.answer()).status for _ in range(1500)] == [405] * 1500
        await sending


async def test_no_head_is_late_because_another_was_begun_long_ago() -> None:
    """A client that always has the next request half sent keeps its connection for as long as it goes on."""
    request = post(BODY)
    async with front({"head_deadline_s": 0.4}) as served, await served.connect() as client:
        await client.send(request[:20])
        for _ in range(40):
            await client.send(request[20:] + request[:20])
            assert (await client.answer()).status == 200
            await asyncio.sleep(0.02)  # the pace of the client


async def test_what_cannot_be_held_back_ends_the_connection_with_its_answers() -> None:
    """Bytes behind a waiting request are a part of what is in flight. Where they do not fit, the requests that came
    whole are answered, the one that did not is not waited for, and nothing stays reserved.
    """
    held: list[Submission] = []

    def hold(submission: Submission) -> Problem | None:
        held.append(submission)
        return None

    settings = {"max_body_bytes": 100_000, "max_in_flight_bytes": 200_000}
    large = b'{"version":"1","data":["' + b"x" * 99_000 + b'"]}'
    async with front(settings, submit=hold) as served, await served.connect() as client:
        others = [await served.connect() for _ in range(2)]
        for other in others:
            await other.send(post(large))
        await eventually(lambda: len(held) == 2, "an almost full budget")
        await client.send(post(BODY) * 2 + post(large)[:3000])
        await eventually(lambda: len(held) == 3, "the first of the pipeline")
        await client.send(post(large)[3000:] + post(large)[:90_000])
        held[2].settle(None)
        await eventually(lambda: len(held) == 4, "the second")
        held[3].settle(None)
        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        with contextlib.suppress(ConnectionResetError):  # bytes that were still on their way
            assert await client.ended() == b""
        for submission in held[:2]:
            submission.settle(None)
        assert [(await other.answer()).status for other in others] == [200, 200]
        await eventually(lambda: served.admission.in_flight_bytes == 0, "nothing to be reserved")
    assert len(held) == 4
