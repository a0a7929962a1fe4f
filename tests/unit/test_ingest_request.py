"""Request headers: what is taken, what is ignored, what is refused."""

import pytest

from services.ingest.problems import Code, RefusedError
from services.ingest.request import KEY_TIME_MIN_MS, read_head
from shared.record import new_collection_id


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON;charset="UTF-8"',
        "application/json ; charset=utf8",
        "application/vnd.acme+json",
        "application/cloudevents-batch+json; charset=utf-8",
    ],
)
def test_json_in_utf8_is_taken(media_type: str) -> None:
    """JSON and its relatives, in UTF-8."""
    assert read_head([(b"content-type", media_type.encode())]).refusal(1000) is None


def test_an_absent_type_is_taken_as_json() -> None:
    """RFC 9110 lets a server examine the data of a body without a type."""
    assert read_head([]).refusal(1000) is None


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonl",
        "application/json; charset=latin-1",
        "application/json, text/plain",
        "json",
        "text/json",
    ],
)
def test_other_types_are_refused_with_accept(media_type: str) -> None:
    """A 415 says what would have been taken."""
    problem = read_head([(b"content-type", media_type.encode())]).refusal(1000)
    assert problem is not None
    assert problem.code is Code.UNSUPPORTED_MEDIA_TYPE
    assert problem.headers == ((b"accept", b"application/json"),)


@pytest.mark.parametrize(
    ("encoding", "coding"),
    [
        ("identity", None),
        ("Identity", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "x-gzip"),
        ("zstd", "zstd"),
    ],
)
def test_codings_that_are_taken(encoding: str, coding: str | None) -> None:
    """Content codings are compared without regard to case (RFC 9110 §8.4.1)."""
    head = read_head([(b"content-encoding", encoding.encode())])
    assert head.coding == coding
    assert head.refusal(1000) is None


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "gzip;q=1", "é"])
def test_other_codings_are_refused(encoding: str) -> None:
    """A 415 names what would be taken; two codings at once are not."""
    problem = read_head([(b"content-encoding", encoding.encode())]).refusal(1000)
    assert problem is not None
    assert problem.code is Code.UNSUPPORTED_ENCODING
    assert problem.headers == ((b"accept-encoding", b"gzip, zstd, identity"),)


@pytest.mark.parametrize("coding", [b"gzip", b"gzip, chunked", b"identity"])
def test_other_transfer_codings_are_refused(coding: bytes) -> None:
    """RFC 9112 §6.1: a transfer coding that is not understood is a 501."""
    problem = read_head([(b"transfer-encoding", coding)]).refusal(1000)
    assert problem is not None
    assert problem.code is Code.TRANSFER_CODING


@pytest.mark.parametrize("name", [b"idempotency-key", b"authorization", b"content-encoding", b"content-type"])
def test_a_header_that_stands_twice_is_refused(name: bytes) -> None:
    """Which of the two would hold? Nobody can say, so neither does."""
    problem = read_head([(name, b"gzip"), (b"x", b"y"), (name, b"gzip")]).refusal(1000)
    assert problem is not None
    assert problem.code is Code.INVALID_HEADER
    assert name.decode() in problem.detail


NOW_MS = 1_795_000_000_000  # in 2026
DAY_MS = 24 * 3600 * 1000


def key_of(unix_ms: int) -> str:
    return new_collection_id(unix_ms, bytes(10))


@pytest.mark.parametrize("unix_ms", [KEY_TIME_MIN_MS, NOW_MS, NOW_MS + DAY_MS])
@pytest.mark.parametrize("form", ["{}", '"{}"', " {} "])
def test_an_idempotency_key_is_the_collections_id(unix_ms: int, form: str) -> None:
    """A UUIDv7 of our time, in quotes or not, in capitals or not."""
    key = key_of(unix_ms)
    head = read_head([(b"idempotency-key", form.format(key.upper()).encode())])
    assert head.collection_id(NOW_MS) == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        '"',
        "order-17",
        "8e03978e-40d5-43e8-bc93-6894a57f9324",  # version 4
        "018f4e7c-1b2a-7c3d-0e4f-5a6b7c8d9e0f",  # another variant
        key_of(NOW_MS).replace("-", ""),
        "{" + key_of(NOW_MS) + "}",
        key_of(NOW_MS) + "0",
        key_of(NOW_MS)[:-1] + "é",
        key_of(KEY_TIME_MIN_MS - 1),
        key_of(NOW_MS + DAY_MS + 1),
        key_of(2**48 - 1),
    ],
)
def test_any_other_idempotency_key_is_refused(key: str) -> None:
    """A key that cannot be the collection's id is told so, and is not ignored: its client counts on it."""
    with pytest.raises(RefusedError) as refused:
        read_head([(b"idempotency-key", key.encode())]).collection_id(NOW_MS)
    assert refused.value.problem.code is Code.INVALID_IDEMPOTENCY_KEY


def test_without_a_key_the_id_is_ours() -> None:
    """No header, no id."""
    assert read_head([]).collection_id(NOW_MS) is None


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer abc", b"abc"),
        (b"bearer  abc ", b"abc"),
        (b"Bearer\tabc", b"abc"),
        (b"Basic abc", None),
        (b"Bearer", b""),
        (b"", None),
    ],
)
def test_bearer_tokens(value: bytes, token: bytes | None) -> None:
    """The scheme is compared without regard to case (RFC 9110 §11.1); another scheme is not ours."""
    assert read_head([(b"authorization", value)]).bearer == token


@pytest.mark.parametrize("value", ["a-1", "A.b_c:d", "x" * 128])
def test_a_sane_request_id_is_taken(value: str) -> None:
    """The client's request id, where it can stand in a log line and a header."""
    assert read_head([(b"x-request-id", value.encode())]).request_id == value


@pytest.mark.parametrize("value", [b"", b"a b", b"x" * 129, b"\xe9", b'"', b"a\tb"])
def test_any_other_request_id_is_replaced(value: bytes) -> None:
    """Nothing else gets into our logs by this door."""
    assert read_head([(b"x-request-id", value)]).request_id is None


@pytest.mark.parametrize(
    ("value", "taken"),
    [(b"k", True), (b"user 7", True), (b"x" * 256, True), (b"x" * 257, False), (b"\xe9", False), (b"", False)],
)
def test_partition_keys(value: bytes, *, taken: bool) -> None:
    """A partition key is printable ASCII of bounded length, else a 400."""
    problem = read_head([(b"partition-key", value)]).refusal(1000)
    assert (problem is None) is taken
    assert problem is None or problem.code is Code.INVALID_HEADER


def test_a_body_is_expected_where_its_head_says_so() -> None:
    """Only then must a connection be closed over an unread body."""
    assert read_head([(b"content-length", b"5")]).has_body
    assert read_head([(b"transfer-encoding", b"chunked")]).has_body
    assert not read_head([(b"content-length", b"0")]).has_body
    assert not read_head([]).has_body


def test_a_broken_trace_context_is_dropped() -> None:
    """A traceparent goes on only in the W3C form."""
    good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert read_head([(b"traceparent", good.encode())]).traceparent == good
    assert read_head([(b"traceparent", b"00-zz")]).traceparent is None
