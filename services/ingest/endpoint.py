"""The hot route, `POST /v1/collections`, as a bare ASGI application: the long way, for whatever has to be waited for.

Takes what `quick` does not: bodies that come in pieces, compressed or large ones, other methods. Owns one request from
its head to its answer; every step that does not wait is `intake`'s. Every way out answers exactly once.
"""

import asyncio
import logging
import time

from starlette.types import Receive, Scope, Send

from services.ingest.body import Bodies, Body, DisconnectedError
from services.ingest.collection import Collection
from services.ingest.intake import Entry, Intake
from services.ingest.problems import MEDIA_TYPE, Code, Header, Problem, RefusedError
from services.ingest.request import read_head
from services.ingest.settings import IngestSettings
from shared.log import REQUEST_ID

logger = logging.getLogger("spillway.ingest.endpoint")

_JSON: Header = (b"content-type", b"application/json")
_PROBLEM: Header = (b"content-type", MEDIA_TYPE)
_CLOSE: Header = (b"connection", b"close")
_LARGE_BYTES = 1024 * 1024


class CollectionsEndpoint:
    """An ASGI application for one path, all methods."""

    def __init__(self, settings: IngestSettings, intake: Intake, bodies: Bodies) -> None:
        self._deadline_s = settings.http_deadline_s
        self._intake = intake
        self._bodies = bodies
        self._loop = asyncio.get_running_loop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        head = read_head(scope["headers"])
        entry = self._intake.open(head)
        REQUEST_ID.set(entry.request_id)
        body = self._bodies.open(head, entry.reserved, receive)
        answer: bytes | Problem
        try:
            answer = await self._answer(scope["method"], entry, body)
        except RefusedError as refused:
            answer = self._intake.refused(entry, refused.problem)
        except DisconnectedError:
            self._intake.gone(entry)
            return
        except Exception:
            logger.exception("unexpected error")
            detail = "something went wrong here; the log has it under the request id"
            answer = self._intake.refused(entry, Problem(Code.INTERNAL_ERROR, detail))
        finally:
            entry.reserved.release()
        if isinstance(answer, Problem):
            await send_problem(answer, entry.request_id, send, body)
        else:
            await _send(send, 200, answer, [_JSON, (b"x-request-id", entry.request_id.encode("ascii"))])

    async def _answer(self, method: str, entry: Entry, body: Body) -> bytes:
        """The body of a 200.

        Raises:
            RefusedError: there is none.
            DisconnectedError: nobody waits for it.

        """
        intake = self._intake
        intake.admit(entry, method)
        data = await body.read()
        intake.charge(entry, len(data))
        collection = await self._sliced(data)
        del data  # the payloads are copies: else each collection waited for its ack twice in memory
        done: asyncio.Future[Problem | None] = self._loop.create_future()
        submission = intake.queue(entry, collection, done.set_result)
        try:
            problem = await done
        finally:
            submission.abandon()
        if problem is not None:
            raise RefusedError(problem)
        return intake.accepted(entry)

    async def _sliced(self, data: bytes) -> Collection:
        """The collection in a body. A large one takes a tenth of a second that nothing else runs in: of those one at a
        time, and then as long a pause.
        """
        if len(data) <= _LARGE_BYTES:
            return self._intake.slice(data)
        async with self._bodies.turn(self._deadline_s):
            began_s = time.perf_counter()
            try:
                return self._intake.slice(data)
            finally:
                await asyncio.sleep(time.perf_counter() - began_s)


async def send_problem(problem: Problem, request_id: str, send: Send, unread: Body | None = None) -> None:
    """Send a problem document. Where the request's body was not read to its end, the connection ends too."""
    body = problem.body(request_id)
    headers = [_PROBLEM, (b"x-request-id", request_id.encode("ascii")), *problem.headers]
    if unread is None or not unread.unread:
        await _send(send, problem.status_code, body, headers)
        return
    await _send(send, problem.status_code, body, [*headers, _CLOSE], more=True)
    await unread.discard()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send(send: Send, status: int, body: bytes, headers: list[Header], *, more: bool = False) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more})
