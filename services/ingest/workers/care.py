"""What a supervisor decides: who is late, whether all of it is ready, what follows the end of a worker. Pure.

*Ready* means that a new connection is served wherever the kernel puts it. It puts it to any process that listens, so
every worker that listens must be ready and must answer; one that is being replaced has no listener, gets nothing and
does not count, as long as another one is there.

Lateness is counted in looks of the supervisor, a second apart, and not by a clock: a machine that stood still, or
processes that were frozen together, have not been late.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WORKERS = "workers"
"""The readiness condition that is the supervisor's own."""
LATE_LOOKS = 5
"""A worker that has not answered for so many looks is late: the whole is neither ready nor live."""
WEDGED_LOOKS = 15
"""It is killed, and replaced. Before an orchestrator's third probe in a row finds it late, at ten seconds each."""
START_LOOKS = 60
"""The same for one that has never answered: an interpreter that starts on a busy machine."""

_LONG_LIFE_S = 10.0
_SHORT_LIVES_MAX = 6
_BACKOFF_FIRST_S = 0.25
_BACKOFF_MAX_S = 10.0
_EXIT_SIGNAL = 128


@dataclass(frozen=True, slots=True)
class Standing:
    """A worker as its supervisor sees it."""

    number: int
    pid: int
    listening: bool
    unanswered: int  # looks that it has not answered yet
    conditions: Mapping[str, bool] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def late(self) -> bool:
        """Whether it takes connections and does not answer."""
        return self.listening and self.unanswered >= LATE_LOOKS


@dataclass(frozen=True, slots=True)
class End:
    """How a worker ended that nobody had told to."""

    code: int  # its exit code; less than 0: a signal's number
    lived_s: float
    short_lives: int  # of its place, in a row, before this one
    any_served: bool  # whether any worker ever took connections
    others_serve: bool  # whether another one does now


@dataclass(frozen=True, slots=True)
class Again:
    """Start another one in its place."""

    delay_s: float
    short_lives: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave, as that worker did."""

    code: int


def is_wedged(one: Standing) -> bool:
    """Whether to kill it: it does not turn, and will drain for nobody."""
    return one.unanswered >= (WEDGED_LOOKS if one.listening or one.conditions else START_LOOKS)


def after(end: End) -> Again | GiveUp:
    """What follows.

    One that leaves with a code before anything was served has said why, and a second one would say it again. Later,
    ends one after the other wear the place out, but another worker that serves is worth staying for.
    """
    code = _EXIT_SIGNAL - end.code if end.code < 0 else end.code
    if end.code > 0 and not end.any_served:
        return GiveUp(code)
    if end.lived_s >= _LONG_LIFE_S:
        return Again(0.0, 0)
    short_lives = end.short_lives + 1
    if short_lives >= _SHORT_LIVES_MAX and not end.others_serve:
        return GiveUp(code or 1)
    return Again(min(_BACKOFF_FIRST_S * 2 ** min(short_lives - 1, 16), _BACKOFF_MAX_S), short_lives)


def late(standings: Sequence[Standing]) -> dict[str, str]:
    """Who takes connections and does not answer, and since when, by worker."""
    return {
        f"worker {one.number}": f"pid {one.pid} has not answered for {one.unanswered} s"
        for one in standings
        if one.late
    }


def conditions(standings: Sequence[Standing], wanted: int) -> dict[str, str]:
    """Each condition of the whole: "" where it holds, else why not, with the workers that it is about."""
    serving = [one for one in standings if one.listening]
    found = {WORKERS: _workers(serving, wanted)}
    for condition in dict.fromkeys(name for one in serving for name in one.conditions):
        by_reason: dict[str, list[int]] = defaultdict(list)
        for one in serving:
            if condition in one.reasons:
                by_reason[one.reasons[condition]].append(one.number)
        found[condition] = "; ".join(
            f"worker {', '.join(map(str, numbers))}: {reason}" for reason, numbers in by_reason.items()
        )
    return found


def _workers(serving: Sequence[Standing], wanted: int) -> str:
    if not serving:
        return f"none of {wanted} workers takes connections yet"
    return "; ".join(f"{name}: {why}" for name, why in late(serving).items())
