"""Whether a partition gets on, and if not, why: the watchdog's decisions. Pure; the caller brings the clock.

A partition with records behind it and no progress is named by readiness and by a metric. Three reasons can lie in the
Kafka client itself, and are cured by a new one; the others are the world's, and a new client would only cost time.
"""

from dataclasses import dataclass

POSITIONING = "positioning"
NO_RECORDS = "no_records"
COMMITTING = "committing"
UPLOADING = "uploading"
MEMORY = "memory"

CURED_BY_A_NEW_CLIENT = frozenset({POSITIONING, NO_RECORDS, COMMITTING})

WORDS = {
    POSITIONING: "where it starts is not known",
    NO_RECORDS: "the broker has records and the client returns none",
    COMMITTING: "its records are stored and the commits do not pass",
    UPLOADING: "its puts are under way and do not end",
    MEMORY: "MAX_BUFFER_BYTES is used up by other partitions",
}
"""What a person is told; any other reason is the word of the store's last error, and is told as such."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a partition. Offsets are the next to read; None: not known."""

    end: int
    committable: int | None
    committed: int | None
    positioned: bool
    held: int  # records in memory
    asked: bool  # whether the poll task asks for it
    failing: str | None  # why its puts fail; None while they do not

    @property
    def lag(self) -> int:
        """Records that are not stored yet, by offsets."""
        return 0 if self.committable is None else max(0, self.end - self.committable)

    @property
    def reason(self) -> str:
        """Why its records are not stored, if they are not."""
        if not self.positioned and not self.held:
            return POSITIONING
        if self.failing is not None:
            return self.failing
        if self.held:
            return UPLOADING
        return NO_RECORDS if self.asked else MEMORY


@dataclass(frozen=True, slots=True)
class Idle:
    """A partition did not get on for so many seconds, and why. 0 s where there is nothing to do."""

    idle_s: float
    reason: str


class Progress:
    """The progress clocks of one partition during one assignment. Seconds are monotonic.

    Storing and committing have a clock each: under load, records are stored all the time while commits fail for ever.
    A record that blocks the window while those behind it are stored is no progress: nothing moves for whoever waits.
    """

    def __init__(self, now_s: float) -> None:
        self._stored_s = now_s  # when the committable offset last moved, or had reached the end
        self._committed_s = now_s  # when the commit last moved, or had reached the committable offset
        self._committable: int | None = None
        self._committed: int | None = None

    def idle(self, look: Look, now_s: float) -> Idle:
        """Take one look into account."""
        known = look.committable is not None
        if look.committable != self._committable or (known and look.lag == 0):
            self._stored_s = now_s
        if look.committed != self._committed or look.committed == look.committable:
            self._committed_s = now_s
        self._committable, self._committed = look.committable, look.committed
        storing_s, committing_s = now_s - self._stored_s, now_s - self._committed_s
        if storing_s >= committing_s:
            return Idle(storing_s, look.reason)
        return Idle(committing_s, COMMITTING)
