"""`spillway-uploader lag` as a command: its options, its endings, and what it does while Kafka is away."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable, Mapping

import pytest

from services.uploader.jobs.lag import command as lag
from services.uploader.settings import GroupSettings
from tests.harness.broker import Broker, Topic, admin
from tests.harness.group_lag import parsed, produce, ran, settings_of
from tests.harness.processes import ROOT, Process, Processes, free_port
from tests.harness.waiting import until

DEADLINE_S = 60


def test_no_topic_and_no_broker(make_topic: Callable[..., Topic], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 with one line that names the variable; and asking for a topic does not make it."""
    topic = make_topic(partitions=1)
    assert ran(settings_of(topic, kafka_topic=f"{topic.name}.none")) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: KAFKA_TOPIC={topic.name}.none does not exist")
    assert f"{topic.name}.none" not in asyncio.run(_topics(topic))
    nobody = f"127.0.0.1:{free_port()}"
    assert ran(settings_of(topic, kafka_bootstrap_servers=nobody)) == 1
    assert f"error: KAFKA_BOOTSTRAP_SERVERS={nobody}: " in capsys.readouterr().err


def test_a_broker_that_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """It takes the connection and never answers: the command ends all the same, and says who it was."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        servers = f"127.0.0.1:{silent.getsockname()[1]}"
        began_s = time.monotonic()
        assert ran(GroupSettings(kafka_bootstrap_servers=servers)) == 1
    assert time.monotonic() - began_s < 30
    assert capsys.readouterr().err.startswith(f"error: KAFKA_BOOTSTRAP_SERVERS={servers}: ")


async def _topics(topic: Topic) -> list[str]:
    async with admin(topic.bootstrap_servers) as client:
        return list(await client.list_topics())


def started(processes: Processes, environment: Mapping[str, str], *options: str) -> Process:
    return processes.python("lag", "services.uploader", "lag", *options, environment=environment)


def test_the_real_command(make_topic: Callable[..., Topic], processes: Processes) -> None:
    """It needs the KAFKA_ variables alone, and prints one JSON document and nothing else, a group of nobody's too."""
    topic = make_topic(partitions=1)
    asyncio.run(produce(topic, {0: 3}))
    child = started(processes, topic.environment(), "--output", "json", "--sample", "0.5")
    assert child.wait(deadline_s=DEADLINE_S) == 0
    found = json.loads(child.output())
    assert (found["state"], found["total"]["lag_records"], found["total"]["drain"]) == ("Dead", 3, "never at this rate")


@pytest.mark.parametrize("output", ["text", "json"])
def test_watch_ends_with_ctrl_c(make_topic: Callable[..., Topic], processes: Processes, output: str) -> None:
    """A line or a block a look where nobody sees a terminal; exit 0, without a traceback."""
    topic = make_topic(partitions=1)
    child = started(processes, topic.environment(), "--watch", "--sample", "0.2", "--output", output)
    mark = "total" if output == "text" else '"total"'
    until(lambda: child.output().count(mark) >= 3, "three looks", deadline_s=DEADLINE_S)
    child.send(signal.SIGINT)
    assert child.wait(deadline_s=10) == 0
    assert "Traceback" not in child.output()
    if output == "json":
        assert all(json.loads(line)["topic"] == topic.name for line in child.output().splitlines())


def test_watch_outlives_the_broker(own_kafka: Broker, make_topic: Callable[..., Topic], processes: Processes) -> None:
    """Kafka goes and comes back: it says so and shows on; only a first look that fails ends it."""
    topic = make_topic(partitions=1, bootstrap_servers=own_kafka.bootstrap_servers)
    child = started(processes, topic.environment(), "--watch", "--sample", "0.2", "--output", "json")
    until(lambda: child.output().count('"total"') >= 2, "two looks", deadline_s=DEADLINE_S)
    own_kafka.stop()
    until(lambda: "not answered: KAFKA_BOOTSTRAP_SERVERS=" in child.output(), "the trouble told", deadline_s=DEADLINE_S)
    before = child.output().count('"total"')
    own_kafka.start()
    until(lambda: child.output().count('"total"') > before, "a look after it", deadline_s=DEADLINE_S)
    assert child.returncode is None


def test_the_commands_of_the_page(make_topic: Callable[..., Topic], capsys: pytest.CaptureFixture[str]) -> None:
    """docs/operations/how-far-behind.md: each of its commands works; of one that watches, the options are right."""
    topic = make_topic(partitions=1)
    lines = (ROOT / "docs/operations/how-far-behind.md").read_text("utf-8").splitlines()
    shown = [line.removeprefix("$ spillway-uploader lag") for line in lines if line.startswith("$ spillway-uploader")]
    assert len(shown) >= 4
    for line in shown:
        options = line.split("|")[0].split()
        arguments = parsed(*options)
        if not arguments.watch:
            arguments.sample = 0.1  # half a minute of looking proves no more
            assert asyncio.run(lag.run(settings_of(topic), arguments)) == 0, line
            assert capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [("--sample", "-1"), ("--sample", "nan"), ("--sample", "soon"), ("--output", "xml"), ("--watch", "--sample", "0")],
)
def test_bad_options_exit_with_2(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """A clear line, before Kafka is asked anything."""
    with pytest.raises(SystemExit) as left:  # argparse leaves by itself
        raise SystemExit(ran(GroupSettings(kafka_bootstrap_servers="127.0.0.1:1"), *options))
    assert left.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"error: {'argument ' if len(options) == 2 else ''}{options[0]}" in shown.err
