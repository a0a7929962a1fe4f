"""A store that outlives its clients, over clients of the test's own: none leaks, none holds a worker for ever."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
from prometheus_client import CollectorRegistry

from services.uploader.errors import ClientSetupError, ConfigurationError, StoreError, TransientError
from services.uploader.store import renewal, renewing
from services.uploader.store.renewal import REFUSED_IN_A_ROW
from services.uploader.store.renewing import RenewingStore
from shared.telemetry import UploaderMetrics

EXPIRED = ClientSetupError("expired_token", "refused")


class Client:
    """A store that stores, unless told to refuse or to hang."""

    def __init__(self) -> None:
        self.error: StoreError | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.stored: list[str] = []
        self.under_way = 0
        self.closed = 0

    async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        del body, metadata
        self.under_way += 1
        try:
            await self.go_on.wait()
            if self.error is not None:
                raise self.error
            self.stored.append(key)
        finally:
            self.under_way -= 1


class Clients:
    """Makes them, as many as are asked for, and sees that each is closed once."""

    def __init__(self) -> None:
        self.made: list[Client] = []
        self.asked = 0
        self.prepare = 0  # how many of the next ones refuse
        self.error: Exception | None = None  # raised instead of making one
        self.hang_on_open = False
        self.hang_on_close = False
        self.registry = CollectorRegistry()
        self.restarts = UploaderMetrics(self.registry).store_restarts

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Client]:
        self.asked += 1
        if self.hang_on_open:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        client = Client()
        if self.prepare > 0:
            self.prepare -= 1
            client.error = EXPIRED
        self.made.append(client)
        try:
            yield client
        finally:
            client.closed += 1
            if self.hang_on_close:
                await asyncio.Event().wait()

    def store(self) -> contextlib.AbstractAsyncContextManager[RenewingStore]:
        return renewing.renewing(self.open, self.restarts)

    def counted(self, reason: str) -> float:
        return self.registry.get_sample_value("spillway_uploader_store_restarts_total", {"reason": reason}) or 0


async def until_true(question: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while True:
            if question():
                return
            await asyncio.sleep(0)


async def refused(store: RenewingStore, times: int = REFUSED_IN_A_ROW) -> None:
    for _ in range(times):
        with pytest.raises(ConfigurationError):
            await store.put("key", b"", {})


async def test_a_refused_client_is_replaced_and_closed() -> None:
    """The next put goes to a new client; the old one is closed once, the new one at the end."""
    clients = Clients()
    clients.prepare = 1
    async with clients.store() as store:
        await refused(store)
        await until_true(lambda: len(clients.made) == 2)
        await store.put("key", b"", {})
        await until_true(lambda: clients.made[0].closed)
        assert [client.closed for client in clients.made] == [1, 0]
        assert clients.made[1].stored == ["key"]
    assert [client.closed for client in clients.made] == [1, 1]
    assert clients.counted("expired_token") == 1


async def test_a_replaced_client_is_closed_after_its_last_put() -> None:
    """What is on the wire when a client is replaced comes to its own end."""
    clients = Clients()
    async with clients.store() as store:
        old = clients.made[0]
        old.go_on.clear()
        slow = asyncio.create_task(store.put("slow", b"", {}))
        await until_true(lambda: old.under_way)
        await store.open()
        for _ in range(20):  # turns of the loop in which a hasty end would have closed it
            await asyncio.sleep(0)
        await store.put("fast", b"", {})
        assert (old.closed, clients.made[1].stored) == (0, ["fast"])
        old.go_on.set()
        await slow
        assert old.stored == ["slow"]
        await until_true(lambda: old.closed)


async def test_many_refusals_at_once_make_one_client() -> None:
    """A hundred workers with an expired token ask for credentials once."""
    clients = Clients()
    clients.prepare = 1
    async with clients.store() as store:
        results = await asyncio.gather(*(store.put("key", b"", {}) for _ in range(100)), return_exceptions=True)
        assert all(isinstance(result, ClientSetupError) for result in results)
        await until_true(lambda: clients.made[0].closed)
        await store.put("key", b"", {})
    assert len(clients.made) == 2


async def test_one_client_is_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A metadata service that is slower than the distance between renewals is not asked by a crowd."""
    monkeypatch.setattr(renewal, "RENEW_EVERY_S", 0)
    clients = Clients()
    async with clients.store() as store:
        clients.made[0].error = EXPIRED
        clients.hang_on_open = True
        for _ in range(10):
            await refused(store)
            await asyncio.sleep(0)
        assert clients.asked == 2  # the first client, and one renewal


async def test_a_late_refusal_of_the_old_client_is_not_held_against_the_new() -> None:
    """Puts that were on the wire with the old token come back refused, and cost no second client."""
    clients = Clients()
    async with clients.store() as store:
        old = clients.made[0]
        old.go_on.clear()
        old.error = EXPIRED
        late = [asyncio.create_task(store.put("late", b"", {})) for _ in range(10)]
        await until_true(lambda: old.under_way == 10)
        await store.open()
        old.go_on.set()
        assert all(
            isinstance(result, ClientSetupError) for result in await asyncio.gather(*late, return_exceptions=True)
        )
        await until_true(lambda: old.closed)
        assert len(clients.made) == 2


async def test_a_wedged_client_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client past all its own deadlines holds no worker for ever: three such puts, and there is another client."""
    monkeypatch.setattr(renewing, "PUT_DEADLINE_S", 0.02)
    clients = Clients()
    async with clients.store() as store:
        clients.made[0].go_on.clear()
        for _ in range(3):
            with pytest.raises(TransientError) as caught:
                await asyncio.wait_for(store.put("key", b"", {}), 5)
            assert caught.value.reason == "timeout"
        await until_true(lambda: len(clients.made) == 2)
        await store.put("key", b"", {})
        await until_true(lambda: clients.made[0].closed)
    assert clients.counted("wedged") == 1


@pytest.mark.parametrize("error", [EXPIRED, ConfigurationError("client", "no"), RuntimeError("a bug")], ids=repr)
async def test_a_client_that_cannot_be_made_leaves_the_old_one(error: Exception) -> None:
    """A renewal in vain changes nothing, and is not the last one."""
    clients = Clients()
    async with clients.store() as store:
        clients.error = error
        clients.made[0].error = EXPIRED
        await refused(store)
        await until_true(lambda: not store._tasks)
        clients.made[0].error = None
        await store.put("key", b"", {})
        assert clients.made[0].stored == ["key"]
        assert clients.counted("expired_token") == 0


async def test_a_start_without_credentials_goes_on() -> None:
    """The first client may come later: until then each put says why there is none."""
    clients = Clients()
    clients.error = ClientSetupError("credentials", "the agent is away")
    async with clients.store() as store:
        with pytest.raises(ClientSetupError, match="the agent is away"):
            await store.put("key", b"", {})
        clients.error = None
        await refused(store, 2)
        await until_true(lambda: clients.made)
        await store.put("key", b"", {})


async def test_settings_that_make_no_client_stop_the_start() -> None:
    """Waiting mends no typing error: the error comes as it is, not wrapped."""
    clients = Clients()
    clients.error = ConfigurationError("client", "no such profile")
    with pytest.raises(ConfigurationError, match="no such profile"):
        async with clients.store():
            pass


async def test_a_cancelled_put_lets_its_client_go() -> None:
    """A revoke cancels puts; their client is closed all the same."""
    clients = Clients()
    async with clients.store() as store:
        old = clients.made[0]
        old.go_on.clear()
        put = asyncio.create_task(store.put("key", b"", {}))
        await until_true(lambda: old.under_way)
        await store.open()
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        await until_true(lambda: old.closed)


async def test_the_end_closes_all_whatever_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that never opens and one that never closes do not hold the process."""
    monkeypatch.setattr(renewing, "CLOSE_TIMEOUT_S", 0.02)
    clients = Clients()
    async with asyncio.timeout(5):
        async with clients.store() as store:
            clients.made[0].error = EXPIRED
            clients.hang_on_open = clients.hang_on_close = True
            await refused(store)
    assert clients.made[0].closed == 1


async def test_what_is_raised_inside_comes_out_as_it_is() -> None:
    """The store's own tasks wrap nobody's error."""
    clients = Clients()
    with pytest.raises(LookupError):
        async with clients.store():
            raise LookupError
    assert clients.made[0].closed == 1
