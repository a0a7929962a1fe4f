"""What may be typed behind `replay` and `verify`, and what it means."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.cli import parse
from services.uploader.jobs.bounds import At, Beginning, Offsets
from services.uploader.jobs.options import (
    Bounds,
    Filter,
    bounds_of,
    filter_of,
    keys_of,
    positive,
    prefix_of,
)
from services.uploader.jobs.replay.request import GIVE_UP_AFTER_S, TYPED_MAX, ReplayRequest, request_of
from services.uploader.settings import UploaderSettings
from shared.record import Record

NOW_MS = round(datetime(2026, 11, 25, 9, tzinfo=UTC).timestamp() * 1000)
HOUR_MS = 3_600_000


def asked(*argv: str) -> ReplayRequest:
    return request_of(parse(["replay", *argv]), NOW_MS, "new-name", "payloads")


@pytest.fixture
def missing(tmp_path: Path) -> Path:
    path = tmp_path / "missing.jsonl"
    path.write_text(
        '{"topic": "payloads", "partition": 0, "offset": 7}\n{"partition": 2, "offset": 5}\n'
        '{"partition": 0, "offset": 3}\n'
    )
    return path


def test_the_least_that_can_be_asked() -> None:
    """A lower bound; all else is: all partitions, to the end, all records, everything put, S3_BUCKET, no limit."""
    assert asked("--from", "2h") == ReplayRequest(
        job="new-name",
        resume=False,
        bounds=Bounds(At(NOW_MS - 2 * HOUR_MS), None, None),
        typed="--from 2h",
        moves=True,
        partitions=None,
        file=None,
        filter=Filter(),
        only_missing=False,
        to_bucket=None,
        to_prefix="",
        rate_per_s=None,
        dry_run=False,
        give_up_after_s=GIVE_UP_AFTER_S,
    )


def test_the_most_that_can_be_asked() -> None:
    """Each option arrives where it belongs."""
    range_ = ("--from", "2026-11-25T06:00", "--to", "1h", "--partitions", "0,2-3")
    which = ("--folder", "a/b", "--id", "id-1", "--only-missing", "--rate", "12.5")
    where = ("--to-bucket", "new", "--to-prefix", "/back/up/", "--job", "outage-1", "--dry-run")
    request = asked(*range_, *which, *where, "--give-up-after", "7", "--output", "json")
    assert request == ReplayRequest(
        job="outage-1",
        resume=False,
        bounds=Bounds(At(NOW_MS - 3 * HOUR_MS), At(NOW_MS - HOUR_MS), frozenset({0, 2, 3})),
        typed="--from 2026-11-25T06:00 --to 1h",
        moves=True,  # 1h ago is another time later
        partitions=frozenset({0, 2, 3}),
        file=None,
        filter=Filter("a/b", "id-1"),
        only_missing=True,
        to_bucket="new",
        to_prefix="back/up",
        rate_per_s=12.5,
        dry_run=True,
        give_up_after_s=7.0,
    )


@pytest.mark.parametrize(
    ("argv", "bounds"),
    [
        (("--from", "beginning"), Bounds(Beginning(), None, None)),
        (("--from", "beginning", "--to", "now"), Bounds(Beginning(), At(NOW_MS), None)),
        (("--from", "p1:5-6,p0:-"), Bounds(Offsets({1: (5, 7), 0: (None, None)}), None, None)),
        (
            ("--from", "p1:5-6,p0:-", "--partitions", "1,4"),
            Bounds(Offsets({1: (5, 7), 0: (None, None)}), None, frozenset({1, 4})),
        ),
        (("--from", "000001001", "--to", "now"), Bounds(At(1_001_000), At(NOW_MS), None)),
    ],
)
def test_ranges(argv: tuple[str, ...], bounds: Bounds) -> None:
    """Of replay and of verify, which share them."""
    assert asked(*argv).bounds == bounds
    assert bounds_of(parse(["verify", *argv]), NOW_MS) == bounds


@pytest.mark.parametrize(
    ("argv", "moves"),
    [
        (("--from", "yesterday", "--to", "today"), True),
        (("--from", "1h", "--to", "2026-11-25T09:00"), True),
        (("--from", "2h"), True),
        (("--from", "2026-11-25"), True),  # to the end, which is another one later
        (("--from", "2026-11-25", "--to", "2026-11-25T03:00"), False),
        (("--from", "1795586400", "--to", "1795590000"), False),
        (("--from", "2h", "--to", "1h"), True),
        (("--from", "2026-11-25", "--to", "now"), True),
        (("--from", "beginning", "--to", "2026-11-25"), False),
        (("--from", "p0:1-5"), False),
        (("--from", "p0:-5"), False),
        (("--from", "p0:1-"), True),
        (("--from", "p0:1-5,p1:-"), True),
    ],
)
def test_words_that_mean_another_range_later(argv: tuple[str, ...], moves: bool) -> None:
    """A job that has ended is started again under its name only where the words still mean the same range."""
    assert asked(*argv).moves is moves


def test_a_file_names_its_records(missing: Path) -> None:
    """The range is that of its offsets, the last one included; what it was typed as is the file itself."""
    request = asked("--from-file", str(missing), "--partitions", "0,1", "--folder", "f", "--only-missing")
    assert request.bounds == Bounds(Offsets({0: (3, 8), 2: (5, 6)}), None, frozenset({0, 1}))
    assert request.file is not None
    assert request.file.offsets == {0: {3, 7}, 2: {5}}
    assert (request.typed, request.moves) == ("", False)


def test_resume_takes_what_is_of_the_run_alone(missing: Path) -> None:
    """Which partitions this process does, how fast, how long it waits, how it answers, and the file once more."""
    request = asked(
        "--resume", "outage-1", "--partitions", "3", "--rate", "5", "--give-up-after", "9", "--output", "json"
    )
    assert (request.job, request.resume, request.bounds) == ("outage-1", True, None)
    assert (request.partitions, request.rate_per_s, request.give_up_after_s) == (frozenset({3}), 5.0, 9.0)
    assert asked("--resume", "outage-1", "--from-file", str(missing)).file is not None


def test_a_range_of_a_thousand_words_still_fits_into_a_note() -> None:
    """What was typed is kept short, and two long ones that differ at their end stay different."""
    long = ",".join(f"p{number}:1-2" for number in range(1000))
    first, second = asked("--from", long).typed, asked("--from", long + ",p1000:1-2").typed
    assert max(len(first), len(second)) < TYPED_MAX
    assert first != second
    assert first == asked("--from", long).typed


@given(st.text(max_size=12))
def test_any_number_or_none(text: str) -> None:
    """A rate is a positive, finite number, or the option is wrong: nothing else."""
    try:
        assert 0 < positive(text) < 1e9
    except argparse.ArgumentTypeError as error:
        assert text in str(error)  # noqa: PT017 - either is right


# -- what the options mean


def record(record_id: str, folder: str | None = None) -> Record:
    return Record(
        topic="payloads",
        partition=0,
        offset=0,
        value=b"",
        id=record_id,
        folder=folder,
        version=None,
        received_ns=0,
        key_hours=0,
        foreign=False,
    )


@pytest.mark.parametrize(
    ("wanted", "record_id", "folder", "means"),
    [
        (Filter(), "a", None, True),
        (Filter(record_id="c-1"), "c-1", None, True),  # itself
        (Filter(record_id="c-1"), "c-1-0007", None, True),  # a payload of the collection
        (Filter(record_id="c-1"), "c-10", None, False),  # begins alike, and is another
        (Filter(record_id="c-1"), "c", None, False),
        (Filter(folder="a"), "x", "a", True),
        (Filter(folder="a"), "x", "a/b", False),
        (Filter(folder="a"), "x", "b", False),
        (Filter(folder="default"), "x", None, True),  # the record carries none: S3_FOLDER
        (Filter(folder="a"), "x", None, False),
        (Filter("a", "c-1"), "c-1", "a", True),
        (Filter("a", "c-1"), "c-1", "b", False),
        (Filter("a", "c-1"), "c-2", "a", False),
    ],
)
def test_filters(wanted: Filter, record_id: str, folder: str | None, means: bool) -> None:
    """Both must hold; an id means itself and the payloads of the collection with it."""
    assert wanted.means(record(record_id, folder), "default") is means
    assert wanted.all is (wanted == Filter())


def test_the_filter_of_verify_is_the_same() -> None:
    """What was compared is what is replayed."""
    argv = ("--from", "2h", "--folder", "f", "--id", "i")
    assert filter_of(parse(["verify", *argv])) == asked(*argv).filter == Filter("f", "i")


@pytest.mark.parametrize(("typed", "prefix"), [(None, ""), ("a", "a"), ("/a/b/", "a/b"), ("a=1/b.c", "a=1/b.c")])
def test_a_prefix_stands_before_every_key(typed: str | None, prefix: str) -> None:
    """With one slash between, and the keys themselves unchanged behind it."""
    arguments = parse(["verify", "--from", "2h", *(() if typed is None else ("--to-prefix", typed))])
    assert prefix_of(arguments) == prefix
    settings = UploaderSettings(s3_bucket="bucket")
    bare = keys_of(settings, "").key(record("id-1"))
    assert keys_of(settings, prefix).key(record("id-1")) == (f"{prefix}/{bare}" if prefix else bare)
