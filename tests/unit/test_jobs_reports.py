"""What replay and its dry run say: the same in words and in JSON, and never that all is there where it is not."""

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.jobs.replay.plan import Plan, Prices, Probe, make_plan
from services.uploader.jobs.replay.report import SHOWN, Report, plan_text, print_plan, print_report
from services.uploader.jobs.span import Gone, Range, Span
from services.uploader.jobs.storing.state import PartitionState, Progress, Purpose
from services.uploader.jobs.storing.tally import NotStored, Tally

PURPOSE = Purpose(bucket="payloads", key_template="{id}")
TEMPLATE = "{folder}/{id}"
PRICES = Prices(put=0.005, get=0.0004, list_=0.005, currency="USD", source="2025-01")


def state(
    settled: int = 100, *, not_stored: int = 0, first: int | None = None, gone: Iterable[Gone] = ()
) -> PartitionState:
    return PartitionState("t", 0, 100, settled, PURPOSE, not_stored, first, tuple(gone))


def report(
    *states: PartitionState,
    refused: Iterable[tuple[int, int]] = (),
    failed: str = "",
    resume: str | None = None,
) -> Report:
    tally = Tally(stored=3, stored_bytes=300, there=2, skipped=1, errors=4)
    tally.not_stored = [NotStored(number, at, "too_large", f"record {at} is too large") for number, at in refused]
    return Report(
        "outage-1",
        "payloads",
        "bucket",
        dict(enumerate(states)),
        tally,
        5,
        61.2,
        stopped=False,
        failed=failed,
        uncommitted=False,
        resume=resume,
    )


def test_a_complete_job_says_so() -> None:
    """And counts what it did, in words and in JSON alike."""
    done = report(state(), state())
    assert done.complete
    assert done.text() == (
        "job outage-1: 3 objects stored (300 bytes) in s3://bucket, 2 were there, 1 passed over, 5 tombstones, "
        "4 errors retried, in 1 min 01 s\ncomplete: every record in range is in S3"
    )
    expected = {
        "job": "outage-1",
        "topic": "payloads",
        "bucket": "bucket",
        "complete": True,
        "stopped": False,
        "failed": "",
        "resume": None,
        "seconds": 61.2,
        "stored": 3,
        "stored_bytes": 300,
        "already_there": 2,
        "passed_over": 1,
        "tombstones": 5,
        "errors_retried": 4,
        "not_stored": [],
        "not_stored_before": 0,
        "gone": [],
        "partitions": {"0": {"begin": 0, "end": 100, "settled": 100}, "1": {"begin": 0, "end": 100, "settled": 100}},
    }
    document = done.document()
    assert {name: document[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("left", "line"),
    [
        (report(state(), state(40), resume="replay --resume x"), "60 offsets are left; go on with: replay --resume x"),
        (
            report(state(not_stored=1, first=7), refused=[(0, 7)]),
            "  partition 0 offset 7: too_large: record 7 is too large",
        ),
        (
            report(state(), state(not_stored=2, first=7)),
            (
                "not stored by earlier runs of this job: 2, the first of them partition 1 offset 7; "
                "`spillway-uploader verify` names them all"
            ),
        ),
        (report(state(gone=[Gone(0, 5, 9)])), "cut: partition 0: offsets 5 to 8 are gone from Kafka"),
        (report(state(), failed="gave up after 300 s"), "gave up after 300 s"),
    ],
)
def test_whatever_is_not_stored_is_said(left: Report, line: str) -> None:
    """And then nothing says that the job is complete: not the words, not the JSON."""
    assert line in left.text().splitlines()
    assert not left.complete
    assert "complete:" not in left.text()
    assert left.document()["complete"] is False


def test_each_record_is_named_once() -> None:
    """A session that began anew has met them again; they come in order; a terminal shows the first of them."""
    met = [(1, 9), (0, 3), (1, 9), (0, 3), (0, 1)]
    left = report(state(not_stored=2, first=1), state(not_stored=1, first=9), refused=met)
    assert [(one.partition, one.offset) for one in left.not_stored] == [(0, 1), (0, 3), (1, 9)]
    assert left.not_stored_before == 0
    many = report(state(not_stored=50, first=0), refused=[(0, at) for at in range(50)])
    assert sum("too_large" in line for line in many.text().splitlines()) == SHOWN
    assert "not stored, S3 can never take them: 50" in many.text()
    assert len(many.document()["not_stored"]) == 50  # type: ignore[arg-type]


@given(st.sets(st.integers(0, 99)), st.integers(0, 100), st.integers(0, 100))
def test_runs_share_the_count_of_what_was_not_stored(refused: set[int], killed_at: int, stopped_at: int) -> None:
    """What earlier runs have met, and this one, is all there is below the commit; nothing is counted by both.

    A run meets more than its commit passes; that comes again with the next run, and is not of an earlier one.
    """
    killed_at, stopped_at = sorted((killed_at, stopped_at))
    before = Progress(state(0), refused=refused).at(killed_at)
    met = {offset for offset in refused if offset >= killed_at}
    after = Progress(before, refused=met).at(stopped_at)
    left = report(after, refused=[(0, offset) for offset in met])
    assert left.not_stored_before == len([offset for offset in refused if offset < killed_at])
    assert len(left.not_stored) == len(met)
    assert left.complete == (stopped_at == 100 and not refused)


def test_a_job_that_had_ended_before_claims_nothing_new() -> None:
    """It has looked at nothing: that its records are in S3 was true then."""
    again = replace(report(state()), ended_before=True)
    assert "complete:" not in again.text()
    assert "had ended before, and did nothing now" in again.text()
    assert again.document()["ended_before"] is True


def test_the_answer_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """In JSON it is one document and nothing else."""
    done = report(state(gone=[Gone(0, 5, 9)]), refused=[(0, 7)])
    print_report(done, "json")
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(done.document()))
    print_report(done, "text")
    assert capsys.readouterr() == (done.text() + "\n", "")


# -- the dry run

CLOSED = Range("payloads", (Span(0, 10, 20), Span(1, 5, 5)), (Gone(0, 0, 10, since_ms=0),))
PROBE = Probe(10, 9, 8, 800, 100.0, missing=2, asked=8)


def plan(probe: Probe, offsets: int = 10) -> Plan:
    return make_plan(offsets, probe, PRICES, only_missing=True, rate_per_s=None)


def test_the_plan_in_words() -> None:
    """Offsets as they are typed, the first record's time, the cut, requests, cost, time; and that it did nothing."""
    text = plan_text(CLOSED, {0: 60_000}, plan(PROBE), PROBE, PRICES, TEMPLATE, "bucket").splitlines()
    assert text == [
        "topic payloads -> s3://bucket/{folder}/{id}",
        "partition  offsets                first record",
        "        0  10-19                  1970-01-01T00:01:00Z",
        "        1  nothing                -",
        (
            "WARNING, the range is cut: partition 0: offsets 0 to 9 are gone from Kafka: what of them was written "
            "since 1970-01-01T00:00:00Z cannot be read any more"
        ),
        "8 records, 800 bytes: 2 PUTs and 8 HEADs, 0.0000 USD (prices of 2025-01)",
        "time: about 0 s (S3 answered 8 HEADs at 100/s; 2 of these objects are missing or different)",
        "nothing was written",
    ]


def test_an_estimate_is_called_one() -> None:
    """Where the probe did not read all, and where it could not ask."""
    text = plan_text(CLOSED, {}, plan(PROBE, 1000), PROBE, PRICES, TEMPLATE, "bucket")
    assert "about 800 records, 80000 bytes: about 200 PUTs and 800 HEADs, 0.0013 USD" in text
    assert "time: about 10 s" in text  # (200 + 800) / 100
    unasked = Probe(10, 9, 8, 800)
    assert "time: not known" in plan_text(CLOSED, {}, plan(unasked), unasked, PRICES, TEMPLATE, "bucket")


def test_a_time_that_no_calendar_has_stops_no_plan() -> None:
    """A producer that sets microseconds."""
    microseconds = 1_795_586_400_000_000
    text = plan_text(CLOSED, {0: microseconds}, plan(PROBE), PROBE, PRICES, TEMPLATE, "bucket")
    assert f"{microseconds} ms since 1970" in text


def test_the_plan_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The same figures, one document."""
    print_plan(CLOSED, {0: 60_000}, plan(PROBE), PROBE, PRICES, TEMPLATE, "bucket", "json")
    document = json.loads(capsys.readouterr().out)
    assert document["partitions"] == [
        {"partition": 0, "begin": 10, "end": 20, "first_ms": 60_000},
        {"partition": 1, "begin": 5, "end": 5, "first_ms": None},
    ]
    assert (document["records"], document["puts"], document["heads"], document["exact"]) == (8, 2, 8, True)
    assert (document["currency"], document["prices_of"], len(document["gone"])) == ("USD", "2025-01", 1)
    print_plan(CLOSED, {}, plan(PROBE), PROBE, PRICES, TEMPLATE, "bucket", "text")
    assert capsys.readouterr().out == plan_text(CLOSED, {}, plan(PROBE), PROBE, PRICES, TEMPLATE, "bucket") + "\n"


def test_the_exit_code_is_the_reports() -> None:
    """A run that failed is none that is complete, also with everything settled: it may have read another topic."""
    assert report(state(), state()).exit_code == 0
    assert report(state(), failed="the topic was made anew").exit_code == 1
    assert report(state(), refused=[(0, 3)]).exit_code == 1
    assert replace(report(state(), resume="..."), stopped=True).exit_code == 130
    assert replace(report(state(), failed="it ended early"), stopped=True).exit_code == 1
