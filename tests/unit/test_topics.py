"""What `spillway-uploader topics` finds wrong with topics that exist."""

from dataclasses import replace

import pytest

from services.uploader.dead_letter import EXTRA_BYTES
from services.uploader.dead_letter_topic import fault_of
from services.uploader.topics import differences
from shared.kafka import TopicFacts


def facts(name: str, **changes: object) -> TopicFacts:
    fields: dict[str, object] = {
        "partitions": 12,
        "min_insync": 2,
        "replicas": 3,
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


MISSING = TopicFacts("dead", exists=False)


@pytest.mark.parametrize(
    ("live", "dead", "says"),
    [
        (facts("live"), DEAD, None),
        (facts("live"), MISSING, "dead-letter topic dead does not exist; make it with `spillway-uploader topics`"),
        (facts("live"), facts("dead"), f"max.message.bytes is 1000000, less than {1_000_000 + EXTRA_BYTES}"),
        (facts("live"), replace(DEAD, min_insync=1), "min.insync.replicas=1 and 3 replicas, below KAFKA_MIN_INSYNC=2"),
        (facts("live"), replace(DEAD, replicas=1), "min.insync.replicas=2 and 1 replicas, below KAFKA_MIN_INSYNC=2"),
        (TopicFacts("live", exists=False), facts("dead"), None),  # nothing to compare with yet
    ],
)
def test_what_a_running_uploader_says_of_its_dead_letter_topic(
    live: TopicFacts, dead: TopicFacts, says: str | None
) -> None:
    """What would lose a letter, or refuse one, before there is any."""
    found = fault_of(live, dead, min_insync=2)
    assert found is None if says is None else says in (found or "")
