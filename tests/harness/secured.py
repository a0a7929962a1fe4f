"""Both tiers and the operator's commands on a secure broker: started with the variables of a listener, and fed.

Owns what goes through. The tiers are users of their own, `ingest`, `uploader` and `operator`, with no grant too many.
"""

from collections.abc import Callable, Mapping

from tests.harness.broker import Topic
from tests.harness.commands import Commands, Ran
from tests.harness.load import payloads, post_at_once
from tests.harness.oracle import Answers, judge, missing
from tests.harness.processes import Processes
from tests.harness.s3_client import Bucket
from tests.harness.secure_broker import SecureBroker
from tests.harness.tiers import START_DEADLINE_S, IngestTier, Tier, start_ingest, start_uploader
from tests.harness.waiting import until

Variables = Callable[[str], Mapping[str, str]]
"""The variables of a user."""


class Secured:
    """A topic on a secure broker and a bucket."""

    def __init__(
        self, broker: SecureBroker, topic: Topic, bucket: Bucket, s3: Mapping[str, str], processes: Processes
    ) -> None:
        self.broker = broker
        self.topic = topic
        self._bucket = bucket
        self._s3 = dict(s3)
        self._processes = processes
        self.answers = Answers()

    def ingest(self, variables: Mapping[str, str]) -> IngestTier:
        """Start an ingest; does not wait."""
        return start_ingest(self._processes, self.topic, variables)

    def uploader(self, variables: Mapping[str, str]) -> Tier:
        """Start an uploader; does not wait."""
        return start_uploader(self._processes, self.topic, self._s3, self._bucket.name, variables)

    def commands(self, variables: Mapping[str, str]) -> Commands:
        """The operator's commands."""
        environment = {**self.topic.environment(), **self._s3, "S3_BUCKET": self._bucket.name, **variables}
        return Commands(self._processes, environment)

    def post(self, ingest: IngestTier, collections: int = 4) -> None:
        """Post as many collections of ten; what came back is entered in `answers`."""
        post_at_once(ingest.collections_url, [payloads(10) for _ in range(collections)], self.answers)

    def all_stored(self, *, deadline_s: float = 40) -> None:
        """Wait until all that was acknowledged is stored, and look at each byte."""

        def stored() -> bool:
            return missing(self.answers, dict.fromkeys(self._bucket.names(), ())) == 0

        until(stored, "objects of all acknowledged payloads", deadline_s=deadline_s, every_s=0.2)
        verdict = judge(self.answers, {k: v for k, v in self._bucket.versions().items() if not k.startswith(".")})
        assert not verdict.faults, str(verdict)
        assert verdict.stored > 0

    def goes_through(self, variables: Variables) -> None:
        """Both tiers and three commands that ask, each as its user: what is posted is stored, what is asked is said."""
        ingest, uploader = self.ingest(variables("ingest")), self.uploader(variables("uploader"))
        ingest.wait_ready()
        uploader.wait_ready()
        self.post(ingest)
        assert dict(self.answers.statuses) == {200: 4}
        self.all_stored()
        for ran in self._asks(variables("operator")):
            assert ran.code == 0, str(ran)
        for tier in (ingest, uploader):
            assert tier.process.terminate() == 0, tier.process.tail()

    def commands_say(self, variables: Mapping[str, str], words: str) -> None:
        """The three commands that ask fail with one line that has these words."""
        for ran in self._asks(variables):
            assert ran.code != 0
            assert words in ran.err, str(ran)
            assert "Traceback" not in ran.err, str(ran)

    def _asks(self, variables: Mapping[str, str]) -> list[Ran]:
        commands = self.commands(variables)
        return [
            commands.run("topics", "--partitions", str(self.topic.partitions)),
            commands.run("lag", "--output", "json", "--sample", "0.2"),
            commands.run("dead-letters", "list", "--output", "json"),
        ]


def says(tier: Tier, words: str, condition: str = "kafka") -> None:
    """Wait until `/readyz` and the log of a tier have these words."""
    until(lambda: words in tier.reasons().get(condition, ""), f"{words!r} in /readyz", deadline_s=START_DEADLINE_S)
    until(lambda: words in tier.process.output(), f"{words!r} in the log", deadline_s=10)
    assert "Traceback" not in tier.process.output(), tier.process.tail()
