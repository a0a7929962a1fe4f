"""What tokens have spent, in memory that all workers share: a quota holds for the whole, however connections fall.

Owns the pages and their locks; the arithmetic stays `quota`'s. A slot holds one name: its fingerprint, and for its two
buckets the rate and the moment at which each is full again. A bucket that is full again says nothing, so its slot is
free: nothing is ever deleted, and the table needs no more room than there are names that have lately sent. Where more
have, the one that is full again first makes room, and may send a burst too much.

A take is read, changed and written under a lock of its name, which the kernel takes back from a worker that dies. It is
never waited for longer than 50 ms, and then less each time: a worker that is stopped just there must not stop the
others. They go on without it, and what can be lost then is a take of those that come at the very same time.
"""

import fcntl
import hashlib
import mmap
import os
import time
from collections.abc import Collection, Iterator

from services.ingest.quota import Quotas, Spent
from services.ingest.tokens import Token

SLOTS = 1 << 16
_WORDS = 8  # a slot: fingerprint, requests' rate and moment, bytes' rate and moment, unused
_SLOT_BYTES = 8 * _WORDS
_PROBES = 16  # slots that a name may stand in, from its own on
_PATIENCE_S = 0.05  # for a lock that is held: for microseconds, unless its holder does not get to run


def create(slots: int = SLOTS) -> int:
    """An empty ledger, as a file descriptor that children may inherit. Pages take memory once they are used."""
    descriptor = os.memfd_create("spillway-quotas")
    os.ftruncate(descriptor, slots * _SLOT_BYTES)
    return descriptor


class Ledger:
    """The slots of one ledger, seen by this process.

    Args:
        descriptor: of `create`, in this process or in its parent.
        patience_s: how long a lock may be waited for.

    """

    def __init__(self, descriptor: int, patience_s: float = _PATIENCE_S) -> None:
        self._descriptor = descriptor
        pages = mmap.mmap(descriptor, 0)
        self._words = memoryview(pages).cast("Q")  # the same words, as fingerprints
        self._figures = memoryview(pages).cast("d")  # and as rates and moments
        self._slots = len(self._words) // _WORDS
        self._patience_full_s = patience_s
        self._patience_s = patience_s  # an eighth of it after each lock that was not to be had, until one is
        self._known: dict[int, int] = {}  # fingerprint → first word of its slot, as last seen; bounded by the tokens

    def lock(self, fingerprint: int) -> bool:
        """Keep others from changing this name; whether that was to be had soon. Held until `unlock`."""
        offset = fingerprint % self._slots
        give_up_s: float | None = None
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
            except BlockingIOError:
                now_s = time.monotonic()
                give_up_s = give_up_s or now_s + self._patience_s
                if now_s >= give_up_s:
                    self._patience_s /= 8
                    return False
                os.sched_yield()
            else:
                self._patience_s = self._patience_full_s
                return True

    def unlock(self, fingerprint: int) -> None:
        """Let others change this name."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, fingerprint % self._slots)

    def read(self, fingerprint: int) -> tuple[Spent | None, Spent | None]:
        """The buckets of requests and of bytes; None where there is none."""
        at = self._find(fingerprint)
        if at is None:
            return None, None
        figures = self._figures
        return _spent(figures[at + 1], figures[at + 2]), _spent(figures[at + 3], figures[at + 4])

    def write(self, fingerprint: int, requests: Spent | None, body_bytes: Spent | None) -> None:
        """Keep the buckets; to be called with the lock."""
        at = self._find(fingerprint)
        if at is None:
            if requests is None and body_bytes is None:
                return
            at = self._claim(fingerprint)
        figures = self._figures
        figures[at + 1], figures[at + 2] = requests or (0.0, 0.0)
        figures[at + 3], figures[at + 4] = body_bytes or (0.0, 0.0)

    def _find(self, fingerprint: int) -> int | None:
        at = self._known.get(fingerprint)
        if at is not None and self._words[at] == fingerprint:
            return at
        for candidate in self._probed(fingerprint):
            if self._words[candidate] == fingerprint:
                self._known[fingerprint] = candidate
                return candidate
        return None

    def _claim(self, fingerprint: int) -> int:
        """The slot that says least: an empty one, else the one that is full again first, or long has been."""
        figures = self._figures
        best = min(self._probed(fingerprint), key=lambda at: max(figures[at + 2], figures[at + 4]))
        self._words[best] = fingerprint
        self._known[fingerprint] = best
        return best

    def _probed(self, fingerprint: int) -> Iterator[int]:
        for step in range(min(_PROBES, self._slots)):
            yield (fingerprint + step) % self._slots * _WORDS

    def forget(self) -> None:
        """Look for every name anew: to be called when names may have gone."""
        self._known.clear()


def _spent(rate: float, full_at_s: float) -> Spent | None:
    return Spent(rate, full_at_s) if rate else None


def fingerprint_of(name: str) -> int:
    """64 bits of a name, never 0: two names that share them, one in 2**64 pairs, would share a quota."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") or 1


class SharedQuotas(Quotas):
    """Quotas whose buckets are in a ledger. All processes that use it must have one clock: monotonic, of one system."""

    def __init__(self, burst_s: float, ledger: Ledger) -> None:
        super().__init__(burst_s)
        self._ledger = ledger
        self._fingerprints: dict[str, int] = {}  # by name; bounded as the buckets are

    def wait_s(self, token: Token, now_s: float) -> float:
        """As in Quotas, of the whole. A look: it takes no lock."""
        if _has_quota(token):
            self.put_back(token.name, *self._ledger.read(self._fingerprint(token.name)))
        return super().wait_s(token, now_s)

    def take(self, token: Token, body_bytes: int, now_s: float) -> float:
        """As in Quotas, of the whole."""
        if not _has_quota(token):
            return super().take(token, body_bytes, now_s)
        fingerprint = self._fingerprint(token.name)
        held = self._ledger.lock(fingerprint)
        try:
            wait_s = super().take(token, body_bytes, now_s)  # asks `wait_s`, which reads what is there
            self._ledger.write(fingerprint, *self.spent(token.name))
        finally:
            if held:
                self._ledger.unlock(fingerprint)
        return wait_s

    def give_back(self, token: Token, body_bytes: int, now_s: float) -> None:
        """As in Quotas, of the whole."""
        if not _has_quota(token):
            super().give_back(token, body_bytes, now_s)
            return
        fingerprint = self._fingerprint(token.name)
        held = self._ledger.lock(fingerprint)
        try:
            self.put_back(token.name, *self._ledger.read(fingerprint))
            super().give_back(token, body_bytes, now_s)
            self._ledger.write(fingerprint, *self.spent(token.name))
        finally:
            if held:
                self._ledger.unlock(fingerprint)

    def keep(self, names: Collection[str]) -> None:
        """As in Quotas; slots of the forgotten are free once they are full again."""
        super().keep(names)
        self._fingerprints.clear()
        self._ledger.forget()

    def _fingerprint(self, name: str) -> int:
        fingerprint = self._fingerprints.get(name)
        if fingerprint is None:
            fingerprint = self._fingerprints[name] = fingerprint_of(name)
        return fingerprint


def _has_quota(token: Token) -> bool:
    return token.requests_per_s is not None or token.bytes_per_s is not None
