"""Where a job's state is kept: the commits of its own consumer group, each with what the job is as its metadata."""

import asyncio
import time
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError
from aiokafka.structs import OffsetAndMetadata

from services.uploader.jobs.storing.state import PartitionState, UnreadableStateError, read_note
from services.uploader.settings import COMMIT_TIMEOUT_S
from services.uploader.topic_view import TopicView

COORDINATOR_TIMEOUT_S = 15.0
ASK_AGAIN_S = 0.3
COMMITTED_AT_ONCE = 100
"""Partitions of one commit: with notes of 4 KiB each it stays below the 1 MiB that a broker takes as one batch."""


async def read_states(view: TopicView, group: str, topic: str) -> dict[int, PartitionState]:
    """What the job's commits say, by partition; empty where there is no such job.

    Raises:
        UnreadableStateError: the group is no job's.
        KafkaError: the broker could not be asked.

    """
    states = {}
    for tp, at in (await commits_of(view, group)).items():
        if at.offset < 0:
            continue
        if tp.topic != topic:
            raise UnreadableStateError(f"job group {group} is of topic {tp.topic}, and KAFKA_TOPIC={topic}")
        try:
            states[tp.partition] = read_note(tp.partition, at.offset, str(at.metadata))
        except UnreadableStateError as error:
            raise UnreadableStateError(f"group {group} cannot be resumed: {error}") from None
    return states


async def commits_of(view: TopicView, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """The group's commits. A cluster that never had a group makes the topic of their commits when it is asked first.

    Raises:
        KafkaError: the broker could not be asked, or its coordinator is not there after COORDINATOR_TIMEOUT_S.

    """
    until_s = time.monotonic() + COORDINATOR_TIMEOUT_S
    while True:
        try:
            found: dict[TopicPartition, OffsetAndMetadata] = await view.list_consumer_group_offsets(group)
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError, GroupLoadInProgressError):
            if time.monotonic() >= until_s:
                raise
            await asyncio.sleep(ASK_AGAIN_S)
        else:
            return found


async def write_states(client: AIOKafkaConsumer, topic: str, states: Mapping[int, PartitionState]) -> None:
    """Commit them all.

    Args:
        client: started, of the job's group, and assigned to the partitions.
        topic: that the job reads.
        states: by partition.

    Raises:
        KafkaError: they may not have been committed.
        TimeoutError: as above.
        ValueError: what the job is, is too long to be noted.

    """
    offsets = [(TopicPartition(topic, number), (state.settled, state.note())) for number, state in states.items()]
    for at in range(0, len(offsets), COMMITTED_AT_ONCE):
        async with asyncio.timeout(COMMIT_TIMEOUT_S):
            await client.commit(dict(offsets[at : at + COMMITTED_AT_ONCE]))
