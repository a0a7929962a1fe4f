"""What the dashboard asks, in the reading order of an outage. Owns the queries and what each tells; knows no JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field

PARTITIONS_SHOWN = 10  # lines of a panel by partition: a topic may have 200

_GREEN, _ORANGE, _RED = "green", "orange", "red"


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure or one graph.

    Attributes:
        description: what it says, and what to think of it; shown behind the panel's `i`.
        queries: pairs of PromQL and legend. `{HERE}` in a query stands for the dashboard's variables.
        unit: Grafana's word for it.
        steps: colours from a value on; the first from the lowest.

    """

    title: str
    description: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    single: bool = False
    steps: Sequence[tuple[float | None, str]] = field(default=((None, _GREEN),))
    stacked: bool = False

    @property
    def width(self) -> int:
        """Columns of the grid."""
        return 4 if self.single else 8

    @property
    def height(self) -> int:
        """Rows of the grid."""
        return 4 if self.single else 8


def _figure(
    title: str,
    query: str,
    description: str,
    steps: Sequence[tuple[float | None, str]],
    unit: str = "short",
) -> Panel:
    return Panel(title, description, [(query, "")], unit, single=True, steps=steps)


def _quantiles(metric: str) -> list[tuple[str, str]]:
    return [
        (f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{HERE}}[5m])))", f"p{q * 100:g}")
        for q in (0.5, 0.99)
    ]


def _of_each_tier(figure: str) -> list[tuple[str, str]]:
    return [(f"max by (instance) ({figure} {only})", f"{tier} {{{{instance}}}}") for tier, only in _ONLY.items()]


def _by_partition(metric: str, order: str = "topk") -> list[tuple[str, str]]:
    best = "max" if order == "topk" else "min"
    query = f"{order}({PARTITIONS_SHOWN}, {best} by (namespace, partition) ({metric}{{HERE}}))"
    return [(query, "{{namespace}} {{partition}}")]


_NONE = "0 * sum(spillway_uploader_in_flight{HERE})"
"""0 as long as an uploader tells anything: where none does, a figure must say `no data`, and not that all is well."""

_DRAINED_IN = (
    "sum(job:spillway_uploader_lag_records:sum{HERE}) / (sum(job:spillway_uploader_stored:rate5m{HERE})"
    " - (sum(job:spillway_ingest_payloads:rate5m{HERE}) or vector(0)) > 0)"
)

_ONLY = {
    tier: f"and on (namespace, job, instance) {metric}{{HERE}}"
    for tier, metric in (("ingest", "spillway_ingest_in_flight_bytes"), ("uploader", "spillway_uploader_in_flight"))
}
"""Narrows `process_*`, which every exporter has, to the processes of a tier."""

_ANY_IS_BAD = ((None, _GREEN), (1, _RED))

ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    (
        "Is data safe?",
        (
            _figure(
                "Retention left",
                "min(job:spillway_uploader_retention_left_seconds:min{HERE})",
                "Until Kafka may delete the oldest payload that is not in S3. Above a day there is time; below, raise "
                "retention.ms first. No data: no uploader holds a partition, ask `spillway-uploader lag`.",
                ((None, _RED), (86400, _ORANGE), (172800, _GREEN)),
                "s",
            ),
            _figure(
                "Lost in 24 h",
                # What a series is born with is a loss too; increase() alone does not see it.
                "sum(increase(spillway_uploader_lost_records_total{HERE}[24h]) > 0"
                " or (last_over_time(spillway_uploader_lost_records_total{HERE}[24h])"
                f" unless spillway_uploader_lost_records_total{{HERE}} offset 24h)) or {_NONE}",
                "Payloads that retention deleted before they were stored. The uploaders' log has the exact offsets.",
                _ANY_IS_BAD,
            ),
            _figure(
                "Partitions nobody holds",
                "sum(max_over_time(job:spillway_uploader_partitions:count{HERE}[1d]))"
                " - (sum(job:spillway_uploader_partitions:count{HERE}) or vector(0))",
                "Against the most of the last day. Their payloads wait, and none of the figures here counts them.",
                _ANY_IS_BAD,
            ),
            _figure(
                "Partitions that stand still",
                f"sum(max by (namespace, job, partition) (spillway_uploader_stalled{{HERE}})) or {_NONE}",
                "With lag and without progress for STALLED_AFTER_S. All of them: S3. A few: see /readyz.",
                _ANY_IS_BAD,
            ),
            _figure(
                "S3 failing for",
                f"max(time() - spillway_uploader_s3_failing_since_timestamp_seconds{{HERE}}) or {_NONE}",
                "Since an uploader's first refused put; 0 while S3 takes them.",
                ((None, _GREEN), (1, _ORANGE), (300, _RED)),
                "s",
            ),
            _figure(
                "Dead letters held",
                "sum(spillway_uploader_dead_letters_held{HERE})",
                "Payloads that S3 refuses and that wait: over the share, or the dead-letter topic is not writable.",
                _ANY_IS_BAD,
            ),
        ),
    ),
    (
        "How full is the reservoir?",
        (
            Panel(
                "Lag",
                "Payloads in Kafka that are not in S3. A burst goes up and comes down; what only goes up needs a look "
                "at the next row.",
                [("sum by (namespace) (job:spillway_uploader_lag_records:sum{HERE})", "{{namespace}}")],
            ),
            Panel(
                "Oldest payload not in S3, the ten worst partitions",
                "Its age. One line above the others: that partition stands still. All together: S3, or too few "
                "uploaders. Objective: below 300 s. It stands still itself while Kafka does not answer.",
                _by_partition("spillway_uploader_lag_seconds"),
                "s",
            ),
            Panel(
                "Retention clock, the ten worst partitions",
                "Seconds until retention may delete the oldest unstored payload. A line that falls by a second a "
                "second is a partition that stores nothing.",
                _by_partition("spillway_uploader_retention_left_seconds", "bottomk"),
                "s",
                steps=((None, _RED), (86400, _GREEN)),
            ),
        ),
    ),
    (
        "Inflow and outflow",
        (
            Panel(
                "Payloads a second",
                "In: acknowledged by Kafka. Out: put into S3, also those stored once more after a restart. Out below "
                "in: the lag grows.",
                [
                    ("sum(job:spillway_ingest_payloads:rate5m{HERE})", "in"),
                    ("sum(job:spillway_uploader_stored:rate5m{HERE})", "out"),
                ],
                "ops",
            ),
            Panel(
                "Bytes a second",
                "The same in bytes: whether payloads have become larger.",
                [
                    ("sum(rate(spillway_ingest_payload_bytes_total{HERE}[5m]))", "in"),
                    ('sum(rate(spillway_uploader_upload_bytes_total{HERE, outcome="stored"}[5m]))', "out"),
                ],
                "Bps",
            ),
            Panel(
                "Lag is gone in",
                "Lag over outflow less inflow, at the rates of the last five minutes. No line: nothing waits, or it "
                "does not shrink at this rate.",
                [(_DRAINED_IN, "at this rate")],
                "s",
            ),
            Panel(
                "From Kafka to S3",
                "Age of the payloads that were stored, since Kafka's time stamp of them. Nothing stored, no line: what "
                "waits is in the row above.",
                _quantiles("spillway_uploader_stored_age_seconds"),
                "s",
            ),
        ),
    ),
    (
        "S3",
        (
            Panel(
                "Put attempts a second",
                "Failed ones are tried again without end. Only failed ones: S3 is away.",
                [("sum by (outcome) (rate(spillway_uploader_uploads_total{HERE}[5m]))", "{{outcome}}")],
                "ops",
                stacked=True,
            ),
            Panel(
                "What failed puts met",
                "`transient` passes by itself (slow_down, timeout, connection, server_error). `environment` waits for "
                "you: bucket, credentials, policy, region, key. `poison` is held.",
                [
                    (
                        "sum by (kind, reason) (rate(spillway_uploader_retries_total{HERE}[5m])) > 0",
                        "{{kind}} {{reason}}",
                    )
                ],
                "ops",
                stacked=True,
            ),
            Panel(
                "One put attempt",
                "How long it took, also a failed one.",
                _quantiles("spillway_uploader_upload_seconds"),
                "s",
            ),
            Panel(
                "Puts under way, and how many may be",
                "The limit falls when S3 sheds and climbs as it takes more. Under way at the limit for long, with "
                "lag: S3 is the bottleneck, and more uploaders do not help.",
                [
                    ("sum(spillway_uploader_in_flight{HERE})", "under way"),
                    ("sum(spillway_uploader_in_flight_limit{HERE})", "limit"),
                    ("sum(spillway_uploader_in_flight_max{HERE})", "MAX_UPLOADS"),
                ],
            ),
            Panel(
                "Dead letters in an hour",
                "By S3's reason. One reason from one moment on: a deploy.",
                [
                    (
                        "sum by (reason) (increase(spillway_uploader_dead_letters_total{HERE}[1h])) > 0",
                        "{{reason}}",
                    )
                ],
                stacked=True,
            ),
            Panel(
                "S3 clients made anew in an hour",
                "By reason. Now and then is how a fault heals.",
                [("sum by (reason) (increase(spillway_uploader_store_restarts_total{HERE}[1h])) > 0", "{{reason}}")],
            ),
        ),
    ),
    (
        "Errors",
        (
            Panel(
                "Answers a second",
                "By status and code. 503: nothing was written. 504: nobody knows. 4xx: the client's own.",
                [("sum by (status, code) (rate(spillway_ingest_requests_total{HERE}[5m])) > 0", "{{status}} {{code}}")],
                "ops",
                stacked=True,
            ),
            Panel(
                "Not acknowledged",
                "Share of all answers but 4xx that are not 200. Objective: 0.1 %; a page comes at 1.44 % in both the "
                "hour and the five minutes.",
                [
                    ("max(job:spillway_ingest_unacked:ratio_rate5m{HERE})", "5 min"),
                    ("max(job:spillway_ingest_unacked:ratio_rate1h{HERE})", "1 h"),
                    ("max(job:spillway_ingest_unacked:ratio_rate3d{HERE})", "3 d"),
                ],
                "percentunit",
                steps=((None, _GREEN), (0.001, _RED)),
            ),
            Panel(
                "Stored late",
                "Share of the partitions whose oldest unstored payload is older than 300 s, or that nobody tells of. "
                "Objective: 0.5 % of the time.",
                [
                    ("max(job:spillway_uploader_late_partitions:ratio_avg5m{HERE})", "5 min"),
                    ("max(job:spillway_uploader_late_partitions:ratio_avg1h{HERE})", "1 h"),
                    ("max(job:spillway_uploader_late_partitions:ratio_avg3d{HERE})", "3 d"),
                ],
                "percentunit",
                steps=((None, _GREEN), (0.005, _RED)),
            ),
            Panel(
                "Batches a second by outcome",
                "`acked`, or what became of one try: `not_now` and `moved` are tried again, `unknown` ends as a 504.",
                [("sum by (outcome) (rate(spillway_ingest_batches_total{HERE}[5m])) > 0", "{{outcome}}")],
                "ops",
                stacked=True,
            ),
            Panel(
                "Offset commits a second",
                "A failed one costs that records are stored again, after a restart, under the same keys.",
                [("sum by (outcome) (rate(spillway_uploader_commits_total{HERE}[5m])) > 0", "{{outcome}}")],
                "ops",
                stacked=True,
            ),
            Panel(
                "Ended on clients, a second",
                "Connections closed, by reason, and bodies that ended early. Much of it from one moment on: a client's "
                "fault, or a network's.",
                [
                    ("sum by (reason) (rate(spillway_ingest_connections_closed_total{HERE}[5m])) > 0", "{{reason}}"),
                    ("sum(rate(spillway_ingest_disconnects_total{HERE}[5m]))", "body ended early"),
                ],
                "ops",
            ),
            Panel(
                "Made anew in 30 minutes",
                "Kafka clients made anew, and processes that started. A steady rise is a fault that does not heal.",
                [
                    ("sum(increase(spillway_uploader_consumer_restarts_total{HERE}[30m]))", "consumers"),
                    ("sum(increase(spillway_ingest_producer_restarts_total{HERE}[30m]))", "producers"),
                    ("sum(increase(spillway_ingest_worker_restarts_total{HERE}[30m]))", "ingest workers"),
                    ("sum(changes(spillway_uploader_consumer_restarts_created{HERE}[30m]))", "uploader processes"),
                    ("sum(changes(spillway_ingest_producer_restarts_created{HERE}[30m]))", "ingest processes"),
                ],
            ),
            Panel(
                "Processes that are not ready",
                "By the condition of /readyz that fails. Some for a moment are a roll-out or a rebalance.",
                [("count by (job, condition) (spillway_ready{HERE} == 0)", "{{job}} {{condition}}")],
                stacked=True,
            ),
            Panel(
                "Since Kafka's last answer to an uploader",
                "Looks come every two seconds. While it climbs, lag, age and retention clock stand still.",
                [
                    (
                        "max by (instance) (time() - (spillway_uploader_kafka_answered_timestamp_seconds{HERE} > 0))",
                        "{{instance}}",
                    )
                ],
                "s",
                steps=((None, _GREEN), (120, _RED)),
            ),
        ),
    ),
    (
        "Saturation",
        (
            Panel(
                "Bytes of collections without an answer",
                "Each process, and MAX_IN_FLIGHT_BYTES. At the bound, clients get 503 overloaded.",
                [
                    ("max by (instance) (spillway_ingest_in_flight_bytes{HERE})", "{{instance}}"),
                    ("min(spillway_ingest_in_flight_bytes_max{HERE})", "bound"),
                ],
                "bytes",
            ),
            Panel(
                "Kafka's acknowledgement of a batch",
                "Slow acks fill the row's first panel; fast ones with a full panel mean that more comes in than one "
                "process takes.",
                _quantiles("spillway_ingest_ack_seconds"),
                "s",
            ),
            Panel(
                "One request",
                "From its head to its answer's first byte, the client's own sending included.",
                _quantiles("spillway_ingest_request_seconds"),
                "s",
            ),
            Panel(
                "Open connections",
                "Each process, and MAX_CONNECTIONS. Past it the silent and the idle have to go.",
                [
                    ("max by (instance) (spillway_ingest_connections{HERE})", "{{instance}}"),
                    ("min(spillway_ingest_connections_max{HERE})", "bound"),
                ],
            ),
            Panel(
                "Payload bytes in the uploaders' memory",
                "Each process, and MAX_BUFFER_BYTES. Full in an outage is by design: the rest waits in Kafka.",
                [
                    ("max by (instance) (spillway_uploader_buffered_bytes{HERE})", "{{instance}}"),
                    ("min(spillway_uploader_buffered_bytes_max{HERE})", "bound"),
                ],
                "bytes",
            ),
            Panel(
                "Partitions with no room",
                "Not asked for more, because what is in memory is not stored yet. More than none, with S3 well: "
                "MAX_WORKERS or more uploaders.",
                [("sum(spillway_uploader_full_partitions{HERE})", "full")],
            ),
            Panel(
                "Memory of a process",
                "Resident, as the kernel counts it. It stays flat whatever is down: what it may hold is bounded.",
                _of_each_tier("process_resident_memory_bytes{HERE}"),
                "bytes",
            ),
            Panel(
                "CPU of a process",
                "Cores in use. A process uses one at most, nearly: at 1, it is the bottleneck, and more of them help.",
                _of_each_tier("rate(process_cpu_seconds_total{HERE}[5m])"),
            ),
        ),
    ),
)
