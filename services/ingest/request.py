"""What the headers of a collection request ask for, read once, and refused where we cannot do it. Pure."""

import re
from collections.abc import Iterable

from services.ingest.decompression import CODINGS
from services.ingest.problems import Code, Header, Problem, RefusedError
from shared.record import id_time_ms, is_collection_id

COLLECTIONS_PATH = "/v1/collections"
USUAL_BYTES_MAX = 32 * 1024 - 1
"""Largest body of a usual request: a larger one has to wait for its turn among the large."""

PARTITION_KEY_BYTES_MAX = 256
KEY_TIME_MIN_MS = 1_577_836_800_000
"""2020-01-01T00:00Z: an Idempotency-Key of before is no clock's."""
KEY_AHEAD_MAX_MS = 24 * 3600 * 1000
"""How far ahead of ours the clock of a client may be."""

_COLLECTIONS_TARGET = COLLECTIONS_PATH.encode("ascii")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_TRACE_CONTEXT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_PRINTABLE = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")
_MEDIA_TYPE = re.compile(
    rb"application/(?:[a-z0-9!#$&^_.-]+\+)?json[ \t]*(?:;[ \t]*charset=\"?utf-?8\"?[ \t]*)?", re.IGNORECASE
)
_COMMON_MEDIA_TYPES = frozenset((b"application/json", b"application/json; charset=utf-8", b""))


class RequestHead:
    """The headers that matter. Absent ones are None, an absent or unusable length too.

    What a request does not have it does not carry: the defaults are the class's.
    """

    request_id: str | None = None  # as the client sent it, if it is sane
    content_length: int | None = None
    transfer_coding: bytes | None = None
    content_type: bytes = b""
    coding: str | None = None  # how the body is compressed: a key of CODINGS, or what no decoder takes
    bearer: bytes | None = None  # the token of `Authorization: Bearer`
    idempotency_key: bytes | None = None
    partition_key: bytes | None = None
    traceparent: str | None = None
    twice: bytes | None = None  # a header that must stand once and does not
    hosts: int = 0  # how many Host headers there are
    expects: bool = False  # whether its sender waits for a 100 before it sends the body

    @property
    def is_of_one_request(self) -> bool:
        """Whether it has what no other request should have again."""
        return self.request_id is not None or self.traceparent is not None or self.idempotency_key is not None

    @property
    def has_body(self) -> bool:
        """Whether body bytes follow the head."""
        return self.transfer_coding is not None or bool(self.content_length)

    def refusal(self, body_bytes_max: int) -> Problem | None:  # noqa: PLR0911 - one line a reason
        """Why the request is refused before its body is read, or None."""
        if self.twice is not None:
            return Problem(Code.INVALID_HEADER, f"{self.twice.decode('latin-1')} stands twice")
        if self.transfer_coding is not None and self.transfer_coding.lower() != b"chunked":
            return Problem(
                Code.TRANSFER_CODING, f"Transfer-Encoding {_shown(self.transfer_coding)}: only `chunked` is supported"
            )
        if self.coding is not None and self.coding not in CODINGS:
            return Problem(
                Code.UNSUPPORTED_ENCODING,
                f"Content-Encoding {self.coding[:64]!r} is not supported; send gzip, zstd, or the body as it is",
                ((b"accept-encoding", b"gzip, zstd, identity"),),
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

    def collection_id(self, now_ms: int) -> str | None:
        """The UUID that the client has chosen for its collection; None where it leaves that to us.

        Quotes around it are taken too: the IETF's draft of the header makes it a structured string.

        Args:
            now_ms: milliseconds since 1970.

        Raises:
            RefusedError: the key is no such UUID.

        """
        if self.idempotency_key is None:
            return None
        text = self.idempotency_key.decode("latin-1")
        if len(text) > 1 and text[0] == text[-1] == '"':
            text = text[1:-1]
        text = text.lower()
        shown = f"Idempotency-Key {_shown(self.idempotency_key)}"
        if not is_collection_id(text):
            detail = f"{shown} is not a UUID of version 7 (RFC 9562)"
            raise RefusedError(Problem(Code.INVALID_IDEMPOTENCY_KEY, detail))
        unix_ms = id_time_ms(text) or 0
        if not KEY_TIME_MIN_MS <= unix_ms <= now_ms + KEY_AHEAD_MAX_MS:
            detail = f"{shown}: its time, {unix_ms} ms since 1970, is not between 2020 and a day from now"
            raise RefusedError(Problem(Code.INVALID_IDEMPOTENCY_KEY, detail))
        return text


def _host(head: RequestHead, _value: bytes) -> None:
    head.hosts += 1


def _expect(head: RequestHead, _value: bytes) -> None:
    head.expects = True


def _length(head: RequestHead, value: bytes) -> None:
    head.content_length = int(value)  # the HTTP parser has refused anything but digits


def _type(head: RequestHead, value: bytes) -> None:
    head.content_type = value.strip()


def _transfer(head: RequestHead, value: bytes) -> None:
    head.transfer_coding = value.strip()


def _coding(head: RequestHead, value: bytes) -> None:
    coding = value.strip().lower().decode("latin-1")
    head.coding = None if coding in {"", "identity"} else coding


def _request_id(head: RequestHead, value: bytes) -> None:
    if _REQUEST_ID.fullmatch(value):
        head.request_id = value.decode("ascii")


def _traceparent(head: RequestHead, value: bytes) -> None:
    if _TRACE_CONTEXT.fullmatch(value):
        head.traceparent = value.decode("ascii")


def _partition_key(head: RequestHead, value: bytes) -> None:
    head.partition_key = value.strip()


def _idempotency_key(head: RequestHead, value: bytes) -> None:
    head.idempotency_key = value.strip()


def _authorization(head: RequestHead, value: bytes) -> None:
    scheme, *credentials = value.split(None, 1)[:2] or [b""]
    if scheme.lower() == b"bearer":  # another scheme is another's: a proxy's on the way, say
        head.bearer = credentials[0].strip() if credentials else b""


_WANTED = {
    b"host": _host,
    b"expect": _expect,
    b"content-length": _length,
    b"content-type": _type,
    b"transfer-encoding": _transfer,
    b"content-encoding": _coding,
    b"x-request-id": _request_id,
    b"traceparent": _traceparent,
    b"partition-key": _partition_key,
    b"idempotency-key": _idempotency_key,
    b"authorization": _authorization,
}
_ONCE = frozenset(_WANTED) - {b"host", b"expect", b"content-length", b"x-request-id", b"traceparent"}
# two lengths: the parser refuses; the number of hosts is the connection's to judge


def read_head(headers: Iterable[Header]) -> RequestHead:
    """Pick the headers that matter; names come in small letters, as ASGI gives them."""
    head = RequestHead()
    seen: list[bytes] = []
    for name, value in headers:
        if name in _WANTED:
            _WANTED[name](head, value)
            if name in _ONCE:
                if name in seen:
                    head.twice = name
                seen.append(name)
    return head


def is_usual(method: bytes, target: bytes, version: str, head: RequestHead) -> bool:
    """Whether the request may go the short way (`quick`): a collection, small and of a known length, sent as it is."""
    return (
        target == _COLLECTIONS_TARGET
        and method == b"POST"
        and version == "1.1"
        and head.content_length is not None
        and 0 < head.content_length <= USUAL_BYTES_MAX
        and head.coding is None
        and head.transfer_coding is None
        and not head.expects
    )


def body_too_large(body_bytes_max: int) -> Problem:
    """The refusal of a body over the limit."""
    return Problem(Code.BODY_TOO_LARGE, f"the body is over {body_bytes_max} bytes (MAX_BODY_BYTES)")


def _shown(value: bytes) -> str:
    return repr(value[:64].decode("latin-1"))
