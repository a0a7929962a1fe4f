"""Bodies on their way in, over real sockets: compressed, too large, too slow, too many, and never at others' cost."""

import asyncio
import gzip
import hashlib
import json
import random
from collections.abc import Callable

import pytest

from services.ingest.batching import Submission
from services.ingest.body import SLOW_AFTER_S
from services.ingest.decompression import zstd
from services.ingest.problems import Problem
from services.ingest.tokens import Tokens
from tests.harness.front import Front, front
from tests.harness.raw_http import RawClient, post
from tests.harness.waiting import eventually

pytestmark = pytest.mark.usefixtures("loop_factory")

BODY = b'{"version":"1","data":[{"a":1},"x"]}'
MAX_BODY = 1024 * 1024
SMALL = {"max_body_bytes": MAX_BODY, "max_in_flight_bytes": 4 * MAX_BODY}
PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}


def packed(coding: str, body: bytes) -> bytes:
    return post(PACK[coding](body), f"Content-Encoding: {coding}")


def large(size: int) -> bytes:
    return b'{"version":"1","data":["' + b"x" * (size - 27) + b'"]}'


@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize("body", [BODY, large(MAX_BODY)], ids=["small", "at the limit"])
async def test_compressed_bodies_are_taken_byte_for_byte(coding: str, body: bytes) -> None:
    """What was compressed is what is submitted; afterwards nothing is reserved."""
    async with front(SMALL) as served, await served.connect() as client:
        assert (await client.ask(packed(coding, body))).status == 200
        assert (await client.ask(post(body))).status == 200
        assert served.submitted[0].values == served.submitted[1].values
        assert served.admission.in_flight_bytes == 0


@pytest.mark.parametrize("coding", PACK)
async def test_what_was_compressed_is_not_paid_for_twice(coding: str) -> None:
    """Once it is decompressed the body as sent is gone, and only what waits for its ack counts."""
    held: list[Submission] = []

    def hold(submission: Submission) -> Problem | None:
        held.append(submission)
        return None

    noise = b'{"version":"1","data":["' + random.Random(7).randbytes(200_000).hex().encode() + b'"]}'  # noqa: S311 - no secret
    async with front(SMALL, submit=hold) as served, await served.connect() as client:
        await client.send(packed(coding, noise))
        await eventually(lambda: held, "the submission")
        assert served.admission.in_flight_bytes == held[0].left_bytes
        held[0].settle(None)
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("coding", PACK)
async def test_a_bomb_stops_at_the_limit(coding: str) -> None:
    """A gigabyte in a small body: 413 at MAX_BODY_BYTES, and the connection goes on."""
    bomb = packed(coding, b'{"version":"1","data":["' + bytes(64 * MAX_BODY))
    async with front(SMALL) as served, await served.connect() as client:
        answer = await client.ask(bomb)
        assert (answer.status, answer.code) == (413, "decoded_body_too_large")
        assert "MAX_BODY_BYTES" in answer.document["detail"]
        assert (await client.ask(post(BODY))).status == 200
        assert served.admission.in_flight_bytes == 0


@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize("spoil", [lambda b: b[:-3], lambda b: b + b"x", lambda _: b"", lambda _: BODY])
async def test_a_broken_compression_is_a_400(coding: str, spoil: Callable[[bytes], bytes]) -> None:
    """Cut short, followed by something, empty, or not compressed at all."""
    async with front(SMALL) as served, await served.connect() as client:
        answer = await client.ask(post(spoil(PACK[coding](BODY)), f"Content-Encoding: {coding}"))
        assert (answer.status, answer.code) == (400, "invalid_encoding")
    assert served.submitted == []


async def test_a_compressed_body_over_the_wire_limit_is_not_read() -> None:
    """The limit holds for what is sent, too."""
    async with front(SMALL) as served, await served.connect() as client:
        answer = await client.ask(post(b"", "Content-Encoding: gzip", length=MAX_BODY + 1))
        assert (answer.status, answer.code) == (413, "body_too_large")


async def test_many_payloads_of_a_byte_cost_what_they_take_in_memory() -> None:
    """A payload of one byte is a record of three hundred: that is what its body reserves."""
    many = b'{"version":"1","data":[' + b",".join([b"1"] * 9000) + b"]}"
    held: list[Submission] = []

    def hold(submission: Submission) -> Problem | None:
        held.append(submission)
        return None

    async with front(SMALL, submit=hold) as served:
        async with await served.connect() as one, await served.connect() as two:
            await one.send(post(many))
            await eventually(lambda: held, "the first")
            assert served.admission.in_flight_bytes > 9000 * 200
            answer = await two.ask(post(many))
            assert (answer.status, answer.code) == (503, "overloaded")
            held[0].settle(None)
            assert (await one.answer()).status == 200
        assert served.admission.in_flight_bytes == 0


async def stall(served: Front, sent: int) -> RawClient:
    """A client that announces the largest body, sends so much of it, and stays."""
    client = await served.connect()
    await client.send(post(b"x" * sent, length=MAX_BODY))
    return client


async def test_announcements_hold_nothing() -> None:
    """Fifty clients that announce the largest body and send a byte: others have all the room."""
    async with front(SMALL) as served:
        for _ in range(50):
            await stall(served, 1)
        await eventually(lambda: served.admission.in_flight_bytes == 50, "a byte of each")
        async with await served.connect() as good:
            assert (await good.ask(post(large(MAX_BODY)))).status == 200


async def test_slow_bodies_give_way_when_there_is_no_room() -> None:
    """Four clients fill the budget and stall: whoever comes after SLOW_AFTER_S gets the room of the oldest of them."""
    async with front(SMALL) as served:
        stalled = [await stall(served, MAX_BODY - 1) for _ in range(4)]
        await eventually(lambda: served.admission.in_flight_bytes == 4 * (MAX_BODY - 1), "a full house")
        asked_at = asyncio.get_running_loop().time()
        answer = await (await served.connect()).ask(post(BODY))
        assert (answer.status, answer.code) == (503, "overloaded")
        while answer.status == 503:
            assert asyncio.get_running_loop().time() - asked_at < 10 * SLOW_AFTER_S
            answer = await (await served.connect()).ask(post(BODY))
        assert answer.status == 200
        waiting = [asyncio.create_task(client.answer()) for client in stalled]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        sent_away = done.pop().result()
        for task in waiting:
            task.cancel()
        assert (sent_away.status, sent_away.code) == (408, "body_timeout")
        assert sent_away.document["outcome"] == "not_written"


async def test_a_body_has_a_deadline() -> None:
    """A body that drips is a 408 at BODY_DEADLINE_S, and the connection ends."""
    async with front({**SMALL, "body_deadline_s": 0.5}) as served, await served.connect() as client:
        await client.send(post(BODY[:5], length=len(BODY)))
        for byte in BODY[5:9]:
            await client.send(bytes([byte]))
            await asyncio.sleep(0.02)  # the pace of the client
        answer = await client.answer()
        assert (answer.status, answer.code) == (408, "body_timeout")
        assert await client.ended() == b""
        assert served.admission.in_flight_bytes == 0


async def test_an_answered_client_cannot_stay_by_dripping() -> None:
    """After a refusal that left the body unread the connection ends within a few seconds, whatever still comes."""
    async with front(SMALL) as served, await served.connect() as client:
        await client.send(post(b"x", "Content-Type: text/plain", length=MAX_BODY))
        assert (await client.answer()).status == 415

        async def drip() -> None:
            while True:
                await client.send(b"x")
                await asyncio.sleep(0.05)  # the pace of the client

        dripping = asyncio.create_task(drip())
        assert await client.ended() == b""
        dripping.cancel()
        await asyncio.wait({dripping})


async def test_an_early_refusal_reaches_a_client_that_is_still_sending() -> None:
    """A client that sends all of its body before it listens hears its 415 and is not reset."""
    body = b"x" * (8 * MAX_BODY)
    async with front({"max_body_bytes": 16 * MAX_BODY}) as served, await served.connect() as client:
        await client.send(post(body, "Content-Type: text/plain"))
        answer = await client.answer()
        assert (answer.status, answer.code) == (415, "unsupported_media_type")
        assert await client.ended() == b""


async def test_one_tokens_flood_leaves_room_for_others() -> None:
    """A token that floods is refused at its share, in the head of its request; another's collections still get in."""
    entries = [{"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()} for name in ("flood", "other")]
    tokens = Tokens.parse(json.dumps(entries).encode())
    held: list[Submission] = []

    def hold(submission: Submission) -> Problem | None:
        held.append(submission)
        return None

    def ask(name: str) -> bytes:
        return post(large(MAX_BODY // 8), f"Authorization: Bearer {name}")

    async with front(SMALL, submit=hold, tokens=lambda: tokens) as served:
        clients = [await served.connect() for _ in range(40)]
        answers = [asyncio.create_task(client.ask(ask("flood"))) for client in clients]
        await eventually(lambda: sum(task.done() for task in answers) + len(held) == 40, "all to be in or refused")
        refused = [task.result() for task in answers if task.done()]
        assert {(answer.status, answer.code) for answer in refused} == {(503, "overloaded")}
        assert len(held) == 28  # eight ninths of 32 eighths of the largest body
        other = asyncio.create_task((await served.connect()).ask(ask("other")))
        await eventually(lambda: len(held) == 29, "the other's collection")
        for submission in held:
            submission.settle(None)
        assert (await other).status == 200
        assert {(await task).status for task in answers} == {200, 503}
        assert served.admission.in_flight_bytes == 0


async def test_a_token_pays_for_bodies_that_make_no_sense() -> None:
    """What cannot be parsed costs its sender's quota: else a quota would bound no work."""
    entry = {"name": "a", "sha256": hashlib.sha256(b"a").hexdigest(), "requests_per_s": 0.1}
    tokens = Tokens.parse(json.dumps([entry]).encode())
    settings = {**SMALL, "token_burst_s": 10}
    async with front(settings, tokens=lambda: tokens) as served, await served.connect() as client:
        assert (await client.ask(post(b"[" * 1000, "Authorization: Bearer a"))).status == 400
        answer = await client.ask(post(BODY, "Authorization: Bearer a"))
        assert (answer.status, answer.code) == (429, "quota_spent")
        assert 1 <= int(answer.headers["retry-after"]) <= 10


async def test_slow_bodies_give_way_whoever_stands_before_them() -> None:
    """Those that are not slow do not shield those that are: of these the one that holds most goes."""
    async with front({**SMALL, "max_in_flight_bytes": 7_000_000}) as served:
        steady = [await stall(served, 200_000) for _ in range(12)]
        stalled = [await stall(served, 250_000 + 150_000 * number) for number in range(5)]
        asked_at = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < asked_at + SLOW_AFTER_S + 0.5:
            for client in steady:
                await client.send(b"x" * 2000)
            await asyncio.sleep(0.05)  # the pace of the clients
        while (await (await served.connect()).ask(post(large(MAX_BODY)))).status == 503:
            assert asyncio.get_running_loop().time() < asked_at + 10 * SLOW_AFTER_S
        assert (await stalled[-1].answer()).code == "body_timeout"
        assert served.metric("spillway_ingest_requests_total", status="408", code="body_timeout") == 1
