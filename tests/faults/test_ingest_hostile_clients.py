"""Clients that mean harm, all at once: slow ones by the thousand, stalled ones, bombs. Good ones are served meanwhile.

Nothing here is a measurement of time (`bench/hostile_clients.py` is); but no hostile connection is held beyond its
deadline, each is told a documented code, and the ingest's memory keeps its bound (docs/operations/ingest-memory.md).
"""

import hashlib
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.kafka import EmbeddedKafka
from tests.harness.broker import Topic
from tests.harness.durations import Durations
from tests.harness.hostile import Hostile, Kind, Plan, Told
from tests.harness.processes import Processes
from tests.harness.rule_following import RuleFollowers, settle
from tests.harness.tiers import IngestTier, start_ingest
from tests.harness.waiting import until

HEAD_DEADLINE_S, BODY_DEADLINE_S = 3, 5
LATE_S = 15
"""Beyond its deadline: two seconds to take what still comes, five to close, and a machine that does other things."""

MIB = 1024 * 1024
BEYOND_BUDGET_BYTES = 96 * MIB
"""What ingest takes beyond MAX_IN_FLIGHT_BYTES at most: docs/operations/ingest-memory.md."""

GOOD, BAD = "good-token", "bad-token"
BEARER = {"Authorization": f"Bearer {GOOD}"}

TOLD: dict[Kind, set[str]] = {
    Kind.HEAD: {"head_timeout"},
    Kind.BODY: {"body_timeout", "overloaded"},
    Kind.STALL: {"body_timeout", "overloaded"},
    Kind.GZIP: {"decoded_body_too_large", "overloaded", "body_timeout"},
    Kind.ZSTD: {"decoded_body_too_large", "overloaded", "body_timeout"},
}
"""What each may hear; a connection that is closed under it while it still sends may hear nothing."""


@pytest.fixture(autouse=True)
def files() -> Iterator[None]:
    """Enough open files for the processes that are started here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(8192, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def tokens_file(tmp_path: Path) -> str:
    """Two tokens without quotas."""
    path = tmp_path / "tokens.json"
    entries = [{"name": token, "sha256": hashlib.sha256(token.encode()).hexdigest()} for token in (GOOD, BAD)]
    path.write_text(json.dumps(entries))
    return str(path)


def plan(tier: IngestTier, kinds: dict[Kind, int], *, seconds: float = 0) -> Plan:
    """Clients of the bad token, who give up long after they should have been told."""
    return Plan(
        int(tier.url.rpartition(":")[2]), kinds, seconds=seconds, give_up_s=BODY_DEADLINE_S + 3 * LATE_S, token=BAD
    )


def wait_quiet(tier: IngestTier) -> None:
    """Nothing is held for anybody any more."""
    until(lambda: tier.metric("spillway_ingest_in_flight_bytes") == 0, "no bytes in flight", deadline_s=LATE_S)
    until(lambda: tier.metric("spillway_ingest_connections") == 0, "no connections", deadline_s=LATE_S)


def check_ends(told: Told) -> None:
    """Each client was told a documented code in time, or its connection ended."""
    for kind, codes in told.codes.items():
        assert set(codes) <= TOLD[Kind(kind)] | {"closed"}, told
        assert codes.get("closed", 0) <= sum(codes.values()) // 2, told  # most hear why
        deadline_s = HEAD_DEADLINE_S if kind == Kind.HEAD else 2 * BODY_DEADLINE_S  # its turn to be decompressed
        assert told.lasted_s[kind] < deadline_s + LATE_S, told


def test_good_clients_are_served_among_hostile_ones(
    make_topic: Callable[..., Topic], processes: Processes, tokens_file: str
) -> None:
    """1,000 connections drip a byte a second, 200 stall in mid-body and 50 bombs of 10 GB come at once: every good
    request is a 200, every other one is told so or closed in time, and nothing stays behind.
    """
    topic = make_topic()
    settings = {
        "HEAD_DEADLINE_S": str(HEAD_DEADLINE_S),
        "BODY_DEADLINE_S": str(BODY_DEADLINE_S),
        "INGEST_TOKENS_FILE": tokens_file,
    }
    tier = start_ingest(processes, topic, settings)
    tier.wait_ready()
    with RuleFollowers(tier, headers=BEARER) as clients:
        clients.wait_accepted("the first answers", deadline_s=20, more=10)
        kinds = {Kind.HEAD: 500, Kind.BODY: 500, Kind.STALL: 200, Kind.GZIP: 25, Kind.ZSTD: 25}
        told = Hostile(processes, plan(tier, kinds)).told(deadline_s=90)
        clients.wait_accepted("answers afterwards", deadline_s=20, more=10)
        settle(tier, topic, clients, growth_max_bytes=64 * MIB + BEYOND_BUDGET_BYTES)
    assert set(clients.codes()) == {""}
    check_ends(told)
    assert {kind: sum(codes.values()) for kind, codes in told.codes.items()} == kinds
    wait_quiet(tier)


def test_memory_keeps_its_bound_while_kafka_is_frozen(
    own_kafka: EmbeddedKafka, make_topic: Callable[..., Topic], processes: Processes, durations: Durations
) -> None:
    """Bodies of 16 MiB, of 10,000 payloads of a byte, bombs, clients that read no answer, while nothing is written:
    ingest grows by MAX_IN_FLIGHT_BYTES and the constant of the docs, refuses the rest, and goes on.
    """
    topic = make_topic(bootstrap_servers=own_kafka.bootstrap_servers)
    budget = 32 * MIB
    settings = {"MAX_IN_FLIGHT_BYTES": str(budget), "BODY_DEADLINE_S": str(BODY_DEADLINE_S)}
    tier = start_ingest(processes, topic, settings)
    tier.wait_ready()
    with RuleFollowers(tier) as clients:
        clients.wait_accepted("the first answers", deadline_s=20, more=10)
        own_kafka.freeze()
        try:
            kinds = {Kind.LARGE: 10, Kind.MANY: 50, Kind.MANY_GZIP: 50, Kind.DEAF: 20, Kind.GZIP: 5, Kind.ZSTD: 5}
            told = Hostile(processes, plan(tier, kinds, seconds=durations.away_s)).told(deadline_s=120)
        finally:
            own_kafka.thaw()
        clients.wait_accepted("a 200 after Kafka has healed", deadline_s=20)
        settle(tier, topic, clients, growth_max_bytes=budget + BEYOND_BUDGET_BYTES)
    assert "held" not in told.all_codes, told
    assert told.all_codes["overloaded"] + told.all_codes["kafka_unavailable"] > 0, told
    wait_quiet(tier)
