"""The judge is judged: each way to break the promise is seen, and nothing else is."""

from dataclasses import dataclass

import pytest

from tests.harness.oracle import Answers, judge, missing


@dataclass(frozen=True)
class Object:
    """One version of a key."""

    body: bytes


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
