"""Which letters of a range are meant, and what was seen on the way: broken ones, and those of one record. Pure.

Asked for each record in the order of its partition; one that is read again, by a new session, is counted once.
"""

import hashlib
from bisect import insort
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from aiokafka import ConsumerRecord

from services.uploader.jobs.bucket.comparison import Finding
from services.uploader.jobs.letters.letter import Broken, Letter, Place, read_letter
from services.uploader.jobs.options import Filter
from services.uploader.keys import KeyTemplate

BROKEN_MAX = 1000
"""Broken letters that are kept by name; more are only counted."""


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters are meant. `reasons` empty: of any."""

    reasons: frozenset[str] = frozenset()
    record: Filter = field(default_factory=Filter)

    @property
    def all(self) -> bool:
        """Whether every letter is meant; only then also broken ones, of which nothing can be told."""
        return not self.reasons and self.record.all

    def means(self, letter: Letter, default_folder: str) -> bool:
        """Whether the letter is meant."""
        if self.reasons and letter.reason not in self.reasons:
            return False
        return self.record.means(letter.original, default_folder)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A letter that is meant. `repeats`: the letter of the same record, same key and bytes, that was met before it."""

    letter: Letter
    key: str
    repeats: Place | None


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A letter that is meant, and what is at its key. `finding` None: it was not asked."""

    chosen: Chosen
    finding: Finding | None

    @property
    def age(self) -> tuple[int, Place]:
        """Orders letters by their time, then by their place."""
        return self.chosen.letter.written_ms, self.chosen.letter.place

    def without_value(self) -> "Surveyed":
        """The same, of a size that many can be kept of."""
        letter = self.chosen.letter
        slim = replace(letter, original=letter.original._replace(value=None), headers=())
        return replace(self, chosen=replace(self.chosen, letter=slim))


class Oldest:
    """The oldest letters, as many as are wanted; all where 0 are. Without their values."""

    def __init__(self, wanted: int) -> None:
        self.rows: list[Surveyed] = []  # by age
        self._wanted = wanted

    def add(self, row: Surveyed) -> None:
        """Keep it, if it is one of them."""
        if self._wanted and len(self.rows) == self._wanted:
            if self.rows[-1].age <= row.age:
                return
            self.rows.pop()
        insort(self.rows, row.without_value(), key=lambda kept: kept.age)


class Selection:
    """One pass over a range of the dead-letter topic."""

    def __init__(
        self, wanted: LetterFilter, keys: KeyTemplate, default_folder: str, only: Collection[Place] | None = None
    ) -> None:
        """Prepare.

        Args:
            wanted: the filter.
            keys: of the objects.
            default_folder: `{folder}` of records without one.
            only: the letters that are meant, by place; None: all that the filter leaves.

        """
        self.meant = 0  # letters
        self.repeated = 0  # of them: those of a record of which another letter was met before
        self.passed_over = 0  # letters that the filter leaves out
        self.broken = 0
        self.broken_first: list[Broken] = []  # at most BROKEN_MAX
        self._wanted = wanted
        self._keys = keys
        self._default_folder = default_folder
        self._only = only
        self._seen: dict[int, int] = {}  # the highest offset met, by partition
        self._places: dict[bytes, Place] = {}  # of the first letter of each record: some 250 bytes each

    def choose(self, raw: ConsumerRecord) -> Chosen | None:
        """The letter, if it is meant."""
        fresh = raw.offset > self._seen.get(raw.partition, -1)
        if fresh:
            self._seen[raw.partition] = raw.offset
        letter = read_letter(raw)
        if isinstance(letter, Broken):
            if fresh:
                self.broken += 1
                self.broken_first += [letter] if len(self.broken_first) < BROKEN_MAX else []
            return None
        named = self._only is None or letter.place in self._only
        if not named or not self._wanted.means(letter, self._default_folder):
            self.passed_over += fresh
            return None
        key = self._keys.key(letter.original)
        first = self._places.setdefault(_identity(key, letter.value), letter.place)
        repeats = None if first == letter.place else first
        self.meant += fresh
        self.repeated += fresh and repeats is not None
        return Chosen(letter, key, repeats)

    def matches(self, raw: ConsumerRecord) -> bool:
        """Whether the record is to be put: meant, and no repetition of one that is."""
        chosen = self.choose(raw)
        return chosen is not None and chosen.repeats is None


def _identity(key: str, value: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + value).digest()[:16]
