"""Records, and the dead letters that the uploader makes of them, for tests of what reads letters."""

from collections.abc import Sequence
from typing import Any

from aiokafka import ConsumerRecord

from services.uploader.dead_letter import Header, dead_headers
from services.uploader.jobs.letters.letter import Letter, read_letter
from services.uploader.keys import DEFAULT_TEMPLATE, KeyTemplate

NOON_MS = 1_795_521_600_000
KEYS = KeyTemplate(DEFAULT_TEMPLATE, "payloads")


def raw(headers: Sequence[Header], value: bytes | None = b"{}", **more: Any) -> ConsumerRecord:
    fields: dict[str, Any] = {
        "topic": "payloads", "partition": 3, "offset": 7, "timestamp": NOON_MS, "timestamp_type": 1, "key": None,
        "value": value, "checksum": None, "serialized_key_size": -1, "serialized_value_size": len(value or b""),
        "headers": tuple(headers),
    }  # fmt: skip
    return ConsumerRecord(**{**fields, **more})


def bury(record: ConsumerRecord, *, offset: int = 17, at_ms: int = NOON_MS + 60_000, **why: Any) -> ConsumerRecord:
    """What the uploader makes of a record, as it is read from the dead-letter topic."""
    said: dict[str, Any] = {"reason": "entity_too_large", "message": "too large", "attempts": 2, **why}
    headers = dead_headers(
        record.headers,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        **said,
    )
    return raw(headers, record.value, topic="payloads.dead", partition=0, offset=offset, timestamp=at_ms)


def letter_of(record: ConsumerRecord) -> Letter:
    found = read_letter(record)
    assert isinstance(found, Letter), found
    return found
