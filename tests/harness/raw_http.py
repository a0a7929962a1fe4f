"""A client that says exactly what it is told to, byte by byte, and reads what comes. For tests of a server's edges."""

import asyncio
from typing import Self

from tests.harness.http_client import Answer

PATH = "/v1/collections"
DEADLINE_S = 20


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A request as bytes; `length` is told in place of the body's own."""
    lines = [f"POST {PATH} HTTP/1.1", "Host: x", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> Self:
        """Connect to this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def send(self, data: bytes) -> None:
        """Write the bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, head_only: bool = False) -> Answer:
        """Read one answer.

        Raises:
            asyncio.IncompleteReadError: the connection ended before it.

        """
        async with asyncio.timeout(DEADLINE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            length = 0 if head_only else int(headers.get("content-length", "0"))
            return Answer(int(head[0].split()[1]), headers, await self.reader.readexactly(length))

    async def ask(self, data: bytes) -> Answer:
        """Send, and read one answer."""
        await self.send(data)
        return await self.answer()

    async def ended(self) -> bytes:
        """Wait until the server has closed; what came before that and was not read yet."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read()
