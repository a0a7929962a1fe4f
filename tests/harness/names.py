"""Host names of a test's own, in this process's resolver or a child's, and addresses where nobody answers."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop

_SITE = """
import json, pathlib, socket, uvloop

NAMES = json.loads((pathlib.Path(__file__).parent / "names.json").read_text())

async def getaddrinfo(self, host, port, **named):
    name = host.decode() if isinstance(host, bytes) else host
    return [found for address in NAMES.get(name, [name]) for found in socket.getaddrinfo(address, port, **named)]

uvloop.Loop.getaddrinfo = getaddrinfo
"""


class Names:
    """What `socket.getaddrinfo` and both event loops say for the names that are given; for others what they always say.

    Attributes:
        addresses: by name, in the order of an answer; none at all is a name that does not resolve.
        asked: how often each was asked.

    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: dict[str, Sequence[str]] = {}
        self.asked: dict[str, int] = {}
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._resolve)
        monkeypatch.setattr(uvloop.Loop, "getaddrinfo", _in_a_thread)

    def _resolve(self, host: Any, port: Any, *arguments: Any, **named: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self.addresses:
            return self._real(host, port, *arguments, **named)
        self.asked[name] = self.asked.get(name, 0) + 1
        if not self.addresses[name]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            entry
            for address in self.addresses[name]
            for entry in self._real(address, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        ]


async def _in_a_thread(loop: asyncio.AbstractEventLoop, host: Any, port: Any, **named: Any) -> Any:
    return await loop.run_in_executor(None, lambda: socket.getaddrinfo(host, port, **named))


def names_of_a_child(directory: Path, addresses: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Variables that give a child on uvloop these names: it reads a start-up file that is written to `directory`."""
    (directory / "sitecustomize.py").write_text(_SITE)
    (directory / "names.json").write_text(json.dumps(dict(addresses)))
    return {"PYTHONPATH": str(directory)}


@contextlib.contextmanager
def black_hole(host: str, port: int) -> Iterator[None]:
    """Take connections on the address into a full backlog: a further one is neither taken nor refused."""
    with socket.socket() as listener, contextlib.ExitStack() as filling:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(64):
            client = filling.enter_context(socket.socket())
            client.settimeout(0.3)
            try:
                client.connect((host, port))
            except TimeoutError:
                break
        else:
            raise AssertionError("64 connections do not fill a backlog of none")
        yield
