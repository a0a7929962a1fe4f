"""The whole path of a test: a topic, an S3 server that breaks by script, an ingest and uploaders as processes.

Owns how a test ends: the backlog drains, the broker's own offsets say that nothing is left, and the oracle judges.
"""

from collections.abc import Mapping

from tests.fakes.s3 import FakeS3
from tests.fakes.script import Version
from tests.harness.broker import Topic
from tests.harness.oracle import Answers, Verdict, judge, missing
from tests.harness.processes import Processes
from tests.harness.tiers import IngestTier, Tier, start_ingest, start_uploader
from tests.harness.waiting import until

DRAIN_DEADLINE_S = 30
"""DESIGN §9: everything drains by itself within 30 s of healing."""

BUCKET = "bucket"
_OWN_KEYS = ".spillway/"  # the uploaders' probe, which is no payload

# The least that the settings allow: a member killed with SIGKILL holds its partitions until its session ends.
_SETTINGS = {"KAFKA_SESSION_TIMEOUT_S": "6"}


class Pipeline:
    """Tiers around one topic and one bucket. Processes are ended by the fixture that gave `processes`."""

    def __init__(self, processes: Processes, topic: Topic, s3: FakeS3, s3_client: str = "aiobotocore") -> None:
        self.topic = topic
        self.s3 = s3
        self.shelf = s3.create_bucket(BUCKET)
        self._processes = processes
        self._settings = {**_SETTINGS, "S3_CLIENT": s3_client}

    def ingest(self, settings: Mapping[str, str] | None = None) -> IngestTier:
        """Start an ingest; does not wait."""
        return start_ingest(self._processes, self.topic, settings)

    def uploader(self, settings: Mapping[str, str] | None = None) -> Tier:
        """Start an uploader; does not wait."""
        merged = {**self._settings, **(settings or {})}
        return start_uploader(self._processes, self.topic, self.s3.environment(), BUCKET, merged)

    def ready(self, settings: Mapping[str, str] | None = None) -> tuple[IngestTier, Tier]:
        """Start one of each at the same time and wait for both."""
        tiers = self.ingest(), self.uploader(settings)
        for tier in tiers:
            tier.wait_ready()
        return tiers

    def objects(self) -> dict[str, tuple[Version, ...]]:
        """Every version of every payload's object, by key."""
        return {key: written for key, written in self.shelf.versions().items() if not key.startswith(_OWN_KEYS)}

    def settle(self, answers: Answers, *, deadline_s: float = DRAIN_DEADLINE_S) -> Verdict:
        """Wait until every accepted payload has an object and the group has no lag left; then judge.

        Raises:
            AssertionError: it does not drain in time, or the oracle finds a promise broken.

        """
        until(
            lambda: missing(answers, self.shelf.versions()) == 0,
            f"objects of {len(answers.accepted)} accepted payloads",
            deadline_s=deadline_s,
            every_s=0.2,
        )
        until(lambda: self.topic.lag() == 0, "the group's lag to be 0", deadline_s=deadline_s, every_s=0.3)
        verdict = judge(answers, self.objects())
        assert not verdict.faults, str(verdict)
        return verdict
