"""Request bodies that come compressed: gzip and zstd, in a bounded stream. Pure.

Owns the two decoders behind one form: bytes in, pieces of at most PIECE_BYTES out, so that a caller can stop at its
limit, and let others run between two pieces. A body of several gzip members or zstd frames is their contents one after
the other (RFC 1952 §2.2, RFC 8878 §3). What ends early or goes on after its end is refused.
"""

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 256 * 1024
MEMBERS_MAX = 1024
"""Most gzip members or zstd frames in a body: a million empty ones would cost seconds, and hold nothing."""

_INPUT_BYTES = 64 * 1024  # fed at once: decoders copy what they have not used yet
_GZIP_WBITS = 31  # zlib: the largest window, with a gzip header and trailer
_ZSTD_WINDOW_LOG_MAX = 23  # 8 MiB: more is not allowed in HTTP (RFC 9659 §3)


class InvalidEncodingError(Exception):
    """The bytes are not what the content coding says; the message is for the client."""


class _Member(Protocol):
    """One gzip member or zstd frame on its way; the form of the standard library's decompressors."""

    @property
    def eof(self) -> bool:
        """Whether its end has been decoded."""

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out of what was fed."""

    @property
    def unused_data(self) -> bytes:
        """What was fed and stands behind its end."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Feed, and take out at most so many bytes."""


class _GzipMember:
    """zlib's own object, with the form of the later ones."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_GZIP_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
        # A full piece may have more behind it although no input is left.
        self.needs_input = not self._inflate.unconsumed_tail and len(piece) < max_length
        return piece


def _zstd_frame() -> _Member:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG_MAX})


CODINGS: dict[str, Callable[[], _Member]] = {"gzip": _GzipMember, "x-gzip": _GzipMember, "zstd": _zstd_frame}
"""Content codings that are taken (RFC 9110 §8.4.1: x-gzip is gzip)."""


def decompress(coding: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The body's content, piece by piece: none larger than PIECE_BYTES, some of them empty.

    Args:
        coding: a key of CODINGS.
        chunks: the body as sent, cut anywhere.

    Raises:
        InvalidEncodingError: broken, cut short, or followed by something else.

    """
    make = CODINGS[coding]
    member = make()
    members = 1
    end = 0
    for data in _inputs(chunks):
        start, end = end, end + len(data)
        left = data
        while left or not (member.eof or member.needs_input):
            if member.eof:
                member = make()
                members += 1
                if members > MEMBERS_MAX:
                    raise InvalidEncodingError(f"the body has more than {MEMBERS_MAX} {coding} members")
            try:
                yield member.decompress(left, PIECE_BYTES)
            except (zlib.error, zstd.ZstdError) as error:
                place = f"member {members}, in the {len(data)} bytes from byte {start}"
                raise InvalidEncodingError(f"the body is not {coding} ({place}): {error}") from None
            left = member.unused_data if member.eof else b""
    if not member.eof:
        raise InvalidEncodingError(f"the {coding} body ends early, after {end} bytes")


def _inputs(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _INPUT_BYTES):
            yield chunk[start : start + _INPUT_BYTES]
