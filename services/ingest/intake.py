"""What is done with one collection, on whichever way it came: one step after another, none of which waits.

Identify → charge → slice → queue → answer. Owns the order of the checks, the books of one request (`Entry`) and what is
counted of it. Reads no socket and writes none: `endpoint` calls the steps where a body has to be waited for, `quick`
where all of a request has come. Every way out gives back the reserved bytes and ends in `accepted` or `refused`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from services.ingest.access import UNNAMED, Access
from services.ingest.admission import Reservation
from services.ingest.batching import Submission
from services.ingest.body import Bodies
from services.ingest.collection import Collection, InvalidCollectionError, parse
from services.ingest.entropy import Entropy
from services.ingest.problems import Code, Problem, RefusedError, retry_after
from services.ingest.refusals import Refusals
from services.ingest.request import RequestHead
from services.ingest.settings import IngestSettings
from services.ingest.tokens import Token
from shared.record import Stamp, content_suffix, new_collection_id
from shared.telemetry import IngestMetrics

Submit = Callable[[Submission], Problem | None]
"""Queues a collection, or says why not; then nothing of it is written."""

_INVALID = {code.name.lower(): code for code in Code}
_UNAVAILABLE = 503
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Entry:
    """One request on its way in."""

    head: RequestHead
    request_id: str
    reserved: Reservation  # to be released, whatever happens
    started_s: float  # the loop's clock
    token: Token | None = None  # whose request it is, once that is known
    collection_id: str | None = None  # the UUID that the client has chosen
    size_bytes: int = 0  # of the body
    payload_bytes: int = 0  # of the payloads in it
    stamp: Stamp | None = None  # set when the collection is to be written


class Intake:
    """The steps. A step raises RefusedError where the request ends with it."""

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
        self._entropy = Entropy()
        self._now_s = asyncio.get_running_loop().time

    def open(self, head: RequestHead) -> Entry:
        """A request whose head has come."""
        request_id = head.request_id or self._entropy.take(16).hex()
        return Entry(head, request_id, self._bodies.admission.open(), self._now_s())

    def admit(self, entry: Entry, method: str) -> None:
        """All that the head decides: a refusal costs no body then."""
        if method != "POST":
            detail = f"{method[:32]} is not allowed here"
            raise RefusedError(Problem(Code.METHOD_NOT_ALLOWED, detail, ((b"allow", b"POST"),)))
        head = entry.head
        if self._access.required:
            self._identify_by_head(entry)
        if head.idempotency_key is not None:
            entry.collection_id = head.collection_id(time.time_ns() // 1_000_000)
        problem = head.refusal(self._body_bytes_max) or self._refusal()
        if problem is not None:
            raise RefusedError(problem)

    def _identify_by_head(self, entry: Entry) -> None:
        if entry.head.bearer is None:
            entry.reserved.belongs_to(UNNAMED)
            return
        entry.token = token = self._access.identify(entry.head.bearer)
        if token is not None:
            entry.reserved.belongs_to(token.name)
            self._access.look(token, self._now_s())

    def charge(self, entry: Entry, size_bytes: int) -> None:
        """The body has come: before anything is done for it, since one that makes no sense costs its sender, too."""
        entry.size_bytes = size_bytes
        if entry.token is not None:
            self._access.take(entry.token, size_bytes, self._now_s())

    def slice(self, data: bytes) -> Collection:
        """The collection in a body."""
        try:
            return parse(data, self._items_max)
        except InvalidCollectionError as error:
            raise RefusedError(Problem(_INVALID[error.code], error.detail)) from None

    def queue(self, entry: Entry, collection: Collection, notify: Callable[[Problem | None], None]) -> Submission:
        """Give the collection to a writer; `notify` is called with its outcome, perhaps at once."""
        if entry.token is None and self._access.required:
            entry.token = token = self._access.identify(collection.token.encode() if collection.token else None)
            if token is not None:
                entry.reserved.belongs_to(token.name)
                self._access.take(token, entry.size_bytes, self._now_s())
        submission = self._stamped(entry, collection, notify)
        # A payload of one byte is a record of three hundred: what waits in memory is reserved, not what was sent.
        more_bytes = submission.left_bytes - entry.reserved.bytes
        if more_bytes > 0:
            self._bodies.take(entry.reserved, more_bytes)
        problem = self._submit(submission)
        if problem is not None:
            raise RefusedError(problem)
        return submission

    def _stamped(self, entry: Entry, collection: Collection, notify: Callable[[Problem | None], None]) -> Submission:
        head, values, chosen = entry.head, collection.payloads, entry.collection_id
        now_ns = time.time_ns()
        folder = self._folder if entry.token is None else entry.token.folder or self._folder
        entry.payload_bytes = sum(map(len, values))
        entry.stamp = stamp = Stamp.of(
            collection_id=chosen or new_collection_id(now_ns // 1_000_000, self._entropy.take(10)),
            folder=folder,
            version=collection.version,
            received_ns=now_ns,
            request_id=entry.request_id,
            count=len(values),
            traceparent=head.traceparent,
            suffixes=() if chosen is None else tuple(map(content_suffix, values)),
        )
        return Submission(
            values,
            stamp.headers,
            key=head.partition_key,
            deadline_s=self._now_s() + self._deadline_s,
            notify=notify,
            request_id=entry.request_id,
        )

    def accepted(self, entry: Entry) -> bytes:
        """The body of a 200: all payloads are acknowledged."""
        stamp = entry.stamp
        if stamp is None:
            raise RuntimeError("acknowledged before it was queued")
        self._bodies.admission.acked(entry.reserved.bytes)
        entry.reserved.release()
        self._metrics.payloads.inc(stamp.payload_count)
        self._metrics.payload_bytes.inc(entry.payload_bytes)
        self._accepted.inc()
        self._metrics.request_seconds.observe(self._now_s() - entry.started_s)
        ids = [stamp.payload_id(index) for index in range(stamp.payload_count)]
        return _encode({"accepted": stamp.payload_count, "ids": ids})

    def refused(self, entry: Entry, problem: Problem) -> Problem:
        """What the client is told, counted and in the log."""
        now_s = self._now_s()
        if entry.token is not None and entry.stamp is not None and problem.code.value.outcome == "not_written":
            self._access.give_back(entry.token, entry.size_bytes, now_s)
        problem = self._with_retry_after(problem)
        entry.reserved.release()
        self._metrics.request_seconds.observe(now_s - entry.started_s)
        self._refusals.tell(problem, entry.request_id, now_s)
        return problem

    def gone(self, entry: Entry) -> None:
        """The client left, or its connection made no sense, before its body was complete: nobody to answer."""
        entry.reserved.release()
        self._metrics.disconnects.inc()

    def _with_retry_after(self, problem: Problem) -> Problem:
        if problem.status_code != _UNAVAILABLE or any(name == b"retry-after" for name, _ in problem.headers):
            return problem
        header = retry_after(self._bodies.admission.retry_after_s())
        return Problem(problem.code, problem.detail, (*problem.headers, header), problem.status)
