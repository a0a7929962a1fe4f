"""What the headers of a collection request ask for, read once, and refused where we cannot do it. Pure."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.ingest.problems import Code, Header, Problem

PARTITION_KEY_BYTES_MAX = 256

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_TRACE_CONTEXT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_PRINTABLE = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")
_MEDIA_TYPE = re.compile(
    rb"application/(?:[a-z0-9!#$&^_.-]+\+)?json[ \t]*(?:;[ \t]*charset=\"?utf-?8\"?[ \t]*)?", re.IGNORECASE
)
_COMMON_MEDIA_TYPES = frozenset((b"application/json", b"application/json; charset=utf-8", b""))


@dataclass(slots=True)
class RequestHead:
    """The headers that matter. Absent ones are None, an absent or unusable length too."""

    request_id: str | None = None  # as the client sent it, if it is sane
    content_length: int | None = None
    chunked: bool = False
    content_type: bytes = b""
    content_encoding: bytes = b""
    partition_key: bytes | None = None
    traceparent: str | None = None

    @property
    def has_body(self) -> bool:
        """Whether body bytes follow the head."""
        return self.chunked or bool(self.content_length)

    def refusal(self, body_bytes_max: int) -> Problem | None:
        """Why the request is refused before its body is read, or None."""
        if self.content_encoding and self.content_encoding.lower() != b"identity":
            return Problem(
                Code.UNSUPPORTED_ENCODING,
                f"Content-Encoding {_shown(self.content_encoding)} is not supported; send the body as it is",
                ((b"accept-encoding", b"identity"),),
            )
        if self.content_type not in _COMMON_MEDIA_TYPES and not _MEDIA_TYPE.fullmatch(self.content_type):
            return Problem(
                Code.UNSUPPORTED_MEDIA_TYPE,
                f"Content-Type {_shown(self.content_type)} is not application/json in UTF-8",
                ((b"accept", b"application/json"),),
            )
        if self.partition_key is not None and not _PRINTABLE.fullmatch(self.partition_key):
            return Problem(
                Code.INVALID_HEADER,
                f"Partition-Key must be 1 to {PARTITION_KEY_BYTES_MAX} printable ASCII characters",
            )
        if self.content_length is not None and self.content_length > body_bytes_max:
            return body_too_large(body_bytes_max)
        return None


def _length(head: RequestHead, value: bytes) -> None:
    head.content_length = int(value)  # the HTTP parser has refused anything but digits


def _type(head: RequestHead, value: bytes) -> None:
    head.content_type = value.strip()


def _chunked(head: RequestHead, _: bytes) -> None:
    head.chunked = True


def _encoding(head: RequestHead, value: bytes) -> None:
    head.content_encoding = value.strip()


def _request_id(head: RequestHead, value: bytes) -> None:
    if _REQUEST_ID.fullmatch(value):
        head.request_id = value.decode("ascii")


def _traceparent(head: RequestHead, value: bytes) -> None:
    if _TRACE_CONTEXT.fullmatch(value):
        head.traceparent = value.decode("ascii")


def _partition_key(head: RequestHead, value: bytes) -> None:
    head.partition_key = value.strip()


_WANTED: dict[bytes, Callable[[RequestHead, bytes], None]] = {
    b"content-length": _length,
    b"content-type": _type,
    b"transfer-encoding": _chunked,
    b"content-encoding": _encoding,
    b"x-request-id": _request_id,
    b"traceparent": _traceparent,
    b"partition-key": _partition_key,
}


def read_head(headers: Iterable[Header]) -> RequestHead:
    """Pick the headers that matter; names come in small letters, as ASGI gives them."""
    head = RequestHead()
    for name, value in headers:
        if name in _WANTED:
            _WANTED[name](head, value)
    return head


def body_too_large(body_bytes_max: int) -> Problem:
    """The refusal of a body over the limit."""
    return Problem(Code.BODY_TOO_LARGE, f"the body is over {body_bytes_max} bytes (MAX_BODY_BYTES)")


def _shown(value: bytes) -> str:
    return repr(value[:64].decode("latin-1"))
