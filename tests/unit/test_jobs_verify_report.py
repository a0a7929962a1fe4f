"""What verify says at its end: the same in words, in JSON and by its exit code."""

import itertools
import json
from collections.abc import Iterable

import pytest

from services.uploader.jobs.bucket.checker import Requests
from services.uploader.jobs.bucket.comparison import Expected, Finding
from services.uploader.jobs.span import Gone, Span
from services.uploader.jobs.verify.report import KEPT, Faults, Verification, entry_of, shown
from services.uploader.jobs.verify.verifier import Counts, Fault

TEMPLATE = "{folder}/{id}"


def fault(offset: int, finding: Finding | None = Finding.MISSING, partition: int = 0) -> Fault:
    return Fault(
        Expected(partition, offset, f"f/{offset}", f"id-{offset}", 1, "", ""), finding, "there is no such object"
    )


def verification(
    *,
    counts: Counts | None = None,
    faults: Faults | None = None,
    gone: Iterable[Gone] = (),
    failed: str = "",
    dead: dict[tuple[int, int], str] | None = None,
) -> Verification:
    return Verification(
        topic="payloads",
        topic_id="an id",
        bucket="bucket",
        key_template=TEMPLATE,
        spans=(Span(0, 10, 20), Span(1, 5, 5)),
        gone=tuple(gone),
        counts=counts or Counts(records=10, same=10),
        faults=faults or Faults({}),
        dead=dead or {},
        requests=Requests(heads=3, gets=1, lists=2),
        seconds=4.0,
        failed=failed,
    )


def test_the_exit_code_is_the_worst_that_is_sure() -> None:
    """1 as soon as anything is missing or different, whatever else; 2 where it could not be told of all; else 0.

    Over every combination. A range of which a part is gone proves nothing, and nor does an end that was not reached.
    """
    lost = [Gone(0, 0, 10)]
    for missing, different, unknown, gone, gone_later, failed in itertools.product((0, 1), repeat=6):
        counts = Counts(10, missing=missing, different=different, unknown=unknown, gone=lost * gone_later)
        one = verification(counts=counts, gone=lost * gone, failed="gave up" * failed)
        expected = 1 if missing or different else 2 if unknown or gone or gone_later or failed else 0
        assert one.exit_code == expected
        assert one.document()["result"] == ("all there", "not all there", "could not tell")[expected]
        assert (
            one.text().splitlines()[-1]
            == (
                "all there: every record in range is in S3, with its bytes",
                "not all there",
                "could not tell of every record in range",
            )[expected]
        )
        assert one.text().count("cut: ") == gone + gone_later
        assert ("gave up" in one.text().splitlines()) is bool(failed)


def test_the_table() -> None:
    """The range by its offsets, that it is closed, every count, and which questions told."""
    counts = Counts(10, 1000, 2, 3, 6, 1, 2, 1, listed=4)
    lines = verification(counts=counts).text().splitlines()
    assert lines[:4] == [
        "topic payloads against s3://bucket/{folder}/{id}",
        "  partition 0: offsets 10-19",
        "  partition 1: nothing",
        "  (closed when the command began: what was written later is not in it)",
    ]
    assert [line.rsplit(maxsplit=1) for line in lines[4:11]] == [
        ["  records", "10"],
        ["  same", "6"],
        ["  missing", "1"],
        ["  different", "2"],
        ["  unknown", "1"],
        ["  tombstones", "2"],
        ["  passed over", "3"],
    ]
    assert lines[-2] == "4 records told by 2 listings, the others by 3 HEADs and 1 GETs, in 4 s"


def test_the_document_has_the_same() -> None:
    """For scripts: every count, the ranges, and each fault as a line of the file."""
    faults = Faults({0: 15})
    for one in (fault(12), fault(17, Finding.DIFFERENT), fault(18, None)):
        faults.add(one)
    counts = Counts(10, 1000, 2, 3, 6, 1, 1, 1, listed=4)
    document = json.loads(shown(verification(counts=counts, faults=faults, dead={(0, 17): "too_large"}), "json"))
    assert document["ranges"] == {"0": {"begin": 10, "end": 20}, "1": {"begin": 5, "end": 5}}
    names = ("records", "bytes", "tombstones", "passed_over", "same", "missing", "different", "unknown")
    assert [document[name] for name in names] == [10, 1000, 2, 3, 6, 1, 1, 1]
    assert (document["told_by_listings"], document["not_committed_by_the_group"]) == (4, 0)  # 12 is missing, of 15
    assert "17: " not in shown(verification(), "text")
    entry = {
        "topic": "payloads",
        "topic_id": "an id",
        "partition": 0,
        "offset": 12,
        "id": "id-12",
        "key": "f/12",
        "finding": "missing",
        "why": "there is no such object",
    }
    assert entry_of("payloads", "an id", fault(12)) == entry
    told = str(document)
    assert all(str(each) in told for each in (entry, "'dead_letter': 'too_large'", "'finding': 'unknown'"))


@pytest.mark.parametrize(("count", "more"), [(1, 0), (20, 0), (21, 1), (KEPT, KEPT - 20), (KEPT + 5, KEPT - 15)])
def test_a_terminal_names_the_first_and_counts_the_rest(count: int, more: int) -> None:
    """No fault is lost from the count, however many there are; memory keeps KEPT of them."""
    faults = Faults({})
    for offset in range(count):
        faults.add(fault(offset))
    assert (len(faults.kept), faults.dropped) == (min(count, KEPT), max(0, count - KEPT))
    lines = verification(counts=Counts(count, missing=count), faults=faults).text().splitlines()
    assert sum(line.startswith("missing: partition 0 offset ") for line in lines) == min(count, 20)
    assert [line for line in lines if line.startswith("...")] == (
        [f"... and {more} more; --missing-to FILE has them all"] if more else []
    )


def test_what_the_live_group_has_not_stored_yet_is_told_apart() -> None:
    """From its commit on it has not said that a record is stored; a group without a commit is not behind."""
    faults = Faults({0: 15})
    for one in (fault(14), fault(15), fault(16), fault(99, partition=1)):
        faults.add(one)
    assert faults.not_yet == 2
    assert "2 of the missing are not committed by the live group yet" in verification(faults=faults).text()
    assert "live group" not in verification(faults=Faults({})).text()


def test_a_dead_letter_is_named_with_its_fault() -> None:
    """The operator goes to `redrive` for it, not to `replay`."""
    faults = Faults({})
    faults.add(fault(12))
    line = "missing: partition 0 offset 12 f/12: there is no such object [a dead letter: too_large]"
    assert line in verification(faults=faults, dead={(0, 12): "too_large"}).text().splitlines()
