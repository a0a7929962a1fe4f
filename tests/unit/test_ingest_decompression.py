"""Compressed bodies: the same bytes come out, in bounded pieces, and what is broken is refused."""

import gzip
import itertools
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.decompression import MEMBERS_MAX, PIECE_BYTES, InvalidEncodingError, decompress, zstd

PACK = {"gzip": gzip.compress, "x-gzip": gzip.compress, "zstd": zstd.compress}
CODINGS = sorted(PACK)


@given(
    coding=st.sampled_from(CODINGS),
    members=st.lists(st.binary(max_size=3000), min_size=1, max_size=4),
    repeat=st.integers(1, 300),
    cut=st.integers(1, 5000) | st.just(1_000_000),
)
def test_the_same_bytes_come_out(coding: str, members: list[bytes], repeat: int, cut: int) -> None:
    """One member or several, small or of several pieces, cut anywhere: the contents one after the other."""
    contents = [member * repeat for member in members]
    body = b"".join(PACK[coding](content) for content in contents)
    pieces = list(decompress(coding, [body[at : at + cut] for at in range(0, len(body), cut)]))
    assert b"".join(pieces) == b"".join(contents)
    assert max(map(len, pieces)) <= PIECE_BYTES


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES])
def test_a_full_piece_is_not_the_end(coding: str, size: int) -> None:
    """Where the content ends at a piece's bound, or one byte beside it, nothing is lost and nothing waits for more."""
    assert sum(map(len, decompress(coding, [PACK[coding](bytes(size))]))) == size


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_costs_what_is_taken_of_it(coding: str) -> None:
    """Of a body that would be 256 MiB only the pieces that are asked for are made."""
    bomb = PACK[coding](bytes(256 * 1024 * 1024))
    tracemalloc.start()
    try:
        taken = list(itertools.islice(decompress(coding, [bomb]), 8))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(map(len, taken)) <= 8 * PIECE_BYTES
    assert peak < 20 * PIECE_BYTES


@given(st.sampled_from(CODINGS), st.binary(min_size=1, max_size=500), st.data())
def test_what_is_cut_short_is_refused(coding: str, content: bytes, data: st.DataObject) -> None:
    """Any prefix of a body is an error, and never a shorter collection."""
    body = PACK[coding](content)
    kept = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(InvalidEncodingError, match="ends early"):
        list(decompress(coding, [body[:kept]]))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("tail", [b"x", b"{}", bytes(100)])
def test_what_follows_the_end_is_refused(coding: str, tail: bytes) -> None:
    """Bytes behind the last member are no part of any content, and are not dropped in silence."""
    with pytest.raises(InvalidEncodingError):
        list(decompress(coding, [PACK[coding](b"[1]") + tail]))


@given(st.sampled_from(CODINGS), st.binary(min_size=1, max_size=200))
def test_noise_is_refused_or_decoded(coding: str, noise: bytes) -> None:
    """Whatever the bytes, the one error that callers know."""
    try:
        list(decompress(coding, [noise]))
    except InvalidEncodingError as error:
        assert coding in str(error)  # noqa: PT017 - either is right


def test_a_flipped_bit_is_found() -> None:
    """A body whose checksum is wrong is refused."""
    body = bytearray(gzip.compress(b'{"version": "1"}' * 50))
    body[-6] ^= 1
    with pytest.raises(InvalidEncodingError, match="not gzip"):
        list(decompress("gzip", [bytes(body)]))


@pytest.mark.parametrize("coding", CODINGS)
def test_very_many_members_are_refused(coding: str) -> None:
    """A body of nothing but empty members ends at the bound."""
    with pytest.raises(InvalidEncodingError, match=f"more than {MEMBERS_MAX}"):
        list(decompress(coding, [PACK[coding](b"") * (MEMBERS_MAX + 1)]))


def test_a_window_over_8_mib_is_refused() -> None:
    """A decoder's memory is bounded by RFC 9659, whatever the frame asks for."""
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.enable_long_distance_matching: 1}
    compressor = zstd.ZstdCompressor(options=options)
    body = compressor.compress(bytes(1000)) + compressor.compress(bytes(20_000_000)) + compressor.flush()
    with pytest.raises(InvalidEncodingError, match="not zstd"):
        list(decompress("zstd", [body]))


def test_raw_deflate_is_not_gzip() -> None:
    """`Content-Encoding: gzip` is gzip's own form."""
    with pytest.raises(InvalidEncodingError, match="not gzip"):
        list(decompress("gzip", [zlib.compress(b"[1]")]))
