"""No secret is ever printed or served: both tiers and the commands at LOG_LEVEL=DEBUG, well, and failing in many ways.

Every secret carries one mark, and everything that a process prints or serves is searched for it, also in base64.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.fakes.s3 import FakeS3
from tests.fakes.script import ACCESS_DENIED, EXPIRED_TOKEN
from tests.harness.http_client import request
from tests.harness.processes import Process, Processes
from tests.harness.secure_broker import SecureBroker, password
from tests.harness.secured import says
from tests.harness.tiers import START_DEADLINE_S, IngestTier, Tier, get, start_ingest, start_uploader
from tests.harness.waiting import until
from tests.integration.conftest import MakeSecured

MARK = "SECRET-of-"
AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": f"{MARK}aws",
    "AWS_SESSION_TOKEN": f"{MARK}session",
    "LOG_LEVEL": "DEBUG",
}
assert MARK in password("ingest")


def _marked(text: str) -> list[str]:
    """What of the text has the mark, in the clear or in base64 at any of its three positions."""
    forms = [MARK]
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + MARK.encode()).decode()
        forms.append(encoded[4 if before else 0 : (before + len(MARK)) // 3 * 4])  # what depends on the mark alone
    return [line[:300] for line in text.splitlines() if any(form in line for form in forms)]


def _silent(process: Process) -> None:
    assert _marked(process.output()) == []


def _tells_nothing(*tiers: Tier) -> None:
    """Neither the log nor any route of the ops port has the mark."""
    for tier in tiers:
        for path in ("/readyz", "/metrics", "/livez"):
            status, body = get(tier.ops_url + path)
            assert status
            assert _marked(body) == []
        _silent(tier.process)


def _ask(ingest: IngestTier) -> list[int]:
    """Collections good and bad, each with a client's token in the body, in the header and in the query."""
    good = {"version": "1", "token": f"{MARK}client", "data": [{"n": 1}]}
    bearer = {"Authorization": f"Bearer {MARK}client"}
    answers = [
        request(ingest.collections_url, json.dumps(good).encode()),
        request(ingest.collections_url, json.dumps(good).encode(), headers=bearer),
        request(ingest.collections_url, json.dumps(good | {"data": []}).encode()),
        request(ingest.collections_url, json.dumps(good).encode()[:-4], headers=bearer),
        request(ingest.collections_url, b"", headers={"Content-Length": "-1", **bearer}),
        request(ingest.collections_url + "?token=" + MARK, method="GET", headers=bearer),
    ]
    for answer in answers:
        assert _marked(answer.body.decode() + json.dumps(answer.headers)) == []
    return [answer.status for answer in answers]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
def test_at_work_and_with_an_s3_that_refuses(
    mechanism: str, secure_broker: SecureBroker, make_secured: MakeSecured, processes: Processes, fake_s3: FakeS3
) -> None:
    """Authentication succeeds, clients are answered, and S3 says no in three ways before it takes the payloads."""
    topic = make_secured(secure_broker).topic
    ingest = start_ingest(
        processes, topic, {**secure_broker.environment("BARE", "ingest", mechanism), "LOG_LEVEL": "DEBUG"}
    )
    variables = {**secure_broker.environment("BARE", "uploader", mechanism), **AWS}
    uploader = start_uploader(processes, topic, fake_s3.environment(), "bucket", variables)  # which is not there
    says_s3 = lambda words: until(  # noqa: E731
        lambda: words in uploader.reasons().get("s3", ""), f"{words} in /readyz", deadline_s=START_DEADLINE_S
    )
    says_s3("NoSuchBucket")
    shelf = fake_s3.create_bucket("bucket")
    for tier in (ingest, uploader):
        tier.wait_ready()
    for fault, word in ((ACCESS_DENIED, "AccessDenied"), (EXPIRED_TOKEN, "ExpiredToken")):
        injection = fake_s3.script.inject(fault)
        assert _ask(ingest) == [200, 200, 400, 400, 400, 405]
        says_s3(word)
        _tells_nothing(ingest, uploader)
        injection.heal()
    until(lambda: len(shelf) == 5, "both payloads of each round, and the probe", deadline_s=40)
    _tells_nothing(ingest, uploader)


def test_a_tokens_file(
    secure_broker: SecureBroker, make_secured: MakeSecured, processes: Processes, tmp_path: Path
) -> None:
    """A client with a token that nobody knows, and a file that holds a token where its hash belongs."""
    topic, file = make_secured(secure_broker).topic, tmp_path / "tokens.json"
    variables = {**secure_broker.environment("TLS"), "LOG_LEVEL": "DEBUG", "INGEST_TOKENS_FILE": str(file)}
    file.write_text(json.dumps([{"name": "a", "sha256": "0" * 64}]))
    ingest = start_ingest(processes, topic, variables)
    ingest.wait_ready()
    assert _ask(ingest)[:2] == [401, 401]
    file.write_text(json.dumps([{"name": "a", "sha256": f"{MARK}token"}]))
    until(lambda: ingest.metric("spillway_ingest_tokens_refused") == 1, "the file to be refused", deadline_s=20)
    _tells_nothing(ingest)


@pytest.mark.parametrize(
    ("listener", "changed", "words"),
    [
        ("SASL", {"KAFKA_SASL_PASSWORD": f"{MARK}wrong"}, "the broker refuses our credentials"),
        ("BARE", {"KAFKA_SASL_PASSWORD": f"{MARK}wrong"}, "the broker refuses our credentials"),
        ("SASL", {"KAFKA_SASL_PASSWORD": f"{MARK}x", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:{plain}"}, "it hangs up"),
        (
            "OAUTH",
            {"KAFKA_SASL_MECHANISM": "OAUTHBEARER", "KAFKA_SASL_TOKEN_FILE": "{file}"},
            "KAFKA_SASL_TOKEN_FILE",
        ),
    ],
    ids=["password", "password in the clear", "another port", "token"],
)
def test_credentials_that_are_refused(
    secure_broker: SecureBroker,
    make_secured: MakeSecured,
    tmp_path: Path,
    listener: str,
    changed: Mapping[str, str],
    words: str,
) -> None:
    """Both tiers and a command fail, and say so without what was refused."""
    file = tmp_path / "token"
    file.write_text(f"{MARK}token")
    secured = make_secured(secure_broker)
    places = {"plain": secure_broker.kafka.port, "file": file}
    variables = {**secure_broker.environment(listener), **AWS, **{k: v.format(**places) for k, v in changed.items()}}
    tiers = secured.ingest(variables), secured.uploader(variables)
    for tier in tiers:
        says(tier, words)
    assert request(tiers[0].collections_url, b'{"version":"1","token":"t","data":[1]}').status == 503
    _tells_nothing(*tiers)
    ran = secured.commands(variables).run("dead-letters", "list")
    assert ran.code != 0
    assert _marked(ran.out + ran.err) == []


def test_starts_that_fail_and_help(processes: Processes, tmp_path: Path, secure_broker: SecureBroker) -> None:
    """Bad settings, an encrypted key with the wrong password, and `--help`, with every secret in the environment."""
    certificate, key = secure_broker.authority.issue("ingest", password="right").write(tmp_path, "c")  # noqa: S106
    secrets = {
        **AWS,
        "KAFKA_SASL_USERNAME": "ingest",
        "KAFKA_SASL_PASSWORD": f"{MARK}sasl",
        "KAFKA_SSL_KEY_PASSWORD": f"{MARK}key",
        "S3_BUCKET": "bucket",
    }
    encrypted = {
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SSL_CERTFILE": str(certificate),
        "KAFKA_SSL_KEYFILE": str(key),
    }
    started = [
        (processes.python(name, module, *arguments, *more, environment=secrets | changed), fails)
        for name, module, arguments in (
            ("ingest", "services.ingest", ()),
            ("uploader", "services.uploader", ("run",)),
            ("verify", "services.uploader", ("verify",)),
        )
        for more, changed, fails in (
            (("--help",), {}, False),
            ((), {"KAFKA_SASL_MECHANISM": "NONE"}, True),
            ((), {"KAFKA_TOPIC": "payloads.dead"}, True),
            ((), encrypted, True),
        )
    ]
    for process, fails in started:
        assert (process.wait(deadline_s=40) != 0) == fails, process.output()
        assert process.output()
        _silent(process)
