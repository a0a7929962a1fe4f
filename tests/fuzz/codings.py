"""Compressed bodies: in one piece or in several members, and the standard library's word on what is in them."""

import gzip
import itertools
import sys
import zlib
from collections.abc import Sequence

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CODINGS = ("gzip", "zstd")

_WINDOW_LOG_MAX = 23  # RFC 9659: a frame that wants more than 8 MiB is no HTTP content coding


def pack(coding: str, body: bytes, cuts: Sequence[int] = ()) -> bytes:
    """Compress, as one member for each part between two cuts."""
    compress = gzip.compress if coding == "gzip" else zstd.compress
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return b"".join(compress(body[start:end]) for start, end in itertools.pairwise(places))


def unpack(coding: str, packed: bytes) -> bytes | None:
    """What is in it, or None where it is not what the coding says."""
    if coding == "zstd":
        try:
            return zstd.decompress(packed, options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX})
        except zstd.ZstdError:
            return None
    body = b""
    while True:
        member = zlib.decompressobj(31)
        try:
            body += member.decompress(packed)
        except zlib.error:
            return None
        if not member.eof:
            return None
        packed = member.unused_data
        if not packed:
            return body
