"""What an answer of S3 means: its status and error code, as one of our errors. Pure; every client of S3 asks here.

Three rules, in this order. Shed load is transient whatever else is said. Poison is only what S3 can never take, whoever
asks and however it is set up: a wrong line here would drain a topic into its dead letters. Everything unknown is
transient: an unknown code must neither lose a record nor blame a person.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from services.uploader.errors import ClientSetupError, ConfigurationError, PoisonRecord, StoreError, TransientError

# Amazon S3 API Reference, "Error responses", and the codes of STS and KMS that S3 passes on. Those of other makers of
# S3 servers (MinIO, Ceph) stand beside them.
SLOW_DOWN = frozenset(
    {
        "BandwidthLimitExceeded", "KMS.ThrottlingException", "ProvisionedThroughputExceededException",
        "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException", "SlowDown", "SlowDownRead",
        "SlowDownWrite", "Throttling", "ThrottlingException", "ThrottledException", "TooManyRequests",
        "TooManyRequestsException",
    }
)  # fmt: skip
POISON = frozenset({"EntityTooLarge", "KeyTooLongError", "MetadataTooLarge"})
# Mended by new credentials, or by another region: a client made anew may have them.
CLIENT_SETUP = frozenset(
    {
        "AccessDenied", "AccessDeniedException", "AllAccessDisabled", "AuthorizationHeaderMalformed",
        "CredentialsNotSupported", "ExpiredToken", "ExpiredTokenException", "IDPCommunicationError",
        "IllegalLocationConstraintException", "IncorrectEndpoint", "InvalidAccessKeyId", "InvalidClientTokenId",
        "InvalidIdentityToken", "InvalidRegionName", "InvalidSecurity", "InvalidToken", "InvalidTokenId",
        "MissingAuthenticationToken", "MissingSecurityHeader", "NotSignedUp", "PermanentRedirect", "Redirect",
        "RequestExpired", "SignatureDoesNotMatch", "TemporaryRedirect", "TokenRefreshRequired", "UnauthorizedAccess",
        "UnauthorizedAccessError", "UnrecognizedClientException",
    }
)  # fmt: skip
ENVIRONMENT = frozenset(
    {
        "AccessControlListNotSupported", "AccountProblem", "BucketAlreadyExists", "InsufficientStorage",
        "InvalidArgument", "InvalidBucketAclWithObjectOwnership", "InvalidBucketName", "InvalidBucketState",
        "InvalidEncryptionAlgorithmError", "InvalidEncryptionMethodError", "InvalidHost", "InvalidObjectState",
        "InvalidPayer", "InvalidRequest", "InvalidStorageClass", "InvalidTag", "InvalidTagError", "KMS.AccessDenied",
        "KMS.AccessDeniedException", "KMS.DisabledException", "KMS.InvalidArnException",
        "KMS.InvalidKeyUsageException", "KMS.InvalidStateException", "KMS.KMSInvalidStateException",
        "KMS.NotFoundException", "KMS.OptInRequired", "MalformedACLError", "MethodNotAllowed", "MissingContentLength",
        "NoSuchAccessPoint", "NoSuchBucket", "NotImplemented", "QuotaExceeded", "QuotaExceededException",
        "RequestTimeTooSkewed", "ServiceQuotaExceededException", "UnsupportedArgument", "UnsupportedSignature",
        "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull",
    }
)  # fmt: skip
_CLIENT_SETUP_STATUS = frozenset({301, 302, 303, 307, 308, 401, 403})
# No code that we know, so no word of S3: a proxy before it, or a server that lacks the operation. 404 is the bucket's.
_ENVIRONMENT_STATUS = frozenset({404, 405, 407, 411, 413, 414, 431, 501, 505, 507, 511})
_TIMEOUT = frozenset({"RequestTimeout", "RequestTimeoutException"})

_HINTS: dict[str, str] = {
    "AccessControlListNotSupported": "unset S3_ACL, or let the bucket take ACLs",
    "InvalidBucketAclWithObjectOwnership": "unset S3_ACL, or let the bucket take ACLs",
    "InvalidStorageClass": "see S3_STORAGE_CLASS",
    "InvalidTag": "see S3_TAGS",
    "InvalidTagError": "see S3_TAGS",
    "InvalidEncryptionAlgorithmError": "see S3_SSE",
    "NoSuchBucket": "see S3_BUCKET",
    "NotImplemented": "this server lacks what one of S3_SSE, S3_TAGS, S3_ACL, S3_CREATE_ONLY, S3_CHECKSUM asks for",
    "RequestTimeTooSkewed": "set the clock of this machine",
}


_SAID_MAX = 1000
"""Letters of a server's own text that are kept: each waiting put holds them, and `/readyz`, log and page show them."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no success. `code` is empty where the server sent none; `region` is the right one, if named."""

    status: int
    code: str
    message: str = ""
    region: str = ""
    endpoint: str = ""


def classify(status: int, code: str) -> Callable[[str, str], StoreError]:  # noqa: PLR0911 - a table
    """The class of error that this status and code are; called with a reason and a message."""
    if code in SLOW_DOWN or status in (429, 503):
        return TransientError
    if code in POISON and 400 <= status < 500:  # noqa: PLR2004 - HTTP: the request's own fault, and not the server's
        return PoisonRecord
    if code in CLIENT_SETUP:
        return ClientSetupError
    if code in ENVIRONMENT:
        return ConfigurationError
    if code in _TIMEOUT:
        return TransientError
    if status in _CLIENT_SETUP_STATUS:
        return ClientSetupError
    if status in _ENVIRONMENT_STATUS:
        return ConfigurationError
    return TransientError


def reason_of(status: int, code: str) -> str:
    """A short stable word for metrics: what the limiter knows as overload, else the code, else the status."""
    if code in SLOW_DOWN or status in (429, 503):
        return "slow_down"
    if code in _TIMEOUT:
        return "timeout"
    if re.fullmatch(r"[A-Za-z][A-Za-z.]{0,59}", code) and (status < 500 or code in ENVIRONMENT | CLIENT_SETUP):  # noqa: PLR2004
        return snake(code)
    if status >= 500:  # noqa: PLR2004 - HTTP
        return "server_error"
    return "no_such_bucket" if status == 404 else f"http_{status}"  # noqa: PLR2004 - a put has no other 404


def error_of(refusal: Refusal, bucket: str) -> StoreError:
    """The refusal as an error to raise; its message says what S3 said, and what to do where we know it."""
    status, code = refusal.status, refusal.code
    message = f"S3 answered {f'{status} {code}'.rstrip()} for bucket {bucket}: {_short(refusal.message)}".rstrip(": ")
    if refusal.region:
        message += f"; the bucket is in region {refusal.region}: set AWS_REGION={refusal.region}"
    elif refusal.endpoint:
        message += f"; the bucket is at {refusal.endpoint}"
    hint = "see S3_SSE_KMS_KEY_ID" if code.startswith("KMS.") else _HINTS.get(code)
    return classify(status, code)(reason_of(status, code), f"{message}; {hint}" if hint else message)


def _short(text: str) -> str:
    """A person's share of a text that somebody else has written: not without end, and without letters that hide."""
    cut = text if len(text) <= _SAID_MAX else f"{text[:_SAID_MAX]}…"
    return "".join(letter if letter.isprintable() else " " for letter in cut)


def snake(code: str) -> str:
    """`AccessDenied` → `access_denied`, `KMS.NotFoundException` → `kms_not_found_exception`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|\.", "_", code)
    return words.lower()
