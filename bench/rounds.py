"""Runs the scenarios of one kind each, in interleaved rounds: A B A B. Owns the order; `runs` owns the measuring.

All subjects of a case are started before its first round and idle while another one is measured, so that neighbours in
time are compared, warm ones. A first run of each, that does not count, tells how much load fills its seconds.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from itertools import chain

from bench.accounting import idle_share
from bench.drains import drain, fill_topic, in_flight, put
from bench.processes import BenchError
from bench.progress import Reporter
from bench.runs import Run, measure
from bench.scenarios import Case, Kind, Scenario
from bench.stand import Load, Stand
from bench.subjects import Skipped, Subject, start
from tests.harness.broker import Topic

Rounds = Iterator[Run]
_WARM_UP_REQUESTS = 200
_IDLE_S = 1.0
_IN_FLIGHT_BYTES = 16 << 20  # of all connections: a quarter of MAX_IN_FLIGHT_BYTES, past which ingest refuses
_RAMP = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
_HEADLINE_PER_S = 1_000_000 / 60
_HEADLINE_PATIENCE = 2.0  # times its minute: a slow machine's failure is told with its rate, not cut off


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What a runner is given."""

    stand: Stand
    reporter: Reporter
    scenario: Scenario

    def run(self, case: Case, subject: str, number: int = 0) -> Run:
        """An empty run of that name."""
        return Run(self.scenario.name, case.name, subject, number)


def run_scenario(stand: Stand, reporter: Reporter, scenario: Scenario) -> Rounds:
    """Every run of a scenario, as they come."""
    runs = sum(len(case.subjects) for case in scenario.cases) * scenario.rounds
    reporter.begun(scenario.name, runs)
    context = Context(stand, reporter, scenario)
    for case in scenario.cases:
        for run in _RUNNERS[scenario.kind](context, case):
            reporter.ran(run)
            yield run


@contextlib.contextmanager
def started(context: Context, case: Case) -> Iterator[list[Subject]]:
    """The case's subjects, running; those that cannot be had are reported and left out."""
    subjects: list[Subject] = []
    try:
        for name in case.subjects:
            try:
                subjects.append(start(context.stand, name))
            except (Skipped, BenchError) as reason:
                context.reporter.skipped(context.scenario.name, name, str(reason))
        yield subjects
    finally:
        context.stand.children.stop([process for subject in subjects for process in subject.all_processes()])


def _sized(context: Context, case: Case, subject: Subject) -> tuple[Load, float]:
    """The load that fills the case's seconds, and what the subject uses when idle. Warms the subject up on the way.

    Raises:
        BenchError: it does not even pass its warm-up.

    """
    requests = max(_WARM_UP_REQUESTS // case.payloads, 10)
    connections = min(64, max(1, _IN_FLIGHT_BYTES // (case.payloads * case.size_bytes)))
    load = Load(requests, case.payloads, case.size_bytes, connections=connections)
    for seconds in (case.seconds / 4, case.seconds / 2, case.seconds):
        warm = measure(context.stand, subject, load, context.run(case, subject.name))
        if warm.failed:
            raise BenchError(f"its warm-up: {warm.failed}")
        fitting = int(load.requests * seconds / max(warm.seconds, 0.05))
        load = dataclasses.replace(load, requests=min(max(fitting, requests), load.requests * 20))
    pids = list(chain(*subject.pids().values()))
    return load, idle_share(pids, _IDLE_S)


def interleaved(context: Context, case: Case) -> Rounds:
    """END_TO_END and INGEST: the load generator against each subject in turn."""
    with started(context, case) as subjects:
        sized: list[tuple[Subject, Load, float]] = []
        for subject in subjects:
            try:
                sized.append((subject, *_sized(context, case, subject)))
            except BenchError as error:
                yield dataclasses.replace(context.run(case, subject.name), failed=str(error))
        for number in range(context.scenario.rounds):
            for subject, load, idle in sized:
                yield measure(context.stand, subject, load, context.run(case, subject.name, number), idle)


def drains(context: Context, case: Case) -> Rounds:
    """DRAIN and REPLAY: the same backlog for each subject in turn, each time by a fresh process and a fresh group."""
    topic = fill_topic(context.stand)
    dropped: set[str] = set()
    for number in range(context.scenario.rounds):
        for name in case.subjects:
            if name in dropped:
                continue
            try:
                yield drain(context.stand, topic, name, context.run(case, name, number), case.seconds)
            except Skipped as reason:
                context.reporter.skipped(context.scenario.name, name, str(reason))
                dropped.add(name)


def alone(measured: Callable[[Stand, str, bool, Run, float], Run]) -> Callable[[Context, Case], Rounds]:
    """PUT and IN_FLIGHT: a store in a process of its own, without Kafka."""

    def rounds(context: Context, case: Case) -> Rounds:
        dropped: set[str] = set()
        for number in range(context.scenario.rounds):
            for name in case.subjects:
                if name in dropped:
                    continue
                run = context.run(case, name, number)
                try:
                    yield measured(context.stand, name, case.name == "TLS", run, case.seconds)
                except Skipped as reason:
                    context.reporter.skipped(context.scenario.name, name, str(reason))
                    dropped.add(name)

    return rounds


def ramp(context: Context, case: Case) -> Rounds:
    """RAMP: saturation first, then fixed rates in parts of it."""
    with started(context, case) as subjects:
        for subject in subjects:
            load, idle = _sized(context, case, subject)
            top = measure(context.stand, subject, load, context.run(case, subject.name), idle)
            top.case = "saturated (closed loop)"
            yield top
            for share in () if top.failed else _RAMP:
                rate = share * top.report["requests_per_s"]
                open_loop = dataclasses.replace(load, requests=int(rate * case.seconds), rate=rate, connections=256)
                run = measure(context.stand, subject, open_loop, context.run(case, subject.name), idle)
                run.case = f"{share:.0%} of it"
                yield run


def headline(context: Context, case: Case) -> Rounds:
    """HEADLINE: a million requests at their rate into one ingest, then the drain of the same topic by one uploader."""
    stand, name = context.stand, case.subjects[0]
    topic = stand.topic("headline")
    load = Load(
        round(_HEADLINE_PER_S * case.seconds),
        1,
        case.size_bytes,
        rate=_HEADLINE_PER_S,
        connections=256,
        deadline_s=case.seconds * _HEADLINE_PATIENCE,
    )
    run = context.run(case, f"{name}-ingest")
    ingest = start(stand, f"{name}-ingest", topic)
    try:
        warm = Load(max(load.requests // 50, 100), 1, case.size_bytes)
        measure(stand, ingest, warm, context.run(case, ingest.name))
        yield measure(stand, ingest, load, run)
    finally:
        stand.children.stop(ingest.all_processes())
    yield _headline_drain(context, case, topic, warm.count + run.payloads)


def _headline_drain(context: Context, case: Case, topic: Topic, count: int) -> Run:
    run = context.run(dataclasses.replace(case, name="their drain"), f"{case.subjects[0]}-uploader")
    try:
        return drain(context.stand, topic, run.subject, run, 240.0, count=count, whole=True)
    except Skipped as reason:
        run.failed = f"skipped: {reason}"
        return run


_RUNNERS: dict[Kind, Callable[[Context, Case], Rounds]] = {
    Kind.END_TO_END: interleaved,
    Kind.INGEST: interleaved,
    Kind.DRAIN: drains,
    Kind.REPLAY: drains,
    Kind.PUT: alone(put),
    Kind.IN_FLIGHT: alone(in_flight),
    Kind.RAMP: ramp,
    Kind.HEADLINE: headline,
}
