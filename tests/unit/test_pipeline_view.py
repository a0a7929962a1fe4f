"""What a look at the pipeline means (lag, retention, rates, the estimate, the warnings), and how it is shown."""

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from services.uploader.jobs.lag.document import document
from services.uploader.jobs.lag.look import Group, Look, Member, Oldest, PartitionLook, to_read
from services.uploader.jobs.lag.table import table, text
from services.uploader.jobs.lag.view import Drain, Pace, drain, duration, named, view_of

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
MEMBER = Member("m-1", "spillway-uploader", "10.0.0.7", (0, 1, 2, 3))


def look(*partitions: PartitionLook, clock_s: float = 100.0) -> Look:
    return Look(
        at_ms=NOW_MS,
        clock_s=clock_s,
        topic="payloads",
        topic_id="this",
        retention_ms=10 * HOUR_MS,
        by_size=False,
        group=Group("group", "Stable", (MEMBER,)),
        partitions=partitions,
    )


def at(
    committed: int | None, end: int, *, begin: int = 0, partition: int = 0, oldest: Oldest | None = None
) -> PartitionLook:
    return PartitionLook(partition, begin, committed, end, None, oldest)


@pytest.mark.parametrize(
    ("partition", "lag"),
    [
        (at(4, 10), 6),
        (at(10, 10), 0),
        (at(None, 10, begin=3), 7),  # from the beginning
        (at(2, 10, begin=3), 7),  # what retention took is no lag any more
        (at(12, 10, begin=3), 7),  # beyond the end: an uploader starts anew
        (replace(at(4, 10, begin=3), gone_id="another"), 7),  # not an offset of this topic
        (at(4, 10, oldest=Oldest(4, NOW_MS)), 6),
        (at(4, 10, oldest=Oldest(7, NOW_MS)), 3),  # 4, 5, 6 are holes
        (at(4, 10, oldest=Oldest(None)), 0),  # nothing but holes
    ],
)
def test_lag_in_records(partition: PartitionLook, lag: int) -> None:
    """From the first record that an uploader would store to the end."""
    assert view_of(look(partition), None).standings[0].lag_records == lag


@pytest.mark.parametrize(
    ("partition", "lag_s", "left_s"),
    [
        (at(10, 10), 0, 36_000),  # nothing waits: all of retention is left
        (at(4, 10, oldest=Oldest(None)), 0, 36_000),
        (at(4, 10, oldest=Oldest(4, NOW_MS - HOUR_MS)), 3600, 32_400),
        (at(4, 10, oldest=Oldest(4, NOW_MS - 11 * HOUR_MS)), 39_600, 0),  # it may be gone any moment
        (at(4, 10, oldest=Oldest(4, NOW_MS + 5000)), 0, 36_005),  # the broker's clock is ahead of ours
        (at(4, 10), None, None),  # not read
        (at(4, 10, oldest=Oldest(4)), None, None),  # a record without a time
    ],
)
def test_age_and_retention(partition: PartitionLook, lag_s: float | None, left_s: float | None) -> None:
    """The oldest record's age, and what retention leaves it; unknown is unknown, and not 0."""
    (found,) = view_of(look(partition), None).standings
    assert (found.lag_s, found.retention_left_s) == (lag_s, left_s)


def test_records_that_stay_for_ever_have_no_clock() -> None:
    """Also where the oldest is not known."""
    kept = replace(look(at(4, 10), at(10, 10, partition=1)), retention_ms=None)
    assert [each.retention_left_s for each in view_of(kept, None).standings] == [math.inf, math.inf]


@pytest.mark.parametrize(
    ("lag", "committed_per_s", "arriving_per_s", "expected"),
    [
        (0, None, None, Drain(Pace.DONE)),
        (5, None, 3.0, Drain(Pace.UNKNOWN)),
        (5, 3.0, None, Drain(Pace.UNKNOWN)),
        (6000, 120.0, 20.0, Drain(Pace.IN, 60.0)),  # 6000 / (120 - 20)
        (6000, 120.0, 0.0, Drain(Pace.IN, 50.0)),
        (6000, 20.0, 20.0, Drain(Pace.NEVER)),
        (6000, 20.0, 120.0, Drain(Pace.NEVER)),
        (5, 0.0, 0.0, Drain(Pace.NEVER)),  # nobody commits
        (300, 100.0, 101.0, Drain(Pace.KEEPS_UP)),  # 300 <= 100 x 3
        (301, 100.0, 101.0, Drain(Pace.NEVER)),
        (301, 100.0, 99.0, Drain(Pace.IN, 301.0)),
    ],
)
def test_the_estimate(lag: int, committed_per_s: float | None, arriving_per_s: float | None, expected: Drain) -> None:
    """Lag through the rate at which it shrinks."""
    assert drain(lag, committed_per_s, arriving_per_s) == expected


@pytest.mark.parametrize(
    ("before", "now", "rates"),
    [
        (at(100, 200), at(150, 210), (5, 1)),  # 50 and 10 in 10 s
        (at(None, 200), at(None, 200), (0, 0)),
        (at(None, 200, begin=20), at(50, 200, begin=20), (3, 0)),  # from the beginning: 30
        (at(None, 200), at(None, 210, begin=90), (0, 1)),  # retention moves the beginning: nothing was stored
        (at(100, 200), at(50, 200), (None, 0)),  # somebody has reset the group
        (at(100, 200), at(None, 200), (None, 0)),  # its commits are gone
        (at(100, 200), at(100, 150), (0, None)),
        (replace(at(150, 200), gone_id="another"), at(20, 200), (2, 0)),
        (at(20, 200), replace(at(20, 200), gone_id="another"), (None, 0)),
        (at(100, 200, partition=9), at(150, 200), (None, None)),
    ],
)
def test_rates(before: PartitionLook, now: PartitionLook, rates: tuple[float | None, float | None]) -> None:
    """Records between two looks through the seconds between them; what went backwards is unknown."""
    (found,) = view_of(look(now, clock_s=110.0), look(before)).standings
    assert (found.committed_per_s, found.arriving_per_s) == rates


def test_looks_at_two_topics_have_no_rates() -> None:
    """Nor do two at one moment, nor one alone."""
    now = look(at(150, 210), clock_s=110.0)
    for before in (replace(look(at(100, 200)), topic_id="another"), look(at(100, 200), clock_s=110.0), None):
        (found,) = view_of(now, before).standings
        assert (found.committed_per_s, found.arriving_per_s) == (None, None)


def test_the_total_hides_no_partition() -> None:
    """Sums of records; the oldest, the shortest and the slowest of the rest."""
    before = look(at(0, 1000), at(0, 1000, partition=1), at(0, 1000, partition=2))
    now = look(
        at(100, 1000, oldest=Oldest(100, NOW_MS - 60_000)),
        at(500, 1000, partition=1, oldest=Oldest(500, NOW_MS - 20_000)),
        at(1000, 1000, partition=2),
        clock_s=110.0,
    )
    total = view_of(now, before).total
    assert (total.lag_records, total.lag_s, total.retention_left_s) == (1400, 60, 35_940)
    assert (total.committed_per_s, total.arriving_per_s) == (160, 0)  # 10 + 50 + 100
    assert total.drain == Drain(Pace.IN, 90), "900 / 10: the sums would say 1400 / 160"
    stuck = replace(now, partitions=(replace(now.partitions[0], committed=0), *now.partitions[1:]))
    assert view_of(stuck, before).total.drain == Drain(Pace.NEVER)
    unread = replace(now, partitions=(replace(now.partitions[0], oldest=None), *now.partitions[1:]))
    total = view_of(unread, before).total
    assert (total.lag_s, total.retention_left_s) == (None, None), "the one not read may be the oldest"


@pytest.mark.parametrize(
    ("committed", "expected"),
    [
        ((1000, 1000), Pace.DONE),
        ((1000, 900), Pace.KEEPS_UP),  # 100 left at 90 a second
        ((900, 200), Pace.IN),  # 800 left at 20 a second
        ((0, 200), Pace.NEVER),
        ((0, None), Pace.NEVER),  # that one is unknown
        ((200, None), Pace.UNKNOWN),
    ],
)
def test_the_total_is_as_bad_as_its_worst_partition(committed: tuple[int | None, int | None], expected: Pace) -> None:
    """Done, keeps up, in a time, unknown, never: from best to worst."""
    first, second = committed
    before = look(at(0, 1000), at(0 if second is not None else 100, 1000, partition=1))
    now = look(at(first, 1000), at(second, 1000, partition=1), clock_s=110.0)
    assert view_of(now, before).total.drain.pace is expected


@pytest.mark.parametrize(
    ("seen", "warnings"),
    [
        (look(at(10, 10)), []),
        (
            look(at(3, 10, begin=7, oldest=Oldest(7, NOW_MS))),
            ["partition 0: retention took offsets 3 to 6 before they were committed (4 offsets)"],
        ),
        (replace(look(at(10, 10)), group=Group("group", "Empty")), ["no uploader is in the group"]),
        (
            replace(look(at(4, 10, oldest=Oldest(4, NOW_MS))), group=Group("group", "Empty")),
            ["no uploader is in the group, and 6 records wait"],
        ),
        (look(at(10, 10), at(10, 10, partition=4), at(10, 10, partition=5)), ["no member has partitions 4-5"]),
        (
            replace(
                look(at(10, 10, partition=4)),
                group=Group("group", "PreparingRebalance", (replace(MEMBER, partitions=()),)),
            ),
            [],  # they are about to be given
        ),
        (
            replace(look(at(10, 10)), leaderless=(2,)),
            ["partition 2 without a leader: nothing is known there, and nothing of it counted here"],
        ),
        (
            replace(look(at(4, 10)), unread="not allowed"),
            ["the oldest record of partition 0 could not be read in time: not allowed"],
        ),
    ],
)
def test_warnings(seen: Look, warnings: list[str]) -> None:
    """Each names what it is about, with exact offsets; a pipeline that is well has none."""
    assert list(view_of(seen, None).warnings) == warnings


def test_what_is_read() -> None:
    """One place in each partition that lags: where an uploader would start."""
    seen = (at(4, 10), at(10, 10, partition=1), at(2, 10, begin=3, partition=2), at(None, 0, partition=3))
    assert to_read(seen) == {0: (4, 10), 2: (3, 10)}


def test_the_document_is_json() -> None:
    """Infinity has no place in it, and what is unknown is null."""
    seen = replace(look(at(4, 10), at(10, 10, partition=1)), retention_ms=None)
    made = json.loads(json.dumps(document(view_of(seen, None)), allow_nan=False))
    assert [each["retention_left_seconds"] for each in made["partitions"]] == [None, None]
    assert made["partitions"][0]["lag_seconds"] is None
    assert (made["retention_ms"], made["total"]["drain"], made["total"]["lag_records"]) == (None, "unknown", 6)
    assert made["at"] == "2027-01-15T08:00:00Z"


def test_text_and_table_tell_the_same() -> None:
    """Every cell and every warning is in both; the text is aligned and of no width."""
    seen = view_of(look(at(4, 10, oldest=Oldest(4, NOW_MS - HOUR_MS)), at(None, 7, partition=9)), None)
    plain = text(seen)
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    console.print(table(seen, "no answer"))
    assert isinstance(console.file, io.StringIO)
    live = console.file.getvalue()
    rows = [line.split() for line in plain.splitlines()]
    assert ["0", "0", "4", "10", "6", "60", "min", "9.0", "h", "?", "?", "unknown"] in rows
    assert ["9", "0", "none", "7", "7", "?", "?", "?", "?", "unknown"] in rows
    widths = {len(line) for line in plain.splitlines()[2:6]}
    assert len(widths) == 1, "the heading, two partitions, the total"
    for line in plain.splitlines()[:1] + plain.splitlines()[3:]:  # their headings differ
        assert " ".join(line.split()) in " ".join(live.split())
    assert "no answer" in live
    assert "no answer" not in plain


def test_a_terminal_of_80_columns_is_wide_enough() -> None:
    """Offsets of six digits, a rate of thousands and the longest estimate: no number is cut."""
    seen = look(at(412_345, 998_877, begin=123_456, oldest=Oldest(412_345, NOW_MS - 100 * HOUR_MS)), clock_s=110.0)
    before = look(at(400_000, 900_000, begin=123_456))
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(table(view_of(seen, before)))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "…" not in shown
    assert all(each in shown for each in ("123456", "412345", "998877", "586532", "1234.5", "9887.7"))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "?"), (0.2, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (604_800, "7.0 d")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    """For people: one unit, two digits or so."""
    assert duration(seconds) == shown


def test_partitions_by_name() -> None:
    """Runs are drawn together."""
    assert [named(each) for each in ([3], [0, 1, 2, 5], [7, 6])] == [
        "partition 3",
        "partitions 0-2, 5",
        "partitions 6-7",
    ]
