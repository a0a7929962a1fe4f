"""Why Kafka cannot be reached or will not serve us, in words for who can mend it: which variable, which grant.

Owns the translation of what TLS, SASL and authorisation say. aiokafka keeps a first connection's error to itself
("Unable to bootstrap"), so a failed start is asked again on one connection of our own. Never says a secret.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from shared.sasl import TokenFileError

_ASK_TIMEOUT_S = 3.0
_CHAIN_MAX = 8

_OTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_TIMES = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_ALERT_RECORD = 0x15  # the first byte of a TLS alert, where Kafka's frames have their size

_TLS_REASONS = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the broker wants a client certificate: set KAFKA_SSL_CERTFILE and "
    "KAFKA_SSL_KEYFILE",
    **dict.fromkeys(
        (
            "TLSV1_ALERT_UNKNOWN_CA",
            "SSLV3_ALERT_BAD_CERTIFICATE",
            "SSLV3_ALERT_CERTIFICATE_EXPIRED",
            "SSLV3_ALERT_CERTIFICATE_REVOKED",
            "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
            "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        ),
        "the broker refuses the client certificate of KAFKA_SSL_CERTFILE: it has expired, or is of an authority that "
        "the broker does not trust; renew the files, no restart is needed",
    ),
    **dict.fromkeys(
        ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"),
        "what answers there speaks no TLS: look at KAFKA_SECURITY_PROTOCOL and at the port",
    ),
}
_REFUSALS: Mapping[type[KafkaError], str] = {
    SaslAuthenticationFailed: "the broker refuses our credentials: look at KAFKA_SASL_USERNAME and "
    "KAFKA_SASL_PASSWORD, or at the token in KAFKA_SASL_TOKEN_FILE",
    UnsupportedSaslMechanismError: "the broker does not take this KAFKA_SASL_MECHANISM",
    IllegalSaslStateError: "this port takes no SASL: look at KAFKA_SECURITY_PROTOCOL and at the port",
    TopicAuthorizationFailedError: "this client may not use the topic: its user lacks a grant (ACL) on KAFKA_TOPIC or "
    "KAFKA_DEAD_TOPIC; docs/security.md lists them",
    GroupAuthorizationFailedError: "this client may not use the group: its user lacks a grant (ACL) on KAFKA_GROUP_ID; "
    "docs/security.md lists them",
    ClusterAuthorizationFailedError: "this client may not do that: its user lacks a grant (ACL) on the cluster; "
    "docs/security.md lists them",
}


def explain(error: BaseException, protocol: str | None = None) -> str:
    """The error in words; its own where we know none better. What caused it is looked at too.

    Args:
        error: what a client of Kafka raised.
        protocol: KAFKA_SECURITY_PROTOCOL, to be named where the broker hung up on a new connection.

    """
    words = known(error)
    if words is not None:
        return words
    own = str(error.args[0] if isinstance(error, KafkaConnectionError) and error.args else error)
    own = own or type(error).__name__
    if protocol is not None and any(isinstance(cause, EOFError | ConnectionResetError) for cause in _chain(error)):
        return f"{own}: it hangs up; look at KAFKA_SECURITY_PROTOCOL={protocol} and at the port"
    return own


def known(error: BaseException) -> str | None:
    """What we can tell of the error beyond its own words; None: nothing."""
    for cause in _chain(error):
        words = _words(cause)
        if words is not None:
            return words
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(_CHAIN_MAX):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _words(error: BaseException) -> str | None:
    match error:
        case ssl.SSLCertVerificationError():
            return _verification(error)
        case ssl.SSLError():
            words = _TLS_REASONS.get(error.reason or "")
            return words and f"{words} ({error.reason})"
        case asyncio.IncompleteReadError(expected=int(expected)) if expected >> 24 == _ALERT_RECORD:
            return f"what answers there speaks TLS: set KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL, not plain ({error})"
        case TokenFileError():
            return str(error.args[0])
        case KafkaError():
            for kind, words in _REFUSALS.items():
                if isinstance(error, kind):
                    return f"{words} ({error})"
    return None


def _verification(error: ssl.SSLCertVerificationError) -> str:
    what = error.verify_message.rstrip(".")
    if error.verify_code in _OTHER_NAME:
        return f"the broker's certificate is not for the name that KAFKA_BOOTSTRAP_SERVERS or the broker gives: {what}"
    if error.verify_code in _TIMES:
        return f"the broker's certificate is out of date: {what}"
    return f"the broker's certificate is not signed by an authority of KAFKA_SSL_CAFILE: {what}"


@contextlib.asynccontextmanager
async def in_words(options: Mapping[str, Any]) -> AsyncIterator[None]:
    """Whatever fails inside to reach a broker says why.

    Args:
        options: of the client that is started inside, as of `shared.kafka.connection_options`.

    Raises:
        KafkaConnectionError: in the place of that of the client, with words.

    """
    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        words = known(error) or await _asked(options)
        if words is None:
            raise
        raise KafkaConnectionError(words) from error


async def _asked(options: Mapping[str, Any]) -> str | None:
    """What is wrong with a broker of the list, asked anew; None where it answers, or we know no better words."""
    security = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    try:
        async with asyncio.timeout(_ASK_TIMEOUT_S):
            for host, port, _ in collect_hosts(options["bootstrap_servers"]):
                try:
                    await _ask(host, port, security)
                except TimeoutError:
                    return None
                except (KafkaError, OSError) as error:
                    return explain(error, options["security_protocol"])
    except TimeoutError:
        return None
    return None


async def _ask(host: str, port: int, security: Mapping[str, Any]) -> None:
    connection = await create_conn(
        host, port, **security, client_id="spillway-why", request_timeout_ms=round(_ASK_TIMEOUT_S * 1000)
    )
    try:
        await connection.send(MetadataRequest([], allow_auto_topic_creation=False))
    finally:
        connection.close()
