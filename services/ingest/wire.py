"""HTTP/1.1 as bytes, where uvicorn does not do it for us: a head without its offer, an answer of our own. Pure."""

from collections.abc import Iterable
from http import HTTPStatus

from services.ingest.problems import MEDIA_TYPE, Header, Problem

_UPGRADING = frozenset((b"upgrade", b"http2-settings"))


def without_upgrade(method: bytes, target: bytes, version: str, headers: Iterable[Header]) -> bytes:
    """A request's head as if no other protocol had been offered, which its sender must expect (RFC 9110 §7.8).

    Args:
        method: as it came.
        target: as it came.
        version: of HTTP, `1.1`.
        headers: names in small letters.

    """
    lines = [b"%s %s HTTP/%s" % (method, target, version.encode("ascii"))]
    for name, value in headers:
        if name == b"connection":
            options = [option.strip().lower() for option in value.split(b",")]
            lines.append(b"connection: " + b", ".join(option for option in options if option not in _UPGRADING))
        elif name not in _UPGRADING:
            lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join([*lines, b"", b""])


def hosts_and_length(headers: Iterable[Header]) -> tuple[int, int]:
    """How many Host headers there are, and what Content-Length says, 0 where it is absent."""
    hosts = length = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            length = int(value)
    return hosts, length


def last_answer(problem: Problem, request_id: str) -> bytes:
    """A whole answer, after which the connection ends."""
    body = problem.body(request_id)
    headers = [
        (b"content-type", MEDIA_TYPE),
        (b"x-request-id", request_id.encode("ascii")),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *problem.headers,
    ]
    phrase = HTTPStatus(problem.status_code).phrase.encode("ascii")
    lines = [b"HTTP/1.1 %d %s" % (problem.status_code, phrase), *(b"%s: %s" % header for header in headers)]
    return b"\r\n".join([*lines, b"", body])
