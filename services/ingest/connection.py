"""How one connection begins and ends (docs/decisions/0015).

Owns its place among all, the answers that the server gives in place of the application, and the order of the last
things: an answer that is due goes out before the end, and for a client that leaves or does not take it nobody waits.
What comes on the connection is `protocol`'s; what many of them may do together is `connections`'.
"""

import asyncio
import os
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from services.ingest.connections import Connections
from services.ingest.problems import Code, Problem, retry_after
from services.ingest.wire import last_answer


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's connection, entered in the books. What it refuses by itself, it answers with problem documents."""

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._book = connections
        self._last: RequestResponseCycle | None = None  # the request whose application was started last
        self._deaf = False  # nothing that still comes is looked at

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        """A client is here: its first request's head is due."""
        super().connection_made(transport)
        self.flow = self._gate = Gate(transport)
        if self._book.enter(self):
            self._book.fresh[self] = self._book.now_s()
        else:
            detail = "no more connections are taken (MAX_CONNECTIONS)"
            self._refuse(Problem(Code.TOO_MANY_CONNECTIONS, detail, (retry_after(self._book.room_after_s()),)))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or we are done with it."""
        self._deaf = True
        self._book.leave(self)
        super().connection_lost(exc)
        if self._last is not None:  # uvicorn tells the request that came last, and that one may only wait for its turn
            self._last.disconnected = True
            self._last.message_event.set()

    def eof_received(self) -> bool | None:  # type: ignore[override] # uvicorn returns nothing
        """The client sends no more. An answer that is due is still sent: half-closing is allowed (RFC 9112 §9.6)."""
        if self._answer_is_due() and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return True
        return None

    def shutdown(self) -> None:
        """The server stops: the answers that are due are the last."""
        if self._answer_is_due():
            self._end_after_answers()
        else:
            self.close()

    # How a connection ends

    def head_is_late(self) -> None:
        """The head has had its time."""
        detail = f"the head took longer than {self._book.head_deadline_s:g} s"
        self._cannot_go_on(Problem(Code.HEAD_TIMEOUT, detail))

    def holds_output(self) -> bool:
        """Whether something waits that the client does not take, an answer or the end of the connection."""
        return self._deaf or self.transport.get_write_buffer_size() > 0

    def close(self) -> None:
        """Close once what was written has gone out; soon, whatever the client does."""
        self._deaf = True
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._book.unflushed.setdefault(self, self._book.now_s())

    def _refuse(self, problem: Problem) -> None:
        """Answer in place of the application, and end the connection.

        What still comes is read and dropped until the client closes: closing over unread bytes would reset the
        connection, and the answer would be lost.
        """
        request_id = os.urandom(16).hex()
        self._book.refusals.tell(problem, request_id, self._book.now_s())
        self._deaf = True
        self._book.heads.pop(self, None)
        self.transport.write(last_answer(problem, request_id))
        if self._book.may_linger():
            self.transport.write_eof()
            self._book.unflushed.setdefault(self, self._book.now_s())
        else:
            self.transport.close()

    def _cannot_go_on(self, problem: Problem) -> None:
        """The connection's bytes make no sense from here on.

        An answer that is still due belongs to an earlier request, whose payloads are being written: that client must
        not hear a 400 in its place. It gets its own, and then the connection ends.
        """
        self._deaf = True
        self._book.heads.pop(self, None)
        if not self._answer_is_due():
            self._refuse(problem)
        elif self.cycle is not self._last:
            self._end_after_waiting()
        elif self.cycle.more_body:  # its own body is what makes no sense
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False  # or uvicorn would write one behind our end
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.close()
            else:
                self._refuse(problem)
        else:
            self._end_after_answers()

    def _end_after_waiting(self) -> None:
        """End with the answers of what waits; of these the last has no turn if its body will never be complete."""
        if self.cycle.more_body:
            self.pipeline.popleft()
        self._end_after_answers()

    def _end_after_answers(self) -> None:
        last = self.pipeline[0][0] if self.pipeline else self._last
        if last is not None:
            last.keep_alive = False

    def _answer_is_due(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete


class Gate(FlowControl):
    """uvicorn's flow control, which opens with every answer and every chunk of a body: not while requests wait."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._shut = False

    def shut(self) -> None:
        """Read no more until `open`, whoever asks."""
        self._shut = True
        self.pause_reading()

    def open(self) -> None:
        """Read again."""
        self._shut = False
        self.resume_reading()

    def resume_reading(self) -> None:
        """Read again, where nothing waits."""
        if not self._shut:
            super().resume_reading()
