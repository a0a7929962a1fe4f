"""What botocore and aiohttp raise, as one of our errors. What an answer of S3 means is `answers`' to say, not here."""

import re
import ssl
from typing import Any

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    HTTPClientError,
    InvalidConfigError,
    LoginError,
    MetadataRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

from services.uploader.errors import ClientSetupError, ConfigurationError, PoisonRecord, StoreError, TransientError
from services.uploader.store.answers import Refusal, error_of

_OF_S3 = frozenset({"PutObject", "HeadObject", "GetObject", "ListObjectsV2"})
_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    NoAuthTokenError,
    MetadataRetrievalError,
    SSOError,
    LoginError,
    # Files are read on the way to credentials, and no others are: of a profile, or the token of a web identity.
    ProfileNotFound,
    InvalidConfigError,
    ConfigParseError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
)

# What loading a CA bundle or a client certificate raises, which happens at the first request.
_CERTIFICATES = (ssl.SSLError, FileNotFoundError, PermissionError, IsADirectoryError)


def translate(error: Exception, bucket: str) -> StoreError:  # noqa: PLR0911 - a table
    """What a request raised; the message says what S3 said."""
    if isinstance(error, ClientError):
        return _of_answer(error, bucket)
    message = f"{type(error).__name__}: {error}"
    match error:
        case ParamValidationError() | NoRegionError():
            return ConfigurationError("invalid_parameter", message)
        case SSLError():
            return ClientSetupError("tls", message)
        case HTTPClientError() if isinstance(error.kwargs.get("error"), _CERTIFICATES):
            return ClientSetupError("tls", f"{message} (AWS_CA_BUNDLE?)")
        case ReadTimeoutError() | ConnectTimeoutError() | TimeoutError():
            return TransientError("timeout", message)
        case _ if isinstance(error, _CREDENTIALS):
            return ClientSetupError("credentials", f"no usable AWS credentials: {message}")
        case BotoConnectionError() | HTTPClientError() | aiohttp.ClientError() | OSError():
            return TransientError("connection", message)
        case _:
            return TransientError("unknown", message)


def making_error(error: Exception) -> StoreError:
    """What the making of a client raised. Only settings that no waiting mends are a plain ConfigurationError."""
    match error:
        case ProfileNotFound() | ConfigParseError() | InvalidConfigError() | ValueError():
            return ConfigurationError("client", f"the S3 client cannot be made: {error}")
        case ClientError() | OSError() | HTTPClientError() | BotoConnectionError():
            return translate(error, "")
        case _ if isinstance(error, _CREDENTIALS):
            return translate(error, "")
        case BotoCoreError():
            return ConfigurationError("client", f"the S3 client cannot be made: {error}")
        case _:
            return TransientError("unknown", f"{type(error).__name__}: {error}")


def _of_answer(error: ClientError, bucket: str) -> StoreError:
    answer: dict[str, Any] = error.response
    details, about = answer.get("Error", {}), answer.get("ResponseMetadata", {})
    refusal = Refusal(
        status=int(about.get("HTTPStatusCode", 0)),
        code=_code(details.get("Code")),
        message=str(details.get("Message", "")),
        region=str(about.get("HTTPHeaders", {}).get("x-amz-bucket-region") or details.get("Region") or ""),
        endpoint=str(details.get("Endpoint", "")),
    )
    if error.operation_name in _OF_S3:
        found = error_of(refusal, bucket)
        if isinstance(found, PoisonRecord) and error.operation_name != "PutObject":
            return TransientError(found.reason, str(found))  # only a put's own answer is a word on its record
        return found
    # Credentials are fetched on the way to a request: this is what STS, or another source of them, answered.
    if refusal.status >= 500 or refusal.status == 429:  # noqa: PLR2004 - HTTP
        return TransientError("credentials", f"no AWS credentials now: {error}")
    return ClientSetupError("credentials", f"no usable AWS credentials: {error}")


def _code(code: object) -> str:
    """The error's code; botocore puts the status in its place where the answer has none (of a HEAD, or of a proxy)."""
    text = str(code or "")
    return "" if re.fullmatch(r"\d+", text) else text
