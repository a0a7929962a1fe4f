"""What the wire client takes over from botocore, and what it will not serve."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.uploader.errors import ClientSetupError, ConfigurationError
from services.uploader.store import wire
from services.uploader.store.checksum import Checksum
from services.uploader.store.clients import Clients
from services.uploader.store.options import StoreOptions
from services.uploader.store.put_parameters import SUM_PARAMETER, every_put
from services.uploader.store.signing.redirect import followed
from services.uploader.store.signing.request_head import Identity, RequestHead, Template
from services.uploader.store.signing.template import refuse_proxy, template_of
from shared.telemetry import UploaderMetrics
from tests.unit.test_wire_signature import parsed

METADATA = {"spillway-topic": "t", "spillway-id": "i-0", "spillway-offset": "3", "spillway-partition": "1"}
KEY, BODY = "payloads/shard=a/é b", b"body"
# Of botocore's account of its retries, and what each request makes anew.
_DIFFERS = frozenset({"amz-sdk-invocation-id", "amz-sdk-request", "authorization", "x-amz-date"})


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials, a region, and no file of this machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NO_PROXY", "no_proxy", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


class _SentError(Exception):
    pass


async def both(options: StoreOptions) -> tuple[Template, str, Mapping[str, str]]:
    """Our template; and the URL and headers of the put that botocore would send."""
    seen: list[Any] = []

    def take(request: Any, **_: Any) -> None:
        seen.append(request)
        raise _SentError

    async with Clients(options).open() as opened:
        template = await template_of(opened.client, options)
        fields = {**every_put(options), "Key": KEY, "Body": BODY, "Metadata": METADATA}
        if options.checksum is not Checksum.NONE:
            fields[SUM_PARAMETER[options.checksum]] = options.checksum.of(BODY)
        opened.client.meta.events.register_first("before-send.s3.PutObject", take)
        with pytest.raises(_SentError):
            await opened.client.put_object(**fields)
    (request,) = seen
    headers = {name.lower(): value for name, value in request.headers.items()}
    texts = {name: value.decode() if isinstance(value, bytes) else value for name, value in headers.items()}
    return template, request.url, texts


@pytest.mark.parametrize(
    ("endpoint_url", "path_style"),
    [
        (None, None),
        (None, True),
        (None, False),
        ("http://127.0.0.1:9000", True),
        ("http://127.0.0.1:9000", None),
        ("https://[::1]:9000", True),
        ("https://s3.test", False),
        ("https://s3.test:8443", True),
    ],
)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"sse": "aws:kms", "sse_kms_key_id": "k", "storage_class": "STANDARD_IA", "tags": "a=b&c=d%20e"},
        {"acl": "bucket-owner-full-control", "create_only": True, "checksum": Checksum.CRC32},
        {"checksum": Checksum.SHA256},
        {"checksum": Checksum.NONE},
    ],
    ids=str,
)
async def test_a_put_is_what_botocore_sends(
    endpoint_url: str | None, path_style: bool | None, more: dict[str, Any]
) -> None:
    """Host, path and every header, whatever the addressing and the options; also whether the body is signed."""
    options = StoreOptions(
        bucket="bucket", endpoint_url=endpoint_url, path_style=path_style, region="eu-north-1", **more
    )
    template, url, expected = await both(options)
    head = RequestHead(template, Identity("AK", "secret", "token")).of(
        KEY, BODY, options.checksum.of(BODY), METADATA, 0
    )
    target, headers = parsed(head)
    scheme = "https" if template.tls else "http"
    assert f"{scheme}://{headers.pop('host')}{target}" == url
    shown = {name: value for name, value in headers.items() if name not in _DIFFERS}
    assert shown == {name: value for name, value in expected.items() if name not in _DIFFERS}
    signed = expected["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert (
        f"SignedHeaders={';'.join(name for name in signed if name not in _DIFFERS - {'x-amz-date'})},"
        in (headers["authorization"])
    )


@pytest.mark.parametrize(
    ("section", "host"),
    [
        ("use_dualstack_endpoint = true", "bucket.s3.dualstack.eu-north-1.amazonaws.com"),
        ("s3 =\n  use_accelerate_endpoint = true", "bucket.s3-accelerate.amazonaws.com"),
    ],
)
async def test_what_the_profile_says_of_endpoints_holds(section: str, host: str, tmp_path: Path) -> None:
    """Botocore reads AWS's files; the wire client goes where it goes."""
    (tmp_path / "config").write_text(f"[default]\nregion = eu-north-1\n{section}\n")
    template, url, _ = await both(StoreOptions(bucket="bucket"))
    assert f"https://{template.host}/" in url
    if "accelerate" not in host:  # our own addressing style takes the place of the profile's `s3` section
        assert template.host == host


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
async def test_behind_a_proxy_the_start_is_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable, and the client that can."""
    monkeypatch.setenv(variable, "http://proxy.test:3128")
    restarts = UploaderMetrics(CollectorRegistry()).store_restarts
    with pytest.raises(ConfigurationError, match=rf"{variable}.*S3_CLIENT=aiobotocore") as caught:
        async with wire.open_store(StoreOptions(bucket="bucket", region="eu-north-1"), restarts):
            pass
    assert not isinstance(caught.value, ClientSetupError)


def test_a_proxy_of_others_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY, and the other scheme's variable, leave the way free: botocore's own rule."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    refuse_proxy("http://s3.test/bucket/k")
    monkeypatch.setenv("NO_PROXY", "s3.test")
    refuse_proxy("https://s3.test/bucket/k")
    with pytest.raises(ConfigurationError):
        refuse_proxy("https://other.test/bucket/k")


async def test_s3_express_is_refused() -> None:
    """Its sessions are botocore's to make."""
    async with Clients(StoreOptions(bucket="b--use1-az4--x-s3", region="us-east-1")).open() as opened:
        opened.client.meta.events.register_first("before-send.s3.CreateSession", _no_network)
        with pytest.raises((ConfigurationError, ConnectionError)):
            await template_of(opened.client, StoreOptions(bucket="b--use1-az4--x-s3", region="us-east-1"))


def _no_network(**_: Any) -> None:
    raise ConnectionError("not in a test")


AWS = Template(
    host="bucket.s3.eu-north-1.amazonaws.com",
    port=443,
    tls=True,
    host_header="bucket.s3.eu-north-1.amazonaws.com",
    path="/",
    headers=(),
    sum_header="",
    region="eu-north-1",
    signs_body=False,
)


@pytest.mark.parametrize(
    ("location", "region", "host"),
    [
        ("https://bucket.s3-eu-north-1.amazonaws.com/k", "", "bucket.s3-eu-north-1.amazonaws.com"),
        ("https://bucket.s3.eu-north-1.amazonaws.com:443/k", "eu-north-1", "bucket.s3.eu-north-1.amazonaws.com"),
        ("https://bucket.s3-eu-north-1.amazonaws.com/k", "us-east-1", None),  # another region's: a person's to mend
        ("http://bucket.s3-eu-north-1.amazonaws.com/k", "", None),  # no longer secret
        ("https://other.s3-eu-north-1.amazonaws.com/k", "", None),
        ("https://bucket.s3-eu-north-1.amazonaws.com/other", "", None),
        ("https://bucket.s3-eu-north-1.amazonaws.com/k?x", "", None),
        ("https://bucket.s3-eu-north-1.amazonaws.com:8443/k", "", None),
        ("https://me@bucket.s3-eu-north-1.amazonaws.com/k", "", None),
        ("https://bucket.s3-eu-north-1.amazonaws.com.evil.test/k", "", None),
        ("https://bucket.s3.evil.test/k", "", None),
        ("https://bucket.s3.eu-north-1.amazonaws.com.cn/k", "", None),  # another partition
        ("https://evil.test/bucket.s3.amazonaws.com/k", "", None),
        ("/k", "", None),
        ("", "", None),
        ("https://[bad/k", "", None),
    ],
)
def test_a_307_is_followed_only_within_the_bucket(location: str, region: str, host: str | None) -> None:
    """A body and its signature go to no host but one of S3 for the same bucket and path."""
    target = followed(AWS, "/k", location, region)
    assert (target and target.host) == host


def test_a_custom_endpoint_redirects_nowhere() -> None:
    """Nobody knows whose hosts belong together there."""
    own = Template("s3.test", 443, True, "s3.test", "/bucket/", (), "", "r", False)
    assert followed(own, "/bucket/k", "https://s3.test/bucket/k", "") is None
