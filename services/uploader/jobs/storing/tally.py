"""What a job has done so far, counted where it happens."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from aiokafka import ConsumerRecord

from services.uploader.errors import PoisonRecord
from services.uploader.store import Store


@dataclass(frozen=True, slots=True)
class NotStored:
    """A record that S3 can never take."""

    partition: int
    offset: int
    reason: str
    message: str


@dataclass(slots=True)
class Tally:
    """Counts of one run of a job.

    Attributes:
        stored: objects written.
        stored_bytes: of their bodies.
        there: records whose object was there already, with the same bytes.
        skipped: records that a filter or a file left out.
        errors: puts and questions that failed, and were tried again.
        not_stored: records that S3 can never take.

    """

    stored: int = 0
    stored_bytes: int = 0
    there: int = 0
    skipped: int = 0
    errors: int = 0
    not_stored: list[NotStored] = field(default_factory=list)

    @property
    def settled(self) -> int:
        """Records that need nothing more."""
        return self.stored + self.there + self.skipped + len(self.not_stored)


class CountingStore:
    """A store whose puts are counted. Implements `services.uploader.store.Store`."""

    def __init__(self, store: Store, tally: Tally) -> None:
        self._store = store
        self._tally = tally

    async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """See `services.uploader.store.Store.put`."""
        try:
            await self._store.put(key, body, metadata)
        except Exception:
            self._tally.errors += 1
            raise
        self._tally.stored += 1
        self._tally.stored_bytes += len(body)


class PoisonList:
    """Takes what S3 can never take, for the report. A job writes no dead letters: the record is in the topic still.

    Implements `services.uploader.partition.Poison`.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def settled(self) -> None:
        """A record was stored: counted by the store."""

    def release(self, raw: ConsumerRecord) -> None:
        """Nothing waits here."""

    async def bury(self, raw: ConsumerRecord, error: PoisonRecord, attempts: int) -> bool:  # noqa: ARG002 - the protocol's
        """Note the record down."""
        self._tally.not_stored.append(NotStored(raw.partition, raw.offset, error.reason, str(error)))
        return True
