"""Kafka behind SASL: each mechanism end to end, and what is said of wrong credentials and of missing grants."""

import pytest

from tests.harness import acls
from tests.harness.acls import Kind, Operation
from tests.harness.secure_broker import SCRAM, SecureBroker
from tests.harness.secured import says
from tests.integration.conftest import MakeSecured

REFUSED = "the broker refuses our credentials: look at KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAM])
def test_both_tiers_and_the_commands(mechanism: str, secure_broker: SecureBroker, make_secured: MakeSecured) -> None:
    """Each as a user of its own, with the grants that docs/security.md lists and none more."""
    make_secured(secure_broker).goes_through(lambda user: secure_broker.environment("SASL", user, mechanism))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"KAFKA_SASL_PASSWORD": "wrong"}, REFUSED),
        ({"KAFKA_SASL_PASSWORD": "wrong", "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"}, REFUSED),
        ({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:{OAUTH}"}, "the broker does not take this KAFKA_SASL_MECHANISM"),
    ],
    ids=["password", "password of SCRAM", "mechanism"],
)
def test_wrong_credentials(
    secure_broker: SecureBroker, make_secured: MakeSecured, changed: dict[str, str], words: str
) -> None:
    """Both tiers and the commands name the variable, and not the password."""
    secured = make_secured(secure_broker)
    changed = {name: text.format(**secure_broker.ports) for name, text in changed.items()}
    variables = secure_broker.environment("SASL") | changed
    tiers = secured.ingest(variables), secured.uploader(variables)
    for tier in tiers:
        says(tier, words)
    secured.commands_say(variables, words)


@pytest.mark.parametrize(
    ("user", "kind", "operations", "condition", "words"),
    [
        ("ingest", Kind.TOPIC, ("Describe", "DescribeConfigs", "Write"), "kafka", "lacks a grant (ACL) on KAFKA_TOPIC"),
        ("ingest", Kind.TOPIC, ("DescribeConfigs",), "kafka", "lacks a grant (ACL) on KAFKA_TOPIC"),
        ("uploader", Kind.TOPIC, ("Read",), "kafka", "lacks a grant (ACL) on KAFKA_TOPIC"),
        ("uploader", Kind.GROUP, ("Read",), "kafka", "lacks a grant (ACL) on KAFKA_GROUP_ID"),
    ],
    ids=["ingest, topic", "ingest, configuration", "uploader, topic", "uploader, group"],
)
def test_a_grant_is_missing(
    secure_broker: SecureBroker,
    make_secured: MakeSecured,
    user: str,
    kind: Kind,
    operations: tuple[str, ...],
    condition: str,
    words: str,
) -> None:
    """The tier says on what; with the grant it goes on without a restart."""
    secured = make_secured(secure_broker)
    name = {Kind.TOPIC: secured.topic.name, Kind.GROUP: secured.topic.group}[kind]
    grants = [(user, kind, name, Operation[operation]) for operation in operations]
    acls.revoke(secure_broker.plain, *grants)
    variables = secure_broker.environment("SASL", user, "SCRAM-SHA-256")
    tier = (secured.ingest if user == "ingest" else secured.uploader)(variables)
    says(tier, words, condition)
    acls.allow(secure_broker.plain, *grants)
    tier.wait_ready()


def test_an_ingest_that_may_not_write(secure_broker: SecureBroker, make_secured: MakeSecured) -> None:
    """Refused before anything was written: 503, and the answer says why."""
    secured = make_secured(secure_broker)
    write = ("ingest", Kind.TOPIC, secured.topic.name, Operation.Write)
    acls.revoke(secure_broker.plain, write)
    ingest = secured.ingest(secure_broker.environment("SASL", "ingest", "SCRAM-SHA-256"))
    ingest.wait_ready()  # a broker tells nobody beforehand what they may not write
    secured.post(ingest, 1)
    assert dict(secured.answers.statuses) == {503: 1}
    acls.allow(secure_broker.plain, write)
    secured.post(ingest, 1)
    assert secured.answers.statuses[200] == 1
