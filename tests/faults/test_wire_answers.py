"""Answers that no server should give, inside one process: each ends its put, none becomes the answer of another."""

import asyncio
import random
import resource

import pytest

from services.uploader.errors import ClientSetupError, ConfigurationError, StoreError, TransientError
from tests.fakes.s3_acts import Then, early, endless, says, stores, unanswered
from tests.fakes.s3_adversary import Act, Request, Wire, answer, document, proof_of, refusal, stored
from tests.harness.adverse import BODY, Adverse
from tests.harness.waiting import eventually

LARGE = bytes(8 * 1024 * 1024)  # more than the sockets between client and server hold
SENT_BYTES_MAX = 32 * 1024 * 1024
"""What a server may get rid of before the client has closed. The sockets' own buffers are the most of it."""

DENIED = refusal(403, "AccessDenied")
BUSY = refusal(503, "SlowDown")
GOOD = proof_of(BODY)
_CHUNKED = b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n"
_ETAG = GOOD.partition(b"ETag: ")[2].partition(b"\r\n")[0]


def chunks(body: bytes, size: int) -> list[bytes]:
    """A body in chunks of this size, each a piece of its own, and the end."""
    cut = [body[start : start + size] for start in range(0, len(body), size)]
    return [*(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in cut), b"0\r\n\r\n"]


NO_ANSWERS = {
    "garbage": says(b"\x00\xff\xfe garbage \r\n\r\n", then=Then.CLOSE),
    "garbage, and then silence": says(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", then=Then.SILENCE),
    "another protocol": says(b"SSH-2.0-OpenSSH_9.9\r\n", then=Then.SILENCE),
    "an empty answer": unanswered(Then.CLOSE),
    "half a status line": says(b"HTTP/1.", then=Then.CLOSE),
    "half a head": says(GOOD[:-20], then=Then.CLOSE),
    "a version of HTTP to come": says(b"HTTP/7.3 200 OK\r\nContent-Length: 0\r\n\r\n", then=Then.CLOSE),
    "a status that is no number": says(b"HTTP/1.1 OK 200\r\nContent-Length: 0\r\n\r\n", then=Then.CLOSE),
    "a negative length": says(GOOD.replace(b"Content-Length: 0", b"Content-Length: -1"), then=Then.CLOSE),
    "a length that is no number": says(GOOD.replace(b"Length: 0", b"Length: zero"), then=Then.CLOSE),
    "two lengths": says(GOOD.replace(b"\r\nETag", b"\r\nContent-Length: 7\r\nETag"), then=Then.CLOSE),
    "a length and chunks": says(
        GOOD.replace(b"\r\nETag", b"\r\nTransfer-Encoding: chunked\r\nETag"), b"0\r\n\r\n", then=Then.CLOSE
    ),
    "a chunk size that is none": says(
        GOOD.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"), b"xyz\r\n", then=Then.CLOSE
    ),
    "less than was said, and the end": says(
        GOOD.replace(b"Content-Length: 0", b"Content-Length: 10") + b"abc", then=Then.CLOSE
    ),
    "chunks without an end, and the end": says(
        GOOD.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"), b"3\r\nabc\r\n", then=Then.CLOSE
    ),
    "another protocol from now on": says(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", then=Then.CLOSE
    ),
}

REFUSALS: dict[str, tuple[Act, type[StoreError], str]] = {
    "in chunks": (says(_CHUNKED, *chunks(document("AccessDenied"), 7)), ClientSetupError, "access_denied"),
    "in one piece": (
        says(_CHUNKED + b"".join(chunks(document("AccessDenied"), 500))),
        ClientSetupError,
        "access_denied",
    ),
    "byte by byte": (
        says(*(bytes([byte]) for byte in refusal(400, "NoSuchBucket")), pause_s=0.0005),
        ConfigurationError,
        "no_such_bucket",
    ),
    "after a 100": (says(b"HTTP/1.1 100 Continue\r\n\r\n" + BUSY), TransientError, "slow_down"),
    "without a length": (
        says(b"HTTP/1.1 403 Forbidden\r\n\r\n" + document("AccessDenied"), then=Then.CLOSE),
        ClientSetupError,
        "access_denied",
    ),
    "without a document": (says(answer(403)), ClientSetupError, "http_403"),
    "a document that is none": (says(answer(403, b"<html>go away")), ClientSetupError, "http_403"),
    "a document in no known letters": (says(answer(503, bytes(range(256)))), TransientError, "slow_down"),
}

LAUGHS = (
    b"<?xml version='1.0'?><!DOCTYPE l [<!ENTITY a0 'ha'>"
    + b"".join(b"<!ENTITY a%d '%s'>" % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 12))
    + b"]><Error><Code>AccessDenied</Code><Message>&a11;</Message></Error>"
)

ENDLESS = {
    "1xx": endless(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "1xx with headers": endless(b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" * 100),
    "one header": endless(b"a" * 65536, first=b"HTTP/1.1 200 OK\r\nETag: "),
    "headers": endless(b"X-Header: a\r\n" * 1000, first=b"HTTP/1.1 200 OK\r\n"),
    "a status line": endless(b"a" * 65536, first=b"HTTP/1.1 200 "),
    "empty lines": endless(b"\r\n" * 1000),
    "an error's text": endless(b"a" * 65536, first=b"HTTP/1.1 403 Forbidden\r\n\r\n<Error><Code>AccessDenied</Code>"),
    "an error of a terabyte": endless(b"a" * 65536, first=b"HTTP/1.1 403 No\r\nContent-Length: 1099511627776\r\n\r\n"),
    "chunks of an error": endless(b"1000\r\n" + b"a" * 4096 + b"\r\n", first=_CHUNKED),
    "a chunk's extension": endless(b"a" * 65536, first=_CHUNKED + b"5;"),
    "trailers": endless(b"X-Trailer: a\r\n" * 1000, first=_CHUNKED + b"0\r\n"),
    "a success's text": endless(b"a" * 65536, first=b"HTTP/1.1 200 OK\r\nETag: " + _ETAG + b"\r\n\r\n"),
    "a success in chunks": endless(
        b"1000\r\n" + b"a" * 4096 + b"\r\n",
        first=b"HTTP/1.1 200 OK\r\nETag: " + _ETAG + b"\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
}

SILENT = {
    "a head without its end": says(GOOD[:-2], then=Then.SILENCE),
    "more was said to come": says(GOOD.replace(b"Content-Length: 0", b"Content-Length: 9") + b"abc", then=Then.SILENCE),
    "an error's chunks without end": says(_CHUNKED, b"5\r\n<Erro", then=Then.SILENCE),
    "an error's text without end": says(DENIED[:-9], then=Then.SILENCE),
}


@pytest.mark.parametrize("wrong", NO_ANSWERS)
async def test_what_is_no_answer_is_transient(wire: Adverse, wrong: str) -> None:
    """Neither stored nor anybody's fault, told at once; the next put has a connection of its own."""
    async with wire.open() as store:
        error = await wire.fails(store, NO_ANSWERS[wrong])
        assert type(error) is TransientError
        assert error.reason in {"connection", "unexpected_answer"}
        assert wire.server.keys.count("unlucky") == 1


@pytest.mark.parametrize("form", REFUSALS)
async def test_a_refusal_is_read_in_any_form(adverse: Adverse, form: str) -> None:
    """However it is cut, an error is what S3 says that it is."""
    act, kind, reason = REFUSALS[form]
    async with adverse.open() as store:
        error = await adverse.fails(store, act)
        assert (type(error), error.reason) == (kind, reason)


async def test_an_errors_entities_are_not_expanded(adverse: Adverse) -> None:
    """A document that grows to 200 GB where its entities are expanded ends as an error of its status."""
    async with adverse.open() as store:
        error = await adverse.fails(store, says(answer(403, LAUGHS)))
        assert type(error) is ClientSetupError
        assert len(str(error)) < 3000


@pytest.mark.parametrize("what", ENDLESS)
async def test_an_answer_without_end_is_bounded(wire: Adverse, what: str) -> None:
    """Whatever has no end is cut off in bytes, not only in time, and is no success."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with wire.open() as store:
        await wire.fails(store, ENDLESS[what])
    assert wire.server.sent_bytes < SENT_BYTES_MAX
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024


@pytest.mark.parametrize("what", SILENT)
async def test_an_answer_that_stops_is_ended(adverse: Adverse, what: str) -> None:
    """Silence in the middle of an answer is ended by the client's own deadline, and is no success."""
    adverse.read_timeout(0.5)
    async with adverse.open() as store:
        error = await adverse.fails(store, SILENT[what])
        assert error.reason == "timeout"


async def test_silence_after_an_interim_answer_is_ended(wire: Adverse) -> None:
    """A 100 starts no wait without a deadline: aiohttp's is then the last one, of the whole put."""
    wire.read_timeout(0.5)
    async with wire.open() as store:
        error = await wire.fails(store, says(b"HTTP/1.1 100 Continue\r\n\r\n", then=Then.SILENCE))
        assert error.reason == "timeout"


@pytest.mark.parametrize("every_s", [0.05, 0.2])
async def test_slow_interim_answers_are_no_progress(
    wire: Adverse, every_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 1xx now and then never lets a read time out; the put is ended all the same."""
    monkeypatch.setattr("services.uploader.store.renewing.PUT_DEADLINE_S", 2.0)
    async with wire.open() as store:
        error = await wire.fails(store, endless(b"HTTP/1.1 102 Processing\r\n\r\n", every_s=every_s))
        assert type(error) is TransientError


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
async def test_interim_answers_are_skipped(adverse: Adverse, status: bytes, apart: bool) -> None:
    """A 1xx is not the answer, whether it comes with it or before; the connection is used on."""
    interim = b"HTTP/1.1 " + status + b"\r\nLink: </a>\r\n\r\n"
    adverse.server.then(*[stores(before=interim * 3, apart=apart)] * 3)
    async with adverse.open() as store:
        for number in range(4):
            await adverse.put(store, f"key-{number}")
    assert sum(adverse.server.accepted.values()) == 1


@pytest.mark.parametrize("then", [Then.CLOSE, Then.RESET, Then.SILENCE])
@pytest.mark.parametrize(
    ("said", "kind", "reason"), [(DENIED, ClientSetupError, "access_denied"), (BUSY, TransientError, "slow_down")]
)
async def test_an_answer_before_the_body_is_read(
    wire: Adverse, said: bytes, kind: type[StoreError], reason: str, then: Then
) -> None:
    """S3 sheds load and refuses by the head alone: its word counts, though the body can never be written.

    With a reset the answer may be gone with the connection: then it is one that was lost.
    """
    async with wire.open() as store:
        error = await wire.fails(store, early(said, then), body=LARGE)
        if then is not Then.RESET or type(error) is kind:
            assert (type(error), error.reason) == (kind, reason)
        else:
            assert (type(error), error.reason) == (TransientError, "connection")
        assert wire.server.keys.count("unlucky") == 1


@pytest.mark.parametrize("then", [Then.CLOSE, Then.SILENCE])
async def test_a_success_before_the_body_is_read_is_none(wire: Adverse, then: Then) -> None:
    """Nobody can keep bytes that have not been sent, whatever ETag is said."""
    async with wire.open() as store:
        error = await wire.fails(store, early(proof_of(LARGE), then), body=LARGE)
        assert type(error) is TransientError


@pytest.mark.parametrize("second", [GOOD, DENIED, BUSY, b"H", b"x", GOOD * 1000], ids=lambda second: str(second[:15]))
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
async def test_a_second_answer_is_nobodys(wire: Adverse, second: bytes, apart: bool) -> None:
    """What comes unasked ends the connection. The next put is of the same bytes: the second answer would prove it."""
    async with wire.open() as store:
        for number in range(3):
            # Whoever takes the second answer for its own is caught by `put`: nothing is stored on this connection.
            wire.server.then(stores(after=second, apart=apart))
            await wire.put(store, f"key-{number}")
            if apart:  # before the next request is there: in the same moment it could be that one's, to anybody's eyes
                await eventually(lambda: not wire.server.alive, "the connection to be closed", deadline_s=5)
            await wire.serves(store, f"next-{number}")
        assert sum(wire.server.accepted.values()) >= 4


async def test_a_late_second_answer_proves_nothing(wire: Adverse) -> None:
    """It comes as the next put is under way, and says that other bytes are kept."""
    async with wire.open() as store:
        for number in range(20):
            wire.server.then(stores(after=GOOD, apart=True))
            await wire.put(store, f"key-{number}")
            await wire.stored_at_last(store, f"next-{number}", b"other bytes")


async def test_answers_to_each_others_requests(adverse: Adverse) -> None:
    """Two puts of different bytes, each given the other's answer: neither is stored, and neither is believed."""
    swapped: dict[str, bytes] = {}
    both = asyncio.Barrier(2)

    async def swap(wire: Wire, request: Request) -> None:
        swapped[request.key] = proof_of(await wire.body())
        await both.wait()
        await wire.send(swapped["b" if request.key == "a" else "a"])

    adverse.server.then(swap, swap)
    async with adverse.open() as store:
        puts = [adverse.put(store, key, key.encode()) for key in ("a", "b")]
        errors = await asyncio.gather(*puts, return_exceptions=True)
        assert [getattr(error, "reason", error) for error in errors] == ["checksum_mismatch"] * 2
        await adverse.serves(store)


async def test_a_success_may_come_in_chunks(adverse: Adverse) -> None:
    """An empty body in chunks is read to its end, and the connection is used on."""

    async def act(wire: Wire, request: Request) -> None:
        right = await wire.store(request)
        await wire.send(right.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + b"0\r\n\r\n")

    adverse.server.then(act)
    async with adverse.open() as store:
        await adverse.put(store, "key")
        await adverse.serves(store)
    assert sum(adverse.server.accepted.values()) == 1


@pytest.mark.parametrize("same", [True, False], ids=["same bytes", "other bytes"])
@pytest.mark.parametrize("seed", range(2))
async def test_success_is_never_called_wrongly(wire: Adverse, seed: int, same: bool) -> None:
    """Whatever is answered, in any order, to many puts at once: what is called stored is stored.

    Where all puts are of the same bytes, an answer in the wrong place would prove any of them: only the server's shelf
    tells. A server that lies of these bytes, or in the moment of the next put, can then be told by nobody.
    """
    drawn = random.Random(seed)  # noqa: S311 - no secret
    wrong: list[Act] = [
        *(act for name, act in NO_ANSWERS.items() if "silence" not in name and "protocol" not in name),
        *(act for act, _, _ in REFUSALS.values()),
        *(stores(after=second) for second in (GOOD, BUSY, b"x")),
        *(unanswered(then, read=read) for then in (Then.CLOSE, Then.CUT, Then.RESET) for read in (False, True)),
        early(DENIED),
    ]
    if not same:
        wrong += [early(GOOD), early(GOOD, Then.CLOSE), *(stores(after=second, apart=True) for second in (GOOD, b"x"))]
    wire.server.then(*drawn.choices([stored, *wrong], weights=[len(wrong), *[1] * len(wrong)], k=400))

    async def put(number: int) -> None:
        await wire.stored_at_last(store, f"key-{number}", BODY if same else f"body-{number}".encode())

    async with wire.open(connections_max=16) as store, asyncio.TaskGroup() as group:
        for number in range(150):
            group.create_task(put(number))
    assert len(wire.server.shelf.versions()) == 150
