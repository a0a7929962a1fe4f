"""The window of one assigned partition: which offsets are admitted, which are stored, and what may be committed.

Offsets are admitted in order and completed in any order. Only a contiguous prefix is ever committable: committing one
offset more loses a record silently. An admission covers a run of records (today one), named by its last offset.

Rules that must not change:
- *Committable* is always the next offset to read: that of the last popped run + 1, never "highest completed".
- Offsets have holes (compaction, transaction markers). Order is what counts; there is no arithmetic over gaps.
- An empty window may follow the consumer's position, so that lag reaches 0 behind trailing markers.
- A window belongs to one assignment. Offsets going back are a new window, never an old one rewound.

Pure: no clock, no I/O, no tasks.
"""

from collections import deque
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Run:
    """One admission: records up to `last_offset`, the first written at `timestamp_ms`. Only the window sets `done`."""

    last_offset: int
    size_bytes: int
    timestamp_ms: int
    done: bool = False


class Window:
    """In-flight offsets of one partition during one assignment."""

    def __init__(self) -> None:
        self._runs: deque[Run] = deque()  # in offset order; the left one is never done (it would have been popped)
        self._admitted: int | None = None  # last offset ever admitted
        self._committable: int | None = None  # next offset to read; None until something is known
        self._pending_bytes = 0  # of runs that are not done

    def __len__(self) -> int:
        """Runs between the committable offset and the newest: in flight, queued, or done behind one that is not."""
        return len(self._runs)

    @property
    def pending_bytes(self) -> int:
        """Bytes of the runs that are not done."""
        return self._pending_bytes

    @property
    def committable(self) -> int | None:
        """The next offset to read if everything below is done; None while nothing is known."""
        return self._committable

    @property
    def oldest_timestamp_ms(self) -> int | None:
        """When the oldest record that is not done was written, in milliseconds since 1970; None without such."""
        return self._runs[0].timestamp_ms if self._runs else None

    def admit(self, last_offset: int, size_bytes: int, timestamp_ms: int) -> Run:
        """Admit the next run.

        Args:
            last_offset: the run's last offset; above every offset admitted before.
            size_bytes: what it holds in memory until it is done.
            timestamp_ms: when its first record was written, in milliseconds since 1970.

        Raises:
            ValueError: the offset is not above the last one: the caller polled across a reassignment.

        """
        floor = -1 if self._admitted is None else self._admitted
        if self._committable is not None:
            floor = max(floor, self._committable - 1)
        if last_offset <= floor:
            raise ValueError(f"offset {last_offset} is not above {floor}")
        run = Run(last_offset, size_bytes, timestamp_ms)
        self._admitted = last_offset
        self._runs.append(run)
        self._pending_bytes += size_bytes
        return run

    def complete(self, run: Run) -> None:
        """A run is stored. Moves the committable offset past every done run at the window's left.

        Raises:
            ValueError: the run was complete already.

        """
        if run.done:
            raise ValueError(f"offset {run.last_offset} completed twice")
        run.done = True
        self._pending_bytes -= run.size_bytes
        while self._runs and self._runs[0].done:
            self._committable = self._runs.popleft().last_offset + 1

    def follow(self, position: int) -> None:
        """With nothing in flight, take the consumer's position (the next offset it will read) as committable.

        Ignored while anything is in flight, and never moves back. The position must be one below which every
        record was admitted here.
        """
        if not self._runs and (self._committable is None or position > self._committable):
            self._committable = position
