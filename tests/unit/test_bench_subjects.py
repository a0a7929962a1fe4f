"""What a benchmark's subject is by its name, what a peer says of itself, and when a run has no figure."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.drains import Backlog, checksum_of, drain
from bench.peer import read
from bench.rounds import Context, headline_drain
from bench.runs import Run, fill, judge, measure
from bench.scenarios import SCENARIOS, Kind
from bench.stand import Load
from bench.subjects import Form, Subject, form_of


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("ours", Form("wire")),
        ("ours-aiobotocore", Form("aiobotocore")),
        ("ours-ingest", Form("wire", uploaders=0)),
        ("ours-uploader", Form("wire", ingests=0)),
        ("ours-uploader-tls", Form("wire", tls=True, ingests=0)),
        ("ours-aiobotocore-uploader-tls", Form("aiobotocore", tls=True, ingests=0)),
        ("ours-2-ingest", Form("wire", ingests=2)),
        ("ours-2-uploaders", Form("wire", uploaders=2)),
        ("go-seed", None),
    ],
)
def test_a_name_says_which_form_runs(name: str, form: Form | None) -> None:
    """The client, TLS, and how many processes of each tier."""
    assert form_of(name) == form


def test_every_form_of_ours_is_told_from_the_others() -> None:
    """No two names of the scenarios mean the same."""
    names = {name for s in SCENARIOS for case in s.cases for name in case.subjects if name.startswith("ours")}
    assert len({form_of(name) for name in names}) == len(names)


def test_placeholders_are_filled_everywhere(tmp_path: Path) -> None:
    """In command, environment and addresses; what is not known stays."""
    folder = tmp_path / "some"
    folder.mkdir()
    document = {
        "roles": ["end_to_end"],
        "command": ["${BUILD_DIR}/it", "${OTHER}"],
        "env": {"PORT": "${PORT}"},
        "ready_url": "http://127.0.0.1:${PORT}/livez",
        "ingest_url": "http://127.0.0.1:${PORT}/x",
    }
    (folder / "peer.json").write_text(json.dumps(document))
    peer = read(folder).filled({"PORT": "80", "BUILD_DIR": "/b"})
    assert (peer.name, peer.command, peer.environment) == ("some", ("/b/it", "${OTHER}"), {"PORT": "80"})
    assert (peer.ready_url, peer.ingest_url) == ("http://127.0.0.1:80/livez", "http://127.0.0.1:80/x")
    assert not peer.keeps_bytes


REPORT: dict[str, Any] = {"payloads": 4, "errors": {}, "checksum": "abc"}
STATS = {"keys": 4, "puts": 4, "changed": 0, "checksum": "abc"}
OURS = Subject("ours", "", counted=True, keeps_bytes=True, stores=True)
DECODES = Subject("go-seed", "", counted=False, keeps_bytes=False, stores=True)
INGEST = Subject("ours-ingest", "", counted=True, keeps_bytes=True, stores=False)


@pytest.mark.parametrize(
    ("subject", "report", "stats", "reason"),
    [
        (OURS, {}, {}, ""),
        (OURS, {"errors": {"status 503": 1}}, {}, "status 503"),
        (OURS, {"payloads": 3}, {}, "3 of 4"),
        (OURS, {}, {"keys": 3}, "3 objects"),
        (OURS, {}, {"keys": 5}, "5 objects"),
        (OURS, {}, {"puts": 5}, "5 puts for 4"),  # the same body again: work that no fault called for
        (OURS, {}, {"changed": 1}, "another body"),
        (OURS, {}, {"checksum": "abd"}, "checksum"),
        (DECODES, {}, {"checksum": "abd"}, ""),  # it writes JSON anew: other bytes are its nature
        (DECODES, {}, {"keys": 3}, "3 objects"),
        (INGEST, {}, {"keys": 0}, ""),
        (INGEST, {"payloads": 3}, {}, "3 of 4"),
    ],
)
def test_what_is_lost_or_changed_is_no_figure(
    subject: Subject, report: dict[str, Any], stats: dict[str, Any], reason: str
) -> None:
    """Acknowledged payloads, distinct objects and their bytes have to agree."""
    stand = cast("Any", SimpleNamespace(stats=lambda: {**STATS, **stats}))
    found = judge(stand, subject, Load(2, 2, 1024), {**REPORT, **report})
    assert reason in found
    assert bool(found) == bool(reason)


class Writing:
    """A topic that grows by so many records with each question, and a stand on which four payloads are acknowledged."""

    def __init__(self, records: int) -> None:
        self.asked, self.records = 0, records
        self.reset, self.infrastructure = lambda: None, dict

    def ends(self) -> dict[int, int]:
        """Of two partitions."""
        self.asked += 1
        return {0: 7, 1: self.asked * self.records}

    def post(self, *_: object, **__: object) -> dict[str, Any]:
        """All answered."""
        return {**REPORT, "cpu_s": 0.0}


@pytest.mark.parametrize(("records", "reason"), [(4, ""), (3, "3 records of 4"), (5, "5 records of 4")])
def test_ingest_that_answers_and_does_not_write_is_no_figure(records: int, reason: str) -> None:
    """As many records more in the topic as payloads were acknowledged."""
    writing = cast("Any", Writing(records))
    subject = Subject("prototype", "", counted=True, keeps_bytes=True, stores=False, topic=writing)
    found = measure(writing, subject, Load(2, 2, 1024), Run("s", "c", "prototype"))
    assert reason in found.failed
    assert bool(found.failed) == bool(reason)


@pytest.mark.parametrize(
    ("stats", "reason"),
    [
        ({}, ""),
        ({"keys": 3}, "3 of 4 objects"),
        ({"keys": 5}, "5 objects of 4"),
        ({"puts": 8}, "8 puts for 4"),
        ({"changed": 1}, "another body"),
        ({"checksum": "abd"}, "checksum is abd"),
    ],
)
def test_a_drain_that_stores_something_else_is_no_figure(
    monkeypatch: pytest.MonkeyPatch, stats: dict[str, Any], reason: str
) -> None:
    """The sink must hold the backlog, each record once and byte for byte; what is missing is waited for in vain."""
    monkeypatch.setattr("bench.runs._STALL_S", 0)
    nobody = Subject("ours-uploader", "", counted=False, keeps_bytes=True, stores=True)
    monkeypatch.setattr("bench.drains._started", lambda *_: nobody)
    found = {**STATS, **stats}
    stand = cast(
        "Any",
        SimpleNamespace(
            reset=lambda: None,
            stats=lambda: found,
            infrastructure=dict,
            children=SimpleNamespace(stop=lambda _: None),
        ),
    )
    run = drain(stand, Backlog(cast("Any", None), 4, "abc"), "ours-uploader", Run("s", "c", "ours-uploader"))
    assert reason in run.failed
    assert bool(run.failed) == bool(reason)


def test_a_minute_that_failed_is_not_drained() -> None:
    """A request without an answer may be in the topic or not: there is nothing to compare the objects with."""
    (scenario,) = [scenario for scenario in SCENARIOS if scenario.kind is Kind.HEADLINE]
    context = Context(cast("Any", None), cast("Any", None), scenario)
    minute = Run("headline", "1,000,000 requests", "ours-ingest", failed="unanswered at the deadline")
    found = headline_drain(context, scenario.cases[0], cast("Any", None), [minute])
    assert "not known" in found.failed


def test_every_subject_of_a_drain_has_its_backlog() -> None:
    """In whole collections of twenty, so that the number that is asked for is the number that is written."""
    for scenario in SCENARIOS:
        for case in scenario.cases:
            assert set(case.records) == (set(case.subjects) if scenario.kind is Kind.DRAIN else set())
            assert not [count for count in case.records.values() if count % 20]


def test_checksums_of_two_loads_are_the_sinks_of_both() -> None:
    """Unsigned 64 bits, which wrap around."""
    assert checksum_of(["ffffffffffffffff", "3"]) == "2"
    assert checksum_of(["a"]) == "a"


def test_a_run_counts_the_subjects_cpu_without_broker_and_sink() -> None:
    """1000 payloads, 2 s + 3 s of the tiers, 4 s beside them that are in no figure."""
    subject = Subject("ours", "", counted=True, keeps_bytes=True, stores=True, processes={"ingest": [], "uploader": []})
    run = Run("s", "c", "ours", payloads=1000, seconds=10.0)
    before = {"ingest": 1.0, "uploader": 1.0, "broker": 1.0}
    fill(run, subject, before, {"ingest": 3.0, "uploader": 4.0, "broker": 5.0})
    assert run.role_us == {"ingest": 2000, "uploader": 3000, "broker": 4000}
    assert run.cpu_us == pytest.approx(5000)


def test_a_failed_run_gets_no_figure() -> None:
    """Whatever it used."""
    run = Run("s", "c", "ours", payloads=10, seconds=1.0, failed="lost")
    fill(run, Subject("ours", "", counted=True, keeps_bytes=True, stores=True), {}, {})
    assert run.cpu_us is None
