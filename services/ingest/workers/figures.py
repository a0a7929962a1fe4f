"""The metrics of several processes as those of one. Pure.

Counters and histograms are summed over all workers, those that have ended included: a counter never goes back, whoever
dies. Gauges are told each with the label `worker`, and go with it: of what is a bound, or the share of one, a sum would
hide the worker that is full. `_created` is the first of all.

What a killed worker counted after its last report is in no sum: a counter may tell too little by that, never too much.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from services.ingest.workers.report import Family, Sample

_SUMMED = frozenset({"counter", "histogram"})
_CREATED = "_created"
_LEFT_OUT = frozenset({"spillway_ready"})  # the supervisor's own: what /readyz of the whole says

_Key = tuple[str, tuple[tuple[str, str], ...]]


class _Total:
    """One metric, summed."""

    __slots__ = ("documentation", "series", "type")

    def __init__(self, family: Family) -> None:
        self.documentation = family.documentation
        self.type = family.type
        self.series: dict[_Key, float] = {}  # in the order of the first that told each

    def add(self, samples: Iterable[Sample]) -> None:
        for sample in samples:
            key = (sample.name, tuple(sample.labels.items()))
            if key not in self.series:
                self.series[key] = sample.value
            elif sample.name.endswith(_CREATED):
                self.series[key] = min(self.series[key], sample.value)
            else:
                self.series[key] += sample.value


class Tally:
    """What has been told by all workers so far."""

    def __init__(self) -> None:
        self._ended: dict[str, _Total] = {}  # sums of those that have ended, by metric

    def end(self, families: Iterable[Family]) -> None:
        """Keep what a worker had counted: it will tell no more."""
        _sum(self._ended, families)

    def metrics(self, members: Mapping[str, Sequence[Family]]) -> Iterator[Metric]:
        """All metrics of those that live, by name, and of those that have ended."""
        totals: dict[str, _Total] = {}
        for name, total in self._ended.items():
            _sum(totals, [_family(name, total)])
        gauges: dict[str, Metric] = {}
        for member, families in members.items():
            _sum(totals, families)
            for family in families:
                if family.type not in _SUMMED and family.name not in _LEFT_OUT:
                    gauge = gauges.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    for sample in family.samples:
                        gauge.add_sample(sample.name, {**sample.labels, "worker": member}, sample.value)
        for name, total in totals.items():
            summed = Metric(name, total.documentation, total.type)
            for (series, labels), value in total.series.items():
                summed.add_sample(series, dict(labels), value)
            yield summed
        yield from gauges.values()


class MemberCollector(Collector):
    """A tally in a registry; `members` gives what those that live have told last."""

    def __init__(self, tally: Tally, members: Callable[[], Mapping[str, Sequence[Family]]]) -> None:
        self._tally = tally
        self._members = members

    def describe(self) -> Iterator[Metric]:
        """Nothing: what there is, is known once somebody has told it."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All metrics as last told."""
        return self._tally.metrics(self._members())


def _sum(totals: dict[str, _Total], families: Iterable[Family]) -> None:
    for family in families:
        if family.type in _SUMMED:
            total = totals.get(family.name)
            if total is None:
                total = totals[family.name] = _Total(family)
            total.add(family.samples)


def _family(name: str, total: _Total) -> Family:
    samples = [Sample(series, dict(labels), value) for (series, labels), value in total.series.items()]
    return Family(name, total.documentation, total.type, samples)
