"""A real broker with a listener for each way to be secure, and ACLs: nobody may do anything that was not granted.

Owns its certificates and its users. The plain listener is for the harness alone: whoever comes that way
is the cluster's super user.
"""

import base64
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from deploy.local.kafka import EmbeddedKafka
from deploy.local.ports import LOOPBACK
from tests.harness.certificates import Authority, Pair
from tests.harness.processes import free_port

SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
SESSION_MS = 3000
"""After how long BARE hangs up on who came with SCRAM-SHA-512 and has not authenticated again."""
USERS = ("ingest", "uploader", "operator")
_SECURITY = "org.apache.kafka.common.security"
_MAPPED = {"TLS": "SSL", "MTLS": "SSL", "SASL": "SASL_SSL", "OAUTH": "SASL_SSL", "BARE": "SASL_PLAINTEXT"}


def password(user: str) -> str:
    """What the broker knows this user by; marked, so that a test can look for it."""
    return f"SECRET-of-{user}"


class SecureBroker:
    """One broker.

    Listeners: TLS (whoever comes so is the super user, too), MTLS (a client certificate is a must), SASL (TLS with
    PLAIN or SCRAM), OAUTH (TLS with OAUTHBEARER), BARE (PLAIN or SCRAM without TLS). A certificate's common name and a
    token's `sub` are the user.

    Args:
        directory: gets everything.
        clients: the authorities whose client certificates it takes.
        properties: over those of the broker.

    """

    def __init__(
        self, directory: Path, *, clients: Iterable[Authority] = (), properties: Mapping[str, str] | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.authority = Authority("test CA of the brokers")
        self.ports = {listener: free_port() for listener in _MAPPED}
        self._plain = free_port()
        self.trust([self.authority, *clients])
        self.serve_with(self.authority.issue("broker", hosts=(LOOPBACK,)))
        self.ca_file = directory / "ca.crt"
        self.ca_file.write_bytes(self.authority.certificate)
        self.kafka = EmbeddedKafka(
            directory / "kafka",
            port=self._plain,
            properties={**self._properties(), **(properties or {})},
            format_arguments=[
                argument
                for user in USERS
                for mechanism in SCRAM
                for argument in ("--add-scram", f"{mechanism}=[name={user},password={password(user)}]")
            ],
        )

    def trust(self, clients: Iterable[Authority]) -> None:
        """Take client certificates of these authorities, from the next start on."""
        (self.directory / "trusted.pem").write_bytes(b"".join(authority.certificate for authority in clients))

    def serve_with(self, pair: Pair) -> None:
        """Show this certificate, from the next start on."""
        (self.directory / "broker.pem").write_bytes(pair.together)

    def address(self, listener: str) -> str:
        """The address of a listener."""
        return f"{LOOPBACK}:{self.ports[listener]}"

    @property
    def plain(self) -> str:
        """The harness's own address."""
        return self.kafka.bootstrap_servers

    def environment(self, listener: str, user: str = "ingest", mechanism: str = "PLAIN") -> dict[str, str]:
        """The variables of a client of this listener; certificates of clients are the test's to add."""
        found = {"KAFKA_BOOTSTRAP_SERVERS": self.address(listener), "KAFKA_SECURITY_PROTOCOL": _MAPPED[listener]}
        if listener != "BARE":
            found["KAFKA_SSL_CAFILE"] = str(self.ca_file)
        if listener in ("SASL", "BARE"):
            found |= {
                "KAFKA_SASL_MECHANISM": mechanism,
                "KAFKA_SASL_USERNAME": user,
                "KAFKA_SASL_PASSWORD": password(user),
            }
        return found

    def _properties(self) -> dict[str, str]:
        listeners = ",".join(f"{name}://{self.address(name)}" for name in self.ports)
        plain, controller = f"PLAINTEXT://{LOOPBACK}:{self._plain}", free_port()
        users = " ".join(f'user_{user}="{password(user)}"' for user in USERS)
        plain_login = f"{_SECURITY}.plain.PlainLoginModule required {users};"
        scram_login = f"{_SECURITY}.scram.ScramLoginModule required;"
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **_MAPPED}
        found = {
            "controller.quorum.voters": f"1@{LOOPBACK}:{controller}",
            "listeners": f"{plain},CONTROLLER://{LOOPBACK}:{controller},{listeners}",
            "advertised.listeners": f"{plain},{listeners}",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.directory / "broker.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.directory / "trusted.pem"),
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/,DEFAULT",
            "listener.name.mtls.ssl.client.auth": "required",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
            "listener.name.oauth.oauthbearer.sasl.jaas.config": (
                f'{_SECURITY}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
            ),
            # Kafka's own validator for tests: it believes a token that nobody signed, and minds its times
            "listener.name.oauth.oauthbearer.sasl.server.callback.handler.class": (
                f"{_SECURITY}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
            ),
        }
        found["listener.name.bare.scram-sha-512.connections.max.reauth.ms"] = str(SESSION_MS)
        for listener in ("sasl", "bare"):
            found[f"listener.name.{listener}.sasl.enabled.mechanisms"] = ",".join(("PLAIN", *SCRAM))
            found[f"listener.name.{listener}.plain.sasl.jaas.config"] = plain_login
            for mechanism in SCRAM:
                found[f"listener.name.{listener}.{mechanism.lower()}.sasl.jaas.config"] = scram_login
        return found


def token(subject: str, *, life_s: float = 3600) -> str:
    """A token that says who its bearer is, signed by nobody."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": now - 1, "exp": now + life_s})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."
