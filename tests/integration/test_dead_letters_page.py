"""docs/operations/dead-letters.md: its commands are run, on the story that it tells, and print what it says."""

import asyncio
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.record import Stamp, new_collection_id
from tests.fakes.s3 import FakeS3
from tests.fakes.script import ENTITY_TOO_LARGE, Injection
from tests.harness.broker import Topic, producer
from tests.harness.pages import Command, Meanwhile, Printed, Shell, difference, read_page
from tests.harness.processes import ROOT, Processes, inherited
from tests.harness.tiers import start_uploader
from tests.harness.waiting import until

PAGE = ROOT / "docs/operations/dead-letters.md"
BUCKET = "acme-payloads"
COLLECTIONS, PAYLOADS = 4, 20
ALLOWED = 50  # 5 % of 1,000, the defaults
DEADLINE_S = 40
_FIRST_ID_MS = round(datetime(2026, 11, 25, 6, tzinfo=UTC).timestamp() * 1000)


class Story:
    """S3 calls everything too large since a deploy; then that is mended for all but one payload."""

    def __init__(self, topic: Topic, s3: FakeS3, processes: Processes) -> None:
        self._topic = topic
        self._s3 = s3
        self._shelf = s3.create_bucket(BUCKET)
        self._refused: Injection | None = None
        environment = {**topic.environment(), **s3.environment(), "S3_BUCKET": BUCKET}
        self.environment = {
            **inherited(),
            **environment,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        # One put at a time: the order of the letters is on the page.
        start_uploader(processes, topic, s3.environment(), BUCKET, {"MAX_WORKERS": "1"}).wait_ready()

    def happen(self, what: str) -> None:
        """Make it happen; KeyError where nobody knows it."""
        events: dict[str, Callable[[], None]] = {
            "a deploy makes S3 refuse every PUT as too large, and 80 payloads come": self._refuse,
            "the deploy is mended, but for one payload that is too large indeed": self._mend,
            "that payload is no longer too large": self._s3.script.heal,
        }
        events[what]()

    def _refuse(self) -> None:
        self._refused = self._s3.script.inject(ENTITY_TOO_LARGE)
        asyncio.run(self._write())
        until(lambda: len(self._letters()) == ALLOWED, f"{ALLOWED} letters", deadline_s=DEADLINE_S, every_s=0.3)

    def _mend(self) -> None:
        assert self._refused is not None
        first = dict(self._letters()[0].headers)["spillway-id"].decode()
        self._s3.script.inject(ENTITY_TOO_LARGE, key=lambda key: key.endswith(f"/{first}"))
        self._refused.heal()
        until(lambda: self._topic.lag() == 0, "the group's lag to be 0", deadline_s=DEADLINE_S, every_s=0.3)

    def _letters(self) -> list:  # type: ignore[type-arg] # aiokafka's records
        return replace(self._topic, name=self._topic.dead, partitions=1).records()

    async def _write(self) -> None:
        async with producer(self._topic.bootstrap_servers) as client:
            for number in range(COLLECTIONS):
                entropy = hashlib.sha256(b"%d" % number).digest()[:10]
                stamp = Stamp.of(
                    collection_id=new_collection_id(_FIRST_ID_MS + number * 60_000, entropy),
                    folder="payloads",
                    version="1",
                    received_ns=_FIRST_ID_MS * 1_000_000,
                    request_id="request",
                    count=PAYLOADS,
                )
                for index in range(PAYLOADS):
                    body = b'{"sensor":"s-%02d","temperature_c":21.%02d}' % (number, index)
                    await client.send(self._topic.name, body, partition=0, headers=stamp.headers(index))
            await client.flush()


@pytest.mark.timeout(240)
def test_the_commands_print_what_the_page_says(
    make_topic: Callable[..., Topic], fake_s3: FakeS3, processes: Processes, tmp_path: Path
) -> None:
    """As a stranger would type them, in order, in one shell. All that was printed stands in `transcript`."""
    directory = tmp_path / "here"
    directory.mkdir()
    topic = make_topic(partitions=1)
    story = Story(topic, fake_s3, processes)
    called = {topic.group: "spillway-uploader", topic.dead: "payloads.dead", topic.name: "payloads"}
    steps = read_page(PAGE.read_text("utf-8"))
    assert sum(isinstance(step, Command) for step in steps) > 5
    transcript, wrong = tmp_path / "transcript", []
    with Shell(story.environment, directory, called) as shell:
        for number, step in enumerate(steps):
            if isinstance(step, Meanwhile):
                story.happen(step.what)
                continue
            printed = shell.run(step.text)
            with transcript.open("a") as file:
                file.write("\n".join([f"$ {step.text}", *printed.lines, ""]))
            said = _objection(step, printed, steps[number + 1 :])
            wrong += [f"line {step.line}: $ {step.text}\n  {said}\n{printed.errors}"] if said else []
    assert not wrong, "\n".join([*wrong, transcript.read_text()])


def _objection(step: Command, printed: Printed, then: list[Command | Meanwhile]) -> str | None:
    tells_code = bool(then) and isinstance(then[0], Command) and then[0].text == "echo $?"
    if printed.code and not tells_code:
        return f"exit code {printed.code}, and the page does not say so"
    return difference(step.shown, printed.lines)
