"""The XML that S3 answers: error documents and listings. Pure text; knows no socket."""

import base64
import hashlib
import zlib
from collections.abc import Mapping
from urllib.parse import quote
from xml.sax.saxutils import escape

from tests.fakes.script import Answer, Shelf, Version

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_KEYS_MAX = 1000


def error_document(answer: Answer, key: str) -> str:
    """The body of an error answer."""
    fields = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in answer.fields)
    return (
        f"{_HEAD}<Error><Code>{answer.code}</Code><Message>by script or by right: {answer.code}</Message>"
        f"<Resource>{escape(key)}</Resource>{fields}<RequestId>fake</RequestId></Error>"
    )


def etag_of(version: Version) -> str:
    """The ETag of an object: its MD5, but something else of the same form where a KMS key encrypts it, as in S3."""
    kms = version.headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")
    return f'"{hashlib.md5(b"kms" * kms + version.body, usedforsecurity=False).hexdigest()}"'


_SUMS = {
    "content-md5": lambda body: hashlib.md5(body, usedforsecurity=False).digest(),
    "x-amz-checksum-crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "x-amz-checksum-sha256": lambda body: hashlib.sha256(body).digest(),
}
_KEPT = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")


def refusal(headers: Mapping[str, str], body: bytes, *, exists: bool) -> Answer | None:
    """Why S3 would not take this PUT: a hash that is another body's, or an object that is there already."""
    claimed = headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    if claimed.startswith("STREAMING-"):
        return Answer(501, "NotImplemented")
    if claimed not in {"UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()}:
        return Answer(400, "XAmzContentSHA256Mismatch")
    for name, sum_of in _SUMS.items():
        if name in headers and headers[name] != base64.b64encode(sum_of(body)).decode():
            return Answer(400, "BadDigest")
    if headers.get("if-none-match") == "*" and exists:
        return Answer(412, "PreconditionFailed")
    return None


def object_headers(version: Version, *, checksums: bool) -> dict[str, str]:
    """What S3 says of an object, after a PUT and on a HEAD; `checksums` are shown where they were sent."""
    names = [*_KEPT, *(name for name in _SUMS if checksums and name != "content-md5")]
    return {"ETag": etag_of(version), **{name: version.headers[name] for name in names if name in version.headers}}


def listing(bucket: str, shelf: Shelf, query: Mapping[str, str]) -> str:
    """ListObjectsV2 with `prefix`, `start-after`, `max-keys` and `continuation-token`, which is the last key seen."""
    prefix = query.get("prefix", "")
    after = query.get("continuation-token", query.get("start-after", ""))
    keys_max = min(int(query.get("max-keys", _KEYS_MAX)), _KEYS_MAX)
    found = [key for key in shelf.names() if key.startswith(prefix) and key > after]
    page = found[:keys_max]
    shown = quote if query.get("encoding-type") == "url" else escape
    entries = []
    for key in page:
        version = shelf.current(key)
        if version is None:  # removed since the keys were read
            continue
        etag = etag_of(version).strip('"')
        entries.append(
            f"<Contents><Key>{shown(key)}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{etag}&quot;</ETag><Size>{len(version.body)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
    truncated = len(found) > len(page)
    token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if truncated and page else ""
    encoding = "<EncodingType>url</EncodingType>" if query.get("encoding-type") == "url" else ""
    return (
        f'{_HEAD}<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{bucket}</Name>'
        f"<Prefix>{shown(prefix)}</Prefix><KeyCount>{len(entries)}</KeyCount><MaxKeys>{keys_max}</MaxKeys>{encoding}"
        f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{token}{''.join(entries)}</ListBucketResult>"
    )
