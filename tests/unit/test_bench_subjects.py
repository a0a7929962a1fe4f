"""What a benchmark's subject is by its name, what a peer says of itself, and when a run has no figure."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.peer import read
from bench.runs import Run, fill, judge
from bench.scenarios import SCENARIOS
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
STATS = {"keys": 4, "changed": 0, "checksum": "abc"}
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
    found = judge(stand, subject, Load(2, 2, 1024), {**REPORT, **report}, records=4)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize("records", [0, 3, 5])
def test_what_is_not_in_the_topic_is_no_figure(records: int) -> None:
    """A 200 is a word: of one that ends in Kafka the topic holds as many records as payloads were acknowledged."""
    stand = cast("Any", SimpleNamespace(stats=lambda: STATS))
    assert judge(stand, INGEST, Load(2, 2, 1024), REPORT, records) == f"{records} records of 4 payloads"


def test_a_run_counts_the_subjects_cpu_without_broker_and_sink() -> None:
    """1000 payloads, 2 s + 3 s of the tiers, 4 s beside them; 10 % of a core for 10 s comes off: 5,000 - 1,000."""
    subject = Subject("ours", "", counted=True, keeps_bytes=True, stores=True, processes={"ingest": [], "uploader": []})
    run = Run("s", "c", "ours", payloads=1000, seconds=10.0)
    before = {"ingest": 1.0, "uploader": 1.0, "broker": 1.0}
    fill(run, subject, before, {"ingest": 3.0, "uploader": 4.0, "broker": 5.0}, idle=0.1)
    assert run.role_us == {"ingest": 2000, "uploader": 3000, "broker": 4000}
    assert run.cpu_us == pytest.approx(4000)


def test_a_failed_run_gets_no_figure() -> None:
    """Whatever it used."""
    run = Run("s", "c", "ours", payloads=10, seconds=1.0, failed="lost")
    fill(run, Subject("ours", "", counted=True, keeps_bytes=True, stores=True), {}, {}, 0.0)
    assert run.cpu_us is None
