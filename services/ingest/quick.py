"""The short way: a usual request (`request.is_usual`) whose body came with its head is served without a task.

Owns such a request from its last byte to its answer. It runs every step of `intake` in one go, inside the read that
brought the request, and the ack of its batch writes the answer: no task, no future, no messages of ASGI, which together
cost more than all of our own work. It never waits; what has to wait for anything goes through `endpoint`, and both give
the same answers (docs/decisions/0020). To `protocol` it looks like a request of uvicorn's, so that one behind it waits
in the same queue.
"""

import asyncio
import logging
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from services.ingest.body import Bodies
from services.ingest.intake import Entry, Intake
from services.ingest.known_heads import KnownHeads
from services.ingest.problems import Code, Header, Problem, RefusedError
from services.ingest.request import RequestHead
from services.ingest.wire import accepted_answer, header_lines, problem_answer

logger = logging.getLogger("spillway.ingest.quick")


class QuickRoute:
    """What all usual requests are served with."""

    def __init__(self, intake: Intake, bodies: Bodies) -> None:
        self.intake = intake
        self.bodies = bodies
        self.heads = KnownHeads()
        self._given: list[Header] = []  # uvicorn's own headers, made anew each second
        self._given_lines = b""  # the same as bytes

    def given_lines(self, state: ServerState) -> bytes:
        """The header lines that every answer of the server starts with."""
        given = state.default_headers
        if given is not self._given:
            self._given, self._given_lines = given, header_lines(given)
        return self._given_lines


class _Unheard(asyncio.Event):
    """Nobody waits for what comes of a request that is whole."""

    def set(self) -> None:
        """Nothing."""


class QuickRequest(RequestResponseCycle):
    """One request, in the place of uvicorn's own, of which it has what the protocol asks for. ASGI never sees it."""

    message_event = _Unheard()
    more_body = False  # it stands in that place only when all of it has come
    response_started = False
    response_complete = False
    disconnected = False
    waiting_for_100_continue = False

    def __init__(  # uvicorn's own sets up what this one saves
        self,
        route: QuickRoute,
        head: RequestHead,
        transport: asyncio.Transport,
        state: ServerState,
        on_response: Callable[[], None],
        *,
        keep_alive: bool,
    ) -> None:
        self.head = head
        self.chunks: list[bytes] = []  # of the body
        self.transport = transport
        self.on_response = on_response
        self.keep_alive = keep_alive  # whether the connection goes on after the answer
        self._route = route
        self._state = state
        self._entry: Entry | None = None  # while the answer is due
        self._unread = True  # nobody has looked at the body

    def serve(self) -> None:
        """Answer it, now or when its batch is acknowledged. All of it has come."""
        intake = self._route.intake
        self._entry = entry = intake.open(self.head)
        chunks, self.chunks = self.chunks, []
        try:
            intake.admit(entry, "POST")
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._route.bodies.whole(entry.reserved, len(data))
            self._unread = False
            intake.charge(entry, len(data))
            intake.queue(entry, intake.slice(data), self._settle)
        except RefusedError as refused:
            self._settle(refused.problem)
        except Exception:  # as in `endpoint`: a stack trace never leaves the process
            logger.exception("unexpected error", extra={"request_id": entry.request_id})
            detail = "something went wrong here; the log has it under the request id"
            self._settle(Problem(Code.INTERNAL_ERROR, detail))

    def _settle(self, problem: Problem | None) -> None:
        """Write the answer, once. Called by a writer among others' answers: nothing may escape."""
        entry, self._entry = self._entry, None
        if entry is None:
            return
        try:
            answer = self._answer(entry, problem)
            self.response_complete = True
            if not self.disconnected:
                self.transport.write(answer)
                if not self.keep_alive:
                    self.transport.close()
                self.on_response()
        except Exception:
            logger.exception("unexpected error", extra={"request_id": entry.request_id})
            entry.reserved.release()
            self.transport.abort()

    def _answer(self, entry: Entry, problem: Problem | None) -> bytes:
        given = self._route.given_lines(self._state)
        if problem is None:
            body = self._route.intake.accepted(entry)
            return accepted_answer(given, entry.request_id, body, close=not self.keep_alive)
        if self._unread:  # as if it had not come: what a refusal costs must not depend on how reads fell
            self.keep_alive = False
        told = self._route.intake.refused(entry, problem)
        return problem_answer(told, entry.request_id, given, close=not self.keep_alive)
