"""Answers to the wire client, cut at any place, bent in any way, and thrown at it at any time.

On a connection alone, over a transport of the test's own: no socket, no clock; the beat of its pool is called by hand.
Whatever comes, a put ends: with the one answer that was sent for it, whole, or with an error of the store.
"""

import asyncio
import base64
import hashlib
import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from services.uploader.errors import StoreError, TransientError
from services.uploader.store.checksum import Answered, Checksum, Verdict, compare
from services.uploader.store.connections.answer_reader import ANSWER_BYTES_MAX, Answer, AnswerReader, BadAnswerError
from services.uploader.store.connections.connection import Connection, IdleClosedError
from services.uploader.store.connections.outbox import Outbox
from services.uploader.store.proof import check
from tests.harness.raw_s3 import refused, stored

BODY = b'{"n": 1}'
BEATS_MAX = 3


class Wire(asyncio.Transport):
    """A transport that keeps what is written and closes in the next turn, as those of asyncio do."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self.protocol: Connection
        self.unsent_bytes = 0
        self.closing = False
        self.sent = b""

    def write(self, data: Any) -> None:
        """Taken at once."""
        self.sent += data

    def writelines(self, list_of_data: Any) -> None:
        """Taken at once."""
        self.sent += b"".join(list_of_data)

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            self._loop.call_soon(self.protocol.connection_lost, None)

    def receive(self, data: bytes) -> None:
        """From the other side."""
        if not self.closing:
            self.protocol.data_received(data)

    def end(self) -> None:
        """The other side closes, in order."""
        if not self.closing and not self.protocol.eof_received():
            self.abort()


def connected(loop: asyncio.AbstractEventLoop, lost: Callable[[Connection], None]) -> tuple[Connection, Wire]:
    """An open connection and its other side."""
    transport = Wire(loop)
    transport.protocol = Connection(loop, Outbox(loop), lost)
    transport.protocol.connection_made(transport)
    return transport.protocol, transport


def answered(answer: Answer) -> Answered:
    """As the store reads a success."""
    return Answered(answer.header(b"etag"), answer.header(b"x-amz-server-side-encryption"))


def succeeds(answer: Answer) -> bool:
    """Whether the store would count it as stored: its own rule, by the shared proof."""
    if answer.status != 200 or answer.is_error_document:
        return False
    try:
        check(Checksum.MD5, "key", Checksum.MD5.of(BODY), answered(answer))
    except TransientError:
        return False
    return True


VALID = [
    stored(BODY),
    stored(BODY, b"Connection: close\r\n"),
    stored(BODY, b"x-amz-request-id: 1\r\nDate: x\r\nServer: AmazonS3\r\n"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + stored(BODY),
    refused(503, "SlowDown"),
    refused(403, "AccessDenied", b"Connection: close\r\n"),
    b"HTTP/1.1 400 X\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n<Error>\r\n15\r\n<Code>SlowDown</Code>\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
]


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut at these places."""
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


@pytest.mark.parametrize("data", VALID, ids=range(len(VALID)))
def test_an_answer_cut_anywhere_is_the_same_answer(data: bytes) -> None:
    """One piece, two pieces at every place, and byte by byte: never whole before its last byte."""
    whole = AnswerReader().feed(data)
    assert whole is not None
    for cut in range(1, len(data)):
        reader = AnswerReader()
        assert reader.feed(data[:cut]) is None
        assert reader.feed(data[cut:]) == whole
    reader = AnswerReader()
    found = [reader.feed(data[at : at + 1]) for at in range(len(data))]
    assert found == [None] * (len(data) - 1) + [whole]


@pytest.mark.parametrize("data", VALID, ids=range(len(VALID)))
def test_an_answer_that_ends_early_is_none(data: bytes) -> None:
    """A connection that closes within an answer proves nothing, wherever it is cut."""
    for cut in range(len(data)):
        reader = AnswerReader()
        assert reader.feed(data[:cut]) is None
        assert reader.end() is None


ALPHABET = st.sampled_from(
    [
        b"HTTP/1.1 ", b"200 OK", b"500 X", b"101 U", b"\r\n", b"\n", b"\r", b" ", b":", b"\0", b"\xff", b"ETag: ",
        b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Upgrade: h2c\r\n", b"Connection: close\r\n", b"0",
        b"1", b"ffffffffffffffffff", b"-1", b"<Error><Code>SlowDown</Code></Error>", b"<!ENTITY a 'b'>",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ]
)  # fmt: skip
GARBAGE = st.lists(ALPHABET | st.binary(max_size=8), max_size=12).map(b"".join)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Valid, bent, or nothing of the kind; and maybe more of it."""
    data = draw(st.sampled_from(VALID) | GARBAGE)
    for _ in range(draw(st.integers(0, 3))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 6))
        data = data[:at] + draw(st.just(b"") | ALPHABET | st.binary(max_size=4)) + data[at + length :]
    return data + draw(st.just(b"") | st.sampled_from(VALID) | GARBAGE)


STEPS = st.sampled_from(["piece", "piece", "piece", "sweep", "end", "cancel", "turn"])


async def _one_put(data: bytes, cuts: list[int], steps: list[str]) -> None:
    """One put on a fresh connection; what happens to it in these steps; then nothing more comes, and time passes."""
    lost: list[Connection] = []
    connection, transport = connected(asyncio.get_running_loop(), lost.append)
    waiter = connection.send(b"head", BODY)
    await asyncio.sleep(0)  # it leaves
    given = await _take_steps(connection, transport, waiter, pieces_of(data, cuts), steps)
    for _ in range(BEATS_MAX + 2):
        connection.sweep(BEATS_MAX)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert waiter.done()
    if waiter.cancelled():
        connection.abort()  # as the pool does with what is not usable
        await asyncio.sleep(0)
        assert not connection.usable
    elif (error := waiter.exception()) is not None:
        assert isinstance(error, StoreError)  # and not IdleClosedError: it was fresh
        assert not connection.usable
        assert lost == [connection]
    else:
        answer = waiter.result()
        assert connection.usable or lost == [connection]
        assert sum(map(len, (*answer.headers, *answer.headers.values(), answer.body))) <= ANSWER_BYTES_MAX
        if succeeds(answer):
            _assert_proven(given, answer)


async def _take_steps(
    connection: Connection, transport: Wire, waiter: "asyncio.Future[Answer]", left: list[bytes], steps: list[str]
) -> bytes:
    """What was received in the end."""
    given: list[bytes] = []
    for step in steps:
        match step:
            case "piece" if left:
                given.append(left.pop(0))
                transport.receive(given[-1])
            case "sweep":
                connection.sweep(BEATS_MAX)
            case "end":
                transport.end()
            case "cancel":
                waiter.cancel()
            case _:
                await asyncio.sleep(0)
    return b"".join(given)


def _assert_proven(received: bytes, answer: Answer) -> None:
    """By another reading than the parser's: the bytes hold a whole head of 200, with the ETag that is the proof.

    The one of our body; or, by the rule of both clients, one that has not an MD5's form (a server of another make).
    """
    verdict, _ = compare(Checksum.MD5, Checksum.MD5.of(BODY), answered(answer))
    wanted = hashlib.md5(BODY, usedforsecurity=False).hexdigest().encode() if verdict is Verdict.SAME else b"etag"
    heads = [head for head in re.split(rb"\r?\n\r?\n", received)[:-1] if re.search(rb"HTTP/\d\.\d 200", head)]
    assert any(wanted in head.lower() for head in heads)


@hypothesis_settings(max_examples=300)
@given(data=streams(), cuts=st.lists(st.integers(0, 400), max_size=6), steps=st.lists(STEPS, max_size=20))
def test_a_put_ends_whatever_comes(data: bytes, cuts: list[int], steps: list[str]) -> None:
    """With a whole answer, proven where it is a success, or an error; in bounded time and memory, and no other way."""
    asyncio.run(_one_put(data, cuts, steps))


async def _two_puts(first: bytes, between: bytes, second: bytes, cuts: list[int]) -> None:
    loop = asyncio.get_running_loop()
    lost: list[Connection] = []
    connection, transport = connected(loop, lost.append)
    waiter = connection.send(b"head", BODY)
    await asyncio.sleep(0)
    for piece in pieces_of(first, cuts):
        transport.receive(piece)
    assert waiter.done()
    if between:
        transport.receive(between)
    await asyncio.sleep(0)
    if not connection.usable:
        assert lost == [connection]
        return
    assert not between
    again = connection.send(b"head", BODY)
    await asyncio.sleep(0)
    assert not again.done()  # what was read for the first is no answer to the second
    for piece in pieces_of(second, cuts):
        transport.receive(piece)
    if again.done() and again.exception() is None:
        assert again.result() == AnswerReader().feed(second)
    else:
        transport.end()
        await asyncio.sleep(0)
        assert isinstance(again.exception(), StoreError if second else IdleClosedError)


@hypothesis_settings(max_examples=300)
@given(
    first=st.sampled_from(VALID),
    between=st.just(b"") | st.binary(min_size=1, max_size=4) | st.sampled_from(VALID),
    second=st.just(b"") | st.sampled_from(VALID),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_no_put_gets_the_answer_of_another(first: bytes, between: bytes, second: bytes, cuts: list[int]) -> None:
    """A connection that says anything between two puts carries no second one; else each has its own, or none."""
    asyncio.run(_two_puts(first, between, second, cuts))


@given(data=st.binary(max_size=200) | streams())
def test_no_document_opens_anything(data: bytes) -> None:
    """Whatever a document holds, its elements are text of its own bytes: no entity is expanded."""
    answer = Answer(400, {}, data * 3)
    for name in ("Code", "Message", "Region", "Endpoint"):
        assert len(answer.element(name)) <= len(answer.body)


def test_a_document_that_never_closes_is_read_once() -> None:
    """The largest body, full of tags that open: linear time, and nothing found."""
    body = b"<Code>" * (ANSWER_BYTES_MAX // 6)
    assert Answer(400, {}, body).element("Code") == ""


def _feed(reader: AnswerReader, data: bytes, times: int) -> None:
    for _ in range(times):
        reader.feed(data)


def test_the_reader_is_bounded() -> None:
    """A server that sends without end is told so after a bounded number of bytes, whatever they are part of."""
    for endless in (b"X: y\r\n", b"x", b"HTTP/1.1 100 Continue\r\n\r\n"):
        reader = AnswerReader()
        if not endless.startswith(b"HTTP"):
            reader.feed(b"HTTP/1.1 200 OK\r\n")
        with pytest.raises(BadAnswerError):
            _feed(reader, endless, ANSWER_BYTES_MAX)


def test_the_proof_is_of_these_bytes() -> None:
    """The fuzzer's own judge: an ETag of other bytes is no success, the right one is."""
    digest = base64.b64decode(Checksum.MD5.of(BODY)).hex().encode()
    assert succeeds(Answer(200, {b"etag": b'"' + digest + b'"'}))
    assert not succeeds(Answer(200, {b"etag": b'"' + b"0" * 32 + b'"'}))
    assert not succeeds(Answer(200, {}))
    assert not succeeds(Answer(500, {b"etag": b'"' + digest + b'"'}))
