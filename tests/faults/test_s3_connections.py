"""Connections to S3 go wrong, before a put is stored and after: it is put again, the same body under the same key."""

from tests.fakes.script import Cut
from tests.harness.durations import Durations
from tests.harness.pipeline import Pipeline
from tests.harness.trial import Trial
from tests.harness.waiting import until

CUTS = {
    "reset before the body": Cut.RESET,
    "stored, the answer lost": Cut.STORE_THEN_DROP,
    "stored, the answer truncated": Cut.TRUNCATE,
    "silence until it is healed": Cut.HANG,
}
SILENCES = {
    "no answer, ever": Cut.HANG,
    "stored, no answer, ever": Cut.STORE_THEN_HANG,
}


def test_cut_connections(s3_pipeline: Pipeline, durations: Durations) -> None:
    """Each way to lose a connection, for all puts at once: nothing is lost, and nothing lies under a second key."""
    trial = Trial(s3_pipeline)
    for name, cut in CUTS.items():
        with trial.under_load(name) as load:
            injection = s3_pipeline.s3.script.inject(cut)
            trial.endure(load, durations.fault_s, injection)
            injection.heal()
    with trial.under_load("connections refused") as load:
        s3_pipeline.s3.refuse()
        trial.endure(load, durations.fault_s)
        s3_pipeline.s3.listen()
    assert trial.verdict is not None
    assert trial.verdict.duplicates > 0, f"nothing was put again after a lost answer: {trial.verdict}"


def test_a_put_that_is_never_answered_is_given_up(s3_pipeline: Pipeline) -> None:
    """Nobody heals these: the client's own deadline ends the put, it is tried again, and all is drained in time."""
    trial = Trial(s3_pipeline)
    with trial.under_load(" and ".join(SILENCES)) as load:
        # Few: a cautious limit has not many places, and each of these holds one for 10 s.
        silent = [s3_pipeline.s3.script.inject(cut, times=4) for cut in SILENCES.values()]
        until(lambda: all(injection.left == 0 for injection in silent), "8 puts without an answer", deadline_s=20)
        trial.endure(load, 1, *silent)
