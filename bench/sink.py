"""A stand-in for S3 that costs little: answers every PUT with 200 and the body's MD5 as ETag, after a fixed delay.

Runs as a process of its own, so that its CPU is not the uploader's; prints its port. Keeps nothing. It is no fake for
tests: it knows no faults, no signatures and no other method.
"""

import asyncio
import hashlib
import sys
from typing import cast

import httptools
import uvloop


class PutSink(asyncio.Protocol):
    """One connection. The client sends its next request only after the answer, as HTTP/1.1 clients of S3 do."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._digest = hashlib.md5(usedforsecurity=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the methods below."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._digest.update(body)

    def on_message_complete(self) -> None:
        """Answer after the delay."""
        answer = (
            b'HTTP/1.1 200 OK\r\nETag: "%s"\r\nx-amz-request-id: 1\r\nContent-Length: 0\r\n\r\n'
            % self._digest.hexdigest().encode()
        )
        self._digest = hashlib.md5(usedforsecurity=False)
        self._loop.call_later(self._delay_s, self._answer, answer)

    def _answer(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


async def main(delay_s: float) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: PutSink(delay_s), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1])))
