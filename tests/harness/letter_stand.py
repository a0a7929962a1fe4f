"""A topic with dead letters, a bucket, and the commands that read the one and write to the other, run in this process.

Owns no broker and no server. What was stored is read from the server's own shelf.
"""

import argparse
import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from services.uploader.jobs.letters import command as letters_command
from services.uploader.jobs.redrive import command as redrive_command
from services.uploader.jobs.settings import JobSettings
from tests.fakes.s3 import FakeS3
from tests.fakes.script import Shelf
from tests.harness.broker import Topic
from tests.harness.dead_letters import Buried
from tests.harness.pipeline import BUCKET
from tests.harness.processes import Process, Processes

Capture = pytest.CaptureFixture[str]


class Stand:
    """A topic, a bucket, and the command with the settings that point to them."""

    def __init__(self, topic: Topic, s3: FakeS3, capsys: Capture) -> None:
        self.topic = topic
        self.s3 = s3
        self.shelf = s3.create_bucket(BUCKET)
        self._capsys = capsys

    def settings(self, **more: Any) -> JobSettings:
        return JobSettings(
            **{
                "kafka_bootstrap_servers": self.topic.bootstrap_servers,
                "kafka_topic": self.topic.name,
                "kafka_dead_topic": self.topic.dead,
                "kafka_group_id": self.topic.group,
                "s3_bucket": BUCKET,
                **more,
            }
        )

    def run(self, *options: str, **settings: Any) -> tuple[int, dict[str, Any]]:
        """Exit code and the JSON document of a redrive."""
        code = self.code("--output", "json", *options, **settings)
        return code, json.loads(self._capsys.readouterr().out)

    def text(self, *options: str, **settings: Any) -> tuple[int, str]:
        """Exit code and what a person reads."""
        code = self.code(*options, **settings)
        return code, self._capsys.readouterr().out

    def code(self, *options: str, **settings: Any) -> int:
        parser = argparse.ArgumentParser()
        commands = parser.add_subparsers(dest="command")
        redrive_command.add_parser(commands)
        return asyncio.run(redrive_command.run(self.settings(**settings), parser.parse_args(["redrive", *options])))

    def checked(self) -> dict[str, int]:
        """What `dead-letters list --check` says of the letters."""
        parser = argparse.ArgumentParser()
        letters_command.add_parser(parser.add_subparsers(dest="command"))
        arguments = parser.parse_args(["dead-letters", "list", "--check", "--output", "json"])
        assert asyncio.run(letters_command.run(self.settings(), arguments)) == 0
        found: dict[str, int] = json.loads(self._capsys.readouterr().out)["in_s3"]
        return found

    def process(self, processes: Processes, *options: str, **environment: str) -> Process:
        return processes.python(
            "redrive",
            "services.uploader",
            "redrive",
            *options,
            environment={**self.topic.environment(), **self.s3.environment(), "S3_BUCKET": BUCKET, **environment},
        )


def letters(count: int, **more: Any) -> list[Buried]:
    return [Buried(f"r-{number}", b'{"n": %d}' % number, offset=number, **more) for number in range(count)]


def stored(shelf: Shelf) -> dict[str, list[bytes]]:
    """Every body written, by the id that ends its key."""
    return {key.rpartition("/")[2]: [each.body for each in found] for key, found in shelf.versions().items()}


def key_of(shelf: Shelf, record_id: str) -> str:
    return next(key for key in shelf.names() if key.endswith(f"/{record_id}"))


def bodies(buried: Iterable[Buried]) -> dict[str, list[bytes]]:
    return {each.record_id or "": [each.value] for each in buried}
