"""S3 is gone altogether while payloads come in by the megabyte: memory stays flat, Kafka holds, and all drains."""

import re
import time
from datetime import UTC, datetime

from tests.fakes.script import Cut
from tests.harness.durations import Durations
from tests.harness.pipeline import Pipeline
from tests.harness.tiers import Tier, get
from tests.harness.trial import Trial
from tests.harness.waiting import until

MIB = 1024 * 1024
BUDGET_BYTES = 8 * MIB
PILE_BYTES = 120 * MIB
"""What comes in during the outage, in the short form and in the long one: the load is so many bytes a second."""

GROWTH_MAX_BYTES = 64 * MIB
"""Budget, fetched and not yet admitted (1 MiB a partition), a client's buffers and its errors' traces: measured, an
uploader grows by 12 MiB while S3 is silent, by 35 while connections are refused (errors die with the next collection of
garbage) and by 52 at most while it drains, for piles of 60 MiB and of 240 alike. Who holds the pile grows by 120."""

PER_S, ITEMS = 40, 5


METRICS = "spillway_uploader_"


def tells_what_an_operator_needs(uploader: Tier, began_s: float, piled_up: int, lasts_s: float) -> None:
    """What is wrong, since when, how far behind, and how long until data is lost: from /readyz and /metrics alone."""
    status, body = get(f"{uploader.ops_url}/readyz")
    words = re.search(r'"s3":"(connection|timeout) since ([^ ]+)Z \((\d+) s\): [^"]+', body)
    assert status == 503, body
    assert words, body
    since_s = datetime.fromisoformat(words[2]).replace(tzinfo=UTC).timestamp()
    assert began_s - 1 <= since_s <= time.time(), body

    (failing_since_s,) = uploader.series(f"{METRICS}s3_failing_since_timestamp_seconds").values()
    assert abs(failing_since_s - since_s) < 1.5, (failing_since_s, body)
    until(
        lambda: uploader.metric(f"{METRICS}lag_records") > piled_up * 0.9,
        f"a lag of about {piled_up} records",
        deadline_s=10,
    )
    assert uploader.metric(f"{METRICS}lag_bytes") > PILE_BYTES / 2
    assert max(uploader.series(f"{METRICS}lag_seconds").values()) > lasts_s / 2
    left = uploader.series(f"{METRICS}retention_left_seconds").values()
    assert left, "no retention clock"
    assert min(left) > 0, left


def test_total_outage_under_load(s3_pipeline: Pipeline, durations: Durations) -> None:
    """Half of it S3 is silent, half of it nobody listens.

    Clients get their 200s throughout; the uploader holds its budget and no more, however much piles up in Kafka; its
    operator can read what is wrong; it is drained within 30 s.
    """
    trial = Trial(s3_pipeline, {"MAX_BUFFER_BYTES": str(BUDGET_BYTES)})
    s3 = s3_pipeline.s3
    size = int(PILE_BYTES / durations.outage_s / (PER_S * ITEMS))
    with trial.under_load("total outage", per_s=PER_S, size=size, growth_max_bytes=GROWTH_MAX_BYTES) as load:
        s3_pipeline.watch.mark()
        accepted, began_s = load.accepted, time.time()
        silent = s3.script.inject(Cut.HANG)
        trial.endure(load, durations.outage_s / 2, silent)
        s3.refuse()
        trial.endure(load, durations.outage_s / 2)
        piled_up = load.accepted - accepted
        tells_what_an_operator_needs(trial.uploader, began_s, piled_up, durations.outage_s)
        silent.heal()
        s3.listen()
    assert piled_up * size > GROWTH_MAX_BYTES + 24 * MIB, "too little came in to tell memory that grows from flat"
