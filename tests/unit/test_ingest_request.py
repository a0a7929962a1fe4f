"""Request headers: what is taken, what is ignored, what is refused."""

import pytest

from services.ingest.problems import Code
from services.ingest.request import read_head


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
    ("encoding", "taken"), [("identity", True), ("Identity", True), ("gzip", False), ("br", False)]
)
def test_only_plain_bodies(encoding: str, *, taken: bool) -> None:
    """A compressed body is refused before it is read."""
    problem = read_head([(b"content-encoding", encoding.encode())]).refusal(1000)
    assert (problem is None) is taken
    if problem is not None:
        assert problem.code is Code.UNSUPPORTED_ENCODING
        assert problem.headers == ((b"accept-encoding", b"identity"),)


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
