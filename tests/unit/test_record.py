"""The wire contract: whatever is written is read back, and whatever is foreign still yields something safe."""

import re
from datetime import UTC, datetime
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import record
from shared.record import (
    CALENDAR_END_S,
    CONTENT_TYPE,
    COUNT,
    FOLDER,
    ID,
    INDEX,
    RECEIVED_NS,
    REQUEST_ID,
    TRACEPARENT,
    VERSION,
    Stamp,
    decode,
    id_time_ms,
    is_safe_folder,
    new_collection_id,
)

WHEN_MS = 1_795_521_600_000
COLLECTION = new_collection_id(WHEN_MS, bytes(range(10)))
segments = st.from_regex(r"[A-Za-z0-9_=-]{1,20}", fullmatch=True)
folders = st.lists(segments, min_size=1, max_size=4).map("/".join)
versions = st.text(max_size=60)


def stamp(**changes: object) -> Stamp:
    fields: dict[str, object] = {
        "collection_id": COLLECTION,
        "folder": "payloads",
        "version": "1",
        "received_ns": 1,
        "request_id": "r-1",
        "count": 3,
    }
    return Stamp.of(**(fields | changes))  # type: ignore[arg-type]


@given(
    folder=folders,
    version=versions,
    received_ns=st.integers(0, 2**63 - 1),
    index=st.integers(0, 10**6),
    value=st.none() | st.binary(max_size=100),
)
def test_every_record_round_trips(folder: str, version: str, received_ns: int, index: int, value: bytes | None) -> None:
    """What tier 1 encodes, tier 2 decodes: id, folder, version (any Unicode), time and bytes."""
    headers = stamp(folder=folder, version=version, received_ns=received_ns, count=index + 1).headers(index)
    assert all(raw.isascii() for _, raw in headers)
    record = decode(topic="t", partition=3, offset=9, timestamp_ms=5, value=value, headers=headers)
    assert (record.id, record.folder, record.version) == (f"{COLLECTION}-{index}", folder, version)
    assert (record.received_ns, record.value, record.foreign) == (received_ns, value, False)
    assert record.key_hours == WHEN_MS // 3_600_000


def test_the_headers_are_those_of_the_contract() -> None:
    """Names and forms of DESIGN §3, exactly."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert dict(stamp(version="Fenêtre 10%", traceparent=trace).headers(2)) == {
        ID: f"{COLLECTION}-2".encode(),
        FOLDER: b"payloads",
        VERSION: b"Fen%C3%AAtre 10%25",
        RECEIVED_NS: b"1",
        REQUEST_ID: b"r-1",
        INDEX: b"2",
        COUNT: b"3",
        CONTENT_TYPE: b"application/json",
        TRACEPARENT: trace.encode(),
    }
    assert TRACEPARENT not in dict(stamp().headers(0))


@given(
    headers=st.lists(
        st.tuples(st.sampled_from([ID, FOLDER, VERSION, RECEIVED_NS, "other"]), st.binary(max_size=300) | st.none()),
        max_size=6,
    ),
    timestamp_ms=st.integers(-1, 2**62),
    value=st.none() | st.binary(max_size=20),
)
def test_a_foreign_record_always_decodes_to_something_safe(
    headers: list[tuple[str, bytes]], timestamp_ms: int, value: bytes | None
) -> None:
    """Any headers at all, also null ones, give an id and a folder that can stand in a key, and a time."""
    record = decode(topic="a.b-c_d", partition=1, offset=7, timestamp_ms=timestamp_ms, value=value, headers=headers)
    assert record.id
    assert set(record.id) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert record.folder is None or is_safe_folder(record.folder)
    assert datetime.fromtimestamp(record.key_hours * 3600, UTC).tzinfo is UTC
    if record.foreign:
        assert record.id == f"a.b-c_d-1-7-{timestamp_ms}"


def _slowly(timestamp_ms: int, headers: list[tuple[str, bytes | None]]) -> tuple[object, ...]:
    """Id, folder, version, received, hours and foreign, each by its rule alone: nothing kept, nothing combined."""
    texts = {name: raw.decode() for name, raw in dict(headers).items() if raw is not None and raw.isascii()}
    ours = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", texts.get(ID, "")) is not None
    record_id = texts[ID] if ours else f"t-1-7-{timestamp_ms}"
    folder, version, received = texts.get(FOLDER), texts.get(VERSION), texts.get(RECEIVED_NS, "")
    digits = re.fullmatch(r"[0-9]{1,19}", received)
    received_ns = int(received) if digits else max(timestamp_ms, 0) * 1_000_000
    inside_ms = id_time_ms(record_id)
    hours = received_ns // 3_600_000_000_000 if inside_ms is None else inside_ms // 3_600_000
    return (
        record_id,
        folder if folder is not None and is_safe_folder(folder) else None,
        None if version is None else unquote(version, errors="replace"),
        received_ns,
        hours if hours * 3600 < CALENDAR_END_S else 0,
        not ours,
    )


# Around the ends of hours, where the first 8 digits of an id do not tell the hour; and any time of 48 bits.
times_ms = st.integers(0, 2**48 - 1) | st.builds(
    lambda hour, ms: hour * 3_600_000 + ms, st.integers(1, 10**6), st.integers(-70_000, 70_000)
)
ids = st.builds(
    lambda ms, tail: f"{new_collection_id(ms, bytes(10))}{tail}".encode(),
    times_ms,
    st.sampled_from(["", "-0", "-12-0a1b2c3d", "x" * 218, "x" * 219, "x" * 220, " ", "\n", "é"]),
)


@given(
    headers=st.lists(
        st.tuples(st.just(ID), ids | st.binary(max_size=40) | st.from_regex(rb"[A-Za-z0-9._-]{0,40}", fullmatch=True))
        | st.tuples(st.just(FOLDER), st.sampled_from([b"a/b", b"..", b"", b"\xc3\xa9", b"x" * 256, b"x" * 257, None]))
        | st.tuples(st.just(VERSION), st.sampled_from([b"1", b"%C3%A9", b"%FF", b"\xc3", b"v" * 768, b"v" * 769, None]))
        | st.tuples(
            st.just(RECEIVED_NS), st.sampled_from([b"1", b"9" * 19, b"9" * 20, b"+1", b"1_0", b" 1", b"", None])
        ),
        max_size=8,
    ),
    timestamp_ms=st.integers(-1, 2**62),
)
def test_a_record_is_read_by_the_rules_whatever_is_kept_of_others(
    headers: list[tuple[str, bytes | None]], timestamp_ms: int
) -> None:
    """What is looked up (hours, folders, versions) or checked in one go is what each rule alone says."""
    record = decode(
        topic="t",
        partition=1,
        offset=7,
        timestamp_ms=timestamp_ms,
        value=b"",
        headers=headers,  # type: ignore[arg-type] # a stranger's may be null
    )
    read = (record.id, record.folder, record.version, record.received_ns, record.key_hours, record.foreign)
    assert read == _slowly(timestamp_ms, headers)


def test_no_long_headers_of_a_stranger_are_kept() -> None:
    """What is kept of folders and versions is bounded in bytes, and not only in entries."""
    caches = (record._folder, record._version)
    before = [cache.cache_info() for cache in caches]
    long = [(FOLDER, b"f" * 257), (VERSION, b"v" * 769)]
    decode(topic="t", partition=0, offset=0, timestamp_ms=0, value=b"", headers=long)
    assert [cache.cache_info() for cache in caches] == before
    assert all(info.maxsize == 256 for info in before)


@pytest.mark.parametrize(
    ("folder", "safe"),
    [
        ("payloads", True),
        ("a/b=c/d.e", True),
        ("..a", True),
        ("", False),
        (".", False),
        ("a/..", False),
        ("../a", False),
        ("a//b", False),
        ("/a", False),
        ("a/", False),
        ("a b", False),
        ("é", False),
        ("a\n", False),
        ("x" * 257, False),
    ],
)
def test_safe_folders(folder: str, *, safe: bool) -> None:
    """A folder never climbs, never is empty, never needs escaping."""
    assert is_safe_folder(folder) is safe


@given(unix_ms=st.integers(0, 2**48 - 1), entropy=st.binary(min_size=10, max_size=10))
def test_a_collection_id_is_a_uuid7_of_its_time(unix_ms: int, entropy: bytes) -> None:
    """RFC 9562 §5.7: version 7, variant 10, the milliseconds in front; ids of a later time sort later."""
    collection_id = new_collection_id(unix_ms, entropy)
    assert collection_id[14] == "7"
    assert collection_id[19] in "89ab"
    assert id_time_ms(collection_id) == unix_ms
    assert id_time_ms(f"{collection_id}-12") == unix_ms


def test_ids_of_other_forms_have_no_time() -> None:
    """A UUIDv4 or any other text is not read as a time."""
    assert id_time_ms("7b0e5e0e-0f0f-4c4c-8d8d-000000000000-1") is None
    assert id_time_ms("payloads-1-7-5") is None


@pytest.mark.parametrize(
    "changes", [{"folder": "../x"}, {"version": "x" * 257}, {"request_id": "é"}, {"content_type": "é"}]
)
def test_a_stamp_refuses_what_no_header_may_carry(changes: dict[str, object]) -> None:
    """Tier 1 cannot write what tier 2 would not read back."""
    with pytest.raises(ValueError):  # noqa: PT011 - UnicodeEncodeError is one too
        stamp(**changes)
