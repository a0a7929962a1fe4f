"""What `spillway-uploader topics` finds wrong with topics that exist."""

import pytest

from services.uploader.dead_letter import EXTRA_BYTES
from services.uploader.topics import differences
from shared.kafka import TopicFacts


def facts(name: str, **changes: object) -> TopicFacts:
    fields: dict[str, object] = {
        "partitions": 12,
        "min_insync": 2,
        "message_bytes_max": 1_000_000,
        "timestamp_type": "LogAppendTime",
        "retention_ms": 1,
    }
    return TopicFacts(name, exists=True, **(fields | changes))  # type: ignore[arg-type]


DEAD = facts("dead", message_bytes_max=1_000_000 + EXTRA_BYTES)


def test_topics_as_the_contract_has_them() -> None:
    """Nothing to say."""
    assert differences(facts("live"), DEAD, min_insync=2) == []


@pytest.mark.parametrize(
    ("live", "dead", "says"),
    [
        (facts("live", timestamp_type="CreateTime"), DEAD, "live: message.timestamp.type is CreateTime"),
        (facts("live", min_insync=1), DEAD, "live: min.insync.replicas is 1, not KAFKA_MIN_INSYNC=2"),
        (facts("live"), facts("dead"), f"dead: max.message.bytes is 1000000, less than {1_000_000 + EXTRA_BYTES}"),
    ],
)
def test_each_difference_is_named(live: TopicFacts, dead: TopicFacts, says: str) -> None:
    """Topic, configuration and both values."""
    assert [says in line for line in differences(live, dead, min_insync=2)] == [True]
