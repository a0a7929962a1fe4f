"""A request's body on its way in: bounded in bytes and in time, its bytes reserved as they come, decompressed.

Owns what may be held for clients that have not finished sending. Bytes are reserved when they arrive and not when they
are announced: an announcement costs a client nothing. Who is slow while others have no room is sent away first, so that
a thousand slow clients cannot hold what good ones need.
"""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator

from starlette.types import Message, Receive

from services.ingest.admission import Admission, Reservation
from services.ingest.decompression import PIECE_BYTES, InvalidEncodingError, decompress
from services.ingest.pace import Pace
from services.ingest.problems import Code, Problem, RefusedError
from services.ingest.request import RequestHead, body_too_large
from services.ingest.settings import IngestSettings

SLOW_AFTER_S = 2.0
SLOW_BYTES_PER_S = 64 * 1024
"""A body that falls SLOW_AFTER_S behind this gives its place to another when there is no room. What came faster before
counts for no more than that: a burst does not buy a long silence.
"""

_LARGE_PIECE_BYTES = 32 * 1024
_LARGE_PIECES_A_TURN = 1  # of the loop: below 1 ms, and more than 200 MB a second
_LINGER_S = 5.0
_LINGER_BYTES_MAX = 64 * 1024 * 1024
_LOOK_EVERY_S = 0.25  # between two searches for slow bodies: a full house must stay cheap to refuse


class DisconnectedError(Exception):
    """The client left before its body was complete: nobody to answer."""


class Bodies:
    """All bodies that are being received, and the one that is being decompressed."""

    def __init__(self, settings: IngestSettings, admission: Admission) -> None:
        self.bytes_max = settings.max_body_bytes
        self.deadline_s = settings.body_deadline_s
        self.admission = admission
        self.pace = Pace(_LARGE_PIECES_A_TURN)
        self._large = asyncio.Lock()
        self.closed: Problem | None = None  # why no body is waited for any more
        self.receiving: set[Body] = set()
        self._slow: list[Body] = []  # of these, at the last look; the one that holds most comes last
        self._looked_at_s = 0.0

    def open(self, head: RequestHead, reserved: Reservation, receive: Receive) -> "Body":
        """The body of one request, nothing of it read yet."""
        return Body(self, head, reserved, receive)

    def whole(self, reserved: Reservation, size_bytes: int) -> None:
        """A body has come whole, with its head.

        Raises:
            RefusedError: it is too large, there is no room for it, or no body is taken any more.

        """
        if self.closed is not None:
            raise RefusedError(self.closed)
        self.take(reserved, size_bytes)

    def close(self, problem: Problem) -> None:
        """Wait for nobody any more: what has not come completely is answered with the problem."""
        self.closed = problem
        for body in list(self.receiving):
            body.end(problem)

    @contextlib.asynccontextmanager
    async def turn(self, bound_s: float) -> AsyncIterator[None]:
        """The turn of one large body: one at a time is decompressed, or parsed.

        Raises:
            RefusedError: it did not come within `bound_s` seconds.

        """
        try:
            async with asyncio.timeout(bound_s):
                await self._large.acquire()
        except TimeoutError:
            detail = f"its turn among the large bodies did not come in {bound_s:g} s"
            raise RefusedError(Problem(Code.OVERLOADED, detail)) from None
        try:
            yield
        finally:
            self._large.release()

    def take(self, reservation: Reservation, size_bytes: int) -> None:
        """Reserve so many bytes more.

        Raises:
            RefusedError: there is no room for them.

        """
        if reservation.take(size_bytes):
            return
        if not (self.make_room(reservation, size_bytes) and reservation.take(size_bytes)):
            raise RefusedError(self._full())

    def _full(self) -> Problem:
        bytes_max = self.admission.bytes_max
        detail = f"{bytes_max} bytes are in flight already, or this token's share of them (MAX_IN_FLIGHT_BYTES)"
        return Problem(Code.OVERLOADED, detail)

    def wanted(self, reservation: Reservation, size_bytes: int) -> None:
        """So many bytes are announced: there must be room for them, and none is reserved.

        Raises:
            RefusedError: there is none.

        """
        if not self.make_room(reservation, size_bytes):
            raise RefusedError(self._full())

    def make_room(self, reservation: Reservation, size_bytes: int) -> bool:
        """Whether so many bytes more can be reserved; slow bodies are ended where that makes room."""
        if reservation.fits(size_bytes):
            return True
        if self.admission.fits(size_bytes):
            return False  # there is room: only this owner has had its share of it
        now_s = asyncio.get_running_loop().time()
        if not self._slow and now_s - self._looked_at_s >= _LOOK_EVERY_S:
            self._looked_at_s = now_s
            self._slow = sorted((body for body in self.receiving if body.is_slow(now_s)), key=_held_bytes)
        while self._slow:
            body = self._slow.pop()
            if body in self.receiving and body.reserved is not reservation:
                waited_s = now_s - body.started_s
                detail = f"only {body.received_bytes} bytes came in {waited_s:.0f} s, and others need the room"
                body.end(Problem(Code.BODY_TIMEOUT, detail))
                if reservation.fits(size_bytes):
                    return True
        return False


def _held_bytes(body: "Body") -> int:
    return body.reserved.bytes


class Body:
    """One request's body; its bytes are reserved in the request's own reservation."""

    def __init__(self, bodies: Bodies, head: RequestHead, reserved: Reservation, receive: Receive) -> None:
        self._bodies = bodies
        self._receive = receive
        self._length = head.content_length
        self._coding = head.coding
        self._chunks: list[bytes] = []
        self._timeout: asyncio.Timeout | None = None  # while the body is being received
        self._ended: Problem | None = None  # why it is not waited for any longer
        self.unread = head.has_body  # some of it may still come
        self.received_bytes = 0
        self.started_s = 0.0  # the loop's clock, when reading began
        self._slow_at_s = 0.0  # from when on it counts as slow, if nothing more comes
        self.reserved = reserved

    async def read(self) -> bytes:
        """The whole body, decompressed.

        Raises:
            RefusedError: it is too large, too slow, there is no room for it, or it cannot be decompressed.
            DisconnectedError: the client left.

        """
        bodies = self._bodies
        if self._length:
            bodies.wanted(self.reserved, self._length)
        try:
            # Up to a tenth later, by chance: clients that stall together are not all answered in one turn of the loop.
            bound_s = bodies.deadline_s * (1 + random.random() / 10)  # noqa: S311 - nobody gains by guessing
            async with asyncio.timeout(bound_s) as self._timeout:
                await self._receive_all()
                chunks = self._chunks if self._coding is None else await self._decompressed(self._coding)
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        except TimeoutError:
            raise RefusedError(self._ended or self._late()) from None
        finally:
            self._timeout = None
            self._chunks.clear()

    def end(self, problem: Problem) -> None:
        """Stop to receive it: its bytes are free at once, and the request is answered with the problem."""
        self._ended = problem
        self._bodies.receiving.discard(self)
        self._chunks.clear()
        self.reserved.release()
        if self._timeout is not None:
            self._timeout.reschedule(0)

    def is_slow(self, now_s: float) -> bool:
        """Whether it comes too slowly."""
        return now_s > self._slow_at_s

    async def discard(self) -> None:
        """Take what still comes, for a while: a connection closed over unread bytes is reset, and the answer lost."""
        left = _LINGER_BYTES_MAX
        try:
            async with asyncio.timeout(_LINGER_S):
                size = 0
                while self.unread and left > 0:
                    message = await self._next(size)
                    size = len(message.get("body", b""))
                    left -= size
                    self.unread = message.get("more_body", False)
        except (TimeoutError, DisconnectedError):
            return

    async def _receive_all(self) -> None:
        bodies = self._bodies
        if bodies.closed is not None and self.unread:
            raise RefusedError(bodies.closed)
        loop = asyncio.get_running_loop()
        self.started_s = loop.time()
        self._slow_at_s = self.started_s + SLOW_AFTER_S
        bodies.receiving.add(self)
        try:
            message = await self._next(self._length or 0)
            while self._ended is None:
                chunk: bytes = message.get("body", b"")
                self.received_bytes += len(chunk)
                if self.received_bytes > bodies.bytes_max:
                    raise RefusedError(body_too_large(bodies.bytes_max))
                self._take(len(chunk))
                self._chunks.append(chunk)
                if not message.get("more_body", False):
                    self.unread = False
                    return
                now_s = loop.time()
                self._slow_at_s = min(max(self._slow_at_s, now_s) + len(chunk) / SLOW_BYTES_PER_S, now_s + SLOW_AFTER_S)
                message = await self._next(len(chunk))
            raise RefusedError(self._ended)
        finally:
            bodies.receiving.discard(self)

    async def _decompressed(self, coding: str) -> list[bytes]:
        """A small body at once. Of the others one at a time: a decoder's window takes up to 8 MiB that nobody counts;
        and in pieces, between which others run. What was decompressed to see whether it is small is not kept meanwhile.
        """
        try:
            pieces = list(itertools.islice(decompress(coding, self._chunks), 2)) if self._may_be_small() else []
            if len(pieces) == 1:
                self._check_size(len(pieces[0]))
                self._take(len(pieces[0]))
            else:
                pieces.clear()
                async with self._bodies.turn(self._bodies.deadline_s):
                    pieces = await self._pieces(coding)
        except InvalidEncodingError as error:
            raise RefusedError(Problem(Code.INVALID_ENCODING, str(error))) from None
        self._chunks.clear()
        self.reserved.give_back(self.received_bytes)
        return pieces

    def _may_be_small(self) -> bool:
        """Whether its content may be of one piece: to try with a large one costs a millisecond that has no turn."""
        return self.received_bytes < PIECE_BYTES

    async def _pieces(self, coding: str) -> list[bytes]:
        pieces: list[bytes] = []
        size = 0
        for piece in decompress(coding, self._chunks):
            size += len(piece)
            self._check_size(size)
            self._take(len(piece))
            pieces.append(piece)
            await self._bodies.pace.turn()
        return pieces

    def _check_size(self, size_bytes: int) -> None:
        bytes_max = self._bodies.bytes_max
        if size_bytes > bytes_max:
            detail = f"the body is over {bytes_max} bytes once decompressed (MAX_BODY_BYTES)"
            raise RefusedError(Problem(Code.DECODED_BODY_TOO_LARGE, detail))

    def _take(self, size_bytes: int) -> None:
        self._bodies.take(self.reserved, size_bytes)

    def _late(self) -> Problem:
        deadline_s = self._bodies.deadline_s
        if self.unread:
            return Problem(Code.BODY_TIMEOUT, f"the body took longer than {deadline_s:g} s")
        return Problem(Code.OVERLOADED, f"the body's turn to be decompressed did not come in {deadline_s:g} s")

    async def _next(self, after_bytes: int = 0) -> Message:
        """What comes next. After a large piece, or before a large body, it has to wait for its turn; no more is read
        from the socket before.
        """
        if after_bytes >= _LARGE_PIECE_BYTES:
            await self._bodies.pace.turn()
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise DisconnectedError
        return message
