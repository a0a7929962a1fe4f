"""The hot route, `POST /v1/collections`, as a bare ASGI application: reserve → read → slice → write → acks → 200.

Owns one request from its head to its answer. Every way out gives back the reserved bytes and answers exactly once. Pays
for no framework: nothing here is done for each request that is not needed by each request.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable

import msgspec
from starlette.types import Message, Receive, Scope, Send

from services.ingest.admission import Admission
from services.ingest.batching import Submission
from services.ingest.collection import Collection, InvalidCollectionError, parse
from services.ingest.problems import MEDIA_TYPE, Code, Header, Problem, retry_after
from services.ingest.request import RequestHead, body_too_large, read_head
from services.ingest.settings import IngestSettings
from shared.record import Stamp, new_collection_id
from shared.telemetry import IngestMetrics

logger = logging.getLogger("spillway.ingest.endpoint")

Submit = Callable[[Submission], Problem | None]
"""Queues a collection, or says why not; then nothing of it is written."""

_JSON: Header = (b"content-type", b"application/json")
_PROBLEM: Header = (b"content-type", MEDIA_TYPE)
_CLOSE: Header = (b"connection", b"close")
_INVALID = {code.name.lower(): code for code in Code}
_LINGER_S = 2.0
_LINGER_BYTES_MAX = 64 * 1024 * 1024
_encode = msgspec.json.Encoder().encode


class _Disconnected(Exception):  # noqa: N818 - no error: the client may go when it likes
    """The client left before its body was complete: nobody to answer."""


class CollectionsEndpoint:
    """An ASGI application for one path, all methods."""

    def __init__(
        self,
        settings: IngestSettings,
        *,
        admission: Admission,
        submit: Submit,
        refusal: Callable[[], Problem | None],
        metrics: IngestMetrics,
    ) -> None:
        self._body_bytes_max = settings.max_body_bytes
        self._items_max = settings.max_items
        self._deadline_s = settings.http_deadline_s
        self._body_deadline_s = settings.body_deadline_s
        self._folder = settings.s3_folder
        self._admission = admission
        self._submit = submit
        self._refusal = refusal  # why no collection can be taken at all, asked before the body is read
        self._metrics = metrics
        self._accepted = metrics.requests.labels("200", "")
        self._loop = asyncio.get_running_loop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started_s = self._loop.time()
        head = read_head(scope["headers"])
        request_id = head.request_id or os.urandom(16).hex()
        reading = _Body(head, receive, self._body_bytes_max, self._admission)
        try:
            answer = await self._answer(scope["method"], head, request_id, reading)
        except _Disconnected:
            return
        except Exception:
            logger.exception("unexpected error", extra={"request_id": request_id})
            answer = Problem(Code.INTERNAL_ERROR, "something went wrong here; the log has it under the request id")
        finally:
            reading.release()
        if isinstance(answer, Problem):
            self._metrics.requests.labels(str(answer.status_code), answer.label).inc()
            await send_problem(self._with_retry_after(answer), request_id, send, reading)
        else:
            self._accepted.inc()
            await _send(send, 200, answer, [_JSON, (b"x-request-id", request_id.encode("ascii"))])
        self._metrics.request_seconds.observe(self._loop.time() - started_s)

    async def _answer(self, method: str, head: RequestHead, request_id: str, reading: "_Body") -> bytes | Problem:
        if method != "POST":
            return Problem(Code.METHOD_NOT_ALLOWED, f"{method[:32]} is not allowed here", ((b"allow", b"POST"),))
        problem = head.refusal(self._body_bytes_max) or self._refusal()
        if problem is not None:
            return problem
        try:
            async with asyncio.timeout(self._body_deadline_s):
                body = await reading.read()
        except TimeoutError:
            return Problem(Code.BODY_TIMEOUT, f"the body took longer than {self._body_deadline_s:g} s")
        if isinstance(body, Problem):
            return body
        try:
            collection = parse(body, self._items_max)
        except InvalidCollectionError as error:
            return Problem(_INVALID[error.code], error.detail)
        del body
        return await self._write(collection, head, request_id)

    async def _write(self, collection: Collection, head: RequestHead, request_id: str) -> bytes | Problem:
        now_ns = time.time_ns()
        values = collection.payloads
        stamp = Stamp.of(
            collection_id=new_collection_id(now_ns // 1_000_000, os.urandom(10)),
            folder=self._folder,
            version=collection.version,
            received_ns=now_ns,
            request_id=request_id,
            count=len(values),
            traceparent=head.traceparent,
        )
        done: asyncio.Future[Problem | None] = self._loop.create_future()
        submission = Submission(
            values,
            stamp.headers,
            key=head.partition_key,
            deadline_s=self._loop.time() + self._deadline_s,
            notify=done.set_result,
        )
        problem = self._submit(submission)
        if problem is not None:
            return problem
        try:
            problem = await done
        finally:
            submission.abandon()
        if problem is not None:
            return problem
        self._metrics.payloads.inc(len(values))
        self._metrics.payload_bytes.inc(sum(map(len, values)))
        return _encode({"accepted": len(values), "ids": [stamp.payload_id(index) for index in range(len(values))]})

    def _with_retry_after(self, problem: Problem) -> Problem:
        if problem.status_code != 503:  # noqa: PLR2004 - Service Unavailable
            return problem
        header = retry_after(self._admission.retry_after_s())
        return Problem(problem.code, problem.detail, (*problem.headers, header), problem.status)


class _Body:
    """A request's body on its way in: bounded, and its bytes reserved before they are taken."""

    def __init__(self, head: RequestHead, receive: Receive, bytes_max: int, admission: Admission) -> None:
        self._receive = receive
        self._bytes_max = bytes_max
        self._admission = admission
        self._length = head.content_length
        self._reserved = 0  # bytes, given back by `release`
        self.unread = head.has_body  # some of it may still come

    async def read(self) -> bytes | Problem:
        """The whole body.

        Raises:
            _Disconnected: the client left.

        """
        if self._length is not None and not self._reserve(self._length):
            return self._full()
        chunks: list[bytes] = []
        got = 0
        more = True
        while more:
            message = await self._next()
            chunk: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            got += len(chunk)
            if got > self._bytes_max:
                return body_too_large(self._bytes_max)
            if got > self._reserved and not self._reserve(got - self._reserved):
                return self._full()
            chunks.append(chunk)
        self.unread = False
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def discard(self) -> None:
        """Take what still comes, for a while: a connection closed over unread bytes is reset, and the answer lost."""
        left = _LINGER_BYTES_MAX
        try:
            async with asyncio.timeout(_LINGER_S):
                while self.unread and left > 0:
                    message = await self._next()
                    left -= len(message.get("body", b""))
                    self.unread = message.get("more_body", False)
        except (TimeoutError, _Disconnected):
            return

    def release(self) -> None:
        """Give the reserved bytes back."""
        self._admission.release(self._reserved)
        self._reserved = 0

    def _reserve(self, size: int) -> bool:
        if not self._admission.reserve(size):
            return False
        self._reserved += size
        return True

    def _full(self) -> Problem:
        return Problem(
            Code.OVERLOADED, f"{self._admission.bytes_max} bytes are in flight already (MAX_IN_FLIGHT_BYTES)"
        )

    async def _next(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        return message


async def send_problem(problem: Problem, request_id: str, send: Send, reading: _Body | None = None) -> None:
    """Send a problem document. Where the request's body was not read to its end, the connection ends too."""
    body = problem.body(request_id)
    headers = [_PROBLEM, (b"x-request-id", request_id.encode("ascii")), *problem.headers]
    if reading is None or not reading.unread:
        await _send(send, problem.status_code, body, headers)
        return
    await _send(send, problem.status_code, body, [*headers, _CLOSE], more=True)
    await reading.discard()
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send(send: Send, status: int, body: bytes, headers: list[Header], *, more: bool = False) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more})
