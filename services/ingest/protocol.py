"""What comes on one connection: read piece by piece, and each request sent its way (docs/decisions/0015, 0020).

Owns the bounds that uvicorn does not have on a head's size, on what frames a body, and on requests that wait behind one
another; and which of the two ways a request goes. How a connection begins and ends is `connection`'s.
"""

import asyncio
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from services.ingest.connection import BoundedConnection
from services.ingest.connections import Connections
from services.ingest.problems import Code, Problem, RefusedError
from services.ingest.quick import QuickRequest, QuickRoute
from services.ingest.request import RequestHead, is_usual, read_head
from services.ingest.wire import without_upgrade

_PIECE_BYTES = 4096
_HEADERS_MAX = 128  # of a request: in memory each takes 110 bytes beyond its own, and it may have but four of these
_FRAMING_SHARE_MAX = 8  # bytes of framing for a byte of the body: chunks of one byte take five


class IngestProtocol(BoundedConnection):
    """uvicorn's HTTP/1.1, bounded. What it refuses by itself, it answers with problem documents."""

    def __init__(
        self,
        connections: Connections,
        quick: QuickRoute,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(connections, config, server_state, app_state, _loop)
        self._quick = quick
        self._usual: QuickRequest | None = None  # the request under way, as long as it may go the short way
        self._whole: QuickRequest | None = None  # the same when all of it has come, until the parser is done
        self._may_be_usual = True  # no request of this read has gone the short way: one keeps the loop for long enough
        self._in_head = True  # a head has begun, or nothing has yet
        self._head_bytes = 0  # of the head under way, as far as whole reads belong to it
        self._fed_bytes = 0  # of the read that the parser is at
        self._head_ended = False  # a head was completed in this read
        self._body_bytes = 0  # of the request under way
        self._body_left_bytes = 0  # of what its length says, still to come; below 0 where it says none
        self._framing_bytes = 0  # what came around them, as far as whole reads belong to its body
        self._held = b""  # read, and not shown to the parser yet: requests wait behind one another
        self._reserved = connections.admission.open()  # its bytes

    # What asyncio calls

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or we are done with it."""
        self._held = b""
        self._usual = self._whole = None
        self._reserved.release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of several."""
        if self._deaf:
            return
        self._book.fresh.pop(self, None)
        self._book.idle.pop(self, None)
        if self._held:
            self._hold(data)  # reading is paused: it was on its way
        elif not self._serves_known(data):
            self._read(data)

    def _serves_known(self, data: bytes) -> bool:
        """Whether the data is served without the parser: that is between two requests, and this is a whole one whose
        head it has taken before, byte for byte; it would take it again, and say the same of it.
        """
        if not self._is_between_requests() or self.flow.write_paused:
            return False
        found = self._quick.heads.find(data)
        if found is None:
            return False
        head, body = found
        self._in_head = False
        request = self.cycle = self._last = self._quick_request(head, keep_alive=True)
        request.chunks.append(body)
        request.serve()
        return True

    def _quick_request(self, head: RequestHead, *, keep_alive: bool) -> QuickRequest:
        keep_alive = keep_alive and not self._book.last_requests
        return QuickRequest(
            self._quick, head, self.transport, self.server_state, self.on_response_complete, keep_alive=keep_alive
        )

    def _read(self, data: bytes) -> None:
        """Show the bytes to the parser, until a request waits behind another: then the rest waits, too.

        Piece by piece, except what is known to be one body: a read of 256 KB, uvloop's most, may hold three thousand
        requests, and each is an object before it has its turn. How much a connection may hold back is so bounded, and
        how long it may keep the loop.
        """
        start = 0
        self._may_be_usual = True
        between = self._is_between_requests()
        while start < len(data) and not self._deaf:
            if self.pipeline:
                self._hold(data[start:])
                return
            piece = data[start : start + max(_PIECE_BYTES, self._body_left_bytes)]
            start += len(piece)
            while piece:
                piece = self._parse(piece)
            if self._whole is not None:
                whole, self._whole = self._whole, None
                if between and whole.keep_alive and start == len(data):
                    self._quick.heads.learn(data, whole.head)
                whole.serve()
        if self._usual is not None:
            self._go_the_long_way(self._usual)

    def _hold(self, data: bytes) -> None:
        """Keep the bytes for later, as a part of what is in flight. Where there is no room the connection ends with
        its answers, and its client sends the rest again on another; until then what comes is read and dropped, since
        bytes that nobody has read would reset the connection, and its answers with it.
        """
        if self._reserved.take(len(data)):
            self._gate.shut()
            self._held += data
        else:
            self._deaf, self._held = True, b""
            self._reserved.release()
            self._gate.open()
            self._end_after_waiting()

    def _go_on(self) -> None:
        """Show the parser what was held back."""
        held, self._held = self._held, b""
        self._reserved.release()
        self._read(held)
        if not self._held and not self.pipeline:
            self._gate.open()

    def _parse(self, data: bytes) -> bytes:
        """Show the parser some bytes. What it gives back is to be read instead of what it could not go on with."""
        was_in_head = self._in_head
        self._fed_bytes = len(data)
        self._head_ended = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            return self._without_upgrade() + data[stopped.args[0] :]
        except httptools.HttpParserError as error:
            self._usual = None  # its body will never come
            self._cannot_go_on(_reason(error))
        else:
            self._watch_head(len(data) if was_in_head and not self._head_ended else 1)
            self._watch_framing(len(data))
        return b""

    def _without_upgrade(self) -> bytes:
        """The head that has just come, without the offer: the parser takes what follows one for another protocol, also
        the body of a POST. Java's HttpClient offers h2c with its first request.
        """
        head = without_upgrade(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return head

    def _watch_head(self, size_bytes: int) -> None:
        book = self._book
        if not self._in_head and (self._usual is not None or self._answer_is_due()):
            self._head_bytes = 0
            book.heads.pop(self, None)
            return
        if self._head_ended:  # another one was completed in this read, and this one is new
            self._head_bytes = 0
            book.heads.pop(self, None)
        self._head_bytes += size_bytes
        if self._head_bytes > book.head_bytes_max:
            self._cannot_go_on(self._head_too_large())
        elif self not in book.heads:
            book.heads[self] = book.now_s()

    def _watch_framing(self, size_bytes: int) -> None:
        """Chunk headers and trailers are no body: what they take is bounded too."""
        if self._in_head or self._head_ended:
            self._framing_bytes = 0  # of a read that is not all of one body's nothing counts
            return
        self._framing_bytes += size_bytes
        bytes_max = self._book.head_bytes_max + _FRAMING_SHARE_MAX * self._body_bytes
        if self._answer_is_due() and self.cycle.more_body and self._framing_bytes > bytes_max:
            detail = (
                f"chunk headers and trailers take {self._framing_bytes} bytes around {self._body_bytes} of the body"
            )
            self._cannot_go_on(Problem(Code.INVALID_HTTP, detail))

    # What the parser calls

    def on_message_begin(self) -> None:
        """A request's first byte. What ASGI wants of it is made when ASGI gets it (`_hand_over`)."""
        self._in_head = True
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. Trailers are none, and nobody here asks for them (RFC 9110 §6.5.1).

        Raises:
            RefusedError: it is one too many; the parser stops.

        """
        if self._in_head:
            if len(self.headers) >= _HEADERS_MAX:
                raise RefusedError(self._head_too_large())
            self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        """Bytes of the body."""
        self._framing_bytes -= len(body)
        self._body_bytes += len(body)
        self._body_left_bytes -= len(body)
        if self._usual is not None:
            self._usual.chunks.append(body)
        else:
            super().on_body(body)

    def on_headers_complete(self) -> None:
        """A request's head is complete: the application takes over.

        Raises:
            RefusedError: it does not; the parser stops.

        """
        if self._head_bytes + self._fed_bytes > self._book.head_bytes_max:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self._book.head_bytes_max:
                raise RefusedError(self._head_too_large())
        if self.parser.get_method() == b"CONNECT":
            problem = Problem(Code.METHOD_NOT_ALLOWED, "CONNECT: this is no proxy", ((b"allow", b"POST"),))
            raise RefusedError(problem)
        self._head_ended = True
        if self.parser.should_upgrade():
            return  # the parser stops now, and this head is read again
        version = self.parser.get_http_version()
        head = read_head(self.headers)
        self._body_left_bytes = head.content_length or 0
        if head.hosts != 1 and version == "1.1":
            raise RefusedError(Problem(Code.INVALID_HTTP, "there must be one Host header (RFC 9112 §3.2)"))
        if self._may_go_the_short_way() and is_usual(self.parser.get_method(), self.url, version, head):
            self._may_be_usual = False
            self._usual = self._quick_request(head, keep_alive=self.parser.should_keep_alive())
        else:
            self._hand_over(version)
        self._in_head = False
        self._framing_bytes = self._body_bytes = 0

    def on_message_complete(self) -> None:
        """A request's last byte."""
        if self._usual is not None:
            self.cycle = self._last = self._whole = self._usual
            self._usual = None
        elif not self._in_head:
            super().on_message_complete()

    # Which way a request goes

    def _is_between_requests(self) -> bool:
        """What has come is answered, and the parser has nothing of the next: nor is it in the body of one that was
        answered before its end, as a GET may be.
        """
        if self._head_bytes or self.pipeline or self._answer_is_due():
            return False
        return self.cycle is None or not self.cycle.more_body

    def _may_go_the_short_way(self) -> bool:
        """Nobody is before it in the queue, and its answer would not pile up behind others that nobody takes."""
        return self._may_be_usual and not self._answer_is_due() and not self.pipeline and not self.flow.write_paused

    def _go_the_long_way(self, usual: QuickRequest) -> None:
        """Its body has not come with its head: somebody has to wait for it."""
        self._usual = None
        self._hand_over("1.1")
        for chunk in usual.chunks:
            super().on_body(chunk)

    def _hand_over(self, version: str) -> None:
        """Let uvicorn make a request of the head that has come, and start the application."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url, self.headers = url, headers
        self.scope["headers"] = headers
        self.expect_100_continue = any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in headers
        )
        super().on_headers_complete()
        if version == "1.0":
            self.cycle.waiting_for_100_continue = False  # its sender cannot know what that is (RFC 9110 §10.1.1)
        if self._book.last_requests:
            self.cycle.keep_alive = False

    # What uvicorn calls

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._last = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """An answer is out: the next request has its turn."""
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
        if self.transport.get_write_buffer_size():
            self._book.unflushed.pop(self, None)  # its moment is that of the last answer
            self._book.unflushed[self] = self._book.now_s()
        if self.transport.is_closing():
            self._deaf = True  # nothing is begun behind the last answer, also if it came in the same read
            return
        if not self.pipeline:
            if self._held:
                self.loop.call_soon(self._go_on)
                return
            self._gate.open()
        if not self._answer_is_due() and not self._head_bytes:
            self._book.idle[self] = self._book.now_s()

    def _head_too_large(self) -> Problem:
        detail = f"the head is over {self._book.head_bytes_max} bytes (MAX_HEAD_BYTES) or {_HEADERS_MAX} headers"
        return Problem(Code.HEAD_TOO_LARGE, detail)


def _reason(error: httptools.HttpParserError) -> Problem:
    if isinstance(error.__context__, RefusedError):
        return error.__context__.problem
    if isinstance(error, httptools.HttpParserCallbackError):
        return Problem(Code.INVALID_HTTP, "the request's target is not valid")
    return Problem(Code.INVALID_HTTP, str(error))
