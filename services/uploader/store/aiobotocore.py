"""The reference store: one long-lived aiobotocore client, tuned as DESIGN §7 says, and its errors translated once.

The client never retries (`total_max_attempts=1`): a retry hidden here would hide SlowDown from the uploader. Requests
carry no `Expect: 100-continue` (a round trip a put) and checksums only where the service requires them.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from botocore.handlers import add_expect_header

from services.uploader.errors import ConfigurationError, PoisonRecord, StoreError, TransientError

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 10
CONTENT_TYPE = "application/octet-stream"

# S3's error codes (Amazon S3 API Reference, "Error responses") by what is to be done. Any other 4xx is transient: an
# unknown code must neither drain a topic nor stop it for good.
_ENVIRONMENT = frozenset(
    {
        "AccessControlListNotSupported", "AccessDenied", "AccountProblem", "AllAccessDisabled",
        "AuthorizationHeaderMalformed", "ExpiredToken", "ExpiredTokenException", "IllegalLocationConstraintException",
        "InvalidAccessKeyId", "InvalidBucketName", "InvalidBucketState", "InvalidObjectState", "InvalidPayer",
        "InvalidSecurity", "InvalidToken", "KMS.DisabledException", "KMS.InvalidStateException",
        "KMS.NotFoundException", "MethodNotAllowed", "NoSuchBucket", "NotSignedUp", "PermanentRedirect",
        "QuotaExceeded", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TemporaryRedirect", "TokenRefreshRequired",
        "UnauthorizedAccess",
    }
)  # fmt: skip
_POISON = frozenset({"EntityTooLarge", "KeyTooLongError", "MetadataTooLarge"})
_SLOW_DOWN = frozenset({"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"})


class AiobotocoreStore:
    """Puts objects with one aiobotocore S3 client. Made by `open_store`; safe for many puts at once."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """Store one object; see `services.uploader.store.Store.put`."""
        try:
            await self._client.put_object(
                Bucket=self._bucket, Key=key, Body=body, ContentType=CONTENT_TYPE, Metadata=dict(metadata)
            )
        except (TimeoutError, ClientError, BotoCoreError, aiohttp.ClientError, OSError) as error:
            raise translate(error, self._bucket) from error


@asynccontextmanager
async def open_store(
    *, bucket: str, endpoint_url: str | None, path_style: bool | None, connections_max: int
) -> AsyncIterator[AiobotocoreStore]:
    """Open the client, and close it when the context ends.

    Args:
        bucket: where the objects go.
        endpoint_url: an S3-compatible server; None is AWS (its own variables give region, credentials, CA bundle).
        path_style: True for path-style addressing, False for virtual hosts, None for the client's own choice.
        connections_max: at least the puts that may run at once.

    Raises:
        ConfigurationError: AWS's variables or files make no client (an unknown AWS_PROFILE, say).

    """
    style = {True: "path", False: "virtual", None: "auto"}[path_style]
    config = AioConfig(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=connections_max,
        retries={"total_max_attempts": 1},
        parameter_validation=False,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": style},
    )
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(
                get_session().create_client("s3", endpoint_url=endpoint_url, config=config)
            )
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError("client", f"the S3 client cannot be made: {error}") from error
        client.meta.events.unregister("before-call.s3", add_expect_header)
        yield AiobotocoreStore(client, bucket)


def translate(error: Exception, bucket: str) -> StoreError:  # noqa: PLR0911 - a table
    """What aiobotocore raised, as one of our errors; the message says what S3 said."""
    if isinstance(error, ClientError):
        return _translate_answer(error, bucket)
    message = f"{type(error).__name__}: {error}"
    match error:
        case NoCredentialsError() | PartialCredentialsError() | CredentialRetrievalError() | TokenRetrievalError():
            return ConfigurationError("credentials", f"no usable AWS credentials: {message}")
        case ParamValidationError():
            return ConfigurationError("invalid_parameter", message)
        case SSLError():
            return ConfigurationError("tls", message)
        case ReadTimeoutError() | ConnectTimeoutError() | TimeoutError():
            return TransientError("timeout", message)
        case BotoConnectionError() | HTTPClientError() | aiohttp.ClientError() | OSError():
            return TransientError("connection", message)
        case _:
            return TransientError("unknown", message)


def _translate_answer(error: ClientError, bucket: str) -> StoreError:
    answer: Mapping[str, Any] = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    message = f"S3 answered {status} {code} for bucket {bucket}: {answer.get('Error', {}).get('Message', '')}"
    name = _snake(code)
    if code in _SLOW_DOWN or status == 503:  # noqa: PLR2004 - HTTP
        return TransientError("slow_down", message)
    if code in _POISON:
        return PoisonRecord(name, message)
    if code in _ENVIRONMENT or status in (301, 307, 401, 403):
        return ConfigurationError(name, message)
    if status == 404:  # noqa: PLR2004 - a put has no other 404 than its bucket's
        return ConfigurationError("no_such_bucket", message)
    return TransientError("server_error" if status >= 500 else name, message)  # noqa: PLR2004 - HTTP


def _snake(code: str) -> str:
    """`AccessDenied` → `access_denied`; bounded, because it becomes a metric's label."""
    out = "".join(f"_{char.lower()}" if char.isupper() else char for char in code if char.isalnum())
    return out.lstrip("_")[:40] or "unknown"
