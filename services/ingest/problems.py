"""Every answer that is not a 200, as `application/problem+json` (RFC 9457). Pure.

Owns the table of stable codes: what a client may build on. A `detail` is for a person and may change; a code does not.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple

import msgspec

Header = tuple[bytes, bytes]

MEDIA_TYPE = b"application/problem+json"


class Kind(NamedTuple):
    """What is the same for every problem of one code."""

    status: int
    title: str
    retryable: bool
    outcome: Literal["not_written", "unknown"] = "not_written"


class Code(Enum):
    """The stable codes. `name` in small letters is what goes over the wire."""

    INVALID_JSON = Kind(400, "The body is not JSON", retryable=False)
    NOT_UTF8 = Kind(400, "The body is not UTF-8", retryable=False)  # also where it would pass as bytes
    INVALID_ENVELOPE = Kind(400, "The body is not a collection", retryable=False)
    DUPLICATE_KEY = Kind(400, "A key of the envelope stands twice", retryable=False)
    EMPTY_DATA = Kind(400, "The collection is empty", retryable=False)
    TOO_MANY_ITEMS = Kind(400, "The collection has too many payloads", retryable=False)
    INVALID_ENCODING = Kind(400, "The body is not what its Content-Encoding says", retryable=False)
    INVALID_HEADER = Kind(400, "A request header is not valid", retryable=False)
    INVALID_IDEMPOTENCY_KEY = Kind(400, "The Idempotency-Key is not a UUIDv7 of our time", retryable=False)
    INVALID_HTTP = Kind(400, "The request is not HTTP/1.1", retryable=False)
    TOKEN_UNKNOWN = Kind(401, "The token is missing or unknown", retryable=False)
    TOKEN_DISABLED = Kind(403, "The token is disabled", retryable=False)
    NOT_FOUND = Kind(404, "There is nothing at this path", retryable=False)
    METHOD_NOT_ALLOWED = Kind(405, "The path does not take this method", retryable=False)
    HEAD_TIMEOUT = Kind(408, "The request's head did not arrive in time", retryable=True)
    BODY_TIMEOUT = Kind(408, "The body did not arrive in time", retryable=True)
    BODY_TOO_LARGE = Kind(413, "The body is too large", retryable=False)
    DECODED_BODY_TOO_LARGE = Kind(413, "The body is too large once decompressed", retryable=False)
    RECORD_TOO_LARGE = Kind(413, "A payload is too large", retryable=False)
    UNSUPPORTED_MEDIA_TYPE = Kind(415, "The content type is not JSON", retryable=False)
    UNSUPPORTED_ENCODING = Kind(415, "The content encoding is not supported", retryable=False)
    QUOTA_SPENT = Kind(429, "The token's quota is spent", retryable=True)
    HEAD_TOO_LARGE = Kind(431, "The request's head is too large", retryable=False)
    INTERNAL_ERROR = Kind(500, "An unexpected error", retryable=True, outcome="unknown")
    TRANSFER_CODING = Kind(501, "The transfer coding is not supported", retryable=False)
    DRAINING = Kind(503, "This server is shutting down", retryable=True)
    TOO_MANY_CONNECTIONS = Kind(503, "Too many connections are open", retryable=True)
    OVERLOADED = Kind(503, "Too much is in flight", retryable=True)
    KAFKA_UNAVAILABLE = Kind(503, "Kafka does not answer", retryable=True)
    KAFKA_REFUSED = Kind(503, "Kafka refused the write", retryable=True)
    TOPIC_UNAVAILABLE = Kind(503, "The topic cannot take payloads", retryable=True)
    HTTP_ERROR = Kind(500, "An HTTP error", retryable=False)  # what the framework refuses and no other code names
    OUTCOME_UNKNOWN = Kind(504, "Not known whether it was written", retryable=True, outcome="unknown")


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal: its code, what happened this time, and the headers that belong to it."""

    code: Code
    detail: str
    headers: tuple[Header, ...] = ()
    status: int | None = None  # instead of the code's own

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        return self.code.value.status if self.status is None else self.status

    @property
    def label(self) -> str:
        """The code as it goes over the wire and into metrics."""
        return self.code.name.lower()

    def body(self, request_id: str) -> bytes:
        """The document, JSON."""
        kind = self.code.value
        return msgspec.json.encode(
            {
                "type": f"urn:spillway:problem:{self.label}",
                "title": kind.title,
                "status": self.status_code,
                "detail": self.detail,
                "code": self.label,
                "request_id": request_id,
                "retryable": kind.retryable,
                "outcome": kind.outcome,
            }
        )


class RefusedError(Exception):
    """Ends a request that is not answered 200; carries what its client is told."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


def retry_after(seconds: int) -> Header:
    """The `Retry-After` header, in whole seconds."""
    return (b"retry-after", b"%d" % seconds)
