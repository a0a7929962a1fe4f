"""How much a client may send: token buckets for requests and bytes a second. Pure: the caller brings the time.

Owns one pair of buckets a name. A bucket holds `rate * burst_s`, at least one unit, and is refilled at `rate`. A
request passes when both of its name's buckets hold at least one unit. Then it takes one request and all the bytes of
its body: a body larger than what is there leaves the byte bucket in debt, since else one larger than the bucket could
never pass; the debt is waited for before the next. So in any span of time there pass at most `rate * time + burst`
requests, and as many bytes and one body more.

A bucket is kept as one moment, the one when it will be full again, so there is nothing to refill and a wait is a
difference of two moments. Time that goes backwards counts as standing still: it refills nothing and takes nothing.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

from services.ingest.tokens import Token

SLACK_S = 1e-6
"""A bucket opens this much early: sums are rounded, and without it the last request of a burst would be refused."""


class Spent(NamedTuple):
    """All that there is to know of a bucket whose burst is known."""

    rate: float  # units a second that it was last filled at
    full_at_s: float  # when it is, or was, full again


class Quotas:
    """The buckets of all names. Bounded by the names that `keep` was last told."""

    def __init__(self, burst_s: float) -> None:
        self._burst_s = burst_s
        self._requests: dict[str, _Bucket] = {}  # by name; only of those with a rate
        self._bytes: dict[str, _Bucket] = {}
        self._now_s = -math.inf  # the latest time seen

    def __len__(self) -> int:
        """Names with a bucket."""
        return len(self._requests.keys() | self._bytes.keys())

    def wait_s(self, token: Token, now_s: float) -> float:
        """Seconds until the token may send, 0.0 if now. Takes nothing."""
        self._now_s = max(self._now_s, now_s)
        opens_at_s = max(
            self._opens_at_s(self._requests, token.name, token.requests_per_s),
            self._opens_at_s(self._bytes, token.name, token.bytes_per_s),
        )
        if self._now_s >= opens_at_s:
            return 0.0
        wait_s = opens_at_s - now_s
        while now_s + wait_s < opens_at_s:  # the difference was rounded down: told so, it would be too short
            wait_s = math.nextafter(wait_s, math.inf)
        return wait_s

    def take(self, token: Token, body_bytes: int, now_s: float) -> float:
        """Take one request and `body_bytes`, and return 0.0; or take nothing and return the seconds to wait."""
        wait_s = self.wait_s(token, now_s)
        if wait_s == 0.0:
            self._add(self._requests, token.name, token.requests_per_s, 1)
            self._add(self._bytes, token.name, token.bytes_per_s, body_bytes)
        return wait_s

    def give_back(self, token: Token, body_bytes: int, now_s: float) -> None:
        """Undo a `take` of the same token and bytes: the request was refused for a reason that is not the client's.

        Until then they count as sent. So in the span that they come back in, as much again may pass.
        """
        self._now_s = max(self._now_s, now_s)
        for buckets, units in ((self._requests, 1), (self._bytes, body_bytes)):
            bucket = buckets.get(token.name)
            if bucket is not None:
                bucket.full_at_s -= units / bucket.rate

    def keep(self, names: Collection[str]) -> None:
        """Forget every name that is not among these: to be called after a reload."""
        for buckets in (self._requests, self._bytes):
            for name in [name for name in buckets if name not in names]:
                del buckets[name]

    def spent(self, name: str) -> tuple[Spent | None, Spent | None]:
        """The name's buckets of requests and of bytes; None where it has none, which is a full one."""
        requests, body_bytes = self._requests.get(name), self._bytes.get(name)
        return (
            None if requests is None else Spent(requests.rate, requests.full_at_s),
            None if body_bytes is None else Spent(body_bytes.rate, body_bytes.full_at_s),
        )

    def put_back(self, name: str, requests: Spent | None, body_bytes: Spent | None) -> None:
        """Take over buckets as `spent` told them, here or in another process with the same clock and burst."""
        for buckets, spent in ((self._requests, requests), (self._bytes, body_bytes)):
            if spent is None:
                buckets.pop(name, None)
                continue
            bucket = buckets.get(name)
            if bucket is None or bucket.rate != spent.rate:
                bucket = buckets[name] = _Bucket(spent.rate, self._burst_s)
            bucket.full_at_s = spent.full_at_s

    def _opens_at_s(self, buckets: dict[str, "_Bucket"], name: str, rate: float | None) -> float:
        bucket = buckets.get(name)
        if bucket is None:
            return -math.inf
        if rate is None:
            del buckets[name]
            return -math.inf
        if rate != bucket.rate:
            bucket.refit(rate, self._burst_s, self._now_s)
        return bucket.opens_at_s

    def _add(self, buckets: dict[str, "_Bucket"], name: str, rate: float | None, units: int) -> None:
        if rate is None:
            return
        bucket = buckets.get(name)
        if bucket is None:
            bucket = buckets[name] = _Bucket(rate, self._burst_s)
        bucket.full_at_s = max(bucket.full_at_s, self._now_s) + units / rate


class _Bucket:
    """One bucket; new ones are full."""

    __slots__ = ("capacity", "full_at_s", "rate")

    def __init__(self, rate: float, burst_s: float) -> None:
        self.rate = rate  # units a second
        self.capacity = max(1.0, rate * burst_s)  # units
        self.full_at_s = -math.inf  # when it is, or was, full again

    @property
    def opens_at_s(self) -> float:
        """When it holds one unit, at the latest."""
        return self.full_at_s - (self.capacity - 1) / self.rate - SLACK_S

    def refit(self, rate: float, burst_s: float, now_s: float) -> None:
        """Take another rate. What is in the bucket stays, as far as it fits; so does a debt, paid at the new rate."""
        held = self.capacity - max(0.0, self.full_at_s - now_s) * self.rate
        self.rate = rate
        self.capacity = max(1.0, rate * burst_s)
        self.full_at_s = now_s + (self.capacity - held) / rate  # in the past where more is held than fits: full
