"""The gate before the puts, with real tasks: order, places, and every way to be cancelled."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.uploader.errors import ConfigurationError, TransientError
from services.uploader.limiter import LIMIT_MIN, Limiter
from services.uploader.upload_limit import UploadLimit
from shared.telemetry import UploaderMetrics

DEADLINE_S = 30
SLOW_DOWN = TransientError("slow_down", "503")


@dataclass
class Put:
    """One put in a task of its own: inside its slot from `inside` on, until `end` is set."""

    gate: UploadLimit
    number: int
    entered: list[int]  # numbers, in the order in which they got their places
    error: Exception | None = None
    raises: bool = False
    inside: bool = False
    waited: bool = False
    end: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        self.waited = self.gate.in_flight >= self.gate.limit
        async with self.gate.slot(100) as slot:
            self.inside = True
            self.entered.append(self.number)
            try:
                await self.end.wait()
                if self.raises and self.error is not None:
                    raise self.error
                slot.error = self.error
            finally:
                self.inside = False


class Puts:
    """The puts of one test, and the gate that they go through."""

    def __init__(self, maximum: int) -> None:
        self.registry = CollectorRegistry()
        self.limiter = Limiter(maximum)
        self.gate = UploadLimit(self.limiter, UploaderMetrics(self.registry))
        self.entered: list[int] = []
        self.all: list[Put] = []

    def start(self, count: int = 1, **how: object) -> list[Put]:
        started = [Put(self.gate, len(self.all) + i, self.entered, **how) for i in range(count)]  # type: ignore[arg-type]
        for put in started:
            put.task = asyncio.create_task(put.run())
        self.all += started
        return started

    @property
    def inside(self) -> int:
        return sum(put.inside for put in self.all)

    def gauge(self, name: str) -> float | None:
        return self.registry.get_sample_value(f"spillway_uploader_{name}")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - a condition with a deadline
            await asyncio.sleep(0)


async def settle() -> None:
    """Let every task run as far as it can: a grant takes two turns of the loop, these are many."""
    for _ in range(10):
        await asyncio.sleep(0)


async def ended(puts: list[Put]) -> None:
    for put in puts:
        put.end.set()
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(put.task for put in puts if put.task), return_exceptions=True)


async def test_as_many_as_the_limit_and_no_more() -> None:
    """4 of 6 get a place at once, in both gauges; the others when one is given back."""
    puts = Puts(4)
    started = puts.start(6)
    await settle()
    assert puts.entered == [0, 1, 2, 3]
    assert (puts.gauge("in_flight"), puts.gauge("in_flight_limit")) == (4, 4)
    await ended(started[2:3])
    await until(lambda: puts.entered == [0, 1, 2, 3, 4])
    await ended(started)
    assert puts.entered == [0, 1, 2, 3, 4, 5]
    assert puts.gauge("in_flight") == 0


async def test_first_come_first_served() -> None:
    """A newcomer that arrives when a place is free but granted does not overtake one that waits."""
    puts = Puts(1)
    first, _ = puts.start(2)
    await settle()
    first.end.set()
    await until(lambda: not first.inside)
    puts.start(1)  # number 2, while number 1 has its grant and has not run yet
    for put in puts.all:
        put.end.set()
    await ended(puts.all)
    assert puts.entered == [0, 1, 2]


async def test_a_raised_limit_lets_all_in_that_it_has_room_for() -> None:
    """Slow start: one put stored, its own place and one more are granted."""
    puts = Puts(20)
    started = puts.start(30)
    await settle()
    assert puts.inside == 16
    await ended(started[:1])
    await settle()
    assert (puts.gate.limit, puts.inside) == (17, 17)
    await ended(started)


async def test_a_lowered_limit_lets_nobody_in_until_enough_have_left() -> None:
    """16 inside and the limit falls to 4: the next one enters when 3 are left."""
    puts = Puts(16)
    started = puts.start(16, error=SLOW_DOWN)
    waiting = puts.start(1)
    await settle()
    for _ in range(16):
        puts.limiter.failed(0, SLOW_DOWN)
    assert puts.gate.limit == LIMIT_MIN
    await ended(started[:12])
    await settle()
    assert puts.inside == 4
    assert not waiting[0].inside
    await ended(started[12:13])
    await until(lambda: waiting[0].inside)
    await ended(puts.all)


async def test_a_cancelled_waiter_is_skipped() -> None:
    """It never had a place: the next in the queue gets the one that is free."""
    puts = Puts(1)
    first, second, third = puts.start(3)
    await settle()
    assert second.task
    second.task.cancel()
    await ended([first])
    await until(lambda: third.inside)
    await ended(puts.all)
    assert puts.entered == [0, 2]
    assert second.task.cancelled()
    assert puts.gate.in_flight == 0


async def test_a_waiter_cancelled_after_its_grant_passes_it_on() -> None:
    """The place was its own when the cancel came: the next one has it, and none is lost."""
    puts = Puts(1)
    first, second, third = puts.start(3)
    await settle()
    first.end.set()
    await until(lambda: not first.inside)  # its place is granted to the second, whose task has not run yet
    assert (puts.gate.in_flight, second.inside) == (1, False)
    assert second.task
    second.task.cancel()
    await until(lambda: third.inside)
    await ended(puts.all)
    assert puts.entered == [0, 2]
    assert second.task.cancelled()
    assert puts.gate.in_flight == 0


async def test_the_last_waiter_cancelled_after_its_grant_leaves_the_place_free() -> None:
    """Nobody waits any more: the place is there for the next that comes."""
    puts = Puts(1)
    first, second = puts.start(2)
    await settle()
    first.end.set()
    await until(lambda: not first.inside)
    assert second.task
    second.task.cancel()
    await until(second.task.done)
    assert puts.gate.in_flight == 0
    await ended(puts.start(1))
    assert puts.entered == [0, 2]


async def test_a_cancelled_put_gives_its_place_back_and_tells_nothing() -> None:
    """Revoked partitions cancel puts by the hundred; that is neither a success nor an overload."""
    puts = Puts(512)
    started = puts.start(100)
    await settle()
    assert puts.inside == 16
    for put in started:
        assert put.task
        put.task.cancel()
    await ended(started)
    assert puts.gate.in_flight == 0
    assert (puts.gate.limit, puts.limiter.epoch) == (16, 0)
    again = puts.start(16)
    await settle()
    await ended(again)
    assert puts.gate.limit > 16  # as if they had never been


@pytest.mark.parametrize("raises", [True, False], ids=["raised", "set"])
@pytest.mark.parametrize(
    ("error", "limit"), [(SLOW_DOWN, LIMIT_MIN), (ConfigurationError("access_denied", "403"), 16), (None, 32)]
)
async def test_how_a_put_ended_reaches_the_limiter(error: Exception | None, limit: int, *, raises: bool) -> None:
    """16 puts, all stored, shed or refused, the error raised through the slot or set on it."""
    puts = Puts(512)
    started = puts.start(16, error=error, raises=raises)
    await settle()
    await ended(started)
    assert puts.gate.in_flight == 0
    assert puts.limiter.epoch == (1 if error is SLOW_DOWN else 0)
    if error is not None:
        assert puts.gate.limit == limit
    else:
        assert 16 < puts.gate.limit <= limit


async def test_puts_that_began_before_a_decrease_are_one_overload() -> None:
    """16 puts fail one after another: one decrease, because all had begun before it. Those after it count again."""
    puts = Puts(512)
    await ended(puts.start(1))
    before = puts.gate.limit
    started = puts.start(16, error=SLOW_DOWN)
    await settle()
    await ended(started)
    assert puts.limiter.epoch == 1
    assert puts.gate.limit == int(before * 0.8)
    again = puts.start(puts.gate.limit, error=SLOW_DOWN)  # as many as the limit, none stored: an outage
    await settle()
    await ended(again)
    assert puts.limiter.epoch == 2
    assert puts.gate.limit == LIMIT_MIN


step = st.one_of(
    st.just(("start", 0)),
    st.tuples(st.sampled_from(["store", "shed", "cancel", "cancel", "cancel newest"]), st.integers(0, 40)),
    st.just(("turn", 0)),
)


@example(
    maximum=3,  # put 3 has its grant and has not run yet when put 4 finds another place free
    steps=[("start", 0)] * 4 + [("turn", 0), ("store", 0), ("store", 1), ("start", 0)],
)
@given(maximum=st.integers(1, 20), steps=st.lists(step, max_size=120))
def test_any_interleaving(maximum: int, steps: list[tuple[str, int]]) -> None:
    """However starts, ends and cancels mix, and wherever between them the loop turns: never a place beyond what the
    limit allowed, order kept among those that were not cancelled, nobody forgotten, and every place given back.
    """

    async def run() -> None:
        puts = Puts(maximum)
        for what, which in steps:
            if what == "turn":
                await asyncio.sleep(0)
            elif what == "start":
                puts.start(1)
            elif puts.all:
                alive = [put for put in puts.all if put.task and not put.task.done()]
                put = alive[-1 if what == "cancel newest" else which % len(alive)] if alive else puts.all[0]
                if what in {"store", "shed"}:
                    put.error = SLOW_DOWN if what == "shed" else None
                    put.end.set()
                elif put.task:
                    put.task.cancel()
            assert puts.inside <= puts.gate.in_flight <= maximum
        await settle()
        waiting = [put for put in puts.all if put.task and not put.task.done() and not put.inside]
        assert puts.inside == puts.gate.in_flight
        assert not waiting or puts.gate.in_flight >= puts.gate.limit
        await ended(puts.all)
        assert puts.gate.in_flight == 0
        for waited in (
            True,
            False,
        ):  # who finds a place free runs at once; a grant takes a turn of the loop to be heard
            in_order = [number for number in puts.entered if puts.all[number].waited is waited]
            assert in_order == sorted(in_order)
        assert all(put.number in puts.entered for put in puts.all if put.task and not put.task.cancelled())

    asyncio.run(run())
