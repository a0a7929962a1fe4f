"""Offset commits: by time, by count, on a revoke and on stop. Explicit offsets only, one commit at a time, bounded.

Owns the lock around commits and the clock. A commit is refused for a partition that is no longer in the table: what
completes after a revoke never commits. aiokafka retries a commit for ever and takes the group's generation when it
sends, so an unbounded one would pass under the *next* generation and rewind the new owner.

A member that was evicted has no generation until it has joined again, and Kafka takes a commit without one while the
group is empty: a frozen member that thaws after its successor has left would set the group back. So none is sent.

A commit notes the id of the topic that it was made for: an offset means nothing for another topic of the same name.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.uploader.cancellation import cancelled_from_outside
from services.uploader.partition import Partition
from services.uploader.settings import COMMIT_TIMEOUT_S, UploaderSettings
from shared.telemetry import UploaderMetrics

log = logging.getLogger(__name__)

COUNT_CHECK_S = 0.1
POSITION_TIMEOUT_S = 1.0

Table = Mapping[TopicPartition, Partition]


class Committer:
    """Commits of one session."""

    def __init__(
        self, client: AIOKafkaConsumer, settings: UploaderSettings, metrics: UploaderMetrics, note: str = ""
    ) -> None:
        self._client = client
        self._settings = settings
        self._metrics = metrics
        self._note = note  # the metadata of every commit
        self._forbidden = False
        self._lock = asyncio.Lock()  # held by the clock and by a revoke; both are bounded, so neither waits for long
        self._positions_trusted = True

    def distrust_positions(self) -> None:
        """A poll failed: the client's positions may stand behind records that were never returned."""
        self._positions_trusted = False

    def forbid(self) -> None:
        """Commit nothing any more: the offsets of this session mean nothing for the topic as it is now."""
        self._forbidden = True

    async def run(self, table: Table) -> None:
        """Commit every COMMIT_INTERVAL_S, or earlier once COMMIT_RECORDS are waiting. Runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + self._settings.commit_interval_s
            # Counted here and not told by every put: a put must not pay for it.
            while loop.time() < due_s and self._waiting(table) < self._settings.commit_records:  # noqa: ASYNC110
                await asyncio.sleep(min(COUNT_CHECK_S, self._settings.commit_interval_s))
            await self._follow_positions(table)
            await self.commit(list(table.values()), table)

    async def commit(self, partitions: Iterable[Partition], table: Table) -> None:
        """Commit what moved of those partitions that are in the table. A failure is logged, never raised."""
        async with self._lock:
            offsets = {
                partition.tp: partition.window.committable
                for partition in partitions
                if table.get(partition.tp) is partition
                and partition.window.committable is not None
                and partition.window.committable != partition.committed
            }
            if not offsets or self._forbidden:
                return
            if not self._is_member():
                log.info("evicted from the group; what was not committed is its next owner's")
                return
            outcome, started_s = "failed", time.monotonic()
            try:
                noted = {tp: (offset, self._note) for tp, offset in offsets.items()}
                async with asyncio.timeout(COMMIT_TIMEOUT_S):
                    await self._client.commit(noted)
                outcome = "committed"
            except (KafkaError, TimeoutError, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError) and cancelled_from_outside():
                    raise
                log.warning("a commit failed; its records may be stored again", extra={"cause": repr(error)})
                return
            finally:
                self._metrics.commits.labels(outcome=outcome).inc()
                self._metrics.commit_seconds.observe(time.monotonic() - started_s)
            for tp, offset in offsets.items():
                partition_now = table.get(tp)
                if partition_now is not None:
                    partition_now.committed = offset

    def _is_member(self) -> bool:
        """Whether the client has a generation: aiokafka tells it nowhere in public."""
        generation: int = self._client._coordinator.generation  # noqa: SLF001 - see above
        return generation != -1  # OffsetCommitRequest.DEFAULT_GENERATION_ID

    def _waiting(self, table: Table) -> int:
        return sum(partition.stored_since_commit() for partition in table.values())

    async def _follow_positions(self, table: Table) -> None:
        """Let windows with nothing in flight take the client's position, so that lag reaches 0 behind markers."""
        for partition in list(table.values()):
            if len(partition.window) or not partition.positioned:
                continue
            with contextlib.suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(POSITION_TIMEOUT_S):
                    position = await self._client.position(partition.tp)
                # Again, after the await: a poll may have failed, a reassignment may have come.
                if self._positions_trusted and table.get(partition.tp) is partition and partition.positioned:
                    partition.window.follow(position)
