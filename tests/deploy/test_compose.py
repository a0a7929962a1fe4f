"""The stack of docker-compose.yml, running: stored bytes, shares of a group, kills, ends. One stack for the file.

Each test asks for `whole`: everything runs and is healthy, however the test before it has left things.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import botocore.config
import botocore.session
import pytest

from services.uploader.topics import TopicPlan
from tests.harness.compose import UPLOADERS_MAX, Stack, docker, exec_python, failing, inspect, needs_docker
from tests.harness.http_client import request
from tests.harness.load import Load
from tests.harness.oracle import Answers, judge, missing
from tests.harness.s3_client import Bucket
from tests.harness.tiers import get
from tests.harness.waiting import until

pytestmark = [pytest.mark.docker, needs_docker, pytest.mark.timeout(900)]

HEALED_S = 60
"""A session of 10 s that ends, a broker's JVM that starts, and a backlog, on two cores that have other things to do."""

_LASTING = {"ingest": 1, "uploader": 2, "kafka": 1, "s3": 1}
_OWN_KEYS = ".spillway/"


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """A stack of this file's own, gone afterwards whatever happens."""
    made = Stack()
    failed = request.session.testsfailed
    try:
        yield made
    finally:
        if request.session.testsfailed > failed:
            print(made.logs())  # noqa: T201 - of what is gone when anyone reads the report
        made.remove()


@pytest.fixture
def whole(stack: Stack) -> Stack:
    """The stack as `docker compose up --wait --build` makes it, with as many uploaders as the file says."""
    if not stack.was_up:
        stack.up("--build")
    elif not stack.healthy(_LASTING):
        stack.compose("up", "--detach")  # `--wait` would give up at once on what is unhealthy still, after a kill
        until(lambda: stack.healthy(_LASTING), "a whole stack", deadline_s=2 * HEALED_S, every_s=1)
    return stack


@pytest.fixture
def bucket(whole: Stack) -> Iterator[Bucket]:
    """Its bucket, by botocore alone."""
    client = botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=whole.s3_url,
        aws_access_key_id="any",
        aws_secret_access_key="any",  # noqa: S106 - the server checks none
        config=botocore.config.Config(s3={"addressing_style": "path"}, proxies={}),
    )
    with contextlib.closing(Bucket(client, "spillway")) as found:
        yield found


def _group(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stack.run("uploader", "lag", "--output", "json"))
    return found


def _lag(stack: Stack) -> int:
    return sum(one["lag_records"] for one in _group(stack)["partitions"])


def _all_stored(bucket: Bucket, answers: Answers) -> None:
    """Every acknowledged payload comes to the bucket, byte for byte; what was refused does not."""
    until(
        lambda: missing(answers, dict.fromkeys(bucket.names(), ())) == 0,
        f"objects of {len(answers.accepted)} accepted payloads",
        deadline_s=HEALED_S,
        every_s=0.5,
    )
    unsure = answers.refused | answers.unknown
    versions = {}
    for key in bucket.names():
        named = key.rpartition("/")[2] in answers.accepted
        if named or (unsure and not key.startswith(_OWN_KEYS)):
            found = bucket.get(key)
            if named or found.body in unsure:  # the rest is of other tests of this file: one bucket for all
                versions[key] = [found]
    verdict = judge(answers, versions)
    assert not verdict.faults, str(verdict)


def test_a_collection_is_stored_as_it_was_sent(whole: Stack, bucket: Bucket) -> None:
    """The README's own request, and its bytes in the bucket."""
    body = b'{"version":"1","token":"me","data":[{"n":1e400},[ 1 ,2 ]]}'
    answer = request(whole.collections_url, body)
    assert answer.status == 200, answer.body
    answers = Answers()
    answers.accept(answer.document["ids"], [b'{"n":1e400}', b"[ 1 ,2 ]"])
    _all_stored(bucket, answers)


def test_up_again_changes_nothing(whole: Stack) -> None:
    """The same containers run on; topics and bucket are found as they should be."""
    before = {service: whole.ids(service) for service in _LASTING}
    whole.up("--build")
    assert {service: whole.ids(service) for service in before} == before
    for once in ("topics", "bucket"):
        (container,) = whole.ids(once, running=False)
        assert inspect(container)["State"]["ExitCode"] == 0


def test_the_topics_are_those_of_the_contract(whole: Stack) -> None:
    """Partitions and retention as `topics` plans them by itself, one copy, LogAppendTime (which the command checks)."""
    plan = TopicPlan()
    told = whole.run("uploader", "topics")
    assert f"{plan.partitions} partitions" in told
    assert f"retention {plan.retention_ms // 3_600_000} h" in told


@pytest.mark.parametrize("service", ["ingest", "uploader"])
def test_a_container_has_no_rights(whole: Stack, service: str) -> None:
    """A user that is a number, a root that is only read, no capability and none to be had; healthy like this."""
    for container in whole.ids(service):
        facts = inspect(container)
        assert facts["State"]["Health"]["Status"] == "healthy"
        assert facts["HostConfig"]["ReadonlyRootfs"] is True
        status = dict(
            line.split(":\t", 1) for line in exec_python(container, "print(open('/proc/1/status').read())").splitlines()
        )
        assert status["Uid"].split() == status["Gid"].split() == ["10001"] * 4
        assert {name: int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {
            "CapEff": 0,
            "CapPrm": 0,
            "CapBnd": 0,
        }
        assert status["NoNewPrivs"] == "1"
        for path in ("/x", "/tmp/x", "/opt/spillway/x", "/home/x"):  # noqa: S108
            assert failing(container, ["python", "-c", f"open('{path}', 'w')"]) != 0, path
        # Process 1 is the tier itself: what Docker sends arrives there, and not at a shell that keeps it.
        command = exec_python(container, "print(open('/proc/1/cmdline').read().replace(chr(0), ' '))")
        assert command.split()[1:] == [f"/opt/spillway/bin/spillway-{service}", *(facts["Config"]["Cmd"] or [])]


def test_ports_are_this_machines_own(whole: Stack) -> None:
    """On 127.0.0.1 alone, since nobody is asked for a token; Kafka has none at all."""
    published = {}
    for service in _LASTING:
        for container in whole.ids(service):
            ports: Mapping[str, list[dict[str, str]] | None] = inspect(container)["NetworkSettings"]["Ports"]
            bindings = [one for found in ports.values() for one in found or []]
            assert {one["HostIp"] for one in bindings} <= {"127.0.0.1"}
            published[service] = len(bindings)
    assert published == {"ingest": 2, "uploader": 1, "kafka": 0, "s3": 1}


def test_three_uploaders_share_the_partitions(whole: Stack) -> None:
    """`--scale uploader=3`: twelve partitions, four each; every replica's page has a host port of its own."""
    whole.up("--scale", "uploader=3")
    assert len(whole.ids("uploader")) == 3
    shares = until(
        lambda: [found for found in [[m["partitions"] for m in _group(whole)["members"]]] if len(found) == 3],
        "a group of three",
        deadline_s=HEALED_S,
    )[0]
    assert sorted(len(share) for share in shares) == [4, 4, 4]
    assert sorted(partition for share in shares for partition in share) == list(range(UPLOADERS_MAX))
    first, last = map(int, whole.uploader_ports.split("-"))
    ports = set()
    for index in (1, 2, 3):
        port = int(whole.compose("port", "--index", str(index), "uploader", "8081").rpartition(":")[2])
        assert get(f"http://127.0.0.1:{port}/readyz")[0] == 200
        ports.add(port)
    assert len(ports) == 3
    assert ports <= set(range(first, last + 1))


def test_a_killed_uploader_and_a_killed_broker_lose_nothing(whole: Stack, bucket: Bucket) -> None:
    """SIGKILL while collections are posted: what was answered 200 is in the bucket, what was refused is not."""
    with Load(whole.collections_url, per_s=10) as load:

        def goes_on(what: str) -> None:
            before = load.accepted
            until(lambda: load.accepted > before + 20, f"collections to be accepted {what}", deadline_s=HEALED_S)

        goes_on("at first")
        victim = whole.ids("uploader")[0]
        docker("kill", victim)
        assert inspect(victim)["State"]["ExitCode"] == 137
        goes_on("with an uploader killed")
        (broker,) = whole.ids("kafka")
        docker("kill", broker)
        refused = load.answers.statuses[503] + load.answers.statuses[504]
        until(
            lambda: load.answers.statuses[503] + load.answers.statuses[504] > refused,
            "a collection to be refused without a broker",
            deadline_s=HEALED_S,
        )
        docker("start", broker, victim)
        goes_on("once the broker is back")
        answers = load.stop()
    _all_stored(bucket, answers)
    until(lambda: _lag(whole) == 0, "the group's lag to be 0", deadline_s=HEALED_S, every_s=1)


def test_both_tiers_end_by_themselves(whole: Stack, bucket: Bucket) -> None:
    """SIGTERM under load, as `docker compose stop` sends it: code 0; at the end of its grace it would be 137. What
    ingest had taken by then is stored once an uploader is back.
    """
    with Load(whole.collections_url, per_s=20) as load:
        until(lambda: load.accepted > 20, "collections to be accepted", deadline_s=HEALED_S)
        ended = whole.ids("ingest") + whole.ids("uploader")
        whole.compose("stop", "uploader", "ingest")
        answers = load.stop()
    for container in ended:
        state = inspect(container)["State"]
        assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 0, False)
    whole.up()
    _all_stored(bucket, answers)


def test_what_the_forgetful_bucket_loses_is_put_back(whole: Stack, bucket: Bucket) -> None:
    """docs/containers.md: the S3 server's end is its objects' end; Kafka has them, in a volume that outlives `down`."""
    answer = request(whole.collections_url, b'{"version":"1","token":"me","data":["kept"]}')
    answers = Answers()
    answers.accept(answer.document["ids"], [b'"kept"'])
    _all_stored(bucket, answers)
    until(lambda: _lag(whole) == 0, "the last commit", deadline_s=HEALED_S)
    whole.compose("down")
    whole.up()
    assert missing(answers, dict.fromkeys(bucket.names(), ())) == 1
    whole.run("uploader", "replay", "--from", "1d", "--only-missing", "--output", "json")
    _all_stored(bucket, answers)
