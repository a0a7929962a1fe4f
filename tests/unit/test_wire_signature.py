"""Signatures of the wire client, each held against botocore's own of the same request."""

import datetime as dt
from collections.abc import Mapping
from unittest import mock

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from services.uploader.errors import ConfigurationError
from services.uploader.store.checksum import Checksum
from services.uploader.store.signing.request_head import Identity, RequestHead, Template

VISIBLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
# White space within is signed as one space each: chance alone hardly ever makes two in a row.
TEXT = (st.text(VISIBLE, max_size=40) | st.text(st.sampled_from("a \t"), max_size=12)).map(str.strip)
TOKEN = st.text(st.sampled_from("ABCabc019%-_.~!|"), min_size=1, max_size=20)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80) | st.from_regex(
    r"payloads/shard=[0-9a-f]/dt=2026-01-02/hour=0[0-9]/[0-9a-f]{8}-[0-9]{1,3}", fullmatch=True
)
NAMES = ("x-amz-acl", "x-amz-server-side-encryption", "x-amz-storage-class", "x-amz-tagging", "if-none-match", "x-zzz")
SUMS = {Checksum.MD5: "content-md5", Checksum.CRC32: "x-amz-checksum-crc32", Checksum.SHA256: "x-amz-checksum-sha256"}


@st.composite
def templates(draw: st.DrawFn, kind: Checksum) -> Template:
    """Any host, constant headers, region, and whether bodies are signed."""
    headers = {"user-agent": draw(TEXT), "content-type": "application/octet-stream"}
    headers |= draw(st.dictionaries(st.sampled_from(NAMES), TEXT))
    tls = draw(st.booleans())
    return Template(
        host="h",
        port=1,
        tls=tls,
        host_header=draw(st.sampled_from(["bucket.s3.eu-north-1.amazonaws.com", "127.0.0.1:9000", "[::1]:9000"])),
        path=draw(st.sampled_from(["/", "/bucket/", "/a-bucket.with.dots/"])),
        headers=tuple(headers.items()),
        sum_header=SUMS.get(kind, ""),
        region=draw(st.sampled_from(["us-east-1", "eu-north-1", "aws-global"])),
        signs_body=not tls or draw(st.booleans()),
    )


def parsed(head: bytes) -> tuple[str, dict[str, str]]:
    """The target and the headers, names in lower case."""
    line, _, rest = head.decode("ascii").partition("\r\n")
    assert rest.endswith("\r\n\r\n")
    fields = [field.partition(": ") for field in rest[:-4].split("\r\n")]
    headers = {name.lower(): value for name, _, value in fields}
    assert len(headers) == len(fields)  # none stands twice
    method, target, version = line.split(" ")
    assert (method, version) == ("PUT", "HTTP/1.1")
    return target, headers


def signed_by_botocore(
    target: str, headers: Mapping[str, str], body: bytes, template: Template, identity: Identity, now_s: float
) -> AWSRequest:
    """The same request, given to botocore without what its signer adds."""
    added = ("authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "content-length")
    scheme = "https" if template.tls else "http"
    request = AWSRequest(
        "PUT",
        f"{scheme}://{template.host_header}{target}",
        {name: value for name, value in headers.items() if name not in added},
        body,
    )
    request.context["client_config"] = Config(s3={"payload_signing_enabled": template.signs_body})
    signer = S3SigV4Auth(
        ReadOnlyCredentials(identity.access_key, identity.secret, identity.token), "s3", template.region
    )
    moment = dt.datetime.fromtimestamp(int(now_s), dt.UTC)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=moment):
        signer.add_auth(request)
    return request


@given(data=st.data())
def test_signatures_are_those_of_botocore(data: st.DataObject) -> None:
    """For any key, headers, metadata, body, time, region, identity and session token: one and the same signature."""
    kind = data.draw(st.sampled_from(Checksum))
    template = data.draw(templates(kind))
    identity = Identity(
        data.draw(st.text(st.sampled_from("AKIZ0129"), min_size=1)),
        data.draw(st.text(VISIBLE, min_size=1)),
        data.draw(st.none() | st.text(st.sampled_from("abc+/=%9"), min_size=1)),
    )
    maker = RequestHead(template, identity)
    names = data.draw(st.lists(TOKEN, max_size=5, unique_by=str.lower))
    for now_s in data.draw(st.lists(st.floats(0, 4e9), min_size=1, max_size=3)):  # the day's key changes in between
        key, body = data.draw(KEYS), data.draw(st.binary(max_size=60))
        metadata = {name: data.draw(TEXT) for name in names}
        head = maker.of(key, body, kind.of(body), metadata, now_s)
        target, headers = parsed(head)
        request = signed_by_botocore(target, headers, body, template, identity, now_s)
        assert headers["authorization"] == request.headers["Authorization"]
        assert headers["x-amz-content-sha256"] == request.headers["X-Amz-Content-SHA256"]
        assert headers["x-amz-date"] == request.headers["X-Amz-Date"]
        assert headers.get("x-amz-security-token", "") == (identity.token or "")
        assert headers["content-length"] == str(len(body))
        assert {name: headers["x-amz-meta-" + name.lower()] for name in names} == metadata
        assert headers.get(template.sum_header, "") == kind.of(body)


PLAIN = Template(
    host="h",
    port=80,
    tls=False,
    host_header="h",
    path="/bucket/",
    headers=(),
    sum_header="content-md5",
    region="us-east-1",
    signs_body=True,
)


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("a=b/c", b"/bucket/a%3Db/c"),
        ("a b+c", b"/bucket/a%20b%2Bc"),
        ("é", b"/bucket/%C3%A9"),
        ("../a//b/.", b"/bucket/../a//b/."),
        ("a?b#c%2F", b"/bucket/a%3Fb%23c%252F"),
        ("a\r\nX: y", b"/bucket/a%0D%0AX%3A%20y"),
    ],
)
def test_a_key_is_encoded_once(key: str, target: bytes) -> None:
    """The path that is sent is the path that is signed, and no key ends the request line."""
    head = RequestHead(PLAIN, Identity("k", "s", None)).of(key, b"", "x", {}, 0)
    assert head.startswith(b"PUT " + target + b" HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "metadata",
    [{"a": "b\r\nEvil: 1"}, {"a": "b\nc"}, {"a": "\0"}, {"a": "é"}, {"a\r\n": "b"}, {"a:": "b"}, {"a": "1", "A": "2"}],
    ids=repr,
)
def test_metadata_that_no_header_can_carry_is_refused(metadata: dict[str, str]) -> None:
    """A record's id from elsewhere never writes a header of its own; and it is no record's end either."""
    with pytest.raises(ConfigurationError):
        RequestHead(PLAIN, Identity("k", "s", None)).of("key", b"", "x", metadata, 0)


def test_patterns_are_bounded() -> None:
    """Ever new names of metadata are served, and not kept without end."""
    maker = RequestHead(PLAIN, Identity("k", "s", None))
    for number in range(1000):
        assert b"x-amz-meta-n%d: v\r\n" % number in maker.of("key", b"", "x", {f"n{number}": "v"}, 0)
    assert len(maker._patterns) <= 64
