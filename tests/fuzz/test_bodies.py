"""Any body, over a real socket into a real topic: what Kafka holds is what was sent, or a 4xx says why not."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.bodies import broken, collections, mutate
from tests.fuzz.codings import CODINGS, pack, unpack
from tests.fuzz.reference import NOT_THE_CODING, Verdict, judge
from tests.fuzz.sizes import Sizes
from tests.fuzz.target import ITEMS_MAX, Target

_cuts = st.none() | st.lists(st.integers(0, 2**20), max_size=4)
_codings = st.sampled_from((None, None, *CODINGS))
_parts: st.SearchStrategy[list[int]] = st.just([]) | st.lists(st.integers(0, 2**20), max_size=3)


def fuzz(cases: int, ask: Callable[..., None], **drawn: st.SearchStrategy[Any]) -> None:
    """Ask so many cases; a failing one is made smaller."""
    limits = settings(max_examples=cases, database=None, suppress_health_check=list(HealthCheck), deadline=None)
    limits(given(cuts=_cuts, **drawn)(ask))()


def test_legal_collections(ingest: Target, sizes: Sizes, record_property: Callable[[str, object], None]) -> None:
    """JSON in any legal form, compressed or not, is answered 200 (beyond 500 levels perhaps 400), and the topic has
    exactly its bytes.
    """

    def ask(body: bytes, cuts: list[int] | None, coding: str | None, parts: list[int]) -> None:
        judgement = judge(body, ITEMS_MAX)
        sent = body if coding is None else pack(coding, body, parts)
        request_id, answer = ingest.post(sent, cuts, coding)
        ingest.hold(body, judgement, request_id, answer)

    before = ingest.answers.copy()
    fuzz(sizes.legal, ask, body=collections(), coding=_codings, parts=_parts)
    report(ingest, before, record_property)
    assert ingest.answers[200] - before[200] > sizes.legal * 0.7  # these are meant to be legal


def test_broken_collections(ingest: Target, sizes: Sizes, record_property: Callable[[str, object], None]) -> None:
    """Flipped, cut, doubled and inserted bytes: taken with exactly those bytes, or 400 with a place; the standard
    library says which.
    """
    verdicts = dict.fromkeys(Verdict, 0)

    def ask(body: bytes, cuts: list[int] | None) -> None:
        judgement = judge(body, ITEMS_MAX)
        verdicts[judgement.verdict] += 1
        request_id, answer = ingest.post(body, cuts)
        ingest.hold(body, judgement, request_id, answer)

    before = ingest.answers.copy()
    fuzz(sizes.broken, ask, body=broken)
    report(ingest, before, record_property)
    assert verdicts[Verdict.ACCEPT] > sizes.broken * 0.02  # mistakes inside of strings are none
    assert verdicts[Verdict.REFUSE] > sizes.broken * 0.3


def test_broken_compression(ingest: Target, sizes: Sizes, record_property: Callable[[str, object], None]) -> None:
    """Compressed bytes with mistakes: taken as what is in them all the same, or 400."""

    def ask(body: bytes, cuts: list[int] | None, coding: str, parts: list[int], seed: int) -> None:
        packed = mutate(pack(coding, body, parts), seed, 1)
        unpacked = unpack(coding, packed)
        judgement = NOT_THE_CODING if unpacked is None else judge(unpacked, ITEMS_MAX)
        request_id, answer = ingest.post(packed, cuts, coding)
        ingest.hold(packed, judgement, request_id, answer)

    before = ingest.answers.copy()
    seeds = st.integers(0, 2**32)
    fuzz(sizes.packed, ask, body=collections(), coding=st.sampled_from(CODINGS), parts=_parts, seed=seeds)
    report(ingest, before, record_property)


def test_the_topic_has_exactly_the_bytes_of_every_200(ingest: Target) -> None:
    """Of all the cases above: every payload answered 200, in order, under its id, and nothing of what was refused."""
    if not ingest.written:
        pytest.skip("no case was asked in this run")
    ingest.assert_all_written()
    ingest.assert_unharmed()


def report(ingest: Target, before: "dict[int, int]", record_property: Callable[[str, object], None]) -> None:
    asked = {status: count - before.get(status, 0) for status, count in sorted(ingest.answers.items())}
    record_property("fuzz", f"{sum(asked.values())} answers: " + ", ".join(f"{n}x {s}" for s, n in asked.items() if n))
