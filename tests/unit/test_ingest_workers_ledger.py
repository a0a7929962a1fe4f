"""Quotas over several processes: what passes is what one would let pass, whoever dies and whoever is stopped."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.quota import Quotas, Spent
from services.ingest.tokens import Token
from services.ingest.workers.ledger import Ledger, SharedQuotas, create, fingerprint_of
from tests.harness.processes import ROOT


def token(name: str, requests_per_s: float | None = None, bytes_per_s: float | None = None) -> Token:
    return Token(name, b"\1" * 32, requests_per_s=requests_per_s, bytes_per_s=bytes_per_s)


@pytest.fixture
def descriptor() -> Iterator[int]:
    """An empty ledger."""
    one = create()
    yield one
    os.close(one)


TOKENS = [token("r", 2), token("b", None, 10), token("both", 1, 20), token("free")]
STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),  # which worker
        st.integers(0, 3),  # whose token
        st.sampled_from(["take", "take", "wait_s", "give_back"]),
        st.sampled_from([0.0, 0.1, 0.5, 3.0]),  # seconds later
        st.integers(0, 40),  # bytes
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_several_decide_as_one_would(steps: list[tuple[int, int, str, float, int]]) -> None:
    """Whoever is asked, in any order: each answer is that of one Quotas which was asked for all."""
    descriptor = create(64)
    try:
        workers = [SharedQuotas(2, Ledger(descriptor)) for _ in range(3)]
        alone, now_s = Quotas(2), 100.0
        for worker, whose, what, later_s, body_bytes in steps:
            now_s += later_s
            asked = (what, TOKENS[whose], body_bytes, now_s)
            assert ask(workers[worker], *asked) == ask(alone, *asked)
    finally:
        os.close(descriptor)


def ask(quotas: Quotas, what: str, one: Token, body_bytes: int, now_s: float) -> float | None:
    if what == "wait_s":
        return quotas.wait_s(one, now_s)
    return (quotas.take if what == "take" else quotas.give_back)(one, body_bytes, now_s)


def test_a_changed_rate_is_taken_by_each_as_it_learns_of_it(descriptor: int) -> None:
    """Two workers see a new file a second apart: what was spent stays spent."""
    early, late = (SharedQuotas(2, Ledger(descriptor)) for _ in range(2))
    for _ in range(4):
        assert late.take(token("a", 2), 0, 100.0) == 0  # 2 a second for 2 s
    assert early.take(token("a", 4), 0, 100.0) > 0
    assert late.take(token("a", 2), 0, 100.0) > 0
    early.keep({"a"})
    late.keep(set())
    assert early.take(token("a", 4), 0, 100.0) > 0


def test_nothing_is_lost_between_processes(descriptor: int) -> None:
    """Three processes take at the same time, as fast as they can: together exactly the burst passes.

    With more patience than they have at work: on a machine this busy, who holds the lock may not run for long.
    """
    program = (
        "import sys\n"
        "from services.ingest.tokens import Token\n"
        "from services.ingest.workers.ledger import Ledger, SharedQuotas\n"
        "quotas, one = SharedQuotas(2, Ledger(int(sys.argv[1]), 60)), Token('a', b'', requests_per_s=30_000)\n"
        "print('there', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(sum(quotas.take(one, 0, 100.0) == 0 for _ in range(60_000)))\n"
    )
    command = [sys.executable, "-c", program, str(descriptor)]
    children = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[descriptor], cwd=ROOT, text=True
        )
        for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "there\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    passed = [int(child.communicate(timeout=60)[0]) for child in children]
    assert sum(passed) == 60_000  # a burst of 2 s: so many that none is through before all have their turn
    assert min(passed) > 0


def test_one_that_is_stopped_with_the_lock_stops_nobody(descriptor: int) -> None:
    """The others go on without it after some turns, and it is the kernel's again once its process ends."""
    offset = fingerprint_of("a") % 65536
    program = (
        "import fcntl, sys\n"
        f"fcntl.lockf({descriptor}, fcntl.LOCK_EX, 1, {offset})\n"
        "print('held', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[descriptor],
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        quotas = SharedQuotas(2, Ledger(descriptor))
        assert [quotas.take(token("a", 1), 0, 100.0) == 0 for _ in range(3)] == [True, True, False]
        holder.kill()
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)


def test_slots_are_free_again_once_their_buckets_are_full() -> None:
    """Any number of names, one after the other, in a table of four; where all owe, the nearest to full makes room."""
    descriptor = create(4)
    ledger = Ledger(descriptor)
    for number in range(1, 100):
        ledger.write(number, Spent(1.0, number + 0.5), None)
        assert ledger.read(number) == (Spent(1.0, number + 0.5), None)
    names = [201, 202, 203, 204]
    for name in names:
        ledger.write(name, None, Spent(2.0, 1000.0 + name))
    assert [ledger.read(name)[1] for name in names] == [Spent(2.0, 1000.0 + name) for name in names]
    ledger.write(205, Spent(1.0, 2000.0), None)
    assert [ledger.read(name) != (None, None) for name in (*names, 205)] == [False, True, True, True, True]
    os.close(descriptor)
