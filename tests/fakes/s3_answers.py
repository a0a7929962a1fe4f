"""The XML that S3 answers: error documents and listings. Pure text; knows no socket."""

import hashlib
from collections.abc import Mapping
from urllib.parse import quote
from xml.sax.saxutils import escape

from tests.fakes.script import Answer, Shelf

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_KEYS_MAX = 1000


def error_document(answer: Answer, key: str) -> str:
    """The body of an error answer."""
    return (
        f"{_HEAD}<Error><Code>{answer.code}</Code><Message>by script or by right: {answer.code}</Message>"
        f"<Resource>{escape(key)}</Resource><RequestId>fake</RequestId></Error>"
    )


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
        etag = hashlib.md5(version.body, usedforsecurity=False).hexdigest()
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
