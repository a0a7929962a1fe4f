"""What the status page says is so, in which order, and what it tells a person to do."""

import json
from dataclasses import replace
from typing import Any

import pytest

from services.uploader.errors import StoreFault
from services.uploader.jobs.lag.look import Group, Look, Member, Oldest, PartitionLook
from services.uploader.jobs.lag.view import PipelineView, view_of
from services.uploader.status import manual
from services.uploader.status.document import status_document
from services.uploader.status.findings import Finding, Level, findings
from services.uploader.status.seen import Observed, ProcessLook, S3State

NOW_MS = 1_800_000_000_000
NOW_S = NOW_MS / 1000
HOUR_MS = 3_600_000

CALM = ProcessLook(
    s3=S3State.TAKING,
    fault=None,
    silent_s=0.1,
    in_flight=3,
    in_flight_limit=512,
    reasons={},
    notes={},
    partitions=(0,),
    stalled={},
    stored=1000,
    dead_letters={},
    dead_letters_held=0,
    lost=0,
)
FAULT = StoreFault("slow_down", "503", NOW_S - 75, mend=False, failed_s=NOW_S, stored_s=None, stored_since=False)


def look(lag: int = 0, age_ms: int = 0, *, retention_ms: int | None = 100 * HOUR_MS, **changed: object) -> Look:
    """One partition: 100 committed, `lag` behind, the oldest of them `age_ms` old."""
    oldest = Oldest(100, NOW_MS - age_ms) if lag else None
    seen = Look(
        at_ms=NOW_MS,
        clock_s=100.0,
        topic="payloads",
        topic_id="this",
        retention_ms=retention_ms,
        by_size=False,
        group=Group("group", "Stable", (Member("m", "spillway-uploader", "10.0.0.7", (0,)),)),
        partitions=(PartitionLook(0, 0, 100, 100 + lag, oldest=oldest),),
    )
    return replace(seen, **changed)  # type: ignore[arg-type]


def pace(lag: int, age_ms: int, *, committed_before: int, end_before: int) -> PipelineView:
    """A look and one ten seconds before it."""
    before = look(partitions=(PartitionLook(0, 0, committed_before, end_before),), clock_s=90.0)
    return view_of(look(lag, age_ms), before)


def observed(view: PipelineView | None, **changed: object) -> Observed:
    return replace(Observed(view, 0.5, "", 0), **changed)  # type: ignore[arg-type]


def worst(process: ProcessLook, seen: Observed) -> Finding:
    return findings(process, seen, NOW_S)[0]


QUIET = observed(view_of(look(), None))
WAITING = observed(view_of(look(50, 75_000), None))

QUARTER = "A quarter of the retention is used"

TITLES: list[tuple[str, ProcessLook, Observed, Level, str]] = [
    ("nothing waits", CALM, QUIET, Level.WELL, "All payloads are in S3"),
    ("some wait, for less than five minutes", CALM, WAITING, Level.WELL, "Payloads are being stored"),
    ("nothing was seen yet", CALM, observed(None), Level.NOTE, "Looking at Kafka"),
    (
        "S3 sheds",
        replace(CALM, s3=S3State.FAILING, fault=FAULT),
        WAITING,
        Level.ATTENTION,
        "S3 does not take objects (slow_down)",
    ),
    (
        "S3 denies",
        replace(CALM, s3=S3State.FAILING, fault=replace(FAULT, reason="access_denied", mend=True)),
        WAITING,
        Level.ACT,
        "S3 does not take objects (access_denied)",
    ),
    (
        "S3 takes some",
        replace(CALM, s3=S3State.SHEDDING, fault=FAULT),
        WAITING,
        Level.ATTENTION,
        "S3 takes some objects and refuses others (slow_down)",
    ),
    ("S3 is silent", replace(CALM, s3=S3State.SILENT, silent_s=7), WAITING, Level.ATTENTION, "S3 does not answer"),
    ("S3 is back", replace(CALM, s3=S3State.RECOVERING, fault=FAULT), WAITING, Level.NOTE, "S3 takes objects again"),
    ("lost", replace(CALM, lost=7), QUIET, Level.ACT, "7 payloads are lost"),
    (
        "the poll failed",
        replace(CALM, reasons={"kafka": "KAFKA_BOOTSTRAP_SERVERS=k: gone"}),
        QUIET,
        Level.ACT,
        "Kafka does not answer",
    ),
    (
        "the look failed, the poll did not",
        CALM,
        replace(QUIET, trouble="no grant"),
        Level.ATTENTION,
        "The page cannot look at Kafka",
    ),
    (
        "a look hangs: what was well then is not known to be well now",
        CALM,
        replace(QUIET, age_s=15.1),
        Level.ATTENTION,
        "The page cannot look at Kafka",
    ),
    (
        "both failed",
        replace(CALM, reasons={"kafka": "k: gone"}),
        replace(QUIET, trouble="no answer"),
        Level.ACT,
        "Kafka does not answer",
    ),
    (
        "the look failed because the topic is gone",
        replace(CALM, reasons={"topic": "KAFKA_TOPIC=p is gone"}),
        replace(QUIET, trouble="p does not exist"),
        Level.ACT,
        "The topic is missing",
    ),
    ("no topic", replace(CALM, reasons={"topic": "KAFKA_TOPIC=p is gone"}), QUIET, Level.ACT, "The topic is missing"),
    ("held", replace(CALM, dead_letters_held=3), QUIET, Level.ACT, "3 payloads that S3 refuses wait"),
    (
        "letters of now",
        replace(CALM, dead_letters={"x": 2}),
        QUIET,
        Level.ATTENTION,
        "2 dead letters are in their topic",
    ),
    ("stalled", replace(CALM, stalled={3: "uploading"}), QUIET, Level.ACT, "Partition 3 stands still"),
    ("two stalled", replace(CALM, stalled={3: "memory", 4: "memory"}), QUIET, Level.ACT, "Partitions 3-4 stand still"),
    (
        "nobody is in the group",
        CALM,
        observed(view_of(look(group=Group("group", "Empty")), None)),
        Level.ATTENTION,
        "No uploader is in the group",
    ),
    # 25 of 100 h: the age three times is less than what is left at 24, and more at 26.
    ("24 of 100 h", CALM, observed(view_of(look(5, 24 * HOUR_MS), None)), Level.WELL, "Payloads are being stored"),
    ("26 of 100 h", CALM, observed(view_of(look(5, 26 * HOUR_MS), None)), Level.ATTENTION, QUARTER),
    # Half of it is used and 23 h are left; 25 h are a quarter's matter.
    ("25 h left", CALM, observed(view_of(look(5, 75 * HOUR_MS), None)), Level.ATTENTION, QUARTER),
    ("23 h left", CALM, observed(view_of(look(5, 77 * HOUR_MS), None)), Level.ACT, "The retention clock runs out"),
    (
        "kept for ever",
        CALM,
        observed(view_of(look(5, 77 * HOUR_MS, retention_ms=None), None)),
        Level.WELL,
        "Payloads are being stored",
    ),
    # 100 /s come in, 10 /s are stored, and the oldest is six minutes old.
    (
        "never",
        CALM,
        observed(pace(5000, 360_000, committed_before=0, end_before=4100)),
        Level.ATTENTION,
        "More comes in than is stored",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("process", "seen", "level", "title"), [row[1:] for row in TITLES], ids=[row[0] for row in TITLES]
)
def test_the_worst_comes_first(process: ProcessLook, seen: Observed, level: Level, title: str) -> None:
    """The headline is the worst that is so, at its level."""
    found = worst(process, seen)
    assert (found.level, found.title) == (level, title)


def test_it_catches_up() -> None:
    """5000 wait, 100 /s more are stored than come in: 50 s."""
    found = findings(CALM, observed(pace(5000, 60_000, committed_before=-900, end_before=5100)), NOW_S)
    assert [each.title for each in found if each.level is Level.NOTE] == ["Catching up: all stored in about 50 s"]


def test_an_outage_says_since_when_whose_turn_it_is_and_until_when_nothing_is_lost() -> None:
    """75 s ago; by itself; 100 h less 75 s, as the operator's page on it has them."""
    found = worst(replace(CALM, s3=S3State.FAILING, fault=FAULT), WAITING)
    assert found.text == (
        "Since 2027-01-15 07:58:45 UTC, for 75 s. It passes by itself. "
        "Nothing is lost: payloads wait in Kafka, the oldest for another 4.2 d at least."
    )


def test_what_s3_explains_is_said_once() -> None:
    """In an outage every partition stands still, and nothing drains: that is S3's finding, and no other."""
    outage = replace(CALM, s3=S3State.FAILING, fault=FAULT, stalled={0: "slow_down", 1: "slow_down"})
    assert [each.title for each in findings(outage, WAITING, NOW_S)] == ["S3 does not take objects (slow_down)"]


def test_a_partition_that_cannot_be_read_does_not_hide_the_clock_of_another() -> None:
    """Partition 0 has 23 h of 100 left; of partition 1 nobody can tell."""
    partitions = (
        PartitionLook(0, 0, 100, 105, oldest=Oldest(100, NOW_MS - 77 * HOUR_MS)),
        PartitionLook(1, 0, 100, 105),
    )
    found = worst(CALM, observed(view_of(look(partitions=partitions), None)))
    assert (found.level, found.title) == (Level.ACT, "The retention clock runs out")


def test_after_a_loss_nobody_says_that_nothing_is_lost() -> None:
    """An outage that has cost payloads already promises nothing of that kind."""
    outage = replace(CALM, s3=S3State.FAILING, fault=FAULT, lost=500)
    assert not any("Nothing is lost" in each.text for each in findings(outage, WAITING, NOW_S))


def test_a_loss_is_never_hidden_behind_an_outage() -> None:
    """Both are told, the loss first."""
    both = replace(CALM, s3=S3State.FAILING, fault=replace(FAULT, mend=True), lost=1, notes={"lost": "offsets 5 to 9"})
    found = findings(both, WAITING, NOW_S)
    assert [each.level for each in found] == [Level.ACT, Level.ACT, Level.ATTENTION]
    assert found[0].title == "1 payloads are lost"
    assert found[2].text == "offsets 5 to 9"


@pytest.mark.parametrize(("process", "seen"), [row[1:3] for row in TITLES], ids=[row[0] for row in TITLES])
def test_every_finding_can_be_shown_and_followed(process: ProcessLook, seen: Observed) -> None:
    """The document is JSON, and each page that a finding names is there."""
    document = json.loads(json.dumps(status_document(process, seen, NOW_S), allow_nan=False))
    assert document["findings"]
    for each in document["findings"]:
        assert each["level"] in {"well", "note", "attention", "act"}
        assert each["page"] is None or manual.page(each["page"]) is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"by_size": True},
        {"by_size": True, "retention_ms": None},
        {"retention_ms": HOUR_MS, "age_ms": 2 * HOUR_MS},
    ],
)
def test_nothing_is_promised_that_kafka_does_not_keep(changed: dict[str, Any]) -> None:
    """retention.bytes has no clock, and past the clock's end there is nothing to promise."""
    away = replace(CALM, s3=S3State.FAILING, fault=FAULT)
    view = view_of(look(10, **({"age_ms": 1000} | changed)), None)
    said = next(each for each in findings(away, observed(view), NOW_S) if each.page == "s3-is-away")
    assert "Nothing is lost" not in said.text
    assert "Payloads wait in Kafka, which may delete the oldest" in said.text
