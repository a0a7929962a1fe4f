"""The judge is judged: each way to break the promise is seen, and nothing else is."""

from dataclasses import dataclass

import pytest

from tests.harness.oracle import Answers, Logged, Sample, ahead_of_store, judge, missing, rewinds


@dataclass(frozen=True)
class Object:
    """One version of a key."""

    body: bytes
    sequence: int = 1


def told() -> Answers:
    """Two payloads accepted, one refused, one unknown."""
    answers = Answers(refused={b"refused"}, unknown={b"unknown"})
    answers.accept(["id-0", "id-1"], [b"zero", b"one"])
    return answers


KEPT = {"f/id-0": [Object(b"zero")], "f/id-1": [Object(b"one")]}


@pytest.mark.parametrize(
    ("versions", "faults"),
    [
        (KEPT, set()),
        ({**KEPT, "f/id-1": [Object(b"one"), Object(b"one")]}, set()),  # the same body again is harmless
        ({**KEPT, "f/id-2": [Object(b"unknown")]}, set()),  # a 504 that was written after all
        ({"f/id-0": [Object(b"zero")]}, {"lost"}),
        ({**KEPT, "f/id-1": [Object(b"zero")]}, {"wrong_bytes"}),
        ({**KEPT, "f/id-1": [Object(b"one"), Object(b"x")]}, {"wrong_bytes", "changed"}),
        ({**KEPT, "g/id-1": [Object(b"one")]}, {"second_key"}),
        ({**KEPT, "f/id-2": [Object(b"refused")]}, {"refused_but_stored"}),
        ({**KEPT, "f/id-2": [Object(b"nobody's")]}, {"strangers"}),
    ],
)
def test_each_broken_promise_has_its_name(versions: dict[str, list[Object]], faults: set[str]) -> None:
    """The verdict names what is wrong, by kind, and nothing that is right."""
    assert judge(told(), versions).faults.keys() == faults


def test_an_id_given_twice_is_seen() -> None:
    """Two answers with one id would hide a lost payload behind the other."""
    answers = told()
    answers.accept(["id-1"], [b"other"])
    assert "repeated_ids" in judge(answers, KEPT).faults


def test_missing_counts_ids_without_an_object() -> None:
    """What is polled while a backlog drains is the count of ids, under whatever key."""
    assert missing(told(), {"any/where/id-1": [Object(b"one")]}) == 1


LOG = [Logged(0, 0, "a"), Logged(0, 1, "b"), Logged(0, 4, None), Logged(0, 5, "c"), Logged(1, 0, "d")]
WRITES = {  # a is written first, then c, then a again, then b; d never
    "f/a": [Object(b"", 1), Object(b"", 3)],
    "f/c": [Object(b"", 2)],
    "f/b": [Object(b"", 4)],
}


@pytest.mark.parametrize(
    ("partition", "committed", "writes", "ahead"),
    [
        (0, 0, 0, False),  # nothing is said to be stored
        (0, 1, 1, False),  # a, by write 1
        (0, 1, 0, True),  # a, before any write
        (0, 2, 3, True),  # b comes with write 4
        (0, 6, 3, True),  # c is there, b below it is not: the highest instead of the contiguous
        (0, 6, 4, False),  # a tombstone and holes need no write
        (0, 9, 4, False),  # past the last record, behind markers
        (1, 1, 4, True),  # d was never written
    ],
)
def test_a_commit_past_what_the_store_holds_is_seen(partition: int, committed: int, writes: int, ahead: bool) -> None:
    """A commit is held against the writes up to that moment, not against the end of the test."""
    found = ahead_of_store([Sample({partition: committed}, writes)], LOG, WRITES)
    assert bool(found) == ahead, found


def test_a_dead_letter_needs_no_object() -> None:
    """What the test expects in the dead-letter topic is neither lost nor a reason to hold the commit."""
    assert ahead_of_store([Sample({1: 1}, 4)], LOG, WRITES, dead={"d"}) == []
    assert judge(told(), {"f/id-0": [Object(b"zero")]}, dead={"id-1"}).faults == {}


@pytest.mark.parametrize(
    ("commits", "rewound"),
    [
        ([{0: 1}, {0: 1, 1: 5}, {0: 2, 1: 5}], False),
        ([{0: 3}, {}, {0: 1}], False),  # the group was gone in between
        ([{0: 3, 1: 4}, {0: 4, 1: 3}], True),
    ],
)
def test_a_commit_that_goes_back_is_seen(commits: list[dict[int, int]], rewound: bool) -> None:
    """Who commits under another's generation rewinds him."""
    assert bool(rewinds([Sample(committed, 0) for committed in commits])) == rewound
