"""Which letters are meant, how they are counted, and what of them reaches a terminal."""

import json
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.jobs.bucket.comparison import Finding
from services.uploader.jobs.letters.counts import MESSAGES_MAX, OTHERS, LetterCounts, hour, one_line
from services.uploader.jobs.letters.letter import Place
from services.uploader.jobs.letters.selection import BROKEN_MAX, Chosen, LetterFilter, Oldest, Selection, Surveyed
from services.uploader.jobs.letters.text import broken_lines, table, whole_document, whole_lines
from services.uploader.jobs.options import Filter
from tests.unit.letter_records import KEYS, NOON_MS, bury, letter_of, raw


def selection(wanted: LetterFilter | None = None, **more: Any) -> Selection:
    return Selection(wanted or LetterFilter(), KEYS, "payloads", **more)


def with_id(name: str, value: bytes = b"{}", **more: Any) -> ConsumerRecord:
    return bury(raw([("spillway-id", name.encode())], value), **more)


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (LetterFilter(), [0, 1, 2, 3]),
        (LetterFilter(frozenset({"key_too_long_error"})), [1]),
        (LetterFilter(frozenset({"key_too_long_error", "conflict"})), [1, 2]),
        (LetterFilter(record=Filter(folder="f")), [2]),
        (LetterFilter(record=Filter(folder="payloads")), [0, 1, 3]),  # records without a folder are in the default one
        (LetterFilter(record=Filter(record_id="a")), [0, 3]),  # the collection: a-1 and a-2
        (LetterFilter(frozenset({"entity_too_large"}), Filter(record_id="a-2")), [3]),
        (LetterFilter(frozenset({"nothing"})), []),
    ],
)
def test_filters(wanted: LetterFilter, meant: list[int]) -> None:
    """By the last reason, by the folder that the key begins with, by id or collection; all of them at once."""
    letters = [
        with_id("a-1", offset=0),
        with_id("b-1", offset=1, reason="key_too_long_error"),
        bury(raw([("spillway-id", b"c"), ("spillway-folder", b"f")]), offset=2, reason="conflict"),
        with_id("a-2", offset=3),
    ]
    chosen = selection(wanted)
    assert [letter.offset for letter in letters if chosen.matches(letter)] == meant
    assert (chosen.meant, chosen.passed_over) == (len(meant), 4 - len(meant))


def test_of_two_letters_of_one_record_one_is_put() -> None:
    """The first, also when it is read again by a new session; the other counts as its repetition."""
    chosen = selection()
    letters = [with_id("a", offset=0), with_id("a", offset=1), with_id("b", offset=2)]
    assert [chosen.matches(each) for each in letters] == [True, False, True]
    assert [chosen.matches(each) for each in letters] == [True, False, True]
    assert (chosen.meant, chosen.repeated, chosen.passed_over) == (3, 1, 0)


def test_other_bytes_are_no_repetition() -> None:
    """Two foreign records may have one id: neither is passed over in silence."""
    chosen = selection()
    assert [chosen.matches(with_id("a", value, offset=at)) for at, value in enumerate((b"1", b"2"))] == [True, True]
    assert chosen.repeated == 0


def test_broken_letters_are_counted_and_the_first_named() -> None:
    """Once each, however often they are read; as many names as memory is for."""
    chosen = selection()
    for _ in range(2):
        for offset in range(BROKEN_MAX + 5):
            assert not chosen.matches(raw([], partition=0, offset=offset))
    assert chosen.broken == BROKEN_MAX + 5
    assert [one.place.offset for one in chosen.broken_first] == list(range(BROKEN_MAX))
    assert broken_lines(chosen)[:2] == [
        "broken, no original record can be told from them: 1005",
        "  p0:0: it is no dead letter of an uploader: it has no dead.* headers",
    ]
    assert "names the first 1000" in broken_lines(chosen)[-1]


def test_only_chosen_places() -> None:
    """Of the others none is put."""
    chosen = selection(only={Place(0, 1)})
    assert [chosen.matches(with_id(f"a{at}", offset=at)) for at in range(3)] == [False, True, False]


def surveyed(record: ConsumerRecord, finding: Finding | None = None) -> Surveyed:
    letter = letter_of(record)
    return Surveyed(Chosen(letter, KEYS.key(letter.original), None), finding)


@pytest.mark.parametrize(("wanted", "kept"), [(2, [5, 1]), (0, [5, 1, 3]), (9, [5, 1, 3])])
def test_the_oldest_are_kept(wanted: int, kept: list[int]) -> None:
    """By the time of the letter, then by its place; without the bytes of their records."""
    oldest = Oldest(wanted)
    for offset, at_ms in ((3, NOON_MS), (1, NOON_MS), (5, NOON_MS - 1)):
        oldest.add(surveyed(with_id("a", offset=offset, at_ms=at_ms)))
    assert [row.chosen.letter.place.offset for row in oldest.rows] == kept
    assert {row.chosen.letter.original.value for row in oldest.rows} == {None}
    assert {row.chosen.letter.size_bytes for row in oldest.rows} == {2}


# -- counting and showing


def test_counts() -> None:
    """By reason, by what S3 said, by the hour of the letter; and what of it is there."""
    counts = LetterCounts()
    counts.add(letter_of(with_id("a", message="big\n1")), Finding.SAME)
    counts.add(letter_of(with_id("b", message="big\n1", at_ms=NOON_MS + 3_600_000)), Finding.MISSING)
    counts.add(letter_of(with_id("c", b"123", reason="key_too_long_error", message="long")), Finding.DIFFERENT)
    assert counts.document() == {
        "letters": 3,
        "bytes": 7,  # 2 + 2 + 3
        "by_reason": {"entity_too_large": 2, "key_too_long_error": 1},
        "by_message": [
            {"reason": "entity_too_large", "message": "big 1", "letters": 2},
            {"reason": "key_too_long_error", "message": "long", "letters": 1},
        ],
        "by_hour": {hour(NOON_MS): 2, hour(NOON_MS + 3_600_000): 1},
    }
    assert counts.absent == 1  # where another object is, nothing is put
    assert hour(NOON_MS) == "2026-11-24T12:00Z"


def test_different_messages_are_bounded() -> None:
    """A message that names its key is another one each time; what is over the bound is counted as one."""
    counts = LetterCounts()
    for number in range(MESSAGES_MAX + 7):
        counts.add(letter_of(with_id("a", message=f"key {number}")), None)
    assert len(counts.by_message) == MESSAGES_MAX + 1
    assert counts.by_message["entity_too_large", OTHERS] == 7


@given(st.text())
def test_nothing_but_printable_characters_reaches_a_terminal(text: str) -> None:
    """No escape sequence, no end of a line."""
    assert one_line(text).isprintable()
    assert len(one_line(text)) == len(text)


EVIL = "\x1b[2J\x07\u202e"


def test_a_letter_whole_is_safe_for_a_terminal() -> None:
    """Whatever its headers, message and value are."""
    record = raw([(EVIL, EVIL.encode()), ("b", b"\xff"), ("n", None)], f"{{\n{EVIL}\n}}".encode())
    lines = whole_lines(letter_of(bury(record, message=EVIL)), "k", 1000)
    assert all(line.isprintable() for line in lines)
    assert "  b: b'\\xff'" in lines
    assert "  n: null" in lines
    assert lines[-3:] == ["{", one_line(EVIL), "}"]


@pytest.mark.parametrize(
    ("value", "bytes_max", "shown"),
    [
        (b"abc", 3, ["value     3 bytes", "abc"]),
        (b"abc", 2, ["value     3 bytes, of which the first 2 follow (`--bytes`, `--raw`)", "ab"]),
        ("aé".encode(), 2, ["value     3 bytes, of which the first 1 follow (`--bytes`, `--raw`)", "a"]),
        (b"\xff\x00", 9, ["value     2 bytes, not UTF-8 (`--raw` writes them): ff 00"]),
    ],
)
def test_how_a_value_is_shown(value: bytes, bytes_max: int, shown: list[str]) -> None:
    """As text where it is text, cut between characters; else its first bytes."""
    assert whole_lines(letter_of(bury(raw([], value))), "k", bytes_max)[-len(shown) :] == shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"abcd", {"value": "abc", "value_cut": True}),
        (b"\xff\xff\xff\xff", {"value_base64": "////", "value_cut": True}),  # three bytes are four letters
        (b"", {"value": "", "value_cut": False}),
    ],
)
def test_a_letter_whole_as_json(value: bytes, expected: dict[str, object]) -> None:
    """Bytes that are no text are in base64; null is null."""
    document = whole_document(letter_of(bury(raw([("b", b"\xff"), ("n", None), ("t", b"x")], value))), "k", 3)
    assert {name: document[name] for name in expected} == expected
    assert document["headers"] == [
        {"name": "b", "value_base64": "/w=="},
        {"name": "n", "value": None},
        {"name": "t", "value": "x"},
    ]
    json.dumps(document)


def test_a_table_is_cut_to_the_terminal() -> None:
    """The message is last, and is what is cut; the column of S3 is there only when S3 was asked."""
    row = surveyed(with_id("a", message="m" * 300))
    assert max(map(len, table([row], 120))) == 120
    assert table([row], 120)[1].endswith("m…")
    assert "m" * 300 in table([row], None)[1]
    assert "in S3" not in table([row], None)[0]
    assert "missing" in table([surveyed(with_id("a"), Finding.MISSING)], None)[1]
