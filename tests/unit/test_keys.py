"""Keys: a function of the record alone, safe whatever the record holds."""

import hashlib
import re
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.uploader.keys import DEFAULT_TEMPLATE, FIELDS, KEY_BYTES_MAX, KeyTemplate, shard
from shared.record import Record, Stamp, decode, new_collection_id

COLLECTION = new_collection_id(1_795_521_600_000, b"0123456789")  # 2026-11-24T12:00:00Z


def ours(index: int = 0, **changes: object) -> Record:
    fields: dict[str, object] = {
        "collection_id": COLLECTION,
        "folder": "payloads",
        "version": "1",
        "received_ns": 1_795_521_600_123_456_789,
        "request_id": "r",
        "count": 1,
    }
    headers = Stamp.of(**(fields | changes)).headers(index)  # type: ignore[arg-type]
    return decode(topic="payloads", partition=3, offset=42, timestamp_ms=0, value=b"1", headers=headers)


def test_the_default_key() -> None:
    """`{folder}/shard={shard}/dt={date}/hour={hour}/{id}`, in UTC, the time being that inside the id."""
    record = ours(7)
    assert KeyTemplate(DEFAULT_TEMPLATE, "x").key(record) == (
        f"payloads/shard={shard(record.id)}/dt=2026-11-24/hour=12/{COLLECTION}-7"
    )


def test_all_fields() -> None:
    """Every field of the contract has its value."""
    template = "/".join(f"{{{field}}}" for field in FIELDS)
    values = dict(zip(FIELDS, KeyTemplate(template, "x").key(ours()).split("/"), strict=True))
    assert values == {
        "folder": "payloads",
        "date": "2026-11-24",
        "hour": "12",
        "shard": shard(f"{COLLECTION}-0"),
        "id": f"{COLLECTION}-0",
        "received_ns": "1795521600123456789",
        "topic": "payloads",
        "partition": "3",
        "offset": "42",
        "version": "1",
    }


def test_a_redelivery_has_the_same_key() -> None:
    """Another offset, partition or receipt of the same payload changes nothing under the default template."""
    template = KeyTemplate(DEFAULT_TEMPLATE, "x")
    first = ours()
    again = decode(
        topic="payloads",
        partition=9,
        offset=1000,
        timestamp_ms=99,
        value=b"1",
        headers=Stamp.of(
            collection_id=COLLECTION, folder="payloads", version="1", received_ns=5, request_id="other", count=1
        ).headers(0),
    )
    assert template.key(first) == template.key(again)


def test_a_foreign_record_has_a_key_of_its_own() -> None:
    """Topic, partition, offset and timestamp name it; the default folder holds it."""
    record = decode(topic="payloads", partition=1, offset=7, timestamp_ms=1_795_521_600_000, value=b"", headers=[])
    assert KeyTemplate("{folder}/dt={date}/{id}", "other").key(record) == (
        "other/dt=2026-11-24/payloads-1-7-1795521600000"
    )


@given(
    version=st.text(max_size=64),
    headers=st.lists(st.tuples(st.sampled_from(["spillway-id", "spillway-version"]), st.binary(max_size=2000))),
    timestamp_ms=st.integers(-(2**62), 2**62),
)
def test_only_safe_characters_reach_a_key(version: str, headers: list[tuple[str, bytes]], timestamp_ms: int) -> None:
    """Whatever a record holds: safe characters, no climbing, at most 1,024 bytes."""
    template = KeyTemplate("{folder}/v={version}/dt={date}/{topic}/{id}", "payloads")
    foreign = decode(topic="t", partition=0, offset=0, timestamp_ms=timestamp_ms, value=b"", headers=headers)
    for record in (ours(version=version), foreign):
        key = template.key(record)
        assert re.fullmatch(r"[A-Za-z0-9._=-]+(/[A-Za-z0-9._=-]+)*", key), key
        assert not {".", ".."} & set(key.split("/"))
        assert len(key) <= KEY_BYTES_MAX


literals = st.sampled_from(["", "/", "a/", "/b=", "-"])


@given(
    parts=st.lists(st.tuples(literals, st.sampled_from([field for field in FIELDS if field != "id"])), max_size=6),
    tail=st.sampled_from(["", "", "", ".json", "/{date}", "{id}"]),
    folders=st.lists(st.sampled_from([None, "payloads", "other", "x" * 250]), min_size=1, max_size=3),
    hours=st.lists(st.integers(0, 500_000), min_size=1, max_size=3),
    index=st.integers(0, 10**6),
)
def test_a_key_is_the_template_filled_in_whatever_was_kept_of_others(
    parts: list[tuple[str, str]], tail: str, folders: list[str | None], hours: list[int], index: int
) -> None:
    """Records of several folders and hours through one template: each key is the template with its own fields."""
    text = "k" + "".join(f"{literal}{{{field}}}" for literal, field in parts) + "{id}" + tail
    assume("//" not in text)
    template = KeyTemplate(text, "payloads")
    for folder in folders:
        for hour in hours:
            record = ours(index)._replace(folder=folder, key_hours=hour)
            when = datetime.fromtimestamp(hour * 3600, UTC)
            filled = text.format(
                folder=folder or "payloads",
                date=f"{when:%Y-%m-%d}",
                hour=f"{when:%H}",
                shard=shard(record.id),
                id=record.id,
                received_ns=record.received_ns,
                topic="payloads",
                partition=3,
                offset=42,
                version="1",
            )
            assert template.key(record) == filled or len(filled) > KEY_BYTES_MAX


def test_a_long_template_and_a_long_id_are_cut_to_what_s3_takes() -> None:
    """Also where all before the id was looked up: 256 + 900 bytes become the id's hash behind 900."""
    record = ours()._replace(id="i" * 255)
    key = KeyTemplate("a" * 900 + "/{id}", "payloads").key(record)
    assert key == "a" * 900 + "/" + hashlib.sha256(record.id.encode()).hexdigest()


def test_shards_spread() -> None:
    """One hex digit, all 16 in use, none far from a sixteenth of 16,000 ids (1,000 each; 6 sigma = 184)."""
    counts: dict[str, int] = {}
    for i in range(16_000):
        digit = shard(f"{COLLECTION}-{i}")
        counts[digit] = counts.get(digit, 0) + 1
    assert sorted(counts) == list("0123456789abcdef")
    assert all(abs(count - 1000) < 184 for count in counts.values()), counts


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{folder}/{nonsense}/{id}", "unknown field {nonsense}"),
        ("{folder}/{date}", "{id} is missing"),
        ("{folder}/{id", "expected '}'"),
        ("{folder!r}/{id}", "unknown field"),
        ("{folder}/{id:>40}", "unknown field"),
        ("{folder}/é/{id}", "unsafe character"),
        ("{folder}/a b/{id}", "unsafe character"),
        ("/{folder}/{id}", "must not start"),
        ("{folder}//{id}", "must not start"),
        ("{id}/", "must not start"),
    ],
)
def test_a_bad_template_is_refused_with_its_fault(template: str, message: str) -> None:
    """A template fails at start, not at the first record."""
    with pytest.raises(ValueError, match=re.escape(message)):
        KeyTemplate(template, "payloads")
