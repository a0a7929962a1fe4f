"""A store that outlives its clients: bounds every put, and replaces a client that is out of date or wedged.

Owns the lifetime of the clients: one is current, others may be ending (closed when their last put is). How a put ended
is told to `renewal`, which decides; nothing is retried here.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from prometheus_client import Counter

from services.uploader.errors import ClientSetupError, ConfigurationError, StoreError, TransientError
from services.uploader.store import Store
from services.uploader.store.renewal import Renew, Renewal

log = logging.getLogger(__name__)

PUT_DEADLINE_S = 20.0
"""Seconds after which a put is ended from outside. Above connect (3 s) and read time-outs (10 s) of the clients, so
that only a wedged one, or an answer that dribbles, ever meets it."""

UPLOAD_BYTES_A_SECOND_MIN = 128 * 1024
"""What a put may take longer for its size: the clients have no deadline for writing a body."""

OPEN_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 5.0

OpenClient = Callable[[], AbstractAsyncContextManager[Store]]


class _Client:
    """One client with its puts under way. `idle` is set once it is retired and has none."""

    def __init__(self, store: Store, stack: AsyncExitStack) -> None:
        self.store = store
        self.stack = stack  # closes it
        self.puts = 0
        self.retired = False
        self.idle = asyncio.Event()

    def settle(self) -> None:
        if self.retired and self.puts == 0:
            self.idle.set()


class RenewingStore:
    """Implements `services.uploader.store.Store` over clients that come and go. Made by `renewing`."""

    def __init__(self, open_client: OpenClient, restarts: Counter) -> None:
        self._open_client = open_client
        self._restarts = restarts
        self._renewal = Renewal()
        self._client: _Client | None = None  # None: none could be made so far, and `_unmade` says why
        self._unmade: StoreError = ClientSetupError("credentials", "there is no S3 client yet")
        self._opening = False  # a renewal is under way: one at a time
        self._tasks: set[asyncio.Task[None]] = set()  # it, and the end of each client that was replaced; until `stop`

    async def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """Store one object; see `services.uploader.store.Store.put`."""
        client = self._client
        if client is None:
            self._renew(self._renewal.failed(self._unmade, time.monotonic()))
            raise type(self._unmade)(self._unmade.reason, str(self._unmade))
        deadline_s = PUT_DEADLINE_S + len(body) / UPLOAD_BYTES_A_SECOND_MIN
        client.puts += 1
        try:
            async with asyncio.timeout(deadline_s):
                await client.store.put(key, body, metadata)
        except TimeoutError as error:
            if client is self._client:
                self._renew(self._renewal.hung(time.monotonic()))
            raise TransientError("timeout", f"the put of {key} was not over after {deadline_s:.0f} s") from error
        except StoreError as error:
            if client is self._client:  # what a replaced client says is no word on its successor
                self._renew(self._renewal.failed(error, time.monotonic()))
            raise
        except Exception:  # a client that raises what no client of ours does: closed, say
            if client is self._client:
                self._renew(self._renewal.hung(time.monotonic()))
            raise
        else:
            if client is self._client:
                self._renewal.stored()
        finally:
            client.puts -= 1
            client.settle()

    async def open(self) -> None:
        """Make a client and let all further puts use it. The one before is closed when its puts are over.

        Raises:
            StoreError: there is no new client; the one before, if any, stays.

        """
        stack = AsyncExitStack()
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                store = await stack.enter_async_context(self._open_client())
        except TimeoutError as error:
            raise TransientError("timeout", f"no S3 client within {OPEN_TIMEOUT_S:.0f} s") from error
        before, self._client = self._client, _Client(store, stack)
        if before is not None:
            self._spawn(self._end(before))

    async def start(self) -> None:
        """Make the first client. Without credentials yet, puts fail with the reason until a later one can be made.

        Raises:
            ConfigurationError: there can be no client with these settings, however long one waits.

        """
        try:
            await self.open()
        except (ClientSetupError, TransientError) as error:
            self._unmade = error

    async def stop(self) -> None:
        """Close every client, with or without its puts."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    def _renew(self, decision: Renew | None) -> None:
        if decision is None or self._opening:
            return
        self._opening = True
        level = logging.WARNING if decision.first else logging.DEBUG
        log.log(level, "making the S3 client anew", extra={"reason": decision.reason})
        self._spawn(self._reopen(decision.reason, level))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reopen(self, reason: str, level: int) -> None:
        try:
            await self.open()
        except StoreError as error:
            self._unmade = error if isinstance(error, ConfigurationError) else self._unmade
            log.log(level, "no new S3 client; trying again", extra={"cause": str(error)})
        except Exception:  # whatever a client's making raises: the puts go on with the one before
            log.exception("no new S3 client; trying again")
        else:
            self._restarts.labels(reason=reason).inc()
        finally:
            self._opening = False

    async def _end(self, client: _Client) -> None:
        client.retired = True
        client.settle()
        try:
            await client.idle.wait()
        finally:
            await _close(client)


async def _close(client: _Client) -> None:
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await client.stack.aclose()
    except Exception as error:  # noqa: BLE001 - a client that cannot even be closed is left behind, not waited for
        log.warning("an S3 client did not close", extra={"cause": f"{type(error).__name__}: {error}"})


@asynccontextmanager
async def renewing(open_client: OpenClient, restarts: Counter) -> AsyncIterator[RenewingStore]:
    """A store over the clients that `open_client` makes; the last of them is closed when the context ends.

    Raises:
        ConfigurationError: there can be no client with these settings.

    """
    # No TaskGroup: it would wrap what is raised inside this context. The tasks end with the store.
    store = RenewingStore(open_client, restarts)
    try:
        await store.start()
        yield store
    finally:
        await store.stop()
