"""Kafka behind SASL: each mechanism end to end, and what is said of a wrong password."""

from pathlib import Path

import pytest

from tests.harness.secure_broker import SCRAM, SecureBroker, token
from tests.integration.conftest import MakeSecured


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAM])
def test_both_tiers_and_the_commands(mechanism: str, secure_broker: SecureBroker, make_secured: MakeSecured) -> None:
    """Each as a user of its own, with the grants that docs/security.md lists and none more."""
    make_secured(secure_broker).goes_through(lambda user: secure_broker.environment("SASL", user, mechanism))


def test_tokens_of_files(secure_broker: SecureBroker, make_secured: MakeSecured, tmp_path: Path) -> None:
    """OAUTHBEARER."""

    def variables(user: str) -> dict[str, str]:
        file = tmp_path / user
        file.write_text(token(user))
        return {
            **secure_broker.environment("OAUTH"),
            "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA_SASL_TOKEN_FILE": str(file),
        }

    make_secured(secure_broker).goes_through(variables)
