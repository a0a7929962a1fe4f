"""One HTTP request over a socket of its own, for tests that look at an answer's every part."""

import http.client
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came. Names of headers are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """Its body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The problem's code, empty for a 200."""
        return "" if self.status == 200 else str(self.document["code"])


def request(
    url: str,
    body: bytes | Iterable[bytes] | None = None,
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 15,
) -> Answer:
    """Send one request; an iterable as its body goes out in chunks. Content type JSON unless told otherwise."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
    sent = {"Content-Type": "application/json", **(headers or {})}
    try:
        connection.request(method, parts.path, body, {name: value for name, value in sent.items() if value})
        answer = connection.getresponse()
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()
