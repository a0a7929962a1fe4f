"""What a dead letter looks like, and how many of them there may be.

Owns the names of the added headers and the limit on the share of dead letters. Writes nothing: that is
`dead_letter_topic`'s. Pure: no clock, no client.

A dead letter keeps its record's key, value and headers byte for byte. The seven headers below are added behind those
that were there, always all of them, in this order. A letter that is sent back and fails again thus carries two such
sets: the *first* tells where the record was at the beginning (its S3 key may be made of that), the *last* why it failed
lately (docs/decisions/0011).
"""

import math
from collections import deque
from collections.abc import Iterable
from fractions import Fraction

TOPIC = "dead.topic"
PARTITION = "dead.partition"
OFFSET = "dead.offset"
TIMESTAMP = "dead.timestamp"  # of the record, milliseconds since 1970
ERROR = "dead.error"  # the stable word that metrics have
MESSAGE = "dead.message"  # what S3 said
ATTEMPTS = "dead.attempts"

MESSAGE_BYTES_MAX = 1024

EXTRA_BYTES = 64 * 1024
"""How much larger than its record a dead letter may be: some fifty sets of the headers above (DESIGN §3)."""

SETTLED_WINDOW = 1000
"""Over how many of the last settled records the share of dead letters is taken."""

Header = tuple[str, bytes | None]
"""One Kafka record header. A foreign record's value may be null, which is not the same as empty."""


def dead_headers(
    headers: Iterable[Header],
    *,
    topic: str,
    partition: int,
    offset: int,
    timestamp_ms: int,
    reason: str,
    message: str,
    attempts: int,
) -> list[Header]:
    """The headers of a dead letter: the record's own, untouched, then those that say where it was and why it failed.

    Args:
        headers: the record's own, in their order.
        topic: where the record was read, as are `partition`, `offset` and `timestamp_ms`.
        partition: see `topic`.
        offset: see `topic`.
        timestamp_ms: see `topic`; milliseconds since 1970.
        reason: stable word of the error.
        message: what the store said, of any length.
        attempts: puts that were tried.

    """
    return [
        *headers,
        (TOPIC, topic.encode()),
        (PARTITION, b"%d" % partition),
        (OFFSET, b"%d" % offset),
        (TIMESTAMP, b"%d" % timestamp_ms),
        (ERROR, reason.encode()),
        (MESSAGE, cut(message, MESSAGE_BYTES_MAX)),
        (ATTEMPTS, b"%d" % attempts),
    ]


def cut(text: str, bytes_max: int) -> bytes:
    """The longest beginning of the text that takes at most `bytes_max` bytes of UTF-8."""
    encoded = text[:bytes_max].encode(errors="replace")  # a lone surrogate must not stop a letter
    return encoded[:bytes_max].decode(errors="ignore").encode()


class DeadShare:
    """At most the share `share_max` of any `window` records settled one after another are dead letters.

    Settled is what needs no put any more: stored, or acknowledged as a dead letter. Before as many as `window` have
    settled, `share_max * window` letters are allowed in all, so that the rule holds from the first record on. At 0
    there is never a dead letter, at 1 no limit. A restart counts anew. Every question and every entry is O(1).
    """

    def __init__(self, share_max: float, window: int = SETTLED_WINDOW) -> None:
        # As the operator wrote it: 0.29 * 100 is 28.999999999999996 to a float.
        self.window = window
        self.allowed = math.floor(Fraction(str(share_max)) * window)
        self._last: deque[bool] = deque(maxlen=window)  # True for a dead letter, oldest left
        self._letters = 0  # of them

    @property
    def letters(self) -> int:
        """Dead letters among the last settled records."""
        return self._letters

    @property
    def seen(self) -> int:
        """How many settled records are looked at: the window, or fewer at the beginning."""
        return len(self._last)

    def may_bury(self) -> bool:
        """Whether one more record may be settled as a dead letter now."""
        return self._letters - self._leaving() < self.allowed

    def buried(self) -> None:
        """A record was settled as a dead letter."""
        self._enter(letter=True)

    def settled(self) -> None:
        """A record was stored."""
        self._enter(letter=False)

    def _leaving(self) -> int:
        """1 when the next entry pushes a dead letter out."""
        return int(len(self._last) == self._last.maxlen and self._last[0])

    def _enter(self, *, letter: bool) -> None:
        self._letters += letter - self._leaving()
        self._last.append(letter)
