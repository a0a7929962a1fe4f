"""Admission: bytes in flight are bounded, and `Retry-After` follows from the backlog."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.admission import RETRY_AFTER_MAX_S, Admission, Reservation


def test_what_does_not_fit_is_refused_and_takes_nothing() -> None:
    """At the bound a request is refused at once, and the next that fits is not."""
    admission = Admission(100)
    first, second = admission.open(), admission.open()
    assert first.take(60)
    assert not second.take(41)
    assert second.take(40)
    first.release()
    assert admission.in_flight_bytes == 40
    assert first.take(60)


def test_more_than_was_reserved_cannot_be_given_back() -> None:
    """A wrong book is an error and not a negative number."""
    reservation = Admission(100).open()
    reservation.take(10)
    with pytest.raises(ValueError, match="released 11 bytes of 10"):
        reservation.give_back(11)


def test_a_second_release_is_nothing() -> None:
    """Whoever ends a request may not know that another has ended it already."""
    admission = Admission(100)
    reservation = admission.open("a")
    reservation.take(10)
    reservation.release()
    reservation.release()
    assert (admission.in_flight_bytes, admission.held_bytes("a")) == (0, 0)


def test_who_is_alone_gets_what_it_asks_for() -> None:
    """A collection larger than the budget is never refused for ever; beside others it is."""
    admission = Admission(100)
    large, small = admission.open("a"), admission.open("b")
    assert large.take(150)
    assert not small.take(1)
    large.release()
    assert small.take(1)
    assert not large.take(150)


def test_one_token_leaves_room_for_others() -> None:
    """Whoever floods holds eight ninths of the budget, and another still finds what it needs."""
    admission = Admission(90_000)
    flood = [admission.open("flood") for _ in range(200)]
    assert sum(each.take(1000) for each in flood) == 80
    other = [admission.open("other") for _ in range(3)]
    assert all(each.take(1000) for each in other)


def test_two_floods_share() -> None:
    """The second takes its share as the first one's requests end: nobody keeps what it had first."""
    admission = Admission(170_000)
    held: dict[str, list[Reservation]] = {"a": [], "b": []}
    for turn in range(3000):
        for name, owned in held.items():
            if name == "b" and turn < 1000:
                continue
            reservation = admission.open(name)
            if reservation.take(1000):
                owned.append(reservation)
        if turn % 4 == 0:
            for owned in held.values():
                if owned:
                    owned.pop(0).release()
    assert min(map(len, held.values())) > 0.4 * sum(map(len, held.values()))
    assert admission.in_flight_bytes >= 0.9 * 170_000


def test_bytes_move_to_their_owner() -> None:
    """What was read before its token was known counts as the token's afterwards."""
    admission = Admission(100)
    reservation = admission.open("")
    reservation.take(30)
    reservation.belongs_to("a")
    assert (admission.held_bytes(""), admission.held_bytes("a"), admission.in_flight_bytes) == (0, 30, 30)
    reservation.release()
    assert admission.held_bytes("a") == 0


@given(st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.integers(1, 60), st.booleans()), max_size=60))
def test_the_bound_holds(steps: list[tuple[str | None, int, bool]]) -> None:
    """Whatever comes and goes, the sum is right, never over the bound, and nothing is left when all has gone."""
    admission = Admission(100)
    held: list[Reservation] = []
    for owner, size, end_one in steps:
        reservation = admission.open(owner)
        if reservation.take(size):
            held.append(reservation)
        if held and end_one:
            held.pop(0).release()
        assert admission.in_flight_bytes == sum(each.bytes for each in held) <= 100
    for each in held:
        each.release()
    assert admission.in_flight_bytes == admission.held_bytes("a") == admission.held_bytes("b") == 0


def test_retry_after_is_backlog_over_rate() -> None:
    """1,000 bytes a second drain, 3,500 are in flight: 3.5 s, said as 4."""
    admission = Admission(1_000_000)
    admission.sample(0.0)
    for second in range(1, 41):  # the rate is smoothed over 5 s: after 40 s it stands within 0.02 % of 1,000
        one = admission.open()
        one.take(1000)
        admission.acked(1000)
        one.release()
        admission.sample(float(second))
    assert admission.retry_after_s() == 1  # nothing is in flight
    admission.open().take(3500)
    assert admission.retry_after_s() == 4
    admission.open().take(500_000)
    assert admission.retry_after_s() == RETRY_AFTER_MAX_S


def test_retry_after_when_nothing_drains() -> None:
    """A backlog that does not move says the longest wait."""
    admission = Admission(1000)
    admission.sample(0.0)
    admission.open().take(500)
    admission.sample(1.0)
    assert admission.retry_after_s() == RETRY_AFTER_MAX_S
