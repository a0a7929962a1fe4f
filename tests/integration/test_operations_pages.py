"""Every page of docs/operations whose question a command answers: its commands are run, and print what it says."""

import asyncio
import hashlib
import os
import re
import sys
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete

from shared.record import Stamp, new_collection_id
from tests.conftest import MakeTopic
from tests.fakes.s3 import FakeS3
from tests.fakes.script import SLOW_DOWN
from tests.harness.broker import Topic, admin, producer
from tests.harness.pages import Command, Shell, play, read_page
from tests.harness.processes import ROOT, Processes, inherited
from tests.harness.tiers import start_uploader
from tests.harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

DIRECTORY = ROOT / "docs/operations"
PAGES = (
    "bucket-moved.md",
    "deleted-prefix.md",
    "kafka-lost-a-broker.md",
    "s3-was-away.md",
    "what-will-it-cost.md",
    "yesterday.md",
)
BUCKET, OTHER_BUCKET = "acme-payloads", "acme-payloads-eu"
PARTITIONS = 4
COLLECTIONS, PAYLOADS = 20, 20  # 400 payloads, 100 a partition
OUTAGE_COLLECTIONS = 4
DEADLINE_S = 40

# Ids, and so keys, are the same in every run: the pages show them.
_FIRST_ID_MS = round(datetime(2026, 11, 25, 6, tzinfo=UTC).timestamp() * 1000)

pytestmark = pytest.mark.timeout(240)


class Stand:
    """A topic with 400 payloads whose objects are in the bucket; an uploader runs on.

    `written`: the time that the producer gives them; None: now. The topic must be one that takes it.
    """

    def __init__(self, topic: Topic, s3: FakeS3, processes: Processes, written: datetime | None = None) -> None:
        self._topic = topic
        self._s3 = s3
        self._shelf = s3.create_bucket(BUCKET)
        s3.create_bucket(OTHER_BUCKET)
        self._collections = 0
        asyncio.run(self._write(COLLECTIONS, None if written is None else round(written.timestamp() * 1000)))
        self.environment = {
            **inherited(),
            **topic.environment(),
            **s3.environment(),
            "S3_BUCKET": BUCKET,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        start_uploader(processes, topic, s3.environment(), BUCKET).wait_ready()
        self._wait_stored()

    async def _write(self, collections: int, at_ms: int | None = None) -> None:
        async with producer(self._topic.bootstrap_servers) as client:
            for number in range(self._collections, self._collections + collections):
                stamp = Stamp.of(
                    collection_id=new_collection_id(
                        _FIRST_ID_MS + number * 60_000, hashlib.sha256(b"%d" % number).digest()[:10]
                    ),
                    folder="payloads",
                    version="1",
                    received_ns=_FIRST_ID_MS * 1_000_000,
                    request_id="request",
                    count=PAYLOADS,
                )
                for index in range(PAYLOADS):
                    await client.send(
                        self._topic.name,
                        b'{"sensor":"s-%02d","temperature_c":21.%02d}' % (number, index),
                        partition=number % PARTITIONS,
                        headers=stamp.headers(index),
                        timestamp_ms=at_ms,
                    )
            await client.flush()
        self._collections += collections

    def _wait_stored(self) -> None:
        wanted = self._collections * PAYLOADS
        until(lambda: len(self._payloads()) == wanted, f"{wanted} objects", deadline_s=DEADLINE_S)
        until(lambda: self._topic.lag() == 0, "the group's lag to be 0", deadline_s=DEADLINE_S, every_s=0.5)

    def _payloads(self) -> list[str]:
        return [key for key in self._shelf.names() if not key.startswith(".spillway/")]

    # -- what a page's `meanwhile` may name

    def happen(self, what: str) -> None:
        """Make it happen; KeyError where nobody knows it."""
        events: dict[str, Callable[[], None]] = {
            "the prefix payloads/shard=3/ is deleted, and two objects are overwritten": self._damage,
            "retention takes the first 20 records of partition 0": self._cut,
            "S3 refuses every PUT while 80 payloads come": self._outage,
            "S3 is back, and the backlog is stored": self._heal,
        }
        events[what]()

    def _damage(self) -> None:
        for key in self._payloads():
            if key.startswith("payloads/shard=3/"):
                self._shelf.remove(key)
        for key in self._payloads()[:2]:
            self._shelf.store(key, b'{"sensor":"?"}', {}, "application/json")

    def _cut(self) -> None:
        async def cut() -> None:
            async with admin(self._topic.bootstrap_servers) as client:
                await client.delete_records({TopicPartition(self._topic.name, 0): RecordsToDelete(20)})

        asyncio.run(cut())

    def _outage(self) -> None:
        refused = self._s3.script.inject(SLOW_DOWN)
        asyncio.run(self._write(OUTAGE_COLLECTIONS))
        assert refused.hit.wait(DEADLINE_S), "the uploader did not try"

    def _heal(self) -> None:
        self._s3.script.heal()
        self._wait_stored()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the commands run."""
    made = tmp_path / "here"
    made.mkdir()
    return made


def _noon_yesterday() -> datetime:
    return datetime.combine(datetime.now(UTC).date() - timedelta(days=1), time(12), UTC)


async def _create_with_producers_times(topic: Topic) -> None:
    """Only in such a topic anything can have been written yesterday."""
    options = ((topic.name, {"message.timestamp.type": "CreateTime"}), (topic.dead, {"max.message.bytes": "1114124"}))
    async with admin(topic.bootstrap_servers) as client:
        await client.create_topics(
            [NewTopic(name, topic.partitions, 1, topic_configs=configs) for name, configs in options]
        )


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_print_what_the_page_says(
    name: str, make_topic: MakeTopic, fake_s3: FakeS3, processes: Processes, directory: Path
) -> None:
    """As a stranger would type them, in order, in one shell. All that was printed stands beside, in `transcript`."""
    topic, written = make_topic(PARTITIONS), None
    if name == "yesterday.md":
        topic, written = replace(topic, name=f"{topic.name}-then"), _noon_yesterday()
        asyncio.run(_create_with_producers_times(topic))
    stand = Stand(topic, fake_s3, processes, written)
    called = {topic.group: "spillway-uploader", topic.dead: "payloads.dead", topic.name: "payloads"}
    steps = read_page((DIRECTORY / name).read_text("utf-8"))
    assert any(isinstance(step, Command) for step in steps), "no command is on the page"
    transcript = directory.parent / "transcript"
    with Shell(stand.environment, directory, called) as shell:
        wrong = play(steps, shell, stand.happen, transcript)
    assert not wrong, "\n".join([*wrong, transcript.read_text()])


def test_no_command_of_ours_is_left_out() -> None:
    """A command line of ours stands in a block that is run; other blocks are for tools that are not here."""
    for name in PAGES:
        text = (DIRECTORY / name).read_text("utf-8")
        others = re.findall(
            r"```(?!console\n)[a-z]*\n(.*?)```", re.sub(r"```console\n.*?```", "", text, flags=re.DOTALL)
        )
        assert not [block for block in others if "spillway-" in block], name


def test_every_page_is_in_the_list_of_questions() -> None:
    """docs/operations/README.md names each page beside it."""
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", (DIRECTORY / "README.md").read_text("utf-8")))
    assert named == {path.name for path in DIRECTORY.glob("*.md")} - {"README.md"}


def test_the_commands_of_every_page_are_run() -> None:
    """A page with commands of ours is run here, or by the tests of its commands."""
    elsewhere = {"dead-letters.md": "test_dead_letters_page.py", "how-far-behind.md": "test_lag_command.py"}
    assert all(name in (Path(__file__).parent / test).read_text("utf-8") for name, test in elsewhere.items())
    with_ours = {path.name for path in DIRECTORY.glob("*.md") if "$ spillway-uploader" in path.read_text("utf-8")}
    assert with_ours == {*PAGES, *elsewhere}
