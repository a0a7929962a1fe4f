"""The hot route, `POST /v1/collections`, as a bare ASGI application.

Identify → read → slice → write → acks → 200. Owns one request from its head to its answer. Every way out gives back the
reserved bytes and answers exactly once. Pays for no framework: nothing here is done for each request that is not needed
by each request.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable

import msgspec
from starlette.types import Receive, Scope, Send

from services.ingest.access import UNNAMED, Access
from services.ingest.batching import Submission
from services.ingest.body import Bodies, Body, DisconnectedError
from services.ingest.collection import Collection, InvalidCollectionError, parse
from services.ingest.problems import MEDIA_TYPE, Code, Header, Problem, RefusedError, retry_after
from services.ingest.refusals import Refusals
from services.ingest.request import RequestHead, read_head
from services.ingest.settings import IngestSettings
from services.ingest.tokens import Token
from shared.record import Stamp, content_suffix, new_collection_id
from shared.telemetry import REQUEST_ID, IngestMetrics

logger = logging.getLogger("spillway.ingest.endpoint")

Submit = Callable[[Submission], Problem | None]
"""Queues a collection, or says why not; then nothing of it is written."""

_JSON: Header = (b"content-type", b"application/json")
_PROBLEM: Header = (b"content-type", MEDIA_TYPE)
_CLOSE: Header = (b"connection", b"close")
_INVALID = {code.name.lower(): code for code in Code}
_LARGE_BYTES = 1024 * 1024
_encode = msgspec.json.Encoder().encode


class CollectionsEndpoint:
    """An ASGI application for one path, all methods."""

    def __init__(
        self,
        settings: IngestSettings,
        *,
        access: Access,
        bodies: Bodies,
        submit: Submit,
        refusal: Callable[[], Problem | None],
        refusals: Refusals,
        metrics: IngestMetrics,
    ) -> None:
        self._body_bytes_max = settings.max_body_bytes
        self._items_max = settings.max_items
        self._deadline_s = settings.http_deadline_s
        self._folder = settings.s3_folder
        self._access = access
        self._bodies = bodies
        self._submit = submit
        self._refusal = refusal  # why no collection can be taken at all, asked before the body is read
        self._refusals = refusals
        self._metrics = metrics
        self._accepted = metrics.requests.labels("200", "")
        self._loop = asyncio.get_running_loop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started_s = self._loop.time()
        head = read_head(scope["headers"])
        request_id = head.request_id or os.urandom(16).hex()
        REQUEST_ID.set(request_id)
        body = self._bodies.open(head, receive)
        answer: bytes | Problem
        try:
            answer = await self._answer(scope["method"], head, request_id, body)
        except RefusedError as refused:
            answer = self._with_retry_after(refused.problem)
        except DisconnectedError:
            self._metrics.disconnects.inc()
            return
        except Exception:
            logger.exception("unexpected error")
            answer = Problem(Code.INTERNAL_ERROR, "something went wrong here; the log has it under the request id")
        finally:
            body.release()
        self._metrics.request_seconds.observe(self._loop.time() - started_s)
        if isinstance(answer, Problem):
            self._refusals.tell(answer, request_id, self._loop.time())
            await send_problem(answer, request_id, send, body)
        else:
            self._accepted.inc()
            await _send(send, 200, answer, [_JSON, (b"x-request-id", request_id.encode("ascii"))])

    async def _answer(self, method: str, head: RequestHead, request_id: str, body: Body) -> bytes:
        """The body of a 200.

        Raises:
            RefusedError: there is none.
            DisconnectedError: nobody waits for it.

        """
        if method != "POST":
            detail = f"{method[:32]} is not allowed here"
            raise RefusedError(Problem(Code.METHOD_NOT_ALLOWED, detail, ((b"allow", b"POST"),)))
        token = self._token_of_head(head, body)
        collection_id = head.collection_id(time.time_ns() // 1_000_000)
        problem = head.refusal(self._body_bytes_max) or self._refusal()
        if problem is not None:
            raise RefusedError(problem)
        data = await body.read()
        size_bytes = len(data)
        if token is not None:  # before anything is done for it: a body that makes no sense costs its sender, too
            self._access.take(token, size_bytes, self._loop.time())
        collection = await self._parsed(data)
        del data  # the payloads are copies: else each collection waited for its ack twice in memory
        if token is None and self._access.required:
            token = self._access.identify(collection.token.encode() if collection.token else None)
            if token is not None:
                body.owned_by(token.name)
                self._access.take(token, size_bytes, self._loop.time())
        if token is None:
            return await self._write(collection, self._folder, collection_id, head, request_id, body)
        try:
            return await self._write(collection, token.folder or self._folder, collection_id, head, request_id, body)
        except RefusedError as refused:
            if refused.problem.code.value.outcome == "not_written":
                self._access.give_back(token, size_bytes, self._loop.time())
            raise

    async def _parsed(self, data: bytes) -> Collection:
        """The collection in a body. A large one takes a tenth of a second that nothing else runs in: of those one at a
        time, and then as long a pause.
        """
        try:
            if len(data) <= _LARGE_BYTES:
                return parse(data, self._items_max)
            async with self._bodies.turn(self._deadline_s):
                began_s = time.perf_counter()
                try:
                    return parse(data, self._items_max)
                finally:
                    await asyncio.sleep(time.perf_counter() - began_s)
        except InvalidCollectionError as error:
            raise RefusedError(Problem(_INVALID[error.code], error.detail)) from None

    def _token_of_head(self, head: RequestHead, body: Body) -> Token | None:
        """Whose request it is, where the head says so: then a refusal costs no body."""
        if not self._access.required:
            return None
        if head.bearer is None:
            body.owned_by(UNNAMED)
            return None
        token = self._access.identify(head.bearer)
        if token is not None:
            body.owned_by(token.name)
            self._access.look(token, self._loop.time())
        return token

    async def _write(
        self,
        collection: Collection,
        folder: str,
        collection_id: str | None,
        head: RequestHead,
        request_id: str,
        body: Body,
    ) -> bytes:
        now_ns = time.time_ns()
        values = collection.payloads
        stamp = Stamp.of(
            collection_id=collection_id or new_collection_id(now_ns // 1_000_000, os.urandom(10)),
            folder=folder,
            version=collection.version,
            received_ns=now_ns,
            request_id=request_id,
            count=len(values),
            traceparent=head.traceparent,
            suffixes=() if collection_id is None else tuple(map(content_suffix, values)),
        )
        done: asyncio.Future[Problem | None] = self._loop.create_future()
        submission = Submission(
            values,
            stamp.headers,
            key=head.partition_key,
            deadline_s=self._loop.time() + self._deadline_s,
            notify=done.set_result,
            request_id=request_id,
        )
        # A payload of one byte is a record of three hundred: what waits in memory is reserved, not what was sent.
        body.grow(submission.left_bytes)
        problem = self._submit(submission)
        if problem is None:
            try:
                problem = await done
            finally:
                submission.abandon()
        if problem is not None:
            raise RefusedError(problem)
        self._bodies.admission.acked(body.reserved.bytes)
        self._metrics.payloads.inc(len(values))
        self._metrics.payload_bytes.inc(sum(map(len, values)))
        return _encode({"accepted": len(values), "ids": [stamp.payload_id(index) for index in range(len(values))]})

    def _with_retry_after(self, problem: Problem) -> Problem:
        if problem.status_code != 503 or any(name == b"retry-after" for name, _ in problem.headers):  # noqa: PLR2004
            return problem
        header = retry_after(self._bodies.admission.retry_after_s())
        return Problem(problem.code, problem.detail, (*problem.headers, header), problem.status)


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
