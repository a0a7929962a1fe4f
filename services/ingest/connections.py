"""All connections of the process: how many there may be, and what none of them may do for ever (docs/decisions/0015).

Owns the books of who owes something: a first byte, a head, the taking of an answer. Each is in the order of its
moments, so that a sweep stops at the first that is not due: a request that arrives in one piece costs no timer. What a
connection says and hears is `protocol`'s.
"""

import asyncio
import math
from typing import Protocol

from services.ingest.admission import Admission
from services.ingest.refusals import Refusals
from services.ingest.settings import IngestSettings
from shared.telemetry import IngestMetrics

SWEEP_S = 0.25
"""How late a deadline may be kept."""
FLUSH_S = 5.0
"""Seconds that a client has to take an answer whole, and to close after its last one."""

_SWEPT_AT_ONCE = 16
_SILENT_FOR_S = 0.5  # how long a connection that says nothing keeps its place when others need one
_LINGERING_MAX = 128  # connections above the bound that may stay to read their 503


class Connection(Protocol):
    """What the books need of a connection."""

    transport: asyncio.Transport

    def close(self) -> None:
        """Close it; nothing is due."""

    def head_is_late(self) -> None:
        """Its head has had its time."""

    def holds_output(self) -> bool:
        """Whether its client has not taken all that was written."""


class Connections:
    """All connections of the process, and what none of them may do for ever."""

    def __init__(
        self, settings: IngestSettings, *, admission: Admission, refusals: Refusals, metrics: IngestMetrics
    ) -> None:
        self.head_bytes_max = settings.max_head_bytes
        self.admission = admission
        self.head_deadline_s = settings.head_deadline_s
        self._idle_s = settings.keep_alive_s
        self.refusals = refusals
        self.last_requests = False  # every request that begins now is its connection's last
        self._max = settings.max_connections
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        # Each in the order of its moments, which are the values: what stands first is due next.
        self.fresh: dict[Connection, float] = {}  # not a byte has come yet
        self.heads: dict[Connection, float] = {}  # a head is being received
        self.idle: dict[Connection, float] = {}  # between two requests
        self.unflushed: dict[Connection, float] = {}  # an answer, or the end, has not been taken yet

    def enter(self, connection: Connection) -> bool:
        """A new connection. Whether there is room; whoever has least to lose makes it, if there is one."""
        self._open.add(connection)
        if len(self._open) > self._max:
            self._make_room()
        self._metrics.connections.set(len(self._open))
        return len(self._open) <= self._max

    def _make_room(self) -> None:
        """Drop who has said nothing, else who is between two requests, else who is slow to say what it wants."""
        now_s = self.now_s()
        for book, reason, age_s in (
            (self.fresh, "silent", _SILENT_FOR_S),
            (self.idle, "idle", 0.0),
            (self.heads, "late_head", _SILENT_FOR_S),
        ):
            connection, since_s = next(iter(book.items()), (None, now_s))
            if connection is not None and since_s <= now_s - age_s:
                self.drop(connection, reason)
                return

    def room_after_s(self) -> int:
        """Whole seconds until a deadline makes room, at the latest."""
        since_s = min((next(iter(book.values())) for book in (self.fresh, self.heads) if book), default=None)
        if since_s is None:
            return 1
        return max(1, math.ceil(since_s + self.head_deadline_s - self.now_s()))

    def leave(self, connection: Connection) -> None:
        """The connection is gone."""
        self._open.discard(connection)
        for book in (self.fresh, self.heads, self.idle, self.unflushed):
            book.pop(connection, None)
        self._metrics.connections.set(len(self._open))

    def drop(self, connection: Connection, reason: str) -> None:
        """Close a connection that has no answer due."""
        self._metrics.connections_closed.labels(reason).inc()
        self._open.discard(connection)
        for book in (self.fresh, self.heads, self.idle):
            book.pop(connection, None)
        connection.close()

    def may_linger(self) -> bool:
        """Whether a connection that is refused may stay until its client has read why."""
        return len(self._open) <= self._max + _LINGERING_MAX

    def now_s(self) -> float:
        """The clock of all moments here, in seconds."""
        return self._loop.time()

    async def run(self) -> None:
        """Keep the deadlines; ends only by cancellation."""
        pause_s = SWEEP_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = 0.0 if self.sweep() else SWEEP_S

    def sweep(self) -> bool:
        """Answer heads that are late, and drop clients that say nothing, are done, or do not take their answer.

        Returns:
            Whether more may be due: a thousand that came together are not answered in one turn of the loop.

        """
        now_s = self.now_s()
        silent = _due(self.fresh, now_s - self.head_deadline_s)
        for connection in silent:
            self.drop(connection, "silent")
        late = _due(self.heads, now_s - self.head_deadline_s)
        for connection in late:
            self._metrics.connections_closed.labels("late_head").inc()
            connection.head_is_late()
        idle = _due(self.idle, now_s - self._idle_s)
        for connection in idle:
            self.drop(connection, "idle")
        unread = _due(self.unflushed, now_s - FLUSH_S)
        for connection in unread:
            if connection.holds_output():
                self._metrics.connections_closed.labels("unread_answer").inc()
                connection.transport.abort()
        return max(len(silent), len(late), len(idle), len(unread)) == _SWEPT_AT_ONCE


def _due(book: dict[Connection, float], before_s: float) -> list[Connection]:
    """Take out those whose moment lies before, the first of them first, and no more than _SWEPT_AT_ONCE."""
    due: list[Connection] = []
    for connection, since_s in book.items():
        if since_s > before_s or len(due) == _SWEPT_AT_ONCE:
            break
        due.append(connection)
    for connection in due:
        del book[connection]
    return due
