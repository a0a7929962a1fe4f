"""A request whose head came before, byte for byte: what surrounds it is told apart as the parser would.

That it gets the same answer as any other is `test_ingest_ways`'.
"""

import pytest

from services.ingest.batching import Submission
from tests.harness.front import front
from tests.harness.raw_http import post
from tests.harness.waiting import eventually

pytestmark = pytest.mark.usefixtures("loop_factory")

BODY = b'{"version":"1","data":[1,[2]]}'


async def test_a_known_head_with_more_or_less_than_its_body() -> None:
    """The parser has it: a part of a body is waited for, and what comes behind one is the next request."""
    async with front() as served, await served.connect() as client:
        assert (await client.ask(post(BODY))).status == 200
        await client.send(post(BODY) + post(BODY)[:-1])
        assert (await client.answer()).status == 200
        assert (await client.ask(post(BODY)[-1:])).status == 200
        await client.send(b"\r\n")  # some clients end a body so (RFC 9112 §2.2)
        await eventually(lambda: served.connections.heads, "the next head's deadline")
        assert (await client.ask(post(BODY))).status == 200
        assert not served.connections.heads
        assert len(served.submitted) == 4


async def test_a_known_head_waits_for_the_answer_before_it() -> None:
    """Also when it comes in a read of its own."""
    waiting: list[Submission] = []

    def submit(submission: Submission) -> None:
        waiting.append(submission)

    async with front(submit=submit) as served, await served.connect() as client:
        await eventually(lambda: served.connections.fresh, "the connection")
        (connection,) = served.server.server_state.connections
        for answered in range(3):
            await client.send(post(BODY))
            await eventually(lambda: len(waiting) > answered, "the collection")  # noqa: B023 - awaited here
            if answered == 2:
                await client.send(post(BODY))
                await eventually(lambda: connection.pipeline, "the next to wait")
                assert len(waiting) == 3
            waiting[answered].settle(None)
            assert (await client.answer()).status == 200
        await eventually(lambda: len(waiting) == 4, "its turn")
        waiting[3].settle(None)
        assert (await client.answer()).status == 200


async def test_the_end_of_a_head_is_none() -> None:
    """A head that came in two reads is not known by its second half, which alone is no request."""
    request = post(BODY)
    async with front() as served:
        client = await served.connect()
        await eventually(lambda: served.connections.fresh, "the connection")
        await client.send(request[:20])
        await eventually(lambda: not served.connections.fresh, "the first read")
        assert (await client.ask(request[20:])).status == 200
        assert (await client.ask(request[20:])).status == 400
        assert len(served.submitted) == 1


@pytest.mark.parametrize("framing", ["Content-Length: %d", "Transfer-Encoding: chunked"])
async def test_a_known_head_in_the_body_of_another_request_is_no_request(framing: str) -> None:
    """Also when that request is answered before its body comes: its sender says what is its body, and not we."""
    inner = post(BODY)
    chunked = framing.startswith("T")
    body = b"%x\r\n" % len(inner) + inner + b"\r\n0\r\n\r\n" if chunked else inner
    head = f"GET /openapi.json HTTP/1.1\r\nHost: x\r\n{framing if chunked else framing % len(inner)}\r\n\r\n".encode()
    first = body.index(inner)
    async with front() as served, await served.connect() as client:
        assert (await client.ask(post(BODY))).status == 200
        assert (await client.ask(head + body[:first])).headers["content-type"] == "application/json"
        (connection,) = served.server.server_state.connections
        connection.data_received(inner)
        assert len(served.submitted) == 1
        assert (await client.ask(body[first + len(inner) :] + post(BODY))).status == 200
        assert len(served.submitted) == 2


async def test_a_body_is_no_part_of_a_known_head() -> None:
    """A read that begins with the rest of one, of a request that is answered already, is not kept."""
    rest = b"GET /nowhere HTTP/1.1\r\nX: "  # then the next line is its own, too
    async with front() as served, await served.connect() as client:
        head = f"GET /openapi.json HTTP/1.1\r\nHost: x\r\nContent-Length: {len(rest)}\r\n\r\n".encode()
        assert (await client.ask(head)).status == 200
        assert (await client.ask(rest + post(BODY))).status == 200
        async with await served.connect() as other:
            assert (await other.ask(rest + post(BODY))).status == 404
        assert len(served.submitted) == 1


async def test_an_empty_line_behind_a_known_head_is_no_head() -> None:
    """Also on a connection of which the parser has seen nothing: no deadline begins with it (RFC 9112 §2.2)."""
    waiting: list[Submission] = []

    def submit(submission: Submission) -> None:
        waiting.append(submission)

    async with front(submit=submit) as served:
        for asked in range(2):
            client = await served.connect()
            await eventually(lambda: served.connections.fresh, "the connection")
            (connection,) = served.connections.fresh
            connection.data_received(post(BODY))  # type: ignore[attr-defined]
            connection.data_received(b"\r\n")  # type: ignore[attr-defined]
            assert not served.connections.heads
            waiting[asked].settle(None)
            assert (await client.answer()).status == 200


async def test_a_known_head_on_a_server_that_drains() -> None:
    """Its answer is the connection's last."""
    async with front() as served, await served.connect() as client:
        assert (await client.ask(post(BODY))).status == 200
        served.connections.last_requests = True
        answer = await client.ask(post(BODY))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.ended() == b""
