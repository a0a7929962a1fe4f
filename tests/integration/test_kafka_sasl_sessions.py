"""Sessions that end, and tokens of files: what aiokafka does not do by itself, against a real broker."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.forwarder import Forwarder
from tests.harness.processes import free_port
from tests.harness.secure_broker import SecureBroker, token
from tests.harness.secured import Secured, says
from tests.harness.tiers import IngestTier, Tier
from tests.harness.waiting import never, until
from tests.integration.conftest import MakeSecured

AGAIN = "authenticated again"
SESSIONS = 4
"""So many times each tier renews its session in a test: more than it has connections."""


class Tokens:
    """The token files of the users."""

    def __init__(self, directory: Path, broker: SecureBroker) -> None:
        self._directory = directory
        self._broker = broker

    def write(self, *users: str, life_s: float = 3600) -> None:
        """New tokens, each file replaced at one instant."""
        for user in users:
            fresh = self._directory / f"{user}.new"
            fresh.write_text(token(user, life_s=life_s) + "\n")
            fresh.rename(self._directory / user)

    def remove(self, user: str) -> None:
        """No token any more."""
        (self._directory / user).unlink()

    def variables(self, user: str) -> dict[str, str]:
        """How a user comes with its token."""
        return {
            **self._broker.environment("OAUTH"),
            "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA_SASL_TOKEN_FILE": str(self._directory / user),
            "LOG_LEVEL": "DEBUG",
        }


@pytest.fixture
def tokens(tmp_path: Path, secure_broker: SecureBroker) -> Tokens:
    """Files of tokens, none written yet."""
    return Tokens(tmp_path, secure_broker)


def _renewing(secured: Secured, ingest: IngestTier, uploader: Tier, each: Callable[[bool], None]) -> None:
    """Post until both have renewed often enough: each collection is acknowledged, and no session of ours has broken.

    `each` is called before each post, and with True at the end.
    """

    def renewed() -> bool:
        each(False)
        secured.post(ingest, 1)
        return all(tier.process.output().count(AGAIN) >= SESSIONS for tier in (ingest, uploader))

    until(renewed, "renewed sessions of both tiers", deadline_s=60, every_s=0.5)
    each(True)
    assert set(secured.answers.statuses) == {200}
    secured.all_stored()
    assert ingest.metric("spillway_ingest_producer_restarts_total") == 0
    assert uploader.metric("spillway_uploader_consumer_restarts_total") == 0
    for tier in (ingest, uploader):
        said = tier.process.output()
        assert "closed" not in said, said


def test_sessions_that_the_broker_ends(secure_broker: SecureBroker, make_secured: MakeSecured) -> None:
    """`connections.max.reauth.ms`: connections authenticate again in time, and no request is lost to a hang-up."""
    secured = make_secured(secure_broker)
    ingest, uploader = (
        start({**secure_broker.environment("BARE", user, "SCRAM-SHA-512"), "LOG_LEVEL": "DEBUG"})
        for user, start in (("ingest", secured.ingest), ("uploader", secured.uploader))
    )
    ingest.wait_ready()
    uploader.wait_ready()
    _renewing(secured, ingest, uploader, lambda _over: None)


def test_tokens_that_live_for_seconds(secure_broker: SecureBroker, make_secured: MakeSecured, tokens: Tokens) -> None:
    """A session lives as long as its token. The file is read again for the next, and no request is lost."""
    users = ("ingest", "uploader")
    tokens.write(*users, life_s=15)
    secured = make_secured(secure_broker)
    ingest, uploader = secured.ingest(tokens.variables("ingest")), secured.uploader(tokens.variables("uploader"))
    ingest.wait_ready()
    uploader.wait_ready()
    _renewing(secured, ingest, uploader, lambda over: tokens.write(*users, life_s=3600 if over else 4))


def test_both_tiers_and_the_commands(secure_broker: SecureBroker, make_secured: MakeSecured, tokens: Tokens) -> None:
    """A token's subject is the user, and has its grants alone."""
    tokens.write("ingest", "uploader", "operator")
    make_secured(secure_broker).goes_through(tokens.variables)


def test_a_refused_token(secure_broker: SecureBroker, make_secured: MakeSecured, tokens: Tokens) -> None:
    """It has expired: the variable is named, nobody asks without a pause, and a new token mends it at once."""
    users = ("ingest", "uploader")
    tokens.write(*users, life_s=-60)
    secured = make_secured(secure_broker)
    with Forwarder(free_port(), secure_broker.ports["OAUTH"]) as door:
        through = {"KAFKA_BOOTSTRAP_SERVERS": door.address}
        tiers = (
            secured.ingest(tokens.variables("ingest") | through),
            secured.uploader(tokens.variables("uploader") | through),
        )
        for tier in tiers:
            says(tier, "or at the token in KAFKA_SASL_TOKEN_FILE")
        secured.commands_say(tokens.variables("ingest"), "or at the token in KAFKA_SASL_TOKEN_FILE")
        before = door.connections
        # two tiers, a try a second and at most three connections each; without a pause it would be hundreds
        never(lambda: door.connections - before > 40, "a try without a pause", for_s=5)
        tokens.write(*users)
        for tier in tiers:
            tier.wait_ready()


def test_no_token_at_the_start(secure_broker: SecureBroker, make_secured: MakeSecured, tokens: Tokens) -> None:
    """It stops the process with a line that names the variable."""
    secured = make_secured(secure_broker)
    ended = secured.ingest(tokens.variables("ingest")).process
    assert ended.wait(deadline_s=20) == 1
    assert ended.output().startswith("error: KAFKA_SASL_TOKEN_FILE: No such file"), ended.output()


def test_no_token_for_a_while(secure_broker: SecureBroker, make_secured: MakeSecured, tokens: Tokens) -> None:
    """The session that is goes on to its end, and a token that comes before that is taken: no request is lost."""
    tokens.write("ingest", life_s=20)
    secured = make_secured(secure_broker)
    ingest = secured.ingest(tokens.variables("ingest"))
    ingest.wait_ready()
    secured.post(ingest, 4)  # now there are connections for both partitions
    tokens.remove("ingest")

    def said(words: str) -> bool:
        secured.post(ingest, 1)
        return words in ingest.process.output()

    until(lambda: said("no token for the next session"), "it to miss the token", deadline_s=40, every_s=0.3)
    tokens.write("ingest")
    until(lambda: said(AGAIN), "it to take the new token", deadline_s=20, every_s=0.3)
    assert set(secured.answers.statuses) == {200}
