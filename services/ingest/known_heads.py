"""Heads that have come before, byte for byte: what they ask for need not be read again. Pure.

A client sends the same head with each of its requests, but for the length of the body. Owns which heads are kept, and
how many. A head that names its one request (an id, a trace, a key of its own) comes once and is not kept.
"""

from services.ingest.request import RequestHead

_HEADS_MAX = 1024
_HEAD_BYTES_MAX = 1024
_END = b"\r\n\r\n"


class KnownHeads:
    """Usual requests' heads, of connections that go on after the answer."""

    def __init__(self) -> None:
        self._heads: dict[bytes, RequestHead] = {}

    def find(self, data: bytes) -> tuple[RequestHead, bytes] | None:
        """The head and the body, where the data is one whole request whose head is known."""
        end = data.find(_END, 0, _HEAD_BYTES_MAX) + len(_END)
        head = self._heads.get(data[:end])
        if head is None or head.content_length != len(data) - end:
            return None
        return head, data[end:]

    def learn(self, data: bytes, head: RequestHead) -> None:
        """Keep the head of a request that is all of the data."""
        end = data.find(_END, 0, _HEAD_BYTES_MAX) + len(_END)
        if end + (head.content_length or 0) == len(data) and not head.is_of_one_request:
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            self._heads[data[:end]] = head
