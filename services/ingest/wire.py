"""HTTP/1.1 as bytes, where uvicorn does not do it for us: a head without its offer, our own answers. Pure."""

from collections.abc import Iterable
from http import HTTPStatus

from services.ingest.problems import MEDIA_TYPE, Header, Problem

_CLOSE_LINE = b"connection: close\r\n"
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


def header_lines(headers: Iterable[Header]) -> bytes:
    """Headers as they stand in an answer."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def accepted_answer(given: bytes, request_id: str, body: bytes, *, close: bool) -> bytes:
    """A 200.

    Args:
        given: header lines to begin with.
        request_id: of the request.
        body: JSON.
        close: whether the connection ends with it.

    """
    return (
        b"HTTP/1.1 200 OK\r\n%bcontent-type: application/json\r\nx-request-id: %b\r\ncontent-length: %d\r\n%b\r\n%b"
        % (
            given,
            request_id.encode("ascii"),
            len(body),
            _CLOSE_LINE if close else b"",
            body,
        )
    )


def problem_answer(problem: Problem, request_id: str, given: bytes = b"", *, close: bool) -> bytes:
    """Any other answer; the arguments as above."""
    body = problem.body(request_id)
    phrase = HTTPStatus(problem.status_code).phrase.encode("ascii")
    headers = [
        (b"content-type", MEDIA_TYPE),
        (b"x-request-id", request_id.encode("ascii")),
        (b"content-length", b"%d" % len(body)),
        *problem.headers,
    ]
    start = b"HTTP/1.1 %d %b\r\n" % (problem.status_code, phrase)
    return b"".join([start, given, header_lines(headers), _CLOSE_LINE if close else b"", b"\r\n", body])


def last_answer(problem: Problem, request_id: str) -> bytes:
    """A whole answer, after which the connection ends."""
    return problem_answer(problem, request_id, close=True)
