"""Connections at their edges, over real sockets: each behaves as RFC 9110 and 9112 say, and none can be held."""

import asyncio
import json

import pytest

from services.ingest.batching import Submission
from services.ingest.problems import Problem
from tests.harness.front import front
from tests.harness.raw_http import PATH, post
from tests.harness.waiting import eventually

pytestmark = pytest.mark.usefixtures("loop_factory")

BODY = b'{"version":"1","data":[1]}'
HEAD_LIMIT = {"max_head_bytes": 4096}


async def test_a_broken_request_alone_is_a_problem_document() -> None:
    """What is no HTTP gets a 400 in our form, with a request id."""
    async with front() as served, await served.connect() as client:
        answer = await client.ask(b"\x16\x03\x01 this is TLS, perhaps\r\n\r\n")
        assert (answer.status, answer.code) == (400, "invalid_http")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["x-request-id"] == answer.document["request_id"]
        assert await client.ended() == b""
    assert served.metric("spillway_ingest_requests_total", status="400", code="invalid_http") == 1


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (post(BODY, "Content-Length: 3"), 400, "invalid_http"),
        (post(BODY, "Transfer-Encoding: chunked"), 400, "invalid_http"),
        (post(b"", length=0), 400, "invalid_json"),
        (f"POST {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 400, "invalid_json"),
        (f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n".encode(), 400, "invalid_http"),
        (f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {'9' * 30}\r\n\r\n".encode(), 400, "invalid_http"),
        (f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".encode(), 413, "body_too_large"),
        (
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n".encode(),
            501,
            "transfer_coding",
        ),
        (
            f"POST {PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),
            400,
            "invalid_http",
        ),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed"),
        (f"POST {PATH} HTTP/1.1\r\nContent-Length: 0\r\n\r\n".encode(), 400, "invalid_http"),
        (f"POST {PATH} HTTP/1.1\r\nHost: x\r\nHost: y\r\nContent-Length: 0\r\n\r\n".encode(), 400, "invalid_http"),
        (f"OPTIONS {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 405, "method_not_allowed"),
        (f"POST {PATH}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode(), 404, "not_found"),
        (b"POST /%ff%00 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404, "not_found"),
        (b"POST /\xff HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 400, "invalid_http"),
    ],
)
async def test_lengths_codings_and_methods(request_bytes: bytes, status: int, code: str) -> None:
    """Absent, doubled, lying and impossible framing; other methods and paths: one clear problem each."""
    async with front() as served, await served.connect() as client:
        answer = await client.ask(request_bytes)
        assert (answer.status, answer.code) == (status, code)
    assert served.submitted == []


async def test_head_gets_the_head_alone() -> None:
    """HEAD is a 405 without a body (RFC 9110 §9.3.2), and the connection goes on."""
    async with front() as served, await served.connect() as client:
        await client.send(f"HEAD {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = await client.answer(head_only=True)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert (await client.ask(post(BODY))).status == 200


async def test_expect_100_continue() -> None:
    """The body is asked for when it is wanted, and only then."""
    async with front() as served, await served.connect() as client:
        await client.send(post(b"", "Expect: 100-continue", length=len(BODY)))
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await client.ask(BODY)).status == 200
        refused = await client.ask(post(b"", "Expect: 100-continue", "Content-Type: text/plain", length=1_000_000))
        assert (refused.status, refused.code) == (415, "unsupported_media_type")
        assert await client.ended() == b""  # no 100 after the answer


async def test_http_1_0() -> None:
    """An old client is answered, without a 100 that it cannot know, and its connection ends."""
    async with front() as served, await served.connect() as client:
        answer = await client.ask(
            b"POST %s HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s"
            % (PATH.encode(), len(BODY), BODY)
        )
        assert answer.status == 200
        assert await client.ended() == b""


async def test_a_half_closed_client_hears_its_answer() -> None:
    """Who has said all it has to say, and shut its side, is still told how it went."""
    held: list[Submission] = []

    def submit(submission: Submission) -> Problem | None:
        if held:
            submission.settle(None)
        held.append(submission)
        return None

    async with front(submit=submit) as served, await served.connect() as client, await served.connect() as other:
        client.writer.write(post(BODY))
        client.writer.write_eof()
        await eventually(lambda: held, "the submission")
        for _ in range(3):  # by then the server has seen that nothing more comes
            assert (await other.ask(post(BODY))).status == 200
        held[0].settle(None)
        assert (await client.answer()).status == 200
        assert await client.ended() == b""


async def test_a_body_cut_short_writes_nothing() -> None:
    """A client that leaves in mid-body: no collection, and its bytes are free again."""
    async with front() as served:
        async with await served.connect() as client:
            await client.send(post(BODY[:-5], length=len(BODY)))
            await eventually(lambda: served.admission.in_flight_bytes, "bytes in flight")
        await eventually(lambda: served.admission.in_flight_bytes == 0, "the bytes to be free")
        assert served.submitted == []
        assert served.metric("spillway_ingest_disconnects_total") == 1


async def test_an_unexpected_error_is_a_problem_without_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    """A 500 says where to look, and shows nothing of the inside; the log has the trace under the same id."""

    def submit(_: Submission) -> Problem | None:
        raise RuntimeError("a secret of the inside")

    async with front(submit=submit) as served, await served.connect() as client:
        answer = await client.ask(post(BODY, "X-Request-Id: broken-1"))
        assert (answer.status, answer.code, answer.document["outcome"]) == (500, "internal_error", "unknown")
        assert answer.document["request_id"] == answer.headers["x-request-id"] == "broken-1"
        assert b"secret" not in answer.body
        assert b"Traceback" not in answer.body
        assert "a secret of the inside" in caplog.text
        assert (await client.ask(post(BODY))).status == 500  # and the connection lives on


@pytest.mark.parametrize(
    "head",
    [
        f"POST {PATH} HTTP/1.1\r\n" + "".join(f"X-{n}: {'v' * 50}\r\n" for n in range(100)) + "\r\n",
        f"POST {PATH} HTTP/1.1\r\nX: " + "v" * 5000,  # a value that does not end
        f"POST {PATH}?" + "q" * 5000,
        f"POST {PATH} HTTP/1.1\r\n" + "N" * 5000,
    ],
)
@pytest.mark.parametrize("piece", [97, 100_000])
async def test_a_head_over_the_limit_is_431(head: str, piece: int) -> None:
    """However it comes, whole or in pieces, complete or not."""
    async with front(HEAD_LIMIT) as served, await served.connect() as client:
        for start in range(0, len(head), piece):
            client.writer.write(head[start : start + piece].encode())
        answer = await client.answer()
        assert (answer.status, answer.code) == (431, "head_too_large")
        assert await client.ended() == b""


async def test_a_dripping_head_is_ended_at_its_deadline() -> None:
    """A byte now and then does not extend it: 408, and closed. A silent connection is closed without a word."""
    async with (
        front({"head_deadline_s": 0.5}) as served,
        await served.connect() as slow,
        await served.connect() as mute,
    ):

        async def drip() -> None:
            for byte in post(b"", "X: " + "y" * 1000):
                await slow.send(bytes([byte]))
                await asyncio.sleep(0.05)  # the pace of the client

        dripping = asyncio.create_task(drip())
        answer = await slow.answer()
        dripping.cancel()
        assert (answer.status, answer.code) == (408, "head_timeout")
        assert await mute.ended() == b""
    assert served.metric("spillway_ingest_connections_closed_total", reason="late_head") == 1
    assert served.metric("spillway_ingest_connections_closed_total", reason="silent") == 1


async def test_stray_line_ends_do_not_hold_a_connection() -> None:
    """An empty line after a request starts no idle time of its own, and ends with the head's deadline."""
    async with front({"head_deadline_s": 0.5}) as served, await served.connect() as client:
        assert (await client.ask(post(BODY))).status == 200
        await client.send(b"\r\n")
        await client.ended()


async def test_an_idle_connection_is_closed() -> None:
    """Between two requests for KEEP_ALIVE_S and no longer."""
    async with front({"keep_alive_s": 1}) as served, await served.connect() as client:
        assert (await client.ask(post(BODY))).status == 200
        assert await client.ended() == b""
    assert served.metric("spillway_ingest_connections_closed_total", reason="idle") == 1


async def test_who_says_nothing_gives_way_first() -> None:
    """Connections without a byte neither keep good ones out nor cost an idle good one its place."""
    async with front({"max_connections": 5}) as served, await served.connect() as good:
        assert (await good.ask(post(BODY))).status == 200
        for _ in range(4):
            await served.connect()
        await asyncio.sleep(0.6)  # the time that they have to say something
        assert [(await (await served.connect()).ask(post(BODY))).status for _ in range(3)] == [200] * 3
        assert (await good.ask(post(BODY))).status == 200


async def test_too_many_headers_are_431() -> None:
    """Six thousand headers of three bytes fit the limit in bytes, and take a megabyte."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\n" + "a:\r\n" * 6000 + "\r\n"
    async with front() as served, await served.connect() as client:
        answer = await client.ask(head.encode())
        assert (answer.status, answer.code) == (431, "head_too_large")


async def test_too_many_connections_are_told_so() -> None:
    """Past MAX_CONNECTIONS an idle connection gives way; where none is idle the new one gets a 503."""
    async with front({"max_connections": 2}) as served:  # noqa: SIM117 - the server first, then its clients
        async with await served.connect() as first, await served.connect() as second:
            assert (await first.ask(post(BODY))).status == 200
            await second.send(post(BODY)[:-1])  # a request under way is never dropped
            async with await served.connect() as third:
                assert await first.ended() == b""
                assert (await third.ask(post(BODY)[:-1] + BODY[-1:])).status == 200
                await third.send(post(BODY)[:-1])
                async with await served.connect() as fourth:
                    answer = await fourth.ask(post(BODY))
                    assert (answer.status, answer.code) == (503, "too_many_connections")
                    assert int(answer.headers["retry-after"]) >= 1
                    assert await fourth.ended() == b""
                assert (await third.ask(BODY[-1:])).status == 200
            assert (await second.ask(BODY[-1:])).status == 200


async def test_a_client_that_does_not_read_is_dropped() -> None:
    """An answer that is not taken does not stay in memory: the connection is reset after a few seconds."""
    many = json.dumps({"version": "1", "data": list(range(9999))}).encode()
    async with front() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.get_extra_info("socket").setsockopt(1, 8, 4096)  # SOL_SOCKET, SO_RCVBUF
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(40):
            writer.write(post(many))
        await eventually(
            lambda: served.metric("spillway_ingest_connections_closed_total", reason="unread_answer"),
            "the reset",
            deadline_s=50,
            every_s=0.2,  # 200,000 ids are made before, on a busy machine
        )
        writer.close()


async def test_answers_of_a_drain_are_the_last_of_their_connections() -> None:
    """From SIGTERM on every answer says so, and a body that is not complete when the server stops is a 503."""
    async with front({"ingest_drain_delay_s": 0.5}) as served:
        head_only = await served.connect()
        async with await served.connect() as one, await served.connect() as slow, await served.connect() as idle:
            assert (await idle.ask(post(BODY))).status == 200
            await slow.send(post(BODY)[:-1])
            await head_only.send(post(b"", length=len(BODY)))
            served.server.drain()
            answer = await one.ask(post(BODY))
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            for late in (await slow.answer(), await head_only.answer()):
                assert (late.status, late.code, late.document["outcome"]) == (503, "draining", "not_written")
            assert await idle.ended() == b""
