"""Clients that mean harm, or are very slow: many at once, in a process of their own, each with an end that is told.

Owns what each kind sends and what became of it. A program (`python -m tests.harness.hostile PLAN`), so that whoever
measures good clients meanwhile does not share its event loop; `Hostile` starts one and reads what it printed.
"""

import asyncio
import contextlib
import functools
import json
import re
import resource
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from tests.harness.processes import Process, Processes
from tests.harness.raw_http import PATH, post
from tests.harness.waiting import until

BOMB_BYTES = 10_000_000_000
"""Of a bomb, once decompressed."""

DRIP_S = 1.0
"""Between two bytes of a client that drips."""

_STALLED_BYTES = 64 * 1024
_MIB = 1024 * 1024
_ZSTD_BLOCK_BYTES = 128 * 1024
_WRITE_BYTES = 64 * 1024  # at once: fifty times ten megabytes would be copied where good clients are measured
_ANSWER_BYTES = 4096  # what is looked at of one
_REST_S = 0.2  # between two tries of one client
_FILES = 8192
_CODE = re.compile(rb'"code":\s*"([a-z_]+)"')
_GZIP = "Content-Encoding: gzip"
_LAST = "Connection: close"
VERSION = b"hostile"  # of their collections, by which the records of those that were written are known
_HELD = "held"
_CLOSED = "closed"


class Kind(StrEnum):
    """What a client does. All but the last four never send a body that could be taken."""

    HEAD = "head"  # drips its head
    HEADERS = "headers"  # sends many small headers, and no end of them
    BODY = "body"  # drips its body
    STALL = "stall"  # sends some of its body, and then nothing
    GZIP = "gzip"  # a bomb
    ZSTD = "zstd"
    DEAF = "deaf"  # asks again and again, and reads no answer
    LARGE = "large"  # 16 MiB, the largest body
    MANY = "many"  # as many payloads as are allowed, a byte each
    MANY_GZIP = "many_gzip"
    IDLE = "idle"  # one request, and then the connection stays


@dataclass(frozen=True, slots=True)
class Plan:
    """How many of each kind come at once, and come again until `seconds` are over.

    Attributes:
        port: of the ingest.
        kinds: how many of each.
        seconds: how long ended ones are replaced; 0 for none.
        give_up_s: after so long a client that has no end is told as held.
        token: sent as a bearer; empty for none.

    """

    port: int
    kinds: Mapping[Kind, int]
    seconds: float = 0
    give_up_s: float = 60
    token: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of them.

    Attributes:
        codes: how often which code, by kind; `200`, `closed` for a connection that ended without an answer, `held` for
            one that did not end.
        lasted_s: the longest time of one connection, by kind.

    """

    codes: dict[str, dict[str, int]] = field(default_factory=dict)
    lasted_s: dict[str, float] = field(default_factory=dict)

    def add(self, kind: Kind, code: str, lasted_s: float) -> None:
        """One connection has ended."""
        codes = self.codes.setdefault(kind, {})
        codes[code] = codes.get(code, 0) + 1
        self.lasted_s[kind] = max(self.lasted_s.get(kind, 0), lasted_s)

    @property
    def all_codes(self) -> Counter[str]:
        """How often which code, all kinds together."""
        return sum(map(Counter, self.codes.values()), Counter[str]())


class Hostile:
    """A started program of clients."""

    def __init__(self, processes: Processes, plan: Plan) -> None:
        self._process: Process = processes.python(
            "hostile", "tests.harness.hostile", json.dumps(asdict(plan)), environment={}
        )

    def wait_begun(self, *, deadline_s: float = 60) -> None:
        """Wait until each has connected once."""
        until(lambda: "begun" in self._process.output(), "the hostile clients to connect", deadline_s=deadline_s)

    @property
    def running(self) -> bool:
        """Whether one of them has not come to its end."""
        return self._process.returncode is None

    def told(self, *, deadline_s: float) -> Told:
        """Wait for all ends."""
        assert self._process.wait(deadline_s=deadline_s) == 0, self._process.tail()
        return Told(**json.loads(self._process.output().splitlines()[-1]))


@functools.cache
def gzip_bomb(size_bytes: int = BOMB_BYTES) -> bytes:
    """Zeros, a thousand times smaller, by repetition of one block; it has no checksum, which nobody ever reaches."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflate.compress(bytes(_MIB)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + block * (size_bytes // _MIB)


@functools.cache
def zstd_bomb(size_bytes: int = BOMB_BYTES) -> bytes:
    """Zeros, 30,000 times smaller: one frame of blocks that each say "one byte, 128 KiB times" (RFC 8878 §3.1.1.2)."""
    window_8_mib = 13 << 3
    head = struct.pack("<IBB", 0xFD2FB528, 0, window_8_mib)
    block, last = (struct.pack("<I", end | 1 << 1 | _ZSTD_BLOCK_BYTES << 3)[:3] + b"\x00" for end in (0, 1))
    return head + block * (size_bytes // _ZSTD_BLOCK_BYTES - 1) + last


@functools.cache
def _many() -> bytes:
    return b'{"version":"' + VERSION + b'","data":[' + b",".join([b"1"] * 10_000) + b"]}"


@functools.cache
def _large() -> bytes:
    item = b'"' + b"x" * 1_000_000 + b'"'
    return b'{"version":"' + VERSION + b'","data":[' + b",".join([item] * 16) + b"]}"


_SMALL = b'{"version":"' + VERSION + b'","data":[1]}'
_CUT = b'{"version":"' + VERSION + b'","data":["'

# What is sent as fast as it can be, given the headers that all have: of each kind.
_OPENINGS: dict[Kind, Callable[[Sequence[str]], bytes]] = {
    Kind.HEAD: lambda _: f"POST {PATH} HTTP/1.1\r\nX: ".encode(),
    Kind.HEADERS: lambda _: f"POST {PATH} HTTP/1.1\r\n".encode() + b"a:b\r\n" * 6000,
    Kind.BODY: lambda headers: post(_CUT, *headers, length=100_000),
    Kind.STALL: lambda headers: post(_CUT.ljust(_STALLED_BYTES, b"x"), *headers, length=_MIB),
    Kind.GZIP: lambda headers: post(gzip_bomb(), *headers, _LAST, _GZIP),
    Kind.ZSTD: lambda headers: post(zstd_bomb(), *headers, _LAST, "Content-Encoding: zstd"),
    Kind.DEAF: lambda headers: post(_many(), *headers) * 20,
    Kind.LARGE: lambda headers: post(_large(), *headers, _LAST),
    Kind.MANY: lambda headers: post(_many(), *headers, _LAST),
    Kind.MANY_GZIP: lambda headers: post(zlib.compress(_many(), wbits=31), *headers, _LAST, _GZIP),
    Kind.IDLE: lambda headers: post(_SMALL, *headers),
}


async def _send(kind: Kind, opening: bytes, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        for start in range(0, len(opening), _WRITE_BYTES):
            writer.write(opening[start : start + _WRITE_BYTES])
            await writer.drain()
        while kind in {Kind.HEAD, Kind.BODY}:
            await asyncio.sleep(DRIP_S)  # what makes it slow
            writer.write(b"y")
            await writer.drain()


async def _end(kind: Kind, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """What it is told, or how the connection ended."""
    if kind is Kind.DEAF:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        while not writer.transport.is_closing():
            await asyncio.sleep(_REST_S)  # an end that nobody tells who does not read
            writer.write(b" ")
        return _CLOSED
    answer = b""
    with contextlib.suppress(OSError):
        while piece := await reader.read(_MIB):
            answer = (answer + piece)[:_ANSWER_BYTES]  # its head may come before its body
    if answer.startswith(b"HTTP/1.1 200"):
        return "200"
    code = _CODE.search(answer)
    return code[1].decode() if code else _CLOSED


class _Crowd:
    """All clients of one plan."""

    def __init__(self, plan: Plan, begun: Callable[[], Awaitable[None]]) -> None:
        self.told = Told()
        self._plan = plan
        self._begun = begun
        self._until_s = time.monotonic() + plan.seconds

    async def client(self, kind: Kind, opening: bytes) -> None:
        """Come, and come again."""
        first = True
        while first or time.monotonic() < self._until_s:
            await self._once(kind, opening, first=first)
            first = False
            await asyncio.sleep(_REST_S)  # the pace of the attack

    async def _once(self, kind: Kind, opening: bytes, *, first: bool) -> None:
        began_s = time.monotonic()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._plan.port, limit=_MIB)
        except OSError:
            self.told.add(kind, _CLOSED, time.monotonic() - began_s)
            return
        if first:
            await self._begun()
        sending = asyncio.create_task(_send(kind, opening, writer))
        code = _HELD
        try:
            async with asyncio.timeout(self._plan.give_up_s):
                code = await _end(kind, reader, writer)
        except TimeoutError:
            pass
        finally:
            sending.cancel()
            await asyncio.wait({sending})
            writer.transport.abort()
        self.told.add(kind, code, time.monotonic() - began_s)


async def _run(plan: Plan) -> Told:
    missing = sum(plan.kinds.values())

    async def begun() -> None:
        nonlocal missing
        missing -= 1
        if not missing:
            sys.stdout.write("begun\n")

    headers = [f"Authorization: Bearer {plan.token}"] if plan.token else []
    # Before anybody connects: to make a bomb takes longer than a head's deadline on a busy machine.
    openings = {kind: _OPENINGS[kind](headers) for kind in plan.kinds}
    crowd = _Crowd(plan, begun)
    async with asyncio.TaskGroup() as group:
        for kind, count in plan.kinds.items():
            for _ in range(count):
                group.create_task(crowd.client(kind, openings[kind]))
    return crowd.told


def main() -> None:
    """Run the plan that is given as JSON; the last line that is printed is what became of it."""
    given = json.loads(sys.argv[1])
    kinds = {Kind(kind): count for kind, count in given.pop("kinds").items()}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(_FILES, hard)), hard))
    told = asyncio.run(_run(Plan(kinds=kinds, **given)))
    sys.stdout.write(json.dumps(asdict(told)) + "\n")


if __name__ == "__main__":
    main()
