"""What the broker says of the topic beside the records: its identity, its retention, and what a commit notes.

Owns the session's second connection, an admin client. A topic that was deleted and made anew has the same name and
offsets that mean other records; only its id tells (KIP-516). aiokafka 0.14 speaks no metadata that carries it, so the
request is written out here (Kafka protocol, Metadata version 10). Asks; decides and changes nothing.
"""

import uuid
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    AbstractType,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from shared.kafka import REQUEST_TIMEOUT_S, AdminClient, KafkaSettings, connection_options, topic_facts

NOTE = "topic-id="
"""How a commit's metadata starts: the id of the topic that its offset belongs to follows."""


def commit_note(topic_id: str | None) -> str:
    """The metadata that a commit carries; empty where the broker tells no id."""
    return "" if topic_id is None else NOTE + topic_id


def noted_id(note: str | None) -> str | None:
    """The topic id that a commit's metadata names; None where it names none."""
    return note.removeprefix(NOTE) if note is not None and note.startswith(NOTE) else None


@dataclass(frozen=True, slots=True)
class Retention:
    """How long records stay. `ms` None: without end. `by_size`: `retention.bytes` may take them earlier."""

    ms: int | None
    by_size: bool


class TopicView(AdminClient):
    """Questions about one topic. Start it and close it as any client of aiokafka."""

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(
            **connection_options(settings),
            client_id="spillway-uploader-view",
            request_timeout_ms=round(REQUEST_TIMEOUT_S * 1000),
        )
        self._topic = settings.kafka_topic

    async def topic_id(self) -> str | None:
        """The topic's id; None where there is no such topic, or where the broker is too old to tell.

        Raises:
            KafkaError: the broker could not be asked.

        """
        try:
            answer = await self._send_request(_TopicIdRequest(self._topic))
        except (IncompatibleBrokerVersion, NotImplementedError):
            return None
        for error_code, _name, topic_id, *_ in answer.topics:
            if error_code == 0:
                return str(topic_id)
            kind = for_code(error_code)
            if kind is not UnknownTopicOrPartitionError:
                raise kind(self._topic)
        return None

    async def note(self, group_id: str, tp: TopicPartition) -> str | None:
        """The metadata of the group's commit; None where there is no commit.

        Raises:
            KafkaError: the broker could not be asked.

        """
        found = await self.list_consumer_group_offsets(group_id, partitions=[tp])
        at = found.get(tp)
        return None if at is None or at.offset < 0 else str(at.metadata)

    async def retention(self) -> Retention | None:
        """How long the topic keeps records; None where there is no such topic.

        Raises:
            KafkaError: the broker could not be asked, or does not let us.

        """
        facts = (await topic_facts(self, [self._topic]))[self._topic]
        if not facts.exists:
            return None
        return Retention(facts.retention_ms if facts.retention_ms >= 0 else None, facts.retention_bytes >= 0)


class _Uuid(AbstractType[uuid.UUID]):  # type: ignore[misc] # aiokafka is not typed
    """16 bytes, as the protocol writes a UUID."""

    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        raw = data.read(16)
        if len(raw) != 16:  # noqa: PLR2004 - 128 bits
            raise ValueError("Buffer underrun decoding a UUID")
        return uuid.UUID(bytes=raw)


class _TopicIdResponse(Response):  # type: ignore[misc] # aiokafka is not typed
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("topic_authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _TopicIdRequestStruct(RequestStruct):  # type: ignore[misc] # aiokafka is not typed
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _TopicIdResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _TopicIdRequest(Request[_TopicIdRequestStruct]):  # type: ignore[misc] # aiokafka is not typed
    API_KEY = 3

    def __init__(self, topic: str) -> None:
        self._topic = topic

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class([(uuid.UUID(int=0), self._topic, {})], False, False, False, {})
