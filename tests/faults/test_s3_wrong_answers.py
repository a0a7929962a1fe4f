"""S3 says 200 and something that cannot be: such a 200 is not believed, the put is repeated."""

from tests.fakes.script import WRONG_ETAG, Dribble
from tests.harness.pipeline import Pipeline
from tests.harness.trial import Trial
from tests.harness.waiting import until

WRONG, SLOW = 40, 8  # as many slow ones as a cautious limit lets be under way at once, and some room


def test_a_wrong_etag_is_not_believed(s3_pipeline: Pipeline) -> None:
    """The ETag of a plain put is its body's MD5: with another one, S3 has kept something else, and gets it again."""
    trial = Trial(s3_pipeline)
    struck: set[str] = set()

    def strike(key: str) -> bool:
        struck.add(key)
        return True

    with trial.under_load("wrong ETag"):
        wrong = s3_pipeline.s3.script.inject(WRONG_ETAG, times=WRONG, key=strike)
        until(lambda: wrong.left == 0, f"{WRONG} wrong ETags", deadline_s=20)
    written = s3_pipeline.objects()
    believed = [key for key in struck if len(written[key]) < 2]
    assert not believed, f"{len(believed)} of {len(struck)} puts with a wrong ETag were believed, as {believed[:3]}"


def test_an_answer_byte_by_byte_ends(s3_pipeline: Pipeline) -> None:
    """An answer that comes a byte every 2 s never times out as a read; the put has a deadline of its own."""
    trial = Trial(s3_pipeline)
    with trial.under_load("an answer byte by byte"):
        slow = s3_pipeline.s3.script.inject(Dribble(2.0), times=SLOW)
        until(lambda: slow.left == 0, f"{SLOW} slow answers", deadline_s=20)
