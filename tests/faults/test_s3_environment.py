"""What a person must mend: permissions, credentials, bucket, region. The uploader waits without end and says why.

A setting that is wrong for an hour must cost an hour, never a record: nothing is given up, nothing is dead-lettered.
"""

from pathlib import Path

from tests.fakes.script import ACCESS_DENIED, EXPIRED_TOKEN, NO_SUCH_BUCKET, Answer, wrong_region
from tests.harness.broker import Topic
from tests.harness.durations import Durations
from tests.harness.load import payloads, post_at_once
from tests.harness.oracle import Answers
from tests.harness.pipeline import Pipeline
from tests.harness.tiers import Tier
from tests.harness.trial import Trial
from tests.harness.waiting import until

FAULTS = {  # the fault, and the word that /readyz and the metric have for it
    "access denied, then granted": (ACCESS_DENIED, "access_denied"),
    "bucket missing, then made": (NO_SUCH_BUCKET, "no_such_bucket"),
    "wrong region": (wrong_region("eu-west-1"), "permanent_redirect"),
    "the KMS key is disabled": (Answer(400, "KMS.DisabledException"), "kms_disabled_exception"),
}


def says(uploader: Tier, word: str) -> None:
    """Wait until the uploader says what is wrong, in the operator's two places."""
    until(lambda: word in uploader.reasons().get("s3", ""), f"/readyz to say {word}", deadline_s=20)
    series = f'spillway_uploader_retries_total{{kind="environment",reason="{word}"}}'
    assert uploader.metric(series) > 0, f"{series} counts nothing"


def dead_letters(topic: Topic) -> int:
    """How many records the dead-letter topic has ever had."""
    return sum(Topic(topic.bootstrap_servers, topic.dead, 1).ends().values())


def test_environment_errors(s3_pipeline: Pipeline, durations: Durations) -> None:
    """Each is retried without end, named in words, never dead-lettered, and over when it is mended outside."""
    trial = Trial(s3_pipeline)
    for name, (fault, word) in FAULTS.items():
        with trial.under_load(name) as load:
            injection = s3_pipeline.s3.script.inject(fault)
            trial.endure(load, durations.fault_s, injection)
            says(trial.uploader, word)
            injection.heal()
        assert dead_letters(s3_pipeline.topic) == 0, name


def test_an_expired_token_is_renewed_outside(s3_pipeline: Pipeline, durations: Durations, tmp_path: Path) -> None:
    """Credentials in a file expire; whoever writes new ones there is not asked to restart the uploader, too."""
    file = tmp_path / "credentials"

    def write(token: str) -> None:
        replacement = tmp_path / "credentials.new"
        replacement.write_text(
            f"[default]\naws_access_key_id = test\naws_secret_access_key = secret\naws_session_token = {token}\n"
        )
        replacement.replace(file)

    write("first-token")
    # Empty variables count as absent: the file is next in the chain.
    from_file = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    trial = Trial(s3_pipeline, from_file)
    with trial.under_load("expired token, then renewed") as load:
        expired = s3_pipeline.s3.script.inject(EXPIRED_TOKEN, credential="first-token")  # and never healed
        trial.endure(load, durations.fault_s, expired)
        says(trial.uploader, "expired_token")
        write("second-token")
    assert dead_letters(s3_pipeline.topic) == 0


def test_start_before_the_bucket_is_there(s3_pipeline: Pipeline) -> None:
    """It waits, says for what, holds no partition meanwhile, and begins when the bucket comes."""
    missing = s3_pipeline.s3.script.inject(NO_SUCH_BUCKET)
    ingest, uploader = s3_pipeline.ingest(), s3_pipeline.uploader()
    ingest.wait_ready()
    says(uploader, "no_such_bucket")
    answers = Answers()
    post_at_once(ingest.collections_url, [payloads(20)], answers)
    missing.heal()
    uploader.wait_ready()
    s3_pipeline.settle(answers)
