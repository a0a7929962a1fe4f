"""Kafka settings and what both clients make of them: connection options, and the facts of a topic that we rely on.

Owns the KAFKA_* variables. Builds no client that lives on; the tiers do that in their `__main__`. How certificates are
renewed is `certificates`' matter, how we authenticate `sasl`'s, what is said of failures `kafka_trouble`'s.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, ProducerClosed, TopicAuthorizationFailedError
from aiokafka.protocol.metadata import MetadataRequest
from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from shared import sasl
from shared.certificates import CertificateFiles, RenewedContext
from shared.settings import EnvironmentSettings

REQUEST_TIMEOUT_S = 8.0
"""One Kafka request, in seconds. Below the HTTP deadline of 10 s (DESIGN §5: time-outs are coupled)."""


class KafkaSettings(EnvironmentSettings):
    """The KAFKA_* variables, shared by both tiers."""

    kafka_bootstrap_servers: str = Field(
        default="localhost:9092", description="Broker addresses, `host:port,host:port`"
    )
    kafka_topic: str = Field(
        default="payloads", description="Topic of the payloads", pattern=r"^[A-Za-z0-9._-]{1,249}$"
    )
    kafka_dead_topic: str = Field(
        default="payloads.dead",
        description="Topic for records that S3 can never take: the dead letters",
        pattern=r"^[A-Za-z0-9._-]{1,249}$",
    )
    kafka_min_insync: int = Field(
        default=2, ge=1, description="Least `min.insync.replicas` of the topic at which ingest calls itself ready"
    )
    kafka_client_rack: str | None = Field(default=None, description="This client's rack (KIP-392, nearest replica)")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="How to talk to the brokers"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        default="PLAIN", description="SASL mechanism"
    )
    kafka_sasl_username: str | None = Field(default=None, description="SASL user")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="SASL password")
    kafka_sasl_token_file: str | None = Field(
        default=None, description="File with the token for OAUTHBEARER, read for each authentication"
    )
    kafka_ssl_cafile: str | None = Field(
        default=None, description="CA bundle of the brokers, PEM; this and the next two: read anew when they change"
    )
    kafka_ssl_certfile: str | None = Field(default=None, description="Client certificate, PEM")
    kafka_ssl_keyfile: str | None = Field(default=None, description="Client key, PEM")
    kafka_ssl_key_password: SecretStr | None = Field(default=None, description="Password of the client key")

    _tls: RenewedContext | None = PrivateAttr(default=None)  # of all clients; made when the first one asks

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _addresses(cls, value: str) -> str:
        for address in value.split(","):
            host, colon, port = address.strip().rpartition(":")
            if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):  # noqa: PLR2004 - ports
                raise ValueError(f"{address.strip()!r} is not host:port")
        return value

    @model_validator(mode="after")
    def _complete(self) -> "KafkaSettings":
        protocol = self.kafka_security_protocol
        if protocol.startswith("SASL") and self.kafka_sasl_mechanism == "OAUTHBEARER":
            if not self.kafka_sasl_token_file:
                raise ValueError("KAFKA_SASL_MECHANISM=OAUTHBEARER needs KAFKA_SASL_TOKEN_FILE")
            if protocol != "SASL_SSL":  # RFC 6750 §5.3: who hears a token has it
                raise ValueError("KAFKA_SASL_MECHANISM=OAUTHBEARER needs KAFKA_SECURITY_PROTOCOL=SASL_SSL")
        elif protocol.startswith("SASL") and not (self.kafka_sasl_username and self.kafka_sasl_password):
            raise ValueError(f"KAFKA_SECURITY_PROTOCOL={protocol} needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD")
        if bool(self.kafka_ssl_certfile) != bool(self.kafka_ssl_keyfile):
            raise ValueError("KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE go together: set both or neither")
        if not protocol.endswith("SSL") and (self.kafka_ssl_cafile or self.kafka_ssl_certfile):
            raise ValueError(
                f"KAFKA_SSL_CAFILE or KAFKA_SSL_CERTFILE is set, and KAFKA_SECURITY_PROTOCOL={protocol} uses no TLS"
            )
        if self.kafka_topic == self.kafka_dead_topic:
            raise ValueError("KAFKA_DEAD_TOPIC must differ from KAFKA_TOPIC")
        return self


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """The options that every aiokafka client of ours takes: addresses and security.

    All clients of one process share its TLS context, which looks at the files itself: no call but the first reads them.

    Raises:
        ValueError: a file of certificates or the token's cannot be used; the message names the variable.

    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        options["ssl_context"] = _tls(settings)
    if settings.kafka_security_protocol.startswith("SASL"):
        sasl.install()
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        if settings.kafka_sasl_mechanism == "OAUTHBEARER" and settings.kafka_sasl_token_file:
            options["sasl_oauth_token_provider"] = sasl.TokenFile(settings.kafka_sasl_token_file)
        else:
            password = settings.kafka_sasl_password
            options["sasl_plain_username"] = settings.kafka_sasl_username
            options["sasl_plain_password"] = password.get_secret_value() if password else None
    return options


def check_files(settings: KafkaSettings) -> None:
    """Look once whether all files that the settings name can be used; for the start of a process.

    Raises:
        ValueError: one cannot; the message names the variable.

    """
    provider = connection_options(settings).get("sasl_oauth_token_provider")
    if isinstance(provider, sasl.TokenFile):
        try:
            provider.read()
        except sasl.TokenFileError as error:
            raise ValueError(error.args[0]) from error


def _tls(settings: KafkaSettings) -> RenewedContext:
    if settings._tls is None:  # noqa: SLF001 - ours
        settings._tls = RenewedContext(  # noqa: SLF001
            CertificateFiles(
                settings.kafka_ssl_cafile,
                settings.kafka_ssl_certfile,
                settings.kafka_ssl_keyfile,
                settings.kafka_ssl_key_password,
            )
        )
    return settings._tls  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the broker says of a topic. `exists` is False when it has none of that name (the rest is then zero).

    `replicas` is that of the partition with the fewest. It bounds `min_insync`: since Kafka 4 a topic of one replica
    takes acks=all writes at min.insync.replicas=2.
    """

    name: str
    exists: bool
    partitions: int = 0
    min_insync: int = 0
    message_bytes_max: int = 0
    timestamp_type: str = ""
    retention_ms: int = 0
    retention_bytes: int = -1
    replicas: int = 0


class AdminClient(AIOKafkaAdminClient):  # type: ignore[misc] # aiokafka is not typed
    """aiokafka's admin client, that makes no topic by asking for one.

    Its own question about a topic that is not there makes it, with one partition and the broker's defaults, wherever
    `auto.create.topics.enable` is left as it is.
    """

    async def describe_topics(self, topics: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The metadata of those topics that exist; of all with None.

        Raises:
            KafkaError: the broker could not be asked, or does not let us.

        """
        wanted = None if topics is None else list(topics)
        answer = await self._send_request(MetadataRequest(wanted, allow_auto_topic_creation=False))
        found: list[dict[str, Any]] = answer.to_object()["topics"]
        for topic in found if wanted is not None else ():
            _refuse_forbidden(topic)
        return [topic for topic in found if not topic["error_code"] or topic["partitions"]]


async def topic_facts(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, TopicFacts]:
    """Ask the broker for the facts of the topics.

    Args:
        admin: a started admin client.
        names: topics to ask for.

    Returns:
        One entry a name, whether the topic exists or not.

    Raises:
        aiokafka.errors.KafkaError: the broker could not be asked.

    """
    described = await admin.describe_topics(list(names))
    for topic in described:
        _refuse_forbidden(topic)
    found = {topic["topic"]: topic["partitions"] for topic in described if topic["error_code"] == 0}
    facts = {name: TopicFacts(name, exists=False) for name in names}
    if not found:
        return facts
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in found])
    for response in responses:
        for error_code, error_message, _kind, name, entries in (resource[:5] for resource in response.resources):
            if error_code:
                raise aiokafka.errors.for_code(error_code)(error_message)
            values = {entry[0]: entry[1] for entry in entries}
            facts[name] = TopicFacts(
                name,
                exists=True,
                partitions=len(found[name]),
                min_insync=int(values["min.insync.replicas"]),
                message_bytes_max=int(values["max.message.bytes"]),
                timestamp_type=values["message.timestamp.type"],
                retention_ms=int(values["retention.ms"]),
                retention_bytes=int(values["retention.bytes"]),
                replicas=min((len(partition["replicas"]) for partition in found[name]), default=0),
            )
    return facts


def _refuse_forbidden(topic: Mapping[str, Any]) -> None:
    """A topic that we may not see has no partitions either, but `topics` would not help."""
    if topic["error_code"] == TopicAuthorizationFailedError.errno:
        raise TopicAuthorizationFailedError(topic["topic"])


def once_only(producer: aiokafka.AIOKafkaProducer) -> aiokafka.AIOKafkaProducer:
    """Let the producer try each batch once.

    aiokafka retries inside itself for as long as its batches live, and says of a failed batch only the last error: a
    first try that timed out (and may be in the log) hides behind a second that was refused. A batch that is born
    expired is tried once, so its error tells the outcome exactly, and our own code decides what is tried again. Nor
    does the client then ask for metadata without a pause while a batch waits for a topic that was deleted. aiokafka has
    no public setting for it; a test fails if a release changes this.
    """
    accumulator = producer._message_accumulator  # noqa: SLF001 - see above
    if not hasattr(accumulator, "_batch_ttl"):
        raise RuntimeError("this release of aiokafka keeps the life of a batch elsewhere: see shared.kafka")
    accumulator._batch_ttl = -1.0  # noqa: SLF001
    return producer


async def stop_producer(producer: aiokafka.AIOKafkaProducer, timeout_s: float) -> None:
    """Stop a producer within twice the time-out: gently first, since `stop()` alone hangs on a frozen broker.

    What it has not delivered by then fails with ProducerClosed.
    """
    try:
        async with asyncio.timeout(timeout_s):
            await producer.stop()
    except (KafkaError, OSError, TimeoutError):
        sender = producer._sender.sender_task  # noqa: SLF001 - aiokafka offers no hard stop
        if sender is not None:
            sender.cancel()
        producer._message_accumulator.fail_all(ProducerClosed())  # noqa: SLF001 - or its waiters wait for ever
        await producer.client.close()
        if sender is not None:
            await asyncio.wait({sender}, timeout=timeout_s)
