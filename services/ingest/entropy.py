"""Random bytes for ids, fetched from the system by the page: a system call a request was a twentieth of its cost.

Owns no secrets: what it gives names requests and collections, and must only never repeat. A process that forks after
the first use would repeat its parent's; none of ours does, and `Entropy` is built where the process serves.
"""

import os

_PAGE_BYTES = 4096


class Entropy:
    """A page of random bytes, each given once."""

    def __init__(self) -> None:
        self._page = b""
        self._at = 0  # first byte that was not given yet

    def take(self, size_bytes: int) -> bytes:
        """So many random bytes; at most a page."""
        end = self._at + size_bytes
        if end > len(self._page):
            self._page, self._at, end = os.urandom(_PAGE_BYTES), 0, size_bytes
        taken = self._page[self._at : end]
        self._at = end
        return taken
