"""`spillway-uploader topics`: make the topic of the payloads and the one of the dead letters, or check them.

Topics are never made by auto-creation (one partition, a broker's defaults). Running the command again changes nothing:
it compares what exists with what the contract needs and says what differs.
"""

import asyncio
from dataclasses import dataclass

from aiokafka.admin import NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from services.uploader.dead_letter import EXTRA_BYTES
from services.uploader.dead_letter_topic import too_small
from shared.kafka import REQUEST_TIMEOUT_S, AdminClient, KafkaSettings, TopicFacts, connection_options, topic_facts
from shared.kafka_trouble import in_words

VISIBLE_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """What `topics` makes. Sizes in bytes, retention in milliseconds."""

    partitions: int = 12
    replication_factor: int = 3
    retention_ms: int = 7 * 24 * 3600 * 1000
    message_bytes_max: int = 1_048_588  # Kafka's own default of max.message.bytes


async def ensure_topics(settings: KafkaSettings, plan: TopicPlan) -> tuple[TopicFacts, list[str]]:
    """Make both topics where they are missing; compare what exists with the contract.

    Returns:
        The payloads' topic as it is now, and one line for each thing that differs from the contract; partitions,
        retention and sizes of topics that exist are the operator's choice and not compared with the plan.

    Raises:
        KafkaError: the broker cannot be reached, or refuses; the message is the broker's.

    """
    options = connection_options(settings)
    admin = AdminClient(**options, request_timeout_ms=round(REQUEST_TIMEOUT_S * 1000))
    try:
        async with in_words(options):
            await admin.start()
        await _create(admin, settings, plan)
        facts = await _visible(admin, [settings.kafka_topic, settings.kafka_dead_topic])
    finally:
        await admin.close()
    live, dead = facts[settings.kafka_topic], facts[settings.kafka_dead_topic]
    return live, differences(live, dead, settings.kafka_min_insync)


async def _create(admin: AdminClient, settings: KafkaSettings, plan: TopicPlan) -> None:
    for name, extra_bytes in ((settings.kafka_topic, 0), (settings.kafka_dead_topic, EXTRA_BYTES)):
        answer = await admin.create_topics(
            [
                NewTopic(
                    name,
                    num_partitions=plan.partitions,
                    replication_factor=plan.replication_factor,
                    topic_configs={
                        "message.timestamp.type": "LogAppendTime",
                        "min.insync.replicas": str(settings.kafka_min_insync),
                        "retention.ms": str(plan.retention_ms),
                        "max.message.bytes": str(plan.message_bytes_max + extra_bytes),
                    },
                )
            ]
        )
        # create_topics returns its errors instead of raising them
        for error in answer.topic_errors:
            kind = for_code(error[1])
            if error[1] and kind is not TopicAlreadyExistsError:
                raise kind(f"topic {name}: {error[2] if len(error) > 2 and error[2] else kind.__name__}")  # noqa: PLR2004


async def _visible(admin: AdminClient, names: list[str]) -> dict[str, TopicFacts]:
    """The topics' facts, once the broker shows them: creation is acknowledged before the metadata has them."""
    async with asyncio.timeout(VISIBLE_TIMEOUT_S):
        while True:
            facts = await topic_facts(admin, names)
            if all(fact.exists for fact in facts.values()):
                return facts
            await asyncio.sleep(0.1)


def differences(topic: TopicFacts, dead: TopicFacts, min_insync: int) -> list[str]:
    """What of two existing topics breaks the contract; one line each. Pure."""
    found = []
    for fact in (topic, dead):
        if fact.timestamp_type != "LogAppendTime":
            found.append(f"topic {fact.name}: message.timestamp.type is {fact.timestamp_type}, not LogAppendTime")
        if fact.min_insync < min_insync:
            found.append(
                f"topic {fact.name}: min.insync.replicas is {fact.min_insync}, not KAFKA_MIN_INSYNC={min_insync}"
            )
    small = too_small(topic, dead)
    return found if small is None else [*found, small]
