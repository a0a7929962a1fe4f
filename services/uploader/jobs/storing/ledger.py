"""How far each partition of a run is settled, and what Kafka has been told of that.

Two prefixes a partition: a commit that fails must not make anybody store a record again, since this process knows that
it is stored; what was not told is told later. Decides nothing about what is read.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.uploader.cancellation import cancelled_from_outside
from services.uploader.jobs.span import Gone
from services.uploader.jobs.storing.group import write_states
from services.uploader.jobs.storing.state import PartitionState, Progress
from services.uploader.jobs.storing.tally import Tally
from services.uploader.jobs.topic_log import START_TIMEOUT_S, close_client
from services.uploader.partition import Partition

log = logging.getLogger(__name__)

LAST_COMMITS = 3


class Ledger:
    """The ledger of one run.

    Attributes:
        settled: by partition: everything below this offset is settled, as this process knows.

    """

    def __init__(self, topic: str, states: Mapping[int, PartitionState], tally: Tally, *, keeps_state: bool) -> None:
        """Begin with what the job's commits say.

        Args:
            topic: that is read.
            states: by partition.
            tally: in which the records stand that S3 can never take.
            keeps_state: whether Kafka is told at all.

        """
        self.settled = {number: state.settled for number, state in states.items()}
        self._topic = topic
        self._tally = tally
        self._keeps_state = keeps_state
        self._told = dict(self.settled)  # -1: to be told whatever it is
        self._progress = {number: Progress(state) for number, state in states.items()}

    @property
    def left(self) -> bool:
        """Whether anything is not settled yet."""
        return any(self.settled[number] < progress.state.end for number, progress in self._progress.items())

    @property
    def states(self) -> dict[int, PartitionState]:
        """As it would be told now, all of it."""
        return {number: self._progress[number].at(settled) for number, settled in self.settled.items()}

    @property
    def untold(self) -> dict[int, PartitionState]:
        """What Kafka has to be told."""
        if not self._keeps_state:
            return {}
        return {number: state for number, state in self.states.items() if state.settled != self._told[number]}

    def tell_anew(self) -> None:
        """Tell everything again, moved or not: Kafka forgets a commit of such a group after 7 days."""
        self._told = dict.fromkeys(self._told, -1)

    def gone(self, one: Gone) -> None:
        """Kafka did not have this any more when it was to be read."""
        self._progress[one.partition].gone.append(one)

    def take_stock(self, table: Mapping[int, Partition]) -> None:
        """What is settled by now."""
        for number, partition in table.items():
            progress, at = self._progress[number], partition.window.committable
            progress.refused = {one.offset for one in self._tally.not_stored if one.partition == number}
            if at is not None:
                self.settled[number] = max(self.settled[number], min(at, progress.state.end))

    async def commit(self, client: AIOKafkaConsumer) -> None:
        """Tell Kafka. What fails is told again by the next one."""
        states = self.untold
        if not states:
            return
        try:
            await write_states(client, self._topic, states)
        except (KafkaError, TimeoutError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and cancelled_from_outside():
                raise
            _warn(error)
            return
        self._told |= {number: state.settled for number, state in states.items()}

    async def commit_last(self, new_client: Callable[[], AIOKafkaConsumer]) -> None:
        """With a client of its own, where the last session's commit has failed."""
        for _ in range(LAST_COMMITS):
            if not self.untold:
                return
            client = new_client()
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await client.start()
                tps = [TopicPartition(self._topic, number) for number in self.settled]
                client.assign(tps)
                for tp in tps:
                    client.seek(tp, self.settled[tp.partition])
                await self.commit(client)
            except (KafkaError, TimeoutError, OSError) as error:
                _warn(error)
            finally:
                await close_client(client.stop)


def _warn(error: BaseException) -> None:
    log.warning("a commit of the job's state failed", extra={"cause": repr(error)})
