"""SASL towards Kafka, as far as aiokafka 0.14 does not do it: tokens of a file, a refused token, sessions that end.

Owns what is patched into aiokafka's connections, by `install`. Three things are missing there:
- A broker that refuses an OAUTHBEARER token answers with a challenge. aiokafka takes that for a welcome, misreads the
  next answer, starts without an error and knows no broker from then on. Here the challenge is answered as RFC 7628
  §3.2.3 says, and the broker then tells of the failure.
- Where sessions end (`connections.max.reauth.ms`, or the life of a token) a broker hangs up on a connection that has
  not authenticated again by then (KIP-368), in the middle of a produce whose outcome is then unknown. Here a connection
  does so in time, between two requests.
- Tokens are read anew from their file each time, as Kubernetes projects them.
A test fails if a release of aiokafka moves what is patched.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import aiokafka.conn
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.admin import SaslAuthenticateRequest, SaslHandShakeRequest

logger = logging.getLogger("spillway.kafka.sasl")

TOKEN_BYTES_MAX = 64 * 1024
_RENEW_AT = 0.85
"""Part of a session's life after which it is renewed. Kubernetes writes a new token after 80 % of the old one's."""
_PAUSE_S = 1.2
"""Between two authentications of a connection, in seconds: a broker refuses the second within one (KIP-368)."""


class TokenFileError(KafkaConnectionError):  # type: ignore[misc] # aiokafka is not typed
    """The token's file cannot be used; the message names the variable. An error of a kind that aiokafka expects."""


class TokenFile(AbstractTokenProvider):  # type: ignore[misc] # aiokafka is not typed
    """The token that a file holds now."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    async def token(self) -> str:
        """Read it; for aiokafka.

        Raises:
            TokenFileError: there is none.

        """
        return self.read()

    def read(self) -> str:
        """Read it.

        Raises:
            TokenFileError: there is none.

        """
        try:
            with self._path.open("rb") as file:
                found = file.read(TOKEN_BYTES_MAX + 1)
        except OSError as error:
            raise TokenFileError(f"KAFKA_SASL_TOKEN_FILE: {error.strerror or error} ({self._path})") from error
        token = found.strip()
        # what is not printable could end the message that carries it, and begin another
        if not token or len(found) > TOKEN_BYTES_MAX or not (token.isascii() and token.decode("ascii").isprintable()):
            raise TokenFileError(f"KAFKA_SASL_TOKEN_FILE: holds no token ({self._path})")
        return token.decode("ascii")


class _Bearer:
    """The OAUTHBEARER exchange: the token, and where the broker objects, the byte that lets it say so."""

    def __init__(self, provider: AbstractTokenProvider) -> None:
        self._provider = provider
        self._sent = 0

    async def step(self, challenge: bytes | None) -> tuple[bytes, bool] | None:
        """What to send next; None at the end."""
        self._sent += 1
        if self._sent == 1:
            return f"n,,\x01auth=Bearer {await self._provider.token()}\x01\x01".encode(), True
        return (b"\x01", True) if challenge else None


class SessionConnection(AIOKafkaConnection):  # type: ignore[misc] # aiokafka is not typed
    """A connection that authenticates again before its session ends. Without SASL it is any other."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._authenticated_s = 0.0  # when it last began to, on the monotonic clock, as the next
        self._renew_s: float | None = None  # when to do so again; None: never
        self._renewal: asyncio.Task[None] | None = None  # while it does

    def authenticator_oauth(self) -> _Bearer:
        """The exchange for OAUTHBEARER."""
        return _Bearer(self._sasl_oauth_token_provider)

    def send(self, request: Any, expect_response: bool = True) -> Awaitable[Any]:
        """Send a request; behind the authentication where one is due, since nothing may come in between."""
        if isinstance(request, SaslHandShakeRequest):
            self._authenticated_s = time.monotonic()
            return super().send(request, expect_response)  # type: ignore[no-any-return]
        if isinstance(request, SaslAuthenticateRequest):
            return self._noting_its_life(super().send(request, expect_response))
        if self._renewal is None and self._renew_s is not None and time.monotonic() >= self._renew_s:
            self._renewal = asyncio.create_task(self._renew())
        if self._renewal is not None:
            return self._behind(self._renewal, request, expect_response=expect_response)
        return super().send(request, expect_response)  # type: ignore[no-any-return]

    async def _behind(self, renewal: "asyncio.Task[None]", request: Any, *, expect_response: bool) -> Any:
        await asyncio.shield(renewal)
        return await super().send(request, expect_response)

    async def _noting_its_life(self, answer: Awaitable[Any]) -> Any:
        response = await answer
        life_s = getattr(response, "session_lifetime_ms", 0) / 1000
        wait_s = max(life_s * _RENEW_AT, _PAUSE_S)
        self._renew_s = self._authenticated_s + wait_s if life_s > 0 else None
        return response

    async def _renew(self) -> None:
        try:
            if self._sasl_oauth_token_provider is not None:
                await self._sasl_oauth_token_provider.token()  # before the broker waits for it
        except KafkaError as error:
            logger.warning("no token for the next session; this one goes on", extra={"cause": str(error)})
            self._renew_s = time.monotonic() + _PAUSE_S
            self._renewal = None
            return
        try:
            await self._do_sasl_handshake()
            logger.debug("authenticated again", extra={"broker": f"{self.host}:{self.port}"})
        except (KafkaError, OSError, TimeoutError) as error:
            logger.warning("the broker ends the session", extra={"cause": str(error) or type(error).__name__})
            self.close(reason=CloseReason.AUTH_FAILURE, exc=error)
        finally:
            self._renewal = None


def install() -> None:
    """Let aiokafka make its connections of our kind. It offers no way to pass one in; twice is as good as once."""
    aiokafka.conn.AIOKafkaConnection = SessionConnection
