"""INGEST_WORKERS over 1: several processes on one port that look like one, whichever of them is killed or stands still.

Judged from outside: what clients were told, Kafka's log, the ops port, and the kernel's list of processes.
"""

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy.local.kafka import EmbeddedKafka
from tests.conftest import MakeTopic
from tests.harness.broker import Topic
from tests.harness.http_client import request
from tests.harness.load import Load, envelope, payloads
from tests.harness.oracle import Answers
from tests.harness.processes import Processes, free_port
from tests.harness.rule_following import judge_log
from tests.harness.tiers import IngestTier, get, start_ingest
from tests.harness.waiting import never, until

TWO = {"INGEST_WORKERS": "2"}


def workers_of(tier: IngestTier) -> list[int]:
    """The pids of the supervisor's children, by the kernel's word."""
    pid = tier.process.pid
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def alive(pid: int) -> bool:
    """Whether the process is there, and no zombie."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def both_ready(tier: IngestTier) -> list[int]:
    """The pids of the two workers, once both take connections."""
    tier.wait_ready()
    until(lambda: tier.metric("spillway_ingest_workers") == 2, "both workers to serve", deadline_s=40)
    pids = workers_of(tier)
    assert len(pids) == 2
    return pids


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def connections(tier: IngestTier) -> list[float]:
    return list(tier.series("spillway_ingest_connections").values())


def test_connections_are_shared_and_figures_are_summed(make_topic: MakeTopic, processes: Processes) -> None:
    """Both workers get connections, every 200 is in the topic, and the counters of both are one sum."""
    topic = make_topic()
    tier = start_ingest(processes, topic, TWO)
    both_ready(tier)
    parts = urlsplit(tier.url)
    clients = [http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=20) for _ in range(40)]
    answers = Answers()
    for client in clients:
        items = payloads(2)
        client.request("POST", "/v1/collections", envelope(items), {"Content-Type": "application/json"})
        answer = client.getresponse()
        assert answer.status == 200
        answers.accept(json.loads(answer.read())["ids"], items)
    shares = connections(tier)
    assert sum(shares) == 40
    assert min(shares) > 0
    assert tier.metric("spillway_ingest_payloads_total") == 80
    assert tier.metric("spillway_ingest_requests_total") == 40
    assert tier.metric("spillway_ingest_request_seconds_count") == 40
    assert {"supervisor", "0", "1"} == {
        series.partition('worker="')[2].rstrip('"}') for series in tier.series("process_resident_memory_bytes")
    }
    for client in clients:
        client.close()
    assert not judge_log(answers, topic).faults
    assert {line.get("worker") for line in log_of(tier) if line["message"] == "serving"} == {0, 1}


def log_of(tier: IngestTier) -> list[dict[str, object]]:
    return [json.loads(line) for line in tier.process.output().splitlines() if line.startswith("{")]


def test_a_killed_worker_is_replaced(make_topic: MakeTopic, processes: Processes) -> None:
    """SIGKILL under load: nothing that was acknowledged is lost, no counter goes back, ready with the other one all the
    time; a new one takes its place, which is counted, logged and noted.
    """
    topic = make_topic()
    tier = start_ingest(processes, topic, TWO)
    victim, survivor = both_ready(tier)
    with Load(tier.collections_url, clients=12, items=3, per_s=200) as load:
        until(lambda: load.accepted > 200, "a load under way", deadline_s=20)
        told = [tier.metric("spillway_ingest_payloads_total")]
        os.kill(victim, signal.SIGKILL)
        states = Counter[int]()

        def replaced() -> bool:
            told.append(tier.metric("spillway_ingest_payloads_total"))
            states[get(f"{tier.ops_url}/readyz")[0]] += 1
            return tier.metric("spillway_ingest_workers") == 2 and victim not in workers_of(tier)

        until(replaced, "another worker in its place", deadline_s=40)
        accepted = load.accepted
        until(lambda: load.accepted > accepted + 200, "collections taken by both", deadline_s=20)
        told.append(tier.metric("spillway_ingest_payloads_total"))
        answers = load.stop()
    assert survivor in workers_of(tier)
    assert told == sorted(told)
    assert told[0] > 0
    assert set(states) == {200}
    assert set(answers.statuses) <= {0, 200}
    verdict = judge_log(answers, topic)
    assert not verdict.faults, verdict
    assert tier.metric('spillway_ingest_worker_restarts_total{reason="signal"}') == 1
    assert "1 ended unasked" in get(f"{tier.ops_url}/readyz")[1]
    assert any(line["message"] == "a worker ended unasked" and line["exit_code"] == -9 for line in log_of(tier))


def test_sigterm_drains_all(make_topic: MakeTopic, processes: Processes) -> None:
    """Under load, and told to every process as a terminal does: readiness off first, collections are taken while it
    lasts, nothing but 200 is told, every 200 is in the topic, exit code 0, nobody is left.
    """
    topic = make_topic()
    tier = start_ingest(processes, topic, {**TWO, "INGEST_DRAIN_DELAY_S": "1"})
    pids = both_ready(tier)
    with Load(tier.collections_url, clients=12, items=3, per_s=200) as load:
        until(lambda: load.accepted > 200, "a load under way", deadline_s=20)
        os.killpg(tier.process.pid, signal.SIGTERM)
        until(lambda: "draining" in tier.reasons(), "readiness to go", deadline_s=5)
        accepted = load.accepted
        until(lambda: load.accepted > accepted, "collections taken while it drains", deadline_s=5)
        assert tier.process.wait(deadline_s=20) == 0
        answers = load.stop()
    assert set(answers.statuses) <= {0, 200}  # 0: new connections, as the listeners close and after
    verdict = judge_log(answers, topic)
    assert not verdict.faults, verdict
    assert not [pid for pid in pids if alive(pid)]


def test_a_worker_that_comes_into_the_drain_takes_nothing(make_topic: MakeTopic, processes: Processes) -> None:
    """It was started before the signal, and is only now as far as to listen: the port does not open again."""
    tier = start_ingest(processes, make_topic(), TWO)
    victim, survivor = both_ready(tier)
    os.kill(victim, signal.SIGKILL)
    until(lambda: set(workers_of(tier)) - {victim, survivor}, "another worker", deadline_s=20)
    (other,) = set(workers_of(tier)) - {victim, survivor}
    with stopped(other):
        tier.process.send(signal.SIGTERM)
        until(lambda: not alive(survivor), "the first to drain", deadline_s=20)
    assert tier.process.wait(deadline_s=20) == 0
    assert [line["message"] for line in log_of(tier)].count("serving") == 2


def test_what_waits_for_its_ack_is_answered_by_all(
    own_kafka: EmbeddedKafka, make_topic: MakeTopic, processes: Processes
) -> None:
    """Requests wait for a slow broker in both workers as SIGTERM comes: each gets its 200, and only then all leave."""
    topic = make_topic(bootstrap_servers=own_kafka.bootstrap_servers)
    tier = start_ingest(processes, topic, TWO)
    both_ready(tier)
    assert statuses(tier, "t", 12, one_connection=False) == {200: 12}  # the way of both is open
    collections, answers = [payloads(2) for _ in range(12)], Answers()
    with ThreadPoolExecutor(12) as pool:
        own_kafka.freeze()
        try:
            asked = [pool.submit(request, tier.collections_url, envelope(items)) for items in collections]
            until(lambda: in_flight(tier) == [True, True], "requests in flight in both", deadline_s=5)
            tier.process.send(signal.SIGTERM)
            until(lambda: get(tier.url)[0] == 0, "the listeners to close", deadline_s=5)
            never(lambda: tier.process.returncode is not None, "an end before the acks", for_s=1)
        finally:
            own_kafka.thaw()
        for post, items in zip(asked, collections, strict=True):
            assert post.result().status == 200
            answers.accept(post.result().document["ids"], items)
    assert tier.process.wait(deadline_s=20) == 0
    assert sum(record.value in {item for items in collections for item in items} for record in topic.records()) == 24


def in_flight(tier: IngestTier) -> list[bool]:
    return [value > 0 for value in tier.series("spillway_ingest_in_flight_bytes").values()]


def test_a_second_signal_ends_all_at_once(make_topic: MakeTopic, processes: Processes) -> None:
    """An operator who asks twice does not wait for the delay, and leaves nobody behind."""
    tier = start_ingest(processes, make_topic(), {**TWO, "INGEST_DRAIN_DELAY_S": "60"})
    pids = both_ready(tier)
    os.killpg(tier.process.pid, signal.SIGINT)
    until(lambda: "draining" in tier.reasons(), "the first signal to be seen", deadline_s=5)
    os.killpg(tier.process.pid, signal.SIGINT)
    assert tier.process.wait(deadline_s=5) == 128 + signal.SIGINT
    until(lambda: not [pid for pid in pids if alive(pid)], "the workers to go", deadline_s=5)


def test_workers_go_with_their_supervisor(make_topic: MakeTopic, processes: Processes) -> None:
    """Killed: no worker serves on, not even one that stands still, and the port is free for the next one."""
    tier = start_ingest(processes, make_topic(), TWO)
    pids = both_ready(tier)
    with stopped(pids[0]):
        tier.process.kill()
        until(lambda: not [pid for pid in pids if alive(pid)], "the workers to go", deadline_s=5)
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind(("127.0.0.1", urlsplit(tier.url).port))


def test_a_worker_that_stands_still_is_seen_and_replaced(make_topic: MakeTopic, processes: Processes) -> None:
    """The ops port answers all the while, with the figures of both; the whole is neither live nor ready, since the
    kernel still gives it connections; then another one takes its place by itself.
    """
    tier = start_ingest(processes, make_topic(), TWO)
    pids = both_ready(tier)
    assert request(tier.collections_url, envelope(payloads(3))).status == 200
    assert tier.metric("spillway_ingest_payloads_total") == 3
    with stopped(pids[1]):
        assert tier.metric("spillway_ingest_payloads_total") == 3
        assert len(connections(tier)) == 2
        until(lambda: get(f"{tier.ops_url}/livez")[0] == 503, "the stand-still to be seen", deadline_s=20)
        assert f"pid {pids[1]} has not answered" in get(f"{tier.ops_url}/livez")[1]
        assert f"pid {pids[1]} has not answered" in tier.reasons()["workers"]
        assert tier.metric('spillway_ready{condition="workers"}') == 0
        until(lambda: not alive(pids[1]), "it to be killed", deadline_s=30)
        until(lambda: tier.metric("spillway_ingest_workers") == 2, "another one", deadline_s=40)
    assert tier.metric("spillway_ingest_payloads_total") == 3
    assert tier.metric('spillway_ingest_worker_restarts_total{reason="wedged"}') == 1
    assert (get(f"{tier.ops_url}/livez")[0], get(f"{tier.ops_url}/readyz")[0]) == (200, 200)


def test_a_worker_that_stands_still_does_not_hold_up_the_exit(make_topic: MakeTopic, processes: Processes) -> None:
    """The others drain; it is killed at the bound, and the exit code says that not all have drained."""
    quick = {"HTTP_DEADLINE_S": "1", "KAFKA_PRODUCE_TIMEOUT_S": "0.5"}
    tier = start_ingest(processes, make_topic(), {**TWO, **quick})
    pids = both_ready(tier)
    with stopped(pids[0]):
        assert tier.process.terminate(deadline_s=25) == 1
    assert not [pid for pid in pids if alive(pid)]


@pytest.fixture
def nowhere() -> Topic:
    """A topic on a broker that does not exist."""
    return Topic(f"127.0.0.1:{free_port()}", "nothing", 1)


@pytest.mark.parametrize("variable", ["INGEST_PORT", "INGEST_OPS_PORT"])
def test_a_taken_port_is_told_once(variable: str, nowhere: Topic, processes: Processes) -> None:
    """As by one process, also where who has the port would share it."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        tier = start_ingest(processes, nowhere, {**TWO, variable: str(port)})
        assert tier.process.wait(deadline_s=20) == 1
    assert tier.process.output().count(f"{variable}={port}: cannot listen") == 1
    assert "Traceback" not in tier.process.output()


def test_a_bad_tokens_file_is_told_once(nowhere: Topic, processes: Processes, tmp_path: Path) -> None:
    """No worker is started for it."""
    file = tmp_path / "tokens.json"
    file.write_text("{")
    tier = start_ingest(processes, nowhere, {**TWO, "INGEST_TOKENS_FILE": str(file)})
    assert tier.process.wait(deadline_s=20) == 1
    assert tier.process.output().count("INGEST_TOKENS_FILE") == 1


def test_a_worker_that_cannot_start_ends_it(nowhere: Topic, processes: Processes, tmp_path: Path) -> None:
    """What only a worker meets: its code becomes the whole's, its words are told once."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'worker' in sys.orig_argv: os._exit(os.write(2, b'error: no luck') and 3)\n"
    )
    tier = start_ingest(processes, nowhere, {**TWO, "PYTHONPATH": str(tmp_path)})
    assert tier.process.wait(deadline_s=20) == 3
    assert tier.process.output().count("error: no luck") == 1


def test_any_free_port(make_topic: MakeTopic, processes: Processes) -> None:
    """INGEST_PORT=0: all workers take the same one, and say which."""
    tier = start_ingest(processes, make_topic(), {**TWO, "INGEST_PORT": "0"})
    both_ready(tier)
    urls = {line["url"] for line in log_of(tier) if line["message"] == "serving"}
    assert len(urls) == 1
    assert request(str(urls.pop()), envelope(payloads(1))).status == 200


def test_a_quota_holds_for_all_workers(make_topic: MakeTopic, processes: Processes, tmp_path: Path) -> None:
    """A burst over many connections passes once, not once a worker; and over one connection it passes whole. What is
    spent outlives the worker that it was spent at, and a changed file reaches every worker.
    """
    secret, file = "a-token-of-a-test", tmp_path / "tokens.json"
    entry = {"name": "ci", "sha256": sha256(secret), "requests_per_s": 0.01}
    file.write_text(json.dumps([entry]))
    settings = {**TWO, "INGEST_TOKENS_FILE": str(file), "TOKEN_BURST_S": "2000"}  # 20 at once
    tier = start_ingest(processes, make_topic(), settings)
    pids = both_ready(tier)
    assert statuses(tier, secret, 12, one_connection=True) == {200: 12}
    assert statuses(tier, secret, 30, one_connection=False) == {200: 8, 429: 22}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not set(pids) & set(workers_of(tier)), "both to go", deadline_s=20)
    both_ready(tier)
    assert statuses(tier, secret, 10, one_connection=False) == {429: 10}
    file.write_text(json.dumps([{**entry, "disabled": True}]))
    until(lambda: tier.metric('spillway_ingest_tokens_reloads_total{outcome="taken"}') == 2, "both", deadline_s=20)
    assert statuses(tier, secret, 10, one_connection=False) == {403: 10}


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def statuses(tier: IngestTier, secret: str, count: int, *, one_connection: bool) -> dict[int, int]:
    parts = urlsplit(tier.url)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {secret}"}
    seen = Counter[int]()
    client = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=20)
    for _ in range(count):
        if not one_connection:
            client.close()
        client.request("POST", "/v1/collections", envelope(payloads(1)), headers)
        answer = client.getresponse()
        answer.read()
        seen[answer.status] += 1
    client.close()
    return dict(seen)
