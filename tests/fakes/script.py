"""Faults by script: what a fake store does wrong, to which keys, how often, for how long.

Owns the vocabulary of faults and the question "does this request meet one?". Does no I/O: `FakeS3` acts a fault out on
a socket, `ScriptedStore` as an exception, so one contract suite can ask both for the same misfortune.
"""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Answer:
    """An S3 error document with this status and code; nothing is stored. Also with status 200: an error that says 200.

    `headers` go with the answer, `fields` into its document (`Region`, `Endpoint`): pairs of name and value.
    """

    status: int
    code: str
    headers: tuple[tuple[str, str], ...] = ()
    fields: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Altered:
    """Stored, and answered 200 with one header changed; with None, without that header."""

    header: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Delay:
    """The request succeeds, but its answer comes this many seconds late."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Dribble:
    """Stored, and the answer comes byte by byte, one every so many seconds: no single read of it ever times out."""

    every_s: float


class Cut(Enum):
    """A connection that goes wrong instead of an answer."""

    HANG = auto()
    """Nothing is stored and no answer comes until the fault is healed; then the connection is dropped."""
    STORE_THEN_HANG = auto()
    """Stored, and no answer until the fault is healed; then the connection is dropped."""
    RESET = auto()
    """The connection is reset before the body is read; nothing is stored."""
    STORE_THEN_DROP = auto()
    """Stored, then the connection is reset instead of an answer."""
    TRUNCATE = auto()
    """Stored, then the answer stops in the middle of its headers."""


Fault = Answer | Altered | Delay | Dribble | Cut

SLOW_DOWN = Answer(503, "SlowDown")
INTERNAL_ERROR = Answer(500, "InternalError")
ACCESS_DENIED = Answer(403, "AccessDenied")
NO_SUCH_BUCKET = Answer(404, "NoSuchBucket")
ENTITY_TOO_LARGE = Answer(400, "EntityTooLarge")
EXPIRED_TOKEN = Answer(400, "ExpiredToken")
WRONG_ETAG = Altered("ETag", f'"{"0" * 32}"')
NO_ETAG = Altered("ETag", None)


def wrong_region(region: str) -> Answer:
    """What S3 answers where the bucket is in another region: `region`."""
    return Answer(301, "PermanentRedirect", (("x-amz-bucket-region", region),), (("Endpoint", f"s3.{region}.test"),))


def any_key(_: str) -> bool:
    """The predicate that matches every key."""
    return True


@dataclass(slots=True)
class Injection:
    """One fault in the script.

    `hit` is set when it first strikes. `heal` ends it at once, from any thread, also for the requests that hang in it.
    """

    fault: Fault
    matches: Callable[[str], bool]
    method: str
    credential: str | None  # an access key id or a session token; None: whoever asks
    left: int | None  # strikes still to come; None: no limit
    until: float | None  # monotonic seconds at which it ends by itself; None: never
    hits: int = 0
    hit: threading.Event = field(default_factory=threading.Event)
    healed: bool = False
    _wakers: list[Callable[[], object]] = field(default_factory=list)  # of those that hang, each on its own loop

    def heal(self) -> None:
        """End the fault; requests that hang in it are dropped."""
        self.healed = True
        for wake in list(self._wakers):
            wake()

    async def wait_over(self, at_most_s: float | None = None) -> None:
        """Hang until the fault is over, or for `at_most_s` seconds."""
        loop = asyncio.get_running_loop()
        event = asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(event.set)

        self._wakers.append(wake)
        bounds = [at_most_s] if self.until is None else [at_most_s, self.until - time.monotonic()]
        try:
            if not self.over:
                await asyncio.wait_for(event.wait(), min((b for b in bounds if b is not None), default=None))
        except TimeoutError:
            pass
        finally:
            self._wakers.remove(wake)

    @property
    def over(self) -> bool:
        """Whether it was healed or its time is up. A used-up count does not end those that hang."""
        return self.healed or (self.until is not None and time.monotonic() >= self.until)


class Script:
    """The faults to come, first injected first struck. May be written from any thread."""

    def __init__(self) -> None:
        self._injections: list[Injection] = []
        self._lock = threading.Lock()  # a test's thread injects while the server's thread asks

    def inject(
        self,
        fault: Fault,
        *,
        times: int | None = None,
        for_s: float | None = None,
        key: Callable[[str], bool] = any_key,
        method: str = "PUT",
        credential: str | None = None,
    ) -> Injection:
        """Let requests of `method` on matching keys meet the fault.

        With `credential`, an access key id or a session token, only those that are signed with it: so a token expires.
        It ends after `times` strikes, after `for_s` seconds, or when healed, whichever comes first.
        """
        until = None if for_s is None else time.monotonic() + for_s
        injection = Injection(fault, key, method, credential, times, until)
        with self._lock:
            self._injections.append(injection)
        return injection

    def strike(self, method: str, key: str, credentials: frozenset[str] = frozenset()) -> Injection | None:
        """The injection that this request meets, counted as one strike of it; None: the request succeeds.

        `credentials`: the access key id and the session token that the request carries.
        """
        with self._lock:
            for injection in self._injections:
                if injection.over or injection.left == 0 or injection.method != method or not injection.matches(key):
                    continue
                if injection.credential is not None and injection.credential not in credentials:
                    continue
                if injection.left is not None:
                    injection.left -= 1
                injection.hits += 1
                injection.hit.set()
                return injection
        return None

    def heal(self) -> None:
        """End every fault."""
        with self._lock:
            for injection in self._injections:
                injection.heal()
            self._injections.clear()


@dataclass(frozen=True, slots=True)
class Version:
    """One successful write of a key. `sequence` orders the writes of a store over all its keys.

    `headers` are those of the request, names in lower case; empty where no HTTP was spoken.
    """

    body: bytes
    metadata: dict[str, str]
    content_type: str
    sequence: int
    headers: Mapping[str, str] = field(default_factory=dict)


class Shelf:
    """Every version of every key that was written, oldest first. May be read while it is written."""

    def __init__(self) -> None:
        self._versions: dict[str, list[Version]] = {}
        self._sequence = itertools.count(1)
        self._lock = threading.Lock()  # an oracle's thread reads while the server's thread writes
        self.writes = 0

    def store(
        self,
        key: str,
        body: bytes,
        metadata: dict[str, str],
        content_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> Version:
        """Append a version, and give it back."""
        with self._lock:
            version = Version(body, metadata, content_type, next(self._sequence), headers or {})
            self._versions.setdefault(key, []).append(version)
            self.writes += 1
            return version

    def remove(self, key: str) -> None:
        """Forget the key with all its versions."""
        with self._lock:
            self._versions.pop(key, None)

    def current(self, key: str) -> Version | None:
        """What a GET answers."""
        with self._lock:
            versions = self._versions.get(key)
            return versions[-1] if versions else None

    def versions(self) -> dict[str, tuple[Version, ...]]:
        """A copy of everything, by key."""
        with self._lock:
            return {key: tuple(versions) for key, versions in self._versions.items()}

    def names(self) -> list[str]:
        """All keys in the order of a listing."""
        with self._lock:
            return sorted(self._versions)

    def __len__(self) -> int:
        return len(self._versions)
