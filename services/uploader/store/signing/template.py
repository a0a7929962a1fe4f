"""What botocore would send for a put of this store, taken from one request that it makes and never sends.

Host, addressing, constant headers, the region and service of the signature, whether the body is signed: all of it is
botocore's to know, from settings, variables and files of AWS. It shows by public API in one prepared request (the event
`before-send`). Owns the reading of that request, and the refusal of what cannot be sent without botocore.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit

from botocore.utils import get_environ_proxies

from services.uploader.errors import ConfigurationError
from services.uploader.store.options import StoreOptions
from services.uploader.store.put_parameters import SUM_PARAMETER, every_put
from services.uploader.store.signing.request_head import Template

_KEY = "k"
_BODY = b"b"
_UNSIGNED = "UNSIGNED-PAYLOAD"

# Made anew for each object, or of no use to S3 (amz-sdk-*: an account of retries, which has none).
_OF_ONE_REQUEST = frozenset(
    {
        "amz-sdk-invocation-id", "amz-sdk-request", "authorization", "content-length", "content-md5", "expect", "host",
        "x-amz-checksum-crc32", "x-amz-checksum-sha256", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token",
        "x-amzn-trace-id",
    }
)  # fmt: skip
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^,]*/\d{8}/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)/aws4_request, .*"
)


class _MadeError(Exception):
    """Carries the request out of botocore, before it is sent."""

    def __init__(self, request: Any) -> None:
        super().__init__("a request that is not sent")
        self.request = request


async def template_of(client: Any, options: StoreOptions) -> Template:
    """What `client` would send.

    Raises:
        ConfigurationError: it cannot be sent by the wire client.
        Exception: what botocore raises where it cannot make a request: without credentials, say.

    """

    def take(request: Any, **_: Any) -> NoReturn:
        raise _MadeError(request)

    fields = {**every_put(options), "Key": _KEY, "Body": _BODY}
    sent = options.checksum.of(_BODY)
    if sent:
        fields[SUM_PARAMETER[options.checksum]] = sent
    client.meta.events.register_first("before-send.s3.PutObject", take)
    try:
        await client.put_object(**fields)
    except _MadeError as made:
        return read(made.request.url, _texts(made.request.headers), sent, options.bucket)
    finally:
        client.meta.events.unregister("before-send.s3.PutObject", take)
    raise ConfigurationError("client", _instead("botocore has sent a request by itself"))


def read(url: str, headers: Mapping[str, str], sent: str, bucket: str) -> Template:
    """The template that a prepared request shows; `sent` is the sum that it carries. `headers` in lower case.

    Raises:
        ConfigurationError: it cannot be sent by the wire client.

    """
    parts = urlsplit(url)
    signed = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if signed is None or signed["service"] != "s3" or bucket.endswith("--x-s3"):
        raise ConfigurationError("client", _instead(f"S3_BUCKET={bucket}: its requests are not signed as those of S3"))
    if parts.query or not parts.path.endswith("/" + _KEY) or parts.hostname is None:
        raise ConfigurationError("client", _instead(f"a put to {url} is more than a path"))
    refuse_proxy(url)
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Template(
        host=parts.hostname,
        port=port,
        tls=tls,
        host_header=host if port == (443 if tls else 80) else f"{host}:{port}",
        path=parts.path.removesuffix(_KEY),
        headers=tuple((name, value) for name, value in headers.items() if name not in _OF_ONE_REQUEST),
        sum_header=next((name for name, value in headers.items() if sent and value == sent), ""),
        region=signed["region"],
        signs_body=headers["x-amz-content-sha256"] != _UNSIGNED,
    )


def refuse_proxy(url: str) -> None:
    """Return if requests to `url` go there themselves, by botocore's own rule (NO_PROXY counts).

    Raises:
        ConfigurationError: a variable sends them through a proxy.

    """
    scheme = urlsplit(url).scheme
    if get_environ_proxies(url).get(scheme):
        names = [name for name in os.environ if name.lower() == f"{scheme}_proxy" and os.environ[name]]
        raise ConfigurationError("client", _instead(f"{' and '.join(names)} would send the puts through a proxy"))


def _instead(why: str) -> str:
    return f"S3_CLIENT=wire cannot serve here: {why}; set S3_CLIENT=aiobotocore"


def _texts(headers: Mapping[str, str | bytes]) -> dict[str, str]:
    return {
        name.lower(): value.decode("utf-8") if isinstance(value, bytes) else value for name, value in headers.items()
    }
