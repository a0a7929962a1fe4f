"""Kafka that wants client certificates: both tiers, the commands, and what is said of a certificate that it refuses."""

from pathlib import Path

import pytest

from tests.harness.certificates import Authority
from tests.harness.secure_broker import SecureBroker
from tests.harness.secured import says
from tests.integration.conftest import MakeSecured

REFUSED = "the broker refuses the client certificate of KAFKA_SSL_CERTFILE"


@pytest.mark.parametrize("password", [None, "open sesame"])
def test_both_tiers_and_the_commands(
    secure_broker: SecureBroker, make_secured: MakeSecured, tmp_path: Path, password: str | None
) -> None:
    """The certificate's name is the user, and has its grants alone; a key may be encrypted."""

    def variables(user: str) -> dict[str, str]:
        certificate, key = secure_broker.authority.issue(user, password=password).write(tmp_path, user)
        return {
            **secure_broker.environment("MTLS"),
            "KAFKA_SSL_CERTFILE": str(certificate),
            "KAFKA_SSL_KEYFILE": str(key),
            "KAFKA_SSL_KEY_PASSWORD": password or "",
        }

    make_secured(secure_broker).goes_through(variables)


def test_no_certificate(secure_broker: SecureBroker, make_secured: MakeSecured) -> None:
    """Both tiers and the commands say which variables are not set."""
    secured, variables = make_secured(secure_broker), secure_broker.environment("MTLS")
    words = "the broker wants a client certificate: set KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE"
    for tier in (secured.ingest(variables), secured.uploader(variables)):
        says(tier, words)
    secured.commands_say(variables, words)


@pytest.mark.parametrize("fault", ["expired", "of another authority"])
def test_a_refused_certificate(
    secure_broker: SecureBroker, make_secured: MakeSecured, tmp_path: Path, fault: str
) -> None:
    """Both tiers say whose it is; a good one in its place mends it without a restart."""
    secured, authority = make_secured(secure_broker), secure_broker.authority
    tiers = []
    for user, start in (("ingest", secured.ingest), ("uploader", secured.uploader)):
        bad = authority.issue(user, life_s=-30) if fault == "expired" else Authority("another CA").issue(user)
        certificate, key = bad.write(tmp_path, user)
        files = {"KAFKA_SSL_CERTFILE": str(certificate), "KAFKA_SSL_KEYFILE": str(key)}
        tiers.append(start({**secure_broker.environment("MTLS"), **files}))
    for tier in tiers:
        says(tier, REFUSED)
    for user in ("ingest", "uploader"):
        authority.issue(user).write(tmp_path, user)
    for tier in tiers:
        tier.wait_ready()
