"""What an operator may type as the ends of a range, as tables with their arithmetic."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.uploader.jobs.bounds import (
    At,
    Beginning,
    InvalidBoundError,
    Offsets,
    iso,
    parse_from,
    parse_partitions,
    parse_to,
)

SIX_MS = 1_795_586_400_000
"""2026-11-25T06:00:00Z: 20,782 days after 1970, and 6 hours."""

NOW_MS = SIX_MS + 3 * 3_600_000 + 123

MOMENTS = [
    ("2026-11-25T06:00", SIX_MS),  # no zone: UTC
    ("2026-11-25 06:00", SIX_MS),
    ("2026-11-25T06:00:00Z", SIX_MS),
    ("2026-11-25T06:00+00:00", SIX_MS),
    ("2026-11-25T07:00+01:00", SIX_MS),  # an hour east: an hour earlier in UTC
    ("2026-11-25T00:30-05:30", SIX_MS),
    ("2026-11-25T06:00:00.250", SIX_MS + 250),
    ("20261125T060000Z", SIX_MS),
    ("2026-11-25", SIX_MS - 6 * 3_600_000),  # midnight
    ("1970-01-01", 0),
    ("now", NOW_MS),
    ("0s", NOW_MS),
    ("30s", NOW_MS - 30_000),
    ("5m", NOW_MS - 300_000),
    ("2h", NOW_MS - 7_200_000),
    ("3d", NOW_MS - 259_200_000),
    ("1w", NOW_MS - 604_800_000),
    ("1.5h", NOW_MS - 5_400_000),
    ("0.5d", NOW_MS - 43_200_000),
    ("0.001s", NOW_MS - 1),
    ("1795586400", SIX_MS),  # seconds
    ("1795586400000", SIX_MS),  # milliseconds
    ("100000000000", 100_000_000_000),  # the first that is in milliseconds: 1973
    ("123456789", 123_456_789_000),  # nine digits: 1973
]


@pytest.mark.parametrize(("text", "ms"), MOMENTS)
def test_a_moment_is_the_same_at_both_ends(text: str, ms: int) -> None:
    """Every form of a time means one moment, with a zone or without, and the same as --from and as --to."""
    assert datetime.fromtimestamp(SIX_MS / 1000, UTC) == datetime(2026, 11, 25, 6, tzinfo=UTC)
    assert parse_from(text, NOW_MS) == At(ms)
    assert parse_to(text, NOW_MS) == At(ms)


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("p0:100-500", {0: (100, 501)}),  # both included
        ("0:100-500", {0: (100, 501)}),
        ("p0:7-7", {0: (7, 8)}),
        ("p0:0-0", {0: (0, 1)}),  # 0 is a number, not an absent one
        ("p3:5-", {3: (5, None)}),
        ("p3:-5", {3: (None, 6)}),
        ("p3:-", {3: (None, None)}),
        ("p0:1-2, p12:0-", {0: (1, 3), 12: (0, None)}),
        (" p0:1-2", {0: (1, 3)}),
    ],
)
def test_offsets(text: str, spans: dict[int, tuple[int | None, int | None]]) -> None:
    """Offsets name their partitions; both ends are included, and either may be left out."""
    assert parse_from(text, NOW_MS) == Offsets(spans)


def test_the_beginning_is_a_lower_bound_alone() -> None:
    """`beginning` and offsets as --to are refused, with what would do."""
    assert parse_from("beginning", NOW_MS) == Beginning()
    for text in ("beginning", "p0:1-2", "0:-"):
        with pytest.raises(InvalidBoundError, match=re.escape(repr(text)) + ".*no upper bound.*--from"):
            parse_to(text, NOW_MS)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "''"),
        ("tomorrow", "'tomorrow'"),
        ("2x", "'2x'"),
        ("-2h", "'-2h'"),
        ("2h ", "'2h '"),
        ("1h30m", "'1h30m'"),
        ("1.2345s", "'1.2345s'"),
        ("Now", "'Now'"),
        ("12345678", "'12345678'"),  # eight digits are neither an epoch nor this date
        ("12345678901234", "'12345678901234'"),  # 14 digits: microseconds are not among the forms
        ("2026-02-30", "'2026-02-30'"),
        ("2026-11-25T25:00", "'2026-11-25T25:00'"),
        ("p0", "'p0'"),
        ("p0:5", "'p0:5'"),
        ("p0:a-b", "'p0:a-b'"),
    ],
)
def test_what_is_no_bound_is_told_with_the_forms(text: str, names: str) -> None:
    """The line has what was typed, and every form that would do."""
    for parse in (parse_from, parse_to):
        with pytest.raises(InvalidBoundError) as caught:
            parse(text, NOW_MS)
        assert names in str(caught.value)
        assert "2h (ago" in str(caught.value)
        assert "p0:100-500" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2026-11-25T09:01", "in the future (2026-11-25T09:01:00Z; it is 2026-11-25T09:00:00Z)"),
        (str(NOW_MS + 1), "in the future"),
        ("9999-12-31T23:59:59-23:59", "in the future"),  # the year 10000 in UTC
        ("9999-12-31T23:59:59.999999", "in the future"),  # rounds up to it
        ("1969-12-31T23:59:59", "before 1970"),
        ("0001-01-01T00:00+23:59", "before 1970"),
        ("999999999w", "before 1970"),
    ],
)
def test_a_time_that_cannot_be_meant(text: str, says: str) -> None:
    """The future and the time before 1970 are refused for what they are, up to the ends of the calendar."""
    for parse in (parse_from, parse_to):
        with pytest.raises(InvalidBoundError, match=re.escape(says)) as caught:
            parse(text, NOW_MS)
        assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("p0:1-2,p0:5-6", "partition 0 stands there twice"),
        ("p0:1-2,00:5-6", "partition 0 stands there twice"),
        ("p0:5-4", "'p0:5-4' ends before it begins"),
        ("p0:1-2,2h", "'2h' is not of the form p0:100-500"),
        ("p0:1-2,", "'' is not of the form p0:100-500"),
        ("p0:1-2,p1:1", "'p1:1' is not of the form p0:100-500"),
        ("p0:1-2,p1:3--5", "'p1:3--5' is not of the form p0:100-500"),
    ],
)
def test_wrong_offsets_name_the_wrong_part(text: str, says: str) -> None:
    """Of a list of offsets, the part that is wrong is named."""
    with pytest.raises(InvalidBoundError, match=re.escape(says)):
        parse_from(text, NOW_MS)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", {0}), ("0,3,5-7", {0, 3, 5, 6, 7}), ("4-4", {4}), (" 1 , 2 ", {1, 2}), ("1,1-2", {1, 2})],
)
def test_partitions(text: str, numbers: set[int]) -> None:
    """Numbers, and ranges with both ends included."""
    assert parse_partitions(text) == numbers


@pytest.mark.parametrize(
    ("text", "part"), [("", ""), ("0,", ""), ("a", "a"), ("3-1", "3-1"), ("1,-2", "-2"), ("p0", "p0")]
)
def test_wrong_partitions_name_the_wrong_part(text: str, part: str) -> None:
    """Of a list of partitions too."""
    with pytest.raises(InvalidBoundError, match=re.escape(f"{part!r} is not of the form 0,3,5-7")):
        parse_partitions(text)


TYPED = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="0123456789-:p,.+TZWsmhdw \n", max_size=40),
    st.from_regex(r"p?\d{1,7}:\d{0,19}-\d{0,19}(,p?\d{1,7}:\d{0,19}-\d{0,19}){0,3}", fullmatch=True),
    st.from_regex(r"\d{1,14}(\.\d{0,4})?[smhdw]?", fullmatch=True),
    st.datetimes(timezones=st.none() | st.timezones()).map(datetime.isoformat),
)


@pytest.fixture
def _far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine's own zone is 14 hours east."""
    monkeypatch.setenv("TZ", "<+14>-14")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_far_east")
def test_the_machines_own_zone_means_nothing() -> None:
    """The same words are the same range on an operator's laptop and in the cluster."""
    for text, ms in MOMENTS:
        assert parse_from(text, NOW_MS) == At(ms), text
    assert iso(SIX_MS) == "2026-11-25T06:00:00Z"


@given(TYPED)
@example("9999-12-31T23:59:59.999999")
@example("0001-01-01T00:00+23:59")
@example("\ud800")
def test_no_text_ends_in_a_traceback(text: str) -> None:
    """Any text is a bound that is neither in the future nor before 1970, or an InvalidBoundError with a message."""
    for parse in (parse_from, parse_to):
        try:
            found = parse(text, NOW_MS)
        except InvalidBoundError as error:
            assert str(error)  # noqa: PT017 - either is right
        else:
            assert not isinstance(found, At) or 0 <= found.ms <= NOW_MS
    try:
        assert parse_partitions(text)
    except InvalidBoundError as error:
        assert str(error)  # noqa: PT017 - either is right


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2026, 11, 24)),  # noqa: DTZ001 - made aware below
    st.integers(-23 * 60, 23 * 60),
)
def test_a_zone_moves_no_moment(moment: datetime, zone_min: int) -> None:
    """The same moment in any zone, and in UTC without one, is the same bound."""
    aware = moment.replace(tzinfo=UTC)
    there = aware.astimezone(timezone(timedelta(minutes=zone_min)))
    whole = (aware - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1)
    found = parse_from(there.isoformat(), NOW_MS)
    assert found == parse_from(moment.isoformat(), NOW_MS)
    assert isinstance(found, At)
    assert abs(found.ms - whole) <= 0.5


@given(st.dictionaries(st.integers(0, 999_999), st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1))
def test_offsets_written_are_offsets_read(asked: dict[int, tuple[int, int]]) -> None:
    """Whatever offsets are typed are the ones that are meant."""
    typed = ",".join(f"p{number}:{first}-{first + more}" for number, (first, more) in asked.items())
    expected = {number: (first, first + more + 1) for number, (first, more) in asked.items()}
    assert parse_from(typed, NOW_MS) == Offsets(expected)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (SIX_MS + 999, "2026-11-25T06:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (SIX_MS * 1000, f"{SIX_MS * 1000} ms since 1970"),  # a producer that took microseconds
        (10**18, f"{10**18} ms since 1970"),
        (-(10**18), f"-{10**18} ms since 1970"),
    ],
)
def test_any_time_of_a_record_can_be_shown(ms: int, text: str) -> None:
    """A report never fails over what a producer has set as its record's time."""
    assert iso(ms) == text


@pytest.mark.parametrize(
    ("text", "at"),
    [("today", "2026-11-26T00:00:00Z"), ("yesterday", "2026-11-25T00:00:00Z")],
)
@pytest.mark.parametrize("now", ["2026-11-26T00:00", "2026-11-26T00:00:01", "2026-11-26T23:59:59"])
def test_days_begin_at_midnight_utc(text: str, at: str, now: str) -> None:
    """Also a millisecond after it: a CronJob that asks from yesterday to today has no gap between two nights."""
    now_ms = round(datetime.fromisoformat(f"{now}+00:00").timestamp() * 1000)
    found = parse_from(text, now_ms)
    assert isinstance(found, At)
    assert (iso(found.ms), parse_to(text, now_ms)) == (at, found)
