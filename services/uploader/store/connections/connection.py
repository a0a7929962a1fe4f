"""One connection to S3, with one request on it at a time. Owns its transport and the wait for the answer.

A request leaves at the end of the turn, with those of the other connections. Until then nothing is its answer: what
comes before it has left is what nobody asked for, and the put goes out on another connection.

Bounded in time by `sweep`, that its pool calls in a fixed beat: no clock is read and no timer made for a put. It never
connects and never sends anything twice; it only says by `IdleClosedError` that this is safe.
"""

import asyncio
import fcntl
import struct
import termios
from collections.abc import Callable
from typing import cast

from services.uploader.errors import TransientError
from services.uploader.store.connections.answer_reader import Answer, AnswerReader, BadAnswerError
from services.uploader.store.connections.outbox import Outbox

_JOINED_BYTES_MAX = 64 * 1024
"""Head and body up to here are one piece for the transport: the copy costs less than the second call."""

_AT_ONCE_BYTES = 8 * 1024
"""Requests up to here are taken by the other side's system as they are sent: only of larger ones can a part be unsent
when the answer comes."""


class IdleClosedError(Exception):
    """A kept connection was closed before a byte of the answer: the server has most likely not seen the request."""


class Connection(asyncio.Protocol):
    """Made by a pool, which is told by `on_lost` when it is gone."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, outbox: Outbox, on_lost: Callable[["Connection"], None]
    ) -> None:
        self._loop = loop
        self._outbox = outbox
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._reader = AnswerReader()
        self._waiter: asyncio.Future[Answer] | None = None  # of the request under way
        self._waiting: tuple[bytes, ...] = ()  # the request, in pieces, until the outbox sends it
        self._kept = False  # it has carried a request before the one under way
        self._large = False  # the request under way is more than the other side takes at once
        self._unsent_bytes = 0  # at the last sweep
        self.beats = 0  # sweeps since the last byte, either way; while idle, since the last answer
        self.usable = False  # for another request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: it is open."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only
        self.usable = True

    def send(self, head: bytes, body: bytes) -> asyncio.Future[Answer]:
        """Send one request at the end of this turn; the future ends with its answer, however that reads.

        The future's errors: IdleClosedError; TransientError (`timeout`, `connection`). A future that is cancelled
        leaves a connection that is not usable.
        """
        self._reader.begin()
        self.usable = False
        self.beats = 0
        self._waiter = waiter = self._loop.create_future()
        self._large = len(body) > _AT_ONCE_BYTES
        self._waiting = (head + body,) if len(body) <= _JOINED_BYTES_MAX else (head, body)
        self._outbox.add(self)
        return waiter

    def send_waiting(self) -> None:
        """Outbox: the request's turn to leave. One whose put or connection has ended meanwhile is forgotten."""
        pieces, self._waiting = self._waiting, ()
        ended = self._waiter is None or self._waiter.done()
        if not ended and self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(pieces)

    def data_received(self, data: bytes) -> None:
        """Asyncio: bytes of an answer, or bytes that nobody asked for."""
        self.beats = 0
        if self._waiter is None or self._waiting:
            self.abort()
            return
        try:
            answer = self._reader.feed(data)
        except BadAnswerError as error:
            self._fail(TransientError("unexpected_answer", f"from S3: {error}"))
            return
        if answer is not None:
            self._succeed(answer)

    def eof_received(self) -> bool:
        """Asyncio: the other side sends no more. The transport closes itself."""
        self.usable = False
        if self._waiter is not None:
            answer = self._reader.end()
            if answer is not None:
                self._succeed(answer)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Asyncio: it is gone."""
        waiter, self._waiter = self._waiter, None
        self.usable = False
        self._transport = None
        if waiter is not None and not waiter.done():
            if self._kept and not self._reader.fed:
                waiter.set_exception(IdleClosedError())
            else:
                where = "within" if self._reader.fed else "before"
                message = f"the connection to S3 was closed {where} the answer: {error or 'end of stream'}"
                waiter.set_exception(TransientError("connection", message))
        self._on_lost(self)

    def sweep(self, beats_max: int) -> None:
        """One beat has passed. End what has not moved a byte for more than `beats_max` of them."""
        self.beats += 1
        if self._transport is None or self._waiter is None:
            return
        unsent_bytes = _unsent_bytes(self._transport)
        if unsent_bytes != self._unsent_bytes:
            self._unsent_bytes = unsent_bytes
            self.beats = 0
        elif self.beats > beats_max:
            what = "has not taken the request" if unsent_bytes else "has not answered"
            self._fail(TransientError("timeout", f"S3 {what}: no byte moved within the read time-out"))

    def abort(self) -> None:
        """Close it at once, whatever is under way."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def _succeed(self, answer: Answer) -> None:
        assert self._transport is not None  # noqa: S101 - for the type checker
        unsent = self._large and _unsent_bytes(self._transport) > 0
        if unsent and answer.status < 300:  # noqa: PLR2004 - HTTP: successes
            self._fail(TransientError("unexpected_answer", "a success of S3 before it had the whole request"))
            return
        waiter, self._waiter = self._waiter, None
        self._kept = True
        # An error before the whole request was sent: honoured, but the rest may never be read.
        if self._reader.keeps_alive and not unsent:
            self.usable = not self._transport.is_closing()
        else:
            self.abort()
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)
        else:
            self.abort()

    def _fail(self, error: TransientError) -> None:
        waiter, self._waiter = self._waiter, None
        self.abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)


def _unsent_bytes(transport: asyncio.Transport) -> int:
    """Bytes that the other side's system has not taken: those of the transport, and those that our system holds.

    The system holds megabytes of a large body, and its end. Over TLS it alone tells: a transport of TLS hands on all
    that it is given, and says nothing of what then waits for the socket.
    """
    try:
        queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, AttributeError):  # no socket, or a system that does not tell
        queued = bytes(4)
    return transport.get_write_buffer_size() + int(struct.unpack("i", queued)[0])
