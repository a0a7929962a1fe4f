"""A small S3 server over real HTTP that keeps every version written and breaks by script.

Owns a listener on loopback and a thread with an event loop; tests drive it from their own thread. It speaks what an
uploader and an oracle need (buckets; PUT, GET, HEAD, DELETE of objects; ListObjectsV2), one bucket deep, path-style.
It checks what S3 checks of a PUT, the hashes of the body, `If-None-Match: *` and that a signature is there, but not the
signature itself. Every version keeps the headers of its request.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from aiohttp import web

from tests.fakes.s3_answers import error_document, listing, object_headers, refusal
from tests.fakes.script import (
    ACCESS_DENIED,
    NO_SUCH_BUCKET,
    Altered,
    Answer,
    Cut,
    Delay,
    Dribble,
    Injection,
    Script,
    Shelf,
    Version,
)

_BODY_BYTES_MAX = 256 * 1024 * 1024
_PREFIX = "x-amz-meta-"


class FakeS3:
    """A context manager: listening from `__enter__` to `__exit__`, on a port of its own that it keeps over `refuse`.

    Attributes:
        script: the faults to come.
        on_stored: called in the server's thread with (key, number of writes so far) when a PUT is stored and *before*
            it is answered; the place to kill an uploader between PUT and commit.

    """

    def __init__(self) -> None:
        self.script = Script()
        self.on_stored: Callable[[str, int], None] | None = None
        self._buckets: dict[str, Shelf] = {}
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-s3", daemon=True)
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.script.heal()
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def environment(self) -> dict[str, str]:
        """The variables that point an S3 client here."""
        return {
            "S3_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create_bucket(self, name: str) -> Shelf:
        """Make the bucket if it is not there; its shelf shows what was written."""
        return self._buckets.setdefault(name, Shelf())

    def refuse(self) -> None:
        """Close the listener and drop every connection: connecting is refused until `listen`."""
        self._run(self._refuse())

    def listen(self) -> None:
        """Listen again, on the same port."""
        self._run(self._listen())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self) -> None:
        app = web.Application(client_max_size=_BODY_BYTES_MAX)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # A handler must live on when its client dies: S3 stores what it has received of a killed uploader, too.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen()

    async def _listen(self) -> None:
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def _refuse(self) -> None:
        assert self._site is not None
        await self._site.stop()
        self._drop_all()

    def _drop_all(self) -> None:
        if self._runner is not None and self._runner.server is not None:
            for connection in list(self._runner.server.connections):
                if connection.transport is not None:
                    connection.transport.abort()

    async def _close(self) -> None:
        self._drop_all()
        if self._runner is not None:
            await self._runner.cleanup()
        # Requests that still hang or dribble: a loop that is closed under them would complain of each.
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        bucket, _, key = unquote(request.raw_path.partition("?")[0])[1:].partition("/")
        injection = self.script.strike(request.method, key, _credentials(request))
        fault = None if injection is None else injection.fault
        if fault is Cut.RESET:
            return _reset(request)
        body = await request.read()
        if isinstance(fault, Answer):
            return _error(fault, key)
        if injection is not None and fault is Cut.HANG:
            return await _hang(request, injection)
        answer = self._answer(request, bucket, key, body)
        if injection is None or answer.status >= 400:  # an error of its own comes first
            return answer
        return await _misbehave(request, injection, answer)

    def _answer(self, request: web.Request, bucket: str, key: str, body: bytes) -> web.Response:
        if "Authorization" not in request.headers and "X-Amz-Signature" not in request.query:
            return _error(ACCESS_DENIED, key)
        shelf = self.create_bucket(bucket) if request.method == "PUT" and not key else self._buckets.get(bucket)
        if shelf is None:
            return _error(NO_SUCH_BUCKET, key)
        if not key:
            return _xml(listing(bucket, shelf, request.query)) if request.method == "GET" else web.Response()
        match request.method:
            case "PUT":
                return self._put(request, shelf, key, body)
            case "DELETE":
                shelf.remove(key)
                return web.Response(status=204)
            case _:
                wanted = request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
                return _object(shelf.current(key), key, checksums=wanted)

    def _put(self, request: web.Request, shelf: Shelf, key: str, body: bytes) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        refused = refusal(headers, body, exists=shelf.current(key) is not None)
        if refused is not None:
            return _error(refused, key)
        metadata = {name[len(_PREFIX) :]: value for name, value in headers.items() if name.startswith(_PREFIX)}
        stored = shelf.store(key, body, metadata, headers.get("content-type", "binary/octet-stream"), headers)
        if self.on_stored is not None:
            self.on_stored(key, shelf.writes)
        return web.Response(headers=object_headers(stored, checksums=True))


def _credentials(request: web.Request) -> frozenset[str]:
    """The access key id and the session token that a request carries, in its headers or its query."""
    signed = request.headers.get("Authorization", "") or f"Credential={request.query.get('X-Amz-Credential', '')}"
    access_key = re.search(r"Credential=([^/,\s]+)", signed)
    token = request.headers.get("x-amz-security-token", request.query.get("X-Amz-Security-Token", ""))
    return frozenset({access_key[1] if access_key else "", token} - {""})


def _xml(document: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=document, content_type="application/xml")


def _error(answer: Answer, key: str) -> web.Response:
    response = _xml(error_document(answer, key), answer.status)
    response.headers.extend(answer.headers)
    return response


def _object(version: Version | None, key: str, *, checksums: bool) -> web.Response:
    if version is None:
        return _error(Answer(404, "NoSuchKey"), key)
    headers: Mapping[str, str] = {
        **object_headers(version, checksums=checksums),
        "Content-Type": version.content_type,
        **{_PREFIX + name: value for name, value in version.metadata.items()},
    }
    return web.Response(body=version.body, headers=headers)


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)  # goes nowhere: the transport is gone


async def _hang(request: web.Request, injection: Injection) -> web.Response:
    await injection.wait_over()
    return _reset(request)


async def _misbehave(request: web.Request, injection: Injection, answer: web.Response) -> web.Response:
    """What happens to the answer of a request that was served (and, if a PUT, stored)."""
    match injection.fault:
        case Delay(delay_s):
            await asyncio.sleep(delay_s)
            return answer
        case Altered(header, value):
            answer.headers.popall(header, None)
            if value is not None:
                answer.headers[header] = value
            return answer
        case Dribble(every_s) if request.transport is not None:
            return await _dribble(request, request.transport, every_s, answer)
        case Cut.STORE_THEN_HANG:
            return await _hang(request, injection)
        case Cut.TRUNCATE if request.transport is not None:
            request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: ")
            request.transport.close()
            return answer
        case _:
            return _reset(request)


async def _dribble(
    request: web.Request, transport: asyncio.Transport, every_s: float, answer: web.Response
) -> web.Response:
    head = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    for byte in f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{head}\r\n".encode():
        if transport.is_closing():
            break
        transport.write(bytes([byte]))
        await asyncio.sleep(every_s)
    return _reset(request)
