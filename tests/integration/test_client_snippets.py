"""The programs of docs/clients.md, as printed there: what they send, how they retry, when and how they give up."""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from aiokafka.structs import ConsumerRecord

from services.ingest.problems import Code
from services.ingest.settings import IngestSettings
from shared.record import id_time_ms
from tests.fakes.scripted_ingest import Early, Lost, Reply, ScriptedIngest, Step, accepted_ids, refusal
from tests.harness.broker import Broker, Topic
from tests.harness.client_programs import PAGE, PROGRAMS, TOKEN, Program, prepare, why_not
from tests.harness.processes import Processes, free_port
from tests.harness.tiers import IngestTier, start_ingest

BODY = b'{"version":"1","data":[{"n":1e400},[ 1 ,2 ],"\xc3\xa9\\n"]}\n'
PAYLOADS = [b'{"n":1e400}', b"[ 1 ,2 ]", '"é\\n"'.encode()]
EARLY_S = 0.02  # a sleep of n whole milliseconds may end a moment before: timers round down

pytestmark = pytest.mark.timeout(240)  # the first `go build` compiles the standard library, on two busy cores


@pytest.fixture(scope="module", params=sorted(PROGRAMS))
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    name: str = request.param
    reason = why_not(name)
    if reason:
        pytest.skip(reason)
    return prepare(name, tmp_path_factory.mktemp(name.replace(".", "-")))


def assert_one_request_repeated(stand: ScriptedIngest, tries: int) -> str:
    """As many tries as that, each with the same bytes and headers; their key."""
    arrivals = stand.arrivals
    assert len(arrivals) == tries
    assert {arrival.body for arrival in arrivals} == {BODY}
    assert {(arrival.method, arrival.path) for arrival in arrivals} == {("POST", "/v1/collections")}
    for name, value in (("content-type", "application/json"), ("authorization", f"Bearer {TOKEN}")):
        assert {arrival.headers.get(name) for arrival in arrivals} == {value}
    keys = {arrival.headers["idempotency-key"] for arrival in arrivals}
    assert len(keys) == 1
    return keys.pop()


def assert_new_key(key: str) -> None:
    """It is a UUIDv7, and nothing more, made in this run."""
    made_ms = id_time_ms(key)
    assert made_ms is not None
    assert len(key) == 36
    assert abs(time.time() * 1000 - made_ms) < 240_000


def ids_in(output: str) -> list[str]:
    """Ids as Spillway makes them, in the order in which they were printed."""
    return re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}-[0-9]+(?:-[0-9a-f]{8})?", output)


TROUBLE: dict[str, list[Step]] = {
    "shed-unknown-cut-quota": [
        refusal(Code.OVERLOADED, "too much", retry_after_s=1),
        refusal(Code.OUTCOME_UNKNOWN, "nobody knows"),
        Lost.CUT,
        refusal(Code.QUOTA_SPENT, "too many requests"),
    ],
    "short-stalled-gateway": [
        Lost.SHORT,
        refusal(Code.BODY_TIMEOUT, "the body was slow"),
        Reply(503, b'{"title": "no upstream"}', {"Content-Type": "application/problem+json"}),
    ],
    "dropped-error-proxy": [
        Lost.DROP,
        refusal(Code.INTERNAL_ERROR, "something went wrong"),
        Reply(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html", "Retry-After": "soon"}),
    ],
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_every_try_is_the_same_request_until_a_200(program: Program, trouble: str) -> None:
    """Shed, unknown, cut in mid-answer, over quota, dropped, a proxy's own: the same bytes under one UUIDv7, never
    earlier than Retry-After says, until the 200 whose ids it prints.
    """
    script = TROUBLE[trouble]
    with ScriptedIngest(script) as stand:
        ended = program.run(stand.url, BODY)
    assert ended.code == 0, ended
    key = assert_one_request_repeated(stand, len(script) + 1)
    assert_new_key(key)
    assert ids_in(ended.output) == accepted_ids(key, len(PAYLOADS))
    for step, before, after in zip(script, stand.arrivals, stand.arrivals[1:], strict=False):
        retry_after = step.headers.get("Retry-After", "") if isinstance(step, Reply) else ""
        wanted_s = int(retry_after) if retry_after.isdecimal() else 0
        assert after.at_s - before.answered_at_s >= wanted_s - EARLY_S


def test_a_400_is_final(program: Program) -> None:
    """No second try, exit code 1, the code and the detail on standard error. Each run has a key of its own."""
    script = [refusal(Code.EMPTY_DATA, "data has no payloads"), refusal(Code.TOKEN_UNKNOWN, "nobody has this token")]
    with ScriptedIngest(script) as stand:
        first, second = program.run(stand.url, BODY), program.run(stand.url, BODY)
    assert (first.code, second.code, first.output, second.output) == (1, 1, "", "")
    assert "empty_data" in first.errors
    assert "data has no payloads" in first.errors
    assert "token_unknown" in second.errors
    assert len(stand.arrivals) == 2
    assert stand.arrivals[0].headers["idempotency-key"] != stand.arrivals[1].headers["idempotency-key"]


def test_a_refusal_before_the_body_is_read_is_heard(program: Program) -> None:
    """A server that refuses a large body by its head, and resets the connection over the rest: its answer is not taken
    for a lost connection, and 16 MB are not sent again and again under a wrong token.
    """
    refused = refusal(Code.TOKEN_UNKNOWN, "nobody has this token")
    with ScriptedIngest([Early(refused)] * 20) as stand:
        ended = program.run(stand.url, b'{"version":"1","data":["' + b"x" * 16_000_000 + b'"]}')
    assert (ended.code, ended.output) == (1, "")
    assert "token_unknown" in ended.errors
    assert "nobody has this token" in ended.errors
    assert len(stand.arrivals) == 1


NOT_OURS = {
    "login": Reply(200, b"<html>Please log in</html>", {"Content-Type": "text/html"}),
    "other-json": Reply(200, b'{"please": "log in"}', {"Content-Type": "application/json"}),
    "forbidden": Reply(403, b"<html>Forbidden</html>", {"Content-Type": "text/html"}),
    "gateway": Reply(503, b"{}", {"Content-Type": "application/problem+json", "Retry-After": "3600"}),
}


@pytest.mark.parametrize("page", NOT_OURS)
def test_what_is_not_spillways_is_no_success(program: Program, page: str) -> None:
    """A login page that says 200, a gateway's 403, a problem document without a code: exit 1, nothing claimed."""
    with ScriptedIngest([NOT_OURS[page]]) as stand:
        ended = program.run(stand.url, BODY)
    assert (ended.code, ended.output, len(stand.arrivals)) == (1, "", 1)
    assert "nothing was written" not in ended.errors
    if page != "other-json":  # that nobody sends; two of the programs end in a stack trace over it
        assert str(NOT_OURS[page].status) in ended.errors
        assert f"SPILLWAY_KEY={stand.arrivals[0].headers['idempotency-key']}" in ended.errors


def test_it_gives_up_where_retry_after_lies_behind_its_deadline(program: Program) -> None:
    """At once, with the code, the detail and the key; standard output stays empty."""
    with ScriptedIngest([refusal(Code.KAFKA_UNAVAILABLE, "no broker answers", retry_after_s=3600)]) as stand:
        ended = program.run(stand.url, BODY)
    assert (ended.code, ended.output) == (1, "")
    key = assert_one_request_repeated(stand, 1)
    for said in ("kafka_unavailable", "no broker answers", f"SPILLWAY_KEY={key}"):
        assert said in ended.errors
    assert ("nothing was written" in ended.errors) is (program.name != "send.sh")


def test_unknown_stays_unknown(program: Program) -> None:
    """A 503 after a 504 speaks for its own try: the program does not say that nothing was written."""
    script = [refusal(Code.OUTCOME_UNKNOWN, "nobody knows"), refusal(Code.OVERLOADED, "too much", retry_after_s=3600)]
    with ScriptedIngest(script) as stand:
        ended = program.run(stand.url, BODY)
    assert ended.code == 1
    key = assert_one_request_repeated(stand, 2)
    assert f"SPILLWAY_KEY={key}" in ended.errors
    assert "nothing was written" not in ended.errors


def test_it_goes_on_under_a_key_that_it_is_given(program: Program) -> None:
    """`SPILLWAY_KEY` is sent as it is."""
    key = "01a20db7-6325-78c4-99a4-061f3ce4a329"
    with ScriptedIngest() as stand:
        ended = program.run(stand.url, BODY, key=key)
    assert ended.code == 0, ended
    assert assert_one_request_repeated(stand, 1) == key
    assert ids_in(ended.output) == accepted_ids(key, len(PAYLOADS))


def test_a_server_that_never_answers_is_left_at_the_deadlines(program: Program) -> None:
    """With deadlines of seconds: each try ends by its own, all of them by the total one, and the outcome is unknown."""
    with ScriptedIngest([Lost.HANG] * 20) as stand:
        ended = program.run(stand.url, BODY, short=True)
    assert (ended.code, ended.output) == (1, "")
    assert len(stand.arrivals) >= 2
    key = assert_one_request_repeated(stand, len(stand.arrivals))
    assert f"SPILLWAY_KEY={key}" in ended.errors
    assert "nothing was written" not in ended.errors


def test_the_table_says_what_the_codes_say() -> None:
    """Each status that ingest gives stands in one row, which tells its outcome and whether to send again."""
    table = PAGE.split("| answer |", 1)[1].split("\n\n", 1)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    for code in set(Code) - {Code.HTTP_ERROR}:  # which has any status
        mine = [row for row in rows if re.search(rf"\b{code.value.status}\b", row[0])]
        assert len(mine) == 1, code
        _, meaning, action = mine[0]
        assert meaning.startswith({"unknown": "unknown", "not_written": "nothing was written"}[code.value.outcome]), (
            code
        )
        assert ("never repeat" in action) is not code.value.retryable, code


def test_the_limits_are_the_defaults() -> None:
    """What the page says of MAX_BODY_BYTES, MAX_ITEMS and the deadlines that a try must outlast."""
    fields = IngestSettings.model_fields
    assert f"{fields['max_body_bytes'].default // 2**20} MiB (`MAX_BODY_BYTES`)" in PAGE
    assert f"{fields['max_items'].default:,} (`MAX_ITEMS`)" in PAGE
    assert f"{fields['max_head_bytes'].default // 2**10} KiB (`MAX_HEAD_BYTES`)" in PAGE
    assert f"{fields['body_deadline_s'].default} s (`BODY_DEADLINE_S`)" in PAGE
    assert f"{fields['http_deadline_s'].default} s for Kafka" in PAGE


@pytest.fixture(scope="module")
def topic(kafka: Broker) -> Topic:
    made = Topic(kafka.bootstrap_servers, f"client-snippets-{free_port()}", 4)
    made.create()
    return made


@pytest.fixture(scope="module")
def ingest(topic: Topic, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestTier]:
    processes = Processes(tmp_path_factory.mktemp("ingest"))
    tier = start_ingest(processes, topic)
    try:
        tier.wait_ready()
        yield tier
    finally:
        processes.end_all()


def stored(topic: Topic, ids: list[str]) -> list[bytes | None]:
    """The values of the records with these ids, in their order. A record that lies there twice must be the same."""
    found: dict[str, set[bytes | None]] = {}
    for record in topic.records():
        found.setdefault(id_of(record), set()).add(record.value)
    assert all(len(found.get(item, ())) == 1 for item in ids)
    return [next(iter(found[item])) for item in ids]


def id_of(record: ConsumerRecord[bytes | None, bytes | None]) -> str:
    raw: bytes = dict(record.headers)["spillway-id"]
    return raw.decode()


def ids_of(key: str) -> list[str]:
    """The ids that the contract gives to the payloads of BODY under this key."""
    return [f"{key}-{index}-{hashlib.sha256(value).hexdigest()[:8]}" for index, value in enumerate(PAYLOADS)]


def test_a_real_ingest_takes_it(program: Program, ingest: IngestTier, topic: Topic) -> None:
    """Exit 0; the printed ids are those of records with exactly the payloads' bytes, and begin with the key."""
    ended = program.run(ingest.collections_url, BODY)
    assert ended.code == 0, ended
    ids = ids_in(ended.output)
    assert ids == ids_of(ids[0][:36])
    assert stored(topic, ids) == PAYLOADS


def test_an_answer_that_is_lost_makes_no_second_payload(program: Program, ingest: IngestTier, topic: Topic) -> None:
    """The first try was written and its answer never came: the second gives the ids of the records that are there."""
    with ScriptedIngest([Lost.WRITTEN], upstream=ingest.collections_url) as between:
        ended = program.run(between.url, BODY)
    assert ended.code == 0, ended
    key = assert_one_request_repeated(between, 2)
    assert ids_in(ended.output) == ids_of(key)
    assert stored(topic, ids_of(key)) == PAYLOADS
    under_the_key = Counter(item for item in map(id_of, topic.records()) if item.startswith(key))
    assert under_the_key == dict.fromkeys(ids_of(key), 2)


def test_a_real_ingest_refuses_it(program: Program, ingest: IngestTier) -> None:
    """A real problem document is understood: its code and detail are shown, with the outcome."""
    ended = program.run(ingest.collections_url, b'{"version":"1","data":[]}')
    assert (ended.code, ended.output) == (1, "")
    assert "empty_data" in ended.errors
    assert "no_problem_document" not in ended.errors
