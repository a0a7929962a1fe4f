"""Runs the scenarios of one kind each, in interleaved rounds: A B A B. Owns the order; `runs` owns the measuring.

All subjects of a case are started before its first round and idle while another one is measured, so that neighbours in
time are compared, warm ones. A first run of each, that does not count, tells how much load fills its seconds.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from bench.drains import Backlog, backlog, checksum_of, drain, in_flight, put
from bench.processes import BenchError
from bench.progress import Reporter
from bench.runs import Run, measure
from bench.scenarios import Case, Kind, Scenario
from bench.stand import Load, Stand
from bench.subjects import Skipped, Subject, start
from tests.harness.broker import Topic

Rounds = Iterator[Run]
_WARM_UP_REQUESTS = 200
_IN_FLIGHT_BYTES = 16 << 20  # of all connections: a quarter of MAX_IN_FLIGHT_BYTES, past which ingest refuses
_RAMP = (0.1, 0.5, 0.7, 0.9, 1.0)
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


def _sized(context: Context, case: Case, subject: Subject) -> Load:
    """The load that fills the case's seconds. Warms the subject up on the way.

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
    return load


def interleaved(context: Context, case: Case) -> Rounds:
    """END_TO_END and INGEST: the load generator against each subject in turn."""
    with started(context, case) as subjects:
        sized: list[tuple[Subject, Load]] = []
        for subject in subjects:
            try:
                sized.append((subject, _sized(context, case, subject)))
            except BenchError as error:
                yield dataclasses.replace(context.run(case, subject.name), failed=str(error))
        for number in range(context.scenario.rounds):
            for subject, load in sized:
                yield measure(context.stand, subject, load, context.run(case, subject.name, number))


def drains(context: Context, case: Case) -> Rounds:
    """DRAIN: each subject's backlog in turn, each time by a fresh process and a fresh group."""
    counts = {case.records[name] for name in case.subjects}
    backlogs = {count: backlog(context.stand, count) for count in counts}
    dropped: set[str] = set()
    for number in range(context.scenario.rounds):
        for name in case.subjects:
            if name in dropped:
                continue
            waiting = backlogs[case.records[name]]
            try:
                yield drain(context.stand, waiting, name, context.run(case, name, number), case.warm)
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
    """RAMP: in each round saturation first, then fixed rates in parts of it."""
    with started(context, case) as subjects:
        for subject in subjects:
            load = _sized(context, case, subject)
            for number in range(context.scenario.rounds):
                top = measure(context.stand, subject, load, context.run(case, subject.name, number))
                top.case = "saturated (closed loop)"
                yield top
                for share in () if top.failed else _RAMP:
                    rate = share * top.report["requests_per_s"]
                    open_loop = dataclasses.replace(load, requests=int(rate * case.seconds), rate=rate, connections=256)
                    run = measure(context.stand, subject, open_loop, context.run(case, subject.name, number))
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
        warm = measure(
            stand,
            ingest,
            Load(max(load.requests // 50, 100), 1, case.size_bytes),
            context.run(case, ingest.name),
        )
        yield measure(stand, ingest, load, run)
    finally:
        stand.children.stop(ingest.all_processes())
    yield headline_drain(context, case, topic, [warm, run])


def headline_drain(context: Context, case: Case, topic: Topic, written: list[Run]) -> Run:
    """The headline's second half: what its minute has written, if that is known."""
    run = context.run(dataclasses.replace(case, name="their drain"), f"{case.subjects[0]}-uploader")
    if any(one.failed for one in written):
        run.failed = "not every request was acknowledged: what the topic holds is not known"
        return run
    checksum = checksum_of([one.report["checksum"] for one in written])
    try:
        return drain(context.stand, Backlog(topic, sum(one.payloads for one in written), checksum), run.subject, run)
    except Skipped as reason:
        run.failed = f"skipped: {reason}"
        return run


_RUNNERS: dict[Kind, Callable[[Context, Case], Rounds]] = {
    Kind.END_TO_END: interleaved,
    Kind.INGEST: interleaved,
    Kind.DRAIN: drains,
    Kind.PUT: alone(put),
    Kind.IN_FLIGHT: alone(in_flight),
    Kind.RAMP: ramp,
    Kind.HEADLINE: headline,
}
