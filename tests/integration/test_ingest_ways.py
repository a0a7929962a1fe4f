"""The short way and the long way of a request: one request, sent so that each takes it, gets the same answer.

Which way a request goes depends on how its bytes come. Nothing that a client is told, or that is written, may.
"""

import asyncio
import json
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest import connections, protocol
from services.ingest.batching import Submission
from services.ingest.problems import Code, Problem, retry_after
from services.ingest.quick import QuickRequest
from services.ingest.request import USUAL_BYTES_MAX, RequestHead, read_head
from services.ingest.tokens import Tokens, hash_of
from tests.fuzz.bodies import broken, collections
from tests.harness.front import Front, front
from tests.harness.http_client import Answer
from tests.harness.raw_http import PATH, RawClient, post
from tests.harness.waiting import eventually

pytestmark = pytest.mark.usefixtures("loop_factory")

BODY = b'{"version":"1","data":[1,[2]]}'
KEY = "01890a5d-ac96-774b-bcce-b302099a8057"
TOLD = (
    None,
    Problem(Code.OVERLOADED, "full"),
    Problem(Code.KAFKA_UNAVAILABLE, "away", (retry_after(7),)),
    Problem(Code.OUTCOME_UNKNOWN, "nobody knows"),
)
_UUID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_HEX = re.compile(rb'"request_id":"[0-9a-f]{32}"')


@dataclass
class Ways:
    """Counts the requests that went the short way."""

    quick: int = 0


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    counted = Ways()
    serve = QuickRequest.serve

    def counting(request: QuickRequest) -> None:
        counted.quick += 1
        serve(request)

    monkeypatch.setattr(QuickRequest, "serve", counting)
    return counted


async def whole(_served: Front, client: RawClient, body: bytes, headers: list[str]) -> Answer:
    return await client.ask(post(body, *headers))


async def parted(served: Front, client: RawClient, body: bytes, headers: list[str]) -> Answer:
    """The last byte comes when the others have been read."""
    request = post(body, *headers)
    await eventually(lambda: served.connections.fresh, "the connection")
    await client.send(request[:-1])
    await eventually(lambda: not served.connections.fresh, "the first read")
    return await client.ask(request[-1:])


async def chunked(_served: Front, client: RawClient, body: bytes, headers: list[str]) -> Answer:
    head = "\r\n".join([f"POST {PATH} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", *headers, "", ""])
    half = len(body) // 2
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
    return await client.ask(head.encode("latin-1") + chunks + b"0\r\n\r\n")


async def queried(_served: Front, client: RawClient, body: bytes, headers: list[str]) -> Answer:
    """All at once, to a target that is no usual one."""
    return await client.ask(post(body, *headers).replace(PATH.encode(), PATH.encode() + b"?a=b", 1))


Way = Callable[[Front, RawClient, bytes, list[str]], Awaitable[Answer]]
LONG_WAYS: tuple[Way, ...] = (parted, chunked, queried)


def plain(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """The answer without what differs by chance or by the clock."""
    headers = {name: value for name, value in answer.headers.items() if name not in {"date", "x-request-id"}}
    return answer.status, headers, _HEX.sub(b"", _UUID.sub(b"", answer.body))


def record(submission: Submission) -> tuple[object, ...]:
    """What would be written, without ids and times."""
    chance = {"spillway-id", "spillway-received-ns", "spillway-request-id"}
    headers = [
        [(name, value) for name, value in submission.headers_of(index) if name not in chance]
        for index in range(len(submission.values))
    ]
    return submission.values, headers, submission.key


head_lines = st.lists(
    st.sampled_from(
        (
            *("Content-Type: application/json", "Content-Type: text/plain", "Partition-Key: k", "Partition-Key: \xe9"),
            *(f"Idempotency-Key: {KEY}", "Idempotency-Key: x", "X-Request-Id: mine", "X-Request-Id: not sane"),
            *("Content-Encoding: identity", "Content-Encoding: br", "Connection: close", "Connection: keep-alive"),
            *("traceparent: 00-" + "a" * 32 + "-" + "b" * 16 + "-01", "Authorization: Bearer t", "Host: twice"),
        )
    ),
    max_size=3,
    unique_by=lambda line: line.partition(":")[0],
)
bodies = st.one_of(collections(), broken).filter(lambda body: 0 < len(body) <= USUAL_BYTES_MAX)


@settings(max_examples=40, deadline=None)
@given(body=bodies, headers=head_lines, told=st.sampled_from(TOLD), at_once=st.booleans())
def test_every_way_gives_the_same_answer(
    body: bytes, headers: list[str], told: Problem | None, *, at_once: bool
) -> None:
    """Status, headers, body and what is written: the same for any request, however its bytes come."""

    def submit(submission: Submission) -> Problem | None:
        if at_once and told is not None:
            return told
        asyncio.get_running_loop().call_soon(submission.settle, told)
        return None

    async def ask_all() -> None:
        async with front({"max_items": 4}, submit=submit) as served:
            answers, written = [], []
            for way in (whole, *LONG_WAYS, whole):  # the last one's head is known
                before = len(served.submitted)
                answers.append(plain(await way(served, await served.connect(), body, headers)))
                written.append([record(one) for one in served.submitted[before:]])
                assert served.admission.in_flight_bytes == 0
        assert answers == [answers[0]] * len(answers)
        assert written == [written[0]] * len(written)

    uvloop.run(ask_all())


def entry(name: str, **more: object) -> dict[str, object]:
    return {"name": name, "sha256": hash_of(name.encode()).hex(), **more}


TOKENS = Tokens.parse(
    json.dumps([entry("good", folder="own"), entry("off", disabled=True), entry("once", requests_per_s=0.01)]).encode()
)


@pytest.mark.parametrize("place", ["head", "body"])
@pytest.mark.parametrize(
    ("secret", "statuses"),
    [("good", [200, 200]), ("off", [403, 403]), ("nobody", [401, 401]), ("once", [200, 429]), ("", [401, 401])],
)
async def test_no_way_spares_a_token_or_its_quota(secret: str, statuses: list[int], place: str, ways: Ways) -> None:
    """The same answers and the same folder, two times one after the other, whichever way both go."""
    headers = [f"Authorization: Bearer {secret}"] if place == "head" else []
    body = BODY if place == "head" else b'{"version":"1","token":"%b","data":[1]}' % secret.encode()
    seen = []
    for way in (whole, *LONG_WAYS):
        async with front({"token_burst_s": 1}, tokens=lambda: TOKENS) as served:
            answers = [await way(served, await served.connect(), body, headers) for _ in statuses]
            assert [answer.status for answer in answers] == statuses
            for answer in answers:
                answer.headers.pop("retry-after", None)  # a second passes on a busy machine
            seen.append(([plain(answer) for answer in answers], [record(one) for one in served.submitted]))
    assert seen == [seen[0]] * len(seen)
    assert ways.quick == len(statuses)


@pytest.fixture
def heads_read(monkeypatch: pytest.MonkeyPatch) -> list[RequestHead]:
    """Those that were read header by header."""
    read: list[RequestHead] = []

    def reading(headers: Iterable[tuple[bytes, bytes]]) -> RequestHead:
        read.append(read_head(headers))
        return read[-1]

    monkeypatch.setattr(protocol, "read_head", reading)
    return read


async def test_a_head_that_came_before_is_not_read_again(ways: Ways, heads_read: list[RequestHead]) -> None:
    """On whichever connection, and whatever body comes with it; another, or one that names its request, is read."""
    bodies = [b'{"version":"1","data":[%d]}' % number for number in range(6)]
    async with front() as served:
        first, second = await served.connect(), await served.connect()
        for client, body in zip((first, first, second, second, first, second), bodies, strict=True):
            assert (await whole(served, client, body, [])).status == 200
        assert [submission.values for submission in served.submitted] == [[b"%d" % number] for number in range(6)]
        assert (ways.quick, len(heads_read)) == (6, 1)
        for line in ("Partition-Key: a", "Partition-Key: b", "X-Request-Id: a", "X-Request-Id: a"):
            answer = await whole(served, first, BODY, [line])
            assert answer.status == 200
        assert answer.headers["x-request-id"] == "a"
        assert [submission.key for submission in served.submitted[-4:]] == [b"a", b"b", None, None]
        assert len(heads_read) == 5


async def test_which_way_a_request_goes(ways: Ways) -> None:
    """Whole, small and plain: the short way. Any other: the long way, also where a part of it came whole."""
    async with front() as served:
        for way in LONG_WAYS:
            assert (await way(served, await served.connect(), BODY, [])).status == 200
        for line in ("Content-Encoding: gzip", "Expect: 100-continue"):
            client = await served.connect()
            await client.send(post(BODY, line))
            await client.reader.readline()
        large = b'{"version":"1","data":["%s"]}' % (b"x" * USUAL_BYTES_MAX)
        assert (await whole(served, await served.connect(), large, [])).status == 200
        assert ways.quick == 0
        client = await served.connect()
        for size in (1, 10_000, 30_000):  # of several pieces for the parser
            body = b'{"version":"1","data":["%s"]}' % (b"x" * size)
            assert (await whole(served, client, body, [])).status == 200
        assert ways.quick == 3


async def test_two_in_one_read(ways: Ways) -> None:
    """One request of a read goes the short way; the second waits for the first one's answer, and is answered next."""
    waiting: list[Submission] = []

    def submit(submission: Submission) -> None:
        waiting.append(submission)

    async with front(submit=submit) as served, await served.connect() as client:
        await client.send(post(BODY, "X-Request-Id: first") + post(BODY, "X-Request-Id: second"))
        await eventually(lambda: waiting, "the first")
        assert (ways.quick, len(waiting)) == (1, 1)
        waiting[0].settle(None)
        assert (await client.answer()).headers["x-request-id"] == "first"
        await eventually(lambda: len(waiting) == 2, "the second")
        waiting[1].settle(None)
        assert (await client.answer()).headers["x-request-id"] == "second"
        assert ways.quick == 1


@pytest.mark.parametrize("followers", [0, 2])
@pytest.mark.parametrize("target", [PATH, f"{PATH}?a=b"], ids=["short", "long"])
async def test_nobody_is_answered_on_a_connection_that_is_gone(
    target: str, followers: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Its acknowledged collection is no error, whether others wait behind it or not; those are not begun."""
    waiting: list[Submission] = []

    def submit(submission: Submission) -> None:
        waiting.append(submission)

    async with front(submit=submit) as served:
        client = await served.connect()
        await client.send(post(BODY).replace(PATH.encode(), target.encode(), 1) + post(BODY) * followers)
        await eventually(lambda: waiting, "the collection")
        (connection,) = served.server.server_state.connections
        connection.transport.abort()  # as for a client that takes no answers
        await eventually(lambda: served.metric("spillway_ingest_connections") == 0, "the end of the connection")
        waiting[0].settle(None)
        await eventually(lambda: not served.server.server_state.tasks, "the end of what served it")
        assert served.admission.in_flight_bytes == 0
        assert len(waiting) == 1
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_client_that_left_costs_nothing_more(ways: Ways) -> None:
    """Its collection is written all the same, nobody is answered, and its bytes are free."""
    waiting: list[Submission] = []

    def submit(submission: Submission) -> None:
        waiting.append(submission)

    async with front(submit=submit) as served:
        client = await served.connect()
        await client.send(post(BODY))
        await eventually(lambda: waiting, "the collection")
        connection: socket.socket = client.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.writer.transport.abort()  # a reset: after a mere end of its sending a client may still wait for answers
        await eventually(lambda: served.metric("spillway_ingest_connections") == 0, "the end of the connection")
        assert served.admission.in_flight_bytes > 0
        waiting[0].settle(None)
        assert served.admission.in_flight_bytes == 0
        assert served.metric("spillway_ingest_payloads_total") == 2
        assert ways.quick == 1


async def test_an_unexpected_error_is_a_500_and_costs_one_request(ways: Ways, caplog: pytest.LogCaptureFixture) -> None:
    """Its cause stands in the log under the request's id, and the connection goes on."""
    broken_once = [True]

    def submit(submission: Submission) -> None:
        if broken_once.pop() if broken_once else False:
            raise ZeroDivisionError
        submission.settle(None)

    async with front(submit=submit) as served, await served.connect() as client:
        answer = await client.ask(post(BODY, "X-Request-Id: mine"))
        assert answer.status == 500
        assert b"ZeroDivision" not in answer.body
        assert served.admission.in_flight_bytes == 0
        assert (await client.ask(post(BODY))).status == 200
    assert ways.quick == 2
    assert [record.request_id for record in caplog.records if record.exc_info] == ["mine"]  # type: ignore[attr-defined]


async def test_answers_that_nobody_takes_do_not_pile_up(ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks again after each answer and reads none: past the transport's mark the next one is held, on the
    long way, and no other is begun. Once the client reads, it gets them all.
    """
    monkeypatch.setattr(connections, "FLUSH_S", 60.0)  # a busy machine is no client that takes no answers
    body = b'{"version":"1","data":[%s]}' % b",".join([b"1"] * 5000)  # an answer of 200 KB
    async with front() as served:
        client = await served.connect()
        client.writer.transport.pause_reading()
        asked = 0

        async def ask() -> None:
            nonlocal asked
            asked += 1
            await client.send(post(body))
            await eventually(lambda: len(served.submitted) == asked, "the request")

        await ask()
        (connection,) = served.server.server_state.connections
        while not connection.flow.write_paused:
            await ask()
        held_bytes = connection.transport.get_write_buffer_size()
        assert ways.quick == asked
        await ask()
        await client.send(post(body))
        await eventually(lambda: connection.pipeline, "the next to wait")
        assert (ways.quick, len(served.submitted)) == (asked - 1, asked)
        assert connection.transport.get_write_buffer_size() <= held_bytes
        client.writer.transport.resume_reading()
        assert [(await client.answer()).status for _ in range(asked + 1)] == [200] * (asked + 1)


async def test_requests_refused_in_one_read_keep_the_loop_once(ways: Ways) -> None:
    """Each is answered while the read lasts, and a nested body takes milliseconds to refuse: the others have a task."""
    nested = (
        b'{"version":"1","data":' + b"[" * 10_000
    )  # more than two pieces for the parser: the next head comes in one of its own
    async with front() as served, await served.connect() as client:
        await eventually(lambda: served.connections.fresh, "the connection")
        (connection,) = served.server.server_state.connections
        connection.data_received(post(nested) * 3)
        assert ways.quick == 1
        assert [(await client.answer()).status for _ in range(3)] == [400] * 3


@pytest.mark.parametrize("target", [PATH, f"{PATH}?a=b"], ids=["short", "long"])
async def test_nothing_is_begun_behind_an_answer_that_ends_the_connection(target: str) -> None:
    """A request that is refused by its head ends it, wherever the next one begins in the read (RFC 9112 §9.6)."""
    for size in (1, 10_000):
        refused = post(b"x" * size, "Content-Type: text/plain").replace(PATH.encode(), target.encode(), 1)
        async with front() as served, await served.connect() as client:
            await eventually(lambda: served.connections.fresh, "the connection")
            (connection,) = served.server.server_state.connections
            connection.data_received(refused + post(BODY))
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (415, "close")
            assert await client.ended() == b""
            assert served.submitted == []
            assert served.metric("spillway_ingest_disconnects_total") == 0  # nobody was waited for
