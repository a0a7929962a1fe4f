"""What is measured, as data: scenarios, their cases, their subjects, and the figures to reach. Runs nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

OURS, AIO = "ours", "ours-aiobotocore"


class Kind(Enum):
    """How a scenario is run: each has a function in `rounds`."""

    END_TO_END = auto()
    INGEST = auto()
    DRAIN = auto()
    PUT = auto()
    IN_FLIGHT = auto()
    RAMP = auto()
    HEADLINE = auto()


@dataclass(frozen=True, slots=True)
class Case:
    """One row: these subjects in turn, on the same load.

    Attributes:
        payloads: a request.
        seconds: of load a run; how many payloads that is, the subject's own speed says.
        records: of a drain: the backlog of each subject, as much as it stores in some seconds.
        warm: of a drain: the share of the backlog after which it is measured.

    """

    name: str
    subjects: tuple[str, ...]
    payloads: int = 1
    size_bytes: int = 1024
    seconds: float = 2.0
    records: Mapping[str, int] = field(default_factory=dict)
    warm: float = 0.05

    def shortened(self, seconds: float, share: float) -> "Case":
        """The same with so many seconds at most, and that share of its records."""
        records = {name: int(share * count) for name, count in self.records.items()}
        return replace(self, seconds=min(self.seconds, seconds), records=records)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Some rows of one kind.

    Attributes:
        rounds: of each case; `--rounds` and `--quick` change it.
        by_request: runs only when it is asked for by its name.

    """

    name: str
    title: str
    kind: Kind
    cases: tuple[Case, ...]
    rounds: int = 3
    by_request: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio of two subjects' CPU a payload in one case.

    Attributes:
        at_most: the figure to reach; None: only reported.
        then: the next one.

    """

    scenario: str
    case: str
    over: str
    under: str
    at_most: float | None = None
    then: float | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure of one subject in one case, and what it has to be. One of `at_most` and `at_least` is set.

    Attributes:
        what: its name in the table, with its unit.
        path: where it stands in the run's document, dots between.

    """

    scenario: str
    case: str
    subject: str
    what: str
    path: str
    at_most: float | None = None
    at_least: float | None = None

    def holds(self, value: float) -> bool:
        """Whether it is reached."""
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)


_PEERS = ("go-seed", "go-raw", "one-day")
_SIZES = {"0.2 KB": 200, "1 KB": 1024, "16 KB": 16 << 10}


def _drain(name: str, records: Mapping[str, int], warm: float = 0.05) -> Case:
    return Case(name, tuple(records), records=records, warm=warm)


SCENARIOS = (
    Scenario(
        "end-to-end",
        "HTTP to stored object, one object a payload",
        Kind.END_TO_END,
        (
            Case("1 payload a request", (OURS, *_PEERS, AIO)),
            Case("20 payloads a request", (OURS, *_PEERS, AIO), payloads=20),
        ),
        rounds=7,
    ),
    Scenario(
        "sizes",
        "HTTP to stored object at other sizes",
        Kind.END_TO_END,
        (
            Case("500 a request, 1 KB", (OURS, "go-raw"), payloads=500),
            Case("1 a request, 0.2 KB", (OURS, "go-raw"), size_bytes=200),
            Case("1 a request, 16 KB", (OURS, "go-raw"), size_bytes=16 << 10),
        ),
        rounds=5,
    ),
    Scenario(
        "ingest",
        "HTTP to the ack of Kafka",
        Kind.INGEST,
        tuple(
            Case(f"{count} a request, {name}", ("ours-ingest", "prototype"), count, size, 1.2)
            for count in (1, 20, 500)
            for name, size in _SIZES.items()
        ),
        rounds=4,
    ),
    Scenario(
        "upload",
        "Kafka to stored object: a topic that was filled before",
        Kind.DRAIN,
        (
            _drain("plain HTTP", {"ours-uploader": 40_000, "ours-aiobotocore-uploader": 3_000}),
            _drain("TLS", {"ours-uploader-tls": 40_000, "ours-aiobotocore-uploader-tls": 3_000}),
        ),
        rounds=6,
    ),
    Scenario(
        "product",
        "Kafka to stored object: an established product, the second half of a long drain",
        Kind.DRAIN,
        (_drain("plain HTTP", {"ours-uploader": 40_000, "camel": 40_000}, warm=0.5),),
        by_request=True,
    ),
    Scenario(
        "put",
        "a PUT of 1 KB, 64 in flight, without Kafka",
        Kind.PUT,
        (
            Case("plain HTTP", ("wire", "aiobotocore")),
            Case("TLS", ("wire", "aiobotocore")),
        ),
        rounds=6,
    ),
    Scenario(
        "in-flight",
        "512 puts in flight at 150 ms, of Little's law",
        Kind.IN_FLIGHT,
        (Case("512 in flight", ("sleep", "wire", "aiobotocore")),),
    ),
    Scenario(
        "replay",
        "a backlog: `replay` against `run`",
        Kind.DRAIN,
        (_drain("backlog", {"run": 40_000, "replay": 40_000}),),
        rounds=3,
    ),
    Scenario(
        "ramp",
        "latency of ingest up to saturation, 1 payload a request",
        Kind.RAMP,
        (Case("1 payload a request", ("ours-ingest",), seconds=4),),
        rounds=5,
    ),
    Scenario(
        "scaling",
        "one and two processes of each tier",
        Kind.END_TO_END,
        (Case("1 payload a request", (OURS, "ours-2-ingest", "ours-2-uploaders")),),
        rounds=4,
    ),
    Scenario(
        "headline",
        "a million one-payload requests in one minute, then their drain",
        Kind.HEADLINE,
        (Case("1,000,000 requests", (OURS,), seconds=60),),
        rounds=1,
    ),
)

_ONE, _TWENTY = "1 payload a request", "20 payloads a request"
TARGETS = (
    Target("end-to-end", _ONE, OURS, "go-seed", 0.7, then=0.5),
    Target("end-to-end", _ONE, OURS, "go-raw", 0.9),
    Target("end-to-end", _ONE, OURS, "one-day", 0.15),
    Target("end-to-end", _ONE, AIO, "go-seed"),
    Target("end-to-end", _TWENTY, OURS, "go-seed", 0.35, then=0.25),
    Target("end-to-end", _TWENTY, OURS, "go-raw", 0.5),
    Target("end-to-end", _TWENTY, OURS, "one-day", 0.15),
    Target("end-to-end", _TWENTY, AIO, "go-seed"),
    *(
        Target("sizes", case, OURS, "go-raw")
        for case in ("500 a request, 1 KB", "1 a request, 0.2 KB", "1 a request, 16 KB")
    ),
    Target("put", "plain HTTP", "wire", "aiobotocore", 0.06),
    Target("put", "TLS", "wire", "aiobotocore", 0.08),
    *(
        Target("ingest", f"{count} a request, {name}", "ours-ingest", "prototype", 1.5)
        for count in (1, 20, 500)
        for name in _SIZES
    ),
    Target("upload", "plain HTTP", "ours-uploader", "ours-aiobotocore-uploader"),
    Target("upload", "TLS", "ours-uploader-tls", "ours-aiobotocore-uploader-tls"),
    Target("product", "plain HTTP", "ours-uploader", "camel"),
    Target("replay", "backlog", "replay", "run"),
    Target("scaling", _ONE, "ours-2-ingest", OURS),
    Target("scaling", _ONE, "ours-2-uploaders", OURS),
)

_INGEST_MIB, _UPLOADER_MIB = 143, 190  # 150 and 200 MB
_MILLION, _DRAIN = "1,000,000 requests", "their drain"
BOUNDS = (
    Bound("in-flight", "512 in flight", "wire", "of Little's law", "other.little", at_least=0.9),
    Bound("in-flight", "512 in flight", "aiobotocore", "of Little's law", "other.little", at_least=0.9),
    Bound("ramp", "70% of it", "ours-ingest", "99th percentile, ms", "report.latency_ms.p99", at_most=25),
    *(
        Bound(scenario, case, "ours-ingest", "memory of ingest, MiB", "peaks_mib.ingest", at_most=_INGEST_MIB)
        for scenario, case in (("ramp", "saturated (closed loop)"), ("ingest", "500 a request, 16 KB"))
    ),
    *(
        Bound("upload", case, subject, "memory of the uploader, MiB", "peaks_mib.uploader", at_most=_UPLOADER_MIB)
        for case, tls in (("plain HTTP", ""), ("TLS", "-tls"))
        for subject in (f"ours-uploader{tls}", f"ours-aiobotocore-uploader{tls}")
    ),
    # The last of them is due at the end of the minute, and its answer a moment later.
    Bound("headline", _MILLION, "ours-ingest", "seconds to the last ack", "report.seconds", at_most=61),
    Bound("headline", _DRAIN, "ours-uploader", "seconds to the last object", "other.whole_s", at_most=60),
)
