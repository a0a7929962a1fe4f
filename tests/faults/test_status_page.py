"""The status page in a real browser: what a person sees of an outage, of Kafka's absence, of 200 partitions."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer

from tests.fakes.s3 import FakeS3
from tests.fakes.script import Answer, Cut
from tests.harness.background import Background
from tests.harness.broker import Topic
from tests.harness.browser import PHONE, VARIABLE, Browser, Tab, chromium, launched
from tests.harness.load import Load
from tests.harness.oracle import Answers
from tests.harness.pipeline import Pipeline
from tests.harness.processes import Processes
from tests.harness.waiting import eventually

if TYPE_CHECKING:
    from deploy.local.kafka import EmbeddedKafka

SEEN_WITHIN_S = 5
"""An outage of S3, and its end, are seen on the page within so many seconds."""

PICTURES = "SPILLWAY_SCREENSHOTS"
"""Names a folder that pictures of the page are written to, for the docs."""


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A Chromium, or the reason that there is none."""
    path = chromium()
    if path is None:
        pytest.skip(f"no Chromium on PATH (Debian: apt-get install chromium), and none in {VARIABLE}")
    with launched(path) as found:
        yield found


def picture(tab: Tab, name: str) -> None:
    folder = os.environ.get(PICTURES)
    if folder:
        tab.picture(str(Path(folder) / f"{name}.png"))


def test_an_outage_of_s3_is_seen_and_so_is_its_end(pipeline: Pipeline, browser: Browser) -> None:
    """S3 sheds all load, then is silent: each is seen within 5 s of its start, and the recovery within 5 s of its end.

    Nobody reloads the page. The water rises meanwhile, and the way out is shut.
    """
    ingest, uploader = pipeline.ready()
    answers = Answers()
    with (
        Load(ingest.collections_url, per_s=40, size=400, answers=answers) as load,
        browser.tab(f"{uploader.ops_url}/") as tab,
    ):
        tab.sees("#title", "Payloads are being stored", within_s=20)
        tab.sees("#s3-words", "takes objects", within_s=5)
        tab.sees("#out", "/s out", within_s=10)
        picture(tab, "well")

        shedding = pipeline.s3.script.inject(Answer(503, "SlowDown"))
        tab.sees("#title", "S3 does not take objects (slow_down)", within_s=SEEN_WITHIN_S)
        tab.sees("#s3-message", "503 SlowDown", within_s=1)
        tab.sees("#out", "shut", within_s=1)
        tab.sees("#text", "Nothing is lost", within_s=5)
        tab.sees("#lag", "1 ", within_s=20)  # a thousand and more
        picture(tab, "outage")
        shedding.heal()
        tab.sees("#s3-words", "takes objects again", within_s=SEEN_WITHIN_S)
        tab.sees("#title", "Payloads are being stored", within_s=30)

        silent = pipeline.s3.script.inject(Cut.HANG)
        tab.sees("#title", "S3 does not", within_s=SEEN_WITHIN_S)
        silent.heal()
        tab.sees("#s3-words", "takes objects", within_s=SEEN_WITHIN_S)
        load.stop()
        tab.sees("#title", "All payloads are in S3", within_s=60)
    pipeline.settle(answers)


def test_a_person_must_mend_it(pipeline: Pipeline, browser: Browser) -> None:
    """A denied put is somebody's turn, in red, in S3's own words; a phone in the dark shows it all."""
    ingest, uploader = pipeline.ready()
    denied = pipeline.s3.script.inject(Answer(403, "AccessDenied"))
    with (
        Load(ingest.collections_url, per_s=20, size=200, answers=Answers()),
        browser.tab(f"{uploader.ops_url}/", PHONE, scheme="dark") as tab,
    ):
        tab.sees("#title", "S3 does not take objects (access_denied)", within_s=20)
        tab.sees("#text", "Somebody has to mend it", within_s=1)
        assert tab.evaluate("document.getElementById('headline').dataset.level") == "act"
        assert tab.evaluate("document.documentElement.scrollWidth") == PHONE[0]
        assert tab.evaluate("document.title").startswith("✕ ")
        tab.sees("#where", "topic ", within_s=10)
        tab.sees("#drain", "once S3 is back", within_s=10)
        picture(tab, "phone")
        tab.click("link", "What to do, step by step")
        tab.sees("h1", "S3 is away", within_s=5)
        assert tab.evaluate("document.documentElement.scrollWidth") == PHONE[0]
        picture(tab, "phone-page")
    denied.heal()


def test_kafka_is_away_and_comes_back(
    own_kafka: "EmbeddedKafka",
    make_topic: Callable[..., Topic],
    processes: Processes,
    fake_s3: FakeS3,
    browser: Browser,
) -> None:
    """Kafka is killed: the page says so, and how old its picture is; it is live again by itself once Kafka is back."""
    pipeline = Pipeline(processes, make_topic(4, own_kafka.bootstrap_servers), fake_s3)
    uploader = pipeline.uploader()
    uploader.wait_ready()
    with browser.tab(f"{uploader.ops_url}/") as tab:
        tab.sees("#title", "All payloads are in S3", within_s=20)
        own_kafka.kill()
        tab.sees("#title", "Kafka does not answer", within_s=30)
        tab.sees("#text", "The picture is", within_s=10)
        own_kafka.start()
        tab.sees("#title", "All payloads are in S3", within_s=60)


def test_two_hundred_partitions_and_a_member_with_a_bad_name(
    make_topic: Callable[..., Topic], processes: Processes, fake_s3: FakeS3, browser: Browser
) -> None:
    """The twelve that wait longest, all 200 on demand; markup in a member's name is shown, not done."""
    pipeline = Pipeline(processes, make_topic(200), fake_s3)
    uploader = pipeline.uploader()
    uploader.wait_ready()
    with (
        Stranger(pipeline.topic, "<img src=x onerror=alert(1)>"),
        browser.tab(f"{uploader.ops_url}/", PHONE) as tab,
    ):
        tab.counts("#partitions tr", 12, within_s=30)
        tab.sees("#partitions-say", "of 200", within_s=5)
        tab.click("button", "Show all 200")
        tab.counts("#partitions tr", 200, within_s=5)
        tab.sees("#members", "<img src=x onerror=alert(1)>", within_s=30)
        assert tab.evaluate("document.images.length") == 0
        assert tab.evaluate("document.documentElement.scrollWidth") == PHONE[0]


class Stranger(Background):
    """A member of the uploaders' group that calls itself what it likes."""

    def __init__(self, topic: Topic, client_id: str) -> None:
        super().__init__("stranger", stop_deadline_s=20)
        self._topic = topic
        self._client_id = client_id

    async def run(self) -> None:
        """Be a member until told to stop."""
        client = AIOKafkaConsumer(
            self._topic.name,
            bootstrap_servers=self._topic.bootstrap_servers,
            group_id=self._topic.group,
            client_id=self._client_id,
            enable_auto_commit=False,
            session_timeout_ms=6000,
            heartbeat_interval_ms=1000,
            rebalance_timeout_ms=12000,
        )
        await client.start()
        try:
            await eventually(self.stopping.is_set, "the test to end", deadline_s=120)
        finally:
            await client.stop()
