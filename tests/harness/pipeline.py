"""The whole path of a test: a topic, an S3 server that breaks by script, an ingest and uploaders as processes.

Owns how a test ends: the backlog drains, the broker's own offsets say that nothing is left, and the oracle judges all
that the promises name: objects, commits at every moment since the start, resident memory.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.fakes.s3 import FakeS3
from tests.fakes.script import Version
from tests.harness.broker import Topic
from tests.harness.commands import Commands
from tests.harness.oracle import Answers, Logged, Verdict, ahead_of_store, judge, missing, rewinds
from tests.harness.processes import Processes
from tests.harness.tiers import IngestTier, Tier, s3_client_of_the_run, start_ingest, start_uploader
from tests.harness.waiting import until
from tests.harness.watch import Watch

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

DRAIN_DEADLINE_S = 30
"""DESIGN §9: everything drains by itself within 30 s of healing."""

GROWTH_MAX_BYTES = 32 * 1024 * 1024
"""How far a tier may grow from its start to the end of any test with small payloads. Measured: 1 to 5 MiB, an uploader
with 10,000 payloads at once 15."""

BUCKET = "bucket"
_OWN_KEYS = ".spillway/"  # the uploaders' probe, which is no payload

# The least that the settings allow: a member killed with SIGKILL holds its partitions until its session ends.
_SETTINGS = {"KAFKA_SESSION_TIMEOUT_S": "6"}


class Pipeline:
    """Tiers around one topic and one bucket. Processes are ended by the fixture that gave `processes`."""

    def __init__(self, processes: Processes, topic: Topic, s3: FakeS3, s3_client: str = "") -> None:
        self.topic = topic
        self.s3 = s3
        self.shelf = s3.create_bucket(BUCKET)
        self.watch = Watch(topic, lambda: self.shelf.writes)
        processes.at_end(self.watch.stop)
        self._processes = processes
        self._settings = {**_SETTINGS, "S3_CLIENT": s3_client or s3_client_of_the_run()}

    def ingest(self, settings: Mapping[str, str] | None = None) -> IngestTier:
        """Start an ingest; does not wait."""
        tier = start_ingest(self._processes, self.topic, settings)
        self.watch.add(tier)
        return tier

    def uploader(self, settings: Mapping[str, str] | None = None) -> Tier:
        """Start an uploader; does not wait."""
        merged = {**self._settings, **(settings or {})}
        tier = start_uploader(self._processes, self.topic, self.s3.environment(), BUCKET, merged)
        self.watch.add(tier)
        return tier

    def commands(self, settings: Mapping[str, str] | None = None) -> Commands:
        """The operator's commands, pointed at this topic and bucket."""
        merged = {
            **self.topic.environment(),
            **self.s3.environment(),
            "S3_BUCKET": BUCKET,
            **self._settings,
            **(settings or {}),
        }
        return Commands(self._processes, merged)

    def ready(self, settings: Mapping[str, str] | None = None) -> tuple[IngestTier, Tier]:
        """Start one of each at the same time and wait for both."""
        tiers = self.ingest(), self.uploader(settings)
        for tier in tiers:
            tier.wait_ready()
        return tiers

    def objects(self) -> dict[str, tuple[Version, ...]]:
        """Every version of every payload's object, by key."""
        return {key: written for key, written in self.shelf.versions().items() if not key.startswith(_OWN_KEYS)}

    def settle(
        self,
        answers: Answers,
        *,
        deadline_s: float = DRAIN_DEADLINE_S,
        growth_max_bytes: int = GROWTH_MAX_BYTES,
        dead: Collection[str] = (),
    ) -> Verdict:
        """Wait until every accepted payload has an object and the group has no lag left; then judge everything.

        Args:
            answers: what clients were told.
            deadline_s: from now to the last commit.
            growth_max_bytes: how far each process may have grown since it was ready, or since `watch.mark()`.
            dead: ids of payloads that the test expects in the dead-letter topic, and not in the bucket.

        Raises:
            AssertionError: it does not drain in time, or the oracle finds a promise broken.

        """
        end_s = time.monotonic() + deadline_s
        until(
            lambda: missing(answers, self.shelf.versions(), dead=dead) == 0,
            f"objects of {len(answers.accepted)} accepted payloads",
            deadline_s=deadline_s,
            every_s=0.2,
        )
        until(
            lambda: self.topic.lag() == 0, "the group's lag to be 0", deadline_s=end_s - time.monotonic(), every_s=0.3
        )
        verdict = self._judge(answers, growth_max_bytes, dead)
        assert not verdict.faults, str(verdict)
        return verdict

    def _judge(self, answers: Answers, growth_max_bytes: int, dead: Collection[str]) -> Verdict:
        until(self.watch.has_seen, "the watch to see a commit and a process: else it proves nothing", deadline_s=10)
        samples, memory = list(self.watch.samples), list(self.watch.memory)
        log = [Logged(record.partition, record.offset, _id(record)) for record in self.topic.records()]
        return replace(
            judge(answers, self.objects(), dead=dead),
            ahead=ahead_of_store(samples, log, self.shelf.versions(), dead=dead),
            rewound=rewinds(samples),
            memory=[str(process) for process in memory if process.grown_bytes > growth_max_bytes],
        )


def _id(record: "ConsumerRecord[bytes | None, bytes | None]") -> str | None:
    """The id that DESIGN §2 and §3 give a record, worked out here and not by what is being judged."""
    if record.value is None:
        return None
    given: bytes | None = dict(record.headers).get("spillway-id")
    if given is not None:
        return given.decode()
    return f"{record.topic}-{record.partition}-{record.offset}-{record.timestamp}"
