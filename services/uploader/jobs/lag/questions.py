"""The questions of `lag`: what Kafka says of the topic, the group and each partition at one moment.

Owns two connections while it is open: an admin client, and a consumer without a group that reads one record of each
partition that lags, for its age. Joins no group, commits nothing, judges nothing.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import GroupLoadInProgressError, KafkaError, OffsetOutOfRangeError, for_code

from services.uploader.jobs.lag.look import Group, Look, Member, Oldest, PartitionLook, to_read
from services.uploader.jobs.span_reader import POLL_TIMEOUT_MS
from services.uploader.jobs.topic_log import log_client
from services.uploader.settings import GroupSettings
from services.uploader.topic_view import Retention, TopicView, noted_id
from shared.kafka import connection_options
from shared.kafka_trouble import explain, in_words

CONNECT_TIMEOUT_S = 10.0
ASK_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 3.0
"""Bounds of the parts of a look, in seconds: all its questions, all the records that it reads, each client's end."""

INSIST_S, ASK_AGAIN_S = 7.0, 0.2
"""How long, and how soon, what a broker cannot tell just now is asked again. Below ASK_TIMEOUT_S, so that its own
words are the command's last."""


class UnaskableError(Exception):
    """Kafka could not be asked, or has no such topic; the message names the variable."""


@contextlib.asynccontextmanager
async def asker_of(settings: GroupSettings) -> AsyncIterator["Asker"]:
    """Both clients, started; closed in the end, whatever they say to it.

    Raises:
        UnaskableError: no broker answers.

    """
    client, view = log_client(settings), TopicView(settings)
    try:
        async with _answering(settings, CONNECT_TIMEOUT_S), in_words(connection_options(settings)):
            await client.start()
            await view.start()
        yield Asker(settings, client, view)
    finally:
        for close in (client.stop, view.close):
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await close()


@contextlib.asynccontextmanager
async def _answering(settings: GroupSettings, timeout_s: float) -> AsyncIterator[None]:
    """A bound for questions, and their errors as ours."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (KafkaError, OSError) as error:  # a TimeoutError is an OSError
        cause = f"no answer within {timeout_s:g} s" if isinstance(error, TimeoutError) else explain(error)
        raise UnaskableError(f"KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers}: {cause}") from error


class Asker:
    """Asks Kafka, over two connections that somebody else opens and closes."""

    def __init__(self, settings: GroupSettings, client: AIOKafkaConsumer, view: TopicView) -> None:
        self._settings = settings
        self._client = client
        self._view = view
        self._read: dict[TopicPartition, tuple[int, Oldest]] = {}  # the last look's: from which offset, and what
        self._read_of: str | None = None  # the topic id that `_read` is of

    async def look(self, *, ages: bool = True) -> Look:
        """Ask all there is to ask; `ages`: read the oldest record of each partition that lags, too.

        Raises:
            UnaskableError: Kafka does not answer, refuses, or has no such topic.

        """
        async with _answering(self._settings, ASK_TIMEOUT_S):
            look = await self._insist(self._ask)
        if not ages:
            return look
        found, unread = await self._oldest(look)
        partitions = tuple(replace(each, oldest=found.get(each.partition)) for each in look.partitions)
        return replace(look, at_ms=round(time.time() * 1000), partitions=partitions, unread=unread)

    async def records_in(self, topic: str) -> int | None:
        """Offsets between the beginning and the end of a topic's partitions; None: nobody could tell."""
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                described = await self._view.describe_topics([topic])
                tps = [TopicPartition(topic, each["partition"]) for found in described for each in found["partitions"]]
                if not tps:
                    return None
                begins = await self._client.beginning_offsets(tps)
                ends = await self._client.end_offsets(tps)
        except (KafkaError, OSError):
            return None
        return sum(int(ends[tp] - begins[tp]) for tp in tps)

    async def _insist(self, ask: Callable[[], Awaitable[Look]]) -> Look:
        """Ask again what a broker cannot tell just now: coordinators move, and the first group makes its topic."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + INSIST_S
        while True:
            try:
                return await ask()
            except KafkaError as error:
                if not error.retriable or loop.time() >= give_up_s:
                    raise
            await asyncio.sleep(ASK_AGAIN_S)

    async def _ask(self) -> Look:
        topic, group_id = self._settings.kafka_topic, self._settings.kafka_group_id
        topic_id, led, leaderless = await self._partitions()
        retention = await self._view.retention() or Retention(None, by_size=False)
        group = await self._group()
        tps = [TopicPartition(topic, partition) for partition in led]
        # In this order: a commit that is below a beginning asked before is truly below it, and none is beyond an end
        # that is asked later.
        begins = await self._client.beginning_offsets(tps)
        commits = await self._commits(group_id, tps)
        clock_s = time.monotonic()
        ends = await self._client.end_offsets(tps)
        partitions = []
        for tp in tps:
            committed, noted = commits[tp]
            gone_id = noted if topic_id is not None and noted not in {None, topic_id} else None
            partitions.append(PartitionLook(tp.partition, begins[tp], committed, ends[tp], gone_id))
        return Look(
            at_ms=round(time.time() * 1000),
            clock_s=clock_s,
            topic=topic,
            topic_id=topic_id,
            retention_ms=retention.ms,
            by_size=retention.by_size,
            group=group,
            partitions=tuple(partitions),
            leaderless=tuple(leaderless),
        )

    async def _partitions(self) -> tuple[str | None, list[int], list[int]]:
        """The topic's id, its partitions with a leader, and those without."""
        topic = self._settings.kafka_topic
        topic_id = await self._view.topic_id()
        # No id: an old broker, or no topic. Asked for all topics: a question for one by its name would make it, where
        # the broker makes topics by itself.
        if topic_id is None and topic not in await self._client.topics():
            raise UnaskableError(
                f"KAFKA_TOPIC={topic} does not exist at "
                f"KAFKA_BOOTSTRAP_SERVERS={self._settings.kafka_bootstrap_servers}"
            )
        (described,) = await self._view.describe_topics([topic])
        if described["error_code"]:
            raise for_code(described["error_code"])(topic)
        leaders = {each["partition"]: each["leader"] for each in described["partitions"]}
        led = sorted(partition for partition, leader in leaders.items() if leader >= 0)
        return topic_id, led, sorted(leaders.keys() - set(led))

    async def _group(self) -> Group:
        group_id = self._settings.kafka_group_id
        (answer,) = await self._view.describe_consumer_groups([group_id])
        (described,) = answer.groups
        error_code, _name, state, kind, _protocol, members = described[:6]
        if error_code:
            raise for_code(error_code)(f"group {group_id}")
        return Group(
            group_id,
            state,
            tuple(sorted((self._member(kind, each) for each in members), key=lambda each: each.partitions)),
        )

    def _member(self, kind: str, described: tuple[str, str, str, bytes, bytes]) -> Member:
        member_id, client_id, host, _metadata, assignment = described
        mine: list[int] = []
        if kind == ConsumerProtocol.PROTOCOL_TYPE and assignment:  # none while the group rebalances
            decoded = ConsumerProtocol.ASSIGNMENT.decode(assignment)
            mine = sorted(tp.partition for tp in decoded.partitions() if tp.topic == self._settings.kafka_topic)
        return Member(member_id, client_id, host.removeprefix("/"), tuple(mine))

    async def _commits(
        self, group_id: str, tps: list[TopicPartition]
    ) -> dict[TopicPartition, tuple[int | None, str | None]]:
        """Offset and noted topic id of each; None for an offset: there is no commit."""
        if not tps:
            return {}
        found = await self._view.list_consumer_group_offsets(group_id, partitions=tps)
        # An answer that carries an error of the whole group has no partitions, and aiokafka does not look at it: taken
        # for an answer, it would say of every partition that nothing was ever committed.
        if not found.keys() >= set(tps):
            raise GroupLoadInProgressError(f"group {group_id}: its coordinator does not tell its commits")
        return {
            tp: (found[tp].offset, noted_id(found[tp].metadata)) if found[tp].offset >= 0 else (None, None)
            for tp in tps
        }

    async def _oldest(self, look: Look) -> tuple[dict[int, Oldest], str]:
        """The oldest record of each partition that lags; those that could not be read are absent. And why."""
        wanted = {TopicPartition(look.topic, each): span for each, span in to_read(look.partitions).items()}
        known = self._read if self._read_of == look.topic_id else {}
        # A record that was read is read once: a look every two seconds must not fetch a megabyte a partition each time.
        found = {
            tp: read
            for tp, read in known.items()
            if tp in wanted and read[0] == wanted[tp][0] and read[1].offset is not None
        }
        unread = ""
        try:
            for tp, oldest in (await self._first_records({tp: wanted[tp] for tp in wanted.keys() - found})).items():
                found[tp] = (wanted[tp][0], oldest)
        except KafkaError as error:
            unread = explain(error)
        self._read, self._read_of = found, look.topic_id
        return {tp.partition: oldest for tp, (_, oldest) in found.items()}, unread

    async def _first_records(self, spans: Mapping[TopicPartition, tuple[int, int]]) -> dict[TopicPartition, Oldest]:
        """The first record of each span, all in one go; a span that is all holes has none.

        Raises:
            KafkaError: a partition may not be read, or cannot be.

        """
        found: dict[TopicPartition, Oldest] = {}
        pending = set(spans)
        if not pending:
            return found
        self._client.assign(list(pending))
        for tp, (begin, _) in spans.items():
            self._client.seek(tp, begin)
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + READ_TIMEOUT_S
        while pending and loop.time() < give_up_s:
            try:
                # One record a call: no others are unpacked.
                polled = await self._client.getmany(*pending, timeout_ms=POLL_TIMEOUT_MS, max_records=1)
            except OffsetOutOfRangeError as error:  # retention was faster; the next look sees another beginning
                pending -= set(error.args[0])
                continue
            except UnicodeDecodeError:  # a header's name is no UTF-8, and the client cannot read it: not known
                break
            for tp, records in polled.items():
                if records:
                    at = records[0]
                    found[tp] = Oldest(at.offset, at.timestamp if at.timestamp >= 0 else None)
            for tp in pending - found.keys():
                if await self._client.position(tp) >= spans[tp][1]:
                    found[tp] = Oldest(None)
            pending -= found.keys()
        self._client.unsubscribe()  # or it would go on fetching between two looks
        return found
