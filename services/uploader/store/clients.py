"""Makes S3 clients of aiobotocore, tuned as DESIGN §7 says. What they are asked is the business of who asks.

A client never retries (`total_max_attempts=1`: a retry hidden here would hide SlowDown from the uploader), follows no
redirect, and carries no `Expect: 100-continue` (a round trip a put).
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiobotocore
import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import BotoCoreError, ClientError
from botocore.handlers import add_expect_header

from services.uploader.store.botocore_errors import making_error
from services.uploader.store.options import StoreOptions

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 10

USER_AGENT = f"spillway aiobotocore/{aiobotocore.__version__}"
"""Given, so that the library does not put its own together anew for each request, twice, from a dozen checked parts."""

RAISED = (TimeoutError, ClientError, BotoCoreError, aiohttp.ClientError, OSError)
"""What a client's operations raise; `botocore_errors.translate` makes one of our errors of each."""


def status_of(error: ClientError) -> int:
    """The HTTP status of an answer; 0 where there was none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


class _OneRequest(AIOHTTPSession):  # type: ignore[misc] # untyped
    """The client's HTTP session, that follows no redirect.

    Aiohttp would send the body to whatever host a 307 names, not signed for it, and what the uploader then hears is
    that host's AccessDenied.
    """

    async def _get_session(self, proxy_url: str | None) -> Any:
        return _Session(await super()._get_session(proxy_url))


class _Session:
    """The one method of an `aiohttp.ClientSession` that is called."""

    __slots__ = ("_session",)

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    def request(self, method: str, **arguments: Any) -> Any:
        return self._session.request(method, allow_redirects=False, **arguments)


def _mark_as_redirected(params: Mapping[str, Any], **_: Any) -> None:
    """Botocore's own redirector asks for the bucket's region and repeats a request, once; it has done so already."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


@dataclass(frozen=True, slots=True)
class Opened:
    """A client, and what its session has read beside: its credentials (they refresh themselves), and the CA bundle."""

    client: Any
    credentials: Any
    ca_bundle: str | None


class Clients:
    """Makes S3 clients, each of a session of its own, so that the whole chain of credentials is read anew."""

    def __init__(self, options: StoreOptions) -> None:
        self._options = options
        self._loader: Any = (
            None  # S3's description in botocore's files: 100 ms of CPU the first time, kept for the next
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Opened]:
        """A client, for as long as the context lasts.

        Raises:
            ConfigurationError: AWS's variables or files make none.

        """
        try:
            session = self._session()
            context = session.create_client(
                "s3", endpoint_url=self._options.endpoint_url, config=_config(self._options)
            )
            client = await context.__aenter__()
        except (*RAISED, ValueError) as error:
            raise making_error(error) from error
        try:
            client.meta.events.unregister("before-call.s3", add_expect_header)
            client.meta.events.register("before-call.s3", _mark_as_redirected)
            yield Opened(client, await session.get_credentials(), session.get_config_variable("ca_bundle"))
        finally:
            await context.__aexit__(None, None, None)

    def _session(self) -> AioSession:
        session = get_session()
        if self._options.region is not None:
            session.set_config_variable("region", self._options.region)
        # Of the clients that fetch credentials, too: STS would else be waited for for minutes.
        session.set_default_client_config(
            AioConfig(connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S, retries={"total_max_attempts": 1})
        )
        if self._loader is None:
            self._loader = session.get_component("data_loader")
        else:
            session.register_component("data_loader", self._loader)
        return session


def _config(options: StoreOptions) -> AioConfig:
    return AioConfig(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        user_agent=USER_AGENT,
        max_pool_connections=options.connections_max,
        http_session_cls=_OneRequest,
        retries={"total_max_attempts": 1},
        parameter_validation=False,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": {True: "path", False: "virtual", None: "auto"}[options.path_style]},
    )
