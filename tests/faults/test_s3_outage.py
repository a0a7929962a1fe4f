"""S3 is gone altogether while payloads come in by the megabyte: memory stays flat, Kafka holds, and all drains."""

from tests.fakes.script import Cut
from tests.harness.durations import Durations
from tests.harness.pipeline import Pipeline
from tests.harness.trial import Trial

MIB = 1024 * 1024
BUDGET_BYTES = 8 * MIB
PILE_BYTES = 120 * MIB
"""What comes in during the outage, in the short form and in the long one: the load is so many bytes a second."""

GROWTH_MAX_BYTES = 64 * MIB
"""Budget, fetched and not yet admitted (1 MiB a partition), a client's buffers and its errors' traces: measured, an
uploader grows by 12 MiB while S3 is silent, by 35 while connections are refused (errors die with the next collection of
garbage) and by 52 at most while it drains, for piles of 60 MiB and of 240 alike. Who holds the pile grows by 120."""

PER_S, ITEMS = 40, 5


def test_total_outage_under_load(s3_pipeline: Pipeline, durations: Durations) -> None:
    """Half of it S3 is silent, half of it nobody listens.

    Clients get their 200s throughout; the uploader holds its budget and no more, however much piles up in Kafka; it is
    drained within 30 s.
    """
    trial = Trial(s3_pipeline, {"MAX_BUFFER_BYTES": str(BUDGET_BYTES)})
    s3 = s3_pipeline.s3
    size = int(PILE_BYTES / durations.outage_s / (PER_S * ITEMS))
    with trial.under_load("total outage", per_s=PER_S, size=size, growth_max_bytes=GROWTH_MAX_BYTES) as load:
        s3_pipeline.watch.mark()
        accepted = load.accepted
        silent = s3.script.inject(Cut.HANG)
        trial.endure(load, durations.outage_s / 2, silent)
        s3.refuse()
        trial.endure(load, durations.outage_s / 2)
        piled_up_bytes = (load.accepted - accepted) * size
        silent.heal()
        s3.listen()
    assert piled_up_bytes > GROWTH_MAX_BYTES + 24 * MIB, "too little came in to tell memory that grows from flat"
