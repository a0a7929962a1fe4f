"""Kafka behind TLS: both tiers, the commands, and what is said when it is set up wrongly."""

from pathlib import Path

import pytest

from tests.harness.certificates import Authority
from tests.harness.secure_broker import SecureBroker
from tests.harness.secured import says
from tests.integration.conftest import MakeSecured


def test_both_tiers_and_the_commands(secure_broker: SecureBroker, make_secured: MakeSecured) -> None:
    """With the CA alone (the broker takes anybody on this listener): what is posted is stored."""
    make_secured(secure_broker).goes_through(lambda _user: secure_broker.environment("TLS"))


def test_an_authority_that_is_not_the_brokers(
    secure_broker: SecureBroker, make_secured: MakeSecured, tmp_path: Path
) -> None:
    """Nothing is sent to who cannot prove to be the broker; all say which variable; the right file mends it at once."""
    secured, ca_file = make_secured(secure_broker), tmp_path / "ca.crt"
    ca_file.write_bytes(Authority("somebody else's CA").certificate)
    variables = {**secure_broker.environment("TLS"), "KAFKA_SSL_CAFILE": str(ca_file)}
    tiers = secured.ingest(variables), secured.uploader(variables)
    for tier in tiers:
        says(tier, "not signed by an authority of KAFKA_SSL_CAFILE")
    secured.commands_say(variables, "not signed by an authority of KAFKA_SSL_CAFILE")
    ca_file.write_bytes(secure_broker.authority.certificate)
    for tier in tiers:
        tier.wait_ready()
    secured.post(tiers[0])
    secured.all_stored()


@pytest.mark.parametrize(
    ("listener", "changed", "words"),
    [
        ("TLS", {"KAFKA_BOOTSTRAP_SERVERS": "localhost:{TLS}"}, "is not for the name that KAFKA_BOOTSTRAP_SERVERS"),
        ("TLS", {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT", "KAFKA_SSL_CAFILE": ""}, "KAFKA_SECURITY_PROTOCOL=SSL"),
        ("TLS", {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:{plain}"}, "look at KAFKA_SECURITY_PROTOCOL=SSL"),
        ("SASL", {"KAFKA_SECURITY_PROTOCOL": "SSL"}, "look at KAFKA_SECURITY_PROTOCOL=SSL"),
    ],
    ids=["another name", "plain to TLS", "TLS to plain", "no credentials"],
)
def test_the_wrong_door(
    secure_broker: SecureBroker, make_secured: MakeSecured, listener: str, changed: dict[str, str], words: str
) -> None:
    """A certificate for another name, and each protocol at the port of another: the setting at fault is named."""
    secured, ports = make_secured(secure_broker), {"plain": secure_broker.kafka.port, **secure_broker.ports}
    variables = secure_broker.environment(listener) | {name: text.format(**ports) for name, text in changed.items()}
    for tier in (secured.ingest(variables), secured.uploader(variables)):
        says(tier, words)
    lag = secured.commands(variables).run("lag")
    assert (lag.code, words in lag.err) == (1, True), str(lag)
