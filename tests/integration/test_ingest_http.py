"""Every answer of `POST /v1/collections` over a real socket, and the records behind a 200, read back from the topic."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from services.ingest.problems import Code
from shared.record import id_time_ms
from tests.conftest import MakeTopic
from tests.harness.broker import Broker, Topic
from tests.harness.http_client import Answer, request
from tests.harness.processes import Processes, free_port
from tests.harness.tiers import IngestTier, start_ingest
from tests.harness.waiting import until

MAX_BODY = 2_000_000
STATUSES = {400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 500, 501, 503, 504}
PAYLOADS = [
    b'{"n":1e400}',
    b'{"n":123456789012345678901234567890.10}',
    b'{"a":1,"a":2}',
    b"[ 1 ,\t2 ]",
    '"é\\u2028"'.encode(),
    b"null",
    b"-0.0",
    b'"abc\\ud83d"',
    b"[" * 300 + b"]" * 300,
]


def envelope(*payloads: bytes, version: str = "1") -> bytes:
    return b'{"version":%s,"token":"hush","data":[' % json.dumps(version).encode() + b",".join(payloads) + b"]}"


@pytest.fixture(scope="module")
def topic(kafka: Broker) -> Topic:
    made = Topic(kafka.bootstrap_servers, f"ingest-http-{free_port()}", 4)
    made.create()
    return made


@pytest.fixture(scope="module")
def ingest(topic: Topic, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestTier]:
    processes = Processes(tmp_path_factory.mktemp("ingest"))
    tier = start_ingest(
        processes, topic, {"MAX_BODY_BYTES": str(MAX_BODY), "MAX_ITEMS": "50", "INGEST_DRAIN_DELAY_S": "0"}
    )
    try:
        tier.wait_ready()
        yield tier
    finally:
        processes.end_all()


async def lower_limit(topic: Topic, message_bytes_max: int) -> None:
    options = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(message_bytes_max)}
    admin = AIOKafkaAdminClient(bootstrap_servers=topic.bootstrap_servers)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name, options)])
    finally:
        await admin.close()


def assert_problem(answer: Answer, code: Code) -> None:
    document = answer.document
    assert (answer.status, document["status"], document["code"]) == (code.value.status,) * 2 + (code.name.lower(),)
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["detail"]
    assert (document["retryable"], document["outcome"]) == (code.value.retryable, code.value.outcome)


def test_a_200_stands_for_records_with_the_clients_bytes(ingest: IngestTier, topic: Topic) -> None:
    """Each payload is one record with exactly its bytes and exactly the headers of the wire contract."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = request(
        ingest.collections_url,
        envelope(*PAYLOADS, version="2.0 ü"),
        headers={"X-Request-Id": "my-request.1", "traceparent": trace, "Partition-Key": "sensor 7"},
    )
    assert (answer.status, answer.headers["x-request-id"]) == (200, "my-request.1")
    ids = answer.document["ids"]
    assert answer.document["accepted"] == len(PAYLOADS)
    collection = ids[0].removesuffix("-0")
    assert id_time_ms(collection) is not None
    assert ids == [f"{collection}-{index}" for index in range(len(PAYLOADS))]
    records = {r.offset: r for r in topic.records() if dict(r.headers)["spillway-request-id"] == b"my-request.1"}
    found = [records[offset] for offset in sorted(records)]
    assert [record.value for record in found] == PAYLOADS
    assert {record.key for record in found} == {b"sensor 7"}
    assert len({record.partition for record in found}) == 1
    assert {record.timestamp_type for record in found} == {1}  # LogAppendTime
    for index, record in enumerate(found):
        headers = dict(record.headers)
        assert len(headers) == len(record.headers)
        assert re.fullmatch(rb"[0-9]{19}", headers.pop("spillway-received-ns"))
        assert headers == {
            "spillway-id": ids[index].encode(),
            "spillway-folder": b"payloads",
            "spillway-version": b"2.0 %C3%BC",
            "spillway-request-id": b"my-request.1",
            "spillway-index": b"%d" % index,
            "spillway-count": b"%d" % len(PAYLOADS),
            "content-type": b"application/json",
            "traceparent": trace.encode(),
        }


def test_a_token_is_never_written(ingest: IngestTier, topic: Topic) -> None:
    """The client's token is neither in a record nor in the log."""
    assert request(ingest.collections_url, envelope(b'"x"')).status == 200
    assert not any(b"hush" in value for record in topic.records() for _, value in record.headers)
    assert "hush" not in ingest.process.output()


def test_ids_never_repeat(ingest: IngestTier) -> None:
    """The same body twice is two collections."""
    ids = [i for _ in range(5) for i in request(ingest.collections_url, envelope(b"1", b"2")).document["ids"]]
    assert len(set(ids)) == 10


def test_a_chunked_body_is_taken(ingest: IngestTier) -> None:
    """A body without a length is read to its end."""
    body = envelope(b'"' + b"x" * 200_000 + b'"')
    answer = request(ingest.collections_url, iter([body[:100], body[100:150_000], body[150_000:]]))
    assert (answer.status, answer.document["accepted"]) == (200, 1)


def test_a_collection_larger_than_a_batch_is_taken(ingest: IngestTier, topic: Topic) -> None:
    """Three payloads of 0.6 MB do not fit into one batch of 1 MiB and are written all the same."""
    payloads = [b'"' + letter * 600_000 + b'"' for letter in (b"a", b"b", b"c")]
    answer = request(ingest.collections_url, envelope(*payloads), headers={"X-Request-Id": "large"})
    assert answer.status == 200
    found = [r for r in topic.records() if dict(r.headers)["spillway-request-id"] == b"large"]
    assert sorted(record.value or b"" for record in found) == payloads


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", Code.INVALID_JSON),
        (envelope(b"NaN"), Code.INVALID_JSON),
        (envelope(b"[" * 100_000 + b"]" * 100_000), Code.INVALID_JSON),
        (envelope(b'"\xff"'), Code.NOT_UTF8),
        (b'{"version":1,"data":[1]}', Code.INVALID_ENVELOPE),
        (b'{"version":"1","version":"1","data":[1]}', Code.DUPLICATE_KEY),
        (envelope(), Code.EMPTY_DATA),
        (envelope(*[b"1"] * 51), Code.TOO_MANY_ITEMS),
        (envelope(b"1", b'"' + b"x" * 1_100_000 + b'"'), Code.RECORD_TOO_LARGE),
        (envelope(b'"' + b"x" * MAX_BODY + b'"'), Code.BODY_TOO_LARGE),
        (b"", Code.INVALID_JSON),
    ],
    ids=lambda value: value.name if isinstance(value, Code) else "",
)
def test_a_bad_body_is_told_why_and_nothing_is_written(
    body: bytes, code: Code, ingest: IngestTier, topic: Topic
) -> None:
    """400 and 413, each with its code; the topic stays as it was."""
    before = topic.ends()
    assert_problem(request(ingest.collections_url, body), code)
    assert topic.ends() == before


@pytest.mark.parametrize(
    ("headers", "code", "answered"),
    [
        ({"Content-Type": "text/plain"}, Code.UNSUPPORTED_MEDIA_TYPE, ("accept", "application/json")),
        ({"Content-Encoding": "br"}, Code.UNSUPPORTED_ENCODING, ("accept-encoding", "gzip, zstd, identity")),
        ({"Partition-Key": "é"}, Code.INVALID_HEADER, ("connection", "close")),
        ({"X-Request-Id": "has space", "Content-Type": "x/y"}, Code.UNSUPPORTED_MEDIA_TYPE, ("connection", "close")),
    ],
)
def test_bad_headers_are_refused_before_the_body(
    headers: dict[str, str], code: Code, answered: tuple[str, str], ingest: IngestTier
) -> None:
    """415 says what would be taken; where the body was not read the connection ends."""
    answer = request(ingest.collections_url, envelope(b"1"), headers=headers)
    assert_problem(answer, code)
    assert answer.headers[answered[0]] == answered[1]
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"] != "has space"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_other_methods(method: str, ingest: IngestTier) -> None:
    """405 names the one method that is taken."""
    answer = request(ingest.collections_url, method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert_problem(answer, Code.METHOD_NOT_ALLOWED)


@pytest.mark.parametrize("path", ["/", "/v1/collections/", "/v1", "/v1/collections/x"])
def test_other_paths(path: str, ingest: IngestTier) -> None:
    """404 is a problem document too, and a trailing slash is another path."""
    assert_problem(request(ingest.url + path, envelope(b"1")), Code.NOT_FOUND)


def test_other_methods_of_other_paths(ingest: IngestTier) -> None:
    """The framework's own 405 has our form and keeps its `Allow`."""
    answer = request(ingest.url + "/docs", method="DELETE")
    assert_problem(answer, Code.METHOD_NOT_ALLOWED)
    assert "GET" in answer.headers["allow"]


def test_a_chunked_body_over_the_limit_is_cut_off(ingest: IngestTier) -> None:
    """Without a length the limit holds chunk by chunk, and the answer reaches a client that still sends."""
    chunks = (b"x" * 100_000 for _ in range(30))
    answer = request(ingest.collections_url, chunks)
    assert_problem(answer, Code.BODY_TOO_LARGE)
    assert answer.headers["connection"] == "close"


def test_a_large_body_is_refused_by_its_length_alone(ingest: IngestTier) -> None:
    """With `Expect: 100-continue` the refusal comes before a byte of the body, and no 100."""
    parts = urlsplit(ingest.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as sock:
        sock.sendall(
            b"POST /v1/collections HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: 999999999999\r\n\r\n"
        )
        head = sock.recv(4096)
    assert head.startswith(b"HTTP/1.1 413 ")


def test_a_body_that_stalls_is_answered_408_and_gives_its_bytes_back(
    make_topic: MakeTopic, processes: Processes
) -> None:
    """Whoever announces a body and stays silent holds its reserved bytes for the deadline and no longer."""
    settings = {"BODY_DEADLINE_S": "1", "MAX_BODY_BYTES": "65536", "MAX_IN_FLIGHT_BYTES": "131072"}
    tier = start_ingest(processes, make_topic(), settings)
    tier.wait_ready()
    parts = urlsplit(tier.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as sock:
        sock.sendall(b"POST /v1/collections HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n{")
        assert sock.recv(4096).startswith(b"HTTP/1.1 408 ")
    until(lambda: tier.metric("spillway_ingest_in_flight_bytes") == 0, "the bytes to be free", deadline_s=10)
    assert request(tier.collections_url, envelope(b"1")).status == 200


def test_one_connection_serves_many_requests(ingest: IngestTier) -> None:
    """An answer that has read its body keeps the connection, also where it is a refusal."""
    parts = urlsplit(ingest.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as sock:
        reader = sock.makefile("rb")
        for body, status in ((b"{", b"400"), (envelope(b"1"), b"200"), (b"[]", b"400"), (envelope(b"1"), b"200")):
            sock.sendall(
                b"POST /v1/collections HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            assert reader.readline().split()[1] == status
            length = 0
            while (line := reader.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            reader.read(length)


def test_the_documentation_shows_request_answers_and_problem(ingest: IngestTier) -> None:
    """/openapi.json has the request, each status of the table and the problem form; /docs serves a page."""
    document = request(ingest.url + "/openapi.json", method="GET").document
    post = document["paths"]["/v1/collections"]["post"]
    assert set(post["responses"]) == {"200", *(str(status) for status in STATUSES - {404})}
    assert {"CollectionRequest", "Accepted", "ProblemDocument"} <= set(document["components"]["schemas"])
    assert request(ingest.url + "/docs", method="GET").status == 200


def test_the_ops_port_counts_and_is_not_the_public_one(ingest: IngestTier) -> None:
    """Payloads are counted as they are acknowledged; the public port has no metrics."""
    before = ingest.metric("spillway_ingest_payloads_total")
    request(ingest.collections_url, envelope(b"1", b"2", b"3"))
    assert ingest.metric("spillway_ingest_payloads_total") == before + 3
    assert ingest.metric("spillway_ingest_in_flight_bytes") == 0
    assert request(ingest.url + "/metrics", method="GET").status == 404


def test_one_key_goes_to_one_partition(ingest: IngestTier, topic: Topic) -> None:
    """Collections of one partition key share a partition; keys spread."""
    for turn in range(3):
        for key in range(8):
            headers = {"Partition-Key": f"key-{key}", "X-Request-Id": f"pinned-{key}-{turn}"}
            assert request(ingest.collections_url, envelope(b"1"), headers=headers).status == 200
    places: dict[bytes, set[int]] = {}
    for record in topic.records():
        if dict(record.headers)["spillway-request-id"].startswith(b"pinned-"):
            places.setdefault(record.key or b"", set()).add(record.partition)
    assert {len(partitions) for partitions in places.values()} == {1}
    assert len(set.union(*places.values())) > 1


def test_a_quiet_day_fills_all_partitions(ingest: IngestTier, topic: Topic) -> None:
    """Collections one after the other, each finding every queue empty, still spread over the topic."""
    before = topic.ends()
    for _ in range(40):
        assert request(ingest.collections_url, envelope(b"1")).status == 200
    after = topic.ends()
    assert all(after[partition] > before[partition] for partition in before)


def test_the_broker_refuses_a_shared_batch_for_its_size(make_topic: MakeTopic, processes: Processes) -> None:
    """A limit lowered behind our back costs only the payload that is over it: 413, and the others are written."""
    topic = make_topic(partitions=1)
    tier = start_ingest(processes, topic)
    tier.wait_ready()
    asyncio.run(lower_limit(topic, 4000))
    small = envelope(*[b'"' + b"x" * 1000 + b'"'] * 8)  # as one batch over the new limit, in halves within it
    assert request(tier.collections_url, small).status == 200
    assert_problem(request(tier.collections_url, envelope(b'"' + b"y" * 5000 + b'"')), Code.RECORD_TOO_LARGE)
    values = [record.value for record in topic.records()]
    assert len(values) == 8
    assert set(values) == {b'"' + b"x" * 1000 + b'"'}
