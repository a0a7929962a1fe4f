"""Reads the answers of one connection: bytes in, one whole answer out. Pure; knows no socket, no clock and no S3 error.

Bounded: an answer has at most `ANSWER_BYTES_MAX` in all, informational ones (1xx) before it included, of which there
are at most `INFORMATIONAL_MAX`. The parser is httptools (llhttp), strict as it comes: what it refuses ends the
connection, and an answer that is not whole is never given out.
"""

import re
from dataclasses import dataclass, field
from html import unescape

import httptools

ANSWER_BYTES_MAX = 256 * 1024
INFORMATIONAL_MAX = 8

_INFORMATIONAL_BELOW = 200
_BODILESS = frozenset({204, 304})
_FIELD_LETTERS_MAX = 4000


class BadAnswerError(Exception):
    """What came is no answer of HTTP, or larger than any of S3."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Header names in lower case, values as they came; of two of one name the last."""

    status: int
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""

    def header(self, name: bytes) -> str:
        """A header's value, without the white space that may follow it; empty where there is none."""
        return self.headers.get(name, b"").decode("latin-1").rstrip(" \t")

    def element(self, name: str) -> str:
        """The text of the first element of that name in an error document; empty where there is none.

        No XML parser: a pattern over bytes of a bounded number opens no entity and no file.
        """
        found = re.search(rb"<%b>([^<]*)</%b>" % (name.encode(), name.encode()), self.body)
        text = "" if found is None else found[1].decode("utf-8", "replace")
        return unescape(text[:_FIELD_LETTERS_MAX])

    @property
    def is_error_document(self) -> bool:
        """Whether the body is an error of S3, whatever the status says."""
        return b"<Error>" in self.body


class AnswerReader:
    """One per connection; `begin` before each request."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._fed_bytes = 0
        self._informational = 0
        self._head_done = False  # of the final answer
        self._to_the_end = False  # the body ends with the connection
        self.answer: Answer | None = None  # once it is whole
        self.keeps_alive = False  # whether the connection may carry another request
        self.begin()

    @property
    def fed(self) -> bool:
        """Whether any byte has come since `begin`."""
        return self._fed_bytes > 0

    def begin(self) -> None:
        """Wait for the answer to the next request."""
        self._headers = {}
        self._body = []
        self._fed_bytes = self._informational = 0
        self._head_done = self._to_the_end = self.keeps_alive = False
        self.answer = None

    def feed(self, data: bytes) -> Answer | None:
        """Bytes as they come; the answer once it is whole. What comes behind it forbids to use the connection again.

        Raises:
            BadAnswerError: there will be none.

        """
        self._fed_bytes += len(data)
        if self._fed_bytes > ANSWER_BYTES_MAX:
            raise BadAnswerError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.keeps_alive = False
            if self.answer is None:
                raise BadAnswerError(f"no HTTP: {error}") from error
        if self._informational > INFORMATIONAL_MAX:
            raise BadAnswerError(f"more than {INFORMATIONAL_MAX} answers with 1xx")
        return self.answer

    def end(self) -> Answer | None:
        """The connection was closed by the other side, in order: the answer, if that is what ends it."""
        if self.answer is None and self._head_done and self._to_the_end:
            self._whole(keeps_alive=False)
        return self.answer

    def on_message_begin(self) -> None:
        """Httptools: a first line begins."""
        if self.answer is not None:
            self.keeps_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Httptools: one header, or one trailer."""
        if not self._head_done:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Httptools: a head is whole."""
        if self.answer is not None:
            return
        status = self._parser.get_status_code()
        if status < _INFORMATIONAL_BELOW:
            return
        self._head_done = True
        headers = self._headers
        if b"content-length" not in headers:
            self._to_the_end = b"transfer-encoding" not in headers and status not in _BODILESS

    def on_body(self, body: bytes) -> None:
        """Httptools: a piece of the body, without its chunks' sizes."""
        if self.answer is None:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Httptools: an answer is whole."""
        if self.answer is not None:
            return
        if self._head_done:
            self._whole(keeps_alive=self._parser.should_keep_alive())
        else:
            self._informational += 1
            self._headers = {}

    def _whole(self, *, keeps_alive: bool) -> None:
        self.keeps_alive = keeps_alive
        self.answer = Answer(self._parser.get_status_code(), self._headers, b"".join(self._body))
