"""Several processes as one: who is late, when the whole is ready, what follows an end, how figures add up."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from services.ingest.workers.care import (
    LATE_LOOKS,
    START_LOOKS,
    WEDGED_LOOKS,
    Again,
    End,
    GiveUp,
    Standing,
    after,
    conditions,
    is_wedged,
    late,
)
from services.ingest.workers.figures import MemberCollector, Tally
from services.ingest.workers.report import (
    FRAME_BYTES_MAX,
    HEAD_BYTES,
    body_bytes,
    families,
    framed,
    parsed,
    report,
)
from shared.ops import Readiness


def standing(number: int, *, listening: bool = True, unanswered: int = 0, **reasons: str) -> Standing:
    held = {"kafka": "kafka" not in reasons, "topic": "topic" not in reasons}
    return Standing(number, 100 + number, listening, unanswered, held, reasons)


AWAY = "no broker answers"


@pytest.mark.parametrize(
    ("standings", "failing"),
    [
        ([standing(0), standing(1)], {}),
        # One that does not listen gets no connection: it neither makes the whole ready nor keeps it from being so.
        ([standing(0), standing(1, listening=False, kafka="starting")], {}),
        ([standing(0)], {}),
        ([], {"workers": "none of 2 workers takes connections yet"}),
        ([standing(0, listening=False)], {"workers": "none of 2 workers takes connections yet"}),
        # One that listens and cannot serve gets its share of the connections.
        ([standing(0, kafka=AWAY), standing(1)], {"kafka": f"worker 0: {AWAY}"}),
        ([standing(0, kafka=AWAY), standing(1, kafka=AWAY)], {"kafka": f"worker 0, 1: {AWAY}"}),
        ([standing(0, kafka=AWAY), standing(1, kafka="x")], {"kafka": f"worker 0: {AWAY}; worker 1: x"}),
        ([standing(0), standing(1, unanswered=LATE_LOOKS - 1)], {}),
        (
            [standing(0), standing(1, unanswered=LATE_LOOKS)],
            {"workers": f"worker 1: pid 101 has not answered for {LATE_LOOKS} s"},
        ),
    ],
)
def test_ready_means_that_any_new_connection_is_served(standings: list[Standing], failing: dict[str, str]) -> None:
    """Every worker that listens must be ready and must answer; the reasons name them."""
    found = conditions(standings, 2)
    assert {name: reason for name, reason in found.items() if reason} == failing
    assert "workers" in found


def test_late_and_wedged() -> None:
    """Only who listens can be late; one that has never answered gets the time of a start."""
    assert late([standing(0, unanswered=LATE_LOOKS), standing(1, listening=False, unanswered=99), standing(2)]) == {
        "worker 0": f"pid 100 has not answered for {LATE_LOOKS} s"
    }
    assert [is_wedged(standing(0, unanswered=looks)) for looks in (WEDGED_LOOKS - 1, WEDGED_LOOKS)] == [False, True]
    starting = [Standing(0, 1, listening=False, unanswered=looks) for looks in (WEDGED_LOOKS, START_LOOKS)]
    assert [is_wedged(one) for one in starting] == [False, True]
    assert is_wedged(standing(0, listening=False, unanswered=WEDGED_LOOKS))  # it had answered: it is started


def end(
    code: int, *, lived_s: float = 1, short_lives: int = 0, any_served: bool = True, others_serve: bool = False
) -> End:
    return End(code, lived_s, short_lives, any_served, others_serve)


@pytest.mark.parametrize(
    ("ended", "follows"),
    [
        (end(2, any_served=False), GiveUp(2)),  # it has said why
        (end(-9, any_served=False), Again(0.25, 1)),  # nobody has said anything: an out-of-memory kill, say
        (end(2), Again(0.25, 1)),
        (end(0), Again(0.25, 1)),
        (end(-9, lived_s=10, short_lives=5), Again(0, 0)),  # a long life wipes out the short ones
        (end(-9, short_lives=1), Again(0.5, 2)),
        (end(-9, short_lives=4), Again(4, 5)),  # 0.25 * 2**4
        (end(-9, short_lives=5), GiveUp(128 + 9)),
        (end(0, short_lives=5), GiveUp(1)),
        (end(3, short_lives=5), GiveUp(3)),
        (end(3, short_lives=5, others_serve=True), Again(8, 6)),
        (end(3, short_lives=10**9, others_serve=True), Again(10, 10**9 + 1)),  # bounded, without a large power
    ],
)
def test_what_follows_an_end(ended: End, follows: Again | GiveUp) -> None:
    """Replaced with a bounded backoff; given up where nothing serves and nothing would be won."""
    assert after(ended) == follows


class Member:
    """A worker's metrics, of one kind each."""

    def __init__(self, created: float, **counted: float) -> None:
        self.registry = CollectorRegistry()
        self.counter = Counter("c", "Counted", ["code"], registry=self.registry)
        for code, value in counted.items():
            self.counter.labels(code).inc(value)
            self.counter.labels(code)._created = created
        self.gauge = Gauge("g", "Now", registry=self.registry)
        self.histogram = Histogram("h", "Spread", buckets=(1, 2), registry=self.registry)


def shown(tally: Tally, **members: Member) -> str:
    registry = CollectorRegistry()
    registry.register(MemberCollector(tally, lambda: {name: families(one.registry) for name, one in members.items()}))
    return generate_latest(registry).decode()


def test_counters_and_histograms_are_summed_gauges_are_told_apart() -> None:
    """Also series that only one of them has; the first creation is told, since a later one looks like a restart."""
    one, two = Member(5, ok=3, bad=1), Member(7, ok=4)
    one.gauge.set(10)
    two.gauge.set(20)
    for value in (0.5, 1.5, 9):
        one.histogram.observe(value)
    two.histogram.observe(0.25)
    lines = shown(Tally(), a=one, b=two).splitlines()
    for line in (
        'c_total{code="ok"} 7.0',
        'c_total{code="bad"} 1.0',
        'c_created{code="ok"} 5.0',
        'g{worker="a"} 10.0',
        'g{worker="b"} 20.0',
        'h_bucket{le="1.0"} 2.0',
        'h_bucket{le="2.0"} 3.0',
        'h_bucket{le="+Inf"} 4.0',
        "h_count 4.0",
        "h_sum 11.25",
        "# TYPE c_total counter",
        "# TYPE h histogram",
    ):
        assert line in lines, line
    assert sum(line.startswith("# TYPE ") for line in lines) == 5  # c, its _created, h, its _created, g


def test_what_has_ended_stays_counted_and_its_gauges_go() -> None:
    """A counter never goes back, however many have ended."""
    tally = Tally()
    for counted in (3, 4):
        ended = Member(5, ok=counted)
        ended.histogram.observe(1)
        tally.end(families(ended.registry))
    for _ in range(2):  # to tell changes nothing
        lines = shown(tally, b=Member(7, ok=1)).splitlines()
        assert 'c_total{code="ok"} 8.0' in lines
        assert "h_count 2.0" in lines
        assert [line for line in lines if line.startswith("g{")] == ['g{worker="b"} 0.0']


def test_a_report_comes_over_the_channel_as_it_was() -> None:
    """Conditions with their reasons, and every series."""
    readiness, member = Readiness("kafka", "topic"), Member(5, ok=3)
    readiness.hold("topic")
    told = report(readiness, member.registry, listening=True)
    frame = framed(told)
    assert body_bytes(frame[:HEAD_BYTES]) == len(frame) - HEAD_BYTES
    assert parsed(frame[HEAD_BYTES:]) == told
    assert told.conditions == {"kafka": False, "topic": True}
    assert told.reasons == {"kafka": "starting"}


@pytest.mark.parametrize("length", [0, FRAME_BYTES_MAX + 1])
def test_no_frame_is_larger_than_its_bound(length: int) -> None:
    """Or a worker that has gone mad would fill its supervisor's memory."""
    with pytest.raises(ValueError, match="a frame of"):
        body_bytes(length.to_bytes(HEAD_BYTES, "big"))
