"""One contract, every store: each S3 client over moto and over the fake that the fault tests break, and the fake that
unit tests use. What a test above a store relies on is what the real one does, or it is not here.
"""

import asyncio

import pytest

from services.uploader.errors import ClientSetupError, ConfigurationError, PoisonRecord, TransientError
from services.uploader.store import clients, renewing
from tests.fakes.script import (
    ACCESS_DENIED,
    EXPIRED_TOKEN,
    INTERNAL_ERROR,
    NO_ETAG,
    NO_SUCH_BUCKET,
    SLOW_DOWN,
    WRONG_ETAG,
    Answer,
    Cut,
    Dribble,
    wrong_region,
)
from tests.harness.store_stands import BREAKABLE, STANDS, OpenStand, make_stand

ODD_KEYS = [
    "payloads/shard=a/dt=2026-01-02/hour=03/0198c0de-0000-7000-8000-000000000000-0",
    "a",
    "a.b_c-d=e/f..g/-",
    "with space/and+plus/(parens)/'quote'/!*",
    "x" * 1024,
]


@pytest.fixture(params=STANDS)
def open_stand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OpenStand:
    """Each store with its server."""
    return make_stand(request, monkeypatch, request.param)


@pytest.fixture(params=BREAKABLE)
def open_breakable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OpenStand:
    """Each store whose server breaks by script."""
    return make_stand(request, monkeypatch, request.param)


@pytest.mark.parametrize("body", [b"", b"\x00\xff\r\n", b'{"n":1e400}', bytes(range(256)) * 4096], ids=len)
async def test_bytes_metadata_and_type_are_kept(open_stand: OpenStand, body: bytes) -> None:
    """An object is exactly the bytes put, with the metadata put, as octets."""
    metadata = {"spillway-id": "an-id-0", "topic": "payloads", "partition": "3", "offset": "42"}
    async with open_stand() as stand:
        await stand.store.put("folder/key", body, metadata)
        found = stand.stored("folder/key")[-1]
    assert found.body == body
    assert found.metadata == metadata
    assert found.content_type == "application/octet-stream"


@pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: key[:20])
async def test_a_key_is_taken_as_it_is(open_stand: OpenStand, key: str) -> None:
    """No client normalises, escapes twice or cuts a key."""
    async with open_stand() as stand:
        await stand.store.put(key, b"at " + key.encode(), {})
        assert stand.stored(key)[-1].body == b"at " + key.encode()


async def test_the_same_body_again_is_harmless(open_stand: OpenStand) -> None:
    """A redelivery overwrites a key with itself."""
    async with open_stand() as stand:
        for offset in ("1", "2"):
            await stand.store.put("key", b"same", {"offset": offset})
        assert {version.body for version in stand.stored("key")} == {b"same"}
        assert stand.stored("key")[-1].metadata == {"offset": "2"}


async def test_many_puts_at_once_do_not_mix(open_stand: OpenStand) -> None:
    """One store serves all partitions of a process."""
    keys = [f"many/{number}" for number in range(64)]
    async with open_stand() as stand:
        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(stand.store.put(key, key.encode() * 100, {"spillway-id": key}))
        assert all(stand.stored(key)[-1].body == key.encode() * 100 for key in keys)
        assert all(stand.stored(key)[-1].metadata == {"spillway-id": key} for key in keys)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (SLOW_DOWN, "slow_down"),
        (INTERNAL_ERROR, None),
        (Answer(502, "BadGateway"), None),
        (Answer(503, "ServiceUnavailable"), None),
        (Answer(409, "OperationAborted"), None),
        (Answer(400, "SomethingNobodyHasHeardOf"), "something_nobody_has_heard_of"),
        (Answer(400, "BadDigest"), "bad_digest"),
        (Answer(200, "InternalError"), "server_error"),
    ],
    ids=str,
)
async def test_what_passes_by_itself_is_transient(
    open_breakable: OpenStand, answer: Answer, reason: str | None
) -> None:
    """Shed load, server errors and anything unknown are tried again, but never inside the store: a put is a request."""
    async with open_breakable() as stand:
        struck = stand.faults.inject(answer)
        with pytest.raises(TransientError) as caught:
            await stand.store.put("key", b"body", {})
        assert reason is None or caught.value.reason == reason
        assert struck.hits == 1
        assert stand.stored("key") == []
        struck.heal()
        await stand.store.put("key", b"body", {})
        assert stand.stored("key")[-1].body == b"body"


@pytest.mark.parametrize(
    "answer",
    [
        ACCESS_DENIED,
        NO_SUCH_BUCKET,
        EXPIRED_TOKEN,
        Answer(403, "SignatureDoesNotMatch"),
        Answer(403, "RequestTimeTooSkewed"),
        Answer(400, "KMS.DisabledException"),
        Answer(400, "AccessControlListNotSupported"),
    ],
    ids=str,
)
async def test_what_a_person_must_mend_is_a_configuration_error(open_breakable: OpenStand, answer: Answer) -> None:
    """Permissions and buckets are told apart from weather: readiness must say why, and no record may be blamed."""
    async with open_breakable() as stand:
        struck = stand.faults.inject(answer)
        with pytest.raises(ConfigurationError) as caught:
            await stand.store.put("key", b"body", {})
        assert caught.value.reason
        assert struck.hits == 1


@pytest.mark.parametrize("cut", [Cut.RESET, Cut.STORE_THEN_DROP, Cut.TRUNCATE])
async def test_a_lost_connection_is_transient(open_breakable: OpenStand, cut: Cut) -> None:
    """Whether the object was kept is unknown, so the same put is due again, and does no harm.

    aiohttp itself tries an idempotent request once more on a fresh connection, because a kept one may have been closed
    while idle (its `retry_persistent_connection`; no public switch). Twice is thus the most that one put may ask.
    """
    async with open_breakable() as stand:
        struck = stand.faults.inject(cut)
        with pytest.raises(TransientError):
            await stand.store.put("key", b"body", {})
        assert struck.hits <= 2
        assert len(stand.stored("key")) == (0 if cut is Cut.RESET else struck.hits)
        struck.heal()
        await stand.store.put("key", b"body", {})
        assert {version.body for version in stand.stored("key")} == {b"body"}


async def test_a_refused_connection_is_transient(open_breakable: OpenStand) -> None:
    """A server that is away comes back."""
    async with open_breakable() as stand:
        stand.refuse()
        with pytest.raises(TransientError):
            await stand.store.put("key", b"body", {})


async def test_silence_ends_as_a_transient_error(open_breakable: OpenStand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes a request and never answers holds a put for the read time-out, not for ever."""
    assert (clients.CONNECT_TIMEOUT_S, clients.READ_TIMEOUT_S) == (3, 10)  # DESIGN §5, both clients
    monkeypatch.setattr(clients, "READ_TIMEOUT_S", 0.5)
    async with open_breakable() as stand:
        stand.faults.inject(Cut.HANG)
        with pytest.raises(TransientError) as caught:
            await asyncio.wait_for(stand.store.put("key", b"body", {}), 5)
        assert caught.value.reason == "timeout"


async def test_a_cancelled_put_is_cancelled(open_breakable: OpenStand) -> None:
    """A revoke cancels puts; they end at once, as cancelled, and the store serves on."""
    async with open_breakable() as stand:
        hang = stand.faults.inject(Cut.HANG)
        put = asyncio.create_task(stand.store.put("key", b"body", {}))
        await asyncio.to_thread(hang.hit.wait, 5)
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        hang.heal()
        await stand.store.put("other", b"body", {})
        assert stand.stored("other")


@pytest.mark.parametrize("code", ["EntityTooLarge", "KeyTooLongError", "MetadataTooLarge"])
async def test_what_s3_can_never_take_is_poison(open_breakable: OpenStand, code: str) -> None:
    """The record is at fault, and no other is ever called so."""
    async with open_breakable() as stand:
        stand.faults.inject(Answer(400, code))
        with pytest.raises(PoisonRecord):
            await stand.store.put("key", b"body", {})


@pytest.mark.parametrize(
    "answer",
    [
        wrong_region("eu-north-1"),
        Answer(400, "AuthorizationHeaderMalformed", fields=(("Region", "eu-north-1"),)),
        Answer(307, "TemporaryRedirect", (("x-amz-bucket-region", "eu-north-1"), ("Location", "/bucket/elsewhere"))),
    ],
    ids=lambda answer: answer.code,
)
async def test_another_region_is_named_and_not_followed(open_breakable: OpenStand, answer: Answer) -> None:
    """A put is one request, to where the settings say: neither client nor HTTP library repeats it elsewhere."""
    async with open_breakable() as stand:
        struck = stand.faults.inject(answer, key=lambda key: key == "key")
        with pytest.raises(ClientSetupError, match="AWS_REGION=eu-north-1"):
            await stand.store.put("key", b"body", {})
        assert struck.hits == 1
        assert stand.stored("elsewhere") == []
        struck.heal()
        await stand.store.put("key", b"body", {})  # nothing was learned from it either
        assert stand.stored("key")


@pytest.mark.parametrize(("lie", "reason"), [(WRONG_ETAG, "checksum_mismatch"), (NO_ETAG, "unexpected_answer")])
async def test_an_answer_that_proves_nothing_is_no_success(open_breakable: OpenStand, lie: Answer, reason: str) -> None:
    """A success is counted only when S3 says that it keeps the bytes that were sent."""
    async with open_breakable() as stand:
        struck = stand.faults.inject(lie)
        with pytest.raises(TransientError, match="key") as caught:
            await stand.store.put("key", b"body", {})
        assert caught.value.reason == reason
        struck.heal()
        await stand.store.put("key", b"body", {})


async def test_an_answer_that_dribbles_is_ended(open_breakable: OpenStand, monkeypatch: pytest.MonkeyPatch) -> None:
    """No single read times out, and the put is over all the same: nothing holds a worker for ever."""
    monkeypatch.setattr(renewing, "PUT_DEADLINE_S", 0.5)
    async with open_breakable() as stand:
        stand.faults.inject(Dribble(0.2))
        with pytest.raises(TransientError) as caught:
            await asyncio.wait_for(stand.store.put("key", b"body", {}), 5)
        assert caught.value.reason == "timeout"


async def test_create_only_takes_the_same_bytes_again(open_stand: OpenStand) -> None:
    """A redelivery finds its own object and is stored; other metadata change nothing."""
    async with open_stand(create_only=True) as stand:
        for offset in ("1", "2"):
            await stand.store.put("key", b"same", {"offset": offset})
        assert [version.metadata for version in stand.stored("key")] == [{"offset": "1"}]


async def test_create_only_never_overwrites(open_stand: OpenStand) -> None:
    """Another body at a key, of the same size or another, is a conflict that no retry mends."""
    async with open_stand(create_only=True) as stand:
        await stand.store.put("key", b"first", {})
        for other in (b"other", b"longer than the first", b""):
            with pytest.raises(PoisonRecord) as caught:
                await stand.store.put("key", other, {})
            assert caught.value.reason == "conflict"
        assert [version.body for version in stand.stored("key")] == [b"first"]


async def test_create_only_meets_another_writer(open_breakable: OpenStand) -> None:
    """409: two writers at once; the same put is due again."""
    async with open_breakable(create_only=True) as stand:
        stand.faults.inject(Answer(409, "ConditionalRequestConflict"), times=1)
        with pytest.raises(TransientError):
            await stand.store.put("key", b"body", {})
        await stand.store.put("key", b"body", {})
        assert stand.stored("key")
