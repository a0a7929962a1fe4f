"""Kafka behind TLS: both tiers, the commands, and what is said when it is set up wrongly."""

from tests.harness.secure_broker import SecureBroker
from tests.integration.conftest import MakeSecured


def test_both_tiers_and_the_commands(secure_broker: SecureBroker, make_secured: MakeSecured) -> None:
    """With the CA alone (the broker takes anybody on this listener): what is posted is stored."""
    make_secured(secure_broker).goes_through(lambda _user: secure_broker.environment("TLS"))
