"""A dead letter read back: the record that it was, its key, why it failed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.dead_letter import Header
from services.uploader.jobs.letters.letter import (
    SET,
    Broken,
    InvalidPlaceError,
    Letter,
    Place,
    parse_place,
    read_letter,
    read_original,
)
from services.uploader.keys import KeyTemplate
from services.uploader.partition import read_record
from tests.unit.letter_records import NOON_MS, bury, letter_of, raw

EVERY_FIELD = KeyTemplate(
    "{folder}/{topic}/{partition}/{offset}/{version}/{received_ns}/{date}/{hour}/{id}", "payloads"
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["spillway-id", "spillway-folder", "spillway-version", "spillway-received-ns", "x", *SET]),
        st.none() | st.binary(max_size=20) | st.sampled_from([b"a-1", b"f/g", b"1795521600000000000", b"7"]),
    ),
    max_size=12,
)

OURS = raw([("spillway-id", b"a-1"), ("spillway-folder", b"f"), ("spillway-received-ns", b"%d" % (NOON_MS * 10**6))])
FOREIGN = raw([("x", b"1")], b"foreign")


def test_a_letter_is_its_record() -> None:
    """All of it: where the record was, its own headers, why it failed."""
    found = letter_of(bury(OURS))
    assert found.original == read_record(OURS)
    assert found.headers == OURS.headers
    assert (found.place, found.written_ms, found.original_ms) == (Place(0, 17), NOON_MS + 60_000, NOON_MS)
    assert (found.reason, found.message, found.attempts, found.failures) == ("entity_too_large", "too large", 2, 1)


@given(HEADERS, st.binary(max_size=30), st.integers(-1, 2**45), st.integers(0, 2**40), st.integers(1, 3))
def test_the_key_is_the_originals(
    headers: list[Header], value: bytes, timestamp_ms: int, offset: int, times: int
) -> None:
    """Whatever headers a record has, also ours and those of letters, and however often it failed: with any template,
    its letter leads to the key that the record itself has. Only who forges a whole set is taken at his word.
    """
    record = raw(headers, value, timestamp=timestamp_ms, offset=offset)
    if isinstance(read_letter(record), Letter):
        return
    letter = bury(record)
    for again in range(1, times):  # sent back to the topic, and failed again
        sent_back = raw(letter.headers, value, partition=1, offset=again, timestamp=NOON_MS + again)
        letter = bury(sent_back, message=f"failure {again}")
    found = letter_of(letter)
    assert found.original == read_record(record) == read_original(letter)
    assert EVERY_FIELD.key(found.original) == EVERY_FIELD.key(read_record(record))
    assert found.failures == times
    assert found.message == ("too large" if times == 1 else f"failure {times - 1}")


def test_a_foreign_records_id_is_of_its_first_place() -> None:
    """It is made of topic, partition, offset and time: of the first set, wherever the letter was sent since."""
    once = bury(FOREIGN)
    assert letter_of(once).original.id == f"payloads-3-7-{NOON_MS}"
    twice = bury(raw(once.headers, b"foreign", partition=9, offset=99, timestamp=NOON_MS + 5), message="again")
    assert letter_of(twice).original.id == f"payloads-3-7-{NOON_MS}"
    assert letter_of(twice).message == "again"


def test_headers_that_a_tool_added_between_two_failures_are_not_the_records() -> None:
    """The id is that which the record came with."""
    once = bury(OURS)
    twice = bury(raw([*once.headers, ("spillway-id", b"other"), ("tool", b"1")], b"{}"), reason="key_too_long_error")
    found = letter_of(twice)
    assert (found.original.id, found.headers, found.reason) == ("a-1", OURS.headers, "key_too_long_error")


def dead_set(**instead: bytes | None) -> list[Header]:
    return [(name, instead.get(name.removeprefix("dead."), value)) for name, value in bury(FOREIGN).headers[1:]]


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([], "has no dead.* headers"),
        ([("x", b"dead.topic")], "has no dead.* headers"),
        (dead_set()[:-1], "dead.attempts is missing"),
        (dead_set()[1:], "dead.topic is missing"),
        (dead_set(offset=b"seven"), "dead.offset is b'seven'"),
        (dead_set(offset=b"-7"), "dead.offset is b'-7'"),
        (dead_set(offset="\u0667".encode()), "dead.offset is"),  # a digit, and not of ASCII
        (dead_set(offset=b"9" * 5000), "dead.offset is"),
        (dead_set(partition=None), "dead.partition is None"),
        (dead_set(topic=b"../../etc"), "dead.topic is"),  # it would become a part of a key
        (dead_set(topic=b""), "dead.topic is"),
        (dead_set(error=b"two words"), "dead.error is"),
        (dead_set()[::-1], "do not stand one behind another"),
    ],
)
def test_what_is_no_letter_is_named(headers: list[Header], why: str) -> None:
    """And is no letter of anything."""
    found = read_letter(raw(headers))
    assert isinstance(found, Broken)
    assert why in found.why


def test_a_letter_without_a_value_is_broken() -> None:
    """A record without a value needs no object, so none was ever refused."""
    assert isinstance(read_letter(bury(raw([], None))), Broken)


@given(HEADERS, st.none() | st.binary(max_size=20))
def test_nothing_that_is_in_the_topic_crashes(headers: list[Header], value: bytes | None) -> None:
    """Neither the reading, nor what a sink is given."""
    read_letter(raw(headers, value))
    assert read_original(raw(headers, value)).value == value


def test_a_broken_set_in_front_is_the_records_own() -> None:
    """The uploader writes no such set, so the record came with it."""
    own = dead_set(offset=b"seven")
    found = letter_of(bury(raw(own)))
    assert (found.headers, found.original.offset) == (tuple(own), 7)


@pytest.mark.parametrize(("text", "place"), [("p0:17", Place(0, 17)), ("3:0", Place(3, 0))])
def test_a_place_as_it_is_typed(text: str, place: Place) -> None:
    """As ranges have it."""
    assert parse_place(text) == place
    assert parse_place(str(place)) == place


@pytest.mark.parametrize("text", ["", "17", "p0", "p0:", "p0:1-2", "p-1:3", "p0:\u0667"])
def test_what_is_no_place(text: str) -> None:
    """Is refused with its form."""
    with pytest.raises(InvalidPlaceError, match="of the form p0:17"):
        parse_place(text)
