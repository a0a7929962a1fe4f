"""Ingest as a process: how it starts, refuses to start, drains and leaves."""

import signal
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import MakeTopic
from tests.harness.broker import Topic
from tests.harness.http_client import request
from tests.harness.load import Load
from tests.harness.processes import Processes, free_port
from tests.harness.tiers import IngestTier, get, start_ingest
from tests.harness.waiting import until


@pytest.fixture
def nowhere() -> Topic:
    """A topic on a broker that does not exist."""
    return Topic(f"127.0.0.1:{free_port()}", "nothing", 1)


def test_help_lists_the_variables() -> None:
    """`--help` needs no setting and names each variable."""
    shown = subprocess.run(
        [sys.executable, "-m", "services.ingest", "--help"], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    for name in ("INGEST_PORT", "KAFKA_BOOTSTRAP_SERVERS", "MAX_BODY_BYTES", "S3_FOLDER"):
        assert name in shown


@pytest.mark.parametrize("variable", ["INGEST_PORT", "INGEST_OPS_PORT"])
def test_a_taken_port_is_named(variable: str, nowhere: Topic, processes: Processes) -> None:
    """One clear line with the variable and the address, and an exit code that is not 0."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        tier = start_ingest(processes, nowhere, {variable: str(port)})
        assert tier.process.wait(deadline_s=20) != 0
    assert f"{variable}={port}" in tier.process.output()
    assert "Traceback" not in tier.process.output()


def test_a_bad_setting_is_named(nowhere: Topic, processes: Processes) -> None:
    """The start stops with one line for the variable."""
    tier = start_ingest(processes, nowhere, {"S3_FOLDER": "../etc"})
    assert tier.process.wait(deadline_s=20) != 0
    assert "S3_FOLDER" in tier.process.output()
    assert "Traceback" not in tier.process.output()


def test_sigterm_drains_under_load(make_topic: MakeTopic, processes: Processes) -> None:
    """Readiness off first, then what is in flight is finished: every 200 is in the topic, the exit code is 0, and no
    connection that was accepted is left without an answer.
    """
    topic = make_topic()
    tier = start_ingest(processes, topic, {"INGEST_DRAIN_DELAY_S": "1"})
    tier.wait_ready()
    with Load(tier.collections_url, clients=8, items=3, per_s=200) as load:
        until(lambda: load.accepted > 100, "a load under way", deadline_s=20)
        tier.process.send(signal.SIGTERM)
        until(lambda: "draining" in reasons(tier), "readiness to go", deadline_s=5)
        accepted = load.accepted
        until(lambda: load.accepted > accepted, "collections taken while it drains", deadline_s=5)
        assert tier.process.wait(deadline_s=20) == 0
        answers = load.stop()
    assert set(answers.statuses) <= {0, 200}  # 0: refused connections, after it had gone
    found = Counter(record.value for record in topic.records())
    assert not [payload for payload in answers.accepted.values() if found[payload] != 1]


def reasons(tier: IngestTier) -> dict[str, str]:
    return tier.reasons() if get(f"{tier.ops_url}/readyz")[0] else {}


def test_a_second_signal_ends_it_at_once(nowhere: Topic, processes: Processes) -> None:
    """An operator who asks twice does not wait for the delay."""
    tier = start_ingest(processes, nowhere, {"INGEST_DRAIN_DELAY_S": "60"})
    until(lambda: reasons(tier), "ingest to serve", deadline_s=20)
    tier.process.send(signal.SIGTERM)
    until(lambda: "draining" in reasons(tier), "the first signal to be seen", deadline_s=5)
    tier.process.send(signal.SIGTERM)
    assert tier.process.wait(deadline_s=5) == 128 + signal.SIGTERM


def test_a_silent_broker_does_not_hold_up_the_exit(processes: Processes) -> None:
    """A broker that takes connections and never answers: ingest serves 503s, and leaves in time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        topic = Topic(f"127.0.0.1:{silent.getsockname()[1]}", "nothing", 1)
        tier = start_ingest(processes, topic, {"INGEST_DRAIN_DELAY_S": "0"})
        until(lambda: reasons(tier), "ingest to serve", deadline_s=20)
        with ThreadPoolExecutor(4) as pool:
            posts = [pool.submit(request, tier.collections_url, b'{"version":"1","data":[1]}') for _ in range(4)]
            assert {post.result().status for post in posts} == {503}
        assert tier.process.terminate(deadline_s=15) == 0


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "connections", "files"),
    [(256, 9000, 4096, 4096, 4480), (256, 1000, 4096, 616, 1000), (4500, 9000, 4096, 4096, 4500)],
)
def test_the_process_may_have_a_file_for_each_connection(
    soft: int, hard: int, wanted: int, connections: int, files: int
) -> None:
    """The soft limit is raised as far as the hard one lets it; where that is too little, connections are fewer."""
    program = (
        "import resource; from services.ingest.__main__ import _allow_connections as allow;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
        f"print(allow({wanted}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert shown.stdout.split() == [str(connections), str(files)]
    assert ("MAX_CONNECTIONS" in shown.stderr) == (connections < wanted)
