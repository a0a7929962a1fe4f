"""Which heads are kept: of whole requests that others may repeat, and no more than so many."""

import pytest

from services.ingest.known_heads import KnownHeads
from services.ingest.request import RequestHead, read_head

BODY = b"[1]"


def request(*lines: bytes) -> tuple[bytes, RequestHead]:
    """A request's bytes, and what is read of its head."""
    headers = [b"content-length: %d" % len(BODY), *lines]
    head = read_head([(name, value) for name, _, value in (line.partition(b": ") for line in headers)])
    return b"\r\n".join([b"POST /v1/collections HTTP/1.1", *headers, b"", BODY]), head


def test_a_known_head_is_found_with_another_body() -> None:
    """The head is the one that was read; a body of another length is none of its requests."""
    heads = KnownHeads()
    data, head = request()
    assert heads.find(data) is None
    heads.learn(data, head)
    assert heads.find(data[: -len(BODY)] + b"[2]") == (head, b"[2]")
    assert heads.find(data[:-1]) is None
    assert heads.find(data + b"x") is None
    assert heads.find(data.replace(b"POST", b"post")) is None


@pytest.mark.parametrize(
    "line",
    [
        b"x-request-id: a",
        b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        b"idempotency-key: 01890a5d-ac96-774b-bcce-b302099a8057",
        b"x: " + b"a" * 1024,
    ],
)
def test_what_names_one_request_or_is_long_is_not_kept(line: bytes) -> None:
    """It would take the place of heads that come again."""
    heads = KnownHeads()
    heads.learn(*request(line))
    assert heads.find(request(line)[0]) is None


def test_only_a_head_alone_is_kept() -> None:
    """A read that begins or ends elsewhere says nothing about the bytes before the body."""
    heads = KnownHeads()
    data, head = request()
    for read in (b"\r\n\r\n" + data, data + data, data[:-1], data[5:].replace(b"\r\n\r\n", b"\n\n")):
        heads.learn(read, head)
        assert heads.find(read) is None
    assert heads.find(data) is None


def test_their_number_is_bounded() -> None:
    """However many there are: where there is no room for one more, the others are forgotten."""
    heads = KnownHeads()
    requests = [request(b"x: %d" % number) for number in range(3000)]
    for data, head in requests:
        heads.learn(data, head)
    assert heads.find(requests[-1][0]) is not None
    assert sum(heads.find(data) is not None for data, _ in requests) <= 1024
